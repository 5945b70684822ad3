package main

// Certificates: the built-in CA, what it signs, and the revocations that outlive a restored backup.
//
// Invariants: a leaf is made from scratch, of a request only the public key and the checked name are taken, so nobody can ask
// for a CA, another usage or a second name. The CA's key rests only under AES-256-GCM and a password, bound to its certificate.
// A revocation is on disk twice, in the database and in an append-only file beside it, before anyone hears of it.
// Never: a client's private key over HTTP, trust from a chain or a name (a row of the table decides), a key in a log or an error.
// RFC 2986 (requests), 5280 (certificates, CRL), 5958 (PKCS #8), 7468 (PEM), 8018 (PBKDF2).

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	caYears        = 10
	caRounds       = 600_000         // PBKDF2-HMAC-SHA256 over the CA password: OWASP's figure, 0.1 s at a start
	caSaltSize     = 32              // bytes
	certBackdate   = 5 * time.Minute // clocks of clients and proxies that run slow
	certDaysMax    = caYears * 366   // nothing outlives the CA anyway; keeps date arithmetic in range
	crlLife        = 7 * 24 * time.Hour
	csrMax         = 16 << 10 // bytes of PEM; an RSA 8192 request has 3 KiB
	rsaExponentMin = 65537    // NIST SP 800-89: a small exponent has only ever helped attackers
	rsaExponentMax = 1<<31 - 1
)

// What is refused, each with the sentence that is shown.
var (
	errCSRTooLarge  = &apiError{status: 413, code: "too_large", text: "the certificate request is larger than 16 KiB", extra: []member{{"limit", csrMax}}}
	errCSRForm      = badCSR("the body must be exactly one PEM block CERTIFICATE REQUEST and nothing else")
	errCSRSyntax    = badCSR("the certificate request is not valid PKCS #10, or its key is of no supported kind")
	errCSRKey       = badCSR("the key must be ECDSA on P-256, P-384 or P-521, Ed25519, or RSA of 2048 to 8192 bits with an odd exponent of 65537 or more")
	errCSRSignature = badCSR("the certificate request is not signed by its own key with SHA-256, SHA-384, SHA-512 or Ed25519")
	errCSRName      = badCSR("the common name must be one, of 1 to 64 letters, digits, blanks, or . _ - @, without a blank at either end")
	errDays         = &apiError{status: 400, code: "bad_option", text: "days must be a number from 1 to 3660"}
	errReason       = &apiError{status: 400, code: "bad_option", text: "the reason must be unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation or privilegeWithdrawn"}
	errCADates      = &apiError{status: 503, code: "ca_not_valid", text: "the CA is expired or not yet valid", hint: "the operator must look at the clock, or make a new CA"}
	errPKIOff       = &apiError{status: 404, code: "pki_disabled", text: "this server issues no certificates"}
	errNoEnrolment  = &apiError{status: 403, code: "registration_closed", text: "certificates are issued by the operator only", hint: "flaskpaste pki issue NAME, on the server's machine"}
	errNoIdentity   = &apiError{status: 401, code: "authentication_required", text: "this needs a client certificate of this server"}
	errNotAdmin     = &apiError{status: 403, code: "not_admin", text: "only an admin may do this"}
	errNotTrusted   = &apiError{status: 403, code: "not_trusted", text: "this needs a client certificate of this server"}
	errNotHolder    = &apiError{status: 403, code: "not_owner", text: "this certificate belongs to somebody else"}
	errRevoked      = &apiError{status: 403, code: "certificate_revoked", text: "the client certificate is revoked", hint: "without it you are anonymous"}
	errExpired      = &apiError{status: 403, code: "certificate_expired", text: "the client certificate has expired", hint: "without it you are anonymous"}
	errEarly        = &apiError{status: 403, code: "certificate_not_yet_valid", text: "the client certificate is not valid yet", hint: "the server's clock may be wrong"}
	errManyCerts    = &apiError{status: 409, code: "too_many_certificates", text: "this owner has 16 valid certificates", hint: "use one of them; if they are not yours, revoke the line"}

	errNoPassword = errors.New("FLASKPASTE_PKI_CA_PASSWORD is not set: it opens the CA's key")
	errCAPassword = errors.New("FLASKPASTE_PKI_CA_PASSWORD is wrong, or the CA's key is damaged or belongs to another certificate")
	errCAKey      = errors.New("the CA's key does not belong to the CA's certificate")
	errCAHalf     = errors.New("the database has only half of a CA (certificate without key, or key without certificate): restore it from a backup; it is never made anew")
	errNoCA       = errors.New("there is no CA yet: flaskpaste pki init")
)

