use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::{EventLog, FactDraft, LogOptions, Most};

/// A consumer that remembers what it was given, and how often it was to refuse.
#[derive(Debug, Default)]
struct Memory {
    taken: Vec<String>,
    /// Refuse every ninth parcel, half of them after all of it was taken: the answer was lost.
    moody: bool,
    parcels: u64,
    gone_on_from: Option<Position>,
}

impl Sink for Memory {
    const KIND: &'static str = "memory";
    const MOST: Most = Most { records: 7, bytes: 900 };

    async fn take(&mut self, parcel: Parcel<'_>) -> Result<Position, SinkError> {
        if parcel.records.is_empty() {
            return Ok(self.gone_on_from.unwrap_or(parcel.log.acknowledged()));
        }
        self.parcels += 1;
        let size: usize = parcel.records.iter().map(|(_, record)| record.len() + 1).sum();
        assert!(parcel.records.len() <= 7 && (size <= 900 || parcel.records.len() == 1), "{size}");
        let knows_less = self.gone_on_from.is_some();
        assert!(knows_less || parcel.log.acknowledged() <= parcel.from, "acknowledged before it was taken");
        let refuses = self.moody && self.parcels.is_multiple_of(9);
        if !refuses || self.parcels.is_multiple_of(2) {
            self.taken.extend(parcel.records.iter().map(|(_, record)| record.clone()));
        }
        if refuses { Err(SinkError::new("moody", "not today")) } else { Ok(parcel.next) }
    }
}

fn open(dir: &Path) -> Arc<EventLog> {
    EventLog::open(dir, "e1", LogOptions::default()).expect("opened")
}

fn deliver(log: &EventLog, session: usize, segment: usize) {
    let (sid, file) = (format!("s{session}"), format!("seg-{segment}{}", "x".repeat(segment % 50)));
    log.note(FactDraft { track: "t", file: &file, sid: &sid, status: 200, ..FactDraft::default() }).settle(true, 1);
}

/// The segments of a session in the order in which they came first.
fn order(taken: &[String], session: usize) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let facts = taken.iter().map(|record| serde_json::from_str::<crate::Fact>(record).expect("a fact"));
    let of_session = facts.filter(|fact| fact.sid == format!("s{session}"));
    of_session.filter(|fact| seen.insert(fact.id.clone())).map(|fact| fact.file).collect()
}

#[tokio::test]
async fn a_sink_that_fails_and_loses_answers_gets_everything_in_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = open(dir.path());
    let (mut sink, shipped) = (Memory { moody: true, ..Memory::default() }, Shipped::default());
    // Half is there when it begins, half comes meanwhile; what is left at the end goes out before it ends.
    for segment in 0..100 {
        (0..3).for_each(|session| deliver(&log, session, segment));
    }
    let stop = CancellationToken::new();
    let come = async {
        for segment in 100..200 {
            (0..3).for_each(|session| deliver(&log, session, segment));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        while log.facts().acknowledged() < log.facts().end() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
    };
    tokio::join!(ship(log.facts(), "facts", &mut sink, &shipped, &stop), come);
    for session in 0..3 {
        let files = order(&sink.taken, session);
        assert_eq!(files.len(), 200);
        assert!(files.iter().enumerate().all(|(n, file)| file.trim_end_matches('x') == format!("seg-{n}")));
    }
    assert!(sink.taken.len() > 600, "some came twice");
    assert_eq!(shipped.records(), 600);
    assert!(shipped.failures()["moody"] > 4, "{shipped:?}");
    assert_eq!(shipped.lost_bytes(), 0);
}

#[tokio::test]
async fn the_next_process_goes_on_after_what_was_acknowledged_and_a_sink_that_knows_better_is_believed() {
    let dir = tempfile::tempdir().expect("a folder");
    let (shipped, stop) = (Shipped::default(), CancellationToken::new());
    stop.cancel();
    let place = {
        let log = open(dir.path());
        (0..10).for_each(|segment| deliver(&log, 0, segment));
        let mut sink = Memory::default();
        ship(log.facts(), "facts", &mut sink, &shipped, &stop).await;
        assert_eq!(sink.taken.len(), 10, "what is there goes out though it is over");
        log.facts().read(log.facts().start(), 4).expect("read").next
    };
    let log = open(dir.path());
    (10..15).for_each(|segment| deliver(&log, 0, segment));
    let mut sink = Memory::default();
    ship(log.facts(), "facts", &mut sink, &shipped, &stop).await;
    assert_eq!(order(&sink.taken, 0).len(), 5);
    // The other side came back from an older copy: it has four of them.
    let mut sink = Memory { gone_on_from: Some(place), ..Memory::default() };
    ship(log.facts(), "facts", &mut sink, &shipped, &stop).await;
    assert_eq!(order(&sink.taken, 0).len(), 11);
    // And one that knows of more than there is does not make this spin: it is asked again after a pause.
    let mut sink = Memory { gone_on_from: Some(Position(1 << 40)), ..Memory::default() };
    ship(log.facts(), "facts", &mut sink, &shipped, &stop).await;
    assert_eq!(shipped.failures().get("ahead"), Some(&1));
}
