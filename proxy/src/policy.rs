//! The step after the ticket: the rules of the operator, WebAssembly policies in order; and, before it, the ticket schemes of others.
//!
//! | file         | what it does |
//! |--------------|--------------|
//! | `view.rs`    | the request as a policy sees it |
//! | `foreign.rs` | somebody else's tickets |
//! | `tally.rs`   | counts of what was said |
//! | `desk.rs`    | what an edge has for its policies, and who puts them into force |
//! | `maker.rs`   | the thread that compiles |
//! | `folder.rs`  | policies from a watched folder |
//! | `shelf.rs`   | policies from the control plane: which version decides |
//! | `supply.rs`  | fetches, verifies and makes what is wanted |
//! | `store.rs`   | bytes and the last good versions on disk |
//!
//! Invariants: policies stand in the snapshot, so a request is judged by one arrangement of them from its first look to its last; nothing here waits
//! but [`place`], which requests pass off the path of hits. Without policies this costs two comparisons. Nothing is compiled, and no
//! instance but a thread's own is made, on a thread that answers requests.
//!
//! On failure: of a policy that gives no verdict its fail mode decides. One that cannot be had is what `shelf.rs` and `folder.rs` are about.

mod desk;
mod folder;
pub(crate) mod foreign;
mod maker;
mod shelf;
mod store;
mod supply;
mod tally;
mod view;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use segue_policy_host::{Chain, Decision, Failure, RequestView, Role, TicketScheme, Verdict, Witness};
use segue_signing::PolicyExample;

use crate::cache::{self, Key, Stored};
use crate::client::Countries;
use crate::edge::Shared;
use crate::exchange::{Asked, Exchange};
use crate::refusal::Refusal;
use crate::route::{Line, ObjectKind};
use crate::timeline::{HIT_PATIENCE, Timeline};
pub(crate) use desk::Desk;
use tally::{Difference, Tallies, Tally};
use view::{Fields, Parts, Shown};

/// The policies of a snapshot.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    chain: Arc<Chain>,
    /// By place in the chain.
    counted: Vec<Counted>,
    schemes: Vec<Scheme>,
    /// Policies that fail closed, decide for everybody, and cannot be asked: of which nothing good was ever here.
    unready: Vec<String>,
    /// Whether a ticket scheme that should be asked is not there.
    lacks_schemes: bool,
    countries: Option<Arc<Countries>>,
}

/// A ticket scheme and its counts.
#[derive(Debug)]
struct Scheme {
    scheme: Arc<TicketScheme>,
    tally: Arc<Tally>,
}

/// Where the verdicts of one place are counted.
#[derive(Debug, Default)]
struct Counted {
    active: Option<Arc<Tally>>,
    candidate: Option<Arc<Tally>>,
    difference: Option<Arc<Difference>>,
}

impl Policies {
    /// An arrangement of these; counts are `tallies`'.
    fn new(
        chain: Arc<Chain>,
        schemes: Vec<Arc<TicketScheme>>,
        unready: Vec<String>,
        countries: Option<Arc<Countries>>,
        tallies: &Tallies,
    ) -> Self {
        let counted = chain.places().iter().map(|place| {
            let version = |label: &str| version_of(&place.name, label).to_owned();
            let active = place.active.as_ref().map(|policy| version(policy.label()));
            let candidate = place.candidate.as_ref().map(|(policy, _)| version(policy.label()));
            let difference = candidate
                .as_ref()
                .map(|candidate| tallies.between(&place.name, candidate, active.as_deref().unwrap_or_default()));
            Counted {
                active: active.map(|version| tallies.of(&place.name, &version)),
                candidate: candidate.map(|version| tallies.of(&place.name, &version)),
                difference,
            }
        });
        let counted = counted.collect();
        let schemes = schemes.into_iter().map(|scheme| {
            let (name, version) = scheme.label().rsplit_once('@').unwrap_or((scheme.label(), ""));
            Scheme { tally: tallies.of(name, version), scheme }
        });
        Self { counted, schemes: schemes.collect(), chain, unready, lacks_schemes: false, countries }
    }

