//! One value of a structured-field dictionary (RFC 8941 section 3.2, RFC 9651) as JSON: how CMCD is written on the wire.
//!
//! | on the wire | in the fact |
//! |---|---|
//! | integer, decimal | number |
//! | string, token, byte sequence | string (bytes in their base64) |
//! | boolean | boolean |
//! | date | number, seconds |
//! | inner list | array |
//! | anything with parameters | `{"value": …, "params": {…}}` |
//!
//! Invariants: never panics, looks at each byte once, nests one list deep (the grammar allows no more).

use serde_json::{Map, Number, Value};

/// Digits of an integer, and of a decimal's whole part (RFC 8941 section 3.3.1 and 3.3.2).
const INTEGER_DIGITS: usize = 15;
const WHOLE_DIGITS: usize = 12;
const FRACTION_DIGITS: usize = 3;
/// Parameters of one item; CTA-5004-B has two.
const PARAMS_MAX: usize = 8;

/// Reads a whole value; `None` where it is none, or something stands behind it.
pub(super) fn value(text: &str) -> Option<Value> {
    let mut at = Cursor { rest: text.as_bytes() };
    let value = at.member()?;
    at.rest.is_empty().then_some(value)
}

struct Cursor<'t> {
    rest: &'t [u8],
}

impl<'t> Cursor<'t> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        if is {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        is
    }

    /// Takes bytes for as long as they are fine.
    fn while_(&mut self, fine: impl Fn(u8) -> bool) -> &'t [u8] {
        let length = self.rest.iter().position(|byte| !fine(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn spaces(&mut self) {
        self.while_(|byte| byte == b' ');
    }

    /// An item or an inner list, with parameters.
    fn member(&mut self) -> Option<Value> {
        let value = if self.eat(b'(') { self.list()? } else { self.bare()? };
        self.with_params(value)
    }

    fn list(&mut self) -> Option<Value> {
        let mut items = Vec::new();
        loop {
            self.spaces();
            if self.eat(b')') {
                return Some(Value::Array(items));
            }
            let bare = self.bare()?;
            items.push(self.with_params(bare)?);
            // Between items stands a space, and nothing else.
            if !matches!(self.peek(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn with_params(&mut self, value: Value) -> Option<Value> {
        let mut params = Map::new();
        while self.eat(b';') {
            self.spaces();
            let key = self.while_(is_key);
            if key.is_empty() || params.len() == PARAMS_MAX {
                return None;
            }
            let value = if self.eat(b'=') { self.bare()? } else { Value::Bool(true) };
            params.insert(ascii(key), value);
        }
        if params.is_empty() {
            return Some(value);
        }
        let both = [("value".to_owned(), value), ("params".to_owned(), Value::Object(params))];
        Some(Value::Object(both.into_iter().collect()))
    }

    fn bare(&mut self) -> Option<Value> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => Some(Value::String(ascii(self.while_(is_token)))),
            b'?' => {
                self.eat(b'?');
                let is = self.eat(b'1');
                (is || self.eat(b'0')).then_some(Value::Bool(is))
            }
            b':' => {
                self.eat(b':');
                let bytes = self.while_(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
                self.eat(b':').then(|| Value::String(ascii(bytes)))
            }
            b'@' => {
                self.eat(b'@');
                self.number().filter(Value::is_i64)
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Value> {
        let negative = self.eat(b'-');
        let whole = ascii(self.while_(|byte| byte.is_ascii_digit()));
        let sign = if negative { "-" } else { "" };
        if !self.eat(b'.') {
            let fine = (1..=INTEGER_DIGITS).contains(&whole.len());
            return fine.then(|| format!("{sign}{whole}").parse::<i64>().ok()).flatten().map(Value::from);
        }
        let fraction = ascii(self.while_(|byte| byte.is_ascii_digit()));
        let fine = (1..=WHOLE_DIGITS).contains(&whole.len()) && (1..=FRACTION_DIGITS).contains(&fraction.len());
        let number = fine.then(|| format!("{sign}{whole}.{fraction}").parse::<f64>().ok()).flatten()?;
        Number::from_f64(number).map(Value::Number)
    }

    fn string(&mut self) -> Option<Value> {
        self.eat(b'"');
        let mut text = String::new();
        loop {
            text.push_str(&ascii(self.while_(|byte| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\')));
            if self.eat(b'"') {
                return Some(Value::String(text));
            }
            if !self.eat(b'\\') {
                return None;
            }
            match self.peek()? {
                escaped @ (b'"' | b'\\') => text.push(char::from(escaped)),
                _ => return None,
            }
            self.rest = self.rest.get(1..)?;
        }
    }
}

fn ascii(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// What may stand in a key (RFC 8941 section 3.1.2); capitals besides, which players have been seen to send.
pub(super) fn is_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'*')
}

/// What may stand in a token (RFC 8941 section 3.3.4).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_of_value_is_read() {
        for (text, wanted) in [
            ("0", json!(0)),
            ("-999999999999999", json!(-999_999_999_999_999_i64)),
            ("1.08", json!(1.08)),
            ("-0.5", json!(-0.5)),
            ("\"a \\\"b\\\\ c\"", json!("a \"b\\ c")),
            ("av", json!("av")),
            ("*a/b:c", json!("*a/b:c")),
            ("?1", json!(true)),
            ("?0", json!(false)),
            (":AQID:", json!("AQID")),
            ("@1659578233", json!(1_659_578_233)),
            ("(1 2)", json!([1, 2])),
            ("()", json!([])),
            ("( \"a\"  b )", json!(["a", "b"])),
            ("(5000;v 128;a)", json!([{"value": 5000, "params": {"v": true}}, {"value": 128, "params": {"a": true}}])),
            ("(\"next.m4s\";r=\"0-99\")", json!([{"value": "next.m4s", "params": {"r": "0-99"}}])),
            ("(1);a; b=2", json!({"value": [1], "params": {"a": true, "b": 2}})),
        ] {
            assert_eq!(value(text), Some(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_none() {
        let none = [
            "",
            "-",
            "1.",
            ".5",
            "1.2345",
            "1234567890123456",
            "1234567890123.0",
            "\"open",
            "\"a\\b\"",
            "\"\u{1}\"",
            "?2",
            "?",
            ":a",
            ":a!:",
            "@1.5",
            "(1",
            "(1,2)",
            "(1\"a\")",
            "((1))",
            "1;",
            "1;=2",
            "1 ",
            "é",
            "6e2f",
            "1;a=(1)",
        ];
        for text in none {
            assert_eq!(value(text), None, "{text:?}");
        }
        let many: String = (0..9).map(|n| format!(";p{n}")).collect();
        assert_eq!(value(&format!("1{many}")), None);
    }
}
