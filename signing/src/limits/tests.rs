#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;

#[test]
fn kinds_are_read_by_their_words() {
    let kinds = Kinds::parse(&["segment".to_owned(), "playlist".to_owned()]).unwrap();
    assert!(kinds.has(Sort::Playlist) && kinds.has(Sort::Segment) && !kinds.has(Sort::Init));
    assert!(Kinds::parse(&["segments".to_owned()]).unwrap_err().contains("\"segment\""));
    assert!(Kinds::default().is_empty());
}

#[test]
fn the_least_of_a_class_is_its_numbers() {
    let limit: LimitConfig = serde_json::from_value(json!({ "rate": 2, "burst": 30, "per": "session" })).unwrap();
    assert_eq!(limit, LimitConfig::new(2.0, 30, Per::Session));
    let streams: StreamsConfig = serde_json::from_value(json!({ "max": 2 })).unwrap();
    assert_eq!(streams, StreamsConfig::new(2, OnExcess::StopOldest));
}

#[test]
fn a_class_comes_back_from_json_as_it_was() {
    let limit = LimitConfig {
        apply: Kinds::parse(&["init".to_owned(), "key".to_owned()]).unwrap(),
        shadow: true,
        on_outage: OnOutage::Closed,
        max_wait: Duration::from_millis(9),
        ..LimitConfig::new(0.5, 9, Per::Address)
    };
    let text = serde_json::to_value(&limit).unwrap();
    assert_eq!(text["apply"], json!(["init", "key"]));
    assert_eq!((&text["max_wait_ms"], &text["on_outage"]), (&json!(9), &json!("closed")));
    assert_eq!(serde_json::from_value::<LimitConfig>(text).unwrap(), limit);
    let streams = StreamsConfig { grace: Duration::from_secs(20), ..StreamsConfig::new(3, OnExcess::RefuseNewest) };
    let text = serde_json::to_value(&streams).unwrap();
    assert_eq!((&text["grace_ms"], &text["on_excess"]), (&json!(20_000), &json!("refuse-newest")));
    assert_eq!(serde_json::from_value::<StreamsConfig>(text).unwrap(), streams);
}

#[test]
fn everything_that_is_wrong_is_named() {
    let limit = LimitConfig { max_wait: Duration::from_secs(2), keys: 1, ..LimitConfig::new(f64::NAN, 0, Per::Track) };
    let slow = LimitConfig { lease: Duration::ZERO, ..LimitConfig::new(0.001, 1_000, Per::Track) };
    let streams = StreamsConfig { grace: Duration::from_secs(9_000), ..StreamsConfig::new(0, OnExcess::StopOldest) };
    let config = LimitsConfig {
        classes: BTreeMap::from([("A".to_owned(), limit), ("slow".to_owned(), slow)]),
        streams: BTreeMap::from([("a".to_owned(), streams.clone()), ("b".to_owned(), streams)]),
    };
    let found = config.problems().join("\n");
    for part in [
        "limits.A: a class's name is a word",
        "limits.A.rate: NaN tokens a second; use",
        "limits.A.burst: a bucket that holds nothing",
        "limits.A.max_wait: 2s is outside of 1ms to 1s",
        "limits.A.keys: 1 is outside",
        "limits.slow.burst: it would take more than 7 days",
        "limits.slow.lease: 0ns is outside",
        "streams.a.max: 0 sessions; use 1 to 100",
        "streams.a.grace: 9000s is outside",
        "streams.b: only one class of streams may apply by itself",
    ] {
        assert!(found.contains(part), "{part:?} is not in\n{found}");
    }
    let right = LimitsConfig {
        classes: BTreeMap::from([("a".to_owned(), LimitConfig::new(1.0, 1, Per::Track))]),
        ..LimitsConfig::default()
    };
    assert!(right.problems().is_empty());
}

#[test]
fn what_the_house_says_goes_over_what_an_edge_says_by_itself() {
    let limit = |rate| LimitConfig::new(rate, 10, Per::Track);
    let streams = |max| StreamsConfig::new(max, OnExcess::StopOldest);
    let own = LimitsConfig {
        classes: BTreeMap::from([("a".to_owned(), limit(1.0)), ("b".to_owned(), limit(1.0))]),
        streams: BTreeMap::from([("home".to_owned(), streams(1))]),
    };
    assert_eq!(LimitsConfig::default().over(&own), own);
    let house = LimitsConfig {
        classes: BTreeMap::from([("a".to_owned(), limit(2.0))]),
        streams: BTreeMap::from([("family".to_owned(), streams(4))]),
    };
    let merged = house.over(&own);
    assert_eq!((merged.classes["a"].rate, merged.classes["b"].rate), (2.0, 1.0));
    assert_eq!(merged.streams_by_themselves().collect::<Vec<_>>(), ["family"], "one of them at most");
    assert!(merged.streams.contains_key("home") && merged.problems().is_empty());
}
