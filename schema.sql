-- The database, version 1 (PRAGMA user_version). Times are Unix seconds. Every table is STRICT: a type is what it says.

-- A paste, or a short URL: that is a paste whose id begins with s/ and whose content is the target.
CREATE TABLE pastes (
  content     INTEGER PRIMARY KEY,      -- which chunks. A newer content has a higher number: the order of lists
  id          TEXT    NOT NULL UNIQUE,  -- lower-case hex, or s/ and base62
  size        INTEGER NOT NULL,         -- bytes of content
  mime        TEXT    NOT NULL,
  sha256      BLOB    NOT NULL,         -- of the content
  created_at  INTEGER NOT NULL,
  modified_at INTEGER NOT NULL,         -- when the content was last replaced
  expires_at  INTEGER NOT NULL,         -- gone from this second on
  life        INTEGER NOT NULL,         -- seconds from each read; 0: expires_at is a fixed deadline
  owner       TEXT    NOT NULL,         -- owner id, '' for anonymous
  burn        INTEGER NOT NULL,         -- 1: the first read deletes it
  password    BLOB,                     -- salt (32) | PBKDF2 key (32), NULL without
  proof       BLOB,                     -- SHA-256 of the read proof, NULL without
  token       BLOB    NOT NULL,         -- SHA-256 of the delete token
  name        TEXT    NOT NULL          -- display name
) STRICT;
CREATE INDEX pastes_expiry ON pastes (expires_at);
CREATE INDEX pastes_owner ON pastes (owner, id > 's'); -- equal keys in the order of content: a list reads back

-- key = content << 20 | sequence from 0. pad is zeros that fill the part of a record which SQLite keeps on the b-tree
-- page, so that content lies on overflow pages alone: those are zeroed when freed, never rebuilt (store.go, padFor).
CREATE TABLE chunks (
  key  INTEGER PRIMARY KEY,
  pad  BLOB NOT NULL,
  data BLOB NOT NULL
) STRICT;

-- Contents that no row of pastes names. The sweep removes them, chunk by chunk, once due has passed: at once what
-- was deleted or replaced, after the longest transfer what an upload or the one reader of a burning paste may need.
-- So a crash leaves nothing to repair: what was half done falls due by itself. Due 0: the sweep may have begun with it.
CREATE TABLE garbage (
  content INTEGER PRIMARY KEY,
  due     INTEGER NOT NULL
) STRICT;
CREATE INDEX garbage_due ON garbage (due);

CREATE TRIGGER paste_deleted AFTER DELETE ON pastes BEGIN
  INSERT INTO garbage VALUES (OLD.content, 0);
END;
CREATE TRIGGER content_replaced AFTER UPDATE OF content ON pastes WHEN NEW.content <> OLD.content BEGIN
  INSERT INTO garbage VALUES (OLD.content, 0);
END;

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

-- The CA, in one row, so that there is no half of one: certificate (DER), sealed key (pki.go, sealCAKey), and the last
-- revocation list (DER), from which the next one takes its number. A list is made anew from crl_due on.
CREATE TABLE authority (
  one         INTEGER PRIMARY KEY CHECK (one = 1),
  certificate BLOB    NOT NULL,
  key         BLOB    NOT NULL,
  crl         BLOB,
  crl_due     INTEGER NOT NULL
) STRICT;
