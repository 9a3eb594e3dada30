//! Policies as the control plane tells edges of them, and what edges answer.
//!
//! # Invariants
//! - A version is known by the SHA-256 of its component; the bytes travel apart from the snapshot, by digest, and an edge holds them
//!   against it before it compiles them.
//! - A configuration belongs to a version's use, not to its bytes: the same digest with another configuration is another version.
//! - Which version decides is the snapshot's word alone. An edge that does not have a version ready goes on with the one that it last had,
//!   and says so in its report.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Policies that one snapshot may name, and versions of one policy: a chain is asked for each request, and edges hold every version compiled.
pub const MAX_POLICIES: usize = 32;
/// See [`MAX_POLICIES`].
pub const MAX_POLICY_VERSIONS: usize = 16;

/// Bytes of a policy's or a version's name: letters, digits, `-`, `_` and `.`.
pub const MAX_POLICY_NAME_BYTES: usize = 64;

/// One policy of the snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyDoc {
    /// Its name; a canary's share is drawn by it.
    pub name: String,
    /// The world of its components: `access` or `ticket-scheme`.
    pub world: PolicyWorld,
    /// Asked in this order, then by name.
    #[serde(default)]
    pub order: i32,
    /// What becomes of a request that it fails at.
    #[serde(default)]
    pub on_failure: PolicyFailMode,
    /// The version that decides. `None`: nobody enforces this rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// The version that is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<PolicyCandidate>,
    /// Every version that edges are to have ready: those named above, the one that a rollback goes back to, and those pushed ahead.
    #[serde(default)]
    pub versions: Vec<PolicyVersion>,
}

/// The contract's worlds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyWorld {
    /// Judges requests.
    #[default]
    Access,
    /// Knows somebody else's tickets.
    TicketScheme,
}

/// What a failing policy means for the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyFailMode {
    /// It is refused.
    #[default]
    Closed,
    /// The policy counts as having abstained.
    Open,
}

/// A version that is tried beside the active one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyCandidate {
    /// Its name.
    pub version: String,
    /// How.
    pub trial: PolicyTrial,
}

/// How a version is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyTrial {
    /// Asked, and not heeded.
    Shadow,
    /// Decides for this many of 10,000 sessions.
    Canary(u16),
}

/// One version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyVersion {
    /// Unique within the policy; what facts and metrics name.
    pub version: String,
    /// SHA-256 of the bytes as they were uploaded, in lower-case hex; what `GET /v1/edge/policies/{digest}` is asked for.
    pub digest: String,
    /// How many bytes there are.
    pub bytes: u64,
    /// What `configure` is called with, a JSON object.
    #[serde(default)]
    pub config: Value,
}

/// How one version stands on an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStanding {
    /// The policy.
    pub policy: String,
    /// The version.
    pub version: String,
    /// Fetched, verified, compiled and configured.
    pub is_ready: bool,
    /// It decides here: as the active version, or because the one that should is not ready and this one was the last good one.
    #[serde(default)]
    pub is_deciding: bool,
    /// The snapshot says that another version should decide.
    #[serde(default)]
    pub is_kept: bool,
    /// Why it is not ready, a sentence for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// How often one version came to one verdict, and how long that took, since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVerdicts {
    /// The policy.
    pub policy: String,
    /// The version.
    pub version: String,
    /// `allow`, `abstain`, `deny`, or the word of a failure (`timeout`, `trap` …).
    pub verdict: String,
    /// The word of a denial; empty otherwise.
    #[serde(default)]
    pub reason: String,
    /// Calls.
    pub count: u64,
    /// Their time together, in nanoseconds.
    pub took_ns: u64,
}

/// How often a shadow would have said something beside the active version's verdict, since the process started. Pairs that agree are here too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDifference {
    /// The policy.
    pub policy: String,
    /// The shadow's version.
    pub shadow: String,
    /// The active version; empty where there is none.
    #[serde(default)]
    pub active: String,
    /// What the active version said: a verdict's word, with `:reason` for a denial; `none` where there is none.
    pub said: String,
    /// What the shadow would have said, likewise.
    pub would: String,
    /// Requests.
    pub count: u64,
    /// The shadow's time over them together, in nanoseconds.
    pub took_ns: u64,
    /// The last few of them, where the two disagree; at most [`MAX_EXAMPLES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<PolicyExample>,
}

/// Examples of one difference that an edge keeps.
pub const MAX_EXAMPLES: usize = 5;

/// One request about which two versions disagreed. Names no listener and holds no ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyExample {
    /// When, ms since the epoch.
    pub ts: u64,
    /// The canonical path.
    pub path: String,
    /// Where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// The first bytes of a hash of the session: tells sessions apart, leads back to none.
    pub session: String,
}
