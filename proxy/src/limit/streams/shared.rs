//! Places that Redis keeps: what an edge knows of them, without Redis, tasks or a clock.
//!
//! Purpose: no call in front of a segment. A session that Redis gave a place holds it here for as long as its media
//! lasts, and `grace` longer; the media that it is given is told behind, in sums. Redis is asked first only where a
//! session is new here, and at most by one call of the session at a time.
//!
//! Invariants:
//! - What is told is what was given since the last word, and how long ago that began: sums of several edges come to the
//!   same end in any order.
//! - What Redis lost (it was restarted empty) comes back with the next word, and every edge gives that when Redis is back
//!   ([`Listener::retell`]): how much media each session has.
//! - A session that was stopped elsewhere is stopped here when the edge hears of it ([`Listener::stop`], within a
//!   second), at the latest with the answer to the next word of it.
//!
//! On failure: a call that came to nothing is told again with the next; who waited for it goes by `on_outage`. A
//! session that plays goes on through an outage whatever that says: what it holds was given to it.

use std::sync::Arc;
use std::time::Duration;

use segue_signing::limits::{OnOutage, StreamsConfig};
use tokio::sync::Notify;

use super::{AHEAD_MAX, Asking, Excess, Listener, STOPPED_FOR, Session, State, nanoseconds};

/// Redis is told of media after a third of the class's grace, so that its end of a session never lies that far behind,
/// but no later than after [`TELL_AT_MOST`] and no sooner than this: many segments of a player that fills its buffer to a call.
const TELL_AT_LEAST: Duration = Duration::from_millis(50);
/// See [`TELL_AT_LEAST`]; also how long a lost note of a stop stays unknown here after the session's next segment.
const TELL_AT_MOST: Duration = Duration::from_secs(5);
/// A session that asks on, and was given nothing for so long, is asked for again behind a request.
const STALE: u64 = 30_000_000_000;
/// For so long a refusal by Redis stands without another call: a player that knocks often makes no call each time.
const REFUSED_FOR: u64 = 1_000_000_000;
/// A call that has not ended by then is not awaited.
const FORGOTTEN: u64 = 10_000_000_000;
/// Sessions of one listener that are asked for at once or were refused just now; further ones are refused without a call.
const UNSEATED_MAX: usize = 128;

/// What Redis knows of a session.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    /// When it said so last; 0: never.
    heard: u64,
    /// When the call that is under way was sent; 0: there is none.
    asked: u64,
    /// Media that it was not told of, and since when that is so.
    untold: u64,
    since: u64,
    /// Media that the call under way tells of, and since when that was untold.
    telling: u64,
    telling_since: u64,
    /// Somebody will tell it in a while.
    is_due: bool,
}

impl Told {
    fn is_asking(&self, now: u64) -> bool {
        self.asked > 0 && now < self.asked.saturating_add(FORGOTTEN)
    }

    /// When a session is forgotten that asks, or that was refused a place until `until`.
    pub(super) fn over(&self, until: u64) -> u64 {
        if self.asked > 0 {
            self.asked.saturating_add(FORGOTTEN)
        } else {
            until.min(self.heard.saturating_add(REFUSED_FOR))
        }
    }

    pub(super) fn owe(&mut self, now: u64, media: u64) -> bool {
        if self.untold == 0 {
            self.since = now;
        }
        self.untold = self.untold.saturating_add(media);
        !std::mem::replace(&mut self.is_due, true)
    }

