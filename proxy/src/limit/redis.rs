//! The Redis that all edges share, and what holds while it is away.
//!
//! Purpose: one connection, kept by one task; scripts of one key a call, so that a cluster serves as well; a breaker that
//! opens when Redis is gone or silent, so that requests go by `on_outage` and wait for nothing.
//!
//! Invariants: nothing here is awaited by a request beyond its class's `max_wait`. Calls under way are bounded by
//! [`CALLS_MAX`], each by the configured time-out. A key goes back to Redis a while after it has come back, by its
//! hash between nothing and [`RETURN_SPREAD`], so that what was held up does not come at once.
//!
//! On failure: counted by reason and logged when the breaker opens or closes; the task tries again until it is stopped.

mod probe;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, RedisError, Script, ServerErrorKind,
    TlsCertificates, Value,
};
use segue_config::Secret;
use segue_signing::limits::{OnExcess, StreamsConfig};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lease::{Ask, Granted};
use super::streams::{AHEAD_MAX, Excess, Heard, STOPPED_FOR, Tell};
use crate::metrics::Counter;
pub(crate) use probe::probe;

/// Calls under way: more than these wait nowhere, their keys go by `on_outage`.
const CALLS_MAX: usize = 4_096;
/// Calls in a row that may time out before Redis is taken for away.
const SILENT_MAX: u32 = 3;
/// How often an edge says that it lives, and how long that counts.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
const LIVES_FOR: Duration = Duration::from_secs(5);
/// Between attempts to come back; doubled up to the last, less a random part of it.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_millis(500);
/// Stops that edges are told of: as old as an outage may be that their next word does not mend, and as many as one
/// answer should hold.
const STOPS_FOR: Duration = Duration::from_secs(60);
const STOPS_MAX: usize = 10_000;
const NS_PER_MS: u64 = 1_000_000;
/// Keys come back to Redis over this time.
const RETURN_SPREAD: Duration = Duration::from_millis(500);

/// `[redis]`.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `redis://`, or `rediss://` for TLS, with user and password (`url`).
    pub url: Secret,
    /// Whether the URL leads to a node of a cluster (`cluster`).
    pub cluster: bool,
    /// PEM text of the authority that signed the server's certificate, in place of the system's (`ca`).
    pub ca: Option<Vec<u8>>,
    /// What a call may take (`timeout`).
    pub timeout: Duration,
    /// Edges that share the limits at the least, until Redis has counted them (`edges`).
    pub edges: u32,
    /// What all keys begin with (`prefix`).
    pub prefix: String,
}

impl RedisConfig {
    /// One Redis and everything else as it is by default.
    #[must_use]
    pub fn new(url: Secret) -> Self {
        let timeout = Duration::from_millis(100);
        Self { url, cluster: false, ca: None, timeout, edges: 1, prefix: "segue".to_owned() }
    }
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) calls: Counter,
    pub(crate) tokens: Counter,
    pub(crate) timeouts: Counter,
    pub(crate) errors: Counter,
    pub(crate) crowded: Counter,
    pub(crate) outages: Counter,
    /// Calls for places, and stops that other edges told of.
    pub(crate) seats: Counter,
    pub(crate) stops: Counter,
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

enum Source {
    One(Box<Client>),
    Cluster(Box<ClusterClient>),
}

/// A script and its text, which Redis is told where it does not know the hash.
struct Lua {
    text: &'static str,
    script: Script,
}

impl Lua {
    fn new(text: &'static str) -> Self {
        Self { text, script: Script::new(text) }
    }
}

/// See the module.
pub(crate) struct Redis {
    source: Source,
    timeout: Duration,
    prefix: String,
    /// This edge among the others.
    edge: String,
    connection: ArcSwapOption<Connection>,
    is_here: AtomicBool,
    /// When it came back, on the limiter's clock; 0: it was never away.
    back_since: AtomicU64,
    silent: AtomicU32,
    edges: AtomicU32,
    edges_least: u32,
    lost: Notify,
    room: Semaphore,
    draw: Lua,
    seat: Lua,
    stops: Lua,
    count: Lua,
    pub(crate) tasks: TaskTracker,
    stop: CancellationToken,
    pub(crate) counts: Counts,
}

