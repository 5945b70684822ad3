package main

// Our own TLS: certificates proven but not required, resumed sessions, HTTP/2, and certificate files that change under way.

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func unixDial(path string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
}

// serverCert writes a certificate for localhost and its key, and returns its serial's value for telling it from the next one.
func serverCert(t testing.TB, certPath, keyPath string, serial int64) {
	t.Helper()
	key := p256(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{{127, 0, 0, 1}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	writeFile(t, certPath, pemOf("CERTIFICATE", der))
	writeFile(t, keyPath, pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))))
}

// tlsServer is the real program with TLS of its own.
type tlsServer struct {
	*process
	cert, key, database string
}

func launchTLS(t testing.TB, env ...string) *tlsServer {
	dir := t.TempDir()
	s := &tlsServer{cert: filepath.Join(dir, "server.pem"), key: filepath.Join(dir, "server.key"), database: filepath.Join(dir, "flaskpaste.db")}
	serverCert(t, s.cert, s.key, 1)
	s.process = launch(t, dir, append([]string{"DATABASE=" + s.database, "TLS_CERT=" + s.cert, "TLS_KEY=" + s.key, "PKI_ENABLED=1", "PKI_CA_PASSWORD=" + testCAPassword, "RATE_AUTH=0", "POW_FREE=1000"}, env...)...)
	s.url = "https" + strings.TrimPrefix(s.url, "http")
	return s
}

// client shows h, or nothing; settings change its TLS.
func (s *tlsServer) client(h *holder, settings ...func(*tls.Config)) *http.Client {
	conf := &tls.Config{InsecureSkipVerify: true}
	if h != nil {
		pair := h.tls()
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	for _, set := range settings {
		set(conf)
	}
	tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// call sends one request and returns answer and body.
func (s *tlsServer) call(c *http.Client, method, path, body string, headers ...string) (*http.Response, string) {
	s.t.Helper()
	req := must(http.NewRequest(method, s.url+path, strings.NewReader(body)))
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Add(k, v)
	}
	res, err := c.Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s", method, path, err, s.logs)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res, string(text)
}

func (s *tlsServer) issued(name string, options ...string) *holder {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "bundle.pem")
	if _, err := operatorIn(s.database, append([]string{"issue", name, "-o", path}, options...)...); err != nil {
		s.t.Fatal(err)
	}
	pair := must(tls.LoadX509KeyPair(path, path))
	return &holder{pair.PrivateKey.(crypto.Signer), pair.Certificate[0]}
}

