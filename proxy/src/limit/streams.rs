//! How many sessions one listener plays at once.
//!
//! Purpose: a session holds a place for as long as the media that it was given lasts, since players buffer ahead: each
//! segment moves the end of what is buffered to `max(end, now) + media_ms`, and the place is free `grace` after that.
//!
//! Invariants: a listener's sessions are bounded (those that play, and as many that were stopped); what a session may
//! buffer ahead of the clock is bounded by [`AHEAD_MAX`], so that a listener who leaps through a catalogue is not
//! locked out for its length. A stopped session comes back with a ticket that was issued after it was stopped, or
//! when [`STOPPED_FOR`] is over.

use std::sync::Arc;
use std::time::Duration;

use super::class::{Counts, OnExcess, StreamsConfig};
use super::table::{Slot, Table};

/// How far ahead of the clock a session's media counts: more than players hold of a song or two.
pub(crate) const AHEAD_MAX: Duration = Duration::from_secs(600);
/// How long a stopped session is remembered; its player has given up by then.
pub(crate) const STOPPED_FOR: Duration = Duration::from_secs(600);

/// A streams class as requests meet it.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) name: Arc<str>,
    pub(crate) config: StreamsConfig,
    pub(crate) listeners: Arc<Table<Listener>>,
    pub(crate) counts: Arc<Counts>,
}

/// A request of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking {
    /// A hash of the session's name.
    pub(crate) sid: u64,
    /// Nanoseconds of the limiter's clock.
    pub(crate) now: u64,
    /// How long ago its ticket was issued, in nanoseconds; `None`: it does not say.
    pub(crate) ticket_age: Option<u64>,
}

/// Why a session may not play on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// Others play in all places; nanoseconds until one is free.
    Full(u64),
    /// Another session took its place; nanoseconds until that is forgotten.
    Stopped(u64),
}

#[derive(Debug, Clone, Copy)]
struct Session {
    sid: u64,
    began: u64,
    /// When its media ends; for a stopped one, when it was stopped.
    until: u64,
    stopped: bool,
}

/// The sessions of one listener.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    sessions: Vec<Session>,
    /// The last grace that was asked with.
    grace: u64,
}

impl Slot for Listener {
    fn busy_until(&self) -> u64 {
        self.sessions.iter().map(|session| session.over(self.grace)).max().unwrap_or(0)
    }
}

impl Session {
    fn over(&self, grace: u64) -> u64 {
        self.until.saturating_add(if self.stopped { nanoseconds(STOPPED_FOR) } else { grace })
    }
}

impl Streams {
    pub(crate) fn new(name: &str, config: &StreamsConfig, before: Option<&Arc<Self>>) -> Self {
        let kept = before.filter(|old| old.config.keys == config.keys);
        Self {
            name: name.into(),
            config: config.clone(),
            listeners: kept.map_or_else(|| Arc::new(Table::new(config.keys)), |old| Arc::clone(&old.listeners)),
            counts: before.map(|old| Arc::clone(&old.counts)).unwrap_or_default(),
        }
    }
}

impl Listener {
    /// Whether the session may play; it holds a place then.
    pub(crate) fn admit(&mut self, config: &StreamsConfig, asking: Asking) -> Result<(), Excess> {
        let Asking { sid, now, ticket_age } = asking;
        self.grace = nanoseconds(config.grace);
        let grace = self.grace;
        self.sessions.retain(|session| session.over(grace) > now);
        if let Some(place) = self.sessions.iter().position(|session| session.sid == sid) {
            let Some(session) = self.sessions.get(place).copied() else { return Ok(()) };
            if !session.stopped {
                return Ok(());
            }
            if ticket_age.is_none_or(|age| age >= now.saturating_sub(session.until)) {
                return Err(Excess::Stopped(session.over(grace) - now));
            }
            self.sessions.swap_remove(place);
        }
        let playing = self.sessions.iter().filter(|session| !session.stopped);
        if playing.clone().count() >= usize::try_from(config.max).unwrap_or(usize::MAX) {
            match config.on_excess {
                OnExcess::RefuseNewest => {
                    let first = playing.map(|session| session.over(grace)).min().unwrap_or(now);
                    return Err(Excess::Full(first - now));
                }
                OnExcess::StopOldest => self.stop_oldest(config, now),
            }
        }
        self.sessions.push(Session { sid, began: now, until: now, stopped: false });
        Ok(())
    }

