package main

// The command line against the real server over a real listener; a stand-in only where the real one can't be hostile.

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
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
	tmp  string           // for temporary files of its processes
	said *strings.Builder // all that was on stderr
}

func newMachine(t testing.TB, server string) *machine {
	m := &machine{t: t, home: t.TempDir(), tmp: t.TempDir(), said: new(strings.Builder)}
	m.env = map[string]string{"HOME": m.home}
	if server != "" {
		m.env["FPASTE_SERVER"] = server
	}
	return m
}

// try runs a command in this process.
func (m *machine) try(stdin string, args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	env := func(name string) (string, bool) { v, ok := m.env[name]; return v, ok }
	code = runClient(m.t.Context(), args, stdio{strings.NewReader(stdin), &o, io.MultiWriter(&e, m.said), env})
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

// process prepares fpaste in a process of its own, in folder dir: this test binary under the client's name.
func (m *machine) process(dir string, args ...string) *exec.Cmd {
	path := filepath.Join(m.tmp, "fpaste")
	os.Symlink(must(os.Executable()), path)
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.Env = append(coverage(), "RUN_AS_FLASKPASTE=1", "TMPDIR="+m.tmp, "PATH="+m.tmp+":"+os.Getenv("PATH"))
	for k, v := range m.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd
}

// jsonLines decodes one value after another.
func jsonLines[T any](t testing.TB, text string) (all []T) {
	t.Helper()
	for dec := json.NewDecoder(strings.NewReader(text)); dec.More(); {
		var v T
		if err := dec.Decode(&v); err != nil {
			t.Fatal(err, text)
		}
		all = append(all, v)
	}
	return all
}

// entries is what the history has.
func (m *machine) entries() []historyEntry {
	m.t.Helper()
	out, _ := m.want(0, "", "history", "-j")
	return jsonLines[historyEntry](m.t, out)
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

// files lists a folder, all below it.
func files(dir string) (all []string) {
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(dir, path)
			all = append(all, rel)
		}
		return nil
	})
	return all
}

func readFile(path string) string { return string(must(os.ReadFile(path))) }

func parts(link string) (id, key string) {
	place, key, _ := strings.Cut(link, "#")
	return place[strings.LastIndexByte(place, '/')+1:], key
}

// recorder passes requests on and keeps what came of them.
func recorder(t *testing.T, target string) (string, *lockedBuffer) {
	seen, proxy := new(lockedBuffer), httputil.NewSingleHostReverseProxy(must(url.Parse(target)))
	return answering(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Write(must(httputil.DumpRequest(r, true)))
		proxy.ServeHTTP(w, r)
	}), seen
}

// passing is a proxy as an operator runs one: the fingerprint of any client certificate and the secret passed on.
func passing(target string) http.HandlerFunc {
	u := must(url.Parse(target))
	return (&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(u)
		p.Out.Host = p.In.Host
		p.Out.Header.Del("X-SSL-Client-SHA1")
		p.Out.Header.Set("X-Proxy-Secret", proxySecret)
		if certs := p.In.TLS.PeerCertificates; len(certs) > 0 {
			sum := sha1.Sum(certs[0].Raw)
			p.Out.Header.Set("X-SSL-Client-SHA1", hex.EncodeToString(sum[:]))
		}
	}}).ServeHTTP
}

