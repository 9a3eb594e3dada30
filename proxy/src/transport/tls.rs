//! TLS records between a client's socket and its plain bytes, over rustls.
//!
//! Purpose: an answer is sealed straight from its parts, one copy in all, and its records leave in as few system calls
//! as the kernel allows; an idle connection holds one read buffer of rustls (4 KiB) and no other.
//!
//! Invariants:
//! - At most [`SEALED_MAX`] bytes of plaintext are sealed ahead of what the kernel has taken.
//! - `close_notify` (RFC 8446, section 6.1) is sent once, and only behind records that left whole.
//!
//! On failure: records that cannot be opened get their alert, as far as the kernel takes it at once, and end the
//! connection.

use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Plaintext that is sealed before it is handed to the kernel: whole records of 16 KiB. Enough for one system call to
/// be cheap beside its bytes, and little enough that what was sealed is still in the processor's cache.
const SEALED_MAX: usize = 4 * RECORD_BYTES;

/// Plaintext of the largest record (RFC 8446, section 5.1).
const RECORD_BYTES: usize = 16 * 1024;

/// An answer is a head and a body.
const PARTS_MAX: usize = 4;

/// One client's TLS session on its socket.
pub(crate) struct TlsStream {
    tcp: TcpStream,
    session: ServerConnection,
    /// Bytes that were read from the socket before the session began.
    early: BytesMut,
    /// Plaintext of an answer that is sealed, and whose records the kernel has not all taken.
    sealed: usize,
    /// Neither side may say another word.
    broken: bool,
}

impl TlsStream {
    /// A session that has yet to shake hands. `early`: bytes that were read from `tcp` already.
    ///
    /// # Errors
    /// As `rustls` finds the configuration unusable.
    pub(crate) fn new(tcp: TcpStream, early: BytesMut, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut session = ServerConnection::new(config)?;
        // The bound is `SEALED_MAX`, which is held here and counts whole records.
        session.set_buffer_limit(None);
        Ok(Self { tcp, session, early, sealed: 0, broken: false })
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    /// Whether the handshake still waits for the client.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Resolves when the client has sent something.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        if self.early.is_empty() { self.tcp.readable().await } else { Ok(()) }
    }

    /// Takes in what the client has sent of its handshake, and computes the reply. Waits for nothing; `false` where
    /// nothing was there.
    ///
    /// # Errors
    /// [`Broken`]
    pub(crate) fn advance(&mut self) -> Result<bool, Broken> {
        let read = if self.early.is_empty() { self.session.read_tls(&mut Now(&self.tcp)) } else { self.read_early() };
        match read {
            Ok(0) => Err(Broken::Io(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => self.open().map(|()| true).map_err(Broken::Records),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(Broken::Io(error)),
        }
    }

    fn read_early(&mut self) -> io::Result<usize> {
        let read = self.session.read_tls(&mut &self.early[..])?;
        self.early.advance(read);
        if self.early.is_empty() {
            self.early = BytesMut::new();
        }
        Ok(read)
    }

    /// Opens the records that were read.
    fn open(&mut self) -> Result<(), rustls::Error> {
        let opened = self.session.process_new_packets();
        if opened.is_err() {
            self.broken = true;
            // The alert that says why.
            let _ = self.session.write_tls(&mut Now(&self.tcp));
        }
        opened.map(drop)
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.session.reader().read(out.initialize_unfilled()) {
                Ok(read) => {
                    out.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            if self.early.is_empty() {
                match self.session.read_tls(&mut Task { tcp: &mut self.tcp, cx: &mut *cx }) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                    Err(error) => return Poll::Ready(Err(error)),
                }
            } else {
                self.read_early()?;
            }
            self.open().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if self.session.wants_write() {
                // A reply to the client's own change of keys. Where the kernel is full, it leaves with the next answer.
                let _later = self.poll_send(cx)?;
            }
        }
    }

    /// Seals `parts`, or the front of them. What was sealed before has left then.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let written = self.seal(parts, 0)?;
        // What the kernel does not take now leaves with the next write, or with the flush.
        let _later = self.poll_send(cx)?;
        Poll::Ready(Ok(written))
    }

    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let whole: usize = parts.iter().map(|part| part.len()).sum();
        let mut taken = 0;
        loop {
            if self.poll_send(cx)?.is_pending() {
                return if taken > 0 { Poll::Ready(Ok(taken)) } else { Poll::Pending };
            }
            taken += std::mem::take(&mut self.sealed);
            if taken >= whole {
                return Poll::Ready(Ok(taken));
            }
            self.sealed = self.seal(parts, taken)?;
        }
    }

    /// Seals up to [`SEALED_MAX`] bytes of `parts`, behind the first `skip`.
    fn seal(&mut self, parts: &[IoSlice<'_>], skip: usize) -> io::Result<usize> {
        let (mut skip, mut room) = (skip, SEALED_MAX);
        let mut window = [IoSlice::new(&[]); PARTS_MAX];
        for (place, part) in window.iter_mut().zip(parts) {
            let rest = part.get(skip.min(part.len())..).unwrap_or_default();
            let rest = rest.get(..room.min(rest.len())).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            room -= rest.len();
            *place = IoSlice::new(rest);
        }
        let window = window.get(..parts.len().min(PARTS_MAX)).unwrap_or_default();
        match self.session.writer().write_vectored(window)? {
            0 if room < SEALED_MAX => Err(io::ErrorKind::WriteZero.into()),
            sealed => Ok(sealed),
        }
    }

    /// Hands records to the kernel until it has them all.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Task { tcp: &mut self.tcp, cx: &mut *cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => {
                    self.broken = true;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        if !std::mem::replace(&mut self.broken, true) {
            self.session.send_close_notify();
            ready!(self.poll_send(cx))?;
        }
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    pub(super) fn write_now(&mut self, data: &[u8]) {
        if self.session.writer().write_all(data).is_ok() {
            let _ = self.session.write_tls(&mut Now(&self.tcp));
        }
    }
}

impl Drop for TlsStream {
    /// The client is told that this is the end, where nothing is cut by it.
    fn drop(&mut self) {
        if !self.broken && !self.session.is_handshaking() && !self.session.wants_write() {
            self.session.send_close_notify();
            let _ = self.session.write_tls(&mut Now(&self.tcp));
        }
    }
}

/// Why a session could not go on.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The socket failed, or the client left.
    Io(io::Error),
    /// What the client sent is no TLS, or none that the edge speaks.
    Records(rustls::Error),
}

/// The socket as it is this moment.
struct Now<'s>(&'s TcpStream);

impl Read for Now<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(out)
    }
}

impl Write for Now<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.try_write(data)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The socket within a task, which is woken when the socket is ready.
struct Task<'s, 'c, 'w> {
    tcp: &'s mut TcpStream,
    cx: &'c mut Context<'w>,
}

fn now<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Read for Task<'_, '_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(out);
        now(Pin::new(&mut *self.tcp).poll_read(self.cx, &mut buffer))?;
        Ok(buffer.filled().len())
    }
}

impl Write for Task<'_, '_, '_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        now(Pin::new(&mut *self.tcp).poll_write(self.cx, data))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        now(Pin::new(&mut *self.tcp).poll_write_vectored(self.cx, parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
