//! What an edge has for its policies beside those in the snapshot: where they come from, who makes them, what is counted; and the one place from which
//! they are put into force.
//!
//! Invariants: policies reach requests through `Snapshots::arrange` alone, from under the lock of the parts, so that an arrangement never
//! takes the place of a later one. Lock order: shelf, parts, the snapshots' source. No lock is held over an await.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use segue_policy_host::{Chain, HostConfig, Policy, Problem, Services, TicketScheme};
use segue_signing::{PolicyDoc, PolicyStanding};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Policies;
use super::folder::Watched;
use super::maker::{Bench, Maker};
use super::shelf::{Arrangement, Made, Shelf, Use};
use super::store::{Record, Store};
use super::supply::{self, Source, SupplyError};
use super::tally::Tallies;
use crate::client::Countries;
use crate::config::{EdgeConfig, PolicyServices};
use crate::control::Client;
use crate::edge::Shared;
use crate::lock::Mutex;
use crate::metrics::{Family, escaped};
use crate::snapshot::Snapshots;

/// How often the folder and the country file are looked at: some calls of `stat`, and a change is in force within a second or two.
const LOOK: Duration = Duration::from_secs(1);

/// What the policies of a snapshot are made of.
#[derive(Default)]
struct Parts {
    arrangement: Arrangement,
    countries: Option<Arc<Countries>>,
    /// Of a folder: policies that could not be loaded, and whether an older version goes on.
    problems: Vec<(String, bool)>,
}

/// See the module.
pub(crate) struct Desk {
    pub(crate) tallies: Tallies,
    /// Somebody's standing has changed: worth a report at once.
    pub(crate) news: Notify,
    maker: Option<Maker>,
    shelf: Mutex<Shelf>,
    parts: Mutex<Parts>,
    services: Mutex<PolicyServices>,
    /// Rises with each document and each change of the services.
    changes: watch::Sender<u64>,
    written: Mutex<Record>,
    store: Option<Store>,
}

/// What tells one state of a file from the next.
type Stamp = Option<(u64, Option<SystemTime>)>;

impl Desk {
    /// # Errors
    /// A sentence about what keeps policies from being had at all.
    pub(crate) fn new(config: &EdgeConfig) -> Result<Self, String> {
        let store = config.control.as_ref().and_then(|control| {
            let beside = config.snapshot.dir.as_ref().map(|dir| dir.join(format!("{}.policies", config.name)));
            config.policies.cache_dir.clone().or(beside).map(|dir| Store::new(dir, &control.url))
        });
        let cache = match &store {
            Some(store) => {
                store.prepare().map_err(|error| format!("cache_dir cannot be made: {error}"))?;
                Some(store.code())
            }
            None => config.policies.cache_dir.clone(),
        };
        let is_used = config.control.is_some() || config.policies.dir.is_some() || config.client.country.is_some();
        let host = HostConfig { cache, bounds: config.policies.bounds.clone() };
        let maker = is_used.then(|| Maker::start(host)).transpose();
        let countries = config.client.country.as_deref().map(Countries::open).transpose()?;
        let mut shelf = Shelf::new(Arc::clone(&config.policy_services.services));
        let record = store.as_ref().map(Store::record).unwrap_or_default();
        shelf.recall(record.clone());
        Ok(Self {
            tallies: Tallies::default(),
            news: Notify::new(),
            maker: maker.map_err(|error| format!("there is no thread to make policies on: {error}"))?,
            shelf: Mutex::new(shelf),
            parts: Mutex::new(Parts { countries: countries.map(Arc::new), ..Parts::default() }),
            services: Mutex::new(config.policy_services.clone()),
            changes: watch::Sender::new(0),
            written: Mutex::new(record),
            store,
        })
    }

