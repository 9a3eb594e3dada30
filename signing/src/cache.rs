//! A bounded cache of verified tickets: a session pays for its HMAC once.
//!
//! # Invariants
//! - Only what verified is kept, so that forged tickets can not push good ones out.
//! - A hit compares the whole bytes of the ticket, and looks at the clock, the key's time and the keyring
//!   again: an entry that another keyring vouched for is verified anew. Revocations are not in here:
//!   [`Revocations::check`](crate::Revocations::check) is asked for every request, hit or not.
//! - The comparison of bytes is not in constant time, and need not be: it only runs against an entry whose
//!   randomly keyed hash agrees, so that its timing says nothing that leads towards a signature.
//! - A hit allocates nothing: one hash, one comparison, two clock checks, one count.
//!
//! # On failure
//! Full: the least useful entry goes, and its ticket is verified anew when it comes again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde_json::Value;

use crate::claims::Verified;
use crate::keyring::{Keyring, Place};
use crate::refusal::Refusal;
use crate::ticket::{check_size, verify_placed};

/// The memory of one usual ticket, in bytes: a heavier one takes the place of several.
const PLACE_BYTES: usize = 4096;

/// What an entry takes beside its strings: map slots, the claims' fields, allocator overhead.
const ENTRY_BYTES: usize = 768;

/// What a node of a JSON map takes at the most, however few members it has.
const MAP_BYTES: usize = 768;

/// A bounded, thread-safe cache of verified tickets.
pub struct TicketCache {
    entries: Cache<Box<str>, Entry, ByPlaces>,
    misses: AtomicU64,
}

#[derive(Clone)]
struct Entry {
    verified: Arc<Verified>,
    place: Place,
    /// The keyring's own number and the caller's: both must be those of the request.
    keyring: u64,
    generation: u64,
    /// How many places the entry takes, reckoned once.
    places: u64,
}

#[derive(Clone)]
struct ByPlaces;

impl Weighter<Box<str>, Entry> for ByPlaces {
    fn weight(&self, _ticket: &Box<str>, entry: &Entry) -> u64 {
        entry.places
    }
}

impl TicketCache {
    /// A cache of at most about `capacity` tickets and `capacity` times 4 KiB of memory. A usual ticket of
    /// 400 bytes takes about 2 KiB; one whose `ctx` takes more than 4 KiB counts as several tickets.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self { entries: Cache::with_weighter(capacity, capacity as u64, ByPlaces), misses: AtomicU64::new(0) }
    }

    /// As [`verify`](crate::verify), at the cost of one hash where the ticket was verified before under the
    /// same keyring. `generation` is the caller's number for the keyring ([`Keyring::generation`] serves):
    /// to change it is to make every ticket be verified anew.
    ///
    /// # Errors
    /// A [`Refusal`], the same that [`verify`](crate::verify) would give.
    pub fn verify_cached(
        &self,
        keyring: &Keyring,
        generation: u64,
        ticket: &str,
        now: i64,
        leeway: i64,
    ) -> Result<Arc<Verified>, Refusal> {
        check_size(ticket)?;
        if let Some(entry) = self.entries.get(ticket)
            && entry.keyring == keyring.generation()
            && entry.generation == generation
        {
            keyring.admit(entry.place, now, leeway)?;
            entry.verified.claims.check_time(now, leeway)?;
            keyring.count_accepted(entry.place);
            return Ok(entry.verified);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let (verified, place) = verify_placed(keyring, ticket, now, leeway)?;
        let verified = Arc::new(verified);
        let places = places(ticket, &verified);
        let entry = Entry { verified: Arc::clone(&verified), place, keyring: keyring.generation(), generation, places };
        self.entries.insert(ticket.into(), entry);
        Ok(verified)
    }

    /// How many tickets are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many tickets it may hold.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.entries.capacity()
    }

    /// How many tickets had to be verified in full since the start, refused ones included.
    #[must_use]
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }
}

/// How many places an entry takes: a `ctx` of many small maps needs a hundred times its text.
fn places(ticket: &str, verified: &Verified) -> u64 {
    fn footprint(value: &Value) -> usize {
        let below = match value {
            Value::String(text) => text.len(),
            Value::Array(values) => values.iter().map(|value| footprint(value) + size_of::<Value>()).sum(),
            Value::Object(map) => MAP_BYTES + map.iter().map(member).sum::<usize>(),
            _ => 0,
        };
        size_of::<Value>() + below
    }
    fn member((name, value): (&String, &Value)) -> usize {
        size_of::<String>() + name.len() + footprint(value)
    }
    let ctx = verified.claims.ctx.as_ref().map_or(0, |map| MAP_BYTES + map.iter().map(member).sum::<usize>());
    // The ticket once as the key, and its strings at most twice over in claims, scope and session.
    (3 * ticket.len() + ENTRY_BYTES + ctx).div_ceil(PLACE_BYTES).max(1) as u64
}

impl std::fmt::Debug for TicketCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketCache").field("len", &self.len()).field("misses", &self.misses()).finish()
    }
}

#[cfg(test)]
mod tests;
