package main

// The command line against the real server over a real listener; a stand-in only where the real one can't be hostile.

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const someID = "0123456789abcdef"

// machine is a user's machine: a home, an environment, and the folder that commands run in.
type machine struct {
	t    testing.TB
	home string
	env  map[string]string
}

func newMachine(t testing.TB, server string) *machine {
	m := &machine{t: t, home: t.TempDir(), env: map[string]string{}}
	m.env["HOME"] = m.home
	if server != "" {
		m.env["FPASTE_SERVER"] = server
	}
	return m
}

// try runs a command in this process.
func (m *machine) try(stdin string, args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	env := func(name string) (string, bool) { v, ok := m.env[name]; return v, ok }
	code = runClient(m.t.Context(), args, stdio{strings.NewReader(stdin), &o, &e, env})
	return code, o.String(), e.String()
}

// want runs a command and fails the test on another exit code.
func (m *machine) want(code int, stdin string, args ...string) (out, errs string) {
	m.t.Helper()
	got, out, errs := m.try(stdin, args...)
	if got != code {
		m.t.Fatalf("fpaste %q: exit %d, want %d\n%s%s", args, got, code, out, errs)
	}
	return out, errs
}

// says runs a command that must end with code and have text on stderr.
func (m *machine) says(code int, text, stdin string, args ...string) {
	m.t.Helper()
	if _, errs := m.want(code, stdin, args...); !strings.Contains(errs, text) {
		m.t.Errorf("fpaste %q does not say %q:\n%s", args, text, errs)
	}
}

// shows runs a command that must have text on stdout; gives, one whose stdout must be that.
func (m *machine) shows(text, stdin string, args ...string) {
	m.t.Helper()
	if out, _ := m.want(0, stdin, args...); !strings.Contains(out, text) {
		m.t.Errorf("fpaste %q does not show %q:\n%.2000s", args, text, out)
	}
}

func (m *machine) gives(out, stdin string, args ...string) {
	m.t.Helper()
	if got, _ := m.want(0, stdin, args...); got != out {
		m.t.Errorf("fpaste %q: %d bytes %.200q, want %d bytes %.200q", args, len(got), got, len(out), out)
	}
}

// link creates and returns the link.
func (m *machine) link(content string, args ...string) string {
	m.t.Helper()
	out, _ := m.want(0, content, args...)
	return strings.TrimSpace(out)
}

// process prepares fpaste in a process of its own, in folder dir.
func (m *machine) process(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command(m.program(), args...)
	cmd.Dir = dir
	cmd.Env = append(coverage(), "RUN_AS_FLASKPASTE=1", "TMPDIR="+m.tmp(),
		"PATH="+filepath.Dir(m.program())+":"+os.Getenv("PATH"))
	for k, v := range m.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd
}

// program is this test binary under the name that makes it the client.
func (m *machine) program() string {
	path := filepath.Join(m.tmp(), "bin", "fpaste")
	os.MkdirAll(filepath.Dir(path), 0o700)
	os.Symlink(must(os.Executable()), path)
	return path
}

func (m *machine) tmp() string {
	dir := filepath.Join(m.home, "tmp")
	os.MkdirAll(dir, 0o700)
	return dir
}

// entries is what the history has.
func (m *machine) entries() (all []historyEntry) {
	m.t.Helper()
	out, _ := m.want(0, "", "history", "-j")
	for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
		all = append(all, historyEntry{})
		if err := dec.Decode(&all[len(all)-1]); err != nil {
			m.t.Fatal(err, out)
		}
	}
	return all
}

func (m *machine) file(name, content string) string {
	m.t.Helper()
	path := filepath.Join(m.home, name)
	os.MkdirAll(filepath.Dir(path), 0o700)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return path
}

func (m *machine) historyFile() string { return filepath.Join(m.home, ".local/state/fpaste/history") }

// files lists a folder, all below it.
func files(t testing.TB, dir string) (all []string) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(dir, path)
			all = append(all, rel)
		}
		return nil
	})
	return all
}

func readFile(t testing.TB, path string) string { return string(must(os.ReadFile(path))) }

func parts(t testing.TB, link string) (id, key string) {
	t.Helper()
	place, key, _ := strings.Cut(link, "#")
	return place[strings.LastIndexByte(place, '/')+1:], key
}

func proofOf(t testing.TB, link string) string {
	_, fragment := parts(t, link)
	return must(parseSealKey(fragment)).readProof()
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// recorder passes TCP on and keeps every byte of both directions.
func recorder(t *testing.T, target string) (string, *lockedBuffer) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { l.Close() })
	seen := new(lockedBuffer)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				out, err := net.Dial("tcp", strings.TrimPrefix(target, "http://"))
				if err != nil {
					return
				}
				defer out.Close()
				// Kept before it is passed on: who has an answer finds in seen whatever led to it.
				go func() { io.Copy(io.MultiWriter(seen, out), in); out.(*net.TCPConn).CloseWrite() }()
				io.Copy(io.MultiWriter(seen, in), out)
			}()
		}
	}()
	return "http://" + l.Addr().String(), seen
}

var fronted = []string{"TRUSTED_PROXIES=127.0.0.0/8", "PROXY_SECRET=" + proxySecret}

// tlsFront is a proxy as an operator runs one: TLS, any client certificate, its fingerprint and the secret passed on.
func tlsFront(t *testing.T, target string) (link, ca string) {
	u := must(url.Parse(target))
	front := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(u)
		p.Out.Host = p.In.Host
		p.Out.Header.Del("X-SSL-Client-SHA1")
		p.Out.Header.Set("X-Proxy-Secret", proxySecret)
		if certs := p.In.TLS.PeerCertificates; len(certs) > 0 {
			sum := sha1.Sum(certs[0].Raw)
			p.Out.Header.Set("X-SSL-Client-SHA1", hex.EncodeToString(sum[:]))
		}
	}})
	front.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	front.StartTLS()
	t.Cleanup(front.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	os.WriteFile(ca, certPEM(front.Certificate()), 0o600)
	return front.URL, ca
}

// answering serves h until the test ends.
func answering(t testing.TB, h http.HandlerFunc) string {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// standIn answers as a server does: metadata of one paste, its stored bytes once, and nothing else.
func standIn(t testing.TB, meta map[string]any, stored []byte) string {
	return answering(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/" + someID:
			all := map[string]any{"id": someID, "mime_type": "application/octet-stream", "size": len(stored)}
			for k, v := range meta {
				all[k] = v
			}
			json.NewEncoder(w).Encode(all)
		case "/" + someID + "/raw":
			w.Write(stored)
		default:
			refuseWith(w, 404, "not_found", nil)
		}
	})
}

func TestCreateAndGet(t *testing.T) {
	ts := start(t)
	m := newMachine(t, ts.url)
	path, latin := m.file("notes.txt", "from a file\n"), m.file("caf\xe9", "from another\n")
	big := strings.Repeat("0123456789abcdef", 2<<16)
	for _, row := range []struct {
		name, stdin, want string
		args              []string
	}{
		{"pipe", "hello\n", "hello\n", nil},
		{"named command", "hello\n", "hello\n", []string{"create"}},
		{"dash", "hello\n", "hello\n", []string{"-"}},
		{"file", "", "from a file\n", []string{path}},
		{"file whose name is Latin-1", "", "from another\n", []string{latin}},
		{"two MiB by pipe", big, big, nil},
		{"options behind words", "", "from a file\n", []string{path, "-b", "-x", "1h", "--name=n"}},
		{"control characters in a pipe", "\x1b[31m\x00\r\n", "\x1b[31m\x00\r\n", nil},
	} {
		link := m.link(row.stdin, row.args...)
		id, key := parts(t, link)
		if !strings.HasPrefix(link, ts.url+"/") || !idShaped(id) || len(key) != 43 {
			t.Fatalf("%s: link %q", row.name, link)
		}
		m.gives(row.want, "", "get", link)
	}
	if out, _ := m.want(0, "", path, path); len(strings.Fields(out)) != 2 {
		t.Errorf("two files gave %q", out)
	}
	var info item
	out, _ := m.want(0, "", path, latin, "-j")
	dec := json.NewDecoder(strings.NewReader(out))
	for _, name := range []string{path, strings.ToValidUTF8(latin, "\ufffd")} {
		if err := dec.Decode(&info); err != nil || info.all["file"] != name || !strings.Contains(info.Link, "#") {
			t.Errorf("-j of two files: %v %+v", err, info)
		}
	}
	raw := m.link("plain é\n", "-E", "-r")
	if body := ts.get(strings.TrimPrefix(raw, ts.url)).body; body != "plain é\n" || !strings.HasSuffix(raw, "/raw") {
		t.Errorf("-E -r: %q at %s", body, raw)
	}
	for _, link := range []string{raw, raw + "/notes.txt", " <" + raw + ">\n"} {
		m.gives("plain é\n", "", "get", link)
	}
	for _, kind := range []string{"application/json", "image/png"} { // the first is a form of the API too
		text := `{"content":"not this alone"}`
		link := m.link(text, "-E", "-t", kind)
		m.want(0, text+"\n", "update", link, "-", "-E", "-t", kind)
		m.gives(text+"\n", "", "get", link)
		m.shows(kind+", 29 bytes", "", "meta", link)
	}
	m.gives(big, "", "get", m.link(big, "-E"))
	m.env["FPASTE_PASSWORD"] = "pass word"
	link := m.link("x", "-b", "-p", "-x", "2h", "-n", "n.txt")
	for _, want := range []string{"encrypted, ", "ends 20", "(in ", "password", "burns", "n.txt"} {
		m.shows(want, "", "meta", link)
	}
	out, _ = m.want(0, "", "meta", link, "-j")
	err := json.Unmarshal([]byte(out), &info)
	if err != nil || !info.Burn || !info.ReadProof || info.ExpiresAt-info.CreatedAt != 7200 {
		t.Errorf("meta -j: %s", out)
	}
	m.want(1, "", "create") // nothing to send
	m.want(1, "", m.file("empty", ""))
	for _, path := range []string{"/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"} { // sizes 0, 4096
		if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
			for _, option := range []string{"-e", "-E"} {
				m.gives(string(text), "", "get", m.link("", path, option))
			}
		}
	}
	missing := filepath.Join(m.home, "missing")
	code, out, errs := m.try("", path, missing, path)
	if code != 2 || len(strings.Fields(out)) != 2 || !strings.Contains(errs, "missing") {
		t.Errorf("one of three missing: %d %q %q", code, out, errs)
	}
	m.says(2, "tar c", "", m.home)
}

