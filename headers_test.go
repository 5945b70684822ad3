package main

// Who is asking, and what every answer carries (api.md sections 1 and 2): peers, trusted proxies, client addresses,
// schemes,
// certificates in headers; request ids, security headers, forms of an answer, the log, panics.

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// logged returns a field of the log line of a request, which comes after its answer.
func (ts *testServer) logged(requestID, name string) string {
	ts.t.Helper()
	for range 3000 {
		for line := range strings.Lines(ts.logs.String()) {
			if strings.Contains(line, "msg=request request_id="+requestID+" ") {
				_, v, _ := strings.Cut(line, " "+name+"=")
				v, _, _ = strings.Cut(strings.TrimSpace(v), " ")
				return v
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.t.Fatalf("no line of request %s in the log: %s", requestID, ts.logs)
	return ""
}

// handler puts another handler behind GET /pastes.
func (ts *testServer) handler(f func(*server, *request) error) {
	ts.table[slices.IndexFunc(ts.table, func(r route) bool { return r.pattern == "GET /pastes" })].handle = f
}

// ---- trust ----

const (
	secretLine = "X-Proxy-Secret: " + proxySecret
	addrLine   = "X-Forwarded-For: 192.0.2.1"
	httpsLine  = "X-Forwarded-Proto: https"
	certLine   = "X-SSL-Client-SHA1: " + certAlice
)

// TestTrust: what a proxy says counts from a trusted peer that shows the secret, and from nobody else: address, scheme,
// identity. Of what is ignored the operator hears.
func TestTrust(t *testing.T) {
	environments := map[string][]string{"proxied": proxied, "others": {"TRUSTED_PROXIES=10.0.0.0/8"},
		"range": {"TRUSTED_PROXIES=127.0.0.0/8"}, "unix secret": {"PROXY_SECRET=" + proxySecret},
		"renamed": append([]string{"ADDRESS_HEADER=x-real-ip", "CERT_HEADER=X-Client-Cert"}, proxied...)}
	words := strings.NewReplacer("secret", secretLine, "addr", addrLine, "https", httpsLine, "cert", certLine,
		"ALICE", certAlice, "MALLORY", certMallory)
	for _, c := range []struct {
		name, env string
		headers   string // with some lines as words
		client    string // local: a Unix socket
		passed    string // https, cert
		warned    string // a word of the warning
	}{
		{"nobody is trusted", "", "addr|https|cert|secret", "127.0.0.1", "", "X-Forwarded-For"},
		{"nothing was sent", "", "", "127.0.0.1", "", ""},
		{"headers of nobody's", "", "Via: 1.1 x|X-Real-IP: 192.0.2.1|Forwarded: for=192.0.2.1", "127.0.0.1", "", ""},
		{"others are trusted", "others", "addr|https|cert", "127.0.0.1", "", "X-Forwarded-For"},
		{"a range gives no identity", "range", "addr|https|cert", "192.0.2.1", "https", "X-Ssl-Client-Sha1"},
		{"nor with a secret not asked for", "range", "secret|addr|cert", "192.0.2.1", "", "X-Ssl-Client-Sha1"},
		{"address, scheme, identity", "proxied", "secret|addr|https|cert", "192.0.2.1", "https cert", ""},
		{"no secret", "proxied", "addr|https|cert", "127.0.0.1", "", "X-Forwarded-For"},
		{"a wrong secret", "proxied", "secretx|addr|https|cert", "127.0.0.1", "", "X-Forwarded-For"},
		{"an empty secret", "proxied", "X-Proxy-Secret: |addr|cert", "127.0.0.1", "", "X-Forwarded-For"},
		{"the secret twice", "proxied", "secret|secret|addr|cert", "127.0.0.1", "", "X-Forwarded-For"},
		{"scheme in capitals", "proxied", "secret|addr|X-Forwarded-Proto: HTTPS", "192.0.2.1", "", ""},
		{"a list of schemes", "proxied", "secret|addr|https, http", "192.0.2.1", "", ""},
		{"scheme twice", "proxied", "secret|addr|https|https", "192.0.2.1", "", ""},
		{"lines are one list", "proxied", "secret|X-Forwarded-For: 6.6.6.6|addr|X-Forwarded-For: 127.0.0.1",
			"192.0.2.1", "", ""},
		{"no address", "proxied", "secret|cert", "127.0.0.1", "cert", "names no client"},
		{"no address that parses", "proxied", "secret|X-Forwarded-For: unknown", "127.0.0.1", "", "names no client"},
		{"others' headers", "proxied", "secret|X-Real-IP: 6.6.6.6|Forwarded: for=6.6.6.6|CF-Connecting-IP: 6.6.6.6|" +
			"X-Client-Cert: ALICE", "127.0.0.1", "", "names no client"},
		{"other names", "renamed", "secret|X-Real-IP: 192.0.2.7|addr|X-Client-Cert: ALICE|X-SSL-Client-SHA1: MALLORY",
			"192.0.2.7", "cert", ""},
		{"the usual ones are nothing then", "renamed", "secret|addr|X-SSL-Client-SHA1: MALLORY", "127.0.0.1", "",
			"X-Real-Ip"},
		{"a Unix socket", "unix", "", "local", "", ""},
		{"its address and scheme", "unix", "addr|https", "192.0.2.1", "https", ""},
		{"its certificate", "unix", "cert", "local", "cert", ""},
		{"it shows the secret where there is one", "unix secret", "secret|addr|cert", "192.0.2.1", "cert", ""},
		{"or counts for nothing", "unix secret", "addr|cert", "local", "", "X-Forwarded-For"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ts := start(t, environments[c.env]...)
			client := testClient
			if strings.HasPrefix(c.env, "unix") {
				l := must(net.Listen("unix", filepath.Join(t.TempDir(), "s")))
				go ts.http.Serve(newDoors(ts.server).at(l))
				client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
					DialContext: overUnix(l.Addr().String())}}
			}
			req := must(http.NewRequest("PUT", ts.url+"/", strings.NewReader("x")))
			req.Host = "paste.example"
			req.Header.Set("X-Request-ID", "probe")
			for h := range strings.SplitSeq(c.headers, "|") {
				if k, v, ok := strings.Cut(words.Replace(h), ": "); ok {
					req.Header.Add(k, v)
				}
			}
			for range 3 { // one warning is enough
				res := must(client.Do(req))
				body := string(must(io.ReadAll(res.Body)))
				res.Body.Close()
				base, hsts := "http://paste.example/", ""
				if strings.Contains(c.passed, "https") {
					base, hsts = "https://paste.example/", "max-age=63072000"
				}
				if got := res.Header.Get("Strict-Transport-Security"); res.StatusCode != 201 ||
					!strings.HasPrefix(body, base) || got != hsts {
					t.Errorf("%d %s, Strict-Transport-Security %q", res.StatusCode, body, got)
				}
				req.Body = io.NopCloser(strings.NewReader("x"))
			}
			tier, owner := "anonymous", ""
			if strings.Contains(c.passed, "cert") {
				tier, owner = "untrusted", certAlice
			}
			if got := ts.logged("probe", "client"); got != c.client || ts.logged("probe", "tier") != tier {
				t.Errorf("client %s, tier %s; want %s, %s", got, ts.logged("probe", "tier"), c.client, tier)
			}
			if ts.number("SELECT count(*) FROM pastes WHERE owner = ?", owner) != 3 {
				t.Errorf("the owner is not %q", owner)
			}
			warnings := strings.Count(ts.logs.String(), "level=WARN")
			if warnings > 1 || (warnings == 1) != (c.warned != "") || !strings.Contains(ts.logs.String(), c.warned) ||
				strings.Contains(ts.logs.String(), proxySecret) {
				t.Errorf("warnings: %s", ts.logs)
			}
		})
	}
}

