//! What is the matter with the parts that an edge stands on: each looked at once, as the edge would use it.
//!
//! Invariants: nothing is changed anywhere; no port of the configuration is bound for longer than a look; a secret is in no finding.
//! On failure: that is what it is for; every look has a time limit and ends in a finding.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::DATE;
use segue_config::Finding;
use segue_signing::{WrappingKeys, check_object, check_place};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::config::{EdgeConfig, OriginConfig, OriginKind};
use crate::control::client::{Client, ControlError, send};
use crate::limit::probe;
use crate::origin::{Origin, Want};
use crate::refusal::{OriginFailure, Refusal};
use crate::snapshot::{unix_ms, unix_s};
use crate::tls;

/// A look that takes longer is an answer by itself.
const WITHIN: Duration = Duration::from_secs(15);
/// Bytes of a snapshot that are read to see that there is one.
const SNAPSHOT_MAX: usize = 64 << 20;
/// An object that no house has: its absence shows that the bucket answers to these credentials.
const NOWHERE: &str = "segue-doctor/no-such-object";
/// Bytes of what shows a wrapping key.
const CHECK_MAX: usize = 1024;
/// Room for connections, files of the disk tier and all else.
const FILES_SPARE: u64 = 1024;
/// A certificate that ends sooner wants a look.
const ENDS_SOON_S: i64 = 14 * 86_400;

/// Looks at all that `config` names.
pub async fn examine(config: &EdgeConfig) -> Vec<Finding> {
    let mut findings = vec![keys(config)];
    findings.extend(addresses(config));
    for (name, origin) in &config.origins {
        findings.extend(Box::pin(within(&section(name), self::origin(name, origin))).await);
        if !config.wrapping.is_empty() && matches!(origin.kind, OriginKind::S3 { .. }) {
            findings.extend(Box::pin(within("wrapping_keys", wrapping(name, origin, &config.wrapping))).await);
        }
    }
    if let Some(endpoint) = &config.control {
        findings.extend(within("control", control(endpoint)).await);
    }
    if let Some(redis) = &config.redis {
        let looked = within("redis", async {
            match probe(redis).await {
                Ok(ahead) => vec![
                    Finding::well("redis", "it answers, and runs scripts"),
                    Finding::clock("redis.clock", "Redis", ahead, 0),
                ],
                Err(error) => {
                    vec![Finding::ill("redis", error, "check [redis] url, ca and cluster, and that Redis runs")]
                }
            }
        });
        findings.extend(looked.await);
    } else if !config.limits.classes.is_empty() {
        findings.push(Finding::doubtful(
            "redis",
            "not configured: this edge limits by itself",
            "where several edges share limits, set [redis] url",
        ));
    }
    findings.extend(folders(config));
    findings.extend(certificates(config));
    findings.push(open_files(config.connections.max));
    findings
}

async fn within(part: &str, look: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    timeout(WITHIN, look).await.unwrap_or_else(|_| {
        let seen = format!("no answer within {} s", WITHIN.as_secs());
        vec![Finding::ill(part, seen, "check address, routing and firewalls between here and there")]
    })
}

fn section(origin: &str) -> String {
    if origin == crate::config::DEFAULT_ORIGIN { "origin".to_owned() } else { format!("origins.{origin}") }
}

fn keys(config: &EdgeConfig) -> Finding {
    let now = unix_s();
    let usable = config.keys.iter().filter(|key| key.retire_at.is_none_or(|at| at > now)).count();
    match (usable, &config.control, config.tickets.required) {
        (0, None, true) => Finding::ill(
            "keys",
            "no key verifies tickets, and no control plane brings one: every request will be refused",
            "name a key in [keys], or set [control]",
        ),
        (0, None, false) => Finding::well("keys", "none, and tickets are not required: a plain cache"),
        (0, Some(_), _) => Finding::well("keys", "they come from the control plane"),
        (keys, ..) => Finding::well("keys", format!("{keys} of this file's keys verify tickets")),
    }
}

