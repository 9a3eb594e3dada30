-- Times are milliseconds since the epoch. Identifiers are our own random text, so that no key depends on the engine.

CREATE TABLE tracks (
    id             TEXT    NOT NULL PRIMARY KEY,
    title          TEXT    NOT NULL,
    title_given    INTEGER NOT NULL DEFAULT 0,
    artist         TEXT,
    album          TEXT,
    filename       TEXT    NOT NULL,
    content_type   TEXT,
    status         TEXT    NOT NULL CHECK (status IN ('uploading', 'queued', 'transcoding', 'ready', 'failed')),
    reason         TEXT,
    message        TEXT,
    upload_key     TEXT    NOT NULL,
    bytes          INTEGER NOT NULL,
    duration_ms    INTEGER,
    version        TEXT,
    artwork        INTEGER NOT NULL DEFAULT 0,
    waveform       INTEGER NOT NULL DEFAULT 0,
    loudness       TEXT,
    renditions     TEXT    NOT NULL DEFAULT '[]',
    created_ms     INTEGER NOT NULL,
    updated_ms     INTEGER NOT NULL
);
CREATE INDEX tracks_by_age ON tracks (created_ms, id);
CREATE INDEX tracks_by_status ON tracks (status, created_ms);

-- `fence` rises with every claim and never falls: what a worker says with an older fence is refused.
-- `due_ms` is when a queued job may be claimed, when a running job's lease ends, when a publishing job is tried again.
-- `attempts` counts attempts that failed and the one that runs, `losses` the workers that were lost; `instance` is the process that runs it.
CREATE TABLE jobs (
    id             TEXT    NOT NULL PRIMARY KEY,
    track          TEXT    NOT NULL REFERENCES tracks (id) ON DELETE CASCADE,
    state          TEXT    NOT NULL CHECK (state IN ('queued', 'running', 'publishing', 'done', 'failed', 'cancelled')),
    priority       INTEGER NOT NULL DEFAULT 0,
    attempts       INTEGER NOT NULL DEFAULT 0,
    max_attempts   INTEGER NOT NULL,
    fence          INTEGER NOT NULL DEFAULT 0,
    losses         INTEGER NOT NULL DEFAULT 0,
    worker         TEXT,
    instance       TEXT,
    due_ms         INTEGER NOT NULL,
    progress       REAL    NOT NULL DEFAULT 0,
    stage          TEXT,
    reason         TEXT,
    message        TEXT,
    completion     TEXT,
    publish_tries  INTEGER NOT NULL DEFAULT 0,
    created_ms     INTEGER NOT NULL,
    updated_ms     INTEGER NOT NULL
);
CREATE INDEX jobs_due ON jobs (state, due_ms);
CREATE INDEX jobs_by_track ON jobs (track, created_ms);

-- `keep` (lines of prefixes) and `fence` say what of a track that lives must stay; a NULL `keep`: nothing.
-- Objects that must go: removed again and again until `until_ms`, because a signed upload or a worker that does
-- not know yet may still write under the prefix after the first removal.
CREATE TABLE removals (
    prefix         TEXT    NOT NULL PRIMARY KEY,
    keep           TEXT,
    fence          INTEGER NOT NULL DEFAULT 0,
    failures       INTEGER NOT NULL DEFAULT 0,
    due_ms         INTEGER NOT NULL,
    until_ms       INTEGER NOT NULL
);
CREATE INDEX removals_due ON removals (due_ms);
