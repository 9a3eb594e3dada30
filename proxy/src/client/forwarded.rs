//! The chain of hops in `X-Forwarded-For`, or in `Forwarded` (RFC 7239), read from its right end.
//!
//! Invariants: every hop was added by the one to the right of it, so that reading stops at the first that is not
//! trusted; at most [`HOPS_MAX`] are looked at. Nothing is allocated.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::{FORWARDED, HeaderMap, HeaderName};

use super::is_trusted;
use crate::config::{ClientConfig, ForwardedHeader};

/// Real chains have two or three hops; what is longer was written to cost time.
const HOPS_MAX: usize = 32;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whom the chain names, as seen from `peer`, which is trusted.
pub(super) fn origin(config: &ClientConfig, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let (name, read): (_, fn(&str) -> Option<IpAddr>) = match config.header {
        ForwardedHeader::XForwardedFor => (X_FORWARDED_FOR, address_of),
        ForwardedHeader::Forwarded => (FORWARDED, element),
    };
    // Several lines of one field are one list (RFC 9110, section 5.3), the last line at its right end.
    let hops = headers.get_all(name).iter().rev().flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    let mut last = peer;
    for hop in hops.take(HOPS_MAX) {
        let hop = hop.trim_matches([' ', '\t']);
        if hop.is_empty() {
            // An empty element of a list means nothing (RFC 9110, section 5.6.1).
            continue;
        }
        match read(hop) {
            Some(address) => last = address,
            None => return last,
        }
        if !is_trusted(config, last) {
            return last;
        }
    }
    last
}

/// The address in `for=` of one element: `for=192.0.2.60;proto=http`, `For="[2001:db8::1]:4711"`. A comma or a
/// semicolon within quotes is in no address, so that splitting at them harms none that is one.
fn element(hop: &str) -> Option<IpAddr> {
    let mut found = None;
    for pair in hop.split(';') {
        let (name, value) = pair.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("for") {
            if found.is_some() {
                return None;
            }
            let value = value.trim();
            let bare = value.strip_prefix('"').map_or(Some(value), |rest| rest.strip_suffix('"'));
            found = Some(bare.and_then(address_of)?);
        }
    }
    found
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address_of(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let whole = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    whole.or_else(bracketed).or_else(with_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn seen(header: ForwardedHeader, lines: &[&str]) -> String {
        let config = ClientConfig {
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8:ffff::/48".parse().unwrap()],
            header,
            ..ClientConfig::default()
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            let name = if header == ForwardedHeader::Forwarded { "forwarded" } else { "x-forwarded-for" };
            headers.append(name, line.parse().unwrap());
        }
        origin(&config, "10.0.0.1".parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_right_most_hop_that_is_not_trusted_is_the_client() {
        for (lines, client) in [
            (&["198.51.100.9"][..], "198.51.100.9"),
            (&["203.0.113.66, 198.51.100.9"], "198.51.100.9"),
            (&["203.0.113.66, 198.51.100.9, 10.2.3.4"], "198.51.100.9"),
            (&["203.0.113.66", "198.51.100.9,10.9.9.9", " 10.2.3.4"], "198.51.100.9"),
            (&["198.51.100.9:4711, 10.2.3.4:80"], "198.51.100.9"),
            (&["[2001:db8::7]:4711, 2001:db8:ffff::1"], "2001:db8::7"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["::ffff:198.51.100.9"], "198.51.100.9"),
            (&["198.51.100.9,,"], "198.51.100.9"),
            // All trusted: the left-most. None: the peer.
            (&["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
            (&[], "10.0.0.1"),
            (&[""], "10.0.0.1"),
            // Rubbish ends the chain where it stands, and gives the last good word to the trusted hop on its right.
            (&["198.51.100.9, unknown, 10.2.2.2"], "10.2.2.2"),
            (&["198.51.100.9, 256.1.1.1"], "10.0.0.1"),
        ] {
            assert_eq!(seen(ForwardedHeader::XForwardedFor, lines), client, "{lines:?}");
        }
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_writes_it() {
        for (lines, client) in [
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], "192.0.2.60"),
            (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["for=203.0.113.66, for=192.0.2.43;proto=https, FOR=10.1.1.1"], "192.0.2.43"),
            (&["proto=http; for=192.0.2.60"], "192.0.2.60"),
            (&["for=_hidden, for=10.2.2.2"], "10.2.2.2"),
            (&["for=192.0.2.1;for=192.0.2.2"], "10.0.0.1"),
            (&["for=\"192.0.2.1"], "10.0.0.1"),
            (&["192.0.2.1"], "10.0.0.1"),
            (&["by=203.0.113.43"], "10.0.0.1"),
        ] {
            assert_eq!(seen(ForwardedHeader::Forwarded, lines), client, "{lines:?}");
        }
    }

    #[test]
    fn a_chain_without_end_is_not_read_to_its_end() {
        let long = format!("198.51.100.9,{}", vec!["10.1.1.1"; 10_000].join(","));
        assert_eq!(seen(ForwardedHeader::XForwardedFor, &[&long]), "10.1.1.1");
    }
}
