//! What the limiter counts, in Prometheus' text format.

use std::fmt::Write as _;

use super::Limiter;

impl Limiter {
    /// The Prometheus text.
    pub(crate) fn metrics_text(&self) -> String {
        let mut text = String::new();
        let classes = self.classes();
        let limits = classes.all().map(|class| ("rate", &class.name, &class.counts, class.config.shadow));
        let streams =
            classes.all_streams().map(|streams| ("streams", &streams.name, &streams.counts, streams.config.shadow));
        let mut decisions = Vec::new();
        for (sort, name, counts, shadow) in limits.chain(streams) {
            let refused = if shadow { "shadow-refused" } else { "refused" };
            for (decision, counter) in [("admitted", &counts.admitted), (refused, &counts.refused)] {
                let labels = format!("{{sort=\"{sort}\",class=\"{name}\",decision=\"{decision}\"}}");
                decisions.push(format!("{labels} {}", counter.get()));
            }
        }
        family(&mut text, "segue_limit_decisions_total", "counter", "Decisions of limits, by class.", &decisions);
        let now = self.now();
        let (mut busy, mut forgotten, mut late) = (Vec::new(), Vec::new(), Vec::new());
        for class in classes.all() {
            let (held, lost) = class.keys.usage(now);
            let labels = format!("{{sort=\"rate\",class=\"{}\"}}", class.name);
            busy.push(format!("{labels} {held}"));
            forgotten.push(format!("{labels} {lost}"));
            late.push(format!("{labels} {}", class.counts.late.get()));
        }
        for streams in classes.all_streams() {
            let labels = format!("{{sort=\"streams\",class=\"{}\"}}", streams.name);
            busy.push(format!("{labels} {}", streams.listeners.busy(now)));
            forgotten.push(format!("{labels} {}", streams.listeners.forgotten.get()));
            late.push(format!("{labels} {}", streams.counts.late.get()));
        }
        family(&mut text, "segue_limit_keys", "gauge", "Keys whose bucket is not full, and listeners who play.", &busy);
        let help = "Keys that were forgotten while they were busy, for want of room.";
        family(&mut text, "segue_limit_keys_forgotten_total", "counter", help, &forgotten);
        let Some(redis) = &self.redis else { return text };
        let help = "Requests that waited for Redis in vain, and went by on_outage.";
        family(&mut text, "segue_limit_late_total", "counter", help, &late);
        let crowded = "Calls that were not made, since too many were under way.";
        for (name, help, counter) in [
            ("segue_redis_calls_total", "Calls for tokens.", &redis.counts.calls),
            ("segue_redis_tokens_total", "Tokens that were drawn.", &redis.counts.tokens),
            ("segue_redis_timeouts_total", "Calls that took too long.", &redis.counts.timeouts),
            ("segue_redis_errors_total", "Calls that failed.", &redis.counts.errors),
            ("segue_redis_crowded_total", crowded, &redis.counts.crowded),
            ("segue_redis_seat_calls_total", "Calls for places of streams.", &redis.counts.seats),
            ("segue_redis_stops_total", "Stopped sessions that edges told of.", &redis.counts.stops),
            ("segue_redis_outages_total", "Times that Redis went away.", &redis.counts.outages),
        ] {
            family(&mut text, name, "counter", help, &[format!(" {}", counter.get())]);
        }
        let here = [format!(" {}", u8::from(redis.is_here()))];
        family(&mut text, "segue_redis_up", "gauge", "Whether Redis keeps the limits.", &here);
        let edges = [format!(" {}", redis.edges())];
        family(&mut text, "segue_redis_edges", "gauge", "Edges that share the limits, as last counted.", &edges);
        text
    }
}

fn family(text: &mut String, name: &str, kind: &str, help: &str, samples: &[String]) {
    if samples.is_empty() {
        return;
    }
    // Writing to a String does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for sample in samples {
        let _ = writeln!(text, "{name}{sample}");
    }
}
