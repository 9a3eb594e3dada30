//! What the roles of the column stand on: a MariaDB, a Redis, a store behind a gate, and the files of `deploy/examples`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::{AbortHandle, JoinSet};

use crate::queue::balancer;
use crate::roles::Role;
use crate::uploads::moto;

/// From start to ready, on a machine that builds something else beside.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A port that nobody listens on at this moment, for what must be told its port.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples")
}

/// A file of `deploy/examples` with other addresses and folders, and nothing else changed.
pub(crate) struct Settings(toml::Table);

impl Settings {
    pub(crate) fn of(role: &str) -> anyhow::Result<Self> {
        Ok(Self(std::fs::read_to_string(examples().join(format!("{role}.toml")))?.parse()?))
    }

    /// Sets what stands in the example; what does not is an error.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> anyhow::Result<()> {
        let (sections, name) = key.rsplit_once('.').unwrap_or(("", key));
        let mut table = &mut self.0;
        for section in sections.split('.').filter(|section| !section.is_empty()) {
            table = table.get_mut(section).and_then(toml::Value::as_table_mut).context("no such section")?;
        }
        let stands = table.get_mut(name).filter(|stands| stands.is_str());
        *stands.with_context(|| format!("the example has no {key}"))? = toml::Value::String(value.to_owned());
        Ok(())
    }

    pub(crate) fn text(&self) -> anyhow::Result<String> {
        Ok(toml::to_string(&self.0)?)
    }
}

/// A server of others, which can be killed and started again on what it left.
pub(crate) struct Server {
    program: &'static str,
    arguments: Vec<String>,
    port: u16,
    child: Option<Child>,
    log: PathBuf,
}

impl Server {
    async fn new(program: &'static str, arguments: Vec<String>, port: u16, log: PathBuf) -> anyhow::Result<Self> {
        let mut this = Self { program, arguments, port, child: None, log };
        this.start().await?;
        Ok(this)
    }

    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(self.program);
        command.args(&self.arguments).env("PATH", path).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.kill_on_drop(true).spawn();
        self.child = Some(child.with_context(|| format!("{} is missing; make test installs it", self.program))?);
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
            ensure!(begun.elapsed() < READY_WITHIN, "{} is not there:\n{}", self.program, log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.take().context("it does not run")?.kill().await?)
    }
}

async fn redis(dir: &Path) -> anyhow::Result<Server> {
    let port = free_port()?;
    let flags = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", path_text(dir)?, "--port"];
    let mut arguments: Vec<String> = flags.map(str::to_owned).to_vec();
    arguments.push(port.to_string());
    Server::new("redis-server", arguments, port, dir.join("redis.log")).await
}

/// With the database and the user that `docs/operate.md` makes.
async fn mariadb(dir: &Path, password: &str) -> anyhow::Result<Server> {
    let (data, port) = (dir.join("mariadb"), free_port()?);
    let user = std::process::Command::new("id").arg("-un").output()?.stdout;
    let user = format!("--user={}", String::from_utf8(user)?.trim());
    let install = Command::new("mariadb-install-db")
        .args(["--no-defaults", &user, "--skip-test-db", "--auth-root-authentication-method=normal"])
        .arg(format!("--datadir={}", path_text(&data)?))
        .output()
        .await
        .context("mariadb-install-db is missing; make test installs it")?;
    ensure!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
    let make = format!(
        "CREATE DATABASE IF NOT EXISTS segue CHARACTER SET utf8mb4;\n\
         CREATE USER IF NOT EXISTS segue@'127.0.0.1' IDENTIFIED BY '{password}';\n\
         GRANT ALL ON segue.* TO segue@'127.0.0.1';\n"
    );
    std::fs::write(dir.join("init.sql"), make)?;
    let mut arguments = vec!["--no-defaults".to_owned(), user];
    for (name, value) in [("datadir", &data), ("socket", &dir.join("m.sock")), ("init-file", &dir.join("init.sql"))] {
        arguments.push(format!("--{name}={}", path_text(value)?));
    }
    arguments.extend(["--bind-address=127.0.0.1", "--innodb-buffer-pool-size=128M"].map(str::to_owned));
    arguments.push(format!("--port={port}"));
    Server::new("mariadbd", arguments, port, dir.join("mariadb.log")).await
}

fn path_text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("the path is not text")
}

/// A store, and the gate before it. Its bytes are in its memory, so it is not killed: shut, the gate is a port that
/// refuses, as that of a store that died.
pub(crate) struct Gate {
    _moto: Child,
    behind: String,
    address: SocketAddr,
    listening: Option<AbortHandle>,
}

