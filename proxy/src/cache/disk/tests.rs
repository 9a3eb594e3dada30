//! The tier as a whole, without HTTP: what it keeps, what it refuses, what it survives, and who stays in it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::os::unix::fs::{FileExt, MetadataExt};

use bytes::Bytes;
use http::HeaderValue;

use super::*;
use crate::cache::{Memory, Meta, Stored};

const MIB: u64 = 1 << 20;
/// Larger than what is read whole.
const LARGE: usize = 700_000;

fn config(dir: &Path, disk: u64) -> CacheConfig {
    CacheConfig { dir: Some(dir.to_owned()), disk, max_object: MIB, memory: 64 * MIB, ..CacheConfig::default() }
}

async fn open(dir: &Path, disk: u64) -> Arc<Disk> {
    Disk::open(&config(dir, disk), vec![7], TaskTracker::new()).await.unwrap().unwrap()
}

fn key(name: &str) -> Key {
    Key::new(0, 0, name, None)
}

/// Bytes that tell whose they are.
fn body(name: &str, length: usize) -> Vec<u8> {
    let mut state = record::checksum(1, name.as_bytes()) | 1;
    let word = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&word(&mut state));
    }
    bytes.truncate(length);
    bytes
}

fn object(name: &str, length: usize, fresh_for: u64) -> Arc<Object> {
    let meta = Meta {
        length: Some(length as u64),
        etag: HeaderValue::from_str(&format!("\"{name}\"")).ok(),
        last_modified: None,
        content_type: HeaderValue::from_static("audio/mp4"),
        content_encoding: None,
        cache_control: HeaderValue::from_static("private"),
        fresh_for: Duration::from_secs(fresh_for),
        initial_age: Duration::from_secs(11),
        http: None,
        whole_only: false,
    };
    Arc::new(Object::new(meta, Bytes::from(body(name, length)), Instant::now()))
}

