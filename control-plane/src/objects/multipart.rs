//! Uploads in parts (S3 API reference, "Multipart upload"): begin, presign a part, list, complete, abort, find those that nobody knows.
//!
//! Stores differ: a listing of parts may carry no tags, an upload that is over may be answered 404 or 403, and not every store lists
//! unfinished uploads. Whether an upload was completed is therefore never read from an answer alone: the object says it.

use std::time::Duration;

use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};

use super::{Objects, ObjectsError, Presigned, UPLOADS, failed};

/// How long a store may take to put parts together: it may copy all of them. Asked once; who asks again looks for the object first.
pub(crate) const COMPLETE_TIMEOUT: Duration = Duration::from_secs(300);

/// Pages of one listing: ten of a thousand parts, and as many again for stores with smaller pages.
const PAGES_MAX: usize = 100;

/// Where a part goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartPlace<'a> {
    pub(crate) key: &'a str,
    pub(crate) upload_id: &'a str,
    pub(crate) number: u32,
    /// Bytes that it must have.
    pub(crate) bytes: u64,
    /// Base64 of the MD5 that it must have (RFC 1864).
    pub(crate) md5: Option<&'a str>,
}

/// A part as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) number: u32,
    pub(crate) bytes: u64,
    pub(crate) etag: Option<String>,
}

/// What a store said where a refusal is an answer, and not a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    /// With its code.
    Refused(String),
}

/// An unfinished upload that stands in the bucket.
#[derive(Clone, Debug)]
pub(crate) struct Orphan {
    pub(crate) key: String,
    pub(crate) upload_id: String,
    /// When it was begun, ms since the epoch.
    pub(crate) begun_ms: i64,
}

/// A client's error that repeating cannot mend: what is left are requests that were too slow or too many.
fn refusal<E: ProvideErrorMetadata>(error: &SdkError<E, aws_sdk_s3::config::http::HttpResponse>) -> Option<Answer> {
    let status = error.raw_response()?.status().as_u16();
    let code = || error.code().map_or_else(|| status.to_string(), str::to_owned);
    ((400..500).contains(&status) && !matches!(status, 408 | 429)).then(|| Answer::Refused(code()))
}

impl Objects {
    /// Begins an upload in parts. Answers the store's name for it.
    pub(crate) async fn begin_parts(&self, key: &str, content_type: Option<&str>) -> Result<String, ObjectsError> {
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .set_content_type(content_type.map(str::to_owned))
            .send()
            .await
            .map_err(|error| failed("begin parts of", key, &error))?;
        let cause = "the store gave the upload no id".to_owned();
        begun.upload_id.ok_or_else(|| ObjectsError { action: "begin parts of", key: key.to_owned(), cause })
    }

    /// A PUT of one part, valid for `ttl`.
    pub(crate) async fn presign_part(&self, part: PartPlace<'_>, ttl: Duration) -> Result<Presigned, ObjectsError> {
        let key = part.key;
        let wrong = |cause: String| ObjectsError { action: "presign a part of", key: key.to_owned(), cause };
        let presigning = PresigningConfig::expires_in(ttl).map_err(|error| wrong(error.to_string()))?;
        let length = i64::try_from(part.bytes).map_err(|error| wrong(error.to_string()))?;
        let number = i32::try_from(part.number).map_err(|error| wrong(error.to_string()))?;
        let request = self
            .signer
            .upload_part()
            .bucket(&self.bucket)
            .key(key)
            .upload_id(part.upload_id)
            .part_number(number)
            .content_length(length)
            .set_content_md5(part.md5.map(str::to_owned))
            .presigned(presigning)
            .await
            .map_err(|error| failed("presign a part of", key, &error))?;
        Ok(Presigned::of(&request))
    }

    /// The parts that the store has, by number. None where it does not know the upload (any more).
    pub(crate) async fn list_parts(&self, key: &str, upload_id: &str) -> Result<Vec<Listed>, ObjectsError> {
        let mut parts = Vec::new();
        let mut marker = None;
        for _ in 0..PAGES_MAX {
            let asked = self.client.list_parts().bucket(&self.bucket).key(key).upload_id(upload_id);
            let page = match asked.set_part_number_marker(marker.take()).send().await {
                Ok(page) => page,
                Err(error) if error.code() == Some("NoSuchUpload") => return Ok(Vec::new()),
                Err(error) => return Err(failed("list parts of", key, &error)),
            };
            parts.extend(page.parts().iter().filter_map(|part| {
                Some(Listed {
                    number: u32::try_from(part.part_number()?).ok()?,
                    bytes: u64::try_from(part.size()?).ok()?,
                    etag: part.e_tag().map(str::to_owned),
                })
            }));
            marker = page.next_part_number_marker().map(str::to_owned);
            if marker.is_none() || !page.is_truncated().unwrap_or(false) {
                break;
            }
        }
        parts.sort_unstable_by_key(|part| part.number);
        Ok(parts)
    }

    /// Makes the parts one object.
    pub(crate) async fn complete_parts(
        &self,
        key: &str,
        upload_id: &str,
        parts: &[(u32, Option<String>)],
    ) -> Result<Answer, ObjectsError> {
        let part = |(number, etag): &(u32, Option<String>)| {
            let number = i32::try_from(*number).unwrap_or(i32::MAX);
            CompletedPart::builder().part_number(number).set_e_tag(etag.clone()).build()
        };
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.iter().map(part).collect())).build();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(super::CONNECT_TIMEOUT)
            .operation_attempt_timeout(COMPLETE_TIMEOUT)
            .operation_timeout(COMPLETE_TIMEOUT)
            .build();
        let patient = aws_sdk_s3::Config::builder().timeout_config(timeouts).retry_config(RetryConfig::disabled());
        let asked = self.client.complete_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload_id);
        let sent = asked.multipart_upload(parts).customize().config_override(patient).send().await;
        match sent {
            Ok(_) => Ok(Answer::Done),
            Err(error) => refusal(&error).ok_or_else(|| failed("complete", key, &error)),
        }
    }

    /// Gives an upload up, with its parts.
    pub(crate) async fn abort_parts(&self, key: &str, upload_id: &str) -> Result<Answer, ObjectsError> {
        match self.client.abort_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload_id).send().await {
            Ok(_) => Ok(Answer::Done),
            Err(error) => refusal(&error).ok_or_else(|| failed("abort", key, &error)),
        }
    }

    /// A page of the unfinished uploads under our prefix, and whether there are more. `None`: this store lists none.
    pub(crate) async fn unfinished(&self, after: Option<&Orphan>) -> Result<Option<(Vec<Orphan>, bool)>, ObjectsError> {
        let listed = self
            .client
            .list_multipart_uploads()
            .bucket(&self.bucket)
            .prefix(UPLOADS)
            .set_key_marker(after.map(|orphan| orphan.key.clone()))
            .set_upload_id_marker(after.map(|orphan| orphan.upload_id.clone()))
            .send()
            .await;
        let page = match listed {
            Ok(page) => page,
            Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 501) => {
                return Ok(None);
            }
            Err(error) => return Err(failed("list uploads under", UPLOADS, &error)),
        };
        let orphan = |upload: &aws_sdk_s3::types::MultipartUpload| {
            Some(Orphan {
                key: upload.key()?.to_owned(),
                upload_id: upload.upload_id()?.to_owned(),
                // Without a time it cannot be told from one that was begun just now: it stays.
                begun_ms: upload.initiated()?.to_millis().ok()?,
            })
        };
        Ok(Some((page.uploads().iter().filter_map(orphan).collect(), page.is_truncated().unwrap_or(false))))
    }
}
