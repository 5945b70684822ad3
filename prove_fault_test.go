//go:build linux

package main

// Faults of the disk, the machine and the files: the real process goes through a scripted session while something fails, and the
// oracle of the crashes tells whether each ended in a clear error or a recovery, and nothing silently in a loss.

import (
	"database/sql"
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

// take returns something of a kind that exists and that nothing else is done with until the next check.
func (o *oracle) take(kind string) *thing {
	i := slices.IndexFunc(o.idle, func(x *thing) bool { return x.kind() == kind })
	x := o.idle[i]
	o.idle = slices.Delete(o.idle, i, i+1)
	return x
}

// stock makes what a session needs and what is not there.
func (o *oracle) stock(ts *testServer) {
	have := map[string]int{}
	for _, x := range o.idle {
		have[x.kind()]++
	}
	for i := range 3 - have["paste"] {
		o.create(ts, i, 3000)
	}
	for range 1 - have["burn"] {
		o.create(ts, 0, chunkSize+500, "X-Burn-After-Read: true")
	}
	for range 1 - have["short"] {
		o.shorten(ts)
	}
	for range 1 - have["line"] {
		o.enrol(ts, nil)
	}
}

// session does everything that writes once, then reads all that is there; false: the server is gone.
func (o *oracle) session(ts *testServer) bool {
	var line *thing
	cut := o.cut
	for _, do := range []func() bool{
		func() bool { return o.create(ts, 0, 2000) },
		func() bool { return o.create(ts, 1, 2*chunkSize+100) },
		func() bool { return o.create(ts, 2, 500) },
		func() bool { return o.shorten(ts) },
		func() bool { return o.enrol(ts, nil) },
		func() bool { return o.update(ts, o.take("paste"), chunkSize+100) },
		func() bool { return o.remove(ts, o.take("paste")) },
		func() bool { return o.burn(ts, o.take("burn")) },
		func() bool { return o.remove(ts, o.take("short")) },
		func() bool { line = o.take("line"); return o.enrol(ts, line) },
		func() bool { return o.revoke(ts, line) },
	} {
		if do(); o.cut > cut {
			return false
		}
	}
	for _, x := range o.idle {
		o.read(ts, x)
	}
	return true
}

// inject lets strace make calls on the database's files fail. What it returns ends that, and tells the number of the call that failed
// first (0: none) and how many there were.
func (o *oracle) inject(t testing.TB, p *process, calls, fault string) (end func() (hit, all int)) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "calls")
	args := []string{"-f", "-qq", "-e", "signal=none", "-o", log, "-e", "trace=" + calls, "-e", "inject=" + calls + ":" + fault, "-p", fmt.Sprint(p.cmd.Process.Pid)}
	for _, suffix := range []string{"", "-wal", ".revoked"} {
		args = append(args, "-P", database(o.dir)+suffix)
	}
	cmd := exec.Command(need(t, "strace"), args...)
	errs := new(lockedBuffer)
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
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
		if time.Since(began) > 10*time.Second {
			t.Fatalf("strace can't attach: %s", errs)
		}
	}
	return func() (hit, all int) {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
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

// TestProveFaultFull: a disk of 8 MiB that gets full after every page that a session writes, one after the other.
func TestProveFaultFull(t *testing.T) {
	long := proving(t)
	var o *oracle
	sessions, restarts := 0, 0
	defer func() {
		if t.Skipped() {
			if os.Getenv("CI") == "true" {
				t.Error("no small disk could be mounted")
			}
			return
		}
		proved(t, "fault", fmt.Sprintf("a disk of 8 MiB gets full some pages later each time, in %d sessions of all that writes, until all fits", sessions),
			"%s; refused %v: nothing of it stored, reads went on, over by itself; %d times kill -9 and a start on the full disk, which served", o.acknowledged(), o.no, restarts)
	}()
	o = newOracle(smallDisk(t, 8), "CACHE=0")
	filler := filepath.Join(o.dir, "filler")
	p, ts := o.launch(t)
	for free, step := int64(0), int64(0); ; free += step {
		if step = 4096; !long {
			step = max(step, free/4096/4*4096)
		}
		o.check(ts)
		for _, x := range slices.Clone(o.idle) {
			if x.kind() == "paste" && len(o.idle) > 8 {
				o.remove(ts, x)
			}
		}
		o.check(ts)
		o.stock(ts)
		checkpoint(t, o.dir) // of a log that is not cut the room would be used again
		if err := os.WriteFile(filler, make([]byte, max(0, freeSpace(o.dir)-free)), 0o600); err != nil {
			t.Fatal(err)
		}
		before := o.no["storage_full"]
		o.tough = []int{503}
		if !o.session(ts) {
			t.Fatalf("the server ended: %s", p.logs)
		}
		o.tough, sessions = nil, sessions+1
		if sessions%10 == 0 {
			p.kill()
			restarts++
			p = launch(t, o.dir, o.env...)
			ts.url = p.url
			o.check(ts)
		}
		os.Remove(filler)
		if o.no["storage_full"] == before {
			break
		}
		if t.Failed() {
			t.Fatalf("with %d bytes free: %s", free, p.logs)
		}
	}
	if len(o.no) != 1 {
		t.Errorf("refused: %v", o.no)
	}
	// With the reserve there is room for what frees some.
	o.check(ts)
	o.stock(ts)
	told, no := maps.Clone(o.told), o.no["storage_full"]
	p.kill()
	_, ts = o.launch(t, "MIN_FREE=8MiB")
	o.check(ts)
	o.tough = []int{503}
	o.session(ts)
	if o.told["deletes"] != told["deletes"]+2 || o.told["burns"] != told["burns"]+1 || o.told["revocations"] != told["revocations"]+1 || o.told["creates"] != told["creates"] || o.no["storage_full"] != no+5 {
		t.Errorf("below MIN_FREE: %v after %v, %v", o.told, told, o.no)
	}
	o.tough = nil
	o.check(ts)
}

// checkpoint moves the write-ahead log into the database and cuts it.
func checkpoint(t testing.TB, dir string) {
	t.Helper()
	db := must(sql.Open("sqlite", dsn(database(dir), "rw")))
	defer db.Close()
	for busy, pages, moved := 1, 0, 0; busy != 0; {
		if err := db.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved); err != nil {
			t.Fatal(err)
		}
	}
}

