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
mod config;
mod connection;
mod downstream;
mod edge;
mod exchange;
mod fact;
mod fill;
mod listener;
mod lock;
mod metrics;
mod origin;
mod refusal;
mod respond;
mod route;
mod service;
mod snapshot;
mod ticket;
mod timeline;
mod transport;
mod upstream;

pub use config::{
    Addressing, CacheConfig, ConnectionConfig, ControlConfig, DEFAULT_ORIGIN, EdgeConfig, Endpoint, OriginConfig,
    OriginKind, RouteConfig, TicketConfig, TtlConfig,
};
pub use edge::{Edge, EdgeInputs, StartError};
