//! `[origin]`: where objects come from, and how patient the edge is with it.

use std::time::Duration;

use segue_config::{Secret, Section, Span};
use url::Url;

/// One origin.
#[derive(Debug, Clone)]
pub struct OriginConfig {
    /// S3 or any HTTP server (`kind`).
    pub kind: OriginKind,
    /// Scheme, host and port; for HTTP also a path under which the objects stand (`endpoint`).
    pub endpoint: Endpoint,
    /// In front of every key (`prefix`), without a leading slash.
    pub prefix: String,
    /// Methods that are let through (`methods`), upper-case; `*` for all. GET, HEAD and OPTIONS unless set.
    pub methods: Vec<String>,
    /// How long a connection, TLS included, may take (`connect_timeout`).
    pub connect_timeout: Duration,
    /// How long the origin may be silent, before the head and between two reads (`read_timeout`).
    pub read_timeout: Duration,
    /// How long one whole object may take (`total_timeout`), so that a trickle ends.
    pub total_timeout: Duration,
    /// Requests at once (`concurrency`).
    pub concurrency: usize,
    /// How long a request may wait for its turn (`queue_timeout`).
    pub queue_timeout: Duration,
    /// Attempts for one object, the first included (`attempts`).
    pub attempts: u32,
    /// The origin that is asked where this one fails (`fallback`), of the same kind, by its name.
    pub fallback: Option<String>,
    /// Whether an S3 ETag that is an MD5 is held against the bytes (`verify_etag`); about 2 ms of CPU per MB.
    pub verify_etag: bool,
}

/// Scheme, host, port and base path of an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host name or address, as in the URL (IPv6 without brackets).
    pub host: String,
    /// Port; 80 or 443 where the URL names none.
    pub port: u16,
    /// Base path without a trailing slash; empty for the root.
    pub path: String,
}

impl Endpoint {
    /// Reads an `http://` or `https://` URL.
    ///
    /// # Errors
    /// A sentence that says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shown = without_secrets(text);
        let wrong = || format!("{shown:?} is not an http:// or https:// URL with a host");
        let url = Url::parse(text).map_err(|_| wrong())?;
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(wrong()),
        };
        if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
            return Err(format!("{shown:?} must hold scheme, host, port and path alone"));
        }
        let authority = text.split_once("://").map_or(text, |(_, rest)| rest).split('/').next().unwrap_or_default();
        if authority.trim_end().ends_with(':') {
            return Err(format!("{shown:?} names no port after the colon"));
        }
        let host = match url.host().ok_or_else(wrong)? {
            url::Host::Domain(name) => name.to_owned(),
            url::Host::Ipv4(address) => address.to_string(),
            url::Host::Ipv6(address) => address.to_string(),
        };
        let port = url.port_or_known_default().ok_or_else(wrong)?;
        Ok(Self { tls, host, port, path: url.path().trim_end_matches('/').to_owned() })
    }

    /// The `Host` header: the port only where it is not the scheme's own (RFC 9110, section 7.2).
    pub(crate) fn authority(&self, host: &str) -> String {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        if self.port == (if self.tls { 443 } else { 80 }) { host } else { format!("{host}:{}", self.port) }
    }
}

/// An endpoint as an error may repeat it: without user and password, and without a query.
fn without_secrets(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        (None, Some((_, rest))) => format!("…@{rest}"),
        (_, None) => text.to_owned(),
    }
}

/// What the origin speaks.
#[derive(Debug, Clone)]
pub enum OriginKind {
    /// An S3 bucket; requests are signed with SigV4.
    S3 {
        /// The region that signatures name (`region`).
        region: String,
        /// The bucket (`bucket`).
        bucket: String,
        /// Access key id (`access_key`).
        access_key: Secret,
        /// Secret access key (`secret_key`).
        secret_key: Secret,
        /// Where the bucket's name stands (`addressing`).
        addressing: Addressing,
    },
    /// Any HTTP server; requests are not signed.
    Http,
}

impl OriginKind {
    /// Whether answers of the two mean the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        matches!((self, other), (Self::S3 { .. }, Self::S3 { .. }) | (Self::Http, Self::Http))
    }
}

/// Where an S3 bucket's name stands in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// `https://endpoint/bucket/key`.
    Path,
    /// `https://bucket.endpoint/key`.
    VirtualHost,
}

impl OriginConfig {
    /// An S3 origin with path addressing and default patience.
    pub fn s3(endpoint: Endpoint, region: &str, bucket: &str, access_key: Secret, secret_key: Secret) -> Self {
        let kind = OriginKind::S3 {
            region: region.to_owned(),
            bucket: bucket.to_owned(),
            access_key,
            secret_key,
            addressing: Addressing::Path,
        };
        Self { kind, ..Self::http(endpoint) }
    }

