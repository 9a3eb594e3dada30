//! A refusal by a limit, and what a client is told of it.
//!
//! The fields are those of draft-ietf-httpapi-ratelimit-headers-11: `RateLimit-Policy` names the quota (`q`) of a
//! window (`w`, seconds) and the partition (`pk`) that it is counted by, `RateLimit` what remains (`r`) and when more is
//! there (`t`, seconds). What limits how many play at once has no window, and a unit (`qu`) of its own. Both are structured
//! fields (RFC 9651).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Why a limit says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The bucket is empty.
    RateLimited,
    /// All of the listener's places are taken.
    TooManyStreams,
    /// Another session of the listener took this one's place.
    StreamStopped,
    /// Redis is away, and the class says that nothing passes then.
    LimitUnavailable,
}

impl Word {
    /// The reason word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate-limited",
            Self::TooManyStreams => "too-many-streams",
            Self::StreamStopped => "stream-stopped",
            Self::LimitUnavailable => "limit-unavailable",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::RateLimited => "too many requests; the limit is named in RateLimit-Policy",
            Self::TooManyStreams => "this listener plays in too many places at once",
            Self::StreamStopped => "this listener plays on another device now; ask for a new ticket to play here",
            Self::LimitUnavailable => "the limit cannot be checked just now; try again shortly",
        }
    }
}

/// A refusal, and when to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// Why.
    pub word: Word,
    /// The class that refuses.
    pub class: Arc<str>,
    /// What its buckets hold.
    pub quota: u32,
    /// How long an empty bucket takes to fill; `None` where places are counted and not requests.
    pub window: Option<Duration>,
    /// Whose bucket it is: the first bytes of the key's hash.
    pub partition: [u8; 6],
    /// After this time the request may pass.
    pub retry: Duration,
}

impl std::fmt::Display for Denied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word.message())
    }
}

impl Denied {
    /// `Retry-After` (RFC 9110, section 10.2.3): whole seconds, rounded up, at least one.
    #[must_use]
    pub fn retry_after(&self) -> u64 {
        whole_seconds(self.retry)
    }

    /// The value of `RateLimit`.
    #[must_use]
    pub fn rate_limit(&self) -> String {
        format!("\"{}\";r=0;t={}{}", self.class, self.retry_after(), self.partition_key())
    }

    /// The value of `RateLimit-Policy`.
    #[must_use]
    pub fn policy(&self) -> String {
        let measure = match self.window {
            Some(window) => format!("w={}", whole_seconds(window)),
            None => "qu=\"concurrent-requests\"".to_owned(),
        };
        format!("\"{}\";q={};{measure}{}", self.class, self.quota, self.partition_key())
    }

    fn partition_key(&self) -> String {
        format!(";pk=:{}:", STANDARD.encode(self.partition))
    }
}

fn whole_seconds(span: Duration) -> u64 {
    (span.as_secs() + u64::from(span.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_say_quota_window_and_when_to_return() {
        let denied = Denied {
            word: Word::RateLimited,
            class: "tracks".into(),
            quota: 60,
            window: Some(Duration::from_millis(5_500)),
            partition: [0, 1, 2, 253, 254, 255],
            retry: Duration::from_millis(2_001),
        };
        assert_eq!(denied.policy(), "\"tracks\";q=60;w=6;pk=:AAEC/f7/:");
        assert_eq!(denied.rate_limit(), "\"tracks\";r=0;t=3;pk=:AAEC/f7/:");
        assert_eq!(denied.retry_after(), 3);
        let places = Denied { window: None, retry: Duration::ZERO, ..denied };
        assert_eq!(places.retry_after(), 1);
        assert_eq!(places.policy(), "\"tracks\";q=60;qu=\"concurrent-requests\";pk=:AAEC/f7/:");
    }
}
