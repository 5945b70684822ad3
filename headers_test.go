package main

// Who is asking, and what every answer carries (api.md sections 1 and 2): peers, trusted proxies, client addresses, schemes,
// certificates in headers; request ids, security headers, the log.

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// newCertificate makes a certificate as any stranger can.
func newCertificate(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestForwardedAddr(t *testing.T) {
	peer := netip.MustParseAddr("127.0.0.1")
	var trusted []netip.Prefix
	if err := setPrefixes(&trusted)("127.0.0.1,10.0.0.0/8,2001:db8::/32"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, list, want string }{
		{"one", "192.0.2.1", "192.0.2.1"},
		{"what the client wrote stands left", "6.6.6.6, 192.0.2.1", "192.0.2.1"},
		{"past trusted proxies", "6.6.6.6, 192.0.2.1, 10.1.2.3, 10.9.9.9", "192.0.2.1"},
		{"past a trusted IPv6 proxy", "192.0.2.1, 2001:db8::7", "192.0.2.1"},
		{"all trusted: the leftmost", "10.0.0.1, 10.0.0.2", "10.0.0.1"},
		{"one trusted", "10.0.0.1", "10.0.0.1"},
		{"blanks and tabs", " \t192.0.2.1\t ", "192.0.2.1"},
		{"no blanks", "6.6.6.6,192.0.2.1,10.0.0.1", "192.0.2.1"},
		{"with a port", "192.0.2.1:4711", "192.0.2.1"},
		{"trusted with a port", "192.0.2.1:1, 10.0.0.1:2", "192.0.2.1"},
		{"IPv6", "2001:db9::1", "2001:db9::1"},
		{"IPv6 with a port", "[2001:db9::1]:4711", "2001:db9::1"},
		{"mapped", "::ffff:192.0.2.1", "192.0.2.1"},
		{"mapped and trusted", "192.0.2.1, ::ffff:10.0.0.1", "192.0.2.1"},
		{"mapped with a port", "[::ffff:192.0.2.1]:80", "192.0.2.1"},
		{"empty", "", "127.0.0.1"},
		{"a comma", ",", "127.0.0.1"},
		{"comma at the end", "192.0.2.1,", "127.0.0.1"},
		{"comma at the start", ",10.0.0.1", "10.0.0.1"},
		{"an empty element ends the walk", "6.6.6.6,,10.0.0.1", "10.0.0.1"},
		{"junk", "unknown", "127.0.0.1"},
		{"junk ends the walk at the last good one", "6.6.6.6, junk, 10.0.0.1", "10.0.0.1"},
		{"junk left of a foreign one is not seen", "junk, 192.0.2.1", "192.0.2.1"},
		{"a zone", "fe80::1%eth0, 10.0.0.1", "10.0.0.1"},
		{"a zone with a port", "[fe80::1%eth0]:1, 10.0.0.1", "10.0.0.1"},
		{"octal", "0192.0.2.1, 10.0.0.1", "10.0.0.1"},
		{"short", "192.2, 10.0.0.1", "10.0.0.1"},
		{"a number", "3221225985, 10.0.0.1", "10.0.0.1"},
		{"a port that is none", "192.0.2.1:99999, 10.0.0.1", "10.0.0.1"},
		{"a bare IPv6 in brackets", "[2001:db9::1], 10.0.0.1", "10.0.0.1"},
		{"quoted", `"192.0.2.1", 10.0.0.1`, "10.0.0.1"},
		{"RFC 7239", "for=192.0.2.1, 10.0.0.1", "10.0.0.1"},
		{"semicolons", "192.0.2.1; 10.0.0.1", "127.0.0.1"},
		{"NUL", "192.0.2.1\x00, 10.0.0.1", "10.0.0.1"},
		{"many trusted", strings.Repeat("10.0.0.1,", 2000) + "10.0.0.2", "10.0.0.1"},
		{"many behind a foreign one", "192.0.2.1" + strings.Repeat(",10.0.0.1", 2000), "192.0.2.1"},
	} {
		if got := forwardedAddr(c.list, peer, trusted); got.String() != c.want {
			t.Errorf("%s: %.60q: %s, want %s", c.name, c.list, got, c.want)
		}
	}
	if got := forwardedAddr("junk", netip.Addr{}, trusted); got.IsValid() {
		t.Errorf("junk from a Unix socket: %s, want local", got)
	}
}

// clientOf asks the server which address it saw, by way of the log.
func (ts *testServer) clientOf(headers ...string) string {
	ts.t.Helper()
	id := fmt.Sprintf("probe-%d", time.Now().UnixNano())
	ts.get("/health", append(headers, "X-Request-ID: "+id)...)
	return ts.logged(id, "client")
}

// logged returns a field of the log line of a request.
func (ts *testServer) logged(requestID, name string) string {
	ts.t.Helper()
	for range 200 {
		for line := range strings.Lines(ts.logs.String()) {
			if strings.Contains(line, "request_id="+requestID+" ") && strings.Contains(line, "msg=request") {
				_, v, _ := strings.Cut(line, " "+name+"=")
				v, _, _ = strings.Cut(v, " ")
				return strings.TrimSpace(v)
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	ts.t.Fatalf("no line of request %s in the log", requestID)
	return ""
}

// TestTrust: the headers of a proxy count from a trusted peer that shows the secret, and from nobody else.
func TestTrust(t *testing.T) {
	const secretLine = "X-Proxy-Secret: " + proxySecret
	xff := "X-Forwarded-For: 192.0.2.1"
	for _, c := range []struct {
		name    string
		env     []string
		headers []string
		client  string
		https   bool
		tier    string
	}{
		{"nobody is trusted", nil, []string{xff, "X-Forwarded-Proto: https", "X-SSL-Client-SHA1: " + certAlice, secretLine}, "127.0.0.1", false, "anonymous"},
		{"others are trusted", []string{"TRUSTED_PROXIES=10.0.0.0/8"}, []string{xff, "X-Forwarded-Proto: https", "X-SSL-Client-SHA1: " + certAlice}, "127.0.0.1", false, "anonymous"},
		{"others are trusted, and the secret", []string{"TRUSTED_PROXIES=10.0.0.0/8", "PROXY_SECRET=" + proxySecret}, []string{secretLine, xff, "X-Forwarded-Proto: https", "X-SSL-Client-SHA1: " + certAlice}, "127.0.0.1", false, "anonymous"},
		{"an address range gives address and scheme, no identity", []string{"TRUSTED_PROXIES=127.0.0.0/8"}, []string{xff, "X-Forwarded-Proto: https", "X-SSL-Client-SHA1: " + certAlice}, "192.0.2.1", true, "anonymous"},
		{"the secret that nobody asked for gives none either", []string{"TRUSTED_PROXIES=127.0.0.0/8"}, []string{secretLine, xff, "X-SSL-Client-SHA1: " + certAlice}, "192.0.2.1", false, "anonymous"},
		{"all of it", proxied, []string{secretLine, xff, "X-Forwarded-Proto: https", "X-SSL-Client-SHA1: " + certAlice}, "192.0.2.1", true, "untrusted"},
		{"secret absent", proxied, []string{xff, "X-Forwarded-Proto: https", "X-SSL-Client-SHA1: " + certAlice}, "127.0.0.1", false, "anonymous"},
		{"secret wrong", proxied, []string{secretLine + "x", xff, "X-Forwarded-Proto: https", "X-SSL-Client-SHA1: " + certAlice}, "127.0.0.1", false, "anonymous"},
		{"secret cut", proxied, []string{secretLine[:len(secretLine)-1], xff, "X-SSL-Client-SHA1: " + certAlice}, "127.0.0.1", false, "anonymous"},
		{"secret empty", proxied, []string{"X-Proxy-Secret: ", xff, "X-SSL-Client-SHA1: " + certAlice}, "127.0.0.1", false, "anonymous"},
		{"secret in another case", proxied, []string{strings.Replace(secretLine, "a-sec", "A-sec", 1), xff}, "127.0.0.1", false, "anonymous"},
		{"secret repeated", proxied, []string{secretLine, secretLine, xff, "X-SSL-Client-SHA1: " + certAlice}, "127.0.0.1", false, "anonymous"},
		{"secret and a wrong one", proxied, []string{"X-Proxy-Secret: x", secretLine, xff}, "127.0.0.1", false, "anonymous"},
		{"scheme junk", proxied, []string{secretLine, "X-Forwarded-Proto: HTTPS"}, "127.0.0.1", false, "anonymous"},
		{"scheme list", proxied, []string{secretLine, "X-Forwarded-Proto: https, http"}, "127.0.0.1", false, "anonymous"},
		{"scheme twice", proxied, []string{secretLine, "X-Forwarded-Proto: https", "X-Forwarded-Proto: https"}, "127.0.0.1", false, "anonymous"},
		{"scheme http", proxied, []string{secretLine, "X-Forwarded-Proto: http"}, "127.0.0.1", false, "anonymous"},
		{"many lines are one list", proxied, []string{secretLine, "X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 127.0.0.1"}, "192.0.2.1", false, "anonymous"},
		{"another address header is never read", proxied, []string{secretLine, "X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6", "CF-Connecting-IP: 6.6.6.6", "True-Client-IP: 6.6.6.6", "X-Client-Cert: " + certAlice}, "127.0.0.1", false, "anonymous"},
		{"headers of other names", append(slices.Clone(proxied), "ADDRESS_HEADER=x-real-ip", "CERT_HEADER=X-Client-Cert"), []string{secretLine, "X-Real-IP: 192.0.2.7", xff, "X-Client-Cert: " + certAlice, "X-SSL-Client-SHA1: " + certMallory}, "192.0.2.7", false, "untrusted"},
		{"those of the default names then count for nothing", append(slices.Clone(proxied), "ADDRESS_HEADER=x-real-ip", "CERT_HEADER=X-Client-Cert"), []string{secretLine, xff, "X-SSL-Client-SHA1: " + certMallory}, "127.0.0.1", false, "anonymous"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ts := start(t, c.env...)
			if got := ts.clientOf(c.headers...); got != c.client {
				t.Errorf("client %s, want %s", got, c.client)
			}
			a := ts.do("PUT", "/", strings.NewReader("x"), append(c.headers, "X-Request-ID: put", "Host: paste.example")...).want(201, "")
			if got := strings.HasPrefix(a.body, "https://paste.example/"); got != c.https || !got && !strings.HasPrefix(a.body, "http://paste.example/") {
				t.Errorf("link %q", a.body)
			}
			if hsts := a.Header.Get("Strict-Transport-Security"); (hsts == "max-age=63072000") != c.https || !c.https && hsts != "" {
				t.Errorf("Strict-Transport-Security %q", hsts)
			}
			if got := ts.logged("put", "tier"); got != c.tier {
				t.Errorf("tier %s, want %s", got, c.tier)
			}
			owner := ""
			ts.store.r.QueryRow("SELECT owner FROM pastes").Scan(&owner)
			if want := map[string]string{"untrusted": certAlice}[c.tier]; owner != want {
				t.Errorf("owner %q, want %q", owner, want)
			}
			if strings.Contains(ts.logs.String(), proxySecret) {
				t.Error("the secret is in the log")
			}
		})
	}
}

// TestIgnoredHeaders: one warning an hour, and a line for `flaskpaste check`.
func TestIgnoredHeaders(t *testing.T) {
	ts := start(t)
	for range 5 {
		ts.get("/", "X-Forwarded-For: 192.0.2.1").want(200, "")
	}
	warned := func() int { return strings.Count(ts.logs.String(), "no trusted proxy") }
	if n := warned(); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
	ts.clock.advance(time.Hour + time.Second)
	ts.get("/", "X-SSL-Client-SHA1: "+certAlice).want(200, "")
	ts.get("/", "X-SSL-Client-SHA1: "+certAlice).want(200, "")
	if n := warned(); n != 2 {
		t.Errorf("%d warnings after an hour, want 2", n)
	}
	ts.settled("notes", 1, func() int64 { return ts.number("SELECT count(*) FROM notes") })
	ts = start(t)
	ts.get("/", "Via: 1.1 x", "X-Real-IP: 1.2.3.4", "Forwarded: for=1.2.3.4").want(200, "")
	if strings.Contains(ts.logs.String(), "no trusted proxy") {
		t.Error("a warning for headers that are nobody's")
	}
}

// TestUnixPeer: the peer of a Unix socket is trusted, needs no secret for a certificate, but shows it where there is one.
func TestUnixPeer(t *testing.T) {
	for _, c := range []struct {
		name    string
		env     []string
		headers []string
		client  string
		tier    string
	}{
		{"alone", nil, nil, "local", "anonymous"},
		{"address", nil, []string{"X-Forwarded-For: 192.0.2.1"}, "192.0.2.1", "anonymous"},
		{"certificate", nil, []string{"X-SSL-Client-SHA1: " + certAlice}, "local", "untrusted"},
		{"secret absent", []string{"PROXY_SECRET=" + proxySecret}, []string{"X-Forwarded-For: 192.0.2.1", "X-SSL-Client-SHA1: " + certAlice}, "local", "anonymous"},
		{"secret shown", []string{"PROXY_SECRET=" + proxySecret}, from("192.0.2.1", "X-SSL-Client-SHA1: "+certAlice), "192.0.2.1", "untrusted"},
	} {
		ts := start(t, c.env...)
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go ts.http.Serve(l)
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
		req, _ := http.NewRequest("POST", "http://localhost/", strings.NewReader("x"))
		req.Header.Set("X-Request-ID", "unix")
		for _, h := range c.headers {
			k, v, _ := strings.Cut(h, ": ")
			req.Header.Add(k, v)
		}
		res, err := client.Do(req)
		if err != nil || res.StatusCode != 201 {
			t.Fatalf("%s: %v %v", c.name, res, err)
		}
		res.Body.Close()
		if addr, tier := ts.logged("unix", "client"), ts.logged("unix", "tier"); addr != c.client || tier != c.tier {
			t.Errorf("%s: client %s, tier %s", c.name, addr, tier)
		}
		ts.stop()
	}
}

// TestCertHeader: every form of the one certificate header, and all that is none.
func TestCertHeader(t *testing.T) {
	ts := start(t, proxied...)
	der := newCertificate(t, "somebody").Certificate[0]
	own := identityOf(der)
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	escaped := strings.ReplaceAll(url.PathEscape(text), "+", "%2B")
	b64 := base64.StdEncoding.EncodeToString(der)
	colons := func(s string) string {
		var parts []string
		for p := range slices.Chunk([]byte(s), 2) {
			parts = append(parts, string(p))
		}
		return strings.Join(parts, ":")
	}
	const none, bad = "none", "bad"
	for _, c := range []struct{ name, v, want string }{
		{"empty", "", none},
		{"SHA-1 of nothing", sha1OfNothing, none},
		{"SHA-1 of nothing in capitals", strings.ToUpper(sha1OfNothing), none},
		{"SHA-1 of nothing with colons", colons(sha1OfNothing), none},
		{"placeholder", "{http.request.tls.client.fingerprint}", none},
		{"placeholder of the certificate", "{http.request.tls.client.certificate_der_base64}", none},
		{"fingerprint", certAlice, certAlice},
		{"fingerprint in capitals", strings.ToUpper(certAlice), certAlice},
		{"fingerprint with colons", colons(strings.ToUpper(certAlice)), certAlice},
		{"escaped PEM", escaped, own.sha256},
		{"escaped PEM as nginx does it", strings.NewReplacer("-----BEGIN CERTIFICATE-----", "-----BEGIN%20CERTIFICATE-----", "-----END CERTIFICATE-----", "-----END%20CERTIFICATE-----", "\n", "%0A", "+", "%2B", "/", "%2F", "=", "%3D").Replace(text), own.sha256},
		{"escaped PEM, CRLF", url.PathEscape(strings.ReplaceAll(text, "\n", "\r\n")), own.sha256},
		{"DER in base64", b64, own.sha256},
		{"DER in base64 as RFC 9440 has it", ":" + b64 + ":", own.sha256},
		{"39 digits", certAlice[:39], bad},
		{"41 digits", certAlice + "a", bad},
		{"no digit", strings.Repeat("g", 40), bad},
		{"two", certAlice + "," + certAlice, bad},
		{"two with a blank", certAlice + ", " + certMallory, bad},
		{"SHA-256 in hex", own.sha256, own.sha256},
		{"63 digits", own.sha256[:63], bad},
		{"a name", "CN=somebody", bad},
		{"null", "(null)", bad},
		{"half a placeholder", "{x", bad},
		{"a brace", "{", bad},
		{"a dash", "-", bad},
		{"PEM of a key", url.PathEscape(strings.ReplaceAll(text, "CERTIFICATE", "PUBLIC KEY")), bad},
		{"PEM twice", escaped + escaped, bad},
		{"PEM and text behind it", escaped + "x", bad},
		{"PEM and text before it", "x%0A" + escaped, bad},
		{"PEM with headers", url.PathEscape(strings.Replace(text, "-----\n", "-----\nA: b\n\n", 1)), bad},
		{"PEM cut", escaped[:len(escaped)-40], bad},
		{"PEM with a bad escape", escaped + "%", bad},
		{"PEM not escaped, on one line", strings.ReplaceAll(text, "\n", " "), bad},
		{"PEM with trailing data in it", url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: append(slices.Clone(der), 0)}))), bad},
		{"DER with trailing data", base64.StdEncoding.EncodeToString(append(slices.Clone(der), 0)), bad},
		{"two DERs", base64.StdEncoding.EncodeToString(append(slices.Clone(der), der...)), bad},
		{"DER cut", base64.StdEncoding.EncodeToString(der[:len(der)-3]), bad},
		{"DER in URL base64", base64.URLEncoding.EncodeToString(append(slices.Clone(der), 0xfb, 0xff)), bad},
		{"base64 of text", base64.StdEncoding.EncodeToString([]byte("not a certificate at all")), bad},
		{"base64 with one colon", ":" + b64, bad},
		{"base64 with parameters", ":" + b64 + ":;a=b", bad},
		{"base64 with a blank in it", b64[:100] + " " + b64[100:], bad},
		{"base64 with spare bits", "AB==", bad},
		{"colons", "::", bad},
	} {
		a := ts.post("x", withCert(c.v, "X-Request-ID: r")...)
		switch {
		case c.want == bad:
			if a.StatusCode != 400 || a.field("code") != "bad_client_certificate" {
				t.Errorf("%s: %d %s", c.name, a.StatusCode, a.body)
			}
		case a.StatusCode != 201:
			t.Errorf("%s: %d %s", c.name, a.StatusCode, a.body)
		case c.want == none && a.field("owner") != "", c.want != none && a.field("owner") != c.want:
			t.Errorf("%s: owner %q, want %q", c.name, a.field("owner"), c.want)
		}
	}
	for _, h := range [][]string{withCert(certAlice, "X-SSL-Client-SHA1: "+certAlice), withCert("", "X-SSL-Client-SHA1: "+certAlice), withCert(certAlice, "X-SSL-Client-SHA1: ")} {
		ts.post("x", h...).want(400, "bad_client_certificate")
		ts.get("/health", h...).want(200, "")
		ts.get("/", h...).want(400, "bad_client_certificate")
	}
}

