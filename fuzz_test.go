package main

// Fuzz targets: what strangers write, against the same code that serves them. Each has its seeds here and in
// testdata/fuzz, which `go test` runs; .ci/run gives each 10 s more, deploy/prove.sh --long 30 minutes.

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// serve lets the server answer a request without a network in between. nil: the server cut the connection.
func (ts *testServer) serve(method, path string, body []byte, headers ...string) *httptest.ResponseRecorder {
	return ts.serveURL(method, &url.URL{Path: path}, body, headers...)
}

func (ts *testServer) serveURL(method string, u *url.URL, body []byte, headers ...string) (w *httptest.ResponseRecorder) {
	r := &http.Request{Method: method, URL: u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Host: "x", RemoteAddr: "127.0.0.1:1",
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body))}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		r.Header.Add(k, v)
	}
	defer func() {
		if v := recover(); v == http.ErrAbortHandler {
			w = nil
		} else if v != nil {
			panic(v)
		}
	}()
	w = httptest.NewRecorder()
	ts.ServeHTTP(w, r)
	return w
}

// fuzzServer is one that fuzzing does not wait for the disk with.
func fuzzServer(f *testing.F, env ...string) *testServer {
	return start(f, append([]string{"SYNC=normal", "LOG_LEVEL=error", "MAX_ANON=64KiB"}, env...)...)
}

func FuzzExpiry(f *testing.F) {
	for _, s := range []string{"", "0", "3600", "90s", "1d12h", "2w", "1.5h", "-1", "1e9", "NaN", "٣٠s", "99999999999999999999", "9223372036854775807w", "2027-01-01T00:00:00Z", "2027-01-01T00:00:00+14:00", "@1800000000", "@-1", "1d12", "0d5s", "T", "1s1s1s"} {
		f.Add(s)
	}
	span, now := regexp.MustCompile(`^(\d+|(\d+[smhdw])+)$`), int64(1_790_000_000)
	f.Fuzz(func(t *testing.T, v string) {
		at, err := parseExpiry(v, now)
		if err != nil {
			if at != 0 || err != errExpiry {
				t.Errorf("%q: %d, %v", v, at, err)
			}
			return
		}
		if at <= now {
			t.Errorf("%q: %d is not after now", v, at)
		}
		date, dateErr := time.Parse(time.RFC3339, v)
		unix, unixErr := strconv.ParseInt(strings.TrimPrefix(v, "@"), 10, 64)
		switch {
		case strings.HasPrefix(v, "@") && unixErr == nil && unix == at && v[1] != '+':
		case dateErr == nil && date.Unix() == at:
		case span.MatchString(v):
		default:
			t.Errorf("%q is taken as %d", v, at)
		}
	})
}

func FuzzOptions(f *testing.F) {
	f.Add("1d", "true", "pw", "name", strings.Repeat("ab", 32), "")
	f.Add("", "0", "", "ü", "", "x")
	f.Add("@1", "TRUE", " pw", "a\r\nb", strings.Repeat("g", 64), "1d")
	f.Add("9999999999999999", "1", strings.Repeat("p", 1025), strings.Repeat("x", 129), "\xff", "0")
	f.Fuzz(func(t *testing.T, expiry, burn, password, name, proof, again string) {
		for _, changing := range []bool{false, true} {
			for _, certified := range []bool{false, true} {
				o := &options{now: 1_790_000_000, changing: changing, certified: certified}
				for _, c := range [][2]string{{"expiry", expiry}, {"burn_after_read", burn}, {"password", password}, {"display_name", name}, {"read_proof", proof}} {
					before := *o
					err := o.set(c[0], c[1])
					if err != nil {
						if e := toAPI(err); e.status != 400 || e.code == "" || e.text == "" || utf8.ValidString(c[1]) && len(c[1]) > 8 && strings.Contains(e.text, c[1]) {
							t.Errorf("%s=%q: %+v", c[0], c[1], e)
						}
						if before.pass != o.pass || before.display != o.display || before.deadline != o.deadline {
							t.Errorf("%s=%q was refused and taken", c[0], c[1])
						}
						continue
					}
					if err := o.set(c[0], c[1]); err != nil {
						t.Errorf("%s=%q the second time: %v", c[0], c[1], err)
					}
					if again != c[1] && c[0] != "burn_after_read" && c[0] != "expiry" && c[0] != "read_proof" && o.set(c[0], again) == nil {
						t.Errorf("%s=%q and %q agree", c[0], c[1], again)
					}
				}
				control := func(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }
				if o.expiry && (o.deadline != 0 && o.deadline <= o.now || o.deadline == 0 && !changing) || len(o.pass) > 1024 || control(o.pass) || control(o.display) || utf8.RuneCountInString(o.display) > 128 ||
					!utf8.ValidString(o.display) || o.display != "" && !certified || o.password && o.pass == "" && !changing || o.proof && len(o.proofHash) != 32 || o.burns && burn != "true" && burn != "1" {
					t.Errorf("%+v", o)
				}
			}
		}
	})
}

