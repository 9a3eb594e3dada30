//! Configurations as operators write them, right and wrong.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::*;

const WHOLE: &str = r#"
    listen = "0.0.0.0:8090"
    [database]
    url = "sqlite:///var/lib/segue/control.db"
    [objects]
    endpoint = "http://127.0.0.1:9000"
    public_endpoint = "https://media.example"
    access_key = "AK"
    secret_key = "SK"
    create_bucket = true
    [edge]
    base_url = "https://edge.example/"
    [keys]
    k1 = "hex:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    [tokens]
    admin = "0123456789abcdef-admin"
    worker = "0123456789abcdef-worker"
    [uploads]
    max_size = "100MiB"
    ttl = "1h"
    [tickets]
    ttl = "10m"
    [jobs]
    lease = "20s"
"#;

/// What was read, and every problem.
fn read(text: &str) -> (ControlConfig, Vec<String>) {
    let env = |_: &str| None;
    let doc = Document::parse(text, "control.toml", &env).unwrap();
    let config = ControlConfig::read(&doc);
    let problems = doc
        .finish()
        .err()
        .map(|problems| problems.0.into_iter().map(|p| format!("{}: {}", p.key, p.message)).collect());
    (config, problems.unwrap_or_default())
}

#[test]
fn a_whole_configuration_is_read() {
    let (config, problems) = read(WHOLE);
    assert_eq!(problems, Vec::<String>::new());
    assert!(matches!(config.database, DatabaseConfig::Sqlite(path) if path == Path::new("/var/lib/segue/control.db")));
    assert_eq!(config.edge_base_url, "https://edge.example");
    assert_eq!(config.objects.public_endpoint.as_deref(), Some("https://media.example"));
    assert_eq!((config.uploads.max_size, config.uploads.ttl), (100 << 20, Duration::from_secs(3600)));
    assert_eq!((config.tickets.ttl, config.jobs.lease), (Duration::from_secs(600), Duration::from_secs(20)));
    assert_eq!((config.keys.len(), config.objects.bucket.as_str()), (1, "media"));
}

#[test]
fn an_empty_one_names_everything_that_is_missing_at_once() {
    let (_, problems) = read("");
    for key in ["objects.endpoint", "objects.access_key", "objects.secret_key", "edge.base_url", "keys", "tokens.admin"]
    {
        assert!(problems.iter().any(|problem| problem.starts_with(&format!("{key}:"))), "{key} in {problems:?}");
    }
}

#[test]
fn each_wrong_value_is_named() {
    for (right, wrong, key) in [
        ("http://127.0.0.1:9000", "127.0.0.1:9000", "objects.endpoint"),
        ("https://media.example", "ftp://media.example", "objects.public_endpoint"),
        ("https://edge.example/", "edge", "edge.base_url"),
        ("hex:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "short", "keys.k1"),
        ("0123456789abcdef-admin", "short", "tokens.admin"),
        ("100MiB", "6000GiB", "uploads.max_size"),
        ("\"10m\"", "\"0s\"", "tickets.ttl"),
        ("\"20s\"", "\"1ms\"", "jobs.lease"),
        ("lease =", "leese =", "jobs.leese"),
    ] {
        let text = WHOLE.replace(right, wrong);
        assert_ne!(text, WHOLE, "{right}");
        let (_, problems) = read(&text);
        assert!(problems.iter().any(|problem| problem.starts_with(&format!("{key}:"))), "{wrong}: {problems:?}");
    }
}

#[test]
fn secrets_are_not_in_debug_output() {
    let (config, _) = read(WHOLE);
    let text = format!("{config:?}");
    for secret in ["SK\"", "0123456789abcdef-admin", "000102030405"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[test]
fn a_database_is_a_file_or_a_server() {
    let with = |lines: &str| read(&WHOLE.replace("url = \"sqlite:///var/lib/segue/control.db\"", lines));
    for file in ["sqlite:x.db", "sqlite://x.db", "x.db"] {
        let (config, problems) = with(&format!("url = \"{file}\""));
        assert_eq!(problems, Vec::<String>::new());
        assert!(matches!(config.database, DatabaseConfig::Sqlite(path) if path == Path::new("x.db")), "{file}");
    }
    for lines in [
        "url = \"mysql://segue@db.example:3307/segue?ssl-mode=REQUIRED\"\npassword = \"a/b\"\nconnections = 4",
        "url = \"mariadb://segue:a%2Fb@db.example:3307/segue?ssl-mode=REQUIRED\"\nconnections = 4",
    ] {
        let (config, problems) = with(lines);
        assert_eq!(problems, Vec::<String>::new());
        assert!(!format!("{config:?}").contains("a/b") && !format!("{config:?}").contains("a%2Fb"));
        let DatabaseConfig::Mysql { url, password, connections } = config.database else { panic!("{lines}") };
        assert_eq!(url.as_str(), "mysql://segue@db.example:3307/segue?ssl-mode=REQUIRED");
        assert_eq!((password.unwrap().expose(), connections), ("a/b", 4));
    }
    for (lines, problem) in [
        ("url = \"postgres://db/segue\"", "no database that Segue knows"),
        ("url = \"mysql://db.example/segue\"", "must be of the form mysql://user@host/database"),
        ("url = \"mysql://segue@db.example\"", "must be of the form mysql://user@host/database"),
        ("url = \"mysql://segue:x@db.example/segue\"\npassword = \"y\"", "leave one out"),
        ("url = \"x.db\"\npassword = \"y\"", "a file has none"),
        ("url = \"x.db\"\nconnections = 1", "must be between 2 and 512"),
    ] {
        let (_, problems) = with(lines);
        assert!(problems.iter().any(|told| told.contains(problem)), "{lines}: {problems:?}");
    }
}

#[test]
fn what_is_kept_is_bounded_and_lies_beside_the_database() {
    let (config, problems) = read(&format!("{WHOLE}\n[facts]\nkeep = \"1GiB\"\nkeep_denials = \"0\"\ndays = 7"));
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!((config.facts.keep, config.facts.keep_denials, config.facts.days), (1 << 30, 0, 7));
    assert_eq!(config.facts.folder(&config.database), Path::new("/var/lib/segue/control.db-facts"));
    let (_, problems) = read(&format!("{WHOLE}\n[facts]\nkeep = 5\ndays = 0\ncolour = \"red\""));
    let of = |key: &str| problems.iter().any(|problem| problem.starts_with(key));
    assert!(problems.len() == 3 && of("facts.keep:") && of("facts.days:") && of("facts.colour:"), "{problems:?}");
}
