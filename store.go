package main

// store.go owns the database file: opening it, every SQL statement, the writer, contents in chunks, the cache of hot
// pastes, renewals, lists, the sweep, backups, certificates. It knows neither HTTP, settings nor metrics.
//
// Invariants:
//   - One goroutine (writeLoop) writes; it commits whatever waits as one group, and answers after the commit.
//   - A read writes nothing, but for a renewal once in a hundredth of a paste's life, which nobody waits for.
//   - A content is rows of chunkSize bytes under a number that is used once; a replaced content has another one.
//   - What no row names any more is garbage with a due time, so that nothing is ever repaired (schema.sql).
//   - No byte of content lies on a b-tree page (padFor), so that secure_delete leaves nothing of it behind.
//   - sql.ErrNoRows never leaves this file; "not there" is errNotFound, and no other error may be taken for it.

import (
	"bytes"
	"cmp"
	"container/list"
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
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
)

const (
	chunkSize     = 256 << 10
	pageSize      = 8192
	applicationID = 0x464c5350 // "FLSP": another program's database is never touched
	schemaVersion = 1
	batchOps      = 256             // operations in one commit
	batchBytes    = 4 << 20         // chunk bytes in one commit, and removed by one step of the sweep
	queueOps      = 1024            // operations waiting for the writer
	hotSize       = 64 << 10        // largest content in the cache
	logMost       = 32 << 20        // bytes by which the write-ahead log grows before all wait for it to be cut
	freePages     = 1024            // free pages (8 MiB) that the sweep leaves in the file for what comes next
	sweepRows     = 50              // expired rows, and certificates, removed by one step of the sweep
	sweepChunks   = 256             // chunks removed by one step, whatever their size
	listRows      = 10_000          // rows that one page of a list looks at
	leastFree     = 5 << 20         // bytes of disk that no upload takes: a step of the sweep needs them to make room
	stuckAfter    = 2 * time.Second // a writer that has not moved for so long is unhealthy
)

var (
	errNotFound  = errors.New("no such paste") // never there, expired, burned or deleted: nobody can tell
	errBusy      = errors.New("the server is busy")
	errFull      = errors.New("the storage is full")           // quota, reserve or disk: nothing was written
	errGone      = errors.New("the content is gone")           // a reader's next chunk, or an upload's first ones
	errDamaged   = errors.New("the stored content is damaged") // its SHA-256 is not the one that was stored with it
	errTaken     = errors.New("there is one already")          // create: draw another id
	errNoStore   = errors.New("no database")                   // when not serving
	errClosed    = errors.New("the store is closed")
	errForeign   = errors.New("not a flaskpaste database") // another application_id or no SQLite file
	errCorrupt   = errors.New("the database is damaged")   // truncated, or a page can't be read
	errLineFull  = errors.New("the owner has too many valid certificates")
	errNotRights = errors.New("the certificate has lost its rights meanwhile")
)

// sqliteErrors are ours for SQLite's result codes (https://www.sqlite.org/rescode.html). A failed write (778) is no
// space too: EDQUOT and EFBIG come as that, and a transaction that could not be written was rolled back.
var sqliteErrors = map[int]error{5: errBusy, 6: errBusy, 11: errCorrupt, 13: errFull, 19: errTaken, 26: errCorrupt,
	778: errFull}

//go:embed schema.sql
var schema string

// paste is a row of its table. Times are Unix seconds. It is shared with the cache: never changed once read.
type paste struct {
	content, size              int64
	id, mime                   string
	sha256                     []byte
	created, modified, expires int64
	life                       int64 // seconds that a read renews, 0 for a fixed deadline
	owner                      string
	burn                       bool
	password, proof, token     []byte
	name                       string
	memo                       *memo // of a cached row
}

// memo is what a reader makes of a cached row once, shared by its copies.
type memo struct {
	once sync.Once
	v    any
}

// open reports whether anybody who knows the id may read the content as often as they like.
func (p *paste) open() bool { return !p.burn && p.password == nil && p.proof == nil }

// The ways to open a database.
type openMode int

const (
	openServing openMode = iota // make it if it is not there, take the server's lock, write
	openBeside                  // an existing one, to write beside a server that may be running
	openReading                 // an existing one, and change nothing
)

type storeOptions struct {
	path       string
	mode       openMode
	full       bool  // synchronous=FULL
	checkpoint bool  // ours to do; false: an outer replicator's
	cacheSize  int64 // bytes
	reserve    int64 // bytes of disk that uploads leave free
	linger     int64 // seconds for which an upload, or the one reader of a burning paste, may need chunks of no row
	maxLife    int64 // seconds after creation beyond which no read renews
	log        *slog.Logger
	fatal      func(error)                     // called when the disk failed: must end the process
	committed  func(n int, took time.Duration) // told of each commit, may be nil
}

type store struct {
	storeOptions
	lock    *os.File
	alone   bool                      // we don't write, and nobody did when it was opened
	r, w    *pool                     // readers, one of them for lists, and the writer's one connection
	content atomic.Int64              // last content number given out
	pastes  atomic.Int64              // rows, counted once: no other process adds or removes one
	stuck   atomic.Pointer[time.Time] // when the writer took up work that it has not finished yet
	damaged atomic.Bool               // errCorrupt was met
	kick    chan struct{}             // there is garbage: sweep soon
	cache   hotCache
	listing sync.Mutex // of the one reader that may be long: held by a list, and while the log is cut
	cutAt   int64      // bytes of the log from which on it is cut; of the writer

	mu     sync.RWMutex // guards closed against sends on ops
	closed bool
	ops    chan *operation
	done   chan struct{} // writeLoop has ended
}

// pool is connections to the database with the statements prepared on them: preparing costs more than running.
type pool struct {
	*sql.DB
	prepared sync.Map // query -> *sql.Stmt
}

// stmt returns the statement of a query. None is bound to a context that can end: the driver would start a goroutine
// for each. Two that prepare the same at once leave one that nobody uses.
func (p *pool) stmt(query string) (*sql.Stmt, error) {
	if st, ok := p.prepared.Load(query); ok {
		return st.(*sql.Stmt), nil
	}
	st, err := p.Prepare(query)
	if err == nil {
		p.prepared.Store(query, st)
	}
	return st, err
}

