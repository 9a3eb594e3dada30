//! An HTTP/1.1 origin over plain TCP that does, per path, exactly what it is told.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

#[derive(Clone)]
pub enum Behaviour {
    /// The object, with ETag and Last-Modified, honouring Range and If-None-Match.
    Serve(Vec<u8>),
    /// As `Serve`, with further header lines.
    ServeWith(Vec<u8>, &'static str),
    /// Head, first part, then nothing until notified, then the rest.
    Gated(Vec<u8>, usize, Arc<Notify>),
    /// Head and a part of the body, then the connection ends.
    Truncate(Vec<u8>, usize),
    /// Head and a part of the body, then silence.
    Stall(Vec<u8>, usize),
    /// No length, chunked.
    Chunked(Vec<u8>),
    /// Chunked, cut before the last chunk.
    ChunkedCut(Vec<u8>),
    /// Nothing at all is answered.
    Silent,
    /// A status with a small body.
    Status(u16),
    /// A raw answer.
    Raw(Vec<u8>),
    /// A raw answer on a connection that goes on.
    Reply(String),
    /// No length, chunked, without end.
    Endless,
    /// Head and a part of the body, then a reset.
    Reset(Vec<u8>, usize),
    /// Nothing until notified, then the behaviour.
    Later(Arc<Notify>, Box<Behaviour>),
    /// The first so many requests get the first behaviour, all later ones the second.
    First(usize, Box<Behaviour>, Box<Behaviour>),
}

#[derive(Default)]
struct State {
    objects: HashMap<String, Behaviour>,
    seen: Vec<String>,
    heads: VecDeque<String>,
    connections: usize,
}

#[derive(Clone)]
pub struct Origin {
    pub addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Origin {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Self { addr: listener.local_addr().unwrap(), state: Arc::default() };
        let serving = origin.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        origin
    }

    pub fn put(&self, path: &str, behaviour: Behaviour) {
        self.state.lock().unwrap().objects.insert(path.to_owned(), behaviour);
    }

    /// Under the test's track.
    pub fn track(&self, file: &str, behaviour: Behaviour) {
        self.put(&format!("/hls/{}/{file}", super::TRACK), behaviour);
    }

    /// How many requests came for this path.
    pub fn count(&self, file: &str) -> usize {
        let path = format!("/hls/{}/{file}", super::TRACK);
        self.state.lock().unwrap().seen.iter().filter(|seen| **seen == path).count()
    }

    /// How many requests came for this path as it stands.
    pub fn count_path(&self, path: &str) -> usize {
        self.state.lock().unwrap().seen.iter().filter(|seen| **seen == path).count()
    }

    pub fn last_head(&self) -> String {
        self.state.lock().unwrap().heads.back().cloned().unwrap_or_default()
    }

    /// How many connections were opened.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    async fn serve(self, mut stream: TcpStream) {
        self.state.lock().unwrap().connections += 1;
        let mut buffer = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                    break at + 4;
                }
                let mut chunk = [0; 4096];
                match stream.read(&mut chunk).await {
                    Ok(0) | Err(_) => return,
                    Ok(n) => buffer.extend_from_slice(&chunk[..n]),
                }
            };
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            buffer.drain(..end);
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let behaviour = {
                let mut state = self.state.lock().unwrap();
                state.seen.push(path.clone());
                state.heads.push_back(head.clone());
                let nth = state.seen.iter().filter(|seen| **seen == path).count();
                let mut found = state.objects.get(&path).cloned().unwrap_or(Behaviour::Status(404));
                while let Behaviour::First(count, first, then) = found {
                    found = if nth <= count { *first } else { *then };
                }
                found
            };
            let behaviour = match behaviour {
                Behaviour::Later(gate, then) => {
                    gate.notified().await;
                    *then
                }
                behaviour => behaviour,
            };
            if !act(&mut stream, behaviour, &head).await {
                return;
            }
        }
    }
}