// overTLS serves h, which may look at a client's certificate, and returns where, and the authority's file.
func overTLS(t testing.TB, h http.HandlerFunc) (link, ca string) {
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	os.WriteFile(ca, pemOf("CERTIFICATE", s.Certificate().Raw), 0o600)
	return s.URL, ca
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

// Each creation has its work: taken from the server's refusal, solved, and sent once more with the same content.
func TestCreateAndGet(t *testing.T) {
	ts := start(t, "POW_FREE=0", "POW_DIFFICULTY=12")
	m := newMachine(t, ts.url)
	path, latin := m.file("notes.txt", "from a file\n"), m.file("caf\xe9", "from another\n")
	big := strings.Repeat("0123456789abcdef", 2<<16)
	for _, row := range []struct {
		stdin, want string
		args        []string
	}{
		{"hello\n", "hello\n", nil},
		{"hello\n", "hello\n", []string{"create", "-"}},
		{"", "from a file\n", []string{path, "-b", "-x", "1h", "--name=n"}}, // options behind words
		{"", "from another\n", []string{latin}},
		{big, big, nil},
		{"\x1b[31m\x00\r\n", "\x1b[31m\x00\r\n", nil}, // neutralised on terminals only
	} {
		link := m.link(row.stdin, row.args...)
		id, key := parts(link)
		if !strings.HasPrefix(link, ts.url+"/") || !idShaped(id) || len(key) != 43 {
			t.Fatalf("%q: link %q", row.args, link)
		}
		m.gives(row.want, "", "get", link)
	}
	missing := filepath.Join(m.home, "missing")
	code, out, errs := m.try("", path, missing, latin)
	if code != 2 || len(strings.Fields(out)) != 2 || !strings.Contains(errs, "missing") {
		t.Errorf("one of three missing: %d %q %q", code, out, errs)
	}
	out, _ = m.want(0, "", path, latin, "-j")
	for i, info := range jsonLines[item](t, out) {
		name := []string{path, strings.ToValidUTF8(latin, "\ufffd")}[i]
		if info.all["file"] != name || !strings.Contains(info.Link, "#") {
			t.Errorf("-j of two files: %+v", info)
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
	if info := jsonLines[item](t, out)[0]; !info.Burn || !info.ReadProof || info.ExpiresAt-info.CreatedAt != 7200 {
		t.Errorf("meta -j: %s", out)
	}
	m.want(1, "", "create")                                                                         // nothing to send
	for _, path := range []string{"/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"} { // sizes 0, 4096
		if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
			m.gives(string(text), "", "get", m.link("", path))
			m.gives(string(text), "", "get", m.link("", path, "-E"))
		}
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
	before := files(m.home)
	links := []string{m.link(plain, "-v"), m.link(strings.Repeat(plain, 100_000)), m.link("", path),
		m.link(plain, "-b", "-x", "1000d", "-n", "the-secret-name", "-t", "text/secret")}
	for _, l := range links[:3] {
		coded := strings.Replace(l, "#", "%23", 1)
		m.want(0, "", "get", l, "-v")
		m.want(0, "", "get", coded)
		m.want(4, "", "update", l, path) // no token without history
		m.want(7, "", "get", l[:len(l)-43]+newSealKey().fragment())
		for _, args := range [][]string{{"short", l}, {"short", coded}, {"short", strings.Replace(l, "#", "/raw#", 1)},
			{"get", "nowhere" + l}, {"get", l + "x"}, {"-s", l}, {"-s", strings.Replace(l, "#", "%2523", 1)}, {l},
			{"--" + l}, {"help", l}, {"delete", l + " " + l}} {
			m.want(2, "", args...)
		}
	}
	m.want(0, "", "get", strings.Replace(links[0], "http://", "http://me:the-URL's-password@", 1))
	m.want(6, "", "info", "-s", "http://me:the-URL's-password@127.0.0.1:1")
	if got := files(m.home); !slices.Equal(got, before) {
		t.Errorf("with history off these files appeared: %v", got)
	}
	secrets := []string{plain, "the-secret-name", "text/secret", "the-URL's-password"}
	for _, l := range links {
		_, fragment := parts(l)
		key := must(parseSealKey(fragment))
		standard := base64.StdEncoding.EncodeToString(key[:])
		secrets = append(secrets, fragment, string(key[:]), hex.EncodeToString(key[:]), standard[:40])
	}
	seen := map[string]string{"wire": wire.String(), "log": ts.logs.String(), "stderr": m.said.String()}
	for where, text := range seen {
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("%q is on the %s", s, where)
			}
		}
	}
	if !strings.Contains(wire.String(), "FPE1") || !strings.Contains(m.said.String(), "GET /") {
		t.Error("nothing was seen")
	}
}

// A burning paste survives everything that can't show it, and is read exactly once.
func TestBurnIsNotWasted(t *testing.T) {
	ts := start(t)
	m, stranger := newMachine(t, ts.url), newMachine(t, ts.url)
	m.env["FPASTE_PASSWORD"] = "pass word"
	link := m.link("once", "-b", "-p")
	id, _ := parts(link)
	open := m.link("readable", "-b", "-E")
	openID, _ := parts(open)
	taken := stranger.file("taken", "mine")
	foreign := "#" + testKey(9).fragment()
	for _, row := range []struct {
		code int
		pw   string
		args []string
	}{
		{4, "pass word", []string{"get", id}}, // no key
		{2, "pass word", []string{"get", link + "x"}},
		{2, "pass word", []string{"get", ts.url + "/" + id + "#"}},
		{7, "pass word", []string{"get", ts.url + "/" + id + foreign}},
		{2, "", []string{"get", link}},
		{4, "password", []string{"get", link}},
		{1, "pass word", []string{"get", link, "-o", taken}},
		{1, "pass word", []string{"get", link, "-o", taken + "/x/y"}},
		{1, "pass word", []string{"get", link, "-f", "-o", stranger.home}},
		{1, "pass word", []string{"get", link, "-f", "-o", "/dev/null"}},
		{0, "pass word", []string{"meta", link}},
		{2, "pass word", []string{"get", link, "--wat"}},
		{7, "pass word", []string{"get", open + foreign, "-o", "f"}},
	} {
		stranger.env["FPASTE_PASSWORD"] = row.pw
		stranger.want(row.code, "", row.args...)
		if ts.get("/"+id).StatusCode != 200 || ts.get("/"+openID).StatusCode != 200 {
			t.Fatalf("%q burned it", row.args)
		}
	}
	delete(stranger.env, "FPASTE_PASSWORD")
	stranger.want(4, "", "get", link)
	if got := files(stranger.home); !slices.Equal(got, []string{"taken"}) || readFile(taken) != "mine" {
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
	id, _ = parts(link)
	fresh := strings.TrimPrefix(strings.TrimSpace(errs), "fpaste: saved as ")
	if fi, err := os.Stat(fresh); err != nil || fi.Mode().Perm() != 0o600 || readFile(fresh) != "twice" ||
		!strings.HasPrefix(fresh, id+"-") {
		t.Errorf("%v, said %s", err, errs)
	}
	// What can't be written is kept, too.
	r, broken, _ := os.Pipe()
	r.Close()
	for _, out := range []*os.File{must(os.OpenFile("/dev/full", os.O_WRONLY, 0)), broken} {
		cmd, said := m.process(stranger.home, "get", m.link("thrice", "-b")), new(bytes.Buffer)
		cmd.Stdout, cmd.Stderr = out, said
		cmd.Run()
		_, fresh, _ := strings.Cut(strings.SplitN(said.String(), "\n", 2)[0], "saved as ")
		if code := cmd.ProcessState.ExitCode(); code != 1 || readFile(fresh) != "thrice" {
			t.Errorf("exit %d, said %s", code, said)
		}
	}
}

// A burning paste into a pipe is here as a whole before its reader has read a thing, in memory and from a MiB on in a
// file without a name, as ciphertext; what is cut gives its true prefix.
func TestBurnIntoPausedPipe(t *testing.T) {
	content := make([]byte, 8<<20)
	rand.Read(content)
	for _, row := range []struct {
		key  *sealKey
		temp bool // whether there is a folder for temporary files
	}{{nil, true}, {new(testKey(1)), true}, {nil, false}} {
		stored, link := content, "/"+someID
		if row.key != nil {
			stored, link = mustSeal(t, *row.key, sealTitle{}, content), link+"#"+row.key.fragment()
		}
		sent, cut := make(chan bool), false
		url := answering(t, func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/raw") {
				fmt.Fprintf(w, `{"id":%q,"burn_after_read":true,"read_proof":%v}`, someID, row.key != nil)
				return
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(stored)))
			if cut {
				w.Write(stored[:1<<20])
				return
			}
			w.Write(stored)
			close(sent)
		})
		m := newMachine(t, url)
		if !row.temp {
			m.env["TMPDIR"] = "/nonexistent"
		}
		cmd := m.process(m.home, "get", url+link)
		out := must(cmd.StdoutPipe())
		must(0, cmd.Start())
		<-sent                            // with nobody reading: more than any pipe holds
		io.ReadFull(out, make([]byte, 1)) // which comes when all the rest is here
		text := ""
		for _, fd := range must(filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", cmd.Process.Pid))) {
			if name, _ := os.Readlink(fd); strings.HasPrefix(name, m.tmp+"/.fpaste-") {
				text += readFile(fd)
			}
		}
		if text == "" && row.temp && exists("/proc/self/fd") || strings.Contains(text, string(content[:100])) {
			t.Errorf("%v: %d bytes in a file, or plaintext", row, len(text))
		}
		if got := must(io.ReadAll(out)); !bytes.Equal(got, content[1:]) {
			t.Errorf("%v: %d bytes of %d", row, len(got), len(content))
		}
		if err := cmd.Wait(); err != nil || len(files(m.tmp)) > 0 {
			t.Errorf("%v, left %v", err, files(m.tmp))
		}
		cut = true
		if got, _ := m.want(6, "", "get", url+link); len(got) < 900<<10 || !bytes.HasPrefix(content, []byte(got)) {
			t.Errorf("%v, cut: %d bytes", row, len(got))
		}
	}
}

