//! Who changed what: a record of every request of a route that changes something.
//!
//! | file           | what it is |
//! |----------------|------------|
//! | `layer.rs`     | what stands around each route: stores a change before it begins, and what came of it before it is answered |
//! | `noted.rs`     | what is learnt of a request on its way in, and what of it goes into a record |
//! | `beside.rs`    | tickets and refusals, which are written beside the requests |
//! | `retention.rs` | the duty that lets old records go |
//!
//! Invariants: a route is recorded because it stands in the table of `routes.rs` and is no `GET`; what a record tells of a change are
//! the fields that its line of the table names, cut to a bound, so that nothing is told by default. A change that cannot be recorded is
//! not begun. A record without an end is of a control plane that died while it made the change.
//!
//! Tickets change nothing, and are issued for each start of a player: they are written within a second, many at a time, and a control
//! plane that dies takes the last ones with it. Refusals of one kind, address and minute are one record: nobody fills the disk with them.

mod beside;
mod layer;
mod noted;
mod retention;

use http::Method;

pub(crate) use beside::{Audit, write_down};
pub(crate) use layer::{Changed, change, refusals};
pub(crate) use noted::Noted;
pub(crate) use retention::run as retention;

use crate::auth::Scope;

/// How a route is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// It reads.
    Not,
    /// It changes something: stored before and after.
    Changes,
    /// It issues tickets: written beside.
    Issues,
    /// What machines report all the time while they do what was recorded before: refusals alone.
    Reports,
}

/// What the table of routes says of a route to the audit.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) operation: &'static str,
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) scope: Option<Scope>,
    pub(crate) recorded: Recorded,
    /// Fields of the request's body, its query and the answer that a record tells.
    pub(crate) tells: &'static [&'static str],
    /// Where the answer has the id of what was made (a JSON pointer), and the collection that it is of.
    pub(crate) makes: Option<(&'static str, &'static str)>,
}
