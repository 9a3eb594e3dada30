//! What may change while an edge runs: ticket keys with their times, wrapping keys, revocations, the tickets' leeway, limit
//! classes, what policies are lent.
//!
//! Invariants: all of it is read by the same functions at start and at every later reading of the file, and reaches
//! requests in the snapshot alone. What else should change without a restart joins [`Reloadable`], and
//! `crate::snapshot::Snapshot` beside it.
//!
//! On failure: problems go to the document that is read, as everywhere; whoever reloads keeps what it has.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use segue_config::{Document, Moment, Secret, Section, Span};
use segue_signing::limits::LimitsConfig;
use segue_signing::{Key, Revocation, SigningSecret, WrappingKey, WrappingKeys};

use super::limits;
use super::policies::PolicyServices;

/// A revocations file larger than this is refused: some fifty thousand entries.
const REVOCATIONS_MAX: u64 = 4 * 1024 * 1024;

/// The part of an edge's configuration that changes without a restart.
#[derive(Debug, Clone, Default)]
pub struct Reloadable {
    /// Ticket keys (`[keys]`).
    pub keys: Vec<Key>,
    /// What content keys are unwrapped with (`[wrapping_keys]`).
    pub wrapping: Arc<WrappingKeys>,
    /// Tickets that are void before they expire (`[revocations] file`).
    pub revocations: Vec<Revocation>,
    /// Clock difference that is forgiven (`[tickets] leeway`).
    pub leeway: Duration,
    /// Rate limits and streams (`[limits]`, `[streams]`).
    pub limits: LimitsConfig,
    /// What policies are lent (`[policies.keys]`, `[policies.tables]`).
    pub services: PolicyServices,
    /// Files beside the configuration itself whose change means that it is to be read again.
    pub files: Vec<PathBuf>,
}

impl Reloadable {
    /// Reads it; `leeway` is the default.
    pub(crate) fn read(root: &Section<'_>, leeway: Duration) -> Self {
        let mut this = Self {
            leeway: root.section("tickets").or("leeway", Span(leeway)).0,
            limits: limits::read(root),
            ..Self::default()
        };
        let keys = root.section("keys").free_form();
        for kid in keys.names() {
            this.keys.extend(read_key(&keys, &kid, &mut this.files));
        }
        this.wrapping = read_wrapping(&root.section("wrapping_keys").free_form(), &mut this.files);
        let section = root.section("revocations");
        if let Some(file) = section.get::<PathBuf>("file") {
            match read_revocations(&file) {
                Ok(revocations) => this.revocations = revocations,
                Err(problem) => section.problem("file", problem),
            }
            this.files.push(file);
        }
        this.services = PolicyServices::read(&root.section("policies"), &mut this.files);
        this
    }
}

/// `k1 = "env:…"`, or `[keys.k1]` with `secret`, `not_before` and `retire_at`.
fn read_key(keys: &Section<'_>, kid: &str, files: &mut Vec<PathBuf>) -> Option<Key> {
    let table = keys.is_table(kid).then(|| keys.section(kid));
    let (section, name) = table.as_ref().map_or((keys, kid), |table| (table, "secret"));
    let place: String = section.require(name)?;
    files.extend(place.strip_prefix("file:").map(PathBuf::from));
    let secret: Secret = section.get(name)?;
    let secret =
        SigningSecret::parse(secret.expose()).map_err(|error| section.problem(name, error.to_string())).ok()?;
    let time = |name| table.as_ref().and_then(|table| table.get::<Moment>(name)).map(|moment| moment.0);
    let key = Key { kid: kid.to_owned(), secret, not_before: time("not_before"), retire_at: time("retire_at") };
    if let Err(error) = segue_signing::Keyring::new(vec![key.clone()]) {
        keys.problem(kid, error.to_string());
    }
    Some(key)
}

/// `w1 = "env:…"`.
fn read_wrapping(section: &Section<'_>, files: &mut Vec<PathBuf>) -> Arc<WrappingKeys> {
    let mut keys = Vec::new();
    for id in section.names() {
        let Some(place) = section.get::<String>(&id) else { continue };
        files.extend(place.strip_prefix("file:").map(PathBuf::from));
        let Some(secret) = section.get::<Secret>(&id) else { continue };
        match SigningSecret::parse(secret.expose()) {
            Ok(secret) => keys.push(WrappingKey { id, secret }),
            Err(error) => section.problem(&id, error.to_string()),
        }
    }
    let keys = WrappingKeys::new(&keys).map_err(|error| section.problem("", error.to_string()));
    Arc::new(keys.unwrap_or_default())
}

