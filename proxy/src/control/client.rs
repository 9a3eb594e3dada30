//! Calls of the control plane: one HTTP client, bounded in time and in bytes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{RequestBuilder, StatusCode};
use segue_config::Secret;

use crate::config::ControlEndpoint;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Longer than the longest of our own long polls, so that one connection serves them all.
const IDLE: Duration = Duration::from_secs(60);
/// An error's text, as far as it is repeated in the log.
const ERROR_MAX: usize = 4096;

/// Why a call did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("the control plane cannot be reached: {0}")]
    Unreachable(String),
    #[error("the control plane refused with {status}: {message}{}", advice(*.status))]
    Refused { status: u16, message: String },
    #[error("the control plane's answer is longer than the {0} bytes that are read")]
    TooLarge(usize),
    #[error("the control plane's answer is not what the protocol says: {0}")]
    Answer(String),
}

fn advice(status: u16) -> &'static str {
    match status {
        401 | 403 => " (check [control] token: it needs the scope `edge`)",
        404 => " (check [control] url: it names the control plane, not an edge)",
        _ => "",
    }
}

impl ControlError {
    /// The reason word, for the metric.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Refused { .. } => "refused",
            Self::TooLarge(_) => "too-large",
            Self::Answer(_) => "answer",
        }
    }
}

/// A control plane and the token to speak to it with.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: Secret,
}

impl Client {
    /// # Errors
    /// A sentence about what keeps a client from being made.
    pub(crate) fn new(endpoint: &ControlEndpoint) -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .pool_idle_timeout(IDLE)
            .redirect(reqwest::redirect::Policy::none())
            // An edge talks to its own control plane; a proxy from the environment would see the token.
            .no_proxy()
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { http, base: endpoint.url.clone(), token: endpoint.token.clone() })
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.base)).bearer_auth(self.token.expose())
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.base)).bearer_auth(self.token.expose())
    }
}

/// Sends a request and reads the answer, `max` bytes of it at the most; both `within` that time. A 304 is an answer.
pub(crate) async fn send(
    request: RequestBuilder,
    within: Duration,
    max: usize,
) -> Result<(StatusCode, Bytes), ControlError> {
    let unreachable = |error: reqwest::Error| ControlError::Unreachable(root_cause(&error));
    let mut response = request.timeout(within).send().await.map_err(unreachable)?;
    let status = response.status();
    let is_answer = status.is_success() || status == StatusCode::NOT_MODIFIED;
    let max = if is_answer { max } else { ERROR_MAX };
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > max {
            if is_answer {
                return Err(ControlError::TooLarge(max));
            }
            break;
        }
        body.extend_from_slice(&chunk);
    }
    if is_answer {
        return Ok((status, body.freeze()));
    }
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = said.get("message").and_then(serde_json::Value::as_str).unwrap_or("no reason given").to_owned();
    Err(ControlError::Refused { status: status.as_u16(), message })
}

/// The innermost error: what the others wrap holds the URL, not the cause.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
