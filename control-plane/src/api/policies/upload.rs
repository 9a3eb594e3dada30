//! `POST /v1/policies/{name}/versions`: a new version, as a form (`multipart/form-data`, RFC 7578).
//!
//! | field        | what it is |
//! |--------------|------------|
//! | `component`  | the file; the only one that must be there |
//! | `config`     | what `configure` is called with, a JSON object |
//! | `on_failure` | `closed` or `open` |
//! | `order`      | policies are asked in this order |
//! | `version`    | its name; made of the file's SHA-256 where it is left out |
//! | `signature`  | Ed25519 over the file |
//! | `note`       | for the history |
//!
//! `config`, `on_failure` and `order` are those of the newest version where they are left out. The same upload again answers with the version
//! that is there.
//!
//! Invariants: a file over its bound is never held; it is read to its end (within a bound) and thrown away, so that the client hears
//! why. Nothing is written before everything was checked.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::multipart::{Field, MultipartError, MultipartRejection};
use axum::extract::{Multipart, Path, State};
use axum::{Extension, Json};
use http::StatusCode;
use segue_policy_host::{Bounds, World};
use segue_signing::{MAX_POLICIES, PolicyFailMode, PolicyWorld};
use serde_json::Value;

use super::view;
use crate::auth::Caller;
use crate::clock;
use crate::error::ApiError;
use crate::policies::signers;
use crate::state::{Parts, Shared};
use crate::store::policies::{self, HistoryRow, PolicyRow, VersionRow, bytes, world_word};
use crate::store::{StoreError, Write, edges, keys, transaction};

/// Bytes of the whole request: the file may be too large and is then read to its end, but not without end.
pub(crate) const REQUEST_MAX: usize = 256 << 20;

/// Bytes of a configuration; every edge gets it with the snapshot. A list of 25,000 networks fits.
const CONFIG_MAX: usize = 1 << 20;

/// Bytes of any other field.
const FIELD_MAX: usize = 4096;

/// How long the request may be on its way: 32 MiB at 2 Mbit/s.
const READ_WITHIN: Duration = Duration::from_secs(150);

/// Versions of one policy that are kept; old ones are deleted by whoever reaches it.
const VERSIONS_MAX: usize = 64;

/// Digits of the digest that name a version.
const NAME_DIGITS: usize = 12;

/// The form.
#[derive(utoipa::ToSchema)]
#[schema(as = PolicyUpload)]
#[allow(dead_code, reason = "read field by field, as it comes; here for the document alone")]
struct Upload {
    /// The file.
    #[schema(value_type = String, format = Binary)]
    component: Vec<u8>,
    /// What `configure` is called with.
    #[schema(value_type = Option<Object>)]
    config: Option<Value>,
    /// `closed` or `open`.
    #[schema(pattern = "^(closed|open)$")]
    on_failure: Option<String>,
    order: Option<i32>,
    version: Option<String>,
    /// Ed25519 over the file.
    #[schema(value_type = Option<String>, format = Binary)]
    signature: Option<Vec<u8>>,
    note: Option<String>,
}

/// The fields as they came.
#[derive(Debug, Default)]
struct Form {
    component: Option<Vec<u8>>,
    config: Option<Value>,
    on_failure: Option<PolicyFailMode>,
    order: Option<i32>,
    version: Option<String>,
    signature: Option<Vec<u8>>,
    note: Option<String>,
}

