CREATE TABLE IF NOT EXISTS kept_files (
    folder         VARCHAR(191) NOT NULL,
    kind           VARCHAR(191) NOT NULL,
    first          BIGINT       NOT NULL,
    records        BIGINT       NOT NULL,
    bytes          BIGINT       NOT NULL,
    from_ms        BIGINT       NOT NULL,
    to_ms          BIGINT       NOT NULL,
    begun_ms       BIGINT       NOT NULL,
    PRIMARY KEY (folder, kind, first)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS kept_gone (
    folder         VARCHAR(191) NOT NULL,
    kind           VARCHAR(191) NOT NULL,
    next           BIGINT       NOT NULL,
    PRIMARY KEY (folder, kind)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