// TestHourlyWarning: one an hour, and the metric counts all.
func TestHourlyWarning(t *testing.T) {
	ts := start(t, "METRICS_ALLOW=any")
	ts.clock.hold()
	for i, after := range []time.Duration{0, time.Hour - time.Second, time.Second, time.Second} {
		ts.clock.advance(after)
		ts.get("/", []string{addrLine, certLine, secretLine, httpsLine}[i]).want(200, "")
		if n, want := strings.Count(ts.logs.String(), "level=WARN"), []int{1, 1, 2, 2}[i]; n != want {
			t.Errorf("%d warnings after %d requests, want %d: %s", n, i+1, want, ts.logs)
		}
	}
	if n := ts.scrape()["flaskpaste_ignored_headers_total"]; n != 4 {
		t.Errorf("the metric counts %v", n)
	}
}

// TestForwarded: from the right past trusted addresses to the first other one.
func TestForwarded(t *testing.T) {
	ts := start(t, "TRUSTED_PROXIES=127.0.0.1,10.0.0.0/8,2001:db8::/32,fe80::/64", "PROXY_SECRET="+proxySecret)
	for i, c := range []struct{ name, list, want string }{
		{"what the client wrote stands left", "6.6.6.6, 192.0.2.1", "192.0.2.1"},
		{"past trusted ones", "6.6.6.6, 192.0.2.1, 10.1.2.3, 10.9.9.9", "192.0.2.1"},
		{"past a trusted one with a zone", "192.0.2.1, fe80::1%eth0", "192.0.2.1"},
		{"all trusted: the leftmost", "10.0.0.1, 10.0.0.2", "10.0.0.1"},
		{"blanks and tabs", "6.6.6.6 ,\t192.0.2.1\t ,10.0.0.1", "192.0.2.1"},
		{"brackets and a port", "[2001:db9::1]:4711", "2001:db9::1"},
		{"a zone, brackets and a port", "[fe80:1::1%eth0]:1, 10.0.0.1", "fe80:1::1"},
		{"mapped with a port", "[::ffff:192.0.2.1]:80", "192.0.2.1"},
		{"mapped and trusted", "192.0.2.1, ::ffff:10.0.0.1", "192.0.2.1"},
		{"empty", "", "127.0.0.1"},
		{"a comma", ",", "127.0.0.1"},
		{"an empty element ends the walk", "6.6.6.6,,10.0.0.1", "10.0.0.1"},
		{"junk ends the walk at the last good one", "6.6.6.6, junk, 10.0.0.1", "10.0.0.1"},
		{"junk left of a foreign one is not seen", "junk, 192.0.2.1", "192.0.2.1"},
		{"octal", "0192.0.2.1, 10.0.0.1", "10.0.0.1"},
		{"no port", "192.0.2.1:99999, 10.0.0.1", "10.0.0.1"},
		{"quoted", `"192.0.2.1", 10.0.0.1`, "10.0.0.1"},
		{"semicolons", "192.0.2.1; 10.0.0.1", "127.0.0.1"},
		{"very many", "6.6.6.6, 192.0.2.1" + strings.Repeat(",10.0.0.1", 1500), "192.0.2.1"},
	} {
		id := fmt.Sprint("list-", i)
		ts.get("/health", from(c.list, "X-Request-ID: "+id)...).want(200, "")
		if got := ts.logged(id, "client"); got != c.want {
			t.Errorf("%s: %.60q: %s, want %s", c.name, c.list, got, c.want)
		}
	}
}

