//! A policy of the world `access` that is ready to be asked.

use std::sync::Arc;

use crate::check::World;
use crate::failure::Failure;
use crate::policy::{Counters, Exports, Policy, Ready};
use crate::request::{self, RequestView};
use crate::services::Services;
use crate::verdict::Verdict;

/// What becomes of a request whose policy fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailMode {
    /// It is refused (503, `policy-failed`): a rule that cannot be asked lets nobody in.
    #[default]
    Closed,
    /// The policy counts as having abstained.
    Open,
}

/// A configured access policy, with instances for the threads that ask it. Asking is synchronous.
pub struct AccessPolicy {
    ready: Ready,
    /// What becomes of a request where this one fails.
    pub on_failure: FailMode,
}

impl AccessPolicy {
    /// Configures `policy`. `label` is `name@version`, as facts and metrics show it; `config` is a JSON object.
    ///
    /// # Errors
    /// [`Failure::Configuration`] where the policy refuses its configuration, or the failure of its first instance.
    pub fn new(
        policy: Policy,
        label: &str,
        config: &serde_json::Value,
        services: Arc<Services>,
        on_failure: FailMode,
    ) -> Result<Self, Failure> {
        if policy.checked().world != World::Access {
            return Err(Failure::Configuration(
                "a ticket scheme does not judge requests; it belongs to [tickets]".to_owned(),
            ));
        }
        Ok(Self { ready: Ready::new(policy, label, config.to_string(), services)?, on_failure })
    }

    /// `name@version`.
    #[must_use]
    pub fn label(&self) -> &Arc<str> {
        &self.ready.label
    }

    /// The code that it runs.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        self.ready.policy()
    }

    /// Calls that began.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.ready.calls()
    }

    /// For metrics.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        self.ready.counters()
    }

    /// Whether it rests, after it failed too often in a row.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.ready.rests()
    }

    /// Asks it. Runs on the calling thread, about as long as [`crate::Bounds::call`] at most.
    ///
    /// # Errors
    /// [`Failure`]: no verdict. [`AccessPolicy::on_failure`] says what that means; a chain heeds it.
    pub fn authorize(&self, request: &RequestView<'_>) -> Result<Verdict, Failure> {
        self.ready.run(self.ready.bounds().call, Some(request), |live| {
            request::write_fields(&live.fields, request, &mut live.text);
            let (store, moment) = (&mut live.store, request.moment());
            Ok(match &live.exports {
                Exports::Direct(direct) => direct.authorize(store, moment, &live.text)?.try_into(),
                Exports::Access(access) => access.call_authorize(store, moment, &live.text)?.try_into(),
                Exports::Scheme(_) => Ok(Verdict::Abstain),
            })
        })
    }
}

impl std::fmt::Debug for AccessPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessPolicy").field("label", self.label()).field("on_failure", &self.on_failure).finish()
    }
}
