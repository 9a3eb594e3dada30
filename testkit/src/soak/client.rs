//! One client of the soak: asks for whatever its numbers say, on a connection that it keeps for a while.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Run;
use super::judge::{Verdict, judge};
use super::random::Random;
use super::truth::{Kind, Object, track_name};
use super::wire::{Answer, Wire};

/// Requests on one connection at most.
const KEPT_FOR: u64 = 200;
/// A pause between two requests, at most; so that the soak also runs beside other work.
const PAUSE_MS: u64 = 8;

/// A client that leaves in the middle waits no longer for the middle.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);

/// How the ticket travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    Path,
    Bearer,
    Cookie,
    Query,
    /// There is none: 401.
    None,
    /// Another track's signature under it: 403.
    Forged,
}

/// What the answer depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    None,
    IfNoneMatch(String),
    IfRange(String),
}

/// One request.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) method: &'static str,
    pub(crate) carrier: Carrier,
    /// First and last; a suffix has no first.
    pub(crate) ranges: Vec<(Option<u64>, Option<u64>)>,
    pub(crate) condition: Condition,
}

/// Asks until the run ends.
pub(crate) async fn run(run: Arc<Run>, number: u64) {
    let mut random = Random::of_part(run.seed, "client", number);
    let mut wire: Option<(Wire, u64, u64)> = None;
    while Instant::now() < run.until {
        let object = choose(&run, &mut random);
        let asking = asking(object, &mut random);
        let request = write(&run, object, &asking, &mut random);
        let leaves = random.per_mille(10) && asking.method == "GET";
        let began = Instant::now();
        let incarnation = run.edge.incarnation.load(Ordering::Acquire);
        let kept = wire.take().filter(|(_, of, left)| *of == incarnation && *left > 0);
        let connected = match kept {
            Some(kept) => Ok(kept),
            None => Wire::connect(run.edge.address).await.map(|wire| (wire, incarnation, random.below(KEPT_FOR))),
        };
        let got = match connected {
            Err(error) => Err(error),
            Ok((leaver, ..)) if leaves => {
                let after = random.place(64 * 1024);
                // Whoever leaves in the middle has nothing to complain of.
                let _ = tokio::time::timeout(LEAVES_WITHIN, leaver.ask_and_leave(request.as_bytes(), after)).await;
                run.tally.left();
                continue;
            }
            Ok((mut asker, of, left)) => {
                let got = asker.ask(&request, asking.method == "HEAD").await;
                wire = got.as_ref().is_ok_and(Answer::keeps).then(|| (asker, of, left.saturating_sub(1)));
                got
            }
        };
        let verdict = judge(&run, object, &asking, began, &got);
        run.tally.count(&asking, &got, &verdict);
        if let Verdict::Wrong(how) = verdict {
            run.tally.violation(format!("{} {} {:?}: {how}", asking.method, object.path, asking));
        }
        let pause = if run.edge.was_away(began) { 50 } else { random.below(PAUSE_MS) };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// Half of the requests go to a few hot tracks, so that there are hits; the rest anywhere.
fn choose<'r>(run: &'r Run, random: &mut Random) -> &'r Object {
    let objects = &run.world.objects;
    let place = match random.below(100) {
        0..60 => random.place(objects.len() / 12),
        60..75 => run.world.mutable.get(random.place(run.world.mutable.len())).copied().unwrap_or(0),
        _ => random.place(objects.len()),
    };
    let object = &objects[place];
    // The largest ones would be most of the traffic.
    if object.kind == Kind::Oversized && random.per_mille(800) { &objects[0] } else { object }
}

fn asking(object: &Object, random: &mut Random) -> Asking {
    let mut asking = Asking { method: "GET", carrier: carrier(random), ranges: Vec::new(), condition: Condition::None };
    match random.below(100) {
        0..62 => {}
        62..68 => asking.method = "HEAD",
        68..80 => asking.ranges.push(range(random)),
        80..84 => asking.ranges = (0..2 + random.below(3)).map(|_| range(random)).collect(),
        84..93 => asking.condition = Condition::IfNoneMatch(known_etag(object, random)),
        _ => {
            asking.ranges.push(range(random));
            asking.condition = Condition::IfRange(known_etag(object, random));
        }
    }
    asking
}

