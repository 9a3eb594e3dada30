//! How many sessions one listener plays at once.
//!
//! Purpose: a session holds a place for as long as the media that it was given lasts, since players buffer ahead: each
//! segment moves the end of what is buffered to `max(end, now) + media_ms`, and the place is free `grace` after that.
//! Here is what one process knows and decides by itself; `streams/shared.rs` is what it does where Redis keeps the places.
//!
//! Invariants: a listener's sessions are bounded (those that play, as many that were stopped, and the few that ask);
//! what a session may buffer ahead of the clock is bounded by [`AHEAD_MAX`], so that a listener who leaps through a
//! catalogue is not locked out for its length. A stopped session comes back with a ticket that was issued after it was
//! stopped, or when [`STOPPED_FOR`] is over.

mod shared;

use std::sync::Arc;
use std::time::Duration;

use segue_signing::limits::{OnExcess, StreamsConfig};
use tokio::sync::Notify;

use super::class::Counts;
use super::table::{Slot, Table};
use shared::Told;
pub(crate) use shared::{Heard, Place, StillAsking, Tell, tell_after};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It holds a place; `until` is when its media ends.
    Playing,
    /// It gave way; `until` is when that was.
    Stopped,
    /// Redis says that there is no place; `until` is when one becomes free.
    Refused,
    /// Redis was asked for a place.
    Asking,
}

#[derive(Debug, Clone, Copy)]
struct Session {
    sid: u64,
    state: State,
    began: u64,
    until: u64,
    told: Told,
}

/// The sessions of one listener.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    sessions: Vec<Session>,
    /// The last grace that was asked with.
    grace: u64,
    /// Its name in Redis, once that was asked.
    name: Option<Arc<str>>,
    answered: Option<Arc<Notify>>,
}

impl Slot for Listener {
    fn busy_until(&self) -> u64 {
        self.sessions.iter().map(|session| session.over(self.grace)).max().unwrap_or(0)
    }
}

impl Session {
    fn new(sid: u64, state: State, now: u64) -> Self {
        Self { sid, state, began: now, until: now, told: Told::default() }
    }

    fn over(&self, grace: u64) -> u64 {
        match self.state {
            State::Playing => self.until.saturating_add(grace),
            State::Stopped => self.until.saturating_add(nanoseconds(STOPPED_FOR)),
            State::Refused | State::Asking => self.told.over(self.until),
        }
    }

    fn plays(&self) -> bool {
        self.state == State::Playing
    }

    /// Whether a ticket of this age is no newer than what stopped the session.
    fn is_stopped_for(&self, ticket_age: Option<u64>, now: u64) -> bool {
        self.state == State::Stopped && ticket_age.is_none_or(|age| age >= now.saturating_sub(self.until))
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
        self.tidy(config, now);
        let grace = self.grace;
        if let Some(place) = self.sessions.iter().position(|session| session.sid == sid) {
            let Some(session) = self.sessions.get(place).copied() else { return Ok(()) };
            if session.plays() {
                return Ok(());
            }
            if session.is_stopped_for(ticket_age, now) {
                return Err(Excess::Stopped(session.over(grace) - now));
            }
            self.sessions.swap_remove(place);
        }
        let playing = self.sessions.iter().filter(|session| session.plays());
        if playing.clone().count() >= usize::try_from(config.max).unwrap_or(usize::MAX) {
            match config.on_excess {
                OnExcess::RefuseNewest => {
                    let first = playing.map(|session| session.over(grace)).min().unwrap_or(now);
                    return Err(Excess::Full(first - now));
                }
                OnExcess::StopOldest => {
                    if let Some(oldest) = playing.min_by_key(|session| session.began) {
                        let oldest = oldest.sid;
                        self.stop(config, oldest, now);
                    }
                }
            }
        }
        self.sessions.push(Session::new(sid, State::Playing, now));
        Ok(())
    }

    /// Forgets what is over.
    fn tidy(&mut self, config: &StreamsConfig, now: u64) {
        let grace = nanoseconds(config.grace);
        self.grace = grace;
        self.sessions.retain(|session| session.over(grace) > now);
    }

    fn find(&mut self, sid: u64) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.sid == sid)
    }

    /// The session gave way at `at`.
    pub(crate) fn stop(&mut self, config: &StreamsConfig, sid: u64, at: u64) {
        if let Some(session) = self.find(sid) {
            (session.state, session.until) = (State::Stopped, at);
        }
        // As many stopped ones as may play; the one that was stopped first is forgotten.
        let stopped = self.sessions.iter().enumerate().filter(|(_, session)| session.state == State::Stopped);
        if stopped.clone().count() > usize::try_from(config.max).unwrap_or(usize::MAX)
            && let Some((place, _)) = stopped.min_by_key(|(_, session)| session.until)
        {
            self.sessions.swap_remove(place);
        }
    }

    /// The session was given `media` nanoseconds of media. Whether Redis, where it keeps the places, is to be told of it
    /// in a while: nobody is under way to do so.
    pub(crate) fn extend(&mut self, sid: u64, now: u64, media: u64) -> bool {
        let Some(session) = self.find(sid).filter(|session| session.plays()) else { return false };
        let end = session.until.max(now).saturating_add(media);
        session.until = end.min(now.saturating_add(nanoseconds(AHEAD_MAX)));
        session.told.owe(now, media)
    }

    /// Sessions that play at `now`.
    #[cfg(test)]
    fn playing(&self, now: u64) -> usize {
        self.sessions.iter().filter(|session| session.plays() && session.over(self.grace) > now).count()
    }
}

/// A length of time as the limiter counts it.
pub(crate) fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
