-- Tokens are kept as the hex SHA-256 of their secret; the secret itself is never stored.
CREATE TABLE tokens (
    name           TEXT    NOT NULL PRIMARY KEY,
    hash           TEXT    NOT NULL UNIQUE,
    scopes         TEXT    NOT NULL,
    created_ms     INTEGER NOT NULL
);

-- A purge outlives its track: the generation is part of an edge's cache key, and taking it back would bring back old bytes.
CREATE TABLE purges (
    track          TEXT    NOT NULL PRIMARY KEY,
    generation     INTEGER NOT NULL
);

-- One row: the revision of the snapshot that edges follow.
CREATE TABLE snapshot_revision (
    one            INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    revision       INTEGER NOT NULL
);
INSERT INTO snapshot_revision (one, revision) VALUES (1, 0);