func TestOutputFiles(t *testing.T) {
	ts := start(t)
	m := newMachine(t, ts.url)
	dir := t.TempDir()
	t.Chdir(dir)
	link, evil := m.link("content", "-n", "report.txt"), m.link("evil", "-n", "link.txt")
	os.Symlink("/etc/passwd", "link.txt")
	os.Mkdir("folder", 0o700)
	m.want(0, "", "get", link, "-O")
	os.WriteFile("report.txt", []byte("edited"), 0o644)
	m.says(1, "-f", "", "get", link, "-O")
	if readFile("report.txt") != "edited" {
		t.Error("overwritten")
	}
	m.want(0, "", "get", link, "-O", "-f")
	m.want(1, "", "get", evil, "-O")
	m.want(1, "", "get", evil, "-O", "-f")
	m.want(0, "", "get", link, "-o", "out")
	m.want(1, "", "get", link, "-o", "out")
	m.want(0, "", "get", link, "-f", "-o", "out")
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
	if got := files(dir); !slices.Equal(got, []string{"folder/report.txt", "out", "report.txt"}) ||
		readFile("report.txt") != "content" {
		t.Errorf("in the folder: %v", got)
	}
}

func TestHostileNames(t *testing.T) {
	n255, n256 := strings.Repeat("n", 255), strings.Repeat("n", 256)
	for name, want := range map[string]string{
		"a b": "a b", "Ünïcode.pdf": "Ünïcode.pdf", "dir/file": "file", `dir\file`: "file", "/etc/passwd": "passwd",
		"../../x": "x", "": "ID", ".": "ID", "a/..": "ID", "dir/": "ID", "x/.ssh": "ID", "-rf": "ID", "C:evil": "ID",
		"x\ny": "ID", "x\x00": "ID", "x\u202etxt.exe": "ID", "x\u0085": "ID", "\xff\xfe": "ID", "\x7f": "ID",
		n255: n255, n256: "ID", strings.Repeat("é", 128): "ID",
	} {
		if got := safeName(name, "ID"); got != want {
			t.Errorf("%q became %q, want %q", name, got, want)
		}
	}
	// From a server: in the sealed title, in a readable paste's display name, in sentences.
	dir := t.TempDir()
	t.Chdir(dir)
	key := testKey(4)
	for _, name := range []string{"..", "\x1b]0;title\x07", ".profile"} {
		for _, sealed := range []bool{true, false} {
			link, meta, body := "/"+someID, map[string]any{"display_name": name}, []byte("x")
			if sealed {
				link, meta = link+"#"+key.fragment(), map[string]any{"read_proof": true}
				body = mustSeal(t, key, sealTitle{Name: name}, []byte("x"))
			}
			srv := standIn(t, meta, body)
			_, errs := newMachine(t, srv).want(0, "", "get", srv+link, "-O")
			if err := os.Remove(someID); err != nil || strings.ContainsAny(errs, "\x1b\x07") {
				t.Errorf("%q (sealed %v): %v, %q", name, sealed, err, errs)
			}
		}
	}
	if got := files(dir); len(got) > 0 {
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
	id, fragment := parts(link)
	proof := "X-Read-Proof: " + must(parseSealKey(fragment)).readProof()
	first := ts.get("/"+id+"/raw", proof).body
	m.gives(link+"\n", "two", "update", link)
	second := ts.get("/"+id+"/raw", proof).want(200, "").body
	if len(first) != len(second) || first[4:20] == second[4:20] || !strings.HasPrefix(second, sealMagic) {
		t.Error("the salt is not fresh")
	}
	ts.get("/"+id+"/raw").want(403, "")
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
	m.want(2, "three", "update", m.link("readable", "-E")) // no key, and encryption is on
	stranger := newMachine(t, ts.url)                      // no certificate, and no token but by hand
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
	urlA, wireA := recorder(t, start(t).url)
	urlB, wireB := recorder(t, start(t).url)
	m := newMachine(t, urlA)
	m.env["FPASTE_PASSWORD"] = "the-password"
	linkA := m.link("at a", "-p")
	linkB := m.link("at b", "-s", urlB, "-p")
	openB := m.link("open at b", "-s", urlB)
	e := m.entries()
	seenB := len(wireB.String())
	m.want(4, "", "get", linkB) // has a password, which is not for b
	m.want(4, "", "get", linkB, "-p")
	m.want(4, "", "delete", linkB)
	m.want(4, "", "delete", linkB, "--token", e[1].Token)
	m.want(4, "x", "update", linkB)
	m.gives("open at b", "", "get", openB)
	for _, s := range []string{e[0].Token, e[1].Token, "the-password", "X-Delete-Token", "X-Paste-Password"} {
		if strings.Contains(wireB.String()[seenB:], s) {
			t.Errorf("b was sent %q", s)
		}
	}
	m.want(0, "", "delete", linkB, "-s", urlB)
	m.want(0, "", "delete", linkA)
	if a, b := wireA.String(), wireB.String(); strings.Contains(b, e[0].Token) || strings.Contains(a, e[1].Token) ||
		!strings.Contains(a, e[0].Token) || !strings.Contains(b, e[1].Token) {
		t.Error("a token went to the other server")
	}
	if left := m.entries(); len(left) != 1 || left[0].Link != openB {
		t.Errorf("deleted pastes are still in the history, or too much is gone: %v", left)
	}
}

// The certificate goes to the configured server only: to no other host in a link, and to no proxy on the way.
func TestCertificateStaysHome(t *testing.T) {
	var shown sync.Map
	serve := func(name string, h http.HandlerFunc) (string, string) {
		return overTLS(t, func(w http.ResponseWriter, r *http.Request) {
			shown.Store(name, len(r.TLS.PeerCertificates))
			h(w, r)
		})
	}
	missing := func(w http.ResponseWriter, r *http.Request) { refuseWith(w, 404, "not_found", nil) }
	home, ca := serve("home", missing)
	away, _ := serve("away", missing)
	proxy, _ := serve("proxy", func(w http.ResponseWriter, r *http.Request) {
		out := must(net.Dial("tcp", strings.TrimPrefix(home, "https://")))
		in, _, _ := w.(http.Hijacker).Hijack()
		io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(out, in); out.Close() }()
		io.Copy(in, out)
	})
	m := newMachine(t, home)
	m.env["SSL_CERT_FILE"] = ca // for the others: they are no servers of ours
	m.want(0, "", "cert", "me")
	run := func(args ...string) {
		t.Helper()
		if out, err := m.process(m.home, args...).CombinedOutput(); fmt.Sprint(err) != "exit status 3" {
			t.Fatalf("%q: %v %s", args, err, out)
		}
	}
	run("meta", someID, "--cacert", ca)
	run("meta", away+"/"+someID)
	m.env["https_proxy"] = proxy
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
	ts := start(t, proxied...)
	front, ca := overTLS(t, passing(ts.url))
	m := newMachine(t, front)
	m.want(6, "", "list") // an authority that nobody knows
	m.env["FPASTE_CACERT"] = ca
	m.want(4, "", "list") // no certificate yet
	m.want(0, "", "cert", "me")
	delete(m.env, "FPASTE_CACERT") // it is in the config
	m.want(1, "", "cert", "me")    // never overwrites
	for _, name := range []string{"client.key", "client.crt", "config"} {
		if fi := must(os.Stat(filepath.Join(m.home, ".config/fpaste", name))); fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", name, fi.Mode())
		}
	}
	m.link("one", "-n", "One.txt")
	m.link("two", "-E", "-n", "two.txt", "-t", "text/x-two")
	id, _ := parts(m.link("three", "-b"))
	for _, want := range []string{"ID ", "One.txt", "two.txt", "text/x-two", ", burns: "} {
		m.shows(want, "", "list")
	}
	for _, row := range []struct {
		args []string
		want int
	}{
		{[]string{"one"}, 1}, {[]string{"txt"}, 2}, {[]string{"two", "-t", "text/*"}, 1}, {[]string{"-t", "text/*"}, 1},
		{[]string{id}, 1}, {[]string{"nothing"}, 0}, {nil, 3},
		{[]string{"--after", "2000-01-01"}, 3}, {[]string{"--before", "2000-01-01"}, 0},
	} {
		out, _ := m.want(0, "", append([]string{"search", "-j"}, row.args...)...)
		if all := jsonLines[[]item](t, out)[0]; len(all) != row.want {
			t.Errorf("search %q: %s", row.args, out)
		}
	}
	m.want(4, "", "search", "--owner", "all") // for admins
	m.want(0, "", "history", "--clear")       // from now on the certificate alone
	out, _ := m.want(0, "", "list", "--ids")
	if len(strings.Fields(out)) != 3 || !strings.Contains(out, id) {
		t.Errorf("--ids: %q", out)
	}
	m.want(0, out, "delete", "-")
	m.gives("", "", "list", "--ids")
	for _, want := range []string{front, version, "untrusted", "me, good until", "50 MiB", "lives 7 d", "up to 49 d"} {
		m.shows(want, "", "info")
	}
	for _, want := range []string{"anonymous", "3 MiB"} {
		m.shows(want, "", "info", "-s", ts.url)
	}
	// Over http the certificate can't be sent, and who needs it is told so.
	m.says(4, "your certificate was not sent", "", "list", "-s", ts.url)
}

