-- The same tables as those of SQLite under the same number. Every statement can be repeated.
CREATE TABLE IF NOT EXISTS uploads (
    track          VARCHAR(191) NOT NULL PRIMARY KEY,
    object_key     TEXT         NOT NULL,
    upload_id      TEXT         NOT NULL,
    bytes          BIGINT       NOT NULL,
    part_bytes     BIGINT       NOT NULL,
    fingerprint    VARCHAR(191),
    created_ms     BIGINT       NOT NULL,
    asked_ms       BIGINT,
    held_ms        BIGINT       NOT NULL DEFAULT 0,
    due_ms         BIGINT       NOT NULL DEFAULT 0,
    tries          BIGINT       NOT NULL DEFAULT 0
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS upload_parts (
    track          VARCHAR(191) NOT NULL,
    number         BIGINT       NOT NULL,
    bytes          BIGINT,
    etag           VARCHAR(191),
    said           VARCHAR(191),
    md5            VARCHAR(64),
    PRIMARY KEY (track, number)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS sources (
    track          VARCHAR(191) NOT NULL PRIMARY KEY,
    sha256         VARCHAR(64)  NOT NULL,
    CONSTRAINT source_of_track FOREIGN KEY (track) REFERENCES tracks (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Whoever adds a track counts what its publisher has not finished.
INSERT IGNORE INTO turns (name) VALUES ('uploads');
