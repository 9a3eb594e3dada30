//! `GET /v1/facts`: facts and denials that are kept, and plays, as JSON lines.
//!
//! Memory is bounded however much is asked for: a thread of its own unpacks a little at a time and waits for the client. A failure in the middle
//! breaks the answer off, so that no client takes a part for the whole.

use std::io;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::request::Asked;
use crate::clock;
use crate::error::ApiError;
use crate::kept::{self, Kind, Span};
use crate::plays::rule::Play;
use crate::state::Shared;
use crate::store::sums::HOUSE;
use crate::store::{StoreError, plays, sums};
use crate::tally;

/// Bytes of one piece of the answer.
const PIECE: usize = 64 * 1024;

/// Pieces that wait for the client.
const PIECES: usize = 4;

/// Plays that are read at a time.
const PLAYS: u32 = 1000;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// `facts`, `denials` or `plays`.
    #[serde(default = "facts")]
    #[param(pattern = "^(facts|denials|plays)$")]
    kind: String,
    /// Times, ms since the epoch: from this on, up to but not this.
    #[serde(default)]
    from: Option<i64>,
    #[serde(default)]
    to: Option<i64>,
    /// From this record on, by the number that `segue-next` named.
    #[serde(default)]
    position: u64,
    /// Of this track alone.
    #[serde(default)]
    track: Option<String>,
}

fn facts() -> String {
    Kind::Facts.word().to_owned()
}

/// One answer's head: how many records the tally counted in these hours, where that is known (some of them may be kept no more), and the number
/// to go on from.
fn answer(body: Body, counted: Option<i64>, next: Option<u64>) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(counted) = counted {
        headers.insert("segue-counted", HeaderValue::from(counted));
    }
    if let Some(next) = next {
        headers.insert("segue-next", HeaderValue::from(next));
    }
    response
}

#[utoipa::path(get, path = "/v1/facts", params(Wanted), responses((status = 200, description = "One JSON record a line", body = String, content_type = "application/x-ndjson")))]
pub(crate) async fn export(State(parts): State<Shared>, Asked(wanted): Asked<Wanted>) -> Result<Response, ApiError> {
    let (from, to) = (wanted.from.unwrap_or(i64::MIN), wanted.to.unwrap_or(i64::MAX));
    let seat = std::sync::Arc::clone(&parts.streams).try_acquire_owned().map_err(|_| ApiError::Busy {
        word: "too-many-streams",
        message: "as many streams are open as this control plane serves; try again later".to_owned(),
    })?;
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    let body = Body::from_stream(futures::stream::unfold((receiver, seat), async |(mut receiver, seat)| {
        receiver.recv().await.map(|piece| (piece, (receiver, seat)))
    }));
    let whole_hours = tally::hour(from.max(0)) == from && tally::hour(to.max(0)) == to;
    let countable = whole_hours && wanted.track.is_none() && wanted.position == 0;
    let kind = match wanted.kind.as_str() {
        "facts" => Kind::Facts,
        "denials" => Kind::Denials,
        "plays" => {
            let counted = if countable { Some(counted_plays(&parts, from, to).await?) } else { None };
            parts.tasks.spawn(send_plays(Shared::clone(&parts), (from, to), wanted.track, sender));
            return Ok(answer(body, counted, None));
        }
        other => return Err(ApiError::invalid(format!("{other:?} is no kind; `facts`, `denials` and `plays` are"))),
    };
    let counted = match kind {
        _ if !countable => None,
        Kind::Facts => Some(sums::hours(&parts.store, HOUSE, from, to).await?.iter().map(|hour| hour.1.facts).sum()),
        Kind::Denials => Some(sums::denials_between(&parts.store, from, to).await?.iter().map(|row| row.2).sum()),
    };
    let span = Span { from_ms: from, to_ms: to, position: wanted.position, track: wanted.track };
    let shelved = kept::lines(&parts.kept, &parts.store, kind, span).await?;
    let next = shelved.next;
    parts.tasks.spawn_blocking(move || {
        let mut piece = Vec::with_capacity(PIECE);
        let read = shelved.read(|_, record| {
            piece.extend_from_slice(record.as_bytes());
            piece.push(b'\n');
            // A client that has gone away ends the reading.
            piece.len() < PIECE || sender.blocking_send(Ok(Bytes::from(std::mem::take(&mut piece)))).is_ok()
        });
        let last = read.map(|()| Bytes::from(piece)).map_err(|error| {
            tracing::error!(%error, "kept records cannot be read");
            io::Error::other(error)
        });
        let _ = sender.blocking_send(last);
    });
    Ok(answer(body, counted, Some(next)))
}

async fn counted_plays(parts: &Shared, from: i64, to: i64) -> Result<i64, StoreError> {
    Ok(sums::hours(&parts.store, HOUSE, from, to).await?.iter().map(|hour| hour.1.plays).sum())
}

/// Plays, by their beginning, a page at a time.
async fn send_plays(
    parts: Shared,
    (from, to): (i64, i64),
    track: Option<String>,
    sender: mpsc::Sender<io::Result<Bytes>>,
) {
    let (mut at, mut after) = (from.saturating_sub(1), String::new());
    loop {
        let page = match plays::between(&parts.store, (at, &after), to, PLAYS).await {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(%error, "plays cannot be read");
                let _ = sender.send(Err(io::Error::other(error))).await;
                return;
            }
        };
        let Some(last) = page.last() else { return };
        (at, after) = (last.first_ms, last.id.clone());
        let mut text = String::new();
        for play in
            page.iter().filter(|play| play.first_ms >= from && track.as_ref().is_none_or(|track| play.track == *track))
        {
            text.push_str(&line(play));
            text.push('\n');
        }
        if sender.send(Ok(Bytes::from(text))).await.is_err() {
            return;
        }
    }
}

/// One play, as exports show it.
fn line(play: &Play) -> String {
    json!({
        "v": 1,
        "id": play.id,
        "track": play.track,
        "sid": play.sid,
        "sub": play.sub,
        "first_ms": play.first_ms,
        "last_ms": play.last_ms,
        "ended_ms": play.ended_ms,
        "playing": play.ended_ms.is_none() && play.until_ms() > clock::now_ms(),
        "media_ms": play.covered.total(),
        "qualified": play.qualified,
        "quartile": play.quartile,
        "decile": play.decile,
    })
    .to_string()
}
