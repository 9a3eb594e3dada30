//! Publishing: every object of a version into the store, as it is made.
//!
//! Order: an init section and segments first, and only what the store has acknowledged is named by a playlist. While a
//! track is encoded, each rendition has a growing playlist `live.m3u8` (type EVENT) and the version a master
//! `early.m3u8` over them, which the control plane hands out once it was told of it, and which is written anew when a
//! rendition that came later joins those that are heard first; at the end each rendition gets its
//! whole `index.m3u8` (type VOD), and the growing one its end. The alias is the control plane's, after all of this.
//!
//! Invariants: objects go only under `hls/<track>/<version>/`, and the version ends in the attempt's fence, so that a
//! late worker cannot mix its bytes into another attempt's folder. The one exception leads listeners away from such a
//! folder: see [`crate::heirs`].

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Encryption;
use crate::encode::Output;
use crate::encrypt::{Locksmith, Wrapped};
use crate::heirs::Heirs;
use crate::ladder::{Rung, heard_first};
use crate::lease::{Reporter, Stage};
use crate::master::{early, peak_and_average};
use crate::measure::{CEILING, TARGET};
use crate::playlist::{SegmentFile, State, media};
use crate::queue::{Claim, Queue, QueueError, RenditionReport};
use crate::reject::{Failure, Halt, Reason, disk};
use crate::source::hex;
use crate::store::Store;

/// Uploads at once: enough to hide a round trip, few enough to keep a small server alive.
const UPLOADS: usize = 8;
/// Raised whenever the same source and settings would give other bytes.
const REVISION: u32 = 4;
/// Segments of each rendition that a player finds when it comes early: what it wants to have before it plays.
const EARLY: usize = 2;
/// The least time between two versions of a growing playlist: an edge keeps one for a second.
const GROW_EVERY: Duration = Duration::from_secs(1);
/// Names in a rendition's folder, and of the master over the growing playlists.
const INIT: &str = "init.mp4";
pub(crate) const INDEX: &str = "index.m3u8";
pub(crate) const LIVE: &str = "live.m3u8";
const MASTER: &str = "early.m3u8";

const PLAYLIST: &str = "application/vnd.apple.mpegurl";
const WRAPPED: &str = "application/octet-stream";

/// The name of the version: what went in, how, by what, and which attempt.
pub(crate) fn version(
    source_sha256: &str,
    rungs: &[Rung],
    encryption: Option<&Encryption>,
    encoder: &str,
    fence: i64,
) -> String {
    let ladder: Vec<String> = rungs.iter().map(Rung::settings).collect();
    let mut settings = format!(
        "segue {REVISION}; {}; segment {}; target {TARGET}; ceiling {CEILING}",
        ladder.join(","),
        crate::encode::SEGMENT
    );
    if let Some(encryption) = encryption {
        settings = format!("{settings}; {}", encryption.settings());
    }
    let hash = Sha256::digest(format!("{source_sha256}\n{settings}\n{encoder}"));
    format!("{}-{fence}", hex(&hash[..8]))
}

/// One rendition, as far as the store has it.
#[derive(Debug)]
struct Shelf {
    rung: Rung,
    /// What encrypts its segments, where they are to be encrypted.
    locksmith: Option<Locksmith>,
    codecs: String,
    opened: bool,
    /// In order; `None` has come and is on its way.
    segments: Vec<(Option<()>, SegmentFile)>,
    ended: bool,
    /// Whether it is one of those that are heard first.
    first: bool,
    /// Segments that the growing playlist names.
    told: usize,
}

impl Shelf {
    /// What a playlist may name.
    fn there(&self) -> usize {
        if self.opened { self.segments.iter().take_while(|(there, _)| there.is_some()).count() } else { 0 }
    }

    /// Whether a player that comes now finds enough of it.
    fn is_open(&self) -> bool {
        self.there() >= EARLY || self.is_whole()
    }

    fn files(&self, count: usize) -> Vec<SegmentFile> {
        self.segments.iter().take(count).map(|(_, file)| file.clone()).collect()
    }

    fn is_whole(&self) -> bool {
        self.ended && self.there() == self.segments.len()
    }

