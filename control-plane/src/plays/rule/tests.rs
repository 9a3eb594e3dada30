//! The rule, on facts as edges write them.
#![allow(clippy::unwrap_used)]

use segue_events::CacheState;

use super::*;

const SEGMENT: u64 = 6000;
const T0: u64 = 1_700_000_000_000;

fn fact(n: u64) -> Fact {
    Fact {
        v: 1,
        id: format!("e-1-{n}"),
        ts: T0 + n * SEGMENT,
        edge: "e".to_owned(),
        track: "aaaaaaaaaaaa".to_owned(),
        version: None,
        file: format!("v/a64/seg-{n:05}.m4s"),
        kind: Kind::Segment,
        pos_ms: Some(n * SEGMENT),
        media_ms: Some(SEGMENT),
        sid: "s1".to_owned(),
        sub: None,
        status: 200,
        bytes: 48_000,
        range: None,
        ttfb_ms: 1,
        cache: CacheState::HitMemory,
        policy: None,
        tags: Vec::new(),
        ua: None,
        ip_hash: None,
        cmcd: None,
        complete: true,
        recovered: false,
    }
}

/// A listener's plays of one track, and everything that became true of them, in order.
#[derive(Default)]
struct Listening {
    plays: Vec<Play>,
    told: Vec<Transition>,
}

impl Listening {
    fn hear(&mut self, fact: &Fact, duration: Option<u64>) {
        let Some(delivery) = Delivery::of(fact) else { return };
        let (near, far) =
            std::mem::take(&mut self.plays).into_iter().partition(|play| belongs(play, delivery.ts, gap_ms(duration)));
        let step = apply(near, &delivery, duration);
        self.told.extend(step.transitions);
        self.plays = far;
        self.plays.push(step.play);
    }

    /// Distinct media of all plays.
    fn heard_ms(&self) -> u64 {
        self.plays.iter().map(|play| play.covered.total()).sum()
    }

    fn all(facts: &[Fact], duration: Option<u64>) -> Self {
        let mut listening = Self::default();
        for fact in facts {
            listening.hear(fact, duration);
        }
        listening
    }

    fn count(&self, transition: Transition) -> usize {
        self.told.iter().filter(|told| **told == transition).count()
    }
}

const MINUTE: Option<u64> = Some(60_000);

#[test]
fn thirty_seconds_qualify_and_not_one_segment_less() {
    let facts: Vec<Fact> = (0..5).map(fact).collect();
    let four = Listening::all(&facts[..4], MINUTE);
    assert_eq!((four.count(Transition::Started), four.count(Transition::Qualified)), (1, 0));
    let five = Listening::all(&facts, MINUTE);
    assert_eq!((five.count(Transition::Started), five.count(Transition::Qualified)), (1, 1));
    assert_eq!(five.heard_ms(), 30_000);
}

#[test]
fn half_qualifies_where_a_track_is_shorter() {
    let track = Some(20_000);
    let one = Listening::all(&[fact(0)], track);
    assert_eq!(one.count(Transition::Qualified), 0, "6 s of 20 s");
    let two = Listening::all(&[fact(0), fact(1)], track);
    assert_eq!(two.count(Transition::Qualified), 1, "12 s of 20 s");
    let short = Listening::all(&[fact(0)], Some(1500));
    assert_eq!((short.count(Transition::Qualified), short.heard_ms()), (1, 1500), "no more than there is");
}

#[test]
fn a_segment_again_and_again_is_heard_once() {
    let facts: Vec<Fact> = (0..20).map(|n| Fact { id: format!("e-1-{n}"), ..fact(0) }).collect();
    let listening = Listening::all(&facts, MINUTE);
    assert_eq!((listening.heard_ms(), listening.count(Transition::Qualified), listening.plays.len()), (SEGMENT, 0, 1));
}

#[test]
fn renditions_cover_the_same_media() {
    let mut facts = vec![fact(0), fact(1)];
    facts.extend([0, 1].map(|n| Fact { id: format!("e-2-{n}"), file: format!("v/a256/seg-{n:05}.m4s"), ..fact(n) }));
    assert_eq!(Listening::all(&facts, MINUTE).heard_ms(), 2 * SEGMENT);
}

#[test]
fn seeking_back_and_forth_is_one_play() {
    let order = [0, 1, 8, 9, 2, 0, 1, 5, 9, 3];
    let facts: Vec<Fact> =
        order.iter().enumerate().map(|(at, &n)| Fact { ts: T0 + at as u64 * 1000, ..fact(n) }).collect();
    let listening = Listening::all(&facts, MINUTE);
    assert_eq!((listening.plays.len(), listening.count(Transition::Qualified)), (1, 1));
    assert_eq!(listening.heard_ms(), 7 * SEGMENT);
}

