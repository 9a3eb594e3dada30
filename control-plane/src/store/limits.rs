//! Limit classes, as edges are told of them.

use segue_signing::limits::LimitsConfig;
use serde::Serialize;

use super::dialect::{args, upsert};
use super::{Read, StoreError, Write};

/// The two sorts of classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Limits,
    Streams,
}

impl Sort {
    fn word(self) -> &'static str {
        match self {
            Self::Limits => "limits",
            Self::Streams => "streams",
        }
    }
}

/// All classes.
pub(crate) async fn all(tx: &mut Read) -> Result<LimitsConfig, StoreError> {
    let rows: Vec<(String, String, String)> =
        sqlx::query_as("SELECT sort, name, class FROM limit_classes ORDER BY sort, name").fetch_all(&mut **tx).await?;
    let mut limits = LimitsConfig::default();
    for (sort, name, class) in rows {
        match sort.as_str() {
            "limits" => {
                limits.classes.insert(name, serde_json::from_str(&class)?);
            }
            "streams" => {
                limits.streams.insert(name, serde_json::from_str(&class)?);
            }
            _ => return Err(StoreError::Unknown { column: "limit_classes.sort", value: sort }),
        }
    }
    Ok(limits)
}

/// Stores a class; what was stored under its name is replaced.
pub(crate) async fn put(
    tx: &mut Write,
    sort: Sort,
    name: &str,
    class: &(impl Serialize + Sync),
    now: i64,
) -> Result<(), StoreError> {
    let row = "limit_classes (sort, name, class, changed_ms) VALUES (?, ?, ?, ?)";
    let class = serde_json::to_string(class)?;
    let changes = "class = new(class), changed_ms = new(changed_ms)";
    upsert(tx, row, "sort, name", changes, args![sort.word(), name, class, now]).await
}

/// Takes a class away. `false`: there is none of that name.
pub(crate) async fn remove(tx: &mut Write, sort: Sort, name: &str) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM limit_classes WHERE sort = ? AND name = ?")
        .bind(sort.word())
        .bind(name)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}
