//! From segments to counted plays.

use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::Method;
use segue_testkit::player::Record;
use segue_testkit::{Player, songs};

/// Long enough for a wrong count to show.
const CALM: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_is_one_play_a_second_listener_makes_two_and_nothing_else_makes_any() -> anyhow::Result<()> {
    let segue = crate::start().await?;
    let track = segue.add(&songs::tone(62.0, "minute.wav")?).await?;

    // HEAD on every segment, half a minute's worth of one segment over and over, and ranges: no play that counts.
    let idle = Player::new(&segue.ticket(&track.id, "idle").await?)?;
    let rendition = idle.renditions().await?.into_iter().next().context("no rendition")?;
    for (segment, _) in &rendition.segments {
        let head = idle.send(Method::HEAD, segment, &[]).await?;
        ensure!(head.status() == 200, "HEAD: {}", head.status());
    }
    let stats = segue.stats_when(&track.id, CALM, |_| true).await?;
    ensure!(stats.plays == 0 && stats.qualified == 0, "HEAD made a play: {stats:?}");
    let (first, _) = rendition.segments.first().context("no segment")?;
    for _ in 0..8 {
        idle.get(first).await?;
        let part = idle.send(Method::GET, first, &[("range", "bytes=0-99")]).await?;
        ensure!(part.status() == 206, "range: {}", part.status());
        part.bytes().await?;
    }
    let stats = segue.stats_when(&track.id, CALM, |stats| stats.plays == 1).await?;
    ensure!(stats.qualified == 0, "the same segment over and over qualified: {stats:?}");

    // A whole listen, then seeking back and forth: one.
    let listener = Player::new(&segue.ticket(&track.id, "one").await?)?;
    let record = listener.play_whole().await?;
    ensure!(record.segments.len() == rendition.segments.len() && record.broken == 0, "{record:?}");
    segue.stats_when(&track.id, CALM, |stats| stats.qualified == 1).await?;
    let mut again = Record::default();
    for n in [9, 0, 5, 2, 10, 0, 7] {
        listener.take(&rendition_of(&listener).await?[n], &mut again).await;
    }
    ensure!(again.broken == 0, "{again:?}");
    let stats = segue.stats_when(&track.id, CALM, |_| true).await?;
    ensure!(stats.qualified == 1 && stats.plays == 2, "seeking made a play: {stats:?}");

    // Another listener who hears half a minute.
    let second = Player::new(&segue.ticket(&track.id, "two").await?)?;
    second.play_first(6).await?;
    let stats = segue.stats_when(&track.id, CALM, |stats| stats.qualified == 2).await?;
    ensure!(stats.plays == 3 && stats.listeners == 3, "{stats:?}");

    // Another who hears 24 s: started, not counted.
    Player::new(&segue.ticket(&track.id, "three").await?)?.play_first(4).await?;
    let stats = segue.stats_when(&track.id, CALM, |stats| stats.plays == 4).await?;
    ensure!(stats.qualified == 2, "24 s counted: {stats:?}");
    Ok(())
}

async fn rendition_of(player: &Player) -> anyhow::Result<Vec<url::Url>> {
    let rendition = player.renditions().await?.into_iter().next().context("no rendition")?;
    Ok(rendition.segments.into_iter().map(|(url, _)| url).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_song_shorter_than_half_a_minute_counts_at_half() -> anyhow::Result<()> {
    let segue = crate::start().await?;
    let track = segue.add(&songs::tone(20.0, "short.wav")?).await?;
    Player::new(&segue.ticket(&track.id, "little").await?)?.play_first(1).await?;
    let stats = segue.stats_when(&track.id, CALM, |stats| stats.plays == 1).await?;
    ensure!(stats.qualified == 0, "6 of 20 s counted: {stats:?}");
    Player::new(&segue.ticket(&track.id, "half").await?)?.play_first(2).await?;
    segue.stats_when(&track.id, CALM, |stats| stats.qualified == 1).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn plays_survive_a_restart_and_are_not_counted_again() -> anyhow::Result<()> {
    let mut segue = crate::start().await?;
    let track = segue.add(&songs::tone(40.0, "again.wav")?).await?;
    Player::new(&segue.ticket(&track.id, "one").await?)?.play_whole().await?;
    let before = segue.stats_when(&track.id, CALM, |stats| stats.qualified == 1).await?;
    let status = segue.stop().await?;
    ensure!(status.success(), "Ctrl-C ended with {status}");
    segue.restart().await?;
    let after = segue.stats_when(&track.id, CALM, |_| true).await?;
    ensure!(after == before, "{before:?} became {after:?}");
    Ok(())
}
