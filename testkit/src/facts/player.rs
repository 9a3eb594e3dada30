//! A player: segment after segment, each until it is whole, and a diary of what was asked for and what came.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;

use super::origin::{self, SEGMENTS, VERSION};
use crate::soak::random::Random;
use crate::soak::wire::{Answer, Wire};

/// The CMCD key of a request's number.
pub(crate) const NUMBER: &str = "com.segue-n";
/// Between two segments, at most; half of it on average.
const PACE_MS: u64 = 500;
/// After a request that failed.
const AGAIN: Duration = Duration::from_millis(100);
/// So many requests in a thousand are left by their player before they are over.
const LEAVES_PER_MILLE: u64 = 30;
/// After the end of the run a segment that was begun has so long to come whole.
const FINISH: Duration = Duration::from_secs(60);

/// What all players share.
#[derive(Debug)]
pub(crate) struct Crowd {
    edges: Vec<SocketAddr>,
    counts: Vec<(AtomicU64, AtomicU64)>,
    tracks: Vec<String>,
    seed: u64,
    until: Instant,
}

/// Requests at an edge: how many ever began, and how many ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnderWay {
    began: u64,
    ended: u64,
}

impl UnderWay {
    /// The most that can have been under way at one moment between this one and `later`.
    pub(crate) fn until(self, later: Self) -> u64 {
        later.began - self.ended
    }
}

impl Crowd {
    pub(crate) fn new(edges: Vec<SocketAddr>, tracks: Vec<String>, seed: u64, length: Duration) -> Self {
        let counts = edges.iter().map(|_| Default::default()).collect();
        Self { edges, counts, tracks, seed, until: Instant::now() + length }
    }

    pub(crate) fn under_way(&self, edge: usize) -> UnderWay {
        self.counts.get(edge).map_or(UnderWay { began: 0, ended: 0 }, |(began, ended)| {
            // The later number first, so that what is counted in between is counted as under way.
            let ended = ended.load(Ordering::SeqCst);
            UnderWay { began: began.load(Ordering::SeqCst), ended }
        })
    }
}

/// A segment that came whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) track: String,
    pub(crate) segment: usize,
    pub(crate) bytes: u64,
}

/// What a player wrote down.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    pub(crate) sid: String,
    /// Requests that were answered whole, by their number.
    pub(crate) whole: BTreeMap<u64, Got>,
    /// Requests that broke off, and those that were left.
    pub(crate) broken: BTreeSet<u64>,
    pub(crate) left: BTreeSet<u64>,
    /// Answers that were refusals: an edge that starts, or one that cannot reach what it needs.
    pub(crate) refused: u64,
    /// Bytes that were not those of the segment.
    pub(crate) wrong: Vec<String>,
}

impl Diary {
    /// The segments of each track, told apart.
    pub(crate) fn heard(&self) -> BTreeMap<&str, BTreeSet<usize>> {
        let mut heard: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for got in self.whole.values() {
            heard.entry(&got.track).or_default().insert(got.segment);
        }
        heard
    }
}

/// One player's connection.
struct Connection {
    edge: usize,
    wire: Option<Wire>,
    /// The track whose playlist came over this connection.
    listed: Option<usize>,
}

/// The name of a player's session.
pub(crate) fn sid(number: u64) -> String {
    format!("player-{number}")
}

/// Plays track after track until the run is over.
pub(crate) async fn play(crowd: Arc<Crowd>, player: u64, ticket: String) -> anyhow::Result<Diary> {
    let mut random = Random::of_part(crowd.seed, "player", player);
    let mut diary = Diary { sid: sid(player), ..Diary::default() };
    let start = random.place(crowd.tracks.len());
    let mut connection = Connection { edge: random.place(crowd.edges.len()), wire: None, listed: None };
    // Numbers of different players never meet.
    let mut number = player * 1_000_000;
    for step in 0.. {
        let (track, segment) = ((start + step / SEGMENTS) % crowd.tracks.len(), step % SEGMENTS);
        while !want(&crowd, &ticket, &mut connection, &mut random, &mut diary, &mut number, (track, segment)).await {
            if Instant::now() > crowd.until + FINISH {
                bail!("{} never got segment {segment} of track {track}", diary.sid);
            }
            tokio::time::sleep(AGAIN).await;
        }
        if Instant::now() > crowd.until {
            break;
        }
        tokio::time::sleep(Duration::from_millis(random.below(PACE_MS))).await;
    }
    Ok(diary)
}

/// Asks for a segment once. Whether it came whole.
async fn want(
    crowd: &Crowd,
    ticket: &str,
    connection: &mut Connection,
    random: &mut Random,
    diary: &mut Diary,
    number: &mut u64,
    (track, segment): (usize, usize),
) -> bool {
    let Some((name, address)) = crowd.tracks.get(track).zip(crowd.edges.get(connection.edge)) else { return false };
    let at = |file: &str| format!("/p/{ticket}/hls/{name}/{VERSION}/{file}");
    // A player that comes to another edge begins with the playlist, as it would after a reload.
    if connection.wire.is_none() || connection.listed != Some(track) {
        let listed = async {
            let mut wire = Wire::connect(*address).await?;
            let answer = wire.ask(&request(&at("a128/index.m3u8"), ""), false).await?;
            anyhow::Ok((answer.status == 200 && answer.keeps()).then_some(wire))
        };
        connection.wire = listed.await.ok().flatten();
        connection.listed = connection.wire.as_ref().map(|_| track);
    }
    let Some(mut wire) = connection.wire.take() else {
        connection.edge = (connection.edge + 1) % crowd.edges.len();
        return false;
    };
    *number += 1;
    let asked = request(&at(&origin::file(segment)), &format!("CMCD-Request: bl=4000,{NUMBER}={number}\r\n"));
    let counts = crowd.counts.get(connection.edge);
    if let Some((began, _)) = counts {
        began.fetch_add(1, Ordering::SeqCst);
    }
    let answer = if random.per_mille(LEAVES_PER_MILLE) {
        diary.left.insert(*number);
        let after = random.place(4000);
        // However it ended, it was left.
        let _left = wire.ask_and_leave(asked.as_bytes(), after).await;
        None
    } else {
        let answer = wire.ask(&asked, false).await.ok();
        match &answer {
            Some(answer) if answer.status == 200 && answer.whole => note(diary, *number, name, segment, answer),
            Some(answer) if answer.status != 200 => diary.refused += 1,
            _ => {
                diary.broken.insert(*number);
            }
        }
        if answer.as_ref().is_some_and(Answer::keeps) {
            connection.wire = Some(wire);
        }
        answer
    };
    if let Some((_, ended)) = counts {
        ended.fetch_add(1, Ordering::SeqCst);
    }
    let is_whole = answer.is_some_and(|answer| answer.status == 200 && answer.whole);
    if !is_whole && !diary.left.contains(number) {
        connection.edge = (connection.edge + 1) % crowd.edges.len();
    }
    is_whole
}

fn note(diary: &mut Diary, number: u64, track: &str, segment: usize, answer: &Answer) {
    if answer.body != origin::body(segment) {
        diary.wrong.push(format!("request {number}: segment {segment} of {track} has other bytes than its own"));
    }
    diary.whole.insert(number, Got { track: track.to_owned(), segment, bytes: answer.body.len() as u64 });
}

fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: edge\r\n{headers}\r\n")
}
