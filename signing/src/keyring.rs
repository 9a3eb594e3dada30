//! The keys that tickets are signed with, and from when until when each is good.
//!
//! # Invariants
//! - A keyring never changes: a rotation makes a [`Keyring::successor`] and publishes that.
//! - Two keyrings with one [`Keyring::generation`] hold the same keys in the same order, so that a place
//!   in one is a place in the other. Generations are unique within the process.
//! - Key names can stand in a query string without escaping.
//!
//! # On failure
//! A bad key refuses the whole keyring: an edge keeps the one that it has.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::refusal::Refusal;
use crate::secret::SigningSecret;

/// The longest key name, in bytes: it travels in every ticket.
pub const MAX_KID_BYTES: usize = 64;

/// The most keys in one ring. Lookups walk the ring, and a house that rotates daily and keeps a month fits well.
pub const MAX_KEYS: usize = 64;

/// One signing key. Times are seconds since the epoch, as in a JWT's NumericDate (RFC 7519 section 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name by which tickets call it: 1 to 64 of `A-Z a-z 0-9 - . _ ~`.
    pub kid: String,
    /// The secret.
    pub secret: SigningSecret,
    /// Nothing signed by it is accepted before this second.
    pub not_before: Option<i64>,
    /// Nothing signed by it is accepted from this second on.
    pub retire_at: Option<i64>,
}

/// How often a key was used since the process started, across successors of the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyUse {
    /// Tickets and URLs accepted, cache hits included.
    pub accepted: u64,
    /// Tickets and URLs truly signed by it that came outside its time: who still uses a retired key.
    pub out_of_time: u64,
}

/// Why a set of keys makes no keyring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// A name that is empty, too long, or not safe in a URL.
    #[error("key name {0:?} must be 1 to 64 characters of A-Z a-z 0-9 - . _ ~")]
    KidInvalid(String),
    /// Two keys of one name.
    #[error("key {0:?} is there twice; give the new key a new name")]
    KidTwice(String),
    /// A key that retires before it begins.
    #[error("key {0:?} retires at or before its not_before; it would never be valid")]
    NeverValid(String),
    /// More than [`MAX_KEYS`].
    #[error("{0} keys are more than the 64 that a keyring holds; remove retired ones")]
    TooMany(usize),
}

impl KeyringError {
    /// The reason word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::KidInvalid(_) => "kid-invalid",
            Self::KidTwice(_) => "kid-twice",
            Self::NeverValid(_) => "key-never-valid",
            Self::TooMany(_) => "keys-too-many",
        }
    }
}

/// The counters of one key, on a cache line of their own: every request of every thread adds to them.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counters {
    accepted: AtomicU64,
    out_of_time: AtomicU64,
}

#[derive(Debug)]
struct Slot {
    key: Key,
    counters: Arc<Counters>,
}

/// An immutable set of keys.
pub struct Keyring {
    slots: Box<[Slot]>,
    generation: u64,
}

/// Where a key stands in rings of one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(usize);

impl Key {
    /// Whether the key may be used at `now`; the leeway is granted before `not_before`, never after `retire_at`:
    /// a key that leaked must be dead the second that the operator said.
    ///
    /// # Errors
    /// [`Refusal::KeyNotYetValid`] or [`Refusal::KeyRetired`].
    pub fn check_time(&self, now: i64, leeway: i64) -> Result<(), Refusal> {
        if self.retire_at.is_some_and(|retire_at| now >= retire_at) {
            return Err(Refusal::KeyRetired);
        }
        if self.not_before.is_some_and(|not_before| now.saturating_add(leeway.max(0)) < not_before) {
            return Err(Refusal::KeyNotYetValid);
        }
        Ok(())
    }
}

impl Keyring {
    /// Makes a keyring. An empty one is allowed: it refuses every ticket by [`Refusal::KeyUnknown`].
    ///
    /// # Errors
    /// A [`KeyringError`] that names the key.
    pub fn new(keys: Vec<Key>) -> Result<Self, KeyringError> {
        check_keys(&keys)?;
        let slots = keys.into_iter().map(|key| Slot { key, counters: Arc::default() }).collect();
        Ok(Self { slots, generation: next_generation() })
    }

