//! What a control plane is told before it starts: one typed struct per concern, checked whole before anything binds.

mod access;
mod audit;
mod database;
mod policies;
mod redis;
mod webhooks;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use segue_config::{Document, Secret, Section, Size, Span};
use segue_events::FluvioConfig;
use segue_signing::SigningSecret;
use url::Url;

pub use access::AccessConfig;
pub use audit::AuditConfig;
pub use policies::PoliciesConfig;
pub use redis::RedisConfig;
pub use webhooks::WebhooksConfig;

/// The largest object that one S3 PUT, or one part, can carry (S3 API reference, PutObject: 5 GiB).
pub(crate) const PUT_MAX: u64 = 5 << 30;

/// The smallest part that is not the last (S3 API reference, "Multipart upload limits": 5 MiB).
const PART_MIN: u64 = 5 << 20;

/// The largest object (the same: 5 TiB).
const OBJECT_MAX: u64 = 5 << 40;

/// Less room than this is a unit that was forgotten.
const KEEP_MIN: u64 = 1 << 20;

/// Everything that a control plane is told.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Where the API and the page listen; unused where a bound listener is handed over.
    pub listen: SocketAddr,
    /// Where tracks, jobs, keys and sums are kept.
    pub database: DatabaseConfig,
    /// Where control planes give one another hints; none: they look at the database more often.
    pub redis: Option<RedisConfig>,
    /// The bucket that holds uploads and tracks.
    pub objects: ObjectsConfig,
    /// The edge's public base URL, without a trailing slash: playback and artwork URLs start with it.
    pub edge_base_url: String,
    /// Signing keys: key id and secret, in the order of their names. All verify; the last one signs.
    pub keys: Vec<(String, Secret)>,
    /// Bootstrap tokens.
    pub tokens: TokensConfig,
    /// How much tokens and addresses may ask for.
    pub access: AccessConfig,
    /// How long it is known who changed what.
    pub audit: AuditConfig,
    /// Where events may be delivered to.
    pub webhooks: WebhooksConfig,
    /// What may be uploaded.
    pub uploads: UploadsConfig,
    /// How long tickets live.
    pub tickets: TicketsConfig,
    /// Leases and retries of transcode jobs.
    pub jobs: JobsConfig,
    /// Whose policies are taken, and what schemes sign with.
    pub policies: PoliciesConfig,
    /// How long requests and connections may take, and how many there may be.
    pub http: HttpConfig,
    /// What is kept of facts, denials and plays.
    pub facts: FactsConfig,
    /// The Fluvio that the tally reads (`[events] kind = "fluvio"`); edges post what they have where `None`.
    pub fluvio: Option<FluvioConfig>,
}

/// The database.
#[derive(Clone, Debug)]
pub enum DatabaseConfig {
    /// A file of SQLite's. Its folder is made when it is missing.
    Sqlite(PathBuf),
    /// MariaDB 10.6 or newer, or MySQL 8.
    Mysql {
        /// `mysql://user@host[:port]/database[?…]`, without the password.
        url: Url,
        /// The user's password.
        password: Option<Secret>,
        /// Connections of this control plane, half of them for reading.
        connections: u32,
    },
}

/// The S3 bucket.
#[derive(Clone, Debug)]
pub struct ObjectsConfig {
    /// Endpoint that the control plane itself speaks to.
    pub endpoint: String,
    /// Endpoint in presigned URLs, where clients reach the store under another name.
    pub public_endpoint: Option<String>,
    /// Region named in signatures.
    pub region: String,
    /// Bucket name.
    pub bucket: String,
    /// Access key id.
    pub access_key: Secret,
    /// Secret access key.
    pub secret_key: Secret,
    /// Make the bucket at start when it is missing.
    pub create_bucket: bool,
}

/// Tokens that exist from the first start; a changed secret replaces the old one.
#[derive(Clone, Debug)]
pub struct TokensConfig {
    /// Token with every scope.
    pub admin: Secret,
    /// Token of transcode workers.
    pub worker: Option<Secret>,
    /// Token of edges.
    pub edge: Option<Secret>,
}