fn addresses(config: &EdgeConfig) -> Vec<Finding> {
    let tls = config.tls.as_ref().and_then(|tls| tls.listen).map(|address| ("tls.listen", address));
    let admin = config.admin_listen.map(|address| ("admin_listen", address));
    let mut findings: Vec<Finding> = [Some(("listen", config.listen)), admin, tls]
        .into_iter()
        .flatten()
        .map(|(part, address)| match TcpListener::bind(address) {
            Ok(_) => Finding::well(part, format!("{address} is free")),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Finding::doubtful(
                part,
                format!("{address} is in use"),
                "by this edge if it runs; else end what listens there, or choose another",
            ),
            Err(error) => Finding::ill(part, format!("{address}: {error}"), "choose an address of this machine"),
        })
        .collect();
    if let Some(address) = config.admin_listen
        && !address.ip().is_loopback()
    {
        findings.push(Finding::doubtful(
            "admin_listen",
            format!("{address} can be reached from elsewhere"),
            "see that clients cannot reach it: metrics name tracks' counts, and purges need the token alone",
        ));
    }
    findings
}

async fn origin(name: &str, config: &OriginConfig) -> Vec<Finding> {
    let part = section(name);
    let made = Origin::new(name, OriginConfig { attempts: 1, ..config.clone() }, TaskTracker::new(), Arc::default());
    let origin = match made {
        Ok(origin) => Arc::new(origin),
        Err(problem) => return vec![Finding::ill(part, problem, "correct the endpoint or the bucket")],
    };
    let asked = origin.get(&Want { key: NOWHERE, query: None, headers: &[] }).await;
    let answer = match asked {
        Ok(answer) => answer,
        Err(refusal) => {
            let advice = if origin.is_s3() {
                "check endpoint, region, bucket and both keys; S3 answers 403 for an absent object where the key may not list \
                 the bucket (s3:ListBucket), and absence can then not be told from refusal"
            } else {
                "check the endpoint, and that the server runs"
            };
            return vec![Finding::ill(part, refusal.to_string(), advice)];
        }
    };
    let date = answer.head.headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    let clock = date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok()).map(|date| {
        let ahead = i64::try_from(date.as_millis()).unwrap_or(0) - i64::try_from(unix_ms()).unwrap_or(0);
        Finding::clock(&format!("{part}.clock"), "the origin", ahead, 1000)
    });
    let seen = match answer.status {
        StatusCode::NOT_FOUND => Finding::well(part, "it answers, and knows its own absences"),
        status => Finding::doubtful(
            part,
            format!("it answers {status} for an object that is not there"),
            "an origin that has an answer for everything hides missing files from players",
        ),
    };
    [Some(seen), clock].into_iter().flatten().collect()
}

/// Whether each wrapping key opens what the bucket's workers have wrapped with it, to show which it is.
async fn wrapping(name: &str, config: &OriginConfig, keys: &WrappingKeys) -> Vec<Finding> {
    let made = Origin::new(name, OriginConfig { attempts: 1, ..config.clone() }, TaskTracker::new(), Arc::default());
    // An origin that cannot be made has its own finding.
    let Ok(origin) = made.map(Arc::new) else { return Vec::new() };
    let mut findings = Vec::new();
    for id in keys.ids() {
        let part = format!("wrapping_keys.{id}");
        let of = section(name);
        findings.push(match shown(&origin, &check_object(id)).await {
            Ok(Some(wrapped)) => match keys.unwrap(&wrapped, &check_place(id)) {
                Ok(_) => Finding::well(part, format!("it opens what the workers of [{of}] wrap")),
                Err(error) => Finding::ill(
                    part,
                    format!("[{of}]: {error}"),
                    "take the secret that the workers have under this id; segments under it cannot be played through this edge",
                ),
            },
            Ok(None) => Finding::doubtful(
                part,
                format!("no worker has wrapped anything with it in [{of}]"),
                "fine where it is to be used from now on, or in another bucket",
            ),
            Err(refusal) => Finding::ill(part, format!("[{of}]: {refusal}"), "see the finding on the origin"),
        });
    }
    findings
}