    fn report(&self, count: usize) -> RenditionReport {
        let (bandwidth, average_bandwidth) = peak_and_average(&self.files(count));
        let (name, codecs) = (self.rung.name.clone(), self.codecs.clone());
        let picture = self.rung.picture();
        RenditionReport {
            name,
            bandwidth,
            average_bandwidth,
            codecs,
            gain_db: None,
            resolution: picture.map(|picture| format!("{}x{}", picture.width, picture.height)),
            frame_rate: picture.map(|picture| (picture.per_second() * 1000.0).round() / 1000.0),
        }
    }
}

/// What an upload was.
enum Sent {
    Init(usize),
    Segment(usize, usize),
}

/// Puts one version into the store.
pub(crate) struct Press<'a> {
    store: &'a Store,
    queue: &'a Queue,
    claim: &'a Claim,
    root: String,
    shelves: Vec<Shelf>,
    heirs: Heirs,
    /// `None`: nobody is to come early.
    early: Option<Early>,
    uploads: FuturesUnordered<BoxFuture<'a, Result<Sent, Failure>>>,
}

/// How far the early playlists are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Early {
    Waiting,
    Told {
        at: Instant,
        /// Renditions that the master names.
        named: usize,
    },
}

impl<'a> Press<'a> {
    pub(crate) fn new(
        store: &'a Store,
        queue: &'a Queue,
        claim: &'a Claim,
        version: &str,
        rungs: &[Rung],
        encryption: Option<&Encryption>,
    ) -> Self {
        let place = |rung: &Rung| format!("{}/{version}/{}/", claim.track, rung.name);
        let shelf = |(rung, first): (&Rung, bool)| Shelf {
            rung: rung.clone(),
            first,
            locksmith: encryption.map(|encryption| Locksmith::new(encryption, place(rung))),
            codecs: String::new(),
            opened: false,
            segments: Vec::new(),
            ended: false,
            told: 0,
        };
        Self {
            store,
            queue,
            claim,
            root: format!("hls/{}/{version}", claim.track),
            shelves: rungs.iter().zip(heard_first(rungs)).map(shelf).collect(),
            heirs: Heirs::new(&claim.track, version),
            early: None,
            uploads: FuturesUnordered::new(),
        }
    }

    /// From here on listeners may come while it is encoded.
    pub(crate) fn open_early(&mut self) {
        self.early = Some(Early::Waiting);
    }

    /// Uploads one thing of the version that is no rendition.
    pub(crate) async fn add(&mut self, name: &str, body: Bytes, content_type: &'static str) -> Result<(), Halt> {
        put(self.store, format!("{}/{name}", self.root), body, content_type).await.map_err(Halt::from)
    }

    /// Takes everything that is made, to the end; `Ok` means that the store acknowledged every object of the version.
    pub(crate) async fn run(
        &mut self,
        mut made: mpsc::Receiver<Output>,
        cancel: &CancellationToken,
    ) -> Result<(), Halt> {
        let mut ended = false;
        while !ended || !self.uploads.is_empty() {
            tokio::select! {
                () = cancel.cancelled() => return Err(Halt::Cancelled),
                output = made.recv(), if !ended && self.uploads.len() < UPLOADS => match output {
                    Some(output) => self.take(output)?,
                    None => ended = true,
                },
                Some(sent) = self.uploads.next(), if !self.uploads.is_empty() => {
                    match sent? {
                        Sent::Init(rendition) => self.shelf(rendition)?.opened = true,
                        Sent::Segment(rendition, number) => {
                            if let Some((there, _)) = self.shelf(rendition)?.segments.get_mut(number) {
                                *there = Some(());
                            }
                        }
                    }
                    self.grow().await?;
                }
            }
        }
        Ok(())
    }

    fn shelf(&mut self, rendition: usize) -> Result<&mut Shelf, Halt> {
        let missing = || Failure::new(Reason::WorkerFailed, "The transcoder lost track of a rendition.").into();
        self.shelves.get_mut(rendition).ok_or_else(missing)
    }