// TestProveFaultDisk: the n-th call of each thread on the database's files fails, n = 1, 2, ... until a whole session has none; the
// stop with its checkpoint belongs to it. (strace counts by thread; Go moves the writer from one to another.)
func TestProveFaultDisk(t *testing.T) {
	long := proving(t)
	for _, c := range []struct {
		what, calls, errno string
		step, passes       int // of the short form, of the long
	}{
		{"fsync of database or log", "fdatasync", "EIO", 2, 20}, {"fsync of the revocation file", "fsync", "EIO", 1, 5},
		{"write to database or log", "pwrite64,ftruncate", "EIO", 90, 3}, {"write to the revocation file", "write", "EIO", 1, 5},
		{"write", "pwrite64,write", "ENOSPC", 90, 3},
	} {
		o := newOracle(t.TempDir(), "SWEEP=1h")
		ends, hits, most := tally{}, map[int]bool{}, 0
		if long {
			c.step = 1
		} else {
			c.passes = 1
		}
		for range c.passes {
			for n, hit := 1+rand.IntN(c.step), 1; hit > 0; n += c.step {
				o.tough = nil
				p, ts := o.launch(t)
				o.check(ts)
				o.stock(ts)
				o.tough = []int{500, 503}
				var calls int
				no, end := maps.Clone(o.no), o.inject(t, p, c.calls, fmt.Sprintf("error=%s:when=%d", c.errno, n))
				alive := o.session(ts)
				code := p.stop()
				hit, calls = end()
				hits[hit], most = true, max(most, calls)
				refused, log := !maps.Equal(no, o.no), p.logs.String()
				switch {
				case hit == 0 && alive && code == 0 && !refused:
				case c.errno == "EIO" && code == exitStorage && strings.Contains(log, "the disk failed"):
					ends["exit 74"]++
				case c.errno == "ENOSPC" && alive && code == 0 && refused:
					ends["503 and served on"]++
				case c.errno == "ENOSPC" && alive && code == exitFailed && strings.Contains(log, "flaskpaste: the storage is full"):
					ends["the stop failed with storage is full"]++
				case alive && code == 0 && !refused && !strings.Contains(c.what, "revocation"): // a checkpoint's, which is tried again
					ends["unnoticed"]++
				default:
					t.Fatalf("call %d with %s: exit code %d, refused %v: %s", hit, c.errno, code, o.no, log)
				}
				testClient.CloseIdleConnections()
			}
		}
		o.tough = nil
		_, ts := o.launch(t)
		o.check(ts)
		delete(o.no, "storage_full")
		if len(o.no) > 0 {
			t.Errorf("refused with %v", o.no)
		}
		proved(t, "fault", fmt.Sprintf("%s fails with %s: the n-th of each thread, n from 1 in steps of %d, %d passes", c.what, c.errno, c.step, c.passes),
			"%d different ones of up to %d calls were hit; ends: %v; %s, none lost, none undone", len(hits)-1, most, ends, o.acknowledged())
	}
}

