//! What is the matter with the parts that a worker stands on: each looked at once, as the worker would use it.
//!
//! Invariants: what is written to look whether it can be is removed again; a secret is in no finding.
//! On failure: that is what it is for; every look has a time limit and ends in a finding.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use segue_config::Finding;
use tokio::process::Command;
use tokio::time::timeout;

use crate::config::{Encryption, TranscodeConfig};
use crate::encrypt::{Standing, standing};
use crate::ffmpeg::Tools;
use crate::queue::{Queue, QueueError};
use crate::store::{Store, StoreError};
use crate::workspace::Workspace;

/// A look that takes longer is an answer by itself.
const WITHIN: Duration = Duration::from_secs(15);
/// No track has this name: tracks are called by twelve letters and digits.
const PROBE: &str = "hls/segue-doctor/probe";
/// Each ladder's encoder, and what it is for.
const ENCODERS: [(&str, &str); 4] =
    [("aac", "AAC renditions"), ("flac", "lossless renditions"), ("libopus", "Opus renditions"), ("libx264", "video")];

/// Looks at all that `config` names.
pub async fn examine(config: &TranscodeConfig) -> Vec<Finding> {
    let mut findings = ffmpeg().await;
    findings.push(folder(config));
    for (part, look) in [("control", control(config).await), ("objects", objects(config).await)] {
        findings.push(look.unwrap_or_else(|| {
            let seen = format!("no answer within {} s", WITHIN.as_secs());
            Finding::ill(part, seen, "check address, routing and firewalls between here and there")
        }));
    }
    if let Some(encryption) = &config.encryption {
        findings.extend(wrapping(config, encryption).await);
    }
    findings.extend(clock(&config.objects.endpoint).await);
    findings
}

/// `None`: no answer in time, of which the finding on the store speaks.
async fn wrapping(config: &TranscodeConfig, encryption: &Encryption) -> Option<Finding> {
    let (store, id) = (Store::new(&config.objects), &encryption.wrapping_key);
    let part = format!("wrapping_keys.{id}");
    let finding = match timeout(WITHIN, standing(&store, &encryption.keys, id)).await.ok()? {
        Ok(Standing::Right) => Finding::well(&part, "it is the key that content keys of this bucket are wrapped with"),
        Ok(Standing::New) => Finding::well(&part, "nothing is wrapped with it yet; the first job will be"),
        Ok(Standing::Wrong(error)) => Finding::ill(
            &part,
            error.to_string(),
            "give every worker and edge the same secret under this id; a new secret needs a new id",
        ),
        Err(error) => Finding::ill(&part, error.to_string(), "see the finding on [objects]"),
    };
    Some(finding)
}

/// A signature is told by the clock: a store refuses one that is minutes off. Of a store that does not answer another finding tells.
async fn clock(endpoint: &str) -> Option<Finding> {
    let http = reqwest::Client::builder().timeout(WITHIN).no_proxy().build().ok()?;
    // Whatever it answers, its head says when.
    let answer = http.get(endpoint).send().await.ok()?;
    let date = httpdate::parse_http_date(answer.headers().get("date")?.to_str().ok()?).ok()?;
    let since = |time: SystemTime| i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok();
    Some(Finding::clock("objects.clock", "the object store", since(date)? - since(SystemTime::now())?, 1000))
}

