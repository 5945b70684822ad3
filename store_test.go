package main

// The database: what it refuses to open and leaves alone, group commits, room, the sweep and what falls due by itself,
// what may stay behind of what is gone, the cache, health, backups. Real files in t.TempDir(), in this process; who
// must die is the real program (crash_test.go, fault_test.go), or the files as a kill leaves them (crashed).

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// database is the path of the database that start makes in dir.
func database(dir string) string { return filepath.Join(dir, "flaskpaste.db") }

// filesIn are the files of a folder, each as a line of name and content, without SQLite's shared memory and the lock.
func filesIn(t testing.TB, dir string) (list string) {
	t.Helper()
	for _, f := range must(os.ReadDir(dir)) {
		if name := f.Name(); !strings.HasSuffix(name, "-shm") && !strings.HasSuffix(name, ".lock") {
			b, _ := os.ReadFile(filepath.Join(dir, name))
			list += fmt.Sprintf("%s %d %x\n", name, len(b), sha256.Sum256(b))
		}
	}
	return list
}

// operatorCommand runs a command of the program in this process on the database of dir.
func operatorCommand(_ testing.TB, dir string, args ...string) (code int, stdout, stderr string) {
	return flaskpaste([]string{"DATABASE=" + database(dir), "LISTEN=127.0.0.1:0", "MIN_FREE=0"}, args...)
}

// crashed copies the database of a running server as kill -9 would leave it now, and returns the copy's folder.
func (ts *testServer) crashed() string {
	dir := ts.t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		must(0, os.WriteFile(database(dir)+suffix, must(os.ReadFile(database(ts.dir)+suffix)), 0o600))
	}
	return dir
}

// tokenOf is the header that lets one change c.
func tokenOf(c created) string { return "X-Delete-Token: " + c.DeleteToken }

// begin sends the head of an upload of size bytes and, of its content, what is given; rest ends the upload and returns
// the answer.
func (ts *testServer) begin(size int, content string) (rest func(string) *answer) {
	c := ts.dial()
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", size, content)
	return func(s string) *answer {
		io.WriteString(c, s)
		res := must(http.ReadResponse(bufio.NewReader(c), must(http.NewRequest("POST", "/", nil))))
		return &answer{res, string(must(io.ReadAll(res.Body))), ts.t}
	}
}

// ---- opening ----

// TestRefusedDatabases: each is refused in one line and left as it was, by the server, by check and by backup.
func TestRefusedDatabases(t *testing.T) {
	ts := start(t, "CHECKPOINT=off")
	ts.create(pattern(50000))
	copied := filepath.Join(t.TempDir(), "copy")
	if code, _, errs := operatorCommand(t, ts.dir, "backup", copied); code != 0 {
		t.Fatal(errs)
	}
	ts.write("PRAGMA user_version = 99")
	newer := ts.crashed()
	ts.stop()
	model := start(t)
	model.create(pattern(50000))
	model.stop()
	good := must(os.ReadFile(database(model.dir)))
	save := func(change func(b []byte) []byte) func(string) {
		return func(dir string) { os.WriteFile(database(dir), change(slices.Clone(good)), 0o600) }
	}
	for _, c := range []struct {
		name string
		make func(dir string)
		says string
	}{
		{"a text file", save(func([]byte) []byte { return []byte("this is text\n") }), "not a flaskpaste database"},
		{"another program's database", func(dir string) {
			db := must(sql.Open("sqlite", dsn(database(dir), "rwc")))
			defer db.Close()
			must(db.Exec("CREATE TABLE pastes (id TEXT); INSERT INTO pastes VALUES ('a')"))
		}, "not a flaskpaste database"},
		{"cut within the header", save(func(b []byte) []byte { return b[:60] }), "not a flaskpaste database"},
		{"cut behind the first page", save(func(b []byte) []byte { return b[:pageSize] }), "truncated"},
		{"the schema is junk", save(func(b []byte) []byte {
			copy(b[100:], bytes.Repeat([]byte("junk"), 1000))
			return b
		}), "damaged"},
		{"pages of another size", save(func(b []byte) []byte { b[16] = 0x10; return b }), ""},
		{"a newer version", save(func(b []byte) []byte { b[63] = 99; return b }), "database of a newer flaskpaste"},
		{"a newer version, known from the log alone", func(dir string) {
			os.Remove(dir)
			os.CopyFS(dir, os.DirFS(newer))
		}, "database of a newer flaskpaste"},
		{"a backup beside the log of what it replaced", func(dir string) {
			os.Remove(dir)
			os.CopyFS(dir, os.DirFS(newer))
			os.WriteFile(database(dir), must(os.ReadFile(copied)), 0o600)
		}, "flaskpaste.db-wal and "},
		{"a folder", func(dir string) { os.Mkdir(database(dir), 0o700) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			c.make(dir)
			before := filesIn(t, dir)
			for _, command := range []string{"serve", "check", "backup " + dir + "/copy", "backup -"} {
				code, out, errs := operatorCommand(t, dir, strings.Fields(command)...)
				said := out + errs
				if code != exitFailed || strings.Count(said, "\n") > 2 || !strings.Contains(said, c.says) {
					t.Errorf("%s: exit code %d, %q", command, code, said)
				}
				if after := filesIn(t, dir); after != before {
					t.Errorf("%s left\n%s\nof\n%s", command, after, before)
				}
			}
		})
	}
}

