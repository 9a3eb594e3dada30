//! Reading a document section by section, while keeping account of what was asked for.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::problem::{Problem, Problems};
use crate::value::Value;

/// A document larger than this is not a configuration.
const DOCUMENT_MAX: usize = 4 * 1024 * 1024;

struct Account {
    problems: Vec<Problem>,
    asked: BTreeSet<String>,
}

/// A parsed configuration, and the account of what was read from it.
pub struct Document<'e> {
    origin: String,
    table: toml::Table,
    env: &'e dyn Fn(&str) -> Option<String>,
    account: RefCell<Account>,
}

impl std::fmt::Debug for Document<'_> {
    // The table may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Document").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl<'e> Document<'e> {
    /// Parses `text`; `origin` names it in problems (a path), `env` looks up environment variables.
    ///
    /// # Errors
    /// One problem with line and column when the text is not TOML or is larger than 4 MiB.
    pub fn parse(text: &str, origin: &str, env: &'e dyn Fn(&str) -> Option<String>) -> Result<Self, Problems> {
        let wrong =
            |message: String| Problems(vec![Problem { origin: origin.to_owned(), key: String::new(), message }]);
        if text.len() > DOCUMENT_MAX {
            return Err(wrong(format!("{} bytes is too large for a configuration", text.len())));
        }
        let table = text.parse::<toml::Table>().map_err(|error| {
            let (line, column) = error.span().map_or((1, 1), |span| place(text, span.start));
            wrong(format!("line {line}, column {column}: {}", error.message()))
        })?;
        let account = RefCell::new(Account { problems: Vec::new(), asked: BTreeSet::new() });
        Ok(Self { origin: origin.to_owned(), table, env, account })
    }

    /// The top of the document.
    pub fn root(&self) -> Section<'_> {
        Section { document: self, path: String::new(), table: Some(&self.table), variables: true }
    }

    /// The keys that differ between two readings of a document, dotted, two tables deep, in order.
    pub fn changed_since(&self, before: &Document<'_>) -> Vec<String> {
        let mut changed = Vec::new();
        differing(&self.table, &before.table, "", 2, &mut changed);
        changed
    }

    /// Ends the reading: every recorded problem, and every key that nobody asked for.
    ///
    /// # Errors
    /// All problems at once.
    pub fn finish(self) -> Result<(), Problems> {
        let mut unknown = Vec::new();
        let account = self.account.into_inner();
        unasked(&self.table, "", &account.asked, &mut unknown);
        let mut problems = account.problems;
        problems.extend(unknown.into_iter().map(|(key, near)| Problem {
            origin: self.origin.clone(),
            key,
            message: match near {
                Some(near) => format!("unknown key; did you mean `{near}`?"),
                None => "unknown key".to_owned(),
            },
        }));
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }
}

fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    (line, before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1)
}

