//! From deliveries to plays.
//!
//! A **play** is one listener's session (`sid`) hearing one track. It is `started` by the first segment that was
//! delivered whole; `qualified` once 30 s of distinct media were delivered, or half of a track that is shorter than
//! that; it passes a quartile when that share of the track was delivered; it has `ended` after a gap of 30 minutes or
//! the track's length, whichever is less. A segment after the end is a new play.
//!
//! What counts is decided from the fact alone ([`Delivery::of`]): media that the kernel took whole, and that the
//! client did not have before (a 304 says that it had it from us, and counts). Time is the facts' own (`ts`), and the order in which facts
//! arrive does not matter: a play is a set of facts of which each is at most the gap from the next. A late fact joins the play within whose
//! gap it lies, also one that has ended; one that bridges two plays makes them one.
//!
//! Pure: no clock, no database. The same facts in any order give the same plays (but for their names, which say which fact came first), and
//! a fact given twice changes nothing.

use segue_events::{Fact, Kind};
use sha2::{Digest, Sha256};

use super::cover::Cover;
use crate::ids;

/// Distinct media that make a play count.
const QUALIFIED_MS: u64 = 30_000;

/// Longest gap within a play.
pub(crate) const GAP_MAX_MS: i64 = 30 * 60 * 1000;

/// Share of a track, in thousandths, that is taken for all of it: durations of segments are rounded in playlists.
const WHOLE: u64 = 990;

/// What one fact says was newly heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery<'a> {
    pub(crate) id: &'a str,
    pub(crate) track: &'a str,
    pub(crate) sid: &'a str,
    pub(crate) sub: Option<&'a str>,
    /// When, ms since the epoch.
    pub(crate) ts: i64,
    /// Interval of the track, ms; `None` where the edge did not know where the segment lies.
    pub(crate) media: Option<(u64, u64)>,
}

impl<'a> Delivery<'a> {
    /// What a fact counts for; `None`: nothing.
    pub(crate) fn of(fact: &'a Fact) -> Option<Self> {
        if fact.kind != Kind::Segment || !fact.complete {
            return None;
        }
        let place = fact.pos_ms.zip(fact.media_ms);
        let media = match (fact.status, fact.range) {
            // A HEAD has the status of a GET and no body.
            (200 | 206, _) if fact.bytes == 0 => return None,
            (200 | 304, _) => place.map(|(pos, media)| (pos, pos.saturating_add(media))),
            (206, Some(range)) => {
                let [first, last, total] = range;
                // Facts come from our edges; one that makes no sense counts for nothing rather than for too much.
                if first > last || last >= total {
                    return None;
                }
                place.map(|(pos, media)| {
                    let at = |byte| pos.saturating_add(share(media, byte, total));
                    (at(first), at(last.saturating_add(1)))
                })
            }
            _ => return None,
        };
        let ts = i64::try_from(fact.ts).ok()?;
        Some(Self { id: &fact.id, track: &fact.track, sid: &fact.sid, sub: fact.sub.as_deref(), ts, media })
    }
}

/// `media * part / total`, rounded down, so that ranges that follow one another leave no hole and do not overlap.
fn share(media: u64, part: u64, total: u64) -> u64 {
    let share = u128::from(media) * u128::from(part) / u128::from(total.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// One play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Play {
    /// Made from the fact that opened it, so that a recount gives it the same name.
    pub(crate) id: String,
    pub(crate) track: String,
    pub(crate) sid: String,
    pub(crate) sub: Option<String>,
    /// Earliest time of its facts: the hour into which the play is counted.
    pub(crate) first_ms: i64,
    /// Latest.
    pub(crate) last_ms: i64,
    /// When it ends unless something more is delivered.
    pub(crate) ends_ms: i64,
    /// When it ended.
    pub(crate) ended_ms: Option<i64>,
    pub(crate) covered: Cover,
    pub(crate) qualified: bool,
    /// Quartiles passed: 0 to 4.
    pub(crate) quartile: u8,
    /// Tenths passed: 0 to 10.
    pub(crate) decile: u8,
}

/// A player that has fetched nothing for this long has what it was given and no more.
const FETCHES_MS: i64 = 30_000;

impl Play {
    /// Until when its listener has something to hear: players fetch ahead, so a play goes on after its last fact for as long as what was
    /// delivered lasts. A pause makes it longer, and is not known here.
    pub(crate) fn until_ms(&self) -> i64 {
        let heard = i64::try_from(self.covered.total()).unwrap_or(i64::MAX);
        self.last_ms.saturating_add(FETCHES_MS).max(self.first_ms.saturating_add(heard)).min(self.ends_ms)
    }
}

/// Something that became true of a play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    Started,
    Qualified,
    /// 1 to 4.
    Quartile(u8),
    Ended,
}

