//! Publishing: every object of a version into the store, then nothing.
//!
//! Order: init and media segments, waveform and cover first, in parallel; the media playlists only after the store has
//! acknowledged all of them; the alias is the control plane's, after this. No playlist ever names what is not there.
//!
//! Invariants: objects go only under `hls/<track>/<version>/`, and the version ends in the attempt's fence, so that a
//! late worker cannot mix its bytes into another attempt's folder.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::artwork::COVER;
use crate::encode::{INDEX, Rendition};
use crate::ladder::Rung;
use crate::lease::{Reporter, Stage};
use crate::measure::{CEILING, TARGET};
use crate::reject::{Failure, Halt, Reason, disk};
use crate::source::{hex, ratio};
use crate::store::Store;

/// Uploads at once: enough to hide a round trip, few enough to keep a small server alive.
const UPLOADS: usize = 8;
/// Raised whenever the same source and settings would give other bytes.
const REVISION: u32 = 1;

/// The name of the version: what went in, how, by what, and which attempt.
pub(crate) fn version(source_sha256: &str, rungs: &[Rung], encoder: &str, fence: i64) -> String {
    let ladder: Vec<String> = rungs.iter().map(|rung| rung.bit_rate.to_string()).collect();
    let settings = format!(
        "segue {REVISION}; aac {}; segment {}; target {TARGET}; ceiling {CEILING}",
        ladder.join(","),
        crate::encode::SEGMENT
    );
    let hash = Sha256::digest(format!("{source_sha256}\n{settings}\n{encoder}"));
    format!("{}-{fence}", hex(&hash[..8]))
}

struct Object {
    key: String,
    body: Body,
    content_type: &'static str,
}

enum Body {
    File(PathBuf),
    Bytes(Bytes),
}

/// Uploads a version whole; `Ok` means that every object of it was acknowledged.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different thing that a job owns; a struct would only rename them"
)]
pub(crate) async fn publish(
    store: &Store,
    track: &str,
    version: &str,
    folder: &Path,
    renditions: &[Rendition],
    waveform: Vec<u8>,
    cover: Option<&Path>,
    cancel: &CancellationToken,
    progress: &Reporter,
) -> Result<(), Halt> {
    progress.at(Stage::Publish, 0.0);
    let root = format!("hls/{track}/{version}");
    let file = |rendition: &Rendition, name: &str, content_type| Object {
        key: format!("{root}/{}/{name}", rendition.name),
        body: Body::File(folder.join(&rendition.name).join(name)),
        content_type,
    };
    let mut media = vec![Object {
        key: format!("{root}/waveform.json"),
        body: Body::Bytes(Bytes::from(waveform)),
        content_type: "application/json",
    }];
    if let Some(cover) = cover {
        media.push(Object {
            key: format!("{root}/{COVER}"),
            body: Body::File(cover.to_owned()),
            content_type: "image/jpeg",
        });
    }
    for rendition in renditions {
        media.push(file(rendition, &rendition.init, "audio/mp4"));
        media.extend(rendition.segments.iter().map(|segment| file(rendition, &segment.name, "audio/mp4")));
    }
    let playlists: Vec<Object> =
        renditions.iter().map(|rendition| file(rendition, INDEX, "application/vnd.apple.mpegurl")).collect();
    let all = media.len() + playlists.len();
    let mut sent = 0;
    for batch in [media, playlists] {
        let uploads = stream::iter(batch).map(|object| upload(store, object)).buffer_unordered(UPLOADS);
        let uploads = uploads.try_for_each(|()| {
            sent += 1;
            progress.at(Stage::Publish, ratio(sent, all as u64) * 0.98);
            futures::future::ready(Ok(()))
        });
        tokio::select! {
            () = cancel.cancelled() => return Err(Halt::Cancelled),
            uploaded = uploads => uploaded?,
        }
    }
    Ok(())
}

async fn upload(store: &Store, object: Object) -> Result<(), Failure> {
    let body = match object.body {
        Body::Bytes(bytes) => bytes,
        Body::File(path) => Bytes::from(tokio::fs::read(&path).await.map_err(|error| disk("read an output", &error))?),
    };
    store.put(&object.key, body, object.content_type).await.map_err(|error| {
        let message = "The result could not be written to the object store.";
        Failure::new(Reason::StoreUnavailable, message).because(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::ladder;

    #[test]
    fn a_version_changes_with_each_of_its_causes() {
        let base = version("aa", &ladder(None), "ffmpeg version 5.1", 3);
        let (hash, fence) = base.split_once('-').expect("fence");
        assert_eq!((hash.len(), fence), (16, "3"));
        assert_eq!(base, version("aa", &ladder(None), "ffmpeg version 5.1", 3));
        for other in [
            version("ab", &ladder(None), "ffmpeg version 5.1", 3),
            version("aa", &ladder(Some(64_000)), "ffmpeg version 5.1", 3),
            version("aa", &ladder(None), "ffmpeg version 6", 3),
        ] {
            assert_ne!(other.split('-').next(), Some(hash));
        }
        assert_eq!(version("aa", &ladder(None), "ffmpeg version 5.1", 4), format!("{hash}-4"));
    }
}