// The history forgets what the server said is gone, and nothing else: not what a clock says.
func TestHistory(t *testing.T) {
	ts := start(t)
	m := newMachine(t, ts.url)
	path := filepath.Join(m.home, ".local/state/fpaste/history")
	link := m.link("x", "-n", "one.txt", "-x", "1h")
	os.Chmod(path, 0o644)
	second := m.link("", m.file("two.txt", "y"))
	if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v stays", fi.Mode())
	}
	old := readFile(path)
	m.file(".local/state/fpaste/history", old+"not json\n"+`{"link":"`+ts.url+`/00000000deadbeef#`+
		testKey(1).fragment()+`","token":"old","expires":5}`+"\n"+`{"link":"cut by a full di`)
	third := m.link("z")
	text := readFile(path)
	if !strings.HasPrefix(text, old) {
		t.Error("it is not appended to")
	}
	out, _ := m.want(0, "", "history")
	pattern := "^.*one.txt  .*" + link + "\n.*two.txt  .*" + second + "\n.*deadbeef#.*\n.*" + third + "\n$"
	if !regexp.MustCompile(pattern).MatchString(out) {
		t.Errorf("the history is not %s:\n%s", pattern, out)
	}
	m.want(0, "", "update", link, "-x", "3h")
	all := m.entries()
	if e := all[0]; e.Link != link || e.Name != "one.txt" || e.Token == "" || e.Created == 0 ||
		e.Expires < time.Now().Unix()+7200 || len(all) != 4 {
		t.Errorf("after update: %+v", all)
	}
	if !strings.HasPrefix(readFile(path), text) {
		t.Error("looking at it, or an update, changed it")
	}
	m.want(3, "", "get", ts.url+"/00000000deadbeef") // the server says so
	m.want(0, "", "delete", second)
	if all := m.entries(); len(all) != 2 || all[0].Link != link || all[1].Link != third {
		t.Errorf("after 404 and delete: %v", all)
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
	out, _ := m.want(0, "x", "-j")
	info := jsonLines[item](t, out)[0]
	if info.ReadProof || info.ExpiresAt-info.CreatedAt != 7200 || exists(filepath.Join(m.home, ".local")) {
		t.Errorf("config is not used: %s", out)
	}
	out, _ = m.want(0, "x", "-j", "--encrypt", "-x", "1h")
	if info := jsonLines[item](t, out)[0]; !info.ReadProof || info.ExpiresAt-info.CreatedAt != 3600 {
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
		"encrypt = maybe": "encrypt", "server = ftp://x": "ftp://x"} {
		m.file("other/fpaste/config", "# line one\n"+text+"\n")
		m.says(2, name, "x")
	}
}

