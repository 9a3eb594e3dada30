-- The same table as that of SQLite under the same number. The statement can be repeated.
CREATE TABLE IF NOT EXISTS audit (
    id           VARCHAR(64)  NOT NULL PRIMARY KEY,
    at_ms        BIGINT       NOT NULL,
    ended_ms     BIGINT,
    sort         VARCHAR(16)  NOT NULL,
    operation    VARCHAR(64)  NOT NULL,
    method       VARCHAR(16)  NOT NULL,
    resource     VARCHAR(191) NOT NULL,
    actor        VARCHAR(191),
    actor_name   VARCHAR(191),
    address      VARCHAR(64)  NOT NULL,
    request_id   VARCHAR(64),
    status       BIGINT,
    error        VARCHAR(64),
    times        BIGINT       NOT NULL,
    summary      TEXT,
    KEY audit_by_time (at_ms, id),
    KEY audit_by_sort (sort, at_ms),
    KEY audit_by_actor (actor, at_ms),
    KEY audit_by_operation (operation, at_ms),
    KEY audit_by_resource (resource, at_ms)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
