//! The registry of policies: what is taken, who may sign it, and the ticket schemes that this process itself signs with.
//!
//! | file         | what it does |
//! |--------------|--------------|
//! | `check.rs`   | what an upload must pass |
//! | `signers.rs` | whose files are taken |
//! | `rollout.rs` | which version decides: the life of a policy, as a pure function |
//! | `counts.rs`  | what edges report of verdicts, added up |
//!
//! Invariants: WebAssembly runs here on threads for blocking work only, one check at a time; what it may use is bounded by its host. Nothing is
//! held under a lock while something is waited for.
//!
//! On failure: an upload is refused with its reason and leaves nothing behind. A scheme that cannot be made answers the one who
//! asked for a URL, and nobody else.

pub(crate) mod check;
pub(crate) mod counts;
pub(crate) mod rollout;
pub(crate) mod signers;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use segue_policy_host::{Grant, HostConfig, PolicyHost, Services, TicketScheme};
use segue_signing::PolicyWorld;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use crate::config::PoliciesConfig;
use crate::error::ApiError;
use crate::store::policies::{VersionRow, bytes};
use crate::store::{Store, StoreError, policies};
use check::{Passed, Unfit};
use signers::Signer;

/// Uploads that are held in memory at a time: each has up to 33 MiB.
const UPLOADS_AT_ONCE: usize = 4;

/// Checks at a time: a compilation takes a whole core and several times the file's size.
const CHECKS_AT_ONCE: usize = 1;

/// The longest that an upload waits for its turn and its check. The check itself goes on, in its turn.
const CHECKED_WITHIN: Duration = Duration::from_secs(120);

/// Signatures that are being made at a time; each runs 2 s at most.
const SIGNING_AT_ONCE: usize = 4;

/// The version, and when it was uploaded.
type MadeFrom = (String, i64);

/// The parts that policies need while the process runs.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Made when it is first needed: its clock ticks a thousand times a second from then on.
    host: Mutex<Option<Arc<PolicyHost>>>,
    /// Keys for schemes that sign.
    services: Arc<Services>,
    signers: Vec<Signer>,
    /// Seats for uploads.
    pub(crate) uploads: Arc<Semaphore>,
    checks: Arc<Semaphore>,
    signing: Arc<Semaphore>,
    /// Schemes that are ready to sign, by policy: of the version that was active when one was last asked for, and of its upload's time.
    schemes: Mutex<HashMap<String, (MadeFrom, Arc<TicketScheme>)>>,
    /// Counts reports of edges; wakes those who wait for edges.
    pub(crate) reports: watch::Sender<u64>,
}

impl Registry {
    pub(crate) fn new(config: PoliciesConfig) -> Self {
        Self {
            host: Mutex::new(None),
            services: Arc::new(Services {
                keys: config.keys.into_iter().collect(),
                signer: true,
                ..Services::default()
            }),
            signers: config.signers,
            uploads: Arc::new(Semaphore::new(UPLOADS_AT_ONCE)),
            checks: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
            signing: Arc::new(Semaphore::new(SIGNING_AT_ONCE)),
            schemes: Mutex::new(HashMap::new()),
            reports: watch::Sender::new(0),
        }
    }

    /// Those who may sign.
    pub(crate) fn signers(&self) -> &[Signer] {
        &self.signers
    }

    fn host(&self) -> Result<Arc<PolicyHost>, ApiError> {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = &*host {
            return Ok(Arc::clone(host));
        }
        let made = PolicyHost::new(HostConfig::default()).map_err(|error| ApiError::Internal(error.to_string()))?;
        Ok(Arc::clone(host.insert(Arc::new(made))))
    }

