//! The data path on one screen: what happens to a request, in order. Each step is a file of its own.
//!
//! | step    | file         | may refuse with |
//! |---------|--------------|-----------------|
//! | route   | `route.rs`   | 400, 404, 414   |
//! | ticket  | `ticket.rs`  | 400, 401, 403   |
//! | cache   | `cache.rs`   | 404, 502, 503, 504; a miss goes on in `fill.rs` and `origin.rs` |
//! | respond | `respond.rs` | 304, 412, 416   |
//! | fact    | `fact.rs`    | never           |
//!
//! Invariants: GET, HEAD and OPTIONS are answered without Pingora's upstream machinery: a hit in `connection.rs`, which
//! runs these same steps, the rest in `request_filter`, which goes on from where the connection stopped; a step sees
//! only what the steps before it allowed.

use std::sync::Arc;

use async_trait::async_trait;
use http::Method;
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use crate::cache::{self, Found, Key};
use crate::downstream::Downstream;
use crate::edge::Shared;
use crate::exchange::{Asked, Exchange};
use crate::refusal::Refusal;
use crate::respond;
use crate::route;
use crate::ticket;
use crate::timeline::{FILL_PATIENCE, HIT_PATIENCE, Media, Timeline};
use crate::upstream;

/// Pingora's view of an edge.
#[derive(Clone)]
pub(crate) struct Service {
    shared: Arc<Shared>,
}

/// Where an admitted request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// Answered here, from the cache.
    Here,
    /// Let through to the origin.
    Upstream,
}

/// What the memory knows of an object, before anything is waited for.
pub(crate) struct Looked {
    /// `None`: nothing that is fresh.
    pub(crate) fresh: Option<Result<Found, Refusal>>,
    /// Its place in the track. `None`: not known yet; `Some(None)`: none, or the object knows it.
    pub(crate) place: Option<Option<Media>>,
}

impl Service {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The steps that decide, none of which waits for anything.
    pub(crate) fn admit<'h>(&self, asked: impl Into<Asked<'h>>, exchange: &mut Exchange) -> Result<Course, Refusal> {
        let shared = &*self.shared;
        let asked = asked.into();
        let line = route::line(asked);
        let now = exchange.started_s();
        let target = exchange.target.insert(route::resolve(&shared.routes, &line)?);
        exchange.grant = ticket::admit(
            &shared.config.tickets,
            &shared.tickets,
            &exchange.snapshot,
            &line,
            asked.headers,
            target,
            exchange.client,
            now,
        )?;
        let origin = upstream::origin(shared, exchange)?;
        exchange.query = upstream::query(origin, line.query);
        match *asked.method {
            Method::GET | Method::HEAD => Ok(Course::Here),
            ref method if origin.allows(method) => Ok(Course::Upstream),
            _ => Err(Refusal::MethodNotAllowed),
        }
    }

    /// What the memory holds. Waits for nothing.
    pub(crate) fn look(&self, method: &Method, exchange: &Exchange) -> Result<Looked, Refusal> {
        let shared = &self.shared;
        let target = exchange.target.as_ref().ok_or(Refusal::NoRoute)?;
        let key = cache::key(shared, &exchange.snapshot, target, exchange.query.as_deref());
        let fresh = cache::fresh(shared, key, exchange.started);
        let place = match &fresh {
            Some(Ok(Found::Memory(object, _))) if object.media.get().is_some() => Some(None),
            _ => Timeline::known(shared, method, key, target),
        };
        Ok(Looked { fresh, place })
    }

    /// Where the bytes come from, and where in the track they play: side by side where either has to be waited for.
    async fn find(&self, method: &Method, exchange: &mut Exchange) -> Result<(Found, Option<Media>), Refusal> {
        let shared = &self.shared;
        let Looked { fresh, place } = match exchange.looked.take() {
            Some(looked) => looked,
            None => self.look(method, exchange)?,
        };
        let target = exchange.target.as_ref().ok_or(Refusal::NoRoute)?;
        let query = exchange.query.as_deref();
        let key = Key::from(cache::key(shared, &exchange.snapshot, target, query));
        match (fresh, place) {
            (Some(found), Some(media)) => Ok((found?, media)),
            (Some(found), None) => {
                Timeline::beside(shared, &key, target, std::future::ready(Ok(found?)), HIT_PATIENCE).await
            }
            (None, Some(media)) => Ok((cache::filled(shared, key, target, query).await?, media)),
            (None, None) => {
                let filled = cache::filled(shared, key.clone(), target, query);
                Timeline::beside(shared, &key, target, filled, FILL_PATIENCE).await
            }
        }
    }

    async fn answer(&self, session: &mut Session, exchange: &mut Exchange) -> Result<()> {
        let refusal = match self.find(&session.req_header().method, exchange).await {
            Ok((found, media)) => match respond::send(&self.shared, session, exchange, found, media).await? {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal,
            },
            Err(refusal) => refusal,
        };
        respond::refuse(&self.shared, session, exchange, &refusal).await
    }

    /// Bounds of this request on its connection.
    fn bind(&self, session: &mut Session, exchange: &mut Exchange) {
        exchange.client = session.client_addr().and_then(|address| address.as_inet()).map(std::net::SocketAddr::ip);
        let connections = &self.shared.config.connections;
        session.set_write_timeout(Some(connections.write_timeout));
        session.set_read_timeout(Some(connections.head_timeout));
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(connections.idle_timeout.as_secs().max(1)));
        }
        // Off by default, and then the next of two requests that come in one packet is lost.
        session.set_pipelining_enabled(true);
        if let Some(stream) = downstream(session) {
            stream.head_is_read();
        }
    }
}

