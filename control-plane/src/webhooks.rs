//! Webhooks: events told to receivers elsewhere, signed in the manner of Standard Webhooks (standardwebhooks.com, version 1).
//!
//! | file          | what it is |
//! |---------------|------------|
//! | `address.rs`  | which addresses a receiver may have |
//! | `send.rs`     | one try of one delivery, and its signature |
//! | `duty.rs`     | the duty that sends what is due |
//!
//! Invariants: a delivery is stored in the transaction of the change that it tells of, so that none is lost and none is of a change that
//! never was. It is sent at least once, each time with the same `webhook-id`: a control plane that dies between the answer and its note
//! sends it again. Each receiver has connections of its own, so that a slow one holds up none but itself. Nothing follows a redirect.
//!
//! On failure: a try that is not answered with 2xx in time is made again, with growing pauses, for about a day; then the delivery is
//! `dead` with its reason, and can be sent anew. As much waits for one receiver as [`duty::WAITING_MAX`]; what happens while so much waits
//! is counted as missed.

pub(crate) mod address;
mod duty;
mod send;

pub(crate) use duty::{WEBHOOKS_MAX, run};
pub(crate) use send::SECRET_MARK;