func FuzzID(f *testing.F) {
	ts := fuzzServer(f)
	p := ts.create("content")
	for _, s := range []string{p.ID, strings.ToUpper(p.ID), p.ID + "/raw", p.ID + "/raw/", p.ID[:8], "a/b", "../" + p.ID, p.ID + "\x00", "", "health", "pastes", "s/x", "pki/certs", "raw", ".", "%", "//", strings.Repeat("a", 10000), "é", "*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		for _, path := range []string{"/" + id, "/" + id + "/raw"} {
			for _, method := range []string{"GET", "HEAD", "DELETE"} {
				w := ts.serve(method, path, nil)
				if w == nil || w.Code >= 500 || w.Header().Get("Location") != "" || w.Header().Get("X-Request-Id") == "" {
					t.Errorf("%s %q: %+v", method, path, w)
					continue
				}
				if ours := path == "/"+p.ID || path == "/"+p.ID+"/raw"; ours != strings.HasPrefix(path, "/"+p.ID) && w.Code == 200 && strings.Contains(w.Body.String(), p.ID) {
					t.Errorf("%s %q finds the paste", method, path)
				}
			}
		}
		if n := ts.store.pastes.Load(); n != 1 {
			t.Errorf("%d pastes", n)
		}
	})
}

func FuzzForwarded(f *testing.F) {
	for _, s := range []string{"", "192.0.2.1", "6.6.6.6, 192.0.2.1, 10.0.0.1", "10.0.0.1,10.0.0.2", "[2001:db8::1]:80, 10.0.0.1", "::ffff:10.0.0.1", "junk,10.0.0.1", ",", "192.0.2.1:99999", "fe80::1%eth0", "\x00"} {
		f.Add(s, "6.6.6.6")
	}
	peer, trusted := netip.MustParseAddr("127.0.0.1"), []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("10.0.0.0/8")}
	f.Fuzz(func(t *testing.T, list, left string) {
		got := forwardedAddr(list, peer, trusted)
		if !got.IsValid() || got.Is4In6() || got.Zone() != "" {
			t.Fatalf("%q: %v", list, got)
		}
		// Past the first address that is not ours nothing counts: whatever a client writes left of it changes nothing.
		if !containsAddr(trusted, got) {
			if other := forwardedAddr(left+","+list, peer, trusted); other != got {
				t.Errorf("%q: %v, with %q in front: %v", list, got, left, other)
			}
			if !strings.Contains(list, got.String()) && !got.Is6() && !strings.Contains(strings.ToLower(list), "::") {
				t.Errorf("%q: %v is not in it", list, got)
			}
		}
	})
}

func FuzzCertHeader(f *testing.F) {
	der := newCertificate(f, "fuzz").Certificate[0]
	b64 := base64.StdEncoding.EncodeToString(der)
	for _, s := range []string{"", "{x}", sha1OfNothing, certAlice, strings.ToUpper(certAlice), "aa:" + certAlice, certAlice + "," + certAlice, b64, ":" + b64 + ":", url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))), "-----BEGIN CERTIFICATE-----", "%", "::", "{", "\x00"} {
		f.Add(s)
	}
	hexes := regexp.MustCompile(`^([0-9a-f]{40})?$`)
	hexes256 := regexp.MustCompile(`^([0-9a-f]{64})?$`)
	whole := identityOf(der)
	f.Fuzz(func(t *testing.T, v string) {
		id, err := parseCertHeader(v)
		if err != nil {
			if e := toAPI(err); e.status != 400 || e.code != "bad_client_certificate" || id != (identity{}) {
				t.Errorf("%q: %+v, %+v", v, id, e)
			}
			return
		}
		if !hexes.MatchString(id.sha1) || !hexes256.MatchString(id.sha256) || id.sha1 == sha1OfNothing || id.owner != "" || id.vouched {
			t.Errorf("%q: %+v", v, id)
		}
		if id == whole && !strings.Contains(v, b64[:20]) && !strings.Contains(v, "BEGIN") && !strings.EqualFold(strings.ReplaceAll(v, ":", ""), id.sha256) {
			t.Errorf("%q is taken for a certificate", v)
		}
	})
}

