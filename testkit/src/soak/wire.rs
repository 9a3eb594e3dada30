//! An HTTP/1.1 client that sees every byte and retries nothing (RFC 9112).
//!
//! On failure: an answer that ends early is an answer with [`Answer::whole`] false; what cannot be read as HTTP is an error.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than every patience of the edge: who waits longer has been forgotten.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const HEAD_MAX: usize = 64 * 1024;

/// One connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: BytesMut,
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The body ended where the head said that it would.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether the connection may serve another request.
    pub(crate) fn keeps(&self) -> bool {
        self.whole && !self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = tokio::time::timeout(ANSWER_WITHIN, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::new() })
    }

    pub(crate) async fn ask(&mut self, request: &str, is_head: bool) -> anyhow::Result<Answer> {
        tokio::time::timeout(ANSWER_WITHIN, self.exchange(request.as_bytes(), is_head))
            .await
            .context("no answer in time")?
    }

    /// A request of any bytes. Who is refused may hear of it before all of it was sent.
    pub(crate) async fn ask_bytes(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        match self.exchange(request, false).await {
            Err(error)
                if error
                    .downcast_ref::<std::io::Error>()
                    .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) =>
            {
                self.exchange(&[], false).await
            }
            answer => answer,
        }
    }

    /// Sends a request, reads so much of the answer, and leaves.
    pub(crate) async fn ask_and_leave(mut self, request: &[u8], after: usize) -> anyhow::Result<()> {
        self.stream.write_all(request).await?;
        while self.buffer.len() < after && self.more().await? {}
        Ok(())
    }

    async fn exchange(&mut self, request: &[u8], is_head: bool) -> anyhow::Result<Answer> {
        self.stream.write_all(request).await?;
        let mut answer = self.head().await?;
        if is_head || matches!(answer.status, 204 | 304) {
            answer.whole = true;
            return Ok(answer);
        }
        if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            self.chunks(&mut answer).await?;
        } else {
            let length = answer.header("content-length").context("an answer without a length")?.parse()?;
            answer.whole = self.take(length, &mut answer.body).await?;
        }
        Ok(answer)
    }

    async fn head(&mut self) -> anyhow::Result<Answer> {
        let end = self.find(b"\r\n\r\n", HEAD_MAX).await?.context("the connection ended before a head")?;
        let head = self.buffer.split_to(end + 4);
        let text = std::str::from_utf8(&head).context("a head that is not text")?;
        let mut lines = text.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).context("no status line")?;
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Answer { status, headers, ..Answer::default() })
    }

    async fn chunks(&mut self, answer: &mut Answer) -> anyhow::Result<()> {
        loop {
            let Some(end) = self.find(b"\r\n", HEAD_MAX).await? else { return Ok(()) };
            let line = self.buffer.split_to(end + 2);
            let size = std::str::from_utf8(&line)?.trim().split(';').next().unwrap_or_default().to_owned();
            let length = usize::from_str_radix(&size, 16).with_context(|| format!("{size:?} is no chunk size"))?;
            let mut end = Vec::new();
            if !self.take(length, &mut answer.body).await? || !self.take(2, &mut end).await? {
                return Ok(());
            }
            if length == 0 {
                answer.whole = true;
                return Ok(());
            }
        }
    }

    /// Moves `length` bytes to `into`; false where the connection ends before.
    async fn take(&mut self, length: usize, into: &mut Vec<u8>) -> anyhow::Result<bool> {
        let mut left = length;
        while left > 0 {
            if self.buffer.is_empty() && !self.more().await? {
                return Ok(false);
            }
            let piece = self.buffer.split_to(left.min(self.buffer.len()));
            left -= piece.len();
            into.extend_from_slice(&piece);
        }
        Ok(true)
    }

    async fn find(&mut self, mark: &[u8], within: usize) -> anyhow::Result<Option<usize>> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|window| window == mark) {
                return Ok(Some(at));
            }
            if self.buffer.len() > within {
                bail!("{} bytes without an end of line or head", self.buffer.len());
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// False at the end; a reset is an end too.
    async fn more(&mut self) -> anyhow::Result<bool> {
        self.buffer.reserve(64 * 1024);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(read) => Ok(read > 0),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
