//! Policies from a folder, for an edge without a control plane: looked at every second.
//!
//! On failure: a policy that cannot be loaded keeps the version that was loaded last; the problem is in the log and in the metrics. At start
//! it is a reason not to start: a rule would not be enforced.

use std::path::PathBuf;
use std::sync::Arc;

use segue_policy_host::{Folder, Loaded, Problem};

use crate::edge::Shared;
use crate::lock::Mutex;

/// The folder, which one job at a time looks at.
pub(super) struct Watched {
    path: PathBuf,
    folder: Arc<Mutex<Folder>>,
    problems: Vec<Problem>,
}

impl Watched {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { folder: Arc::new(Mutex::new(Folder::new(path.clone()))), path, problems: Vec::new() }
    }

    /// Looks, and puts into force what has changed. What could not be loaded is said once.
    ///
    /// # Errors
    /// A sentence about the folder, or about the host.
    pub(super) async fn look(&mut self, shared: &Shared) -> Result<(), String> {
        let (folder, services) = (Arc::clone(&self.folder), shared.desk.services());
        let loaded = shared.desk.at_bench(move |bench| {
            let host = bench.host()?;
            folder.lock().load(host, &services).map_err(|error| error.to_string())
        });
        let loaded = loaded.await.ok_or("loading the policies was cut short")?;
        let named = |problem: String| format!("{}: {problem}", self.path.display());
        let Some(Loaded { chain, schemes, problems }) = loaded.map_err(named)? else { return Ok(()) };
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            let Problem { policy, text, kept } = problem;
            match kept {
                Some(kept) => {
                    let kept = &**kept;
                    tracing::error!(
                        policy,
                        problem = text,
                        kept,
                        "a policy cannot be loaded; the last good version goes on"
                    );
                }
                None => {
                    tracing::error!(policy, problem = text, "a policy cannot be loaded, and its rule is not in force");
                }
            }
        }
        tracing::info!(
            policies = chain.places().len(),
            schemes = schemes.len(),
            problems = problems.len(),
            "the folder of policies is in force"
        );
        self.problems = problems;
        shared.desk.loaded(&shared.snapshots, chain, schemes, &self.problems);
        Ok(())
    }

    /// What could not be loaded, in one sentence; for who does not want to start then.
    pub(super) fn complaint(&self) -> Option<String> {
        let all: Vec<&str> = self.problems.iter().map(|problem| problem.text.as_str()).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}