    /// A plain HTTP origin with default patience.
    pub fn http(endpoint: Endpoint) -> Self {
        Self {
            kind: OriginKind::Http,
            endpoint,
            prefix: String::new(),
            methods: ["GET", "HEAD", "OPTIONS"].map(str::to_owned).to_vec(),
            connect_timeout: Duration::from_secs(3),
            read_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(120),
            concurrency: 256,
            queue_timeout: Duration::from_secs(5),
            attempts: 3,
            fallback: None,
            verify_etag: false,
        }
    }

    /// Reads one origin; `[origin]` itself may leave `kind` out.
    pub(super) fn read(section: &Section<'_>, default: bool) -> Self {
        let nowhere = Endpoint { tls: false, host: "127.0.0.1".to_owned(), port: 9, path: String::new() };
        let parsed = section.require::<String>("endpoint").map(|text| Endpoint::parse(&text));
        let endpoint = match parsed {
            Some(Ok(endpoint)) => endpoint,
            Some(Err(wrong)) => {
                section.problem("endpoint", wrong);
                nowhere
            }
            None => nowhere,
        };
        let mut origin = Self::http(endpoint);
        let kind =
            if default { section.or("kind", "s3".to_owned()) } else { section.require("kind").unwrap_or_default() };
        match kind.as_str() {
            "http" => {}
            "s3" => {
                origin.kind = read_s3(section);
                origin.verify_etag = section.or("verify_etag", false);
            }
            "" => {}
            other => section.problem("kind", format!("{other:?} is not a kind of origin; use \"s3\" or \"http\"")),
        }
        origin.prefix = section.or("prefix", String::new()).trim_start_matches('/').to_owned();
        if let Some(methods) = section.get::<Vec<String>>("methods") {
            origin.methods = methods.iter().map(|method| method.to_ascii_uppercase()).collect();
        }
        for method in &origin.methods {
            if method != "*" && http::Method::from_bytes(method.as_bytes()).is_err() {
                section.problem("methods", format!("{method:?} is not a method"));
            }
        }
        for (name, value) in [
            ("connect_timeout", &mut origin.connect_timeout),
            ("read_timeout", &mut origin.read_timeout),
            ("total_timeout", &mut origin.total_timeout),
            ("queue_timeout", &mut origin.queue_timeout),
        ] {
            *value = section.or(name, Span(*value)).0;
            if value.is_zero() {
                section.problem(name, "must be longer than 0s, or every request would fail");
            }
        }
        origin.fallback = section.get("fallback");
        origin.concurrency = section.or("concurrency", origin.concurrency);
        origin.attempts = section.or("attempts", origin.attempts);
        if origin.concurrency == 0 || origin.attempts == 0 {
            section.problem("concurrency", "`concurrency` and `attempts` must be at least 1");
        }
        origin
    }
}

fn read_s3(section: &Section<'_>) -> OriginKind {
    let missing = || Secret::literal("missing");
    let addressing = match section.or("addressing", "path".to_owned()).as_str() {
        "path" => Addressing::Path,
        "virtual-host" => Addressing::VirtualHost,
        other => {
            section.problem("addressing", format!("{other:?} is not known; use \"path\" or \"virtual-host\""));
            Addressing::Path
        }
    };
    OriginKind::S3 {
        region: section.or("region", "us-east-1".to_owned()),
        bucket: section.require("bucket").unwrap_or_default(),
        access_key: section.require("access_key").unwrap_or_else(missing),
        secret_key: section.require("secret_key").unwrap_or_else(missing),
        addressing,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use segue_config::Document;

    use super::*;

    #[test]
    fn errors_do_not_repeat_passwords() {
        for endpoint in
            ["http://user:pass@word@host/", "https://user:password@", "user:password@host", "ftp://x:password@h"]
        {
            let wrong = Endpoint::parse(endpoint).unwrap_err();
            assert!(!wrong.contains("user") && !wrong.contains("pass"), "{wrong}");
        }
        assert!(Endpoint::parse("http://host?token=secret").is_err_and(|wrong| !wrong.contains("secret")));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        assert!(Endpoint::parse("http://host:/").is_err() && Endpoint::parse("http://[::1]:").is_err());
        assert_eq!(Endpoint::parse("http://[::1]/a/").unwrap().port, 80);
        let text = "endpoint = \"http://host\"\nkind = \"http\"\nmethods = [\"get\", \"*\"]\nread_timeout = \"0s\"\n";
        let document = Document::parse(text, "edge.toml", &|_| None).unwrap();
        let origin = OriginConfig::read(&document.root(), true);
        assert_eq!(origin.methods, ["GET", "*"]);
        let problems = document.finish().unwrap_err().to_string();
        assert!(problems.contains("read_timeout: must be longer than 0s"), "{problems}");
    }
}
