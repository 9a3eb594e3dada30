//! Content keys: what lies wrapped in the bucket goes out as the sixteen bytes that a player wants.
//!
//! A wrapped key has the name that playlists give as the key's URI, so that it is found, filled, purged and judged like a
//! segment beside it. Only here it becomes another thing: the fill opens it before anybody gets a byte.
//!
//! Invariants: nobody is given a wrapped key that a fill brought, and no opened one reaches a disk (`cache/tiers.rs` keeps keys of every
//! kind from there); its bytes are overwritten when the last holder lets go; clients are told not to keep it. How long an
//! edge goes on with an opened key is bounded by `[cache.ttl] key`, and by `stale_if_error` while the bucket is away.
//! Keys that were never wrapped (buckets that are not Segue's) go out as they are.
//!
//! On failure: the fill fails, the log says which wrapping key is wrong or missing, clients get 502 `content-key`.

use bytes::Bytes;
use http::header::HeaderValue;
use segue_signing::is_wrapped;

use crate::cache::{Meta, Object};
use crate::edge::Shared;
use crate::refusal::Refusal;
use crate::route::{ObjectKind, Target};

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// What clients may get of an object that a fill brought: a wrapped key is opened, everything else is as it was.
///
/// # Errors
/// [`Refusal::ContentKey`].
pub(crate) fn opened(shared: &Shared, target: &Target, object: Object) -> Result<Object, Refusal> {
    if target.kind != ObjectKind::Key || !is_wrapped(&object.body) {
        return Ok(object);
    }
    // The newest ones: a key that was taken out of the file opens nothing more.
    let keys = &shared.snapshots.current().wrapping;
    let place = format!("{}/{}", target.track(), target.file());
    let key = keys.unwrap(&object.body, &place).map_err(|error| {
        shared.metrics.content_keys_refused.add(1);
        tracing::error!(track = target.track(), file = target.file(), reason = error.kind(), %error, "a content key cannot be opened");
        Refusal::ContentKey
    })?;
    shared.metrics.content_keys.add(1);
    let body = Bytes::from_owner(key);
    let meta = Meta {
        length: Some(body.len() as u64),
        // Those of the wrapped form: by them a renewal would keep what no key opens any more.
        etag: None,
        last_modified: None,
        content_type: HeaderValue::from_static("application/octet-stream"),
        content_encoding: None,
        cache_control: NO_STORE,
        fresh_for: shared.config.cache.ttl.key,
        http: None,
        whole_only: true,
        ..object.meta
    };
    Ok(Object::new(meta, body, object.since))
}