// ---- certificates ----

// TestCertificateHeader: every form of the one header, and all that is none.
func TestCertificateHeader(t *testing.T) {
	ts := start(t, proxied...)
	der := selfSigned("somebody").der // with a negative serial, as other programs take it, and crypto/x509 does not
	der[bytes.Index(der, []byte{2, 1, 1})+2] |= 0x80
	if _, err := x509.ParseCertificate(der); err == nil {
		t.Fatal("crypto/x509 takes it")
	}
	own, text := sum256(string(der)), string(pemOf("CERTIFICATE", der))
	escaped, b64 := url.PathEscape(text), base64.StdEncoding.EncodeToString(der)
	colons := func(s string) string { return regexp.MustCompile(`..\B`).ReplaceAllString(s, "$0:") }
	const none, bad = "", "bad"
	for _, c := range []struct{ name, v, owner string }{
		{"empty", "", none},
		{"SHA-1 of nothing", sha1OfNothing, none},
		{"SHA-256 of nothing with colons", colons(strings.ToUpper(sha256OfNothing)), none},
		{"a placeholder", "{http.request.tls.client.certificate_der_base64}", none},
		{"null", "(null)", none},
		{"SHA-1 in capitals with colons", colons(strings.ToUpper(certAlice)), certAlice},
		{"SHA-256 in capitals with colons", colons(strings.ToUpper(own)), own},
		{"escaped PEM", escaped, own},
		{"escaped PEM, CRLF", url.PathEscape(strings.ReplaceAll(text, "\n", "\r\n")), own},
		{"DER in base64", b64, own},
		{"DER in base64 with RFC 9440's colons", ":" + b64 + ":", own},
		{"41 digits", certAlice + "a", bad},
		{"no digits", strings.Repeat("g", 40), bad},
		{"a list with a blank", certAlice + ", " + certMallory, bad},
		{"a list of base64", ":" + b64 + ":, :" + b64 + ":", bad},
		{"a name", "CN=somebody", bad},
		{"PEM of a key", url.PathEscape(string(pemOf("PUBLIC KEY", der))), bad},
		{"PEM twice", escaped + escaped, bad},
		{"text before PEM", "x%0A" + escaped, bad},
		{"PEM with headers", url.PathEscape(strings.Replace(text, "-----\n", "-----\nA: b\n\n", 1)), bad},
		{"PEM cut", escaped[:len(escaped)-40], bad},
		{"PEM with a bad escape", escaped + "%", bad},
		{"PEM on one line", strings.ReplaceAll(text, "\n", " "), bad},
		{"a byte behind the DER, in PEM", url.PathEscape(string(pemOf("CERTIFICATE", append(der, 0)))), bad},
		{"a byte behind the DER", base64.StdEncoding.EncodeToString(append(slices.Clone(der), 0)), bad},
		{"two DERs", base64.StdEncoding.EncodeToString(append(slices.Clone(der), der...)), bad},
		{"DER cut", base64.StdEncoding.EncodeToString(der[:len(der)-3]), bad},
		{"DER that is no sequence", base64.StdEncoding.EncodeToString([]byte{0x04, 0x02, 0x30, 0x00}), bad},
		{"base64 with one colon", ":" + b64, bad},
		{"base64 with a blank", b64[:100] + " " + b64[100:], bad},
		{"base64 with spare bits", "AB==", bad},
		{"colons", "::", bad},
	} {
		if a := ts.post("x", withCert(c.v)...); c.owner == bad {
			if a.StatusCode != 400 || a.field("code") != "bad_client_certificate" || a.field("hint") == "" {
				t.Errorf("%s: %d %s", c.name, a.StatusCode, a.body)
			}
		} else if a.StatusCode != 201 || a.field("owner") != c.owner {
			t.Errorf("%s: %d %s, want the owner %q", c.name, a.StatusCode, a.body, c.owner)
		}
	}
	for _, h := range [][]string{withCert(certAlice, certLine), withCert("", certLine)} {
		ts.post("x", h...).want(400, "bad_client_certificate")
		ts.get("/no/such/route", h...).want(400, "bad_client_certificate")
		ts.get("/health", h...).want(200, "")
	}
	// An empty identity is nobody's owner.
	p := ts.create("anonymous")
	for _, h := range [][]string{nil, withCert(""), withCert(sha1OfNothing)} {
		ts.do("DELETE", p.URL, nil, h...).want(401, "authentication_required")
	}
	ts.do("DELETE", p.URL, nil, withCert(b64)...).want(403, "not_owner")
}

