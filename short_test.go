package main

// Short URLs through the front door: what may be a target and what is sent for it, the service's own addresses in every
// disguise, options, work, limits, duplicates, lives, lists, deletion, and what is left on the disk afterwards.

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// shortened is a 201 of POST /s.
type shortened struct {
	ID          string `json:"id"`
	URL         string `json:"url"`
	Target      string `json:"target_url"`
	CreatedAt   int64  `json:"created_at"`
	ExpiresAt   int64  `json:"expires_at"`
	Owner       string `json:"owner"`
	DeleteToken string `json:"delete_token"`
}

// behindProxy makes a server that takes certificates and addresses from the test.
var behindProxy = []string{"TRUSTED_PROXIES=127.0.0.1", "PROXY_SECRET=secret-of-the-short-tests"}

// shownAs and sentFrom are the headers of a request that the proxy passes on: of a certificate's holder, from an address.
func shownAs(sha1 string, headers ...string) []string {
	return append([]string{"X-Proxy-Secret: secret-of-the-short-tests", "X-SSL-Client-SHA1: " + sha1}, headers...)
}

func sentFrom(addr string, headers ...string) []string {
	return append([]string{"X-Proxy-Secret: secret-of-the-short-tests", "X-Forwarded-For: " + addr}, headers...)
}

const (
	shortAlice = "a11ce0a11ce0a11ce0a11ce0a11ce0a11ce0a11c"
	shortBob   = "b0bb0bb0bb0bb0bb0bb0bb0bb0bb0bb0bb0bb0bb"
)

// shorten posts a body to /s.
func (ts *testServer) shorten(body string, headers ...string) *answer {
	ts.t.Helper()
	return ts.do("POST", "/s", strings.NewReader(body), headers...)
}

// short shortens a target and wants a 201.
func (ts *testServer) short(target string, headers ...string) (made shortened) {
	ts.t.Helper()
	a := ts.shorten(target, headers...).want(201, "")
	if err := json.Unmarshal([]byte(a.body), &made); err != nil {
		ts.t.Fatalf("answer %q: %v", a.body, err)
	}
	return made
}

// leadsTo wants a redirect of the short URL to a target.
func (ts *testServer) leadsTo(id, target string) {
	ts.t.Helper()
	if a := ts.get("/s/"+id).want(302, ""); a.Header.Get("Location") != target {
		ts.t.Errorf("Location %q, want %q", a.Header.Get("Location"), target)
	}
}

// shortRows wants exactly n short URLs in the database, and the totals to agree with them.
func (ts *testServer) shortRows(n int) {
	ts.t.Helper()
	var rows int
	var size, total int64
	err := ts.store.r.QueryRow("SELECT count(*), coalesce(sum(length(CAST(target AS BLOB))), 0), (SELECT bytes FROM totals) FROM shorts").Scan(&rows, &size, &total)
	if err != nil {
		ts.t.Fatal(err)
	}
	if rows != n || size != total || total != ts.store.used.Load() {
		ts.t.Errorf("%d short URLs of %d bytes are stored, the totals say %d bytes, in memory %d; want %d of them", rows, size, total, ts.store.used.Load(), n)
	}
}

// ---- targets ----

func TestShortTargetsTaken(t *testing.T) {
	ts := start(t)
	label := strings.Repeat("a", 63)
	for name, c := range map[string]struct{ in, out string }{
		"host alone":                 {"https://example.org", "https://example.org"},
		"case of scheme and host":    {"HTTPS://Example.ORG/A?b=C#D", "https://example.org/A?b=C#D"},
		"trailing dot":               {"http://example.org./x", "http://example.org./x"},
		"lowest port":                {"http://example.org:1/", "http://example.org:1/"},
		"highest port":               {"http://example.org:65535/", "http://example.org:65535/"},
		"IDN as xn--":                {"https://XN--bcher-kva.example/", "https://xn--bcher-kva.example/"},
		"IPv4":                       {"http://192.0.2.1:8080/x", "http://192.0.2.1:8080/x"},
		"IPv6":                       {"http://[2001:db8::1]/x", "http://[2001:db8::1]/x"},
		"IPv6 with port":             {"http://[2001:db8::1]:8443/x", "http://[2001:db8::1]:8443/x"},
		"IPv6, longer than needed":   {"http://[2001:DB8:0:0:0:0:0:1]/x", "http://[2001:db8::1]/x"},
		"digits in a name":           {"http://1.2.3.4.example.com/", "http://1.2.3.4.example.com/"},
		"0x in a name":               {"http://0x7f.example.com/", "http://0x7f.example.com/"},
		"longest label":              {"http://" + label + ".org/", "http://" + label + ".org/"},
		"query and fragment":         {"https://example.org/a;b?c;d=e&f#g", "https://example.org/a;b?c;d=e&f#g"},
		"empty query":                {"https://example.org/?", "https://example.org/?"},
		"a path that looks ours":     {"https://example.org/s/AAAAAAAA", "https://example.org/s/AAAAAAAA"},
		"URL in a query":             {"https://example.org/?u=https://user@127.1/", "https://example.org/?u=https://user@127.1/"},
		"at sign in the path":        {"https://example.org/@user", "https://example.org/@user"},
		"two slashes in the path":    {"https://example.org//x//y/../z", "https://example.org//x//y/../z"},
		"encoded slash":              {"https://example.org/a%2Fb", "https://example.org/a%2Fb"},
		"encoded newline in path":    {"https://example.org/%0d%0aSet-Cookie:%20a=b", "https://example.org/%0d%0aSet-Cookie:%20a=b"},
		"encoded newline in query":   {"https://example.org/?%0D%0AX:%20y", "https://example.org/?%0D%0AX:%20y"},
		"letters beyond ASCII":       {"https://example.org/é?é#é", "https://example.org/%C3%A9?%C3%A9#%C3%A9"},
		"beside an encoded slash":    {"https://example.org/a%2Fé/{x}", "https://example.org/a%2F%C3%A9/%7Bx%7D"},
		"right-to-left override":     {"https://example.org/?\u202egpj.exe", "https://example.org/?%E2%80%AEgpj.exe"},
		"what HTML would make of it": {`https://example.org/?"><script>`, "https://example.org/?%22%3E%3Cscript%3E"},
	} {
		t.Run(name, func(t *testing.T) {
			made := ts.short(c.in)
			if made.Target != c.out {
				t.Errorf("target_url %q, want %q", made.Target, c.out)
			}
			ts.leadsTo(made.ID, c.out)
		})
	}
}

