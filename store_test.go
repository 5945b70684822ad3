package main

// The database: what it refuses to open, what survives, what must not; quota and full disks, backup, check, migrations, the sweep,
// the cache. Real files in t.TempDir(), the real program where a process must die.

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// database is the path of the database that start makes in dir.
func database(dir string) string { return filepath.Join(dir, "flaskpaste.db") }

// filesOf are the contents of all files in a folder but the lock, by name.
func filesOf(t testing.TB, dir string) string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".lock") || strings.HasSuffix(f.Name(), "-shm") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err == nil {
			list = append(list, fmt.Sprintf("%s %d %x", f.Name(), len(b), sha256.Sum256(b)))
		}
	}
	return strings.Join(list, "\n")
}

// runs runs a command of the program in this process on the database of dir; a server that starts is a failure of the test.
func runs(t testing.TB, dir string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs lockedBuffer
	done := make(chan int, 1)
	go func() {
		done <- run(append([]string{"flaskpaste"}, args...), []string{"FLASKPASTE_DATABASE=" + database(dir), "FLASKPASTE_LISTEN=127.0.0.1:0", "FLASKPASTE_MIN_FREE=0"}, &out, &errs)
	}()
	select {
	case code = <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%v still runs: %s", args, errs.String())
	}
	return code, out.String(), errs.String()
}

