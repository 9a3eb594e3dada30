//! What a look at the parts that a configuration names came to: for `segue doctor`.

use serde::Serialize;

/// How a part stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// As it should be.
    Well,
    /// It works, and something about it wants a look.
    Doubtful,
    /// It does not work.
    Ill,
}

/// One look at one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The part, by the section that configures it: `origin.read`, `redis`.
    pub part: String,
    /// How it stands.
    pub health: Health,
    /// What was seen, one sentence. Never a secret.
    pub seen: String,
    /// What to do about it; `None` where there is nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    /// Nothing to do.
    pub fn well(part: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { part: part.into(), health: Health::Well, seen: seen.into(), advice: None }
    }

    /// Something to look at.
    pub fn doubtful(part: impl Into<String>, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { part: part.into(), health: Health::Doubtful, seen: seen.into(), advice: Some(advice.into()) }
    }

    /// Something to mend.
    pub fn ill(part: impl Into<String>, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { part: part.into(), health: Health::Ill, seen: seen.into(), advice: Some(advice.into()) }
    }

    /// What a clock that is `ahead` milliseconds ahead of ours means; `whose` names it.
    pub fn clock(part: &str, whose: &str, ahead: i64, step: i64) -> Self {
        let off = ahead.saturating_abs();
        let seen = format!("the clock of {whose} and this machine's differ by {off} ms");
        let advice =
            "set both by NTP (timedatectl set-ntp true): tickets, signatures and lifetimes are told by the clock";
        // What is read in whole seconds, over a network, is no better than this.
        let sure = step + 1000;
        match off {
            off if off <= sure => Self::well(part, format!("the clocks agree to {sure} ms ({whose})")),
            off if off <= 60_000 => Self::doubtful(part, seen, advice),
            _ => Self::ill(part, seen, advice),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_judged_by_what_they_break() {
        let of = |ahead| Finding::clock("origin.clock", "the bucket", ahead, 1000).health;
        assert_eq!(
            (of(0), of(-1900), of(5_000), of(-61_000)),
            (Health::Well, Health::Well, Health::Doubtful, Health::Ill)
        );
    }
}
