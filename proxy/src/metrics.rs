//! What an edge counts, in Prometheus' text format.
//!
//! Invariants: label values come from closed sets (statuses, reason words, cache states); nothing that a client
//! writes becomes a label. Counting on the hit path is one relaxed addition each.

mod door;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use segue_events::{CacheState, EventLog};

use crate::lock::Mutex;
use crate::refusal::OriginFailure;
use door::DoorMetrics;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that rises and falls.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    pub(crate) fn add(&self, by: i64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, by: i64) {
        self.0.fetch_sub(by, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

const STATES: [CacheState; 6] = [
    CacheState::HitMemory,
    CacheState::HitDisk,
    CacheState::Miss,
    CacheState::Coalesced,
    CacheState::Stale,
    CacheState::Bypass,
];

/// Everything that is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By status class (2xx to 5xx) and cache state.
    served: [[Counter; STATES.len()]; 4],
    /// By reason word; refusals are not the hot path, so a lock will do.
    refused: Mutex<BTreeMap<(&'static str, char), u64>>,
    origin_errors: Mutex<BTreeMap<(String, &'static str), u64>>,
    pub(crate) bytes: Counter,
    pub(crate) aborted: Counter,
    pub(crate) connections: Gauge,
    pub(crate) accept_errors: Counter,
    pub(crate) panics: Counter,
    pub(crate) fills: Counter,
    pub(crate) fills_failed: Counter,
    pub(crate) fills_running: Gauge,
    pub(crate) fill_bytes: Counter,
    pub(crate) origin_requests: Counter,
    pub(crate) origin_retries: Counter,
    pub(crate) origin_retries_refused: Counter,
    pub(crate) origin_connections: Counter,
    pub(crate) origin_fallbacks: Counter,
    pub(crate) origin_circuits: Counter,
    pub(crate) waiters_refused: Counter,
    pub(crate) variants_dropped: Counter,
    pub(crate) purges: Counter,
    pub(crate) snapshots: Counter,
    pub(crate) snapshots_refused: Counter,
    pub(crate) timelines_missing: Counter,
    pub(crate) door: DoorMetrics,
    pub(crate) playlist_escapes: Counter,
    pub(crate) content_keys: Counter,
    pub(crate) content_keys_refused: Counter,
    pub(crate) prefetches: Counter,
    pub(crate) prefetches_used: Counter,
    pub(crate) prefetches_wasted: Counter,
    pub(crate) prefetches_dropped: Counter,
    pub(crate) reloads: Counter,
    pub(crate) reloads_refused: Counter,
}

/// What is read off other parts at the moment of asking.
pub(crate) struct Readings {
    pub(crate) cache_bytes: u64,
    pub(crate) cache_objects: usize,
    /// Files of hot bodies: how many, their bytes, and how often one could not be made.
    pub(crate) files: (usize, u64, u64),
    pub(crate) tickets: usize,
    pub(crate) ticket_misses: u64,
    pub(crate) revision: u64,
    pub(crate) keys: Vec<(String, u64)>,
    /// What parts of the edge count by themselves.
    pub(crate) families: Vec<Family>,
}

/// One metric and its samples: labels, and value.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: Vec<(String, u64)>,
}

impl Family {
    pub(crate) fn counter(name: &'static str, help: &'static str, samples: Vec<(String, u64)>) -> Self {
        Self { name, kind: "counter", help, samples }
    }

    pub(crate) fn gauge(name: &'static str, help: &'static str, samples: Vec<(String, u64)>) -> Self {
        Self { name, kind: "gauge", help, samples }
    }
}

impl Metrics {
    /// An answer with an object, or a 304.
    pub(crate) fn served(&self, status: u16, state: CacheState, bytes: u64) {
        let class = usize::from(status / 100).saturating_sub(2);
        let place = STATES.iter().position(|known| *known == state);
        if let Some(counter) = place.and_then(|place| self.served.get(class)?.get(place)) {
            counter.add(1);
        }
        self.bytes.add(bytes);
    }

    /// Sums for a report to the control plane.
    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        let requests = self.served.iter().flatten().map(Counter::get).sum();
        let refusals = self.refused.lock().values().sum();
        let count = |gauge: &Gauge| u64::try_from(gauge.get()).unwrap_or(0);
        [
            ("requests", requests),
            ("refusals", refusals),
            ("bytes", self.bytes.get()),
            ("aborted", self.aborted.get()),
            ("connections", count(&self.connections)),
            ("fills", self.fills.get()),
            ("fills_failed", self.fills_failed.get()),
            ("origin_requests", self.origin_requests.get()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// An answer without one. `class` is the status's first digit.
    pub(crate) fn refused(&self, reason: &'static str, class: &str) {
        let class = class.chars().next().unwrap_or('4');
        *self.refused.lock().entry((reason, class)).or_default() += 1;
    }

    /// Something that an origin did wrong; each attempt counts.
    pub(crate) fn origin_error(&self, origin: &str, failure: OriginFailure) {
        *self.origin_errors.lock().entry((origin.to_owned(), failure.kind())).or_default() += 1;
    }

    /// The Prometheus text.
    pub(crate) fn render(&self, readings: &Readings, events: Option<&EventLog>) -> String {
        let mut text = Text(String::with_capacity(8192));
        text.family("segue_requests_total", "counter", "Answers with an object, by status class and cache state.");
        for (class, states) in self.served.iter().enumerate() {
            for (state, counter) in STATES.iter().zip(states) {
                let labels = format!("class=\"{}xx\",cache=\"{}\"", class + 2, state.as_str());
                text.sample("segue_requests_total", &labels, counter.get());
            }
        }
        text.family("segue_refusals_total", "counter", "Answers without an object, by reason and status class.");
        for ((reason, class), count) in self.refused.lock().iter() {
            let labels = format!("reason=\"{reason}\",class=\"{class}xx\"");
            text.sample("segue_refusals_total", &labels, *count);
        }
        text.family("segue_origin_errors_total", "counter", "Failed attempts at an origin, by origin and reason.");
        for ((origin, reason), count) in self.origin_errors.lock().iter() {
            let labels = format!("origin=\"{}\",reason=\"{reason}\"", escaped(origin));
            text.sample("segue_origin_errors_total", &labels, *count);
        }
        for (name, help, counter) in [
            ("segue_bytes_total", "Body bytes that the kernel took.", &self.bytes),
            ("segue_aborted_total", "Answers that ended before their last byte.", &self.aborted),
            ("segue_accept_errors_total", "Connections that could not be accepted.", &self.accept_errors),
            ("segue_panics_total", "Requests that ended in a panic.", &self.panics),
            ("segue_fills_total", "Fills begun.", &self.fills),
            ("segue_fills_failed_total", "Fills that failed.", &self.fills_failed),
            ("segue_fill_bytes_total", "Bytes that fills received.", &self.fill_bytes),
            ("segue_origin_requests_total", "Requests sent to origins, retries included.", &self.origin_requests),
            ("segue_origin_retries_total", "Requests sent again.", &self.origin_retries),
            (
                "segue_origin_retries_refused_total",
                "Requests not sent again, since the budget of retries was spent.",
                &self.origin_retries_refused,
            ),
            ("segue_origin_connections_total", "Connections opened to origins.", &self.origin_connections),
            ("segue_origin_fallbacks_total", "Requests that went on to a fallback.", &self.origin_fallbacks),
            ("segue_origin_circuits_total", "Times that an origin was left alone.", &self.origin_circuits),
            ("segue_waiters_refused_total", "Requests that would have waited too long.", &self.waiters_refused),
            (
                "segue_variants_dropped_total",
                "Variants that made room for another one of their URL.",
                &self.variants_dropped,
            ),
            ("segue_purges_total", "Purges asked for on this edge.", &self.purges),
            ("segue_snapshots_total", "Snapshots taken over.", &self.snapshots),
            ("segue_snapshots_refused_total", "Snapshots that could not be used.", &self.snapshots_refused),
            ("segue_config_reloads_total", "Changed configuration files taken over.", &self.reloads),
            ("segue_config_refused_total", "Changed configuration files that are wrong.", &self.reloads_refused),
            (
                "segue_timelines_missing_total",
                "Segments whose place in the track was not found.",
                &self.timelines_missing,
            ),
            (
                "segue_playlist_escapes_total",
                "Playlists from an origin with URIs that a ticket in the path does not reach.",
                &self.playlist_escapes,
            ),
            ("segue_content_keys_total", "Content keys unwrapped.", &self.content_keys),
            (
                "segue_content_keys_refused_total",
                "Content keys that no wrapping key of this edge opens.",
                &self.content_keys_refused,
            ),
            ("segue_prefetches_total", "Segments fetched before they were asked for.", &self.prefetches),
            ("segue_prefetches_used_total", "Of those, asked for since.", &self.prefetches_used),
            ("segue_prefetches_wasted_total", "Of those, failed or gone before that.", &self.prefetches_wasted),
            ("segue_prefetches_dropped_total", "Prefetches for which there was no room.", &self.prefetches_dropped),
        ] {
            text.family(name, "counter", help);
            text.sample(name, "", counter.get());
        }
        text.family("segue_ticket_verifications_total", "counter", "Tickets verified in full.");
        text.sample("segue_ticket_verifications_total", "", readings.ticket_misses);
        text.family("segue_key_accepted_total", "counter", "Tickets and URLs accepted, by key.");
        for (kid, count) in &readings.keys {
            text.sample("segue_key_accepted_total", &format!("kid=\"{}\"", escaped(kid)), *count);
        }
        for (name, help, value) in [
            ("segue_connections", "Open client connections.", self.connections.get()),
            ("segue_fills_running", "Fills under way.", self.fills_running.get()),
            ("segue_cache_bytes", "Bytes in memory.", i64::try_from(readings.cache_bytes).unwrap_or(i64::MAX)),
            ("segue_cache_objects", "Objects in memory.", i64::try_from(readings.cache_objects).unwrap_or(i64::MAX)),
            (
                "segue_tickets",
                "Verified tickets that are remembered.",
                i64::try_from(readings.tickets).unwrap_or(i64::MAX),
            ),
            (
                "segue_snapshot_revision",
                "Revision of the snapshot.",
                i64::try_from(readings.revision).unwrap_or(i64::MAX),
            ),
        ] {
            text.family(name, "gauge", help);
            text.sample(name, "", value);
        }
        self.door.render(&mut text);
        let (files, bytes, failed) = readings.files;
        text.family("segue_cache_files", "gauge", "Hot bodies in memory that are sent without a copy.");
        text.sample("segue_cache_files", "", files);
        text.family("segue_cache_files_bytes", "gauge", "Bytes of those, which count to the memory tier.");
        text.sample("segue_cache_files_bytes", "", bytes);
        text.family("segue_cache_files_failed_total", "counter", "Hot bodies that could get no file.");
        text.sample("segue_cache_files_failed_total", "", failed);
        for family in &readings.families {
            text.family(family.name, family.kind, family.help);
            for (labels, value) in &family.samples {
                text.sample(family.name, labels, value);
            }
        }
        if let Some(events) = events {
            text.family("segue_fact_overflow_total", "counter", "Facts and denials that did not fit, by reason.");
            for (reason, count) in events.overflow().by_reason() {
                text.sample("segue_fact_overflow_total", &format!("reason=\"{reason}\""), count);
            }
        }
        text.0
    }
}

/// A label value that an operator chose (Prometheus text format: backslash, quote and line end are escaped).
pub(crate) fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = if labels.is_empty() {
            writeln!(self.0, "{name} {value}")
        } else {
            writeln!(self.0, "{name}{{{labels}}} {value}")
        };
    }
}
