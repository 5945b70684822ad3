package main

// store.go owns the database file: opening, pragmas, migrations, every SQL statement, the writer, chunks, the cache of
// hot pastes, touches, the sweep and backups. It knows neither HTTP nor configuration.
//
// Invariants:
//   - One goroutine (writeLoop) writes; it commits whatever waits as one group. An operation is answered after its commit.
//   - A read never writes. What reads cause (renewals) is collected in memory and written once a second.
//   - Content is rows of chunkSize bytes under a content number that is used once; a replaced content is another number.
//   - No byte of content lies on a b-tree page (padFor), so that secure_delete leaves nothing of it behind.
//   - sql.ErrNoRows never leaves this file; "not there" is errNotFound, and no other error may be taken for it.

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"modernc.org/sqlite"
)

const (
	chunkSize     = 256 << 10
	pageSize      = 8192
	applicationID = 0x464c5350 // "FLSP": another program's database is never touched
	batchOps      = 256        // operations in one commit
	batchBytes    = 4 << 20    // chunk bytes in one commit, and removed by one step of the sweep
	queueOps      = 1024       // operations waiting for the writer
	hotSize       = 64 << 10   // largest content in the cache
	freePages     = 1024       // free pages (8 MiB) that the sweep leaves in the file for what comes next
	touchMost     = 1 << 16    // renewals remembered between two flushes
)

var (
	errNotFound  = errors.New("no such paste")                 // never there, expired, burned or deleted: nobody can tell
	errBusy      = errors.New("the server is busy")            // a full queue or a lock held by another process: nothing was written
	errFull      = errors.New("the storage is full")           // quota, reserve or disk: nothing was written
	errGone      = errors.New("the content was replaced")      // a reader's next chunk is not there any more
	errDamaged   = errors.New("the stored content is damaged") // its SHA-256 is not the one that was stored with it
	errTaken     = errors.New("the id is taken")               // create: draw again
	errSpent     = errors.New("the proof of work was used before")
	errDuplicate = errors.New("the content was stored too often")
	errChanged   = errors.New("the paste changed meanwhile")      // update: look again
	errNoStore   = errors.New("no database")                      // openStore when not serving
	errClosed    = errors.New("the store is closed")              // after close
	errTooOld    = errors.New("database of a newer flaskpaste")   // user_version above ours
	errForeign   = errors.New("not a flaskpaste database")        // another application_id or no SQLite file
	errCorrupt   = errors.New("the database is damaged")          // truncated, or its schema can't be read
	errInUse     = errors.New("another server uses the database") // its lock is held
)

//go:embed schema.sql
var schema string

// paste is a row of the table of that name. Times are Unix seconds. It is shared with the cache: never changed once read.
type paste struct {
	n, content, size           int64
	id, mime                   string
	sha256                     []byte
	created, modified, expires int64
	life                       int64 // seconds that a read renews, 0 for a fixed deadline
	owner, ownerSHA1           string
	burn                       bool
	password, proof, token     []byte
	name                       string
	target                     string      // of a short URL, which is a paste without content as far as this file goes
	answer                     *openAnswer // paste.go's, shared by copies
}

// open reports whether anybody who knows the id may read the content as often as they like.
func (p *paste) open() bool { return !p.burn && p.password == nil && p.proof == nil }

// renew counts a renewal that is not in the file yet, unless it is of a read that began while the paste had another life.
func (p *paste) renew(t touch) {
	if p.life == t.life {
		p.expires = max(p.expires, t.expires)
	}
}

type storeOptions struct {
	path        string
	serving     bool // make the database, migrate, take the server's lock
	full        bool // synchronous=FULL
	checkpoint  bool // ours to do; false: an outer replicator's
	cacheSize   int64
	quota       int64 // bytes of chunk data
	reserve     int64 // bytes of disk that uploads leave free
	maxLife     int64 // seconds after creation beyond which no read renews
	dedupWindow int64 // seconds that countDuplicate looks back
	log         *slog.Logger
	fatal       func(error) // called once when the writer can't trust the file any more; must end the process
	now         func() time.Time
}

type store struct {
	storeOptions
	lock    *os.File
	r, w    *sql.DB
	wconn   *sql.Conn
	wstmts  map[string]*sql.Stmt // of the writer goroutine
	rstmts  sync.Map             // query -> *sql.Stmt
	content atomic.Int64         // last content number given out
	left    atomic.Int64         // contents up to here that count as live garbage are dead: an earlier run's, on a full disk
	used    atomic.Int64         // committed totals, written by the writer goroutine
	pastes  atomic.Int64
	dirty   atomic.Bool   // committed since the last checkpoint
	kick    chan struct{} // there is garbage: sweep soon

	mu     sync.RWMutex // guards closed against sends on ops
	closed bool
	ops    chan *operation
	done   chan struct{} // writeLoop has ended

	cache   *hotCache
	touches touchSet
	seen    duplicates // of the writer goroutine

	groups, commits *histogram // operations and seconds of each commit
}

// dsn is the file: URL that the driver opens; a plain name would drop the mode. The driver runs pragmas in the order of
// their names, so page_size is set when the file is made (createFile).
func dsn(path, mode string, pragmas ...string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		abs = path
	}
	q := url.Values{"mode": {mode}, "_pragma": append(pragmas, "busy_timeout(5000)", "temp_store(MEMORY)")}
	return (&url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(abs), RawQuery: q.Encode()}).String()
}

// openStore opens the database at o.path, and with o.serving makes and migrates it and starts the writer's housekeeping.
// A file that it refuses is left as it was.
func openStore(o storeOptions) (s *store, err error) {
	s = &store{storeOptions: o, wstmts: map[string]*sql.Stmt{}, kick: make(chan struct{}, 1), ops: make(chan *operation, queueOps), done: make(chan struct{})}
	s.cache = newHotCache(o.cacheSize)
	s.groups, s.commits = newHistogram(groupBounds), newHistogram(durationBounds)
	s.touches.pending = map[string]touch{}
	s.seen = duplicates{window: o.dedupWindow, latest: map[int64]int{}}
	defer func() {
		if err != nil {
			s.release()
			s = nil
		}
	}()
	logLost := ""
	if o.serving {
		if err = os.MkdirAll(filepath.Dir(o.path), 0o700); err != nil {
			return s, fmt.Errorf("making the database's folder: %w", err)
		}
		if _, err := os.Readlink(o.path); err == nil { // to nothing, it would name another lock now than at the next start
			if f, err := os.OpenFile(o.path, os.O_CREATE|os.O_RDWR, 0o600); err == nil {
				f.Close()
			}
		}
	}
	file := o.path
	if target, err := filepath.EvalSymlinks(file); err == nil { // one file, one lock and one log, whatever it is called
		file = target
	}
	logged := exists(file + "-wal")
	if o.serving {
		if s.lock, err = lockFile(file + ".lock"); err != nil {
			return s, err
		}
		if info, err := s.lock.Stat(); err == nil && info.Size() > 0 && !logged {
			logLost = "the last server did not stop cleanly, and its write-ahead log is gone: what it acknowledged last is lost, unless a backup was restored or another program took the log in"
		}
		if err = createFile(o.path); err != nil {
			return s, fmt.Errorf("creating the database: %w", err)
		}
	}
	if err = inspectFile(file); err != nil {
		return s, err
	}
	if _, err = sqlite.Fdatasync(true); err != nil && runtime.GOOS == "linux" {
		return s, err
	}
	level := "NORMAL"
	if o.full {
		level = "FULL"
	}
	s.w, err = sql.Open("sqlite", dsn(o.path, "rw", "journal_mode(WAL)", "synchronous("+level+")", "secure_delete(ON)", "foreign_keys(1)",
		"cache_size(-8192)", "wal_autocheckpoint(1000)", "journal_size_limit(16777216)"))
	if err != nil {
		return s, err
	}
	s.w.SetMaxOpenConns(1)
	if s.wconn, err = s.w.Conn(context.Background()); err != nil {
		return s, fmt.Errorf("opening the database: %w", storeError(err))
	}
	if err = s.verifyPragmas(s.wconn, map[string]string{"journal_mode": "wal", "synchronous": map[bool]string{true: "2", false: "1"}[o.full],
		"secure_delete": "1", "foreign_keys": "1", "auto_vacuum": "2", "page_size": strconv.Itoa(pageSize)}); err != nil {
		return s, err
	}
	if err = s.migrate(); err != nil {
		return s, err
	}
	if s.r, err = sql.Open("sqlite", dsn(o.path, "rw", "query_only(1)")); err != nil {
		return s, err
	}
	s.r.SetMaxOpenConns(runtime.NumCPU())
	s.r.SetMaxIdleConns(runtime.NumCPU())
	if err = s.load(); err != nil {
		return s, fmt.Errorf("reading the database: %w", storeError(err))
	}
	go s.writeLoop()
	if o.serving {
		s.lock.WriteAt([]byte("serving\n"), 0) // until a clean stop: the log must be there after any other
	} else if info, err := os.Stat(file + ".lock"); err == nil && info.Size() > 0 && logged { // or be taken in by us, when we close
		if lock, err := lockFile(file + ".lock"); err == nil { // and no server runs
			lock.Truncate(0)
			lock.Close()
		}
	}
	if logLost != "" {
		o.log.Warn(logLost)
		s.note("log", logLost) // for check
	}
	return s, nil
}