    /// Gets ready what is at hand, before the edge serves, and looks after it from then on.
    ///
    /// # Errors
    /// A sentence about a folder that cannot be used whole.
    pub(crate) async fn begin(
        shared: &Arc<Shared>,
        client: Option<Arc<Client>>,
        kept: Option<Vec<PolicyDoc>>,
        keepers: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(), String> {
        let desk = &shared.desk;
        desk.publish(&shared.snapshots, |_| {});
        let mut folder = shared.config.policies.dir.clone().map(Watched::new);
        if let Some(folder) = &mut folder {
            folder.look(shared).await?;
            if let Some(complaint) = folder.complaint() {
                return Err(complaint);
            }
        }
        if folder.is_some() || shared.config.client.country.is_some() {
            let shared = Arc::clone(shared);
            let stop = stop.clone();
            keepers.spawn(async move { stop.run_until_cancelled(watch(&shared, folder)).await });
        }
        if client.is_some() {
            let source = Source::new(client, desk.store.clone(), shared.config.policies.bounds.upload);
            if let Some(docs) = kept {
                desk.tell(&shared.snapshots, docs);
                supply::recall(shared, &source).await;
            }
            let (shared, stop) = (Arc::clone(shared), stop.clone());
            keepers.spawn(async move { stop.run_until_cancelled(supply::run(&shared, &source)).await });
        }
        Ok(())
    }

    /// Takes over what a snapshot says of policies: what is ready decides from here on, the rest follows.
    pub(crate) fn tell(&self, snapshots: &Snapshots, docs: Vec<PolicyDoc>) {
        let mut shelf = self.shelf.lock();
        if docs.is_empty() && shelf.is_empty() {
            return;
        }
        shelf.tell(docs);
        self.arrange(snapshots, &mut shelf);
        drop(shelf);
        self.changes.send_modify(|number| *number += 1);
    }

    /// Lends what the edge's own file says now.
    pub(crate) fn lend(&self, services: PolicyServices) {
        {
            let mut held = self.services.lock();
            if held.mark == services.mark {
                return;
            }
            self.shelf.lock().lend(Arc::clone(&services.services));
            *held = services;
        }
        self.changes.send_modify(|number| *number += 1);
    }

    /// Ends the thread that makes policies.
    pub(crate) async fn close(&self) {
        if let Some(maker) = &self.maker {
            maker.close().await;
        }
    }

    pub(super) fn services(&self) -> Arc<Services> {
        self.shelf.lock().services()
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn missing(&self) -> Vec<Use> {
        self.shelf.lock().missing()
    }

    pub(super) fn missing_at_work(&self) -> Vec<Use> {
        self.shelf.lock().missing_at_work()
    }

    pub(super) fn is_missing(&self, wanted: &Use) -> bool {
        let shelf = self.shelf.lock();
        shelf.is_wanted(wanted) && shelf.missing().contains(wanted)
    }

    pub(super) fn code(&self, digest: &str) -> Option<Policy> {
        self.shelf.lock().code(digest)
    }

    /// Has `work` done where policies are made. `None`: it panicked, or the edge ends.
    pub(super) async fn at_bench<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Bench) -> R + Send + 'static,
    ) -> Option<R> {
        self.maker.as_ref()?.run(work).await
    }

    /// A version is ready: it decides from here on, where it should.
    pub(super) fn put(&self, snapshots: &Snapshots, of: &Use, code: Policy, made: Made, services: Arc<Services>) {
        let mut shelf = self.shelf.lock();
        if shelf.is_wanted(of) {
            shelf.put(of.clone(), code, made, services);
            self.arrange(snapshots, &mut shelf);
        }
    }

    /// A version is not to be had. `true`: that is new.
    pub(super) fn complain(&self, of: &Use, error: &SupplyError) -> bool {
        let is_new = self.shelf.lock().complain(of, error.to_string());
        if is_new {
            self.news.notify_one();
        }
        is_new
    }

    fn arrange(&self, snapshots: &Snapshots, shelf: &mut Shelf) {
        let arrangement = shelf.arrange();
        self.publish(snapshots, |parts| parts.arrangement = arrangement);
        self.news.notify_one();
    }

    /// A folder was loaded.
    pub(super) fn loaded(
        &self,
        snapshots: &Snapshots,
        chain: Arc<Chain>,
        schemes: Vec<Arc<TicketScheme>>,
        problems: &[Problem],
    ) {
        self.publish(snapshots, |parts| {
            parts.arrangement = Arrangement { chain, schemes, ..Arrangement::default() };
            parts.problems = problems.iter().map(|problem| (problem.policy.clone(), problem.kept.is_some())).collect();
        });
    }

    fn publish(&self, snapshots: &Snapshots, change: impl FnOnce(&mut Parts)) {
        let mut parts = self.parts.lock();
        change(&mut parts);
        let Parts { arrangement: Arrangement { chain, schemes, unready, unready_schemes }, countries, .. } = &*parts;
        let policies =
            Policies::new(Arc::clone(chain), schemes.clone(), unready.clone(), countries.clone(), &self.tallies);
        snapshots.arrange(Arc::new(Policies { lacks_schemes: *unready_schemes, ..policies }));
    }

    /// Writes down who decides, where that has changed.
    pub(super) async fn keep_record(&self, source: &Source) {
        let Some(store) = source.store.clone() else { return };
        let record = self.shelf.lock().record().clone();
        if *self.written.lock() == record {
            return;
        }
        let record_ = record.clone();
        match self.at_bench(move |_| store.keep_record(&record_)).await {
            Some(Ok(())) => *self.written.lock() = record,
            Some(Err(error)) => tracing::error!(%error, "which policies decide cannot be kept for the next start"),
            None => {}
        }
    }

