//! What is added up per track and hour: numbers that can be added in any order, and nothing else.
//!
//! What a fact says of itself (bytes, cache, time to the first byte) stands in the hour of the fact. What a play comes to
//! ([`Sums::of_play`]) stands in the hour of its earliest fact, whole, and moves there when it changes: the sums follow from the set of facts,
//! whatever order they came in.

use std::ops::{AddAssign, SubAssign};
use std::sync::LazyLock;

use segue_events::{CacheState, Fact};
use serde_json::Value;

use super::rule::Play;

/// The words of `cache`, in the order of [`Sums::cache_facts`].
pub(crate) const CACHE: [CacheState; 6] = [
    CacheState::HitMemory,
    CacheState::HitDisk,
    CacheState::Miss,
    CacheState::Coalesced,
    CacheState::Stale,
    CacheState::Bypass,
];

/// Upper bounds of the buckets of [`Ttfb`], ms, exclusive; one more bucket holds the rest. Each is about 1.4 times the one before, so that a
/// percentile is right within a fifth. They are part of the database: never changed.
const BOUNDS: [u32; 26] = [
    1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144,
    8192,
];

/// Times to the first byte, as a histogram that adds up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ttfb(pub(crate) [i64; BOUNDS.len() + 1]);

impl Ttfb {
    fn add(&mut self, ms: u32) {
        let bucket = BOUNDS.partition_point(|bound| *bound <= ms);
        if let Some(count) = self.0.get_mut(bucket) {
            *count += 1;
        }
    }

    /// The time within which this share (0 to 1) of all answers began, ms: even within a bucket. `None`: there were none.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let all: i64 = self.0.iter().sum();
        if all <= 0 {
            return None;
        }
        #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let (rank, real) = (share * all as f64, |count: i64| count as f64);
        let mut before = 0;
        for (n, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            if real(before + count) >= rank {
                let low = n.checked_sub(1).and_then(|n| BOUNDS.get(n)).map_or(0.0, |bound| f64::from(*bound));
                let high = BOUNDS.get(n).map_or(low, |bound| f64::from(*bound));
                let within = ((rank - real(before)) / real(*count)).clamp(0.0, 1.0);
                return Some(((low + (high - low) * within) * 10.0).round() / 10.0);
            }
            before += count;
        }
        None
    }
}

/// What players said of themselves (CTA-5004 keys).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cmcd {
    /// Facts that have any.
    pub(crate) facts: i64,
    /// Facts with `bs`: the buffer had run empty since the request before, and the listener heard silence.
    pub(crate) starved: i64,
    /// Facts with `su`: needed urgently, at a start, after a seek or after the buffer ran empty.
    pub(crate) startup: i64,
    /// Facts with `mtp`, the throughput that the player measured, and their sum in kbit/s.
    pub(crate) mtp: i64,
    pub(crate) mtp_kbps: i64,
    /// Facts with `rtp`, the throughput that the player asks for at most, and their sum in kbit/s.
    pub(crate) rtp: i64,
    pub(crate) rtp_kbps: i64,
}

/// Largest throughput that is believed, kbit/s: 100 Gbit/s. Players are free to write anything.
const KBPS_MAX: i64 = 100_000_000;

impl Cmcd {
    fn add(&mut self, said: &serde_json::Map<String, Value>) {
        let flag = |key: &str| i64::from(said.get(key).is_some_and(|value| value.as_bool() == Some(true)));
        let number = |key: &str| first(said.get(key)?).filter(|kbps| (0..=KBPS_MAX).contains(kbps));
        self.facts += 1;
        self.starved += flag("bs");
        self.startup += flag("su");
        if let Some(kbps) = number("mtp") {
            self.mtp += 1;
            self.mtp_kbps += kbps;
        }
        if let Some(kbps) = number("rtp") {
            self.rtp += 1;
            self.rtp_kbps += kbps;
        }
    }
}

/// A number, or the first of the list that version 2 (CTA-5004-B) makes of it.
fn first(value: &Value) -> Option<i64> {
    match value {
        Value::Array(list) => first(list.first()?),
        #[allow(clippy::cast_possible_truncation, reason = "the bound is looked at by the caller; a float saturates")]
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)),
        _ => None,
    }
}

/// A row of `sums`, or what is to be added to one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) plays: i64,
    pub(crate) qualified: i64,
    pub(crate) ended: i64,
    /// Listeners told apart, in this hour or in all.
    pub(crate) listeners: i64,
    /// Their sessions.
    pub(crate) sessions: i64,
    /// Distinct media per play, added up.
    pub(crate) media_ms: i64,
    /// Bytes delivered, repeats included.
    pub(crate) bytes: i64,
    pub(crate) facts: i64,
    /// Plays that reached 25, 50, 75 and 100 % of the track.
    pub(crate) quartiles: [i64; 4],
    /// Plays that reached 10, 20, … 100 %.
    pub(crate) deciles: [i64; 10],
    /// Facts by the order of [`CACHE`].
    pub(crate) cache_facts: [i64; 6],
    /// Their bytes.
    pub(crate) cache_bytes: [i64; 6],
    pub(crate) ttfb: Ttfb,
    pub(crate) cmcd: Cmcd,
}

impl Sums {
    /// What one fact says of itself.
    pub(crate) fn count_fact(&mut self, fact: &Fact) {
        let bytes = i64::try_from(fact.bytes).unwrap_or(0);
        self.facts += 1;
        self.bytes += bytes;
        if let Some(n) = CACHE.iter().position(|word| *word == fact.cache) {
            self.cache_facts[n] += 1;
            self.cache_bytes[n] += bytes;
        }
        self.ttfb.add(fact.ttfb_ms);
        if let Some(said) = &fact.cmcd {
            self.cmcd.add(said);
        }
    }

