package main

// The figures that the documentation quotes: sh deploy/bench.sh runs all and prints a table. Each compares two things
// that take turns within one run (absolute rates say more about the machine than about the program) and reports the
// median of the rounds. A metric's unit carries its bound, as in of-bare>=0.80.
//
// The load generator writes prepared bytes and parses no more than it must: its own cost would make every ratio look
// better than it is.

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	benchSize   = 4096
	benchRounds = 15
	benchRound  = 300 * time.Millisecond
	largeSize   = 50 << 20
)

// benchServer runs the server in this process, its access log on the null device, without its sweep, and returns its
// address.
func benchServer(b *testing.B, env ...string) (s *server, addr string) {
	ts := newTestServer(b, b.TempDir(), 0, append([]string{"MAX_STORAGE=99GiB"}, env...)...)
	null := must(os.OpenFile(os.DevNull, os.O_WRONLY, 0))
	ts.log = newLog(false, ts.cfg.logLevel, null)
	b.Cleanup(func() { ts.store.close(); null.Close() })
	return ts.server, serveBench(b, newHTTPServer(ts.server), newDoors(ts.server).at)
}

// serveBench lets h answer on loopback, behind the doors if there are any.
func serveBench(b *testing.B, h *http.Server, doors func(net.Listener) net.Listener) (addr string) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	if addr = l.Addr().String(); doors != nil {
		l = doors(l)
	}
	go h.Serve(l)
	b.Cleanup(func() { h.Close() })
	return addr
}

// rawConn is one keep-alive connection of the load generator.
type rawConn struct {
	net.Conn
	buf []byte
}

func dialRaw(b testing.TB, addr string, n int) (conns []*rawConn) {
	for range n {
		c := must(net.Dial("tcp", addr))
		b.Cleanup(func() { c.Close() })
		conns = append(conns, &rawConn{c, make([]byte, 64<<10)})
	}
	return conns
}

// exchange sends one request and returns the body of its answer, valid until the next call. Any status but 2xx and 3xx
// is an error.
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
			if size, err = strconv.Atoi(string(length)); err != nil || c.buf[9] > '3' || head+size > len(c.buf) {
				return nil, fmt.Errorf("answer %.300q", c.buf[:n])
			}
		}
	}
	return c.buf[head:n], nil
}

// hammer keeps every connection busy for a round and returns the requests answered in a second. next makes the n-th
// request of a connection; right judges the body of its answer.
func hammer(b *testing.B, conns []*rawConn, next func(conn, n int) []byte, right func([]byte) bool) float64 {
	b.Helper()
	var total atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	begin := time.Now()
	for i, c := range conns {
		wg.Go(func() {
			for n := 0; time.Since(begin) < benchRound; n++ {
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
	return append(fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Type: application/octet-stream\r\n"+
		"Content-Length: %d\r\n\r\n", addr, len(content)), content...)
}

func quantile(sorted []float64, q float64) float64 { return sorted[int(q*float64(len(sorted)-1))] }

func median(v []float64) float64 { return quantile(slices.Sorted(slices.Values(v)), 0.5) }

// figure reports v; unit is its name and, where there is one, its bound.
func figure(b *testing.B, v float64, unit string) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(v, unit)
}

// against reports how many of bare's requests a second ours come to; both take turns.
func against(b *testing.B, bound string, ours, theirs func() float64) {
	var ratios, rates []float64
	for range benchRounds {
		ref := theirs()
		got := ours()
		ratios, rates = append(ratios, got/ref), append(rates, got)
	}
	figure(b, median(ratios), bound)
	figure(b, median(rates), "requests/s")
}

// ---- requests ----

// mimic is a bare net/http handler that reads the body, hashes it and sends the answer of res again, headers and all.
func mimic(b *testing.B, res *http.Response) (addr string, content []byte) {
	content = must(io.ReadAll(res.Body))
	res.Body.Close()
	if len(res.Header) < 13 || res.StatusCode >= 400 {
		b.Fatalf("unexpected answer: %v", res)
	}
	res.Header.Del("Date") // net/http's own
	return serveBench(b, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			io.Copy(sha256.New(), r.Body)
		}
		maps.Copy(w.Header(), res.Header)
		w.WriteHeader(res.StatusCode)
		w.Write(content)
	})}, nil), content
}

