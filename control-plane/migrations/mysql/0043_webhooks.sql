-- The same tables as those of SQLite under the same number. Each statement can be repeated.
CREATE TABLE IF NOT EXISTS webhooks (
    id           VARCHAR(64)  NOT NULL PRIMARY KEY,
    url          TEXT         NOT NULL,
    events       VARCHAR(191) NOT NULL,
    secret       VARCHAR(191) NOT NULL,
    created_ms   BIGINT       NOT NULL,
    is_full      BIGINT       NOT NULL DEFAULT 0,
    missed       BIGINT       NOT NULL DEFAULT 0
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS webhook_deliveries (
    id           VARCHAR(64)  NOT NULL PRIMARY KEY,
    webhook      VARCHAR(64)  NOT NULL,
    event        VARCHAR(64)  NOT NULL,
    body         TEXT         NOT NULL,
    made_ms      BIGINT       NOT NULL,
    state        VARCHAR(16)  NOT NULL,
    tries        BIGINT       NOT NULL DEFAULT 0,
    due_ms       BIGINT       NOT NULL,
    ended_ms     BIGINT,
    status       BIGINT,
    reason       VARCHAR(191),
    KEY webhook_deliveries_due (webhook, state, due_ms),
    KEY webhook_deliveries_of (webhook, made_ms, id),
    KEY webhook_deliveries_ended (ended_ms)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
