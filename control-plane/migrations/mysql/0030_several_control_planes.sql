CREATE TABLE IF NOT EXISTS schema_floor (
    one            BIGINT       NOT NULL PRIMARY KEY CHECK (one = 1),
    floor          BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
INSERT IGNORE INTO schema_floor (one, floor) VALUES (1, 1);

CREATE TABLE IF NOT EXISTS leases (
    name           VARCHAR(191) NOT NULL PRIMARY KEY,
    holder         VARCHAR(191) NOT NULL,
    fence          BIGINT       NOT NULL,
    until_ms       BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- One row for each kind of work that is done by one transaction at a time. SQLite, whose writers queue anyway, needs none.
CREATE TABLE IF NOT EXISTS turns (
    name           VARCHAR(191) NOT NULL PRIMARY KEY
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
INSERT IGNORE INTO turns (name) VALUES ('tally');
