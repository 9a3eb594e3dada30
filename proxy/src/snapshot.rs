//! What a request decides by: keyring, revocations, purge generations, policies; one immutable value. Limit classes come the
//! same way and go on to the limiter, which keeps what their keys have spent.
//!
//! Invariants: a request takes one `Arc<Snapshot>` at its start and uses it to its end, so that every hot change is
//! a swap and a request in flight ends on what it began with. Purge generations only rise.
//!
//! On failure: a document that cannot be used (a broken key) is refused whole, logged and counted, and the last good
//! snapshot goes on serving. `control/kept.rs` keeps on disk what [`Snapshots::publish`], the one way in, took.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::lock::Mutex;
use arc_swap::ArcSwap;
use segue_signing::limits::LimitsConfig;
use segue_signing::{Key, KeyDoc, Keyring, Revocations, SnapshotDoc, SnapshotError, WrappingKeys};

use crate::config::Reloadable;
use crate::limit::Limiter;
use crate::policy::Policies;

/// Tracks that may be purged here beside those that the control plane purges. An entry takes some 100 bytes; the
/// generation of a track must be kept for as long as older bytes of it may lie in the cache.
const LOCAL_PURGES_MAX: usize = 100_000;

/// One immutable state of the world. Its parts are shared, so that a change of one does not copy the others.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// The document's revision; 0 before the first.
    pub(crate) revision: u64,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) revocations: Arc<Revocations>,
    /// What content keys are unwrapped with.
    pub(crate) wrapping: Arc<WrappingKeys>,
    /// Clock difference that is forgiven, in seconds.
    pub(crate) leeway: i64,
    pub(crate) policies: Arc<Policies>,
    purges: Arc<HashMap<String, u64>>,
}

impl Snapshot {
    /// The same with another keyring, for who must not count.
    pub(crate) fn with_keyring(&self, keyring: Keyring) -> Self {
        Self { keyring: Arc::new(keyring), ..self.clone() }
    }

    /// The purge generation of a track: milliseconds since the epoch, 0 where it was never purged.
    pub(crate) fn generation(&self, track: &str) -> u64 {
        if self.purges.is_empty() { 0 } else { self.purges.get(track).copied().unwrap_or(0) }
    }
}

/// The current snapshot, and what it is made of.
pub(crate) struct Snapshots {
    current: ArcSwap<Snapshot>,
    /// Writers take turns; readers never wait.
    source: Mutex<Source>,
    limiter: Arc<Limiter>,
}

struct Source {
    /// What the edge's own file says.
    file: Reloadable,
    document: Arc<SnapshotDoc>,
    local_purges: BTreeMap<String, u64>,
}

/// Too many tracks were purged on this edge alone.
#[derive(Debug, thiserror::Error)]
#[error(
    "more than {LOCAL_PURGES_MAX} tracks were purged on this edge; restart it with an empty cache (memory, and `[cache] dir`)"
)]
pub(crate) struct TooManyPurges;

impl Snapshots {
    /// `limiter` has no classes yet, or other ones.
    ///
    /// # Errors
    /// Where the keys make no keyring, or a limit class breaks the rules.
    pub(crate) fn new(
        file: Reloadable,
        document: Arc<SnapshotDoc>,
        limiter: Arc<Limiter>,
    ) -> Result<Self, SnapshotError> {
        let source = Source { file, document, local_purges: BTreeMap::new() };
        let first = Keyring::new(source.keys()?)?;
        limiter.replace(&source.limits()?);
        let current = ArcSwap::from_pointee(source.build(first, HashMap::new(), Arc::default())?);
        Ok(Self { current, source: Mutex::new(source), limiter })
    }

    /// The state that a request which starts now ends on.
    pub(crate) fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Replaces the document.
    ///
    /// # Errors
    /// Where it cannot be used; the current snapshot stays.
    pub(crate) fn publish(&self, document: Arc<SnapshotDoc>) -> Result<(), SnapshotError> {
        let mut source = self.source.lock();
        let previous = std::mem::replace(&mut source.document, document);
        match self.rebuild(&source) {
            Ok(()) => Ok(()),
            Err(error) => {
                source.document = previous;
                Err(error)
            }
        }
    }

    /// Replaces the policies: whoever gets them ready does so apart from everything else that a snapshot holds. Costs a few counters.
    pub(crate) fn arrange(&self, policies: Arc<Policies>) {
        // Writers take turns, so that this one does not undo another.
        let _turn = self.source.lock();
        let current = self.current.load_full();
        self.current.store(Arc::new(Snapshot { policies, ..(*current).clone() }));
    }

    /// Replaces what the edge's own file says.
    ///
    /// # Errors
    /// Where it cannot be used; the current snapshot stays.
    pub(crate) fn reload(&self, file: Reloadable) -> Result<(), SnapshotError> {
        let mut source = self.source.lock();
        let previous = std::mem::replace(&mut source.file, file);
        match self.rebuild(&source) {
            Ok(()) => Ok(()),
            Err(error) => {
                source.file = previous;
                Err(error)
            }
        }
    }

    /// Raises the generation of a track on this edge; gives the new one.
    ///
    /// # Errors
    /// [`TooManyPurges`].
    pub(crate) fn purge(&self, track: &str) -> Result<u64, TooManyPurges> {
        let mut source = self.source.lock();
        let known = source.local_purges.get(track).copied();
        if known.is_none() && source.local_purges.len() >= LOCAL_PURGES_MAX {
            return Err(TooManyPurges);
        }
        let generation = unix_ms().max(self.current.load().generation(track) + 1);
        source.local_purges.insert(track.to_owned(), generation);
        if let Err(error) = self.rebuild(&source) {
            // The same keys made the current keyring.
            tracing::error!(%error, "the snapshot could not be rebuilt after a purge");
        }
        Ok(generation)
    }

