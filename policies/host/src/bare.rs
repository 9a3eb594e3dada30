//! Core modules that say nothing of the contract, as any compiler for wasm32 makes them: by their exports they are told
//! which world they are for, and the world's description is put in.

use wasmparser::{ExternalKind, Parser, Payload};
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::check::{World, invalid, world};
use crate::failure::Refused;

/// The contract itself.
pub(crate) const CONTRACT: &str = include_str!("../../wit/segue-policy.wit");

/// The module with a description: its own, where bindings that were generated brought one.
pub(crate) fn described(module: &[u8]) -> Result<Vec<u8>, Refused> {
    let mut exports = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(|error| invalid(&error))? {
            Payload::CustomSection(section) if section.name().starts_with("component-type") => {
                return Ok(module.to_vec());
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(|error| invalid(&error))?;
                    if export.kind == ExternalKind::Func {
                        exports.push(export.name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    described_as(module, world(&exports)?).map_err(Refused::Host)
}

fn described_as(module: &[u8], world: World) -> Result<Vec<u8>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("the contract cannot be read: {error:#}");
    let mut resolve = Resolve::default();
    let package = resolve.push_str("segue-policy.wit", CONTRACT).map_err(|error| failed(&error))?;
    let world = resolve.select_world(&[package], Some(world.name())).map_err(|error| failed(&error))?;
    let mut module = module.to_vec();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).map_err(|error| failed(&error))?;
    Ok(module)
}
