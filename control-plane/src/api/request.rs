//! Reading requests: JSON bodies, query strings, pages of a list. What is wrong with one is said in words.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::ids;

/// Rows of a page where the request names no number.
const PAGE_DEFAULT: u32 = 200;

/// Rows that one page can have.
const PAGE_MAX: u32 = 1000;

/// A JSON body. An empty one reads as `{}`, so that requests whose fields are all optional need none.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::Invalid {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                word: "too-large",
                message: "the request's body is larger than this API takes".to_owned(),
            },
            _ => ApiError::invalid("the request's body could not be read to its end"),
        })?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        // Derived readers also take a list of a struct's fields in their order, which no document says.
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(ApiError::invalid("the request's body is not a JSON object"));
        }
        let value = serde_json::from_slice(text)
            .map_err(|error| ApiError::invalid(format!("the request's body is not what this route takes: {error}")))?;
        Ok(Self(value))
    }
}

/// A query string.
#[derive(Debug)]
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(value) = Query::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::invalid(format!("the query string: {}", rejection.body_text())))?;
        Ok(Self(value))
    }
}

/// Which part of a list: `?limit=` and `?after=`, the latter the `next` of the page before.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    #[serde(default)]
    limit: Option<u32>,
    #[serde(default)]
    #[param(pattern = "^[0-9]{1,18}-")]
    after: Option<String>,
}

impl Page {
    pub(crate) fn limit(&self) -> u32 {
        self.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX)
    }

    /// The creation time and id of the last row of the page before.
    pub(crate) fn cursor(&self) -> Result<Option<(i64, &str)>, ApiError> {
        let Some(after) = self.after.as_deref() else { return Ok(None) };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() <= 18;
        let read = after.split_once('-').filter(|(at, _)| digits(at));
        let read = read.and_then(|(at, id)| Some((at.parse::<i64>().ok()?, id)));
        read.map(Some).ok_or_else(|| ApiError::invalid("`after` is not the `next` of a page"))
    }

    /// The `next` of a page that was filled to its limit.
    pub(crate) fn next(&self, rows: usize, last: Option<(i64, &str)>) -> Option<String> {
        let full = rows >= self.limit() as usize;
        last.filter(|_| full).map(|(at, id)| format!("{at}-{id}"))
    }
}

/// A track id from the path; what cannot be one is not found without asking further.
pub(crate) fn track_id(text: String) -> Result<String, ApiError> {
    if ids::is_track(&text) { Ok(text) } else { Err(ApiError::NotFound("track")) }
}
