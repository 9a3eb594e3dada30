//! What an upload must pass before it is taken: size, form, world, imports, its configuration, the test vectors that travel with it.
//!
//! Invariants: off the threads that answer requests, one at a time, each within a time; what cannot be stopped (a compilation) keeps its turn
//! until it ends, so that impatient callers pile up nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use segue_policy_host::vectors::{Outcome, VectorError, Vectors};
use segue_policy_host::{
    AccessPolicy, Checked, FailMode, Failure, Policy, PolicyHost, Refused, Services, TicketScheme, World,
};
use serde_json::Value;

/// How long all of a file's vectors may run: each makes an instance, and may use up the time of a `configure` and a call.
const VECTORS_WITHIN: Duration = Duration::from_secs(20);

/// Bytes of a value in a message about a vector.
const SHOWN: usize = 200;

/// What was found out about a file that passed.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) checked: Checked,
    /// Vectors that it passed.
    pub(crate) vectors: usize,
}

/// Why an upload is not taken. Each text says what and where.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("the file is not taken: {0}")]
    File(#[from] Refused),
    #[error("the policy does not start with this configuration: {0}")]
    Configure(Failure),
    #[error("the self-test vectors that travel with the policy cannot be read: {0}")]
    Vectors(#[from] VectorError),
    #[error(
        "self-test: {failed} of {of} vectors fail; the first is {name:?}, which expects {expected} and gets {came}"
    )]
    SelfTest { failed: usize, of: usize, name: String, expected: String, came: String },
    #[error("self-test: only {done} of {of} vectors were done after {} s; fewer or quicker ones are needed", VECTORS_WITHIN.as_secs())]
    SelfTestSlow { done: usize, of: usize },
}

impl Unfit {
    /// The reason word.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::File(Refused::Invalid(_)) => "invalid-wasm",
            Self::File(refused) => refused.kind(),
            Self::Configure(failure) => match failure {
                Failure::Trap(_) => "configure-trap",
                Failure::Timeout => "configure-timeout",
                Failure::OutOfMemory => "configure-out-of-memory",
                Failure::StackExhausted => "configure-stack-exhausted",
                Failure::BadOutput(_) => "configure-bad-output",
                Failure::Configuration(_) | Failure::Resting => "configure-refused",
            },
            Self::Vectors(_) => "self-test-unreadable",
            Self::SelfTest { .. } => "self-test-failed",
            Self::SelfTestSlow { .. } => "self-test-slow",
        }
    }
}

/// All of it. Takes as long as a compilation takes: milliseconds for a policy in Rust, seconds for one that brings an interpreter.
pub(crate) fn check(
    host: &PolicyHost,
    bytes: &[u8],
    config: &Value,
    services: &Arc<Services>,
) -> Result<Passed, Unfit> {
    let policy = host.compile(bytes)?;
    configured(&policy, config, services).map_err(Unfit::Configure)?;
    let vectors = match Vectors::inside(bytes)? {
        Some(vectors) => self_test(&vectors, &policy)?,
        None => 0,
    };
    Ok(Passed { checked: policy.checked().clone(), vectors })
}

fn configured(policy: &Policy, config: &Value, services: &Arc<Services>) -> Result<(), Failure> {
    let services = Arc::clone(services);
    match policy.checked().world {
        World::Access => {
            AccessPolicy::new(policy.clone(), "checked@upload", config, services, FailMode::Closed).map(drop)
        }
        World::TicketScheme => TicketScheme::new(policy.clone(), "checked@upload", config, services).map(drop),
    }
}

fn self_test(vectors: &Vectors, policy: &Policy) -> Result<usize, Unfit> {
    let of = vectors.len();
    let outcomes = vectors.run_until(policy, Instant::now() + VECTORS_WITHIN)?;
    let mut failed = outcomes.iter().filter(|outcome| !outcome.passed).peekable();
    if let Some(first) = failed.peek() {
        let Outcome { name, expected, came, .. } = (*first).clone();
        return Err(Unfit::SelfTest {
            failed: failed.count(),
            of,
            name,
            expected: shown(&expected),
            came: shown(&came),
        });
    }
    if outcomes.len() < of {
        return Err(Unfit::SelfTestSlow { done: outcomes.len(), of });
    }
    Ok(of)
}

fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > SHOWN {
        let end = (0..=SHOWN).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
