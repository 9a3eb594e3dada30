#![allow(clippy::unwrap_used)]
use segue_signing::limits::OnExcess;

use super::*;
use crate::limit::table::Slot as _;

const S: u64 = 1_000_000_000;

fn config(on_outage: OnOutage) -> StreamsConfig {
    StreamsConfig { on_outage, ..StreamsConfig::new(1, OnExcess::RefuseNewest) }
}

fn at(sid: u64, seconds: u64) -> Asking {
    Asking { sid, now: seconds * S, ticket_age: None }
}

/// A listener whose session 1 has a place since the first second.
fn seated(config: &StreamsConfig) -> Listener {
    let mut listener = Listener::default();
    let (place, tell) = listener.seek(config, at(1, 1), true, true);
    assert_eq!((place, tell.unwrap().is_held), (Place::Wait, false));
    listener.name(|| "name".into());
    listener.heard(config, 1, Heard { place: Ok((0, 0)), stopped: None }, S);
    listener
}

#[test]
fn a_session_asks_once_and_is_told_of_behind() {
    let config = config(OnOutage::Local);
    let mut listener = Listener::default();
    assert!(listener.seek(&config, at(1, 1), true, true).1.is_some());
    assert_eq!(listener.seek(&config, at(1, 1), true, true), (Place::Wait, None), "one call at a time");
    listener = seated(&config);
    for second in 2..8 {
        assert_eq!(listener.seek(&config, at(1, second), true, true), (Place::Held, None));
        assert_eq!(listener.extend(1, second * S, 6 * S), second == 2, "somebody will tell, once");
    }
    let (_, tell) = listener.due(1, 9 * S).unwrap().unwrap();
    assert_eq!((tell.media, tell.media_ago, tell.is_held), (36 * S, 7 * S, true));
    assert_eq!(tell.ahead, 29 * S, "36 s from the second second on");
    assert_eq!(listener.due(1, 9 * S), Err(StillAsking));
}

#[test]
fn what_a_lost_call_told_is_told_again() {
    let config = config(OnOutage::Local);
    let mut listener = seated(&config);
    assert!(listener.extend(1, 2 * S, 6 * S));
    assert!(listener.due(1, 4 * S).unwrap().is_some());
    assert!(listener.extend(1, 5 * S, 6 * S), "while the call is under way");
    listener.unheard(1);
    let (_, tell) = listener.due(1, 6 * S).unwrap().unwrap();
    assert_eq!((tell.media, tell.media_ago), (12 * S, 4 * S));
    listener.heard(&config, 1, Heard { place: Ok((10 * S, 5 * S)), stopped: None }, 6 * S);
    assert_eq!(listener.due(1, 7 * S), Ok(None), "nothing is owed");
    assert_eq!(listener.busy_until(), 16 * S + nanoseconds(config.grace), "Redis' word counts");
}

#[test]
fn a_refusal_stands_for_a_moment_and_a_stop_until_a_newer_ticket() {
    let config = config(OnOutage::Local);
    let mut listener = Listener::default();
    assert!(listener.seek(&config, at(2, 1), true, true).1.is_some());
    listener.heard(&config, 2, Heard { place: Err(Excess::Full(40 * S)), stopped: None }, S);
    assert_eq!(listener.seek(&config, at(2, 1), true, true), (Place::Excess(Excess::Full(40 * S)), None));
    assert!(listener.seek(&config, at(2, 3), true, true).1.is_some(), "asked again later");

    let mut listener = seated(&config);
    listener.stop_if_playing(&config, 1, S / 2);
    assert_eq!(listener.seek(&config, at(1, 2), true, true).0, Place::Held, "that was before it got its place");
    listener.stop_if_playing(&config, 1, 3 * S);
    assert_eq!(listener.seek(&config, at(1, 4), true, true), (Place::Excess(Excess::Stopped(599 * S)), None));
    let renewed = Asking { ticket_age: Some(0), ..at(1, 4) };
    let (place, tell) = listener.seek(&config, renewed, true, true);
    assert_eq!((place, tell.unwrap().ticket_age), (Place::Wait, Some(0)));
}

#[test]
fn an_outage_leaves_who_plays_alone() {
    for (on_outage, newcomer) in [
        (OnOutage::Open, Place::Held),
        (OnOutage::Closed, Place::Unavailable),
        (OnOutage::Local, Place::Excess(Excess::Full(5 * S))),
    ] {
        let config = config(on_outage);
        let mut listener = seated(&config);
        assert_eq!(listener.seek(&config, at(1, 11), false, true), (Place::Held, None));
        assert_eq!(listener.seek(&config, at(2, 11), false, true), (newcomer, None), "{on_outage:?}");
        // Who waited for a call that came to nothing does not ask again.
        assert_eq!(listener.seek(&config, at(3, 11), true, false), (newcomer, None));
        let told = listener.retell(12 * S, 12 * S);
        assert_eq!(told.iter().map(|tell| tell.sid).collect::<Vec<_>>(), [1], "told again when Redis is back");
    }
}

#[test]
fn a_crowd_that_asks_stays_small_in_memory() {
    let config = config(OnOutage::Local);
    let mut listener = Listener::default();
    let calls = (0..10_000).filter(|sid| listener.seek(&config, at(*sid, 1), true, true).1.is_some()).count();
    assert_eq!((calls, listener.sessions.len()), (UNSEATED_MAX, UNSEATED_MAX));
}