func badCSR(text string) *apiError { return &apiError{status: 400, code: "bad_csr", text: text} }

// certName is what a name may be: ASCII, so that no two look alike, and safe in a file name, a header and a terminal.
var certName = regexp.MustCompile(`^[A-Za-z0-9._@-](?:[A-Za-z0-9 ._@-]{0,62}[A-Za-z0-9._@-])?$`)

// authority is the CA: a self-signed certificate and its key, opened. It is immutable.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newCA makes a CA named commonName: ECDSA P-256, ten years, path length 0, so that a leaf can never become an issuer.
func newCA(commonName string, now time.Time) (*authority, error) {
	if !certName.MatchString(commonName) {
		return nil, errCSRName
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.Add(-certBackdate).UTC(),
		NotAfter:              now.AddDate(caYears, 0, 0).UTC(),
		SignatureAlgorithm:    x509.ECDSAWithSHA256,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making the CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert, key}, err
}

// caCipher derives the key that seals a CA's key. The salt is fresh for every seal, so no nonce can repeat under it.
func caCipher(password string, salt []byte) (cipher.AEAD, error) {
	if password == "" {
		return nil, errNoPassword
	}
	k, err := pbkdf2.Key(sha256.New, password, salt, caRounds, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// sealCAKey encrypts a CA's key for storage: salt (32) | nonce (12) | AES-256-GCM of PKCS #8 | tag (16), with the SHA-256 of
// the certificate as additional data, so that a stored key cannot be moved under another certificate.
func sealCAKey(key *ecdsa.PrivateKey, password string, cert *x509.Certificate) ([]byte, error) {
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	salt := make([]byte, caSaltSize)
	rand.Read(salt)
	aead, err := caCipher(password, salt)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(cert.Raw)
	return aead.Seal(salt, nil, plain, sum[:]), nil
}

// openCAKey decrypts what sealCAKey made and checks that the key is that certificate's. A wrong password, a damaged blob and
// another certificate are one error, errCAPassword: the tag cannot tell them apart.
func openCAKey(blob []byte, password string, cert *x509.Certificate) (*ecdsa.PrivateKey, error) {
	if len(blob) < caSaltSize {
		return nil, errCAPassword
	}
	aead, err := caCipher(password, blob[:caSaltSize])
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(cert.Raw)
	plain, err := aead.Open(nil, nil, blob[caSaltSize:], sum[:])
	if err != nil {
		return nil, errCAPassword
	}
	parsed, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return nil, errCAKey // not %w: a parser's error could quote key material
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errCAKey
	}
	return key, nil
}

// newSerial draws a 128-bit serial whose first byte is not zero: positive, and 32 hex digits in every tool that prints it.
func newSerial() *big.Int {
	b := make([]byte, 16)
	for b[0] == 0 {
		rand.Read(b)
	}
	return new(big.Int).SetBytes(b)
}

// serialHex is how a serial is stored, shown and asked for: 32 lower-case hex digits.
func serialHex(n *big.Int) string { return fmt.Sprintf("%032x", n) }

// fingerprints returns the lower-case hex SHA-1 and SHA-256 of a certificate's DER. They cover the signature too: a
// certificate whose ECDSA s was flipped still verifies, but is another certificate here.
func fingerprints(der []byte) (sha1Hex, sha256Hex string) {
	a, b := sha1.Sum(der), sha256.Sum256(der)
	return hex.EncodeToString(a[:]), hex.EncodeToString(b[:])
}

// parseCSR reads one PEM certificate request and returns it with its checked common name. Whatever else it asks for is left
// unread: take only PublicKey. Key sizes are checked before the signature, which would be slow with a huge modulus.
func parseCSR(text []byte) (*x509.CertificateRequest, string, error) {
	if len(text) > csrMax {
		return nil, "", errCSRTooLarge
	}
	text = bytes.TrimSpace(text)
	// pem.Decode skips text before a block and blocks that it cannot read: both would hide a second request.
	if !bytes.HasPrefix(text, []byte("-----BEGIN CERTIFICATE REQUEST-----")) || bytes.Count(text, []byte("-----BEGIN")) != 1 {
		return nil, "", errCSRForm
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(block.Headers) != 0 || len(rest) != 0 {
		return nil, "", errCSRForm
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, "", errCSRSyntax
	}
	if !keyAllowed(csr.PublicKey) {
		return nil, "", errCSRKey
	}
	switch csr.SignatureAlgorithm { // crypto/x509 would let SHA-1 pass for requests
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1:
		return nil, "", errCSRSignature
	}
	if csr.CheckSignature() != nil {
		return nil, "", errCSRSignature
	}
	names := 0 // Go reports the last of several common names, other tools the first
	for _, attribute := range csr.Subject.Names {
		if attribute.Type.Equal(asn1.ObjectIdentifier{2, 5, 4, 3}) {
			names++
		}
	}
	if names != 1 || !certName.MatchString(csr.Subject.CommonName) {
		return nil, "", errCSRName
	}
	return csr, csr.Subject.CommonName, nil
}

// keyAllowed reports whether a client may use this key; the upper bounds keep each later handshake cheap.
func keyAllowed(pub any) bool {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256() || k.Curve == elliptic.P384() || k.Curve == elliptic.P521()
	case ed25519.PublicKey:
		return true
	case *rsa.PublicKey:
		bits := k.N.BitLen()
		return bits >= 2048 && bits <= 8192 && k.E%2 == 1 && k.E >= rsaExponentMin && k.E <= rsaExponentMax
	}
	return false
}

// issueLeaf signs a client certificate for pub and returns its DER. The template is made here from nothing; name must have
// passed parseCSR or certName. It lives days, never past the CA. crlURL, if not empty, becomes its CRL distribution point.
func issueLeaf(ca *authority, pub crypto.PublicKey, name string, days int, now time.Time, crlURL string) ([]byte, error) {
	switch {
	case !certName.MatchString(name):
		return nil, errCSRName
	case !keyAllowed(pub):
		return nil, errCSRKey
	case days < 1 || days > certDaysMax:
		return nil, errDays
	case now.Before(ca.cert.NotBefore) || !now.Before(ca.cert.NotAfter):
		return nil, errCADates
	}
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-certBackdate).UTC(),
		NotAfter:              now.AddDate(0, 0, days).UTC(),
		SignatureAlgorithm:    x509.ECDSAWithSHA256,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if template.NotBefore.Before(ca.cert.NotBefore) {
		template.NotBefore = ca.cert.NotBefore
	}
	if template.NotAfter.After(ca.cert.NotAfter) {
		template.NotAfter = ca.cert.NotAfter
	}
	if crlURL != "" {
		template.CRLDistributionPoints = []string{crlURL}
	}
	return x509.CreateCertificate(rand.Reader, template, ca.cert, pub, ca.key)
}

