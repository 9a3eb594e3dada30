//! `GET /v1/openapi.json`: what the API takes and gives, for machines.

use axum::Json;
use serde_json::{Value, json};

pub(crate) async fn document() -> Json<Value> {
    Json(json!({}))
}
