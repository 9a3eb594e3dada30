//! Policies written by hand in WebAssembly text, which do what no compiler would let them.

use std::path::Path;

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Where a handwritten policy has an answer to `configure` that asks for no fields.
pub const FINE: &str = "(i32.const 64)";
/// Where it has the verdict `abstain`.
pub const ABSTAIN: &str = "(i32.const 128)";
/// Where it has a verdict of its own, by `data`.
pub const OWN: &str = "(i32.const 256)";
/// Never ends.
pub const LOOP: &str = "(loop (br 0)) (unreachable)";
/// Wants ever more memory.
pub const BOMB: &str = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)";
pub const TRAP: &str = "(unreachable)";

/// A core module of the world `access`, with bodies of its two functions and anything else beside.
pub fn handwritten(configure: &str, authorize: &str, beside: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (memory (export "memory") 256)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
            (func $configure (export "configure") (param i32 i32) (result i32) {configure})
            (func $authorize (export "authorize") (param i64 i32 i32 i64 i32 i32 i32 i32) (result i32) {authorize})
            (data (i32.const 128) "\02")
            {beside})"#
    );
    let mut module = wat::parse_str(text).unwrap();
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/wit")).unwrap();
    let world = resolve.select_world(&[package], Some("access")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    module
}

/// A policy that runs `authorize` and says nothing of its configuration.
pub fn policy(authorize: &str) -> Vec<u8> {
    handwritten(FINE, authorize, "")
}

fn word(number: u32) -> String {
    number.to_le_bytes().map(|byte| format!("\\{byte:02x}")).concat()
}

fn length(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap()
}

/// A policy that refuses everything, with one header where there is one.
pub fn denies(status: u16, reason: &str, header: Option<(&str, &str)>) -> Vec<u8> {
    handwritten(FINE, OWN, &denial(status, reason, None, header))
}

/// A policy that refuses decryption keys and has no say in anything else.
pub fn denies_keys(status: u16, reason: &str) -> Vec<u8> {
    // The second parameter is the kind; `key` is the fifth of them.
    let authorize = format!("(if (result i32) (i32.eq (local.get 1) (i32.const 4)) (then {OWN}) (else {ABSTAIN}))");
    handwritten(FINE, &authorize, &denial(status, reason, None, None))
}

/// A policy that sends everything elsewhere.
pub fn redirects(status: u16, reason: &str, target: &str) -> Vec<u8> {
    handwritten(FINE, OWN, &denial(status, reason, Some(target), None))
}

fn denial(status: u16, reason: &str, redirect: Option<&str>, header: Option<(&str, &str)>) -> String {
    let headers = if header.is_some() { word(512) + &word(1) } else { word(0) + &word(0) };
    let target = redirect.map_or_else(|| word(0) + &word(0) + &word(0), |to| word(1) + &word(800) + &word(length(to)));
    let mut text = format!(
        "(data (i32.const 256) \"{}{}{}{}{target}{headers}\") (data (i32.const 400) \"{reason}\")",
        word(1),
        word(status.into()),
        word(400),
        word(length(reason)),
    );
    if let Some(to) = redirect {
        text += &format!("(data (i32.const 800) \"{to}\")");
    }
    if let Some((name, value)) = header {
        text += &format!(
            "(data (i32.const 512) \"{}{}{}{}\") (data (i32.const 600) \"{name}\") (data (i32.const 700) \"{value}\")",
            word(600),
            word(length(name)),
            word(700),
            word(length(value)),
        );
    }
    text
}

/// A policy that allows everything: counted by a class with a key where there is one, under a streams class likewise, with one tag.
pub fn allows(limit: Option<(&str, &str)>, streams: Option<(&str, &str)>, tag: &str) -> Vec<u8> {
    let at = |place: u32, text: &str| format!("(data (i32.const {place}) \"{text}\")");
    let mut data = String::new();
    let limits = match limit {
        Some((class, key)) => {
            data += &at(512, &(word(600) + &word(length(class)) + &word(700) + &word(length(key))));
            data += &(at(600, class) + &at(700, key));
            word(512) + &word(1)
        }
        None => word(0) + &word(0),
    };
    let streams = match streams {
        Some((class, key)) => {
            data += &(at(1200, class) + &at(1300, key));
            word(1) + &word(1200) + &word(length(class)) + &word(1300) + &word(length(key))
        }
        None => word(0).repeat(5),
    };
    data += &(at(1000, &(word(1100) + &word(length(tag)))) + &at(1100, tag));
    let verdict = word(0) + &limits + &streams + &word(1000) + &word(1);
    handwritten(FINE, OWN, &(at(256, &verdict) + &data))
}

/// Puts a file into its place at once, as who changes a watched folder should.
pub fn put(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let fresh = folder.join(format!(".{name}.fresh"));
    std::fs::write(&fresh, bytes).unwrap();
    std::fs::rename(fresh, folder.join(name)).unwrap();
}
