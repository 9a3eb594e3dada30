//! The memory tier: objects by key, bounded in bytes.
//!
//! Invariants: the weight of all entries, with the files of hot bodies, stays under the configured bytes; an object is whole and verified before it
//! comes here. Admission is S3-FIFO-like (`quick_cache`): a scan of cold tracks does not flush the hot ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use quick_cache::{OptionsBuilder, Weighter};

use super::{Key, KeyRef, MemFile, MemFiles, Object, Variants};
use crate::config::CacheConfig;

/// Keys that are known not to be for the cache (too large, private): so many are remembered.
const PASSES_MAX: usize = 8192;
/// For how long: an object may become one for the cache.
const PASSES_FOR: Duration = Duration::from_secs(60);
/// How long an object that could not be renewed is served without asking again, where it may be served at all.
const RENEWAL_REST: Duration = Duration::from_secs(3);
/// The share of the tier for what was asked for more than once.
const HOT_SHARE: f64 = 0.9;
/// An expected size, to size the tables; segments of 6 s at 128 kbit/s are 96 KB.
const TYPICAL_OBJECT: u64 = 48 * 1024;

/// What is known of a key.
#[derive(Clone)]
pub(crate) enum Stored {
    Object(Arc<Object>),
    /// The origin said that there is no such object.
    Missing {
        until: Instant,
    },
    /// The URL has variants, each under a key of its own.
    Varies(Arc<Variants>),
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Stored> for ByBytes {
    fn weight(&self, key: &Key, stored: &Stored) -> u64 {
        key.weight()
            + match stored {
                Stored::Object(object) => object.weight(),
                Stored::Missing { .. } => 64,
                Stored::Varies(variants) => variants.weight(),
            }
    }
}

/// See the module.
pub(crate) struct Memory {
    objects: Cache<Key, Stored, ByBytes>,
    files: MemFiles,
    passes: Cache<Key, Instant>,
    unrenewed: Cache<Key, Instant>,
}

impl Memory {
    /// # Errors
    /// Where the bounds make no cache.
    pub(crate) fn new(config: &CacheConfig) -> Result<Self, String> {
        let files = MemFiles::new(config.memory);
        let objects = config.memory - files.bytes();
        // An entry larger than a shard's share would not be kept: few shards where objects are large.
        let largest = config.max_object.saturating_mul(2).max(1);
        let shards = (objects / largest).clamp(1, 16);
        let options = OptionsBuilder::new()
            .weight_capacity(objects)
            .estimated_items_capacity(usize::try_from(objects / TYPICAL_OBJECT).unwrap_or(usize::MAX).max(64))
            .shards(usize::try_from(shards).unwrap_or(1))
            // The rest is where newcomers prove themselves: it must have room for some segments in each shard.
            .hot_allocation(HOT_SHARE)
            .build()
            .map_err(|error| format!("the cache cannot be built from its bounds: {error:?}"))?;
        let hasher = quick_cache::DefaultHashBuilder::default();
        let lifecycle = quick_cache::sync::DefaultLifecycle::default();
        let objects = Cache::with_options(options, ByBytes, hasher, lifecycle);
        Ok(Self { objects, files, passes: Cache::new(PASSES_MAX), unrenewed: Cache::new(PASSES_MAX) })
    }

    pub(crate) fn get(&self, key: KeyRef<'_>) -> Option<Stored> {
        self.objects.get(&key)
    }

    pub(crate) fn put(&self, key: Key, stored: Stored) {
        self.objects.insert(key, stored);
    }

    /// Forgets what is under `key`, and every variant of it.
    pub(crate) fn forget(&self, key: &Key) {
        if let Some((_, Stored::Varies(variants))) = self.objects.remove(key) {
            for variant in variants.keys() {
                self.objects.remove(&variant);
            }
        }
    }

    /// Remembers that `key` is not for the cache.
    pub(crate) fn pass(&self, key: Key) {
        self.passes.insert(key, Instant::now() + PASSES_FOR);
    }

    /// The key is one for the cache after all.
    pub(crate) fn pass_no_more(&self, key: &Key) {
        self.passes.remove(key);
    }

    pub(crate) fn passes(&self, key: &Key) -> bool {
        self.passes.get(key).is_some_and(|until| Instant::now() < until)
    }

    /// Remembers that the object of `key` could not be renewed just now.
    pub(crate) fn not_renewed(&self, key: Key) {
        self.unrenewed.insert(key, Instant::now() + RENEWAL_REST);
    }

    /// Whether the object of `key` should be asked for again only later.
    pub(crate) fn rests(&self, key: &Key) -> bool {
        self.unrenewed.get(key).is_some_and(|until| Instant::now() < until)
    }

    /// The body of a hit as a file, where it has one.
    pub(crate) fn file(&self, object: &Object) -> Option<Arc<MemFile>> {
        self.files.of(object)
    }

    /// Files of hot bodies: how many, their bytes, and how often one could not be made.
    pub(crate) fn files(&self) -> (usize, u64, u64) {
        self.files.usage()
    }

    /// Bytes and entries.
    pub(crate) fn usage(&self) -> (u64, usize) {
        (self.objects.weight(), self.objects.len())
    }
}
