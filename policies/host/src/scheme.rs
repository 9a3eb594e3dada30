//! A policy of the world `ticket-scheme` that is ready to be asked: somebody else's signed URLs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::check::World;
use crate::contract::tickets;
use crate::failure::Failure;
use crate::policy::{Counters, Exports, Policy, Ready};
use crate::request::RequestView;
use crate::services::Services;

/// What a foreign ticket says, once its signature holds. Held by the edge against path and clock once more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForeignClaims {
    /// A whole path, or a prefix that ends in `/`.
    pub scope: String,
    /// Seconds since the epoch.
    pub expires: u64,
    /// Seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// A JSON object for access policies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The path without the ticket, decoded as a scope is, where the ticket stood in the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Query parameters that belong to the ticket.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<String>,
}

/// Why a foreign ticket does not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum ForeignRefusal {
    /// Nothing of this scheme is in the request.
    Absent,
    Malformed,
    KeyUnknown,
    SignatureInvalid,
    Expired,
    NotYetValid,
    OutOfScope,
    AddressMismatch,
    CountryMismatch,
}

impl ForeignRefusal {
    /// The reason word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Malformed => "malformed",
            Self::KeyUnknown => "key-unknown",
            Self::SignatureInvalid => "signature-invalid",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::OutOfScope => "out-of-scope",
            Self::AddressMismatch => "address-mismatch",
            Self::CountryMismatch => "country-mismatch",
        }
    }
}

/// What a foreign ticket is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grant {
    /// The absolute URL of the object, or of the playlist to start with.
    pub url: String,
    /// A path prefix that ends in `/`.
    pub scope: Option<String>,
    /// Seconds since the epoch.
    pub expires: u64,
    /// Seconds since the epoch.
    pub not_before: Option<u64>,
    /// An address, or a network in CIDR notation.
    pub address: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// What only this scheme knows.
    pub options: Vec<(String, String)>,
}

/// A configured ticket scheme.
pub struct TicketScheme {
    ready: Ready,
}

impl TicketScheme {
    /// Configures `policy`; as [`crate::AccessPolicy::new`].
    ///
    /// # Errors
    /// [`Failure::Configuration`] where the scheme refuses its configuration, or the failure of its first instance.
    pub fn new(
        policy: Policy,
        label: &str,
        config: &serde_json::Value,
        services: Arc<Services>,
    ) -> Result<Self, Failure> {
        if policy.checked().world != World::TicketScheme {
            return Err(Failure::Configuration(
                "an access policy knows no tickets; it belongs to [policies]".to_owned(),
            ));
        }
        Ok(Self { ready: Ready::new(policy, label, config.to_string(), services)? })
    }

    /// `name@version`.
    #[must_use]
    pub fn label(&self) -> &Arc<str> {
        &self.ready.label
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

    /// Whether the request carries a ticket of this scheme that holds.
    ///
    /// # Errors
    /// [`Failure`]: no answer. A ticket scheme fails closed, always.
    pub fn verify(&self, request: &RequestView<'_>) -> Result<Result<ForeignClaims, ForeignRefusal>, Failure> {
        self.ready.run(self.ready.bounds().call, Some(request), |live| {
            let Exports::Scheme(scheme) = &live.exports else { return Ok(Ok(Err(ForeignRefusal::Absent))) };
            let answer = scheme.call_verify(&mut live.store, request.moment())?;
            Ok(match answer {
                Ok(claims) => claims_of(claims).map(Ok),
                Err(refusal) => Ok(Err(refusal.into())),
            })
        })
    }

    /// Makes a URL. The inner error is the scheme's own sentence.
    ///
    /// # Errors
    /// [`Failure`]: no answer.
    pub fn sign(&self, grant: &Grant) -> Result<Result<String, String>, Failure> {
        // Making an RSA signature takes milliseconds, and nobody's segment waits for it.
        self.ready.run(self.ready.bounds().configure, None, |live| {
            let Exports::Scheme(scheme) = &live.exports else { return Ok(Ok(Err(String::new()))) };
            let grant = tickets::Grant {
                url: grant.url.clone(),
                scope: grant.scope.clone(),
                expires: grant.expires,
                not_before: grant.not_before,
                address: grant.address.clone(),
                session: grant.session.clone(),
                options: grant.options.clone(),
            };
            Ok(Ok(scheme.call_sign(&mut live.store, &grant)?))
        })
    }
}

impl std::fmt::Debug for TicketScheme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketScheme").field("label", self.label()).finish_non_exhaustive()
    }
}

/// What the edge would otherwise have to trust: a scope that is a path, a context that is an object.
fn claims_of(claims: tickets::Claims) -> Result<ForeignClaims, Failure> {
    let bad = |what: &str| Err(Failure::BadOutput(what.to_owned()));
    if !claims.scope.starts_with('/') {
        return bad("a scope that does not start with /");
    }
    if claims.path.as_ref().is_some_and(|path| !path.starts_with('/')) {
        return bad("a path that does not start with /");
    }
    let is_object = |text: &String| serde_json::from_str::<serde_json::Map<_, _>>(text).is_ok();
    if claims.context.as_ref().is_some_and(|context| !is_object(context)) {
        return bad("a context that is no JSON object");
    }
    Ok(ForeignClaims {
        scope: claims.scope,
        expires: claims.expires,
        not_before: claims.not_before,
        session: claims.session,
        listener: claims.listener,
        context: claims.context,
        path: claims.path,
        parameters: claims.parameters,
    })
}

impl From<tickets::Refusal> for ForeignRefusal {
    fn from(refusal: tickets::Refusal) -> Self {
        match refusal {
            tickets::Refusal::Absent => Self::Absent,
            tickets::Refusal::Malformed => Self::Malformed,
            tickets::Refusal::KeyUnknown => Self::KeyUnknown,
            tickets::Refusal::SignatureInvalid => Self::SignatureInvalid,
            tickets::Refusal::Expired => Self::Expired,
            tickets::Refusal::NotYetValid => Self::NotYetValid,
            tickets::Refusal::OutOfScope => Self::OutOfScope,
            tickets::Refusal::AddressMismatch => Self::AddressMismatch,
            tickets::Refusal::CountryMismatch => Self::CountryMismatch,
        }
    }
}
