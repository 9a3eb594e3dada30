//! A policy that came as a core module runs without the component that was made of it, and must not be told apart from
//! that: here each runs by both paths, and gets the same answer, or the same word for what went wrong.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/built.rs"]
mod ready_made;
mod support;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use segue_policy_host::vectors::Vectors;
use segue_policy_host::{
    AccessPolicy, Bounds, Claims, FailMode, Failure, Headers, HostConfig, Key, Kind, Policy, PolicyHost, RequestView,
    Services, Verdict,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::{ABSTAIN, Dice, FINE, OWN, denial, described, handwritten};
use wit_component::{ComponentEncoder, StringEncoding};

/// Nothing rests here: each call shall fail by itself.
static HOST: LazyLock<PolicyHost> = LazyLock::new(|| {
    let bounds = Bounds { failures: u32::MAX, ..Bounds::default() };
    PolicyHost::new(HostConfig { bounds, cache: None }).unwrap()
});

/// The module, which runs directly, and the component that is made of it, which does not.
fn both(module: &[u8]) -> [Policy; 2] {
    let component = ComponentEncoder::default().module(module).unwrap().encode().unwrap();
    let policies = [module, &component].map(|file| HOST.compile(file).expect("compiles"));
    assert_eq!(policies.each_ref().map(Policy::is_direct), [true, false]);
    policies
}

fn services() -> Arc<Services> {
    let table = [("track-1".to_owned(), "1700000000".to_owned())].into();
    Arc::new(Services {
        keys: [("k".to_owned(), Key::secret(*b"secret").unwrap())].into(),
        tables: [("embargo".to_owned(), Arc::new(table))].into(),
        signer: false,
    })
}

fn ready(policy: Policy, config: &Value) -> Result<AccessPolicy, Failure> {
    AccessPolicy::new(policy, "tried@1", config, services(), FailMode::Closed)
}

/// What two calls answer by both paths: the word for it, and the verdict where there is one.
fn answer(module: &[u8]) -> (&'static str, Option<Verdict>) {
    let view = RequestView {
        track: "track-1",
        query: Some(""),
        country: Some("DE"),
        address: Some("192.0.2.7".parse().unwrap()),
        headers: &Told,
        claims: &Told,
        pos_ms: Some(u64::MAX),
        ..RequestView::of("/hls/t/ä.m3u8")
    };
    let [direct, component] = both(module).map(|policy| {
        ready(policy, &json!({})).map_err(|failure| failure.kind()).and_then(|policy| {
            let first = policy.authorize(&view);
            assert_eq!(policy.authorize(&view).is_ok(), first.is_ok(), "the second call is like the first");
            first.map_err(|failure| failure.kind())
        })
    });
    assert_eq!(direct, component);
    direct.map_or_else(|kind| (kind, None), |verdict| (verdict.kind(), Some(verdict)))
}

struct Told;

impl Headers for Told {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "user-agent").then_some("Mozilla/5.0".into())
    }
}

impl Claims for Told {
    fn claim(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "sub").then_some("u-1".into())
    }

    fn context(&self, pointer: &str) -> Option<Cow<'_, str>> {
        (pointer == "/tier").then_some("gold".into())
    }
}

/// A module of the world `access` that imports all that there is, allocates in a row from 16384, and keeps the names that the calls
/// below need.
fn importing(authorize: &str, beside: &str) -> Vec<u8> {
    with_allocator(
        "(local $at i32)
         (local.set $at (i32.and (i32.add (global.get $next) (i32.sub (local.get 2) (i32.const 1)))
                                 (i32.sub (i32.const 0) (local.get 2))))
         (global.set $next (i32.add (local.get $at) (local.get 3)))
         (local.get $at)",
        authorize,
        beside,
    )
}

