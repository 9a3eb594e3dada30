//! What every request got, held against what was active at its edge at that time.
//!
//! The rules: an activation may be in force from its call on, and is in force for good from the first answer that shows it, or from the call's
//! own answer where that says that the edge stands on it. A request takes its policies at one moment between its
//! sending and its answer; so it shows one of the versions that may have been in force then, and nothing else. A request that was let through has
//! one fact, and the policy in it and the tag that the version itself gave are one version. What edges counted is what clients got.
//!
//! Versions that follow one another differ, and never do both fail: so each swap can be seen from outside.

use std::collections::{BTreeMap, HashMap};

use super::house::{Act, Counts, EDGES, Fact};
use super::load::{Got, Record};
use super::versions::{POLICY, Version};

/// Of one sort so many are told in full.
const TOLD: usize = 20;

/// What a request shows of who judged it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Sound(Version),
    Fault,
}

impl Shown {
    fn of(version: Version) -> Self {
        if version.is_sound() { Self::Sound(version) } else { Self::Fault }
    }
}

/// What was found out.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Requests that were let through, by version.
    pub(super) served: BTreeMap<&'static str, u64>,
    /// Refused as the version's rule is.
    pub(super) denied: BTreeMap<&'static str, u64>,
    /// Refused since the version gave no verdict, and fails closed.
    pub(super) failed: u64,
    /// What cannot be explained.
    pub(super) unexplained: u64,
    /// Nanoseconds from each activation's call to its first sight, by activation and edge.
    pub(super) seen_after: Vec<[Option<u64>; EDGES]>,
    pub(super) violations: Vec<String>,
}

impl Findings {
    fn complain(&mut self, text: String) {
        self.unexplained += 1;
        if self.violations.len() < TOLD {
            self.violations.push(text);
        }
    }
}

/// Holds all of it against each other. `acts` in order; the first is the one that stood before the load began.
pub(super) fn judge(
    acts: &[Act],
    records: &[Record],
    facts: &HashMap<u64, Vec<(usize, Fact)>>,
    counts: &[Counts],
) -> Findings {
    let mut found = Findings { seen_after: vec![[None; EDGES]; acts.len()], ..Findings::default() };
    if let Some(two) = acts.windows(2).find(|two| Shown::of(two[0].version) == Shown::of(two[1].version)) {
        found.complain(format!("activations that cannot be told apart: {two:?}"));
    }
    for edge in 0..EDGES {
        let mut own: Vec<(Record, Shown)> = Vec::new();
        for record in records.iter().filter(|record| record.edge == edge) {
            if let Some(shown) = shown(record, facts, &mut found) {
                own.push((*record, shown));
            }
        }
        own.sort_by_key(|(record, _)| record.done);
        let since = in_force(acts, &own, edge, &mut found);
        for (record, shown) in &own {
            explain(acts, &since, record, *shown, &mut found);
        }
        compare(edge, &own, counts.get(edge), &mut found);
    }
    let known: u64 = found.served.values().sum();
    let told: usize = facts.values().map(Vec::len).sum();
    if known != told as u64 {
        found.complain(format!("{known} segments were delivered, and {told} facts tell of them"));
    }
    found
}

/// Who judged a request, by what it got and what its fact says.
fn shown(record: &Record, facts: &HashMap<u64, Vec<(usize, Fact)>>, found: &mut Findings) -> Option<Shown> {
    match record.got {
        Got::Denied(version) => {
            *found.denied.entry(version.name()).or_default() += 1;
            Some(Shown::Sound(version))
        }
        Got::Failed => {
            found.failed += 1;
            Some(Shown::Fault)
        }
        Got::Other(status) => {
            found.complain(format!("an answer that no version gives, status {status}: {record:?}"));
            None
        }
        Got::Segment => {
            let told = facts.get(&record.number).map_or(&[][..], Vec::as_slice);
            let [(edge, fact)] = told else {
                found.complain(format!("{} facts for one segment: {told:?}, {record:?}", told.len()));
                return None;
            };
            let named = fact.policy.as_deref().and_then(|policy| policy.strip_prefix(POLICY)?.strip_prefix('@'));
            let version = named.and_then(Version::sound);
            let agrees = version.is_some_and(|version| fact.tags == [version.name()]);
            match version.filter(|_| agrees && *edge == record.edge && fact.status == 200) {
                Some(version) => {
                    *found.served.entry(version.name()).or_default() += 1;
                    Some(Shown::Sound(version))
                }
                None => {
                    found.complain(format!("a request that saw more than one version, or none: {fact:?}, {record:?}"));
                    None
                }
            }
        }
    }
}

/// From when on each activation is certainly in force at an edge. `own` in the order of their answers.
fn in_force(acts: &[Act], own: &[(Record, Shown)], edge: usize, found: &mut Findings) -> Vec<u64> {
    let mut since: Vec<Option<u64>> = Vec::new();
    let (mut before, mut rest) = (0, own);
    for (place, act) in acts.iter().enumerate() {
        if place == 0 {
            // It stood before anybody asked.
            since.push(Some(0));
            continue;
        }
        let mine = Shown::of(act.version);
        // What comes after the next but one may be that one's.
        let end = acts.get(place + 2).map_or(u64::MAX, |next| next.called);
        let is_first = |(record, shown): &(Record, Shown)| {
            *shown == mine && record.sent >= before && record.done >= act.called && record.done < end
        };
        let first = rest.iter().position(is_first);
        if let Some(at) = first {
            rest = &rest[at..];
        }
        let first = first.and_then(|_| rest.first()).map(|(record, _)| record.done);
        if let Some(seen) = found.seen_after.get_mut(place) {
            seen[edge] = first.map(|done| done - act.called);
        }
        let word = act.all_on.then_some(act.answered);
        let at = [first, word].into_iter().flatten().min().map(|at| at.max(before));
        if at.is_none() {
            found.complain(format!("edge {} never showed {act:?}", edge + 1));
        }
        before = at.unwrap_or(before);
        since.push(at);
    }
    // What never showed was in force for certain only when the next one was.
    let mut next = u64::MAX;
    for at in since.iter_mut().rev() {
        next = *at.get_or_insert(next);
    }
    since.into_iter().flatten().collect()
}

