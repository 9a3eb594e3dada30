//! Opening the SQLite file: pragmas, migrations, and errors in words.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a statement waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a caller waits for a connection; longer than one busy timeout, shorter than a request.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Readers at once. SQLite reads are short and run on their own threads; more than this gains nothing.
const READERS: u32 = 4;

/// The database could not be opened. Each text is one sentence for an operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("cannot make the database folder {}: {error}", .path.display())]
    Folder { path: PathBuf, error: std::io::Error },
    #[error("cannot open the database {}: {error}; check that the file and its folder can be written by this user", .path.display())]
    Open { path: PathBuf, error: sqlx::Error },
    #[error("the database {} is locked by another process; stop the other control plane or choose another file", .path.display())]
    Locked { path: PathBuf },
    #[error("the database {} is newer than this program, or was changed by hand: {error}", .path.display())]
    Migrate { path: PathBuf, error: sqlx::migrate::MigrateError },
}

pub(super) async fn open(path: &Path) -> Result<(SqlitePool, SqlitePool), OpenError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| OpenError::Folder { path: folder.to_owned(), error })?;
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // In WAL mode NORMAL keeps the file consistent through a power loss; a process that is killed loses nothing.
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let refused = |error: sqlx::Error| match &error {
        sqlx::Error::Database(db) if matches!(db.code().as_deref(), Some("5" | "261" | "517")) => {
            OpenError::Locked { path: path.to_owned() }
        }
        _ => OpenError::Open { path: path.to_owned(), error },
    };
    let pool = |size: u32| SqlitePoolOptions::new().max_connections(size).acquire_timeout(ACQUIRE_TIMEOUT);
    let write = pool(1).connect_with(options.clone()).await.map_err(refused)?;
    MIGRATIONS.run(&write).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(error) => refused(error),
        error => OpenError::Migrate { path: path.to_owned(), error },
    })?;
    // A read-only file opens well and fails at the first upload: ask now.
    let probe = write.begin_with("BEGIN IMMEDIATE").await.map_err(refused)?;
    probe.rollback().await.map_err(refused)?;
    let read = pool(READERS).connect_with(options).await.map_err(refused)?;
    Ok((read, write))
}
