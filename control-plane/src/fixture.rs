//! Parts of a control plane for unit tests: a real database in a folder, no server, no tasks.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use segue_config::Secret;

use crate::bucket::{ACCESS, SECRET};
use crate::config::{
    AccessConfig, AuditConfig, ControlConfig, FactsConfig, HttpConfig, JobsConfig, ObjectsConfig, PoliciesConfig,
    TicketsConfig, TokensConfig, UploadsConfig, WebhooksConfig,
};
use crate::control;
use crate::database::database;
use crate::hints::Hints;
use crate::state::{Parts, Shared};
use crate::store::jobs::Claimant;
use crate::store::leases::{self, Held};
use crate::store::tracks::{self, NewTrack, Published, Status};
use crate::store::{Store, jobs};

/// Who claims where it does not matter who does.
pub(crate) const CLAIMANT: Claimant<'static> = Claimant { worker: "w", instance: "i" };

/// Opens (again) the parts over the database in `folder` and a bucket at `endpoint`.
pub(crate) async fn parts(folder: &Path, endpoint: Option<String>) -> Shared {
    let config = ControlConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        database: database(folder),
        redis: None,
        objects: ObjectsConfig {
            create_bucket: endpoint.is_some(),
            endpoint: endpoint.unwrap_or_else(|| "http://127.0.0.1:9".to_owned()),
            public_endpoint: None,
            region: "us-east-1".to_owned(),
            bucket: "media".to_owned(),
            access_key: Secret::literal(ACCESS),
            secret_key: Secret::literal(SECRET),
        },
        edge_base_url: "http://edge.test".to_owned(),
        keys: vec![("k1".to_owned(), Secret::literal("a signing secret of at least thirty-two bytes"))],
        tokens: TokensConfig { admin: Secret::literal("admin-token-of-the-tests"), worker: None, edge: None },
        access: AccessConfig::default(),
        audit: AuditConfig::default(),
        webhooks: WebhooksConfig::default(),
        uploads: UploadsConfig::default(),
        tickets: TicketsConfig::default(),
        jobs: JobsConfig::default(),
        policies: PoliciesConfig::default(),
        http: HttpConfig::default(),
        facts: FactsConfig { dir: Some(folder.join("control.db-facts")), ..FactsConfig::default() },
        fluvio: None,
    };
    let store = Store::open(&config.database).await.unwrap();
    Arc::new(control::assemble(config, store, Hints::default()).await.unwrap())
}

/// The database in `folder` alone.
pub(crate) async fn store(folder: &Path) -> Store {
    Store::open(&database(folder)).await.unwrap()
}

/// A duty's lease, where nobody else is there to have it.
pub(crate) async fn held(parts: &Parts) -> Held {
    let name = "tests";
    leases::take(&parts.store, name, &parts.instance, 600_000).await.unwrap().unwrap()
}

/// A track with one queued job.
pub(crate) async fn queued(store: &Store, track: &str, job: &str, max_attempts: u32, now: i64) {
    let mut tx = store.begin().await.unwrap();
    let upload_key = format!("uploads/{track}/u");
    let new = NewTrack {
        id: track,
        title: "t",
        title_given: false,
        filename: "t.mp3",
        content_type: None,
        upload_key: &upload_key,
        bytes: 1,
        publisher: track.split('-').next().unwrap(),
    };
    tracks::insert(&mut tx, &new, now).await.unwrap();
    assert!(tracks::transition(&mut tx, track, Status::Uploading, Status::Queued, now).await.unwrap());
    jobs::enqueue(&mut tx, job, track, max_attempts, now).await.unwrap();
    tx.commit().await.unwrap();
}

/// What a worker hands over for an attempt.
pub(crate) fn published(fence: i64, duration_ms: u64) -> Published {
    let version = format!("0123456789abcdef-{fence}");
    Published {
        master: format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{version}/a64/index.m3u8\n"),
        version,
        duration_ms,
        renditions: Vec::new(),
        title: None,
        artist: None,
        album: None,
        artwork: false,
        waveform: false,
        loudness: None,
    }
}
