package main

// The CA, its requests, leaves, lists and files, judged by the real openssl. Each hostile request is made twice where both
// can make it: by Go, whose parser is under test, and by openssl, whose spelling is what people send.

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const testCAPassword = "correct horse battery staple"

// openssl runs the real openssl in dir and returns what it printed; a test that expects a refusal looks at err.
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

func testCA(t testing.TB, now time.Time) *authority {
	t.Helper()
	ca, err := newCA("Test CA", now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func p256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func derOf(text []byte) []byte {
	block, _ := pem.Decode(text)
	return block.Bytes
}

// csrPEM makes a request named name with key, as a client would.
func csrPEM(t testing.TB, name string, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("CERTIFICATE REQUEST", der)
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCAAndLeafAsOpensslSeesThem(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	ca := testCA(t, now)
	leaf, err := issueLeaf(ca, p256(t).Public(), "alice", 365, now, "https://paste.example/pki/ca.crl")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "ca.pem"), pemOf("CERTIFICATE", ca.cert.Raw))
	writeFile(t, filepath.Join(dir, "leaf.pem"), pemOf("CERTIFICATE", leaf))

	text := mustOpenssl(t, dir, "x509", "-in", "ca.pem", "-noout", "-text")
	for _, want := range []string{
		`X509v3 Key Usage: critical\n\s+Certificate Sign, CRL Sign\n`,
		`X509v3 Basic Constraints: critical\n\s+CA:TRUE, pathlen:0\n`,
		`Signature Algorithm: ecdsa-with-SHA256`, `NIST CURVE: P-256`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("the CA certificate lacks %s:\n%s", want, text)
		}
	}
	if got := ca.cert.NotAfter.Sub(now.AddDate(10, 0, 0)); got < -time.Second || got > time.Second {
		t.Errorf("the CA ends %v off ten years", got)
	}

	text = mustOpenssl(t, dir, "x509", "-in", "leaf.pem", "-noout", "-text")
	for _, want := range []string{
		`X509v3 Key Usage: critical\n\s+Digital Signature\n`,
		`X509v3 Extended Key Usage: ?\n\s+TLS Web Client Authentication\n`,
		`X509v3 Basic Constraints: critical\n\s+CA:FALSE\n`,
		`URI:https://paste.example/pki/ca.crl`, `Subject: CN ?= ?alice\n`, `ecdsa-with-SHA256`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("the leaf lacks %s:\n%s", want, text)
		}
	}
	for _, never := range []string{"Server Authentication", "CA:TRUE", "Certificate Sign", "Subject Alternative Name"} {
		if strings.Contains(text, never) {
			t.Errorf("the leaf has %s", never)
		}
	}
	mustOpenssl(t, dir, "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca.pem", "leaf.pem")
	if out, err := openssl(t, dir, "verify", "-purpose", "sslserver", "-CAfile", "ca.pem", "leaf.pem"); err == nil {
		t.Errorf("a leaf passed as a server certificate: %s", out)
	}

	parsed := must(x509.ParseCertificate(leaf))
	if got := strings.TrimSpace(mustOpenssl(t, dir, "x509", "-in", "leaf.pem", "-noout", "-serial")); !strings.EqualFold(got, "serial="+serialHex(parsed.SerialNumber)) {
		t.Errorf("openssl shows %s, we show %s", got, serialHex(parsed.SerialNumber))
	}
	sha1Hex, sha256Hex := fingerprints(leaf)
	for flag, want := range map[string]string{"-sha1": sha1Hex, "-sha256": sha256Hex} {
		out := mustOpenssl(t, dir, "x509", "-in", "leaf.pem", "-noout", "-fingerprint", flag)
		_, value, _ := strings.Cut(strings.TrimSpace(out), "=")
		if got := strings.ToLower(strings.ReplaceAll(value, ":", "")); got != want {
			t.Errorf("fingerprint %s: openssl %s, ours %s", flag, got, want)
		}
	}
}

