//! A process is killed in the middle of appends and settles, again and again on the same directory. What it said
//! it had settled must be there once and whole.
#![allow(clippy::expect_used, reason = "a test stops where it fails")]

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use segue_events::{EventLog, Fact, FactDraft, Intent, LogBounds, LogOptions, Position, WhenFull};

const DIR: &str = "SEGUE_EVENTS_CRASH_DIR";
const CONSUME: &str = "SEGUE_EVENTS_CRASH_CONSUME";
const WRITERS: u64 = 4;
/// Intents that each writer holds open: in flight when the kill comes.
const HELD: usize = 6;

/// Small files, so that a kill often lands where one ends and the next begins.
fn options(consume: bool) -> LogOptions {
    let bytes = if consume { 1 << 20 } else { 1 << 30 };
    let bounds = LogBounds { bytes, retain: 64 * 1024, segment: 32 * 1024, full: WhenFull::DropNewest };
    // With a consumer there are fewer slots than are held at times, so that facts without one are in the mix.
    LogOptions { facts: bounds, denials: bounds, slots: if consume { 20 } else { 64 } }
}

/// A small generator of our own: the seed is all that a failure needs to be looked into.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// One line, one write: a pipe keeps it whole, and a kill cannot tear it.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).expect("the parent reads");
}

/// The process that is killed. Not a test of its own: without the directory it has nothing to do.
#[test]
#[ignore = "run by the tests of this file, and killed by them"]
fn writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let consume = std::env::var_os(CONSUME).is_some();
    let log = EventLog::open(Path::new(&dir), "edge", options(consume)).expect("opened");
    say("open");
    if consume {
        let log = Arc::clone(&log);
        std::thread::spawn(move || read_and_acknowledge(&log));
    }
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || write(&log, Random(0x9e37_79b9 + u64::from(std::process::id()) * 7 + number)))
        })
        .collect();
    for writer in writers {
        writer.join().expect("writer");
    }
}

fn write(log: &EventLog, mut random: Random) {
    let mut held: Vec<(String, u64, Intent)> = Vec::new();
    loop {
        let size = random.below(380);
        let letter = char::from(b'a' + random.below(26) as u8);
        let ua: String = std::iter::repeat_n(letter, size as usize).collect();
        let intent = log.note(FactDraft {
            track: "track",
            file: &format!("{size}"),
            sid: "s",
            status: 200,
            bytes: size,
            ua: Some(&ua),
            ..FactDraft::default()
        });
        let id = intent.id();
        say(&format!("noted {id}"));
        held.push((id, size, intent));
        while held.len() > HELD || (!held.is_empty() && random.below(3) == 0) {
            let (id, size, intent) = held.swap_remove(random.below(held.len() as u64) as usize);
            let complete = random.below(4) > 0;
            let bytes = if complete { size } else { size / 2 };
            if intent.settle(complete, bytes).is_some() {
                say(&format!("settled {id} {bytes} {complete}"));
            } else {
                say(&format!("dropped {id}"));
            }
        }
    }
}

fn read_and_acknowledge(log: &EventLog) {
    let mut at = log.facts().acknowledged();
    loop {
        let batch = log.facts().read(at, 100).expect("read");
        assert_eq!(batch.skipped, 0, "nothing unread went away");
        for (_, text) in &batch.records {
            let fact: Fact = serde_json::from_str(text).expect("a whole fact while others are being written");
            say(&format!("read {}", fact.id));
        }
        at = batch.next;
        log.facts().acknowledge(at);
        if batch.records.is_empty() {
            std::thread::yield_now();
        }
    }
}

/// What the killed processes said.
#[derive(Default)]
struct Said {
    noted: HashSet<String>,
    settled: HashMap<String, (u64, bool)>,
    dropped: HashSet<String>,
    read: HashSet<String>,
    opened: u32,
}

impl Said {
    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["open"] => self.opened += 1,
            ["noted", id] => assert!(self.noted.insert(id.to_owned()), "{id} was given twice"),
            ["settled", id, bytes, complete] => {
                let said = (bytes.parse().expect("number"), complete == "true");
                assert!(self.settled.insert(id.to_owned(), said).is_none());
            }
            ["dropped", id] => assert!(self.dropped.insert(id.to_owned())),
            ["read", id] => {
                self.read.insert(id.to_owned());
            }
            _ => assert!(!line.contains("panicked"), "{line}"),
        }
    }
}

fn spawn(dir: &Path, consume: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "writes_until_it_is_killed", "--ignored", "--nocapture"]).env(DIR, dir);
    if consume {
        command.env(CONSUME, "1");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("spawned")
}

