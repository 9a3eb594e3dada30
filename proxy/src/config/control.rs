//! The control plane that an edge follows, what it keeps of it on disk, and the key of the debug header.

use std::path::PathBuf;
use std::time::Duration;

use segue_config::{Secret, Section, Span};
use segue_signing::SigningSecret;
use url::Url;

/// Where the control plane is (`[control]`).
#[derive(Debug, Clone)]
pub struct ControlEndpoint {
    /// Its URL, without a trailing slash (`url`).
    pub url: String,
    /// A token with the scope `edge` (`token`).
    pub token: Secret,
}

/// The last good snapshot on disk, and how old one may be (`[snapshot]`).
#[derive(Debug, Clone)]
pub struct SnapshotConfig {
    /// The folder (`dir`); by default that of systemd's `StateDirectory=`. Nothing is kept where there is neither.
    pub dir: Option<PathBuf>,
    /// From this age on the metrics raise an alert (`max_age`). The age is the time since the control plane last said
    /// that the snapshot is the newest.
    pub max_age: Duration,
    /// From this age on requests are refused (`refuse_after`); never where it is not set.
    pub refuse_after: Option<Duration>,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self { dir: None, max_age: Duration::from_secs(300), refuse_after: None }
    }
}

impl ControlEndpoint {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let (url, token) = (section.get::<String>("url"), section.get::<Secret>("token"));
        match (url, token, section.has("url"), section.has("token")) {
            (Some(url), Some(token), _, _) => {
                if !Url::parse(&url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
                    section.problem("url", format!("{url:?} is not an http:// or https:// address"));
                }
                Some(Self { url: url.trim_end_matches('/').to_owned(), token })
            }
            (_, _, true, false) => {
                section.problem("token", "missing; a token with the scope `edge`, as \"env:NAME\" or \"file:PATH\"");
                None
            }
            (_, _, false, true) => {
                section.problem("url", "missing; write for example \"https://control.example\"");
                None
            }
            _ => None,
        }
    }
}

impl SnapshotConfig {
    pub(super) fn read(section: &Section<'_>, has_control: bool) -> Self {
        let default = Self::default();
        let read = Self {
            dir: section.get("dir"),
            max_age: section.or("max_age", Span(default.max_age)).0,
            refuse_after: section.get::<Span>("refuse_after").map(|span| span.0),
        };
        if !has_control && (read.dir.is_some() || read.refuse_after.is_some()) {
            section.problem("", "there is no [control] that a snapshot could come from");
        }
        // The control plane is heard of every 25 s at the least.
        let least = Duration::from_secs(60);
        for (name, value) in [("max_age", Some(read.max_age)), ("refuse_after", read.refuse_after)] {
            if value.is_some_and(|value| value < least) {
                section.problem(name, "must be at least \"60s\": a healthy edge's snapshot may be half as old");
            }
        }
        // systemd names several folders with colons between them; the first is ours.
        let by_systemd = || {
            let all = std::env::var("STATE_DIRECTORY").ok()?;
            all.split(':').next().filter(|first| !first.is_empty()).map(PathBuf::from)
        };
        Self { dir: read.dir.or_else(|| by_systemd().filter(|_| has_control)), ..read }
    }
}

/// `[debug] key`, of 32 bytes at least.
pub(super) fn read_debug_key(section: &Section<'_>) -> Option<SigningSecret> {
    let secret: Secret = section.get("key")?;
    SigningSecret::parse(secret.expose()).map_err(|error| section.problem("key", error.to_string())).ok()
}
