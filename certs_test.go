package main

// Certificates through the front door: who is trusted, what a line may do, what a revocation takes down, and the operator's
// commands on the database of a running server. Certificates arrive as from a trusted proxy, or in a real TLS handshake.

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const testProxySecret = "0123456789abcdef-proxy"

// pkiEnv makes a server that trusts the test as its proxy and issues certificates; limits are off where they are not the subject.
var pkiEnv = []string{"PKI_ENABLED=1", "PKI_CA_PASSWORD=" + testCAPassword, "TRUSTED_PROXIES=127.0.0.0/8", "PROXY_SECRET=" + testProxySecret,
	"POW_DIFFICULTY=0", "RATE_CREATE=0", "RATE_READ=0", "RATE_MISS=0", "RATE_AUTH=0", "RATE_REGISTER=0", "DEDUP_MAX=0", "DEDUP_ALL=0"}

func startPKI(t testing.TB, env ...string) *testServer {
	return start(t, append(slices.Clone(pkiEnv), env...)...)
}

// holder is somebody with a key and, once there is one, a certificate.
type holder struct {
	key crypto.Signer
	der []byte
}

func (h *holder) sha256() string { _, s := fingerprints(h.der); return s }
func (h *holder) sha1() string   { s, _ := fingerprints(h.der); return s }
func (h *holder) serial() string {
	return serialHex(must(x509.ParseCertificate(h.der)).SerialNumber)
}
func (h *holder) tls() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{h.der}, PrivateKey: h.key}
}

// selfSigned makes a pseudonym.
func selfSigned(t testing.TB, name string) *holder {
	key := p256(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	return &holder{key, must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))}
}

// as returns the headers with which a proxy shows a certificate; nil: nobody's.
func as(h *holder, more ...string) []string {
	list := append([]string{"X-Proxy-Secret: " + testProxySecret}, more...)
	if h != nil {
		list = append(list, "X-SSL-Client-SHA1: "+base64.StdEncoding.EncodeToString(h.der))
	}
	return list
}

// operator runs `flaskpaste pki ...` on the server's database, as another process would.
func (ts *testServer) operator(args ...string) (string, error) {
	return runOperator([]string{"FLASKPASTE_DATABASE=" + filepath.Join(ts.dir, "flaskpaste.db"), "FLASKPASTE_PUBLIC_URL=" + ts.cfg.publicURL, "FLASKPASTE_URL_PREFIX=" + ts.cfg.prefix}, args)
}

func operatorIn(database string, args ...string) (string, error) {
	return runOperator([]string{"FLASKPASTE_DATABASE=" + database}, args)
}

func runOperator(env, args []string) (string, error) {
	var out, errs bytes.Buffer
	code := run(append([]string{"flaskpaste", "pki"}, args...), append(env, "FLASKPASTE_PKI_CA_PASSWORD="+testCAPassword), &out, &errs)
	if code != 0 {
		return out.String(), fmt.Errorf("exit code %d: %s", code, errs.String())
	}
	return out.String(), nil
}

// issued gives somebody a certificate as the operator's command does, without its tenth of a second for the CA's password.
func (ts *testServer) issued(name string, options ...string) *holder {
	ts.t.Helper()
	days, now, c := int(ts.cfg.certDays), ts.clock.now(), &certificate{vouched: true, admin: slices.Contains(options, "--admin")}
	if i := slices.Index(options, "--days"); i >= 0 {
		days = must(strconv.Atoi(options[i+1]))
	}
	h := &holder{key: p256(ts.t)}
	h.der = must(issueLeaf(ts.ca, h.key.Public(), name, days, now, ts.cfg.crlURL()))
	if err := errors.Join(c.describe(h.der, now.Unix()), ts.store.addCertificate(c, "", noWork)); err != nil {
		ts.t.Fatal(err)
	}
	return h
}

// sign posts a request of name to path, as h (nil: nobody), and returns the new certificate.
func (ts *testServer) sign(path string, h *holder, name string) *holder {
	ts.t.Helper()
	n := &holder{key: p256(ts.t)}
	a := ts.do("POST", path, bytes.NewReader(csrPEM(ts.t, name, n.key)), as(h)...)
	a.want(200, "")
	n.der = derOf([]byte(a.body))
	return n
}

// tierOf asks the server what it thinks of a certificate: by what it lets its holder do.
func (ts *testServer) tierOf(h *holder) string {
	ts.t.Helper()
	a := ts.do("POST", "/", strings.NewReader("x"), as(h)...)
	if a.StatusCode != 201 {
		return a.field("code")
	}
	expires, created := must(strconv.ParseInt(a.field("expires_at"), 10, 64)), must(strconv.ParseInt(a.field("created_at"), 10, 64))
	switch (expires - created) / 86400 {
	case 1:
		return "anonymous"
	case 7:
		return "untrusted"
	}
	if ts.do("GET", "/pastes?owner=all", nil, as(h)...).StatusCode == 200 {
		return "admin"
	}
	return "trusted"
}

func (ts *testServer) wantTier(h *holder, want string) {
	ts.t.Helper()
	if got := ts.tierOf(h); got != want {
		ts.t.Errorf("tier %s, want %s", got, want)
	}
}

func TestTiers(t *testing.T) {
	ts := startPKI(t)
	ts.wantTier(nil, "anonymous")
	ts.wantTier(selfSigned(t, "alice"), "untrusted")
	alice := ts.issued("alice")
	ts.wantTier(alice, "trusted")
	ts.wantTier(ts.issued("root", "--admin"), "admin")

	// A certificate of the name and serial of a trusted one, and one of another CA, are pseudonyms.
	other := testCA(t, time.Now())
	key := p256(t)
	ts.wantTier(&holder{key, must(issueLeaf(other, key.Public(), "alice", 1, time.Now(), ""))}, "untrusted")
	ts.wantTier(&holder{alice.key, flipS(t, alice.der)}, "untrusted")

	// An owner is a line, not a name: the other alice has nothing of this one's.
	id := ts.create("alice's", as(alice)...).ID
	second := ts.issued("alice")
	ts.do("DELETE", "/"+id, nil, as(second)...).want(403, "not_owner")
	ts.do("DELETE", "/"+id, nil, as(&holder{alice.key, flipS(t, alice.der)})...).want(403, "not_owner")
	if a := ts.do("GET", "/pastes", nil, as(second)...).want(200, ""); strings.Contains(a.body, id) {
		t.Errorf("the other alice's list has it: %s", a.body)
	}
	ts.do("DELETE", "/"+id, nil, as(alice)...).want(200, "")
}

