#![allow(clippy::unwrap_used)]

use super::*;
use crate::bucket::Bucket;
use crate::fixture;

const TRACK: &str = "aaaaaaaaaaaa";
const MIB: u64 = 1 << 20;

/// Three parts: 5, 5 and 2 MiB.
fn upload() -> UploadRow {
    UploadRow::new(TRACK, "uploads/aaaaaaaaaaaa/u", (12 * MIB, 5 * MIB), None, 0)
}

fn part(number: u32, bytes: u64, etag: Option<&str>, said: Option<&str>) -> Part {
    Part { number, bytes: Some(bytes), etag: etag.map(str::to_owned), said: said.map(str::to_owned) }
}

#[test]
fn a_part_is_as_large_as_it_takes_to_stay_within_ten_thousand() {
    let config = UploadsConfig::default();
    for (bytes, size) in [(1, 16 * MIB), (100_000 * MIB, 16 * MIB), (160_001 * MIB, 17 * MIB), (5 << 40, 525 * MIB)] {
        let size_of_part = part_bytes(&config, bytes);
        assert_eq!(size_of_part, size, "{bytes}");
        assert!(bytes.div_ceil(size_of_part) <= PARTS_MAX);
    }
}

#[test]
fn the_lengths_of_the_parts_make_the_whole() {
    let upload = upload();
    let lengths: Vec<_> = (0..=4).map(|number| upload.bytes_of(number)).collect();
    assert_eq!(lengths, [None, Some(5 * MIB), Some(5 * MIB), Some(2 * MIB), None]);
}

#[test]
fn parts_are_put_together_only_with_their_sizes_and_tags() {
    let upload = upload();
    let good = [
        part(1, 5 * MIB, Some("\"aa\""), Some("AA")),
        part(2, 5 * MIB, Some("\"bb\""), None),
        part(3, 2 * MIB, None, Some("\"cc\"")),
    ];
    let tags = [Some("\"aa\"".to_owned()), Some("\"bb\"".to_owned()), Some("\"cc\"".to_owned())];
    assert_eq!(chosen(&upload, &good).unwrap(), (1..=3).zip(tags).collect::<Vec<_>>());
    let refused = |parts: &[Part]| {
        let error = chosen(&upload, parts).unwrap_err();
        (error.kind(), error.to_string())
    };
    let (kind, message) =
        refused(&[part(1, 5 * MIB, Some("\"aa\""), Some("\"ab\"")), good[1].clone(), good[2].clone()]);
    assert_eq!(kind, "part-mismatch");
    assert!(message.contains("told of part 1:"), "{message}");
    let (kind, message) = refused(&[part(1, 5 * MIB - 1, None, None), good[2].clone()]);
    assert_eq!(kind, "parts-missing");
    assert!(message.starts_with("parts 1, 2 are not there"), "{message}");
    // A part that was heard of and is not listed is not there.
    let gone = Part { bytes: None, ..good[0].clone() };
    assert_eq!(refused(&[gone, good[1].clone(), good[2].clone()]).0, "parts-missing");
}

