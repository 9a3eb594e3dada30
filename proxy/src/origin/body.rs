//! The body of an origin's answer, read piece by piece.
//!
//! Invariants: the origin's turn is held until the body is read or dropped; only a connection whose body was read to
//! its end goes back to the pool.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use pingora_core::protocols::http::v1::client::HttpSession;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Origin;
use crate::refusal::OriginFailure;

/// S3's error documents are some hundred bytes; more is not read.
const ERROR_DOCUMENT_MAX: usize = 8 * 1024;

/// See the module.
pub(crate) struct OriginBody {
    origin: Arc<Origin>,
    /// `None` once it is back in the pool.
    session: Option<HttpSession>,
    address: SocketAddr,
    deadline: Instant,
    turn: OwnedSemaphorePermit,
}

impl OriginBody {
    pub(super) fn new(
        origin: Arc<Origin>,
        session: HttpSession,
        address: SocketAddr,
        deadline: Instant,
        turn: OwnedSemaphorePermit,
    ) -> Self {
        Self { origin, session: Some(session), address, deadline, turn }
    }

    /// The next piece; `None` at the end that the origin's framing declares.
    ///
    /// # Errors
    /// The body was cut, stalled, or took too long as a whole.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, OriginFailure> {
        let Some(session) = self.session.as_mut() else { return Ok(None) };
        let failure = match tokio::time::timeout_at(self.deadline, session.read_body_bytes()).await {
            Ok(Ok(Some(piece))) => return Ok(Some(piece)),
            Ok(Ok(None)) => {
                if let Some(mut session) = self.session.take() {
                    session.respect_keepalive();
                    if let Some(stream) = session.reuse().await {
                        self.origin.pool.put(stream, self.address);
                    }
                }
                return Ok(None);
            }
            Ok(Err(error)) => self.origin.failed("read", &error),
            Err(_) => OriginFailure::Timeout,
        };
        self.session = None;
        self.origin.metrics.origin_error(&self.origin.name, failure);
        Err(failure)
    }

    /// Reads a small body that nobody needs, so that its connection can be used again.
    pub(crate) async fn discard(mut self) {
        let mut read = 0;
        while let Ok(Some(piece)) = self.piece().await {
            read += piece.len();
            if read > ERROR_DOCUMENT_MAX {
                return;
            }
        }
    }

    /// Drops the answer and gives the turn back for another attempt.
    pub(super) fn give_up(self) -> OwnedSemaphorePermit {
        self.turn
    }

    /// The `<Code>` of an S3 error document. The body is read, so that its connection can be used again.
    pub(super) async fn s3_error_code(mut self) -> (Option<String>, Self) {
        let mut document = Vec::new();
        while let Ok(Some(piece)) = self.piece().await {
            document.extend_from_slice(&piece);
            if document.len() > ERROR_DOCUMENT_MAX {
                break;
            }
        }
        let text = String::from_utf8_lossy(&document);
        let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
        (code.map(str::to_owned), self)
    }
}
