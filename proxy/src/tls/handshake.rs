//! A handshake: bounded in time, and in how many compute at once.
//!
//! Purpose: a handshake's signature and key exchange cost as much as twenty hits. Whoever computes one holds a turn,
//! and there are fewer turns than threads; a client that is waited for holds none, so that slow ones delay nobody.
//!
//! On failure: [`Failure`], whose reason is the metric's label; the connection is closed.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::Error;
use tokio::net::TcpStream;

use super::Tls;
use crate::transport::{Broken, TlsStream};

/// Why a handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It took longer than `handshake_timeout`, for the client or for the turns that it had to wait for.
    Timeout,
    /// The client left, or the socket failed.
    Gone,
    /// What came is not TLS: most often plain HTTP.
    NotTls,
    /// No version, algorithm or protocol that both speak.
    Incompatible,
    /// The client refused: most often it does not trust the certificate.
    RefusedByClient,
    /// The client broke the protocol.
    Misbehaved,
    /// A defect of ours, or of the algorithms.
    Internal,
}

impl Failure {
    /// The word in the metric.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Gone => "gone",
            Self::NotTls => "not-tls",
            Self::Incompatible => "incompatible",
            Self::RefusedByClient => "refused-by-client",
            Self::Misbehaved => "misbehaved",
            Self::Internal => "internal",
        }
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Gone => Self::Gone,
            Broken::Records(error) => error.into(),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidMessage(_) => Self::NotTls,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::Incompatible,
            Error::AlertReceived(_) => Self::RefusedByClient,
            Error::PeerMisbehaved(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerSentOversizedRecord
            | Error::DecryptError => Self::Misbehaved,
            _ => Self::Internal,
        }
    }
}

impl Tls {
    /// Shakes hands with the client on `tcp`, from which `early` was read already.
    ///
    /// # Errors
    /// [`Failure`], which is counted already.
    pub(crate) async fn accept(&self, tcp: TcpStream, early: BytesMut) -> Result<TlsStream, Failure> {
        let shaken = tokio::time::timeout(self.timeout, self.shake_hands(tcp, early)).await;
        let result = shaken.unwrap_or(Err(Failure::Timeout));
        match &result {
            Ok(_) => self.metrics.door.tls_handshakes.add(1),
            Err(failure) => {
                self.metrics.door.handshake_failed(failure.reason());
                tracing::debug!(reason = failure.reason(), "a handshake failed");
            }
        }
        result
    }

    async fn shake_hands(&self, tcp: TcpStream, early: BytesMut) -> Result<TlsStream, Failure> {
        let mut stream = TlsStream::new(tcp, early, Arc::clone(&self.config))?;
        while stream.is_handshaking() {
            stream.readable().await?;
            let turn = self.turns.acquire().await.map_err(|_| Failure::Internal)?;
            let advanced = stream.advance()?;
            drop(turn);
            if advanced {
                poll_fn(|cx| stream.poll_send(cx)).await?;
            }
        }
        poll_fn(|cx| stream.poll_send(cx)).await?;
        Ok(stream)
    }
}
