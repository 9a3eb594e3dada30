//! Uploads in parts: begun, looked at, completed, given up.
//!
//! The bytes go to the store, each part by a presigned PUT of exactly its length, in any order, side by side, and again after a break. What the
//! store lists is the truth about parts; our table keeps it, beside the tags that the publisher was given.
//!
//! Invariants: an upload becomes an object only when every part is there with its size, and with the tag that was given for it; the object's
//! key is this upload's alone, so that whoever finds an object under it knows that the upload was completed, whoever did it and whatever
//! became of the answer. The job is queued in the transaction that forgets the upload.
//!
//! On failure: a completion that was begun is gone on with by the sweep, after a crash as after a store that was away; an upload whose track no longer
//! waits for it is given up in the bucket, twice, since a part may arrive after the first time; what the bucket has and no table knows goes
//! once it is old.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;

use crate::api::uploads::enqueue;
use crate::clock;
use crate::config::UploadsConfig;
use crate::error::ApiError;
use crate::objects::{self, Answer, COMPLETE_TIMEOUT, Listed, Orphan, PartPlace, Presigned};
use crate::state::{Parts, Shared};
use crate::store::leases::Held;
use crate::store::tracks::{self, NewTrack};
use crate::store::uploads::{self, PARTS_MAX, Part, UploadRow};
use crate::store::{StoreError, removals, transaction};
use crate::sweeper;

/// URLs that one answer has: some 40 KB.
pub(crate) const URLS_MAX: usize = 64;

/// Numbers that one refusal names.
const NAMED_MAX: usize = 8;

/// Rows that one step of the sweep takes.
const BATCH: u32 = 100;

/// Completions that the sweep carries out side by side.
const SIDE_BY_SIDE: usize = 4;

/// How long a completion is in hand: longer than the store may take, so that two are never under way at once.
const IN_HAND_MS: i64 = 360_000;

/// Pause after a completion that failed; doubled up to [`PAUSE_MAX_MS`].
const PAUSE_MS: i64 = 1_000;

/// Longest pause between two tries.
const PAUSE_MAX_MS: i64 = 60_000;

/// Between the two times that the store is told to forget an upload.
const GIVE_UP_AGAIN_MS: i64 = 60_000;

/// Pages of the bucket's unfinished uploads that one look reads.
const PAGES_MAX: usize = 100;

/// Whether a file of this size travels in parts, where the publisher names no way.
pub(crate) fn in_parts(config: &UploadsConfig, bytes: u64) -> bool {
    bytes > config.multipart_above
}

/// Bytes of a part: as configured, or as many more whole MiB as it takes to stay within the number of parts.
fn part_bytes(config: &UploadsConfig, bytes: u64) -> u64 {
    const MIB: u64 = 1 << 20;
    config.part_size.max(bytes.div_ceil(PARTS_MAX).div_ceil(MIB) * MIB)
}

/// Begins an upload in the store. Its row is the caller's to insert; where that fails, [`forget`] is.
pub(crate) async fn begin(parts: &Parts, new: &NewTrack<'_>, fingerprint: Option<&str>) -> Result<UploadRow, ApiError> {
    let size = part_bytes(&parts.uploads, new.bytes);
    let mut row = UploadRow::new(new.id, new.upload_key, (new.bytes, size), fingerprint, clock::now_ms());
    row.upload_id = parts.objects.begin_parts(new.upload_key, new.content_type).await?;
    Ok(row)
}

/// Gives up what [`begin`] began and nobody knows. Where this fails, the look for orphans finds it.
pub(crate) async fn forget(parts: &Parts, upload: &UploadRow) {
    if let Err(error) = parts.objects.abort_parts(&upload.object_key, &upload.upload_id).await {
        tracing::warn!(track.id = upload.track, %error, "an upload that was not begun remains in the bucket for now");
    }
}

/// A signed PUT of one part. Errors: there is no such part.
pub(crate) async fn presign(
    parts: &Parts,
    upload: &UploadRow,
    number: u32,
    md5: Option<&str>,
) -> Result<(Presigned, u64), ApiError> {
    let bytes = upload.bytes_of(number).ok_or_else(|| no_such_part(upload, number))?;
    let place = PartPlace { key: &upload.object_key, upload_id: &upload.upload_id, number, bytes, md5 };
    Ok((parts.objects.presign_part(place, parts.uploads.url_ttl).await?, bytes))
}

