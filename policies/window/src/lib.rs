//! Opens and closes tracks by the clock: embargoes until a release, windows of a licence.
//!
//! Configuration: `from` and `until`, in seconds since 1970, for all tracks; `[tracks.<track>] from, until` for one; a
//! track's name that ends in `*` stands for all that start so. The most exact name counts. `table = "embargo"` looks a track
//! up in a table of the operator's, whose values are `from` or `from until`, and which goes before all of these; a value that is
//! neither keeps the track closed, and says so in the log.

use std::collections::BTreeMap;

use segue_policy::access::{Access, Denial, Fields, Moment, Verdict, deny, tools};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Windows {
    from: Option<u64>,
    until: Option<u64>,
    #[serde(default)]
    tracks: BTreeMap<String, Window>,
    table: Option<String>,
}

#[derive(serde::Deserialize, Clone, Copy, Default)]
#[serde(deny_unknown_fields)]
struct Window {
    from: Option<u64>,
    until: Option<u64>,
}

impl Windows {
    /// `None` where the table's row is none: what was to be closed must not open by a slip of the pen.
    fn of(&self, track: &str) -> Option<Window> {
        if let Some(row) = self.table.as_ref().and_then(|table| tools::lookup(table, track)) {
            let times = row.split_whitespace().map(|time| time.parse().ok()).collect::<Option<Vec<u64>>>()?;
            return match times.as_slice() {
                &[from] => Some(Window { from: Some(from), until: None }),
                &[from, until] => Some(Window { from: Some(from), until: Some(until) }),
                _ => None,
            };
        }
        if let Some(window) = self.tracks.get(track) {
            return Some(*window);
        }
        let patterns = self.tracks.iter().filter_map(|(name, window)| Some((name.strip_suffix('*')?, window)));
        let longest = patterns.filter(|(start, _)| track.starts_with(start)).max_by_key(|(start, _)| start.len());
        Some(longest.map_or(Window { from: self.from, until: self.until }, |(_, window)| *window))
    }
}

impl Access for Windows {
    const FIELDS: &[&str] = &["track"];

    fn prepare(self) -> Result<Self, String> {
        let all = self.tracks.values().copied().chain([Window { from: self.from, until: self.until }]);
        for window in all {
            if let (Some(from), Some(until)) = (window.from, window.until)
                && from >= until
            {
                return Err(format!("a window from {from} until {until} is never open"));
            }
        }
        Ok(self)
    }

    fn authorize(&self, moment: &Moment, fields: &Fields) -> Verdict {
        let now = moment.now_ms / 1000;
        let track = fields.get(0).unwrap_or_default();
        let Some(window) = self.of(track) else {
            tools::log(tools::Level::Error, &format!("the row of {track} is neither `from` nor `from until`"));
            return deny(403, "embargo");
        };
        match window {
            Window { from: Some(from), .. } if now < from => Verdict::Deny(Denial {
                status: 403,
                reason: "embargo".to_owned(),
                redirect: None,
                headers: vec![("Retry-After".to_owned(), (from - now).to_string())],
            }),
            Window { until: Some(until), .. } if now >= until => deny(410, "window-closed"),
            _ => Verdict::Abstain,
        }
    }
}

segue_policy::access!(Windows);
segue_policy::vectors!("../vectors.json");
