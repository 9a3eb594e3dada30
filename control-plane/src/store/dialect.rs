//! Where SQLite and MariaDB (and MySQL 8) disagree. Everything else of the store is one text for both.
//!
//! | | SQLite | MariaDB |
//! |---|---|---|
//! | writers | one at a time (`BEGIN IMMEDIATE`) | many, at READ COMMITTED: what was read to be changed is read `FOR UPDATE` |
//! | readers | a snapshot of their own (WAL) | the same (REPEATABLE READ) |
//! | insert unless there | `ON CONFLICT DO NOTHING` | `INSERT IGNORE` |
//! | insert or change | `ON CONFLICT (…) DO UPDATE` | `ON DUPLICATE KEY UPDATE` |
//! | a row that another transaction holds | cannot be | `FOR UPDATE SKIP LOCKED` |
//! | the row that was changed | `UPDATE … RETURNING` | `UPDATE`, then `SELECT` under the row's lock |
//! | delete some | by a subquery with `LIMIT` | `DELETE … LIMIT` |
//! | a transaction loses against another | never | deadlock, lock wait, a key that was inserted in between: run again |
//!
//! MariaDB evaluates the assignments of an `UPDATE` from left to right, each seeing those before it: no assignment reads a
//! column that one before it changed. Both count rows that were found, whether or not they changed.

use sqlx::any::AnyArguments;
use sqlx::mysql::MySqlDatabaseError;
use sqlx::{AnyConnection, AssertSqlSafe, FromRow};

use super::{StoreError, Write};
use crate::clock;

/// Which of the two a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Mysql,
}

impl Dialect {
    pub(super) fn of(connection: &AnyConnection) -> Self {
        if connection.backend_name() == "SQLite" { Self::Sqlite } else { Self::Mysql }
    }

    /// Begins a transaction that may write.
    pub(super) fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Mysql => "START TRANSACTION",
        }
    }

    /// Ends a `SELECT` whose rows this transaction is about to change.
    fn locking(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Mysql => " FOR UPDATE",
        }
    }

    /// Inserts a row unless one of its keys is there. `what` is what follows `INTO`. On MariaDB a text that is too long is
    /// cut instead of refused: keys that come from outside are bounded by the caller.
    fn insert_new(self, what: &str) -> String {
        match self {
            Self::Sqlite => format!("INSERT INTO {what} ON CONFLICT DO NOTHING"),
            Self::Mysql => format!("INSERT IGNORE INTO {what}"),
        }
    }

    /// Inserts a row, or changes the one with the same `keys`. In `changes`, `new(column)` is what would have been inserted.
    fn upsert(self, what: &str, keys: &str, changes: &str) -> String {
        match self {
            Self::Sqlite => {
                let changes = changes.replace("new(", "(excluded.");
                format!("INSERT INTO {what} ON CONFLICT ({keys}) DO UPDATE SET {changes}")
            }
            Self::Mysql => {
                let changes = changes.replace("new(", "VALUES(");
                format!("INSERT INTO {what} ON DUPLICATE KEY UPDATE {changes}")
            }
        }
    }

    /// Deletes at most as many rows as the last placeholder says; `keys` name a row.
    fn delete_some(self, table: &str, keys: &str, which: &str) -> String {
        match self {
            Self::Sqlite => {
                format!("DELETE FROM {table} WHERE ({keys}) IN (SELECT {keys} FROM {table} WHERE {which} LIMIT ?)")
            }
            Self::Mysql => format!("DELETE FROM {table} WHERE {which} LIMIT ?"),
        }
    }
}

/// The arguments of a statement, in order.
macro_rules! args {
    ($($value:expr),* $(,)?) => {{
        #[allow(unused_mut)]
        let mut args = sqlx::any::AnyArguments::default();
        $(sqlx::Arguments::add(&mut args, $value).map_err(sqlx::Error::Encode)?;)*
        args
    }};
}
pub(crate) use args;

/// A `SELECT` whose rows stay as they are until the transaction ends. Gives the row, where there is one.
pub(crate) async fn locked<T>(tx: &mut Write, select: &str, args: AnyArguments) -> Result<Option<T>, StoreError>
where
    T: for<'r> FromRow<'r, sqlx::any::AnyRow> + Send + Unpin,
{
    let sql = AssertSqlSafe(format!("{select}{}", Dialect::of(tx).locking()));
    Ok(sqlx::query_as_with(sql, args).fetch_optional(&mut **tx).await?)
}

/// Whether a row is there that nobody else is about to change. It then is this transaction's until that ends; where
/// somebody else has it, nobody waits.
pub(crate) async fn free(tx: &mut Write, select: &str, args: AnyArguments) -> Result<bool, StoreError> {
    let lock = match Dialect::of(tx) {
        Dialect::Sqlite => "",
        Dialect::Mysql => " FOR UPDATE SKIP LOCKED",
    };
    let sql = AssertSqlSafe(format!("{select}{lock}"));
    Ok(sqlx::query_with(sql, args).fetch_optional(&mut **tx).await?.is_some())
}

/// The clock of MariaDB, ms since the epoch.
pub(super) const MYSQL_NOW_MS: &str = "SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)";

/// The database's clock, ms since the epoch: the same one for all who share it.
pub(crate) async fn now_ms(tx: &mut Write) -> Result<i64, StoreError> {
    match Dialect::of(tx) {
        // Whoever shares a file shares the machine.
        Dialect::Sqlite => Ok(clock::now_ms()),
        Dialect::Mysql => Ok(sqlx::query_scalar(MYSQL_NOW_MS).fetch_one(&mut **tx).await?),
    }
}

