//! Tracks: what was uploaded, what became of it, and what listeners can be given.

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{FromRow, Row};

use super::{Store, StoreError, Write, webhooks};

/// Where a track is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = TrackStatus)]
pub(crate) enum Status {
    Uploading,
    Queued,
    Transcoding,
    Ready,
    Failed,
}

impl Status {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Uploading => "uploading",
            Self::Queued => "queued",
            Self::Transcoding => "transcoding",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        Ok(match text {
            "uploading" => Self::Uploading,
            "queued" => Self::Queued,
            "transcoding" => Self::Transcoding,
            "ready" => Self::Ready,
            "failed" => Self::Failed,
            other => return Err(StoreError::Unknown { column: "tracks.status", value: other.to_owned() }),
        })
    }
}

/// One encoded rendition, as the transcoder reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Rendition {
    /// Folder name: `a64`, `a128`, `a256`.
    pub(crate) name: String,
    /// Peak bits per second (RFC 8216, section 4.3.4.2).
    pub(crate) bandwidth: u64,
    /// Average bits per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) average_bandwidth: Option<u64>,
    /// RFC 6381 codecs.
    pub(crate) codecs: String,
    /// What its samples were raised or lowered by, in dB; absent for a lossless one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gain_db: Option<f64>,
    /// Width and height of a film's picture, as `640x360`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resolution: Option<String>,
    /// Pictures per second of a film.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) frame_rate: Option<f64>,
}

/// EBU R128 figures of the source and what was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Loudness {
    pub(crate) input_lufs: f64,
    pub(crate) input_true_peak: f64,
    pub(crate) gain_db: f64,
}

/// A row of `tracks`, with the progress of its last job and its sums.
#[derive(Clone, Debug)]
pub(crate) struct TrackRow {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) artist: Option<String>,
    pub(crate) album: Option<String>,
    pub(crate) filename: String,
    pub(crate) status: Status,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) upload_key: String,
    /// Declared size of the upload, in bytes.
    pub(crate) bytes: u64,
    pub(crate) duration_ms: Option<u64>,
    pub(crate) version: Option<String>,
    pub(crate) artwork: bool,
    pub(crate) waveform: bool,
    pub(crate) loudness: Option<Loudness>,
    pub(crate) renditions: Vec<Rendition>,
    pub(crate) created_ms: i64,
    pub(crate) progress: f64,
    pub(crate) stage: Option<String>,
    pub(crate) plays: u64,
    pub(crate) qualified: u64,
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The database's integers are signed; a size or count beyond that does not occur and is held at the end of the range.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl TrackRow {
    fn read(row: &AnyRow) -> Result<Self, StoreError> {
        let json = |text: Option<String>| -> Result<Option<Loudness>, StoreError> {
            Ok(text.as_deref().map(serde_json::from_str).transpose()?)
        };
        Ok(Self {
            id: row.try_get("id")?,
            title: row.try_get("title")?,
            artist: row.try_get("artist")?,
            album: row.try_get("album")?,
            filename: row.try_get("filename")?,
            status: Status::parse(row.try_get("status")?)?,
            reason: row.try_get("reason")?,
            message: row.try_get("message")?,
            upload_key: row.try_get("upload_key")?,
            bytes: unsigned(row.try_get("bytes")?),
            duration_ms: row.try_get::<Option<i64>, _>("duration_ms")?.map(unsigned),
            version: row.try_get("version")?,
            artwork: row.try_get::<i64, _>("artwork")? != 0,
            waveform: row.try_get::<i64, _>("waveform")? != 0,
            loudness: json(row.try_get("loudness")?)?,
            renditions: serde_json::from_str(row.try_get("renditions")?)?,
            created_ms: row.try_get("created_ms")?,
            progress: row.try_get("progress")?,
            stage: row.try_get("stage")?,
            plays: unsigned(row.try_get("plays")?),
            qualified: unsigned(row.try_get("qualified")?),
        })
    }
}

impl FromRow<'_, AnyRow> for TrackRow {
    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Self::read(row).map_err(|error| match error {
            StoreError::Sql(error) => error,
            other => sqlx::Error::Decode(Box::new(other)),
        })
    }
}

