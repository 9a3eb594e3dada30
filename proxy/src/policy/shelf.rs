//! The versions that the control plane names, those that are ready here, and what follows from both: who decides.
//!
//! Invariants: the snapshot says which version decides; where that one is not ready, the version that decided last goes on. Where there is none
//! (nobody decided before, or it is not known here who did: the first start, or without its disk), the fail mode decides until the version is
//! there: closed, nobody is let in. The operator said that the rule holds; no request passes as if there were none.
//!
//! On failure: a version that cannot be made has a problem, in words for the operator, until it can.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use segue_policy_host::{AccessPolicy, Attached, Chain, FailMode, Policy, Services, TicketScheme, Trial};
use segue_signing::{
    MAX_POLICIES, MAX_POLICY_VERSIONS, PolicyDoc, PolicyFailMode, PolicyStanding, PolicyTrial, PolicyVersion,
    PolicyWorld,
};

use super::store::{Decided, Record};

/// One version in one use: what has to be made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Use {
    pub(super) policy: String,
    pub(super) version: String,
    pub(super) digest: String,
    /// As JSON text.
    pub(super) config: String,
    is_scheme: bool,
    fails_open: bool,
}

impl Use {
    fn of(policy: &str, version: &PolicyVersion, world: PolicyWorld, on_failure: PolicyFailMode) -> Self {
        Self {
            policy: policy.to_owned(),
            version: version.version.clone(),
            digest: version.digest.clone(),
            // `null` where nothing was given; the contract knows objects.
            config: if version.config.is_null() { "{}".to_owned() } else { version.config.to_string() },
            is_scheme: world == PolicyWorld::TicketScheme,
            fails_open: on_failure == PolicyFailMode::Open,
        }
    }

    fn of_decided(policy: &str, decided: &Decided) -> Self {
        Self::of(policy, &decided.version, decided.world, decided.on_failure)
    }

    pub(super) fn label(&self) -> String {
        format!("{}@{}", self.policy, self.version)
    }

    pub(super) fn world(&self) -> PolicyWorld {
        if self.is_scheme { PolicyWorld::TicketScheme } else { PolicyWorld::Access }
    }

    pub(super) fn on_failure(&self) -> FailMode {
        if self.fails_open { FailMode::Open } else { FailMode::Closed }
    }
}

/// A version that can be asked.
#[derive(Debug, Clone)]
pub(super) enum Made {
    Access(Arc<AccessPolicy>),
    Scheme(Arc<TicketScheme>),
}

#[derive(Debug)]
struct Ready {
    made: Made,
    /// What it was lent.
    services: Arc<Services>,
}

/// Who decides, and who cannot.
#[derive(Debug, Default)]
pub(super) struct Arrangement {
    pub(super) chain: Arc<Chain>,
    pub(super) schemes: Vec<Arc<TicketScheme>>,
    /// Policies that fail closed and cannot be asked.
    pub(super) unready: Vec<String>,
    pub(super) unready_schemes: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    docs: Vec<PolicyDoc>,
    ready: HashMap<Use, Ready>,
    compiled: HashMap<String, Policy>,
    problems: HashMap<Use, String>,
    /// `None`: nobody.
    decided: Record,
    /// Policies that another version should decide than the one that does.
    kept: BTreeSet<String>,
    services: Arc<Services>,
}

impl Shelf {
    pub(super) fn new(services: Arc<Services>) -> Self {
        Self { services, ..Self::default() }
    }

    /// What an earlier process left.
    pub(super) fn recall(&mut self, record: Record) {
        self.decided = record;
    }

    /// Takes over what the control plane says.
    pub(super) fn tell(&mut self, mut docs: Vec<PolicyDoc>) {
        docs.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
        if docs.len() > MAX_POLICIES || docs.iter().any(|doc| doc.versions.len() > MAX_POLICY_VERSIONS) {
            tracing::error!(policies = docs.len(), "the snapshot names more policies or versions than an edge takes");
            docs.truncate(MAX_POLICIES);
            docs.iter_mut().for_each(|doc| doc.versions.truncate(MAX_POLICY_VERSIONS));
        }
        let names: BTreeSet<&str> = docs.iter().map(|doc| doc.name.as_str()).collect();
        self.decided.retain(|name, _| names.contains(name.as_str()));
        for doc in docs.iter().filter(|doc| doc.active.is_none()) {
            // What decided before the rule was turned off does not come back with another version.
            self.decided.insert(doc.name.clone(), None);
        }
        self.docs = docs;
        self.forget();
    }

