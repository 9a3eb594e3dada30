-- Everything here is written in the transaction that moves the offset, and in no other.
CREATE TABLE offsets (
    log            TEXT    NOT NULL PRIMARY KEY,
    position       INTEGER NOT NULL
);

-- Ids of facts that were counted; pruned by age. Denials have none: anybody can cause them, without a ticket.
CREATE TABLE seen (
    id             TEXT    NOT NULL PRIMARY KEY,
    seen_ms        INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX seen_by_age ON seen (seen_ms);

CREATE TABLE plays (
    id             TEXT    NOT NULL PRIMARY KEY,
    track          TEXT    NOT NULL,
    sid            TEXT    NOT NULL,
    sub            TEXT,
    started_ms     INTEGER NOT NULL,
    first_ms       INTEGER NOT NULL,
    last_ms        INTEGER NOT NULL,
    ends_ms        INTEGER NOT NULL,
    ended_ms       INTEGER,
    covered        TEXT    NOT NULL,
    qualified      INTEGER NOT NULL DEFAULT 0,
    quartile       INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX plays_by_listener ON plays (track, sid, last_ms);
CREATE INDEX plays_open ON plays (ended_ms, ends_ms);

-- Sums per track and hour; the row with hour_ms = -1 is the track's total.
CREATE TABLE sums (
    track          TEXT    NOT NULL,
    hour_ms        INTEGER NOT NULL,
    plays          INTEGER NOT NULL DEFAULT 0,
    qualified      INTEGER NOT NULL DEFAULT 0,
    ended          INTEGER NOT NULL DEFAULT 0,
    listeners      INTEGER NOT NULL DEFAULT 0,
    media_ms       INTEGER NOT NULL DEFAULT 0,
    bytes          INTEGER NOT NULL DEFAULT 0,
    quartile_1     INTEGER NOT NULL DEFAULT 0,
    quartile_2     INTEGER NOT NULL DEFAULT 0,
    quartile_3     INTEGER NOT NULL DEFAULT 0,
    quartile_4     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (track, hour_ms)
);

-- Who was counted into `listeners` of the row of `sums` with the same key.
CREATE TABLE listeners (
    track          TEXT    NOT NULL,
    hour_ms        INTEGER NOT NULL,
    listener       TEXT    NOT NULL,
    PRIMARY KEY (track, hour_ms, listener)
) WITHOUT ROWID;

CREATE TABLE denials (
    hour_ms        INTEGER NOT NULL,
    reason         TEXT    NOT NULL,
    count          INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (hour_ms, reason)
);
