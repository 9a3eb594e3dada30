//! A point in time as people and programs write it.

use crate::value::Value;

/// Seconds since the epoch: a whole number, a TOML date and time, or its text as in RFC 3339 (`"2026-07-01T12:00:00Z"`;
/// a date alone is its midnight in UTC, a time without an offset is taken as UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i64);

impl Value for Moment {
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::Integer(seconds) => Ok(Self(*seconds)),
            toml::Value::Datetime(time) => seconds(time).map(Self).ok_or_else(|| wrong(&time.to_string())),
            toml::Value::String(text) => Self::from_text(text),
            other => Err(format!("expected a time such as \"2026-07-01T12:00:00Z\", found {}", other.type_str())),
        }
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(seconds) = text.parse() {
            return Ok(Self(seconds));
        }
        let time: toml::value::Datetime = text.parse().map_err(|_| wrong(text))?;
        seconds(&time).map(Self).ok_or_else(|| wrong(text))
    }
}

fn wrong(text: &str) -> String {
    format!("{text:?} is not a time; write for example \"2026-07-01T12:00:00Z\", or seconds since 1970")
}

fn seconds(time: &toml::value::Datetime) -> Option<i64> {
    use toml::value::Offset;
    let date = time.date?;
    let of_day = time.time.map_or(0, |time| {
        i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0))
    });
    let offset = match time.offset {
        Some(Offset::Custom { minutes }) => i64::from(minutes) * 60,
        Some(Offset::Z) | None => 0,
    };
    Some(days(i64::from(date.year), i64::from(date.month), i64::from(date.day)) * 86_400 + of_day - offset)
}

/// Days from 1970-01-01 in the Gregorian calendar; years are counted from March, so that the leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_are_read_in_every_form() {
        for (text, seconds) in [
            ("0", 0),
            ("1970-01-01", 0),
            ("1969-12-31T23:59:59Z", -1),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-07-01T12:00:00Z", 1_782_907_200),
            ("2026-07-01T14:00:00+02:00", 1_782_907_200),
            ("2026-07-01 12:00:00", 1_782_907_200),
            ("2100-03-01", 4_107_542_400),
        ] {
            assert_eq!(Moment::from_text(text), Ok(Moment(seconds)), "{text}");
        }
        assert!(Moment::from_text("tomorrow").unwrap_err().contains("is not a time"));
        assert!(Moment::from_text("12:00:00").is_err(), "a time of no day");
    }
}
