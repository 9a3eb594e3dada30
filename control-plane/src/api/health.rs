//! `GET /healthz`: whether this process can do its work.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::state::Shared;
use crate::store::StoreError;

/// Answers 200 while the database does.
pub(crate) async fn healthz(State(parts): State<Shared>) -> Result<Json<Value>, ApiError> {
    sqlx::query("SELECT 1").execute(parts.store.read()).await.map_err(StoreError::from)?;
    Ok(Json(json!({ "status": "ok" })))
}
