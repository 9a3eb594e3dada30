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

/// Milliseconds since the epoch as people read them: `2026-07-01 12:00:00` in UTC (the calendar of RFC 3339).
pub(crate) fn utc(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years are counted from March, so that the leap day is the last.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * from_march + 2) / 5 + 1, (from_march + 2) % 12 + 1);
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_it_is_read() {
        for (text, seconds) in [
            ("1970-01-01 00:00:00", 0),
            ("1969-12-31 23:59:59", -1),
            ("2024-02-29 12:34:56", 1_709_210_096),
            ("2100-03-01 00:00:00", 4_107_542_400),
        ] {
            assert_eq!(utc(seconds * 1000), text);
            assert_eq!(text.parse(), Ok(When::At(seconds)));
        }
    }

    #[test]
    fn times_and_spans_are_told_apart() {
        assert_eq!("24h".parse(), Ok(When::In(86_400)));
        assert_eq!("-90s".parse(), Ok(When::In(-90)));
        assert_eq!("1970-01-02".parse(), Ok(When::At(86_400)));
        assert_eq!("100".parse(), Ok(When::At(100)));
        assert!("soon".parse::<When>().is_err());
    }
}
