//! Opening the database: connections, migrations, and errors in words.
//!
//! Migrations run under a lock, so that of several programs that start at once one does the work and the others wait. A
//! database that a newer program has migrated is used all the same, unless that program raised the floor above what this
//! one knows: so an old version can go on serving, and be started again, while the new one is rolled out.

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::{AnyConnection, AnyPool, ConnectOptions as _, Connection, Executor};
use url::Url;

use super::dialect::{self, Dialect};
use crate::config::DatabaseConfig;

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static MYSQL: Migrator = sqlx::migrate!("migrations/mysql");

/// How long a caller waits for a connection; longer than a statement waits for a lock, shorter than a request.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection that comes back to its pool may take to answer, before it is closed instead.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a start waits for another program that migrates.
const MIGRATION_WAIT_S: i64 = 60;

/// Readers of a SQLite file at once. Its reads are short and run on their own threads; more than this gains nothing.
const SQLITE_READERS: u32 = 4;

/// What every connection to MariaDB is told. Texts that do not fit are refused and never cut. A statement waits for a
/// row's lock for as long as SQLite waits for its file's.
const MYSQL_SESSION: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,PIPES_AS_CONCAT,ERROR_FOR_DIVISION_BY_ZERO', \
                             SESSION innodb_lock_wait_timeout = 5";

/// A control plane that vanished (its machine lost power) leaves its transaction open, and its locks held, until the server
/// gives it up. MariaDB alone can be told when.
const MYSQL_IDLE: &str = "SET SESSION idle_transaction_timeout = 20";

/// `ER_UNKNOWN_SYSTEM_VARIABLE`.
const UNKNOWN_VARIABLE: u16 = 1193;

/// The database could not be opened. Each text is one sentence for an operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("cannot make the database folder {}: {error}", .path.display())]
    Folder { path: PathBuf, error: std::io::Error },
    #[error("cannot open the database {name}: {error}; check that the file and its folder can be written by this user")]
    Open { name: String, error: sqlx::Error },
    #[error("cannot reach the database {name}: {error}; check [database] url and password, and that the server runs")]
    Reach { name: String, error: sqlx::Error },
    #[error("the database {name} is locked by another process; stop the other program or choose another file")]
    Locked { name: String },
    #[error("another program has been migrating the database {name} for {} s; wait until it is done", MIGRATION_WAIT_S)]
    Migrating { name: String },
    #[error("the database {name} cannot be brought up to date: {error}")]
    Migrate { name: String, error: MigrateError },
    #[error(
        "the database {name} is used by a newer program that this one (schema {level}) cannot share it with; it wants {floor} at least"
    )]
    TooNew { name: String, level: i64, floor: i64 },
}

/// The open connections.
pub(super) struct Pools {
    pub(super) read: AnyPool,
    pub(super) write: AnyPool,
    pub(super) dialect: Dialect,
}

/// Where and how to connect.
pub(super) struct Target<'a> {
    pub(super) dialect: Dialect,
    options: AnyConnectOptions,
    /// For messages; without the password.
    name: String,
    migrator: &'a Migrator,
}

pub(super) async fn open(config: &DatabaseConfig) -> Result<Pools, OpenError> {
    let target = Target::new(config)?;
    let (readers, writers) = match (target.dialect, config) {
        (Dialect::Mysql, DatabaseConfig::Mysql { connections, .. }) => {
            (connections.div_ceil(2), connections.div_ceil(2))
        }
        // One writer: the callers queue fairly for it instead of polling the file's lock.
        _ => (SQLITE_READERS, 1),
    };
    let write = target.pool(writers, "READ COMMITTED").await?;
    target.migrate(&write).await?;
    let read = target.pool(readers, "REPEATABLE READ").await?;
    Ok(Pools { read, write, dialect: target.dialect })
}

/// Whether a connection that comes back to its pool still answers. Whoever asked may have been cut in the middle of a
/// statement (a client that hangs up), and then the driver can wait for an answer that came already: without an end to that
/// the connection's place in the pool would be lost for good.
async fn answers(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    match tokio::time::timeout(ANSWER_TIMEOUT, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        // As an error it is closed at once, and not in order, which would wait again.
        Err(_) => Err(sqlx::Error::Protocol("a connection that was given back does not answer".to_owned())),
    }
}