// TestRefusedDatabases: each is refused in one clear line and left as it was, by the server, by check and by backup.
func TestRefusedDatabases(t *testing.T) {
	model := t.TempDir() // a database with a paste in it, closed
	ts := startIn(t, model)
	ts.create(pattern(50000))
	ts.stop()
	good, err := os.ReadFile(database(model))
	if err != nil {
		t.Fatal(err)
	}
	save := func(change func(b []byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(database(dir), change(slices.Clone(good)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name string
		make func(*testing.T, string)
		says string
	}{
		{"a text file", save(func([]byte) []byte { return []byte("this is a text file\n") }), "not a flaskpaste database"},
		{"100 zeros", save(func([]byte) []byte { return make([]byte, 100) }), "not a flaskpaste database"},
		{"another program's database", func(t *testing.T, dir string) {
			db, err := sql.Open("sqlite", dsn(database(dir), "rwc"))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.Exec("CREATE TABLE pastes (id TEXT, content TEXT); INSERT INTO pastes VALUES ('a', 'b')"); err != nil {
				t.Fatal(err)
			}
		}, "not a flaskpaste database"},
		{"cut within the header", save(func(b []byte) []byte { return b[:60] }), "not a flaskpaste database"},
		{"cut behind the first page", save(func(b []byte) []byte { return b[:pageSize] }), "truncated"},
		{"the last page is missing", save(func(b []byte) []byte { return b[:len(b)-pageSize] }), "truncated"},
		{"half a page is missing", save(func(b []byte) []byte { return b[:len(b)-pageSize/2] }), "truncated"},
		{"the schema is junk", save(func(b []byte) []byte { copy(b[100:], bytes.Repeat([]byte("junk"), 1000)); return b }), "damaged"},
		{"all but the header is junk", save(func(b []byte) []byte { copy(b[100:], bytes.Repeat([]byte{0xa5}, len(b)-100)); return b }), "damaged"},
		{"page size of another", save(func(b []byte) []byte { b[16], b[17] = 0x10, 0x00; return b }), ""},
		{"a newer schema", save(func(b []byte) []byte { b[60], b[61], b[62], b[63] = 0, 0, 0, 99; return b }), "newer"},
		{"a newer schema, known only from the log", func(t *testing.T, dir string) {
			other := t.TempDir()
			save(func(b []byte) []byte { return b })(t, other)
			db, err := sql.Open("sqlite", dsn(database(other), "rw", "wal_autocheckpoint(0)"))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.Exec("PRAGMA user_version = 99; INSERT INTO notes VALUES ('x', 1, 'by a newer server')"); err != nil {
				t.Fatal(err)
			}
			for _, suffix := range []string{"", "-wal"} { // as a kill leaves them
				b, err := os.ReadFile(database(other) + suffix)
				if err != nil || os.WriteFile(database(dir)+suffix, b, 0o600) != nil {
					t.Fatal(err)
				}
			}
		}, "newer"},
		{"read-only", func(t *testing.T, dir string) {
			save(func(b []byte) []byte { return b })(t, dir)
			os.Chmod(database(dir), 0o400)
		}, "read-only"},
		{"a folder", func(t *testing.T, dir string) { os.Mkdir(database(dir), 0o700) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			c.make(t, dir)
			before := filesOf(t, dir)
			code, out, errs := runs(t, dir, "serve")
			if code != exitFailed || out != "" || strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, "flaskpaste: ") || !strings.Contains(errs, c.says) {
				t.Errorf("serve: exit code %d, %q", code, errs)
			}
			if after := filesOf(t, dir); after != before {
				t.Errorf("serve left\n%s\nof\n%s", after, before)
			}
			code, out, errs = runs(t, dir, "check")
			if code != exitFailed || errs != "" || !strings.Contains(out, c.says) {
				t.Errorf("check: exit code %d, %q, %q", code, out, errs)
			}
			code, _, errs = runs(t, dir, "backup", filepath.Join(dir, "copy"))
			if code != exitFailed || strings.Count(errs, "\n") != 1 || exists(filepath.Join(dir, "copy")) {
				t.Errorf("backup: exit code %d, %q", code, errs)
			}
			if after := filesOf(t, dir); after != before {
				t.Errorf("check and backup left\n%s\nof\n%s", after, before)
			}
		})
	}
}

// TestSecondServer: one process owns the file; the first one goes on.
func TestSecondServer(t *testing.T) {
	ts := start(t)
	p := ts.create("x")
	code, _, errs := runs(t, ts.dir, "serve")
	if code != exitFailed || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "another server uses the database") {
		t.Errorf("exit code %d, %q", code, errs)
	}
	ts.get("/"+p.ID+"/raw").want(200, "")
	ts.create("y")
	ts.stop()
	startIn(t, ts.dir).get("/"+p.ID+"/raw").want(200, "")
}

// TestOpenings: a database that is not there, is empty, or lies at a strange path.
func TestOpenings(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(database(dir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	startIn(t, dir).create("in what was an empty file")
	strange := filepath.Join(t.TempDir(), "a b%41?mode=ro#x&y=é'\"")
	ts := startIn(t, strange)
	ts.create("x")
	ts.stop()
	if !exists(database(strange)) {
		t.Errorf("no database at %s", strange)
	}
	startIn(t, strange).stored(1)
	for _, name := range []string{"", ".lock"} {
		if info, err := os.Stat(database(strange) + name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", name, info.Mode())
		}
	}
	if info, _ := os.Stat(strange); info.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v", info.Mode())
	}
}

// TestLinkedDatabase: a link to the database, to nothing at first, changes neither who may serve it nor what its log is.
func TestLinkedDatabase(t *testing.T) {
	home, crashed, dirs := t.TempDir(), t.TempDir(), [3]string{t.TempDir(), t.TempDir(), t.TempDir()}
	for i, target := range []string{home, home, crashed} {
		if err := os.Symlink(database(target), database(dirs[i])); err != nil {
			t.Fatal(err)
		}
	}
	startIn(t, dirs[0], "CHECKPOINT=off").create("x") // the sweep at start must not empty the log that is copied below
	for _, dir := range []string{dirs[0], dirs[1], home} {
		if code, _, errs := runs(t, dir, "serve"); code != exitFailed || !strings.Contains(errs, "another server uses the database") {
			t.Errorf("exit code %d, %s", code, errs)
		}
	}
	for _, suffix := range []string{"", "-wal"} { // as a crash amid a checkpoint leaves them: the first page there, not yet the last
		b := must(os.ReadFile(database(home) + suffix))
		if suffix == "" {
			binary.BigEndian.PutUint32(b[28:], 10000)
		}
		writeFile(t, database(crashed)+suffix, b)
	}
	startIn(t, dirs[2]).stored(1)
}

// TestLogLost: after a crash the log must be there, unless one of our own commands took it in; a command hides no loss.
func TestLogLost(t *testing.T) {
	for _, lost := range []bool{false, true} {
		dir := t.TempDir()
		startIn(t, dir).stop()
		p := launch(t, dir, "DATABASE="+database(dir))
		for range 2 {
			if code, out, errs := runs(t, dir, "check"); code != 0 { // beside the server, then after its crash
				t.Fatalf("check: exit code %d, %s%s", code, out, errs)
			}
			p.kill()
			if lost {
				os.Remove(database(dir) + "-wal")
			}
		}
		if log := startIn(t, dir).logs.String(); strings.Contains(log, "log is gone") != lost {
			t.Errorf("lost: %v; %s", lost, log)
		}
	}
	dir := t.TempDir() // a server that was broken into plants a link for root's commands
	launch(t, dir, "DATABASE="+database(dir)).kill()
	victim := filepath.Join(dir, "victim")
	writeFile(t, victim, []byte("victim"))
	os.Remove(database(dir) + ".lock")
	if err := os.Symlink(victim, database(dir)+".lock"); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := runs(t, dir, "check"); code != 0 || readFile(t, victim) != "victim" {
		t.Errorf("check: exit code %d, %s; the link's target is now %q", code, out, readFile(t, victim))
	}
}

// TestPragmas: what the figures and the promises rest on, asked from the connections themselves.
func TestPragmas(t *testing.T) {
	for setting, synchronous := range map[string]string{"full": "2", "normal": "1"} {
		ts := start(t, "SYNC="+setting)
		ask := func(q interface {
			QueryRowContext(context.Context, string, ...any) *sql.Row
		}, name string) (v string) {
			if err := q.QueryRowContext(context.Background(), "PRAGMA "+name).Scan(&v); err != nil {
				t.Fatal(err)
			}
			return v
		}
		for name, want := range map[string]string{"journal_mode": "wal", "synchronous": synchronous, "secure_delete": "1", "auto_vacuum": "2", "page_size": "8192", "foreign_keys": "1", "application_id": strconv.Itoa(applicationID),
			"user_version": strconv.Itoa(len(migrations())), "temp_store": "2", "busy_timeout": "5000"} {
			var got string
			ts.store.submit(&operation{bare: true, run: func(*writeTx) error { got = ask(ts.store.wconn, name); return nil }})
			if got != want {
				t.Errorf("writer: %s = %s, want %s", name, got, want)
			}
		}
		if got := ask(ts.store.r, "query_only"); got != "1" {
			t.Errorf("reader: query_only = %s", got)
		}
		if _, err := ts.store.r.Exec("DELETE FROM pastes"); err == nil {
			t.Error("a reader writes")
		}
	}
}

// TestKill: what was acknowledged survives kill -9, what was on its way leaves nothing.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	p := launch(t, dir, "DATABASE="+database(dir), "MAX_UPLOADS=512")
	var mu sync.Mutex
	acknowledged := map[string]string{}
	var wg sync.WaitGroup
	var stop atomic.Bool
	for w := range 4 {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				size := 50 + 37*i%5000
				if i%10 == 9 {
					size = chunkSize + 1000
				}
				content := strings.Repeat(fmt.Sprintf("%d.%d;", w, i), size/3+1)[:size]
				res, err := testClient.Post(p.url+"/", "text/plain", strings.NewReader(content))
				if err != nil {
					return
				}
				if res.StatusCode == 201 { // acknowledged with the status line
					mu.Lock()
					acknowledged[res.Header.Get("Location")] = content
					mu.Unlock()
				}
				res.Body.Close()
			}
		})
	}
	// An upload that is amid its way when the process dies.
	pr, pw := io.Pipe()
	go testClient.Post(p.url+"/", "text/plain", pr)
	pw.Write([]byte(pattern(3 * chunkSize)))
	time.Sleep(700 * time.Millisecond)
	for range 3000 { // and on a slow machine until there is something to lose
		mu.Lock()
		n := len(acknowledged)
		mu.Unlock()
		if n >= 10 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.kill()
	stop.Store(true)
	pw.CloseWithError(errors.New("the server is gone"))
	wg.Wait()
	ts := startIn(t, dir)
	if len(acknowledged) < 10 {
		t.Fatalf("only %d were acknowledged", len(acknowledged))
	}
	for path, content := range acknowledged {
		if a := ts.get(path + "/raw"); a.StatusCode != 200 || a.body != content {
			t.Errorf("%s: status %d, %d bytes of %d", path, a.StatusCode, len(a.body), len(content))
		}
	}
	ts.settled("garbage", 0, func() int64 { return ts.number("SELECT count(*) FROM garbage") })
	ts.stored(ts.number("SELECT count(*) FROM pastes"))
	if bad, err := ts.store.integrity(); err != nil || len(bad) > 0 {
		t.Errorf("%v, %v", bad, err)
	}
	t.Logf("%d acknowledged, none lost", len(acknowledged))
}

