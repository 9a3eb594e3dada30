//! Revocations: tickets that are refused although they verify.
//!
//! # Invariants
//! - Several conditions in one revocation must all hold: `sub` with `issued_before` ends a listener's old
//!   tickets and leaves the new one.
//! - Each revocation ends at `until`; after that the tickets that it hit have expired by themselves.
//! - What can not be told apart is revoked: a ticket without `iat`, and every signed URL, counts as issued
//!   before any time.
//!
//! # On failure
//! A revocation without a condition that is known here refuses the whole set: to ignore it would let
//! through what somebody meant to stop.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::claims::Verified;
use crate::refusal::Refusal;

/// One revocation. Times are seconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Tickets of this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// Tickets of this listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// Requests for this track, whatever the ticket's scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<String>,
    /// Tickets whose `iat` is before this second, or that have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<i64>,
    /// From this second on the revocation is over.
    pub until: i64,
}

/// A revocation that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "revocation {0} has none of sid, sub, track and issued_before; it comes from a newer control plane, or is a mistake"
)]
pub struct RevocationError(
    /// Its place in the list, from 0.
    pub usize,
);

impl RevocationError {
    /// The reason word.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        "revocation-empty"
    }
}

impl Revocation {
    /// Whether it has no condition at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.sid.is_none() && self.sub.is_none() && self.track.is_none() && self.issued_before.is_none()
    }

    /// Whether it stops this ticket on this track at `now`.
    #[must_use]
    pub fn hits(&self, verified: &Verified, track: Option<&str>, now: i64) -> bool {
        fn is(wanted: Option<&String>, actual: Option<&str>) -> bool {
            wanted.is_none_or(|wanted| actual == Some(wanted.as_str()))
        }
        !self.is_empty()
            && now < self.until
            && is(self.sid.as_ref(), Some(&verified.sid))
            && is(self.sub.as_ref(), verified.claims.sub.as_deref())
            && is(self.track.as_ref(), track)
            && self.issued_before.is_none_or(|before| verified.claims.iat.is_none_or(|iat| iat < before))
    }
}

/// Revocations, indexed so that a request pays for three look-ups however long the list is.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    by_sid: HashMap<String, Vec<Revocation>>,
    by_sub: HashMap<String, Vec<Revocation>>,
    by_track: HashMap<String, Vec<Revocation>>,
    by_time: Vec<Revocation>,
}

impl Revocations {
    /// Indexes a list.
    ///
    /// # Errors
    /// Where one of them says nothing.
    pub fn new(list: impl IntoIterator<Item = Revocation>) -> Result<Self, RevocationError> {
        let mut all = Self::default();
        for (index, revocation) in list.into_iter().enumerate() {
            // By the narrowest condition, so that few share a place.
            let place = if let Some(sid) = &revocation.sid {
                all.by_sid.entry(sid.clone()).or_default()
            } else if let Some(sub) = &revocation.sub {
                all.by_sub.entry(sub.clone()).or_default()
            } else if let Some(track) = &revocation.track {
                all.by_track.entry(track.clone()).or_default()
            } else if revocation.issued_before.is_some() {
                &mut all.by_time
            } else {
                return Err(RevocationError(index));
            };
            place.push(revocation);
        }
        drop_covered(&mut all.by_time);
        Ok(all)
    }

    /// Refuses what is revoked at `now`. `track` is the one that the request is for, where its route has one.
    ///
    /// # Errors
    /// [`Refusal::Revoked`].
    pub fn check(&self, verified: &Verified, track: Option<&str>, now: i64) -> Result<(), Refusal> {
        let under = |index: &HashMap<String, Vec<Revocation>>, name: Option<&str>| {
            // Most edges have none of a kind most of the time: then not even the hash is due.
            !index.is_empty()
                && name
                    .and_then(|name| index.get(name))
                    .is_some_and(|list| list.iter().any(|revocation| revocation.hits(verified, track, now)))
        };
        let revoked = under(&self.by_sid, Some(&verified.sid))
            || under(&self.by_sub, verified.claims.sub.as_deref())
            || under(&self.by_track, track)
            || self.by_time.iter().any(|revocation| revocation.hits(verified, track, now));
        if revoked { Err(Refusal::Revoked) } else { Ok(()) }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_sid.is_empty() && self.by_sub.is_empty() && self.by_track.is_empty() && self.by_time.is_empty()
    }
}

/// Of revocations by time alone, keeps those that no other covers (later `issued_before`, later end): each
/// request walks them all.
fn drop_covered(by_time: &mut Vec<Revocation>) {
    by_time
        .sort_by_key(|revocation| (std::cmp::Reverse(revocation.issued_before), std::cmp::Reverse(revocation.until)));
    let mut covered_until = i64::MIN;
    by_time.retain(|revocation| {
        let kept = revocation.until > covered_until;
        covered_until = covered_until.max(revocation.until);
        kept
    });
}

#[cfg(test)]
mod tests;