fn with_allocator(allocate: &str, authorize: &str, beside: &str) -> Vec<u8> {
    let import = |interface: &str, name: &str, parameters: usize, result: &str| {
        let parameters = " i32".repeat(parameters);
        format!(r#"(import "segue:policy/{interface}@0.1.0" "{name}" (func ${name} (param{parameters}) {result}))"#)
    };
    let reads = ["method", "host", "path", "track", "file", "edge", "query", "address", "country"];
    let reads: String = reads.iter().map(|name| import("request", name, 1, "")).collect();
    let named: String = ["header", "claim", "context"].iter().map(|name| import("request", name, 3, "")).collect();
    let text = format!(
        r#"(module
            {reads} {named} {} {} {} {} {} {} {}
            (memory (export "memory") 4)
            (global $next (mut i32) (i32.const 16384))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {allocate})
            (func (export "configure") (param i32 i32) (result i32) (global.set $next (i32.const 16384)) (i32.const 64))
            (func (export "authorize") (param i64 i32 i32 i64 i32 i32 i32 i32) (result i32) {authorize})
            (data (i32.const 128) "\02")
            (data (i32.const 1024) "user-agent") (data (i32.const 1040) "sub") (data (i32.const 1056) "/tier")
            (data (i32.const 1072) "embargo") (data (i32.const 1088) "track-1") (data (i32.const 1104) "k")
            (data (i32.const 1120) "some data") (data (i32.const 1136) "\ff\fe")
            {beside})"#,
        import("tools", "log", 3, ""),
        import("tools", "lookup", 5, ""),
        import("crypto", "digest", 4, ""),
        import("crypto", "digest-keyed", 8, ""),
        import("crypto", "hmac", 6, ""),
        import("crypto", "verify", 8, ""),
        import("crypto", "equal", 4, "(result i32)"),
    );
    described(&wat::parse_str(text).unwrap(), StringEncoding::UTF8)
}

/// A verdict in words: bytes of the records that the canonical ABI describes.
fn words(at: u32, words: &[u32]) -> String {
    let bytes: String = words.iter().flat_map(|word| word.to_le_bytes()).map(|byte| format!("\\{byte:02x}")).collect();
    format!("(data (i32.const {at}) \"{bytes}\")")
}

