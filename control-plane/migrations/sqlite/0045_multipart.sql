-- Uploads in parts that are not finished. `asked_ms`: when the publisher said that all parts are there; then `due_ms` is when the completion is
-- tried again, and `held_ms` until when somebody has it in hand. A row goes with the end of its upload; no foreign key, since the parts of a track
-- that was deleted must still be given up in the bucket.
CREATE TABLE uploads (
    track          TEXT    NOT NULL PRIMARY KEY,
    object_key     TEXT    NOT NULL,
    upload_id      TEXT    NOT NULL,
    bytes          INTEGER NOT NULL,
    part_bytes     INTEGER NOT NULL,
    fingerprint    TEXT,
    created_ms     INTEGER NOT NULL,
    asked_ms       INTEGER,
    held_ms        INTEGER NOT NULL DEFAULT 0,
    due_ms         INTEGER NOT NULL DEFAULT 0,
    tries          INTEGER NOT NULL DEFAULT 0
);

-- `etag` and `bytes` as the store lists the part, `said` the tag that the publisher was given for it, `md5` what its URL was signed for (base64).
CREATE TABLE upload_parts (
    track          TEXT    NOT NULL,
    number         INTEGER NOT NULL,
    bytes          INTEGER,
    etag           TEXT,
    said           TEXT,
    md5            TEXT,
    PRIMARY KEY (track, number)
);

-- The digest that a publisher declared of a whole file, in hex; the worker that reads the file holds it against this.
CREATE TABLE sources (
    track          TEXT    NOT NULL PRIMARY KEY REFERENCES tracks (id) ON DELETE CASCADE,
    sha256         TEXT    NOT NULL
);
