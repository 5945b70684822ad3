package main

// The ways in which tests start the server: in this process over a real listener with the time in the test's hand, or
// as the real program (this test binary, run again).

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv("RUN_AS_FLASKPASTE") == "1" {
		os.Unsetenv("RUN_AS_FLASKPASTE")
		os.Exit(run(os.Args, os.Environ(), os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// clock is a wall clock that a test moves.
type clock struct {
	mu     sync.Mutex
	offset time.Duration
	held   time.Time // unless zero: what time.Now is taken for
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.held.IsZero() {
		return c.held.Add(c.offset)
	}
	return time.Now().Add(c.offset)
}

// hold stops the clock but for advance: a machine that stands still for a moment refills no limit and ends no life
// then.
func (c *clock) hold() {
	c.mu.Lock()
	c.held = time.Now()
	c.mu.Unlock()
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	c.offset += d
	c.mu.Unlock()
}

// lockedBuffer is a log that a test reads while the server writes.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// testServer is the real server in this process.
type testServer struct {
	*server
	t     testing.TB
	url   string // with the prefix, without a slash at the end
	dir   string
	clock *clock
	logs  *lockedBuffer
	http  *http.Server
	stop  func() // ends the server and closes its database; a second call does nothing
}

// quiet switches off what would refuse a test's requests; a test of these limits names them itself.
var quiet = []string{"MIN_FREE=0", "POW_DIFFICULTY=0", "RATE_CREATE=0", "RATE_READ=0", "RATE_MISS=0", "RATE_AUTH=0",
	"RATE_BYTES=0", "DEDUP_MAX=0"}

// environment puts env over quiet and completes the names. "defaults" in env leaves quiet out but for the disk reserve.
func environment(env []string) (environ []string) {
	base := quiet
	if slices.Contains(env, "defaults") {
		base = quiet[:1]
	}
	values := map[string]string{}
	for _, e := range append(slices.Clone(base), env...) {
		if k, v, ok := strings.Cut(e, "="); ok {
			values[k] = v
		}
	}
	for k, v := range values {
		environ = append(environ, "FLASKPASTE_"+k+"="+v)
	}
	return append(environ, coverage()...)
}

// coverage lets a process that a test starts count what it reaches, for .ci/coverage.
func coverage() []string {
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		return []string{"GOCOVERDIR=" + dir}
	}
	return nil
}

// start runs a server with a database in a new folder; env is NAME=value without the FLASKPASTE_.
func start(t testing.TB, env ...string) *testServer { return startIn(t, t.TempDir(), env...) }

// startIn runs a server on the database of dir.
func startIn(t testing.TB, dir string, env ...string) *testServer {
	t.Helper()
	return startAt(t, dir, 0, env...)
}

// startAt runs a server on the database of dir whose wall clock is offset off.
func startAt(t testing.TB, dir string, offset time.Duration, env ...string) *testServer {
	t.Helper()
	ts := newTestServer(t, dir, offset, env...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ts.http = newHTTPServer(ts.server)
	go ts.http.Serve(newDoors(ts.server).at(l))
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { ts.sweepLoop(ctx) })
	ts.url = "http://" + l.Addr().String() + ts.cfg.prefix
	ts.stop = sync.OnceFunc(func() {
		ts.http.Close()
		cancel()
		loops.Wait()
		if err := ts.store.close(); err != nil && err != errClosed {
			t.Errorf("closing the store: %v", err)
		}
	})
	t.Cleanup(ts.stop)
	return ts
}

// newTestServer is startAt without its loops and its listener: what a test may run in a bubble of testing/synctest.
func newTestServer(t testing.TB, dir string, offset time.Duration, env ...string) *testServer {
	t.Helper()
	cfg, err := loadConfig(environment(append([]string{"DATABASE=" + filepath.Join(dir, "flaskpaste.db")}, env...)))
	if err != nil {
		t.Fatal(err)
	}
	ts := &testServer{t: t, dir: dir, clock: &clock{offset: offset}, logs: new(lockedBuffer)}
	log := slog.New(slog.NewTextHandler(ts.logs, &slog.HandlerOptions{Level: cfg.logLevel}))
	st, err := openStore(storeOptions{path: cfg.database, full: cfg.sync == "full", checkpoint: cfg.checkpoint == "on",
		cacheSize: cfg.cache, reserve: cfg.minFree, maxLife: int64(cfg.maxExpiry / time.Second),
		linger: int64((cfg.transferTimeout + time.Minute) / time.Second), log: log, fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	if ts.server, err = newServer(cfg, st, log, ts.clock.now); err != nil {
		t.Fatal(err)
	}
	return ts
}

// answer is a response read to its end.
type answer struct {
	*http.Response
	body string
	t    testing.TB
}

// do sends a request; headers are "Name: value".
func (ts *testServer) do(method, path string, body io.Reader, headers ...string) *answer {
	ts.t.Helper()
	a, err := ts.try(method, path, body, headers...)
	if err != nil {
		ts.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

var testClient = &http.Client{
	Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64, DialContext: dialUncut},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// uncut is a connection on which a write never fails. A server that refuses a body closes half a second after its
// answer; to a client that was held up for so long the failed write would come first, while the answer still waits to
// be read.
type uncut struct{ net.Conn }

func (c uncut) Write(b []byte) (int, error) {
	c.Conn.Write(b)
	return len(b), nil
}

func dialUncut(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return uncut{c}, nil
}

func (ts *testServer) try(method, path string, body io.Reader, headers ...string) (*answer, error) {
	req, err := http.NewRequest(method, ts.url+path, body)
	if err != nil {
		return nil, err
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		if k == "Host" {
			req.Host = v
		} else {
			req.Header.Add(k, v)
		}
	}
	res, err := testClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return &answer{res, string(b), ts.t}, err
}

func (ts *testServer) get(path string, headers ...string) *answer {
	ts.t.Helper()
	return ts.do("GET", path, nil, headers...)
}

// post creates a paste of content and returns the JSON answer.
func (ts *testServer) post(content string, headers ...string) *answer {
	ts.t.Helper()
	return ts.do("POST", "/", strings.NewReader(content), headers...)
}

// create posts content and wants a 201.
func (ts *testServer) create(content string, headers ...string) created {
	ts.t.Helper()
	a := ts.post(content, headers...)
	a.want(201, "")
	var c created
	if err := json.Unmarshal([]byte(a.body), &c); err != nil {
		ts.t.Fatalf("answer %q: %v", a.body, err)
	}
	return c
}

// created is a paste as the server describes it.
type created = pasteAnswer

// want checks status and, when not empty, the error's code.
func (a *answer) want(status int, code string) *answer {
	a.t.Helper()
	if a.StatusCode != status || code != "" && a.field("code") != code {
		a.t.Fatalf("%s %s: status %d, body %.300q; want %d %s", a.Request.Method, a.Request.URL.RequestURI(), a.StatusCode, a.body, status, code)
	}
	return a
}

// field returns a member of a JSON answer as text, "" if absent.
func (a *answer) field(name string) string {
	var m map[string]any
	dec := json.NewDecoder(strings.NewReader(a.body))
	dec.UseNumber()
	if dec.Decode(&m) != nil || m[name] == nil {
		return ""
	}
	return fmt.Sprint(m[name])
}

// process is the real program, started by its own binary.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	url  string
	logs *lockedBuffer
	done chan struct{}
}

// program prepares a command of the real program in an environment of its own.
func program(dir string, env []string, args ...string) *exec.Cmd {
	exe, _ := os.Executable()
	cmd := exec.Command(exe, args...)
	cmd.Dir = dir
	cmd.Env = append([]string{"RUN_AS_FLASKPASTE=1", "PATH=" + os.Getenv("PATH"), "HOME=" + dir,
		"GOMEMLIMIT=" + os.Getenv("GOMEMLIMIT")}, append(env, coverage()...)...)
	return cmd
}

// launch starts the program's server in dir on a port that the kernel chooses, and waits until it listens.
func launch(t testing.TB, dir string, env ...string) *process {
	t.Helper()
	p := tryLaunch(t, dir, env...)
	if p.url == "" {
		t.Fatalf("the server does not listen: %s", p.logs)
	}
	return p
}

// tryLaunch is launch where the start may be refused: the process has no url then.
func tryLaunch(t testing.TB, dir string, env ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: program(dir, environment(append([]string{"LISTEN=127.0.0.1:0"}, env...)), "serve"),
		logs: new(lockedBuffer), done: make(chan struct{})}
	out, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening := make(chan string, 1)
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			fmt.Fprintln(p.logs, lines.Text())
			if _, a, ok := strings.Cut(lines.Text(), "msg=listening address="); ok {
				select {
				case listening <- a:
				default:
				}
			}
		}
		p.cmd.Wait()
	}()
	t.Cleanup(p.kill)
	select {
	case a := <-listening:
		p.url = "http://" + a
	case <-p.done:
	case <-time.After(20 * time.Second):
	}
	return p
}

// kill is kill -9.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// stop is a SIGTERM; it returns the exit code.
func (p *process) stop() int {
	p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// waitLog waits until the program has logged text.
func waitLog(p *process, text string) string {
	for range 3000 {
		if strings.Contains(p.logs.String(), text) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return p.logs.String()
}

// ---- what several tests need ----

// proxySecret is what the tests' trusted proxy shows; proxied is the environment of a server behind it.
const proxySecret = "a-secret-of-the-proxy"

var proxied = []string{"TRUSTED_PROXIES=127.0.0.1", "PROXY_SECRET=" + proxySecret}

// Fingerprints of two certificates that nobody has.
const (
	certAlice   = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	certMallory = "3333333333333333333333333333333333333333"
)

// withCert returns the headers with which the trusted proxy passes on a request of the holder of that certificate.
func withCert(cert string, headers ...string) []string {
	return append([]string{"X-Proxy-Secret: " + proxySecret, "X-SSL-Client-SHA1: " + cert}, headers...)
}

// from returns the headers with which the trusted proxy passes on a request from an address.
func from(addr string, headers ...string) []string {
	return append([]string{"X-Proxy-Secret: " + proxySecret, "X-Forwarded-For: " + addr}, headers...)
}

// in is the same server within a sub-test.
func (ts *testServer) in(t testing.TB) *testServer {
	c := *ts
	c.t = t
	return &c
}

// number asks the database for one integer.
func (ts *testServer) number(query string, args ...any) (n int64) {
	ts.t.Helper()
	if err := ts.store.r.QueryRow(query, args...).Scan(&n); err != nil {
		ts.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// settled waits until a query gives want: what a server does behind an answer (removing chunks, freeing slots) takes a
// moment.
func (ts *testServer) settled(what string, want int64, get func() int64) {
	ts.t.Helper()
	var got int64
	for range 3000 {
		if got = get(); got == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.t.Fatalf("%s: %d, want %d", what, got, want)
}

// stored wants exactly n pastes, no chunk and no byte beside theirs, and no slot taken.
func (ts *testServer) stored(n int64) {
	ts.t.Helper()
	ts.settled("pastes", n, func() int64 { return ts.number("SELECT count(*) FROM pastes") })
	ts.settled("garbage", 0, func() int64 { ts.sweep(); return ts.number("SELECT count(*) FROM garbage") })
	ts.settled("chunks without a paste", 0, func() int64 {
		return ts.number("SELECT count(*) FROM chunks WHERE key >> 20 NOT IN (SELECT content FROM pastes)")
	})
	size := ts.number("SELECT coalesce(sum(size), 0) FROM pastes")
	ts.settled("bytes of chunks", size, func() int64 { return ts.number("SELECT coalesce(sum(length(data)), 0) FROM chunks") })
	ts.settled("counted pastes", n, func() int64 { return must(ts.store.stats()).pastes })
	ts.settled("upload slots", 0, func() int64 { return int64(ts.uploads.inUse()) })
	ts.settled("download slots", 0, func() int64 { return int64(ts.downloads.inUse()) })
}

// nothing wants that nothing is stored at all.
func (ts *testServer) nothing() { ts.t.Helper(); ts.stored(0) }

// block keeps the writer busy until release is called; what is asked of it meanwhile waits.
func (ts *testServer) block() (release func()) {
	begun, end := make(chan struct{}), make(chan struct{})
	go ts.store.do(0, func(*writeTx) error { close(begun); <-end; return nil })
	<-begun
	release = sync.OnceFunc(func() { close(end) })
	ts.t.Cleanup(release)
	return release
}

// sweep removes what has expired by the test's clock, and returns the number of pastes and short URLs.
func (ts *testServer) sweep() int {
	ts.t.Helper()
	n := 0
	for more := true; more; {
		var pastes, shorts int
		var err error
		if pastes, shorts, more, err = ts.store.sweep(ts.clock.now().Unix()); err != nil {
			ts.t.Fatal(err)
		}
		n += pastes + shorts
	}
	return n
}

// address is host:port of the server.
func (ts *testServer) address() string {
	host, _, _ := strings.Cut(strings.TrimPrefix(ts.url, "http://"), "/")
	return host
}

// dial opens a connection that a test writes HTTP on by hand; it fails after half a minute.
func (ts *testServer) dial() net.Conn {
	ts.t.Helper()
	c, err := net.Dial("tcp", ts.address())
	if err != nil {
		ts.t.Fatal(err)
	}
	ts.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

// byHand sends a request as written and returns everything that comes back until the server closes or the answer is
// whole.
func (ts *testServer) byHand(method, text string) *answer {
	ts.t.Helper()
	c := ts.dial()
	io.WriteString(c, text)
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method, URL: &url.URL{Path: "by hand"}})
	if err != nil {
		ts.t.Fatalf("%.60q: %v", text, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		ts.t.Fatalf("%.60q: %v", text, err)
	}
	return &answer{res, string(b), ts.t}
}

// chunked hides what a body is, so that it goes out in chunks, its length unknown.
type chunked struct{ io.Reader }

// pattern is n bytes in which every 256 KiB differ from the others.
func pattern(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('!' + (i/7+i/chunkSize*13+i/1024)%90)
	}
	return string(b)
}

func sum256(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) }

// ---- the proof: crashes, faults, load and attacks, which deploy/prove.sh runs in their longer forms and shows as one table ----

var prove = flag.String("prove", "", "how much the tests of the proof do: short for CI, long for a release; little without it")

// amount is how much a test of the proof does, by -prove.
func amount(little, short, long int) int {
	switch *prove {
	case "short":
		return short
	case "long":
		return long
	}
	return little
}

// proved prints one row of the proof's table: its part, what was done, what was found.
func proved(t *testing.T, part, what, found string, args ...any) {
	t.Helper()
	if *prove == "" {
		return
	}
	verdict := "held"
	if t.Failed() {
		verdict = "FAILED"
	}
	fmt.Printf("\n| %s | %s | %s | %s |\n", part, what, fmt.Sprintf(found, args...), verdict)
}

// tally is how often each of some things happened; it reads as "3 errors, 1 all there".
type tally map[string]int

func (c tally) String() string {
	list := []string{}
	for _, what := range slices.Sorted(maps.Keys(c)) {
		list = append(list, fmt.Sprintf("%d %s", c[what], what))
	}
	return strings.Join(list, ", ")
}

// need returns the path of a program; without it the test is skipped, but not by CI, which has all of them.
func need(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		unable(t, name+" is not installed")
	}
	return path
}

// unable skips what can't be tried on this machine, and fails in CI.
func unable(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }
