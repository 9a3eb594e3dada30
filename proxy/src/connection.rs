//! One client connection, from its first byte to its last: hits are answered here, the rest goes through Pingora.
//!
//! Purpose: a request head is parsed once into memory of the thread; where the steps of `service.rs` admit it and the
//! object is in memory, the answer leaves in one write, without a session, a timer or a buffer of its own. Everything
//! else (a miss, a refusal, a body, an odd head) is handed to Pingora with its bytes and with what was found out, so
//! that no step runs twice.
//!
//! Invariants:
//! - The steps are the same on both ways; this file decides nothing about who may have what.
//! - Pingora gets the bytes of one whole head and none of the next request, so that a connection comes back from it.
//!   One that had to be given more (a request with a body) stays there to its end.
//! - An idle connection holds no buffer. One timer runs for it, set again when it fires and not for each request.
//!
//! On failure: a client that is gone, idle for too long or too slow to read ends its connection; a fact that was noted
//! is settled as not complete.

pub(crate) mod head;
mod http2;
pub(crate) mod screen;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::HeaderMap;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::HttpProxy;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::config::ConnectionConfig;
use crate::downstream::Downstream;
use crate::exchange::{Asked, Exchange};
use crate::listener::Closing;
use crate::respond::debug;
use crate::respond::hit::{Hit, Way};
use crate::service::{Course, Service};
use head::Head;
use screen::BadHead;

/// What is read at once. Heads with a ticket in the path take about 500 bytes, a browser's up to 2 KB.
const READ_BYTES: usize = 16 * 1024;

/// Memory that a thread lends to whichever connection it runs, for as long as one poll.
struct Scratch {
    input: Box<[u8]>,
    head: Vec<u8>,
    headers: HeaderMap,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// A client and what serves it.
pub(crate) struct Connection {
    pub(crate) proxy: Arc<HttpProxy<Service>>,
    pub(crate) service: Service,
    pub(crate) closing: Arc<Closing>,
}

/// What one poll of a connection came to.
enum Turn {
    /// The kernel did not take the whole answer at once.
    Partly(Rest),
    /// The connection is over.
    Over,
    /// What came is answered by nobody.
    Bad(BadHead),
    /// The client speaks HTTP/2 without having asked.
    Http2,
    /// The request is Pingora's; whether the connection comes back from it.
    Pingora { returns: bool },
}

/// What is left of an answer.
struct Rest {
    head: Vec<u8>,
    hit: Hit,
    /// Bytes of the body that are written.
    sent: usize,
}

/// What wakes an idle connection beside its client.
struct Waits {
    /// When it ends if nothing comes.
    idle_until: Instant,
    clock: Pin<Box<Sleep>>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    armed: bool,
}

impl Connection {
    /// Serves the client to the end of its connection.
    pub(crate) async fn serve(self, mut stream: Box<Downstream>) {
        let config = self.service.shared().config.connections.clone();
        if stream.speaks_http2() {
            return Box::pin(self.http2(stream)).await;
        }
        let mut waits = Waits::new(config.idle_timeout, &self.closing);
        loop {
            let returns = match self.hits(&mut stream, &mut waits, &config).await {
                Turn::Pingora { returns } => returns,
                Turn::Over | Turn::Partly(_) => return,
                Turn::Bad(bad) => return stream.dismiss(bad.status(), bad.reason(), bad.message()).await,
                Turn::Http2 => return Box::pin(self.http2(stream)).await,
            };
            // Boxed: a connection that idles, or that is only ever hit, is so much smaller.
            match Box::pin(self.through_pingora(stream, returns)).await {
                Some(back) => stream = back,
                None => return,
            }
            waits.idle_until = Instant::now() + config.idle_timeout;
        }
    }

    /// Pingora's own loop over the requests of a connection, left after the first one where it `returns`.
    async fn through_pingora(&self, stream: Box<Downstream>, returns: bool) -> Option<Box<Downstream>> {
        let closing = self.closing.watch();
        let mut session = ServerSession::new_http1(stream);
        // Any time but none keeps the connection; the service sets the configured one.
        session.set_keepalive(if self.closing.is_closing() { None } else { Some(60) });
        loop {
            let (stream, settings) = self.proxy.process_new_http(session, &closing).await?.consume();
            if returns {
                return self.back(stream);
            }
            session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
        }
    }

