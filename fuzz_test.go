package main

// Fuzz targets, one a parser: what strangers write, against the same code that serves them. Each has its seeds here,
// and what fuzzing once found in testdata/fuzz; go test runs both, .ci/run fuzzes a little further.

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// serve lets the server answer a request without a network in between. nil: the server cut the connection.
func (ts *testServer) serve(method, path, query string, body []byte, headers ...string) (w *httptest.ResponseRecorder) {
	r := httptest.NewRequest(method, "/", bytes.NewReader(body))
	r.URL, r.RemoteAddr = &url.URL{Path: path, RawQuery: query}, "127.0.0.1:1"
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
	ts.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), connKey{}, &conn{Conn: new(net.TCPConn)})))
	return w
}

// fuzzServer is one that fuzzing does not wait for the disk with.
func fuzzServer(f *testing.F, env ...string) *testServer {
	return start(f, append([]string{"SYNC=normal", "LOG_LEVEL=error", "MAX_ANON=64KiB"}, env...)...)
}

// stores posts a body and wants exactly what is told by its status: one paste more, whose content is then returned and
// which is deleted again, or none.
func (ts *testServer) stores(t *testing.T, body []byte, headers ...string) (content string, taken bool) {
	count := func() int64 { return ts.in(t).number("SELECT count(*) FROM pastes") }
	before := count()
	w := ts.serve("POST", "/", "", body, headers...)
	if w == nil || w.Code != 201 && w.Code != 400 && w.Code != 413 {
		t.Fatalf("%q: %+v", body, w)
	}
	if w.Code != 201 {
		if after := count(); after != before {
			t.Fatalf("%q: status %d, %d pastes more", body, w.Code, after-before)
		}
		return "", false
	}
	path := w.Header().Get("Location")
	r := ts.serve("GET", path+"/raw", "", nil)
	d := ts.serve("DELETE", path, "", nil, "X-Delete-Token: "+w.Header().Get("X-Delete-Token"))
	if after := count(); after != before || r == nil || r.Code != 200 || d == nil || d.Code != 200 && d.Code != 404 {
		t.Fatalf("%q: %d pastes more, read %+v, deleted %+v", body, after-before, r, d)
	}
	return r.Body.String(), true
}