    /// Removes from the disk what is not wanted any more.
    pub(super) async fn sweep(&self, source: &Source) {
        let Some(store) = source.store.clone() else { return };
        let wanted = self.shelf.lock().digests();
        // Where that fails, the next change tries again.
        let _swept = self.at_bench(move |_| store.sweep(&wanted)).await;
    }

    /// How each version stands, for the control plane.
    pub(crate) fn standings(&self) -> Vec<PolicyStanding> {
        self.shelf.lock().standings()
    }

    /// A sentence for whoever asks whether the edge is ready. `None`: every policy can be asked.
    pub(crate) fn lacks(&self) -> Option<String> {
        let parts = self.parts.lock();
        let unready = &parts.arrangement.unready;
        (!unready.is_empty()).then(|| {
            format!("policies that fail closed are not there yet, and nobody is let in: {}", unready.join(", "))
        })
    }

    /// For the metrics.
    pub(crate) fn families(&self) -> Vec<Family> {
        let (kept, standings) = {
            let shelf = self.shelf.lock();
            (shelf.kept(), shelf.standings())
        };
        let parts = self.parts.lock();
        let folder = parts.problems.iter().map(|(policy, is_kept)| (policy.clone(), *is_kept));
        let kept: BTreeMap<String, bool> = kept.into_iter().chain(folder.clone()).collect();
        if kept.is_empty() && parts.arrangement.chain.is_empty() && parts.arrangement.schemes.is_empty() {
            return self.tallies.families();
        }
        let of = |policy: &str| format!("policy=\"{}\"", escaped(policy));
        let mut problems: BTreeMap<String, u64> = kept.keys().map(|policy| (policy.clone(), 0)).collect();
        let complaining = standings.iter().filter(|standing| standing.problem.is_some());
        for policy in complaining.map(|standing| standing.policy.clone()).chain(folder.map(|(policy, _)| policy)) {
            *problems.entry(policy).or_default() += 1;
        }
        let ready = standings.iter().map(|standing| {
            let labels = format!("{},version=\"{}\"", of(&standing.policy), escaped(&standing.version));
            (labels, u64::from(standing.is_ready))
        });
        let kept = kept.iter().map(|(policy, is_kept)| (of(policy), u64::from(*is_kept)));
        let problems = problems.iter().map(|(policy, count)| (of(policy), *count));
        let places = parts.arrangement.chain.places().iter();
        let used = places.flat_map(|place| place.active.iter().chain(place.candidate.iter().map(|(policy, _)| policy)));
        let resting =
            used.clone().map(|policy| (format!("label=\"{}\"", escaped(policy.label())), u64::from(policy.rests())));
        let made = used.map(|policy| {
            let count = policy.counters().instances.load(std::sync::atomic::Ordering::Relaxed);
            (format!("label=\"{}\"", escaped(policy.label())), count)
        });
        let mut families = vec![
            Family::gauge(
                "segue_policy_kept",
                "Whether the last good version goes on in place of the one that should decide.",
                kept.collect(),
            ),
            Family::gauge("segue_policy_problems", "Versions that are not to be had.", problems.collect()),
            Family::gauge("segue_policy_ready", "Whether a version can be asked.", ready.collect()),
            Family::gauge(
                "segue_policy_resting",
                "Whether a policy rests, after failures in a row.",
                resting.collect(),
            ),
            Family::counter("segue_policy_instances_total", "Instances made of a policy in use.", made.collect()),
        ];
        drop(parts);
        families.extend(self.tallies.families());
        families
    }
}

/// Looks after the folder and the country file until it is dropped.
async fn watch(shared: &Shared, mut folder: Option<Watched>) {
    let country = shared.config.client.country.clone();
    let mut known = country.as_deref().map(stamp);
    let mut complained = None;
    loop {
        tokio::time::sleep(LOOK).await;
        if let Some(folder) = &mut folder {
            let complaint = folder.look(shared).await.err();
            if let Some(problem) = complaint.as_ref().filter(|_| complained != complaint) {
                tracing::error!(problem, "the folder of policies cannot be read; what is in force stays");
            }
            complained = complaint;
        }
        if let Some(path) = &country {
            let found = stamp(path);
            if known != Some(found) {
                known = Some(found);
                follow(shared, path.clone()).await;
            }
        }
    }
}

/// Takes over a changed country file.
async fn follow(shared: &Shared, path: PathBuf) {
    match shared.desk.at_bench(move |_| Countries::open(&path)).await {
        Some(Ok(countries)) => {
            tracing::info!("the country file was read again");
            shared.desk.publish(&shared.snapshots, |parts| parts.countries = Some(Arc::new(countries)));
        }
        Some(Err(problem)) => tracing::error!(problem, "the country file cannot be used; the last good one goes on"),
        None => {}
    }
}

fn stamp(path: &Path) -> Stamp {
    let about = std::fs::metadata(path).ok()?;
    Some((about.len(), about.modified().ok()))
}
