//! A simulated player that keeps its own record of what it was given.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use reqwest::{Client, Response};
use url::Url;

/// What a player got, whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The paths of the segments that arrived whole, as often as they did, in order.
    pub segments: Vec<String>,
    /// The bytes of those segments.
    pub bytes: u64,
    /// Requests that broke off or were refused.
    pub broken: u64,
}

impl Record {
    /// The segments told apart.
    pub fn distinct(&self) -> BTreeSet<&str> {
        self.segments.iter().map(String::as_str).collect()
    }
}

/// A rendition's media playlist, resolved.
#[derive(Debug, Clone)]
pub struct Rendition {
    /// The init segment.
    pub init: Url,
    /// The segments, in order, with their lengths in seconds.
    pub segments: Vec<(Url, f64)>,
}

/// One listener's player.
#[derive(Debug, Clone)]
pub struct Player {
    http: Client,
    master: Url,
}

impl Player {
    /// A player that starts at a master playlist.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(master: &str) -> anyhow::Result<Self> {
        let http =
            Client::builder().connect_timeout(Duration::from_secs(5)).timeout(Duration::from_secs(30)).build()?;
        Ok(Self { http, master: Url::parse(master).with_context(|| format!("{master:?} is not a URL"))? })
    }

    /// Gets one URL, which must answer with success.
    ///
    /// # Errors
    /// When it does not, or breaks off.
    pub async fn get(&self, url: &Url) -> anyhow::Result<Bytes> {
        let response = self.http.get(url.clone()).send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        if !status.is_success() {
            bail!("{url}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    /// Sends any request as this player.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&self, method: reqwest::Method, url: &Url, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
        let mut request = self.http.request(method, url.clone());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(request.send().await?)
    }

    /// The renditions that the master playlist names, lowest first as it lists them.
    ///
    /// # Errors
    /// When a playlist cannot be had or names nothing.
    pub async fn renditions(&self) -> anyhow::Result<Vec<Rendition>> {
        let master = String::from_utf8(self.get(&self.master).await?.to_vec())?;
        let mut renditions = Vec::new();
        for uri in master.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let url = self.master.join(uri)?;
            let playlist = String::from_utf8(self.get(&url).await?.to_vec())?;
            renditions.push(media_playlist(&url, &playlist)?);
        }
        if renditions.is_empty() {
            bail!("{} names no rendition:\n{master}", self.master);
        }
        Ok(renditions)
    }

    /// Gets a segment and writes it down. A broken transfer is written down too, and is no error.
    pub async fn take(&self, url: &Url, record: &mut Record) {
        match self.get(url).await {
            Ok(bytes) => {
                record.bytes += bytes.len() as u64;
                record.segments.push(object_path(url));
            }
            Err(_) => record.broken += 1,
        }
    }

    /// Plays the first rendition from its start to its end, as fast as it comes.
    ///
    /// # Errors
    /// When a playlist cannot be had.
    pub async fn play_whole(&self) -> anyhow::Result<Record> {
        self.play_first(usize::MAX).await
    }

    /// Plays the first `count` segments of the first rendition.
    ///
    /// # Errors
    /// When a playlist cannot be had.
    pub async fn play_first(&self, count: usize) -> anyhow::Result<Record> {
        let renditions = self.renditions().await?;
        let rendition = renditions.first().context("no rendition")?;
        let mut record = Record::default();
        self.get(&rendition.init).await?;
        for (segment, _) in rendition.segments.iter().take(count) {
            self.take(segment, &mut record).await;
        }
        Ok(record)
    }
}

/// The path of an object without the ticket that carried it.
pub fn object_path(url: &Url) -> String {
    match url.path().find("/hls/") {
        Some(at) => url.path()[at..].to_owned(),
        None => url.path().to_owned(),
    }
}

fn media_playlist(base: &Url, text: &str) -> anyhow::Result<Rendition> {
    let (mut init, mut segments, mut length) = (None, Vec::new(), None);
    for line in text.lines() {
        if let Some(attributes) = line.strip_prefix("#EXT-X-MAP:") {
            let uri = attributes.split("URI=\"").nth(1).and_then(|rest| rest.split('"').next());
            init = Some(base.join(uri.context("EXT-X-MAP without a URI")?)?);
        } else if let Some(seconds) = line.strip_prefix("#EXTINF:") {
            length = Some(seconds.trim_end_matches(',').parse::<f64>()?);
        } else if !line.is_empty() && !line.starts_with('#') {
            segments.push((base.join(line)?, length.take().context("a segment without EXTINF")?));
        }
    }
    Ok(Rendition { init: init.with_context(|| format!("{base} has no EXT-X-MAP"))?, segments })
}