// row reads one row into dest; errNotFound without one.
func (p *pool) row(query string, args []any, dest ...any) error {
	st, err := p.stmt(query)
	if err == nil {
		err = st.QueryRow(args...).Scan(dest...)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return errNotFound
	}
	return err
}

// collect returns the rows of a query; fields says where the columns of one go.
func collect[T any](p *pool, fields func(*T) []any, query string, args ...any) (list []*T, err error) {
	st, err := p.stmt(query)
	if err != nil {
		return nil, err
	}
	rows, err := st.Query(args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() && err == nil {
		v := new(T)
		list, err = append(list, v), rows.Scan(fields(v)...)
	}
	return list, cmp.Or(err, rows.Err())
}

func oneText(v *string) []any { return []any{v} }

// ---- opening ----

// dsn is the file: URL that the driver opens; a plain name would drop the mode.
func dsn(path, mode string, pragmas ...string) string {
	q := url.Values{"mode": {mode}, "_pragma": append(pragmas, "busy_timeout(5000)", "temp_store(MEMORY)")}
	return (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}).String()
}

// connect opens so many connections. Where nobody writes SQLite is told so: it would make a log otherwise.
func (s *store) connect(connections int, mode string, pragmas ...string) (*pool, error) {
	name := dsn(s.path, mode, pragmas...)
	if s.alone {
		name += "&immutable=1"
	}
	db, err := sql.Open("sqlite", name)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return &pool{DB: db}, nil
}

// nobodyWrites tells by the log: even an empty one is a server's, or what a kill left.
func (s *store) nobodyWrites() bool {
	_, err := os.Stat(s.path + "-wal")
	return errors.Is(err, os.ErrNotExist)
}

// openStore opens the database at o.path. A file that it refuses is left as it was.
func openStore(o storeOptions) (*store, error) {
	s := &store{storeOptions: o, cutAt: logMost, kick: make(chan struct{}, 1), ops: make(chan *operation, queueOps),
		done: make(chan struct{}), cache: hotCache{limit: o.cacheSize, m: map[string]*list.Element{}}}
	if err := s.open(); err != nil {
		s.release()
		return nil, fmt.Errorf("opening the database: %w", storeError(err))
	}
	go s.writeLoop()
	return s, nil
}

func (s *store) open() (err error) {
	if s.path, err = filepath.Abs(s.path); err != nil {
		return err
	}
	if s.mode == openServing {
		if err = os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
			return fmt.Errorf("making the database's folder: %w", err)
		}
		f, err := os.OpenFile(s.path, os.O_CREATE|os.O_RDWR, 0o600) // so that a link to nothing leads to a file
		if err != nil {
			return err
		}
		f.Close()
	}
	file, err := filepath.EvalSymlinks(s.path) // one file, one lock, one log, whatever it is called
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w at %s", errNoStore, s.path)
	}
	if err != nil {
		return err
	}
	s.path = file
	if s.mode == openServing {
		if s.lock, err = lockFile(s.path + ".lock"); err != nil {
			return err
		}
	}
	s.alone = s.nobodyWrites()
	version, err := s.inspect()
	if err != nil {
		return err
	}
	if version == 0 && s.mode != openServing {
		return fmt.Errorf("%w: %s is empty: start the server once", errNoStore, s.path)
	}
	if s.mode != openReading {
		if err = s.openWriter(version == 0); err != nil {
			return err
		}
	}
	if s.r, err = s.connect(runtime.NumCPU()+1, "ro"); err != nil {
		return err
	}
	var content, pastes int64
	err = s.r.row(`SELECT max(coalesce((SELECT max(key) FROM chunks) >> 20, 0),
		coalesce((SELECT max(content) FROM garbage), 0), coalesce((SELECT max(content) FROM pastes), 0)),
		(SELECT count(*) FROM pastes)`, nil, &content, &pastes)
	s.content.Store(content)
	s.pastes.Store(pastes)
	return err
}

// inspect looks at the file before SQLite may write to it (file format, section 1.3), and returns its version, 0
// without tables.
func (s *store) inspect() (version int, err error) {
	f, err := os.Open(s.path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size, log := fileSize(s.path), fileSize(s.path+"-wal")
	if size == 0 {
		return 0, nil
	}
	var h [100]byte
	if _, err := io.ReadFull(f, h[:]); err != nil || string(h[:16]) != "SQLite format 3\x00" {
		return 0, fmt.Errorf("%w: %s", errForeign, s.path)
	}
	if log > 0 && h[18] == 1 && h[19] == 1 { // a backup, in rollback mode: the log belongs to what it replaced
		return 0, fmt.Errorf("it was put in the place of another one, whose write-ahead log still lies there: "+
			"to keep the restored one, remove %[1]s-wal and %[1]s-shm", s.path)
	}
	want := int64(binary.BigEndian.Uint32(h[28:])) * int64(binary.BigEndian.Uint16(h[16:])) // pages of so many bytes
	if log == 0 && size < want {
		return 0, fmt.Errorf("%w: %s is truncated: %d of %d bytes", errCorrupt, s.path, size, want)
	}
	db, err := s.connect(1, "ro")
	if err != nil {
		return 0, err
	}
	defer db.Close()
	var id int
	err = db.row(`SELECT (SELECT application_id FROM pragma_application_id),
		(SELECT user_version FROM pragma_user_version)`, nil, &id, &version)
	if err == nil && id != applicationID {
		err = fmt.Errorf("%w: %s", errForeign, s.path)
	} else if err == nil && version > schemaVersion {
		err = fmt.Errorf("database of a newer flaskpaste: %s has version %d, this program knows %d", s.path, version,
			schemaVersion)
	}
	return version, err
}

// openWriter opens the one connection that writes, and lays the schema where there is none yet. The driver runs pragmas
// in the order of their names: those of a new file, and the log, whose mode the file keeps, have their own.
func (s *store) openWriter(empty bool) (err error) {
	if _, err = sqlite.Fdatasync(true); err != nil && runtime.GOOS == "linux" {
		return err
	}
	level := map[bool]string{true: "2", false: "1"}[s.full]
	s.alone = false
	// A small cache: each page in it costs twice its size, and the kernel has them all.
	if s.w, err = s.connect(1, "rw", "synchronous("+level+")", "secure_delete(ON)", "foreign_keys(1)",
		"cache_size(-2048)", "wal_autocheckpoint(1000)", "journal_size_limit(16777216)"); err != nil {
		return err
	}
	if empty {
		if _, err = s.w.Exec(fmt.Sprintf("PRAGMA page_size = %d; PRAGMA auto_vacuum = INCREMENTAL;"+
			"PRAGMA application_id = %d; PRAGMA journal_mode = WAL; BEGIN IMMEDIATE;\n%s\nPRAGMA user_version = %d;"+
			"COMMIT", pageSize, applicationID, schema, schemaVersion)); err != nil {
			return err
		}
	}
	for name, want := range map[string]string{"journal_mode = WAL": "wal", "synchronous": level, "secure_delete": "1",
		"auto_vacuum": "2", "page_size": strconv.Itoa(pageSize)} {
		var got string
		if err := s.w.row("PRAGMA "+name, nil, &got); err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("PRAGMA %s is %s, not %s: is the file system able to hold a database?", name, got, want)
		}
	}
	return nil
}