#[test]
fn ready_made_policies_and_their_vectors() {
    let names = ["addresses", "country", "devices", "household", "origin", "preview", "reference", "window"];
    let folder = ready_made::built(&names);
    let c = std::fs::read(ready_made::built(&["household-c"]).join("household-c.wasm")).unwrap();
    let rust = names.map(|name| (name, std::fs::read(folder.join(format!("{name}.wasm"))).unwrap()));
    for (name, module) in rust.into_iter().chain([("household-c", described(&c, StringEncoding::UTF8))]) {
        let policies = both(&module);
        let vectors = Vectors::inside(&module).unwrap().expect("vectors travel with it");
        let [direct, component] = policies.each_ref().map(|policy| vectors.run(policy).unwrap());
        assert!(direct.iter().all(|outcome| outcome.passed), "{name}: {direct:#?}");
        assert_eq!(direct, component, "{name}");

        let file = std::fs::read(format!("{}/../{name}/vectors.json", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let config = serde_json::from_slice::<Value>(&file).unwrap()["config"].clone();
        let [direct, component] = policies.map(|policy| ready(policy, &config).unwrap());
        for view in requests() {
            assert_eq!(direct.authorize(&view), component.authorize(&view), "{name}: {}", view.path);
        }
    }
}

fn requests() -> Vec<RequestView<'static>> {
    let mut views = Vec::new();
    for path in ["/", "/hls/t/v/audio/0001.m4s", "/hls/ä/\u{1f}\0/master.m3u8"] {
        for kind in [Kind::Master, Kind::Segment, Kind::Key, Kind::Other] {
            for country in [None, Some("DE"), Some("FR"), Some("")] {
                for address in [None, Some("192.0.2.7".parse().unwrap()), Some("2001:db8::7".parse().unwrap())] {
                    let pos_ms = (kind == Kind::Segment).then_some(90_000);
                    let base = RequestView { kind, country, address, pos_ms, track: "t", ..RequestView::of(path) };
                    views.push(base);
                    views.push(RequestView { headers: &Told, claims: &Told, now_ms: 1_700_000_000_000, ..base });
                }
            }
        }
    }
    views
}

/// What a call of the host leaves behind: 16 bytes where it was told to answer, and 32 of what it allocated.
fn left_behind(call: &str) -> Vec<u8> {
    let hex = "
        (func $digit (param i32 i32)
            (i32.store8 (local.get 0)
                (i32.add (local.get 1) (select (i32.const 48) (i32.const 87) (i32.lt_u (local.get 1) (i32.const 10))))))
        (func $hex (param $from i32) (param $to i32) (param $count i32)
            (loop $again
                (call $digit (local.get $to) (i32.shr_u (i32.load8_u (local.get $from)) (i32.const 4)))
                (call $digit (i32.add (local.get $to) (i32.const 1)) (i32.and (i32.load8_u (local.get $from)) (i32.const 15)))
                (local.set $from (i32.add (local.get $from) (i32.const 1)))
                (local.set $to (i32.add (local.get $to) (i32.const 2)))
                (br_if $again (local.tee $count (i32.sub (local.get $count) (i32.const 1))))))";
    let authorize = format!(
        "(global.set $next (i32.const 16384)) (memory.fill (i32.const 2048) (i32.const 0) (i32.const 16)) {call}
         (call $hex (i32.const 2048) (i32.const 4096) (i32.const 16)) (call $hex (i32.const 16384) (i32.const 4128) (i32.const 32))
         (i32.const 256)"
    );
    // Allows, and counts whom the 96 letters name.
    let record = words(256, &[0, 512, 1, 0, 0, 0, 0, 0, 0, 0]) + &words(512, &[1104, 1, 4096, 96]);
    let (_, verdict) = answer(&importing(&authorize, &(hex.to_owned() + &record)));
    let Some(Verdict::Allow(allowance)) = verdict else { panic!("{call}: {verdict:?}") };
    let digits = &allowance.limits[0].key;
    (0..48).map(|place| u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).unwrap()).collect()
}

#[test]
fn every_function_of_the_host() {
    let out = "(i32.const 2048)";
    let text = |at: u32, length: u32| format!("(i32.const {at}) (i32.const {length})");
    let (agent, data, key) = (text(1024, 10), text(1120, 9), text(1104, 1));
    let gave = |left: &[u8], at: usize, what: &[u8]| {
        assert_eq!(left[at..at + 4], 16384_u32.to_le_bytes(), "{left:?}");
        assert_eq!(left[at + 4..at + 8], u32::try_from(what.len()).unwrap().to_le_bytes());
        assert_eq!(&left[16..16 + what.len()], what);
    };
    let whole = |name: &str, what: &str| gave(&left_behind(&format!("(call ${name} {out})")), 0, what.as_bytes());
    whole("method", "GET");
    whole("path", "/hls/t/ä.m3u8");
    whole("track", "track-1");
    ["host", "file", "edge"].iter().for_each(|name| whole(name, ""));
    let some = |call: &str, what: &str| {
        let left = left_behind(call);
        assert_eq!(left[0], 1, "{call}");
        gave(&left, 4, what.as_bytes());
    };
    some(&format!("(call $query {out})"), "");
    some(&format!("(call $address {out})"), "192.0.2.7");
    some(&format!("(call $country {out})"), "DE");
    some(&format!("(call $header {agent} {out})"), "Mozilla/5.0");
    some(&format!("(call $claim {} {out})", text(1040, 3)), "u-1");
    some(&format!("(call $context {} {out})", text(1056, 5)), "gold");
    some(&format!("(call $lookup {} {} {out})", text(1072, 7), text(1088, 7)), "1700000000");
    for call in [format!("(call $claim {agent} {out})"), format!("(call $lookup {agent} {agent} {out})")] {
        assert_eq!(left_behind(&call)[..16], [0; 16], "none");
    }
    let digest = |parts: &[&[u8]]| Sha256::digest(parts.concat());
    gave(&left_behind(&format!("(call $digest (i32.const 2) {data} {out})")), 0, &digest(&[b"some data"]));
    let keyed = left_behind(&format!("(call $digest-keyed (i32.const 2) {key} {data} {agent} {out})"));
    gave(&keyed, 4, &digest(&[b"some data", b"secret", b"user-agent"]));
    assert_eq!(left_behind(&format!("(call $hmac (i32.const 2) {key} {data} {out})"))[0], 0);
    assert_eq!(
        left_behind(&format!("(call $hmac (i32.const 2) {agent} {data} {out})"))[..5],
        [1, 0, 0, 0, 0],
        "unknown"
    );
    assert_eq!(left_behind(&format!("(call $verify (i32.const 4) {key} {data} {data} {out})"))[..2], [1, 1], "unfit");
    let equal = |b: &str| left_behind(&format!("(i32.store {out} (call $equal {data} {b}))"))[0];
    assert_eq!([equal(&data), equal(&agent)], [1, 0]);
    left_behind(&format!("(call $log (i32.const 3) {agent})"));
}

