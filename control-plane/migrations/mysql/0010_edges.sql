CREATE TABLE IF NOT EXISTS signing_keys (
    kid            VARCHAR(191) NOT NULL PRIMARY KEY,
    secret         TEXT,
    not_before     BIGINT,
    retire_at      BIGINT,
    created_ms     BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS key_uses (
    kid            VARCHAR(191) NOT NULL PRIMARY KEY,
    accepted       BIGINT       NOT NULL DEFAULT 0,
    out_of_time    BIGINT       NOT NULL DEFAULT 0,
    last_used_ms   BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS revocations (
    id             VARCHAR(191) NOT NULL PRIMARY KEY,
    sid            TEXT,
    sub            TEXT,
    track          TEXT,
    issued_before  BIGINT,
    until          BIGINT       NOT NULL,
    note           TEXT,
    created_ms     BIGINT       NOT NULL,
    lifted         BIGINT       NOT NULL DEFAULT 0,
    revision       BIGINT       NOT NULL,
    KEY revocations_by_revision (revision),
    KEY revocations_by_end (until)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS snapshot_changes (
    revision       BIGINT       NOT NULL PRIMARY KEY
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS edges (
    name           VARCHAR(191) NOT NULL PRIMARY KEY,
    report         MEDIUMTEXT   NOT NULL,
    seen_ms        BIGINT       NOT NULL,
    KEY edges_by_age (seen_ms)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS edge_logs (
    edge           VARCHAR(191) NOT NULL,
    log            VARCHAR(191) NOT NULL,
    stream         VARCHAR(191) NOT NULL,
    position       BIGINT       NOT NULL,
    seen_ms        BIGINT       NOT NULL,
    PRIMARY KEY (edge, log, stream),
    KEY edge_logs_by_age (seen_ms)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
