//! Who the client is: the address that tickets, facts and limits speak of, behind however many balancers.
//!
//! Invariants:
//! - An address is believed from a peer in `[client] trusted_proxies` alone. Of a chain of hops the right-most one that
//!   is not trusted counts: what stands left of it was written by somebody whom nobody vouches for.
//! - One header is read, the configured one: a proxy that writes the one passes on whatever a client puts into the other.
//! - Addresses are canonical: IPv4 in IPv6 form (RFC 4291, section 2.5.5.2) is IPv4.
//!
//! On failure: a hop that cannot be read ends the chain; the last one that could be read counts.

mod country;
mod crowd;
mod forwarded;
pub(crate) mod preamble;

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;

use crate::config::ClientConfig;
pub(crate) use country::{Countries, Country};
pub(crate) use crowd::Crowd;

/// One household or machine has a /64 of IPv6 (RFC 6177): where an address is a key, its first 64 bits are.
const HOUSEHOLD_BITS: u32 = 64;

/// The address of whoever asked: `peer`, or whom the configured header names, where `peer` may say so.
pub(crate) fn address(config: &ClientConfig, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(config, peer) {
        return peer;
    }
    forwarded::origin(config, peer, headers)
}

/// Whether `peer` (canonical) may name a client.
pub(crate) fn is_trusted(config: &ClientConfig, peer: IpAddr) -> bool {
    config.trusted_proxies.iter().any(|block| block.contains(&peer))
}

/// The address as a key: IPv6 by its /64, IPv4 whole.
pub(crate) fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = u128::from(address) & (u128::MAX << (128 - HOUSEHOLD_BITS));
            IpAddr::V6(Ipv6Addr::from(bits))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_household_is_a_64_and_a_v4_address_in_any_form() {
        assert_eq!(household(ip("2001:db8:1:2:3:4:5:6")), ip("2001:db8:1:2::"));
        assert_ne!(household(ip("2001:db8:1:3::1")), household(ip("2001:db8:1:2::1")));
        assert_eq!(household(ip("::ffff:192.0.2.7")), ip("192.0.2.7"));
    }

    #[test]
    fn nobody_is_believed_who_is_not_trusted() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "198.51.100.9".parse().unwrap());
        let mut config = ClientConfig::default();
        assert_eq!(address(&config, ip("192.0.2.1"), &headers), ip("192.0.2.1"));
        config.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        assert_eq!(address(&config, ip("192.0.2.1"), &headers), ip("192.0.2.1"));
        assert_eq!(address(&config, ip("10.1.2.3"), &headers), ip("198.51.100.9"));
        assert_eq!(address(&config, ip("::ffff:10.1.2.3"), &headers), ip("198.51.100.9"));
    }
}
