//go:build linux

package main

// Faults of the disk and the machine: the real process goes through a session of all that writes while something fails,
// and the oracle of the crashes tells whether each ended in a clear error or a recovery, and nothing silently in a
// loss.

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stock makes what a session needs and what is not there.
func (o *oracle) stock(ts *testServer) {
	have := map[string]int{}
	for _, x := range o.idle {
		have[x.kind]++
	}
	for kind, size := range map[string]int{"paste": 3000, "burn": chunkSize + 500, "short": 0, "cert": 0} {
		for range 3 - have[kind] {
			o.make(ts, kind, size)
		}
	}
}

// session does everything that writes once, then reads all that is there; false: the server is gone.
func (o *oracle) session(ts *testServer) bool {
	take := func(kind string) *thing { // nothing else is done with it until the next check
		i := slices.IndexFunc(o.idle, func(x *thing) bool { return x.kind == kind })
		x := o.idle[i]
		o.idle = slices.Delete(o.idle, i, i+1)
		return x
	}
	cut := o.cut
	for _, do := range []func(){
		func() { o.make(ts, "paste", 2000) },
		func() { o.make(ts, "paste", 2*chunkSize+100) },
		func() { o.make(ts, "short", 0) },
		func() { o.make(ts, "cert", 0) },
		func() { o.use(ts, take("paste"), true, chunkSize+100) },
		func() { o.use(ts, take("paste"), false, 0) },
		func() { o.use(ts, take("burn"), false, 0) },
		func() { o.use(ts, take("short"), false, 0) },
		func() { o.use(ts, take("cert"), false, 0) },
	} {
		if do(); o.cut > cut {
			return false
		}
	}
	for _, x := range o.idle {
		if !o.read(ts, x) {
			return false
		}
	}
	return true
}

// inject lets strace make calls on the database's files fail. What it returns ends that, and tells the number of the
// call that failed first (0: none) and how many there were.
func (o *oracle) inject(t testing.TB, p *process, calls, fault string) (end func() (hit, all int)) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "calls")
	cmd := exec.Command(need(t, "strace"), "-f", "-qq", "-e", "signal=none", "-o", log, "-e", "trace="+calls,
		"-e", "inject="+calls+":"+fault, "-p", fmt.Sprint(p.cmd.Process.Pid),
		"-P", database(o.dir), "-P", database(o.dir)+"-wal")
	errs := new(lockedBuffer)
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// strace may overlook the last thread's end, and wait for ever.
	hangs := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) { // a thread that is not traced could write
		free := 0
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid))
		for _, task := range tasks {
			if b, err := os.ReadFile(task); err != nil || strings.Contains(string(b), "TracerPid:\t0\n") {
				free++
			}
		}
		if len(tasks) > 0 && free == 0 {
			break
		}
		if time.Since(began) > 20*time.Second {
			unable(t, "strace can't attach: "+errs.String())
		}
	}
	return func() (hit, all int) {
		cmd.Process.Signal(syscall.SIGTERM)
		hangs.Reset(2 * time.Second)
		cmd.Wait()
		for line := range strings.Lines(string(must(os.ReadFile(log)))) {
			if !strings.Contains(line, " resumed>") {
				all++
			}
			if hit == 0 && strings.Contains(line, "(INJECTED)") {
				hit = all
			}
		}
		return hit, all
	}
}

