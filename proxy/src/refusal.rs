//! Every reason for which an edge does not answer with the object, and the one place where reasons become statuses.
//!
//! Invariants: the reason word is the client's `error`, and a metric's label where it is one of ours; the message is safe to show (no key, no
//! ticket, no address of ours); what an operator must know goes to the log where the failure is handled.

use http::StatusCode;
use segue_policy_host::Denial;
use segue_signing::PathError;

use crate::limit::{Denied, Word};

/// Why a request is not answered with the object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The ticket does not open this path.
    #[error("{}", .0.message())]
    Ticket(segue_signing::Refusal),
    /// The path is not canonical (dot segments, empty segments, encoded slashes, …).
    #[error("{}", .0.message())]
    Path(PathError),
    /// A policy says no, or could not be asked and lets nobody in then.
    #[error("{}", policy_message(.0))]
    Policy(Box<Denial>),
    /// A limit is reached.
    #[error("{0}")]
    Limited(Box<Denied>),
    /// No route leads from this host and path to an origin.
    #[error("there is nothing under this address")]
    NoRoute,
    /// The origin's method list does not hold this method.
    #[error("this method is not allowed here")]
    MethodNotAllowed,
    /// The origin says that there is no such object.
    #[error("there is no such object")]
    NotFound,
    /// `If-Match` or `If-Unmodified-Since` did not hold (RFC 9110, section 13.1).
    #[error("the object is not in the state that the request asks for")]
    PreconditionFailed,
    /// None of the ranges lies in the object (RFC 9110, section 14.4); its length stands beside it.
    #[error("the range lies outside of the object")]
    RangeNotSatisfiable(u64),
    /// The origin failed.
    #[error("{}", .0.message())]
    Origin(OriginFailure),
    /// A content key lies wrapped in the bucket, and cannot be unwrapped here.
    #[error("the key of this object cannot be had")]
    ContentKey,
    /// A playlist cannot be given its ticket; why, as a word.
    #[error("the playlist cannot be prepared for this listener")]
    Playlist(&'static str),
    /// A bound of ours is reached (bytes in flight, waiting for the origin's turn).
    #[error("the edge is at its limit; try again shortly")]
    Overloaded,
    /// The client wants nothing but what is at hand (RFC 9111, section 5.2.1.7).
    #[error("the object is not in the cache")]
    NotCached,
    /// The edge is going down and starts no new work.
    #[error("the edge is restarting; try again shortly")]
    ShuttingDown,
    /// There is a control plane, and nothing was heard of it yet.
    #[error("the edge has just started and knows no keys yet; try again shortly")]
    NoSnapshot,
    /// The control plane is away for longer than the operator allows.
    #[error("the edge has lost its control plane; try again later")]
    SnapshotTooOld,
    /// A defect of ours.
    #[error("the edge failed to answer")]
    Internal,
}

/// What an origin did wrong. `Copy`, because every reader of a shared fill is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum OriginFailure {
    /// No connection, or no name.
    Unreachable,
    /// Silence for longer than the configured patience.
    Timeout,
    /// It refused our credentials, or us.
    Refused,
    /// It answered 5xx or asked to slow down, and went on doing so.
    Unavailable,
    /// It answered something that is not an object (an error document under 200, a redirect, …).
    NotAnObject,
    /// The body ended early, went on too long, or changed on the way.
    Broken,
    /// It kept failing and is left alone for a while.
    CircuitOpen,
}

impl OriginFailure {
    /// The word for logs, metrics and clients.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Unreachable => "origin-unreachable",
            Self::Timeout => "origin-timeout",
            Self::Refused => "origin-refused",
            Self::Unavailable => "origin-unavailable",
            Self::NotAnObject => "origin-not-an-object",
            Self::Broken => "origin-broken",
            Self::CircuitOpen => "origin-circuit-open",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Unreachable => "the origin cannot be reached",
            Self::Timeout => "the origin did not answer in time",
            Self::Refused => "the origin refused the edge",
            Self::Unavailable => "the origin is not available",
            Self::NotAnObject => "the origin gave an answer that is not an object",
            Self::Broken => "the origin's answer was not whole",
            Self::CircuitOpen => "the origin keeps failing and is left alone for a moment; try again shortly",
        }
    }

    /// Whether asking again may help.
    pub(crate) fn is_retryable(self) -> bool {
        matches!(self, Self::Unreachable | Self::Timeout | Self::Unavailable | Self::Broken)
    }
}

/// The word for a policy that gave no verdict, or is not there yet.
pub(crate) const POLICY_FAILED: &str = "policy-failed";

fn policy_message(denial: &Denial) -> &'static str {
    if denial.reason == POLICY_FAILED {
        "a rule of this service cannot be asked just now; try again shortly"
    } else {
        "a rule of this service refuses the request"
    }
}

impl Refusal {
    /// Nobody is let in, since a policy that fails closed cannot be asked.
    pub(crate) fn policy_failed() -> Self {
        let reason = POLICY_FAILED.to_owned();
        Self::Policy(Box::new(Denial { status: 503, reason, redirect: None, headers: Vec::new() }))
    }

    /// The reason word: the client's `error`. A policy chooses its own.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Policy(denial) => &denial.reason,
            other => other.label(),
        }
    }

    /// The metric's label: the reason word, but for those that policies choose, which policies' own metrics show.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Policy(denial) if denial.reason == POLICY_FAILED => POLICY_FAILED,
            Self::Policy(_) => "policy-denied",
            Self::Ticket(refusal) => refusal.reason(),
            Self::Path(error) => error.kind(),
            Self::Limited(denied) => denied.word.as_str(),
            Self::NoRoute => "no-route",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::NotFound => "not-found",
            Self::PreconditionFailed => "precondition-failed",
            Self::RangeNotSatisfiable(_) => "range-not-satisfiable",
            Self::Origin(failure) => failure.kind(),
            Self::ContentKey => "content-key",
            Self::Playlist(reason) => reason,
            Self::Overloaded => "overloaded",
            Self::NotCached => "not-cached",
            Self::ShuttingDown => "shutting-down",
            Self::NoSnapshot => "no-snapshot",
            Self::SnapshotTooOld => "snapshot-too-old",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Ticket(refusal) => StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::FORBIDDEN),
            Self::Path(error) => StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST),
            Self::Policy(denial) => StatusCode::from_u16(denial.status).unwrap_or(StatusCode::FORBIDDEN),
            Self::Limited(denied) if denied.word == Word::LimitUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NoRoute | Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::RangeNotSatisfiable(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Origin(OriginFailure::Timeout) | Self::NotCached => StatusCode::GATEWAY_TIMEOUT,
            Self::Origin(OriginFailure::CircuitOpen) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Origin(_) | Self::ContentKey | Self::Playlist(_) => StatusCode::BAD_GATEWAY,
            Self::Overloaded | Self::ShuttingDown | Self::NoSnapshot | Self::SnapshotTooOld => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether this is a decision about the listener, which the denials log records, rather than a failure.
    pub(crate) fn is_denial(&self) -> bool {
        matches!(self, Self::Ticket(_) | Self::Path(_) | Self::Limited(_) | Self::Policy(_))
    }
}

impl From<segue_signing::Refusal> for Refusal {
    fn from(refusal: segue_signing::Refusal) -> Self {
        Self::Ticket(refusal)
    }
}

impl From<PathError> for Refusal {
    fn from(error: PathError) -> Self {
        Self::Path(error)
    }
}

impl From<OriginFailure> for Refusal {
    fn from(failure: OriginFailure) -> Self {
        Self::Origin(failure)
    }
}