// close drains the writer and lets go of the file. The last connection to it empties the write-ahead log.
func (s *store) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	s.closed = true
	close(s.ops)
	<-s.done
	return s.release()
}

func (s *store) release() (err error) {
	for _, p := range []*pool{s.r, s.w} {
		if p != nil {
			err = errors.Join(err, p.Close())
		}
	}
	if s.lock != nil {
		s.lock.Close() // the file stays: removing it would let two servers lock two files of one name
	}
	return err
}

// sqliteCode is the extended result code of the driver's error, 0 for another error.
func sqliteCode(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

// storeError turns the driver's errors into ours; others pass.
func storeError(err error) error {
	code := sqliteCode(err)
	if ours := cmp.Or(sqliteErrors[code], sqliteErrors[code&0xff]); ours != nil {
		return fmt.Errorf("%w: %w", ours, err)
	}
	return err
}

// failed is storeError, which remembers that the database is damaged.
func (s *store) failed(err error) error {
	err = storeError(err)
	if errors.Is(err, errCorrupt) && !s.damaged.Swap(true) {
		s.log.Error("the database is damaged: nothing is stored any more; see flaskpaste check", "error", err)
	}
	return err
}

// healthy reports whether the writer moves and the database can be read. It asks nobody and waits for nothing. A writer
// that failed last is given something to do, so that it is known when it can write again.
func (s *store) healthy() bool {
	since := s.stuck.Load()
	if since != nil && len(s.ops) == 0 {
		s.post(0, func(*writeTx) error { return nil })
	}
	return !s.damaged.Load() && (since == nil || time.Since(*since) < stuckAfter)
}

// ---- the writer ----

// operation is one caller's change: all of it is committed or nothing.
type operation struct {
	run  func(*writeTx) error
	size int        // chunk bytes that it brings
	err  error      // a refusal
	done chan error // has room for one
}

// writeTx is what an operation writes with. An operation may run twice: it must remember nothing.
type writeTx struct {
	*pool
	err        error // of the first statement that failed; those behind it do nothing
	used, free int64 // bytes of used pages and of free disk, with what this group has added; used -1: not asked yet
	pastes     int64 // rows that this group has added
	wrote      bool  // the running operation has changed something, or may have
	truncate   bool  // the write-ahead log, after the commit
}

// exec runs a statement and returns the number of rows that it changed. What a failed one did, SQLite has undone.
func (t *writeTx) exec(query string, args ...any) (n int64) {
	if t.err != nil {
		return 0
	}
	st, err := t.stmt(query)
	var res sql.Result
	if err == nil {
		res, err = st.Exec(args...)
	}
	if err == nil {
		n, err = res.RowsAffected()
	}
	t.err, t.wrote = err, t.wrote || n > 0
	return n
}

// get reads one row into dest.
func (t *writeTx) get(query string, args []any, dest ...any) {
	if t.err == nil {
		t.err = t.row(query, args, dest...)
	}
}

// do hands an operation to the writer and waits for its commit. The caller's leaving changes nothing: what was accepted
// is answered. errBusy: not accepted. size is the chunk bytes that it brings.
func (s *store) do(size int, run func(*writeTx) error) error {
	done, err := s.post(size, run)
	if err != nil {
		return err
	}
	return <-done
}

// post is do for who does not wait.
func (s *store) post(size int, run func(*writeTx) error) (done chan error, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, errClosed
	}
	op := &operation{run: run, size: size, done: make(chan error, 1)}
	select {
	case s.ops <- op:
		return op.done, nil
	default:
		return nil, errBusy
	}
}

// statement is an operation of one.
func statement(query string, args ...any) func(*writeTx) error {
	return func(t *writeTx) error {
		t.exec(query, args...)
		return nil
	}
}

// writeLoop commits in groups without a timer: while one commit waits for the disk, the next group gathers.
func (s *store) writeLoop() {
	defer close(s.done)
	batch := make([]*operation, 0, batchOps)
	for op := range s.ops {
		now := time.Now()
		s.stuck.CompareAndSwap(nil, &now)
		batch = append(batch[:0], op)
		for size := op.size; len(batch) < batchOps && size < batchBytes && len(s.ops) > 0; {
			next := <-s.ops // this goroutine alone takes from it
			batch, size = append(batch, next), size+next.size
		}
		s.commit(batch)
	}
}

