//! `/v1/keys`: the keys that sign and verify tickets. A secret is made here and told to edges, and is shown to nobody.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use segue_signing::{Key, Keyring, KeyringError, MAX_KEYS, SigningSecret};
use serde::{Deserialize, Serialize};

use super::request::{Asked, Body};
use crate::error::ApiError;
use crate::state::{Parts, Shared};
use crate::store::keys::{self, KeyRow, KeyUses};
use crate::store::{StoreError, Write, transaction};
use crate::{clock, ids};

/// A new key signs no earlier than this many seconds from now: edges hear of it first. One that cannot be reached in
/// that time refuses its tickets until it can.
const LEAD_S: i64 = 10;

/// For so long after a rotation the keys before it verify, in seconds, where the request says nothing: the longest that
/// a ticket lives by default.
const OVERLAP_S: i64 = 30 * 24 * 3600;

/// A key as the API shows it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct KeyView {
    kid: String,
    /// `config` or `database`.
    source: &'static str,
    /// `pending`, `active` or `retired`.
    state: &'static str,
    /// Whether new tickets are signed with it.
    signs: bool,
    /// Seconds since the epoch.
    not_before: Option<i64>,
    retire_at: Option<i64>,
    /// Tickets and URLs that edges accepted, and those that came outside its time.
    accepted: i64,
    out_of_time: i64,
    /// When an edge last met it, ms since the epoch, to the length of an edge's report.
    last_used_ms: Option<i64>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKey {
    /// Its name; made up where it is left out.
    #[serde(default)]
    kid: Option<String>,
    /// Seconds since the epoch.
    #[serde(default)]
    not_before: Option<i64>,
    #[serde(default)]
    retire_at: Option<i64>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KeyRotation)]