#[utoipa::path(post, path = "/v1/policies/{policy}/versions", request_body(content = Upload, content_type = "multipart/form-data"), responses((status = 200, description = "It was there", body = view::Version), (status = 201, body = view::Version), (status = 409, description = "`other-world`, `too-many-policies`, `too-many-versions`, `version-taken`"), (status = 422, description = "The file was understood, and is not taken: not a component, not signed, or its self-test failed")))]
pub(crate) async fn add(
    State(parts): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    form: Result<Multipart, MultipartRejection>,
) -> Result<(StatusCode, Json<view::Version>), ApiError> {
    super::checked_name("the policy's name", &name)?;
    let form = form.map_err(|rejection| ApiError::invalid(format!("not a form: {}", rejection.body_text())))?;
    let _seat = Arc::clone(&parts.policies.uploads).try_acquire_owned().map_err(|_| ApiError::Busy {
        word: "uploads-busy",
        message: "several policies are being uploaded; try again in a moment".to_owned(),
    })?;
    let mut form = tokio::time::timeout(READ_WITHIN, Form::read(form)).await.map_err(|_| ApiError::Busy {
        word: "upload-slow",
        message: format!("the upload did not arrive within {} s", READ_WITHIN.as_secs()),
    })??;
    let component = form.component.take().ok_or_else(|| ApiError::invalid("the form has no field `component`"))?;
    let signer = signers::signer(parts.policies.signers(), &component, form.signature.as_deref())
        .map_err(|error| refused(error.kind(), error.to_string()))?
        .map(|signer| signer.name.clone());
    let known = policies::one(&parts.store, &name).await?;
    let newest = known.as_ref().and_then(|(_, versions)| versions.last());
    let config = match (&form.config, newest) {
        (Some(config), _) => config.clone(),
        (None, Some(newest)) => serde_json::from_str(&newest.config).map_err(StoreError::from)?,
        (None, None) => Value::Object(serde_json::Map::new()),
    };
    let (component, passed) = parts.policies.check(component, config.clone()).await?;
    let passed = passed.map_err(|unfit| refused(unfit.kind(), unfit.to_string()))?;
    let row = VersionRow {
        policy: name,
        version: form.version.clone().unwrap_or_default(),
        digest: passed.checked.digest,
        bytes: i64::try_from(passed.checked.size).unwrap_or(i64::MAX),
        config: serde_json::to_string(&config).map_err(StoreError::from)?,
        order: form.order.or(newest.map(|newest| newest.order)).unwrap_or_default(),
        on_failure: form.on_failure.or(newest.map(|newest| newest.on_failure)).unwrap_or_default(),
        imports: passed.checked.imports,
        vectors: i64::try_from(passed.vectors).unwrap_or(i64::MAX),
        signer,
        uploaded_by: caller.name.clone(),
        note: form.note,
        pushed_ms: None,
        created_ms: clock::now_ms(),
    };
    let world = match passed.checked.world {
        World::Access => PolicyWorld::Access,
        World::TicketScheme => PolicyWorld::TicketScheme,
    };
    keep(&parts, &caller, &row, world, &component).await
}

/// Writes what passed, unless it is there.
async fn keep(
    parts: &Parts,
    caller: &Caller,
    row: &VersionRow,
    world: PolicyWorld,
    component: &[u8],
) -> Result<(StatusCode, Json<view::Version>), ApiError> {
    let edges = edges::list(&parts.store).await?;
    let (is_new, view) = transaction!(parts.store, |tx| {
        // Also where nothing is told: of two who bring a first version the second finds the policy.
        keys::lock(tx).await?;
        let policy = policy_for(tx, row, world).await?;
        let versions = policies::versions(tx, &row.policy).await?;
        let state = super::rollout::state(&policy, &versions);
        let now = clock::now_ms();
        if let Some(known) = versions.iter().find(|known| is_same(known, row)) {
            return Ok((false, view::version(known, &state, &edges, now, true)));
        }
        if versions.len() >= VERSIONS_MAX {
            return Err(ApiError::conflict(
                "too-many-versions",
                format!("{:?} has {VERSIONS_MAX} versions; delete some that are of no use any more", row.policy),
            ));
        }
        let row = VersionRow { version: named(row, &versions)?, ..row.clone() };
        bytes::put(tx, &row.digest, component).await?;
        policies::insert_version(tx, &row).await?;
        policies::put(tx, &PolicyRow { updated_ms: row.created_ms, ..policy }).await?;
        let line = super::line(&row.policy, caller, "upload", row.note.clone());
        policies::note(tx, HistoryRow { version: Some(row.version.clone()), ..line }).await?;
        Ok::<_, ApiError>((true, view::version(&row, &state, &edges, now, true)))
    })?;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(view)))
}

/// Whether it is what is uploaded: the bytes with all that goes with them, under that name or under any.
fn is_same(known: &VersionRow, row: &VersionRow) -> bool {
    (&known.digest, &known.config, known.order, known.on_failure)
        == (&row.digest, &row.config, row.order, row.on_failure)
        && (row.version.is_empty() || row.version == known.version)
}

/// The policy that gets a version; a new one with its first.
async fn policy_for(tx: &mut Write, row: &VersionRow, world: PolicyWorld) -> Result<PolicyRow, ApiError> {
    if let Some(policy) = policies::get(tx, &row.policy).await? {
        return if policy.world == world {
            Ok(policy)
        } else {
            Err(ApiError::conflict(
                "other-world",
                format!(
                    "{:?} is of the world {}, and this file is of {}; give it a name of its own",
                    row.policy,
                    world_word(policy.world),
                    world_word(world)
                ),
            ))
        };
    }
    if policies::count(tx).await? >= i64::try_from(MAX_POLICIES).unwrap_or(i64::MAX) {
        return Err(ApiError::conflict(
            "too-many-policies",
            format!("there are {MAX_POLICIES} policies, which is all there can be"),
        ));
    }
    Ok(PolicyRow {
        name: row.policy.clone(),
        world,
        active: None,
        stack: Vec::new(),
        candidate: None,
        trial_since_ms: 0,
        created_ms: row.created_ms,
        updated_ms: row.created_ms,
    })
}

