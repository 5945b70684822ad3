package main

// Load and growth: what the proof asks of time, not of single requests.

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestSiegeOfLists: two searches that find nothing take turns beside two uploaders. The log stays bounded, though there
// is always a reader in it, and health stays well.
func TestSiegeOfLists(t *testing.T) {
	n, chunks := amount(0, 40_000, 300_000), int64(amount(0, 1000, 4000))
	if n == 0 {
		t.Skip("takes a while: sh deploy/prove.sh Hostile")
	}
	dir := t.TempDir()
	ts := newTestServer(t, dir, 0, "MAX_STORAGE=99GiB", "SYNC=normal")
	fill(t, ts.store, n, time.Now().Unix()+86400)
	ts.write("UPDATE pastes SET owner = ?", certAlice)
	ts.store.close()
	p := launch(t, dir, append([]string{"DATABASE=" + database(dir), "MAX_STORAGE=99GiB"}, proxied...)...)
	ts = &testServer{t: t, url: p.url, dir: dir}
	var stored, searches, most atomic.Int64
	var wg sync.WaitGroup
	content := pattern(chunkSize * 8)
	for who := range 2 {
		wg.Go(func() {
			for cursor := ""; stored.Load() < chunks; searches.Add(1) {
				headers := withCert(certAlice, fmt.Sprintf("X-Forwarded-For: 198.51.100.%d", who))
				cursor = ts.get("/pastes?q=nothing&cursor="+cursor, headers...).want(200, "").field("next_cursor")
				ts.get("/health").want(200, "")
			}
		})
		wg.Go(func() {
			for ; stored.Load() < chunks; stored.Add(8) {
				ts.post(content, from(fmt.Sprintf("203.0.113.%d", who))...).want(201, "")
				most.Store(max(most.Load(), fileSize(database(dir)+"-wal")))
			}
		})
	}
	wg.Wait()
	if most.Load() > 48<<20 || strings.Contains(p.logs.String(), "level=ERROR") {
		t.Errorf("the log grew to %d MiB: %s", most.Load()>>20, p.logs)
	}
	proved(t, "hostile", fmt.Sprintf("two searches without a hit of an owner of %d pastes beside two uploaders", n),
		"%d searches, %d MiB stored; the log was %d MiB at most, health well",
		searches.Load(), stored.Load()/4, most.Load()>>20)
}

// TestLoad: everything that writes, for minutes, then SIGTERM amid it: no refusal, nothing acknowledged lost.
func TestLoad(t *testing.T) {
	long := time.Duration(amount(0, 3, 120)) * time.Second
	if long == 0 {
		t.Skip("takes a while: sh deploy/prove.sh Load")
	}
	o := newOracle(t, t.TempDir())
	p, ts := o.launch(t)
	wait := o.load(ts)
	time.Sleep(long)
	code := p.stop()
	wait()
	if code != 0 {
		t.Errorf("exit code %d: %s", code, p.logs)
	}
	_, ts = o.launch(t)
	o.check(ts)
	proved(t, "load", fmt.Sprintf("%v of all that writes on six connections, then SIGTERM", long),
		"%s; none lost, none refused", o.acknowledged())
}

// TestGrowth: what a thousand times as many pastes cost.
func TestGrowth(t *testing.T) {
	most := amount(0, 20_000, 1_000_000)
	if most == 0 {
		t.Skip("takes a while: sh deploy/prove.sh Load")
	}
	env := append([]string{"SYNC=normal", "CACHE=0", "MAX_STORAGE=99GiB", "SWEEP=1h"}, proxied...)
	names, took := []string{"create", "read", "list", "sweep", "start"}, [5][2][]float64{}
	clocked := func(what, side int, f func()) {
		began := time.Now()
		f()
		took[what][side] = append(took[what][side], float64(time.Since(began)))
	}
	var sides [2]*testServer
	for side, n := range []int{1000, most} {
		ts := startIn(t, t.TempDir(), env...)
		fill(t, ts.store, n, time.Now().Unix()+86400)
		ts.write("UPDATE pastes SET owner = ?", certAlice)
		ts.sweep()
		sides[side] = ts
	}
	for round := range amount(0, 20, 200) {
		for side, ts := range sides {
			id := fill(t, ts.store, sweepRows, time.Now().Unix()-int64(1+round))
			clocked(0, side, func() { id = ts.create(fresh(1024)).ID })
			clocked(1, side, func() { ts.get("/"+id+"/raw").want(200, "") })
			clocked(2, side, func() { ts.get("/pastes", withCert(certAlice)...).want(200, "") })
			clocked(3, side, func() { ts.sweep() })
		}
	}
	for side, ts := range sides {
		ts.stop()
		for range 5 {
			clocked(4, side, func() { launch(t, ts.dir, append(env, "DATABASE="+database(ts.dir))...).stop() })
		}
	}
	ratios := ""
	for what, name := range names {
		ratio := median(took[what][1]) / median(took[what][0])
		if ratios += fmt.Sprintf("%s %.2f, ", name, ratio); ratio > 2 {
			t.Errorf("%s takes %.2f of the time", name, ratio)
		}
	}
	proved(t, "load", fmt.Sprintf("%d pastes against 1,000: the time of each", most), "%s of it", strings.Trim(ratios, ", "))
}