impl Target<'static> {
    pub(super) fn new(config: &DatabaseConfig) -> Result<Self, OpenError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let (dialect, url, name, migrator) = match config {
            DatabaseConfig::Sqlite(path) => {
                let (url, name) = (file_url(path)?, path.display().to_string());
                (Dialect::Sqlite, url, name, &SQLITE)
            }
            DatabaseConfig::Mysql { url, password, .. } => {
                let name = format!("{}{}", url.host_str().unwrap_or("localhost"), url.path());
                let mut url = url.clone();
                // Refused for addresses without a host alone, and such are refused with the configuration.
                let _ = url.set_password(password.as_ref().map(segue_config::Secret::expose));
                (Dialect::Mysql, url, name, &MYSQL)
            }
        };
        let options =
            AnyConnectOptions::from_url(&url).map_err(|error| OpenError::Reach { name: name.clone(), error })?;
        Ok(Self { dialect, options, name, migrator })
    }
}

impl Target<'_> {
    pub(super) async fn pool(&self, size: u32, isolation: &'static str) -> Result<AnyPool, OpenError> {
        let options = AnyPoolOptions::new().max_connections(size).acquire_timeout(ACQUIRE_TIMEOUT);
        let options = options.after_connect(move |connection, _| Box::pin(prepare(connection, isolation)));
        let options = match self.dialect {
            Dialect::Mysql => options.after_release(|connection, _| Box::pin(answers(connection))),
            Dialect::Sqlite => options,
        };
        options.connect_with(self.options.clone()).await.map_err(|error| self.refused(error))
    }

    pub(super) fn refused(&self, error: sqlx::Error) -> OpenError {
        let name = self.name.clone();
        let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
        match self.dialect {
            Dialect::Mysql => OpenError::Reach { name, error },
            Dialect::Sqlite if matches!(code.as_deref(), Some("5" | "261" | "517")) => OpenError::Locked { name },
            Dialect::Sqlite => OpenError::Open { name, error },
        }
    }

    /// Brings the schema up to date, and proves that the database can be written.
    async fn migrate(&self, write: &AnyPool) -> Result<(), OpenError> {
        let mut connection = write.acquire().await.map_err(|error| self.refused(error))?;
        match self.dialect {
            Dialect::Sqlite => {
                // The lock that writes need is the lock of the migration, too; all of it is one transaction.
                let mut tx =
                    connection.begin_with(Dialect::Sqlite.begin()).await.map_err(|error| self.refused(error))?;
                self.run(&mut tx).await?;
                tx.commit().await.map_err(|error| self.refused(error))
            }
            Dialect::Mysql => {
                let lock = "SELECT CAST(GET_LOCK(CONCAT('segue-migrate-', DATABASE()), ?) AS SIGNED)";
                let got: Option<i64> = sqlx::query_scalar(lock)
                    .bind(MIGRATION_WAIT_S)
                    .fetch_one(&mut *connection)
                    .await
                    .map_err(|error| self.refused(error))?;
                if got != Some(1) {
                    return Err(OpenError::Migrating { name: self.name.clone() });
                }
                let done = self.run(&mut connection).await;
                // The lock ends with its connection in any case.
                sqlx::query("DO RELEASE_LOCK(CONCAT('segue-migrate-', DATABASE()))")
                    .execute(&mut *connection)
                    .await
                    .map_err(|error| self.refused(error))?;
                done
            }
        }
    }

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), OpenError> {
        let failed = |error: MigrateError| match error {
            MigrateError::Execute(error) => self.refused(error),
            error => OpenError::Migrate { name: self.name.clone(), error },
        };
        let migrator = Migrator {
            migrations: self.migrator.migrations.clone(),
            // Ours, above, has a bound.
            locking: false,
            // Those of a newer program: the floor says whether they matter.
            ignore_missing: true,
            ..Migrator::DEFAULT
        };
        connection.ensure_migrations_table(&migrator.table_name).await.map_err(failed)?;
        if self.dialect == Dialect::Mysql {
            // MariaDB commits each statement of a migration by itself. One that was cut off begins again.
            sqlx::query("DELETE FROM _sqlx_migrations WHERE success = FALSE")
                .execute(&mut *connection)
                .await
                .map_err(|error| self.refused(error))?;
        }
        migrator.run_direct(None, connection, false).await.map_err(failed)?;
        let level = migrator.iter().map(|migration| migration.version).max().unwrap_or(0);
        let floor: i64 = sqlx::query_scalar("SELECT floor FROM schema_floor WHERE one = 1")
            .fetch_one(&mut *connection)
            .await
            .map_err(|error| self.refused(error))?;
        if floor > level {
            return Err(OpenError::TooNew { name: self.name.clone(), level, floor });
        }
        Ok(())
    }
}