/// `[[revocation]]` tables with `sid`, `sub`, `track`, `issued_before` (one at least) and `until`.
fn read_revocations(file: &PathBuf) -> Result<Vec<Revocation>, String> {
    let size = std::fs::metadata(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?.len();
    if size > REVOCATIONS_MAX {
        return Err(format!("{} is {size} bytes, more than the {REVOCATIONS_MAX} that are read", file.display()));
    }
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let document = Document::parse(&text, &file.display().to_string(), &|_| None).map_err(|error| error.to_string())?;
    let mut list = Vec::new();
    for table in document.root().tables("revocation") {
        let revocation = Revocation {
            sid: table.get("sid"),
            sub: table.get("sub"),
            track: table.get("track"),
            issued_before: table.get::<Moment>("issued_before").map(|moment| moment.0),
            until: table.require::<Moment>("until").map_or(0, |moment| moment.0),
        };
        if revocation.is_empty() {
            table.problem("", "names none of sid, sub, track and issued_before: it would revoke nothing");
        }
        list.push(revocation);
    }
    document.finish().map_err(|problems| problems.to_string())?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> (Reloadable, String) {
        let document = Document::parse(text, "edge.toml", &|_| None).unwrap();
        let read = Reloadable::read(&document.root(), Duration::from_secs(5));
        (read, document.finish().err().map(|problems| problems.to_string()).unwrap_or_default())
    }

    #[test]
    fn keys_are_read_in_both_forms() {
        let secret = "0123456789abcdef0123456789abcdef";
        let (read_, problems) = read(&format!(
            "[tickets]\nleeway = \"2s\"\n[keys]\nk1 = \"{secret}\"\n[keys.k2]\nsecret = \"{secret}\"\n\
             not_before = \"2026-07-01T12:00:00Z\"\nretire_at = 2027-01-01\n"
        ));
        assert_eq!(problems, "");
        assert_eq!(read_.leeway, Duration::from_secs(2));
        assert_eq!((read_.keys[0].kid.as_str(), read_.keys[0].not_before), ("k1", None));
        assert_eq!((read_.keys[1].not_before, read_.keys[1].retire_at), (Some(1_782_907_200), Some(1_798_761_600)));
    }

    #[test]
    fn every_problem_with_a_key_is_named() {
        let secret = "0123456789abcdef0123456789abcdef";
        let (_, problems) = read(&format!(
            "[keys]\nk1 = \"short\"\n\"k 3\" = \"{secret}\"\n[keys.k2]\nsecret = \"{secret}\"\nretire = 1\nnot_before = \"soon\"\n"
        ));
        for part in ["keys.k1: ", "keys.k 3: key name", "keys.k2.not_before: \"soon\" is not a time", "keys.k2.retire:"]
        {
            assert!(problems.contains(part), "{part:?} is not in\n{problems}");
        }
    }

    #[test]
    fn wrapping_keys_are_secrets_under_ids() {
        let secret = "0123456789abcdef0123456789abcdef";
        let (read_, problems) = read(&format!("[wrapping_keys]\nw1 = \"{secret}\"\nw2 = \"{secret}\"\n"));
        assert_eq!((problems.as_str(), read_.wrapping.ids().collect::<Vec<_>>()), ("", vec!["w1", "w2"]));
        let (_, problems) = read(&format!("[wrapping_keys]\nw1 = \"short\"\n\"w:2\" = \"{secret}\"\n"));
        for part in ["wrapping_keys.w1: the secret has 5 bytes", "\"w:2\" cannot be a wrapping key's id"] {
            assert!(problems.contains(part), "{part:?} is not in\n{problems}");
        }
    }

    #[test]
    fn revocations_come_from_a_file_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("revoked.toml");
        std::fs::write(&file, "[[revocation]]\nsid = \"s\"\nuntil = \"2030-01-01\"\n").unwrap();
        let text = format!("[revocations]\nfile = {:?}\n", file.display().to_string());
        let (read_, problems) = read(&text);
        assert_eq!((problems.as_str(), read_.revocations.len(), read_.files.len()), ("", 1, 1));
        std::fs::write(&file, "[[revocation]]\nuntil = 1\n[[revocation]]\nsid = \"s\"\nuntl = 5\n").unwrap();
        let (read_, problems) = read(&text);
        for part in ["revocations.file: ", "names none of sid", "revocation[1].until: missing", "did you mean `until`"]
        {
            assert!(problems.contains(part), "{part:?} is not in\n{problems}");
        }
        assert!(read_.revocations.is_empty());
    }
}
