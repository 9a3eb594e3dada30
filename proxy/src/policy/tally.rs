//! What policies said, counted since the process started: for the metrics, and for the control plane.
//!
//! Invariants: what a hit counts (an allowance, an abstention, a shadow that agrees) is two relaxed additions on memory of its own thread;
//! the rest takes a short lock, as refusals do anyway. A version that leaves and comes back goes on with its counts. Everything has a
//! bound: versions, reason words, pairs, examples.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use segue_policy_host::{FailMode, Failure, ForeignClaims, ForeignRefusal, Verdict};
use segue_signing::{MAX_EXAMPLES, PolicyDifference, PolicyExample, PolicyVerdicts};

use crate::lock::Mutex;
use crate::metrics::{Counter, Family, escaped};

/// Versions that are counted at once: twice what a snapshot may name. Of those that are used no more, the first by name gives way.
const VERSIONS_MAX: usize = 1024;
/// Reason words of one version, and pairs of verdicts of one difference; what comes later is counted together, under [`OTHERS`].
const WORDS_MAX: usize = 64;
const OTHERS: &str = "others";
/// Threads that count apart; more of them share.
const SHARDS: usize = 16;
/// Between two examples of one pair, once there are [`MAX_EXAMPLES`]: an example costs more than a count.
const EXAMPLE_EVERY_MS: u64 = 200;

/// Count and time of four outcomes, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard([AtomicU64; 8]);

/// Outcomes that hits come to.
#[derive(Debug, Default)]
struct Hot([Shard; SHARDS]);

impl Hot {
    fn add(&self, outcome: usize, took: Duration) {
        let Some(Shard(cells)) = self.0.get(thread() % SHARDS) else { return };
        if let [count, time] = cells.get(outcome * 2..outcome * 2 + 2).unwrap_or_default() {
            count.fetch_add(1, Relaxed);
            time.fetch_add(nanoseconds(took), Relaxed);
        }
    }

    fn sum(&self, outcome: usize) -> Sum {
        self.0.iter().fold(Sum::default(), |sum, Shard(cells)| {
            let cell = |place: usize| cells.get(outcome * 2 + place).map_or(0, |cell| cell.load(Relaxed));
            Sum { count: sum.count + cell(0), took_ns: sum.took_ns + cell(1) }
        })
    }
}

/// How often, and how long together.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: u64,
    took_ns: u64,
}

impl Sum {
    fn add(&mut self, took: Duration) {
        self.count += 1;
        self.took_ns += nanoseconds(took);
    }
}

/// What one version said.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    policy: String,
    version: String,
    /// Allowances, then abstentions.
    hot: Hot,
    /// Denials by reason, failures by word.
    rest: Mutex<BTreeMap<(&'static str, String), Sum>>,
    /// Failures by kind, of those that fail closed and of those that fail open.
    failures: [[Counter; Failure::KINDS.len()]; 2],
}

impl Tally {
    pub(crate) fn count(&self, said: Result<&Verdict, &Failure>, took: Duration, mode: FailMode) {
        match said {
            Ok(Verdict::Allow(_)) => self.hot.add(0, took),
            Ok(Verdict::Abstain) => self.hot.add(1, took),
            Ok(Verdict::Deny(denial)) => self.cold("deny", &denial.reason, took),
            Err(failure) => {
                self.failed(failure, mode);
                self.cold(failure.kind(), "", took);
            }
        }
    }

    /// What a ticket scheme said: a ticket that holds counts as an allowance, no ticket of its own as an abstention.
    pub(super) fn foreign(&self, said: Result<&Result<ForeignClaims, ForeignRefusal>, &Failure>, took: Duration) {
        match said {
            Ok(Ok(_)) => self.hot.add(0, took),
            Ok(Err(ForeignRefusal::Absent)) => self.hot.add(1, took),
            Ok(Err(refusal)) => self.cold("deny", refusal.word(), took),
            Err(failure) => {
                self.failed(failure, FailMode::Closed);
                self.cold(failure.kind(), "", took);
            }
        }
    }

