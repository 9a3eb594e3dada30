//! A directory that one process holds: created if missing, locked until dropped.
//!
//! The lock is an advisory `flock` on the file `lock`, so the kernel lets it go when the process dies,
//! however it dies. The file names its holder for the message that the next one gets.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::LogError;

/// The lock on an events directory.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    pub(crate) fn hold(path: &Path) -> Result<Self, LogError> {
        fs::create_dir_all(path).map_err(LogError::io("create the directory", path))?;
        let name = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&name)
            .map_err(LogError::io("open the lock file", &name))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The message is better with the holder's id, but does not depend on it.
                let read = (&lock).take(20).read_to_string(&mut pid);
                let pid = match pid.trim() {
                    word if read.is_ok() && !word.is_empty() => word.to_owned(),
                    _ => "unknown".to_owned(),
                };
                return Err(LogError::Locked { dir: path.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(LogError::io("lock", &name)(source)),
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(LogError::io("write the lock file", &name))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_the_error_names_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("a/b");
        let first = Directory::hold(&path).expect("held");
        let error = Directory::hold(&path).expect_err("held twice");
        let text = error.to_string();
        assert_eq!(error.kind(), "locked");
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        assert!(text.contains("a/b") && text.contains("stop that process"), "{text}");
        drop(first);
        Directory::hold(&path).expect("free again");
    }
}
