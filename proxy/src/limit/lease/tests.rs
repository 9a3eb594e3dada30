#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::time::Duration;

use segue_signing::limits::Per;

use super::*;

const MS: u64 = 1_000_000;
const DAWN: u64 = 1_000_000 * MS;

fn config(rate: f64, burst: u32) -> LimitConfig {
    LimitConfig::new(rate, burst, Per::Track)
}

/// Redis as the script has it, on a clock that is given.
struct Model {
    tat: f64,
    interval: f64,
    room: f64,
}

impl Model {
    fn new(rate: f64, plan: &Plan) -> Self {
        let interval = SECOND / rate;
        Self { tat: 0.0, interval, room: interval * plan.burst }
    }

    fn answer(&mut self, ask: Ask, now: u64) -> Granted {
        let now = now as f64;
        let want = f64::from(ask.want);
        let mut tat = self.tat.max(now);
        let at_once = ((now + self.room - tat) / self.interval).floor().clamp(0.0, want);
        tat += at_once * self.interval;
        let mut later = want - at_once;
        let (mut later_in, mut retry_in) = (0.0, 0.0);
        if later > 0.0 {
            later_in = tat + later * self.interval - self.room - now;
            if ask.ahead && later_in <= SECOND {
                tat += later * self.interval;
            } else {
                if at_once == 0.0 {
                    retry_in = if ask.ahead { later_in - SECOND } else { tat + self.interval - self.room - now };
                }
                (later, later_in) = (0.0, 0.0);
            }
        }
        self.tat = tat;
        Granted {
            at_once: at_once as u32,
            later: later as u32,
            later_in: later_in.ceil() as u64,
            retry_in: retry_in.ceil() as u64,
        }
    }
}

/// What edges do under a load: admitted moments, requests refused, calls.
struct Outcome {
    admitted: Vec<u64>,
    refused: usize,
    calls: usize,
}

/// Edges with so many requests a second each, a call that takes `rtt` to Redis and as long back.
fn run(config: &LimitConfig, loads: &[f64], seconds: u64, rtt: impl Fn(u64) -> u64) -> Outcome {
    let plan = Plan::new(config);
    let mut redis = Model::new(config.rate, &plan);
    let mut edges: Vec<Leased> = loads.iter().map(|_| Leased::default()).collect();
    let mut outcome = Outcome { admitted: Vec::new(), refused: 0, calls: 0 };
    // What happens next: (when, edge, what).
    let mut calls: Vec<(u64, usize, Ask, u64)> = Vec::new();
    let mut answers: Vec<(u64, usize, Granted, u64)> = Vec::new();
    let mut waiting: Vec<(usize, u64)> = Vec::new();
    let mut next: Vec<f64> = loads.iter().map(|_| DAWN as f64).collect();
    let end = DAWN + seconds * 1_000 * MS;
    let mut seed = 7_u64;
    let mut odd = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((seed >> 40) as f64 + 0.5) / (1_u64 << 24) as f64
    };
    let step = MS / 20;
    let mut now = DAWN;
    while now < end {
        now += step;
        for (_, edge, ask, sent) in calls.extract_if(.., |call| call.0 <= now) {
            answers.push((now + rtt(now), edge, redis.answer(ask, now), sent));
        }
        for (_, edge, granted, sent) in answers.extract_if(.., |answer| answer.0 <= now) {
            edges[edge].granted(&plan, granted, sent, now, 3);
        }
        for (edge, leased) in edges.iter_mut().enumerate() {
            let mut met = |taken: (Taken, Option<Ask>), since: u64, waiting: &mut Vec<(usize, u64)>| {
                if let Some(ask) = taken.1 {
                    outcome.calls += 1;
                    calls.push((now + rtt(now), edge, ask, now));
                }
                match taken.0 {
                    Taken::Spent => outcome.admitted.push(now),
                    Taken::Wait => waiting.push((edge, since)),
                    _ => outcome.refused += 1,
                }
            };
            let waited: Vec<_> = waiting.extract_if(.., |(whose, _)| *whose == edge).collect();
            for (_, since) in waited {
                // Without a call's end nobody looks again; what is taken anew here is what the notice would bring.
                if leased.is_asking(now) {
                    waiting.push((edge, since));
                } else {
                    met(leased.take(&plan, now, None), since, &mut waiting);
                }
            }
            while next[edge] <= now as f64 {
                next[edge] += -odd().ln() * SECOND / loads[edge];
                met(leased.arrive(&plan, now, None), now, &mut waiting);
            }
        }
    }
    outcome
}

/// The worst window's excess over `burst + rate * window`.
fn excess(admitted: &[u64], rate: f64, burst: f64) -> f64 {
    // The bucket of the whole limit, at its lowest.
    let (mut level, mut last, mut worst) = (burst, DAWN, f64::MAX);
    for now in admitted {
        level = (level + (now - last) as f64 / SECOND * rate).min(burst) - 1.0;
        last = *now;
        worst = worst.min(level);
    }
    -worst
}

#[test]
fn three_edges_spend_what_the_limit_allows_and_not_one_more() {
    for rate in [100.0, 1_000.0, 10_000.0] {
        for slow in [MS / 2, 20 * MS, 120 * MS] {
            let config = config(rate, rate as u32);
            let outcome =
                run(&config, &[6_667.0; 3], 10, |now| if (now / MS).is_multiple_of(97) { slow } else { MS / 2 });
            let over = excess(&outcome.admitted, rate, rate);
            assert!(over <= 1e-6, "{rate}/s: {over} over the limit");
            let allowed = rate * 10.0;
            let short = 1.0 - outcome.admitted.len() as f64 / allowed;
            assert!(short <= 0.05, "{rate}/s, {slow}: {short} under");
            let calls = outcome.calls as f64 / outcome.admitted.len() as f64;
            assert!(rate < 1_000.0 || calls <= 0.02, "{rate}/s: {calls} calls a request");
        }
    }
}