impl std::fmt::Debug for Redis {
    // The source holds the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("is_here", &self.is_here).finish_non_exhaustive()
    }
}

impl Redis {
    /// A Redis that is away until [`Redis::keep`] runs.
    ///
    /// # Errors
    /// A sentence about the URL or the certificate; never with the password in it.
    pub(crate) fn new(config: &RedisConfig, edge: &str) -> Result<Self, String> {
        let wrong = |error: RedisError| format!("[redis] url: {}", error.category());
        let url = config.url.expose();
        let tls = config.ca.clone().map(|ca| TlsCertificates { client_tls: None, root_cert: Some(ca) });
        let source = if config.cluster {
            let builder = ClusterClient::builder([url])
                .connection_timeout(config.timeout.max(Duration::from_secs(1)))
                .response_timeout(config.timeout)
                .retries(1);
            let builder = if let Some(tls) = tls { builder.certs(tls) } else { builder };
            Source::Cluster(Box::new(builder.build().map_err(wrong)?))
        } else {
            let client = match tls {
                Some(tls) => Client::build_with_tls(url, tls).map_err(wrong)?,
                None => Client::open(url).map_err(wrong)?,
            };
            Source::One(Box::new(client))
        };
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(|error| format!("the system gives no randomness: {error}"))?;
        Ok(Self {
            source,
            timeout: config.timeout,
            prefix: config.prefix.clone(),
            // Two edges of one name, or one that was restarted, are two.
            edge: format!("{edge}-{:016x}", u64::from_le_bytes(nonce)),
            connection: ArcSwapOption::empty(),
            is_here: AtomicBool::new(false),
            back_since: AtomicU64::new(0),
            silent: AtomicU32::new(0),
            edges: AtomicU32::new(config.edges.max(1)),
            edges_least: config.edges.max(1),
            lost: Notify::new(),
            room: Semaphore::new(CALLS_MAX),
            draw: Lua::new(include_str!("redis/draw.lua")),
            seat: Lua::new(include_str!("redis/seat.lua")),
            stops: Lua::new(include_str!("redis/stops.lua")),
            count: Lua::new(include_str!("redis/edges.lua")),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            counts: Counts::default(),
        })
    }

    /// What its keys begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether it answers.
    pub(crate) fn is_here(&self) -> bool {
        self.is_here.load(Ordering::Acquire)
    }

    /// `None` where the key of `hash` goes to Redis; else the number of edges that share its limit.
    pub(crate) fn away(&self, hash: u64, now: u64) -> Option<u32> {
        if self.is_here() {
            let back = self.back_since.load(Ordering::Relaxed);
            if back == 0 || now >= back.saturating_add(hash.rotate_left(17) % RETURN_SPREAD.as_nanos() as u64) {
                return None;
            }
        }
        Some(self.edges())
    }

    /// When it came back, on the limiter's clock; 0: it was never away.
    pub(crate) fn back_since(&self) -> u64 {
        self.back_since.load(Ordering::Relaxed)
    }

    /// Edges that live, as last heard.
    pub(crate) fn edges(&self) -> u32 {
        self.edges.load(Ordering::Relaxed)
    }

