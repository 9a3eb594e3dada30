//! The last good snapshot on disk, so that an edge starts while its control plane is away.
//!
//! Invariants: the file holds secrets and is readable by its owner alone (0600); it is replaced whole or not at all, and
//! is on the disk before it has its name. Its modification time is when the control plane last confirmed it. A file
//! that another control plane's snapshot was kept in is not used.
//!
//! Whoever follows does not wait for the disk: [`Keeper`] writes beside, the newest state, and passes over those that were overtaken meanwhile. A disk
//! that stands still for ten seconds (it happens: much else is written) would else hold up the next revocation.
//!
//! On failure: what cannot be read, or does not match its checksum, is reported and left alone; the edge waits for the
//! control plane. What cannot be written is reported; the edge serves on.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use segue_signing::Followed;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// More than the largest snapshot that is taken over.
const FILE_MAX: u64 = 128 << 20;
/// The first word of the file; a changed format gets another.
const MAGIC: &str = "segue-snapshot-1";

/// The file.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    control: String,
}

#[derive(Serialize, Deserialize)]
struct Content<F> {
    /// The control plane's URL.
    control: String,
    followed: F,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
enum KeptError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is larger than {FILE_MAX} bytes")]
    TooLarge,
    #[error("it is not whole, or not of this version's format")]
    Damaged,
    #[error("it is of another control plane ({0})")]
    Another(String),
}

impl Kept {
    /// The file of the edge `name` in `dir`.
    pub(super) fn new(dir: &Path, name: &str, control: &str) -> Self {
        Self { path: dir.join(format!("{name}.snapshot")), control: control.to_owned() }
    }

    /// What is there, and when it was confirmed last (ms since the epoch). `None`, with a word in the log where there
    /// should be something: nothing that can be used.
    pub(super) fn load(&self) -> Option<(Followed, u64)> {
        match self.read() {
            Ok(found) => Some(found),
            Err(KeptError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the snapshot on disk cannot be used; it is passed over");
                None
            }
        }
    }

    fn read(&self) -> Result<(Followed, u64), KeptError> {
        let file = File::open(&self.path)?;
        let meta = file.metadata()?;
        let mut text = String::new();
        file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => KeptError::Damaged,
            _ => KeptError::Io(error),
        })?;
        if text.len() as u64 > FILE_MAX {
            return Err(KeptError::TooLarge);
        }
        let (first, json) = text.split_once('\n').ok_or(KeptError::Damaged)?;
        if first != title(json) {
            return Err(KeptError::Damaged);
        }
        let content: Content<Followed> = serde_json::from_str(json).map_err(|_| KeptError::Damaged)?;
        if content.control != self.control {
            return Err(KeptError::Another(content.control));
        }
        let confirmed = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Ok((content.followed, u64::try_from(confirmed).unwrap_or(0)))
    }

    /// Replaces the file. Blocks.
    fn save(&self, followed: &Followed) -> io::Result<()> {
        replace(&self.path, &serde_json::to_string(&Content { control: self.control.clone(), followed })?)
    }

    /// Notes that what is there is the newest. Blocks.
    fn confirm(&self) {
        let touched =
            OpenOptions::new().write(true).open(&self.path).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::debug!(path = %self.path.display(), %error, "the snapshot's time could not be set");
        }
    }
}

/// The one who writes, and those who tell it what.
pub(super) struct Keeper(watch::Sender<Option<Arc<Followed>>>);

impl Keeper {
    /// The second is to be run to its end, which comes when the first is dropped and its last word is on the disk. `failed` is told what
    /// could not be written.
    pub(super) fn new(kept: Kept, failed: impl Fn(io::Error)) -> (Self, impl Future<Output = ()>) {
        let (tell, told) = watch::channel(None);
        (Self(tell), keep(Arc::new(kept), told, failed))
    }

    /// The control plane says that this is the newest.
    pub(super) fn confirm(&self, followed: &Arc<Followed>) {
        self.0.send_replace(Some(Arc::clone(followed)));
    }
}

