//! Seeing that certificate files changed.
//!
//! Purpose: whoever renews certificates writes files and tells nobody. Looking at them once a second costs two system
//! calls a file, and works on every file system, through symbolic links and across renames.
//!
//! Invariants: files are loaded when they have been the same for two looks in a row, since a pair is written one after
//! the other; one that could not be used is tried again when a file changes.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Tls;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What tells a file from itself later: device, inode, size, and its times.
type Stamp = Option<(u64, u64, u64, i64, i64, i64)>;

impl Tls {
    /// Follows the files until `stop`.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut loaded = self.stamps();
        let mut before = loaded.clone();
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            let this = Arc::clone(&self);
            // A file system that does not answer holds a thread of its own, and none that serves.
            let looked = tokio::task::spawn_blocking(move || {
                let now = this.stamps();
                if now != loaded && now == before {
                    this.reload();
                    loaded.clone_from(&now);
                }
                (loaded, now)
            });
            match looked.await {
                Ok(stamps) => (loaded, before) = stamps,
                Err(_panicked) => {
                    tracing::error!("the task that follows the certificate files failed; SIGHUP still reloads them");
                    return;
                }
            }
        }
    }

    /// Of all files; a file that is not there has none.
    fn stamps(&self) -> Vec<Stamp> {
        let paths = self.files.iter().flat_map(|files| [&files.cert, &files.key]);
        paths.map(|path| std::fs::metadata(path).ok().map(|file| stamp(&file))).collect()
    }
}

fn stamp(file: &std::fs::Metadata) -> (u64, u64, u64, i64, i64, i64) {
    (file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec(), file.ctime())
}