func TestShortTargetsRefused(t *testing.T) {
	ts := start(t)
	long := "http://" + strings.Repeat(strings.Repeat("a", 62)+".", 4) + "aa" // 254
	for name, targets := range map[string][]string{
		"absolute http or https": {"javascript:alert(1)", "JavaScript://example.org/%0aalert(1)", "data:text/html,<script>", "data://example.org/x", "file:///etc/passwd", "file://example.org/x",
			"//example.org/x", "///example.org", "/s/AAAAAAAA", "example.org", "example.org:80/x", "http:example.org", "http:/example.org", "http://", "https:///x", "http://:80/", "http://?x", "http://#x",
			"ftp://example.org/", "gopher://example.org/", "view-source:http://example.org/", "blob:https://example.org/1", "url=https://example.org/", "http//example.org", "ht%74p://example.org/",
			"http://%65xample.org/", "http://example%2eorg/", "http://example.org%00.example.net/", "http://exam<ple.org/", "http://example.org:+80/", "http://example.org:8O/", "http://[::1/", "http://::1/", "http://[::1]x/",
			"http://[::1].example.org/", "http://[fe80::1%eth0]/", "http://[fe80::1%25]/", "http://[v1.x]/", "http://[::1::]/", "http://[12345::]/", "http://[:]/", "http://[::ffff:192.0.2.01]/", "http://[192.0.2.1]/", "http://[]/", "http://example.org/%", "http://example.org/%g0", "\ufeffhttp://example.org/"},
		"user name":   {"http://user@example.org/", "http://user:pw@example.org/", "http://@example.org/", "http://:@example.org/", "https://example.org:443@192.0.2.1/", "https://www.bank.example%2f@192.0.2.1/"},
		"a backslash": {`http:\\example.org`, `http://example.org\@192.0.2.1/`, `http://example.org/\x`, `\\example.org\x`, `https:/\example.org`, `http://user\@example.org`},
		"a blank": {" http://example.org/", "http://example.org/ ", "http://example.org/a b", "http://exam ple.org/", "http://example.org/\ta", "java\tscript:alert(1)", "\thttp://example.org/", "ht\ntp://example.org/",
			"http://example.org/\n", "http://example.org/\nx", "http://example.org/\r\nSet-Cookie: a=b", "http://example.org\r/", "http://example.org/\x00", "http://example.org/\x1b[0m", "http://example.org/\x7f",
			"http://example.org/\u0085", "http://example.org/\u00a0", "http://example.org/\u2028", "http://example.org/\u3000", "http://example.org/\v", "http://example.org/\xff", "http://example.org/\xc0\xaf", "http://example.org/\xed\xa0\x80"},
		"port": {"http://example.org:/", "http://example.org:0/", "http://example.org:00/", "http://example.org:65536/", "http://example.org:99999999999999999999/", "http://[::1]:/", "http://[::1]:0/"},
		"xn--": {"http://bücher.example/", "http://例え.example/", "http://example。org/", "http://ＥＸＡＭＰＬＥ.org/", "http://１２７.0.0.1/", "http://\u212aelvin.example/", "http://%E2%84%AAelvin.example/", "http://b%C3%BCcher.example/", "http://ex\u200bample.org/", "http://ex\u00adample.org/"},
		"no host name": {"http://example..org/", "http://.example.org/", "http://./", "http://-example.org/", "http://example-.org/", "http://ex_ample.org/", "http://*.example.org/", "http://example.org../", long + "/",
			"http://" + strings.Repeat("a", 64) + ".org/", "http://a,b.example/", "http://a;b.example/", "http://a&b.example/", "http://a'b.example/", "http://a!b.example/", "http://a$b/", "http://a=b/"},
		"no IPv6 address": {"http://[::1%25eth0]/", "http://[fe80::1%25lo]:80/"},
		"four decimal numbers": {"http://0177.0.0.1/", "http://127.0.0.01/", "http://0x7f.0.0.1/", "http://0x7f000001/", "http://0X7F000001/", "http://127.0.0.0x1/", "http://2130706433/", "http://017700000001/", "http://127.1/",
			"http://127.0.1/", "http://127.0.0.1.1/", "http://256.0.0.1/", "http://0/", "http://0x/", "http://1.2.3.4./", "http://example.1/", "http://example.0x1f/", "http://example.0x/", "http://99999999999/"},
	} {
		for _, target := range targets {
			t.Run(name+"/"+strconv.QuoteToASCII(target), func(t *testing.T) {
				body, err := json.Marshal(map[string]string{"url": target})
				if err != nil {
					t.Fatal(err)
				}
				if !utf8.ValidString(target) {
					body = nil // no JSON can say it
				}
				for kind, a := range map[string]*answer{"raw": ts.shorten(target + "\n"), "JSON": ts.shorten(string(body), "Content-Type: application/json")} {
					if body == nil && kind == "JSON" {
						continue
					}
					a.want(400, "bad_url")
					if !strings.Contains(a.field("error"), name) {
						t.Errorf("%s: error %q does not speak of %q", kind, a.field("error"), name)
					}
				}
			})
		}
	}
	ts.shortRows(0)
}

// TestShortLength: the bound is on the bytes that come in and on those that are sent.
func TestShortLength(t *testing.T) {
	ts := start(t)
	fits := "https://example.org/" + strings.Repeat("a", 2048-len("https://example.org/"))
	if made := ts.short(fits); len(made.Target) != 2048 {
		t.Errorf("%d bytes were stored", len(made.Target))
	}
	ts.short(fits + "\r\n") // what an editor adds is no part of it
	ts.shorten(fits+"a").want(400, "bad_url")
	ts.shorten(fits+"\n\n").want(400, "bad_url")
	ts.shorten(`{"url": "`+fits+`a"}`, "Content-Type: application/json").want(400, "bad_url")
	grows := "https://example.org/" + strings.Repeat("é", 1000) // 2,020 bytes, encoded 6,020
	if a := ts.shorten(grows).want(400, "bad_url"); !strings.Contains(a.field("error"), "2048") {
		t.Errorf("error %q does not name the limit", a.field("error"))
	}
	ts.shortRows(2)
	small := start(t, "SHORT_URL_MAX=24")
	small.short("https://example.org/1234")
	small.shorten("https://example.org/12345").want(400, "bad_url")
	small.shortRows(1)
}

// TestShortOwnAddress: no short URL may lead to another, whatever its address is dressed up as.
func TestShortOwnAddress(t *testing.T) {
	paths := []string{"/p/s/AAAAAAAA", "/p/s/AAAAAAAA/info", "/p/s/AAAAAAAA?x", "/p/s/AAAAAAAA#x", "/p//s/AAAAAAAA", "//p/s/AAAAAAAA", "/p/./s/AAAAAAAA", "/p/x/../s/AAAAAAAA", "/x/../p/s/AAAAAAAA", "/../p/s/AAAAAAAA",
		"/%70/s/AAAAAAAA", "/p/%73/AAAAAAAA", "/p%2fs%2FAAAAAAAA", "/p/%2e/s/AAAAAAAA", "/p/x/%2E%2e/s/AAAAAAAA", "/p/s/%41AAAAAAA", "/p/s/./AAAAAAAA", "/p/s//AAAAAAAA", "/p/s/x%00", "/p/x%2f..%2fs/AAAAAAAA"}
	for name, c := range map[string]struct {
		public, host string // PUBLIC_URL, the request's Host
		hosts        []string
	}{
		"PUBLIC_URL": {"https://paste.example.org", "", []string{"https://paste.example.org", "http://paste.example.org", "https://PASTE.Example.ORG", "https://paste.example.org.", "https://paste.example.org:8443",
			"https://paste.example.org:443", "https://Paste.example.org.:1"}},
		"PUBLIC_URL in capitals": {"https://Paste.Example.org.:8443", "", []string{"https://paste.example.org", "https://paste.example.org.:8443"}},
		"Host":                   {"", "paste.example.org:5000", []string{"http://paste.example.org:5000", "http://paste.example.org", "https://paste.example.org.", "http://pASTE.example.org:81"}},
		"Host with a dot":        {"", "Paste.example.org.", []string{"http://paste.example.org", "http://paste.example.org."}},
		"Host beside PUBLIC_URL": {"https://paste.example.org", "backend.example.net", []string{"https://paste.example.org", "http://backend.example.net", "http://backend.example.net:5000"}},
		"IPv4":                   {"", "192.0.2.1:5000", []string{"http://192.0.2.1:5000", "http://192.0.2.1", "http://[::ffff:192.0.2.1]", "http://[::ffff:c000:201]:5000"}},
		"IPv6":                   {"", "[2001:db8::1]:5000", []string{"http://[2001:db8::1]:5000", "http://[2001:DB8::1]", "http://[2001:db8:0:0:0:0:0:1]", "http://[2001:0db8::0001]:80"}},
		"IPv6 spelled out":       {"http://[2001:db8:0::1]", "", []string{"http://[2001:db8::1]"}},
	} {
		t.Run(name, func(t *testing.T) {
			ts := start(t, "URL_PREFIX=/p", "PUBLIC_URL="+c.public)
			var headers []string
			if c.host != "" {
				headers = []string{"Host: " + c.host}
			}
			for i, host := range c.hosts {
				for j, path := range paths {
					if i > 0 && j > 2 { // each host once with each path would only be slow
						break
					}
					if a := ts.shorten(host+path, headers...); a.StatusCode != 400 || !strings.Contains(a.field("error"), "short URL already") {
						t.Errorf("%s: status %d, %s", host+path, a.StatusCode, a.body)
					}
				}
			}
			ts.shortRows(0)
			base := c.hosts[0]
			others := []string{base + "/p/0123456789abcdef/raw", base + "/p/s", base + "/s/AAAAAAAA", base + "/p/sx/AAAAAAAA", base + "/p/S/AAAAAAAA", base + "/p/x?y=/p/s/AAAAAAAA", base + "/p/%2573/AAAAAAAA",
				"https://other.example/p/s/AAAAAAAA", strings.Replace(base, "://", "://www.", 1) + "/p/s/AAAAAAAA"}
			if strings.Contains(base, "[") || strings.Contains(base, "192") {
				others = others[:len(others)-1]
			}
			for _, target := range others {
				ts.short(target, headers...)
			}
			ts.shortRows(len(others))
		})
	}
	t.Run("a Host that is none", func(t *testing.T) { // HTTP/1.0 has none at all
		ts := start(t, "PUBLIC_URL=https://paste.example.org")
		c := dialServer(t, ts)
		body := "https://paste.example.org/s/AAAAAAAA"
		fmt.Fprintf(c, "POST /s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		if got, _ := io.ReadAll(c); !bytes.Contains(got, []byte("short URL already")) {
			t.Errorf("answer %.300q", got)
		}
		ts.shortRows(0)
	})
}

