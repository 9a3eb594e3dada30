//! `[limits.<class>]`, `[streams.<class>]` and `[redis]`. The rules for classes are those of `segue_signing::limits`.

use std::path::PathBuf;
use std::time::Duration;

use segue_config::{Secret, Section, Span};
use segue_signing::limits::{
    Kinds, LIMIT_NAME_RULE, LimitConfig, LimitProblem, LimitsConfig, MAX_LIMIT_CLASSES, ONE_BY_ITSELF, OnExcess,
    OnOutage, Per, StreamsConfig, is_limit_name,
};

use crate::limit::RedisConfig;

/// A call to Redis that may take longer is no bound.
const TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// Reads `[limits]` and `[streams]` of `root`; problems go to the document.
pub(super) fn read(root: &Section<'_>) -> LimitsConfig {
    let mut config = LimitsConfig::default();
    let limits = root.section("limits").free_form();
    for name in names(&limits) {
        config.classes.insert(name.clone(), read_limit(&limits.section(&name)));
    }
    let streams = root.section("streams").free_form();
    for name in names(&streams) {
        config.streams.insert(name.clone(), read_streams(&streams.section(&name)));
    }
    if let Some(second) = config.streams_by_themselves().nth(1) {
        streams.problem(second, ONE_BY_ITSELF);
    }
    config
}

fn names(section: &Section<'_>) -> Vec<String> {
    let names = section.names();
    if names.len() > MAX_LIMIT_CLASSES {
        section.problem("", format!("{} classes; use {MAX_LIMIT_CLASSES} at most", names.len()));
    }
    for name in names.iter().filter(|name| !is_limit_name(name)) {
        section.problem(name, LIMIT_NAME_RULE);
    }
    names
}

impl RedisConfig {
    /// Reads `[redis]` of `root`, if it is there; problems go to the document.
    pub fn read(root: &Section<'_>) -> Option<Self> {
        let section = root.section("redis");
        if !section.has("url") && !root.has("redis") {
            return None;
        }
        let url: Secret = section.require("url")?;
        if !["redis://", "rediss://"].iter().any(|scheme| url.expose().starts_with(scheme)) {
            section
                .problem("url", "not a Redis URL; write for example \"redis://127.0.0.1:6379\", or rediss:// for TLS");
        }
        let mut redis = Self::new(url);
        redis.cluster = section.or("cluster", redis.cluster);
        redis.timeout = timeout(&section, redis.timeout);
        redis.edges = section.or("edges", redis.edges);
        if let Some(path) = section.get::<PathBuf>("ca") {
            match std::fs::read(&path) {
                Ok(pem) => redis.ca = Some(pem),
                Err(error) => section.problem("ca", format!("{} cannot be read: {error}", path.display())),
            }
        }
        if let Some(prefix) = section.get::<String>("prefix") {
            if !is_limit_name(&prefix) {
                section.problem("prefix", "a word of at most 32 small letters, digits, `-` and `_`");
            }
            redis.prefix = prefix;
        }
        Some(redis)
    }
}

fn read_limit(section: &Section<'_>) -> LimitConfig {
    let rate: Option<f64> = section.require("rate");
    let burst = section.require("burst");
    let per = [("track", Per::Track), ("session", Per::Session), ("address", Per::Address)];
    let per = word(section, "per", &per);
    if !section.has("per") {
        section.problem("per", "missing; it must be \"track\", \"session\" or \"address\"");
    }
    let mut limit = LimitConfig::new(rate.unwrap_or(1.0), burst.unwrap_or(1), per.unwrap_or(Per::Track));
    if let Some(words) = section.get::<Vec<String>>("apply") {
        match Kinds::parse(&words) {
            Ok(kinds) => limit.apply = kinds,
            Err(problem) => section.problem("apply", problem),
        }
    }
    limit.shadow = section.or("shadow", limit.shadow);
    limit.on_outage = on_outage(section).unwrap_or(limit.on_outage);
    limit.max_wait = section.or("max_wait", Span(limit.max_wait)).0;
    limit.lease = section.or("lease", Span(limit.lease)).0;
    limit.keys = section.or("keys", limit.keys);
    tell(section, limit.problems());
    limit
}