    /// Takes over the purges that an earlier process was asked for here.
    ///
    /// # Errors
    /// Those of the first snapshot, which was built from the same.
    pub(crate) fn restore(&self, purges: &BTreeMap<String, u64>) -> Result<(), SnapshotError> {
        let mut source = self.source.lock();
        source.local_purges.extend(purges.iter().map(|(track, generation)| (track.clone(), *generation)));
        self.rebuild(&source)
    }

    fn rebuild(&self, source: &Source) -> Result<(), SnapshotError> {
        let current = self.current.load();
        let keyring = current.keyring.successor(source.keys()?)?;
        let limits = source.limits()?;
        let policies = Arc::clone(&current.policies);
        self.current.store(Arc::new(source.build(keyring, (*current.purges).clone(), policies)?));
        self.limiter.replace(&limits);
        Ok(())
    }
}

impl Source {
    /// The control plane's keys, and the file's where it names none of the same id.
    fn keys(&self) -> Result<Vec<Key>, SnapshotError> {
        let mut keys = self.document.keys.iter().map(KeyDoc::key).collect::<Result<Vec<_>, _>>()?;
        for own in &self.file.keys {
            if !keys.iter().any(|key| key.kid == own.kid) {
                keys.push(own.clone());
            }
        }
        Ok(keys)
    }

    /// The control plane's classes, and the file's where it names none of the same name.
    fn limits(&self) -> Result<LimitsConfig, SnapshotError> {
        let problems = self.document.limits.problems();
        if !problems.is_empty() {
            return Err(SnapshotError::Limits(problems.join("; ")));
        }
        Ok(self.document.limits.over(&self.file.limits))
    }

    /// `purges` are those of the current snapshot: a document that names an older generation of a track, or none, must
    /// not make the bytes reachable again that were purged since.
    fn build(
        &self,
        keyring: Keyring,
        mut purges: HashMap<String, u64>,
        policies: Arc<Policies>,
    ) -> Result<Snapshot, SnapshotError> {
        for (track, generation) in self.document.purges.iter().chain(&self.local_purges) {
            let known = purges.entry(track.clone()).or_default();
            *known = (*known).max(*generation);
        }
        let listed = self.document.revocations.iter().chain(&self.file.revocations);
        let revocations = Revocations::new(listed.cloned())?;
        let leeway = i64::try_from(self.file.leeway.as_secs()).unwrap_or(i64::MAX);
        let (keyring, revocations, purges) = (Arc::new(keyring), Arc::new(revocations), Arc::new(purges));
        let wrapping = Arc::clone(&self.file.wrapping);
        Ok(Snapshot { revision: self.document.revision, keyring, revocations, wrapping, leeway, policies, purges })
    }
}

/// Milliseconds since the epoch; 0 on a machine whose clock stands before 1970.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Seconds since the epoch, as tickets count.
pub(crate) fn unix_s() -> i64 {
    i64::try_from(unix_ms() / 1000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use segue_signing::limits::{LimitConfig, Per};

    use super::*;
    use crate::limit::Verdict;

    #[test]
    fn purge_generations_only_rise() {
        let limiter = Limiter::embedded(&LimitsConfig::default());
        let snapshots = Snapshots::new(Reloadable::default(), Arc::default(), limiter).unwrap();
        let publish = |purges: &[(&str, u64)]| {
            let purges = purges.iter().map(|(track, generation)| ((*track).to_owned(), *generation)).collect();
            snapshots.publish(Arc::new(SnapshotDoc { purges, ..SnapshotDoc::default() })).unwrap();
        };
        publish(&[("a", 7), ("b", 7)]);
        publish(&[("a", 5)]);
        let current = snapshots.current();
        assert_eq!((current.generation("a"), current.generation("b")), (7, 7));
        publish(&[("a", 9)]);
        assert_eq!(snapshots.current().generation("a"), 9);
    }

    #[test]
    fn a_change_of_classes_keeps_what_was_spent_and_a_wrong_one_changes_nothing() {
        let class = |burst| LimitConfig::new(0.001, burst, Per::Track);
        let classes =
            |burst| LimitsConfig { classes: BTreeMap::from([("a".to_owned(), class(burst))]), ..Default::default() };
        let limiter = Limiter::embedded(&LimitsConfig::default());
        let file = Reloadable { limits: classes(2), ..Reloadable::default() };
        let snapshots = Snapshots::new(file, Arc::default(), Arc::clone(&limiter)).unwrap();
        let passes = |count| (0..9).filter(|_| matches!(limiter.check("a", b"x"), Verdict::Admitted)).count() == count;
        assert!(passes(2), "the file's class");
        let publish = |limits| snapshots.publish(Arc::new(SnapshotDoc { limits, ..SnapshotDoc::default() }));
        publish(classes(5)).unwrap();
        assert!(passes(3), "the document's class goes over it; two tokens of five are spent");
        assert!(matches!(publish(classes(0)), Err(SnapshotError::Limits(_))));
        assert!(passes(0), "the last good one stays");
        publish(LimitsConfig::default()).unwrap();
        snapshots.reload(Reloadable::default()).unwrap();
        assert!(passes(9), "there is no class any more");
    }
}
