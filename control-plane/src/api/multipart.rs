//! `/v1/tracks/{track}/upload`: an upload in parts, its URLs, what is there of it, and its end; `/v1/uploads`: those that are not finished.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::request::{Asked, Body, Page, track_id};
use crate::auth::{Caller, Scope};
use crate::clock;
use crate::error::ApiError;
use crate::multipart::{self, URLS_MAX};
use crate::state::{Parts, Shared};
use crate::store::tracks::{self, Status};
use crate::store::uploads::{self, UploadRow};
use crate::store::{StoreError, transaction};

/// Longest fingerprint, in bytes.
pub(super) const FINGERPRINT_MAX: usize = 160;

/// Longest tag of a part, in bytes: a key of the database.
const ETAG_MAX: usize = 128;

/// Where one part goes.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct PartUrl {
    number: u32,
    /// Bytes that the part must have: `part_size`, but for the last.
    bytes: u64,
    method: String,
    url: String,
    headers: BTreeMap<String, String>,
    /// Seconds since the epoch.
    expires: i64,
}

/// How to send a file in parts.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct InParts {
    method: &'static str,
    part_size: u64,
    parts: u32,
    /// Of the first parts; more are asked for.
    urls: Vec<PartUrl>,
    /// When the upload is given up, seconds since the epoch.
    expires: i64,
}

impl InParts {
    /// For an upload that was just begun.
    pub(super) async fn begun(parts: &Parts, upload: &UploadRow) -> Result<Self, ApiError> {
        let first: Vec<_> = (1..=upload.parts()).take(URLS_MAX).map(|number| (number, None)).collect();
        Ok(Self {
            method: "MULTIPART",
            part_size: upload.part_bytes(),
            parts: upload.parts(),
            urls: urls(parts, upload, &first).await?,
            expires: expires(parts, upload),
        })
    }
}

fn expires(parts: &Parts, upload: &UploadRow) -> i64 {
    let ttl = i64::try_from(parts.uploads.ttl.as_millis()).unwrap_or(i64::MAX / 4);
    upload.created_ms.saturating_add(ttl) / 1000
}

async fn urls(parts: &Parts, upload: &UploadRow, wanted: &[(u32, Option<String>)]) -> Result<Vec<PartUrl>, ApiError> {
    let expires = clock::now_s() + i64::try_from(parts.uploads.url_ttl.as_secs()).unwrap_or(0);
    let mut urls = Vec::with_capacity(wanted.len());
    for (number, md5) in wanted {
        let (put, bytes) = multipart::presign(parts, upload, *number, md5.as_deref()).await?;
        urls.push(PartUrl { number: *number, bytes, method: put.method, url: put.url, headers: put.headers, expires });
    }
    Ok(urls)
}

/// The upload of a track that still waits for it.
async fn open(parts: &Parts, track: String) -> Result<UploadRow, ApiError> {
    let track = track_id(track)?;
    let row = tracks::get(&parts.store, &track).await?.ok_or(ApiError::NotFound("track"))?;
    let upload = uploads::get(&parts.store, &track).await?;
    upload.filter(|_| row.status == Status::Uploading).ok_or(ApiError::NotFound("upload in parts that waits for any"))
}

/// A part that the store has.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct PresentPart {
    number: u32,
    bytes: Option<u64>,
    etag: Option<String>,
}

/// An upload in parts that waits for some.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct OpenUpload {
    track: String,
    method: &'static str,
    bytes: u64,
    part_size: u64,
    parts: u32,
    /// What the publisher knows the file by.
    fingerprint: Option<String>,
    present: Vec<PresentPart>,
    /// When the upload is given up, seconds since the epoch.
    expires: i64,
}

/// What is there of an upload: whoever was interrupted goes on with the rest.
#[utoipa::path(get, path = "/v1/tracks/{track}/upload", responses((status = 200, body = OpenUpload)))]
pub(crate) async fn show(State(parts): State<Shared>, Path(track): Path<String>) -> Result<Json<OpenUpload>, ApiError> {
    let upload = open(&parts, track).await?;
    let there = multipart::look(&parts, &upload).await?;
    let there = there.iter().filter(|part| multipart::is_there(&upload, part));
    let present = there.map(|part| PresentPart { number: part.number, bytes: part.bytes, etag: part.etag.clone() });
    Ok(Json(OpenUpload {
        method: "MULTIPART",
        bytes: upload.bytes(),
        part_size: upload.part_bytes(),
        parts: upload.parts(),
        present: present.collect(),
        expires: expires(&parts, &upload),
        fingerprint: upload.fingerprint,
        track: upload.track,
    }))
}

