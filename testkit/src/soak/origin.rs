//! The bucket: an S3 server as far as an edge can tell, which misbehaves now and then.
//!
//! Invariants: what it says of an object is true of one version, save for the faults of [`Fault::ALL`]; a fault is noted
//! in the object before anything of it can be seen, so that no honest failure is taken for one without a cause. No
//! fault makes a shorter object look whole: that could not be told by anybody behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::random::Random;
use super::truth::{Kind, Object, World};

/// So many requests in a thousand meet a fault.
pub(crate) const FAULTS_PER_MILLE: u64 = 50;
/// Longer than the edge waits for a byte.
const STALL: Duration = Duration::from_secs(30);
const HEAD_MAX: usize = 64 * 1024;
const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// How the origin misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A part of the body, then the connection ends.
    Truncate,
    /// A part of the body, then silence.
    Stall,
    /// A length that the body, which is there to its end, does not have.
    WrongLength,
    /// A part of the body, then a reset.
    Reset,
    /// A part of the body, then the end; what is asked for again is another version.
    Change,
    /// 500.
    Internal,
    /// 503, as S3 says that it is asked too often.
    SlowDown,
    /// 200 with an error document.
    ErrorDocument,
    /// Nothing is answered; the connection ends.
    Mute,
}

impl Fault {
    pub(crate) const ALL: [Self; 9] = [
        Self::Truncate,
        Self::Stall,
        Self::WrongLength,
        Self::Reset,
        Self::Change,
        Self::Internal,
        Self::SlowDown,
        Self::ErrorDocument,
        Self::Mute,
    ];

    /// Whether it can also be done to a HEAD.
    fn is_without_body(self) -> bool {
        matches!(self, Self::Internal | Self::SlowDown | Self::Mute)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Truncate => "truncate",
            Self::Stall => "stall",
            Self::WrongLength => "wrong-length",
            Self::Reset => "reset",
            Self::Change => "change",
            Self::Internal => "500",
            Self::SlowDown => "503",
            Self::ErrorDocument => "200-xml",
            Self::Mute => "mute",
        }
    }
}

/// What was asked of it, and how often it did what.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) requests: AtomicU64,
    pub(crate) faults: [AtomicU64; Fault::ALL.len()],
}

/// The running origin. It ends with the value.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<Asked>,
    _serving: JoinSet<()>,
}

impl Origin {
    pub(crate) async fn start(world: Arc<World>, seed: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let asked = Arc::<Asked>::default();
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, world, Arc::clone(&asked), seed));
        Ok(Self { address, asked, _serving: serving })
    }
}

async fn accept(listener: TcpListener, world: Arc<World>, asked: Arc<Asked>, seed: u64) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        while connections.try_join_next().is_some() {}
        // Without a descriptor to spare there will be one when an answer has ended.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        number += 1;
        let random = Random::of_part(seed, "origin", number);
        let connection =
            Connection { stream, world: Arc::clone(&world), asked: Arc::clone(&asked), random, is_head: false };
        connections.spawn(connection.serve());
    }
}

struct Connection {
    stream: TcpStream,
    world: Arc<World>,
    asked: Arc<Asked>,
    random: Random,
    /// The request at hand is a HEAD.
    is_head: bool,
}

/// A request, as far as it matters.
struct Request {
    is_head: bool,
    path: String,
    range: Option<(u64, u64)>,
    if_none_match: Option<String>,
    if_match: Option<String>,
}

impl Connection {
    async fn serve(mut self) {
        let mut buffer = Vec::new();
        // An edge that leaves in the middle of an answer is its own business.
        while let Ok(Some(request)) = self.request(&mut buffer).await {
            self.asked.requests.fetch_add(1, Ordering::Relaxed);
            if !matches!(self.answer(&request).await, Ok(true)) {
                return;
            }
        }
    }

