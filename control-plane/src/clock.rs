//! The wall clock, in the two units of the contracts: milliseconds for facts and records, seconds for tickets.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch. A clock before 1970 reads as 0.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Seconds since the epoch, as in a JWT NumericDate (RFC 7519, section 2).
pub(crate) fn now_s() -> i64 {
    now_ms() / 1000
}
