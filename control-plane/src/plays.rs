//! What a play is: the rule, without a database or a clock.

pub(crate) mod cover;
pub(crate) mod rule;
