//! An origin: S3 or an HTTP server, asked over Pingora's client with bounded patience.
//!
//! Invariants: every wait has a time-out (turn, name, connection, head, each read, the whole); at most `concurrency`
//! requests run at once; nothing of the client's request reaches the origin but what [`Want`] names; an attempt is
//! repeated only while no byte of its body was passed on.
//!
//! On failure: a [`Refusal`] for the client; the details go to the log here, once, with the origin's name.

mod body;
mod resolve;
mod s3;

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, HOST, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::v1::Connector;
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
use resolve::Resolver;
use s3::Signer;

/// Idle connections that are kept; beyond it the oldest is closed.
const IDLE_CONNECTIONS: usize = 128;
/// How long an idle connection is kept: below the 60 s after which common balancers drop theirs silently.
const IDLE_TIME: Duration = Duration::from_secs(50);
/// A pooled connection that the origin closed meanwhile is no failure of the origin: so many are passed over.
const STALE_CONNECTIONS_MAX: u32 = 4;
/// The first wait between attempts; it doubles, with jitter of one half.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// One origin and its pool.
pub(crate) struct Origin {
    pub(crate) name: String,
    pub(crate) config: OriginConfig,
    connector: Connector,
    resolver: Resolver,
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

/// An origin's answer whose status says that it is one: 200, 206, 304, 404, 410, 412 or 416.
pub(crate) struct OriginAnswer {
    pub(crate) status: StatusCode,
    pub(crate) head: Box<ResponseHeader>,
    pub(crate) body: OriginBody,
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
            connector: Connector::new(Some(ConnectorOptions::new(IDLE_CONNECTIONS))),
            resolver,
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

    /// Its name in the configuration.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it is, as its clients call it.
    pub(crate) fn place(&self) -> &str {
        self.authority.to_str().unwrap_or_default()
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
        let address = self.resolver.pick().await.inspect_err(|_| {
            tracing::warn!(origin = self.name, host = self.sni, "the origin's name could not be resolved");
        })?;
        let mut peer = HttpPeer::new(address, self.config.endpoint.tls, self.sni.clone());
        peer.options.connection_timeout = Some(self.config.connect_timeout);
        peer.options.total_connection_timeout = Some(self.config.connect_timeout);
        peer.options.read_timeout = Some(self.config.read_timeout);
        peer.options.write_timeout = Some(self.config.read_timeout);
        peer.options.idle_timeout = Some(IDLE_TIME);
        Ok(peer)
    }

    /// Waits for one of the origin's `concurrency` turns.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let turn = tokio::time::timeout(self.config.queue_timeout, Arc::clone(&self.turn).acquire_owned());
        turn.await.ok().and_then(Result::ok).ok_or(Refusal::Overloaded)
    }

    /// GETs a key, with retries while that may help.
    ///
    /// # Errors
    /// [`Refusal::Origin`], [`Refusal::Overloaded`].
    pub(crate) async fn get(self: &Arc<Self>, want: &Want<'_>) -> Result<OriginAnswer, Refusal> {
        self.ask(want).instrument(tracing::trace_span!("origin")).await
    }

    async fn ask(self: &Arc<Self>, want: &Want<'_>) -> Result<OriginAnswer, Refusal> {
        let deadline = Instant::now() + self.config.total_timeout;
        let mut turn = Some(self.turn().await?);
        let mut attempt = 1;
        loop {
            let failure = match tokio::time::timeout_at(deadline, self.attempt(want, deadline, &mut turn)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(_) => OriginFailure::Timeout,
            };
            self.metrics.origin_error(&self.name, failure);
            let wait = backoff(attempt);
            let spent = attempt >= self.config.attempts || Instant::now() + wait >= deadline;
            if spent || !failure.is_retryable() || turn.is_none() {
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
    ) -> Result<OriginAnswer, OriginFailure> {
        let peer = self.peer().await?;
        let mut stale = 0;
        let (session, head) = loop {
            let connected = self.connector.get_http_session(&peer).await;
            let (mut session, reused) = connected.map_err(|error| self.failed("connect", &error))?;
            match self.exchange(&mut session, want).await {
                Ok(head) => break (session, head),
                // Nothing was answered on a connection from the pool: it was dead already.
                Err(error) if reused && stale < STALE_CONNECTIONS_MAX && died_in_pool(&error) => stale += 1,
                Err(error) => return Err(self.failed("ask", &error)),
            }
        };
        let status = head.status;
        let Some(turn_taken) = turn.take() else { return Err(OriginFailure::Unavailable) };
        let body = OriginBody::new(Arc::clone(self), session, peer, deadline, turn_taken);
        let failure = match status.as_u16() {
            200 | 206 | 304 | 412 | 416 => return Ok(OriginAnswer { status, head, body }),
            404 | 410 if self.is_s3() => {
                // A bucket that is not there is a mistake of configuration, not an absent object.
                let (code, taken) = body.s3_error_code().await;
                if code.as_deref() != Some("NoSuchBucket") {
                    return Ok(OriginAnswer { status, head, body: taken });
                }
                tracing::error!(origin = self.name, "the bucket does not exist");
                OriginFailure::Refused
            }
            404 | 410 => return Ok(OriginAnswer { status, head, body }),
            401 | 403 => {
                let (code, _) = body.s3_error_code().await;
                tracing::error!(
                    origin = self.name, %status, code, key = want.key,
                    "the origin refused the edge: check access_key and secret_key, and that they may list the bucket (without that S3 says 403 for an absent key)"
                );
                OriginFailure::Refused
            }
            408 | 429 | 500..=599 => {
                *turn = Some(body.give_up());
                tracing::debug!(origin = self.name, %status, "the origin is not available");
                OriginFailure::Unavailable
            }
            _ => {
                tracing::warn!(origin = self.name, %status, key = want.key, "the origin's answer is not an object");
                OriginFailure::NotAnObject
            }
        };
        Err(failure)
    }

    async fn exchange(&self, session: &mut HttpSession, want: &Want<'_>) -> Result<Box<ResponseHeader>, Box<Error>> {
        session.read_timeout = Some(self.config.read_timeout);
        session.write_timeout = Some(self.config.read_timeout);
        let target = self.target(want.key, want.query);
        let mut request = RequestHeader::build("GET", target.as_bytes(), Some(12))?;
        request.insert_header(ACCEPT_ENCODING, "identity")?;
        for (name, value) in want.headers {
            request.insert_header(name.clone(), value.clone())?;
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

/// The wait after the `attempt`th failure: exponential, with the upper half random so that edges do not march in step.
fn backoff(attempt: u32) -> Duration {
    let full = BACKOFF.saturating_mul(1 << attempt.saturating_sub(1).min(8)).min(BACKOFF_MAX);
    let mut random = [0_u8; 2];
    // Without randomness the wait is merely the longest.
    if getrandom::fill(&mut random).is_err() {
        return full;
    }
    full / 2 + full.mul_f64(f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX) / 2.0)
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
