//! An uploaded policy: whatever the file is, it is refused with a reason, or runs within its bounds and answers what the
//! contract allows; and the host goes on.
//!
//! Input: a byte that says what the rest is, and the rest. 0: the file as it is uploaded. 1 and 2: the instructions of `authorize`
//! or `configure` in a module that is well beside (so that mutation meets code, and not the parser alone). 3: the memory
//! that holds the verdict, which `authorize` points to. 4: what is appended to a module that is well. 5: a valid module with the exports of
//! the contract, made of the input (wasm-smith). 6: a valid component, made so.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use libfuzzer_sys::arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use segue_policy_host::vectors::Vectors;
use segue_policy_host::{
    AccessPolicy, Bounds, Denial, FailMode, HostConfig, PolicyHost, RequestView, Services, TicketScheme, Verdict, World,
};
use serde_json::json;
use wasm_encoder::{
    CodeSection, ConstExpr, DataSection, ExportKind, ExportSection, Function, FunctionSection, MemorySection,
    MemoryType, Module, TypeSection, ValType,
};

/// Where an answer to `configure` lies that asks for no fields: zeros.
const FINE: i32 = 64;
/// Where the verdict `abstain` lies.
const ABSTAIN: i32 = 128;
/// Where a verdict of the input's own lies.
const OWN: i32 = 256;
/// How long the vectors of one upload run here.
const VECTORS: Duration = Duration::from_millis(50);

static HOST: LazyLock<PolicyHost> = LazyLock::new(|| {
    let bounds = Bounds {
        upload: 1 << 20,
        call: Duration::from_millis(2),
        configure: Duration::from_millis(10),
        memory: 16 << 20,
        ..Bounds::default()
    };
    PolicyHost::new(HostConfig { bounds, cache: None }).expect("a host starts")
});

static GOOD: LazyLock<AccessPolicy> = LazyLock::new(|| {
    let policy = HOST.compile(&module(None, None, &[])).expect("a module that is well");
    AccessPolicy::new(policy, "good@1", &json!({}), Arc::default(), FailMode::Closed).expect("configures")
});

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let file = match kind {
        0 => rest.to_vec(),
        1 => module(None, Some(rest), &[]),
        2 => module(Some(rest), None, &[]),
        3 => module(None, Some(&[0x41, 0x80, 0x02]), rest),
        4 => [&module(None, None, &[]), rest].concat(),
        5 => match wasm_smith::Module::new(smith(true), &mut Unstructured::new(rest)).ok() {
            Some(made) => made.to_bytes(),
            None => return,
        },
        6 => match wasm_smith::Component::new(smith(false), &mut Unstructured::new(rest)).ok() {
            Some(made) => made.to_bytes(),
            None => return,
        },
        _ => return,
    };
    // What hangs is ended by the fuzzer's own clock (`-timeout` in fuzz/run).
    upload(&file);
    assert_eq!(GOOD.authorize(&RequestView::of("/")), Ok(Verdict::Abstain), "the host goes on");
});

fn upload(file: &[u8]) {
    let checked = HOST.check(file);
    let policy = match HOST.compile(file) {
        Ok(policy) => policy,
        Err(refused) => {
            assert!(!refused.to_string().is_empty() && refused.kind() != "host", "refused by our own fault: {refused}");
            return;
        }
    };
    assert_eq!(checked.as_ref(), Ok(policy.checked()), "what compiles is what was looked at");
    for import in &policy.checked().imports {
        assert!(
            import.starts_with("segue:policy/") && import.ends_with("@0.1.0"),
            "a power that is not given: {import}"
        );
    }
    let (config, services) = (json!({}), Arc::new(Services::default()));
    match policy.checked().world {
        World::Access => {
            if let Ok(policy) = AccessPolicy::new(policy.clone(), "x@1", &config, services, FailMode::Closed) {
                for _ in 0..2 {
                    if let Ok(verdict) = policy.authorize(&RequestView::of("/hls/t/master.m3u8")) {
                        is_allowed(&verdict);
                    }
                }
            }
        }
        World::TicketScheme => {
            if let Ok(scheme) = TicketScheme::new(policy.clone(), "x@1", &config, services)
                && let Ok(Ok(claims)) = scheme.verify(&RequestView::of("/hls/t/master.m3u8"))
            {
                assert!(claims.scope.starts_with('/'), "a scope that is no path");
            }
        }
    }
    if let Ok(Some(vectors)) = Vectors::inside(file) {
        _ = vectors.run_until(&policy, Instant::now() + VECTORS);
    }
}

