//! Facts by way of Fluvio: what edges write ([`FluvioSink`]) and what the tally reads ([`FluvioReader`]).
//!
//! | file         | what it does |
//! |--------------|--------------|
//! | `config.rs`  | `[events]` as far as it speaks of Fluvio |
//! | `cluster.rs` | one connection: topics made and found, leaders, bounded calls |
//! | `produce.rs` | records into batches by partition, and the word that they are there |
//! | `read.rs`    | whole batches from an offset on, no offset left out |
//!
//! Both speak the protocol through the client's own sockets and encoders, beneath its producer and its consumer
//! ([why](../../docs/decisions/0005-fluvio-calls.md)): a call is one request and one answer, within a bound. So nothing is queued
//! in a place that is not ours, nothing waits without end, and no task outlives its connection.
//!
//! Invariants: no Fluvio type leaves this module. A record is taken when the leader of its partition said at which
//! offset it lies, committed to all replicas. Whatever fails drops the connection with everything that it knew of the cluster: the
//! next attempt learns leaders, topics and addresses anew.

mod cluster;
mod config;
mod produce;
mod read;

pub use config::{Codec, FluvioConfig, FluvioTls};
pub use produce::FluvioSink;
pub use read::{Fetched, FluvioReader};

use crate::SinkError;

/// What keeps a record from being written or read.
#[derive(Debug, thiserror::Error)]
pub enum FluvioError {
    /// The configuration cannot be used: a certificate that is missing, an address that is none.
    #[error("Fluvio: {0}")]
    Config(String),
    /// A machine does not answer, or not as the protocol says.
    #[error("Fluvio at {address}: {problem}")]
    Unreachable {
        /// Of the controller or of a leader.
        address: String,
        /// What went wrong.
        problem: String,
    },
    /// A call took longer than its bound.
    #[error("Fluvio at {address} did not answer within {seconds} s")]
    Slow {
        /// Of the controller or of a leader.
        address: String,
        /// The bound.
        seconds: u64,
    },
    /// A topic is not there and cannot be made, or has no leader.
    #[error("Fluvio topic {topic}: {problem}")]
    Topic {
        /// Its name.
        topic: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A partition refused.
    #[error("Fluvio partition {topic}-{partition}: {problem}")]
    Partition {
        /// Its topic.
        topic: String,
        /// Its number.
        partition: u32,
        /// What its leader said.
        problem: String,
    },
}

impl FluvioError {
    /// The reason word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Config(_) => "config",
            Self::Unreachable { .. } => "unreachable",
            Self::Slow { .. } => "slow",
            Self::Topic { .. } => "topic",
            Self::Partition { .. } => "partition",
        }
    }
}

impl From<FluvioError> for SinkError {
    fn from(error: FluvioError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
