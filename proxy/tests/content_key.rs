//! Content keys: opened for who may have the segments, kept from every disk, and bounded in time.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use segue_config::Document;
use segue_proxy::{Edge, EdgeConfig, EdgeInputs};
use segue_signing::{ContentKey, Revocation, SigningSecret, SnapshotDoc, WrappingKey, WrappingKeys};
use support::{
    Behaviour, Client, House, Origin, TRACK, VERSION, house_with, pattern, ticket, versioned, wasm, with_admin,
};
use tokio::sync::watch;

const CONTENT: [u8; 16] = *b"sixteen bytes ok";
const MARK: &[u8] = b"segue-content-key";

fn keys(named: &[(&str, &str)]) -> Arc<WrappingKeys> {
    let key = |(id, secret): &(&str, &str)| {
        let secret = SigningSecret::parse(&format!("a wrapping secret that is long enough: {secret}")).unwrap();
        WrappingKey { id: (*id).to_owned(), secret }
    };
    Arc::new(WrappingKeys::new(&named.iter().map(key).collect::<Vec<_>>()).unwrap())
}

fn file(name: &str) -> String {
    versioned(&format!("a128/{name}"))
}

/// As a worker stores it.
fn wrapped(id: &str, secret: &str, name: &str) -> Vec<u8> {
    let place = format!("{TRACK}/{VERSION}/a128/{name}");
    keys(&[(id, secret)]).wrap(id, &ContentKey::from(CONTENT), &place).unwrap().into_bytes()
}

