-- What the tally counts, wider, and the facts that are kept for exports and for counting again.

-- More columns per track and hour; the track '' is the whole house. `facts_…` and `bytes_…` are by where the bytes came from; `ttfb_…` are
-- the buckets of a histogram whose bounds stand in `store/sums.rs`; `cmcd_…` is what players said of themselves.
ALTER TABLE sums ADD COLUMN sessions INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN facts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN decile_1 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN decile_2 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN decile_3 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN decile_4 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN decile_5 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN decile_6 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN decile_7 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN decile_8 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN decile_9 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN decile_10 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN facts_hit_memory INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN facts_hit_disk INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN facts_miss INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN facts_coalesced INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN facts_stale INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN facts_bypass INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN bytes_hit_memory INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN bytes_hit_disk INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN bytes_miss INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN bytes_coalesced INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN bytes_stale INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN bytes_bypass INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_00 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_01 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_02 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_03 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_04 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_05 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_06 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_07 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_08 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_09 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_10 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_11 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_12 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_13 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_14 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_15 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_16 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_17 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_18 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_19 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_20 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_21 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_22 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_23 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_24 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_25 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN ttfb_26 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN cmcd INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN cmcd_starved INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN cmcd_startup INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN cmcd_mtp INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN cmcd_mtp_kbps INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN cmcd_rtp INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sums ADD COLUMN cmcd_rtp_kbps INTEGER NOT NULL DEFAULT 0;
INSERT INTO sums (track, hour_ms, plays, qualified, ended, listeners, media_ms, bytes, quartile_1, quartile_2, quartile_3, quartile_4)
    SELECT '', hour_ms, SUM(plays), SUM(qualified), SUM(ended), SUM(listeners), SUM(media_ms), SUM(bytes),
           SUM(quartile_1), SUM(quartile_2), SUM(quartile_3), SUM(quartile_4)
    FROM sums GROUP BY hour_ms;

-- A play stands in the hour of its earliest fact.
UPDATE plays SET first_ms = started_ms;
ALTER TABLE plays DROP COLUMN started_ms;
ALTER TABLE plays ADD COLUMN decile INTEGER NOT NULL DEFAULT 0;
-- Until when its listener has something to hear.
ALTER TABLE plays ADD COLUMN until_ms INTEGER NOT NULL DEFAULT 0;
CREATE INDEX plays_by_start ON plays (first_ms, id);

-- Which facts were counted: a bit for each, in blocks of numbers that follow one another within a boot of an edge. Pruned by age.
DROP TABLE seen;
CREATE TABLE seen_blocks (
    stem           TEXT    NOT NULL,
    block          INTEGER NOT NULL,
    bits           BLOB    NOT NULL,
    seen_ms        INTEGER NOT NULL,
    PRIMARY KEY (stem, block)
) WITHOUT ROWID;
CREATE INDEX seen_blocks_by_age ON seen_blocks (seen_ms);

-- Files of facts and denials that are kept. `folder` names the folder by a number that lies in it; `first` is the number of the
-- first record, counted from the first that was ever kept; `bytes` is how far the file is committed. Moves in the transaction that counts.
CREATE TABLE kept_files (
    folder         TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    first          INTEGER NOT NULL,
    records        INTEGER NOT NULL,
    bytes          INTEGER NOT NULL,
    from_ms        INTEGER NOT NULL,
    to_ms          INTEGER NOT NULL,
    begun_ms       INTEGER NOT NULL,
    PRIMARY KEY (folder, kind, first)
);

-- The number after the last record of a file that was let go.
CREATE TABLE kept_gone (
    folder         TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    next           INTEGER NOT NULL,
    PRIMARY KEY (folder, kind)
);
