//! What can go wrong with the local log, said so that a person can act on it.

use std::io;
use std::path::PathBuf;

/// Why a log could not be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Another process (or another part of this one) has the directory open.
    #[error(
        "events directory {} is in use by process {pid}: stop that process, or give this edge a directory of its own",
        dir.display()
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The holder as it wrote itself down, or `unknown`.
        pid: String,
    },
    /// The system refused an operation on a file.
    #[error("events: cannot {action} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not of this log's format.
    #[error(
        "events: {} is not in the format of this version ({found}): move it away, or run the version that wrote it",
        path.display()
    )]
    Format {
        /// Which file.
        path: PathBuf,
        /// What was found in it.
        found: String,
    },
    /// The edge's name cannot be part of an id.
    #[error("events: the edge name {name:?} must be 1 to {} letters, digits, '.', '_' or '-'", crate::bounds::EDGE)]
    EdgeName {
        /// The name as given.
        name: String,
    },
    /// The bounds contradict one another.
    #[error("events: {what}: {problem}")]
    Options {
        /// Which option.
        what: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A reader asked for a position that was never written: it knows another directory than this one.
    #[error(
        "events: position {position} is past the end {end} of the log: the reader's offset belongs to another log; start at {start}"
    )]
    Ahead {
        /// The position asked for.
        position: u64,
        /// Where this log starts.
        start: u64,
        /// Where this log ends.
        end: u64,
    },
}

impl LogError {
    /// The reason in one word, for a metric's label.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "locked",
            Self::Io { .. } => "io",
            Self::Format { .. } => "format",
            Self::EdgeName { .. } => "edge-name",
            Self::Options { .. } => "options",
            Self::Ahead { .. } => "ahead",
        }
    }

    /// Whether the same call may succeed later with nothing changed by a person.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Locked { .. } => true,
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::Interrupted | io::ErrorKind::StorageFull)
            }
            _ => false,
        }
    }

    /// A text that names no path and no process, safe to show to a client.
    #[must_use]
    pub fn client_message(&self) -> &'static str {
        match self {
            Self::Ahead { .. } => "the position is past the end of the event log",
            _ => "the event log is not available",
        }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull => " (free space there, or lower the bounds under [events])",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (make it writable for this user, or set another directory under [events])"
        }
        _ => "",
    }
}