// TestFailedSync: a disk that can't sync ends the process with exit code 74; what was acknowledged before is there afterwards,
// and what failed was not acknowledged.
func TestFailedSync(t *testing.T) {
	strace := need(t, "strace")
	dir := t.TempDir()
	p := launch(t, dir, "DATABASE="+database(dir))
	res, err := testClient.Post(p.url+"/", "text/plain", strings.NewReader("before"))
	if err != nil || res.StatusCode != 201 {
		t.Fatal(err, res)
	}
	res.Body.Close()
	tracer := exec.Command(strace, "-f", "-qq", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO", "-o", os.DevNull, "-p", strconv.Itoa(p.cmd.Process.Pid))
	if err := tracer.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { tracer.Process.Kill(); tracer.Wait() }()
	traced := func() (all bool) { // one thread that is not could sync
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid))
		for _, path := range threads {
			b, err := os.ReadFile(path)
			if err == nil && regexp.MustCompile(`TracerPid:\s*0\n`).Match(b) {
				return false
			}
		}
		return len(threads) > 0
	}
	for range 1000 {
		if traced() {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !traced() {
		t.Skip("strace may not attach here")
	}
	if res, err := testClient.Post(p.url+"/", "text/plain", strings.NewReader("after")); err == nil {
		res.Body.Close()
		if res.StatusCode < 500 {
			t.Errorf("status %d although nothing was synced", res.StatusCode)
		}
	}
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		t.Fatalf("still running: %s", p.logs)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != exitStorage {
		t.Errorf("exit code %d, want %d: %s", code, exitStorage, p.logs)
	}
	ts := startIn(t, dir)
	if a := ts.get(res.Header.Get("Location") + "/raw"); a.body != "before" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
}

// TestQuota: MAX_STORAGE bounds what is stored, three quarters of it for strangers; what does not fit leaves nothing; deletions
// make room at once.
func TestQuota(t *testing.T) {
	ts := start(t, append([]string{"MAX_STORAGE=1MiB", "CACHE=0"}, proxied...)...)
	const most = 768 << 10
	first := ts.create(pattern(most - 1000))
	for _, c := range []struct {
		name    string
		size    int
		headers []string
	}{
		{"one chunk", 1001, nil}, {"one chunk of a stranger with a certificate", 1001, withCert(certAlice)}, {"several chunks", 3 * chunkSize, nil}, {"more than there is at all", 2 << 20, nil},
	} {
		for _, method := range []string{"POST", "PUT"} {
			a := ts.do(method, "/", strings.NewReader(pattern(c.size)), c.headers...)
			if a.StatusCode != 503 || a.field("code") != "storage_full" || a.Header.Get("Retry-After") == "" {
				t.Errorf("%s: %d %s", c.name, a.StatusCode, a.body)
			}
			ts.stored(1)
		}
	}
	last := ts.create(pattern(1000))
	ts.post("x").want(503, "storage_full")
	ts.stored(2)
	ts.get("/"+first.ID+"/raw").want(200, "")
	ts.get("/"+last.ID+"/raw").want(200, "")
	// A change needs room for the new beside the old, and gives the old back.
	ts.do("PUT", "/"+last.ID, strings.NewReader("y"), "X-Delete-Token: "+last.DeleteToken).want(503, "storage_full")
	ts.do("PUT", "/"+last.ID, nil, "X-Delete-Token: "+last.DeleteToken, "X-Expiry: 60").want(200, "")
	if got := ts.get("/" + last.ID + "/raw").body; got != pattern(1000) {
		t.Errorf("a change that failed left %d bytes", len(got))
	}
	ts.do("DELETE", "/"+last.ID, nil, "X-Delete-Token: "+last.DeleteToken).want(200, "")
	ts.create(pattern(1000))
	ts.do("DELETE", "/"+first.ID, nil, "X-Delete-Token: "+first.DeleteToken).want(200, "")
	ts.stored(1)
	ts.create(pattern(most - 1000))
	ts.stored(2)
	if n := ts.store.used.Load(); n != most {
		t.Errorf("%d bytes counted, %d stored", n, most)
	}
	// The count survives a restart.
	ts.stop()
	again := startIn(t, ts.dir, "MAX_STORAGE=1MiB")
	again.post("x").want(503, "storage_full")
	// Parallel uploads do not share the last room.
	ts = start(t, "MAX_STORAGE=1MiB", "MAX_UPLOADS=512")
	var ok atomic.Int64
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			if a := ts.post(pattern(100 << 10)); a.StatusCode == 201 {
				ok.Add(1)
			} else {
				a.want(503, "storage_full")
			}
		})
	}
	wg.Wait()
	if ok.Load() != 7 {
		t.Errorf("%d of 12 times 100 KiB fit into 768 KiB", ok.Load())
	}
	ts.stored(ok.Load())
}

// TestReserve: uploads stop at MIN_FREE; reads, changes of options, deletions and the sweep do not.
func TestReserve(t *testing.T) {
	dir := t.TempDir()
	ts := startIn(t, dir)
	p, q, r := ts.create("x"), ts.create("y"), ts.create("z", "X-Expiry: 60")
	ts.stop()
	ts = startIn(t, dir, "MIN_FREE="+strconv.FormatInt(freeSpace(dir)+1<<30, 10))
	ts.post("x").want(503, "storage_full")
	ts.do("PUT", "/"+p.ID, strings.NewReader("x"), "X-Delete-Token: "+p.DeleteToken).want(503, "storage_full")
	ts.get("/"+p.ID+"/raw").want(200, "")
	ts.do("PUT", "/"+p.ID, nil, "X-Delete-Token: "+p.DeleteToken, "X-Expiry: 60").want(200, "")
	ts.do("DELETE", "/"+q.ID, nil, "X-Delete-Token: "+q.DeleteToken).want(200, "")
	ts.clock.advance(61 * time.Second)
	if n := ts.sweep(); n != 2 {
		t.Errorf("swept %d; want 2, %s among them", n, r.ID)
	}
	ts.nothing()
	code, out, _ := func() (int, string, string) {
		var out, errs bytes.Buffer
		code := run([]string{"flaskpaste", "check"}, []string{"FLASKPASTE_DATABASE=" + database(dir), "FLASKPASTE_MIN_FREE=1048576GiB"}, &out, &errs)
		return code, out.String(), errs.String()
	}()
	if code != exitFailed || !strings.Contains(out, "FLASKPASTE_MIN_FREE") {
		t.Errorf("check: %d, %q", code, out)
	}
}

// smallDisk mounts a file system of that many MiB, where the test may.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm,mode=0700", size), "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("mounting a small disk: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
	return dir
}

// TestFullDisk: 503 storage_full, nothing stored, reads go on, and it is over as soon as there is room, without a hand.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, 8)
	ts := startIn(t, dir, "CACHE=0")
	kept := ts.create(pattern(300 << 10))
	for _, c := range []struct {
		name string
		free int64 // bytes left on the disk
		size int
	}{
		{"nothing left", 0, 1}, {"nothing left, several chunks", 0, 600 << 10}, {"a page left", 8192, 1}, {"two pages left", 16384, 5000}, {"room for a chunk but not for two", 400 << 10, 900 << 10},
		{"room for the chunk, not for its pages", 310 << 10, 260 << 10},
	} {
		if err := ts.store.checkpointNow(); err != nil {
			t.Fatal(err)
		}
		filler := filepath.Join(dir, "filler")
		if err := os.WriteFile(filler, make([]byte, max(0, freeSpace(dir)-c.free)), 0o600); err != nil {
			t.Fatal(err)
		}
		a := ts.post(pattern(c.size)).want(503, "storage_full")
		if a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", c.name)
		}
		if a := ts.get("/" + kept.ID + "/raw"); a.StatusCode != 200 || a.body != pattern(300<<10) {
			t.Errorf("%s: reading: %d", c.name, a.StatusCode)
		}
		ts.get("/"+kept.ID).want(200, "")
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		p := ts.create(pattern(c.size)) // over by itself
		ts.get("/"+p.ID+"/raw").want(200, "")
		ts.do("DELETE", "/"+p.ID, nil, "X-Delete-Token: "+p.DeleteToken).want(200, "")
		ts.stored(1)
	}
	if bad, err := ts.store.integrity(); err != nil || len(bad) > 0 {
		t.Errorf("%v, %v", bad, err)
	}
}

