//! The snapshot on its way to an edge in another process: whole at first, then what changed.
//!
//! # Invariants
//! - A partial answer builds on the cursor that was asked with, and on nothing else. What cannot be built on is refused
//!   by [`Followed::apply`], and the edge asks for the whole again.
//! - Sections have tags of their own: keys travel when theirs changed. Purges and revocations travel as what is
//!   new since the cursor; a revocation that was taken back is named in `lifted`, one that is over ends by its `until`.
//! - A whole answer reads as a [`SnapshotDoc`] too: the fields that it has more are ignored there.
//!
//! # On failure
//! [`DeltaError`]; what was held before is unchanged.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::LimitsConfig;
use crate::policies::PolicyDoc;
use crate::revocation::Revocation;
use crate::snapshot::{KeyDoc, SnapshotDoc};

/// An answer to an edge that follows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SnapshotDelta {
    /// The revision that the edge has once it has taken this over; its next cursor.
    pub revision: u64,
    /// What changed since the cursor, and not all there is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// The tag of the keys.
    #[serde(default)]
    pub keys_tag: String,
    /// The keys; left out where the edge has those of this tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<KeyDoc>>,
    /// Purge generations by track.
    #[serde(default)]
    pub purges: BTreeMap<String, u64>,
    /// Revocations.
    #[serde(default)]
    pub revocations: Vec<NamedRevocation>,
    /// Ids of revocations that were taken back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lifted: Vec<String>,
    /// The tag of the policies.
    #[serde(default)]
    pub policies_tag: String,
    /// The policies; left out where the edge has those of this tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<Vec<PolicyDoc>>,
    /// The tag of the limit classes.
    #[serde(default)]
    pub limits_tag: String,
    /// The limit classes; left out where the edge has those of this tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsConfig>,
}

/// A revocation with the id by which it can be taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedRevocation {
    /// Unique in the house.
    pub id: String,
    /// What is void.
    #[serde(flatten)]
    pub revocation: Revocation,
}

/// What an edge has taken over so far: the truth from which its snapshot is made, in memory and on its disk.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Followed {
    revision: u64,
    keys_tag: String,
    keys: Vec<KeyDoc>,
    purges: BTreeMap<String, u64>,
    revocations: BTreeMap<String, Revocation>,
    #[serde(default)]
    policies_tag: String,
    #[serde(default)]
    policies: Vec<PolicyDoc>,
    #[serde(default)]
    limits_tag: String,
    #[serde(default)]
    limits: LimitsConfig,
}

/// Why an answer cannot be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// It builds on something that this edge does not have.
    #[error("the control plane sent a part of the snapshot without what it builds on")]
    Baseless,
    /// It names keys that it does not bring and that are not held.
    #[error("the control plane left out keys that this edge does not have")]
    KeysMissing,
    /// It names policies that it does not bring and that are not held.
    #[error("the control plane left out policies that this edge does not have")]
    PoliciesMissing,
    /// It names limit classes that it does not bring and that are not held.
    #[error("the control plane left out limit classes that this edge does not have")]
    LimitsMissing,
}

impl DeltaError {
    /// The reason word.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Baseless => "delta-baseless",
            Self::KeysMissing => "delta-keys-missing",
            Self::PoliciesMissing => "delta-policies-missing",
            Self::LimitsMissing => "delta-limits-missing",
        }
    }
}

impl Followed {
    /// The revision to go on from; 0 where nothing was taken over yet.
    #[must_use]
    pub const fn cursor(&self) -> u64 {
        self.revision
    }

    /// The tag of the keys that are held.
    #[must_use]
    pub fn keys_tag(&self) -> &str {
        &self.keys_tag
    }

    /// The tag of the policies that are held.
    #[must_use]
    pub fn policies_tag(&self) -> &str {
        &self.policies_tag
    }

    /// The tag of the limit classes that are held.
    #[must_use]
    pub fn limits_tag(&self) -> &str {
        &self.limits_tag
    }

    /// What comes of taking over an answer; revocations that are over at `now` (seconds) are left out.
    ///
    /// # Errors
    /// [`DeltaError`] where it does not fit what is held.
    pub fn apply(&self, delta: SnapshotDelta, now: i64) -> Result<Self, DeltaError> {
        if delta.partial && self.revision == 0 {
            return Err(DeltaError::Baseless);
        }
        let keys = match delta.keys {
            Some(keys) => keys,
            None if !self.keys_tag.is_empty() && self.keys_tag == delta.keys_tag => self.keys.clone(),
            None => return Err(DeltaError::KeysMissing),
        };
        // A control plane that knows of no policies names no tag.
        let policies = match delta.policies {
            Some(policies) => policies,
            None if self.policies_tag == delta.policies_tag => self.policies.clone(),
            None => return Err(DeltaError::PoliciesMissing),
        };
        let limits = match delta.limits {
            Some(limits) => limits,
            None if self.limits_tag == delta.limits_tag => self.limits.clone(),
            None => return Err(DeltaError::LimitsMissing),
        };
        let (mut purges, mut revocations) = match delta.partial {
            true => (self.purges.clone(), self.revocations.clone()),
            false => (BTreeMap::new(), BTreeMap::new()),
        };
        for (track, generation) in delta.purges {
            let known = purges.entry(track).or_default();
            *known = generation.max(*known);
        }
        revocations.extend(delta.revocations.into_iter().map(|named| (named.id, named.revocation)));
        for id in &delta.lifted {
            revocations.remove(id);
        }
        revocations.retain(|_, revocation| revocation.until > now);
        Ok(Self {
            revision: delta.revision,
            keys_tag: delta.keys_tag,
            keys,
            purges,
            revocations,
            policies_tag: delta.policies_tag,
            policies,
            limits_tag: delta.limits_tag,
            limits,
        })
    }

    /// The snapshot that an edge works with.
    #[must_use]
    pub fn document(&self) -> SnapshotDoc {
        SnapshotDoc {
            revision: self.revision,
            keys: self.keys.clone(),
            purges: self.purges.clone(),
            revocations: self.revocations.values().cloned().collect(),
            policies: self.policies.clone(),
            limits: self.limits.clone(),
        }
    }
}

impl fmt::Debug for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").field("revision", &self.revision).field("keys", &self.keys).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