/// The refusal of a number that is none.
pub(crate) fn no_such_part(upload: &UploadRow, number: u32) -> ApiError {
    ApiError::invalid(format!("there is no part {number}: this upload has the parts 1 to {}", upload.parts()))
}

/// A digest in base64, as S3's headers have it, of one in hex that was checked.
pub(crate) fn base64_of_hex(hex: &str) -> String {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0);
    let bytes: Vec<u8> =
        hex.as_bytes().chunks(2).map(|pair| pair.iter().fold(0u8, |byte, part| (byte << 4) | digit(*part))).collect();
    STANDARD.encode(bytes)
}

/// Whether a text is the base64 of an MD5.
pub(crate) fn is_md5(text: &str) -> bool {
    STANDARD.decode(text).is_ok_and(|digest| digest.len() == 16)
}

/// Asks the store what is there, and keeps it. Answers every part that anything is known of.
pub(crate) async fn look(parts: &Parts, upload: &UploadRow) -> Result<Vec<Part>, ApiError> {
    let listed = parts.objects.list_parts(&upload.object_key, &upload.upload_id).await?;
    let known = uploads::parts(&parts.store, &upload.track).await?;
    let (now, changed) = merge(upload, known, &listed);
    if !changed.is_empty() {
        transaction!(parts.store, |tx| {
            for part in &changed {
                uploads::listed(tx, &upload.track, part).await?;
            }
            Ok::<(), StoreError>(())
        })?;
    }
    Ok(now)
}

/// What is known after a listing, and which rows of it are news.
fn merge(upload: &UploadRow, known: Vec<Part>, listed: &[Listed]) -> (Vec<Part>, Vec<Part>) {
    let mut all: std::collections::BTreeMap<u32, Part> = known.iter().map(|part| (part.number, part.clone())).collect();
    for part in all.values_mut() {
        (part.bytes, part.etag) = (None, None);
    }
    for part in listed.iter().filter(|part| upload.bytes_of(part.number).is_some()) {
        let row = all.entry(part.number).or_insert_with(|| Part { number: part.number, ..Part::default() });
        (row.bytes, row.etag) = (Some(part.bytes), part.etag.clone());
    }
    let before: std::collections::BTreeMap<u32, Part> = known.into_iter().map(|part| (part.number, part)).collect();
    let changed = all.values().filter(|part| before.get(&part.number) != Some(part)).cloned().collect();
    (all.into_values().collect(), changed)
}

/// Whether a part need not be sent again: its size is right, and so is its tag as far as both sides know one.
pub(crate) fn is_there(upload: &UploadRow, part: &Part) -> bool {
    part.bytes.is_some() && part.bytes == upload.bytes_of(part.number) && !differs(part)
}

fn differs(part: &Part) -> bool {
    let plain = |tag: &str| tag.trim_matches('"').to_ascii_lowercase();
    matches!((&part.said, &part.etag), (Some(said), Some(etag)) if plain(said) != plain(etag))
}

/// What the store is to put together, in order; or what is wrong with the parts, in words.
fn chosen(upload: &UploadRow, parts: &[Part]) -> Result<Vec<(u32, Option<String>)>, ApiError> {
    let other: Vec<u32> =
        parts.iter().filter(|part| part.bytes.is_some() && differs(part)).map(|part| part.number).collect();
    if !other.is_empty() {
        let message = format!("the store has other bytes than you were told of {}: send them again", named(&other));
        return Err(ApiError::conflict("part-mismatch", message));
    }
    let there: std::collections::BTreeMap<u32, &Part> =
        parts.iter().filter(|part| is_there(upload, part)).map(|part| (part.number, part)).collect();
    let missing: Vec<u32> = (1..=upload.parts()).filter(|number| !there.contains_key(number)).collect();
    if !missing.is_empty() {
        let message = format!("{} not there, or of a wrong size: ask for their URLs and send them", are(&missing));
        return Err(ApiError::conflict("parts-missing", message));
    }
    Ok(there.values().map(|part| (part.number, part.etag.clone().or_else(|| part.said.clone()))).collect())
}