#[test]
fn answers_that_cannot_be_read() {
    let bad = |authorize: &str, beside: &str| {
        assert_eq!(answer(&handwritten(FINE, authorize, beside)).0, "bad-output", "{authorize} {beside}");
    };
    // 256 pages: the memory ends at 16 MiB.
    for place in ["0x7ffffff0", "-4", "130", "0xffffdc", "0x1000000"] {
        bad(&format!("(i32.const {place})"), "");
    }
    assert_eq!(answer(&handwritten(FINE, "(i32.const 0xffffd8)", "(data (i32.const 0xffffd8) \"\\02\")")).0, "abstain");
    for many in [1 << 31, u32::MAX, 1 << 28, 1 << 16] {
        bad(OWN, &words(256, &[0, 512, many]));
        bad(OWN, &words(256, &[0, 0, 0, 0, 0, 0, 0, 0, 512, many]));
        bad(OWN, &words(256, &[1, 403, 400, 2, 0, 0, 0, 512, many]));
        bad(OWN, &words(256, &[1, 403, 400, many]));
    }
    // A list across its words, even one of nothing.
    bad(OWN, &words(256, &[0, 514, 0]));
    for (record, at) in
        [(words(256, &[3]), 400), (words(256, &[0, 0, 0, 2]), 400), (words(256, &[1, 403, 400, 2, 2]), 400)]
    {
        bad(OWN, &(record + &format!("(data (i32.const {at}) \"no\")")));
    }
    bad(OWN, &(words(256, &[1, 403, 400, 2]) + "(data (i32.const 400) \"\\ff\\fe\")"));
    bad(OWN, &denial(99, 2, None));
    bad(OWN, &denial(403, 10 << 20, None));
    let says = |data: &str| answer(&handwritten(OWN, ABSTAIN, data)).0;
    assert_eq!(says(&words(256, &[2])), "bad-output");
    assert_eq!(says(&words(256, &[0, 512, 1 << 31])), "bad-output");
    assert_eq!(says(&words(256, &[0, 512, 3000])), "bad-output", "3,000 empty texts are more than 64 KiB here");
    assert_eq!(says(&words(256, &[1, 1 << 30, 2])), "bad-output");
    assert_eq!(says(&words(256, &[1, 400, 0])), "configuration");
    assert_eq!(answer(&handwritten("(unreachable)", ABSTAIN, "")).0, "trap");
}

