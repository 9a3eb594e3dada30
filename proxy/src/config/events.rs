//! What becomes of facts and denials (`[events]`).

use std::path::{Path, PathBuf};

use segue_config::{Section, Size};
use segue_events::{FluvioConfig, LogOptions};

/// The least room for facts: two files of the log.
const MAX_LEAST: u64 = 16 << 20;

/// Where facts and denials go.
#[derive(Debug, Clone)]
pub struct EventsConfig {
    /// The folder of the local log (`dir`); nothing is written down where `None`.
    pub dir: Option<PathBuf>,
    /// Bytes of facts that may wait there (`max`); beyond that the newest are dropped, and counted.
    pub max: u64,
    /// Where they go from there (`kind`).
    pub sink: EventsSink,
}

/// A sink, by its `kind`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventsSink {
    /// Nowhere (`none`, or `embedded`, where they stay in the log up to its bound).
    None,
    /// To the control plane of `[control]` (`control`).
    Control,
    /// To Fluvio (`fluvio`).
    Fluvio(FluvioConfig),
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self { dir: None, max: LogOptions::default().facts.bytes, sink: EventsSink::None }
    }
}

impl EventsConfig {
    /// The bounds of the local log.
    #[must_use]
    pub fn options(&self) -> LogOptions {
        let mut options = LogOptions::default();
        options.facts.bytes = self.max;
        options.facts.retain = options.facts.retain.min(self.max / 2);
        options
    }

    /// The folder of the local log, if there is to be one.
    #[must_use]
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    pub(super) fn read(section: &Section<'_>, has_control: bool) -> Self {
        let kind: String = section.or("kind", "none".to_owned());
        let mut read = Self { dir: section.get("dir"), ..Self::default() };
        read.max = section.or("max", Size(read.max)).0;
        if read.max < MAX_LEAST {
            section.problem("max", "must be at least \"16MiB\", two files of the log");
        }
        match kind.as_str() {
            "none" => {
                if read.dir.take().is_some() {
                    section.problem("dir", "set, but `kind` is \"none\"; say what is to become of the facts");
                }
                return read;
            }
            "embedded" => {}
            "control" => {
                if !has_control {
                    let said = "\"control\" hands facts to the control plane, and there is no [control] url";
                    section.problem("kind", said);
                }
                read.sink = EventsSink::Control;
            }
            "fluvio" => read.sink = EventsSink::Fluvio(FluvioConfig::read(section)),
            other => {
                let kinds = "\"fluvio\", \"control\", \"embedded\" and \"none\"";
                section.problem("kind", format!("{other:?} is none of {kinds}"));
                return read;
            }
        }
        if read.dir.is_none() && !section.has("dir") {
            section.problem("dir", "missing; it names the folder for the facts");
        }
        read
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use segue_config::Document;

    use super::*;

    fn read(text: &str, has_control: bool) -> (EventsConfig, String) {
        let document = Document::parse(text, "edge.toml", &|_| None).unwrap();
        let config = EventsConfig::read(&document.root().section("events"), has_control);
        (config, document.finish().err().map(|problems| problems.to_string()).unwrap_or_default())
    }

    #[test]
    fn each_kind_says_what_it_needs() {
        let (none, problems) = read("", false);
        assert_eq!((none.dir, none.sink, problems.as_str()), (None, EventsSink::None, ""));
        let (kept, problems) = read("[events]\nkind = \"embedded\"\ndir = \"/f\"\nmax = \"64MiB\"\n", false);
        assert_eq!((kept.options().facts.bytes, kept.options().facts.retain), (64 << 20, 32 << 20));
        assert_eq!((kept.dir(), problems.as_str()), (Some(Path::new("/f")), ""));
        assert_eq!(kept.sink, EventsSink::None);
        let fluvio = "[events]\nkind = \"fluvio\"\ndir = \"/f\"\nendpoint = \"f:9003\"\n";
        assert_eq!(read(fluvio, false).0.sink, EventsSink::Fluvio(FluvioConfig::new("f:9003")));
        for (text, said) in [
            ("[events]\nkind = \"control\"\ndir = \"/f\"\n", "events.kind: \"control\" hands facts"),
            ("[events]\nkind = \"control\"\n", "events.dir: missing"),
            ("[events]\ndir = \"/f\"\n", "events.dir: set, but `kind` is \"none\""),
            ("[events]\nkind = \"kafka\"\n", "events.kind: \"kafka\" is none of"),
            ("[events]\nkind = \"fluvio\"\ndir = \"/f\"\n", "events.endpoint: missing"),
            ("[events]\nkind = \"embedded\"\ndir = \"/f\"\nmax = \"1MiB\"\n", "events.max:"),
            ("[events]\nkind = \"embedded\"\ndir = \"/f\"\nendpoint = \"f:1\"\n", "events.endpoint: unknown key"),
        ] {
            let (_, problems) = read(text, false);
            assert!(problems.contains(said), "{said:?} is not in\n{problems}");
        }
        assert_eq!(read("[events]\nkind = \"control\"\ndir = \"/f\"\n", true).1, "");
    }
}