// Whose certificate, and what becomes of one that can't be had: whatever needs none goes on.
func TestWhichCertificate(t *testing.T) {
	var names []string
	revoked := ""
	front, ca := overTLS(t, func(w http.ResponseWriter, r *http.Request) {
		name := "-"
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		switch names = append(names, name); {
		case name == revoked:
			refuseWith(w, 403, "certificate_revoked", nil)
		case r.URL.Path == "/pastes" && name == "-":
			refuseWith(w, 401, "authentication_required", nil)
		default: // a list, metadata, and content too
			io.WriteString(w, `{"pastes":[],"id":"`+someID+`","mime_type":"text/plain","size":2}`)
		}
	})
	m := newMachine(t, front)
	m.env["FPASTE_CACERT"] = ca
	dir := filepath.Join(m.home, ".config/fpaste")
	m.want(0, "", "cert", "alice")
	crt := readFile(dir + "/client.crt")
	alice := m.file("alice.pem", crt+readFile(dir+"/client.key"))
	sealed := m.file("sealed.pem", crt+string(pemOf("ENCRYPTED PRIVATE KEY", []byte("junk"))))
	h := start(t, issuing...).issued("soon", 4, false)
	soon := m.file("soon.pem", string(pemOf("CERTIFICATE", h.der))+
		string(pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(h.key)))))
	m.want(0, "", "cert", "me", "-f")
	own := []string{"list", "--cert", dir + "/client.crt"}
	config := func(text string) func() { return func() { m.file(".config/fpaste/config", text) } }
	for _, row := range []struct {
		before func()
		code   int
		args   []string
		seen   string // what the server was shown
		says   string
	}{
		{nil, 0, []string{"list"}, "me", ""},
		{nil, 0, []string{"list", "--cert", alice}, "alice", ""},
		{nil, 1, []string{"get", someID, "--cert", "/nowhere.pem"}, "", "/nowhere.pem"},
		{nil, 1, own, "", "private key"}, // the config's is not for an option's certificate
		{nil, 0, append(own, "--key", dir+"/client.key"), "me", ""},
		{nil, 0, []string{"list", "--cert", soon}, "soon", "fpaste renew"},
		{nil, 0, []string{"list", "--cert", soon}, "soon", ""}, // that is said once a day
		{nil, 1, []string{"list", "--cert", sealed}, "", "openssl pkey -in "},
		{nil, 1, []string{"list", "--cert", m.file("alice.p12", "0\x82\x01\x02rest")}, "", "openssl pkcs12 -in "},
		{func() { revoked = "me" }, 0, []string{"get", someID}, "me - -", "without your certificate"},
		{nil, 4, []string{"list"}, "me", "register NAME -f"},
		{func() { os.Remove(dir + "/client.crt") }, 0, []string{"get", someID}, "- -", dir + "/client.crt"},
		{nil, 4, []string{"list"}, "-", "not sent"},
		{config("cert = ~/alice.pem\n"), 0, []string{"list"}, "alice", ""},
		{config("cert = ../../alice.pem\n"), 0, []string{"list"}, "alice", ""},
		{func() { m.env["FPASTE_CERT"] = soon }, 0, []string{"list"}, "soon", ""},
	} {
		if names = nil; row.before != nil {
			row.before()
		}
		code, _, errs := m.try("", row.args...)
		seen, said := strings.Join(names, " "), strings.Contains(errs, row.says) && (row.says != "" || errs == "")
		if code != row.code || seen != row.seen || !said {
			t.Errorf("%q: exit %d, the server saw %q, said %s", row.args, code, seen, errs)
		}
	}
	// Refused by the handshake, in the middle of what is sent.
	strict := httptest.NewUnstartedServer(passing(start(t).url))
	strict.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, VerifyConnection: func(c tls.ConnectionState) error {
		return map[bool]error{true: errNotRights}[len(c.PeerCertificates) > 0]
	}}
	strict.StartTLS()
	defer strict.Close()
	m.env["FPASTE_CACERT"] = m.file("strict.pem", string(pemOf("CERTIFICATE", strict.Certificate().Raw)))
	m.env["FPASTE_SERVER"], m.env["FPASTE_CERT"] = strict.URL, ""
	for range 10 {
		m.says(0, "without your certificate", "x")
	}
	m.says(4, "register NAME -f", "", "list")
	m.env["FPASTE_SERVER"] = "https://other.example"
	m.want(3, "", "meta", strict.URL+"/"+someID) // cacert is for whatever host a link names
}

