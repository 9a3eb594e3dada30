//! Keys and what edges are told: the keyring that signs, and the snapshot that edges follow.
//!
//! Invariants: the snapshot is built from the database and never from memory, so that what an edge is told is what
//! was committed; its revision only rises; publishing is one at a time. On failure the last snapshot stays and the
//! sweep publishes again.

use std::sync::Arc;

use segue_config::Secret;
use segue_signing::{CanonicalPath, Claims, Key, KeyDoc, Keyring, MintError, SnapshotDoc};
use tokio::sync::{Mutex, watch};

use crate::clock;
use crate::store::{self, Store, StoreError};

/// Signed object URLs end on a multiple of this, so that a list that is read again names the same URLs and a browser
/// finds their bytes in its cache. Each is valid for one to two of these.
const OBJECT_URL_STEP_S: i64 = 6 * 3600;

/// A key of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    #[error("signing key {kid}: {error}")]
    Secret { kid: String, error: segue_signing::SecretError },
    #[error("signing keys: {0}")]
    Keyring(#[from] segue_signing::KeyringError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The keyring and the snapshot's publisher.
#[derive(Debug)]
pub(crate) struct Keys {
    keyring: Keyring,
    docs: Vec<KeyDoc>,
    snapshots: watch::Sender<Arc<SnapshotDoc>>,
    /// Held while a snapshot is read and sent, so that an older one is never sent after a newer.
    publishing: Mutex<()>,
}

impl Keys {
    /// Builds the keyring and the first snapshot.
    pub(crate) async fn start(store: &Store, secrets: &[(String, Secret)]) -> Result<Self, KeysError> {
        let docs: Vec<KeyDoc> = secrets
            .iter()
            .map(|(kid, secret)| KeyDoc {
                kid: kid.clone(),
                secret: secret.expose().to_owned(),
                not_before: None,
                retire_at: None,
            })
            .collect();
        let keys = secrets
            .iter()
            .map(|(kid, secret)| {
                let secret = segue_signing::SigningSecret::parse(secret.expose())
                    .map_err(|error| KeysError::Secret { kid: kid.clone(), error })?;
                Ok(Key { kid: kid.clone(), secret, not_before: None, retire_at: None })
            })
            .collect::<Result<Vec<_>, KeysError>>()?;
        let keyring = Keyring::new(keys)?;
        // The key secrets may have changed since the last start: a new revision in any case.
        let mut tx = store.begin().await?;
        store::keys::raise_revision(&mut tx, clock::now_ms()).await?;
        tx.commit().await.map_err(StoreError::from)?;
        let (snapshots, _) = watch::channel(Arc::new(SnapshotDoc::default()));
        let this = Self { keyring, docs, snapshots, publishing: Mutex::new(()) };
        this.publish(store).await?;
        Ok(this)
    }

    /// Reads what is committed and tells it to everybody who follows.
    pub(crate) async fn publish(&self, store: &Store) -> Result<(), StoreError> {
        let _one = self.publishing.lock().await;
        let (revision, purges) = store::keys::state(store).await?;
        self.snapshots.send_if_modified(|current| {
            let changed = revision > current.revision;
            if changed {
                let doc = SnapshotDoc { revision, keys: self.docs.clone(), purges, ..SnapshotDoc::default() };
                *current = Arc::new(doc);
            }
            changed
        });
        Ok(())
    }

    /// Publishes what was committed and not told: by a request that was cut off in between, or by another process.
    pub(crate) async fn catch_up(&self, store: &Store) -> Result<(), StoreError> {
        let told = self.snapshots.borrow().revision;
        if store::keys::revision(store).await? > told { self.publish(store).await } else { Ok(()) }
    }

    /// Follows the snapshot.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<SnapshotDoc>> {
        self.snapshots.subscribe()
    }

    /// Signs a ticket with the newest usable key. `None`: there is none at this time.
    pub(crate) fn mint(&self, claims: &Claims, now_s: i64) -> Option<Result<String, MintError>> {
        self.keyring.signer(now_s).map(|key| segue_signing::mint(key, claims))
    }

    /// A URL for one object on the edge. `None` where no key is usable, or the path is not one.
    pub(crate) fn object_url(&self, edge_base: &str, path: &str, now_s: i64) -> Option<String> {
        let key = self.keyring.signer(now_s)?;
        let path = CanonicalPath::parse(path).ok()?;
        let exp = (now_s.div_euclid(OBJECT_URL_STEP_S) + 2) * OBJECT_URL_STEP_S;
        Some(format!("{edge_base}{}?{}", path.encoded(), segue_signing::url::sign(key, &path, exp)))
    }
}