// TestOpenings: a database that is empty, or lies at a strange path; its files are the user's own.
func TestOpenings(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(database(dir), nil, 0o600)
	startIn(t, dir).create("in what was an empty file")
	strange := filepath.Join(t.TempDir(), "a b%41?mode=ro#x&y=é'\"")
	ts := startIn(t, strange)
	ts.create("x")
	for _, name := range []string{"", "-wal", ".lock"} {
		if info, err := os.Stat(database(strange) + name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	ts.stop()
	startIn(t, strange).stored(1)
	if info := must(os.Stat(strange)); info.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v", info.Mode())
	}
}

// TestOneServer: a link to the database, to nothing at first, changes neither who may serve it nor where its log is.
func TestOneServer(t *testing.T) {
	home, links := t.TempDir(), [2]string{t.TempDir(), t.TempDir()}
	for _, dir := range links {
		if err := os.Symlink(database(home), database(dir)); err != nil {
			t.Fatal(err)
		}
	}
	ts := startIn(t, links[0])
	p := ts.create("x")
	for _, dir := range []string{links[0], links[1], home} {
		if code, _, errs := operatorCommand(t, dir, "serve"); code != exitFailed || strings.Count(errs, "\n") != 1 ||
			!strings.Contains(errs, "another server uses the database") {
			t.Errorf("exit code %d, %q", code, errs)
		}
	}
	ts.get("/"+p.ID+"/raw").want(200, "")
	if files := filesIn(t, links[0]); strings.Count(files, "\n") != 1 {
		t.Errorf("beside the link: %s", files)
	}
	ts.stop()
	startIn(t, links[1]).stored(1)
	victim := filepath.Join(t.TempDir(), "victim") // who broke into the server plants a link
	os.WriteFile(victim, []byte("victim"), 0o600)
	os.Remove(database(home) + ".lock")
	os.Symlink(victim, database(home)+".lock")
	code, _, errs := operatorCommand(t, home, "serve")
	if code != exitFailed || string(must(os.ReadFile(victim))) != "victim" {
		t.Errorf("exit code %d, %q", code, errs)
	}
}

// TestReadingBeside: who reads beside a server whose log is empty changes nothing and sees what it writes next. SQLite
// told that nobody writes would mix what it read before and after.
func TestReadingBeside(t *testing.T) {
	ts := start(t)
	ts.sweep()
	if size := fileSize(database(ts.dir) + "-wal"); size != 0 {
		t.Fatalf("the log has %d bytes", size)
	}
	before := filesIn(t, ts.dir)
	if code, out, errs := operatorCommand(t, ts.dir, "check"); code != 0 || filesIn(t, ts.dir) != before {
		t.Errorf("check changes files, or exit code %d, %q, %q", code, out, errs)
	}
	st, err := openStore(storeOptions{path: database(ts.dir), mode: openReading, log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	ts.create("x")
	if found, _, err := st.list(listQuery{all: true, limit: 10, until: 1 << 62}, time.Now().Unix()); err != nil || len(found) != 1 {
		t.Errorf("%d pastes, %v", len(found), err)
	}
}

// ---- writing ----

// TestGroupCommit: what waits is committed as one; what fails in it, before or after it has written, takes nobody with
// it.
func TestGroupCommit(t *testing.T) {
	for writes, err := range []error{errors.New("before its first write"), errors.New("after a write"), nil} {
		t.Run(fmt.Sprint("after writes: ", writes), func(t *testing.T) { // of which the second breaks a constraint
			ts := start(t)
			gone, changed := ts.create("to be deleted"), ts.create("to be changed")
			change := func(content string, headers ...string) *answer {
				return ts.do("PUT", "/"+changed.ID, strings.NewReader(content), headers...)
			}
			release := ts.block()
			var wg sync.WaitGroup
			for i, do := range []func(){
				func() { ts.create(pattern(300000)) },
				func() {
					if ts.store.do(0, func(w *writeTx) error {
						for range writes {
							w.exec("INSERT INTO garbage VALUES (1 << 40, 1 << 40)")
						}
						return err
					}) == nil {
						t.Error("what failed was not told so")
					}
				},
				func() { ts.create("one chunk") },
				func() { ts.do("DELETE", "/"+gone.ID, nil, tokenOf(gone)).want(200, "") },
				func() { change("2", tokenOf(changed)).want(200, "") },
				func() { change("3", tokenOf(changed), `If-Match: "0"`).want(412, "") },
			} {
				wg.Go(do)
				ts.settled("operations that wait", int64(i+1), func() int64 { return int64(len(ts.store.ops)) })
			}
			release()
			wg.Wait()
			if got := ts.get("/" + changed.ID + "/raw").body; got != "2" {
				t.Errorf("changed to %q", got)
			}
			ts.stored(3)
		})
	}
}

// TestBusyWriter: a full queue is 503 at once, and nothing of it is stored; reads go on, with their renewals dropped.
func TestBusyWriter(t *testing.T) {
	ts := start(t, "CACHE=0")
	ts.clock.hold()
	p := ts.create("x")
	ts.clock.advance(time.Hour)
	release := ts.block()
	for full := error(nil); full == nil; {
		_, full = ts.store.post(0, func(*writeTx) error { return nil })
	}
	for _, a := range []*answer{ts.post("y"), ts.post(pattern(300000)), ts.do("DELETE", "/"+p.ID, nil, tokenOf(p))} {
		if a.want(503, "busy"); a.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	ts.get("/"+p.ID+"/raw").want(200, "")
	release()
	ts.settled("the queue", 0, func() int64 { return int64(len(ts.store.ops)) })
	ts.stored(1)
	for _, renewed := range []int64{0, 3600} { // by the next read, and durable: the end of a server drains its writer
		if at := ts.number("SELECT expires_at FROM pastes"); at != p.ExpiresAt+renewed {
			t.Errorf("expires at %d, not %d", at, p.ExpiresAt+renewed)
		}
		ts.get("/"+p.ID+"/raw").want(200, "")
		ts.stop()
		ts = startAt(t, ts.dir, time.Hour)
	}
}

// ---- room ----

// TestQuota: MAX_STORAGE is what the database holds on the disk, to a twentieth, however small its contents; strangers
// may fill three quarters. What does not fit leaves nothing; what goes makes room, when it is swept.
func TestQuota(t *testing.T) {
	t.Parallel() // it waits for the disk
	limit := amount(8, 100, 100) << 20
	env := []string{fmt.Sprint("MAX_STORAGE=", limit), "METRICS_ALLOW=any", "CACHE=0", "MAX_UPLOADS=512"}
	ts := start(t, append(env, proxied...)...)
	first := ts.create("x")
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for ts.post("x").StatusCode == 201 {
			}
		})
	}
	wg.Wait()
	pastes := ts.number("SELECT count(*) FROM pastes")
	ts.stored(pastes)
	ts.sweep() // empties the log into the file
	file, gauge := float64(fileSize(database(ts.dir))), ts.scrape()["flaskpaste_stored_bytes"]
	for name, v := range map[string]float64{"the gauge": gauge, "what strangers may fill": float64(limit) * 3 / 4} {
		if v < file*0.95 || v > file*1.05 {
			t.Errorf("%s is %.0f bytes, the file %.0f", name, v, file)
		}
	}
	big := pattern(3 * chunkSize)
	for _, a := range []*answer{ts.post("x"), ts.post("x", withCert(certAlice)...), ts.post(big)} {
		if a.want(503, "storage_full"); a.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	ts.stored(pastes)
	path := "/" + first.ID
	ts.get(path+"/raw").want(200, "")
	ts.do("PUT", path, nil, tokenOf(first), "X-Expiry: 60").want(200, "")
	ts.do("PUT", path, strings.NewReader("y"), tokenOf(first)).want(503, "storage_full")
	ts.do("DELETE", path, nil, tokenOf(first)).want(200, "")
	ts.write("UPDATE pastes SET expires_at = 1 WHERE content IN (SELECT content FROM pastes LIMIT 20)")
	ts.stored(pastes - 21)
	ts.create("y")
	ts.post(pattern(chunkSize+1)).want(503, "storage_full")
	ts.stored(pastes - 20)
}

// TestReserve: uploads stop at MIN_FREE; reads, changes of options, deletions and the sweep do not.
func TestReserve(t *testing.T) {
	ts := start(t)
	p, q := ts.create("x"), ts.create("y")
	ts.create("z", "X-Expiry: 60")
	ts.stop()
	ts = startIn(t, ts.dir, "MIN_FREE="+strconv.FormatInt(freeSpace(ts.dir)+1<<40, 10))
	ts.post("x").want(503, "storage_full")
	ts.do("PUT", "/"+p.ID, strings.NewReader("x"), tokenOf(p)).want(503, "storage_full")
	ts.get("/"+p.ID+"/raw").want(200, "")
	ts.do("PUT", "/"+p.ID, nil, tokenOf(p), "X-Expiry: 60").want(200, "")
	ts.do("DELETE", "/"+q.ID, nil, tokenOf(q)).want(200, "")
	ts.clock.advance(61 * time.Second)
	if n := ts.sweep(); n != 2 {
		t.Errorf("swept %d, want 2", n)
	}
	ts.nothing()
}

// ---- the sweep ----

// TestSweepSteps: each step does a bounded piece of everything that is due, so that nobody starves one part by feeding
// another; in the end all of it is gone, the survivors are whole, the pages are the disk's again and the log is empty.
func TestSweepSteps(t *testing.T) {
	t.Parallel() // it waits for the disk
	ts := start(t, "MAX_ANON=20MiB", "SWEEP=1h")
	ts.clock.hold()
	for i := range 160 {
		ts.create(pattern(1000+i*50), "X-Expiry: 2h")
		ts.create(pattern(1000+i*50), "X-Expiry: 1h")
	}
	for range 3 {
		ts.create(pattern(6<<20), "X-Expiry: 30m") // whose chunks are more than a step's
	}
	for i := range 120 {
		end := ts.clock.now().Unix() - certMemory - 100*86400
		ts.write("INSERT INTO certs VALUES (?1, ?1, ?1, ?1, 'x', 0, ?2, 0, '', 0, 0)", fmt.Sprint(i), end)
	}
	ts.write("INSERT INTO certs VALUES ('v', 'v', 'v', 'v', 'x', 0, 0, 0, '', 1, 0)") // the operator's own stay
	if n := ts.sweep(); n != 0 {                                                      // but the log is in the file now
		t.Fatalf("swept %d before their time", n)
	}
	size := fileSize(database(ts.dir))
	ts.clock.advance(time.Hour + time.Second)
	state := func() (n [4]int64) {
		return [4]int64{ts.number("SELECT count(*) FROM pastes"), ts.number("SELECT count(*) FROM certs"),
			ts.number("SELECT coalesce(sum(length(data)), 0) FROM chunks"), ts.number("PRAGMA page_count")}
	}
	steps := 0
	for more := true; more; steps++ {
		before := state()
		var err error
		if _, _, more, err = ts.store.sweep(ts.clock.now().Unix()); err != nil {
			t.Fatal(err)
		}
		after := state()
		for i, most := range [4]int64{sweepRows, sweepRows, batchBytes, 1024} {
			if d := before[i] - after[i]; d > most {
				t.Errorf("step %d removed %d of %v, more than %d", steps, d, before, most)
			}
		}
		if steps == 0 && (before[0] == after[0] || before[2] == after[2]) {
			t.Errorf("the first step left rows or chunks as they were: %v, %v", before, after)
		}
	}
	ts.stored(160)
	if n := ts.number("SELECT count(*) FROM certs"); n != 1 {
		t.Errorf("%d certificates left, want the operator's", n)
	}
	after, log := fileSize(database(ts.dir)), fileSize(database(ts.dir)+"-wal")
	if free := ts.number("PRAGMA freelist_count"); after > size-8<<20 || free > freePages || log != 0 {
		t.Errorf("the file has %d bytes of %d, %d free pages, the log %d bytes", after, size, free, log)
	}
	// With a replicator outside, the log is its own.
	ts = start(t, "CHECKPOINT=off")
	ts.create("x")
	if ts.sweep(); fileSize(database(ts.dir)+"-wal") == 0 {
		t.Error("CHECKPOINT=off: the log was emptied")
	}
}

// TestUploadsSweep: each chunk that an upload stores removes two of garbage, so that uploads which are given up never
// outrun the sweep.
func TestUploadsSweep(t *testing.T) {
	ts := start(t, "SWEEP=1h")
	ts.sweep()
	for i := range 20 {
		ts.write("INSERT INTO chunks VALUES ((1 << 50) + (? << 20), zeroblob(0), zeroblob(262144))", i)
		ts.write("INSERT INTO garbage VALUES ((1 << 30) + ?, 0)", i)
	}
	ts.create(pattern(6*chunkSize + 1))
	if n := ts.number("SELECT count(*) FROM garbage"); n != 20-12 {
		t.Errorf("%d contents of 20 left behind 6 chunks, want 8", n)
	}
	ts.stored(1)
}

// TestClocks: a clock that is far from the latest content at the start, or that jumps, removes nothing for ten minutes,
// and says so, whatever is deleted meanwhile; a machine that was off for a month is believed.
func TestClocks(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name           string
		jump           time.Duration
		running, waits bool
	}{
		{"an hour", time.Hour, true, false}, {"a month", 30 * day, true, true}, {"two days back", -2 * day, true, true},
		{"off for a month", 30 * day, false, false}, {"off beyond any life", 91 * day, false, true},
		{"two days back at the start", -2 * day, false, true}, {"the epoch", -20 * 365 * day, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ts := newTestServer(t, t.TempDir(), 0, "SWEEP=1m")
				fill(t, ts.store, 2, time.Now().Unix()+60)
				if !c.running {
					ts.clock.advance(c.jump)
				}
				ctx, cancel := context.WithCancel(t.Context())
				var loop sync.WaitGroup
				loop.Go(func() { ts.sweepLoop(ctx) })
				if time.Sleep(59 * time.Second); c.running {
					ts.clock.advance(c.jump)
				}
				time.Sleep(2 * time.Second)
				ts.write("DELETE FROM pastes WHERE content = 1") // somebody deletes
				ts.store.dropped("it")
				left := func(after time.Duration, kept bool) {
					time.Sleep(after)
					synctest.Wait()
					if n := ts.number("SELECT count(*) FROM pastes"); n != map[bool]int64{true: 1}[kept] {
						t.Errorf("after %v more: %d pastes", after, n)
					}
				}
				left(8*time.Minute, c.waits)
				if said := strings.Contains(ts.logs.String(), "clock looks wrong"); said != c.waits {
					t.Errorf("said so: %v", said)
				}
				left(4*time.Minute, c.jump < 0)
				cancel()
				loop.Wait()
				ts.store.close()
			})
		})
	}
}

