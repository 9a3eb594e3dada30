//! Which addresses a receiver may have. Whoever adds a webhook makes this machine send requests: not to what only this machine can
//! reach.
//!
//! Names are resolved here, and what they lead to is looked at before the connection is made to that very address: a name that leads
//! elsewhere a moment later gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// A receiver that may not be reached.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(String);

/// Which addresses one client may reach.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    allow: Arc<[IpNet]>,
    /// Public ones as well.
    public: bool,
}

impl Guard {
    pub(super) fn new(allow: &[IpNet], public: bool) -> Self {
        Self { allow: allow.into(), public }
    }

    pub(super) fn lets(&self, address: IpAddr) -> bool {
        lets(&self.allow, self.public, address)
    }
}

fn lets(allow: &[IpNet], public: bool, address: IpAddr) -> bool {
    let address = address.to_canonical();
    allow.iter().any(|block| block.contains(&address)) || (public && is_public(address))
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let fine: Vec<SocketAddr> = found.into_iter().filter(|found| guard.lets(found.ip())).collect();
            if fine.is_empty() {
                return Err(Refused(format!("{} leads to no address that is allowed", name.as_str())).into());
            }
            Ok::<Addrs, _>(Box::new(fine.into_iter()))
        })
    }
}

/// Whether a URL can be a receiver's: HTTPS to a public address, HTTP to one that `[webhooks] allow` names; without a password.
pub(crate) fn check(text: &str, allow: &[IpNet]) -> Result<Url, Refused> {
    let refused = |why: &str| Err(Refused(why.to_owned()));
    let Ok(url) = Url::parse(text) else { return refused("`url` is not a URL") };
    if !url.username().is_empty() || url.password().is_some() {
        return refused("`url` must name no user and no password; deliveries are signed");
    }
    if url.fragment().is_some() {
        return refused("`url` must have no fragment: it is never sent");
    }
    let public = match url.scheme() {
        "https" => true,
        "http" if !allow.is_empty() => false,
        "http" => {
            return refused(
                "`url` must begin with https://; for http:// in a network of your own set [webhooks] allow",
            );
        }
        _ => return refused("`url` must begin with https://"),
    };
    let literal = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain(_)) => None,
        None => return refused("`url` names no host"),
    };
    if literal.is_some_and(|address| !lets(allow, public, address)) {
        return refused("`url` leads to an address that is not allowed; private ones must stand in [webhooks] allow");
    }
    Ok(url)
}

/// Whether everybody may be reached under it: none of the special blocks of the IANA registries (RFC 6890), and none that carries such a one.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0
        || a == 10
        || a == 127
        || (a == 100 && (64..=127).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..=31).contains(&b))
        || (a == 192 && b == 168)
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113)
        || a >= 224;
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // NAT64 (RFC 6052) and 6to4 (RFC 3056) lead to an address of version 4.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        // Teredo and the rest of the protocol assignments, documentation.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        // What is not global unicast (RFC 4291) is loopback, local, multicast or not assigned.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_only_this_machine_reaches_is_refused() {
        for text in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2001:0:1::",
            "2001:db8::1",
            "64:ff9b:1::1",
            "::127.0.0.1",
        ] {
            assert!(!Guard::new(&[], true).lets(text.parse().unwrap()), "{text}");
        }
        for text in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"] {
            assert!(Guard::new(&[], true).lets(text.parse().unwrap()), "{text}");
            assert!(!Guard::new(&[], false).lets(text.parse().unwrap()), "{text}");
        }
        let allow = ["10.1.0.0/16".parse().unwrap()];
        assert!(Guard::new(&allow, false).lets("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!Guard::new(&allow, true).lets("10.2.0.1".parse().unwrap()));
    }

    #[test]
    fn a_url_is_looked_at_before_it_is_stored() {
        let allow = ["127.0.0.0/8".parse().unwrap()];
        for fine in ["https://example.com/hook?key=1", "https://1.1.1.1:8443/"] {
            assert!(check(fine, &[]).is_ok(), "{fine}");
        }
        for wrong in [
            "",
            "example.com",
            "ftp://example.com/",
            "http://example.com/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://u:p@example.com/",
            "https://example.com/#x",
        ] {
            assert!(check(wrong, &[]).is_err(), "{wrong}");
        }
        assert!(check("http://127.0.0.1:80/", &allow).is_ok() && check("http://receiver.test/", &allow).is_ok());
        assert!(check("http://1.1.1.1/", &allow).is_err(), "in the clear to where it is allowed alone");
    }
}