#[test]
fn calls_that_the_host_does_not_take() {
    let ends = |call: &str| answer(&importing(&format!("{call} (i32.const 128)"), "")).0;
    let fits = "(i32.const 1024) (i32.const 10)";
    for out in ["-4", "0x40000", "0x3fffc", "2050"] {
        assert_eq!(ends(&format!("(call $method (i32.const {out}))")), "bad-output", "{out}");
        assert_eq!(ends(&format!("(call $query (i32.const {out}))")), "bad-output", "{out}");
        assert_eq!(ends(&format!("(call $header {fits} (i32.const {out}))")), "bad-output", "{out}");
    }
    for text in ["(i32.const -1) (i32.const 2)", "(i32.const 1024) (i32.const -1)", "(i32.const 1136) (i32.const 2)"] {
        assert_eq!(ends(&format!("(call $header {text} (i32.const 2048))")), "bad-output", "{text}");
        assert_eq!(ends(&format!("(call $log (i32.const 0) {text})")), "bad-output", "{text}");
    }
    assert_eq!(ends(&format!("(call $log (i32.const 4) {fits})")), "bad-output");
    assert_eq!(ends(&format!("(call $digest (i32.const 3) {fits} (i32.const 2048))")), "bad-output");
    assert_eq!(ends(&format!("(call $digest (i32.const -1) {fits} (i32.const 2048))")), "bad-output");
    assert_eq!(ends(&format!("(call $verify (i32.const 5) {fits} {fits} {fits} (i32.const 2048))")), "bad-output");
    // 64 KiB in one call, all its texts together.
    let hashes =
        |bytes: u32| format!("(call $digest (i32.const 0) (i32.const 0) (i32.const {bytes}) (i32.const 2048))");
    assert_eq!([ends(&hashes(65_536)), ends(&hashes(65_537))], ["abstain", "bad-output"]);
    let equal =
        |bytes: u32| format!("(drop (call $equal (i32.const 0) (i32.const {bytes}) (i32.const 0) (i32.const 1)))");
    assert_eq!([ends(&equal(65_535)), ends(&equal(65_536))], ["abstain", "bad-output"]);
}

#[test]
fn allocators_that_do_otherwise() {
    let plain = "(i32.const 16384)";
    let ends = |allocate: &str, beside: &str| {
        answer(&with_allocator(allocate, "(call $method (i32.const 2048)) (i32.const 128)", beside)).0
    };
    assert_eq!(ends(plain, ""), "abstain");
    assert_eq!(ends("(call $method (i32.const 2048)) (i32.const 16384)", ""), "trap", "it may call nothing");
    assert_eq!(ends("(i32.const -1)", ""), "bad-output");
    assert_eq!(ends("(i32.const 0x3ffff)", ""), "bad-output");
    assert_eq!(ends("(loop (br 0)) (unreachable)", ""), "timeout");
    assert_eq!(ends("(unreachable)", ""), "trap");
    assert_eq!(
        ends(
            "(call $deep (i64.const 1)) (drop) (i32.const 16384)",
            "(func $deep (param i64) (result i64) (i64.add (i64.const 1) (call $deep (local.get 0))))"
        ),
        "stack-exhausted"
    );
    assert_eq!(
        ends("(drop (memory.grow (i32.const 1))) (i32.const 0x40000)", ""),
        "abstain",
        "what grew while it was asked counts"
    );
    assert_eq!(
        ends("(if (i32.eq (memory.grow (i32.const 65000)) (i32.const -1)) (then (unreachable))) (i32.const 0)", ""),
        "out-of-memory"
    );
    // Well while it configures, and not when it is asked.
    let later = "(global.set $next (i32.add (global.get $next) (i32.const 16))) (select (i32.const 16384) (i32.const -1) (i32.lt_u (global.get $next) (i32.const 16401)))";
    assert_eq!(answer(&with_allocator(later, "(call $method (i32.const 2048)) (i32.const 128)", "")).0, "bad-output");
}

