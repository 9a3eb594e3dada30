//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): a request that is sent again is carried out once.
//!
//! The first request with a key claims its row in the database, so that it is one among all control planes. It is then carried out to its
//! end whether or not its client stays, and its answer is kept for [`KEPT_MS`]; the same request with the same key and token gets that
//! answer again, marked by [`REPLAYED`].
//!
//! Invariants: an answer is kept where something was done: it is a success, or a transaction was committed on the way. Else the key is free
//! again. An answer may hold a secret (a new token, a presigned URL): it is sealed with a key that is made of the secret of the caller's own
//! token, which is stored nowhere. Sizes are bounded: bodies by what the API takes, answers by [`ANSWER_MAX`], keys that are kept by
//! [`ROWS_MAX`].
//!
//! On failure: after a control plane that died in the middle nobody knows how much was done. The key answers 409 `idempotency-unknown` then,
//! and nothing is done twice.

mod seal;

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use seal::Sealer;
use sha2::{Digest, Sha256};

use crate::audit::Changed;
use crate::auth::{self, Caller};
use crate::error::ApiError;
use crate::state::{Parts, Shared};
use crate::store::idempotency::{self, Claim, Known};
use crate::store::leases::Held;
use crate::store::{StoreError, transaction};
use crate::{clock, ids};

/// Where a client names a request.
pub(crate) const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Says of an answer that it was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Longest key.
const KEY_MAX: usize = 255;

/// How long a key is known.
const KEPT_MS: i64 = 24 * 3_600_000;

/// Longest that a request may be carried out: longer than any route takes by itself, waits for edges among them.
const RUN_MAX: Duration = Duration::from_secs(120);

/// After this long without an answer whoever carried it out is gone.
const HELD_MS: i64 = 150_000;

/// Largest answer that is kept.
const ANSWER_MAX: u64 = 64 * 1024;

/// Keys that are kept; the oldest go first.
const ROWS_MAX: u32 = 200_000;

/// Rows of one transaction of the sweep.
const BATCH: u32 = 200;

/// The layer of a route that offers keys, behind the check of the token.
pub(crate) async fn once(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if !request.headers().contains_key(KEY) {
        return next.run(request).await;
    }
    match carry_out(shared, request, next).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn carry_out(shared: Shared, request: Request, next: Next) -> Result<Response, ApiError> {
    let key = key(request.headers())?;
    let caller = request.extensions().get::<Caller>().cloned();
    let caller = caller.ok_or_else(|| ApiError::Internal("a key without a token".to_owned()))?;
    let id = hex(&[caller.id.as_bytes(), key.as_bytes()]);
    let secret = auth::bearer(request.headers())?.to_owned();
    let (parts, body) = request.into_parts();
    let bytes = Bytes::from_request(Request::from_parts(parts.clone(), body), &()).await.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message = "the request's body is larger than this API takes".to_owned();
            return ApiError::Invalid { status: StatusCode::PAYLOAD_TOO_LARGE, word: "too-large", message };
        }
        ApiError::invalid("the request's body could not be read to its end")
    })?;
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let fingerprint = hex(&[parts.method.as_str().as_bytes(), target.as_bytes(), &bytes]);
    let holder = ids::other()?;
    let now = clock::now_ms();
    let times = (now, now + HELD_MS, now - KEPT_MS);
    let claim = Claim { id: &id, holder: &holder };
    if let Some(known) = idempotency::claim(&shared.store, claim, &fingerprint, times).await? {
        return again(&known, &Sealer::new(&secret, &id, &known.holder), &fingerprint, now);
    }
    let request = Request::from_parts(parts, Body::from(bytes));
    let sealer = Sealer::new(&secret, &id, &holder);
    // A task of its own: a client that leaves must find the answer when it comes again.
    let work = run(Shared::clone(&shared), request, next, sealer, (id, holder));
    shared.tasks.spawn(work).await.map_err(|error| ApiError::Internal(format!("a request ended by itself: {error}")))
}

/// Carries the request out, and keeps its answer.
async fn run(shared: Shared, request: Request, next: Next, sealer: Sealer, (id, holder): (String, String)) -> Response {
    let claim = Claim { id: &id, holder: &holder };
    let Ok(response) = tokio::time::timeout(RUN_MAX, next.run(request)).await else {
        // How far it came nobody knows; the row says so when its time is over.
        let message = "this took too long; look what became of it".to_owned();
        return ApiError::Busy { word: "timeout", message }.into_response();
    };
    let changed = response.extensions().get::<Changed>().is_some_and(|changed| changed.0);
    let (response, kept) = if response.status().is_success() || changed {
        keep(&shared, response, &sealer, claim).await
    } else {
        (response, idempotency::release(&shared.store, claim).await)
    };
    if let Err(error) = kept {
        // The answer itself is right. Sent again, the request is told that what became of it is not known.
        tracing::error!(%error, "the answer to a request with a key could not be kept");
    }
    response
}

async fn keep(
    shared: &Shared,
    response: Response,
    sealer: &Sealer,
    claim: Claim<'_>,
) -> (Response, Result<(), StoreError>) {
    let status = response.status().as_u16();
    if response.body().size_hint().upper().is_none_or(|most| most > ANSWER_MAX) {
        return (response, idempotency::answered(&shared.store, claim, status, None).await);
    }
    let (parts, body) = response.into_parts();
    match body.collect().await {
        Ok(body) => {
            let bytes = body.to_bytes();
            let kind = parts.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
            let sealed = sealer.seal(&[kind, b"\n", &bytes].concat());
            let kept = idempotency::answered(&shared.store, claim, status, sealed.as_deref()).await;
            (Response::from_parts(parts, Body::from(bytes)), kept)
        }
        Err(error) => {
            let error = ApiError::Internal(format!("an answer could not be read: {error}"));
            (error.into_response(), idempotency::answered(&shared.store, claim, status, None).await)
        }
    }
}