    fn take(&mut self, output: Output) -> Result<(), Halt> {
        let (rendition, name, body, sent, key) = match output {
            Output::Opened { rendition, init, codecs } => {
                self.shelf(rendition)?.codecs = codecs;
                (rendition, INIT.to_owned(), init, Sent::Init(rendition), None)
            }
            Output::Segment { rendition, bytes, seconds } => {
                let shelf = self.shelf(rendition)?;
                let number = shelf.segments.len();
                let name = format!("seg-{number:05}.m4s");
                let (body, lock, key) = match &mut shelf.locksmith {
                    Some(locksmith) => {
                        let (body, lock, key) = locksmith.lock(number, &bytes)?;
                        (body, Some(lock), key)
                    }
                    None => (bytes, None, None),
                };
                let file = SegmentFile { name: name.clone(), bytes: body.len() as u64, seconds, lock };
                shelf.segments.push((None, file));
                (rendition, name, body, Sent::Segment(rendition, number), key)
            }
            Output::Ended { rendition } => {
                self.shelf(rendition)?.ended = true;
                return Ok(());
            }
        };
        let rung = &self.shelf(rendition)?.rung;
        let content_type = if rung.picture().is_some() { "video/mp4" } else { "audio/mp4" };
        let folder = rung.name.clone();
        let folder = format!("{}/{folder}", self.root);
        let store = self.store;
        self.uploads.push(Box::pin(async move {
            // No playlist names a segment before all in front of it are there: its key has come with one of them.
            if let Some(Wrapped { name, body }) = key {
                put(store, format!("{folder}/{name}"), body, WRAPPED).await?;
            }
            put(store, format!("{folder}/{name}"), body, content_type).await.map(|()| sent)
        }));
        Ok(())
    }

    /// Tells what is new in the growing playlists, where somebody may look at them.
    async fn grow(&mut self) -> Result<(), Halt> {
        match self.early {
            None => Ok(()),
            Some(Early::Waiting) => {
                if !self.shelves.iter().filter(|shelf| shelf.first).all(Shelf::is_open) {
                    return Ok(());
                }
                self.heirs.find(self.store, &self.claim.early, &self.shelves_names()).await;
                self.write_live(State::Growing).await?;
                self.write_master(0).await?;
                self.announce().await
            }
            Some(Early::Told { at, .. }) if at.elapsed() < GROW_EVERY => Ok(()),
            Some(Early::Told { named, .. }) => {
                self.write_live(State::Growing).await?;
                self.write_master(named).await
            }
        }
    }

    fn shelves_names(&self) -> Vec<String> {
        self.shelves.iter().map(|shelf| shelf.rung.name.clone()).collect()
    }

    /// The master over the growing playlists, anew where there are more of them than the `named` that it has. A session
    /// keeps the one that it began with.
    async fn write_master(&mut self, named: usize) -> Result<(), Halt> {
        let told = self.shelves.iter().filter(|shelf| shelf.told > 0);
        let now = told.clone().count();
        if now > named {
            let reports: Vec<(RenditionReport, u64)> =
                told.map(|shelf| (shelf.report(shelf.there()), shelf.rung.bit_rate)).collect();
            self.add(MASTER, Bytes::from(early(&reports)), PLAYLIST).await?;
        }
        self.early = Some(Early::Told { at: Instant::now(), named: now });
        Ok(())
    }

    async fn announce(&mut self) -> Result<(), Halt> {
        let version = self.root.rsplit('/').next().unwrap_or_default();
        match self.queue.early(self.claim, version).await {
            Ok(()) => {
                tracing::info!(job = %self.claim.job, track = %self.claim.track, "can be played");
                Ok(())
            }
            Err(QueueError::LeaseLost) => Err(Halt::Cancelled),
            Err(error) => {
                // It is a courtesy: the track is ready in a while anyhow. The playlists grow on all the same, since it may
                // have been heard though the answer was not.
                tracing::warn!(job = %self.claim.job, %error, "the control plane may not know that it can be played early");
                Ok(())
            }
        }
    }

    async fn write_live(&mut self, state: State) -> Result<(), Halt> {
        for shelf in self.shelves.iter_mut().filter(|shelf| shelf.is_open()) {
            let there = shelf.there();
            if there == shelf.told && state == State::Growing {
                continue;
            }
            shelf.told = there;
            let files = shelf.files(there);
            // A rendition that is whole ends at once, though others still grow.
            let state = if shelf.is_whole() { State::Ended } else { state };
            let text = media(state, "", INIT, &files);
            let key = format!("{}/{}/{LIVE}", self.root, shelf.rung.name);
            put(self.store, key, Bytes::from(text), PLAYLIST).await?;
            self.heirs.follow(self.store, &shelf.rung.name, state, INIT, &files).await;
        }
        Ok(())
    }