// commit runs a group in one transaction and answers all after it. When an operation fails after it has written, or the
// database does, each runs alone, so that nobody fails by another's doing.
func (s *store) commit(batch []*operation) {
	began := time.Now()
	t := &writeTx{pool: s.w, used: -1}
	err := t.attempt(batch)
	if sqliteCode(err) != 0 && errors.Is(storeError(err), errFull) { // what the log takes is room, too
		s.cutLog(s.checkpoint)
		t = &writeTx{pool: s.w, used: -1}
		err = t.attempt(batch)
	}
	if err != nil && len(batch) > 1 && !errors.Is(storeError(err), errBusy) { // who holds the lock does for each
		for i := range batch {
			s.commit(batch[i : i+1])
		}
		return
	}
	if err = s.ended(err); err == nil {
		s.pastes.Add(t.pastes)
		s.cutLog(t.truncate)
	}
	if s.committed != nil {
		s.committed(len(batch), time.Since(began))
	}
	for _, op := range batch {
		op.done <- cmp.Or(err, op.err)
	}
	for errors.Is(err, errBusy) && len(s.ops) > 0 { // who held the lock held it while these waited
		(<-s.ops).done <- err
	}
}

// attempt runs a group up to its COMMIT. Only who had written nothing may be refused without undoing all.
func (t *writeTx) attempt(batch []*operation) error {
	t.exec("BEGIN IMMEDIATE")
	for i := 0; i < len(batch) && t.err == nil; i++ {
		t.wrote = false
		err := batch[i].run(t)
		batch[i].err = cmp.Or(t.err, err)
		if t.err = batch[i].err; !t.wrote && sqliteCode(t.err) == 0 {
			t.err = nil
		}
	}
	t.exec("COMMIT")
	err := t.err
	if t.err = nil; err != nil {
		t.exec("ROLLBACK") // fails when SQLite has already done so
	}
	return err
}

// ended notes that the writer moves, unless somebody else holds the file. It ends the process on an I/O error (10) that
// is not a full disk: after a failed fsync the kernel may have dropped the pages, so that a later success would prove
// nothing. The restart recovers from the write-ahead log.
func (s *store) ended(err error) error {
	err = s.failed(err)
	if sqliteCode(err)&0xff == 10 && !errors.Is(err, errFull) {
		s.fatal(err)
	}
	if !errors.Is(err, errBusy) {
		s.stuck.Store(nil)
	}
	return err
}

// cutLog moves the write-ahead log into the file and cuts it to nothing, behind a commit, when the sweep wants it or it
// has grown: readers that take turns never let SQLite begin it anew. It is never more than half of what the disk has
// left, or what it holds would find no room in the file. A reader in its way that is no list is no error,
// nor waited for long, since all writing waits with it: a copy that is being made may hold the log for minutes.
func (s *store) cutLog(wanted bool) {
	name := s.path + "-wal"
	if !wanted && !(s.checkpoint && fileSize(name) > min(s.cutAt, freeSpace(s.path)/2)) {
		return
	}
	s.listing.Lock()
	defer s.listing.Unlock()
	_, err := s.w.Exec("PRAGMA busy_timeout = 50; PRAGMA wal_checkpoint(TRUNCATE)")
	_, restored := s.w.Exec("PRAGMA busy_timeout = 5000")
	s.ended(errors.Join(err, restored))
	s.cutAt = fileSize(name) + logMost
}

// ---- content ----

// padFor returns how many zeros go before n bytes of content in a chunk's record, so that the part that SQLite keeps on
// the b-tree page (file format, section 1.6: M bytes, or M + (P-M) mod (U-4) where that fits) is all padding. Records
// on b-tree pages are copied when pages are rebuilt, and those copies outlive secure_delete; overflow pages are not.
func padFor(n int) int {
	const u = pageSize
	const m = (u-12)*32/255 - 23
	const header = 9 // sizes and types of the record's columns, at most
	return m + header + (u-4-(n+2*header)%(u-4))%(u-4)
}

// usedQuery is what the database holds on the disk, in bytes of used pages.
var usedQuery = fmt.Sprintf(`SELECT ((SELECT page_count FROM pragma_page_count) -
	(SELECT freelist_count FROM pragma_freelist_count)) * %d`, pageSize)

// upload is a content that is being written: its chunks are invisible until a paste names it.
type upload struct {
	s       *store
	content int64
	seq     int64 // chunks written so far
	limit   int64 // of used pages, by the uploader's tier
}

// newUpload begins a content; limit is what the database may hold with it.
func (s *store) newUpload(limit int64) *upload {
	return &upload{s: s, content: s.content.Add(1), limit: limit}
}

// put stores the next chunk, if any, and takes the content off the garbage. errFull: used pages would come to more than
// the limit, or the disk to less than the reserve. errGone: the sweep has begun with the chunks before.
func (u *upload) put(t *writeTx, data []byte) error {
	if u.seq > 0 && t.exec("DELETE FROM garbage WHERE content = ? AND due > 0", u.content) == 0 {
		return errGone
	}
	if len(data) == 0 {
		return nil
	}
	if u.s.damaged.Load() {
		return errCorrupt
	}
	if t.used < 0 {
		t.free = freeSpace(u.s.path)
		t.get(usedQuery, nil, &t.used)
	}
	pad := padFor(len(data))
	size := int64(len(data)+pad) / (pageSize - 4) * pageSize // overflow pages: what deleting it gives back
	if t.used+size > u.limit || t.free-size < max(u.s.reserve, leastFree) {
		return errFull
	}
	t.used, t.free = t.used+size, t.free-size
	t.exec("INSERT INTO chunks (key, pad, data) VALUES (?, zeroblob(?), ?)", u.content<<20|u.seq, pad, data)
	return nil
}

// add stores one full chunk; now is Unix seconds. From then on the content is garbage that is due when no upload can
// last any longer.
func (u *upload) add(chunk []byte, now int64) error {
	err := u.s.do(len(chunk), func(t *writeTx) error {
		if err := u.put(t, chunk); err != nil {
			return err
		}
		t.exec("INSERT INTO garbage VALUES (?, ?)", u.content, now+u.s.linger)
		t.sweepGarbage(0, 4, 2*chunkSize) // twice what it may leave behind: uploads never outrun the sweep
		return nil
	})
	if err == nil {
		u.seq++
	}
	return err
}

