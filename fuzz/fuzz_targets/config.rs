//! An edge's configuration: whatever is accepted keeps the bounds that the rest of the edge relies on, and secrets stay
//! secret.
//!
//! Input: a TOML text; behind a line `---` the environment as `NAME=value` lines.

#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use segue_config::Document;
use segue_proxy::EdgeConfig;

/// A value that must show nowhere once it stands as a secret.
const SECRET: &str = "hunter2hunter2hunter2hunter2hunter2";

fuzz_target!(|data: &[u8]| {
    let Ok(input) = std::str::from_utf8(data) else { return };
    // What stands in files and in this process's own environment is no part of the input.
    if input.contains("file:")
        || input.contains("env:")
        || input.contains("no_such_key")
        || input.starts_with('\u{feff}')
    {
        return;
    }
    let (text, variables) = input.split_once("\n---\n").unwrap_or((input, ""));
    let variables: HashMap<_, _> = variables.lines().filter_map(|line| line.split_once('=')).collect();
    let env = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    let Some((config, problems)) = read(text, &env) else { return };
    let shown = format!("{config:?}");
    let again = read(text, &env).expect("a text that parses once parses twice");
    assert_eq!((format!("{:?}", again.0), &again.1), (shown.clone(), &problems), "read twice, it says two things");
    if problems.is_empty() {
        keeps_its_bounds(&config);
    }
    // What reads an address leaves these out, and so puts together what stood apart.
    let joined: String = input.chars().filter(|char| !matches!(char, '\t' | '\r' | '\n')).collect();
    if joined.matches(SECRET).count() == secrets(text) {
        assert!(!shown.contains(SECRET) && !problems.contains(SECRET), "a secret shows:\n{shown}\n{problems}");
    }
    let (_, refused) = read(&format!("no_such_key = 1\n{text}"), &env).unwrap_or_else(|| panic!("no longer parses"));
    assert!(refused.contains("no_such_key: unknown key"), "an unknown key is let through");
});

/// The configuration, and all problems as one text; nothing where it is not TOML.
fn read(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Option<(EdgeConfig, String)> {
    let document = Document::parse(text, "edge.toml", env).ok()?;
    let config = EdgeConfig::read(&document);
    Some((config, document.finish().err().map(|problems| problems.to_string()).unwrap_or_default()))
}

fn keeps_its_bounds(config: &EdgeConfig) {
    let cache = &config.cache;
    assert!(cache.max_object <= cache.memory, "an object that fits into no memory");
    assert!(cache.max_object <= cache.in_flight, "an object that could never be fetched");
    assert!(config.connections.max > 0, "an edge that takes no connection");
    assert!(!config.name.is_empty() && config.name.is_ascii());
    assert!(!config.routes.is_empty(), "an edge without routes");
    for route in &config.routes {
        assert!(config.origins.contains_key(&route.origin), "a route to an origin that there is not");
        assert!(route.path.starts_with('/') && route.path.ends_with('/') && route.path.contains("/{track}/"));
    }
    for origin in config.origins.values() {
        assert!(origin.concurrency > 0 && origin.attempts > 0, "an origin that is never asked");
        let patience = [origin.connect_timeout, origin.read_timeout, origin.total_timeout, origin.queue_timeout];
        assert!(patience.iter().all(|timeout| !timeout.is_zero()), "an origin that is given no time");
        assert!(!origin.endpoint.host.is_empty());
    }
}

/// How often the secret stands where secrets do.
fn secrets(text: &str) -> usize {
    let Ok(table) = text.parse::<toml::Table>() else { return usize::MAX };
    let is_it = |value: Option<&toml::Value>| usize::from(value.and_then(toml::Value::as_str) == Some(SECRET));
    let keys = table.get("keys").and_then(toml::Value::as_table);
    let origin = table.get("origin").and_then(toml::Value::as_table);
    let admin = table.get("admin").and_then(toml::Value::as_table);
    keys.map_or(0, |keys| keys.values().map(|value| is_it(Some(value))).sum())
        + origin.map_or(0, |origin| is_it(origin.get("access_key")) + is_it(origin.get("secret_key")))
        + admin.map_or(0, |admin| is_it(admin.get("token")))
}
