//! Policies from a folder, for an edge without a control plane: `country.toml` says how `country.wasm` is used.
//!
//! ```toml
//! order = 10                # policies are asked in this order, then by name
//! mode = "active"           # or "off"
//! on_failure = "closed"     # or "open"
//! [config]
//! allow = ["DE"]
//! [candidate]               # a version that is tried beside the active one
//! file = "country-2.wasm"
//! mode = "shadow"           # or "canary", with `percent`
//! ```
//!
//! Invariants: what has not changed is neither read again nor loses its instances; a policy that cannot be loaded keeps
//! the version that was loaded last. Looking at the folder blocks, and so does compiling: not for threads that answer requests.
//!
//! On failure: a [`Problem`] for each policy. Where one has nothing to keep, its rule is not enforced, so an edge
//! that starts must not say that it is ready then.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::Value;

use crate::access::{AccessPolicy, FailMode};
use crate::chain::{Attached, Chain, Trial};
use crate::check::World;
use crate::engine::PolicyHost;
use crate::policy::Policy;
use crate::scheme::TicketScheme;
use crate::services::Services;

/// Bytes of one `.toml`; a list of 100,000 networks fits.
const MANIFEST_BYTES: u64 = 4 << 20;
/// Hex digits of a digest that stand for a version that has no name.
const VERSION_DIGITS: usize = 12;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    file: Option<String>,
    version: Option<String>,
    #[serde(default)]
    order: i32,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    on_failure: FailMode,
    #[serde(default)]
    config: toml::Table,
    candidate: Option<Candidate>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Active,
    Off,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Candidate {
    file: String,
    version: Option<String>,
    mode: CandidateMode,
    /// Of sessions, for a canary.
    percent: Option<f64>,
    /// Its own configuration; the active one's where there is none.
    config: Option<toml::Table>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CandidateMode {
    Shadow,
    Canary,
}

/// Why a policy of the folder is not as its file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The policy.
    pub policy: String,
    /// What is wrong, and where.
    pub text: String,
    /// The version that goes on deciding; `None`: nobody enforces this rule.
    pub kept: Option<Arc<str>>,
}

/// What a folder holds.
#[derive(Debug)]
pub struct Loaded {
    /// Access policies, in order.
    pub chain: Arc<Chain>,
    /// Ticket schemes, in order.
    pub schemes: Vec<Arc<TicketScheme>>,
    /// What could not be loaded.
    pub problems: Vec<Problem>,
}

/// A policy as it was last loaded.
#[derive(Clone)]
struct Entry {
    /// The manifest's text and the stamps of its files: what it was made from, beside the services.
    made_from: (String, Vec<Option<Stamp>>),
    services: Arc<Services>,
    order: i32,
    active: Option<Active>,
    candidate: Option<(Arc<AccessPolicy>, Trial)>,
}

#[derive(Clone)]
enum Active {
    Access(Arc<AccessPolicy>),
    Scheme(Arc<TicketScheme>),
}

type Stamp = (u64, Option<SystemTime>);

/// A folder of policies, and what was last loaded from it.
pub struct Folder {
    path: PathBuf,
    /// What was there at the last look, and what policies were lent then.
    seen: Option<(BTreeMap<PathBuf, Stamp>, Arc<Services>)>,
    entries: BTreeMap<String, Entry>,
    compiled: HashMap<PathBuf, (Stamp, Policy)>,
}