// benchRead compares GETs of paths with a handler that mimics the answer to the first.
func benchRead(b *testing.B, bound, addr string, paths []string) {
	bare, content := mimic(b, must(testClient.Get("http://"+addr+paths[0])))
	to := func(addr string) func() float64 {
		var requests [][]byte
		for _, path := range paths {
			requests = append(requests, fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\n\r\n", path, addr))
		}
		conns := dialRaw(b, addr, 16)
		next := func(i, n int) []byte { return requests[(7*i+n)%len(paths)] }
		return func() float64 { // pastes differ in their first 16 bytes
			return hammer(b, conns, next, func(body []byte) bool {
				return len(body) == len(content) && (len(body) < 16 || bytes.Equal(body[16:], content[16:]))
			})
		}
	}
	against(b, bound, to(addr), to(bare))
}

// pastes stores 64 pastes and returns their paths.
func pastes(b *testing.B, addr string) (paths []string) {
	c := dialRaw(b, addr, 1)[0]
	for i := range uint64(64) {
		body, err := c.exchange(postRequest(addr, benchContent(i, benchSize)))
		var made created
		if err = errors.Join(err, json.Unmarshal(body, &made)); err != nil {
			b.Fatal(err)
		}
		paths = append(paths, made.Raw)
	}
	return paths
}

// BenchmarkReadHot: the default cache, 16 connections.
func BenchmarkReadHot(b *testing.B) {
	_, addr := benchServer(b)
	benchRead(b, "of-bare>=0.80", addr, pastes(b, addr))
}

// BenchmarkReadCold: every read comes from the database.
func BenchmarkReadCold(b *testing.B) {
	_, addr := benchServer(b, "CACHE=0")
	benchRead(b, "of-bare>=0.45", addr, pastes(b, addr))
}

// BenchmarkRedirect: one short URL is followed, out of the cache.
func BenchmarkRedirect(b *testing.B) {
	_, addr := benchServer(b)
	res := must(http.Post("http://"+addr+"/s", "text/plain", strings.NewReader("https://example.org/")))
	res.Body.Close()
	benchRead(b, "of-bare>=0.70", addr, []string{res.Header.Get("Location")})
}

// BenchmarkCreate: 64 connections, synchronous=FULL, against what the folder's disk does: 4 KiB written over a file's
// old bytes and fsync, again and again; and against a bare handler that reads and hashes the body and answers the same.
func BenchmarkCreate(b *testing.B) {
	s, addr := benchServer(b, "MAX_UPLOADS=512")
	bare, _ := mimic(b, must(http.Post("http://"+addr+"/", "text/plain", strings.NewReader("x"))))
	f := must(os.Create(filepath.Join(filepath.Dir(s.cfg.database), "fsync")))
	defer f.Close()
	must(f.Write(make([]byte, 4<<20)))
	fsyncs := func() float64 {
		begin, block, n := time.Now(), benchContent(1, benchSize), 0
		for ; time.Since(begin) < benchRound; n++ {
			must(f.WriteAt(block, int64(n%1024)*benchSize))
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
		return float64(n) / time.Since(begin).Seconds()
	}
	var count atomic.Uint64
	creates := func(addr string) func() float64 {
		conns := dialRaw(b, addr, 63) // and the one of the answer that is mimicked
		next := func(int, int) []byte { return postRequest(addr, benchContent(count.Add(1), benchSize)) }
		return func() float64 { return hammer(b, conns, next, func(body []byte) bool { return len(body) > 0 }) }
	}
	ours, theirs := creates(addr), creates(bare)
	var ofDisk []float64
	against(b, "of-bare", func() float64 {
		disk, got := fsyncs(), ours()
		ofDisk = append(ofDisk, got*2/(disk+fsyncs()))
		return got
	}, theirs)
	figure(b, median(ofDisk), "of-fsyncs")
}

// ---- the real process ----

// residentMiB reads a field of /proc/<pid>/status: VmRSS, VmHWM (the peak).
func residentMiB(b testing.TB, pid int, field string) float64 {
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

// largeEnv makes this process a trusted proxy whose clients hold certificates, with room for 32 transfers.
var largeEnv = append([]string{"MAX_UPLOADS=256", "MAX_DOWNLOADS=256"}, proxied...)

// large sends 50 MiB as client n, who shows a certificate that the server did not issue, or nothing, and lets take have
// the answer.
func large(ctx context.Context, method, url string, n int, take func(*http.Response) error) error {
	var body io.Reader
	if method == "POST" {
		body = largeContent(n)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	if method == "POST" {
		req.ContentLength = largeSize
	}
	for _, h := range withCert(fmt.Sprintf("%040x", n+1), fmt.Sprintf("X-Forwarded-For: 192.0.2.%d", n)) {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Set(k, v)
	}
	res, err := testClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: status %d", method, url, res.StatusCode)
	}
	return take(res)
}

var largeTail = sync.OnceValue(func() []byte {
	tail := make([]byte, largeSize-8)
	rand.NewChaCha8([32]byte{1}).Read(tail)
	return tail
})

// largeContent is 50 MiB for client n that share all but their first 8 bytes: hashing them is the test's only work.
func largeContent(n int) io.Reader {
	return io.MultiReader(strings.NewReader(fmt.Sprintf("%08d", n)), bytes.NewReader(largeTail()))
}

// BenchmarkLarge: 32 uploads of 50 MiB at once, then 32 downloads, each hash right; the peak of the process in each.
func BenchmarkLarge(b *testing.B) {
	p := launch(b, b.TempDir(), largeEnv...)
	var made [32]created
	for _, method := range []string{"POST", "GET"} {
		clear := fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid) // proc(5): the peak begins anew
		if err := os.WriteFile(clear, []byte("5"), 0); err != nil {
			b.Skip("resident sizes are read from Linux's /proc")
		}
		errs, begin := make([]error, len(made)), time.Now()
		var wg sync.WaitGroup
		for n := range made {
			wg.Go(func() {
				errs[n] = large(b.Context(), method, p.url+cmp.Or(made[n].Raw, "/"), n, func(res *http.Response) error {
					if method == "POST" {
						return json.NewDecoder(res.Body).Decode(&made[n])
					}
					return sameSum(res.Body, made[n].SHA256)
				})
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			b.Fatal(err)
		}
		way := map[string]string{"POST": "up", "GET": "down"}[method]
		figure(b, residentMiB(b, p.cmd.Process.Pid, "VmHWM"), "MiB-peak-"+way+"<=80")
		figure(b, float64(len(made)*largeSize>>20)/time.Since(begin).Seconds(), "MiB/s-"+way)
	}
	for n := range made {
		if err := sameSum(largeContent(n), made[n].SHA256); err != nil {
			b.Error(err)
		}
	}
}

func sameSum(r io.Reader, want string) error {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil || hex.EncodeToString(h.Sum(nil)) != want {
		return fmt.Errorf("wrong or cut: %w", err)
	}
	return nil
}

// fill stores n pastes of 1 KiB that expire at a time (Unix seconds), without HTTP, and returns the first one's id.
func fill(t testing.TB, st *store, n int, expires int64) string {
	t.Helper()
	now := time.Now().Unix()
	var next atomic.Int64
	errs := make([]error, batchOps)
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n) && errs[w] == nil; i = next.Add(1) {
				content := benchContent(uint64(i), 1024)
				sum := sha256.Sum256(content)
				errs[w] = st.create(&paste{id: fmt.Sprintf("%08x%08x", expires, i), size: 1024, mime: "text/plain",
					sha256: sum[:], created: now, modified: now, expires: expires, token: sum[:]}, st.newUpload(1<<40), content)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%08x%08x", expires, 1)
}

// BenchmarkStart: from exec to the first 200 with 10,000 pastes, and what the process holds when nobody asks anything.
func BenchmarkStart(b *testing.B) {
	dir := b.TempDir()
	ts := newTestServer(b, filepath.Join(dir, "data"), 0)
	id := fill(b, ts.store, 10_000, time.Now().Unix()+86400)
	ts.store.close()
	var times, idle []float64
	for range 7 {
		begin := time.Now()
		p := launch(b, dir)
		res := must(http.Get(p.url + "/" + id + "/raw"))
		times = append(times, float64(time.Since(begin))/1e6)
		res.Body.Close()
		time.Sleep(time.Second)
		idle = append(idle, residentMiB(b, p.cmd.Process.Pid, "VmRSS"))
		if code := p.stop(); code != 0 || res.StatusCode != 200 {
			b.Fatalf("status %d, exit code %d: %s", res.StatusCode, code, p.logs)
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

// BenchmarkSweep: 100,000 expired pastes are removed while four clients read and four create, none of them at full
// speed. What they feel then is compared with what they felt before and after.
func BenchmarkSweep(b *testing.B) {
	s, addr := benchServer(b)
	now := time.Now().Unix()
	live := fill(b, s.store, 1000, now+86400)
	fill(b, s.store, 100_000, now+3600)
	conns := dialRaw(b, addr, 8)
	read := fmt.Appendf(nil, "GET /%s/raw HTTP/1.1\r\nHost: x\r\n\r\n", live)
	var count atomic.Uint64
	var calmReads, calmCreates, reads, creates latencies
	during := func(r, w *latencies, do func()) {
		ctx, cancel := context.WithCancel(b.Context())
		var wg sync.WaitGroup
		errs := make([]error, len(conns))
		for i, c := range conns {
			wg.Go(func() {
				if i < 4 {
					errs[i] = r.watch(ctx, c, time.Millisecond, func() []byte { return read })
					return
				}
				next := func() []byte { return postRequest(addr, benchContent(count.Add(1)<<32, 1024)) }
				errs[i] = w.watch(ctx, c, 5*time.Millisecond, next)
			})
		}
		do()
		cancel()
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			b.Fatal(err)
		}
	}
	calm := func() { time.Sleep(5 * time.Second) }
	during(&calmReads, &calmCreates, calm)
	var took time.Duration
	during(&reads, &creates, func() { // as sweepLoop does it
		begin, n := time.Now(), 0
		for more := true; more; {
			step := time.Now()
			gone, _, again, err := s.store.sweep(now + 7200)
			if err != nil {
				b.Fatal(err)
			}
			n, more = n+gone, again
			time.Sleep(max(5*time.Millisecond, 2*time.Since(step)))
		}
		if took = time.Since(begin); n != 100_000 {
			b.Fatalf("%d swept", n)
		}
	})
	during(&calmReads, &calmCreates, calm)
	for _, l := range []*latencies{&reads, &creates, &calmReads, &calmCreates} {
		slices.Sort(l.ms)
	}
	figure(b, quantile(reads.ms, 0.99)/quantile(calmReads.ms, 0.99), "of-calm-read-p99<=2")
	figure(b, quantile(creates.ms, 0.5)/quantile(calmCreates.ms, 0.5), "of-calm-create-median<=1.5")
	figure(b, quantile(creates.ms, 0.99), "ms-create-p99")
	figure(b, took.Seconds(), "s-sweep")
}

// BenchmarkMixed: small creates, while 8 uploads of 50 MiB run all the time.
func BenchmarkMixed(b *testing.B) {
	p := launch(b, b.TempDir(), append([]string{"MAX_STORAGE=99GiB"}, largeEnv...)...)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, 12)
	var uploads, count atomic.Int64
	for n := range 8 {
		wg.Go(func() {
			for i := n; ctx.Err() == nil && errs[n] == nil; i += 8 {
				err := large(ctx, "POST", p.url+"/", i%256, func(*http.Response) error { uploads.Add(1); return nil })
				if err != nil && ctx.Err() == nil {
					errs[n] = err
				}
			}
		})
	}
	var small latencies
	addr := strings.TrimPrefix(p.url, "http://")
	for n, c := range dialRaw(b, addr, 4) {
		wg.Go(func() {
			next := func() []byte { return postRequest(addr, benchContent(uint64(count.Add(1)), benchSize)) }
			errs[8+n] = small.watch(ctx, c, 5*time.Millisecond, next)
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

// BenchmarkRecording: what each request leaves in the metrics.
func BenchmarkRecording(b *testing.B) {
	m := newMetrics(time.Now())
	b.ReportAllocs()
	for b.Loop() {
		m.request("GET /{id}/{view}", "GET", 200, "", time.Millisecond, 1, 2)
	}
}

// BenchmarkLimiter: one turn, with as many clients as come in a flood, and with one.
func BenchmarkLimiter(b *testing.B) {
	for name, clients := range map[string]int{"many": 1 << 16, "one": 1} {
		l, keys := testLimiter(rateRead, rate{600, time.Minute}), make([]clientKey, clients)
		for i := range keys {
			keys[i] = []clientKey{nthKey(i), farKey(i)}[i%2]
			l.take(due{rateRead, keys[i], 1, 1}, testStart)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				now := testStart
				for i := rand.IntN(1 << 16); pb.Next(); i++ {
					now = now.Add(time.Microsecond)
					l.take(due{rateRead, keys[i*40503&(clients-1)], 1, 1}, now)
				}
			})
		})
	}
}

// BenchmarkClientCreate is 1 KiB from a pipe to a link, encrypted, with the history, on loopback.
func BenchmarkClientCreate(b *testing.B) {
	m := newMachine(b, start(b, "MAX_CONNECTIONS=100000", "RATE_CREATE=0").url) // none ends with its process here
	content := strings.Repeat("k", 1024)
	for b.Loop() {
		m.link(content)
	}
}

// BenchmarkSeal: sealing and opening 16 MiB against AES-256-GCM alone in segments of that size, the fastest of turns.
func BenchmarkSeal(b *testing.B) {
	plain, key, nonce := make([]byte, 16<<20), testKey(1), make([]byte, 12)
	block, _ := aes.NewCipher(key[:])
	aead, _ := cipher.NewGCM(block)
	sealed, segments, out := mustSeal(b, key, sealTitle{}, plain), []byte(nil), make([]byte, 0, sealSegment+sealTag)
	for part := range slices.Chunk(plain, sealSegment) {
		segments = aead.Seal(segments, nonce, part, nil)
	}
	bare := func(all []byte, size int, f func(part []byte)) func() {
		return func() {
			for part := range slices.Chunk(all, size) {
				f(part)
			}
		}
	}
	for name, turns := range map[string][2]func(){
		"sealing": {func() { io.Copy(io.Discard, must(sealFrom(bytes.NewReader(plain), key, sealTitle{}))) },
			bare(plain, sealSegment, func(part []byte) { aead.Seal(out, nonce, part, nil) })},
		"opening": {func() {
			s, _, _ := openFrom(bytes.NewReader(sealed), key)
			io.Copy(io.Discard, s)
		}, bare(segments, cap(out), func(part []byte) { aead.Open(out, nonce, part, nil) })},
	} {
		b.Run(name, func(b *testing.B) {
			best := [2]time.Duration{time.Hour, time.Hour}
			for range 10 * benchRounds {
				for i, f := range turns {
					began := time.Now()
					f()
					best[i] = min(best[i], time.Since(began))
				}
			}
			figure(b, float64(best[1])/float64(best[0]), "of-bare>=0.80")
			figure(b, float64(len(plain))/best[0].Seconds()/(1<<20), "MiB/s")
		})
	}
}

// peer is a server beside ours: how it is run (HOST stands for its address), what a creation's head is, and where its
// content is then read.
type peer struct {
	name, durable, head string
	command, env        []string
	path                func(res *http.Response, body string) string

	conns     []*rawConn
	read      []byte
	post, get []float64
}

// BenchmarkPeers prints a table: 4 KiB at 16 connections, all taking turns, medians. What is not there is left out.
func BenchmarkPeers(b *testing.B) {
	dir := os.Getenv("PEERS")
	if dir == "" {
		b.Skip("needs what deploy/peers.sh makes: sh deploy/peers.sh")
	}
	wsgi := func(app string) []string {
		return strings.Fields("gunicorn --bind HOST --workers 2 --worker-class gthread --threads 32 --keep-alive 600 " +
			"--chdir " + dir + " " + app)
	}
	ours := func(name, durable, sync string) *peer {
		return &peer{name: name, durable: durable, command: []string{must(os.Executable()), "serve"},
			env:  append(environment([]string{"LISTEN=HOST", "SYNC=" + sync}), "RUN_AS_FLASKPASTE=1"),
			head: "POST / HTTP/1.1",
			path: func(r *http.Response, _ string) string { return r.Header.Get("Location") + "/raw" }}
	}
	link := func(_ *http.Response, body string) string { return strings.TrimSpace(body) }
	content := strings.Repeat("0123456789abcdef", benchSize/16)
	var table []*peer
	for _, p := range []*peer{{name: "bare net/http handler", durable: "stores nothing", head: "POST / HTTP/1.1",
		command: []string{filepath.Join(dir, "bare"), "HOST"}, path: link},
		ours("FlaskPaste", "yes", "full"), ours("FlaskPaste, `SYNC=normal`", "no", "normal"),
		{name: "bepasty (Flask, gunicorn, files)", durable: "no", command: wsgi("bepasty.wsgi"),
			env: []string{"BEPASTY_CONFIG=" + filepath.Join(dir, "bepasty.conf")},
			head: "POST /apis/rest/items HTTP/1.1\r\nContent-Type: application/octet-stream\r\n" +
				"Content-Filename: x.bin\r\nContent-Range: bytes 0-4095/4096",
			path: func(r *http.Response, _ string) string {
				return "/" + filepath.Base(r.Header.Get("Content-Location")) + "/+download"
			}},
		{name: "a table in Flask, gunicorn, SQLite", durable: "yes", command: wsgi("standin:app"),
			head: "POST / HTTP/1.1", path: link}} {
		if err := p.launch(b, content); err != nil {
			fmt.Printf("left out: %s: %v\n", p.name, err)
			continue
		}
		table = append(table, p)
	}
	for range benchRounds {
		for _, p := range table {
			for rates, req := range map[*[]float64][]byte{&p.post: p.request(content), &p.get: p.read} {
				any := func([]byte) bool { return true }
				*rates = append(*rates, hammer(b, p.conns, func(int, int) []byte { return req }, any))
			}
		}
	}
	fmt.Println("| server | 201 is on the disk | creations/s | reads/s |\n|---|---|---|---|")
	for _, p := range table {
		fmt.Printf("| %s | %s | %.0f | %.0f |\n", p.name, p.durable, median(p.post), median(p.get))
	}
}

func (p *peer) request(content string) []byte {
	if strings.Contains(p.name, "bepasty") {
		content = base64.StdEncoding.EncodeToString([]byte(content))
	}
	return fmt.Appendf(nil, "%s\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", p.head, len(content), content)
}

// launch starts the peer and stores and reads once.
func (p *peer) launch(b *testing.B, content string) error {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	addr := l.Addr().String()
	l.Close()
	fill := func(list []string) []string { // no argument has a line end
		return strings.Split(strings.ReplaceAll(strings.Join(list, "\n"), "HOST", addr), "\n")
	}
	args := fill(p.command)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = b.TempDir()
	os.Mkdir(filepath.Join(cmd.Dir, "files"), 0o700)
	cmd.Env = append(append(os.Environ(), "HOME="+cmd.Dir, "DATABASE="+filepath.Join(cmd.Dir, "db")), fill(p.env)...)
	if err := cmd.Start(); err != nil {
		return err
	}
	b.Cleanup(func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() })
	for range 200 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.Write(p.request(content))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	body, _ := io.ReadAll(res.Body)
	p.conns = dialRaw(b, addr, 16)
	p.read = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", p.path(res, string(body)))
	got, err := p.conns[0].exchange(p.read)
	if err == nil && len(got) != benchSize {
		err = fmt.Errorf("status %d, read %d bytes", res.StatusCode, len(got))
	}
	return err
}
