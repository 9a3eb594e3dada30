//! Starts that cannot succeed end with one sentence that says what to do.

use std::time::Duration;

use segue_config::{Finding, Health, Secret};
use segue_control_plane::{Control, ControlConfig, ControlInputs, DatabaseConfig, examine};

use crate::bucket::Bucket;
use crate::house::{House, config};

async fn refused(config: ControlConfig) -> (String, String) {
    let error = Control::start(config, ControlInputs::default()).await.expect_err("it must not start");
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    (error.kind().to_owned(), text)
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(folder.path(), &bucket);
    config.listen = holder.local_addr().unwrap();
    let (kind, text) = refused(config).await;
    assert_eq!(kind, "listen");
    assert!(text.contains(&format!("port {} on 127.0.0.1 is taken", holder.local_addr().unwrap().port())), "{text}");
}

#[tokio::test]
async fn a_database_that_cannot_be_made() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut config = config(folder.path(), &bucket);
    std::fs::write(folder.path().join("file"), "x").unwrap();
    config.database = DatabaseConfig::Sqlite(folder.path().join("file/control.db"));
    let (kind, text) = refused(config.clone()).await;
    assert_eq!(kind, "database");
    assert!(text.contains("file"), "{text}");
    config.database = DatabaseConfig::Sqlite(folder.path().to_owned());
    assert_eq!(refused(config.clone()).await.0, "database");
    std::fs::write(folder.path().join("noise.db"), vec![7u8; 8192]).unwrap();
    config.database = DatabaseConfig::Sqlite(folder.path().join("noise.db"));
    assert_eq!(refused(config.clone()).await.0, "database");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("mysql://segue@{closed}/segue").parse().unwrap();
    config.database = DatabaseConfig::Mysql { url, password: Some(Secret::literal("s3cret")), connections: 2 };
    let (kind, text) = refused(config).await;
    assert_eq!(kind, "database");
    assert!(text.contains("cannot reach the database 127.0.0.1/segue") && !text.contains("s3cret"), "{text}");
}

#[tokio::test]
async fn a_bucket_that_does_not_answer_or_refuses_the_keys() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut wrong_key = config(folder.path(), &bucket);
    wrong_key.objects.secret_key = Secret::literal("wrong");
    let (kind, text) = refused(wrong_key).await;
    assert_eq!(kind, "objects");
    assert!(text.contains("check [objects] endpoint and its keys"), "{text}");
    let mut nobody = config(folder.path(), &bucket);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    nobody.objects.endpoint = format!("http://{closed}");
    assert_eq!(refused(nobody).await.0, "objects");
}

#[tokio::test]
async fn keys_and_tokens_that_cannot_be_used() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut short = config(folder.path(), &bucket);
    short.keys = vec![("k1".to_owned(), Secret::literal("short"))];
    let (kind, text) = refused(short).await;
    assert_eq!(kind, "keys");
    assert!(text.contains("k1") && !text.contains("\"short\""), "{text}");
    let mut same = config(folder.path(), &bucket);
    same.tokens.worker = Some(same.tokens.admin.clone());
    assert_eq!(refused(same).await.0, "tokens");
    let mut none = config(folder.path(), &bucket);
    none.tokens.admin = Secret::literal("");
    assert_eq!(refused(none).await.0, "tokens");
}

#[tokio::test]
async fn shutdown_ends_streams_and_waits_at_once() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let house = House::start(config(folder.path(), &bucket)).await;
    let stream = house.client.get(house.url("/v1/events")).bearer_auth(crate::house::ADMIN).send().await.unwrap();
    let url = house.url("/v1/worker/claim");
    let body = serde_json::json!({ "worker": "w", "instance": "i", "wait_ms": 30_000 });
    let claim = tokio::spawn(house.client.post(url).bearer_auth(crate::house::WORKER).json(&body).send());
    tokio::time::timeout(Duration::from_secs(5), async {
        // The claim is waiting once its connection has been answered for; both end whenever they were begun.
        tokio::time::sleep(Duration::from_millis(100)).await;
        house.control.shutdown().await;
        let _ = stream.bytes().await;
        let _ = claim.await;
    })
    .await
    .expect("a stream or a wait kept the control plane from ending");
}

#[tokio::test]
async fn the_doctor_looks_at_the_database_and_makes_nothing_of_it() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let mut config = ControlConfig { redis: None, ..config(folder.path(), &bucket) };
    config.edge_base_url = "http://127.0.0.1:9".to_owned();
    let look = async |config: &ControlConfig| {
        let findings = examine(config).await;
        let of = |part: &str| findings.iter().find(|finding| finding.part == part).cloned();
        (of("database").unwrap(), of("redis"))
    };
    let (before, redis) = look(&config).await;
    assert!(before.health == Health::Well && before.seen.contains("at the first start"), "{before:?}");
    assert_eq!(redis, None);
    if let DatabaseConfig::Sqlite(path) = &config.database {
        assert!(!path.exists());
    }
    House::start(config.clone()).await.control.shutdown().await;
    let (after, _) = look(&config).await;
    assert!(after.health == Health::Well && after.seen.contains("migrations were made"), "{after:?}");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("mysql://segue@{closed}/segue").parse().unwrap();
    config.database = DatabaseConfig::Mysql { url, password: Some(Secret::literal("s3cret")), connections: 2 };
    let url = Secret::literal(format!("redis://:s3cret@{closed}"));
    config.redis = Some(segue_control_plane::RedisConfig { url, ca: None, prefix: "segue".to_owned() });
    let (database, redis) = look(&config).await;
    let redis: Finding = redis.unwrap();
    assert_eq!((database.health, redis.health), (Health::Ill, Health::Doubtful));
    assert!(!format!("{database:?} {redis:?}").contains("s3cret"), "{database:?} {redis:?}");
}
