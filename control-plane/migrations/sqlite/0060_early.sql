-- Attempts that listeners could play while they were still encoded. The row of an attempt that died says to the next one
-- whose listeners it carries on; rows go with the end of their job.
CREATE TABLE early (
    job            TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    fence          INTEGER NOT NULL,
    version        TEXT    NOT NULL,
    created_ms     INTEGER NOT NULL,
    PRIMARY KEY (job, fence)
);
