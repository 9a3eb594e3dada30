//! The cage around a guest: a session of its own, a network namespace without a network, and a death that follows its
//! worker's.
//!
//! Where the kernel lets us (user namespaces; `setsid`, `unshare` and `setpriv` of util-linux), a guest is started
//! through all three: it then sees not even the loopback of this machine, can gain no privilege by executing anything,
//! and is killed by the kernel when the worker dies, `kill -9` included. Each executes in place, so the process id
//! stays the one that was started.
//!
//! The session is for everybody else on the machine. Linux shares the processor out between sessions first, where it
//! groups tasks by them, and only then within one: encoders that share the worker's session take turns with the whole
//! of it, however nice they are, and were measured to keep others waiting for seconds.
//!
//! Invariants: whether the cage holds is tried out once, at the start of the worker, and said in its log. On failure:
//! guests run without it, bounded by [`crate::ffmpeg`] alone, which opens no network protocol either.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::ffmpeg::on_path;

const SETSID: &str = "setsid";

/// One program with its own arguments, where it is installed.
type Words = Option<Vec<PathBuf>>;

/// What stands before a guest's own command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cage(Vec<PathBuf>);

impl Cage {
    /// The tightest cage that works here.
    pub(crate) fn find(path: Option<&OsStr>) -> Self {
        let word = |text: &str| PathBuf::from(text);
        let session = on_path(SETSID, path).map(|program| vec![program]);
        let unshare = on_path("unshare", path);
        let setpriv = on_path("setpriv", path);
        let net = unshare.map(|program| vec![program, word("--user"), word("--net"), word("--")]);
        // After the namespace: the kernel forgets the signal when credentials change.
        let death =
            setpriv.map(|program| vec![program, word("--pdeathsig"), word("KILL"), word("--no-new-privs"), word("--")]);
        let sessions = [&session, &None];
        let cages = [(&net, &death), (&net, &None), (&None, &death), (&None, &None)];
        let around = |session: &Words, (net, death): (&Words, &Words)| {
            Self([session, net, death].into_iter().flatten().flatten().cloned().collect())
        };
        let mut tried = cages.into_iter().flat_map(|cage| sessions.map(|session| around(session, cage)));
        tried.find(Self::holds).unwrap_or_default()
    }

    fn holds(&self) -> bool {
        let Some((program, arguments)) = self.0.split_first() else { return false };
        let tried = Command::new(program).args(arguments).arg("/bin/true").stdin(Stdio::null()).output();
        tried.is_ok_and(|output| output.status.success())
    }

    /// Whether guests have no network at all.
    pub(crate) fn is_without_network(&self) -> bool {
        self.0.iter().any(|word| word.as_os_str() == "--net")
    }

    /// Whether guests make themselves the leaders of sessions, and so of process groups. They must not be that already.
    pub(crate) fn is_session(&self) -> bool {
        self.0.first().is_some_and(|program| program.ends_with(SETSID))
    }

    /// The program to start for `guest`, and the words that come before the guest's own.
    pub(crate) fn around<'a>(&'a self, guest: &'a Path) -> (&'a Path, Vec<&'a OsStr>) {
        match self.0.split_first() {
            None => (guest, Vec::new()),
            Some((program, rest)) => {
                (program, rest.iter().map(|word| word.as_os_str()).chain([guest.as_os_str()]).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_installed_is_done_without() {
        let cage = Cage::find(Some(OsStr::new("/nonexistent")));
        assert_eq!(cage.around(Path::new("/bin/true")), (Path::new("/bin/true"), Vec::new()));
        assert!(!cage.is_without_network() && !cage.is_session());
    }

    #[test]
    fn a_caged_guest_reaches_no_socket_of_this_machine() {
        let cage = Cage::find(std::env::var_os("PATH").as_deref());
        if !cage.is_without_network() {
            // This kernel gives no namespaces; the worker says so in its log.
            return;
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("addr").port();
        let (program, words) = cage.around(Path::new("/bin/bash"));
        let call = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
        let run = |command: &mut Command| command.args(["-c", &call]).output().expect("bash").status.success();
        assert!(run(&mut Command::new("/bin/bash")), "the port answers outside");
        assert!(!run(Command::new(program).args(words)), "and not inside");
    }

    #[test]
    fn a_guest_does_not_outlive_its_worker() {
        let cage = Cage::find(std::env::var_os("PATH").as_deref());
        if !cage.0.iter().any(|word| word.as_os_str() == "--pdeathsig") {
            return;
        }
        let (program, words) = cage.around(Path::new("/bin/sleep"));
        let mut worker = Command::new("/bin/bash")
            .args(["-c", "\"$@\" 60 & echo $!; wait", "bash"])
            .arg(program)
            .args(words)
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash");
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(worker.stdout.take().expect("pipe")), &mut line)
            .expect("a process id");
        let stat = PathBuf::from(format!("/proc/{}/stat", line.trim()));
        let is_sleep = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains("(sleep)"));
        let lives = || is_sleep() && std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z"));
        let until = |wanted: bool| {
            let started = std::time::Instant::now();
            while lives() != wanted {
                assert!(started.elapsed().as_secs() < 20, "still {}", !wanted);
                std::thread::yield_now();
            }
        };
        until(true);
        worker.kill().expect("kill -9");
        worker.wait().expect("wait");
        until(false);
    }
}
