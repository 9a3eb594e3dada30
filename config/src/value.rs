//! The kinds of values that a configuration holds, each with its unit in its type.

use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Something that can be read from a TOML value or from the text of an environment variable.
pub trait Value: Sized {
    /// Reads it from TOML. The error says what was expected.
    fn from_toml(value: &toml::Value) -> Result<Self, String>;

    /// Reads it from an environment variable's text; by default as if it were a TOML string.
    fn from_text(text: &str) -> Result<Self, String> {
        Self::from_toml(&toml::Value::String(text.to_owned()))
    }
}

fn text<'a>(value: &'a toml::Value, wanted: &str) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("expected {wanted}, found {}", value.type_str()))
}

impl Value for String {
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        text(value, "a string").map(str::to_owned)
    }
}

impl Value for PathBuf {
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        text(value, "a path").map(PathBuf::from)
    }
}

impl Value for bool {
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| format!("expected true or false, found {}", value.type_str()))
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("expected true or false, found {text:?}"))
    }
}

macro_rules! integers {
    ($($kind:ty),*) => {$(
        impl Value for $kind {
            fn from_toml(value: &toml::Value) -> Result<Self, String> {
                let number = value.as_integer().ok_or_else(|| format!("expected a whole number, found {}", value.type_str()))?;
                <$kind>::try_from(number).map_err(|_| format!("{number} is outside {} to {}", <$kind>::MIN, <$kind>::MAX))
            }

            fn from_text(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("expected a whole number from {} to {}, found {text:?}", <$kind>::MIN, <$kind>::MAX))
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, usize, i64);

impl Value for f64 {
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        value
            .as_float()
            .or_else(|| value.as_integer().map(|whole| whole as f64))
            .ok_or_else(|| format!("expected a number, found {}", value.type_str()))
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("expected a number, found {text:?}"))
    }
}

impl Value for SocketAddr {
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let text = text(value, "an address such as \"127.0.0.1:8080\"")?;
        text.parse()
            .map_err(|_| format!("{text:?} is not an address with a port; write for example \"127.0.0.1:8080\""))
    }
}

impl Value for Vec<String> {
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let list = value.as_array().ok_or_else(|| format!("expected a list of strings, found {}", value.type_str()))?;
        list.iter().map(String::from_toml).collect()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
    }
}

impl Value for Vec<u64> {
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let list = value.as_array().ok_or_else(|| format!("expected a list of numbers, found {}", value.type_str()))?;
        list.iter().map(u64::from_toml).collect()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(u64::from_text).collect()
    }
}

/// A number of bytes: a whole number, or text such as `"64MiB"` or `"10GB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl Value for Size {
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::Integer(_) => u64::from_toml(value).map(Size),
            _ => Self::from_text(text(value, "a size such as \"64MiB\"")?),
        }
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a size; write for example \"64MiB\" or \"10GB\"");
        let text_ = text.trim();
        let (number, unit) = SIZE_UNITS
            .iter()
            .find_map(|(name, unit)| text_.strip_suffix(name).map(|number| (number, *unit)))
            .unwrap_or((text_, 1));
        let number: u64 = number.trim().parse().map_err(|_| wrong())?;
        number.checked_mul(unit).map(Size).ok_or_else(wrong)
    }
}

/// A length of time: text such as `"500ms"`, `"6s"`, `"10m"`, `"24h"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

const SPAN_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Value for Span {
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        Self::from_text(text(value, "a length of time such as \"6s\"")?)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not a length of time; write for example \"500ms\", \"6s\", \"10m\" or \"24h\"");
        let (number, unit) = SPAN_UNITS
            .iter()
            .find_map(|(name, unit)| text.trim().strip_suffix(name).map(|number| (number, *unit)))
            .ok_or_else(wrong)?;
        let number: u64 = number.trim().parse().map_err(|_| wrong())?;
        number.checked_mul(unit).map(|ms| Self(Duration::from_millis(ms))).ok_or_else(wrong)
    }
}

/// A secret, given as `env:NAME` or `file:PATH` (a trailing line end is dropped) or, least wisely, as itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret that is already in memory.
    pub fn literal(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself. Never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A secret file larger than this is a mistake (a key is 32 bytes, a token some dozens).
const SECRET_FILE_MAX: usize = 64 * 1024;

/// Reads one byte more than may be at most: devices and pipes do not say how long they are.
fn read_bounded(path: &str) -> std::io::Result<String> {
    let mut content = String::new();
    std::fs::File::open(path)?.take(SECRET_FILE_MAX as u64 + 1).read_to_string(&mut content)?;
    Ok(content)
}

impl Value for Secret {
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        Self::from_text(text(value, "a secret: \"env:NAME\" or \"file:PATH\"")?)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let secret = if let Some(name) = text.strip_prefix("env:") {
            std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"))?
        } else if let Some(path) = text.strip_prefix("file:") {
            let content = read_bounded(path).map_err(|error| format!("cannot read {path}: {error}"))?;
            if content.len() > SECRET_FILE_MAX {
                return Err(format!("{path} is larger than {SECRET_FILE_MAX} bytes, too large for a secret"));
            }
            content.trim_end_matches(['\r', '\n']).to_owned()
        } else {
            text.to_owned()
        };
        if secret.is_empty() {
            return Err("the secret is empty".to_owned());
        }
        Ok(Self(secret))
    }
}
