//! `[prefetch]`: what is fetched before it is asked for.

use segue_config::Section;

/// More would fetch a minute ahead of a listener who may stop at any moment.
const SEGMENTS_MAX: usize = 16;
/// More than any origin's default of turns; each holds one.
const CONCURRENCY_MAX: usize = 256;

/// What is fetched before it is asked for.
#[derive(Debug, Clone)]
pub struct PrefetchConfig {
    /// How many segments behind the one that a listener got (`segments`); 0 fetches nothing ahead.
    pub segments: usize,
    /// How many such fetches run at once (`concurrency`); what finds no room is dropped.
    pub concurrency: usize,
}

impl Default for PrefetchConfig {
    fn default() -> Self {
        // Two segments of 6 s hide the slowest origin's answer; eight fetches are a small part of an origin's turns.
        Self { segments: 2, concurrency: 8 }
    }
}

impl PrefetchConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let config = Self {
            segments: section.or("segments", default.segments),
            concurrency: section.or("concurrency", default.concurrency),
        };
        if config.segments > SEGMENTS_MAX {
            section.problem("segments", format!("{} is too far ahead; use 0 to {SEGMENTS_MAX}", config.segments));
        }
        if !(1..=CONCURRENCY_MAX).contains(&config.concurrency) {
            let message = format!("use 1 to {CONCURRENCY_MAX}; to fetch nothing ahead, set `segments` to 0");
            section.problem("concurrency", message);
        }
        config
    }
}