// TestDueTimes: what a process that died left half done falls due by itself, no sooner than anybody may still need it.
func TestDueTimes(t *testing.T) {
	big := pattern(3*chunkSize + 5)
	for _, c := range []struct {
		name    string
		left    int64 // pastes in the end
		garbage int64 // contents that nobody may touch before they are due
		do      func(*testServer)
	}{
		{"an upload", 1, 1, func(ts *testServer) {
			ts.begin(len(big), big[:2*chunkSize+9])
			chunks := func() int64 { return ts.number("SELECT count(*) FROM chunks WHERE key >> 20 > 1") }
			ts.settled("chunks of the upload", 2, chunks)
		}},
		{"a burn", 1, 1, func(ts *testServer) {
			p := ts.create(pattern(3<<20), "X-Burn-After-Read: true")
			c := ts.dial()
			c.(*net.TCPConn).SetReadBuffer(4096)
			fmt.Fprintf(c, "GET /%s/raw HTTP/1.1\r\nHost: x\r\n\r\n", p.ID) // and reads nothing
			ts.settled("pastes", 1, func() int64 { return ts.number("SELECT count(*) FROM pastes") })
		}},
		{"a replacement", 2, 0, func(ts *testServer) {
			p := ts.create(big)
			ts.do("PUT", "/"+p.ID, strings.NewReader(big[:2*chunkSize]), tokenOf(p)).want(200, "")
		}},
		{"a deletion", 1, 0, func(ts *testServer) {
			p := ts.create(big)
			ts.do("DELETE", "/"+p.ID, nil, tokenOf(p)).want(200, "")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ts := start(t, "CHECKPOINT=off", "MAX_UPLOADS=512")
			ts.create("stays")
			c.do(ts)
			dir := ts.crashed()
			ts.stop()
			again := startAt(t, dir, 15*time.Minute)
			again.sweep()
			if n := again.number("SELECT count(*) FROM garbage"); n != c.garbage {
				t.Errorf("%d contents in the garbage before they are due, want %d", n, c.garbage)
			}
			p := again.create("a content number is never used twice")
			again.clock.advance(2 * time.Minute)
			again.stored(c.left + 1)
			again.get("/"+p.ID+"/raw").want(200, "")
		})
	}
}

