//! API tokens, kept as the SHA-256 of their secret.

use sqlx::FromRow;

use super::dialect::{args, upsert};
use super::{Store, StoreError, Write};

/// A stored token.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct TokenRow {
    pub(crate) name: String,
    /// Hex SHA-256 of the secret.
    pub(crate) hash: String,
    /// Scope words, separated by spaces.
    pub(crate) scopes: String,
}

/// Stores a token under its name; a token of that name is replaced, so that a changed secret ends the old one.
pub(crate) async fn put(tx: &mut Write, token: &TokenRow, now: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM tokens WHERE hash = ? AND name <> ?")
        .bind(&token.hash)
        .bind(&token.name)
        .execute(&mut **tx)
        .await?;
    upsert(
        tx,
        "tokens (name, hash, scopes, created_ms) VALUES (?, ?, ?, ?)",
        "name",
        "hash = new(hash), scopes = new(scopes), created_ms = new(created_ms)",
        args![&token.name, &token.hash, &token.scopes, now],
    )
    .await
}

/// Takes a token away.
pub(crate) async fn remove(tx: &mut Write, name: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM tokens WHERE name = ?").bind(name).execute(&mut **tx).await?;
    Ok(())
}

/// The token whose secret hashes to `hash`.
pub(crate) async fn by_hash(store: &Store, hash: &str) -> Result<Option<TokenRow>, StoreError> {
    Ok(sqlx::query_as("SELECT name, hash, scopes FROM tokens WHERE hash = ?")
        .bind(hash)
        .fetch_optional(store.read())
        .await?)
}
