//! The way of a file to the object store: one PUT, or parts, several at a time, of which those that are there already are left out.

use std::collections::BTreeMap;
use std::io::SeekFrom;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::add::Meter;
use crate::client::{Control, Refused, client_for, refuse};

/// An upload may take this long at most: 2 GiB at 300 KB/s.
const UPLOAD_WITHIN: Duration = Duration::from_secs(2 * 3600);
/// Parts that travel at once: enough to fill a line with some delay, and few for a store.
const AT_ONCE: usize = 4;
/// Parts whose URLs are asked for at once.
const BATCH: usize = 64;
/// Times that a part is sent before the command gives up; what is there stays for the next run.
const TRIES: u32 = 5;
/// Pause before the second time; doubled for each further one.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the store may put parts together.
const TOGETHER_WITHIN: Duration = Duration::from_secs(600);
/// What is read and hashed at a time.
const CHUNK: usize = 256 * 1024;

/// A track that was created, and how its file gets there.
#[derive(Debug, Deserialize)]
#[serde(tag = "method")]
pub(super) enum Upload {
    #[serde(rename = "PUT")]
    Put { url: String, headers: BTreeMap<String, String> },
    #[serde(rename = "MULTIPART")]
    Parts(InParts),
}

#[derive(Debug, Deserialize)]
pub(super) struct InParts {
    part_size: u64,
    parts: u32,
    /// What is there already.
    #[serde(default)]
    present: Vec<Present>,
}

#[derive(Debug, Deserialize)]
struct Present {
    number: u32,
    bytes: u64,
}

/// Where one part goes.
#[derive(Clone, Debug, Deserialize)]
struct PartUrl {
    number: u32,
    bytes: u64,
    url: String,
    headers: BTreeMap<String, String>,
}

/// A file that is to be sent.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) bytes: u64,
    /// Hex.
    pub(super) sha256: String,
}

impl<'a> Source<'a> {
    /// Reads the whole file once: its digest says whether an upload that was broken off is of this file, and whether what arrives is.
    pub(super) async fn read(path: &'a Path, bytes: u64, meter: &Meter) -> anyhow::Result<Self> {
        let mut file = open(path).await?;
        let (mut digest, mut chunk, mut read) = (Sha256::new(), vec![0; CHUNK], 0u64);
        loop {
            let got = file.read(&mut chunk).await.with_context(|| format!("cannot read {}", path.display()))?;
            let Some(got) = chunk.get(..got).filter(|got| !got.is_empty()) else { break };
            digest.update(got);
            read += got.len() as u64;
            meter.show("read", share(read, bytes));
        }
        let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { path, bytes, sha256 })
    }

    /// What an upload of this file is found again by.
    pub(super) fn fingerprint(&self) -> String {
        format!("sha256:{}", self.sha256)
    }
}

