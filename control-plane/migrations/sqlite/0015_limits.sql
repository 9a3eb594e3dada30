-- Limit classes that edges are told of. `sort` is limits or streams; `class` is JSON, as the API takes it, with every default written out.
CREATE TABLE limit_classes (
    sort           TEXT    NOT NULL,
    name           TEXT    NOT NULL,
    class          TEXT    NOT NULL,
    changed_ms     INTEGER NOT NULL,
    PRIMARY KEY (sort, name)
);
