#![allow(clippy::unwrap_used)]

use super::*;

fn v(name: &str) -> String {
    name.to_owned()
}

/// Does all of it, and answers how it stands: active, tried, pushed.
fn after(acts: &[Act]) -> Rollout {
    let mut rollout = Rollout::default();
    for act in acts {
        rollout.apply(act.clone()).unwrap();
    }
    rollout
}

fn rolled_back(rollout: &mut Rollout) -> Option<String> {
    rollout.apply(Act::Rollback).unwrap().unwrap().version
}

#[test]
fn a_whole_life() {
    let mut rollout = after(&[Act::Activate(v("1")), Act::Push(v("2")), Act::Shadow(v("2"))]);
    assert_eq!(rollout.active, Some(v("1")));
    let canary = rollout.apply(Act::Canary(v("2"), 1000)).unwrap().unwrap();
    assert_eq!((canary.act, canary.share, canary.from), ("canary", Some(1000), None));
    let done = rollout.apply(Act::Activate(v("2"))).unwrap().unwrap();
    assert_eq!((done.act, done.version, done.from), ("activate", Some(v("2")), Some(v("1"))));
    assert_eq!(rollout.candidate, None, "what decides for all is no longer tried");
    assert_eq!(rolled_back(&mut rollout), Some(v("1")));
    assert_eq!(rollout.pushed, [v("1"), v("2")], "what was rolled back stays ready");
}

#[test]
fn rollbacks_go_further_back_and_never_forward() {
    let mut rollout = after(&[Act::Activate(v("1")), Act::Activate(v("2")), Act::Activate(v("3"))]);
    assert_eq!(rolled_back(&mut rollout), Some(v("2")));
    assert_eq!(rolled_back(&mut rollout), Some(v("1")));
    assert_eq!(rolled_back(&mut rollout), None, "before the first there was none");
    assert_eq!(rollout.apply(Act::Rollback), Err(Refused::NothingBefore));
}

#[test]
fn with_a_canary_a_rollback_ends_that() {
    let mut rollout = after(&[Act::Activate(v("1")), Act::Activate(v("2")), Act::Canary(v("3"), 500)]);
    let done = rollout.apply(Act::Rollback).unwrap().unwrap();
    assert_eq!((done.act, done.version, done.from), ("end-canary", Some(v("2")), Some(v("3"))));
    assert_eq!((rollout.active.clone(), rollout.candidate.clone()), (Some(v("2")), None));
    assert_eq!(rolled_back(&mut rollout), Some(v("1")));
}

#[test]
fn a_shadow_of_what_is_rolled_back_to_ends() {
    let mut rollout = after(&[Act::Activate(v("1")), Act::Activate(v("2")), Act::Shadow(v("1"))]);
    assert_eq!(rolled_back(&mut rollout), Some(v("1")));
    assert_eq!(rollout.candidate, None);
}

#[test]
fn what_is_off_can_be_rolled_back_on() {
    let mut rollout = after(&[Act::Activate(v("1")), Act::Disable]);
    assert_eq!(rollout.active, None);
    assert_eq!(rollout.clone().apply(Act::Disable), Err(Refused::NothingActive));
    assert_eq!(rolled_back(&mut rollout), Some(v("1")));
}

#[test]
fn what_stands_already_changes_nothing() {
    let mut rollout = after(&[Act::Activate(v("1")), Act::Shadow(v("2"))]);
    let before = rollout.clone();
    for act in [Act::Activate(v("1")), Act::Shadow(v("2")), Act::Push(v("1"))] {
        assert_eq!(rollout.apply(act), Ok(None));
    }
    assert_eq!(rollout, before);
    assert_eq!(rollout.apply(Act::Shadow(v("1"))), Err(Refused::IsActive(v("1"))));
}

#[test]
fn a_ticket_scheme_is_not_tried() {
    let mut rollout = Rollout { world: PolicyWorld::TicketScheme, ..Rollout::default() };
    assert_eq!(rollout.apply(Act::Canary(v("1"), 100)), Err(Refused::NoTrial));
    assert!(rollout.apply(Act::Activate(v("1"))).unwrap().is_some());
}

#[test]
fn the_oldest_that_nobody_needs_is_pulled() {
    let mut rollout = after(&[Act::Activate(v("a")), Act::Activate(v("b")), Act::Shadow(v("c"))]);
    for n in 0..MAX_POLICY_VERSIONS {
        rollout.apply(Act::Push(n.to_string())).unwrap();
    }
    assert_eq!(rollout.pushed.len(), MAX_POLICY_VERSIONS);
    for needed in ["a", "b", "c"] {
        assert!(rollout.pushed.contains(&v(needed)), "{needed}");
    }
    assert!(!rollout.pushed.contains(&v("0")) && rollout.pushed.contains(&(MAX_POLICY_VERSIONS - 1).to_string()));
}

#[test]
fn a_version_that_is_gone_is_nothing_to_go_back_to() {
    let mut rollout = after(&[Act::Activate(v("1")), Act::Activate(v("2")), Act::Activate(v("3"))]);
    assert!(rollout.needs("2") && !rollout.needs("1"));
    rollout.forget("1");
    assert_eq!(rolled_back(&mut rollout), Some(v("2")));
    assert_eq!(rolled_back(&mut rollout), None);
}
