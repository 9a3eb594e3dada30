//! Test vectors that travel with a policy: in the custom section `segue:vectors` of the file, so that one file is the whole
//! policy and its digest covers them. Whoever checks an upload runs them.
//!
//! The section holds JSON:
//!
//! ```json
//! {
//!   "config": { "allow": ["DE"] },
//!   "keys": { "k": "secret", "p": "-----BEGIN PUBLIC KEY-----…" },
//!   "tables": { "embargo": { "track-1": "1700000000" } },
//!   "vectors": [
//!     { "name": "…", "request": { "country": "FR" }, "expect": { "verdict": "deny", "status": 451, "reason": "country" } }
//!   ]
//! }
//! ```
//!
//! Keys are for the test alone. A vector may have a `config` of its own, for a ticket scheme a `grant` in place of the
//! `request`, and expects a verdict, `{"claims": …}`, `{"refused": "expired"}`, `{"url": …}`, `{"error": …}` or `{"failure": "configuration"}`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wasmparser::{Parser, Payload};

use crate::access::{AccessPolicy, FailMode};
use crate::check::World;
use crate::failure::Failure;
use crate::policy::Policy;
use crate::request::{Claims, Headers, Kind, RequestView};
use crate::scheme::{Grant, TicketScheme};
use crate::services::{Key, KeyError, Services};
use crate::verdict::Verdict;

/// The custom section.
const SECTION: &str = "segue:vectors";

/// A file of vectors.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vectors {
    config: Option<Value>,
    keys: BTreeMap<String, String>,
    tables: HashMap<String, HashMap<String, String>>,
    vectors: Vec<Vector>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    config: Option<Value>,
    #[serde(default)]
    request: Request,
    grant: Option<Grant>,
    expect: Value,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Request {
    method: Option<String>,
    host: String,
    path: Option<String>,
    query: Option<String>,
    track: String,
    file: String,
    kind: Option<String>,
    pos_ms: Option<u64>,
    media_ms: Option<u32>,
    address: Option<IpAddr>,
    country: Option<String>,
    edge: String,
    /// Seconds since the epoch.
    now: u64,
    headers: HashMap<String, String>,
    claims: HashMap<String, String>,
    ctx: Map<String, Value>,
}

/// What is wrong with a file of vectors.
#[derive(Debug, thiserror::Error)]
pub enum VectorError {
    /// Not JSON of the form that is described above.
    #[error("the vectors cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A key in them is none.
    #[error("the vectors' key {0:?}: {1}")]
    Key(String, KeyError),
    /// `kind` is none.
    #[error("the vector {0:?}: {1:?} is no kind; write master, playlist, init, segment, key or other")]
    Kind(String, String),
}

/// How one vector went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// What it expects.
    pub expected: Value,
    /// What came.
    pub came: Value,
    /// Whether they are the same.
    pub passed: bool,
}

impl Vectors {
    /// Reads a file of vectors.
    ///
    /// # Errors
    /// [`VectorError::Json`], with line and column.
    pub fn parse(text: &[u8]) -> Result<Self, VectorError> {
        Ok(serde_json::from_slice(text)?)
    }

    /// The vectors that travel with a file; `None` where there are none. The file must have been checked before.
    ///
    /// # Errors
    /// [`VectorError::Json`], with line and column.
    pub fn inside(bytes: &[u8]) -> Result<Option<Self>, VectorError> {
        for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
            if let Payload::CustomSection(section) = payload
                && section.name() == SECTION
            {
                return Self::parse(section.data()).map(Some);
            }
        }
        Ok(None)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// Runs all of them against `policy`, in order.
    ///
    /// # Errors
    /// The vectors themselves are wrong; a vector that fails is an [`Outcome`].
    pub fn run(&self, policy: &Policy) -> Result<Vec<Outcome>, VectorError> {
        let services = Arc::new(self.services()?);
        self.vectors.iter().map(|vector| self.outcome(vector, policy, &services)).collect()
    }

    /// The same, but no further vector is begun after `end`: fewer outcomes than [`Vectors::len`] then.
    ///
    /// # Errors
    /// The vectors themselves are wrong.
    pub fn run_until(&self, policy: &Policy, end: Instant) -> Result<Vec<Outcome>, VectorError> {
        let services = Arc::new(self.services()?);
        let in_time = self.vectors.iter().take_while(|_| Instant::now() < end);
        in_time.map(|vector| self.outcome(vector, policy, &services)).collect()
    }

    fn services(&self) -> Result<Services, VectorError> {
        let key = |(name, text): (&String, &String)| {
            let key = if text.contains("-----BEGIN") { Key::pem(text) } else { Key::secret(secret(text)) };
            key.map(|key| (name.clone(), key)).map_err(|error| VectorError::Key(name.clone(), error))
        };
        let keys = self.keys.iter().map(key).collect::<Result<_, _>>()?;
        let tables = self.tables.iter().map(|(name, table)| (name.clone(), Arc::new(table.clone()))).collect();
        Ok(Services { keys, tables, signer: true })
    }

    fn outcome(&self, vector: &Vector, policy: &Policy, services: &Arc<Services>) -> Result<Outcome, VectorError> {
        let none = json!({});
        let config = vector.config.as_ref().or(self.config.as_ref()).unwrap_or(&none);
        let came = match policy.checked().world {
            World::Access => judged(vector, policy, config, services)?,
            World::TicketScheme => shown(vector, policy, config, services)?,
        };
        let came = came.unwrap_or_else(|failure| json!({ "failure": failure.kind(), "text": failure.to_string() }));
        let passed = agrees(&vector.expect, &came);
        Ok(Outcome { name: vector.name.clone(), expected: vector.expect.clone(), came, passed })
    }
}