/// What a delivery did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) play: Play,
    pub(crate) transitions: Vec<Transition>,
}

/// Silence that ends a play of a track of this length (unknown: the longest).
pub(crate) fn gap_ms(duration_ms: Option<u64>) -> i64 {
    let length = duration_ms.and_then(|ms| i64::try_from(ms).ok()).unwrap_or(GAP_MAX_MS);
    length.clamp(1, GAP_MAX_MS)
}

/// Whether a delivery at `ts` belongs to this play. Of one listener's plays of a track it belongs to none, one, or the two that it bridges.
pub(crate) fn belongs(play: &Play, ts: i64, gap_ms: i64) -> bool {
    ts >= play.first_ms.saturating_sub(gap_ms) && ts <= play.last_ms.saturating_add(gap_ms)
}

/// Counts a delivery into the plays that it belongs to, which become one, or opens one.
pub(crate) fn apply(plays: Vec<Play>, delivery: &Delivery<'_>, duration_ms: Option<u64>) -> Step {
    let mut transitions = Vec::new();
    let mut play = plays.into_iter().reduce(join).unwrap_or_else(|| {
        transitions.push(Transition::Started);
        open(delivery)
    });
    play.first_ms = play.first_ms.min(delivery.ts);
    play.last_ms = play.last_ms.max(delivery.ts);
    play.ends_ms = play.last_ms.saturating_add(gap_ms(duration_ms));
    play.ended_ms = play.ended_ms.map(|_| play.ends_ms);
    if play.sub.is_none() {
        play.sub = delivery.sub.map(str::to_owned);
    }
    if let Some((start, end)) = delivery.media {
        // A segment may reach past the length that the track is known by; what lies beyond is not in it.
        play.covered.add(start, duration_ms.map_or(end, |duration| end.min(duration)));
    }
    let heard = play.covered.total();
    if !play.qualified && heard >= enough(duration_ms) {
        play.qualified = true;
        transitions.push(Transition::Qualified);
    }
    let passed = passed(heard, duration_ms, &QUARTILES);
    while play.quartile < passed {
        play.quartile += 1;
        transitions.push(Transition::Quartile(play.quartile));
    }
    play.decile = play.decile.max(self::passed(heard, duration_ms, &DECILES));
    Step { play, transitions }
}

/// Two plays that turn out to be one. It goes by the name of the earlier, and has ended if the later has.
fn join(one: Play, other: Play) -> Play {
    let (mut play, later) =
        if (one.first_ms, &one.id) <= (other.first_ms, &other.id) { (one, other) } else { (other, one) };
    if later.last_ms >= play.last_ms {
        play.last_ms = later.last_ms;
        play.ended_ms = later.ended_ms;
    }
    play.sub = play.sub.or(later.sub);
    play.covered.add_all(&later.covered);
    play.qualified |= later.qualified;
    play.quartile = play.quartile.max(later.quartile);
    play.decile = play.decile.max(later.decile);
    play
}

/// Ends a play that is over. `None`: it had ended before.
pub(crate) fn end(play: &mut Play) -> Option<Transition> {
    if play.ended_ms.is_some() {
        return None;
    }
    play.ended_ms = Some(play.ends_ms);
    Some(Transition::Ended)
}

fn open(delivery: &Delivery<'_>) -> Play {
    Play {
        id: ids::spell(&Sha256::digest(delivery.id.as_bytes())[..16]),
        track: delivery.track.to_owned(),
        sid: delivery.sid.to_owned(),
        sub: delivery.sub.map(str::to_owned),
        first_ms: delivery.ts,
        last_ms: delivery.ts,
        ends_ms: delivery.ts,
        ended_ms: None,
        covered: Cover::default(),
        qualified: false,
        quartile: 0,
        decile: 0,
    }
}

/// Distinct media that qualify a play of a track of this length.
fn enough(duration_ms: Option<u64>) -> u64 {
    match duration_ms {
        Some(duration) if duration < QUALIFIED_MS => duration.div_ceil(2).max(1),
        _ => QUALIFIED_MS,
    }
}

/// Shares of a track, in thousandths, that are looked at.
const QUARTILES: [u64; 4] = [250, 500, 750, WHOLE];
const DECILES: [u64; 10] = [100, 200, 300, 400, 500, 600, 700, 800, 900, WHOLE];

/// How many of these shares were passed.
fn passed(heard_ms: u64, duration_ms: Option<u64>, shares: &[u64]) -> u8 {
    let Some(duration) = duration_ms.filter(|&ms| ms > 0) else { return 0 };
    let thousandths = u128::from(heard_ms) * 1000 / u128::from(duration);
    let passed = shares.iter().filter(|share| thousandths >= u128::from(**share)).count();
    u8::try_from(passed).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests;