    fn stop_oldest(&mut self, config: &StreamsConfig, now: u64) {
        let playing = self.sessions.iter_mut().filter(|session| !session.stopped);
        if let Some(oldest) = playing.min_by_key(|session| session.began) {
            (oldest.stopped, oldest.until) = (true, now);
        }
        // As many stopped ones as may play; the one that was stopped first is forgotten.
        let stopped = self.sessions.iter().enumerate().filter(|(_, session)| session.stopped);
        if stopped.clone().count() > usize::try_from(config.max).unwrap_or(usize::MAX)
            && let Some((place, _)) = stopped.min_by_key(|(_, session)| session.until)
        {
            self.sessions.swap_remove(place);
        }
    }

    /// The session was given `media` nanoseconds of media.
    pub(crate) fn extend(&mut self, sid: u64, now: u64, media: u64) {
        if let Some(session) = self.sessions.iter_mut().find(|session| session.sid == sid && !session.stopped) {
            let end = session.until.max(now).saturating_add(media);
            session.until = end.min(now.saturating_add(nanoseconds(AHEAD_MAX)));
        }
    }

    /// Sessions that play at `now`.
    #[cfg(test)]
    fn playing(&self, now: u64) -> usize {
        self.sessions.iter().filter(|session| !session.stopped && session.over(self.grace) > now).count()
    }
}

/// A length of time as the limiter counts it.
pub(crate) fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn config(max: u32, on_excess: OnExcess) -> StreamsConfig {
        StreamsConfig { grace: Duration::from_secs(10), ..StreamsConfig::new(max, on_excess) }
    }

    fn at(sid: u64, now: u64) -> Asking {
        Asking { sid, now: now * S, ticket_age: None }
    }

    #[test]
    fn a_place_lasts_as_long_as_what_was_buffered() {
        let config = config(1, OnExcess::RefuseNewest);
        let mut listener = Listener::default();
        assert_eq!(listener.admit(&config, at(1, 100)), Ok(()));
        for _ in 0..5 {
            listener.extend(1, 100 * S, 6 * S);
        }
        assert_eq!(listener.admit(&config, at(2, 101)), Err(Excess::Full(39 * S)), "30 s of media and 10 of grace");
        assert_eq!(listener.admit(&config, at(2, 139)), Err(Excess::Full(S)));
        assert_eq!(listener.admit(&config, at(2, 140)), Ok(()));
        assert_eq!(listener.playing(140 * S), 1);
    }

    #[test]
    fn what_is_buffered_counts_up_to_a_bound() {
        let config = config(1, OnExcess::RefuseNewest);
        let mut listener = Listener::default();
        assert_eq!(listener.admit(&config, at(1, 1)), Ok(()));
        listener.extend(1, S, 90_000 * S);
        assert_eq!(listener.admit(&config, at(2, 1)), Err(Excess::Full(610 * S)));
    }

    #[test]
    fn the_newest_stops_the_oldest_which_comes_back_with_a_new_ticket() {
        let config = config(2, OnExcess::StopOldest);
        let mut listener = Listener::default();
        for sid in 1..=3 {
            assert_eq!(listener.admit(&config, at(sid, 10 * sid)), Ok(()));
            listener.extend(sid, 10 * sid * S, 60 * S);
        }
        assert_eq!(listener.admit(&config, at(1, 31)), Err(Excess::Stopped(599 * S)));
        assert_eq!(listener.admit(&config, at(2, 31)), Ok(()), "who plays goes on");
        let renewed = Asking { ticket_age: Some(S), ..at(1, 40) };
        assert_eq!(listener.admit(&config, renewed), Ok(()));
        assert!(matches!(listener.admit(&config, at(2, 41)), Err(Excess::Stopped(_))), "now the second is the oldest");
        assert_eq!(listener.playing(41 * S), 2);
        assert_eq!(listener.admit(&config, at(2, 700)), Ok(()), "what was stopped long ago is forgotten");
    }

    #[test]
    fn a_crowd_of_sessions_stays_small_in_memory() {
        let config = config(3, OnExcess::StopOldest);
        let mut listener = Listener::default();
        for sid in 0..1_000 {
            assert_eq!(listener.admit(&config, at(sid, 1 + sid / 100)), Ok(()));
        }
        assert!(listener.sessions.len() <= 6, "{} sessions are held", listener.sessions.len());
    }
}