func TestLeafDates(t *testing.T) {
	made := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ca, pub := testCA(t, made), p256(t).Public()
	issue := func(now time.Time, days int) *x509.Certificate {
		t.Helper()
		return must(x509.ParseCertificate(must(issueLeaf(ca, pub, "a", days, now, ""))))
	}
	later := made.AddDate(1, 0, 0)
	if c := issue(later, 30); !c.NotBefore.Equal(later.Add(-5*time.Minute)) || !c.NotAfter.Equal(later.AddDate(0, 0, 30)) {
		t.Errorf("a leaf of 30 days lives from %v to %v", c.NotBefore, c.NotAfter)
	}
	if c := issue(ca.cert.NotBefore, 30); c.NotBefore.Before(ca.cert.NotBefore) {
		t.Errorf("a leaf begins at %v, before its CA at %v", c.NotBefore, ca.cert.NotBefore)
	}
	if c := issue(made.AddDate(9, 11, 0), 365); !c.NotAfter.Equal(ca.cert.NotAfter) {
		t.Errorf("a leaf ends at %v, its CA at %v", c.NotAfter, ca.cert.NotAfter)
	}
	for name, tc := range map[string]struct {
		now  time.Time
		days int
		want error
	}{
		"CA expired":      {ca.cert.NotAfter, 1, errCADates},
		"clock ran back":  {made.AddDate(0, 0, -1), 1, errCADates},
		"no days":         {later, 0, errDays},
		"negative days":   {later, -1, errDays},
		"days that wrap":  {later, 1 << 40, errDays},
		"a year too many": {later, 3661, errDays},
	} {
		if der, err := issueLeaf(ca, pub, "a", tc.days, tc.now, ""); !errors.Is(err, tc.want) || der != nil {
			t.Errorf("%s: error %v, want %v", name, err, tc.want)
		}
	}
}

// Two requests in the same moment, and many in parallel: no serial may be drawn twice, and each is 32 hex digits.
func TestSerialsAreUniqueInParallel(t *testing.T) {
	now := time.Now()
	ca, pub := testCA(t, now), p256(t).Public()
	var mu sync.Mutex
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			c := must(x509.ParseCertificate(must(issueLeaf(ca, pub, "same name", 1, now, ""))))
			mu.Lock()
			defer mu.Unlock()
			seen[serialHex(c.SerialNumber)] = true
			if c.SerialNumber.Sign() <= 0 || c.SerialNumber.BitLen() <= 120 || c.SerialNumber.BitLen() > 128 {
				t.Errorf("serial %x is not a positive number of 16 bytes", c.SerialNumber)
			}
		})
	}
	wg.Wait()
	if len(seen) != 50 {
		t.Errorf("50 leaves have %d serials", len(seen))
	}
}

