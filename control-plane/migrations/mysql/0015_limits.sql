CREATE TABLE IF NOT EXISTS limit_classes (
    sort           VARCHAR(191) NOT NULL,
    name           VARCHAR(191) NOT NULL,
    class          TEXT         NOT NULL,
    changed_ms     BIGINT       NOT NULL,
    PRIMARY KEY (sort, name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
