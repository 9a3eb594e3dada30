//! An origin: S3 or an HTTP server, asked over Pingora's client with bounded patience.
//!
//! Invariants: every wait has a time-out (turn, name, connection, head, each read, the whole); at most `concurrency`
//! requests run at once; nothing of the client's request reaches the origin but what [`Want`] names; an attempt is
//! repeated only while no byte of its body was passed on, and within a budget; an origin that keeps failing is left
//! alone for a while, and its fallback is asked.
//!
//! On failure: a [`Refusal`] for the client; the details go to the log here, once, with the origin's name.

mod body;
mod breaker;
mod checksum;
mod pool;
mod resolve;
mod s3;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, HOST, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::config::{Addressing, OriginConfig, OriginKind};
use crate::metrics::Metrics;
use crate::refusal::{OriginFailure, Refusal};

pub(crate) use body::OriginBody;
use breaker::{Breaker, Budget};
pub(crate) use checksum::{Checks, Mismatch};
use pool::{IDLE_TIME, Pool};
use resolve::Resolver;
use s3::Signer;

/// A pooled connection that the origin closed meanwhile is no failure of the origin: so many are passed over.
const STALE_CONNECTIONS_MAX: u32 = 4;
/// The longest first wait between attempts; it doubles, and the wait is anything up to it.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// One origin and its connections.
pub(crate) struct Origin {
    pub(crate) name: String,
    pub(crate) config: OriginConfig,
    pool: Pool,
    resolver: Resolver,
    breaker: Breaker,
    budget: Budget,
    /// Who is asked where this one fails; set once, when all origins are there.
    fallback: OnceLock<Weak<Origin>>,
    turn: Arc<Semaphore>,
    signer: Option<Signer>,
    /// `Host`, which signatures cover.
    authority: HeaderValue,
    sni: String,
    /// What stands in front of every key, encoded: base path, bucket, prefix.
    base: String,
    metrics: Arc<Metrics>,
}

/// What is asked of an origin.
pub(crate) struct Want<'w> {
    /// Key without the origin's prefix, decoded.
    pub(crate) key: &'w str,
    /// Query, for HTTP origins, encoded and free of ticket carriers.
    pub(crate) query: Option<&'w str>,
    /// Conditional and range headers.
    pub(crate) headers: &'w [(HeaderName, HeaderValue)],
}

/// An origin's answer. Of S3 one whose status says that it is one: 200, 206, 304, 404, 410, 412 or 416; of an HTTP
/// origin any, a 5xx only after the last attempt.
pub(crate) struct OriginAnswer {
    pub(crate) status: StatusCode,
    pub(crate) head: Box<ResponseHeader>,
    pub(crate) body: OriginBody,
    /// When its request was sent.
    pub(crate) asked: std::time::Instant,
    /// The origin's fallback gave it.
    pub(crate) by_fallback: bool,
}

impl Origin {
    /// # Errors
    /// Where host or bucket cannot stand in a request.
    pub(crate) fn new(
        name: &str,
        config: OriginConfig,
        tasks: TaskTracker,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let endpoint = &config.endpoint;
        let mut host = endpoint.host.clone();
        let mut base = endpoint.path.clone();
        if let OriginKind::S3 { bucket, addressing, .. } = &config.kind {
            match addressing {
                Addressing::Path => base.push_str(&format!("/{}", encode(bucket))),
                Addressing::VirtualHost => host = format!("{bucket}.{host}"),
            }
        }
        base.push('/');
        base.push_str(&encode(&config.prefix));
        let authority = endpoint.authority(&host);
        let signer = Signer::new(&config, &authority);
        let resolver = Resolver::new(&host, endpoint.port, tasks);
        Ok(Self {
            name: name.to_owned(),
            pool: Pool::new(),
            resolver,
            breaker: Breaker::default(),
            budget: Budget::new(),
            fallback: OnceLock::new(),
            turn: Arc::new(Semaphore::new(config.concurrency.min(Semaphore::MAX_PERMITS))),
            signer,
            authority: HeaderValue::from_str(&authority).map_err(|_| format!("{authority:?} is not a host"))?,
            sni: host,
            base,
            config,
            metrics,
        })
    }

