//! Who may do what: bearer tokens (RFC 6750) with scopes.
//!
//! | file         | what it is |
//! |--------------|------------|
//! | `access.rs`  | tokens that are known, and how much each may ask for |
//! | `secret.rs`  | what a token looks like, and what is kept of it |
//! | `rate.rs`    | so many of something in a time, in bounded memory |
//! | `address.rs` | whose address a request comes from |
//!
//! A token that was made over the API is looked up by the id in it, one of the configuration by its SHA-256; the hashes are
//! compared in constant time, so that neither the database nor a timing tells anything about a secret that is close. Routes
//! name the one scope that they need, in the table of `routes.rs`; `admin` has them all.

pub(crate) mod access;
pub(crate) mod address;
mod rate;
pub(crate) mod secret;

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use secret::hash;
use segue_config::Secret;
use serde::{Deserialize, Serialize};

use crate::audit::Noted;
use crate::clock;
use crate::config::TokensConfig;
use crate::error::ApiError;
use crate::state::{Parts, Shared};
use crate::store::tokens::{self, TokenRow};
use crate::store::{Store, StoreError, transaction};

/// A longer token is refused before it is hashed.
const TOKEN_MAX: usize = 512;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
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
    /// All of them.
    pub(crate) const ALL: [Self; 6] = [Self::Admin, Self::Publish, Self::Play, Self::Read, Self::Edge, Self::Worker];

    /// The scope of that word.
    pub(crate) fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.word() == word)
    }

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

/// Who asks: the token that a request carries.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) id: String,
    pub(crate) name: String,
    scopes: Vec<Scope>,
}

impl Caller {
    /// Whether its token has a scope beside the one that the route needs.
    pub(crate) fn has(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|has| *has == scope || *has == Scope::Admin)
    }
}

/// Of an answer: the request was refused before its route saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused;

/// Whether the token has `scope`, and whose it is.
async fn authorize(
    parts: &Parts,
    secret: &str,
    address: IpAddr,
    scope: Scope,
    noted: Option<&Noted>,
) -> Result<Caller, ApiError> {
    let token = parts.access.token(&parts.store, secret, address).await?;
    let caller = Caller { id: token.id.clone(), name: token.name.clone(), scopes: token.scopes.clone() };
    // Also of a token that lacks the scope it is known whose it is.
    if let Some(noted) = noted {
        noted.comes_from(&caller);
    }
    if caller.has(scope) { Ok(caller) } else { Err(ApiError::Forbidden(scope.word())) }
}

/// The secret that a request carries.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
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

/// The layer that stands in front of a route.
pub(crate) async fn require(
    State((shared, scope)): State<(Shared, Scope)>,
    mut request: Request,
    next: Next,
) -> Response {
    let address = address::client(request.extensions(), request.headers(), shared.access.trusted());
    // Of its own, since a request's body cannot be lent across a wait.
    let secret = bearer(request.headers()).map(str::to_owned);
    let noted = request.extensions().get::<Noted>().cloned();
    let caller = match secret {
        Ok(secret) => authorize(&shared, &secret, address, scope, noted.as_ref()).await,
        Err(error) => Err(error),
    };
    match caller {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => {
            let mut response = error.into_response();
            response.extensions_mut().insert(Refused);
            response
        }
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