#[test]
fn functions_that_run_before_and_after() {
    let ends = |beside: &str| answer(&importing("(i32.const 128)", beside)).0;
    let after = |body: &str| ends(&format!("(func (export \"cabi_post_authorize\") (param i32) {body})"));
    assert_eq!(
        after("(if (i32.ne (local.get 0) (i32.const 128)) (then (unreachable)))"),
        "abstain",
        "it is told the place"
    );
    assert_eq!(after("(call $method (i32.const 2048))"), "trap");
    assert_eq!(after("(unreachable)"), "trap");
    assert_eq!(after("(loop (br 0))"), "timeout");
    assert_eq!(ends("(func (export \"cabi_post_configure\") (param i32) (unreachable))"), "trap");
    assert_eq!(
        ends("(func (export \"_initialize\") (call $method (i32.const 2048)))"),
        "abstain",
        "it may call the host"
    );
    assert_eq!(ends("(func (export \"_initialize\") (unreachable))"), "trap");
    assert_eq!(ends("(func $begin (i32.store8 (i32.const 128) (i32.const 2))) (start $begin)"), "abstain");
    assert_eq!(
        ends("(func $begin (call $method (i32.const 2048))) (start $begin)"),
        "trap",
        "the host is not there yet"
    );
}

/// Verdicts that are nearly right: the path of a request is laid where the verdict is read from.
#[test]
fn whatever_the_answer_is() {
    let module = with_allocator("(i32.const 256)", "(call $path (i32.const 2048)) (i32.const 256)", "");
    let [direct, component] = both(&module).map(|policy| ready(policy, &json!({})).unwrap());
    let (mut dice, mut ends) = (Dice(0x5e60_e5e6), BTreeMap::<_, usize>::new());
    // One limit, one streams class, one tag; a denial with a header; each with texts at 352 and lists at 320. And no byte
    // above 127, since a path is text.
    let texts = [352, 2, 354, 2, 352, 2, 0, 0, u32::from_le_bytes(*b"abcd")];
    let allow = [0, 320, 1, 1, 352, 2, 354, 2, 336, 1, 0, 0, 0, 0, 0, 0];
    let deny = [1, 513, 352, 2, 0, 0, 0, 320, 1, 0, 0, 0, 0, 0, 0, 0];
    for _ in 0..20_000 {
        let record = [allow, deny][dice.next(2)].into_iter().chain(texts);
        let mut record: Vec<u8> = record.flat_map(u32::to_le_bytes).collect();
        for _ in 0..dice.next(4) {
            let place = dice.next(record.len());
            record[place] = [0, 1, 2, 3, 4, 8, 64, 127][dice.next(8)];
        }
        let path = String::from_utf8(record).unwrap();
        let [direct, component] = [&direct, &component]
            .map(|policy| policy.authorize(&RequestView::of(&path)).map_err(|failure| failure.kind()));
        assert_eq!(direct, component, "{path:?}");
        *ends.entry(direct.as_ref().map_or_else(|kind| *kind, Verdict::kind)).or_default() += 1;
    }
    for end in ["allow", "deny", "abstain", "bad-output"] {
        assert!(ends.get(end).is_some_and(|times| *times > 20), "{end}: {ends:?}");
    }
}

#[test]
fn what_is_not_plain_runs_as_a_component() {
    let asked = |module: &[u8]| {
        let policy = HOST.compile(module).unwrap();
        assert!(!policy.is_direct());
        ready(policy, &json!({})).unwrap().authorize(&RequestView::of("/")).unwrap().kind()
    };
    let text = r#"(module
        (memory (export "memory") 4)
        (func $realloc (param i32 i32 i32 i32) (result i32) (i32.const 16384))
        (export "REALLOC" (func $realloc))
        (func (export "configure") (param i32 i32) (result i32) (i32.const 64))
        (func (export "authorize") (param i64 i32 i32 i64 i32 i32 i32 i32) (result i32) (i32.const 128))
        (data (i32.const 128) "\02"))"#;
    let named = |name: &str| wat::parse_str(text.replace("REALLOC", name)).unwrap();
    assert_eq!(asked(&described(&named("cabi_realloc"), StringEncoding::UTF16)), "abstain");
    assert_eq!(asked(&named("canonical_abi_realloc")), "abstain");
    assert!(HOST.compile(&named("cabi_realloc")).unwrap().is_direct());
}