/// Lets time go by: the moment of the kill is what is random here.
fn pass(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// Starts the writer and kills it after `life`, counted from its start or from its first word.
fn kill_one(dir: &Path, consume: bool, life: Duration, from_start: bool, said: &mut Said) {
    let mut child = spawn(dir, consume);
    let started = Instant::now();
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        for line in lines.by_ref() {
            let line = line.expect("UTF-8");
            if all.is_empty() {
                // The parent may not wait for it.
                let _unheard = tell.send(());
            }
            all.push(line);
        }
        all
    });
    if from_start {
        pass(life.saturating_sub(started.elapsed()));
    } else {
        told.recv_timeout(Duration::from_secs(30)).expect("the writer begins");
        pass(life);
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("gone");
    for line in reader.join().expect("reader") {
        said.line(&line);
    }
}

fn facts(log: &EventLog, mut at: Position) -> Vec<Fact> {
    let mut facts = Vec::new();
    loop {
        let batch = log.facts().read(at, 500).expect("read");
        assert_eq!(batch.skipped, 0, "no damage and no gap");
        if batch.records.is_empty() {
            return facts;
        }
        at = batch.next;
        facts.extend(batch.records.iter().map(|(_, text)| serde_json::from_str::<Fact>(text).expect("a whole fact")));
    }
}

/// Kills `rounds` writers on one directory and gives what they said and what is left in the log.
fn rounds(rounds: u32, consume: bool) -> (Said, Vec<Fact>) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut said = Said::default();
    let seed = Instant::now().elapsed().subsec_nanos() as u64 ^ u64::from(std::process::id()) << 20 | 1;
    let mut random = Random(seed);
    for round in 0..rounds {
        // Every third is killed wherever it is, perhaps in the middle of recovering from the one before.
        let life = Duration::from_micros(random.below(if round % 3 == 0 { 12_000 } else { 40_000 }));
        kill_one(dir.path(), consume, life, round % 3 == 0, &mut said);
    }
    assert!(said.opened * 2 > rounds, "most writers got to write: {} of {rounds}", said.opened);
    let log = EventLog::open(dir.path(), "edge", options(consume)).expect("opened after the kills");
    assert_eq!(log.overflow().damaged, 0);
    let left = facts(&log, log.facts().start());
    // Opening once more recovers nothing a second time.
    let end = log.facts().end();
    drop(log);
    let log = EventLog::open(dir.path(), "edge", options(consume)).expect("opened again");
    assert_eq!(log.facts().end(), end);
    (said, left)
}

#[test]
fn what_was_settled_before_a_kill_is_there_once_and_whole() {
    let (said, left) = rounds(30, false);
    let mut by_id = HashMap::new();
    for fact in &left {
        assert!(by_id.insert(fact.id.as_str(), fact).is_none(), "{} is there twice", fact.id);
        let ua = fact.ua.as_deref().unwrap_or_default();
        assert_eq!(fact.file, ua.len().to_string(), "{} is of one piece", fact.id);
        assert!(ua.as_bytes().windows(2).all(|pair| pair[0] == pair[1]), "{} is of one piece", fact.id);
    }
    for (id, said) in &said.settled {
        let fact = by_id.get(id.as_str()).unwrap_or_else(|| panic!("{id} was settled and is not there"));
        assert_eq!((fact.bytes, fact.complete, fact.recovered), (said.0, said.1, false), "{id}");
    }
    let mut recovered = 0;
    for fact in left.iter().filter(|fact| fact.recovered) {
        assert!(fact.complete && fact.bytes.to_string() == fact.file, "{} has what was noted", fact.id);
        recovered += 1;
    }
    assert!(said.dropped.is_empty());
    for id in &said.noted {
        assert!(by_id.contains_key(id.as_str()), "{id} was noted and is not there");
    }
    // At most what was held at each kill, one being noted and one being settled.
    let in_flight = said.opened as usize * WRITERS as usize * (HELD + 1);
    assert!(recovered > 0 && recovered <= in_flight, "{recovered} recovered");
    assert!(said.settled.len() > 1000, "the writers wrote: {}", said.settled.len());
    println!("settled {}, in the log {}, recovered {recovered}", said.settled.len(), left.len());
}

#[test]
fn what_a_consumer_did_not_acknowledge_before_a_kill_is_still_there() {
    let (said, left) = rounds(24, true);
    let mut ids = HashSet::new();
    for fact in &left {
        assert!(ids.insert(fact.id.as_str()), "{} is there twice", fact.id);
    }
    for id in said.settled.keys() {
        assert!(ids.contains(id.as_str()) || said.read.contains(id), "{id} was settled, and neither read nor kept");
    }
    assert!(!said.read.is_empty() && said.settled.len() > 1000, "the consumer and the writers worked");
    for id in &said.dropped {
        assert!(!ids.contains(id.as_str()) && !said.read.contains(id), "{id} was dropped and is there");
    }
}