// createFile makes an empty database of the right page size, 0600, where there is no file or an empty one.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	f.Close()
	if err != nil || info.Size() > 0 {
		return err
	}
	db, err := sql.Open("sqlite", dsn(path, "rw"))
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err = db.Exec(fmt.Sprintf("PRAGMA page_size = %d; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA application_id = %d", pageSize, applicationID)); err != nil {
		return storeError(err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// inspectFile reads the 100-byte header (SQLite file format, section 1.3) before SQLite may touch the file.
func inspectFile(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w at %s", errNoStore, path)
	}
	if err == nil && info.Mode().Perm()&0o200 == 0 { // root would write all the same
		return fmt.Errorf("opening the database: %s is read-only", path)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	defer f.Close()
	var h [100]byte
	if _, err := io.ReadFull(f, h[:]); err != nil || string(h[:16]) != "SQLite format 3\x00" || binary.BigEndian.Uint32(h[68:]) != applicationID {
		return fmt.Errorf("%w: %s", errForeign, path)
	}
	version := int(binary.BigEndian.Uint32(h[60:]))
	wal, err := os.Stat(path + "-wal")
	if err == nil && wal.Size() > 0 { // the log may know better; a read-only connection leaves it as it is
		if db, err := sql.Open("sqlite", dsn(path, "ro")); err == nil {
			err = db.QueryRow("PRAGMA user_version").Scan(&version)
			if err = errors.Join(err, db.Close()); err != nil {
				return fmt.Errorf("reading the database's version: %w", storeError(err))
			}
		}
	}
	if version > len(migrations()) {
		return fmt.Errorf("%w: %s has version %d, this program knows %d", errTooOld, path, version, len(migrations()))
	}
	size, pages := int64(binary.BigEndian.Uint16(h[16:])), int64(binary.BigEndian.Uint32(h[28:]))
	if (err != nil || wal.Size() == 0) && info.Size() < pages*size {
		return fmt.Errorf("%w: %s is truncated: %d of %d bytes", errCorrupt, path, info.Size(), pages*size)
	}
	return nil
}

func (s *store) verifyPragmas(c *sql.Conn, want map[string]string) error {
	for name, value := range want {
		var got string
		if err := c.QueryRowContext(context.Background(), "PRAGMA "+name).Scan(&got); err != nil {
			return fmt.Errorf("reading PRAGMA %s: %w", name, storeError(err))
		}
		if got != value {
			return fmt.Errorf("PRAGMA %s is %s, not %s: is the file system able to hold a database?", name, got, value)
		}
	}
	return nil
}

// migrations returns the parts of schema.sql; part i brings version i to i+1.
func migrations() []string {
	return strings.Split(schema, "\n-- version ")[1:]
}

func (s *store) migrate() error {
	ctx, parts := context.Background(), migrations()
	var version int
	if err := s.wconn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return fmt.Errorf("reading the database's version: %w", storeError(err))
	}
	if version >= len(parts) { // a newer one was refused by inspectFile
		return nil
	}
	if !s.serving {
		return fmt.Errorf("the database has version %d, this program needs %d: start the server once", version, len(parts))
	}
	if version > 0 {
		backup := fmt.Sprintf("%s.v%d-%d.bak", s.path, version, s.now().Unix())
		if err := vacuumInto(s.wconn, backup); err != nil {
			return fmt.Errorf("copying the database before its migration: %w", err)
		}
	}
	for ; version < len(parts); version++ {
		_, sqlText, _ := strings.Cut(parts[version], "\n")
		script := "BEGIN IMMEDIATE;\n" + sqlText + fmt.Sprintf(";\nPRAGMA user_version = %d;\nCOMMIT;", version+1)
		if _, err := s.wconn.ExecContext(ctx, script); err != nil {
			s.wconn.ExecContext(ctx, "ROLLBACK")
			return fmt.Errorf("migrating the database to version %d: %w", version+1, storeError(err))
		}
	}
	return nil
}

// load reads what the process keeps in memory, and declares what an earlier run left half done as garbage.
func (s *store) load() error {
	ctx := context.Background()
	full := false
	if s.serving {
		_, err := s.wconn.ExecContext(ctx, "UPDATE garbage SET live = 0 WHERE live = 1; DELETE FROM spent")
		if full = errors.Is(storeError(err), errFull); err != nil && !full {
			return err
		}
		s.wake()
	}
	var used, pastes, content int64
	err := s.wconn.QueryRowContext(ctx, `SELECT bytes, pastes, max(coalesce((SELECT max(key) FROM chunks) >> 20, 0),
		coalesce((SELECT max(content) FROM garbage), 0)) FROM totals`).Scan(&used, &pastes, &content)
	s.used.Store(used)
	s.pastes.Store(pastes)
	s.content.Store(content)
	if full { // reads go on; the sweep does it when there is room
		s.log.Warn("the disk is full: nothing can be stored", "database", s.path)
		s.left.Store(content)
	}
	return err
}

// close flushes touches, drains the writer, empties the write-ahead log into the file, and lets go of it.
func (s *store) close() error {
	err := s.flushTouches()
	if s.serving && s.checkpoint {
		err = errors.Join(err, s.checkpointNow())
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errClosed
	}
	s.closed = true
	close(s.ops)
	s.mu.Unlock()
	<-s.done
	if s.lock != nil {
		s.lock.Truncate(0) // before the log goes: with the last connection
	}
	return errors.Join(err, s.release())
}

func (s *store) release() error {
	var errs []error
	for _, st := range s.wstmts { // an open statement would keep the connection, and with it the write-ahead log, alive
		errs = append(errs, st.Close())
	}
	s.rstmts.Range(func(_, st any) bool { errs = append(errs, st.(*sql.Stmt).Close()); return true })
	if s.wconn != nil {
		errs = append(errs, s.wconn.Close())
	}
	for _, db := range []*sql.DB{s.r, s.w} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if s.lock != nil {
		s.lock.Close() // the file stays: removing it would let two servers lock two files of one name
	}
	return errors.Join(errs...)
}

// storeError turns the driver's errors into ours, and the revocation file's full disk; others pass. Codes:
// https://www.sqlite.org/rescode.html
func storeError(err error) error {
	var e *sqlite.Error
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: %w", errFull, err)
	}
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case 5, 6: // BUSY, LOCKED
		return fmt.Errorf("%w: %w", errBusy, err)
	case 13: // FULL
		return fmt.Errorf("%w: %w", errFull, err)
	case 11, 26: // CORRUPT, NOTADB
		return fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return err
}

