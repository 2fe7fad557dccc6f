-- The ledger as it was first released. Migrations are numbered, only ever added, and never edited after a release.

-- "opto": tells an optout database from any other SQLite file.
PRAGMA application_id = 0x6f70746f;

-- record: the length of the body (unsigned LEB128), the first 8 octets of its leaf hash, the body. One column, with its length
-- in it, so that the records of a slice can be joined into one value and read in one call into SQLite.
CREATE TABLE entry (
	position INTEGER PRIMARY KEY,
	record   BLOB NOT NULL
) STRICT;

-- What can be destroyed: rows are deleted under secure_delete.
CREATE TABLE personal (
	position INTEGER PRIMARY KEY,
	body     BLOB NOT NULL
) STRICT;

CREATE TABLE request (
	sender   INTEGER NOT NULL,
	id       BLOB    NOT NULL,
	content  BLOB    NOT NULL,
	position INTEGER NOT NULL,
	PRIMARY KEY (sender, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE head (
	size INTEGER PRIMARY KEY,
	root BLOB NOT NULL
) STRICT;

-- One row: the newest committed state, so that the tree can be extended without reading it.
CREATE TABLE tip (
	one    INTEGER PRIMARY KEY CHECK (one = 1),
	ledger TEXT    NOT NULL,
	size   INTEGER NOT NULL,
	root   BLOB    NOT NULL,
	edge   BLOB    NOT NULL
) STRICT;

-- A new identity; the root of the empty tree is SHA-256 of nothing (RFC 6962 section 2.1).
INSERT INTO tip VALUES (1, lower(hex(randomblob(8))), 0, x'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855', x'');

-- Append only (law 1). Triggers on update and delete cost an insert nothing.
CREATE TRIGGER entry_update BEFORE UPDATE ON entry BEGIN SELECT raise(ABORT, 'entries are append-only'); END;
CREATE TRIGGER entry_delete BEFORE DELETE ON entry BEGIN SELECT raise(ABORT, 'entries are append-only'); END;
CREATE TRIGGER head_update  BEFORE UPDATE ON head  BEGIN SELECT raise(ABORT, 'heads are append-only'); END;
CREATE TRIGGER head_delete  BEFORE DELETE ON head  BEGIN SELECT raise(ABORT, 'heads are append-only'); END;
CREATE TRIGGER tip_ledger   BEFORE UPDATE OF ledger ON tip BEGIN SELECT raise(ABORT, 'the identity of a ledger never changes'); END;
CREATE TRIGGER tip_delete   BEFORE DELETE ON tip   BEGIN SELECT raise(ABORT, 'a ledger always has a tip'); END;
