//! What an edge must be told, typed, and checked whole before anything binds.
//!
//! Invariants: every bound that the edge holds to (bytes, connections, waits) has its value here, with a default
//! that a small machine survives; a secret never shows in `Debug`.
//!
//! On failure: [`EdgeConfig::read`] records problems in the document and fills the gap with a default, so that one
//! reading finds all of them; the caller must not start the edge before `Document::finish` said yes.

mod cache;
mod client;
mod control;
mod events;
mod hot;
mod limits;
mod origin;
mod policies;
mod prefetch;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::mark;
use segue_config::{Document, Secret, Section, Size, Span};
use segue_signing::{Key, Revocation, SigningSecret, WrappingKeys};

use crate::limit::{LimitsConfig, RedisConfig};
pub use cache::{CacheConfig, ControlConfig, TtlConfig};
pub use client::{ClientConfig, ForwardedHeader, ProxyProtocol};
pub use control::{ControlEndpoint, SnapshotConfig};
pub use events::{EventsConfig, EventsSink};
pub use hot::Reloadable;
pub use origin::{Addressing, Endpoint, OriginConfig, OriginKind};
pub use policies::{PoliciesConfig, PolicyServices};
pub use prefetch::PrefetchConfig;
pub use tls::{CertificateFiles, TlsConfig};

/// The name under which `[origin]` itself is known to routes.
pub const DEFAULT_ORIGIN: &str = "default";

/// Everything that an edge needs to know.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// The edge's name in facts and logs (`name`); one word, unique among the edges of a house.
    pub name: String,
    /// Where clients are served (`listen`).
    pub listen: SocketAddr,
    /// Where operators are served (`admin_listen`): metrics, health, purge. Never expose it to clients.
    pub admin_listen: Option<SocketAddr>,
    /// The origins by name: `[origin]` is `default`, `[origins.<name>]` are the others.
    pub origins: BTreeMap<String, OriginConfig>,
    /// The routes in order (`[[route]]`); the first that matches wins.
    pub routes: Vec<RouteConfig>,
    /// What is kept, how long, and how much of it (`[cache]`).
    pub cache: CacheConfig,
    /// Tickets (`[tickets]`).
    pub tickets: TicketConfig,
    /// Static ticket keys (`[keys]`).
    pub keys: Vec<Key>,
    /// What content keys are unwrapped with (`[wrapping_keys]`).
    pub wrapping: Arc<WrappingKeys>,
    /// Static revocations (`[revocations] file`).
    pub revocations: Vec<Revocation>,
    /// Files that are watched beside the configuration: those of keys and revocations.
    pub watched: Vec<PathBuf>,
    /// The control plane that is followed (`[control]`).
    pub control: Option<ControlEndpoint>,
    /// The last good snapshot on disk (`[snapshot]`).
    pub snapshot: SnapshotConfig,
    /// What becomes of facts and denials (`[events]`).
    pub events: EventsConfig,
    /// The key of the signed debug header (`[debug] key`).
    pub debug_key: Option<SigningSecret>,
    /// Rate limits and streams (`[limits]`, `[streams]`).
    pub limits: LimitsConfig,
    /// The Redis through which edges share their limits (`[redis]`); each edge limits by itself where `None`.
    pub redis: Option<RedisConfig>,
    /// What is fetched before it is asked for (`[prefetch]`).
    pub prefetch: PrefetchConfig,
    /// Bounds of client connections (`[connections]`).
    pub connections: ConnectionConfig,
    /// Certificates and where they are shown (`[tls]`); plain HTTP alone where `None`.
    pub tls: Option<TlsConfig>,
    /// Where policies come from (`[policies]`).
    pub policies: PoliciesConfig,
    /// What policies are lent (`[policies.keys]`, `[policies.tables]`).
    pub policy_services: PolicyServices,
    /// Who may say who the client is (`[client]`).
    pub client: ClientConfig,
    /// The bearer token that the admin listener's writing calls want (`[admin] token`).
    pub admin_token: Option<Secret>,
}

/// One `[[route]]`: which requests go where.
#[derive(Debug, Clone)]
pub struct RouteConfig {
    /// Only for this `Host` (without port, compared case-insensitively); every host where `None`.
    pub host: Option<String>,
    /// A path pattern with one `{track}` segment, such as `/hls/{track}/`; what follows is the file.
    pub path: String,
    /// The origin's name.
    pub origin: String,
    /// What stands in the origin in place of the matched path, such as `audio/{track}/`; the same path where `None`.
    pub prefix: Option<String>,
    /// What happens to its playlists; as `[tickets] playlist` where `None`.
    pub playlist: Option<PlaylistMode>,
}

