//! The published schemas, the serde types and the hand-written serialiser must say the same thing.
#![allow(clippy::expect_used, reason = "a test stops where it fails")]

use std::sync::Arc;

use segue_events::{
    CacheState, Denial, DenialDraft, EventLog, Fact, FactDraft, Kind, Log, LogOptions, Position, bounds,
};
use serde_json::{Map, Value, json};

const FACT: &str = include_str!("../schema/fact.v1.schema.json");
const DENIAL: &str = include_str!("../schema/denial.v1.schema.json");

/// The schema as published lets fields be added; here every field must be in it.
fn strict(schema: &str) -> jsonschema::Validator {
    let mut schema: Value = serde_json::from_str(schema).expect("the schema is JSON");
    schema["additionalProperties"] = Value::Bool(false);
    jsonschema::validator_for(&schema).expect("the schema is a schema")
}

fn log() -> (tempfile::TempDir, Arc<EventLog>) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let options = LogOptions { slots: 8, ..LogOptions::default() };
    let log = EventLog::open(dir.path(), "edge-1.test", options).expect("opened");
    (dir, log)
}

fn only(log: &Log) -> String {
    let mut batch = log.read(Position(0), 10).expect("read");
    assert_eq!(batch.records.len(), 1);
    batch.records.remove(0).1
}

fn valid(schema: &jsonschema::Validator, value: &Value) {
    if let Some(error) = schema.iter_errors(value).next() {
        panic!("{error} at {} in {value}", error.instance_path());
    }
}

fn cmcd() -> Map<String, Value> {
    json!({"br": 128, "bl": 21300, "sid": "6e2f", "su": true}).as_object().cloned().expect("object")
}

#[test]
fn a_full_fact_has_every_field_of_the_schema_and_of_the_type() {
    let (_dir, log) = log();
    let (tags, cmcd) = (["gold".to_owned(), "a\"b".to_owned()], cmcd());
    let intent = log.note(FactDraft {
        ts: Some(1_763_800_000_123),
        track: "abcdefghijkl",
        version: Some("0123456789abcdef-7"),
        file: "a128/seg-00003.m4s",
        kind: Kind::Segment,
        pos_ms: Some(18_000),
        media_ms: Some(6_000),
        sid: "s-1",
        sub: Some("listener \u{1F3B5}"),
        status: 206,
        bytes: 1000,
        range: Some([0, 999, 96_000]),
        ttfb_ms: 7,
        cache: CacheState::HitDisk,
        policy: Some("geo@1.2.0"),
        tags: &tags,
        ua: Some("Player/1 (\\\"x\\\")"),
        ip_hash: Some("k3-9f8e7d6c"),
        cmcd: Some(&cmcd),
    });
    let id = intent.id();
    intent.settle(false, 512);
    let text = only(log.facts());
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let fact: Fact = serde_json::from_str(&text).expect("a fact");
    assert_eq!(serde_json::to_value(&fact).expect("JSON"), value, "serde writes what the log wrote");
    valid(&strict(FACT), &value);
    assert_eq!((fact.id, fact.bytes, fact.complete, fact.ts), (id, 512, false, 1_763_800_000_123));
    assert_eq!((fact.range, fact.cache, fact.cmcd), (Some([0, 999, 96_000]), CacheState::HitDisk, Some(cmcd)));
    assert_eq!((fact.tags.as_slice(), fact.ua.as_deref()), (tags.as_slice(), Some("Player/1 (\\\"x\\\")")));
    let schema: Value = serde_json::from_str(FACT).expect("JSON");
    for name in schema["properties"].as_object().expect("object").keys().filter(|name| *name != "recovered") {
        assert!(value.get(name).is_some(), "{name} is in the schema and not in a full fact");
    }
}

#[test]
fn a_bare_fact_has_what_the_schema_requires_and_no_more() {
    let (_dir, log) = log();
    log.note(FactDraft {
        track: "t",
        file: "init.mp4",
        kind: Kind::Init,
        sid: "s",
        status: 200,
        ..FactDraft::default()
    })
    .settle(true, 842);
    let text = only(log.facts());
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let schema: Value = serde_json::from_str(FACT).expect("JSON");
    valid(&strict(FACT), &value);
    let mut required: Vec<&str> =
        schema["required"].as_array().expect("array").iter().filter_map(Value::as_str).collect();
    let mut there: Vec<&str> = value.as_object().expect("object").keys().map(String::as_str).collect();
    required.sort_unstable();
    there.sort_unstable();
    assert_eq!(there, required);
    let fact: Fact = serde_json::from_str(&text).expect("a fact");
    assert_eq!(serde_json::to_value(&fact).expect("JSON"), value);
}

