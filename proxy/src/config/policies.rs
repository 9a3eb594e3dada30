//! `[policies]`: where policies come from, what they may use up, and what they are lent.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use segue_config::{Secret, Section, Size, Span};
use segue_policy_host::{Bounds, Key, Services};
use sha2::{Digest as _, Sha256};

/// Bytes of a table's file: a million keys. It is held in memory.
const TABLE_MAX: u64 = 64 << 20;
/// The longest call: what a request may have to wait for a rule, and a thread with it.
const CALL_MAX: Duration = Duration::from_millis(100);
const CONFIGURE_MAX: Duration = Duration::from_secs(30);
/// WebAssembly memories begin at 64 KiB, and address no more than 4 GiB.
const MEMORY: std::ops::RangeInclusive<u64> = 64 << 10..=4 << 30;

/// Where policies come from, and their bounds.
#[derive(Debug, Clone, Default)]
pub struct PoliciesConfig {
    /// A folder that is watched (`dir`), for an edge without a control plane.
    pub dir: Option<PathBuf>,
    /// Where the bytes that the control plane gave, and compiled code, outlive a restart (`cache_dir`). With a control plane it is a folder
    /// in `[snapshot] dir` by default.
    pub cache_dir: Option<PathBuf>,
    /// What one policy may use up (`[policies.bounds]`).
    pub bounds: Bounds,
}

/// What policies are lent: `[policies.keys]` and `[policies.tables]`. Changes without a restart.
#[derive(Debug, Clone, Default)]
pub struct PolicyServices {
    pub(crate) services: Arc<Services>,
    /// A hash of all that is in them, by which a change is seen.
    pub(crate) mark: [u8; 32],
}

impl PoliciesConfig {
    pub(super) fn read(section: &Section<'_>, has_control: bool) -> Self {
        let mut config =
            Self { dir: section.get("dir"), cache_dir: section.get("cache_dir"), bounds: Bounds::default() };
        if has_control && config.dir.is_some() {
            section.problem("dir", "policies come from the control plane of [control]; remove one of the two");
        }
        let bounds = section.section("bounds");
        config.bounds.call = span(&bounds, "call", config.bounds.call, CALL_MAX);
        config.bounds.configure = span(&bounds, "configure", config.bounds.configure, CONFIGURE_MAX);
        for (name, value) in [("memory", &mut config.bounds.memory), ("upload", &mut config.bounds.upload)] {
            let size = bounds.or(name, Size(*value as u64)).0;
            if !MEMORY.contains(&size) {
                bounds.problem(name, format!("{size} bytes; use \"64KiB\" to \"4GiB\""));
            }
            *value = usize::try_from(size).unwrap_or(usize::MAX);
        }
        config
    }
}

fn span(section: &Section<'_>, key: &str, default: Duration, most: Duration) -> Duration {
    let span = section.or(key, Span(default)).0;
    if span.is_zero() || span > most {
        section.problem(key, format!("{span:?} is outside of 1ms to {most:?}"));
    }
    span
}

impl PolicyServices {
    /// These services, for whoever has no file to read them from.
    #[must_use]
    pub fn of(services: Services) -> Self {
        Self { services: Arc::new(services), mark: [0; 32] }
    }

    /// Reads them; the files that they are in are added to `files`.
    pub(super) fn read(section: &Section<'_>, files: &mut Vec<PathBuf>) -> Self {
        let (mut services, mut mark) = (Services::default(), Sha256::new());
        let keys = section.section("keys").free_form();
        for name in keys.names() {
            files.extend(keys.get::<String>(&name).and_then(|place| place.strip_prefix("file:").map(PathBuf::from)));
            let Some(secret) = keys.get::<Secret>(&name) else { continue };
            mark.update(Sha256::digest(&name));
            mark.update(Sha256::digest(secret.expose()));
            match key(secret.expose()) {
                Ok(key) => _ = services.keys.insert(name, key),
                Err(problem) => keys.problem(&name, problem),
            }
        }
        let tables = section.section("tables").free_form();
        for name in tables.names() {
            let Some(path) = tables.get::<PathBuf>(&name) else { continue };
            match table(&path) {
                Ok((table, digest)) => {
                    mark.update(Sha256::digest(&name));
                    mark.update(digest);
                    services.tables.insert(name, Arc::new(table));
                }
                Err(problem) => tables.problem(&name, format!("{}: {problem}", path.display())),
            }
            files.push(path);
        }
        Self { services: Arc::new(services), mark: mark.finalize().into() }
    }
}

