//go:build unix

package main

// What a service manager and the operating system see of the program: sockets that were handed over, states, the watchdog, a
// restart that loses nobody, descriptors that run out, files of another user.

import (
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// manager plays systemd: it owns listening sockets and the socket of notifications.
type manager struct {
	t      testing.TB
	dir    string
	notify *net.UnixConn
	files  []*os.File // of the listening sockets
	urls   []string
	unix   string
	states chan string
}

// newManager listens on a TCP and a Unix socket; notify is the name of the notification socket, "@..." for an abstract one.
func newManager(t testing.TB, notify string) *manager {
	t.Helper()
	m := &manager{t: t, dir: t.TempDir(), states: make(chan string, 1000)}
	m.unix = filepath.Join(m.dir, "http.sock")
	for _, a := range [][2]string{{"tcp", "127.0.0.1:0"}, {"unix", m.unix}} {
		l := must(net.Listen(a[0], a[1]))
		m.files = append(m.files, must(l.(interface{ File() (*os.File, error) }).File()))
		m.urls = append(m.urls, "http://"+l.Addr().String())
		t.Cleanup(func() { l.Close() })
	}
	m.notify = must(net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"}))
	t.Cleanup(func() { m.notify.Close() })
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := m.notify.Read(b)
			if err != nil {
				close(m.states)
				return
			}
			for line := range strings.SplitSeq(string(b[:n]), "\n") {
				m.states <- line
			}
		}
	}()
	return m
}