func TestCRLAsOpensslSeesIt(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	ca := testCA(t, now.Add(-time.Hour))
	good, bad := must(issueLeaf(ca, p256(t).Public(), "good", 30, now, "")), must(issueLeaf(ca, p256(t).Public(), "bad", 30, now, ""))
	serial := serialHex(must(x509.ParseCertificate(bad)).SerialNumber)
	crl, err := makeCRL(ca, []revocation{{serial: serial, owner: strings.Repeat("a", 64), at: now.Unix(), reason: "keyCompromise"}}, big.NewInt(7), now)
	if err != nil {
		t.Fatal(err)
	}
	empty, err := makeCRL(ca, nil, big.NewInt(6), now)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"ca": pemOf("CERTIFICATE", ca.cert.Raw), "good": pemOf("CERTIFICATE", good), "bad": pemOf("CERTIFICATE", bad),
		"crl": pemOf("X509 CRL", crl), "empty": pemOf("X509 CRL", empty), "crl.der": crl} {
		writeFile(t, filepath.Join(dir, name), data)
	}
	mustOpenssl(t, dir, "verify", "-crl_check", "-CAfile", "ca", "-CRLfile", "crl", "good")
	mustOpenssl(t, dir, "verify", "-crl_check", "-CAfile", "ca", "-CRLfile", "empty", "bad")
	if out, err := openssl(t, dir, "verify", "-crl_check", "-CAfile", "ca", "-CRLfile", "crl", "bad"); err == nil || !strings.Contains(out, "certificate revoked") {
		t.Errorf("openssl accepts a revoked certificate: %v\n%s", err, out)
	}
	week := fmt.Sprint(now.Add(7*24*time.Hour + time.Minute).Unix())
	if out, err := openssl(t, dir, "verify", "-crl_check", "-attime", week, "-CAfile", "ca", "-CRLfile", "crl", "good"); err == nil || !strings.Contains(out, "CRL has expired") {
		t.Errorf("the list is still good after 7 days: %v\n%s", err, out)
	}
	text := mustOpenssl(t, dir, "crl", "-inform", "DER", "-in", "crl.der", "-CAfile", "ca", "-noout", "-text")
	for _, want := range []string{`verify OK`, `X509v3 CRL Number: ?\n\s+7\n`, `Key Compromise`, `(?i)Serial Number: ` + serial} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("the list lacks %s:\n%s", want, text)
		}
	}

	for _, reason := range []string{"removeFromCRL", "certificateHold", "cACompromise", "aACompromise", "KeyCompromise", "key_compromise", "1", ""} {
		if _, err := reasonCode(reason); !errors.Is(err, errReason) {
			t.Errorf("reason %q: error %v, want %v", reason, err, errReason)
		}
		if der, err := makeCRL(ca, []revocation{{serial: serial, at: now.Unix(), reason: reason}}, big.NewInt(8), now); err == nil || der != nil {
			t.Errorf("a list with reason %q was signed", reason)
		}
	}
	for reason, code := range map[string]int{"unspecified": 0, "keyCompromise": 1, "affiliationChanged": 3, "superseded": 4, "cessationOfOperation": 5, "privilegeWithdrawn": 9} {
		list := must(x509.ParseRevocationList(must(makeCRL(ca, []revocation{{serial: serial, at: now.Unix(), reason: reason}}, big.NewInt(8), now))))
		if got := list.RevokedCertificateEntries[0].ReasonCode; got != code {
			t.Errorf("reason %s has code %d, want %d", reason, got, code)
		}
	}
}

// flipS returns the certificate with its ECDSA signature (r, s) replaced by the equally valid (r, n-s).
func flipS(t testing.TB, der []byte) []byte {
	t.Helper()
	var outer struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		t.Fatal(err)
	}
	if _, err := asn1.Unmarshal(outer.Signature.Bytes, &sig); err != nil {
		t.Fatal(err)
	}
	sig.S.Sub(elliptic.P256().Params().N, sig.S)
	outer.Signature.Bytes = must(asn1.Marshal(sig))
	outer.Signature.BitLength = 8 * len(outer.Signature.Bytes)
	return must(asn1.Marshal(outer))
}

// A malleated certificate has the serial, name, key and a signature that verifies. Only the fingerprint tells it apart.
func TestMalleatedCertificateIsAnother(t *testing.T) {
	now := time.Now()
	ca := testCA(t, now)
	leaf := must(issueLeaf(ca, p256(t).Public(), "alice", 1, now, ""))
	other := flipS(t, leaf)
	a, b := must(x509.ParseCertificate(leaf)), must(x509.ParseCertificate(other))
	if err := b.CheckSignatureFrom(ca.cert); err != nil {
		t.Fatalf("the flipped signature does not verify, so this test shows nothing: %v", err)
	}
	if a.SerialNumber.Cmp(b.SerialNumber) != 0 || !bytes.Equal(a.RawTBSCertificate, b.RawTBSCertificate) {
		t.Fatal("the flip changed more than the signature")
	}
	a1, a256 := fingerprints(leaf)
	b1, b256 := fingerprints(other)
	if a1 == b1 || a256 == b256 {
		t.Error("a malleated certificate has the fingerprint of the original")
	}
}

