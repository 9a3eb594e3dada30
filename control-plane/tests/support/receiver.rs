//! A receiver of webhooks that notes what it gets, and answers as it is told: rightly, wrongly, or not at all.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    Status(u16),
    /// 302 to this address.
    Redirects(String),
    /// It takes the request and says nothing.
    Stalls,
    /// 200 with the promise of ten gigabytes, of which ten bytes come.
    Promises,
    /// Something that is no HTTP.
    Nonsense,
    /// It closes the connection without a word.
    Closes,
}

/// What it got.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) id: String,
    pub(crate) timestamp: String,
    pub(crate) signature: String,
    pub(crate) body: String,
}

#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    got: Arc<Mutex<Vec<Got>>>,
    answers: Arc<Mutex<Answers>>,
}

impl Receiver {
    pub(crate) async fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?key=1", listener.local_addr().unwrap());
        let receiver = Self { url, got: Arc::default(), answers: Arc::new(Mutex::new(answers)) };
        let own = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(own.clone().serve(stream));
            }
        });
        receiver
    }

    pub(crate) fn answer(&self, answers: Answers) {
        *self.answers.lock().unwrap() = answers;
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// What it got, once there are so many.
    pub(crate) async fn gets(&self, count: usize, within: Duration) -> Vec<Got> {
        let begun = std::time::Instant::now();
        loop {
            let got = self.got();
            if got.len() >= count {
                return got;
            }
            assert!(begun.elapsed() < within, "{count} were to come: {got:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn serve(self, mut stream: TcpStream) {
        let (mut bytes, mut piece) = (Vec::new(), [0u8; 4096]);
        loop {
            let head = loop {
                if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                    break end + 4;
                }
                match stream.read(&mut piece).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => bytes.extend_from_slice(&piece[..read]),
                }
            };
            let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
            let header = |name: &str| {
                let line = text.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}: ")));
                line.map(|line| line[name.len() + 2..].to_owned()).unwrap_or_default()
            };
            let length: usize = header("content-length").parse().unwrap();
            while bytes.len() < head + length {
                match stream.read(&mut piece).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => bytes.extend_from_slice(&piece[..read]),
                }
            }
            let body = String::from_utf8(bytes[head..head + length].to_vec()).unwrap();
            let (timestamp, signature) = (header("webhook-timestamp"), header("webhook-signature"));
            self.got.lock().unwrap().push(Got { id: header("webhook-id"), timestamp, signature, body });
            let answers = self.answers.lock().unwrap().clone();
            let answer = match answers {
                Answers::Status(status) => format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"),
                Answers::Redirects(to) => format!("HTTP/1.1 302 X\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"),
                Answers::Promises => "HTTP/1.1 200 X\r\ncontent-length: 10000000000\r\n\r\n0123456789".to_owned(),
                Answers::Nonsense => "220 ready for mail\r\n\r\n".to_owned(),
                Answers::Closes => return,
                Answers::Stalls => {
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                    return;
                }
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            bytes.drain(..head + length);
        }
    }
}
