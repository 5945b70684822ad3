package main

// The figures that README quotes, as benchmarks: sh deploy/bench.sh runs all and prints a table. Each compares two things
// that take turns within one run (absolute rates say more about the machine than about the program) and reports the median
// of the rounds. A metric's unit carries its bound, as in of-bare>=0.80.
//
// The load generator writes prepared bytes and parses no more than it must: its own cost would make every ratio look
// better than it is.

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	benchSize   = 4096
	benchRounds = 15
	benchRound  = 300 * time.Millisecond
	largeSize   = 50 << 20
)

// unlimited are the settings that let one address do what a benchmark does.
func unlimited() (env []string) {
	for _, v := range variables(new(config)) {
		switch v.name {
		case "RATE_CREATE", "RATE_READ", "RATE_MISS", "RATE_BYTES", "POW_DIFFICULTY":
			env = append(env, v.name+"=0")
		}
	}
	return env
}

// benchServer runs the server in this process, its access log on the null device. It has no loops of its own: no sweep and
// no flush of renewals but those that a benchmark calls for.
func benchServer(b *testing.B, env ...string) *server {
	b.Helper()
	environ := []string{"FLASKPASTE_DATABASE=" + filepath.Join(b.TempDir(), "flaskpaste.db"), "FLASKPASTE_MIN_FREE=0"}
	for _, e := range append(unlimited(), env...) {
		environ = append(environ, "FLASKPASTE_"+e)
	}
	cfg, err := loadConfig(environ)
	if err != nil {
		b.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	log := newLog(cfg, null)
	st, err := openStore(storeOptions{path: cfg.database, serving: true, full: cfg.sync == "full", checkpoint: true, cacheSize: cfg.cache,
		quota: cfg.maxStorage, maxLife: int64(cfg.maxExpiry / time.Second), log: log, fatal: func(err error) { panic(err) }, now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	s, err := newServer(cfg, st, log, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := st.close(); err != nil {
			b.Error(err)
		}
		null.Close()
	})
	return s
}

// serveBench lets h answer on loopback and returns its address.
func serveBench(b *testing.B, h *http.Server) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go h.Serve(l)
	b.Cleanup(func() { h.Close() })
	return l.Addr().String()
}

// rawConn is one keep-alive connection of the load generator.
type rawConn struct {
	net.Conn
	buf []byte
}

func dialRaw(b testing.TB, addr string) *rawConn {
	b.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return &rawConn{c, make([]byte, 16<<10)}
}

// exchange sends one request and returns the body of its answer, valid until the next call. Any status but 2xx is an error.
func (c *rawConn) exchange(req []byte) ([]byte, error) {
	if _, err := c.Write(req); err != nil {
		return nil, err
	}
	n, head, size := 0, 0, 0
	for head == 0 || n < head+size {
		m, err := c.Read(c.buf[n:])
		if err != nil {
			return nil, err
		}
		n += m
		if i := bytes.Index(c.buf[:n], []byte("\r\n\r\n")); head == 0 && i > 0 {
			head = i + 4
			_, length, _ := bytes.Cut(c.buf[:head], []byte("\r\nContent-Length: "))
			length, _, _ = bytes.Cut(length, []byte("\r\n"))
			if size, err = strconv.Atoi(string(length)); err != nil || c.buf[9] != '2' || head+size > len(c.buf) {
				return nil, fmt.Errorf("answer %.300q", c.buf[:n])
			}
		}
	}
	return c.buf[head:n], nil
}

// hammer keeps every connection busy for d and returns the requests answered in a second. next makes the n-th request of a
// connection; right judges the body of its answer.
func hammer(b *testing.B, conns []*rawConn, d time.Duration, next func(conn, n int) []byte, right func([]byte) bool) float64 {
	b.Helper()
	var total atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	begin := time.Now()
	for i, c := range conns {
		wg.Go(func() {
			for n := 0; time.Since(begin) < d; n++ {
				body, err := c.exchange(next(i, n))
				if err == nil && !right(body) {
					err = fmt.Errorf("wrong body %.100q", body)
				}
				if err != nil {
					failed.Store(&err)
					return
				}
				total.Add(1)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
	return float64(total.Load()) / time.Since(begin).Seconds()
}

// benchContent is text whose first bytes are n: no two contents are alike.
func benchContent(n uint64, size int) []byte {
	return fmt.Appendf(make([]byte, 0, size), "%016x%s", n, bytes.Repeat([]byte("x"), size-16))
}

func postRequest(addr string, content []byte) []byte {
	return append(fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", addr, len(content)), content...)
}

func quantile(sorted []float64, q float64) float64 { return sorted[int(q*float64(len(sorted)-1))] }

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return quantile(v, 0.5)
}

// figure reports v; unit is its name and, where there is one, its bound.
func figure(b *testing.B, v float64, unit string) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(v, unit)
}

// ---- reading and creating ----

// benchRead compares reads of 64 pastes with a bare net/http handler that sends the same bytes under the same headers.
func benchRead(b *testing.B, bound string, env ...string) {
	s := benchServer(b, env...)
	addr := serveBench(b, newHTTPServer(s))
	c := dialRaw(b, addr)
	content := benchContent(64, benchSize)
	var requests, bareRequests [][]byte
	var model *http.Response
	for i := range uint64(64) {
		answer, err := c.exchange(postRequest(addr, benchContent(i, benchSize)))
		if err != nil {
			b.Fatal(err)
		}
		var made created
		if err := json.Unmarshal(answer, &made); err != nil {
			b.Fatal(err)
		}
		if model, err = http.Get("http://" + addr + made.Raw); err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, model.Body)
		model.Body.Close()
		requests = append(requests, fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\n\r\n", made.Raw, addr))
	}
	if len(model.Header) < 15 || model.Header.Get("Content-Length") != strconv.Itoa(benchSize) {
		b.Fatalf("unexpected answer: %v", model.Header)
	}
	model.Header.Del("Date") // net/http's own
	bare := serveBench(b, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		for k, v := range model.Header {
			h[k] = v
		}
		w.Write(content)
	})})
	for _, r := range requests {
		bareRequests = append(bareRequests, bytes.Replace(r, []byte(addr), []byte(bare), 1))
	}
	var ours, theirs []*rawConn
	for range 16 {
		ours, theirs = append(ours, dialRaw(b, addr)), append(theirs, dialRaw(b, bare))
	}
	right := func(body []byte) bool { return len(body) == benchSize && bytes.Equal(body[16:], content[16:]) }
	var ratios, rates []float64
	for range benchRounds {
		ref := hammer(b, theirs, benchRound, func(i, n int) []byte { return bareRequests[(7*i+n)%64] }, right)
		got := hammer(b, ours, benchRound, func(i, n int) []byte { return requests[(7*i+n)%64] }, right)
		ratios, rates = append(ratios, got/ref), append(rates, got)
	}
	figure(b, median(ratios), bound)
	figure(b, median(rates), "requests/s")
}

// BenchmarkReadHot: the default cache, 16 connections.
func BenchmarkReadHot(b *testing.B) { benchRead(b, "of-bare>=0.80") }

// BenchmarkReadCold: every read comes from the database.
func BenchmarkReadCold(b *testing.B) { benchRead(b, "of-bare>=0.45", "CACHE=0") }

// oneByOne gives the store a writer that commits every operation by itself.
func oneByOne(st *store) {
	close(st.ops)
	<-st.done
	st.ops, st.done = make(chan *operation, queueOps), make(chan struct{})
	go func() {
		defer close(st.done)
		for op := range st.ops {
			if op.bare {
				op.err <- op.run(&writeTx{s: st})
				continue
			}
			st.commit([]*operation{op})
		}
	}()
}

// BenchmarkCreate: 64 connections, synchronous=FULL, against the same server with a transaction for each request, and
// against what the folder's disk does: 4 KiB written over a file's old bytes and fsync, again and again.
func BenchmarkCreate(b *testing.B) {
	s := benchServer(b)
	grouped := serveBench(b, newHTTPServer(s))
	slow := benchServer(b)
	single := serveBench(b, newHTTPServer(slow))
	var count atomic.Uint64
	var ours, theirs []*rawConn
	for range 64 {
		ours, theirs = append(ours, dialRaw(b, grouped)), append(theirs, dialRaw(b, single))
	}
	oneByOne(slow.store)
	f, err := os.Create(filepath.Join(filepath.Dir(s.cfg.database), "fsync"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 4<<20)); err != nil {
		b.Fatal(err)
	}
	block := benchContent(1, benchSize)
	fsyncs := func() float64 {
		begin, n := time.Now(), 0
		for ; time.Since(begin) < benchRound; n++ {
			_, err := f.WriteAt(block, int64(n%1024)*benchSize)
			if err = errors.Join(err, f.Sync()); err != nil {
				b.Fatal(err)
			}
		}
		return float64(n) / time.Since(begin).Seconds()
	}
	creates := func(conns []*rawConn, addr string) float64 {
		next := func(int, int) []byte { return postRequest(addr, benchContent(count.Add(1), benchSize)) }
		return hammer(b, conns, benchRound, next, func(body []byte) bool { return len(body) > 0 })
	}
	var bySingle, byFsync, rates []float64
	for range benchRounds {
		disk := fsyncs()
		ref := creates(theirs, single)
		got := creates(ours, grouped)
		disk = (disk + fsyncs()) / 2
		bySingle, byFsync, rates = append(bySingle, got/ref), append(byFsync, got/disk), append(rates, got)
	}
	figure(b, median(bySingle), "of-single-commits>=6")
	figure(b, median(byFsync), "of-fsyncs>=2.5")
	figure(b, median(rates), "requests/s")
}

// ---- the real process ----

// residentMiB reads a field of /proc/<pid>/status: VmRSS, VmHWM (the peak).
func residentMiB(b testing.TB, pid int, field string) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Skip("resident sizes are read from Linux's /proc")
	}
	_, line, _ := strings.Cut(string(status), "\n"+field+":")
	kib, err := strconv.ParseFloat(strings.Fields(line)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}

