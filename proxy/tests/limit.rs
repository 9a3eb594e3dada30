//! Limits as a client meets them: by address, session and track, by the ticket's word, and by streams.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use segue_config::Secret;
use segue_proxy::EdgeConfig;
use segue_proxy::limit::{Kinds, LimitConfig, LimitsConfig, OnExcess, Per, StreamsConfig};
use segue_signing::{Claims, mint};
use support::{Answer, Behaviour, Client, House, TRACK, claims, house_with, key, pattern, versioned};

/// A rate that earns nothing while a test runs.
const NEVER: f64 = 0.001;

fn limits(classes: &[(&str, LimitConfig)]) -> impl FnOnce(&mut EdgeConfig) {
    let classes: BTreeMap<_, _> = classes.iter().map(|(name, limit)| ((*name).to_owned(), limit.clone())).collect();
    move |config| config.limits.classes = classes
}

fn segment(n: usize) -> String {
    versioned(&format!("a128/seg-0000{n}.m4s"))
}

async fn house(change: impl FnOnce(&mut EdgeConfig)) -> House {
    let house = house_with(change).await;
    for n in 0..3 {
        house.origin.track(&segment(n), Behaviour::Serve(pattern(500)));
    }
    house.origin.track(&versioned("a128/index.m3u8"), Behaviour::Serve(b"#EXTM3U\n#EXT-X-ENDLIST\n".to_vec()));
    house
}

async fn get_as(house: &House, claims: &Claims, file: &str) -> Answer {
    let ticket = mint(&key(), claims).unwrap();
    house.client().await.get(&format!("/p/{ticket}/hls/{TRACK}/{file}")).await
}