func TestCAKeyAtRest(t *testing.T) {
	now := time.Now()
	ca, other := testCA(t, now), testCA(t, now)
	blob, err := sealCAKey(ca.key, testCAPassword, ca.cert)
	if err != nil {
		t.Fatal(err)
	}
	key, err := openCAKey(blob, testCAPassword, ca.cert)
	if err != nil || !key.Equal(ca.key) {
		t.Fatalf("the key does not come back: %v", err)
	}
	if bytes.Contains(blob, must(ca.key.Bytes())) {
		t.Error("the sealed key shows the key")
	}
	again := must(sealCAKey(ca.key, testCAPassword, ca.cert))
	if bytes.Equal(blob[:32], again[:32]) {
		t.Error("two seals have one salt")
	}
	foreign := must(sealCAKey(other.key, testCAPassword, ca.cert)) // as if somebody with the password had mixed two CAs up
	flipped := bytes.Clone(blob)
	flipped[len(flipped)-1] ^= 1
	for name, tc := range map[string]struct {
		blob     []byte
		password string
		cert     *x509.Certificate
		want     error
	}{
		"wrong password":            {blob, testCAPassword + "x", ca.cert, errCAPassword},
		"certificate of another CA": {blob, testCAPassword, other.cert, errCAPassword},
		"malleated certificate":     {blob, testCAPassword, must(x509.ParseCertificate(flipS(t, ca.cert.Raw))), errCAPassword},
		"key of another CA":         {foreign, testCAPassword, ca.cert, errCAKey},
		"one bit flipped":           {flipped, testCAPassword, ca.cert, errCAPassword},
		"cut short":                 {blob[:50], testCAPassword, ca.cert, errCAPassword},
		"nothing":                   {nil, testCAPassword, ca.cert, errCAPassword},
	} {
		if key, err := openCAKey(tc.blob, tc.password, tc.cert); !errors.Is(err, tc.want) || key != nil {
			t.Errorf("%s: error %v, want %v", name, err, tc.want)
		}
	}
	if _, err := sealCAKey(ca.key, "", ca.cert); err == nil {
		t.Error("sealed under an empty password")
	}
	if _, err := openCAKey(blob, "", ca.cert); err == nil {
		t.Error("opened with an empty password")
	}
}

// Whatever a request asks for besides key and name, the leaf has none of it.
func TestRequestsThatAskForMore(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	ca, key := testCA(t, now), p256(t)
	basic := must(asn1.Marshal(struct {
		CA      bool
		PathLen int
	}{true, 5}))
	usage := must(asn1.Marshal(asn1.BitString{Bytes: []byte{0x06}, BitLength: 7})) // keyCertSign, cRLSign
	server := must(asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 1}}))
	greedy := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "mallory", Organization: []string{"admin"}, ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 5}, Value: "1"}}},
		DNSNames: []string{"paste.example"}, EmailAddresses: []string{"root@paste.example"}, IPAddresses: []net.IP{{127, 0, 0, 1}}, URIs: []*url.URL{{Scheme: "spiffe", Host: "x"}},
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: basic},
			{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: usage},
			{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: server},
		},
	}, key))
	writeFile(t, filepath.Join(dir, "key.pem"), pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))))
	mustOpenssl(t, dir, "req", "-new", "-key", "key.pem", "-subj", "/O=admin/CN=mallory", "-out", "openssl.csr", "-addext", "basicConstraints=critical,CA:TRUE",
		"-addext", "keyUsage=critical,keyCertSign,cRLSign", "-addext", "extendedKeyUsage=serverAuth,codeSigning", "-addext", "subjectAltName=DNS:paste.example,IP:127.0.0.1")

	for who, text := range map[string][]byte{"Go": pemOf("CERTIFICATE REQUEST", greedy), "openssl": must(os.ReadFile(filepath.Join(dir, "openssl.csr")))} {
		csr, name, err := parseCSR(text)
		if err != nil {
			t.Fatalf("%s: %v", who, err)
		}
		leaf := must(x509.ParseCertificate(must(issueLeaf(ca, csr.PublicKey, name, 30, now, ""))))
		if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth ||
			len(leaf.UnknownExtKeyUsage)+len(leaf.DNSNames)+len(leaf.EmailAddresses)+len(leaf.IPAddresses)+len(leaf.URIs) != 0 || leaf.Subject.String() != "CN=mallory" {
			t.Errorf("%s: the leaf took more than key and name: CA %v, usage %v, %v, subject %s, names %v", who, leaf.IsCA, leaf.KeyUsage, leaf.ExtKeyUsage, leaf.Subject, leaf.DNSNames)
		}
		// Its holder signs a certificate all the same: no verifier may take it.
		forged := must(x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "admin"}, NotBefore: now, NotAfter: now.Add(time.Hour)}, leaf, key.Public(), key))
		for file, data := range map[string][]byte{"ca": ca.cert.Raw, "leaf": leaf.Raw, "forged": forged} {
			writeFile(t, filepath.Join(dir, file), pemOf("CERTIFICATE", data))
		}
		if out, err := openssl(t, dir, "verify", "-CAfile", "ca", "-untrusted", "leaf", "forged"); err == nil {
			t.Errorf("%s: a leaf can sign certificates: %s", who, out)
		}
	}
}

