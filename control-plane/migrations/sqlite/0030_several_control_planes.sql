-- The oldest program that may still use this database, as the number of the newest migration that it knows. A migration that only adds leaves it;
-- one that takes away what older programs use raises it, and is shipped one release after the programs that no longer use it.
CREATE TABLE schema_floor (
    one            INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    floor          INTEGER NOT NULL
);
INSERT INTO schema_floor (one, floor) VALUES (1, 1);

-- Whose turn it is at what must run once among all control planes. `fence` rises with every new holder and never falls.
CREATE TABLE leases (
    name           TEXT    NOT NULL PRIMARY KEY,
    holder         TEXT    NOT NULL,
    fence          INTEGER NOT NULL,
    until_ms       INTEGER NOT NULL
);

-- On whose behalf a track was added; its jobs carry it too, so that the queue can be fair between publishers by an index of its own.
ALTER TABLE tracks ADD COLUMN publisher TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN publisher TEXT NOT NULL DEFAULT '';
CREATE INDEX jobs_by_publisher ON jobs (state, publisher);
