//! Origins under stress: fallback, circuit, budgets, connections, and crowds that wait.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use segue_proxy::{Endpoint, OriginConfig};
use support::{Behaviour, Origin, TRACK, house, house_with, patient_house_with, pattern, ticket, versioned};
use tokio::sync::Notify;

#[tokio::test(flavor = "multi_thread")]
async fn a_fallback_answers_where_the_first_origin_fails() {
    let second = Origin::start().await;
    let endpoint = Endpoint::parse(&format!("http://{}/second", second.addr)).unwrap();
    let house = house_with(|config| {
        config.origins.insert("second".to_owned(), OriginConfig::http(endpoint));
        config.origins.get_mut("default").unwrap().fallback = Some("second".to_owned());
    })
    .await;
    let file = versioned("a/seg-00000.m4s");
    second.put(&format!("/second/hls/{TRACK}/{file}"), Behaviour::Serve(pattern(5_000)));
    house.origin.track(&file, Behaviour::Status(503));
    let answer = house.get(&file).await;
    assert_eq!((answer.status, &answer.body), (200, &pattern(5_000)));
    assert_eq!(answer.header("cache-status"), Some("segue; fwd=miss; stored; detail=fallback"));
    assert_eq!(house.get(&file).await.cache_status(), "segue; hit; detail=memory");
    // An absent object is no failure.
    assert_eq!(house.get("absent.jpg").await.status, 404);
    assert_eq!(second.count_path(&format!("/second/hls/{TRACK}/absent.jpg")), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_keeps_failing_is_left_alone() {
    let house = house_with(|config| config.origins.get_mut("default").unwrap().attempts = 1).await;
    let mut asked = 0;
    let mut refused = None;
    for n in 0..40 {
        let file = format!("{n}.jpg");
        house.origin.track(&file, Behaviour::Status(500));
        let answer = house.get(&file).await;
        asked += house.origin.count(&file);
        if answer.reason() == "origin-circuit-open" {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("the circuit opened");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(asked < 30, "{asked} requests reached the origin");
    house.origin.track("good.jpg", Behaviour::Serve(pattern(10)));
    for _ in 0..600 {
        if house.get("good.jpg").await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the circuit never closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_used_again_and_dead_ones_passed_over() {
    let house = house().await;
    for n in 0..5 {
        house.origin.track(&format!("{n}.jpg"), Behaviour::Serve(pattern(10)));
        assert_eq!(house.get(&format!("{n}.jpg")).await.status, 200);
    }
    assert_eq!(house.origin.connections(), 1);
    house.origin.track("last.jpg", Behaviour::Truncate(Vec::new(), 0));
    house.get("last.jpg").await;
    house.origin.track("next.jpg", Behaviour::Serve(pattern(10)));
    assert_eq!(house.get("next.jpg").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_beyond_the_bound_is_told_to_come_back() {
    let house = Arc::new(patient_house_with(|config| config.cache.waiters = 20).await);
    let file = versioned("a/seg-00000.m4s");
    let gate = Arc::new(Notify::new());
    house.origin.track(&file, Behaviour::Later(Arc::clone(&gate), Box::new(Behaviour::Serve(pattern(1_000)))));
    let target = format!("/p/{}/hls/{TRACK}/{file}", ticket());
    let mut clients = Vec::new();
    for _ in 0..60 {
        let (house, target) = (Arc::clone(&house), target.clone());
        clients.push(tokio::spawn(async move { house.client().await.get(&target).await }));
    }
    // Those beyond the bound are answered while the origin still thinks.
    let mut refused = 0;
    for _ in 0..6_000 {
        refused = clients.iter().filter(|client| client.is_finished()).count();
        if refused == 40 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gate.notify_one();
    let mut served = 0;
    for client in clients {
        let answer = client.await.unwrap();
        match answer.status {
            200 => served += 1,
            status => assert_eq!((status, answer.header("retry-after")), (503, Some("1"))),
        }
    }
    assert_eq!((refused, served, house.origin.count(&file)), (40, 20, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_longer_than_the_bound() {
    let house = patient_house_with(|config| config.cache.wait = Duration::from_millis(300)).await;
    let gate = Arc::new(Notify::new());
    house.origin.track("a.jpg", Behaviour::Later(Arc::clone(&gate), Box::new(Behaviour::Serve(pattern(10)))));
    for _ in 0..3 {
        let late = house.get("a.jpg").await;
        assert_eq!((late.status, late.reason().as_str()), (503, "overloaded"));
    }
    assert_eq!(house.origin.count("a.jpg"), 1, "the fill goes on, and nobody begins another");
    gate.notify_one();
    for _ in 0..600 {
        if house.get("a.jpg").await.status == 200 {
            assert_eq!(house.origin.count("a.jpg"), 1);
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the fill never came");
}