fn explain(acts: &[Act], since: &[u64], record: &Record, shown: Shown, found: &mut Findings) {
    let first = since.partition_point(|at| *at <= record.sent).saturating_sub(1);
    let last = acts.partition_point(|act| act.called <= record.done);
    let may = acts.get(first..last.max(first + 1)).unwrap_or_default();
    if !may.iter().any(|act| Shown::of(act.version) == shown) {
        let may: Vec<&str> = may.iter().map(|act| act.version.name()).collect();
        found.complain(format!("shows {shown:?} where {may:?} may have been in force: {record:?}"));
    }
}

/// What the edge counted is what its clients got: so no request was judged twice, and none was not judged.
fn compare(edge: usize, own: &[(Record, Shown)], counts: Option<&Counts>, found: &mut Findings) {
    let mut got = Counts::default();
    for (record, shown) in own {
        match (record.got, shown) {
            (_, Shown::Fault) => got.failures += 1,
            (got_, Shown::Sound(version)) => {
                let verdict = if got_ == Got::Segment { "allow" } else { "deny" };
                *got.verdicts.entry((version.name().to_owned(), verdict.to_owned())).or_default() += 1;
            }
        }
    }
    let Some(counts) = counts else {
        found.complain(format!("edge {} said no counts", edge + 1));
        return;
    };
    let said = counts.verdicts.iter().filter(|((_, verdict), _)| verdict == "allow" || verdict == "deny");
    let said: BTreeMap<_, _> = said.map(|(key, count)| (key.clone(), *count)).collect();
    if said != got.verdicts || counts.failures != got.failures {
        found.complain(format!(
            "edge {} counted {said:?} and {} failures, its clients got {:?} and {}",
            edge + 1,
            counts.failures,
            got.verdicts,
            got.failures
        ));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn act(version: Version, called: u64) -> Act {
        Act { version, called, answered: called + 50, all_on: true }
    }

    /// A denial, which names its version itself.
    fn denied(number: u64, sent: u64, version: Version) -> Record {
        let got = if version.is_sound() { Got::Denied(version) } else { Got::Failed };
        Record { number, edge: 0, due: sent, sent, done: sent + 10, got }
    }

    /// What is wrong with these requests at the first edge.
    fn wrong(records: &[Record]) -> Vec<String> {
        let acts = [act(Version::V1, 0), act(Version::Trap, 1_000), act(Version::V2, 2_000)];
        let mut counts = Counts::default();
        for record in records {
            match record.got {
                Got::Denied(version) => {
                    *counts.verdicts.entry((version.name().to_owned(), "deny".to_owned())).or_default() += 1;
                }
                _ => counts.failures += 1,
            }
        }
        let quiet = || Counts::default();
        judge(&acts, records, &HashMap::new(), &[counts, quiet(), quiet()]).violations
    }

    #[test]
    fn what_was_in_force_explains_a_request_and_nothing_else_does() {
        let good = [
            denied(1, 900, Version::V1),
            denied(2, 995, Version::Trap),
            denied(3, 998, Version::V1),
            denied(4, 1_500, Version::Trap),
            denied(5, 1_995, Version::Trap),
            denied(6, 2_020, Version::V2),
        ];
        assert!(wrong(&good).is_empty(), "{:?}", wrong(&good));
        for (place, bad) in [
            (1, denied(2, 500, Version::Trap)),
            (3, denied(4, 1_500, Version::V1)),
            (4, denied(5, 1_200, Version::V2)),
            (5, denied(6, 2_500, Version::Trap)),
        ] {
            let mut records = good;
            records[place] = bad;
            let said = wrong(&records);
            assert!(said.iter().any(|line| line.contains("may have been in force")), "{bad:?}: {said:?}");
        }
    }

    #[test]
    fn a_fact_that_names_two_versions_is_found_and_so_is_a_count_that_is_off() {
        let segment = Record { number: 7, edge: 0, due: 5, sent: 5, done: 9, got: Got::Segment };
        let fact = |tag: &str| {
            let fact = serde_json::json!({ "ua": "7", "status": 200, "policy": "rule@v1", "tags": [tag] });
            HashMap::from([(7, vec![(0, serde_json::from_value::<Fact>(fact).unwrap())])])
        };
        let counts = |allowed: u64| {
            let mut all = vec![Counts::default(), Counts::default(), Counts::default()];
            all[0].verdicts.insert(("v1".to_owned(), "allow".to_owned()), allowed);
            all
        };
        let acts = [act(Version::V1, 0)];
        let wrong = |tag, allowed| judge(&acts, &[segment], &fact(tag), &counts(allowed)).violations;
        assert!(wrong("v1", 1).is_empty(), "{:?}", wrong("v1", 1));
        assert!(wrong("v2", 1)[0].contains("more than one version"));
        assert!(wrong("v1", 2)[0].contains("counted"));
    }
}
