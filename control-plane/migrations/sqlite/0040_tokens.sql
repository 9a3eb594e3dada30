-- Tokens that are made while everything runs. In a table of their own beside those of the configuration: an older program, which would ask neither
-- for an end nor for a revocation, knows none of them. A token's secret is kept as its hex SHA-256.
CREATE TABLE api_tokens (
    id              TEXT    NOT NULL PRIMARY KEY,
    name            TEXT    NOT NULL,
    hash            TEXT    NOT NULL,
    -- The secret before the last rotation, and until when it is taken, ms since the epoch.
    former_hash     TEXT,
    former_until_ms INTEGER,
    scopes          TEXT    NOT NULL,
    created_ms      INTEGER NOT NULL,
    rotated_ms      INTEGER,
    expires_ms      INTEGER
);
CREATE INDEX api_tokens_by_expiry ON api_tokens (expires_ms);

-- When a token (by its id; for those of the configuration that is their name) was used last, to some seconds.
CREATE TABLE token_uses (
    token           TEXT    NOT NULL PRIMARY KEY,
    last_used_ms    INTEGER NOT NULL
);