// sqliteCode is the primary result code of the driver's error, 0 for another error.
func sqliteCode(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// ---- the writer ----

// operation is one caller's change: all of it is committed or nothing.
type operation struct {
	run  func(*writeTx) error
	size int  // chunk bytes that it brings
	bare bool // outside a transaction: checkpoint, vacuum
	err  chan error
}

// writeTx is what an operation writes with; of the writer goroutine.
type writeTx struct {
	s             *store
	free          int64      // bytes of disk that were free when the group began
	bytes, pastes int64      // change of the totals in this group
	wrote         bool       // the running operation has changed something, or may have
	stored        []sighting // contents of this group
}

func (t *writeTx) stmt(query string) (*sql.Stmt, error) {
	st := t.s.wstmts[query]
	if st == nil {
		var err error
		if st, err = t.s.wconn.PrepareContext(context.Background(), query); err != nil {
			return nil, err
		}
		t.s.wstmts[query] = st
	}
	return st, nil
}

// exec runs a statement and returns the number of rows that it changed.
func (t *writeTx) exec(query string, args ...any) (int64, error) {
	st, err := t.stmt(query)
	if err != nil {
		return 0, err
	}
	res, err := st.Exec(args...)
	if err != nil {
		return 0, err // what a failed statement did, SQLite has undone
	}
	n, err := res.RowsAffected()
	t.wrote = t.wrote || n > 0
	return n, err
}

// row reads one row into dest; errNotFound without one.
func (t *writeTx) row(query string, args []any, dest ...any) error {
	st, err := t.stmt(query)
	if err == nil {
		err = st.QueryRow(args...).Scan(dest...)
		t.wrote = t.wrote || !strings.HasPrefix(query, "SELECT") // DELETE ... RETURNING
	}
	if errors.Is(err, sql.ErrNoRows) {
		return errNotFound
	}
	return err
}

// do hands an operation to the writer and waits for its commit. The caller's leaving changes nothing: what was accepted
// is answered. errBusy: not accepted.
func (s *store) do(size int, run func(*writeTx) error) error {
	return s.submit(&operation{run: run, size: size})
}

func (s *store) submit(op *operation) error {
	op.err = make(chan error, 1)
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return errClosed
	}
	select {
	case s.ops <- op:
		s.mu.RUnlock()
		return <-op.err
	default:
		s.mu.RUnlock()
		return errBusy
	}
}

// writeLoop commits in groups without a timer: while one commit waits for the disk, the next group gathers.
func (s *store) writeLoop() {
	defer close(s.done)
	var next *operation
	batch := make([]*operation, 0, batchOps)
	for {
		op := next
		next = nil
		if op == nil {
			var ok bool
			if op, ok = <-s.ops; !ok {
				return
			}
		}
		if op.bare {
			op.err <- s.failed(op.run(&writeTx{s: s}))
			continue
		}
		batch = append(batch[:0], op)
		size := op.size
	gather:
		for len(batch) < batchOps && size < batchBytes {
			select {
			case o, ok := <-s.ops:
				if !ok {
					break gather
				}
				if o.bare {
					next = o
					break gather
				}
				batch = append(batch, o)
				size += o.size
			default:
				break gather
			}
		}
		s.commit(batch)
	}
}

// commit runs a group in one transaction and answers all after the commit. An operation that fails by its own doing rolls
// back alone; a failure of the database fails the group.
func (s *store) commit(batch []*operation) {
	t := &writeTx{s: s, free: freeSpace(s.path)}
	began := time.Now()
	defer func() {
		s.groups.observe(float64(len(batch)))
		s.commits.observe(time.Since(began).Seconds())
	}()
	results := make([]error, len(batch))
	err := t.attempt(batch, results, false)
	if errors.Is(err, errHalfDone) {
		t.exec("ROLLBACK")
		t.bytes, t.pastes, t.stored = 0, 0, nil
		err = t.attempt(batch, results, true)
	}
	if err != nil {
		t.exec("ROLLBACK") // fails when SQLite has already done so
		err = s.failed(err)
	} else {
		s.used.Add(t.bytes)
		s.pastes.Add(t.pastes)
		for _, v := range t.stored {
			s.seen.add(v)
		}
		if slices.Contains(results, nil) {
			s.dirty.Store(true)
		}
	}
	for i, op := range batch {
		if err == nil {
			op.err <- storeError(results[i])
		} else {
			op.err <- err
		}
	}
}

// errHalfDone: an operation failed after it had written, and there is no savepoint to go back to.
var errHalfDone = errors.New("an operation failed half done")

// attempt runs a group's transaction up to its COMMIT. Savepoints copy every page that changes, a fifth of the whole work, and
// hardly any operation fails after its first write: the first attempt does without, a second one has them. (A repeated
// operation starts afresh: it must not remember anything of its first run.)
func (t *writeTx) attempt(batch []*operation, results []error, savepoints bool) error {
	if _, err := t.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	for i, op := range batch {
		if savepoints {
			if _, err := t.exec("SAVEPOINT op"); err != nil {
				return err
			}
		}
		bytes, pastes, stored := t.bytes, t.pastes, t.stored
		t.wrote = false
		if results[i] = op.run(t); results[i] != nil {
			t.bytes, t.pastes, t.stored = bytes, pastes, stored
			if sqliteCode(results[i]) != 0 && !isConstraint(results[i]) || errors.Is(results[i], syscall.EIO) {
				return results[i]
			}
			if t.wrote && !savepoints {
				return errHalfDone
			}
			if savepoints {
				if _, err := t.exec("ROLLBACK TO op"); err != nil {
					return err
				}
			}
		}
		if savepoints {
			if _, err := t.exec("RELEASE op"); err != nil {
				return err
			}
		}
	}
	if t.bytes != 0 || t.pastes != 0 {
		if _, err := t.exec("UPDATE totals SET bytes = bytes + ?, pastes = pastes + ?", t.bytes, t.pastes); err != nil {
			return err
		}
	}
	_, err := t.exec("COMMIT")
	return err
}

func isConstraint(err error) bool { return sqliteCode(err) == 19 }

// failed ends the process on an I/O error (10, or EIO of the revocation file): after a failed fsync the kernel may have dropped
// the pages, so that a later success would prove nothing. The restart recovers from the write-ahead log.
func (s *store) failed(err error) error {
	if sqliteCode(err) == 10 || errors.Is(err, syscall.EIO) {
		s.fatal(err)
	}
	return storeError(err)
}

// ---- content ----

// padFor returns how many zeros go before n bytes of content in a chunk's record, so that the part that SQLite keeps on
// the b-tree page (file format, section 1.6: M bytes, or M + (P-M) mod (U-4) where that fits) is all padding. Records on
// b-tree pages are copied about when pages are rebuilt, and those copies outlive secure_delete; overflow pages are not.
func padFor(n int) int {
	const u = pageSize
	const m = (u-12)*32/255 - 23
	const header = 9 // sizes and types of the record's columns, at most
	return m + header + (u-4-(n+2*header)%(u-4))%(u-4)
}

// charge counts n bytes of content against the quota and the reserve, or answers errFull.
func (t *writeTx) charge(n, limit int64) error {
	if t.s.used.Load()+t.bytes+n > limit || t.free-max(t.bytes, 0)-n < t.s.reserve {
		return errFull
	}
	t.bytes += n
	return nil
}

func (t *writeTx) putChunk(content, seq int64, data []byte, limit int64) error {
	if err := t.charge(int64(len(data)), limit); err != nil {
		return err
	}
	_, err := t.exec("INSERT INTO chunks (key, pad, data) VALUES (?, zeroblob(?), ?)", content<<20|seq, padFor(len(data)), data)
	return err
}

// upload is a content that is being written: its chunks are invisible until a paste names it.
type upload struct {
	s       *store
	content int64
	seq     int64 // chunks written so far
	limit   int64 // of all stored bytes, by the uploader's tier
}

// newUpload begins a content; limit is what all stored bytes may come to with it.
func (s *store) newUpload(limit int64) *upload {
	return &upload{s: s, content: s.content.Add(1), limit: limit}
}

// add stores one full chunk. The first also notes the content as live garbage, which a crash turns into real garbage.
func (u *upload) add(chunk []byte) error {
	err := u.s.do(len(chunk), func(t *writeTx) error {
		if u.seq == 0 {
			if _, err := t.exec("INSERT INTO garbage (content, live) VALUES (?, 1)", u.content); err != nil {
				return err
			}
		}
		return t.putChunk(u.content, u.seq, chunk, u.limit)
	})
	if err == nil {
		u.seq++
	}
	return err
}

// abort gives up what add has stored. Harmless after the content got its paste.
func (u *upload) abort() {
	if u.seq > 0 {
		u.s.finish(u.content)
	}
}

