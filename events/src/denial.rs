//! What was refused: one record a request that an edge turned away.
//!
//! The schema is `schema/denial.v1.schema.json`; its rule of change is that of the facts.

use serde::{Deserialize, Serialize};

use crate::bounds;
use crate::json::Object;

/// One refused request, as consumers read it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Version of the schema: 1.
    pub v: u8,
    /// `<edge>-<boot, ms since the epoch in base 36>-<sequence>`.
    pub id: String,
    /// When, ms since the epoch.
    pub ts: u64,
    /// Name of the edge.
    pub edge: String,
    /// Track id, where the path names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<String>,
    /// Canonical path, without a ticket.
    pub path: String,
    /// Reason word, as in the answer.
    pub reason: String,
    /// HTTP status of the answer.
    pub status: u16,
    /// Session, where the ticket got far enough to name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// Keyed hash of the client's address; the key rotates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_hash: Option<String>,
    /// User agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ua: Option<String>,
}

/// A denial before it is written. Strings longer than their bound in [`bounds`] are cut.
#[derive(Clone, Copy, Debug, Default)]
pub struct DenialDraft<'a> {
    /// See [`Denial::ts`]; now, if `None`.
    pub ts: Option<u64>,
    /// See [`Denial::track`].
    pub track: Option<&'a str>,
    /// See [`Denial::path`]. Must not hold a ticket or a signature.
    pub path: &'a str,
    /// See [`Denial::reason`].
    pub reason: &'a str,
    /// See [`Denial::status`].
    pub status: u16,
    /// See [`Denial::sid`].
    pub sid: Option<&'a str>,
    /// See [`Denial::ip_hash`].
    pub ip_hash: Option<&'a str>,
    /// See [`Denial::ua`].
    pub ua: Option<&'a str>,
}

/// All strings at their bounds, and room for keys, numbers and punctuation.
const LONGEST: usize =
    bounds::EDGE * 2 + bounds::TRACK + bounds::PATH + bounds::REASON + bounds::SID + bounds::IP_HASH + bounds::UA + 384;
const _: () = assert!(LONGEST <= bounds::RECORD, "a denial must fit a record");

impl DenialDraft<'_> {
    pub(crate) fn write(&self, out: &mut Vec<u8>, edge: &str, stem: &str, sequence: u64, now_ms: u64) {
        let mut object = Object::version_one(out);
        object.id(stem, sequence);
        object.number("\"ts\":", self.ts.unwrap_or(now_ms));
        object.text("\"edge\":", edge, bounds::EDGE);
        object.optional_text("\"track\":", self.track, bounds::TRACK);
        object.text("\"path\":", self.path, bounds::PATH);
        object.text("\"reason\":", self.reason, bounds::REASON);
        object.number("\"status\":", u64::from(self.status));
        object.optional_text("\"sid\":", self.sid, bounds::SID);
        object.optional_text("\"ip_hash\":", self.ip_hash, bounds::IP_HASH);
        object.optional_text("\"ua\":", self.ua, bounds::UA);
        object.close();
    }
}