// dialServer opens a connection for requests written by hand.
func dialServer(t testing.TB, ts *testServer) net.Conn {
	t.Helper()
	u, err := url.Parse(ts.url)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c
}

// TestShortHosts: with an allow-list nothing else is a target.
func TestShortHosts(t *testing.T) {
	ts := start(t, "SHORT_URL_HOSTS=Example.org, *.example.net")
	taken := []string{"https://example.org/x", "http://EXAMPLE.org:8080/", "https://example.org./", "https://a.example.net/", "https://a.b.example.net./x"}
	for _, target := range taken {
		ts.short(target)
	}
	for _, target := range []string{"https://www.example.org/", "https://example.net/", "https://.example.net/", "https://xexample.org/", "https://example.org.evil.example/", "https://aexample.net/", "https://evil.example/?example.org",
		"https://evil.example/#.example.net", "https://192.0.2.1/", "https://[2001:db8::1]/", "https://example.com/"} {
		ts.shorten(target).want(400, "bad_url")
	}
	ts.shortRows(len(taken))
	for _, list := range []string{"example.org,", "*", "*.", "a.*.b", "exa mple.org", "http://example.org", "example.org:80", "bücher.example", "example.org.", "**.example.org"} {
		if _, err := loadConfig([]string{"FLASKPASTE_SHORT_URL_HOSTS=" + list}); err == nil {
			t.Errorf("the list %q was taken", list)
		}
	}
}

// TestShortLocationOnTheWire reads the bytes of a redirect: one Location, nothing smuggled in.
func TestShortLocationOnTheWire(t *testing.T) {
	ts := start(t)
	target := "https://example.org/%0d%0aSet-Cookie:%20a=b?%0aX:%20y#%0D%0A"
	made := ts.short(target)
	c := dialServer(t, ts)
	fmt.Fprintf(c, "GET /s/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", made.ID)
	raw, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(raw), "\r\n\r\n")
	if body != "" || strings.Count(head, "Location:") != 1 || !strings.Contains(head, "\r\nLocation: "+target+"\r\n") || strings.Contains(head, "\r\nSet-Cookie") || strings.Contains(head, "\r\nX:") {
		t.Errorf("answer %q", raw)
	}
}

// FuzzTarget: whatever is taken is its own parse, and nothing in it can be read in two ways.
func FuzzTarget(f *testing.F) {
	for _, v := range []string{"https://example.org/a?b#c", "HTTP://[2001:DB8::1]:80/%2f/é?é#é", "http://1.2.3.4./", "http://a:b@c/", `http:\\x`, "http://x/\r\nY: z", "http://example.org//s/x", "http://e/#a#b", "http://e/a%2Fb{}", "http://\u212a/", "javascript://e/%0a",
		"http://own.example/../s/x", "http://[::ffff:1.2.3.4]/", "http://0x7f.1/", "http://e:080?", "http://e/?%zz&;", "http://xn--a.example./@:"} {
		f.Add(v)
	}
	s := &server{cfg: &config{shortMax: 2048, prefix: ""}}
	own := []string{"own.example", "192.0.2.1"}
	f.Fuzz(func(t *testing.T, v string) {
		out, err := s.parseTarget(v, own)
		if err != nil {
			if out != "" {
				t.Fatalf("%q: refused, and %q came out", v, out)
			}
			return
		}
		if again, err := s.parseTarget(out, own); err != nil || again != out {
			t.Fatalf("%q gives %q, and that %q, %v", v, out, again, err)
		}
		u, err := url.Parse(out)
		if err != nil || u.String() != out {
			t.Fatalf("%q is not as its parse writes it: %v", out, err)
		}
		switch {
		case u.Scheme != "http" && u.Scheme != "https", !strings.HasPrefix(out, u.Scheme+"://"), u.Opaque != "", u.Hostname() == "":
			t.Fatalf("%q is no absolute http URL", out)
		case u.User != nil, strings.Contains(u.Host, "@"):
			t.Fatalf("%q has a user", out)
		case strings.ToLower(u.Host) != u.Host, len(out) > 2048:
			t.Fatalf("%q: capitals in the host, or too long", out)
		case strings.HasPrefix(u.Path, "/s/") && (strings.TrimSuffix(u.Hostname(), ".") == "own.example" || u.Hostname() == "192.0.2.1"):
			t.Fatalf("%q is our own", out)
		}
		if i := strings.IndexFunc(out, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("\\\"<>^`{|}", r) }); i >= 0 {
			t.Fatalf("%q has the byte %#x", out, out[i])
		}
		if port := u.Port(); port != "" {
			if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
				t.Fatalf("%q has the port %q", out, port)
			}
		}
		// The whole way: what a client would be told.
		h := http.Header{"Location": {out}}
		var wire bytes.Buffer
		h.Write(&wire)
		if wire.String() != "Location: "+out+"\r\n" {
			t.Fatalf("%q becomes %q on the wire", out, wire.String())
		}
	})
}

// ---- creating ----

func TestShortCreate(t *testing.T) {
	ts := start(t, "URL_PREFIX=/p")
	for name, a := range map[string]*answer{
		"raw":              ts.shorten("https://example.org/x"),
		"raw with newline": ts.shorten("https://example.org/x\n"),
		"raw with CRLF":    ts.shorten("https://example.org/x\r\n"),
		"curl -d":          ts.shorten("https://example.org/x", "Content-Type: application/x-www-form-urlencoded"),
		"JSON":             ts.shorten(`{"url": "https:\/\/example.org\/x"}`, "Content-Type: application/json"),
		"JSON, parameters": ts.shorten(`{"expiry":"1d","url":"https://example.org/x"}`, "Content-Type: Application/JSON; charset=utf-8"),
	} {
		t.Run(name, func(t *testing.T) {
			a.want(201, "")
			var made map[string]any
			if err := json.Unmarshal([]byte(a.body), &made); err != nil {
				t.Fatal(err)
			}
			keys := []string{"created_at", "delete_token", "expires_at", "id", "target_url", "url"}
			if got := slices.Sorted(maps.Keys(made)); !slices.Equal(got, keys) {
				t.Errorf("members %v, want %v", got, keys)
			}
			id := a.field("id")
			if !shortIDShape.MatchString(id) || a.field("url") != "/p/s/"+id || a.Header.Get("Location") != "/p/s/"+id || a.field("target_url") != "https://example.org/x" {
				t.Errorf("answer %s, Location %q", a.body, a.Header.Get("Location"))
			}
			if token := a.Header.Get("X-Delete-Token"); len(token) != 43 || token != a.field("delete_token") {
				t.Errorf("X-Delete-Token %q, delete_token %q", token, a.field("delete_token"))
			}
			if life := ts.int(a, "expires_at") - ts.int(a, "created_at"); life != 86400 {
				t.Errorf("it lives %d s, want a day", life)
			}
			if a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Content-Type") != "application/json" {
				t.Errorf("headers %v", a.Header)
			}
			ts.leadsTo(id, "https://example.org/x")
		})
	}
	// The token is kept as its hash alone, and what was stored is no secret of ours: no answer repeats it.
	a := ts.shorten("https://example.org/y")
	if info := ts.get("/s/" + a.field("id") + "/info"); strings.Contains(info.body, a.field("delete_token")) || strings.Contains(strings.ReplaceAll(info.body, a.field("id"), ""), "token") {
		t.Errorf("the token is shown again: %s", info.body)
	}
	if strings.Contains(ts.logs.String(), "example.org") || strings.Contains(ts.logs.String(), a.field("id")) {
		t.Errorf("target or id in the log: %s", ts.logs)
	}
}

// int returns a member of an answer that must be a whole number.
func (ts *testServer) int(a *answer, name string) int64 {
	ts.t.Helper()
	n, err := strconv.ParseInt(a.field(name), 10, 64)
	if err != nil {
		ts.t.Fatalf("%s of %s: %v", name, a.body, err)
	}
	return n
}

