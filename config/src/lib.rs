//! Typed configuration for every role: TOML, with `SEGUE_…` variables over it.
//!
//! Purpose: a person who starts an edge with three mistakes in its file reads about all three at once, each
//! with its place and the remedy, before anything binds.
//!
//! Invariants: a key that nobody asked for is a problem, never ignored; a secret never appears in a problem or in
//! `Debug`; a value from the environment wins over the file.
//!
//! On failure: readers return `None` (or the default) and record a [`Problem`]; [`Document::finish`] turns the record
//! into one error. A reader must not act on what it read before `finish` said yes.

mod finding;
mod moment;
mod problem;
mod section;
mod value;

pub use finding::{Finding, Health};
pub use moment::Moment;
pub use problem::{Problem, Problems};
pub use section::{Document, Section};
pub use value::{Secret, Size, Span, Value};