// TestFaultDisk: while writes fail, by whatever name the disk has no room, all that writes is 503 and leaves nothing,
// and the process serves on; a failed fsync ends it with 74, since nobody knows what the disk holds.
func TestFaultDisk(t *testing.T) {
	t.Parallel()
	o := newOracle(t, t.TempDir(), "SWEEP=1h")
	p, ts := o.launch(t)
	for _, c := range []struct{ calls, errno string }{
		{"pwrite64", "EDQUOT"}, {"pwrite64", "ENOSPC"}, {"pwrite64", "EFBIG"}, {"pwrite64", "EIO"},
		{"fdatasync", "EIO"},
	} {
		o.check(ts)
		o.stock(ts)
		told, no, end := o.told.String(), o.no["storage_full"], o.inject(t, p, c.calls, "error="+c.errno+":when=1+")
		o.tough = []int{503}
		alive := o.session(ts)
		end()
		if o.tough = nil; c.calls == "fdatasync" {
			if code := p.stop(); alive || code != exitStorage || !strings.Contains(p.logs.String(), "the disk failed") {
				t.Errorf("exit code %d, served on %v: %s", code, alive, p.logs)
			}
			_, ts = o.launch(t)
		} else if !alive || o.told.String() != told || o.no["storage_full"] != no+9 || len(o.no) != 1 {
			t.Errorf("%s: served on %v; acknowledged %v after %s; refused %v: %s", c.errno, alive, o.told, told, o.no,
				p.logs)
		}
		o.check(ts)
	}
}

// TestFaultEachCall: the n-th call of each thread on the database's files fails, n = 1, 2, ... until a whole session
// has none; the stop with its checkpoint belongs to it. (strace counts by thread; Go moves the writer from one to
// another.)
func TestFaultEachCall(t *testing.T) {
	if *prove == "" {
		t.Skip("takes minutes: sh deploy/prove.sh Fault; TestFaultDisk is its short form")
	}
	for _, c := range []struct {
		calls, errno string
		step         int // of -prove short
	}{
		{"fdatasync", "EIO", 2}, {"pwrite64", "ENOSPC", 90}, {"pwrite64", "EDQUOT", 90}, {"pwrite64", "EIO", 90},
		{"ftruncate", "EIO", 1},
	} {
		o := newOracle(t, t.TempDir(), "SWEEP=1h")
		ends, hits := tally{}, map[int]bool{}
		c.step = amount(0, c.step, 1)
		for n, hit := 1+rand.IntN(c.step), 1; hit > 0; n += c.step {
			p, ts := o.launch(t)
			o.check(ts)
			o.stock(ts)
			no, calls, end := maps.Clone(o.no), 0, o.inject(t, p, c.calls, fmt.Sprintf("error=%s:when=%d", c.errno, n))
			o.tough = []int{503}
			alive := o.session(ts)
			code := p.stop()
			o.tough = nil
			hit, calls = end()
			hits[hit] = true
			refused, log := !maps.Equal(no, o.no), p.logs.String()
			switch {
			case hit == 0 && alive && code == 0 && !refused:
			case c.calls != "pwrite64" && code == exitStorage && strings.Contains(log, "the disk failed"):
				ends["exit 74"]++
			case c.calls == "pwrite64" && alive && code == 0 && refused:
				ends["503 and served on"]++
			case c.calls == "pwrite64" && alive && code == exitFailed && strings.Contains(log, "the storage is full"):
				ends["the stop failed with storage is full"]++
			case alive && code == 0 && !refused: // a checkpoint's, which is tried again
				ends["unnoticed"]++
			default:
				t.Fatalf("call %d of %d with %s: exit code %d, refused %v: %s", hit, calls, c.errno, code, o.no, log)
			}
			testClient.CloseIdleConnections()
		}
		if delete(o.no, "storage_full"); len(o.no) > 0 {
			t.Errorf("refused with %v", o.no)
		}
		_, ts := o.launch(t)
		o.check(ts)
		what := fmt.Sprintf("%s fails with %s: the n-th of each thread, n in steps of %d", c.calls, c.errno, c.step)
		proved(t, "fault", what,
			"%d different calls were hit; ends: %v; %s, none lost, none undone", len(hits)-1, ends, o.acknowledged())
	}
}

// TestFaultLock: a file system without locks is named as what it is, and nothing is written.
func TestFaultLock(t *testing.T) {
	strace, dir := need(t, "strace"), t.TempDir()
	cmd := program(dir, environment([]string{"LISTEN=127.0.0.1:0", "DATABASE=" + database(dir)}), "serve")
	fault := []string{strace, "-f", "-qq", "-o", os.DevNull, "-e", "inject=flock:error=ENOLCK", cmd.Path}
	cmd.Args = append(fault, cmd.Args[1:]...)
	cmd.Path = strace
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if says := string(out); !errors.As(err, &exit) || exit.ExitCode() != exitFailed ||
		!strings.Contains(says, "file system") || !strings.Contains(says, dir) ||
		strings.Contains(says, "another server") || strings.Count(says, "\n") != 1 {
		t.Errorf("%v: %s", err, says)
	}
	if n := fileSize(database(dir)); n != 0 {
		t.Errorf("the database has %d bytes", n)
	}
}