/// PEM where it looks like it, else a shared secret: its UTF-8 bytes, or what stands behind `hex:` or `base64:`.
fn key(text: &str) -> Result<Key, String> {
    if text.contains("-----BEGIN ") {
        return Key::pem(text).map_err(|error| error.to_string());
    }
    let bytes = match (text.strip_prefix("hex:"), text.strip_prefix("base64:")) {
        (Some(hex), _) => unhex(hex).ok_or("`hex:` is followed by something that is not hexadecimal")?,
        (_, Some(base64)) => {
            STANDARD.decode(base64).map_err(|_| "`base64:` is followed by something that is not base64")?
        }
        _ => text.as_bytes().to_vec(),
    };
    Key::secret(bytes).map_err(|error| error.to_string())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

/// A table, and the hash of its file: a JSON object of texts (`.json`), or lines of `key,value`, in which empty ones and those that begin with `#` say nothing.
fn table(path: &Path) -> Result<(HashMap<String, String>, [u8; 32]), String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    file.take(TABLE_MAX + 1).read_to_string(&mut text).map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > TABLE_MAX {
        return Err(format!("more than the {TABLE_MAX} bytes that are read"));
    }
    let digest = Sha256::digest(&text).into();
    if path.extension().is_some_and(|kind| kind == "json") {
        let table = serde_json::from_str(&text).map_err(|error| format!("not a JSON object of texts: {error}"))?;
        return Ok((table, digest));
    }
    let mut table = HashMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let pair = line.split_once(',').ok_or_else(|| format!("line {}: expected `key,value`", number + 1))?;
        if table.insert(pair.0.trim().to_owned(), pair.1.trim().to_owned()).is_some() {
            return Err(format!("line {}: the key {:?} stands there twice", number + 1, pair.0.trim()));
        }
    }
    Ok((table, digest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use segue_config::Document;

    use super::*;

    fn read(text: &str, has_control: bool) -> (PoliciesConfig, PolicyServices, Vec<PathBuf>, String) {
        let document = Document::parse(text, "edge.toml", &|_| None).unwrap();
        let (section, mut files) = (document.root().section("policies"), Vec::new());
        let config = PoliciesConfig::read(&section, has_control);
        let services = PolicyServices::read(&section, &mut files);
        let problems = document.finish().err().map(|problems| problems.to_string()).unwrap_or_default();
        (config, services, files, problems)
    }

    #[test]
    fn keys_tables_and_bounds_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("secret"), "s3cret\n").unwrap();
        std::fs::write(path("rights.csv"), "# isrc,countries\nDE1,DE AT\n\nUS2,US\n").unwrap();
        std::fs::write(path("plans.json"), r#"{"a":"gold"}"#).unwrap();
        let public = include_str!("../../../policies/host/tests/keys/p256.pub.pem");
        std::fs::write(path("public.pem"), public).unwrap();
        let text = format!(
            "[policies]\ndir = \"/p\"\n[policies.bounds]\ncall = \"5ms\"\nmemory = \"1MiB\"\n[policies.keys]\nplain = \"file:{}\"\nhex = \"hex:00ff\"\n\
             pem = \"file:{}\"\n[policies.tables]\nrights = \"{}\"\nplans = \"{}\"\n",
            path("secret"),
            path("public.pem"),
            path("rights.csv"),
            path("plans.json"),
        );
        let (config, services, files, problems) = read(&text, false);
        assert_eq!(problems, "");
        assert_eq!((config.bounds.call, config.bounds.memory), (Duration::from_millis(5), 1 << 20));
        let Services { keys, tables, signer } = &*services.services;
        assert!(matches!(keys.get("plain"), Some(Key::Secret(secret)) if **secret == *b"s3cret"));
        assert!(matches!(keys.get("hex"), Some(Key::Secret(secret)) if **secret == [0, 255]));
        assert!(matches!(keys.get("pem"), Some(Key::EcPublic(_))));
        assert_eq!(
            (tables["rights"]["DE1"].as_str(), tables["plans"]["a"].as_str(), *signer),
            ("DE AT", "gold", false)
        );
        assert_eq!(files.len(), 4);
        assert!(!format!("{services:?}").contains("s3cret"));
        std::fs::write(path("rights.csv"), "DE1,DE\n").unwrap();
        assert_ne!(read(&text, false).1.mark, services.mark);
    }

    #[test]
    fn every_mistake_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let csv = dir.path().join("t.csv").display().to_string();
        std::fs::write(&csv, "a,1\na,2\n").unwrap();
        let (.., problems) = read(
            &format!(
                "[policies]\ndir = \"/p\"\ncach_dir = \"/c\"\n[policies.bounds]\ncall = \"2s\"\nmemory = \"1B\"\n[policies.keys]\nk = \"hex:0\"\n\
                 pem = \"-----BEGIN CERTIFICATE-----\"\n[policies.tables]\nt = \"{csv}\"\nu = \"/nowhere/u.json\"\n"
            ),
            true,
        );
        for part in [
            "policies.dir: policies come from the control plane",
            "policies.cach_dir: unknown key; did you mean `cache_dir`?",
            "policies.bounds.call: 2s is outside",
            "policies.bounds.memory: 1 bytes; use",
            "policies.keys.k: `hex:` is followed by",
            "policies.keys.pem: not a key that is known here",
            "line 2: the key \"a\" stands there twice",
            "policies.tables.u: /nowhere/u.json: cannot be read",
        ] {
            assert!(problems.contains(part), "{part:?} is not in\n{problems}");
        }
    }
}
