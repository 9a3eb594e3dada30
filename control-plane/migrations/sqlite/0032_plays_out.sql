-- Transitions of plays on their way to Fluvio, written in the transaction that brought them about; `place` is their order
-- within it. Empty but for moments.
CREATE TABLE plays_out (
    id             TEXT    NOT NULL PRIMARY KEY,
    play           TEXT    NOT NULL,
    record         TEXT    NOT NULL,
    made_ms        INTEGER NOT NULL,
    place          INTEGER NOT NULL
);
CREATE INDEX plays_out_by_age ON plays_out (made_ms, place);
