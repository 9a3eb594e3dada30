//! A JSON object written straight into a buffer, each string held to a bound.
//!
//! The general serialiser cannot cut a string at a number of escaped bytes, and a record has to fit a slot
//! whatever a client sends. Tests hold the output against `serde_json` and the published schemas.

use std::cell::Cell;

use serde_json::{Map, Value};

thread_local! {
    /// One buffer a thread, so that a record costs no allocation.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's buffer, empty. A thread that is ending gets a fresh one.
pub(crate) fn with_buffer<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
    buffer.clear();
    let result = work(&mut buffer);
    // A thread that is ending has nowhere to keep the buffer, and no more use for it.
    let _ending = BUFFER.try_with(|kept| kept.set(buffer));
    result
}

/// An object that is being written. Keys are given with their quotes and colon, as they are on the wire.
pub(crate) struct Object<'b> {
    out: &'b mut Vec<u8>,
}

impl<'b> Object<'b> {
    /// Begins with `{"v":1`, which every record starts with.
    pub(crate) fn version_one(out: &'b mut Vec<u8>) -> Self {
        out.extend_from_slice(b"{\"v\":1");
        Self { out }
    }

    /// Goes on with an object whose closing brace is not yet written.
    pub(crate) fn resume(out: &'b mut Vec<u8>) -> Self {
        Self { out }
    }

    fn key(&mut self, key: &'static str) {
        self.out.push(b',');
        self.out.extend_from_slice(key.as_bytes());
    }