// TestFillingDisk: uploads until the reserve is reached; then deletions and the sweep make room again, for the disk too.
func TestFillingDisk(t *testing.T) {
	dir := smallDisk(t, 64)
	ts := startIn(t, dir, "MIN_FREE=24MiB", "CACHE=0") // the log may take up to 16 MiB of it
	var list []created
	for {
		a := ts.post(pattern(3<<20), "X-Expiry: 60")
		if a.StatusCode != 201 {
			a.want(503, "storage_full")
			break
		}
		list = append(list, created{ID: a.field("id"), DeleteToken: a.field("delete_token")})
		if len(list) > 40 {
			t.Fatal("64 MiB never get full")
		}
	}
	if free := freeSpace(dir); len(list) < 5 || free < 8<<20 {
		t.Fatalf("full after %d of 3 MiB, %d bytes free", len(list), free)
	}
	for _, p := range list {
		ts.get("/"+p.ID+"/raw").want(200, "")
	}
	for _, p := range list[:len(list)/2] {
		ts.do("DELETE", "/"+p.ID, nil, "X-Delete-Token: "+p.DeleteToken).want(200, "")
	}
	ts.clock.advance(61 * time.Second)
	for range 2 {
		ts.sweep()
	}
	ts.nothing()
	if free := freeSpace(dir); free < 44<<20 {
		t.Errorf("%d MiB free after everything is gone", free>>20)
	}
	ts.create(pattern(3 << 20))
}

// TestBackup: a copy while serving, whole, private, without what burns, and it restores.
func TestBackup(t *testing.T) {
	ts := start(t)
	small, big := ts.create("small", "X-Paste-Password: pw"), ts.create(pattern(700<<10))
	marker := strings.Repeat("burn-marker-", 30)
	burning, burningBig := ts.create(marker, "X-Burn-After-Read: true"), ts.create(strings.Repeat(marker, 1000), "X-Burn-After-Read: true")
	// An upload on its way.
	c := ts.hold(1000000)
	io.WriteString(c, pattern(2*chunkSize))
	ts.settled("chunks on the way", 1, func() int64 { return min(1, ts.number("SELECT count(*) FROM garbage")) })
	dir := t.TempDir()
	copied := database(dir)
	code, out, errs := runs(t, ts.dir, "backup", copied)
	if code != 0 || out != "" || errs != "" {
		t.Fatalf("exit code %d, %q, %q", code, out, errs)
	}
	info, err := os.Stat(copied)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	before, _ := os.ReadFile(copied)
	if bytes.Contains(before, []byte("burn-marker-")) || bytes.Contains(before, []byte(burning.ID)) {
		t.Error("what burns is in the copy")
	}
	code, _, errs = runs(t, ts.dir, "backup", copied)
	if after, _ := os.ReadFile(copied); code != exitFailed || !strings.Contains(errs, "exists") || strings.Count(errs, "\n") != 1 || !bytes.Equal(before, after) {
		t.Errorf("a second time: exit code %d, %q", code, errs)
	}
	if code, _, errs = runs(t, ts.dir, "backup", filepath.Join(dir, "none", "x")); code != exitFailed || strings.Count(errs, "\n") != 1 {
		t.Errorf("into no folder: exit code %d, %q", code, errs)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("left %v", files)
	}
	// The running server knows nothing of it.
	ts.get("/"+burning.ID).want(200, "")
	ts.get("/"+burningBig.ID).want(200, "")
	ts.create("goes on")
	c.Close()
	// Restored.
	again := startIn(t, dir)
	again.get("/"+small.ID+"/raw").want(401, "password_required")
	again.get("/"+small.ID+"/raw", "X-Paste-Password: pw").want(200, "")
	if a := again.get("/"+big.ID+"/raw").want(200, ""); a.body != pattern(700<<10) {
		t.Errorf("%d bytes", len(a.body))
	}
	again.get("/"+burning.ID).want(404, "")
	again.do("DELETE", "/"+big.ID, nil, "X-Delete-Token: "+big.DeleteToken).want(200, "")
	again.create("goes on")
	again.stored(2)
	// Of a server that does not run.
	ts.stop()
	if code, _, errs = runs(t, ts.dir, "backup", filepath.Join(dir, "second")); code != 0 {
		t.Errorf("at rest: exit code %d, %q", code, errs)
	}
}

// TestCheck: what is wrong, in plain words, and exit code 1; nothing is, and 0.
func TestCheck(t *testing.T) {
	ts := start(t)
	ts.create(pattern(100000))
	check := func(dir string, env ...string) (int, string) {
		var out, errs bytes.Buffer
		code := run([]string{"flaskpaste", "check"}, append([]string{"FLASKPASTE_DATABASE=" + database(dir), "FLASKPASTE_MIN_FREE=0"}, env...), &out, &errs)
		if errs.Len() > 0 {
			t.Errorf("stderr %q", errs.String())
		}
		return code, out.String()
	}
	for _, running := range []bool{true, false} {
		if !running {
			ts.stop()
		}
		if code, out := check(ts.dir); code != 0 || out != "all is well\n" {
			t.Errorf("running %v: exit code %d, %q", running, code, out)
		}
	}
	os.Chmod(database(ts.dir), 0o644)
	if code, out := check(ts.dir); code != exitFailed || !strings.Contains(out, "chmod 600") {
		t.Errorf("exit code %d, %q", code, out)
	}
	os.Chmod(database(ts.dir), 0o600)
	if code, out := check(ts.dir, "FLASKPASTE_TRUSTED_PROXIES=10.0.0.0/8"); code != exitFailed || !strings.Contains(out, "FLASKPASTE_PROXY_SECRET") {
		t.Errorf("exit code %d, %q", code, out)
	}
	if code, out := check(ts.dir, "FLASKPASTE_SERVICE_HOST=x"); code != exitFailed || !strings.Contains(out, "FLASKPASTE_SERVICE_HOST") {
		t.Errorf("exit code %d, %q", code, out)
	}
	os.WriteFile(database(ts.dir)+".revoked", []byte("edited\n"), 0o600) // the next start would refuse it
	if code, out := check(ts.dir); code != exitFailed || !strings.Contains(out, "line 1: not a revocation") {
		t.Errorf("exit code %d, %q", code, out)
	}
	os.Remove(database(ts.dir) + ".revoked")
	// A proxy that nobody trusts leaves a note.
	ts = startIn(t, ts.dir)
	ts.get("/", "X-Forwarded-For: 192.0.2.1")
	ts.settled("notes", 1, func() int64 { return ts.number("SELECT count(*) FROM notes") })
	if code, out := check(ts.dir); code != exitFailed || !strings.Contains(out, "X-Forwarded-For") || !strings.Contains(out, "FLASKPASTE_TRUSTED_PROXIES") {
		t.Errorf("exit code %d, %q", code, out)
	}
	ts.stop()
	// Damage in a page of an index.
	b, _ := os.ReadFile(database(ts.dir))
	var root int64
	db, _ := sql.Open("sqlite", dsn(database(ts.dir), "ro"))
	db.QueryRow("SELECT rootpage FROM sqlite_schema WHERE name = 'pastes_created'").Scan(&root)
	db.Close()
	copy(b[(root-1)*pageSize+20:root*pageSize], bytes.Repeat([]byte{0x5a}, pageSize-20))
	os.WriteFile(database(ts.dir), b, 0o600)
	if code, out := check(ts.dir); code != exitFailed || strings.Contains(out, "all is well") || !strings.Contains(strings.ToLower(out), "page") && !strings.Contains(out, "index") && !strings.Contains(out, "damaged") {
		t.Errorf("exit code %d, %q", code, out)
	}
}

