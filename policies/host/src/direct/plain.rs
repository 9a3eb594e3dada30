//! Which modules run directly: those whose component only lifts and lowers, the way that [`super::Direct`] does.

use wasmparser::{CanonicalFunction, CanonicalOption, Parser, Payload};
use wit_parser::Resolve;

use crate::bare::CONTRACT;

/// The world `access`, with every word of the contract beside: bindings bring those that they know, used or not. A function that
/// `access` does not have is not linked all the same.
const WORLD: &str = "world direct {
    include access;
    import signing;
    use types.{kind, allowance, limit, denial};
    use tickets.{claims, refusal, grant};
    use crypto.{hash, algorithm, key-error};
    use tools.{level};
}";

/// Names of exports that change what `wit-component` makes of a module: its second dialect, allocators of another name or for
/// one direction, and hooks around each call.
const OTHERS: [&str; 5] =
    ["cm32p2", "canonical_abi_realloc", "cabi_import_realloc", "cabi_export_realloc", "__wasm_task_hook"];

/// Whether `module`, an upload of the world `access`, runs the same without the `component` that was made of it. A no costs a
/// policy time, and nothing else.
pub(crate) fn is_plain(module: &[u8], component: &[u8]) -> bool {
    let is_module = Parser::is_core_wasm(module);
    is_module
        && names_are_plain(module) == Some(true)
        && options_are_plain(component) == Some(true)
        && types_are_ours(component)
}

fn names_are_plain(module: &[u8]) -> Option<bool> {
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ExportSection(section) = payload.ok()? {
            for export in section {
                let name = export.ok()?.name;
                if OTHERS.iter().any(|other| name.starts_with(other)) {
                    return Some(false);
                }
            }
        }
    }
    Some(true)
}

/// UTF-8, one memory, nothing asynchronous, no function but those of the contract.
fn options_are_plain(component: &[u8]) -> Option<bool> {
    use CanonicalOption::{Memory, PostReturn, Realloc, UTF8};
    for payload in Parser::new(0).parse_all(component) {
        let Payload::ComponentCanonicalSection(section) = payload.ok()? else { continue };
        for function in section {
            let (CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. }) = function.ok()?
            else {
                return Some(false);
            };
            if !options.iter().all(|option| matches!(option, UTF8 | Memory(_) | Realloc(_) | PostReturn(_))) {
                return Some(false);
            }
        }
    }
    Some(true)
}

/// A module may bring a description of its own, in which a function of the same core type means something else.
fn types_are_ours(component: &[u8]) -> bool {
    let conforms = || {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("segue-policy.wit", &format!("{CONTRACT}{WORLD}")).ok()?;
        let world = resolve.select_world(&[package], Some("direct")).ok()?;
        wit_component::targets(&resolve, world, component).ok()
    };
    conforms().is_some()
}