#[test]
fn every_order_of_arrival_comes_to_the_same_play() {
    let facts: Vec<Fact> = (0..6).map(fact).collect();
    let straight = Listening::all(&facts, MINUTE);
    for rotation in 1..6 {
        let mut turned = facts.clone();
        turned.rotate_left(rotation);
        turned.swap(0, 3);
        let other = Listening::all(&turned, MINUTE);
        let same = |play: &Play| (play.first_ms, play.last_ms, play.covered.clone(), play.qualified, play.quartile);
        assert_eq!(same(&other.plays[0]), same(&straight.plays[0]), "{rotation}");
        assert_eq!(other.heard_ms(), straight.heard_ms());
    }
}

#[test]
fn quartiles_are_passed_in_order_and_once_though_one_fact_passes_several() {
    let whole = Fact { pos_ms: Some(0), media_ms: Some(60_000), ..fact(0) };
    let listening = Listening::all(&[whole.clone(), Fact { id: "again".to_owned(), ..whole }], MINUTE);
    let quartiles: Vec<Transition> = (1..=4).map(Transition::Quartile).collect();
    assert_eq!(listening.told, [vec![Transition::Started, Transition::Qualified], quartiles].concat());
}

#[test]
fn all_of_a_track_allows_for_rounded_durations() {
    // 60.000 s that the playlist's rounded durations add up to 59.940 s, and another that lacks a whole segment.
    let rounded = Fact { media_ms: Some(59_940), ..fact(0) };
    assert_eq!(Listening::all(&[rounded], MINUTE).count(Transition::Quartile(4)), 1);
    let lacking = Fact { media_ms: Some(54_000), ..fact(0) };
    assert_eq!(Listening::all(&[lacking], MINUTE).count(Transition::Quartile(4)), 0);
}

#[test]
fn what_delivers_no_media_counts_for_nothing() {
    let nothing = [
        Fact { kind: Kind::Init, ..fact(0) },
        Fact { complete: false, ..fact(0) },
        Fact { bytes: 0, ..fact(0) },
        Fact { status: 206, range: None, ..fact(0) },
        Fact { status: 206, range: Some([5, 4, 10]), ..fact(0) },
        Fact { status: 206, range: Some([0, 10, 10]), ..fact(0) },
        Fact { status: 404, ..fact(0) },
        Fact { status: 416, ..fact(0) },
    ];
    for fact in nothing {
        assert_eq!(Delivery::of(&fact), None, "{fact:?}");
    }
}

#[test]
fn a_304_counts_whole_and_so_does_a_recovered_fact() {
    let kept = Fact { status: 304, bytes: 0, ..fact(0) };
    assert_eq!(Delivery::of(&kept).unwrap().media, Some((0, SEGMENT)));
    let recovered = Fact { recovered: true, ..fact(1) };
    assert_eq!(Delivery::of(&recovered).unwrap().media, Some((SEGMENT, 2 * SEGMENT)));
}

#[test]
fn a_206_counts_its_share_and_ranges_in_a_row_leave_no_hole() {
    let part = |first, last| Fact { status: 206, range: Some([first, last, 997]), bytes: last - first + 1, ..fact(2) };
    assert_eq!(Delivery::of(&part(0, 996)).unwrap().media, Some((12_000, 18_000)));
    assert_eq!(Delivery::of(&part(0, 498)).unwrap().media, Some((12_000, 12_000 + 6000 * 499 / 997)));
    let mut cover = Cover::default();
    let mut at = 0;
    for step in [1, 2, 300, 7, 500, 187] {
        let (start, end) = Delivery::of(&part(at, at + step - 1)).unwrap().media.unwrap();
        cover.add(start, end);
        at += step;
    }
    assert_eq!(at, 997);
    assert_eq!(cover.to_text(), "12000-18000");
}

#[test]
fn a_segment_whose_place_is_unknown_opens_a_play_and_covers_nothing() {
    let listening = Listening::all(&[Fact { pos_ms: None, ..fact(0) }], MINUTE);
    assert_eq!((listening.count(Transition::Started), listening.heard_ms()), (1, 0));
}

#[test]
fn silence_of_the_track_s_length_begins_a_new_play() {
    let at = |n: u64, ts: u64| Fact { id: format!("e-9-{ts}"), ts: T0 + ts, ..fact(n) };
    let within = Listening::all(&[at(0, 0), at(1, 60_000)], MINUTE);
    assert_eq!(within.plays.len(), 1, "a gap of exactly the length is not over");
    let after = Listening::all(&[at(0, 0), at(0, 60_001)], MINUTE);
    assert_eq!((after.plays.len(), after.count(Transition::Started)), (2, 2));
    assert_ne!(after.plays[0].id, after.plays[1].id);
}