fn named(numbers: &[u32]) -> String {
    let first: Vec<String> = numbers.iter().take(NAMED_MAX).map(u32::to_string).collect();
    let more = numbers.len().saturating_sub(NAMED_MAX);
    let word = if numbers.len() == 1 { "part" } else { "parts" };
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{word} {}{rest}", first.join(", "))
}

fn are(numbers: &[u32]) -> String {
    format!("{} {}", named(numbers), if numbers.len() == 1 { "is" } else { "are" })
}

/// Makes the parts one object and queues the job. The work goes on where the caller is dropped; asked again, it is answered the same.
pub(crate) async fn complete(parts: &Shared, upload: UploadRow) -> Result<(), ApiError> {
    let shared = Shared::clone(parts);
    let work = parts.tasks.spawn(async move { carry_out(&shared, &upload).await });
    work.await.map_err(|error| ApiError::Internal(format!("the completion of an upload broke: {error}")))?
}

async fn carry_out(parts: &Parts, upload: &UploadRow) -> Result<(), ApiError> {
    if finish(parts, upload).await? {
        return Ok(());
    }
    let now = clock::now_ms();
    if !transaction!(parts.store, |tx| uploads::hold(tx, &upload.track, now + IN_HAND_MS, now).await)? {
        if uploads::get(&parts.store, &upload.track).await?.is_none() {
            return Ok(());
        }
        let message = "the store is putting the parts together; ask again in a moment".to_owned();
        return Err(ApiError::Busy { word: "upload-completing", message });
    }
    let ended = put_together(parts, upload).await;
    if let Err(error) = &ended {
        // What the publisher must mend waits for the publisher; what may pass is tried again by the sweep.
        let is_theirs = matches!(error, ApiError::Conflict { .. });
        let pause = (PAUSE_MS << upload.tries.clamp(0, 10)).min(PAUSE_MAX_MS);
        let again = (!is_theirs).then(|| clock::now_ms() + pause);
        transaction!(parts.store, |tx| uploads::let_go(tx, &upload.track, again).await)?;
    }
    ended
}

async fn put_together(parts: &Parts, upload: &UploadRow) -> Result<(), ApiError> {
    let chosen = chosen(upload, &look(parts, upload).await?)?;
    let answer = parts.objects.complete_parts(&upload.object_key, &upload.upload_id, &chosen).await;
    // Whatever was said: an answer may be lost, and a repeated call refused.
    if finish(parts, upload).await? {
        return Ok(());
    }
    match answer? {
        Answer::Done => Err(ApiError::Internal("the store completed an upload, and no object is there".to_owned())),
        Answer::Refused(code) => {
            tracing::warn!(track.id = upload.track, code, "the store refuses to complete an upload");
            let message = format!(
                "the store did not put the parts together ({code}): look at the upload, and send what is missing or begin again"
            );
            Err(ApiError::conflict("upload-refused", message))
        }
    }
}

/// Where the object is there, the upload is over: its job is queued. `false`: it is not there.
async fn finish(parts: &Parts, upload: &UploadRow) -> Result<bool, ApiError> {
    let Some(found) = parts.objects.head(&upload.object_key).await? else { return Ok(false) };
    if found.bytes == upload.bytes() {
        enqueue(parts, &upload.track).await?;
        return Ok(true);
    }
    // Every part had its size: the store is to blame, and only another upload mends it.
    let message = format!(
        "The store made {} bytes of parts of {}. Delete the track and add it again.",
        found.bytes,
        upload.bytes()
    );
    fail(parts, &upload.track, "size-mismatch", &message).await?;
    Err(ApiError::conflict("size-mismatch", message))
}

/// Fails a track that waits for its upload, and sees to it that nothing of the upload stays. `false`: it does not wait (any more).
pub(crate) async fn fail(parts: &Parts, track: &str, reason: &str, message: &str) -> Result<bool, ApiError> {
    let now = clock::now_ms();
    let failed = transaction!(parts.store, |tx| {
        let failed = tracks::fail_upload(tx, track, reason, message, now).await?;
        if failed {
            removals::note(tx, &objects::upload_prefix(track), now, sweeper::last_write(parts, now)).await?;
        }
        Ok::<bool, StoreError>(failed)
    })?;
    if failed {
        parts.tell_track(track).await;
    }
    Ok(failed)
}

