//! The three ways to carry a ticket to every URI, in players that are not ours.

use anyhow::{Context, ensure};
use reqwest::Method;
use segue_testkit::{Player, SecondEdge, Segue, Track, songs};
use url::Url;

/// Seconds of the song.
const SECONDS: f64 = 20.0;

async fn edge(segue: &Segue, mode: &str) -> anyhow::Result<SecondEdge> {
    SecondEdge::start(crate::SEGUE, segue, mode, &format!("[tickets]\nplaylist = {mode:?}")).await
}

/// Playback URLs for one listener at `edge`: the ticket in the path, and in the query.
async fn urls(segue: &Segue, edge: &SecondEdge, track: &Track, sid: &str) -> anyhow::Result<(String, String)> {
    let url = Url::parse(&segue.ticket(&track.id, sid).await?)?;
    let mut parts = url.path().trim_start_matches("/p/").splitn(2, '/');
    let (ticket, path) = (parts.next().context("no ticket")?, parts.next().context("no path")?);
    let edge = edge.url();
    Ok((format!("{edge}/p/{ticket}/{path}"), format!("{edge}/{path}?ticket={ticket}")))
}

/// Bytes and ETag of the master playlist and of the first media playlist that it names.
async fn playlists(master: &str) -> anyhow::Result<Vec<(String, String)>> {
    let player = Player::new(master)?;
    let master = Url::parse(master)?;
    let ticket = master.query().unwrap_or_default().trim_start_matches("ticket=").to_owned();
    let mut got = Vec::new();
    let mut url = master;
    for _ in 0..2 {
        let response = player.send(Method::GET, &url, &[]).await?;
        ensure!(response.status() == 200, "{url}: {}", response.status());
        let etag = response.headers().get("etag").context("no ETag")?.to_str()?.to_owned();
        let text = response.text().await?;
        if let Some(uri) = text.lines().find(|line| line.contains(".m3u8") && !line.starts_with('#')) {
            url = url.join(&uri.replace("{$ticket}", &ticket))?;
        }
        got.push((etag, text));
    }
    Ok(got)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_listeners_share_playlists_but_where_their_tickets_stand_in_them() -> anyhow::Result<()> {
    let segue = crate::start().await?;
    let track = segue.add(&songs::tone(SECONDS, "shared.flac")?).await?;
    for mode in ["path", "define", "rewrite"] {
        let edge = edge(&segue, mode).await?;
        let mut got = Vec::new();
        for sid in ["one", "two"] {
            let (in_path, in_query) = urls(&segue, &edge, &track, sid).await?;
            got.push(playlists(if mode == "path" { &in_path } else { &in_query }).await?);
        }
        ensure!((got[0] == got[1]) == (mode != "rewrite"), "{mode}: {got:?}");
        for (_, text) in got.iter().flatten() {
            ensure!(text.contains("#EXT-X-DEFINE:QUERYPARAM=\"ticket\"") == (mode == "define"), "{mode}: {text}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hls_js_and_shaka_play_by_define_and_by_rewrite() -> anyhow::Result<()> {
    let segue = crate::start().await?;
    let track = segue.add(&songs::tone(SECONDS, "carried.flac")?).await?;
    for mode in ["define", "rewrite"] {
        let edge = edge(&segue, mode).await?;
        let (_, url) = urls(&segue, &edge, &track, mode).await?;
        let played = crate::browser::node("players.test.mjs", &[("SEGUE_URL", &url)]).await;
        played.with_context(|| format!("playlist = {mode:?}\n{}", edge.log()))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_plays_by_path_and_by_rewrite_and_does_not_know_define() -> anyhow::Result<()> {
    let segue = crate::start().await?;
    let track = segue.add(&songs::tone(SECONDS, "decoded.flac")?).await?;
    for mode in ["path", "define", "rewrite"] {
        let edge = edge(&segue, mode).await?;
        let (in_path, in_query) = urls(&segue, &edge, &track, mode).await?;
        let decoded = songs::decoded_seconds(if mode == "path" { &in_path } else { &in_query }, 0);
        if mode == "define" {
            // It asks for `?ticket={$ticket}` as it stands, is told that this is no ticket, and finds no stream.
            let said =
                format!("{:#}", decoded.err().context("this ffmpeg knows EXT-X-DEFINE: say so in docs/playlists.md")?);
            ensure!(said.contains("401") || said.contains("matches no streams"), "{said}");
        } else {
            let seconds = decoded.with_context(|| format!("{mode}\n{}", edge.log()))?;
            ensure!((seconds - SECONDS).abs() <= 0.1, "{mode}: {seconds} s");
        }
        // A ticket in the path works in every mode.
        let seconds = songs::decoded_seconds(&in_path, 0).with_context(|| format!("{mode}\n{}", edge.log()))?;
        ensure!((seconds - SECONDS).abs() <= 0.1, "{mode}, ticket in the path: {seconds} s");
    }
    Ok(())
}
