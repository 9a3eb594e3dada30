//! A whole Segue on port 0 in a few lines of test.
//!
//! ```no_run
//! # async fn test() -> anyhow::Result<()> {
//! let segue = segue_testkit::Segue::start("target/release/segue").await?;
//! let track = segue.add(&segue_testkit::songs::tone(12.0, "song.wav")?).await?;
//! let record = segue_testkit::Player::new(&segue.ticket(&track.id, "listener-1").await?)?.play_whole().await?;
//! assert_eq!(segue.stats(&track.id).await?.qualified, 1);
//! # Ok(()) }
//! ```
//!
//! The system under test is the real command in a process of its own, so that a test can end it with `kill -9` and start it
//! again on what it left. Every wait has a bound; on a failure the process's log is in [`Segue::log`].

pub mod edge;
pub mod facts;
pub mod form;
pub mod hostile;
pub mod player;
mod process;
pub mod python;
pub mod segue;
pub mod soak;
pub mod songs;
pub mod swaps;

use std::time::{SystemTime, UNIX_EPOCH};

pub use edge::SecondEdge;
pub use player::{Player, Record};
pub use python::python;
pub use segue::{Segue, Stats, Track};

/// What all choices of a run follow from: what was given, or the clock.
#[must_use]
pub fn seed(given: Option<u64>) -> u64 {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    given.unwrap_or_else(clock)
}