// TestOwnerByEitherFingerprint: what a certificate stored is its own whether the proxy passes all of it or its SHA-1 alone.
func TestOwnerByEitherFingerprint(t *testing.T) {
	ts := start(t, proxied...)
	der := newCertificate(t, "somebody").Certificate[0]
	s1 := sha1.Sum(der)
	whole, short := withCert(base64.StdEncoding.EncodeToString(der)), withCert(hex.EncodeToString(s1[:]))
	first, second := ts.create("by the certificate", whole...), ts.create("by the fingerprint", short...)
	if first.Owner != identityOf(der).sha256 || second.Owner != hex.EncodeToString(s1[:]) {
		t.Errorf("owners %s, %s", first.Owner, second.Owner)
	}
	for name, h := range map[string][]string{"certificate": whole, "fingerprint": short} {
		if got := ts.list("", h...); got.Count != 2 {
			t.Errorf("%s: lists %d", name, got.Count)
		}
		for _, p := range []created{first, second} {
			if ts.get("/"+p.ID, h...).field("owner") == "" {
				t.Errorf("%s: is not the owner of what was stored by %s", name, p.Owner)
			}
			ts.do("PUT", "/"+p.ID, strings.NewReader("changed by "+name), h...).want(200, "")
		}
	}
	ts.do("DELETE", "/"+first.ID, nil, short...).want(200, "")
	ts.do("DELETE", "/"+second.ID, nil, whole...).want(200, "")
	// An anonymous paste has an empty owner: an empty identity is not its owner.
	p := ts.create("anonymous")
	ts.do("DELETE", "/"+p.ID, nil).want(401, "authentication_required")
	ts.do("DELETE", "/"+p.ID, nil, withCert("")...).want(401, "authentication_required")
	ts.do("DELETE", "/"+p.ID, nil, withCert(sha1OfNothing)...).want(401, "authentication_required")
	ts.do("DELETE", "/"+p.ID, nil, whole...).want(403, "not_owner")
}

