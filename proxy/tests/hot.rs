//! Keys, sessions, tracks and the certificate that change under load: no request fails that should have passed, none passes that should
//! have failed. A request in flight may end on what it began with, so each is judged by whether it began after the change
//! was in force, or ended before it was published.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use segue_signing::{Key, KeyDoc, Revocation, SnapshotDoc, mint};
use support::tls::{Pair, Secured, Trust, secured};
use support::{Behaviour, House, SECRET, TRACK, claims, key, now, pattern};

/// What the edge is called.
const NAME: &str = "edge.example";
/// A client that makes a connection for each request.
const NEWCOMER: &str = "newcomer";

/// An edge under load, and whom its clients trust.
type Under = (Arc<Secured>, Arc<Trust>);

/// One request: who asked, when it began and ended, and what came.
struct Sample {
    who: &'static str,
    began: Instant,
    ended: Instant,
    status: u16,
    body: Vec<u8>,
    /// What the edge showed on a connection that was made for this request.
    shown: Option<CertificateDer<'static>>,
}

/// A client that asks for `target` over and over: on one connection, or as a newcomer on one of its own each time.
async fn load((house, trust): Under, who: &'static str, target: String, over: Arc<AtomicBool>) -> Vec<Sample> {
    let mut samples = Vec::new();
    let addr = house.house.edge.addr();
    let mut client = trust.client(addr, NAME).await;
    while !over.load(Ordering::Relaxed) {
        let (began, mut shown) = (Instant::now(), None);
        if who == NEWCOMER {
            client = trust.client(addr, NAME).await;
            shown = certificate(&client.stream);
        }
        let answer = client.get(&target).await;
        assert!(answer.whole && answer.status != 0, "{who}: a cut answer");
        samples.push(Sample { who, began, ended: Instant::now(), status: answer.status, body: answer.body, shown });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    samples
}

fn certificate<S>(stream: &tokio_rustls::client::TlsStream<S>) -> Option<CertificateDer<'static>> {
    stream.get_ref().1.peer_certificates()?.first().map(|shown| shown.clone().into_owned())
}

/// From before a change was published to when it was seen to be in force.
struct Change {
    published: Instant,
    in_force: Instant,
}

