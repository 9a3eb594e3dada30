//! Tokens that an edge drew from Redis and spends by itself: the state of one key, without Redis, tasks or a clock.
//!
//! Purpose: many requests to a call. An edge asks for what it is likely to spend in a third of a lease's life, and asks
//! again when half of that is left, so that requests seldom wait.
//!
//! Invariants:
//! - A lease dies `tau` after it was *sent for*, so that no token is spent later than `tau` after Redis gave it out. Redis
//!   fills buckets of `burst - rate * tau`; so in any window at most `burst + rate * window` tokens are spent, whatever
//!   an edge does and however late an answer comes.
//! - Where such a bucket would hold less than one token, nothing is kept: a call asks for the requests that wait.
//! - One call per key is under way at a time; what Redis refused is not asked for again before Redis said it may be.
//!
//! Unspent tokens are not given back. A return must not extend the life of a token, so it is worth
//! `n - rate * age` tokens at most; a lease holds a third of `rate * tau`, and when it is known to be left over that is
//! nothing. That leases are sized by demand keeps the loss small instead.

use std::sync::Arc;

use segue_signing::limits::{LimitConfig, OnOutage};
use tokio::sync::Notify;

use super::gcra::Gcra;
use super::streams::nanoseconds;
use super::table::Slot;

/// Leases of a key: the one that is spent, and the two that one answer may bring.
const LEASES: usize = 3;
/// Demand is averaged over this time.
const MEMORY: f64 = 0.2;
/// Expected requests in a lease's life from which on tokens are drawn before somebody waits for them: at three, one lease
/// in twenty would die with a token that nobody wanted.
const STEADY: f64 = 3.0;
/// A key that nobody asked for in this time begins anew, and a call that has not ended by then is not awaited.
const FORGOTTEN: u64 = 10_000_000_000;
const SECOND: f64 = 1_000_000_000.0;
/// The shortest time over which demand is measured.
const INSTANT: f64 = 0.001;

/// How a class draws tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Plan {
    /// Nanoseconds that a lease lives.
    pub(crate) tau: u64,
    /// Tokens that Redis' buckets hold.
    pub(crate) burst: f64,
    /// The most tokens of a lease.
    cap: u32,
    /// Whether every request is asked for by itself.
    single: bool,
    rate: f64,
    whole: f64,
    on_outage: OnOutage,
}

impl Plan {
    pub(crate) fn new(config: &LimitConfig) -> Self {
        let (rate, whole) = (config.rate, f64::from(config.burst));
        let left = |tau: f64| whole - rate * tau;
        let single = left(config.lease.as_secs_f64()) < 1.0;
        let life = if single { config.max_wait } else { config.lease };
        let burst = left(life.as_secs_f64()).max(1.0);
        let cap = if single { burst } else { (rate * life.as_secs_f64() / 3.0).min(burst / 2.0) };
        Self {
            tau: nanoseconds(life),
            burst,
            cap: cap.max(1.0) as u32,
            single,
            rate,
            whole,
            on_outage: config.on_outage,
        }
    }

    /// This edge's share of the limit among `edges`.
    fn share(&self, edges: u32) -> Gcra {
        let edges = f64::from(edges.max(1));
        Gcra::new(self.rate / edges, (self.whole / edges).max(1.0))
    }
}

/// What Redis is to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Tokens.
    pub(crate) want: u32,
    /// Whether tokens that are not there yet may be promised for later: somebody will be there to spend them.
    pub(crate) ahead: bool,
}

/// What Redis answered. Times are nanoseconds from then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Granted {
    /// Tokens to be spent from now on.
    pub(crate) at_once: u32,
    /// Tokens to be spent after `later_in`.
    pub(crate) later: u32,
    pub(crate) later_in: u64,
    /// Asking again is of no use before.
    pub(crate) retry_in: u64,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A token was spent.
    Spent,
    /// There is none; nanoseconds until there is.
    Refused(u64),
    /// Only Redis knows.
    Wait,
    /// Redis is away, and nothing passes then.
    Unavailable,
}

#[derive(Debug, Clone, Copy, Default)]
struct Lease {
    left: u32,
    opens: u64,
    dies: u64,
}

impl Lease {
    fn is_open(&self, now: u64) -> bool {
        self.left > 0 && self.opens <= now && now < self.dies
    }

    fn is_to_come(&self, now: u64) -> bool {
        self.left > 0 && self.opens > now
    }
}

/// The state of one key.
#[derive(Debug, Default)]
pub(crate) struct Leased {
    leases: [Lease; LEASES],
    /// When the call that is under way was sent; 0: there is none.
    asked: u64,
    refused_until: u64,
    /// Requests since `since`, admitted or not.
    arrivals: u32,
    since: u64,
    /// Requests a second.
    demand: f64,
    /// Tokens of the last call.
    last: u32,
    /// Requests that wait since the last call was sent.
    unserved: u32,
    /// Requests that waited in vain and were let through: they are paid from what comes.
    debt: u32,
    seen: u64,
    /// The bucket of this edge's share, for when Redis is away; what is drawn empties it, so that an outage is no gift.
    tat: u64,
    answered: Option<Arc<Notify>>,
}

impl Slot for Leased {
    fn busy_until(&self) -> u64 {
        let leases = self.leases.iter().filter(|lease| lease.left > 0).map(|lease| lease.dies).max().unwrap_or(0);
        let asked = if self.asked > 0 { self.asked.saturating_add(FORGOTTEN) } else { 0 };
        leases.max(self.refused_until).max(self.tat).max(asked)
    }
}

