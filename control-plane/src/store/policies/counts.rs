//! What policies said and what shadows would have said, added up over edges and their restarts.
//!
//! Invariant: a policy makes up reason words, and tables must not grow by what it makes up: beyond [`REASONS_MAX`] and [`PAIRS_MAX`]
//! the rest is counted together, as [`REST`].

use segue_signing::PolicyExample;
use sha2::{Digest as _, Sha256};
use sqlx::FromRow;

use super::super::{Store, StoreError, Write};

/// Length of a bucket, in milliseconds.
pub(crate) const BUCKET_MS: i64 = 10_000;

/// Verdicts with a reason of one version that a bucket tells apart.
const REASONS_MAX: i64 = 50;

/// Pairs of verdicts that one shadow's trial tells apart.
const PAIRS_MAX: i64 = 200;

/// Examples of one pair that are kept, over all edges.
pub(crate) const EXAMPLES_MAX: usize = 10;

/// Rows of one look at verdicts over time.
const ROWS_MAX: i64 = 20_000;

/// Stands for words beyond the bound.
pub(crate) const REST: &str = "other";

/// Verdicts of one version in one step of time.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub(crate) struct VerdictRow {
    pub(crate) at_ms: i64,
    pub(crate) version: String,
    pub(crate) verdict: String,
    pub(crate) reason: String,
    pub(crate) calls: i64,
    pub(crate) took_ns: i64,
}

/// One pair of verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DifferenceRow {
    pub(crate) policy: String,
    pub(crate) shadow: String,
    /// Empty where nothing was active.
    pub(crate) active: String,
    pub(crate) said: String,
    pub(crate) would: String,
    pub(crate) calls: i64,
    /// The shadow's time.
    pub(crate) took_ns: i64,
    /// Newest first.
    pub(crate) examples: Vec<PolicyExample>,
}