// rsaRequest makes a request with an RSA key that nobody holds; its signature is noise, so that only a check of the key made
// before that of the signature refuses it for the key.
func rsaRequest(t testing.TB, bits uint, e int) []byte {
	t.Helper()
	n := new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), bits-1), big.NewInt(1))
	csr := must(x509.ParseCertificateRequest(derOf(csrPEM(t, "alice", p256(t)))))
	var info struct {
		Version      int
		Subject, Key asn1.RawValue
		Attributes   asn1.RawValue
	}
	if _, err := asn1.Unmarshal(csr.RawTBSCertificateRequest, &info); err != nil {
		t.Fatal(err)
	}
	info.Key = asn1.RawValue{FullBytes: must(x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n, E: e}))}
	algorithm := asn1.RawValue{FullBytes: must(asn1.Marshal(pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue}))}
	return pemOf("CERTIFICATE REQUEST", must(asn1.Marshal(struct {
		Info, Algorithm asn1.RawValue
		Signature       asn1.BitString
	}{asn1.RawValue{FullBytes: must(asn1.Marshal(info))}, algorithm, asn1.BitString{Bytes: make([]byte, 256), BitLength: 2048}})))
}

func TestRefusedRequests(t *testing.T) {
	key := p256(t)
	good := csrPEM(t, "alice", key)
	damaged := bytes.Clone(derOf(good))
	damaged[len(damaged)-1] ^= 1
	spliced := bytes.Replace(derOf(good), []byte("alice"), []byte("alicf"), 1)
	if bytes.Equal(spliced, derOf(good)) {
		t.Fatal("the splice shows nothing")
	}
	weak := func(bits int) []byte {
		t.Setenv("GODEBUG", "rsa1024min=0")
		return csrPEM(t, "alice", must(rsa.GenerateKey(rand.Reader, bits)))
	}
	p224 := csrPEM(t, "alice", must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)))
	sha1Signed := func() []byte {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "key.pem"), pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))))
		mustOpenssl(t, dir, "req", "-new", "-sha1", "-key", "key.pem", "-subj", "/CN=alice", "-out", "csr.pem")
		return must(os.ReadFile(filepath.Join(dir, "csr.pem")))
	}
	byOpenssl := func(algorithm, option string) []byte {
		dir := t.TempDir()
		mustOpenssl(t, dir, "genpkey", "-algorithm", algorithm, "-pkeyopt", option, "-out", "key.pem")
		mustOpenssl(t, dir, "req", "-new", "-key", "key.pem", "-subj", "/CN=alice", "-out", "csr.pem")
		return must(os.ReadFile(filepath.Join(dir, "csr.pem")))
	}
	text := string(good)
	cases := map[string]struct {
		in   []byte
		want error
	}{
		"1 MiB of PEM":              {bytes.Repeat(good, 1<<20/len(good)), errCSRTooLarge},
		"1 MiB of one block":        {pemOf("CERTIFICATE REQUEST", make([]byte, 3<<18)), errCSRTooLarge},
		"one byte over":             {append(good, bytes.Repeat([]byte("\n"), csrMax+1-len(good))...), errCSRTooLarge},
		"nothing":                   {nil, errCSRForm},
		"blank":                     {[]byte("\n \n"), errCSRForm},
		"DER":                       {derOf(good), errCSRForm},
		"a certificate":             {pemOf("CERTIFICATE", testCA(t, time.Now()).cert.Raw), errCSRForm},
		"a private key":             {pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))), errCSRForm},
		"another label":             {pemOf("NEW CERTIFICATE REQUEST", derOf(good)), errCSRForm},
		"two blocks":                {append(bytes.Clone(good), good...), errCSRForm},
		"an unreadable block first": {[]byte("-----BEGIN CERTIFICATE REQUEST-----\n!\n" + text), errCSRForm},
		"text before":               {[]byte("Certificate Request:\n" + text), errCSRForm},
		"text after":                {[]byte(text + "x"), errCSRForm},
		"a key after":               {append(bytes.Clone(good), pemOf("PRIVATE KEY", []byte("x"))...), errCSRForm},
		"PEM headers":               {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: derOf(good), Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}}), errCSRForm},
		"trailing data in the DER":  {pemOf("CERTIFICATE REQUEST", append(bytes.Clone(derOf(good)), 5, 0)), errCSRSyntax},
		"noise":                     {pemOf("CERTIFICATE REQUEST", []byte("noise")), errCSRSyntax},
		"cut DER":                   {pemOf("CERTIFICATE REQUEST", derOf(good)[:60]), errCSRSyntax},
		"bad signature":             {pemOf("CERTIFICATE REQUEST", damaged), errCSRSignature},
		"another name's signature":  {pemOf("CERTIFICATE REQUEST", spliced), errCSRSignature},
		"SHA-1":                     {sha1Signed(), errCSRSignature},
		"RSA 1024":                  {weak(1024), errCSRKey},
		"RSA 2047":                  {weak(2047), errCSRKey},
		"P-224":                     {p224, errCSRKey},
		"RSA 1024 by openssl":       {byOpenssl("RSA", "rsa_keygen_bits:1024"), errCSRKey},
		"RSA exponent 3":            {rsaRequest(t, 2048, 3), errCSRKey},
		"RSA even exponent":         {rsaRequest(t, 2048, 65538), errCSRKey},
		"RSA exponent over 31 bits": {rsaRequest(t, 2048, 1<<31+1), errCSRKey},
		"RSA 90,000":                {rsaRequest(t, 90_000, 65537), errCSRKey},
		"RSA 8193":                  {rsaRequest(t, 8193, 65537), errCSRKey},
		"P-224 by openssl":          {byOpenssl("EC", "ec_paramgen_curve:P-224"), errCSRKey},
		"secp256k1":                 {byOpenssl("EC", "ec_paramgen_curve:secp256k1"), errCSRSyntax},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if csr, cn, err := parseCSR(tc.in); !errors.Is(err, tc.want) || csr != nil || cn != "" {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
}

