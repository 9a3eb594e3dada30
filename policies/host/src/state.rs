//! What the host keeps for one instance, and the functions that it lends.
//!
//! Invariants: nothing here waits, nothing here can fail in a way that ends the call; what a policy may not have
//! comes back as none or as an error value.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::{ResourceLimiter, StoreLimits, StoreLimitsBuilder};

use crate::bounds::{Bounds, INSTANCES, LOG_BYTES, LOG_LINES, MEMORIES, TABLES};
use crate::contract::{crypto, request, signing, tickets, tools, types};
use crate::direct::Guest;
use crate::services::Services;
use crate::{crypto as work, lent};

/// The data of one store.
pub(crate) struct State {
    name: Arc<str>,
    services: Arc<Services>,
    /// Whether headers that carry tickets are shown.
    secrets: bool,
    limits: StoreLimits,
    /// Linear memory in use, all memories together.
    pub(crate) memory: usize,
    memory_bound: usize,
    /// Bytes that one call may hand to the host.
    pub(crate) output: usize,
    /// By what an instance that runs directly is reached; none while it may not call the host.
    pub(crate) guest: Option<Box<Guest>>,
    /// Whether memory was refused in this call.
    pub(crate) starved: bool,
    lines: u8,
    /// This thread's time on a processor, when the call was first found to be late.
    late: Option<Duration>,
}

impl State {
    pub(crate) fn new(name: Arc<str>, services: Arc<Services>, secrets: bool, bounds: &Bounds) -> Self {
        let limits = StoreLimitsBuilder::new()
            .table_elements(bounds.table_elements)
            .instances(INSTANCES)
            .tables(TABLES)
            .memories(MEMORIES)
            .build();
        Self {
            name,
            services,
            secrets,
            limits,
            memory: 0,
            memory_bound: bounds.memory,
            output: bounds.output,
            guest: None,
            starved: false,
            lines: 0,
            late: None,
        }
    }

    /// Before each call.
    pub(crate) fn begin(&mut self) {
        self.starved = false;
        self.lines = 0;
        self.late = None;
    }

    /// Asked each time that `time` has passed on the wall: whether the call has used it up, or was only kept waiting for
    /// a processor. A busy machine must not look like a policy that loops. Half is enough, since a thread that always runs
    /// still shares its processor with the kernel.
    pub(crate) fn overran(&mut self, time: Duration) -> bool {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let now = Duration::try_from(now).unwrap_or_default();
        let since = *self.late.get_or_insert(now);
        now.saturating_sub(since) >= time / 2
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let all = self.memory.saturating_sub(current).saturating_add(desired);
        let fits = all <= self.memory_bound && maximum.is_none_or(|maximum| desired <= maximum);
        if fits {
            self.memory = all;
        } else {
            self.starved = true;
        }
        Ok(fits)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.limits.table_growing(current, desired, maximum)
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}

fn owned(text: Option<Cow<'_, str>>) -> Option<String> {
    text.map(Cow::into_owned)
}

impl types::Host for State {}
impl tickets::Host for State {}

impl request::Host for State {
    fn method(&mut self) -> String {
        lent::with(|request| request.method.to_owned()).unwrap_or_default()
    }

    fn host(&mut self) -> String {
        lent::with(|request| request.host.to_owned()).unwrap_or_default()
    }

    fn path(&mut self) -> String {
        lent::with(|request| request.path.to_owned()).unwrap_or_default()
    }

    fn query(&mut self) -> Option<String> {
        lent::with(|request| request.query.map(str::to_owned)).flatten()
    }

    fn track(&mut self) -> String {
        lent::with(|request| request.track.to_owned()).unwrap_or_default()
    }

    fn file(&mut self) -> String {
        lent::with(|request| request.file.to_owned()).unwrap_or_default()
    }

    fn address(&mut self) -> Option<String> {
        lent::with(|request| request.address.map(|address| address.to_canonical().to_string())).flatten()
    }

    fn country(&mut self) -> Option<String> {
        lent::with(|request| request.country.map(str::to_owned)).flatten()
    }

    fn edge(&mut self) -> String {
        lent::with(|request| request.edge.to_owned()).unwrap_or_default()
    }

    fn header(&mut self, name: String) -> Option<String> {
        lent::with(|request| owned(request.header(&name, self.secrets))).flatten()
    }

    fn claim(&mut self, name: String) -> Option<String> {
        lent::with(|request| owned(request.claims.claim(&name))).flatten()
    }

    fn context(&mut self, pointer: String) -> Option<String> {
        lent::with(|request| owned(request.claims.context(&pointer))).flatten()
    }
}

impl tools::Host for State {
    fn log(&mut self, level: tools::Level, message: String) {
        if self.lines >= LOG_LINES {
            return;
        }
        self.lines += 1;
        let end = message.floor_char_boundary(LOG_BYTES);
        let (policy, message) = (&*self.name, message.get(..end).unwrap_or_default());
        match level {
            tools::Level::Debug => tracing::debug!(policy, "{message}"),
            tools::Level::Info => tracing::info!(policy, "{message}"),
            tools::Level::Warn => tracing::warn!(policy, "{message}"),
            tools::Level::Error => tracing::error!(policy, "{message}"),
        }
    }

    fn lookup(&mut self, table: String, key: String) -> Option<String> {
        self.services.tables.get(&table)?.get(&key).cloned()
    }
}

impl crypto::Host for State {
    fn digest(&mut self, hash: crypto::Hash, data: Vec<u8>) -> Vec<u8> {
        work::digest(hash, &[&data])
    }

    fn digest_keyed(
        &mut self,
        hash: crypto::Hash,
        key: String,
        before: Vec<u8>,
        after: Vec<u8>,
    ) -> Result<Vec<u8>, crypto::KeyError> {
        work::digest_keyed(&self.services, hash, &key, &before, &after)
    }

    fn hmac(&mut self, hash: crypto::Hash, key: String, data: Vec<u8>) -> Result<Vec<u8>, crypto::KeyError> {
        work::hmac(&self.services, hash, &key, &data)
    }

    fn verify(
        &mut self,
        algorithm: crypto::Algorithm,
        key: String,
        data: Vec<u8>,
        signature: Vec<u8>,
    ) -> Result<bool, crypto::KeyError> {
        work::verify(&self.services, algorithm, &key, &data, &signature)
    }

    fn equal(&mut self, a: Vec<u8>, b: Vec<u8>) -> bool {
        work::equal(&a, &b)
    }
}

impl signing::Host for State {
    fn sign(&mut self, algorithm: crypto::Algorithm, key: String, data: Vec<u8>) -> Result<Vec<u8>, crypto::KeyError> {
        work::sign(&self.services, algorithm, &key, &data)
    }
}
