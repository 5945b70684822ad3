package main

// Fuzz targets: what strangers write, against the same code that serves them. Each has its seeds here; .ci/run gives each 10 s.

import (
	"bytes"
	"encoding/base64"
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
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// serve lets the server answer a request without a network in between. nil: the server cut the connection.
func (ts *testServer) serve(method, path string, body []byte, headers ...string) (w *httptest.ResponseRecorder) {
	r := &http.Request{Method: method, URL: &url.URL{Path: path}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Host: "x", RemoteAddr: "127.0.0.1:1",
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
	for _, s := range []string{"bytes=0-0", "bytes=-1", "bytes=0-", "bytes=262143-262144", "bytes=9999999-", "bytes=5-1", "bytes=0-0,2-3", "bytes=0-0, 262140-262150 ,-5", "bytes=", "bytes=--1", "bytes=0-99999999999999999999", "lines=1-2", "", "bytes=0-,0-,0-"} {
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
				break
			}
			mr := multipart.NewReader(strings.NewReader(body), params["boundary"])
			for {
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
		case 304, 416:
		default:
			t.Errorf("%q: status %d", ranges, w.Code)
		}
		if len(body) > 2*len(content) || ts.downloads.inUse() != 0 {
			t.Errorf("%q: %d bytes, %d slots in use", ranges, len(body), ts.downloads.inUse())
		}
	})
}

func FuzzMagic(f *testing.F) {
	for _, s := range []string{"", "MZ", "MZ" + strings.Repeat("\x00", 62), "\x89PNG\r\n\x1a\n", "\xff\xd8\xff\xe0", "\xff\xfb\x90\x64", "\xff\xe3\x18\xc4", "BZh91AY&SY", "ID3\x04\x00\x00\x00\x00\x00\x23", "\x00\x00\x00\x18ftypisom", "RIFF....WAVE", "-----BEGIN X-----\n", "PK\x03\x04", strings.Repeat("x", 257) + "ustar", "text"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := &intake{limit: 1 << 20, hash: discardHash{}, text: true}
		for rest := b; len(rest) > 0; {
			n := min(len(rest), 1+len(b)/3)
			in.look(rest[:n])
			rest = rest[n:]
		}
		got := magic(b[:min(len(b), headSize)])
		kind := mimeOf("", in)
		if base, _, _ := strings.Cut(kind, ";"); !mimeShape.MatchString(base) || got != "" && got != kind {
			t.Errorf("%q: %q, %q", b, got, kind)
		}
		if plain := utf8.Valid(b) && !bytes.Contains(b, []byte{0}); got == "" && (kind == "text/plain; charset=utf-8") != plain {
			t.Errorf("%q: %s", b, kind)
		}
		if d := disposition(kind); d != "inline" && d != "attachment" || d == "inline" && (strings.Contains(kind, "html") || strings.Contains(kind, "xml")) {
			t.Errorf("%s is shown %s", kind, d)
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
