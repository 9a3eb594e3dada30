//! The places of listeners' streams: decided here, or by Redis with the edge telling it behind.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use twox_hash::XxHash3_64;

use super::{Clock, Limiter, Pending, UNAVAILABLE_FOR, Verdict, Waiting, partition};
use crate::limit::class::Classes;
use crate::limit::denied::{Denied, Word};
use crate::limit::redis::{HEARTBEAT, Redis};
use crate::limit::streams::{Asking, Excess, Listener, Place, StillAsking, Streams, Tell, nanoseconds, tell_after};

impl Limiter {
    /// Whether the session `sid` of `listener` may play, in the streams class of this name; a class that does not exist
    /// limits nothing. `ticket_age`: how long ago its ticket was issued, where that is known.
    pub fn session(&self, class: &str, listener: &[u8], sid: &[u8], ticket_age: Option<Duration>) -> Verdict {
        let ticket_age = ticket_age.map(nanoseconds);
        match self.classes().streams_named(class) {
            Some(streams) => {
                self.play(streams, listener, Asking { sid: self.stream_hash(sid), now: self.now(), ticket_age })
            }
            None => Verdict::Admitted,
        }
    }

    /// That session was given media.
    pub fn given(&self, class: &str, listener: &[u8], sid: &[u8], media: Duration) {
        if let Some(streams) = self.classes().streams_named(class) {
            self.played(streams, self.stream_hash(listener), self.stream_hash(sid), media);
        }
    }

    /// By what listeners and sessions are known here. Edges that share them must agree on it; without Redis nobody outside
    /// need know it.
    pub(crate) fn stream_hash(&self, name: &[u8]) -> u64 {
        if self.redis.is_some() { XxHash3_64::oneshot(name) } else { self.hash(name) }
    }

    /// Whether a session of `listener` may play.
    pub(crate) fn play(&self, streams: &Arc<Streams>, listener: &[u8], asking: Asking) -> Verdict {
        let hash = self.stream_hash(listener);
        let Some(redis) = &self.redis else {
            let admitted = streams.listeners.with(hash, asking.now, |sessions| sessions.admit(&streams.config, asking));
            return seated(streams, listener, hash, asking, admitted.map_or_else(Place::Excess, |()| Place::Held));
        };
        let place = self.seek(redis, streams, listener, hash, asking, true);
        seated(streams, listener, hash, asking, place)
    }

    fn seek(
        &self,
        redis: &Arc<Redis>,
        streams: &Arc<Streams>,
        listener: &[u8],
        hash: u64,
        asking: Asking,
        is_new: bool,
    ) -> Place {
        // One that waits has asked already.
        let is_here = if is_new { redis.away(hash, asking.now).is_none() } else { redis.is_here() };
        let (place, tell) = streams.listeners.with(hash, asking.now, |sessions| {
            let (place, tell) = sessions.seek(&streams.config, asking, is_here, is_new);
            (place, tell.map(|tell| (tell, sessions.name(|| name(redis, streams, listener)))))
        });
        if let Some((tell, name)) = tell {
            let teller = Teller { redis: Arc::clone(redis), streams: Arc::clone(streams), clock: self.clock, hash };
            redis.tasks.spawn(async move { teller.tell(&name, tell).await });
        }
        place
    }

    /// Waits for Redis' word on a session, until `deadline` at most.
    pub(super) async fn wait_for_place(
        &self,
        streams: Arc<Streams>,
        hash: u64,
        listener: &[u8],
        asking: Asking,
        deadline: Instant,
    ) -> Verdict {
        let Some(redis) = &self.redis else { return Verdict::Admitted };
        loop {
            let asking = Asking { now: self.now(), ..asking };
            let answered = streams.listeners.with(hash, asking.now, Listener::answered);
            let mut notified = std::pin::pin!(answered.notified());
            // From here on no answer is missed.
            notified.as_mut().enable();
            let place = self.seek(redis, &streams, listener, hash, asking, false);
            if place != Place::Wait {
                return seated(&streams, listener, hash, asking, place);
            }
            if tokio::time::timeout_at(deadline, notified).await.is_err() {
                streams.counts.late.add(1);
                let asking = Asking { now: self.now(), ..asking };
                let outage = |sessions: &mut Listener| sessions.outage(&streams.config, asking);
                let place = streams.listeners.with(hash, asking.now, outage);
                return seated(&streams, listener, hash, asking, place);
            }
        }
    }

    /// A session was given media.
    pub(crate) fn played(&self, streams: &Arc<Streams>, listener: u64, sid: u64, media: Duration) {
        let now = self.now();
        let is_owed = streams.listeners.known(listener, |sessions| sessions.extend(sid, now, nanoseconds(media)));
        if let (Some(true), Some(redis)) = (is_owed, &self.redis) {
            let teller =
                Teller { redis: Arc::clone(redis), streams: Arc::clone(streams), clock: self.clock, hash: listener };
            redis.tasks.spawn(teller.later(sid));
        }
    }
}

/// When Redis is back, it is told of this many sessions at once, and of the next after this pause: ten thousand in a second
/// and a half, and no herd.
const RETOLD_AT_ONCE: usize = 64;
const RETELL_PAUSE: Duration = Duration::from_millis(10);

/// Whoever tells Redis of the sessions of one listener. At most one waits for each session that plays.
struct Teller {
    redis: Arc<Redis>,
    streams: Arc<Streams>,
    clock: Clock,
    hash: u64,
}

