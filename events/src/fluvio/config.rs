//! `[events]`, as far as it speaks of Fluvio: the same words for an edge that writes and a control plane that reads.

use std::path::PathBuf;
use std::time::Duration;

use fluvio::config::{FluvioClusterConfig, TlsPaths, TlsPolicy};
use fluvio::{Compression, FluvioConfig as Client};
use segue_config::{Section, Span};

/// The longest name that Fluvio gives a topic.
const TOPIC_MAX: usize = 63;
/// The longest of our own names, behind the prefix.
const LONGEST: &str = "segments";
/// Fluvio keeps no topic for less.
const RETENTION_MIN: Duration = Duration::from_secs(10);

/// Where Fluvio is, and what the topics are like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FluvioConfig {
    /// Host and port of the cluster's controller (`endpoint`).
    pub endpoint: String,
    /// What topics' names begin with (`prefix`): `segue-` makes `segue-segments`, `segue-denials` and `segue-plays`.
    /// Fluvio allows small letters, digits and hyphens.
    pub prefix: String,
    /// Partitions of a topic that is made (`partitions`); one that is there stays as it is.
    pub partitions: u32,
    /// Replicas of each (`replication`).
    pub replication: u32,
    /// How long a topic that is made keeps records (`retention`).
    pub retention: Duration,
    /// How batches are packed (`compression`).
    pub compression: Codec,
    /// TLS to controller and leaders (`[events.tls]`); plain TCP where `None`.
    pub tls: Option<FluvioTls>,
}

/// How a batch is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Certificates for a cluster that speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FluvioTls {
    /// The name in the cluster's certificates (`domain`); leaders have theirs in front of it.
    pub domain: String,
    /// The authority that signed them (`ca`).
    pub ca: PathBuf,
    /// Our own certificate (`cert`): Fluvio tells clients apart by it.
    pub cert: PathBuf,
    /// Its key (`key`).
    pub key: PathBuf,
}

impl FluvioConfig {
    /// A cluster at `endpoint`, everything else by default: topics of four partitions with one replica, kept for a
    /// week, packed with Zstandard.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            prefix: "segue-".to_owned(),
            partitions: 4,
            replication: 1,
            retention: Duration::from_secs(7 * 86_400),
            compression: Codec::Zstd,
            tls: None,
        }
    }

    /// Reads the section; problems go to its document.
    #[must_use]
    pub fn read(section: &Section<'_>) -> Self {
        let mut config = Self::new(section.require::<String>("endpoint").unwrap_or_default());
        let is_address = config.endpoint.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !is_address && !config.endpoint.is_empty() {
            section.problem("endpoint", format!("{:?} is no host and port, such as \"fluvio:9003\"", config.endpoint));
        }
        config.prefix = section.or("prefix", config.prefix);
        let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !config.prefix.bytes().all(fine) || config.prefix.starts_with('-') {
            let said = "Fluvio allows small letters, digits and `-` in a topic's name, and no `-` in front";
            section.problem("prefix", said);
        } else if config.prefix.len() + LONGEST.len() > TOPIC_MAX {
            section.problem("prefix", format!("too long: a topic's name has {TOPIC_MAX} letters at most"));
        }
        config.partitions = section.or("partitions", config.partitions);
        if !(1..=256).contains(&config.partitions) {
            section.problem("partitions", "use 1 to 256");
        }
        config.replication = section.or("replication", config.replication);
        if !(1..=16).contains(&config.replication) {
            section.problem("replication", "use 1 to 16, and no more than the cluster has machines");
        }
        config.retention = section.or("retention", Span(config.retention)).0;
        if config.retention < RETENTION_MIN {
            section.problem("retention", "must be at least \"10s\", the least that Fluvio takes");
        }
        if let Some(word) = section.get::<String>("compression") {
            match Codec::from_word(&word) {
                Some(codec) => config.compression = codec,
                None => section.problem(
                    "compression",
                    format!("{word:?} is none of \"none\", \"gzip\", \"snappy\", \"lz4\" and \"zstd\""),
                ),
            }
        }
        if section.is_table("tls") {
            let tls = section.section("tls");
            config.tls = Some(FluvioTls {
                domain: tls.require("domain").unwrap_or_default(),
                ca: tls.require("ca").unwrap_or_default(),
                cert: tls.require("cert").unwrap_or_default(),
                key: tls.require("key").unwrap_or_default(),
            });
        }
        config
    }

    /// The name of a topic.
    #[must_use]
    pub fn topic(&self, of: &str) -> String {
        format!("{}{of}", self.prefix)
    }

    pub(super) fn client(&self) -> FluvioClusterConfig {
        let client = Client::new(&self.endpoint);
        match &self.tls {
            None => client,
            Some(FluvioTls { domain, ca, cert, key }) => client.with_tls(TlsPolicy::from(TlsPaths {
                domain: domain.clone(),
                key: key.clone(),
                cert: cert.clone(),
                ca_cert: ca.clone(),
            })),
        }
    }
}

