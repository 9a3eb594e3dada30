//! What is the matter with the parts that a control plane stands on: each looked at once, as the control plane, a
//! browser and an uploader would use it.
//!
//! Invariants: what is written to look whether it can be is removed again; the database is not migrated; a secret is in no finding.
//! On failure: that is what it is for; every look has a time limit and ends in a finding.

use std::time::{Duration, UNIX_EPOCH};

use reqwest::{Client, Method, StatusCode};
use segue_config::Finding;
use tokio::time::timeout;

use crate::clock;
use crate::config::ControlConfig;
use crate::hints;
use crate::objects::Objects;
use crate::store::look;

/// A look that takes longer is an answer by itself.
const WITHIN: Duration = Duration::from_secs(15);
/// No track has this name: tracks are called by twelve letters and digits.
const PROBE: &str = "uploads/segue-doctor/probe";
const PROBE_BODY: &[u8] = b"written by segue doctor, and removed again";

const OBJECTS_ADVICE: &str = "check [objects] endpoint, region, bucket and both keys; the control plane reads, writes, lists and \
    removes under uploads/ and hls/";

/// Looks at all that `config` names.
pub async fn examine(config: &ControlConfig) -> Vec<Finding> {
    let mut findings = vec![tokens(config)];
    findings.extend(database(config).await);
    findings.extend(hints(config).await);
    let objects = timeout(WITHIN, objects(config)).await.unwrap_or_else(|_| {
        let seen = format!("no answer within {} s", WITHIN.as_secs());
        vec![Finding::ill("objects", seen, "check address, routing and firewalls between here and there")]
    });
    findings.extend(objects);
    findings.extend(edge(config).await);
    findings
}

fn tokens(config: &ControlConfig) -> Finding {
    let missing: Vec<&str> = [("worker", &config.tokens.worker), ("edge", &config.tokens.edge)]
        .into_iter()
        .filter_map(|(name, token)| token.is_none().then_some(name))
        .collect();
    if missing.is_empty() {
        return Finding::well("tokens", "there is one each for operators, workers and edges");
    }
    Finding::doubtful(
        "tokens",
        format!("none for: {}", missing.join(", ")),
        "workers and edges in other processes need tokens of their own scope; never give them the admin's",
    )
}

async fn database(config: &ControlConfig) -> Vec<Finding> {
    const ADVICE: &str =
        "check [database] url and password, that the server runs, and that its user may do all on this database";
    let seen = match timeout(WITHIN, look::look(&config.database)).await {
        Ok(Ok(seen)) => seen,
        Ok(Err(error)) => return vec![Finding::ill("database", error.to_string(), ADVICE)],
        Err(_) => return vec![Finding::ill("database", format!("no answer within {} s", WITHIN.as_secs()), ADVICE)],
    };
    let mut findings = vec![if seen.read_only {
        Finding::ill("database", format!("{}, and takes no writes", seen.what), "name the server that is written to")
    } else {
        Finding::well("database", seen.what)
    }];
    findings.extend(seen.ahead_ms.map(|ahead| Finding::clock("database.clock", "the database", ahead, 1)));
    findings
}

async fn hints(config: &ControlConfig) -> Option<Finding> {
    let redis = config.redis.as_ref()?;
    Some(match hints::probe(redis).await {
        Ok(()) => Finding::well("redis", "Redis answers and can carry hints between control planes"),
        Err(error) => Finding::doubtful(
            "redis",
            format!("Redis cannot be used: {error}"),
            "control planes look at the database more often meanwhile; check [redis] url and ca",
        ),
    })
}

