//! The policies of an edge, in order, and what they decide together.
//!
//! Invariants: a chain never changes; another one takes its place (`Arc`, `arc-swap`). Any denial ends it. A shadow never
//! decides, and never delays what an earlier denial decided. Which sessions a canary meets depends on the policy's name and on the session
//! alone, so it is the same on every edge, and a greater share holds the smaller one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::access::{AccessPolicy, FailMode};
use crate::failure::Failure;
use crate::request::RequestView;
use crate::verdict::{Allowance, Denial, Limit, Verdict};

/// Limits and tags that a merged allowance holds at most; what comes later is left out.
const MERGED: usize = 16;

/// How a version is tried beside the active one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trial {
    /// Asked, and not heeded.
    Shadow,
    /// Decides for this many of 10,000 sessions, in place of the active version.
    Canary(u16),
}

/// One policy's place in a chain.
#[derive(Debug)]
pub struct Attached {
    /// Without the version: what the canary's share is drawn by.
    pub name: String,
    /// The version that decides. `None`: a policy that was never active.
    pub active: Option<Arc<AccessPolicy>>,
    /// A version that is being tried.
    pub candidate: Option<(Arc<AccessPolicy>, Trial)>,
}

/// As what a policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The active version.
    Active,
    /// The candidate, for its share of sessions.
    Canary,
}

/// Who is told what each policy of a chain said, while a request waits: for counts, so it must not take long.
pub trait Witness {
    /// Whether it wants to know how long each policy takes, for this request: two looks at the clock cost a tenth of a simple rule.
    fn times(&self) -> bool {
        true
    }
    /// The policy at `place` was asked, and heeded. `took`: none where it is not to be timed.
    fn decided(&mut self, place: usize, role: Role, said: Result<&Verdict, &Failure>, took: Option<Duration>);
    /// The shadow at `place` was asked. `beside` is what the request got from the active version, its fail mode included; none where there is none.
    fn shadowed(
        &mut self,
        place: usize,
        beside: Option<&Verdict>,
        would: Result<&Verdict, &Failure>,
        took: Option<Duration>,
    );
}

/// Nobody.
impl Witness for () {
    fn decided(&mut self, _: usize, _: Role, _: Result<&Verdict, &Failure>, _: Option<Duration>) {}
    fn shadowed(&mut self, _: usize, _: Option<&Verdict>, _: Result<&Verdict, &Failure>, _: Option<Duration>) {}
}

/// What a shadow would have said.
#[derive(Debug)]
pub struct Shadowed {
    /// `name@version` of the shadow.
    pub policy: Arc<str>,
    /// Its verdict.
    pub verdict: Result<Verdict, Failure>,
    /// What the active version said to the same request, as [`Verdict::kind`]; `none` where there is none.
    pub beside: &'static str,
}

/// What a chain decided.
#[derive(Debug)]
pub struct Decision {
    /// The verdict; an allowance holds the conditions of all who allowed.
    pub verdict: Verdict,
    /// `name@version` of the policy that denied, or of the last one that allowed. `None`: all abstained.
    pub policy: Option<Arc<str>>,
    /// Policies that failed, with what their fail mode made of it.
    pub failures: Vec<(Arc<str>, Failure, FailMode)>,
    /// What shadows would have said.
    pub shadows: Vec<Shadowed>,
    /// How long the policies that decide took, all together; nothing where they were not timed.
    pub took: Duration,
}

/// Policies in order.
#[derive(Debug, Default)]
pub struct Chain {
    places: Vec<Attached>,
}

impl Chain {
    /// A chain of `places`, asked in this order.
    #[must_use]
    pub fn new(places: Vec<Attached>) -> Self {
        Self { places }
    }

    /// Whether there is nobody to ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Its places.
    #[must_use]
    pub fn places(&self) -> &[Attached] {
        &self.places
    }

    /// Asks all in order, until one denies. Synchronous; waits for nothing but the policies themselves.
    #[must_use]
    pub fn authorize(&self, request: &RequestView<'_>) -> Decision {
        self.authorize_before(request, &mut ())
    }

    /// As [`Chain::authorize`]; `witness` is told of each policy.
    #[must_use]
    pub fn authorize_before(&self, request: &RequestView<'_>, witness: &mut impl Witness) -> Decision {
        let mut decision = Decision {
            verdict: Verdict::Abstain,
            policy: None,
            failures: Vec::new(),
            shadows: Vec::new(),
            took: Duration::ZERO,
        };
        // One look at the clock for each policy: where one ends, the next begins.
        let mut clock = Clock(witness.times().then(Instant::now));
        for (number, place) in self.places.iter().enumerate() {
            let (decides, shadow) = place.cast(request);
            let verdict = decides.map(|(policy, role)| {
                let said = policy.authorize(request);
                let took = clock.lap();
                decision.took += took.unwrap_or_default();
                witness.decided(number, role, said.as_ref(), took);
                decision.take(policy, said)
            });
            if let Some(shadow) = shadow {
                let said = shadow.authorize(request);
                let took = clock.lap();
                witness.shadowed(number, verdict.as_ref(), said.as_ref(), took);
                let beside = verdict.as_ref().map_or("none", Verdict::kind);
                decision.shadows.push(Shadowed { policy: Arc::clone(shadow.label()), verdict: said, beside });
            }
            if let (Some(verdict), Some((policy, _))) = (verdict, decides)
                && decision.heed(verdict, policy)
            {
                break;
            }
        }
        decision
    }
}