// abort gives up what add has stored.
func (u *upload) abort() {
	if u.seq > 0 {
		u.s.discard(u.content)
	}
}

// discard makes garbage due now. When the queue is full it falls due by itself.
func (s *store) discard(content int64) {
	s.post(0, statement("UPDATE garbage SET due = 0 WHERE content = ?", content))
	s.wake()
}

func (s *store) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// ---- pastes ----

const (
	pasteColumns = `content, size, id, mime, sha256, created_at, modified_at, expires_at, life, owner, burn, password,
		proof, token, name`
	pasteValues = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

// fields are those of pasteColumns, to read or to write.
func (p *paste) fields() []any {
	return append(make([]any, 0, 16), &p.content, &p.size, &p.id, &p.mime, &p.sha256, &p.created, &p.modified,
		&p.expires, &p.life, &p.owner, &p.burn, &p.password, &p.proof, &p.token, &p.name) // and room for the content
}

// create stores p with the content of u, whose last (or only) chunk is last. errTaken: the id exists.
func (s *store) create(p *paste, u *upload, last []byte) error {
	p.content = u.content
	return s.do(len(last), func(t *writeTx) error {
		if err := u.put(t, last); err != nil {
			return err
		}
		t.exec("INSERT INTO pastes ("+pasteColumns+") VALUES "+pasteValues, p.fields()...)
		t.pastes++
		return nil
	})
}

// alter lets f change the row of id that lives at now, as it is in the moment of writing: the last one to write wins.
// Then the cache forgets it, and the sweep looks for what is left. size is the chunk bytes that it brings.
func (s *store) alter(id string, now int64, size int, f func(*writeTx, *paste) error) error {
	defer s.dropped(id)
	return s.do(size, func(t *writeTx) error {
		p, _, err := t.find(id, now, false)
		if err != nil {
			return err
		}
		return f(t, p)
	})
}

func (s *store) dropped(id string) {
	s.cache.drop(id)
	s.wake()
}

// change lets apply rewrite a row, and returns it; what apply returns refuses. u is nil without a new content.
func (s *store) change(id string, now int64, u *upload, last []byte, apply func(*paste) error) (p *paste, err error) {
	err = s.alter(id, now, len(last), func(t *writeTx, found *paste) error {
		p = found
		err := apply(p)
		if err == nil && u != nil {
			p.content = u.content
			err = u.put(t, last)
		}
		if err == nil {
			t.exec("UPDATE pastes SET ("+pasteColumns+") = "+pasteValues+" WHERE id = ?",
				append(p.fields(), id)...)
		}
		return err
	})
	return p, err
}

// remove deletes a row, if allowed lets it; errNotFound when somebody was faster.
func (s *store) remove(id string, now int64, allowed func(*paste) error) error {
	return s.alter(id, now, 0, func(t *writeTx, p *paste) error {
		if err := allowed(p); err != nil {
			return err
		}
		t.pastes -= t.exec("DELETE FROM pastes WHERE id = ?", id)
		return nil
	})
}

// claim burns a paste for its one reader: a single statement decides who that is. What he has not read yet stays until
// discard, or until it falls due.
func (s *store) claim(p *paste, now int64) error {
	defer s.dropped(p.id)
	return s.do(0, func(t *writeTx) error {
		if t.exec("DELETE FROM pastes WHERE id = ? AND content = ? AND expires_at > ?", p.id, p.content, now) == 0 {
			return errNotFound
		}
		if t.pastes--; p.size > chunkSize {
			t.exec("UPDATE garbage SET due = ? WHERE content = ?", now+s.linger, p.content)
		}
		return nil
	})
}

// renew moves the deadline of p, read at now, to now + its life (at most maxLife after its creation), when that is a
// hundredth of its life, and a second, more than it is. With a full queue the next read does it.
func (s *store) renew(p *paste, now int64) {
	expires := min(now+p.life, p.created+s.maxLife)
	if p.life == 0 || expires-p.expires < max(1, p.life/100) {
		return
	}
	if _, err := s.post(0, statement(`UPDATE pastes SET expires_at = ?1 WHERE id = ?2 AND life = ?3
		AND expires_at BETWEEN ?4 AND ?1`, expires, p.id, p.life, now+1)); err == nil {
		s.cache.renew(p, expires)
	}
}

// ---- reading ----

// find returns the row of id that lives at now; with content also the first chunk, of the same moment.
func (p *pool) find(id string, now int64, content bool) (*paste, []byte, error) {
	found, first := &paste{memo: new(memo)}, []byte(nil)
	err := p.row("SELECT "+pasteColumns+`, iif(?3, (SELECT data FROM chunks WHERE key = content << 20), NULL)
		FROM pastes WHERE id = ?1 AND expires_at > ?2`, []any{id, now, content}, append(found.fields(), &first)...)
	return found, first, err
}

// one reads one row with a reader; errNotFound without one.
func (s *store) one(query string, args []any, dest ...any) error {
	return s.failed(s.r.row(query, args, dest...))
}

// show returns the row of id that lives at now.
func (s *store) show(id string, now int64) (*paste, error) {
	if p, _ := s.cached(id, now); p != nil {
		return p, nil
	}
	p, _, err := s.r.find(id, now, false)
	return p, s.failed(err)
}

// get is show with the first chunk: all of a content that is no longer. Small open ones go into the cache.
func (s *store) get(id string, now int64) (*paste, []byte, error) {
	if p, body := s.cached(id, now); p != nil {
		return p, body, nil
	}
	drops := s.cache.drops.Load()
	p, first, err := s.r.find(id, now, true)
	if err != nil {
		return nil, nil, s.failed(err)
	}
	sum := sha256.Sum256(first)
	if int64(len(first)) != min(p.size, chunkSize) || p.size <= chunkSize && !bytes.Equal(sum[:], p.sha256) {
		return nil, nil, errDamaged
	}
	if p.size <= hotSize && p.open() {
		s.cache.put(p, first, drops)
	}
	return p, first, nil
}

// reader reads a paste's content chunk by chunk (io.ReaderAt; one goroutine). It holds one chunk, and checks the
// SHA-256 before it lets go of the last one when it was read from start to end.
type reader struct {
	s    *store
	p    *paste
	seq  int64 // of the chunk in buf
	buf  chunk
	hash hash.Hash
	next int64 // sequence of the chunk that the hash waits for
	err  error // the first failure, kept: ServeContent swallows it
}

// chunk is scanned into the memory of the one before.
type chunk []byte

func (c *chunk) Scan(v any) error {
	data, _ := v.([]byte)
	*c = append((*c)[:0], data...)
	return nil
}

// reader returns a reader of p's content, of which get returned the first chunk.
func (s *store) reader(p *paste, first []byte) *reader {
	r := &reader{s: s, p: p, buf: first, next: 1, hash: sha256.New()}
	if p.size > chunkSize {
		r.hash.Write(first)
	}
	return r
}

func (r *reader) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) && off < r.p.size && r.err == nil {
		if r.err = r.load(off / chunkSize); r.err == nil {
			m := copy(b[n:], r.buf[off%chunkSize:])
			n, off = n+m, off+int64(m)
		}
	}
	if n < len(b) {
		err = cmp.Or(r.err, io.EOF)
	}
	return n, err
}

