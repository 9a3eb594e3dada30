//! The disk tier through the wire: restarts, kills, damage, purges; the origin counts who asks it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use segue_config::Secret;
use segue_proxy::{Edge, EdgeConfig, EdgeInputs, Endpoint, OriginConfig};
use segue_signing::{SigningSecret, SnapshotDoc};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;

use support::{Answer, Behaviour, Client, Origin, SECRET, TRACK, ticket, versioned};

const MIB: u64 = 1 << 20;
const TOKEN: &str = "the operator's token";
/// Whole lines that make an answer fresh for long.
const FRESH: &str = "Cache-Control: max-age=3600\r\nAge: 100\r\n";

fn config(origin: SocketAddr, dir: &Path) -> EdgeConfig {
    let mut upstream = OriginConfig::http(Endpoint::parse(&format!("http://{origin}")).unwrap());
    upstream.total_timeout = Duration::from_secs(60);
    upstream.methods.push("DELETE".to_owned());
    let mut config = EdgeConfig::minimal(upstream);
    config.keys = vec![segue_signing::Key {
        kid: "k1".to_owned(),
        secret: SigningSecret::parse(SECRET).unwrap(),
        not_before: None,
        retire_at: None,
    }];
    config.admin_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    config.admin_token = Some(Secret::literal(TOKEN));
    // A small memory, so that the disk is asked within a run too.
    config.cache.memory = 4 * MIB;
    config.cache.max_object = 2 * MIB;
    config.cache.disk = 48 * MIB;
    config.cache.dir = Some(dir.to_owned());
    config
}

async fn start(config: EdgeConfig) -> Edge {
    let (_sender, snapshots) = watch::channel(Arc::new(SnapshotDoc::default()));
    let inputs = EdgeInputs { listener: None, admin_listener: None, snapshots, events: None };
    Edge::start(config, inputs).await.unwrap()
}

/// An origin, a folder, and one edge after the other over both.
struct Place {
    origin: Origin,
    dir: tempfile::TempDir,
    edge: Option<Edge>,
}

impl Place {
    async fn new() -> Self {
        let (origin, dir) = (Origin::start().await, tempfile::tempdir().unwrap());
        let edge = Some(start(config(origin.addr, dir.path())).await);
        Self { origin, dir, edge }
    }

    fn edge(&self) -> &Edge {
        self.edge.as_ref().unwrap()
    }

    async fn stop(&mut self) {
        self.edge.take().unwrap().shutdown().await;
    }

    /// Ends the edge in good order and starts another over the same folder.
    async fn restart(&mut self) {
        self.stop().await;
        self.edge = Some(start(config(self.origin.addr, self.dir.path())).await);
    }

    async fn ask(&self, method: &str, file: &str, headers: &str) -> Answer {
        let target = format!("/p/{}/hls/{TRACK}/{file}", ticket());
        Client::connect(self.edge().addr()).await.request(method, &target, headers).await
    }

    async fn get(&self, file: &str) -> Answer {
        self.ask("GET", file, "").await
    }

    async fn metric(&self, name: &str) -> u64 {
        let answer = Client::connect(self.edge().admin_addr().unwrap()).await.get("/metrics").await;
        let text = String::from_utf8(answer.body).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// Changes a byte of the file where `wanted` stands in it.
    fn damage(&self, wanted: &[u8]) {
        let path = self.dir.path().join("objects");
        let bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(wanted.len()).position(|window| window == wanted).expect("it is on the disk");
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&[bytes[at] ^ 0x40], at as u64).unwrap();
    }
}

/// Bytes that no other object has.
fn body(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The tier that answered; how long the object stays fresh is the clock's word.
fn tier(answer: &Answer) -> &'static str {
    match answer.cache_status().as_str() {
        "segue; hit; detail=disk" => DISK,
        "segue; hit; detail=memory" => MEMORY,
        _ => "neither",
    }
}