// revocation is one revoked certificate, in the CRL and in the revocation file. Times are Unix seconds.
type revocation struct {
	serial  string // 32 lower-case hex digits
	owner   string // 64 lower-case hex digits: the line that it took down
	at      int64
	expires int64  // when the certificate ends: the CRL need not name it for ever
	reason  string // a name that reasonCode knows
}

// reasonCode maps the RFC 5280 section 5.3.1 name of a reason to its code. Refused are removeFromCRL and certificateHold
// (nothing here is ever un-revoked) and cACompromise and aACompromise (a leaf is neither).
func reasonCode(name string) (int, error) {
	switch name {
	case "unspecified":
		return 0, nil
	case "keyCompromise":
		return 1, nil
	case "affiliationChanged":
		return 3, nil
	case "superseded":
		return 4, nil
	case "cessationOfOperation":
		return 5, nil
	case "privilegeWithdrawn":
		return 9, nil
	}
	return 0, errReason
}

// makeCRL signs the list of what is revoked (DER, RFC 5280 section 5). number must grow from list to list.
func makeCRL(ca *authority, revoked []revocation, number *big.Int, now time.Time) ([]byte, error) {
	list := &x509.RevocationList{
		SignatureAlgorithm: x509.ECDSAWithSHA256,
		Number:             number,
		ThisUpdate:         now.UTC(),
		NextUpdate:         now.Add(crlLife).UTC(),
	}
	for _, r := range revoked {
		serial, ok := new(big.Int).SetString(r.serial, 16)
		if !ok {
			return nil, fmt.Errorf("making the CRL: bad serial %q", r.serial)
		}
		code, err := reasonCode(r.reason)
		if err != nil {
			return nil, fmt.Errorf("making the CRL: serial %s: %w", r.serial, err)
		}
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: serial, RevocationTime: time.Unix(r.at, 0).UTC(), ReasonCode: code})
	}
	return x509.CreateRevocationList(rand.Reader, list, ca.cert, ca.key)
}