func TestShortAsText(t *testing.T) {
	ts := start(t, "URL_PREFIX=/p", "PUBLIC_URL=https://paste.example.org")
	a := ts.shorten("https://example.org/x", "Accept: text/plain").want(201, "")
	id, ok := strings.CutPrefix(strings.TrimSuffix(a.body, "\n"), "https://paste.example.org/p/s/")
	if !ok || !shortIDShape.MatchString(id) || strings.Count(a.body, "\n") != 1 || a.Header.Get("Content-Type") != "text/plain; charset=utf-8" || a.Header.Get("X-Delete-Token") == "" {
		t.Errorf("answer %q, headers %v", a.body, a.Header)
	}
	ts.leadsTo(id, "https://example.org/x")
	if a := ts.shorten("http://user@example.org/", "Accept: text/plain").want(400, ""); !strings.HasPrefix(a.body, "error: ") || a.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("refusal %q", a.body)
	}
	host := start(t)
	if a := host.shorten("https://example.org/x", "Accept: text/plain", "Host: p.example:81"); !strings.HasPrefix(a.body, "http://p.example:81/s/") {
		t.Errorf("answer %q", a.body)
	}
}

func TestShortJSONStrictness(t *testing.T) {
	ts := start(t)
	for name, c := range map[string]struct{ body, code string }{
		"unknown member":        {`{"url": "https://example.org/", "x": 1}`, "bad_json"},
		"a paste's member":      {`{"url": "https://example.org/", "burn_after_read": true}`, "bad_json"},
		"content instead":       {`{"content": "https://example.org/"}`, "bad_json"},
		"repeated member":       {`{"url": "https://example.org/", "url": "https://example.net/"}`, "bad_json"},
		"repeated by an escape": {`{"url": "https://example.org/", "\u0075rl": "https://example.net/"}`, "bad_json"},
		"other case":            {`{"URL": "https://example.org/"}`, "bad_json"},
		"number":                {`{"url": 1}`, "bad_json"},
		"null":                  {`{"url": null}`, "bad_json"},
		"list":                  {`{"url": ["https://example.org/"]}`, "bad_json"},
		"object":                {`{"url": {"url": "https://example.org/"}}`, "bad_json"},
		"a list around":         {`[{"url": "https://example.org/"}]`, "bad_json"},
		"a string alone":        {`"https://example.org/"`, "bad_json"},
		"something behind":      {`{"url": "https://example.org/"} {}`, "bad_json"},
		"cut short":             {`{"url": "https://example.org/"`, "bad_json"},
		"trailing comma":        {`{"url": "https://example.org/",}`, "bad_json"},
		"comment":               {`{"url": "https://example.org/" /* */}`, "bad_json"},
		"no UTF-8":              {"{\"url\": \"https://example.org/\xff\"}", "bad_json"},
		"lone surrogate":        {`{"url": "https://example.org/\ud800"}`, "bad_json"},
		"raw newline":           {"{\"url\": \"https://example.org/\n\"}", "bad_json"},
		"escaped newline":       {`{"url": "https://example.org/\n"}`, "bad_url"},
		"escaped NUL":           {`{"url": "https://example.org/\u0000"}`, "bad_url"},
		"empty URL":             {`{"url": ""}`, "empty_content"},
		"no URL":                {`{}`, "empty_content"},
		"expiry alone":          {`{"expiry": 60}`, "empty_content"},
		"nothing":               {``, "bad_json"},
		"null expiry":           {`{"url": "https://example.org/", "expiry": null}`, "bad_json"},
		"false expiry":          {`{"url": "https://example.org/", "expiry": false}`, "bad_json"},
		"negative expiry":       {`{"url": "https://example.org/", "expiry": -1}`, "bad_expiry"},
		"broken expiry":         {`{"url": "https://example.org/", "expiry": 1.5}`, "bad_expiry"},
		"exponent":              {`{"url": "https://example.org/", "expiry": 1e3}`, "bad_expiry"},
		"zero expiry":           {`{"url": "https://example.org/", "expiry": 0}`, "bad_expiry"},
		"empty expiry":          {`{"url": "https://example.org/", "expiry": ""}`, "bad_expiry"},
	} {
		t.Run(name, func(t *testing.T) {
			a := ts.shorten(c.body, "Content-Type: application/json").want(400, c.code)
			if c.code == "bad_json" && !strings.Contains(a.field("hint"), "url") {
				t.Errorf("the hint %q does not show the form", a.field("hint"))
			}
		})
	}
	ts.shorten("").want(400, "empty_content")
	ts.shorten("\n").want(400, "empty_content")
	ts.shorten(`{"url": "https://example.org/`+strings.Repeat("a", 1<<20)+`"}`, "Content-Type: application/json").want(413, "too_large")
	ts.shorten("--x\r\nContent-Disposition: form-data; name=url\r\n\r\nhttps://example.org/\r\n--x--\r\n", "Content-Type: multipart/form-data; boundary=x").want(400, "bad_url")
	ts.shorten("https://example.org/", "Content-Encoding: gzip").want(415, "unsupported_encoding")
	ts.shortRows(0)
}

// TestShortBodyUntouched: a body that is announced too long is refused before any of it is asked for.
func TestShortBodyUntouched(t *testing.T) {
	ts := start(t)
	for name, c := range map[string]struct {
		header string
		status string
	}{
		"raw":  {"Content-Length: 10000", "400"},
		"JSON": {"Content-Type: application/json\r\nContent-Length: 1048577", "413"},
	} {
		t.Run(name, func(t *testing.T) {
			c2 := dialServer(t, ts)
			fmt.Fprintf(c2, "POST /s HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n%s\r\n\r\n", c.header)
			line, err := bufio.NewReader(c2).ReadString('\n')
			if err != nil || !strings.HasPrefix(line, "HTTP/1.1 "+c.status) {
				t.Errorf("answer %q, %v", line, err)
			}
		})
	}
	ts.shortRows(0)
}

func TestShortOptions(t *testing.T) {
	ts := start(t, append(behindProxy, "MAX_EXPIRY=30d")...)
	const day = 86400
	for name, c := range map[string]struct {
		life    int64
		body    string
		headers []string
	}{
		"anonymous":                 {day, "https://example.org/", nil},
		"asked for":                 {3600, "https://example.org/", []string{"X-Expiry: 1h"}},
		"anonymous, clamped":        {7 * day, "https://example.org/", []string{"X-Expiry: 8d"}},
		"a certificate":             {7 * day, "https://example.org/", shownAs(shortAlice)},
		"a certificate, MAX_EXPIRY": {30 * day, "https://example.org/", shownAs(shortAlice, "X-Expiry: 49d")},
		"JSON number":               {90, `{"url": "https://example.org/", "expiry": 90}`, []string{"Content-Type: application/json"}},
		"JSON string":               {129600, `{"url": "https://example.org/", "expiry": "1d12h"}`, []string{"Content-Type: application/json"}},
		"both, the same":            {90, `{"url": "https://example.org/", "expiry": "90s"}`, []string{"Content-Type: application/json", "X-Expiry: 90"}},
	} {
		t.Run(name, func(t *testing.T) {
			if made := ts.short(c.body, c.headers...); made.ExpiresAt-made.CreatedAt != c.life {
				t.Errorf("it lives %d s, want %d", made.ExpiresAt-made.CreatedAt, c.life)
			}
		})
	}
	at := time.Now().Add(2 * time.Hour).Unix()
	if made := ts.short("https://example.org/", "X-Expiry: @"+strconv.FormatInt(at, 10)); made.ExpiresAt != at {
		t.Errorf("it expires at %d, want %d", made.ExpiresAt, at)
	}
	const taken = 9
	ts.shortRows(taken)
	for header, code := range map[string]string{"X-Expiry: 0": "bad_expiry", "X-Expiry: -1": "bad_expiry", "X-Expiry: soon": "bad_expiry", "X-Expiry: @1": "bad_expiry", "X-Expiry: ": "bad_expiry",
		"X-Burn-After-Read: true": "bad_option", "X-Burn-After-Read: false": "bad_option", "X-Burn-After-Read: maybe": "bad_option", "X-Paste-Password: x": "bad_option",
		"X-Read-Proof-SHA256: " + strings.Repeat("0", 64): "bad_option", "X-Display-Name: x": "bad_display_name"} {
		ts.shorten("https://example.org/", header).want(400, code)
	}
	ts.shorten("https://example.org/", shownAs(shortAlice, "X-Display-Name: x")...).want(400, "bad_option")
	ts.shorten("https://example.org/", "X-Expiry: 1h", "X-Expiry: 2h").want(400, "bad_option")
	ts.shorten(`{"url": "https://example.org/", "expiry": 60}`, "Content-Type: application/json", "X-Expiry: 90").want(400, "bad_option")
	ts.shortRows(taken)
}