// Whatever is typed wrong is answered with what to type, on stderr, before anything is sent.
func TestWayOn(t *testing.T) {
	m := newMachine(t, "http://127.0.0.1:1")
	link, key := "http://127.0.0.1:1/"+someID, newSealKey().fragment()
	for _, row := range [][]string{ // what it says, to what
		{"-wat", "--wat"}, {"-Z", "get", "x", "-Z"}, {"one -: -E...", "-EKEY"}, {"one -: -p...", "-pKEY=x"}, {"get takes no --burn", "-b", "get", someID},
		{"list takes no --clear", "list", "--clear"}, {"argument: -x", "-x"}, {"create takes no --burn", "--burn=yes"},
		{"wrong arguments", "get"}, {"wrong arguments", "get", "a", "b"}, {`"nonsense"`, "help", "nonsense"},
		{`"csh"`, "completion", "csh"}, {"neither", "get", "xyz"}, {"neither", "delete", "../../etc"},
		{"43 characters", "get", someID + "#abc"}, {"fpaste get", link},
		{"https://paste", "get", "ftp://x/" + someID}, {"--insecure-http", "get", "http://example.org/" + someID},
		{"-r goes with -E", "-r"}, {"not to encrypt", "-e", "-E"},
		{"--after can't be", "search", "--after", "nope"}, {"short takes", "short", "https://x", "y"}, {"short takes", "short", "info"},
		{"not the URL", "get", "https://example.org/" + someID + "?x=1"}, {"expiry", "-x", "1h\r\nX: y"},
		{"too long", "-n", strings.Repeat("n", 1100)}, {"neither", "get", "https://example.org"},
		{"neither", "get", strings.ToUpper(someID) + "ABCDEF"}, {"neither", "short", "info", someID},
		{"no file and no command is called lst; fpaste help lists the commands", "lst"},
		{"no file and no command is called lst", "-j", "lst", "x"}, {"letters", "cert", ""},
		{"fpaste get", someID + "#KEY"}, {"fpaste get", link + "%23" + key}, {"fpaste get", "<" + link + ">"},
		{"add # and the key", "short", link + "#" + key}, {"add # and the key", "short", "https://x/y%23" + key},
		{"add # and the key", "short", "https://x/?u=https%3A%2F%2Fh%2Fi%23" + key + "&z"},
		{"add # and the key", "short", " <" + link + "#" + key[:40] + "> "},
		{"add # and the key", "short", link + "/raw/n.txt#/" + key},
		{"add # and the key", "short", link + "?x=1#" + key[:42]}, {"give the content", "update", link, "-t", "x/y"},
	} {
		code, out, errs := m.try("content", row[1:]...)
		secret := strings.Contains(errs, "KEY") || strings.Contains(errs, key[:40])
		if code != 2 || out != "" || secret || !strings.Contains(errs, row[0]) {
			t.Errorf("%q: exit %d, %q %q, want it to say %s", row[1:], code, out, errs, row[0])
		}
	}
	newMachine(t, "").says(2, "no file and no command", "", "lst") // no server either, but that is not it
	ts := start(t)
	for _, row := range [][]string{{"not 1000d", "-x", "1000d"}, {"not 604801", "-x", "604801"}, {"", "-x", "7d"},
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
	m.gives(list, "", "--help")
	m.gives(list, "", "-h")
	m.shows("--no-encrypt", "", "help") // create's options
	for _, args := range [][]string{{"--version"}, {"version"}, {"get", "-V"}} {
		m.gives("fpaste "+version+"\n", "", args...)
	}
	var scripts []string
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script, _ := m.want(0, "", "completion", shell)
		scripts = append(scripts, script)
	}
	meaning := map[string]string{}
	for _, k := range clientCommands() {
		help, _ := m.want(0, "", "help", k.name)
		m.gives(help, "", k.name, "--help")
		if !strings.Contains(list, "  "+k.name) || k.brief == "" {
			t.Errorf("help of %s: %s", k.name, help)
		}
		for _, o := range optionsIn(k.options + everywhere) {
			whole := strings.Join(o[1:], " ")
			if other := meaning[o[1]]; o[1] != "" && other != "" && other != whole {
				t.Errorf("%s: -%s means two things", k.name, o[1])
			}
			meaning[o[1]] = whole
			for i, script := range scripts {
				if !strings.Contains(script, "--"+o[2]) || !strings.Contains(script, k.name) {
					t.Errorf("%s --%s is missing in %.40q", k.name, o[2], scripts[i])
				}
			}
		}
		if n := strings.Count(k.options, "\n"); n != len(optionsIn(k.options)) {
			t.Errorf("%s: %d lines of %d options", k.name, n, len(optionsIn(k.options)))
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
			"bash": "source $0; set -- $(complete -p fpaste); eval \"compgen ${*:2:$#-2} -- '" + row.last + "'\"",
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

func TestShortURLCommands(t *testing.T) {
	ts := start(t, append([]string{"POW_FREE=0", "POW_DIFFICULTY=4"}, proxied...)...)
	m := newMachine(t, ts.url)
	target := "https://example.org/a?b=c#section"
	link := m.link("", "short", target, "-x", "1h")
	id, _ := parts(link)
	if a := ts.get("/s/" + id); a.StatusCode != 302 || a.Header.Get("Location") != target || link != ts.url+"/s/"+id {
		t.Fatalf("%s: %d %s", link, a.StatusCode, a.Header.Get("Location"))
	}
	m.shows(target+"  ", "", "history")
	m.shows(target, "", "short", "info", link)
	m.shows("(in ", "", "short", "info", id)
	m.want(1, "", "short", "javascript:alert(1)")
	m.want(4, "", "short", "list")
	m.want(0, "", "short", "delete", link)
	m.want(3, "", "short", "info", id)
	m.env["FPASTE_SERVER"], m.env["FPASTE_CACERT"] = overTLS(t, passing(ts.url))
	m.want(0, "", "cert", "me")
	m.link("", "short", target)
	if out, _ := m.want(0, "", "short", "list"); !strings.Contains(out, target) || strings.Count(out, "\n") != 2 {
		t.Errorf("list: %s", out)
	}
	m.shows(`"target_url":"`+target, "", "short", "list", "-j")
	ids, _ := m.want(0, "", "short", "list", "--ids")
	m.want(0, ids, "short", "delete", "-")
}

// From nothing to a certificate of the server's CA, renewed, revoked, and back by registering again. A key and its
// certificate appear together or not at all; a renewal loads before it takes the old one's place.
func TestClientEnrolment(t *testing.T) {
	ts := start(t, append(slices.Clone(issuing), "REGISTER_POW=10")...)
	pass, mode, dir := passing(ts.url), "", ""
	front, ca := overTLS(t, func(w http.ResponseWriter, r *http.Request) {
		if mode == "obstacle" { // nothing can take the certificate's place any more
			os.Remove(dir + "/client.crt")
			os.Mkdir(dir+"/client.crt", 0o700)
		}
		body := must(io.ReadAll(r.Body))
		if r.Body = io.NopCloser(bytes.NewReader(body)); strings.Contains(string(body), "PRIVATE") {
			t.Error("the key was sent")
		}
		switch mode {
		case "closed":
			refuseWith(w, 403, "registration_closed", nil)
		case "foreign":
			w.Write(pemOf("CERTIFICATE", selfSigned("alice").der))
		default:
			pass(w, r)
		}
	})
	m := newMachine(t, "")
	for _, mode = range []string{"closed", "foreign"} {
		if m.want(1, "", "register", "alice", "-s", front, "--cacert", ca); len(files(m.home)) > 0 {
			t.Errorf("%s left %v", mode, files(m.home))
		}
	}
	mode = ""
	m.file(".config/fpaste/config", "# mine\nexpiry = 3d\ncert = old\n")
	m.want(0, "", "register", "alice", "-s", front, "--cacert", ca)
	m.link("mine", "-n", "x") // server and authority are in the config
	if out, _ := m.want(0, "", "list", "--ids"); strings.Count(out, "\n") != 1 {
		t.Errorf("own pastes: %q", out)
	}
	dir = filepath.Join(m.home, ".config/fpaste")
	key, crt, conf := readFile(dir+"/client.key"), readFile(dir+"/client.crt"), readFile(dir+"/config")
	if !strings.HasPrefix(conf, "# mine\nexpiry = 3d\n") || !strings.Contains(conf, "cert = "+dir) ||
		strings.Contains(conf, "old") {
		t.Errorf("config: %s", conf)
	}
	fails := func(args ...string) {
		t.Helper()
		m.want(1, "", args...)
		if fi, _ := os.Stat(dir + "/client.crt"); fi.IsDir() {
			os.Remove(dir + "/client.crt")
			m.file(".config/fpaste/client.crt", crt)
		}
		if got := files(dir); !slices.Equal(got, []string{"client.crt", "client.key", "config"}) ||
			readFile(dir+"/client.key") != key || readFile(dir+"/client.crt") != crt {
			t.Errorf("%q changed the pair, or left %v", args, got)
		}
	}
	fails("register", "alice")
	mode = "foreign"
	fails("register", "alice", "-f")
	fails("renew")
	mode = "obstacle"
	fails("register", "alice", "-f")
	mode = ""
	// A bundle keeps whatever else it has, in any order and with any line ends.
	crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
	for name, text := range map[string][3]string{
		"key first": {key, crt, ""}, "certificate first, CRLF": {"", crlf(crt), crlf(key)},
		"no newline at the end": {key + "# -----BEGIN", "\n" + strings.TrimSpace(crt), ""},
		"notes":                 {"Bag Attributes\n  friendlyName: x\n" + key, crt, "# behind\n" + crt},
	} {
		bundle := m.file("bundle.pem", strings.Join(text[:], ""))
		os.Chmod(bundle, 0o640)
		m.want(0, "", "renew", "--cert", bundle)
		got := readFile(bundle)
		middle := strings.TrimSuffix(strings.TrimPrefix(got, text[0]), text[2])
		if text[0]+middle+text[2] != got || middle == text[1] ||
			strings.Contains(middle, "\r") != strings.Contains(text[1], "\r") {
			t.Errorf("%s: the bundle is not what it was but for its certificate:\n%s", name, got)
		}
		if _, err := tls.LoadX509KeyPair(bundle, bundle); err != nil || must(os.Stat(bundle)).Mode().Perm() != 0o640 {
			t.Errorf("%s: %v, or its mode", name, err)
		}
	}
	m.want(0, "", "renew")
	if readFile(dir+"/client.crt") == crt {
		t.Error("renew changed nothing")
	}
	pair := must(tls.LoadX509KeyPair(dir+"/client.crt", dir+"/client.key"))
	ts.pki("revoke", serialHex(pair.Leaf.SerialNumber))
	m.says(4, "register NAME -f", "", "list") // the whole line
	link := m.link("still possible")
	m.says(0, "without your certificate", "changed", "update", link)
	m.gives("changed", "", "get", link)
	m.want(0, "", "register", "-f", "alice")
	m.want(0, "", "list")
}

// ---- what only a process shows: pipes, signals, memory, a terminal ----

func TestPipeClosedEarly(t *testing.T) {
	m := newMachine(t, start(t).url)
	for _, option := range []string{"-e", "-E", "-b"} {
		cmd := m.process(t.TempDir(), "get", m.link(strings.Repeat("a line\n", 300_000), option))
		out, errs := must(cmd.StdoutPipe()), new(bytes.Buffer)
		cmd.Stderr = errs
		must(0, cmd.Start())
		io.ReadFull(out, make([]byte, 7))
		out.Close()
		if cmd.Wait(); errs.Len() > 0 {
			t.Errorf("%s: %s", option, errs)
		}
	}
}

// Ctrl-C ends whatever is going on, and leaves no half file.
func TestInterrupt(t *testing.T) {
	stop, reached := make(chan struct{}), make(chan string, 10)
	defer close(stop)
	key := testKey(5)
	body := mustSeal(t, key, sealTitle{}, make([]byte, 4<<20))
	srv := answering(t, func(w http.ResponseWriter, r *http.Request) {
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
	})
	link := srv + "/" + someID + "#" + key.fragment()
	for _, args := range [][]string{{"create", "-"}, {"create", "big"}, {"create", "big", "-s", srv + "/work"},
		{"create", "big", "-s", srv + "/later"}, {"register", "alice", "-s", srv + "/work"}, {"get", link, "-o", "out"},
		{"get", link, "-O"}} {
		m, dir := newMachine(t, srv), t.TempDir()
		os.WriteFile(filepath.Join(dir, "big"), make([]byte, 2<<20), 0o600)
		cmd := m.process(dir, args...)
		in, errs := must(cmd.StdinPipe()), new(bytes.Buffer)
		cmd.Stderr = errs
		must(0, cmd.Start())
		if args[1] == "-" {
			in.Write(make([]byte, 3<<20)) // enough for a file; it returns once all but a buffer was read
		} else {
			<-reached
		}
		begin := time.Now()
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		// Before it waits for its 9 s it would end by the signal itself, which is as good.
		if cmd.ProcessState.Success() || time.Since(begin) > 8*time.Second {
			t.Errorf("%q: exit %v after %v: %s", args, cmd.ProcessState, time.Since(begin), errs)
		}
		if got := append(files(dir), files(m.home)...); !slices.Equal(got, []string{"big"}) {
			t.Errorf("%q left %v", args, got)
		}
	}
}

// 50 MiB through encryption, both ways, by file and by pipe, burning too, in little memory.
func TestMemory(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the race detector's own memory is many times the program's")
	}
	ts := start(t, "MAX_ANON=64MiB")
	m := newMachine(t, ts.url)
	dir := t.TempDir()
	content := make([]byte, 50<<20)
	rand.Read(content)
	os.WriteFile(filepath.Join(dir, "big"), content, 0o600)
	peak := regexp.MustCompile(`VmHWM:\s+(\d+)`)
	run := func(stdin io.Reader, args ...string) string {
		t.Helper()
		cmd := m.process(dir, args...)
		var out, errs bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
		must(0, cmd.Start())
		ended, most := make(chan error), 0
		go func() { ended <- cmd.Wait() }()
		for {
			select {
			case err := <-ended:
				t.Logf("%q: peak %d KiB", args, most)
				if err != nil || most > 40<<10 { // a test binary is large
					t.Errorf("%q: %v, peak of %d KiB: %s", args, err, most, &errs)
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
	link := strings.TrimSpace(run(nil, "big"))
	run(nil, "get", link, "-o", "out")
	if readFile(filepath.Join(dir, "out")) != string(content) {
		t.Error("the file has another content")
	}
	for _, option := range []string{"-e", "-E", "-b"} {
		link = strings.TrimSpace(run(io.MultiReader(bytes.NewReader(content)), option))
		if got := run(nil, "get", link); got != string(content) {
			t.Errorf("%s: %d bytes of another content", option, len(got))
		}
	}
	if got := files(m.tmp); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

// What a server sends behind its answer, net/http says to the standard logger: not to our standard error.
func TestBehindTheAnswer(t *testing.T) {
	m := newMachine(t, answering(t, func(w http.ResponseWriter, r *http.Request) {
		c, _, _ := w.(http.Hijacker).Hijack()
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}and more")
	}))
	for range 10 { // it is said in most of the runs
		out, _ := m.process(m.home, "get", someID).CombinedOutput()
		if strings.Contains(string(out), "and more") || !strings.HasPrefix(string(out), "fpaste: ") {
			t.Fatalf("%s", out)
		}
	}
}

// terminal runs a shell's program on a pseudo-terminal (util-linux's script), which finds the client as fpaste, and
// returns all that was shown. answers are in pairs: once that is shown, this is typed.
func (m *machine) terminal(dir, program string, answers ...string) string {
	m.t.Helper()
	cmd, seen := m.process(dir), new(lockedBuffer)
	cmd.Path, cmd.Args = need(m.t, "script"), []string{"script", "-qec", program, "/dev/null"}
	cmd.Env = append(cmd.Env, "SHELL=/bin/sh")
	in := must(cmd.StdinPipe())
	cmd.Stdout, cmd.Stderr = seen, seen
	must(0, cmd.Start())
	defer time.AfterFunc(40*time.Second, func() { cmd.Process.Kill() }).Stop()
	for i := 0; i < len(answers); i += 2 {
		for range 2000 {
			if strings.Contains(seen.String(), answers[i]) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		io.WriteString(in, answers[i+1])
	}
	cmd.Wait()
	return strings.ReplaceAll(seen.String(), "\r\n", "\n")
}

func TestTerminalOutput(t *testing.T) {
	t.Parallel()
	ts := start(t)
	m := newMachine(t, ts.url)
	dir := t.TempDir()
	evil := m.link("red \x1b[31m title \x1b]0;x\x07 \u202e\u009b2J tab\tline\r\ncr\rover end")
	plain := `red \x1b[31m title \x1b]0;x\a \u202e\u009b2J tab` + "\tline\r\n" + `cr\rover`
	binary := "\x7fELF\x00\x01\x02"
	link, secret := m.link(binary), m.link(binary, "-b")
	image := m.link("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "-E", "-b")
	id, _ := parts(secret)
	const first, again, sesame = "Password: ", "Once more: ", "open sesame\n"
	for _, row := range []struct {
		program string
		answers []string // to what, what is typed
		shows   string
	}{
		{"fpaste get -q '" + evil + "'", nil, plain},
		{"fpaste get '" + link + "'", nil, "-o FILE"},
		{"fpaste get -f '" + link + "'", nil, `\x7fELF\x00`},
		{"fpaste get '" + link + "' >/dev/null", nil, "exit 0"}, // which is no terminal
		{"fpaste get " + image, nil, "exit 1"},
		{"fpaste meta " + image, nil, "exit 0"}, // so it was not burned
		{"fpaste get '" + m.link("text", "-b") + "'", nil, "textexit 0"},
		{"fpaste get '" + secret + "'", nil, id}, // what it is comes to light only when it is gone, so it is kept
		{"fpaste", []string{"Ctrl-D", "typed\n\x04"}, ts.url + "/"},
		// The pipe is the content, so the prompt can't read it there.
		{"echo the content | fpaste -p >link", []string{first, sesame, again, sesame}, "exit 0"},
		{`fpaste get "$(cat link)"`, []string{first, sesame}, "the content\nexit 0"},
		{`trap : INT; fpaste get "$(cat link)"`, []string{first, "\x03"}, "exit 1"}, // Ctrl-C
		{"echo x | fpaste -p", []string{first, "one\n", again, "two\n"}, "exit 4"},
		{`setsid -w fpaste get "$(cat link)"`, nil, "'s FPASTE_PASSWORD\nexit 4"}, // no terminal at all
		{"fpaste history --clear", []string{"[y/N]", "n\n"}, "exit 1"},
		{"fpaste history", nil, secret}, // still there, and not cut
		{"fpaste history --clear", []string{"[y/N]", "y\n"}, "exit 0"},
		{"fpaste history | wc -c", nil, "0\nexit 0"},
	} {
		got := m.terminal(dir, row.program+`; echo "exit $?"; stty -a | grep -ow -- "-*echo"`, row.answers...)
		if strings.ContainsAny(got, "\x1b\x07\u202e\u009b\x7f") || !strings.Contains(got, row.shows) {
			t.Errorf("%s does not show %q: %q", row.program, row.shows, got)
		}
		if strings.Contains(got, "sesame") || !strings.HasSuffix(got, "\necho\n") {
			t.Errorf("%s shows the password, or the echo is off for good: %q", row.program, got)
		}
	}
	kept := filepath.Join(dir, id)
	if got := files(dir); !slices.Equal(got, []string{id, "link"}) || must(os.Stat(kept)).Mode().Perm() != 0o600 ||
		readFile(kept) != binary {
		t.Errorf("kept: %v", got)
	}
}

// Progress and work are for people at a terminal: not in a pipe, not with -q, and never in colour.
func TestProgress(t *testing.T) {
	t.Parallel()
	first := true // and that nonce takes two million tries
	m := newMachine(t, answering(t, func(w http.ResponseWriter, r *http.Request) {
		if first {
			first = false
			refuseWith(w, 400, "pow_required", workAsked(20, "5feceb66ffc86f38d952786c6d696c79"))
			return
		}
		for n, buf := 1, make([]byte, 256<<10); n > 0; time.Sleep(4 * time.Millisecond) {
			n, _ = r.Body.Read(buf)
		}
		w.WriteHeader(201)
		io.WriteString(w, fakeCreated)
	}))
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "big"), make([]byte, 48<<20), 0o600) // more than two sockets hold
	shown := m.terminal(dir, "fpaste big")
	for _, want := range []string{"uploading", "of 48 MiB", "proof of work: 20 bits", "million tries/s, about"} {
		if !strings.Contains(shown, want) || strings.Contains(shown, "\x1b") {
			t.Errorf("no %q, or escape sequences: %q", want, shown)
		}
	}
	if long := regexp.MustCompile(`[^\r\n]{80,}`).FindString(shown); long != "" && !strings.HasPrefix(long, "http") {
		t.Errorf("wider than a terminal: %q", long)
	}
	for _, program := range []string{"fpaste -q big", "fpaste big 2>errors"} {
		if shown := m.terminal(dir, program); strings.Contains(shown, "uploading") {
			t.Errorf("%s shows %q", program, shown)
		}
	}
	if text := readFile(filepath.Join(dir, "errors")); text != "" {
		t.Errorf("in a pipe: %q", text)
	}
}