// prlimit sets a limit of p, its soft part alone.
func prlimit(t testing.TB, p *process, name string, value int64) {
	t.Helper()
	if out, err := exec.Command(need(t, "prlimit"), "--pid", fmt.Sprint(p.cmd.Process.Pid), fmt.Sprintf("--%s=%d:", name, value)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestProveFaultDescriptors: while a session runs there are no descriptors left, or one, or two; after two seconds there are.
func TestProveFaultDescriptors(t *testing.T) {
	proving(t)
	o := newOracle(t.TempDir(), "SWEEP=1h")
	p, ts := o.launch(t)
	defer func() {
		proved(t, "fault", "out of file descriptors in a session: none left, one, ... seven (prlimit)", "%s; refused %v: clear errors, who waited was served", o.acknowledged(), o.no)
	}()
	for n := 0; n < 8 || n < 40 && len(o.no) == 0; n++ { // the one to be refused may come after the two seconds, or find a descriptor that was about to be closed
		spare := n % 8
		o.check(ts)
		o.stock(ts)
		testClient.CloseIdleConnections()
		ts.get("/health").want(200, "")
		used := len(must(os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))))
		prlimit(t, p, "nofile", int64(used+spare))
		freed := make(chan struct{})
		timer := time.AfterFunc(2*time.Second, func() { defer close(freed); prlimit(t, p, "nofile", 1024) })
		o.tough = []int{500, 503}
		if !o.session(ts) {
			t.Fatalf("with %d to spare the server ended or cut an answer: %s", spare, p.logs)
		}
		o.tough = nil
		if timer.Stop() {
			prlimit(t, p, "nofile", 1024)
		} else {
			<-freed
		}
	}
	o.check(ts)
	if len(o.no) == 0 {
		t.Error("nothing was refused")
	}
}

// memoryGroup puts p into a cgroup that lets it have so much more memory, where this machine allows that.
func memoryGroup(t testing.TB, p *process, more int64) bool {
	t.Helper()
	for _, c := range [][2]string{{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, {"/sys/fs/cgroup", "memory.max"}} {
		dir := filepath.Join(c[0], fmt.Sprint("flaskpaste-", p.cmd.Process.Pid))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { os.Remove(dir) })
		if exists(filepath.Join(dir, c[1])) && os.WriteFile(filepath.Join(dir, c[1]), fmt.Append(nil, more), 0) == nil &&
			os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, p.cmd.Process.Pid), 0) == nil {
			return true
		}
	}
	return false
}