// finish turns a live content without paste into garbage and wakes the sweep.
func (s *store) finish(content int64) {
	dead := func() error {
		return s.do(0, func(t *writeTx) error {
			_, err := t.exec("UPDATE garbage SET live = 0 WHERE content = ?", content)
			return err
		})
	}
	err := dead()
	for errors.Is(err, errBusy) { // nobody is answered later for it, and a stranger could arrange for a full queue
		time.Sleep(50 * time.Millisecond)
		err = dead()
	}
	if errors.Is(err, errFull) { // now of all times its room is wanted: as soon as the disk takes a page again
		time.AfterFunc(time.Second, func() { s.finish(content) })
	} else if err != nil {
		s.log.Warn("content left for the next start to remove", "error", err)
	}
	s.wake()
}

func (s *store) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// settle writes the last chunk of a content and takes it off the garbage: its paste is in the same operation.
func (u *upload) settle(t *writeTx, last []byte) error {
	if len(last) > 0 {
		if err := t.putChunk(u.content, u.seq, last, u.limit); err != nil {
			return err
		}
	}
	if u.seq == 0 {
		return nil
	}
	_, err := t.exec("DELETE FROM garbage WHERE content = ?", u.content)
	return err
}

// discard removes a content that no paste names any more: at once when it is one chunk, else as garbage in small steps.
func (t *writeTx) discard(content, size int64) error {
	if size > chunkSize {
		_, err := t.exec("INSERT INTO garbage (content, live) VALUES (?, 0)", content)
		t.s.wake()
		return err
	}
	_, err := t.exec("DELETE FROM chunks WHERE key = ?", content<<20)
	t.bytes -= size
	return err
}

const pasteColumns = `p.n, p.content, p.size, p.id, p.mime, p.sha256, p.created_at, p.modified_at, p.expires_at, p.life,
	p.owner, p.owner_sha1, p.burn, p.password, p.proof, p.token, p.name, ''`

// shortColumns are a short URL's in the same places.
const shortColumns = `p.n, 0, length(p.target), p.id, '', x'', p.created_at, p.created_at, p.expires_at, 0,
	p.owner, p.owner_sha1, 0, NULL, NULL, p.token, '', p.target`

func (p *paste) fields() []any {
	return append(make([]any, 0, 19), &p.n, &p.content, &p.size, &p.id, &p.mime, &p.sha256, &p.created, &p.modified, &p.expires, &p.life,
		&p.owner, &p.ownerSHA1, &p.burn, &p.password, &p.proof, &p.token, &p.name, &p.target) // and room for the content
}

// create stores p with the content of u, whose last (or only) chunk is last. before runs in the same transaction.
// errTaken: the id exists.
func (s *store) create(p *paste, u *upload, last []byte, before func(*writeTx) error) error {
	p.content = u.content
	return s.do(len(last), func(t *writeTx) error {
		if err := before(t); err != nil {
			return err
		}
		if err := u.settle(t, last); err != nil {
			return err
		}
		t.pastes++
		_, err := t.exec(`INSERT INTO pastes (content, size, id, mime, sha256, created_at, modified_at, expires_at, life,
			owner, owner_sha1, burn, password, proof, token, name) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`,
			p.content, p.size, p.id, p.mime, p.sha256, p.created, p.modified, p.expires, p.life,
			p.owner, p.ownerSHA1, p.burn, p.password, p.proof, p.token, p.name)
		if isConstraint(err) {
			return errTaken
		}
		return err
	})
}

// update writes p over the row of its number if that still is as old was read, but for renewals: they stay, unless p has a new
// deadline. u is nil without a new content.
func (s *store) update(old, p *paste, u *upload, last []byte, before func(*writeTx) error) error {
	kept := p.expires == old.expires && p.life == old.life
	if u != nil {
		p.content = u.content
	}
	err := s.do(len(last), func(t *writeTx) error {
		if err := before(t); err != nil {
			return err
		}
		n, err := t.exec(`UPDATE pastes SET content = ?, size = ?, mime = ?, sha256 = ?, modified_at = ?, expires_at = max(?, iif(?, expires_at, 0)), life = ?, burn = ?,
			password = ?, proof = ?, name = ? WHERE n = ? AND id = ? AND content = ? AND password IS ? AND proof IS ? AND burn = ? AND life = ? AND name = ?
			AND (life > 0 OR expires_at = ?)`,
			p.content, p.size, p.mime, p.sha256, p.modified, p.expires, kept, p.life, p.burn, p.password, p.proof, p.name,
			old.n, old.id, old.content, old.password, old.proof, old.burn, old.life, old.name, old.expires)
		if err != nil {
			return err
		}
		if n == 0 {
			return errChanged
		}
		if u == nil {
			return nil
		}
		if err := u.settle(t, last); err != nil {
			return err
		}
		return t.discard(old.content, old.size)
	})
	s.cache.drop(p.id)
	return err
}

// remove deletes a paste; errNotFound when somebody was faster.
func (s *store) remove(id string) error {
	defer s.cache.drop(id)
	return s.do(0, func(t *writeTx) error {
		var content, size int64
		if err := t.row("DELETE FROM pastes WHERE id = ? RETURNING content, size", []any{id}, &content, &size); err != nil {
			return err
		}
		t.pastes--
		return t.discard(content, size)
	})
}

// createShort stores a short URL; limit as for newUpload, before as for create.
func (s *store) createShort(p *paste, limit int64, before func(*writeTx) error) error {
	return s.do(0, func(t *writeTx) error {
		if err := before(t); err != nil {
			return err
		}
		if err := t.charge(p.size, limit); err != nil {
			return err
		}
		_, err := t.exec("INSERT INTO shorts (id, created_at, expires_at, owner, owner_sha1, token, pad, target) VALUES (?,?,?,?,?,?,zeroblob(?),?)",
			p.id, p.created, p.expires, p.owner, p.ownerSHA1, p.token, pageSize, p.target)
		if isConstraint(err) {
			return errTaken
		}
		return err
	})
}

// removeShort deletes a short URL; errNotFound when somebody was faster.
func (s *store) removeShort(id string) error {
	defer s.cache.drop("s/" + id)
	return s.do(0, func(t *writeTx) error {
		var size int64
		err := t.row("DELETE FROM shorts WHERE id = ? RETURNING length(target)", []any{id}, &size)
		t.bytes -= size
		return err
	})
}

// claim burns a paste for its one reader: a single statement decides who that is. The content stays readable for the
// winner until finish; a crash in between makes it garbage. So does what a start on a full disk left to do: not before that.
func (s *store) claim(p *paste, now int64) error {
	return s.do(0, func(t *writeTx) error {
		if s.left.Load() > 0 {
			return errFull
		}
		n, err := t.exec("DELETE FROM pastes WHERE id = ? AND content = ? AND expires_at > ?", p.id, p.content, now)
		if err != nil {
			return err
		}
		if n == 0 {
			return errNotFound
		}
		t.pastes--
		_, err = t.exec("INSERT INTO garbage (content, live) VALUES (?, 1)", p.content)
		return err
	})
}

// ---- what abuse is counted by ----

// spend marks a nonce as used until expires; errSpent when it was.
func (t *writeTx) spend(nonce []byte, expires int64) error {
	_, err := t.exec("INSERT INTO spent (nonce, expires) VALUES (?, ?)", nonce, expires)
	if isConstraint(err) {
		return errSpent
	}
	return err
}

// countDuplicate notes a sighting, unless its client had most of that content within the window, or all clients together had
// mostAll (0: no limit). It returns how many the client had, and when the oldest of those that count against him was.
func (t *writeTx) countDuplicate(v sighting, most, mostAll int64) (own, first int64, err error) {
	own, first, all, firstAll := t.s.seen.count(v, t.stored)
	if most > 0 && own >= most {
		return own, first, errDuplicate
	}
	if mostAll > 0 && all >= mostAll {
		return own, firstAll, errDuplicate
	}
	t.stored = append(t.stored, v)
	return own, first, nil
}

// ---- reading ----

func (s *store) query(query string) (*sql.Stmt, error) {
	if st, ok := s.rstmts.Load(query); ok {
		return st.(*sql.Stmt), nil
	}
	st, err := s.r.Prepare(query)
	if err != nil {
		return nil, err
	}
	if old, loaded := s.rstmts.LoadOrStore(query, st); loaded {
		st.Close()
		return old.(*sql.Stmt), nil
	}
	return st, nil
}

