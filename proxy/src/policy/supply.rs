//! Gets ready what the control plane names: fetched by digest, verified, kept on disk, compiled and configured, then put into force.
//!
//! Invariants: nothing else of a snapshot waits for any of this; bytes are held against their digest before anything looks into them; a version
//! that is not wanted any more is left alone. What decides comes first.
//!
//! On failure: the version stays away, with its problem in metrics and report, and is tried again after a growing pause, for as long as it is wanted.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use segue_policy_host::{AccessPolicy, Policy, Services, TicketScheme, World};
use segue_signing::PolicyWorld;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::maker::Bench;
use super::shelf::{Made, Use};
use super::store::{Store, hex};
use crate::control::{Client, ControlError, send};
use crate::edge::Shared;

/// What fetching one policy may take: 32 MiB on a line of 10 Mbit/s.
const WITHIN: Duration = Duration::from_secs(40);
/// Policies that are fetched at once: each is held in memory whole.
const FETCHES: usize = 4;
/// What an edge that starts may spend on what lies on its disk, before it serves with what it has.
const START_WITHIN: Duration = Duration::from_secs(15);
/// The pauses after a failed fetch: a control plane that is back is found soon.
const FETCH_PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The pauses after anything else, which is seldom mended by trying again.
const MAKE_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Why a version is not ready.
#[derive(Debug, thiserror::Error)]
pub(super) enum SupplyError {
    #[error("it cannot be fetched: {0}")]
    Fetch(#[from] ControlError),
    #[error("it cannot be fetched: this edge has no [control] to fetch policies from")]
    Nowhere,
    #[error("what was fetched is not what the snapshot names: its SHA-256 is {0}")]
    Digest(String),
    #[error("{0}")]
    Unusable(String),
    #[error("making it was cut short")]
    Cut,
}

impl SupplyError {
    /// The reason word.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Fetch(_) | Self::Nowhere => "fetch",
            Self::Digest(_) => "digest",
            Self::Unusable(_) => "unusable",
            Self::Cut => "cut",
        }
    }

    fn pauses(&self) -> (Duration, Duration) {
        match self {
            Self::Fetch(_) => FETCH_PAUSES,
            _ => MAKE_PAUSES,
        }
    }
}

/// Where bytes come from, and where they are kept.
pub(super) struct Source {
    pub(super) client: Option<Arc<Client>>,
    pub(super) store: Option<Store>,
    /// Bytes of a policy at most.
    pub(super) most: usize,
    turns: Semaphore,
}

impl Source {
    pub(super) fn new(client: Option<Arc<Client>>, store: Option<Store>, most: usize) -> Self {
        Self { client, store, most, turns: Semaphore::new(FETCHES) }
    }

    async fn fetch(&self, digest: &str) -> Result<Vec<u8>, SupplyError> {
        let client = self.client.as_ref().ok_or(SupplyError::Nowhere)?;
        // Never closed.
        let _turn = self.turns.acquire().await;
        let (_, bytes) = send(client.get(&format!("/v1/edge/policies/{digest}")), WITHIN, self.most).await?;
        let found = hex(&bytes);
        if found != digest {
            return Err(SupplyError::Digest(found));
        }
        Ok(bytes.into())
    }
}

/// Gets ready what lies on the disk, before an edge serves.
pub(super) async fn recall(shared: &Shared, source: &Source) {
    let begun = Instant::now();
    for wanted in shared.desk.missing_at_work() {
        let left = START_WITHIN.saturating_sub(begun.elapsed());
        match tokio::time::timeout(left, make(shared, source, &wanted, false)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(policy = wanted.label(), %error, "a policy is not ready at the start");
            }
            Err(_) => {
                tracing::warn!(policy = wanted.label(), "policies take long to get ready; the edge serves meanwhile");
                return;
            }
        }
    }
}

/// Gets ready what is missing, until it is dropped.
pub(super) async fn run(shared: &Shared, source: &Source) {
    let mut changes = shared.desk.changes();
    let mut at_work: HashSet<Use> = HashSet::new();
    let mut works = FuturesUnordered::new();
    loop {
        changes.mark_unchanged();
        for missing in shared.desk.missing() {
            if at_work.insert(missing.clone()) {
                works.push(bring(shared, source, missing));
            }
        }
        if works.is_empty() {
            shared.desk.sweep(source).await;
        }
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Some(over) = works.next() => {
                at_work.remove(&over);
            }
        }
        shared.desk.keep_record(source).await;
    }
}