// TestUploadOutlivesItself: an upload whose chunks the sweep has begun to take, since the clock went on without it, is
// no paste, and leaves no chunk that nobody knows.
func TestUploadOutlivesItself(t *testing.T) {
	t.Parallel()      // it waits for the disk
	const chunks = 20 // more than one step removes
	content := pattern(chunks*chunkSize + 7)
	for i, sent := range []int{3, chunks - 1, chunks, chunks} { // chunks before the sweep; the end alone may be to come
		ts := start(t, "MAX_ANON=20MiB", "SWEEP=1h")
		rest := ts.begin(len(content), content[:sent*chunkSize+5])
		ts.settled("chunks", int64(sent), func() int64 { return ts.number("SELECT count(*) FROM chunks") })
		ts.clock.advance(17 * time.Minute)
		if i%2 == 0 { // all of them
			ts.sweep()
		} else if _, _, more, err := ts.store.sweep(ts.clock.now().Unix()); err != nil || !more {
			t.Fatal(more, err)
		}
		rest(content[sent*chunkSize+5:]).want(408, "too_slow")
		ts.nothing()
	}
}

// TestForensics: of what is gone nothing is found in the database or its log after two sweeps, whatever its size,
// however it went.
func TestForensics(t *testing.T) {
	t.Parallel()
	rounds, n := amount(1, 4, 40), amount(150, 1000, 10_000)
	// A content is its own mark over and over: any 24 bytes of it that stay hold it whole.
	content := func(mark, size int) string { return strings.Repeat(fmt.Sprintf("~%010d~", mark), size/12+1)[:size] }
	for range rounds {
		ts := start(t, "MAX_UPLOADS=512", "EXPIRY_ANON=7d", "MAX_STORAGE=99GiB")
		things := make([]created, n)
		alive := func(mark int) bool { return mark < n && mark%7 == 0 || mark >= n && (mark-n)%7 == 1 }
		survivors := (n+6)/7 + (n+5)/7
		each := func(f func(i, way int)) {
			order, next := rand.Perm(n), atomic.Int64{}
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for j := next.Add(1); j <= int64(n); j = next.Add(1) {
						f(order[j-1], order[j-1]%7)
					}
				})
			}
			wg.Wait()
		}
		each(func(i, way int) {
			size := 30 + rand.IntN(3970)
			if i%50 == 7 {
				size = chunkSize + rand.IntN(2*chunkSize)
			} else if i%50 == 8 {
				size = 4000 + rand.IntN(chunkSize-4000)
			}
			switch headers := map[int][]string{2: {"X-Burn-After-Read: true"}, 3: {"X-Expiry: 1h"}}[way]; {
			case way == 5:
				target := strings.NewReader("https://example.org/" + content(i, min(size, 2000)))
				a := ts.do("POST", "/s", target, "Accept: application/json").want(201, "")
				things[i] = created{ID: "s/" + a.field("id"), DeleteToken: a.field("delete_token")}
			case way < 6:
				things[i] = ts.create(content(i, size), headers...)
			case i%5 == 0: // given up; only whole chunks are written before the end
				c := ts.dial()
				const head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n"
				io.WriteString(c, head+content(i, chunkSize+999))
				c.Close()
			}
		})
		each(func(i, way int) { // in another order
			switch path := "/" + things[i].ID; way {
			case 0: // rows that change lengthen and shorten beside those that go
				ts.do("PUT", path, nil, tokenOf(things[i]), "X-Expiry: 2h").want(200, "")
			case 1:
				ts.do("PUT", path, strings.NewReader(content(n+i, 30+i%3000)), tokenOf(things[i])).want(200, "")
			case 2:
				ts.get(path+"/raw").want(200, "")
			case 4, 5:
				ts.do("DELETE", path, nil, tokenOf(things[i])).want(200, "")
			}
		})
		ts.settled("upload slots", 0, func() int64 { return int64(ts.uploads.inUse()) })
		ts.settled("uploads", 0, func() int64 { return ts.number("SELECT count(*) FROM garbage WHERE due > 0") })
		ts.clock.advance(time.Hour + time.Second)
		for range 2 {
			ts.sweep()
		}
		ts.stored(int64(survivors))
		gone, found := 0, map[int]bool{}
		for _, suffix := range []string{"", "-wal", "-shm"} {
			b, _ := os.ReadFile(database(ts.dir) + suffix)
			for _, m := range regexp.MustCompile(`~\d{10}~`).FindAll(b, -1) {
				if mark := must(strconv.Atoi(string(m[1:11]))); alive(mark) {
					found[mark] = true
				} else {
					gone++
				}
			}
		}
		if gone != 0 || len(found) != survivors {
			t.Errorf("%d marks of what is gone, those of %d of %d survivors", gone, len(found), survivors)
		}
		ts.stop()
	}
	proved(t, "forensics", fmt.Sprintf("%d runs of %d contents of every size, gone in every way", rounds, n),
		"of what is gone, nothing in database, log or shared memory")
}

