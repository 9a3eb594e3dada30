//! Everything that an upload or a running policy can do wrong, and the word that it gets for it. After each of them a
//! good policy on the same host answers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use segue_policy_host::{
    Attached, Bounds, Chain, FailMode, Failure, HostConfig, PolicyHost, Refused, RequestView, Trial, Verdict,
};
use support::{ABSTAIN, FINE, HOST, OWN, asked, denial, handwritten, ready};

const LOOP: &str = "(loop (br 0)) (unreachable)";

fn refusal(bytes: &[u8]) -> Refused {
    let refused = HOST.compile(bytes).expect_err("refused");
    assert_eq!(HOST.compile(&handwritten(FINE, ABSTAIN, "")).map(drop), Ok(()), "the host goes on");
    refused
}

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[test]
fn what_is_not_webassembly() {
    assert_eq!(refusal(b""), Refused::NotWasm);
    assert_eq!(refusal(b"#!/bin/sh\n"), Refused::NotWasm);
    assert_eq!(refusal(b"\0asm\x01\0\0\0\xff\xff\xff").kind(), "invalid");
    let whole = handwritten(FINE, ABSTAIN, "");
    assert_eq!(refusal(&whole[..whole.len() / 2]).kind(), "invalid");
}

#[test]
fn two_hundred_megabytes() {
    let started = Instant::now();
    assert_eq!(refusal(&vec![0; 200 << 20]), Refused::TooLarge { size: 200 << 20, bound: 32 << 20 });
    assert!(started.elapsed() < Duration::from_secs(60), "not looked at");
}

#[test]
fn an_import_that_is_not_given_is_named() {
    let wasi = component(r#"(component (import "wasi:clocks/monotonic-clock@0.2.0" (instance)))"#);
    assert_eq!(refusal(&wasi), Refused::Import("wasi:clocks/monotonic-clock@0.2.0".to_owned()));
    let core = component(r#"(module (import "env" "time" (func)))"#);
    assert_eq!(refusal(&core), Refused::Import("env time".to_owned()));
    let ours = component(r#"(component (import "segue:policy/secrets@0.1.0" (instance)))"#);
    assert_eq!(refusal(&ours), Refused::Import("segue:policy/secrets@0.1.0".to_owned()));
    let later = component(r#"(component (import "segue:policy/tools@7.0.0" (instance)))"#);
    assert_eq!(refusal(&later), Refused::Version("segue:policy/tools@7.0.0".to_owned()));
}

#[test]
fn the_wrong_world() {
    assert_eq!(refusal(&component("(component)")), Refused::Export { world: "access", missing: "configure" });
    let export = |names: &[&str]| {
        let exports: String = names.iter().map(|name| format!(r#"(export "{name}" (func $f))"#)).collect();
        component(&format!(
            r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))
               (func $f (canon lift (core func $i "f"))) {exports})"#
        ))
    };
    assert_eq!(refusal(&export(&["authorize"])), Refused::Export { world: "access", missing: "configure" });
    let half = Refused::Export { world: "ticket-scheme", missing: "sign" };
    assert_eq!(refusal(&export(&["configure", "verify"])), half);
    assert_eq!(refusal(&export(&["configure", "authorize"])).kind(), "contract-mismatch");
}

#[test]
fn an_endless_loop() {
    assert_eq!(asked(LOOP, ""), Err(Failure::Timeout));
    let in_configure =
        HostConfig { bounds: Bounds { configure: Duration::from_millis(50), ..Bounds::default() }, cache: None };
    let host = PolicyHost::new(in_configure).unwrap();
    assert_eq!(ready(&host, &handwritten(LOOP, ABSTAIN, ""), FailMode::Closed).unwrap_err(), Failure::Timeout);
}

#[test]
fn a_memory_bomb() {
    let bomb = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)";
    assert_eq!(asked(bomb, ""), Err(Failure::OutOfMemory));
    let at_once = "(if (i32.eq (memory.grow (i32.const 65000)) (i32.const -1)) (then (unreachable))) (i32.const 128)";
    assert_eq!(asked(at_once, ""), Err(Failure::OutOfMemory));
}

#[test]
fn a_trap() {
    assert_eq!(asked("(unreachable)", "").unwrap_err().kind(), "trap");
    assert_eq!(asked("(i32.div_s (i32.const 1) (i32.const 0))", "").unwrap_err().kind(), "trap");
    let in_configure = ready(&HOST, &handwritten("(unreachable)", ABSTAIN, ""), FailMode::Closed);
    assert_eq!(in_configure.unwrap_err().kind(), "trap");
}

#[test]
fn recursion_to_the_end_of_the_stack() {
    let deep = "(call $deep (i64.const 1)) (drop) (i32.const 128)";
    let beside = "(func $deep (param i64) (result i64) (i64.add (i64.const 1) (call $deep (local.get 0))))";
    assert_eq!(asked(deep, beside), Err(Failure::StackExhausted));
}

#[test]
fn verdicts_that_the_contract_does_not_allow() {
    let bad = |beside: &str| match asked(OWN, beside) {
        Err(Failure::BadOutput(what)) => what,
        other => panic!("{other:?}"),
    };
    assert!(bad(&denial(99, 2, None)).contains("status 99"));
    assert!(bad(&denial(200, 2, None)).contains("status 200"));
    assert!(bad(&denial(302, 2, None)).contains("redirect"));
    assert!(bad(&denial(403, 0, None)).contains("reason"));
    assert!(bad(&denial(403, 2, Some(("x-why", "a\r\nset-cookie: b")))).contains("x-why"));
    assert!(bad(&denial(403, 2, Some(("bad name", "a")))).contains("name"));
    assert!(bad(&denial(403, 2, Some(("Content-Length", "0")))).contains("Content-Length"));
    bad(&denial(403, 10 << 20, None));
    bad(&denial(403, u32::MAX, None));
    bad(r#"(data (i32.const 256) "\09")"#);
    assert_eq!(asked(OWN, &denial(451, 2, Some(("x-why", "law")))).unwrap().kind(), "deny");
}

#[test]
fn bad_answers_to_configure() {
    let says = |data: &str| ready(&HOST, &handwritten(OWN, ABSTAIN, data), FailMode::Closed).unwrap_err();
    let no = r#"(data (i32.const 256) "\01\00\00\00\90\01\00\00\02\00\00\00") (data (i32.const 400) "no")"#;
    assert_eq!(says(no), Failure::Configuration("no".to_owned()));
    let field = r#"(data (i32.const 256) "\00\00\00\00\00\02\00\00\01\00\00\00") (data (i32.const 512) "\90\01\00\00\03\00\00\00")
                   (data (i32.const 400) "mac")"#;
    assert!(matches!(says(field), Failure::Configuration(what) if what.contains("\"mac\"")));
}

#[test]
fn a_policy_that_fails_again_and_again_rests_and_its_fail_mode_decides() {
    let bounds = Bounds { failures: 3, rest: Duration::from_secs(3600), ..Bounds::default() };
    let host = PolicyHost::new(HostConfig { bounds, cache: None }).unwrap();
    let module = handwritten(FINE, "(unreachable)", "");
    for (mode, verdict) in [(FailMode::Closed, "deny"), (FailMode::Open, "abstain")] {
        let policy = ready(&host, &module, mode).unwrap();
        let chain = Chain::new(vec![Attached::active("tried", Arc::clone(&policy))]);
        let kinds: Vec<&str> = (0..5)
            .map(|_| {
                let decision = chain.authorize(&RequestView::of("/"));
                assert_eq!(decision.verdict.kind(), verdict);
                decision.failures[0].1.kind()
            })
            .collect();
        assert_eq!(kinds, ["trap", "trap", "trap", "resting", "resting"]);
        assert!(policy.rests());
        assert_eq!(policy.calls(), 3);
        assert_eq!(policy.counters().instances.load(Relaxed), 3, "one to begin with, one after each trap");
    }
}

#[test]
fn instances_are_replaced_after_calls_and_after_growth() {
    let bounds = Bounds { calls: 10, growth: 1 << 20, instances: 1, ..Bounds::default() };
    let host = PolicyHost::new(HostConfig { bounds, cache: None }).unwrap();
    let made = |authorize: &str| {
        let policy = ready(&host, &handwritten(FINE, authorize, ""), FailMode::Closed).unwrap();
        for _ in 0..100 {
            assert_eq!(policy.authorize(&RequestView::of("/")), Ok(Verdict::Abstain));
        }
        policy.counters().instances.load(Relaxed)
    };
    assert_eq!(made(ABSTAIN), 10);
    assert_eq!(made("(drop (memory.grow (i32.const 17))) (i32.const 128)"), 100, "17 pages are more than a MiB");
}

#[test]
fn more_threads_than_instances_take_turns() {
    let bounds = Bounds { instances: 2, ..Bounds::default() };
    let host = PolicyHost::new(HostConfig { bounds, cache: None }).unwrap();
    let policy = ready(&host, &handwritten(FINE, ABSTAIN, ""), FailMode::Closed).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..500 {
                    assert_eq!(policy.authorize(&RequestView::of("/")), Ok(Verdict::Abstain));
                }
            });
        }
    });
    assert_eq!(policy.calls(), 4_000);
    assert!(policy.counters().instances.load(Relaxed) <= 2);
}