fn read_streams(section: &Section<'_>) -> StreamsConfig {
    let max: Option<u32> = section.require("max");
    let excess = [("stop-oldest", OnExcess::StopOldest), ("refuse-newest", OnExcess::RefuseNewest)];
    let on_excess = word(section, "on_excess", &excess).unwrap_or_default();
    let mut streams = StreamsConfig::new(max.unwrap_or(1), on_excess);
    streams.grace = section.or("grace", Span(streams.grace)).0;
    streams.apply = section.or("apply", streams.apply);
    streams.shadow = section.or("shadow", streams.shadow);
    streams.on_outage = on_outage(section).unwrap_or(streams.on_outage);
    streams.max_wait = section.or("max_wait", Span(streams.max_wait)).0;
    streams.keys = section.or("keys", streams.keys);
    tell(section, streams.problems());
    streams
}

fn tell(section: &Section<'_>, problems: Vec<LimitProblem>) {
    for LimitProblem { key, problem } in problems {
        section.problem(key, problem);
    }
}

fn on_outage(section: &Section<'_>) -> Option<OnOutage> {
    let outage = [("local", OnOutage::Local), ("open", OnOutage::Open), ("closed", OnOutage::Closed)];
    word(section, "on_outage", &outage)
}

fn timeout(section: &Section<'_>, default: Duration) -> Duration {
    let timeout = section.or("timeout", Span(default)).0;
    if timeout.is_zero() || timeout > TIMEOUT_MAX {
        section.problem("timeout", format!("{timeout:?} is outside of 1ms to {TIMEOUT_MAX:?}"));
    }
    timeout
}

/// One of a few words.
fn word<T: Copy>(section: &Section<'_>, key: &str, words: &[(&str, T)]) -> Option<T> {
    let shown: String = section.get(key)?;
    let found = words.iter().find(|(word, _)| *word == shown).map(|(_, value)| *value);
    if found.is_none() {
        let names: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        section.problem(key, format!("{shown:?} is not one of {}", names.join(", ")));
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use segue_config::Document;

    use super::*;

    fn read(text: &str) -> (LimitsConfig, String) {
        let none = |_: &str| None;
        let document = Document::parse(text, "edge.toml", &none).unwrap();
        let config = super::read(&document.root());
        (config, document.finish().err().map(|problems| problems.to_string()).unwrap_or_default())
    }

    #[test]
    fn classes_are_read_whole() {
        let (config, problems) = read(
            "[limits.tracks]\nrate = 10\nburst = 60\nper = \"track\"\n[limits.premium]\nrate = 0.5\nburst = 9\nper = \"session\"\napply = []\nshadow = true\non_outage = \"closed\"\nmax_wait = \"9ms\"\nlease = \"1s\"\nkeys = 2048\n[streams.home]\nmax = 2\ngrace = \"20s\"\non_excess = \"refuse-newest\"\n",
        );
        assert_eq!(problems, "");
        let tracks = config.classes.get("tracks").unwrap();
        assert_eq!(*tracks, LimitConfig::new(10.0, 60, Per::Track));
        let premium = config.classes.get("premium").unwrap();
        assert!(premium.shadow && premium.apply.is_empty() && premium.keys == 2048);
        assert_eq!((premium.rate, premium.on_outage), (0.5, OnOutage::Closed));
        let home = config.streams.get("home").unwrap();
        assert_eq!((home.max, home.on_excess, home.apply), (2, OnExcess::RefuseNewest, true));
    }

    #[test]
    fn every_mistake_is_named() {
        let (_, problems) = read(
            "[limits.Tracks]\nrate = 0\nburst = 0\n[limits.a]\nrate = 0.0001\nburst = 1000\nper = \"path\"\napply = [\"media\"]\nmax_wait = \"2s\"\nrates = 1\n[streams.a]\nmax = 0\non_excess = \"x\"\n[streams.b]\nmax = 1\n",
        );
        for part in [
            "limits.Tracks: a class's name is a word",
            "limits.Tracks.rate: 0 tokens a second; use",
            "limits.Tracks.burst: a bucket that holds nothing",
            "limits.Tracks.per: missing; it must be",
            "limits.a.burst: it would take more than 7 days",
            "limits.a.per: \"path\" is not one of \"track\", \"session\", \"address\"",
            "limits.a.apply: \"media\" is no kind of object",
            "limits.a.max_wait: 2s is outside",
            "limits.a.rates: unknown key; did you mean `rate`?",
            "streams.a.max: 0 sessions",
            "streams.a.on_excess: \"x\" is not one of",
            "streams.b: only one class of streams may apply",
        ] {
            assert!(problems.contains(part), "{part:?} is not in\n{problems}");
        }
    }
}