// ---- reading ----

// TestDamagedContent: bytes that are not those that were stored are an error, never an answer.
func TestDamagedContent(t *testing.T) {
	ts := start(t, "CACHE=0")
	const flip, long = "UPDATE chunks SET data = CAST('X' || substr(data, 2) AS BLOB) WHERE key = ?", 2*chunkSize + 10
	for _, c := range []struct {
		name   string
		size   int
		change string
		cut    bool // after the answer has begun
	}{
		{"a byte of one chunk", 1000, flip, false}, {"a byte of a whole chunk", chunkSize, flip, false},
		{"one chunk is missing", 1000, "DELETE FROM chunks WHERE key = ?", false},
		{"a byte of the first of several", long, flip, true},
		{"the first of several shorter", long, "UPDATE chunks SET data = substr(data, 2) WHERE key = ?", false},
		{"the second is missing", long, "DELETE FROM chunks WHERE key = ? + 1", true},
		{"the last is longer", long, "UPDATE chunks SET data = CAST(data || 'x' AS BLOB) WHERE key = ? + 2", true},
	} {
		for _, headers := range [][]string{nil, {"X-Read-Proof-SHA256: " + sum256(strings.Repeat("\x00", 32))}} {
			p := ts.create(pattern(c.size), headers...)
			ts.write(c.change, ts.number("SELECT content << 20 FROM pastes WHERE id = ?", p.ID))
			a, err := ts.try("GET", "/"+p.ID+"/raw", nil, "X-Read-Proof: "+strings.Repeat("00", 32))
			if c.cut != (err != nil) || err == nil &&
				(a.StatusCode != 500 || strings.Contains(a.body, pattern(100)[5:90])) {
				t.Errorf("%s, %q: %v, %+v", c.name, headers, err, a)
			}
		}
	}
	ts.get("/health").want(200, "")
}