    /// Lends other services from now on.
    pub(super) fn lend(&mut self, services: Arc<Services>) {
        self.services = services;
        self.problems.clear();
    }

    pub(super) fn services(&self) -> Arc<Services> {
        Arc::clone(&self.services)
    }

    /// What is not made yet, or was lent what is no more; who decides comes first.
    pub(super) fn missing(&self) -> Vec<Use> {
        let is_fresh = |ready: &Ready| Arc::ptr_eq(&ready.services, &self.services);
        self.wanted().into_iter().filter(|wanted| !self.ready.get(wanted).is_some_and(is_fresh)).collect()
    }

    /// The same of those that decide or are tried.
    pub(super) fn missing_at_work(&self) -> Vec<Use> {
        let names = |doc: &PolicyDoc, version: &str| {
            doc.active.as_deref() == Some(version)
                || doc.candidate.as_ref().is_some_and(|candidate| candidate.version == version)
        };
        let mut missing = self.missing();
        missing.retain(|wanted| {
            let doc = self.docs.iter().find(|doc| doc.name == wanted.policy);
            let decided = self.decided.get(&wanted.policy).and_then(Option::as_ref);
            doc.is_some_and(|doc| names(doc, &wanted.version))
                || decided.is_some_and(|decided| decided.version.version == wanted.version)
        });
        missing
    }

    pub(super) fn is_wanted(&self, wanted: &Use) -> bool {
        self.wanted().contains(wanted)
    }

    /// The code of a digest, where another use has it compiled.
    pub(super) fn code(&self, digest: &str) -> Option<Policy> {
        self.compiled.get(digest).cloned()
    }

    /// Every digest that is wanted.
    pub(super) fn digests(&self) -> BTreeSet<String> {
        self.wanted().into_iter().map(|wanted| wanted.digest).collect()
    }

    /// A version is made.
    pub(super) fn put(&mut self, made_for: Use, code: Policy, made: Made, services: Arc<Services>) {
        self.problems.remove(&made_for);
        self.compiled.insert(made_for.digest.clone(), code);
        self.ready.insert(made_for, Ready { made, services });
    }

    /// A version could not be made. `true`: that is new.
    pub(super) fn complain(&mut self, of: &Use, problem: String) -> bool {
        self.problems.insert(of.clone(), problem.clone()) != Some(problem)
    }

    pub(super) fn record(&self) -> &Record {
        &self.decided
    }

    /// Who decides now.
    pub(super) fn arrange(&mut self) -> Arrangement {
        let (mut places, mut arrangement) = (Vec::new(), Arrangement::default());
        self.kept.clear();
        let docs = std::mem::take(&mut self.docs);
        for doc in &docs {
            let active = self.decide(doc, &mut arrangement);
            let trial = doc.candidate.as_ref().and_then(|candidate| {
                let made = self.made(&self.use_of(doc, &candidate.version)?)?;
                let trial = match candidate.trial {
                    PolicyTrial::Shadow => Trial::Shadow,
                    PolicyTrial::Canary(share) => Trial::Canary(share),
                };
                match made {
                    Made::Access(policy) => Some((policy, trial)),
                    // Two schemes do not disagree: there is nothing to try.
                    Made::Scheme(_) => None,
                }
            });
            match active {
                Some(Made::Scheme(scheme)) => arrangement.schemes.push(scheme),
                Some(Made::Access(policy)) => {
                    places.push(Attached { candidate: trial, ..Attached::active(&doc.name, policy) });
                }
                None if trial.is_some() => {
                    places.push(Attached { name: doc.name.clone(), active: None, candidate: trial });
                }
                None => {}
            }
        }
        self.docs = docs;
        arrangement.chain = Arc::new(Chain::new(places));
        arrangement
    }

