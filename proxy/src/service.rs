//! The data path on one screen: what happens to a request, in order. Each step is a file of its own.
//!
//! | step    | file         | may refuse with |
//! |---------|--------------|-----------------|
//! | route   | `route.rs`   | 400, 404, 414   |
//! | limit   | `limit.rs`   | 429, 503; the address here, session and track after the ticket |
//! | ticket  | `ticket.rs`  | 400, 401, 403; somebody else's in `policy/foreign.rs` |
//! | policy  | `policy.rs`  | what the policy says |
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
use crate::client;
use crate::downstream::Downstream;
use crate::edge::Shared;
use crate::exchange::{Asked, Exchange};
use crate::limit;
use crate::playlist;
use crate::policy;
use crate::prefetch;
use crate::refusal::Refusal;
use crate::respond;
use crate::route::{self, Line};
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
    /// Not decided yet: the policies judge by where the object plays, and its playlist has to be asked first.
    Unplaced,
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
        exchange.client = exchange.client.map(|peer| client::address(&shared.config.client, peer, asked.headers));
        shared.standing.check()?;
        let line = route::line(asked);
        self.identify(asked, &line, exchange)?;
        exchange.presentation = exchange
            .target
            .as_ref()
            .and_then(|target| playlist::presentation(playlist::mode(shared, target), target, &line, asked));
        let origin = upstream::origin(shared, exchange)?;
        exchange.query = upstream::query(origin, line.query, exchange.foreign.as_deref().unwrap_or_default());
        if !policy::is_placed(shared, exchange) {
            return Ok(Course::Unplaced);
        }
        self.permit(asked, &line, exchange)
    }

    /// What is asked for, and by whom.
    fn identify(&self, asked: Asked<'_>, line: &Line<'_>, exchange: &mut Exchange) -> Result<(), Refusal> {
        let shared = &*self.shared;
        let now = exchange.started_s();
        let resolved = route::resolve(&shared.routes, line);
        if exchange.snapshot.policies.knows_foreign_tickets() && !ticket::is_shown(line, asked.headers) {
            return policy::foreign::admit(shared, exchange, asked, line, resolved);
        }
        let target = exchange.target.insert(resolved?);
        let kind = target.kind;
        limit::address(shared, exchange, kind)?;
        let target = exchange.target.as_ref().ok_or(Refusal::NoRoute)?;
        exchange.grant = ticket::admit(
            &shared.config.tickets,
            &shared.tickets,
            &exchange.snapshot,
            line,
            asked.headers,
            target,
            exchange.client,
            now,
        )?;
        Ok(())
    }

    /// Whether they may have it.
    fn permit(&self, asked: Asked<'_>, line: &Line<'_>, exchange: &mut Exchange) -> Result<Course, Refusal> {
        let shared = &*self.shared;
        policy::judge(shared, exchange, asked, line)?;
        limit::listener(shared, exchange)?;
        let origin = upstream::origin(shared, exchange)?;
        match *asked.method {
            Method::GET | Method::HEAD => Ok(Course::Here),
            ref method if origin.allows(method) => Ok(Course::Upstream),
            _ => Err(Refusal::MethodNotAllowed),
        }
    }

    /// The steps from the policy on, once the object's place in its track is known, or known to be nowhere.
    async fn permit_placed(&self, header: &RequestHeader, exchange: &mut Exchange) -> Result<Course, Refusal> {
        policy::place(&self.shared, exchange).await;
        self.permit(header.into(), &route::line(header), exchange)
    }

    /// What the memory holds. Waits for nothing.
    pub(crate) fn look<'h>(&self, asked: impl Into<Asked<'h>>, exchange: &mut Exchange) -> Result<Looked, Refusal> {
        let asked = asked.into();
        let shared = &self.shared;
        let stored = exchange.stored.take();
        let target = exchange.target.as_ref().ok_or(Refusal::NoRoute)?;
        let key = cache::key(shared, &exchange.snapshot, target, exchange.query.as_deref());
        let fresh = cache::look(shared, key, stored, Some(asked.headers), exchange.started);
        let place = match &fresh {
            Some(Ok(Found::Memory(object, _))) if object.media.get().is_some() => Some(None),
            _ => exchange.placed.or_else(|| Timeline::known(shared, asked.method, key, target)),
        };
        if let Some(Ok(found)) = &fresh {
            prefetch::behind(shared, asked.method, key, target, exchange.query.as_deref(), found);
        }
        Ok(Looked { fresh: playlist::at_once(exchange, fresh), place })
    }

    /// Where the bytes come from, and where in the track they play: side by side where either has to be waited for.
    async fn find(&self, header: &RequestHeader, exchange: &mut Exchange) -> Result<(Found, Option<Media>), Refusal> {
        let shared = &self.shared;
        let Looked { fresh, place } = match exchange.looked.take() {
            Some(looked) => looked,
            None => self.look(header, exchange)?,
        };
        let target = exchange.target.as_ref().ok_or(Refusal::NoRoute)?;
        let query = exchange.query.as_deref();
        let key = Key::from(cache::key(shared, &exchange.snapshot, target, query));
        let mut how = None;
        let (found, media) = {
            let filled = async {
                let (found, came) = cache::served(shared, key.clone(), target, query, Some(&header.headers)).await?;
                how = Some(came);
                Ok(found)
            };
            match (fresh, place) {
                (Some(found), Some(media)) => return Ok((found?, media)),
                (Some(found), None) => {
                    Timeline::beside(shared, &key, target, std::future::ready(Ok(found?)), HIT_PATIENCE).await?
                }
                (None, Some(media)) => (filled.await?, media),
                (None, None) => Timeline::beside(shared, &key, target, filled, FILL_PATIENCE).await?,
            }
        };
        prefetch::behind(shared, &header.method, key.borrowed(), target, query, &found);
        let found = playlist::presented(shared, exchange, found).await?;
        exchange.how = how;
        Ok((found, media))
    }

    async fn answer(&self, session: &mut Session, exchange: &mut Exchange) -> Result<()> {
        let refusal = match self.find(session.req_header(), exchange).await {
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
        if exchange.client.is_none() {
            let peer = session.client_addr().and_then(|address| address.as_inet());
            exchange.client = peer.map(std::net::SocketAddr::ip);
        }
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
        let mut admitted = admitted.unwrap_or_else(|| self.admit(session.req_header(), exchange));
        if admitted == Ok(Course::Unplaced) {
            admitted = self.permit_placed(session.req_header(), exchange).await;
        }
        if let Err(refusal) = limit::settle(&self.shared, exchange).await {
            admitted = admitted.and(Err(refusal));
        }
        match admitted {
            Ok(Course::Here) => self.answer(session, exchange).await?,
            Ok(Course::Upstream) => return Ok(false),
            Ok(Course::Unplaced) => respond::refuse(&self.shared, session, exchange, &Refusal::Internal).await?,
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
            upstream::invalidate(&self.shared, exchange, &response.headers).await;
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
