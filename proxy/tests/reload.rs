//! A configuration file that changes under a running edge.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use segue_config::Document;
use segue_proxy::{Edge, EdgeConfig, EdgeInputs};
use segue_signing::{Key, SigningSecret, SnapshotDoc, mint};
use support::{Behaviour, Client, Origin, SECRET, TRACK, claims, key, now, pattern};
use tokio::sync::watch;

const OTHER: &str = "another secret of at least thirty-two bytes";

/// Files appear by a rename, as editors and secret stores write them.
fn write(path: &Path, text: &str) {
    let part = path.with_extension("part");
    std::fs::write(&part, text).unwrap();
    std::fs::rename(part, path).unwrap();
}

async fn start(path: &Path) -> Edge {
    let text = std::fs::read_to_string(path).unwrap();
    let document = Document::parse(&text, "edge.toml", &|_| None).unwrap();
    let config = EdgeConfig::read(&document);
    document.finish().unwrap();
    let (_, snapshots) = watch::channel(Arc::new(SnapshotDoc::default()));
    let inputs = EdgeInputs { listener: None, admin_listener: None, snapshots, events: None };
    let edge = Edge::start(config, inputs).await.unwrap();
    edge.watch(path.to_owned(), EdgeConfig::read);
    edge
}

async fn asked(edge: &Edge, ticket: &str) -> (u16, String) {
    let target = format!("/p/{ticket}/hls/{TRACK}/cover.jpg");
    let answer = Client::connect(edge.addr()).await.get(&target).await;
    (answer.status, answer.reason())
}

async fn becomes(edge: &Edge, ticket: &str, status: u16, reason: &str) {
    let begun = Instant::now();
    let mut last = (0, String::new());
    while begun.elapsed() < Duration::from_secs(60) {
        last = asked(edge, ticket).await;
        if last == (status, reason.to_owned()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never {status} {reason}, but {last:?}");
}

async fn metric(edge: &Edge, name: &str) -> String {
    let text = Client::connect(edge.admin_addr().unwrap()).await.get("/metrics").await.body;
    let text = String::from_utf8(text).unwrap();
    text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_revocations_change_with_the_file_and_a_broken_file_changes_nothing() {
    let origin = Origin::start().await;
    origin.track("cover.jpg", Behaviour::Serve(pattern(10)));
    let dir = tempfile::tempdir().unwrap();
    let (path, secret, revoked) =
        (dir.path().join("edge.toml"), dir.path().join("k1.secret"), dir.path().join("revoked.toml"));
    let base = format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[origin]\nkind = \"http\"\nendpoint = \"http://{}\"\n\
         [revocations]\nfile = \"{}\"\n[keys]\nk1 = \"file:{}\"\n",
        origin.addr,
        revoked.display(),
        secret.display()
    );
    write(&secret, SECRET);
    write(&revoked, "");
    write(&path, &base);
    let edge = start(&path).await;
    let other = |kid: &str| Key { kid: kid.to_owned(), secret: SigningSecret::parse(OTHER).unwrap(), ..key() };
    let (by_k1, by_k2) = (mint(&key(), &claims()).unwrap(), mint(&other("k2"), &claims()).unwrap());
    assert_eq!(asked(&edge, &by_k1).await.0, 200);
    assert_eq!(asked(&edge, &by_k2).await.1, "key-unknown");

    // A key is added; k1 retires in the same breath.
    let rotated = base.replace("[keys]", &format!("[keys.k2]\nsecret = \"{OTHER}\"\n[keys]"));
    write(&path, &rotated);
    becomes(&edge, &by_k2, 200, "").await;
    assert_eq!(asked(&edge, &by_k1).await.0, 200);

    // A file that is broken in two places changes nothing, and says so.
    write(&path, &rotated.replace(OTHER, "short").replace("[keys]", "[kyes]"));
    let begun = Instant::now();
    while metric(&edge, "segue_config_refused_total").await != "segue_config_refused_total 1" {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", metric(&edge, "segue_config_refused_total").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((asked(&edge, &by_k1).await.0, asked(&edge, &by_k2).await.0), (200, 200));

    // Mended, with a time of retirement that has come.
    let retired = rotated.replace("[keys.k2]\n", &format!("[keys.k2]\nretire_at = {}\n", now() - 1));
    write(&path, &retired);
    becomes(&edge, &by_k2, 401, "key-retired").await;

    // The secret's own file, and the revocations' file, are watched as well.
    write(&secret, OTHER);
    becomes(&edge, &by_k1, 401, "signature-invalid").await;
    let anew = mint(&other("k1"), &claims()).unwrap();
    assert_eq!(asked(&edge, &anew).await.0, 200);
    write(&revoked, &format!("[[revocation]]\nsid = \"device-1\"\nuntil = {}\n", now() + 600));
    becomes(&edge, &anew, 403, "revoked").await;
    write(&revoked, "");
    becomes(&edge, &anew, 200, "").await;

    // Limit classes are hot too: a bucket of three that earns nothing, then none.
    let limited = format!("{retired}[limits.all]\nrate = 0.001\nburst = 3\nper = \"track\"\napply = [\"other\"]\n");
    write(&path, &limited);
    becomes(&edge, &anew, 429, "rate-limited").await;
    write(&path, &limited.replace("burst = 3", "burst = 0"));
    while metric(&edge, "segue_config_refused_total").await != "segue_config_refused_total 2" {
        assert!(begun.elapsed() < Duration::from_secs(120), "{}", metric(&edge, "segue_config_refused_total").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(asked(&edge, &anew).await.0, 429, "what was in force stays");
    write(&path, &retired);
    becomes(&edge, &anew, 200, "").await;
    edge.shutdown().await;
}