// TestMigration: a copy is made before the file is changed, it is private and whole, and it is gone after a day; a migration
// that fails changes nothing.
func TestMigration(t *testing.T) {
	was := schema
	t.Cleanup(func() { schema = was })
	dir := t.TempDir()
	ts := startIn(t, dir)
	p := ts.create(pattern(300 << 10))
	ts.stop()
	version := len(migrations())
	copies := func() []string { list, _ := filepath.Glob(database(dir) + ".v*.bak"); return list }
	if len(copies()) != 0 {
		t.Errorf("copies of a new database: %v", copies())
	}
	// One that fails half way.
	schema = was + fmt.Sprintf("\n-- version %d\nCREATE TABLE extra (x INTEGER) STRICT;\nCREATE TABLE pastes (x);\n", version+1)
	code, _, errs := runs(t, dir, "serve")
	if code != exitFailed || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, fmt.Sprintf("version %d", version+1)) {
		t.Errorf("exit code %d, %q", code, errs)
	}
	for _, name := range copies() {
		os.Remove(name)
	}
	schema = was
	ts = startIn(t, dir)
	ts.get("/"+p.ID+"/raw").want(200, "")
	if n := ts.number("SELECT count(*) FROM sqlite_schema WHERE name = 'extra'"); n != 0 {
		t.Error("half a migration stayed")
	}
	ts.stop()
	// One that works.
	schema = was + fmt.Sprintf("\n-- version %d\nALTER TABLE pastes ADD COLUMN extra INTEGER NOT NULL DEFAULT 7;\n", version+1)
	for _, command := range [][]string{{"check"}, {"backup", filepath.Join(dir, "copy")}} { // these do not migrate
		if code, _, _ := runs(t, dir, command...); code != exitFailed || len(copies()) != 0 {
			t.Errorf("%v: exit code %d, copies %v", command, code, copies())
		}
	}
	ts = startIn(t, dir)
	if n := ts.number("PRAGMA user_version"); n != int64(version+1) || ts.number("SELECT extra FROM pastes") != 7 {
		t.Errorf("version %d", n)
	}
	if a := ts.get("/"+p.ID+"/raw").want(200, ""); a.body != pattern(300<<10) {
		t.Errorf("%d bytes", len(a.body))
	}
	list := copies()
	if len(list) != 1 || !strings.Contains(list[0], fmt.Sprintf(".v%d-", version)) {
		t.Fatalf("copies %v", list)
	}
	if info, _ := os.Stat(list[0]); info.Mode().Perm() != 0o600 {
		t.Errorf("copy has mode %v", info.Mode())
	}
	// The copy is a database of the old version.
	old := t.TempDir()
	b, _ := os.ReadFile(list[0])
	os.WriteFile(database(old), b, 0o600)
	now := schema
	schema = was
	back := startIn(t, old)
	back.get("/"+p.ID+"/raw").want(200, "")
	back.stop()
	code, _, errs = runs(t, dir, "check") // and the old program does not touch the new file
	if code != exitFailed {
		t.Errorf("the old program takes the new file: %q", errs)
	}
	schema = now
	for _, c := range []struct {
		after time.Duration
		n     int
	}{{23 * time.Hour, 1}, {2 * time.Hour, 0}} {
		ts.clock.advance(c.after)
		ts.sweep()
		if len(copies()) != c.n {
			t.Errorf("after %v more: copies %v", c.after, copies())
		}
	}
}

// TestTouchesAtShutdown: a renewal that still waits is written before the file is closed.
func TestTouchesAtShutdown(t *testing.T) {
	ts := start(t)
	var list []created
	for range 5 {
		list = append(list, ts.create("x"))
	}
	ts.clock.advance(time.Hour)
	for _, p := range list {
		ts.get("/"+p.ID+"/raw").want(200, "")
	}
	ts.stop()
	again := startIn(t, ts.dir)
	if n := again.number("SELECT count(*) FROM pastes WHERE expires_at >= created_at + 86400 + 3600"); n != 5 {
		t.Errorf("%d of 5 renewals were written", n)
	}
	if exists(database(ts.dir)+"-wal") && again.number("SELECT 1") != 1 {
		t.Error("the log outlived a clean stop")
	}
}