// get returns the paste of that id that lives at now, and its content when that is small and open (else nil).
// No cancellable context: the driver would start a goroutine for each.
func (s *store) get(id string, now int64) (*paste, []byte, error) {
	if p, body := s.cache.get(id, now); p != nil {
		return p, body, nil
	}
	generation := s.cache.generation.Load()
	renewed, asOf := s.touches.look(id, now)
	st, err := s.query(`SELECT ` + pasteColumns + `, CASE WHEN p.size <= ? AND NOT p.burn AND p.password IS NULL AND p.proof IS NULL
		THEN (SELECT data FROM chunks WHERE key = p.content << 20) END FROM pastes p WHERE p.id = ? AND p.expires_at > ?`)
	if err != nil {
		return nil, nil, storeError(err)
	}
	p := &paste{answer: new(openAnswer)}
	var body []byte
	err = st.QueryRow(hotSize, id, asOf).Scan(append(p.fields(), &body)...)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil, errNotFound
	}
	if err != nil {
		return nil, nil, storeError(err)
	}
	if p.renew(renewed); p.expires <= now {
		return nil, nil, errNotFound
	}
	if body != nil {
		if sum := sha256.Sum256(body); !bytes.Equal(sum[:], p.sha256) {
			return nil, nil, errDamaged
		}
		s.cache.put(p.id, p, body, generation)
	}
	return p, body, nil
}

// getShort returns the short URL of that id that lives at now. In the cache its id begins with s/.
func (s *store) getShort(id string, now int64) (*paste, error) {
	if p, _ := s.cache.get("s/"+id, now); p != nil {
		return p, nil
	}
	generation := s.cache.generation.Load()
	st, err := s.query("SELECT " + shortColumns + " FROM shorts p WHERE p.id = ? AND p.expires_at > ?")
	if err != nil {
		return nil, storeError(err)
	}
	p := new(paste)
	err = st.QueryRow(id, now).Scan(p.fields()...)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errNotFound
	}
	if err != nil {
		return nil, storeError(err)
	}
	s.cache.put("s/"+id, p, []byte(p.target), generation)
	return p, nil
}

// reader reads a paste's content chunk by chunk; a ReadSeeker for http.ServeContent. It holds one chunk, and checks the
// SHA-256 before it lets go of the last one when it was read from start to end. close returns its buffer; ServeContent answers
// several ranges from a goroutine that may outlive the request, so a closed reader must read no more.
type reader struct {
	s *store
	p *paste

	mu   sync.Mutex
	off  int64
	seq  int64 // of the chunk in buf, -1: none
	buf  []byte
	hash hash.Hash
	next int64 // sequence of the chunk that the hash waits for
	err  error // the first failure, kept: ServeContent swallows it
}

var chunkPool = sync.Pool{New: func() any { b := make([]byte, 0, chunkSize); return &b }}

// content returns a reader of p's content; body is the content itself where get returned it.
func (s *store) reader(p *paste, body []byte) *reader {
	r := &reader{s: s, p: p, seq: -1}
	if body != nil {
		r.seq, r.buf = 0, body
	} else {
		r.hash = sha256.New()
	}
	return r
}

func (r *reader) load(seq int64) error {
	if seq == r.seq {
		return nil
	}
	st, err := r.s.query("SELECT data FROM chunks WHERE key = ?")
	if err != nil {
		return storeError(err)
	}
	rows, err := st.Query(r.p.content<<20 | seq)
	if err != nil {
		return storeError(err)
	}
	defer rows.Close()
	if !rows.Next() {
		return errors.Join(errGone, storeError(rows.Err()))
	}
	var raw sql.RawBytes
	if err := rows.Scan(&raw); err != nil {
		return storeError(err)
	}
	if int64(len(raw)) != min(chunkSize, r.p.size-seq*chunkSize) {
		return errDamaged
	}
	if r.buf == nil {
		r.buf = *chunkPool.Get().(*[]byte)
	}
	r.buf = append(r.buf[:0], raw...)
	r.seq = seq
	if seq == r.next {
		r.hash.Write(r.buf)
		r.next++
		if r.next*chunkSize >= r.p.size && !bytes.Equal(r.hash.Sum(nil), r.p.sha256) {
			r.seq = -1
			return errDamaged
		}
	}
	return nil
}

// first loads the start of the content, before the answer's header goes out.
func (r *reader) first() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.load(0)
}

// failed returns what ended the reading early.
func (r *reader) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *reader) Read(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	if r.off >= r.p.size {
		return 0, io.EOF
	}
	if err := r.load(r.off / chunkSize); err != nil {
		r.err = err
		return 0, err
	}
	n := copy(b, r.buf[r.off%chunkSize:])
	r.off += int64(n)
	return n, nil
}

func (r *reader) Seek(offset int64, whence int) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch whence {
	case io.SeekCurrent:
		offset += r.off
	case io.SeekEnd:
		offset += r.p.size
	}
	if offset < 0 {
		return 0, errors.New("seeking before the start")
	}
	r.off = offset
	return offset, nil
}

func (r *reader) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errClosed
	if r.hash != nil && r.buf != nil {
		b := r.buf[:0]
		chunkPool.Put(&b)
	}
	r.buf, r.seq = nil, -1
}

// listQuery selects pastes. owners nil: everybody's; "" among them: anonymous ones. Zero values: no such condition.
type listQuery struct {
	shorts       bool     // short URLs instead
	owners       []string // ids; a SHA-1 also finds pastes of a foreign certificate known by both
	limit        int
	cursor       [2]int64 // created_at and number of the last one seen
	text         string   // part of display name or id, ASCII case ignored
	mime         string   // "image/png" or "image/*"
	after, until int64    // created_at > after, < until
}

// list returns the newest first. Each owner id is a range of an index, in order; their union is cut to the limit.
func (s *store) list(ctx context.Context, q listQuery, now int64) ([]*paste, error) {
	where := "p.expires_at > ?"
	args := []any{now}
	add := func(cond string, a ...any) { where += " AND " + cond; args = append(args, a...) }
	if q.cursor != [2]int64{} {
		add("(p.created_at, p.n) < (?, ?)", q.cursor[0], q.cursor[1])
	}
	if q.after != 0 {
		add("p.created_at > ?", q.after)
	}
	if q.until != 0 {
		add("p.created_at < ?", q.until)
	}
	if q.text != "" {
		add("(instr(lower(p.name), lower(?)) OR instr(p.id, lower(?)))", q.text, q.text)
	}
	if main, ok := strings.CutSuffix(q.mime, "/*"); ok {
		add("substr(p.mime, 1, ?) = ?", len(main)+1, main+"/")
	} else if q.mime != "" {
		add("(p.mime = ? OR substr(p.mime, 1, ?) = ?)", q.mime, len(q.mime)+1, q.mime+";")
	}
	var parts []string
	var all []any
	from := pasteColumns + " FROM pastes p"
	if q.shorts {
		from = shortColumns + " FROM shorts p"
	}
	part := func(cond string, a ...any) {
		parts = append(parts, "SELECT * FROM (SELECT "+from+" WHERE "+cond+where+" ORDER BY p.created_at DESC, p.n DESC LIMIT ?)")
		all = append(append(append(all, a...), args...), q.limit)
	}
	for _, o := range q.owners {
		part("p.owner = ? AND ", o)
		if len(o) == 40 {
			part("p.owner_sha1 = ? AND p.owner_sha1 <> '' AND ", o)
		}
	}
	if q.owners == nil {
		part("")
	}
	rows, err := s.r.QueryContext(ctx, strings.Join(parts, " UNION ")+" ORDER BY 7 DESC, 1 DESC LIMIT ?", append(all, q.limit)...)
	if err != nil {
		return nil, storeError(err)
	}
	defer rows.Close()
	var list []*paste
	for rows.Next() {
		p := new(paste)
		if err := rows.Scan(p.fields()...); err != nil {
			return nil, storeError(err)
		}
		renewed, _ := s.touches.look(p.id, now)
		p.renew(renewed)
		list = append(list, p)
	}
	return list, storeError(rows.Err())
}

// newest returns when the last paste or short URL was made, 0 without one.
func (s *store) newest() (at int64, err error) {
	err = s.r.QueryRow("SELECT max(coalesce((SELECT max(created_at) FROM pastes), 0), coalesce((SELECT max(created_at) FROM shorts), 0))").Scan(&at)
	return at, storeError(err)
}

