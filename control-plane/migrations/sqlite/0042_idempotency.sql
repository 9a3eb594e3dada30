-- Requests that came with an `Idempotency-Key`. `id` is the hash of token and key. While `status` is missing the request is being carried out,
-- until `until_ms` at the latest. `answer` is sealed with a key that is made of the token's secret, which is stored nowhere; there is none
-- where it was too large.
CREATE TABLE idempotency (
    id           TEXT    NOT NULL PRIMARY KEY,
    fingerprint  TEXT    NOT NULL,
    holder       TEXT    NOT NULL,
    created_ms   INTEGER NOT NULL,
    until_ms     INTEGER NOT NULL,
    status       INTEGER,
    answer       BLOB
);
CREATE INDEX idempotency_by_age ON idempotency (created_ms);