// TestCache: what is small, open and often read comes from memory, bounded in bytes, never older than the last change
// and never beyond a deadline.
func TestCache(t *testing.T) {
	ts := start(t, "CACHE=1MiB", "METRICS_ALLOW=any")
	ts.clock.hold()
	hit := func(id string) bool {
		before := ts.scrape()[`flaskpaste_cache_requests_total{result="hit"}`]
		ts.get("/"+id+"/raw", "X-Read-Proof: "+strings.Repeat("00", 32)).want(200, "")
		return ts.scrape()[`flaskpaste_cache_requests_total{result="hit"}`] > before
	}
	for _, c := range []struct {
		name    string
		size    int
		headers []string
		want    bool
	}{
		{"small", 10, nil, true}, {"as large as it gets", hotSize, nil, true}, {"larger", hotSize + 1, nil, false},
		{"closed", 10, []string{"X-Read-Proof-SHA256: " + sum256(strings.Repeat("\x00", 32))}, false},
	} {
		if p := ts.create(pattern(c.size), c.headers...); hit(p.ID) || hit(p.ID) != c.want {
			t.Errorf("%s: the first read is a hit, or the second is not %v", c.name, c.want)
		}
	}
	old := ts.create("old")
	hit(old.ID)
	for range 40 { // the least recently used goes, and that is never the old one
		if p := ts.create(pattern(50000)); hit(p.ID) || !hit(old.ID) {
			t.Error("a new paste is in the cache, or the often read one is not")
		}
		if n := ts.scrape()["flaskpaste_cache_bytes"]; n > 1<<20 || n < 50000 {
			t.Fatalf("%.0f bytes in a cache of 1 MiB", n)
		}
	}
	ts.do("PUT", "/"+old.ID, strings.NewReader("new"), tokenOf(old), "X-Expiry: 60").want(200, "")
	if a := ts.get("/" + old.ID + "/raw"); a.body != "new" || !hit(old.ID) {
		t.Errorf("%q after the change", a.body)
	}
	ts.clock.advance(time.Minute)
	ts.get("/"+old.ID+"/raw").want(404, "")
	p := ts.create("0") // who was told that his change is stored reads it, whatever others read meanwhile
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for !stop.Load() {
				ts.get("/"+p.ID+"/raw").want(200, "")
			}
		})
	}
	for i := range 50 {
		want := strconv.Itoa(i)
		ts.do("PUT", "/"+p.ID, strings.NewReader(want), tokenOf(p)).want(200, "")
		if a := ts.get("/" + p.ID + "/raw"); a.body != want {
			t.Errorf("%q after %q was stored", a.body, want)
		}
	}
	stop.Store(true)
	wg.Wait()
	ts.do("DELETE", "/"+p.ID, nil, tokenOf(p)).want(200, "")
	ts.get("/"+p.ID+"/raw").want(404, "")
}