// TestOrphansAtStart: what an earlier run left half done is gone soon after the start, in small steps, and nothing else is.
func TestOrphansAtStart(t *testing.T) {
	ts := start(t)
	p := ts.create(pattern(700 << 10))
	for i := range 3 { // uploads that nobody finishes, of many chunks
		u := ts.store.newUpload(1 << 40)
		for range 20 + i {
			if err := u.add([]byte(pattern(chunkSize))); err != nil {
				t.Fatal(err)
			}
		}
	}
	burning := ts.create(pattern(600<<10), "X-Burn-After-Read: true")
	row, _, err := ts.store.get(burning.ID, ts.clock.now().Unix())
	if err == nil {
		err = ts.store.claim(row, ts.clock.now().Unix()) // and the process dies before its reader is through
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := ts.number("SELECT count(*) FROM garbage"); n != 4 {
		t.Fatalf("%d contents in the garbage", n)
	}
	if err := ts.store.collect(func() {}); err != nil || ts.number("SELECT count(*) FROM garbage") != 4 {
		t.Errorf("what is in use was removed: %v", err)
	}
	ts.stop()
	again := startIn(t, ts.dir)
	again.stored(1)
	if a := again.get("/"+p.ID+"/raw").want(200, ""); a.body != pattern(700<<10) {
		t.Errorf("%d bytes", len(a.body))
	}
	again.get("/"+burning.ID).want(404, "")
	q := again.create("another") // a content number is not used again while chunks of it may be about
	if again.number("SELECT count(DISTINCT content) FROM pastes") != 2 || q.ID == "" {
		t.Error("two pastes, one content")
	}
}

// TestGarbageOfAFullDisk: what an earlier run left and a start could not mark for want of room goes later; this run's uploads stay.
func TestGarbageOfAFullDisk(t *testing.T) {
	ts := start(t)
	for i := range 2 {
		u := ts.store.newUpload(1 << 40)
		if err := u.add([]byte(pattern(chunkSize))); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			ts.store.left.Store(u.content)
		}
	}
	if err := ts.store.collect(func() {}); err != nil || ts.number("SELECT count(*) FROM garbage") != 1 || ts.number("SELECT count(*) FROM chunks") != 1 || ts.store.left.Load() != 0 {
		t.Errorf("%v, %d left", err, ts.number("SELECT count(*) FROM chunks"))
	}
}

// TestSweep: what has expired is removed in small steps, survivors stay, pages go back to the disk, the log is emptied.
func TestSweep(t *testing.T) {
	ts := start(t, "MAX_ANON=8MiB")
	var keep []created
	for i := range 260 {
		size := 100 + i*20
		if i%20 == 0 {
			size = 6 << 20 / (1 + i/20) // some over a chunk
		}
		if i%10 == 5 {
			keep = append(keep, ts.create(pattern(size), "X-Expiry: 2h"))
		} else {
			ts.create(pattern(size), "X-Expiry: 1h")
		}
	}
	if err := ts.store.checkpointNow(); err != nil { // all of it is in the file, however much the log held
		t.Fatal(err)
	}
	before, _ := os.Stat(database(ts.dir))
	if n := ts.sweep(); n != 0 {
		t.Errorf("swept %d before anything expired", n)
	}
	ts.clock.advance(time.Hour + time.Second)
	if n := ts.sweep(); n != 260-len(keep) {
		t.Errorf("swept %d of %d", n, 260-len(keep))
	}
	ts.stored(int64(len(keep)))
	for _, p := range keep {
		if a := ts.get("/"+p.ID+"/raw").want(200, ""); sum256(a.body) != p.SHA256 {
			t.Errorf("%s: another content", p.ID)
		}
	}
	after, _ := os.Stat(database(ts.dir))
	if free := ts.number("PRAGMA freelist_count"); after.Size() >= before.Size()*3/4 || free > 1024 {
		t.Errorf("the file has %d bytes of %d, %d free pages", after.Size(), before.Size(), free)
	}
	if wal, err := os.Stat(database(ts.dir) + "-wal"); err == nil && wal.Size() != 0 {
		t.Errorf("the log has %d bytes", wal.Size())
	}
	if bad, err := ts.store.integrity(); err != nil || len(bad) > 0 {
		t.Errorf("%v, %v", bad, err)
	}
	// With a replicator outside, the log is its own.
	ts = start(t, "CHECKPOINT=off")
	ts.create("x", "X-Expiry: 1")
	ts.clock.advance(2 * time.Second)
	ts.sweep()
	if wal, err := os.Stat(database(ts.dir) + "-wal"); err != nil || wal.Size() == 0 {
		t.Errorf("CHECKPOINT=off: the log was emptied: %v", err)
	}
}

// TestSweepLoop: the server's own sweep does all that, and reads go on meanwhile.
func TestSweepLoop(t *testing.T) {
	ts := start(t, "SWEEP=1s")
	ts.create("x", "X-Expiry: 60")
	kept := ts.create("y")
	ts.clock.advance(61 * time.Second)
	ts.settled("pastes", 1, func() int64 { return ts.number("SELECT count(*) FROM pastes") })
	ts.get("/"+kept.ID+"/raw").want(200, "")
	ts.settled("bytes of the log", 0, func() int64 {
		info, err := os.Stat(database(ts.dir) + "-wal")
		if err != nil {
			return -1
		}
		return info.Size()
	})
	ts.settled("lines of sweeps that removed something", 1, func() int64 { return int64(strings.Count(ts.logs.String(), "msg=swept")) })
}

// TestClockOff: a clock that is far from the newest paste at start removes nothing for a while, and says so.
func TestClockOff(t *testing.T) {
	for _, c := range []struct {
		name   string
		offset time.Duration
		pauses bool
	}{
		{"a month later", 30 * 24 * time.Hour, false}, {"beyond any life", 91 * 24 * time.Hour, true}, {"years later", 3650 * 24 * time.Hour, true},
		{"an hour back", -time.Hour, false}, {"two days back", -48 * time.Hour, true}, {"the epoch", -time.Duration(time.Now().Unix()) * time.Second, true},
	} {
		ts := start(t)
		ts.create("x")
		ts.stop()
		ts = startAt(t, ts.dir, c.offset, "SWEEP=1s")
		if c.pauses {
			for range 5000 {
				time.Sleep(2 * time.Millisecond)
				if strings.Contains(ts.logs.String(), "clock looks wrong") {
					break
				}
			}
			time.Sleep(20 * time.Millisecond)
			if n := ts.number("SELECT count(*) FROM pastes"); n != 1 || !strings.Contains(ts.logs.String(), "clock looks wrong") {
				t.Errorf("%s: %d pastes left, log %s", c.name, n, ts.logs)
			}
		} else {
			want := int64(1)
			if c.offset > 0 {
				want = 0
			}
			ts.settled(c.name, want, func() int64 { return ts.number("SELECT count(*) FROM pastes") })
			if strings.Contains(ts.logs.String(), "clock looks wrong") {
				t.Errorf("%s: log %s", c.name, ts.logs)
			}
		}
		ts.stop()
	}
}

