//! From the local log to the sink that `[events] kind` names, beside the requests and never on their way.
//!
//! Invariants: facts and denials go by themselves, each in order. What goes to Fluvio is packed on a thread and a runtime of its
//! own: compressing half a megabyte must hold up no request, and neither must a client that spins.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use segue_events::{EventLog, FluvioConfig, FluvioSink, Shipped, Sink, ship};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::EventsSink;
use crate::control::{Client, ControlSink};

/// What became of the records of both logs.
#[derive(Debug, Default)]
pub(crate) struct Shipping {
    facts: Shipped,
    denials: Shipped,
}

impl Shipping {
    /// Begins to hand over what is in `events`, and what comes, until `stop`.
    pub(crate) fn begin(
        self: &Arc<Self>,
        events: &Arc<EventLog>,
        way: Way<'_>,
        keepers: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let (this, events, stop) = (Arc::clone(self), Arc::clone(events), stop.clone());
        match way {
            Way::Control { client, edge, dir } => {
                let sinks = ControlSink::both(client, edge, dir);
                keepers.spawn(async move { this.both(&events, sinks, &stop).await });
            }
            Way::Fluvio(config) => {
                let sinks = [FluvioSink::new(config, "segments"), FluvioSink::new(config, "denials")];
                let (over, ended) = oneshot::channel::<()>();
                let pump = move || {
                    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                        Ok(runtime) => runtime,
                        Err(error) => {
                            tracing::error!(%error, "facts stay in the local log: no runtime to ship them on");
                            return;
                        }
                    };
                    runtime.block_on(this.both(&events, sinks, &stop));
                    drop(over);
                };
                if let Err(error) = std::thread::Builder::new().name("segue-fluvio".to_owned()).spawn(pump) {
                    tracing::error!(%error, "facts stay in the local log: no thread to ship them on");
                }
                // Ends when the thread does, and by that in its turn at shutdown.
                keepers.spawn(async move {
                    let _over = ended.await;
                });
            }
        }
    }

    async fn both<S: Sink>(&self, events: &EventLog, sinks: [S; 2], stop: &CancellationToken) {
        let [mut facts, mut denials] = sinks;
        tokio::join!(
            ship(events.facts(), "facts", &mut facts, &self.facts, stop),
            ship(events.denials(), "denials", &mut denials, &self.denials, stop),
        );
    }

    /// Prometheus text: what went, what waits, what was refused.
    pub(crate) fn metrics(&self, events: Option<&EventLog>) -> String {
        let mut text = String::new();
        let Some(events) = events else { return text };
        let streams = [("facts", &self.facts, events.facts()), ("denials", &self.denials, events.denials())];
        let mut family = |name: &str, kind: &str, help: &str, samples: Vec<(String, u64)>| {
            // Writing to a String does not fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{{{labels}}} {value}");
            }
        };
        let each = |of: &dyn Fn(&(&str, &Shipped, &segue_events::Log)) -> u64| {
            streams.iter().map(|stream| (format!("stream=\"{}\"", stream.0), of(stream))).collect::<Vec<_>>()
        };
        let shipped = each(&|(_, shipped, _)| shipped.records());
        family("segue_shipped_total", "counter", "Facts and denials that the sink has.", shipped);
        let lost = each(&|(_, shipped, _)| shipped.lost_bytes());
        let help = "Bytes of facts and denials that were lost before the sink had them.";
        family("segue_ship_lost_bytes_total", "counter", help, lost);
        let waiting = each(&|(_, _, log)| log.end().0.saturating_sub(log.acknowledged().0));
        let help = "Bytes of facts and denials in the local log that the sink does not have yet.";
        family("segue_ship_waiting_bytes", "gauge", help, waiting);
        let log = each(&|(_, _, log)| log.bytes());
        family("segue_event_log_bytes", "gauge", "Bytes of the local log on the disk.", log);
        let failures = streams.iter().flat_map(|(stream, shipped, _)| {
            let sample = move |(reason, count)| (format!("stream=\"{stream}\",reason=\"{reason}\""), count);
            shipped.failures().into_iter().map(sample)
        });
        let help = "Parcels of facts and denials that were not taken, by reason.";
        family("segue_ship_failures_total", "counter", help, failures.collect());
        text
    }
}

/// What a sink needs to know.
#[derive(Clone, Copy)]
pub(crate) enum Way<'a> {
    Control { client: &'a Arc<Client>, edge: &'a str, dir: &'a Path },
    Fluvio(&'a FluvioConfig),
}

impl<'a> Way<'a> {
    /// The way that the configuration names; `None`: they stay where they are.
    pub(crate) fn of(
        sink: &'a EventsSink,
        client: Option<&'a Arc<Client>>,
        edge: &'a str,
        dir: &'a Path,
    ) -> Option<Self> {
        match sink {
            EventsSink::None => None,
            EventsSink::Control => client.map(|client| Self::Control { client, edge, dir }),
            EventsSink::Fluvio(config) => Some(Self::Fluvio(config)),
        }
    }
}
