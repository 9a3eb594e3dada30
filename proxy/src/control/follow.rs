//! Following the snapshot: one long poll after the other, each answered at the first change.
//!
//! Invariants: everything goes in through `Snapshots::publish`; what was published is what the next cursor names. A
//! change is in force before it is written to disk, and the next look does not wait for that: a listener who is to be stopped does not wait for a file.
//!
//! On failure: the snapshot that is in force stays; the next look comes after a growing pause. An answer that does not
//! build on what is held leads to asking for the whole.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::IF_NONE_MATCH;
use segue_events::Pauses;
use segue_signing::{Followed, SnapshotDelta};

use super::client::{Client, ControlError, send};
use super::kept::Keeper;
use crate::edge::Shared;
use crate::snapshot::{unix_ms, unix_s};

/// How long the control plane may hold a look open: shorter than what idle connections are cut after in most networks.
const WAIT: Duration = Duration::from_secs(25);
/// What the answer may take beyond that.
const SLACK: Duration = Duration::from_secs(15);
/// Bytes of an answer: a million purges or three hundred thousand revocations.
const ANSWER_MAX: usize = 64 << 20;
/// An answer that changes nothing and comes at once would make this a loop without a wait.
const AT_LEAST: Duration = Duration::from_millis(20);

/// Follows until it is dropped.
pub(super) async fn run(shared: &Shared, client: &Client, kept: Option<&Keeper>, mut followed: Arc<Followed>) {
    let mut pauses = Pauses::default();
    let mut is_first = true;
    loop {
        // At first, and after a failure, it asks for what is there: to be confirmed at once is worth more than to be told
        // of the next change.
        let wait = if is_first || pauses.is_failing() { Duration::ZERO } else { WAIT };
        match look(client, &followed, wait).await {
            Ok(answer) => {
                if pauses.over() {
                    tracing::info!("the control plane answers again");
                }
                let taken = match answer {
                    Some(delta) => take_over(shared, &mut followed, delta, is_first),
                    None => true,
                };
                if taken {
                    is_first = false;
                    confirm(shared, kept, &followed);
                    tokio::time::sleep(AT_LEAST).await;
                    continue;
                }
                shared.metrics.snapshots_refused.add(1);
                tokio::time::sleep(pauses.take().0).await;
            }
            Err(error) => {
                shared.standing.follow_failures.add(1);
                let (pause, first) = pauses.take();
                if first {
                    tracing::warn!(%error, reason = error.kind(), "the snapshot cannot be followed; trying on");
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// One look. `None`: what is held is the newest.
async fn look(client: &Client, followed: &Followed, wait: Duration) -> Result<Option<SnapshotDelta>, ControlError> {
    let wait_ms = wait.as_millis().to_string();
    let mut request = client.get("/v1/edge/snapshot").query(&[("wait_ms", wait_ms.as_str())]);
    let cursor = followed.cursor();
    if cursor > 0 {
        request = request
            .query(&[("cursor", cursor.to_string().as_str()), ("keys", followed.keys_tag())])
            .query(&[("limits", followed.limits_tag())])
            .query(&[("policies", followed.policies_tag())])
            .header(IF_NONE_MATCH, format!("\"{cursor}\""));
    }
    let (status, body) = send(request, wait + SLACK, ANSWER_MAX).await?;
    if status == StatusCode::NOT_MODIFIED {
        return Ok(None);
    }
    serde_json::from_slice(&body).map(Some).map_err(|error| ControlError::Answer(error.to_string()))
}

/// Whether the change is in force.
fn take_over(shared: &Shared, followed: &mut Arc<Followed>, delta: SnapshotDelta, is_first: bool) -> bool {
    let (revision, partial) = (delta.revision, delta.partial);
    let next = match followed.apply(delta, unix_s()) {
        Ok(next) => next,
        Err(error) => {
            tracing::error!(revision, %error, "a snapshot does not build on what is held; asking for the whole");
            *followed = Arc::default();
            return false;
        }
    };
    let document = Arc::new(next.document());
    if let Err(error) = shared.snapshots.publish(Arc::clone(&document)) {
        tracing::error!(revision, %error, "a snapshot cannot be used; the last good one goes on serving");
        return false;
    }
    if is_first || next.policies_tag() != followed.policies_tag() {
        shared.desk.tell(&shared.snapshots, document.policies.clone());
    }
    shared.metrics.snapshots.add(1);
    tracing::debug!(revision, partial, "a snapshot is in force");
    *followed = Arc::new(next);
    true
}

fn confirm(shared: &Shared, kept: Option<&Keeper>, followed: &Arc<Followed>) {
    shared.standing.confirmed_at(unix_ms());
    if let Some(kept) = kept {
        kept.confirm(followed);
    }
}