// TestOwnHandshake: a certificate of our own handshake is an identity, HSTS is sent, and the header beside it is refused.
func TestOwnHandshake(t *testing.T) {
	ts := start(t, proxied...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go ts.http.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{newCertificate(t, "server")}, ClientAuth: tls.RequestClientCert}))
	cert := newCertificate(t, "client")
	ask := func(certs []tls.Certificate, headers ...string) *answer {
		t.Helper()
		c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certs}}}
		req, _ := http.NewRequest("POST", "https://"+l.Addr().String()+"/", strings.NewReader("x"))
		for _, h := range headers {
			k, v, _ := strings.Cut(h, ": ")
			req.Header.Add(k, v)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		if res.Header.Get("Strict-Transport-Security") == "" {
			t.Error("no HSTS over TLS")
		}
		return &answer{res, string(b), t}
	}
	id := identityOf(cert.Certificate[0])
	if a := ask([]tls.Certificate{cert}).want(201, ""); a.field("owner") != id.sha256 {
		t.Errorf("owner %s", a.field("owner"))
	}
	if a := ask(nil).want(201, ""); a.field("owner") != "" {
		t.Errorf("owner %s without a certificate", a.field("owner"))
	}
	ask([]tls.Certificate{cert}, withCert(certAlice)...).want(400, "bad_client_certificate")
	ask([]tls.Certificate{cert}, "X-SSL-Client-SHA1: "+certAlice).want(400, "bad_client_certificate")
	ask([]tls.Certificate{cert}, withCert("")...).want(201, "")
	if a := ask(nil, "Accept: text/plain").want(201, ""); !strings.HasPrefix(a.body, "https://") {
		t.Errorf("link %q", a.body)
	}
}