    /// Makes the keyring that follows this one: use counts go on for keys that stay, and where nothing
    /// changed the generation stays too, so that verified tickets stay in their cache.
    ///
    /// # Errors
    /// A [`KeyringError`] that names the key.
    pub fn successor(&self, keys: Vec<Key>) -> Result<Self, KeyringError> {
        check_keys(&keys)?;
        let unchanged = self.iter().eq(keys.iter());
        let slots = keys
            .into_iter()
            .map(|key| {
                // A name that was given to another secret is another key: it starts to count from zero.
                let before = self.slot(&key.kid).filter(|(_, slot)| slot.key.secret == key.secret);
                let counters = before.map(|(_, slot)| Arc::clone(&slot.counters)).unwrap_or_default();
                Slot { key, counters }
            })
            .collect();
        let generation = if unchanged { self.generation } else { next_generation() };
        Ok(Self { slots, generation })
    }

    /// The key of this name, whatever its time.
    #[must_use]
    pub fn get(&self, kid: &str) -> Option<&Key> {
        self.slot(kid).map(|(_, slot)| &slot.key)
    }

    /// The key to sign with at `now`: of those that are good, the one whose `not_before` is latest; of
    /// several such, the last in the ring.
    #[must_use]
    pub fn signer(&self, now: i64) -> Option<&Key> {
        self.iter().filter(|key| key.check_time(now, 0).is_ok()).max_by_key(|key| key.not_before)
    }

    /// All keys, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.slots.iter().map(|slot| &slot.key)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no key at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// A number that is this key set's own within the process, for [`TicketCache`](crate::TicketCache).
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How often the key of this name was used.
    #[must_use]
    pub fn key_use(&self, kid: &str) -> Option<KeyUse> {
        self.slot(kid).map(|(_, slot)| slot.counters.read())
    }

    /// How often each key was used, in the ring's order.
    pub fn uses(&self) -> impl Iterator<Item = (&str, KeyUse)> {
        self.slots.iter().map(|slot| (slot.key.kid.as_str(), slot.counters.read()))
    }

    pub(crate) fn find(&self, kid: &str) -> Option<(Place, &Key)> {
        self.slot(kid).map(|(place, slot)| (place, &slot.key))
    }

    /// Holds the key at `place` against the clock and counts the outcome. Only to be called for a signature that holds.
    pub(crate) fn admit(&self, place: Place, now: i64, leeway: i64) -> Result<(), Refusal> {
        let slot = self.slots.get(place.0).ok_or(Refusal::KeyUnknown)?;
        let outcome = slot.key.check_time(now, leeway);
        if outcome.is_err() {
            slot.counters.out_of_time.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    /// Counts one ticket or URL that was accepted in full.
    pub(crate) fn count_accepted(&self, place: Place) {
        if let Some(slot) = self.slots.get(place.0) {
            slot.counters.accepted.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn slot(&self, kid: &str) -> Option<(Place, &Slot)> {
        let index = self.slots.iter().position(|slot| slot.key.kid == kid)?;
        self.slots.get(index).map(|slot| (Place(index), slot))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("generation", &self.generation)
            .field("kids", &self.iter().map(|key| key.kid.as_str()).collect::<Vec<_>>())
            .finish()
    }
}

impl Counters {
    fn read(&self) -> KeyUse {
        KeyUse {
            accepted: self.accepted.load(Ordering::Relaxed),
            out_of_time: self.out_of_time.load(Ordering::Relaxed),
        }
    }
}

/// Whether a name may be a key's: what stands unescaped in a URL (RFC 3986 section 2.3).
pub(crate) fn kid_is_valid(kid: &str) -> bool {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    (1..=MAX_KID_BYTES).contains(&kid.len()) && kid.bytes().all(unreserved)
}

fn check_keys(keys: &[Key]) -> Result<(), KeyringError> {
    if keys.len() > MAX_KEYS {
        return Err(KeyringError::TooMany(keys.len()));
    }
    let mut seen = HashSet::with_capacity(keys.len());
    for key in keys {
        if !kid_is_valid(&key.kid) {
            return Err(KeyringError::KidInvalid(key.kid.chars().take(MAX_KID_BYTES).collect()));
        }
        if !seen.insert(key.kid.as_str()) {
            return Err(KeyringError::KidTwice(key.kid.clone()));
        }
        if let (Some(not_before), Some(retire_at)) = (key.not_before, key.retire_at)
            && retire_at <= not_before
        {
            return Err(KeyringError::NeverValid(key.kid.clone()));
        }
    }
    Ok(())
}

fn next_generation() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
