//! `segue policy diff`: what a shadow would have said otherwise, in words.

use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::remote::{ago, count, name};
use crate::cli::{ControlArgs, say};
use crate::client::Control;

/// Examples of a difference that are shown.
const EXAMPLES: usize = 3;

#[derive(Debug, Args)]
#[command(
    after_help = "Status 0 where both say the same, 2 where they differ or nothing was asked yet; with --json always 0."
)]
pub(crate) struct DiffArgs {
    /// The policy's name
    #[arg(value_parser = name)]
    name: String,
    /// The shadow [default: the one that is tried, or was last]
    #[arg(value_parser = name)]
    shadow: Option<String>,
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(Debug, Deserialize)]
struct Diff {
    shadow: String,
    active: Option<String>,
    running: bool,
    since_ms: Option<u64>,
    requests: i64,
    differ: i64,
    newly_denied: i64,
    newly_allowed: i64,
    would_fail: i64,
    pairs: Vec<Pair>,
    latency: Latency,
}

#[derive(Debug, Deserialize)]
struct Latency {
    active_ns: Option<i64>,
    shadow_ns: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Pair {
    said: String,
    would: String,
    effect: String,
    count: i64,
    examples: Vec<Example>,
}

#[derive(Debug, Deserialize)]
struct Example {
    ts: u64,
    path: String,
    country: Option<String>,
    session: String,
}

pub(super) async fn run(args: DiffArgs) -> anyhow::Result<ExitCode> {
    let control = Control::find(&args.control)?;
    let shadow = args.shadow.map(|shadow| format!("?shadow={shadow}")).unwrap_or_default();
    let answer: Value = control.get(&format!("/v1/policies/{}/diff{shadow}", args.name)).await?;
    if args.control.json {
        say(answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let diff: Diff = serde_json::from_value(answer)?;
    for line in diff.lines(&args.name) {
        say(line)?;
    }
    let same = diff.requests > 0 && diff.differ == 0;
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

impl Diff {
    fn lines(&self, name: &str) -> Vec<String> {
        let beside = self.active.as_deref().unwrap_or("no version");
        let since = self.since_ms.map(|since| format!(", since {}", ago(since))).unwrap_or_default();
        let over = if self.running { "" } else { " (this trial is over)" };
        let mut lines = vec![format!("{name}: {} as shadow beside {beside}{since}{over}", self.shadow)];
        if self.requests == 0 {
            lines.push("  nothing was asked yet; edges report every few seconds".to_owned());
            return lines;
        }
        let of = |what: &str, number: i64| {
            let share = number as f64 / self.requests as f64 * 100.0;
            format!("  would {what} {} of {} requests ({share:.1} %)", count(number), count(self.requests))
        };
        if self.differ == 0 {
            lines.push(format!("  says the same about all {} requests", count(self.requests)));
        }
        for (effect, what, number) in [
            ("newly-denied", "newly deny", self.newly_denied),
            ("newly-allowed", "newly allow", self.newly_allowed),
            ("would-fail", "fail at", self.would_fail),
            (
                "otherwise",
                "say otherwise about",
                self.differ - self.newly_denied - self.newly_allowed - self.would_fail,
            ),
        ] {
            if number > 0 {
                lines.push(of(what, number));
                self.pairs.iter().filter(|pair| pair.effect == effect).for_each(|pair| pair.lines(&mut lines));
            }
        }
        lines.push(format!(
            "  a call takes {} ({beside}: {})",
            time(self.latency.shadow_ns),
            time(self.latency.active_ns)
        ));
        lines
    }
}

impl Pair {
    fn lines(&self, lines: &mut Vec<String>) {
        let (said, would) = (words(&self.said), words(&self.would));
        lines.push(format!("    {:>9}  {would}, where {said} is said", count(self.count)));
        for example in self.examples.iter().take(EXAMPLES) {
            let country = example.country.as_deref().map(|country| format!(" from {country}")).unwrap_or_default();
            let (path, session) = (&example.path, &example.session);
            lines.push(format!("               {path}{country}, session {session}, {}", ago(example.ts)));
        }
    }
}

/// `deny:too-early` is `too-early (deny)`.
fn words(verdict: &str) -> String {
    match verdict.split_once(':') {
        Some((verdict, reason)) => format!("{reason} ({verdict})"),
        None => verdict.to_owned(),
    }
}

fn time(ns: Option<i64>) -> String {
    match ns {
        None => "-".to_owned(),
        Some(ns) if ns < 10_000 => format!("{:.2} us", ns as f64 / 1e3),
        Some(ns) if ns < 1_000_000 => format!("{:.0} us", ns as f64 / 1e3),
        Some(ns) => format!("{:.1} ms", ns as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_diff_is_told_in_words() {
        let pair = |said: &str, would: &str, effect: &str, count: i64, examples: Value| json!({ "said": said, "would": would, "effect": effect, "count": count, "examples": examples });
        let example = json!([{ "ts": 0, "path": "/hls/t/1.m4s", "country": "FR", "session": "ab12" }]);
        let diff: Diff = serde_json::from_value(json!({
            "shadow": "7", "active": "6", "running": true, "since_ms": null, "requests": 10_400, "differ": 132,
            "newly_denied": 132, "newly_allowed": 0, "would_fail": 0, "latency": { "active_ns": 510, "shadow_ns": 12_400 },
            "pairs": [pair("allow", "allow", "same", 10_268, json!([])), pair("allow", "deny:too-early", "newly-denied", 132, example)],
        }))
        .unwrap();
        let lines = diff.lines("evening");
        assert_eq!(lines[1], "  would newly deny 132 of 10,400 requests (1.3 %)");
        assert_eq!(lines[2], "          132  too-early (deny), where allow is said");
        assert!(lines[3].contains("/hls/t/1.m4s from FR, session ab12"), "{lines:?}");
        assert_eq!(lines[4], "  a call takes 12 us (6: 0.51 us)");
    }
}
