//! What an edge says of itself to those who may ask: the admin listener's explanation, and the signed debug header.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use segue_config::Secret;
use segue_proxy::{EdgeConfig, Explanation, Question, explain};
use segue_signing::{CanonicalPath, SigningSecret, debug, mint};
use support::{Behaviour, Client, House, TRACK, claims, house_with, key, now, pattern, ticket, versioned};

const DEBUG: &str = "a key for the debug header of thirty-two bytes";

async fn house() -> House {
    house_with(|config| {
        config.admin_listen = Some(([127, 0, 0, 1], 0).into());
        config.admin_token = Some(Secret::literal("admin-token"));
        config.debug_key = Some(SigningSecret::parse(DEBUG).unwrap());
    })
    .await
}

async fn asked(house: &House, token: &str, url: &str) -> (u16, Option<Explanation>) {
    let body = serde_json::to_string(&Question { url: url.to_owned(), ..Question::default() }).unwrap();
    let mut client = Client::connect(house.edge.admin_addr().unwrap()).await;
    let headers = format!("Authorization: Bearer {token}\r\nContent-Length: {}\r\n", body.len());
    client.send(format!("POST /explain HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}").as_bytes()).await;
    let answer = client.answer(false).await;
    (answer.status, serde_json::from_slice(&answer.body).ok())
}

fn steps(explanation: &Explanation) -> Vec<(&str, bool)> {
    explanation.steps.iter().map(|step| (step.step.as_str(), step.passes)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_explains_without_serving() {
    let house = house().await;
    let file = versioned("a64/seg-00001.m4s");
    house.origin.track(&file, Behaviour::Serve(pattern(5000)));
    let (good, path) = (ticket(), format!("/hls/{TRACK}/{file}"));
    let url = format!("http://edge.test/p/{good}{path}?CMCD=br%3D64#y");
    assert_eq!(asked(&house, "wrong", &url).await.0, 401);
    let (status, cold) = asked(&house, "admin-token", &url).await;
    let cold = cold.unwrap();
    assert_eq!(status, 200);
    let all = [("snapshot", true), ("route", true), ("ticket", true), ("cache", true), ("origin", true)];
    assert_eq!((cold.serves, steps(&cold)), (true, all.to_vec()));
    assert_eq!(cold.steps[2].found["sid"], "device-1");
    assert!(cold.steps[3].found["stored"]["tier"].is_null());
    let said = serde_json::to_string(&cold).unwrap();
    assert!(!said.contains(good.rsplit_once('.').unwrap().1), "the signature is not repeated");
    assert_eq!(house.origin.count(&file), 0, "nothing was fetched");

    assert_eq!(house.get(&file).await.status, 200);
    // The object comes into memory a moment after its last byte has left.
    let begun = Instant::now();
    let stored = loop {
        let stored = asked(&house, "admin-token", &url).await.1.unwrap().steps[3].found["stored"].clone();
        if !stored["tier"].is_null() || begun.elapsed() > Duration::from_secs(60) {
            break stored;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(
        (stored["tier"].as_str(), stored["bytes"].as_u64(), stored["fresh"].as_bool()),
        (Some("memory"), Some(5000), Some(true))
    );

    let mut late = claims();
    late.exp = now() - 100;
    let late = mint(&key(), &late).unwrap();
    let (_, refused) = asked(&house, "admin-token", &format!("/p/{late}{path}")).await;
    let refused = refused.unwrap();
    assert_eq!((refused.serves, refused.status, refused.reason.as_deref()), (false, Some(401), Some("expired")));
    assert_eq!(steps(&refused), [("snapshot", true), ("route", true), ("ticket", false)]);
    assert_eq!(refused.steps[2].found["claims"]["sid"], "device-1");
    let (_, crooked) = asked(&house, "admin-token", "/hls/a/../b/c").await;
    assert_eq!(steps(&crooked.unwrap()), [("snapshot", true), ("route", false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_explains_route_and_ticket_without_an_edge() {
    let house = house().await;
    let mut config = EdgeConfig::minimal(segue_proxy::OriginConfig::http(
        segue_proxy::Endpoint::parse(&format!("http://{}", house.origin.addr)).unwrap(),
    ));
    config.keys = vec![key()];
    let ask = |url: String| explain(&config, &Question { url, ..Question::default() }).unwrap();
    assert!(ask(format!("/p/{}/hls/{TRACK}/cover.jpg", ticket())).serves);
    assert_eq!(ask(format!("/p/{}/hls/another/cover.jpg", ticket())).reason.as_deref(), Some("out-of-scope"));
    assert_eq!(ask("/nowhere".to_owned()).reason.as_deref(), Some("no-route"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_debug_header_is_answered_and_a_wrong_one_is_told_nothing() {
    let house = house().await;
    let file = versioned("a64/seg-00001.m4s");
    house.origin.track(&file, Behaviour::Serve(pattern(5000)));
    let path = format!("/hls/{TRACK}/{file}");
    let canonical = CanonicalPath::parse(&path).unwrap();
    let sign = |secret: &str, exp| debug::sign(&SigningSecret::parse(secret).unwrap(), &canonical, exp);
    let right = sign(DEBUG, now() + 60);
    let ask = async |target: &str, header: &str| {
        let mut client = house.client().await;
        client.request("GET", target, &format!("Segue-Debug: {header}\r\n")).await
    };
    let target = format!("/p/{}{path}", ticket());
    let cold = ask(&target, &right).await;
    let said = cold.header("segue-debug").unwrap().to_owned();
    assert!(said.starts_with("step=respond;tier=origin;state=miss;ttfb="), "{said}");
    let begun = Instant::now();
    let (warm, said) = loop {
        let warm = ask(&target, &right).await;
        let said = warm.header("segue-debug").unwrap().to_owned();
        if said.contains("tier=memory") || begun.elapsed() > Duration::from_secs(60) {
            break (warm, said);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(said.starts_with("step=respond;tier=memory;state=hit-memory;ttfb="), "{said}");
    assert_eq!((warm.status, warm.body, warm.whole), (200, pattern(5000), true));
    let refused = ask(&path, &right).await;
    assert!(refused.header("segue-debug").unwrap().starts_with("step=ticket;reason=ticket-missing;"), "{refused:?}");
    for wrong in [sign("another key of thirty-two bytes or more", now() + 60), sign(DEBUG, now() - 1), "x".to_owned()] {
        let answer = ask(&target, &wrong).await;
        assert_eq!((answer.status, answer.header("segue-debug")), (200, None));
    }
    assert_eq!(house.client().await.get(&target).await.header("segue-debug"), None);
}
