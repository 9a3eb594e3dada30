//! The routes, one file per resource. Handlers translate between HTTP and the parts; rules live in the parts.

pub(crate) mod audit;
pub(crate) mod denials;
pub(crate) mod edge;
pub(crate) mod events;
pub(crate) mod facts;
pub(crate) mod health;
pub(crate) mod jobs;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod multipart;
pub(crate) mod openapi;
pub(crate) mod page;
pub(crate) mod policies;
pub(crate) mod request;
pub(crate) mod revocations;
pub(crate) mod stats;
pub(crate) mod tickets;
pub(crate) mod tokens;
pub(crate) mod tracks;
pub(crate) mod uploads;
pub(crate) mod webhooks;
pub(crate) mod worker;
