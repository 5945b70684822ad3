package main

// The process as a service manager sees it: start and its errors, sockets that were handed over, states, the
// watchdog, the forms of the log, signals, and a stop that loses nothing that was acknowledged, whatever is in its
// way.

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// manager plays systemd: it owns listening sockets and the socket of notifications.
type manager struct {
	t         testing.TB
	dir       string
	notify    string     // the socket's name
	files     []*os.File // of the listening sockets
	url, unix string
	states    chan string
}

// newManager listens on a TCP and a Unix socket; notify is the name of the notification socket, "@..." for an
// abstract one.
func newManager(t testing.TB, notify string) *manager {
	t.Helper()
	m := &manager{t: t, dir: t.TempDir(), notify: notify, states: make(chan string, 10_000)}
	m.unix = filepath.Join(m.dir, "http.sock")
	tcp, unix := must(net.Listen("tcp", "127.0.0.1:0")), must(net.Listen("unix", m.unix))
	m.url = "http://" + tcp.Addr().String()
	m.files = []*os.File{must(tcp.(*net.TCPListener).File()), must(unix.(*net.UnixListener).File())}
	told := must(net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"}))
	t.Cleanup(func() { tcp.Close(); unix.Close(); told.Close() })
	go func() {
		b := make([]byte, 4096)
		for n, err := told.Read(b); err == nil; n, err = told.Read(b) {
			for line := range strings.SplitSeq(string(b[:n]), "\n") {
				m.states <- line
			}
		}
	}()
	return m
}

// start runs the server with the sockets from descriptor 3 on. LISTEN_PID must be its own, so a shell becomes it.
func (m *manager) start(logs io.Writer, env ...string) *exec.Cmd {
	m.t.Helper()
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" serve`, must(os.Executable()))
	cmd.Dir = m.dir
	cmd.Env = append(append(environment([]string{"LISTEN=127.0.0.1:1"}), "RUN_AS_FLASKPASTE=1", "LISTEN_FDS=2",
		"NOTIFY_SOCKET="+m.notify), env...)
	cmd.ExtraFiles = m.files
	cmd.Stderr = logs
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// expect waits for a state.
func (m *manager) expect(want string) {
	m.t.Helper()
	patience := time.After(time.Minute)
	for {
		select {
		case state := <-m.states:
			if state == want {
				return
			}
		case <-patience:
			m.t.Fatalf("no %s", want)
		}
	}
}

func overUnix(path string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
}

// TestActivationAndRestart: two sockets are taken over, states come in order, SIGHUP does nothing, and restarts under
// load lose nobody.
func TestActivationAndRestart(t *testing.T) {
	t.Parallel()
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	logs := new(lockedBuffer)
	cmd := m.start(logs)
	for _, state := range []string{"STATUS=opening the database", "READY=1", "STATUS=serving"} {
		m.expect(state)
	}
	const ignored = "level=WARN msg=\"FLASKPASTE_LISTEN is ignored"
	if !strings.Contains(waitLog(&process{logs: logs}, ignored), ignored) { // what was written is read a moment later
		t.Errorf("LISTEN beside sockets: %s", logs)
	}
	var sent atomic.Int64
	var done atomic.Bool
	var load sync.WaitGroup
	for i := range 6 {
		load.Go(func() {
			// One that is kept open may be closed by either side, which is HTTP's own race.
			transport := &http.Transport{DisableKeepAlives: true}
			url := m.url
			if i%3 == 0 {
				transport.DialContext, url = overUnix(m.unix), "http://localhost"
			}
			c := http.Client{Transport: transport, Timeout: time.Minute}
			for !done.Load() {
				res, err := c.Post(url+"/", "text/plain", strings.NewReader("load"))
				if err == nil {
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				if err != nil || res.StatusCode != 201 {
					t.Errorf("lost: %v %v", res, err)
				}
				sent.Add(1)
			}
		})
	}
	for range 3 {
		cmd.Process.Signal(syscall.SIGHUP)
		for before := sent.Load(); sent.Load() < before+50 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		cmd.Process.Signal(syscall.SIGTERM)
		m.expect("STOPPING=1")
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v: %s", err, logs)
		}
		cmd = m.start(logs)
		m.expect("READY=1")
	}
	done.Store(true)
	load.Wait()
}

// TestWatchdog: it is fed while the writer moves and the doors accept, and only then.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	m := newManager(t, fmt.Sprintf("@flaskpaste-test-%d", os.Getpid())) // an abstract one
	cmd := m.start(io.Discard, "WATCHDOG_USEC=100000")
	m.expect("WATCHDOG=1")
	silence := func(why string) { // what was sent may be read late: wait until nothing comes
		t.Helper()
		patience := time.After(time.Minute)
		for quiet := 0; quiet < 10; {
			select {
			case <-m.states:
				quiet = 0
			case <-time.After(50 * time.Millisecond):
				quiet++
			case <-patience:
				t.Fatalf("fed all the time: %s", why)
			}
		}
	}
	db := must(sql.Open("sqlite", dsn(filepath.Join(m.dir, "data", "flaskpaste.db"), "rw")))
	defer db.Close()
	db.SetMaxOpenConns(1)
	must(db.Exec("BEGIN IMMEDIATE"))
	answered := make(chan error, 1)
	go func() {
		res, err := http.Post(m.url+"/", "text/plain", strings.NewReader("x"))
		if err == nil {
			res.Body.Close()
		}
		answered <- err
	}()
	silence("the writer waits for a lock")
	must(db.Exec("ROLLBACK"))
	<-answered
	m.expect("WATCHDOG=1")
	// A process that runs but whose doors take nobody: its listening sockets are shut down from outside.
	for _, f := range m.files {
		syscall.Shutdown(int(f.Fd()), syscall.SHUT_RD)
	}
	silence("the doors are shut")
	cmd.Process.Kill()
}

// TestStartErrors: each start that fails says why in one line, in the form of its log, with the code that tells
// systemd whether to try again.
func TestStartErrors(t *testing.T) {
	dir := t.TempDir()
	other := launch(t, dir, "DATABASE=taken.db", "LISTEN=127.0.0.1:0,unix:taken.sock")
	writeFiles(t, dir, map[string][]byte{"foreign.db": []byte(strings.Repeat("text", 1000))})
	for _, tc := range []struct {
		env  string
		code int
		says string
	}{
		{"MAX_ANON=x", exitConfig, "FLASKPASTE_MAX_ANON"}, {"TLS_CERT=x", exitConfig, "FLASKPASTE_TLS_CERT"},
		{"DATABASE=taken.db", exitFailed, "another server uses the database"},
		{"DATABASE=foreign.db", exitFailed, "not a flaskpaste database"},
		{"LISTEN=" + strings.TrimPrefix(other.url, "http://"), exitFailed, "address already in use"},
		{"LISTEN=unix:taken.sock", exitFailed, "another program answers"},
	} {
		for _, form := range []string{"text", "json"} {
			p := tryLaunch(t, dir, "LOG="+form, tc.env)
			log, said := p.logs.String(), ""
			if line := (struct{ Level, Error string }{}); form == "text" {
				said, _ = strings.CutPrefix(log, "flaskpaste: ")
			} else if json.Unmarshal([]byte(log), &line) == nil && line.Level == "ERROR" {
				said = line.Error
			}
			if !strings.Contains(said, tc.says) || p.url != "" || p.cmd.ProcessState.ExitCode() != tc.code ||
				strings.Count(log, "\n") != 1 {
				t.Errorf("%s, %s: %v: %s", tc.env, form, p.cmd.ProcessState, log)
			}
		}
	}
	// A socket file that nobody answers on is left over from a crash; a file is no socket.
	other.kill()
	launch(t, dir, "DATABASE=taken.db", "LISTEN=127.0.0.1:0,unix:taken.sock").stop()
	if p := tryLaunch(t, dir, "LISTEN=unix:foreign.db"); p.url != "" || !exists(filepath.Join(dir, "foreign.db")) {
		t.Error("a file was replaced by a socket")
	}
}

// TestJournal: where stderr is the journal, each line begins with its priority, is JSON, and a failed start is no
// exception.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	serve := func(env ...string) string {
		t.Helper()
		r, w, err := os.Pipe()
		must(0, err)
		info := must(w.Stat()).Sys().(*syscall.Stat_t)
		cmd := program(dir, append(environment(append([]string{"LISTEN=unix:" + filepath.Join(dir, "s"),
			"POW_DIFFICULTY=4"}, env...)),
			fmt.Sprintf("JOURNAL_STREAM=%d:%d", info.Dev, info.Ino)), "serve")
		cmd.Stderr = w
		must(0, cmd.Start())
		w.Close()
		var all strings.Builder
		for lines := bufio.NewScanner(r); lines.Scan(); {
			fmt.Fprintln(&all, lines.Text())
			if strings.Contains(lines.Text(), `"msg":"listening"`) {
				c := http.Client{Transport: &http.Transport{DialContext: overUnix(filepath.Join(dir, "s"))}}
				must(c.Get("http://localhost/")).Body.Close()
				req := must(http.NewRequest("GET", "http://localhost/", nil))
				req.Header.Set("X-SSL-Client-SHA1", "nonsense")
				must(c.Do(req)).Body.Close()
				c.CloseIdleConnections()
				cmd.Process.Signal(syscall.SIGTERM)
			}
		}
		cmd.Wait()
		return all.String()
	}
	log := serve()
	for _, want := range []string{`(?m)^<6>\{"time":"[^"]*","level":"INFO","msg":"listening"`,
		`(?m)^<6>.*"msg":"request".*"route":"GET /\{\$\}"`,
		`(?m)^<4>.*"msg":"audit","audit":true,"event":"certificate_refused"`, `(?m)^<6>.*"msg":"stopping"`} {
		if !regexp.MustCompile(want).MatchString(log) {
			t.Errorf("no line %s", want)
		}
	}
	for line := range strings.Lines(log) {
		if !regexp.MustCompile(`^<[3467]>\{.*\}\n$`).MatchString(line) {
			t.Errorf("line %q", line)
		}
	}
	for form, want := range map[string]string{"json": `^<3>\{.*FLASKPASTE_MAX_ANON.*\}\n$`,
		"text": "^<3>flaskpaste: FLASKPASTE_MAX_ANON.*\n$"} {
		if log := serve("MAX_ANON=x", "LOG="+form); !regexp.MustCompile(want).MatchString(log) {
			t.Errorf("a failed start: %s", log)
		}
	}
	var out bytes.Buffer // elsewhere the variable of another process means nothing
	t.Setenv("JOURNAL_STREAM", "1:1")
	newLog(false, 0, &out).Warn("x")
	if !strings.HasPrefix(out.String(), "time=") {
		t.Errorf("no journal: %s", &out)
	}
}

