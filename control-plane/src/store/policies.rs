//! Policies: which version of each decides, what was uploaded, and who did what.
//!
//! Invariants: a version is never changed once it is stored; whoever changes what edges are told raises the revision in the
//! same transaction, and first, so that of two who change the same policy the second sees what the first did.

pub(crate) mod bytes;
pub(crate) mod counts;

use segue_signing::{PolicyCandidate, PolicyDoc, PolicyFailMode, PolicyTrial, PolicyVersion, PolicyWorld};
use serde_json::Value;
use sqlx::FromRow;

use super::{Read, Store, StoreError, Write};

/// A policy, and which of its versions decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyRow {
    pub(crate) name: String,
    pub(crate) world: PolicyWorld,
    pub(crate) active: Option<String>,
    /// What was active before, the last one at the end.
    pub(crate) stack: Vec<Option<String>>,
    pub(crate) candidate: Option<PolicyCandidate>,
    /// Since when the candidate is tried as it is.
    pub(crate) trial_since_ms: i64,
    pub(crate) created_ms: i64,
    pub(crate) updated_ms: i64,
}

/// A version as it was uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VersionRow {
    pub(crate) policy: String,
    pub(crate) version: String,
    pub(crate) digest: String,
    pub(crate) bytes: i64,
    /// A JSON object.
    pub(crate) config: String,
    /// When it is asked: policies are, in this order.
    pub(crate) order: i32,
    pub(crate) on_failure: PolicyFailMode,
    /// The interfaces that it imports.
    pub(crate) imports: Vec<String>,
    /// Self-test vectors that travel with it, all of which it passed.
    pub(crate) vectors: i64,
    /// Whose signature it carries.
    pub(crate) signer: Option<String>,
    pub(crate) uploaded_by: String,
    pub(crate) note: Option<String>,
    /// Since when edges are to have it ready; `None`: they need not.
    pub(crate) pushed_ms: Option<i64>,
    pub(crate) created_ms: i64,
}

/// One line of a policy's history.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub(crate) struct HistoryRow {
    /// Milliseconds since the epoch; unique.
    pub(crate) seq: i64,
    pub(crate) policy: String,
    pub(crate) done_by: String,
    pub(crate) act: String,
    pub(crate) version: Option<String>,
    pub(crate) from_version: Option<String>,
    /// Of 10,000 sessions.
    pub(crate) share: Option<i64>,
    pub(crate) note: Option<String>,
}

/// The word of a world, as it is stored and shown.
pub(crate) const fn world_word(world: PolicyWorld) -> &'static str {
    match world {
        PolicyWorld::Access => "access",
        PolicyWorld::TicketScheme => "ticket-scheme",
    }
}

/// The word of a fail mode.
pub(crate) const fn mode_word(mode: PolicyFailMode) -> &'static str {
    match mode {
        PolicyFailMode::Closed => "closed",
        PolicyFailMode::Open => "open",
    }
}

fn unknown(column: &'static str, value: &str) -> StoreError {
    StoreError::Unknown { column, value: value.to_owned() }
}

#[derive(FromRow)]
struct RawPolicy {
    name: String,
    world: String,
    active: Option<String>,
    stack: String,
    candidate: Option<String>,
    trial: Option<String>,
    share: i64,
    trial_since_ms: i64,
    created_ms: i64,
    updated_ms: i64,
}

impl TryFrom<RawPolicy> for PolicyRow {
    type Error = StoreError;

    fn try_from(raw: RawPolicy) -> Result<Self, StoreError> {
        let world = match raw.world.as_str() {
            "access" => PolicyWorld::Access,
            "ticket-scheme" => PolicyWorld::TicketScheme,
            other => return Err(unknown("policies.world", other)),
        };
        let trial = match raw.trial.as_deref() {
            None => None,
            Some("shadow") => Some(PolicyTrial::Shadow),
            Some("canary") => Some(PolicyTrial::Canary(u16::try_from(raw.share).unwrap_or(0))),
            Some(other) => return Err(unknown("policies.trial", other)),
        };
        Ok(Self {
            name: raw.name,
            world,
            active: raw.active,
            stack: serde_json::from_str(&raw.stack)?,
            candidate: raw.candidate.zip(trial).map(|(version, trial)| PolicyCandidate { version, trial }),
            trial_since_ms: raw.trial_since_ms,
            created_ms: raw.created_ms,
            updated_ms: raw.updated_ms,
        })
    }
}

const POLICY: &str =
    "SELECT name, world, active, stack, candidate, trial, share, trial_since_ms, created_ms, updated_ms FROM policies";

#[derive(FromRow)]
struct RawVersion {
    policy: String,
    version: String,
    digest: String,
    bytes: i64,
    config: String,
    asked_at: i64,
    on_failure: String,
    imports: String,
    vectors: i64,
    signer: Option<String>,
    uploaded_by: String,
    note: Option<String>,
    pushed_ms: Option<i64>,
    created_ms: i64,
}

