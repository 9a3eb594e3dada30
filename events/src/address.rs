//! A client's address as facts may hold it: a keyed hash whose key rotates, so that sessions of a day can be told
//! apart and nobody can be found again after it.
//!
//! Edges with the same secret give the same hash. The key of a period is HMAC-SHA256 of the secret over the
//! period's number, so nothing has to be kept or agreed on; who wants old hashes to be beyond recall changes the
//! secret.

use std::cell::RefCell;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of the hash that are kept: with a million clients a period, one chance in 10^17 that any two meet.
const KEPT: usize = 14;
const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// Hashes that a thread remembers, by a part of the address: a connection asks for the same one with every request.
const REMEMBERED: usize = 128;

thread_local! {
    static MEMO: RefCell<[Remembered; REMEMBERED]> = const { RefCell::new([NOTHING; REMEMBERED]) };
}

/// Tells hashers apart in the threads' memories.
static HASHERS: AtomicU64 = AtomicU64::new(1);

#[derive(Clone, Copy)]
struct Remembered {
    /// 0: nothing.
    hasher: u64,
    period: u64,
    counted: Counted,
    hash: AddressHash,
}

const NOTHING: Remembered =
    Remembered { hasher: 0, period: 0, counted: Counted::V4(0), hash: AddressHash([0; 2 * KEPT]) };

/// The part of an address that counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    V4(u32),
    /// The upper 64 bits.
    V6(u64),
}

/// A hashed address: lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AddressHash([u8; 2 * KEPT]);

impl AddressHash {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // They are ASCII, so there is no other case.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for AddressHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Hashes client addresses.
pub struct AddressHasher {
    /// Its number among the hashers of this process.
    number: u64,
    secret: Hmac<Sha256>,
    period_ms: u64,
    /// The period's number and its keyed state.
    current: RwLock<(u64, Hmac<Sha256>)>,
}

impl AddressHasher {
    /// Hashes with keys drawn from `secret` (of any length; 32 random bytes are best), a new one every `period`.
    #[must_use]
    pub fn new(secret: &[u8], period: Duration) -> Self {
        let secret = keyed(secret);
        let period_ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1);
        let current = RwLock::new((0, key_of(&secret, 0)));
        Self { number: HASHERS.fetch_add(1, Ordering::Relaxed), secret, period_ms, current }
    }

    /// The hash of an address at a time (ms since the epoch), in lower-case hexadecimal. IPv6 addresses count by
    /// their /64, which is one household; IPv4 addresses in IPv6 form count as IPv4.
    #[must_use]
    pub fn hash(&self, address: IpAddr, now_ms: u64) -> AddressHash {
        let period = now_ms / self.period_ms;
        let (counted, bits) = match address.to_canonical() {
            IpAddr::V4(v4) => (Counted::V4(v4.to_bits()), u64::from(v4.to_bits())),
            IpAddr::V6(v6) => {
                let network = (v6.to_bits() >> 64) as u64;
                (Counted::V6(network), network)
            }
        };
        // Fibonacci hashing: the upper bits of the product depend on all of the address.
        let spread = bits.wrapping_add(self.number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        MEMO.with_borrow_mut(|memo| {
            let place = &mut memo[spread as usize % REMEMBERED];
            if place.hasher != self.number || place.period != period || place.counted != counted {
                let hash = self.reckon(counted, period);
                *place = Remembered { hasher: self.number, period, counted, hash };
            }
            place.hash
        })
    }

    fn reckon(&self, counted: Counted, period: u64) -> AddressHash {
        let mut mac = self.key(period);
        match counted {
            Counted::V4(address) => mac.update(&address.to_be_bytes()),
            Counted::V6(network) => mac.update(&network.to_be_bytes()),
        }
        let hash = mac.finalize().into_bytes();
        let mut digits = [0; 2 * KEPT];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(hash) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        AddressHash(digits)
    }

    fn key(&self, period: u64) -> Hmac<Sha256> {
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if current.0 == period {
                return current.1.clone();
            }
        }
        let key = key_of(&self.secret, period);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (period, key.clone());
        key
    }
}

