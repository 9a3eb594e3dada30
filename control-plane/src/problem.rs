//! Errors as every client reads them: problem details (RFC 9457), and the id of the request.
//!
//! `error` (the stable word) and `message` (the same sentence as `detail`) are extension members: what clients of the first
//! version read. Whatever else answers with an error, axum's own extractors among them, is put into this form here.

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::ids;

/// Where clients and balancers name a request; every answer has it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken over from a client.
const ID_MAX: usize = 64;

/// The request's id, for whoever writes of the request before it is answered.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

/// The body of an error.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Problem {
    /// A URI that names the kind of problem: `urn:segue:problem:` and the word.
    #[serde(rename = "type")]
    kind: String,
    /// The kind in a few words; the same for all of its kind.
    title: String,
    status: u16,
    /// What went wrong this time, and what to do.
    detail: String,
    /// This occurrence: the path of the request, and its id behind `#`.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    /// The stable word for the kind.
    error: String,
    /// The same as `detail`.
    message: String,
}

impl Problem {
    /// The stable word.
    pub(crate) fn word(&self) -> &str {
        &self.error
    }

    pub(crate) fn new(status: StatusCode, word: &str, message: String) -> Self {
        let mut title = word.replace('-', " ");
        if let Some(first) = title.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        Self {
            kind: format!("urn:segue:problem:{word}"),
            title,
            status: status.as_u16(),
            detail: message.clone(),
            instance: None,
            error: word.to_owned(),
            message,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The outermost layer: names the request, and says in each error which one it was.
pub(crate) async fn finish(mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    if let Some(id) = &id {
        request.extensions_mut().insert(RequestId(id.clone()));
    }
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    if response.status().is_client_error() || response.status().is_server_error() {
        response = explained(response, &path, id.as_deref());
    }
    if let Some(value) = id.and_then(|id| HeaderValue::from_str(&id).ok()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The client's id where it has a usable one. Without randomness there is none; what needs it says so.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let usable = |id: &&str| !id.is_empty() && id.len() <= ID_MAX && id.bytes().all(fine);
    given.filter(usable).map(str::to_owned).or_else(|| ids::other().ok())
}

fn explained(response: Response, path: &str, id: Option<&str>) -> Response {
    let (mut parts, _) = response.into_parts();
    let problem = parts.extensions.remove::<Problem>().unwrap_or_else(|| foreign(parts.status));
    let instance = id.map_or_else(|| path.to_owned(), |id| format!("{path}#{id}"));
    let body = serde_json::to_vec(&Problem { instance: Some(instance), ..problem }).unwrap_or_default();
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(body))
}

/// What axum says by itself: a path or a form that cannot be read.
fn foreign(status: StatusCode) -> Problem {
    let (word, message) = match status {
        StatusCode::BAD_REQUEST => ("invalid", "the path or the query of this request cannot be read"),
        StatusCode::NOT_FOUND => ("not-found", "there is no such route"),
        StatusCode::PAYLOAD_TOO_LARGE => ("too-large", "the request's body is larger than this route takes"),
        StatusCode::METHOD_NOT_ALLOWED => ("method-not-allowed", "this route does not know that method"),
        status if status.is_server_error() => ("internal", "the control plane failed; its log has the cause"),
        _ => ("invalid", "this request cannot be read"),
    };
    Problem::new(status, word, message.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http_body_util::BodyExt;

    use super::*;

    async fn body(response: Response) -> serde_json::Value {
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    #[tokio::test]
    async fn every_error_is_a_problem_with_the_old_words_in_it() {
        let ours = Problem::new(StatusCode::CONFLICT, "upload-missing", "no file".to_owned()).into_response();
        let foreign = (StatusCode::BAD_REQUEST, "some text").into_response();
        for (response, word) in [(ours, "upload-missing"), (foreign, "invalid")] {
            let status = response.status();
            let explained = explained(response, "/v1/tracks", Some("r1"));
            assert_eq!(explained.headers()[header::CONTENT_TYPE], "application/problem+json");
            let problem = body(explained).await;
            assert_eq!(problem["type"], format!("urn:segue:problem:{word}"));
            assert_eq!((&problem["error"], problem["status"].as_u64()), (&word.into(), Some(status.as_u16().into())));
            assert_eq!(problem["detail"], problem["message"]);
            assert_eq!(problem["instance"], "/v1/tracks#r1");
        }
        assert_eq!(Problem::new(StatusCode::CONFLICT, "upload-missing", String::new()).title, "Upload missing");
    }

    #[test]
    fn an_id_is_taken_over_where_it_is_harmless() {
        let with = |id: &str| HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(id).unwrap())]);
        assert_eq!(request_id(&with("abc-1.2_3")).unwrap(), "abc-1.2_3");
        for wrong in ["", "a b", "<script>", &"x".repeat(65)] {
            let made = request_id(&with(wrong)).unwrap();
            assert!(ids::is_spelled(&made, 16), "{made}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