func TestOwnTLS(t *testing.T) {
	s := launchTLS(t)
	alice, revoked, pseudonym := s.issued("alice"), s.issued("revoked"), selfSigned(t, "alice")
	must(operatorIn(s.database, "revoke", revoked.serial()))
	for name, tc := range map[string]struct {
		h      *holder
		status int
		owner  string
	}{"anonymous": {nil, 201, ""}, "self-signed": {pseudonym, 201, pseudonym.sha256()}, "issued": {alice, 201, alice.sha256()}, "revoked": {revoked, 403, ""}} {
		for version, max := range map[string]uint16{"HTTP/2.0": tls.VersionTLS13, "TLS 1.2": tls.VersionTLS12} {
			res, body := s.call(s.client(tc.h, func(c *tls.Config) { c.MaxVersion = max }), "POST", "/", "hello", "Accept: application/json")
			if res.StatusCode != tc.status || tc.owner != "" && !strings.Contains(body, `"owner": "`+tc.owner+`"`) || res.Proto != "HTTP/2.0" || res.TLS.Version != max {
				t.Errorf("%s, %s: status %d, %s, %x, %s", name, version, res.StatusCode, res.Proto, res.TLS.Version, body)
			}
			if res.Header.Get("Strict-Transport-Security") != "max-age=63072000" {
				t.Errorf("%s: Strict-Transport-Security %q", name, res.Header.Get("Strict-Transport-Security"))
			}
		}
	}
	environ := []string{"FLASKPASTE_LISTEN=" + strings.TrimPrefix(s.url, "https://"), "FLASKPASTE_DATABASE=" + s.database, "FLASKPASTE_TLS_CERT=" + s.cert, "FLASKPASTE_TLS_KEY=" + s.key, "FLASKPASTE_MIN_FREE=0"}
	code := 1
	for try := 0; code != 0 && try < 3; try++ { // it waits 3 s, a busy machine may stop for longer
		code = run([]string{"flaskpaste", "healthcheck"}, environ, io.Discard, io.Discard)
	}
	if code != 0 {
		t.Errorf("healthcheck over TLS: exit code %d", code)
	}
	var found strings.Builder
	if code := run([]string{"flaskpaste", "check"}, environ, &found, io.Discard); code == 0 || !strings.Contains(found.String(), "server.pem ends on") { // it ends tomorrow
		t.Errorf("check: exit code %d, %s", code, found.String())
	}
	if c, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		c.Close()
		t.Error("TLS 1.1 is spoken")
	}
	// A certificate without its key: the handshake fails, nobody is anybody.
	stolen := &holder{p256(t), alice.der}
	if res, err := s.client(stolen).Get(s.url + "/pastes"); err == nil {
		res.Body.Close()
		t.Errorf("a certificate was believed without its key: %d", res.StatusCode)
	}
	// Headers from a peer that is no proxy count for nothing.
	if res, body := s.call(s.client(nil), "GET", "/pastes", "", "X-SSL-Client-SHA1: "+alice.sha1()); res.StatusCode != 401 {
		t.Errorf("a forged header: status %d, %s", res.StatusCode, body)
	}
}

// A resumed session keeps the identity without showing the certificate: the table is asked all the same.
func TestResumedSessionIsJudgedAgain(t *testing.T) {
	for name, version := range map[string]uint16{"TLS 1.3": tls.VersionTLS13, "TLS 1.2": tls.VersionTLS12} {
		t.Run(name, func(t *testing.T) {
			s := launchTLS(t)
			alice := s.issued("alice")
			cache := tls.NewLRUClientSessionCache(8)
			c := s.client(alice, func(c *tls.Config) { c.ClientSessionCache, c.MaxVersion = cache, version })
			c.Transport.(*http.Transport).DisableKeepAlives = true
			s.call(c, "GET", "/pastes", "")
			res, _ := s.call(c, "GET", "/pastes", "")
			if !res.TLS.DidResume || res.StatusCode != 200 {
				t.Fatalf("resumed %v, status %d", res.TLS.DidResume, res.StatusCode)
			}
			must(operatorIn(s.database, "revoke", alice.serial()))
			res, body := s.call(c, "GET", "/pastes", "")
			if !res.TLS.DidResume || res.StatusCode != 403 || !strings.Contains(body, "certificate_revoked") {
				t.Errorf("after the revocation: resumed %v, status %d, %s", res.TLS.DidResume, res.StatusCode, body)
			}
		})
	}
}

// One connection kept alive over a revocation is refused with its next request.
func TestRevocationOnAStandingConnection(t *testing.T) {
	s := launchTLS(t)
	alice := s.issued("alice")
	for _, h2 := range []bool{true, false} {
		bob := s.issued("bob")
		c := s.client(bob)
		c.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
		if res, _ := s.call(c, "GET", "/pastes", ""); res.StatusCode != 200 || (res.ProtoMajor == 2) != h2 {
			t.Fatalf("status %d, %s", res.StatusCode, res.Proto)
		}
		must(operatorIn(s.database, "revoke", bob.serial()))
		if res, _ := s.call(c, "GET", "/pastes", ""); res.StatusCode != 403 {
			t.Errorf("HTTP/2 %v: status %d right after the revocation", h2, res.StatusCode)
		}
	}
	if res, _ := s.call(s.client(alice), "GET", "/pastes", ""); res.StatusCode != 200 {
		t.Errorf("alice: status %d", res.StatusCode)
	}
}

