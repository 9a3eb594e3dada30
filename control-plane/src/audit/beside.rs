//! Tickets and refusals: written beside the requests, many at a time, from bounded memory.
//!
//! On failure: what could not be written is kept for the next time, as far as there is room; how many tickets found none is recorded.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::auth::address;
use crate::config::AuditConfig;
use crate::ids;
use crate::state::Shared;
use crate::store::audit::{self, AuditRow, Outcome};
use crate::store::{Store, StoreError, transaction};

/// How often they are written.
const EVERY: Duration = Duration::from_secs(1);

/// Tickets that wait: some seconds of the most that one token may ask for.
const TICKETS_MAX: usize = 10_000;

/// Kinds of refusals that wait; more are counted by operation and status alone.
const REFUSED_MAX: usize = 256;

/// Refusals of so long are one record.
const TOGETHER_MS: i64 = 60_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Audit {
    pub(super) config: AuditConfig,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    tickets: Vec<AuditRow>,
    /// Tickets that found no room; the last of them.
    missed: Option<AuditRow>,
    /// By their id.
    refused: HashMap<String, AuditRow>,
}

impl Audit {
    pub(crate) fn new(config: AuditConfig) -> Self {
        Self { config, waiting: Mutex::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change leaves it whole: a panic elsewhere does not matter.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request for a ticket, and what came of it.
    pub(super) fn issued(&self, row: AuditRow, outcome: Outcome) {
        let row = AuditRow {
            ended_ms: Some(outcome.ended_ms),
            status: outcome.status.map(i64::from),
            error: outcome.error,
            resource: outcome.resource,
            summary: outcome.summary,
            ..row
        };
        let mut waiting = self.waiting();
        if waiting.tickets.len() < TICKETS_MAX {
            waiting.tickets.push(row);
            return;
        }
        let times = waiting.missed.as_ref().map_or(0, |missed| missed.times) + 1;
        waiting.missed = Some(AuditRow { times, summary: Some(r#"{"not_told_one_by_one":true}"#.to_owned()), ..row });
    }

    /// A request that its token, or the lack of one, did not allow.
    pub(super) fn refused(&self, mut row: AuditRow) {
        row.at_ms -= row.at_ms.rem_euclid(TOGETHER_MS);
        // One customer of IPv6 has as many addresses as it likes.
        if let Ok(of) = row.address.parse() {
            row.address = address::group(of).to_string();
        }
        let mut waiting = self.waiting();
        let mut id = kind(&row);
        if waiting.refused.len() >= REFUSED_MAX && !waiting.refused.contains_key(&id) {
            (row.address, row.actor, row.actor_name, row.request_id) = ("many".to_owned(), None, None, None);
            id = kind(&row);
        }
        if let Some(known) = waiting.refused.get_mut(&id) {
            known.times += 1;
            known.ended_ms = row.ended_ms;
        } else {
            waiting.refused.insert(id.clone(), AuditRow { id, ..row });
        }
    }

    /// Writes what waits.
    async fn write(&self, store: &Store) -> Result<(), StoreError> {
        let Waiting { tickets, missed, mut refused } = std::mem::take(&mut *self.waiting());
        if tickets.is_empty() && missed.is_none() && refused.is_empty() {
            return Ok(());
        }
        let mut rows = tickets;
        rows.extend(missed.clone());
        // In one order everywhere, so that two control planes do not wait for one another crosswise.
        let mut kinds: Vec<AuditRow> = refused.drain().map(|(_, row)| row).collect();
        kinds.sort_by(|one, other| one.id.cmp(&other.id));
        let written = transaction!(store, |tx| {
            audit::put(tx, &rows).await?;
            for row in &kinds {
                audit::refused(tx, row).await?;
            }
            Ok::<(), StoreError>(())
        });
        if written.is_err() {
            self.put_back(rows, missed, kinds);
        }
        written
    }

    fn put_back(&self, mut rows: Vec<AuditRow>, missed: Option<AuditRow>, kinds: Vec<AuditRow>) {
        let mut waiting = self.waiting();
        if missed.is_some() {
            rows.pop();
        }
        let room = TICKETS_MAX.saturating_sub(waiting.tickets.len());
        let over = rows.len().saturating_sub(room);
        if let Some(last) = missed.or_else(|| (over > 0).then(|| rows.last().cloned()).flatten()) {
            let already = waiting.missed.as_ref().map_or(0, |missed| missed.times);
            let counted =
                if last.summary.as_deref().is_some_and(|text| text.contains("not_told")) { last.times } else { 0 };
            let times = already + counted + i64::try_from(over).unwrap_or(0);
            waiting.missed = Some(AuditRow { times, ..last });
        }
        rows.truncate(room);
        rows.append(&mut waiting.tickets);
        waiting.tickets = rows;
        for row in kinds {
            let id = row.id.clone();
            waiting.refused.entry(id).and_modify(|known| known.times += row.times).or_insert(row);
        }
    }
}

/// The id of all refusals of one kind, the same at every control plane.
fn kind(row: &AuditRow) -> String {
    let actor = row.actor.as_deref().unwrap_or_default();
    let status = row.status.unwrap_or_default();
    let text = [&row.operation, &row.address, actor, &row.at_ms.to_string(), &status.to_string()].join("\n");
    format!("r-{}", ids::spell(&Sha256::digest(text.as_bytes())[..16]))
}

/// Writes down what waits, until shutdown and once more at it.
pub(crate) async fn write_down(parts: Shared) {
    let (mut ending, mut failing) = (false, false);
    while !ending {
        tokio::select! {
            () = parts.shutdown.cancelled() => ending = true,
            () = tokio::time::sleep(EVERY) => {}
        }
        match parts.audit.write(&parts.store).await {
            Err(error) if !failing => {
                tracing::warn!(%error, "tickets and refusals cannot be recorded; they are kept for the next time");
                failing = true;
            }
            Err(_) => {}
            Ok(()) => failing = false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixture;
    use crate::store::audit::{Sort, Wanted};

    fn row(address: &str, at_ms: i64) -> AuditRow {
        AuditRow {
            id: String::new(),
            at_ms,
            ended_ms: Some(at_ms),
            sort: Sort::Refused.word().to_owned(),
            operation: "tracks.create".to_owned(),
            method: "POST".to_owned(),
            resource: "tracks".to_owned(),
            actor: None,
            actor_name: None,
            address: address.to_owned(),
            request_id: None,
            status: Some(401),
            error: Some("unauthorized".to_owned()),
            times: 1,
            summary: None,
        }
    }

    #[tokio::test]
    async fn a_flood_of_refusals_is_few_records_that_count_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = fixture::store(folder.path()).await;
        let audit = Audit::new(AuditConfig::default());
        for n in 0..20_000u32 {
            audit.refused(row(&format!("10.0.{}.{}", n / 250 % 250, n % 250), 600_000 + i64::from(n % 100)));
        }
        audit.write(&store).await.unwrap();
        audit.refused(row("10.0.0.0", 600_000));
        audit.write(&store).await.unwrap();
        let rows = audit::list(&store, &Wanted::default(), None, 1000).await.unwrap();
        assert_eq!(rows.len(), REFUSED_MAX + 1, "each of the first addresses, and the rest together");
        assert_eq!(rows.iter().map(|row| row.times).sum::<i64>(), 20_001);
        assert!(rows.iter().any(|row| row.address == "many"), "{rows:?}");
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_kept_and_no_ticket_goes_uncounted() {
        let folder = tempfile::tempdir().unwrap();
        let store = fixture::store(folder.path()).await;
        let audit = Audit::new(AuditConfig::default());
        let outcome = Outcome { ended_ms: 1, status: Some(201), error: None, resource: "t".to_owned(), summary: None };
        let issue = |n: usize| {
            let sort = Sort::Ticket.word().to_owned();
            audit.issued(AuditRow { id: format!("t{n}"), sort, ..row("10.0.0.1", 1) }, outcome.clone());
        };
        (0..TICKETS_MAX + 5).for_each(issue);
        audit.refused(row("10.0.0.1", 1));
        let away = fixture::store(&folder.path().join("away")).await;
        away.close().await;
        assert!(audit.write(&away).await.is_err());
        issue(TICKETS_MAX + 5);
        audit.refused(row("10.0.0.1", 1));
        assert!(audit.write(&away).await.is_err());
        audit.write(&store).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        let sum = "SELECT CAST(SUM(times) AS CHAR) FROM audit WHERE sort = ?";
        for (sort, times) in [(Sort::Ticket, TICKETS_MAX + 6), (Sort::Refused, 2)] {
            let counted: String = sqlx::query_scalar(sum).bind(sort.word()).fetch_one(&mut *tx).await.unwrap();
            assert_eq!(counted, times.to_string(), "{sort:?}");
        }
    }
}
