//! `[database]`: a file of SQLite's, or a server.

use std::path::PathBuf;

use segue_config::{Secret, Section};
use url::Url;

use super::DatabaseConfig;

/// Connections to a server where the file says nothing: a few control planes stay well below what MariaDB allows (151).
const CONNECTIONS: u32 = 16;

/// The most that may be asked for.
const CONNECTIONS_MAX: u32 = 512;

impl DatabaseConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let file = || Self::Sqlite(PathBuf::from("segue.db"));
        // A secret, since it may be `env:DATABASE_URL` with a password in it.
        let url: Option<Secret> = section.get("url");
        let password: Option<Secret> = section.get("password");
        let connections = section.or("connections", CONNECTIONS);
        if !(2..=CONNECTIONS_MAX).contains(&connections) {
            section.problem("connections", format!("must be between 2 and {CONNECTIONS_MAX}"));
        }
        let Some(url) = url else { return file() };
        let text = url.expose();
        if !text.starts_with("mysql:") && !text.starts_with("mariadb:") {
            if password.is_some() {
                section.problem("password", "a file has none; it belongs to a mysql:// url");
            }
            return match text.split_once("://") {
                Some(("sqlite", path)) => Self::Sqlite(PathBuf::from(path)),
                Some((other, _)) => {
                    section.problem("url", format!("{other:?} is no database that Segue knows; sqlite and mysql are"));
                    file()
                }
                // `sqlite:x.db` and a plain path.
                None => Self::Sqlite(PathBuf::from(text.strip_prefix("sqlite:").unwrap_or(text))),
            };
        }
        match server(text, password) {
            Ok((url, password)) => Self::Mysql { url, password, connections },
            Err(problem) => {
                section.problem("url", problem);
                file()
            }
        }
    }
}

/// The address without its password, and the password, which may come from either place.
fn server(text: &str, password: Option<Secret>) -> Result<(Url, Option<Secret>), String> {
    let mut url = Url::parse(&text.replacen("mariadb:", "mysql:", 1)).map_err(|error| format!("not a URL: {error}"))?;
    if url.host_str().is_none_or(str::is_empty) || url.username().is_empty() || url.path().len() < 2 {
        return Err("must be of the form mysql://user@host/database".to_owned());
    }
    let inside = url.password().map(|text| {
        let bytes = percent_encoding::percent_decode_str(text);
        Secret::literal(bytes.decode_utf8_lossy())
    });
    if inside.is_some() && password.is_some() {
        return Err("has a password, and `password` is set too; leave one out".to_owned());
    }
    // Refused for addresses without a host alone.
    let _ = url.set_password(None);
    Ok((url, password.or(inside)))
}
