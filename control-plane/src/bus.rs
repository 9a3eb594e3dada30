//! The event bus: what happens, told to whoever follows it.
//!
//! Bounded: a follower that is slower than [`CAPACITY`] events loses the oldest and is told how many. Nothing waits for
//! a follower, and nobody following costs nothing. Telling happens after the commit; the database is the truth, and a
//! crash in between loses the telling only. Where hints flow between control planes, those who follow elsewhere are told too.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::broadcast;

use crate::hints::Hints;

/// Events kept for a slow follower: a few seconds of a busy house.
const CAPACITY: usize = 4096;

/// The name of the event that tells of a track that is gone.
const DELETED: &str = "track-deleted";

/// What an event is about: the word in `?topics=` and the name of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    Tracks,
    Jobs,
    Plays,
    Facts,
    Denials,
}

impl Topic {
    pub(crate) const ALL: [Self; 5] = [Self::Tracks, Self::Jobs, Self::Plays, Self::Facts, Self::Denials];

    /// The word in `?topics=`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Tracks => "tracks",
            Self::Jobs => "jobs",
            Self::Plays => "plays",
            Self::Facts => "facts",
            Self::Denials => "denials",
        }
    }

    /// The name of one event.
    fn event(self) -> &'static str {
        match self {
            Self::Tracks => "track",
            Self::Jobs => "job",
            Self::Plays => "play",
            Self::Facts => "fact",
            Self::Denials => "denial",
        }
    }
}

/// One event, as every follower gets it.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) topic: Topic,
    /// The name of the event in the stream.
    pub(crate) name: &'static str,
    /// JSON.
    pub(crate) data: Arc<str>,
}

/// The bus.
#[derive(Clone, Debug)]
pub(crate) struct Bus {
    sender: broadcast::Sender<Event>,
    hints: Hints,
}

impl Bus {
    pub(crate) fn new(hints: Hints) -> Self {
        Self { sender: broadcast::Sender::new(CAPACITY), hints }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }

    /// Tells an event whose JSON exists already.
    pub(crate) fn tell_json(&self, topic: Topic, data: impl Into<Arc<str>>) {
        if self.is_followed() {
            self.send(topic, topic.event(), data.into());
        }
    }

    fn send(&self, topic: Topic, name: &'static str, data: Arc<str>) {
        self.hints.event(topic, name, &data);
        // Fails only when nobody follows here, or the last follower left in between.
        let _ = self.sender.send(Event { topic, name, data });
    }

    /// Tells those who follow here what was told to another control plane. What this one does not know is passed over.
    pub(crate) fn tell_from_elsewhere(&self, topic: &str, name: &str, data: String) {
        let Some(topic) = Topic::ALL.into_iter().find(|known| known.word() == topic) else { return };
        let Some(name) = [topic.event(), DELETED].into_iter().find(|known| *known == name) else { return };
        let _ = self.sender.send(Event { topic, name, data: data.into() });
    }

    /// Whether anybody follows; building an event for nobody can be left out.
    pub(crate) fn is_followed(&self) -> bool {
        self.is_followed_here() || self.hints.is_followed_elsewhere()
    }

    /// Whether anybody follows at this control plane.
    pub(crate) fn is_followed_here(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    /// Tells that a track is gone. Followers of tracks get it under a name of its own.
    pub(crate) fn tell_deleted(&self, track: &str) {
        let data = serde_json::json!({ "track": track }).to_string();
        self.send(Topic::Tracks, DELETED, data.into());
    }

    /// Tells an event.
    pub(crate) fn tell<T: Serialize>(&self, topic: Topic, what: &T) {
        if !self.is_followed() {
            return;
        }
        match serde_json::to_string(what) {
            Ok(json) => self.tell_json(topic, json),
            Err(error) => tracing::error!(%error, topic = topic.word(), "an event could not be written as JSON"),
        }
    }
}