// oldest returns when the paste or short URL that expires first does, or did; the farthest future without any.
func (s *store) oldest() (at int64, err error) {
	err = s.r.QueryRow("SELECT min(coalesce((SELECT min(expires_at) FROM pastes), 1 << 62), coalesce((SELECT min(expires_at) FROM shorts), 1 << 62))").Scan(&at)
	return at, storeError(err)
}

// ping makes the writer and a reader answer.
func (s *store) ping() error {
	if err := s.do(0, func(t *writeTx) error { return nil }); err != nil {
		return err
	}
	var one int
	return storeError(s.r.QueryRow("SELECT one FROM totals").Scan(&one))
}

// note keeps a line for `flaskpaste check`.
func (s *store) note(name, text string) error {
	return s.do(0, func(t *writeTx) error {
		_, err := t.exec("INSERT OR REPLACE INTO notes (name, at, text) VALUES (?, ?, ?)", name, s.now().Unix(), text)
		return err
	})
}

// ---- renewals ----

// touch is a renewal of a paste that had this life; one that has another by now has another deadline, too.
type touch struct{ at, expires, life int64 }

// touchSet collects renewals between two flushes; reads see them at once.
type touchSet struct {
	flush            sync.Mutex // one flush at a time
	mu               sync.Mutex
	pending, written map[string]touch // written: handed to the writer, not yet committed
}

func (s *touchSet) look(id string, now int64) (t touch, asOf int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.pending[id]
	if !ok {
		t, ok = s.written[id]
	}
	if !ok || t.expires <= now {
		return touch{}, now
	}
	return t, min(now, t.at)
}

// touch renews p from now on: now + its life, at most maxLife after its creation.
func (s *store) touch(p *paste, now int64) {
	if p.life == 0 {
		return
	}
	expires := min(now+p.life, p.created+s.maxLife)
	s.touches.mu.Lock()
	if t, ok := s.touches.pending[p.id]; (ok && t.life == p.life && t.expires >= expires) || len(s.touches.pending) >= touchMost || expires <= p.expires {
		s.touches.mu.Unlock()
		return
	}
	t := touch{now, expires, p.life}
	for _, earlier := range []map[string]touch{s.touches.pending, s.touches.written} {
		if e, ok := earlier[p.id]; ok { // the file still has the deadline of before this one
			t.at = min(t.at, e.at)
		}
	}
	s.touches.pending[p.id] = t
	s.touches.mu.Unlock()
	s.cache.renew(p.id, t)
}

