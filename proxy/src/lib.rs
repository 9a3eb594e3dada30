//! The edge of Segue: clients in over Pingora, S3 out, one fact for every segment.
//!
//! Purpose: check a ticket, serve from memory, let one origin request answer for all who wait, and record what was
//! delivered. [`Edge::start`] runs a whole edge inside of the caller's runtime; the data path is on one screen in
//! `service.rs`, each step in a file of its own.
//!
//! Invariants: no media byte without an admitted request; no client takes a part of an object for the whole; every
//! queue, wait and memory has a bound.
//!
//! On failure: see [`StartError`]; while it runs, an edge answers with a status and a reason word, and goes on.

mod admin;
mod cache;
mod client;
mod config;
mod connection;
mod content_key;
mod control;
mod doctor;
mod downstream;
mod edge;
mod exchange;
mod explain;
mod fact;
mod fill;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod hop;
pub mod limit;
mod listener;
mod lock;
mod metrics;
mod origin;
mod playlist;
mod policy;
mod prefetch;
mod refusal;
mod reload;
mod respond;
mod route;
mod service;
mod snapshot;
mod ticket;
mod timeline;
mod tls;
mod transport;
mod upstream;

pub use config::{
    Addressing, CacheConfig, CertificateFiles, ClientConfig, ConnectionConfig, ControlConfig, ControlEndpoint,
    DEFAULT_ORIGIN, EdgeConfig, Endpoint, EventsConfig, EventsSink, ForwardedHeader, OriginConfig, OriginKind,
    PlaylistMode, PoliciesConfig, PolicyServices, PrefetchConfig, ProxyProtocol, Reloadable, RouteConfig,
    SnapshotConfig, TicketConfig, TlsConfig, TtlConfig,
};
pub use doctor::examine;
pub use edge::{Edge, EdgeInputs, StartError};
pub use explain::{Explanation, Question, Step, explain};
pub use playlist::rewrite::{LINE_MAX, OUTPUT_MAX, RewriteError, Rewriter, Summary, Way};
pub use reload::ReadConfig;