fn carrier(random: &mut Random) -> Carrier {
    match random.below(1000) {
        0..700 => Carrier::Path,
        700..850 => Carrier::Bearer,
        850..920 => Carrier::Cookie,
        920..980 => Carrier::Query,
        980..990 => Carrier::None,
        _ => Carrier::Forged,
    }
}

fn range(random: &mut Random) -> (Option<u64>, Option<u64>) {
    let far = if random.per_mille(50) { 1 << 40 } else { 160 * 1024 };
    match random.below(10) {
        0..2 => (None, Some(random.below(far))),
        2..5 => (Some(random.below(far)), None),
        _ => {
            let first = random.below(far);
            (Some(first), Some(first + random.below(64 * 1024)))
        }
    }
}

/// An ETag that was right at some time, mostly now.
fn known_etag(object: &Object, random: &mut Random) -> String {
    let current = object.current();
    object.etag(if random.per_mille(700) { current } else { random.place(current + 1) })
}

/// The request as it goes over the wire.
fn write(run: &Run, object: &Object, asking: &Asking, random: &mut Random) -> String {
    let tickets = &run.tickets[object.track];
    let ticket = &tickets[random.place(tickets.len())];
    let path = &object.path;
    let target = match asking.carrier {
        Carrier::Path => format!("/p/{ticket}{path}"),
        Carrier::Forged => format!("/p/{}{path}", forged(ticket)),
        Carrier::Query => format!("{path}?ticket={ticket}"),
        Carrier::Bearer | Carrier::Cookie | Carrier::None => path.clone(),
    };
    let mut request = format!("{} {target} HTTP/1.1\r\nHost: soak\r\nUser-Agent: soak\r\n", asking.method);
    // Writing to a String cannot fail.
    let _ = match asking.carrier {
        Carrier::Bearer => write!(request, "Authorization: Bearer {ticket}\r\n"),
        Carrier::Cookie => write!(request, "Cookie: a=b; segue={ticket}\r\n"),
        _ => Ok(()),
    };
    let _ = match &asking.condition {
        Condition::None => Ok(()),
        Condition::IfNoneMatch(etag) => write!(request, "If-None-Match: {etag}\r\n"),
        Condition::IfRange(etag) => write!(request, "If-Range: {etag}\r\n"),
    };
    if !asking.ranges.is_empty() {
        let number = |number: Option<u64>| number.map_or(String::new(), |number| number.to_string());
        let set: Vec<_> = asking.ranges.iter().map(|(first, last)| number(*first) + "-" + &number(*last)).collect();
        let _ = write!(request, "Range: bytes={}\r\n", set.join(", "));
    }
    request + "\r\n"
}

/// The ticket with one character of its signature changed.
fn forged(ticket: &str) -> String {
    let at = ticket.rfind('.').map_or(0, |at| at + 1);
    let other = if ticket[at..].starts_with('A') { "B" } else { "A" };
    format!("{}{other}{}", &ticket[..at], &ticket[at + 1..])
}

/// Changes what changes, purges now and then, and kills the edge, until the run ends.
pub(crate) async fn disturb(run: Arc<Run>) -> anyhow::Result<()> {
    let mut random = Random::of_part(run.seed, "disturbance", 0);
    let mut next_kill = Instant::now() + run.kill_every;
    while Instant::now() < run.until {
        tokio::time::sleep(Duration::from_millis(50 + random.below(150))).await;
        let mutable = &run.world.mutable;
        if let Some(object) = mutable.get(random.place(mutable.len())).and_then(|place| run.world.objects.get(*place)) {
            object.change();
            run.tally.changed();
            if random.per_mille(200) {
                let sent = Instant::now();
                run.edge.purge(&track_name(object.track)).await?;
                run.world.purged(object.track, sent);
                run.tally.purged();
            }
        }
        if Instant::now() >= next_kill {
            run.edge.kill_and_restart().await?;
            run.tally.killed();
            next_kill = Instant::now() + run.kill_every;
        }
    }
    Ok(())
}