// TestShortRefusalsInOrder: who may not create learns that before anything else is looked at.
func TestShortRefusalsInOrder(t *testing.T) {
	ts := start(t, append(behindProxy, "REQUIRE_CERT=any")...)
	ts.shorten("nonsense", "X-Expiry: nonsense").want(401, "certificate_required")
	ts.short("https://example.org/", shownAs(shortAlice)...)
	ts.shorten("https://example.org/", "Origin: https://evil.example").want(403, "cross_origin")
	ts.do("PUT", "/s", strings.NewReader("https://example.org/"), shownAs(shortAlice)...).want(201, "") // a paste: any name that is no id
	if a := ts.do("PATCH", "/s", nil).want(405, "method_not_allowed"); a.Header.Get("Allow") != "DELETE, GET, HEAD, POST, PUT" {
		t.Errorf("Allow %q", a.Header.Get("Allow"))
	}
	trusted := start(t, append(behindProxy, "REQUIRE_CERT=trusted")...)
	trusted.shorten("https://example.org/", shownAs(shortAlice)...).want(401, "certificate_required")
	trusted.shortRows(0)
}

// TestShortIDs: every letter of the alphabet as often as any other.
func TestShortIDs(t *testing.T) {
	const n = 20_000
	seen, letters := map[string]bool{}, map[rune]int{}
	for range n {
		id := newShortID()
		if !shortIDShape.MatchString(id) {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
		for _, r := range id {
			letters[r]++
		}
	}
	if len(seen) < n-1 { // two alike come by chance, once in a million times; twice so not in a trillion
		t.Errorf("%d of %d ids are another's", n-len(seen), n)
	}
	even := float64(n*shortIDLength) / 62 // a plain modulo would give eight letters 21% more, the others 3% less
	for r, got := range letters {
		if math.Abs(float64(got)-even) > 0.15*even { // 7.7 standard deviations
			t.Errorf("%q was drawn %d times, want about %.0f", r, got, even)
		}
	}
	if len(letters) != 62 {
		t.Errorf("%d letters", len(letters))
	}
}

// ---- work, limits, duplicates, space ----

func TestShortWork(t *testing.T) {
	ts := start(t, "POW_DIFFICULTY=8", "POW_FREE=1")
	ts.shorten("http://user@example.org/").want(400, "bad_url") // a creation that fails takes no allowance
	ts.short("https://example.org/")
	p := ts.shorten("https://example.org/").want(400, "pow_required").puzzle()
	if p.Difficulty != 8 {
		t.Fatalf("%+v", p)
	}
	proof := p.solve(t)
	ts.shorten("http://user@example.org/", proof...).want(400, "bad_url") // and spends no proof
	ts.shorten("https://example.org/", proof[0], p.wrong()).want(400, "pow_failed")
	ts.shorten("https://example.org/", proof[1]).want(400, "pow_failed")
	ts.short("https://example.org/", proof...)
	ts.shorten("https://example.org/", proof...).want(400, "pow_failed")
	ts.post("a paste", proof...).want(400, "pow_failed") // one purpose: creating
	proof = ts.shorten("https://example.org/").want(400, "pow_required").puzzle().solve(t)
	ts.create("a paste", proof...)
	ts.shorten("https://example.org/", proof...).want(400, "pow_failed")
	var rows int
	if err := ts.store.r.QueryRow("SELECT count(*) FROM shorts").Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d short URLs, %v", rows, err)
	}
	// One proof, many askers: one wins.
	proof = ts.shorten("https://example.org/").want(400, "pow_required").puzzle().solve(t)
	var wg sync.WaitGroup
	var won sync.Map
	for i := range 8 {
		wg.Go(func() {
			if a := ts.shorten("https://example.org/"+strconv.Itoa(i), proof...); a.StatusCode == 201 {
				won.Store(i, true)
			} else if a.field("code") != "pow_failed" {
				t.Errorf("status %d: %s", a.StatusCode, a.body)
			}
		})
	}
	wg.Wait()
	n := 0
	won.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("one proof made %d short URLs", n)
	}
}

func TestShortFlood(t *testing.T) {
	ts := start(t, append(behindProxy, "POW_DIFFICULTY=4", "POW_FREE=100", "ANTIFLOOD_THRESHOLD=3", "ANTIFLOOD_MAX=6")...)
	for i := range 3 {
		ts.short("https://example.org/", sentFrom("203.0.113."+strconv.Itoa(i+1))...)
	}
	if a := ts.get("/challenge"); a.field("difficulty") != "6" || a.field("elevated") != "true" {
		t.Errorf("after a flood of short URLs the challenge is %s", a.body)
	}
}

func TestShortLimits(t *testing.T) {
	t.Run("creations", func(t *testing.T) {
		ts := start(t, append(behindProxy, "RATE_CREATE=2/h")...)
		a := ts.shorten("https://example.org/", sentFrom("203.0.113.1")...).want(201, "")
		if a.Header.Get("X-RateLimit-Limit") != "2" || a.Header.Get("X-RateLimit-Remaining") != "1" || a.Header.Get("X-RateLimit-Reset") == "" {
			t.Errorf("headers %v", a.Header)
		}
		ts.shorten("http://user@example.org/", sentFrom("203.0.113.1")...).want(400, "bad_url")
		if a := ts.shorten("https://example.org/", sentFrom("203.0.113.1")...).want(429, "rate_limited"); a.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		ts.do("DELETE", "/s/AAAAAAAA", nil, sentFrom("203.0.113.1")...).want(429, "rate_limited")
		ts.short("https://example.org/", sentFrom("203.0.113.2")...)
		ts.shortRows(2)
	})
	t.Run("reads", func(t *testing.T) {
		ts := start(t, append(behindProxy, "RATE_READ=2/h")...)
		made := ts.short("https://example.org/")
		for range 2 {
			ts.get("/s/"+made.ID, sentFrom("203.0.113.1")...).want(302, "")
		}
		if a := ts.get("/s/"+made.ID, sentFrom("203.0.113.1")...).want(429, "rate_limited"); a.Header.Get("Location") != "" {
			t.Error("a refusal leads on")
		}
	})
	t.Run("misses", func(t *testing.T) { // ids can't be guessed: when the misses are used up, a hit looks like another
		ts := start(t, append(behindProxy, "RATE_MISS=2/h")...)
		made := ts.short("https://example.org/")
		ts.get("/s/AAAAAAAA", sentFrom("203.0.113.1")...).want(404, "not_found")
		ts.get("/s/AAAAAAAA/info", sentFrom("203.0.113.1")...).want(404, "not_found")
		for _, path := range []string{"/s/AAAAAAAA", "/s/" + made.ID, "/s/" + made.ID + "/info"} {
			ts.get(path, sentFrom("203.0.113.1")...).want(429, "rate_limited")
		}
		ts.do("DELETE", "/s/"+made.ID, nil, sentFrom("203.0.113.1", "X-Delete-Token: "+made.DeleteToken)...).want(429, "rate_limited")
		ts.get("/s/"+made.ID, sentFrom("203.0.113.2")...).want(302, "")
		ts.shortRows(1)
	})
	t.Run("wrong tokens", func(t *testing.T) {
		ts := start(t, append(behindProxy, "RATE_AUTH=2/h")...)
		made := ts.short("https://example.org/")
		for range 2 {
			ts.do("DELETE", "/s/"+made.ID, nil, sentFrom("203.0.113.1", "X-Delete-Token: wrong")...).want(403, "not_owner")
		}
		ts.do("DELETE", "/s/"+made.ID, nil, sentFrom("203.0.113.1", "X-Delete-Token: "+made.DeleteToken)...).want(429, "rate_limited")
		ts.shortRows(1)
	})
	t.Run("bytes", func(t *testing.T) {
		ts := start(t, append(behindProxy, "RATE_BYTES=100/h")...)
		target := "https://example.org/" + strings.Repeat("a", 60) // 80 bytes
		ts.short(target, sentFrom("203.0.113.1")...)
		ts.shorten(target, sentFrom("203.0.113.1")...).want(429, "rate_limited")
		ts.short("https://example.org/", sentFrom("203.0.113.1")...) // the refused one cost nothing
		ts.short(target, sentFrom("203.0.113.2")...)
	})
	t.Run("storage", func(t *testing.T) { // anonymous clients may fill three quarters
		ts := start(t, append(behindProxy, "MAX_STORAGE=100", "RATE_BYTES=100/h")...)
		made := ts.short("https://example.org/" + strings.Repeat("a", 40))
		if a := ts.shorten("https://example.org/").want(503, "storage_full"); a.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		ts.shortRows(1)
		ts.do("DELETE", "/s/"+made.ID, nil, "X-Delete-Token: "+made.DeleteToken).want(200, "")
		ts.short("https://example.org/" + strings.Repeat("b", 20)) // 40 bytes: what could not be stored was given back
		ts.shortRows(1)
	})
	t.Run("slots", func(t *testing.T) {
		ts := start(t, append(behindProxy, "MAX_UPLOADS=1")...)
		c := dialServer(t, ts)
		fmt.Fprint(c, "POST /s HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\nhttps://")
		eventually(t, "the slot is taken", func() bool { return ts.uploads.inUse() == 1 })
		if a := ts.shorten("https://example.org/").want(429, "too_many_transfers"); a.Header.Get("Retry-After") != "5" {
			t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
		}
		fmt.Fprint(c, "example.org/")
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 201") {
			t.Errorf("the slow one got %q, %v", line, err)
		}
		ts.short("https://example.org/")
		ts.shortRows(2)
	})
}