impl TryFrom<RawVersion> for VersionRow {
    type Error = StoreError;

    fn try_from(raw: RawVersion) -> Result<Self, StoreError> {
        let on_failure = match raw.on_failure.as_str() {
            "closed" => PolicyFailMode::Closed,
            "open" => PolicyFailMode::Open,
            other => return Err(unknown("policy_versions.on_failure", other)),
        };
        Ok(Self {
            policy: raw.policy,
            version: raw.version,
            digest: raw.digest,
            bytes: raw.bytes,
            config: raw.config,
            order: i32::try_from(raw.asked_at).unwrap_or(0),
            on_failure,
            imports: serde_json::from_str(&raw.imports)?,
            vectors: raw.vectors,
            signer: raw.signer,
            uploaded_by: raw.uploaded_by,
            note: raw.note,
            pushed_ms: raw.pushed_ms,
            created_ms: raw.created_ms,
        })
    }
}

const VERSION: &str = "SELECT policy, version, digest, bytes, config, asked_at, on_failure, imports, vectors, signer, uploaded_by, note, \
     pushed_ms, created_ms FROM policy_versions";

/// One policy.
pub(crate) async fn get(tx: &mut Read, name: &str) -> Result<Option<PolicyRow>, StoreError> {
    let sql = format!("{POLICY} WHERE name = ?");
    let raw: Option<RawPolicy> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(name).fetch_optional(&mut **tx).await?;
    raw.map(PolicyRow::try_from).transpose()
}

/// All policies with their versions, by name; versions oldest first. One read transaction, so that they agree.
pub(crate) async fn all(store: &Store) -> Result<Vec<(PolicyRow, Vec<VersionRow>)>, StoreError> {
    let mut tx = store.reading().await?;
    let all = read_all(&mut tx).await?;
    tx.rollback().await?;
    Ok(all)
}

/// One policy with its versions.
pub(crate) async fn one(store: &Store, name: &str) -> Result<Option<(PolicyRow, Vec<VersionRow>)>, StoreError> {
    let mut tx = store.reading().await?;
    let found = match get(&mut tx, name).await? {
        Some(policy) => Some((policy, versions(&mut tx, name).await?)),
        None => None,
    };
    tx.rollback().await?;
    Ok(found)
}

async fn read_all(tx: &mut Read) -> Result<Vec<(PolicyRow, Vec<VersionRow>)>, StoreError> {
    let sql = format!("{POLICY} ORDER BY name");
    let policies: Vec<RawPolicy> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&mut **tx).await?;
    let mut all = Vec::with_capacity(policies.len());
    for raw in policies {
        let policy = PolicyRow::try_from(raw)?;
        let versions = versions(tx, &policy.name).await?;
        all.push((policy, versions));
    }
    Ok(all)
}

/// The versions of a policy, oldest first.
pub(crate) async fn versions(tx: &mut Read, policy: &str) -> Result<Vec<VersionRow>, StoreError> {
    let sql = format!("{VERSION} WHERE policy = ? ORDER BY created_ms, version");
    let raw: Vec<RawVersion> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(policy).fetch_all(&mut **tx).await?;
    raw.into_iter().map(VersionRow::try_from).collect()
}

/// The names of all versions of all policies, as pairs.
pub(crate) async fn names(tx: &mut Write) -> Result<Vec<(String, String)>, StoreError> {
    Ok(sqlx::query_as("SELECT policy, version FROM policy_versions").fetch_all(&mut **tx).await?)
}

/// How many policies there are.
pub(crate) async fn count(tx: &mut Write) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM policies").fetch_one(&mut **tx).await?)
}

/// Stores a policy in place of what is stored under its name.
pub(crate) async fn put(tx: &mut Write, row: &PolicyRow) -> Result<(), StoreError> {
    let (trial, share) = match row.candidate.as_ref().map(|candidate| candidate.trial) {
        None => (None, 0),
        Some(PolicyTrial::Shadow) => (Some("shadow"), 0),
        Some(PolicyTrial::Canary(share)) => (Some("canary"), i64::from(share)),
    };
    sqlx::query("DELETE FROM policies WHERE name = ?").bind(&row.name).execute(&mut **tx).await?;
    sqlx::query(
        "INSERT INTO policies (name, world, active, stack, candidate, trial, share, trial_since_ms, created_ms, updated_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&row.name)
    .bind(world_word(row.world))
    .bind(&row.active)
    .bind(serde_json::to_string(&row.stack)?)
    .bind(row.candidate.as_ref().map(|candidate| candidate.version.as_str()))
    .bind(trial)
    .bind(share)
    .bind(row.trial_since_ms)
    .bind(row.created_ms)
    .bind(row.updated_ms)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Takes a policy away with all its versions; their bytes are [`bytes::forget`]'s.
pub(crate) async fn delete(tx: &mut Write, name: &str) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM policies WHERE name = ?",
        "DELETE FROM policy_versions WHERE policy = ?",
        "DELETE FROM policy_verdicts WHERE policy = ?",
        "DELETE FROM policy_differences WHERE policy = ?",
    ] {
        sqlx::query(sql).bind(name).execute(&mut **tx).await?;
    }
    Ok(())
}

