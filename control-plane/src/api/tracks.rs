//! `/v1/tracks`: create, list, show, purge, delete.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::multipart::{FINGERPRINT_MAX, InParts};
use super::request::{Asked, Body, Page, track_id};
use crate::auth::Caller;
use crate::config::{PUT_MAX, UploadsConfig};
use crate::error::ApiError;
use crate::state::{Parts, Shared};
use crate::store::removals::Removal;
use crate::store::tracks::NewTrack;
use crate::store::uploads::{self, UploadRow};
use crate::store::{StoreError, early, keys, removals, tracks, transaction, turn};
use crate::{clock, ids, multipart, objects, sweeper, views};

/// Longest file name and title, in bytes: what file systems take.
const NAME_MAX: usize = 255;

/// Longest name of a publisher, in bytes: a key of the database.
const PUBLISHER_MAX: usize = 128;

/// How long a deletion waits for the bucket before it leaves the rest to the sweep.
const REMOVAL_MAX: Duration = Duration::from_secs(10);

/// Body of `POST /v1/tracks`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Create {
    #[schema(min_length = 1)]
    filename: String,
    /// Size of the file in bytes; the upload must have exactly this.
    size: u64,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    title: Option<String>,
    /// SHA-256 of the whole file, in hex: the store (of one PUT) and the worker hold the file against it.
    #[serde(default)]
    #[schema(pattern = "^[0-9A-Fa-f]{64}$")]
    sha256: Option<String>,
    /// Whether the file travels in parts; by its size where this is left out.
    #[serde(default)]
    multipart: Option<bool>,
    /// What the publisher finds an interrupted upload in parts again by (`GET /v1/uploads`): its own text.
    #[serde(default)]
    fingerprint: Option<String>,
    /// On whose behalf, where one token adds tracks of many: the queue is fair between publishers. The token's own name
    /// where it is left out.
    #[serde(default)]
    publisher: Option<String>,
}

/// Where and how to send the file.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Upload {
    method: String,
    url: String,
    headers: std::collections::BTreeMap<String, String>,
    /// Seconds since the epoch.
    expires: i64,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
enum Way {
    Put(Upload),
    Parts(InParts),
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Created {
    track: views::Track,
    upload: Way,
}

/// A page of tracks.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Tracks {
    tracks: Vec<views::Track>,
    /// The `after` of the next page; `null`: this was the last one.
    next: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Purged {
    track: String,
    /// Edges keep what they fetch from now on under this number.
    generation: u64,
}

impl Create {
    fn check(&self, max_size: u64) -> Result<(), ApiError> {
        let named = |what: &str, text: &str| {
            let fits = !text.trim().is_empty() && text.len() <= NAME_MAX && !text.chars().any(char::is_control);
            if fits {
                return Ok(());
            }
            Err(ApiError::invalid(format!("`{what}` must be 1 to {NAME_MAX} bytes of text without control characters")))
        };
        named("filename", &self.filename)?;
        if let Some(title) = &self.title {
            named("title", title)?;
        }
        if let Some(publisher) = &self.publisher {
            named("publisher", publisher)?;
            if publisher.len() > PUBLISHER_MAX {
                return Err(ApiError::invalid(format!("`publisher` must be at most {PUBLISHER_MAX} bytes")));
            }
        }
        let header = |text: &str| text.len() <= NAME_MAX && http::HeaderValue::from_str(text).is_ok();
        if self.content_type.as_deref().is_some_and(|text| !header(text)) {
            return Err(ApiError::invalid("`content_type` is not a header value"));
        }
        if let Some(sha256) = &self.sha256 {
            let is_hex = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_hex {
                return Err(ApiError::invalid("`sha256` must be the 64 hexadecimal digits of the file's SHA-256"));
            }
        }
        if let Some(fingerprint) = &self.fingerprint {
            named("fingerprint", fingerprint)?;
            if fingerprint.len() > FINGERPRINT_MAX {
                return Err(ApiError::invalid(format!("`fingerprint` must be at most {FINGERPRINT_MAX} bytes")));
            }
        }
        if self.multipart == Some(true) && self.size == 0 {
            return Err(ApiError::invalid("an empty file has no parts: leave `multipart` out"));
        }
        if self.multipart == Some(false) && self.size > PUT_MAX {
            return Err(ApiError::invalid("a file of more than 5 GiB must travel in parts: leave `multipart` out"));
        }
        match self.size {
            // An empty file is taken, so that its job says in the listing what is wrong with it, as for any other bad file.
            size if size > max_size => Err(ApiError::Invalid {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                word: "too-large",
                message: format!("the file has {size} bytes; this house takes at most {max_size}"),
            }),
            _ => Ok(()),
        }
    }