    pub(crate) fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    pub(crate) fn optional_number(&mut self, key: &'static str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(key, value);
        }
    }

    pub(crate) fn boolean(&mut self, key: &'static str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    pub(crate) fn numbers(&mut self, key: &'static str, values: &[u64]) {
        self.key(key);
        let mut separator = b'[';
        for value in values {
            self.out.push(separator);
            self.out.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes());
            separator = b',';
        }
        self.out.push(b']');
    }

    /// A string, cut at a character so that it takes at most `bound` bytes between its quotes.
    pub(crate) fn text(&mut self, key: &'static str, value: &str, bound: usize) {
        self.key(key);
        quote(self.out, value, bound);
    }

    pub(crate) fn optional_text(&mut self, key: &'static str, value: Option<&str>, bound: usize) {
        if let Some(value) = value {
            self.text(key, value, bound);
        }
    }

    /// The record's own id, `<edge>-<boot base 36>-<sequence>`.
    pub(crate) fn id(&mut self, stem: &str, sequence: u64) {
        self.key("\"id\":\"");
        self.out.extend_from_slice(stem.as_bytes());
        self.out.extend_from_slice(itoa::Buffer::new().format(sequence).as_bytes());
        self.out.push(b'"');
    }

    /// An array of strings of at most `bound` bytes between its brackets. A string that does not fit whole is
    /// left out. Writes nothing for an empty list.
    pub(crate) fn texts(&mut self, key: &'static str, values: &[String], bound: usize) {
        if values.is_empty() {
            return;
        }
        self.key(key);
        self.out.push(b'[');
        let from = self.out.len();
        for value in values {
            let before = self.out.len();
            if before > from {
                self.out.push(b',');
            }
            // One byte more than fits is enough to see that it does not.
            let room = (from + bound + 1).saturating_sub(self.out.len() + 2);
            let whole = quote(self.out, value, room);
            if !whole || self.out.len() - from > bound {
                self.out.truncate(before);
            }
        }
        self.out.push(b']');
    }

    /// An object of at most `bound` bytes, braces included. A key that does not fit whole is left out.
    pub(crate) fn object(&mut self, key: &'static str, value: Option<&Map<String, Value>>, bound: usize) {
        let Some(map) = value else { return };
        self.key(key);
        let from = self.out.len();
        self.out.push(b'{');
        for (name, value) in map {
            let before = self.out.len();
            if before > from + 1 {
                self.out.push(b',');
            }
            let whole = quote(self.out, name, bound);
            self.out.push(b':');
            let written = serde_json::to_writer(&mut *self.out, value);
            if !whole || written.is_err() || self.out.len() + 1 - from > bound {
                self.out.truncate(before);
            }
        }
        self.out.push(b'}');
    }

    pub(crate) fn close(self) {
        self.out.push(b'}');
    }
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Writes `value` quoted and escaped, at most `bound` bytes between the quotes. Says whether it went in whole.
fn quote(out: &mut Vec<u8>, value: &str, bound: usize) -> bool {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = value.as_bytes();
    // A fold and not `any`: without the early exit it runs sixteen bytes at a time.
    let plain = !bytes.iter().fold(false, |found, byte| found | needs_escape(*byte));
    if plain && bytes.len() <= bound {
        out.extend_from_slice(bytes);
        out.push(b'"');
        return true;
    }
    let limit = out.len() + bound;
    let mut whole = true;
    for character in value.chars() {
        let mut form = [0; 6];
        let written: &[u8] = match character {
            '"' => b"\\\"",
            '\\' => b"\\\\",
            '\n' => b"\\n",
            '\r' => b"\\r",
            '\t' => b"\\t",
            '\u{8}' => b"\\b",
            '\u{c}' => b"\\f",
            control if (control as u32) < 0x20 => {
                let code = control as usize;
                form = [b'\\', b'u', b'0', b'0', HEX[code >> 4], HEX[code & 15]];
                &form
            }
            other => other.encode_utf8(&mut form).as_bytes(),
        };
        if out.len() + written.len() > limit {
            whole = false;
            break;
        }
        out.extend_from_slice(written);
    }
    out.push(b'"');
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(value: &str, bound: usize) -> (String, bool) {
        let mut out = Vec::new();
        let whole = quote(&mut out, value, bound);
        (String::from_utf8(out).expect("UTF-8"), whole)
    }

    #[test]
    fn strings_are_escaped_as_serde_json_escapes_them() {
        let every: String = (0..0x80u8).map(char::from).chain("äöü€🎵\u{2028}".chars()).collect();
        for value in ["", "plain", "a\"b\\c", "line\nbreak\ttab\r\u{8}\u{c}\u{0}\u{1f}\u{7f}", "Beyoncé 🎵", &every]
        {
            assert_eq!(quoted(value, 10_000), (serde_json::to_string(value).expect("JSON"), true));
        }
    }

    #[test]
    fn strings_are_cut_at_a_character_and_never_over_the_bound() {
        for value in
            ["aaaaaaaaaa", "\"\"\"\"\"\"\"\"\"\"", "\u{1}\u{2}\u{3}\u{4}\u{5}", "ééééé€€€🎵🎵🎵", "a\nb\u{1}cé🎵\"\""]
        {
            for bound in 0..70 {
                let (text, whole) = quoted(value, bound);
                assert!(text.len() <= bound + 2, "{text} is over {bound}");
                let back: String = serde_json::from_str(&text).expect("valid JSON");
                assert!(value.starts_with(&back));
                assert_eq!(whole, back == value, "{value} at {bound}");
            }
        }
    }

    #[test]
    fn lists_and_objects_leave_out_what_does_not_fit() {
        let long = "x".repeat(40);
        let tags = ["one".to_owned(), long.clone(), "three".to_owned()];
        let map: Map<String, Value> = [
            ("br".to_owned(), Value::from(128)),
            ("sid".to_owned(), Value::from(long)),
            ("su".to_owned(), Value::from(true)),
        ]
        .into_iter()
        .collect();
        for bound in 0..120 {
            let mut out = Vec::new();
            let mut object = Object::version_one(&mut out);
            object.texts("\"tags\":", &tags, bound);
            object.object("\"cmcd\":", Some(&map), bound.max(2));
            object.close();
            let parsed: Value = serde_json::from_slice(&out).expect("valid JSON");
            let kept = serde_json::to_string(&parsed["tags"]).expect("JSON");
            assert!(kept.len() <= bound + 2, "{kept} over {bound}");
            let kept = serde_json::to_string(&parsed["cmcd"]).expect("JSON");
            assert!(kept.len() <= bound.max(2), "{kept} over {bound}");
            if bound == 119 {
                assert_eq!(parsed["tags"].as_array().map(Vec::len), Some(3));
                assert_eq!(parsed["cmcd"].as_object().map(Map::len), Some(3));
            }
            if (13..40).contains(&bound) {
                assert_eq!(parsed["tags"], serde_json::json!(["one", "three"]), "at {bound}");
            }
            if (10..20).contains(&bound) {
                assert_eq!(parsed["cmcd"], serde_json::json!({"br": 128}), "at {bound}");
            }
            if (20..50).contains(&bound) {
                assert_eq!(parsed["cmcd"], serde_json::json!({"br": 128, "su": true}), "at {bound}");
            }
        }
    }
}
