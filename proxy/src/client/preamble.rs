//! The PROXY protocol, versions 1 and 2: what a balancer says of its client before the client's own first byte.
//!
//! Source: "The PROXY protocol, versions 1 & 2" (haproxy.org, `doc/proxy-protocol.txt`), sections 2.1 and 2.2.
//!
//! Invariants: [`parse`] is a pure function of the bytes so far; it never looks past the header's own end and asks for
//! no more than [`PREAMBLE_MAX`] bytes.
//!
//! On failure: what is no header is [`Wrong`]; nothing is guessed from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::ProxyProtocol;

/// The longest header of version 1, with its line end (section 2.1).
const TEXT_MAX: usize = 107;

/// The longest header that is waited for. Version 2 may say up to 64 KiB; addresses and what balancers are known to put
/// behind them (names, certificates' subjects, identifiers of cloud endpoints) stay far below this.
pub(crate) const PREAMBLE_MAX: usize = 4 * 1024;

/// The first twelve bytes of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED: usize = 16;

/// What stands at the front of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Not yet a whole header.
    Partial,
    /// A header of `length` bytes. `client`: whom it names; `None` where the balancer speaks for itself (a health check,
    /// command LOCAL), or of something without an address.
    Whole { length: usize, client: Option<IpAddr> },
    /// No header that is expected here.
    Wrong,
}