/// The address of a file, made if it is missing.
fn file_url(path: &Path) -> Result<Url, OpenError> {
    let folder = |error| OpenError::Folder { path: path.to_owned(), error };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|error| OpenError::Folder { path: parent.to_owned(), error })?;
    }
    let absolute = std::path::absolute(path).map_err(folder)?;
    let named =
        || std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a path that can be written as an address");
    let file = Url::from_file_path(&absolute).map_err(|()| folder(named()))?;
    Url::parse(&format!("sqlite://{}?mode=rwc", file.path())).map_err(|_| folder(named()))
}

/// What a new connection is told before its first use.
async fn prepare(connection: &mut AnyConnection, isolation: &'static str) -> Result<(), sqlx::Error> {
    match Dialect::of(connection) {
        Dialect::Sqlite => {
            // In WAL mode NORMAL keeps the file consistent through a power loss; a process that is killed loses nothing.
            // Foreign keys, and a wait of 5 s for a lock that another process holds, are the driver's defaults.
            connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;").await?;
        }
        Dialect::Mysql => {
            connection.execute(MYSQL_SESSION).await?;
            connection
                .execute(sqlx::AssertSqlSafe(format!("SET SESSION TRANSACTION ISOLATION LEVEL {isolation}")))
                .await?;
            if let Err(error) = connection.execute(MYSQL_IDLE).await
                && dialect::mysql_number(&error) != Some(UNKNOWN_VARIABLE)
            {
                return Err(error);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::database::database;
    use crate::store::Store;

    async fn run(store: &Store, sql: &'static str) {
        let mut tx = store.begin().await.unwrap();
        sqlx::query(sql).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn of_many_that_start_at_once_one_migrates_and_all_serve() {
        let folder = tempfile::tempdir().unwrap();
        let config = database(folder.path());
        let opened = futures::future::join_all((0..4).map(|_| Store::open(&config))).await;
        for store in opened {
            let store = store.unwrap();
            let sql = "SELECT COUNT(*) FROM _sqlx_migrations";
            let applied: i64 = sqlx::query_scalar(sql).fetch_one(store.read()).await.unwrap();
            assert_eq!(applied, i64::try_from(SQLITE.iter().count()).unwrap());
            store.close().await;
        }
    }

    #[tokio::test]
    async fn an_older_program_serves_on_until_a_newer_one_takes_away_what_it_uses() {
        let folder = tempfile::tempdir().unwrap();
        let config = database(folder.path());
        let store = Store::open(&config).await.unwrap();
        run(
            &store,
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (9999, 'of a newer program', TRUE, x'00', 0)",
        )
        .await;
        Store::open(&config).await.unwrap().close().await;
        run(&store, "UPDATE schema_floor SET floor = 9999").await;
        let error = Store::open(&config).await.unwrap_err().to_string();
        assert!(error.contains("newer program") && error.contains("9999"), "{error}");
    }

    #[tokio::test]
    async fn a_migration_that_was_cut_off_is_run_again() {
        let folder = tempfile::tempdir().unwrap();
        let config = database(folder.path());
        let store = Store::open(&config).await.unwrap();
        if Dialect::of(&store.begin().await.unwrap()) == Dialect::Mysql {
            // SQLite takes a whole migration back; here the half of it that was done stays.
            run(&store, "UPDATE _sqlx_migrations SET success = FALSE WHERE version >= 10").await;
            run(&store, "DROP TABLE edges").await;
        }
        store.close().await;
        let store = Store::open(&config).await.unwrap();
        let edges: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM edges").fetch_one(store.read()).await.unwrap();
        assert_eq!(edges, 0);
    }

    #[test]
    fn both_sets_have_the_same_migrations() {
        let numbers = |migrator: &Migrator| migrator.iter().map(|one| one.version).collect::<Vec<_>>();
        assert_eq!(numbers(&SQLITE), numbers(&MYSQL));
    }
}