func FuzzMultipart(f *testing.F) {
	ts := fuzzServer(f)
	for _, s := range []string{form(file("x", "content")), form(field("expiry", "60"), file("x", "content")), form(file("x", "content"), field("password", "")), form(file("a", "x"), file("b", "y")), form(file("x", "content"))[:60], "--b0undary--", "",
		"--b0undary\r\n\r\n\r\n--b0undary--", "--b0undary\n\nx\n--b0undary--\n", "--b0undary\r\nContent-Disposition: form-data; name=\"a\r\n\r\nx\r\n--b0undary--\r\n", form(field("burn_after_read", "1"), field("c", "\x00\xff")), strings.Repeat("--b0undary\r\n\r\nx\r\n", 20),
		form(file("x", "y"))[:len(form(file("x", "y")))-4] + "\r\nContent-Disposition: form-data; name=password"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if bytes.Contains(body, []byte("password")) && bytes.Count(body, []byte("\n")) > 3 {
			return // a derivation costs a tenth of a second
		}
		before := ts.store.pastes.Load()
		w := ts.serve("POST", "/", body, formType, "Accept: application/json")
		if w == nil || w.Code != 201 && w.Code != 400 && w.Code != 413 {
			t.Fatalf("%q: %+v", body, w)
		}
		after := ts.store.pastes.Load()
		if (w.Code == 201) != (after == before+1) || w.Code != 201 && after != before {
			t.Errorf("%q: status %d, %d pastes more", body, w.Code, after-before)
		}
		if w.Code != 201 {
			return
		}
		// Whatever is taken, another reader of the format sees the same one content in.
		mr := multipart.NewReader(bytes.NewReader(body), "b0undary")
		var contents []string
		for {
			p, err := mr.NextRawPart()
			if err != nil {
				break
			}
			b, _ := io.ReadAll(p)
			switch p.FormName() {
			case "expiry", "burn_after_read", "password", "display_name":
			default:
				contents = append(contents, string(b))
			}
		}
		id := strings.TrimPrefix(w.Header().Get("Location"), "/")
		if r := ts.serve("GET", "/"+id+"/raw", nil); r == nil || len(contents) != 1 || r.Body.String() != contents[0] {
			t.Errorf("%q: stored %q, the parts are %q", body, r.Body.String(), contents)
		}
		if r := ts.serve("DELETE", "/"+id, nil, "X-Delete-Token: "+w.Header().Get("X-Delete-Token")); r.Code != 200 && r.Code != 404 {
			t.Errorf("deleting: %d", r.Code)
		}
	})
}

