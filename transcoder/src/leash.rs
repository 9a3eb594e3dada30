//! What holds a running guest: the one place that kills it, reaps it, and makes it come after everybody else.
//!
//! Invariants: a process id is signalled, or its session made nice, only while it is surely that of our child; a guest
//! that was to be killed before it was born is killed at its birth.

use std::io;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// How nice guests are, to the worker and to everybody else.
pub(crate) const NICE: i32 = 10;
/// The longest wait between two tries to make a session nice.
const CALM_WAIT: Duration = Duration::from_millis(100);

/// Who may be killed. The lock makes sure that a process id is signalled only while it is surely still our child.
#[derive(Default)]
pub(crate) struct Leash(Mutex<LeashState>);

#[derive(Default)]
enum LeashState {
    #[default]
    Unborn,
    Running(Pid),
    /// Killed, or to be killed as soon as it is born.
    Cut,
    Reaped,
}

impl Leash {
    fn lock(&self) -> std::sync::MutexGuard<'_, LeashState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn attach(&self, pid: Pid) {
        let mut state = self.lock();
        if matches!(*state, LeashState::Cut) {
            kill(pid);
        } else {
            *state = LeashState::Running(pid);
        }
    }

    pub(crate) fn cut(&self) {
        let mut state = self.lock();
        if let LeashState::Running(pid) = *state {
            kill(pid);
        }
        if !matches!(*state, LeashState::Reaped) {
            *state = LeashState::Cut;
        }
    }

    /// Sees to it that the guest's session, and not just the guest within it, comes after all others; tries until it does,
    /// or until the guest has ended.
    pub(crate) async fn calm(&self) {
        let mut wait = Duration::from_millis(1);
        while self.is_to_be_calmed() {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(CALM_WAIT);
        }
    }

    fn is_to_be_calmed(&self) -> bool {
        // Held throughout: the process id stays that of our child.
        let state = self.lock();
        match *state {
            LeashState::Unborn => true,
            LeashState::Cut | LeashState::Reaped => false,
            LeashState::Running(pid) => {
                let file = format!("/proc/{pid}/autogroup");
                let calmed = group(&file).and_then(|theirs| {
                    // Its session comes a moment before its group of tasks does; until then that is the worker's own.
                    if theirs == group("/proc/self/autogroup")? {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    std::fs::write(file, NICE.to_string())
                });
                match calmed {
                    Ok(()) => false,
                    // For all but root, the kernel takes one such wish in a tenth of a second.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
                    Err(error) => {
                        tracing::debug!(%pid, %error, "the guest's session takes turns with all others");
                        false
                    }
                }
            }
        }
    }

    pub(crate) fn reap(&self, child: &mut Child) -> io::Result<ExitStatus> {
        if let Some(pid) = pid_of(child) {
            // Waits without reaping, so that `cut` can still signal the process up to its very end.
            while let Err(rustix::io::Errno::INTR) =
                rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            {}
        }
        let mut state = self.lock();
        let status = child.wait();
        *state = LeashState::Reaped;
        status
    }
}

/// Cuts the leash when the future that waits for the guest is dropped.
pub(crate) struct CutOnDrop(pub(crate) Arc<Leash>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// The name of a process's group of tasks: `/autogroup-7` of `/autogroup-7 nice 0`.
fn group(file: impl AsRef<Path>) -> io::Result<String> {
    let text = std::fs::read_to_string(file)?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Kills a guest, with its group if it has made one yet. It may be a zombie already; there is nothing to do about an
/// error.
fn kill(pid: Pid) {
    let _ = rustix::process::kill_process(pid, Signal::KILL);
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
}

pub(crate) fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}
