//! The object store as the transcoder uses it: stream one object down, put whole small objects up.
//!
//! Invariants: path-style addresses and checksums only where S3 requires them, so that every S3 server is understood;
//! an upload returns `Ok` only after the server acknowledged the whole length.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use crate::config::ObjectStore;
use crate::queue::Backoff;

/// Attempts for one object, over those of the SDK: a server that restarts is away for seconds.
const ATTEMPTS: u32 = 5;

/// Why an object could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// No such object.
    #[error("no object {0:?}")]
    Missing(String),
    /// Anything else.
    #[error("{what}: {cause}")]
    Failed { what: String, cause: String },
}

/// A client for the one bucket.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    client: Client,
    bucket: String,
}

impl Store {
    pub(crate) fn new(objects: &ObjectStore) -> Self {
        let credentials = Credentials::new(
            objects.access_key.expose(),
            objects.secret_key.expose(),
            None,
            None,
            "segue configuration",
        );
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(Duration::from_secs(30))
            .operation_attempt_timeout(Duration::from_secs(120))
            .build();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&objects.endpoint)
            .region(Region::new(objects.region.clone()))
            .credentials_provider(credentials)
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .timeout_config(timeouts)
            .build();
        Self { client: Client::from_conf(config), bucket: objects.bucket.clone() }
    }

    /// Opens an object for reading.
    pub(crate) async fn open(&self, key: &str) -> Result<GetObjectOutput, StoreError> {
        self.client.get_object().bucket(&self.bucket).key(key).send().await.map_err(|error| {
            let missing = error.as_service_error().is_some_and(|service| {
                service.is_no_such_key() || matches!(service.code(), Some("NoSuchKey" | "NotFound"))
            });
            if missing {
                return StoreError::Missing(key.to_owned());
            }
            StoreError::Failed { what: format!("GET {key}"), cause: DisplayErrorContext(&error).to_string() }
        })
    }

    /// Reads an object that has at most `most` bytes.
    pub(crate) async fn small(&self, key: &str, most: usize) -> Result<Vec<u8>, StoreError> {
        let mut object = self.open(key).await?;
        let failed = |cause: String| StoreError::Failed { what: format!("GET {key}"), cause };
        let mut bytes = Vec::new();
        while let Some(chunk) = object.body.try_next().await.map_err(|error| failed(error.to_string()))? {
            if bytes.len() + chunk.len() > most {
                return Err(failed(format!("it has more than {most} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Removes an object.
    pub(crate) async fn remove(&self, key: &str) -> Result<(), StoreError> {
        self.client.delete_object().bucket(&self.bucket).key(key).send().await.map(|_| ()).map_err(|error| {
            StoreError::Failed { what: format!("DELETE {key}"), cause: DisplayErrorContext(&error).to_string() }
        })
    }

    /// Writes an object whole, with retries; `Ok` means that the store has all of it.
    pub(crate) async fn put(&self, key: &str, body: Bytes, content_type: &str) -> Result<(), StoreError> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let mut attempt = 1;
        loop {
            match self.put_once(key, body.clone(), content_type).await {
                Ok(()) => return Ok(()),
                Err(error) if attempt >= ATTEMPTS => return Err(error),
                Err(error) => {
                    tracing::debug!(key, attempt, %error, "upload repeated");
                    attempt += 1;
                    tokio::time::sleep(backoff.wait()).await;
                }
            }
        }
    }

    /// The same without retries over those of the SDK: for whoever wants to know what is the matter.
    pub(crate) async fn put_once(&self, key: &str, body: Bytes, content_type: &str) -> Result<(), StoreError> {
        let put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .content_type(content_type)
            .content_length(i64::try_from(body.len()).unwrap_or(i64::MAX))
            .body(ByteStream::from(body));
        put.send().await.map(|_| ()).map_err(|error| StoreError::Failed {
            what: format!("PUT {key}"),
            cause: DisplayErrorContext(&error).to_string(),
        })
    }
}