/// The key of a row: 128 bits of a hash over its words, each of which may be longer than a key's column.
fn id(words: &[&str]) -> String {
    let mut hash = Sha256::new();
    for word in words {
        hash.update(u64::try_from(word.len()).unwrap_or(0).to_be_bytes());
        hash.update(word);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Adds verdicts to the bucket that `now` lies in.
pub(crate) async fn add_verdicts(
    tx: &mut Write,
    policy: &str,
    (version, verdict, reason): (&str, &str, &str),
    (calls, took_ns): (i64, i64),
    now: i64,
) -> Result<(), StoreError> {
    let bucket = now - now.rem_euclid(BUCKET_MS);
    let row = |reason: &str| id(&[policy, version, &bucket.to_string(), verdict, reason]);
    if more_verdicts(tx, &row(reason), calls, took_ns).await? {
        return Ok(());
    }
    let known: i64 =
        sqlx::query_scalar("SELECT count(*) FROM policy_verdicts WHERE policy = ? AND bucket_ms = ? AND version = ?")
            .bind(policy)
            .bind(bucket)
            .bind(version)
            .fetch_one(&mut **tx)
            .await?;
    let reason = if known < REASONS_MAX { reason } else { REST };
    if known >= REASONS_MAX && more_verdicts(tx, &row(reason), calls, took_ns).await? {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO policy_verdicts (id, policy, version, bucket_ms, verdict, reason, calls, took_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(row(reason))
    .bind(policy)
    .bind(version)
    .bind(bucket)
    .bind(verdict)
    .bind(reason)
    .bind(calls)
    .bind(took_ns)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn more_verdicts(tx: &mut Write, id: &str, calls: i64, took_ns: i64) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE policy_verdicts SET calls = calls + ?, took_ns = took_ns + ? WHERE id = ?")
        .bind(calls)
        .bind(took_ns)
        .bind(id)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Adds to a pair, and puts its new examples before the older ones.
pub(crate) async fn add_difference(tx: &mut Write, new: &DifferenceRow, now: i64) -> Result<(), StoreError> {
    let DifferenceRow { policy, shadow, active, .. } = new;
    let row = |said: &str, would: &str| id(&[policy, shadow, active, said, would]);
    let mut key = row(&new.said, &new.would);
    let (mut said, mut would) = (new.said.as_str(), new.would.as_str());
    let mut kept = examples(tx, &key).await?;
    if kept.is_none() {
        let known: i64 = sqlx::query_scalar("SELECT count(*) FROM policy_differences WHERE policy = ? AND shadow = ?")
            .bind(policy)
            .bind(shadow)
            .fetch_one(&mut **tx)
            .await?;
        if known >= PAIRS_MAX {
            (said, would) = (REST, REST);
            key = row(REST, REST);
            kept = examples(tx, &key).await?;
        }
    }
    let merged = serde_json::to_string(&merge(&new.examples, kept.as_deref().unwrap_or_default()))?;
    let query = match kept {
        Some(_) => sqlx::query(
            "UPDATE policy_differences SET calls = calls + ?, took_ns = took_ns + ?, examples = ?, updated_ms = ? WHERE id = ?",
        )
        .bind(new.calls)
        .bind(new.took_ns)
        .bind(merged)
        .bind(now)
        .bind(key),
        None => sqlx::query(
            "INSERT INTO policy_differences (calls, took_ns, examples, updated_ms, id, policy, shadow, active, said, would) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(new.calls)
        .bind(new.took_ns)
        .bind(merged)
        .bind(now)
        .bind(key)
        .bind(policy)
        .bind(shadow)
        .bind(active)
        .bind(said)
        .bind(would),
    };
    query.execute(&mut **tx).await?;
    Ok(())
}

async fn examples(tx: &mut Write, id: &str) -> Result<Option<Vec<PolicyExample>>, StoreError> {
    let text: Option<String> = sqlx::query_scalar("SELECT examples FROM policy_differences WHERE id = ?")
        .bind(id)
        .fetch_optional(&mut **tx)
        .await?;
    Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
}

/// Edges send their last few again and again.
fn merge(new: &[PolicyExample], kept: &[PolicyExample]) -> Vec<PolicyExample> {
    let mut all: Vec<PolicyExample> = Vec::with_capacity(new.len() + kept.len());
    for example in new.iter().chain(kept) {
        if !all.contains(example) {
            all.push(example.clone());
        }
    }
    all.sort_by_key(|example| std::cmp::Reverse(example.ts));
    all.truncate(EXAMPLES_MAX);
    all
}

/// What one shadow would have said, by pairs, the most frequent first.
pub(crate) async fn differences(store: &Store, policy: &str, shadow: &str) -> Result<Vec<DifferenceRow>, StoreError> {
    let sql = "SELECT active, said, would, calls, took_ns, examples FROM policy_differences WHERE policy = ? AND shadow = ? \
               ORDER BY calls DESC, said, would";
    let rows: Vec<(String, String, String, i64, i64, String)> =
        sqlx::query_as(sql).bind(policy).bind(shadow).fetch_all(store.read()).await?;
    rows.into_iter()
        .map(|(active, said, would, calls, took_ns, examples)| {
            let (policy, shadow, examples) = (policy.to_owned(), shadow.to_owned(), serde_json::from_str(&examples)?);
            Ok(DifferenceRow { policy, shadow, active, said, would, calls, took_ns, examples })
        })
        .collect()
}

/// The shadow of which a difference was told last.
pub(crate) async fn last_shadow(store: &Store, policy: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT shadow FROM policy_differences WHERE policy = ? ORDER BY updated_ms DESC LIMIT 1";
    Ok(sqlx::query_scalar(sql).bind(policy).fetch_optional(store.read()).await?)
}

/// A trial begins: what an earlier one of the same version showed is another story.
pub(crate) async fn clear_differences(tx: &mut Write, policy: &str, shadow: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM policy_differences WHERE policy = ? AND shadow = ?")
        .bind(policy)
        .bind(shadow)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Verdicts since `from`, in steps of `step` milliseconds, oldest first.
pub(crate) async fn verdicts(store: &Store, policy: &str, from: i64, step: i64) -> Result<Vec<VerdictRow>, StoreError> {
    let sql = "SELECT bucket_ms - bucket_ms % ? AS at_ms, version, verdict, reason, CAST(SUM(calls) AS SIGNED) AS calls, \
               CAST(SUM(took_ns) AS SIGNED) AS took_ns FROM policy_verdicts WHERE policy = ? AND bucket_ms >= ? \
               GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 LIMIT ?";
    Ok(sqlx::query_as(sql).bind(step).bind(policy).bind(from).bind(ROWS_MAX).fetch_all(store.read()).await?)
}

/// Calls of one version since `from`, and their time together.
pub(crate) async fn spent(store: &Store, policy: &str, version: &str, from: i64) -> Result<(i64, i64), StoreError> {
    let sql = "SELECT CAST(COALESCE(SUM(calls), 0) AS SIGNED), CAST(COALESCE(SUM(took_ns), 0) AS SIGNED) FROM policy_verdicts \
               WHERE policy = ? AND version = ? AND bucket_ms >= ?";
    Ok(sqlx::query_as(sql).bind(policy).bind(version).bind(from).fetch_one(store.read()).await?)
}

/// Forgets buckets from before a time.
pub(crate) async fn prune(tx: &mut Write, before: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM policy_verdicts WHERE bucket_ms < ?").bind(before).execute(&mut **tx).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(ts: u64) -> PolicyExample {
        PolicyExample { ts, path: "/hls/t/1.m4s".to_owned(), ..PolicyExample::default() }
    }

    #[test]
    fn examples_are_kept_newest_first_and_once() {
        let kept: Vec<_> = (1..=9).rev().map(example).collect();
        let merged = merge(&[example(12), example(11), example(9)], &kept);
        let times: Vec<u64> = merged.iter().map(|example| example.ts).collect();
        assert_eq!(times, [12, 11, 9, 8, 7, 6, 5, 4, 3, 2]);
    }

    #[test]
    fn a_key_tells_words_apart_that_run_together_alike() {
        assert_ne!(id(&["ab", "c"]), id(&["a", "bc"]));
        assert_eq!(id(&["a", "b"]).len(), 32);
    }
}
