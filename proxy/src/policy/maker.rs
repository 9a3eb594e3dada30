//! The thread on which policies are read, compiled and configured: one, beside the threads that answer requests and below them.
//!
//! Invariants: it holds the host, which is started with the first policy, so that an edge without any has no clock that ticks; jobs are done
//! one after the other. Its priority is low: compiling takes a whole core, and no listener should notice.
//!
//! On failure: a job that panics is one that gave no answer; the thread goes on.

use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use segue_policy_host::{HostConfig, PolicyHost};
use tokio::sync::{mpsc, oneshot};

use crate::lock::Mutex;

/// Jobs that wait: those of a folder, a country file and the versions of a snapshot that are made at once.
const WAITING: usize = 64;
/// As `nice` counts: a tenth of the weight of a thread that answers requests.
const NICE: i32 = 10;

type Job = Box<dyn FnOnce(&Bench) + Send>;

/// See the module.
pub(super) struct Maker {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a job has at hand.
pub(super) struct Bench {
    config: HostConfig,
    host: OnceCell<PolicyHost>,
}

impl Bench {
    /// The host, started where this is the first that asks.
    ///
    /// # Errors
    /// A sentence about what keeps it from starting.
    pub(super) fn host(&self) -> Result<&PolicyHost, String> {
        if let Some(host) = self.host.get() {
            return Ok(host);
        }
        let host = PolicyHost::new(self.config.clone()).map_err(|error| error.to_string())?;
        Ok(self.host.get_or_init(|| host))
    }
}

impl Maker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(config: HostConfig) -> std::io::Result<Self> {
        let (jobs, mut waiting) = mpsc::channel::<Job>(WAITING);
        let thread = std::thread::Builder::new().name("policy-maker".to_owned()).spawn(move || {
            // Of a thread alone, on Linux; where it is not to be had, policies are made all the same.
            if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                tracing::debug!(%error, "policies are made at the priority of everything else");
            }
            let bench = Bench { config, host: OnceCell::new() };
            while let Some(job) = waiting.blocking_recv() {
                // What a job leaves half done is its own; the bench is only added to.
                if catch_unwind(AssertUnwindSafe(|| job(&bench))).is_err() {
                    tracing::error!("making a policy panicked");
                }
            }
        })?;
        Ok(Self { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)) })
    }

    /// Has `work` done. `None`: it panicked, or the edge ends.
    pub(super) async fn run<R: Send + 'static>(&self, work: impl FnOnce(&Bench) -> R + Send + 'static) -> Option<R> {
        let (done, answer) = oneshot::channel();
        let job: Job = Box::new(move |bench| {
            // Nobody waits any more where the receiver is gone.
            let _ = done.send(work(bench));
        });
        let jobs = self.jobs.lock().clone()?;
        jobs.send(job).await.ok()?;
        answer.await.ok()
    }

    /// Ends the thread, after the job that it has in hand.
    pub(super) async fn close(&self) {
        drop(self.jobs.lock().take());
        let Some(thread) = self.thread.lock().take() else { return };
        let joined = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
        if !matches!(joined, Ok(true)) {
            tracing::error!("the thread that makes policies panicked");
        }
    }
}
