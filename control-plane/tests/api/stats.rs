//! Sums of the house and of tracks by range, and what is kept, over the API.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::house::{ADMIN, EDGE, House, config};

const HOUR: i64 = 3_600_000;

fn hour_ago(hours: i64) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    (i64::try_from(now).unwrap() / HOUR - hours) * HOUR
}

/// Hands records over as an edge does.
async fn hand_over(house: &House, stream: &str, from: usize, records: &[Value]) {
    let next = from + records.len();
    let path = format!("/v1/edge/facts?edge=e1&log=l1&stream={stream}&from={from}&next={next}&first={}", from == 0);
    let body: Vec<String> = records.iter().map(Value::to_string).collect();
    let response = house.client.post(house.url(&path)).bearer_auth(EDGE).body(body.join("\n")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

fn fact(track: &str, n: u64, ts: i64, sid: &str, cache: &str, ttfb_ms: u64) -> Value {
    json!({
        "v": 1, "id": format!("e1-boot-{n}"), "ts": ts, "edge": "e1", "track": track, "file": format!("s{n}.m4s"), "kind": "segment",
        "pos_ms": n * 6000, "media_ms": 6000, "sid": sid, "status": 200, "bytes": 1000, "ttfb_ms": ttfb_ms, "cache": cache, "complete": true,
    })
}

/// An answer of `GET /v1/facts`: what its head says was counted, the number to go on from, and the lines.
async fn facts(house: &House, query: &str) -> (Option<u64>, Option<u64>, Vec<Value>) {
    let response = house.client.get(house.url(&format!("/v1/facts?{query}"))).bearer_auth(ADMIN).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{query}");
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let number = |name: &str| response.headers().get(name)?.to_str().ok()?.parse().ok();
    let (counted, next) = (number("segue-counted"), number("segue-next"));
    let text = response.text().await.unwrap();
    (counted, next, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[tokio::test]
async fn the_house_is_summed_by_range_with_its_denials() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let (one, _) = house.add("a.mp3", b"a").await;
    let (other, _) = house.add("b.mp3", b"b").await;
    let (old, new) = (hour_ago(3), hour_ago(1));
    let mut records: Vec<Value> = (0..6).map(|n| fact(&one, n, old + n as i64, "s1", "hit-memory", 1)).collect();
    records.push(fact(&one, 6, new, "s1", "miss", 300));
    records.push(fact(&other, 7, new + 5, "s2", "coalesced", 40));
    records.push(fact(&other, 8, new + 6, "s2", "bypass", 40));
    records[8]["cmcd"] = json!({ "bs": true, "mtp": 5000 });
    records[7]["cmcd"] = json!({ "mtp": 7000 });
    hand_over(&house, "facts", 0, &records).await;
    let denial = |n: usize, ts: i64, reason: &str| json!({ "v": 1, "id": format!("e1-boot-{n}"), "ts": ts, "edge": "e1", "path": "/x", "reason": reason, "status": 401 });
    hand_over(
        &house,
        "denials",
        0,
        &[denial(1, old, "expired"), denial(2, new, "expired"), denial(3, new, "ticket-missing")],
    )
    .await;

    let (status, day) = house.get("/v1/stats").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&day["plays"], &day["qualified"], &day["facts"], &day["bytes"]),
        (&json!(3), &json!(1), &json!(9), &json!(9000))
    );
    assert_eq!((&day["listeners"], &day["sessions"]), (&json!(2), &json!(2)), "one of them in two hours");
    assert_eq!(
        (&day["cache"]["ratio"], &day["cache"]["by"]["miss"]),
        (&json!(0.7778), &json!({ "facts": 1, "bytes": 1000 }))
    );
    assert_eq!(day["denials"], json!({ "total": 3, "by_reason": { "expired": 2, "ticket-missing": 1 } }));
    assert_eq!(
        (&day["cmcd"]["starved"], &day["cmcd"]["starved_ratio"], &day["cmcd"]["mtp_kbps"]),
        (&json!(1), &json!(0.5), &json!(6000.0))
    );
    assert_eq!(day["tracks"][0]["track"], json!(one));
    assert_eq!((day["tracks"].as_array().unwrap().len(), day["hourly"].as_array().unwrap().len()), (2, 2));
    assert!(
        day["ttfb_ms"]["p50"].as_f64().unwrap() < 3.0 && day["ttfb_ms"]["p99"].as_f64().unwrap() > 200.0,
        "{}",
        day["ttfb_ms"]
    );

    let (_, late) = house.get(&format!("/v1/stats?from={new}&to={}", new + HOUR)).await;
    assert_eq!((&late["facts"], &late["plays"], &late["denials"]["total"]), (&json!(3), &json!(2), &json!(2)));
    assert_eq!((&late["from_ms"], &late["to_ms"]), (&json!(new), &json!(new + HOUR)));
    let (_, before) = house.get(&format!("/v1/stats?from={}&to={}", old - 9 * HOUR, old)).await;
    assert_eq!((&before["facts"], &before["cache"]["ratio"], &before["hourly"]), (&json!(0), &Value::Null, &json!([])));
    let (_, track) = house.get(&format!("/v1/tracks/{other}/stats?from={old}")).await;
    assert_eq!(
        (&track["plays"], &track["deciles"], &track["now"]["plays"]),
        (&json!(1), &json!([0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), &json!(0))
    );
    for wrong in [format!("from={new}&to={old}"), "from=0".to_owned(), "from=x".to_owned()] {
        assert_eq!(house.get(&format!("/v1/stats?{wrong}")).await.0, StatusCode::BAD_REQUEST, "{wrong}");
    }
    house.control.shutdown().await;
}

#[tokio::test]
async fn what_was_counted_is_kept_once_and_told_by_time_track_and_number() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let old = hour_ago(5);
    let records: Vec<Value> = (0..400)
        .map(|n| {
            fact(if n % 4 == 0 { "aaaaaaaaaaaa" } else { "bbbbbbbbbbbb" }, n, old + n as i64 * 20_000, "s", "miss", 1)
        })
        .collect();
    hand_over(&house, "facts", 0, &records[..250]).await;
    hand_over(&house, "facts", 0, &records[..250]).await;
    // A log that comes again under another name, with more: what is known is not kept again.
    let path = "/v1/edge/facts?edge=e1&log=l2&stream=facts&from=0&next=9&first=true";
    let body: Vec<String> = records.iter().map(Value::to_string).collect();
    house.client.post(house.url(path)).bearer_auth(EDGE).body(body.join("\n")).send().await.unwrap();
    let (counted, next, all) = facts(&house, "kind=facts").await;
    assert_eq!((counted, next, all.len()), (None, Some(400), 400));
    assert_eq!(all, records, "in the order of arrival, byte for byte as JSON");
    let (counted, _, hours) = facts(&house, &format!("from={old}&to={}", old + HOUR)).await;
    assert_eq!((counted, hours.len()), (Some(180), 180));
    let (_, _, rest) = facts(&house, "position=390&track=aaaaaaaaaaaa").await;
    assert_eq!(rest, [records[392].clone(), records[396].clone()]);
    let (counted, _, plays) = facts(&house, &format!("kind=plays&from={old}&to={}", old + HOUR)).await;
    assert_eq!((counted, plays.len()), (Some(2), 2), "{plays:?}");
    assert_eq!((&plays[0]["track"], &plays[0]["qualified"]), (&json!("aaaaaaaaaaaa"), &json!(true)));
    assert!(facts(&house, "kind=denials").await.2.is_empty());
    assert_eq!(house.get("/v1/facts?kind=weather").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(house.send(EDGE, reqwest::Method::GET, "/v1/facts", None).await.0, StatusCode::FORBIDDEN);

    // Over a restart they are the same, and what is damaged breaks the answer off instead of shortening it.
    house.control.shutdown().await;
    let house = House::start(config(folder.path(), &bucket)).await;
    assert_eq!(facts(&house, "").await.2.len(), 400);
    let file = folder.path().join("control.db-facts/facts-000000000000000.ndjson.zst");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0);
    std::fs::write(&file, bytes).unwrap();
    // It may break off before its head has left, too.
    let whole = match house.client.get(house.url("/v1/facts")).bearer_auth(ADMIN).send().await {
        Ok(answer) => answer.text().await.is_ok(),
        Err(_) => false,
    };
    assert!(!whole, "a part was taken for the whole");
    house.control.shutdown().await;
}