// ---- health ----

// TestHealthLocked: while somebody else holds the database, health is 503 within some two seconds and reads go on;
// afterwards all is well again, and who waited was served.
func TestHealthLocked(t *testing.T) {
	t.Parallel() // it waits
	ts := start(t, "CACHE=0")
	p := ts.create("x")
	db := must(sql.Open("sqlite", dsn(database(ts.dir), "rw")))
	defer db.Close()
	db.SetMaxOpenConns(1)
	must(db.Exec("BEGIN IMMEDIATE"))
	health := func() int64 { return int64(ts.get("/health").StatusCode) }
	if s := health(); s != 200 {
		t.Errorf("health %d although nothing waits", s)
	}
	waits := make(chan *answer)
	go func() { waits <- ts.post("waits") }()
	ts.settled("health", 503, health)
	ts.get("/"+p.ID+"/raw").want(200, "")
	must(db.Exec("ROLLBACK"))
	ts.settled("health", 200, health)
	if a := <-waits; a.StatusCode != 201 { // on a machine that stood still for five seconds it was told so
		a.want(503, "busy")
	}
	ts.create("y")
}

// TestDamagedPage: a page that can't be read turns health to 503 and refuses creations; reads of sound pages and
// deletions go on.
func TestDamagedPage(t *testing.T) {
	ts := start(t)
	p := ts.create("sound")
	root := ts.number("SELECT rootpage FROM sqlite_schema WHERE name = 'pastes_owner'")
	ts.stop()
	env := append([]string{"CACHE=0", "SWEEP=1h"}, proxied...)
	ts = startIn(t, ts.dir, env...)
	f := must(os.OpenFile(database(ts.dir), os.O_WRONLY, 0))
	must(f.WriteAt(bytes.Repeat([]byte{0x5a}, pageSize), (root-1)*pageSize))
	f.Close()
	ts.get("/health").want(200, "")
	ts.get("/pastes", withCert(certAlice)...).want(503, "busy")
	ts.get("/health").want(503, "")
	for _, a := range []*answer{ts.post("x"), ts.post(pattern(300000)), ts.shorten("https://example.org/"),
		ts.do("PUT", "/"+p.ID, strings.NewReader("x"), tokenOf(p))} {
		a.want(503, "busy").says("nothing was stored")
	}
	if a := ts.get("/"+p.ID+"/raw").want(200, ""); a.body != "sound" {
		t.Errorf("%q", a.body)
	}
	if n := strings.Count(ts.logs.String(), "nothing is stored any more"); n != 1 {
		t.Errorf("said %d times", n)
	}
	ts.stop()
	if code, out, _ := operatorCommand(t, ts.dir, "check"); code != exitFailed || strings.Contains(out, "all is well") {
		t.Errorf("check: exit code %d, %q", code, out)
	}
}

