-- The database, as ordered migrations: each part below a line "-- version N" runs once, in one transaction, when
-- PRAGMA user_version is below N. A released part is never edited; a change is a new part.

-- version 1
CREATE TABLE pastes (
  n           INTEGER PRIMARY KEY,      -- order of insertion
  id          TEXT    NOT NULL UNIQUE,  -- lower-case hex
  content     INTEGER NOT NULL,         -- content number: which chunks
  size        INTEGER NOT NULL,         -- bytes of content
  mime        TEXT    NOT NULL,
  sha256      BLOB    NOT NULL,         -- of the content
  created_at  INTEGER NOT NULL,         -- Unix seconds, like all times here
  modified_at INTEGER NOT NULL,         -- when the content was last replaced
  expires_at  INTEGER NOT NULL,         -- gone from this second on
  life        INTEGER NOT NULL,         -- seconds from each read; 0: expires_at is a fixed deadline
  owner       TEXT    NOT NULL,         -- owner id, '' for anonymous
  owner_sha1  TEXT    NOT NULL,         -- SHA-1 of a foreign owner known by SHA-256, else ''
  burn        INTEGER NOT NULL,         -- 1: the first read deletes it
  password    BLOB,                     -- salt (32) | PBKDF2 key (32), NULL without
  proof       BLOB,                     -- SHA-256 of the read proof, NULL without
  token       BLOB    NOT NULL,         -- SHA-256 of the delete token
  name        TEXT    NOT NULL          -- display name
) STRICT;
CREATE INDEX pastes_expiry ON pastes (expires_at);
CREATE INDEX pastes_created ON pastes (created_at);
CREATE INDEX pastes_owner ON pastes (owner, created_at);
CREATE INDEX pastes_owner_sha1 ON pastes (owner_sha1, created_at) WHERE owner_sha1 <> '';

-- key = content number * 2^20 + sequence from 0. pad is zeros that fill the part of a record which SQLite keeps on the
-- b-tree page, so that content lies on overflow pages alone: those are zeroed when freed, never rebuilt (store.go, padFor).
CREATE TABLE chunks (
  key  INTEGER PRIMARY KEY,
  pad  BLOB NOT NULL,
  data BLOB NOT NULL
) STRICT;

-- Contents that no paste names. live = 1: an upload or a burning read is using it in this run of the server; at start
-- every row counts as dead. The sweep removes dead ones in small steps.
CREATE TABLE garbage (
  content INTEGER PRIMARY KEY,
  live    INTEGER NOT NULL
) STRICT;

-- What is stored, kept by each commit, so that a start or a quota never walks the tables.
CREATE TABLE totals (
  one    INTEGER PRIMARY KEY CHECK (one = 1),
  bytes  INTEGER NOT NULL,              -- of chunk data, garbage included
  pastes INTEGER NOT NULL
) STRICT;
INSERT INTO totals VALUES (1, 0, 0);

-- What the operator should hear of from `flaskpaste check`.
CREATE TABLE notes (
  name TEXT PRIMARY KEY,
  at   INTEGER NOT NULL,
  text TEXT NOT NULL
) STRICT;

-- version 2
-- Proofs of work that were used, until they expire. Emptied at start: challenges are signed with a key that ends with the process.
CREATE TABLE spent (
  nonce   BLOB PRIMARY KEY,
  expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX spent_expiry ON spent (expires);

-- version 3
-- pad is a page of zeros: more than SQLite keeps of a record on the b-tree page, so that the target behind it lies on overflow
-- pages alone, as content does in chunks.
CREATE TABLE shorts (
  n          INTEGER PRIMARY KEY,
  id         TEXT    NOT NULL UNIQUE,   -- base62
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  owner      TEXT    NOT NULL,          -- these as in pastes
  owner_sha1 TEXT    NOT NULL,
  token      BLOB    NOT NULL,
  pad        BLOB    NOT NULL,
  target     TEXT    NOT NULL           -- as it is sent
) STRICT;
CREATE INDEX shorts_expiry ON shorts (expires_at);
CREATE INDEX shorts_created ON shorts (created_at);
CREATE INDEX shorts_owner ON shorts (owner, created_at);
CREATE INDEX shorts_owner_sha1 ON shorts (owner_sha1, created_at) WHERE owner_sha1 <> '';

-- version 4
-- The certificates that this server issued: a row is what makes one trusted. Renewals share the owner of the first.
CREATE TABLE certs (
  sha256     TEXT    PRIMARY KEY,       -- fingerprints of the DER, lower-case hex
  sha1       TEXT    NOT NULL UNIQUE,
  serial     TEXT    NOT NULL UNIQUE,   -- 32 lower-case hex digits
  owner      TEXT    NOT NULL,          -- SHA-256 of the first certificate of the line
  name       TEXT    NOT NULL,          -- common name; decides nothing
  issued_at  INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  revoked_at INTEGER NOT NULL,          -- 0: not revoked
  reason     TEXT    NOT NULL,          -- of the revocation, RFC 5280 name
  vouched    INTEGER NOT NULL,          -- 1: the line was begun by the operator or an admin
  admin      INTEGER NOT NULL           -- the same in all rows of a line
) STRICT, WITHOUT ROWID;
CREATE INDEX certs_owner ON certs (owner);
CREATE INDEX certs_enrolled ON certs (expires_at) WHERE vouched = 0;

-- The CA: its certificate (DER) and its sealed key (pki.go, sealCAKey). One without the other stops the start.
CREATE TABLE authority (
  part TEXT PRIMARY KEY CHECK (part IN ('certificate', 'key')),
  data BLOB NOT NULL
) STRICT, WITHOUT ROWID;