pub(crate) struct Rotation {
    /// How long the keys before the new one go on verifying, in seconds.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 34_560_000)]
    overlap_s: Option<i64>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Retirement {
    /// When, in seconds since the epoch; now where it is left out.
    #[serde(default)]
    at: Option<i64>,
    /// Also where no key is left then that could sign.
    #[serde(default)]
    force: bool,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Keys {
    keys: Vec<KeyView>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = KeyRotated)]
pub(crate) struct Rotated {
    key: KeyView,
    /// Keys that got an end by it.
    retiring: Vec<String>,
}

/// All keys that edges know.
#[utoipa::path(get, path = "/v1/keys", responses((status = 200, body = Keys)))]
pub(crate) async fn list(State(parts): State<Shared>) -> Result<Json<Keys>, ApiError> {
    Ok(Json(Keys { keys: views(&parts).await? }))
}

/// Adds a key with a secret of 32 random bytes.
#[utoipa::path(post, path = "/v1/keys", request_body = Option<NewKey>, responses((status = 201, body = KeyView), (status = 409, description = "`kid-taken`, `keys-too-many`")))]
pub(crate) async fn add(
    State(parts): State<Shared>,
    Body(wish): Body<NewKey>,
) -> Result<(StatusCode, Json<KeyView>), ApiError> {
    let kid = transaction!(parts.store, |tx| {
        begin(tx).await?;
        new_key(&parts, tx, &wish).await
    })?;
    parts.keys.publish(&parts.store).await?;
    Ok((StatusCode::CREATED, Json(view(&parts, &kid).await?)))
}

/// Adds a key that takes over, and sets an end to those before it.
#[utoipa::path(post, path = "/v1/keys/rotate", request_body = Option<Rotation>, responses((status = 201, body = Rotated), (status = 409, description = "`keys-too-many`")))]
pub(crate) async fn rotate(
    State(parts): State<Shared>,
    Body(wish): Body<Rotation>,
) -> Result<(StatusCode, Json<Rotated>), ApiError> {
    let overlap = wish.overlap_s.unwrap_or(OVERLAP_S);
    if !(0..=400 * 86_400).contains(&overlap) {
        return Err(ApiError::invalid("`overlap_s` must be 0 to 34560000 seconds (400 days)"));
    }
    let begins = clock::now_s() + LEAD_S;
    let before = parts.keys.ring();
    let wish = NewKey { kid: None, not_before: Some(begins), retire_at: None };
    let (kid, retiring) = transaction!(parts.store, |tx| {
        begin(tx).await?;
        let kid = new_key(&parts, tx, &wish).await?;
        let mut retiring = Vec::new();
        for key in before.iter().filter(|key| key.retire_at.is_none_or(|at| at > begins + overlap)) {
            retire_key(tx, key, begins + overlap).await?;
            retiring.push(key.kid.clone());
        }
        Ok::<_, ApiError>((kid, retiring))
    })?;
    parts.keys.publish(&parts.store).await?;
    Ok((StatusCode::CREATED, Json(Rotated { key: view(&parts, &kid).await?, retiring })))
}

/// Retires a key: nothing signed by it is accepted from then on.
#[utoipa::path(delete, path = "/v1/keys/{kid}", params(Retirement), responses((status = 200, body = KeyView), (status = 409, description = "`last-key`")))]
pub(crate) async fn retire(
    State(parts): State<Shared>,
    Path(kid): Path<String>,
    Asked(wish): Asked<Retirement>,
) -> Result<Json<KeyView>, ApiError> {
    let ring = parts.keys.ring();
    let key = ring.get(&kid).ok_or(ApiError::NotFound("key"))?;
    // No key ends before now: one that did would be dropped at once, and this could not say what it did.
    let at = wish.at.unwrap_or(0).max(clock::now_s());
    let stays = |other: &Key| other.kid != kid && other.check_time(at, 0).is_ok();
    if !wish.force && !ring.iter().any(stays) {
        return Err(ApiError::conflict(
            "last-key",
            "no other key would be good then, and no ticket could be signed; add one first, or say force=true",
        ));
    }
    transaction!(parts.store, |tx| {
        begin(tx).await?;
        retire_key(tx, key, at).await
    })?;
    parts.keys.publish(&parts.store).await?;
    Ok(Json(view(&parts, &kid).await?))
}

async fn new_key(parts: &Parts, tx: &mut Write, wish: &NewKey) -> Result<String, ApiError> {
    if wish.retire_at.is_some_and(|at| at <= clock::now_s()) {
        return Err(ApiError::invalid("`retire_at` is over: the key would never be good for anything"));
    }
    let kid = match &wish.kid {
        Some(kid) => kid.clone(),
        None => format!("k-{}", ids::other()?),
    };
    if parts.keys.is_own(&kid) || keys::keys(tx).await?.iter().any(|known| known.kid == kid) {
        return Err(ApiError::conflict(
            "kid-taken",
            format!("there is or was a key {kid:?}; give the new one a new name"),
        ));
    }
    let secret = SigningSecret::generate().map_err(|error| ApiError::Internal(error.to_string()))?;
    let not_before = Some(wish.not_before.unwrap_or_else(|| clock::now_s() + LEAD_S));
    let row = KeyRow {
        kid: kid.clone(),
        secret: Some(secret.clone()),
        not_before,
        retire_at: wish.retire_at,
        created_ms: clock::now_ms(),
    };
    // Checked as edges will read it, in the company that it comes into.
    let secret = SigningSecret::parse(&secret).map_err(|error| ApiError::Internal(error.to_string()))?;
    let key = Key { kid: kid.clone(), secret, not_before, retire_at: wish.retire_at };
    let all: Vec<Key> = parts.keys.ring().iter().cloned().chain([key]).collect();
    Keyring::new(all).map_err(|error| match error {
        KeyringError::TooMany(_) => ApiError::conflict(
            "keys-too-many",
            format!("a keyring holds {MAX_KEYS} keys; retire some, or wait until they are dropped"),
        ),
        error => ApiError::invalid(error.to_string()),
    })?;
    keys::put_key(tx, &row).await?;
    Ok(kid)
}

async fn retire_key(tx: &mut Write, key: &Key, at: i64) -> Result<(), StoreError> {
    let known = keys::keys(tx).await?.into_iter().find(|known| known.kid == key.kid);
    let row = known.unwrap_or(KeyRow {
        kid: key.kid.clone(),
        secret: None,
        not_before: key.not_before,
        retire_at: None,
        created_ms: clock::now_ms(),
    });
    // A key that was still to begin never does: its end would lie before its beginning, which makes no key.
    let not_before = row.not_before.filter(|begins| *begins < at);
    keys::put_key(tx, &KeyRow { not_before, retire_at: Some(at), ..row }).await
}

/// Begins a change of keys: under a new revision, which is the lock on all that edges are told.
async fn begin(tx: &mut Write) -> Result<(), StoreError> {
    keys::raise_revision(tx, clock::now_ms()).await?;
    Ok(())
}

async fn view(parts: &Parts, kid: &str) -> Result<KeyView, ApiError> {
    views(parts).await?.into_iter().find(|key| key.kid == kid).ok_or(ApiError::NotFound("key"))
}

async fn views(parts: &Parts) -> Result<Vec<KeyView>, ApiError> {
    let (ring, now) = (parts.keys.ring(), clock::now_s());
    let uses = keys::uses(&parts.store).await?;
    let signer = ring.signer(now).map(|key| key.kid.as_str());
    let view = |key: &Key| {
        let KeyUses { accepted, out_of_time, last_used_ms } = uses.get(&key.kid).copied().unwrap_or_default();
        KeyView {
            kid: key.kid.clone(),
            source: if parts.keys.is_own(&key.kid) { "config" } else { "database" },
            state: match (key.retire_at.is_some_and(|at| now >= at), key.not_before.is_some_and(|at| now < at)) {
                (true, _) => "retired",
                (false, true) => "pending",
                (false, false) => "active",
            },
            signs: signer == Some(&key.kid),
            not_before: key.not_before,
            retire_at: key.retire_at,
            accepted,
            out_of_time,
            last_used_ms,
        }
    };
    Ok(ring.iter().map(view).collect())
}