/// A step of the sweep: goes on with completions that were asked for, and gives up uploads that are over.
pub(crate) async fn sweep(parts: &Shared, held: &Held) -> Result<(), ApiError> {
    let asked = uploads::asked(&parts.store, BATCH).await?;
    let carried = futures::stream::iter(asked).map(|upload| gone_on_with(parts, upload)).buffer_unordered(SIDE_BY_SIDE);
    let results: Vec<Result<(), ApiError>> = carried.collect().await;
    let given_up = give_up(parts, held).await;
    results.into_iter().collect::<Result<Vec<()>, ApiError>>()?;
    given_up
}

async fn gone_on_with(parts: &Shared, upload: UploadRow) -> Result<(), ApiError> {
    if finish(parts, &upload).await? || !uploads::is_due(&parts.store, &upload.track, clock::now_ms()).await? {
        return Ok(());
    }
    match complete(parts, upload).await {
        // Theirs to mend, or in the hands of somebody else.
        Err(ApiError::Conflict { .. } | ApiError::Busy { .. }) => Ok(()),
        ended => ended,
    }
}

async fn give_up(parts: &Parts, held: &Held) -> Result<(), ApiError> {
    for upload in uploads::over(&parts.store, clock::now_ms(), BATCH).await? {
        transaction!(parts.store, |tx| held.check(tx).await)?;
        let answer = parts.objects.abort_parts(&upload.object_key, &upload.upload_id).await;
        match &answer {
            Err(error) => {
                tracing::warn!(track.id = upload.track, %error, "an upload cannot be given up yet; it is tried again");
            }
            Ok(Answer::Refused(code)) if !upload.is_given_up() => {
                tracing::debug!(track.id = upload.track, code, "the store does not know an upload that is given up");
            }
            Ok(_) => {}
        }
        let is_last = answer.is_ok() && upload.is_given_up();
        let at = clock::now_ms() + GIVE_UP_AGAIN_MS;
        transaction!(parts.store, |tx| {
            held.check(tx).await?;
            if is_last {
                uploads::remove(tx, &upload.track).await
            } else {
                uploads::give_up_again(tx, &upload.track, answer.is_ok(), at).await
            }
        })?;
    }
    Ok(())
}

/// How often the bucket is looked at for uploads that nobody knows.
pub(crate) fn orphans_every(config: &UploadsConfig) -> Duration {
    config.ttl.clamp(Duration::from_secs(1), Duration::from_secs(3600))
}

/// Gives up what stands in the bucket, is of our prefix, is older than two lives of an upload, and is in no table: a process died between the
/// store's answer and the row, or the database is older than the bucket.
pub(crate) async fn orphans(parts: &Parts, held: &Held) -> Result<u64, ApiError> {
    let age = i64::try_from(parts.uploads.ttl.as_millis()).unwrap_or(i64::MAX / 4).saturating_mul(2);
    let before = clock::now_ms().saturating_sub(age);
    let (mut last, mut given_up): (Option<Orphan>, u64) = (None, 0);
    for _ in 0..PAGES_MAX {
        let Some((page, more)) = parts.objects.unfinished(last.as_ref()).await? else { return Ok(0) };
        for orphan in page.iter().filter(|orphan| orphan.begun_ms < before) {
            let Some(track) = objects::track_of_upload(&orphan.key) else { continue };
            if uploads::is_known(&parts.store, track, &orphan.upload_id).await? {
                continue;
            }
            transaction!(parts.store, |tx| held.check(tx).await)?;
            parts.objects.abort_parts(&orphan.key, &orphan.upload_id).await?;
            given_up += 1;
        }
        last = page.into_iter().next_back();
        if !more || last.is_none() {
            break;
        }
    }
    if given_up > 0 {
        tracing::info!(given_up, "uploads that nobody knew were given up in the bucket");
    }
    Ok(given_up)
}

const _: () =
    assert!(COMPLETE_TIMEOUT.as_millis() < IN_HAND_MS as u128, "a completion in hand must outlast the store's answer");

#[cfg(test)]
#[path = "multipart/tests.rs"]
mod tests;