/// Bounds on uploads.
#[derive(Clone, Copy, Debug)]
pub struct UploadsConfig {
    /// Largest upload, in bytes.
    pub max_size: u64,
    /// A file of more bytes travels in parts.
    pub multipart_above: u64,
    /// Bytes of a part; more where the file would have more than 10,000 of them.
    pub part_size: u64,
    /// Uploads that one publisher may have begun and not finished.
    pub unfinished: u32,
    /// How long a presigned upload URL is valid.
    pub url_ttl: Duration,
    /// An upload that was never completed fails after this long.
    pub ttl: Duration,
}

/// Bounds on tickets.
#[derive(Clone, Copy, Debug)]
pub struct TicketsConfig {
    /// Life of a ticket where the request names none.
    pub ttl: Duration,
    /// Longest life that a request may ask for.
    pub max_ttl: Duration,
}

/// Leases and retries.
#[derive(Clone, Copy, Debug)]
pub struct JobsConfig {
    /// A worker that says nothing for this long has lost its job.
    pub lease: Duration,
    /// Failed attempts of one job before it fails for good. Workers that stop or are lost use up none; the latter have
    /// a limit of their own, 20.
    pub max_attempts: u32,
    /// Wait before the second attempt; doubled for each one after.
    pub backoff: Duration,
    /// Longest such wait.
    pub backoff_max: Duration,
    /// How often expired leases, interrupted publications and abandoned uploads are looked for.
    pub sweep: Duration,
}

/// Bounds of the HTTP server.
#[derive(Clone, Copy, Debug)]
pub struct HttpConfig {
    /// Connections served at once; further ones wait in the kernel's backlog.
    pub connections: usize,
    /// A request that is no long poll and no event stream is answered within this.
    pub timeout: Duration,
    /// Largest request body, in bytes.
    pub body_max: usize,
    /// Event streams at once.
    pub streams: usize,
}

/// What is kept of what was counted, for exports and for counting again. Sums are kept for good.
#[derive(Clone, Debug)]
pub struct FactsConfig {
    /// The folder of facts and denials; where none is named, `<file>-facts` beside a SQLite file, else `segue-facts`.
    pub dir: Option<PathBuf>,
    /// Most bytes of facts, as they lie on the disk (some 50 a fact in a busy house); the oldest go first. 0: none are kept.
    pub keep: u64,
    /// Most bytes of denials, which anybody can cause.
    pub keep_denials: u64,
    /// Facts and denials go after so many days.
    pub days: u32,
    /// Plays go so many days after their end.
    pub plays_days: u32,
}

impl Default for FactsConfig {
    fn default() -> Self {
        Self { dir: None, keep: 4 << 30, keep_denials: 256 << 20, days: 31, plays_days: 400 }
    }
}

impl Default for UploadsConfig {
    fn default() -> Self {
        Self {
            max_size: 2 << 30,
            multipart_above: 64 << 20,
            part_size: 16 << 20,
            unfinished: 256,
            url_ttl: Duration::from_secs(3600),
            ttl: Duration::from_secs(24 * 3600),
        }
    }
}

impl Default for TicketsConfig {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(6 * 3600), max_ttl: Duration::from_secs(30 * 24 * 3600) }
    }
}

impl Default for JobsConfig {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            max_attempts: 3,
            backoff: Duration::from_secs(5),
            backoff_max: Duration::from_secs(300),
            sweep: Duration::from_secs(2),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { connections: 4096, timeout: Duration::from_secs(30), body_max: 1 << 20, streams: 512 }
    }
}