func FuzzJSONBody(f *testing.F) {
	ts := fuzzServer(f)
	for _, s := range []string{`{"content":"x"}`, `{"content":"x","expiry":60,"burn_after_read":true,"mime_type":"text/html"}`, `{"content":"\ud83d\ude00"}`, `{"content":"\ud800"}`, `{"content":"\\ud800"}`, `{"content":"x","content":"y"}`, `{"content":1}`,
		`{}`, `[]`, `{"content":"x"} {}`, `{"content":"x","expiry":1e9}`, "\xff", `{"a":{"content":"x"}}`, `{"content":"x","expiry":"1d"}`, `{"content":"\u0000"}`, `{"content":"\udc00\ud800"}`, `{"content":"x","\u0063ontent":"y"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if bytes.Contains(body, []byte("pass")) || bytes.Contains(body, []byte(`\u00`)) && bytes.Contains(body, []byte("word")) {
			return
		}
		before := ts.store.pastes.Load()
		w := ts.serve("POST", "/", body, "Content-Type: application/json")
		if w == nil || w.Code != 201 && w.Code != 400 && w.Code != 413 {
			t.Fatalf("%q: %+v", body, w)
		}
		if after := ts.store.pastes.Load(); (w.Code == 201) != (after == before+1) || w.Code != 201 && after != before {
			t.Errorf("%q: status %d, %d pastes more", body, w.Code, after-before)
		}
		if w.Code != 201 {
			return
		}
		var m struct {
			Content string `json:"content"`
		}
		var all map[string]any
		if err := json.Unmarshal(body, &m); err != nil || json.Unmarshal(body, &all) != nil || !utf8.Valid(body) || strings.Contains(m.Content, "\ufffd") && !bytes.Contains(body, []byte("\ufffd")) && !bytes.Contains(bytes.ToLower(body), []byte(`\ufffd`)) {
			t.Fatalf("%q is taken: %v", body, err)
		}
		for name := range all {
			switch name {
			case "content", "mime_type", "expiry", "burn_after_read", "display_name":
			default:
				t.Errorf("%q: member %q is taken", body, name)
			}
		}
		id := strings.TrimPrefix(w.Header().Get("Location"), "/")
		if r := ts.serve("GET", "/"+id+"/raw", nil); r == nil || r.Body.String() != m.Content {
			t.Errorf("%q: stored %q", body, r.Body.String())
		}
		ts.serve("DELETE", "/"+id, nil, "X-Delete-Token: "+w.Header().Get("X-Delete-Token"))
	})
}

func FuzzRange(f *testing.F) {
	ts := fuzzServer(f, "MAX_ANON=1MiB")
	content := pattern(2*chunkSize + 12345)
	p := ts.create(content)
	etag := `"` + p.SHA256 + `"`
	for _, s := range []string{"bytes=0-0", "bytes=-1", "bytes=0-", "bytes=262143-262144", "bytes=9999999-", "bytes=5-1", "bytes=0-0,2-3", "bytes=0-0, 262140-262150 ,-5", "bytes=", "bytes=--1", "bytes=0-99999999999999999999", "lines=1-2", "", "bytes=0-,0-,0-", "bytes= -0"} {
		f.Add(s, "", "")
	}
	f.Add("bytes=0-1", etag, "*")
	f.Add("bytes=0-1", "W/"+etag, etag)
	one := regexp.MustCompile(`^bytes (\d+)-(\d+)/(\d+)$`)
	same := func(t *testing.T, contentRange, body string) {
		m := one.FindStringSubmatch(contentRange)
		if m == nil {
			t.Fatalf("Content-Range %q", contentRange)
		}
		from, _ := strconv.Atoi(m[1])
		to, _ := strconv.Atoi(m[2])
		if none := from == len(content) && to == from-1 && body == ""; none {
			return // bytes=-0: net/http sends an empty part, where RFC 9110 would have a 416
		}
		if m[3] != fmt.Sprint(len(content)) || from > to || to >= len(content) || content[from:to+1] != body {
			t.Errorf("Content-Range %q, %d bytes", contentRange, len(body))
		}
	}
	f.Fuzz(func(t *testing.T, ranges, ifRange, ifNoneMatch string) {
		w := ts.serve("GET", "/"+p.ID+"/raw", nil, "Range: "+ranges, "If-Range: "+ifRange, "If-None-Match: "+ifNoneMatch)
		if w == nil {
			t.Fatalf("%q: cut", ranges)
		}
		body := w.Body.String()
		switch w.Code {
		case 200:
			if body != content {
				t.Errorf("%q: %d bytes", ranges, len(body))
			}
		case 206:
			kind, params, _ := mime.ParseMediaType(w.Header().Get("Content-Type"))
			if kind != "multipart/byteranges" {
				same(t, w.Header().Get("Content-Range"), body)
			}
			mr := multipart.NewReader(strings.NewReader(body), params["boundary"])
			for kind == "multipart/byteranges" {
				part, err := mr.NextRawPart()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(part)
				same(t, part.Header.Get("Content-Range"), string(b))
			}
			if ifRange != "" && !strings.HasPrefix(strings.TrimSpace(ifRange), etag) && ifRange != w.Header().Get("Last-Modified") {
				t.Errorf("a part for If-Range %q", ifRange)
			}
		case 304:
			if !strings.Contains(ifNoneMatch, "*") && !strings.Contains(ifNoneMatch, etag) || body != "" {
				t.Errorf("304 for If-None-Match %q", ifNoneMatch)
			}
		case 416:
		default:
			t.Errorf("%q: status %d", ranges, w.Code)
		}
		if len(body) > 2*len(content) || ts.downloads.inUse() != 0 {
			t.Errorf("%q: %d bytes, %d slots in use", ranges, len(body), ts.downloads.inUse())
		}
	})
}

// FuzzMIME: content and a declared type. What goes out as Content-Type is one type with at most a charset, and a browser is
// never asked to show what can act: HTML, scripts, and whatever it takes for XML (WHATWG MIME Sniffing: every +xml).
func FuzzMIME(f *testing.F) {
	for _, s := range []string{"", "MZ", "MZ" + strings.Repeat("\x00", 62), "\x89PNG\r\n\x1a\n", "\xff\xd8\xff\xe0", "\xff\xfb\x90\x64", "\xff\xe3\x18\xc4", "BZh91AY&SY", "ID3\x04\x00\x00\x00\x00\x00\x23", "\x00\x00\x00\x18ftypisom", "RIFF....WAVE", "-----BEGIN X-----\n", "PK\x03\x04", strings.Repeat("x", 257) + "ustar", "text"} {
		f.Add([]byte(s), "")
	}
	for _, s := range []string{"text/html", "IMAGE/svg+xml", "audio/x+xml", "text/html; charset=\"a\r\nX: y\"", "text/plain, text/html", "multipart/byteranges; boundary=x", "message/rfc822", "a/b;;charset=x", "text/html\x00", "*/*", "text/\u212aml", "x/" + strings.Repeat("y", 200), "text/html; charset=utf-7; charset=x"} {
		f.Add([]byte("<script>"), s)
	}
	served := regexp.MustCompile(`^[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*(; charset=[A-Za-z0-9._-]{1,30})?$`)
	f.Fuzz(func(t *testing.T, b []byte, declared string) {
		in := &intake{limit: 1 << 20, hash: discardHash{}, text: true}
		for rest := b; len(rest) > 0; {
			n := min(len(rest), 1+len(b)/3)
			in.look(rest[:n])
			rest = rest[n:]
		}
		got := magic(b[:min(len(b), headSize)])
		kind := mimeOf("", in)
		if got != "" && got != kind {
			t.Errorf("%q: %q, %q", b, got, kind)
		}
		if plain := utf8.Valid(b) && !bytes.Contains(b, []byte{0}); got == "" && (kind == "text/plain; charset=utf-8") != plain {
			t.Errorf("%q: %s", b, kind)
		}
		for _, kind := range []string{kind, mimeOf(declared, in)} {
			base, _, _ := strings.Cut(kind, ";")
			if !served.MatchString(kind) || strings.HasPrefix(kind, "multipart/") || strings.HasPrefix(kind, "message/") || !strings.Contains(strings.ToLower(declared), base) && kind != mimeOf("", in) {
				t.Errorf("%q declared as %q: %q", b, declared, kind)
			}
			acts := strings.Contains(base, "html") || strings.Contains(base, "script") || strings.HasSuffix(base, "xml") || base == "application/pdf"
			if d := disposition(kind); d != "inline" && d != "attachment" || d == "inline" && acts {
				t.Errorf("%s is shown %s", kind, d)
			}
		}
	})
}

// discardHash is a hash that nobody asks.
type discardHash struct{}

func (discardHash) Write(b []byte) (int, error) { return len(b), nil }
func (discardHash) Sum(b []byte) []byte         { return b }
func (discardHash) Reset()                      {}
func (discardHash) Size() int                   { return 0 }
func (discardHash) BlockSize() int              { return 1 }

func FuzzAccept(f *testing.F) {
	for _, s := range []string{"", "*/*", "text/plain", "application/json;q=0.5, TEXT/PLAIN ; q=0.4", "text/plain;q=NaN", "text/plain;q=-1", "text/plain;q=1e400", "text/plain;q=0", ",;,;q=,", "text/plain;q=0.1;q=0.9", "text/plain;Q=.5,text/plain", "application/json;q=0x1p-2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, accept string) {
		ask := func(lines ...string) *request {
			return &request{r: &http.Request{Header: http.Header{"Accept": lines}}}
		}
		q, parts := ask(accept), strings.Split(accept, ",")
		for _, name := range []string{"text/plain", "application/json"} {
			named := strings.Contains(strings.ToLower(accept), name)
			if w := quality(q.r, name); !(w == -1 || w >= 0 && w <= 1 && named) || w != quality(ask(parts...).r, name) {
				t.Errorf("%q: %s weighs %v", accept, name, w)
			}
		}
		if q.wantsText(false) && (!q.wantsText(true) || !strings.Contains(strings.ToLower(accept), "text/plain")) {
			t.Errorf("%q: text where it was not asked for", accept)
		}
		if ask(accept, "application/json").wantsText(false) || !ask(accept, "application/json;q=0").wantsText(true) && quality(q.r, "application/json") <= 0 {
			t.Errorf("%q: what stands behind it is not heard", accept)
		}
	})
}

// FuzzList: whatever a certificate holder asks a list for, it shows her own alone.
func FuzzList(f *testing.F) {
	ts := fuzzServer(f, proxied...)
	mine := map[string]bool{}
	for i := range 5 {
		mine[ts.create(fmt.Sprint("mine ", i), withCert(certAlice, "X-Display-Name: n%_'"+strconv.Itoa(i))...).ID] = true
		ts.create(fmt.Sprint("hers ", i), withCert(certMallory, "X-Display-Name: n%_'"+strconv.Itoa(i))...)
		ts.clock.advance(time.Second)
	}
	for _, s := range []string{"", "limit=2", "limit=-1", "limit=2&cursor=" + formatCursor(1<<62, 1<<62), "cursor=" + formatCursor(-1, -1), "cursor=AAAAAAAAAAAAAAAAAAAAAB", "q=' OR 1=1 --", "q=%25&type=text/*", "type=*/*", "type=text%2Fplain", "owner=all", "owner=anonymous", "owner=" + certMallory,
		"after=0&before=9223372036854775807", "after=0000-01-01T00:00:00Z", "before=-1", "limit=1;q=x", "limit=1&limit=2", "%zz", "q=%00", "q=\xff", "Limit=1", "limit=%31"} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, query string, shorts bool) {
		path := map[bool]string{false: "/pastes", true: "/s"}[shorts]
		w := ts.serveURL("GET", &url.URL{Path: path, RawQuery: query}, nil, withCert(certAlice)...)
		if w == nil || w.Code != 200 && w.Code != 400 && w.Code != 403 {
			t.Fatalf("%q: %+v", query, w)
		}
		var page struct {
			Pastes, URLs []created
			Count        int
			Next         *string `json:"next_cursor"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != 200 && (page.Count > 0 || !strings.Contains(w.Body.String(), `"code": "`)) {
			t.Fatalf("%q: %v in %s", query, err, w.Body)
		}
		if w.Code != 200 {
			return
		}
		if page.Count != len(page.Pastes)+len(page.URLs) || page.Count > listMost || shorts && page.Count > 0 {
			t.Errorf("%q: %s", query, w.Body)
		}
		for _, p := range page.Pastes {
			if !mine[p.ID] || p.Owner != certAlice {
				t.Errorf("%q shows %+v", query, p)
			}
		}
		if values, _ := url.ParseQuery(query); values.Get("cursor") != "" {
			page.Next = new(values.Get("cursor")) // taken: so it is the one spelling of a place
		}
		if page.Next != nil {
			if c, err := parseCursor(*page.Next); err != nil || formatCursor(c[0], c[1]) != *page.Next {
				t.Errorf("%q: cursor %q: %v", query, *page.Next, err)
			}
		}
	})
}

