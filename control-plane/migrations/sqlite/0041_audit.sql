-- Who changed what. `sort`: `admin` and `change` (what was done, by the scope of its route), `ticket` (what was issued), `refused`; each is
-- bounded by itself, so that many of one push out none of another. A change is stored before it begins: one that has no `ended_ms` was cut
-- off by the end of its control plane. `times`: what is refused over and over is one row.
CREATE TABLE audit (
    id           TEXT    NOT NULL PRIMARY KEY,
    at_ms        INTEGER NOT NULL,
    ended_ms     INTEGER,
    sort         TEXT    NOT NULL,
    operation    TEXT    NOT NULL,
    method       TEXT    NOT NULL,
    resource     TEXT    NOT NULL,
    -- The token's id and name; none where the token was not known.
    actor        TEXT,
    actor_name   TEXT,
    address      TEXT    NOT NULL,
    request_id   TEXT,
    status       INTEGER,
    error        TEXT,
    times        INTEGER NOT NULL,
    summary      TEXT
);
CREATE INDEX audit_by_time ON audit (at_ms, id);
CREATE INDEX audit_by_sort ON audit (sort, at_ms);
CREATE INDEX audit_by_actor ON audit (actor, at_ms);
CREATE INDEX audit_by_operation ON audit (operation, at_ms);
CREATE INDEX audit_by_resource ON audit (resource, at_ms);
