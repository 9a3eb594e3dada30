//! A role of Segue in a process of its own, at an address that it keeps when it is ended and started again.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::soak::wire::Wire;

/// The operator's token in these houses.
pub(crate) const ADMIN: &str = "admin-token-of-the-soak";
/// From start to ready, on a machine that builds something else beside.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Ports to choose from.
const FIRST_PORT: u32 = 20_000;
const PORTS: u32 = 10_000;
/// From SIGTERM to the end.
const ENDS_WITHIN: Duration = Duration::from_secs(40);

/// A role in a process.
pub(crate) struct Process {
    bin: PathBuf,
    role: &'static str,
    config: PathBuf,
    log: PathBuf,
    /// Where clients go, and where it says that it is ready.
    pub(crate) address: SocketAddr,
    pub(crate) health: (SocketAddr, &'static str),
    child: Option<Child>,
}

impl Process {
    /// Of a configuration that is written to `dir`; not started yet. Its address is fixed here, and so is the one where it says that it is ready.
    pub(crate) fn new(
        bin: &Path,
        dir: &Path,
        role: &'static str,
        name: &str,
        (address, health): (SocketAddr, (SocketAddr, &'static str)),
        config: &Value,
    ) -> anyhow::Result<Self> {
        let file = dir.join(format!("{name}.toml"));
        std::fs::write(&file, to_toml(config))?;
        Ok(Self {
            bin: bin.to_owned(),
            role,
            config: file,
            log: dir.join(format!("{name}.log")),
            address,
            health,
            child: None,
        })
    }

    /// While it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.bin);
        command.args([self.role, "--config"]).arg(&self.config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        self.child = Some(command.spawn().with_context(|| format!("cannot run {}", self.bin.display()))?);
        Ok(())
    }

    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        while started.elapsed() < READY_WITHIN {
            if get(self.health.0, self.health.1).await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                bail!("{} ended by itself, {status}\n{}", self.role, self.tail());
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        bail!("{} was not ready within {READY_WITHIN:?}\n{}", self.role, self.tail())
    }

    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        match self.child.take() {
            Some(mut child) => child.kill().await.context("cannot kill"),
            None => Ok(()),
        }
    }

    /// Ends it as an operator does.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.context("it has ended already")?, rustix::process::Signal::TERM)?;
        let status = tokio::time::timeout(ENDS_WITHIN, child.wait()).await;
        let status = status.with_context(|| format!("{} did not end after SIGTERM\n{}", self.role, self.tail()))??;
        ensure!(status.success(), "{} ended with {status}\n{}", self.role, self.tail());
        Ok(())
    }

    pub(crate) fn tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(4096)..]).into_owned()
    }
}

/// Asks a page of an operator's; what it says where it is well.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut wire = Wire::connect(address).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\nConnection: close\r\n\r\n");
    let answer = wire.ask(&request, false).await?;
    ensure!(answer.status == 200 && answer.whole, "{path}: {}", answer.status);
    Ok(String::from_utf8(answer.body)?)
}

/// A configuration of strings, numbers and tables one deep.
fn to_toml(config: &Value) -> String {
    let (mut text, mut tables) = (String::new(), String::new());
    for (key, value) in config.as_object().into_iter().flatten() {
        match value.as_object() {
            None => text.push_str(&format!("{key} = {value}\n")),
            Some(table) => {
                tables.push_str(&format!("[{key}]\n"));
                tables.extend(table.iter().map(|(key, value)| format!("{key} = {value}\n")));
            }
        }
    }
    text + &tables
}

/// A port that nobody holds now. A process is killed and comes back to it, so that it cannot be the kernel's choice; and it
/// lies below those that the kernel gives to connections, of which one could take it in between (ip(7), ip_local_port_range).
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..PORTS {
        let place = (std::process::id().wrapping_mul(97) % PORTS + NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let port = u16::try_from(FIRST_PORT + place)?;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("none of {PORTS} ports from {FIRST_PORT} on is free")
}
