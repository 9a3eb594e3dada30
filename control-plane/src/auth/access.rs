//! Tokens that are known, how much each may ask for, and when it was used last.
//!
//! Invariants: what is known of a token is believed for [`FRESH`], counted from before it was looked up, so that one that was
//! revoked at any control plane is refused at every other within a second, and at its own at once. Every table is bounded. No
//! await under a lock. On failure: where the database does not answer nobody is let in who is not known freshly.
//!
//! An address that tried too many unknown tokens is refused without a look-up, but for tokens that were good a while ago: behind one
//! address there may be others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::rate::Rates;
use super::{Scope, address, secret};
use crate::clock;
use crate::config::AccessConfig;
use crate::error::ApiError;
use crate::state::Shared;
use crate::store::tokens::{self, ApiTokenRow};
use crate::store::{Store, StoreError, transaction};

/// How long a token is believed without another look.
const FRESH: Duration = Duration::from_millis(500);

/// How long it is remembered that a token was good.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Tokens that are remembered: each may have two secrets at a time.
const KNOWN_MAX: usize = 4096;

/// How often it is written down when tokens were used.
const NOTE_EVERY: Duration = Duration::from_secs(5);

/// A token that was found.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) scopes: Vec<Scope>,
    /// The end of it, or of this secret of it.
    until_ms: Option<i64>,
}

#[derive(Debug)]
struct Known {
    token: Arc<Token>,
    /// When the look-up that found it began.
    looked: Instant,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Access {
    /// By the hash of the whole token.
    known: Mutex<HashMap<String, Known>>,
    /// Requests, by token.
    requests: Rates<String>,
    /// Unknown tokens, by address.
    failures: Rates<IpAddr>,
    /// Uses that are to be written down, by token. As many as there are tokens.
    used: Mutex<HashMap<String, i64>>,
    trusted: Vec<IpNet>,
}

impl Access {
    pub(crate) fn new(config: &AccessConfig) -> Self {
        Self {
            known: Mutex::default(),
            requests: Rates::new(config.rate, Duration::from_secs(1), config.burst),
            failures: Rates::new(config.failures, Duration::from_secs(60), config.failures),
            used: Mutex::default(),
            trusted: config.trusted_proxies.clone(),
        }
    }

    /// Balancers whose word on an address is believed.
    pub(crate) fn trusted(&self) -> &[IpNet] {
        &self.trusted
    }

    /// The token that a request from `address` carries.
    pub(super) async fn token(&self, store: &Store, token: &str, address: IpAddr) -> Result<Arc<Token>, ApiError> {
        let hash = secret::hash(token);
        let group = address::group(address);
        let begun = Instant::now();
        let known = self.remembered(&hash, begun);
        let found = match known {
            Some((token, true)) => Some(token),
            known => {
                // Refused before it costs the database anything.
                if let Some(wait) = self.failures.wait(&group, begun).filter(|_| known.is_none()) {
                    return Err(too_many("too-many-failures", "unknown tokens were sent from this address", wait));
                }
                self.look(store, token, &hash, begun).await?
            }
        };
        let Some(token) = found.filter(|token| token.until_ms.is_none_or(|until| until > clock::now_ms())) else {
            // A failure beyond the limit is told as what it is; the next one is told to wait.
            let _ = self.failures.take(group, begun);
            return Err(ApiError::Unauthorized("this token is not known, or its time is over"));
        };
        self.requests
            .take(token.id.clone(), begun)
            .map_err(|wait| too_many("too-many-requests", "requests came with this token", wait))?;
        self.used().insert(token.id.clone(), clock::now_ms());
        Ok(token)
    }