    /// Whether there is nobody to ask.
    pub(crate) fn is_empty(&self) -> bool {
        self.chain.is_empty() && self.unready.is_empty()
    }

    /// Policies that fail closed and are not there.
    pub(crate) fn unready(&self) -> &[String] {
        &self.unready
    }

    /// Whether somebody else's tickets are looked for.
    pub(crate) fn knows_foreign_tickets(&self) -> bool {
        !self.schemes.is_empty() || self.lacks_schemes
    }
}

/// The version in a label, `name@version`.
fn version_of<'l>(name: &str, label: &'l str) -> &'l str {
    label.strip_prefix(name).and_then(|rest| rest.strip_prefix('@')).unwrap_or(label)
}

/// Finds out where in its track the object plays, for the policies that judge by it. `false`: that cannot be said without
/// waiting, which is what [`place`] is for.
pub(crate) fn is_placed(shared: &Shared, exchange: &mut Exchange) -> bool {
    if exchange.snapshot.policies.chain.is_empty() {
        return true;
    }
    let Some(target) = exchange.target.as_ref().filter(|target| target.kind == ObjectKind::Segment) else {
        return true;
    };
    let key = cache::key(shared, &exchange.snapshot, target, exchange.query.as_deref());
    // What is in memory knows its place once it was played, and the cache step wants it in any case.
    let stored = shared.memory.get(key);
    let media = match &stored {
        Some(Stored::Object(object)) => object.media.get().copied(),
        _ => None,
    };
    let placed = media.map(Some).or_else(|| shared.timelines.place(key, target.path.as_str()));
    // After a wait for the place the cache step looks for itself: it may have been replaced or purged by then.
    (exchange.placed, exchange.stored) = (placed, stored.filter(|_| placed.is_some()));
    exchange.placed.is_some()
}

/// Asks the playlists, for as long as a hit waits for its place.
pub(crate) async fn place(shared: &Arc<Shared>, exchange: &mut Exchange) {
    let Some(target) = &exchange.target else { return };
    let key = Key::from(cache::key(shared, &exchange.snapshot, target, exchange.query.as_deref()));
    exchange.placed = Some(Timeline::place(shared, &key, target, HIT_PATIENCE).await);
}

/// Asks the policies. What they allow under conditions stays in the exchange, for the limits and the fact.
///
/// # Errors
/// [`Refusal::Policy`].
pub(crate) fn judge(
    shared: &Shared,
    exchange: &mut Exchange,
    asked: Asked<'_>,
    line: &Line<'_>,
) -> Result<(), Refusal> {
    let policies = &exchange.snapshot.policies;
    if policies.is_empty() {
        return Ok(());
    }
    if !policies.unready.is_empty() {
        shared.desk.tallies.unready.add(1);
        return Err(Refusal::policy_failed());
    }
    let _step = tracing::trace_span!("policy").entered();
    let decision = decide(shared, exchange, asked, line, true)?;
    exchange.policy = decision.policy;
    match decision.verdict {
        Verdict::Deny(denial) => Err(Refusal::Policy(Box::new(denial))),
        Verdict::Allow(allowance) => {
            let is_plain = allowance.limits.is_empty() && allowance.streams.is_none() && allowance.tags.is_empty();
            exchange.allowance = (!is_plain).then(|| Box::new(allowance));
            Ok(())
        }
        Verdict::Abstain => Ok(()),
    }
}

