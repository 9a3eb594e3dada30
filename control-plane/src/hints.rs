//! Hints between control planes: a word over Redis that something changed, so that nobody has to wait for the next look.
//!
//! The database is the truth. A hint carries no state (but for events, which are told and forgotten anyway), and one that
//! is lost costs the time until the next look: the snapshot's revision is looked at every [`LOOK`] where hints do not flow
//! and every [`LOOK_HINTED`] where they do; a worker that waits looks every second in any case.
//!
//! Invariants: nothing waits for Redis; what is to be said waits in a queue of [`OUTBOX`], and what does not fit is dropped.
//! Every control plane hears its own words as well: a connection on which it does not is taken for dead. Events are
//! passed on only while somebody elsewhere follows. On failure: logged when the connection is lost and when it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use redis::{AsyncConnectionConfig, Client, RedisError, TlsCertificates};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::bus::Topic;
use crate::clock;
use crate::config::RedisConfig;
use crate::state::Parts;

/// Words that wait for Redis: some seconds of a busy house's events.
const OUTBOX: usize = 4096;

/// How often the revision is looked at: an edge hears of a change within a second in any case.
const LOOK: Duration = Duration::from_millis(500);
const LOOK_HINTED: Duration = Duration::from_secs(5);

/// How often a control plane says that it lives and whether it has followers, and how long that counts.
const ALIVE: Duration = Duration::from_secs(2);
const ALIVE_FOR_MS: i64 = 7000;

/// A connection on which no word came for so long is dead: three of our own are missing.
const SILENT: Duration = Duration::from_secs(7);

/// Longest time of one call, and the pause between two attempts to connect.
const PATIENCE: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(1);

/// What is said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "hint", rename_all = "snake_case")]
enum Word {
    /// What edges are told has changed.
    Snapshot,
    /// The queue gained a job.
    Queued,
    /// The sender lives; whether anybody follows events there.
    Alive { followed: bool },
    /// An event, for those who follow elsewhere.
    Event { topic: String, name: String, data: String },
}

#[derive(Debug, Serialize, Deserialize)]
struct Letter<'a> {
    /// The control plane that says it.
    from: std::borrow::Cow<'a, str>,
    #[serde(flatten)]
    word: Word,
}

/// Says hints. Without `[redis]` it says nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints(Option<Arc<Sender>>);

#[derive(Debug)]
struct Sender {
    outbox: mpsc::Sender<Word>,
    /// Until when somebody elsewhere is known to follow events, ms since the epoch.
    followed_until: AtomicI64,
    flows: AtomicBool,
}

/// The other end: to be run as a task.
#[derive(Debug)]
pub(crate) struct Postman {
    client: Client,
    channel: String,
    inbox: mpsc::Receiver<Word>,
    sender: Arc<Sender>,
}

/// Whether Redis answers, for `segue doctor`.
///
/// # Errors
/// A sentence; never with the password in it.
pub(crate) async fn probe(config: &RedisConfig) -> Result<(), String> {
    let (_, postman) = Hints::new(config)?;
    let asked = async {
        let mut connection = postman.client.get_multiplexed_async_connection().await?;
        redis::cmd("PING").query_async::<()>(&mut connection).await
    };
    match tokio::time::timeout(2 * PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|error| error.category().to_owned()),
        Err(_) => Err("no answer".to_owned()),
    }
}

impl Hints {
    /// # Errors
    /// A sentence about the URL; never with the password in it.
    pub(crate) fn new(config: &RedisConfig) -> Result<(Self, Postman), String> {
        let wrong = |error: RedisError| format!("[redis] url: {}", error.category());
        let client = match config.ca.clone() {
            Some(ca) => {
                let tls = TlsCertificates { client_tls: None, root_cert: Some(ca) };
                Client::build_with_tls(config.url.expose(), tls).map_err(wrong)?
            }
            None => Client::open(config.url.expose()).map_err(wrong)?,
        };
        let (outbox, inbox) = mpsc::channel(OUTBOX);
        let sender = Arc::new(Sender { outbox, followed_until: AtomicI64::new(0), flows: AtomicBool::new(false) });
        let channel = format!("{}:control", config.prefix);
        Ok((Self(Some(Arc::clone(&sender))), Postman { client, channel, inbox, sender }))
    }

    /// Says that what edges are told has changed.
    pub(crate) fn snapshot(&self) {
        self.say(Word::Snapshot);
    }

    /// Says that the queue gained a job.
    pub(crate) fn queued(&self) {
        self.say(Word::Queued);
    }

    /// Passes an event on, where somebody elsewhere follows.
    pub(crate) fn event(&self, topic: Topic, name: &str, data: &str) {
        if self.is_followed_elsewhere() {
            self.say(Word::Event { topic: topic.word().to_owned(), name: name.to_owned(), data: data.to_owned() });
        }
    }

