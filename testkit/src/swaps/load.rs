//! The load: connections on threads of their own, each asking in its own beat, or as fast as it is answered.
//!
//! Invariants: a request's time counts from the moment at which it was due, so that an edge that stands still cannot hide behind requests
//! that were not sent meanwhile. Every request has a number, which travels as its user agent, so that the fact of it can be found.
//!
//! On failure: what broke off is written down as such, and the connection is made anew.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::versions::{HEADER, Version};
use crate::facts::origin;

/// Segments that are asked for; each lies in memory.
pub(super) const SEGMENTS: usize = 40;
/// One of so many requests is for a playlist, which the sound versions refuse.
const PLAYLIST_EVERY: u64 = 50;
/// Longer than every patience of the edge.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const HEAD_MAX: usize = 16 * 1024;

/// The bytes of each segment.
static BODIES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| (0..SEGMENTS).map(origin::body).collect());

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Got {
    /// A whole segment.
    Segment,
    /// Refused by a sound version, which named itself in header and reason alike.
    Denied(Version),
    /// Refused, since the policy gave no verdict.
    Failed,
    /// Anything else, with its status; 0 where the connection broke.
    Other(u16),
}

/// One request. Times in nanoseconds since the clock's beginning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) number: u64,
    pub(super) edge: usize,
    pub(super) due: u64,
    pub(super) sent: u64,
    pub(super) done: u64,
    pub(super) got: Got,
}

/// What all loads of a run share.
#[derive(Debug)]
pub(super) struct Clock {
    began: Instant,
    numbers: AtomicU64,
}

impl Clock {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), numbers: AtomicU64::new(1) })
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A load that runs.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Record>>>,
}

impl Load {
    /// `rate`: requests a second over all connections; `None`: as many as are answered.
    pub(super) fn start(
        clock: &Arc<Clock>,
        edges: &[SocketAddr],
        tickets: &[String],
        connections: usize,
        rate: Option<u64>,
    ) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let beat = rate.map(|rate| 1_000_000_000 * connections as u64 / rate.max(1));
        let begin = clock.now() + 20_000_000;
        let mut threads = Vec::new();
        for place in 0..connections {
            let edge = place % edges.len();
            let ticket = tickets.get(place % tickets.len()).context("no ticket")?;
            let mut line = Line {
                clock: Arc::clone(clock),
                edge,
                address: edges[edge],
                base: format!("/p/{ticket}/hls/swapped/"),
                stream: None,
                buffer: Vec::with_capacity(64 * 1024),
            };
            let (stop, first) = (Arc::clone(&stop), begin + beat.unwrap_or(0) * place as u64 / connections as u64);
            let thread = std::thread::Builder::new().name(format!("load-{place}"));
            threads.push(thread.spawn(move || line.run(&stop, first, beat, place as u64))?);
        }
        Ok(Self { stop, threads })
    }

    /// Ends it, and gives what was asked.
    pub(super) fn stop(self) -> anyhow::Result<Vec<Record>> {
        self.stop.store(true, Relaxed);
        let mut all = Vec::new();
        for thread in self.threads {
            all.extend(thread.join().map_err(|_| anyhow::anyhow!("a thread of the load panicked"))?);
        }
        Ok(all)
    }
}

/// One connection.
struct Line {
    clock: Arc<Clock>,
    edge: usize,
    address: SocketAddr,
    base: String,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Line {
    #[allow(clippy::disallowed_methods, reason = "on a thread of its own, which no runtime shares")]
    fn run(&mut self, stop: &AtomicBool, first: u64, beat: Option<u64>, place: u64) -> Vec<Record> {
        let mut records = Vec::new();
        for turn in 0.. {
            let due = beat.map(|beat| first + turn * beat);
            if let Some(wait) = due.and_then(|due| due.checked_sub(self.clock.now())) {
                std::thread::sleep(Duration::from_nanos(wait));
            }
            if stop.load(Relaxed) {
                return records;
            }
            let number = self.clock.numbers.fetch_add(1, Relaxed);
            let segment = (turn % PLAYLIST_EVERY != place % PLAYLIST_EVERY)
                .then(|| usize::try_from((turn * 7 + place * 3) % SEGMENTS as u64).unwrap_or(0));
            let sent = self.clock.now();
            let got = self.ask(number, segment).unwrap_or_else(|_| {
                self.stream = None;
                Got::Other(0)
            });
            let done = self.clock.now();
            records.push(Record { number, edge: self.edge, due: due.unwrap_or(sent), sent, done, got });
        }
        records
    }

    fn ask(&mut self, number: u64, segment: Option<usize>) -> anyhow::Result<Got> {
        let file = match segment {
            Some(segment) => format!("{}/{}", origin::VERSION, origin::file(segment)),
            None => "master.m3u8".to_owned(),
        };
        let request = format!("GET {}{file} HTTP/1.1\r\nHost: edge.test\r\nUser-Agent: {number}\r\n\r\n", self.base);
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(ANSWER_WITHIN))?;
                self.stream.insert(stream)
            }
        };
        stream.write_all(request.as_bytes())?;
        self.buffer.clear();
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            anyhow::ensure!(self.buffer.len() < HEAD_MAX, "a head without an end");
            more(stream, &mut self.buffer)?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
        let field = |name: &str| {
            head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).map(str::to_owned)
        };
        let status: u16 = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
        let length: usize = field("content-length").and_then(|length| length.parse().ok()).context("no length")?;
        let closes = field("connection").is_some_and(|value| value == "close");
        while self.buffer.len() < end + length {
            more(stream, &mut self.buffer)?;
        }
        let body = &self.buffer[end..];
        let got = match (status, segment) {
            (200, Some(segment)) if BODIES.get(segment).is_some_and(|whole| body == whole) => Got::Segment,
            (451, None) => {
                let reason: serde_json::Value = serde_json::from_slice(body)?;
                let named = field(HEADER).and_then(|name| Version::sound(&name));
                match named.filter(|version| reason["error"] == version.name()) {
                    Some(version) => Got::Denied(version),
                    None => Got::Other(status),
                }
            }
            (503, _) => {
                let reason: serde_json::Value = serde_json::from_slice(body)?;
                if reason["error"] == "policy-failed" { Got::Failed } else { Got::Other(status) }
            }
            _ => Got::Other(status),
        };
        if closes {
            self.stream = None;
        }
        Ok(got)
    }
}

fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut part = [0; 32 * 1024];
    let length = stream.read(&mut part)?;
    anyhow::ensure!(length > 0, "the connection ended");
    buffer.extend_from_slice(&part[..length]);
    Ok(())
}