    fn failed(&self, failure: &Failure, mode: FailMode) {
        let kind = Failure::KINDS.iter().position(|kind| *kind == failure.kind());
        let of_mode = self.failures.get(usize::from(mode == FailMode::Open));
        if let Some(counter) = kind.and_then(|kind| of_mode?.get(kind)) {
            counter.add(1);
        }
    }

    fn cold(&self, word: &'static str, reason: &str, took: Duration) {
        let mut rest = self.rest.lock();
        let is_full = rest.len() >= WORDS_MAX && !rest.contains_key(&(word, reason.to_owned()));
        rest.entry((word, if is_full { OTHERS } else { reason }.to_owned())).or_default().add(took);
    }

    fn verdicts(&self) -> Vec<PolicyVerdicts> {
        let hot = [("allow", self.hot.sum(0)), ("abstain", self.hot.sum(1))];
        let hot = hot.into_iter().filter(|(_, sum)| sum.count > 0).map(|(word, sum)| (word, String::new(), sum));
        let rest = self.rest.lock();
        let rest = rest.iter().map(|((word, reason), sum)| (*word, reason.clone(), *sum));
        hot.chain(rest)
            .map(|(verdict, reason, Sum { count, took_ns })| PolicyVerdicts {
                policy: self.policy.clone(),
                version: self.version.clone(),
                verdict: verdict.to_owned(),
                reason,
                count,
                took_ns,
            })
            .collect()
    }
}

/// What a pair of verdicts came to.
#[derive(Debug, Default)]
struct Pair {
    sum: Sum,
    examples: VecDeque<PolicyExample>,
    next_example_ms: u64,
}

/// What a shadow would have said beside one active version.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    policy: String,
    shadow: String,
    active: String,
    /// In the order of [`AGREED`].
    hot: Hot,
    rest: Mutex<BTreeMap<(String, String), Pair>>,
}

/// Pairs that make no difference to a listener, and are the most.
const AGREED: [(&str, &str); 4] = [("allow", "allow"), ("abstain", "abstain"), ("none", "allow"), ("none", "abstain")];

impl Difference {
    /// `example` is only made where it is wanted.
    pub(crate) fn count(
        &self,
        said: Option<&Verdict>,
        would: Result<&Verdict, &Failure>,
        took: Duration,
        now_ms: u64,
        example: impl FnOnce() -> PolicyExample,
    ) {
        let kinds = (said.map_or("none", Verdict::kind), would.map_or_else(Failure::kind, Verdict::kind));
        if let Some(place) = AGREED.iter().position(|agreed| *agreed == kinds) {
            return self.hot.add(place, took);
        }
        let words = (said.map_or_else(|| kinds.0.to_owned(), word), would.map_or_else(|_| kinds.1.to_owned(), word));
        let mut rest = self.rest.lock();
        let is_full = rest.len() >= WORDS_MAX && !rest.contains_key(&words);
        let words = if is_full { (OTHERS.to_owned(), OTHERS.to_owned()) } else { words };
        let differ = words.0 != words.1;
        let pair = rest.entry(words).or_default();
        pair.sum.add(took);
        if differ && (pair.examples.len() < MAX_EXAMPLES || now_ms >= pair.next_example_ms) {
            pair.examples.truncate(MAX_EXAMPLES - 1);
            pair.examples.push_front(example());
            pair.next_example_ms = now_ms.saturating_add(EXAMPLE_EVERY_MS);
        }
    }

    fn differences(&self) -> Vec<PolicyDifference> {
        let made =
            |said: &str, would: &str, Sum { count, took_ns }: Sum, examples: Vec<PolicyExample>| PolicyDifference {
                policy: self.policy.clone(),
                shadow: self.shadow.clone(),
                active: self.active.clone(),
                said: said.to_owned(),
                would: would.to_owned(),
                count,
                took_ns,
                examples,
            };
        let hot = AGREED.iter().enumerate().map(|(place, pair)| (pair, self.hot.sum(place)));
        let mut all: Vec<_> = hot
            .filter(|(_, sum)| sum.count > 0)
            .map(|((said, would), sum)| made(said, would, sum, Vec::new()))
            .collect();
        let rest = self.rest.lock();
        all.extend(
            rest.iter()
                .map(|((said, would), pair)| made(said, would, pair.sum, pair.examples.iter().cloned().collect())),
        );
        all
    }
}