// Plaintext, name and key are nowhere but on this machine: not on the wire, in a log or in a sentence.
func TestWireHoldsNoSecret(t *testing.T) {
	ts := start(t)
	proxy, wire := recorder(t, ts.url)
	m := newMachine(t, proxy)
	m.file(".config/fpaste/config", "history = off\n")
	plain := "the plaintext that nobody sees"
	path := m.file("the-secret-name.txt", plain)
	before := files(t, m.home)
	var stderr strings.Builder
	run := func(code int, stdin string, args ...string) string {
		t.Helper()
		out, errs := m.want(code, stdin, args...)
		stderr.WriteString(errs)
		return strings.TrimSpace(out)
	}
	links := []string{run(0, plain, "-v"), run(0, strings.Repeat(plain, 100_000)), run(0, "", path),
		run(0, plain, "-b", "-x", "1000d", "-n", "the-secret-name", "-t", "text/secret")}
	for _, l := range links[:3] {
		run(0, "", "get", l, "-v")
		run(4, "", "update", l, path) // no token without history
		run(2, "", "short", l)
		run(2, "", "short", strings.Replace(l, "#", "%23", 1))
		run(2, "", "short", strings.Replace(l, "#", "/raw#", 1))
		run(2, "", l)
		run(2, "", "get", "nowhere"+l)
		run(2, "", "get", l+"x")
		run(0, "", "get", strings.Replace(l, "#", "%23", 1))
		run(2, "", "-s", l)
		run(2, "", "-s", strings.Replace(l, "#", "%2523", 1))
		run(2, "", "--"+l)
		run(2, "", "help", l)
		run(2, "", "delete", l+" "+l)
		run(7, "", "get", l[:len(l)-43]+newSealKey().fragment())
	}
	run(0, "", "meta", links[1])
	run(0, "", "get", strings.Replace(links[0], "http://", "http://me:the-URL's-password@", 1))
	run(6, "", "info", "-s", "http://me:the-URL's-password@127.0.0.1:1")
	if got := files(t, m.home); !slices.Equal(got, before) {
		t.Errorf("with history off these files appeared: %v", got)
	}
	secrets := []string{plain, "the-secret-name", "text/secret", "the-URL's-password"}
	for _, l := range links {
		_, fragment := parts(t, l)
		key := must(parseSealKey(fragment))
		standard := base64.StdEncoding.EncodeToString(key[:])
		secrets = append(secrets, fragment, string(key[:]), hex.EncodeToString(key[:]), standard[:40])
	}
	for _, s := range secrets {
		seen := map[string]string{"wire": wire.String(), "log": ts.logs.String(), "stderr": stderr.String()}
		for where, text := range seen {
			if strings.Contains(text, s) {
				t.Errorf("%q is on the %s", s, where)
			}
		}
	}
	if !strings.Contains(wire.String(), "FPE1") || !strings.Contains(stderr.String(), "GET /") {
		t.Error("nothing was seen")
	}
}

// A burning paste survives everything that can't show it, and is read exactly once.
func TestBurnIsNotWasted(t *testing.T) {
	ts := start(t)
	m := newMachine(t, ts.url)
	m.env["FPASTE_PASSWORD"] = "pass word"
	link := m.link("once", "-b", "-p")
	id, _ := parts(t, link)
	open := m.link("readable", "-b", "-E")
	openID, _ := parts(t, open)
	stranger := newMachine(t, ts.url)
	taken := stranger.file("taken", "mine")
	for _, row := range []struct {
		what string
		code int
		pw   string
		args []string
	}{
		{"no key", 4, "pass word", []string{"get", ts.url + "/" + id}},
		{"id alone", 4, "pass word", []string{"get", id}},
		{"broken key", 2, "pass word", []string{"get", link + "x"}},
		{"empty key", 2, "pass word", []string{"get", ts.url + "/" + id + "#"}},
		{"another key", 7, "pass word", []string{"get", ts.url + "/" + id + "#" + testKey(9).fragment()}},
		{"no password", 4, "", []string{"get", link}},
		{"wrong password", 4, "password", []string{"get", link}},
		{"output exists", 1, "pass word", []string{"get", link, "-o", taken}},
		{"output folder missing", 1, "pass word", []string{"get", link, "-o", taken + "/x/y"}},
		{"output is a folder", 1, "pass word", []string{"get", link, "-f", "-o", stranger.home}},
		{"output is a device", 1, "pass word", []string{"get", link, "-f", "-o", "/dev/null"}},
		{"meta", 0, "", []string{"meta", link}},
		{"unknown option", 2, "pass word", []string{"get", link, "--wat"}},
		{"a key for a paste that has none", 7, "", []string{"get", open + "#" + testKey(9).fragment(), "-o", "f"}},
	} {
		stranger.env["FPASTE_PASSWORD"] = row.pw
		if row.pw == "" {
			delete(stranger.env, "FPASTE_PASSWORD")
		}
		stranger.want(row.code, "", row.args...)
		if ts.get("/"+id).StatusCode != 200 || ts.get("/"+openID).StatusCode != 200 {
			t.Fatalf("%s burned it", row.what)
		}
	}
	if got := files(t, stranger.home); !slices.Equal(got, []string{"taken"}) || readFile(t, taken) != "mine" {
		t.Errorf("left behind: %v", got)
	}
	stranger.env["FPASTE_PASSWORD"] = "pass word"
	stranger.gives("once", "", "get", link)
	stranger.want(3, "", "get", link)
	stranger.gives("readable", "", "get", open)
	// -O to a name that is taken: nothing is refused any more, it goes to a new name.
	t.Chdir(stranger.home)
	link = m.link("twice", "-b", "-n", "taken")
	_, errs := stranger.want(0, "", "get", link, "-O")
	id, _ = parts(t, link)
	fresh := strings.TrimPrefix(strings.TrimSpace(errs), "fpaste: saved as ")
	if fi, err := os.Stat(fresh); err != nil || fi.Mode().Perm() != 0o600 || readFile(t, fresh) != "twice" ||
		!strings.HasPrefix(fresh, id+"-") {
		t.Errorf("%v, said %s", err, errs)
	}
}

// A burning paste into a pipe is here as a whole before its reader has read a thing; what is cut gives its true prefix.
func TestBurnIntoPausedPipe(t *testing.T) {
	content := make([]byte, 8<<20)
	rand.Read(content)
	for _, key := range []*sealKey{nil, new(testKey(1))} {
		stored, link := content, "/"+someID
		if key != nil {
			stored, link = mustSeal(t, *key, sealTitle{}, content), link+"#"+key.fragment()
		}
		sent := make(chan bool)
		cut := false
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/raw") {
				fmt.Fprintf(w, `{"id":%q,"burn_after_read":true,"read_proof":%v}`, someID, key != nil)
				return
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(stored)))
			if cut {
				w.Write(stored[:1<<20])
				return
			}
			w.Write(stored)
			close(sent)
		}))
		m := newMachine(t, srv.URL)
		cmd := m.process(m.home, "get", srv.URL+link)
		out := must(cmd.StdoutPipe())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-sent // with nobody reading: more than any pipe holds
		srv.CloseClientConnections()
		if got := must(io.ReadAll(out)); !bytes.Equal(got, content) {
			t.Errorf("encrypted %v: %d bytes of %d", key != nil, len(got), len(content))
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		if left := files(t, m.tmp()); len(left) > 0 {
			t.Errorf("left %v", left)
		}
		cut = true
		if got, _ := m.want(6, "", "get", srv.URL+link); len(got) < 900<<10 || !bytes.HasPrefix(content, []byte(got)) {
			t.Errorf("encrypted %v, cut: %d bytes", key != nil, len(got))
		}
		srv.Close()
	}
}

