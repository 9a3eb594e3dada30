//! What can be said of an uploaded file without compiling it.
//!
//! Invariants: the file is hostile until proven otherwise: size first, then form, then imports; whatever panics in a
//! parser is an answer, not an accident.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use wasmparser::{ComponentExternalKind, ComponentTypeRef, Parser, Payload, TypeBounds, Validator, WasmFeatures};
use wit_component::ComponentEncoder;

use crate::bare;
use crate::contract::{INTERFACES, PACKAGE, VERSION};
use crate::failure::Refused;

/// What a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// Judges requests.
    Access,
    /// Verifies and makes somebody else's tickets.
    TicketScheme,
}

impl World {
    /// Its name in the contract.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::TicketScheme => "ticket-scheme",
        }
    }

    const fn exports(self) -> &'static [&'static str] {
        match self {
            Self::Access => &["configure", "authorize"],
            Self::TicketScheme => &["configure", "verify", "sign"],
        }
    }
}

/// A file that may become a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// SHA-256 of the file as it was uploaded, in hex: the version's name.
    pub digest: String,
    /// What it is for.
    pub world: World,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// Bytes of the file.
    pub size: usize,
}

/// Checks `bytes`, and returns the component in them: a core module is made one.
pub(crate) fn check(bytes: &[u8], bound: usize) -> Result<(Checked, Vec<u8>), Refused> {
    if bytes.len() > bound {
        return Err(Refused::TooLarge { size: bytes.len(), bound });
    }
    // Of a panic in a parser only the file is to blame; nothing of ours is left half done.
    let component = contained(|| component(bytes)).map_err(Refused::Invalid)??;
    let (imports, exports) = contained(|| names(&component)).map_err(Refused::Invalid)??;
    imports.iter().try_for_each(|import| allowed(import))?;
    let world = world(&exports)?;
    let digest = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((Checked { digest, world, imports, size: bytes.len() }, component))
}

/// Runs what reads hostile bytes.
pub(crate) fn contained<R>(read: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(read)).map_err(|panic| {
        let text =
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|&s| s.to_owned()));
        format!("the reader gave up: {}", text.unwrap_or_default())
    })
}

fn component(bytes: &[u8]) -> Result<Vec<u8>, Refused> {
    if Parser::is_component(bytes) {
        validate(bytes)?;
        return Ok(bytes.to_vec());
    }
    if !Parser::is_core_wasm(bytes) {
        return Err(Refused::NotWasm);
    }
    validate(bytes)?;
    for payload in Parser::new(0).parse_all(bytes) {
        let Payload::ImportSection(section) = payload.map_err(|error| invalid(&error))? else { continue };
        for import in section.into_imports() {
            let import = import.map_err(|error| invalid(&error))?;
            if !import.module.starts_with(PACKAGE) && !import.module.starts_with("[export]") && import.module != "$root"
            {
                return Err(Refused::Import(format!("{} {}", import.module, import.name)));
            }
        }
    }
    let described = bare::described(bytes)?;
    let mut encoder = ComponentEncoder::default();
    encoder.module(&described).and_then(|encoder| encoder.validate(false).encode()).map_err(|error| {
        Refused::Contract(format!("{error:#} (was it built with bindings made from segue-policy.wit?)"))
    })
}

fn validate(bytes: &[u8]) -> Result<(), Refused> {
    let mut features = WasmFeatures::default();
    features.remove(WasmFeatures::MEMORY64 | WasmFeatures::THREADS | WasmFeatures::EXCEPTIONS | WasmFeatures::GC);
    Validator::new_with_features(features).validate_all(bytes).map(drop).map_err(|error| invalid(&error))
}

pub(crate) fn invalid(error: &wasmparser::BinaryReaderError) -> Refused {
    Refused::Invalid(error.to_string())
}

/// Names of what the outermost component imports, and of the functions that it exports.
fn names(component: &[u8]) -> Result<(Vec<String>, Vec<String>), Refused> {
    let (mut imports, mut exports, mut depth) = (Vec::new(), Vec::new(), 0_usize);
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|error| invalid(&error))? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(|error| invalid(&error))?;
                    // A name for a type that is already known: the world's own `use`. It gives no power.
                    if !matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                        imports.push(import.name.name.to_owned());
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(|error| invalid(&error))?;
                    if export.kind == ComponentExternalKind::Func {
                        exports.push(export.name.name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

fn allowed(import: &str) -> Result<(), Refused> {
    let Some(interface) = import.strip_prefix(PACKAGE) else { return Err(Refused::Import(import.to_owned())) };
    let (name, version) = interface.split_once('@').unwrap_or((interface, ""));
    if !INTERFACES.contains(&name) {
        return Err(Refused::Import(import.to_owned()));
    }
    if version == VERSION { Ok(()) } else { Err(Refused::Version(import.to_owned())) }
}

/// The world whose functions are all there. A policy is for one thing; where it could be both, it judges requests.
pub(crate) fn world(exports: &[String]) -> Result<World, Refused> {
    let has = |name: &str| exports.iter().any(|export| export == name);
    let scheme = has("verify") || has("sign");
    let world = if scheme && !has("authorize") { World::TicketScheme } else { World::Access };
    match world.exports().iter().find(|name| !has(name)) {
        Some(missing) => Err(Refused::Export { world: world.name(), missing }),
        None => Ok(world),
    }
}
