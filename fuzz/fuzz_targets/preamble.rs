//! The PROXY protocol, against a second reading of its sections 2.1 and 2.2.
//!
//! Input: the bytes of a connection.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use segue_proxy::fuzzing::{Preamble, preamble};

/// Bytes of a header of version 1, with its line end (section 2.1), and bytes that the edge waits for.
const TEXT: usize = 107;
const LONGEST: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let both = preamble(data, true, true);
    let (text, binary) = (preamble(data, true, false), preamble(data, false, true));
    if let Preamble::Whole { length, client } = both {
        assert!(length <= data.len() && (text == both) != (binary == both), "not one of the two versions");
        assert_eq!(preamble(&data[..length], true, true), both, "bytes behind the header change it");
        for end in 0..length {
            assert_eq!(preamble(&data[..end], true, true), Preamble::Partial, "{length} bytes cut at {end}");
        }
        assert!(!matches!(client, Some(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some()));
    }
    assert_eq!(text, first(data), "version 1");
    assert_eq!(binary, second(data), "version 2");
    if both == Preamble::Partial {
        assert!(data.len() < LONGEST, "waits for more than it says");
    }
});

/// Section 2.1.
fn first(data: &[u8]) -> Preamble {
    let begin = b"PROXY ";
    if data[..data.len().min(6)] != begin[..data.len().min(6)] {
        return Preamble::Wrong;
    }
    let Some(end) = data.windows(2).position(|pair| pair == b"\r\n").filter(|end| end + 2 <= TEXT) else {
        return if data.len() < TEXT { Preamble::Partial } else { Preamble::Wrong };
    };
    let words: Option<Vec<_>> = std::str::from_utf8(&data[..end]).ok().map(|line| line.split(' ').collect());
    let client = match words.as_deref() {
        Some(["PROXY", "UNKNOWN", ..]) => None,
        Some(["PROXY", family, from, to, from_port, to_port]) => {
            let port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
            let read = |text: &str| match *family {
                "TCP4" => text.parse().map(IpAddr::V4).ok(),
                "TCP6" => text.parse().map(IpAddr::V6).ok(),
                _ => None,
            };
            match (read(from), read(to)) {
                (Some(client), Some(_)) if port(from_port) && port(to_port) => Some(client.to_canonical()),
                _ => return Preamble::Wrong,
            }
        }
        _ => return Preamble::Wrong,
    };
    Preamble::Whole { length: end + 2, client }
}

/// Section 2.2.
fn second(data: &[u8]) -> Preamble {
    let begin = b"\r\n\r\n\0\r\nQUIT\n";
    if data[..data.len().min(12)] != begin[..data.len().min(12)] {
        return Preamble::Wrong;
    }
    if data.len() < 16 {
        return Preamble::Partial;
    }
    let length = usize::from(data[14]) * 256 + usize::from(data[15]);
    if length + 16 > LONGEST || ![0x20, 0x21].contains(&data[12]) {
        return Preamble::Wrong;
    }
    if data.len() < 16 + length {
        return Preamble::Partial;
    }
    let body = &data[16..16 + length];
    let client = match (data[12], data[13] / 16) {
        (0x21, 1) if length < 12 => return Preamble::Wrong,
        (0x21, 2) if length < 36 => return Preamble::Wrong,
        (0x21, 1) => Some(IpAddr::V4(Ipv4Addr::new(body[0], body[1], body[2], body[3]))),
        (0x21, 2) => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&body[..16]).unwrap())).to_canonical()),
        _ => None,
    };
    Preamble::Whole { length: 16 + length, client }
}