/// Whether the connection goes on.
async fn act(stream: &mut TcpStream, behaviour: Behaviour, head: &str) -> bool {
    const STATE: &str = "ETag: \"v1\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let whole = |body: &[u8], more: &str| {
        let lower = head.to_ascii_lowercase();
        if lower.contains("if-none-match: \"v1\"") {
            return format!("HTTP/1.1 304 Not Modified\r\n{STATE}{more}\r\n").into_bytes();
        }
        let range = lower.split_once("range: bytes=").and_then(|(_, rest)| {
            let (first, last) = rest.split("\r\n").next()?.split_once('-')?;
            Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
        });
        let (line, body) = match range {
            Some((first, last)) => {
                let range = format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{}", body.len());
                (range, &body[first..=last])
            }
            None => ("200 OK".to_owned(), body),
        };
        let mut answer = format!("HTTP/1.1 {line}\r\n{STATE}{more}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
        answer.extend_from_slice(body);
        answer
    };
    let opening = |length: usize| format!("HTTP/1.1 200 OK\r\n{STATE}Content-Length: {length}\r\n\r\n").into_bytes();
    match behaviour {
        Behaviour::Serve(body) => stream.write_all(&whole(&body, "")).await.is_ok(),
        Behaviour::ServeWith(body, more) => stream.write_all(&whole(&body, more)).await.is_ok(),
        Behaviour::Gated(body, first, gate) => {
            stream.write_all(&opening(body.len())).await.unwrap();
            stream.write_all(&body[..first]).await.unwrap();
            gate.notified().await;
            stream.write_all(&body[first..]).await.is_ok()
        }
        Behaviour::Truncate(body, sent) => {
            stream.write_all(&opening(body.len())).await.unwrap();
            stream.write_all(&body[..sent]).await.unwrap();
            false
        }
        Behaviour::Stall(body, sent) => {
            stream.write_all(&opening(body.len())).await.unwrap();
            stream.write_all(&body[..sent]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(30)).await;
            false
        }
        Behaviour::Chunked(body) | Behaviour::ChunkedCut(body) if body.is_empty() => false,
        Behaviour::Chunked(body) => {
            let mut answer = format!("HTTP/1.1 200 OK\r\n{STATE}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
            answer.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
            answer.extend_from_slice(&body);
            answer.extend_from_slice(b"\r\n0\r\n\r\n");
            stream.write_all(&answer).await.is_ok()
        }
        Behaviour::ChunkedCut(body) => {
            let mut answer = format!("HTTP/1.1 200 OK\r\n{STATE}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
            answer.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
            answer.extend_from_slice(&body);
            answer.extend_from_slice(b"\r\n");
            stream.write_all(&answer).await.unwrap();
            false
        }
        Behaviour::Silent => {
            tokio::time::sleep(Duration::from_secs(30)).await;
            false
        }
        Behaviour::Status(status) => {
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nno");
            stream.write_all(answer.as_bytes()).await.is_ok()
        }
        Behaviour::Raw(answer) => {
            stream.write_all(&answer).await.unwrap();
            false
        }
        Behaviour::Reply(answer) => stream.write_all(answer.as_bytes()).await.is_ok(),
        Behaviour::Endless => {
            let opening = format!("HTTP/1.1 200 OK\r\n{STATE}Transfer-Encoding: chunked\r\n\r\n");
            stream.write_all(opening.as_bytes()).await.unwrap();
            let mut chunk = b"4000\r\n".to_vec();
            chunk.extend_from_slice(&[b'x'; 0x4000]);
            chunk.extend_from_slice(b"\r\n");
            while stream.write_all(&chunk).await.is_ok() {}
            false
        }
        Behaviour::Reset(body, sent) => {
            stream.write_all(&opening(body.len())).await.unwrap();
            stream.write_all(&body[..sent]).await.unwrap();
            stream.set_zero_linger().unwrap();
            false
        }
        Behaviour::First(..) | Behaviour::Later(..) => unreachable!("resolved by the caller"),
    }
}