func TestOutputFiles(t *testing.T) {
	ts := start(t)
	m := newMachine(t, ts.url)
	dir := t.TempDir()
	t.Chdir(dir)
	link := m.link("content", "-n", "report.txt")
	m.want(0, "", "get", link, "-O")
	os.WriteFile("report.txt", []byte("edited"), 0o644)
	_, errs := m.want(1, "", "get", link, "-O")
	if readFile(t, "report.txt") != "edited" || !strings.Contains(errs, "-f") {
		t.Errorf("overwritten: %s", errs)
	}
	m.want(0, "", "get", link, "-O", "-f")
	os.Symlink("/etc/passwd", "link.txt")
	m.want(1, "", "get", m.link("evil", "-n", "link.txt"), "-O")
	m.want(1, "", "get", m.link("evil", "-n", "link.txt"), "-O", "-f")
	m.want(0, "", "get", link, "-o", "out")
	m.want(1, "", "get", link, "-o", "out")
	m.want(0, "", "get", link, "-f", "-o", "out")
	os.Mkdir("folder", 0o700)
	m.want(0, "", "get", link, "-o", "folder/")
	m.gives("content", "", "get", link, "-o", "-")
	if fi, err := os.Stat("out"); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi, err)
	}
	// Damaged content: exit 7 and no trace, in a file or on stdout.
	stored := mustSeal(t, testKey(1), sealTitle{Name: "report.txt"}, []byte("content"))
	stored[len(stored)-1] ^= 1
	damaged := standIn(t, map[string]any{"read_proof": true}, stored) + "/" + someID + "#" + testKey(1).fragment()
	for _, args := range [][]string{{"get", damaged}, {"get", damaged, "-o", "damaged"}, {"get", damaged, "-O", "-f"}} {
		if out, _ := m.want(7, "", args...); out != "" {
			t.Errorf("damaged: %q", out)
		}
	}
	m.says(7, "wrong key", "", "get", link[:len(link)-43]+newSealKey().fragment(), "-o", "x")
	if got := files(t, dir); !slices.Equal(got, []string{"folder/report.txt", "out", "report.txt"}) ||
		readFile(t, "report.txt") != "content" {
		t.Errorf("in the folder: %v", got)
	}
}

func TestHostileNames(t *testing.T) {
	n255, n256 := strings.Repeat("n", 255), strings.Repeat("n", 256)
	for name, want := range map[string]string{
		"report.txt": "report.txt", "a b": "a b", "Ünïcode.pdf": "Ünïcode.pdf", "dir/file": "file",
		`dir\file`: "file", "/etc/passwd": "passwd", "../../x": "x", "": "ID", ".": "ID", "..": "ID", "a/..": "ID",
		"dir/": "ID", ".bashrc": "ID",
		"x/.ssh": "ID", "-rf": "ID", "C:evil": "ID", "a:b": "ID", "x\ny": "ID", "x\x1b[2Jy": "ID", "x\x00": "ID",
		"x\u202etxt.exe": "ID", "x\u0085": "ID", "\xff\xfe": "ID", "\x7f": "ID", n255: n255, n256: "ID",
		strings.Repeat("é", 128): "ID",
	} {
		if got := safeName(name, "ID"); got != want {
			t.Errorf("%q became %q, want %q", name, got, want)
		}
	}
	// From a server: in the sealed title, in a readable paste's display name, in sentences.
	dir := t.TempDir()
	t.Chdir(dir)
	key := testKey(4)
	for _, name := range []string{"..", "line\nbreak", "\x1b]0;title\x07", "-rf", ".profile", "a:b", n256} {
		for _, sealed := range []bool{true, false} {
			link, meta, body := "/"+someID, map[string]any{"display_name": name}, []byte("x")
			if sealed {
				link, meta = link+"#"+key.fragment(), map[string]any{"read_proof": true}
				body = mustSeal(t, key, sealTitle{Name: name}, []byte("x"))
			}
			srv := standIn(t, meta, body)
			_, errs := newMachine(t, srv).want(0, "", "get", srv+link, "-O")
			if strings.ContainsAny(strings.TrimSuffix(errs, "\n"), "\x1b\x07\n") {
				t.Errorf("%q on stderr: %q", name, errs)
			}
			if err := os.Remove(someID); err != nil {
				t.Errorf("%q (sealed %v): %v", name, sealed, err)
			}
		}
	}
	if got := files(t, dir); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
	odd := answering(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(403)
		io.WriteString(w, `{"error":"no\u001b[2J\nfpaste: done","code":"odd","hint":"\u202etxt","request_id":"\u0007"}`)
	})
	_, errs := newMachine(t, odd).want(4, "", "meta", someID)
	if strings.ContainsAny(errs, "\x1b\x07\u202e") || strings.Count(errs, "\n") != 2 {
		t.Errorf("the server's sentence on stderr: %q", errs)
	}
}

// Wherever a read is cut, in a character or a line end, a terminal is shown the same.
func TestPlainWriter(t *testing.T) {
	in := "a\x1b[31m \u00e9\U0001f600 \u202e \x85 \u0085\r\nb\rc\t\xe2\x82 \x7f\x00 \u2028end\r"
	want := `a\x1b[31m é😀 \u202e \x85 \u0085` + "\r\n" + `b\rc` + "\t" + `\xe2\x82 \x7f\x00 \u2028end\r`
	for cut := range len(in) {
		var b strings.Builder
		err := visible(&b, io.MultiReader(strings.NewReader(in[:cut]), strings.NewReader(in[cut:])), true)
		if err != nil || b.String() != want {
			t.Errorf("cut at %d: %q, %v", cut, b.String(), err)
		}
	}
}

func TestUpdateKeepsLink(t *testing.T) {
	ts := start(t)
	m := newMachine(t, ts.url)
	link := m.link("one")
	id, _ := parts(t, link)
	proof := "X-Read-Proof: " + proofOf(t, link)
	first := ts.get("/"+id+"/raw", proof).body
	if out, _ := m.want(0, "two", "update", link); strings.TrimSpace(out) != link {
		t.Errorf("update printed %q", out)
	}
	second := ts.get("/"+id+"/raw", proof).body
	if len(first) != len(second) || first[4:20] == second[4:20] || !strings.HasPrefix(second, sealMagic) {
		t.Error("the salt is not fresh")
	}
	m.want(0, "two", "update", id)            // the key from the history
	m.want(0, "", "update", link, "-x", "3h") // options only, standard input is not read
	m.env["FPASTE_PASSWORD"] = "pw"
	m.want(0, "", "update", link, "-p")
	m.gives("two", "", "get", link)
	m.env["FPASTE_PASSWORD"] = ""
	m.want(0, "", "update", link, "-p") // empty on purpose: removed
	delete(m.env, "FPASTE_PASSWORD")
	m.gives("two", "", "get", link)
	m.want(2, "three", "update", link, "-E")
	m.want(2, "", "update", link, "-n", "name")
	plain := m.link("readable", "-E")
	m.want(2, "three", "update", plain) // no key, and encryption is on
	m.want(0, "three", "update", plain, "-E")
	m.gives("three", "", "get", plain)
	if a := ts.get("/" + id + "/raw"); a.StatusCode != 403 {
		t.Errorf("after an update the proof is %d", a.StatusCode)
	}
	stranger := newMachine(t, ts.url) // no certificate, and no token but by hand
	stranger.want(4, "x", "update", link)
	stranger.want(4, "x", "delete", link)
	e := m.entries()[0]
	stranger.want(4, "x", "update", link, "--token", "wrong")
	stranger.want(0, "four", "update", link, "--token", e.Token)
	stranger.want(0, "", "delete", link, "--token", e.Token)
	m.want(3, "", "get", link)
}

// Two servers in one history: each gets its own tokens and never the other's, and a link alone gets nothing.
func TestCredentialsStayHome(t *testing.T) {
	a, b := start(t), start(t)
	urlA, wireA := recorder(t, a.url)
	urlB, wireB := recorder(t, b.url)
	m := newMachine(t, urlA)
	m.env["FPASTE_PASSWORD"] = "the-password"
	linkA := m.link("at a", "-p")
	linkB := m.link("at b", "-s", urlB, "-p")
	openB := m.link("open at b", "-s", urlB)
	var tokens []string
	for _, e := range m.entries() {
		tokens = append(tokens, e.Token)
	}
	if len(tokens) != 3 {
		t.Fatal(tokens)
	}
	seenB := len(wireB.String())
	m.want(4, "", "get", linkB) // has a password, which is not for b
	m.want(4, "", "get", linkB, "-p")
	m.want(4, "", "delete", linkB)
	m.want(4, "", "delete", linkB, "--token", tokens[1])
	m.want(4, "x", "update", linkB)
	m.gives("open at b", "", "get", openB)
	for _, s := range append(tokens, "the-password", "X-Delete-Token", "X-Paste-Password") {
		if strings.Contains(wireB.String()[seenB:], s) {
			t.Errorf("b was sent %q", s)
		}
	}
	m.want(0, "", "delete", linkB, "-s", urlB)
	m.want(0, "", "delete", linkA)
	if strings.Contains(wireB.String(), tokens[0]) || strings.Contains(wireA.String(), tokens[1]) ||
		!strings.Contains(wireA.String(), tokens[0]) {
		t.Error("a token went to the other server")
	}
	h := readFile(t, m.historyFile())
	if strings.Contains(h, tokens[0]) || strings.Contains(h, tokens[1]) || !strings.Contains(h, tokens[2]) {
		t.Error("deleted pastes are still in the history, or too much is gone")
	}
}

