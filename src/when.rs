//! Times as people type them: `2026-07-01T12:00:00Z`, seconds since 1970, or a span from now such as `24h` or `-1h`.

use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use segue_config::{Moment, Span, Value as _};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Seconds since the epoch.
    At(i64),
    /// Seconds from now.
    In(i64),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sign, span) = text.strip_prefix('-').map_or((1, text), |span| (-1, span));
        if let Ok(Span(span)) = Span::from_text(span) {
            return Ok(Self::In(sign * i64::try_from(span.as_secs()).unwrap_or(i64::MAX)));
        }
        let said =
            |_| format!("{text:?} is neither a time such as \"2026-07-01T12:00:00Z\" nor a span such as \"24h\"");
        Moment::from_text(text).map(|moment| Self::At(moment.0)).map_err(said)
    }
}

impl When {
    /// Seconds since the epoch.
    pub(crate) fn at(self) -> anyhow::Result<i64> {
        match self {
            Self::At(at) => Ok(at),
            Self::In(span) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
                Ok(i64::try_from(now.as_secs())?.saturating_add(span))
            }
        }
    }

    /// Seconds.
    pub(crate) fn span(self) -> anyhow::Result<i64> {
        match self {
            Self::In(span) if span >= 0 => Ok(span),
            _ => bail!("a span such as \"24h\" is wanted here, not a time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_spans_are_told_apart() {
        assert_eq!("24h".parse(), Ok(When::In(86_400)));
        assert_eq!("-90s".parse(), Ok(When::In(-90)));
        assert_eq!("1970-01-02".parse(), Ok(When::At(86_400)));
        assert_eq!("100".parse(), Ok(When::At(100)));
        assert!("soon".parse::<When>().is_err());
    }
}