// TestRequestID: the caller's own if it is harmless, else a fresh one.
func TestRequestID(t *testing.T) {
	ts := start(t)
	seen := map[string]bool{}
	for _, c := range []struct {
		name, v string
		kept    bool
	}{
		{"plain", "abc-123_DEF.4", true}, {"one", "x", true}, {"64", strings.Repeat("a", 64), true}, {"65", strings.Repeat("a", 65), false}, {"empty", "", false},
		{"blank", "a b", false}, {"quote", `a"b`, false}, {"markup", "<script>", false}, {"equals", "a=b", false}, {"not ASCII", "ä", false}, {"percent", "%0d%0a", false}, {"slash", "a/b", false},
	} {
		for _, path := range []string{"/health", "/", "/nothing/at/all"} {
			a := ts.get(path, "X-Request-ID: "+c.v)
			id := a.Header.Get("X-Request-Id")
			if c.kept != (id == c.v) || !c.kept && (seen[id] || len(id) < 16 || !requestIDs.MatchString(id)) {
				t.Errorf("%s: %q became %q", c.name, c.v, id)
			}
			seen[id] = !c.kept
			if len(a.Header.Values("X-Request-Id")) != 1 || a.StatusCode == 404 && a.field("request_id") != id {
				t.Errorf("%s: %v, %s", c.name, a.Header, a.body)
			}
		}
	}
	if id := ts.get("/", "X-Request-ID: a", "X-Request-ID: b").Header.Get("X-Request-Id"); id == "a" || id == "b" || len(id) < 16 {
		t.Errorf("of two it took %q", id)
	}
}

