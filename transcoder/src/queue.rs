//! The worker protocol: jobs from the control plane over HTTP.
//!
//! Invariants: every wait is bounded; the token appears in no error and no log; an answer that is too large or not what
//! the protocol says is an error, never a guess. Every claim carries the worker's name and this process's random
//! instance, by which the control plane tells a process from the one that had its name before. A claim's names are checked before they become object keys.
//!
//! On failure: [`QueueError::LeaseLost`] means that the job is no longer ours and nothing more may be done for it;
//! everything else may pass.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::{Client, StatusCode};
use segue_config::Secret;
use serde::{Deserialize, Serialize};

use crate::config::ControlEndpoint;
use crate::reject::Failure;

/// How long the control plane may hold a claim open. Longer than most proxies idle out would be cut, shorter costs requests.
pub(crate) const CLAIM_WAIT: Duration = Duration::from_secs(20);
/// An answer of the worker protocol is a few hundred bytes.
const ANSWER_MAX: usize = 64 * 1024;

/// A job that is ours for `lease_ms`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Claim {
    pub(crate) job: String,
    pub(crate) track: String,
    /// Grows with every attempt: what an older attempt sends is refused.
    pub(crate) fence: i64,
    #[serde(default)]
    pub(crate) attempt: u32,
    pub(crate) lease_ms: u64,
    pub(crate) source: SourceRef,
    /// Versions of attempts that died while listeners could play them, oldest first.
    #[serde(default)]
    pub(crate) early: Vec<String>,
}

/// The upload that a job is about.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct SourceRef {
    pub(crate) key: String,
    pub(crate) bytes: u64,
    #[serde(default)]
    pub(crate) filename: String,
    /// What the publisher declared of the file, in hex; `None`: nothing.
    #[serde(default)]
    pub(crate) sha256: Option<String>,
}

#[derive(Serialize)]
struct ClaimRequest<'a> {
    worker: &'a str,
    /// The process that bears the name now.
    instance: &'a str,
    wait_ms: u64,
}

#[derive(Serialize)]
struct ProgressReport<'a> {
    fence: i64,
    stage: &'a str,
    progress: f64,
}

#[derive(Serialize)]
struct EarlyReport<'a> {
    fence: i64,
    version: &'a str,
}

#[derive(Deserialize)]
struct LeaseAnswer {
    lease_ms: u64,
}

/// One rendition, as it was really encoded.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RenditionReport {
    pub(crate) name: String,
    /// Peak bits per second over any stretch of about one segment (RFC 8216, 4.3.4.2).
    pub(crate) bandwidth: u64,
    /// Average bits per second over the whole rendition.
    pub(crate) average_bandwidth: u64,
    pub(crate) codecs: String,
    /// What every sample of it was raised or lowered by, in dB; `None` for one that is left as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gain_db: Option<f64>,
    /// Of a film's picture: width and height, as `640x360`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resolution: Option<String>,
    /// Of a film's picture: pictures per second, to a thousandth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) frame_rate: Option<f64>,
}

/// What was measured and what was done about it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LoudnessReport {
    /// Integrated loudness of the source in LUFS; -70 (the gate of EBU R128) for silence.
    pub(crate) input_lufs: f64,
    /// True peak of the source in dBTP; -120 for digital silence.
    pub(crate) input_true_peak: f64,
    /// What every sample is to be raised or lowered by, in dB, by the peaks of the source.
    pub(crate) gain_db: f64,
}

/// The end of a job that went well.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Completion {
    pub(crate) fence: i64,
    pub(crate) version: String,
    pub(crate) duration_ms: u64,
    /// The master playlist for the alias, with URIs relative to `hls/<track>/`.
    pub(crate) master: String,
    pub(crate) renditions: Vec<RenditionReport>,
    pub(crate) title: String,
    pub(crate) artist: Option<String>,
    pub(crate) album: Option<String>,
    pub(crate) artwork: bool,
    pub(crate) waveform: bool,
    pub(crate) loudness: LoudnessReport,
}