fn differing(now: &toml::Table, before: &toml::Table, path: &str, depth: u8, found: &mut Vec<String>) {
    let names: BTreeSet<&String> = now.keys().chain(before.keys()).collect();
    for key in names {
        match (now.get(key), before.get(key)) {
            (Some(toml::Value::Table(now)), Some(toml::Value::Table(before))) if depth > 1 => {
                differing(now, before, &join(path, key), depth - 1, found);
            }
            (now, before) if now != before => found.push(join(path, key)),
            _ => {}
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn unasked(table: &toml::Table, path: &str, asked: &BTreeSet<String>, found: &mut Vec<(String, Option<String>)>) {
    for (key, value) in table {
        let full = join(path, key);
        if !asked.contains(&full) {
            found.push((full, nearest(path, key, asked)));
            continue;
        }
        match value {
            toml::Value::Table(inner) => unasked(inner, &full, asked, found),
            toml::Value::Array(items) => {
                for (n, item) in items.iter().enumerate() {
                    if let toml::Value::Table(inner) = item {
                        unasked(inner, &format!("{full}[{n}]"), asked, found);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The asked-for sibling that differs from `key` by at most two edits.
fn nearest(path: &str, key: &str, asked: &BTreeSet<String>) -> Option<String> {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
    asked
        .iter()
        .filter_map(|full| full.strip_prefix(&prefix).filter(|rest| !rest.is_empty() && !rest.contains('.')))
        .map(|name| (edits(name, key), name))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, name)| name.to_owned())
}

fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// One table of a document. A missing table reads as an empty one.
#[derive(Clone)]
pub struct Section<'d> {
    document: &'d Document<'d>,
    path: String,
    table: Option<&'d toml::Table>,
    /// Whether `SEGUE_…` variables reach here: not into free-form tables and lists, whose names are not ours.
    variables: bool,
}

impl std::fmt::Debug for Section<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Section").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<'d> Section<'d> {
    fn ask(&self, key: &str) -> Option<&'d toml::Value> {
        self.document.account.borrow_mut().asked.insert(join(&self.path, key));
        self.table.and_then(|table| table.get(key))
    }

    fn variable(&self, key: &str) -> Option<(String, String)> {
        if !self.variables {
            return None;
        }
        let name = format!("SEGUE_{}", join(&self.path, key).replace('.', "_").to_uppercase());
        (self.document.env)(&name).map(|text| (name, text))
    }

    /// Records a problem with `key` of this section (the section itself where `key` is empty).
    pub fn problem(&self, key: &str, message: impl Into<String>) {
        let key = if key.is_empty() { self.path.clone() } else { join(&self.path, key) };
        let problem = Problem { origin: self.document.origin.clone(), key, message: message.into() };
        self.document.account.borrow_mut().problems.push(problem);
    }

    /// The value of `key`, if it is set and right; a wrong one is recorded and reads as `None`.
    pub fn get<T: Value>(&self, key: &str) -> Option<T> {
        let in_file = self.ask(key);
        let read = match self.variable(key) {
            Some((name, text)) => T::from_text(&text).map_err(|message| format!("{message} (from {name})")),
            None => T::from_toml(in_file?),
        };
        read.map_err(|message| self.problem(key, message)).ok()
    }

    /// The value of `key`, or `default`.
    pub fn or<T: Value>(&self, key: &str, default: T) -> T {
        self.get(key).unwrap_or(default)
    }

    /// The value of `key`; a missing one is a problem.
    pub fn require<T: Value>(&self, key: &str) -> Option<T> {
        let missing = self.table.is_none_or(|table| !table.contains_key(key)) && self.variable(key).is_none();
        let value = self.get(key);
        if missing {
            self.problem(key, "missing; it must be set");
        }
        value
    }

    /// Whether `key` is set, in the file or by a variable.
    pub fn has(&self, key: &str) -> bool {
        self.ask(key).is_some() || self.variable(key).is_some()
    }

    /// Whether the file has a table under `key`.
    pub fn is_table(&self, key: &str) -> bool {
        self.ask(key).is_some_and(toml::Value::is_table)
    }

    /// The table under `key`.
    pub fn section(&self, key: &str) -> Self {
        let table = match self.ask(key) {
            None => None,
            Some(toml::Value::Table(table)) => Some(table),
            Some(other) => {
                self.problem(key, format!("expected a table, found {}", other.type_str()));
                None
            }
        };
        Self { document: self.document, path: join(&self.path, key), table, variables: self.variables }
    }

    /// The same table with its names free: variables do not reach into it. For `[keys]` and its like.
    pub fn free_form(mut self) -> Self {
        self.variables = false;
        self
    }

    /// The names that the file uses in this table, in order.
    pub fn names(&self) -> Vec<String> {
        self.table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
    }

    /// The tables of a `[[key]]` list.
    pub fn tables(&self, key: &str) -> Vec<Self> {
        let items = match self.ask(key) {
            None => return Vec::new(),
            Some(toml::Value::Array(items)) => items,
            Some(other) => {
                self.problem(key, format!("expected [[{key}]] tables, found {}", other.type_str()));
                return Vec::new();
            }
        };
        let path = join(&self.path, key);
        let section = |(n, item): (usize, &'d toml::Value)| {
            let table = item.as_table();
            if table.is_none() {
                self.problem(key, format!("entry {n} is not a table"));
            }
            Self { document: self.document, path: format!("{path}[{n}]"), table, variables: false }
        };
        items.iter().enumerate().map(section).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::value::{Secret, Size, Span};

    fn no_env(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let text = "listen = \"nowhere\"\n[cache]\nmemori = \"1GiB\"\nsize = \"12 bananas\"\n[extra]\na = 1\n";
        let document = Document::parse(text, "edge.toml", &no_env).unwrap();
        let root = document.root();
        assert_eq!(root.require::<SocketAddr>("listen"), None);
        let cache = root.section("cache");
        assert_eq!(cache.get::<Size>("memory"), None);
        assert_eq!(cache.get::<Size>("size"), None);
        assert_eq!(root.section("origin").require::<String>("endpoint"), None);
        let said = document.finish().unwrap_err().to_string();
        for part in [
            "edge.toml: listen: \"nowhere\" is not an address",
            "cache.size: \"12 bananas\" is not a size",
            "origin.endpoint: missing",
            "cache.memori: unknown key; did you mean `memory`?",
            "extra: unknown key",
        ] {
            assert!(said.contains(part), "{part:?} is not in:\n{said}");
        }
        assert_eq!(said.lines().count(), 5);
    }

    #[test]
    fn a_variable_wins_over_the_file_and_is_named_when_wrong() {
        let env = |name: &str| match name {
            "SEGUE_CACHE_MEMORY" => Some("2GiB".to_owned()),
            "SEGUE_CACHE_WAIT" => Some("soon".to_owned()),
            _ => None,
        };
        let document = Document::parse("[cache]\nmemory = \"1GiB\"\n", "f", &env).unwrap();
        let cache = document.root().section("cache");
        assert_eq!(cache.get::<Size>("memory"), Some(Size(2 << 30)));
        assert_eq!(cache.get::<Span>("wait"), None);
        assert!(document.finish().unwrap_err().to_string().contains("from SEGUE_CACHE_WAIT"));
    }

    #[test]
    fn units_are_read_and_overflow_is_refused() {
        assert_eq!(Size::from_text("10GB"), Ok(Size(10_000_000_000)));
        assert_eq!(Size::from_text("512"), Ok(Size(512)));
        assert!(Size::from_text("99999999999TiB").is_err());
        assert_eq!(Span::from_text("500ms"), Ok(Span(Duration::from_millis(500))));
        assert_eq!(Span::from_text("24h"), Ok(Span(Duration::from_secs(86_400))));
        assert!(Span::from_text("6").is_err());
    }

    #[test]
    fn secrets_come_from_files_and_never_show() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2-hunter2\n").unwrap();
        let secret = Secret::from_text(&format!("file:{}", file.path().display())).unwrap();
        assert_eq!(secret.expose(), "hunter2-hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert!(Secret::from_text("file:/dev/zero").unwrap_err().contains("too large for a secret"));
        assert!(Secret::from_text("env:SEGUE_NO_SUCH_VARIABLE").unwrap_err().contains("is not set"));
    }

    #[test]
    fn broken_toml_names_line_and_column() {
        let said = Document::parse("listen = \"a\"\n[origin\n", "edge.toml", &no_env).unwrap_err().to_string();
        assert!(said.starts_with("edge.toml: line 2, column "), "{said}");
    }

    #[test]
    fn what_changed_between_two_readings_is_named() {
        let read = |text| Document::parse(text, "f", &no_env).unwrap();
        let before = read("listen = \"a\"\n[cache]\nmemory = 1\n[keys]\nk1 = \"x\"\n[keys.k2]\nsecret = \"y\"\n");
        let after = read("listen = \"b\"\n[cache]\nmemory = 1\ndisk = 2\n[keys.k2]\nsecret = \"z\"\n");
        assert_eq!(after.changed_since(&before), ["cache.disk", "keys.k1", "keys.k2", "listen"]);
        assert!(before.changed_since(&before).is_empty());
    }

    #[test]
    fn lists_of_tables_are_read_and_checked() {
        let document = Document::parse("[[route]]\nhost = \"a\"\n[[route]]\nhots = \"b\"\n", "f", &no_env).unwrap();
        let hosts: Vec<_> = document.root().tables("route").iter().map(|route| route.get::<String>("host")).collect();
        assert_eq!(hosts, [Some("a".to_owned()), None]);
        assert!(
            document.finish().unwrap_err().to_string().contains("route[1].hots: unknown key; did you mean `host`?")
        );
    }
}
