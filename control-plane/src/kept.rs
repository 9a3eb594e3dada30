//! The facts and denials that were counted, kept for exports, for a look back, and for counting again.
//!
//! Records lie in files of their order of arrival, JSON lines in zstd frames that follow one another (`zstdcat` reads them); a skippable frame
//! (RFC 8878, section 3.1.2) before each says what is in it ([`frame`]), so that readers pass over what they do not want. How far a file
//! goes stands in the database and moves in the transaction that counts.
//!
//! Invariants: a record is in the files exactly once if it was counted, and not at all if it was not: bytes are written before the commit, and
//! whatever lies behind the committed length was not committed, is seen by no reader, and is written over by the next batch. The transaction is
//! the lock: one writer at a time. Whole files go, the oldest first, by age and by the bound on bytes; a file that is being read stays readable.
//!
//! On failure: a folder that cannot be written stops the tally as a database would; facts wait in the logs of their edges. After
//! a loss of power a file may be shorter than the database says: [`Kept::open`] finds the last whole frame, says what is lost, and goes on.

mod frame;
mod read;

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::clock;
use crate::config::FactsConfig;
use crate::state::Shared;
use crate::store::kept::{self, File as Row, Shelf};
use crate::store::{Store, StoreError, Write, transaction};

use frame::Label;
pub(crate) use read::{Span, lines};

/// A file goes on to the next at this many bytes: some hundred thousand facts, unpacked in a second.
const FILE_MAX: u64 = 16 << 20;

/// Or after this long, so that age lets go of what is old and no more.
const FILE_SPAN: Duration = Duration::from_secs(24 * 3600);

/// How often files are looked for that are beyond the bounds.
const TEND: Duration = Duration::from_secs(60);

/// Lets go of what is beyond the bounds, until shutdown: each control plane of its own folder.
pub(crate) async fn tend(parts: Shared) {
    let mut failing = false;
    loop {
        let result = parts.kept.prune(&parts.store, clock::now_ms()).await;
        if let (Err(error), false) = (&result, failing) {
            tracing::warn!(%error, "kept facts cannot be let go; trying on");
        }
        failing = result.is_err();
        tokio::select! {
            () = parts.shutdown.cancelled() => return,
            () = tokio::time::sleep(TEND) => {}
        }
    }
}

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Facts,
    Denials,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Facts, Self::Denials];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Facts => "facts",
            Self::Denials => "denials",
        }
    }
}

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the folder of kept facts: {}: {error}", .path.display())]
pub(crate) struct KeptError {
    path: PathBuf,
    error: std::io::Error,
}

impl KeptError {
    fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self { path: path.to_owned(), error }
    }
}

/// The folder of kept records.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    root: PathBuf,
    /// A number that lies in the folder: a database that was copied elsewhere finds another folder, and does not take its files for its own.
    id: String,
    config: FactsConfig,
    /// Held by the thread that writes. A batch that is given up in the middle (its task was dropped) leaves that thread at work: the next one, which
    /// writes over the same place, waits for its end.
    writing: Arc<Mutex<()>>,
}

impl Kept {
    /// Opens or makes the folder, and makes files and database agree.
    pub(crate) async fn open(root: PathBuf, config: FactsConfig, store: &Store) -> Result<Self, StoreError> {
        let id = identify(&root)?;
        let kept = Self { root, id, config, writing: Arc::default() };
        for kind in Kind::ALL {
            kept.mend(store, kind).await?;
        }
        Ok(kept)
    }

    /// How long plays are kept that have ended, days.
    pub(crate) fn plays_days(&self) -> u32 {
        self.config.plays_days
    }

