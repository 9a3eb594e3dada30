//! Uploads of policies that nobody in their right mind would send, to a control plane that runs: forms that are none, files that are none, and
//! modules that are well but for what they do.
//!
//! Purpose: to find an upload that ends the process, hangs it, makes it grow, or keeps it from answering others meanwhile.
//!
//! Invariants: the choices follow from one seed, which is printed. Every upload is answered, with a word where it is refused; a fault of the
//! control plane's own (`internal`) is none of them. After each thousandth a good policy is taken.
//!
//! On failure: [`Report::violations`] says what is wrong, and the log is kept in the folder that [`Report::dir`] names.

mod bodies;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::process::{ADMIN, Process, free_address, get};
use crate::soak::random::Random;
use crate::soak::wire::{Answer, Wire};
use bodies::{Bodies, Body};

/// Uploads at once: one less than the control plane takes, since one that broke off may still hold its place.
const AT_ONCE: u64 = 3;
/// An upload that has its turn is over in this time: 2 s for `configure`, 20 s for vectors, and a compilation.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Others are answered in this time, on two cores of which one compiles.
const OTHERS_WITHIN: Duration = Duration::from_secs(2);
/// Bytes that the process may hold beyond what it had after the first uploads, in MiB: a compilation takes several times the file's size.
const GROWTH_MIB: u64 = 512;
/// Of one sort so many violations are told.
const TOLD: usize = 20;

/// What a run is to be like.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The command under test.
    pub segue: PathBuf,
    /// How long.
    pub length: Duration,
    /// What all choices follow from.
    pub seed: u64,
}

/// What came out.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Report {
    /// Uploads that were answered.
    pub uploads: u64,
    /// By the word of the answer; `taken` where it was.
    pub words: BTreeMap<String, u64>,
    /// By sort of upload.
    pub sorts: BTreeMap<&'static str, u64>,
    /// Other calls meanwhile.
    pub others: u64,
    /// The longest of them, in milliseconds.
    pub slowest_other_ms: u64,
    /// The longest upload, in milliseconds.
    pub slowest_upload_ms: u64,
    /// Resident memory after the first uploads, at most, and at the end, in MiB.
    pub memory_mib: (u64, u64, u64),
    /// What is wrong.
    pub violations: Vec<String>,
    /// Where the log lies, if anything is.
    pub dir: Option<PathBuf>,
}

impl Report {
    fn complain(&mut self, what: String) {
        if self.violations.len() < TOLD {
            self.violations.push(what);
        }
    }

    fn add(&mut self, other: Self) {
        self.uploads += other.uploads;
        self.others += other.others;
        for (word, count) in other.words {
            *self.words.entry(word).or_default() += count;
        }
        for (sort, count) in other.sorts {
            *self.sorts.entry(sort).or_default() += count;
        }
        self.slowest_other_ms = self.slowest_other_ms.max(other.slowest_other_ms);
        self.slowest_upload_ms = self.slowest_upload_ms.max(other.slowest_upload_ms);
        other.violations.into_iter().for_each(|what| self.complain(what));
    }
}

