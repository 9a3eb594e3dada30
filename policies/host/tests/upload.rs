//! Hostile uploads in bulk: ready-made policies, damaged in ways that reach past the parser, through everything that an upload goes
//! through. Each is refused with a reason or runs within its bounds; nothing crashes, hangs or grows.
//!
//! `fuzz/fuzz_targets/policy_upload.rs` does the same with a fuzzer that sees which code each input reaches.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/built.rs"]
mod ready_made;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use segue_policy_host::vectors::{Vectors, attach};
use segue_policy_host::{
    AccessPolicy, Bounds, FailMode, HostConfig, PolicyHost, RequestView, Services, TicketScheme, World,
};
use serde_json::json;
use support::{ABSTAIN, Dice, FINE, OWN, denial, handwritten};

/// How long the vectors of one upload may run; as short as its calls are made here.
const VECTORS: Duration = Duration::from_millis(200);

/// A host whose calls end soon, so that many loops fit into one test.
fn host() -> PolicyHost {
    let bounds = Bounds { call: Duration::from_millis(2), configure: Duration::from_millis(20), ..Bounds::default() };
    PolicyHost::new(HostConfig { bounds, cache: None }).unwrap()
}

/// Everything that an upload goes through; the word for how it ended.
fn upload(host: &PolicyHost, bytes: &[u8]) -> &'static str {
    let policy = match host.compile(bytes) {
        Ok(policy) => policy,
        Err(refused) => return refused.kind(),
    };
    let (config, services) = (json!({ "allow": ["DE"] }), Arc::new(Services::default()));
    match policy.checked().world {
        World::Access => {
            if let Ok(policy) = AccessPolicy::new(policy.clone(), "x@1", &config, services, FailMode::Closed) {
                _ = policy.authorize(&RequestView::of("/hls/t/master.m3u8"));
            }
        }
        World::TicketScheme => {
            if let Ok(scheme) = TicketScheme::new(policy.clone(), "x@1", &config, services) {
                _ = scheme.verify(&RequestView::of("/hls/t/master.m3u8"));
            }
        }
    }
    match Vectors::inside(bytes) {
        Err(_) => "bad-vectors",
        Ok(None) => "without-vectors",
        Ok(Some(vectors)) => match vectors.run_until(&policy, Instant::now() + VECTORS) {
            Err(_) => "bad-vectors",
            Ok(outcomes) if outcomes.len() == vectors.len() && outcomes.iter().all(|outcome| outcome.passed) => {
                "passed"
            }
            Ok(_) => "vectors-fail",
        },
    }
}

/// Bits and bytes here and there.
fn flipped(dice: &mut Dice, whole: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..=dice.next(4) {
        if bytes.is_empty() {
            break;
        }
        let place = dice.next(bytes.len());
        match dice.next(4) {
            0 => bytes[place] = u8::try_from(dice.next(256)).unwrap(),
            1 => bytes[place] ^= 1 << dice.next(8),
            2 => drop(bytes.remove(place)),
            // The largest and smallest numbers of LEB128, and what opcodes are many of.
            _ => bytes[place] = [0x7f, 0x80, 0xff, 0x00, 0x41, 0x0b][dice.next(6)],
        }
    }
    bytes
}

