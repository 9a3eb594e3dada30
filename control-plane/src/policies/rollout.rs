//! Who decides: the life of a policy's versions, as a pure function.
//!
//! checked → pushed (edges have it ready) → shadow → canary → active → rolled back. Nothing forces the order; what a step needs it does.
//!
//! Invariants: at most one version is active and one is tried; the two differ. What edges must have ready (the active one, the one
//! that is tried, the one that a rollback goes back to) is always pushed, and at most [`MAX_POLICY_VERSIONS`] are. A rollback goes back one
//! step further each time; it never goes forward again to what was just taken back.

use segue_signing::{MAX_POLICY_VERSIONS, PolicyCandidate, PolicyTrial, PolicyWorld};

/// Versions that were active before, of which rollbacks know: more steps back than anybody takes in a row.
const STACK_MAX: usize = 8;

/// What can be done with a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Edges are to have the version ready.
    Push(String),
    /// The version is asked, and not heeded.
    Shadow(String),
    /// The version decides for this many of 10,000 sessions.
    Canary(String, u16),
    /// The version decides.
    Activate(String),
    /// Nothing is tried any more.
    EndTrial,
    /// Nothing decides any more.
    Disable,
    /// A canary ends; where there is none, what was active before decides again.
    Rollback,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// The word in the history.
    pub(crate) act: &'static str,
    /// The version that it is about, or that decides after it.
    pub(crate) version: Option<String>,
    /// The version that stood in its place before.
    pub(crate) from: Option<String>,
    /// Of 10,000 sessions, for a canary.
    pub(crate) share: Option<u16>,
}

/// Why something cannot be done now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("version {0:?} is active already; try another one beside it")]
    IsActive(String),
    #[error("a ticket scheme is active or it is not; it cannot be tried as shadow or canary")]
    NoTrial,
    #[error("nothing was active before, so there is nothing to go back to")]
    NothingBefore,
    #[error("nothing is tried at this time")]
    NothingTried,
    #[error("nothing is active at this time")]
    NothingActive,
}

impl Refused {
    /// The reason word.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::IsActive(_) => "already-active",
            Self::NoTrial => "no-trial",
            Self::NothingBefore => "nothing-before",
            Self::NothingTried => "nothing-tried",
            Self::NothingActive => "nothing-active",
        }
    }
}

/// A policy's versions as they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rollout {
    pub(crate) world: PolicyWorld,
    pub(crate) active: Option<String>,
    /// What was active before, the last one at the end.
    pub(crate) stack: Vec<Option<String>>,
    pub(crate) candidate: Option<PolicyCandidate>,
    /// What edges are to have ready, the longest pushed first.
    pub(crate) pushed: Vec<String>,
}

impl Rollout {
    /// Does it. `Ok(None)`: it stood so already.
    pub(crate) fn apply(&mut self, act: Act) -> Result<Option<Done>, Refused> {
        let done = match act {
            Act::Push(version) => {
                if self.pushed.contains(&version) {
                    return Ok(None);
                }
                self.pushed.push(version.clone());
                Done { act: "push", version: Some(version), from: None, share: None }
            }
            Act::Shadow(version) => return self.try_out("shadow", version, PolicyTrial::Shadow),
            Act::Canary(version, share) => return self.try_out("canary", version, PolicyTrial::Canary(share)),
            Act::Activate(version) => {
                if self.active.as_ref() == Some(&version) {
                    return Ok(None);
                }
                let from = self.activate(Some(version.clone()));
                Done { act: "activate", version: Some(version), from, share: None }
            }
            Act::EndTrial => {
                let candidate = self.candidate.take().ok_or(Refused::NothingTried)?;
                Done { act: "end-trial", version: Some(candidate.version), from: None, share: None }
            }
            Act::Disable => {
                if self.active.is_none() {
                    return Err(Refused::NothingActive);
                }
                let from = self.activate(None);
                Done { act: "disable", version: None, from, share: None }
            }
            Act::Rollback => self.roll_back()?,
        };
        self.settle();
        Ok(Some(done))
    }

    /// What edges must have ready, whatever else was pushed.
    pub(crate) fn needs(&self, version: &str) -> bool {
        let before = self.stack.last().and_then(Option::as_deref);
        let tried = self.candidate.as_ref().map(|candidate| candidate.version.as_str());
        [self.active.as_deref(), tried, before].contains(&Some(version))
    }

    /// A version that is gone is nothing to go back to. Not for one that [`Rollout::needs`] says is needed.
    pub(crate) fn forget(&mut self, version: &str) {
        self.stack.retain(|before| before.as_deref() != Some(version));
        self.stack.dedup();
        self.pushed.retain(|pushed| pushed != version);
    }

    fn try_out(&mut self, act: &'static str, version: String, trial: PolicyTrial) -> Result<Option<Done>, Refused> {
        if self.world == PolicyWorld::TicketScheme {
            return Err(Refused::NoTrial);
        }
        if self.active.as_ref() == Some(&version) {
            return Err(Refused::IsActive(version));
        }
        let next = PolicyCandidate { version: version.clone(), trial };
        if self.candidate.as_ref() == Some(&next) {
            return Ok(None);
        }
        let from = self.candidate.replace(next).map(|candidate| candidate.version).filter(|from| *from != version);
        self.settle();
        let share = match trial {
            PolicyTrial::Shadow => None,
            PolicyTrial::Canary(share) => Some(share),
        };
        Ok(Some(Done { act, version: Some(version), from, share }))
    }

    fn activate(&mut self, version: Option<String>) -> Option<String> {
        let from = std::mem::replace(&mut self.active, version);
        self.stack.push(from.clone());
        if self.stack.len() > STACK_MAX {
            self.stack.remove(0);
        }
        self.end_own_trial();
        from
    }

    fn roll_back(&mut self) -> Result<Done, Refused> {
        if let Some(PolicyCandidate { version, trial: PolicyTrial::Canary(share) }) = &self.candidate {
            let done = Done {
                act: "end-canary",
                version: self.active.clone(),
                from: Some(version.clone()),
                share: Some(*share),
            };
            self.candidate = None;
            return Ok(done);
        }
        let mut before = self.stack.pop().ok_or(Refused::NothingBefore)?;
        while before == self.active {
            before = self.stack.pop().ok_or(Refused::NothingBefore)?;
        }
        let from = std::mem::replace(&mut self.active, before);
        self.end_own_trial();
        Ok(Done { act: "rollback", version: self.active.clone(), from, share: None })
    }

    /// What decides for all is no longer tried.
    fn end_own_trial(&mut self) {
        if self.candidate.as_ref().is_some_and(|candidate| Some(&candidate.version) == self.active.as_ref()) {
            self.candidate = None;
        }
    }

    /// Pushes what is needed, and pulls the oldest that nobody needs.
    fn settle(&mut self) {
        let before = self.stack.last().cloned().flatten();
        let tried = self.candidate.as_ref().map(|candidate| candidate.version.clone());
        for needed in [before, self.active.clone(), tried].into_iter().flatten() {
            if !self.pushed.contains(&needed) {
                self.pushed.push(needed);
            }
        }
        while self.pushed.len() > MAX_POLICY_VERSIONS {
            // At most three are needed, so one of so many is not; the last is the one that was asked for.
            let Some(oldest) = self.pushed.iter().position(|version| !self.needs(version)) else { return };
            self.pushed.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests;
