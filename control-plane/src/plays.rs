//! What a play is, and what is added up: the rules, without a database or a clock.

pub(crate) mod cover;
pub(crate) mod rule;
pub(crate) mod sums;