/// A part that is about to be sent: its number, or also the MD5 that the store is to hold it against.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
#[schema(as = WantedPart)]
enum Wanted {
    Number(u32),
    Part {
        number: u32,
        /// Base64 (RFC 1864).
        md5: Option<String>,
    },
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WantedParts)]
pub(crate) struct Wish {
    #[schema(min_items = 1, max_items = 64)]
    parts: Vec<Wanted>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct PartUrls {
    parts: Vec<PartUrl>,
}

/// URLs for parts: the next ones, those whose URL expired, those that are sent again.
#[utoipa::path(post, path = "/v1/tracks/{track}/upload/urls", request_body = Wish, responses((status = 200, body = PartUrls)))]
pub(crate) async fn presign(
    State(parts): State<Shared>,
    Path(track): Path<String>,
    Body(wish): Body<Wish>,
) -> Result<Json<PartUrls>, ApiError> {
    if wish.parts.is_empty() || wish.parts.len() > URLS_MAX {
        return Err(ApiError::invalid(format!("`parts` must name 1 to {URLS_MAX} parts")));
    }
    let upload = open(&parts, track).await?;
    let split = |wanted| match wanted {
        Wanted::Number(number) => (number, None),
        Wanted::Part { number, md5 } => (number, md5),
    };
    let wanted: Vec<(u32, Option<String>)> = wish.parts.into_iter().map(split).collect();
    if let Some((number, _)) = wanted.iter().find(|(_, md5)| md5.as_deref().is_some_and(|md5| !multipart::is_md5(md5)))
    {
        return Err(ApiError::invalid(format!("the `md5` of part {number} is not the base64 of 16 bytes")));
    }
    let urls = urls(&parts, &upload, &wanted).await?;
    transaction!(parts.store, |tx| {
        for (number, md5) in &wanted {
            uploads::asked_for(tx, &upload.track, *number, md5.as_deref()).await?;
        }
        Ok::<(), StoreError>(())
    })?;
    Ok(Json(PartUrls { parts: urls }))
}

/// A part that was sent.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SentPart)]
struct Sent {
    #[schema(minimum = 1)]
    number: u32,
    #[schema(min_length = 1)]
    etag: String,
}

/// Which tags the store answered. Left out, they are not compared.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SentParts)]
pub(crate) struct Report {
    #[serde(default)]
    parts: Vec<Sent>,
}

/// Notes the tags that the store answered to parts, so that others under their names are found out.
#[utoipa::path(post, path = "/v1/tracks/{track}/upload/parts", request_body = Report, responses((status = 204, description = "Noted")))]
pub(crate) async fn report(
    State(parts): State<Shared>,
    Path(track): Path<String>,
    Body(report): Body<Report>,
) -> Result<StatusCode, ApiError> {
    let upload = open(&parts, track).await?;
    note(&parts, &upload, &report).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The same, for the call that says that all parts are there.
pub(super) async fn note(parts: &Parts, upload: &UploadRow, report: &Report) -> Result<(), ApiError> {
    for part in &report.parts {
        if upload.bytes_of(part.number).is_none() {
            return Err(multipart::no_such_part(upload, part.number));
        }
        if part.etag.is_empty() || part.etag.len() > ETAG_MAX {
            return Err(ApiError::invalid(format!("the `etag` of part {} must be 1 to {ETAG_MAX} bytes", part.number)));
        }
    }
    if report.parts.is_empty() {
        return Ok(());
    }
    transaction!(parts.store, |tx| {
        for part in &report.parts {
            uploads::said(tx, &upload.track, part.number, &part.etag).await?;
        }
        Ok::<(), StoreError>(())
    })?;
    Ok(())
}

/// Gives an upload up, in parts or not: its track fails, and what came of it goes.
#[utoipa::path(delete, path = "/v1/tracks/{track}/upload", responses((status = 204, description = "Given up"), (status = 409, description = "`upload-over`")))]
pub(crate) async fn abort(State(parts): State<Shared>, Path(track): Path<String>) -> Result<StatusCode, ApiError> {
    let track = track_id(track)?;
    if tracks::get(&parts.store, &track).await?.is_none() {
        return Err(ApiError::NotFound("track"));
    }
    let message = "The upload was given up. Delete the track, or add the file again.";
    if multipart::fail(&parts, &track, "upload-aborted", message).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::conflict("upload-over", "this track does not wait for its upload any more"))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// On whose behalf they were begun; the caller's own where it is left out. Another's only with the scope `read`, which
    /// shows all tracks and their publishers.
    #[serde(default)]
    publisher: Option<String>,
    #[serde(default)]
    fingerprint: Option<String>,
}

/// An upload in parts that is not finished.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Unfinished {
    track: String,
    filename: String,
    bytes: u64,
    part_size: u64,
    parts: u32,
    fingerprint: Option<String>,
    created_ms: i64,
    /// When it is given up, seconds since the epoch.
    expires: i64,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct UnfinishedUploads {
    uploads: Vec<Unfinished>,
    /// The `after` of the next page; `null`: this was the last one.
    next: Option<String>,
}

/// The caller's unfinished uploads in parts (or those of a `publisher`), newest first.
#[utoipa::path(get, path = "/v1/uploads", params(Which, Page), responses((status = 200, body = UnfinishedUploads)))]
pub(crate) async fn list(
    State(parts): State<Shared>,
    Extension(caller): Extension<Caller>,
    Asked(which): Asked<Which>,
    Asked(page): Asked<Page>,
) -> Result<Json<UnfinishedUploads>, ApiError> {
    let publisher = which.publisher.as_deref().unwrap_or(&caller.name);
    // A token's own name is all that binds it to a publisher: what others upload is for those who may see every track.
    if publisher != caller.name && !caller.has(Scope::Read) {
        return Err(ApiError::Forbidden(Scope::Read.word()));
    }
    let (fingerprint, after) = (which.fingerprint.as_deref(), page.cursor()?);
    let rows = uploads::of_publisher(&parts.store, publisher, fingerprint, after, page.limit()).await?;
    let last = rows.last().map(|(upload, _)| (upload.created_ms, upload.track.as_str()));
    let next = page.next(rows.len(), last);
    let shown = rows.into_iter().map(|(upload, filename)| Unfinished {
        filename,
        bytes: upload.bytes(),
        part_size: upload.part_bytes(),
        parts: upload.parts(),
        created_ms: upload.created_ms,
        expires: expires(&parts, &upload),
        fingerprint: upload.fingerprint,
        track: upload.track,
    });
    Ok(Json(UnfinishedUploads { uploads: shown.collect(), next }))
}