// FuzzTrust: headers of a peer in the trusted range. Without the very secret none of them counts; with it each is read one way.
func FuzzTrust(f *testing.F) {
	ts := fuzzServer(f, proxied...)
	for _, secret := range []string{proxySecret, proxySecret + " ", proxySecret[1:], "", strings.ToUpper(proxySecret), proxySecret + "\x00"} {
		f.Add(secret, "192.0.2.1", "https", certAlice)
		f.Add(secret, "127.0.0.1, 6.6.6.6", "http, https", sha1OfNothing)
		f.Add(secret, "[2001:db8::1]:1,junk", "HTTPS", "-----BEGIN")
	}
	f.Fuzz(func(t *testing.T, secret, forwarded, proto, cert string) {
		r := &http.Request{Method: "GET", URL: &url.URL{Path: "/"}, RemoteAddr: "127.0.0.1:1", Header: http.Header{"X-Proxy-Secret": {secret}, "X-Forwarded-For": {forwarded}, "X-Forwarded-Proto": {proto}, "X-Ssl-Client-Sha1": {cert}}}
		q := &request{s: ts.server, r: r, start: testStart, now: testStart.Unix()}
		ts.locate(q)
		err := ts.identify(q)
		peer := netip.MustParseAddr("127.0.0.1")
		if secret != proxySecret {
			if q.addr != peer || q.https || q.who != (identity{}) || q.tier != anonymous || err != nil {
				t.Errorf("with the secret %q: %v, https %v, %+v, %v", secret, q.addr, q.https, q.who, err)
			}
			return
		}
		shown, certErr := parseCertHeader(cert)
		if q.addr != forwardedAddr(forwarded, peer, ts.cfg.trustedProxies) || q.https != (proto == "https") || (err == nil) != (certErr == nil) || q.who.sha1 != shown.sha1 || q.who.sha256 != shown.sha256 || (q.tier == untrusted) != (shown != identity{}) || q.tier > untrusted {
			t.Errorf("%q, %q, %q: %v, https %v, %+v, %v", forwarded, proto, cert, q.addr, q.https, q.who, err)
		}
	})
}

