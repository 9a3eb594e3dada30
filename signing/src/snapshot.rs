//! The snapshot as it travels from the control plane to an edge, and lies on the edge's disk.
//!
//! # Invariants
//! - Holds secrets in clear: it goes over the authenticated channel and into files that only the edge may
//!   read. `Debug` shows none of them.
//! - Sections that are missing are empty; sections that are not known here are ignored.
//!
//! # On failure
//! A section that can not be used is an error, and the edge goes on with the snapshot that it has.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::keyring::{Key, Keyring, KeyringError};
use crate::limits::LimitsConfig;
use crate::policies::PolicyDoc;
use crate::revocation::{Revocation, RevocationError, Revocations};
use crate::secret::{SecretError, SigningSecret};

/// What the control plane tells an edge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SnapshotDoc {
    /// Rises with every change.
    pub revision: u64,
    /// The keys that verify tickets.
    #[serde(default)]
    pub keys: Vec<KeyDoc>,
    /// Purge generation by track: milliseconds since the epoch, so that it rises even over a restored database.
    #[serde(default)]
    pub purges: BTreeMap<String, u64>,
    /// Tickets that are void before they expire.
    #[serde(default)]
    pub revocations: Vec<Revocation>,
    /// Who is asked beside the ticket.
    #[serde(default)]
    pub policies: Vec<PolicyDoc>,
    /// Limit classes; those that an edge's own file has beside them go on there.
    #[serde(default)]
    pub limits: LimitsConfig,
}

/// One key as it travels. Times are seconds since the epoch.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDoc {
    /// The key's name.
    pub kid: String,
    /// The secret as [`SigningSecret::parse`] reads it.
    pub secret: String,
    /// Nothing signed by it is accepted before this second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<i64>,
    /// Nothing signed by it is accepted from this second on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retire_at: Option<i64>,
}

/// Why a snapshot can not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// A key's secret can not be used.
    #[error("snapshot: key {kid:?}: {error}")]
    Secret {
        /// The key's name.
        kid: String,
        /// What is wrong with it.
        error: SecretError,
    },
    /// The keys make no keyring.
    #[error("snapshot: {0}")]
    Keyring(#[from] KeyringError),
    /// A revocation says nothing.
    #[error("snapshot: {0}")]
    Revocation(#[from] RevocationError),
    /// A limit class breaks the rules.
    #[error("snapshot: {0}")]
    Limits(String),
}

impl SnapshotError {
    /// The reason word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Secret { error, .. } => error.kind(),
            Self::Keyring(error) => error.kind(),
            Self::Revocation(error) => error.kind(),
            Self::Limits(_) => "limits-invalid",
        }
    }
}

impl SnapshotDoc {
    /// The first keyring of a process.
    ///
    /// # Errors
    /// Where a key can not be used.
    pub fn keyring(&self) -> Result<Keyring, SnapshotError> {
        Ok(Keyring::new(self.keys()?)?)
    }

    /// The keyring that follows `previous`: see [`Keyring::successor`].
    ///
    /// # Errors
    /// Where a key can not be used.
    pub fn keyring_after(&self, previous: &Keyring) -> Result<Keyring, SnapshotError> {
        Ok(previous.successor(self.keys()?)?)
    }

    /// The revocations, indexed.
    ///
    /// # Errors
    /// Where one says nothing.
    pub fn revocations(&self) -> Result<Revocations, SnapshotError> {
        Ok(Revocations::new(self.revocations.iter().cloned())?)
    }

    fn keys(&self) -> Result<Vec<Key>, SnapshotError> {
        self.keys.iter().map(KeyDoc::key).collect()
    }
}

impl KeyDoc {
    /// Reads the key.
    ///
    /// # Errors
    /// [`SnapshotError::Secret`] where its secret can not be used.
    pub fn key(&self) -> Result<Key, SnapshotError> {
        let secret = SigningSecret::parse(&self.secret)
            .map_err(|error| SnapshotError::Secret { kid: self.kid.clone(), error })?;
        Ok(Key { kid: self.kid.clone(), secret, not_before: self.not_before, retire_at: self.retire_at })
    }
}

impl fmt::Debug for KeyDoc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyDoc")
            .field("kid", &self.kid)
            .field("secret", &"…")
            .field("not_before", &self.not_before)
            .field("retire_at", &self.retire_at)
            .finish()
    }
}

#[cfg(test)]
mod tests;
