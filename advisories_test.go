package main

// The table of known flaws in SECURITY.md: each test that it names exists, and here are those that only this table asks for.

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestSecurityTables: a row of SECURITY.md whose last column names no test, or one that is gone, proves nothing.
func TestSecurityTables(t *testing.T) {
	sources := map[string]bool{}
	for _, path := range must(filepath.Glob("*_test.go")) {
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(must(os.ReadFile(path)), -1) {
			sources[string(m[1])] = true
		}
	}
	rows := 0
	text := string(must(os.ReadFile("SECURITY.md")))
	for _, name := range regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z0-9]\w*`).FindAllString(text, -1) {
		if !sources[name] {
			t.Errorf("SECURITY.md names %s, which does not exist", name)
		}
	}
	for table := range strings.SplitSeq(text, "\n\n") {
		head, lines, _ := strings.Cut(table, "\n")
		if !strings.HasSuffix(head, "| test |") {
			continue
		}
		for line := range strings.Lines(lines) {
			columns := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
			if last := columns[len(columns)-1]; !strings.Contains(last, "Test") && !strings.Contains(last, "---") {
				t.Errorf("no test: %s", line)
			}
			rows++
		}
	}
	if rows < 40 {
		t.Errorf("%d rows: the tables were not found", rows)
	}
}

// Whoever stores what is there already gets a paste of his own: nothing that he asks for or does touches the other's.
func TestSameContentIsAnotherPaste(t *testing.T) {
	ts := start(t, proxied...)
	first := ts.create("the same bytes", withCert(certAlice, "X-Expiry: 2d")...)
	before := ts.get("/" + first.ID).body
	for _, h := range [][]string{{"X-Expiry: 1s"}, {"X-Expiry: 7d"}, withCert(certMallory, "X-Expiry: 40d"), {"X-Burn-After-Read: true"}, {"X-Read-Proof-SHA256: " + strings.Repeat("ab", 32)}} {
		other := ts.create("the same bytes", h...)
		if other.ID == first.ID || other.DeleteToken == first.DeleteToken {
			t.Fatalf("%v: got the other's %s", h, other.ID)
		}
		if got := ts.get("/" + first.ID).body; got != before {
			t.Errorf("%v: the first one is now %s, was %s", h, got, before)
		}
		ts.do("DELETE", "/"+first.ID, nil, "X-Delete-Token: "+other.DeleteToken).want(403, "not_owner")
		if h[0] != "X-Expiry: 1s" {
			ts.do("DELETE", "/"+other.ID, nil, "X-Delete-Token: "+other.DeleteToken).want(200, "")
		}
	}
	ts.clock.advance(2 * time.Second)
	ts.sweep() // or the server's own, whichever comes first
	if a := ts.get("/"+first.ID+"/raw").want(200, ""); a.body != "the same bytes" {
		t.Errorf("content %q", a.body)
	}
	ts.stored(1)
}

// Names that a request brings name no file of the server's, and come back in no header.
func TestNoRequestNamesAFile(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ts := startIn(t, dir, proxied...)
	for _, name := range []string{"../../escape", "/tmp/flaskpaste-escape", `..\..\escape`, "escape\x00.txt", "x\"; filename=\"y.html", "x\r\nX-Evil: 1", "%2e%2e%2fescape", "flaskpaste.db", strings.Repeat("../", 400) + "escape"} {
		quoted := strings.NewReplacer("\\", "\\\\", "\"", "\\\"", "\r", "", "\n", "").Replace(name)
		printable := strings.NewReplacer("\r", "", "\n", "", "\x00", "").Replace(name)
		for what, a := range map[string]*answer{
			"a part's file name": ts.post(form(file(quoted, "content")), formType),
			"a part's name":      ts.post(form(part{"Content-Disposition: form-data; name=\"" + quoted + "\"", "content"}), formType),
			"headers":            ts.post("content", "Filename: "+printable, "X-Filename: "+printable, "Content-Disposition: attachment; filename="+printable, "Content-Location: "+printable, "Destination: "+printable, "X-Sendfile: "+printable),
			"a display name":     ts.post("content", withCert(certAlice, "X-Display-Name: "+printable)...),
			"a type":             ts.post("content", "Content-Type: text/plain; name="+printable),
			"PUT's path":         ts.do("PUT", "/"+url.PathEscape(name), strings.NewReader("content")),
			"a path":             ts.get("/" + url.PathEscape(name) + "/raw"),
			"an unclean path":    ts.get("/" + strings.ReplaceAll(url.PathEscape(name), "%2F", "/") + "/raw"),
		} {
			if a.StatusCode != 201 {
				if strings.HasPrefix(what, "a path") && a.StatusCode < 400 {
					t.Errorf("%s %q: status %d", what, name, a.StatusCode)
				}
				continue
			}
			id := strings.TrimPrefix(a.Header.Get("Location"), "/")
			raw := ts.get("/"+id+"/raw").want(200, "")
			if d := raw.Header.Values("Content-Disposition"); !idShaped(id) || len(d) != 1 || d[0] != "inline" && d[0] != "attachment" || strings.Contains(fmt.Sprint(raw.Header), "escape") || raw.Header.Get("X-Evil") != "" || raw.body != "content" {
				t.Errorf("%s %q: %v %q", what, name, raw.Header, raw.body)
			}
		}
	}
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() && (filepath.Dir(path) != dir || !strings.HasPrefix(filepath.Base(path), "flaskpaste.db")) {
			t.Errorf("a file appeared: %s, %v", path, err)
		}
		return nil
	})
	if exists("/tmp/flaskpaste-escape") {
		t.Error("a name left the folder")
	}
}

// The server opens no connection, whatever address it is shown.
func TestNothingIsFetched(t *testing.T) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	var visits atomic.Int64
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			visits.Add(1)
			c.Close()
		}
	}()
	address := "http://" + l.Addr().String() + "/"
	must(net.Dial("tcp", l.Addr().String())).Close() // the trap works
	ts := start(t, proxied...)
	made := ts.short(address)
	for _, path := range []string{"/s/" + made.ID, "/s/" + made.ID + "/info", "/?url=" + url.QueryEscape(address), "/?remote=" + url.QueryEscape(address), "/" + url.PathEscape(address), "/s/" + url.PathEscape(address), "/pastes?q=" + url.QueryEscape(address)} {
		ts.get(path, "X-Forwarded-Host: "+l.Addr().String(), "Referer: "+address, "Host: "+l.Addr().String())
	}
	p := ts.create(address, "Content-Location: "+address, "Link: <"+address+">; rel=preload")
	ts.get("/" + p.ID + "/raw")
	ts.post(form(field("expiry", "1h"), part{"Content-Disposition: form-data; name=url", address}), formType).want(201, "")
	ts.post(`{"url":"`+address+`"}`, "Content-Type: application/json").want(400, "bad_json")
	ts.post(address, "Content-Type: message/external-body; access-type=URL; URL=\""+address+"\"")
	ts.sweep()
	ts.settled("connections to the trap", 1, visits.Load)
	time.Sleep(100 * time.Millisecond)
	if n := visits.Load(); n != 1 {
		t.Errorf("the server called: %d connections", n-1)
	}
}

// A credential in a URL would be in every log, history and Referer on its way: there it opens nothing, and no answer puts one there.
func TestCredentialsInURLs(t *testing.T) {
	ts := start(t)
	p, locked := ts.create("x"), ts.create("x", "X-Paste-Password: pw")
	for _, name := range []string{"token", "delete_token", "X-Delete-Token", "x-delete-token", "key"} {
		q := "?" + name + "=" + p.DeleteToken
		ts.do("DELETE", "/"+p.ID+q, nil).want(401, "authentication_required")
		ts.do("PUT", "/"+p.ID+q, strings.NewReader("y")).want(401, "authentication_required")
	}
	for _, name := range []string{"password", "X-Paste-Password", "pass"} {
		ts.get("/"+locked.ID+"/raw?"+name+"=pw").want(401, "password_required")
	}
	ts.get("/"+p.ID+"/raw/"+p.DeleteToken).want(404, "")
	for _, accept := range []string{"application/json", "text/plain"} {
		a := ts.post("y", "Accept: "+accept).want(201, "")
		token := a.Header.Get("X-Delete-Token")
		if links := a.Header.Get("Location") + a.field("url") + a.field("raw"); token == "" || strings.Contains(links, token) || accept == "text/plain" && strings.Contains(a.body, token) {
			t.Errorf("the token is in a link: %s %s", a.Header, a.body)
		}
	}
	if strings.Contains(ts.logs.String(), p.DeleteToken) {
		t.Error("the token is in the log")
	}
}

// What takes most work to understand, in as many bytes as a stranger may send, costs little more than any request: patterns are
// RE2, the search is instr, and every other parser looks at a byte a bounded number of times.
func TestWorstInputsAreCheap(t *testing.T) {
	limit := 200 * time.Millisecond
	if raced() {
		limit *= 10
	}
	ts := start(t, append([]string{"SYNC=normal"}, proxied...)...)
	p := ts.create(pattern(3 * chunkSize / 2))
	for i := range 50 {
		ts.create(fmt.Sprint(i), withCert(certAlice, "X-Display-Name: "+strings.Repeat("ab", 64))...)
	}
	most := func(unit string) string { return strings.Repeat(unit, (headerLimit-1024)/len(unit)) }
	in := func(path string) func(v string) *answer {
		return func(v string) *answer { return ts.get(path+url.QueryEscape(v), withCert(certAlice)...) }
	}
	header := func(method, path, name string) func(v string) *answer {
		return func(v string) *answer {
			var body io.Reader
			if method != "GET" {
				body = strings.NewReader("content")
			}
			return ts.do(method, path, body, withCert(certAlice, name+": "+v)...)
		}
	}
	body := func(headers ...string) func(v string) *answer {
		return func(v string) *answer { return ts.post(v, headers...) }
	}
	for _, c := range []struct {
		name  string
		ask   func(v string) *answer
		units []string
	}{
		{"Accept", header("GET", "/", "Accept"), []string{"text/plain;q=0.1,", "a;b;", ",", ";q="}},
		{"X-Forwarded-For", header("GET", "/", "X-Forwarded-For"), []string{"127.0.0.1,", ",", "[::", "1:"}},
		{"Range", header("GET", "/"+p.ID+"/raw", "Range"), []string{"bytes=0-0,", "0-,", "-", ","}},
		{"If-None-Match", header("GET", "/"+p.ID+"/raw", "If-None-Match"), []string{`"a",`, `W/"`, `"`}},
		{"Content-Type", header("POST", "/", "Content-Type"), []string{"a-", "a/b;c=d;", "a/a*0=", `";\`, "x;a*1=b;"}},
		{"X-Expiry", header("POST", "/", "X-Expiry"), []string{"1s", "9", "-:T"}},
		{"X-Request-ID", header("GET", "/", "X-Request-ID"), []string{"a.", "-"}},
		{"X-PoW-Token", header("POST", "/", "X-PoW-Token"), []string{":", "0"}},
		{"User-Agent", header("GET", "/"+p.ID+"/raw", "User-Agent"), []string{"prerende", "facebookexternalhi"}},
		{"path", in("/"), []string{"a", "/", "../", "%2f"}},
		{"query", in("/pastes?q="), []string{"%", "ab", "_"}},
		{"parameters", func(v string) *answer { return ts.get("/pastes?"+v, withCert(certAlice)...) }, []string{"a=b&", "%61&", ";", "limit=1&"}},
		{"JSON", body("Content-Type: application/json"), []string{"[", `{"a":`, `{"content":"\ud83d`, `"\`}},
		{"form", body(formType), []string{"--b0undary\r\n", "\r\n--b0undar", "--b0undary\r\n\r\n\r\n"}},
		{"target", func(v string) *answer { return ts.do("POST", "/s", strings.NewReader("http://"+v)) }, []string{"a-", "a.", "0x", "%"}},
	} {
		for _, unit := range c.units {
			took := time.Hour
			for try := 0; took > limit && try < 10; try++ { // a machine that others use stops now and then
				begin := time.Now()
				c.ask(most(unit))
				took = min(took, time.Since(begin))
			}
			if took > limit {
				t.Errorf("%s: %v for 15 KiB of %q", c.name, took, unit)
			}
		}
	}
}

// What is compared with a secret is compared in constant time, or as hashes. Read from the source: no == on anything named like one,
// but for "is there any".
func TestSecretsAreComparedInConstantTime(t *testing.T) {
	secretive := regexp.MustCompile(`(?i)token|proof|pass(word)?\b|secret|signature`)
	harmless := regexp.MustCompile(`^("[^"]*"|nil|len\(.*|[0-9]+|err\w*)$`)
	constant := 0
	for _, path := range must(filepath.Glob("*.go")) {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		files := token.NewFileSet()
		ast.Inspect(must(parser.ParseFile(files, path, nil, 0)), func(n ast.Node) bool {
			var sides []ast.Expr
			switch n := n.(type) {
			case *ast.BinaryExpr:
				if n.Op == token.EQL || n.Op == token.NEQ {
					sides = []ast.Expr{n.X, n.Y}
				}
			case *ast.CallExpr:
				switch types.ExprString(n.Fun) {
				case "subtle.ConstantTimeCompare":
					constant++
				case "bytes.Equal", "bytes.Compare", "strings.EqualFold", "strings.HasPrefix", "slices.Equal", "reflect.DeepEqual":
					sides = n.Args
				}
			}
			var text []string
			for _, s := range sides {
				text = append(text, types.ExprString(s))
			}
			if slices.ContainsFunc(text, secretive.MatchString) && !slices.ContainsFunc(text, harmless.MatchString) {
				t.Errorf("%s: %s", files.Position(n.Pos()), strings.Join(text, " against "))
			}
			return true
		})
	}
	if constant < 7 {
		t.Errorf("%d comparisons in constant time", constant)
	}
}