// FuzzConfig: one variable of the environment. It is refused in one line that names it and shows no secret, or every value keeps
// its promise to the code that reads it.
func FuzzConfig(f *testing.F) {
	names := map[string]bool{}
	for _, v := range variables(new(config)) {
		names[v.name] = true
		for _, s := range []string{v.def, "", "0", "-1", "9223372036854775808", "unix:", "10.0.0.1/8", "::ffff:10.0.0.0/104", "https://u@h/", "/../{x}", "a\nb", "\xff", "*.*.x", "1e3", "8.5", "NaN"} {
			f.Add(v.name, s)
		}
	}
	f.Add("PORT_5000_TCP", "tcp://x")
	f.Add("SERVER", "x")
	f.Add("max_anon", "1")
	prefix, host := regexp.MustCompile(`^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*$`), regexp.MustCompile(`^(\*\.)?[a-z0-9.-]+$`)
	f.Fuzz(func(t *testing.T, name, value string) {
		if strings.Contains(name, "_FILE") || strings.Contains(name, "=") {
			return // the operator's own files
		}
		c, err := loadConfig([]string{envPrefix + name + "=" + value})
		if err != nil {
			line := err.Error()
			if c != nil || !strings.Contains(line, envPrefix+name) || strings.Contains(strings.ReplaceAll(line, envPrefix+name, ""), "\n") || (name == "PROXY_SECRET" || name == "PKI_CA_PASSWORD") && len(value) > 15 && strings.Contains(line, value) {
				t.Errorf("%s=%q: %q", name, value, line)
			}
			return
		}
		if !names[name] && name != "SERVER" && len(c.warnings) != 1 {
			t.Errorf("%q is no setting, and is taken", name)
		}
		for _, d := range []time.Duration{c.expiryAnon, c.expiryUntrusted, c.expiryTrusted, c.maxExpiry, c.transferTimeout, c.powTTL, c.floodWindow, c.floodDecay, c.dedupWindow, c.sweep} {
			if d < time.Second || d > 70*366*24*time.Hour || d%time.Second != 0 {
				t.Errorf("%s=%q: %v", name, value, d)
			}
		}
		for _, n := range []int64{c.maxAnon, c.maxAuth, c.maxStorage, c.maxUploads, c.maxDownloads, c.idLength - 11, 65 - c.idLength, c.certDays, c.floodStep, c.floodThreshold, c.rateFactor, c.rateMaxClients - 999, c.shortMax - 15,
			c.minSize + 1, c.minFree + 1, c.cache + 1, c.powDifficulty + 1, 41 - c.powDifficulty, c.powFree + 1, c.registerPow + 1, 41 - c.registerPow, c.floodMax + 1, c.dedupMax + 1, c.dedupAll + 1, int64(len(c.listen))} {
			if n < 1 {
				t.Errorf("%s=%q: a number out of its range: %+v", name, value, c)
			}
		}
		for _, p := range append(c.trustedProxies, c.metricsAllow...) {
			if !p.IsValid() || p.Masked() != p || p.Addr().Is4In6() || p.Addr().Zone() != "" {
				t.Errorf("%s=%q: %v", name, value, p)
			}
		}
		for _, h := range c.shortHosts {
			if !host.MatchString(h) {
				t.Errorf("%s=%q: host %q", name, value, h)
			}
		}
		for _, h := range []string{c.addressHeader, c.certHeader} {
			if h == "" || h != canonicalHeader(h) {
				t.Errorf("%s=%q: header %q", name, value, h)
			}
		}
		if u, err := url.Parse(c.publicURL); err != nil || c.publicURL != "" && (u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "") || strings.HasSuffix(c.publicURL, "/") {
			t.Errorf("%s=%q: public URL %q", name, value, c.publicURL)
		}
		if !(c.minEntropy >= 0 && c.minEntropy <= 8) || c.socketMode > 0o777 || !prefix.MatchString(c.prefix) || c.proxySecret != "" && len(c.proxySecret) < 16 {
			t.Errorf("%s=%q: %+v", name, value, c)
		}
		http.NewServeMux().Handle("GET "+c.prefix+"/{$}", http.NotFoundHandler()) // a pattern that is none would panic
	})
}

