//! A consumer of its own beside the tally: what was delivered per track, from the facts in Fluvio.
//!
//!     cargo run --release -p segue-events --example consume -- 127.0.0.1:9003 [prefix] [records]
//!
//! Reads from the oldest record that is there and ends once it has caught up, or after so many records. Ids that were seen are passed over, in
//! a window of the last million: records come at least once. A program that goes on where it stopped keeps the offset of each partition with
//! what it made of the records, in one transaction.

use std::collections::{BTreeMap, HashSet, VecDeque};

use segue_events::{Fact, FluvioConfig, FluvioReader};

type Failed = Box<dyn std::error::Error>;

/// Ids that are remembered.
const SEEN_MAX: usize = 1_000_000;

#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    fn first(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, more @ ..] = given.as_slice() else { return Err("give the address of a Fluvio controller".into()) };
    let prefix = more.first().map_or("segue-", String::as_str).to_owned();
    let limit: usize = more.get(1).map_or(Ok(usize::MAX), |text| text.parse())?;
    let config = FluvioConfig { prefix, ..FluvioConfig::new(endpoint) };
    let mut reader = FluvioReader::connect(&config, "segments").await?;
    let (mut seen, mut read) = (Seen::default(), 0);
    let mut tracks: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for partition in 0..reader.partitions() {
        let (mut at, end) = reader.span(partition).await?;
        while at < end && read < limit {
            let fetched = reader.fetch(partition, at).await?;
            if fetched.lost > 0 {
                eprintln!("{} records of partition {partition} were gone before they were read", fetched.lost);
            }
            for (_, record) in &fetched.records {
                let fact: Fact = serde_json::from_str(record)?;
                read += 1;
                if seen.first(&fact.id) {
                    let (facts, bytes) = tracks.entry(fact.track).or_default();
                    (*facts, *bytes) = (*facts + 1, *bytes + fact.bytes);
                }
            }
            at = fetched.next;
        }
    }
    for (track, (facts, bytes)) in tracks {
        println!("{}", serde_json::json!({ "track": track, "facts": facts, "bytes": bytes }));
    }
    Ok(())
}
