//! Transitions of plays that are yet to be published.

use super::dialect::{args, delete_some, insert_new};
use super::{Store, StoreError, Write, transaction};

/// One on its way.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Waiting {
    /// The same for every copy of this transition.
    pub(crate) id: String,
    /// Whose it is: all transitions of a play go one way.
    pub(crate) play: String,
    /// JSON.
    pub(crate) record: String,
}

/// Adds one, in the transaction that brought it about, as the so-and-so-manieth of it. One that waits already waits on.
pub(crate) async fn put(tx: &mut Write, waiting: &Waiting, now: i64, place: i64) -> Result<(), StoreError> {
    let Waiting { id, play, record } = waiting;
    let row = "plays_out (id, play, record, made_ms, place) VALUES (?, ?, ?, ?, ?)";
    insert_new(tx, row, args![id.clone(), play.clone(), record.clone(), now, place]).await?;
    Ok(())
}

/// The oldest, in the order in which they came about.
pub(crate) async fn oldest(store: &Store, limit: u32) -> Result<Vec<Waiting>, StoreError> {
    Ok(sqlx::query_as("SELECT id, play, record FROM plays_out ORDER BY made_ms, place LIMIT ?")
        .bind(i64::from(limit))
        .fetch_all(store.read())
        .await?)
}

/// Forgets those that were published.
pub(crate) async fn forget(store: &Store, published: &[Waiting]) -> Result<(), StoreError> {
    transaction!(store, |tx| {
        for waiting in published {
            sqlx::query("DELETE FROM plays_out WHERE id = ?").bind(waiting.id.as_str()).execute(&mut **tx).await?;
        }
        Ok(())
    })
}

/// Forgets the ones from before this time, published or not, at most `limit`. How many they were.
pub(crate) async fn drop_before(store: &Store, before: i64, limit: u32) -> Result<u64, StoreError> {
    transaction!(store, |tx| delete_some(tx, "plays_out", "id", "made_ms < ?", args![before], limit).await)
}
