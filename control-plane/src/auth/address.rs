//! Whose address a request comes from: the peer's, or, where the peer is a trusted balancer, the right-most hop of
//! `X-Forwarded-For` that is none.

use std::net::{IpAddr, Ipv6Addr};

use http::{Extensions, HeaderMap};
use ipnet::IpNet;

/// Hops that are looked at; what lies further left nobody vouches for anyway.
const HOPS_MAX: usize = 16;

/// The other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// The client's address. Without a peer, as in unit tests, it is the unspecified one.
pub(crate) fn client(extensions: &Extensions, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|block| block.contains(address));
    let peer = extensions.get::<Peer>().map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.0.to_canonical());
    if !is_trusted(&peer) {
        return peer;
    }
    let mut believed = peer;
    let lists: Vec<&str> =
        headers.get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap_or("-")).collect();
    for hop in lists.iter().rev().flat_map(|list| list.rsplit(',')).take(HOPS_MAX) {
        // What is no address ends the chain: the last that was one wrote it.
        let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
        believed = address.to_canonical();
        if !is_trusted(&believed) {
            break;
        }
    }
    believed
}

/// What is counted together: an address, or a /64 of IPv6, which is what one customer has.
pub(crate) fn group(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderValue;

    use super::*;

    fn of(peer: &str, forwarded: &[&str]) -> String {
        let mut extensions = Extensions::new();
        extensions.insert(Peer(peer.parse().unwrap()));
        let name = http::HeaderName::from_static("x-forwarded-for");
        let headers = forwarded.iter().map(|text| (name.clone(), HeaderValue::from_str(text).unwrap())).collect();
        client(&extensions, &headers, &["10.0.0.0/8".parse().unwrap()]).to_string()
    }

    #[test]
    fn a_hop_is_believed_from_a_trusted_peer_alone() {
        assert_eq!(of("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(of("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(of("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(of("::ffff:10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(of("10.0.0.1", &["203.0.113.9, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(of("10.0.0.1", &["203.0.113.9", "198.51.100.7"]), "198.51.100.7");
        assert_eq!(of("10.0.0.1", &["198.51.100.7, nonsense, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn addresses_of_one_customer_count_together() {
        let of = |text: &str| group(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
    }
}