/// The columns of [`TrackRow`]: the last job is the one created last, the sums are the row of the total.
macro_rules! select_tracks {
    ($rest:literal) => {
        concat!(
            "SELECT t.id, t.title, t.artist, t.album, t.filename, t.status, t.reason, t.message, \
             t.upload_key, t.bytes, t.duration_ms, t.version, t.artwork, t.waveform, t.loudness, t.renditions, \
             t.created_ms, CASE WHEN t.status = 'ready' THEN 1.0 ELSE COALESCE(j.progress, 0.0) END AS progress, \
             CASE WHEN t.status IN ('queued', 'transcoding') THEN j.stage END AS stage, \
             COALESCE(s.plays, 0) AS plays, COALESCE(s.qualified, 0) AS qualified \
             FROM tracks t \
             LEFT JOIN jobs j ON j.id = (SELECT l.id FROM jobs l WHERE l.track = t.id \
             ORDER BY l.created_ms DESC, l.id DESC LIMIT 1) \
             LEFT JOIN sums s ON s.track = t.id AND s.hour_ms = -1 ",
            $rest
        )
    };
}

/// What a new track is made of.
#[derive(Debug)]
pub(crate) struct NewTrack<'a> {
    pub(crate) id: &'a str,
    pub(crate) title: &'a str,
    /// Whether the publisher named it; else the title is made from the file name, until tags say better.
    pub(crate) title_given: bool,
    pub(crate) filename: &'a str,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) upload_key: &'a str,
    pub(crate) bytes: u64,
    /// On whose behalf it is added.
    pub(crate) publisher: &'a str,
}

pub(crate) async fn insert(tx: &mut Write, new: &NewTrack<'_>, now: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO tracks (id, title, title_given, filename, content_type, status, upload_key, bytes, publisher, \
         created_ms, updated_ms) VALUES (?, ?, ?, ?, ?, 'uploading', ?, ?, ?, ?, ?)",
    )
    .bind(new.id)
    .bind(new.title)
    .bind(i64::from(new.title_given))
    .bind(new.filename)
    .bind(new.content_type)
    .bind(new.upload_key)
    .bind(signed(new.bytes))
    .bind(new.publisher)
    .bind(now)
    .bind(now)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(crate) async fn get(store: &Store, id: &str) -> Result<Option<TrackRow>, StoreError> {
    Ok(sqlx::query_as(select_tracks!("WHERE t.id = ?")).bind(id).fetch_optional(store.read()).await?)
}

/// Newest first. `before` is the creation time and id of the last track of the page before.
pub(crate) async fn list(store: &Store, before: Option<(i64, &str)>, limit: u32) -> Result<Vec<TrackRow>, StoreError> {
    let (created, id) = before.unwrap_or((i64::MAX, ""));
    Ok(sqlx::query_as(select_tracks!(
        "WHERE t.created_ms < ? OR (t.created_ms = ? AND t.id < ?) ORDER BY t.created_ms DESC, t.id DESC LIMIT ?"
    ))
    .bind(created)
    .bind(created)
    .bind(id)
    .bind(i64::from(limit))
    .fetch_all(store.read())
    .await?)
}

/// Moves a track from one status to another. `false`: it was not (or no longer) in `from`, nothing changed.
pub(crate) async fn transition(
    tx: &mut Write,
    id: &str,
    from: Status,
    to: Status,
    now: i64,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE tracks SET status = ?, reason = NULL, message = NULL, updated_ms = ? WHERE id = ? AND status = ?",
    )
    .bind(to.word())
    .bind(now)
    .bind(id)
    .bind(from.word())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Sets the status that follows from the track's job, with the reason and message of a failure.
pub(crate) async fn follow_job(
    tx: &mut Write,
    id: &str,
    to: Status,
    why: Option<(&str, &str)>,
    now: i64,
) -> Result<(), StoreError> {
    let (reason, message) = why.unzip();
    sqlx::query("UPDATE tracks SET status = ?, reason = ?, message = ?, updated_ms = ? WHERE id = ?")
        .bind(to.word())
        .bind(reason)
        .bind(message)
        .bind(now)
        .bind(id)
        .execute(&mut **tx)
        .await?;
    if to == Status::Failed {
        tell_failed(tx, id, why).await?;
    }
    Ok(())
}