    /// Keeps the connection until [`Redis::stop`].
    pub(crate) async fn keep(self: Arc<Self>, now: impl Fn() -> u64 + Send) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(async {
            let mut pause = RETRY_FIRST;
            let mut first = true;
            loop {
                match self.connect().await {
                    Ok(()) => {
                        pause = RETRY_FIRST;
                        let back = if first { 0 } else { now() };
                        self.back_since.store(back, Ordering::Relaxed);
                        self.silent.store(0, Ordering::Relaxed);
                        self.is_here.store(true, Ordering::Release);
                        tracing::info!(edges = self.edges(), "Redis keeps the limits");
                        self.watch().await;
                    }
                    Err(error) => tracing::debug!(error = error.category(), "Redis is not there"),
                }
                first = false;
                tokio::time::sleep(jittered(pause)).await;
                pause = (pause * 2).min(RETRY_LAST);
            }
        })
        .await;
    }

    /// Tells every task to end.
    pub(crate) fn cancel(&self) {
        self.stop.cancel();
    }

    /// Returns when every task is to end.
    pub(crate) async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Ends every task.
    pub(crate) async fn stop(&self) {
        self.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn connect(&self) -> Result<(), RedisError> {
        let patience = self.timeout.max(Duration::from_secs(1));
        let connection = match &self.source {
            Source::One(client) => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(patience))
                    .set_response_timeout(Some(self.timeout));
                Connection::One(client.get_multiplexed_async_connection_with_config(&config).await?)
            }
            Source::Cluster(client) => match tokio::time::timeout(patience, client.get_async_connection()).await {
                Ok(connection) => Connection::Cluster(connection?),
                Err(_) => return Err(silence()),
            },
        };
        self.connection.store(Some(Arc::new(connection)));
        self.heartbeat().await
    }

    /// Returns when Redis is lost.
    async fn watch(&self) {
        loop {
            tokio::select! {
                () = self.lost.notified() => return,
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
            if let Err(error) = self.heartbeat().await {
                self.note(&error);
            }
            if !self.is_here() {
                return;
            }
        }
    }

    async fn heartbeat(&self) -> Result<(), RedisError> {
        let lives = LIVES_FOR.as_millis().to_string();
        let key = format!("{}:edges", self.prefix);
        let edges: u32 = self.run(&self.count, &key, &[&self.edge, &lives]).await?;
        self.edges.store(edges.max(self.edges_least), Ordering::Relaxed);
        Ok(())
    }

    /// Asks for tokens of the bucket `key`. `None`: it came to nothing.
    pub(crate) async fn draw(&self, key: &str, interval: f64, burst: f64, ask: Ask) -> Option<Granted> {
        let Ok(_room) = self.room.try_acquire() else {
            self.counts.crowded.add(1);
            return None;
        };
        self.counts.calls.add(1);
        let (interval, burst, want) = (format!("{interval:.9}"), format!("{burst:.6}"), ask.want.to_string());
        let ahead = if ask.ahead { "1" } else { "0" };
        let drawn: Result<(u32, u32, u64, u64), _> =
            self.run(&self.draw, key, &[&interval, &burst, &want, ahead]).await;
        match drawn {
            Ok((at_once, later, later_in, retry_in)) => {
                self.silent.store(0, Ordering::Relaxed);
                self.counts.tokens.add(u64::from(at_once) + u64::from(later));
                let ns = |us: u64| us.saturating_mul(1_000);
                Some(Granted { at_once, later, later_in: ns(later_in), retry_in: ns(retry_in) })
            }
            Err(error) => {
                self.note(&error);
                None
            }
        }
    }

    /// Tells of a session, and asks for its place. `None`: it came to nothing.
    pub(crate) async fn seat(&self, listener: &str, config: &StreamsConfig, tell: Tell) -> Option<Heard> {
        let Ok(_room) = self.room.try_acquire() else {
            self.counts.crowded.add(1);
            return None;
        };
        self.counts.seats.add(1);
        let ms = |ns: u64| ns.div_ceil(NS_PER_MS).to_string();
        let word = |yes: bool| u8::from(yes).to_string();
        let args = [
            format!("{:016x}", tell.sid),
            config.max.to_string(),
            config.grace.as_millis().to_string(),
            word(config.on_excess == OnExcess::StopOldest),
            tell.ticket_age.map_or_else(|| "-1".to_owned(), ms),
            word(tell.is_held),
            ms(tell.began_ago),
            ms(tell.ahead),
            ms(tell.media),
            ms(tell.media_ago),
            AHEAD_MAX.as_millis().to_string(),
            STOPPED_FOR.as_millis().to_string(),
        ];
        let args = args.each_ref().map(String::as_str);
        let heard: Result<(u8, u64, u64, String), _> = self.run(&self.seat, listener, &args).await;
        match heard {
            Ok((state, time, began_ago, stopped)) => {
                self.silent.store(0, Ordering::Relaxed);
                let time = time.saturating_mul(NS_PER_MS);
                let place = match state {
                    0 => Ok((time, began_ago.saturating_mul(NS_PER_MS))),
                    1 => Err(Excess::Full(time)),
                    _ => Err(Excess::Stopped(time)),
                };
                Some(Heard { place, stopped: u64::from_str_radix(&stopped, 16).ok() })
            }
            Err(error) => {
                self.note(&error);
                None
            }
        }
    }

    /// Lets the other edges know of a session that was stopped. Where that fails they hear of it with their next word.
    pub(crate) async fn note_stop(&self, stop: &str) {
        if let Err(error) = self.exchange_stops(u64::MAX, stop).await {
            self.note(&error);
        }
    }

    /// Sessions that were stopped since `since`, with when; and now (milliseconds of Redis' clock). `None`: it came to
    /// nothing.
    pub(crate) async fn stops(&self, since: u64) -> Option<(u64, Vec<(String, u64)>)> {
        match self.exchange_stops(since, "").await {
            Ok((now, flat)) => {
                self.counts.stops.add(flat.len() as u64 / 2);
                let pairs = flat.chunks_exact(2).filter_map(|pair| match pair {
                    [stop, at] => Some((stop.clone(), at.parse().ok()?)),
                    _ => None,
                });
                Some((now, pairs.collect()))
            }
            Err(error) => {
                self.note(&error);
                None
            }
        }
    }

    async fn exchange_stops(&self, since: u64, stop: &str) -> Result<(u64, Vec<String>), RedisError> {
        let key = format!("{}:stops", self.prefix);
        let since = if since == u64::MAX { "+inf".to_owned() } else { since.to_string() };
        self.run(&self.stops, &key, &[&since, &STOPS_FOR.as_millis().to_string(), &STOPS_MAX.to_string(), stop]).await
    }

    /// A script by its hash; by its text where Redis does not know it, which lets it know.
    async fn run<T: FromRedisValue>(&self, script: &Lua, key: &str, args: &[&str]) -> Result<T, RedisError> {
        let Some(connection) = self.connection.load_full() else { return Err(silence()) };
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(1).arg(key).arg(args);
            command
        };
        let ask = async |command: Cmd| {
            let answer = tokio::time::timeout(self.timeout, async {
                match &*connection {
                    Connection::One(one) => command.query_async::<Value>(&mut one.clone()).await,
                    Connection::Cluster(cluster) => command.query_async::<Value>(&mut cluster.clone()).await,
                }
            });
            answer.await.unwrap_or_else(|_| Err(silence()))
        };
        let answer = match ask(command("EVALSHA", script.script.get_hash())).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                ask(command("EVAL", script.text)).await
            }
            answer => answer,
        };
        Ok(redis::from_redis_value(answer?)?)
    }

    /// Counts a failure, and opens the breaker where Redis is gone.
    fn note(&self, error: &RedisError) {
        let is_silent = error.is_timeout();
        let gone = if is_silent {
            self.counts.timeouts.add(1);
            self.silent.fetch_add(1, Ordering::Relaxed) + 1 >= SILENT_MAX
        } else {
            self.counts.errors.add(1);
            true
        };
        if gone && self.is_here.swap(false, Ordering::AcqRel) {
            self.counts.outages.add(1);
            tracing::warn!(error = error.category(), "Redis is away; limits go by on_outage until it is back");
            self.lost.notify_one();
        }
    }
}

fn silence() -> RedisError {
    RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut))
}

/// Between half of a pause and the whole.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0; 1];
    let part = if getrandom::fill(&mut byte).is_ok() { f64::from(byte[0]) / 255.0 } else { 1.0 };
    pause.mul_f64(0.5 + part / 2.0)
}