// FuzzActivation: what is no count takes no socket over. (Counts are tried on real sockets: TestActivationAndRestart.)
func FuzzActivation(f *testing.F) {
	for _, s := range []string{"", "0", "-1", "x", "1x", " 1", "99999999999999999999", "0x1", "1e1"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Add("1", false)
	f.Fuzz(func(t *testing.T, fds string, ours bool) {
		if n, err := strconv.Atoi(fds); strings.Contains(fds, "\x00") || err == nil && n > 0 && ours {
			return
		}
		t.Setenv("LISTEN_FDS", fds)
		t.Setenv("LISTEN_PID", map[bool]string{true: strconv.Itoa(os.Getpid()), false: fds}[ours])
		if list, err := activated(); len(list) > 0 || err != nil {
			t.Errorf("LISTEN_FDS=%q: %v, %v", fds, list, err)
		}
	})
}

// ---- the client ----

// FuzzLink: what a user may be handed to open. Our certificate goes to our server alone, nothing in the clear over a network, and
// the key nowhere but into the key.
func FuzzLink(f *testing.F) {
	const id = "0123456789abcdef"
	fragment := testKey(1).fragment()
	for _, s := range []string{id, id + "#" + fragment, "https://paste.example.org/p/" + id + "#" + fragment, "HTTPS://Paste.Example.org:443/p/" + id + "/raw", "https://paste.example.org@evil.example/" + id, "https://paste.example.org.evil.example/p/" + id,
		"http://paste.example.org/p/" + id, "http://127.0.0.1/" + id, "http://[::1%25eth0]/" + id, "http://localhost.evil.example/" + id, "https://h//" + id + "#" + fragment + "=", "https://h/%2e%2e/" + id, "https://h/?" + id, "file:///" + id, "https:/" + id, "#" + fragment, id + "#" + fragment[:42] + "~", "https://h/p/raw/raw", "-o"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		c := &cli{std: stdio{env: func(string) (string, bool) { return "", false }}, opt: map[string]string{}, clients: map[string]*apiClient{}}
		c.server = must(parseServer("https://paste.example.org/p", false))
		place, fragment, keyed := strings.Cut(arg, "#")
		r, err := c.resolvePaste(arg)
		if err != nil {
			if code, what, hint := explain(err); code != 2 || len(fragment) > 20 && !strings.Contains(place, fragment) && strings.Contains(what+hint, fragment) {
				t.Errorf("%q: exit %d, %q", arg, code, what+hint)
			}
			return
		}
		base := r.api.base
		if !idShaped(r.id) || (r.key != nil) != keyed || keyed && r.key.fragment() != fragment || base.User != nil || base.RawQuery != "" || base.Fragment != "" || base.Opaque != "" {
			t.Errorf("%q: %+v at %s", arg, r, base)
		}
		if ours := base.Scheme == "https" && strings.EqualFold(base.Hostname(), "paste.example.org") && (base.Port() == "" || base.Port() == "443"); ours != r.api.trusted {
			t.Errorf("%q: trusted %v", arg, r.api.trusted)
		}
		if a, err := netip.ParseAddr(base.Hostname()); base.Scheme != "https" && base.Hostname() != "localhost" && (err != nil || !a.IsLoopback()) {
			t.Errorf("%q goes in the clear to %s", arg, base.Host)
		}
		again, err := c.resolvePaste(r.link())
		if err != nil || again.link() != r.link() || again.api.trusted != r.api.trusted {
			t.Errorf("%q: its link %q: %v", arg, r.link(), err)
		}
	})
}

