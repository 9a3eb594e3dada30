//! Why a job failed: the reason words of the API, and a sentence for the person who uploaded the file.
//!
//! Invariants: the word is stable and is what programs act on; the message names what is wrong with the file and what
//! to do about it, never whether the job is tried again (the control plane knows that and says it), and never a path, a
//! host or ffmpeg's own words of this machine.

use std::fmt;

/// A reason word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The content is no audio or video container that is accepted.
    NotMedia,
    /// No bytes.
    EmptyFile,
    /// An image, or a video without a sound track.
    NoAudio,
    /// The content is not what the publisher declared it to be.
    ChecksumMismatch,
    /// Audio of no length.
    ZeroLength,
    /// The file's name says one format and its content another.
    ExtensionMismatch,
    /// Less than 98 % of the length that the file declares can be decoded.
    Truncated,
    /// Audio, but encrypted or in a format that this ffmpeg does not decode.
    UnsupportedCodec,
    /// Longer than the configured limit.
    TooLong,
    /// Larger than the configured limit.
    TooLarge,
    /// A film with more or larger pictures than are taken.
    VideoTooLarge,
    /// The uploaded object is not in the store.
    SourceMissing,
    /// ffmpeg crashed, or its output was not what was asked for.
    EncoderFailed,
    /// A run of ffmpeg took longer than its limit.
    TimedOut,
    /// The object store did not answer as it should.
    StoreUnavailable,
    /// The worker itself failed: disk full, a file not writable.
    WorkerFailed,
    /// The worker was stopped before the job's end.
    WorkerStopped,
}

impl Reason {
    /// The reason word, as the API and the metrics spell it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::NotMedia => "not-media",
            Self::EmptyFile => "empty-file",
            Self::NoAudio => "no-audio",
            Self::ChecksumMismatch => "checksum-mismatch",
            Self::ZeroLength => "zero-length",
            Self::ExtensionMismatch => "extension-mismatch",
            Self::Truncated => "truncated",
            Self::UnsupportedCodec => "unsupported-codec",
            Self::TooLong => "too-long",
            Self::TooLarge => "too-large",
            Self::VideoTooLarge => "video-too-large",
            Self::SourceMissing => "source-missing",
            Self::EncoderFailed => "encoder-failed",
            Self::TimedOut => "timed-out",
            Self::StoreUnavailable => "store-unavailable",
            Self::WorkerFailed => "worker-failed",
            Self::WorkerStopped => "worker-stopped",
        }
    }

    /// Whether another attempt may end differently. What the file is to blame for never does.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::EncoderFailed | Self::TimedOut | Self::StoreUnavailable | Self::WorkerFailed | Self::WorkerStopped
        )
    }
}

/// Why a job failed: reason word and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason word.
    pub reason: Reason,
    /// A sentence that is safe to show to the file's owner.
    pub message: String,
    /// What the operator wants to know beside it; goes to the log alone.
    pub detail: Option<String>,
}

impl Failure {
    /// A failure with a message for the file's owner.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), detail: None }
    }

    /// Adds what only the operator should read.
    #[must_use]
    pub fn because(mut self, detail: impl fmt::Display) -> Self {
        self.detail = Some(detail.to_string());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.kind(), self.message)?;
        match &self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// How a stage ends when it does not succeed.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The job failed, and the control plane is told.
    Failed(Failure),
    /// The job is no longer ours, or the worker stops: drop everything.
    Cancelled,
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// An I/O error in the working folder: ours, not the file's.
pub(crate) fn disk(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(Reason::WorkerFailed, "The transcoder could not use its working folder.")
        .because(format_args!("{what}: {error}"))
}
