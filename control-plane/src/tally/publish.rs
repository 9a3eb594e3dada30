//! Plays to Fluvio: each transition (`started`, `qualified`, a quartile, `ended`) into the topic `plays`, keyed by its play.
//!
//! Invariants: a transition is stored in the transaction that brought it about and forgotten after the leader of its
//! partition has it, so that none is lost by a crash on either side. It may come twice, with one id.
//!
//! On failure: they wait in the database, for [`KEEP_MS`] at most; facts that come by Fluvio wait with them.

use std::time::Duration;

use segue_events::{FluvioSink, Pauses};
use serde::Serialize;

use super::PlayEvent;
use crate::state::{Parts, Shared};
use crate::store::leases::Held;
use crate::store::plays_out::{self, Waiting};
use crate::store::{StoreError, Write, webhooks};
use crate::{clock, duty};

/// Transitions of one parcel.
const BATCH: u32 = 500;
/// Between two looks where nothing waited.
const LOOK: Duration = Duration::from_millis(250);
/// What could not be published for so long is let go, so that a house without its Fluvio does not fill the database.
const KEEP_MS: i64 = 7 * 24 * 3600 * 1000;

/// And so many at a time.
const DROP: u32 = 10_000;

/// A transition as it is published.
#[derive(Serialize)]
struct Published<'a> {
    v: u8,
    /// Dedupe by it.
    id: &'a str,
    #[serde(flatten)]
    event: &'a PlayEvent,
}

/// Stores what a transaction brought about, where it is to be published.
pub(super) async fn store(parts: &Parts, tx: &mut Write, events: &[PlayEvent]) -> Result<(), StoreError> {
    let mut qualified = Vec::new();
    for event in events.iter().filter(|event| event.kind == "qualified") {
        let data = serde_json::json!({ "track": event.track, "play": event.play, "ts": event.ts });
        qualified.push((event.play.clone(), data));
    }
    webhooks::tell(tx, "play.qualified", &qualified).await?;
    if parts.fluvio.is_none() {
        return Ok(());
    }
    let now = clock::now_ms();
    for (place, event) in (0..).zip(events) {
        let passed = event.quartile.map(|passed| format!("-{passed}")).unwrap_or_default();
        let id = format!("{}-{}{passed}", event.play, event.kind);
        let record = serde_json::to_string(&Published { v: 1, id: &id, event })?;
        plays_out::put(tx, &Waiting { id, play: event.play.clone(), record }, now, place).await?;
    }
    Ok(())
}

/// Publishes until shutdown: the duty of one control plane among all.
pub(crate) async fn run(parts: Shared) {
    duty::keep(&parts, "plays", |parts, held| Box::pin(go_on(parts, held))).await;
}

async fn go_on(parts: Shared, _held: Held) {
    let Some(config) = parts.fluvio.clone() else { return };
    let mut sink = FluvioSink::new(&config, "plays");
    let mut pauses = Pauses::default();
    loop {
        let wait = match step(&parts, &mut sink).await {
            Ok(published) => {
                if pauses.over() {
                    tracing::info!("plays are published again");
                }
                if published { Duration::ZERO } else { LOOK }
            }
            Err(error) => {
                let (pause, first) = pauses.take();
                if first {
                    tracing::warn!(%error, "plays wait to be published; trying on");
                }
                pause
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// What stops a parcel.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sink(#[from] segue_events::SinkError),
}

/// Publishes what waits, a parcel of it. `false`: nothing waited.
async fn step(parts: &Parts, sink: &mut FluvioSink) -> Result<bool, PublishError> {
    let waiting = plays_out::oldest(&parts.store, BATCH).await?;
    if waiting.is_empty() {
        return Ok(false);
    }
    let records: Vec<_> = waiting.iter().map(|one| (one.play.clone(), one.record.clone())).collect();
    if let Err(error) = sink.publish(&records).await {
        let dropped = plays_out::drop_before(&parts.store, clock::now_ms() - KEEP_MS, DROP).await?;
        if dropped > 0 {
            tracing::error!(dropped, "transitions of plays waited for a week and were never published");
        }
        return Err(error.into());
    }
    plays_out::forget(&parts.store, &waiting).await?;
    Ok(true)
}
