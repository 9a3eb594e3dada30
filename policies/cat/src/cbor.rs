//! As much of CBOR (RFC 8949) as a Common Access Token is written in.
//!
//! Invariants: what is read is bounded in bytes, depth and items; nothing may follow it; lengths are definite, labels of a map
//! are there once.

/// Bytes of a token. A ticket in a URL or a header has no more.
pub const BYTES: usize = 4096;
/// How deep values lie in each other: a claim (a map in the map) has 4.
const DEPTH: usize = 8;
/// Values in all.
const ITEMS: usize = 512;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Integer(i64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Tag(u64, Box<Value>),
    Float(f64),
    /// `true`, `false`, `null`, `undefined`: no claim that counts here has one.
    Simple(u8),
}

impl Value {
    /// Reads one value, and nothing behind it.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: bytes, items: ITEMS };
        let value = reader.value(DEPTH)?;
        (bytes.len() <= BYTES && reader.rest.is_empty()).then_some(value)
    }

    pub fn integer(&self) -> Option<i64> {
        if let Self::Integer(number) = self { Some(*number) } else { None }
    }

    pub fn bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub fn array(&self) -> Option<&[Value]> {
        if let Self::Array(values) = self { Some(values) } else { None }
    }

    pub fn map(&self) -> Option<&[(Value, Value)]> {
        if let Self::Map(pairs) = self { Some(pairs) } else { None }
    }

    /// An array of texts.
    pub fn texts(&self) -> Option<Vec<&str>> {
        self.array()?.iter().map(Self::text).collect()
    }

    /// What stands under a number in a map.
    pub fn get(&self, label: i64) -> Option<&Value> {
        self.map()?.iter().find(|(key, _)| *key == Value::Integer(label)).map(|(_, value)| value)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Integer(number) if *number < 0 => head(1, !number.cast_unsigned(), out),
            Self::Integer(number) => head(0, number.cast_unsigned(), out),
            Self::Bytes(bytes) => {
                head(2, bytes.len() as u64, out);
                out.extend_from_slice(bytes);
            }
            Self::Text(text) => {
                head(3, text.len() as u64, out);
                out.extend_from_slice(text.as_bytes());
            }
            Self::Array(values) => {
                head(4, values.len() as u64, out);
                values.iter().for_each(|value| value.write(out));
            }
            Self::Map(pairs) => {
                head(5, pairs.len() as u64, out);
                pairs.iter().for_each(|(key, value)| {
                    key.write(out);
                    value.write(out);
                });
            }
            Self::Tag(tag, value) => {
                head(6, *tag, out);
                value.write(out);
            }
            Self::Float(number) => {
                out.push(0xfb);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::Simple(value) => out.push(0xe0 | value),
        }
    }

    pub fn written(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

/// The shortest head that holds the number (RFC 8949, section 4.2.1).
fn head(major: u8, number: u64, out: &mut Vec<u8>) {
    let bytes = number.to_be_bytes();
    let (low, size) = match number {
        0..=23 => (bytes[7], 0),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    out.push(major << 5 | low);
    out.extend_from_slice(&bytes[8 - size..]);
}

struct Reader<'b> {
    rest: &'b [u8],
    items: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: u64) -> Option<&[u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(count).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        self.items = self.items.checked_sub(1)?;
        let first = self.take(1)?[0];
        let (major, low) = (first >> 5, first & 31);
        // 28 to 30 mean nothing; 31 is an indefinite length.
        let size = match low {
            0..24 => 0,
            24..=27 => 1_u64 << (low - 24),
            _ => return None,
        };
        let wide = self.take(size)?.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
        let number = if size == 0 { u64::from(low) } else { wide };
        Some(match major {
            0 => Value::Integer(i64::try_from(number).ok()?),
            1 => Value::Integer(-1 - i64::try_from(number).ok()?),
            2 => Value::Bytes(self.take(number)?.to_vec()),
            3 => Value::Text(str::from_utf8(self.take(number)?).ok()?.to_owned()),
            4 => Value::Array((0..number).map(|_| self.value(depth)).collect::<Option<_>>()?),
            5 => self.map(number, depth)?,
            6 => Value::Tag(number, Box::new(self.value(depth)?)),
            _ if size == 8 => Value::Float(f64::from_bits(number)),
            _ if size == 4 => Value::Float(f64::from(f32::from_bits(number as u32))),
            // Half a float: nobody writes a time or a text so.
            _ if size == 2 => return None,
            _ => Value::Simple(number as u8 & 31),
        })
    }

    fn map(&mut self, count: u64, depth: usize) -> Option<Value> {
        let mut pairs: Vec<(Value, Value)> = Vec::new();
        for _ in 0..count {
            let key = self.value(depth)?;
            // Twice the same label: which one counts?
            if pairs.iter().any(|(known, _)| *known == key) {
                return None;
            }
            pairs.push((key, self.value(depth)?));
        }
        Some(Value::Map(pairs))
    }
}
