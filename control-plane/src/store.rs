//! The database: one file per aggregate under `store/`.
//!
//! Runs on a SQLite file or on MariaDB (MySQL 8), through the driver that is chosen at run time. Queries are plain text with
//! `?` placeholders, the same for both; where the two disagree, `dialect.rs` has the difference.
//!
//! Invariants: every change runs in a [`transaction!`], which runs it again where it lost against another one: it may begin
//! more than once, commits once, and reaches nothing but the database. On SQLite it is begun as a writer
//! (`BEGIN IMMEDIATE`), so that it waits for its turn at the start and never fails half-way for a lock; all writers of this
//! process share one connection, so that they queue fairly in the pool instead of polling the file's lock. On MariaDB
//! writers run beside one another at READ COMMITTED: whoever changes a row by what it read locks it as it reads
//! ([`dialect::locked`]), whoever changes what edges are told locks the revision first, and counting takes its turn
//! ([`dialect::turn`]). Reads run beside them on connections of their own. No caller holds a transaction across a network
//! call, and none begins a second one while it holds the first: the pool of one would never give it.

pub(crate) mod audit;
mod bulk;
mod connect;
mod dialect;
pub(crate) mod early;
pub(crate) mod edges;
pub(crate) mod idempotency;
pub(crate) mod jobs;
pub(crate) mod kept;
pub(crate) mod keys;
pub(crate) mod leases;
pub(crate) mod limits;
pub(crate) mod look;
pub(crate) mod plays;
pub(crate) mod plays_out;
pub(crate) mod policies;
pub(crate) mod removals;
pub(crate) mod revocations;
pub(crate) mod sums;
pub(crate) mod tokens;
pub(crate) mod tracks;
pub(crate) mod uploads;
pub(crate) mod webhooks;

use std::cell::Cell;
use std::time::Duration;

use sqlx::{Any, AnyPool, Transaction};

use crate::config::DatabaseConfig;
use crate::error::ApiError;
pub(crate) use connect::OpenError;
use dialect::Dialect;
pub(crate) use dialect::turn;

use crate::kept::KeptError;

/// A transaction that may write.
pub(crate) type Write = Transaction<'static, Any>;

/// A transaction that reads what was committed when it began.
pub(crate) type Read = Transaction<'static, Any>;

/// Times that a transaction is run before it is given up: each loss is somebody else's success, so that with the dozen
/// writers of a house nobody loses so often.
const TRIES: u32 = 8;

/// Pause before the second run; doubled for each further one, and spread by up to as much again.
const PAUSE_MS: u64 = 4;