/// What wasm-smith may use: what the host's engine takes, so that most of it is compiled and run.
fn smith(is_policy: bool) -> wasm_smith::Config {
    wasm_smith::Config {
        exports: is_policy.then(|| module(None, None, &[])),
        max_imports: 0,
        max_memories: 1,
        max_memory32_bytes: 8 << 20,
        memory64_enabled: false,
        threads_enabled: false,
        gc_enabled: false,
        exceptions_enabled: false,
        ..wasm_smith::Config::default()
    }
}

/// What the contract allows, read from its text once more.
fn is_allowed(verdict: &Verdict) {
    match verdict {
        Verdict::Abstain => {}
        Verdict::Allow(allowance) => {
            assert!(allowance.limits.len() <= 4 && allowance.tags.len() <= 8, "too many conditions");
            assert!(allowance.tags.iter().all(|tag| !tag.is_empty() && tag.len() <= 64 && visible(tag)), "a bad tag");
        }
        Verdict::Deny(Denial { status, reason, redirect, headers }) => {
            let redirects = [301, 302, 303, 307, 308].contains(status);
            assert!(redirects || (400..=599).contains(status), "a status that no client should see: {status}");
            assert_eq!(redirects, redirect.is_some(), "a redirect and its status belong together");
            assert!((1..=64).contains(&reason.len()) && visible(reason), "a bad reason");
            assert!(redirect.as_ref().is_none_or(|target| visible(target)), "a bad redirect");
            assert!(headers.len() <= 8, "too many headers");
            for (name, value) in headers {
                assert!(visible(name) && !name.contains(':'), "a header name that is none");
                assert!(!value.contains(['\r', '\n', '\0']), "a header that makes others");
                assert!(!name.eq_ignore_ascii_case("content-length"), "a header of the edge's own");
            }
        }
    }
}

fn visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A module of the world `access`: bodies of its functions (instructions without the `end`), and the memory at [`OWN`].
fn module(configure: Option<&[u8]>, authorize: Option<&[u8]>, own: &[u8]) -> Vec<u8> {
    let (mut types, mut functions, mut memories) = (TypeSection::new(), FunctionSection::new(), MemorySection::new());
    let (mut exports, mut code, mut data) = (ExportSection::new(), CodeSection::new(), DataSection::new());
    let (word, long) = (ValType::I32, ValType::I64);
    types.ty().function([word, word, word, word], [word]);
    types.ty().function([word, word], [word]);
    types.ty().function([long, word, word, long, word, word, word, word], [word]);
    memories.memory(MemoryType { minimum: 4, maximum: None, memory64: false, shared: false, page_size_log2: None });
    exports.export("memory", ExportKind::Memory, 0);
    let body = |instructions: Option<&[u8]>, answer: i32| {
        let mut function = Function::new([(4, word), (2, long)]);
        match instructions {
            Some(instructions) => _ = function.raw(instructions.iter().copied()),
            None => _ = function.instructions().i32_const(answer),
        }
        function.instructions().end();
        function
    };
    for (place, (name, instructions, answer)) in
        [("cabi_realloc", None, 1 << 16), ("configure", configure, FINE), ("authorize", authorize, ABSTAIN)]
            .into_iter()
            .enumerate()
    {
        let place = u32::try_from(place).expect("three");
        functions.function(place);
        exports.export(name, ExportKind::Func, place);
        code.function(&body(instructions, answer));
    }
    data.active(0, &ConstExpr::i32_const(ABSTAIN), [2]);
    // Behind the answers, and before what is handed in.
    data.active(0, &ConstExpr::i32_const(OWN), own.iter().copied().take(60_000));
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&memories).section(&exports).section(&code).section(&data);
    module.finish()
}