    /// The call under way is over.
    fn end(&mut self, was_told: bool) {
        if !was_told && self.telling > 0 {
            self.since = if self.untold == 0 { self.telling_since } else { self.since.min(self.telling_since) };
            self.untold = self.untold.saturating_add(self.telling);
        }
        (self.asked, self.telling) = (0, 0);
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Its session holds a place.
    Held,
    /// It does not get one.
    Excess(Excess),
    /// Only Redis knows.
    Wait,
    /// Redis is away, and nothing new passes then.
    Unavailable,
}

/// A call for the session is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StillAsking;

/// What Redis is to be told and asked of a session. Times are nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tell {
    pub(crate) sid: u64,
    /// Whether it plays here already; how long ago it began then, and how much media it has.
    pub(crate) is_held: bool,
    pub(crate) began_ago: u64,
    pub(crate) ahead: u64,
    /// Media that Redis was not told of, and how long ago the first of it was given.
    pub(crate) media: u64,
    pub(crate) media_ago: u64,
    pub(crate) ticket_age: Option<u64>,
}

/// What Redis answered. Times are nanoseconds from then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    /// How much media the session has and how long ago it began, or why it has no place.
    pub(crate) place: Result<(u64, u64), Excess>,
    /// The session that gave way to it.
    pub(crate) stopped: Option<u64>,
}

/// After how long Redis is told of media.
pub(crate) fn tell_after(config: &StreamsConfig) -> Duration {
    (config.grace / 3).clamp(TELL_AT_LEAST, TELL_AT_MOST)
}

impl Listener {
    /// A request. `is_here`: Redis is. `is_new`: it was not seen before; one that waited, and of whose session nothing was
    /// heard, does not ask again.
    pub(crate) fn seek(
        &mut self,
        config: &StreamsConfig,
        asking: Asking,
        is_here: bool,
        is_new: bool,
    ) -> (Place, Option<Tell>) {
        let Asking { sid, now, ticket_age } = asking;
        self.tidy(config, now);
        let grace = self.grace;
        let unseated = |session: &&Session| matches!(session.state, State::Asking | State::Refused);
        let unseated = self.sessions.iter().filter(unseated).count();
        if let Some(session) = self.find(sid) {
            let is_asking = session.told.is_asking(now);
            match session.state {
                State::Playing => {
                    let is_stale = now.saturating_sub(session.told.heard) > STALE && !session.told.is_due;
                    let tell = (is_here && is_stale && !is_asking).then(|| session.tell(now, None));
                    return (Place::Held, tell);
                }
                State::Stopped if session.is_stopped_for(ticket_age, now) => {
                    return (Place::Excess(Excess::Stopped(session.over(grace) - now)), None);
                }
                State::Refused => return (Place::Excess(Excess::Full(session.until.saturating_sub(now).max(1))), None),
                State::Stopped | State::Asking if is_here && (is_asking || is_new) => {
                    let tell = (!is_asking).then(|| session.tell(now, ticket_age));
                    return (Place::Wait, tell);
                }
                State::Stopped | State::Asking => {}
            }
        } else if is_here && is_new {
            if unseated >= UNSEATED_MAX {
                return (Place::Excess(Excess::Full(REFUSED_FOR)), None);
            }
            let mut session = Session::new(sid, State::Asking, now);
            let tell = session.tell(now, ticket_age);
            self.sessions.push(session);
            return (Place::Wait, Some(tell));
        }
        (self.outage(config, asking), None)
    }

    /// A request for which Redis has no word: it is away, or late.
    pub(crate) fn outage(&mut self, config: &StreamsConfig, asking: Asking) -> Place {
        self.tidy(config, asking.now);
        if self.find(asking.sid).is_some_and(|session| session.plays()) {
            return Place::Held;
        }
        match config.on_outage {
            OnOutage::Open => Place::Held,
            OnOutage::Closed => Place::Unavailable,
            OnOutage::Local => self.admit(config, asking).map_or_else(Place::Excess, |()| Place::Held),
        }
    }

