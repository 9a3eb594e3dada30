-- Policies and who decides. `stack` is JSON: the versions that were active before, the last one at the end; `null` in it stands for none.
CREATE TABLE policies (
    name           TEXT    NOT NULL PRIMARY KEY,
    world          TEXT    NOT NULL,
    active         TEXT,
    stack          TEXT    NOT NULL,
    candidate      TEXT,
    -- `shadow` or `canary`; `share` is of 10,000 sessions.
    trial          TEXT,
    share          INTEGER NOT NULL DEFAULT 0,
    trial_since_ms INTEGER NOT NULL DEFAULT 0,
    created_ms     INTEGER NOT NULL,
    updated_ms     INTEGER NOT NULL
);

-- Versions as they were uploaded; what is said of one never changes, but for `pushed_ms`: since when edges are to have it ready.
CREATE TABLE policy_versions (
    policy         TEXT    NOT NULL,
    version        TEXT    NOT NULL,
    digest         TEXT    NOT NULL,
    bytes          INTEGER NOT NULL,
    config         TEXT    NOT NULL,
    asked_at       INTEGER NOT NULL,
    on_failure     TEXT    NOT NULL,
    imports        TEXT    NOT NULL,
    vectors        INTEGER NOT NULL,
    signer         TEXT,
    uploaded_by    TEXT    NOT NULL,
    note           TEXT,
    pushed_ms      INTEGER,
    created_ms     INTEGER NOT NULL,
    PRIMARY KEY (policy, version)
);
CREATE INDEX policy_versions_by_digest ON policy_versions (digest);

-- Components by digest, in parts of a megabyte: a statement with a whole one is more than a MariaDB takes as it is set up.
CREATE TABLE policy_parts (
    digest         TEXT    NOT NULL,
    part           INTEGER NOT NULL,
    body           BLOB    NOT NULL,
    PRIMARY KEY (digest, part)
);

-- Who did what. `seq` follows the clock (ms since the epoch) and never repeats.
CREATE TABLE policy_history (
    seq            INTEGER NOT NULL PRIMARY KEY,
    policy         TEXT    NOT NULL,
    done_by        TEXT    NOT NULL,
    act            TEXT    NOT NULL,
    version        TEXT,
    from_version   TEXT,
    share          INTEGER,
    note           TEXT
);
CREATE INDEX policy_history_by_policy ON policy_history (policy, seq);

-- What policies said, over all edges and their restarts, in buckets of ten seconds. `id` is a hash over the five words that name a row.
CREATE TABLE policy_verdicts (
    id             TEXT    NOT NULL PRIMARY KEY,
    policy         TEXT    NOT NULL,
    version        TEXT    NOT NULL,
    bucket_ms      INTEGER NOT NULL,
    verdict        TEXT    NOT NULL,
    reason         TEXT    NOT NULL,
    calls          INTEGER NOT NULL,
    took_ns        INTEGER NOT NULL
);
CREATE INDEX policy_verdicts_by_policy ON policy_verdicts (policy, bucket_ms);
CREATE INDEX policy_verdicts_by_age ON policy_verdicts (bucket_ms);

-- What shadows would have said, likewise. `examples` is JSON.
CREATE TABLE policy_differences (
    id             TEXT    NOT NULL PRIMARY KEY,
    policy         TEXT    NOT NULL,
    shadow         TEXT    NOT NULL,
    active         TEXT    NOT NULL,
    said           TEXT    NOT NULL,
    would          TEXT    NOT NULL,
    calls          INTEGER NOT NULL,
    took_ns        INTEGER NOT NULL,
    examples       TEXT    NOT NULL,
    updated_ms     INTEGER NOT NULL
);
CREATE INDEX policy_differences_by_shadow ON policy_differences (policy, shadow);