#[test]
fn a_shadow_that_traps_is_reported_and_decides_nothing() {
    let good = ready(&HOST, &handwritten(FINE, OWN, &denial(451, 2, None)), FailMode::Closed).unwrap();
    let bad = ready(&HOST, &handwritten(FINE, "(unreachable)", ""), FailMode::Closed).unwrap();
    let place = Attached { candidate: Some((bad, Trial::Shadow)), ..Attached::active("tried", good) };
    let decision = Chain::new(vec![place]).authorize(&RequestView::of("/"));
    assert!(matches!(&decision.verdict, Verdict::Deny(denial) if denial.status == 451));
    assert_eq!(decision.policy.as_deref(), Some("tried@1"));
    assert!(decision.failures.is_empty());
    assert_eq!(decision.shadows[0].beside, "deny");
    assert_eq!(decision.shadows[0].verdict.as_ref().unwrap_err().kind(), "trap");
}

#[test]
fn compiled_code_is_kept_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let config = || HostConfig { cache: Some(folder.path().join("code")), bounds: Bounds::default() };
    let module = handwritten(FINE, ABSTAIN, "(func (export \"only-here\"))");
    for _ in 0..2 {
        let host = PolicyHost::new(config()).unwrap();
        let policy = ready(&host, &module, FailMode::Closed).unwrap();
        assert_eq!(policy.authorize(&RequestView::of("/")), Ok(Verdict::Abstain));
    }
    let files = walk(folder.path());
    assert!(files >= 1, "{files}");
}

fn walk(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { walk(&path) } else { 1 }).sum()
}
