//! `/v1/webhooks`: receivers of events, and what was delivered to them. A secret is shown once, in the answer that made it.

use axum::Json;
use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::request::{Asked, Body, Page};
use crate::error::ApiError;
use crate::ids::NoRandomness;
use crate::state::{Parts, Shared};
use crate::store::transaction;
use crate::store::webhooks::{self, DeliveryRow, EVENTS, WebhookRow};
use crate::webhooks::{SECRET_MARK, WEBHOOKS_MAX, address};
use crate::{clock, ids};

/// Bytes of a URL.
const URL_MAX: usize = 2048;

/// Bytes of a secret before its base64, within what Standard Webhooks asks for (24 to 64).
const SECRET_LEN: usize = 32;

/// A webhook as the API shows it: everything but its secret.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct WebhookView {
    id: String,
    url: String,
    events: Vec<String>,
    created_ms: i64,
    /// Events that were not stored for it, since too much waited.
    missed: i64,
}

impl From<WebhookRow> for WebhookView {
    fn from(row: WebhookRow) -> Self {
        let events = row.events.split(' ').map(str::to_owned).collect();
        Self { id: row.id, url: row.url, events, created_ms: row.created_ms, missed: row.missed }
    }
}

/// A webhook and its secret, which is shown this once.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct NewWebhookSecret {
    webhook: WebhookView,
    /// `whsec_` and the base64 of the key of the signatures.
    secret: String,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewWebhook {
    /// `https://…`; an address of a network of your own must stand in `[webhooks] allow`.
    url: String,
    /// `track.ready`, `track.failed`, `play.qualified`.
    events: Vec<String>,
}

/// A page of webhooks.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Webhooks {
    webhooks: Vec<WebhookView>,
    /// The `after` of the next page; `null`: this was the last one.
    next: Option<String>,
}

/// A delivery. Times are ms since the epoch.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct DeliveryView {
    /// The `webhook-id` that the receiver sees, the same at each try.
    id: String,
    event: String,
    /// `waiting`, `delivered` or `dead`.
    state: String,
    /// Tries since it was made, or sent anew.
    tries: i64,
    made_ms: i64,
    /// When the next try is due.
    due_ms: Option<i64>,
    ended_ms: Option<i64>,
    /// What the last try was answered with.
    status: Option<i64>,
    /// Why it was no success.
    reason: Option<String>,
    /// What is sent.
    body: Value,
}

impl From<DeliveryRow> for DeliveryView {
    fn from(row: DeliveryRow) -> Self {
        Self {
            due_ms: (row.state == "waiting").then_some(row.due_ms),
            body: serde_json::from_str(&row.body).unwrap_or_default(),
            id: row.id,
            event: row.event,
            state: row.state,
            tries: row.tries,
            made_ms: row.made_ms,
            ended_ms: row.ended_ms,
            status: row.status,
            reason: row.reason,
        }
    }
}

/// A page of deliveries.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Deliveries {
    deliveries: Vec<DeliveryView>,
    /// The `after` of the next page; `null`: this was the last one.
    next: Option<String>,
}

/// All webhooks, newest first, page by page.
#[utoipa::path(get, path = "/v1/webhooks", params(Page), responses((status = 200, body = Webhooks)))]
pub(crate) async fn list(State(parts): State<Shared>, Asked(page): Asked<Page>) -> Result<Json<Webhooks>, ApiError> {
    let rows = webhooks::list(&parts.store, page.cursor()?, page.limit()).await?;
    let next = page.next(rows.len(), rows.last().map(|row| (row.created_ms, row.id.as_str())));
    Ok(Json(Webhooks { webhooks: rows.into_iter().map(WebhookView::from).collect(), next }))
}