// TestProveFaultMemory: under load memory runs out, by a cgroup's limit (the kernel kills) and by RLIMIT_DATA (allocations fail).
func TestProveFaultMemory(t *testing.T) {
	rounds := 4
	if proving(t) {
		rounds = 60
	}
	o := newOracle(t.TempDir())
	ends := tally{}
	defer func() {
		proved(t, "fault", fmt.Sprintf("memory runs out under load, %d times", rounds), "%s; ends: %v; none lost, none undone", o.acknowledged(), ends)
	}()
	for round := range rounds {
		p, ts := o.launch(t)
		o.check(ts)
		o.tough = []int{400, 500, 503} // 400: the body could not be read
		wait := o.load(ts)
		time.Sleep(100*time.Millisecond + rand.N(400*time.Millisecond))
		how := "cgroup" // where none can be made, the row has RLIMIT_DATA alone
		if round%2 == 1 || !memoryGroup(t, p, 1<<20+rand.Int64N(12<<20)) {
			var kib int64
			status := readFile(t, fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
			fmt.Sscan(strings.TrimSpace(status[strings.Index(status, "VmData:")+7:]), &kib)
			prlimit(t, p, "data", kib<<10+rand.Int64N(8<<20))
			how = "RLIMIT_DATA"
		}
		select {
		case <-p.done:
			how += fmt.Sprint(", ", p.cmd.ProcessState)
		case <-time.After(time.Second):
			how += ", served on"
		}
		p.kill()
		wait()
		ends[how]++
		o.tough = nil
		testClient.CloseIdleConnections()
	}
	_, ts := o.launch(t)
	o.check(ts)
}

// TestProveFaultClock: the wall clock of a running server jumps, and comes back; or a server starts under a wrong one.
func TestProveFaultClock(t *testing.T) {
	const day = 24 * time.Hour
	jumps := []time.Duration{40 * day, -40 * day, 3650 * day, -time.Duration(time.Now().Unix()) * time.Second}
	if proving(t) {
		jumps = append(jumps, time.Hour, -time.Hour, 23*time.Hour, -23*time.Hour, 25*time.Hour, -25*time.Hour, 88*day, -88*day, -3650*day)
	}
	t.Run("ways", func(t *testing.T) {
		for _, jump := range jumps {
			t.Run(jump.String(), func(t *testing.T) {
				t.Parallel()
				o := newOracle(t.TempDir())
				ts := startIn(t, o.dir, o.env...)
				o.stock(ts)
				o.check(ts)
				ts.clock.advance(jump)
				time.Sleep(1300 * time.Millisecond) // the sweep had its turn
				for _, x := range o.idle {
					if got := o.value(ts, x); got != x.may[0] && got != gone && !strings.HasPrefix(got, "certificate_") {
						t.Errorf("%s is %s, not %s", x.key, got, x.may[0])
					}
				}
				p := ts.create("of a wrong time") // and away with it: a newest paste of that time would make it look right
				ts.do("DELETE", "/"+p.ID, nil, "X-Delete-Token: "+p.DeleteToken).want(200, "")
				ts.clock.advance(-jump)
				o.check(ts)
				ts.stop()
				if jump < -day || jump > 90*day { // less than the longest life is what a machine that was off sees
					ts = startAt(t, o.dir, jump, o.env...)
					time.Sleep(300 * time.Millisecond)
					ts.stop()
				}
				o.check(startIn(t, o.dir, o.env...))
			})
		}
	})
	proved(t, "fault", fmt.Sprintf("the clock jumps by an hour to ten years and comes back, %d ways, under a running server and before a start", len(jumps)), "nothing swept, no other content, everything there again")
}

// TestProveFaultSecondServer: others try to serve the same file under load, by its name and through a link.
func TestProveFaultSecondServer(t *testing.T) {
	proving(t)
	o := newOracle(t.TempDir())
	p, ts := o.launch(t)
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(database(o.dir), link); err != nil {
		t.Fatal(err)
	}
	wait := o.load(ts)
	for _, path := range []string{database(o.dir), link, database(o.dir), link} {
		second := tryLaunch(t, t.TempDir(), append(slices.Clone(o.env), "DATABASE="+path)...)
		if second.url != "" || second.cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(second.logs.String(), "another server uses the database") {
			t.Errorf("on %s: %s", path, second.logs)
		}
		second.kill()
	}
	p.kill()
	wait()
	_, ts = o.launch(t)
	o.check(ts)
	proved(t, "fault", "four times a second server on the file under load, by its name and through a symbolic link", "refused in one line; %s by the first, none lost", o.acknowledged())
}

// model fills a database with something of every kind and size, ends its server in one way or the other, and returns its files.
func (o *oracle) model(t testing.TB, kill bool) map[string][]byte {
	p, ts := o.launch(t)
	for i, size := range []int{9, 100, 3000, 8000, 30000, hotSize + 1, chunkSize, 2*chunkSize + 5} {
		o.create(ts, i, size)
	}
	o.check(ts)
	checkpoint(t, o.dir)
	o.stock(ts)
	o.update(ts, o.take("paste"), 5000)
	o.remove(ts, o.take("paste"))
	o.revoke(ts, o.take("line"))
	o.check(ts)
	o.stock(ts)
	if kill {
		p.kill()
	} else if code := p.stop(); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.logs)
	}
	files := map[string][]byte{}
	for _, suffix := range []string{"", "-wal", ".revoked", ".lock"} {
		if b, err := os.ReadFile(database(o.dir) + suffix); err == nil {
			files[suffix] = b
		}
	}
	return files
}

