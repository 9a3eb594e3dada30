//! An edge in a process of its own, beside a demo: in front of the same objects, with the same keys, other settings.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::process::{Child, Command};

use crate::Segue;

/// From start to ready, on a machine that builds something else beside.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running edge. Dropping it kills the process.
#[derive(Debug)]
pub struct SecondEdge {
    _child: Child,
    log: PathBuf,
    address: String,
}

impl SecondEdge {
    /// Starts one beside `segue`: the configuration of the demo's own edge, on free ports, and `settings` (TOML tables)
    /// behind it. `name` tells its files apart.
    ///
    /// # Errors
    /// When it is not ready within a minute; the error holds its log.
    pub async fn start(bin: impl AsRef<Path>, segue: &Segue, name: &str, settings: &str) -> anyhow::Result<Self> {
        Self::start_from(bin, segue, &segue.dir().join("config/edge.toml"), name, settings).await
    }

    /// The same from another configuration than the demo's.
    ///
    /// # Errors
    /// As [`SecondEdge::start`].
    pub async fn start_from(
        bin: impl AsRef<Path>,
        segue: &Segue,
        from: &Path,
        name: &str,
        settings: &str,
    ) -> anyhow::Result<Self> {
        let theirs = std::fs::read_to_string(from)?;
        let ours = theirs.lines().map(|line| match line.split_once(" = ") {
            Some(("listen" | "admin_listen", _)) => format!("{}\n", line.replace(port(line), "0")),
            _ => format!("{line}\n"),
        });
        let config = segue.dir().join(format!("config/{name}.toml"));
        std::fs::write(&config, format!("{}\n{settings}\n", ours.collect::<String>()))?;
        let log = segue.dir().join(format!("{name}.log"));
        let child = Command::new(bin.as_ref())
            .args(["edge", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", bin.as_ref().display()))?;
        let started = Instant::now();
        loop {
            let said = std::fs::read_to_string(&log)?;
            let address = said.lines().find_map(|line| line.split_once("the edge is ready addr=")?.1.split(' ').next());
            if let Some(address) = address {
                return Ok(Self { _child: child, log, address: address.trim().to_owned() });
            }
            if started.elapsed() > READY_WITHIN {
                bail!("the edge was not ready within {READY_WITHIN:?}\n{said}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Where players go, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_else(|error| format!("no log: {error}"))
    }
}

/// The port at the end of a line such as `listen = "127.0.0.1:8080"`.
fn port(line: &str) -> &str {
    line.trim_end_matches('"').rsplit(':').next().unwrap_or_default()
}
