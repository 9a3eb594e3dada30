//! The one that decides: classes, which may change while it runs, over keys that live on.
//!
//! Purpose: [`Limiter::check`] for whoever has a class's name and a key (policies), and the same by class for the
//! steps of a request.
//!
//! Invariants: a check waits for nothing and allocates nothing where it admits; where only Redis knows, it says so, and
//! [`Limiter::wait`] waits for `max_wait` at most. A change of classes is one swap, and the keys of classes that stay
//! go on with what they have spent.

mod places;
mod report;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use segue_signing::limits::LimitsConfig;
use sha2::{Digest as _, Sha256};

use super::backend::Keys;
use super::class::{Class, Classes};
use super::denied::{Denied, Word};
use super::lease::{Ask, Leased, Taken};
use super::redis::{Redis, RedisConfig};
use super::streams::{Asking, Streams, nanoseconds};

/// Where the limiter's clock begins, so that zero lies in the past.
const DAWN: u64 = 3_600_000_000_000;
const MICROSECONDS: f64 = 1_000_000.0;
/// When to come back while Redis is away.
const UNAVAILABLE_FOR: u64 = 1_000_000_000;

/// Nanoseconds since shortly before the limiter began.
#[derive(Debug, Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn at(self, instant: Instant) -> u64 {
        DAWN + nanoseconds(instant.saturating_duration_since(self.0))
    }

    fn now(self) -> u64 {
        self.at(Instant::now())
    }
}

/// See the module.
#[derive(Debug)]
pub struct Limiter {
    clock: Clock,
    seed: RandomState,
    /// Whether there is any class: asked for every request.
    any: AtomicBool,
    classes: Arc<ArcSwap<Classes>>,
    redis: Option<Arc<Redis>>,
}

/// A check that only Redis can decide; hand it to [`Limiter::wait`].
#[derive(Debug)]
pub struct Pending {
    waiting: Waiting,
    /// From when the check was made: a request that waits for several waits for none longer than its own bound.
    deadline: tokio::time::Instant,
}

#[derive(Debug)]
enum Waiting {
    Token { class: Arc<Class>, hash: u64, key: Box<[u8]> },
    Place { streams: Arc<Streams>, hash: u64, listener: Box<[u8]>, asking: Asking },
}

/// What a check comes to.
#[derive(Debug)]
#[must_use]
pub enum Verdict {
    /// A token was spent.
    Admitted,
    /// There is none.
    Refused(Denied),
    /// Only Redis knows; it is being asked.
    Wait(Pending),
}

impl Limiter {
    /// A limiter that decides in this process.
    #[must_use]
    pub fn embedded(config: &LimitsConfig) -> Arc<Self> {
        Arc::new(Self::new(config, None))
    }

    /// A limiter that shares its limits through Redis, in the current tokio runtime. `edge` names it among the others.
    ///
    /// # Errors
    /// A sentence about the URL or the certificate. That Redis is away is no error: `on_outage` holds until it comes.
    pub fn shared(config: &LimitsConfig, redis: &RedisConfig, edge: &str) -> Result<Arc<Self>, String> {
        let redis = Arc::new(Redis::new(redis, edge)?);
        let limiter = Self::new(config, Some(Arc::clone(&redis)));
        let clock = limiter.clock;
        redis.tasks.spawn(Arc::clone(&redis).keep(move || clock.now()));
        redis.tasks.spawn(places::keep(Arc::clone(&redis), Arc::clone(&limiter.classes), clock));
        Ok(Arc::new(limiter))
    }

    fn new(config: &LimitsConfig, redis: Option<Arc<Redis>>) -> Self {
        let limiter = Self {
            clock: Clock(Instant::now()),
            seed: RandomState::new(),
            any: AtomicBool::new(false),
            classes: Arc::default(),
            redis,
        };
        limiter.replace(config);
        limiter
    }

    /// Ends the tasks that talk to Redis.
    pub async fn close(&self) {
        if let Some(redis) = &self.redis {
            redis.stop().await;
        }
    }