func TestAcceptedRequests(t *testing.T) {
	now := time.Now()
	ca := testCA(t, now)
	_, ed := must2(ed25519.GenerateKey(rand.Reader))
	keys := map[string]crypto.Signer{
		"P-256": p256(t), "P-384": must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), "P-521": must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)),
		"Ed25519": ed, "RSA 2048": must(rsa.GenerateKey(rand.Reader, 2048)),
	}
	for kind, key := range keys {
		for _, text := range [][]byte{csrPEM(t, "alice", key), bytes.ReplaceAll(csrPEM(t, "alice", key), []byte("\n"), []byte("\r\n"))} {
			csr, name, err := parseCSR(text)
			if err != nil || name != "alice" {
				t.Fatalf("%s: name %q, error %v", kind, name, err)
			}
			leaf := must(x509.ParseCertificate(must(issueLeaf(ca, csr.PublicKey, name, 1, now, ""))))
			if !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(leaf.PublicKey) {
				t.Errorf("%s: the leaf has another key", kind)
			}
		}
	}
}

func must2[A, B any](a A, b B, err error) (A, B) {
	if err != nil {
		panic(err)
	}
	return a, b
}

func TestNames(t *testing.T) {
	key := p256(t)
	for name, ok := range map[string]bool{
		"a": true, "Alice": true, "alice@example.org": true, "Alice B. Carol-Dean_2": true, strings.Repeat("n", 64): true, "..": true, "-": true,
		"": false, " ": false, " alice": false, "alice ": false, strings.Repeat("n", 65): false, "alice\n": false, "a\x00b": false, "a/b": false, "a\\b": false,
		"älice": false, "аlice": false, "a\u202eb": false, `a"b`: false, "a;b": false, "a,b": false, "a=b": false, "a+b": false, "a\tb": false, "<b>": false, "٣": false,
	} {
		_, got, err := parseCSR(csrPEM(t, name, key))
		if ok && (err != nil || got != name) || !ok && !errors.Is(err, errCSRName) {
			t.Errorf("name %q: %q, error %v", name, got, err)
		}
		if _, err := issueLeaf(testCA(t, time.Now()), key.Public(), name, 1, time.Now(), ""); (err == nil) != ok {
			t.Errorf("issuing for name %q: error %v", name, err)
		}
	}
	cn := func(v string) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: v}
	}
	for _, names := range [][]pkix.AttributeTypeAndValue{{cn("alice"), cn("admin")}, {cn("alice"), cn("alice")}} { // which one is it?
		der := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{ExtraNames: names}}, key))
		if _, _, err := parseCSR(pemOf("CERTIFICATE REQUEST", der)); !errors.Is(err, errCSRName) {
			t.Errorf("two common names: error %v", err)
		}
	}
}