impl Teller {
    async fn tell(&self, name: &str, tell: Tell) {
        let Self { redis, streams, clock, hash } = self;
        let heard = redis.seat(name, &streams.config, tell).await;
        let now = clock.now();
        streams.listeners.known(*hash, |sessions| match heard {
            Some(heard) => sessions.heard(&streams.config, tell.sid, heard, now),
            None => sessions.unheard(tell.sid),
        });
        // The edges where it plays hear of it within a heartbeat.
        if let Some(stopped) = heard.and_then(|heard| heard.stopped) {
            redis.note_stop(&format!("{} {hash:016x} {stopped:016x}", streams.name)).await;
        }
    }

    async fn later(self, sid: u64) {
        loop {
            tokio::select! {
                () = self.redis.stopping() => return,
                () = tokio::time::sleep(tell_after(&self.streams.config)) => {}
            }
            // While it is away the sum grows; what is heard of it then is worth one call.
            if !self.redis.is_here() {
                continue;
            }
            let now = self.clock.now();
            match self.streams.listeners.known(self.hash, |sessions| sessions.due(sid, now)) {
                Some(Ok(Some((name, tell)))) => return self.tell(&name, tell).await,
                Some(Ok(None)) | None => return,
                Some(Err(StillAsking)) => {}
            }
        }
    }
}

/// Hears of sessions that were stopped on other edges, and tells Redis of all that play here where it may have forgotten.
pub(super) async fn keep(redis: Arc<Redis>, classes: Arc<ArcSwap<Classes>>, clock: Clock) {
    let (mut since, mut back) = (0, 0);
    loop {
        tokio::select! {
            () = redis.stopping() => return,
            () = tokio::time::sleep(HEARTBEAT) => {}
        }
        let classes = classes.load_full();
        if !redis.is_here() || classes.all_streams().next().is_none() {
            continue;
        }
        if redis.back_since() != back {
            back = redis.back_since();
            for streams in classes.all_streams() {
                retell(&redis, streams, clock, back).await;
            }
        }
        if let Some((now, stops)) = redis.stops(since).await {
            since = now;
            for (stop, at) in stops {
                let ago = Duration::from_millis(now.saturating_sub(at));
                stop_here(&classes, &stop, clock.now().saturating_sub(nanoseconds(ago)));
            }
        }
    }
}

/// `class listener session`.
fn stop_here(classes: &Classes, stop: &str, at: u64) {
    let mut words = stop.split(' ');
    let (Some(class), Some(listener), Some(sid)) = (words.next(), words.next(), words.next()) else { return };
    let number = |hex| u64::from_str_radix(hex, 16).ok();
    if let (Some(streams), Some(listener), Some(sid)) = (classes.streams_named(class), number(listener), number(sid)) {
        streams.listeners.known(listener, |sessions| sessions.stop_if_playing(&streams.config, sid, at));
    }
}

/// Tells Redis of every session that plays here, a few at a time.
async fn retell(redis: &Arc<Redis>, streams: &Arc<Streams>, clock: Clock, back: u64) {
    let mut told = 0_usize;
    for number in 0..streams.listeners.buckets() {
        let mut tells = Vec::new();
        let now = clock.now();
        streams.listeners.bucket(number, |hash, sessions| {
            if let Some(name) = sessions.known_name() {
                tells.extend(sessions.retell(now, back).into_iter().map(|tell| (hash, Arc::clone(&name), tell)));
            }
        });
        for (hash, name, tell) in tells {
            let teller = Teller { redis: Arc::clone(redis), streams: Arc::clone(streams), clock, hash };
            redis.tasks.spawn(async move { teller.tell(&name, tell).await });
            told += 1;
            if told.is_multiple_of(RETOLD_AT_ONCE) {
                tokio::time::sleep(RETELL_PAUSE).await;
            }
        }
    }
}

/// The listener's name in Redis.
fn name(redis: &Redis, streams: &Streams, listener: &[u8]) -> Arc<str> {
    let digest: [u8; 32] = Sha256::digest(listener).into();
    let digest = URL_SAFE_NO_PAD.encode(digest.get(..16).unwrap_or(&digest));
    format!("{}:streams:{}:{digest}", redis.prefix(), streams.name).into()
}

fn seated(streams: &Arc<Streams>, listener: &[u8], hash: u64, asking: Asking, place: Place) -> Verdict {
    let (word, wait) = match place {
        Place::Held => {
            streams.counts.admitted.add(1);
            return Verdict::Admitted;
        }
        Place::Wait => {
            let waiting = Waiting::Place { streams: Arc::clone(streams), hash, listener: listener.into(), asking };
            return Verdict::Wait(Pending { waiting, deadline: Instant::now() + streams.config.max_wait });
        }
        Place::Excess(Excess::Full(wait)) => (Word::TooManyStreams, wait),
        Place::Excess(Excess::Stopped(wait)) => (Word::StreamStopped, wait),
        Place::Unavailable => (Word::LimitUnavailable, UNAVAILABLE_FOR),
    };
    streams.counts.refused.add(1);
    if streams.config.shadow {
        return Verdict::Admitted;
    }
    Verdict::Refused(Denied {
        word,
        class: Arc::clone(&streams.name),
        quota: streams.config.max,
        window: None,
        partition: partition(listener),
        retry: Duration::from_nanos(wait),
    })
}
