package main

// The proof under load: mixed traffic at saturation against the real process, and every operation's time with many pastes in
// the database against that with 1,000.

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// clientAt is a client whose address is 127.0.x.y, so that limits tell it from others.
func clientAt(x, y byte) *http.Client {
	return &http.Client{Timeout: 30 * time.Second, CheckRedirect: testClient.CheckRedirect, Transport: &http.Transport{DisableCompression: true, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, x, y)}}).DialContext}}
}

// vitals are what a process holds, and what it has used.
type vitals struct {
	files, goroutines int
	cpu               time.Duration
}

// vitals asks Linux for the descriptors and the program's own metrics for the rest, over one connection of c.
func (p *process) vitals(c *http.Client) (v vitals) {
	p.t.Helper()
	res, err := c.Get(p.url + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	res.Body.Close()
	files, errFiles := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	families, errText := readExposition(string(text))
	if err != nil || errFiles != nil || errText != nil {
		p.t.Fatal(err, errFiles, errText)
	}
	one := func(name string) float64 { return families[name].samples[name] }
	return vitals{len(files), int(one("go_goroutines")), time.Duration(one("process_cpu_seconds_total") * float64(time.Second))}
}

// released waits until the process holds no more than it did before, and returns what it then holds.
func (p *process) released(c *http.Client, before vitals, patience time.Duration) (v vitals) {
	p.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		if v = p.vitals(c); v.files <= before.files && v.goroutines <= before.goroutines {
			return v
		}
		if time.Now().After(end) {
			p.t.Errorf("after %v: %d descriptors and %d goroutines, before %d and %d", patience, v.files, v.goroutines, before.files, before.goroutines)
			return v
		}
	}
}

// drift is by how much a line through samples rises from the first to the last, and how much of that may be chance: three
// standard errors, of the means of ten stretches, because neighbours in a garbage collector's sawtooth are not independent.
func drift(samples []float64) (rise, noise float64) {
	const n, sxx = 10.0, 82.5 // 10 abscissae 0..9 and their sum of squares about the mean
	var y [n]float64
	mean, sxy, rest := 0.0, 0.0, 0.0
	for i := range y {
		part := samples[i*len(samples)/n : (i+1)*len(samples)/n]
		for _, s := range part {
			y[i] += s / float64(len(part))
		}
		mean += y[i] / n
	}
	for i, v := range y {
		sxy += (float64(i) - 4.5) * (v - mean)
	}
	slope := sxy / sxx
	for i, v := range y {
		rest += math.Pow(v-mean-slope*(float64(i)-4.5), 2)
	}
	return slope * n, 3 * math.Sqrt(rest/(n-2)/sxx) * n
}

// ---- mixed traffic ----

// aPaste is what a client of the mix knows of a paste.
type aPaste struct {
	id, raw, token, etag string
	sum                  [32]byte
	burns                bool
}

// mix is 32 clients with an address each: 80% reads, 15% creations, 5% of everything else.
type mix struct {
	t   *testing.T
	url string

	mu       sync.Mutex
	shared   []aPaste // anybody's to read, nobody's to delete
	made     uint64
	times    map[string][]float64 // milliseconds by kind: read, create, other
	statuses map[int]int
	wrong    []string
}

// run keeps all clients busy for d, and calls watch every 100 ms meanwhile. Their connections are closed in the end.
func (m *mix) run(d time.Duration, watch func()) {
	m.times, m.statuses = map[string][]float64{}, map[int]int{}
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for i := range 32 {
		wg.Go(func() {
			c := &mixClient{mix: m, http: clientAt(1, byte(i+1)), rng: rand.New(rand.NewPCG(8, uint64(i))), times: map[string][]float64{}, statuses: map[int]int{}}
			for time.Now().Before(end) {
				c.step()
			}
			c.http.CloseIdleConnections()
			m.mu.Lock()
			defer m.mu.Unlock()
			m.wrong = append(m.wrong, c.wrong...)
			for k, v := range c.times {
				m.times[k] = append(m.times[k], v...)
			}
			for k, v := range c.statuses {
				m.statuses[k] += v
			}
		})
	}
	for ; time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		watch()
	}
	wg.Wait()
}

type mixClient struct {
	*mix
	http     *http.Client
	rng      *rand.Rand
	own      []aPaste // to change and delete
	times    map[string][]float64
	statuses map[int]int
	wrong    []string
}