/// Runs it to its end.
///
/// # Errors
/// When it cannot be run at all. What it finds is in the report.
pub async fn run(settings: &Settings) -> anyhow::Result<Report> {
    let dir = tempfile::Builder::new().prefix("segue-policy-fuzz-").tempdir()?;
    let address = free_address()?;
    let database = dir.path().join("control.db");
    let config = json!({
        "listen": address, "database": { "url": format!("sqlite://{}", database.display()) },
        "objects": { "endpoint": "http://127.0.0.1:9", "bucket": "media", "access_key": "a", "secret_key": "b" },
        "edge": { "base_url": "http://edge.test" }, "keys": { "k1": "a secret of the uploads, long enough to be one" },
        "tokens": { "admin": ADMIN },
    });
    let health = (address, (address, "/v1/policies"));
    let mut control = Process::new(&settings.segue, dir.path(), "control", "control", health, &config)?;
    control.start()?;
    control.ready().await?;

    let over = Arc::new(AtomicBool::new(false));
    let others = tokio::spawn(ask_others(address, Arc::clone(&over)));
    let mut senders = Vec::new();
    for number in 0..AT_ONCE {
        let random = Random::of_part(settings.seed, "uploads", number);
        senders.push(tokio::spawn(send(address, number, random, Arc::clone(&over))));
    }
    let (mut report, began, mut first, mut most) = (Report::default(), Instant::now(), None, 0);
    while began.elapsed() < settings.length && !others.is_finished() {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let Ok(now) = memory_mib(&control) else {
            report.complain(format!("the control plane is gone\n{}", control.tail()));
            break;
        };
        // What the first compilations take stays: threads, arenas, the host.
        if began.elapsed() > (settings.length / 6).min(Duration::from_secs(30)) {
            let first = *first.get_or_insert(now);
            most = most.max(now);
            if now > first + GROWTH_MIB {
                report.complain(format!("it holds {now} MiB, and held {first} after the first uploads"));
                break;
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    for sender in senders {
        report.add(sender.await?.unwrap_or_else(|error| broke(&error)));
    }
    report.add(others.await?.unwrap_or_else(|error| broke(&error)));
    if let Err(error) = good(address, "the-last").await {
        report.complain(format!("a good policy is not taken any more: {error:#}\n{}", control.tail()));
    }
    report.memory_mib = (first.unwrap_or(0), most, memory_mib(&control).unwrap_or(0));
    if let Err(error) = control.stop().await {
        report.complain(format!("it does not end well: {error:#}"));
    }
    if !report.violations.is_empty() {
        report.dir = Some(dir.keep());
    }
    Ok(report)
}

fn broke(error: &anyhow::Error) -> Report {
    Report { violations: vec![format!("{error:#}")], ..Report::default() }
}

fn memory_mib(process: &Process) -> anyhow::Result<u64> {
    let pid = process.pid().context("it has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in proc(5)")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

/// What others ask meanwhile.
async fn ask_others(address: SocketAddr, over: Arc<AtomicBool>) -> anyhow::Result<Report> {
    let mut report = Report::default();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        get(address, "/v1/policies").await.context("somebody else's call")?;
        let took = began.elapsed();
        report.others += 1;
        report.slowest_other_ms = report.slowest_other_ms.max(u64::try_from(took.as_millis())?);
        if took > OTHERS_WITHIN {
            report.complain(format!("somebody else waited {took:?} for the list of policies"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(report)
}

/// One who uploads, again and again.
async fn send(address: SocketAddr, number: u64, random: Random, over: Arc<AtomicBool>) -> anyhow::Result<Report> {
    let (mut report, mut bodies) = (Report::default(), Bodies::new(random)?);
    let policy = format!("fuzz-{number}");
    while !over.load(Ordering::Relaxed) {
        let Body { sort, kind, bytes, breaks_off } = bodies.next()?;
        *report.sorts.entry(sort).or_default() += 1;
        let began = Instant::now();
        let head = |length: usize| {
            format!(
                "POST /v1/policies/{policy}/versions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\nContent-Type: {kind}\r\n\
                 Content-Length: {length}\r\nConnection: close\r\n\r\n"
            )
        };
        let wire = Wire::connect(address).await?;
        if breaks_off {
            // More is promised than comes.
            wire.ask_and_leave(&[head(bytes.len() + 1_000).as_bytes(), &bytes].concat(), 0).await?;
            continue;
        }
        let mut wire = wire;
        let request = [head(bytes.len()).as_bytes(), &bytes].concat();
        let answer = tokio::time::timeout(ANSWER_WITHIN, wire.ask_bytes(&request)).await;
        let said = answer.map_err(|_| format!("no answer within {ANSWER_WITHIN:?}"));
        let said = said.and_then(|answer| answer.map_err(|error| format!("no answer: {error:#}")));
        let word = said.and_then(|answer| word(&answer));
        match word {
            Ok(word) => {
                if word == "too-many-versions" || word == "taken" && bodies.is_rarely() {
                    forget(address, &policy).await?;
                }
                *report.words.entry(word).or_default() += 1;
                report.uploads += 1;
            }
            Err(wrong) => {
                let file = std::env::temp_dir().join(format!("segue-policy-fuzz-{number}-{}.body", report.uploads));
                std::fs::write(&file, &bytes)?;
                report.complain(format!("{sort}: {wrong}; the body lies in {}", file.display()));
            }
        }
        report.slowest_upload_ms = report.slowest_upload_ms.max(u64::try_from(began.elapsed().as_millis())?);
        if report.uploads % 1_000 == 999 {
            good(address, &policy).await.context("a good policy in between")?;
        }
    }
    Ok(report)
}

/// The word of an answer. An error: one that no upload may get.
fn word(answer: &Answer) -> Result<String, String> {
    let text = String::from_utf8_lossy(&answer.body);
    if !answer.whole {
        return Err(format!("an answer that ends early, status {}", answer.status));
    }
    let said: Value =
        serde_json::from_str(&text).map_err(|_| format!("status {} and no JSON: {text}", answer.status))?;
    match (answer.status, said["error"].as_str()) {
        (200 | 201, None) => Ok("taken".to_owned()),
        (400 | 409 | 413 | 415 | 422, Some(word)) => Ok(word.to_owned()),
        (503, Some(word @ ("uploads-busy" | "check-slow"))) => Ok(word.to_owned()),
        _ => Err(format!("status {}: {text}", answer.status)),
    }
}

async fn forget(address: SocketAddr, policy: &str) -> anyhow::Result<()> {
    let request = format!(
        "DELETE /v1/policies/{policy} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let answer = Wire::connect(address).await?.ask(&request, true).await?;
    ensure!(matches!(answer.status, 200 | 204 | 404), "the policy {policy} cannot be deleted: {}", answer.status);
    Ok(())
}

/// Uploads what is well; it may have to wait for its turn.
async fn good(address: SocketAddr, policy: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let (kind, bytes) = bodies::good()?;
        let head = format!(
            "POST /v1/policies/{policy}/versions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            bytes.len()
        );
        let answer = Wire::connect(address).await?.ask_bytes(&[head.as_bytes(), &bytes].concat()).await?;
        match word(&answer).map_err(anyhow::Error::msg)?.as_str() {
            "taken" => return Ok(()),
            "too-many-versions" => forget(address, policy).await?,
            word => ensure!(word == "uploads-busy" && began.elapsed() < ANSWER_WITHIN, "refused: {word}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
