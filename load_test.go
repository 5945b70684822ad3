package main

import (
	"fmt"
	"io"
	"net/http"
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
			}
		})
		wg.Go(func() {
			for ; stored.Load() < chunks; stored.Add(8) {
				ts.post(content, from(fmt.Sprintf("203.0.113.%d", who))...).want(201, "")
				most.Store(max(most.Load(), fileSize(database(dir)+"-wal")))
			}
		})
	}
	wg.Go(func() {
		for stored.Load() < chunks {
			if res, err := http.Get(p.url + "/health"); err != nil || res.StatusCode != 200 {
				t.Errorf("health: %v, %v", res, err)
			} else {
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	wg.Wait()
	if most.Load() > 48<<20 || strings.Contains(p.logs.String(), "level=ERROR") {
		t.Errorf("the log grew to %d MiB: %s", most.Load()>>20, p.logs)
	}
	proved(t, "hostile", fmt.Sprintf("two searches without a hit of an owner of %d pastes beside two uploaders", n),
		"%d searches, %d MiB stored; the log was %d MiB at most, health well",
		searches.Load(), stored.Load()/4, most.Load()>>20)
}
