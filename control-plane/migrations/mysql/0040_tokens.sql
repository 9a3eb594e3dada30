-- The same tables as those of SQLite under the same number. Each statement can be repeated.
CREATE TABLE IF NOT EXISTS api_tokens (
    id              VARCHAR(191) NOT NULL PRIMARY KEY,
    name            VARCHAR(191) NOT NULL,
    hash            VARCHAR(191) NOT NULL,
    former_hash     VARCHAR(191),
    former_until_ms BIGINT,
    scopes          TEXT         NOT NULL,
    created_ms      BIGINT       NOT NULL,
    rotated_ms      BIGINT,
    expires_ms      BIGINT,
    KEY api_tokens_by_expiry (expires_ms)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS token_uses (
    token           VARCHAR(191) NOT NULL PRIMARY KEY,
    last_used_ms    BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