func FuzzJSONBody(f *testing.F) {
	ts := fuzzServer(f)
	for _, s := range []string{`{"content":"x","expiry":60,"burn_after_read":true,"mime_type":"text/html"}`,
		`{"content":"\ud83d\ude00"}`, `{"content":"\ud800"}`, `{"content":"\\ud800"}`,
		`{"content":"x","content":"y","expiry":60,"expiry":70}`, `{"content":1}`, `{}`, `[]`, `{"content":"x"} {}`,
		`{"content":"x","expiry":1e9}`, "\xff", `{"content":"\udc00\ud800"}`, `{"a":{"content":"x"}}`,
		`{"content":null,"content":[{"content":1}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		lower := strings.ToLower(string(body))
		if strings.Contains(lower, "pass") || strings.Contains(lower, `\u00`) {
			return // a derivation costs a tenth of a second
		}
		got, taken := ts.stores(t, body, isJSON)
		if !taken {
			return
		}
		var m struct {
			Content string `json:"content"`
		}
		var all map[string]any
		given := strings.Contains(lower, "\ufffd") || strings.Contains(lower, `\ufffd`)
		if json.Unmarshal(body, &m) != nil || json.Unmarshal(body, &all) != nil || !utf8.Valid(body) ||
			got != m.Content || strings.Contains(got, "\ufffd") && !given {
			t.Fatalf("%q is taken as %q", body, got)
		}
		for name := range all {
			if !slices.Contains([]string{"content", "mime_type", "expiry", "burn_after_read", "display_name"}, name) {
				t.Errorf("%q: member %q is taken", body, name)
			}
		}
	})
}

func FuzzMultipart(f *testing.F) {
	ts := fuzzServer(f)
	whole := form(file("x", "content"))
	for _, s := range []string{whole, form(field("expiry", "60"), file("x", "y")), form(file("a", "x"), file("b", "y")),
		whole[:60], "--b0undary--", "", "--b0undary\r\n\r\n\r\n--b0undary--", "--b0undary\n\nx\n--b0undary--\n",
		"--b0undary\r\nContent-Disposition: form-data; name=\"a\r\n\r\nx",
		form(field("burn_after_read", "1"), field("c", "\x00\xff")), strings.Repeat("--b0undary\r\n\r\nx\r\n", 20),
		whole[:len(whole)-4] + "\r\nContent-Disposition: form-data; name=expiry"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if bytes.Contains(body, []byte("password")) {
			return
		}
		got, taken := ts.stores(t, body, isForm)
		if !taken {
			return
		}
		var contents []string // whatever is taken, another reader of the format sees the same one content in
		for mr := multipart.NewReader(bytes.NewReader(body), "b0undary"); ; {
			p, err := mr.NextRawPart()
			if err != nil {
				break
			}
			if b, _ := io.ReadAll(p); optionHeaders[p.FormName()] == "" {
				contents = append(contents, string(b))
			}
		}
		if len(contents) != 1 || got != contents[0] {
			t.Errorf("%q: stored %q, the parts are %q", body, got, contents)
		}
	})
}

// FuzzMIME: what goes out as Content-Type is one type with at most a charset, text is called text however it begins,
// and a browser is never asked to show what can act: HTML, scripts, and whatever it takes for XML (WHATWG MIME
// Sniffing: every +xml).
func FuzzMIME(f *testing.F) {
	ts := fuzzServer(f)
	for _, s := range []string{"x", "MZ", "\x89PNG\r\n\x1a\n", "GIF89a", "\xff\xd8\xff\xe0", "BZh91AY&SY",
		"RIFF....WAVE", "\x00\x00\x00\x18ftypisom\x00", "-----BEGIN X-----\n", "PK\x03\x04", "\xff\xfea\x00",
		strings.Repeat("x", 257) + "ustar\x00", "\x00\x00\x00\xffftypmif1\xff"} {
		f.Add([]byte(s), "")
	}
	for _, s := range []string{"text/html", "IMAGE/svg+xml", "audio/x+xml", "text/html; charset=\"a\r\nX: y\"",
		"text/plain, text/html", "*/*", "multipart/byteranges; boundary=x", "message/rfc822", "a/b;;charset=x",
		"text/html\x00", "text/\u212aml", "text/plain; charset=utf-7"} {
		f.Add([]byte("<script>"), s)
	}
	const token = `[a-z0-9][a-z0-9!#$&^_.+-]*`
	served := regexp.MustCompile("^" + token + "/" + token + `(; charset=[A-Za-z0-9._-]{1,30})?$`)
	envelope, acting := regexp.MustCompile("^(multipart|message)/"), regexp.MustCompile(
		`\+xml$|^(text|image|application)/.*(html|script|xml|pdf)`)
	f.Fuzz(func(t *testing.T, b []byte, declared string) {
		if form, _ := mediaType(declared); len(b) == 0 || form == "multipart/form-data" || form == "application/json" {
			return
		}
		for _, d := range []string{"", declared} {
			w := ts.serve("POST", "/", "", b, "Content-Type: "+d)
			if w == nil || w.Code != 201 {
				t.Fatalf("%q declared %q: %+v", b, d, w)
			}
			path := w.Header().Get("Location")
			r := ts.serve("GET", path+"/raw", "", nil)
			ts.serve("DELETE", path, "", nil, "X-Delete-Token: "+w.Header().Get("X-Delete-Token"))
			kind, shown := r.Header().Get("Content-Type"), r.Header().Get("Content-Disposition")
			base, _, _ := strings.Cut(kind, ";")
			if !served.MatchString(kind) || envelope.MatchString(kind) {
				t.Errorf("%q declared as %q: %q", b, d, kind)
			}
			plain := utf8.Valid(b) && !bytes.Contains(b, []byte{0})
			named := base == "application/pdf" || base == "application/x-pem-file" ||
				base == "application/x-age" && b[0] == '-'
			if d == "" && plain != (kind == isText) && plain != named {
				t.Errorf("%q: %s", b, kind)
			}
			if shown != "inline" && shown != "attachment" || shown == "inline" && acting.MatchString(base) {
				t.Errorf("%s is shown %s", kind, shown)
			}
		}
	})
}

func FuzzExpiry(f *testing.F) {
	for _, s := range []string{"", "0", "3600", "1d12h", "2w", "1.5h", "-1", "1e9", "NaN", "٣٠s",
		"9223372036854775807w", "@1800000000", "@-1", "1d12", "2027-01-01T00:00:00Z", "2027-01-01T00:00:00+14:00"} {
		f.Add(s)
	}
	span, now := regexp.MustCompile(`^(\d+|(\d+[smhdw])+)$`), int64(1_790_000_000)
	f.Fuzz(func(t *testing.T, v string) {
		at, err := parseExpiry(v, now)
		date, dateErr := time.Parse(time.RFC3339, v)
		switch {
		case err != nil:
			if at != 0 || toAPI(err).Code != "bad_expiry" {
				t.Errorf("%q: %d, %v", v, at, err)
			}
		case at <= now, v != "@"+strconv.FormatInt(at, 10) && (v[0] == '@' && strings.Trim(v[1:], "0123456789") != "" ||
			v[0] != '@' && !span.MatchString(v) && (dateErr != nil || date.Unix() != at)):
			t.Errorf("%q is taken as %d", v, at)
		}
	})
}

// FuzzTarget: whatever is taken is its own parse, and nothing in it can be read in two ways.
func FuzzTarget(f *testing.F) {
	for _, v := range []string{"https://example.org/a?b#c", "HTTP://[2001:DB8::1]:80/%2f/é?é#é", "http://1.2.3.4./",
		"http://a:b@c/", `http:\\x`, "http://x/\r\nY: z", "http://example.org//s/x", "http://e/a%2Fb{}",
		"http://\u212a/", "javascript://e/%0a", "http://own.example/../s/x", "http://[::ffff:1.2.3.4]/",
		"http://0x7f.1/", "http://e:080?", "http://e/?%zz&;", "http://xn--a.example./@:"} {
		f.Add(v)
	}
	s, plainURL := &server{cfg: &config{shortMax: 2048}}, regexp.MustCompile(`^https?://[!#-;=?-\[\]_a-z~]+$`)
	f.Fuzz(func(t *testing.T, v string) {
		out, err := s.parseTarget(v, []string{"own.example", "192.0.2.1"})
		if err != nil {
			if out != "" || toAPI(err).Code != "bad_url" {
				t.Fatalf("%q: refused with %v, and %q came out", v, err, out)
			}
			return
		}
		u, err := url.Parse(out)
		if again, _ := s.parseTarget(out, nil); err != nil || again != out || u.String() != out {
			t.Fatalf("%q gives %q, and that %q, %v", v, out, again, err)
		}
		port, portErr := strconv.ParseUint(u.Port(), 10, 16)
		host := strings.TrimSuffix(u.Hostname(), ".")
		if !plainURL.MatchString(out) || host == "" || u.User != nil || strings.Contains(u.Host, "@") ||
			strings.ToLower(u.Host) != u.Host || len(out) > 2048 || u.Port() != "" && (portErr != nil || port == 0) ||
			strings.HasPrefix(u.Path, "/s/") && (host == "own.example" || host == "192.0.2.1") {
			t.Fatalf("%q is sent", out)
		}
	})
}

func FuzzID(f *testing.F) {
	ts := fuzzServer(f)
	p := ts.create("content")
	for _, s := range []string{p.ID, strings.ToUpper(p.ID), p.ID + "/raw", p.ID + "/raw/x", p.ID[:8], "a/b",
		"../" + p.ID, p.ID + "\x00", "", "pastes", "s/x", "raw", "pki/certs", ".", "%", "//", "é",
		"*", strings.Repeat("a", 10000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE"} {
			w := ts.serve(method, "/"+id, "", nil)
			if w == nil || w.Code >= 500 || w.Header().Get("Location") != "" || w.Header().Get("X-Request-Id") == "" {
				t.Errorf("%s %q: %+v", method, id, w)
			} else if body := w.Body.String(); w.Code == 200 && !strings.HasPrefix(id, p.ID) &&
				(strings.Contains(body, p.ID) || body == "content") {
				t.Errorf("%s %q finds the paste", method, id)
			}
		}
		if n := ts.in(t).number("SELECT count(*) FROM pastes"); n != 1 {
			t.Errorf("%q: %d pastes", id, n)
		}
	})
}

// FuzzList: whatever a certificate holder asks a list for, it shows her own alone.
func FuzzList(f *testing.F) {
	ts := fuzzServer(f, proxied...)
	mine := map[string]bool{}
	for i := range 5 {
		mine[ts.create(fmt.Sprint("mine ", i), withCert(certAlice, "X-Display-Name: n%_'")...).ID] = true
		ts.create(fmt.Sprint("hers ", i), withCert(certMallory, "X-Display-Name: n%_'")...)
	}
	for _, s := range []string{"", "limit=2", "limit=-1", "cursor=AAAAAAAAAAk", "cursor=__________8",
		"cursor=AAAAAAAAAAB", "q=' OR 1=1 --", "q=%25&type=text/*", "owner=all", "owner=" + certMallory,
		"after=0&before=9223372036854775807", "after=0000-01-01T00:00:00Z", "limit=1;q=x", "%zz", "q=%00", "q=\xff"} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, query string, shorts bool) {
		w := ts.serve("GET", map[bool]string{false: "/pastes", true: "/s"}[shorts], query, nil, withCert(certAlice)...)
		var page struct {
			Pastes, URLs []created
			Count        int
		}
		if w == nil || w.Code != 200 && w.Code != 400 && w.Code != 403 ||
			json.Unmarshal(w.Body.Bytes(), &page) != nil || page.Count != len(page.Pastes)+len(page.URLs) ||
			page.Count > len(mine) || (shorts || w.Code != 200) && page.Count > 0 {
			t.Fatalf("%q: %+v", query, w)
		}
		for _, p := range page.Pastes {
			if !mine[p.ID] || p.Owner != certAlice {
				t.Errorf("%q shows %+v", query, p)
			}
		}
	})
}