// smallDisk mounts a file system of that many MiB, where the test may.
func smallDisk(t testing.TB, size int) string {
	t.Helper()
	dir := t.TempDir()
	options := fmt.Sprintf("size=%dm,mode=0700", size)
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "tmpfs", dir).CombinedOutput()
	if err != nil {
		unable(t, fmt.Sprintf("no small disk can be mounted: %v: %s", err, out))
	}
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
	return dir
}

// TestFaultFull: a disk gets full after so many pages of a session. What does not fit is refused and leaves nothing,
// reads go on, and it is over by itself, kill -9 and a start on the full disk among it.
func TestFaultFull(t *testing.T) {
	t.Parallel()
	o := newOracle(t, smallDisk(t, 16), "CACHE=0")
	filler := filepath.Join(o.dir, "filler")
	p, ts := o.launch(t)
	sessions := 0
	for free := int64(0); ; free = max(free+4096, free*int64(amount(4, 5, 4))/int64(amount(1, 4, 4))) {
		o.check(ts)
		for _, x := range o.idle[:max(0, len(o.idle)-12)] {
			o.use(ts, x, false, 0)
		}
		o.check(ts)
		o.stock(ts)
		if err := os.WriteFile(filler, make([]byte, max(0, freeSpace(o.dir)-free)), 0o600); err != nil {
			t.Fatal(err)
		}
		before := o.no["storage_full"]
		o.tough = []int{503}
		if !o.session(ts) {
			t.Fatalf("the server ended: %s", p.logs)
		}
		if o.tough, sessions = nil, sessions+1; sessions%5 == 3 {
			p.kill()
			p = launch(t, o.dir, o.env...)
			ts.url = p.url
			o.check(ts)
		}
		os.Remove(filler)
		if o.no["storage_full"] == before && free > 1<<20 {
			break
		}
		if t.Failed() || sessions > 2000 {
			t.Fatalf("with %d bytes free: %s", free, p.logs)
		}
	}
	o.check(ts)
	if len(o.no) != 1 {
		t.Errorf("refused: %v", o.no)
	}
	proved(t, "fault", fmt.Sprintf("a disk of 16 MiB gets full some pages later each time, in %d sessions", sessions),
		"%s; refused %v: nothing of it stored, reads went on, over by itself", o.acknowledged(), o.no)
}

// TestFillingDisk: uploads until the reserve is reached, the operator's or, without one, the program's own; then
// deletions and the sweep make room again, for the disk too. A step that took more than the reserve holds could not be
// written, and nothing would ever go; nor would it if the log held what the file has no room for.
func TestFillingDisk(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ disk, minFree, size, least int }{{64, 24, 3 << 20, 5}, {40, 0, 1 << 20, 15},
		{16, 0, 70_000, 50}} {
		dir := smallDisk(t, c.disk)
		ts := startIn(t, dir, fmt.Sprintf("MIN_FREE=%dMiB", c.minFree), "CACHE=0")
		var list []created
		for len(list) < 200 {
			a := ts.post(pattern(c.size), "X-Expiry: 60")
			if a.StatusCode != 201 {
				a.want(503, "storage_full")
				break
			}
			list = append(list, created{ID: a.field("id"), DeleteToken: a.field("delete_token")})
		}
		if free := freeSpace(dir); len(list) < c.least || free < 4<<20 {
			t.Fatalf("full after %d of %d bytes, %d bytes free", len(list), c.size, free)
		}
		for i, p := range list {
			if ts.get("/"+p.ID+"/raw").want(200, ""); i%2 == 0 {
				ts.do("DELETE", "/"+p.ID, nil, tokenOf(p)).want(200, "")
			}
		}
		ts.clock.advance(61 * time.Second)
		for range 2 {
			ts.sweep()
		}
		ts.nothing()
		if free := freeSpace(dir); free < int64(c.disk-9)<<20 { // the sweep leaves 8 MiB of free pages
			t.Errorf("%d MiB free of %d after everything is gone", free>>20, c.disk)
		}
		ts.create(pattern(c.size))
	}
}

