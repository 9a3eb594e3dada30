-- The same tables as those of SQLite under the same numbers, with lengths where MariaDB wants them. Every statement can be repeated: MariaDB
-- commits each by itself, so a migration that was cut off in the middle is run again from its beginning.
-- Texts compare by their bytes. A key is at most 191 characters, so that any two fit an index.

CREATE TABLE IF NOT EXISTS tracks (
    id             VARCHAR(191) NOT NULL PRIMARY KEY,
    title          MEDIUMTEXT   NOT NULL,
    title_given    BIGINT       NOT NULL DEFAULT 0,
    artist         MEDIUMTEXT,
    album          MEDIUMTEXT,
    filename       TEXT         NOT NULL,
    content_type   TEXT,
    status         VARCHAR(16)  NOT NULL CHECK (status IN ('uploading', 'queued', 'transcoding', 'ready', 'failed')),
    reason         VARCHAR(191),
    message        TEXT,
    upload_key     TEXT         NOT NULL,
    bytes          BIGINT       NOT NULL,
    duration_ms    BIGINT,
    version        VARCHAR(191),
    artwork        BIGINT       NOT NULL DEFAULT 0,
    waveform       BIGINT       NOT NULL DEFAULT 0,
    loudness       TEXT,
    renditions     MEDIUMTEXT   NOT NULL DEFAULT ('[]'),
    publisher      VARCHAR(191) NOT NULL DEFAULT '',
    created_ms     BIGINT       NOT NULL,
    updated_ms     BIGINT       NOT NULL,
    KEY tracks_by_age (created_ms, id),
    KEY tracks_by_status (status, created_ms)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS jobs (
    id             VARCHAR(191) NOT NULL PRIMARY KEY,
    track          VARCHAR(191) NOT NULL,
    publisher      VARCHAR(191) NOT NULL DEFAULT '',
    state          VARCHAR(16)  NOT NULL CHECK (state IN ('queued', 'running', 'publishing', 'done', 'failed', 'cancelled')),
    priority       BIGINT       NOT NULL DEFAULT 0,
    attempts       BIGINT       NOT NULL DEFAULT 0,
    max_attempts   BIGINT       NOT NULL,
    fence          BIGINT       NOT NULL DEFAULT 0,
    losses         BIGINT       NOT NULL DEFAULT 0,
    worker         VARCHAR(191),
    instance       VARCHAR(191),
    due_ms         BIGINT       NOT NULL,
    progress       DOUBLE       NOT NULL DEFAULT 0,
    stage          VARCHAR(64),
    reason         VARCHAR(191),
    message        TEXT,
    completion     MEDIUMTEXT,
    publish_tries  BIGINT       NOT NULL DEFAULT 0,
    created_ms     BIGINT       NOT NULL,
    updated_ms     BIGINT       NOT NULL,
    KEY jobs_due (state, due_ms),
    KEY jobs_by_publisher (state, publisher),
    KEY jobs_by_track (track, created_ms),
    CONSTRAINT jobs_of_track FOREIGN KEY (track) REFERENCES tracks (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS removals (
    prefix         VARCHAR(191) NOT NULL PRIMARY KEY,
    keep           MEDIUMTEXT,
    fence          BIGINT       NOT NULL DEFAULT 0,
    failures       BIGINT       NOT NULL DEFAULT 0,
    due_ms         BIGINT       NOT NULL,
    until_ms       BIGINT       NOT NULL,
    KEY removals_due (due_ms)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