impl Change {
    /// Publishes, and waits until an answer of `target` is as wanted.
    async fn make(house: &Under, doc: SnapshotDoc, target: &str, wanted: impl Fn(u16, &[u8]) -> bool) -> Self {
        let published = Instant::now();
        house.0.house.snapshots.send_replace(Arc::new(doc));
        loop {
            let answer = house.1.client(house.0.house.edge.addr(), NAME).await.get(target).await;
            if wanted(answer.status, &answer.body) {
                return Self { published, in_force: Instant::now() };
            }
            assert!(published.elapsed() < Duration::from_secs(60), "the change never came into force");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Puts another certificate where the edge's own lies, and waits until it is shown.
    async fn certificate(house: &Under, pair: &Pair) -> Self {
        let published = Instant::now();
        pair.write(house.0.dir.path(), "edge");
        loop {
            let stream = house.1.connect(house.0.house.edge.addr(), NAME).await.unwrap();
            if certificate(&stream).as_ref() == Some(&pair.cert) {
                return Self { published, in_force: Instant::now() };
            }
            assert!(published.elapsed() < Duration::from_secs(60), "the certificate was never shown");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn is_before(&self, sample: &Sample) -> bool {
        sample.ended < self.published
    }

    fn is_after(&self, sample: &Sample) -> bool {
        sample.began > self.in_force
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_a_revocation_a_purge_and_a_new_certificate_under_load_harm_nobody_else() {
    let secured = Arc::new(secured().await);
    let next = Pair::new(&[NAME]);
    // A resumed session shows the certificate that it began with.
    let mut trust = Trust::new(&[&secured.pair, &next]);
    trust.0.resumption = rustls::client::Resumption::disabled();
    let trust = Arc::new(trust);
    let under = (Arc::clone(&secured), trust);
    let house: &House = &secured.house;
    let (old, new) = (pattern(3000), pattern(4000));
    house.origin.track("cover.jpg", Behaviour::Serve(old.clone()));
    house.origin.track("other.jpg", Behaviour::Serve(pattern(100)));
    let ticket = |kid: &str, sid: &str| {
        let claims = segue_signing::Claims { sid: Some(sid.to_owned()), ..claims() };
        mint(&Key { kid: kid.to_owned(), ..key() }, &claims).unwrap()
    };
    let target = |kid: &str, sid: &str, file: &str| format!("/p/{}/hls/{TRACK}/{file}", ticket(kid, sid));
    let k =
        |kid: &str, retire_at| KeyDoc { kid: kid.to_owned(), secret: SECRET.to_owned(), not_before: None, retire_at };
    // k1 stands in the edge's own file too; the document's word counts.
    let mut doc = SnapshotDoc { revision: 1, keys: vec![k("k1", None)], ..SnapshotDoc::default() };
    Change::make(&under, doc.clone(), &target("k1", "stays", "cover.jpg"), |status, _| status == 200).await;

    let over = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for (who, kid, sid, file) in [
        ("steady", "k3", "stays", "other.jpg"),
        ("steady", "k3", "stays-too", "other.jpg"),
        ("by the old key", "k1", "old", "other.jpg"),
        ("by the new key", "k2", "new", "other.jpg"),
        ("revoked", "k3", "gone", "other.jpg"),
        ("reader", "k3", "reader", "cover.jpg"),
        (NEWCOMER, "k3", "newcomer", "other.jpg"),
    ] {
        // k3 is there from the beginning of the load on.
        if !doc.keys.iter().any(|key| key.kid == "k3") {
            doc = SnapshotDoc { revision: 2, keys: vec![k("k1", None), k("k3", None)], ..doc };
            Change::make(&under, doc.clone(), &target("k3", "probe", "cover.jpg"), |status, _| status == 200).await;
        }
        clients.push(tokio::spawn(load(under.clone(), who, target(kid, sid, file), Arc::clone(&over))));
    }
    let calm = || tokio::time::sleep(Duration::from_millis(300));

    calm().await;
    doc = SnapshotDoc { revision: 3, keys: vec![k("k1", None), k("k2", None), k("k3", None)], ..doc };
    let added = Change::make(&under, doc.clone(), &target("k2", "probe", "other.jpg"), |status, _| status == 200).await;
    calm().await;
    doc = SnapshotDoc { revision: 4, keys: vec![k("k1", Some(now())), k("k2", None), k("k3", None)], ..doc };
    let retired =
        Change::make(&under, doc.clone(), &target("k1", "probe", "other.jpg"), |status, _| status == 401).await;
    calm().await;
    let revocation = Revocation { sid: Some("gone".to_owned()), until: now() + 600, ..Revocation::default() };
    doc = SnapshotDoc { revision: 5, revocations: vec![revocation], ..doc };
    let revoked =
        Change::make(&under, doc.clone(), &target("k3", "gone", "other.jpg"), |status, _| status == 403).await;
    calm().await;
    house.origin.track("cover.jpg", Behaviour::Serve(new.clone()));
    doc = SnapshotDoc { revision: 6, purges: BTreeMap::from([(TRACK.to_owned(), 7)]), ..doc };
    let is_new = |status: u16, body: &[u8]| status == 200 && body == new;
    let purged = Change::make(&under, doc, &target("k3", "probe", "cover.jpg"), is_new).await;
    calm().await;
    let replaced = Change::certificate(&under, &next).await;
    calm().await;
    over.store(true, Ordering::Relaxed);

    let mut judged = BTreeMap::<(&str, &str), usize>::new();
    for client in clients {
        for sample in client.await.unwrap() {
            let (when, wanted): (&str, &[u16]) = match sample.who {
                "by the old key" if retired.is_after(&sample) => ("after", &[401]),
                "by the old key" if retired.is_before(&sample) => ("before", &[200]),
                "by the new key" if added.is_after(&sample) => ("after", &[200]),
                "by the new key" if added.is_before(&sample) => ("before", &[401]),
                "revoked" if revoked.is_after(&sample) => ("after", &[403]),
                "revoked" if revoked.is_before(&sample) => ("before", &[200]),
                "steady" | "reader" => ("always", &[200]),
                NEWCOMER if replaced.is_after(&sample) => ("after", &[200]),
                NEWCOMER if replaced.is_before(&sample) => ("before", &[200]),
                NEWCOMER => ("between", &[200]),
                _ => ("between", &[200, 401, 403]),
            };
            assert!(wanted.contains(&sample.status), "{} {when}: {}", sample.who, sample.status);
            if sample.who == NEWCOMER && when != "between" {
                let wanted = if when == "after" { &next.cert } else { &secured.pair.cert };
                assert_eq!(sample.shown.as_ref(), Some(wanted), "{when} the certificate was replaced");
            }
            if sample.who == "reader" && purged.is_before(&sample) {
                // The origin's bytes change a moment before the purge is told: what is cached is still the old.
                assert_eq!(sample.body, old, "before the purge");
            }
            if sample.who == "reader" && purged.is_after(&sample) {
                assert_eq!(sample.body, new, "after the purge");
                *judged.entry(("reader", "after")).or_default() += 1;
            }
            *judged.entry((sample.who, when)).or_default() += 1;
        }
    }
    for place in [
        ("steady", "always"),
        ("by the old key", "before"),
        ("by the old key", "after"),
        ("by the new key", "before"),
        ("by the new key", "after"),
        ("revoked", "before"),
        ("revoked", "after"),
        ("reader", "after"),
        (NEWCOMER, "before"),
        (NEWCOMER, "after"),
    ] {
        assert!(judged.get(&place).copied().unwrap_or(0) >= 10, "too little was judged: {judged:?}");
    }
}