#[test]
fn every_kind_cache_state_and_mark_is_in_the_schema() {
    let (_dir, log) = log();
    log.note(FactDraft { track: "t", file: "f", sid: "s", status: 200, ..FactDraft::default() }).settle(true, 1);
    let mut fact: Fact = serde_json::from_str(&only(log.facts())).expect("a fact");
    let schema = strict(FACT);
    use CacheState::{Bypass, Coalesced, HitDisk, HitMemory, Miss, Stale};
    for cache in [HitMemory, HitDisk, Miss, Coalesced, Stale, Bypass] {
        for kind in [Kind::Init, Kind::Segment] {
            for recovered in [false, true] {
                (fact.cache, fact.kind, fact.recovered) = (cache, kind, recovered);
                let value = serde_json::to_value(&fact).expect("JSON");
                valid(&schema, &value);
                assert_eq!(value["cache"], cache.as_str());
                assert_eq!(value["kind"], kind.as_str());
                assert_eq!(value.get("recovered").is_some(), recovered);
            }
        }
    }
    let mut wrong = serde_json::to_value(&fact).expect("JSON");
    wrong["cache"] = json!("warm");
    assert!(!schema.is_valid(&wrong), "the schema refuses what the type has no word for");
}

#[test]
fn denials_match_schema_and_type_full_and_bare() {
    let schema = strict(DENIAL);
    let full = DenialDraft {
        ts: Some(5),
        track: Some("abcdefghijkl"),
        path: "/hls/abcdefghijkl/master.m3u8",
        reason: "out-of-scope",
        status: 403,
        sid: Some("s"),
        ip_hash: Some("h"),
        ua: Some("curl/8"),
    };
    for draft in [full, DenialDraft { path: "/", reason: "ticket-missing", status: 401, ..DenialDraft::default() }] {
        let (_dir, log) = log();
        log.deny(draft);
        let text = only(log.denials());
        let value: Value = serde_json::from_str(&text).expect("JSON");
        valid(&schema, &value);
        let denial: Denial = serde_json::from_str(&text).expect("a denial");
        assert_eq!(serde_json::to_value(&denial).expect("JSON"), value);
        assert_eq!((denial.path.as_str(), denial.status), (draft.path, draft.status));
        let published: Value = serde_json::from_str(DENIAL).expect("JSON");
        let expected = if draft.track.is_some() { &published["properties"] } else { &published["required"] };
        let count = expected.as_object().map(Map::len).or(expected.as_array().map(Vec::len));
        assert_eq!(value.as_object().map(Map::len), count);
    }
}

#[test]
fn oversized_strings_are_cut_to_their_bounds_and_the_record_stays_valid() {
    let (_dir, log) = log();
    for filler in ["x", "\"", "\u{1}", "\u{1F3B5}"] {
        let long = filler.repeat(100_000);
        let tags: Vec<String> = (0..1000).map(|n| format!("tag-{n}{}", filler.repeat(n % 90))).collect();
        let cmcd: Map<String, Value> =
            (0..1000).map(|n| (format!("k{n}"), Value::from(filler.repeat(n % 50)))).collect();
        let max = u64::MAX;
        log.note(FactDraft {
            ts: Some(max),
            track: &long,
            version: Some(&long),
            file: &long,
            pos_ms: Some(max),
            media_ms: Some(max),
            sid: &long,
            sub: Some(&long),
            status: 599,
            range: Some([max; 3]),
            ttfb_ms: u32::MAX,
            cache: CacheState::HitMemory,
            policy: Some(&long),
            tags: &tags,
            ua: Some(&long),
            ip_hash: Some(&long),
            cmcd: Some(&cmcd),
            ..FactDraft::default()
        })
        .settle(false, max);
        log.deny(DenialDraft {
            ts: Some(max),
            track: Some(&long),
            path: &long,
            reason: &long,
            status: 599,
            sid: Some(&long),
            ip_hash: Some(&long),
            ua: Some(&long),
        });
    }
    assert_eq!(log.overflow(), segue_events::Overflow::default());
    for (log, schema) in [(log.facts(), FACT), (log.denials(), DENIAL)] {
        let batch = log.read(Position(0), 10).expect("read");
        assert_eq!(batch.records.len(), 4);
        for (_, text) in batch.records {
            assert!(text.len() <= bounds::RECORD, "{} bytes", text.len());
            valid(&strict(schema), &serde_json::from_str(&text).expect("JSON"));
        }
    }
    let batch = log.facts().read(Position(0), 1).expect("read");
    let fact: Fact = serde_json::from_str(&batch.records[0].1).expect("a fact");
    assert_eq!((fact.sid.len(), fact.ua.map(|ua| ua.len())), (bounds::SID, Some(bounds::UA)));
    assert!(fact.tags.len() > 5 && fact.cmcd.is_some_and(|cmcd| cmcd.len() > 5));
}
