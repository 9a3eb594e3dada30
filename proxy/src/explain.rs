//! What would become of a request, step by step, without serving it: `POST /explain` on the admin listener, and offline
//! from a configuration alone.
//!
//! Invariants: the steps are those of `service.rs`, run by the same functions, on copies of what counts and remembers:
//! no key is counted, no ticket remembered, no object fetched. Claims are shown, signatures never; what was not proven is
//! marked so.

mod policies;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use segue_signing::{Keyring, TicketCache, Verified};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cache::{self, Stored};
use crate::config::{EdgeConfig, TicketConfig};
use crate::edge::Shared;
use crate::exchange::{Asked, Exchange};
use crate::limit::{Limiter, LimitsConfig};
use crate::refusal::Refusal;
use crate::respond::debug;
use crate::route::{self, Line, Route, Target};
use crate::snapshot::{Snapshot, Snapshots, unix_s};
use crate::ticket;

/// What is asked about.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The URL, or its path with the query, as a client sends it.
    pub url: String,
    /// The method; GET where it is left out.
    #[serde(default)]
    pub method: Option<String>,
    /// Headers of the request, such as the cookie that carries the ticket.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The client's address.
    #[serde(default)]
    pub client: Option<IpAddr>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whether every step that was looked at lets it pass.
    pub serves: bool,
    /// The refusing step's status and reason word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// See `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The steps in order, up to the one that refuses.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its name, as in the debug header.
    pub step: String,
    /// Whether it lets the request pass.
    pub passes: bool,
    /// What it found.
    pub found: Value,
}

/// A question as the steps read it.
struct Request {
    method: Method,
    path: String,
    query: Option<String>,
    authority: Option<String>,
    headers: HeaderMap,
    client: Option<IpAddr>,
}

impl Request {
    fn read(question: &Question) -> Result<Self, String> {
        // Not by a URL parser: it would mend what the edge refuses.
        let (authority, target) = match question.url.split_once("://") {
            Some((_, rest)) => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                let (authority, target) = rest.split_at(end);
                (Some(authority.to_owned()), target)
            }
            None => (None, question.url.as_str()),
        };
        let target = target.split('#').next().unwrap_or_default();
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let method = question.method.as_deref().unwrap_or("GET");
        let mut headers = HeaderMap::new();
        for (name, value) in &question.headers {
            let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is no header's name"))?;
            headers.append(name, HeaderValue::from_str(value).map_err(|_| format!("{value:?} is no header's value"))?);
        }
        Ok(Self {
            method: method.parse().map_err(|_| format!("{method:?} is no method"))?,
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
            query: query.map(str::to_owned),
            authority,
            headers,
            client: question.client,
        })
    }

    fn asked(&self) -> Asked<'_> {
        Asked {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            authority: self.authority.as_deref(),
            headers: &self.headers,
        }
    }
}

/// The steps so far.
#[derive(Default)]
struct Steps(Vec<Step>);

impl Steps {
    fn passed(&mut self, step: &str, found: Value) {
        self.0.push(Step { step: step.to_owned(), passes: true, found });
    }

    fn routed(&mut self, target: &Target) {
        self.passed(
            "route",
            json!({
                "route": target.route, "path": target.path.as_str(), "track": target.track(),
                "version": target.version(), "file": target.file_in_version(),
                "kind": format!("{:?}", target.kind).to_lowercase(),
            }),
        );
    }

    fn refused(mut self, refusal: &Refusal, found: Value) -> Explanation {
        self.0.push(Step { step: debug::step(refusal).to_owned(), passes: false, found });
        Explanation {
            serves: false,
            status: Some(refusal.status().as_u16()),
            reason: Some(refusal.reason().to_owned()),
            message: Some(refusal.to_string()),
            steps: self.0,
        }
    }

    fn serves(self) -> Explanation {
        Explanation { serves: true, status: None, reason: None, message: None, steps: self.0 }
    }
}

/// What a running edge would do.
///
/// # Errors
/// A sentence about the question itself.
pub(crate) fn on_edge(shared: &Shared, question: &Question) -> Result<Explanation, String> {
    let request = Request::read(question)?;
    let mut steps = Steps::default();
    let snapshot = shared.snapshots.current();
    let told = json!({ "revision": snapshot.revision, "concern": shared.standing.concern() });
    if let Err(refusal) = shared.standing.check() {
        return Ok(steps.refused(&refusal, told));
    }
    steps.passed("snapshot", told);
    let line = route::line(request.asked());
    let mut exchange = Exchange::new(Arc::clone(&snapshot));
    exchange.client = request.client;
    let identified = if snapshot.policies.knows_foreign_tickets() && !ticket::is_shown(&line, &request.headers) {
        policies::route_and_foreign_ticket(shared, &mut exchange, &request, &line, &mut steps)
    } else {
        let tickets = &shared.config.tickets;
        route_and_ticket(&shared.routes, tickets, &snapshot, &request, &line, &mut steps)
            .map(|(target, grant)| (exchange.target, exchange.grant) = (Some(target), grant))
    };
    if let Err((refusal, found)) = identified {
        return Ok(steps.refused(&refusal, found));
    }
    let foreign = exchange.foreign.clone().unwrap_or_default();
    let place = exchange.target.as_ref().and_then(|target| shared.routes.get(target.route));
    let Some((route, origin)) = place.and_then(|route| Some((route, shared.origins.get(route.origin)?))) else {
        return Ok(steps.refused(&Refusal::Internal, Value::Null));
    };
    exchange.query = crate::upstream::query(origin, line.query, &foreign);
    if !snapshot.policies.is_empty()
        && let Err((refusal, found)) = policies::judged(shared, &mut exchange, &request, &line, &mut steps)
    {
        return Ok(steps.refused(&refusal, found));
    }
    let query = exchange.query.clone();
    let Some(target) = exchange.target else { return Ok(steps.refused(&Refusal::Internal, Value::Null)) };
    let is_here = matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS);
    if !is_here && !origin.allows(&request.method) {
        return Ok(steps.refused(&Refusal::MethodNotAllowed, json!({ "method": request.method.as_str() })));
    }
    let key = cache::Key::from(cache::key(shared, &snapshot, &target, query.as_deref()));
    steps.passed("cache", in_memory(shared, &key, snapshot.generation(target.track())));
    let object = origin.target(&route.key(target.path.as_str(), target.track(), target.file()), query.as_deref());
    steps.passed("origin", json!({ "name": origin.name(), "endpoint": origin.place(), "target": object }));
    Ok(steps.serves())
}

