package main

// The CA, what it signs and refuses to sign, the certificate routes and what a certificate is worth on each request,
// judged by crypto/x509 and the real openssl. Certificates arrive as a trusted proxy passes them on.

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const caPassword = "correct horse battery staple"

// issuing is the environment of a server behind the tests' proxy that issues certificates, to whoever asks.
var issuing = append([]string{"PKI_ENABLED=1", "PKI_CA_PASSWORD=" + caPassword, "REGISTRATION=open", "REGISTER_POW=0",
	"RATE_REGISTER=0"}, proxied...)

// holder is somebody with a key and a certificate.
type holder struct {
	key crypto.Signer
	der []byte
}

func (h *holder) sha1() string   { s, _ := fingerprints(h.der); return s }
func (h *holder) sha256() string { _, s := fingerprints(h.der); return s }
func (h *holder) serial() string { return serialHex(must(x509.ParseCertificate(h.der)).SerialNumber) }

// as returns the headers with which the proxy shows h's certificate; nil: nobody's.
func as(h *holder, more ...string) []string {
	list := append([]string{"X-Proxy-Secret: " + proxySecret}, more...)
	if h != nil {
		list = append(list, "X-SSL-Client-SHA1: "+base64.StdEncoding.EncodeToString(h.der))
	}
	return list
}

func p256() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func derOf(text []byte) []byte {
	block, _ := pem.Decode(text)
	return block.Bytes
}

// csrPEM makes a request as a client does.
func csrPEM(name string, key crypto.Signer) []byte {
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}
	return pemOf("CERTIFICATE REQUEST", must(x509.CreateCertificateRequest(rand.Reader, template, key)))
}

// selfSigned makes a pseudonym.
func selfSigned(name string) *holder {
	key := p256()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotAfter: time.Now().Add(time.Hour)}
	return &holder{key, must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))}
}

// issued gives somebody a certificate as `pki issue` does, without its tenth of a second for the CA's password.
func (ts *testServer) issued(name string, days int, isAdmin bool) *holder {
	ts.t.Helper()
	c, h := &certificate{name: name, vouched: true, admin: isAdmin}, &holder{key: p256()}
	h.der = must(issueLeaf(ts.ca, h.key.Public(), c, days, ts.clock.now(), ts.cfg.crlURL()))
	must(0, ts.store.addCertificate(c, "", ""))
	return h
}

// ask posts a request of name and a new key to path, as h (nil: nobody).
func (ts *testServer) ask(path string, h *holder, name string) (*ecdsa.PrivateKey, *answer) {
	ts.t.Helper()
	key := p256()
	return key, ts.do("POST", path, bytes.NewReader(csrPEM(name, key)), as(h)...)
}

// refused is ask that gets nothing.
func (ts *testServer) refused(path string, h *holder, status int, code string) {
	ts.t.Helper()
	_, a := ts.ask(path, h, "alice")
	a.want(status, code)
}

// sign is ask that makes a new holder.
func (ts *testServer) sign(path string, h *holder, name string) *holder {
	ts.t.Helper()
	key, a := ts.ask(path, h, name)
	return &holder{key, derOf([]byte(a.want(200, "").body))}
}

// wantTier compares what the server says of a certificate: the tier, or the code of its refusal.
func (ts *testServer) wantTier(h *holder, want string) {
	ts.t.Helper()
	var got struct {
		Code string
		You  struct{ Tier string }
	}
	err := json.Unmarshal([]byte(ts.get("/", as(h)...).body), &got)
	if err != nil || got.Code+got.You.Tier != want {
		ts.t.Errorf("tier %s, %v; want %s", got, err, want)
	}
}

