//! `POST /v1/tracks/{track}/tickets`: a signed ticket, and the URL that a player opens.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use segue_signing::Claims;
use serde::{Deserialize, Serialize};

use super::request::{Body, track_id};
use crate::error::ApiError;
use crate::ids::NoRandomness;
use crate::state::{Parts, Shared};
use crate::store::early;
use crate::store::tracks::{self, Status};
use crate::{clock, objects};

/// Longest `sid` and `sub`, in bytes: what a fact keeps of them whole.
const NAME_MAX: usize = 128;

/// Body of the request; every field is optional.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grant {
    /// The listener's device session; random where it is left out.
    #[serde(default)]
    sid: Option<String>,
    /// The listener.
    #[serde(default)]
    sub: Option<String>,
    /// Life of the ticket in seconds.
    #[serde(default)]
    #[schema(minimum = 1)]
    ttl_s: Option<u64>,
    /// Not valid before this, seconds since the epoch.
    #[serde(default)]
    nbf: Option<i64>,
    /// Address or CIDR of the listener.
    #[serde(default)]
    ip: Option<String>,
    /// Limit class.
    #[serde(default)]
    lim: Option<String>,
    /// Until when the ticket may be renewed, seconds since the epoch.
    #[serde(default)]
    renew_until: Option<i64>,
    /// For policies.
    #[serde(default)]
    ctx: Option<serde_json::Map<String, serde_json::Value>>,
    /// A ticket scheme of the registry that makes the URL, in place of a ticket of Segue's own.
    #[serde(default)]
    scheme: Option<String>,
    /// What only that scheme knows.
    #[serde(default)]
    options: Option<BTreeMap<String, String>>,
}

/// The answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Issued {
    /// `None`: the URL is a scheme's, and holds its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<String>,
    /// `<edge>/p/<ticket>/hls/<track>/master.m3u8`, or `…/<version>/early.m3u8` while the track is encoded; or what the
    /// scheme makes of `<edge>/hls/<track>/master.m3u8`.
    url: String,
    /// Seconds since the epoch.
    expires: i64,
    sid: String,
}

#[utoipa::path(post, path = "/v1/tracks/{track}/tickets", request_body = Option<Grant>, responses((status = 201, body = Issued), (status = 409, description = "`not-active`: the scheme has no active version"), (status = 422, description = "The scheme refused")))]
pub(crate) async fn issue(
    State(parts): State<Shared>,
    Path(id): Path<String>,
    Body(mut grant): Body<Grant>,
) -> Result<(StatusCode, Json<Issued>), ApiError> {
    let id = track_id(id)?;
    let track = tracks::get(&parts.store, &id).await?.ok_or(ApiError::NotFound("track"))?;
    let name = |what: &str, text: Option<&str>| match text {
        Some(text) if text.is_empty() || text.len() > NAME_MAX || text.chars().any(char::is_control) => {
            Err(ApiError::invalid(format!("`{what}` must be 1 to {NAME_MAX} bytes of text without control characters")))
        }
        _ => Ok(()),
    };
    name("sid", grant.sid.as_deref())?;
    name("sub", grant.sub.as_deref())?;
    let max = parts.tickets.max_ttl.as_secs();
    let ttl = grant.ttl_s.unwrap_or(parts.tickets.ttl.as_secs());
    if ttl == 0 || ttl > max {
        return Err(ApiError::invalid(format!("`ttl_s` must be 1 to {max} seconds")));
    }
    let sid = match grant.sid.take() {
        Some(sid) => sid,
        None => random_sid()?,
    };
    let now = clock::now_s();
    let expires = now + i64::try_from(ttl).unwrap_or(i64::MAX / 2);
    if let Some(scheme) = grant.scheme.clone() {
        let url = signed_by(&parts, &scheme, &id, &grant, &sid, expires).await?;
        return Ok((StatusCode::CREATED, Json(Issued { ticket: None, url, expires, sid })));
    }
    if grant.options.is_some() {
        return Err(ApiError::invalid("`options` are a scheme's; name it as `scheme`"));
    }
    let claims = Claims {
        exp: expires,
        nbf: grant.nbf,
        iat: Some(now),
        path: format!("/{}", objects::media_prefix(&id)),
        sid: Some(sid.clone()),
        sub: grant.sub,
        ip: grant.ip,
        lim: grant.lim,
        renew_until: grant.renew_until,
        ctx: grant.ctx,
    };
    let ticket = parts
        .keys
        .mint(&claims, now)
        .ok_or_else(|| ApiError::Busy {
            word: "no-signing-key",
            message: "no signing key is valid at this time; add one under [keys]".to_owned(),
        })?
        .map_err(|error| ApiError::invalid(error.to_string()))?;
    // A track that is still encoded is played from where it grows; the ticket opens the alias as well.
    let early = if track.status == Status::Ready { None } else { early::of_track(&parts.store, &id).await? };
    let key = early.map_or_else(|| objects::alias_key(&id), |version| objects::early_key(&id, &version));
    let url = format!("{}/p/{ticket}/{key}", parts.edge_base);
    Ok((StatusCode::CREATED, Json(Issued { ticket: Some(ticket), url, expires, sid })))
}

/// The track's URL by somebody else's scheme, which knows less than a ticket does: what it has no word for is refused, not dropped.
async fn signed_by(
    parts: &Parts,
    scheme: &str,
    track: &str,
    grant: &Grant,
    sid: &str,
    expires: i64,
) -> Result<String, ApiError> {
    let own = [
        ("sub", grant.sub.is_some()),
        ("lim", grant.lim.is_some()),
        ("renew_until", grant.renew_until.is_some()),
        ("ctx", grant.ctx.is_some()),
    ];
    if let Some((name, _)) = own.iter().find(|(_, is_given)| *is_given) {
        return Err(ApiError::invalid(format!("a URL of a scheme cannot say `{name}`; see the scheme's `options`")));
    }
    let seconds = |at: i64| u64::try_from(at).map_err(|_| ApiError::invalid("a time before 1970"));
    let wish = segue_policy_host::Grant {
        url: format!("{}/{}", parts.edge_base, objects::alias_key(track)),
        scope: Some(format!("/{}", objects::media_prefix(track))),
        expires: seconds(expires)?,
        not_before: grant.nbf.map(seconds).transpose()?,
        address: grant.ip.clone(),
        session: Some(sid.to_owned()),
        options: grant.options.clone().unwrap_or_default().into_iter().collect(),
    };
    parts.policies.sign(&parts.store, scheme, wish).await
}

/// 128 random bits.
fn random_sid() -> Result<String, NoRandomness> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
