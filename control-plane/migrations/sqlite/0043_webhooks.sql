-- Whom events are told to. `secret` signs deliveries, so that it is kept as it is, as the keys of tickets are. `events`: words, separated by
-- spaces. `is_full`: as much waits for it as may; events are counted in `missed` instead of stored until less does.
CREATE TABLE webhooks (
    id           TEXT    NOT NULL PRIMARY KEY,
    url          TEXT    NOT NULL,
    events       TEXT    NOT NULL,
    secret       TEXT    NOT NULL,
    created_ms   INTEGER NOT NULL,
    is_full      INTEGER NOT NULL DEFAULT 0,
    missed       INTEGER NOT NULL DEFAULT 0
);

-- What is told, stored in the transaction of the change itself. `state`: `waiting`, `delivered` or `dead`. The id is the same each time that it
-- is sent.
CREATE TABLE webhook_deliveries (
    id           TEXT    NOT NULL PRIMARY KEY,
    webhook      TEXT    NOT NULL,
    event        TEXT    NOT NULL,
    body         TEXT    NOT NULL,
    made_ms      INTEGER NOT NULL,
    state        TEXT    NOT NULL,
    tries        INTEGER NOT NULL DEFAULT 0,
    due_ms       INTEGER NOT NULL,
    ended_ms     INTEGER,
    status       INTEGER,
    reason       TEXT
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook, state, due_ms);
CREATE INDEX webhook_deliveries_of ON webhook_deliveries (webhook, made_ms, id);
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (ended_ms);