/// What happens to playlists, so that their URIs carry the ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaylistMode {
    /// Nothing: a ticket in the path reaches relative URIs by itself.
    Path,
    /// Players take a ticket from the query by `EXT-X-DEFINE:QUERYPARAM`; the same bytes for every listener.
    Define,
    /// Each listener's ticket is written into every URI.
    Rewrite,
}

/// How tickets are asked for.
#[derive(Debug, Clone)]
pub struct TicketConfig {
    /// Whether a request without a ticket is refused (`required`); `false` makes a plain cache.
    pub required: bool,
    /// Clock difference that is forgiven, in both directions (`leeway`).
    pub leeway: Duration,
    /// How many verified tickets are remembered (`remembered`).
    pub remembered: usize,
    /// What happens to playlists (`playlist`), where their route says nothing else.
    pub playlist: PlaylistMode,
}

/// Bounds of client connections.
#[derive(Debug, Clone)]
pub struct ConnectionConfig {
    /// Open connections at most (`max`); further ones are closed at once.
    pub max: usize,
    /// Open connections of one address, or of one /64 of IPv6 (`max_per_address`); a quarter of `max` where it is not
    /// set. Addresses in `[client] trusted_proxies` have no such bound.
    pub max_per_address: Option<usize>,
    /// How long a connection may idle between requests (`idle_timeout`).
    pub idle_timeout: Duration,
    /// How long a request head may take to arrive, from its first byte (`head_timeout`).
    pub head_timeout: Duration,
    /// Bytes of a request head at most (`head_max`).
    pub head_max: u64,
    /// How long the client may take to accept each 256 KiB (`write_timeout`).
    pub write_timeout: Duration,
    /// How long requests in flight are awaited at shutdown (`drain`).
    pub drain: Duration,
}

impl Default for TicketConfig {
    fn default() -> Self {
        Self { required: true, leeway: Duration::from_secs(5), remembered: 65_536, playlist: PlaylistMode::Path }
    }
}

impl ConnectionConfig {
    /// Open connections of one address: a quarter of all, so that no single one shuts out the others.
    pub(crate) fn per_address(&self) -> usize {
        self.max_per_address.unwrap_or(self.max.div_ceil(4))
    }
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            max: 16_384,
            max_per_address: None,
            idle_timeout: Duration::from_secs(60),
            head_timeout: Duration::from_secs(10),
            // Below 64 KiB, where the parser of addresses would refuse with no reason word.
            head_max: 60 << 10,
            write_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

impl EdgeConfig {
    /// The least that an edge can run with: one origin, the contract's default route, port 0, no admin listener,
    /// no keys (they may come with snapshots).
    pub fn minimal(origin: OriginConfig) -> Self {
        Self {
            name: "edge".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin_listen: None,
            origins: BTreeMap::from([(DEFAULT_ORIGIN.to_owned(), origin)]),
            routes: vec![RouteConfig::contract()],
            cache: CacheConfig::default(),
            tickets: TicketConfig::default(),
            prefetch: PrefetchConfig::default(),
            keys: Vec::new(),
            wrapping: Arc::default(),
            limits: LimitsConfig::default(),
            redis: None,
            revocations: Vec::new(),
            watched: Vec::new(),
            control: None,
            snapshot: SnapshotConfig::default(),
            events: EventsConfig::default(),
            debug_key: None,
            connections: ConnectionConfig::default(),
            tls: None,
            policies: PoliciesConfig::default(),
            policy_services: PolicyServices::default(),
            client: ClientConfig::default(),
            admin_token: None,
        }
    }

    /// Reads the edge's part of `document`; problems go to the document.
    pub fn read(document: &Document<'_>) -> Self {
        let root = document.root();
        let mut config = Self::minimal(OriginConfig::read(&root.section("origin"), true));
        config.name = root.or("name", config.name);
        if config.name.is_empty() || !config.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            root.problem("name", "the edge's name may hold letters, digits, `-` and `_` alone");
        }
        config.listen = root.require("listen").unwrap_or(config.listen);
        config.admin_listen = root.get("admin_listen");
        let origins = root.section("origins").free_form();
        for name in origins.names() {
            if name == DEFAULT_ORIGIN {
                origins.problem(&name, "`default` is the name of [origin] itself; choose another");
            }
            config.origins.insert(name.clone(), OriginConfig::read(&origins.section(&name), false));
        }
        check_fallbacks(&root, &config);
        read_routes(&root, &mut config);
        cache::read(&root.section("cache"), &mut config.cache);
        let tickets = root.section("tickets");
        config.tickets.required = tickets.or("required", config.tickets.required);
        config.tickets.remembered = tickets.or("remembered", config.tickets.remembered);
        config.tickets.playlist = read_playlist(&tickets).unwrap_or(config.tickets.playlist);
        config.prefetch = PrefetchConfig::read(&root.section("prefetch"));
        config.redis = RedisConfig::read(&root);
        config.control = ControlEndpoint::read(&root.section("control"));
        config.snapshot = SnapshotConfig::read(&root.section("snapshot"), config.control.is_some());
        config.policies = PoliciesConfig::read(&root.section("policies"), config.control.is_some());
        config.events = EventsConfig::read(&root.section("events"), config.control.is_some());
        config.debug_key = control::read_debug_key(&root.section("debug"));
        config.take(Reloadable::read(&root, config.tickets.leeway));
        read_connections(&root.section("connections"), &mut config.connections);
        config.tls = TlsConfig::read(&root);
        config.client = ClientConfig::read(&root.section("client"));
        config.admin_token = root.section("admin").get("token");
        config
    }
}

