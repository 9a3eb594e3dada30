//! Who decides, as documents, versions and restarts come and go. What a version says does not matter here, so they are all made of one code.

#![allow(clippy::unwrap_used)]

#[path = "../../../tests/support/wasm.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "the wire tests use the rest of it")]
mod wasm;

use std::sync::LazyLock;

use segue_policy_host::{HostConfig, PolicyHost};
use segue_signing::PolicyCandidate;

use super::*;

/// A policy that always abstains.
static CODE: LazyLock<Policy> = LazyLock::new(|| {
    let host = PolicyHost::new(HostConfig::default()).unwrap();
    host.compile(&wasm::policy(wasm::ABSTAIN)).unwrap()
});

fn doc(name: &str, active: Option<&str>, versions: &[&str]) -> PolicyDoc {
    let version = |version: &&str| PolicyVersion {
        version: (*version).to_owned(),
        digest: format!("{version:0>64}"),
        ..PolicyVersion::default()
    };
    PolicyDoc {
        name: name.to_owned(),
        active: active.map(str::to_owned),
        versions: versions.iter().map(version).collect(),
        ..PolicyDoc::default()
    }
}

/// Makes a version that is missing.
fn make(shelf: &mut Shelf, version: &str) {
    let wanted = shelf.missing().into_iter().find(|wanted| wanted.version == version).unwrap();
    let services = shelf.services();
    let policy = AccessPolicy::new(
        CODE.clone(),
        &wanted.label(),
        &serde_json::json!({}),
        Arc::clone(&services),
        wanted.on_failure(),
    );
    shelf.put(wanted, CODE.clone(), Made::Access(Arc::new(policy.unwrap())), services);
}

/// Who decides, in order, and who is lacking.
fn decides(shelf: &mut Shelf) -> (Vec<String>, Vec<String>) {
    let arrangement = shelf.arrange();
    let places = arrangement.chain.places().iter();
    let active = places.filter_map(|place| place.active.as_ref().map(|policy| policy.label().to_string()));
    (active.collect(), arrangement.unready)
}

fn only(label: &str) -> (Vec<String>, Vec<String>) {
    (vec![label.to_owned()], Vec::new())
}

#[test]
fn a_version_that_is_not_ready_leaves_the_last_good_one_deciding() {
    let mut shelf = Shelf::default();
    shelf.tell(vec![doc("p", None, &["1"])]);
    assert_eq!(decides(&mut shelf), (vec![], vec![]));
    make(&mut shelf, "1");
    shelf.tell(vec![doc("p", Some("1"), &["1", "2"])]);
    assert_eq!(decides(&mut shelf), only("p@1"));
    shelf.tell(vec![doc("p", Some("2"), &["1", "2"])]);
    assert_eq!(decides(&mut shelf), only("p@1"));
    let broken = shelf.missing().pop().unwrap();
    assert!(shelf.complain(&broken, "broken".to_owned()) && !shelf.complain(&broken, "broken".to_owned()));
    let standings = shelf.standings();
    let of = |version: &str| standings.iter().find(|standing| standing.version == version).cloned().unwrap();
    assert!(of("1").is_ready && of("1").is_deciding && of("1").is_kept);
    assert!(!of("2").is_ready && !of("2").is_deciding && of("2").problem.as_deref() == Some("broken"));
    assert_eq!(shelf.kept().get("p"), Some(&true));
    make(&mut shelf, "2");
    assert_eq!(decides(&mut shelf), only("p@2"));
    assert!(shelf.standings().iter().all(|standing| !standing.is_kept && standing.problem.is_none()));
    shelf.tell(vec![doc("p", Some("1"), &["1", "2"])]);
    assert_eq!(decides(&mut shelf), only("p@1"), "a rollback is a flip");
    // The last good one is kept also where the snapshot does not list it any more.
    shelf.tell(vec![doc("p", Some("3"), &["3"])]);
    assert_eq!(decides(&mut shelf), only("p@1"));
    assert!(shelf.standings().iter().any(|standing| standing.version == "1" && standing.is_kept));
    shelf.tell(vec![]);
    assert_eq!(decides(&mut shelf), (vec![], vec![]));
}

