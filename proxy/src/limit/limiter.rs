//! The one that decides: classes, which may change while it runs, over keys that live on.
//!
//! Purpose: [`Limiter::check`] for whoever has a class's name and a key (policies), and the same by class for the
//! steps of a request.
//!
//! Invariants: a check waits for nothing and allocates nothing where it admits; a change of classes is one swap, and
//! the keys of classes that stay go on with what they have spent.

use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use sha2::{Digest as _, Sha256};

use super::backend::Keys;
use super::class::{Class, Classes, LimitsConfig};
use super::denied::{Denied, Word};
use super::streams::{Asking, Excess, Streams, nanoseconds};

/// Where the limiter's clock begins, so that zero lies in the past.
const DAWN: u64 = 3_600_000_000_000;

/// See the module.
#[derive(Debug)]
pub struct Limiter {
    epoch: Instant,
    seed: RandomState,
    /// Whether there is any class: asked for every request.
    any: AtomicBool,
    classes: ArcSwap<Classes>,
}

/// What a check comes to.
#[derive(Debug)]
#[must_use]
pub enum Verdict {
    /// A token was spent.
    Admitted,
    /// There is none.
    Refused(Denied),
}

impl Limiter {
    /// A limiter that decides in this process.
    #[must_use]
    pub fn embedded(config: &LimitsConfig) -> Arc<Self> {
        let limiter = Self {
            epoch: Instant::now(),
            seed: RandomState::new(),
            any: AtomicBool::new(false),
            classes: ArcSwap::default(),
        };
        limiter.replace(config);
        Arc::new(limiter)
    }

    /// Puts other classes in the place of those that are.
    pub fn replace(&self, config: &LimitsConfig) {
        self.classes.rcu(|before| Classes::new(config, before, false));
        self.any.store(!self.classes.load().is_empty(), Ordering::Release);
    }

    /// Spends a token of `key` in the class of this name; a class that does not exist limits nothing.
    pub fn check(&self, class: &str, key: &[u8]) -> Verdict {
        match self.classes().named(class) {
            Some(class) => self.take(class, key, self.now()),
            None => Verdict::Admitted,
        }
    }

    /// Whether there is no class at all.
    pub(crate) fn is_idle(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    pub(crate) fn classes(&self) -> Guard<Arc<Classes>> {
        self.classes.load()
    }

    /// The limiter's clock at `instant`.
    pub(crate) fn at(&self, instant: Instant) -> u64 {
        DAWN + nanoseconds(instant.saturating_duration_since(self.epoch))
    }

    pub(crate) fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.seed.hash_one(key)
    }

    /// Spends a token of `key`.
    pub(crate) fn take(&self, class: &Class, key: &[u8], now: u64) -> Verdict {
        let Keys::Embedded(table) = &*class.keys;
        let taken =
            table.with(self.hash(key), now, |bucket| class.gcra.take(bucket.0, now, 1).map(|next| bucket.0 = next));
        match taken {
            Ok(()) => {
                class.counts.admitted.add(1);
                Verdict::Admitted
            }
            Err(wait) => refused(class, key, Word::RateLimited, wait),
        }
    }

    /// Whether a session of `listener` may play.
    pub(crate) fn play(&self, streams: &Streams, listener: &[u8], asking: Asking) -> Verdict {
        let admit = |sessions: &mut super::streams::Listener| sessions.admit(&streams.config, asking);
        let (word, wait) = match streams.listeners.with(self.hash(listener), asking.now, admit) {
            Ok(()) => {
                streams.counts.admitted.add(1);
                return Verdict::Admitted;
            }
            Err(Excess::Full(wait)) => (Word::TooManyStreams, wait),
            Err(Excess::Stopped(wait)) => (Word::StreamStopped, wait),
        };
        streams.counts.refused.add(1);
        if streams.config.shadow {
            return Verdict::Admitted;
        }
        Verdict::Refused(Denied {
            word,
            class: Arc::clone(&streams.name),
            quota: streams.config.max,
            window: streams.config.grace,
            partition: partition(listener),
            retry: Duration::from_nanos(wait),
        })
    }

    /// A session was given media.
    pub(crate) fn played(&self, streams: &Streams, listener: u64, sid: u64, media: Duration) {
        let now = self.now();
        streams.listeners.known(listener, |sessions| sessions.extend(sid, now, nanoseconds(media)));
    }

    /// The Prometheus text.
    pub(crate) fn metrics_text(&self) -> String {
        let mut text = String::new();
        let classes = self.classes();
        let limits = classes.all().map(|class| (&class.name, &class.counts, class.config.shadow));
        let streams = classes.all_streams().map(|streams| (&streams.name, &streams.counts, streams.config.shadow));
        let mut decisions = Vec::new();
        for (sort, name, counts, shadow) in
            limits.map(|(a, b, c)| ("rate", a, b, c)).chain(streams.map(|(a, b, c)| ("streams", a, b, c)))
        {
            let refused = if shadow { "shadow-refused" } else { "refused" };
            for (decision, counter) in [("admitted", &counts.admitted), (refused, &counts.refused)] {
                let labels = format!("{{sort=\"{sort}\",class=\"{name}\",decision=\"{decision}\"}}");
                decisions.push(format!("{labels} {}", counter.get()));
            }
        }
        family(&mut text, "segue_limit_decisions_total", "counter", "Decisions of limits, by class.", &decisions);
        let now = self.now();
        let (mut busy, mut forgotten) = (Vec::new(), Vec::new());
        for class in classes.all() {
            let Keys::Embedded(table) = &*class.keys;
            busy.push(format!("{{class=\"{}\"}} {}", class.name, table.busy(now)));
            forgotten.push(format!("{{class=\"{}\"}} {}", class.name, table.forgotten.get()));
        }
        family(&mut text, "segue_limit_keys", "gauge", "Keys whose bucket is not full.", &busy);
        let help = "Keys that were forgotten while their bucket was not full, for want of room.";
        family(&mut text, "segue_limit_keys_forgotten_total", "counter", help, &forgotten);
        text
    }
}

pub(crate) fn refused(class: &Class, key: &[u8], word: Word, wait: u64) -> Verdict {
    class.counts.refused.add(1);
    if class.config.shadow {
        return Verdict::Admitted;
    }
    Verdict::Refused(Denied {
        word,
        class: Arc::clone(&class.name),
        quota: class.config.burst,
        window: Duration::from_secs_f64(f64::from(class.config.burst) / class.config.rate),
        partition: partition(key),
        retry: Duration::from_nanos(wait),
    })
}

/// What a client may know of its key: enough to tell two apart, too little to name one.
fn partition(key: &[u8]) -> [u8; 6] {
    let digest: [u8; 32] = Sha256::digest(key).into();
    let mut partition = [0; 6];
    partition.copy_from_slice(digest.get(..6).unwrap_or(&[0; 6]));
    partition
}

fn family(text: &mut String, name: &str, kind: &str, help: &str, samples: &[String]) {
    if samples.is_empty() {
        return;
    }
    // Writing to a String does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for sample in samples {
        let _ = writeln!(text, "{name}{sample}");
    }
}