    /// The version that decides for one policy.
    fn decide(&mut self, doc: &PolicyDoc, arrangement: &mut Arrangement) -> Option<Made> {
        let active = doc.active.as_ref()?;
        let version = doc.versions.iter().find(|version| version.version == *active);
        if let Some(version) = version
            && let Some(made) = self.made(&Use::of(&doc.name, version, doc.world, doc.on_failure))
        {
            let decided = Decided { version: version.clone(), world: doc.world, on_failure: doc.on_failure };
            self.decided.insert(doc.name.clone(), Some(decided));
            return Some(made);
        }
        let last = self.decided.get(&doc.name);
        let made = last.and_then(Option::as_ref).and_then(|last| self.made(&Use::of_decided(&doc.name, last)));
        self.kept.insert(doc.name.clone());
        if made.is_some() {
            return made;
        }
        match (doc.world, doc.on_failure) {
            (PolicyWorld::TicketScheme, _) => arrangement.unready_schemes = true,
            (PolicyWorld::Access, PolicyFailMode::Closed) => arrangement.unready.push(doc.name.clone()),
            (PolicyWorld::Access, PolicyFailMode::Open) => {}
        }
        None
    }

    fn made(&self, of: &Use) -> Option<Made> {
        self.ready.get(of).map(|ready| ready.made.clone())
    }

    fn use_of(&self, doc: &PolicyDoc, version: &str) -> Option<Use> {
        let version = doc.versions.iter().find(|known| known.version == version)?;
        Some(Use::of(&doc.name, version, doc.world, doc.on_failure))
    }

    /// All that is to be ready, those that decide first, then those that are tried.
    fn wanted(&self) -> Vec<Use> {
        let mut wanted: Vec<(u8, Use)> = Vec::new();
        for doc in &self.docs {
            for version in &doc.versions {
                let is_active = doc.active.as_ref() == Some(&version.version);
                let is_tried = doc.candidate.as_ref().is_some_and(|candidate| candidate.version == version.version);
                let rank = if is_active { 0 } else { 3 - u8::from(is_tried) };
                wanted.push((rank, Use::of(&doc.name, version, doc.world, doc.on_failure)));
            }
            // What decided last is wanted for as long as the one that should is not ready.
            if doc.active.is_some()
                && let Some(Some(decided)) = self.decided.get(&doc.name)
            {
                wanted.push((1, Use::of_decided(&doc.name, decided)));
            }
        }
        wanted.sort();
        let mut seen = BTreeSet::new();
        wanted.into_iter().map(|(_, wanted)| wanted).filter(|wanted| seen.insert(wanted.clone())).collect()
    }

    /// Lets go of what is not wanted any more.
    fn forget(&mut self) {
        let wanted: BTreeSet<Use> = self.wanted().into_iter().collect();
        let digests = self.digests();
        self.ready.retain(|known, _| wanted.contains(known));
        self.problems.retain(|known, _| wanted.contains(known));
        self.compiled.retain(|digest, _| digests.contains(digest));
    }

    /// How each version stands.
    pub(super) fn standings(&self) -> Vec<PolicyStanding> {
        let mut standings = Vec::new();
        for doc in &self.docs {
            let decided = self.decided.get(&doc.name).and_then(Option::as_ref);
            let deciding = decided.filter(|decided| self.ready.contains_key(&Use::of_decided(&doc.name, decided)));
            let is_kept = self.kept.contains(&doc.name);
            let mut add = |version: &str, of: Option<&Use>| {
                let is_deciding =
                    doc.active.is_some() && deciding.is_some_and(|decided| decided.version.version == version);
                standings.push(PolicyStanding {
                    policy: doc.name.clone(),
                    version: version.to_owned(),
                    is_ready: of.is_some_and(|of| self.ready.contains_key(of)),
                    is_deciding,
                    is_kept: is_kept && is_deciding,
                    problem: match of {
                        Some(of) => self.problems.get(of).cloned(),
                        None => Some("the snapshot names this version as active and does not describe it".to_owned()),
                    },
                });
            };
            for version in &doc.versions {
                add(&version.version, Some(&Use::of(&doc.name, version, doc.world, doc.on_failure)));
            }
            let is_listed = |name: &str| doc.versions.iter().any(|version| version.version == name);
            if let Some(decided) = deciding.filter(|decided| !is_listed(&decided.version.version)) {
                add(&decided.version.version, Some(&Use::of_decided(&doc.name, decided)));
            }
            if let Some(active) = doc.active.as_ref().filter(|active| !is_listed(active)) {
                add(active, None);
            }
        }
        standings
    }

    /// Policies that another version should decide than the one that does, or nobody does.
    pub(super) fn kept(&self) -> BTreeMap<String, bool> {
        self.docs.iter().map(|doc| (doc.name.clone(), self.kept.contains(&doc.name))).collect()
    }

    /// How many policies there are.
    pub(super) fn is_empty(&self) -> bool {
        self.docs.is_empty()
    }
}

#[cfg(test)]
mod tests;
