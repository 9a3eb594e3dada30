//! `segue policy new`: a folder with a policy that builds on its own. The kit and the contract come along, out of this program:
//! nothing of Segue's is downloaded.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::project::Language;
use crate::cli::say;

#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// The folder to make; its last part is the policy's name
    folder: PathBuf,
    /// What it is written in
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
    /// What it is for: rules (access), or somebody else's signed URLs (ticket-scheme)
    #[arg(long, value_enum, default_value_t = World::Access)]
    world: World,
    /// Answer with one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum World {
    Access,
    TicketScheme,
}

const WIT: &str = include_str!("../../policies/wit/segue-policy.wit");
const IGNORE: &str = "/target/\n/node_modules/\n*.wasm\n";
/// Stands for the policy's name.
const NAME: &str = "policy-name";

/// A file of the project: where it lies, and what is in it.
type File = (&'static str, String);

pub(super) fn run(args: &NewArgs) -> anyhow::Result<ExitCode> {
    let name = args.folder.file_name().and_then(|name| name.to_str()).context("the folder needs a name")?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    ensure!(
        name.len() <= 64 && name.bytes().all(plain) && name.starts_with(|first: char| first.is_ascii_lowercase()),
        "a policy is named with 1 to 64 of a-z 0-9 - and begins with a letter, not {name:?}"
    );
    ensure!(!args.folder.exists(), "{} is there already", args.folder.display());
    let files = files(args.lang, args.world)?;
    for (place, content) in &files {
        write(&args.folder.join(place), &content.replace(NAME, name))?;
    }
    let folder = args.folder.display();
    if args.json {
        let files: Vec<&str> = files.iter().map(|(place, _)| *place).collect();
        say(json!({ "name": name, "folder": args.folder, "files": files }))?;
    } else {
        say(format_args!("{folder}: {} files, the rule is in {}", files.len(), files[0].0))?;
        say(format_args!("next: segue policy build {folder} && segue policy test {folder}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write(file: &Path, content: &str) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    std::fs::write(file, content).with_context(|| format!("cannot write {}", file.display()))
}

/// The rule's own file first.
fn files(language: Language, world: World) -> anyhow::Result<Vec<File>> {
    let vectors = match (language, world) {
        (Language::C, _) => include_str!("template/access-c.json"),
        (_, World::Access) => include_str!("template/access.json"),
        (_, World::TicketScheme) => include_str!("template/scheme.json"),
    };
    let mut files: Vec<File> = match (language, world) {
        (Language::Rust, World::Access) => rust(include_str!("template/access.rs")),
        (Language::Rust, World::TicketScheme) => rust(include_str!("template/scheme.rs")),
        (Language::Js, World::Access) => js(include_str!("template/access.js"), "access"),
        (Language::Js, World::TicketScheme) => js(include_str!("template/scheme.js"), "ticket-scheme"),
        (Language::C, World::Access) => vec![
            ("policy.c", include_str!("template/access.c").to_owned()),
            ("segue_policy.h", include_str!("../../policies/kit-c/segue_policy.h").to_owned()),
        ],
        (Language::C, World::TicketScheme) => {
            bail!("the header for C speaks the world access alone; write a ticket scheme with --lang rust or js")
        }
    };
    files.extend([
        ("vectors.json", vectors.to_owned()),
        ("wit/segue-policy.wit", WIT.to_owned()),
        (".gitignore", IGNORE.to_owned()),
    ]);
    Ok(files)
}

fn rust(source: &str) -> Vec<File> {
    let ours = include_str!("../../policies/Cargo.toml");
    // What the ready-made policies share is what this one needs: versions, the kit's place, the profile.
    let shared = ours.find("[workspace.package]").map_or("", |at| &ours[at..]);
    vec![
        ("src/lib.rs", source.to_owned()),
        ("Cargo.toml", format!("{}\n{shared}", include_str!("template/Cargo.toml"))),
        // Of the versions that the ready-made policies are built with; cargo leaves out what is not needed.
        ("Cargo.lock", include_str!("../../policies/Cargo.lock").to_owned()),
        ("kit/Cargo.toml", include_str!("../../policies/kit/Cargo.toml").to_owned()),
        ("kit/src/lib.rs", include_str!("../../policies/kit/src/lib.rs").to_owned()),
        ("kit/src/text.rs", include_str!("../../policies/kit/src/text.rs").to_owned()),
    ]
}

fn js(source: &str, world: &str) -> Vec<File> {
    let build =
        include_str!("../../policies/country-js/build.mjs").replace("world: 'access'", &format!("world: '{world}'"));
    let ours = |text: &str| text.replace("policy-country-js", &format!("policy-{NAME}"));
    vec![
        ("policy.js", source.to_owned()),
        ("build.mjs", build),
        ("package.json", ours(include_str!("../../policies/country-js/package.json"))),
        ("package-lock.json", ours(include_str!("../../policies/country-js/package-lock.json"))),
        (".npmrc", include_str!("../../policies/country-js/.npmrc").to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_whole_and_bears_the_name() {
        for language in [Language::Rust, Language::Js, Language::C] {
            for world in [World::Access, World::TicketScheme] {
                let Ok(files) = files(language, world) else {
                    assert_eq!((language, world), (Language::C, World::TicketScheme));
                    continue;
                };
                let read = |place: &str| files.iter().find(|file| file.0 == place).map(|file| file.1.as_str());
                assert_eq!(read("wit/segue-policy.wit"), Some(WIT));
                let vectors: serde_json::Value = serde_json::from_str(read("vectors.json").unwrap()).unwrap();
                assert!(vectors["vectors"].as_array().unwrap().len() >= 4);
                match language {
                    Language::Rust => {
                        let manifest: toml::Table = read("Cargo.toml").unwrap().parse().unwrap();
                        assert_eq!(manifest["package"]["name"].as_str(), Some("policy-policy-name"));
                        assert!(manifest["workspace"]["dependencies"]["segue-policy"].get("path").is_some());
                    }
                    Language::Js => {
                        let lock: serde_json::Value = serde_json::from_str(read("package-lock.json").unwrap()).unwrap();
                        assert_eq!(lock["packages"][""]["name"], "policy-policy-name");
                        let name = world.to_possible_value().unwrap();
                        assert!(read("build.mjs").unwrap().contains(&format!("world: '{}'", name.get_name())));
                    }
                    Language::C => assert!(read("policy.c").unwrap().contains("SEGUE_POLICY")),
                }
            }
        }
    }
}
