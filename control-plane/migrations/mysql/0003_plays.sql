CREATE TABLE IF NOT EXISTS offsets (
    log            VARCHAR(191) NOT NULL PRIMARY KEY,
    position       BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS seen (
    id             VARCHAR(191) NOT NULL PRIMARY KEY,
    seen_ms        BIGINT       NOT NULL,
    KEY seen_by_age (seen_ms)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS plays (
    id             VARCHAR(191) NOT NULL PRIMARY KEY,
    track          VARCHAR(191) NOT NULL,
    sid            VARCHAR(191) NOT NULL,
    sub            VARCHAR(191),
    started_ms     BIGINT       NOT NULL,
    first_ms       BIGINT       NOT NULL,
    last_ms        BIGINT       NOT NULL,
    ends_ms        BIGINT       NOT NULL,
    ended_ms       BIGINT,
    covered        MEDIUMTEXT   NOT NULL,
    qualified      BIGINT       NOT NULL DEFAULT 0,
    quartile       BIGINT       NOT NULL DEFAULT 0,
    KEY plays_by_listener (track, sid, last_ms),
    KEY plays_open (ended_ms, ends_ms)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS sums (
    track          VARCHAR(191) NOT NULL,
    hour_ms        BIGINT       NOT NULL,
    plays          BIGINT       NOT NULL DEFAULT 0,
    qualified      BIGINT       NOT NULL DEFAULT 0,
    ended          BIGINT       NOT NULL DEFAULT 0,
    listeners      BIGINT       NOT NULL DEFAULT 0,
    media_ms       BIGINT       NOT NULL DEFAULT 0,
    bytes          BIGINT       NOT NULL DEFAULT 0,
    quartile_1     BIGINT       NOT NULL DEFAULT 0,
    quartile_2     BIGINT       NOT NULL DEFAULT 0,
    quartile_3     BIGINT       NOT NULL DEFAULT 0,
    quartile_4     BIGINT       NOT NULL DEFAULT 0,
    PRIMARY KEY (track, hour_ms)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS listeners (
    track          VARCHAR(191) NOT NULL,
    hour_ms        BIGINT       NOT NULL,
    listener       VARCHAR(191) NOT NULL,
    PRIMARY KEY (track, hour_ms, listener),
    KEY listeners_by_hour (hour_ms)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS denials (
    hour_ms        BIGINT       NOT NULL,
    reason         VARCHAR(191) NOT NULL,
    count          BIGINT       NOT NULL DEFAULT 0,
    PRIMARY KEY (hour_ms, reason)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
