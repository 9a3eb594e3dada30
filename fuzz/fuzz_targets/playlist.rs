//! The playlist rewriter: cut anywhere it says the same, what it does not change stays, and no ticket goes to a
//! stranger, as browsers read addresses.
//!
//! Input: a first line of a letter (`p` path, `d` define, `r` rewrite, `i` rewrite with the ticket in the path) and a
//! host, which may be empty; then the playlist.

#![no_main]

use libfuzzer_sys::fuzz_target;
use segue_proxy::fuzzing::{Rewriting, rewrite};
use url::Url;

/// What no playlist holds by itself.
const TICKET: &str = "tick-3t";

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (line, text) = (&data[..end], &data[end + 1..]);
    let Some((way, host)) = std::str::from_utf8(line).ok().and_then(|line| line.split_at_checked(1)) else { return };
    let way = match way {
        "p" => Rewriting::Path,
        "d" => Rewriting::Define,
        "r" => Rewriting::Rewrite { ticket: TICKET, inherited: false },
        "i" => Rewriting::Rewrite { ticket: TICKET, inherited: true },
        _ => return,
    };
    let host = Some(host).filter(|host| !host.is_empty());
    let got = rewrite(way, host, &[text]);
    assert_eq!(rewrite(way, host, &pieces(text)), got, "cut into pieces it says something else");
    let Ok(out) = got else { return };
    match way {
        Rewriting::Path => assert_eq!(out, text, "path changes a byte"),
        Rewriting::Define => {
            assert_eq!(rewrite(way, host, &[&out]).as_ref(), Ok(&out), "done twice it is another");
        }
        Rewriting::Rewrite { .. } => {
            assert_eq!(rewrite(way, host, &[&out]).as_ref(), Ok(&out), "done twice it is another");
            assert_eq!(out.split(|byte| *byte == b'\n').count(), text.split(|byte| *byte == b'\n').count());
            if !holds(text, b"{$") {
                no_stranger_gets_it(&out, text, host);
            }
        }
    }
    if !holds(text, b"icket") && !holds(text, TICKET.as_bytes()) && !holds(text, b"?") && !holds(text, b"{$") {
        assert!(way == Rewriting::Define || without_ticket(&out) == text, "something else than a ticket was added");
    }
});

/// The text in pieces whose lengths it says itself; empty ones too.
fn pieces(text: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.first() {
        let (piece, more) = rest.split_at(usize::from(first % 7).min(rest.len()));
        pieces.push(piece);
        let (one, more) = more.split_at(more.len().min(1));
        pieces.push(one);
        rest = more;
    }
    pieces
}

/// Every address that holds the ticket leads to the edge, whichever scheme the playlist came by.
fn no_stranger_gets_it(out: &[u8], text: &[u8], host: Option<&str>) {
    let Ok(out) = std::str::from_utf8(out) else { return };
    if holds(text, TICKET.as_bytes()) {
        return;
    }
    for scheme in ["http", "https"] {
        let Ok(base) = Url::parse(&format!("{scheme}://{}/hls/t/v/index.m3u8", host.unwrap_or("edge.example"))) else {
            return;
        };
        for uri in out.lines().flat_map(addresses).filter(|uri| uri.contains(TICKET)) {
            let Ok(url) = base.join(uri) else { continue };
            // A scheme that is named may be the other one; its port is then the one that is named.
            assert_eq!(url.host_str(), base.host_str(), "{uri:?} takes the ticket to another host");
            assert!(["http", "https"].contains(&url.scheme()), "{uri:?} takes the ticket elsewhere");
        }
    }
}

/// What on a line may be an address: the line, or what stands between two quotes.
fn addresses(line: &str) -> Vec<&str> {
    if line.starts_with('#') { line.split('"').skip(1).step_by(2).collect() } else { vec![line] }
}

fn without_ticket(out: &[u8]) -> Vec<u8> {
    let mut rest = out;
    let mut without = Vec::new();
    let added = format!("?ticket={TICKET}");
    while let Some(at) = rest.windows(added.len()).position(|window| window == added.as_bytes()) {
        without.extend_from_slice(&rest[..at]);
        rest = &rest[at + added.len()..];
    }
    [without.as_slice(), rest].concat()
}

fn holds(text: &[u8], mark: &[u8]) -> bool {
    text.windows(mark.len()).any(|window| window == mark)
}
