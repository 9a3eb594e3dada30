//! Reading what the control plane keeps: as a stream of lines, and `tail --from` on it.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use serde_json::Value;

use super::{Begin, Printer, Tail, Topic};
use crate::client::Control;

/// Between two looks at what has come.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A line longer than this is not one of ours.
const LINE_MAX: usize = 64 * 1024;

/// An answer of `GET /v1/facts`.
pub(super) struct Lines {
    /// How many the tally counted, where that is known.
    pub(super) counted: Option<u64>,
    /// The number to go on from.
    next: Option<u64>,
    response: reqwest::Response,
}

impl Lines {
    pub(super) async fn open(control: &Control, query: &str) -> anyhow::Result<Self> {
        let response = control.stream(&format!("/v1/facts?{query}")).await?;
        let number = |name: &str| response.headers().get(name)?.to_str().ok()?.parse().ok();
        Ok(Self { counted: number("segue-counted"), next: number("segue-next"), response })
    }

    /// Calls `each` for every line until it says stop. An answer that breaks off is an error.
    pub(super) async fn read(
        self,
        mut each: impl FnMut(&str) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<()> {
        let mut stream = self.response.bytes_stream();
        let mut pending = Vec::new();
        while let Some(bytes) = stream.next().await {
            pending.extend_from_slice(&bytes.context("the control plane broke the answer off; its log has the cause")?);
            let mut from = 0;
            while let Some(end) = pending[from..].iter().position(|byte| *byte == b'\n') {
                let line = std::str::from_utf8(&pending[from..from + end]).context("a line is not UTF-8")?;
                from += end + 1;
                if each(line)?.is_break() {
                    return Ok(());
                }
            }
            pending.drain(..from);
            if pending.len() > LINE_MAX {
                bail!("the control plane sent a line of more than {LINE_MAX} bytes");
            }
        }
        if !pending.is_empty() {
            bail!("the last line is not whole");
        }
        Ok(())
    }
}

/// Prints what is kept, and with `--follow` what comes after it, each once.
pub(super) async fn tail(control: &Control, tail: Tail, json: bool) -> anyhow::Result<ExitCode> {
    let (topic, name) = match tail.topics.as_slice() {
        [] | [Topic::Facts] => ("facts", "fact"),
        [Topic::Denials] => ("denials", "denial"),
        _ => bail!("--from reads one log: --topic facts or --topic denials"),
    };
    let mut printer = Printer::new(&tail, json);
    // The control plane reads less where it knows the track.
    let track = tail.filters.iter().find(|filter| filter.field == "track").map(|filter| filter.value.as_str());
    let track = track.map_or_else(String::new, |track| {
        format!("&{}", url::form_urlencoded::Serializer::new(String::new()).append_pair("track", track).finish())
    });
    let mut from = match tail.from {
        Some(Begin::Position(position)) => format!("position={position}"),
        Some(Begin::Time(at)) => format!("from={}", at.saturating_mul(1000)),
        None => "position=0".to_owned(),
    };
    loop {
        let lines = Lines::open(control, &format!("kind={topic}&{from}{track}")).await?;
        let next = lines.next.context("the control plane does not say where to go on")?;
        lines.read(|line| printer.print(name, &serde_json::from_str::<Value>(line)?)).await?;
        if printer.left == Some(0) {
            return Ok(ExitCode::SUCCESS);
        }
        if !tail.follow {
            eprintln!("segue: go on with --from {next}");
            return Ok(ExitCode::SUCCESS);
        }
        from = format!("position={next}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