// revocationLine is the one spelling of a line: serial, owner, when, when the certificate ends, reason.
var revocationLine = regexp.MustCompile(`^([0-9a-f]{32}) ([0-9a-f]{64}) ([1-9][0-9]{0,11}) ([1-9][0-9]{0,11}) ([A-Za-z]{1,32})$`)

// appendRevocations adds a line each to the file at path and returns once they are on the disk. The caller holds the
// database's write lock, so that no other process is writing. A new file is given to the owner of the file model. What a crash
// left of an unfinished line was never acknowledged and is cut off. No link is followed: the folder is the server's, and a
// server that was broken into must not be able to point an operator's root elsewhere.
func appendRevocations(path, model string, list []revocation) (err error) {
	var text []byte
	for _, r := range list {
		line := fmt.Appendf(nil, "%s %s %d %d %s", r.serial, r.owner, r.at, r.expires, r.reason)
		if _, err := parseRevocation(string(line)); err != nil {
			return fmt.Errorf("writing a revocation: %w", err) // it would stop the next start
		}
		text = append(append(text, line...), '\n')
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return fmt.Errorf("opening the revocation file: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = fmt.Errorf("writing the revocation file: %w", err)
		}
	}()
	whole, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	end := bytes.LastIndexByte(whole, '\n') + 1
	if end == 0 { // new, or as good as
		if err := errors.Join(ownedAs(f, model), syncDir(filepath.Dir(path))); err != nil {
			return err
		}
	}
	if err := f.Truncate(int64(end)); err != nil {
		return err
	}
	var fresh []byte // a group of operations that failed, or was repeated, has left its lines
	for line := range bytes.Lines(text) {
		if serial := line[:33]; !bytes.Contains(whole[:end], serial) {
			fresh = append(fresh, line...)
		}
	}
	if _, err := f.Write(fresh); err != nil {
		return err
	}
	return f.Sync()
}

// readRevocations reads the whole file; none is an empty list. A last line without its end was torn by a crash and does not
// count. Any other line that is not exactly as written stops the reader: a revocation might hide in it.
func readRevocations(path string) ([]revocation, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the revocation file: %w", err)
	}
	lines := strings.Split(string(text), "\n")
	list := make([]revocation, 0, len(lines))
	for i, line := range lines[:len(lines)-1] {
		r, err := parseRevocation(line)
		if err != nil {
			return nil, fmt.Errorf("reading %s, line %d: %w", path, i+1, err)
		}
		list = append(list, r)
	}
	return list, nil
}

