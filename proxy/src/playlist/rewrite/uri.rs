//! Where a URI of a playlist leads, and the same URI with a ticket.
//!
//! Invariants: a URI counts as ours only where every client agrees that it is. Browsers read some addresses otherwise
//! than RFC 3986 (a backslash as a slash, tabs as nothing, `https:///host` as `https://host`): those lead nowhere
//! here. A ticket never goes into a URI that has a signature of its own.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

/// Everything but the unreserved characters (RFC 3986, section 2.3). A ticket holds none of them.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a URI leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach<'u> {
    /// Below or beside the playlist.
    Relative,
    /// From the root of the playlist's own host.
    Rooted,
    /// To a host over HTTP.
    Host { scheme: Option<&'u [u8]>, authority: &'u [u8] },
    /// Nowhere that could get a ticket: another scheme, an odd address, a part that is not known.
    Unknown,
}

/// Judges `uri` by what its variables make of it. `cut`: behind `expanded` comes something that is not known.
pub(super) fn reach<'u>(uri: &[u8], expanded: &'u [u8], cut: bool) -> Reach<'u> {
    let is_odd = |text: &[u8]| text.iter().any(|byte| *byte < b' ' || *byte == 0x7f || *byte == b'\\');
    let padded = |text: &[u8]| text.starts_with(b" ") || text.ends_with(b" ");
    // A fragment that comes out of a variable would swallow what is put behind it.
    let hashes = |text: &[u8]| text.iter().filter(|byte| **byte == b'#').count();
    let hidden = hashes(expanded) > hashes(uri);
    if is_odd(uri) || is_odd(expanded) || padded(uri) || padded(expanded) || hidden || uri.starts_with(b"#") {
        return Reach::Unknown;
    }
    let end = expanded.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    let before = expanded.get(..end.unwrap_or(expanded.len())).unwrap_or_default();
    if let Some(colon) = before.iter().position(|byte| *byte == b':') {
        let (scheme, rest) = expanded.split_at(colon);
        let is_http = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
        return match rest.strip_prefix(b"://") {
            Some(rest) if is_http => host(Some(scheme), rest, cut),
            _ => Reach::Unknown,
        };
    }
    if let Some(rest) = expanded.strip_prefix(b"//") {
        return host(None, rest, cut);
    }
    match expanded {
        // What is not known might begin with a second slash, or name a scheme.
        [] | [b'/'] if cut => Reach::Unknown,
        [] => Reach::Unknown,
        [b'/', ..] => Reach::Rooted,
        _ if cut && end.is_none() => Reach::Unknown,
        _ => Reach::Relative,
    }
}

fn host<'u>(scheme: Option<&'u [u8]>, rest: &'u [u8], cut: bool) -> Reach<'u> {
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    let authority = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
    if authority.is_empty() || authority.contains(&b'@') || (cut && end.is_none()) {
        return Reach::Unknown;
    }
    Reach::Host { scheme, authority }
}

/// Whether an authority is `host`, the value of a `Host` header: the same name and port, a default port counting as
/// none (RFC 9110, section 4.2.3).
pub(super) fn is_host(scheme: Option<&[u8]>, authority: &[u8], host: &[u8]) -> bool {
    let default: &[u8] = match scheme {
        Some(scheme) if scheme.eq_ignore_ascii_case(b"https") => b"443",
        Some(_) => b"80",
        None => b"",
    };
    let (name, port) = split(authority);
    let (our_name, our_port) = split(host);
    name.eq_ignore_ascii_case(our_name) && port.unwrap_or(default) == our_port.unwrap_or(default)
}

/// Name and port. The colons of an IPv6 address stand in brackets.
fn split(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    let colon = authority.iter().rposition(|byte| *byte == b':');
    let parts = colon.and_then(|colon| Some((authority.get(..colon)?, authority.get(colon + 1..)?)));
    match parts {
        Some((name, port)) if port.iter().all(u8::is_ascii_digit) => (name, Some(port).filter(|port| !port.is_empty())),
        _ => (authority, None),
    }
}

/// A ticket as it may stand in a query.
pub(super) fn encoded(ticket: &str) -> String {
    utf8_percent_encode(ticket, RESERVED).to_string()
}

/// `uri` with `ticket=value` at the end of its query, in place of any ticket there. `None`: it has a signature of its
/// own (`sig=`), which a ticket beside it would make ambiguous.
pub(super) fn with_ticket(uri: &[u8], expanded: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let (body, fragment) = uri.split_at(uri.iter().position(|byte| *byte == b'#').unwrap_or(uri.len()));
    // The question mark may come out of a variable; what stands behind it here is the rest of its query.
    let expanded = expanded.split(|byte| *byte == b'#').next().unwrap_or_default();
    let hidden = !body.contains(&b'?') && expanded.contains(&b'?');
    let mut separator = if hidden { b'&' } else { b'?' };
    let (path, query) = body.split_at(body.iter().position(|byte| *byte == separator).unwrap_or(body.len()));
    let mut out = Vec::with_capacity(uri.len() + value.len() + 8);
    out.extend_from_slice(path);
    for pair in query.get(1..).unwrap_or_default().split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        let name: Vec<u8> = percent_decode(name).collect();
        match name.as_slice() {
            b"ticket" => continue,
            b"sig" => return None,
            _ => {}
        }
        out.push(separator);
        out.extend_from_slice(pair);
        separator = b'&';
    }
    out.push(separator);
    out.extend_from_slice(b"ticket=");
    out.extend_from_slice(value);
    out.extend_from_slice(fragment);
    Some(out)
}
