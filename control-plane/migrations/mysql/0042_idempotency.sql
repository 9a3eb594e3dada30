-- The same table as that of SQLite under the same number. The statement can be repeated.
CREATE TABLE IF NOT EXISTS idempotency (
    id           VARCHAR(64)  NOT NULL PRIMARY KEY,
    fingerprint  VARCHAR(64)  NOT NULL,
    holder       VARCHAR(64)  NOT NULL,
    created_ms   BIGINT       NOT NULL,
    until_ms     BIGINT       NOT NULL,
    status       BIGINT,
    answer       MEDIUMBLOB,
    KEY idempotency_by_age (created_ms)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