func TestShortDuplicates(t *testing.T) {
	ts := start(t, append(behindProxy, "DEDUP_MAX=2", "DEDUP_ALL=4", "DEDUP_WINDOW=1h")...)
	const target = "https://example.org/same"
	for range 2 {
		ts.short(target, sentFrom("203.0.113.1")...)
	}
	// Another spelling of the same target is the same target.
	a := ts.shorten("HTTPS://EXAMPLE.ORG/same\n", sentFrom("203.0.113.1")...).want(429, "duplicate_content")
	if retry := a.Header.Get("Retry-After"); a.field("count") != "2" || a.field("window_seconds") != "3600" || retry == "" || retry == "0" {
		t.Errorf("Retry-After %q: %s", retry, a.body)
	}
	for range 2 {
		ts.create(target, sentFrom("203.0.113.1")...) // a paste of the same text is another content
	}
	ts.post(target, sentFrom("203.0.113.1")...).want(429, "duplicate_content")
	for _, addr := range []string{"203.0.113.2", "203.0.113.3"} {
		ts.short(target, sentFrom(addr)...)
	}
	ts.shorten(target, sentFrom("203.0.113.4")...).want(429, "duplicate_content")
	ts.short(target+"2", sentFrom("203.0.113.4")...)
	ts.clock.advance(time.Hour + 2*time.Second)
	ts.short(target, sentFrom("203.0.113.1")...)
}

// ---- following, showing ----

func TestShortRedirect(t *testing.T) {
	ts := start(t)
	made := ts.short("https://example.org/x?y#z")
	for _, method := range []string{"GET", "HEAD"} {
		for range 2 { // from the database, then from the cache
			a := ts.do(method, "/s/"+made.ID, nil).want(302, "")
			h := a.Header
			if a.body != "" || h.Get("Location") != "https://example.org/x?y#z" || h.Get("Cache-Control") != "no-store" || h.Get("Content-Length") != "0" || h.Get("Referrer-Policy") != "no-referrer" ||
				h["Etag"] != nil || h["Content-Type"] != nil || h["Set-Cookie"] != nil {
				t.Errorf("%s: %v, body %q", method, h, a.body)
			}
		}
	}
	if n := ts.metrics.shorts.read.Load(); n != 4 {
		t.Errorf("%d redirects were counted", n)
	}
	// Conditions and ranges change nothing: there is no content.
	ts.get("/s/"+made.ID, "Range: bytes=0-1", "If-None-Match: *", "If-Modified-Since: "+time.Now().UTC().Format(http.TimeFormat)).want(302, "")
	ts.do("POST", "/s/"+made.ID, nil).want(405, "method_not_allowed")
}

// TestShortOneNotFound: a stranger can't tell why there is nothing.
func TestShortOneNotFound(t *testing.T) {
	ts := start(t)
	deleted := ts.short("https://example.org/")
	ts.leadsTo(deleted.ID, "https://example.org/")
	ts.do("DELETE", "/s/"+deleted.ID, nil, "X-Delete-Token: "+deleted.DeleteToken).want(200, "")
	expired := ts.short("https://example.org/", "X-Expiry: 60")
	ts.leadsTo(expired.ID, "https://example.org/")
	ts.clock.advance(time.Minute)
	paste := ts.create("x")
	alive := ts.short("https://example.org/")
	wire := func(method, path string) string {
		a := ts.do(method, path, nil, "X-Request-ID: same").want(404, "")
		a.Header.Del("Date")
		return fmt.Sprintf("%v %s", a.Header, a.body)
	}
	want := wire("GET", "/nowhere/at/all")
	for _, path := range []string{"/s/AAAAAAAA", "/s/" + deleted.ID, "/s/" + expired.ID, "/s/" + deleted.ID + "/info", "/s/" + expired.ID + "/info", "/s/AAAAAAA", "/s/AAAAAAAAA", "/s/AAAA-AAA", "/s/%41AAA%2fAA", "/s/", "/s/" + alive.ID + "/",
		"/s/" + alive.ID + "/raw", "/s/" + alive.ID + "/infos", "/s/" + alive.ID + "/info/", "/s//info", "/s/" + paste.ID, "/" + alive.ID, "/" + alive.ID + "/raw", "/s/" + alive.ID + "%00", "/s/" + strings.ToUpper(alive.ID) + "_"} {
		if got := wire("GET", path); got != want {
			t.Errorf("GET %s:\n%s\nwant\n%s", path, got, want)
		}
	}
	if got, want := wire("DELETE", "/s/"+deleted.ID), wire("DELETE", "/s/AAAAAAAA"); got != want {
		t.Errorf("DELETE:\n%s\nwant\n%s", got, want)
	}
}

func TestShortInfo(t *testing.T) {
	ts := start(t, append(behindProxy, "URL_PREFIX=/p")...)
	made := ts.short("https://example.org/x", shownAs(shortAlice)...)
	if made.Owner != shortAlice {
		t.Errorf("the 201 names the owner %q", made.Owner)
	}
	for name, c := range map[string]struct {
		headers []string
		owner   string
	}{"stranger": {nil, ""}, "another": {shownAs(shortBob), ""}, "owner": {shownAs(shortAlice), shortAlice}} {
		a := ts.get("/s/"+made.ID+"/info", c.headers...).want(200, "")
		want := fmt.Sprintf(`{"id": "%s", "url": "/p/s/%s", "target_url": "https://example.org/x", "created_at": %d, "expires_at": %d}`, made.ID, made.ID, made.CreatedAt, made.ExpiresAt)
		if c.owner != "" {
			want = strings.TrimSuffix(want, "}") + `, "owner": "` + c.owner + `"}`
		}
		if strings.TrimSpace(a.body) != want || a.Header.Get("Location") != "" || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %s, want %s; headers %v", name, a.body, want, a.Header)
		}
	}
	if a := ts.do("HEAD", "/s/"+made.ID+"/info", nil).want(200, ""); a.body != "" || a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("HEAD: %v", a.Header)
	}
	if n := ts.metrics.shorts.read.Load(); n != 0 {
		t.Errorf("showing counted as %d redirects", n)
	}
}

// ---- deleting, expiring ----

