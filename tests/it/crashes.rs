//! `kill -9` in mid-upload, mid-transcode and mid-play, ten times at different moments; then the books are checked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use segue_events::{EventLog, Fact, Kind, LogOptions};
use segue_testkit::player::Record;
use segue_testkit::{Player, Segue, songs};
use serde_json::Value;

const ROUNDS: u64 = 10;

/// A listener who goes through the song until the edge is gone: what arrived whole, and nothing else, is written down.
async fn listen(url: String) -> anyhow::Result<Record> {
    let player = Player::new(&url)?;
    let mut record = Record::default();
    let Ok(renditions) = player.renditions().await else { return Ok(record) };
    let rendition = renditions.into_iter().next().context("no rendition")?;
    for (segment, _) in &rendition.segments {
        player.take(segment, &mut record).await;
        if record.broken > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    Ok(record)
}

/// Every fact in the demo's log. The demo must not run.
fn facts(segue: &Segue) -> anyhow::Result<Vec<Fact>> {
    let events = EventLog::open(&segue.dir().join("events"), "demo", LogOptions::default())?;
    let (mut facts, mut from) = (Vec::new(), events.facts().start());
    loop {
        let batch = events.facts().read(from, 1000)?;
        if batch.records.is_empty() {
            return Ok(facts);
        }
        for (_, json) in &batch.records {
            facts.push(serde_json::from_str(json)?);
        }
        from = batch.next;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_lose_no_fact_count_no_play_twice_and_publish_nothing_by_half() -> anyhow::Result<()> {
    let mut segue = crate::start().await?;
    let song = segue.add(&songs::tone(60.0, "crash.wav")?).await?;
    let small = songs::tone(9.0, "small.wav")?;
    let large = songs::tone(120.0, "large.wav")?;

    let mut records: BTreeMap<String, Record> = BTreeMap::new();
    let mut queued = Vec::new();
    for round in 0..ROUNDS {
        // A job under way or waiting, some listeners, and an upload that the kill cuts off.
        queued.push(segue.upload(&small).await?);
        let mut listeners = Vec::new();
        for n in 0..4u64 {
            let sid = format!("listener-{round}-{n}");
            listeners.push((sid.clone(), tokio::spawn(listen(segue.ticket(&song.id, &sid).await?))));
            tokio::time::sleep(Duration::from_millis(30 * n)).await;
        }
        {
            let cut_off = std::pin::pin!(segue.upload(&large));
            let moment = Duration::from_millis(5 + round * round * 17 % 700);
            match tokio::time::timeout(moment, cut_off).await {
                Ok(done) => queued.push(done?),
                Err(_) => note_cut(round, moment),
            }
        }
        segue.kill().await?;
        for (sid, listener) in listeners {
            records.insert(sid, listener.await??);
        }
        segue.restart().await?;
    }

    // Every job ends.
    for id in &queued {
        let track = segue.settled(id).await?;
        ensure!(track.status == "ready", "{id}: {:?} {:?}\n{}", track.reason, track.message, segue.log());
    }
    let jobs: Value = segue.call(reqwest::Method::GET, "/v1/jobs", None).await?;
    for job in jobs["jobs"].as_array().context("no jobs")? {
        ensure!(["done", "failed"].contains(&job["state"].as_str().unwrap_or_default()), "{job}");
    }
    // Nothing is half published: what is ready plays to its end, what is not has no playlist.
    let tracks: Value = segue.call(reqwest::Method::GET, "/v1/tracks", None).await?;
    for track in tracks["tracks"].as_array().context("no tracks")? {
        let id = track["track"].as_str().context("no id")?;
        let master = segue.dir().join("objects/media/hls").join(id).join("master.m3u8");
        if track["status"] == "ready" {
            for rendition in Player::new(&segue.ticket(id, "checker").await?)?.renditions().await? {
                let checker = Player::new(&segue.ticket(id, "checker").await?)?;
                checker.get(&rendition.init).await?;
                for (segment, _) in &rendition.segments {
                    checker.get(segment).await?;
                }
            }
        } else {
            ensure!(!master.exists(), "{id} is {} and has a master playlist", track["status"]);
        }
    }

    // Facts against the players' own records.
    let ids: BTreeSet<&str> = records.keys().map(String::as_str).collect();
    let stats = segue.stats_when(&song.id, Duration::from_secs(2), |_| true).await?;
    segue.stop().await?;
    let facts = facts(&segue)?;
    let distinct: BTreeSet<&str> = facts.iter().map(|fact| fact.id.as_str()).collect();
    ensure!(distinct.len() == facts.len(), "{} facts share their ids", facts.len() - distinct.len());
    let mut counted: BTreeMap<(&str, String), u64> = BTreeMap::new();
    let of_song = || {
        facts
            .iter()
            .filter(|fact| fact.kind == Kind::Segment && fact.track == song.id && ids.contains(fact.sid.as_str()))
    };
    for fact in of_song() {
        let version = fact.version.as_deref().unwrap_or_default();
        *counted.entry((&fact.sid, format!("{version}/{}", fact.file))).or_default() += 1;
    }
    let mut completed = 0;
    for (sid, record) in &records {
        for path in &record.segments {
            let file = path.strip_prefix(&format!("/hls/{}/", song.id)).context("another track")?;
            let found = counted.get(&(sid.as_str(), file.to_owned())).copied().unwrap_or(0);
            ensure!(found == 1, "{sid} completed {file}, and it has {found} facts");
            completed += 1;
        }
    }
    ensure!(completed >= 50, "only {completed} segments were completed: the kills left nothing to check");
    let extra = of_song().count() - completed;
    ensure!(extra as u64 <= ROUNDS * 4, "{extra} facts more than segments completed");

    // Plays: one a listener at most, and counted by what the facts say.
    let mut heard: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for fact in of_song().filter(|fact| fact.complete) {
        heard.entry(&fact.sid).or_default().insert(&fact.file);
    }
    let mut checker = 0;
    if facts.iter().any(|fact| fact.sid == "checker" && fact.track == song.id && fact.kind == Kind::Segment) {
        checker = 1;
    }
    let qualified = heard.values().filter(|files| files.len() >= 5).count() as u64 + checker;
    ensure!(stats.plays == heard.len() as u64 + checker, "{} listeners, {stats:?}", heard.len());
    ensure!(stats.qualified == qualified, "{qualified} listeners heard half a minute, {stats:?}");
    println!("{completed} segments completed, {extra} facts of segments in flight at a kill, {stats:?}");
    Ok(())
}

/// A job that is cut off more often than a failing job may try again is no failing job; and it goes on at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_job_outlives_more_kills_than_it_has_attempts() -> anyhow::Result<()> {
    let mut segue = crate::start().await?;
    let id = segue.upload(&songs::tone(600.0, "long.flac")?).await?;
    for round in 1..=5 {
        let waiting = Instant::now();
        while segue.log().matches("job begun").count() < round {
            ensure!(
                waiting.elapsed() < Duration::from_secs(8),
                "round {round}: the job does not go on\n{}",
                segue.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        segue.kill().await?;
        segue.restart().await?;
    }
    let track = segue.settled(&id).await?;
    ensure!(track.status == "ready", "{:?} {:?}\n{}", track.reason, track.message, segue.log());
    Ok(())
}

fn note_cut(round: u64, moment: Duration) {
    println!("round {round}: the upload was cut off after {moment:?}");
}
