//! The whole of Segue, tried from the outside: the real command, real songs, real players, real crashes.

mod analytics;
mod audit;
mod bad_input;
mod browser;
mod canary;
mod column;
mod crashes;
mod demo;
mod deploy;
mod doctor;
mod encryption;
mod facts;
mod hostile;
mod operate;
mod playlists;
mod plays;
mod policies;
mod queue;
mod roles;
mod rollout;
mod schemathesis;
mod soak;
mod songs;
mod swaps;
mod tickets;
mod tokens;
mod uploads;
mod webhooks;

use segue_testkit::Segue;

/// The command under test.
const SEGUE: &str = env!("CARGO_BIN_EXE_segue");

/// A fresh demo.
async fn start() -> anyhow::Result<Segue> {
    Segue::start(SEGUE).await
}