    fn back(&self, stream: Stream) -> Option<Box<Downstream>> {
        let back = stream.into_any().downcast().ok();
        if back.is_none() {
            tracing::error!("Pingora gave back another stream than it was given; the connection is closed");
        }
        back
    }

    /// Answers hits until something else comes.
    async fn hits(&self, stream: &mut Downstream, waits: &mut Waits, config: &ConnectionConfig) -> Turn {
        loop {
            match poll_fn(|cx| self.poll_turn(cx, stream, waits, config)).await {
                Turn::Partly(rest) => {
                    if !self.finish(stream, rest, config.write_timeout).await {
                        return Turn::Over;
                    }
                    waits.idle_until = Instant::now() + config.idle_timeout;
                }
                turn => return turn,
            }
        }
    }

    fn poll_turn(
        &self,
        cx: &mut Context<'_>,
        stream: &mut Downstream,
        waits: &mut Waits,
        config: &ConnectionConfig,
    ) -> Poll<Turn> {
        let mut scratch = SCRATCH.take().unwrap_or_else(Scratch::new);
        let turn = self.poll_with(cx, stream, waits, config, &mut scratch);
        SCRATCH.set(Some(scratch));
        turn
    }

    fn poll_with(
        &self,
        cx: &mut Context<'_>,
        stream: &mut Downstream,
        waits: &mut Waits,
        config: &ConnectionConfig,
        scratch: &mut Scratch,
    ) -> Poll<Turn> {
        loop {
            // What is left of an earlier read comes first; where it is no whole head, more is read behind it.
            let mut held = stream.take_unread();
            let Scratch { input, head, headers } = &mut *scratch;
            let mut parsed = if held.is_empty() { Head::Partial } else { head::parse(&held, headers) };
            let mut fresh: &[u8] = &[];
            if matches!(parsed, Head::Partial) {
                let mut buffer = ReadBuf::new(input);
                match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                    Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                    Poll::Ready(_) => return Poll::Ready(Turn::Over),
                    Poll::Pending => {
                        if !held.is_empty() {
                            stream.put_unread(held);
                        }
                        return waits.poll_end(cx, &self.closing).map(|()| Turn::Over);
                    }
                }
                let length = buffer.filled().len();
                fresh = input.get(..length).unwrap_or_default();
                if held.is_empty() {
                    parsed = head::parse(fresh, headers);
                } else {
                    held.extend_from_slice(fresh);
                    fresh = &[];
                    parsed = head::parse(&held, headers);
                }
            }
            let (prepared, lent, returns) = match parsed {
                Head::Partial => {
                    let bytes = if held.is_empty() { BytesMut::from(fresh) } else { held };
                    stream.put_unread(bytes);
                    continue;
                }
                Head::Bad(bad) => return Poll::Ready(Turn::Bad(bad)),
                Head::Preface => {
                    let bytes = if held.is_empty() { BytesMut::from(fresh) } else { held };
                    stream.put_unread(bytes);
                    return Poll::Ready(Turn::Http2);
                }
                Head::Whole { length, bodyless } => (None, length, bodyless),
                Head::Plain { length, method, path, query } => {
                    let asked = Asked { method: &method, path, query, authority: None, headers };
                    let mut exchange = Exchange::new(self.service.shared().snapshots.current());
                    exchange.client = Some(stream.client());
                    let keep_alive = !self.closing.is_closing();
                    head.clear();
                    match self.compose(
                        asked,
                        &mut exchange,
                        Way { keep_alive, sends_files: stream.sends_files() },
                        head,
                    ) {
                        Some(hit) => {
                            let left = if held.is_empty() {
                                BytesMut::from(fresh.get(length..).unwrap_or_default())
                            } else {
                                held.advance(length);
                                held
                            };
                            stream.expect_head();
                            if !left.is_empty() {
                                stream.put_unread(left);
                            }
                            if let Some(turn) = self.send(cx, stream, hit, head, keep_alive) {
                                return Poll::Ready(turn);
                            }
                            waits.idle_until = Instant::from_std(exchange.started) + config.idle_timeout;
                            continue;
                        }
                        None => (Some(exchange), length, true),
                    }
                }
            };
            let bytes = if held.is_empty() { BytesMut::from(fresh) } else { held };
            stream.lend(bytes, lent, prepared);
            return Poll::Ready(Turn::Pingora { returns });
        }
    }

