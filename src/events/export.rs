//! `segue events export`: a day in a file, which is there whole or not at all.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use segue_control_plane::export::{ParquetFile, Table};

use super::kept::Lines;
use super::{DAY_MS, Export, Format, Kind};
use crate::cli::say;
use crate::client::Control;

impl Kind {
    fn table(self) -> Table {
        match self {
            Self::Facts => Table::Facts,
            Self::Denials => Table::Denials,
            Self::Plays => Table::Plays,
        }
    }
}

pub(super) async fn run(control: &Control, wanted: Export, json: bool) -> anyhow::Result<ExitCode> {
    let table = wanted.kind.table();
    let (from, to) = (wanted.day.0, wanted.day.0 + DAY_MS);
    let lines = Lines::open(control, &format!("kind={}&from={from}&to={to}", table.word())).await?;
    let counted = lines.counted;
    let meter = meter(counted);
    let partial = Partial::beside(&wanted.out)?;
    let mut sink = Sink::new(partial.create()?, wanted.format, table)?;
    let mut rows = 0_u64;
    lines
        .read(|line| {
            sink.push(line)?;
            rows += 1;
            meter.inc(1);
            Ok(ControlFlow::Continue(()))
        })
        .await?;
    sink.finish()?;
    partial.keep(&wanted.out)?;
    meter.finish_and_clear();
    let out = wanted.out.display().to_string();
    if json {
        say(serde_json::json!({ "file": out, "kind": table.word(), "rows": rows, "counted": counted }))?;
    } else {
        say(format_args!("{out}: {rows} {}", table.word()))?;
    }
    if let Some(counted) = counted.filter(|counted| *counted > rows) {
        eprintln!(
            "segue: {counted} {} were counted on that day, and {rows} of them are kept; the rest had gone by age or for want of room ([facts])",
            table.word()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// A bar for people at a terminal; nothing elsewhere.
fn meter(counted: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let meter = ProgressBar::new(counted.unwrap_or(0));
    let style = ProgressStyle::with_template("{bar:32} {human_pos} of {human_len} rows  {per_sec}  {eta}");
    // The template is a constant: where it were wrong, indicatif's own bar would do.
    meter.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    meter
}

/// The file under its working name; removed again unless it is kept.
struct Partial(PathBuf);

impl Partial {
    fn beside(out: &Path) -> anyhow::Result<Self> {
        let mut name =
            out.file_name().map(OsString::from).with_context(|| format!("{} names no file", out.display()))?;
        name.push(format!(".{}.part", std::process::id()));
        Ok(Self(out.with_file_name(name)))
    }

    fn create(&self) -> anyhow::Result<File> {
        File::create(&self.0).with_context(|| format!("cannot write {}", self.0.display()))
    }

    fn keep(&self, out: &Path) -> anyhow::Result<()> {
        std::fs::rename(&self.0, out).with_context(|| format!("cannot write {}", out.display()))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already where it was kept.
        let _ = std::fs::remove_file(&self.0);
    }
}

enum Sink {
    Ndjson(BufWriter<File>),
    Parquet(Box<ParquetFile<BufWriter<File>>>),
}

impl Sink {
    fn new(file: File, format: Format, table: Table) -> anyhow::Result<Self> {
        let file = BufWriter::new(file);
        Ok(match format {
            Format::Ndjson => Self::Ndjson(file),
            Format::Parquet => Self::Parquet(Box::new(ParquetFile::new(file, table)?)),
        })
    }

    fn push(&mut self, line: &str) -> anyhow::Result<()> {
        match self {
            Self::Ndjson(file) => Ok(writeln!(file, "{line}")?),
            Self::Parquet(file) => Ok(file.push(line)?),
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        let file = match self {
            Self::Ndjson(file) => file,
            Self::Parquet(file) => file.finish()?.1,
        };
        let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        Ok(file.sync_all()?)
    }
}
