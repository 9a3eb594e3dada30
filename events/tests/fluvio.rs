//! Through a real cluster and back. Wants `SEGUE_TEST_FLUVIO`, the address of its controller, and says so without it.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use segue_events::{
    Codec, EventLog, Fact, FactDraft, FluvioConfig, FluvioReader, FluvioSink, LogOptions, Shipped, ship,
};
use tokio_util::sync::CancellationToken;

/// A configuration with topics of its own.
fn cluster(test: &str) -> Option<FluvioConfig> {
    let Ok(address) = std::env::var("SEGUE_TEST_FLUVIO") else {
        eprintln!("SKIPPED: {test} was NOT run: SEGUE_TEST_FLUVIO does not name a Fluvio cluster");
        return None;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    Some(FluvioConfig { prefix: format!("test-{test}-{now}-"), ..FluvioConfig::new(address) })
}

fn deliver(log: &EventLog, number: u64) {
    let (sid, file) = (format!("session-{}", number % 97), format!("a128/seg-{number:07}.m4s"));
    let ua = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
    let draft = FactDraft {
        track: "k3v9x2m4q7wz",
        file: &file,
        sid: &sid,
        status: 200,
        bytes: 1,
        ua: Some(ua),
        ..FactDraft::default()
    };
    log.note(draft).settle(true, 1).expect("room");
}

/// Reads every partition until `count` records were read, and looks that nothing is left out.
async fn read(config: &FluvioConfig, count: usize) -> Vec<(u32, Fact)> {
    let mut reader = FluvioReader::connect(config, "segments").await.expect("a reader");
    let mut at: BTreeMap<u32, u64> = (0..reader.partitions()).map(|number| (number, 0)).collect();
    let (mut facts, began) = (Vec::new(), Instant::now());
    while facts.len() < count {
        assert!(began.elapsed() < Duration::from_secs(120), "{} of {count} came", facts.len());
        for (number, at) in &mut at {
            let fetched = reader.fetch(*number, *at).await.expect("fetched");
            assert_eq!((fetched.lost, fetched.anew), (0, false));
            for (offset, record) in fetched.records {
                assert_eq!(offset, *at);
                *at += 1;
                facts.push((*number, serde_json::from_str(&record).expect("a fact")));
            }
            assert_eq!(fetched.next, *at);
        }
    }
    for (number, at) in &at {
        assert_eq!(reader.span(*number).await.expect("a span"), (0, *at));
    }
    facts
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_come_back_once_each_and_each_session_in_its_order() {
    const FACTS: u64 = 40_000;
    for (test, compression) in [("plain", Codec::None), ("zstd", Codec::Zstd)] {
        let Some(config) = cluster(test).map(|config| FluvioConfig { compression, ..config }) else { return };
        let dir = tempfile::tempdir().unwrap();
        let log = EventLog::open(dir.path(), "e1", LogOptions::default()).unwrap();
        (0..FACTS).for_each(|number| deliver(&log, number));
        let (mut sink, shipped, stop) =
            (FluvioSink::new(&config, "segments"), Shipped::default(), CancellationToken::new());
        stop.cancel();
        ship(log.facts(), "facts", &mut sink, &shipped, &stop).await;
        assert_eq!((shipped.records(), shipped.failures().len()), (FACTS, 0), "{shipped:?}");
        assert_eq!(log.facts().acknowledged(), log.facts().end());
        let facts = read(&config, FACTS as usize).await;
        let ids: BTreeSet<&str> = facts.iter().map(|(_, fact)| fact.id.as_str()).collect();
        assert_eq!((facts.len(), ids.len()), (FACTS as usize, FACTS as usize));
        let mut sessions: BTreeMap<&str, (BTreeSet<u32>, Vec<&str>)> = BTreeMap::new();
        for (partition, fact) in &facts {
            let (partitions, files) = sessions.entry(&fact.sid).or_default();
            partitions.insert(*partition);
            files.push(&fact.file);
        }
        assert!(sessions.values().all(|(partitions, files)| partitions.len() == 1 && files.is_sorted()));
        assert_eq!(sessions.values().flat_map(|(partitions, _)| partitions).collect::<BTreeSet<_>>().len(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lies_where_the_clients_own_producer_puts_it() {
    let Some(config) = cluster("keys") else { return };
    let mut sink = FluvioSink::new(&config, "segments");
    let record = |sid: &str, by: &str| {
        format!(
            "{{\"v\":1,\"id\":\"{by}-b-1\",\"ts\":1,\"edge\":\"e\",\"track\":\"t\",\"file\":\"f\",\"kind\":\"segment\",\"sid\":\"{sid}\",\"status\":200,\"ttfb_ms\":1,\"cache\":\"miss\",\"bytes\":1,\"complete\":true}}"
        )
    };
    let sids: Vec<String> = (0..40).map(|n| format!("session-{n}-ü")).collect();
    let ours: Vec<_> = sids.iter().map(|sid| (sid.clone(), record(sid, "ours"))).collect();
    sink.publish(&ours).await.expect("published");
    let client =
        fluvio::Fluvio::connect_with_config(&fluvio::FluvioConfig::new(&config.endpoint)).await.expect("a client");
    let theirs = client.topic_producer(config.topic("segments")).await.expect("a producer");
    for sid in &sids {
        theirs.send(sid.as_str(), record(sid, "theirs")).await.expect("sent");
    }
    theirs.flush().await.expect("flushed");
    let mut places: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for (partition, fact) in read(&config, 80).await {
        places.entry(fact.sid).or_default().insert(partition);
    }
    assert!(places.len() == 40 && places.values().all(|places| places.len() == 1), "{places:?}");
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_an_error_within_its_bound_and_the_log_keeps_everything() {
    // Needs no cluster: a port that nobody listens on.
    let config = FluvioConfig::new("127.0.0.1:9");
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open(dir.path(), "e1", LogOptions::default()).unwrap();
    (0..100).for_each(|number| deliver(&log, number));
    let (mut sink, shipped, stop) =
        (FluvioSink::new(&config, "segments"), Shipped::default(), CancellationToken::new());
    stop.cancel();
    let shipping = ship(log.facts(), "facts", &mut sink, &shipped, &stop);
    tokio::time::timeout(Duration::from_secs(60), shipping).await.expect("it ends");
    assert_eq!(shipped.failures(), BTreeMap::from([("unreachable", 1)]));
    assert_eq!((shipped.records(), log.facts().acknowledged()), (0, log.facts().start()));
}