// call sends one request and returns the body of its answer. Any status but want, and any 503 that does not say when to come
// back, is noted as wrong; nil: there was no good answer.
func (c *mixClient) call(kind, method, path string, body []byte, want int, headers ...string) []byte {
	req, err := http.NewRequest(method, c.url+path, bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Set(k, v)
	}
	begun := time.Now()
	var text []byte
	res, err := c.http.Do(req)
	if err == nil {
		text, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	if err != nil {
		c.note("%s %s: %v", method, path, err)
		return nil
	}
	c.times[kind] = append(c.times[kind], float64(time.Since(begun))/1e6)
	c.statuses[res.StatusCode]++
	switch {
	case res.StatusCode == 503 && res.Header.Get("Retry-After") != "" && bytes.Contains(text, []byte(`"code": "busy"`)):
		return nil
	case res.StatusCode != want:
		c.note("%s %s: status %d, want %d: %.200s", method, path, res.StatusCode, want, text)
		return nil
	}
	return text
}

func (c *mixClient) note(format string, args ...any) {
	if len(c.wrong) < 3 {
		c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
	}
}

// create stores a content whose size is log-normal: half are below 4 KiB, one in 2,000 or so is 5 MiB.
func (c *mixClient) create(kind string, headers ...string) (p aPaste, ok bool) {
	c.mu.Lock()
	c.made++
	n := c.made
	c.mu.Unlock()
	content := benchContent(n, min(16+int(4096*math.Exp(2*c.rng.NormFloat64())), 5<<20))
	p.sum = sha256.Sum256(content)
	var made created
	if json.Unmarshal(c.call(kind, "POST", "/", content, 201, headers...), &made) != nil {
		return p, false
	}
	p.id, p.raw, p.token, p.etag = "/"+made.ID, made.Raw, made.DeleteToken, `"`+made.SHA256+`"`
	return p, true
}

// read wants the very content.
func (c *mixClient) read(kind string, p aPaste) {
	if text := c.call(kind, "GET", p.raw, nil, 200); text != nil && sha256.Sum256(text) != p.sum {
		c.note("GET %s: another content of %d bytes", p.raw, len(text))
	}
}

func (c *mixClient) step() {
	c.mu.Lock()
	var p aPaste
	if len(c.shared) > 0 {
		p = c.shared[c.rng.IntN(len(c.shared))]
	}
	c.mu.Unlock()
	switch roll := c.rng.IntN(100); {
	case roll < 15 || p.id == "":
		switch c.rng.IntN(4) {
		case 0: // to be swept while the load goes on
			c.create("create", "X-Expiry: 2s")
		case 1:
			burns := c.rng.IntN(2) == 0
			if p, ok := c.create("create", "X-Burn-After-Read: "+strconv.FormatBool(burns)); ok {
				p.burns = burns
				c.own = append(c.own, p)
			}
		default:
			if p, ok := c.create("create", "X-Expiry: 1h"); ok {
				c.mu.Lock()
				if len(c.shared) < 500 {
					c.shared = append(c.shared, p)
				} else {
					c.shared[c.rng.IntN(len(c.shared))] = p
				}
				c.mu.Unlock()
			}
		}
	case roll < 95:
		c.read("read", p)
	default:
		c.other(p)
	}
}

// other is one of the rest: metadata, HEAD, conditional and partial reads, what is not there, refusals, short URLs, and the
// change, the burning or the deletion of a paste of one's own.
func (c *mixClient) other(p aPaste) {
	const kind = "other"
	switch roll := c.rng.IntN(12); {
	case roll < 4 && len(c.own) > 0:
		own, token := c.own[0], "X-Delete-Token: "+c.own[0].token
		c.own = c.own[1:]
		if own.burns && roll < 2 {
			c.read(kind, own)
			c.call(kind, "GET", own.raw, nil, 404)
		} else if own.burns || roll == 0 {
			c.call(kind, "DELETE", own.id, nil, 200, token)
		} else if c.call(kind, "PUT", own.id, []byte("changed"), 200, token) != nil {
			own.sum = sha256.Sum256([]byte("changed"))
			c.read(kind, own)
		}
	case roll < 5:
		c.call(kind, "HEAD", p.raw, nil, 200)
	case roll < 6:
		c.call(kind, "GET", p.raw, nil, 304, "If-None-Match: "+p.etag)
	case roll < 7:
		c.call(kind, "GET", p.raw, nil, 206, "Range: bytes=0-15")
	case roll < 8:
		c.call(kind, "GET", "/0123456789abcdef/raw", nil, 404)
	case roll < 9:
		c.call(kind, "POST", "/", []byte("x"), 400, "X-Expiry: never")
	case roll < 10:
		var short struct{ ID string }
		if json.Unmarshal(c.call(kind, "POST", "/s", []byte(`{"url": "https://example.org/"}`), 201, "Content-Type: application/json"), &short) == nil {
			c.call(kind, "GET", "/s/"+short.ID, nil, 302)
		}
	case roll < 11:
		c.call(kind, "GET", "/pastes", nil, 401)
	default:
		c.call(kind, "GET", p.id, nil, 200)
	}
}

// TestProveLoadMixed: at saturation everybody gets his answer, the memory stays where it is, and nothing is left behind.
func TestProveLoadMixed(t *testing.T) {
	d := 20 * time.Second
	if proving(t) {
		d = 2 * time.Minute
	}
	p := launch(t, t.TempDir(), "METRICS_ALLOW=127.0.0.1", "MAX_ANON=5MiB", "MAX_STORAGE=999GiB", "SWEEP=2s", "CACHE=4MiB") // a cache that is full before the measuring begins
	pid, observer := p.cmd.Process.Pid, clientAt(0, 1)
	m, idle := &mix{t: t, url: p.url}, p.vitals(observer)
	m.run(2*time.Second, func() {}) // opens what stays open: the readers' connections to the database
	before := p.released(observer, vitals{math.MaxInt, idle.goroutines, 0}, 10*time.Second)
	var resident []float64
	m.run(d, func() { resident = append(resident, residentMiB(t, pid, "VmRSS")) })
	half := resident[len(resident)/2:]
	rise, noise := drift(half)
	if bound := max(noise, half[0]/10); rise > bound { // a garbage collector wanders; a tenth is 500 bytes a request in the short form
		t.Errorf("the resident memory rises by %.1f MiB in the second half, more than %.1f", rise, bound)
	}
	after := p.released(observer, before, 15*time.Second)
	total := 0
	for status, n := range m.statuses {
		if total += n; status >= 500 && status != 503 {
			t.Errorf("%d answers %d", n, status)
		}
	}
	for _, w := range m.wrong[:min(len(m.wrong), 10)] {
		t.Error(w)
	}
	if len(m.times["read"]) < 1000 || m.statuses[503] > total/10 {
		t.Errorf("that is no load: %v", m.statuses)
	}
	p99 := map[string]float64{}
	for kind, ms := range m.times {
		slices.Sort(ms)
		p99[kind] = quantile(ms, 0.99)
	}
	if code := p.stop(); code != 0 || strings.Contains(p.logs.String(), "level=ERROR") {
		t.Errorf("exit code %d: %s", code, p.logs)
	}
	proved(t, "load", fmt.Sprintf("%v at saturation, 32 clients: %d reads, %d creations to 5 MiB, %d others", d, len(m.times["read"]), len(m.times["create"]), len(m.times["other"])),
		"%.0f requests/s, no 5xx but %d deliberate 503; p99 %.0f ms read, %.0f ms create, %.0f ms other; resident %.0f MiB, drift %+.1f MiB in the second half (noise %.1f); descriptors %d to %d, goroutines %d to %d",
		float64(total)/d.Seconds(), m.statuses[503], p99["read"], p99["create"], p99["other"], half[len(half)-1], rise, noise, before.files, after.files, before.goroutines, after.goroutines)
}

// ---- scale ----

// TestProveLoadScale: nothing that is done to one paste takes longer for the others' being there.
func TestProveLoadScale(t *testing.T) {
	n := 20_000
	if proving(t) {
		n = 1_000_000
	}
	counts, dirs, ids := [2]int{n, 1000}, [2]string{t.TempDir(), t.TempDir()}, [2]string{}
	tomorrow := time.Now().Unix() + 86400
	begun := time.Now()
	for i, dir := range dirs {
		st, err := openStore(storeOptions{path: database(dir), serving: true, checkpoint: true, quota: 1 << 40, log: slog.New(slog.DiscardHandler), fatal: func(err error) { panic(err) }, now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = fill(t, st, counts[i], tomorrow)
		if err := st.close(); err != nil {
			t.Fatal(err)
		}
	}
	filled := time.Since(begun)
	var ms [2]map[string][]float64 // of the many, of the thousand
	ms[0], ms[1] = map[string][]float64{}, map[string][]float64{}
	// both measures the two in turns, so that whatever else this machine does meets both, and a ratio that is too large up to three
	// times: what the others' being there costs is there each time. afterwards is not measured.
	both := func(name string, rounds int, do func(i int), afterwards ...func()) {
		for range 3 {
			ms[0][name], ms[1][name] = nil, nil
			for round := range 2 * rounds {
				i := (round + round/2) % 2
				begun := time.Now()
				do(i)
				ms[i][name] = append(ms[i][name], float64(time.Since(begun))/1e6)
				for _, f := range afterwards {
					f()
				}
			}
			if median(ms[0][name]) <= 1.5*median(ms[1][name]) {
				break
			}
		}
	}
	var p *process
	both("start to first 200", 9, func(i int) {
		p = launch(t, dirs[i], "DATABASE="+database(dirs[i]))
		res, err := http.Get(p.url + "/" + ids[i] + "/raw")
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("the first answer: %v, %v", res, err)
		}
		res.Body.Close()
	}, func() {
		if code := p.stop(); code != 0 {
			t.Fatalf("exit code %d: %s", code, p.logs)
		}
	})
	// In this process, for the sweep's sake; no cache, so that a read is one of the database.
	var servers [2]*testServer
	var conns [2]*rawConn
	alice, admin := selfSigned(t, "alice"), selfSigned(t, "admin")
	for i, dir := range dirs {
		servers[i] = startIn(t, dir, append(slices.Clone(proxied), "CACHE=0", "MAX_STORAGE=999GiB", "SWEEP=1h")...)
		conns[i] = dialRaw(t, servers[i].address())
		servers[i].store.trusts(t, admin, nil, true, true)
		for range 60 {
			servers[i].create(noise(100), withCert(alice.sha1())...)
		}
	}
	send := func(i int, format string, args ...any) []byte {
		body, err := conns[i].exchange(fmt.Appendf(nil, format, args...))
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	list := func(query string, h *holder) func(int) {
		return func(i int) {
			if body := send(i, "GET /pastes?%s HTTP/1.1\r\nHost: a\r\nX-Proxy-Secret: %s\r\nX-SSL-Client-SHA1: %s\r\n\r\n", query, proxySecret, h.sha1()); !bytes.Contains(body, []byte(`"count": 20,`)) {
				t.Fatalf("the list: %.300s", body)
			}
		}
	}
	rounds, made := 300, uint64(1)<<32
	both("read", 5*rounds, func(i int) {
		id := fmt.Sprintf("%016x", rand.Uint64N(uint64(counts[i]))<<20|uint64(tomorrow)&(1<<20-1))
		if body := send(i, "GET /%s/raw HTTP/1.1\r\nHost: a\r\n\r\n", id); len(body) != 1024 {
			t.Fatalf("%d bytes", len(body))
		}
	})
	both("create", rounds, func(i int) {
		made++
		send(i, "%s", postRequest("a", benchContent(made, 1024)))
	})
	both("list of one's own", rounds, list("limit=20", alice))
	both("list of all", rounds, list("limit=20&owner=all", admin))
	var left [2]int                       // how many sweeps there is something for
	both("sweep of 50", 80, func(i int) { // the step between two pauses
		for k := int64(0); left[i] == 0 || k%40 != 0; k++ { // in turns: what was written last is at hand in the kernel's memory
			j := int(k % 2)
			for range 2 {
				fill(t, servers[j].store, 50*2, tomorrow-3600-k)
				left[j] += 2
				j = 1 - j
			}
		}
		left[i]--
		var gone []string
		if err := servers[i].store.do(0, func(tx *writeTx) (err error) { gone, err = tx.expire(tomorrow - 1); return err }); err != nil || len(gone) != 50 {
			t.Fatalf("%d swept: %v", len(gone), err)
		}
	})
	both("sweep of nothing", 9, func(i int) {
		if gone, _, err := servers[i].store.sweep(tomorrow - 1); err != nil || gone != 0 {
			t.Fatalf("%d swept: %v", gone, err)
		}
	})
	var found []string
	for _, name := range slices.Sorted(maps.Keys(ms[0])) {
		many, few := median(ms[0][name]), median(ms[1][name])
		found = append(found, fmt.Sprintf("%s %.2f (%.2g ms)", name, many/few, many))
		if many > 1.5*few {
			t.Errorf("%s: %.3g ms with %d pastes, %.3g ms with %d", name, many, counts[0], few, counts[1])
		}
	}
	info, err := os.Stat(database(dirs[0]))
	if err != nil {
		t.Fatal(err)
	}
	proved(t, "scale", fmt.Sprintf("%d pastes (%.1f GiB, filled in %.0f s) against 1,000, in turns", n, float64(info.Size())/(1<<30), filled.Seconds()), "times as long, by medians: %s", strings.Join(found, ", "))
}