const DISK: &str = "segue; hit; detail=disk";
const MEMORY: &str = "segue; hit; detail=memory";

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_disk_answers_as_the_memory_did() {
    let mut place = Place::new().await;
    let (small, large) = (body(1, 70_000), body(2, 1_500_000));
    place.origin.track("small.ts", Behaviour::ServeWith(small.clone(), FRESH));
    place.origin.track("large.ts", Behaviour::ServeWith(large.clone(), FRESH));
    place.get("small.ts").await;
    place.get("large.ts").await;
    let before = place.get("small.ts").await;
    assert_eq!((before.status, tier(&before)), (200, MEMORY));

    place.restart().await;
    let after = place.get("small.ts").await;
    assert_eq!((after.status, tier(&after), after.body == small), (200, DISK, true));
    for name in ["etag", "last-modified", "content-type", "content-length", "cache-control", "accept-ranges"] {
        assert_eq!(after.header(name), before.header(name), "{name}");
    }
    let age: u64 = after.header("age").unwrap().parse().unwrap();
    assert!((100..3000).contains(&age), "the origin's age and the time since: {age}");
    assert_eq!(tier(&place.get("small.ts").await), MEMORY, "promoted");

    // In parts: the head alone, conditions, ranges, and then all of it.
    let head = place.ask("HEAD", "large.ts", "").await;
    assert_eq!((head.status, tier(&head), head.header("content-length")), (200, DISK, Some("1500000")));
    place.restart().await;
    let same = place.ask("GET", "large.ts", "If-None-Match: \"v1\"\r\n").await;
    assert_eq!((same.status, tier(&same)), (304, DISK));
    place.restart().await;
    for (asked, from, to) in
        [("bytes=0-0", 0, 1), ("bytes=65530-65545", 65_530, 65_546), ("bytes=-700000", 800_000, 1_500_000)]
    {
        let part = place.ask("GET", "large.ts", &format!("Range: {asked}\r\n")).await;
        assert_eq!((part.status, part.whole), (206, true), "{asked}");
        assert!(part.body == large[from..to], "{asked}");
        assert_eq!(part.header("content-range"), Some(format!("bytes {from}-{}/1500000", to - 1).as_str()));
        place.restart().await;
    }
    let outside = place.ask("GET", "large.ts", "Range: bytes=1500000-\r\n").await;
    assert_eq!(outside.status, 416);
    place.restart().await;
    let whole = place.get("large.ts").await;
    assert_eq!((whole.status, tier(&whole), whole.body == large), (200, DISK, true));
    assert_eq!((place.origin.count("small.ts"), place.origin.count("large.ts")), (1, 1));
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_for_one_object_on_the_disk_get_it_whole_and_the_origin_hears_nothing() {
    let mut place = Place::new().await;
    let bytes = body(3, 200_000);
    place.origin.track("a.ts", Behaviour::ServeWith(bytes.clone(), FRESH));
    place.get("a.ts").await;
    place.restart().await;
    let asked = (0..64).map(|_| place.get("a.ts"));
    for answer in futures::future::join_all(asked).await {
        assert!(answer.status == 200 && answer.whole && answer.body == bytes, "{}", answer.head);
    }
    assert_eq!(place.origin.count("a.ts"), 1);
    assert_eq!(place.metric("segue_disk_promotions_total").await, 1);
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_on_the_disk_is_fetched_anew_or_cut_and_never_served() {
    let mut place = Place::new().await;
    let (small, large) = (body(4, 90_000), body(5, 1_500_000));
    place.origin.track("small.ts", Behaviour::ServeWith(small.clone(), FRESH));
    place.origin.track("large.ts", Behaviour::ServeWith(large.clone(), FRESH));
    place.get("small.ts").await;
    place.get("large.ts").await;
    place.stop().await;
    place.damage(&small[80_000..80_100]);
    place.damage(&large[1_400_000..1_400_100]);
    place.edge = Some(start(config(place.origin.addr, place.dir.path())).await);
    let answer = place.get("small.ts").await;
    assert!(answer.status == 200 && answer.body == small);
    assert_eq!(place.origin.count("small.ts"), 2);
    // Its head and first parts are good and on their way before the last chunk is looked at.
    let cut = place.get("large.ts").await;
    assert!(!cut.whole && cut.body.len() < large.len() && large.starts_with(&cut.body), "{} bytes", cut.body.len());
    let answer = place.get("large.ts").await;
    assert!(answer.status == 200 && answer.whole && answer.body == large);
    assert_eq!(place.origin.count("large.ts"), 2);
    assert_eq!(place.metric("segue_disk_checksum_failures_total").await, 2);
    place.restart().await;
    assert!(place.get("small.ts").await.body == small && place.get("large.ts").await.body == large);
    assert_eq!((place.origin.count("small.ts"), place.origin.count("large.ts")), (2, 2));
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_outlives_the_process() {
    let mut place = Place::new().await;
    let (old, new) = (body(6, 50_000), body(7, 50_000));
    place.origin.track(
        &versioned("a.ts"),
        Behaviour::First(1, Box::new(Behaviour::Serve(old.clone())), Box::new(Behaviour::Serve(new.clone()))),
    );
    assert!(place.get(&versioned("a.ts")).await.body == old);
    let purge = format!("{{\"track\":\"{TRACK}\"}}");
    let headers = format!("Authorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n", purge.len());
    let mut admin = Client::connect(place.edge().admin_addr().unwrap()).await;
    admin.send(format!("POST /purge HTTP/1.1\r\nHost: e\r\n{headers}\r\n{purge}").as_bytes()).await;
    assert_eq!(admin.answer(false).await.status, 200);
    place.restart().await;
    assert!(place.get(&versioned("a.ts")).await.body == new, "the purged bytes came back");
    place.restart().await;
    let answer = place.get(&versioned("a.ts")).await;
    assert!(answer.body == new && tier(&answer) == DISK);
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_has_changed_does_not_come_back_after_a_restart() {
    let mut place = Place::new().await;
    let (old, new) = (body(8, 50_000), body(9, 50_000));
    let serve = |body: &[u8]| Box::new(Behaviour::ServeWith(body.to_vec(), "Cache-Control: max-age=3600\r\n"));
    // The second request is the DELETE.
    place.origin.track("a.ts", Behaviour::First(2, serve(&old), serve(&new)));
    place.get("a.ts").await;
    place.restart().await;
    assert_eq!(place.ask("DELETE", "a.ts", "").await.status, 200);
    place.restart().await;
    assert!(place.get("a.ts").await.body == new);
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_out_of_date_is_asked_about_and_its_renewal_is_kept() {
    let mut place = Place::new().await;
    let bytes = body(10, 50_000);
    let serve = |lines| Box::new(Behaviour::ServeWith(bytes.clone(), lines));
    let behaviour =
        Behaviour::First(1, serve("Cache-Control: max-age=0\r\n"), serve("Cache-Control: max-age=3600\r\n"));
    place.origin.track("a.ts", behaviour);
    place.get("a.ts").await;
    place.restart().await;
    let renewed = place.get("a.ts").await;
    assert!(renewed.status == 200 && renewed.body == bytes);
    assert!(place.origin.last_head().to_ascii_lowercase().contains("if-none-match: \"v1\""), "asked with the ETag");
    assert_eq!(place.origin.count("a.ts"), 2);
    place.restart().await;
    let answer = place.get("a.ts").await;
    assert!(answer.body == bytes && tier(&answer) == DISK, "{}", answer.head);
    assert_eq!(place.origin.count("a.ts"), 2);
    place.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decryption_key_is_never_on_the_disk() {
    let mut place = Place::new().await;
    let (key, segment) = (body(11, 5_000), body(12, 5_000));
    place.origin.track("k.key", Behaviour::ServeWith(key.clone(), FRESH));
    place.origin.track("a.ts", Behaviour::ServeWith(segment.clone(), FRESH));
    assert!(place.get("k.key").await.body == key && place.get("a.ts").await.body == segment);
    place.stop().await;
    let bytes = std::fs::read(place.dir.path().join("objects")).unwrap();
    let has = |wanted: &[u8]| bytes.windows(64).any(|window| window == &wanted[..64]);
    assert!(has(&segment) && !has(&key));
}

/// The edge of [`killed_in_mid_write_it_never_serves_a_wrong_byte`]: this test binary, started again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process of its own, started by the tests that need one"]
async fn edge_in_a_child() {
    let (Ok(origin), Ok(dir)) = (std::env::var("TEST_ORIGIN"), std::env::var("TEST_DIR")) else { return };
    let mut config = config(origin.parse().unwrap(), Path::new(&dir));
    config.tickets.required = std::env::var("TEST_OPEN").is_err();
    let edge = start(config).await;
    println!("\nEDGE {}", edge.addr());
    // Its end is the parent's, in whatever way that ends.
    let mut line = String::new();
    let _ = BufReader::new(tokio::io::stdin()).read_line(&mut line).await;
}

async fn child(origin: SocketAddr, dir: &Path, open: bool) -> (tokio::process::Child, SocketAddr) {
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "edge_in_a_child", "--ignored", "--nocapture"]);
    command.env("TEST_ORIGIN", origin.to_string()).env("TEST_DIR", dir);
    if open {
        command.env("TEST_OPEN", "1");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let started = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the edge starts");
            if let Some(addr) = line.strip_prefix("EDGE ") {
                return addr.parse().unwrap();
            }
        }
    };
    let addr = tokio::time::timeout(Duration::from_secs(120), started).await.expect("the edge starts in time");
    // The pipe stays open, for a write into a closed one would end the child.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, addr)
}

const OBJECTS: u64 = 400;

fn size(n: u64) -> usize {
    usize::try_from(match n % 5 {
        0 => 900 + n,
        1 => 40_000 + 7 * n,
        2 => 131_072,
        3 => 200_000 + n,
        _ => 600_000 + 11 * n,
    })
    .unwrap()
}

/// Asks until the edge is gone; gives how many answers were whole, and how many of them came from the disk.
async fn ask_until_killed(addr: SocketAddr, mut state: u64) -> (u64, u64) {
    let (mut whole, mut from_disk) = (0, 0);
    let ticket = ticket();
    while let Ok(stream) = tokio::net::TcpStream::connect(addr).await {
        let mut client = Client::over(stream);
        loop {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Half of the requests go to a tenth of the objects.
            let n = if state >> 63 == 0 { (state >> 33) % OBJECTS } else { (state >> 33) % (OBJECTS / 10) };
            let target = format!("/p/{ticket}/hls/{TRACK}/{}", versioned(&format!("seg{n}.ts")));
            let request = format!("GET {target} HTTP/1.1\r\nHost: edge\r\n\r\n");
            client.send(request.as_bytes()).await;
            let head = client.head().await;
            if head.is_empty() {
                break;
            }
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            let truth = body(n, size(n));
            let (bytes, is_whole) = client.body(truth.len()).await;
            assert!(truth.starts_with(&bytes), "wrong bytes of seg{n}:\n{head}");
            if !is_whole {
                break;
            }
            whole += 1;
            from_disk += u64::from(head.contains("detail=disk"));
        }
    }
    (whole, from_disk)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_mid_write_it_never_serves_a_wrong_byte() {
    const KILLS: u64 = 24;
    let (origin, dir) = (Origin::start().await, tempfile::tempdir().unwrap());
    for n in 0..OBJECTS {
        origin.track(&versioned(&format!("seg{n}.ts")), Behaviour::Serve(body(n, size(n))));
    }
    let mut state = u64::from(std::process::id());
    let (mut whole, mut from_disk) = (0, 0);
    for kill in 0..KILLS {
        let (mut child, addr) = child(origin.addr, dir.path(), false).await;
        let asking: Vec<_> = (0..4).map(|n| tokio::spawn(ask_until_killed(addr, state ^ (n << 17)))).collect();
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(kill | 1);
        // At any moment: this is what is tested, not a wait for something.
        tokio::time::sleep(Duration::from_millis(30 + (state >> 40) % 400)).await;
        child.kill().await.unwrap();
        for asked in asking {
            let (more, more_from_disk) = asked.await.unwrap();
            whole += more;
            from_disk += more_from_disk;
        }
    }
    println!("{KILLS} kills, {whole} whole answers, {from_disk} of them from the disk");
    assert!(whole > 200 && from_disk > 50, "{whole} whole answers, {from_disk} from the disk");
}
