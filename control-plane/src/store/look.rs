//! A look at the database as it is, for `segue doctor`: nothing is made, migrated or left behind.

use sqlx::AssertSqlSafe;

use super::connect::{OpenError, Target};
use super::dialect::{self, Dialect};
use crate::clock;
use crate::config::DatabaseConfig;

/// What was seen.
#[derive(Debug)]
pub(crate) struct Seen {
    /// One sentence.
    pub(crate) what: String,
    /// By how much the server's clock is ahead of ours, in milliseconds; `None`: it is ours.
    pub(crate) ahead_ms: Option<i64>,
    /// It can be read and not written.
    pub(crate) read_only: bool,
}

/// Connects, and asks what it is and whether it can be written.
pub(crate) async fn look(config: &DatabaseConfig) -> Result<Seen, OpenError> {
    if let DatabaseConfig::Sqlite(path) = config
        && !path.exists()
    {
        let what = format!("the file {} will be made at the first start", path.display());
        return Ok(Seen { what, ahead_ms: None, read_only: false });
    }
    let target = Target::new(config)?;
    let pool = target.pool(1, "READ COMMITTED").await?;
    let seen = async {
        let mut connection = pool.acquire().await?;
        let (version, now) = match target.dialect {
            Dialect::Sqlite => ("'SQLite ' || sqlite_version(), 0", None),
            Dialect::Mysql => ("VERSION(), CAST(@@read_only AS SIGNED)", Some(dialect::MYSQL_NOW_MS)),
        };
        let (version, read_only): (String, i64) =
            sqlx::query_as(AssertSqlSafe(format!("SELECT {version}"))).fetch_one(&mut *connection).await?;
        let ahead_ms = match now {
            Some(sql) => {
                let server: i64 = sqlx::query_scalar(sql).fetch_one(&mut *connection).await?;
                Some(server - clock::now_ms())
            }
            None => None,
        };
        let tables = "SELECT COUNT(*) FROM _sqlx_migrations";
        let migrations: Result<i64, sqlx::Error> = sqlx::query_scalar(tables).fetch_one(&mut *connection).await;
        let schema = match migrations {
            Ok(count) => format!("{count} migrations were made"),
            // A database without tables.
            Err(sqlx::Error::Database(_)) => "its tables will be made at the first start".to_owned(),
            Err(error) => return Err(error),
        };
        Ok(Seen { what: format!("{version} answers; {schema}"), ahead_ms, read_only: read_only != 0 })
    };
    let seen = seen.await.map_err(|error| target.refused(error));
    pool.close().await;
    seen
}
