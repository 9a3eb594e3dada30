//! Playlists for listeners whose ticket travels in the query, where relative URIs do not inherit it.
//!
//! | `playlist`  | ticket in the path      | in the query                        | `Authorization`       | cookie |
//! |-------------|-------------------------|-------------------------------------|-----------------------|--------|
//! | `"path"`    | as it is                | as it is                            | as it is              | as it is |
//! | `"define"`  | as it is                | the player adds it; same bytes for all | as it is           | as it is |
//! | `"rewrite"` | URIs that would lose it | every URI                           | every URI             | as it is |
//!
//! A cookie stays out of playlists: scripts may read those, and may be meant not to read it.
//!
//! Invariants: what is decided here depends on the admitted request alone; a rewritten playlist is an object of its
//! own, with its length, an ETag over its very bytes, no `Last-Modified` (which would not change with the rules by
//! which it was made) and no ranges; one that holds a listener's ticket is for no cache at all. What comes out of
//! [`Way::Define`] is made once, when the playlist enters the memory, and weighs there.
//!
//! On failure: [`Refusal::Playlist`] before the first byte. What is no playlist in spite of its name goes out as it is.

pub(crate) mod rewrite;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderValue};
use segue_events::CacheState;
use sha2::{Digest, Sha256};

use crate::cache::{Found, Meta, Object};
use crate::config::PlaylistMode;
use crate::edge::Shared;
use crate::exchange::{Asked, Exchange};
use crate::origin::Want;
use crate::refusal::{OriginFailure, Refusal};
use crate::route::{Line, ObjectKind, Target, content_type};
use crate::ticket::{self, Carrier};
use crate::upstream;
use rewrite::{RewriteError, Rewriter, Summary, Way};

/// Bytes of a playlist that is not for the cache (a private one, of an HTTP origin): it is read whole before it is
/// rewritten. Those for the cache have `[cache] max_object`.
const PASSED_MAX: usize = 8 << 20;
/// Bytes of an ETag's hash: enough that two states of one playlist never share it.
const TAG_BYTES: usize = 12;

/// How one listener gets a playlist. No `Debug`: it holds a ticket.
pub(crate) struct Presentation {
    mode: Rewritten,
    /// By which the listener knows this edge, with its port.
    host: Option<Box<str>>,
}

enum Rewritten {
    Define,
    With { ticket: Box<str>, inherited: bool },
}

/// What an admitted request for `target` needs. `None`: the object as it is, as every segment is.
pub(crate) fn presentation(
    mode: PlaylistMode,
    target: &Target,
    line: &Line<'_>,
    asked: Asked<'_>,
) -> Option<Box<Presentation>> {
    if mode == PlaylistMode::Path || !target.kind.is_playlist() {
        return None;
    }
    let (carrier, ticket) = ticket::carried(line, asked.headers)?;
    let mode = match (mode, carrier) {
        (PlaylistMode::Define, Carrier::Query) => Rewritten::Define,
        (PlaylistMode::Rewrite, Carrier::Query | Carrier::Header | Carrier::Path) => {
            Rewritten::With { ticket: ticket.into(), inherited: carrier == Carrier::Path }
        }
        _ => return None,
    };
    let host = asked.headers.get(HOST).and_then(|host| host.to_str().ok()).or(asked.authority);
    Some(Box::new(Presentation { mode, host: host.map(Into::into) }))
}

/// What memory holds, as this listener gets it. Waits for nothing.
pub(crate) fn at_once(exchange: &Exchange, fresh: Option<Result<Found, Refusal>>) -> Option<Result<Found, Refusal>> {
    match (&exchange.presentation, fresh) {
        (Some(presentation), Some(Ok(Found::Memory(object, state)))) => {
            Some(presentation.of(&object, exchange).map(|object| Found::Memory(object, state)))
        }
        (_, fresh) => fresh,
    }
}

/// What the origin gave, as this listener gets it: a playlist that is rewritten is awaited to its end first.
///
/// # Errors
/// Those of the fill, and [`Refusal::Playlist`].
pub(crate) async fn presented(shared: &Shared, exchange: &Exchange, found: Found) -> Result<Found, Refusal> {
    let Some(presentation) = &exchange.presentation else { return Ok(found) };
    let (object, state) = match found {
        Found::Memory(object, state) => (object, state),
        Found::Filling(_, mut reader, state) => (reader.whole().await?, state),
        // A playlist as large as what is read in parts is one that cannot be rewritten either.
        Found::Disk(_) => return Err(Refusal::Playlist(RewriteError::TooLarge.kind())),
        Found::Pass | Found::Handed(_) => (Arc::new(passed(shared, exchange).await?), CacheState::Bypass),
    };
    Ok(Found::Memory(presentation.of(&object, exchange)?, state))
}

/// Gets a playlist ready that enters the memory: what every listener shares is made here, once.
pub(crate) fn prepared(shared: &Shared, target: &Target, mut object: Object) -> Object {
    if !target.kind.is_playlist() || object.status() != StatusCode::OK {
        return object;
    }
    match mode(shared, target) {
        PlaylistMode::Path if shared.config.tickets.required => count_escapes(shared, target, &object),
        PlaylistMode::Define => {
            // Where it fails, or depends on the host, each request sees to it by itself.
            let made = made(&object, Way::Define, None).ok().filter(|(_, summary)| !summary.by_host);
            object.defined = made.map(|(object, _)| Arc::new(object));
        }
        PlaylistMode::Path | PlaylistMode::Rewrite => {}
    }
    object
}

/// The mode of the route that `target` came by.
pub(crate) fn mode(shared: &Shared, target: &Target) -> PlaylistMode {
    shared.routes.get(target.route).map_or(shared.config.tickets.playlist, |route| route.playlist)
}