// TestTiers: sizes and lives by who asks, as GET / says too.
func TestTiers(t *testing.T) {
	ts := start(t, append(slices.Clone(proxied), "MAX_ANON=1000", "MAX_AUTH=2000")...).certified()
	ts.clock.hold()
	const day = 86400
	for _, c := range []struct {
		tier, cert          string
		size, life, longest int64
	}{
		{"anonymous", "", 1000, day, 7 * day}, {"untrusted", certAlice, 2000, 7 * day, 49 * day},
		{"trusted", certFirst, 2000, 30 * day, 90 * day}, {"admin", certOfAdmin, 2000, 30 * day, 90 * day},
	} {
		h, now := withCert(c.cert), ts.now().Unix()
		life := ts.create(strings.Repeat("x", int(c.size)), h...).ExpiresAt - now
		longest := ts.create("x", append(slices.Clone(h), "X-Expiry: 1000d")...).ExpiresAt - now
		a := ts.post(strings.Repeat("x", int(c.size)+1), h...).want(413, "too_large")
		if life != c.life || longest != c.longest || a.field("limit") != fmt.Sprint(c.size) {
			t.Errorf("%s: lives %d s, at most %d; %s", c.tier, life, longest, a.body)
		}
		said := fmt.Sprintf(`"%s":{"max_size":%d,"default_expiry":%d,"max_expiry":%d}`, c.tier, c.size, c.life,
			c.longest)
		about := strings.NewReplacer(" ", "", "\n", "").Replace(ts.get("/", h...).want(200, "").body)
		if !strings.Contains(about, said) || !strings.Contains(about, `"tier":"`+c.tier+`"`) {
			t.Errorf("%s: %s", c.tier, about)
		}
	}
}

