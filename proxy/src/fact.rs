//! The last step: one fact for each segment and init segment that was delivered.
//!
//! Invariants: the intent is noted before the last write, so that a process which dies between write and record still
//! leaves the fact; it is settled after the kernel took the last byte. An answer that ends early settles as not
//! complete, with what was sent. HEAD is no delivery, a 304 is one. Nothing here waits.
//!
//! On failure: a log that is full counts what it drops; the listener's request is not touched.

pub(crate) mod cmcd;
pub(crate) mod shipping;

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;
use http::header::USER_AGENT;
use percent_encoding::percent_decode_str;
use pingora_http::RequestHeader;
use segue_events::{AddressHash, AddressHasher, CacheState, DenialDraft, EventLog, FactDraft, Intent, Kind};

use crate::edge::Shared;
use crate::exchange::{Asked, Exchange};
use crate::limit;
use crate::refusal::Refusal;
use crate::route::{ObjectKind, line};
use crate::timeline::Media;

const DAY: Duration = Duration::from_secs(86_400);
/// From this length on three parts with dots between them are taken for a ticket, whatever they begin with.
const TICKET_MIN: usize = 64;

/// Names of parameters, in a path, behind which a ticket or a signature stands: ours, and those of other schemes.
const NAMES: [&str; 6] = ["ticket=", "sig=", "token=", "hmac=", "md5=", "ignature="];

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
        if *asked.method == http::Method::GET {
            limit::played(shared, exchange, delivered.media);
        }
        let (Some(events), Some(target)) = (&shared.events, &exchange.target) else { return Self::None };
        // An HTTP origin's redirects and errors are answers, and no deliveries.
        let is_delivery = matches!(delivered.status, 200 | 206 | 304);
        if !target.kind.is_media() || *asked.method != http::Method::GET || !is_delivery {
            return Self::None;
        }
        let _step = tracing::trace_span!("fact").entered();
        let stand_in;
        let address = exchange.client.map(|client| shared.addresses.hash(client, exchange.started_ms));
        let (sid, sub) = match &exchange.grant {
            Some(grant) => (grant.sid.as_str(), grant.claims.sub.as_deref()),
            None => {
                stand_in = stand_in_for(shared, exchange);
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
            policy: exchange.policy.as_deref(),
            tags: exchange.allowance.as_ref().map_or(&[], |allowance| &allowance.tags),
            ua: user_agent(asked.headers),
            ip_hash: address.as_ref().map(AddressHash::as_str),
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

/// What stands in for a session where a request names none: its address is the nearest thing.
pub(crate) fn stand_in_for(shared: &Shared, exchange: &Exchange) -> String {
    let session = exchange.client.map(|client| shared.addresses.session(client, exchange.started_ms));
    format!("anonymous-{}", session.as_ref().map_or("nobody", AddressHash::as_str))
}

/// Whether a path may be written into records as it is.
pub(crate) fn is_harmless(path: &str) -> bool {
    redacted(path) == path
}

/// Records a refusal of a listener.
pub(crate) fn deny(shared: &Shared, exchange: &Exchange, header: &RequestHeader, refusal: &Refusal) {
    let Some(events) = &shared.events else { return };
    let address = exchange.client.map(|client| shared.addresses.hash(client, exchange.started_ms));
    // Never the path carrier, wherever it stands: a refused ticket may be somebody's valid one.
    let path = redacted(exchange.target.as_ref().map_or(line(header).path, |target| target.path.as_str()));
    record_denial(
        events,
        DenialDraft {
            ts: None,
            track: exchange.target.as_ref().map(|target| target.track()),
            path: &path,
            reason: refusal.reason(),
            status: refusal.status().as_u16(),
            sid: exchange.grant.as_ref().map(|grant| grant.sid.as_str()),
            ip_hash: address.as_ref().map(AddressHash::as_str),
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

/// A path with `-` in place of every segment that may hold a ticket or a signature.
fn redacted(path: &str) -> String {
    let mut carried = false;
    let mut shown = Vec::new();
    for segment in path.split('/') {
        let decoded = percent_decode_str(segment).decode_utf8_lossy();
        // Dot and empty segments do not end what a carrier began: `/p/./<ticket>`.
        let is_nothing = matches!(&*decoded, "" | "." | "..");
        let hidden = !is_nothing && (carried || holds_ticket(&decoded));
        carried = decoded == "p" || (carried && is_nothing);
        shown.push(if hidden { "-" } else { segment });
    }
    shown.join("/")
}

/// Whether a part of a segment has the form of a compact JWS (RFC 7515, section 7.1), or stands after the name of a
/// parameter that carries a ticket or a signature.
fn holds_ticket(segment: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_jws = |part: &str| {
        part.split('.').count() >= 3
            && part.split('.').take(2).all(|part| !part.is_empty())
            && (part.starts_with("eyJ") || part.len() >= TICKET_MIN)
    };
    segment.split(|c| !is_letter(c)).any(is_jws) || NAMES.iter().any(|name| segment.contains(name))
}

/// Keyed hashes of client addresses. The keys are this process's own, so that nobody is told from another beyond it.
pub(crate) struct Addresses {
    /// Rotates daily.
    daily: AddressHasher,
    /// Does not: a play that goes on over midnight stays one.
    lasting: AddressHasher,
}

impl Addresses {
    /// # Errors
    /// Where the operating system gives no randomness.
    pub(crate) fn new() -> Result<Self, String> {
        let mut secret = [0; 64];
        getrandom::fill(&mut secret).map_err(|error| format!("the system gives no randomness: {error}"))?;
        let (daily, lasting) = secret.split_at(32);
        Ok(Self { daily: AddressHasher::new(daily, DAY), lasting: AddressHasher::new(lasting, Duration::MAX) })
    }

    /// What facts and denials hold of an address.
    pub(crate) fn hash(&self, client: IpAddr, now_ms: u64) -> AddressHash {
        self.daily.hash(client, now_ms)
    }

    /// A session's stand-in.
    fn session(&self, client: IpAddr, now_ms: u64) -> AddressHash {
        self.lasting.hash(client, now_ms)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_ticket_stays_in_a_path() {
        let ticket = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.c2lnbmF0dXJl";
        for carrier in [
            "//p/{}/hls/a/b",
            "/./p/{}/b",
            "/p/{}/hls//y",
            "/%70/{}/hls/a/b",
            "/p//{}/b",
            "/p/./{}",
            "/hls/a/{}/b",
            "/hls/a/x={};y",
            "/hls/a/b%3Fticket={}",
            "/hls/a/b%3Fsig={}&exp=1",
        ] {
            for ticket in [ticket, &ticket.replace('.', "%2E"), &"x".repeat(50)] {
                if ticket.starts_with('x') && carrier.starts_with("/hls/a/") && !carrier.contains("%3F") {
                    continue;
                }
                let shown = redacted(&carrier.replace("{}", ticket));
                assert!(!shown.contains(ticket.get(..10).unwrap()), "{carrier}: {shown}");
            }
        }
        for harmless in ["/hls/a/cover.large.jpg", "/hls//a/../seg-00000.m4s", "/", "/hls/p.q/Gr%C3%B6%C3%9Fe"] {
            assert_eq!(redacted(harmless), harmless);
        }
    }

    #[test]
    fn one_household_is_one_listener() {
        let addresses = Addresses::new().unwrap();
        let [one, other, v4, mapped] =
            ["2001:db8::1", "2001:db8::2", "192.0.2.1", "::ffff:192.0.2.1"].map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!(addresses.hash(one, 0), addresses.hash(other, 0));
        assert_eq!(addresses.session(v4, 0), addresses.session(mapped, 0));
        assert_ne!(addresses.session(v4, 0), addresses.hash(v4, 0));
    }
}