#[test]
fn a_listing_is_kept_where_it_is_news() {
    let upload = upload();
    let known = vec![part(1, 5 * MIB, Some("a"), Some("a")), part(2, 5 * MIB, Some("b"), None)];
    let listed = |number, bytes, etag: &str| Listed { number, bytes, etag: Some(etag.to_owned()) };
    let (now, changed) =
        merge(&upload, known, &[listed(1, 5 * MIB, "a"), listed(3, 2 * MIB, "c"), listed(9, 1, "never asked for")]);
    assert_eq!(
        now.iter().map(|part| (part.number, part.bytes)).collect::<Vec<_>>(),
        [(1, Some(5 * MIB)), (2, None), (3, Some(2 * MIB))]
    );
    assert_eq!(changed.iter().map(|part| part.number).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(now[0].said.as_deref(), Some("a"), "what was said stays");
}

#[test]
fn base64_of_hex_is_that_of_the_bytes() {
    // FIPS 180-2, appendix B.1.
    let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(base64_of_hex(hex), "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
}

/// A track whose parts all are in the bucket.
async fn sent(parts: &Parts) -> UploadRow {
    let new = NewTrack {
        id: TRACK,
        title: "t",
        title_given: false,
        filename: "t.wav",
        content_type: None,
        upload_key: "uploads/aaaaaaaaaaaa/u",
        bytes: 3,
        publisher: "p",
    };
    let upload = begin(parts, &new, None).await.unwrap();
    transaction!(parts.store, |tx| {
        tracks::insert(tx, &new, clock::now_ms()).await?;
        uploads::insert(tx, &upload).await
    })
    .unwrap();
    let (put, _) = presign(parts, &upload, 1, None).await.unwrap();
    let sent = reqwest::Client::new().put(&put.url).body("abc").send().await.unwrap();
    assert!(sent.status().is_success(), "{sent:?}");
    upload
}

async fn status(parts: &Parts) -> tracks::Status {
    tracks::get(&parts.store, TRACK).await.unwrap().unwrap().status
}

#[tokio::test]
async fn dying_between_the_stores_answer_and_the_row() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let parts = fixture::parts(folder.path(), Some(bucket.endpoint())).await;
    let upload = sent(&parts).await;
    let now = clock::now_ms();
    assert!(transaction!(parts.store, |tx| uploads::hold(tx, TRACK, now + IN_HAND_MS, now).await).unwrap());
    let chosen = chosen(&upload, &look(&parts, &upload).await.unwrap()).unwrap();
    parts.objects.complete_parts(&upload.object_key, &upload.upload_id, &chosen).await.unwrap();
    parts.store.close().await;

    let parts = fixture::parts(folder.path(), Some(bucket.endpoint())).await;
    assert_eq!(status(&parts).await, tracks::Status::Uploading);
    // Though it is in the hand of the process that died.
    sweep(&parts, &fixture::held(&parts).await).await.unwrap();
    assert_eq!(status(&parts).await, tracks::Status::Queued);
    assert!(uploads::get(&parts.store, TRACK).await.unwrap().is_none());
    assert_eq!(bucket.object(&upload.object_key).unwrap(), b"abc");
    parts.store.close().await;
}

#[tokio::test]
async fn dying_before_the_store_was_asked_is_gone_on_with_when_the_hand_is_off() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let parts = fixture::parts(folder.path(), Some(bucket.endpoint())).await;
    let upload = sent(&parts).await;
    let now = clock::now_ms();
    assert!(transaction!(parts.store, |tx| uploads::hold(tx, TRACK, now + 200, now).await).unwrap());
    let held = fixture::held(&parts).await;
    sweep(&parts, &held).await.unwrap();
    assert_eq!(status(&parts).await, tracks::Status::Uploading, "in hand");
    let busy = complete(&parts, upload).await.unwrap_err();
    assert_eq!(busy.kind(), "upload-completing");
    tokio::time::sleep(Duration::from_millis(250)).await;
    sweep(&parts, &held).await.unwrap();
    assert_eq!(status(&parts).await, tracks::Status::Queued);
    parts.store.close().await;
}

#[tokio::test]
async fn an_upload_is_given_up_twice_and_then_forgotten() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), Bucket::start().await);
    let parts = fixture::parts(folder.path(), Some(bucket.endpoint())).await;
    sent(&parts).await;
    assert!(fail(&parts, TRACK, "upload-aborted", "x").await.unwrap());
    let held = fixture::held(&parts).await;
    bucket.set_away(true);
    sweep(&parts, &held).await.unwrap();
    assert!(
        !uploads::get(&parts.store, TRACK).await.unwrap().unwrap().is_given_up(),
        "a store that is away was not told"
    );
    bucket.set_away(false);
    for is_left in [true, false] {
        let mut tx = parts.store.begin().await.unwrap();
        sqlx::query("UPDATE uploads SET held_ms = 0").execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        sweep(&parts, &held).await.unwrap();
        assert_eq!((uploads::get(&parts.store, TRACK).await.unwrap().is_some(), bucket.parts()), (is_left, 0));
    }
    parts.store.close().await;
}