// Every spelling of a certificate is one and the same owner.
func TestFormsOfOneCertificate(t *testing.T) {
	ts := startPKI(t)
	h := ts.issued("alice")
	id := ts.create("mine", as(h)...)
	if id.Owner != h.sha256() {
		t.Fatalf("owner %q, want the fingerprint %s", id.Owner, h.sha256())
	}
	colons := func(hex string) string {
		var parts []string
		for pair := range slices.Chunk([]byte(strings.ToUpper(hex)), 2) {
			parts = append(parts, string(pair))
		}
		return strings.Join(parts, ":")
	}
	b64 := base64.StdEncoding.EncodeToString(h.der)
	for name, value := range map[string]string{
		"SHA-1": h.sha1(), "SHA-1 in capitals": strings.ToUpper(h.sha1()), "SHA-1 with colons": colons(h.sha1()), "SHA-256": h.sha256(), "SHA-256 with colons": colons(h.sha256()),
		"escaped PEM": url.QueryEscape(string(pemOf("CERTIFICATE", h.der))), "base64": b64, "RFC 9440": ":" + b64 + ":",
	} {
		if name == "escaped PEM" {
			value = strings.ReplaceAll(value, "+", "%20") // as nginx does: a plus belongs to the base64
		}
		a := ts.do("GET", "/pastes", nil, "X-Proxy-Secret: "+testProxySecret, "X-SSL-Client-SHA1: "+value)
		if a.StatusCode != 200 || !strings.Contains(a.body, id.ID) {
			t.Errorf("%s: status %d, %s", name, a.StatusCode, a.body)
		}
	}
}

func TestBadCertificateHeaders(t *testing.T) {
	ts := startPKI(t)
	h := ts.issued("alice")
	b64 := base64.StdEncoding.EncodeToString(h.der)
	get := func(values ...string) *answer {
		list := []string{"X-Proxy-Secret: " + testProxySecret}
		for _, v := range values {
			list = append(list, "X-SSL-Client-SHA1: "+v)
		}
		return ts.do("GET", "/pastes", nil, list...)
	}
	for name, values := range map[string][]string{
		"twice": {h.sha1(), h.sha1()}, "a list": {h.sha1() + ", " + h.sha1()}, "two certificates": {b64, b64}, "a list of RFC 9440": {":" + b64 + ":, :" + b64 + ":"},
		"39 digits": {h.sha1()[1:]}, "41 digits": {h.sha1() + "0"}, "words": {"alice"}, "trailing data": {base64.StdEncoding.EncodeToString(append(bytes.Clone(h.der), 0))},
		"cut": {b64[:100]}, "two PEM blocks": {url.QueryEscape(string(pemOf("CERTIFICATE", h.der)) + string(pemOf("CERTIFICATE", h.der)))},
		"a key": {url.QueryEscape(string(pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(h.key)))))}, "empty and full": {"", h.sha1()},
	} {
		if a := get(values...); a.StatusCode != 400 || a.field("code") != "bad_client_certificate" {
			t.Errorf("%s: status %d, %s", name, a.StatusCode, a.body)
		}
	}
	for name, value := range map[string]string{"empty": "", "SHA-1 of nothing": sha1OfNothing, "in capitals": strings.ToUpper(sha1OfNothing), "SHA-256 of nothing": sha256OfNothing,
		"a placeholder": "{http.request.tls.client.certificate_der_base64}"} {
		if a := get(value); a.StatusCode != 401 { // the list wants a certificate
			t.Errorf("%s: status %d, %s", name, a.StatusCode, a.body)
		}
	}
}

// Nobody but a trusted proxy with the secret may say whose certificate it is.
func TestCertificateHeaderFromStrangers(t *testing.T) {
	for name, tc := range map[string]struct {
		env     []string
		headers []string
	}{
		"no trusted proxy":           {nil, nil},
		"no secret sent":             {[]string{"TRUSTED_PROXIES=127.0.0.0/8", "PROXY_SECRET=" + testProxySecret}, nil},
		"a wrong secret":             {[]string{"TRUSTED_PROXIES=127.0.0.0/8", "PROXY_SECRET=" + testProxySecret}, []string{"X-Proxy-Secret: " + testProxySecret + "x"}},
		"the secret twice":           {[]string{"TRUSTED_PROXIES=127.0.0.0/8", "PROXY_SECRET=" + testProxySecret}, []string{"X-Proxy-Secret: " + testProxySecret, "X-Proxy-Secret: " + testProxySecret}},
		"an address range alone":     {[]string{"TRUSTED_PROXIES=127.0.0.0/8"}, nil},
		"the secret, another range":  {[]string{"TRUSTED_PROXIES=10.0.0.0/8", "PROXY_SECRET=" + testProxySecret}, []string{"X-Proxy-Secret: " + testProxySecret}},
		"an underscore in the name":  {[]string{"TRUSTED_PROXIES=127.0.0.0/8", "PROXY_SECRET=" + testProxySecret}, []string{"X-Proxy-Secret: " + testProxySecret, "X_SSL_Client_SHA1: HASH", "drop"}},
		"another name of the family": {[]string{"TRUSTED_PROXIES=127.0.0.0/8", "PROXY_SECRET=" + testProxySecret}, []string{"X-Proxy-Secret: " + testProxySecret, "X-SSL-Client-Cert: HASH", "X-Client-Cert: HASH", "Client-Cert: HASH", "drop"}},
	} {
		t.Run(name, func(t *testing.T) {
			ts := start(t, append([]string{"PKI_ENABLED=1", "PKI_CA_PASSWORD=" + testCAPassword}, tc.env...)...)
			h := ts.issued("root", "--admin")
			headers := append([]string{"X-SSL-Client-SHA1: HASH"}, tc.headers...)
			if slices.Contains(headers, "drop") {
				headers = headers[1 : len(headers)-1]
			}
			for i := range headers {
				headers[i] = strings.ReplaceAll(headers[i], "HASH", h.sha1())
			}
			ts.do("GET", "/pastes", nil, headers...).want(401, "authentication_required")
		})
	}
}

