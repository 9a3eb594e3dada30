//! What a worker must be told: where its jobs, its objects and its working folder are, and how much a job may cost.
//!
//! On failure: every missing or contradictory value is recorded in the document as a problem; the returned struct must
//! not be used before [`Document::finish`] said yes.

mod encryption;
mod video;

use std::path::PathBuf;
use std::time::Duration;

use segue_config::{Document, Secret, Section, Size, Span};

pub use encryption::Encryption;
pub use video::{Video, VideoRung};

/// Where jobs come from.
#[derive(Debug, Clone)]
pub struct ControlEndpoint {
    /// Base URL of the control plane, for example `http://127.0.0.1:8090`.
    pub url: String,
    /// A bearer token of scope `worker`.
    pub token: Secret,
}

/// Where sources are read and renditions are written: one bucket of an S3 server.
#[derive(Debug, Clone)]
pub struct ObjectStore {
    /// Base URL of the S3 API.
    pub endpoint: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket that holds `uploads/` and `hls/`.
    pub bucket: String,
    /// Access key id.
    pub access_key: Secret,
    /// Secret access key.
    pub secret_key: Secret,
}

/// Which renditions are made (`[transcode.ladder]`).
#[derive(Debug, Clone)]
pub struct Ladder {
    /// AAC-LC, bits per second, rising. Default 64, 128 and 256 kbit/s.
    pub aac: Vec<u64>,
    /// Opus in fragmented MP4, bits per second, rising. Default none.
    pub opus: Vec<u64>,
    /// FLAC of lossless sources, their very samples. Default no.
    pub lossless: bool,
}

impl Default for Ladder {
    fn default() -> Self {
        Self { aac: vec![64_000, 128_000, 256_000], opus: Vec::new(), lossless: false }
    }
}

/// Rungs of one codec: more would be told apart by nobody.
const RUNGS_MAX: usize = 8;

impl Ladder {
    fn read(section: &Section<'_>) -> Self {
        let kbit = |key: &str, (least, most): (u64, u64), default: Vec<u64>| {
            let Some(rates) = section.get::<Vec<u64>>(key) else { return default };
            let fine = rates.iter().all(|rate| (least..=most).contains(rate)) && rates.is_sorted_by(|a, b| a < b);
            if !fine || rates.len() > RUNGS_MAX {
                let message = format!(
                    "must be at most {RUNGS_MAX} rates in kbit/s, rising, each between {least} and {most}; for example [64, 128]"
                );
                section.problem(key, message);
            }
            rates.into_iter().map(|rate| rate.saturating_mul(1000)).collect()
        };
        let default = Self::default();
        let ladder = Self {
            aac: kbit("aac", (16, 320), default.aac),
            opus: kbit("opus", (16, 256), default.opus),
            lossless: section.or("lossless", default.lossless),
        };
        if ladder.aac.is_empty() && ladder.opus.is_empty() {
            section.problem("aac", "is empty, and `opus` too: lossy sources would get no rendition");
        }
        ladder
    }
}

/// Everything a worker is started with.
#[derive(Debug, Clone)]
pub struct TranscodeConfig {
    /// Where jobs come from.
    pub control: ControlEndpoint,
    /// Where objects are.
    pub objects: ObjectStore,
    /// The folder in which each worker keeps a folder of its own. Shared by workers of one host.
    pub work_dir: PathBuf,
    /// The largest source in bytes. Default 2 GiB.
    pub max_bytes: u64,
    /// The longest source. Default 4 h: an hour-long mix has room, an endless decode has not.
    pub max_duration: Duration,
    /// How long one run of ffmpeg may take, as a multiple of the source's length (plus 30 s). Default 2.
    pub time_limit_factor: f64,
    /// Jobs at once. Default 1: the renditions of one job already keep the cores busy.
    pub slots: usize,
    /// Cores that one job is spread over. Default: all that this process may use.
    pub cores: usize,
    /// Bytes that a job must leave free on the disk of `work_dir`. Default 512 MiB.
    pub keep_free: u64,
    /// Which renditions are made.
    pub ladder: Ladder,
    /// What is made of films.
    pub video: Video,
    /// Whether a track can be played while the rest of it is still encoded. Default yes.
    pub early: bool,
    /// How segments are encrypted. Default not at all.
    pub encryption: Option<Encryption>,
    /// The name under which the control plane lists this worker. It belongs to one process at a time: a second one that
    /// claims under it takes over the jobs of the first, which is how jobs of a killed process go on at once when it is
    /// started again. Default: host name and process id.
    pub name: String,
}

/// Defaults that the documentation states.
const MAX_BYTES: u64 = 2 << 30;
const MAX_DURATION: Duration = Duration::from_secs(4 * 3600);
const TIME_LIMIT_FACTOR: f64 = 2.0;
const KEEP_FREE: u64 = 512 << 20;
/// Processes of one job at once, whatever the machine has: each holds some tens of megabytes.
const CORES_MAX: usize = 64;

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).min(CORES_MAX)
}

