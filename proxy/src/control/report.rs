//! What this edge says of itself, every few seconds.
//!
//! On failure: the next report says it all again; counts are since the start of the process.

use std::time::Duration;

use segue_events::{Pauses, jittered};
use segue_signing::{EdgeReport, KeyUseReport};

use super::client::{Client, send};
use crate::edge::Shared;
use crate::snapshot::unix_ms;

/// Between two reports: how exact "last used" is.
const EVERY: Duration = Duration::from_secs(5);
/// What changes in so short a time is told together, so that a change of all policies is not one report for each.
const TOGETHER: Duration = Duration::from_millis(50);
/// Rows of a report, so that it stays well under what the control plane reads; the counts of more versions and reasons than
/// these are in the edge's own metrics.
const VERDICTS_MAX: usize = 2_000;
const DIFFERENCES_MAX: usize = 500;
const WITHIN: Duration = Duration::from_secs(10);
/// An answer has no body.
const ANSWER_MAX: usize = 4096;

/// Reports until it is dropped.
pub(super) async fn run(shared: &Shared, client: &Client) {
    let boot = unix_ms();
    let mut pauses = Pauses::default();
    loop {
        let request = client.post("/v1/edge/report").json(&report(shared, boot));
        match send(request, WITHIN, ANSWER_MAX).await {
            Ok(_) => {
                pauses.over();
            }
            Err(error) => {
                shared.standing.report_failures.add(1);
                if pauses.take().1 {
                    tracing::warn!(%error, reason = error.kind(), "this edge cannot report; trying on");
                }
            }
        }
        // How a policy stands is told at once: somebody may be waiting for it with a finger on the switch.
        tokio::select! {
            () = tokio::time::sleep(jittered(EVERY)) => {}
            () = shared.desk.news.notified() => tokio::time::sleep(TOGETHER).await,
        }
    }
}

fn report(shared: &Shared, boot: u64) -> EdgeReport {
    let snapshot = shared.snapshots.current();
    let used = |(kid, used): (&str, segue_signing::KeyUse)| KeyUseReport {
        kid: kid.to_owned(),
        accepted: used.accepted,
        out_of_time: used.out_of_time,
    };
    let mut counters = shared.metrics.counters();
    if let Some(events) = &shared.events {
        let waiting = events.facts().end().0.saturating_sub(events.facts().acknowledged().0);
        counters.insert("facts_waiting_bytes".to_owned(), waiting);
    }
    let (mut verdicts, mut differences) = (shared.desk.tallies.verdicts(), shared.desk.tallies.differences());
    verdicts.truncate(VERDICTS_MAX);
    differences.truncate(DIFFERENCES_MAX);
    EdgeReport {
        edge: shared.config.name.clone(),
        boot,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: snapshot.revision,
        uptime_s: unix_ms().saturating_sub(boot) / 1000,
        keys: snapshot.keyring.uses().map(used).collect(),
        counters,
        policies: shared.desk.standings(),
        verdicts,
        differences,
    }
}
