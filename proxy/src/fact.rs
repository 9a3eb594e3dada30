//! The last step: one fact for each segment and init segment that was delivered.
//!
//! Invariants: the intent is noted before the last write, so that a process which dies between write and record still
//! leaves the fact; it is settled after the kernel took the last byte. An answer that ends early settles as not
//! complete, with what was sent. HEAD is no delivery, a 304 is one. Nothing here waits.
//!
//! On failure: a log that is full counts what it drops; the listener's request is not touched.

pub(crate) mod cmcd;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;

use http::HeaderMap;
use http::header::USER_AGENT;
use pingora_http::RequestHeader;
use segue_events::{CacheState, DenialDraft, EventLog, FactDraft, Intent, Kind};

use crate::edge::Shared;
use crate::exchange::{Asked, Exchange};
use crate::refusal::Refusal;
use crate::route::{ObjectKind, line};
use crate::snapshot::unix_ms;
use crate::timeline::Media;

const DAY_MS: u64 = 86_400_000;

/// What an answer turned out to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivered {
    pub(crate) status: u16,
    /// Bytes that the body is meant to have.
    pub(crate) bytes: u64,
    pub(crate) range: Option<[u64; 3]>,
    pub(crate) state: CacheState,
    pub(crate) media: Option<Media>,
    /// Milliseconds from the request to the answer's first byte.
    pub(crate) ttfb_ms: u32,
}

/// The fact of one answer, from before its last write to after it.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// Not an answer that makes a fact.
    None,
    Noted(Intent),
}

impl Delivery {
    /// Notes the fact of `exchange`, if it is one.
    pub(crate) fn note<'h>(
        shared: &Shared,
        exchange: &Exchange,
        asked: impl Into<Asked<'h>>,
        delivered: Delivered,
    ) -> Self {
        let asked = asked.into();
        let (Some(events), Some(target)) = (&shared.events, &exchange.target) else { return Self::None };
        if !target.kind.is_media() || *asked.method != http::Method::GET {
            return Self::None;
        }
        let _step = tracing::trace_span!("fact").entered();
        let stand_in;
        let address = exchange.client.map(|client| shared.addresses.hash(client));
        let (sid, sub) = match &exchange.grant {
            Some(grant) => (grant.sid.as_str(), grant.claims.sub.as_deref()),
            None => {
                // Without tickets an address is the nearest thing to a session.
                stand_in = format!("anonymous-{}", address.as_deref().unwrap_or("nobody"));
                (stand_in.as_str(), None)
            }
        };
        let cmcd = cmcd::read(asked.headers, asked.query);
        let intent = events.note(FactDraft {
            ts: None,
            track: target.track(),
            version: target.version(),
            file: target.file_in_version(),
            kind: if target.kind == ObjectKind::Init { Kind::Init } else { Kind::Segment },
            pos_ms: delivered.media.map(|media| media.pos_ms),
            media_ms: delivered.media.map(|media| media.media_ms),
            sid,
            sub,
            status: delivered.status,
            bytes: delivered.bytes,
            range: delivered.range,
            ttfb_ms: delivered.ttfb_ms,
            cache: delivered.state,
            policy: None,
            tags: &[],
            ua: user_agent(asked.headers),
            ip_hash: address.as_deref(),
            cmcd: cmcd.as_ref(),
        });
        Self::Noted(intent)
    }

    /// Settles it: whether the kernel took all bytes, and how many of the body it took.
    pub(crate) fn settle(self, complete: bool, bytes: u64) {
        if let Self::Noted(intent) = self {
            intent.settle(complete, bytes);
        }
    }
}

/// Records a refusal of a listener.
pub(crate) fn deny(shared: &Shared, exchange: &Exchange, header: &RequestHeader, refusal: &Refusal) {
    let Some(events) = &shared.events else { return };
    let address = exchange.client.map(|client| shared.addresses.hash(client));
    let shown = line(header);
    record_denial(
        events,
        DenialDraft {
            ts: None,
            track: exchange.target.as_ref().map(|target| target.track()),
            // Never the path carrier: a refused ticket may be somebody's valid one.
            path: exchange.target.as_ref().map_or(shown.path, |target| target.path.as_str()),
            reason: refusal.reason(),
            status: refusal.status().as_u16(),
            sid: exchange.grant.as_ref().map(|grant| grant.sid.as_str()),
            ip_hash: address.as_deref(),
            ua: user_agent(&header.headers),
        },
    );
}

fn record_denial(events: &EventLog, denial: DenialDraft<'_>) {
    events.deny(denial);
}

fn user_agent(headers: &HeaderMap) -> Option<&str> {
    headers.get(USER_AGENT).and_then(|value| value.to_str().ok())
}

/// Keyed hashes of client addresses: equal within a day and a life of the process, otherwise unlinkable.
pub(crate) struct AddressHash {
    /// SipHash with keys from the operating system's randomness.
    keyed: RandomState,
}

impl AddressHash {
    pub(crate) fn new() -> Self {
        Self { keyed: RandomState::new() }
    }

    /// 16 hexadecimal digits.
    pub(crate) fn hash(&self, client: IpAddr) -> String {
        let mut hasher = self.keyed.build_hasher();
        hasher.write_u64(unix_ms() / DAY_MS);
        match client {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()),
        }
        format!("{:016x}", hasher.finish())
    }
}