/// Adds a receiver. Its secret is in this answer and in no other.
#[utoipa::path(post, path = "/v1/webhooks", request_body = NewWebhook, responses((status = 201, description = "The webhook, and its secret, which is shown this once", body = NewWebhookSecret), (status = 409, description = "`too-many-webhooks`")))]
pub(crate) async fn create(
    State(parts): State<Shared>,
    Body(wish): Body<NewWebhook>,
) -> Result<(StatusCode, Json<NewWebhookSecret>), ApiError> {
    if wish.url.len() > URL_MAX {
        return Err(ApiError::invalid(format!("`url` must be at most {URL_MAX} bytes")));
    }
    let url =
        address::check(&wish.url, &parts.webhooks.allow).map_err(|refused| ApiError::invalid(refused.to_string()))?;
    if wish.events.is_empty() || wish.events.iter().any(|event| !EVENTS.contains(&event.as_str())) {
        return Err(ApiError::invalid(format!("`events` must name some of: {}", EVENTS.join(", "))));
    }
    let events: Vec<&str> = EVENTS.into_iter().filter(|known| wish.events.iter().any(|event| event == known)).collect();
    let row = WebhookRow {
        id: ids::other()?,
        url: url.into(),
        events: events.join(" "),
        secret: secret()?,
        created_ms: clock::now_ms(),
        is_full: 0,
        missed: 0,
    };
    transaction!(parts.store, |tx| {
        if webhooks::insert(tx, &row, WEBHOOKS_MAX).await? {
            return Ok(());
        }
        Err(ApiError::conflict("too-many-webhooks", format!("there are {WEBHOOKS_MAX} webhooks; delete some first")))
    })?;
    let secret = row.secret.clone();
    Ok((StatusCode::CREATED, Json(NewWebhookSecret { webhook: row.into(), secret })))
}

#[utoipa::path(get, path = "/v1/webhooks/{webhook}", responses((status = 200, body = WebhookView)))]
pub(crate) async fn show(State(parts): State<Shared>, Path(id): Path<String>) -> Result<Json<WebhookView>, ApiError> {
    Ok(Json(there(&parts, &id).await?.into()))
}

/// Takes a receiver away, and what waits for it.
#[utoipa::path(delete, path = "/v1/webhooks/{webhook}", responses((status = 204)))]
pub(crate) async fn delete(State(parts): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    transaction!(parts.store, |tx| {
        if webhooks::remove(tx, &id).await? { Ok(()) } else { Err(ApiError::NotFound("webhook")) }
    })?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct InState {
    #[serde(default)]
    #[param(inline)]
    state: Option<DeliveryState>,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DeliveryState {
    Waiting,
    Delivered,
    Dead,
}

impl DeliveryState {
    fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

/// What is or was to be delivered to a receiver, newest first, page by page; a week after its end it is forgotten.
#[utoipa::path(get, path = "/v1/webhooks/{webhook}/deliveries", params(InState, Page), responses((status = 200, body = Deliveries)))]
pub(crate) async fn deliveries(
    State(parts): State<Shared>,
    Path(id): Path<String>,
    Asked(filter): Asked<InState>,
    Asked(page): Asked<Page>,
) -> Result<Json<Deliveries>, ApiError> {
    let webhook = there(&parts, &id).await?;
    let state = filter.state.map(DeliveryState::word);
    let rows = webhooks::deliveries(&parts.store, &webhook.id, state, page.cursor()?, page.limit()).await?;
    let next = page.next(rows.len(), rows.last().map(|row| (row.made_ms, row.id.as_str())));
    Ok(Json(Deliveries { deliveries: rows.into_iter().map(DeliveryView::from).collect(), next }))
}

/// Sends a delivery anew that was delivered or given up, under the same id.
#[utoipa::path(post, path = "/v1/webhooks/{webhook}/deliveries/{delivery}/redeliver", responses((status = 202, body = DeliveryView), (status = 409, description = "`delivery-waiting`")))]
pub(crate) async fn redeliver(
    State(parts): State<Shared>,
    Path((webhook, id)): Path<(String, String)>,
) -> Result<(StatusCode, Json<DeliveryView>), ApiError> {
    let again = transaction!(parts.store, |tx| webhooks::again(tx, &webhook, &id, clock::now_ms()).await)?;
    let row = webhooks::delivery(&parts.store, &webhook, &id).await?.ok_or(ApiError::NotFound("delivery"))?;
    if !again {
        return Err(ApiError::conflict("delivery-waiting", "this delivery waits for its next try already"));
    }
    Ok((StatusCode::ACCEPTED, Json(row.into())))
}

async fn there(parts: &Parts, id: &str) -> Result<WebhookRow, ApiError> {
    webhooks::get(&parts.store, id).await?.ok_or(ApiError::NotFound("webhook"))
}

fn secret() -> Result<String, NoRandomness> {
    let mut bytes = [0u8; SECRET_LEN];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{SECRET_MARK}{}", STANDARD.encode(bytes)))
}
