//! `GET /v1/openapi.json`: what the API takes and gives, for machines (OpenAPI 3.1).
//!
//! What a route takes and answers stands beside its handler; its name and scope come from the table in `routes.rs`, and with
//! them what every route of its kind can answer. `docs/openapi.json` is a copy of the document that a test compares.

use std::sync::LazyLock;

use axum::Json;
use http::Method;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::problem::Problem;
use crate::routes::{Route, routes};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Segue's control plane",
        description = "Tracks and uploads, jobs, tickets, keys, limits, policies, and what was played. Errors are problem details \
                       (RFC 9457), with the stable word of the kind as `error`. Each operation says in `x-scope` which scope its \
                       token needs; `admin` has them all.",
    ),
    components(schemas(Problem)),
    paths(
        crate::api::audit::list,
        crate::api::denials::list,
        crate::api::edge::facts,
        crate::api::edge::list,
        crate::api::edge::report,
        crate::api::edge::snapshot,
        crate::api::events::follow,
        crate::api::facts::export,
        crate::api::jobs::cancel,
        crate::api::jobs::list,
        crate::api::jobs::prioritise,
        crate::api::jobs::retry,
        crate::api::jobs::show,
        crate::api::keys::add,
        crate::api::keys::list,
        crate::api::keys::retire,
        crate::api::keys::rotate,
        crate::api::limits::list,
        crate::api::limits::put_class,
        crate::api::limits::put_streams,
        crate::api::limits::remove_class,
        crate::api::limits::remove_streams,
        crate::api::multipart::abort,
        crate::api::multipart::list,
        crate::api::multipart::presign,
        crate::api::multipart::report,
        crate::api::multipart::show,
        crate::api::policies::component,
        crate::api::policies::delete,
        crate::api::policies::delete_version,
        crate::api::policies::diff::diff,
        crate::api::policies::diff::verdicts,
        crate::api::policies::history,
        crate::api::policies::list,
        crate::api::policies::rollout::activate,
        crate::api::policies::rollout::canary,
        crate::api::policies::rollout::disable,
        crate::api::policies::rollout::end_trial,
        crate::api::policies::rollout::push,
        crate::api::policies::rollout::roll_back,
        crate::api::policies::rollout::shadow,
        crate::api::policies::show,
        crate::api::policies::upload::add,
        crate::api::revocations::add,
        crate::api::revocations::lift,
        crate::api::revocations::list,
        crate::api::stats::of_house,
        crate::api::stats::of_track,
        crate::api::tickets::issue,
        crate::api::tokens::create,
        crate::api::tokens::list,
        crate::api::tokens::revoke,
        crate::api::tokens::rotate,
        crate::api::tracks::create,
        crate::api::tracks::delete,
        crate::api::tracks::list,
        crate::api::tracks::purge,
        crate::api::tracks::show,
        crate::api::uploads::uploaded,
        crate::api::webhooks::create,
        crate::api::webhooks::delete,
        crate::api::webhooks::deliveries,
        crate::api::webhooks::list,
        crate::api::webhooks::redeliver,
        crate::api::webhooks::show,
        crate::api::worker::claim,
        crate::api::worker::complete,
        crate::api::worker::early,
        crate::api::worker::fail,
        crate::api::worker::progress,
        document,
    )
)]
struct Document;

static DOCUMENT: LazyLock<Value> = LazyLock::new(whole);

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, body = Object)))]
pub(crate) async fn document() -> Json<&'static Value> {
    Json(&DOCUMENT)
}

/// The document with what the table knows of each route.
fn whole() -> Value {
    // A document that was made here is JSON; were it not, the test of the copy would say so.
    let mut document = serde_json::to_value(Document::openapi()).unwrap_or_default();
    document["components"]["securitySchemes"] = json!({
        "token": { "type": "http", "scheme": "bearer", "description": "An API token (`segue token new`)" }
    });
    for route in routes() {
        if let Some(operation) = operation(&mut document, &route) {
            complete(operation, &route);
        }
    }
    bound_numbers(&mut document);
    document
}

/// Numbers that are read without a sign have a bound that the formats of OpenAPI (`int32`, `int64`: with one) do not say.
fn bound_numbers(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let max = match (fields.get("format").and_then(Value::as_str), fields.get("minimum")) {
                (Some("int32"), Some(least)) if least.as_u64().is_some() => Some(u64::from(u32::MAX)),
                (Some("int64"), Some(least)) if least.as_u64().is_some() => Some(u64::MAX),
                _ => None,
            };
            if let Some(max) = max.filter(|_| !fields.contains_key("maximum")) {
                fields.insert("maximum".to_owned(), json!(max));
                fields.remove("format");
            }
            fields.values_mut().for_each(bound_numbers);
        }
        Value::Array(items) => items.iter_mut().for_each(bound_numbers),
        _ => {}
    }
}