// The certificate goes to the configured server only: to no other host in a link, and to no proxy on the way.
func TestCertificateStaysHome(t *testing.T) {
	shown := new(sync.Map)
	serve := func(name string, h http.HandlerFunc) *httptest.Server {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			shown.Store(name, len(r.TLS.PeerCertificates))
			h(w, r)
		}))
		s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s
	}
	missing := func(w http.ResponseWriter, r *http.Request) { refuseWith(w, 404, "not_found", nil) }
	home, away := serve("home", missing), serve("away", missing)
	proxy := serve("proxy", func(w http.ResponseWriter, r *http.Request) {
		out := must(net.Dial("tcp", home.Listener.Addr().String()))
		in, _, _ := w.(http.Hijacker).Hijack()
		io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(out, in); out.Close() }()
		io.Copy(in, out)
	})
	m := newMachine(t, home.URL)
	ca := m.file("ca.pem", string(certPEM(home.Certificate())))
	m.env["SSL_CERT_FILE"] = ca // for the others: they are no servers of ours
	m.want(0, "", "cert", "me")
	run := func(args ...string) {
		t.Helper()
		cmd := m.process(m.home, args...)
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 3 {
			t.Fatalf("%q: %v %s", args, cmd.ProcessState, out)
		}
	}
	run("meta", someID, "--cacert", ca)
	run("meta", away.URL+"/"+someID)
	m.env["https_proxy"] = proxy.URL
	m.env["FPASTE_SERVER"] = "https://example.com" // for which httptest's certificate is good, too
	shown.Delete("home")
	run("meta", someID)
	for name, want := range map[string]int{"home": 1, "away": 0, "proxy": 0} {
		if n, ok := shown.Load(name); !ok || n != want {
			t.Errorf("%s saw %v certificates (%v)", name, n, ok)
		}
	}
}

// The certificate holder's commands, through a TLS proxy as an operator runs one.
func TestOwnPastes(t *testing.T) {
	ts := start(t, fronted...)
	front, ca := tlsFront(t, ts.url)
	m := newMachine(t, front)
	m.want(6, "", "list") // an authority that nobody knows
	m.env["FPASTE_CACERT"] = ca
	m.want(4, "", "list") // no certificate yet
	m.want(0, "", "cert", "me")
	delete(m.env, "FPASTE_CACERT") // it is in the config
	m.want(1, "", "cert", "me")    // never overwrites
	for name, mode := range map[string]os.FileMode{"client.key": 0o600, "client.crt": 0o600, "config": 0o600} {
		if fi, err := os.Stat(filepath.Join(m.home, ".config/fpaste", name)); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", name, fi, err)
		}
	}
	m.link("one", "-n", "One.txt")
	m.link("two", "-E", "-n", "two.txt", "-t", "text/x-two")
	burning := m.link("three", "-b")
	id, _ := parts(t, burning)
	for _, want := range []string{"ID ", "One.txt", "two.txt", "text/x-two", ", burns: "} {
		m.shows(want, "", "list")
	}
	if out, _ := m.want(0, "", "list", "--ids"); len(strings.Fields(out)) != 3 || !strings.Contains(out, id) {
		t.Errorf("--ids: %q", out)
	}
	for _, row := range []struct {
		args []string
		want int
	}{
		{[]string{"one"}, 1}, {[]string{"txt"}, 2}, {[]string{"two", "-t", "text/*"}, 1}, {[]string{"-t", "text/*"}, 1},
		{[]string{id}, 1}, {[]string{"nothing"}, 0}, {nil, 3},
		{[]string{"--after", "2000-01-01"}, 3}, {[]string{"--before", "2000-01-01"}, 0},
	} {
		var all []item
		out, _ := m.want(0, "", append([]string{"search", "-j"}, row.args...)...)
		if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != row.want {
			t.Errorf("search %q: %s %v", row.args, out, err)
		}
	}
	m.want(4, "", "search", "--owner", "all") // for admins
	m.want(0, "", "history", "--clear")       // from now on the certificate alone
	out, _ := m.want(0, "", "list", "--ids")
	m.want(0, out, "delete", "-")
	m.gives("", "", "list", "--ids")
	if out, _ := m.want(0, "", "info"); !strings.Contains(out, front) || !strings.Contains(out, "me, good until") {
		t.Errorf("info:\n%s", out)
	}
	// Over http the certificate can't be sent, and who needs it is told so.
	m.says(4, "your certificate was not sent", "", "list", "-s", ts.url)
}

