//! The duty that sends what is due: one control plane among all has it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::send::{Came, Sender};
use crate::clock;
use crate::duty;
use crate::state::Shared;
use crate::store::leases::Held;
use crate::store::webhooks::{self, DeliveryRow, Tried, WebhookRow};
use crate::store::{StoreError, transaction};

/// Webhooks that there may be: with [`EACH`] it bounds what is under way.
pub(crate) const WEBHOOKS_MAX: i64 = 32;

/// Deliveries to one receiver at once.
const EACH: usize = 4;

/// Deliveries that wait for one receiver: some 50 MB.
pub(super) const WAITING_MAX: i64 = 100_000;

/// Between two looks where nothing is due.
const LOOK: Duration = Duration::from_millis(250);

/// Between two looks at what is old or too much.
const TEND: Duration = Duration::from_secs(10);

/// How long it is known what became of a delivery.
const KEPT_MS: i64 = 7 * 86_400_000;

/// Rows of one transaction.
const BATCH: u32 = 500;

/// Pauses between tries, in seconds: a day and some minutes in all.
const PAUSES_S: [i64; 10] = [5, 30, 120, 600, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 8 * 3600];

/// Runs until shutdown.
pub(crate) async fn run(parts: Shared) {
    duty::keep(&parts, "webhooks", |parts, held| Box::pin(go_on(parts, held))).await;
}

async fn go_on(parts: Shared, held: Held) {
    let sender = match Sender::new(&parts.webhooks.allow) {
        Ok(sender) => sender,
        Err(error) => {
            tracing::error!(%error, "webhooks cannot be sent: there is no TLS");
            return std::future::pending().await;
        }
    };
    let mut failing = false;
    loop {
        // Goes on until the database fails; what was under way then is dropped, and sent again.
        let Err(error) = deliver(&parts, &held, &sender, &mut failing).await;
        if !failing {
            tracing::warn!(%error, "webhooks wait; trying on");
        }
        failing = true;
        tokio::time::sleep(LOOK * 4).await;
    }
}

async fn deliver(
    parts: &Shared,
    held: &Held,
    sender: &Sender,
    failing: &mut bool,
) -> Result<std::convert::Infallible, StoreError> {
    let mut under_way = FuturesUnordered::new();
    let mut ids: HashSet<String> = HashSet::new();
    let mut by_receiver: HashMap<String, usize> = HashMap::new();
    let mut tended: Option<Instant> = None;
    loop {
        if tended.is_none_or(|tended| tended.elapsed() >= TEND) {
            tend(parts, held).await?;
            tended = Some(Instant::now());
        }
        for webhook in webhooks::all(&parts.store).await? {
            let busy = by_receiver.entry(webhook.id.clone()).or_default();
            if *busy >= EACH {
                continue;
            }
            // Those under way are due as well: as many more are asked for.
            let limit = u32::try_from(EACH).unwrap_or(u32::MAX);
            for row in webhooks::due(&parts.store, &webhook.id, clock::now_ms(), limit).await? {
                if *busy < EACH && ids.insert(row.id.clone()) {
                    *busy += 1;
                    under_way.push(try_once(parts, held, sender, webhook.clone(), row));
                }
            }
        }
        if *failing {
            tracing::info!("webhooks are sent again");
            *failing = false;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            Some(done) = under_way.next() => {
                let (webhook, id, noted): (String, String, Result<(), StoreError>) = done;
                ids.remove(&id);
                if let Some(busy) = by_receiver.get_mut(&webhook) {
                    *busy = busy.saturating_sub(1);
                }
                noted?;
            }
        }
    }
}

/// Sends a delivery, and notes what came of it.
async fn try_once(
    parts: &Shared,
    held: &Held,
    sender: &Sender,
    webhook: WebhookRow,
    row: DeliveryRow,
) -> (String, String, Result<(), StoreError>) {
    let came = sender.send(&webhook, &row, clock::now_s()).await;
    let now = clock::now_ms();
    let tried = match &came {
        Came::Delivered(status) => Tried { state: "delivered", due_ms: now, status: Some(*status), reason: None },
        Came::Gone => {
            let reason = Some("the receiver says that it is gone (410)");
            Tried { state: "dead", due_ms: now, status: Some(410), reason }
        }
        Came::Failed { status, reason } => {
            let pause = pause_ms(&row);
            let state = if pause.is_some() { "waiting" } else { "dead" };
            Tried { state, due_ms: now + pause.unwrap_or(0), status: *status, reason: Some(reason) }
        }
    };
    if tried.state == "dead" {
        tracing::warn!(webhook = webhook.id, delivery = row.id, reason = tried.reason, "a delivery is given up");
    }
    let noted = webhooks::tried(&parts.store, held, &row, tried, now).await;
    (webhook.id, row.id, noted)
}

/// The pause after this try, up to a fifth longer so that what failed together does not come together. `None`: it was the last one.
fn pause_ms(row: &DeliveryRow) -> Option<i64> {
    let seconds = PAUSES_S.get(usize::try_from(row.tries).ok()?)?;
    let spread = Sha256::digest(format!("{}{}", row.id, row.tries).as_bytes());
    Some(seconds * 1000 + seconds * 200 * i64::from(spread[0]) / 255)
}

/// Bounds what waits, and forgets what is old.
async fn tend(parts: &Shared, held: &Held) -> Result<(), StoreError> {
    webhooks::bound(&parts.store, held, WAITING_MAX).await?;
    let before = clock::now_ms() - KEPT_MS;
    loop {
        let gone = transaction!(parts.store, |tx| {
            held.check(tx).await?;
            webhooks::prune(tx, before, BATCH).await
        })?;
        if gone < u64::from(BATCH) {
            return Ok(());
        }
    }
}
