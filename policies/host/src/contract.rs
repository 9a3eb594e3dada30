//! The contract in Rust, made from `policies/wit` when this crate is built.

#![allow(missing_docs, unreachable_pub, clippy::needless_pass_by_value)]

/// World `access`.
pub(crate) mod access {
    wasmtime::component::bindgen!({ path: "../wit", world: "access" });
}

/// World `ticket-scheme`; what the worlds share is the same type in both.
pub(crate) mod scheme {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "ticket-scheme",
        with: {
            "segue:policy/types": super::access::segue::policy::types,
            "segue:policy/request": super::access::segue::policy::request,
            "segue:policy/tools": super::access::segue::policy::tools,
            "segue:policy/crypto": super::access::segue::policy::crypto,
        },
    });
}

pub(crate) use access::segue::policy::{crypto, request, tools, types};
pub(crate) use scheme::segue::policy::{signing, tickets};

/// The package whose interfaces a policy may import.
pub(crate) const PACKAGE: &str = "segue:policy/";
/// The version of the contract.
pub(crate) const VERSION: &str = "0.1.0";
/// Its interfaces: what a policy may import.
pub(crate) const INTERFACES: [&str; 6] = ["types", "request", "tools", "crypto", "signing", "tickets"];