#[test]
fn no_gap_is_longer_than_half_an_hour() {
    assert_eq!(gap_ms(None), 30 * 60_000);
    assert_eq!(gap_ms(Some(5 * 3_600_000)), 30 * 60_000);
    assert_eq!(gap_ms(Some(61_000)), 61_000);
    assert_eq!(gap_ms(Some(0)), 1);
}

#[test]
fn a_replay_after_the_end_qualifies_again() {
    let mut facts: Vec<Fact> = (0..10).map(fact).collect();
    facts.extend((0..10).map(|n| Fact { id: format!("e-2-{n}"), ts: T0 + 3_600_000 + n * SEGMENT, ..fact(n) }));
    let listening = Listening::all(&facts, MINUTE);
    assert_eq!(
        (listening.plays.len(), listening.count(Transition::Qualified), listening.count(Transition::Quartile(4))),
        (2, 2, 2)
    );
}

#[test]
fn a_late_fact_joins_the_play_of_its_time_even_after_its_end() {
    let mut facts: Vec<Fact> = [0, 1, 2, 3].map(fact).to_vec();
    facts.push(Fact { id: "replay".to_owned(), ts: T0 + 3_600_000, ..fact(0) });
    let mut listening = Listening::all(&facts, MINUTE);
    for play in &mut listening.plays {
        end(play);
    }
    // The fifth segment of the first play had been waiting on an edge that was cut off.
    listening.hear(&fact(4), MINUTE);
    assert_eq!(listening.plays.len(), 2);
    assert_eq!(listening.count(Transition::Qualified), 1);
    let first = listening.plays.iter().find(|play| play.first_ms == i64::try_from(T0).unwrap()).unwrap();
    assert!(first.qualified);
}

#[test]
fn a_play_ends_once_at_its_last_fact_and_the_gap() {
    let mut play = Listening::all(&[fact(0), fact(1)], MINUTE).plays.remove(0);
    assert_eq!(end(&mut play), Some(Transition::Ended));
    assert_eq!(play.ended_ms, Some(i64::try_from(T0 + SEGMENT).unwrap() + 60_000));
    assert_eq!(end(&mut play), None);
}

#[test]
fn what_lies_between_two_plays_makes_them_one() {
    let at = |n: u64, ts: u64| Fact { id: format!("e-9-{ts}"), ts: T0 + ts, ..fact(n) };
    let mut listening = Listening::all(&[at(0, 0), at(1, 100_000)], MINUTE);
    assert_eq!(listening.plays.len(), 2);
    let name = listening.plays.iter().min_by_key(|play| play.first_ms).unwrap().id.clone();
    for play in &mut listening.plays {
        end(play);
    }
    listening.hear(&at(2, 50_000), MINUTE);
    let [play] = listening.plays.as_slice() else { panic!("{:?}", listening.plays) };
    assert_eq!((play.covered.total(), &play.id), (3 * SEGMENT, &name));
    assert_eq!(play.ended_ms, Some(play.ends_ms), "over it stays, at its new end");
    assert_eq!(play.ends_ms, i64::try_from(T0).unwrap() + 160_000);
    // An open one goes on.
    let mut listening = Listening::all(&[at(0, 0), at(1, 100_000)], MINUTE);
    end(listening.plays.iter_mut().min_by_key(|play| play.first_ms).unwrap());
    listening.hear(&at(2, 50_000), MINUTE);
    assert_eq!(listening.plays[0].ended_ms, None);
}

#[test]
fn tenths_are_passed_with_the_quarters() {
    let facts: Vec<Fact> = (0..6).map(fact).collect();
    let play = Listening::all(&facts, MINUTE).plays.remove(0);
    assert_eq!((play.quartile, play.decile), (2, 6));
    let rounded = Fact { media_ms: Some(59_940), ..fact(0) };
    assert_eq!(Listening::all(&[rounded], MINUTE).plays[0].decile, 10);
    assert_eq!(Listening::all(&[fact(0)], None).plays[0].decile, 0, "of an unknown length nothing is a share");
}

#[test]
fn names_of_plays_come_from_what_opened_them() {
    let again = || Listening::all(&[fact(0), fact(1)], MINUTE).plays.remove(0).id;
    assert_eq!(again(), again());
    assert_ne!(again(), Listening::all(&[fact(1)], MINUTE).plays[0].id);
}

#[test]
fn absurd_numbers_do_no_harm() {
    let far = Fact { pos_ms: Some(u64::MAX), media_ms: Some(u64::MAX), ..fact(0) };
    assert_eq!(Listening::all(std::slice::from_ref(&far), MINUTE).heard_ms(), 0);
    let range = Fact { status: 206, range: Some([0, u64::MAX - 1, u64::MAX]), ..far };
    Listening::all(&[range], MINUTE);
    assert_eq!(Delivery::of(&Fact { ts: u64::MAX, ..fact(0) }), None);
}