// Who I am, in the words of the contract's own answer.
func TestInfo(t *testing.T) {
	m := newMachine(t, answering(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"name":"FlaskPaste","version":"9.9","you":{"tier":"trusted","owner":"abc","more":1},
			"limits":{"trusted":{"max_size":52428800,"default_expiry":2592000,"max_expiry":7776000},
			"work":{"difficulty":20,"free_per_hour":20},"min_entropy":0}}`)
	}))
	for _, want := range []string{m.env["FPASTE_SERVER"], "9.9", "trusted", "abc", "50 MiB", "30 d", "90 d"} {
		m.shows(want, "", "info")
	}
	if out, _ := m.want(0, "", "info", "-j"); !json.Valid([]byte(out)) {
		t.Errorf("-j: %s", out)
	}
	ts := start(t)
	m.shows("anonymous", "", "info", "-s", ts.url)
	m.shows("3 MiB", "", "info", "-s", ts.url)
}

// What is no answer of ours is neither printed as one, nor makes the history forget a token.
func TestNonsenseIsNoAnswer(t *testing.T) {
	status, body := 0, ""
	srv := answering(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
	m := newMachine(t, srv)
	m.file(".local/state/fpaste/history", `{"link":"`+srv+"/"+someID+`","token":"kept","expires":9999999999}`+"\n")
	for body, status = range map[string]int{"<html>log in</html>": 200, "null": 200, "[1]": 200, "": 200, "<html>": 404,
		`{"error":"x","code":"odd"}`: 404} {
		for _, args := range [][]string{{"info"}, {"info", "-j"}, {"delete", someID}, {"get", someID},
			{"short", "delete", "abcdefgh"}} {
			out, errs := m.want(map[int]int{200: 1, 404: 3}[status], "", args...)
			if out != "" || errs == "" {
				t.Errorf("%q for %q: %q %q", body, args, out, errs)
			}
		}
		m.shows("kept", "", "history", "-j")
	}
}

// The history forgets what the server said is gone, and nothing else: not what a clock says.
func TestHistory(t *testing.T) {
	ts := start(t)
	m := newMachine(t, ts.url)
	link := m.link("x", "-n", "one.txt", "-x", "1h")
	os.Chmod(m.historyFile(), 0o644)
	second := m.link("", m.file("two.txt", "y"))
	if fi, _ := os.Stat(m.historyFile()); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v stays", fi.Mode())
	}
	old := readFile(t, m.historyFile())
	m.file(".local/state/fpaste/history", old+"not json\n"+`{"link":"`+ts.url+`/00000000deadbeef#`+
		testKey(1).fragment()+`","token":"old","expires":5}`+"\n"+`{"link":"cut by a full di`)
	third := m.link("z")
	text := readFile(t, m.historyFile())
	if !strings.HasPrefix(text, old) {
		t.Error("it is not appended to")
	}
	out, _ := m.want(0, "", "history")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i, want := range []string{"one.txt  .*" + link, "two.txt  .*" + second, "deadbeef#", third} {
		if len(lines) != 4 || !regexp.MustCompile(want).MatchString(lines[i]) {
			t.Errorf("line %d is not %s:\n%s", i, want, out)
		}
	}
	if out, _ := m.want(0, "", "history", "-j"); strings.Count(out, `"token"`) != 4 || strings.Count(out, "\n") != 4 {
		t.Errorf("-j: %s", out)
	}
	if !strings.HasPrefix(readFile(t, m.historyFile()), text) {
		t.Error("looking at it changed it")
	}
	m.want(0, "", "update", link, "-x", "3h")
	all := m.entries()
	if e := all[0]; e.Link != link || e.Name != "one.txt" || e.Token == "" || e.Created == 0 ||
		e.Expires < time.Now().Unix()+7200 || len(all) != 4 {
		t.Errorf("after update: %+v", all)
	}
	m.want(3, "", "get", ts.url+"/00000000deadbeef") // the server says so
	m.want(0, "", "delete", second)
	if out, _ := m.want(0, "", "history"); strings.Contains(out, "deadbeef") || strings.Contains(out, second) ||
		strings.Count(out, "\n") != 2 {
		t.Errorf("after 404 and delete:\n%s", out)
	}
	m.want(0, "", "history", "--clear")
	m.gives("", "", "history")
	m.want(0, "", "history", "--clear")
}

// The surroundings may be poor: no home, a config that can't be read, a history that can't be written.
func TestPoorSurroundings(t *testing.T) {
	ts := start(t)
	m := newMachine(t, ts.url)
	delete(m.env, "HOME")
	m.gives("no home", "", "get", m.link("no home"))
	m.want(0, "", "history")
	m.want(0, "", "history", "--clear")
	m.says(1, "XDG_CONFIG_HOME", "", "cert", "me")
	m.env["XDG_CONFIG_HOME"] = "relative/is/ignored"
	m.want(0, "x")
	blocked := newMachine(t, ts.url) // a file where a folder should be: nobody can write there, not even root
	blocked.file(".local", "")
	blocked.says(0, "not in the history", "x")
	broken := newMachine(t, ts.url)
	os.MkdirAll(filepath.Join(broken.home, ".config/fpaste/config"), 0o700)
	broken.want(1, "x")
	broken.want(0, "", "help")
	broken.want(0, "", "version")
	newMachine(t, "").says(2, "no server is configured\nhint: fpaste --server", "x")
}

func TestConfig(t *testing.T) {
	ts := start(t)
	m := newMachine(t, "")
	m.file(".config/fpaste/config", "# ours\n\n server=  "+ts.url+"/ \nexpiry = 2h\nencrypt = off\nhistory = off\n")
	var info item
	out, _ := m.want(0, "x", "-j")
	json.Unmarshal([]byte(out), &info)
	if info.ReadProof || info.ExpiresAt-info.CreatedAt != 7200 || strings.Contains(info.Link, "#") {
		t.Errorf("config is not used: %s", out)
	}
	if _, err := os.Stat(filepath.Join(m.home, ".local")); err == nil {
		t.Error("history = off has no effect")
	}
	out, _ = m.want(0, "x", "-j", "--encrypt", "-x", "1h")
	if json.Unmarshal([]byte(out), &info); !info.ReadProof || info.ExpiresAt-info.CreatedAt != 3600 {
		t.Errorf("an option does not win: %s", out)
	}
	m.env["FLASKPASTE_SERVER"] = "http://127.0.0.1:1" // as 1.x had it
	m.want(6, "x")                                    // environment over config
	m.want(0, "x", "--server", ts.url)                // option over environment
	m.env["FPASTE_SERVER"] = ts.url
	m.want(0, "x", "-q")
	m.env["FPASTE_SERVER"], m.env["FLASKPASTE_SERVER"] = "", ""
	m.env["XDG_CONFIG_HOME"] = filepath.Join(m.home, "other")
	m.want(2, "x")
	for text, name := range map[string]string{"servre = x": `"servre"`, "server": `"server"`,
		"encrypt = maybe": "encrypt", "Server = x": `"Server"`, "token = x": `"token"`, "server = ftp://x": "ftp://x"} {
		m.file("other/fpaste/config", "# line one\n"+text+"\n")
		m.says(2, name, "x")
	}
}

// Whose certificate, and what becomes of one that can't be had: whatever needs none goes on.
func TestWhichCertificate(t *testing.T) {
	paste := `{"id":"` + someID + `","mime_type":"text/plain","size":2,"expires_at":9999999999}`
	var names []string
	revoked := ""
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "-"
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		switch names = append(names, name); {
		case name == revoked:
			refuseWith(w, 403, "certificate_revoked", nil)
		case r.URL.Path == "/pastes" && name == "-":
			refuseWith(w, 401, "authentication_required", nil)
		case r.URL.Path == "/pastes":
			io.WriteString(w, `{"pastes":[]}`)
		case strings.HasSuffix(r.URL.Path, "/raw"):
			io.WriteString(w, "hi")
		default:
			io.WriteString(w, paste)
		}
	}))
	front.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	front.StartTLS()
	defer front.Close()
	m := newMachine(t, front.URL)
	m.env["FPASTE_CACERT"] = m.file("ca.pem", string(certPEM(front.Certificate())))
	dir := filepath.Join(m.home, ".config/fpaste")
	m.want(0, "", "cert", "alice")
	crt := readFile(t, dir+"/client.crt")
	alice := m.file("alice.pem", crt+readFile(t, dir+"/client.key"))
	m.want(0, "", "cert", "me", "-f")
	for _, row := range []struct {
		name string
		code int
		env  map[string]string
		args []string
		seen string // what the server was shown
		says string
	}{
		{"the config's", 0, nil, []string{"list"}, "me", ""},
		{"an option's with its own key", 0, nil, []string{"list", "--cert", alice}, "alice", ""},
		{"the environment's", 0, map[string]string{"FPASTE_CERT": alice}, []string{"list"}, "alice", ""},
		{"an option's that is gone", 1, nil, []string{"get", someID, "--cert", "/nowhere.pem"}, "", "/nowhere.pem"},
		{"an option's without key", 1, nil, []string{"list", "--cert", dir + "/client.crt"}, "", "private key"},
		{"option and its key", 0, nil, []string{"list", "--cert", dir + "/client.crt", "--key", dir + "/client.key"},
			"me", ""},
		{"revoked, get", 0, nil, []string{"get", someID}, "me - -", "without your certificate"},
		{"revoked, list", 4, nil, []string{"list"}, "me", "register NAME -f"},
		{"gone, get", 0, nil, []string{"get", someID}, "- -", dir + "/client.crt"},
		{"gone, list", 4, nil, []string{"list"}, "-", "not sent"},
	} {
		if strings.HasPrefix(row.name, "revoked") {
			revoked = "me"
		} else if strings.HasPrefix(row.name, "gone") {
			os.Remove(dir + "/client.crt")
		}
		names = nil
		n := &machine{t: t, home: m.home, env: map[string]string{}}
		for _, env := range []map[string]string{m.env, row.env} {
			for k, v := range env {
				n.env[k] = v
			}
		}
		code, _, errs := n.try("", row.args...)
		seen, said := strings.Join(names, " "), strings.Contains(errs, row.says) && (row.says != "" || errs == "")
		if code != row.code || seen != row.seen || !said {
			t.Errorf("%s: exit %d, the server saw %q, said %s", row.name, code, seen, errs)
		}
	}
	for _, path := range []string{"~/alice.pem", "../../alice.pem"} { // a config's path
		m.file(".config/fpaste/config", "cert = "+path+"\n")
		names = nil
		if m.want(0, "", "list"); names[0] != "alice" {
			t.Errorf("%s: the server saw %q", path, names)
		}
	}
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(100 * time.Hour),
		Subject: pkix.Name{CommonName: "soon"}}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	keyDER := must(x509.MarshalPKCS8PrivateKey(key))
	soon := m.file("soon.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))+
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	for i, want := range []bool{true, false} { // once a day
		if _, errs := m.want(0, "", "list", "--cert", soon); strings.Contains(errs, "fpaste renew") != want {
			t.Errorf("run %d: %s", i, errs)
		}
	}
	for path, want := range map[string]string{
		m.file("sealed.pem", crt+string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY",
			Bytes: []byte("junk")}))): "openssl pkey -in ",
		m.file("alice.p12", "0\x82\x01\x02rest"): "openssl pkcs12 -in ",
	} {
		m.says(1, want, "", "list", "--cert", path)
	}
}

// Whatever is typed wrong is answered with what to type, on stderr, before anything is sent.
func TestWayOn(t *testing.T) {
	m := newMachine(t, "http://127.0.0.1:1")
	link, key := "http://127.0.0.1:1/"+someID, newSealKey().fragment()
	for _, row := range [][]string{ // what it says, to what
		{"-wat", "--wat"}, {"-Z", "get", "x", "-Z"}, {"-EZ", "-EZ"}, {"get takes no --burn", "-b", "get", someID},
		{"list takes no --clear", "list", "--clear"}, {"argument: -x", "-x"}, {"create takes no --burn", "--burn=yes"},
		{"wrong arguments", "get"}, {"wrong arguments", "get", "a", "b"}, {`"nonsense"`, "help", "nonsense"},
		{`"csh"`, "completion", "csh"}, {"neither", "get", "xyz"}, {"neither", "delete", "../../etc"},
		{"43 characters", "get", someID + "#abc"}, {"fpaste get", link},
		{"https://paste", "get", "ftp://x/" + someID}, {"--insecure-http", "get", "http://example.org/" + someID},
		{"-r goes with -E", "-r"}, {"short takes", "short", "https://x", "y"}, {"short takes", "short", "info"},
		{"not the URL", "get", "https://example.org/" + someID + "?x=1"}, {"expiry", "-x", "1h\r\nX: y"},
		{"too long", "-n", strings.Repeat("n", 1100)}, {"neither", "get", "https://example.org"},
		{"neither", "get", strings.ToUpper(someID) + "ABCDEF"}, {"neither", "short", "info", someID},
		{"no file and no command is called lst; fpaste help lists the commands", "lst"},
		{"no file and no command is called lst", "-j", "lst", "x"}, {"letters", "cert", ""},
		{"fpaste get", someID + "#KEY"}, {"fpaste get", link + "%23" + key}, {"fpaste get", "<" + link + ">"},
		{"add # and the key", "short", link + "#" + key}, {"add # and the key", "short", "https://x/y%23" + key},
		{"add # and the key", "short", "https://x/?u=https%3A%2F%2Fh%2Fi%23" + key + "&z"},
		{"add # and the key", "short", " <" + link + "#" + key[:40] + "> "},
	} {
		code, out, errs := m.try("content", row[1:]...)
		secret := strings.Contains(errs, "KEY") || strings.Contains(errs, key[:40])
		if code != 2 || out != "" || secret || !strings.Contains(errs, row[0]) {
			t.Errorf("%q: exit %d, %q %q, want it to say %s", row[1:], code, out, errs, row[0])
		}
	}
	newMachine(t, "").says(2, "no file and no command", "", "lst") // no server either, but that is not it
	ts := start(t)
	for _, row := range [][]string{{"not 1000d", "-x", "1000d"}, {"not 8640000", "-x", "8640000"}, {"", "-x", "7d"},
		{"not 2099", "-x", "2099-01-01T00:00:00Z"}, {"not 52w", "short", "https://x.org", "-x", "52w"},
		{"", "-x", "1d12h"}, {"", "-x", "3600"}} {
		_, errs := m.want(0, "x", append(row[1:], "-s", ts.url)...)
		if !strings.Contains(errs, row[0]) || row[0] == "" && errs != "" {
			t.Errorf("%q: %s", row, errs)
		}
	}
	m.says(1, "3 MiB", strings.Repeat("x", 4<<20), "-s", ts.url)
	m.says(1, "fpaste cert", strings.Repeat("x", 4<<20), "-s", ts.url)
	for _, pw := range []string{" blank ", "", "a\nb"} {
		m.env["FPASTE_PASSWORD"] = pw
		m.want(2, "x", "-p")
	}
	m.says(6, "-v shows", "x") // nobody listens
}

