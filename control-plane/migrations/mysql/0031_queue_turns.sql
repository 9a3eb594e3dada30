CREATE TABLE IF NOT EXISTS queue_turns (
    publisher      VARCHAR(191) NOT NULL PRIMARY KEY,
    served_ms      BIGINT       NOT NULL,
    KEY queue_turns_by_age (served_ms)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