func (r *reader) load(seq int64) error {
	if seq == r.seq {
		return nil
	}
	r.seq = seq
	err := r.s.one("SELECT data FROM chunks WHERE key = ?", []any{r.p.content<<20 | seq}, &r.buf)
	if errors.Is(err, errNotFound) {
		return errGone
	}
	if err != nil {
		return err
	}
	if seq == r.next {
		r.hash.Write(r.buf)
		r.next++
	}
	if int64(len(r.buf)) != min(chunkSize, r.p.size-seq*chunkSize) ||
		r.next*chunkSize >= r.p.size && !bytes.Equal(r.hash.Sum(nil), r.p.sha256) {
		return errDamaged
	}
	return nil
}

// listQuery selects pastes. Zero values: no such condition.
type listQuery struct {
	shorts       bool // short URLs instead, with their targets
	all          bool // everybody's, else owner's ("": nobody's)
	owner        string
	limit        int
	cursor       int64  // where the page before ended
	text         string // part of display name or id, ASCII case ignored
	mime         string // "image/png" or "image/*"
	after, until int64  // created_at > after, < until; without a bound until is the farthest time
}

// list returns a page, the latest content first, and the cursor of the next page, 0 at the end. It looks at listRows
// rows at most, one list at a time: no client decides how long a read holds the log, or how many readers.
func (s *store) list(q listQuery, now int64) (found []*paste, next int64, err error) {
	s.listing.Lock()
	defer s.listing.Unlock()
	window := " FROM pastes WHERE content < ?1"
	if !q.all {
		window += " AND owner = ?2 AND (id > 's') = ?3"
	}
	window += " ORDER BY content DESC LIMIT "
	args := []any{cmp.Or(q.cursor, 1<<62), q.owner, q.shorts, listRows, now, q.after, q.until, q.text,
		cmp.Or(q.mime, "*") + ";*", q.limit + 1} // a type has no other character that means something to GLOB
	found, err = collect(s.r, (*paste).fields, "SELECT "+pasteColumns+" FROM (SELECT *"+window+`?4)
		WHERE (id > 's') = ?3 AND expires_at > ?5 AND created_at > ?6 AND created_at < ?7
		AND (instr(lower(name), lower(?8)) OR instr(id, lower(?8))) AND mime || ';' GLOB ?9
		ORDER BY content DESC LIMIT ?10`, args...)
	if err == nil && len(found) > q.limit {
		return found[:q.limit], found[q.limit-1].content, nil
	}
	if err == nil {
		err = s.r.row("SELECT coalesce((SELECT content"+window+"1 OFFSET ?4 - 1), 0)", args, &next)
	}
	return found, next, s.failed(err)
}

// storeStats is what an operator watches.
type storeStats struct {
	pastes, used, free int64 // rows; bytes of used pages, of free disk
	firstEnd           int64 // when the row that expires first does, or did; the farthest future without any
	lastChange         int64 // when the latest content came, 0 without one
	queue              int
	hits, misses       uint64 // of the cache, since the start
	cacheBytes         int64
}

func (s *store) stats() (v storeStats, err error) {
	err = s.one("SELECT coalesce((SELECT min(expires_at) FROM pastes), 1 << 62), coalesce((SELECT modified_at "+
		"FROM pastes ORDER BY content DESC LIMIT 1), 0), ("+usedQuery+")", nil, &v.firstEnd, &v.lastChange, &v.used)
	v.pastes, v.queue, v.free = s.pastes.Load(), len(s.ops), freeSpace(s.path)
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	v.hits, v.misses, v.cacheBytes = s.cache.hits, s.cache.misses, s.cache.bytes
	return v, err
}

// ---- the sweep ----

// sweep does a bounded piece of all that is due at now: expired rows, garbage, old certificates, free pages; when
// nothing more is, it empties the write-ahead log, so that expired bytes are gone from both files. Each step looks
// after each of them, so that nobody can starve one by feeding another.
func (s *store) sweep(now int64) (pastes, shorts int, more bool, err error) {
	var ids []*string
	err = s.do(0, func(t *writeTx) error {
		ids = t.texts(`DELETE FROM pastes WHERE content IN (SELECT content FROM pastes
			WHERE expires_at <= ? ORDER BY expires_at LIMIT ?) RETURNING id`, now, sweepRows)
		t.pastes -= int64(len(ids))
		t.sweepGarbage(now, sweepChunks, batchBytes)
		// Whole lines only: an expired certificate that nobody knew any more would be a pseudonym again, with the
		// line's owner id.
		certs := t.exec(`DELETE FROM certs WHERE sha256 IN (SELECT sha256 FROM certs c WHERE vouched = 0
			AND expires_at <= ?1 AND NOT EXISTS (SELECT 1 FROM certs o WHERE o.owner = c.owner AND o.expires_at > ?1)
			LIMIT ?2)`, now-max(certMemory, s.maxLife), sweepRows)
		var free int64
		t.get(`SELECT EXISTS (SELECT 1 FROM garbage WHERE due <= ?), freelist_count FROM pragma_freelist_count`,
			[]any{now}, &more, &free)
		if free > freePages {
			t.exec("PRAGMA incremental_vacuum(128)")
		}
		more = more || len(ids) == sweepRows || certs == sweepRows || free > freePages
		t.truncate = s.checkpoint && !more
		return nil
	})
	if err != nil { // and nothing is gone
		return 0, 0, false, err
	}
	for _, id := range ids {
		s.cache.drop(*id)
		if strings.HasPrefix(*id, "s/") {
			shorts++
		}
	}
	return len(ids) - shorts, shorts, more, nil
}

