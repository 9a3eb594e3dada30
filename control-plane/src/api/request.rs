//! Reading requests: JSON bodies, query strings, pages of a list. What is wrong with one is said in words.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::audit::Noted;
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
        let noted = request.extensions().get::<Noted>().cloned();
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::Invalid {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                word: "too-large",
                message: "the request's body is larger than this API takes".to_owned(),
            },
            _ => ApiError::invalid("the request's body could not be read to its end"),
        })?;
        if let Some(noted) = noted {
            noted.hears(&bytes);
        }
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        // Derived readers also take a list of a struct's fields in their order, which no document says.
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(ApiError::invalid("the request's body is not a JSON object"));
        }
        let value = read(text)
            .map_err(|error| ApiError::invalid(format!("the request's body is not what this route takes: {error}")))?;
        Ok(Self(value))
    }
}

/// Reads a body. A whole number may come with a point: to JSON, 1.0 and 1 are one number (JSON Schema, section 6.1.1).
fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    let first = match serde_json::from_slice(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let mut value: Value = serde_json::from_slice(text)?;
    // What is wrong with it may be something else: then that is said.
    if shorten(&mut value) { serde_json::from_value(value).map_err(|_| first) } else { Err(first) }
}

/// Takes the point off whole numbers; says whether there were any.
fn shorten(value: &mut Value) -> bool {
    /// Larger ones are not exact in a double.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(whole) if whole.fract() == 0.0 && whole.abs() <= EXACT => {
                // Whole, and within what an i64 holds, by what was just said.
                #[allow(clippy::cast_possible_truncation)]
                let whole = whole as i64;
                *number = whole.into();
                true
            }
            _ => false,
        },
        // No short cut: each of them may be one.
        Value::Array(items) => items.iter_mut().fold(false, |any, item| shorten(item) | any),
        Value::Object(fields) => fields.values_mut().fold(false, |any, field| shorten(field) | any),
        _ => false,
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

/// How many rows a page has.
fn rows(limit: Option<u32>) -> u32 {
    limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX)
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
        rows(self.limit)
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

/// Which part of a list that is ordered by name: `after` is the last name of the page before.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct NamePage {
    #[serde(default)]
    limit: Option<u32>,
    #[serde(default)]
    after: Option<String>,
}

impl NamePage {
    pub(crate) fn limit(&self) -> u32 {
        rows(self.limit)
    }

    /// The name of the last row of the page before.
    pub(crate) fn after(&self) -> &str {
        self.after.as_deref().unwrap_or_default()
    }

    /// The `next` of a page that was filled to its limit.
    pub(crate) fn next(&self, rows: usize, last: Option<String>) -> Option<String> {
        last.filter(|_| rows >= self.limit() as usize)
    }
}

/// A track id from the path; what cannot be one is not found without asking further.
pub(crate) fn track_id(text: String) -> Result<String, ApiError> {
    if ids::is_track(&text) { Ok(text) } else { Err(ApiError::NotFound("track")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Wish {
        count: i64,
        share: f64,
    }

    async fn body(text: &'static str) -> Result<Wish, ApiError> {
        let request = Request::new(axum::body::Body::from(text));
        Body::<Wish>::from_request(request, &()).await.map(|body| body.0)
    }

    #[tokio::test]
    async fn a_whole_number_is_one_with_a_point_and_without() {
        let wish = Wish { count: -3, share: 2.0 };
        for text in [r#"{"count":-3,"share":2}"#, r#" {"count":-3.0,"share":2.0}"#] {
            assert_eq!(body(text).await.unwrap(), wish, "{text}");
        }
        for text in [r#"{"count":-3.5,"share":2.0}"#, r#"{"count":1e300,"share":2.0}"#, r#"{"count":1.0}"#] {
            assert!(body(text).await.is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_body_is_an_object_and_no_list_of_its_fields() {
        for text in ["[1, 2.0]", "null", "7", "\"text\"", " [", "{"] {
            assert!(body(text).await.is_err(), "{text}");
        }
    }
}
