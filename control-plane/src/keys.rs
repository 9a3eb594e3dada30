//! Keys and what edges are told: the keyring that signs, and the snapshot that edges follow.
//!
//! Keys come from the configuration, which needs one to begin with, and from the database, where the API puts them. The
//! database also holds times for keys of the configuration: those that the API retired.
//!
//! Invariants: the snapshot is built from the database and never from memory, so that what an edge is told is what
//! was committed; its revision only rises; publishing is one at a time. On failure the last snapshot stays and the
//! sweep publishes again.

use std::sync::{Arc, PoisonError, RwLock};

use segue_config::Secret;
use segue_signing::{CanonicalPath, Claims, KeyDoc, Keyring, MintError, PolicyDoc, SnapshotDelta, SnapshotDoc};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, watch};

use crate::clock;
use crate::hints::Hints;
use crate::store::keys::{KeyRow, State};
use crate::store::{self, Store, StoreError, transaction};

/// Signed object URLs end on a multiple of this, so that a list that is read again names the same URLs and a browser
/// finds their bytes in its cache. Each is valid for one to two of these.
const OBJECT_URL_STEP_S: i64 = 6 * 3600;

/// For so long a retired key is still told to edges: who uses it is refused as `key-retired`, and counted.
pub(crate) const RETIRED_KEPT_S: i64 = 7 * 24 * 3600;

/// A key of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    #[error("{0}")]
    Secret(#[from] segue_signing::SnapshotError),
    #[error("signing keys: {0}")]
    Keyring(#[from] segue_signing::KeyringError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The tags of the sections that an edge has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told<'t> {
    pub(crate) keys: &'t str,
    pub(crate) limits: &'t str,
    pub(crate) policies: &'t str,
}

/// The keyring and the snapshot's publisher.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Those of the configuration.
    own: Vec<KeyDoc>,
    /// The keyring of the snapshot that was published last. Held for a copy of the pointer.
    ring: RwLock<Arc<Keyring>>,
    snapshots: watch::Sender<Arc<SnapshotDoc>>,
    hints: Hints,
    /// Held while a snapshot is read and sent, so that an older one is never sent after a newer.
    publishing: Mutex<()>,
}

impl Keys {
    /// Builds the keyring and the first snapshot.
    pub(crate) async fn start(store: &Store, secrets: &[(String, Secret)], hints: Hints) -> Result<Self, KeysError> {
        let own: Vec<KeyDoc> = secrets
            .iter()
            .map(|(kid, secret)| KeyDoc {
                kid: kid.clone(),
                secret: secret.expose().to_owned(),
                not_before: None,
                retire_at: None,
            })
            .collect();
        let keys = own.iter().map(KeyDoc::key).collect::<Result<Vec<_>, _>>()?;
        let ring = RwLock::new(Arc::new(Keyring::new(keys)?));
        // The key secrets may have changed since the last start: a new revision in any case.
        transaction!(store, |tx| store::keys::raise_revision(tx, clock::now_ms()).await)?;
        let (snapshots, _) = watch::channel(Arc::new(SnapshotDoc::default()));
        let this = Self { own, ring, snapshots, hints, publishing: Mutex::new(()) };
        this.publish(store).await?;
        Ok(this)
    }

    /// Reads what is committed and tells it to everybody who follows, here and at other control planes.
    pub(crate) async fn publish(&self, store: &Store) -> Result<(), StoreError> {
        // Before our own reading, so that the others read at the same time.
        self.hints.snapshot();
        self.publish_here(store).await
    }

