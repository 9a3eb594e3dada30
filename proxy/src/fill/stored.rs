//! What S3 gives, and what the fill does with it: objects live by `[cache.ttl]`, and nothing is read out of their heads.
//!
//! Invariants: an object's bytes agree with whatever checksum S3 keeps of them; an error document is no object, whatever
//! its status.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};

use super::{Head, Job, proves_its_end};
use crate::cache::{Meta, Stored};
use crate::origin::{Checks, OriginAnswer};
use crate::refusal::{OriginFailure, Refusal};
use crate::route::{ObjectKind, Target, content_type};

impl Job {
    /// Takes an answer of S3: an object, the word that ours is still the right one, or that there is none.
    pub(super) async fn take_stored(&self, answer: OriginAnswer) -> Result<(), Refusal> {
        let OriginAnswer { status, head, body, asked, by_fallback } = answer;
        let since = Instant::now();
        let cache = &self.shared.config.cache;
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                self.store(&self.key, Stored::Missing { until: since + cache.ttl.missing });
                self.publish(Head::Missing);
                body.discard().await;
                return Ok(());
            }
            StatusCode::NOT_MODIFIED => {
                let Some(previous) = &self.previous else { return Err(OriginFailure::NotAnObject.into()) };
                let Some(meta) = Meta::read(&head, &self.target, cache) else { return Err(Refusal::Internal) };
                // A 304 need not repeat what has not changed.
                let kept = Meta { fresh_for: meta.fresh_for, ..previous.meta.clone() };
                let object = Arc::new(previous.renewed(kept, since));
                self.store(&self.key, Stored::Object(Arc::clone(&object)));
                self.publish(Head::Renewed(object));
                body.discard().await;
                return Ok(());
            }
            StatusCode::OK => {}
            _ => return Err(OriginFailure::NotAnObject.into()),
        }
        if is_error_document(&self.target, head.headers.get(CONTENT_TYPE)) {
            tracing::warn!(origin = self.origin.name, key = self.object_key, "an error document came under status 200");
            return Err(OriginFailure::NotAnObject.into());
        }
        let Some(meta) = Meta::read(&head, &self.target, cache) else { return Err(Refusal::Internal) };
        let max = self.shared.config.cache.max_object;
        if meta.length.is_some_and(|length| length > max) {
            return self.pass(OriginAnswer { status, head, body, asked, by_fallback }, true);
        }
        let key = proves_its_end(&head).then(|| self.key.clone());
        let mut checks = Checks::of_s3(&head, self.origin.config.verify_etag);
        if body_may_be_an_error(&self.target) {
            checks = checks.refuse_error_document();
        }
        self.bring(meta, body, since, checks, key).await
    }
}

/// Whether what S3 declares is an error's document and not the object: S3 servers and gateways in front of them have
/// answered errors with status 200.
pub(crate) fn is_error_document(target: &Target, declared: Option<&HeaderValue>) -> bool {
    let declared = declared.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_document =
        ["application/xml", "text/xml", "text/html"].iter().any(|document| declared.starts_with(document));
    is_document && content_type(target.file()) != "application/octet-stream"
}

/// Whether an XML document in place of this object's bytes would be an error's: what HLS plays is none.
fn body_may_be_an_error(target: &Target) -> bool {
    !matches!(target.kind, ObjectKind::Other)
}