/// Takes the turn of a kind of work of which one transaction at a time may be under way, until it ends.
pub(crate) async fn turn(tx: &mut Write, name: &'static str) -> Result<(), StoreError> {
    if Dialect::of(tx) == Dialect::Mysql {
        sqlx::query("SELECT name FROM turns WHERE name = ? FOR UPDATE").bind(name).fetch_one(&mut **tx).await?;
    }
    Ok(())
}

/// Inserts a row unless it is there; `what` as in `INTO seen (id) VALUES (?)`. `false`: it was there.
pub(crate) async fn insert_new(tx: &mut Write, what: &str, args: AnyArguments) -> Result<bool, StoreError> {
    let sql = AssertSqlSafe(Dialect::of(tx).insert_new(what));
    Ok(sqlx::query_with(sql, args).execute(&mut **tx).await?.rows_affected() == 1)
}

/// Inserts a row, or changes the one that has its keys: `upsert(tx, "t (k, n) VALUES (?, ?)", "k", "n = n + new(n)", …)`.
pub(crate) async fn upsert(
    tx: &mut Write,
    what: &str,
    keys: &str,
    changes: &str,
    args: AnyArguments,
) -> Result<(), StoreError> {
    let sql = AssertSqlSafe(Dialect::of(tx).upsert(what, keys, changes));
    sqlx::query_with(sql, args).execute(&mut **tx).await?;
    Ok(())
}

/// Deletes rows of `table`, which `keys` name, at most `limit`.
pub(crate) async fn delete_some(
    tx: &mut Write,
    table: &str,
    keys: &str,
    which: &str,
    mut args: AnyArguments,
    limit: u32,
) -> Result<u64, StoreError> {
    sqlx::Arguments::add(&mut args, i64::from(limit)).map_err(sqlx::Error::Encode)?;
    let sql = AssertSqlSafe(Dialect::of(tx).delete_some(table, keys, which));
    Ok(sqlx::query_with(sql, args).execute(&mut **tx).await?.rows_affected())
}

/// Changes the one row whose column `id` is `id`, where `guard` (a condition, its arguments last) holds as well, and
/// gives it as it then is. `None`: there is none, nothing changed.
pub(crate) async fn changed<T>(
    tx: &mut Write,
    table: &str,
    changes: &str,
    guard: &str,
    mut args: AnyArguments,
    id: &str,
) -> Result<Option<T>, StoreError>
where
    T: for<'r> FromRow<'r, sqlx::any::AnyRow> + Send + Unpin,
{
    sqlx::Arguments::add(&mut args, id).map_err(sqlx::Error::Encode)?;
    let mut sql = format!("UPDATE {table} SET {changes} WHERE {guard} AND id = ?");
    if Dialect::of(tx) == Dialect::Sqlite {
        sql.push_str(" RETURNING *");
        return Ok(sqlx::query_as_with(AssertSqlSafe(sql), args).fetch_optional(&mut **tx).await?);
    }
    if sqlx::query_with(AssertSqlSafe(sql), args).execute(&mut **tx).await?.rows_affected() == 0 {
        return Ok(None);
    }
    let sql = AssertSqlSafe(format!("SELECT * FROM {table} WHERE id = ?"));
    Ok(sqlx::query_as(sql).bind(id).fetch_optional(&mut **tx).await?)
}

/// The number of an error of MariaDB or MySQL.
pub(super) fn mysql_number(error: &sqlx::Error) -> Option<u16> {
    error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}

/// Whether a transaction lost against another one, so that running it again may succeed.
pub(super) fn lost_against_another(error: &sqlx::Error) -> bool {
    // ER_LOCK_DEADLOCK, ER_LOCK_WAIT_TIMEOUT, ER_CHECKREAD, ER_DUP_ENTRY: a row that was not there when it was looked for.
    matches!(mysql_number(error), Some(1213 | 1205 | 1020 | 1062))
}

/// Whether the database is not to be had at this moment.
pub(super) fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) => true,
        sqlx::Error::Database(database) => match mysql_number(error) {
            // ER_CON_COUNT_ERROR, ER_SERVER_SHUTDOWN, the network's errors, ER_OPTION_PREVENTS_STATEMENT (read-only: a
            // failover is under way), ER_CONNECTION_KILLED, ER_TOO_MANY_USER_CONNECTIONS, ER_QUERY_INTERRUPTED.
            Some(number) => matches!(number, 1040 | 1053 | 1158..=1161 | 1203 | 1290 | 1317 | 1927 | 1205 | 1213),
            // SQLite result codes: SQLITE_BUSY and its extended forms, SQLITE_LOCKED.
            None => database.code().is_some_and(|code| matches!(code.as_ref(), "5" | "6" | "261" | "517" | "773")),
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::Dialect;

    #[test]
    fn each_speaks_its_own() {
        let both = [Dialect::Sqlite, Dialect::Mysql];
        let upsert =
            both.map(|dialect| dialect.upsert("t (k, n, m) VALUES (?, ?, ?)", "k", "n = n + new(n), m = new(m)"));
        assert_eq!(
            upsert,
            [
                "INSERT INTO t (k, n, m) VALUES (?, ?, ?) ON CONFLICT (k) DO UPDATE SET n = n + (excluded.n), m = (excluded.m)",
                "INSERT INTO t (k, n, m) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE n = n + VALUES(n), m = VALUES(m)",
            ]
        );
        let delete = both.map(|dialect| dialect.delete_some("t", "a, b", "age < ?"));
        assert_eq!(
            delete,
            [
                "DELETE FROM t WHERE (a, b) IN (SELECT a, b FROM t WHERE age < ? LIMIT ?)",
                "DELETE FROM t WHERE age < ? LIMIT ?",
            ]
        );
    }
}