func TestHeaderAndHandshakeTogether(t *testing.T) {
	s := launchTLS(t, "TRUSTED_PROXIES=127.0.0.0/8", "PROXY_SECRET="+testProxySecret)
	alice, bob := s.issued("alice"), s.issued("bob")
	for name, header := range map[string]string{"another's": bob.sha1(), "the same": alice.sha1()} {
		res, body := s.call(s.client(alice), "GET", "/pastes", "", "X-Proxy-Secret: "+testProxySecret, "X-SSL-Client-SHA1: "+header)
		if res.StatusCode != 400 || !strings.Contains(body, "bad_client_certificate") {
			t.Errorf("%s: status %d, %s", name, res.StatusCode, body)
		}
	}
	if res, _ := s.call(s.client(nil), "GET", "/pastes", "", "X-Proxy-Secret: "+testProxySecret, "X-SSL-Client-SHA1: "+alice.sha1()); res.StatusCode != 200 {
		t.Errorf("a proxy over TLS without a certificate of its own: status %d", res.StatusCode)
	}
}

// The files change, or SIGHUP comes: new connections get the new certificate, those that stand go on.
func TestTLSReload(t *testing.T) {
	t.Parallel()
	s := launchTLS(t)
	serial := func() int64 {
		t.Helper()
		c, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	wait := func(want int64) {
		t.Helper()
		for range 400 { // 20 s or more
			if serial() == want {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Fatalf("the certificate is still number %d, want %d: %s", serial(), want, s.logs)
	}
	standing := s.client(nil)
	s.call(standing, "GET", "/health", "")
	serverCert(t, s.cert, s.key, 2)
	wait(2)
	// Half a pair: the certificate is new, the key is not there yet. The old pair goes on.
	key := must(os.ReadFile(s.key))
	serverCert(t, s.cert, s.key, 3)
	newKey := must(os.ReadFile(s.key))
	writeFile(t, s.key, key)
	for try := 0; !strings.Contains(s.logs.String(), "stays as it was"); try++ {
		if got := serial(); got != 2 || try == 400 {
			t.Fatalf("half a pair: number %d: %s", got, s.logs)
		}
		time.Sleep(50 * time.Millisecond)
	}
	writeFile(t, s.key, newKey)
	wait(3)
	// SIGHUP reads the files whether or not they look new.
	read := func() int { return strings.Count(s.logs.String(), "was read again") }
	before := read()
	s.cmd.Process.Signal(syscall.SIGHUP)
	for try := 0; read() == before; try++ {
		if try == 1000 {
			t.Fatalf("SIGHUP read nothing: %s", s.logs)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if res, _ := s.call(standing, "GET", "/health", ""); res.StatusCode != 200 || res.TLS.PeerCertificates[0].SerialNumber.Int64() != 1 {
		t.Errorf("the standing connection: status %d, certificate %v", res.StatusCode, res.TLS.PeerCertificates[0].SerialNumber)
	}
	if code := s.stop(); code != 0 {
		t.Errorf("exit code %d: %s", code, s.logs)
	}
	if code, out := serveOnce(t, filepath.Dir(s.cert), "TLS_CERT="+s.cert, "TLS_KEY="+s.cert); code == 0 || !strings.Contains(out, "TLS_KEY") {
		t.Errorf("a key that is none: exit code %d, %s", code, out)
	}
	if code, out := serveOnce(t, filepath.Dir(s.cert), "TLS_CERT="+s.cert); code == 0 || !strings.Contains(out, "TLS_KEY") {
		t.Errorf("a certificate without a key: exit code %d, %s", code, out)
	}
}

// Without TLS files a SIGHUP is no end.
func TestHangupIsHarmless(t *testing.T) {
	p := launch(t, t.TempDir())
	p.cmd.Process.Signal(syscall.SIGHUP)
	res, err := http.Get(p.url + "/health")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if code := p.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
