//! What was delivered: one record a segment or init segment that an edge served.
//!
//! The schema is `schema/fact.v1.schema.json`. Within version 1 fields may be added, never changed or taken
//! away: consumers skip what they do not know.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::bounds;
use crate::json::Object;

/// What kind of object was delivered.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An initialisation segment (`EXT-X-MAP`, RFC 8216 section 4.3.2.5).
    Init,
    /// A media segment (RFC 8216 section 3).
    #[default]
    Segment,
}

impl Kind {
    /// The word in the record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Segment => "segment",
        }
    }
}

/// Where the bytes came from.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[serde(rename_all = "kebab-case")]
pub enum CacheState {
    /// From this edge's memory.
    HitMemory,
    /// From this edge's disk.
    HitDisk,
    /// From the origin, filled by this request.
    #[default]
    Miss,
    /// From the origin, filled by another request that this one waited for.
    Coalesced,
    /// From the cache though out of date, since the origin was away or slow.
    Stale,
    /// From the origin, past the cache.
    Bypass,
}

impl CacheState {
    /// The word in the record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HitMemory => "hit-memory",
            Self::HitDisk => "hit-disk",
            Self::Miss => "miss",
            Self::Coalesced => "coalesced",
            Self::Stale => "stale",
            Self::Bypass => "bypass",
        }
    }
}

/// One delivered segment, as consumers read it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Fact {
    /// Version of the schema: 1.
    pub v: u8,
    /// `<edge>-<boot, ms since the epoch in base 36>-<sequence>`; the same for every copy of this fact.
    pub id: String,
    /// When it was delivered, ms since the epoch.
    pub ts: u64,
    /// Name of the edge.
    pub edge: String,
    /// Track id.
    pub track: String,
    /// Version of the track, where the path names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// File inside the version, or inside the track where there is none.
    pub file: String,
    /// Kind of object.
    pub kind: Kind,
    /// Where in the track the segment begins, ms; from the media playlist, where the edge has seen it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pos_ms: Option<u64>,
    /// How long the segment plays, ms; from the media playlist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_ms: Option<u64>,
    /// Session: the ticket's claim, or a hash of the ticket.
    pub sid: String,
    /// Listener, where the ticket names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// HTTP status: 200, 206 or 304.
    pub status: u16,
    /// Bytes of the body that were handed to the kernel.
    pub bytes: u64,
    /// First byte, last byte and length of the whole object, for a 206 (RFC 9110 section 14.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[u64; 3]>,
    /// From the request's head to the first byte of the answer, ms.
    pub ttfb_ms: u32,
    /// Where the bytes came from.
    pub cache: CacheState,
    /// `name@version` of the policy that allowed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Tags that policies gave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// User agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ua: Option<String>,
    /// Keyed hash of the client's address; the key rotates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_hash: Option<String>,
    /// Common media client data (CTA-5004), where the client sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmcd: Option<Map<String, Value>>,
    /// Whether the kernel took all bytes of the answer.
    pub complete: bool,
    /// The edge died between the last write and the record of it: the kernel may or may not have taken the bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovered: bool,
}

/// A fact before it is settled. It borrows everything, so that noting one allocates nothing.
///
/// Strings longer than their bound in [`bounds`] are cut.
#[derive(Clone, Copy, Debug, Default)]
pub struct FactDraft<'a> {
    /// See [`Fact::ts`]; now, if `None`.
    pub ts: Option<u64>,
    /// See [`Fact::track`].
    pub track: &'a str,
    /// See [`Fact::version`].
    pub version: Option<&'a str>,
    /// See [`Fact::file`].
    pub file: &'a str,
    /// See [`Fact::kind`].
    pub kind: Kind,
    /// See [`Fact::pos_ms`].
    pub pos_ms: Option<u64>,
    /// See [`Fact::media_ms`].
    pub media_ms: Option<u64>,
    /// See [`Fact::sid`].
    pub sid: &'a str,
    /// See [`Fact::sub`].
    pub sub: Option<&'a str>,
    /// See [`Fact::status`].
    pub status: u16,
    /// Bytes that the answer is meant to have: what stands in the fact if the process dies before it is settled.
    pub bytes: u64,
    /// See [`Fact::range`].
    pub range: Option<[u64; 3]>,
    /// See [`Fact::ttfb_ms`].
    pub ttfb_ms: u32,
    /// See [`Fact::cache`].
    pub cache: CacheState,
    /// See [`Fact::policy`].
    pub policy: Option<&'a str>,
    /// See [`Fact::tags`].
    pub tags: &'a [String],
    /// See [`Fact::ua`].
    pub ua: Option<&'a str>,
    /// See [`Fact::ip_hash`].
    pub ip_hash: Option<&'a str>,
    /// See [`Fact::cmcd`].
    pub cmcd: Option<&'a Map<String, Value>>,
}

/// Most bytes that [`finish`] adds.
pub(crate) const SUFFIX: usize = 96;

/// All strings at their bounds, and room for keys, numbers and punctuation.
const LONGEST: usize = bounds::EDGE * 2
    + bounds::TRACK
    + bounds::VERSION
    + bounds::FILE
    + bounds::SID
    + bounds::SUB
    + bounds::POLICY
    + bounds::TAGS
    + bounds::UA
    + bounds::IP_HASH
    + bounds::CMCD
    + 640;
const _: () = assert!(LONGEST + SUFFIX <= bounds::RECORD, "a fact must fit a slot");

impl FactDraft<'_> {
    /// Writes the fact up to what is only known once it is settled.
    pub(crate) fn begin(&self, out: &mut Vec<u8>, edge: &str, stem: &str, sequence: u64, now_ms: u64) {
        let mut object = Object::version_one(out);
        object.id(stem, sequence);
        object.number("\"ts\":", self.ts.unwrap_or(now_ms));
        object.text("\"edge\":", edge, bounds::EDGE);
        object.text("\"track\":", self.track, bounds::TRACK);
        object.optional_text("\"version\":", self.version, bounds::VERSION);
        object.text("\"file\":", self.file, bounds::FILE);
        object.text("\"kind\":", self.kind.as_str(), bounds::RECORD);
        object.optional_number("\"pos_ms\":", self.pos_ms);
        object.optional_number("\"media_ms\":", self.media_ms);
        object.text("\"sid\":", self.sid, bounds::SID);
        object.optional_text("\"sub\":", self.sub, bounds::SUB);
        object.number("\"status\":", u64::from(self.status));
        if let Some(range) = &self.range {
            object.numbers("\"range\":", range);
        }
        object.number("\"ttfb_ms\":", u64::from(self.ttfb_ms));
        object.text("\"cache\":", self.cache.as_str(), bounds::RECORD);
        object.optional_text("\"policy\":", self.policy, bounds::POLICY);
        object.texts("\"tags\":", self.tags, bounds::TAGS);
        object.optional_text("\"ua\":", self.ua, bounds::UA);
        object.optional_text("\"ip_hash\":", self.ip_hash, bounds::IP_HASH);
        object.object("\"cmcd\":", self.cmcd, bounds::CMCD);
    }
}

/// Closes a fact that [`FactDraft::begin`] wrote.
pub(crate) fn finish(out: &mut Vec<u8>, bytes: u64, complete: bool, recovered: bool) {
    let mut object = Object::resume(out);
    object.number("\"bytes\":", bytes);
    object.boolean("\"complete\":", complete);
    if recovered {
        object.boolean("\"recovered\":", true);
    }
    object.close();
}