impl Folder {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, seen: None, entries: BTreeMap::new(), compiled: HashMap::new() }
    }

    /// Looks at the folder. `None`: nothing has changed since the last time, the folder and `services` alike; with other
    /// services every policy is configured anew.
    ///
    /// # Errors
    /// The folder cannot be read; what was loaded stays as it is.
    pub fn load(&mut self, host: &PolicyHost, services: &Arc<Services>) -> io::Result<Option<Loaded>> {
        let seen = self.look()?;
        if self.seen.as_ref().is_some_and(|(known, lent)| seen == *known && Arc::ptr_eq(lent, services)) {
            return Ok(None);
        }
        self.compiled.retain(|path, (stamp, _)| seen.get(path) == Some(stamp));
        let manifests = seen.keys().filter(|path| path.extension().is_some_and(|kind| kind == "toml"));
        let (mut entries, mut problems) = (BTreeMap::new(), Vec::new());
        for path in manifests {
            let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            let before = self.entries.get(&name).cloned();
            match self.entry(host, services, path, &name, &seen, before.as_ref()) {
                Ok(entry) => _ = entries.insert(name, entry),
                Err(text) => {
                    let kept = before.as_ref().and_then(|entry| entry.active.as_ref()).map(Active::label);
                    problems.push(Problem { policy: name.clone(), text, kept });
                    entries.extend(before.map(|entry| (name, entry)));
                }
            }
        }
        (self.seen, self.entries) = (Some((seen, Arc::clone(services))), entries);
        Ok(Some(self.loaded(problems)))
    }

    /// Size and time of each file of the folder that may concern us.
    fn look(&self) -> io::Result<BTreeMap<PathBuf, Stamp>> {
        let mut seen = BTreeMap::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let concerns = path.extension().is_some_and(|kind| kind == "toml" || kind == "wasm");
            // A file that goes away meanwhile is one that is not there.
            if let (true, Ok(about)) = (concerns, fs::metadata(&path)) {
                seen.insert(path, (about.len(), about.modified().ok()));
            }
        }
        Ok(seen)
    }

    fn entry(
        &mut self,
        host: &PolicyHost,
        services: &Arc<Services>,
        path: &Path,
        name: &str,
        seen: &BTreeMap<PathBuf, Stamp>,
        before: Option<&Entry>,
    ) -> Result<Entry, String> {
        let text = read_text(path)?;
        let manifest: Manifest = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let file = self.path.join(manifest.file.clone().unwrap_or_else(|| format!("{name}.wasm")));
        let trial = manifest.candidate.as_ref().map(|candidate| self.path.join(&candidate.file));
        let stamps = [Some(&file), trial.as_ref()].map(|file| file.and_then(|file| seen.get(file)).copied());
        let made_from = (text, stamps.to_vec());
        let same = |before: &&Entry| before.made_from == made_from && Arc::ptr_eq(&before.services, services);
        if let Some(before) = before.filter(same) {
            return Ok(before.clone());
        }
        let services_ = Arc::clone(services);
        let mut entry = Entry { made_from, services: services_, order: manifest.order, active: None, candidate: None };
        if manifest.mode == Mode::Off {
            return Ok(entry);
        }
        let policy = self.compiled(host, &file, seen)?;
        let config = Value::from_toml(&manifest.config);
        let label = label(name, manifest.version.as_deref(), &policy);
        entry.active = Some(ready(policy, &label, &config, services, manifest.on_failure)?);
        if let (Some(candidate), Some(file)) = (&manifest.candidate, trial) {
            let policy = self.compiled(host, &file, seen)?;
            let own = candidate.config.as_ref().map(Value::from_toml);
            let label = self::label(name, candidate.version.as_deref(), &policy);
            let config = own.as_ref().unwrap_or(&config);
            match ready(policy, &label, config, services, manifest.on_failure)? {
                Active::Access(policy) => entry.candidate = Some((policy, candidate.trial()?)),
                Active::Scheme(_) => {
                    return Err("a ticket scheme cannot be a candidate: two schemes do not disagree".to_owned());
                }
            }
        }
        Ok(entry)
    }

    fn compiled(&mut self, host: &PolicyHost, file: &Path, seen: &BTreeMap<PathBuf, Stamp>) -> Result<Policy, String> {
        let stamp = *seen.get(file).ok_or_else(|| format!("{} is not there", file.display()))?;
        if let Some((_, policy)) = self.compiled.get(file).filter(|(known, _)| *known == stamp) {
            return Ok(policy.clone());
        }
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let bytes = host.read(file).map_err(|error| failed(&error))?;
        let policy = host.compile(&bytes).map_err(|error| failed(&error))?;
        self.compiled.insert(file.to_owned(), (stamp, policy.clone()));
        Ok(policy)
    }

    fn loaded(&self, problems: Vec<Problem>) -> Loaded {
        let mut ordered: Vec<_> = self.entries.iter().collect();
        ordered.sort_by_key(|(name, entry)| (entry.order, (*name).clone()));
        let (mut places, mut schemes) = (Vec::new(), Vec::new());
        for (name, entry) in ordered {
            match &entry.active {
                Some(Active::Access(policy)) => places.push(Attached {
                    candidate: entry.candidate.clone(),
                    ..Attached::active(name, Arc::clone(policy))
                }),
                Some(Active::Scheme(scheme)) => schemes.push(Arc::clone(scheme)),
                None => {}
            }
        }
        Loaded { chain: Arc::new(Chain::new(places)), schemes, problems }
    }
}

impl std::fmt::Debug for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Folder").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Active {
    fn label(&self) -> Arc<str> {
        match self {
            Self::Access(policy) => Arc::clone(policy.label()),
            Self::Scheme(scheme) => Arc::clone(scheme.label()),
        }
    }
}

impl Candidate {
    fn trial(&self) -> Result<Trial, String> {
        match (self.mode, self.percent) {
            (CandidateMode::Shadow, None) => Ok(Trial::Shadow),
            // In range, so the conversion is exact to the hundredth.
            (CandidateMode::Canary, Some(percent)) if (0.0..=100.0).contains(&percent) => {
                Ok(Trial::Canary((percent * 100.0).round() as u16))
            }
            (CandidateMode::Shadow, Some(_)) => Err("candidate.percent is for mode = \"canary\"".to_owned()),
            (CandidateMode::Canary, _) => Err("candidate.percent: mode = \"canary\" needs 0 to 100".to_owned()),
        }
    }
}

trait FromToml {
    fn from_toml(table: &toml::Table) -> Self;
}

impl FromToml for Value {
    fn from_toml(table: &toml::Table) -> Self {
        // TOML has nothing that JSON cannot say but dates, which become texts.
        serde_json::to_value(table).unwrap_or_default()
    }
}

fn label(name: &str, version: Option<&str>, policy: &Policy) -> String {
    let digest = &policy.checked().digest;
    format!("{name}@{}", version.unwrap_or_else(|| digest.get(..VERSION_DIGITS).unwrap_or(digest)))
}

fn ready(
    policy: Policy,
    label: &str,
    config: &Value,
    services: &Arc<Services>,
    mode: FailMode,
) -> Result<Active, String> {
    let services = Arc::clone(services);
    match policy.checked().world {
        World::Access => AccessPolicy::new(policy, label, config, services, mode).map(Arc::new).map(Active::Access),
        World::TicketScheme => TicketScheme::new(policy, label, config, services).map(Arc::new).map(Active::Scheme),
    }
    .map_err(|failure| format!("{label}: {failure}"))
}

fn read_text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    // One more than allowed, so that a longer file is seen to be longer.
    file.take(MANIFEST_BYTES + 1).read_to_string(&mut text).map_err(|error| format!("{}: {error}", path.display()))?;
    if text.len() as u64 > MANIFEST_BYTES {
        return Err(format!("{}: more than {MANIFEST_BYTES} bytes", path.display()));
    }
    Ok(text)
}
