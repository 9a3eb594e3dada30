//! What an edge keeps of its policies on disk: the bytes by their digest, and which version of each policy decided last.
//!
//! Invariants: bytes are read back only where their SHA-256 is their name; every file is replaced whole or not at all. The folder is its
//! owner's alone: compiled code lies in it too. A record of another control plane is not used.
//!
//! On failure: what cannot be read is as if it were not there, and is fetched again; what cannot be written is reported by the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use segue_signing::{PolicyFailMode, PolicyVersion, PolicyWorld};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// More than the configurations of all policies that a snapshot may name.
const RECORD_MAX: u64 = 64 << 20;
const RECORD: &str = "decided.json";
/// A changed format gets another number.
const FORMAT: u32 = 1;
/// Hexadecimal digits of a SHA-256.
const DIGITS: usize = 64;

/// A version that decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Decided {
    pub(super) version: PolicyVersion,
    pub(super) world: PolicyWorld,
    pub(super) on_failure: PolicyFailMode,
}

/// Who decided last, by policy. `None`: nobody, for nothing was ever active here.
pub(super) type Record = BTreeMap<String, Option<Decided>>;

#[derive(Serialize, Deserialize)]
struct Content<R> {
    format: u32,
    control: String,
    decided: R,
}

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Store {
    dir: PathBuf,
    /// The control plane's URL.
    control: String,
}

impl Store {
    pub(super) fn new(dir: PathBuf, control: &str) -> Self {
        Self { dir, control: control.to_owned() }
    }

    /// Makes the folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn prepare(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)
    }

    /// Where compiled code goes.
    pub(super) fn code(&self) -> PathBuf {
        self.dir.join("code")
    }

    /// The bytes of a digest, `most` at the most. `None`: they are not here, or damaged.
    pub(super) fn read(&self, digest: &str, most: usize) -> Option<Vec<u8>> {
        let path = self.path(digest)?;
        let mut bytes = Vec::new();
        let file = File::open(&path).ok()?;
        file.take(u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut bytes).ok()?;
        if hex(&bytes) == digest {
            return Some(bytes);
        }
        tracing::error!(path = %path.display(), "a policy on disk is damaged; it is fetched again");
        // Where it cannot be removed it is overwritten.
        let _gone = fs::remove_file(&path);
        None
    }

    /// Keeps bytes whose digest was verified.
    ///
    /// # Errors
    /// They cannot be written.
    pub(super) fn write(&self, digest: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(digest).ok_or_else(|| io::Error::other("not a digest"))?;
        self.replace(&path, bytes)
    }

    /// Who decided when this was written last; empty where nothing can be read.
    pub(super) fn record(&self) -> Record {
        let path = self.dir.join(RECORD);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(RECORD_MAX).read_to_string(&mut text));
        match read.map(|_| serde_json::from_str::<Content<Record>>(&text)) {
            Ok(Ok(content)) if content.format == FORMAT && content.control == self.control => content.decided,
            Ok(Ok(_)) => Record::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::new(),
            Ok(Err(error)) => unreadable(&path, &error),
            Err(error) => unreadable(&path, &error),
        }
    }

    /// # Errors
    /// It cannot be written.
    pub(super) fn keep_record(&self, record: &Record) -> io::Result<()> {
        let content = Content { format: FORMAT, control: self.control.clone(), decided: record };
        self.replace(&self.dir.join(RECORD), &serde_json::to_vec(&content)?)
    }

    /// Removes bytes that nobody wants any more.
    pub(super) fn sweep(&self, wanted: &BTreeSet<String>) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let is_policy = path.extension().is_some_and(|kind| kind == "wasm");
            let digest = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if is_policy && !wanted.contains(digest) {
                // It is tried again at the next change.
                let _gone = fs::remove_file(&path);
            }
        }
    }

    fn path(&self, digest: &str) -> Option<PathBuf> {
        let is_digest = digest.len() == DIGITS && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then(|| self.dir.join(format!("{digest}.wasm")))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.prepare()?;
        let part = path.with_extension("part");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        File::open(&self.dir)?.sync_all()
    }
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> Record {
    tracing::error!(path = %path.display(), %error, "which policies decided last cannot be read; it is passed over");
    Record::new()
}

/// SHA-256 in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn bytes_come_back_by_their_digest_or_not_at_all() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path().join("policies"), "http://c");
        let digest = hex(b"bytes");
        assert_eq!(store.read(&digest, 100), None);
        store.write(&digest, b"bytes").unwrap();
        assert_eq!(store.read(&digest, 100).as_deref(), Some(&b"bytes"[..]));
        assert_eq!(fs::metadata(home.path().join("policies")).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(store.path(&digest).unwrap(), b"bytez").unwrap();
        assert_eq!(store.read(&digest, 100), None, "damaged");
        assert!(!store.path(&digest).unwrap().exists());
        assert!(store.path("../../etc/passwd").is_none() && store.write("x", b"").is_err());
        store.write(&digest, b"bytes").unwrap();
        store.sweep(&BTreeSet::from([digest.clone()]));
        assert!(store.read(&digest, 100).is_some());
        store.sweep(&BTreeSet::new());
        assert_eq!(store.read(&digest, 100), None);
    }

    #[test]
    fn the_record_is_of_one_control_plane() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path().to_owned(), "http://c");
        assert!(store.record().is_empty());
        let version = PolicyVersion { version: "1".to_owned(), ..PolicyVersion::default() };
        let decided = Decided { version, world: PolicyWorld::Access, on_failure: PolicyFailMode::Open };
        let record = Record::from([("a".to_owned(), Some(decided)), ("b".to_owned(), None)]);
        store.keep_record(&record).unwrap();
        assert_eq!(store.record(), record);
        assert!(Store::new(home.path().to_owned(), "http://d").record().is_empty());
        fs::write(home.path().join(RECORD), "{").unwrap();
        assert!(store.record().is_empty());
    }
}
