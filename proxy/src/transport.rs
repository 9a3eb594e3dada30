//! What carries the bytes of one client connection: TCP itself, or TLS over it.
//!
//! Purpose: everything above (`downstream.rs` and what it serves) speaks of plain bytes and of what the kernel has
//! taken; only here is it known that there may be records between.
//!
//! Invariants:
//! - [`Transport::poll_flush`] is ready only when the kernel has taken every byte that was written.
//! - [`Transport::poll_answer`] counts a byte as written when the kernel has it, with TLS too.
//!
//! On failure: an error of the socket, or of the records (`InvalidData`), ends the connection.

mod tls;

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

pub(crate) use tls::TlsStream;

/// A connection's bytes.
pub(crate) enum Transport {
    /// As they stand.
    Plain(TcpStream),
    /// In TLS records.
    Tls(Box<TlsStream>),
}

impl Transport {
    /// The socket.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => stream.tcp(),
        }
    }

    /// The protocol that client and edge agreed on (RFC 7301); none without TLS.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.alpn(),
        }
    }

    /// Writes `parts` as one; says how many bytes of them the kernel has taken. What was not reported yet has to be
    /// given again, unchanged, and nothing else may be written before it.
    pub(crate) fn poll_answer(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, parts),
            Self::Tls(stream) => stream.poll_answer(cx, parts),
        }
    }

    /// Whether [`Transport::poll_answer_file`] hands over pages instead of bytes.
    pub(crate) fn sends_files(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Writes `head` and then `length` bytes of `file` from `offset` on, which the kernel sends without a copy; says
    /// how many bytes of both it has taken. `None`: not through records.
    pub(crate) fn poll_answer_file(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        file: BorrowedFd<'_>,
        offset: u64,
        length: usize,
    ) -> Option<Poll<io::Result<usize>>> {
        let Self::Plain(tcp) = self else { return None };
        Some(loop {
            match tcp.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
            match tcp.try_io(Interest::WRITABLE, || send_with_file(tcp, head, file, offset, length)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => break Poll::Ready(written),
            }
        })
    }

    /// Writes what fits at once, for a last word to a client that is about to be let go.
    pub(crate) fn write_now(&mut self, data: &[u8]) {
        // Where the kernel does not take it whole, the client loses a courtesy and still sees the connection end.
        match self {
            Self::Plain(tcp) => {
                let _ = tcp.try_write(data);
            }
            Self::Tls(stream) => stream.write_now(data),
        }
    }
}

/// Head and file in two system calls and one packet, as far as the socket takes them. `WouldBlock`: nothing at all.
fn send_with_file(tcp: &TcpStream, head: &[u8], file: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<usize> {
    let mut taken = 0;
    if !head.is_empty() {
        // The kernel holds the head back until the file's first bytes come.
        taken = rustix::net::send(tcp, head, SendFlags::MORE | SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        if taken < head.len() {
            return Ok(taken);
        }
    }
    let mut at = offset;
    let mut left = length;
    while left > 0 {
        match rustix::fs::sendfile(tcp, file, Some(&mut at), left) {
            // The file is shorter than it was said to be: whoever promised the bytes must not go on.
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(sent) => {
                taken += sent;
                left = left.saturating_sub(sent);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) if taken > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(taken)
}

impl AsRawFd for Transport {
    fn as_raw_fd(&self) -> RawFd {
        self.tcp().as_raw_fd()
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, out),
            Self::Tls(stream) => stream.poll_read(cx, out),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, data),
            Self::Tls(stream) => stream.poll_write(cx, &[IoSlice::new(data)]),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, parts),
            Self::Tls(stream) => stream.poll_write(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(stream) => stream.poll_send(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(stream) => stream.poll_shutdown(cx),
        }
    }
}
