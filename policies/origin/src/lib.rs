//! Plays on the operator's own pages only: holds `Origin`, or else `Referer`, against a list of hosts.
//!
//! A lock for browsers, which send these headers truthfully; a program can send what it likes, so it is no replacement for tickets.
//!
//! Configuration: `hosts = ["example.com", "*.example.com"]`; `missing = "allow"` (the default: apps send neither
//! header) or `"deny"`.

use segue_policy::access::{Access, Fields, Moment, Verdict, deny};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Lock {
    hosts: Vec<String>,
    #[serde(default)]
    missing: Missing,
}

#[derive(serde::Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Missing {
    #[default]
    Allow,
    Deny,
}

/// The host of an origin or a URL, in lower case: what stands between `://` and the port, path, query or end. `None` for
/// `null` (a page without an origin) and for what is no URL.
fn host(url: &str) -> Option<String> {
    let authority = url.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let end = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    Some(host[..end].to_ascii_lowercase())
}

impl Lock {
    fn knows(&self, host: &str) -> bool {
        self.hosts.iter().any(|known| match known.strip_prefix('*') {
            // The dot is part of the suffix, so `*.example.com` is not `notexample.com`.
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == known,
        })
    }
}

impl Access for Lock {
    const FIELDS: &[&str] = &["header:origin", "header:referer"];

    fn prepare(mut self) -> Result<Self, String> {
        self.hosts.iter_mut().for_each(|host| host.make_ascii_lowercase());
        let is_odd = |host: &&String| {
            host.is_empty() || host.contains(['/', ':']) || host.trim_start_matches("*.").contains('*')
        };
        match self.hosts.iter().find(is_odd) {
            _ if self.hosts.is_empty() => Err("`hosts` is empty: nobody could play".to_owned()),
            Some(host) => Err(format!("{host:?} is no host; write \"example.com\" or \"*.example.com\"")),
            None => Ok(self),
        }
    }

    fn authorize(&self, _: &Moment, fields: &Fields) -> Verdict {
        let welcome = match fields.get(0).or(fields.get(1)) {
            None => self.missing == Missing::Allow,
            Some(url) => host(url).is_some_and(|host| self.knows(&host)),
        };
        if welcome { Verdict::Abstain } else { deny(403, "origin") }
    }
}

segue_policy::access!(Lock);
segue_policy::vectors!("../vectors.json");