func parseRevocation(line string) (revocation, error) {
	m := revocationLine.FindStringSubmatch(line)
	if m == nil {
		return revocation{}, fmt.Errorf("not a revocation: %.180q", line)
	}
	at, _ := strconv.ParseInt(m[3], 10, 64) // 12 digits
	expires, _ := strconv.ParseInt(m[4], 10, 64)
	_, err := reasonCode(m[5])
	return revocation{m[1], m[2], at, expires, m[5]}, err
}

// writeBundle makes an operator's client identity: key, certificate and CA as one PEM file, 0600, which curl takes as --cert.
// It never overwrites, and leaves nothing behind if it fails.
func writeBundle(path string, key *ecdsa.PrivateKey, leafDER, caDER []byte) (err error) {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing the bundle: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(path)
		}
	}()
	for _, block := range []*pem.Block{{Type: "PRIVATE KEY", Bytes: pkcs8}, {Type: "CERTIFICATE", Bytes: leafDER}, {Type: "CERTIFICATE", Bytes: caDER}} {
		if err := pem.Encode(f, block); err != nil {
			return fmt.Errorf("writing the bundle: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("writing the bundle: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// ---- the CA of this server ----

// openAuthority returns the CA of a database. With mayMake one is made where there is none; half of one is an error.
func openAuthority(st *store, password secret, mayMake bool, now time.Time) (*authority, error) {
	der, sealed, err := st.authority()
	if err != nil {
		return nil, err
	}
	if (der == nil) != (sealed == nil) {
		return nil, errCAHalf
	}
	if der == nil {
		if !mayMake {
			return nil, errNoCA
		}
		ca, err := newCA("FlaskPaste CA", now)
		if err != nil {
			return nil, err
		}
		if sealed, err = sealCAKey(ca.key, string(password), ca.cert); err != nil {
			return nil, err
		}
		return ca, st.setAuthority(ca.cert.Raw, sealed)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading the CA's certificate: %w", err)
	}
	key, err := openCAKey(sealed, string(password), cert)
	return &authority{cert, key}, err
}

// crlCache is the last revocation list. It is remade when somebody asks and it is a day old or the revocation file has
// changed, by whatever process.
type crlCache struct {
	mu     sync.Mutex
	der    []byte
	made   time.Time
	size   int64 // of the revocation file, which only grows
	number int64
}

// startPKI merges the revocations and opens the CA, if this server issues; else it knows at most the CA's certificate.
func (s *server) startPKI() error {
	n, err := s.store.mergeRevocations()
	if err != nil {
		return err
	}
	if n > 0 {
		s.log.Warn("lines of certificates revoked again from the revocation file: a backup was restored", "audit", true, "event", "revocation", "outcome", "merged", "lines", n)
	}
	if s.cfg.pkiEnabled == "1" {
		s.ca, err = openAuthority(s.store, s.cfg.caPassword, true, s.now())
		return err
	}
	if der, _, err := s.store.authority(); err != nil || der == nil {
		return err
	} else if cert, err := x509.ParseCertificate(der); err == nil {
		s.ca = &authority{cert: cert}
	}
	return nil
}

// issues reports whether this server signs anything.
func (s *server) issues() bool { return s.ca != nil && s.ca.key != nil }

// judge says what a shown certificate is worth: the row of its fingerprint, one primary-key lookup for each request, makes it
// trusted; a chain, a name or a serial never does. Without a row it is a pseudonym.
func (s *server) judge(q *request, shown identity) error {
	column, value := "sha256", shown.sha256
	if value == "" {
		column, value = "sha1", shown.sha1
	}
	c, err := s.store.certificate(column, value)
	if errors.Is(err, errNotFound) {
		shown.owner = value
		q.who, q.tier = shown, untrusted
		return nil
	} else if err != nil {
		return err
	}
	q.who = identity{sha1: c.sha1, sha256: c.sha256, owner: c.owner, vouched: c.vouched}
	switch {
	case c.revoked != 0:
		return errRevoked
	case q.now >= c.expires:
		return errExpired
	case q.now < c.issued-int64(certBackdate/time.Second):
		return errEarly
	}
	q.tier = trusted
	if c.admin {
		q.tier = admin
	}
	return nil
}

// audit writes what an operator must be able to find later, at a level that LOG_LEVEL=warn keeps. object is a serial, or the
// beginning of a paste's id.
func (q *request) audit(event, outcome, object string) {
	q.s.log.LogAttrs(q.r.Context(), slog.LevelWarn, "audit", slog.Bool("audit", true), slog.String("event", event), slog.String("outcome", outcome),
		slog.String("owner", q.who.owner), slog.String("object", object), slog.String("request_id", q.id))
}

// auditDeletion notes an admin's deletion of what is somebody else's.
func (q *request) auditDeletion(p *paste) {
	if q.tier == admin && !q.who.owns(p) {
		q.audit("deletion_by_admin", "ok", p.id[:4])
	}
}

// auditRefusal notes an answer that says something about who asked.
func (q *request) auditRefusal(code string) {
	switch code {
	case "certificate_revoked", "certificate_expired", "certificate_not_yet_valid", "bad_client_certificate":
		q.audit("certificate_refused", code, q.who.sha256)
	case "not_owner", "not_admin", "not_trusted", "password_wrong", "read_proof_required":
		q.audit("authentication_failed", code, q.paste[:min(4, len(q.paste))])
	}
}

// ---- routes ----

// showRegisterChallenge answers GET /register/challenge, with the refusal of POST /csr where that would refuse anyway.
func (s *server) showRegisterChallenge(q *request) error {
	if err := s.mayEnrol(); err != nil {
		return err
	}
	if s.cfg.registerPow == 0 {
		return q.writeJSON(200, []member{{"enabled", false}, {"difficulty", 0}})
	}
	return q.writeJSON(200, s.challengeMembers(q, purposeRegister, int(s.cfg.registerPow)))
}

func (s *server) mayEnrol() error {
	if !s.issues() {
		return errPKIOff
	}
	if s.cfg.registration != "open" {
		return errNoEnrolment
	}
	return nil
}

// enrol answers POST /csr: a stranger with a key and a proof of work becomes a new owner whom nobody vouches for.
func (s *server) enrol(q *request) error {
	if err := s.mayEnrol(); err != nil {
		return err
	}
	if d := s.limiter.take(rateRegister, q.key, 1, 1, q.start); !d.allowed {
		return q.rateLimited(rateRegister, d)
	}
	spend := noWork
	if bits := int(s.cfg.registerPow); bits > 0 {
		nonce, expires, err := s.checkWork(q, purposeRegister, bits)
		if err != nil {
			return s.powRefused(q, purposeRegister, bits, err)
		}
		spend = func(t *writeTx) error {
			err := t.spend(nonce[:], expires)
			if errors.Is(err, errSpent) {
				return s.powRefused(q, purposeRegister, bits, err)
			}
			return err
		}
	}
	return s.certify(q, "enrolment", "", &certificate{}, int(s.cfg.certDays), spend)
}

func noWork(*writeTx) error { return nil }

// onlyParameter returns the query's parameter of that name, standard without one. Not ok: it is repeated, something else is there,
// or the query can't be read (url.Values of URL.Query would leave that out).
func (q *request) onlyParameter(name, standard string) (value string, ok bool) {
	values, err := url.ParseQuery(q.r.URL.RawQuery)
	switch v := values[name]; {
	case err == nil && len(values) == 0:
		return standard, true
	case err == nil && len(values) == 1 && len(v) == 1:
		return v[0], true
	}
	return "", false
}

// issue answers POST /pki/issue: an admin vouches for a new owner.
func (s *server) issue(q *request) error {
	switch {
	case !s.issues():
		return errPKIOff
	case q.tier == anonymous:
		return errNoIdentity
	case q.tier != admin:
		return errNotAdmin
	}
	text, ok := q.onlyParameter("days", strconv.FormatInt(s.cfg.certDays, 10))
	days, err := strconv.Atoi(text)
	if !ok || err != nil || strconv.Itoa(days) != text {
		return errDays
	}
	return s.certify(q, "issue", "", &certificate{vouched: true}, days, func(t *writeTx) error { // the body may have taken its time
		err := t.isAdmin(q.who.sha256)
		if errors.Is(err, errNotFound) {
			return errNotAdmin
		}
		return err
	})
}

// renew answers POST /pki/renew: another certificate in the caller's line, with the rights that the line has.
func (s *server) renew(q *request) error {
	switch {
	case !s.issues():
		return errPKIOff
	case q.tier == anonymous:
		return errNoIdentity
	case q.tier < trusted:
		return errNotTrusted
	}
	return s.certify(q, "renewal", q.who.sha256, &certificate{}, int(s.cfg.certDays), noWork)
}

// certify reads a request, signs, stores the row and answers the certificate. Nobody hears of one that has no row.
func (s *server) certify(q *request, event, parent string, c *certificate, days int, before func(*writeTx) error) error {
	if q.r.ContentLength > csrMax {
		return errCSRTooLarge
	}
	text, err := io.ReadAll(io.LimitReader(q, csrMax+1))
	if err != nil {
		return bodyError(err)
	}
	csr, name, err := parseCSR(text)
	if err != nil {
		return err
	}
	der, err := issueLeaf(s.ca, csr.PublicKey, name, days, time.Unix(q.now, 0), s.cfg.crlURL())
	if err != nil {
		return err
	}
	if err := c.describe(der, q.now); err != nil {
		return err
	}
	switch err := s.store.addCertificate(c, parent, before); {
	case errors.Is(err, errNotFound): // the line was revoked in this moment
		return errRevoked
	case errors.Is(err, errLineFull):
		return errManyCerts
	case err != nil:
		return err
	}
	q.audit(event, "ok", c.serial)
	h := q.w.Header()
	h["Content-Disposition"] = []string{`attachment; filename="` + name + `.crt"`}
	h["X-Fingerprint-Sha1"] = []string{c.sha1}
	h["X-Fingerprint-Sha256"] = []string{c.sha256}
	h["X-Certificate-Expires"] = []string{strconv.FormatInt(c.expires, 10)}
	h["X-Certificate-Serial"] = []string{c.serial}
	h["X-Is-Admin"] = []string{map[bool]string{false: "0", true: "1"}[c.admin]}
	q.writeBytes(200, "application/x-pem-file", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return nil
}

// crlURL is the distribution point of leaves: one that a browser's user or a proxy can reach, or none.
func (c *config) crlURL() string {
	if c.publicURL == "" {
		return ""
	}
	return c.publicURL + c.prefix + "/pki/ca.crl"
}

// describe fills in what the certificate itself says.
func (c *certificate) describe(der []byte, now int64) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("reading the new certificate: %w", err)
	}
	c.sha1, c.sha256 = fingerprints(der)
	c.serial, c.name, c.issued, c.expires = serialHex(cert.SerialNumber), cert.Subject.CommonName, now, cert.NotAfter.Unix()
	return nil
}

func (s *server) showPKI(q *request) error {
	m := []member{{"enabled", s.issues()}, {"ca_exists", s.ca != nil}}
	if s.ca != nil {
		sha1Hex, sha256Hex := fingerprints(s.ca.cert.Raw)
		m = append(m, member{"common_name", s.ca.cert.Subject.CommonName}, member{"fingerprint_sha1", sha1Hex}, member{"fingerprint_sha256", sha256Hex},
			member{"created_at", s.ca.cert.NotBefore.Unix()}, member{"expires_at", s.ca.cert.NotAfter.Unix()},
			member{"ca_url", s.cfg.prefix + "/pki/ca.crt"}, member{"crl_url", s.cfg.prefix + "/pki/ca.crl"})
	}
	return q.writeJSON(200, m)
}

func (s *server) showCA(q *request) error {
	if s.ca == nil {
		return errPKIOff
	}
	q.w.Header()["Cache-Control"] = hPublic
	q.writeBytes(200, "application/x-pem-file", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.cert.Raw}))
	return nil
}

