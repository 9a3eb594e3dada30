//! Tickets that must not open anything.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use segue_signing::{Claims, Key, SigningSecret, mint};
use segue_testkit::{Player, songs};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

fn key(kid: &str, secret: &str) -> anyhow::Result<Key> {
    Ok(Key { kid: kid.to_owned(), secret: SigningSecret::parse(secret)?, not_before: None, retire_at: None })
}

fn claims(track: &str, now: i64) -> Claims {
    Claims {
        exp: now + 600,
        nbf: None,
        iat: Some(now),
        path: format!("/hls/{track}/"),
        sid: Some("s".to_owned()),
        sub: None,
        ip: None,
        lim: None,
        renew_until: None,
        ctx: None,
    }
}

fn with_payload(ticket: &str, change: impl FnOnce(&mut Value)) -> anyhow::Result<String> {
    let parts: Vec<&str> = ticket.split('.').collect();
    let mut payload: Value = serde_json::from_slice(&BASE64.decode(parts[1])?)?;
    change(&mut payload);
    Ok(format!("{}.{}.{}", parts[0], BASE64.encode(payload.to_string()), parts[2]))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_ticket_is_refused_with_its_reason_and_no_byte_of_media() -> anyhow::Result<()> {
    let segue = crate::start().await?;
    let track = segue.add(&songs::tone(8.0, "guarded.wav")?).await?;
    let good_url = segue.ticket(&track.id, "s").await?;
    let player = Player::new(&good_url)?;
    let rendition = player.renditions().await?.into_iter().next().context("no rendition")?;
    let segment = segue_testkit::player::object_path(&rendition.segments[0].0);
    let media = player.get(&rendition.segments[0].0).await?;

    let secret = std::fs::read_to_string(segue.dir().join("secrets/key-k1"))?;
    let k1 = key("k1", &secret)?;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let good = mint(&k1, &claims(&track.id, now))?;
    let (head, signature) = good.rsplit_once('.').context("no signature")?;
    let mut flipped = BASE64.decode(signature)?;
    flipped[7] ^= 1;
    let none = format!(
        "{}.{}.",
        BASE64.encode(r#"{"alg":"none","kid":"k1","typ":"JWT"}"#),
        good.split('.').nth(1).context("no payload")?
    );
    let minted = |change: &dyn Fn(&mut Claims)| -> anyhow::Result<String> {
        let mut claims = claims(&track.id, now);
        change(&mut claims);
        Ok(mint(&k1, &claims)?)
    };
    let expired = minted(&|claims| claims.exp = now - 120)?;
    let cases = [
        ("tampered", with_payload(&good, |payload| payload["path"] = json!("/hls/"))?, 401, "signature-invalid"),
        (
            "exp moved, old signature",
            with_payload(&expired, |payload| payload["exp"] = json!(now + 600))?,
            401,
            "signature-invalid",
        ),
        ("expired", expired, 401, "expired"),
        ("not yet valid", minted(&|claims| claims.nbf = Some(now + 300))?, 401, "not-yet-valid"),
        ("for another track", minted(&|claims| claims.path = "/hls/another/".to_owned())?, 403, "out-of-scope"),
        ("for a longer name", minted(&|claims| claims.path = format!("/hls/{}0/", track.id))?, 403, "out-of-scope"),
        ("one bit of the signature", format!("{head}.{}", BASE64.encode(&flipped)), 401, "signature-invalid"),
        ("unknown key", mint(&key("k9", &secret)?, &claims(&track.id, now))?, 401, "key-unknown"),
        ("alg none", none, 401, "algorithm-refused"),
    ];
    let edge = &segue.ready().edge;
    let http = reqwest::Client::new();
    for (what, ticket, status, reason) in &cases {
        let carried = [
            ("path", http.get(format!("{edge}/p/{ticket}{segment}"))),
            ("header", http.get(format!("{edge}{segment}")).bearer_auth(ticket)),
            ("cookie", http.get(format!("{edge}{segment}")).header("cookie", format!("a=b; segue={ticket}"))),
            ("query", http.get(format!("{edge}{segment}?ticket={ticket}"))),
        ];
        for (carrier, request) in carried {
            refused(request, &format!("{what} in the {carrier}"), *status, reason, &media).await?;
        }
    }
    for (carrier, request) in [
        ("header", http.get(format!("{edge}{segment}")).bearer_auth(&good)),
        ("cookie", http.get(format!("{edge}{segment}")).header("cookie", format!("segue={good}"))),
        ("query", http.get(format!("{edge}{segment}?ticket={good}"))),
        ("path", http.get(format!("{edge}/p/{good}{segment}"))),
    ] {
        let response = request.send().await?;
        ensure!(response.status() == 200, "the good ticket in the {carrier}: {}", response.status());
        ensure!(response.bytes().await? == media, "other bytes by the {carrier}");
    }
    refused(http.get(format!("{edge}{segment}")), "no ticket", 401, "ticket-missing", &media).await?;
    refused(http.get(format!("{edge}{segment}?ticket=")), "empty in the query", 401, "ticket-missing", &media).await?;
    Ok(())
}

/// The answer has the status and the reason word, and none of the media.
async fn refused(
    request: reqwest::RequestBuilder,
    what: &str,
    status: u16,
    reason: &str,
    media: &[u8],
) -> anyhow::Result<()> {
    let response = request.send().await.with_context(|| what.to_owned())?;
    let found = response.status().as_u16();
    let body = response.bytes().await?;
    let said: Value =
        serde_json::from_slice(&body).with_context(|| format!("{what}: {}", String::from_utf8_lossy(&body)))?;
    ensure!(found == status && said["error"] == reason, "{what}: {found} {said}, expected {status} {reason}");
    ensure!(!body.windows(16).any(|window| window == &media[..16]), "{what}: media in the answer");
    Ok(())
}

/// One request by hand, since no client library sends such an address: the answer's status and reason word.
async fn refusal_of(edge: &Url, target: &str, header: &str) -> anyhow::Result<(u16, String)> {
    let addr = format!("{}:{}", edge.host_str().context("host")?, edge.port().context("port")?);
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n{header}\r\n");
    // The edge may answer and close before it has read it all.
    let (mut reader, mut writer) = stream.split();
    let mut answer = Vec::new();
    let (_, _) = tokio::join!(writer.write_all(request.as_bytes()), reader.read_to_end(&mut answer));
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer: {answer:?}"))?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let said: Value = serde_json::from_str(body).with_context(|| format!("{head}: {body:?}"))?;
    Ok((status, said["error"].as_str().context("no reason word")?.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_of_100_kb_is_refused_before_it_is_parsed() -> anyhow::Result<()> {
    let segue = crate::start().await?;
    let edge = Url::parse(&segue.ready().edge)?;
    let huge = "a".repeat(100 * 1024);
    let plain = "/hls/t/master.m3u8";
    for (target, header, status, reason) in [
        (format!("/p/{huge}{plain}"), String::new(), 414, "target-too-long"),
        (format!("{plain}?ticket={huge}"), String::new(), 414, "target-too-long"),
        (plain.to_owned(), format!("Authorization: Bearer {huge}\r\n"), 431, "headers-too-long"),
        (plain.to_owned(), format!("Cookie: segue={huge}\r\n"), 431, "headers-too-long"),
    ] {
        let found = refusal_of(&edge, &target, &header).await?;
        ensure!(
            found == (status, reason.to_owned()),
            "{found:?} for {} {}",
            &target[..15],
            header.get(..20).unwrap_or_default()
        );
    }
    // One just over the bound of a ticket gets through the HTTP parser, and is refused by its length.
    let over = "a".repeat(2049);
    let answer = reqwest::get(format!("{edge}p/{over}/hls/t/master.m3u8")).await?;
    let (status, said) = (answer.status(), answer.json::<Value>().await?);
    ensure!(status.is_client_error() && said["error"] == "ticket-too-long", "{status} {said}");
    // And the edge serves on.
    ensure!(refusal_of(&edge, plain, "").await? == (401, "ticket-missing".to_owned()));
    Ok(())
}