// TestStop: whatever is in the way of a stop, it ends within 25 s, and nothing that was acknowledged is lost.
func TestStop(t *testing.T) {
	for _, tc := range []struct {
		name string
		code int
		long bool // 20 s are what a reader is given
		load int  // creations that must have been acknowledged
		env  []string
		do   func(t *testing.T, p *process, ts *testServer) (undo func())
	}{
		{"load", 0, false, 200, nil, func(*testing.T, *process, *testServer) func() { return func() {} }},
		{"a long sweep", 0, false, 20, []string{"SWEEP=1s"}, expireMany},
		{"a full queue", 0, true, 0, []string{"MAX_CONNECTIONS=10000", "MAX_UPLOADS=10000"}, lockOut},
		{"a stuck reader", 0, true, 20, nil, stuckReader},
		{"a stuck reader and a second signal", -1, false, 20, nil, twoSignals},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.long && *prove == "" {
				t.Skip("20 s are what a stop gives a reader: -prove short, as .ci/run does")
			}
			dir := t.TempDir()
			env := append([]string{"DATABASE=" + filepath.Join(dir, "flaskpaste.db")}, tc.env...)
			p := launch(t, dir, env...)
			ts := &testServer{t: t, url: p.url, dir: dir}
			undo := tc.do(t, p, ts)
			acknowledged := make(chan string, 4*5000)
			var load sync.WaitGroup
			for range 4 {
				load.Go(func() {
					for range 5000 {
						a, err := ts.try("POST", "/", strings.NewReader("load"))
						if err != nil {
							return // the doors are closed
						}
						if a.StatusCode == 201 {
							acknowledged <- a.field("id")
						}
					}
				})
			}
			for len(acknowledged) < tc.load {
				time.Sleep(time.Millisecond)
			}
			began := time.Now()
			code := p.stop()
			if took := time.Since(began); took > 25*time.Second || code != tc.code {
				t.Errorf("exit code %d after %v: %.2000s", code, took, p.logs)
			}
			undo()
			load.Wait()
			close(acknowledged)
			again := &testServer{t: t, url: launch(t, dir, append(env, "SWEEP=1h")...).url}
			for id := range acknowledged {
				again.get("/"+id+"/raw").want(200, "")
			}
		})
	}
}

