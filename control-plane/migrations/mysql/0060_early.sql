-- The same table as that of SQLite under the same number. The statement can be repeated.
CREATE TABLE IF NOT EXISTS early (
    job            VARCHAR(191) NOT NULL,
    fence          BIGINT       NOT NULL,
    version        VARCHAR(191) NOT NULL,
    created_ms     BIGINT       NOT NULL,
    PRIMARY KEY (job, fence),
    CONSTRAINT early_of_job FOREIGN KEY (job) REFERENCES jobs (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