// texts runs a statement that changes rows and returns one column of each.
func (t *writeTx) texts(query string, args ...any) (list []*string) {
	if t.err == nil {
		t.wrote = true
		list, t.err = collect(t.pool, oneText, query, args...)
	}
	return list
}

// sweepGarbage removes some chunks of garbage that is due, of so many bytes at most. Due 0 says that it has begun: an
// upload that is still under way, since the clock went on without it, must not become a paste with holes.
func (t *writeTx) sweepGarbage(now int64, chunks int, most int64) {
	t.exec(`UPDATE garbage SET due = 0 WHERE content IN
		(SELECT content FROM garbage WHERE due BETWEEN 1 AND ? ORDER BY due LIMIT ?)`, now, chunks)
	t.exec(`DELETE FROM chunks WHERE key IN (SELECT key FROM (SELECT key, sum(size) OVER (ORDER BY key) AS until FROM
		(SELECT c.key, length(c.data) AS size FROM garbage g
		JOIN chunks c ON c.key BETWEEN g.content << 20 AND (g.content << 20) + 1048575
		WHERE g.due = 0 ORDER BY g.content, c.key LIMIT ?)) WHERE until <= ?)`, chunks, most)
	t.exec(`DELETE FROM garbage WHERE content IN (SELECT content FROM garbage WHERE due = 0 ORDER BY content LIMIT ?)
		AND NOT EXISTS (SELECT 1 FROM chunks WHERE key BETWEEN content << 20 AND (content << 20) + 1048575)`, chunks)
}

// ---- backup and check ----

// undisturbed returns err, or what is wrong with what was read when SQLite had been told that nobody writes.
func (s *store) undisturbed(err error) error {
	if s.alone && !s.nobodyWrites() {
		return errors.New("a server was started meanwhile, what was read is worth nothing: try again")
	}
	return storeError(err)
}

// backup writes a compact copy to path, 0600, while the database is in use: whole or not at all, without garbage and
// without burning pastes, which could be read twice. path must not exist. It ends with ctx, and leaves nothing.
func (s *store) backup(ctx context.Context, path string) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s exists", path)
	}
	part := fmt.Sprintf("%s.part-%d", path, os.Getpid())
	f, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) // which VACUUM INTO takes, since it is empty
	if err != nil {
		return err
	}
	defer os.Remove(part)
	defer f.Close()
	_, err = s.r.ExecContext(ctx, "VACUUM INTO ?", part)
	if err = s.undisturbed(err); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", dsn(part, "rw", "secure_delete(ON)", "journal_mode(DELETE)"))
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err = db.Exec(`BEGIN; DELETE FROM pastes WHERE burn;
		DELETE FROM chunks WHERE key >> 20 IN (SELECT content FROM garbage); DELETE FROM garbage; COMMIT`); err != nil {
		return storeError(err)
	}
	if err = errors.Join(db.Close(), f.Sync(), ctx.Err()); err == nil {
		err = os.Link(part, path) // fails if path appeared meanwhile; rename would replace it
	}
	return errors.Join(err, syncDir(filepath.Dir(path)))
}

// integrity returns what SQLite finds wrong: "ok" alone if nothing is.
func (s *store) integrity() ([]*string, error) {
	list, err := collect(s.r, oneText, "PRAGMA integrity_check(20)")
	return list, s.undisturbed(err)
}

// ---- certificates ----

const (
	enrolledMost = 100_000    // certificates that strangers may hold: some 40 MiB of rows
	lineMost     = 16         // valid certificates of one owner: renewing costs no work
	certMemory   = 90 * 86400 // seconds for which an expired one can be renewed, and a self-enrolled one is known
)

// certificate is a row of certs. Fingerprints and serial are lower-case hex, times Unix seconds.
type certificate struct {
	sha256, sha1, serial, owner, name string
	issued, expires, revoked          int64 // revoked 0: it is not
	reason                            string
	vouched, admin                    bool
}

const certColumns = "sha256, sha1, serial, owner, name, issued_at, expires_at, revoked_at, reason, vouched, admin"

// fields are those of certColumns, to read or to write.
func (c *certificate) fields() []any {
	return []any{&c.sha256, &c.sha1, &c.serial, &c.owner, &c.name, &c.issued, &c.expires, &c.revoked, &c.reason,
		&c.vouched, &c.admin}
}

// certificate returns the row whose column (sha256, sha1 or serial) has this value; errNotFound without one. It is
// asked for each request that shows a certificate and never cached: a revocation in another process holds at once.
func (s *store) certificate(column, value string) (*certificate, error) {
	c := new(certificate)
	return c, s.one("SELECT "+certColumns+" FROM certs WHERE "+column+" = ?", []any{value}, c.fields()...)
}