// expireMany leaves work for a sweep of many seconds.
func expireMany(t *testing.T, p *process, ts *testServer) func() {
	db := must(sql.Open("sqlite", dsn(filepath.Join(ts.dir, "flaskpaste.db"), "rw")))
	defer db.Close()
	ts.create("one")
	must(db.Exec(`INSERT INTO pastes SELECT content + n, printf('%016x', n), size, mime, sha256, created_at,
		modified_at, 1, life, owner, burn, password, proof, token, name FROM pastes,
		(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100000) SELECT n FROM c)`))
	return func() {}
}

// lockOut lets another process hold the database's lock, and fills the queue with creations that wait for it.
func lockOut(t *testing.T, p *process, ts *testServer) func() {
	db := must(sql.Open("sqlite", dsn(filepath.Join(ts.dir, "flaskpaste.db"), "rw")))
	db.SetMaxOpenConns(1)
	must(db.Exec("BEGIN IMMEDIATE"))
	for range queueOps + 100 {
		c := must(net.Dial("tcp", strings.TrimPrefix(ts.url, "http://")))
		t.Cleanup(func() { c.Close() })
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
	}
	waitLog(p, "code=busy")
	return func() { db.Close() }
}

// stuckReader begins downloads of which nothing more is read.
func stuckReader(t *testing.T, p *process, ts *testServer) func() {
	c := ts.create(pattern(3 << 20))
	for range 3 {
		conn := must(net.Dial("tcp", strings.TrimPrefix(ts.url, "http://")))
		t.Cleanup(func() { conn.Close() })
		conn.(*net.TCPConn).SetReadBuffer(4096)
		fmt.Fprintf(conn, "GET /%s/raw HTTP/1.1\r\nHost: x\r\n\r\n", c.ID)
		must(conn.Read(make([]byte, 100)))
	}
	return func() {}
}

// twoSignals is stuckReader whose patience ends.
func twoSignals(t *testing.T, p *process, ts *testServer) func() {
	go func() {
		waitLog(p, "msg=stopping")
		for p.cmd.Process.Signal(syscall.SIGTERM) == nil {
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return stuckReader(t, p, ts)
}
