//! A compiled policy, and one that has its configuration and is ready to be asked.
//!
//! Invariants: an instance runs one call at a time; after a trap of any sort it is never used again; it is replaced after
//! a number of calls, and after its memory has grown; the instances of a policy end with it. As many calls run at a
//! time as [`crate::Bounds::instances`] says; more wait for their turn, which is bounded by the time of a call.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use wasmtime::{Store, UpdateDeadline};

use crate::bounds::{Bounds, FIELDS};
use crate::breaker::Breaker;
use crate::check::{Checked, World};
use crate::contract::access::Access;
use crate::contract::scheme::TicketScheme;
use crate::direct::Direct;
use crate::engine::{Code, Ticker};
use crate::failure::Failure;
use crate::lent;
use crate::request::{Field, RequestView};
use crate::services::Services;
use crate::state::State;

/// Compiled code. Cheap to clone.
#[derive(Clone)]
pub struct Policy {
    pub(crate) checked: Checked,
    pub(crate) code: Code,
    pub(crate) bounds: Arc<Bounds>,
    /// Held, not read: the clock must run as long as anything that it may have to stop.
    #[allow(dead_code)]
    pub(crate) ticker: Arc<Ticker>,
}

impl Policy {
    /// What was found out about the file.
    #[must_use]
    pub fn checked(&self) -> &Checked {
        &self.checked
    }

    /// Whether the module runs as it was uploaded, and not the component that was made of it. It answers the same.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        matches!(self.code, Code::Direct(_))
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.checked.fmt(f)
    }
}

/// What a call of one policy was like, for metrics: read, never reset.
#[derive(Debug, Default)]
pub struct Counters {
    /// Instances that were made.
    pub instances: AtomicU64,
    /// Calls that waited for an instance: more threads than [`crate::Bounds::instances`].
    pub waits: AtomicU64,
    /// Failures, in the order of [`Failure::KINDS`].
    pub failures: [AtomicU64; Failure::KINDS.len()],
}

/// The exported functions of one instance.
pub(crate) enum Exports {
    Access(Access),
    Direct(Direct),
    Scheme(TicketScheme),
}

/// One instance, configured.
pub(crate) struct Live {
    pub(crate) store: Store<State>,
    pub(crate) exports: Exports,
    pub(crate) fields: Arc<[Field]>,
    /// The fields of a call, in memory that is used again.
    pub(crate) text: String,
    /// What its calls are bounded by at present, and in ticks of the clock.
    time: Duration,
    ticks: u64,
    calls: u32,
    /// Memory after `configure`.
    memory: usize,
}

/// The place of one thread's instance. On a cache line of its own: threads that answer requests write to nothing in common.
#[derive(Default)]
#[repr(align(64))]
struct Slot {
    live: Mutex<Option<Box<Live>>>,
    /// Calls that began here.
    calls: AtomicU64,
}

/// A policy with its configuration, and its instances.
pub(crate) struct Ready {
    policy: Policy,
    pub(crate) label: Arc<str>,
    config: String,
    services: Arc<Services>,
    slots: Box<[Slot]>,
    breaker: Breaker,
    counters: Counters,
}

impl Ready {
    /// Makes the first instance, so that a configuration that is refused is refused here and not at a request.
    pub(crate) fn new(policy: Policy, label: &str, config: String, services: Arc<Services>) -> Result<Self, Failure> {
        let bounds = &policy.bounds;
        let slots = (0..bounds.instances.max(1)).map(|_| Slot::default()).collect();
        let breaker = Breaker::new(bounds.failures, bounds.rest);
        let ready =
            Self { label: label.into(), config, services, slots, breaker, counters: Counters::default(), policy };
        let live = ready.instance()?;
        ready.keep(live);
        Ok(ready)
    }