impl Codec {
    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "none" => Self::None,
            "gzip" => Self::Gzip,
            "snappy" => Self::Snappy,
            "lz4" => Self::Lz4,
            "zstd" => Self::Zstd,
            _ => return None,
        })
    }

    pub(super) fn compression(self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Gzip => Compression::Gzip,
            Self::Snappy => Compression::Snappy,
            Self::Lz4 => Compression::Lz4,
            Self::Zstd => Compression::Zstd,
        }
    }
}

#[cfg(test)]
mod tests {
    use segue_config::Document;

    use super::*;

    fn read(text: &str) -> (FluvioConfig, String) {
        let document = Document::parse(text, "x.toml", &|_| None).expect("TOML");
        let config = FluvioConfig::read(&document.root().section("events"));
        (config, document.finish().err().map(|problems| problems.to_string()).unwrap_or_default())
    }

    #[test]
    fn an_endpoint_is_enough_and_everything_can_be_said() {
        let (config, problems) = read("[events]\nendpoint = \"fluvio.test:9003\"\n");
        assert_eq!((config, problems.as_str()), (FluvioConfig::new("fluvio.test:9003"), ""));
        let (config, problems) = read(
            "[events]\nendpoint = \"f:9003\"\nprefix = \"a-b-\"\npartitions = 8\nreplication = 3\nretention = \"30m\"\n\
             compression = \"lz4\"\n[events.tls]\ndomain = \"f.test\"\nca = \"/ca\"\ncert = \"/cert\"\nkey = \"/key\"\n",
        );
        assert_eq!(problems, "");
        assert_eq!(config.topic("plays"), "a-b-plays");
        assert_eq!((config.partitions, config.replication, config.retention.as_secs()), (8, 3, 1800));
        assert_eq!(config.compression, Codec::Lz4);
        assert_eq!(config.tls.as_ref().map(|tls| tls.domain.as_str()), Some("f.test"));
        assert!(matches!(config.client().tls, TlsPolicy::Verified(_)));
    }

    #[test]
    fn every_mistake_is_named() {
        let long = "x".repeat(60);
        let text = format!(
            "[events]\nendpoint = \"http://f\"\nprefix = \"{long}\"\npartitions = 0\nreplication = 0\nretention = \"1s\"\n\
             compression = \"zip\"\n[events.tls]\ndomain = \"f\"\n"
        );
        let (_, problems) = read(&text);
        for part in [
            "events.endpoint: \"http://f\" is no host and port",
            "events.prefix: too long",
            "events.partitions:",
            "events.replication:",
            "events.retention:",
            "events.compression: \"zip\" is none of",
            "events.tls.ca: missing",
            "events.tls.cert: missing",
            "events.tls.key: missing",
        ] {
            assert!(problems.contains(part), "{part:?} is not in\n{problems}");
        }
        assert!(read("[events]\nendpoint = \"f:1\"\nprefix = \"segue.\"\n").1.contains("events.prefix: Fluvio allows"));
        assert!(read("[events]\n").1.contains("events.endpoint: missing"));
    }
}