// everyAnswer is what api.md section 1 puts on each answer.
var everyAnswer = map[string]string{
	"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
	"Content-Security-Policy":      "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox",
	"Permissions-Policy":           "accelerometer=(), camera=(), clipboard-read=(), clipboard-write=(), display-capture=(), fullscreen=(), geolocation=(), gyroscope=(), microphone=(), midi=(), payment=(), publickey-credentials-get=(), usb=()",
	"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "X-Permitted-Cross-Domain-Policies": "none",
	"Server": "", "X-Powered-By": "", "Strict-Transport-Security": "", "Set-Cookie": "", "Access-Control-Allow-Origin": "",
}

// TestSecurityHeaders: all of them, once each, on every kind of answer.
func TestSecurityHeaders(t *testing.T) {
	ts := start(t, append([]string{"MAX_ANON=100", "MAX_STORAGE=1000"}, proxied...)...)
	ts.line("GET /pastes").handle = func(*server, *request) error { panic("boom") }
	p, burning := ts.create("content"), ts.create("burning", "X-Burn-After-Read: true")
	token := "X-Delete-Token: " + p.DeleteToken
	for _, c := range []struct {
		method, path, body string
		headers            []string
		status             int
		cache              string
	}{
		{"GET", "/", "", nil, 200, "no-store"},
		{"GET", "/", "", []string{"Accept: text/plain"}, 200, "no-store"},
		{"GET", "/health", "", nil, 200, "no-store"},
		{"POST", "/", "x", nil, 201, "no-store"},
		{"PUT", "/", "x", nil, 201, "no-store"},
		{"GET", "/" + p.ID, "", nil, 200, "no-store"},
		{"GET", "/" + p.ID + "/raw", "", nil, 200, "private, no-cache"},
		{"GET", "/" + p.ID + "/raw", "", []string{"Range: bytes=0-1"}, 206, "private, no-cache"},
		{"GET", "/" + p.ID + "/raw", "", []string{"Range: bytes=0-1,3-4"}, 206, "private, no-cache"},
		{"GET", "/" + p.ID + "/raw", "", []string{"If-None-Match: *"}, 304, "private, no-cache"},
		{"GET", "/" + p.ID + "/raw", "", []string{`If-Match: "x"`}, 412, "no-store"},
		{"GET", "/" + p.ID + "/raw", "", []string{"Range: bytes=99-"}, 416, "no-store"},
		{"GET", "/" + burning.ID + "/raw", "", []string{"User-Agent: a bot"}, 403, "no-store"},
		{"GET", "/" + burning.ID + "/raw", "", nil, 200, "no-store"},
		{"PUT", "/" + p.ID, "y", []string{token}, 200, "no-store"},
		{"PUT", "/" + p.ID, "y", nil, 401, "no-store"},
		{"GET", "/0123456789abcdef", "", nil, 404, "no-store"},
		{"GET", "/a/b/c/d", "", nil, 404, "no-store"},
		{"GET", "/a//b", "", nil, 404, "no-store"},
		{"PATCH", "/", "x", nil, 405, "no-store"},
		{"TRACE", "/", "", nil, 405, "no-store"},
		{"OPTIONS", "/", "", nil, 405, "no-store"},
		{"BREW", "/" + p.ID, "", nil, 405, "no-store"},
		{"POST", "/", strings.Repeat("x", 101), nil, 413, "no-store"},
		{"POST", "/", "x", []string{"Content-Encoding: gzip"}, 415, "no-store"},
		{"DELETE", "/" + p.ID, "", nil, 401, "no-store"},
		{"GET", "/s", "", nil, 401, "no-store"},
		{"POST", "/", "x", []string{"Origin: https://evil.example"}, 403, "no-store"},
		{"POST", "/", "x", withCert("junk"), 400, "no-store"},
		{"POST", "/", "x", []string{"X-Expiry: 0"}, 400, "no-store"},
		{"GET", "/pastes", "", nil, 500, "no-store"},
		{"DELETE", "/" + p.ID, "", []string{token}, 200, "no-store"},
		{"POST", "/", strings.Repeat("x", 100), nil, 201, "no-store"}, {"POST", "/", strings.Repeat("x", 100), nil, 201, "no-store"}, {"POST", "/", strings.Repeat("x", 100), nil, 201, "no-store"},
		{"POST", "/", strings.Repeat("x", 100), nil, 201, "no-store"}, {"POST", "/", strings.Repeat("x", 100), nil, 201, "no-store"}, {"POST", "/", strings.Repeat("x", 100), nil, 201, "no-store"},
		{"POST", "/", strings.Repeat("x", 100), nil, 201, "no-store"}, {"POST", "/", strings.Repeat("x", 100), nil, 503, "no-store"},
	} {
		methods := []string{c.method}
		if c.method == "GET" && c.path != "/"+burning.ID+"/raw" {
			methods = []string{"GET", "HEAD"}
		}
		for _, method := range methods {
			var body io.Reader
			if c.body != "" {
				body = strings.NewReader(c.body)
			}
			a := ts.do(method, c.path, body, c.headers...)
			if a.StatusCode != c.status {
				t.Errorf("%s %s: %d %s, want %d", method, c.path, a.StatusCode, a.body, c.status)
			}
			for name, want := range everyAnswer {
				if got := a.Header.Values(name); strings.Join(got, "|") != want {
					t.Errorf("%s %s %d: %s: %q", method, c.path, a.StatusCode, name, got)
				}
			}
			if got := a.Header.Values("Cache-Control"); len(got) != 1 || got[0] != c.cache {
				t.Errorf("%s %s %d: Cache-Control %q, want %q", method, c.path, a.StatusCode, got, c.cache)
			}
			if len(a.Header.Values("X-Request-Id")) != 1 {
				t.Errorf("%s %s %d: no request id", method, c.path, a.StatusCode)
			}
			if method == "HEAD" && a.body != "" {
				t.Errorf("HEAD %s: %d bytes", c.path, len(a.body))
			}
			if name := map[int]string{401: "WWW-Authenticate", 405: "Allow", 415: "Accept-Encoding", 503: "Retry-After"}[c.status]; name != "" && a.Header.Get(name) == "" {
				t.Errorf("%s %s %d: %v", method, c.path, a.StatusCode, a.Header)
			}
		}
	}
	for _, proto := range []string{"https", "http"} {
		a := ts.get("/nothing/at/all", "X-Proxy-Secret: "+proxySecret, "X-Forwarded-Proto: "+proto).want(404, "")
		if got := a.Header.Get("Strict-Transport-Security"); (got != "") != (proto == "https") {
			t.Errorf("%s: HSTS %q on a 404", proto, got)
		}
	}
}

