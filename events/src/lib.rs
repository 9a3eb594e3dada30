//! The facts of an edge: what was delivered, what was refused, and where that is kept until somebody has it.
//!
//! [`EventLog`] is one directory with two bounded logs, [facts](Fact) and [denials](Denial), and a table of
//! intents. An edge [notes](EventLog::note) a fact before the last write of a segment and
//! [settles](Intent::settle) it after. Both are memory copies into files that are mapped: no system call, no
//! wait for a disk, a network or a consumer.
//!
//! Invariants:
//! - A record that was settled survives the death of the process (`kill -9`), exactly once and whole. It may
//!   not survive the loss of power: nothing is synced.
//! - A fact that was noted and not settled when the process died is appended by the next
//!   [`EventLog::open`], once, marked `recovered`: the kernel may or may not have taken its bytes.
//! - Everything is bounded: the logs by [`LogBounds::bytes`], the intents by [`LogOptions::slots`], every
//!   string of a record by the constants in [`bounds`]. What does not fit is counted in [`Overflow`], by reason.
//! - A position is a logical byte offset and only grows for as long as the directory lives.
//!
//! Out of a log records go to a [`Sink`], by [`ship`]: to the control plane, or to [Fluvio](FluvioSink), from where
//! the tally reads them ([`FluvioReader`]).
//!
//! On failure: a full log or disk drops the newest record and counts it; the request that it told of is not
//! touched. A directory that another process holds, or that cannot be written, is an error at
//! [`EventLog::open`], never later.

mod address;
mod denial;
mod directory;
mod error;
mod event_log;
mod fact;
mod fluvio;
mod intents;
mod json;
mod log;
mod mapped;
mod pauses;
mod segment;
mod ship;
mod sink;

pub use self::fluvio::{Codec, Fetched, FluvioConfig, FluvioError, FluvioReader, FluvioSink, FluvioTls};
pub use address::{AddressHash, AddressHasher};
pub use denial::{Denial, DenialDraft};
pub use error::LogError;
pub use event_log::{EventLog, Intent, LogOptions, Overflow};
pub use fact::{CacheState, Fact, FactDraft, Kind};
pub use log::{Batch, Log, LogBounds, Position, WhenFull};
pub use pauses::{Pauses, jittered};
pub use ship::{Shipped, ship};
pub use sink::{Most, Parcel, Sink, SinkError};

pub mod bounds {
    //! How long each string of a record may be, in bytes of its JSON form (escapes counted, quotes not).
    //! Longer ones are cut at a character, so that a record always fits an intent's slot.

    /// Name of the edge; a longer one is refused at open, since ids are built from it.
    pub const EDGE: usize = 48;
    /// Track id.
    pub const TRACK: usize = 64;
    /// Version of a track.
    pub const VERSION: usize = 64;
    /// File inside the version (`a128/seg-00003.m4s`).
    pub const FILE: usize = 256;
    /// Session.
    pub const SID: usize = 128;
    /// Listener.
    pub const SUB: usize = 128;
    /// `name@version` of the policy that decided.
    pub const POLICY: usize = 128;
    /// All tags together, quotes and commas included; a tag that does not fit whole is left out.
    pub const TAGS: usize = 512;
    /// User agent.
    pub const UA: usize = 384;
    /// Keyed hash of the client's address.
    pub const IP_HASH: usize = 64;
    /// The CMCD object, braces included; a key that does not fit whole is left out.
    pub const CMCD: usize = 1024;
    /// Canonical path of a denied request.
    pub const PATH: usize = 1024;
    /// Reason word of a denial.
    pub const REASON: usize = 64;
    /// A whole record.
    pub const RECORD: usize = 4064;
}