const benchProxySecret = "the-proxy's-secret-of-a-benchmark"

// largeEnv makes this process a trusted proxy whose clients hold certificates, with room for 32 transfers.
func largeEnv() []string {
	return append(unlimited(), "MAX_UPLOADS=256", "MAX_DOWNLOADS=256", "TRUSTED_PROXIES=127.0.0.1", "PROXY_SECRET="+benchProxySecret)
}

// certified is a request of client n, who shows a certificate that the server did not issue.
func certified(ctx context.Context, b *testing.B, method, url string, n int, body io.Reader) *http.Request {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("X-Proxy-Secret", benchProxySecret)
	req.Header.Set("X-Forwarded-For", fmt.Sprintf("192.0.2.%d", n))
	req.Header.Set("X-SSL-Client-SHA1", fmt.Sprintf("%040x", n+1))
	return req
}

// largeContent is 50 MiB for client n that share all but their first 8 bytes: hashing them is the test's only work.
type largeContent struct{ tail []byte }

func newLargeContent() largeContent {
	tail := make([]byte, largeSize-8)
	rand.NewChaCha8([32]byte{1}).Read(tail)
	return largeContent{tail}
}

func (l largeContent) reader(n int) io.Reader {
	return io.MultiReader(strings.NewReader(fmt.Sprintf("%08d", n)), bytes.NewReader(l.tail))
}