// ---- every answer ----

// everyAnswers is what api.md says of them; "": nothing.
var everyAnswers = map[string]string{
	"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
	"Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; " +
		"frame-ancestors 'none'; sandbox",
	"Permissions-Policy": "accelerometer=(), camera=(), clipboard-read=(), clipboard-write=(), display-capture=(), " +
		"fullscreen=(), geolocation=(), gyroscope=(), microphone=(), midi=(), payment=(), " +
		"publickey-credentials-get=(), usb=()",
	"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
	"X-Permitted-Cross-Domain-Policies": "none", "X-Robots-Tag": "noindex, nofollow", "Server": "", "X-Powered-By": "",
	"Strict-Transport-Security": "", "Set-Cookie": "", "Access-Control-Allow-Origin": "",
}

func TestEveryAnswer(t *testing.T) {
	ts := start(t, append(slices.Clone(proxied), "MAX_ANON=100", "PKI_ENABLED=1",
		"PKI_CA_PASSWORD=correct horse battery")...)
	ts.handler(func(*server, *request) error { return errors.New("the-cause") })
	p, burning := ts.create("content"), ts.create("burning", "X-Burn-After-Read: true")
	short := ts.do("POST", "/s", strings.NewReader("https://example.org/")).want(201, "").field("id")
	caches := map[string]string{"open": "private, no-cache", "public": "public, no-cache"}
	// Method, path, status, a header; open and public are what may be kept.
	list := strings.NewReplacer("PASTE", p.URL, "BURNING", burning.Raw, "SHORT", "/s/"+short, "TOKEN",
		"X-Delete-Token: "+p.DeleteToken).Replace(`GET / 200|GET / 200 Accept: text/plain|GET /health 200|POST / 201|
		PUT / 201|GET PASTE 200|GET PASTE/raw 200 open|GET PASTE/raw 206 open Range: bytes=0-1|
		GET PASTE/raw 304 open If-None-Match: *|GET PASTE/raw 412 If-Match: "x"|GET PASTE/raw 416 Range: bytes=99-|
		GET BURNING 403 User-Agent: a bot|GET BURNING 200|GET BURNING 404|PUT PASTE 200 TOKEN|PUT PASTE 401|
		GET /0123456789abcdef 404|GET /a/b/c/d 404|GET /a//b 404|GET /a/../b 404|PATCH / 405|TRACE / 405|OPTIONS / 405|
		BREW PASTE 405|POST / 413|POST / 415 Content-Encoding: gzip|GET /s 401|GET SHORT 302|GET SHORT/info 200|
		POST / 403 Origin: https://evil.example|POST / 400 X-Expiry: 0|GET /pki/ca.crt 200 public|
		GET /pki/ca.crl 200 public|GET /client 206 public Range: bytes=0-1|GET /pastes 500|DELETE PASTE 200 TOKEN`)
	for line := range strings.SplitSeq(list, "|") {
		f := strings.SplitN(strings.TrimSpace(line)+" ", " ", 4)
		path, status, header := f[1], must(strconv.Atoi(f[2])), strings.TrimSpace(f[3])
		word, rest, _ := strings.Cut(header, " ")
		cache := cmp.Or(caches[word], "no-store")
		if caches[word] != "" {
			header = rest
		}
		for _, method := range []string{f[0], "HEAD"} {
			ranged := strings.HasPrefix(header, "Range")
			if method == "HEAD" && (f[0] != "GET" || path == burning.Raw || ranged) {
				continue
			}
			body := map[bool]string{true: "x"}[strings.HasPrefix(method, "P")]
			if status == 413 {
				body = strings.Repeat("x", 101)
			}
			a := ts.do(method, path, strings.NewReader(body), cmp.Or(header, "X-Y: z"))
			what := strings.TrimSpace(line)
			if a.StatusCode != status || method == "HEAD" && a.body != "" {
				t.Errorf("%s: %d %s", what, a.StatusCode, a.body)
			}
			for name, want := range everyAnswers {
				if got := strings.Join(a.Header.Values(name), "|"); got != want {
					t.Errorf("%s: %s %q", what, name, got)
				}
			}
			if got := a.Header.Values("Cache-Control"); len(got) != 1 || got[0] != cache ||
				len(a.Header.Values("X-Request-Id")) != 1 {
				t.Errorf("%s: %v", what, a.Header)
			}
			if name := map[int]string{302: "Location", 401: "WWW-Authenticate", 405: "Allow",
				415: "Accept-Encoding"}[status]; name != "" && a.Header.Get(name) == "" {
				t.Errorf("%s: no %s", what, name)
			}
			if status >= 400 && method != "HEAD" && status != 416 && (a.field("error") == "" ||
				a.field("code") == "" || a.field("request_id") != a.Header.Get("X-Request-Id") ||
				a.Header.Get("Location") != "" || strings.Contains(a.body, "the-cause")) {
				t.Errorf("%s: %s", what, a.body)
			}
		}
	}
}

