//! Base64, hex, percent escapes and queries, as foreign schemes write them.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding (RFC 4648, section 4).
pub fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = ALPHABET[(word >> (18 - 6 * place) & 63) as usize] as char;
            out.push(if place > chunk.len() { '=' } else { letter });
        }
    }
    out
}

/// Base64url without padding (RFC 4648, section 5).
pub fn base64url(bytes: &[u8]) -> String {
    base64(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_")
}

/// Reads base64, with or without padding. `None` where a letter is foreign, or bits are left over.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.chunks(4) {
        let mut word = 0_u32;
        for &letter in chunk {
            word = word << 6 | ALPHABET.iter().position(|&known| known == letter)? as u32;
        }
        let bits = 6 * chunk.len();
        let spare = bits % 8;
        if chunk.len() == 1 || word & ((1 << spare) - 1) != 0 {
            return None;
        }
        word >>= spare;
        out.extend_from_slice(&word.to_be_bytes()[4 - bits / 8..]);
    }
    Some(out)
}

/// Reads base64url without padding.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    if text.contains(['+', '/', '=']) {
        return None;
    }
    from_base64(&text.replace('-', "+").replace('_', "/"))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decodes percent escapes. `None` where one is broken, or the bytes are no UTF-8.
pub fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: u8| (byte as char).to_digit(16);
        out.push((digit(bytes.next()?)? * 16 + digit(bytes.next()?)?) as u8);
    }
    String::from_utf8(out).ok()
}

/// Escapes all but the unreserved characters (RFC 3986, section 2.3).
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The pairs of a query, as they stand there.
pub fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The value of a parameter that may be there once. `Err` where it is there twice: which one counts?
pub fn once<'q>(query: &'q str, name: &str) -> Result<Option<&'q str>, ()> {
    let mut values = pairs(query).filter(|(key, _)| *key == name).map(|(_, value)| value);
    let value = values.next();
    if values.next().is_some() { Err(()) } else { Ok(value) }
}

/// An absolute URL in its parts: `https://host`, the path, the query.
pub fn split_url(url: &str) -> Option<(&str, &str, Option<&str>)> {
    let host = url.find("://")? + 3;
    let path = host + url[host..].find('/')?;
    let rest = url[path..].split('#').next()?;
    let (path_text, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    Some((&url[..path], path_text, query))
}

/// Whether a text fits a pattern in which `*` stands for any text and `?` for any byte. Its time grows with the product of the two
/// lengths at most, whatever the pattern.
pub fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}