func (l largeContent) sum(n int) string {
	h := sha256.New()
	io.Copy(h, l.reader(n))
	return hex.EncodeToString(h.Sum(nil))
}

// upload stores content n and returns what the server made of it.
func (l largeContent) upload(ctx context.Context, b *testing.B, url string, n int) (made created, err error) {
	req := certified(ctx, b, "POST", url+"/", n, l.reader(n))
	req.ContentLength = largeSize
	res, err := testClient.Do(req)
	if err != nil {
		return made, err
	}
	defer res.Body.Close()
	if res.StatusCode != 201 {
		return made, fmt.Errorf("upload: status %d", res.StatusCode)
	}
	return made, json.NewDecoder(res.Body).Decode(&made)
}

// BenchmarkLarge: 32 uploads of 50 MiB at once, then 32 downloads, each hash right; the peak of the process in each.
func BenchmarkLarge(b *testing.B) {
	p := launch(b, b.TempDir(), largeEnv()...)
	pid := p.cmd.Process.Pid
	residentMiB(b, pid, "VmHWM")
	content := newLargeContent()
	var sums, paths [32]string
	for n := range sums {
		sums[n] = content.sum(n)
	}
	all := func(do func(n int) error) {
		b.Helper()
		errs := make([]error, len(sums))
		var wg sync.WaitGroup
		for n := range sums {
			wg.Go(func() { errs[n] = do(n) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			b.Fatal(err)
		}
	}
	begin := time.Now()
	all(func(n int) error {
		made, err := content.upload(b.Context(), b, p.url, n)
		if err == nil && made.SHA256 != sums[n] {
			err = fmt.Errorf("upload %d arrived as %s", n, made.SHA256)
		}
		paths[n] = made.Raw
		return err
	})
	figure(b, residentMiB(b, pid, "VmHWM"), "MiB-peak-up<=80")
	figure(b, float64(len(sums)*largeSize>>20)/time.Since(begin).Seconds(), "MiB/s-up")
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil { // proc(5): the peak begins anew
		b.Fatal(err)
	}
	begin = time.Now()
	all(func(n int) error {
		res, err := testClient.Do(certified(b.Context(), b, "GET", p.url+paths[n], n, nil))
		if err != nil {
			return err
		}
		defer res.Body.Close()
		h := sha256.New()
		if _, err := io.Copy(h, res.Body); err != nil || hex.EncodeToString(h.Sum(nil)) != sums[n] {
			return fmt.Errorf("download %d: status %d, wrong or cut: %v", n, res.StatusCode, err)
		}
		return nil
	})
	figure(b, residentMiB(b, pid, "VmHWM"), "MiB-peak-down<=80")
	figure(b, float64(len(sums)*largeSize>>20)/time.Since(begin).Seconds(), "MiB/s-down")
}

// fill stores n pastes that expire at a time (Unix seconds), without HTTP, and returns one's id.
func fill(b testing.TB, st *store, n int, expires int64) (id string) {
	b.Helper()
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	work := make(chan int)
	for range batchOps {
		wg.Go(func() {
			for i := range work {
				content := benchContent(uint64(i), 1024)
				sum := sha256.Sum256(content)
				p := &paste{id: fmt.Sprintf("%016x", uint64(i)<<20|uint64(expires)&(1<<20-1)), size: int64(len(content)), mime: "text/plain; charset=utf-8", sha256: sum[:],
					created: time.Now().Unix(), modified: time.Now().Unix(), expires: expires, token: sum[:]}
				if err := st.create(p, st.newUpload(1<<40), content, func(*writeTx) error { return nil }); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
	return fmt.Sprintf("%016x", uint64(expires)&(1<<20-1))
}

// BenchmarkStart: from exec to the first 200 with 10,000 pastes, and what the process holds when nobody asks anything.
func BenchmarkStart(b *testing.B) {
	dir := b.TempDir()
	st, err := openStore(storeOptions{path: filepath.Join(dir, "data", "flaskpaste.db"), serving: true, checkpoint: true, quota: 1 << 30,
		log: slog.New(slog.DiscardHandler), fatal: func(err error) { panic(err) }, now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	id := fill(b, st, 10_000, time.Now().Unix()+86400)
	if err := st.close(); err != nil {
		b.Fatal(err)
	}
	var times, idle []float64
	for range 7 {
		begin := time.Now()
		p := launch(b, dir)
		res, err := http.Get(p.url + "/" + id + "/raw")
		if err != nil || res.StatusCode != 200 {
			b.Fatalf("the first answer: %v, %v", res, err)
		}
		times = append(times, float64(time.Since(begin))/1e6)
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		time.Sleep(time.Second)
		idle = append(idle, residentMiB(b, p.cmd.Process.Pid, "VmRSS"))
		if code := p.stop(); code != 0 {
			b.Fatalf("exit code %d: %s", code, p.logs)
		}
	}
	figure(b, median(times), "ms-to-first-200<=100")
	figure(b, slices.Max(idle), "MiB-idle<=24")
}

// latencies collects how long requests took, in milliseconds.
type latencies struct {
	mu sync.Mutex
	ms []float64
}

// watch sends a request of next over a connection of its own every pause until ctx ends.
func (l *latencies) watch(ctx context.Context, c *rawConn, pause time.Duration, next func() []byte) error {
	for ctx.Err() == nil {
		begin := time.Now()
		if _, err := c.exchange(next()); err != nil {
			return err
		}
		l.mu.Lock()
		l.ms = append(l.ms, float64(time.Since(begin))/1e6)
		l.mu.Unlock()
		time.Sleep(pause)
	}
	return nil
}

// BenchmarkSweep: 100,000 expired pastes are removed while four clients read and four create, none of them at full speed.
// What they feel then is compared with what they felt before and after.
func BenchmarkSweep(b *testing.B) {
	s := benchServer(b, "MAX_STORAGE=4GiB")
	now := time.Now().Unix()
	live := fill(b, s.store, 1000, now+86400)
	fill(b, s.store, 100_000, now+3600)
	if err := s.store.checkpointNow(); err != nil {
		b.Fatal(err)
	}
	addr := serveBench(b, newHTTPServer(s))
	var conns []*rawConn
	for range 8 {
		conns = append(conns, dialRaw(b, addr))
	}
	read := fmt.Appendf(nil, "GET /%s/raw HTTP/1.1\r\nHost: x\r\n\r\n", live)
	var count atomic.Uint64
	during := func(do func()) (reads, creates []float64) {
		ctx, cancel := context.WithCancel(b.Context())
		var r, w latencies
		var wg sync.WaitGroup
		errs := make([]error, len(conns))
		for i, c := range conns {
			wg.Go(func() {
				if i < 4 {
					errs[i] = r.watch(ctx, c, time.Millisecond, func() []byte { return read })
					return
				}
				errs[i] = w.watch(ctx, c, 5*time.Millisecond, func() []byte {
					return postRequest(addr, benchContent(count.Add(1)<<32, 1024))
				})
			})
		}
		do()
		cancel()
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			b.Fatal(err)
		}
		slices.Sort(r.ms)
		slices.Sort(w.ms)
		return r.ms, w.ms
	}
	calm := func() { time.Sleep(5 * time.Second) }
	reads, creates := during(calm)
	var took time.Duration
	sweptReads, sweptCreates := during(func() {
		begin := time.Now()
		if n, _, err := s.store.sweep(now + 7200); n != 100_000 || err != nil {
			b.Fatalf("%d swept, %v", n, err)
		}
		took = time.Since(begin)
	})
	moreReads, moreCreates := during(calm)
	reads, creates = append(reads, moreReads...), append(creates, moreCreates...)
	slices.Sort(reads)
	slices.Sort(creates)
	figure(b, quantile(sweptReads, 0.99)/quantile(reads, 0.99), "of-calm-read-p99<=2")
	figure(b, quantile(sweptCreates, 0.5)/quantile(creates, 0.5), "of-calm-create-median<=1.5")
	figure(b, quantile(sweptCreates, 0.99), "ms-create-p99")
	figure(b, took.Seconds(), "s-sweep")
}

// BenchmarkMixed: small creates, while 8 uploads of 50 MiB run all the time.
func BenchmarkMixed(b *testing.B) {
	p := launch(b, b.TempDir(), largeEnv()...)
	content := newLargeContent()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, 12)
	var uploads atomic.Int64
	for n := range 8 {
		wg.Go(func() {
			for i := n; ctx.Err() == nil; i += 8 {
				if _, err := content.upload(ctx, b, p.url, i); err != nil && ctx.Err() == nil {
					errs[n] = err
					return
				}
				uploads.Add(1)
			}
		})
	}
	var small latencies
	var count atomic.Uint64
	addr := strings.TrimPrefix(p.url, "http://")
	for n := range 4 {
		c := dialRaw(b, addr)
		wg.Go(func() {
			errs[8+n] = small.watch(ctx, c, 5*time.Millisecond, func() []byte { return postRequest(addr, benchContent(count.Add(1), benchSize)) })
		})
	}
	time.Sleep(15 * time.Second)
	cancel()
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		b.Fatal(err)
	}
	slices.Sort(small.ms)
	figure(b, quantile(small.ms, 0.99), "ms-small-p99<=100")
	figure(b, quantile(small.ms, 0.5), "ms-small-median")
	figure(b, float64(uploads.Load()), "uploads")
}