    /// Whether Redis keeps the limits just now; without Redis, never.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.redis.as_ref().is_some_and(|redis| redis.is_here())
    }

    /// Calls for tokens, and tokens drawn, since the start.
    #[must_use]
    pub fn drawn(&self) -> (u64, u64) {
        self.redis.as_ref().map_or((0, 0), |redis| (redis.counts.calls.get(), redis.counts.tokens.get()))
    }

    /// Calls for places of streams since the start.
    #[must_use]
    pub fn seated(&self) -> u64 {
        self.redis.as_ref().map_or(0, |redis| redis.counts.seats.get())
    }

    /// Puts other classes in the place of those that are; what their keys have spent stays spent.
    pub fn replace(&self, config: &LimitsConfig) {
        if self.classes.load().config() == config {
            return;
        }
        self.classes.rcu(|before| Classes::new(config, before, self.redis.is_some()));
        self.any.store(!self.classes.load().is_empty(), Ordering::Release);
    }

    /// Spends a token of `key` in the class of this name; a class that does not exist limits nothing.
    pub fn check(&self, class: &str, key: &[u8]) -> Verdict {
        match self.classes().named(class) {
            Some(class) => self.take(class, key, self.now()),
            None => Verdict::Admitted,
        }
    }

    /// Waits for Redis' word, for the class's `max_wait` since the check at most; then `on_outage` decides.
    pub async fn wait(&self, pending: Pending) -> Verdict {
        let Pending { waiting, deadline } = pending;
        match waiting {
            Waiting::Token { class, hash, key } => self.wait_for_token(class, hash, key, deadline).await,
            Waiting::Place { streams, hash, listener, asking } => {
                self.wait_for_place(streams, hash, &listener, asking, deadline).await
            }
        }
    }

    async fn wait_for_token(
        &self,
        class: Arc<Class>,
        hash: u64,
        key: Box<[u8]>,
        deadline: tokio::time::Instant,
    ) -> Verdict {
        let Keys::Leased(table) = &*class.keys else { return Verdict::Admitted };
        loop {
            let now = self.now();
            let answered = table.with(hash, now, Leased::answered);
            let mut notified = std::pin::pin!(answered.notified());
            // From here on no answer is missed.
            notified.as_mut().enable();
            let away = self.away(hash, now);
            let (taken, ask) = table.with(hash, now, |leased| leased.take(&class.plan, now, away));
            self.send(&class, hash, &key, ask, now);
            if taken != Taken::Wait {
                return verdict(&class, &key, hash, taken);
            }
            if tokio::time::timeout_at(deadline, notified).await.is_err() {
                class.counts.late.add(1);
                let now = self.now();
                let edges = self.redis.as_ref().map_or(1, |redis| redis.edges());
                let taken = table.with(hash, now, |leased| leased.late(&class.plan, now, edges));
                return verdict(&class, &key, hash, taken);
            }
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
        self.clock.at(instant)
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.seed.hash_one(key)
    }

    /// Spends a token of `key`.
    pub(crate) fn take(&self, class: &Arc<Class>, key: &[u8], now: u64) -> Verdict {
        let hash = self.hash(key);
        let taken = match &*class.keys {
            Keys::Embedded(table) => table.with(hash, now, |bucket| match class.gcra.take(bucket.0, now, 1) {
                Ok(next) => {
                    bucket.0 = next;
                    Taken::Spent
                }
                Err(wait) => Taken::Refused(wait),
            }),
            Keys::Leased(table) => {
                let away = self.away(hash, now);
                let (taken, ask) = table.with(hash, now, |leased| leased.arrive(&class.plan, now, away));
                self.send(class, hash, key, ask, now);
                taken
            }
        };
        verdict(class, key, hash, taken)
    }

    fn away(&self, hash: u64, now: u64) -> Option<u32> {
        self.redis.as_ref().map_or(Some(1), |redis| redis.away(hash, now))
    }

    /// Asks Redis, beside the request.
    fn send(&self, class: &Arc<Class>, hash: u64, key: &[u8], ask: Option<Ask>, sent: u64) {
        let (Some(ask), Some(redis)) = (ask, &self.redis) else { return };
        let digest: [u8; 32] = Sha256::digest(key).into();
        let digest = URL_SAFE_NO_PAD.encode(digest.get(..16).unwrap_or(&digest));
        let name = format!("{}:limit:{}:{}:{digest}", redis.prefix(), class.name, class.config.per.as_str());
        let (caller, class, clock) = (Arc::clone(redis), Arc::clone(class), self.clock);
        redis.tasks.spawn(async move {
            let interval = MICROSECONDS / class.config.rate;
            let granted = caller.draw(&name, interval, class.plan.burst, ask).await;
            let now = clock.now();
            if let Keys::Leased(table) = &*class.keys {
                table.known(hash, |leased| match granted {
                    Some(granted) => leased.granted(&class.plan, granted, sent, now, caller.edges()),
                    None => leased.failed(),
                });
            }
        });
    }
}

impl Drop for Limiter {
    /// The tasks end with it, if nobody awaited their end.
    fn drop(&mut self) {
        if let Some(redis) = &self.redis {
            redis.cancel();
        }
    }
}

fn verdict(class: &Arc<Class>, key: &[u8], hash: u64, taken: Taken) -> Verdict {
    match taken {
        Taken::Spent => {
            class.counts.admitted.add(1);
            Verdict::Admitted
        }
        Taken::Refused(wait) => refused(class, key, Word::RateLimited, wait),
        Taken::Unavailable => refused(class, key, Word::LimitUnavailable, UNAVAILABLE_FOR),
        Taken::Wait => {
            let waiting = Waiting::Token { class: Arc::clone(class), hash, key: key.into() };
            Verdict::Wait(Pending { waiting, deadline: tokio::time::Instant::now() + class.config.max_wait })
        }
    }
}

fn refused(class: &Class, key: &[u8], word: Word, wait: u64) -> Verdict {
    class.counts.refused.add(1);
    if class.config.shadow {
        return Verdict::Admitted;
    }
    Verdict::Refused(Denied {
        word,
        class: Arc::clone(&class.name),
        quota: class.config.burst,
        window: Some(Duration::from_secs_f64(f64::from(class.config.burst) / class.config.rate)),
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
