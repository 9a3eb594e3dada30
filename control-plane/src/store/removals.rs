//! Prefixes whose objects must go, and until when they are looked at again.
//!
//! A removal is written in the transaction that makes the objects needless, so that a crash cannot forget them. It is
//! repeated until its end, because a presigned upload or a worker that has not heard yet may write once more.
//!
//! Two kinds: everything under a prefix (the track is gone, the upload was abandoned), and the folders of attempts that
//! were never published. The second is bounded by a fence and not by what is live when it runs, so that an attempt
//! which begins while it runs is safe from it.

use sqlx::FromRow;

use super::dialect::{args, upsert};
use super::{Store, StoreError, Write};

/// One prefix to empty.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Removal {
    /// Keys that start with this go.
    pub(crate) prefix: String,
    /// Keys that start with one of these lines stay: the folders of published versions. `None`: nothing stays.
    keep: Option<String>,
    /// Newest attempt whose folder may go; without meaning where nothing stays.
    fence: i64,
    until_ms: i64,
    /// Times in a row that it failed.
    pub(crate) failures: i64,
}

impl Removal {
    /// Of everything under a prefix.
    pub(crate) fn whole(prefix: String, until_ms: i64) -> Self {
        Self { prefix, keep: None, fence: 0, until_ms, failures: 0 }
    }

    /// The track of which nothing is to stay for listeners, where this removes one.
    pub(crate) fn deleted_track(&self) -> Option<&str> {
        let track = self.prefix.strip_prefix("hls/")?.strip_suffix('/')?;
        self.keep.is_none().then_some(track)
    }

    /// Whether an object is to stay. Of a track that lives, only what is surely an old attempt's goes.
    pub(crate) fn keeps(&self, key: &str) -> bool {
        let Some(keep) = &self.keep else { return false };
        let attempt = key.strip_prefix(self.prefix.as_str()).and_then(fence_of);
        attempt.is_none_or(|fence| fence > self.fence)
            || keep.lines().any(|kept| !kept.is_empty() && key.starts_with(kept))
    }
}

/// The fence at the end of a version folder's name, `<version>-<fence>/…`; `None`: no such folder.
fn fence_of(rest: &str) -> Option<i64> {
    let (folder, _) = rest.split_once('/')?;
    let (_, fence) = folder.rsplit_once('-')?;
    fence.parse().ok()
}

/// Notes the removal of everything under a prefix, until `until_ms`.
pub(crate) async fn note(tx: &mut Write, prefix: &str, due_ms: i64, until_ms: i64) -> Result<(), StoreError> {
    put(tx, prefix, None, 0, (due_ms, until_ms)).await
}

/// Notes the removal of attempts' folders up to `fence`, except for what starts with a line of `keep`; due and over at
/// the two times.
pub(crate) async fn note_attempts(
    tx: &mut Write,
    prefix: &str,
    keep: &str,
    fence: i64,
    times: (i64, i64),
) -> Result<(), StoreError> {
    put(tx, prefix, Some(keep), fence, times).await
}

/// A later removal of the same prefix replaces what is kept and never ends earlier.
async fn put(
    tx: &mut Write,
    prefix: &str,
    keep: Option<&str>,
    fence: i64,
    (due_ms, until_ms): (i64, i64),
) -> Result<(), StoreError> {
    upsert(
        tx,
        "removals (prefix, keep, fence, due_ms, until_ms) VALUES (?, ?, ?, ?, ?)",
        "prefix",
        "keep = new(keep), fence = new(fence), due_ms = new(due_ms), \
         until_ms = CASE WHEN new(until_ms) > until_ms THEN new(until_ms) ELSE until_ms END",
        args![prefix, keep, fence, due_ms, until_ms],
    )
    .await
}

/// Removals that are due, the longest waiting first.
pub(crate) async fn due(store: &Store, now: i64, limit: u32) -> Result<Vec<Removal>, StoreError> {
    Ok(sqlx::query_as(
        "SELECT prefix, keep, fence, until_ms, failures FROM removals WHERE due_ms <= ? ORDER BY due_ms LIMIT ?",
    )
    .bind(now)
    .bind(i64::from(limit))
    .fetch_all(store.read())
    .await?)
}

/// After a removal ran: over at its end, else looked at again at `again_ms`.
pub(crate) async fn done(tx: &mut Write, removal: &Removal, again_ms: i64, now: i64) -> Result<(), StoreError> {
    if now >= removal.until_ms {
        sqlx::query("DELETE FROM removals WHERE prefix = ? AND until_ms = ?")
            .bind(&removal.prefix)
            .bind(removal.until_ms)
            .execute(&mut **tx)
            .await?;
        return Ok(());
    }
    sqlx::query("UPDATE removals SET due_ms = ?, failures = 0 WHERE prefix = ?")
        .bind(again_ms.min(removal.until_ms))
        .bind(&removal.prefix)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// After a removal failed: looked at again later, however late that is.
pub(crate) async fn postpone(tx: &mut Write, prefix: &str, due_ms: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE removals SET due_ms = ?, failures = failures + 1 WHERE prefix = ?")
        .bind(due_ms)
        .bind(prefix)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_old_attempts_go_and_never_a_published_one() {
        let removal = Removal {
            keep: Some("hls/t/0123456789abcdef-2/\nhls/t/0123456789abcdef-4/".to_owned()),
            fence: 4,
            ..Removal::whole("hls/t/".to_owned(), 0)
        };
        for (key, stays) in [
            ("hls/t/0123456789abcdef-1/a64/init.mp4", false),
            ("hls/t/0123456789abcdef-2/a64/init.mp4", true),
            ("hls/t/0123456789abcdef-3/waveform.json", false),
            ("hls/t/0123456789abcdef-4/a64/init.mp4", true),
            // A retry that began after the removal was noted.
            ("hls/t/0123456789abcdef-5/a64/init.mp4", true),
            ("hls/t/0123456789abcdef-22/a64/init.mp4", true),
            ("hls/t/fedcba9876543210-2/a64/init.mp4", false),
            ("hls/t/master.m3u8", true),
            ("hls/t/notes-x/1", true),
        ] {
            assert_eq!(removal.keeps(key), stays, "{key}");
        }
        assert!(!Removal::whole("hls/t/".to_owned(), 0).keeps("hls/t/master.m3u8"));
    }
}