    async fn request(&mut self, buffer: &mut Vec<u8>) -> std::io::Result<Option<Request>> {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if buffer.len() > HEAD_MAX || self.stream.read_buf(buffer).await? == 0 {
                return Ok(None);
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        let header = |name: &str| {
            let found = head.lines().filter_map(|line| line.split_once(':'));
            let mut found = found.filter(|(known, _)| known.eq_ignore_ascii_case(name));
            found.next().map(|(_, value)| value.trim().to_owned())
        };
        let target = head.split(' ').nth(1).unwrap_or_default();
        Ok(Some(Request {
            is_head: head.starts_with("HEAD "),
            path: target.strip_prefix("/media").unwrap_or(target).to_owned(),
            range: header("range").as_deref().and_then(range),
            if_none_match: header("if-none-match"),
            if_match: header("if-match").or_else(|| header("if-range")),
        }))
    }

    /// Whether the connection goes on.
    async fn answer(&mut self, request: &Request) -> std::io::Result<bool> {
        self.is_head = request.is_head;
        let world = Arc::clone(&self.world);
        let object = world.find(&request.path).filter(|object| object.kind != Kind::Absent);
        let Some(object) = object else {
            let body = "<Error><Code>NoSuchKey</Code></Error>";
            return self.say("404 Not Found", "Content-Type: application/xml\r\n", body.len(), body.as_bytes()).await;
        };
        if self.random.per_mille(FAULTS_PER_MILLE) {
            let place = self.random.place(Fault::ALL.len());
            let fault = Fault::ALL.get(place).copied().filter(|fault| !request.is_head || fault.is_without_body());
            if let (Some(fault), Some(count)) = (fault, self.asked.faults.get(place)) {
                object.fault();
                count.fetch_add(1, Ordering::Relaxed);
                return self.misbehave(object, fault).await;
            }
        }
        self.behave(object, request).await
    }

    async fn behave(&mut self, object: &Object, request: &Request) -> std::io::Result<bool> {
        let version = object.current();
        let etag = object.etag(version);
        let head = head(object, version);
        if request.if_none_match.as_deref() == Some(&etag) {
            self.stream.write_all(format!("HTTP/1.1 304 Not Modified\r\n{head}\r\n").as_bytes()).await?;
            return Ok(true);
        }
        let body = object.served(version);
        let total = body.len() as u64;
        let part = request.range.filter(|_| request.if_match.as_ref().is_none_or(|wanted| *wanted == etag));
        let Some((first, last)) = part else { return self.say("200 OK", &head, body.len(), &body).await };
        if first >= total {
            let head = format!("Content-Range: bytes */{total}\r\n");
            return self.say("416 Range Not Satisfiable", &head, 0, b"").await;
        }
        let last = last.min(total - 1);
        let head = format!("{head}Content-Range: bytes {first}-{last}/{total}\r\n");
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let part = body.get(place(first)..=place(last)).unwrap_or_default();
        self.say("206 Partial Content", &head, part.len(), part).await
    }

    async fn misbehave(&mut self, object: &Object, fault: Fault) -> std::io::Result<bool> {
        let version = object.current();
        let body = object.served(version);
        let head = head(object, version);
        let part = self.random.place(body.len());
        let part = body.get(..part).unwrap_or_default();
        // An empty body can only be cut short of a length that is false.
        let declared = body.len().max(1);
        if body.is_empty() {
            object.tell_lie(1);
        }
        match fault {
            Fault::Mute => {}
            Fault::Internal => return self.say("500 Internal Server Error", "", 0, b"").await,
            Fault::SlowDown => return self.say("503 Slow Down", "Content-Type: application/xml\r\n", 0, b"").await,
            Fault::ErrorDocument => {
                let body = b"<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>";
                return self.say("200 OK", "Content-Type: application/xml\r\n", body.len(), body).await;
            }
            Fault::WrongLength => {
                let length = body.len() + 1 + self.random.place(4096);
                object.tell_lie(length as u64);
                self.say("200 OK", &head, length, &body).await?;
            }
            Fault::Truncate => {
                self.say("200 OK", &head, declared, part).await?;
            }
            Fault::Stall => {
                self.say("200 OK", &head, declared, part).await?;
                let mut rest = [0; 1];
                // The edge hangs up before.
                let _ = tokio::time::timeout(STALL, self.stream.read(&mut rest)).await;
            }
            Fault::Reset => {
                self.say("200 OK", &head, declared, part).await?;
                self.stream.set_zero_linger()?;
            }
            Fault::Change => {
                self.say("200 OK", &head, declared, part).await?;
                if matches!(object.kind, Kind::Master | Kind::Cover) {
                    object.change();
                }
            }
        }
        Ok(false)
    }

    async fn say(&mut self, status: &str, headers: &str, length: usize, body: &[u8]) -> std::io::Result<bool> {
        let mut answer = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n").into_bytes();
        if !self.is_head {
            answer.extend_from_slice(body);
        }
        self.stream.write_all(&answer).await?;
        Ok(true)
    }
}

fn head(object: &Object, version: usize) -> String {
    let (etag, kind) = (object.etag(version), object.content_type());
    format!("ETag: {etag}\r\nLast-Modified: {MODIFIED}\r\nContent-Type: {kind}\r\n")
}

/// One range from the front; all that an edge sends on behalf of one client.
fn range(value: &str) -> Option<(u64, u64)> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let last = if last.is_empty() { u64::MAX } else { last.parse().ok()? };
    first.parse().ok().map(|first| (first, last))
}