/// When the last lap ended; none where nobody wants to know.
struct Clock(Option<Instant>);

impl Clock {
    /// Time since the last lap.
    fn lap(&mut self) -> Option<Duration> {
        let last = self.0.as_mut()?;
        let now = Instant::now();
        Some(now.saturating_duration_since(std::mem::replace(last, now)))
    }
}

/// Who decides about a request and as what, and who is asked beside.
type Cast<'a> = (Option<(&'a Arc<AccessPolicy>, Role)>, Option<&'a Arc<AccessPolicy>>);

impl Attached {
    /// A policy that decides for everybody.
    #[must_use]
    pub fn active(name: &str, policy: Arc<AccessPolicy>) -> Self {
        Self { name: name.to_owned(), active: Some(policy), candidate: None }
    }

    /// Who decides about this request, and who is asked beside.
    fn cast(&self, request: &RequestView<'_>) -> Cast<'_> {
        let active = self.active.as_ref().map(|policy| (policy, Role::Active));
        match &self.candidate {
            None => (active, None),
            Some((shadow, Trial::Shadow)) => (active, Some(shadow)),
            Some((canary, Trial::Canary(share))) if is_canary(&self.name, request, *share) => {
                (Some((canary, Role::Canary)), None)
            }
            Some((_, Trial::Canary(_))) => (active, None),
        }
    }
}

impl Decision {
    /// What an answer, or none, means for the request.
    fn take(&mut self, policy: &Arc<AccessPolicy>, said: Result<Verdict, Failure>) -> Verdict {
        match said {
            Ok(verdict) => verdict,
            Err(failure) => {
                self.failures.push((Arc::clone(policy.label()), failure, policy.on_failure));
                match policy.on_failure {
                    FailMode::Closed => Verdict::Deny(Denial::failed()),
                    FailMode::Open => Verdict::Abstain,
                }
            }
        }
    }

    /// Takes a verdict in; says whether it ends the chain.
    fn heed(&mut self, verdict: Verdict, policy: &Arc<AccessPolicy>) -> bool {
        match verdict {
            Verdict::Abstain => return false,
            Verdict::Deny(_) => self.verdict = verdict,
            Verdict::Allow(allowance) => match &mut self.verdict {
                Verdict::Allow(merged) => merge(merged, allowance),
                other => *other = Verdict::Allow(allowance),
            },
        }
        self.policy = Some(Arc::clone(policy.label()));
        matches!(self.verdict, Verdict::Deny(_))
    }
}

/// The first that names a streams class has it: one request plays one stream.
fn merge(merged: &mut Allowance, next: Allowance) {
    let is_new = |limit: &Limit, have: &[Limit]| !have.contains(limit) && have.len() < MERGED;
    for limit in next.limits {
        if is_new(&limit, &merged.limits) {
            merged.limits.push(limit);
        }
    }
    for tag in next.tags {
        if !merged.tags.contains(&tag) && merged.tags.len() < MERGED {
            merged.tags.push(tag);
        }
    }
    merged.streams = merged.streams.take().or(next.streams);
}

/// Whether a canary of `share` of 10,000 meets this request.
fn is_canary(name: &str, request: &RequestView<'_>, share: u16) -> bool {
    let hash = match (request.session, request.address) {
        ("", Some(std::net::IpAddr::V4(address))) => spread(name, &address.octets()),
        // Of an IPv6 address the network counts: a device changes the rest every day.
        ("", Some(std::net::IpAddr::V6(address))) => spread(name, address.octets().get(..8).unwrap_or_default()),
        (session, _) => spread(name, session.as_bytes()),
    };
    hash % 10_000 < u64::from(share)
}

/// FNV-1a over name and session, with the finaliser of MurmurHash3, since FNV alone spreads short texts badly. Part of what
/// edges agree on: it must never change.
fn spread(name: &str, session: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = name.as_bytes().iter().chain(&[0]).chain(session).fold(0xcbf2_9ce4_8422_2325, fold);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_meets_its_share_of_sessions_and_a_greater_share_holds_the_smaller() {
        let sessions: Vec<String> = (0..20_000).map(|number| format!("s-{number:05}")).collect();
        let met = |name: &str, share: u16| -> Vec<&str> {
            let request = |session| RequestView { session, ..RequestView::of("/") };
            sessions.iter().map(String::as_str).filter(|session| is_canary(name, &request(session), share)).collect()
        };
        let tenth = met("country", 1_000);
        assert!((1_800..=2_200).contains(&tenth.len()), "{}", tenth.len());
        let fifth = met("country", 2_000);
        assert!(tenth.iter().all(|session| fifth.contains(session)));
        assert!(met("country", 0).is_empty());
        assert_eq!(met("country", 10_000).len(), sessions.len());
        let other = met("preview", 1_000);
        let both = tenth.iter().filter(|session| other.contains(session)).count();
        assert!(both < 400, "two policies draw independently: {both}");
    }

    #[test]
    fn without_a_session_an_address_or_its_network_is_drawn() {
        let of = |address: &str| {
            let request = RequestView { address: Some(address.parse().unwrap()), ..RequestView::of("/") };
            is_canary("p", &request, 5_000)
        };
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert!((0..64).any(|n| of(&format!("192.0.2.{n}"))) && (0..64).any(|n| !of(&format!("192.0.2.{n}"))));
    }
}