/// The sections of a module or component: identity and content.
fn sections(whole: &[u8]) -> Vec<(u8, &[u8])> {
    let (mut out, mut at) = (Vec::new(), 8);
    while at < whole.len() {
        let identity = whole[at];
        at += 1;
        let (mut size, mut shift) = (0_usize, 0);
        loop {
            let byte = whole[at];
            at += 1;
            size |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        out.push((identity, &whole[at..at + size]));
        at += size;
    }
    out
}

/// Whole sections dropped, doubled, exchanged, taken from another policy or damaged, with sizes that are right.
fn rearranged(dice: &mut Dice, whole: &[u8], other: &[u8]) -> Vec<u8> {
    let mut parts: Vec<(u8, Vec<u8>)> =
        sections(whole).into_iter().map(|(identity, content)| (identity, content.to_vec())).collect();
    let foreign = sections(other);
    for _ in 0..=dice.next(2) {
        let (one, two) = (dice.next(parts.len()), dice.next(parts.len()));
        match dice.next(6) {
            0 => drop(parts.remove(one)),
            1 => parts.insert(one, parts[two].clone()),
            2 => parts.swap(one, two),
            3 => {
                let (identity, content) = foreign[dice.next(foreign.len())];
                parts.insert(one, (identity, content.to_vec()));
            }
            4 if !parts[one].1.is_empty() => parts[one].1 = flipped(dice, &parts[one].1),
            _ => parts[one].0 = u8::try_from(dice.next(14)).unwrap(),
        }
        if parts.is_empty() {
            break;
        }
    }
    let mut out = whole[..8].to_vec();
    for (identity, content) in parts {
        out.push(identity);
        let mut size = content.len();
        while size >= 0x80 {
            out.push((size & 0x7f) as u8 | 0x80);
            size >>= 7;
        }
        out.push(size as u8);
        out.extend_from_slice(&content);
    }
    out
}

/// Vectors of any sort behind a policy that is well: they are hostile as the rest is.
fn other_vectors(dice: &mut Dice, whole: &[u8]) -> Vec<u8> {
    let many = |count: usize| vec![json!({ "name": "x", "expect": {} }); count];
    let texts = [
        json!({ "vectors": many(5_000) }),
        json!({ "vectors": [], "keys": { "k": "-----BEGIN PRIVATE KEY-----\nAAAA" } }),
        json!({ "config": "x".repeat(1 << 20), "vectors": many(3) }),
        json!({ "vectors": [{ "name": "x", "request": { "kind": "song" }, "expect": {} }] }),
        json!({ "vectors": [{ "name": "x", "grant": { "url": "", "expires": 0 }, "expect": 7 }] }),
    ];
    attach(whole, texts[dice.next(texts.len())].to_string().as_bytes()).unwrap()
}

/// Bytes that this process holds in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Damages `seeds` again and again, `count` times, and says how they ended.
fn bombarded(seeds: &[Vec<u8>], count: usize, seed: u64) -> BTreeMap<&'static str, usize> {
    let (host, mut dice, mut ends) = (host(), Dice(seed), BTreeMap::new());
    let mut warm = 0;
    for number in 0..count {
        let whole = &seeds[dice.next(seeds.len())];
        let other = &seeds[dice.next(seeds.len())];
        let bytes = match dice.next(20) {
            0..9 => flipped(&mut dice, whole),
            9..18 => rearranged(&mut dice, whole, other),
            18 => whole[..dice.next(whole.len())].to_vec(),
            _ => other_vectors(&mut dice, whole),
        };
        *ends.entry(upload(&host, &bytes)).or_default() += 1;
        if number == count / 2 {
            warm = resident();
        }
    }
    let grown = resident().saturating_sub(warm);
    assert!(grown < 64 << 20, "{grown} bytes more after the second half");
    assert_ne!(upload(&host, &seeds[0]), "host", "the host goes on");
    ends
}

#[test]
fn small_modules() {
    let body = "(local $n i32) (local.set $n (i32.const 900)) (loop $again (local.set $n (i32.sub (local.get $n) (i32.const 1))) (br_if $again (local.get $n)))";
    let c = std::fs::read(ready_made::built(&["household-c"]).join("household-c.wasm")).unwrap();
    let seeds = [
        c,
        handwritten(FINE, OWN, &denial(403, 2, Some(("x-why", "law")))),
        handwritten(FINE, &format!("{body} {ABSTAIN}"), "(table 4 funcref) (global (mut i32) (i32.const 7))"),
        handwritten(
            "(drop (memory.grow (i32.const 4))) (i32.const 64)",
            ABSTAIN,
            r#"(data (i32.const 4096) "some data")"#,
        ),
    ];
    let ends = bombarded(&seeds, 3_000, 0x5e60_e5e6);
    println!("{ends:?}");
    for kind in ["invalid", "missing-export", "contract-mismatch", "vectors-fail", "bad-vectors", "without-vectors"] {
        assert!(ends.contains_key(kind), "{kind} never came: {ends:?}");
    }
}

#[test]
fn ready_made_policies() {
    let folder = ready_made::built(&[]);
    let read = |name: &str| std::fs::read(folder.join(format!("{name}.wasm"))).unwrap();
    let ends = bombarded(&["country", "household", "secure-link", "cat"].map(read), 300, 0x0bad_cafe);
    println!("{ends:?}");
    assert!(ends.len() >= 3, "{ends:?}");
}
