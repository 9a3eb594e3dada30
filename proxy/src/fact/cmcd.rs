//! Common media client data as players send it, version 1 (CTA-5004) and version 2 (CTA-5004-B): in the query `CMCD`
//! or in four headers.
//!
//! Both are dictionaries of structured fields; what stands in the fact is told in `cmcd/member.rs`.
//!
//! Invariants: at most [`KEYS_MAX`] keys, the last of a name wins; never panics. A value that the grammar does not know is
//! kept as it stands, since a player's mistake is worth seeing; a pair without a key is passed over.

mod member;

use http::HeaderMap;
use serde_json::{Map, Value};
use url::form_urlencoded;

/// CTA-5004-B has some forty keys for requests; custom ones may come with them.
const KEYS_MAX: usize = 64;
/// In the order in which later ones win.
const HEADERS: [&str; 4] = ["cmcd-object", "cmcd-request", "cmcd-session", "cmcd-status"];

/// What the player says, if it says anything.
pub(crate) fn read(headers: &HeaderMap, query: Option<&str>) -> Option<Map<String, Value>> {
    let mut found = Map::new();
    for name in HEADERS {
        if let Some(text) = headers.get(name).and_then(|value| value.to_str().ok()) {
            parse(text, &mut found);
        }
    }
    if let Some(query) = query.filter(|query| query.contains("CMCD=")) {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        if let Some((_, value)) = pairs.find(|(name, _)| name == "CMCD") {
            parse(&value, &mut found);
        }
    }
    (!found.is_empty()).then_some(found)
}

fn parse(text: &str, found: &mut Map<String, Value>) {
    let mut rest = text;
    while !rest.is_empty() && found.len() < KEYS_MAX {
        let (pair, after) = pair(rest);
        rest = after;
        let pair = pair.trim_matches([' ', '\t']);
        let length = pair.bytes().position(|byte| !member::is_key(byte)).unwrap_or(pair.len());
        let (key, value) = pair.split_at(length);
        let value = match value.as_bytes().first() {
            _ if key.is_empty() => continue,
            None => Value::Bool(true),
            Some(b'=') => {
                let value = &value[1..];
                member::value(value).unwrap_or_else(|| Value::String(value.to_owned()))
            }
            // A flag with parameters.
            Some(b';') => member::value(&format!("?1{value}")).unwrap_or_else(|| Value::String(value.to_owned())),
            Some(_) => continue,
        };
        found.insert(key.to_owned(), value);
    }
}

/// Splits at the next comma that stands outside of quotes.
fn pair(text: &str) -> (&str, &str) {
    let (mut quoted, mut escaped) = (false, false);
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                return (text.get(..place).unwrap_or_default(), text.get(place + 1..).unwrap_or_default());
            }
            _ => {}
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn the_query_of_the_standards_example_is_read() {
        // CTA-5004, section 2.4: the example of query arguments, with a string that holds comma and escaped quote.
        let query = "a=1&CMCD=br%3D3200%2Cbs%2Cd%3D4004%2Cmtp%3D25400%2Cot%3Dv%2Csid%3D%22a%2Cb%5C%22c%22&CMCD=x";
        let found = read(&HeaderMap::new(), Some(query)).unwrap();
        let wanted = json!({"br": 3200, "bs": true, "d": 4004, "mtp": 25400, "ot": "v", "sid": "a,b\"c"});
        assert_eq!(Value::Object(found), wanted);
    }

    #[test]
    fn version_two_has_lists_and_parameters() {
        let query = "CMCD=bl%3D%282000%3Bv%20900%3Ba%29%2Cbs%3D%3F0%2Ccom.example-x%3D%22a%2Cb%22%2Cnor%3D%28%22a.m4s%22%3Br%3D%220-9%22%29%2Cv%3D2";
        let wanted = json!({
            "bl": [{"value": 2000, "params": {"v": true}}, {"value": 900, "params": {"a": true}}],
            "bs": false, "com.example-x": "a,b", "v": 2, "nor": [{"value": "a.m4s", "params": {"r": "0-9"}}],
        });
        assert_eq!(Value::Object(read(&HeaderMap::new(), Some(query)).unwrap()), wanted);
    }

    #[test]
    fn headers_are_read_and_mistakes_are_kept_as_they_stand() {
        let mut headers = HeaderMap::new();
        headers.insert("cmcd-request", "bl=21300,,=x,su, dl=1e3,nor;a=1".parse().unwrap());
        let not_ascii = http::HeaderValue::from_bytes("sid=\"6e2f\",pr=1.08,st=é".as_bytes()).unwrap();
        headers.insert("cmcd-session", not_ascii);
        headers.insert("cmcd-status", "pr=1.5,bad key=1".parse().unwrap());
        let found = read(&headers, None).unwrap();
        let wanted = json!({
            "bl": 21300, "su": true, "dl": "1e3", "nor": {"value": true, "params": {"a": 1}}, "pr": 1.5,
        });
        assert_eq!(Value::Object(found), wanted, "a header that is no ASCII is none");
        headers.insert("cmcd-session", "sid=\"6e2f\",cid=6e2f".parse().unwrap());
        let found = read(&headers, None).unwrap();
        assert_eq!((&found["sid"], &found["cid"]), (&json!("6e2f"), &json!("6e2f")));
        assert_eq!(read(&HeaderMap::new(), Some("x=1")), None);
        let many: String = (0..200).map(|n| format!("k{n}={n},")).collect();
        headers.insert("cmcd-object", many.parse().unwrap());
        assert_eq!(read(&headers, None).unwrap().len(), KEYS_MAX);
    }
}