impl EdgeConfig {
    /// What each route leads to, as a number that stays the same while the route does, wherever it stands in the
    /// file: bytes on the disk must not be served under another route. Credentials are no part of it.
    pub(crate) fn route_marks(&self) -> Vec<u64> {
        let marked = |route: &RouteConfig| {
            let mut parts = vec![route.path.clone()];
            parts.extend([&route.host, &route.prefix].map(|part| format!("{part:?}")));
            if let Some(origin) = self.origins.get(&route.origin) {
                let Endpoint { tls, host, port, path } = &origin.endpoint;
                parts.extend([format!("{tls}:{port}"), host.clone(), path.clone(), origin.prefix.clone()]);
                parts.push(match &origin.kind {
                    OriginKind::S3 { bucket, .. } => format!("s3:{bucket}"),
                    OriginKind::Http => "http".to_owned(),
                });
            }
            mark(&parts)
        };
        self.routes.iter().map(marked).collect()
    }

    /// The part that may change while the edge runs.
    pub(crate) fn reloadable(&self) -> Reloadable {
        Reloadable {
            keys: self.keys.clone(),
            wrapping: Arc::clone(&self.wrapping),
            revocations: self.revocations.clone(),
            leeway: self.tickets.leeway,
            limits: self.limits.clone(),
            services: self.policy_services.clone(),
            files: self.watched.clone(),
        }
    }

    fn take(&mut self, hot: Reloadable) {
        let Reloadable { keys, wrapping, revocations, leeway, limits, services, files } = hot;
        (self.policy_services, self.limits, self.wrapping) = (services, limits, wrapping);
        (self.keys, self.revocations, self.tickets.leeway, self.watched) = (keys, revocations, leeway, files);
    }
}

impl RouteConfig {
    /// `/hls/{track}/`, stored in the default origin under the same name.
    pub fn contract() -> Self {
        Self {
            host: None,
            path: "/hls/{track}/".to_owned(),
            origin: DEFAULT_ORIGIN.to_owned(),
            prefix: None,
            playlist: None,
        }
    }
}

/// A fallback is another origin of the same kind: what an answer means depends on it.
fn check_fallbacks(root: &Section<'_>, config: &EdgeConfig) {
    for (name, origin) in &config.origins {
        let Some(fallback) = &origin.fallback else { continue };
        let section =
            if name == DEFAULT_ORIGIN { root.section("origin") } else { root.section("origins").section(name) };
        match config.origins.get(fallback) {
            None => section.problem("fallback", format!("there is no [origins.{fallback}]")),
            Some(_) if fallback == name => section.problem("fallback", "an origin cannot stand in for itself"),
            Some(other) if !other.kind.is_like(&origin.kind) => {
                section
                    .problem("fallback", format!("[origins.{fallback}] is of another kind; use an origin of the same"));
            }
            Some(_) => {}
        }
    }
}

fn read_routes(root: &Section<'_>, config: &mut EdgeConfig) {
    let tables = root.tables("route");
    if tables.is_empty() {
        return;
    }
    config.routes.clear();
    for route in tables {
        let path: String = route.require("path").unwrap_or_else(|| RouteConfig::contract().path);
        if let Err(wrong) = crate::route::Pattern::parse(&path) {
            route.problem("path", wrong);
        }
        let origin: String = route.or("origin", DEFAULT_ORIGIN.to_owned());
        if !config.origins.contains_key(&origin) {
            route.problem("origin", format!("there is no [origins.{origin}]"));
        }
        let playlist = read_playlist(&route);
        config.routes.push(RouteConfig {
            host: route.get("host"),
            path,
            origin,
            prefix: route.get("prefix"),
            playlist,
        });
    }
}

fn read_playlist(section: &Section<'_>) -> Option<PlaylistMode> {
    match section.get::<String>("playlist")?.as_str() {
        "path" => Some(PlaylistMode::Path),
        "define" => Some(PlaylistMode::Define),
        "rewrite" => Some(PlaylistMode::Rewrite),
        other => {
            let message = format!("{other:?} is not a mode; use \"path\", \"define\" or \"rewrite\"");
            section.problem("playlist", message);
            None
        }
    }
}