// FuzzTerminal: what strangers wrote, on a terminal and as a file name.
func FuzzTerminal(f *testing.F) {
	for _, s := range []string{"text\r\n\tmore", "\x1b]0;t\x07\x9b1m", "\u202egpj.exe", "\r", "a\r\rb", "\xe2\x80", "\xe2\x80\xae\u2028", "../../x", `..\x`, "-rf", "C:x", ".ssh", strings.Repeat("é", 200), "\u0085\x00"} {
		f.Add([]byte(s), uint8(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		var whole, pieces bytes.Buffer
		for out, n := range map[*bytes.Buffer]int{&whole: len(b) + 1, &pieces: int(size) + 1} {
			w := &plainWriter{w: out}
			for rest := b; len(rest) > 0; rest = rest[min(n, len(rest)):] {
				w.Write(rest[:min(n, len(rest))])
			}
			w.flush()
		}
		out := whole.String()
		if out != pieces.String() {
			t.Errorf("%q shows as %q, in pieces as %q", b, out, &pieces)
		}
		harmless := func(r rune) bool {
			return !unicode.IsControl(r) && !unicode.Is(unicode.Bidi_Control, r) && r != '\u2028' && r != '\u2029'
		}
		for _, r := range strings.NewReplacer("\r\n", "", "\n", "", "\t", "").Replace(out) {
			if !harmless(r) {
				t.Errorf("%q lets %q through: %q", b, r, out)
			}
		}
		if plain := utf8.Valid(b) && !strings.ContainsFunc(string(b), func(r rune) bool { return !harmless(r) }); plain && out != string(b) || !utf8.ValidString(out) {
			t.Errorf("%q became %q", b, out)
		}
		if name := safeName(string(b), "ID"); !filepath.IsLocal(name) || filepath.Base(name) != name || strings.ContainsAny(name[:1], ".-") || strings.ContainsFunc(name, func(r rune) bool { return !harmless(r) || strings.ContainsRune(`/\:`, r) }) || len(name) > 255 {
			t.Errorf("%q becomes a file %q", b, name)
		}
	})
}

type cannedAnswer func(*http.Request) (*http.Response, error)

func (c cannedAnswer) RoundTrip(r *http.Request) (*http.Response, error) { return c(r) }

// FuzzAnswer: a hostile server. Every call ends after few requests, with what was asked for or an exit code; the key stays here.
func FuzzAnswer(f *testing.F) {
	const id = "0123456789abcdef"
	key := testKey(1)
	sealed := mustSeal(f, key, sealTitle{}, []byte("content"))
	for _, s := range []string{fakeCreated, `{"id":"../../x"}`, `{"id":"` + id + `","size":-1}`, `{"error":"no\u001b[2J\n","code":"x","challenge":{"enabled":true,"nonce":"` + strings.Repeat("a", 32) + `","difficulty":32,"token":"t\r\nX: y"}}`, `{"pastes":[{"id":"a"}],"next_cursor":"x"}`,
		`{"error":"e","code":"busy"}`, `[]`, `{"enabled":true,"nonce":"x","difficulty":64}`, "", string(sealed)} {
		for _, status := range []int{200, 201, 302, 400, 403, 429, 503} {
			f.Add(status, []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		requests := 0
		c := newAPIClient(must(parseServer("https://paste.example.org", false)), true, nil, nil)
		c.work = func(context.Context, string, int) (string, error) { return "1", nil }
		c.http.Transport = cannedAnswer(func(r *http.Request) (*http.Response, error) {
			requests++
			var head strings.Builder
			fmt.Fprint(&head, r.URL)
			r.Header.Write(&head)
			if strings.Contains(head.String(), key.fragment()) || strings.Contains(head.String(), hex.EncodeToString(key[:])) || r.URL.Host != "paste.example.org" {
				t.Errorf("a request for %s with %v", r.URL, r.Header)
			}
			return &http.Response{StatusCode: 200 + int(uint(status-200)%400), Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: r}, nil
		})
		for name, call := range map[string]func() error{
			"create": func() error {
				info, err := c.create(t.Context(), textBody(string(sealed)), &key, map[string]string{})
				if err == nil && !idShaped(info.ID) {
					t.Errorf("created %q", info.ID)
				}
				return err
			},
			"meta": func() error {
				info, err := c.meta(t.Context(), id)
				if err == nil && info.ID != id {
					t.Errorf("asked for %s, got %q", id, info.ID)
				}
				return err
			},
			"list": func() error {
				return c.pages(t.Context(), "/pastes", url.Values{}, func(items []apiItem) error { return nil })
			},
			"enrol":  func() error { _, err := c.enrol(t.Context(), "request"); return err },
			"remove": func() error { return c.remove(t.Context(), "/"+id, "token") },
			"get": func() error {
				res, err := c.raw(t.Context(), id, &key, "")
				if err != nil {
					return err
				}
				defer res.Body.Close()
				s, _, err := openFrom(res.Body, key)
				if err == nil {
					_, err = io.ReadAll(s)
				}
				if err == nil && !bytes.Equal(body, sealed) {
					t.Errorf("opened %q", body)
				}
				return err
			},
		} {
			requests = 0
			err := call()
			if code, what, _ := explain(err); requests > 4 || (code == 0) != (err == nil) || code > 7 || err != nil && what == "" {
				t.Errorf("%s: %d requests, exit %d, %q: %v", name, requests, code, what, err)
			}
		}
	})
}
