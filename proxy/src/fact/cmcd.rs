//! Common media client data as players send it (CTA-5004): in the query `CMCD` or in four headers.
//!
//! Invariants: at most [`KEYS_MAX`] keys; a pair that is not well-formed is passed over; never panics.

use http::HeaderMap;
use serde_json::{Map, Number, Value};
use url::form_urlencoded;

/// CTA-5004 has 18 keys; custom ones may come with them.
const KEYS_MAX: usize = 48;
const HEADERS: [&str; 4] = ["cmcd-request", "cmcd-object", "cmcd-status", "cmcd-session"];

/// What the player says, if it says anything.
pub(crate) fn read(headers: &HeaderMap, query: Option<&str>) -> Option<Map<String, Value>> {
    let mut found = Map::new();
    for name in HEADERS {
        if let Some(text) = headers.get(name).and_then(|value| value.to_str().ok()) {
            parse(text, &mut found);
        }
    }
    if let Some(query) = query.filter(|query| query.contains("CMCD=")) {
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if name == "CMCD" {
                parse(&value, &mut found);
            }
        }
    }
    (!found.is_empty()).then_some(found)
}

fn parse(text: &str, found: &mut Map<String, Value>) {
    let mut rest = text;
    while !rest.is_empty() && found.len() < KEYS_MAX {
        let (pair, after) = pair(rest);
        rest = after;
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = key.trim();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.') {
            continue;
        }
        let value = value.trim();
        let value = if let Some(quoted) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
            Value::String(quoted.replace("\\\"", "\"").replace("\\\\", "\\"))
        } else if !pair.contains('=') {
            Value::Bool(true)
        } else if let Ok(whole) = value.parse::<i64>() {
            Value::Number(whole.into())
        } else if let Some(decimal) = value.parse::<f64>().ok().and_then(Number::from_f64) {
            Value::Number(decimal)
        } else if value == "true" || value == "false" {
            Value::Bool(value == "true")
        } else {
            Value::String(value.to_owned())
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
        let query = "a=1&CMCD=br%3D3200%2Cbs%2Cd%3D4004%2Cmtp%3D25400%2Cot%3Dv%2Csid%3D%22a%2Cb%5C%22c%22";
        let found = read(&HeaderMap::new(), Some(query)).unwrap();
        let wanted = json!({"br": 3200, "bs": true, "d": 4004, "mtp": 25400, "ot": "v", "sid": "a,b\"c"});
        assert_eq!(Value::Object(found), wanted);
    }

    #[test]
    fn headers_are_read_and_nonsense_is_not() {
        let mut headers = HeaderMap::new();
        headers.insert("cmcd-request", "bl=21300,,=x,su".parse().unwrap());
        headers.insert("cmcd-session", "sid=\"6e2f\",pr=1.08".parse().unwrap());
        let found = read(&headers, None).unwrap();
        assert_eq!(Value::Object(found), json!({"bl": 21300, "su": true, "sid": "6e2f", "pr": 1.08}));
        assert_eq!(read(&HeaderMap::new(), Some("x=1")), None);
    }
}
