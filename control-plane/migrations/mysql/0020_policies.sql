-- As in sqlite/0020_policies.sql, where the columns are explained.
CREATE TABLE IF NOT EXISTS policies (
    name           VARCHAR(191) NOT NULL PRIMARY KEY,
    world          VARCHAR(191) NOT NULL,
    active         VARCHAR(191),
    stack          TEXT         NOT NULL,
    candidate      VARCHAR(191),
    trial          VARCHAR(191),
    share          BIGINT       NOT NULL DEFAULT 0,
    trial_since_ms BIGINT       NOT NULL DEFAULT 0,
    created_ms     BIGINT       NOT NULL,
    updated_ms     BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS policy_versions (
    policy         VARCHAR(191) NOT NULL,
    version        VARCHAR(191) NOT NULL,
    digest         VARCHAR(191) NOT NULL,
    bytes          BIGINT       NOT NULL,
    config         MEDIUMTEXT   NOT NULL,
    asked_at       BIGINT       NOT NULL,
    on_failure     VARCHAR(191) NOT NULL,
    imports        TEXT         NOT NULL,
    vectors        BIGINT       NOT NULL,
    signer         VARCHAR(191),
    uploaded_by    VARCHAR(191) NOT NULL,
    note           TEXT,
    pushed_ms      BIGINT,
    created_ms     BIGINT       NOT NULL,
    PRIMARY KEY (policy, version),
    KEY policy_versions_by_digest (digest)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS policy_parts (
    digest         VARCHAR(191) NOT NULL,
    part           BIGINT       NOT NULL,
    body           MEDIUMBLOB   NOT NULL,
    PRIMARY KEY (digest, part)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS policy_history (
    seq            BIGINT       NOT NULL PRIMARY KEY,
    policy         VARCHAR(191) NOT NULL,
    done_by        VARCHAR(191) NOT NULL,
    act            VARCHAR(191) NOT NULL,
    version        VARCHAR(191),
    from_version   VARCHAR(191),
    share          BIGINT,
    note           TEXT,
    KEY policy_history_by_policy (policy, seq)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS policy_verdicts (
    id             VARCHAR(191) NOT NULL PRIMARY KEY,
    policy         VARCHAR(191) NOT NULL,
    version        VARCHAR(191) NOT NULL,
    bucket_ms      BIGINT       NOT NULL,
    verdict        VARCHAR(191) NOT NULL,
    reason         VARCHAR(191) NOT NULL,
    calls          BIGINT       NOT NULL,
    took_ns        BIGINT       NOT NULL,
    KEY policy_verdicts_by_policy (policy, bucket_ms),
    KEY policy_verdicts_by_age (bucket_ms)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS policy_differences (
    id             VARCHAR(191) NOT NULL PRIMARY KEY,
    policy         VARCHAR(191) NOT NULL,
    shadow         VARCHAR(191) NOT NULL,
    active         VARCHAR(191) NOT NULL,
    said           VARCHAR(191) NOT NULL,
    would          VARCHAR(191) NOT NULL,
    calls          BIGINT       NOT NULL,
    took_ns        BIGINT       NOT NULL,
    examples       MEDIUMTEXT   NOT NULL,
    updated_ms     BIGINT       NOT NULL,
    KEY policy_differences_by_shadow (policy, shadow)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
