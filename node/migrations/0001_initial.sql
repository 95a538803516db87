-- Schema 1 of mneme.db. `user_version` holds the schema's number: a file of a newer one is refused and left untouched.

-- The bag of states: one row a group commit, or several in one transaction when it is large. Merging all frames in any order gives the table that memory held.
CREATE TABLE frames (
    -- Counts up by one without gaps from the number that the newest compacted frame names (1 before the first
    -- compaction). Written by the writer task alone.
    id   INTEGER PRIMARY KEY,
    -- One byte of format, eight bytes of XXH3-64 over id and entries, then the entries (storage/frame.rs).
    body BLOB NOT NULL
);

-- What the file remembers besides states. Written by the writer task alone.
CREATE TABLE meta (
    -- `identity` or `members`.
    name  TEXT PRIMARY KEY,
    -- Eight bytes of XXH3-64 over name and content, then the content: for `identity` the node id, 8 bytes big endian;
    -- for `members` CBOR (node/replica/src/codec/greeting.rs).
    value BLOB NOT NULL
) WITHOUT ROWID;
