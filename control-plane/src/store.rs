//! The database: one file per aggregate under `store/`.
//!
//! Invariants: every change runs in a transaction that was begun as a writer (`BEGIN IMMEDIATE`), so that it waits
//! for its turn at the start and never fails half-way for a lock; all writers of this process share one connection,
//! so that they queue fairly in the pool instead of polling SQLite's lock. Reads run beside them on a few
//! connections of their own (WAL). No caller holds a transaction across a network call, and none begins a second
//! one while it holds the first: the pool of one would never give it.
//!
//! Queries are plain text with `?` placeholders. Where SQLite and MariaDB disagree, the difference stays in this folder.

mod connect;
pub(crate) mod early;
pub(crate) mod edges;
pub(crate) mod jobs;
pub(crate) mod keys;
pub(crate) mod plays;
pub(crate) mod removals;
pub(crate) mod revocations;
pub(crate) mod tokens;
pub(crate) mod tracks;

use std::path::Path;

use sqlx::{Sqlite, SqlitePool, Transaction};

pub(crate) use connect::OpenError;

/// A transaction that may write.
pub(crate) type Write = Transaction<'static, Sqlite>;

/// The database failed. What it said is for the log, not for clients.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// SQL or I/O.
    #[error("database: {0}")]
    Sql(#[from] sqlx::Error),
    /// A stored value is not what this version writes.
    #[error("database: {column} holds {value:?}, which this version does not know")]
    Unknown { column: &'static str, value: String },
    /// Text that is stored as JSON could not be written or read.
    #[error("database: {0}")]
    Json(#[from] serde_json::Error),
}

impl StoreError {
    /// Whether the same call may succeed a moment later: no connection in time, or a lock held by another process.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Sql(sqlx::Error::PoolTimedOut | sqlx::Error::Io(_)) => true,
            Self::Sql(sqlx::Error::Database(error)) => error.code().is_some_and(|code| {
                // SQLite result codes: SQLITE_BUSY and its extended forms, SQLITE_LOCKED.
                matches!(code.as_ref(), "5" | "6" | "261" | "517" | "773")
            }),
            _ => false,
        }
    }
}

/// The open database.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    read: SqlitePool,
    write: SqlitePool,
}

impl Store {
    /// Opens the file, brings its schema up to date, and proves that it can be written.
    pub(crate) async fn open(path: &Path) -> Result<Self, OpenError> {
        let (read, write) = connect::open(path).await?;
        Ok(Self { read, write })
    }

    /// The connections for reading.
    pub(crate) fn read(&self) -> &SqlitePool {
        &self.read
    }

    /// Begins a transaction that may write. Waits for the writers before it, at most the pool's acquire timeout.
    pub(crate) async fn begin(&self) -> Result<Write, StoreError> {
        Ok(self.write.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Waits for what runs, and closes the file.
    pub(crate) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}