    /// The steps of the service up to the answer. `None`: `exchange` says how far they came.
    fn compose(&self, asked: Asked<'_>, exchange: &mut Exchange, way: Way, out: &mut Vec<u8>) -> Option<Hit> {
        let admitted = self.service.admit(asked, exchange);
        let is_here = matches!(admitted, Ok(Course::Here)) && exchange.pending.is_empty();
        exchange.admitted = Some(admitted);
        if !is_here {
            return None;
        }
        if debug::is_asked(self.service.shared(), asked.headers) {
            return None;
        }
        let looked = self.service.look(asked, exchange).ok()?;
        let hit = Hit::compose(self.service.shared(), exchange, asked, &looked, way, out);
        exchange.looked = if hit.is_none() { Some(looked) } else { None };
        hit
    }

    /// Writes as much as the kernel takes now. `None`: all of it.
    fn send(&self, cx: &mut Context<'_>, stream: &mut Downstream, hit: Hit, head: &[u8], keep: bool) -> Option<Turn> {
        let shared = self.service.shared();
        let written = match poll_write(cx, stream, head, &hit, 0) {
            Poll::Ready(Ok(written)) => written,
            Poll::Pending => 0,
            Poll::Ready(Err(_)) => {
                hit.over(shared, false, 0);
                return Some(Turn::Over);
            }
        };
        let length = hit.body.len();
        if written == head.len() + length {
            hit.over(shared, true, length as u64);
            return (!keep).then_some(Turn::Over);
        }
        let sent = written.saturating_sub(head.len());
        let head = head.get(written.min(head.len())..).unwrap_or_default().to_vec();
        Some(Turn::Partly(Rest { head, hit, sent }))
    }

    /// Writes what is left, within the client's write time-out. Whether all of it was taken.
    async fn finish(&self, stream: &mut Downstream, rest: Rest, patience: Duration) -> bool {
        let Rest { head, hit, mut sent } = rest;
        let mut head = head.as_slice();
        let length = hit.body.len();
        let write = async {
            while !head.is_empty() || sent < length {
                let written = match poll_fn(|cx| poll_write(cx, stream, head, &hit, sent)).await {
                    Ok(written) if written > 0 => written,
                    _ => return false,
                };
                let of_head = written.min(head.len());
                head.advance(of_head);
                sent += written - of_head;
            }
            true
        };
        let complete = tokio::time::timeout(patience, write).await.unwrap_or(false);
        hit.over(self.service.shared(), complete, sent as u64);
        complete && !self.closing.is_closing()
    }
}

/// Writes what is left of an answer: `head`, and its body but for the first `sent` bytes. Ready with how much of both
/// the kernel took.
fn poll_write(
    cx: &mut Context<'_>,
    stream: &mut Downstream,
    head: &[u8],
    hit: &Hit,
    sent: usize,
) -> Poll<io::Result<usize>> {
    let body = hit.body.get(sent..).unwrap_or_default();
    if let Some((file, first)) = &hit.file
        && let Some(written) =
            stream.poll_answer_file(cx, head, file.descriptor().as_fd(), first + sent as u64, body.len())
    {
        return written;
    }
    stream.poll_answer(cx, &[IoSlice::new(head), IoSlice::new(body)])
}

impl Scratch {
    fn new() -> Box<Self> {
        let input = vec![0; READ_BYTES].into_boxed_slice();
        Box::new(Self { input, head: Vec::with_capacity(1024), headers: HeaderMap::with_capacity(16) })
    }
}

impl Waits {
    fn new(idle: Duration, closing: &Closing) -> Self {
        let idle_until = Instant::now() + idle;
        let clock = Box::pin(tokio::time::sleep_until(idle_until));
        Self { idle_until, clock, closing: Box::pin(closing.begun()), armed: false }
    }

    /// Ready when the connection has idled for too long, or the edge closes. Both wakers are set once: a connection
    /// is one task, whose waker stays the same, and what they wake it for is also seen without asking them.
    fn poll_end(&mut self, cx: &mut Context<'_>, closing: &Closing) -> Poll<()> {
        if !self.armed {
            self.armed = true;
            if self.closing.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let _registered = self.clock.as_mut().poll(cx);
        }
        if closing.is_closing() {
            return Poll::Ready(());
        }
        while self.clock.is_elapsed() {
            if Instant::now() >= self.idle_until {
                return Poll::Ready(());
            }
            self.clock.as_mut().reset(self.idle_until);
            let _registered = self.clock.as_mut().poll(cx);
        }
        Poll::Pending
    }
}