    /// Checks an upload, off this thread, in its turn. Gives the bytes back.
    pub(crate) async fn check(
        &self,
        component: Vec<u8>,
        config: Value,
    ) -> Result<(Vec<u8>, Result<Passed, Unfit>), ApiError> {
        let (host, services, checks) = (self.host()?, Arc::clone(&self.services), Arc::clone(&self.checks));
        let checked = async {
            let turn = checks.acquire_owned().await.map_err(|error| ApiError::Internal(error.to_string()))?;
            let work = move || {
                let _turn = turn;
                let passed = check::check(&host, &component, &config, &services);
                (component, passed)
            };
            tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::Internal(error.to_string()))
        };
        let slow = |_| ApiError::Busy {
            word: "check-slow",
            message: format!(
                "the check was not over within {} s; try again when others are done, or make the policy smaller",
                CHECKED_WITHIN.as_secs()
            ),
        };
        tokio::time::timeout(CHECKED_WITHIN, checked).await.map_err(slow)?
    }

    /// Makes a URL by the active version of a ticket scheme.
    pub(crate) async fn sign(&self, store: &Store, name: &str, grant: Grant) -> Result<String, ApiError> {
        let scheme = self.scheme(store, name).await?;
        let busy = || ApiError::Busy { word: "signing-busy", message: "too many URLs are being signed".to_owned() };
        let seat = tokio::time::timeout(Duration::from_secs(5), Arc::clone(&self.signing).acquire_owned());
        let seat = seat.await.map_err(|_| busy())?.map_err(|_| busy())?;
        let signing = move || {
            let _seat = seat;
            scheme.sign(&grant)
        };
        let signed =
            tokio::task::spawn_blocking(signing).await.map_err(|error| ApiError::Internal(error.to_string()))?;
        match signed {
            Ok(Ok(url)) => Ok(url),
            Ok(Err(sentence)) => {
                Err(ApiError::invalid(format!("the scheme {name:?} makes no URL of this: {sentence}")))
            }
            Err(failure) => Err(ApiError::conflict("scheme-failed", format!("the scheme {name:?} failed: {failure}"))),
        }
    }

    async fn scheme(&self, store: &Store, name: &str) -> Result<Arc<TicketScheme>, ApiError> {
        let active = active_scheme(store, name).await?;
        // A name may come again with another file.
        let made_from = (active.version.clone(), active.created_ms);
        let known = || {
            let schemes = self.schemes.lock().unwrap_or_else(PoisonError::into_inner);
            schemes.get(name).filter(|(from, _)| *from == made_from).map(|(_, scheme)| Arc::clone(scheme))
        };
        if let Some(scheme) = known() {
            return Ok(scheme);
        }
        let component = bytes::get(store, &active.digest).await?.ok_or(ApiError::NotFound("component"))?;
        let config: Value = serde_json::from_str(&active.config).map_err(StoreError::from)?;
        let turn =
            Arc::clone(&self.checks).acquire_owned().await.map_err(|error| ApiError::Internal(error.to_string()))?;
        // Somebody else may have made it meanwhile.
        if let Some(scheme) = known() {
            return Ok(scheme);
        }
        let (host, services) = (self.host()?, Arc::clone(&self.services));
        let label = format!("{name}@{}", active.version);
        let make = move || {
            let _turn = turn;
            let policy = host.compile(&component).map_err(Unfit::from)?;
            TicketScheme::new(policy, &label, &config, services).map_err(Unfit::Configure)
        };
        let made = tokio::task::spawn_blocking(make).await.map_err(|error| ApiError::Internal(error.to_string()))?;
        let made =
            made.map_err(|unfit| ApiError::conflict("scheme-failed", format!("the scheme {name:?}: {unfit}")))?;
        let scheme = Arc::new(made);
        let mut schemes = self.schemes.lock().unwrap_or_else(PoisonError::into_inner);
        schemes.insert(name.to_owned(), (made_from, Arc::clone(&scheme)));
        Ok(scheme)
    }
}

async fn active_scheme(store: &Store, name: &str) -> Result<VersionRow, ApiError> {
    let missing = || {
        ApiError::conflict("no-such-scheme", format!("there is no active ticket scheme {name:?}; see GET /v1/policies"))
    };
    let (policy, versions) = policies::one(store, name).await?.ok_or_else(missing)?;
    if policy.world != PolicyWorld::TicketScheme {
        return Err(missing());
    }
    let active = policy.active.ok_or_else(missing)?;
    versions.into_iter().find(|row| row.version == active).ok_or_else(missing)
}
