-- When a job of each publisher was claimed last: of two publishers with as many running jobs, the one that waited longer is next.
CREATE TABLE queue_turns (
    publisher      TEXT    NOT NULL PRIMARY KEY,
    served_ms      INTEGER NOT NULL
);