// Each command and option of the table is in it and in the completions.
func TestCommandHelp(t *testing.T) {
	m := newMachine(t, "")
	list, _ := m.want(0, "", "help")
	for _, args := range [][]string{{"--help"}, {"-h"}} {
		if out, _ := m.want(0, "", args...); out != list || !strings.Contains(list, "--no-encrypt") {
			t.Errorf("%q is not the list and create's options:\n%s", args, out)
		}
	}
	for _, args := range [][]string{{"--version"}, {"-V"}, {"version"}, {"get", "-V"}} {
		m.gives("fpaste "+version+"\n", "", args...)
	}
	scripts := map[string]string{}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		scripts[shell], _ = m.want(0, "", "completion", shell)
	}
	meaning := map[string]string{}
	for _, k := range clientCommands() {
		help, _ := m.want(0, "", "help", k.name)
		if same, _ := m.want(0, "", k.name, "--help"); same != help {
			t.Errorf("%s --help is not help %s", k.name, k.name)
		}
		if !strings.Contains(list, "  "+k.name) || k.brief == "" {
			t.Errorf("help of %s: %s", k.name, help)
		}
		for _, o := range optionsIn(k.options + everywhere) {
			for _, name := range o[1:3] {
				if other, known := meaning[name]; known && name != "" && other != strings.Join(o[1:], " ") {
					t.Errorf("%s: %s means two things", k.name, name)
				}
				meaning[name] = strings.Join(o[1:], " ")
			}
			for shell, script := range scripts {
				if !strings.Contains(script, "--"+o[2]) || !strings.Contains(script, k.name) {
					t.Errorf("%s --%s is missing for %s", k.name, o[2], shell)
				}
			}
		}
		if n := strings.Count(k.options, "\n"); n != len(optionsIn(k.options)) {
			t.Errorf("%s: %d lines of %d options", k.name, n, len(optionsIn(k.options)))
		}
		for line := range strings.Lines(help) {
			if len(line) > 101 {
				t.Errorf("%s: %q is too wide", k.name, line)
			}
		}
	}
}

// Completion in the shells themselves.
func TestCompletion(t *testing.T) {
	m := newMachine(t, "")
	for _, row := range []struct{ last, want string }{
		{"ge", "get"}, {"--out", "--output"}, {"--no", "--no-encrypt"}, {"re", "register renew"}, {"nothing", ""},
	} {
		for shell, program := range map[string]string{
			"bash": "source $0; set -- $(complete -p fpaste); eval \"compgen ${*:4:$#-4} -- '" + row.last + "'\"",
			"zsh": "compdef() { }; _files() { }; compadd() { shift; print -l -- ${(M)@:#" + row.last + "*} }; " +
				"source $0; _fpaste",
			"fish": "source $argv[1]; complete -C 'fpaste " + row.last + "' | string split -f1 \\t",
		} {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Logf("%s is not installed: its completion is not tried", shell)
				continue
			}
			script, _ := m.want(0, "", "completion", shell)
			args := []string{"-c", program, m.file("completion", script)}
			if shell == "zsh" {
				args = append([]string{"-f"}, args...)
			}
			cmd := exec.Command(path, args...)
			cmd.Dir, cmd.Env = t.TempDir(), []string{"HOME=" + m.home, "PATH=" + os.Getenv("PATH")}
			out, err := cmd.CombinedOutput()
			got := strings.Fields(string(out))
			slices.Sort(got)
			if strings.Join(got, " ") != row.want {
				t.Errorf("%s: %q completes to %q, %v", shell, row.last, out, err)
			}
		}
	}
}

// The real server asks for work: taken from its refusal, solved, and sent once more with the same content.
func TestWork(t *testing.T) {
	ts := start(t, "POW_FREE=0", "POW_DIFFICULTY=12", "RATE_AUTH=0")
	m := newMachine(t, ts.url)
	content := strings.Repeat("worth some work ", 150_000)
	for _, args := range [][]string{nil, {"-E"}, {m.file("big", content)}, {m.file("big", content), "-E"}} {
		stdin := content
		if len(args) > 0 && args[0] != "-E" {
			stdin = ""
		}
		m.gives(content, "", "get", m.link(stdin, args...))
	}
	link := m.link("before")
	m.want(0, "after", "update", link)
	m.gives("after", "", "get", link)
	m.link("", "short", "https://example.org/work")
}

func TestShortURLCommands(t *testing.T) {
	ts := start(t, fronted...)
	m := newMachine(t, ts.url)
	target := "https://example.org/a?b=c#section"
	link := m.link("", "short", target, "-x", "1h")
	id, _ := parts(t, link)
	if a := ts.get("/s/" + id); a.StatusCode != 302 || a.Header.Get("Location") != target || link != ts.url+"/s/"+id {
		t.Fatalf("%s: %d %s", link, a.StatusCode, a.Header.Get("Location"))
	}
	m.shows("https://example.org/a?b=c  ", "", "history")
	for _, ref := range []string{link, id} {
		m.shows(target, "", "short", "info", ref)
		m.shows("(in ", "", "short", "info", ref)
	}
	m.want(1, "", "short", "javascript:alert(1)")
	m.want(4, "", "short", "list")
	m.want(0, "", "short", "delete", link)
	m.want(3, "", "short", "info", id)
	front, ca := tlsFront(t, ts.url)
	m = newMachine(t, front)
	m.env["FPASTE_CACERT"] = ca
	m.want(0, "", "cert", "me")
	m.link("", "short", target)
	if out, _ := m.want(0, "", "short", "list"); !strings.Contains(out, target) || strings.Count(out, "\n") != 2 {
		t.Errorf("list: %s", out)
	}
	m.shows(`"target_url":"`+target, "", "short", "list", "-j")
	ids, _ := m.want(0, "", "short", "list", "--ids")
	m.want(0, ids, "short", "delete", "-")
}

// From nothing to a certificate of the server's CA, renewed, revoked, and back by registering again.
func TestClientEnrolment(t *testing.T) {
	ts := start(t, append(fronted, "PKI_ENABLED=1", "PKI_CA_PASSWORD=a long enough password", "REGISTRATION=open",
		"REGISTER_POW=10")...)
	front, ca := tlsFront(t, ts.url)
	m := newMachine(t, "")
	m.want(0, "", "register", "alice", "-s", front, "--cacert", ca)
	m.link("mine", "-n", "x") // server and authority are in the config
	if out, _ := m.want(0, "", "list", "--ids"); strings.Count(out, "\n") != 1 {
		t.Errorf("own pastes: %q", out)
	}
	crt := filepath.Join(m.home, ".config/fpaste/client.crt")
	first := readFile(t, crt)
	m.want(0, "", "renew")
	if readFile(t, crt) == first {
		t.Error("renew changed nothing")
	}
	pair := must(tls.LoadX509KeyPair(crt, strings.TrimSuffix(crt, "crt")+"key"))
	serial := hex.EncodeToString(pair.Leaf.SerialNumber.FillBytes(make([]byte, 16)))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(readFile(t, ca)))
	api := newAPIClient(must(parseServer(front, false)), true, &pair, roots)
	if _, err := api.text(t.Context(), apiCall{method: "POST", path: "/pki/revoke/" + serial}, "{"); err != nil {
		t.Fatal(err)
	}
	if _, errs := m.want(4, "", "list"); !strings.Contains(errs, "register NAME -f") { // the whole line
		t.Errorf("revoked: %s", errs)
	}
	m.says(0, "without your certificate", "still possible")
	m.want(0, "", "register", "-f", "alice")
	m.want(0, "", "list")
}

