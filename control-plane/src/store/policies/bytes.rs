//! Components by digest, in the database: they are small (13 KB for one in Rust, 12 MB for one in JavaScript), they are written in the
//! transaction that takes the version, and a backup of the database is a backup of the rules. Where two versions have the same
//! bytes, these are kept once.

use super::super::{Read, Store, StoreError, Write};

/// Bytes of one part; a MariaDB takes 16 MiB in a statement unless it is told otherwise.
const PART: usize = 1 << 20;

/// Stores a component, unless it is there.
pub(crate) async fn put(tx: &mut Write, digest: &str, component: &[u8]) -> Result<(), StoreError> {
    let known: i64 = sqlx::query_scalar("SELECT count(*) FROM policy_parts WHERE digest = ?")
        .bind(digest)
        .fetch_one(&mut **tx)
        .await?;
    if known > 0 {
        return Ok(());
    }
    for (part, body) in (0_i64..).zip(component.chunks(PART)) {
        sqlx::query("INSERT INTO policy_parts (digest, part, body) VALUES (?, ?, ?)")
            .bind(digest)
            .bind(part)
            .bind(body)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// A component; `None`: no version has it.
pub(crate) async fn get(store: &Store, digest: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let mut tx = store.reading().await?;
    let mut component = Vec::new();
    let mut parts = 0;
    while let Some(body) = part(&mut tx, digest, parts).await? {
        component.extend_from_slice(&body);
        parts += 1;
    }
    tx.rollback().await?;
    Ok((parts > 0).then_some(component))
}

async fn part(tx: &mut Read, digest: &str, part: i64) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(sqlx::query_scalar("SELECT body FROM policy_parts WHERE digest = ? AND part = ?")
        .bind(digest)
        .bind(part)
        .fetch_optional(&mut **tx)
        .await?)
}

/// Forgets components that no version has any more.
pub(crate) async fn forget(tx: &mut Write) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM policy_parts WHERE digest NOT IN (SELECT digest FROM policy_versions)")
        .execute(&mut **tx)
        .await?;
    Ok(())
}
