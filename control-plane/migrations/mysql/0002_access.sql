CREATE TABLE IF NOT EXISTS tokens (
    name           VARCHAR(191) NOT NULL PRIMARY KEY,
    hash           VARCHAR(191) NOT NULL,
    scopes         TEXT         NOT NULL,
    created_ms     BIGINT       NOT NULL,
    UNIQUE KEY tokens_by_hash (hash)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS purges (
    track          VARCHAR(191) NOT NULL PRIMARY KEY,
    generation     BIGINT       NOT NULL,
    KEY purges_by_generation (generation)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- One row. Whoever changes what edges are told locks it first, so that revisions become visible in their order.
CREATE TABLE IF NOT EXISTS snapshot_revision (
    one            BIGINT       NOT NULL PRIMARY KEY CHECK (one = 1),
    revision       BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
INSERT IGNORE INTO snapshot_revision (one, revision) VALUES (1, 0);
