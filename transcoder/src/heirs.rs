//! Listeners of an attempt that died: their growing playlists are carried on by the attempt that follows.
//!
//! Two attempts at the same source with the same settings and encoder give the same segments: the hash in front of
//! their versions says so. So the playlists of the dead one are written anew, with the names of this one's files, as
//! soon as this one has as many segments; a player goes on where it is. Where the hash differs, the dead playlists get
//! an end: a player comes to it and is told by that.
//!
//! Invariants: a playlist that is carried on never gets shorter than a listener saw it. On failure: logged; the
//! folder's removal tells listeners in its own way.

use bytes::Bytes;

use crate::playlist::{SegmentFile, State, media, read};
use crate::publish::LIVE;
use crate::store::Store;

/// A playlist of ours has some tens of bytes for each segment of the longest track.
const PLAYLIST_MAX: usize = 4 << 20;
/// Dead attempts that are carried on: each cost a worker, and nobody waits longer.
const DEAD_MAX: usize = 4;

/// A growing playlist of a dead attempt.
#[derive(Debug)]
struct Heir {
    /// Its folder: `hls/<track>/<version>/<rendition>`.
    folder: String,
    rendition: String,
    /// Segments that a listener may have seen in it.
    seen: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Heirs {
    track: String,
    version: String,
    found: Option<Vec<Heir>>,
}

impl Heirs {
    pub(crate) fn new(track: &str, version: &str) -> Self {
        Self { track: track.to_owned(), version: version.to_owned(), found: None }
    }

    /// Looks for what the dead attempts left, once.
    pub(crate) async fn find(&mut self, store: &Store, dead: &[String], renditions: &[String]) {
        if self.found.is_some() {
            return;
        }
        let mut found = Vec::new();
        let ours = self.version.split('-').next();
        for version in dead.iter().rev().filter(|version| **version != self.version).take(DEAD_MAX) {
            for rendition in renditions {
                let folder = format!("hls/{}/{version}/{rendition}", self.track);
                let key = format!("{folder}/{LIVE}");
                let Ok(text) = store.small(&key, PLAYLIST_MAX).await else { continue };
                let text = String::from_utf8_lossy(&text);
                let (seen, ended) = read(&text);
                if ended {
                    continue;
                }
                if version.split('-').next() == ours {
                    found.push(Heir { folder, rendition: rendition.clone(), seen });
                } else {
                    write(store, &key, format!("{text}#EXT-X-ENDLIST\n")).await;
                }
            }
        }
        if !found.is_empty() {
            tracing::info!(track = %self.track, playlists = found.len(), "listeners of a dead attempt are carried on");
        }
        self.found = Some(found);
    }

    /// Writes what `rendition` has now into the playlists that it carries on.
    pub(crate) async fn follow(
        &self,
        store: &Store,
        rendition: &str,
        state: State,
        init: &str,
        segments: &[SegmentFile],
    ) {
        let prefix = format!("../../{}/{rendition}/", self.version);
        for heir in self.found.iter().flatten() {
            if heir.rendition == rendition && (segments.len() >= heir.seen || state == State::Ended) {
                write(store, &format!("{}/{LIVE}", heir.folder), media(state, &prefix, init, segments)).await;
            }
        }
    }
}

async fn write(store: &Store, key: &str, text: String) {
    if let Err(error) = store.put(key, Bytes::from(text), "application/vnd.apple.mpegurl").await {
        tracing::warn!(key, %error, "a playlist of a dead attempt was not carried on");
    }
}
