//! `segue policy build`: runs the compiler of the policy's language, and puts the result where it is expected.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail, ensure};
use clap::Args;
use segue_policy_host::vectors::{Vectors, attach};
use segue_policy_host::{HostConfig, PolicyHost};
use serde_json::json;

use super::project::{Language, Project};
use crate::cli::say;

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// The policy's folder
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Where the policy goes [default: <FOLDER>/<NAME>.wasm]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Answer with one line of JSON
    #[arg(long)]
    json: bool,
}

const TARGET: &str = "wasm32-unknown-unknown";
/// What Debian calls a compiler for that target.
const DEBIAN: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-19"];

pub(super) fn run(args: &BuildArgs) -> anyhow::Result<ExitCode> {
    let project = Project::open(&args.folder)?;
    let out = args.out.clone().unwrap_or_else(|| project.wasm());
    let made = match project.language {
        Language::Rust => rust(&project)?,
        Language::Js => js(&project)?,
        Language::C => c(&project)?,
    };
    let made = with_vectors(made, &project.vectors())?;
    let host = PolicyHost::new(HostConfig::default())?;
    let checked = host.check(&made).context("it was built, but is no policy")?;
    put(&out, &made)?;
    if args.json {
        say(json!({ "file": out, "world": checked.world, "size": checked.size, "digest": checked.digest }))?;
    } else {
        let digest = checked.digest.get(..12).unwrap_or_default();
        say(format_args!("{}: {}, {} bytes, {digest}", out.display(), checked.world.name(), checked.size))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// In one step: somebody may be watching the folder.
fn put(out: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let name = out.file_name().and_then(|name| name.to_str()).context("--out names no file")?;
    let beside = out.with_file_name(format!(".{name}.{}", std::process::id()));
    let failed = || format!("cannot write {}", out.display());
    std::fs::write(&beside, bytes).with_context(failed)?;
    std::fs::rename(&beside, out).with_context(failed)
}

/// The vectors travel in the policy; some compilers have put them there already.
fn with_vectors(made: Vec<u8>, vectors: &Path) -> anyhow::Result<Vec<u8>> {
    if !vectors.exists() || Vectors::inside(&made)?.is_some() {
        return Ok(made);
    }
    let text = std::fs::read(vectors).with_context(|| format!("cannot read {}", vectors.display()))?;
    attach(&made, &text).with_context(|| vectors.display().to_string())
}

/// Runs a compiler. What it says goes to standard error.
fn compile(command: &mut Command, advice: &str) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    // Standard output is for our own answer.
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    let status = status.with_context(|| format!("cannot run {program}: {advice}"))?;
    ensure!(status.success(), "{program} failed ({status})");
    Ok(())
}

fn answer(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn rust(project: &Project) -> anyhow::Result<Vec<u8>> {
    let manifest = std::fs::read_to_string(project.folder.join("Cargo.toml"))?;
    let manifest: toml::Table = manifest.parse().context("Cargo.toml")?;
    let package = manifest.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
    let package = package.context("Cargo.toml names no package")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| project.folder.join("target"), PathBuf::from);

    let sysroot = answer("rustc", &["--print", "sysroot"]).unwrap_or_default();
    let mut cargo = if Path::new(&sysroot).join("lib/rustlib").join(TARGET).is_dir() {
        Command::new("cargo")
    } else if answer("dpkg-query", &[&["-W"][..], &DEBIAN[..]].concat()).is_some() {
        // Debian has the standard library as source: it is built along, which takes two minutes the first time.
        let mut cargo = Command::new("/usr/bin/cargo");
        let path = std::env::join_paths(
            [PathBuf::from("/usr/bin")]
                .into_iter()
                .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
        )?;
        cargo
            .env("PATH", path)
            .env("RUSTC", "/usr/bin/rustc")
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld-19");
        cargo.arg("-Zbuild-std=std,panic_abort");
        cargo
    } else {
        bail!(
            "no compiler for {TARGET}: run `rustup target add {TARGET}`, or on Debian `apt-get install {}`",
            DEBIAN.join(" ")
        );
    };
    cargo.args(["build", "--quiet", "--release", "--target", TARGET]).current_dir(&project.folder);
    cargo.env("CARGO_TARGET_DIR", &target);
    compile(&mut cargo, "install Rust")?;
    let made = target.join(TARGET).join("release").join(format!("{}.wasm", package.replace('-', "_")));
    std::fs::read(&made).with_context(|| format!("cargo made no {}; is `crate-type` cdylib?", made.display()))
}

fn js(project: &Project) -> anyhow::Result<Vec<u8>> {
    if !project.folder.join("node_modules").is_dir() {
        let verb = if project.folder.join("package-lock.json").is_file() { "ci" } else { "install" };
        let advice = "install Node and npm (on Debian `apt-get install nodejs npm`)";
        compile(Command::new("npm").arg(verb).current_dir(&project.folder), advice)?;
    }
    let made = Scratch::new(project)?;
    compile(Command::new("node").arg("build.mjs").arg(&made.0).current_dir(&project.folder), "install Node")?;
    made.read()
}

fn c(project: &Project) -> anyhow::Result<Vec<u8>> {
    let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, found(name)?)));
    let advice = "on Debian `apt-get install clang-19 lld-19`";
    let (clang, _) = first(["clang-19", "clang"]).with_context(|| format!("no clang: {advice}"))?;
    let (_, linker) = first(["wasm-ld-19", "wasm-ld"]).with_context(|| format!("no wasm-ld: {advice}"))?;
    let made = Scratch::new(project)?;
    let mut command = Command::new(clang);
    command
        .args(["--target=wasm32", "-std=c17", "-O2", "-ffreestanding", "-nostdlib", "-Wall", "-Wno-unused-function"])
        .args(["-Wl,--no-entry", "-Wl,--strip-all"])
        .arg(format!("-fuse-ld={}", linker.display()))
        .args(["policy.c", "-o"])
        .arg(&made.0)
        .current_dir(&project.folder);
    compile(&mut command, advice)?;
    made.read()
}

/// Where a program of this name lies.
fn found(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// What a compiler writes, until it has been looked at.
struct Scratch(PathBuf);

impl Scratch {
    fn new(project: &Project) -> anyhow::Result<Self> {
        let folder = project.folder.join("target");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder.join(format!("{}.{}.wasm", project.name, std::process::id()))))
    }

    fn read(&self) -> anyhow::Result<Vec<u8>> {
        std::fs::read(&self.0).with_context(|| format!("the compiler made no {}", self.0.display()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left lying it would harm nobody.
        _ = std::fs::remove_file(&self.0);
    }
}