/// The database failed. What it said is for the log, not for clients.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// SQL or I/O.
    #[error("database: {0}")]
    Sql(#[from] sqlx::Error),
    /// A stored value is not what this version writes.
    #[error("database: {column} holds {value:?}, which this version does not know")]
    Unknown { column: &'static str, value: String },
    /// The lease that a transaction was to be under is somebody else's.
    #[error("the lease `{0}` is no longer held")]
    NotHeld(&'static str),
    /// Text that is stored as JSON could not be written or read.
    #[error("database: {0}")]
    Json(#[from] serde_json::Error),
    /// What is kept beside the database could not be written or read.
    #[error(transparent)]
    Kept(#[from] KeptError),
}

impl StoreError {
    /// Whether the same call may succeed a moment later: no connection in time, or a lock held by somebody else.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Sql(error) if dialect::is_away(error))
    }
}

/// An error of what a transaction does, which may be that it lost against another one.
pub(crate) trait Lost: From<StoreError> {
    /// Whether it did.
    fn lost(&self) -> bool;
}

impl Lost for StoreError {
    fn lost(&self) -> bool {
        matches!(self, Self::Sql(error) if dialect::lost_against_another(error))
    }
}

impl Lost for ApiError {
    fn lost(&self) -> bool {
        matches!(self, Self::Store(error) if error.lost())
    }
}

/// The open database.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    read: AnyPool,
    write: AnyPool,
    dialect: Dialect,
}

impl Store {
    /// Connects, brings the schema up to date, and proves that it can be written.
    pub(crate) async fn open(config: &DatabaseConfig) -> Result<Self, OpenError> {
        let connect::Pools { read, write, dialect } = connect::open(config).await?;
        Ok(Self { read, write, dialect })
    }

    /// The connections for reading.
    pub(crate) fn read(&self) -> &AnyPool {
        &self.read
    }

    /// Begins a transaction whose reads agree with one another.
    pub(crate) async fn reading(&self) -> Result<Read, StoreError> {
        Ok(self.read.begin().await?)
    }

    /// Begins a transaction that may write.
    pub(crate) async fn begin(&self) -> Result<Write, StoreError> {
        Ok(self.write.begin_with(self.dialect.begin()).await?)
    }

    /// Waits for what runs, and closes the connections.
    pub(crate) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

/// Runs `body` in a transaction that may write, and commits it where it ends well: `transaction!(store, |tx| body)`, a
/// `Result`. It waits for the writers before it, at most the pool's acquire timeout; where it lost against another one, it
/// is run again from its beginning. A macro, since the compiler cannot yet see that the future of a closure which borrows
/// both its argument and what is around it can be sent between threads.
macro_rules! transaction {
    ($store:expr, |$tx:ident| $body:expr) => {{
        let mut tries = 1;
        loop {
            let ended = match $store.begin().await {
                Ok(mut begun) => {
                    let $tx = &mut begun;
                    let done = async { $body }.await;
                    $crate::store::settle(begun, done).await
                }
                Err(error) => Err(error.into()),
            };
            if !$crate::store::goes_on(&ended, tries).await {
                break ended;
            }
            tries += 1;
        }
    }};
}
pub(crate) use transaction;

tokio::task_local! {
    /// Whether the work that is under way in this scope has committed anything.
    static COMMITTED: Cell<bool>;
}

/// Does `work`, and says beside what came of it whether anything was committed by it, or may have been.
pub(crate) async fn noting_commits<F: Future>(work: F) -> (F::Output, bool) {
    let noting = async {
        let output = work.await;
        (output, COMMITTED.with(Cell::get))
    };
    COMMITTED.scope(Cell::new(false), noting).await
}

/// Ends a transaction by what came of it.
pub(crate) async fn settle<T, E: Lost>(tx: Write, done: Result<T, E>) -> Result<T, E> {
    match done {
        Ok(value) => {
            let committed = tx.commit().await.map(|()| value).map_err(|error| E::from(StoreError::from(error)));
            // Where the answer to a commit was lost it may have been one all the same.
            if !committed.as_ref().is_err_and(E::lost) {
                // Outside of a scope nobody asks.
                let _ = COMMITTED.try_with(|noted| noted.set(true));
            }
            committed
        }
        Err(error) => {
            // Its locks must be gone before it is run again. A connection that cannot roll back is closed.
            if let Err(error) = tx.rollback().await {
                tracing::debug!(%error, "a transaction could not be rolled back; its connection is given up");
            }
            Err(error)
        }
    }
}

/// Whether a transaction is to be run again, after a pause that is made here.
pub(crate) async fn goes_on<T, E: Lost>(ended: &Result<T, E>, tries: u32) -> bool {
    let again = tries < TRIES && ended.as_ref().is_err_and(E::lost);
    if again {
        tracing::debug!(tries, "a transaction lost against another one; it is run again");
        tokio::time::sleep(pause(tries)).await;
    }
    again
}

/// Those that lost against one another must not meet again: the nanoseconds of the clock tell them apart well enough.
fn pause(tries: u32) -> Duration {
    let base = PAUSE_MS << tries.min(6);
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    Duration::from_millis(base + u64::from(nanos / 1000) % base)
}