func TestRequestID(t *testing.T) {
	ts, seen := start(t), map[string]bool{}
	for ids, kept := range map[string]bool{"abc-123_DEF.4": true, "x": true, strings.Repeat("a", 64): true,
		strings.Repeat("a", 65): false, "": false, "a b": false, `a"b`: false, "<script>": false, "a=b": false,
		"ä": false, "a/b": false, "a|b": false} {
		var headers []string
		for id := range strings.SplitSeq(ids, "|") {
			headers = append(headers, "X-Request-ID: "+id)
		}
		for _, path := range []string{"/health", "/", "/nothing/at/all"} {
			a := ts.get(path, headers...)
			got := a.Header.Get("X-Request-Id")
			if (got == ids) != kept || !kept && (seen[got] || len(got) < 16) ||
				a.StatusCode == 404 && a.field("request_id") != got {
				t.Errorf("%s, %s: %q, %s", ids, path, got, a.body)
			}
			seen[got] = true
		}
	}
}

// TestAccept: which form an answer has.
func TestAccept(t *testing.T) {
	ts := start(t)
	p, short := ts.create("x"), ts.do("POST", "/s", strings.NewReader("https://example.org/")).want(201, "").field("id")
	const put, asked = "PUT", "POST PUT PAGE MISS"
	for accept, text := range map[string]string{ // requests that are answered in text; all others are JSON
		"*/*": put, "": put, "text/*": put, "text/plain;q=0": put, "text/html;q=0": put, "text/plain;q=junk": put,
		"application/json": "", "application/json;q=0.1, */*": "", "APPLICATION/JSON": "",
		"text/plain": asked, "text/plain;q=0.5, */*": asked, "text/plain, application/json": asked,
		"text/plain;q=0.5, application/json;q=0.4": asked, "text/plain;q=0.5, application/json": "",
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": "PUT PAGE",
	} {
		for _, r := range [][3]string{{"POST", "POST", "/"}, {"PUT", "PUT", "/"}, {"GET", "GET", "/challenge"},
			{"PAGE", "GET", "/"}, {"PAGE", "GET", p.URL}, {"PAGE", "GET", "/s/" + short + "/info"},
			{"MISS", "GET", "/nothing"}} {
			body := map[bool]io.Reader{true: strings.NewReader("x")}[r[1] != "GET"]
			a := ts.do(r[1], r[2], body, "Accept: "+accept)
			form := "application/json"
			if slices.Contains(strings.Fields(text), r[0]) {
				form = "text/plain; charset=utf-8"
			}
			if a.Header.Get("Content-Type") != form {
				t.Errorf("Accept %q, %s %s: %s, %.100q", accept, r[1], r[2], a.Header.Get("Content-Type"), a.body)
			}
		}
	}
	if a := ts.get("/nothing", "Accept: text/plain"); a.body != "error: not found\n" {
		t.Errorf("%q", a.body)
	}
}

