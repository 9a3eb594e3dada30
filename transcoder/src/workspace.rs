//! The working folder: one folder per worker under `work_dir`, one folder per job under that.
//!
//! Invariants: a worker's folder is held by an exclusive lock on its `lock` file for as long as the worker lives, so a
//! folder whose lock is free belongs to nobody and is swept at the next start, with every process that still works in
//! it; a job's folder is removed when its [`JobFolder`] is dropped.
//!
//! On failure: a folder that cannot be made or written is a start error; one that cannot be removed is logged, and the
//! next start tries again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

const PREFIX: &str = "worker-";

/// This worker's folder.
#[derive(Debug)]
pub(crate) struct Workspace {
    path: PathBuf,
    /// Held, never read: the lock ends with the open file.
    _lock: File,
}

impl Workspace {
    /// Sweeps what dead workers left in `work_dir`, and makes a folder of our own there.
    pub(crate) fn open(work_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(work_dir)?;
        // Children run inside the folder: a relative path would mean another place to them.
        let work_dir = work_dir.canonicalize()?;
        sweep(&work_dir)?;
        let path = work_dir.join(format!("{PREFIX}{}-{}", std::process::id(), random_word()));
        fs::create_dir(&path)?;
        let lock = File::create(path.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, _lock: lock })
    }

    /// An empty folder for one job, removed when the value is dropped.
    pub(crate) fn job(&self) -> io::Result<JobFolder> {
        let path = self.path.join(format!("job-{}", random_word()));
        fs::create_dir(&path)?;
        Ok(JobFolder { path })
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// One job's folder.
#[derive(Debug)]
pub(crate) struct JobFolder {
    path: PathBuf,
}

impl JobFolder {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for JobFolder {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %path.display(), %error, "working folder not removed; the next start sweeps it");
    }
}

fn sweep(work_dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(work_dir)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) || !entry.file_type()?.is_dir() {
            continue;
        }
        let folder = entry.path();
        // A folder without a lock file died between its making and its locking, or is that young: only one that is
        // older than a minute is taken for dead.
        let dead = match File::open(folder.join("lock")) {
            Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
            Err(_) => entry.metadata()?.modified()?.elapsed().is_ok_and(|age| age.as_secs() > 60),
        };
        if dead {
            end_strays(&folder);
            remove(&folder);
            tracing::info!(folder = %folder.display(), "swept what a dead worker left");
        }
    }
    Ok(())
}

/// Ends processes that a killed worker left working inside `folder`: their working directory says whose they were.
fn end_strays(folder: &Path) {
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(cwd) = fs::read_link(process.path().join("cwd")) else { continue };
        if cwd.starts_with(folder)
            && pid.unsigned_abs() != std::process::id()
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
                Ok(()) => tracing::info!(pid = pid.as_raw_nonzero().get(), "ended an ffmpeg of a dead worker"),
                Err(error) => tracing::warn!(pid = pid.as_raw_nonzero().get(), %error, "stray process not ended"),
            }
        }
    }
}

/// Eight hex characters that two workers will not share.
pub(crate) fn random_word() -> String {
    getrandom::u32().map_or_else(|_| "00000000".to_owned(), |n| format!("{n:08x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_workers_folder_and_process_are_swept_and_a_living_ones_stay() {
        let dir = tempfile::tempdir().expect("tempdir");
        let living = Workspace::open(dir.path()).expect("living");
        let job = living.job().expect("job");
        let dead = dir.path().canonicalize().expect("path").join("worker-1-dead");
        fs::create_dir_all(dead.join("job-x")).expect("mkdir");
        fs::write(dead.join("lock"), b"").expect("lock");
        let mut stray =
            std::process::Command::new("sleep").arg("60").current_dir(dead.join("job-x")).spawn().expect("sleep");
        let second = Workspace::open(dir.path()).expect("second");
        assert!(!dead.exists());
        assert!(job.path().exists() && living.path.exists());
        let status = stray.wait().expect("wait");
        assert!(!status.success(), "the stray was killed, not left to end by itself");
        let gone = job.path().to_owned();
        drop(job);
        assert!(!gone.exists());
        drop(second);
        drop(living);
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 0);
    }
}