    pub(crate) fn is_followed_elsewhere(&self) -> bool {
        self.0.as_ref().is_some_and(|sender| sender.followed_until.load(Ordering::Relaxed) > clock::now_ms())
    }

    fn say(&self, word: Word) {
        if let Some(sender) = &self.0
            && sender.flows.load(Ordering::Relaxed)
            && sender.outbox.try_send(word).is_err()
        {
            tracing::debug!("a hint was dropped; the others look by themselves");
        }
    }

    fn flow(&self) -> bool {
        self.0.as_ref().is_some_and(|sender| sender.flows.load(Ordering::Relaxed))
    }
}

/// Looks whether another control plane has changed what edges are told, until shutdown.
pub(crate) async fn look(parts: Arc<Parts>) {
    let mut failing = false;
    loop {
        let result = parts.keys.catch_up(&parts.store).await;
        if let (Err(error), false) = (&result, failing) {
            tracing::warn!(%error, "the snapshot's revision cannot be read; trying on");
        }
        failing = result.is_err();
        let pause = if parts.hints.flow() { LOOK_HINTED } else { LOOK };
        tokio::select! {
            () = parts.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Postman {
    /// Carries words until shutdown.
    pub(crate) async fn run(mut self, parts: Arc<Parts>) {
        let mut failing = false;
        loop {
            let ended = tokio::select! {
                () = parts.shutdown.cancelled() => return,
                ended = self.carry(&parts) => ended,
            };
            if self.sender.flows.swap(false, Ordering::Relaxed) || !failing {
                let why = ended.as_ref().map_or_else(|error| error.category(), |()| "it fell silent");
                tracing::warn!(why, "Redis carries no hints; control planes look by themselves until it is back");
            }
            failing = true;
            self.sender.followed_until.store(0, Ordering::Relaxed);
            tokio::select! {
                () = parts.shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// One connection's life. Ends well where it fell silent.
    async fn carry(&mut self, parts: &Arc<Parts>) -> Result<(), RedisError> {
        let connecting = async {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(PATIENCE))
                .set_response_timeout(Some(PATIENCE));
            let publish = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            let mut listen = self.client.get_async_pubsub().await?;
            listen.subscribe(&self.channel).await?;
            Ok::<_, RedisError>((publish, listen.into_on_message()))
        };
        let Ok(connected) = tokio::time::timeout(2 * PATIENCE, connecting).await else { return Ok(()) };
        let (mut publish, mut heard) = connected?;
        let mut alive = tokio::time::interval(ALIVE);
        alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            let word = tokio::select! {
                message = heard.next() => {
                    let Some(message) = message else { return Ok(()) };
                    if !self.sender.flows.swap(true, Ordering::Relaxed) {
                        tracing::info!("Redis carries hints between control planes");
                        // What was said before was not heard.
                        changed(parts);
                    }
                    last = Instant::now();
                    self.hear(parts, message.get_payload_bytes());
                    continue;
                }
                word = self.inbox.recv() => match word {
                    Some(word) => word,
                    None => return Ok(()),
                },
                _ = alive.tick() => Word::Alive { followed: parts.bus.is_followed_here() },
                () = tokio::time::sleep_until(last + SILENT) => return Ok(()),
            };
            let letter = Letter { from: parts.instance.as_str().into(), word };
            match serde_json::to_string(&letter) {
                Ok(text) => {
                    redis::cmd("PUBLISH").arg(&self.channel).arg(text).query_async::<()>(&mut publish).await?;
                }
                Err(error) => tracing::error!(%error, "a hint could not be written"),
            }
        }
    }

    fn hear(&self, parts: &Arc<Parts>, payload: &[u8]) {
        // A newer control plane may say what this one does not know.
        let Ok(letter) = serde_json::from_slice::<Letter<'_>>(payload) else { return };
        if letter.from == parts.instance.as_str() {
            return;
        }
        match letter.word {
            Word::Snapshot => changed(parts),
            Word::Queued => parts.wake_own_workers(),
            Word::Alive { followed: true } => {
                self.sender.followed_until.store(clock::now_ms() + ALIVE_FOR_MS, Ordering::Relaxed);
            }
            Word::Alive { followed: false } => {}
            Word::Event { topic, name, data } => parts.bus.tell_from_elsewhere(&topic, &name, data),
        }
    }
}

/// Reads the snapshot anew beside the postman: as many tasks as there are hints at once, and all but the first find it current.
fn changed(parts: &Arc<Parts>) {
    let parts = Arc::clone(parts);
    parts.tasks.clone().spawn(async move {
        if let Err(error) = parts.keys.catch_up(&parts.store).await {
            tracing::warn!(%error, "the snapshot could not be read after a hint; it is looked at again soon");
        }
    });
}