// ---- backup and check ----

// TestBackup: a copy while serving, into a file or down a pipe: whole, private, without what burns and what is garbage;
// it restores.
func TestBackup(t *testing.T) {
	mark := strings.Repeat("burn-marker-", 30)
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprint("running: ", running), func(t *testing.T) {
			ts := start(t, "MAX_UPLOADS=512")
			small, big := ts.create("small"), ts.create(pattern(700<<10))
			burning := ts.create(strings.Repeat(mark, 1000), "X-Burn-After-Read: true")
			ts.begin(1000000, strings.Repeat(mark, 2000)) // on its way
			ts.settled("contents on their way", 1, func() int64 { return ts.number("SELECT count(*) FROM garbage") })
			if !running {
				ts.stop()
			}
			dir, before := t.TempDir(), filesIn(t, ts.dir)
			to := map[bool]string{true: database(dir), false: "-"}[running]
			code, out, errs := operatorCommand(t, ts.dir, "backup", to)
			if code != 0 || errs != "" || (out == "") != running {
				t.Fatalf("exit code %d, %q, %d bytes", code, errs, len(out))
			}
			if after := filesIn(t, ts.dir); !running && after != before {
				t.Errorf("left\n%s\nof\n%s", after, before)
			}
			if !running {
				os.WriteFile(database(dir), []byte(out), 0o600)
			}
			copied := filesIn(t, dir)
			if info := must(os.Stat(database(dir))); info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v", info.Mode())
			}
			b := must(os.ReadFile(database(dir)))
			if bytes.Contains(b, []byte("burn-marker-")) || bytes.Contains(b, []byte(burning.ID)) {
				t.Error("what burns is in the copy")
			}
			// Nothing is overwritten, and nothing left behind.
			for path, says := range map[string]string{database(dir): "exists", dir + "/none/x": "no such"} {
				code, _, errs = operatorCommand(t, ts.dir, "backup", path)
				if code != exitFailed || !strings.Contains(errs, says) || filesIn(t, dir) != copied {
					t.Errorf("%s: exit code %d, %q", path, code, errs)
				}
			}
			if code, out, _ := operatorCommand(t, dir, "check"); code != 0 || filesIn(t, dir) != copied {
				t.Errorf("check: exit code %d, %q", code, out)
			}
			again := startIn(t, dir)
			again.stored(2)
			for id, want := range map[string]string{small.ID: "small", big.ID: pattern(700 << 10), burning.ID: ""} {
				a := again.get("/" + id + "/raw")
				if (a.StatusCode == 404) != (want == "") || want != "" && a.body != want {
					t.Errorf("%d, %d bytes", a.StatusCode, len(a.body))
				}
			}
			again.do("DELETE", "/"+big.ID, nil, tokenOf(big)).want(200, "")
			again.create("goes on")
			again.stored(2)
		})
	}
}