func TestRevocationFile(t *testing.T) {
	dir := t.TempDir()
	database := filepath.Join(dir, "f.db")
	writeFile(t, database, nil)
	path := database + ".revoked"
	if list, err := readRevocations(path); err != nil || len(list) != 0 {
		t.Fatalf("no file: %v, %v", list, err)
	}
	entry := func(n int) revocation {
		return revocation{fmt.Sprintf("%032x", n), fmt.Sprintf("%064x", n), 1_700_000_000 + int64(n), 1_800_000_000, "keyCompromise"}
	}
	add := func(list ...revocation) error { return appendRevocations(path, database, list) }
	if err := errors.Join(add(entry(0)), add(entry(1), entry(2))); err != nil {
		t.Fatal(err)
	}
	if info := must(os.Stat(path)); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	whole := must(os.ReadFile(path))
	if list, err := readRevocations(path); err != nil || !slices.Equal(list, []revocation{entry(0), entry(1), entry(2)}) {
		t.Fatalf("read %v, %v", list, err)
	}

	t.Run("a torn last line", func(t *testing.T) {
		start := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
		for _, tail := range [][]byte{whole[start : len(whole)-1], whole[start : start+1], make([]byte, 4096)} {
			writeFile(t, path, append(bytes.Clone(whole[:start]), tail...))
			if list, err := readRevocations(path); err != nil || len(list) != 2 {
				t.Errorf("tail of %d bytes: %d entries, %v", len(tail), len(list), err)
			}
			if err := add(entry(2)); err != nil {
				t.Fatal(err)
			}
			if got := must(os.ReadFile(path)); !bytes.Equal(got, whole) {
				t.Errorf("after a tail of %d bytes the file is\n%q", len(tail), got)
			}
		}
	})

	t.Run("lines that hide something", func(t *testing.T) {
		line := string(whole[:bytes.IndexByte(whole, '\n')])
		for _, bad := range []string{"", " " + line, line + " ", line + "\r", strings.ToUpper(line), line[1:], strings.Replace(line, "keyCompromise", "removeFromCRL", 1),
			strings.Replace(line, " ", "  ", 1), strings.Replace(line, "1700000000", "-1700000000", 1), line + " extra", "# comment"} {
			writeFile(t, path, []byte(bad+"\n"+line+"\n"))
			if list, err := readRevocations(path); err == nil || list != nil {
				t.Errorf("line %q was read as %v", bad, list)
			}
		}
	})

	t.Run("entries that would stop the next start", func(t *testing.T) {
		writeFile(t, path, whole)
		short, late, held, split := entry(1), entry(1), entry(1), entry(1)
		short.serial, late.at, held.reason, split.reason = "1", 0, "removeFromCRL", "keyCompromise\n"
		for _, bad := range []revocation{{}, short, late, held, split} {
			if err := add(entry(3), bad); err == nil {
				t.Errorf("%v was written", bad)
			}
		}
		if got := must(os.ReadFile(path)); !bytes.Equal(got, whole) {
			t.Errorf("a refused entry changed the file: %q", got)
		}
	})

	t.Run("a planted link", func(t *testing.T) {
		target := filepath.Join(dir, "victim")
		writeFile(t, target, []byte("victim"))
		os.Remove(path)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		if err := add(entry(1)); err == nil {
			t.Error("wrote through a symbolic link")
		}
		if got := must(os.ReadFile(target)); string(got) != "victim" {
			t.Errorf("the link's target is now %q", got)
		}
	})
}

