//! The one error of the API, and the one place where it becomes a response.
//!
//! A client gets a stable word and a sentence that is safe to show; what a part behind us said goes to the log, once,
//! here.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::ids::NoRandomness;
use crate::objects::ObjectsError;
use crate::problem::Problem;
use crate::store::StoreError;

/// What a route answers when it cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The request itself is wrong.
    #[error("{message}")]
    Invalid { status: StatusCode, word: &'static str, message: String },
    /// No or an unknown token.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// The token is good and lacks a scope.
    #[error("this token lacks the scope `{0}`")]
    Forbidden(&'static str),
    /// Nothing under that name.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The thing is in a state in which this cannot be done.
    #[error("{message}")]
    Conflict { word: &'static str, message: String },
    /// A bound of ours was reached; the same request may pass later.
    #[error("{message}")]
    Busy { word: &'static str, message: String },
    /// More than a token or an address may ask for.
    #[error("{message}")]
    TooMany { word: &'static str, message: String, wait: Duration },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object store.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// The operating system's randomness.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// Something that holds in this program does not hold.
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    /// 400 `invalid`.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { status: StatusCode::BAD_REQUEST, word: "invalid", message: message.into() }
    }

    /// 409 with its own word.
    pub(crate) fn conflict(word: &'static str, message: impl Into<String>) -> Self {
        Self::Conflict { word, message: message.into() }
    }

    /// 409 `lease-lost`: a worker that no longer holds the job.
    pub(crate) fn lease_lost() -> Self {
        Self::conflict(
            "lease-lost",
            "this job is no longer yours: its lease ran out, or it was given to another worker",
        )
    }

    /// The stable word: the `error` of the response and the label of the metric.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Invalid { word, .. }
            | Self::Conflict { word, .. }
            | Self::Busy { word, .. }
            | Self::TooMany { word, .. } => word,
            Self::Unauthorized(_) => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::NotFound(_) => "not-found",
            Self::Store(error) if error.is_retryable() => "database-busy",
            Self::Store(_) | Self::Randomness(_) | Self::Internal(_) => "internal",
            Self::Objects(_) => "objects-unavailable",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Invalid { status, .. } => *status,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict { .. } => StatusCode::CONFLICT,
            Self::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Store(error) if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(_) | Self::Randomness(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Objects(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The sentence for the client.
    fn message(&self) -> String {
        match self {
            Self::Store(error) if error.is_retryable() => "the database is busy; try again in a moment".to_owned(),
            Self::Store(_) | Self::Randomness(_) | Self::Internal(_) => {
                "the control plane failed; its log has the cause".to_owned()
            }
            Self::Objects(_) => "the object store does not answer as it should; try again in a moment".to_owned(),
            told => told.to_string(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() && !matches!(self, Self::Busy { .. }) {
            tracing::error!(error.kind = self.kind(), error = %self, "a request failed");
        }
        let mut response = Problem::new(status, self.kind(), self.message()).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                // RFC 6750, section 3.
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                // Whole seconds, rounded up: one that comes earlier is refused again.
                let wait = if let Self::TooMany { wait, .. } = &self { wait.as_millis().div_ceil(1000) } else { 1 };
                headers.insert(header::RETRY_AFTER, HeaderValue::from(u64::try_from(wait).unwrap_or(60).max(1)));
            }
            _ => {}
        }
        response
    }
}