#[derive(Serialize)]
struct FailureReport<'a> {
    fence: i64,
    reason: &'a str,
    message: &'a str,
    retryable: bool,
}

/// Why the control plane did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueueError {
    /// 409: another attempt holds the job, or it was cancelled.
    #[error("the job's lease is lost")]
    LeaseLost,
    /// It answered, and said no.
    #[error("the control plane refused with {status}: {message}")]
    Refused { status: u16, message: String },
    /// It did not answer, or with something that is not the protocol.
    #[error("the control plane cannot be reached: {0}")]
    Unreachable(String),
}

impl QueueError {
    /// Whether the same request may succeed later. A request that is wrong in itself stays wrong.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::LeaseLost => false,
            Self::Unreachable(_) => true,
            Self::Refused { status, .. } => *status >= 500 || matches!(status, 401 | 403 | 408 | 425 | 429),
        }
    }
}

/// The HTTP client of the worker protocol.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    http: Client,
    base: String,
    token: Secret,
    worker: String,
}

impl Queue {
    /// A client for one worker. The error says what is wrong with the address.
    pub(crate) fn new(control: &ControlEndpoint, worker: &str) -> Result<Self, String> {
        let url = url::Url::parse(&control.url).map_err(|error| format!("{:?}: {error}", control.url))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("{:?}: not an http:// or https:// address", control.url));
        }
        let http = Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .pool_idle_timeout(Duration::from_secs(60))
            .redirect(reqwest::redirect::Policy::none())
            // A worker talks to its own control plane; a proxy from the environment would see the token.
            .no_proxy()
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            http,
            base: control.url.trim_end_matches('/').to_owned(),
            token: control.token.clone(),
            worker: worker.to_owned(),
        })
    }

    /// Waits up to [`CLAIM_WAIT`] for a job; `None` when there is none.
    pub(crate) async fn claim(&self) -> Result<Option<Claim>, QueueError> {
        let wait_ms = u64::try_from(CLAIM_WAIT.as_millis()).unwrap_or(u64::MAX);
        let body = ClaimRequest { worker: &self.worker, instance: instance(), wait_ms };
        let answer = self.post("/v1/worker/claim", &body, CLAIM_WAIT + Duration::from_secs(10)).await?;
        let Some(bytes) = answer else { return Ok(None) };
        let claim: Claim = decode(&bytes)?;
        check(&claim)?;
        Ok(Some(claim))
    }

    /// Whether the control plane takes this token: a report on a job that nobody has is refused for the job's sake.
    pub(crate) async fn knock(&self, within: Duration) -> Result<(), QueueError> {
        // A stage that there is: a report that is wrong in itself is refused before anybody asks whose job it is.
        let body = ProgressReport { fence: 0, stage: "fetch", progress: 0.0 };
        match self.post("/v1/worker/jobs/doctor/progress", &body, within).await {
            Ok(_) | Err(QueueError::LeaseLost | QueueError::Refused { status: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reports progress (0 to 1 over the whole job) and renews the lease; returns its new length.
    pub(crate) async fn progress(
        &self,
        claim: &Claim,
        stage: &str,
        progress: f64,
        within: Duration,
    ) -> Result<Duration, QueueError> {
        let body = ProgressReport { fence: claim.fence, stage, progress };
        let path = format!("/v1/worker/jobs/{}/progress", claim.job);
        match self.post(&path, &body, within).await? {
            Some(bytes) => Ok(Duration::from_millis(decode::<LeaseAnswer>(&bytes)?.lease_ms)),
            None => Ok(Duration::from_millis(claim.lease_ms)),
        }
    }

    /// Says that the version can be played while it is still encoded.
    pub(crate) async fn early(&self, claim: &Claim, version: &str) -> Result<(), QueueError> {
        let path = format!("/v1/worker/jobs/{}/early", claim.job);
        let body = EarlyReport { fence: claim.fence, version };
        self.post(&path, &body, Duration::from_secs(5)).await.map(|_| ())
    }

    /// Hands the finished version over; the control plane writes the alias.
    pub(crate) async fn complete(&self, claim: &Claim, completion: &Completion) -> Result<(), QueueError> {
        let path = format!("/v1/worker/jobs/{}/complete", claim.job);
        self.post(&path, completion, Duration::from_secs(30)).await.map(|_| ())
    }

    /// Ends the attempt with a reason.
    pub(crate) async fn fail(&self, claim: &Claim, failure: &Failure, within: Duration) -> Result<(), QueueError> {
        let body = FailureReport {
            fence: claim.fence,
            reason: failure.reason.kind(),
            message: &failure.message,
            retryable: failure.reason.is_retryable(),
        };
        let path = format!("/v1/worker/jobs/{}/fail", claim.job);
        self.post(&path, &body, within).await.map(|_| ())
    }

    async fn post(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
        within: Duration,
    ) -> Result<Option<Vec<u8>>, QueueError> {
        let mut answer = self
            .http
            .post(format!("{}{path}", self.base))
            .bearer_auth(self.token.expose())
            .json(body)
            .timeout(within)
            .send()
            .await
            .map_err(unreachable)?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > ANSWER_MAX {
                return Err(QueueError::Unreachable(format!("its answer to {path} is over {ANSWER_MAX} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        match status {
            StatusCode::NO_CONTENT => Ok(None),
            StatusCode::CONFLICT => Err(QueueError::LeaseLost),
            status if status.is_success() => Ok(Some(bytes)),
            status => Err(QueueError::Refused {
                status: status.as_u16(),
                message: String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control()).take(300).collect(),
            }),
        }
    }
}

/// This process's instance, 16 hexadecimal digits: the same for all of its claims, another in every other process.
fn instance() -> &'static str {
    static INSTANCE: OnceLock<String> = OnceLock::new();
    INSTANCE.get_or_init(|| {
        let random = getrandom::u64().unwrap_or_else(|_| {
            // It need only differ from the process before, not be hard to guess.
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            since.as_secs() << 32 | u64::from(since.subsec_nanos() ^ std::process::id())
        });
        format!("{random:016x}")
    })
}

fn unreachable(error: reqwest::Error) -> QueueError {
    // The URL is left out: an operator may have put a password into it.
    let error = error.without_url();
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    QueueError::Unreachable(format!("{error}{cause}"))
}

fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, QueueError> {
    serde_json::from_slice(bytes).map_err(|error| QueueError::Unreachable(format!("not the worker protocol: {error}")))
}

fn check(claim: &Claim) -> Result<(), QueueError> {
    let word = |text: &str| {
        (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let early = claim.early.iter().all(|version| word(version));
    if word(&claim.job) && word(&claim.track) && early && !claim.source.key.is_empty() && claim.lease_ms > 0 {
        return Ok(());
    }
    Err(QueueError::Unreachable("not the worker protocol: a claim whose names are no ids".to_owned()))
}

/// Waits between attempts: doubles from `first` up to `most`, and each wait is drawn from its upper half, so that
/// workers that lost the same server do not come back as one.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, most }
    }

    pub(crate) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.most);
        let share = getrandom::u32().map_or(1.0, |n| f64::from(n) / f64::from(u32::MAX));
        whole.mul_f64(0.5 + share / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_bound_and_never_beyond() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<_> = (0..8).map(|_| backoff.wait()).collect();
        assert!(waits[0] >= Duration::from_millis(50) && waits[0] <= Duration::from_millis(100));
        assert!(waits.iter().skip(4).all(|w| *w >= Duration::from_millis(500) && *w <= Duration::from_secs(1)));
    }

    #[test]
    fn a_claim_that_would_escape_its_folder_is_refused() {
        let claim = |track: &str| Claim {
            job: "j1".into(),
            track: track.into(),
            fence: 1,
            attempt: 1,
            lease_ms: 1000,
            source: SourceRef { key: "uploads/x".into(), bytes: 1, filename: String::new(), sha256: None },
            early: Vec::new(),
        };
        assert!(check(&claim("abcdefgh2345")).is_ok());
        for bad in ["", "../x", "a/b", "a?b"] {
            assert!(check(&claim(bad)).is_err(), "{bad}");
        }
    }
}
