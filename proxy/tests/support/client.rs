//! An HTTP/1.1 client over plain TCP: it tells a whole body from a cut one, and reads byte by byte where wanted.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Client<S = TcpStream> {
    pub stream: S,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// Whether the body ended as its framing says.
    pub whole: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// `Cache-Status` without its time to live, which the clock decides.
    pub fn cache_status(&self) -> String {
        let parts = self.header("cache-status").unwrap_or_default().split("; ");
        parts.filter(|part| !part.starts_with("ttl=")).collect::<Vec<_>>().join("; ")
    }

    /// The reason word of a refusal.
    pub fn reason(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["error"].as_str().unwrap_or_default().to_owned()
    }
}

impl Client {
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// A client on a connection that exists: over TLS, or behind a header of a proxy.
    pub fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub async fn get(&mut self, target: &str) -> Answer {
        self.request("GET", target, "").await
    }

    /// `headers` are whole lines, each with its line end.
    pub async fn request(&mut self, method: &str, target: &str, headers: &str) -> Answer {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: edge\r\n{headers}\r\n");
        self.send(request.as_bytes()).await;
        self.answer(method == "HEAD").await
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // An edge that refuses early may close before all is sent.
        let _ = self.stream.write_all(bytes).await;
    }

    pub async fn head(&mut self) -> String {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 4);
                return head;
            }
            if !self.more().await {
                return String::new();
            }
        }
    }

    pub async fn body(&mut self, length: usize) -> (Vec<u8>, bool) {
        while self.buffer.len() < length {
            if !self.more().await {
                return (std::mem::take(&mut self.buffer), false);
            }
        }
        (self.buffer.drain(..length).collect(), true)
    }

    pub async fn answer(&mut self, is_head: bool) -> Answer {
        let head = self.head().await;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let mut answer = Answer { status, head, body: Vec::new(), whole: true };
        if is_head || status == 304 || status == 204 || status == 0 {
            return answer;
        }
        if answer.header("transfer-encoding").is_some() {
            (answer.body, answer.whole) = self.chunks().await;
        } else {
            let length = answer.header("content-length").and_then(|length| length.parse().ok());
            let length = length.expect("every answer has a length");
            (answer.body, answer.whole) = self.body(length).await;
        }
        answer
    }

    async fn chunks(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                    break at;
                }
                if !self.more().await {
                    return (body, false);
                }
            };
            let length = usize::from_str_radix(&String::from_utf8_lossy(&self.buffer[..end]), 16).unwrap();
            self.buffer.drain(..end + 2);
            let (chunk, whole) = self.body(length + 2).await;
            if !whole {
                return (body, false);
            }
            if length == 0 {
                return (body, true);
            }
            body.extend_from_slice(&chunk[..length]);
        }
    }

    /// Whether the edge has closed the connection.
    pub async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more().await
    }

    async fn more(&mut self) -> bool {
        self.buffer.reserve(16 * 1024);
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(n) if n > 0)
    }
}
