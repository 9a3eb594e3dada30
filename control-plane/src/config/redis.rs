//! `[redis]`: where control planes give one another hints.

use std::path::PathBuf;

use segue_config::{Secret, Section};

/// The Redis over which several control planes tell one another that there is news.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://`, or `rediss://` for TLS, with user and password.
    pub url: Secret,
    /// PEM text of the authority that signed the server's certificate, in place of the system's.
    pub ca: Option<Vec<u8>>,
    /// What the channel's name begins with: control planes of one house share it, those of two houses must not.
    pub prefix: String,
}

impl RedisConfig {
    pub(super) fn read(root: &Section<'_>) -> Option<Self> {
        if !root.has("redis") {
            return None;
        }
        let section = root.section("redis");
        let url: Secret = section.require("url")?;
        if !["redis://", "rediss://", "redis+unix://"].iter().any(|scheme| url.expose().starts_with(scheme)) {
            section
                .problem("url", "not a Redis URL; write for example \"redis://127.0.0.1:6379\", or rediss:// for TLS");
        }
        let ca = section.get::<PathBuf>("ca").and_then(|path| {
            std::fs::read(&path)
                .map_err(|error| section.problem("ca", format!("{} cannot be read: {error}", path.display())))
                .ok()
        });
        Some(Self { url, ca, prefix: section.or("prefix", "segue".to_owned()) })
    }
}