/// Stores a new version.
pub(crate) async fn insert_version(tx: &mut Write, row: &VersionRow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO policy_versions (policy, version, digest, bytes, config, asked_at, on_failure, imports, vectors, signer, \
         uploaded_by, note, pushed_ms, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&row.policy)
    .bind(&row.version)
    .bind(&row.digest)
    .bind(row.bytes)
    .bind(&row.config)
    .bind(i64::from(row.order))
    .bind(mode_word(row.on_failure))
    .bind(serde_json::to_string(&row.imports)?)
    .bind(row.vectors)
    .bind(&row.signer)
    .bind(&row.uploaded_by)
    .bind(&row.note)
    .bind(row.pushed_ms)
    .bind(row.created_ms)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Takes a version away.
pub(crate) async fn delete_version(tx: &mut Write, policy: &str, version: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM policy_versions WHERE policy = ? AND version = ?")
        .bind(policy)
        .bind(version)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Says since when edges are to have a version ready, or that they need not.
pub(crate) async fn set_pushed(tx: &mut Write, policy: &str, version: &str, at: Option<i64>) -> Result<(), StoreError> {
    sqlx::query("UPDATE policy_versions SET pushed_ms = ? WHERE policy = ? AND version = ?")
        .bind(at)
        .bind(policy)
        .bind(version)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// What edges are told of policies.
pub(crate) async fn told(tx: &mut Read) -> Result<Vec<PolicyDoc>, StoreError> {
    let all = read_all(tx).await?;
    let docs = all.into_iter().map(|(policy, versions)| doc(policy, &versions)).collect::<Result<Vec<_>, _>>()?;
    Ok(docs.into_iter().filter(|doc| !doc.versions.is_empty()).collect())
}

/// Order and fail mode are those of the version that decides, so that a rollback brings them back too; where none does, of the one that is
/// tried, else of the newest.
fn doc(policy: PolicyRow, versions: &[VersionRow]) -> Result<PolicyDoc, StoreError> {
    let leading = policy.active.as_ref().or(policy.candidate.as_ref().map(|candidate| &candidate.version));
    let told = versions.iter().filter(|row| row.pushed_ms.is_some());
    let settings = match leading {
        Some(leading) => told.clone().find(|row| row.version == *leading),
        None => told.clone().next_back(),
    };
    let (order, on_failure) = settings.map(|row| (row.order, row.on_failure)).unwrap_or_default();
    let version = |row: &VersionRow| {
        let config: Value = serde_json::from_str(&row.config)?;
        let bytes = u64::try_from(row.bytes).unwrap_or(0);
        Ok::<_, StoreError>(PolicyVersion { version: row.version.clone(), digest: row.digest.clone(), bytes, config })
    };
    Ok(PolicyDoc {
        versions: told.map(version).collect::<Result<_, _>>()?,
        name: policy.name,
        world: policy.world,
        order,
        on_failure,
        active: policy.active,
        candidate: policy.candidate,
    })
}

/// Adds a line to the history; its place follows the clock and is unique.
pub(crate) async fn note(tx: &mut Write, line: HistoryRow) -> Result<(), StoreError> {
    let last: Option<i64> = sqlx::query_scalar("SELECT max(seq) FROM policy_history").fetch_one(&mut **tx).await?;
    sqlx::query(
        "INSERT INTO policy_history (seq, policy, done_by, act, version, from_version, share, note) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(line.seq.max(last.unwrap_or(0) + 1))
    .bind(&line.policy)
    .bind(&line.done_by)
    .bind(&line.act)
    .bind(&line.version)
    .bind(&line.from_version)
    .bind(line.share)
    .bind(&line.note)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The history of a policy before `seq`, newest first. It outlives the policy.
pub(crate) async fn history(
    store: &Store,
    policy: &str,
    before: i64,
    limit: u32,
) -> Result<Vec<HistoryRow>, StoreError> {
    let sql = "SELECT seq, policy, done_by, act, version, from_version, share, note FROM policy_history \
               WHERE policy = ? AND seq < ? ORDER BY seq DESC LIMIT ?";
    Ok(sqlx::query_as(sql).bind(policy).bind(before).bind(i64::from(limit)).fetch_all(store.read()).await?)
}

/// Forgets history from before a time.
pub(crate) async fn prune_history(tx: &mut Write, before: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM policy_history WHERE seq < ?").bind(before).execute(&mut **tx).await?;
    Ok(())
}