fn operation<'d>(document: &'d mut Value, route: &Route) -> Option<&'d mut Map<String, Value>> {
    let method = route.method.as_str().to_ascii_lowercase();
    document.get_mut("paths")?.get_mut(route.path)?.get_mut(method)?.as_object_mut()
}

fn complete(operation: &mut Map<String, Value>, route: &Route) {
    operation.insert("operationId".to_owned(), json!(route.name));
    operation.insert("tags".to_owned(), json!([route.name.split('.').next()]));
    let needs: Vec<Value> = route.scope.iter().map(|_| json!({ "token": [] })).collect();
    operation.insert("security".to_owned(), json!(needs));
    if let Some(scope) = route.scope {
        operation.insert("x-scope".to_owned(), json!(scope));
    }
    // Names in the path are what the table says, whatever the handler calls them.
    let asked = operation.get("parameters").and_then(Value::as_array).cloned().unwrap_or_default();
    let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let named = |name: &str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
    let mut parameters: Vec<Value> = names.map(named).collect();
    let has_names = !parameters.is_empty();
    if route.is_once {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "schema": { "type": "string", "pattern": r#"^([!#-\[\]-~]{1,255}|"[!#-\[\]-~]{1,255}")$"# },
            "description": "Names this request for a day: sent again with the same token, it is answered as it was, and done once",
        }));
    }
    parameters.extend(asked.into_iter().filter(|parameter| parameter["in"] != "path"));
    let has_body = operation.contains_key("requestBody");
    // A body that may be left out is not one that may be `null`.
    let media = operation.get_mut("requestBody").and_then(|body| body.pointer_mut("/content/application~1json"));
    if let Some(schema) = media.and_then(|media| media.get_mut("schema")) {
        let given = |one: &&Value| one["type"] != "null";
        if let Some(only) = schema["oneOf"].as_array().and_then(|each| each.iter().find(given)).cloned() {
            *schema = only;
        }
    }
    let errors = [
        (400, "What was sent is not what this route takes", !parameters.is_empty() || has_body),
        (401, "No token, or one that is not known", route.scope.is_some()),
        (403, "The token lacks the scope", route.scope.is_some()),
        (404, "There is nothing of that name", has_names),
        (409, "An `Idempotency-Key` whose request is being carried out, or whose answer is not known", route.is_once),
        (413, "More than this route takes", has_body),
        (422, "An `Idempotency-Key` that came with another request before", route.is_once),
        (429, "More requests than the token, or more unknown tokens than the address, may send", route.scope.is_some()),
        (500, "The control plane failed; its log has the cause", true),
        (503, "Not at this moment; try again after `Retry-After`", true),
    ];
    operation.insert("parameters".to_owned(), Value::Array(parameters));
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for (status, why, _) in errors.iter().filter(|(.., can_be)| *can_be) {
        responses.entry(status.to_string()).or_insert_with(|| json!({ "description": why }));
    }
    for (status, response) in responses.iter_mut() {
        let is_error = status.starts_with('4') || status.starts_with('5');
        if is_error {
            let schema = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
            response["content"] = json!({ "application/problem+json": schema });
        }
        if response["description"].as_str().is_none_or(str::is_empty) {
            let done = if route.method == Method::GET { "What was asked for" } else { "Done" };
            response["description"] = json!(done);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::collections::BTreeSet;

    use super::*;

    const COPY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");

    #[test]
    fn every_route_is_documented_and_nothing_else_is() {
        let told: BTreeSet<String> = DOCUMENT["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                item.as_object().unwrap().keys().map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        let table = routes();
        let there: BTreeSet<String> = table.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
        assert_eq!(told, there);
        let names: BTreeSet<&str> = table.iter().map(|route| route.name).collect();
        assert_eq!(names.len(), table.len(), "two routes have one name");
    }

    /// The renewed copy is for whoever changed the API on purpose: clients are made from it.
    #[test]
    fn the_copy_in_the_repository_is_this_document() {
        let text = format!("{}\n", serde_json::to_string_pretty(&*DOCUMENT).unwrap());
        if std::env::var_os("SEGUE_RENEW_OPENAPI").is_some() {
            std::fs::write(COPY, &text).unwrap();
        }
        // Held against it as JSON: the order of fields is the serializer's affair.
        let copy = std::fs::read_to_string(COPY).unwrap_or_default();
        let copy: Value = serde_json::from_str(&copy).unwrap_or_default();
        assert!(
            copy == *DOCUMENT,
            "docs/openapi.json is not what /v1/openapi.json answers; renew it with:\n    SEGUE_RENEW_OPENAPI=1 cargo \
             nextest run --release -p segue-control-plane -E 'test(the_copy_in_the_repository)'"
        );
    }
}
