//! Limit classes: what is configured under a name, and the form in which requests meet it.
//!
//! Invariants: a class's keys outlive a change of its rate, since the tables are handed on by name; where a change of
//! what its keys are (`per`) makes the old ones meaningless, they are dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use segue_signing::limits::{LimitConfig, LimitsConfig, Per};

use super::backend::Keys;
use super::gcra::Gcra;
use super::lease::Plan;
use super::streams::Streams;
use crate::metrics::Counter;

/// A limit class as requests meet it.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) name: Arc<str>,
    pub(crate) config: LimitConfig,
    pub(crate) gcra: Gcra,
    /// How it draws tokens from Redis.
    pub(crate) plan: Plan,
    pub(crate) keys: Arc<Keys>,
    pub(crate) counts: Arc<Counts>,
}

/// What a class decided.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) admitted: Counter,
    /// Refusals, those of a shadow class included.
    pub(crate) refused: Counter,
    /// Requests that waited for Redis in vain.
    pub(crate) late: Counter,
}

/// All classes, immutable; a change is a new value.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    config: LimitsConfig,
    named: BTreeMap<String, Arc<Class>>,
    address: Vec<Arc<Class>>,
    /// Session classes, then track classes: the narrower limit refuses first and spends nothing of the wider one.
    listener: Vec<Arc<Class>>,
    streams: BTreeMap<String, Arc<Streams>>,
}

impl Classes {
    /// Builds the classes; those of `before` hand their keys on.
    pub(crate) fn new(config: &LimitsConfig, before: &Self, leased: bool) -> Self {
        let mut classes = Self { config: config.clone(), ..Self::default() };
        for (name, limit) in &config.classes {
            let kept =
                before.named.get(name).filter(|old| old.config.per == limit.per && old.config.keys == limit.keys);
            let class = Arc::new(Class {
                name: name.as_str().into(),
                config: limit.clone(),
                gcra: Gcra::new(limit.rate, f64::from(limit.burst)),
                plan: Plan::new(limit),
                keys: kept.map_or_else(|| Arc::new(Keys::new(limit.keys, leased)), |old| Arc::clone(&old.keys)),
                counts: before.named.get(name).map(|old| Arc::clone(&old.counts)).unwrap_or_default(),
            });
            classes.named.insert(name.clone(), Arc::clone(&class));
            if limit.apply.is_empty() {
                continue;
            }
            match limit.per {
                Per::Address => classes.address.push(class),
                Per::Session => classes.listener.insert(0, class),
                Per::Track => classes.listener.push(class),
            }
        }
        for (name, config) in &config.streams {
            let before = before.streams.get(name);
            classes.streams.insert(name.clone(), Arc::new(Streams::new(name, config, before)));
        }
        classes
    }

    /// What they were built from.
    pub(crate) fn config(&self) -> &LimitsConfig {
        &self.config
    }

    /// Whether nothing is limited.
    pub(crate) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.streams.is_empty()
    }

    /// The address classes that apply by themselves.
    pub(crate) fn address(&self) -> &[Arc<Class>] {
        &self.address
    }

    /// The session and track classes that apply by themselves.
    pub(crate) fn listener(&self) -> &[Arc<Class>] {
        &self.listener
    }

    /// The class of a name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Class>> {
        self.named.get(name)
    }

    /// All limit classes.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Class>> {
        self.named.values()
    }

    /// The streams class for a ticket that names `lim`: that of the name, or else the one that applies by itself.
    pub(crate) fn streams(&self, lim: Option<&str>) -> Option<&Arc<Streams>> {
        let by_itself = || self.streams.values().find(|streams| streams.config.apply);
        lim.and_then(|name| self.streams.get(name)).or_else(by_itself)
    }

    /// The streams class of a name.
    pub(crate) fn streams_named(&self, name: &str) -> Option<&Arc<Streams>> {
        self.streams.get(name)
    }

    /// All streams classes.
    pub(crate) fn all_streams(&self) -> impl Iterator<Item = &Arc<Streams>> {
        self.streams.values()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_new_rate_keeps_the_keys_and_another_sort_of_key_drops_them() {
        let config = |per| {
            let limit = LimitConfig::new(1.0, 1, per);
            LimitsConfig { classes: BTreeMap::from([("a".to_owned(), limit)]), ..LimitsConfig::default() }
        };
        let first = Classes::new(&config(Per::Track), &Classes::default(), false);
        let same = Classes::new(&config(Per::Track), &first, false);
        let other = Classes::new(&config(Per::Session), &same, false);
        let keys = |classes: &Classes| Arc::clone(&classes.named("a").unwrap().keys);
        assert!(Arc::ptr_eq(&keys(&first), &keys(&same)));
        assert!(!Arc::ptr_eq(&keys(&same), &keys(&other)));
    }
}