async fn tell_failed(tx: &mut Write, id: &str, why: Option<(&str, &str)>) -> Result<(), StoreError> {
    let (reason, message) = why.unzip();
    let data = serde_json::json!({ "track": id, "reason": reason, "message": message });
    webhooks::tell(tx, "track.failed", &[(id.to_owned(), data)]).await
}

/// Fails a track that waits for its upload. `false`: it does not (any more), nothing changed.
pub(crate) async fn fail_upload(
    tx: &mut Write,
    id: &str,
    reason: &str,
    message: &str,
    now: i64,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE tracks SET status = 'failed', reason = ?, message = ?, updated_ms = ? WHERE id = ? AND status = 'uploading'",
    )
    .bind(reason)
    .bind(message)
    .bind(now)
    .bind(id)
    .execute(&mut **tx)
    .await?;
    let failed = done.rows_affected() == 1;
    if failed {
        tell_failed(tx, id, Some((reason, message))).await?;
    }
    Ok(failed)
}

/// What the transcoder made of the upload.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Published {
    /// Immutable folder under the track.
    pub(crate) version: String,
    pub(crate) duration_ms: u64,
    /// Text of the alias `master.m3u8`.
    pub(crate) master: String,
    #[serde(default)]
    pub(crate) renditions: Vec<Rendition>,
    #[serde(default)]
    pub(crate) title: Option<String>,
    #[serde(default)]
    pub(crate) artist: Option<String>,
    #[serde(default)]
    pub(crate) album: Option<String>,
    #[serde(default)]
    pub(crate) artwork: bool,
    #[serde(default)]
    pub(crate) waveform: bool,
    #[serde(default)]
    pub(crate) loudness: Option<Loudness>,
}

/// Makes a track ready with what was published. A title given at upload stays; else the file's own tag has it.
pub(crate) async fn publish(tx: &mut Write, id: &str, published: &Published, now: i64) -> Result<(), StoreError> {
    let title = published.title.as_deref().map(str::trim).filter(|title| !title.is_empty());
    let loudness = published.loudness.as_ref().map(serde_json::to_string).transpose()?;
    sqlx::query(
        "UPDATE tracks SET status = 'ready', reason = NULL, message = NULL, \
         title = CASE WHEN title_given = 1 THEN title ELSE COALESCE(?, title) END, artist = ?, \
         album = ?, duration_ms = ?, version = ?, artwork = ?, waveform = ?, loudness = ?, renditions = ?, \
         updated_ms = ? WHERE id = ?",
    )
    .bind(title)
    .bind(&published.artist)
    .bind(&published.album)
    .bind(signed(published.duration_ms))
    .bind(&published.version)
    .bind(i64::from(published.artwork))
    .bind(i64::from(published.waveform))
    .bind(loudness)
    .bind(serde_json::to_string(&published.renditions)?)
    .bind(now)
    .bind(id)
    .execute(&mut **tx)
    .await?;
    let (version, duration_ms) = (&published.version, published.duration_ms);
    let data = serde_json::json!({ "track": id, "version": version, "duration_ms": duration_ms });
    webhooks::tell(tx, "track.ready", &[(format!("{id}/{version}"), data)]).await
}

/// Removes a track and its jobs. `false`: there was none.
pub(crate) async fn delete(tx: &mut Write, id: &str) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM tracks WHERE id = ?").bind(id).execute(&mut **tx).await?;
    Ok(done.rows_affected() == 1)
}

/// Fails uploads that were begun before `older_than` and never completed; answers their ids. At most 100 at a time,
/// so that a sweep stays short; the next one takes the rest.
pub(crate) async fn fail_abandoned(tx: &mut Write, older_than: i64, now: i64) -> Result<Vec<String>, StoreError> {
    let old: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM tracks WHERE status = 'uploading' AND created_ms < ? ORDER BY created_ms LIMIT 100",
    )
    .bind(older_than)
    .fetch_all(&mut **tx)
    .await?;
    let mut failed = Vec::with_capacity(old.len());
    for id in old {
        let message = "The file was never completely uploaded. Delete the track and add it again.";
        if fail_upload(tx, &id, "upload-abandoned", message, now).await? {
            failed.push(id);
        }
    }
    Ok(failed)
}
