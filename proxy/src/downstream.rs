//! The byte stream of one client connection, as Pingora reads and writes it.
//!
//! Purpose: what Pingora leaves open at this height. A response head waits for the body's first bytes and leaves
//! with them in one `writev`, without a copy of the body; there is no buffer per connection, so an idle one costs
//! little. A request head has a bound in bytes and in time, and what breaks the bound is told so.
//!
//! Invariants:
//! - `poll_flush` is ready only when the kernel has taken every byte: a fact may be called complete after it.
//! - While [`Downstream::awaits_head`] holds, at most `head_max` bytes are handed on, and the head's clock runs from
//!   its second read. The service ends that state when it has the head, and begins it again when it has answered.
//!
//! On failure: a head that is too long or too slow gets 431, 414 or 408 with the reason word, straight from here;
//! what the client still sends is drained for a bounded while, so that the answer is not lost to a reset.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::config::ConnectionConfig;
use crate::exchange::Exchange;
use crate::lock::Mutex;
use crate::metrics::Metrics;
use crate::transport::Transport;

/// Writes up to this size may be a response head; a larger first write is a body already.
const HEAD_WRITE_MAX: usize = 16 * 1024;

/// How much of a refused request is read away, and for how long, before the connection ends.
const DRAIN_BYTES: usize = 1 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// One client connection.
pub(crate) struct Downstream {
    transport: Transport,
    client: IpAddr,
    digest: Arc<SocketDigest>,
    metrics: Arc<Metrics>,
    head_max: u64,
    head_timeout: Duration,
    /// A head is expected or arriving. Shared with the service, which sees this stream by reference alone.
    awaits_head: AtomicBool,
    head_seen: AtomicU64,
    /// Whether the request line's end was seen; tells 414 from 431.
    line_ended: bool,
    head_clock: Option<Pin<Box<Sleep>>>,
    drain: Option<usize>,
    /// A response head that waits for its body.
    held: BytesMut,
    /// The next write is the first since a request was read, hence a response head.
    head_is_next: bool,
    /// HTTP/2: there are no heads to bound or to hold, and frames are written in parts.
    frames: bool,
    /// Bytes that the connection has read and nobody has used yet.
    unread: BytesMut,
    /// How many of them Pingora gets before it has to wait for a turn of its own: a head and not a byte more, so
    /// that nothing of the next request is left behind in it.
    lent: usize,
    /// What the connection has found out about the request that it leaves to Pingora.
    prepared: Mutex<Option<Box<Exchange>>>,
}

impl fmt::Debug for Downstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Downstream").field("fd", &self.transport.as_raw_fd()).finish_non_exhaustive()
    }
}

impl Downstream {
    /// `client`: who is on the other end, as far as the connection itself tells.
    pub(crate) fn new(
        transport: Transport,
        client: SocketAddr,
        config: &ConnectionConfig,
        metrics: Arc<Metrics>,
    ) -> Self {
        let tcp = transport.tcp();
        // A head and its body leave in one write; waiting for an acknowledgement would only delay the last packet.
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        let digest = Arc::new(SocketDigest::from_raw_fd(tcp.as_raw_fd()));
        let _ = digest.peer_addr.set(Some(pingora_core::protocols::l4::socket::SocketAddr::Inet(client)));
        Self {
            transport,
            client: client.ip(),
            digest,
            metrics,
            head_max: config.head_max,
            head_timeout: config.head_timeout,
            awaits_head: AtomicBool::new(true),
            head_seen: AtomicU64::new(0),
            line_ended: false,
            head_clock: None,
            drain: None,
            held: BytesMut::new(),
            head_is_next: true,
            frames: false,
            unread: BytesMut::new(),
            lent: 0,
            prepared: Mutex::new(None),
        }
    }

    /// The client's address, as far as the connection itself tells: a header may know better.
    pub(crate) fn client(&self) -> IpAddr {
        self.client
    }

    /// Whether client and edge agreed on HTTP/2 (RFC 9113, section 3.2).
    pub(crate) fn speaks_http2(&self) -> bool {
        self.transport.alpn() == Some(b"h2")
    }

