-- Transitions of plays on their way to Fluvio, written in the transaction that brought them about; `place` is their order
-- within it. Empty but for moments.
CREATE TABLE IF NOT EXISTS plays_out (
    id             VARCHAR(191) NOT NULL PRIMARY KEY,
    play           VARCHAR(191) NOT NULL,
    record         MEDIUMTEXT   NOT NULL,
    made_ms        BIGINT       NOT NULL,
    place          BIGINT       NOT NULL,
    KEY plays_out_by_age (made_ms, place)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
