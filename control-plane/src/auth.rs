//! Who may do what: bearer tokens (RFC 6750) with scopes.
//!
//! A secret is looked up by its SHA-256 and the found hash is compared again in constant time, so that neither the
//! database nor a timing tells anything about a secret that is close. Routes name the one scope that they need;
//! `admin` has them all.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use segue_config::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::clock;
use crate::config::TokensConfig;
use crate::error::ApiError;
use crate::state::Shared;
use crate::store::tokens::{self, TokenRow};
use crate::store::{Store, StoreError, transaction};

/// A longer token is refused before it is hashed.
const TOKEN_MAX: usize = 512;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everything.
    Admin,
    /// Add, change and remove tracks.
    Publish,
    /// Issue tickets.
    Play,
    /// See tracks, jobs, sums and events.
    Read,
    /// Follow the snapshot, report, hand over facts.
    Edge,
    /// Claim and report jobs.
    Worker,
}

impl Scope {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Publish => "publish",
            Self::Play => "play",
            Self::Read => "read",
            Self::Edge => "edge",
            Self::Worker => "worker",
        }
    }
}

/// Hex SHA-256 of a secret.
pub(crate) fn hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes the tokens of the configuration the ones that are stored under the bootstrap names.
pub(crate) async fn seed(store: &Store, config: &TokensConfig) -> Result<(), StoreError> {
    let bootstrap = [
        ("bootstrap-admin", Some(&config.admin), Scope::Admin),
        ("bootstrap-worker", config.worker.as_ref(), Scope::Worker),
        ("bootstrap-edge", config.edge.as_ref(), Scope::Edge),
    ];
    transaction!(store, |tx| {
        for (name, secret, scope) in &bootstrap {
            match secret.map(Secret::expose).filter(|secret| !secret.is_empty()) {
                Some(secret) => {
                    let scopes = scope.word().to_owned();
                    let row = TokenRow { name: (*name).to_owned(), hash: hash(secret), scopes };
                    tokens::put(tx, &row, clock::now_ms()).await?;
                }
                None => tokens::remove(tx, name).await?,
            }
        }
        Ok(())
    })
}

/// Whose token a request carries: its name.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) String);

/// Whether the request carries a token that has `scope`, and whose it is.
pub(crate) async fn authorize(store: &Store, headers: &HeaderMap, scope: Scope) -> Result<Caller, ApiError> {
    let secret = bearer(headers)?;
    let hash = hash(secret);
    let unknown = ApiError::Unauthorized("this token is not known");
    let token = tokens::by_hash(store, &hash).await?.ok_or(unknown)?;
    if !bool::from(token.hash.as_bytes().ct_eq(hash.as_bytes())) {
        return Err(ApiError::Unauthorized("this token is not known"));
    }
    let allows = |word: &str| word == scope.word() || word == Scope::Admin.word();
    if token.scopes.split_ascii_whitespace().any(allows) {
        Ok(Caller(token.name))
    } else {
        Err(ApiError::Forbidden(scope.word()))
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(ApiError::Unauthorized("a token is needed: send Authorization: Bearer <token>"))?;
    if values.next().is_some() {
        return Err(ApiError::Unauthorized("two Authorization headers were sent"));
    }
    let malformed = ApiError::Unauthorized("the Authorization header is not of the form: Bearer <token>");
    let Some((scheme, secret)) = value.to_str().ok().and_then(|text| text.split_once(' ')) else {
        return Err(malformed);
    };
    let secret = secret.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || secret.is_empty() || secret.len() > TOKEN_MAX {
        return Err(malformed);
    }
    Ok(secret)
}

/// The layer that stands in front of a group of routes.
pub(crate) async fn require(
    State((shared, scope)): State<(Shared, Scope)>,
    mut request: Request,
    next: Next,
) -> Response {
    match authorize(&shared.store, request.headers(), scope).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderValue;

    use super::*;

    fn with(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn hash_is_sha256_in_hex() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn bearer_is_read_and_everything_else_is_refused() {
        assert_eq!(bearer(&with("Bearer s3cret")).unwrap(), "s3cret");
        assert_eq!(bearer(&with("bearer  s3cret ")).unwrap(), "s3cret");
        for wrong in ["", "Bearer", "Bearer ", "Basic abc", "s3cret", &format!("Bearer {}", "x".repeat(513))] {
            assert!(bearer(&with(wrong)).is_err(), "{wrong:?}");
        }
        let mut twice = with("Bearer a");
        twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert!(bearer(&twice).is_err());
    }
}