// TestCrossOrigin: a page of another site changes nothing, though the browser would send its user's certificate.
func TestCrossOrigin(t *testing.T) {
	ts := start(t, proxied...)
	p := ts.create("x", withCert(certAlice)...)
	for h, r := range map[string]string{"Sec-Fetch-Site: cross-site": "PUT /", "Sec-Fetch-Site: same-site": "POST /s",
		"Origin: https://evil.example": "PUT " + p.URL, "Origin: null": "DELETE " + p.URL} {
		ts.send(r, strings.NewReader("https://example.org/"), withCert(certAlice, h)...).want(403, "cross_origin")
		ts.get(p.Raw, h).want(200, "")
	}
	for _, h := range []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none", "Origin: " + ts.url} {
		ts.post("x", h).want(201, "")
	}
	ts.stored(4)
}

// ---- the log ----

// TestLog: one line a request, with what it says and what it never does.
func TestLog(t *testing.T) {
	for setting, client := range map[string][2]string{"full": {"203.0.113.77", "2001:db8:1:2:3::4"},
		"prefix": {"203.0.113.0/24", "2001:db8:1::/48"}, "none": {"", ""}} {
		ts := start(t, append(slices.Clone(proxied), "LOG_ADDR="+setting)...)
		who := from("203.0.113.77", certLine)
		with := func(h ...string) []string { return append(slices.Clone(who), h...) }
		p := ts.create("the-content", with("X-Request-ID: post", "X-Paste-Password: the-password",
			"X-Display-Name: the-name")...)
		ts.get(p.Raw+"?token=the-query", with("X-Request-ID: get", "Authorization: Basic dGhlLXVzZXI6dGhlLXBhc3N3b3Jk",
			"User-Agent: the-agent", "Referer: the-referer")...).want(200, "")
		ts.do("BREW", p.URL, nil, with("X-Request-ID: brew")...).want(405, "")
		ts.get("/health", from("2001:db8:1:2:3::4", "X-Request-ID: six")...).want(200, "")
		ts.do("DELETE", p.URL, nil, with("X-Request-ID: delete", "X-Delete-Token: "+p.DeleteToken)...).want(200, "")
		for name, want := range map[string]string{"post method": "POST", "post status": "201", "post tier": "untrusted",
			"post client": client[0], "six client": client[1], "get status": "200", "get bytes": "11",
			"get paste": p.ID[:4], "get route": `"GET`, "brew method": "other", "brew code": "method_not_allowed",
			"delete status": "200"} {
			id, field, _ := strings.Cut(name, " ")
			if got := ts.logged(id, field); got != want {
				t.Errorf("LOG_ADDR=%s: %s is %q, want %q", setting, name, got, want)
			}
		}
		log := ts.logs.String()
		for _, never := range []string{"the-content", "the-password", "dGhlLX", "the-query", "the-name", "the-agent",
			"the-referer", "BREW", p.ID[:5], p.DeleteToken, proxySecret, certAlice[:16]} {
			if strings.Contains(log, never) {
				t.Errorf("LOG_ADDR=%s: %q is in the log", setting, never)
			}
		}
		if setting != "full" && strings.Contains(log, "203.0.113.77") || strings.Count(log, "msg=request") != 5 {
			t.Errorf("LOG_ADDR=%s: %s", setting, log)
		}
	}
}

