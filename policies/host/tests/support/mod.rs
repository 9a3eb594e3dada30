//! Policies written by hand in WebAssembly text, which do what no compiler would let them.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use std::sync::{Arc, LazyLock};

use segue_policy_host::{AccessPolicy, FailMode, Failure, HostConfig, PolicyHost, RequestView, Services};
use serde_json::json;
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// One host for a test binary: its clock is a thread.
pub static HOST: LazyLock<PolicyHost> = LazyLock::new(|| PolicyHost::new(HostConfig::default()).unwrap());

/// Where a handwritten policy has an answer to `configure` that asks for no fields.
pub const FINE: &str = "(i32.const 64)";
/// Where it has the verdict `abstain`.
pub const ABSTAIN: &str = "(i32.const 128)";
/// Where a test puts a verdict of its own, by `data`.
pub const OWN: &str = "(i32.const 256)";

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
    described(&wat::parse_str(text).unwrap(), StringEncoding::UTF8)
}

/// A module with the contract's description of the world `access`.
pub fn described(module: &[u8], encoding: StringEncoding) -> Vec<u8> {
    let mut module = module.to_vec();
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit")).unwrap();
    let world = resolve.select_world(&[package], Some("access")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, encoding).unwrap();
    module
}

/// A denial in memory, at [`OWN`]: its status, the length that it claims for its reason `no`, one header where there is one.
pub fn denial(status: u16, reason_length: u32, header: Option<(&str, &str)>) -> String {
    let word = |number: u32| number.to_le_bytes().map(|byte| format!("\\{byte:02x}")).concat();
    let bytes = |text: &str| text.bytes().map(|byte| format!("\\{byte:02x}")).collect::<String>();
    let headers = if header.is_some() { word(512) + &word(1) } else { word(0) + &word(0) };
    let mut text = format!(
        "(data (i32.const 256) \"{}{}{}{}{}{}{}{headers}\") (data (i32.const 400) \"no\")",
        word(1),
        word(status.into()),
        word(400),
        word(reason_length),
        word(0),
        word(0),
        word(0),
    );
    if let Some((name, value)) = header {
        let lengths = [name, value].map(|text| u32::try_from(text.len()).unwrap());
        text += &format!(
            "(data (i32.const 512) \"{}{}{}{}\") (data (i32.const 600) \"{}\") (data (i32.const 700) \"{}\")",
            word(600),
            word(lengths[0]),
            word(700),
            word(lengths[1]),
            bytes(name),
            bytes(value),
        );
    }
    text
}

pub fn ready(host: &PolicyHost, module: &[u8], mode: FailMode) -> Result<Arc<AccessPolicy>, Failure> {
    let policy = host.compile(module).expect("compiles");
    AccessPolicy::new(policy, "tried@1", &json!({}), Arc::new(Services::default()), mode).map(Arc::new)
}

/// What a request gets from a handwritten policy that configures itself well.
pub fn asked(authorize: &str, beside: &str) -> Result<segue_policy_host::Verdict, Failure> {
    ready(&HOST, &handwritten(FINE, authorize, beside), FailMode::Closed)
        .expect("configures")
        .authorize(&RequestView::of("/hls/t/master.m3u8"))
}

/// A generator of numbers that are the same in each run.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).unwrap()
    }
}