    /// What follows is HTTP/2, whose frames have bounds of their own.
    pub(crate) fn carries_frames(&mut self) {
        self.frames = true;
        self.head_is_next = false;
        self.head_is_read();
    }

    /// Takes what was read and not used.
    pub(crate) fn take_unread(&mut self) -> BytesMut {
        std::mem::take(&mut self.unread)
    }

    /// Puts bytes in front of what the client sends next; they are the beginning of a request head.
    pub(crate) fn put_unread(&mut self, bytes: BytesMut) {
        self.head_seen.store(bytes.len() as u64, Ordering::Relaxed);
        self.unread = bytes;
    }

    /// Leaves the request at the front of `bytes` to Pingora: the first `lent` of them at once.
    pub(crate) fn lend(&mut self, bytes: BytesMut, lent: usize, prepared: Option<Exchange>) {
        self.lent = lent.min(bytes.len());
        self.unread = bytes;
        *self.prepared.lock() = prepared.map(Box::new);
    }

    /// What [`Downstream::lend`] was given, once.
    pub(crate) fn take_prepared(&self) -> Option<Exchange> {
        self.prepared.lock().take().map(|prepared| *prepared)
    }

    /// Writes head and body of an answer in one call, past the held head of Pingora's answers.
    pub(crate) fn poll_answer(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_write_held(cx))?;
        self.transport.poll_answer(cx, parts)
    }

    /// Whether [`Downstream::poll_answer_file`] has an advantage.
    pub(crate) fn sends_files(&self) -> bool {
        self.transport.sends_files()
    }

    /// As [`Downstream::poll_answer`], with the body in a file. `None`: this connection takes bytes alone.
    pub(crate) fn poll_answer_file(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
    ) -> Option<Poll<io::Result<usize>>> {
        match self.poll_write_held(cx) {
            Poll::Ready(Ok(())) => self.transport.poll_answer_file(cx, head, file, offset, length),
            Poll::Ready(Err(error)) => Some(Poll::Ready(Err(error))),
            Poll::Pending => Some(Poll::Pending),
        }
    }

    fn read_unread(&mut self, out: &mut ReadBuf<'_>) {
        let most = if self.lent > 0 { self.lent } else { self.unread.len() };
        let part = self.unread.split_to(most.min(out.remaining()));
        self.lent = self.lent.saturating_sub(part.len());
        out.put_slice(&part);
        if self.unread.is_empty() {
            // A connection that idles holds no buffer.
            self.unread = BytesMut::new();
        }
    }

    /// The service has the request head: what follows is a body, bounded elsewhere.
    pub(crate) fn head_is_read(&self) {
        self.awaits_head.store(false, Ordering::Relaxed);
    }

    /// The request is answered: what follows is a head again.
    pub(crate) fn expect_head(&self) {
        self.head_seen.store(0, Ordering::Relaxed);
        self.awaits_head.store(true, Ordering::Relaxed);
    }

    /// Refuses whatever the client began, straight from here, and lets it go.
    pub(crate) async fn dismiss(&mut self, status: &'static str, reason: &'static str, message: &'static str) {
        self.refuse_head(status, reason, message);
        let drained = poll_fn(|cx| self.poll_drain(cx, self.drain.unwrap_or_default())).await;
        tracing::debug!(reason, ?drained, "a request was no request");
    }

    /// Answers in the service's place and turns to draining.
    fn refuse_head(&mut self, status: &'static str, reason: &'static str, message: &'static str) {
        self.metrics.refused(reason, status.get(..1).unwrap_or("4"));
        let body = format!("{{\"error\":\"{reason}\",\"message\":\"{message}\"}}");
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        // Nothing else was written since the last flush, so the kernel's buffer takes this small answer whole.
        self.transport.write_now(answer.as_bytes());
        self.drain = Some(DRAIN_BYTES);
        self.head_clock = Some(Box::pin(tokio::time::sleep(DRAIN_TIME)));
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, left: usize) -> Poll<io::Result<()>> {
        let mut left = left;
        // The client sees at once that this was all; what it still sends is read so that no reset overtakes the answer.
        let _begun = Pin::new(&mut self.transport).poll_shutdown(cx);
        let mut scratch = [0_u8; 8192];
        let over = || Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the request head broke its bounds")));
        loop {
            if self.head_clock.as_mut().is_some_and(|clock| clock.as_mut().poll(cx).is_ready()) {
                return over();
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut self.transport).poll_read(cx, &mut buffer);
            let got = buffer.filled().len();
            match read {
                Poll::Pending => {
                    self.drain = Some(left);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) if got > 0 && got < left => left -= got,
                Poll::Ready(_) => return over(),
            }
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let seen = self.head_seen.load(Ordering::Relaxed);
        if seen == 0 {
            self.line_ended = false;
            self.head_clock = None;
        } else {
            // The head did not come in one piece: from here on it is timed.
            let timeout = self.head_timeout;
            let clock = self.head_clock.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
            if clock.as_mut().poll(cx).is_ready() {
                self.refuse_head("408 Request Timeout", "head-too-slow", "the request head took too long");
                return self.poll_drain(cx, DRAIN_BYTES);
            }
        }
        let Some(room) = self.head_max.checked_sub(seen).filter(|room| *room > 0) else {
            if self.line_ended {
                let status = "431 Request Header Fields Too Large";
                self.refuse_head(status, "headers-too-long", "the request headers are too long");
            } else {
                self.refuse_head("414 URI Too Long", "target-too-long", "the URL is too long");
            }
            return self.poll_drain(cx, DRAIN_BYTES);
        };
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let before = out.filled().len();
        if room >= out.remaining() {
            ready!(Pin::new(&mut self.transport).poll_read(cx, out))?;
        } else {
            // Near the bound only: a limited view costs the zeroing of its memory.
            let mut limited = ReadBuf::new(out.initialize_unfilled_to(room));
            ready!(Pin::new(&mut self.transport).poll_read(cx, &mut limited))?;
            let got = limited.filled().len();
            out.advance(got);
        }
        let new = out.filled().get(before..).unwrap_or_default();
        self.line_ended = self.line_ended || new.contains(&b'\n');
        self.head_seen.store(seen + new.len() as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_write_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.transport).poll_write(cx, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Downstream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.head_is_next = !this.frames;
        if let Some(left) = this.drain {
            return this.poll_drain(cx, left);
        }
        if !this.unread.is_empty() {
            this.read_unread(out);
            return Poll::Ready(Ok(()));
        }
        if this.awaits_head.load(Ordering::Relaxed) {
            return this.poll_head(cx, out);
        }
        Pin::new(&mut this.transport).poll_read(cx, out)
    }
}

impl AsyncWrite for Downstream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.head_is_next && this.held.is_empty() && data.len() <= HEAD_WRITE_MAX {
            this.head_is_next = false;
            this.held.extend_from_slice(data);
            return Poll::Ready(Ok(data.len()));
        }
        this.head_is_next = false;
        while !this.held.is_empty() {
            let both = [IoSlice::new(&this.held), IoSlice::new(data)];
            let written = ready!(Pin::new(&mut this.transport).poll_write_vectored(cx, &both))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let head = written.min(this.held.len());
            this.held.advance(head);
            if written > head {
                return Poll::Ready(Ok(written - head));
            }
        }
        Pin::new(&mut this.transport).poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.frames {
            return Pin::new(&mut self.get_mut().transport).poll_write_vectored(cx, parts);
        }
        let first = parts.iter().find(|part| !part.is_empty());
        self.poll_write(cx, first.map_or(&[][..], |part| part))
    }

    fn is_write_vectored(&self) -> bool {
        self.frames
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_held(cx))?;
        Pin::new(&mut this.transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_held(cx))?;
        Pin::new(&mut this.transport).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Downstream {
    async fn shutdown(&mut self) {
        if let Err(error) = tokio::io::AsyncWriteExt::shutdown(self).await {
            tracing::debug!(%error, "the client was gone before its connection was shut down");
        }
    }
}

impl UniqueID for Downstream {
    fn id(&self) -> UniqueIDType {
        self.transport.as_raw_fd()
    }
}

impl Ssl for Downstream {}

impl Peek for Downstream {}

impl GetTimingDigest for Downstream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Downstream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Downstream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}