    /// Whether requests to it are signed; its keys have no queries.
    pub(crate) fn is_s3(&self) -> bool {
        self.signer.is_some()
    }

    /// Whether `method` may go through to it.
    pub(crate) fn allows(&self, method: &Method) -> bool {
        self.config.methods.iter().any(|allowed| allowed == "*" || allowed == method.as_str())
    }

    /// Whether clients' credentials go through to it, where they are not our tickets.
    pub(crate) fn forwards_everything(&self) -> bool {
        !self.is_s3() && self.config.methods.iter().any(|method| method == "*")
    }

    /// Names who is asked where this one fails. Once; a second call changes nothing.
    pub(crate) fn fall_back_to(&self, other: &Arc<Self>) {
        let _already_set = self.fallback.set(Arc::downgrade(other));
    }

    /// Its name in the configuration.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it is, as its clients call it.
    pub(crate) fn place(&self) -> &str {
        self.authority.to_str().unwrap_or_default()
    }

    /// The key, still encoded, under a path of this origin; `None` where `authority` is another's.
    pub(crate) fn key_of<'l>(&self, authority: Option<&str>, path: &'l str) -> Option<&'l str> {
        let is_ours =
            authority.is_none_or(|authority| self.authority.as_bytes().eq_ignore_ascii_case(authority.as_bytes()));
        if is_ours { path.strip_prefix(self.base.as_str()) } else { None }
    }

    /// The request target of a key.
    pub(crate) fn target(&self, key: &str, query: Option<&str>) -> String {
        let query = query.filter(|query| !query.is_empty());
        let path = format!("{}{}", self.base, encode(key));
        query.map_or(path.clone(), |query| format!("{path}?{query}"))
    }

    /// The headers that make a request ours: host, and for S3 the signature (SigV4).
    pub(crate) fn authorize(&self, request: &mut RequestHeader) -> Result<(), Refusal> {
        request.insert_header(HOST, self.authority.clone()).map_err(|_| Refusal::Internal)?;
        self.signer.as_ref().map_or(Ok(()), |signer| signer.sign(request))
    }

    /// Where to connect to, now.
    pub(crate) async fn peer(&self) -> Result<HttpPeer, OriginFailure> {
        Ok(self.peer_at(self.address().await?))
    }

    async fn address(&self) -> Result<SocketAddr, OriginFailure> {
        self.resolver.pick().await.inspect_err(|_| {
            tracing::warn!(origin = self.name, host = self.sni, "the origin's name could not be resolved");
        })
    }

    fn peer_at(&self, address: SocketAddr) -> HttpPeer {
        let mut peer = HttpPeer::new(address, self.config.endpoint.tls, self.sni.clone());
        peer.options.connection_timeout = Some(self.config.connect_timeout);
        peer.options.total_connection_timeout = Some(self.config.connect_timeout);
        peer.options.read_timeout = Some(self.config.read_timeout);
        peer.options.write_timeout = Some(self.config.read_timeout);
        peer.options.idle_timeout = Some(IDLE_TIME);
        peer
    }

    /// Whether at least half of the turns are free.
    pub(crate) fn has_room(&self) -> bool {
        self.turn.available_permits().saturating_mul(2) >= self.config.concurrency
    }

    /// Waits for one of the origin's `concurrency` turns.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let turn = tokio::time::timeout(self.config.queue_timeout, Arc::clone(&self.turn).acquire_owned());
        turn.await.ok().and_then(Result::ok).ok_or(Refusal::Overloaded)
    }

    /// GETs a key, with retries while that may help, from the fallback where this origin fails.
    ///
    /// # Errors
    /// [`Refusal::Origin`], [`Refusal::Overloaded`].
    pub(crate) async fn get(self: &Arc<Self>, want: &Want<'_>) -> Result<OriginAnswer, Refusal> {
        let step = || tracing::trace_span!("origin");
        let fallback = self.fallback.get().and_then(Weak::upgrade);
        let first = self.guarded(want, fallback.is_none()).instrument(step()).await;
        match (first, fallback) {
            (Err(Refusal::Origin(failure)), Some(fallback)) => {
                self.metrics.origin_fallbacks.add(1);
                tracing::debug!(
                    origin = self.name,
                    fallback = fallback.name,
                    reason = failure.kind(),
                    "the fallback is asked"
                );
                let answer = fallback.guarded(want, true).instrument(step()).await?;
                Ok(OriginAnswer { by_fallback: true, ..answer })
            }
            (first, _) => first,
        }
    }

    /// Asks unless the origin is to be left alone. `keep`: what an HTTP origin says of its own failure is an answer.
    async fn guarded(self: &Arc<Self>, want: &Want<'_>, keep: bool) -> Result<OriginAnswer, Refusal> {
        if !self.breaker.admits() {
            self.metrics.origin_error(&self.name, OriginFailure::CircuitOpen);
            return Err(OriginFailure::CircuitOpen.into());
        }
        let asked = self.ask(want, keep && !self.is_s3()).await;
        let failed = match &asked {
            Ok(answer) => answer.status.is_server_error(),
            Err(Refusal::Origin(failure)) => failure.is_retryable(),
            // A bound of ours says nothing of the origin.
            Err(_) => return asked,
        };
        if !failed {
            self.breaker.succeeded();
        } else if self.breaker.failed() {
            self.metrics.origin_circuits.add(1);
            tracing::warn!(origin = self.name, "the origin keeps failing; it is left alone for a while");
        }
        asked
    }

    async fn ask(self: &Arc<Self>, want: &Want<'_>, keep: bool) -> Result<OriginAnswer, Refusal> {
        let deadline = Instant::now() + self.config.total_timeout;
        let mut turn = Some(self.turn().await?);
        let mut attempt = 1;
        self.budget.deposit();
        loop {
            let keep = keep && attempt >= self.config.attempts;
            let failure = match tokio::time::timeout_at(deadline, self.attempt(want, deadline, &mut turn, keep)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(_) => OriginFailure::Timeout,
            };
            self.metrics.origin_error(&self.name, failure);
            let wait = backoff(attempt);
            let spent = attempt >= self.config.attempts || Instant::now() + wait >= deadline;
            let over = spent || !failure.is_retryable() || turn.is_none();
            if over || !self.budget.spend() {
                self.metrics.origin_retries_refused.add(u64::from(!over));
                tracing::warn!(
                    origin = self.name,
                    key = want.key,
                    attempt,
                    reason = failure.kind(),
                    "an object could not be fetched"
                );
                return Err(failure.into());
            }
            self.metrics.origin_retries.add(1);
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    async fn attempt(
        self: &Arc<Self>,
        want: &Want<'_>,
        deadline: Instant,
        turn: &mut Option<OwnedSemaphorePermit>,
        keep: bool,
    ) -> Result<OriginAnswer, OriginFailure> {
        let address = self.address().await?;
        let asked = std::time::Instant::now();
        let (session, head) = self.converse(address, want).await?;
        let status = head.status;
        let Some(turn_taken) = turn.take() else { return Err(OriginFailure::Unavailable) };
        let body = OriginBody::new(Arc::clone(self), session, address, deadline, turn_taken);
        let answer = |body| Ok(OriginAnswer { status, head, body, asked, by_fallback: false });
        let failure = match status.as_u16() {
            200 | 206 | 304 | 412 | 416 => return answer(body),
            408 | 429 | 500..=599 if !keep => {
                *turn = Some(body.give_up());
                tracing::debug!(origin = self.name, %status, "the origin is not available");
                OriginFailure::Unavailable
            }
            _ if !self.is_s3() => return answer(body),
            404 | 410 => {
                // A bucket that is not there is a mistake of configuration, not an absent object.
                let (code, taken) = body.s3_error_code().await;
                if code.as_deref() != Some("NoSuchBucket") {
                    return answer(taken);
                }
                tracing::error!(origin = self.name, "the bucket does not exist");
                OriginFailure::Refused
            }
            401 | 403 => {
                let (code, _) = body.s3_error_code().await;
                tracing::error!(
                    origin = self.name, %status, code, key = want.key,
                    "the origin refused the edge: check access_key and secret_key, and that they may list the bucket (without that S3 says 403 for an absent key)"
                );
                OriginFailure::Refused
            }
            _ => {
                tracing::warn!(origin = self.name, %status, key = want.key, "the origin's answer is not an object");
                OriginFailure::NotAnObject
            }
        };
        Err(failure)
    }

    /// Sends the request and reads the head, on an idle connection where there is one that lives.
    async fn converse(
        &self,
        address: SocketAddr,
        want: &Want<'_>,
    ) -> Result<(HttpSession, Box<ResponseHeader>), OriginFailure> {
        let peer = self.peer_at(address);
        for _ in 0..STALE_CONNECTIONS_MAX {
            let Some(stream) = self.pool.take(address) else { break };
            let mut session = HttpSession::new_with_options(stream, &peer);
            match self.exchange(&mut session, want).await {
                Ok(head) => return Ok((session, head)),
                // Nothing was answered on a connection from the pool: it was dead already.
                Err(error) if died_in_pool(&error) => {}
                Err(error) => return Err(self.failed("ask", &error)),
            }
        }
        let stream = self.pool.connect(&peer).await.map_err(|error| self.failed("connect", &error))?;
        self.metrics.origin_connections.add(1);
        let mut session = HttpSession::new_with_options(stream, &peer);
        let head = self.exchange(&mut session, want).await.map_err(|error| self.failed("ask", &error))?;
        Ok((session, head))
    }

    async fn exchange(&self, session: &mut HttpSession, want: &Want<'_>) -> Result<Box<ResponseHeader>, Box<Error>> {
        session.read_timeout = Some(self.config.read_timeout);
        session.write_timeout = Some(self.config.read_timeout);
        let target = self.target(want.key, want.query);
        let mut request = RequestHeader::build("GET", target.as_bytes(), Some(12))?;
        for (name, value) in want.headers {
            request.append_header(name.clone(), value.clone())?;
        }
        if !request.headers.contains_key(ACCEPT_ENCODING) {
            request.insert_header(ACCEPT_ENCODING, "identity")?;
        }
        if self.is_s3() {
            request.insert_header(s3::CHECKSUM_MODE, "ENABLED")?;
        }
        self.authorize(&mut request).map_err(|_| Error::new(ErrorType::InternalError))?;
        self.metrics.origin_requests.add(1);
        session.write_request_header(Box::new(request)).await?;
        loop {
            session.read_response().await?;
            let Some(head) = session.resp_header() else { return Err(Error::new(ErrorType::H1Error)) };
            // 100 and 103 come before the answer (RFC 9110, section 15.2).
            if !head.status.is_informational() {
                return Ok(Box::new(head.clone()));
            }
        }
    }

    fn failed(&self, doing: &'static str, error: &Error) -> OriginFailure {
        let failure = classify(error);
        tracing::debug!(origin = self.name, doing, %error, reason = failure.kind(), "an attempt at the origin failed");
        failure
    }
}

fn died_in_pool(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::ConnectionClosed | ErrorType::WriteError | ErrorType::ReadError)
}