// flushTouches writes the collected renewals, some hundred an operation, so that no create waits long behind them.
func (s *store) flushTouches() error {
	s.touches.flush.Lock()
	defer s.touches.flush.Unlock()
	s.touches.mu.Lock()
	if len(s.touches.pending) == 0 {
		s.touches.mu.Unlock()
		return nil
	}
	m := s.touches.pending
	s.touches.pending, s.touches.written = map[string]touch{}, m
	s.touches.mu.Unlock()
	var failed error
	for part := range slices.Chunk(slices.Collect(maps.Keys(m)), 500) {
		failed = errors.Join(failed, s.do(0, func(t *writeTx) error {
			for _, id := range part {
				if _, err := t.exec("UPDATE pastes SET expires_at = max(expires_at, ?) WHERE id = ? AND life = ?", m[id].expires, id, m[id].life); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	s.touches.mu.Lock()
	s.touches.written = nil
	if errors.Is(failed, errBusy) { // for the next flush: done twice is no harm
		for id, t := range m {
			if _, later := s.touches.pending[id]; !later {
				s.touches.pending[id] = t
			}
		}
	}
	s.touches.mu.Unlock()
	return failed
}

// ---- the sweep ----

// sweep removes what has expired at now and all garbage, in steps that hold the writer for a few milliseconds each, and
// then gives pages back and empties the write-ahead log, so that expired bytes are gone from both files.
func (s *store) sweep(now int64) (expired, expiredShorts int, err error) {
	if err := s.flushTouches(); err != nil {
		return 0, 0, err
	}
	pause := thirds()
	for {
		var ids []string
		err := s.do(0, func(t *writeTx) (err error) { ids, err = t.expire(now); return err })
		for _, id := range ids {
			s.cache.drop(id)
		}
		if err != nil {
			return expired, expiredShorts, err
		}
		expired += len(ids)
		if len(ids) == 0 {
			break
		}
		pause()
	}
	for n := int64(1); n > 0; pause() {
		if err := s.do(0, func(t *writeTx) (err error) { n, err = t.expireShorts(now); return err }); err != nil {
			return expired, expiredShorts, err
		}
		expiredShorts += int(n)
	}
	for _, query := range []string{"DELETE FROM spent WHERE nonce IN (SELECT nonce FROM spent WHERE expires <= ? LIMIT 500)",
		// Whole lines only: an expired certificate that nobody knew any more would be a pseudonym again, with the line's owner id.
		`DELETE FROM certs WHERE sha256 IN (SELECT sha256 FROM certs c WHERE vouched = 0 AND expires_at <= ?1
			AND NOT EXISTS (SELECT 1 FROM certs o WHERE o.owner = c.owner AND o.expires_at > ?1) LIMIT 500)`} {
		until := now
		if strings.Contains(query, "certs") {
			until -= max(certMemory, s.maxLife) // nothing that the owner made is left
		}
		for n := int64(1); n > 0; pause() {
			if err := s.do(0, func(t *writeTx) (err error) { n, err = t.exec(query, until); return err }); err != nil {
				return expired, expiredShorts, err
			}
		}
	}
	if err := s.collect(pause); err != nil {
		return expired, expiredShorts, err
	}
	for last := int64(math.MaxInt64); ; pause() {
		var free int64
		err := s.submit(&operation{bare: true, run: func(t *writeTx) error {
			if err := t.row("PRAGMA freelist_count", nil, &free); err != nil || free <= freePages || free >= last {
				return err
			}
			s.dirty.Store(true)
			_, err := s.wconn.ExecContext(context.Background(), "PRAGMA incremental_vacuum(128)")
			return err
		}})
		if err != nil {
			return expired, expiredShorts, err
		}
		if free <= freePages || free >= last {
			break
		}
		last = free
	}
	s.removeOldCopies(now)
	if s.checkpoint && s.dirty.Load() {
		return expired, expiredShorts, s.checkpointNow()
	}
	return expired, expiredShorts, nil
}

// thirds returns what a sweep calls between its steps: it waits twice as long as the step took (5 ms at least), so that the
// writer belongs to others for two thirds of the time, and the median create never meets the sweep, however slow the disk is.
func thirds() func() {
	began := time.Now()
	return func() {
		time.Sleep(max(5*time.Millisecond, 2*time.Since(began)))
		began = time.Now()
	}
}

// expire deletes up to 50 expired pastes or batchBytes, and returns their ids.
func (t *writeTx) expire(now int64) (ids []string, err error) {
	st, err := t.stmt("SELECT n, id, content, size FROM pastes WHERE expires_at <= ? ORDER BY expires_at LIMIT 50")
	if err != nil {
		return nil, err
	}
	rows, err := st.Query(now)
	if err != nil {
		return nil, err
	}
	var list []paste
	var bytes int64
	for bytes < batchBytes && rows.Next() {
		var p paste
		if err = rows.Scan(&p.n, &p.id, &p.content, &p.size); err != nil {
			break
		}
		if p.size <= chunkSize {
			bytes += p.size
		}
		list = append(list, p)
	}
	if err = errors.Join(err, rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	for _, p := range list {
		if _, err := t.exec("DELETE FROM pastes WHERE n = ?", p.n); err != nil {
			return nil, err
		}
		t.pastes--
		if err := t.discard(p.content, p.size); err != nil {
			return nil, err
		}
		ids = append(ids, p.id)
	}
	return ids, nil
}

// expireShorts deletes up to 500 expired short URLs.
func (t *writeTx) expireShorts(now int64) (n int64, err error) {
	var size int64
	if err = t.row(`SELECT count(*), coalesce(sum(length(target)), 0) FROM (SELECT target FROM shorts WHERE expires_at <= ? ORDER BY expires_at, n LIMIT 500)`,
		[]any{now}, &n, &size); err != nil || n == 0 {
		return 0, err
	}
	t.bytes -= size
	return t.exec("DELETE FROM shorts WHERE n IN (SELECT n FROM shorts WHERE expires_at <= ? ORDER BY expires_at, n LIMIT 500)", now)
}

// collect removes dead contents, 16 chunks a step.
func (s *store) collect(pause func()) error {
	if left := s.left.Load(); left > 0 {
		if err := s.do(0, func(t *writeTx) error {
			_, err := t.exec("UPDATE garbage SET live = 0 WHERE live = 1 AND content <= ?", left)
			return err
		}); err != nil {
			return err
		}
		s.left.Store(0)
	}
	for {
		done := false
		err := s.do(0, func(t *writeTx) error {
			var content, last, bytes int64
			err := t.row("SELECT content FROM garbage WHERE live = 0 LIMIT 1", nil, &content)
			if errors.Is(err, errNotFound) {
				done = true
				return nil
			}
			if err != nil {
				return err
			}
			err = t.row(`SELECT coalesce(max(key), 0), coalesce(sum(length(data)), 0) FROM
				(SELECT key, data FROM chunks WHERE key BETWEEN ? AND ? ORDER BY key LIMIT 16)`,
				[]any{content << 20, (content+1)<<20 - 1}, &last, &bytes)
			if err == nil && last == 0 {
				_, err = t.exec("DELETE FROM garbage WHERE content = ?", content)
			} else if err == nil {
				_, err = t.exec("DELETE FROM chunks WHERE key BETWEEN ? AND ?", content<<20, last)
				t.bytes -= bytes
			}
			return err
		})
		if err != nil || done {
			return err
		}
		pause()
	}
}

// checkpointNow moves the write-ahead log into the file and cuts it to nothing. A reader in its way is no error and is
// not waited for long, since all writing waits with it: the next sweep tries again.
func (s *store) checkpointNow() error {
	return s.submit(&operation{bare: true, run: func(t *writeTx) error {
		var busy, pages, moved int
		s.dirty.Store(false)
		_, err := s.wconn.ExecContext(context.Background(), "PRAGMA busy_timeout = 50")
		if err == nil {
			err = t.row("PRAGMA wal_checkpoint(TRUNCATE)", nil, &busy, &pages, &moved)
		}
		if err != nil || busy != 0 {
			s.dirty.Store(true)
		}
		_, restored := s.wconn.ExecContext(context.Background(), "PRAGMA busy_timeout = 5000")
		return errors.Join(err, restored)
	}})
}

// removeOldCopies deletes what migrations saved, after a day: expired bytes must not live on there.
func (s *store) removeOldCopies(now int64) {
	copies, _ := filepath.Glob(s.path + ".v*-*.bak")
	for _, name := range copies {
		at, err := strconv.ParseInt(strings.TrimSuffix(name[strings.LastIndexByte(name, '-')+1:], ".bak"), 10, 64)
		if err == nil && now-at > 86400 {
			os.Remove(name)
		}
	}
}

// ---- backup and check ----

// vacuumInto writes a compact copy to path, 0600, which must not exist.
func vacuumInto(c *sql.Conn, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	if _, err := c.ExecContext(context.Background(), "VACUUM INTO ?", path); err != nil {
		os.Remove(path)
		return storeError(err)
	}
	return nil
}

// backup writes the database to path while it is in use: whole or not at all, without burning pastes (a copy could be
// read twice) and without what only this run needs.
func (s *store) backup(path string) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s exists", path)
	}
	tmp := fmt.Sprintf("%s.part-%d", path, os.Getpid())
	if err := s.submit(&operation{bare: true, run: func(*writeTx) error { return vacuumInto(s.wconn, tmp) }}); err != nil {
		return err
	}
	defer os.Remove(tmp)
	db, err := sql.Open("sqlite", dsn(tmp, "rw", "secure_delete(ON)", "journal_mode(DELETE)"))
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	_, err = db.Exec(`BEGIN;
		DELETE FROM chunks WHERE key >> 20 IN (SELECT content FROM pastes WHERE burn UNION SELECT content FROM garbage);
		DELETE FROM pastes WHERE burn; DELETE FROM garbage; DELETE FROM spent; DELETE FROM notes;
		UPDATE totals SET pastes = (SELECT count(*) FROM pastes), bytes = (SELECT coalesce(sum(length(data)), 0) FROM chunks)
			+ (SELECT coalesce(sum(length(target)), 0) FROM shorts);
		COMMIT`)
	if err = errors.Join(err, db.Close()); err != nil {
		return storeError(err)
	}
	f, err := os.Open(tmp)
	if err != nil {
		return err
	}
	err = errors.Join(f.Sync(), f.Close())
	if err == nil {
		err = os.Link(tmp, path) // fails if path appeared meanwhile; rename would replace it
	}
	return errors.Join(err, syncDir(filepath.Dir(path)))
}

// integrity returns what SQLite and the totals find wrong, nothing if all is well.
func (s *store) integrity() (found []string, err error) {
	rows, err := s.r.Query("PRAGMA integrity_check(20)")
	if err != nil {
		return nil, storeError(err)
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, storeError(err)
		}
		if line != "ok" {
			found = append(found, line)
		}
	}
	return found, storeError(rows.Err())
}

// notes returns the lines kept for the operator within the last day, with their times.
func (s *store) notes() (list []string, err error) {
	rows, err := s.r.Query("SELECT at, text FROM notes WHERE at > ? ORDER BY at", s.now().Unix()-86400)
	if err != nil {
		return nil, storeError(err)
	}
	defer rows.Close()
	for rows.Next() {
		var at int64
		var text string
		if err := rows.Scan(&at, &text); err != nil {
			return nil, err
		}
		list = append(list, time.Unix(at, 0).UTC().Format(time.RFC3339)+" "+text)
	}
	return list, storeError(rows.Err())
}

// ---- certificates ----

const (
	enrolledMost = 100_000    // certificates that strangers may hold: some 40 MiB of rows
	lineMost     = 16         // valid certificates of one owner: renewing costs no work
	certMemory   = 90 * 86400 // seconds for which an expired, self-enrolled one is still known as expired
)

var (
	errLineFull = errors.New("the owner has too many valid certificates")
	errCAExists = errors.New("the database has a CA already")
)

// certificate is a row of certs. Fingerprints and serial are lower-case hex, times Unix seconds.
type certificate struct {
	sha256, sha1, serial, owner, name string
	issued, expires, revoked          int64 // revoked 0: it is not
	reason                            string
	vouched, admin                    bool
}

const certColumns = "sha256, sha1, serial, owner, name, issued_at, expires_at, revoked_at, reason, vouched, admin"

func (c *certificate) fields() []any {
	return []any{&c.sha256, &c.sha1, &c.serial, &c.owner, &c.name, &c.issued, &c.expires, &c.revoked, &c.reason, &c.vouched, &c.admin}
}

// certificate returns the row whose column (sha256, sha1 or serial) has this value; errNotFound without one. It is asked for
// each request that shows a certificate and never cached: a revocation in another process holds from the next one.
func (s *store) certificate(column, value string) (*certificate, error) {
	st, err := s.query("SELECT " + certColumns + " FROM certs WHERE " + column + " = ?")
	if err != nil {
		return nil, storeError(err)
	}
	c := new(certificate)
	if err = st.QueryRow(value).Scan(c.fields()...); errors.Is(err, sql.ErrNoRows) {
		return nil, errNotFound
	}
	return c, storeError(err)
}

// addCertificate stores a new certificate: as the first of a line, or in the line of parent (SHA-256), which must be neither
// revoked nor expired in the moment of writing (else errNotFound). Rights come from the line as it is then, never from the
// caller: c.owner, and for a renewal c.vouched and c.admin, are filled in. before runs in the same transaction.
func (s *store) addCertificate(c *certificate, parent string, before func(*writeTx) error) error {
	return s.do(0, func(t *writeTx) error {
		var n int64
		if parent != "" {
			err := t.row(`SELECT owner, vouched, admin, (SELECT count(*) FROM certs o WHERE o.owner = c.owner AND o.expires_at > ?)
				FROM certs c WHERE sha256 = ? AND revoked_at = 0 AND expires_at > ?`, []any{c.issued, parent, c.issued}, &c.owner, &c.vouched, &c.admin, &n)
			if err != nil {
				return err
			}
			if n >= lineMost {
				return errLineFull
			}
		} else {
			c.owner = c.sha256
			if err := t.row("SELECT count(*) FROM certs WHERE vouched = 0", nil, &n); err != nil {
				return err
			}
			if !c.vouched && n >= enrolledMost {
				return errFull
			}
		}
		if err := before(t); err != nil {
			return err
		}
		_, err := t.exec("INSERT INTO certs ("+certColumns+") VALUES (?,?,?,?,?,?,?,?,?,?,?)",
			c.sha256, c.sha1, c.serial, c.owner, c.name, c.issued, c.expires, c.revoked, c.reason, c.vouched, c.admin)
		return err
	})
}

// isAdmin wants a certificate of an admin that is not revoked: else errNotFound.
func (t *writeTx) isAdmin(sha256 string) error {
	var one int64
	return t.row("SELECT 1 FROM certs WHERE sha256 = ? AND admin = 1 AND revoked_at = 0", []any{sha256}, &one)
}

// revokeLine revokes all that is not yet revoked in the line of a serial, and returns it; none if nothing was left. The
// revocation file is written before the commit: a crash in between leaves a line too many, which the next start merges.
func (s *store) revokeLine(serial, reason string, now int64) (list []revocation, err error) {
	err = s.do(0, func(t *writeTx) error {
		list, err = t.revoked(`UPDATE certs SET revoked_at = ?, reason = ? WHERE revoked_at = 0 AND owner = (SELECT owner FROM certs WHERE serial = ?)
			RETURNING serial, owner, revoked_at, reason, expires_at`, now, reason, serial)
		if err != nil || len(list) == 0 {
			return err
		}
		return appendRevocations(s.path+".revoked", s.path, list)
	})
	return list, err
}

// revoked collects the rows of a query for revocations.
func (t *writeTx) revoked(query string, args ...any) (list []revocation, err error) {
	st, err := t.stmt(query)
	if err != nil {
		return nil, err
	}
	rows, err := st.Query(args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	t.wrote = true
	for rows.Next() {
		var r revocation
		if err := rows.Scan(&r.serial, &r.owner, &r.at, &r.reason, &r.expires); err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

// mergeRevocations makes database and revocation file agree, so that neither a restored backup nor a lost file un-revokes
// anything. It returns how many lines it revoked again.
func (s *store) mergeRevocations() (n int, err error) {
	err = s.do(0, func(t *writeTx) error {
		path := s.path + ".revoked"
		filed, err := readRevocations(path)
		if err != nil {
			return err
		}
		valid, err := t.revoked("SELECT DISTINCT '', owner, 0, '', 0 FROM certs WHERE revoked_at = 0")
		if err != nil {
			return err
		}
		owners, serials := map[string]bool{}, map[string]bool{}
		for _, r := range valid {
			owners[r.owner] = true
		}
		for _, r := range filed {
			serials[r.serial] = true
			if !owners[r.owner] {
				continue
			}
			if _, err := t.exec("UPDATE certs SET revoked_at = ?, reason = ? WHERE owner = ? AND revoked_at = 0", r.at, r.reason, r.owner); err != nil {
				return err
			}
			delete(owners, r.owner)
			n++
		}
		stored, err := t.revoked("SELECT serial, owner, revoked_at, reason, expires_at FROM certs WHERE revoked_at <> 0")
		if err != nil {
			return err
		}
		stored = slices.DeleteFunc(stored, func(r revocation) bool { return serials[r.serial] })
		if len(stored) == 0 {
			return nil
		}
		return appendRevocations(path, s.path, stored)
	})
	return n, err
}

// setAdmin gives or takes the rights of an admin in the whole line of a serial, unless it is revoked; errNotFound without one.
func (s *store) setAdmin(serial string, on bool) error {
	return s.do(0, func(t *writeTx) error {
		n, err := t.exec("UPDATE certs SET admin = ? WHERE revoked_at = 0 AND owner = (SELECT owner FROM certs WHERE serial = ?)", on, serial)
		if err == nil && n == 0 {
			return errNotFound
		}
		return err
	})
}

// certificates lists those of one owner, or all with "", the newest first, at most limit.
func (s *store) certificates(owner string, limit int) (list []*certificate, err error) {
	query, args := "SELECT "+certColumns+" FROM certs ORDER BY issued_at DESC, serial LIMIT ?", []any{limit}
	if owner != "" {
		query, args = "SELECT "+certColumns+" FROM certs WHERE owner = ? ORDER BY issued_at DESC, serial LIMIT ?", []any{owner, limit}
	}
	rows, err := s.r.Query(query, args...)
	if err != nil {
		return nil, storeError(err)
	}
	defer rows.Close()
	for rows.Next() {
		c := new(certificate)
		if err := rows.Scan(c.fields()...); err != nil {
			return nil, storeError(err)
		}
		list = append(list, c)
	}
	return list, storeError(rows.Err())
}

// authority returns the CA's certificate (DER) and sealed key, nil for what is not there.
func (s *store) authority() (cert, key []byte, err error) {
	err = s.r.QueryRow("SELECT (SELECT data FROM authority WHERE part = 'certificate'), (SELECT data FROM authority WHERE part = 'key')").Scan(&cert, &key)
	return cert, key, storeError(err)
}

// setAuthority stores a CA where there is none, not even half of one: errCAExists.
func (s *store) setAuthority(cert, key []byte) error {
	return s.do(0, func(t *writeTx) error {
		n, err := t.exec("INSERT INTO authority SELECT * FROM (VALUES ('certificate', ?), ('key', ?)) WHERE NOT EXISTS (SELECT 1 FROM authority)", cert, key)
		if err == nil && n == 0 {
			return errCAExists
		}
		return err
	})
}

// ---- the cache ----

// hotCache is an LRU of open contents, bounded by bytes. A fill that began before the last drop is refused: it may have
// read the old row.
type hotCache struct {
	generation atomic.Int64

	hits, misses atomic.Uint64

	mu    sync.Mutex
	limit int64
	bytes int64
	m     map[string]*hotEntry
	ring  hotEntry // ring.next is the most recently used
}

type hotEntry struct {
	key        string
	p          *paste
	expires    int64
	body       []byte
	next, prev *hotEntry
}

const hotOverhead = 1024 // bytes of a row, its keys and links

func newHotCache(limit int64) *hotCache {
	c := &hotCache{limit: limit, m: map[string]*hotEntry{}}
	c.ring.next, c.ring.prev = &c.ring, &c.ring
	return c
}

func (c *hotCache) get(id string, now int64) (*paste, []byte) {
	if c.limit == 0 {
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.m[id]
	if e == nil || e.expires <= now {
		c.misses.Add(1)
		return nil, nil
	}
	c.hits.Add(1)
	if c.ring.next != e {
		e.unlink()
		c.link(e)
	}
	return e.p, e.body
}

// stats returns lookups since the start and the bytes held now.
func (c *hotCache) stats() (hits, misses uint64, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hits.Load(), c.misses.Load(), c.bytes
}

func (c *hotCache) link(e *hotEntry) {
	e.prev, e.next = &c.ring, c.ring.next
	e.prev.next, e.next.prev = e, e
}

func (e *hotEntry) unlink() { e.prev.next, e.next.prev = e.next, e.prev }

func (c *hotCache) remove(e *hotEntry) {
	e.unlink()
	delete(c.m, e.key)
	c.bytes -= int64(len(e.body)) + hotOverhead
}

func (c *hotCache) put(key string, p *paste, body []byte, generation int64) {
	size := int64(len(body)) + hotOverhead
	c.mu.Lock()
	defer c.mu.Unlock()
	if size > c.limit || c.generation.Load() != generation {
		return
	}
	if old := c.m[key]; old != nil {
		c.remove(old)
	}
	for c.bytes+size > c.limit {
		c.remove(c.ring.prev)
	}
	e := &hotEntry{key: key, p: p, expires: p.expires, body: body}
	c.m[key] = e
	c.link(e)
	c.bytes += size
}

func (c *hotCache) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation.Add(1)
	if e := c.m[id]; e != nil {
		c.remove(e)
	}
}

// renew moves the deadline of a cached row, unless its life is another by now: a copy, since readers may hold the old one.
func (c *hotCache) renew(id string, t touch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.m[id]; e != nil && e.p.life == t.life && t.expires > e.expires {
		p := *e.p
		p.expires = t.expires
		e.p, e.expires = &p, t.expires
	}
}