// FuzzProxyHeaders: a certificate header is refused, nobody's or one identity in its one spelling; and whatever a
// client writes into the list of addresses, the proxy's word behind it stands.
func FuzzProxyHeaders(f *testing.F) {
	leaf := selfSigned("alice").der
	pemText := string(pemOf("CERTIFICATE", leaf))
	for _, s := range []string{"", "(null)", "{x}", certAlice, strings.ToUpper(certAlice), "aa:bb", sha1OfNothing,
		url.PathEscape(pemText), pemText, ":" + base64.StdEncoding.EncodeToString(leaf) + ":", ":MAA=:", "%zz",
		"192.0.2.1", "[2001:db8::1]:80, 10.0.0.1", "fe80::1%eth0", "::ffff:10.0.0.1", ",,", "unknown, 1.2.3.4:5"} {
		f.Add(s)
	}
	inner, stranger := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, netip.MustParseAddr("192.0.2.1")
	f.Fuzz(func(t *testing.T, v string) {
		i, err := parseCertHeader(v)
		if err != nil && (i != identity{} || toAPI(err).Code != "bad_client_certificate") ||
			err == nil && i != (identity{}) && !isHex(i.sha256, 64) && (i.sha256 != "" || !isHex(i.sha1, 40)) {
			t.Errorf("%q is %+v, %v", v, i, err)
		}
		if a := forwardedAddr(v+", 192.0.2.1", inner); a != stranger {
			t.Errorf("%q moves the client to %v", v, a)
		}
		a, proxy := forwardedAddr(v, inner), netip.MustParseAddr("10.9.9.9")
		b := forwardedAddr(v+",10.9.9.9", inner)
		if b != a && (a.IsValid() || b != proxy) || a.Zone() != "" || a.Is4In6() {
			t.Errorf("%q: %v, behind a trusted proxy %v", v, a, b)
		}
	})
}