/// Makes one version, however often that has to be tried. Ends when it is ready, or not wanted any more.
async fn bring(shared: &Shared, source: &Source, wanted: Use) -> Use {
    let mut changes = shared.desk.changes();
    let mut pause = Duration::ZERO;
    while shared.desk.is_missing(&wanted) {
        changes.mark_unchanged();
        let lent = shared.desk.services();
        let error = match make(shared, source, &wanted, true).await {
            Ok(()) => {
                tracing::info!(policy = wanted.label(), "a policy is ready");
                return wanted;
            }
            Err(error) => error,
        };
        let (first, longest) = error.pauses();
        pause = (pause * 2).clamp(first, longest);
        if shared.desk.complain(&wanted, &error) {
            tracing::warn!(policy = wanted.label(), %error, reason = error.kind(), "a policy cannot be had; trying on");
        }
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => break,
                Ok(()) = changes.changed() => {
                    if !shared.desk.is_missing(&wanted) {
                        return wanted;
                    }
                    // Other keys and tables may be what it lacked.
                    if !Arc::ptr_eq(&lent, &shared.desk.services()) {
                        break;
                    }
                }
            }
        }
    }
    wanted
}

/// Makes one version and puts it into force. `may_fetch`: else only what is on the disk counts.
async fn make(shared: &Shared, source: &Source, wanted: &Use, may_fetch: bool) -> Result<(), SupplyError> {
    let services = shared.desk.services();
    let code = match shared.desk.code(&wanted.digest) {
        Some(code) => code,
        None => {
            let bytes = bytes(shared, source, &wanted.digest, may_fetch).await?;
            let compiled = shared.desk.at_bench(move |bench| compiled(bench, &bytes)).await;
            compiled.ok_or(SupplyError::Cut)?.map_err(SupplyError::Unusable)?
        }
    };
    let (wanted_, code_, services_) = (wanted.clone(), code.clone(), Arc::clone(&services));
    let made = shared.desk.at_bench(move |_| configured(&wanted_, code_, services_)).await;
    let made = made.ok_or(SupplyError::Cut)?.map_err(SupplyError::Unusable)?;
    shared.desk.put(&shared.snapshots, wanted, code, made, services);
    Ok(())
}

/// The verified bytes of a digest, from the disk or from the control plane.
async fn bytes(shared: &Shared, source: &Source, digest: &str, may_fetch: bool) -> Result<Vec<u8>, SupplyError> {
    if let Some(store) = source.store.clone() {
        let (digest, most) = (digest.to_owned(), source.most);
        if let Some(Some(bytes)) = shared.desk.at_bench(move |_| store.read(&digest, most)).await {
            return Ok(bytes);
        }
    }
    if !may_fetch {
        return Err(SupplyError::Unusable("it is not on the disk".to_owned()));
    }
    let bytes = source.fetch(digest).await?;
    let Some(store) = source.store.clone() else { return Ok(bytes) };
    let (digest, bytes_) = (digest.to_owned(), bytes.clone());
    let kept = shared.desk.at_bench(move |_| store.write(&digest, &bytes_)).await;
    if let Some(Err(error)) = kept {
        shared.standing.keep_failures.add(1);
        tracing::error!(%error, "a policy cannot be kept for the next start");
    }
    Ok(bytes)
}

fn compiled(bench: &Bench, bytes: &[u8]) -> Result<Policy, String> {
    bench.host()?.compile(bytes).map_err(|refused| format!("{}: {refused}", refused.kind()))
}

fn configured(wanted: &Use, code: Policy, services: Arc<Services>) -> Result<Made, String> {
    let label = wanted.label();
    let config = serde_json::from_str(&wanted.config).map_err(|error| error.to_string())?;
    let failed = |failure: segue_policy_host::Failure| format!("{}: {failure}", failure.kind());
    match (wanted.world(), code.checked().world) {
        (PolicyWorld::Access, World::Access) => {
            let policy = AccessPolicy::new(code, &label, &config, services, wanted.on_failure()).map_err(failed)?;
            Ok(Made::Access(Arc::new(policy)))
        }
        (PolicyWorld::TicketScheme, World::TicketScheme) => {
            Ok(Made::Scheme(Arc::new(TicketScheme::new(code, &label, &config, services).map_err(failed)?)))
        }
        (_, found) => Err(format!("it is of the world {}, and the snapshot says another", found.name())),
    }
}