// TestGroupCommit: operations that wait are committed as one; one that fails takes nothing and nobody with it.
func TestGroupCommit(t *testing.T) {
	ts := start(t)
	note := func(name string) func(*writeTx) error {
		return func(w *writeTx) error {
			_, err := w.exec("INSERT INTO notes (name, at, text) VALUES (?, 1, 'x')", name)
			w.bytes += 10
			return err
		}
	}
	release := ts.block()
	own := errors.New("of its own")
	want := map[string]error{"a": nil, "b": own, "c": nil, "d": nil}
	var wg sync.WaitGroup
	for name, result := range want {
		wg.Go(func() {
			err := ts.store.do(0, func(w *writeTx) error {
				if err := note(name)(w); err != nil {
					return err
				}
				return result
			})
			if !errors.Is(err, result) || (err == nil) != (result == nil) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	var twice atomic.Int64
	for range 3 {
		wg.Go(func() {
			if err := ts.store.do(0, note("twice")); err != nil {
				twice.Add(1)
			}
		})
	}
	ts.settled("operations that wait", 7, func() int64 { return int64(min(7, len(ts.store.ops))) })
	release()
	wg.Wait()
	if n := ts.number("SELECT count(*) FROM notes"); n != 4 || twice.Load() != 2 {
		t.Errorf("%d notes, %d refused", n, twice.Load())
	}
	if n := ts.number("SELECT bytes FROM totals"); n != 40 || ts.store.used.Load() != 40 {
		t.Errorf("totals %d, %d in memory", n, ts.store.used.Load())
	}
	if ts.number("SELECT count(*) FROM notes WHERE name = 'b'") != 0 {
		t.Error("what failed was written")
	}
	ts.stop()
	if err := ts.store.do(0, note("late")); !errors.Is(err, errClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// TestDamagedContent: bytes that are not those that were stored are an error, never an answer.
func TestDamagedContent(t *testing.T) {
	ts := start(t)
	for _, c := range []struct {
		name   string
		size   int
		change string
		status int // 0: cut
	}{
		{"a byte of one chunk", 1000, "UPDATE chunks SET data = CAST('X' || substr(data, 2) AS BLOB) WHERE key = ?", 500},
		{"one chunk shorter", 1000, "UPDATE chunks SET data = substr(data, 2) WHERE key = ?", 500},
		{"one chunk is missing", 1000, "DELETE FROM chunks WHERE key = ?", 500},
		{"a byte of a small chunk that is not cached", hotSize + 1, "UPDATE chunks SET data = CAST('X' || substr(data, 2) AS BLOB) WHERE key = ?", 500},
		{"a byte of the first of several", 2*chunkSize + 10, "UPDATE chunks SET data = CAST('X' || substr(data, 2) AS BLOB) WHERE key = ?", 0},
		{"the first of several shorter", 2*chunkSize + 10, "UPDATE chunks SET data = substr(data, 2) WHERE key = ?", 500},
	} {
		p := ts.create(pattern(c.size))
		var key int64
		ts.store.r.QueryRow("SELECT content << 20 FROM pastes WHERE id = ?", p.ID).Scan(&key)
		if err := ts.store.do(0, func(w *writeTx) error { _, err := w.exec(c.change, key); return err }); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			a, err := ts.try("GET", "/"+p.ID+"/raw", nil)
			switch {
			case c.status == 0 && err == nil, c.status != 0 && (err != nil || a.StatusCode != c.status):
				t.Errorf("%s: %v, %+v", c.name, err, a)
			case err == nil && strings.Contains(a.body, pattern(100)[5:90]):
				t.Errorf("%s: shows content", c.name)
			}
		}
	}
}

// TestCache: bounded by bytes, least recently used first, never older than the last change, never beyond a deadline.
func TestCache(t *testing.T) {
	c := newHotCache(5 * (1000 + hotOverhead))
	put := func(id string, body []byte, generation int64) {
		c.put(id, &paste{id: id, expires: 100, life: 100}, body, generation)
	}
	body := make([]byte, 1000)
	for i := range 5 {
		put(strconv.Itoa(i), body, c.generation.Load())
	}
	c.get("0", 50) // 1 is now the oldest
	put("5", body, c.generation.Load())
	for id, want := range map[string]bool{"0": true, "1": false, "2": true, "5": true} {
		if p, _ := c.get(id, 50); (p != nil) != want {
			t.Errorf("%s cached: %v", id, p != nil)
		}
	}
	if c.bytes > c.limit || len(c.m) != 5 {
		t.Errorf("%d bytes of %d, %d entries", c.bytes, c.limit, len(c.m))
	}
	if p, _ := c.get("0", 100); p != nil {
		t.Error("served at its deadline")
	}
	c.renew("0", touch{expires: 200, life: 100})
	if p, _ := c.get("0", 150); p == nil || p.expires != 200 {
		t.Errorf("renewed: %+v", p)
	}
	c.renew("0", touch{expires: 120, life: 100}) // never back
	if p, _ := c.get("0", 150); p == nil {
		t.Error("a renewal moved a deadline back")
	}
	before := c.generation.Load()
	c.drop("nothing")
	put("6", body, before)
	if p, _ := c.get("6", 50); p != nil {
		t.Error("a fill that began before a drop was taken")
	}
	put("7", make([]byte, 10000), c.generation.Load())
	if p, _ := c.get("7", 50); p != nil {
		t.Error("larger than the cache, and cached")
	}
	for i := range 1000 {
		put(strconv.Itoa(i%300), make([]byte, i%3000), c.generation.Load())
		if i%7 == 0 {
			c.drop(strconv.Itoa(i % 300))
		}
	}
	var sum int64
	n := 0
	for e := c.ring.next; e != &c.ring; e = e.next {
		sum += int64(len(e.body)) + hotOverhead
		n++
		if c.m[e.key] != e {
			t.Fatal("list and map differ")
		}
	}
	if sum != c.bytes || n != len(c.m) || sum > c.limit {
		t.Errorf("%d bytes in the list, %d counted, limit %d; %d and %d entries", sum, c.bytes, c.limit, n, len(c.m))
	}
	off := newHotCache(0)
	off.put("0", &paste{id: "0", expires: 100}, body, 0)
	if p, _ := off.get("0", 50); p != nil || len(off.m) != 0 {
		t.Error("a cache that is off caches")
	}
}

// TestCacheServes: a second read of a small open paste does not ask the database; closed ones are never kept.
func TestCacheServes(t *testing.T) {
	ts := start(t)
	open := ts.create("open")
	ts.get("/"+open.ID+"/raw").want(200, "")
	// Change the file behind the cache's back: only a cached answer is still the old one.
	ts.store.do(0, func(w *writeTx) error { _, err := w.exec("DELETE FROM pastes WHERE id = ?", open.ID); return err })
	if a := ts.get("/"+open.ID+"/raw").want(200, ""); a.body != "open" {
		t.Errorf("body %q", a.body)
	}
	for _, option := range []string{"X-Burn-After-Read: true", "X-Read-Proof-SHA256: " + strings.Repeat("ab", 32)} {
		p := ts.create("closed", option)
		ts.get("/"+p.ID).want(200, "")
		ts.do("HEAD", "/"+p.ID+"/raw", nil)
		if len(ts.store.cache.m) != 1 {
			t.Errorf("%s: is in the cache", option)
		}
	}
}

// TestPadding: whatever its size, no byte of a content lies on a b-tree page (SQLite file format, section 1.6).
func TestPadding(t *testing.T) {
	const u = pageSize
	const x, m = u - 35, (u-12)*32/255 - 23
	varint := func(n int) int {
		l := 1
		for ; n >= 128; n >>= 7 {
			l++
		}
		return l
	}
	for n := 1; n <= chunkSize; n++ {
		pad := padFor(n)
		header := 1 + 1 + varint(12+2*pad) + varint(12+2*n) // its own size, NULL for the key, two blobs
		p := header + pad + n
		local := p
		if p > x {
			if local = m + (p-m)%(u-4); local > x {
				local = m
			}
		}
		if local > header+pad {
			t.Fatalf("%d bytes with %d of padding: %d of them lie on the page", n, pad, local-header-pad)
		}
	}
}

// TestForensics: of what is gone nothing is found in the database or its log after two sweeps, whatever its size, however it went.
// FLASKPASTE_TEST_FORENSICS=runs does it that often with 10,000 pastes.
func TestForensics(t *testing.T) {
	n, times := 500, 1
	if v := os.Getenv("FLASKPASTE_TEST_FORENSICS"); v != "" {
		n = 10000
		times, _ = strconv.Atoi(v)
	}
	for r := range times {
		seed := uint64(time.Now().UnixNano())
		rnd := rand.New(rand.NewPCG(seed, uint64(r)))
		ts := start(t, "MAX_UPLOADS=512", "EXPIRY_ANON=7d")
		// A content is its own mark over and over: any 24 bytes of it that stay hold it whole.
		content := func(mark, size int) string {
			m := fmt.Sprintf("~%010d~", mark)
			return strings.Repeat(m, size/len(m)+2)[:size]
		}
		const (
			stays = iota
			expires
			burns
			isDeleted
			isReplaced
			isAborted
			ways
		)
		type thing struct {
			created
			how, size int
		}
		things := make([]thing, n)
		alive, dead := map[int]bool{}, map[int]bool{}
		work := func(workers int, f func(i int)) {
			var wg sync.WaitGroup
			order := rnd.Perm(n)
			for w := range workers {
				wg.Go(func() {
					for j := w; j < n; j += workers {
						f(order[j])
					}
				})
			}
			wg.Wait()
		}
		for i := range things {
			things[i].how, things[i].size = rnd.IntN(ways), 30+rnd.IntN(3970)
			if i%50 == 7 {
				things[i].size = chunkSize + rnd.IntN(2*chunkSize)
			}
			if i%50 == 8 {
				things[i].size = 4000 + rnd.IntN(chunkSize-4000)
			}
			if things[i].how == isAborted {
				things[i].size = chunkSize + 5000 // only whole chunks are written before the end
			}
		}
		replacement := func(i int) int { return n + i }
		work(4, func(i int) {
			x := &things[i]
			var headers []string
			switch x.how {
			case burns:
				headers = []string{"X-Burn-After-Read: true"}
			case expires:
				headers = []string{"X-Expiry: 1h"}
			case isAborted:
				if i%20 == 0 {
					c := ts.hold(10 << 20 / 4)
					io.WriteString(c, content(i, x.size))
					time.Sleep(5 * time.Millisecond)
					c.Close()
				}
				return
			}
			x.created = ts.create(content(i, x.size), headers...)
		})
		work(4, func(i int) { // in another order
			x := &things[i]
			token := "X-Delete-Token: " + x.DeleteToken
			switch x.how {
			case burns:
				if a := ts.get("/"+x.ID+"/raw").want(200, ""); a.body != content(i, x.size) {
					t.Errorf("burned %d bytes of %d", len(a.body), x.size)
				}
			case isDeleted:
				ts.do("DELETE", "/"+x.ID, nil, token).want(200, "")
			case isReplaced:
				ts.do("PUT", "/"+x.ID, strings.NewReader(content(replacement(i), 30+i%3000)), token).want(200, "")
			case stays:
				if i%3 == 0 { // rows that change lengthen and shorten beside those that go
					ts.do("PUT", "/"+x.ID, nil, token, "X-Expiry: 2h").want(200, "")
				}
			}
		})
		for i, x := range things {
			switch x.how {
			case stays:
				alive[i] = true
			case isReplaced:
				alive[replacement(i)], dead[i] = true, true
			default:
				dead[i] = true
			}
		}
		// What ends behind an answer or a connection's end is garbage before the sweeps: they would empty the log too early for it.
		ts.settled("upload slots", 0, func() int64 { return int64(ts.uploads.inUse()) })
		ts.settled("contents in use", 0, func() int64 { return ts.number("SELECT count(*) FROM garbage WHERE live = 1") })
		ts.clock.advance(time.Hour + time.Second)
		for range 2 {
			ts.sweep()
		}
		ts.stored(int64(len(alive)))
		found, survivors, size := map[int]int{}, map[int]bool{}, 0
		for _, suffix := range []string{"", "-wal", "-shm"} {
			b, err := os.ReadFile(database(ts.dir) + suffix)
			if err != nil && suffix == "" {
				t.Fatal(err)
			}
			size += len(b)
			for _, m := range regexp.MustCompile(`~\d{10}~`).FindAll(b, -1) {
				mark, _ := strconv.Atoi(string(m[1:11]))
				if dead[mark] {
					found[mark]++
				} else {
					survivors[mark] = true
				}
			}
		}
		if len(survivors) != len(alive) {
			t.Errorf("run %d: the marks of %d of %d survivors are found: the search does not see what is there", r, len(survivors), len(alive))
		}
		if len(found) != 0 {
			t.Errorf("run %d, seed %d: of %d contents that are gone, %d are still found in %d bytes", r, seed, len(dead), len(found), size)
		}
		t.Logf("run %d: %d contents gone, %d of them found; %d survivors; %d KiB searched", r, len(dead), len(found), len(survivors), size>>10)
		ts.stop()
	}
}

// TestFinishBehindFullQueue: a burned content is removed within the next sweeps also when the writer was too busy to hear of it.
func TestFinishBehindFullQueue(t *testing.T) {
	ts := start(t)
	p := ts.create("burn", "X-Burn-After-Read: true")
	row, _, err := ts.store.get(p.ID, ts.clock.now().Unix())
	if err == nil {
		err = ts.store.claim(row, ts.clock.now().Unix())
	}
	if err != nil {
		t.Fatal(err)
	}
	release := ts.block()
	var filling sync.WaitGroup
	for range queueOps {
		filling.Go(func() { ts.store.do(0, func(*writeTx) error { return nil }) })
	}
	ts.settled("operations that wait", queueOps, func() int64 { return int64(len(ts.store.ops)) })
	ended := make(chan struct{})
	go func() { ts.store.finish(row.content); close(ended) }()
	time.Sleep(100 * time.Millisecond)
	release()
	filling.Wait()
	<-ended
	for range 2 {
		ts.sweep()
	}
	ts.nothing()
}

// TestOpenOptions: a store that is not the server's makes no file.
func TestOpenOptions(t *testing.T) {
	dir := t.TempDir()
	_, err := openStore(storeOptions{path: database(dir), log: slog.New(slog.DiscardHandler), fatal: func(error) {}, now: time.Now})
	if !errors.Is(err, errNoStore) {
		t.Errorf("%v", err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("made %v", files)
	}
}