async fn house(change: impl FnOnce(&mut EdgeConfig)) -> House {
    let house = house_with(|config| {
        with_admin(config);
        config.wrapping = keys(&[("w1", "one"), ("w2", "two")]);
        change(config);
    })
    .await;
    house.origin.track(&file("key-00000.key"), Behaviour::Serve(wrapped("w1", "one", "key-00000.key")));
    house.origin.track(&file("seg-00000.m4s"), Behaviour::Serve(pattern(50_000)));
    house
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_gets_sixteen_bytes_that_nobody_is_to_keep() {
    let house = house(|_| {}).await;
    for state in ["fwd=miss", "hit"] {
        let answer = house.get(&file("key-00000.key")).await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, &CONTENT[..]), "{}", answer.head);
        assert!(answer.cache_status().contains(state), "{}", answer.head);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!((answer.header("content-length"), answer.header("accept-ranges")), (Some("16"), Some("none")));
        assert_eq!((answer.header("etag"), answer.header("last-modified")), (None, None), "those of the wrapped form");
    }
    assert_eq!(house.origin.count(&file("key-00000.key")), 1);
    let head = format!("/p/{}/hls/{TRACK}/{}", ticket(), file("key-00000.key"));
    let head = house.client().await.request("HEAD", &head, "").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("16"), 0));
    // A key of the older id, and one that lies open in a bucket that is not ours.
    house.origin.track(&file("key-00001.key"), Behaviour::Serve(wrapped("w2", "two", "key-00001.key")));
    house.origin.track(&file("open.key"), Behaviour::Serve(CONTENT.to_vec()));
    for name in ["key-00001.key", "open.key"] {
        let answer = house.get(&file(name)).await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, &CONTENT[..]), "{name}");
    }
    // Keys are no media: only the segment leaves a fact.
    assert_eq!(house.get(&file("seg-00000.m4s")).await.status, 200);
    let facts = house.facts_when(1).await;
    assert!(facts.len() == 1 && facts[0]["file"] == "a128/seg-00000.m4s", "{facts:?}");
    assert_eq!(house.metric("segue_content_keys_total").await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_a_ticket_and_no_revoked_session_gets_a_key() {
    let house = house(|_| {}).await;
    let path = format!("/hls/{TRACK}/{}", file("key-00000.key"));
    let answer = house.client().await.get(&path).await;
    assert_eq!((answer.status, answer.reason().as_str()), (401, "ticket-missing"));
    assert_eq!(house.origin.count(&file("key-00000.key")), 0, "nor is the bucket asked");
    assert_eq!(house.get(&file("key-00000.key")).await.status, 200);
    let revocation =
        Revocation { sid: Some("device-1".to_owned()), until: support::now() + 600, ..Revocation::default() };
    let document = SnapshotDoc { revision: 2, revocations: vec![revocation], ..SnapshotDoc::default() };
    house.snapshots.send(Arc::new(document)).unwrap();
    house.metric_reaches("segue_snapshots_total", 1.0).await;
    let answer = house.get(&file("key-00000.key")).await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "revoked"), "though it is in memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_asked_about_keys_as_keys() {
    let folder = tempfile::tempdir().unwrap();
    wasm::put(folder.path(), "keys.wasm", wasm::denies_keys(451, "no-keys"));
    wasm::put(folder.path(), "keys.toml", "");
    let house = house(|config| config.policies.dir = Some(folder.path().to_owned())).await;
    let answer = house.get(&file("key-00000.key")).await;
    assert_eq!((answer.status, answer.reason().as_str()), (451, "no-keys"));
    assert_eq!(house.get(&file("seg-00000.m4s")).await.status, 200, "the segment is no key");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fill_answers_all_who_wait_and_none_of_them_with_the_wrapped_form() {
    let house = house(|_| {}).await;
    let gate = Arc::new(tokio::sync::Notify::new());
    let name = "key-00007.key";
    let serve = Behaviour::Serve(wrapped("w1", "one", name));
    house.origin.track(&file(name), Behaviour::Later(Arc::clone(&gate), Box::new(serve)));
    let path = file(name);
    let asked = futures::future::join_all((0..16).map(|_| house.get(&path)));
    let opened = async {
        while house.origin.count(&path) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        gate.notify_waiters();
        gate.notify_one();
    };
    let (answers, ()) = tokio::join!(asked, opened);
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == CONTENT));
    assert_eq!(house.origin.count(&file(name)), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_wrapping_key_of_this_edge_opens_is_not_served() {
    let house = house(|config| config.wrapping = keys(&[("w1", "one")])).await;
    let other_place = wrapped("w1", "one", "key-00000.key");
    let mut damaged = wrapped("w1", "one", "key-00003.key");
    *damaged.last_mut().unwrap() ^= 1;
    for (name, body) in [
        ("key-00001.key", wrapped("w1", "another secret", "key-00001.key")),
        ("key-00002.key", wrapped("w9", "one", "key-00002.key")),
        ("key-00003.key", damaged),
        ("key-00004.key", other_place),
        ("key-00005.key", [MARK, b"-v1:"].concat()),
    ] {
        house.origin.track(&file(name), Behaviour::Serve(body));
        let answer = house.get(&file(name)).await;
        assert_eq!((answer.status, answer.reason().as_str()), (502, "content-key"), "{name}");
        assert!(!answer.body.windows(MARK.len()).any(|bytes| bytes == MARK), "{name}");
    }
    assert_eq!(house.metric("segue_content_keys_refused_total").await, 5.0);
    assert_eq!(house.metric("segue_refusals_total{reason=\"content-key\",class=\"5xx\"}").await, 5.0);
}

/// Whether any file under `folder` holds these bytes.
fn holds(folder: &Path, wanted: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).any(|path| {
        if path.is_dir() {
            return holds(&path, wanted);
        }
        std::fs::read(&path).unwrap().windows(wanted.len()).any(|bytes| bytes == wanted)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_form_of_a_key_reaches_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let house = house(|config| {
        config.cache.memory = 4 << 20;
        config.cache.max_object = 2 << 20;
        config.cache.disk = 48 << 20;
        config.cache.dir = Some(dir.path().to_owned());
    })
    .await;
    for _ in 0..12 {
        for name in ["key-00000.key", "seg-00000.m4s"] {
            assert_eq!(house.get(&file(name)).await.status, 200);
        }
    }
    // Enough to push everything out of the memory that ever was in it.
    for n in 1..=120 {
        let name = file(&format!("seg-{n:05}.m4s"));
        house.origin.track(&name, Behaviour::Serve(vec![n as u8; 50_000]));
        assert_eq!(house.get(&name).await.status, 200);
    }
    house.edge.shutdown().await;
    assert!(holds(dir.path(), &pattern(50_000)[..4_000]), "the segment is there, so that this could fail");
    assert!(!holds(dir.path(), &CONTENT) && !holds(dir.path(), MARK));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_goes_on_with_a_key_for_a_bounded_time() {
    let house = house(|config| {
        config.cache.ttl.key = Duration::from_millis(300);
        config.cache.stale_while_revalidate = Duration::ZERO;
        config.cache.stale_if_error = Duration::from_secs(2);
        config.origins.get_mut("default").unwrap().attempts = 1;
    })
    .await;
    let name = file("key-00000.key");
    assert_eq!(house.get(&name).await.status, 200);
    house.origin.track(&name, Behaviour::Status(503));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let late = house.get(&name).await;
    assert_eq!((late.status, late.body.as_slice()), (200, &CONTENT[..]), "the bucket is away: {}", late.head);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let answer = house.get(&name).await;
    assert!(answer.status >= 500 && answer.body != CONTENT, "{}", answer.head);
    // It comes back with the bucket, and anew from the wrapped form.
    house.origin.track(&name, Behaviour::Serve(wrapped("w2", "two", "key-00000.key")));
    for _ in 0..100 {
        if house.get(&name).await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_key_of_a_playlist_is_fetched_ahead() {
    let house = house(|config| config.prefetch.segments = 1).await;
    let text = "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXT-X-MAP:URI=\"init.mp4\"\n\
        #EXT-X-KEY:METHOD=AES-128,URI=\"key-00000.key\",IV=0x00000000000000000000000000000001\n#EXTINF:6,\nseg-00000.m4s\n\
        #EXT-X-KEY:METHOD=AES-128,URI=\"key-00001.key\",IV=0x00000000000000000000000000000002\n#EXTINF:6,\nseg-00001.m4s\n#EXT-X-ENDLIST\n";
    house.origin.track(&file("index.m3u8"), Behaviour::Serve(text.as_bytes().to_vec()));
    house.origin.track(&file("init.mp4"), Behaviour::Serve(pattern(700)));
    assert_eq!(house.get(&file("index.m3u8")).await.status, 200);
    house.metric_reaches("segue_prefetches_total", 3.0).await;
    house.metric_reaches("segue_content_keys_total", 1.0).await;
    assert_eq!(house.origin.count(&file("key-00000.key")), 1);
    let answer = house.get(&file("key-00000.key")).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &CONTENT[..]));
    assert!(answer.cache_status().contains("hit"), "{}", answer.head);
    assert_eq!(house.origin.count(&file("key-00001.key")), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_wrapping_key_is_in_force_without_a_restart() {
    let origin = Origin::start().await;
    origin.track(&file("key-00000.key"), Behaviour::Serve(wrapped("w2", "two", "key-00000.key")));
    let dir = tempfile::tempdir().unwrap();
    let (path, part) = (dir.path().join("edge.toml"), dir.path().join("part"));
    let text = |id: &str| {
        format!(
            "listen = \"127.0.0.1:0\"\n[tickets]\nrequired = false\n[origin]\nkind = \"http\"\nendpoint = \"http://{}\"\n\
             [wrapping_keys]\n{id} = \"a wrapping secret that is long enough: two\"\n",
            origin.addr
        )
    };
    std::fs::write(&path, text("w1")).unwrap();
    let document = text("w1");
    let document = Document::parse(&document, "edge.toml", &|_| None).unwrap();
    let (_keep, snapshots) = watch::channel(Arc::new(SnapshotDoc::default()));
    let inputs = EdgeInputs { listener: None, admin_listener: None, snapshots, events: None };
    let edge = Edge::start(EdgeConfig::read(&document), inputs).await.unwrap();
    edge.watch(path.clone(), EdgeConfig::read);
    let target = format!("/hls/{TRACK}/{}", file("key-00000.key"));
    let answer = Client::connect(edge.addr()).await.get(&target).await;
    assert_eq!((answer.status, answer.reason().as_str()), (502, "content-key"), "w2 is not known yet");
    std::fs::write(&part, text("w2")).unwrap();
    std::fs::rename(&part, &path).unwrap();
    for _ in 0..600 {
        let answer = Client::connect(edge.addr()).await.get(&target).await;
        if answer.status == 200 {
            assert_eq!(answer.body, CONTENT);
            return edge.shutdown().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the new key was never taken over");
}