/// What the policies say of a request; counted, or not (for who only wants to know).
pub(crate) fn decide(
    shared: &Shared,
    exchange: &Exchange,
    asked: Asked<'_>,
    line: &Line<'_>,
    counts: bool,
) -> Result<Decision, Refusal> {
    let policies = &exchange.snapshot.policies;
    let target = exchange.target.as_ref().ok_or(Refusal::NoRoute)?;
    let grant = exchange.grant.as_deref();
    let parts = Parts {
        host: view::host(line),
        query: view::query(line, exchange.foreign.as_deref().unwrap_or_default()),
        country: policies.countries.as_ref().zip(exchange.client).and_then(|(countries, client)| countries.of(client)),
        fields: Fields(asked.headers),
        shown: Shown(grant),
    };
    // A session that stands in for one is known to this edge alone; an address is the same everywhere.
    let is_own = |grant: &&segue_signing::Verified| exchange.foreign.is_none() || grant.claims.sid.is_some();
    let session = grant.filter(is_own).map_or("", |grant| grant.sid.as_str());
    let view = parts.view(shared, asked, target, exchange, session);
    Ok(if counts {
        policies.chain.authorize_before(&view, &mut Counting { shared, policies, view: &view })
    } else {
        policies.chain.authorize(&view)
    })
}

/// What calls took on this thread when they were timed last. A call that is not timed counts as long as the one before it: on a
/// busy thread that was within a millisecond.
#[derive(Default)]
struct Timed {
    /// The request that was timed last.
    at_ms: u64,
    /// By place in the chain: the active version, then the candidate.
    took: Vec<[Duration; 2]>,
}

thread_local! {
    static TIMED: RefCell<Timed> = RefCell::default();
}

impl Timed {
    fn or_last(place: usize, is_candidate: bool, took: Option<Duration>) -> Duration {
        TIMED.with_borrow_mut(|timed| {
            if timed.took.len() <= place {
                timed.took.resize_with(place + 1, Default::default);
            }
            let Some(last) = timed.took.get_mut(place).and_then(|pair| pair.get_mut(usize::from(is_candidate))) else {
                return Duration::ZERO;
            };
            *last = took.unwrap_or(*last);
            *last
        })
    }
}

/// Counts what the policies of a chain say of one request.
struct Counting<'a> {
    shared: &'a Shared,
    policies: &'a Policies,
    view: &'a RequestView<'a>,
}

impl Counting<'_> {
    fn example(&self) -> PolicyExample {
        let RequestView { now_ms, path, country, session, .. } = *self.view;
        // Of a keyed hash, whose key is this process's own.
        let session = format!("{:08x}", self.shared.limiter.hash(session.as_bytes()) >> 32);
        PolicyExample { ts: now_ms, path: path.to_owned(), country: country.map(str::to_owned), session }
    }
}

impl Witness for Counting<'_> {
    /// One request of each millisecond, on each thread.
    fn times(&self) -> bool {
        TIMED.with_borrow_mut(|timed| std::mem::replace(&mut timed.at_ms, self.view.now_ms) != self.view.now_ms)
    }

    fn decided(&mut self, place: usize, role: Role, said: Result<&Verdict, &Failure>, took: Option<Duration>) {
        let (Some(counted), Some(attached)) =
            (self.policies.counted.get(place), self.policies.chain.places().get(place))
        else {
            return;
        };
        let (tally, policy) = match role {
            Role::Active => (&counted.active, attached.active.as_ref()),
            Role::Canary => (&counted.candidate, attached.candidate.as_ref().map(|(policy, _)| policy)),
        };
        if let (Some(tally), Some(policy)) = (tally, policy) {
            let took = Timed::or_last(place, role == Role::Canary, took);
            tally.count(said, took, policy.on_failure);
        }
    }

    fn shadowed(
        &mut self,
        place: usize,
        beside: Option<&Verdict>,
        would: Result<&Verdict, &Failure>,
        took: Option<Duration>,
    ) {
        let Some(counted) = self.policies.counted.get(place) else { return };
        let took = Timed::or_last(place, true, took);
        if let Some(tally) = &counted.candidate {
            // A shadow decides nothing, so its failures refuse nobody.
            tally.count(would, took, segue_policy_host::FailMode::Open);
        }
        if let Some(difference) = &counted.difference {
            difference.count(beside, would, took, self.view.now_ms, || self.example());
        }
    }
}