    /// What a play comes to.
    pub(crate) fn of_play(play: &Play) -> Self {
        let mut sums = Self {
            plays: 1,
            qualified: i64::from(play.qualified),
            ended: i64::from(play.ended_ms.is_some()),
            media_ms: i64::try_from(play.covered.total()).unwrap_or(0),
            ..Self::default()
        };
        sums.quartiles.iter_mut().take(play.quartile.into()).for_each(|plays| *plays = 1);
        sums.deciles.iter_mut().take(play.decile.into()).for_each(|plays| *plays = 1);
        sums
    }

    /// Every number, in the order of [`COLUMNS`].
    pub(crate) fn numbers(&mut self) -> impl Iterator<Item = &mut i64> {
        let Self {
            plays,
            qualified,
            ended,
            listeners,
            sessions,
            media_ms,
            bytes,
            facts,
            quartiles,
            deciles,
            cache_facts,
            cache_bytes,
            ttfb,
            cmcd,
        } = self;
        let Cmcd { facts: cmcd, starved, startup, mtp, mtp_kbps, rtp, rtp_kbps } = cmcd;
        [plays, qualified, ended, listeners, sessions, media_ms, bytes, facts]
            .into_iter()
            .chain(quartiles)
            .chain(deciles)
            .chain(cache_facts)
            .chain(cache_bytes)
            .chain(&mut ttfb.0)
            .chain([cmcd, starved, startup, mtp, mtp_kbps, rtp, rtp_kbps])
    }
}

/// The columns of the numbers.
pub(crate) static COLUMNS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let words = || CACHE.iter().map(|word| word.as_str().replace('-', "_"));
    ["plays", "qualified", "ended", "listeners", "sessions", "media_ms", "bytes", "facts"]
        .into_iter()
        .map(str::to_owned)
        .chain((1..=4).map(|n| format!("quartile_{n}")))
        .chain((1..=10).map(|n| format!("decile_{n}")))
        .chain(words().map(|word| format!("facts_{word}")))
        .chain(words().map(|word| format!("bytes_{word}")))
        .chain((0..=BOUNDS.len()).map(|n| format!("ttfb_{n:02}")))
        .chain(
            ["", "_starved", "_startup", "_mtp", "_mtp_kbps", "_rtp", "_rtp_kbps"]
                .iter()
                .map(|key| format!("cmcd{key}")),
        )
        .collect()
});

impl AddAssign<&Sums> for Sums {
    fn add_assign(&mut self, more: &Self) {
        let mut more = more.clone();
        self.numbers().zip(more.numbers()).for_each(|(number, more)| *number += *more);
    }
}

impl SubAssign<&Sums> for Sums {
    fn sub_assign(&mut self, less: &Self) {
        let mut less = less.clone();
        self.numbers().zip(less.numbers()).for_each(|(number, less)| *number -= *less);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_number_has_a_column() {
        assert_eq!(Sums::default().numbers().count(), COLUMNS.len());
        let mut sums = Sums::default();
        sums.numbers().zip(1..).for_each(|(number, n)| *number = n);
        let at = |name: &str| COLUMNS.iter().position(|column| column == name).unwrap() as i64 + 1;
        assert_eq!(
            (sums.facts, sums.deciles[9], sums.cache_bytes[0]),
            (at("facts"), at("decile_10"), at("bytes_hit_memory"))
        );
        assert_eq!((sums.ttfb.0[26], sums.cmcd.rtp_kbps), (at("ttfb_26"), at("cmcd_rtp_kbps")));
        let mut twice = sums.clone();
        twice += &sums;
        assert_eq!(twice.cmcd.rtp_kbps, 2 * sums.cmcd.rtp_kbps);
        twice -= &sums;
        assert_eq!(twice, sums);
    }

    #[test]
    fn percentiles_are_right_within_a_fifth_and_add_up() {
        let (mut one, mut other) = (Ttfb::default(), Ttfb::default());
        assert_eq!(one.quantile(0.5), None);
        for ms in 0..=1000 {
            if ms % 3 == 0 { &mut one } else { &mut other }.add(ms);
        }
        for (count, more) in one.0.iter_mut().zip(other.0) {
            *count += more;
        }
        for (share, truth) in [(0.1, 100.0), (0.5, 500.0), (0.9, 900.0), (0.99, 990.0)] {
            let got = one.quantile(share).unwrap();
            assert!((got - truth).abs() <= truth * 0.2, "{share}: {got} for {truth}");
        }
        let mut slow = Ttfb::default();
        slow.add(u32::MAX);
        assert_eq!(slow.quantile(0.99), Some(8192.0), "the last bucket has no upper bound");
        let mut quick = Ttfb::default();
        quick.add(0);
        assert!(quick.quantile(0.5).unwrap() < 1.0);
    }

    #[test]
    fn what_players_say_is_read_in_both_versions_and_not_believed_beyond_reason() {
        let mut cmcd = Cmcd::default();
        for said in [
            serde_json::json!({ "bs": true, "mtp": 25_400, "su": false }),
            serde_json::json!({ "mtp": [100, 200], "rtp": 15_000, "bs": 1 }),
            serde_json::json!({ "mtp": 9e30, "rtp": -4, "su": true }),
        ] {
            cmcd.add(said.as_object().unwrap());
        }
        let want = Cmcd { facts: 3, starved: 1, startup: 1, mtp: 2, mtp_kbps: 25_500, rtp: 1, rtp_kbps: 15_000 };
        assert_eq!(cmcd, want);
    }
}