    /// The playlists of a version that is whole, and what was made.
    pub(crate) async fn finish(&mut self, progress: &Reporter) -> Result<Vec<RenditionReport>, Halt> {
        progress.at(Stage::Publish, 0.5);
        if self.shelves.iter().any(|shelf| !shelf.is_whole()) {
            let message = "The transcoder lost a part of the result.";
            return Err(Failure::new(Reason::WorkerFailed, message).into());
        }
        for shelf in &self.shelves {
            let text = media(State::Whole, "", INIT, &shelf.files(shelf.segments.len()));
            let key = format!("{}/{}/{INDEX}", self.root, shelf.rung.name);
            put(self.store, key, Bytes::from(text), PLAYLIST).await?;
        }
        if let Some(Early::Told { named, .. }) = self.early {
            self.write_live(State::Ended).await?;
            self.write_master(named).await?;
        } else {
            // Listeners of an attempt before this one wait for what comes, however late.
            self.heirs.find(self.store, &self.claim.early, &self.shelves_names()).await;
            for shelf in &self.shelves {
                let files = shelf.files(shelf.segments.len());
                self.heirs.follow(self.store, &shelf.rung.name, State::Ended, INIT, &files).await;
            }
        }
        Ok(self.shelves.iter().map(|shelf| shelf.report(shelf.segments.len())).collect())
    }

    /// After a failure that no other attempt will mend: whoever listens hears what there is and comes to an end.
    pub(crate) async fn abandon(&mut self) {
        if matches!(self.early, Some(Early::Told { .. }))
            && let Err(error) = self.write_live(State::Ended).await
        {
            tracing::warn!(job = %self.claim.job, ?error, "early playlists not ended; their removal will tell");
        }
    }
}

/// Uploads a file of the folder.
pub(crate) async fn file(path: &Path) -> Result<Bytes, Halt> {
    let read = tokio::fs::read(path).await.map_err(|error| disk("read an output", &error))?;
    Ok(Bytes::from(read))
}

async fn put(store: &Store, key: String, body: Bytes, content_type: &'static str) -> Result<(), Failure> {
    store.put(&key, body, content_type).await.map_err(|error| {
        let message = "The result could not be written to the object store.";
        Failure::new(Reason::StoreUnavailable, message).because(error)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Ladder;
    use crate::ladder::ladder;
    use crate::probe::Probe;

    fn encryption(rotate_segments: usize, id: &str) -> Encryption {
        Encryption { rotate_segments, keys: Arc::default(), wrapping_key: id.to_owned() }
    }

    #[test]
    fn a_version_changes_with_each_of_its_causes() {
        let rungs = |bit_rate| ladder(&Ladder::default(), &Probe { bit_rate, ..Probe::default() });
        let base = version("aa", &rungs(None), None, "ffmpeg version 5.1", 3);
        let (hash, fence) = base.split_once('-').expect("fence");
        assert_eq!((hash.len(), fence), (16, "3"));
        assert_eq!(base, version("aa", &rungs(None), None, "ffmpeg version 5.1", 3));
        for other in [
            version("ab", &rungs(None), None, "ffmpeg version 5.1", 3),
            version("aa", &rungs(Some(64_000)), None, "ffmpeg version 5.1", 3),
            version("aa", &rungs(None), None, "ffmpeg version 6", 3),
            version("aa", &rungs(None), Some(&encryption(50, "w1")), "ffmpeg version 5.1", 3),
        ] {
            assert_ne!(other.split('-').next(), Some(hash));
        }
        let encrypted =
            |rotate, id| version("aa", &rungs(None), Some(&encryption(rotate, id)), "ffmpeg version 5.1", 3);
        assert_ne!(encrypted(50, "w1"), encrypted(25, "w1"));
        assert_ne!(encrypted(50, "w1"), encrypted(50, "w2"));
        assert_eq!(version("aa", &rungs(None), None, "ffmpeg version 5.1", 4), format!("{hash}-4"));
    }
}
