//! Duties: what one control plane among all does at a time.
//!
//! Each duty has a lease in the database. Whoever gets it does the work, and takes the lease anew as it goes; the others look
//! again and again whether it is free. Invariants: work is dropped, at whatever await it stands, before the lease ends; and
//! whatever it changes in the database it changes in transactions that check the lease's fence, so that even a process
//! which was suspended in the middle of one changes nothing afterwards. A holder that ends gives the lease up; after one that
//! was killed the others wait for at most [`SPAN`].

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::state::{Parts, Shared};
use crate::store::StoreError;
use crate::store::leases::{self, Held};

/// How long a lease is held without a word: as long as the database may be away before a duty changes hands.
const SPAN: Duration = Duration::from_secs(5);

/// How often a holder takes it anew; two words may be lost.
const RENEW: Duration = Duration::from_millis(1500);

/// How often the others look.
const LOOK: Duration = Duration::from_secs(1);

/// A holder drops its work this long before its lease ends: longer than a statement that is under way then.
const MARGIN: Duration = Duration::from_secs(1);

/// What a duty does: goes on until it is dropped.
pub(crate) type Work = fn(Shared, Held) -> BoxFuture<'static, ()>;

/// Does `work` whenever the lease of `name` is this control plane's, until shutdown.
pub(crate) async fn keep(parts: &Shared, name: &'static str, work: Work) {
    let mut failing = false;
    while !parts.shutdown.is_cancelled() {
        let asked = Instant::now();
        match take(parts, name).await {
            Ok(Some(held)) => {
                failing = false;
                tracing::info!(duty = name, fence = held.fence(), "this control plane has the duty");
                hold(parts, name, &held, asked, work).await;
            }
            Ok(None) => failing = false,
            Err(error) => {
                if !failing {
                    tracing::warn!(duty = name, %error, "the lease of a duty cannot be asked for; trying on");
                }
                failing = true;
            }
        }
        tokio::select! {
            () = parts.shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn hold(parts: &Shared, name: &'static str, held: &Held, asked: Instant, work: Work) {
    tokio::select! {
        () = work(Shared::clone(parts), held.clone()) => {}
        () = until_lost(parts, name, held, asked) => {
            tracing::warn!(duty = name, fence = held.fence(), "the duty is lost; another control plane may have it");
            return;
        }
        () = parts.shutdown.cancelled() => {}
    }
    if let Err(error) = leases::release(&parts.store, held).await {
        tracing::warn!(duty = name, %error, "the lease of a duty could not be given up; it ends by itself");
    }
}

/// Ends when the lease is somebody else's, or when it may be soon.
async fn until_lost(parts: &Parts, name: &'static str, held: &Held, asked: Instant) {
    let mut good_until = asked + SPAN - MARGIN;
    loop {
        tokio::time::sleep(RENEW).await;
        let asked = Instant::now();
        match tokio::time::timeout_at(good_until, take(parts, name)).await {
            Ok(Ok(Some(now))) if now == *held => good_until = asked + SPAN - MARGIN,
            Ok(Ok(_)) | Err(_) => return,
            Ok(Err(error)) => tracing::warn!(duty = name, %error, "the lease of a duty could not be taken anew"),
        }
        if Instant::now() >= good_until {
            return;
        }
    }
}

async fn take(parts: &Parts, name: &'static str) -> Result<Option<Held>, StoreError> {
    leases::take(&parts.store, name, &parts.instance, i64::try_from(SPAN.as_millis()).unwrap_or(i64::MAX)).await
}