/// What a request gets whose key is known.
fn again(known: &Known, sealer: &Sealer, fingerprint: &str, now: i64) -> Result<Response, ApiError> {
    if known.fingerprint != fingerprint {
        return Err(ApiError::Invalid {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            word: "idempotency-reused",
            message: "this Idempotency-Key came with another request before; each request needs a key of its own"
                .to_owned(),
        });
    }
    let Some(status) = known.status else {
        return Err(if now < known.until_ms {
            ApiError::conflict("idempotency-running", "this request is being carried out; ask again in a moment")
        } else {
            ApiError::conflict(
                "idempotency-unknown",
                "this request was cut off while it was carried out, and what became of it is not known: look whether it \
                 was done, and send it with a new key where it was not",
            )
        });
    };
    let gone = || {
        ApiError::conflict(
            "idempotency-answer-gone",
            "this request was carried out, and its answer cannot be given again: it was too large, or the token has got a \
             new secret since",
        )
    };
    let opened = known.answer.as_deref().and_then(|sealed| sealer.open(sealed)).ok_or_else(gone)?;
    let split = opened.iter().position(|byte| *byte == b'\n').ok_or_else(gone)?;
    let (kind, body) = (opened.get(..split).unwrap_or_default(), opened.get(split + 1..).unwrap_or_default());
    let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok()).ok_or_else(gone)?;
    let mut response = Response::new(Body::from(body.to_vec()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    if let Some(kind) = HeaderValue::from_bytes(kind).ok().filter(|kind| !kind.is_empty()) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    Ok(response)
}

/// The key, with or without the quotes of a structured field (RFC 9651, section 3.3.3).
fn key(headers: &HeaderMap) -> Result<String, ApiError> {
    let mut values = headers.get_all(KEY).iter();
    let value = values.next().and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let fine = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if values.next().is_some() || bare.is_empty() || bare.len() > KEY_MAX || !bare.bytes().all(fine) {
        return Err(ApiError::invalid(format!(
            "`Idempotency-Key` must be one text of 1 to {KEY_MAX} visible characters, a UUID for example"
        )));
    }
    Ok(bare.to_owned())
}

/// The hash of parts, none of which can be taken for a piece of another.
fn hex(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Forgets keys whose time is over, or that are too many: a step of the sweeper's duty.
pub(crate) async fn sweep(parts: &Parts, held: &Held) -> Result<(), StoreError> {
    let too_old = clock::now_ms() - KEPT_MS;
    let one_too_many = idempotency::beyond(&parts.store, ROWS_MAX).await?;
    let until = one_too_many.map_or(too_old, |at| at.max(too_old));
    loop {
        let gone = transaction!(parts.store, |tx| {
            held.check(tx).await?;
            idempotency::prune(tx, until, BATCH).await
        })?;
        if gone < u64::from(BATCH) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixture;

    fn with(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(KEY, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_key_is_read_with_and_without_quotes() {
        assert_eq!(key(&with("8e03978e-40d5")).unwrap(), "8e03978e-40d5");
        assert_eq!(key(&with("\"8e03978e-40d5\"")).unwrap(), "8e03978e-40d5");
        for wrong in ["", "\"\"", "a b", "a\"b", &"x".repeat(256)] {
            assert!(key(&with(wrong)).is_err(), "{wrong}");
        }
        let mut twice = with("a");
        twice.append(KEY, HeaderValue::from_static("b"));
        assert!(key(&twice).is_err());
        assert_ne!(hex(&[b"ab", b"c"]), hex(&[b"a", b"bc"]));
    }

    #[tokio::test]
    async fn one_of_many_claims_a_key_and_what_died_with_it_is_not_done_again() {
        let folder = tempfile::tempdir().unwrap();
        let parts = fixture::parts(folder.path(), None).await;
        let now = clock::now_ms();
        let holders: Vec<String> = (0..8).map(|n| format!("h{n}")).collect();
        let times = (now - HELD_MS, now - 1, now - KEPT_MS);
        let claims = holders.iter().map(|holder| {
            let claim = Claim { id: "k", holder };
            idempotency::claim(&parts.store, claim, "f", times)
        });
        let claimed = futures::future::join_all(claims).await;
        assert_eq!(claimed.iter().filter(|known| known.as_ref().unwrap().is_none()).count(), 1);
        let sealer = Sealer::new("s", "k", "h");
        let known = claimed.into_iter().find_map(Result::unwrap).unwrap();
        let word = |known: &Known, fingerprint, now| again(known, &sealer, fingerprint, now).unwrap_err().kind();
        assert_eq!(word(&known, "f", now - 2), "idempotency-running");
        assert_eq!(word(&known, "f", now), "idempotency-unknown", "whoever had it is gone");
        assert_eq!(word(&known, "g", now), "idempotency-reused");
        let later = Claim { id: "k", holder: "later" };
        idempotency::release(&parts.store, later).await.unwrap();
        assert!(idempotency::claim(&parts.store, later, "f", times).await.unwrap().is_some(), "it is somebody else's");
        sweep(&parts, &fixture::held(&parts).await).await.unwrap();
        assert!(idempotency::claim(&parts.store, later, "f", times).await.unwrap().is_some(), "it is still young");
        let tomorrow = (now + KEPT_MS, now + KEPT_MS + HELD_MS, now);
        assert!(
            idempotency::claim(&parts.store, later, "f", tomorrow).await.unwrap().is_none(),
            "a day later it is free"
        );
    }
}