/// Once for each time that a playlist comes from the origin.
fn count_escapes(shared: &Shared, target: &Target, object: &Object) {
    let mut rewriter = Rewriter::new(Way::Path, None);
    let mut unused = Vec::with_capacity(object.body.len());
    let summary = rewriter.push(&object.body, &mut unused).and_then(|()| rewriter.finish(&mut unused));
    let escapes = summary.map_or(0, |summary| summary.escapes);
    if escapes > 0 {
        shared.metrics.playlist_escapes.add(1);
        tracing::warn!(
            path = target.path.as_str(),
            uris = escapes,
            "a playlist has root-absolute or absolute URIs, which a ticket in the path does not reach; write them relative, or set playlist = \"rewrite\""
        );
    }
}

impl Presentation {
    /// `object` as this listener gets it.
    fn of(&self, object: &Arc<Object>, exchange: &Exchange) -> Result<Arc<Object>, Refusal> {
        let way = match &self.mode {
            Rewritten::Define => Way::Define,
            Rewritten::With { ticket, inherited } => Way::Rewrite { ticket, inherited: *inherited },
        };
        if object.status() != StatusCode::OK {
            // An origin's own error or redirect names no media.
            return Ok(Arc::clone(object));
        }
        if let (Way::Define, Some(defined)) = (way, &object.defined) {
            return Ok(Arc::clone(defined));
        }
        match made(object, way, self.host.as_deref()) {
            Ok((object, _)) => Ok(Arc::new(object)),
            Err(Unusable::Rewrite(RewriteError::NotAPlaylist)) => Ok(Arc::clone(object)),
            Err(problem) => {
                let path = exchange.target.as_ref().map_or("-", |target| target.path.as_str());
                tracing::warn!(path, %problem, reason = problem.kind(), "a playlist cannot be given its ticket");
                Err(Refusal::Playlist(problem.kind()))
            }
        }
    }
}

/// Why a playlist cannot be presented.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    #[error("it is stored compressed; store it as it is, or use playlist = \"path\"")]
    Encoded,
}

impl Unusable {
    fn kind(&self) -> &'static str {
        match self {
            Self::Rewrite(error) => error.kind(),
            Self::Encoded => "playlist-encoded",
        }
    }
}

/// `object` rewritten, as an object of its own.
fn made(object: &Object, way: Way<'_>, host: Option<&str>) -> Result<(Object, Summary), Unusable> {
    if object.meta.content_encoding.is_some() {
        return Err(Unusable::Encoded);
    }
    let mut body = Vec::with_capacity(object.body.len() * 2);
    let mut rewriter = Rewriter::new(way, host);
    rewriter.push(&object.body, &mut body)?;
    let summary = rewriter.finish(&mut body)?;
    body.shrink_to_fit();
    let private = HeaderValue::from_static("private, no-store");
    let meta = Meta {
        length: Some(body.len() as u64),
        etag: tag(&body),
        last_modified: None,
        cache_control: if way == Way::Define { object.meta.cache_control.clone() } else { private },
        whole_only: true,
        // What an HTTP origin says beside it (its own lifetime, digests) is about other bytes.
        http: None,
        ..object.meta.clone()
    };
    Ok((Object::new(meta, Bytes::from(body), object.since), summary))
}

/// A strong entity tag over the bytes themselves.
fn tag(body: &[u8]) -> Option<HeaderValue> {
    let hash = Sha256::digest(body);
    let mut text = String::with_capacity(2 + TAG_BYTES * 2);
    text.push('"');
    for byte in hash.iter().take(TAG_BYTES) {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    text.push('"');
    HeaderValue::from_str(&text).ok()
}

/// A playlist that is not for the cache, read whole. Conditions and ranges speak of what comes out of it, so none of
/// them goes to the origin.
async fn passed(shared: &Shared, exchange: &Exchange) -> Result<Object, Refusal> {
    let target = exchange.target.as_ref().ok_or(Refusal::NoRoute)?;
    let route = shared.routes.get(target.route).ok_or(Refusal::NoRoute)?;
    let origin = upstream::origin(shared, exchange)?;
    let key = route.key(target.path.as_str(), target.track(), target.file());
    let mut answer = origin.get(&Want { key: &key, query: exchange.query.as_deref(), headers: &[] }).await?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::GONE => return Err(Refusal::NotFound),
        _ => return Err(OriginFailure::NotAnObject.into()),
    }
    let mut body = Vec::new();
    while let Some(piece) = answer.body.piece().await? {
        if body.len() + piece.len() > PASSED_MAX {
            return Err(Refusal::Playlist(RewriteError::TooLarge.kind()));
        }
        body.extend_from_slice(&piece);
    }
    let header = |name| answer.head.headers.get(name).cloned();
    let declared = header(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|declared| declared != body.len()) {
        return Err(OriginFailure::Broken.into());
    }
    let meta = Meta {
        length: Some(body.len() as u64),
        etag: None,
        last_modified: None,
        content_type: HeaderValue::from_static(content_type(target.file())),
        content_encoding: header(CONTENT_ENCODING).filter(|value| value != "identity"),
        cache_control: header(CACHE_CONTROL).unwrap_or_else(|| HeaderValue::from_static("private, no-store")),
        fresh_for: Duration::ZERO,
        initial_age: Duration::ZERO,
        http: None,
        whole_only: true,
    };
    Ok(Object::new(meta, Bytes::from(body), Instant::now()))
}

impl ObjectKind {
    /// Whether it names other objects.
    pub(crate) fn is_playlist(self) -> bool {
        matches!(self, Self::Master | Self::Playlist)
    }
}