async fn objects(config: &ControlConfig) -> Vec<Finding> {
    let objects = Objects::new(&config.objects);
    let http = match Client::builder().connect_timeout(Duration::from_secs(5)).no_proxy().build() {
        Ok(http) => http,
        Err(error) => return vec![Finding::ill("objects", error.to_string(), "no HTTP client can be made here")],
    };
    let mut findings = Vec::new();
    // A store says of an object that it is not there, whether there is a bucket or not.
    match objects.has_bucket().await {
        Ok(false) if config.objects.create_bucket => {
            let seen =
                format!("the store answers; the bucket {} will be made at the first start", config.objects.bucket);
            return vec![Finding::well("objects", seen)];
        }
        Ok(false) => {
            let seen = format!("there is no bucket {}", config.objects.bucket);
            return vec![Finding::ill("objects", seen, "make it, or set [objects] create_bucket = true")];
        }
        Ok(true) => {}
        Err(error) => return vec![Finding::ill("objects", error.to_string(), OBJECTS_ADVICE)],
    }
    match objects.head(PROBE).await {
        Ok(_) => findings.push(Finding::well("objects", format!("the bucket {} answers", config.objects.bucket))),
        Err(error) => return vec![Finding::ill("objects", error.to_string(), OBJECTS_ADVICE)],
    }
    let public = config.objects.public_endpoint.as_deref().unwrap_or(&config.objects.endpoint);
    let presigned = match objects.presign_put(PROBE, PROBE_BODY.len() as u64, Some("text/plain"), None, WITHIN).await {
        Ok(presigned) => presigned,
        Err(error) => {
            findings.push(Finding::ill("objects.presign", error.to_string(), OBJECTS_ADVICE));
            return findings;
        }
    };
    let mut put = http.put(&presigned.url).body(PROBE_BODY);
    for (name, value) in &presigned.headers {
        put = put.header(name, value);
    }
    match put.send().await {
        Ok(answer) => {
            findings.extend(clock_of(&answer));
            findings.push(upload(answer.status()));
        }
        Err(error) => findings.push(Finding::ill(
            "objects.upload",
            format!("an uploader cannot reach {public}: {}", root_cause(&error)),
            "set [objects] public_endpoint to the address by which clients reach the store",
        )),
    }
    match objects.head(PROBE).await {
        Ok(Some(found)) if found.bytes == PROBE_BODY.len() as u64 => {
            findings.push(Finding::well("objects.write", "what was uploaded is there, whole"));
        }
        Ok(_) => findings.push(Finding::ill("objects.write", "what was uploaded is not there", OBJECTS_ADVICE)),
        Err(error) => findings.push(Finding::ill("objects.write", error.to_string(), OBJECTS_ADVICE)),
    }
    findings.push(cross_origin(&http, &presigned.url).await);
    if let Err(error) = objects.remove_prefix(PROBE, |_| false).await {
        findings.push(Finding::ill("objects.remove", error.to_string(), OBJECTS_ADVICE));
    }
    findings
}

fn upload(status: StatusCode) -> Finding {
    match status {
        status if status.is_success() => Finding::well("objects.upload", "a presigned upload was taken"),
        StatusCode::FORBIDDEN => Finding::ill(
            "objects.upload",
            "the store refuses a presigned upload with 403",
            "mostly a wrong secret or region, a clock that is off by minutes, or a balancer that changes `Host`",
        ),
        status => Finding::ill(
            "objects.upload",
            format!("the store answers a presigned upload with {status}"),
            OBJECTS_ADVICE,
        ),
    }
}

fn clock_of(answer: &reqwest::Response) -> Option<Finding> {
    let date = answer.headers().get(reqwest::header::DATE)?.to_str().ok()?;
    let date = httpdate::parse_http_date(date).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let ahead = i64::try_from(date.as_millis()).ok()? - clock::now_ms();
    Some(Finding::clock("objects.clock", "the object store", ahead, 1000))
}

/// A browser asks before it uploads from the page (Fetch standard, section 3.3).
async fn cross_origin(http: &Client, url: &str) -> Finding {
    const ORIGIN: &str = "https://segue-doctor.example";
    let asked = http
        .request(Method::OPTIONS, url)
        .header("origin", ORIGIN)
        .header("access-control-request-method", "PUT")
        .header("access-control-request-headers", "content-type")
        .send()
        .await;
    let allowed = asked.ok().and_then(|answer| answer.headers().get("access-control-allow-origin").cloned());
    match allowed.as_ref().and_then(|value| value.to_str().ok()) {
        Some("*" | ORIGIN) => Finding::well("objects.cors", "browsers may upload from the page"),
        _ => Finding::doubtful(
            "objects.cors",
            "the bucket does not let any page upload to it",
            "fine where the page's own origin is allowed, or uploads come by the command; else allow PUT from the page's \
             origin, with all headers, in the bucket's CORS rules",
        ),
    }
}

/// The address that playback URLs begin with.
async fn edge(config: &ControlConfig) -> Option<Finding> {
    let http = Client::builder().connect_timeout(Duration::from_secs(5)).timeout(WITHIN).no_proxy().build().ok()?;
    Some(match http.get(format!("{}/hls/segue-doctor/master.m3u8", config.edge_base_url)).send().await {
        // An edge refuses what has no ticket.
        Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
            Finding::well("edge.base_url", "an edge answers there")
        }
        Ok(answer) => Finding::doubtful(
            "edge.base_url",
            format!("{} answers there without a ticket, and an edge would answer 401", answer.status()),
            "see that [edge] base_url leads to the edges, and that they require tickets",
        ),
        Err(error) => Finding::doubtful(
            "edge.base_url",
            format!("{} cannot be reached from here: {}", config.edge_base_url, root_cause(&error)),
            "fine where listeners reach it; it is what playback URLs begin with",
        ),
    })
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
