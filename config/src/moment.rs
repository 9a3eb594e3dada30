//! A point in time as people and programs write it.

use crate::value::Value;

/// Seconds since the epoch: a whole number, a TOML date and time, or its text as in RFC 3339 (`"2026-07-01T12:00:00Z"`;
/// a date alone is its midnight in UTC, a time without an offset is taken as UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i64);

/// As in RFC 3339, in UTC: `2026-07-01T12:00:00Z`.
impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (days, of_day) = (self.0.div_euclid(86_400), self.0.rem_euclid(86_400));
        // The inverse of `days`: from 0000-03-01, in eras of 400 years.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let from_march = (5 * of_year + 2) / 153;
        let (day, month) = (of_year - (153 * from_march + 2) / 5 + 1, (from_march + 2) % 12 + 1);
        let year = year + era * 400 + i64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
    }
}

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
    fn it_is_written_as_it_is_read() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59Z", -1),
            ("2024-02-29T12:34:56Z", 1_709_210_096),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(Moment(seconds).to_string(), text);
            assert_eq!(Moment::from_text(text).unwrap(), Moment(seconds));
        }
    }

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
