//! Leases: whose turn it is at what must run once among all control planes.
//!
//! Invariants: a name has one holder at a time; its fence rises with every new holder and never falls; a transaction that
//! asked [`Held::check`] commits only while the lease is its holder's. Times are the database's own, so that the clocks of
//! the control planes need not agree.

use super::dialect::{self, args, insert_new, locked};
use super::{Store, StoreError, Write, transaction};

/// A lease that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    name: &'static str,
    holder: String,
    fence: i64,
}

impl Held {
    /// Tells this holding from every other one of the name.
    pub(crate) fn fence(&self) -> i64 {
        self.fence
    }

    /// Goes on only while the lease is this holder's, and keeps it so until the transaction ends.
    pub(crate) async fn check(&self, tx: &mut Write) -> Result<(), StoreError> {
        let sql = "SELECT fence FROM leases WHERE name = ? AND holder = ? AND fence = ?";
        let row: Option<(i64,)> = locked(tx, sql, args![self.name, &self.holder, self.fence]).await?;
        row.map(|_| ()).ok_or(StoreError::NotHeld(self.name))
    }
}

/// Takes a lease for `span_ms`, or takes it longer where it is this holder's. `None`: somebody else has it.
pub(crate) async fn take(
    store: &Store,
    name: &'static str,
    holder: &str,
    span_ms: i64,
) -> Result<Option<Held>, StoreError> {
    let fence = transaction!(store, |tx| {
        let sql = "SELECT holder, fence, until_ms FROM leases WHERE name = ?";
        let row: Option<(String, i64, i64)> = locked(tx, sql, args![name]).await?;
        let now = dialect::now_ms(tx).await?;
        let Some((before, fence, until)) = row else {
            let row = "leases (name, holder, fence, until_ms) VALUES (?, ?, 1, ?)";
            let first = insert_new(tx, row, args![name, holder, now + span_ms]).await?;
            return Ok::<Option<i64>, StoreError>(first.then_some(1));
        };
        if before != holder && until > now {
            return Ok(None);
        }
        let fence = if before == holder { fence } else { fence + 1 };
        sqlx::query("UPDATE leases SET holder = ?, fence = ?, until_ms = ? WHERE name = ?")
            .bind(holder)
            .bind(fence)
            .bind(now + span_ms)
            .bind(name)
            .execute(&mut **tx)
            .await?;
        Ok(Some(fence))
    })?;
    Ok(fence.map(|fence| Held { name, holder: holder.to_owned(), fence }))
}

/// Gives a lease up, so that the next one need not wait for its end.
pub(crate) async fn release(store: &Store, held: &Held) -> Result<(), StoreError> {
    transaction!(store, |tx| {
        sqlx::query("UPDATE leases SET until_ms = 0 WHERE name = ? AND holder = ? AND fence = ?")
            .bind(held.name)
            .bind(&held.holder)
            .bind(held.fence)
            .execute(&mut **tx)
            .await?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fixture;

    const LONG: i64 = 600_000;

    async fn checked(store: &Store, held: &Held) -> bool {
        match transaction!(store, |tx| held.check(tx).await) {
            Ok(()) => true,
            Err(StoreError::NotHeld(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn one_holds_it_and_the_next_gets_a_higher_fence() {
        let folder = tempfile::tempdir().unwrap();
        let store = fixture::store(folder.path()).await;
        let first = take(&store, "duty", "a", LONG).await.unwrap().unwrap();
        assert_eq!(take(&store, "duty", "b", LONG).await.unwrap(), None);
        assert_eq!(take(&store, "duty", "a", LONG).await.unwrap().unwrap(), first, "renewed");
        assert_eq!(take(&store, "other", "b", LONG).await.unwrap().unwrap().fence(), 1);
        release(&store, &first).await.unwrap();
        assert!(checked(&store, &first).await, "until somebody else takes it");
        let second = take(&store, "duty", "b", LONG).await.unwrap().unwrap();
        assert_eq!((second.fence(), checked(&store, &first).await, checked(&store, &second).await), (2, false, true));
        release(&store, &first).await.unwrap();
        assert_eq!(take(&store, "duty", "a", LONG).await.unwrap(), None, "a late word of the first frees nothing");
    }

    #[tokio::test]
    async fn of_many_that_want_it_at_once_one_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = fixture::store(folder.path()).await;
        for round in 1..=5 {
            let holders: Vec<String> = (0..8).map(|n| format!("{round}-{n}")).collect();
            let takes = holders.iter().map(|holder| take(&store, "duty", holder, LONG));
            let taken: Vec<Held> =
                futures::future::join_all(takes).await.into_iter().filter_map(Result::unwrap).collect();
            assert_eq!(taken.len(), 1, "{taken:?}");
            assert_eq!(taken[0].fence(), round);
            release(&store, &taken[0]).await.unwrap();
        }
    }
}
