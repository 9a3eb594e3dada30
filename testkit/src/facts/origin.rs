//! An HTTP origin with tracks of any name: a media playlist, and segments whose bytes follow from their number.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Segments of a track.
pub(crate) const SEGMENTS: usize = 120;
/// How long each plays.
pub(crate) const SEGMENT_MS: u64 = 6000;
/// The one version that each track has.
pub(crate) const VERSION: &str = "0123456789abcdef-1";
const HEAD_MAX: usize = 16 * 1024;

/// The file of a segment, inside its version.
pub(crate) fn file(segment: usize) -> String {
    format!("a128/seg-{segment:05}.m4s")
}

/// The bytes of a segment.
pub(crate) fn body(segment: usize) -> Vec<u8> {
    let length = 3000 + segment * 211 % 9000;
    (0..length).map(|at| u8::try_from((at * 31 + segment * 7) % 251).unwrap_or(0)).collect()
}

fn playlist() -> String {
    let mut text = "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXT-X-MAP:URI=\"init.mp4\"\n".to_owned();
    for segment in 0..SEGMENTS {
        text.push_str(&format!("#EXTINF:6.0,\nseg-{segment:05}.m4s\n"));
    }
    text.push_str("#EXT-X-ENDLIST\n");
    text
}

/// Serves until the runtime ends.
pub(crate) async fn start() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A connection that ends early is one of an edge that was killed.
            tokio::spawn(async move {
                let _ended = serve(stream).await;
            });
        }
    });
    Ok(address)
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if buffer.len() > HEAD_MAX || stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head: Vec<u8> = buffer.drain(..end).collect();
        let path = std::str::from_utf8(&head).ok().and_then(|head| head.split(' ').nth(1)).unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default();
        let segment = name.strip_prefix("seg-").and_then(|name| name.strip_suffix(".m4s")?.parse().ok());
        let found = match (name, segment) {
            ("index.m3u8", _) => Some(playlist().into_bytes()),
            (_, Some(segment)) if segment < SEGMENTS => Some(body(segment)),
            _ => None,
        };
        let (status, body) = found.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nCache-Control: public, max-age=86400\r\nETag: \"{name}\"\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await?;
    }
}