/// A verdict's word, with the reason of a denial.
fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Deny(denial) => format!("deny:{}", denial.reason),
        other => other.kind().to_owned(),
    }
}

/// All that is counted of policies.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    versions: Mutex<BTreeMap<(String, String), Arc<Tally>>>,
    differences: Mutex<BTreeMap<(String, String, String), Arc<Difference>>>,
    /// Limit classes that a verdict named, and that are not configured.
    pub(crate) unknown_classes: Counter,
    /// Requests that were refused since a policy that fails closed was not there yet.
    pub(crate) unready: Counter,
}

impl Tallies {
    /// The counts of one version.
    pub(super) fn of(&self, policy: &str, version: &str) -> Arc<Tally> {
        let (policy, version) = (policy.to_owned(), version.to_owned());
        let made = || Tally { policy: policy.clone(), version: version.clone(), ..Tally::default() };
        counted(&mut self.versions.lock(), (policy.clone(), version.clone()), made)
    }

    /// The counts of one shadow.
    pub(super) fn between(&self, policy: &str, shadow: &str, active: &str) -> Arc<Difference> {
        let [policy, shadow, active] = [policy, shadow, active].map(str::to_owned);
        let made = || Difference {
            policy: policy.clone(),
            shadow: shadow.clone(),
            active: active.clone(),
            ..Difference::default()
        };
        counted(&mut self.differences.lock(), (policy.clone(), shadow.clone(), active.clone()), made)
    }

    pub(crate) fn verdicts(&self) -> Vec<PolicyVerdicts> {
        self.versions.lock().values().flat_map(|tally| tally.verdicts()).collect()
    }

    pub(crate) fn differences(&self) -> Vec<PolicyDifference> {
        self.differences.lock().values().flat_map(|difference| difference.differences()).collect()
    }

    /// For the metrics.
    pub(crate) fn families(&self) -> Vec<Family> {
        let verdicts = self.verdicts();
        if verdicts.is_empty() && self.unready.get() == 0 {
            return Vec::new();
        }
        let of =
            |policy: &str, version: &str| format!("policy=\"{}\",version=\"{}\"", escaped(policy), escaped(version));
        let mut times: BTreeMap<String, u64> = BTreeMap::new();
        let mut counts = Vec::new();
        for said in &verdicts {
            let labels = of(&said.policy, &said.version);
            counts.push((format!("{labels},verdict=\"{}\",reason=\"{}\"", said.verdict, said.reason), said.count));
            *times.entry(labels).or_default() += said.took_ns;
        }
        let mut failures = Vec::new();
        for tally in self.versions.lock().values() {
            for (mode, kinds) in ["closed", "open"].iter().zip(&tally.failures) {
                let counted = Failure::KINDS.iter().zip(kinds).filter(|(_, counter)| counter.get() > 0);
                failures.extend(counted.map(|(kind, counter)| {
                    (format!("{},kind=\"{kind}\",mode=\"{mode}\"", of(&tally.policy, &tally.version)), counter.get())
                }));
            }
        }
        let shadows = self.differences().into_iter().map(|difference| {
            let labels = format!(
                "policy=\"{}\",shadow=\"{}\",active=\"{}\",said=\"{}\",would=\"{}\"",
                escaped(&difference.policy),
                escaped(&difference.shadow),
                escaped(&difference.active),
                difference.said,
                difference.would
            );
            (labels, difference.count)
        });
        vec![
            Family::counter("segue_policy_verdicts_total", "What policies said, by version and reason.", counts),
            Family::counter(
                "segue_policy_nanoseconds_total",
                "Time that policies took, by version.",
                times.into_iter().collect(),
            ),
            Family::counter("segue_policy_failures_total", "Calls of policies that gave no verdict.", failures),
            Family::counter(
                "segue_policy_shadow_total",
                "What shadows would have said, beside what was said.",
                shadows.collect(),
            ),
            Family::counter(
                "segue_policy_unknown_classes_total",
                "Limit classes that verdicts named and that are not configured.",
                vec![(String::new(), self.unknown_classes.get())],
            ),
            Family::counter(
                "segue_policy_unready_refusals_total",
                "Requests refused while a policy that fails closed was not there yet.",
                vec![(String::new(), self.unready.get())],
            ),
        ]
    }
}