/// A small object's bytes; `None` where there is no such object.
async fn shown(origin: &Arc<Origin>, key: &str) -> Result<Option<Vec<u8>>, Refusal> {
    let mut answer = origin.get(&Want { key, query: None, headers: &[] }).await?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Ok(None),
        _ => return Err(OriginFailure::NotAnObject.into()),
    }
    let mut bytes = Vec::new();
    while let Some(piece) = answer.body.piece().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > CHECK_MAX {
            return Err(OriginFailure::NotAnObject.into());
        }
    }
    Ok(Some(bytes))
}

async fn control(endpoint: &crate::config::ControlEndpoint) -> Vec<Finding> {
    let client = match Client::new(endpoint) {
        Ok(client) => client,
        Err(problem) => return vec![Finding::ill("control", problem, "check [control] url")],
    };
    match send(client.get("/v1/edge/snapshot"), WITHIN, SNAPSHOT_MAX).await {
        Ok(_) => vec![Finding::well("control", "it answers, and the token is good")],
        // The message has its own advice.
        Err(error @ ControlError::Refused { .. }) => vec![Finding::ill("control", error.to_string(), "see there")],
        Err(error) => {
            vec![Finding::ill("control", error.to_string(), "an edge with a snapshot on its disk starts all the same")]
        }
    }
}

fn folders(config: &EdgeConfig) -> Vec<Finding> {
    let disk =
        config.cache.dir.as_deref().filter(|_| config.cache.disk > 0).map(|dir| ("cache.dir", dir, config.cache.disk));
    let snapshot = config.snapshot.dir.as_deref().map(|dir| ("snapshot.dir", dir, 0));
    [disk, snapshot].into_iter().flatten().map(|(part, dir, wanted)| folder(part, dir, wanted)).collect()
}

fn folder(part: &str, dir: &Path, wanted: u64) -> Finding {
    // A folder that is not there yet is made at the start, in the nearest one that is.
    let Some(nearest) = dir.ancestors().find(|folder| folder.is_dir()) else {
        return Finding::ill(part, format!("{} leads nowhere", dir.display()), "name an absolute path");
    };
    if let Err(error) = rustix::fs::access(nearest, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        let seen = format!("{} cannot be written: {error}", nearest.display());
        return Finding::ill(part, seen, "give it to the user that this command runs as, or run it as the edge's user");
    }
    let Ok(space) = rustix::fs::statvfs(nearest) else {
        return Finding::well(part, format!("{} can be written", nearest.display()));
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let (free_mib, wanted_mib) = (free >> 20, wanted >> 20);
    if free < wanted {
        let seen = format!("{free_mib} MiB are free beside what is used, and {wanted_mib} MiB may be wanted");
        return Finding::doubtful(part, seen, "fine where the cache is filled already; else lower [cache] disk");
    }
    Finding::well(part, format!("{} can be written, {free_mib} MiB are free", nearest.display()))
}

fn certificates(config: &EdgeConfig) -> Vec<Finding> {
    let Some(config) = &config.tls else { return Vec::new() };
    let ends = match tls::soonest_end(config) {
        Ok(ends) => ends,
        Err(problem) => {
            return vec![Finding::ill("tls", problem.to_string(), "the files must hold a chain in PEM and its key")];
        }
    };
    let left = ends - unix_s();
    let seen = format!("the first certificate ends in {} days", left / 86_400);
    let renew = "renew it: the edge takes a new file over by itself";
    vec![match left {
        ..=0 => Finding::ill("tls", "a certificate has ended", renew),
        left if left < ENDS_SOON_S => Finding::doubtful("tls", seen, renew),
        _ => Finding::well("tls", seen),
    }]
}

fn open_files(connections: usize) -> Finding {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let wanted = connections as u64 + FILES_SPARE;
    match limit {
        Some(limit) if limit < wanted => Finding::doubtful(
            "connections.max",
            format!("{connections} connections may be open, and this process may open {limit} files"),
            format!(
                "raise it (systemd: LimitNOFILE={wanted}; a shell: ulimit -n {wanted}), or lower [connections] max"
            ),
        ),
        _ => Finding::well("connections.max", "the limit of open files has room for every connection"),
    }
}
