//! Fetching the source: from the store into the job's folder, hashed on the way.
//!
//! Invariants: never more than `max_bytes` are written, whatever the store sends; the file has exactly the length that
//! the store declared; the file's name in the folder is ours, not the uploader's.
//!
//! On failure: a missing object, an empty one and one that is too large are final; a broken transfer starts over a
//! bounded number of times and is then reported as retryable.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use crate::lease::{Reporter, Stage};
use crate::queue::{Backoff, SourceRef};
use crate::reject::{Failure, Halt, Reason, disk};
use crate::store::{Store, StoreError};

/// Whole transfers tried.
const ATTEMPTS: u32 = 4;
/// A transfer that brings nothing for this long is broken.
const STALL: Duration = Duration::from_secs(30);

/// A source in the job's folder.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// Lower-case hex.
    pub(crate) sha256: String,
}

/// Brings the source of a job into `folder`.
pub(crate) async fn fetch(
    store: &Store,
    source: &SourceRef,
    folder: &Path,
    max_bytes: u64,
    cancel: &CancellationToken,
    progress: &Reporter,
) -> Result<Source, Halt> {
    progress.at(Stage::Fetch, 0.0);
    limits(source.bytes, max_bytes)?;
    let path = folder.join("source");
    let mut backoff = Backoff::new(Duration::from_millis(300), Duration::from_secs(10));
    let mut attempt = 1;
    loop {
        let transfer = tokio::select! {
            () = cancel.cancelled() => return Err(Halt::Cancelled),
            transfer = transfer(store, source, &path, max_bytes, progress) => transfer,
        };
        match transfer {
            Ok(source) => {
                progress.at(Stage::Fetch, 1.0);
                return Ok(source);
            }
            Err(failure) if !failure.reason.is_retryable() || attempt >= ATTEMPTS => return Err(failure.into()),
            Err(failure) => tracing::warn!(key = %source.key, attempt, %failure, "fetch starts over"),
        }
        attempt += 1;
        tokio::select! {
            () = cancel.cancelled() => return Err(Halt::Cancelled),
            () = tokio::time::sleep(backoff.wait()) => {}
        }
    }
}

fn limits(bytes: u64, max_bytes: u64) -> Result<(), Failure> {
    if bytes == 0 {
        return Err(Failure::new(Reason::EmptyFile, "The file is empty: it has no bytes. Upload it again."));
    }
    if bytes > max_bytes {
        return Err(Failure::new(
            Reason::TooLarge,
            format!("The file has {}; at most {} are taken.", mebibytes(bytes), mebibytes(max_bytes)),
        ));
    }
    Ok(())
}

fn mebibytes(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{bytes} bytes") } else { format!("{} MiB", bytes.div_ceil(1 << 20)) }
}

async fn transfer(
    store: &Store,
    source: &SourceRef,
    path: &Path,
    max_bytes: u64,
    progress: &Reporter,
) -> Result<Source, Failure> {
    let unavailable = |detail: String| {
        Failure::new(Reason::StoreUnavailable, "The upload could not be read from the object store.").because(detail)
    };
    let opened = tokio::time::timeout(STALL * 4, store.open(&source.key)).await;
    let mut object = match opened.map_err(|_| unavailable("no answer".to_owned()))? {
        Ok(object) => object,
        Err(error @ StoreError::Missing(_)) => {
            let message = "The uploaded file is not in the object store any more. Upload it again.";
            return Err(Failure::new(Reason::SourceMissing, message).because(error));
        }
        Err(error) => return Err(unavailable(error.to_string())),
    };
    let declared = object.content_length().and_then(|length| u64::try_from(length).ok());
    limits(declared.unwrap_or(source.bytes), max_bytes)?;
    let mut file = tokio::fs::File::create(path).await.map_err(|error| disk("create the source", &error))?;
    let mut hash = Sha256::new();
    let mut bytes = 0u64;
    loop {
        let next = tokio::time::timeout(STALL, object.body.try_next()).await;
        let chunk = match next.map_err(|_| unavailable(format!("nothing for {} s", STALL.as_secs())))? {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error) => return Err(unavailable(format!("after {bytes} bytes: {error}"))),
        };
        bytes += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        limits(bytes, max_bytes)?;
        hash.update(&chunk);
        file.write_all(&chunk).await.map_err(|error| disk("write the source", &error))?;
        progress.at(Stage::Fetch, ratio(bytes, declared.unwrap_or(source.bytes)));
    }
    file.flush().await.map_err(|error| disk("write the source", &error))?;
    if declared.is_some_and(|declared| declared != bytes) {
        return Err(unavailable(format!("{bytes} bytes came of {declared:?}")));
    }
    limits(bytes, max_bytes)?;
    let sha256 = hex(&hash.finalize());
    declared_is(source.sha256.as_deref(), &sha256)?;
    Ok(Source { path: path.to_owned(), bytes, sha256 })
}

/// Holds the file against the digest that its publisher declared: only here is it read whole, however it was uploaded.
fn declared_is(declared: Option<&str>, sha256: &str) -> Result<(), Failure> {
    if declared.is_none_or(|declared| declared.eq_ignore_ascii_case(sha256)) {
        return Ok(());
    }
    let message = "The file that arrived is not the one that was declared: its SHA-256 is another. Upload it again.";
    Err(Failure::new(Reason::ChecksumMismatch, message))
}

/// `part / whole` for progress.
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_held_against_what_was_declared_of_it() {
        let word = |declared| declared_is(declared, "ab12").err().map(|failure| failure.reason);
        assert_eq!((word(None), word(Some("AB12"))), (None, None));
        assert_eq!(word(Some("ab13")), Some(Reason::ChecksumMismatch));
    }
}