impl ControlConfig {
    /// Reads a whole configuration; every problem goes to the document, whose `finish` decides.
    pub fn read(doc: &Document<'_>) -> Self {
        let root = doc.root();
        let config = Self {
            listen: root.or("listen", SocketAddr::from(([127, 0, 0, 1], 8090))),
            database: DatabaseConfig::read(&root.section("database")),
            redis: RedisConfig::read(&root),
            objects: ObjectsConfig::read(&root.section("objects")),
            edge_base_url: base_url(&root.section("edge"), "base_url"),
            keys: keys(&root.section("keys").free_form()),
            tokens: TokensConfig::read(&root.section("tokens")),
            access: AccessConfig::read(&root.section("access")),
            audit: AuditConfig::read(&root.section("audit")),
            webhooks: WebhooksConfig::read(&root.section("webhooks")),
            uploads: UploadsConfig::read(&root.section("uploads")),
            tickets: TicketsConfig::read(&root.section("tickets")),
            jobs: JobsConfig::read(&root.section("jobs")),
            policies: PoliciesConfig::read(&root.section("policies")),
            http: HttpConfig::read(&root.section("http")),
            facts: FactsConfig::read(&root.section("facts")),
            fluvio: fluvio(&root.section("events")),
        };
        if config.keys.is_empty() {
            root.problem("keys", "no signing key; name at least one, as in: k1 = \"env:SEGUE_KEY_K1\"");
        }
        config
    }
}

/// Where facts come from, beside the edges that post theirs: those are taken either way.
fn fluvio(section: &Section<'_>) -> Option<FluvioConfig> {
    match section.or("kind", "control".to_owned()).as_str() {
        "fluvio" => Some(FluvioConfig::read(section)),
        "control" => None,
        other => {
            section.problem("kind", format!("{other:?} is neither \"fluvio\" nor \"control\", which edges post to"));
            None
        }
    }
}

fn base_url(section: &Section<'_>, key: &str) -> String {
    let Some(text) = section.require::<String>(key) else { return String::new() };
    http_url(section, key, &text);
    text.trim_end_matches('/').to_owned()
}

fn http_url(section: &Section<'_>, key: &str, text: &str) {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => {}
        Ok(_) => section.problem(key, "not an http:// or https:// address with a host"),
        Err(error) => section.problem(key, format!("not a URL: {error}")),
    }
}

fn keys(section: &Section<'_>) -> Vec<(String, Secret)> {
    let names = section.names();
    names
        .into_iter()
        .filter_map(|kid| {
            let secret: Secret = section.require(&kid)?;
            if let Err(error) = SigningSecret::parse(secret.expose()) {
                section.problem(&kid, error.to_string());
            }
            Some((kid, secret))
        })
        .collect()
}

fn at_least(section: &Section<'_>, key: &str, value: Duration, least: Duration) -> Duration {
    if value < least {
        section.problem(key, format!("must be at least {} ms", least.as_millis()));
    }
    value
}

fn positive(section: &Section<'_>, key: &str, value: usize) -> usize {
    if value == 0 {
        section.problem(key, "must be at least 1");
    }
    value
}

impl ObjectsConfig {
    fn read(section: &Section<'_>) -> Self {
        let secret = |key| section.require(key).unwrap_or_else(|| Secret::literal(""));
        let endpoint: String = section.require("endpoint").unwrap_or_default();
        if !endpoint.is_empty() {
            http_url(section, "endpoint", &endpoint);
        }
        let public_endpoint: Option<String> = section.get("public_endpoint");
        if let Some(public) = &public_endpoint {
            http_url(section, "public_endpoint", public);
        }
        Self {
            endpoint,
            public_endpoint,
            region: section.or("region", "us-east-1".to_owned()),
            bucket: section.or("bucket", "media".to_owned()),
            access_key: secret("access_key"),
            secret_key: secret("secret_key"),
            create_bucket: section.or("create_bucket", false),
        }
    }
}

impl TokensConfig {
    fn read(section: &Section<'_>) -> Self {
        let checked = |key: &str| {
            let secret: Option<Secret> = section.get(key);
            if secret.as_ref().is_some_and(|secret| secret.expose().len() < 16) {
                section.problem(key, "shorter than 16 bytes; make one with: openssl rand -hex 24");
            }
            secret
        };
        let admin = checked("admin");
        if admin.is_none() && !section.has("admin") {
            section.problem("admin", "missing; it must be set");
        }
        Self { admin: admin.unwrap_or_else(|| Secret::literal("")), worker: checked("worker"), edge: checked("edge") }
    }
}