/// What an edge of this configuration would decide by route and ticket.
///
/// # Errors
/// A sentence about the question or the configuration.
pub fn explain(config: &EdgeConfig, question: &Question) -> Result<Explanation, String> {
    let request = Request::read(question)?;
    let mut routes = Vec::new();
    for (index, route) in (0_u16..).zip(&config.routes) {
        routes.push(Route::new(index, 0, route, config.tickets.playlist)?);
    }
    let snapshots = Snapshots::new(config.reloadable(), Arc::default(), Limiter::embedded(&LimitsConfig::default()))
        .map_err(|error| error.to_string())?;
    let mut steps = Steps::default();
    let line = route::line(request.asked());
    match route_and_ticket(&routes, &config.tickets, &snapshots.current(), &request, &line, &mut steps) {
        Ok(_) => Ok(steps.serves()),
        Err((refusal, found)) => Ok(steps.refused(&refusal, found)),
    }
}

fn route_and_ticket(
    routes: &[Route],
    tickets: &TicketConfig,
    snapshot: &Snapshot,
    request: &Request,
    line: &Line<'_>,
    steps: &mut Steps,
) -> Result<(Target, Option<Arc<Verified>>), (Refusal, Value)> {
    let target = route::resolve(routes, line).map_err(|refusal| (refusal, json!({ "path": line.path })))?;
    steps.routed(&target);
    let shown = shown(line, &request.headers);
    // A keyring and a cache of this question's own: nothing is counted or remembered.
    let uncounted = Keyring::new(snapshot.keyring.iter().cloned().collect())
        .map_err(|_| (Refusal::Internal, Value::Null))
        .map(|keyring| snapshot.with_keyring(keyring))?;
    let verified = TicketCache::new(1);
    match ticket::admit(tickets, &verified, &uncounted, line, &request.headers, &target, request.client, unix_s()) {
        Ok(Some(grant)) => {
            steps.passed("ticket", json!({ "kid": grant.kid, "sid": grant.sid, "claims": grant.claims }));
            Ok((target, Some(grant)))
        }
        Ok(None) => {
            steps.passed("ticket", json!({ "required": false }));
            Ok((target, None))
        }
        Err(refusal) => Err((refusal.into(), shown)),
    }
}

/// What a ticket says that was refused: unproven, and without its signature.
fn shown(line: &Line<'_>, headers: &HeaderMap) -> Value {
    let Some((_, ticket)) = ticket::carried(line, headers) else { return json!({ "ticket": null }) };
    let part = |n: usize| {
        let bytes = URL_SAFE_NO_PAD.decode(ticket.split('.').nth(n)?).ok()?;
        serde_json::from_slice::<Value>(&bytes).ok()
    };
    json!({ "unproven": true, "header": part(0), "claims": part(1) })
}

fn in_memory(shared: &Shared, key: &cache::Key, generation: u64) -> Value {
    let now = Instant::now();
    let filling = shared.fills.lock().contains_key(key);
    let passes = shared.memory.passes(key);
    let stored = match shared.memory.get(key.borrowed()) {
        Some(Stored::Object(object)) => {
            let age = now.saturating_duration_since(object.since);
            let fresh_for = object.meta.fresh_for;
            json!({
                "tier": "memory", "bytes": object.body.len(), "age_s": object.age(now), "fresh": object.is_fresh(now),
                "fresh_for_s": fresh_for.saturating_sub(age).as_secs(),
            })
        }
        Some(Stored::Missing { until }) => {
            json!({ "tier": "memory", "missing": true, "for_s": until.saturating_duration_since(now).as_secs() })
        }
        Some(Stored::Varies(_)) => json!({ "tier": "memory", "varies": true }),
        None if shared.disk.as_ref().is_some_and(|disk| disk.knows(key.borrowed())) => json!({ "tier": "disk" }),
        None => json!({ "tier": null }),
    };
    json!({ "stored": stored, "filling": filling, "not_for_the_cache": passes, "purge_generation": generation })
}
