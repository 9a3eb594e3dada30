//! The host of policies: WebAssembly programs that judge requests (world `access`) or know somebody else's tickets
//! (world `ticket-scheme`). The contract is `policies/wit/segue-policy.wit`.
//!
//! # How an edge uses it
//!
//! Once, at the start: a [`PolicyHost`]. For each version that comes: [`PolicyHost::compile`] off the threads that answer
//! requests, then [`AccessPolicy::new`] with the operator's configuration. Then a [`Chain`] is built and published with the
//! snapshot. In the step after the ticket, with the snapshot that the request started with:
//!
//! ```
//! use segue_policy_host::{Chain, Kind, RequestView, Verdict};
//!
//! # struct Snapshot { policies: Chain }
//! # fn step(snapshot: &Snapshot, path: &str, session: &str, now_ms: u64) -> Result<(), (u16, String)> {
//! if snapshot.policies.is_empty() {
//!     return Ok(());
//! }
//! // A dozen references; headers and claims stand behind two traits and are read when a rule asks.
//! let view = RequestView { kind: Kind::Segment, session, now_ms, edge: "fra-1", ..RequestView::of(path) };
//! let decision = snapshot.policies.authorize(&view);
//! match decision.verdict {
//!     Verdict::Deny(denial) => Err((denial.status, denial.reason)),
//!     // An allowance names limit classes, a streams class and tags: kept in the exchange for the steps that follow.
//!     Verdict::Allow(_) | Verdict::Abstain => Ok(()),
//! }
//! # }
//! # assert!(step(&Snapshot { policies: Chain::default() }, "/hls/t/master.m3u8", "s", 0).is_ok());
//! ```
//!
//! # Invariants
//! - A policy has no power but the contract's functions. Whatever it does ends within its bounds ([`Bounds`]), in a
//!   verdict or in a [`Failure`] with a name; the edge serves on.
//! - What decides about a request runs on its thread, and waits for nothing else.
//! - No compiled code is read from anywhere but this host's own cache folder.

mod access;
mod bare;
mod bounds;
mod breaker;
mod chain;
mod check;
mod contract;
mod crypto;
mod direct;
mod engine;
mod failure;
mod folder;
mod lent;
mod policy;
mod request;
mod scheme;
mod services;
mod state;
pub mod vectors;
mod verdict;

pub use access::{AccessPolicy, FailMode};
pub use bounds::{Bounds, HostConfig};
pub use chain::{Attached, Chain, Decision, Role, Shadowed, Trial, Witness};
pub use check::{Checked, World};
pub use engine::{HostError, PolicyHost};
pub use failure::{Failure, Refused};
pub use folder::{Folder, Loaded, Problem};
pub use policy::{Counters, Policy};
pub use request::{Claims, Headers, Kind, RequestView};
pub use scheme::{ForeignClaims, ForeignRefusal, Grant, TicketScheme};
pub use services::{Key, KeyError, Services};
pub use verdict::{Allowance, Denial, Limit, Verdict};
