//! What edges report of policies, added up. A report's counts are since its process started; what is added is what came since the report
//! before, as it is for keys.

use std::collections::HashSet;

use segue_signing::{EdgeReport, MAX_POLICY_NAME_BYTES, PolicyDifference, PolicyVerdicts};

use crate::error::ApiError;
use crate::store::policies;
use crate::store::policies::counts::{self, DifferenceRow};
use crate::store::{StoreError, Write};

/// Standings, verdicts and differences of one report: every version of every policy, with a dozen words each.
const STANDINGS_MAX: usize = 512;
const VERDICTS_MAX: usize = 8192;
const DIFFERENCES_MAX: usize = 4096;

/// Bytes of a verdict with its reason, as the contract bounds the latter (64), and of a path in an example.
const WORD_MAX: usize = 96;
const PATH_MAX: usize = 2048;

/// Whether a report keeps within the bounds.
pub(crate) fn bounded(report: &EdgeReport) -> Result<(), ApiError> {
    let lengths = report.policies.len() <= STANDINGS_MAX
        && report.verdicts.len() <= VERDICTS_MAX
        && report.differences.len() <= DIFFERENCES_MAX;
    let verdict = |one: &PolicyVerdicts| one.verdict.len() <= WORD_MAX && one.reason.len() <= WORD_MAX;
    let difference = |one: &PolicyDifference| {
        one.said.len() <= WORD_MAX
            && one.would.len() <= WORD_MAX
            && one.active.len() <= MAX_POLICY_NAME_BYTES
            && one.examples.iter().all(|example| example.path.len() <= PATH_MAX && example.session.len() <= WORD_MAX)
    };
    if lengths && report.verdicts.iter().all(verdict) && report.differences.iter().all(difference) {
        Ok(())
    } else {
        Err(ApiError::invalid("more or longer policies, verdicts or differences than an edge has"))
    }
}

/// Adds what is new in `report` since `before`, which is the same process's. What is not in the registry is not counted.
pub(crate) async fn add(
    tx: &mut Write,
    before: Option<&EdgeReport>,
    report: &EdgeReport,
    now: i64,
) -> Result<(), StoreError> {
    let (verdicts, differences) = new(before, report);
    if verdicts.is_empty() && differences.is_empty() {
        return Ok(());
    }
    let known: HashSet<(String, String)> = policies::names(tx).await?.into_iter().collect();
    let is_known = |policy: &str, version: &str| known.contains(&(policy.to_owned(), version.to_owned()));
    for one in verdicts.iter().filter(|one| is_known(&one.policy, &one.version)) {
        let words = (one.version.as_str(), one.verdict.as_str(), one.reason.as_str());
        counts::add_verdicts(tx, &one.policy, words, (signed(one.count), signed(one.took_ns)), now).await?;
    }
    for one in differences.into_iter().filter(|one| is_known(&one.policy, &one.shadow)) {
        let row = DifferenceRow {
            calls: signed(one.count),
            took_ns: signed(one.took_ns),
            policy: one.policy,
            shadow: one.shadow,
            active: one.active,
            said: one.said,
            would: one.would,
            examples: one.examples,
        };
        counts::add_difference(tx, &row, now).await?;
    }
    Ok(())
}

/// What came since the report before.
fn new(before: Option<&EdgeReport>, report: &EdgeReport) -> (Vec<PolicyVerdicts>, Vec<PolicyDifference>) {
    let verdicts = report.verdicts.iter().filter_map(|one| {
        let same = |other: &&PolicyVerdicts| {
            (&other.policy, &other.version, &other.verdict, &other.reason)
                == (&one.policy, &one.version, &one.verdict, &one.reason)
        };
        let then = before.and_then(|before| before.verdicts.iter().find(same)).map(|then| (then.count, then.took_ns));
        let (count, took_ns) = since((one.count, one.took_ns), then)?;
        Some(PolicyVerdicts { count, took_ns, ..one.clone() })
    });
    let differences = report.differences.iter().filter_map(|one| {
        let same = |other: &&PolicyDifference| {
            (&other.policy, &other.shadow, &other.active, &other.said, &other.would)
                == (&one.policy, &one.shadow, &one.active, &one.said, &one.would)
        };
        let then =
            before.and_then(|before| before.differences.iter().find(same)).map(|then| (then.count, then.took_ns));
        let (count, took_ns) = since((one.count, one.took_ns), then)?;
        Some(PolicyDifference { count, took_ns, ..one.clone() })
    });
    (verdicts.collect(), differences.collect())
}

/// `None`: nothing is new. Less than before: an edge began to count anew within one process, when a version was taken away and came again.
fn since((count, took_ns): (u64, u64), then: Option<(u64, u64)>) -> Option<(u64, u64)> {
    let new = match then.filter(|(before, took)| *before <= count && *took <= took_ns) {
        Some((before, took)) => (count - before, took_ns - took),
        None => (count, took_ns),
    };
    (new.0 > 0).then_some(new)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_counts() {
        assert_eq!(since((5, 50), None), Some((5, 50)));
        assert_eq!(since((8, 80), Some((5, 50))), Some((3, 30)));
        assert_eq!(since((5, 50), Some((5, 50))), None);
        assert_eq!(since((2, 20), Some((5, 50))), Some((2, 20)), "it began anew");
    }
}