// line is a line of the route table, for a test that needs a handler of its own.
func (ts *testServer) line(pattern string) *route {
	return &ts.table[slices.IndexFunc(ts.table, func(r route) bool { return r.pattern == pattern })]
}

// TestPanic: a panic is a 500 that shows nothing, with its cause in the log once; before or behind the first byte, the server lives.
func TestPanic(t *testing.T) {
	ts := start(t)
	var stage atomic.Int64 // what the handler does; set before the first request, since aborted ones may still be read from
	ts.line("GET /pastes").handle = func(_ *server, q *request) error {
		switch stage.Load() {
		case 0:
			panic("the-cause-" + q.id)
		case 1:
			q.w.Header()["Content-Length"] = []string{"1000"}
			q.w.Write(bytes.Repeat([]byte("x"), 500))
			panic("late")
		}
		panic(http.ErrAbortHandler)
	}
	// A panic while a slot is held gives it back.
	ts.line("POST /{$}").handle = func(s *server, q *request) error {
		in, err := s.receive(q, &options{})
		defer in.close()
		if err == nil {
			panic("after receiving")
		}
		return err
	}
	for _, accept := range []string{"application/json", "text/plain"} {
		a := ts.get("/pastes", "Accept: "+accept, "X-Request-ID: "+strings.ReplaceAll(accept, "/", ".")).want(500, "")
		if strings.Contains(a.body, "cause") || !strings.Contains(a.body, "internal error") || strings.Contains(a.body, ".go") {
			t.Errorf("answer %q", a.body)
		}
		id := a.Header.Get("X-Request-Id")
		if ts.logged(id, "status") != "500" || strings.Count(ts.logs.String(), "the-cause-"+id) != 1 {
			t.Errorf("log: %s", ts.logs)
		}
	}
	stage.Store(1)
	if a, err := ts.try("GET", "/pastes", nil); err == nil {
		t.Errorf("a panic amid an answer looks whole: %d, %d bytes", a.StatusCode, len(a.body))
	}
	stage.Store(2)
	if _, err := ts.try("GET", "/pastes", nil); err == nil {
		t.Error("an abort was answered")
	}
	ts.post(pattern(chunkSize+5)).want(500, "internal")
	ts.nothing()
	ts.get("/health").want(200, "")
	ts.get("/").want(200, "")
	ts.do("PUT", "/", strings.NewReader("x")).want(201, "")
}