    fn shelf(&self, kind: Kind) -> Shelf<'_> {
        Shelf { folder: &self.id, kind: kind.word() }
    }

    fn path(&self, kind: Kind, first: i64) -> PathBuf {
        self.root.join(format!("{}-{first:015}.ndjson.zst", kind.word()))
    }

    /// Most bytes of a kind.
    fn bound(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Facts => self.config.keep,
            Kind::Denials => self.config.keep_denials,
        }
    }

    /// Keeps records, each with its time, in the transaction that counts them.
    pub(crate) async fn append(
        &self,
        tx: &mut Write,
        kind: Kind,
        records: &[(i64, &str)],
        now: i64,
    ) -> Result<(), StoreError> {
        let bound = self.bound(kind);
        let (Some(from), Some(to)) = (records.iter().map(|(ts, _)| *ts).min(), records.iter().map(|(ts, _)| *ts).max())
        else {
            return Ok(());
        };
        if bound == 0 {
            return Ok(());
        }
        let file_max = i64::try_from(FILE_MAX.min(bound / 8)).unwrap_or(i64::MAX);
        let span = i64::try_from(FILE_SPAN.as_millis()).unwrap_or(i64::MAX);
        let fresh = |first| Row { first, records: 0, bytes: 0, from_ms: from, to_ms: to, begun_ms: now };
        let mut row = match kept::last(tx, self.shelf(kind)).await? {
            Some(row) if row.bytes < file_max && now - row.begun_ms < span => row,
            Some(row) => fresh(row.first + row.records),
            None => fresh(kept::next_after_gone(tx, self.shelf(kind)).await?),
        };
        let mut text = String::with_capacity(records.iter().map(|(_, record)| record.len() + 1).sum());
        for (_, record) in records {
            text.push_str(record);
            text.push('\n');
        }
        let (path, at) = (self.path(kind, row.first), row.bytes);
        let label = Label { records: u32::try_from(records.len()).unwrap_or(u32::MAX), bytes: 0, from, to };
        let turn = Arc::clone(&self.writing).lock_owned().await;
        let written = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            write(&path, at, label, &text)
        });
        let written = written.await.map_err(|error| KeptError::at(&self.root)(std::io::Error::other(error)))??;
        row.bytes += written;
        row.records += i64::try_from(records.len()).unwrap_or(0);
        row.from_ms = row.from_ms.min(from);
        row.to_ms = row.to_ms.max(to);
        kept::put(tx, self.shelf(kind), &row).await
    }

    /// Lets files go that are beyond the bounds. The newest stays.
    pub(crate) async fn prune(&self, store: &Store, now: i64) -> Result<(), StoreError> {
        let oldest = now - i64::from(self.config.days) * 24 * 3_600_000;
        for kind in Kind::ALL {
            let files = kept::files(store, self.shelf(kind)).await?;
            let mut bytes: i64 = files.iter().map(|file| file.bytes).sum();
            let bound = i64::try_from(self.bound(kind)).unwrap_or(i64::MAX);
            for file in files.iter().take(files.len().saturating_sub(1)) {
                if bytes <= bound && file.to_ms >= oldest {
                    break;
                }
                bytes -= file.bytes;
                transaction!(store, |tx| kept::forget(tx, self.shelf(kind), file).await)?;
                remove(&self.path(kind, file.first))?;
            }
        }
        Ok(())
    }

    /// Files that the database does not know go (a removal that was cut off); one that is shorter than it was loses what is gone.
    async fn mend(&self, store: &Store, kind: Kind) -> Result<(), StoreError> {
        let rows = kept::files(store, self.shelf(kind)).await?;
        for entry in std::fs::read_dir(&self.root).map_err(KeptError::at(&self.root))? {
            let path = entry.map_err(KeptError::at(&self.root))?.path();
            let ours =
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(kind.word()));
            if ours && !rows.iter().any(|row| self.path(kind, row.first) == path) {
                remove(&path)?;
            }
        }
        for mut row in rows {
            let path = self.path(kind, row.first);
            let there = match std::fs::metadata(&path) {
                Ok(meta) => i64::try_from(meta.len()).unwrap_or(i64::MAX),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
                Err(error) => return Err(KeptError::at(&path)(error).into()),
            };
            if there >= row.bytes {
                continue;
            }
            let (bytes, records) = whole(&path, there)?;
            tracing::error!(file = %path.display(), records = row.records - records, "kept records were lost with the power");
            // Numbers of records are places: those that are lost keep theirs, and the next file goes on after them.
            (row.bytes, row.begun_ms) = (bytes, 0);
            transaction!(store, |tx| kept::put(tx, self.shelf(kind), &row).await)?;
        }
        Ok(())
    }
}

/// The folder's number, made at its first use.
fn identify(root: &Path) -> Result<String, KeptError> {
    std::fs::create_dir_all(root).map_err(KeptError::at(root))?;
    let path = root.join("id");
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(KeptError::at(&path)(error)),
    }
    let id = crate::ids::other().map_err(|error| KeptError::at(&path)(std::io::Error::other(error)))?;
    std::fs::write(&path, &id).map_err(KeptError::at(&path))?;
    Ok(id)
}

/// Writes one frame at the committed end, over whatever a batch that was not committed left there. Gives its length.
fn write(path: &Path, at: i64, label: Label, text: &str) -> Result<i64, KeptError> {
    let wrote = || -> std::io::Result<i64> {
        let at = u64::try_from(at).map_err(std::io::Error::other)?;
        let frame = frame::pack(label, text.as_bytes())?;
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.write_all_at(&frame, at)?;
        file.set_len(at + frame.len() as u64)?;
        i64::try_from(frame.len()).map_err(std::io::Error::other)
    };
    wrote().map_err(KeptError::at(path))
}

fn remove(path: &Path) -> Result<(), KeptError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(KeptError::at(path)(error)),
        _ => Ok(()),
    }
}

/// How much of a file is whole frames, and the records in them.
fn whole(path: &Path, there: i64) -> Result<(i64, i64), KeptError> {
    let (mut bytes, mut records) = (0, 0);
    if there == 0 {
        return Ok((bytes, records));
    }
    let mut look = || -> std::io::Result<()> {
        let mut file = File::open(path)?;
        while let Some(label) = Label::read(&mut file)? {
            let end = bytes + frame::LABEL as i64 + i64::from(label.bytes);
            if end > there {
                break;
            }
            (bytes, records) = (end, records + i64::from(label.records));
            file.seek(SeekFrom::Start(u64::try_from(end).map_err(std::io::Error::other)?))?;
        }
        Ok(())
    };
    // What is no label ends what is whole.
    match look() {
        Err(error) if error.kind() != std::io::ErrorKind::InvalidData => Err(KeptError::at(path)(error)),
        _ => Ok((bytes, records)),
    }
}

#[cfg(test)]
mod tests;
