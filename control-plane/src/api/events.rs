//! `GET /v1/events`: what happens, as server-sent events (HTML Living Standard, section 9.2).

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use http::{HeaderValue, header};
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::request::Asked;
use crate::bus::{Event, Topic};
use crate::error::ApiError;
use crate::state::Shared;

/// A comment is sent after this long without an event, so that nobody takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Words, separated by commas; everything where it is left out.
    #[serde(default)]
    #[param(pattern = r"^\s*(tracks|jobs|plays|facts|denials)\s*(,\s*(tracks|jobs|plays|facts|denials)\s*)*$")]
    topics: Option<String>,
}

impl Wanted {
    fn topics(&self) -> Result<Vec<Topic>, ApiError> {
        let Some(words) = self.topics.as_deref() else { return Ok(Topic::ALL.to_vec()) };
        words
            .split(',')
            .map(|word| {
                let word = word.trim();
                let known = Topic::ALL.into_iter().find(|topic| topic.word() == word);
                known.ok_or_else(|| {
                    ApiError::invalid(format!(
                        "`topics` names {word:?}, which is none of: tracks, jobs, plays, facts, denials"
                    ))
                })
            })
            .collect()
    }
}

/// Follows the bus until the client leaves or the control plane ends. A client that is too slow gets an event
/// `lagged` with the number of events that it missed, and goes on with the newest.
#[utoipa::path(get, path = "/v1/events", params(Wanted), responses((status = 200, description = "Server-sent events, until one side ends", body = String, content_type = "text/event-stream")))]
pub(crate) async fn follow(State(parts): State<Shared>, Asked(wanted): Asked<Wanted>) -> Result<Response, ApiError> {
    let topics = wanted.topics()?;
    let seat = std::sync::Arc::clone(&parts.streams).try_acquire_owned().map_err(|_| ApiError::Busy {
        word: "too-many-streams",
        message: "as many event streams are open as this control plane serves; try again later".to_owned(),
    })?;
    let ended = parts.shutdown.clone().cancelled_owned();
    let stream = futures::StreamExt::take_until(stream(parts.bus.subscribe(), topics, seat), Box::pin(ended));
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("");
    let mut response = Sse::new(stream).keep_alive(keep_alive).into_response();
    // Proxies that collect a response before they pass it on (nginx) are asked not to.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn stream<S: Send>(
    from: Receiver<Event>,
    topics: Vec<Topic>,
    seat: S,
) -> impl Stream<Item = Result<SseEvent, Infallible>> {
    // The first item is a comment: the client sees the headers at once and knows that it missed nothing from here on.
    let hello = futures::stream::once(async { Ok(SseEvent::default().comment("following")) });
    let rest = futures::stream::unfold((from, topics, seat), async |(mut from, topics, seat)| {
        loop {
            let item = match from.recv().await {
                Ok(event) if !topics.contains(&event.topic) => continue,
                Ok(event) => SseEvent::default().event(event.name).data(&*event.data),
                Err(RecvError::Lagged(missed)) => {
                    SseEvent::default().event("lagged").data(format!("{{\"missed\":{missed}}}"))
                }
                Err(RecvError::Closed) => return None,
            };
            return Some((Ok(item), (from, topics, seat)));
        }
    });
    futures::StreamExt::chain(hello, rest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::StreamExt;
    use http_body_util::BodyExt;

    use super::*;
    use crate::bus::Bus;
    use crate::hints::Hints;

    /// The first `count` items as they go over the wire.
    async fn wire(
        stream: impl Stream<Item = Result<SseEvent, Infallible>> + Send + 'static,
        count: usize,
    ) -> Vec<String> {
        let mut body = Sse::new(stream.take(count)).into_response().into_body();
        let mut items = Vec::new();
        while let Some(frame) = body.frame().await {
            items.push(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap());
        }
        items
    }

    #[tokio::test]
    async fn a_slow_follower_is_told_how_much_it_missed_and_goes_on_with_the_oldest_kept() {
        let bus = Bus::new(Hints::default());
        let slow = stream(bus.subscribe(), vec![Topic::Facts], ());
        for n in 0..10_000 {
            bus.tell_json(Topic::Facts, n.to_string());
        }
        let items = wire(slow, 3).await;
        let missed = 10_000 - 4096;
        assert_eq!(items[1], format!("event: lagged\ndata: {{\"missed\":{missed}}}\n\n"), "{items:?}");
        assert_eq!(items[2], format!("event: fact\ndata: {missed}\n\n"));
    }

    #[tokio::test]
    async fn topics_that_were_not_asked_for_do_not_come() {
        let bus = Bus::new(Hints::default());
        let jobs = stream(bus.subscribe(), vec![Topic::Jobs], ());
        bus.tell_json(Topic::Facts, "1");
        bus.tell_json(Topic::Jobs, "2");
        assert_eq!(wire(jobs, 2).await[1], "event: job\ndata: 2\n\n");
    }
}