    /// Looks a token up anew, and remembers what is found.
    async fn look(
        &self,
        store: &Store,
        token: &str,
        hash: &str,
        begun: Instant,
    ) -> Result<Option<Arc<Token>>, StoreError> {
        let found = find(store, token, hash).await?.map(Arc::new);
        let mut known = self.known();
        match &found {
            Some(token) => {
                if known.len() >= KNOWN_MAX && !known.contains_key(hash) {
                    known.retain(|_, one| begun.duration_since(one.looked) < FRESH);
                    // So many are in use at this moment: each is looked up again, which is slower and no less right.
                    if known.len() >= KNOWN_MAX {
                        known.clear();
                    }
                }
                known.insert(hash.to_owned(), Known { token: Arc::clone(token), looked: begun });
            }
            None => {
                known.remove(hash);
            }
        }
        Ok(found)
    }

    /// What is remembered of a token, and whether that is fresh.
    fn remembered(&self, hash: &str, now: Instant) -> Option<(Arc<Token>, bool)> {
        let known = self.known();
        let one = known.get(hash)?;
        let age = now.duration_since(one.looked);
        (age < REMEMBERED).then(|| (Arc::clone(&one.token), age < FRESH))
    }

    /// Forgets a token that was changed here.
    pub(crate) fn forget(&self, id: &str) {
        self.known().retain(|_, one| one.token.id != id);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        // Each change leaves the table whole: a panic elsewhere does not matter.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self) -> MutexGuard<'_, HashMap<String, i64>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down when tokens were used. What could not be written is kept for the next time.
    async fn note_uses(&self, store: &Store) -> Result<(), StoreError> {
        let mut uses: Vec<(String, i64)> = self.used().drain().collect();
        if uses.is_empty() {
            return Ok(());
        }
        // In one order everywhere, so that two control planes do not wait for one another crosswise.
        uses.sort_unstable();
        let noted = transaction!(store, |tx| {
            for (token, at_ms) in &uses {
                tokens::used(tx, token, *at_ms).await?;
            }
            Ok::<(), StoreError>(())
        });
        if noted.is_err() {
            let mut used = self.used();
            for (token, at_ms) in uses {
                used.entry(token).or_insert(at_ms);
            }
        }
        noted
    }
}

fn too_many(word: &'static str, what: &str, wait: Duration) -> ApiError {
    ApiError::TooMany { word, message: format!("too many {what}; wait as long as Retry-After says"), wait }
}

/// The token, by the id in it or, for those of the configuration, by its hash.
async fn find(store: &Store, token: &str, hash: &str) -> Result<Option<Token>, StoreError> {
    let Some(id) = secret::id(token) else {
        let row = tokens::by_hash(store, hash).await?.filter(|row| secret::is_same(&row.hash, hash));
        return Ok(row.map(|row| Token {
            id: row.name.clone(),
            scopes: scopes(&row.scopes),
            name: row.name,
            until_ms: None,
        }));
    };
    let Some(row) = tokens::by_id(store, id).await? else { return Ok(None) };
    let ApiTokenRow { id, name, hash: stored, former_hash, former_until_ms, scopes: words, expires_ms, .. } = row;
    let is_former = former_hash.is_some_and(|former| secret::is_same(&former, hash));
    let until_ms = match (secret::is_same(&stored, hash), is_former) {
        (true, _) => expires_ms,
        (false, true) => [expires_ms, former_until_ms].into_iter().flatten().min(),
        (false, false) => return Ok(None),
    };
    Ok(Some(Token { id, name, scopes: scopes(&words), until_ms }))
}

/// Scopes of a row; a word that this version does not know allows nothing.
fn scopes(words: &str) -> Vec<Scope> {
    words.split_ascii_whitespace().filter_map(Scope::of).collect()
}

/// Writes down when tokens were used, until shutdown and once more at it.
pub(crate) async fn note_uses(parts: Shared) {
    let mut ending = false;
    while !ending {
        tokio::select! {
            () = parts.shutdown.cancelled() => ending = true,
            () = tokio::time::sleep(NOTE_EVERY) => {}
        }
        if let Err(error) = parts.access.note_uses(&parts.store).await {
            tracing::debug!(%error, "uses of tokens could not be written down; they are kept for the next time");
        }
    }
}
