use super::*;

const S: u64 = 1_000_000_000;

fn config(max: u32, on_excess: OnExcess) -> StreamsConfig {
    StreamsConfig { grace: Duration::from_secs(10), ..StreamsConfig::new(max, on_excess) }
}

fn at(sid: u64, now: u64) -> Asking {
    Asking { sid, now: now * S, ticket_age: None }
}

#[test]
fn a_place_lasts_as_long_as_what_was_buffered() {
    let config = config(1, OnExcess::RefuseNewest);
    let mut listener = Listener::default();
    assert_eq!(listener.admit(&config, at(1, 100)), Ok(()));
    for _ in 0..5 {
        listener.extend(1, 100 * S, 6 * S);
    }
    assert_eq!(listener.admit(&config, at(2, 101)), Err(Excess::Full(39 * S)), "30 s of media and 10 of grace");
    assert_eq!(listener.admit(&config, at(2, 139)), Err(Excess::Full(S)));
    assert_eq!(listener.admit(&config, at(2, 140)), Ok(()));
    assert_eq!(listener.playing(140 * S), 1);
}

#[test]
fn what_is_buffered_counts_up_to_a_bound() {
    let config = config(1, OnExcess::RefuseNewest);
    let mut listener = Listener::default();
    assert_eq!(listener.admit(&config, at(1, 1)), Ok(()));
    listener.extend(1, S, 90_000 * S);
    assert_eq!(listener.admit(&config, at(2, 1)), Err(Excess::Full(610 * S)));
}

#[test]
fn the_newest_stops_the_oldest_which_comes_back_with_a_new_ticket() {
    let config = config(2, OnExcess::StopOldest);
    let mut listener = Listener::default();
    for sid in 1..=3 {
        assert_eq!(listener.admit(&config, at(sid, 10 * sid)), Ok(()));
        listener.extend(sid, 10 * sid * S, 60 * S);
    }
    assert_eq!(listener.admit(&config, at(1, 31)), Err(Excess::Stopped(599 * S)));
    assert_eq!(listener.admit(&config, at(2, 31)), Ok(()), "who plays goes on");
    let renewed = Asking { ticket_age: Some(S), ..at(1, 40) };
    assert_eq!(listener.admit(&config, renewed), Ok(()));
    assert!(matches!(listener.admit(&config, at(2, 41)), Err(Excess::Stopped(_))), "now the second is the oldest");
    assert_eq!(listener.playing(41 * S), 2);
    assert_eq!(listener.admit(&config, at(2, 700)), Ok(()), "what was stopped long ago is forgotten");
}

#[test]
fn a_crowd_of_sessions_stays_small_in_memory() {
    let config = config(3, OnExcess::StopOldest);
    let mut listener = Listener::default();
    for sid in 0..1_000 {
        assert_eq!(listener.admit(&config, at(sid, 1 + sid / 100)), Ok(()));
    }
    assert!(listener.sessions.len() <= 6, "{} sessions are held", listener.sessions.len());
}