/// Puts `vectors` into a policy, for languages whose compilers write no custom sections.
///
/// # Errors
/// [`VectorError::Json`]: they are none.
pub fn attach(policy: &[u8], vectors: &[u8]) -> Result<Vec<u8>, VectorError> {
    Vectors::parse(vectors)?;
    let mut section = leb128(SECTION.len());
    section.extend_from_slice(SECTION.as_bytes());
    section.extend_from_slice(vectors);
    // Section 0, then its size (WebAssembly core specification, section 5.5.3); components have the same form.
    Ok([policy, &[0], &leb128(section.len()), &section].concat())
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}

/// `hex:` as in the edge's configuration; else the bytes as they stand.
fn secret(text: &str) -> Vec<u8> {
    let Some(hex) = text.strip_prefix("hex:") else { return text.as_bytes().to_vec() };
    let pair = |place| hex.get(place..place + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or_default();
    (0..hex.len()).step_by(2).map(pair).collect()
}

/// Every member that is expected is there and equal; what only came may be more, but for verdicts, which are compared whole.
fn agrees(expected: &Value, came: &Value) -> bool {
    if let (Ok(expected), Ok(came)) = (Verdict::deserialize(expected), Verdict::deserialize(came)) {
        return expected == came;
    }
    match (expected, came) {
        (Value::Object(expected), Value::Object(came)) => {
            expected.iter().all(|(name, value)| came.get(name).is_some_and(|came| agrees(value, came)))
        }
        _ => expected == came,
    }
}

type Came = Result<Result<Value, Failure>, VectorError>;

fn judged(vector: &Vector, policy: &Policy, config: &Value, services: &Arc<Services>) -> Came {
    let label = "tried@vectors";
    let policy = match AccessPolicy::new(policy.clone(), label, config, Arc::clone(services), FailMode::Closed) {
        Ok(policy) => policy,
        Err(failure) => return Ok(Err(failure)),
    };
    vector.view(|view| policy.authorize(view).map(|verdict| json!(verdict)))
}

fn shown(vector: &Vector, policy: &Policy, config: &Value, services: &Arc<Services>) -> Came {
    let scheme = match TicketScheme::new(policy.clone(), "tried@vectors", config, Arc::clone(services)) {
        Ok(scheme) => scheme,
        Err(failure) => return Ok(Err(failure)),
    };
    match &vector.grant {
        Some(grant) => Ok(scheme.sign(grant).map(|answer| match answer {
            Ok(url) => json!({ "url": url }),
            Err(error) => json!({ "error": error }),
        })),
        None => vector.view(|view| {
            scheme.verify(view).map(|answer| match answer {
                Ok(claims) => json!({ "claims": claims }),
                Err(refusal) => json!({ "refused": refusal }),
            })
        }),
    }
}

impl Vector {
    fn view<R>(&self, ask: impl FnOnce(&RequestView<'_>) -> R) -> Result<R, VectorError> {
        let request = &self.request;
        let kind = match request.kind.as_deref() {
            Some("master") => Kind::Master,
            Some("playlist") => Kind::Playlist,
            Some("init") => Kind::Init,
            Some("segment") => Kind::Segment,
            Some("key") => Kind::Key,
            None | Some("other") => Kind::Other,
            Some(other) => return Err(VectorError::Kind(self.name.clone(), other.to_owned())),
        };
        Ok(ask(&RequestView {
            method: request.method.as_deref().unwrap_or("GET"),
            host: &request.host,
            path: request.path.as_deref().unwrap_or("/"),
            query: request.query.as_deref(),
            track: &request.track,
            file: &request.file,
            kind,
            pos_ms: request.pos_ms,
            media_ms: request.media_ms,
            address: request.address,
            country: request.country.as_deref(),
            edge: &request.edge,
            now_ms: request.now.saturating_mul(1000),
            session: request.claims.get("sid").map_or("", String::as_str),
            headers: request,
            claims: request,
        }))
    }
}

impl Headers for Request {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.headers.get(name).map(|value| value.as_str().into())
    }
}

impl Claims for Request {
    fn claim(&self, name: &str) -> Option<Cow<'_, str>> {
        self.claims.get(name).map(|value| value.as_str().into())
    }

    fn context(&self, pointer: &str) -> Option<Cow<'_, str>> {
        context(&self.ctx, pointer)
    }
}

/// A value of a ticket's `ctx`, as policies are shown it: strings as they are, all else as JSON.
#[must_use]
pub fn context<'c>(ctx: &'c Map<String, Value>, pointer: &str) -> Option<Cow<'c, str>> {
    if pointer.is_empty() {
        return serde_json::to_string(ctx).ok().map(Cow::Owned);
    }
    // A member of the object itself, without `~` and further `/`, is what rules ask for: no pointer has to be taken apart.
    let member = pointer.strip_prefix('/')?;
    let value = match member.split_once('/') {
        None if !member.contains('~') => ctx.get(member)?,
        None => ctx.get(&unescaped(member))?,
        Some((first, rest)) => ctx.get(&unescaped(first))?.pointer(&format!("/{rest}"))?,
    };
    Some(value.as_str().map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed))
}

/// RFC 6901, section 4.
fn unescaped(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests;