/// The track of an upload of this file that was broken off, and what is there of it.
pub(super) async fn broken_off(control: &Control, source: &Source<'_>) -> anyhow::Result<Option<(String, Upload)>> {
    #[derive(Deserialize)]
    struct Unfinished {
        track: String,
        bytes: u64,
    }
    #[derive(Deserialize)]
    struct Listed {
        uploads: Vec<Unfinished>,
    }
    let path = format!("/v1/uploads?fingerprint={}", source.fingerprint());
    let listed: Listed = match control.get(&path).await {
        Ok(listed) => listed,
        // A control plane that knows no uploads in parts.
        Err(error) if error.downcast_ref::<Refused>().is_some_and(|refused| refused.word == "not-found") => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let Some(found) = listed.uploads.into_iter().find(|upload| upload.bytes == source.bytes) else { return Ok(None) };
    let upload = control.get(&format!("/v1/tracks/{}/upload", found.track)).await?;
    Ok(Some((found.track, upload)))
}

/// Sends what is not there, and says that it is.
pub(super) async fn send(
    control: &Control,
    track: &str,
    source: &Source<'_>,
    upload: &Upload,
    meter: &Meter,
) -> anyhow::Result<()> {
    let sent = Sent { bytes: Arc::default(), whole: source.bytes, meter: meter.clone() };
    match upload {
        Upload::Put { url, headers } => {
            put(source.path, (0, source.bytes), (url, headers), &sent)
                .await
                .context("the object store did not take the upload; run the command again")?;
        }
        Upload::Parts(upload) => parts(control, track, source, upload, &sent).await?,
    }
    // The store may take its time to put parts together: it is asked again until it has.
    let asked = Instant::now();
    loop {
        let said: anyhow::Result<Value> = control.post(&format!("/v1/tracks/{track}/uploaded"), &json!({})).await;
        match said {
            Ok(_) => return Ok(()),
            Err(error) => {
                let passes = error.downcast_ref::<Refused>().is_some_and(Refused::may_pass);
                if !passes || asked.elapsed() > TOGETHER_WITHIN {
                    return Err(error);
                }
            }
        }
        meter.show("finish", 1.0);
        tokio::time::sleep(PAUSE).await;
    }
}

async fn parts(
    control: &Control,
    track: &str,
    source: &Source<'_>,
    upload: &InParts,
    sent: &Sent,
) -> anyhow::Result<()> {
    let there: BTreeMap<u32, u64> = upload.present.iter().map(|part| (part.number, part.bytes)).collect();
    if !there.is_empty() {
        eprintln!("goes on with an upload that was broken off: {} of {} parts are there", there.len(), upload.parts);
        sent.add(there.values().sum());
    }
    let missing: Vec<u32> = (1..=upload.parts).filter(|number| !there.contains_key(number)).collect();
    for batch in missing.chunks(BATCH) {
        let sending = urls(control, track, batch).await?.into_iter();
        let etags: Vec<Value> =
            futures::stream::iter(sending.map(|part| one(control, track, source.path, upload.part_size, part, sent)))
                .buffer_unordered(AT_ONCE)
                .try_filter_map(|etag| std::future::ready(Ok(etag)))
                .try_collect()
                .await?;
        control.post_for_nothing(&format!("/v1/tracks/{track}/upload/parts"), &json!({ "parts": etags })).await?;
    }
    Ok(())
}

async fn urls(control: &Control, track: &str, numbers: &[u32]) -> anyhow::Result<Vec<PartUrl>> {
    #[derive(Deserialize)]
    struct Urls {
        parts: Vec<PartUrl>,
    }
    let urls: Urls = control.post(&format!("/v1/tracks/{track}/upload/urls"), &json!({ "parts": numbers })).await?;
    Ok(urls.parts)
}

/// Sends one part, again where that fails, and each time by a new URL, since the one before may have expired. Gives what the store called it.
async fn one(
    control: &Control,
    track: &str,
    path: &Path,
    part_size: u64,
    mut part: PartUrl,
    sent: &Sent,
) -> anyhow::Result<Option<Value>> {
    let from = u64::from(part.number.saturating_sub(1)) * part_size;
    let mut pause = PAUSE;
    for tries in 1.. {
        let mine = Arc::new(AtomicU64::new(0));
        let counted = Sent { meter: sent.meter.clone(), whole: sent.whole, bytes: Arc::clone(&sent.bytes) };
        let error = match put_counted(path, (from, part.bytes), (&part.url, &part.headers), &counted, &mine).await {
            Ok(etag) => return Ok(etag.map(|etag| json!({ "number": part.number, "etag": etag }))),
            Err(error) => error,
        };
        sent.bytes.fetch_sub(mine.load(Ordering::Relaxed), Ordering::Relaxed);
        if tries >= TRIES {
            return Err(error.context(format!(
                "part {} did not get there; run the command again: it goes on with what is there",
                part.number
            )));
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
        if let Some(again) = urls(control, track, &[part.number]).await?.pop() {
            part = again;
        }
    }
    bail!("a part was never sent")
}

/// What of the file has been sent.
struct Sent {
    bytes: Arc<AtomicU64>,
    whole: u64,
    meter: Meter,
}

impl Sent {
    fn add(&self, bytes: u64) {
        let sent = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.meter.show("upload", share(sent, self.whole));
    }
}

async fn put(
    path: &Path,
    range: (u64, u64),
    to: (&str, &BTreeMap<String, String>),
    sent: &Sent,
) -> anyhow::Result<Option<String>> {
    put_counted(path, range, to, sent, &Arc::default()).await
}

/// Sends `bytes` bytes of the file from `from` on. What went is counted in `mine` as well. Gives the store's tag.
async fn put_counted(
    path: &Path,
    (from, bytes): (u64, u64),
    (url, headers): (&str, &BTreeMap<String, String>),
    sent: &Sent,
    mine: &Arc<AtomicU64>,
) -> anyhow::Result<Option<String>> {
    let mut file = open(path).await?;
    file.seek(SeekFrom::Start(from)).await.with_context(|| format!("cannot read {}", path.display()))?;
    let (sum, meter, whole, own) = (Arc::clone(&sent.bytes), sent.meter.clone(), sent.whole, Arc::clone(mine));
    let body = ReaderStream::with_capacity(file.take(bytes), CHUNK).inspect_ok(move |chunk| {
        let len = chunk.len() as u64;
        own.fetch_add(len, Ordering::Relaxed);
        meter.show("upload", share(sum.fetch_add(len, Ordering::Relaxed) + len, whole));
    });
    let mut request = client_for(url)?.put(url).timeout(UPLOAD_WITHIN).header("content-length", bytes);
    for (name, value) in headers {
        if !name.eq_ignore_ascii_case("content-length") {
            request = request.header(name, value);
        }
    }
    let response = request.body(reqwest::Body::wrap_stream(body)).send().await.context("the upload broke off")?;
    let response = refuse(response).await.context("the object store refused the upload")?;
    Ok(response.headers().get("etag").and_then(|tag| tag.to_str().ok()).map(str::to_owned))
}

async fn open(path: &Path) -> anyhow::Result<tokio::fs::File> {
    tokio::fs::File::open(path).await.with_context(|| format!("cannot read {}", path.display()))
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}
