//! Policies written by hand in WebAssembly text, and the form that uploads one.

use reqwest::{Method, StatusCode};
use segue_policy_host::vectors::attach;
use serde_json::Value;
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::house::{ADMIN, House};

/// A boundary that is in none of the files.
const BOUNDARY: &str = "a-boundary-of-the-tests";

/// Abstains from every request.
pub(crate) fn abstains() -> Vec<u8> {
    access("(i32.const 64)", "(i32.const 128)")
}

/// Refuses every request: 451, `no`.
pub(crate) fn denies() -> Vec<u8> {
    access("(i32.const 64)", "(i32.const 256)")
}

/// A policy of the world `access` with these bodies. At 64 lies an answer to `configure` that asks for nothing, at 192 one that refuses; at 128 lies
/// `abstain`, at 256 a denial.
pub(crate) fn access(configure: &str, authorize: &str) -> Vec<u8> {
    let word = |number: u32| number.to_le_bytes().map(|byte| format!("\\{byte:02x}")).concat();
    let denial: String = [1, 451, 400, 2, 0, 0, 0, 0, 0].map(word).concat();
    let refusal: String = [1, 448, 9].map(word).concat();
    module(
        "access",
        &format!(
            r#"(module
                (memory (export "memory") 256)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
                (func (export "configure") (param i32 i32) (result i32) {configure})
                (func (export "authorize") (param i64 i32 i32 i64 i32 i32 i32 i32) (result i32) {authorize})
                (data (i32.const 128) "\02")
                (data (i32.const 192) "{refusal}") (data (i32.const 448) "not today")
                (data (i32.const 256) "{denial}") (data (i32.const 400) "no"))"#
        ),
    )
}

/// A ticket scheme that knows no ticket, and signs a URL by `?signed=1`.
pub(crate) fn scheme() -> Vec<u8> {
    module(
        "ticket-scheme",
        r#"(module
            (memory (export "memory") 4)
            (global $next (mut i32) (i32.const 65536))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (global.get $next)
                (global.set $next (i32.add (global.get $next) (i32.and (i32.add (local.get 3) (i32.const 7)) (i32.const -8)))))
            (func (export "configure") (param i32 i32) (result i32) (i32.const 64))
            (func (export "verify") (param i64 i32 i32 i64 i32 i32) (result i32) (i32.const 128))
            (func (export "sign")
                (param i32 i32 i32 i32 i32 i64 i32 i64 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
                (memory.copy (i32.const 4096) (local.get 0) (local.get 1))
                (memory.copy (i32.add (i32.const 4096) (local.get 1)) (i32.const 512) (i32.const 9))
                (i32.store (i32.const 256) (i32.const 0))
                (i32.store (i32.const 260) (i32.const 4096))
                (i32.store (i32.const 264) (i32.add (local.get 1) (i32.const 9)))
                (i32.const 256))
            (data (i32.const 128) "\01") (data (i32.const 512) "?signed=1"))"#,
    )
}

fn module(world: &str, text: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).unwrap();
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/wit")).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    module
}

/// One vector that expects this of a plain request.
pub(crate) fn expecting(component: &[u8], verdict: &Value) -> Vec<u8> {
    let vectors = serde_json::json!({ "vectors": [{ "name": "a plain request", "expect": verdict }] });
    attach(component, vectors.to_string().as_bytes()).unwrap()
}

impl House {
    /// Uploads a component with further fields, and answers with what is said of it.
    pub(crate) async fn upload_policy(
        &self,
        name: &str,
        component: &[u8],
        fields: &[(&str, &[u8])],
    ) -> (StatusCode, Value) {
        let mut body = Vec::new();
        for (field, value) in [("component", component)].iter().chain(fields) {
            body.extend_from_slice(
                format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{field}\"\r\n\r\n").as_bytes(),
            );
            body.extend_from_slice(value);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        let path = self.url(&format!("/v1/policies/{name}/versions"));
        let request = self.client.request(Method::POST, path).bearer_auth(ADMIN);
        let request = request.header("content-type", format!("multipart/form-data; boundary={BOUNDARY}")).body(body);
        let response = request.send().await.unwrap();
        let status = response.status();
        (status, response.json().await.unwrap())
    }

    /// Uploads a component under a version's name.
    pub(crate) async fn version(&self, policy: &str, version: &str, component: &[u8]) -> Value {
        let (status, uploaded) = self.upload_policy(policy, component, &[("version", version.as_bytes())]).await;
        assert_eq!(status, StatusCode::CREATED, "{uploaded}");
        uploaded
    }
}