// flaskpaste runs an operator's command within this process; env is NAME=value without the FLASKPASTE_.
func flaskpaste(env []string, args ...string) (code int, out, errs string) {
	var stdout, stderr bytes.Buffer
	var environ []string
	for _, e := range env {
		environ = append(environ, "FLASKPASTE_"+e)
	}
	code = run(append([]string{"flaskpaste"}, args...), environ, &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// pki runs `flaskpaste pki ...` on the server's database, as another process would, and wants it to go well.
func (ts *testServer) pki(args ...string) string {
	env := []string{"DATABASE=" + ts.cfg.database, "PKI_CA_PASSWORD=" + caPassword}
	return must(flaskpaste3(env, append([]string{"pki"}, args...)...))
}

// openssl runs the real one in dir.
func openssl(t testing.TB, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(need(t, "openssl"), args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustOpenssl(t testing.TB, dir string, args ...string) string {
	t.Helper()
	out, err := openssl(t, dir, args...)
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func writeFiles(_ testing.TB, dir string, files map[string][]byte) {
	for name, data := range files {
		must(0, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
}

// ---- the CA ----

func TestCAKeyAtRest(t *testing.T) {
	ca, other := must(newCA(time.Now())), must(newCA(time.Now()))
	blob := must(sealCAKey(ca.key, caPassword, ca.cert))
	again := must(sealCAKey(ca.key, caPassword, ca.cert))
	if bytes.Contains(blob, must(ca.key.Bytes())) || bytes.Equal(blob[:32], again[:32]) {
		t.Error("the sealed key shows the key, or two seals have one salt")
	}
	flipped := bytes.Clone(blob)
	flipped[len(flipped)-1] ^= 1
	for _, tc := range []struct {
		name     string
		blob     []byte
		password string
		cert     *x509.Certificate
		want     error
	}{
		{"well", again, caPassword, ca.cert, nil},
		{"wrong password", blob, caPassword + "x", ca.cert, errCAPassword},
		{"no password", blob, "", ca.cert, errNoPassword},
		{"certificate of another CA", blob, caPassword, other.cert, errCAPassword},
		{"key of another CA", must(sealCAKey(other.key, caPassword, ca.cert)), caPassword, ca.cert, errCAPassword},
		{"one bit flipped", flipped, caPassword, ca.cert, errCAPassword},
		{"nothing", nil, caPassword, ca.cert, errCAPassword},
	} {
		key, err := openCAKey(tc.blob, tc.password, tc.cert)
		if !errors.Is(err, tc.want) || (key != nil) != (err == nil) || key != nil && !key.Equal(ca.key) {
			t.Errorf("%s: error %v, want %v", tc.name, err, tc.want)
		}
	}
}

// TestStartOfTheCA: what no restart cures is exit 78 in one line, and a CA is made once, by a clock that can be right.
func TestStartOfTheCA(t *testing.T) {
	ts := start(t)
	_, err := openAuthority(ts.store, caPassword, true, time.Unix(0, 0))
	if !strings.Contains(fmt.Sprint(err), "the clock") || ts.number("SELECT count(*) FROM authority") != 0 {
		t.Errorf("in 1970: %v", err)
	}
	dir := t.TempDir()
	refused := func(env ...string) {
		t.Helper()
		p := tryLaunch(t, dir, append([]string{"DATABASE=" + database(dir)}, env...)...)
		log := p.logs.String()
		if p.url != "" || p.cmd.ProcessState.ExitCode() != exitConfig || strings.Count(log, "\n") != 1 ||
			!strings.Contains(log, "FLASKPASTE_PKI_CA_PASSWORD") || strings.Contains(log, caPassword) {
			t.Errorf("%v: %v: %s", env, p.cmd.ProcessState, log)
		}
	}
	refused("PKI_ENABLED=1")
	startIn(t, dir, issuing...).stop()
	refused("PKI_ENABLED=1", "PKI_CA_PASSWORD="+caPassword+"x")
	refused("PKI_ENABLED=1")
	// By a clock that has gone back the CA is not valid yet: the log says so, and nothing is signed.
	early := startAt(t, dir, -time.Hour, issuing...)
	if !strings.Contains(early.logs.String(), "the CA is not valid yet") {
		t.Errorf("log: %s", early.logs)
	}
	early.refused("/csr", nil, 503, "ca_not_valid")
	if early.number("SELECT count(*) FROM certs") != 0 {
		t.Error("a certificate was stored")
	}
}

func TestCAAndLeaf(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	ts := start(t, append([]string{"PUBLIC_URL=https://paste.example"}, issuing...)...)
	ca := must(x509.ParseCertificate(derOf([]byte(ts.get("/pki/ca.crt").want(200, "").body))))
	ts.clock.hold()
	alice := ts.sign("/csr", nil, "alice")
	writeFiles(t, dir, map[string][]byte{"ca": pemOf("CERTIFICATE", ca.Raw), "leaf": pemOf("CERTIFICATE", alice.der)})
	leaf := must(x509.ParseCertificate(alice.der)) // its usages are in TestRequests
	if !ca.IsCA || !ca.MaxPathLenZero || ca.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign ||
		ca.SignatureAlgorithm != x509.ECDSAWithSHA256 || ca.PublicKey.(*ecdsa.PublicKey).Curve != elliptic.P256() ||
		!slices.Equal(leaf.CRLDistributionPoints, []string{"https://paste.example/pki/ca.crl"}) {
		t.Errorf("CA %+v, leaf %+v", ca, leaf)
	}
	mustOpenssl(t, dir, "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca", "leaf")
	if out, err := openssl(t, dir, "verify", "-purpose", "sslserver", "-CAfile", "ca", "leaf"); err == nil {
		t.Errorf("a leaf passed as a server's certificate: %s", out)
	}
	// Dates: five minutes back, ten years, and nothing past the CA; a serial of 128 bits.
	ts.clock.advance(ca.NotAfter.Sub(now) - time.Hour)
	late := must(x509.ParseCertificate(ts.sign("/csr", nil, "alice").der))
	for _, off := range []time.Duration{ca.NotAfter.Sub(now.AddDate(10, 0, 0)), late.NotAfter.Sub(ca.NotAfter),
		leaf.NotBefore.Sub(now.Add(-5 * time.Minute)), leaf.NotAfter.Sub(now.AddDate(0, 0, int(ts.cfg.certDays)))} {
		if off.Abs() > time.Minute || leaf.SerialNumber.BitLen() <= 120 {
			t.Errorf("off by %v: CA %v to %v, leaf %v to %v, serial %x, late %v", off, ca.NotBefore, ca.NotAfter,
				leaf.NotBefore, leaf.NotAfter, leaf.SerialNumber, late.NotAfter)
		}
	}
	ts.clock.advance(time.Hour)
	ts.refused("/csr", nil, 503, "ca_not_valid")
}

// ---- requests ----

// rsaRequest is a request with an RSA key that nobody holds: only a check of the key before that of the signature
// blames the key.
func rsaRequest(bits uint, e int) string {
	n := new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), bits-1), big.NewInt(1))
	var info struct {
		Version                  int
		Subject, Key, Attributes asn1.RawValue
	}
	must(asn1.Unmarshal(must(x509.ParseCertificateRequest(derOf(csrPEM("alice", p256())))).RawTBSCertificateRequest,
		&info))
	info.Key = asn1.RawValue{FullBytes: must(x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n, E: e}))}
	return string(pemOf("CERTIFICATE REQUEST", must(asn1.Marshal(struct {
		Info, Algorithm asn1.RawValue
		Signature       asn1.BitString
	}{asn1.RawValue{FullBytes: must(asn1.Marshal(info))},
		asn1.RawValue{FullBytes: must(asn1.Marshal(pkix.AlgorithmIdentifier{
			Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue}))},
		asn1.BitString{Bytes: make([]byte, 256), BitLength: 2048}}))))
}

func TestRequests(t *testing.T) {
	ts, dir, key := start(t, issuing...), t.TempDir(), p256()
	block := func(kind string, der []byte) string { return string(pemOf(kind, der)) }
	pkcs10 := func(der []byte) string { return block("CERTIFICATE REQUEST", der) }
	text := string(csrPEM("alice", key))
	der := derOf([]byte(text))
	damaged := bytes.Clone(der)
	damaged[len(damaged)-1] ^= 1
	writeFiles(t, dir, map[string][]byte{"key": pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))})
	byOpenssl := func(args ...string) string {
		request := []string{"req", "-new", "-key", "key", "-subj", "/CN=alice", "-out", "csr"}
		mustOpenssl(t, dir, append(request, args...)...)
		return string(must(os.ReadFile(filepath.Join(dir, "csr"))))
	}
	named := func(names ...string) string {
		var list []pkix.AttributeTypeAndValue
		for _, n := range names {
			list = append(list, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: n})
		}
		template := &x509.CertificateRequest{Subject: pkix.Name{ExtraNames: list}}
		return pkcs10(must(x509.CreateCertificateRequest(rand.Reader, template, key)))
	}
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	good := []string{text, strings.ReplaceAll(text, "\n", "\r\n"), "\n" + text + "\n\n",
		text + strings.Repeat("\n", csrMax-len(text)), block("NEW CERTIFICATE REQUEST", der),
		string(csrPEM("alice", must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)))),
		string(csrPEM("alice", must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)))), string(csrPEM("alice", ed)),
		string(csrPEM("alice", must(rsa.GenerateKey(rand.Reader, 2048)))),
		// It asks for more than it gets:
		byOpenssl("-subj", "/O=admin/CN=alice", "-addext", "basicConstraints=critical,CA:TRUE", "-addext",
			"keyUsage=critical,keyCertSign,cRLSign", "-addext", "extendedKeyUsage=serverAuth", "-addext",
			"subjectAltName=DNS:a.example,IP:127.0.0.1")}
	for _, n := range []string{"a", "alice@example.org", "Alice B. Carol-Dean_2", strings.Repeat("n", 64), "..", "-"} {
		good = append(good, named(n))
	}
	badNames := []string{named("alice", "admin"), named("alice", "alice"), named()}
	for _, n := range []string{" ", " a", "a ", strings.Repeat("n", 65), "a\n", "a\x00b", "a/b", `a\b`, "älice",
		"аlice", "a\u202eb", `a"b`, "a;b", "a,b", "a=b", "a\tb", "<b>", "٣"} {
		badNames = append(badNames, named(n))
	}
	for says, texts := range map[string][]string{
		"":                   good,
		"common name":        badNames,
		"larger than 16 KiB": {text + strings.Repeat("\n", csrMax+1-len(text)), strings.Repeat(text, 1<<20/len(text))},
		"one PEM block": {"", "\n \n", string(der), block("CERTIFICATE", ts.ca.cert.Raw), text + text,
			"Request:\n" + text, block("OLD CERTIFICATE REQUEST", der), text + "x",
			text + block("PRIVATE KEY", []byte("x")), "-----BEGIN CERTIFICATE REQUEST-----\n!\n" + text,
			strings.Replace(text, "-----\n", "-----\nProc-Type: 4,ENCRYPTED\n\n", 1)},
		"PKCS #10": {pkcs10(append(bytes.Clone(der), 5, 0)), pkcs10(der[:60]), pkcs10([]byte("noise")),
			pkcs10(bytes.Replace(der, []byte{0xce, 0x3d, 3, 1, 7}, []byte{0xce, 0x3d, 3, 1, 9}, 1))}, // no such curve
		"the key must be": {string(csrPEM("alice", must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)))),
			rsaRequest(2047, 65537), rsaRequest(8193, 65537), rsaRequest(90_000, 65537), rsaRequest(2048, 3)},
		"not signed by its own key": {pkcs10(damaged), pkcs10(bytes.Replace(der, []byte("alice"), []byte("alicf"), 1)),
			byOpenssl("-sha1"), rsaRequest(8192, 65537), rsaRequest(2048, 65538), rsaRequest(2048, 1<<31+1)},
	} {
		for i, text := range texts {
			before := ts.number("SELECT count(*) FROM certs")
			a := ts.do("POST", "/csr", strings.NewReader(text))
			rows := ts.number("SELECT count(*) FROM certs") - before
			if says != "" {
				wrong := "400 bad_csr"
				if strings.Contains(says, "larger") {
					wrong = "413 too_large"
				}
				got := fmt.Sprint(a.StatusCode, " ", a.field("code"))
				if got != wrong || !strings.Contains(a.field("error"), says) || rows != 0 {
					t.Errorf("%s, %d: status %d, %s, %d rows: %.300s", says, i, a.StatusCode, a.body, rows, text)
				}
				continue
			}
			if a.StatusCode != 200 || rows != 1 {
				t.Errorf("good, %d: status %d, %s: %s", i, a.StatusCode, a.body, text)
				continue
			}
			csr := must(x509.ParseCertificateRequest(derOf([]byte(strings.TrimSpace(text)))))
			leaf := must(x509.ParseCertificate(derOf([]byte(a.body))))
			if !bytes.Equal(csr.RawSubjectPublicKeyInfo, leaf.RawSubjectPublicKeyInfo) ||
				leaf.Subject.String() != "CN="+csr.Subject.CommonName ||
				leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.ExtKeyUsage) != 1 ||
				leaf.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth ||
				len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses)+len(leaf.UnknownExtKeyUsage) != 0 {
				t.Errorf("%d: not key and name alone: %s %v %v", i, leaf.Subject, leaf.KeyUsage, leaf.DNSNames)
			}
		}
	}
}