async fn ffmpeg() -> Vec<Finding> {
    let install = "apt-get install ffmpeg";
    let tools = match Tools::find(std::env::var_os("PATH").as_deref()) {
        Ok(tools) => tools,
        Err(problem) => return vec![Finding::ill("ffmpeg", problem, install)],
    };
    let mut findings = vec![Finding::well("ffmpeg", &tools.version)];
    findings.push(if tools.cage.is_without_network() {
        Finding::well("ffmpeg.cage", "guests have no network")
    } else {
        Finding::doubtful(
            "ffmpeg.cage",
            "guests share this machine's network, which their protocols are not allowed to use",
            "install util-linux, and allow user namespaces for the worker's user",
        )
    });
    let asked = Command::new(&tools.ffmpeg).args(["-hide_banner", "-encoders"]).kill_on_drop(true).output();
    let Ok(Ok(said)) = timeout(WITHIN, asked).await else {
        findings.push(Finding::ill("ffmpeg.encoders", "ffmpeg does not say what it can encode", install));
        return findings;
    };
    let said = String::from_utf8_lossy(&said.stdout);
    let known = |name: &str| said.lines().any(|line| line.split_whitespace().nth(1) == Some(name));
    let missing: Vec<String> =
        ENCODERS.iter().filter(|(name, _)| !known(name)).map(|(name, what)| format!("{name} ({what})")).collect();
    findings.push(match missing.as_slice() {
        [] => Finding::well("ffmpeg.encoders", "every encoder that a ladder may name is there"),
        missing => Finding::doubtful(
            "ffmpeg.encoders",
            format!("missing: {}", missing.join(", ")),
            "install an ffmpeg that has them, or leave those renditions out of the ladder",
        ),
    });
    findings
}

fn folder(config: &TranscodeConfig) -> Finding {
    let dir = &config.work_dir;
    if let Err(error) = Workspace::open(dir) {
        let seen = format!("{} cannot be used: {error}", dir.display());
        return Finding::ill("transcode.work_dir", seen, "make it writable for the worker's user, or name another");
    }
    let free = rustix::fs::statvfs(dir).map_or(0, |space| space.f_bavail.saturating_mul(space.f_frsize));
    // The source, the samples of the longest one (stereo floats at 48 kHz), and what must stay free.
    let samples = config.max_duration.as_secs().saturating_mul(48_000 * 8);
    let each = config.max_bytes.saturating_add(samples);
    let wanted = each.saturating_mul(config.slots as u64).saturating_add(config.keep_free);
    let (free_mib, wanted_mib) = (free >> 20, wanted >> 20);
    if free < wanted {
        let seen = format!("{free_mib} MiB are free, and {wanted_mib} MiB may be wanted");
        return Finding::doubtful(
            "transcode.work_dir",
            seen,
            "give it more room, or lower [transcode] max_bytes, max_duration or slots",
        );
    }
    Finding::well("transcode.work_dir", format!("{} can be written, {free_mib} MiB are free", dir.display()))
}

/// `None`: no answer in time.
async fn control(config: &TranscodeConfig) -> Option<Finding> {
    let queue = match Queue::new(&config.control, "doctor") {
        Ok(queue) => queue,
        Err(problem) => return Some(Finding::ill("control", problem, "correct [control] url")),
    };
    let finding = match timeout(WITHIN, queue.knock(WITHIN)).await.ok()? {
        Ok(()) => Finding::well("control", "it answers, and the token is good"),
        Err(error @ QueueError::Refused { .. }) => {
            Finding::ill("control", error.to_string(), "check [control] token: it needs the scope `worker`")
        }
        Err(error) => {
            Finding::ill("control", error.to_string(), "check [control] url, and that the control plane runs")
        }
    };
    Some(finding)
}

/// `None`: no answer in time.
async fn objects(config: &TranscodeConfig) -> Option<Finding> {
    let store = Store::new(&config.objects);
    let checked = async {
        store.put_once(PROBE, Bytes::from_static(b"written by segue doctor, and removed again"), "text/plain").await?;
        store.open(PROBE).await?;
        store.remove(PROBE).await
    };
    let advice =
        "check [objects] endpoint, region, bucket and both keys: a worker reads uploads/ and writes and removes hls/";
    let finding = match timeout(WITHIN, checked).await.ok()? {
        Ok(()) => Finding::well("objects", "an object was written, read and removed"),
        Err(StoreError::Missing(key)) => Finding::ill("objects", format!("{key} was written and is not there"), advice),
        Err(error) => Finding::ill("objects", error.to_string(), advice),
    };
    Some(finding)
}