    fn travels_in_parts(&self, config: &UploadsConfig) -> bool {
        self.multipart.unwrap_or_else(|| multipart::in_parts(config, self.size))
    }

    /// The file name's last part without its extension, with spaces for what stands for spaces.
    fn title_from_name(&self) -> String {
        let name = self.filename.rsplit(['/', '\\']).next().unwrap_or(&self.filename);
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let title = stem.replace('_', " ");
        if title.trim().is_empty() { self.filename.clone() } else { title.trim().to_owned() }
    }
}

/// A new track, and where its file goes.
#[utoipa::path(post, path = "/v1/tracks", request_body = Create, responses((status = 201, description = "The track, and where its file goes", body = Created)))]
pub(crate) async fn create(
    State(parts): State<Shared>,
    Extension(caller): Extension<Caller>,
    Body(create): Body<Create>,
) -> Result<(StatusCode, Json<Created>), ApiError> {
    create.check(parts.uploads.max_size)?;
    let id = ids::track()?;
    let upload_key = format!("{}{}", objects::upload_prefix(&id), ids::other()?);
    let content_type = create.content_type.as_deref().filter(|text| !text.is_empty());
    let title = create.title.clone().unwrap_or_else(|| create.title_from_name());
    let new = NewTrack {
        id: &id,
        title: title.trim(),
        title_given: create.title.is_some(),
        filename: &create.filename,
        content_type,
        upload_key: &upload_key,
        bytes: create.size,
        publisher: create.publisher.as_deref().unwrap_or(&caller.name),
    };
    let upload = if create.travels_in_parts(&parts.uploads) {
        let begun = multipart::begin(&parts, &new, create.fingerprint.as_deref()).await?;
        if let Err(error) = insert(&parts, &new, create.sha256.as_deref(), Some(&begun)).await {
            multipart::forget(&parts, &begun).await;
            return Err(error);
        }
        Way::Parts(InParts::begun(&parts, &begun).await?)
    } else {
        let way = Way::Put(put(&parts, &new, create.sha256.as_deref()).await?);
        insert(&parts, &new, create.sha256.as_deref(), None).await?;
        way
    };
    parts.tell_track(&id).await;
    let track = view(&parts, &id).await?;
    Ok((StatusCode::CREATED, Json(Created { track, upload })))
}

/// One signed PUT of the whole file.
async fn put(parts: &Parts, new: &NewTrack<'_>, sha256: Option<&str>) -> Result<Upload, ApiError> {
    let ttl = parts.uploads.url_ttl;
    let digest = sha256.map(multipart::base64_of_hex);
    let put = parts.objects.presign_put(new.upload_key, new.bytes, new.content_type, digest.as_deref(), ttl).await?;
    let expires = clock::now_s() + i64::try_from(ttl.as_secs()).unwrap_or(0);
    Ok(Upload { method: put.method, url: put.url, headers: put.headers, expires })
}

/// The track with what is known of its upload, unless its publisher has too many uploads that are not finished.
async fn insert(
    parts: &Parts,
    new: &NewTrack<'_>,
    sha256: Option<&str>,
    in_parts: Option<&UploadRow>,
) -> Result<(), ApiError> {
    let most = parts.uploads.unfinished;
    transaction!(parts.store, |tx| {
        turn(tx, "uploads").await?;
        if uploads::unfinished(tx, new.publisher).await? >= u64::from(most) {
            return Err(ApiError::Invalid {
                status: StatusCode::TOO_MANY_REQUESTS,
                word: "too-many-uploads",
                message: format!("{most} uploads are begun and not finished: finish some, or give them up"),
            });
        }
        tracks::insert(tx, new, clock::now_ms()).await?;
        if let Some(sha256) = sha256 {
            uploads::declare(tx, new.id, &sha256.to_ascii_lowercase()).await?;
        }
        if let Some(row) = in_parts {
            uploads::insert(tx, row).await?;
        }
        Ok(())
    })
}

/// Newest first.
#[utoipa::path(get, path = "/v1/tracks", params(Page), responses((status = 200, body = Tracks)))]
pub(crate) async fn list(State(parts): State<Shared>, Asked(page): Asked<Page>) -> Result<Json<Tracks>, ApiError> {
    let rows = tracks::list(&parts.store, page.cursor()?, page.limit()).await?;
    let next = page.next(rows.len(), rows.last().map(|row| (row.created_ms, row.id.as_str())));
    let early = early::all(&parts.store).await?;
    let shown = rows.into_iter().map(|row| {
        let early = early.contains_key(&row.id);
        views::Track::new(row, early, &parts.keys, &parts.edge_base)
    });
    Ok(Json(Tracks { tracks: shown.collect(), next }))
}

#[utoipa::path(get, path = "/v1/tracks/{track}", responses((status = 200, body = views::Track)))]
pub(crate) async fn show(State(parts): State<Shared>, Path(id): Path<String>) -> Result<Json<views::Track>, ApiError> {
    Ok(Json(view(&parts, &track_id(id)?).await?))
}

/// The track as the API shows it.
pub(super) async fn view(parts: &Parts, id: &str) -> Result<views::Track, ApiError> {
    parts.track_view(id).await?.ok_or(ApiError::NotFound("track"))
}

/// Makes edges forget what they keep of the track: its next requests go to the bucket.
#[utoipa::path(post, path = "/v1/tracks/{track}/purge", responses((status = 200, body = Purged)))]
pub(crate) async fn purge(State(parts): State<Shared>, Path(id): Path<String>) -> Result<Json<Purged>, ApiError> {
    let id = track_id(id)?;
    if tracks::get(&parts.store, &id).await?.is_none() {
        return Err(ApiError::NotFound("track"));
    }
    let now = clock::now_ms();
    let generation = transaction!(parts.store, |tx| {
        let generation = keys::raise_generation(tx, &id, now).await?;
        keys::raise_revision(tx, now).await?;
        Ok::<u64, StoreError>(generation)
    })?;
    parts.keys.publish(&parts.store).await?;
    Ok(Json(Purged { track: id, generation }))
}

/// Removes a track, its jobs, its objects, and what edges keep of it. Its sums stay.
///
/// The database goes first: from then on nobody gets a ticket, a worker loses its lease, and the removal of the
/// objects is noted, so that a crash or a store that is away only delays it.
#[utoipa::path(delete, path = "/v1/tracks/{track}", responses((status = 204)))]
pub(crate) async fn delete(State(parts): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let id = track_id(id)?;
    let now = clock::now_ms();
    let until_ms = sweeper::last_write(&parts, now);
    let prefixes = [objects::media_prefix(&id), objects::upload_prefix(&id)];
    transaction!(parts.store, |tx| {
        if !tracks::delete(tx, &id).await? {
            return Err(ApiError::NotFound("track"));
        }
        for prefix in &prefixes {
            removals::note(tx, prefix, now, until_ms).await?;
        }
        keys::raise_generation(tx, &id, now).await?;
        keys::raise_revision(tx, now).await?;
        Ok(())
    })?;
    parts.keys.publish(&parts.store).await?;
    parts.bus.tell_deleted(&id);
    let removals = async {
        for prefix in prefixes {
            sweeper::remove(&parts, &Removal::whole(prefix, until_ms)).await?;
        }
        Ok::<(), ApiError>(())
    };
    match tokio::time::timeout(REMOVAL_MAX, removals).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(track.id = id, %error, "the objects of a deleted track remain for now; the sweep removes them");
        }
        Err(_) => tracing::info!(track.id = id, "the objects of a deleted track are many; the sweep removes the rest"),
    }
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn named(filename: &str) -> Create {
        serde_json::from_value(serde_json::json!({ "filename": filename, "size": 1 })).unwrap()
    }

    #[test]
    fn a_title_is_made_from_the_file_name() {
        for (name, title) in [
            ("My_Song.mp3", "My Song"),
            ("C:\\Music\\a.b.flac", "a.b"),
            ("dir/Ein Lied.ogg", "Ein Lied"),
            (".mp3", ".mp3"),
            ("noextension", "noextension"),
        ] {
            assert_eq!(named(name).title_from_name(), title, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_a_file_is_refused_with_its_word() {
        let word = |create: Create| create.check(100).err().map(|error| error.kind());
        assert_eq!(word(named("a.mp3")), None);
        assert_eq!(word(named("")), Some("invalid"));
        assert_eq!(word(named("a\nb")), Some("invalid"));
        assert_eq!(word(named(&"x".repeat(256))), Some("invalid"));
        assert_eq!(word(Create { size: 0, ..named("a") }), None);
        assert_eq!(word(Create { size: 101, ..named("a") }), Some("too-large"));
        assert_eq!(word(Create { content_type: Some("a\r\nb".to_owned()), ..named("a") }), Some("invalid"));
    }
}