    pub(crate) fn bounds(&self) -> &Bounds {
        &self.policy.bounds
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Calls that began.
    pub(crate) fn calls(&self) -> u64 {
        self.slots.iter().map(|slot| slot.calls.load(Relaxed)).sum()
    }

    pub(crate) fn rests(&self) -> bool {
        self.breaker.rests()
    }

    /// Runs `call` on an instance of this thread, for about `time`.
    pub(crate) fn run<R>(
        &self,
        time: Duration,
        request: Option<&RequestView<'_>>,
        call: impl FnOnce(&mut Live) -> wasmtime::Result<Result<R, Failure>>,
    ) -> Result<R, Failure> {
        if !self.breaker.admits() {
            return Err(self.count(Failure::Resting));
        }
        let answer = self.attempt(time, request, call);
        match answer {
            Ok(answer) => {
                self.breaker.worked();
                Ok(answer)
            }
            Err(failure) => {
                if self.breaker.failed() {
                    tracing::warn!(policy = &*self.label, %failure, "a policy rests: it failed too often in a row");
                }
                Err(self.count(failure))
            }
        }
    }

    fn attempt<R>(
        &self,
        time: Duration,
        request: Option<&RequestView<'_>>,
        call: impl FnOnce(&mut Live) -> wasmtime::Result<Result<R, Failure>>,
    ) -> Result<R, Failure> {
        let (mut slot, calls) = self.slot();
        // Whoever holds the slot is the only one that counts there.
        calls.store(calls.load(Relaxed) + 1, Relaxed);
        // Taken out: a panic of the host leaves an empty slot, and not an instance in the middle of something.
        let mut live = match slot.take() {
            Some(live) => live,
            None => self.instance()?,
        };
        live.calls += 1;
        live.store.data_mut().begin();
        if live.time != time {
            (live.time, live.ticks) = (time, self.bounds().ticks(time));
            bound(&mut live.store, time, live.ticks);
        }
        live.store.set_epoch_deadline(live.ticks);
        let outcome = match request {
            Some(request) => lent::lend(request, || call(&mut live)),
            None => call(&mut live),
        };
        match outcome {
            Ok(answer) => {
                if self.is_fresh(&live) {
                    *slot = Some(live);
                }
                answer
            }
            Err(error) => Err(Failure::of(&error, live.store.data().starved)),
        }
    }

    fn is_fresh(&self, live: &Live) -> bool {
        let bounds = &self.policy.bounds;
        live.calls < bounds.calls && live.store.data().memory <= live.memory.saturating_add(bounds.growth)
    }

    fn slot(&self) -> (MutexGuard<'_, Option<Box<Live>>>, &AtomicU64) {
        let (count, own) = (self.slots.len(), ordinal());
        // A division costs more than the lock, and most hosts have a slot for every thread.
        let own = if own < count { own } else { own % count };
        let (before, from) = self.slots.split_at(own);
        for slot in from.iter().chain(before) {
            match slot.live.try_lock() {
                Ok(live) => return (live, &slot.calls),
                Err(TryLockError::Poisoned(live)) => return (live.into_inner(), &slot.calls),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        self.counters.waits.fetch_add(1, Relaxed);
        // `own` is within the slots, of which there is at least one.
        let slot = &self.slots[own];
        (slot.live.lock().unwrap_or_else(PoisonError::into_inner), &slot.calls)
    }

    fn keep(&self, live: Box<Live>) {
        *self.slot().0 = Some(live);
    }

    fn count(&self, failure: Failure) -> Failure {
        let place = Failure::KINDS.iter().position(|kind| *kind == failure.kind());
        if let Some(counter) = place.and_then(|place| self.counters.failures.get(place)) {
            counter.fetch_add(1, Relaxed);
        }
        failure
    }

    /// A fresh instance, configured.
    fn instance(&self) -> Result<Box<Live>, Failure> {
        self.counters.instances.fetch_add(1, Relaxed);
        let bounds = &*self.policy.bounds;
        let secrets = self.policy.checked.world == World::TicketScheme;
        let state = State::new(Arc::clone(&self.label), Arc::clone(&self.services), secrets, bounds);
        let mut store = match &self.policy.code {
            Code::Access(code) => Store::new(code.engine(), state),
            Code::Direct(code) => Store::new(code.module().engine(), state),
            Code::Scheme(code) => Store::new(code.engine(), state),
        };
        store.limiter(|state| state);
        store.set_hostcall_fuel(bounds.output);
        let ticks = bounds.ticks(bounds.configure);
        bound(&mut store, bounds.configure, ticks);
        store.set_epoch_deadline(ticks);
        let configured = self.configure(&mut store);
        let (exports, fields) = configured.map_err(|error| Failure::of(&error, store.data().starved))?;
        let fields = fields.map_err(Failure::Configuration)?;
        let memory = store.data().memory;
        Ok(Box::new(Live {
            store,
            exports,
            fields: fields.into(),
            text: String::new(),
            time: bounds.configure,
            ticks,
            calls: 0,
            memory,
        }))
    }

    fn configure(&self, store: &mut Store<State>) -> wasmtime::Result<(Exports, Result<Vec<Field>, String>)> {
        match &self.policy.code {
            Code::Access(code) => {
                let access = code.instantiate(&mut *store)?;
                let names = access.call_configure(&mut *store, &self.config)?;
                Ok((Exports::Access(access), names.and_then(|names| fields(&names))))
            }
            Code::Direct(code) => {
                let direct = Direct::new(&mut *store, code)?;
                let names = direct.configure(&mut *store, &self.config)?;
                Ok((Exports::Direct(direct), names.and_then(|names| fields(&names))))
            }
            Code::Scheme(code) => {
                let scheme = code.instantiate(&mut *store)?;
                let answer = scheme.call_configure(&mut *store, &self.config)?;
                Ok((Exports::Scheme(scheme), answer.map(|()| Vec::new())))
            }
        }
    }
}

fn fields(names: &[String]) -> Result<Vec<Field>, String> {
    if names.len() > FIELDS {
        return Err(format!("asks for {} fields; at most {FIELDS} are given", names.len()));
    }
    names
        .iter()
        .map(|name| Field::parse(name).ok_or_else(|| format!("asks for the field {name:?}, which there is not")))
        .collect()
}

/// Ends a call that has used up `time`; one that only waited for a processor goes on. It is looked at when `time` has passed, and when it has
/// passed again: a loop that has a processor to itself ends after twice the time and a tick at most.
fn bound(store: &mut Store<State>, time: Duration, ticks: u64) {
    store.epoch_deadline_callback(move |mut context| {
        let overran = context.data_mut().overran(time);
        // A tick has just begun, so none is partly over.
        Ok(if overran { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(ticks - 1) })
    });
}

/// Numbers the threads, so that each has a slot of its own while there are enough.
fn ordinal() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    OWN.with(|own| {
        if own.get() == usize::MAX {
            own.set(NEXT.fetch_add(1, Relaxed));
        }
        own.get()
    })
}