// A key and its certificate appear together or not at all; a renewal loads before it takes the old one's place.
func TestIdentityIsWhole(t *testing.T) {
	caKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	foreign := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	mode, serial := "good", int64(100)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		worked := r.Header.Get("X-PoW-Token") == "the-token" && r.Header.Get("X-PoW-Solution") != ""
		if r.URL.Path == "/csr" && !worked {
			refuseWith(w, 400, "pow_required", workAsked(8, strings.Repeat("cd", 16)))
			return
		}
		body, _ := io.ReadAll(r.Body)
		block, _ := pem.Decode(body)
		if block == nil || strings.Contains(string(body), "PRIVATE") {
			t.Errorf("not a request: %s", body)
			return
		}
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil || csr.CheckSignature() != nil || csr.Subject.CommonName != "alice" {
			t.Errorf("%v %v", csr, err)
			return
		}
		public := csr.PublicKey
		switch mode {
		case "closed":
			refuseWith(w, 403, "registration_closed", nil)
			return
		case "foreign":
			public = foreign.Public()
		}
		serial++
		template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "alice"},
			NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
		der := must(x509.CreateCertificate(rand.Reader, template, template, public, caKey))
		pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: der})
		io.WriteString(w, "behind it\n")
	}))
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	os.WriteFile(ca, certPEM(srv.Certificate()), 0o600)
	for _, bad := range []string{"closed", "foreign"} {
		mode = bad
		m := newMachine(t, srv.URL)
		m.env["FPASTE_CACERT"] = ca
		if m.want(1, "", "register", "alice"); len(files(t, m.home)) > 0 {
			t.Errorf("%s left %v", bad, files(t, m.home))
		}
	}
	mode = "good"
	m := newMachine(t, srv.URL)
	m.env["FPASTE_CACERT"] = ca
	m.file(".config/fpaste/config", "# mine\nexpiry = 3d\ncert = old\n")
	m.want(0, "", "register", "alice")
	dir := filepath.Join(m.home, ".config/fpaste")
	key, crt := readFile(t, dir+"/client.key"), readFile(t, dir+"/client.crt")
	conf := readFile(t, dir+"/config")
	if !strings.HasPrefix(conf, "# mine\nexpiry = 3d\n") || !strings.Contains(conf, "cert = "+dir) ||
		strings.Contains(conf, "old") {
		t.Errorf("config: %s", conf)
	}
	whole := func(what string) {
		t.Helper()
		if readFile(t, dir+"/client.key") != key || readFile(t, dir+"/client.crt") != crt {
			t.Errorf("%s changed the pair", what)
		}
		if got := files(t, dir); !slices.Equal(got, []string{"client.crt", "client.key", "config"}) {
			t.Errorf("%s left %v", what, got)
		}
	}
	m.want(1, "", "register", "alice")
	whole("a second register")
	mode = "foreign"
	m.want(1, "", "register", "alice", "-f")
	whole("register -f with a foreign certificate")
	m.want(1, "", "renew")
	whole("a foreign renewal")
	mode = "good"
	os.Remove(dir + "/client.crt")
	os.Mkdir(dir+"/client.crt", 0o700) // nothing can take its place
	m.want(1, "", "register", "alice", "-f")
	os.Remove(dir + "/client.crt")
	m.file(".config/fpaste/client.crt", crt)
	whole("register -f that could not write the certificate")
	// A bundle keeps whatever else it has, in any order and with any line ends.
	crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
	for name, text := range map[string][2]string{
		"key first": {key, crt}, "certificate first": {"", key}, "CRLF": {"", crlf(key)},
		"CRLF, key first": {crlf(key), crlf(crt)}, "no newline at the end": {key + "# -----BEGIN", ""},
		"notes": {"Bag Attributes\n  friendlyName: x\n" + key, "# behind\n" + crt},
	} {
		old := crt
		if strings.HasPrefix(name, "CRLF") {
			old = crlf(crt)
		} else if name == "no newline at the end" {
			old = "\n" + strings.TrimSpace(crt)
		}
		bundle := m.file("bundle.pem", text[0]+old+text[1])
		os.Chmod(bundle, 0o640)
		m.want(0, "", "renew", "--cert", bundle)
		got := readFile(t, bundle)
		middle := strings.TrimSuffix(strings.TrimPrefix(got, text[0]), text[1])
		if text[0]+middle+text[1] != got || middle == old || strings.Count(middle, "\r") != strings.Count(old, "\r") {
			t.Errorf("%s: the bundle is not what it was but for its certificate:\n%s", name, got)
		}
		if _, err := tls.LoadX509KeyPair(bundle, bundle); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if fi, _ := os.Stat(bundle); fi.Mode().Perm() != 0o640 {
			t.Errorf("%s: mode %v", name, fi.Mode())
		}
	}
}

// ---- what only a process shows: pipes, signals, memory, a terminal ----

func TestPipeClosedEarly(t *testing.T) {
	ts := start(t)
	m := newMachine(t, ts.url)
	for _, args := range [][]string{nil, {"-E"}, {"-b"}} {
		cmd := m.process(t.TempDir(), "get", m.link(strings.Repeat("a line\n", 300_000), args...))
		out := must(cmd.StdoutPipe())
		var errs bytes.Buffer
		if cmd.Stderr = &errs; cmd.Start() != nil {
			t.Fatal("no start")
		}
		io.ReadFull(out, make([]byte, 7))
		out.Close()
		cmd.Wait()
		if errs.Len() > 0 {
			t.Errorf("%v: %s", args, &errs)
		}
	}
}

// Ctrl-C ends whatever is going on, and leaves no half file.
func TestInterrupt(t *testing.T) {
	stop, reached := make(chan struct{}), make(chan string, 10)
	key := testKey(5)
	body := mustSeal(t, key, sealTitle{}, make([]byte, 4<<20))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/work"):
			refuseWith(w, 400, "pow_required", workAsked(32, strings.Repeat("ab", 16)))
		case strings.HasPrefix(r.URL.Path, "/later"):
			w.Header().Set("Retry-After", "9")
			refuseWith(w, 429, "rate_limited", nil)
		case strings.HasSuffix(r.URL.Path, "/raw"):
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			w.Write(body[:len(body)/2])
			w.(http.Flusher).Flush()
			defer func() { <-stop }()
		case r.Method == "GET":
			json.NewEncoder(w).Encode(map[string]any{"id": someID, "mime_type": "text/plain", "read_proof": true})
			return
		default: // an upload that stalls
			io.ReadFull(r.Body, make([]byte, 1000))
			defer func() { <-stop }()
		}
		reached <- r.URL.Path
	}))
	defer srv.Close()
	defer close(stop)
	link := srv.URL + "/" + someID + "#" + key.fragment()
	for name, args := range map[string][]string{
		"reading": {"create"}, "uploading": {"create", "big"}, "work": {"create", "big", "-s", srv.URL + "/work"},
		"waiting":     {"create", "big", "-s", srv.URL + "/later"},
		"registering": {"register", "alice", "-s", srv.URL + "/work"},
		"downloading": {"get", link, "-o", "out"}, "named": {"get", link, "-O"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, srv.URL)
			dir := t.TempDir()
			os.WriteFile(filepath.Join(dir, "big"), make([]byte, 2<<20), 0o600)
			cmd := m.process(dir, args...)
			in := must(cmd.StdinPipe())
			defer in.Close()
			var errs bytes.Buffer
			if cmd.Stderr = &errs; cmd.Start() != nil {
				t.Fatal("no start")
			}
			if name == "reading" {
				in.Write(make([]byte, 3<<20)) // enough for a file; it returns once all but a buffer was read
			} else {
				<-reached
			}
			begin := time.Now()
			cmd.Process.Signal(os.Interrupt)
			cmd.Wait()
			// "waiting" waits for 9 s. Signalled before it does, it would end by the signal itself, which is as good.
			if cmd.ProcessState.Success() || time.Since(begin) > 8*time.Second {
				t.Errorf("exit %v after %v: %s", cmd.ProcessState, time.Since(begin), &errs)
			}
			if got := files(t, dir); !slices.Equal(got, []string{"big"}) {
				t.Errorf("left in the folder: %v", got)
			}
			os.RemoveAll(m.tmp())
			if got := files(t, m.home); len(got) > 0 {
				t.Errorf("left at home: %v", got)
			}
		})
	}
}

// 50 MiB through encryption, both ways, by file and by pipe, burning too, in little memory.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector's own memory is many times the program's")
	}
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("needs /proc")
	}
	ts := start(t, "MAX_ANON=64MiB")
	m := newMachine(t, ts.url)
	dir := t.TempDir()
	content := make([]byte, 50<<20)
	rand.Read(content)
	os.WriteFile(filepath.Join(dir, "big"), content, 0o600)
	peak := regexp.MustCompile(`VmHWM:\s+(\d+)`)
	run := func(what string, stdin io.Reader, args ...string) string {
		t.Helper()
		cmd := m.process(dir, args...)
		cmd.Stdin = stdin
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended, most := make(chan error), 0
		go func() { ended <- cmd.Wait() }()
		for {
			select {
			case err := <-ended:
				t.Logf("%s: peak %.1f MiB", what, float64(most)/1024)
				if err != nil || most > 40<<10 { // a test binary is large
					t.Errorf("%s: %v, peak of %d KiB: %s", what, err, most, &errs)
				}
				return out.String()
			case <-time.After(2 * time.Millisecond): // a look at what the kernel remembers as the most
				text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
				if m := peak.FindSubmatch(text); m != nil {
					fmt.Sscan(string(m[1]), &most)
				}
			}
		}
	}
	same := func(what, got string) {
		t.Helper()
		if got != string(content) {
			t.Errorf("%s: %d bytes of another content", what, len(got))
		}
	}
	link := strings.TrimSpace(run("upload of a file", nil, "big"))
	run("download to a file", nil, "get", link, "-o", "out")
	same("file", readFile(t, filepath.Join(dir, "out")))
	for _, option := range []string{"-e", "-E", "-b"} {
		link = strings.TrimSpace(run("upload of a pipe "+option, io.MultiReader(bytes.NewReader(content)), option))
		same("pipe "+option, run("download to a pipe "+option, nil, "get", link))
	}
	if got := files(t, m.tmp()); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

// What is kept is whole, as often as it is read, and on the disk only as ciphertext in a file without a name.
func TestKeep(t *testing.T) {
	plain := bytes.Repeat([]byte("the held plaintext "), 200_000)
	for _, dir := range []string{"/nonexistent", t.TempDir()} {
		t.Setenv("TMPDIR", dir)
		again, size, err := keep(bytes.NewReader(plain))
		if err != nil || size != int64(len(plain)) || len(files(t, dir)) > 0 {
			t.Fatalf("%v, %d bytes, %v has a name", err, size, files(t, dir))
		}
		for range 2 {
			if got, err := io.ReadAll(again()); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%s: %d of %d bytes, %v", dir, len(got), len(plain), err)
			}
		}
	}
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("needs /proc")
	}
	filed := 0
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		if name, _ := os.Readlink(link); strings.HasPrefix(name, os.TempDir()+"/.fpaste-") {
			text := readFile(t, link)
			if filed += len(text); strings.Contains(text, "plaintext") {
				t.Error("the file is readable")
			}
		}
	}
	if filed < len(plain)/2 {
		t.Errorf("%d bytes are in a file", filed)
	}
}