/// The name that was given, or one of the digest; the same bytes with another configuration get a number behind it.
fn named(row: &VersionRow, versions: &[VersionRow]) -> Result<String, ApiError> {
    let taken = |name: &str| versions.iter().any(|known| known.version == name);
    if !row.version.is_empty() {
        return if taken(&row.version) {
            Err(ApiError::conflict(
                "version-taken",
                format!("there is a version {:?} already, of another file, configuration or setting", row.version),
            ))
        } else {
            Ok(row.version.clone())
        };
    }
    let base: String = row.digest.chars().take(NAME_DIGITS).collect();
    let mut names = std::iter::once(base.clone()).chain((2..).map(|number| format!("{base}-{number}")));
    names.find(|name| !taken(name)).ok_or_else(|| ApiError::Internal("numbers ran out".to_owned()))
}

/// 422: understood, and not taken.
fn refused(word: &'static str, message: String) -> ApiError {
    let status = match word {
        "too-large" => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    ApiError::Invalid { status, word, message }
}

fn broken(error: &MultipartError) -> ApiError {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return too_large("component", Bounds::default().upload);
    }
    ApiError::invalid(format!("the form cannot be read: {}", error.body_text()))
}

fn too_large(field: &str, bound: usize) -> ApiError {
    refused("too-large", format!("`{field}` has more than {bound} bytes, which is the most that is taken"))
}

impl Form {
    async fn read(mut form: Multipart) -> Result<Self, ApiError> {
        let mut read = Self::default();
        let mut problem = None;
        while let Some(field) = form.next_field().await.map_err(|error| broken(&error))? {
            // After a problem the rest is read and thrown away: a connection that is cut says nothing.
            if problem.is_none() {
                problem = read.take(field).await.err();
            }
        }
        match problem {
            Some(problem) => Err(problem),
            None => Ok(read),
        }
    }

    async fn take(&mut self, field: Field<'_>) -> Result<(), ApiError> {
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "component" => self.component = Some(whole(field, Bounds::default().upload).await?),
            "config" => {
                let text = whole(field, CONFIG_MAX).await?;
                let config: Value = serde_json::from_slice(&text)
                    .map_err(|error| ApiError::invalid(format!("`config` is not JSON: {error}")))?;
                if !config.is_object() {
                    return Err(ApiError::invalid("`config` must be a JSON object"));
                }
                self.config = Some(config);
            }
            "on_failure" => {
                self.on_failure = Some(match text(field).await?.as_str() {
                    "closed" => PolicyFailMode::Closed,
                    "open" => PolicyFailMode::Open,
                    other => {
                        return Err(ApiError::invalid(format!(
                            "`on_failure` is `closed` or `open`, and not {other:?}"
                        )));
                    }
                });
            }
            "order" => {
                let order = text(field).await?;
                self.order = Some(order.parse().map_err(|_| {
                    ApiError::invalid(format!(
                        "`order` is a number from {} to {}, and not {order:?}",
                        i32::MIN,
                        i32::MAX
                    ))
                })?);
            }
            "version" => {
                let version = text(field).await?;
                super::checked_name("`version`", &version)?;
                self.version = Some(version);
            }
            "signature" => self.signature = Some(whole(field, FIELD_MAX).await?),
            "note" => self.note = super::note(Some(text(field).await?))?,
            other => return Err(ApiError::invalid(format!("the form has a field {other:?} that is not known"))),
        }
        Ok(())
    }
}

/// A field's bytes, up to a bound.
async fn whole(mut field: Field<'_>, bound: usize) -> Result<Vec<u8>, ApiError> {
    let name = field.name().unwrap_or_default().to_owned();
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error))? {
        if bytes.len() + chunk.len() > bound {
            return Err(too_large(&name, bound));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn text(field: Field<'_>) -> Result<String, ApiError> {
    let name = field.name().unwrap_or_default().to_owned();
    let bytes = whole(field, FIELD_MAX).await?;
    let text = String::from_utf8(bytes).map_err(|_| ApiError::invalid(format!("`{name}` is not UTF-8")))?;
    Ok(text.trim().to_owned())
}