// TestCrossOrigin: a browser on another site can read nothing into a change, with or without a certificate.
func TestCrossOrigin(t *testing.T) {
	ts := start(t, proxied...)
	p := ts.create("x", withCert(certAlice)...)
	for _, h := range []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: https://evil.example", "Origin: null"} {
		for _, method := range []string{"POST", "PUT", "DELETE"} {
			path := map[string]string{"POST": "/", "PUT": "/" + p.ID, "DELETE": "/" + p.ID}[method]
			ts.do(method, path, strings.NewReader("y"), withCert(certAlice, h)...).want(403, "cross_origin")
		}
		ts.get("/"+p.ID+"/raw", h).want(200, "")
	}
	ts.post("x", "Sec-Fetch-Site: same-origin").want(201, "")
	ts.post("x", "Sec-Fetch-Site: none").want(201, "")
	ts.post("x", "Origin: "+ts.url).want(201, "")
	ts.stored(4)
}

// TestLog: one line a request, with what it says and what it never does.
func TestLog(t *testing.T) {
	for _, c := range []struct{ setting, client string }{{"full", "203.0.113.77"}, {"prefix", "203.0.113.0/24"}, {"none", ""}} {
		ts := start(t, append([]string{"LOG_ADDR=" + c.setting}, proxied...)...)
		p := ts.create("the-content", from("203.0.113.77", "X-Request-ID: post", "X-Paste-Password: the-password", "X-SSL-Client-SHA1: "+certAlice, "X-Display-Name: the-name")...)
		ts.get("/"+p.ID+"/raw?token=the-query", from("203.0.113.77", "X-Request-ID: get", "Authorization: Basic dGhlLXVzZXI6dGhlLXBhc3N3b3Jk", "User-Agent: the-agent", "Referer: the-referer")...).want(200, "")
		ts.do("BREW", "/"+p.ID, nil, from("203.0.113.77", "X-Request-ID: brew")...).want(405, "")
		ts.do("DELETE", "/"+p.ID, nil, from("203.0.113.77", "X-Request-ID: delete", "X-Delete-Token: "+p.DeleteToken)...).want(200, "")
		for _, line := range []struct{ id, name, want string }{
			{"post", "method", "POST"}, {"post", "status", "201"}, {"post", "tier", "untrusted"}, {"post", "client", c.client}, {"get", "status", "200"}, {"get", "bytes", "11"},
			{"get", "paste", p.ID[:4]}, {"brew", "method", "other"}, {"brew", "status", "405"}, {"brew", "code", "method_not_allowed"}, {"delete", "status", "200"},
		} {
			if got := ts.logged(line.id, line.name); got != line.want {
				t.Errorf("LOG_ADDR=%s: %s of %s is %q, want %q", c.setting, line.name, line.id, got, line.want)
			}
		}
		if got := ts.logged("get", "route"); got != `"GET` {
			t.Errorf("route %s", got)
		}
		log := ts.logs.String()
		for _, never := range []string{"the-content", "the-password", "dGhlLX", "the-query", "the-name", "the-agent", "the-referer", "BREW", p.ID[:8], " paste=" + p.ID[:5], p.DeleteToken, proxySecret, certAlice} {
			if strings.Contains(log, never) {
				t.Errorf("LOG_ADDR=%s: %q is in the log", c.setting, never)
			}
		}
		if c.setting != "full" && strings.Contains(log, "203.0.113.77") {
			t.Errorf("LOG_ADDR=%s: the address is in the log", c.setting)
		}
		if n := strings.Count(log, "msg=request"); n != 4 {
			t.Errorf("%d lines for 4 requests", n)
		}
	}
	ts := start(t, append([]string{"LOG_ADDR=prefix"}, proxied...)...)
	if got := ts.clientOf(from("2001:db8:1:2:3::4")...); got != "2001:db8:1::/48" {
		t.Errorf("an IPv6 client is logged as %q", got)
	}
}

// TestSecretNeverPrints: whatever formats it.
func TestSecretNeverPrints(t *testing.T) {
	s := secret("hunter2-hunter2-hunter2")
	var b bytes.Buffer
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "s", s, "struct", struct{ S secret }{s})
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "s", s, "struct", struct{ S secret }{s})
	fmt.Fprintf(&b, "%v %s %+v %#v %q %x %v", s, s, s, s, s, s, struct{ S secret }{s})
	if strings.Contains(b.String(), "hunter2") || strings.Contains(b.String(), hex.EncodeToString([]byte("hunter2"))) {
		t.Errorf("the secret prints: %s", b.String())
	}
}
