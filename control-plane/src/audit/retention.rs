//! The duty that lets old records go: after `[audit] days`, and beyond `[audit] rows` of a sort.

use std::time::Duration;

use crate::clock;
use crate::duty;
use crate::state::{Parts, Shared};
use crate::store::audit::{self, Sort};
use crate::store::leases::Held;
use crate::store::{StoreError, transaction};

/// How often it looks: the rows of a minute are few beside those that are kept.
const EVERY: Duration = Duration::from_secs(60);

/// Rows of one transaction: whoever makes a change waits for it.
const BATCH: u32 = 500;

const DAY_MS: i64 = 86_400_000;

/// Runs until shutdown: the duty of one control plane among all.
pub(crate) async fn run(parts: Shared) {
    duty::keep(&parts, "audit", |parts, held| Box::pin(go_on(parts, held))).await;
}

async fn go_on(parts: Shared, held: Held) {
    let mut failing = false;
    loop {
        match sweep(&parts, &held, clock::now_ms()).await {
            Err(error) if !failing => {
                tracing::warn!(%error, "old records of the audit cannot be let go; trying on");
                failing = true;
            }
            Err(_) => {}
            Ok(()) => failing = false,
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn sweep(parts: &Parts, held: &Held, now: i64) -> Result<(), StoreError> {
    let config = parts.audit.config;
    let too_old = now.saturating_sub(i64::from(config.days).saturating_mul(DAY_MS));
    for sort in Sort::ALL {
        let one_too_many = audit::beyond(&parts.store, sort, config.rows).await?;
        let until = one_too_many.map_or(too_old, |at| at.max(too_old));
        loop {
            let gone = transaction!(parts.store, |tx| {
                held.check(tx).await?;
                audit::prune(tx, sort, until, BATCH).await
            })?;
            if gone < u64::from(BATCH) {
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixture;
    use crate::store::audit::{AuditRow, Wanted};

    #[tokio::test]
    async fn the_oldest_of_a_sort_go_and_take_none_of_another_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let parts = fixture::parts(folder.path(), None).await;
        let now = clock::now_ms();
        let most = i64::from(parts.audit.config.rows);
        let row = |sort: Sort, n: i64| AuditRow {
            id: format!("{}-{n}", sort.word()),
            at_ms: now - n,
            ended_ms: None,
            sort: sort.word().to_owned(),
            operation: "o".to_owned(),
            method: "POST".to_owned(),
            resource: "r".to_owned(),
            actor: None,
            actor_name: None,
            address: "a".to_owned(),
            request_id: None,
            status: None,
            error: None,
            times: 1,
            summary: None,
        };
        assert!(most > 1200, "the default is no test's");
        let old = AuditRow { at_ms: now - 401 * DAY_MS, ..row(Sort::Admin, 0) };
        let mut rows: Vec<AuditRow> = (0..1200).map(|n| row(Sort::Refused, n)).collect();
        rows.extend([old, row(Sort::Admin, 5000)]);
        transaction!(parts.store, |tx| audit::put(tx, &rows).await).unwrap();
        let held = fixture::held(&parts).await;
        let mut parts = std::sync::Arc::into_inner(parts).unwrap();
        parts.audit.config.rows = 10;
        sweep(&parts, &held, now).await.unwrap();
        let left = audit::list(&parts.store, &Wanted::default(), None, 1000).await.unwrap();
        assert_eq!(left.len(), 11, "{left:?}");
        assert_eq!(left.last().unwrap().id, "admin-5000");
    }
}