// TestRefusalsShareALine: of a client's refusals one a second has a line, and the next line says how many had none.
func TestRefusalsShareALine(t *testing.T) {
	ts := behindProxy(t, "RATE_MISS=0")
	for i := range 30 {
		ts.get("/nothing", asVisitor(1, fmt.Sprint("X-Request-ID: miss-", i))...).want(404, "")
	}
	ts.get("/nothing", asVisitor(2, "X-Request-ID: another")...).want(404, "")
	ts.get("/", asVisitor(1, "X-Request-ID: good")...).want(200, "")
	ts.clock.advance(time.Second)
	ts.get("/nothing", asVisitor(1, "X-Request-ID: later")...).want(404, "")
	if ts.logged("miss-0", "code") != "not_found" || ts.logged("another", "code") != "not_found" ||
		ts.logged("good", "status") != "200" || ts.logged("later", "refused_without_line") != "29" {
		t.Errorf("%s", ts.logs)
	}
	if n := strings.Count(ts.logs.String(), "msg=request "); n != 4 {
		t.Errorf("%d lines: %s", n, ts.logs)
	}
}

// TestRefusalsNameTheirReason: the log says why, and which setting; the answer says it to people.
func TestRefusalsNameTheirReason(t *testing.T) {
	ts := start(t, "RATE_CREATE=1/m", "MAX_UPLOADS=8")
	ts.create("x")
	a := ts.post("secret", addrLine, "X-Request-ID: r", "X-Delete-Token: secret").want(429, "rate_limited")
	if ts.logged("r", "cause") != "FLASKPASTE_RATE_CREATE" || strings.Contains(ts.logs.String(), "secret") ||
		!strings.Contains(a.field("hint"), "FLASKPASTE_TRUSTED_PROXIES") {
		t.Errorf("%s, %s", a.body, ts.logs)
	}
	if a := ts.post("x").want(429, "rate_limited"); strings.Contains(a.body, "FLASKPASTE") ||
		!strings.Contains(a.field("hint"), "wait") {
		t.Errorf("a client that is behind no proxy hears of settings: %s", a.body)
	}
}

// ---- what nobody foresaw ----

// TestPanic: a panic is a 500 that shows nothing, with its cause in the log once; behind the first byte the connection
// is cut. The server lives on and holds nothing back.
func TestPanic(t *testing.T) {
	ts := behindProxy(t)
	for _, c := range []struct {
		name    string
		handle  func(s *server, q *request) error
		answers bool
	}{
		{"before", func(*server, *request) error { panic("the-cause") }, true},
		{"within the answer", func(_ *server, q *request) error {
			q.w.Write(bytes.Repeat([]byte("x"), 500))
			panic("the-cause")
		}, false},
		{"an error within the answer", func(_ *server, q *request) error {
			q.w.Write(bytes.Repeat([]byte("x"), 500))
			return errors.New("the-cause")
		}, false},
		{"an error that nobody knows", func(*server, *request) error { return errors.New("the-cause") }, true},
	} {
		ts.handler(c.handle)
		for _, accept := range []string{"application/json", "text/plain"} {
			id := strings.ReplaceAll(c.name, " ", "-") + "." + accept[:4]
			a, err := ts.try("GET", "/pastes", nil, "Accept: "+accept, "X-Request-ID: "+id)
			if c.answers != (err == nil) { // the client may have tried twice
				t.Fatalf("%s: %v, %v", c.name, a, err)
			}
			if c.answers && (a.StatusCode != 500 || strings.Contains(a.body, "cause") ||
				strings.Contains(a.body, ".go") || !strings.Contains(a.body, "internal error")) {
				t.Errorf("%s: %d %q", c.name, a.StatusCode, a.body)
			}
			if ts.logged(id, "route") == "" || strings.Count(ts.logs.String(), "the-cause") != 1 && c.answers {
				t.Errorf("%s: %s", c.name, ts.logs)
			}
			*ts.logs = lockedBuffer{}
			ts.clock.advance(time.Second) // each refusal with a line of its own
		}
	}
	ts.create("x")
	ts.stored(1)
}