/// Reads the header at the front of `bytes`, in the version that `expected` names.
pub(crate) fn parse(bytes: &[u8], expected: ProxyProtocol) -> Parsed {
    let (text, binary) = match expected {
        ProxyProtocol::Off => (false, false),
        ProxyProtocol::Any => (true, true),
        ProxyProtocol::V1 => (true, false),
        ProxyProtocol::V2 => (false, true),
    };
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(byte, wanted)| byte == wanted);
    if binary && begins(&SIGNATURE) {
        parse_binary(bytes)
    } else if text && begins(b"PROXY ") {
        parse_text(bytes)
    } else {
        Parsed::Wrong
    }
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443`.
fn parse_text(bytes: &[u8]) -> Parsed {
    let window = bytes.get(..bytes.len().min(TEXT_MAX)).unwrap_or(bytes);
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < TEXT_MAX { Parsed::Partial } else { Parsed::Wrong };
    };
    let line = window.get(..end).and_then(|line| std::str::from_utf8(line).ok());
    match line.and_then(|line| text_client(line.strip_prefix("PROXY ")?)) {
        Some(client) => Parsed::Whole { length: end + 2, client },
        None => Parsed::Wrong,
    }
}

/// The outer `None`: not a header. What follows UNKNOWN is not looked at (section 2.1).
fn text_client(rest: &str) -> Option<Option<IpAddr>> {
    if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
        return Some(None);
    }
    let mut words = rest.split(' ');
    let family = words.next()?;
    let addresses = (words.next()?, words.next()?);
    let ports = (words.next()?, words.next()?);
    let client = match family {
        "TCP4" => {
            addresses.1.parse::<Ipv4Addr>().ok()?;
            IpAddr::V4(addresses.0.parse().ok()?)
        }
        "TCP6" => {
            addresses.1.parse::<Ipv6Addr>().ok()?;
            IpAddr::V6(addresses.0.parse().ok()?)
        }
        _ => return None,
    };
    let is_port = |text: &str| !text.starts_with('+') && text.parse::<u16>().is_ok();
    let whole = words.next().is_none() && is_port(ports.0) && is_port(ports.1);
    whole.then(|| Some(client.to_canonical()))
}

fn parse_binary(bytes: &[u8]) -> Parsed {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else { return Parsed::Partial };
    let &[.., command, family, high, low] = fixed else { return Parsed::Wrong };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if FIXED + length > PREAMBLE_MAX {
        return Parsed::Wrong;
    }
    let Some(body) = rest.get(..length) else {
        // The command is judged at once: a wrong one is not waited for.
        return if matches!(command, 0x20 | 0x21) { Parsed::Partial } else { Parsed::Wrong };
    };
    let whole = |client: Option<IpAddr>| Parsed::Whole { length: FIXED + length, client };
    match (command, family >> 4) {
        // LOCAL: the balancer's own connection, whatever stands in the rest.
        (0x20, _) => whole(None),
        (0x21, 0x1) => match body.first_chunk::<4>() {
            Some(source) if length >= 12 => whole(Some(IpAddr::V4(Ipv4Addr::from(*source)))),
            _ => Parsed::Wrong,
        },
        (0x21, 0x2) => match body.first_chunk::<16>() {
            Some(source) if length >= 36 => whole(Some(IpAddr::V6(Ipv6Addr::from(*source)).to_canonical())),
            _ => Parsed::Wrong,
        },
        // Unspecified, or a local socket: no address of the network. Further families are not defined, and a receiver
        // takes them as unspecified (section 2.2).
        (0x21, _) => whole(None),
        _ => Parsed::Wrong,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend_from_slice(&[command, family]);
        bytes.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn whole(length: usize, client: Option<&str>) -> Parsed {
        Parsed::Whole { length, client: client.map(|client| client.parse().unwrap()) }
    }

    #[test]
    fn lines_of_version_1_are_read_and_end_where_they_end() {
        for (line, client) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", Some("192.0.2.1")),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n", Some("2001:db8::1")),
            ("PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n", Some("192.0.2.1")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff:f...f:ffff whatever 65535\r\n", None),
        ] {
            let bytes = format!("{line}GET / HTTP/1.1\r\n");
            for expected in [ProxyProtocol::Any, ProxyProtocol::V1] {
                assert_eq!(parse(bytes.as_bytes(), expected), whole(line.len(), client), "{line}");
            }
            assert_eq!(parse(bytes.as_bytes(), ProxyProtocol::V2), Parsed::Wrong);
            for end in 0..line.len() {
                assert_eq!(parse(&bytes.as_bytes()[..end], ProxyProtocol::Any), Parsed::Partial, "{line} {end}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_wrong_at_once() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n",
            "PROXY TCP4 192.0.2.1  198.51.100.1 56324 443\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 1 443\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.1 1 443\r\n",
            "PROXY UNKNOWNX\r\n",
            "PROXX",
            "\x16\x03\x01",
        ] {
            assert_eq!(parse(line.as_bytes(), ProxyProtocol::Any), Parsed::Wrong, "{line:?}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(TEXT_MAX));
        assert_eq!(parse(endless.as_bytes(), ProxyProtocol::Any), Parsed::Wrong);
        assert_eq!(parse(b"PROXY UNKNOWN\r\n", ProxyProtocol::Off), Parsed::Wrong);
    }

    #[test]
    fn version_2_names_its_client_and_its_end() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];
        let mut v6 = [0_u8; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        v6[15] = 1;
        let with_tlvs = [&v4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        for (bytes, client) in [
            (binary(0x21, 0x11, &v4), Some("192.0.2.1")),
            (binary(0x21, 0x11, &with_tlvs), Some("192.0.2.1")),
            (binary(0x21, 0x21, &v6), Some("2001:db8::1")),
            (binary(0x20, 0x00, &[]), None),
            (binary(0x20, 0x11, &v4), None),
            (binary(0x21, 0x00, &[]), None),
            (binary(0x21, 0x31, &[0; 216]), None),
        ] {
            let mut more = bytes.clone();
            more.extend_from_slice(b"GET /");
            assert_eq!(parse(&more, ProxyProtocol::Any), whole(bytes.len(), client));
            assert_eq!(parse(&more, ProxyProtocol::V1), Parsed::Wrong);
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end], ProxyProtocol::V2), Parsed::Partial, "{end}");
            }
        }
        for bytes in [
            binary(0x31, 0x11, &v4),
            binary(0x22, 0x11, &v4),
            binary(0x21, 0x11, &v4[..11]),
            binary(0x21, 0x21, &v6[..35]),
            binary(0x21, 0x11, &vec![0; PREAMBLE_MAX]),
        ] {
            assert_eq!(parse(&bytes, ProxyProtocol::Any), Parsed::Wrong);
        }
    }

    /// Every byte string of a simple generator, cut anywhere: no panic, and a whole header lies within its bytes.
    #[test]
    fn no_bytes_are_too_strange() {
        let seeds = [b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\n".to_vec(), binary(0x21, 0x11, &[7; 12])];
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap()
        };
        for _ in 0..50_000 {
            let mut bytes = seeds[random() % 2].clone();
            for _ in 0..=random() % 3 {
                let place = random() % bytes.len();
                bytes[place] = u8::try_from(random() % 256).unwrap();
            }
            bytes.truncate(random() % (bytes.len() + 1));
            if let Parsed::Whole { length, .. } = parse(&bytes, ProxyProtocol::Any) {
                assert!(length <= bytes.len());
            }
        }
    }
}