#[test]
fn a_restart_goes_on_with_what_decided_last() {
    let mut before = Shelf::default();
    before.tell(vec![doc("p", None, &["1"]), doc("q", None, &["1"])]);
    make(&mut before, "1");
    before.tell(vec![doc("p", Some("1"), &["1"]), doc("q", Some("9"), &["9"])]);
    assert_eq!(decides(&mut before), (vec!["p@1".to_owned()], vec!["q".to_owned()]));
    let mut shelf = Shelf::default();
    shelf.recall(before.record().clone());
    shelf.tell(vec![doc("p", Some("2"), &["2"]), doc("q", Some("9"), &["9"])]);
    assert_eq!(
        decides(&mut shelf),
        (vec![], vec!["p".to_owned(), "q".to_owned()]),
        "nobody is let in before the last good one is there"
    );
    let at_work: Vec<String> = shelf.missing_at_work().iter().map(Use::label).collect();
    assert_eq!(at_work, ["p@2", "q@9", "p@1"], "what should decide, then what did");
    make(&mut shelf, "1");
    let lacking = (vec!["p@1".to_owned()], vec!["q".to_owned()]);
    assert_eq!(decides(&mut shelf), lacking, "and of q nobody ever decided");
    assert_eq!(shelf.kept(), BTreeMap::from([("p".to_owned(), true), ("q".to_owned(), true)]));
}

#[test]
fn an_edge_that_knows_of_nothing_goes_by_the_fail_mode_until_it_does() {
    let mut shelf = Shelf::default();
    let open = PolicyDoc { on_failure: PolicyFailMode::Open, ..doc("open", Some("1"), &["1"]) };
    let scheme = PolicyDoc { world: PolicyWorld::TicketScheme, ..doc("scheme", Some("1"), &["1"]) };
    shelf.tell(vec![doc("closed", Some("1"), &["1"]), open.clone(), scheme]);
    let arrangement = shelf.arrange();
    assert_eq!((arrangement.unready, arrangement.unready_schemes), (vec!["closed".to_owned()], true));
    shelf.tell(vec![doc("closed", Some("2"), &["2"]), open, doc("later", Some("1"), &["1"])]);
    assert_eq!(decides(&mut shelf).1, ["closed", "later"], "still, and so does one that came meanwhile");
}

#[test]
fn a_rule_that_comes_into_force_is_not_passed_by_while_its_version_is_made() {
    let mut shelf = Shelf::default();
    shelf.tell(vec![doc("p", None, &["1", "2"])]);
    assert_eq!(decides(&mut shelf), (vec![], vec![]), "nobody said that it holds");
    shelf.tell(vec![doc("p", Some("1"), &["1", "2"])]);
    assert_eq!(decides(&mut shelf), (vec![], vec!["p".to_owned()]));
    assert!(shelf.standings().iter().all(|standing| !standing.is_deciding && !standing.is_ready));
    make(&mut shelf, "1");
    assert_eq!(decides(&mut shelf), only("p@1"));
    // Turned off, and on again with a version that is not there: the one from before has no say any more.
    shelf.tell(vec![doc("p", None, &["1", "2"])]);
    assert_eq!(decides(&mut shelf), (vec![], vec![]));
    shelf.tell(vec![doc("p", Some("2"), &["1", "2"])]);
    assert_eq!(decides(&mut shelf), (vec![], vec!["p".to_owned()]));
    let open = PolicyDoc { on_failure: PolicyFailMode::Open, ..doc("p", Some("2"), &["1", "2"]) };
    shelf.tell(vec![open]);
    assert_eq!(decides(&mut shelf), (vec![], vec![]), "one that fails open lets them pass");
}

#[test]
fn other_services_make_all_anew_and_what_is_there_goes_on_meanwhile() {
    let mut shelf = Shelf::default();
    shelf.tell(vec![doc("p", None, &["1"])]);
    make(&mut shelf, "1");
    shelf.tell(vec![doc("p", Some("1"), &["1"])]);
    assert!(shelf.missing().is_empty());
    shelf.lend(Arc::new(Services::default()));
    assert_eq!((shelf.missing().len(), decides(&mut shelf)), (1, only("p@1")));
    make(&mut shelf, "1");
    assert!(shelf.missing().is_empty());
}

#[test]
fn candidates_are_tried_where_they_are_ready() {
    let mut shelf = Shelf::default();
    let candidate = |trial| Some(PolicyCandidate { version: "2".to_owned(), trial });
    let told = PolicyDoc { candidate: candidate(PolicyTrial::Canary(500)), ..doc("p", Some("1"), &["1", "2"]) };
    shelf.tell(vec![doc("p", None, &["1"])]);
    make(&mut shelf, "1");
    shelf.tell(vec![told]);
    assert!(shelf.arrange().chain.places()[0].candidate.is_none());
    make(&mut shelf, "2");
    let arrangement = shelf.arrange();
    let (policy, trial) = arrangement.chain.places()[0].candidate.clone().unwrap();
    assert_eq!((policy.label().as_ref(), trial), ("p@2", Trial::Canary(500)));
    let alone = PolicyDoc { candidate: candidate(PolicyTrial::Shadow), ..doc("p", None, &["1", "2"]) };
    shelf.tell(vec![alone]);
    let arrangement = shelf.arrange();
    assert!(arrangement.chain.places()[0].active.is_none(), "a shadow alone decides nothing");
}