// addCertificate stores a new certificate: as the first of a line, or in the line of parent (SHA-256), which must not
// be revoked in the moment of writing, nor have ended more than certMemory ago (else errNotFound). Rights come from the
// line as it is then, never from the caller: c.owner, and for a renewal c.vouched and c.admin, are filled in. admin is
// the SHA-256 of the admin who vouches and must still be one (errNotRights), or "".
func (s *store) addCertificate(c *certificate, parent, admin string) error {
	return s.do(0, func(t *writeTx) error {
		var n, most int64
		var refusal error // when n has come to the most
		switch c.owner = c.sha256; {
		case parent != "":
			most, refusal = lineMost, errLineFull
			t.get(`SELECT owner, vouched, admin, (SELECT count(*) FROM certs o WHERE o.owner = c.owner
				AND o.expires_at > ?) FROM certs c WHERE sha256 = ? AND revoked_at = 0 AND expires_at > ?`,
				[]any{c.issued, parent, c.issued - certMemory}, &c.owner, &c.vouched, &c.admin, &n)
		case admin != "":
			most, refusal = 1, errNotRights
			t.get("SELECT NOT EXISTS (SELECT 1 FROM certs WHERE sha256 = ? AND admin = 1 AND revoked_at = 0)",
				[]any{admin}, &n)
		case !c.vouched:
			most, refusal = enrolledMost, errFull
			t.get("SELECT count(*) FROM certs WHERE vouched = 0", nil, &n)
		}
		if n >= most && refusal != nil {
			return refusal
		}
		t.exec("INSERT INTO certs ("+certColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", c.fields()...)
		return nil
	})
}

// changeLine changes all certificates of the line of a serial that are not revoked, and returns their serials; none if
// all are.
func (s *store) changeLine(set, serial string, args ...any) (serials []*string, err error) {
	err = s.do(0, func(t *writeTx) error {
		serials = t.texts("UPDATE certs SET "+set+` WHERE revoked_at = 0
			AND owner = (SELECT owner FROM certs WHERE serial = ?1) RETURNING serial`,
			append([]any{serial}, args...)...)
		t.exec("UPDATE authority SET crl_due = 0")
		return nil
	})
	return serials, err
}

// revoke revokes a whole line, and setAdmin gives or takes its rights of an admin; both as changeLine.
func (s *store) revoke(serial, reason string, now int64) ([]*string, error) {
	return s.changeLine("revoked_at = ?2, reason = ?3", serial, now, reason)
}

func (s *store) setAdmin(serial string, on bool) ([]*string, error) {
	return s.changeLine("admin = ?2", serial, on)
}

// certificates lists those of one owner, or all with "", the newest first, at most limit.
func (s *store) certificates(owner string, limit int) ([]*certificate, error) {
	list, err := collect(s.r, (*certificate).fields, "SELECT "+certColumns+
		" FROM certs WHERE ?1 IN ('', owner) ORDER BY issued_at DESC, serial LIMIT ?2", owner, limit)
	return list, s.failed(err)
}

// authority returns the CA's certificate (DER) and sealed key, nil without a CA.
func (s *store) authority() (cert, key []byte, err error) {
	err = s.one("SELECT certificate, key FROM (SELECT 1) LEFT JOIN authority", nil, &cert, &key)
	return cert, key, err
}

// setAuthority stores a CA where there is none: else errTaken.
func (s *store) setAuthority(cert, key []byte) error {
	return s.do(0, statement("INSERT INTO authority VALUES (1, ?, ?, NULL, 0)", cert, key))
}

// crl returns the last revocation list (DER). One that is due, by age or a revocation, sign makes anew of the last one
// and of what is revoked and did not end before since, in one transaction with both.
func (s *store) crl(now, since, until int64, sign func([]byte, []*certificate) ([]byte, error)) (
	der []byte, err error) {
	const query = "SELECT crl, crl_due FROM authority"
	var due int64
	if err = s.one(query, nil, &der, &due); err != nil || der != nil && now < due && due <= until {
		return der, err
	}
	err = s.do(0, func(t *writeTx) error {
		t.get(query, nil, &der, &due)
		revoked, err := collect(t.pool, (*certificate).fields, "SELECT "+certColumns+
			" FROM certs WHERE revoked_at <> 0 AND expires_at > ? ORDER BY revoked_at, serial", since)
		if err == nil {
			der, err = sign(der, revoked)
		}
		if err == nil {
			t.exec("UPDATE authority SET crl = ?, crl_due = ?", der, until)
		}
		return err
	})
	return der, err
}

// ---- the cache ----

// hotCache is an LRU of open contents with their rows, bounded by bytes. A fill that began before the last drop is
// refused: it may have read the old row.
type hotCache struct {
	drops atomic.Int64

	mu           sync.Mutex // guards what follows
	limit, bytes int64
	hits, misses uint64
	m            map[string]*list.Element // of *hotEntry
	order        list.List                // the most recently used first
}

type hotEntry struct {
	p    *paste
	body []byte
}

// size is what an entry takes, with some bytes for the row, its keys and links.
func (e *hotEntry) size() int64 { return int64(len(e.body)) + 1024 }

// cached returns the row of id and its content if the cache has them. Nobody may change either.
func (s *store) cached(id string, now int64) (*paste, []byte) {
	c := &s.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.m[id]; el != nil {
		if e := el.Value.(*hotEntry); e.p.expires > now {
			c.hits++
			c.order.MoveToFront(el)
			return e.p, e.body
		}
	}
	c.misses++
	return nil, nil
}

func (c *hotCache) put(p *paste, body []byte, drops int64) {
	e := &hotEntry{p, body}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.size() > c.limit || c.drops.Load() != drops || c.m[p.id] != nil {
		return
	}
	for c.bytes+e.size() > c.limit {
		c.remove(c.order.Back())
	}
	c.m[p.id] = c.order.PushFront(e)
	c.bytes += e.size()
}

func (c *hotCache) remove(el *list.Element) {
	e := c.order.Remove(el).(*hotEntry)
	delete(c.m, e.p.id)
	c.bytes -= e.size()
}

func (c *hotCache) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops.Add(1)
	if el := c.m[id]; el != nil {
		c.remove(el)
	}
}

// renew moves the deadline of a cached row: in a copy, since readers may hold the old one.
func (c *hotCache) renew(old *paste, expires int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.m[old.id]; el != nil && el.Value.(*hotEntry).p == old {
		p := *old
		p.expires = expires
		el.Value.(*hotEntry).p = &p
	}
}
