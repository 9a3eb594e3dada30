-- Keys beside those of the configuration. A NULL `secret`: the key is the configuration's, and only its times are here. Times of keys and
-- revocations are seconds since the epoch, as tickets count.
CREATE TABLE signing_keys (
    kid            TEXT    NOT NULL PRIMARY KEY,
    secret         TEXT,
    not_before     INTEGER,
    retire_at      INTEGER,
    created_ms     INTEGER NOT NULL
);

-- How often each key was used, over all edges and their restarts.
CREATE TABLE key_uses (
    kid            TEXT    NOT NULL PRIMARY KEY,
    accepted       INTEGER NOT NULL DEFAULT 0,
    out_of_time    INTEGER NOT NULL DEFAULT 0,
    last_used_ms   INTEGER NOT NULL
);

-- `revision` is that of the snapshot which told of the last change; one that was taken back stays as `lifted` until it would have ended,
-- so that edges hear of it.
CREATE TABLE revocations (
    id             TEXT    NOT NULL PRIMARY KEY,
    sid            TEXT,
    sub            TEXT,
    track          TEXT,
    issued_before  INTEGER,
    until          INTEGER NOT NULL,
    note           TEXT,
    created_ms     INTEGER NOT NULL,
    lifted         INTEGER NOT NULL DEFAULT 0,
    revision       INTEGER NOT NULL
);
CREATE INDEX revocations_by_revision ON revocations (revision);
CREATE INDEX revocations_by_end ON revocations (until);
CREATE INDEX purges_by_generation ON purges (generation);

-- The revisions that were. An edge's cursor that is none of them belongs to a database that was restored from an older copy, or is too
-- old: such an edge gets the whole.
CREATE TABLE snapshot_changes (
    revision       INTEGER NOT NULL PRIMARY KEY
);

-- The last report of each edge.
CREATE TABLE edges (
    name           TEXT    NOT NULL PRIMARY KEY,
    report         TEXT    NOT NULL,
    seen_ms        INTEGER NOT NULL
);
CREATE INDEX edges_by_age ON edges (seen_ms);

-- How far the logs of edges were counted: `log` names a folder of facts, `stream` is facts or denials. Moves in the transaction that
-- counts.
CREATE TABLE edge_logs (
    edge           TEXT    NOT NULL,
    log            TEXT    NOT NULL,
    stream         TEXT    NOT NULL,
    position       INTEGER NOT NULL,
    seen_ms        INTEGER NOT NULL,
    PRIMARY KEY (edge, log, stream)
);
CREATE INDEX edge_logs_by_age ON edge_logs (seen_ms);
