//! The watched configuration file: what may change without a restart is taken over while the edge runs.
//!
//! Purpose: keys rotate, sessions are revoked and the leeway changes by writing a file, on an edge that has no
//! control plane to tell it. What is hot stands in [`Reloadable`]; a change of anything else is named in the log.
//!
//! Invariants: the file is read by the same code as at start, and the whole of it must be right; what was read goes
//! through `Snapshots::reload` alone, so that a request in flight ends on what it began with. A file that was replaced
//! by a rename, as editors and secret stores do, is seen like one that was written to.
//!
//! On failure: every problem is logged at once and counted, and what the edge has goes on serving; the next change of
//! any watched file is tried again.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use segue_config::{Document, Problems};

use crate::config::{EdgeConfig, Reloadable};
use crate::edge::Shared;

/// How often the files are looked at: one `stat` each, and a change is in force within a second or two.
const LOOK: Duration = Duration::from_secs(1);

/// Where hot keys stand in the file.
const HOT: [&str; 8] =
    ["keys", "wrapping_keys", "revocations", "tickets.leeway", "limits", "streams", "policies.keys", "policies.tables"];

/// Reads a whole document as whoever started the edge does: it may hold more than the edge's own part.
pub type ReadConfig = fn(&Document<'_>) -> EdgeConfig;

type Variables<'v> = &'v dyn Fn(&str) -> Option<String>;

/// What tells one state of a file from the next: inode, size, and the nanosecond of its last change.
type Stamp = Option<(u64, u64, i64, i64)>;

/// A configuration file and those that it names, as they were when they were last read.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    read: ReadConfig,
    text: String,
    files: Vec<(PathBuf, Stamp)>,
}

/// Why a changed file is not taken over.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error(transparent)]
    Problems(#[from] Problems),
    #[error(transparent)]
    Snapshot(#[from] segue_signing::SnapshotError),
}

/// Looks after the file at `path` until the edge stops. `files` are those that it named when it was read at start.
pub(crate) async fn watch(shared: Arc<Shared>, path: PathBuf, read: ReadConfig) {
    let mut watched = Watched::new(path, read, &shared.config.watched);
    loop {
        tokio::time::sleep(LOOK).await;
        if !watched.has_changed() {
            continue;
        }
        match watched.take_over(&shared) {
            Ok(cold) => {
                shared.metrics.reloads.add(1);
                tracing::info!(config = %watched.path.display(), "the configuration was read again");
                for key in cold {
                    tracing::warn!(key, "changed in the file, and takes a restart to be in force");
                }
            }
            Err(error) => {
                shared.metrics.reloads_refused.add(1);
                tracing::error!(%error, "the changed configuration cannot be used; what was in force stays");
            }
        }
    }
}

impl Watched {
    fn new(path: PathBuf, read: ReadConfig, named: &[PathBuf]) -> Self {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut this = Self { path, read, text, files: Vec::new() };
        this.note(named);
        this
    }

    fn note(&mut self, named: &[PathBuf]) {
        let all = std::iter::once(&self.path).chain(named);
        self.files = all.map(|path| (path.clone(), stamp(path))).collect();
    }

    fn has_changed(&self) -> bool {
        self.files.iter().any(|(path, noted)| stamp(path) != *noted)
    }

    /// Takes over what is hot; gives the keys of the file that changed and are not.
    fn take_over(&mut self, shared: &Shared) -> Result<Vec<String>, ReloadError> {
        // Noted before the reading: what is written while it is read is read again.
        let named: Vec<PathBuf> = self.files.iter().skip(1).map(|(path, _)| path.clone()).collect();
        self.note(&named);
        let text = std::fs::read_to_string(&self.path)
            .map_err(|error| ReloadError::Read { path: self.path.clone(), error })?;
        let variable = |name: &str| std::env::var(name).ok();
        let hot = parse(&text, &self.path, &variable, self.read)?;
        let cold = self.cold(&text, &variable)?;
        let files = hot.files.clone();
        let services = hot.services.clone();
        shared.snapshots.reload(hot)?;
        shared.desk.lend(services);
        self.text = text;
        let known = |path: &PathBuf| self.files.iter().any(|(file, _)| file == path);
        if files.len() + 1 != self.files.len() || !files.iter().all(known) {
            self.note(&files);
        }
        Ok(cold)
    }

    fn cold(&self, text: &str, variable: Variables<'_>) -> Result<Vec<String>, Problems> {
        let now = Document::parse(text, "", variable)?;
        let before = Document::parse(&self.text, "", variable)?;
        let is_hot = |key: &String| {
            HOT.iter().any(|hot| key.strip_prefix(hot).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
        };
        Ok(now.changed_since(&before).into_iter().filter(|key| !is_hot(key)).collect())
    }
}

/// Reads a whole file as at start: all of it must be right, though only the hot part is taken.
fn parse(text: &str, path: &Path, variable: Variables<'_>, read: ReadConfig) -> Result<Reloadable, Problems> {
    let document = Document::parse(text, &path.display().to_string(), variable)?;
    let config = read(&document);
    document.finish()?;
    Ok(config.reloadable())
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()))
}