impl TranscodeConfig {
    /// A configuration with every default, for embedding.
    pub fn new(control: ControlEndpoint, objects: ObjectStore, work_dir: PathBuf) -> Self {
        Self {
            control,
            objects,
            work_dir,
            max_bytes: MAX_BYTES,
            max_duration: MAX_DURATION,
            time_limit_factor: TIME_LIMIT_FACTOR,
            slots: 1,
            cores: cores(),
            keep_free: KEEP_FREE,
            ladder: Ladder::default(),
            video: Video::default(),
            early: true,
            encryption: None,
            name: worker_name(),
        }
    }

    /// Reads `[control]`, `[objects]`, `[transcode]` and `[wrapping_keys]`; problems go to the document.
    pub fn read(doc: &Document<'_>) -> Self {
        let root = doc.root();
        let control = root.section("control");
        let objects = root.section("objects");
        let transcode = root.section("transcode");
        let secret = |section: &Section<'_>, key: &str| {
            section.require::<Secret>(key).unwrap_or_else(|| Secret::literal(String::new()))
        };
        let config = Self {
            control: ControlEndpoint { url: address(&control, "url"), token: secret(&control, "token") },
            objects: ObjectStore {
                endpoint: address(&objects, "endpoint"),
                region: objects.or("region", "us-east-1".to_owned()),
                bucket: objects.or("bucket", "media".to_owned()),
                access_key: secret(&objects, "access_key"),
                secret_key: secret(&objects, "secret_key"),
            },
            work_dir: transcode.or("work_dir", std::env::temp_dir().join("segue-transcode")),
            max_bytes: transcode.or("max_bytes", Size(MAX_BYTES)).0,
            max_duration: transcode.or("max_duration", Span(MAX_DURATION)).0,
            time_limit_factor: transcode.or("time_limit_factor", TIME_LIMIT_FACTOR),
            slots: transcode.or("slots", 1usize),
            cores: transcode.or("cores", cores()),
            keep_free: transcode.or("keep_free", Size(KEEP_FREE)).0,
            ladder: Ladder::read(&transcode.section("ladder")),
            video: Video::read(&transcode.section("video")),
            early: transcode.or("early", true),
            encryption: Encryption::read(&transcode.section("encryption"), &root.section("wrapping_keys")),
            name: transcode.get::<String>("name").unwrap_or_else(worker_name),
        };
        if !(1..=64).contains(&config.slots) {
            transcode.problem("slots", "must be between 1 and 64 jobs at once");
        }
        if !(1..=CORES_MAX).contains(&config.cores) {
            transcode.problem("cores", "must be between 1 and 64; leave it out for all cores");
        }
        if !(config.time_limit_factor >= 0.1 && config.time_limit_factor <= 1000.0) {
            transcode.problem("time_limit_factor", "must be between 0.1 and 1000 times the source's length");
        }
        if config.max_bytes == 0 {
            transcode.problem("max_bytes", "must be at least one byte; leave it out for 2 GiB");
        }
        if config.max_duration.is_zero() {
            transcode.problem("max_duration", "must be longer than nothing; leave it out for 4 h");
        }
        config
    }
}

fn address(section: &Section<'_>, key: &str) -> String {
    let Some(text) = section.require::<String>(key) else { return String::new() };
    match url::Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {}
        _ => section.problem(key, "must be an http:// or https:// address, for example http://127.0.0.1:8090"),
    }
    text
}

fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String =
        host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(48).collect();
    let host = if host.is_empty() { "worker".to_owned() } else { host };
    format!("{host}-{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (TranscodeConfig, Option<String>) {
        let env = |_: &str| None;
        let doc = Document::parse(text, "segue.toml", &env).expect("toml");
        let config = TranscodeConfig::read(&doc);
        (config, doc.finish().err().map(|problems| problems.to_string()))
    }

    #[test]
    fn the_least_configuration_gets_the_documented_defaults() {
        let (config, problems) = read(
            "[control]\nurl='http://127.0.0.1:1'\ntoken='t'\n[objects]\nendpoint='http://127.0.0.1:2'\naccess_key='a'\nsecret_key='s'\n",
        );
        assert_eq!(problems, None);
        assert_eq!((config.max_bytes, config.slots, config.max_duration.as_secs()), (2 << 30, 1, 14400));
        assert_eq!(config.objects.bucket, "media");
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let (_, problems) = read(
            "[control]\nurl='nonsense'\n[transcode]\nslots=0\nwork_dirr='x'\n[transcode.ladder]\naac=[128,64]\nopus=['x']\n\
             [transcode.video]\npreset='placebo'\n[[transcode.video.ladder]]\nheight=361\nkbit=800\n",
        );
        let problems = problems.expect("problems");
        for key in [
            "control.url",
            "control.token",
            "objects.endpoint",
            "transcode.slots",
            "work_dirr",
            "ladder.aac",
            "ladder.opus",
            "video.preset",
            "height",
        ] {
            assert!(problems.contains(key), "{key} in {problems}");
        }
    }
}