fn downstream(session: &Session) -> Option<&Downstream> {
    session.as_downstream().stream().and_then(|stream| (**stream).as_any().downcast_ref())
}

#[async_trait]
impl ProxyHttp for Service {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new(self.shared.snapshots.current())
    }

    /// None: the default compression module would look at every response.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        if let Some(prepared) = downstream(session).and_then(Downstream::take_prepared) {
            *exchange = prepared;
        }
        self.bind(session, exchange);
        if session.req_header().method == Method::OPTIONS {
            respond::preflight(session, &self.shared.allowed_methods(exchange)).await?;
            return Ok(true);
        }
        let admitted = exchange.admitted.take();
        match admitted.unwrap_or_else(|| self.admit(session.req_header(), exchange)) {
            Ok(Course::Here) => self.answer(session, exchange).await?,
            Ok(Course::Upstream) => return Ok(false),
            Err(refusal) => respond::refuse(&self.shared, session, exchange, &refusal).await?,
        }
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
        upstream::peer(&self.shared, exchange).await.map_err(|refusal| upstream::error(&refusal))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        upstream::rebuild(&self.shared, exchange, request).map_err(|refusal| upstream::error(&refusal))
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        if response.status.is_success() || response.status.is_redirection() {
            upstream::invalidate(&self.shared, exchange);
        }
        Ok(())
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, exchange: &mut Exchange) -> FailToProxy {
        let over = FailToProxy { error_code: 0, can_reuse_downstream: false };
        if session.response_written().is_some() || *error.esource() == pingora_core::ErrorSource::Downstream {
            return over;
        }
        let refusal = upstream::failure(error);
        tracing::warn!(%error, reason = refusal.reason(), "a request could not be let through");
        match respond::refuse(&self.shared, session, exchange, &refusal).await {
            Ok(()) => FailToProxy { error_code: refusal.status().as_u16(), can_reuse_downstream: false },
            Err(_) => over,
        }
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, _exchange: &mut Exchange) {
        if let Some(stream) = downstream(session) {
            stream.expect_head();
        }
    }

    /// Never the request target: it may hold a ticket.
    fn request_summary(&self, session: &Session, exchange: &Exchange) -> String {
        let path = exchange.target.as_ref().map_or("-", |target| target.path.as_str());
        format!("{} {path}", session.req_header().method)
    }

    /// Logged where it was handled.
    fn suppress_error_log(&self, _session: &Session, _exchange: &Exchange, _error: &Error) -> bool {
        true
    }
}
