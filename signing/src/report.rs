//! What an edge says of itself to the control plane, every few seconds.

use std::collections::BTreeMap;

use crate::policies::{PolicyDifference, PolicyStanding, PolicyVerdicts};
use serde::{Deserialize, Serialize};

/// A report. Counts are since the process started: whoever adds them up tells processes apart by `boot`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeReport {
    /// The edge's name.
    pub edge: String,
    /// When the process started, milliseconds since the epoch.
    pub boot: u64,
    /// The program's version.
    pub version: String,
    /// The revision of the snapshot that it works with.
    pub revision: u64,
    /// Seconds since the process started.
    pub uptime_s: u64,
    /// How often each key was used.
    #[serde(default)]
    pub keys: Vec<KeyUseReport>,
    /// Other counts and readings by name.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// How each version of each policy stands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyStanding>,
    /// What policies said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<PolicyVerdicts>,
    /// What shadows would have said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<PolicyDifference>,
}

/// How often one key was used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUseReport {
    /// The key's name.
    pub kid: String,
    /// Tickets and URLs accepted.
    pub accepted: u64,
    /// Tickets and URLs truly signed by it that came outside its time.
    pub out_of_time: u64,
}
