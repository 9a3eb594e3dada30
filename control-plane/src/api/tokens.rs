//! `/v1/tokens`: API tokens with scopes. A secret is shown once, in the answer that made it, and is stored by nobody here.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::request::{Asked, Body, Page};
use crate::auth::{Scope, secret};
use crate::clock;
use crate::error::ApiError;
use crate::state::{Parts, Shared};
use crate::store::tokens::{self, ApiTokenRow, ListedToken};
use crate::store::transaction;

/// Tokens that there may be: a bound on what is listed and remembered, not on a house.
const TOKENS_MAX: i64 = 1000;

/// Bytes of a name.
const NAME_MAX: usize = 128;

/// Names of tokens of the configuration begin so; no other's may.
const CONFIGURED: &str = "bootstrap-";

/// Longest life, in seconds from now: ten years.
const LIFE_MAX_S: i64 = 3650 * 86_400;

/// For so long after a rotation the secret before it is taken, in seconds, where the request says nothing.
const OVERLAP_S: i64 = 24 * 3600;

/// And at most: thirty days.
const OVERLAP_MAX_S: i64 = 30 * 86_400;

/// A token as the API shows it: everything but its secret.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct TokenView {
    id: String,
    name: String,
    scopes: Vec<Scope>,
    /// `config`: it stands in the configuration, and can be changed there alone; else `database`.
    source: &'static str,
    created_ms: i64,
    /// When it was used last, to some seconds.
    last_used_ms: Option<i64>,
    /// When it got its present secret, where that is not its first.
    rotated_ms: Option<i64>,
    /// Seconds since the epoch; it has no end where there is none.
    expires_at: Option<i64>,
    /// Until when the secret before the last rotation is taken, seconds since the epoch.
    overlap_until: Option<i64>,
}

impl From<ListedToken> for TokenView {
    fn from(row: ListedToken) -> Self {
        Self {
            scopes: row.scopes.split_ascii_whitespace().filter_map(Scope::of).collect(),
            source: if row.configured == 1 { "config" } else { "database" },
            id: row.id,
            name: row.name,
            created_ms: row.created_ms,
            last_used_ms: row.last_used_ms,
            rotated_ms: row.rotated_ms,
            expires_at: row.expires_ms.map(|ms| ms / 1000),
            overlap_until: row.former_until_ms.filter(|until| *until > clock::now_ms()).map(|ms| ms / 1000),
        }
    }
}

/// A token and its secret, which is shown this once.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct NewSecret {
    token: TokenView,
    /// What is sent as `Authorization: Bearer …`.
    secret: String,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// For people: who or what has it.
    #[schema(min_length = 1)]
    name: String,
    #[schema(min_items = 1, max_items = 6)]
    scopes: Vec<Scope>,
    /// Seconds since the epoch; no end where it is left out.
    #[serde(default)]
    expires_at: Option<i64>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenRotation {
    /// How long the secret before the new one goes on, in seconds; a day where it is left out, 0 ends it at once.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2_592_000)]
    overlap_s: Option<i64>,
}

/// A page of tokens.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Tokens {
    tokens: Vec<TokenView>,
    /// The `after` of the next page; `null`: this was the last one.
    next: Option<String>,
}

/// All tokens, newest first, page by page.
#[utoipa::path(get, path = "/v1/tokens", params(Page), responses((status = 200, body = Tokens)))]
pub(crate) async fn list(State(parts): State<Shared>, Asked(page): Asked<Page>) -> Result<Json<Tokens>, ApiError> {
    let rows = tokens::list(&parts.store, page.cursor()?, page.limit()).await?;
    let next = page.next(rows.len(), rows.last().map(|row| (row.created_ms, row.id.as_str())));
    Ok(Json(Tokens { tokens: rows.into_iter().map(TokenView::from).collect(), next }))
}