// ---- routes ----

// TestCertificateRoutes: who may do what, and what is said to the others. Nothing of it stores a certificate or
// revokes one.
func TestCertificateRoutes(t *testing.T) {
	ts := start(t, append(slices.Clone(issuing), "REGISTER_POW=4", "POW_DIFFICULTY=4")...)
	alice, bob, root := ts.issued("alice", 365, false), ts.issued("bob", 365, false), ts.issued("root", 365, true)
	twin := &holder{alice.key, bytes.Clone(alice.der)} // the same serial, name and key are not the same certificate
	twin.der[len(twin.der)-1] ^= 1
	holders := map[string]*holder{"root": root, "alice": alice, "bob": bob, "twin": twin,
		"pseudonym": selfSigned("alice")}
	off := startIn(t, ts.copied(), append(slices.Clone(issuing), "PKI_ENABLED=0")...)
	servers := map[string]*testServer{"on": ts, "off": off, "new": start(t),
		"closed": start(t, append(slices.Clone(issuing), "REGISTRATION=closed")...)}
	revoke, csr := "/pki/revoke/"+alice.serial(), string(csrPEM("x", p256()))
	const changed = "SELECT count(*) + 1000 * count(nullif(revoked_at, 0)) FROM certs"
	for line := range strings.Lines(strings.ReplaceAll(`
on nobody    POST /pki/issue 401 authentication_required
on pseudonym POST /pki/issue 403 not_admin
on alice     POST /pki/issue 403 not_admin
on root      POST /pki/issue ?days=0 ?days=-1 ?days=3661 ?days=07 ?days=7&days=8 ?days=%zz ?admin=1 400 bad_option
on nobody    POST /pki/renew 401 authentication_required
on pseudonym POST /pki/renew 403 not_trusted
on alice     POST /pki/renew ?days=3 400 bad_option
on nobody    GET  /pki/certs 401 authentication_required
on nobody    POST REVOKE 401 authentication_required
on bob       POST REVOKE 403 not_owner
on pseudonym POST REVOKE 403 not_owner
on twin      POST REVOKE 403 not_owner
on root      POST /pki/revoke/ 00000000000000000000000000000000 zz 404 not_found
on root      POST REVOKE ?reason= ?reason=removeFromCRL 400 bad_option
on root      POST REVOKE ?reason=superseded&reason=superseded ?reason=superseded; 400 bad_option
on nobody    POST /csr 400 pow_required
closed nobody POST /csr 403 registration_closed
closed alice  POST /csr 403 registration_closed
closed nobody GET  /register/challenge 403 registration_closed
off nobody POST /csr 404 pki_disabled
off root   POST /pki/issue 404 pki_disabled
off alice  POST /pki/renew 404 pki_disabled
off nobody GET  /register/challenge 404 pki_disabled
off nobody GET  /pki/ca.crl 404 pki_disabled
new nobody GET  /pki/ca.crt 404 pki_disabled`[1:], "REVOKE", revoke)) {
		f := strings.Fields(line) // server, who, method, path, what may be behind it, status, code
		ts, ends := servers[f[0]], f[4:len(f)-2]
		if len(ends) == 0 {
			ends = []string{""}
		}
		for _, end := range ends {
			rows, path := ts.number(changed), f[3]+end
			a := ts.do(f[2], path, strings.NewReader(csr), as(holders[f[1]])...)
			got := fmt.Sprint(a.StatusCode, " ", a.field("code"), " ", ts.number(changed)-rows)
			if got != strings.Join(f[len(f)-2:], " ")+" 0" {
				t.Errorf("%s, %s: status %d, %s; or something was stored", line, path, a.StatusCode, a.body)
			}
		}
	}
	ts.do("POST", revoke, nil, as(alice, "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")...).want(403,
		"cross_origin")
	ts.wantTier(alice, "trusted")
	// A refused request does not spend the work; a certificate does, for good. A paste's work is not enough.
	work := ts.get("/register/challenge").want(200, "").work().solve(t)
	ts.do("POST", "/csr", strings.NewReader("nonsense"), work...).want(400, "bad_csr")
	ts.do("POST", "/csr", strings.NewReader(csr), work...).want(200, "")
	ts.do("POST", "/csr", strings.NewReader(csr), work...).want(400, "pow_failed")
	ts.do("POST", "/csr", strings.NewReader(csr), ts.work().solve(t)...).want(400, "pow_failed")
	// Without PKI what was issued counts all the same.
	off.wantTier(alice, "trusted")
	if a := off.get("/pki"); a.field("enabled") != "false" || a.field("ca_exists") != "true" {
		t.Errorf("off: %s", a.body)
	}
	off.do("POST", revoke, nil, as(alice)...).want(200, "")
	off.wantTier(alice, "certificate_revoked")
}