func TestRenewalAndRevocationOfALine(t *testing.T) {
	ts := startPKI(t)
	root, alice := ts.issued("root", "--admin"), ts.issued("alice")
	id := ts.create("alice's", as(alice)...).ID

	a := ts.do("POST", "/pki/renew", bytes.NewReader(csrPEM(t, "another name", p256(t))), as(alice)...).want(200, "")
	for name, want := range map[string]string{"Content-Type": "application/x-pem-file", "Content-Disposition": `attachment; filename="another name.crt"`, "X-Is-Admin": "0"} {
		if got := a.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	leaf := must(x509.ParseCertificate(derOf([]byte(a.body))))
	s1, s256 := fingerprints(leaf.Raw)
	for name, want := range map[string]string{"X-Fingerprint-Sha1": s1, "X-Fingerprint-Sha256": s256, "X-Certificate-Serial": serialHex(leaf.SerialNumber), "X-Certificate-Expires": strconv.FormatInt(leaf.NotAfter.Unix(), 10)} {
		if got := a.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}

	// A thief renews with the stolen certificate: the new one is the owner too ...
	thief := ts.sign("/pki/renew", alice, "alice")
	if got := ts.create("thief's", as(thief)...); got.Owner != alice.sha256() {
		t.Fatalf("the renewal has the owner %s, want the line's %s", got.Owner, alice.sha256())
	}
	// ... and falls with the line, though nobody knew its serial.
	ts.do("POST", "/pki/revoke/"+alice.serial()+"?reason=keyCompromise", nil, as(alice)...).want(200, "")
	for who, h := range map[string]*holder{"alice": alice, "thief": thief} {
		if a := ts.do("GET", "/"+id, nil, as(h)...); a.StatusCode != 403 || a.field("code") != "certificate_revoked" {
			t.Errorf("%s, right after the revocation: status %d, %s", who, a.StatusCode, a.body)
		}
		ts.do("POST", "/pki/renew", bytes.NewReader(csrPEM(t, "alice", p256(t))), as(h)...).want(403, "certificate_revoked")
		ts.do("POST", "/pki/revoke/"+root.serial(), nil, as(h)...).want(403, "certificate_revoked")
	}
	ts.wantTier(root, "admin")
	list, err := readRevocations(filepath.Join(ts.dir, "flaskpaste.db.revoked"))
	if err != nil || len(list) != 3 {
		t.Fatalf("the file has %d revocations, want the line's 3: %v", len(list), err)
	}
	for _, r := range list {
		if r.owner != alice.sha256() || r.reason != "keyCompromise" {
			t.Errorf("entry %+v", r)
		}
	}
	// Once more is no error and adds nothing.
	ts.do("POST", "/pki/revoke/"+alice.serial(), nil, as(root)...).want(200, "")
	if again := must(readRevocations(filepath.Join(ts.dir, "flaskpaste.db.revoked"))); len(again) != 3 {
		t.Errorf("the second revocation made %d entries", len(again))
	}
}

// The last step of a renewal is one statement with the revocation: whoever is second loses, whatever was checked before.
func TestRenewalRacesRevocation(t *testing.T) {
	ts := startPKI(t)
	for range 20 {
		alice := ts.issued("alice")
		var renewed *answer
		var wg sync.WaitGroup
		key := p256(t)
		csr := csrPEM(t, "alice", key)
		wg.Go(func() { renewed = ts.do("POST", "/pki/renew", bytes.NewReader(csr), as(alice)...) })
		wg.Go(func() { must(ts.store.revokeLine(alice.serial(), "unspecified", time.Now().Unix())) })
		wg.Wait()
		if renewed.StatusCode == 200 {
			ts.wantTier(&holder{key, derOf([]byte(renewed.body))}, "certificate_revoked")
		} else {
			renewed.want(403, "certificate_revoked")
		}
	}
}

func TestWhoMayRevoke(t *testing.T) {
	ts := startPKI(t)
	root, alice, bob := ts.issued("root", "--admin"), ts.issued("alice"), ts.issued("bob")
	path := "/pki/revoke/" + alice.serial()
	ts.do("POST", path, nil, as(nil)...).want(401, "authentication_required")
	ts.do("POST", path, nil, as(bob)...).want(403, "not_owner")
	ts.do("POST", path, nil, as(selfSigned(t, "alice"))...).want(403, "not_owner")
	ts.do("POST", path, nil, as(&holder{alice.key, flipS(t, alice.der)})...).want(403, "not_owner")
	for _, reason := range []string{"removeFromCRL", "certificateHold", "x", "", "superseded&reason=unspecified", "superseded;", "%zz"} {
		ts.do("POST", path+"?reason="+reason, nil, as(root)...).want(400, "bad_option")
	}
	for _, serial := range []string{strings.Repeat("0", 32), "1", "zz", alice.serial() + "0"} {
		ts.do("POST", "/pki/revoke/"+serial, nil, as(root)...).want(404, "not_found")
	}
	ts.do("POST", path, nil, as(root, "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")...).want(403, "cross_origin")
	ts.wantTier(alice, "trusted")
	ts.do("POST", "/pki/revoke/"+strings.ToUpper(alice.serial()), nil, as(root)...).want(200, "")
	ts.wantTier(alice, "certificate_revoked")
	ts.wantTier(bob, "trusted")
}

// A revoked or expired certificate gets 403 on every route there is, and on those that are not, but not on /health.
func TestRefusedOnEveryRoute(t *testing.T) {
	ts := startPKI(t)
	revoked, expired := ts.issued("revoked"), ts.issued("expired", "--days", "1")
	must(ts.operator("revoke", revoked.serial()))
	ts.clock.advance(25 * time.Hour)
	id := ts.create("x", as(nil)...).ID
	paths := []string{"GET /nowhere/at/all"}
	for _, r := range routes() {
		paths = append(paths, strings.NewReplacer("{$}", "", "{name}", "file.txt", "{id}", id, "{view}", "raw", "{serial}", revoked.serial()).Replace(r.pattern))
	}
	for _, p := range paths {
		method, path, _ := strings.Cut(p, " ")
		if strings.Contains(path, "{") {
			t.Fatalf("the test does not know how to call %s", p)
		}
		for want, h := range map[string]*holder{"certificate_revoked": revoked, "certificate_expired": expired} {
			a := ts.do(method, path, nil, as(h)...)
			if path == "/health" {
				a.want(200, "")
			} else if a.StatusCode != 403 || a.field("code") != want {
				t.Errorf("%s: status %d, %.200s; want 403 %s", p, a.StatusCode, a.body, want)
			}
		}
	}
}

func TestClockBeforeNotBefore(t *testing.T) {
	ts := startPKI(t)
	h := ts.issued("alice")
	ts.clock.advance(-4 * time.Minute) // within the five minutes that certificates are dated back
	ts.wantTier(h, "trusted")
	ts.clock.advance(-2 * time.Minute)
	ts.wantTier(h, "certificate_not_yet_valid")
	ts.do("GET", "/", nil, as(nil)...).want(200, "")
	ts.clock.advance(-time.Hour) // before the CA itself
	key := p256(t)
	if _, err := issueLeaf(ts.ca, key.Public(), "bob", 1, ts.clock.now(), ""); !errors.Is(err, errCADates) {
		t.Errorf("issuing before the CA's time: %v", err)
	}
}

func TestAdminIsTheOperatorsToGive(t *testing.T) {
	ts := startPKI(t, "REGISTRATION=open", "REGISTER_POW=0")
	first := ts.sign("/csr", nil, "admin") // being first, or being called so, gives nothing
	ts.wantTier(first, "trusted")
	ts.do("POST", "/pki/issue", bytes.NewReader(csrPEM(t, "x", p256(t))), as(first)...).want(403, "not_admin")

	must(ts.operator("admin", first.serial(), "on"))
	ts.wantTier(first, "admin") // with the very next request
	renewed := ts.sign("/pki/renew", first, "admin")
	ts.wantTier(renewed, "admin")
	bob := ts.sign("/pki/issue", first, "bob")
	ts.wantTier(bob, "trusted") // never an admin, whoever issues

	must(ts.operator("admin", renewed.serial(), "off")) // either certificate of the line will do
	ts.wantTier(first, "trusted")
	ts.wantTier(renewed, "trusted")
	ts.wantTier(ts.sign("/pki/renew", first, "admin"), "trusted") // off, then renewed: still off

	must(ts.operator("admin", first.serial(), "on"))
	must(ts.operator("revoke", first.serial()))
	ts.wantTier(first, "certificate_revoked")
	if out, err := ts.operator("admin", first.serial(), "on"); err == nil {
		t.Errorf("a revoked line became admin again: %s", out)
	}
}

func TestVouched(t *testing.T) {
	ts := startPKI(t, "REGISTRATION=open", "REGISTER_POW=0")
	root, stranger := ts.issued("root", "--admin"), ts.sign("/csr", nil, "stranger")
	vouched := func(h *holder) bool { return must(ts.store.certificate("sha256", h.sha256())).vouched }
	for who, tc := range map[string]struct {
		h    *holder
		want bool
	}{"by the operator": {root, true}, "by an admin": {ts.sign("/pki/issue", root, "x"), true}, "enrolled": {stranger, false},
		"renewed by an enrolled": {ts.sign("/pki/renew", stranger, "x"), false}, "renewed by a vouched": {ts.sign("/pki/renew", root, "x"), true}} {
		if got := vouched(tc.h); got != tc.want {
			t.Errorf("%s: vouched %v, want %v", who, got, tc.want)
		}
	}
	must(ts.operator("admin", stranger.serial(), "on"))
	if vouched(stranger) {
		t.Error("an admin's rights changed who vouched")
	}
}

// solved does the work of a register challenge.
func (ts *testServer) solved(t testing.TB) []string {
	var c struct {
		Nonce, Token string
		Difficulty   int
	}
	a := ts.get("/register/challenge", as(nil)...).want(200, "")
	if err := json.Unmarshal([]byte(a.body), &c); err != nil {
		t.Fatal(err)
	}
	n, err := solve(context.Background(), c.Nonce, c.Difficulty, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"X-PoW-Token: " + c.Token, "X-PoW-Solution: " + n}
}

func TestEnrolment(t *testing.T) {
	closed := startPKI(t)
	csr := csrPEM(t, "alice", p256(t))
	closed.do("POST", "/csr", bytes.NewReader(csr)).want(403, "registration_closed")
	closed.get("/register/challenge").want(403, "registration_closed")
	closed.do("POST", "/csr", bytes.NewReader(csr), as(closed.issued("x"))...).want(403, "registration_closed")

	ts := startPKI(t, "REGISTRATION=open", "REGISTER_POW=8", "POW_DIFFICULTY=8")
	ts.do("POST", "/csr", bytes.NewReader(csr)).want(400, "pow_required")
	work := ts.solved(t)
	// A bad request does not spend the work; a good one does, for good.
	ts.do("POST", "/csr", strings.NewReader("nonsense"), work...).want(400, "bad_csr")
	ts.do("POST", "/csr", bytes.NewReader(bytes.Repeat(csr, 100)), work...).want(413, "too_large")
	ts.do("POST", "/csr", io.MultiReader(bytes.NewReader(csr), bytes.NewReader(make([]byte, 1<<20))), work...).want(413, "too_large")
	a := ts.do("POST", "/csr", bytes.NewReader(csr), work...).want(200, "")
	ts.do("POST", "/csr", bytes.NewReader(csr), work...).want(400, "pow_failed")
	if list := must(ts.store.certificates("", 10)); len(list) != 1 || a.Header.Get("X-Is-Admin") != "0" {
		t.Errorf("%d certificates, X-Is-Admin %q", len(list), a.Header.Get("X-Is-Admin"))
	}
	// Work for a paste is not work for a certificate.
	create := ts.get("/challenge").want(200, "")
	nonce := create.field("nonce")
	n := must(solve(context.Background(), nonce, 8, 1, nil))
	ts.do("POST", "/csr", bytes.NewReader(csr), "X-PoW-Token: "+create.field("token"), "X-PoW-Solution: "+n).want(400, "pow_failed")
}

func TestEnrolmentRate(t *testing.T) {
	ts := start(t, "PKI_ENABLED=1", "PKI_CA_PASSWORD="+testCAPassword, "REGISTRATION=open", "REGISTER_POW=0", "RATE_REGISTER=2/h")
	for range 2 {
		ts.sign("/csr", nil, "alice")
	}
	ts.do("POST", "/csr", bytes.NewReader(csrPEM(t, "alice", p256(t)))).want(429, "rate_limited")
}

// 50 people of one name at the same moment: 50 owners, 50 serials, no admin.
func TestEnrolmentInParallel(t *testing.T) {
	ts := startPKI(t, "REGISTRATION=open", "REGISTER_POW=0")
	var wg sync.WaitGroup
	for range 50 {
		csr := csrPEM(t, "alice", p256(t))
		wg.Go(func() {
			if a, err := ts.try("POST", "/csr", bytes.NewReader(csr)); err != nil || a.StatusCode != 200 || a.Header.Get("X-Is-Admin") != "0" {
				t.Errorf("%v %v", a, err)
			}
		})
	}
	wg.Wait()
	list := must(ts.store.certificates("", 1000))
	owners, serials := map[string]bool{}, map[string]bool{}
	for _, c := range list {
		owners[c.owner], serials[c.serial] = true, true
		if c.admin || c.vouched || c.owner != c.sha256 {
			t.Errorf("%+v", c)
		}
	}
	if len(list) != 50 || len(owners) != 50 || len(serials) != 50 {
		t.Errorf("%d certificates, %d owners, %d serials", len(list), len(owners), len(serials))
	}
}

// Renewing costs no work, so that it must have an end.
func TestRenewalsAreBounded(t *testing.T) {
	ts := startPKI(t)
	alice := ts.issued("alice")
	for range lineMost - 1 {
		ts.sign("/pki/renew", alice, "alice")
	}
	ts.do("POST", "/pki/renew", bytes.NewReader(csrPEM(t, "alice", p256(t))), as(alice)...).want(409, "too_many_certificates")
	if n := len(must(ts.store.certificates(alice.sha256(), 100))); n != lineMost {
		t.Errorf("%d certificates", n)
	}
	bob := ts.issued("bob", "--days", "1")
	ts.sign("/pki/renew", bob, "bob")
}

func TestForgottenEnrolments(t *testing.T) {
	ts := startPKI(t, "REGISTRATION=open", "REGISTER_POW=0", "SWEEP=24h")
	stranger, friend := ts.sign("/csr", nil, "stranger"), ts.issued("friend")
	ts.clock.advance(24 * time.Hour)
	renewed := ts.sign("/pki/renew", stranger, "stranger")
	at := must(x509.ParseCertificate(renewed.der)).NotAfter.Unix() + certMemory
	sweep := func(at int64) {
		if _, _, err := ts.store.sweep(at); err != nil {
			t.Fatal(err)
		}
	}
	sweep(at - 1) // the first certificate is past its time, the line is not
	must(ts.store.certificate("sha256", stranger.sha256()))
	sweep(at)
	for _, h := range []*holder{stranger, renewed} {
		if _, err := ts.store.certificate("sha256", h.sha256()); !errors.Is(err, errNotFound) {
			t.Errorf("an enrolment is still stored 90 days after its end: %v", err)
		}
	}
	must(ts.store.certificate("sha256", friend.sha256()))
}

func TestIssueDays(t *testing.T) {
	ts := startPKI(t, "PKI_CERT_DAYS=10")
	root := ts.issued("root", "--admin")
	for _, days := range []string{"0", "-1", "3661", "1e3", "", "07", "+7", "7&days=8", "7;x", "%zz"} {
		ts.do("POST", "/pki/issue?days="+days, bytes.NewReader(csrPEM(t, "x", p256(t))), as(root)...).want(400, "bad_option")
	}
	ts.do("POST", "/pki/issue?admin=1", bytes.NewReader(csrPEM(t, "x", p256(t))), as(root)...).want(400, "bad_option")
	for path, days := range map[string]int{"/pki/issue": 10, "/pki/issue?days=3": 3, "/pki/renew": 10} {
		leaf := must(x509.ParseCertificate(ts.sign(path, root, "x").der))
		if got := time.Until(leaf.NotAfter).Round(time.Hour); got != time.Duration(days)*24*time.Hour {
			t.Errorf("%s: a life of %v, want %d days", path, got, days)
		}
	}
	ts.do("POST", "/pki/issue", bytes.NewReader(csrPEM(t, "x", p256(t))), as(nil)...).want(401, "authentication_required")
	ts.do("POST", "/pki/renew", bytes.NewReader(csrPEM(t, "x", p256(t))), as(nil)...).want(401, "authentication_required")
	ts.do("POST", "/pki/renew", bytes.NewReader(csrPEM(t, "x", p256(t))), as(selfSigned(t, "x"))...).want(403, "not_trusted")
}

func TestListOfCertificates(t *testing.T) {
	ts := startPKI(t)
	root, alice := ts.issued("root", "--admin"), ts.issued("alice")
	renewed := ts.sign("/pki/renew", alice, "alice")
	must(ts.operator("revoke", ts.issued("bob").serial(), "--reason", "superseded"))
	list := func(h *holder) (serials []string, body string) {
		a := ts.do("GET", "/pki/certs", nil, as(h)...).want(200, "")
		var got struct {
			Certificates []struct{ Serial, Owner string }
			Count        int
		}
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || got.Count != len(got.Certificates) {
			t.Fatalf("%v: %s", err, a.body)
		}
		for _, c := range got.Certificates {
			serials = append(serials, c.Serial)
		}
		slices.Sort(serials)
		return serials, a.body
	}
	want := []string{alice.serial(), renewed.serial()}
	slices.Sort(want)
	if got, _ := list(alice); !slices.Equal(got, want) {
		t.Errorf("alice sees %v, want her own %v", got, want)
	}
	if got, body := list(root); len(got) != 4 || !strings.Contains(body, `"reason": "superseded"`) {
		t.Errorf("the admin sees %s", body)
	}
	if got, _ := list(selfSigned(t, "x")); len(got) != 0 {
		t.Errorf("a pseudonym sees %v", got)
	}
	ts.do("GET", "/pki/certs", nil, as(nil)...).want(401, "authentication_required")
}

func TestPKIOff(t *testing.T) {
	dir := t.TempDir()
	on := startIn(t, dir, pkiEnv...)
	alice, revoked, short := on.issued("alice"), on.issued("revoked"), on.issued("short", "--days", "1")
	must(on.operator("revoke", revoked.serial()))
	on.http.Close()
	on.store.close()

	ts := startIn(t, dir, append(slices.DeleteFunc(slices.Clone(pkiEnv), func(e string) bool { return strings.HasPrefix(e, "PKI_") }), "REGISTRATION=open")...)
	csr := csrPEM(t, "x", p256(t))
	for _, path := range []string{"/csr", "/pki/issue", "/pki/renew"} {
		ts.do("POST", path, bytes.NewReader(csr), as(alice)...).want(404, "pki_disabled")
	}
	ts.get("/register/challenge").want(404, "pki_disabled")
	ts.get("/pki/ca.crl").want(404, "pki_disabled")
	if a := ts.get("/pki").want(200, ""); a.field("enabled") != "false" || a.field("ca_exists") != "true" {
		t.Errorf("GET /pki: %s", a.body)
	}
	ts.get("/pki/ca.crt").want(200, "")
	// What was issued counts all the same, and so does what was revoked.
	ts.wantTier(alice, "trusted")
	ts.wantTier(revoked, "certificate_revoked")
	ts.do("POST", "/pki/revoke/"+alice.serial(), nil, as(alice)...).want(200, "")
	ts.wantTier(alice, "certificate_revoked")
	ts.clock.advance(25 * time.Hour)
	ts.wantTier(short, "certificate_expired")

	never := start(t)
	if a := never.get("/pki").want(200, ""); a.body != "{\"enabled\": false, \"ca_exists\": false}\n" {
		t.Errorf("GET /pki without a CA: %s", a.body)
	}
	never.get("/pki/ca.crt").want(404, "pki_disabled")
}

func TestCAFilesOverHTTP(t *testing.T) {
	ts := startPKI(t, "PUBLIC_URL=https://paste.example", "URL_PREFIX=/p")
	dir := t.TempDir()
	alice, bob := ts.issued("alice"), ts.issued("bob")
	a := ts.get("/pki/ca.crt").want(200, "")
	writeFile(t, filepath.Join(dir, "ca"), []byte(a.body))
	if a.Header.Get("Cache-Control") != "public, no-cache" {
		t.Errorf("Cache-Control %q", a.Header.Get("Cache-Control"))
	}
	info := ts.get("/pki").want(200, "")
	s1, s256 := fingerprints(derOf([]byte(a.body)))
	for name, want := range map[string]string{"enabled": "true", "ca_exists": "true", "fingerprint_sha1": s1, "fingerprint_sha256": s256, "ca_url": "/p/pki/ca.crt", "crl_url": "/p/pki/ca.crl", "common_name": "FlaskPaste CA"} {
		if got := info.field(name); got != want {
			t.Errorf("GET /pki: %s is %q, want %q", name, got, want)
		}
	}
	leaf := must(x509.ParseCertificate(alice.der))
	if !slices.Equal(leaf.CRLDistributionPoints, []string{"https://paste.example/p/pki/ca.crl"}) {
		t.Errorf("distribution points %v", leaf.CRLDistributionPoints)
	}
	for name, h := range map[string]*holder{"alice": alice, "bob": bob} {
		writeFile(t, filepath.Join(dir, name), pemOf("CERTIFICATE", h.der))
	}
	crl := func() *x509.RevocationList {
		t.Helper()
		a := ts.get("/pki/ca.crl").want(200, "")
		if a.Header.Get("Content-Type") != "application/pkix-crl" {
			t.Errorf("Content-Type %q", a.Header.Get("Content-Type"))
		}
		writeFile(t, filepath.Join(dir, "crl"), pemOf("X509 CRL", []byte(a.body)))
		return must(x509.ParseRevocationList([]byte(a.body)))
	}
	verify := func(name string) error {
		out, err := openssl(t, dir, "verify", "-crl_check", "-CAfile", "ca", "-CRLfile", "crl", name)
		if err != nil && !strings.Contains(out, "certificate revoked") {
			t.Fatalf("openssl verify: %s", out)
		}
		return err
	}
	first := crl()
	if err := errors.Join(verify("alice"), verify("bob")); err != nil {
		t.Errorf("openssl refuses a valid certificate: %v", err)
	}
	if same := crl(); same.Number.Cmp(first.Number) != 0 {
		t.Error("the list is made for each request")
	}
	must(ts.operator("revoke", bob.serial(), "--reason", "keyCompromise")) // another process; the list shows it at once
	second := crl()
	if verify("alice") != nil || verify("bob") == nil {
		t.Error("openssl verify -crl_check does not tell alice from bob")
	}
	if second.Number.Cmp(first.Number) <= 0 || len(second.RevokedCertificateEntries) != 1 || second.RevokedCertificateEntries[0].ReasonCode != 1 {
		t.Errorf("number %v after %v, entries %v", second.Number, first.Number, second.RevokedCertificateEntries)
	}
	if err := os.Remove(filepath.Join(ts.dir, "flaskpaste.db.revoked")); err != nil { // lost while the server runs
		t.Fatal(err)
	}
	second = crl()
	if verify("bob") == nil {
		t.Error("a lost revocation file un-revoked bob")
	}
	ts.clock.advance(23 * time.Hour)
	if crl().Number.Cmp(second.Number) != 0 {
		t.Error("remade within the day")
	}
	ts.clock.advance(time.Hour + time.Minute)
	if third := crl(); third.Number.Cmp(second.Number) <= 0 || third.NextUpdate.Sub(ts.clock.now()).Round(time.Hour) != 7*24*time.Hour {
		t.Errorf("a day later: number %v after %v, next update %v", third.Number, second.Number, third.NextUpdate)
	}
	ts.clock.advance(400 * 24 * time.Hour) // bob's certificate is long gone, and so is the reason to name it
	if n := len(crl().RevokedCertificateEntries); n != 0 {
		t.Errorf("%d entries for certificates that ended", n)
	}
}

// A restored backup does not un-revoke, and a lost file does not either.
func TestRestoredBackup(t *testing.T) {
	dir := t.TempDir()
	database := filepath.Join(dir, "flaskpaste.db")
	ts := startIn(t, dir, pkiEnv...)
	alice, bob, carol := ts.issued("alice"), ts.issued("bob"), ts.issued("carol")
	renewed := ts.sign("/pki/renew", alice, "alice")
	must(ts.operator("revoke", bob.serial(), "--reason", "superseded"))
	saved := filepath.Join(dir, "backup.db")
	if err := ts.store.backup(saved); err != nil {
		t.Fatal(err)
	}
	must(ts.operator("revoke", alice.serial(), "--reason", "keyCompromise"))
	late := ts.issued("late")
	must(ts.operator("revoke", late.serial()))
	ts.http.Close()
	ts.store.close()

	if err := os.Rename(saved, database); err != nil {
		t.Fatal(err)
	}
	ts = startIn(t, dir, pkiEnv...)
	for _, h := range []*holder{alice, renewed, bob} {
		ts.wantTier(h, "certificate_revoked")
	}
	ts.wantTier(carol, "trusted")
	ts.wantTier(late, "untrusted") // the backup never heard of it: a pseudonym like any
	if c := must(ts.store.certificate("sha256", alice.sha256())); c.reason != "keyCompromise" {
		t.Errorf("reason %q", c.reason)
	}
	if !strings.Contains(ts.logs.String(), "event=revocation outcome=merged lines=1") {
		t.Errorf("the log does not tell: %s", ts.logs)
	}
	list := must(x509.ParseRevocationList([]byte(ts.get("/pki/ca.crl").body)))
	if len(list.RevokedCertificateEntries) != 4 { // alice, her renewal, bob, and the one that the backup forgot
		t.Errorf("the CRL has %d entries", len(list.RevokedCertificateEntries))
	}
	ts.http.Close()
	ts.store.close()

	if err := os.Remove(database + ".revoked"); err != nil {
		t.Fatal(err)
	}
	ts = startIn(t, dir, pkiEnv...)
	for _, h := range []*holder{alice, renewed, bob} {
		ts.wantTier(h, "certificate_revoked")
	}
	if n := len(must(readRevocations(database + ".revoked"))); n != 3 {
		t.Errorf("the file was rebuilt with %d entries", n)
	}
	ts.http.Close()
	ts.store.close()

	writeFile(t, database+".revoked", []byte("garbage\n"))
	if code, out := serveOnce(t, dir); code == 0 || !strings.Contains(out, "not a revocation") {
		t.Errorf("a damaged revocation file: exit code %d, %s", code, out)
	}
}

// serveOnce starts the real server where the start should fail.
func serveOnce(t testing.TB, dir string, env ...string) (int, string) {
	t.Helper()
	full := []string{"FLASKPASTE_LISTEN=127.0.0.1:0", "FLASKPASTE_MIN_FREE=0", "FLASKPASTE_DATABASE=" + filepath.Join(dir, "flaskpaste.db")}
	for _, e := range env {
		full = append(full, "FLASKPASTE_"+e)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := program(dir, full, "serve")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	cmd.Wait()
	if ctx.Err() != nil {
		t.Fatalf("the server started: %s", out.String())
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

func TestStartWithoutTheCA(t *testing.T) {
	dir := t.TempDir()
	database := filepath.Join(dir, "flaskpaste.db")
	if code, out := serveOnce(t, dir, "PKI_ENABLED=1"); code == 0 || strings.Count(out, "\n") != 1 || !strings.Contains(out, "PKI_CA_PASSWORD") {
		t.Errorf("without a password: exit code %d, %s", code, out)
	}
	must(operatorIn(database, "init"))
	content := func() (rows string) {
		db := must(sql.Open("sqlite", dsn(database, "ro")))
		defer db.Close()
		var cert, key []byte
		if err := db.QueryRow("SELECT (SELECT data FROM authority WHERE part = 'certificate'), (SELECT data FROM authority WHERE part = 'key')").Scan(&cert, &key); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x %x", sha256.Sum256(cert), sha256.Sum256(key))
	}
	change := func(query string, args ...any) {
		db := must(sql.Open("sqlite", dsn(database, "rw")))
		defer db.Close()
		if _, err := db.Exec(query, args...); err != nil {
			t.Fatal(err)
		}
	}
	before := content()
	for name, env := range map[string]string{"a wrong password": "PKI_CA_PASSWORD=" + testCAPassword + "x", "no password": "PKI_CERT_DAYS=365"} {
		if code, out := serveOnce(t, dir, "PKI_ENABLED=1", env); code == 0 || strings.Count(out, "\n") != 1 || !strings.Contains(out, "PKI_CA_PASSWORD") || strings.Contains(out, testCAPassword) {
			t.Errorf("%s: exit code %d, %s", name, code, out)
		}
		var found bytes.Buffer
		if code := run([]string{"flaskpaste", "check"}, []string{"FLASKPASTE_DATABASE=" + database, "FLASKPASTE_MIN_FREE=0", "FLASKPASTE_PKI_ENABLED=1", "FLASKPASTE_" + env}, &found, io.Discard); code == 0 || strings.Count(found.String(), "\n") != 1 || !strings.Contains(found.String(), "PKI_CA_PASSWORD") {
			t.Errorf("%s: check finds %s", name, found.String())
		}
	}
	if out, err := operatorIn(database, "init"); err == nil {
		t.Errorf("a second CA was made: %s", out)
	}
	var cert, key []byte
	func() {
		db := must(sql.Open("sqlite", dsn(database, "ro")))
		defer db.Close()
		db.QueryRow("SELECT data FROM authority WHERE part = 'certificate'").Scan(&cert)
		db.QueryRow("SELECT data FROM authority WHERE part = 'key'").Scan(&key)
	}()
	other := testCA(t, time.Now())
	foreign := must(sealCAKey(other.key, testCAPassword, other.cert))
	for name, tc := range map[string]struct{ do, undo func() }{
		"certificate without key": {func() { change("DELETE FROM authority WHERE part = 'key'") }, func() { change("INSERT INTO authority VALUES ('key', ?)", key) }},
		"key without certificate": {func() { change("DELETE FROM authority WHERE part = 'certificate'") }, func() { change("INSERT INTO authority VALUES ('certificate', ?)", cert) }},
		"key of another CA":       {func() { change("UPDATE authority SET data = ? WHERE part = 'key'", foreign) }, func() { change("UPDATE authority SET data = ? WHERE part = 'key'", key) }},
	} {
		tc.do()
		broken := content()
		if code, out := serveOnce(t, dir, "PKI_ENABLED=1", "PKI_CA_PASSWORD="+testCAPassword); code == 0 || strings.Count(out, "\n") != 1 || strings.Contains(name, "without") != strings.Contains(out, "half of a CA") {
			t.Errorf("%s: exit code %d, %s", name, code, out)
		}
		var found bytes.Buffer
		if code := run([]string{"flaskpaste", "check"}, []string{"FLASKPASTE_DATABASE=" + database, "FLASKPASTE_MIN_FREE=0"}, &found, io.Discard); strings.Contains(name, "without") && (code == 0 || !strings.Contains(found.String(), "half of a CA")) {
			t.Errorf("%s: check finds %s", name, found.String())
		}
		for _, args := range [][]string{{"init"}, {"issue", "x", "-o", filepath.Join(dir, "x.pem")}} {
			if out, err := operatorIn(database, args...); err == nil {
				t.Errorf("%s: pki %s went well: %s", name, args[0], out)
			}
		}
		if content() != broken || exists(filepath.Join(dir, "x.pem")) {
			t.Errorf("%s: something was made anew", name)
		}
		tc.undo()
	}
	if content() != before {
		t.Fatal("the test did not put the CA back")
	}
	p := launch(t, dir, "DATABASE="+database, "PKI_ENABLED=1", "PKI_CA_PASSWORD="+testCAPassword)
	p.stop()
	if content() != before {
		t.Error("a start changed the CA")
	}
}

func TestOperatorsCommands(t *testing.T) {
	dir := t.TempDir()
	database := filepath.Join(dir, "sub", "flaskpaste.db")
	for _, args := range [][]string{{"list"}, {"issue", "x"}, {"revoke", strings.Repeat("1", 32)}, {"admin", strings.Repeat("1", 32), "on"}} {
		if out, err := operatorIn(database, args...); err == nil || !strings.Contains(err.Error(), "FLASKPASTE_DATABASE") || exists(filepath.Dir(database)) {
			t.Errorf("pki %v without a database: %s %v", args, out, err)
		}
	}
	must(operatorIn(database, "init"))
	if info := must(os.Stat(database)); info.Mode().Perm() != 0o600 {
		t.Errorf("the database has mode %v", info.Mode())
	}
	bundle := filepath.Join(dir, "alice's key.pem")
	out, err := operatorIn(database, "issue", "alice", "--admin", "-o", bundle)
	if err != nil {
		t.Fatal(err)
	}
	if info := must(os.Stat(bundle)); info.Mode().Perm() != 0o600 {
		t.Errorf("the bundle has mode %v", info.Mode())
	}
	if !strings.Contains(out, "curl --cert '"+strings.ReplaceAll(bundle, "'", `'\''`)+"' -T - https://") || strings.Contains(out, "PRIVATE") {
		t.Errorf("it prints %s", out)
	}
	before := must(os.ReadFile(bundle))
	if _, err := operatorIn(database, "issue", "bob", "-o", bundle); err == nil || !bytes.Equal(before, must(os.ReadFile(bundle))) {
		t.Errorf("an existing bundle: %v", err)
	}
	list := must(operatorIn(database, "list"))
	if strings.Count(list, "\n") != 1 || !strings.Contains(list, "alice") || !strings.Contains(list, "admin") {
		t.Errorf("list: %s", list)
	}
	serial := strings.Fields(list)[0]
	for _, args := range [][]string{{}, {"x"}, {"issue"}, {"issue", "a", "b"}, {"issue", "a", "--reason", "superseded"}, {"issue", "a", "-o"}, {"list", "--admin"}, {"revoke"}, {"admin", serial}, {"admin", serial, "yes"}, {"issue", "a", "--force"}} {
		if _, err := operatorIn(database, args...); err == nil || !strings.Contains(err.Error(), "exit code 2") {
			t.Errorf("pki %v: %v, want a usage error", args, err)
		}
	}
	for _, args := range [][]string{{"issue", "../a"}, {"issue", "a\n"}, {"issue", "a", "--days", "0"}, {"issue", "a", "--days", "x"}, {"revoke", strings.Repeat("1", 32)}, {"revoke", serial, "--reason", "removeFromCRL"}, {"admin", "1", "on"}} {
		if out, err := operatorIn(database, args...); err == nil {
			t.Errorf("pki %v went well: %s", args, out)
		}
	}
	if out := must(operatorIn(database, "revoke", strings.ToUpper(serial))); !strings.Contains(out, "revoked "+serial) {
		t.Errorf("revoke prints %s", out)
	}
	if out := must(operatorIn(database, "revoke", serial)); !strings.Contains(out, "already") {
		t.Errorf("revoking twice prints %s", out)
	}
	if list := must(operatorIn(database, "list")); !strings.Contains(list, "revoked:unspecified") {
		t.Errorf("list: %s", list)
	}
}

func TestAudit(t *testing.T) {
	ts := startPKI(t, "LOG_LEVEL=warn", "REGISTRATION=open", "REGISTER_POW=0")
	root, alice := ts.issued("root", "--admin"), ts.issued("alice")
	id := ts.create("secret content", as(alice, "X-Paste-Password: hunter2hunter2")...).ID
	issued := ts.sign("/pki/issue", root, "x")
	renewed := ts.sign("/pki/renew", alice, "alice")
	enrolled := ts.sign("/csr", nil, "x")
	ts.do("GET", "/"+id+"/raw", nil, as(nil, "X-Paste-Password: wrong password")...).want(403, "password_wrong")
	ts.do("DELETE", "/"+id, nil, as(enrolled, "X-Request-ID: try-1")...).want(403, "not_owner")
	ts.do("DELETE", "/"+id, nil, as(root)...).want(200, "")
	ts.do("POST", "/pki/revoke/"+alice.serial(), nil, as(root)...).want(200, "")
	ts.do("GET", "/", nil, as(alice)...).want(403, "certificate_revoked")
	ts.do("GET", "/", nil, "X-Proxy-Secret: "+testProxySecret, "X-SSL-Client-SHA1: nonsense").want(400, "bad_client_certificate")
	logs := ts.logs.String()
	for _, want := range []string{
		"audit=true event=issue outcome=ok owner=" + root.sha256() + " object=" + issued.serial() + " request_id=",
		"audit=true event=renewal outcome=ok owner=" + alice.sha256() + " object=" + renewed.serial(),
		`audit=true event=enrolment outcome=ok owner="" object=` + enrolled.serial(),
		`audit=true event=authentication_failed outcome=password_wrong owner="" object=` + id[:4] + " ",
		"audit=true event=authentication_failed outcome=not_owner owner=" + enrolled.sha256() + " object=" + id[:4] + " request_id=try-1\n",
		"audit=true event=deletion_by_admin outcome=ok owner=" + root.sha256() + " object=" + id[:4] + " ",
		"audit=true event=revocation outcome=ok owner=" + root.sha256() + " object=" + alice.serial(),
		"audit=true event=certificate_refused outcome=certificate_revoked owner=" + alice.sha256(),
		"audit=true event=certificate_refused outcome=bad_client_certificate",
	} {
		if !strings.Contains(logs, want) {
			t.Errorf("no line with %q", want)
		}
	}
	for _, never := range []string{id, "hunter2", "wrong password", "secret content", testProxySecret, testCAPassword, "PRIVATE KEY"} {
		if strings.Contains(logs, never) {
			t.Errorf("the log has %q", never)
		}
	}
	if t.Failed() {
		t.Log(logs)
	}
	var out, errs bytes.Buffer
	run([]string{"flaskpaste", "pki", "admin", root.serial(), "off"}, []string{"FLASKPASTE_DATABASE=" + filepath.Join(ts.dir, "flaskpaste.db")}, &out, &errs)
	if want := "audit=true event=admin_off outcome=ok owner=" + root.sha256() + " object=" + root.serial(); !strings.Contains(errs.String(), want) {
		t.Errorf("the operator's command logs %q, want %q", errs.String(), want)
	}
}

// Refused certificates are counted, so that nobody fills the log with them.
func TestRefusedCertificatesAreCounted(t *testing.T) {
	ts := start(t, append(slices.DeleteFunc(slices.Clone(pkiEnv), func(e string) bool { return strings.HasPrefix(e, "RATE_AUTH") }), "RATE_AUTH=3/m")...)
	alice := ts.issued("alice")
	must(ts.operator("revoke", alice.serial()))
	for range 3 {
		ts.do("GET", "/", nil, as(alice)...).want(403, "certificate_revoked")
	}
	ts.do("GET", "/", nil, as(alice)...).want(429, "rate_limited")
	ts.do("GET", "/", nil, as(nil)...).want(200, "")
}

func TestRequireCert(t *testing.T) {
	any, trustedOnly := startPKI(t, "REQUIRE_CERT=any"), startPKI(t, "REQUIRE_CERT=trusted")
	any.do("POST", "/", strings.NewReader("x"), as(nil)...).want(401, "certificate_required")
	any.do("PUT", "/file.txt", strings.NewReader("x"), as(nil)...).want(401, "certificate_required")
	any.do("POST", "/", strings.NewReader("x"), as(selfSigned(t, "x"))...).want(201, "")
	trustedOnly.do("POST", "/", strings.NewReader("x"), as(selfSigned(t, "x"))...).want(401, "certificate_required")
	id := trustedOnly.create("x", as(trustedOnly.issued("alice"))...).ID
	trustedOnly.do("GET", "/"+id+"/raw", nil, as(nil)...).want(200, "")
}

// The lookup of a certificate is one search by primary key (SHA-256) or by a unique index (SHA-1), and who shows none pays for none.
func TestLookupIsOneSearch(t *testing.T) {
	ts := startPKI(t)
	queries := func() (n int) {
		ts.store.rstmts.Range(func(query, _ any) bool {
			if strings.Contains(query.(string), "FROM certs") {
				n++
			}
			return true
		})
		return n
	}
	ts.get("/"+ts.create("x", as(nil)...).ID+"/raw", as(nil)...).want(200, "")
	if queries() != 0 {
		t.Error("a request without a certificate asked the table")
	}
	ts.wantTier(selfSigned(t, "x"), "untrusted")
	if queries() != 1 {
		t.Errorf("a certificate was looked up in %d ways", queries())
	}
	for column, want := range map[string]string{"sha256": "USING PRIMARY KEY (sha256=?)", "sha1": "USING INDEX sqlite_autoindex_certs_2 (sha1=?)", "serial": "USING INDEX sqlite_autoindex_certs_3 (serial=?)"} {
		rows := must(ts.store.r.Query("EXPLAIN QUERY PLAN SELECT "+certColumns+" FROM certs WHERE "+column+" = ?", "x"))
		var plan []string
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			plan = append(plan, detail)
		}
		rows.Close()
		if len(plan) != 1 || !strings.HasPrefix(plan[0], "SEARCH certs") || !strings.HasSuffix(plan[0], want) {
			t.Errorf("by %s: %v, want %s", column, plan, want)
		}
	}
}

// BenchmarkIdentity shows in one run what a certificate costs a read, beside one that shows none.
func BenchmarkIdentity(b *testing.B) {
	ts := startPKI(b, "LOG_LEVEL=error")
	alice := ts.issued("alice")
	for i := range 10_000 { // a lookup in a table of some size
		c := &certificate{sha256: fmt.Sprintf("%064x", i), sha1: fmt.Sprintf("%040x", i), serial: fmt.Sprintf("%032x", i), vouched: true, expires: 1 << 40}
		if err := ts.store.addCertificate(c, "", noWork); err != nil {
			b.Fatal(err)
		}
	}
	id := ts.create("content", as(alice)...).ID
	for _, tc := range []struct {
		name    string
		headers []string
	}{{"none", as(nil)}, {"untrusted SHA-256", append(as(nil), "X-SSL-Client-SHA1: "+strings.Repeat("ab", 32))}, {"trusted SHA-256", append(as(nil), "X-SSL-Client-SHA1: "+alice.sha256())}, {"trusted certificate", as(alice)}} {
		b.Run(tc.name, func(b *testing.B) {
			for b.Loop() {
				ts.do("GET", "/"+id+"/raw", nil, tc.headers...)
			}
		})
	}
}