/// Makes a token. Its secret is in this answer and in no other.
#[utoipa::path(post, path = "/v1/tokens", request_body = NewToken, responses((status = 201, description = "The token, and its secret, which is shown this once", body = NewSecret), (status = 409, description = "`too-many-tokens`")))]
pub(crate) async fn create(
    State(parts): State<Shared>,
    Body(wish): Body<NewToken>,
) -> Result<(StatusCode, Json<NewSecret>), ApiError> {
    let expires_ms = wish.check()?;
    let id = secret::new_id()?;
    let token = secret::make(&id)?;
    let mut words: Vec<&str> = wish.scopes.iter().map(|scope| scope.word()).collect();
    words.sort_unstable();
    words.dedup();
    let row = ApiTokenRow {
        id: id.clone(),
        name: wish.name.trim().to_owned(),
        hash: secret::hash(&token),
        former_hash: None,
        former_until_ms: None,
        scopes: words.join(" "),
        created_ms: clock::now_ms(),
        rotated_ms: None,
        expires_ms,
    };
    transaction!(parts.store, |tx| {
        if tokens::count(tx).await? >= TOKENS_MAX {
            return Err(ApiError::conflict(
                "too-many-tokens",
                format!("there are {TOKENS_MAX} tokens; revoke some that are not used any more"),
            ));
        }
        Ok(tokens::put_api(tx, &row).await?)
    })?;
    Ok((StatusCode::CREATED, Json(shown(&parts, &id, token).await?)))
}

/// Gives a token a new secret. The one before it goes on for a while, so that whoever has it can be told the new one.
#[utoipa::path(post, path = "/v1/tokens/{token}/rotate", request_body = Option<TokenRotation>, responses((status = 200, description = "The token, and its new secret, which is shown this once", body = NewSecret), (status = 409, description = "`token-configured`")))]
pub(crate) async fn rotate(
    State(parts): State<Shared>,
    Path(id): Path<String>,
    Body(wish): Body<TokenRotation>,
) -> Result<Json<NewSecret>, ApiError> {
    let overlap = wish.overlap_s.unwrap_or(OVERLAP_S);
    if !(0..=OVERLAP_MAX_S).contains(&overlap) {
        return Err(ApiError::invalid(format!("`overlap_s` must be 0 to {OVERLAP_MAX_S} seconds (30 days)")));
    }
    let token = secret::make(&id)?;
    transaction!(parts.store, |tx| {
        let now = clock::now_ms();
        let row = tokens::hold(tx, &id).await?.ok_or_else(|| missing(&id))?;
        let row = ApiTokenRow {
            hash: secret::hash(&token),
            former_hash: (overlap > 0).then_some(row.hash),
            former_until_ms: (overlap > 0).then_some(now + overlap * 1000),
            rotated_ms: Some(now),
            ..row
        };
        tokens::put_api(tx, &row).await?;
        Ok::<(), ApiError>(())
    })?;
    parts.access.forget(&id);
    Ok(Json(shown(&parts, &id, token).await?))
}

/// Ends a token: here at once, at other control planes within a second.
#[utoipa::path(delete, path = "/v1/tokens/{token}", responses((status = 204), (status = 409, description = "`token-configured`")))]
pub(crate) async fn revoke(State(parts): State<Shared>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    transaction!(parts.store, |tx| if tokens::revoke(tx, &id).await? { Ok(()) } else { Err(missing(&id)) })?;
    parts.access.forget(&id);
    Ok(StatusCode::NO_CONTENT)
}

fn missing(id: &str) -> ApiError {
    if id.starts_with(CONFIGURED) {
        return ApiError::conflict(
            "token-configured",
            format!("{id:?} stands in the configuration; change it under [tokens] there, and restart"),
        );
    }
    ApiError::NotFound("token")
}

async fn shown(parts: &Parts, id: &str, secret: String) -> Result<NewSecret, ApiError> {
    let token = tokens::listed(&parts.store, id).await?.ok_or(ApiError::NotFound("token"))?.into();
    Ok(NewSecret { token, secret })
}

impl NewToken {
    /// Gives its end, ms since the epoch.
    fn check(&self) -> Result<Option<i64>, ApiError> {
        let name = self.name.trim();
        if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
            return Err(ApiError::invalid(format!(
                "`name` must be 1 to {NAME_MAX} bytes of text without control characters"
            )));
        }
        if name.starts_with(CONFIGURED) {
            return Err(ApiError::invalid(format!(
                "`name` must not begin with {CONFIGURED:?}: tokens of the configuration do"
            )));
        }
        if self.scopes.is_empty() || self.scopes.len() > Scope::ALL.len() {
            return Err(ApiError::invalid("`scopes` must name each scope that the token is to have, and at least one"));
        }
        let now = clock::now_s();
        match self.expires_at {
            Some(at) if at <= now || at > now + LIFE_MAX_S => {
                Err(ApiError::invalid("`expires_at` must lie in the next ten years (seconds since the epoch)"))
            }
            at => Ok(at.map(|at| at * 1000)),
        }
    }
}