// copied is a new folder with a backup of the database.
func (ts *testServer) copied() string {
	dir := ts.t.TempDir()
	must(flaskpaste3([]string{"DATABASE=" + ts.cfg.database}, "backup", database(dir)))
	return dir
}

func TestLine(t *testing.T) {
	ts := start(t, issuing...)
	root, alice := ts.issued("root", 365, true), ts.issued("alice", 365, false)
	id := ts.create("alice's", as(alice)...).ID
	key, a := ts.ask("/pki/renew", alice, "another name")
	renewed := &holder{key, derOf([]byte(a.want(200, "").body))}
	leaf := must(x509.ParseCertificate(renewed.der))
	for name, want := range map[string]string{"Content-Type": "application/x-pem-file", "X-Is-Admin": "0",
		"X-Fingerprint-Sha1": renewed.sha1(), "X-Fingerprint-Sha256": renewed.sha256(),
		"Content-Disposition": `attachment; filename="alice.crt"`, "X-Certificate-Serial": renewed.serial(),
		"X-Certificate-Expires": strconv.FormatInt(leaf.NotAfter.Unix(), 10)} {
		if got := a.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if leaf.Subject.CommonName != "alice" { // a renewal keeps the line's name
		t.Errorf("renewed as %s", leaf.Subject)
	}
	ts.do("PUT", "/"+id, nil, as(renewed, "X-Expiry: 9d")...).want(200, "") // it owns what the first one made
	// A name is no owner: another alice sees and may nothing of it.
	second := ts.issued("alice", 365, false)
	ts.do("DELETE", "/"+id, nil, as(second)...).want(403, "not_owner")
	sees := func(h *holder, want ...*holder) {
		t.Helper()
		body := ts.get("/pki/certs", as(h)...).want(200, "").body
		ok := strings.Contains(body, fmt.Sprintf(`],"count":%d}`, len(want)))
		for _, w := range want {
			ok = ok && strings.Count(body, `"serial":"`+w.serial()+`"`) == 1
		}
		if !ok || strings.Count(body, `"serial":`) != len(want) {
			t.Errorf("%d certificates expected: %s", len(want), body)
		}
	}
	sees(alice, alice, renewed)
	sees(selfSigned("alice"))
	sees(root, root, alice, renewed, second)
	// A revocation, by any spelling of any serial, takes the line down with the next request.
	spelled := "0X" + strings.ToUpper(regexp.MustCompile("..").ReplaceAllString(renewed.serial(), "$0:"))
	ts.do("POST", "/pki/revoke/"+url.PathEscape(strings.TrimSuffix(spelled, ":"))+"?reason=keyCompromise", nil,
		as(alice)...).want(200, "")
	for _, h := range []*holder{alice, renewed} {
		ts.wantTier(h, "certificate_revoked")
		ts.refused("/pki/renew", h, 403, "certificate_revoked")
	}
	ts.do("POST", "/pki/revoke/"+alice.serial(), nil, as(root)...).want(200, "") // again is no error
	ts.wantTier(second, "trusted")
	// Renewing costs no work, so it has an end.
	for range lineMost - 1 {
		ts.sign("/pki/renew", second, "alice")
	}
	ts.refused("/pki/renew", second, 409, "too_many_certificates")
	if n := ts.number("SELECT count(*) FROM certs WHERE owner = ?", second.sha256()); n != lineMost {
		t.Errorf("%d certificates of one owner", n)
	}
}

// TestRenewalAfterTheEnd: for 90 days an ended certificate may do one thing, and then nothing.
func TestRenewalAfterTheEnd(t *testing.T) {
	ts := start(t, append([]string{"MAX_EXPIRY=365d", "EXPIRY_TRUSTED=365d"}, issuing...)...)
	ts.clock.hold()
	alice := ts.issued("alice", 1, false)
	ts.clock.advance(91*24*time.Hour - time.Second)
	ts.do("GET", "/pki/certs", nil, as(alice)...).want(403, "certificate_expired")
	renewed := ts.sign("/pki/renew", alice, "alice")
	if got := ts.create("x", as(renewed)...).Owner; got != alice.sha256() {
		t.Errorf("the owner is %s", got)
	}
	ts.clock.advance(time.Second)
	ts.refused("/pki/renew", alice, 403, "certificate_expired")
	ts.wantTier(renewed, "trusted")
	// Who enrolled himself is forgotten after that, as a whole line; who was vouched for is not.
	stranger := ts.sign("/csr", nil, "stranger")
	ts.clock.advance((365 + 365) * 24 * time.Hour)
	ts.sweep()
	ts.wantTier(stranger, "untrusted")
	ts.wantTier(alice, "certificate_expired")
}

// TestRefusedOnEveryRoute: revoked, ended, too early, with the hint that says what to do; health alone is answered.
func TestRefusedOnEveryRoute(t *testing.T) {
	ts := start(t, issuing...)
	revoked, ended := ts.issued("revoked", 365, false), ts.issued("ended", 1, false)
	ts.pki("revoke", revoked.serial())
	ts.clock.advance(25 * time.Hour)
	early := ts.issued("early", 1, false)
	ts.clock.advance(-6 * time.Minute) // a leaf begins five minutes back
	id := ts.create("x").ID
	paths := []string{"GET /nowhere/at/all", "PATCH /" + id}
	for _, r := range routes() {
		paths = append(paths, strings.NewReplacer("{$}", "", "{view}", "raw", "{name}", "file.txt", "{id}", id,
			"{serial}", revoked.serial()).Replace(r.pattern))
	}
	hints := map[string]string{"certificate_revoked": "fpaste register -f NAME", "certificate_expired": "fpaste renew",
		"certificate_not_yet_valid": "clock"}
	for _, p := range paths {
		method, path, _ := strings.Cut(p, " ")
		for want, h := range map[string]*holder{"certificate_revoked": revoked, "certificate_expired": ended,
			"certificate_not_yet_valid": early} {
			a := ts.do(method, path, nil, as(h)...)
			switch {
			case path == "/health":
				a.want(200, "")
			case path == "/pki/renew" && h == ended: // as TestRenewalAfterTheEnd
			case a.StatusCode != 403 || a.field("code") != want || !strings.Contains(a.field("hint"), hints[want]):
				t.Errorf("%s: status %d, %.200s; want 403 %s", p, a.StatusCode, a.body, want)
			}
		}
	}
	ts.stored(1)
	// They are counted, so that nobody fills the log with them.
	few := start(t, append([]string{"RATE_AUTH=3/d"}, issuing...)...)
	h := few.issued("x", 1, false)
	few.pki("revoke", h.serial())
	for range 3 {
		few.get("/", as(h)...).want(403, "certificate_revoked")
	}
	few.get("/", as(h)...).want(429, "rate_limited")
	few.get("/", as(nil)...).want(200, "")
}

// TestRights: only the operator makes an admin; rights are those of the line in the moment of writing.
func TestRights(t *testing.T) {
	ts := start(t, append([]string{"POW_DIFFICULTY=4", "POW_FREE=0"}, issuing...)...)
	first := ts.sign("/csr", nil, "admin") // being first, or being called so, gives nothing
	ts.wantTier(first, "trusted")
	ts.pki("admin", strings.ToUpper(first.serial()), "on")
	ts.wantTier(first, "admin")
	bob := ts.sign("/pki/issue?days=3", first, "bob")
	ts.wantTier(bob, "trusted")
	if days := time.Until(must(x509.ParseCertificate(bob.der)).NotAfter).Round(time.Hour); days != 72*time.Hour {
		t.Errorf("bob's certificate lives %v", days)
	}
	renewed := ts.sign("/pki/renew", first, "admin")
	ts.wantTier(renewed, "admin")
	// Vouched for is who got it from the operator or an admin: no work. The rest work, admins too if they enrolled.
	ts.post("x", as(bob)...).want(201, "")
	ts.post("x", as(ts.sign("/pki/renew", bob, "bob"))...).want(201, "")
	ts.post("x", as(renewed)...).want(400, "pow_required")
	// Lost while the request is open.
	csr := string(csrPEM("x", p256()))
	issue, renew := ts.slowly("POST /pki/issue", csr, as(first)...), ts.slowly("POST /pki/renew", csr, as(bob)...)
	other := ts.slowly("POST /pki/renew", csr, as(first)...)
	ts.pki("admin", renewed.serial(), "off") // any certificate of the line will do
	ts.pki("revoke", bob.serial())
	rows := ts.number("SELECT count(*) FROM certs")
	issue().want(403, "not_admin")
	renew().want(403, "certificate_revoked")
	if n := ts.number("SELECT count(*) FROM certs"); n != rows {
		t.Errorf("%d certificates, %d before", n, rows)
	}
	if a := other().want(200, ""); a.Header.Get("X-Is-Admin") != "0" {
		t.Error("renewed with rights that were taken away")
	}
	ts.wantTier(first, "trusted")
	ts.wantTier(renewed, "trusted")
	// Enrolling is rated.
	few := start(t, append(slices.Clone(issuing), "RATE_REGISTER=2/h")...)
	few.sign("/csr", nil, "a")
	few.sign("/csr", nil, "b")
	few.refused("/csr", nil, 429, "rate_limited")
}

// TestCRL: openssl tells by it who is revoked; its number grows over a revocation, a day, a restart and a clock that
// goes back.
func TestCRL(t *testing.T) {
	dir, home := t.TempDir(), t.TempDir()
	env := append([]string{"PUBLIC_URL=https://paste.example", "URL_PREFIX=/p"}, issuing...)
	ts := startIn(t, home, env...)
	ts.clock.hold()
	alice, bob := ts.issued("alice", 365, false), ts.issued("bob", 365, false)
	writeFiles(t, dir, map[string][]byte{"ca": []byte(ts.get("/pki/ca.crt").want(200, "").body),
		"alice": pemOf("CERTIFICATE", alice.der), "bob": pemOf("CERTIFICATE", bob.der)})
	cert := ts.ca.cert
	s1, s256 := fingerprints(cert.Raw)
	want := fmt.Sprintf(`{"enabled":true,"ca_exists":true,"common_name":"FlaskPaste CA","fingerprint_sha1":%q,`+
		`"fingerprint_sha256":%q,"created_at":%d,"expires_at":%d,"ca_url":"/p/pki/ca.crt","crl_url":"/p/pki/ca.crl"}`,
		s1, s256, cert.NotBefore.Unix(), cert.NotAfter.Unix())
	if got := ts.get("/pki").want(200, "").body; got != want+"\n" {
		t.Errorf("GET /pki: %s, want %s", got, want)
	}
	var last *x509.RevocationList
	next := func(why string, grows bool, entries int) {
		t.Helper()
		a := ts.get("/pki/ca.crl").want(200, "")
		list := must(x509.ParseRevocationList([]byte(a.body)))
		if a.Header.Get("Content-Type") != "application/pkix-crl" ||
			a.Header.Get("Cache-Control") != "public, no-cache" || len(list.RevokedCertificateEntries) != entries ||
			list.NextUpdate.Sub(list.ThisUpdate) != 7*24*time.Hour || last != nil &&
			list.Number.Cmp(last.Number) != map[bool]int{true: 1}[grows] {
			t.Errorf("%s: %v, number %v after %v, %d entries, from %v to %v", why, a.Header, list.Number, last.Number,
				len(list.RevokedCertificateEntries), list.ThisUpdate, list.NextUpdate)
		}
		last = list
		writeFiles(t, dir, map[string][]byte{"crl": pemOf("X509 CRL", []byte(a.body))})
	}
	next("first", true, 0)
	next("again", false, 0)
	ts.pki("revoke", bob.serial(), "--reason", "keyCompromise") // another process; the list shows it at once
	next("revoked", true, 1)
	if last.RevokedCertificateEntries[0].ReasonCode != 1 ||
		serialHex(last.RevokedCertificateEntries[0].SerialNumber) != bob.serial() {
		t.Errorf("entries %v", last.RevokedCertificateEntries)
	}
	mustOpenssl(t, dir, "verify", "-crl_check", "-CAfile", "ca", "-CRLfile", "crl", "alice")
	if out, err := openssl(t, dir, "verify", "-crl_check", "-CAfile", "ca", "-CRLfile", "crl", "bob"); err == nil ||
		!strings.Contains(out, "certificate revoked") {
		t.Errorf("openssl takes a revoked certificate: %v\n%s", err, out)
	}
	ts.clock.advance(24*time.Hour - time.Second)
	next("within the day", false, 1)
	ts.clock.advance(time.Second)
	next("a day later", true, 1)
	ts.stop()
	ts = startAt(t, home, -time.Minute, env...) // a day and a minute before the last list
	next("clock went back over a restart", true, 1)
	ts.pki("revoke", alice.serial())
	next("and a revocation", true, 2)
	ts.clock.advance(400 * 24 * time.Hour) // both certificates have ended long ago
	next("ended", true, 0)
}

// TestRestoredBackup: it brings back the table as it was then, and what is revoked again holds.
func TestRestoredBackup(t *testing.T) {
	ts := start(t, issuing...)
	alice, bob := ts.issued("alice", 365, false), ts.issued("bob", 365, false)
	ts.pki("revoke", bob.serial())
	dir := ts.copied()
	ts.pki("revoke", alice.serial())
	late := ts.issued("late", 365, false)
	number := func(ts *testServer) *big.Int {
		return must(x509.ParseRevocationList([]byte(ts.get("/pki/ca.crl").body))).Number
	}
	before := number(ts)
	ts.stop()
	restored := startIn(t, dir, issuing...)
	restored.wantTier(bob, "certificate_revoked")
	restored.wantTier(late, "untrusted") // the backup never heard of it: a pseudonym like any
	restored.wantTier(alice, "trusted")
	restored.pki("revoke", alice.serial())
	restored.wantTier(alice, "certificate_revoked")
	if again := number(restored); again.Cmp(before) <= 0 {
		t.Errorf("CRL number %v after %v", again, before)
	}
}

// TestAudit: what an operator must find later is a line at warn, and no line says a secret.
func TestAudit(t *testing.T) {
	ts := start(t, append([]string{"LOG_LEVEL=warn"}, issuing...)...)
	root, alice := ts.issued("root", 365, true), ts.issued("alice", 365, false)
	id := ts.create("secret content", as(alice, "X-Paste-Password: hunter2hunter2")...).ID
	made, renewed := ts.sign("/pki/issue", root, "x"), ts.sign("/pki/renew", alice, "alice")
	enrolled := ts.sign("/csr", nil, "x")
	ts.get("/"+id+"/raw", as(nil, "X-Paste-Password: wrong password")...).want(403, "password_wrong")
	ts.do("DELETE", "/"+id, nil, as(enrolled, "X-Request-ID: try-1")...).want(403, "not_owner")
	ts.do("DELETE", "/"+id, nil, as(root)...).want(200, "")
	ts.do("POST", "/pki/revoke/"+alice.serial(), nil, as(root)...).want(200, "")
	ts.get("/", as(alice)...).want(403, "certificate_revoked")
	ts.get("/", as(nil, "X-SSL-Client-SHA1: nonsense")...).want(400, "bad_client_certificate")
	logs := ts.logs.String()
	for _, want := range []string{
		"event=issue outcome=ok owner=" + root.sha256() + " object=" + made.serial() + " request_id=",
		"event=renewal outcome=ok owner=" + alice.sha256() + " object=" + renewed.serial(),
		"event=enrolment outcome=ok owner=" + enrolled.sha256() + " object=" + enrolled.serial(),
		`event=authentication_failed outcome=password_wrong owner="" object=` + id[:4] + " ",
		"event=authentication_failed outcome=not_owner owner=" + enrolled.sha256() + " object=" + id[:4] +
			" request_id=try-1\n",
		"event=deletion_by_admin outcome=ok owner=" + root.sha256() + " object=" + id[:4] + " ",
		"event=revocation outcome=ok owner=" + root.sha256() + " object=" + alice.serial(),
		"event=certificate_refused outcome=certificate_revoked owner=" + alice.sha256(),
		"event=certificate_refused outcome=bad_client_certificate",
	} {
		if !strings.Contains(logs, "level=WARN msg=audit audit=true "+want) {
			t.Errorf("no line with %q", want)
		}
	}
	for _, never := range []string{id, "hunter2", "wrong password", "secret content", proxySecret, caPassword,
		"PRIVATE KEY"} {
		if strings.Contains(logs, never) {
			t.Errorf("the log has %q", never)
		}
	}
}