    /// Redis answered.
    pub(crate) fn heard(&mut self, config: &StreamsConfig, sid: u64, heard: Heard, now: u64) {
        self.tidy(config, now);
        if let Some(stopped) = heard.stopped {
            self.stop(config, stopped, now);
        }
        if self.find(sid).is_none() {
            self.sessions.push(Session::new(sid, State::Asking, now));
        }
        if let Some(session) = self.find(sid) {
            session.told.end(true);
            session.told.heard = now;
            match heard.place {
                Ok((ahead, began_ago)) => {
                    let ahead = ahead.saturating_add(session.told.untold).min(nanoseconds(AHEAD_MAX));
                    (session.state, session.until) = (State::Playing, now.saturating_add(ahead));
                    session.began = now.saturating_sub(began_ago);
                }
                Err(Excess::Full(wait)) => (session.state, session.until) = (State::Refused, now.saturating_add(wait)),
                Err(Excess::Stopped(wait)) => {
                    let at = now.saturating_add(wait).saturating_sub(nanoseconds(STOPPED_FOR));
                    self.stop(config, sid, at);
                }
            }
        }
        self.wake();
    }

    /// The call for this session came to nothing.
    pub(crate) fn unheard(&mut self, sid: u64) {
        if let Some(session) = self.find(sid) {
            session.told.end(false);
        }
        self.sessions.retain(|session| session.sid != sid || session.state != State::Asking);
        self.wake();
    }

    /// It is time to tell Redis what it does not know of the session. Nothing where it owes nothing, or was never asked.
    pub(crate) fn due(&mut self, sid: u64, now: u64) -> Result<Option<(Arc<str>, Tell)>, StillAsking> {
        let name = self.known_name();
        let Some(session) = self.find(sid) else { return Ok(None) };
        if session.told.is_asking(now) {
            return Err(StillAsking);
        }
        session.told.is_due = false;
        let owes = session.plays() && session.told.untold > 0;
        Ok(name.filter(|_| owes).map(|name| (name, session.tell(now, None))))
    }

    /// Redis came back at `back`, and may have forgotten: what it is to be told of the sessions that play here.
    pub(crate) fn retell(&mut self, now: u64, back: u64) -> Vec<Tell> {
        let grace = self.grace;
        let forgotten = |session: &&mut Session| {
            session.plays() && session.over(grace) > now && session.told.heard < back && !session.told.is_asking(now)
        };
        self.sessions.iter_mut().filter(forgotten).map(|session| session.tell(now, None)).collect()
    }

    /// Its name in Redis, made by `make` at first.
    pub(crate) fn name(&mut self, make: impl FnOnce() -> Arc<str>) -> Arc<str> {
        Arc::clone(self.name.get_or_insert_with(make))
    }

    /// Its name in Redis. `None`: that was never asked, and needs no word of what plays here.
    pub(crate) fn known_name(&self) -> Option<Arc<str>> {
        self.name.clone()
    }

    /// It was stopped elsewhere at `at`, where it plays here since before that.
    pub(crate) fn stop_if_playing(&mut self, config: &StreamsConfig, sid: u64, at: u64) {
        if self.find(sid).is_some_and(|session| session.plays() && session.told.heard <= at) {
            self.stop(config, sid, at);
        }
    }

    /// What is told to all who wait when a call ends.
    pub(crate) fn answered(&mut self) -> Arc<Notify> {
        Arc::clone(self.answered.get_or_insert_default())
    }

    fn wake(&mut self) {
        if let Some(answered) = self.answered.take() {
            answered.notify_waiters();
        }
    }
}

impl Session {
    /// What Redis is told of it; a call is under way from here on.
    fn tell(&mut self, now: u64, ticket_age: Option<u64>) -> Tell {
        let told = &mut self.told;
        let (media, since) = (std::mem::take(&mut told.untold), told.since);
        (told.asked, told.telling, told.telling_since) = (now, media, since);
        Tell {
            sid: self.sid,
            is_held: self.state == State::Playing,
            began_ago: now.saturating_sub(self.began),
            ahead: self.until.saturating_sub(now),
            media,
            media_ago: if media > 0 { now.saturating_sub(since) } else { 0 },
            ticket_age,
        }
    }
}

#[cfg(test)]
mod tests;