// serve starts a server on damaged files and tells what became of what was there. lossy: they may be those of an earlier moment.
func (o *oracle) serve(t testing.TB, what string, files map[string][]byte, lossy bool) (end string) {
	t.Helper()
	dirs := [2]string{t.TempDir(), t.TempDir()} // what check opens is recovered when it closes it
	for suffix, b := range files {
		for _, dir := range dirs {
			writeFile(t, database(dir)+suffix, b)
		}
	}
	code, found, _ := runs(t, dirs[0], "check")
	p := tryLaunch(t, dirs[1], append(slices.Clone(o.env), "PKI_ENABLED=0", "DATABASE="+database(dirs[1]))...)
	defer p.kill()
	if p.url == "" {
		if log := p.logs.String(); p.cmd.ProcessState.ExitCode() != exitFailed || !strings.HasPrefix(log, "flaskpaste: ") {
			t.Errorf("%s: exit code %d, %s", what, p.cmd.ProcessState.ExitCode(), log)
		}
		return "refused with an error"
	}
	ts := &testServer{t: t, url: p.url}
	end = "all there"
	for _, x := range o.things {
		switch got := o.value(ts, x); {
		case got == x.may[0]:
		case got == "" || got[0] == '5':
			if end == "all there" {
				end = "errors"
			}
		case got != gone && got != "a pseudonym" && !o.tried[got]:
			t.Errorf("%s: %s is %s, not %s", what, x.key, got, x.may[0])
		case code != 0 || strings.Contains(p.logs.String(), "log is gone"):
			end = "an earlier state or missing, and reported"
		case lossy:
			end = "an earlier state"
		default:
			t.Errorf("%s: %s is %s, not %s; check says %q", what, x.key, got, x.may[0], found)
		}
	}
	select {
	case <-p.done:
		t.Errorf("%s: the server ended: %s", what, p.logs)
	default:
	}
	return end
}

// TestProveFaultDamage: files that were cut, changed or deleted while no server ran.
func TestProveFaultDamage(t *testing.T) {
	times := 4
	if proving(t) {
		times = 400
	}
	r := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for _, killed := range []bool{false, true} {
		o := newOracle(t.TempDir(), "SWEEP=1h")
		good := o.model(t, killed)
		for _, c := range []struct {
			what   string
			damage func(files map[string][]byte)
		}{
			{"the database cut", func(f map[string][]byte) { f[""] = f[""][:r.IntN(len(f[""]))] }},
			{"a byte of the database flipped", func(f map[string][]byte) { f[""][r.IntN(len(f[""]))] ^= byte(1 + r.IntN(255)) }},
			{"a byte of a table or index flipped", func(f map[string][]byte) {
				for {
					at := r.IntN(len(f[""]))
					if kind := f[""][at/pageSize*pageSize]; f[""][at] != 0 && at > pageSize && (kind == 2 || kind == 5 || kind == 10 || kind == 13) {
						f[""][at] ^= byte(1 + r.IntN(255))
						return
					}
				}
			}},
			{"a page of the database overwritten", func(f map[string][]byte) {
				at := r.IntN(len(f[""])/pageSize) * pageSize
				copy(f[""][at:], strings.Repeat("\xa5", pageSize))
			}},
			{"the log deleted", func(f map[string][]byte) { delete(f, "-wal") }},
			{"the log cut", func(f map[string][]byte) { f["-wal"] = f["-wal"][:r.IntN(len(f["-wal"]))] }},
			{"a byte of the log flipped", func(f map[string][]byte) { f["-wal"][r.IntN(len(f["-wal"]))] ^= byte(1 + r.IntN(255)) }},
		} {
			if strings.Contains(c.what, "log") && !killed {
				continue
			}
			ends := tally{}
			for range times {
				files := map[string][]byte{}
				for suffix, b := range good {
					files[suffix] = slices.Clone(b)
				}
				c.damage(files)
				ends[o.serve(t, c.what, files, strings.Contains(c.what, "log") && c.what != "the log deleted")]++
			}
			state := "after a clean stop"
			if killed {
				state = "after kill -9"
			}
			proved(t, "fault", fmt.Sprintf("%s %s, %d times", c.what, state, times), "%v", ends)
		}
	}
}