impl Gate {
    async fn start() -> anyhow::Result<Self> {
        let (moto, url) = moto().await?;
        let behind = url.trim_start_matches("http://").to_owned();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut this = Self { _moto: moto, behind, address, listening: None };
        this.open().await?;
        Ok(this)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn open(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        let behind = self.behind.clone();
        let task = tokio::spawn(async move {
            // Its connections end with it.
            let mut open = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let behind = behind.clone();
                open.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(&behind).await {
                        // Either side may end: the other one sees it.
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
                while open.try_join_next().is_some() {}
            }
        });
        self.listening = Some(task.abort_handle());
        Ok(())
    }

    pub(crate) async fn shut(&mut self) -> anyhow::Result<()> {
        self.listening.take().context("it is shut")?.abort();
        let begun = Instant::now();
        while TcpStream::connect(self.address).await.is_ok() {
            ensure!(begun.elapsed() < READY_WITHIN, "the gate stays open");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

/// All that is not a role, and the folder of all.
pub(crate) struct Parts {
    dir: tempfile::TempDir,
    variables: BTreeMap<String, String>,
    pub(crate) mariadb: Server,
    pub(crate) redis: Server,
    pub(crate) store: Gate,
    /// Where the command finds the control planes.
    pub(crate) api: String,
}

impl Parts {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        // A socket's path holds 107 bytes: short, whatever TMPDIR says.
        let dir = tempfile::Builder::new().prefix("segue-column-").tempdir_in("/tmp")?;
        let mut variables = BTreeMap::new();
        let names = std::fs::read_to_string(examples().join("segue.env"))?;
        for (n, line) in names.lines().filter(|line| !line.starts_with('#')).enumerate() {
            let (name, value) = line.split_once('=').context("not NAME=value")?;
            let value = if value.is_empty() { format!("{n:02}{}", "0123456789abcdef".repeat(3)) } else { value.into() };
            variables.insert(name.to_owned(), value);
        }
        let password = "0123456789abcdef0123";
        let mariadb = mariadb(dir.path(), password).await?;
        let redis = redis(dir.path()).await?;
        for (name, of, with) in [
            ("SEGUE_DATABASE_URL", "PASSWORD@127.0.0.1:3306", format!("{password}@127.0.0.1:{}", mariadb.port)),
            ("SEGUE_REDIS_URL", "127.0.0.1:6379", format!("127.0.0.1:{}", redis.port)),
        ] {
            let stands = variables.get_mut(name).filter(|stands| stands.contains(of));
            let stands = stands.with_context(|| format!("{name} of the example is another now"))?;
            *stands = stands.replace(of, &with);
        }
        // Room that an edge takes at once: 20 GiB each are an operator's to give.
        variables.insert("SEGUE_CACHE_DISK".to_owned(), "256MiB".to_owned());
        let store = Gate::start().await?;
        Ok(Self { dir, variables, mariadb, redis, store, api: String::new() })
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub(crate) fn secret(&self, name: &str) -> anyhow::Result<&str> {
        self.variables.get(name).map(String::as_str).with_context(|| format!("no {name}"))
    }

    /// Starts a role by its file, with the secrets of the host.
    pub(crate) async fn role(
        &self,
        role: &'static str,
        name: &str,
        settings: &Settings,
        more: &[(&str, &str)],
    ) -> anyhow::Result<Role> {
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let variables = self.variables.clone().into_iter().chain(more).collect();
        Role::start_with(self.dir.path(), role, name, &settings.text()?, variables).await
    }

    pub(crate) async fn balance(&self, behind: Vec<SocketAddr>) -> anyhow::Result<String> {
        Ok(format!("http://{}", balancer(behind).await?))
    }

    /// The command of an operator: it knows the control planes and the token, and no file.
    pub(crate) async fn segue(&self, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(crate::SEGUE);
        command.args(args).env("SEGUE_CONTROL", &self.api).env("SEGUE_TOKEN", self.secret("SEGUE_TOKEN")?);
        Ok(command.stdin(Stdio::null()).kill_on_drop(true).output().await?)
    }

    /// The doctor of a role that runs, by its file.
    pub(crate) async fn doctor_again(&self, name: &str) -> anyhow::Result<Findings> {
        self.examine(&self.dir.path().join(format!("{name}.toml"))).await
    }

    async fn examine(&self, file: &Path) -> anyhow::Result<Findings> {
        let mut command = Command::new(crate::SEGUE);
        command.args(["doctor", "--json", "--config"]).arg(file).envs(&self.variables);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
        Findings::read(&output)
    }

    /// Ends what is not a role, and the folder with it.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.mariadb.kill().await?;
        self.redis.kill().await?;
        Ok(self.dir.close()?)
    }
}

/// What `segue doctor` found of a role that is about to start.
pub(crate) async fn doctor(parts: &Parts, role: &str, settings: &Settings) -> anyhow::Result<Findings> {
    let file = parts.dir.path().join(format!("doctor-{role}.toml"));
    std::fs::write(&file, settings.text()?)?;
    parts.examine(&file).await
}

/// What a doctor found, by its part.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) all: Vec<Value>,
    pub(crate) succeeded: bool,
}

impl Findings {
    pub(crate) fn read(output: &Output) -> anyhow::Result<Self> {
        let said = String::from_utf8(output.stdout.clone())?;
        let all: Vec<Value> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        if all.is_empty() {
            bail!("the doctor found nothing: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(Self { all, succeeded: output.status.success() })
    }

    pub(crate) fn of(&self, part: &str) -> anyhow::Result<&Value> {
        let found = self.all.iter().find(|finding| finding["part"] == part);
        found.with_context(|| format!("nothing of {part}: {:?}", self.all))
    }

    pub(crate) fn is_well(&self, part: &str) -> anyhow::Result<()> {
        let finding = self.of(part)?;
        ensure!(finding["health"] == "well", "{finding}");
        Ok(())
    }

    /// Nothing is ill, and nothing doubtful but what depends on this machine.
    pub(crate) fn all_is_well(&self, but: &[&str]) -> anyhow::Result<()> {
        let fine = |finding: &&Value| {
            finding["health"] == "well"
                || finding["health"] == "doubtful" && but.iter().any(|part| finding["part"] == *part)
        };
        let not: Vec<_> = self.all.iter().filter(|finding| !fine(finding)).collect();
        ensure!(self.succeeded && not.is_empty(), "{not:?}");
        Ok(())
    }
}

/// The part is ill, and the advice has this in it.
pub(crate) fn ill(findings: &Findings, part: &str, advice: &str) -> anyhow::Result<()> {
    let finding = findings.of(part)?;
    let told = finding["advice"].as_str().unwrap_or_default();
    ensure!(finding["health"] == "ill" && told.contains(advice) && !findings.succeeded, "{finding}");
    Ok(())
}
