//! The API over HTTP, with a real S3 server behind it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use segue_control_plane::DatabaseConfig;

#[path = "support/bucket.rs"]
mod bucket;
#[path = "support/database.rs"]
mod database;
#[path = "support/house.rs"]
mod house;
#[path = "support/policy.rs"]
mod policy;
#[path = "support/receiver.rs"]
mod receiver;

#[path = "api/access.rs"]
mod access;
#[path = "api/audit.rs"]
mod audit;
#[path = "api/crash.rs"]
mod crash;
#[path = "api/edges.rs"]
mod edges;
#[path = "api/events.rs"]
mod events;
#[path = "api/idempotency.rs"]
mod idempotency;
#[path = "api/life.rs"]
mod life;
#[path = "api/limits.rs"]
mod limits;
#[path = "api/multipart.rs"]
mod multipart;
#[path = "api/policies.rs"]
mod policies;
#[path = "api/several.rs"]
mod several;
#[path = "api/start.rs"]
mod start;
#[path = "api/stats.rs"]
mod stats;
#[path = "api/tokens.rs"]
mod tokens;
#[path = "api/webhooks.rs"]
mod webhooks;