/// Pingora's error as one of ours.
pub(crate) fn classify(error: &Error) -> OriginFailure {
    use ErrorType as E;
    match error.etype() {
        E::ConnectTimedout | E::TLSHandshakeTimedout | E::ReadTimedout | E::WriteTimedout => OriginFailure::Timeout,
        E::ConnectRefused | E::ConnectNoRoute | E::ConnectError | E::SocketError | E::BindError => {
            OriginFailure::Unreachable
        }
        E::TLSHandshakeFailure | E::InvalidCert | E::HandshakeError => OriginFailure::Unreachable,
        _ => OriginFailure::Broken,
    }
}

/// The wait after the `attempt`th failure: anything up to a bound that doubles, so that those who failed together do not
/// come back together.
fn backoff(attempt: u32) -> Duration {
    let full = BACKOFF.saturating_mul(1 << attempt.saturating_sub(1).min(8)).min(BACKOFF_MAX);
    let mut random = [0_u8; 2];
    // Without randomness the wait is merely the longest.
    if getrandom::fill(&mut random).is_err() {
        return full;
    }
    full.mul_f64(f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX))
}

/// RFC 3986 percent-encoding of a decoded key, slashes kept: the one form that SigV4 for S3 and the wire share.
fn encode(key: &str) -> String {
    let mut encoded = String::with_capacity(key.len() + 16);
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