func TestBundle(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	ca, key := testCA(t, now), p256(t)
	leaf := must(issueLeaf(ca, key.Public(), "alice", 30, now, ""))
	path := filepath.Join(dir, "alice.pem")
	if err := writeBundle(path, key, leaf, ca.cert.Raw); err != nil {
		t.Fatal(err)
	}
	if info := must(os.Stat(path)); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	pair, err := tls.LoadX509KeyPair(path, path)
	if err != nil || len(pair.Certificate) != 2 || !bytes.Equal(pair.Certificate[0], leaf) || !bytes.Equal(pair.Certificate[1], ca.cert.Raw) {
		t.Errorf("the bundle does not load as key, certificate, CA: %v", err)
	}
	mustOpenssl(t, dir, "pkey", "-in", "alice.pem", "-check", "-noout")
	before := must(os.ReadFile(path))
	if err := writeBundle(path, p256(t), leaf, ca.cert.Raw); !errors.Is(err, os.ErrExist) {
		t.Errorf("overwriting: error %v, want %v", err, os.ErrExist)
	}
	if !bytes.Equal(before, must(os.ReadFile(path))) {
		t.Error("the bundle was overwritten")
	}
	if err := writeBundle(filepath.Join(dir, "absent", "x.pem"), key, leaf, ca.cert.Raw); err == nil {
		t.Error("wrote into a folder that does not exist")
	}
}

// FuzzCSR: the parser survives anything, and what it lets through is safe to sign.
func FuzzCSR(f *testing.F) {
	now := time.Now()
	ca := testCA(f, now)
	key := p256(f)
	good := csrPEM(f, "alice", key)
	f.Add(good)
	f.Add(csrPEM(f, "x y", must(rsa.GenerateKey(rand.Reader, 2048))))
	_, ed := must2(ed25519.GenerateKey(rand.Reader))
	f.Add(csrPEM(f, "a@b", ed))
	f.Add(rsaRequest(f, 2048, 3))
	f.Add(good[:len(good)/2])
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----"))
	f.Fuzz(func(t *testing.T, text []byte) {
		csr, name, err := parseCSR(text)
		if err != nil {
			if csr != nil || name != "" {
				t.Fatal("an error with a result")
			}
			return
		}
		if !certName.MatchString(name) || !keyAllowed(csr.PublicKey) {
			t.Fatalf("accepted name %q, key %T", name, csr.PublicKey)
		}
		leaf := must(x509.ParseCertificate(must(issueLeaf(ca, csr.PublicKey, name, 1, now, ""))))
		if leaf.IsCA || leaf.Subject.String() == "" || len(leaf.Subject.Names) != 1 || leaf.Subject.CommonName != name {
			t.Fatalf("signed %s, CA %v", leaf.Subject, leaf.IsCA)
		}
	})
}