func (s *server) showCRL(q *request) error {
	if !s.issues() {
		return errPKIOff
	}
	der, err := s.crl(time.Unix(q.now, 0))
	if err != nil {
		return err
	}
	q.w.Header()["Cache-Control"] = hPublic
	q.writeBytes(200, "application/pkix-crl", der)
	return nil
}

// crl returns the list of all that is revoked, no older than a day. Its number is the time in milliseconds, or one more than
// the last, so that it grows over restarts too (RFC 5280, 5.2.3). What ended a list's life ago is left out.
func (s *server) crl(now time.Time) ([]byte, error) {
	c := &s.revoked
	c.mu.Lock()
	defer c.mu.Unlock()
	path := s.store.path + ".revoked"
	size := fileSize(path)
	if size < c.size { // cut or removed behind our back: the database makes it whole again
		if _, err := s.store.mergeRevocations(); err != nil {
			return nil, err
		}
		size = fileSize(path)
	}
	if age := now.Sub(c.made); c.der != nil && c.size == size && age >= 0 && age < 24*time.Hour {
		return c.der, nil
	}
	list, err := readRevocations(path)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(r revocation) bool { return r.expires < now.Add(-crlLife).Unix() })
	number := max(c.number+1, now.UnixMilli())
	der, err := makeCRL(s.ca, list, big.NewInt(number), now)
	if err != nil {
		return nil, err
	}
	c.der, c.made, c.size, c.number = der, now, size, number
	return der, nil
}

