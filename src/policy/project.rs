//! A folder with a policy: what it is written in, what it is called, where things lie.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;

/// What policies are written in here. Any other language that makes components or core modules does as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    Rust,
    Js,
    C,
}

pub(super) struct Project {
    pub(super) folder: PathBuf,
    pub(super) name: String,
    pub(super) language: Language,
}

impl Project {
    /// Finds out what lies in `folder`.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.canonicalize().with_context(|| format!("{} is no folder", folder.display()))?;
        let has = |file: &str| folder.join(file).is_file();
        let language = match () {
            () if has("Cargo.toml") => Language::Rust,
            () if has("build.mjs") => Language::Js,
            () if has("policy.c") => Language::C,
            () => bail!(
                "{} holds no policy: neither Cargo.toml nor build.mjs nor policy.c (`segue policy new NAME` makes one)",
                folder.display()
            ),
        };
        let name = folder.file_name().and_then(|name| name.to_str()).context("the folder has no name")?.to_owned();
        Ok(Self { folder, name, language })
    }

    /// Where the built policy lies: under the name by which an edge will know it.
    pub(super) fn wasm(&self) -> PathBuf {
        self.folder.join(format!("{}.wasm", self.name))
    }

    pub(super) fn vectors(&self) -> PathBuf {
        self.folder.join("vectors.json")
    }
}