/// Writes what is new, and the time of what is not.
async fn keep(kept: Arc<Kept>, mut told: watch::Receiver<Option<Arc<Followed>>>, failed: impl Fn(io::Error)) {
    let mut on_disk: Option<Arc<Followed>> = None;
    // The last word is still seen when the one who said it is gone.
    while told.changed().await.is_ok() {
        let Some(newest) = told.borrow_and_update().clone() else { continue };
        let is_there = on_disk.as_ref().is_some_and(|known| Arc::ptr_eq(known, &newest));
        let (kept, followed) = (Arc::clone(&kept), Arc::clone(&newest));
        let work = move || {
            if is_there {
                kept.confirm();
                Ok(())
            } else {
                kept.save(&followed)
            }
        };
        match tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => on_disk = Some(newest),
            Err(error) => failed(error),
        }
    }
}

fn title(json: &str) -> String {
    format!("{MAGIC} {:08x} {}", crc32fast::hash(json.as_bytes()), json.len())
}

fn replace(path: &Path, json: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let part = path.with_extension("part");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&part)?;
    file.write_all(title(json).as_bytes())?;
    file.write_all(b"\n")?;
    file.write_all(json.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&part, path)?;
    // The name is on the disk as well only after this.
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use segue_signing::{KeyDoc, SnapshotDelta};

    use super::*;

    fn followed() -> Followed {
        let secret = "0123456789abcdef0123456789abcdef".to_owned();
        let keys = vec![KeyDoc { kid: "k1".to_owned(), secret, not_before: None, retire_at: None }];
        let delta =
            SnapshotDelta { revision: 7, keys_tag: "t".to_owned(), keys: Some(keys), ..SnapshotDelta::default() };
        Followed::default().apply(delta, 0).unwrap()
    }

    #[tokio::test]
    async fn it_comes_back_whole_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::new(&dir.path().join("state"), "e1", "http://c");
        assert!(kept.load().is_none(), "nothing yet, and no error");
        kept.save(&followed()).unwrap();
        let (found, confirmed) = kept.load().unwrap();
        assert_eq!(found, followed());
        assert!(confirmed > 0);
        assert_eq!(std::fs::metadata(&kept.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Kept::new(&dir.path().join("state"), "e1", "http://another").load().is_none());
    }

    #[tokio::test]
    async fn who_follows_does_not_wait_and_the_last_word_is_on_the_disk_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let kept = |name: &str| Kept::new(&dir.path().join(name), "e1", "http://c");
        let (keeper, keeping) = Keeper::new(kept("state"), |error| panic!("{error}"));
        // Nobody writes yet, and still all of them are taken.
        let mut last = Arc::new(followed());
        for revision in 8..20 {
            keeper.confirm(&last);
            let delta = SnapshotDelta { revision, partial: true, keys_tag: "t".to_owned(), ..SnapshotDelta::default() };
            last = Arc::new(last.apply(delta, 0).unwrap());
        }
        keeper.confirm(&last);
        drop(keeper);
        keeping.await;
        assert_eq!(kept("state").load().unwrap().0, *last);

        // A folder that cannot be made.
        std::fs::write(dir.path().join("file"), "").unwrap();
        let failures = std::cell::Cell::new(0);
        let (keeper, keeping) = Keeper::new(kept("file"), |_| failures.set(failures.get() + 1));
        keeper.confirm(&last);
        drop(keeper);
        keeping.await;
        assert_eq!(failures.get(), 1);
    }

    #[tokio::test]
    async fn damage_of_any_kind_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::new(dir.path(), "e1", "http://c");
        kept.save(&followed()).unwrap();
        let good = std::fs::read(&kept.path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&kept.path, &bad).unwrap();
            assert!(kept.load().is_none(), "a bit at {at}");
            std::fs::write(&kept.path, &good[..at]).unwrap();
            assert!(kept.load().is_none(), "cut at {at}");
        }
        std::fs::write(&kept.path, &good).unwrap();
        assert!(kept.load().is_some());
    }
}