// FuzzProof: of all tokens only the one that was issued is taken, for its purpose, with a number that solves it.
func FuzzProof(f *testing.F) {
	c, now := newChallenges(), testStart
	issued := c.issue(purposeCreate, 1, time.Hour, now)
	right := must(solve(f.Context(), issued.nonce, 1, 1, nil))
	for _, token := range []string{issued.token, strings.ToUpper(issued.token), issued.token + ":", "", ":::",
		strings.Replace(issued.token, ":1:", ":0:", 1), issued.nonce + ":99999999999:1:" + strings.Repeat("0", 64),
		strings.Replace(issued.token, ":1:", "1::", 1), " " + issued.token, issued.token + "0"} {
		f.Add(token, right)
	}
	f.Add(issued.token, "0"+right)
	f.Fuzz(func(t *testing.T, token, solution string) {
		nonce, expires, err := c.verify(purposeCreate, token, solution, 1, now)
		n, _ := strconv.ParseUint(solution, 10, 64)
		good := token == issued.token && len(solution) < 20 && solution == strconv.FormatUint(n, 10) &&
			workDone(issued.nonce, solution, 1)
		same := hex.EncodeToString(nonce[:]) == issued.nonce && expires == issued.expires
		if (err == nil) != good || good && !same {
			t.Errorf("%q, %q: %v", token, solution, err)
		}
		if _, _, err := c.verify(purposeRegister, token, solution, 1, now); err == nil {
			t.Errorf("%q registers", token)
		}
	})
}

// FuzzCSR: what is taken is one request with a key that is allowed and one name, and gives a leaf of nothing else.
func FuzzCSR(f *testing.F) {
	key := p256()
	for _, s := range [][]byte{csrPEM("alice", key), csrPEM("a b", key), csrPEM("", key), []byte("x"),
		bytes.ReplaceAll(csrPEM("alice", key), []byte("BEGIN "), []byte("BEGIN NEW "))} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		csr, err := parseCSR(text)
		if code := toAPI(cmp.Or(err, errNotFound)).Code; err != nil && code != "bad_csr" && code != "too_large" {
			t.Errorf("%q: %v", text, err)
		}
		if err == nil && (!keyAllowed(csr.PublicKey) || csr.CheckSignature() != nil ||
			!certName.MatchString(csr.Subject.CommonName) || bytes.Count(text, []byte("-----BEGIN")) != 1) {
			t.Errorf("%q is taken", text)
		}
	})
}