fn session(sid: &str) -> Claims {
    Claims { sid: Some(sid.to_owned()), ..claims() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_track_that_is_asked_for_too_much_says_when_to_come_back() {
    let house = house(limits(&[("tracks", LimitConfig::new(NEVER, 3, Per::Track))])).await;
    for n in 0..3 {
        assert_eq!(house.get(&segment(n)).await.status, 200, "a miss and a hit cost the same");
    }
    let refused = house.get(&segment(0)).await;
    assert_eq!((refused.status, refused.reason().as_str()), (429, "rate-limited"));
    let retry: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((900..=1_000).contains(&retry), "{retry}");
    let policy = refused.header("ratelimit-policy").unwrap();
    assert!(policy.starts_with("\"tracks\";q=3;w=3000;pk=:"), "{policy}");
    assert!(refused.header("ratelimit").unwrap().starts_with(&format!("\"tracks\";r=0;t={retry};pk=:")));
    assert_eq!(refused.header("cache-control"), Some("no-store"));
    npm_reads(&refused);
    assert_eq!(house.get(&versioned("a128/index.m3u8")).await.status, 200, "a playlist costs nothing");
    let denial = house.denials().pop().unwrap();
    assert_eq!(
        (&denial["reason"], &denial["status"], &denial["sid"]),
        (&"rate-limited".into(), &429.into(), &"device-1".into())
    );
}

/// A reader of structured fields from npm reads what the refusal says (`npm ci` in testkit/browser comes first).
fn npm_reads(refused: &Answer) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../testkit/browser");
    let mut node = std::process::Command::new("node");
    node.args(["--test", "limits.test.mjs"]).current_dir(folder);
    for (variable, field) in [
        ("SEGUE_RATELIMIT", "ratelimit"),
        ("SEGUE_RATELIMIT_POLICY", "ratelimit-policy"),
        ("SEGUE_RETRY_AFTER", "retry-after"),
    ] {
        node.env(variable, refused.header(field).unwrap());
    }
    let output = node.output().expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_session_spends_nothing_of_the_tracks_limit() {
    let track = LimitConfig::new(NEVER, 4, Per::Track);
    let house = house(limits(&[("tracks", track), ("sessions", LimitConfig::new(NEVER, 2, Per::Session))])).await;
    for expected in [200, 200, 429, 429, 429] {
        assert_eq!(get_as(&house, &session("a"), &segment(0)).await.status, expected);
    }
    for expected in [200, 200, 429] {
        assert_eq!(get_as(&house, &session("b"), &segment(1)).await.status, expected);
    }
    let refused = get_as(&house, &session("c"), &segment(1)).await;
    assert!(refused.header("ratelimit").unwrap().starts_with("\"tracks\""), "{:?}", refused.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_refused_before_its_ticket_is_looked_at() {
    let address = LimitConfig {
        apply: Kinds::parse(&["segment".to_owned(), "playlist".to_owned()]).unwrap(),
        ..LimitConfig::new(NEVER, 2, Per::Address)
    };
    let house = house(limits(&[("addresses", address)])).await;
    let path = format!("/hls/{TRACK}/{}", versioned("a128/index.m3u8"));
    for expected in [401, 401, 429] {
        assert_eq!(house.client().await.get(&path).await.status, expected);
    }
    assert_eq!(house.get(&segment(0)).await.status, 429);
    assert_eq!(house.get("cover.jpg").await.status, 404, "what is not named costs nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_class_that_a_ticket_names_stands_in_for_those_of_its_sort() {
    let premium = LimitConfig { apply: Kinds::default(), ..LimitConfig::new(NEVER, 3, Per::Session) };
    let house = house(limits(&[("free", LimitConfig::new(NEVER, 1, Per::Session)), ("premium", premium)])).await;
    let asked = async |claims: &Claims| {
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(get_as(&house, claims, &segment(0)).await.status);
        }
        statuses
    };
    assert_eq!(asked(&session("a")).await, [200, 429, 429, 429]);
    let named = |lim: &str, sid| Claims { lim: Some(lim.to_owned()), ..session(sid) };
    assert_eq!(asked(&named("premium", "b")).await, [200, 200, 200, 429]);
    assert_eq!(asked(&named("unheard-of", "c")).await, [200, 429, 429, 429], "an unknown class changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn shadow_limits_count_and_classes_change_while_the_edge_runs() {
    let shadow = LimitConfig { shadow: true, ..LimitConfig::new(NEVER, 1, Per::Track) };
    let house = house(|config| {
        limits(&[("tracks", shadow.clone())])(config);
        config.admin_listen = Some("127.0.0.1:0".parse().unwrap());
        config.admin_token = Some(Secret::literal("operator"));
    })
    .await;
    for _ in 0..3 {
        assert_eq!(house.get(&segment(0)).await.status, 200);
    }
    let mut admin = Client::connect(house.edge.admin_addr().unwrap()).await;
    let metrics = String::from_utf8(admin.get("/metrics").await.body).unwrap();
    for line in [
        "segue_limit_decisions_total{sort=\"rate\",class=\"tracks\",decision=\"admitted\"} 1",
        "segue_limit_decisions_total{sort=\"rate\",class=\"tracks\",decision=\"shadow-refused\"} 2",
        "segue_limit_keys{sort=\"rate\",class=\"tracks\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    let classes =
        |limit| LimitsConfig { classes: BTreeMap::from([("tracks".to_owned(), limit)]), ..Default::default() };
    house.edge.limiter().replace(&classes(LimitConfig { shadow: false, ..shadow.clone() }));
    assert_eq!(house.get(&segment(0)).await.status, 429, "what was spent before is spent");
    house.edge.limiter().replace(&LimitsConfig::default());
    assert_eq!(house.get(&segment(0)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_plays_in_so_many_places_at_once() {
    let streams = |on_excess| {
        move |config: &mut EdgeConfig| {
            let class = StreamsConfig { grace: Duration::from_secs(600), ..StreamsConfig::new(1, on_excess) };
            config.limits.streams.insert("home".to_owned(), class);
        }
    };
    let house = house(streams(OnExcess::RefuseNewest)).await;
    assert_eq!(get_as(&house, &session("kitchen"), &segment(0)).await.status, 200);
    let refused = get_as(&house, &session("car"), &segment(0)).await;
    assert_eq!((refused.status, refused.reason().as_str()), (429, "too-many-streams"));
    assert!(refused.header("ratelimit-policy").unwrap().starts_with("\"home\";q=1;qu=\"concurrent-requests\";pk=:"));
    npm_reads(&refused);
    assert_eq!(get_as(&house, &session("car"), &versioned("a128/index.m3u8")).await.status, 200);
    assert_eq!(get_as(&house, &session("kitchen"), &segment(1)).await.status, 200);
    let other = Claims { sub: Some("listener-2".to_owned()), ..session("car") };
    assert_eq!(get_as(&house, &other, &segment(0)).await.status, 200, "another listener's places are others");

    let house = self::house(streams(OnExcess::StopOldest)).await;
    assert_eq!(get_as(&house, &session("kitchen"), &segment(0)).await.status, 200);
    assert_eq!(get_as(&house, &session("car"), &segment(0)).await.status, 200);
    let stopped = get_as(&house, &session("kitchen"), &segment(1)).await;
    assert_eq!((stopped.status, stopped.reason().as_str()), (429, "stream-stopped"));
}