fn read_connections(section: &Section<'_>, connections: &mut ConnectionConfig) {
    connections.max = section.or("max", connections.max);
    if connections.max == 0 {
        section.problem("max", "an edge that takes no connection serves nobody; use 1 or more");
    }
    connections.max_per_address = section.get("max_per_address");
    if connections.max_per_address == Some(0) {
        section.problem("max_per_address", "no address could connect at all; use 1 or more, or leave it out");
    }
    connections.head_max = section.or("head_max", Size(connections.head_max)).0;
    for (name, value) in [
        ("idle_timeout", &mut connections.idle_timeout),
        ("head_timeout", &mut connections.head_timeout),
        ("write_timeout", &mut connections.write_timeout),
        ("drain", &mut connections.drain),
    ] {
        *value = section.or(name, Span(*value)).0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> (EdgeConfig, String) {
        let none = |_: &str| None;
        let document = Document::parse(text, "edge.toml", &none).unwrap();
        let config = EdgeConfig::read(&document);
        (config, document.finish().err().map(|problems| problems.to_string()).unwrap_or_default())
    }

    const LEAST: &str = "listen = \"127.0.0.1:8080\"\nadmin_listen = \"127.0.0.1:9090\"\n[origin]\nkind = \"s3\"\nendpoint = \"http://127.0.0.1:9000\"\nregion = \"us-east-1\"\nbucket = \"media\"\naccess_key = \"a\"\nsecret_key = \"b\"\n[keys]\nk1 = \"0123456789abcdef0123456789abcdef\"\n";

    #[test]
    fn the_least_that_an_edge_needs_is_enough() {
        let (config, problems) = read(LEAST);
        assert_eq!(problems, "");
        assert_eq!((config.listen.port(), config.admin_listen.unwrap().port()), (8080, 9090));
        assert_eq!(config.keys.len(), 1);
        assert_eq!(config.routes[0].path, "/hls/{track}/");
        assert!(matches!(&config.origins[DEFAULT_ORIGIN].kind, OriginKind::S3 { bucket, .. } if bucket == "media"));
        assert!(!format!("{config:?}").contains("0123456789abcdef"), "no secret in Debug");
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let text = "listen = \"x\"\nname = \"a b\"\n[origin]\nkind = \"ftp\"\nendpoint = \"nowhere\"\nconcurrency = 0\nfallback = \"b\"\n[origins.c]\nkind = \"http\"\nendpoint = \"http://c\"\nfallback = \"c\"\n[cache]\nwaiters = 0\nwait = \"0s\"\nmemory = \"1MiB\"\nmax_object = \"2MiB\"\ndisk = \"1MiB\"\n[cache.control]\nmutable = \"a\\nb\"\n[tickets]\nrequire = true\nplaylist = \"query\"\n[prefetch]\nsegments = 99\nconcurrency = 0\n[keys]\nk1 = \"short\"\n[client]\ntrusted_proxies = [\"10.0.0.0/33\"]\nproxy_protocol = \"v3\"\n[tls]\ncert = \"/nowhere/c.pem\"\nkey = \"/nowhere/k.pem\"\n[[route]]\npath = \"/a/\"\norigin = \"b\"\n";
        let (_, problems) = read(text);
        for part in [
            "listen:",
            "name: the edge's name",
            "origin.kind: \"ftp\" is not a kind of origin",
            "origin.endpoint: \"nowhere\" is not an http",
            "origin.concurrency:",
            "origin.fallback: there is no [origins.b]",
            "origins.c.fallback: an origin cannot stand in for itself",
            "cache.waiters: whoever asks first waits too",
            "cache.wait: must be longer than 0s",
            "cache.max_object: an object of this size does not fit",
            "cache.dir: missing; `disk` needs a folder",
            "cache.disk: too small: with this `max_object` it takes 25MiB or more",
            "cache.control.mutable: not a header value",
            "tickets.playlist: \"query\" is not a mode; use \"path\", \"define\" or \"rewrite\"",
            "prefetch.segments: 99 is too far ahead; use 0 to 16",
            "prefetch.concurrency: use 1 to 256",
            "tickets.require: unknown key; did you mean `required`?",
            "keys.k1:",
            "client.trusted_proxies: \"10.0.0.0/33\" is not an address or a block",
            "client.proxy_protocol: expected true, false, \"v1\" or \"v2\"",
            "tls.cert: /nowhere/c.pem: cannot be read",
            "route[0].path: \"/a/\" names no track",
            "route[0].origin: there is no [origins.b]",
        ] {
            assert!(problems.contains(part), "{part:?} is not in\n{problems}");
        }
    }
}