impl fmt::Debug for AddressHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressHasher").field("period_ms", &self.period_ms).finish_non_exhaustive()
    }
}

fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    // RFC 2104 section 2: a key longer than a block is hashed first; here by hand, since a key of exactly one
    // block is the form that cannot fail.
    let mut block = [0; 64];
    if secret.len() > block.len() {
        use sha2::Digest;
        block[..32].copy_from_slice(&Sha256::digest(secret));
    } else {
        block[..secret.len()].copy_from_slice(secret);
    }
    Hmac::new(&block.into())
}

fn key_of(secret: &Hmac<Sha256>, period: u64) -> Hmac<Sha256> {
    let mut mac = secret.clone();
    mac.update(b"segue-address-v1\n");
    mac.update(&period.to_be_bytes());
    keyed(&mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const NOON: u64 = 1_763_812_800_000;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_key_is_that_of_the_standard() {
        // RFC 4231 section 4.3 (short key) and 4.7 (key longer than a block).
        let mac = |key: &[u8], data: &[u8]| {
            let mut mac = keyed(key);
            mac.update(data);
            mac.finalize().into_bytes()[..4].to_vec()
        };
        assert_eq!(mac(b"Jefe", b"what do ya want for nothing?"), [0x5b, 0xdc, 0xc1, 0x46]);
        let data = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(mac(&[0xaa; 131], data), [0x60, 0xe4, 0x31, 0x59]);
    }

    #[test]
    fn one_client_has_one_hash_a_period_on_every_edge() {
        let (one, other) = (AddressHasher::new(b"secret", DAY), AddressHasher::new(b"secret", DAY));
        let hash = one.hash(ip("192.0.2.1"), NOON);
        assert_eq!(hash.as_str().len(), 2 * KEPT);
        assert_eq!(hash, other.hash(ip("192.0.2.1"), NOON + 3_600_000));
        assert_eq!(hash, one.hash(ip("::ffff:192.0.2.1"), NOON));
        assert_ne!(hash, one.hash(ip("192.0.2.2"), NOON));
        assert_ne!(hash, one.hash(ip("192.0.2.1"), NOON + 86_400_000), "the key rotates");
        assert_eq!(hash, one.hash(ip("192.0.2.1"), NOON), "and a late one is still hashed by its own");
        assert_ne!(hash, AddressHasher::new(b"other", DAY).hash(ip("192.0.2.1"), NOON));
    }

    #[test]
    fn ipv6_counts_by_its_64_bits_of_network() {
        let hasher = AddressHasher::new(b"secret", DAY);
        let hash = hasher.hash(ip("2001:db8:1:2::1"), NOON);
        assert_eq!(hash, hasher.hash(ip("2001:db8:1:2:ffff::9"), NOON));
        assert_ne!(hash, hasher.hash(ip("2001:db8:1:3::1"), NOON));
    }

    #[test]
    fn what_a_thread_remembers_is_what_it_would_reckon() {
        let (hasher, other) = (AddressHasher::new(b"secret", DAY), AddressHasher::new(b"other", DAY));
        for round in 0..3 {
            for host in 0..1000_u32 {
                // The bits of the IPv4 address and of the network are the same numbers.
                let v4 = IpAddr::V4(host.into());
                let v6 = IpAddr::V6((u128::from(host) << 64).into());
                for (hasher, now) in [(&hasher, NOON), (&other, NOON), (&hasher, NOON + round * 86_400_000)] {
                    let period = now / hasher.period_ms;
                    assert_eq!(hasher.hash(v4, now), hasher.reckon(Counted::V4(host), period));
                    assert_eq!(hasher.hash(v6, now), hasher.reckon(Counted::V6(host.into()), period));
                }
            }
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        let text = format!("{:?}", AddressHasher::new(b"hunter2", DAY));
        assert_eq!(text, "AddressHasher { period_ms: 86400000, .. }");
    }
}
