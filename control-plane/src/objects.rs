//! The bucket: presigned uploads, the check of what arrived, the alias playlist, removals.
//!
//! `objects/multipart.rs` has uploads in parts.
//!
//! Invariants: the only object that this module writes is a track's alias `hls/<track>/master.m3u8`; everything else
//! under a track is written by the worker that holds the job. Every call has a time limit and a bounded number of
//! tries. On failure nothing is remembered here: the caller's state in the database says what is still to be done.

mod multipart;

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};

use crate::config::ObjectsConfig;
use crate::ids;
pub(crate) use multipart::{Answer, COMPLETE_TIMEOUT, Listed, Orphan, PartPlace};

/// Connecting to a store that is up takes far less; one that is down is told quickly.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// One try of one call. Nothing that is sent or read here is larger than a listing of a thousand keys.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// A call with its retries: shorter than the time limit of an API request.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);

/// Tries of one call.
const ATTEMPTS: u32 = 3;

/// Pages of one removal run: a million keys. A larger prefix is finished by the next run.
const PAGES_MAX: usize = 1000;

/// The store refused or did not answer. What it said is for the log.
#[derive(Debug, thiserror::Error)]
#[error("object store: {action} {key}: {cause}")]
pub(crate) struct ObjectsError {
    action: &'static str,
    key: String,
    cause: String,
}

/// What stands under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Size in bytes.
    pub(crate) bytes: u64,
}

/// A request that a client can make without credentials.
#[derive(Clone, Debug)]
pub(crate) struct Presigned {
    pub(crate) method: String,
    pub(crate) url: String,
    /// Headers to replay. `Content-Length` is signed too and left out: every HTTP client sets it from the body.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Presigned {
    fn of(request: &PresignedRequest) -> Self {
        let headers = request
            .headers()
            .filter(|(name, _)| !name.eq_ignore_ascii_case("content-length") && !name.eq_ignore_ascii_case("host"))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { method: request.method().to_owned(), url: request.uri().to_owned(), headers }
    }
}

/// The bucket.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    client: Client,
    /// Signs for the endpoint that clients reach; never sends.
    signer: Client,
    bucket: String,
}

