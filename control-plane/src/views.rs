//! Tracks and jobs as the API shows them: the JSON of routes and of events.

use serde::Serialize;

use crate::clock;
use crate::keys::Keys;
use crate::store::jobs::{JobRow, State};
use crate::store::tracks::{Loudness, Rendition, Status, TrackRow};

/// A track. Times are milliseconds since the epoch.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Track {
    pub(crate) track: String,
    pub(crate) title: String,
    pub(crate) artist: Option<String>,
    pub(crate) album: Option<String>,
    pub(crate) filename: String,
    pub(crate) status: Status,
    /// Word for the failure.
    pub(crate) reason: Option<String>,
    /// Sentence for a person.
    pub(crate) message: Option<String>,
    pub(crate) created_ms: i64,
    /// Declared size of the upload.
    pub(crate) bytes: u64,
    pub(crate) duration_ms: Option<u64>,
    pub(crate) version: Option<String>,
    /// Whether a ticket leads to something: the track is ready, or can be played while it is encoded.
    pub(crate) playable: bool,
    /// 0 to 1.
    pub(crate) progress: f64,
    pub(crate) stage: Option<String>,
    /// Signed URL on the edge.
    pub(crate) artwork: Option<String>,
    /// Signed URL on the edge.
    pub(crate) waveform: Option<String>,
    pub(crate) loudness: Option<Loudness>,
    pub(crate) renditions: Vec<Rendition>,
    pub(crate) plays: u64,
    pub(crate) qualified: u64,
}

impl Track {
    /// `early`: it can be played though it is not ready.
    pub(crate) fn new(row: TrackRow, early: bool, keys: &Keys, edge_base: &str) -> Self {
        let object = |there: bool, name: &str| {
            let version = row.version.as_deref().filter(|_| there)?;
            keys.object_url(edge_base, &format!("/hls/{}/{version}/{name}", row.id), clock::now_s())
        };
        Self {
            artwork: object(row.artwork, "cover.jpg"),
            waveform: object(row.waveform, "waveform.json"),
            playable: early || row.status == Status::Ready,
            track: row.id,
            title: row.title,
            artist: row.artist,
            album: row.album,
            filename: row.filename,
            status: row.status,
            reason: row.reason,
            message: row.message,
            created_ms: row.created_ms,
            bytes: row.bytes,
            duration_ms: row.duration_ms,
            version: row.version,
            progress: row.progress,
            stage: row.stage,
            loudness: row.loudness,
            renditions: row.renditions,
            plays: row.plays,
            qualified: row.qualified,
        }
    }
}

/// A job.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Job {
    pub(crate) job: String,
    pub(crate) track: String,
    /// On whose behalf the track was added.
    pub(crate) publisher: String,
    pub(crate) state: State,
    pub(crate) priority: i64,
    pub(crate) attempts: u32,
    pub(crate) max_attempts: u32,
    /// Times that its worker was lost; not among the attempts.
    pub(crate) losses: u32,
    pub(crate) progress: f64,
    pub(crate) stage: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) created_ms: i64,
    pub(crate) updated_ms: i64,
}

impl From<&JobRow> for Job {
    fn from(row: &JobRow) -> Self {
        Self {
            job: row.id.clone(),
            track: row.track.clone(),
            publisher: row.publisher.clone(),
            state: row.state,
            priority: row.priority,
            attempts: row.attempts,
            max_attempts: row.max_attempts,
            losses: row.losses,
            progress: row.progress,
            stage: row.stage.clone(),
            reason: row.reason.clone(),
            message: row.message.clone(),
            created_ms: row.created_ms,
            updated_ms: row.updated_ms,
        }
    }
}