// fileSize is 0 for a file that is not there.
func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// listCerts answers GET /pki/certs: all for an admin, the caller's own line for others; the newest thousand.
func (s *server) listCerts(q *request) error {
	owner := q.who.owner
	switch q.tier {
	case anonymous:
		return errNoIdentity
	case admin:
		owner = ""
	}
	list, err := s.store.certificates(owner, 1000)
	if err != nil {
		return err
	}
	rows := make([][]member, 0, len(list))
	for _, c := range list {
		m := []member{{"serial", c.serial}, {"fingerprint_sha1", c.sha1}, {"fingerprint_sha256", c.sha256}, {"owner", c.owner}, {"common_name", c.name},
			{"issued_at", c.issued}, {"expires_at", c.expires}, {"revoked", c.revoked != 0}, {"vouched", c.vouched}, {"admin", c.admin}}
		if c.revoked != 0 {
			m = append(m, member{"revoked_at", c.revoked}, member{"reason", c.reason})
		}
		rows = append(rows, m)
	}
	return q.writeJSON(200, []member{{"certificates", rows}, {"count", len(rows)}})
}

// revoke answers POST /pki/revoke/<serial>: the whole line falls, so that a thief's renewal falls with it.
func (s *server) revoke(q *request) error {
	if q.tier == anonymous {
		return errNoIdentity
	}
	reason, ok := q.onlyParameter("reason", "unspecified")
	if !ok {
		return errReason
	}
	if _, err := reasonCode(reason); err != nil {
		return err
	}
	serial := strings.ToLower(q.r.PathValue("serial"))
	if !isHex(serial, 32) {
		return errNotFound
	}
	if err := q.ask(rateMiss); err != nil {
		return err
	}
	c, err := s.store.certificate("serial", serial)
	if err != nil {
		return err
	}
	if q.tier != admin && (q.tier != trusted || c.owner != q.who.owner) {
		return errNotHolder
	}
	list, err := s.store.revokeLine(serial, reason, q.now)
	if err != nil {
		return err
	}
	q.audit("revocation", "ok", serial)
	serials := make([]string, 0, len(list))
	for _, r := range list {
		serials = append(serials, r.serial)
	}
	return q.writeJSON(200, []member{{"serial", serial}, {"owner", c.owner}, {"revoked", true}, {"serials", serials}})
}
