//! What stands around each route that is recorded.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde_json::Value;

use super::noted::{self, Noted};
use super::{Recorded, Subject};
use crate::auth::{Refused, Scope, address};
use crate::error::ApiError;
use crate::problem::{Problem, RequestId};
use crate::state::Shared;
use crate::store::audit::{self, AuditRow, Outcome, Sort, TEXT_MAX};
use crate::store::noting_commits;
use crate::{clock, ids};

/// A larger answer is not looked into.
const ANSWER_MAX: u64 = 256 * 1024;

/// Of an answer: whether something was committed on the way to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Changed(pub(crate) bool);

/// The outermost layer of a route: what was refused before the route saw it.
pub(crate) async fn refusals(
    State((shared, subject)): State<(Shared, Subject)>,
    mut request: Request,
    next: Next,
) -> Response {
    let noted = Noted::new(&subject, request.uri().query().unwrap_or_default());
    request.extensions_mut().insert(noted.clone());
    let mut row = row(&shared, &subject, &noted, &request);
    let mut response = next.run(request).await;
    if response.extensions_mut().remove::<Refused>().is_some() {
        row.sort = Sort::Refused.word().to_owned();
        row.status = Some(i64::from(response.status().as_u16()));
        row.error = word(&response);
        row.ended_ms = Some(clock::now_ms());
        // What was refused names nothing that could be told: whoever sends it chooses the words.
        row.resource = noted::resource(&subject, subject.path);
        if let Some(caller) = noted.caller() {
            (row.actor, row.actor_name) = (Some(caller.id), Some(noted::cut(&caller.name, TEXT_MAX)));
        }
        shared.audit.refused(row);
    }
    response
}

/// The layer behind the check of the token: the change itself.
pub(crate) async fn change(
    State((shared, subject)): State<(Shared, Subject)>,
    request: Request,
    next: Next,
) -> Response {
    let Some(noted) = request.extensions().get::<Noted>().cloned() else {
        return ApiError::Internal("a route is recorded without its outer layer".to_owned()).into_response();
    };
    let mut row = row(&shared, &subject, &noted, &request);
    row.id = match ids::other() {
        Ok(id) => id,
        Err(error) => return ApiError::from(error).into_response(),
    };
    let is_ticket = subject.recorded == Recorded::Issues;
    if !is_ticket && let Err(error) = audit::begin(&shared.store, &row).await {
        return ApiError::from(error).into_response();
    }
    let mut cut_off = (!is_ticket).then(|| CutOff { shared: Shared::clone(&shared), row: Some(row.clone()) });
    let (response, committed) = noting_commits(next.run(request)).await;
    let (mut response, answer) = looked_into(response, &subject).await;
    response.extensions_mut().insert(Changed(committed));
    if let Some(answer) = &answer {
        noted.answered(answer);
    }
    let made = answer.as_ref().and_then(|answer| noted::made(&subject, &row.resource, answer));
    let outcome = Outcome {
        ended_ms: clock::now_ms(),
        status: Some(response.status().as_u16()),
        error: word(&response),
        resource: made.unwrap_or_else(|| row.resource.clone()),
        summary: noted.summary(),
    };
    if is_ticket {
        shared.audit.issued(row, outcome);
        return response;
    }
    if let Err(error) = audit::end(&shared.store, &row.id, &outcome).await {
        // The change is made, and its record has stood since before it: it lacks the end.
        tracing::error!(audit.id = row.id, operation = subject.operation, %error, "what became of a change could not be recorded");
    }
    if let Some(cut_off) = &mut cut_off {
        cut_off.row = None;
    }
    response
}

/// Ends the record of a request that is dropped under way: its client left, or it took too long.
struct CutOff {
    shared: Shared,
    row: Option<AuditRow>,
}

impl Drop for CutOff {
    fn drop(&mut self) {
        let Some(row) = self.row.take() else { return };
        let shared = Shared::clone(&self.shared);
        self.shared.tasks.spawn(async move {
            let ended_ms = clock::now_ms();
            let outcome = Outcome { ended_ms, status: None, error: None, resource: row.resource, summary: None };
            if let Err(error) = audit::end(&shared.store, &row.id, &outcome).await {
                tracing::error!(audit.id = row.id, %error, "what became of a change could not be recorded");
            }
        });
    }
}

fn row(shared: &Shared, subject: &Subject, noted: &Noted, request: &Request) -> AuditRow {
    let sort = match (subject.recorded, subject.scope) {
        (Recorded::Issues, _) => Sort::Ticket,
        (_, Some(Scope::Admin)) => Sort::Admin,
        _ => Sort::Change,
    };
    let caller = noted.caller();
    let address = address::client(request.extensions(), request.headers(), shared.access.trusted());
    AuditRow {
        id: String::new(),
        at_ms: clock::now_ms(),
        ended_ms: None,
        sort: sort.word().to_owned(),
        operation: subject.operation.to_owned(),
        method: subject.method.as_str().to_owned(),
        resource: noted::resource(subject, request.uri().path()),
        actor: caller.as_ref().map(|caller| caller.id.clone()),
        actor_name: caller.map(|caller| noted::cut(&caller.name, TEXT_MAX)),
        address: address.to_string(),
        request_id: request.extensions().get::<RequestId>().map(|id| id.0.clone()),
        status: None,
        error: None,
        times: 1,
        summary: None,
    }
}

fn word(response: &Response) -> Option<String> {
    response.extensions().get::<Problem>().map(|problem| problem.word().to_owned())
}

/// The answer, and what it says where the record tells something of it.
async fn looked_into(response: Response, subject: &Subject) -> (Response, Option<Value>) {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_small = response.body().size_hint().upper().is_some_and(|most| most <= ANSWER_MAX);
    let is_told = !subject.tells.is_empty() || subject.makes.is_some();
    if !response.status().is_success() || kind != Some("application/json") || !is_small || !is_told {
        return (response, None);
    }
    let (parts, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => {
            let bytes = body.to_bytes();
            let answer = serde_json::from_slice(&bytes).ok();
            (Response::from_parts(parts, Body::from(bytes)), answer)
        }
        Err(error) => {
            let error = ApiError::Internal(format!("an answer could not be read: {error}"));
            (error.into_response(), None)
        }
    }
}
