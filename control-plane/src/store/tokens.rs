//! API tokens, kept as the SHA-256 of their secret: those of the configuration (`tokens`) and those made over the API
//! (`api_tokens`).

use sqlx::{AssertSqlSafe, FromRow};

use super::dialect::{args, delete_some, locked, upsert};
use super::{Store, StoreError, Write};

/// A token of the configuration.
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

/// A token that was made over the API. Times are ms since the epoch.
#[derive(Clone, FromRow)]
pub(crate) struct ApiTokenRow {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Hex SHA-256 of the secret.
    pub(crate) hash: String,
    /// The secret before the last rotation, taken until then.
    pub(crate) former_hash: Option<String>,
    pub(crate) former_until_ms: Option<i64>,
    pub(crate) scopes: String,
    pub(crate) created_ms: i64,
    pub(crate) rotated_ms: Option<i64>,
    pub(crate) expires_ms: Option<i64>,
}

impl std::fmt::Debug for ApiTokenRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiTokenRow").field("id", &self.id).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

/// A token of either kind, as a list shows it.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct ListedToken {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) scopes: String,
    pub(crate) created_ms: i64,
    pub(crate) rotated_ms: Option<i64>,
    pub(crate) expires_ms: Option<i64>,
    pub(crate) former_until_ms: Option<i64>,
    /// 1: the configuration has it.
    pub(crate) configured: i64,
    pub(crate) last_used_ms: Option<i64>,
}

const API_COLUMNS: &str = "id, name, hash, former_hash, former_until_ms, scopes, created_ms, rotated_ms, expires_ms";

/// Both kinds, each with its last use.
const LISTED: &str = "SELECT t.*, u.last_used_ms FROM \
     (SELECT id, name, scopes, created_ms, rotated_ms, expires_ms, former_until_ms, 0 AS configured FROM api_tokens \
      UNION ALL SELECT name, name, scopes, created_ms, NULL, NULL, NULL, 1 FROM tokens) t \
     LEFT JOIN token_uses u ON u.token = t.id";

/// A token by its id.
pub(crate) async fn by_id(store: &Store, id: &str) -> Result<Option<ApiTokenRow>, StoreError> {
    let sql = AssertSqlSafe(format!("SELECT {API_COLUMNS} FROM api_tokens WHERE id = ?"));
    Ok(sqlx::query_as(sql).bind(id).fetch_optional(store.read()).await?)
}

/// The same within a change; the row stays as it is until that ends.
pub(crate) async fn hold(tx: &mut Write, id: &str) -> Result<Option<ApiTokenRow>, StoreError> {
    locked(tx, &format!("SELECT {API_COLUMNS} FROM api_tokens WHERE id = ?"), args![id]).await
}

/// How many there are of those that were made over the API.
pub(crate) async fn count(tx: &mut Write) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM api_tokens").fetch_one(&mut **tx).await?)
}

/// Stores one, new or changed.
pub(crate) async fn put_api(tx: &mut Write, row: &ApiTokenRow) -> Result<(), StoreError> {
    upsert(
        tx,
        &format!("api_tokens ({API_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"),
        "id",
        "hash = new(hash), former_hash = new(former_hash), former_until_ms = new(former_until_ms), \
         rotated_ms = new(rotated_ms), expires_ms = new(expires_ms)",
        args![
            &row.id,
            &row.name,
            &row.hash,
            row.former_hash.as_ref(),
            row.former_until_ms,
            &row.scopes,
            row.created_ms,
            row.rotated_ms,
            row.expires_ms
        ],
    )
    .await
}

/// Takes one away. `false`: there is none of that id.
pub(crate) async fn revoke(tx: &mut Write, id: &str) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM api_tokens WHERE id = ?").bind(id).execute(&mut **tx).await?;
    sqlx::query("DELETE FROM token_uses WHERE token = ?").bind(id).execute(&mut **tx).await?;
    Ok(done.rows_affected() == 1)
}

/// All tokens, newest first, from behind `after` (creation time and id).
pub(crate) async fn list(
    store: &Store,
    after: Option<(i64, &str)>,
    limit: u32,
) -> Result<Vec<ListedToken>, StoreError> {
    let (at, id) = after.unwrap_or((i64::MAX, ""));
    let sql = AssertSqlSafe(format!(
        "{LISTED} WHERE t.created_ms < ? OR (t.created_ms = ? AND t.id > ?) ORDER BY t.created_ms DESC, t.id LIMIT ?"
    ));
    Ok(sqlx::query_as(sql).bind(at).bind(at).bind(id).bind(i64::from(limit)).fetch_all(store.read()).await?)
}

/// One token as a list shows it.
pub(crate) async fn listed(store: &Store, id: &str) -> Result<Option<ListedToken>, StoreError> {
    let sql = AssertSqlSafe(format!("{LISTED} WHERE t.id = ?"));
    Ok(sqlx::query_as(sql).bind(id).fetch_optional(store.read()).await?)
}

/// Notes when a token was used, where that is later than what is known.
pub(crate) async fn used(tx: &mut Write, token: &str, at_ms: i64) -> Result<(), StoreError> {
    upsert(
        tx,
        "token_uses (token, last_used_ms) VALUES (?, ?)",
        "token",
        "last_used_ms = CASE WHEN new(last_used_ms) > token_uses.last_used_ms THEN new(last_used_ms) \
         ELSE token_uses.last_used_ms END",
        args![token, at_ms],
    )
    .await
}

/// Forgets tokens that expired long ago, and uses of tokens that are no more, at most `limit`.
pub(crate) async fn prune(tx: &mut Write, expired_before: i64, limit: u32) -> Result<(), StoreError> {
    delete_some(tx, "api_tokens", "id", "expires_ms < ?", args![expired_before], limit).await?;
    let gone = "token NOT IN (SELECT id FROM api_tokens) AND token NOT IN (SELECT name FROM tokens)";
    delete_some(tx, "token_uses", "token", gone, args![], limit).await?;
    Ok(())
}
