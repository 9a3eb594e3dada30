//! Real redis-servers on loopback: one, a cluster, and a wire to one that can be slow or lead elsewhere.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use segue_config::Secret;
use segue_proxy::limit::{Limiter, LimitsConfig, RedisConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A redis-server without persistence.
pub struct Server {
    process: Child,
    /// Where it may write: a replica keeps what it is sent in a file.
    dir: tempfile::TempDir,
    pub port: u16,
    args: Vec<String>,
}

impl Server {
    pub async fn start(args: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_at(port, args).await
    }

    pub async fn start_at(port: u16, args: &[&str]) -> Self {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let dir = tempfile::tempdir().unwrap();
        Self { process: run(port, &args, dir.path()).await, dir, port, args }
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub async fn restart(&mut self) {
        self.process = run(self.port, &self.args, self.dir.path()).await;
    }

    pub fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    pub fn config(&self, url: &str) -> RedisConfig {
        RedisConfig::new(Secret::literal(url.replace("PORT", &self.port.to_string())))
    }
}

impl Server {
    /// What redis-cli answers.
    pub fn cli(&self, args: &[&str]) -> String {
        cli(self.port, args)
    }
}

fn cli(port: u16, args: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn run(port: u16, args: &[String], dir: &Path) -> Child {
    let tls = args.iter().any(|arg| arg == "--tls-port");
    let mut command = Command::new("redis-server");
    command.current_dir(dir);
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--loglevel", "warning"]);
    let port_text = port.to_string();
    if !tls {
        command.args(["--port", &port_text]);
    }
    command.args(args.iter().map(|arg| if arg == "PORT" { &port_text } else { arg }));
    let process = command.stdout(Stdio::null()).spawn().expect("redis-server (Debian: apt-get install redis-server)");
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(60), "redis-server does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    process
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A limiter that has reached its Redis.
pub async fn edge(limits: &LimitsConfig, redis: &RedisConfig) -> Arc<Limiter> {
    let limiter = Limiter::shared(limits, redis, "edge").unwrap();
    until("the edge reaches Redis", || limiter.is_shared()).await;
    limiter
}

/// A free port whose bus port, ten thousand above it, is free as well.
fn with_bus() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let (mut byte, mut tries) = ([0; 2], 0);
    loop {
        getrandom::fill(&mut byte).unwrap();
        let port = 20_000 + u16::from_le_bytes(byte) % 10_000;
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
        tries += 1;
        assert!(tries < 1_000, "no two free ports");
    }
}

/// A cluster of three masters, and one replica for the first of them.
pub struct Cluster {
    pub nodes: Vec<Server>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut nodes = Vec::new();
        for number in 0..4 {
            let file = dir.path().join(format!("nodes-{number}.conf"));
            let file = file.display().to_string();
            let args = ["--cluster-enabled", "yes", "--cluster-config-file", &file, "--cluster-node-timeout", "2000"];
            let more = ["--cluster-require-full-coverage", "no"];
            nodes.push(Server::start_at(with_bus(), &[&args[..], &more[..]].concat()).await);
        }
        let this = Self { nodes, _dir: dir };
        let masters: Vec<_> = this.nodes.iter().take(3).map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let mut create = vec!["--cluster", "create"];
        create.extend(masters.iter().map(String::as_str));
        create.push("--cluster-yes");
        let said = this.nodes[0].cli(&create);
        assert!(said.contains("All 16384 slots covered"), "{said}");
        let replica = format!("127.0.0.1:{}", this.nodes[3].port);
        let id = this.nodes[0].cli(&["cluster", "myid"]).trim().to_owned();
        let join = ["--cluster", "add-node", &replica, &masters[0], "--cluster-slave", "--cluster-master-id", &id];
        until("the cluster is whole", || {
            this.nodes.iter().take(3).all(|node| node.cli(&["cluster", "info"]).contains("cluster_state:ok"))
        })
        .await;
        let said = this.nodes[0].cli(&join);
        until("the replica follows", || this.nodes[3].cli(&["info", "replication"]).contains("master_link_status:up"))
            .await;
        assert!(!said.contains("[ERR]"), "{said}");
        this
    }

    pub fn config(&self) -> RedisConfig {
        let url = format!("redis://127.0.0.1:{}/", self.nodes[1].port);
        let timeout = Duration::from_secs(1);
        RedisConfig { cluster: true, timeout, ..RedisConfig::new(Secret::literal(url)) }
    }
}

/// An address behind which a Redis stands: another one when it was failed over, and slow when a test wants so.
pub struct Wire {
    pub addr: SocketAddr,
    leads_to: Arc<AtomicU16>,
    delay_ms: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Wire {
    pub async fn to(server: &Server) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (leads_to, delay_ms) = (Arc::new(AtomicU16::new(server.port)), Arc::new(AtomicU64::new(0)));
        let (port, delay) = (Arc::clone(&leads_to), Arc::clone(&delay_ms));
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                let server = tokio::net::TcpStream::connect(("127.0.0.1", port.load(Ordering::Relaxed))).await;
                let Ok(server) = server else { continue };
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let delay = Arc::clone(&delay);
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                tokio::spawn(async move {
                    let mut buffer = vec![0; 16_384];
                    while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                        tokio::time::sleep(Duration::from_millis(delay.load(Ordering::Relaxed))).await;
                        if to_client.write_all(&buffer[..count]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { addr, leads_to, delay_ms, task }
    }

    /// New connections lead there.
    pub fn lead_to(&self, server: &Server) {
        self.leads_to.store(server.port, Ordering::Relaxed);
    }

    /// Every answer takes so much longer.
    pub fn slow_down(&self, by: Duration) {
        self.delay_ms.store(by.as_millis() as u64, Ordering::Relaxed);
    }

    pub fn config(&self) -> RedisConfig {
        let timeout = Duration::from_secs(1);
        RedisConfig { timeout, ..RedisConfig::new(Secret::literal(format!("redis://{}/", self.addr))) }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}