    async fn publish_here(&self, store: &Store) -> Result<(), StoreError> {
        let _one = self.publishing.lock().await;
        let now = clock::now_s();
        let State { revision, keys, purges, revocations, limits, policies, .. } =
            store::keys::state(store, None, now).await?;
        let keys = self.merged(&keys, now);
        let revocations = revocations.into_iter().map(|named| named.revocation).collect();
        let doc = SnapshotDoc { revision, keys, purges, revocations, limits, policies };
        match doc.keyring() {
            Ok(ring) => *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring),
            // What goes in is checked: only a database that was changed by hand comes here.
            Err(error) => tracing::error!(%error, "the stored keys make no keyring; the last one goes on signing"),
        }
        self.snapshots.send_if_modified(|current| {
            let changed = doc.revision > current.revision;
            if changed {
                *current = Arc::new(doc);
            }
            changed
        });
        Ok(())
    }

    /// The configuration's keys with the times that the database has for them, and the database's own. A key that retired
    /// long ago is left out, unless the edge's own file may have it too.
    fn merged(&self, stored: &[KeyRow], now: i64) -> Vec<KeyDoc> {
        let mut docs = self.own.clone();
        for row in stored {
            match (docs.iter_mut().find(|doc| doc.kid == row.kid), &row.secret) {
                (Some(doc), _) => (doc.not_before, doc.retire_at) = (row.not_before, row.retire_at),
                (None, Some(secret)) if row.retire_at.is_none_or(|at| at > now - RETIRED_KEPT_S) => docs.push(KeyDoc {
                    kid: row.kid.clone(),
                    secret: secret.clone(),
                    not_before: row.not_before,
                    retire_at: row.retire_at,
                }),
                (None, _) => {}
            }
        }
        docs
    }

    /// What an edge is told that has everything up to `cursor`, and the sections of these tags.
    pub(crate) async fn since(
        &self,
        store: &Store,
        cursor: Option<u64>,
        has: Told<'_>,
    ) -> Result<SnapshotDelta, StoreError> {
        let now = clock::now_s();
        let state = store::keys::state(store, cursor, now).await?;
        let keys = self.merged(&state.keys, now);
        let (tag, limits, policies) = (tag_of(&keys)?, tag_of(&state.limits)?, policies_told(&state.policies)?);
        Ok(SnapshotDelta {
            revision: state.revision,
            partial: state.partial,
            keys: (tag != has.keys).then_some(keys),
            keys_tag: tag,
            purges: state.purges,
            revocations: state.revocations,
            lifted: state.lifted,
            limits: (limits != has.limits).then_some(state.limits),
            limits_tag: limits,
            policies: (policies != has.policies).then_some(state.policies),
            policies_tag: policies,
        })
    }

    /// Publishes what was committed and not told: by a request that was cut off in between, or by another process.
    pub(crate) async fn catch_up(&self, store: &Store) -> Result<(), StoreError> {
        let told = self.snapshots.borrow().revision;
        if store::keys::revision(store).await? > told { self.publish_here(store).await } else { Ok(()) }
    }

    /// Follows the snapshot.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<SnapshotDoc>> {
        self.snapshots.subscribe()
    }

    /// The keyring that is in force.
    pub(crate) fn ring(&self) -> Arc<Keyring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the configuration has a key of this name.
    pub(crate) fn is_own(&self, kid: &str) -> bool {
        self.own.iter().any(|doc| doc.kid == kid)
    }

    /// Signs a ticket with the newest usable key. `None`: there is none at this time.
    pub(crate) fn mint(&self, claims: &Claims, now_s: i64) -> Option<Result<String, MintError>> {
        self.ring().signer(now_s).map(|key| segue_signing::mint(key, claims))
    }

    /// A URL for one object on the edge. `None` where no key is usable, or the path is not one.
    pub(crate) fn object_url(&self, edge_base: &str, path: &str, now_s: i64) -> Option<String> {
        let ring = self.ring();
        let key = ring.signer(now_s)?;
        let path = CanonicalPath::parse(path).ok()?;
        let exp = (now_s.div_euclid(OBJECT_URL_STEP_S) + 2) * OBJECT_URL_STEP_S;
        Some(format!("{edge_base}{}?{}", path.encoded(), segue_signing::url::sign(key, &path, exp)))
    }
}

/// The tag of the policies; none where there are none, as of a control plane that knows of none.
fn policies_told(policies: &[PolicyDoc]) -> Result<String, StoreError> {
    if policies.is_empty() { Ok(String::new()) } else { tag_of(policies) }
}

/// The tag of a section: 64 bits of a hash over all of it, which leads back to no secret.
fn tag_of(section: &(impl Serialize + ?Sized)) -> Result<String, StoreError> {
    let digest = Sha256::digest(serde_json::to_vec(section)?);
    Ok(digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}