impl Leased {
    /// A request that was not seen before. `away`: Redis is, and so many edges share the limit.
    pub(crate) fn arrive(&mut self, plan: &Plan, now: u64, away: Option<u32>) -> (Taken, Option<Ask>) {
        if now.saturating_sub(self.seen) > FORGOTTEN {
            (self.arrivals, self.since, self.demand, self.last) = (0, now, 0.0, 0);
        }
        self.seen = now;
        self.arrivals = self.arrivals.saturating_add(1);
        let (taken, ask) = self.take(plan, now, away);
        if taken == Taken::Wait {
            self.unserved = self.unserved.saturating_add(1);
        }
        (taken, ask)
    }

    /// A request that waited and looks again.
    pub(crate) fn take(&mut self, plan: &Plan, now: u64, away: Option<u32>) -> (Taken, Option<Ask>) {
        let open = self.leases.iter_mut().filter(|lease| lease.is_open(now)).min_by_key(|lease| lease.dies);
        if let Some(lease) = open {
            lease.left -= 1;
            let ask = if away.is_none() && self.runs_low(plan, now) { Some(self.ask(plan, now)) } else { None };
            return (Taken::Spent, ask);
        }
        if let Some(edges) = away {
            return (self.outage(plan, now, edges), None);
        }
        let to_come = self.leases.iter().filter(|lease| lease.is_to_come(now)).map(|lease| lease.opens).min();
        if let Some(opens) = to_come {
            return (Taken::Refused(opens - now), None);
        }
        if self.refused_until > now {
            return (Taken::Refused(self.refused_until - now), None);
        }
        let ask = if self.is_asking(now) { None } else { Some(self.ask(plan, now)) };
        (Taken::Wait, ask)
    }

    /// A request that waited for as long as it may.
    pub(crate) fn late(&mut self, plan: &Plan, now: u64, edges: u32) -> Taken {
        let is_open = self.leases.iter().any(|lease| lease.is_open(now));
        match self.take(plan, now, Some(edges)).0 {
            Taken::Spent if !is_open && plan.on_outage == OnOutage::Local => {
                self.debt = self.debt.saturating_add(1);
                Taken::Spent
            }
            other => other,
        }
    }

    /// What is told to all who wait when a call ends.
    pub(crate) fn answered(&mut self) -> Arc<Notify> {
        Arc::clone(self.answered.get_or_insert_default())
    }

    /// Redis answered a call that was sent at `sent`; so many edges share the limit.
    pub(crate) fn granted(&mut self, plan: &Plan, granted: Granted, sent: u64, now: u64, edges: u32) {
        let Granted { at_once, later, later_in, retry_in } = granted;
        self.tat = plan.share(edges).charge(self.tat, now, at_once.saturating_add(later));
        let paid = self.debt.min(at_once);
        self.debt -= paid;
        self.keep(Lease { left: at_once - paid, opens: now, dies: sent.saturating_add(plan.tau) }, now);
        let opens = now.saturating_add(later_in);
        let dies = sent.saturating_add(later_in).saturating_add(plan.tau);
        self.keep(Lease { left: later, opens, dies }, now);
        self.refused_until = if retry_in > 0 { now.saturating_add(retry_in) } else { 0 };
        self.end();
    }

    /// The call came to nothing.
    pub(crate) fn failed(&mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.asked = 0;
        if let Some(answered) = self.answered.take() {
            answered.notify_waiters();
        }
    }

    fn keep(&mut self, lease: Lease, now: u64) {
        if lease.left == 0 {
            return;
        }
        let worth = |lease: &Lease| if lease.dies > now { lease.left } else { 0 };
        if let Some(place) = self.leases.iter_mut().min_by_key(|lease| worth(lease)) {
            *place = lease;
        }
    }

    fn outage(&mut self, plan: &Plan, now: u64, edges: u32) -> Taken {
        match plan.on_outage {
            OnOutage::Open => Taken::Spent,
            OnOutage::Closed => Taken::Unavailable,
            OnOutage::Local => match plan.share(edges).take(self.tat, now, 1) {
                Ok(next) => {
                    self.tat = next;
                    Taken::Spent
                }
                Err(wait) => Taken::Refused(wait),
            },
        }
    }

    fn is_asking(&self, now: u64) -> bool {
        self.asked > 0 && now < self.asked.saturating_add(FORGOTTEN)
    }

    /// Whether it is time to draw tokens before somebody waits for them.
    fn runs_low(&self, plan: &Plan, now: u64) -> bool {
        if plan.single || self.is_asking(now) || self.refused_until > now || !self.is_steady(plan) {
            return false;
        }
        let open: u32 = self.leases.iter().filter(|lease| lease.is_open(now)).map(|lease| lease.left).sum();
        open <= self.last / 2 && !self.leases.iter().any(|lease| lease.is_to_come(now))
    }

    fn is_steady(&self, plan: &Plan) -> bool {
        self.demand * (plan.tau as f64 / SECOND) >= STEADY
    }

    fn ask(&mut self, plan: &Plan, now: u64) -> Ask {
        let elapsed = (now.saturating_sub(self.since) as f64 / SECOND).max(INSTANT);
        let life = plan.tau as f64 / SECOND;
        let weight = 1.0 - (-elapsed / MEMORY).exp();
        self.demand += weight * (f64::from(self.arrivals) / elapsed - self.demand);
        let mut want = self.demand * life / 3.0;
        // What lasted for less than half of its time was too little, whatever the average says.
        if elapsed < life / 6.0 {
            want = want.max(f64::from(self.last) * 2.0);
        }
        // The one that asks counts itself only afterwards.
        let unserved = std::mem::take(&mut self.unserved);
        let want = if plan.single { unserved } else { (want as u32).max(unserved) };
        (self.arrivals, self.since, self.asked) = (0, now, now);
        self.last = want.clamp(1, plan.cap);
        Ask { want: self.last, ahead: !plan.single && self.is_steady(plan) }
    }
}

#[cfg(test)]
mod tests;