// start runs the server with the sockets from descriptor 3 on. LISTEN_PID must be its own, so a shell becomes it.
func (m *manager) start(env ...string) *exec.Cmd {
	m.t.Helper()
	exe := must(os.Executable())
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" serve`, exe)
	cmd.Dir = m.dir
	cmd.Env = append(append(environment([]string{"LISTEN=127.0.0.1:1", "LOG_LEVEL=warn"}), "RUN_AS_FLASKPASTE=1", "LISTEN_FDS=2", "NOTIFY_SOCKET="+m.notify.LocalAddr().String()), env...)
	cmd.ExtraFiles = m.files
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// expect waits for a state of that prefix and returns it.
func (m *manager) expect(prefix string) string {
	m.t.Helper()
	patience := time.After(20 * time.Second)
	for {
		select {
		case state := <-m.states:
			if strings.HasPrefix(state, prefix) {
				return state
			}
		case <-patience:
			m.t.Fatalf("no %s", prefix)
		}
	}
}

// Two sockets are taken over, states are told in order, and five restarts under load lose no connection.
func TestActivationAndRestart(t *testing.T) {
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	cmd := m.start()
	m.expect("READY=1")
	m.expect("STATUS=serving")
	var last int64
	for range 2 { // a reload says when it began, on the monotonic clock
		cmd.Process.Signal(syscall.SIGHUP)
		m.expect("RELOADING=1")
		usec, err := strconv.ParseInt(strings.TrimPrefix(m.expect("MONOTONIC_USEC="), "MONOTONIC_USEC="), 10, 64)
		if err != nil || runtime.GOOS == "linux" && usec <= last {
			t.Errorf("MONOTONIC_USEC is %d after %d, %v", usec, last, err)
		}
		last = usec
		m.expect("READY=1")
	}

	var sent, lost atomic.Int64
	var done atomic.Bool
	var load sync.WaitGroup
	for i := range 8 {
		load.Go(func() {
			// a connection for each request: one that is kept open may be closed by either side, which is HTTP's own race
			transport := &http.Transport{DisableKeepAlives: true}
			url := m.urls[0]
			if i%4 == 0 {
				transport.DialContext, url = unixDial(m.unix), "http://localhost"
			}
			c := http.Client{Transport: transport, Timeout: 30 * time.Second}
			for !done.Load() {
				sent.Add(1)
				res, err := c.Post(url+"/", "text/plain", strings.NewReader("load"))
				if err == nil {
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				if err != nil || res.StatusCode != 201 {
					lost.Add(1)
					t.Errorf("lost: %v %v", res, err)
				}
			}
		})
	}
	for range 5 {
		time.Sleep(300 * time.Millisecond)
		cmd.Process.Signal(syscall.SIGTERM)
		m.expect("STOPPING=1")
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
		cmd = m.start()
		m.expect("READY=1")
	}
	done.Store(true)
	load.Wait()
	t.Logf("5 restarts: %d requests, %d lost", sent.Load(), lost.Load())
}

// The watchdog is fed while the writer answers and only then. The notification socket is an abstract one here.
func TestWatchdog(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("systemd runs on Linux")
	}
	m := newManager(t, fmt.Sprintf("@flaskpaste-test-%d", os.Getpid()))
	m.start("WATCHDOG_USEC=200000")
	m.expect("WATCHDOG=1")
	m.expect("WATCHDOG=1")
	db := must(sql.Open("sqlite", dsn(filepath.Join(m.dir, "data", "flaskpaste.db"), "rw")))
	defer db.Close()
	db.SetMaxOpenConns(1)
	must(db.Exec("BEGIN IMMEDIATE"))
	fed := 0
	quiet, patience := time.NewTimer(1500*time.Millisecond), time.After(30*time.Second)
	for blocked := true; blocked; { // an answer of health is good for a second, and what was sent may be read late: wait until nothing comes
		select {
		case <-m.states:
			fed++
			quiet.Reset(1500 * time.Millisecond)
		case <-quiet.C:
			blocked = len(m.states) > 0
		case <-patience:
			t.Fatalf("fed %d times while the writer was blocked", fed)
		}
	}
	must(db.Exec("ROLLBACK"))
	m.expect("WATCHDOG=1")
}

// Somebody opens more connections than there are descriptors and never finishes a header: the health check answers all the
// same, and an upload that was under way goes through.
func TestDescriptorsRunOut(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "http.sock")
	exe := must(os.Executable())
	env := append(environment([]string{"LISTEN=unix:" + socket, "DATABASE=" + filepath.Join(dir, "flaskpaste.db")}), "RUN_AS_FLASKPASTE=1")
	cmd := exec.Command("/bin/sh", "-c", `ulimit -n 160 && exec "$0" serve`, exe)
	cmd.Env = env
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	check := func() (err error) {
		for range 3 { // it waits 3 s, a busy machine may stop for longer
			c := exec.Command(exe, "healthcheck")
			c.Env = env
			if err = c.Run(); err == nil {
				break
			}
		}
		return err
	}
	for range 500 {
		if check() == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	body, feed := io.Pipe()
	uploaded := make(chan error, 1)
	client := &http.Client{Transport: &http.Transport{DialContext: unixDial(socket)}}
	go func() {
		res, err := client.Post("http://localhost/", "text/plain", body)
		if err == nil && res.StatusCode != 201 {
			err = fmt.Errorf("status %d", res.StatusCode)
		}
		uploaded <- err
	}()
	feed.Write(make([]byte, 2<<20)) // more than the socket holds: when it returns, the server has read the header
	for i := range 400 {
		c, err := net.DialTimeout("unix", socket, 5*time.Second)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
		if i%100 == 99 {
			if err := check(); err != nil {
				t.Errorf("the health check after %d connections: %v", i+1, err)
			}
		}
	}
	io.WriteString(feed, "and the end")
	feed.Close()
	if err := <-uploaded; err != nil {
		t.Errorf("the upload under way: %v", err)
	}
}

// A folder or a file of another user is explained in one line that says what to type.
func TestWrongOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	const user = 65532
	// not t.TempDir: its parents are root's alone
	dir := must(os.MkdirTemp("/var/tmp", "flaskpaste-owner"))
	defer os.RemoveAll(dir)
	exe := filepath.Join(dir, "flaskpaste")
	if err := os.WriteFile(exe, must(os.ReadFile(must(os.Executable()))), 0o755); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	os.Mkdir(data, 0o755)
	for _, path := range []string{dir, exe, data} { // whatever the umask
		os.Chmod(path, 0o755)
	}
	try := func() string {
		cmd := exec.Command(exe, "serve")
		cmd.Env = append(environment([]string{"LISTEN=unix:" + filepath.Join(data, "s"), "DATABASE=" + filepath.Join(data, "flaskpaste.db")}), "RUN_AS_FLASKPASTE=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Fatal("it started")
		}
		return string(out)
	}
	want := fmt.Sprintf("%s belongs to user 0, and this is user %d: chown -R %d %s\n", data, user, user, data)
	if out := try(); strings.Count(out, "\n") != 1 || !strings.HasSuffix(out, want) {
		t.Errorf("a folder of another user: %q, want %q", out, want)
	}
	os.Chown(data, user, user)
	os.WriteFile(filepath.Join(data, "flaskpaste.db"), nil, 0o600)
	want = fmt.Sprintf("flaskpaste.db belongs to user 0, and this is user %d: chown -R %d %s\n", user, user, data)
	if out := try(); !strings.HasSuffix(out, want) {
		t.Errorf("a file of another user: %q, want %q", out, want)
	}
}