/// The counts under `key`. Where there is no room, counts that nobody uses any more go.
fn counted<K: Ord + Clone, T>(all: &mut BTreeMap<K, Arc<T>>, key: K, made: impl FnOnce() -> T) -> Arc<T> {
    if let Some(known) = all.get(&key) {
        return Arc::clone(known);
    }
    if all.len() >= VERSIONS_MAX
        && let Some(unused) = all.iter().find(|(_, counts)| Arc::strong_count(counts) == 1).map(|(key, _)| key.clone())
    {
        all.remove(&unused);
    }
    let counts = Arc::new(made());
    all.insert(key, Arc::clone(&counts));
    counts
}

fn nanoseconds(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// Numbers the threads that count.
fn thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    if OWN.get() == usize::MAX {
        OWN.set(NEXT.fetch_add(1, Relaxed));
    }
    OWN.get()
}

#[cfg(test)]
mod tests {
    use segue_policy_host::{Allowance, Denial};

    use super::*;

    fn deny(reason: &str) -> Verdict {
        Verdict::Deny(Denial { status: 403, reason: reason.to_owned(), redirect: None, headers: Vec::new() })
    }

    #[test]
    fn counts_of_all_threads_come_together_and_words_are_bounded() {
        let tallies = Tallies::default();
        let tally = tallies.of("p", "1");
        let took = Duration::from_nanos(10);
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        tally.count(Ok(&Verdict::Allow(Allowance::default())), took, FailMode::Closed);
                    }
                });
            }
        });
        for number in 0..200 {
            tally.count(Ok(&deny(&format!("r{number:03}"))), took, FailMode::Closed);
        }
        tally.count(Err(&Failure::Timeout), took, FailMode::Open);
        let verdicts = tallies.verdicts();
        let count = |verdict: &str, reason: &str| {
            verdicts.iter().find(|said| said.verdict == verdict && said.reason == reason).map_or(0, |said| said.count)
        };
        assert_eq!((count("allow", ""), verdicts[0].took_ns), (2_000, 20_000));
        assert_eq!((count("deny", "r000"), count("deny", OTHERS), verdicts.len()), (1, 136, WORDS_MAX + 3));
        assert!(Arc::ptr_eq(&tally, &tallies.of("p", "1")), "it goes on with its counts");
        let text = format!("{:?}", tallies.families());
        assert!(text.contains(r#"kind=\"timeout\",mode=\"open\""#), "{text}");
    }

    #[test]
    fn differences_keep_a_few_examples_of_pairs_that_disagree() {
        let tallies = Tallies::default();
        let difference = tallies.between("p", "2", "1");
        let took = Duration::from_nanos(5);
        let count = |said: Option<&Verdict>, would: &Verdict, now_ms: u64| {
            let example = || PolicyExample { ts: now_ms, ..PolicyExample::default() };
            difference.count(said, Ok(would), took, now_ms, example);
        };
        for now_ms in 0..100 {
            count(Some(&Verdict::Abstain), &Verdict::Abstain, now_ms);
            count(Some(&deny("a")), &deny("a"), now_ms);
            count(Some(&deny("a")), &deny("b"), now_ms * 100);
            count(None, &Verdict::Abstain, now_ms);
        }
        let all = tallies.differences();
        let of = |said: &str, would: &str| all.iter().find(|pair| pair.said == said && pair.would == would).cloned();
        assert_eq!(of("abstain", "abstain").map(|pair| (pair.count, pair.took_ns)), Some((100, 500)));
        assert_eq!(of("none", "abstain").map(|pair| pair.count), Some(100));
        assert_eq!(of("deny:a", "deny:a").map(|pair| pair.examples.len()), Some(0), "they agree");
        let apart =
            of("deny:a", "deny:b").map(|pair| pair.examples.iter().map(|example| example.ts).collect::<Vec<_>>());
        assert_eq!(apart.as_ref().map(Vec::len), Some(MAX_EXAMPLES));
        assert!(apart.is_some_and(|times| times.is_sorted_by(|a, b| a > b) && times[0] >= 9_800), "the last few");
    }
}
