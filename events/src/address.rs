//! A client's address as facts may hold it: a keyed hash whose key rotates, so that sessions of a day can be told
//! apart and nobody can be found again after it.
//!
//! Edges with the same secret give the same hash. The key of a period is HMAC-SHA256 of the secret over the
//! period's number, so nothing has to be kept or agreed on; who wants old hashes to be beyond recall changes the
//! secret.

use std::fmt;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of the hash that are kept: with a million clients a period, one chance in 10^17 that any two meet.
const KEPT: usize = 14;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Hashes client addresses.
pub struct AddressHasher {
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
        Self { secret, period_ms, current }
    }

    /// The hash of an address at a time (ms since the epoch), in lower-case hexadecimal. IPv6 addresses count by
    /// their /64, which is one household; IPv4 addresses in IPv6 form count as IPv4.
    #[must_use]
    pub fn hash(&self, address: IpAddr, now_ms: u64) -> String {
        let mut mac = self.key(now_ms / self.period_ms);
        match address.to_canonical() {
            IpAddr::V4(v4) => mac.update(&v4.octets()),
            IpAddr::V6(v6) => mac.update(&v6.octets()[..8]),
        }
        let hash = mac.finalize().into_bytes();
        let digits = hash.iter().take(KEPT).flat_map(|byte| [byte >> 4, byte & 15]);
        digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
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
        assert_eq!(hash.len(), 2 * KEPT);
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
    fn the_secret_is_not_shown() {
        let text = format!("{:?}", AddressHasher::new(b"hunter2", DAY));
        assert_eq!(text, "AddressHasher { period_ms: 86400000, .. }");
    }
}
