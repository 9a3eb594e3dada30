//! What the edge and the control plane must agree on to the byte: tickets, signed URLs, the keys that
//! sign them, the canonical path they speak about, and the snapshot that carries keys and revocations
//! from one to the other. And what edges and workers agree on: how a content key is wrapped.
//!
//! # Invariants
//! - Nothing that an unproven client wrote is interpreted before a signature over it holds, except the
//!   bounded header that names the key.
//! - A path is decoded exactly once. What could not be decoded without a doubt is refused, not repaired.
//! - A scope is compared with the decoded path, at segment boundaries.
//! - Signatures and secrets are compared in constant time; neither appears in `Debug`, in an error or
//!   in a reason word.
//!
//! # On failure
//! Everything here is synchronous, does no I/O and never panics. Each refusal is a [`Refusal`] or a
//! [`PathError`] with a stable reason word, a status and a text that is safe to show to a client.

mod cache;
mod claims;
mod content_key;
pub mod debug;
mod delta;
#[cfg(test)]
mod fixtures;
mod keyring;
pub mod limits;
mod path;
mod policies;
mod refusal;
mod report;
mod revocation;
mod scope;
mod secret;
mod signed_url;
mod snapshot;
mod ticket;

pub use cache::TicketCache;
pub use claims::{Claims, ClaimsError, Verified};
pub use content_key::{
    CONTENT_KEY_BYTES, ContentKey, WrapError, WrappingKey, WrappingKeys, check_object, check_place, is_wrapped,
};
pub use delta::{DeltaError, Followed, NamedRevocation, SnapshotDelta};
pub use keyring::{Key, KeyUse, Keyring, KeyringError, MAX_KEYS, MAX_KID_BYTES};
pub use path::{CanonicalPath, MAX_PATH_BYTES, PathError};
pub use policies::{
    MAX_EXAMPLES, MAX_POLICIES, MAX_POLICY_NAME_BYTES, MAX_POLICY_VERSIONS, PolicyCandidate, PolicyDifference,
    PolicyDoc, PolicyExample, PolicyFailMode, PolicyStanding, PolicyTrial, PolicyVerdicts, PolicyVersion, PolicyWorld,
};
pub use refusal::Refusal;
pub use report::{EdgeReport, KeyUseReport};
pub use revocation::{Revocation, RevocationError, Revocations};
pub use scope::{Scope, ScopeError};
pub use secret::{MIN_SECRET_BYTES, SecretError, SigningSecret};
pub use snapshot::{KeyDoc, SnapshotDoc, SnapshotError};
pub use ticket::{MAX_TICKET_BYTES, MintError, Verifier, mint, verify, verify_for_renewal};

/// Signed URLs for one object: `?kid=…&exp=…&sig=…`.
pub mod url {
    pub use crate::signed_url::{sign, verify};
}
