//! The control plane: tracks and uploads, transcode jobs, tickets and keys, the tally of plays, and the console page.
//!
//! One axum service over a database (SQLite or MariaDB) and a bucket. `routes.rs` is the table of contents; `store/` holds all SQL; rules that
//! need neither (what a play is) stand in modules of their own.
//!
//! Invariants: the database is the truth, and what is told (events, snapshots) is told after the commit; nothing is
//! half done after a crash, since every step that reaches the bucket is noted in the database before it is taken and
//! is safe to repeat; every queue, wait and body is bounded.
//!
//! On failure: a start that cannot succeed ends with one sentence that says what to do ([`StartError`]). At run time a
//! bucket or database that is away makes requests fail with 503 and tasks try on; nothing is lost.

mod api;
mod audit;
mod auth;
#[cfg(test)]
#[path = "../tests/support/bucket.rs"]
mod bucket;
mod bus;
mod clock;
mod config;
mod control;
#[cfg(test)]
#[path = "../tests/support/database.rs"]
mod database;
mod doctor;
mod duty;
mod error;
pub mod export;
#[cfg(test)]
mod fixture;
mod hints;
mod idempotency;
mod ids;
mod kept;
mod keys;
mod multipart;
mod objects;
mod plays;
mod policies;
mod problem;
mod publication;
mod router;
mod routes;
mod server;
mod state;
mod store;
mod sweeper;
mod tally;
mod views;
mod webhooks;

pub use config::{
    AccessConfig, AuditConfig, ControlConfig, DatabaseConfig, FactsConfig, HttpConfig, JobsConfig, ObjectsConfig,
    PoliciesConfig, RedisConfig, TicketsConfig, TokensConfig, UploadsConfig, WebhooksConfig,
};
pub use control::{Control, ControlInputs, Recount, StartError, recount};
pub use doctor::examine;
pub use policies::signers::{NotASigner, Signer};