// What a server sends behind its answer, net/http says to the standard logger: not to our standard error.
func TestBehindTheAnswer(t *testing.T) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 4096))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}and more")
		}
	}()
	m := newMachine(t, "http://"+l.Addr().String())
	for range 10 { // it is said in most of the runs
		out, _ := m.process(m.home, "get", someID).CombinedOutput()
		if strings.Contains(string(out), "and more") || !strings.HasPrefix(string(out), "fpaste: ") {
			t.Fatalf("%s", out)
		}
	}
}

// terminal is a shell on a pseudo-terminal (util-linux's script), which finds the client as fpaste.
type terminal struct {
	t    testing.TB
	in   io.WriteCloser
	seen *lockedBuffer
	done chan error
}

func (m *machine) terminal(dir, program string) *terminal {
	m.t.Helper()
	cmd := m.process(dir)
	cmd.Path, cmd.Args = need(m.t, "script"), []string{"script", "-qec", program, "/dev/null"}
	cmd.Env = append(cmd.Env, "SHELL=/bin/sh")
	s := &terminal{t: m.t, in: must(cmd.StdinPipe()), seen: new(lockedBuffer), done: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = s.seen, s.seen
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { cmd.Process.Kill() })
	go func() { s.done <- cmd.Wait() }()
	return s
}

// answer waits until the terminal shows text, then types.
func (s *terminal) answer(text, typed string) {
	s.t.Helper()
	for range 2000 {
		if strings.Contains(s.seen.String(), text) {
			io.WriteString(s.in, typed)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Fatalf("the terminal does not show %q:\n%s", text, s.seen)
}

// end waits for the shell and returns all that was shown.
func (s *terminal) end() string {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		s.t.Fatalf("it does not end:\n%s", s.seen)
	}
	return strings.ReplaceAll(s.seen.String(), "\r\n", "\n")
}

func TestPasswordPrompt(t *testing.T) {
	ts := start(t)
	m := newMachine(t, ts.url)
	dir := t.TempDir()
	const after = `; echo "exit $?"; stty -a | grep -ow -- "-*echo"`
	s := m.terminal(dir, "echo the pipe is the content | fpaste -p >link"+after) // so the prompt can't read it there
	s.answer("Password: ", "open sesame\n")
	s.answer("Once more: ", "open sesame\n")
	if shown := s.end(); strings.Contains(shown, "sesame") || !strings.HasSuffix(shown, "exit 0\necho\n") {
		t.Errorf("the password is shown, or the echo is off for good: %q", shown)
	}
	s = m.terminal(dir, `fpaste get "$(cat link)"`+after)
	s.answer("Password: ", "open sesame\n")
	if shown := s.end(); !strings.Contains(shown, "the pipe is the content\nexit 0\n") {
		t.Errorf("shown: %q", shown)
	}
	s = m.terminal(dir, `trap : INT; fpaste get "$(cat link)"`+after)
	s.answer("Password: ", "\x03") // Ctrl-C
	if shown := s.end(); !strings.HasSuffix(shown, "exit 1\necho\n") {
		t.Errorf("Ctrl-C leaves the terminal without echo: %q", shown)
	}
	s = m.terminal(dir, "echo x | fpaste -p"+after)
	s.answer("Password: ", "one\n")
	s.answer("Once more: ", "two\n")
	if shown := s.end(); !strings.HasSuffix(shown, "exit 4\necho\n") {
		t.Errorf("two passwords: %q", shown)
	}
	for _, typed := range []string{"n\n", "y\n"} {
		want := map[string]string{"n\n": "exit 1", "y\n": "exit 0"}[typed]
		s = m.terminal(dir, "fpaste history --clear"+after)
		s.answer("[y/N]", typed)
		_, err := os.Stat(m.historyFile())
		if shown := s.end(); !strings.Contains(shown, want) || err != nil && typed == "n\n" {
			t.Errorf("%q: %q, %v", typed, shown, err)
		}
	}
	cmd := m.process(dir, "get", strings.TrimSpace(readFile(t, filepath.Join(dir, "link")))) // no terminal at all
	cmd.Args, cmd.Path = append([]string{"setsid"}, cmd.Args...), need(t, "setsid")
	text, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 4 || !strings.Contains(string(text), "FPASTE_PASSWORD") {
		t.Errorf("exit %d: %s", cmd.ProcessState.ExitCode(), text)
	}
}

func TestTerminalOutput(t *testing.T) {
	ts := start(t)
	m := newMachine(t, ts.url)
	dir := t.TempDir()
	show := func(program string) string { return m.terminal(dir, program+`; echo "exit $?"`).end() }
	evil := "red \x1b[31m title \x1b]0;x\x07 \u202e\u009b2J tab\tline\r\ncr\rover end"
	got := show("fpaste get -q '" + m.link(evil) + "'")
	shown := `red \x1b[31m title \x1b]0;x\a \u202e\u009b2J tab` + "\tline\r\n" + `cr\rover`
	if strings.ContainsAny(got, "\x1b\x07\u202e\u009b") || !strings.Contains(got, shown) {
		t.Errorf("shown: %q", got)
	}
	binary := "\x7fELF\x00\x01\x02"
	got = show("fpaste get '" + m.link(binary) + "'")
	if strings.Contains(got, "ELF") || !strings.Contains(got, "-o FILE") {
		t.Errorf("binary: %q", got)
	}
	if got := show("fpaste get -f '" + m.link(binary) + "'"); !strings.Contains(got, `\x7fELF\x00`) {
		t.Errorf("binary with -f: %q", got)
	}
	if got := show("fpaste get '" + m.link(binary) + "' >/dev/null"); !strings.Contains(got, "exit 0") {
		t.Errorf("/dev/null is no terminal: %q", got)
	}
	readable := m.link("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "-E", "-b")
	id, _ := parts(t, readable)
	if got := show("fpaste get " + readable); !strings.Contains(got, "exit 1") || ts.get("/"+id).StatusCode != 200 {
		t.Errorf("a burning image was burned by a terminal that can't show it: %q", got)
	}
	if got := files(t, dir); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
	// Sealed and burning: what it is comes to light only when it is gone, so it is kept.
	secret := m.link(binary, "-b")
	id, _ = parts(t, secret)
	got = show("fpaste get '" + secret + "'")
	kept := filepath.Join(dir, id)
	fi := must(os.Stat(kept))
	if fi.Mode().Perm() != 0o600 || !strings.Contains(got, id) || readFile(t, kept) != binary {
		t.Errorf("kept: %v, said %q", fi, got)
	}
	os.Remove(kept)
	if got := show("fpaste get '" + m.link("text", "-b") + "'"); got != "textexit 0\n" || len(files(t, dir)) > 0 {
		t.Errorf("burning text: %q, %v", got, files(t, dir))
	}
	s := m.terminal(dir, "fpaste")
	s.answer("Ctrl-D", "typed\n\x04")
	if shown := s.end(); !strings.Contains(shown, ts.url+"/") {
		t.Errorf("typed: %q", shown)
	}
	if got := show("fpaste history"); !strings.Contains(got, secret) {
		t.Errorf("the history cuts links: %q", got)
	}
}

// Progress and work are for people at a terminal: not in a pipe, not with -q, and never in colour.
func TestProgress(t *testing.T) {
	first := true // and that nonce takes two million tries
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if first {
			first = false
			refuseWith(w, 400, "pow_required", workAsked(20, "5feceb66ffc86f38d952786c6d696c79"))
			return
		}
		buf := make([]byte, 256<<10)
		for {
			if _, err := r.Body.Read(buf); err != nil {
				break
			}
			time.Sleep(4 * time.Millisecond)
		}
		w.WriteHeader(201)
		io.WriteString(w, fakeCreated)
	}))
	defer slow.Close()
	m := newMachine(t, slow.URL)
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "big"), make([]byte, 48<<20), 0o600) // more than two sockets hold
	shown := m.terminal(dir, "fpaste big").end()
	for _, want := range []string{"uploading", "of 48 MiB", "proof of work: 20 bits", "million tries/s, about"} {
		if !strings.Contains(shown, want) || strings.Contains(shown, "\x1b") {
			t.Errorf("no %q, or escape sequences: %q", want, shown)
		}
	}
	for _, line := range strings.FieldsFunc(shown, func(r rune) bool { return r == '\r' || r == '\n' }) {
		if len(line) > 79 && !strings.HasPrefix(line, "http") {
			t.Errorf("wider than a terminal: %q", line)
		}
	}
	for _, program := range []string{"fpaste -q big", "fpaste big 2>errors"} {
		if shown := m.terminal(dir, program).end(); strings.Contains(shown, "uploading") {
			t.Errorf("%s shows %q", program, shown)
		}
	}
	if text := readFile(t, filepath.Join(dir, "errors")); text != "" {
		t.Errorf("in a pipe: %q", text)
	}
}

// BenchmarkClientCreate is 1 KiB from a pipe to a link, encrypted, with the history, on loopback.
func BenchmarkClientCreate(b *testing.B) {
	m := newMachine(b, start(b).url)
	content := strings.Repeat("k", 1024)
	for b.Loop() {
		m.link(content)
	}
}