fn failed<E, R>(action: &'static str, key: &str, error: &SdkError<E, R>) -> ObjectsError
where
    SdkError<E, R>: std::error::Error,
{
    ObjectsError { action, key: key.to_owned(), cause: DisplayErrorContext(error).to_string() }
}

impl Objects {
    pub(crate) fn new(config: &ObjectsConfig) -> Self {
        let client = |endpoint: &str| {
            let credentials =
                Credentials::new(config.access_key.expose(), config.secret_key.expose(), None, None, "segue");
            let timeouts = TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .operation_timeout(OPERATION_TIMEOUT)
                .build();
            let config = aws_sdk_s3::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new(config.region.clone()))
                .endpoint_url(endpoint)
                .credentials_provider(credentials)
                .force_path_style(true)
                // Stores that are not AWS refuse the checksum headers that the SDK adds on its own.
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
                .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
                .timeout_config(timeouts)
                .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
                .build();
            Client::from_conf(config)
        };
        let signer = client(config.public_endpoint.as_deref().unwrap_or(&config.endpoint));
        Self { client: client(&config.endpoint), signer, bucket: config.bucket.clone() }
    }

    /// Whether the bucket is there.
    pub(crate) async fn has_bucket(&self) -> Result<bool, ObjectsError> {
        let Err(error) = self.client.head_bucket().bucket(&self.bucket).send().await else { return Ok(true) };
        let missing = error.raw_response().is_some_and(|response| response.status().as_u16() == 404);
        if missing { Ok(false) } else { Err(failed("look for bucket", &self.bucket, &error)) }
    }

    /// Makes the bucket, unless it is there.
    pub(crate) async fn create_bucket(&self) -> Result<(), ObjectsError> {
        if self.has_bucket().await? {
            return Ok(());
        }
        match self.client.create_bucket().bucket(&self.bucket).send().await {
            Ok(_) => Ok(()),
            // Another process made it between the two calls.
            Err(error) if matches!(error.code(), Some("BucketAlreadyOwnedByYou" | "BucketAlreadyExists")) => Ok(()),
            Err(error) => Err(failed("create bucket", &self.bucket, &error)),
        }
    }

    /// A PUT of exactly `bytes` bytes under `key`, valid for `ttl`; with the `sha256` (base64) that the store is to hold them against.
    pub(crate) async fn presign_put(
        &self,
        key: &str,
        bytes: u64,
        content_type: Option<&str>,
        sha256: Option<&str>,
        ttl: Duration,
    ) -> Result<Presigned, ObjectsError> {
        let wrong = |cause: String| ObjectsError { action: "presign", key: key.to_owned(), cause };
        let presigning = PresigningConfig::expires_in(ttl).map_err(|error| wrong(error.to_string()))?;
        let length = i64::try_from(bytes).map_err(|error| wrong(error.to_string()))?;
        let request = self
            .signer
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .content_length(length)
            .set_content_type(content_type.map(str::to_owned))
            .set_checksum_sha256(sha256.map(str::to_owned))
            .presigned(presigning)
            .await
            .map_err(|error| failed("presign", key, &error))?;
        Ok(Presigned::of(&request))
    }

    /// What stands under `key`, if anything does.
    pub(crate) async fn head(&self, key: &str) -> Result<Option<Found>, ObjectsError> {
        match self.client.head_object().bucket(&self.bucket).key(key).send().await {
            Ok(head) => {
                Ok(Some(Found { bytes: head.content_length().and_then(|n| u64::try_from(n).ok()).unwrap_or(0) }))
            }
            Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 404) => Ok(None),
            Err(error) => Err(failed("look at", key, &error)),
        }
    }

    /// Writes the alias of a track: the one name that changes.
    pub(crate) async fn put_alias(&self, track: &str, master: &str) -> Result<(), ObjectsError> {
        let key = alias_key(track);
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(&key)
            .content_type("application/vnd.apple.mpegurl")
            .body(ByteStream::from(master.as_bytes().to_vec()))
            .send()
            .await
            .map_err(|error| failed("write", &key, &error))?;
        Ok(())
    }

    /// Removes every object under `prefix` that `keep` does not want. Answers how many went.
    pub(crate) async fn remove_prefix(&self, prefix: &str, keep: impl Fn(&str) -> bool) -> Result<u64, ObjectsError> {
        let mut removed = 0;
        let mut start_after: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let page = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(prefix)
                .set_start_after(start_after.take())
                .send()
                .await
                .map_err(|error| failed("list", prefix, &error))?;
            let keys: Vec<&str> = page.contents().iter().filter_map(|object| object.key()).collect();
            let Some(last) = keys.last().map(|key| (*key).to_owned()) else { break };
            let doomed: Vec<&str> = keys.into_iter().filter(|key| !keep(key)).collect();
            removed += doomed.len() as u64;
            self.remove(prefix, &doomed).await?;
            if !page.is_truncated().unwrap_or(false) {
                break;
            }
            // By key and not by token: a token of a listing that is being emptied may mean another place.
            start_after = Some(last);
        }
        Ok(removed)
    }

    async fn remove(&self, prefix: &str, keys: &[&str]) -> Result<(), ObjectsError> {
        if keys.is_empty() {
            return Ok(());
        }
        let wrong = |cause: String| ObjectsError { action: "remove under", key: prefix.to_owned(), cause };
        let identifiers = keys
            .iter()
            .map(|key| ObjectIdentifier::builder().key(*key).build())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong(error.to_string()))?;
        let delete = Delete::builder()
            .set_objects(Some(identifiers))
            .quiet(true)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        let answer = self
            .client
            .delete_objects()
            .bucket(&self.bucket)
            .delete(delete)
            .send()
            .await
            .map_err(|error| failed("remove under", prefix, &error))?;
        // A 200 may carry errors key by key (S3 API reference, DeleteObjects).
        match answer.errors().iter().find(|error| error.code() != Some("NoSuchKey")) {
            Some(error) => Err(wrong(format!("{}: {}", error.key().unwrap_or("?"), error.code().unwrap_or("unknown")))),
            None => Ok(()),
        }
    }
}

/// Key of a track's alias playlist.
pub(crate) fn alias_key(track: &str) -> String {
    format!("hls/{track}/master.m3u8")
}

/// Key of the master over the growing playlists of a version that is still encoded.
pub(crate) fn early_key(track: &str, version: &str) -> String {
    format!("hls/{track}/{version}/early.m3u8")
}

/// Prefix of everything that listeners are given of a track.
pub(crate) fn media_prefix(track: &str) -> String {
    format!("hls/{track}/")
}

/// Prefix of all uploads.
const UPLOADS: &str = "uploads/";

/// Prefix of a track's uploads.
pub(crate) fn upload_prefix(track: &str) -> String {
    format!("{UPLOADS}{track}/")
}

/// The track whose upload a key is; `None`: it is none of ours.
pub(crate) fn track_of_upload(key: &str) -> Option<&str> {
    let (track, _) = key.strip_prefix(UPLOADS)?.split_once('/')?;
    ids::is_track(track).then_some(track)
}