/// Waits until the writer has done what it was asked for.
async fn written(disk: &Disk) {
    for _ in 0..6000 {
        if disk.store.index.lock().pending.is_empty() && disk.store.queued_bytes.load(Ordering::Relaxed) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the writer did not come to an end");
}

async fn put(disk: &Disk, name: &str, length: usize) {
    disk.offer(&key(name), &object(name, length, 600));
    written(disk).await;
}

/// The bytes under `name`, in whatever way they come.
async fn get(disk: &Arc<Disk>, name: &str) -> Option<Vec<u8>> {
    match disk.find(&key(name)).await? {
        Entry::Whole(recalled) => Some(recalled.object.body.to_vec()),
        Entry::Parts(large) => {
            let length = large.length();
            let mut parts = large.parts(0, length);
            let mut all = Vec::new();
            while let Some((part, _)) = parts.next().await.ok()? {
                all.extend_from_slice(&part);
            }
            Some(all)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_every_size_are_there_after_a_restart_with_what_is_known_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [0, 1, 1023, 1024, 65_535, 65_536, 65_537, 262_144, 262_145, LARGE, MIB as usize];
    let disk = open(dir.path(), 64 * MIB).await;
    for size in sizes {
        put(&disk, &format!("o{size}"), size).await;
    }
    disk.close().await;
    let disk = open(dir.path(), 64 * MIB).await;
    for size in sizes {
        let name = format!("o{size}");
        assert_eq!(get(&disk, &name).await.unwrap(), body(&name, size), "{name}");
    }
    let Some(recalled) = disk.at_hand(key("o65537").borrowed()) else { panic!("it is in the kernel's memory") };
    assert_eq!(recalled.object.meta.etag.as_ref().unwrap(), "\"o65537\"");
    assert!(recalled.object.is_fresh(Instant::now()) && recalled.object.age(Instant::now()) >= 11);
    assert!(disk.at_hand(key("other").borrowed()).is_none());
    assert!(disk.find(&Key::new(0, 1, "o1", None)).await.is_none(), "another purge generation");
    assert!(disk.find(&Key::new(0, 0, "o1", Some("q"))).await.is_none());
    disk.close().await;
    let elsewhere = Disk::open(&config(dir.path(), 64 * MIB), vec![8], TaskTracker::new()).await.unwrap().unwrap();
    assert!(elsewhere.find(&key("o1")).await.is_none(), "the route leads to another place now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_a_large_object_reads_its_chunks_alone() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path(), 64 * MIB).await;
    put(&disk, "large", LARGE).await;
    // Whatever is not in these chunks may be ruined.
    let slot = *disk.store.index.lock().slots.values().next().unwrap();
    let start = u64::from(slot.unit + u32::from(slot.head_units)) * record::UNIT;
    disk.store.volume.file().write_all_at(&[0xff; 60_000], start).unwrap();
    disk.store.volume.file().write_all_at(&[0xff; 60_000], start + 600_000).unwrap();
    for (first, length) in [(65_536, 1), (70_000, 200_000), (131_072, 262_144), (100_000, 400_000)] {
        let Some(Entry::Parts(large)) = disk.find(&key("large")).await else { panic!("in parts") };
        disk.store.index.lock().slots.values_mut().for_each(|slot| slot.hits = 0);
        let mut parts = large.parts(first, length);
        let mut all = Vec::new();
        while let Some((part, is_last)) = parts.next().await.unwrap() {
            all.extend_from_slice(&part);
            assert_eq!(is_last, all.len() as u64 == length);
        }
        let (from, to) = (first as usize, (first + length) as usize);
        assert_eq!(all, body("large", LARGE)[from..to], "{first}+{length}");
    }
    let Some(Entry::Parts(large)) = disk.find(&key("large")).await else { panic!("in parts") };
    assert_eq!(large.parts(0, 10).next().await.unwrap_err(), store::Trouble::Bad);
    assert!(disk.find(&key("large")).await.is_none(), "dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_does_not_hold_is_read_where_it_may_wait() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path(), 64 * MIB).await;
    for (name, length) in [("small", 5000), ("large", MIB as usize)] {
        put(&disk, name, length).await;
    }
    disk.store.volume.stop_peeking();
    assert!(disk.at_hand(key("small").borrowed()).is_none());
    assert_eq!(get(&disk, "small").await.unwrap(), body("small", 5000));
    let Some(Entry::Parts(large)) = disk.find(&key("large")).await else { panic!("in parts") };
    let mut parts = large.parts(3, MIB - 5);
    let mut all = Vec::new();
    while let Some((part, _)) = parts.next().await.unwrap() {
        all.extend_from_slice(&part);
    }
    assert_eq!(all, body("large", MIB as usize)[3..MIB as usize - 2]);
    // Wanted again and again, it is read whole, into memory.
    assert!(get(&disk, "large").await.is_some());
    let Some(Entry::Whole(recalled)) = disk.find(&key("large")).await else { panic!("whole") };
    assert_eq!(recalled.object.body, body("large", MIB as usize));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_changes_on_the_disk_is_a_miss_and_never_a_wrong_byte() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = open(dir.path(), 64 * MIB).await;
    let names: Vec<String> = (0..200).map(|n| format!("n{n}")).collect();
    for name in &names {
        put(&disk, name, 3000 + name.len() * 1000).await;
    }
    let (mut state, mut missed) = (88_172_645_463_325_252_u64, 0);
    for round in 0..40 {
        let slots: Vec<index::Slot> = disk.store.index.lock().slots.values().copied().collect();
        if let Some(slot) = slots.get(round % slots.len().max(1)) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = u64::from(slot.unit) * record::UNIT + (state >> 33) % (u64::from(slot.units) * record::UNIT);
            let mut byte = [0];
            let file = disk.store.volume.file();
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ (1 << (state >> 60 & 7))], at).unwrap();
        }
        if round % 10 == 9 {
            disk.close().await;
            disk = open(dir.path(), 64 * MIB).await;
        }
        for name in &names {
            match get(&disk, name).await {
                Some(bytes) => assert!(bytes == body(name, 3000 + name.len() * 1000), "{name}"),
                None => missed += 1,
            }
        }
    }
    assert!(missed > 0, "some bits matter");
    assert!(get(&disk, "n0").await.is_some() || get(&disk, "n1").await.is_some(), "and most objects are there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_forgotten_or_replaced_does_not_come_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path(), 64 * MIB).await;
    for name in ["stays", "forgotten", "replaced"] {
        put(&disk, name, 5000).await;
    }
    disk.bury(disk.forget(&key("forgotten")).into_iter().collect()).await;
    let newer = object("newer", 4000, 600);
    disk.offer(&key("replaced"), &newer);
    written(&disk).await;
    // The newer one is lost; the older is not to come back in its place.
    disk.bury(disk.forget(&key("replaced")).into_iter().collect()).await;
    // On its way when it is forgotten.
    disk.offer(&key("late"), &object("late", 5000, 600));
    disk.bury(disk.forget(&key("late")).into_iter().collect()).await;
    for _ in 0..2 {
        written(&disk).await;
        assert!(get(&disk, "forgotten").await.is_none() && get(&disk, "replaced").await.is_none());
        assert!(get(&disk, "late").await.is_none());
        disk.close().await;
        let disk = open(dir.path(), 64 * MIB).await;
        assert_eq!(get(&disk, "stays").await.unwrap(), body("stays", 5000));
        assert!(get(&disk, "forgotten").await.is_none() && get(&disk, "replaced").await.is_none());
        assert!(get(&disk, "late").await.is_none());
        disk.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_freshness_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path(), 64 * MIB).await;
    disk.offer(&key("a"), &object("a", 5000, 0));
    written(&disk).await;
    assert!(disk.at_hand(key("a").borrowed()).is_none(), "out of date");
    let before = object("a", 5000, 0);
    let renewed = Object::new(
        Meta { fresh_for: Duration::from_secs(900), ..before.meta.clone() },
        before.body.clone(),
        Instant::now(),
    );
    disk.renew(&key("a"), &Arc::new(renewed));
    written(&disk).await;
    assert_eq!((disk.store.counts.renewals.get(), disk.store.counts.writes.get()), (1, 1), "in place");
    disk.close().await;
    let disk = open(dir.path(), 64 * MIB).await;
    let Some(recalled) = disk.at_hand(key("a").borrowed()) else { panic!("fresh again") };
    assert_eq!(recalled.object.meta.fresh_for, Duration::from_secs(900));
    // Renewed under another ETag, the bytes on the disk are not proven to be these: all of it is written again.
    let other = Meta { etag: Some(HeaderValue::from_static("\"b\"")), ..before.meta.clone() };
    disk.renew(&key("a"), &Arc::new(Object::new(other, before.body.clone(), Instant::now())));
    written(&disk).await;
    assert_eq!((disk.store.counts.renewals.get(), disk.store.counts.writes.get()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_and_index_stay_within_their_bounds_under_any_load() {
    let dir = tempfile::tempdir().unwrap();
    let size = 48 * MIB;
    let disk = open(dir.path(), size).await;
    let allocated = || {
        let files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
        files.map(|file| file.blocks() * 512).sum::<u64>() + 4096
    };
    // Small ones fill the index before the disk, large ones the disk before the index, and some are written again and again.
    for round in 0..12_u32 {
        for n in 0..600_u32 {
            let (name, length) = match n % 3 {
                0 => (format!("small{round}/{n}"), 100),
                1 => (format!("large{round}/{n}"), 300_000),
                _ => (format!("again{}", n % 7), 2000),
            };
            disk.offer(&key(&name), &object(&name, length, 600));
            if n % 50 == 0 {
                written(&disk).await;
            }
        }
        written(&disk).await;
        assert!(allocated() <= size, "{} of {size} bytes", allocated());
        let usage = disk.usage();
        let bound = size / ENTRY_BYTES * INDEX_BYTES_PER_ENTRY + 8192;
        assert!(usage.memory <= bound, "{} of {bound} bytes for {} objects", usage.memory, usage.objects);
        assert!(usage.bytes <= size && usage.objects > 0);
    }
    assert!(disk.store.counts.evictions.get() > 1000);
    disk.keep_purge("t", 1).unwrap();
    assert!(allocated() <= size);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_objects_fill_the_index_and_then_replace_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path(), 40 * MIB).await;
    let bound = entries_max(40 * MIB);
    for n in 0..2 * bound {
        disk.offer(&key(&format!("s{n}")), &object("s", 10, 600));
        if n % 500 == 0 {
            written(&disk).await;
        }
    }
    written(&disk).await;
    let usage = disk.usage();
    assert!(usage.objects as usize <= bound && usage.objects as usize > bound / 2, "{} of {bound}", usage.objects);
    assert!(disk.at_hand(key(&format!("s{}", 2 * bound - 1)).borrowed()).is_some(), "the newest is in");
}

/// What part of the hot set is on the disk.
fn hot_on_disk(disk: &Disk, hot: &[String]) -> f64 {
    let there = hot.iter().filter(|name| disk.store.locate(key(name).borrowed()).is_some()).count();
    there as f64 / hot.len() as f64
}

/// A hot set of half the disk is asked for now and then while a scan of ten times the disk goes through.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_of_ten_times_the_disk_leaves_the_hot_set_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let size = 64 * MIB;
    let disk = open(dir.path(), size).await;
    let length = 100_000;
    let hot: Vec<String> = (0..(size as usize / 2 / length)).map(|n| format!("hot{n}")).collect();
    for name in &hot {
        put(&disk, name, length).await;
        // To be hot is to be asked for again.
        disk.at_hand(key(name).borrowed());
    }
    let scanned = 10 * size as usize / length;
    let (mut asked, mut hits) = (0_u32, 0_u32);
    for n in 0..scanned {
        let name = format!("cold{n}");
        disk.offer(&key(&name), &object(&name, length, 600));
        if n % 20 == 0 {
            written(&disk).await;
        }
        // One request in three is for a hot one; they go round some six times in all.
        if n % 3 == 0 {
            let name = &hot[(n / 3 * 7919) % hot.len()];
            asked += 1;
            if disk.at_hand(key(name).borrowed()).is_some() {
                hits += 1;
            } else {
                disk.offer(&key(name), &object(name, length, 600));
            }
        }
    }
    written(&disk).await;
    let (ratio, left) = (f64::from(hits) / f64::from(asked), hot_on_disk(&disk, &hot));
    println!("hot hits {ratio:.3}, hot left {left:.3}, moved {}", disk.store.counts.moved.get());
    assert!(ratio > 0.85, "hot hits {ratio:.3}");
    assert!(left > 0.90, "hot left {left:.3}");
}

/// The same for the memory tier.
#[test]
fn a_scan_of_ten_times_the_memory_leaves_the_hot_set_in_it() {
    let size = 64 * MIB;
    let memory = Memory::new(&CacheConfig { memory: size, max_object: MIB, ..CacheConfig::default() }).unwrap();
    let length = 100_000;
    let body = Bytes::from(vec![0; length]);
    let meta = object("m", 0, 600).meta.clone();
    let stored = || Stored::Object(Arc::new(Object::new(meta.clone(), body.clone(), Instant::now())));
    // Half of what is left beside the files of hot bodies, which take a quarter.
    let hot: Vec<Key> = (0..(size as usize * 3 / 8 / length)).map(|n| key(&format!("hot{n}"))).collect();
    for _ in 0..2 {
        for key in &hot {
            if memory.get(key.borrowed()).is_none() {
                memory.put(key.clone(), stored());
            }
        }
    }
    let (mut asked, mut hits) = (0_u32, 0_u32);
    for n in 0..10 * size as usize / length {
        memory.put(key(&format!("cold{n}")), stored());
        if n % 3 == 0 {
            let key = &hot[(n / 3 * 7919) % hot.len()];
            asked += 1;
            if memory.get(key.borrowed()).is_some() {
                hits += 1;
            } else {
                memory.put(key.clone(), stored());
            }
        }
    }
    let ratio = f64::from(hits) / f64::from(asked);
    println!("hot hits in memory {ratio:.3}");
    assert!(ratio > 0.90, "hot hits {ratio:.3}");
    assert!(memory.usage().0 <= size);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_memory_serves_stays_on_the_disk_too() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path(), 40 * MIB).await;
    let hot = object("hot", 100_000, 600);
    disk.offer(&key("hot"), &hot);
    written(&disk).await;
    for n in 0..1200 {
        let name = format!("cold{n}");
        disk.offer(&key(&name), &object(&name, 100_000, 600));
        if n % 20 == 0 {
            written(&disk).await;
        }
        disk.touch(key("hot").borrowed(), &hot);
    }
    written(&disk).await;
    assert!(disk.store.locate(key("hot").borrowed()).is_some() && disk.store.locate(key("cold3").borrowed()).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_answer_is_a_miss_in_time_and_a_full_queue_drops_writes() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path(), 64 * MIB).await;
    put(&disk, "a", 5000).await;
    let all = disk.reads.permits.acquire_many(reader::READS_MAX).await.unwrap();
    let begun = Instant::now();
    assert!(disk.find(&key("a")).await.is_none());
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(disk.store.counts.slow.get(), 1);
    drop(all);
    assert_eq!(get(&disk, "a").await.unwrap(), body("a", 5000), "it was slow, not bad");
    disk.store.queued_bytes.fetch_add(QUEUE_BYTES_MAX, Ordering::Relaxed);
    disk.offer(&key("b"), &object("b", 5000, 600));
    disk.store.queued_bytes.fetch_sub(QUEUE_BYTES_MAX, Ordering::Relaxed);
    written(&disk).await;
    assert_eq!(disk.store.counts.dropped_for(Dropped::Overflow), 1);
    assert!(get(&disk, "b").await.is_none());
    put(&disk, "b", 5000).await;
    assert!(get(&disk, "b").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_used_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let failed = |dir: PathBuf, disk: u64| async move {
        Disk::open(&config(&dir, disk), vec![7], TaskTracker::new()).await.err().unwrap_or_default()
    };
    let first = open(dir.path(), 64 * MIB).await;
    let said = failed(dir.path().to_owned(), 64 * MIB).await;
    assert!(said.contains("is in use by another process"), "{said}");
    first.close().await;
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let said = failed(file.join("below"), 64 * MIB).await;
    assert!(said.contains("cannot make the folder") && said.contains("may write"), "{said}");
    let said = failed(dir.path().join("small"), 4 * MIB).await;
    assert!(said.contains("too small"), "{said}");
    let said = failed(dir.path().join("large"), 1 << 41).await;
    assert!(said.contains("cannot reserve") && said.contains("lower `disk`"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_of_another_size_keeps_what_fits() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path(), 64 * MIB).await;
    put(&disk, "a", 5000).await;
    disk.close().await;
    for size in [96, 40, 64] {
        let disk = open(dir.path(), size * MIB).await;
        assert_eq!(get(&disk, "a").await.unwrap(), body("a", 5000), "{size} MiB");
        disk.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_readable_log_of_purges_nothing_is_served() {
    let dir = tempfile::tempdir().unwrap();
    for spoil in [|path: &Path| fs::remove_file(path).unwrap(), |path: &Path| fs::write(path, b"SEGUEPRG").unwrap()] {
        let disk = open(dir.path(), 64 * MIB).await;
        disk.keep_purge("track", 5).unwrap();
        put(&disk, "a", 5000).await;
        disk.close().await;
        let disk = open(dir.path(), 64 * MIB).await;
        assert_eq!(disk.purged().get("track"), Some(&5));
        assert!(get(&disk, "a").await.is_some());
        disk.close().await;
        spoil(&dir.path().join("purges"));
        let disk = open(dir.path(), 64 * MIB).await;
        assert!(get(&disk, "a").await.is_none() && disk.purged().is_empty());
        disk.close().await;
    }
}