// prlimit sets a limit of p, its soft part alone.
func prlimit(t testing.TB, p *process, name string, value int64) {
	t.Helper()
	arg := fmt.Sprintf("--%s=%d:", name, value)
	out, err := exec.Command(need(t, "prlimit"), "--pid", fmt.Sprint(p.cmd.Process.Pid), arg).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestFaultDescriptors: while a session runs there are no descriptors left, or one, or two; a moment later there are.
// Errors are clear, and who waited is served.
func TestFaultDescriptors(t *testing.T) {
	t.Parallel()
	o := newOracle(t, t.TempDir(), "SWEEP=1h")
	p, ts := o.launch(t)
	for spare := range amount(2, 8, 24) {
		o.check(ts)
		o.stock(ts)
		testClient.CloseIdleConnections()
		ts.get("/health").want(200, "")
		used := len(must(os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))))
		prlimit(t, p, "nofile", int64(used+spare%8))
		freed := make(chan struct{})
		time.AfterFunc(300*time.Millisecond, func() { defer close(freed); prlimit(t, p, "nofile", 1024) })
		o.tough = []int{500, 503}
		if !o.session(ts) {
			t.Fatalf("with %d to spare the server ended or cut an answer: %s", spare, p.logs)
		}
		o.tough = nil
		<-freed
	}
	o.check(ts)
	proved(t, "fault", "out of file descriptors in a session: none left, one, ... seven", "%s; refused %v",
		o.acknowledged(), o.no)
}

// TestStopAmidSweep: SIGTERM while 1,600 pastes of 600 KB are swept ends the process within two seconds, all that was
// left as it was.
func TestStopAmidSweep(t *testing.T) {
	t.Parallel()
	n, dir := amount(20, 200, 1600), t.TempDir()
	ts := startAt(t, dir, -2*time.Hour, "MAX_UPLOADS=512", "MAX_STORAGE=99GiB")
	for range n {
		ts.create(pattern(600_000), "X-Expiry: 1h")
	}
	ts.stop()
	o := newOracle(t, dir, "MAX_STORAGE=99GiB")
	p := launch(t, dir, o.env...) // where all of it has expired
	time.Sleep(rand.N(time.Duration(amount(50, 200, 3000)) * time.Millisecond))
	began := time.Now()
	code := p.stop()
	took := time.Since(began)
	if code != 0 || *prove == "long" && took > 2*time.Second {
		t.Errorf("exit code %d after %v: %s", code, took, p.logs)
	}
	o.stored(t)
	left := fileSize(database(dir))
	startIn(t, dir).stored(0)
	proved(t, "fault", fmt.Sprintf("SIGTERM while %d pastes of 600 KB are swept", n),
		"over after %v, %d MiB were left, and swept at the next start", took.Round(time.Millisecond), left>>20)
}

// TestReadOnly: on a file system that can't be written to, the server says so; check and backup do what they can.
func TestReadOnly(t *testing.T) {
	dir := smallDisk(t, 16)
	ts := startIn(t, dir)
	ts.create("x")
	ts.stop()
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := operatorCommand(t, dir, "serve"); code != exitFailed || !strings.Contains(errs, "read-only") {
		t.Errorf("serve: exit code %d, %q", code, out+errs)
	}
	if code, out, _ := operatorCommand(t, dir, "check"); code != 1 || !strings.Contains(out, "read-only") {
		t.Errorf("check: exit code %d, %q", code, out)
	}
	elsewhere := t.TempDir()
	if code, out, errs := operatorCommand(t, dir, "backup", database(elsewhere)); code != 0 {
		t.Fatalf("backup: exit code %d, %q", code, out+errs)
	}
	startIn(t, elsewhere).stored(1)
}