impl UploadsConfig {
    fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let max_size = section.or("max_size", Size(default.max_size)).0;
        if max_size == 0 || max_size > OBJECT_MAX {
            section.problem("max_size", "must be between 1 byte and 5120GiB, the largest object of S3");
        }
        let multipart_above = section.or("multipart_above", Size(default.multipart_above)).0;
        if multipart_above > PUT_MAX {
            section.problem("multipart_above", "must be at most 5GiB, the most that one S3 PUT can carry");
        }
        let part_size = section.or("part_size", Size(default.part_size)).0;
        if !(PART_MIN..=PUT_MAX).contains(&part_size) {
            section.problem("part_size", "must be between 5MiB and 5GiB, as S3 has it");
        }
        let unfinished = section.or("unfinished", default.unfinished);
        if unfinished == 0 {
            section.problem("unfinished", "must be at least 1");
        }
        let url_ttl = section.or("url_ttl", Span(default.url_ttl)).0;
        if url_ttl.as_secs() == 0 || url_ttl > Duration::from_secs(7 * 24 * 3600) {
            section.problem("url_ttl", "must be between 1s and 168h, the longest that a presigned URL can live");
        }
        let ttl = section.or("ttl", Span(default.ttl)).0;
        Self { max_size, multipart_above, part_size, unfinished, url_ttl, ttl }
    }
}

impl TicketsConfig {
    fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let second = Duration::from_secs(1);
        let ttl = at_least(section, "ttl", section.or("ttl", Span(default.ttl)).0, second);
        let max_ttl = at_least(section, "max_ttl", section.or("max_ttl", Span(default.max_ttl)).0, ttl);
        Self { ttl, max_ttl }
    }
}

impl JobsConfig {
    fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let span = |key: &str, value: Duration, least: u64| {
            at_least(section, key, section.or(key, Span(value)).0, Duration::from_millis(least))
        };
        let max_attempts = section.or("max_attempts", default.max_attempts);
        if max_attempts == 0 {
            section.problem("max_attempts", "must be at least 1");
        }
        Self {
            lease: span("lease", default.lease, 1000),
            max_attempts,
            backoff: span("backoff", default.backoff, 0),
            backoff_max: span("backoff_max", default.backoff_max, 0),
            sweep: span("sweep", default.sweep, 10),
        }
    }
}

impl FactsConfig {
    fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let days = |key: &str, value: u32| {
            let days = section.or(key, value);
            if days == 0 {
                section.problem(key, "must be at least 1; with keep = 0 nothing is kept");
            }
            days
        };
        let bytes = |key: &str, value: u64| {
            let bytes = section.or(key, Size(value)).0;
            if bytes > 0 && bytes < KEEP_MIN {
                section.problem(key, "must be 0 (nothing is kept) or at least 1MiB");
            }
            bytes
        };
        Self {
            dir: section.get("dir"),
            keep: bytes("keep", default.keep),
            keep_denials: bytes("keep_denials", default.keep_denials),
            days: days("days", default.days),
            plays_days: days("plays_days", default.plays_days),
        }
    }

    /// The folder, beside this database: its file, or where the program runs.
    pub(crate) fn folder(&self, database: &DatabaseConfig) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| match database {
            DatabaseConfig::Sqlite(file) => {
                let mut name = file.as_os_str().to_owned();
                name.push("-facts");
                PathBuf::from(name)
            }
            DatabaseConfig::Mysql { .. } => PathBuf::from("segue-facts"),
        })
    }
}

impl HttpConfig {
    fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let body_max = usize::try_from(section.or("body_max", Size(default.body_max as u64)).0).unwrap_or(usize::MAX);
        Self {
            connections: positive(section, "connections", section.or("connections", default.connections)),
            timeout: at_least(
                section,
                "timeout",
                section.or("timeout", Span(default.timeout)).0,
                Duration::from_secs(1),
            ),
            body_max: positive(section, "body_max", body_max),
            streams: positive(section, "streams", section.or("streams", default.streams)),
        }
    }
}

#[cfg(test)]
mod tests;