#[test]
fn a_load_under_the_limit_meets_no_refusal_however_it_is_split() {
    for rate in [100.0, 1_000.0, 10_000.0] {
        let loads = [0.9, 0.05, 0.05].map(|part| part * 0.8 * rate);
        let outcome = run(&config(rate, rate as u32), &loads, 20, |_| MS / 2);
        assert_eq!(outcome.refused, 0, "{rate}/s");
        assert!(outcome.admitted.len() as f64 > rate * 0.75 * 20.0);
    }
}

#[test]
fn slow_demand_leaves_tokens_to_others() {
    // 20 edges with a request or two a second each, all together under a limit of 30.
    let outcome = run(&config(30.0, 60), &[1.2; 20], 30, |_| MS / 2);
    assert_eq!(outcome.refused, 0);
}

#[test]
fn a_bucket_too_small_for_leases_is_asked_for_each_request() {
    let config = config(10.0, 2);
    let plan = Plan::new(&config);
    assert!(plan.single && plan.burst >= 1.0);
    let outcome = run(&config, &[50.0; 3], 20, |_| MS / 2);
    assert!(excess(&outcome.admitted, 10.0, 2.0) <= 0.05, "beyond a call's time");
    assert!(outcome.admitted.len() >= 190, "{}", outcome.admitted.len());
}

#[test]
fn a_lease_dies_by_the_clock_of_who_sent_for_it() {
    let plan = Plan::new(&config(100.0, 100));
    let mut leased = Leased::default();
    assert_eq!(leased.arrive(&plan, DAWN, None), (Taken::Wait, Some(Ask { want: 1, ahead: false })));
    leased.granted(&plan, Granted { at_once: 5, ..Granted::default() }, DAWN, DAWN + 299 * MS, 1);
    assert_eq!(leased.take(&plan, DAWN + 299 * MS, None).0, Taken::Spent);
    assert_eq!(leased.take(&plan, DAWN + 300 * MS, None).0, Taken::Wait);
}

#[test]
fn a_refusal_is_remembered_and_costs_no_call() {
    let plan = Plan::new(&config(100.0, 100));
    let mut leased = Leased::default();
    assert!(leased.arrive(&plan, DAWN, None).1.is_some());
    leased.granted(&plan, Granted { retry_in: 50 * MS, ..Granted::default() }, DAWN, DAWN + MS, 1);
    for ms in 1..51 {
        let (taken, ask) = leased.arrive(&plan, DAWN + ms * MS, None);
        assert_eq!((taken, ask), (Taken::Refused((51 - ms) * MS), None));
    }
    assert!(leased.arrive(&plan, DAWN + 51 * MS, None).1.is_some());
}

#[test]
fn an_outage_holds_what_the_class_says() {
    for (on_outage, expected) in
        [(OnOutage::Open, [100, 0, 0]), (OnOutage::Closed, [0, 0, 100]), (OnOutage::Local, [10, 90, 0])]
    {
        let plan = Plan::new(&LimitConfig { on_outage, ..config(10.0, 30) });
        let mut leased = Leased::default();
        let mut seen = [0; 3];
        for _ in 0..100 {
            match leased.arrive(&plan, DAWN, Some(3)).0 {
                Taken::Spent => seen[0] += 1,
                Taken::Refused(_) => seen[1] += 1,
                Taken::Unavailable => seen[2] += 1,
                Taken::Wait => panic!("waits for who is away"),
            }
        }
        assert_eq!(seen, expected, "{on_outage:?}");
    }
}

#[test]
fn an_outage_gives_nothing_that_was_spent_before() {
    let plan = Plan::new(&config(10.0, 30));
    let mut leased = Leased::default();
    leased.granted(&plan, Granted { at_once: 1, later: 9, ..Granted::default() }, DAWN, DAWN, 3);
    let away = DAWN + 1_000 * MS;
    let let_through = (0..20).filter(|_| leased.arrive(&plan, away, Some(3)).0 == Taken::Spent).count();
    assert_eq!(let_through, 3, "a second of a third of the rate");
}

#[test]
fn who_waited_in_vain_is_paid_for_later() {
    let plan = Plan::new(&config(100.0, 100));
    let mut leased = Leased::default();
    assert!(leased.arrive(&plan, DAWN, None).1.is_some());
    assert_eq!(leased.late(&plan, DAWN + 5 * MS, 1), Taken::Spent);
    leased.granted(&plan, Granted { at_once: 1, ..Granted::default() }, DAWN, DAWN + 9 * MS, 1);
    assert_eq!(leased.take(&plan, DAWN + 9 * MS, None).0, Taken::Wait, "the token is spent already");
}

#[test]
fn plans_leave_room_for_what_is_lent() {
    for (rate, burst) in [(10.0, 60), (100.0, 100), (1_000.0, 1_000), (1_000.0, 400), (1e6, 1_000_000)] {
        let plan = Plan::new(&config(rate, burst));
        assert!(!plan.single);
        assert!(plan.burst + rate * (plan.tau as f64 / SECOND) <= f64::from(burst) + 1e-6);
        assert!(f64::from(plan.cap) <= plan.burst);
    }
    let short = LimitConfig { lease: Duration::from_millis(30), ..config(10.0, 2) };
    assert!(!Plan::new(&short).single);
}
