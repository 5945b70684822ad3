//go:build unix

package main

// Cases that somebody meets and no other test's subject is.

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestWithoutHost(t *testing.T) {
	ts := start(t, "MIN_ENTROPY=1.5")
	c := ts.dial()
	fmt.Fprint(c, "GET / HTTP/1.0\r\nAccept: text/plain\r\n\r\n")
	if a := ts.answered(c); !strings.Contains(a.body, " http://localhost/") || !strings.Contains(a.body, "Least entropy: 1.50 bits") {
		t.Errorf("the manual for HTTP/1.0: %s", a.body)
	}
}

// A token does not make up for the certificate that an operator demands of all who store something.
func TestTokenIsNoCertificate(t *testing.T) {
	ts := start(t)
	p := ts.create("before")
	ts.stop()
	ts = startIn(t, ts.dir, "REQUIRE_CERT=any")
	token := "X-Delete-Token: " + p.DeleteToken
	ts.do("PUT", "/"+p.ID, strings.NewReader("after"), token).want(401, "certificate_required")
	ts.do("PUT", "/"+p.ID, nil, token, "X-Expiry: 1h").want(200, "")
	if a := ts.get("/" + p.ID + "/raw"); a.body != "before" {
		t.Errorf("%q", a.body)
	}
}

func TestFirstURL(t *testing.T) {
	unix := &net.UnixAddr{Name: "/run/x.sock", Net: "unix"}
	for want, c := range map[string]struct {
		cfg  config
		addr net.Addr
	}{
		"https://paste.example.org/p":                {config{publicURL: "https://paste.example.org", prefix: "/p"}, unix},
		"--unix-socket /run/x.sock http://localhost": {config{}, unix},
		"http://localhost:5000":                      {config{}, &net.TCPAddr{IP: net.IPv6unspecified, Port: 5000}},
		"https://192.0.2.1:443":                      {config{tlsCert: "x"}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}},
	} {
		if got := firstURL(&c.cfg, addressOnly{addr: c.addr}); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

type addressOnly struct {
	net.Listener
	addr net.Addr
}

func (a addressOnly) Addr() net.Addr { return a.addr }

func TestJournalGetsJSON(t *testing.T) {
	var st syscall.Stat_t
	if err := syscall.Fstat(2, &st); err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]string{fmt.Sprintf("%d:%d", st.Dev, st.Ino): "json", fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): "text", "x": "text", "": "text"} {
		if cfg, err := loadConfig([]string{"JOURNAL_STREAM=" + stream}); err != nil || cfg.log != want {
			t.Errorf("JOURNAL_STREAM=%q: %v, want %s", stream, err, want)
		}
	}
}

func TestHealthcheckOfTheUnhealthy(t *testing.T) {
	sick := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }))
	defer sick.Close()
	var out, errs bytes.Buffer
	if code := run([]string{"flaskpaste", "healthcheck"}, []string{"FLASKPASTE_LISTEN=" + sick.Listener.Addr().String()}, &out, &errs); code != 1 || !strings.Contains(errs.String(), "status 503") {
		t.Errorf("exit code %d, %q", code, errs.String())
	}
}

// Past the limit who waits longest goes; who is served stays; and when all are, the new one goes.
func TestConnectionsAreThinned(t *testing.T) {
	cs := connections{most: 4}
	closed := make([]bool, 7)
	conns := make([]net.Conn, len(closed))
	for i := range conns {
		conns[i] = closing{closed: &closed[i]}
	}
	for _, c := range conns[:4] {
		cs.changed(c, http.StateNew)
	}
	cs.changed(conns[0], http.StateActive) // served
	cs.changed(conns[1], http.StateActive)
	cs.changed(conns[1], http.StateIdle) // waits, but not as long as the next two
	cs.changed(conns[4], http.StateNew)
	if fmt.Sprint(closed) != "[false false true false false false false]" || cs.count() != 4 {
		t.Errorf("closed %v, %d open", closed, cs.count())
	}
	for _, c := range []net.Conn{conns[1], conns[3], conns[4]} {
		cs.changed(c, http.StateActive)
	}
	cs.changed(conns[5], http.StateNew)
	if !closed[5] || cs.count() != 4 {
		t.Errorf("closed %v, %d open", closed, cs.count())
	}
	cs.changed(conns[0], http.StateClosed)
	cs.changed(conns[6], http.StateNew)
	if closed[6] || cs.count() != 4 {
		t.Errorf("closed %v, %d open", closed, cs.count())
	}
}

type closing struct {
	net.Conn
	closed *bool
}

func (c closing) Close() error { *c.closed = true; return nil }

func TestListenOnUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	cfg := &config{listen: []string{"unix:" + path}, socketMode: 0o600}
	l, err := listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if info := must(os.Stat(path)); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if _, err := listen(cfg); err == nil || !strings.Contains(err.Error(), "another program answers") {
		t.Errorf("a second one: %v", err)
	}
	l[0].(*net.UnixListener).SetUnlinkOnClose(false) // as a crash would
	l[0].Close()
	if l, err = listen(cfg); err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	l[0].Close()
	writeFile(t, path, []byte("a file of somebody's"))
	if _, err := listen(cfg); err == nil || readFile(t, path) != "a file of somebody's" {
		t.Errorf("a file in the way: %v", err)
	}
}

func TestEnrolmentWithoutWork(t *testing.T) {
	ts := startPKI(t, "REGISTRATION=open", "REGISTER_POW=0")
	if a := ts.get("/register/challenge"); a.body != `{"enabled": false, "difficulty": 0}`+"\n" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

func TestInitWithoutPassword(t *testing.T) {
	dir := t.TempDir()
	var out, errs bytes.Buffer
	if code := run([]string{"flaskpaste", "pki", "init"}, []string{"FLASKPASTE_DATABASE=" + database(dir)}, &out, &errs); code != 1 || !strings.Contains(errs.String(), "FLASKPASTE_PKI_CA_PASSWORD is not set") {
		t.Errorf("exit code %d, %q", code, errs.String())
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Errorf("made %v", list)
	}
}

func TestInitThroughALink(t *testing.T) {
	dir, home := t.TempDir(), t.TempDir()
	if err := os.Symlink(database(home), database(dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := operatorIn(database(dir), "init"); err == nil || !strings.Contains(err.Error(), "no database at") {
		t.Errorf("error %v", err)
	}
	if list, _ := os.ReadDir(home); len(list) != 0 {
		t.Errorf("made %v", list)
	}
}