func TestShortDelete(t *testing.T) {
	ts := start(t, behindProxy...)
	for name, c := range map[string]struct {
		maker, deleter []string
		status         int
		code           string
	}{
		"nobody":                {nil, nil, 401, "authentication_required"},
		"wrong token":           {nil, []string{"X-Delete-Token: AAAA"}, 403, "not_owner"},
		"empty token":           {nil, []string{"X-Delete-Token: "}, 403, "not_owner"},
		"two tokens":            {nil, []string{"X-Delete-Token: a", "X-Delete-Token: b"}, 403, "not_owner"},
		"another's certificate": {shownAs(shortAlice), shownAs(shortBob), 403, "not_owner"},
		"anonymous one's":       {nil, shownAs(shortBob), 403, "not_owner"},
		"owner's":               {shownAs(shortAlice), shownAs(shortAlice), 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			made := ts.short("https://example.org/"+url.PathEscape(name), c.maker...)
			ts.do("DELETE", "/s/"+made.ID, nil, c.deleter...).want(c.status, c.code)
			if c.status != 200 {
				ts.leadsTo(made.ID, made.Target)
			}
			a := ts.do("DELETE", "/s/"+made.ID, nil, "X-Delete-Token: "+made.DeleteToken)
			if c.status == 200 {
				a.want(404, "not_found")
				return
			}
			if a.want(200, ""); strings.TrimSpace(a.body) != `{"id": "`+made.ID+`", "deleted": true}` {
				t.Errorf("answer %s", a.body)
			}
			ts.get("/s/"+made.ID).want(404, "not_found")
		})
	}
	ts.shortRows(0)
	// The token of one opens no other, and a paste's none of them.
	first, second, paste := ts.short("https://example.org/1"), ts.short("https://example.org/2"), ts.create("x")
	ts.do("DELETE", "/s/"+first.ID, nil, "X-Delete-Token: "+second.DeleteToken).want(403, "not_owner")
	ts.do("DELETE", "/s/"+first.ID, nil, "X-Delete-Token: "+paste.DeleteToken).want(403, "not_owner")
	// Many at once: one of them did it.
	var wg sync.WaitGroup
	var mu sync.Mutex
	status := map[int]int{}
	for range 8 {
		wg.Go(func() {
			a := ts.do("DELETE", "/s/"+first.ID, nil, "X-Delete-Token: "+first.DeleteToken)
			mu.Lock()
			status[a.StatusCode]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if status[200] != 1 || status[404] != 7 {
		t.Errorf("8 deletions answered %v", status)
	}
	if n := ts.metrics.shorts.deleted.Load(); n != 8 {
		t.Errorf("%d deletions were counted", n)
	}
}

func TestShortExpiry(t *testing.T) {
	ts := start(t, "SWEEP=1h")
	ts.clock.hold()
	plain, asked := ts.short("https://example.org/1"), ts.short("https://example.org/2", "X-Expiry: 2h")
	ts.clock.advance(2*time.Hour - 2*time.Second)
	ts.leadsTo(asked.ID, "https://example.org/2") // now in the cache
	ts.clock.advance(2 * time.Second)
	ts.get("/s/"+asked.ID).want(404, "not_found")
	ts.get("/s/"+asked.ID+"/info").want(404, "not_found")
	ts.do("DELETE", "/s/"+asked.ID, nil, "X-Delete-Token: "+asked.DeleteToken).want(404, "not_found")
	ts.clock.advance(21 * time.Hour)
	ts.leadsTo(plain.ID, "https://example.org/1")
	if a := ts.get("/s/" + plain.ID + "/info"); a.field("expires_at") != strconv.FormatInt(plain.ExpiresAt, 10) {
		t.Errorf("a redirect renewed it: %s", a.body)
	}
	ts.clock.advance(time.Hour)
	ts.get("/s/"+plain.ID).want(404, "not_found")
	ts.shortRows(2) // nobody sees them any more; the sweep removes them
	if pastes, shorts, err := ts.store.sweep(ts.clock.now().Unix()); pastes != 0 || shorts != 2 || err != nil {
		t.Errorf("swept %d pastes and %d short URLs, %v", pastes, shorts, err)
	}
	ts.shortRows(0)
}

// TestShortClock: a database of short URLs alone tells too when a clock has jumped (main.go, sweepLoop).
func TestShortClock(t *testing.T) {
	ts := start(t)
	if at, err := ts.store.newest(); at != 0 || err != nil {
		t.Errorf("an empty database says %d, %v", at, err)
	}
	made := ts.short("https://example.org/")
	if at, err := ts.store.newest(); at != made.CreatedAt || err != nil {
		t.Errorf("newest %d, %v, want %d", at, err, made.CreatedAt)
	}
	ts.clock.advance(time.Hour)
	paste := ts.create("x")
	if at, err := ts.store.newest(); at != paste.CreatedAt || err != nil {
		t.Errorf("newest %d, %v, want %d", at, err, paste.CreatedAt)
	}
}

// TestShortSweepLoop: the server's own sweep finds them, and counts.
func TestShortSweepLoop(t *testing.T) {
	ts := start(t, "SWEEP=1s")
	for i := range 3 {
		ts.short("https://example.org/"+strconv.Itoa(i), "X-Expiry: 1h")
	}
	keep := ts.short("https://example.org/keep", "X-Expiry: 3h")
	ts.clock.advance(2 * time.Hour)
	for range 1000 {
		if ts.metrics.shorts.expired.Load() == 3 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := ts.metrics.shorts.expired.Load(); n != 3 {
		t.Fatalf("%d of 3 were swept", n)
	}
	ts.shortRows(1)
	ts.leadsTo(keep.ID, "https://example.org/keep")
	if !strings.Contains(ts.logs.String(), "short_urls=3") {
		t.Errorf("the log does not say so: %s", ts.logs)
	}
}

// TestShortBytesGone: of an expired target nothing stays in database or write-ahead log. Short ones are the hard case: many
// share a page, and SQLite copies them about when it rebuilds it.
func TestShortBytesGone(t *testing.T) {
	const n = 1000
	ts := start(t, "SWEEP=1h", "SYNC=normal")
	now := ts.clock.now().Unix()
	mark := func(i int) string { return fmt.Sprintf("http://mark-%05d.example/", i) }
	var wg sync.WaitGroup
	for worker := range 16 {
		wg.Go(func() {
			for i := worker; i < n; i += 16 {
				target := mark(i) + strings.Repeat("x", 32)
				p := &paste{id: sum256(target)[:8], created: now, expires: now + 10, target: target, size: int64(len(target)), token: make([]byte, 32)}
				if i%10 == 0 {
					p.expires += 1000
				}
				if err := ts.store.createShort(p, math.MaxInt64, func(*writeTx) error { return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, shorts, err := ts.store.sweep(now + 10); shorts != n*9/10 || err != nil {
		t.Fatalf("swept %d, %v", shorts, err)
	}
	ts.shortRows(n / 10)
	for _, suffix := range []string{"", "-wal"} {
		raw, err := os.ReadFile(filepath.Join(ts.dir, "flaskpaste.db"+suffix))
		if err != nil {
			t.Fatal(err)
		}
		left, kept := 0, 0
		for i := range n {
			found := bytes.Contains(raw, []byte(mark(i)))
			if i%10 == 0 && found {
				kept++
			} else if found {
				left++
			}
		}
		if left > 0 || suffix == "" && kept != n/10 {
			t.Errorf("flaskpaste.db%s: %d expired targets are still there, %d of %d living ones", suffix, left, kept, n/10)
		}
	}
}

// ---- lists, backups, restarts ----

// shortList reads a page of GET /s.
func (ts *testServer) shortList(query string, headers ...string) (targets []string, next string) {
	ts.t.Helper()
	a := ts.get("/s"+query, headers...).want(200, "")
	var list struct {
		URLs  []shortened `json:"urls"`
		Count int         `json:"count"`
		Next  *string     `json:"next_cursor"`
	}
	if err := json.Unmarshal([]byte(a.body), &list); err != nil || list.Count != len(list.URLs) || list.URLs == nil {
		ts.t.Fatalf("list %s: %v", a.body, err)
	}
	for _, u := range list.URLs {
		targets = append(targets, strings.TrimPrefix(u.Target, "https://example.org/"))
		if u.DeleteToken != "" {
			ts.t.Errorf("a list shows a token: %s", a.body)
		}
	}
	if list.Next != nil {
		next = *list.Next
	}
	return targets, next
}

func TestShortList(t *testing.T) {
	ts := start(t, behindProxy...)
	ts.get("/s").want(401, "authentication_required")
	if targets, next := ts.shortList("", shownAs(shortAlice)...); len(targets) != 0 || next != "" {
		t.Errorf("an empty list has %v, %q", targets, next)
	}
	var want []string
	var first shortened
	for i := range 7 {
		made := ts.short("https://example.org/"+strconv.Itoa(i), shownAs(shortAlice)...)
		if i == 0 {
			first = made
		}
		want = append([]string{strconv.Itoa(i)}, want...)
		if i == 3 {
			ts.clock.advance(time.Minute)
		}
	}
	ts.short("https://example.org/bob", shownAs(shortBob)...)
	ts.short("https://example.org/nobody")
	ts.create("a paste is on the other list", shownAs(shortAlice)...)
	if targets, next := ts.shortList("", shownAs(shortAlice)...); !slices.Equal(targets, want) || next != "" {
		t.Errorf("list %v, %q, want %v", targets, next, want)
	}
	if targets, _ := ts.shortList("", shownAs(shortBob)...); !slices.Equal(targets, []string{"bob"}) {
		t.Errorf("Bob's list is %v", targets)
	}
	var paged []string
	for cursor, pages := "", 1; ; pages++ {
		targets, next := ts.shortList("?limit=3"+cursor, shownAs(shortAlice)...)
		if paged = append(paged, targets...); next == "" || pages > 3 {
			break
		}
		cursor = "&cursor=" + next
	}
	if !slices.Equal(paged, want) {
		t.Errorf("page by page %v, want %v", paged, want)
	}
	if targets, _ := ts.shortList("?after="+strconv.FormatInt(first.CreatedAt+30, 10), shownAs(shortAlice)...); !slices.Equal(targets, want[:3]) {
		t.Errorf("the later ones are %v", targets)
	}
	if targets, _ := ts.shortList("?before="+time.Unix(first.CreatedAt+30, 0).UTC().Format(time.RFC3339), shownAs(shortAlice)...); !slices.Equal(targets, want[3:]) {
		t.Errorf("the earlier ones are %v", targets)
	}
	for query, code := range map[string]string{"?limit=0": "bad_option", "?limit=x": "bad_option", "?cursor=x": "bad_option", "?limit=1&limit=2": "bad_option", "?q=x": "bad_option", "?type=text/plain": "bad_option",
		"?after=soon": "bad_option", "?unknown=1": "bad_option", "?%zz": "bad_option"} {
		ts.get("/s"+query, shownAs(shortAlice)...).want(400, code)
	}
	for _, owner := range []string{"all", "anonymous", shortAlice, shortBob, ""} {
		ts.get("/s?owner="+owner, shownAs(shortAlice)...).want(403, "not_admin")
	}
	ts.clock.advance(8 * 24 * time.Hour)
	if targets, _ := ts.shortList("", shownAs(shortAlice)...); len(targets) != 0 {
		t.Errorf("expired ones are listed: %v", targets)
	}
}

// TestShortAdmin: an admin sees and deletes everybody's, and leaves a line behind; other holders of our certificates do not.
func TestShortAdmin(t *testing.T) {
	ts := startPKI(t, "POW_DIFFICULTY=40", "POW_FREE=1") // whom the operator vouches for does no work
	root := ts.issued("root", "--admin")
	alice, bob := ts.sign("/pki/issue", root, "alice"), ts.sign("/pki/issue", root, "bob")
	hers := ts.short("https://example.org/hers", as(alice)...)
	nobodys := ts.short("https://example.org/nobodys")
	ts.shorten("https://example.org/", as(selfSigned(t, "alice"))...).want(400, "pow_required")
	ts.short("https://example.org/roots", as(root)...)
	if hers.Owner != alice.sha256() || hers.ExpiresAt-hers.CreatedAt != 30*86400 {
		t.Errorf("a trusted holder's: %+v", hers)
	}
	if made := ts.short("https://example.org/long", as(alice, "X-Expiry: 100d")...); made.ExpiresAt-made.CreatedAt != 90*86400 {
		t.Errorf("a trusted holder's longest: %+v", made)
	}
	for query, want := range map[string][]string{"": {"roots"}, "?owner=all": {"long", "roots", "nobodys", "hers"}, "?owner=anonymous": {"nobodys"}, "?owner=" + alice.sha256(): {"long", "hers"}, "?owner=" + bob.sha256(): nil,
		"?owner=all&limit=1": {"long"}} {
		if targets, _ := ts.shortList(query, as(root)...); !slices.Equal(targets, want) {
			t.Errorf("GET /s%s lists %v, want %v", query, targets, want)
		}
	}
	for _, owner := range []string{"", "ALL", "alice", strings.ToUpper(alice.sha256()), alice.sha256()[1:]} {
		ts.get("/s?owner="+owner, as(root)...).want(400, "bad_option")
	}
	ts.get("/s?owner=all", as(bob)...).want(403, "not_admin")
	for name, h := range map[string]*holder{"admin": root, "owner": alice} {
		if a := ts.get("/s/"+hers.ID+"/info", as(h)...); a.field("owner") != alice.sha256() {
			t.Errorf("%s: %s", name, a.body)
		}
	}
	if a := ts.get("/s/"+hers.ID+"/info", as(bob)...); a.field("owner") != "" {
		t.Errorf("another sees whose it is: %s", a.body)
	}
	ts.do("DELETE", "/s/"+hers.ID, nil, as(bob)...).want(403, "not_owner")
	for _, made := range []shortened{hers, nobodys} {
		ts.do("DELETE", "/s/"+made.ID, nil, as(root)...).want(200, "")
		ts.get("/s/"+made.ID).want(404, "not_found")
		if log := ts.logs.String(); strings.Contains(log, made.ID) || !strings.Contains(log, "event=deletion_by_admin outcome=ok owner="+root.sha256()+" object="+made.ID[:4]) {
			t.Errorf("the deletion is not in the audit lines, or its id is whole: %s", log)
		}
	}
}

func TestShortBackup(t *testing.T) {
	ts := start(t, behindProxy...)
	made := ts.short("https://example.org/kept", shownAs(shortAlice)...)
	gone := ts.short("https://example.org/gone")
	ts.create("a paste")
	dir := t.TempDir()
	if err := ts.store.backup(filepath.Join(dir, "flaskpaste.db")); err != nil {
		t.Fatal(err)
	}
	ts.do("DELETE", "/s/"+gone.ID, nil, "X-Delete-Token: "+gone.DeleteToken).want(200, "")
	copied := startIn(t, dir, behindProxy...)
	copied.leadsTo(made.ID, "https://example.org/kept")
	copied.leadsTo(gone.ID, "https://example.org/gone") // as it was then
	if targets, _ := copied.shortList("", shownAs(shortAlice)...); !slices.Equal(targets, []string{"kept"}) {
		t.Errorf("list %v", targets)
	}
	if found, err := copied.store.integrity(); len(found) > 0 || err != nil {
		t.Errorf("integrity: %v, %v", found, err)
	}
	var size, total int64
	err := copied.store.r.QueryRow(`SELECT (SELECT sum(length(target)) FROM shorts) + (SELECT sum(size) FROM pastes), bytes FROM totals`).Scan(&size, &total)
	if err != nil || size != total {
		t.Errorf("%d bytes are stored, the totals say %d, %v", size, total, err)
	}
	copied.do("DELETE", "/s/"+made.ID, nil, "X-Delete-Token: "+made.DeleteToken).want(200, "")
}

// TestShortSurvivesKill: 201 means durable.
func TestShortSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	p := launch(t, dir)
	res, err := http.Post(p.url+"/s", "text/plain", strings.NewReader("https://example.org/durable"))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	p.kill()
	var made shortened
	if err := json.Unmarshal(body, &made); err != nil || res.StatusCode != 201 {
		t.Fatalf("status %d, %s: %v", res.StatusCode, body, err)
	}
	again := launch(t, dir)
	res, err = testClient.Get(again.url + made.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 302 || res.Header.Get("Location") != "https://example.org/durable" {
		t.Errorf("status %d, Location %q", res.StatusCode, res.Header.Get("Location"))
	}
}

// TestShortMalformedEverywhere sends bytes of every kind as targets: each is refused or comes back as clean ASCII.
func TestShortMalformedEverywhere(t *testing.T) {
	ts := start(t)
	taken := 0
	for c := range 256 {
		if c > 'b' && c < 'z' || c > 'B' && c < 'Z' || c > 0x82 && c < 0xfe && c%16 != 0 { // alike
			continue
		}
		for _, form := range []string{"http://example.org/a%sb", "http://a%sb.example/", "http://example.org/?a%sb", "http://example.org/#a%sb", "http://example.org%s/"} {
			a := ts.shorten(fmt.Sprintf(form, string([]byte{byte(c)})))
			if a.StatusCode == 400 && (a.field("code") == "bad_url") {
				continue
			}
			a.want(201, "")
			taken++
			target := a.field("target_url")
			if strings.ContainsFunc(target, func(r rune) bool { return r > unicode.MaxASCII || r <= ' ' || r == 0x7f || r == '\\' }) {
				t.Errorf("%q became %q", fmt.Sprintf(form, string([]byte{byte(c)})), target)
			}
		}
	}
	ts.shortRows(taken)
}
