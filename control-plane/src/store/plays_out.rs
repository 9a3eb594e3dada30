//! Transitions of plays that are yet to be published.

use super::{Store, StoreError, Write};

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
    let done = sqlx::query("UPDATE plays_out SET record = ? WHERE id = ?")
        .bind(&waiting.record)
        .bind(&waiting.id)
        .execute(&mut **tx)
        .await?;
    if done.rows_affected() == 0 {
        sqlx::query("INSERT INTO plays_out (id, play, record, made_ms, place) VALUES (?, ?, ?, ?, ?)")
            .bind(&waiting.id)
            .bind(&waiting.play)
            .bind(&waiting.record)
            .bind(now)
            .bind(place)
            .execute(&mut **tx)
            .await?;
    }
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
    let mut tx = store.begin().await?;
    for waiting in published {
        sqlx::query("DELETE FROM plays_out WHERE id = ?").bind(&waiting.id).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Forgets the ones from before this time, published or not. How many they were.
pub(crate) async fn drop_before(store: &Store, before: i64) -> Result<u64, StoreError> {
    let mut tx = store.begin().await?;
    let done = sqlx::query("DELETE FROM plays_out WHERE made_ms < ?").bind(before).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(done.rows_affected())
}
