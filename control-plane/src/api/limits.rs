//! `/v1/limits`: limit classes, which every edge takes over while it runs. The rules for them are those of an edge's file.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use segue_signing::limits::{LimitConfig, LimitsConfig, StreamsConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::request::Body;
use crate::clock;
use crate::error::ApiError;
use crate::state::{Parts, Shared};
use crate::store::limits::{self, Sort};
use crate::store::{StoreError, keys, transaction};

/// All classes.
#[utoipa::path(get, path = "/v1/limits", responses((status = 200, description = "All classes, by name", body = Object)))]
pub(crate) async fn list(State(parts): State<Shared>) -> Result<Json<LimitsConfig>, ApiError> {
    let mut tx = parts.store.reading().await?;
    let all = limits::all(&mut tx).await?;
    tx.rollback().await.map_err(StoreError::from)?;
    Ok(Json(all))
}

/// Sets a limit class. When this answers, it is committed and on its way to every edge.
#[utoipa::path(put, path = "/v1/limits/classes/{name}", request_body(content = Object, description = "`rate`, `burst`, `per` and more, as in an edge's `[limits.<class>]`"), responses((status = 200, description = "The class with its defaults", body = Object)))]
pub(crate) async fn put_class(
    State(parts): State<Shared>,
    Path(name): Path<String>,
    Body(wish): Body<Map<String, Value>>,
) -> Result<Json<LimitConfig>, ApiError> {
    let class: LimitConfig = read(wish)?;
    let (kept, stored) = (class.clone(), name.clone());
    let change = move |all: &mut LimitsConfig| {
        all.classes.insert(stored.clone(), kept.clone());
    };
    put(&parts, Sort::Limits, &name, &class, change).await?;
    Ok(Json(class))
}

/// Sets a class of streams.
#[utoipa::path(put, path = "/v1/limits/streams/{name}", request_body(content = Object, description = "`max` and more, as in an edge's `[streams.<class>]`"), responses((status = 200, description = "The class with its defaults", body = Object)))]
pub(crate) async fn put_streams(
    State(parts): State<Shared>,
    Path(name): Path<String>,
    Body(wish): Body<Map<String, Value>>,
) -> Result<Json<StreamsConfig>, ApiError> {
    let class: StreamsConfig = read(wish)?;
    let (kept, stored) = (class.clone(), name.clone());
    let change = move |all: &mut LimitsConfig| {
        all.streams.insert(stored.clone(), kept.clone());
    };
    put(&parts, Sort::Streams, &name, &class, change).await?;
    Ok(Json(class))
}

/// Takes a limit class away; an edge whose own file has one of that name goes by that again.
#[utoipa::path(delete, path = "/v1/limits/classes/{name}", responses((status = 204)))]
pub(crate) async fn remove_class(
    State(parts): State<Shared>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    remove(&parts, Sort::Limits, &name).await
}

/// Takes a class of streams away.
#[utoipa::path(delete, path = "/v1/limits/streams/{name}", responses((status = 204)))]
pub(crate) async fn remove_streams(
    State(parts): State<Shared>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    remove(&parts, Sort::Streams, &name).await
}

/// Reads a class; what it does not know is refused here, while an edge of an older version passes over it.
fn read<T: DeserializeOwned + Serialize>(wish: Map<String, Value>) -> Result<T, ApiError> {
    let names: Vec<String> = wish.keys().cloned().collect();
    let wrong = |error: serde_json::Error| ApiError::invalid(format!("this is no class: {error}"));
    let class: T = serde_json::from_value(Value::Object(wish)).map_err(wrong)?;
    let known = serde_json::to_value(&class).map_err(wrong)?;
    if let Some(unknown) = names.iter().find(|name| known.get(name.as_str()).is_none()) {
        let all: Vec<_> = known.as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect();
        return Err(ApiError::invalid(format!("a class has no `{unknown}`; it has {}", all.join(", "))));
    }
    Ok(class)
}

async fn put(
    parts: &Parts,
    sort: Sort,
    name: &str,
    class: &(impl Serialize + Sync),
    change: impl Fn(&mut LimitsConfig) + Send + Sync,
) -> Result<(), ApiError> {
    transaction!(parts.store, |tx| {
        // First: whoever changes classes takes turns, and sees what the one before made of them.
        keys::raise_revision(tx, clock::now_ms()).await?;
        let mut all = limits::all(tx).await?;
        change(&mut all);
        // The whole is looked at: what is wrong may be what two classes say together.
        let problems = all.problems();
        if !problems.is_empty() {
            return Err(ApiError::invalid(problems.join("; ")));
        }
        Ok(limits::put(tx, sort, name, class, clock::now_ms()).await?)
    })?;
    parts.keys.publish(&parts.store).await?;
    Ok(())
}

async fn remove(parts: &Parts, sort: Sort, name: &str) -> Result<StatusCode, ApiError> {
    transaction!(parts.store, |tx| {
        keys::raise_revision(tx, clock::now_ms()).await?;
        let removed = limits::remove(tx, sort, name).await?;
        if removed { Ok(()) } else { Err(ApiError::NotFound("limit class")) }
    })?;
    parts.keys.publish(&parts.store).await?;
    Ok(StatusCode::NO_CONTENT)
}
