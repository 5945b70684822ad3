package main

// pki.go owns certificates: the built-in CA, what it signs, what is revoked, and what a shown certificate is worth.
//
// Invariants: a leaf is made from scratch, of a request only the public key and the checked name are taken, so nobody
// can ask for a CA, another usage or a second name. The CA's key rests only under AES-256-GCM and a password, bound
// to its certificate. A row of the table decides what a certificate is worth, on every request; a revocation is such
// a row and takes all renewals down. Never: a client's private key over HTTP, trust from a chain or a name, a key in
// a log or an error. RFC 2986 (requests), 5280 (certificates, CRL), 5958 (PKCS #8), 7468 (PEM), 8018 (PBKDF2).

import (
	"bytes"
	"cmp"
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
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	caRounds     = 600_000         // PBKDF2-HMAC-SHA256 over the CA password: OWASP's figure, 0.1 s at a start
	caSaltSize   = 32              // bytes
	certBackdate = 5 * time.Minute // clocks of clients and proxies that run slow
	crlLife      = 7 * 24 * time.Hour
	csrMax       = 16 << 10 // bytes of PEM; an RSA 8192 request has 3 KiB
)

// What several places refuse, or an operator's command.
var (
	errCSRName = badCSR("the common name must be one, of 1 to 64 letters, digits, . _ - @ and blanks inside")
	errDays    = badOption("days is not a number from 1 to 3660", "?days=365")
	errCADates = refuse(503, "ca_not_valid", "the CA of this server has ended or is not valid yet",
		"tell the operator: flaskpaste check says more")
	errPKIOff     = refuse(404, "pki_disabled", "this server issues no certificates", "")
	errNoIdentity = refuse(401, "authentication_required", "this needs a client certificate of this server",
		"curl --cert FILE")
	errNotAdmin = refuse(403, "not_admin", "only an admin may do this", "")
	errRevoked  = refuse(403, "certificate_revoked", "your client certificate is revoked",
		"get a new one (fpaste register -f NAME, or from the operator); without any you are anonymous")

	errNoPassword = errors.New("FLASKPASTE_PKI_CA_PASSWORD is not set: it opens the CA's key")
	errCAPassword = errors.New("FLASKPASTE_PKI_CA_PASSWORD is wrong, or the CA's key is damaged or " +
		"another certificate's")
)

func badCSR(text string) *apiError {
	return refuse(400, "bad_csr", text, "openssl req -new -key client.key -subj /CN=NAME makes one")
}

// certName is what a name may be: ASCII, so that no two look alike, and safe in a file name, a header and a terminal.
var certName = regexp.MustCompile(`^[A-Za-z0-9._@-](?:[A-Za-z0-9 ._@-]{0,62}[A-Za-z0-9._@-])?$`)

// authority is the CA: a self-signed certificate and its key, opened. It is immutable.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newCA makes a CA: ECDSA P-256, ten years, path length 0, so that a leaf can never become an issuer.
func newCA(now time.Time) (*authority, error) {
	if now.Year() < 2026 { // the program's own: a clock before it is wrong
		return nil, errors.New("the clock says a time before 2026: set it, then make the CA")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := newTemplate("FlaskPaste CA", now, now.AddDate(10, 0, 0))
	t.IsCA, t.MaxPathLenZero, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making the CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert, key}, err
}

// newTemplate is what all certificates have in common. The serial has 128 random bits and a first byte that is not
// zero: positive, and 32 hex digits in every tool that prints it.
func newTemplate(name string, now, end time.Time) *x509.Certificate {
	serial := make([]byte, 16)
	for serial[0] == 0 {
		rand.Read(serial)
	}
	return &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-certBackdate),
		NotAfter:              end,
		BasicConstraintsValid: true,
	}
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

// sealCAKey encrypts a CA's key for storage: salt (32) | nonce (12) | AES-256-GCM of PKCS #8 | tag (16), with the
// SHA-256 of the certificate as additional data, so that a stored key cannot be moved under another certificate.
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

// openCAKey decrypts what sealCAKey made. A wrong password, a damaged blob and another certificate are one error,
// errCAPassword: the tag cannot tell them apart.
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
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errCAPassword // a parser's error could quote key material
	}
	return key, nil
}

// serialHex is how a serial is stored, shown and asked for: 32 lower-case hex digits.
func serialHex(n *big.Int) string { return fmt.Sprintf("%032x", n) }

// fingerprints returns the lower-case hex SHA-1 and SHA-256 of a certificate's DER. They cover the signature too: a
// certificate whose ECDSA s was flipped still verifies, but is another certificate here.
func fingerprints(der []byte) (sha1Hex, sha256Hex string) {
	return fmt.Sprintf("%x", sha1.Sum(der)), fmt.Sprintf("%x", sha256.Sum256(der))
}

func largeCSR() error {
	e := refuse(413, "too_large", "the certificate request is larger than 16 KiB", "")
	e.Limit = csrMax
	return e
}

// parseCSR reads one PEM certificate request and checks its key and common name: take nothing else of it. Key sizes
// are checked before the signature, which would be slow with a huge modulus.
func parseCSR(text []byte) (*x509.CertificateRequest, error) {
	if len(text) > csrMax {
		return nil, largeCSR()
	}
	// Decode skips text before a block and blocks that it cannot read: both would hide a second request.
	text, begin := bytes.TrimSpace(text), []byte("-----BEGIN")
	block, rest := pem.Decode(text)
	if !bytes.HasPrefix(text, begin) || bytes.Count(text, begin) != 1 || block == nil ||
		strings.TrimPrefix(block.Type, "NEW ") != "CERTIFICATE REQUEST" || // NEW is how keytool writes it
		len(block.Headers) != 0 || len(rest) != 0 {
		return nil, badCSR("the body must be exactly one PEM block CERTIFICATE REQUEST and nothing else")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, badCSR("the certificate request is not valid PKCS #10, or its key is of no supported kind")
	}
	if !keyAllowed(csr.PublicKey) {
		return nil, badCSR("the key must be ECDSA on P-256, P-384 or P-521, Ed25519, or RSA of 2048 to 8192 bits")
	}
	// crypto/x509 lets SHA-1 pass for requests.
	weak := csr.SignatureAlgorithm == x509.SHA1WithRSA || csr.SignatureAlgorithm == x509.ECDSAWithSHA1
	if weak || csr.CheckSignature() != nil {
		return nil, badCSR("the request is not signed by its own key with SHA-256, SHA-384, SHA-512 or Ed25519")
	}
	names := 0 // Go reports the last of several common names, other tools the first
	for _, attribute := range csr.Subject.Names {
		if attribute.Type.Equal(asn1.ObjectIdentifier{2, 5, 4, 3}) {
			names++
		}
	}
	if names != 1 || !certName.MatchString(csr.Subject.CommonName) {
		return nil, errCSRName
	}
	return csr, nil
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
		return bits >= 2048 && bits <= 8192 && k.E >= 65537 // a small exponent has only ever helped attackers
	}
	return false
}

// issueLeaf signs a client certificate for pub, returns its DER and writes into c, which has the name, what the
// certificate says. It is made here from nothing; key and name must have been checked as parseCSR does. It lives days,
// never past the CA. crlURL, if not empty, becomes its CRL distribution point.
func issueLeaf(ca *authority, pub crypto.PublicKey, c *certificate, days int, now time.Time, crlURL string) (der []byte,
	err error) {
	switch {
	case days < 1 || days > certDaysMax:
		return nil, errDays
	case now.Before(ca.cert.NotBefore) || !now.Before(ca.cert.NotAfter):
		return nil, errCADates
	}
	t := newTemplate(c.name, now, now.AddDate(0, 0, days))
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if t.NotAfter.After(ca.cert.NotAfter) {
		t.NotAfter = ca.cert.NotAfter
	}
	if crlURL != "" {
		t.CRLDistributionPoints = []string{crlURL}
	}
	der, err = x509.CreateCertificate(rand.Reader, t, ca.cert, pub, ca.key)
	c.sha1, c.sha256 = fingerprints(der)
	c.serial, c.issued, c.expires = serialHex(t.SerialNumber), now.Unix(), t.NotAfter.Unix()
	return der, err
}

// revocationReasons are the names of RFC 5280, 5.3.1, that make sense for a leaf here, where nothing is ever
// un-revoked.
const revocationReasons = "unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation, " +
	"privilegeWithdrawn"

func reasonCode(name string) (code int, known bool) {
	code, known = map[string]int{"unspecified": 0, "keyCompromise": 1, "affiliationChanged": 3, "superseded": 4,
		"cessationOfOperation": 5, "privilegeWithdrawn": 9}[name]
	return code, known
}

// writeBundle writes an operator's client identity: key and certificate as one PEM, which curl takes as --cert. (A CA
// in it would be sent along by curl, and some proxies join both to a list.)
func writeBundle(w io.Writer, key *ecdsa.PrivateKey, leafDER []byte) error {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(pem.Encode(w, &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: leafDER}))
}

// ---- the CA of this server ----

// openAuthority returns the CA of a database. With mayMake one is made where there is none.
func openAuthority(st *store, password secret, mayMake bool, now time.Time) (*authority, error) {
	der, sealed, err := st.authority()
	if err != nil {
		return nil, err
	}
	if der == nil {
		if !mayMake {
			return nil, errors.New("there is no CA yet: flaskpaste pki init")
		}
		ca, err := newCA(now)
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

// startPKI opens the CA, if this server issues; else it knows at most the CA's certificate.
func (s *server) startPKI() (err error) {
	if s.cfg.pkiEnabled == "1" {
		s.ca, err = openAuthority(s.store, s.cfg.caPassword, true, s.now())
		if err == nil && s.now().Before(s.ca.cert.NotBefore) {
			s.log.Warn("the CA is not valid yet: is the clock right?", "from", s.ca.cert.NotBefore)
		}
		return err
	}
	der, _, err := s.store.authority()
	if cert, parseErr := x509.ParseCertificate(der); parseErr == nil {
		s.ca = &authority{cert: cert}
	}
	return err
}

// issues reports whether this server signs anything.
func (s *server) issues() bool { return s.ca != nil && s.ca.key != nil }

// judge says what a shown certificate is worth: the row of its fingerprint, one primary-key lookup for each request,
// makes it trusted; a chain, a name or a serial never does. Without a row it is a pseudonym.
func (s *server) judge(q *request, shown identity) error {
	if shown == (identity{}) {
		return nil
	}
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
	q.who = identity{sha1: c.sha1, sha256: c.sha256, owner: c.owner, name: c.name, vouched: c.vouched}
	renewing := q.route.pattern == "POST /pki/renew" && q.now < c.expires+certMemory
	switch {
	case c.revoked != 0:
		return errRevoked
	case q.now >= c.expires && !renewing:
		return refuse(403, "certificate_expired", "your client certificate has ended",
			"renew it: fpaste renew, within 90 days of its end; else get a new one; without any you are anonymous")
	case q.now < c.issued-int64(certBackdate/time.Second):
		return refuse(403, "certificate_not_yet_valid", "your client certificate is not valid yet",
			"the server's clock may be wrong")
	}
	q.tier = trusted
	if c.admin {
		q.tier = admin
	}
	return nil
}

// audit writes what an operator must be able to find later, at a level that LOG_LEVEL=warn keeps. object is a serial,
// or the beginning of a paste's id.
func (q *request) audit(event, outcome, object string) {
	q.s.log.Warn("audit", "audit", true, "event", event, "outcome", outcome, "owner", q.who.owner, "object", object,
		"request_id", q.id)
}

// auditDeletion notes an admin's deletion of what is somebody else's.
func (q *request) auditDeletion(p *paste) {
	if q.tier == admin && !q.who.owns(p) {
		q.audit("deletion_by_admin", "ok", q.paste[:4])
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
		return q.writeJSON(200, &challengeAnswer{})
	}
	return q.writeJSON(200, s.challenge(q, purposeRegister, int(s.cfg.registerPow)))
}

func (s *server) mayEnrol() error {
	if !s.issues() {
		return errPKIOff
	}
	if s.cfg.registration != "open" {
		return refuse(403, "registration_closed", "certificates are issued by the operator only",
			"ask the operator for one")
	}
	return nil
}

// enrol answers POST /csr: a stranger with a key and a proof of work becomes a new owner whom nobody vouches for.
func (s *server) enrol(q *request) error {
	if err := s.mayEnrol(); err != nil {
		return err
	}
	if d := s.limiter.take(due{rateRegister, q.key, 1, 1}, q.start); !d.allowed {
		return q.rateLimited(rateRegister, d)
	}
	bits := int(s.cfg.registerPow)
	if bits == 0 {
		return s.certify(q, "enrolment", "", "", &certificate{}, s.cfg.certDays)
	}
	nonce, err := s.spendWork(q, purposeRegister, bits)
	if err != nil {
		return s.powRefused(q, purposeRegister, bits, err)
	}
	if err = s.certify(q, "enrolment", "", "", &certificate{}, s.cfg.certDays); err != nil {
		s.work.unspend(nonce)
	}
	return err
}

// onlyParameter returns the value of the parameter that is the whole query, standard without a query. Not ok: the
// query is something else. A second parameter or an escape becomes part of the value, and no value here has any.
func (q *request) onlyParameter(name, standard string) (value string, ok bool) {
	if q.r.URL.RawQuery == "" {
		return standard, true
	}
	return strings.CutPrefix(q.r.URL.RawQuery, name+"=")
}

// mayAsk refuses where this server signs nothing, and who is less than least.
func (s *server) mayAsk(q *request, least tier) error {
	switch {
	case !s.issues():
		return errPKIOff
	case q.tier == anonymous:
		return errNoIdentity
	case q.tier < trusted && least == trusted:
		return refuse(403, "not_trusted", "this needs a client certificate that this server issued", "")
	case q.tier < least:
		return errNotAdmin
	}
	return nil
}

// issue answers POST /pki/issue: an admin vouches for a new owner.
func (s *server) issue(q *request) error {
	if err := s.mayAsk(q, admin); err != nil {
		return err
	}
	text, ok := q.onlyParameter("days", strconv.FormatInt(s.cfg.certDays, 10))
	days, valid := parseDecimal(text)
	if !ok || !valid {
		return errDays
	}
	return s.certify(q, "issue", "", q.who.sha256, &certificate{vouched: true}, int64(days))
}

// renew answers POST /pki/renew: another certificate in the caller's line, with the rights that the line has.
func (s *server) renew(q *request) error {
	if err := s.mayAsk(q, trusted); err != nil {
		return err
	}
	return s.certify(q, "renewal", q.who.sha256, "", &certificate{name: q.who.name}, s.cfg.certDays)
}

// certify reads a request, signs, stores the row and answers the certificate. Nobody hears of one that has no row.
// parent and admin as addCertificate takes them; c has a name if it is not the request's to say.
func (s *server) certify(q *request, event, parent, admin string, c *certificate, days int64) error {
	if q.r.ContentLength > csrMax { // before anything of it is asked for
		return largeCSR()
	}
	text, err := io.ReadAll(io.LimitReader(q, csrMax+1))
	if err != nil {
		return bodyError(err)
	}
	csr, err := parseCSR(text)
	if err != nil {
		return err
	}
	c.name = cmp.Or(c.name, csr.Subject.CommonName)
	der, err := issueLeaf(s.ca, csr.PublicKey, c, int(days), time.Unix(q.now, 0), s.cfg.crlURL())
	if err != nil {
		return err
	}
	switch err := s.store.addCertificate(c, parent, admin); {
	case errors.Is(err, errNotFound): // revoked in this moment
		return errRevoked
	case errors.Is(err, errNotRights):
		return errNotAdmin
	case errors.Is(err, errLineFull):
		return refuse(409, "too_many_certificates", "you have 16 valid certificates",
			"use one of them; if they are not yours, revoke them")
	case err != nil:
		return err
	}
	q.who.owner = cmp.Or(q.who.owner, c.owner)
	q.audit(event, "ok", c.serial)
	h := q.w.Header()
	h["Content-Disposition"] = []string{`attachment; filename="` + c.name + `.crt"`}
	h["X-Fingerprint-Sha1"] = []string{c.sha1}
	h["X-Fingerprint-Sha256"] = []string{c.sha256}
	h["X-Certificate-Expires"] = []string{strconv.FormatInt(c.expires, 10)}
	h["X-Certificate-Serial"] = []string{c.serial}
	h["X-Is-Admin"] = []string{map[bool]string{false: "0", true: "1"}[c.admin]}
	return q.writeCertificate(der)
}

func (q *request) writeCertificate(der []byte) error {
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

func (s *server) showPKI(q *request) error {
	a := struct {
		Enabled    bool   `json:"enabled"`
		Exists     bool   `json:"ca_exists"`
		CommonName string `json:"common_name,omitempty"`
		SHA1       string `json:"fingerprint_sha1,omitempty"`
		SHA256     string `json:"fingerprint_sha256,omitempty"`
		CreatedAt  int64  `json:"created_at,omitempty"`
		ExpiresAt  int64  `json:"expires_at,omitempty"`
		CAURL      string `json:"ca_url,omitempty"`
		CRLURL     string `json:"crl_url,omitempty"`
	}{Enabled: s.issues(), Exists: s.ca != nil}
	if s.ca != nil {
		a.SHA1, a.SHA256 = fingerprints(s.ca.cert.Raw)
		a.CommonName, a.CreatedAt, a.ExpiresAt = s.ca.cert.Subject.CommonName, s.ca.cert.NotBefore.Unix(),
			s.ca.cert.NotAfter.Unix()
		if a.CAURL = s.cfg.prefix + "/pki/ca.crt"; a.Enabled {
			a.CRLURL = s.cfg.prefix + "/pki/ca.crl"
		}
	}
	return q.writeJSON(200, a)
}

func (s *server) showCA(q *request) error {
	if s.ca == nil {
		return errPKIOff
	}
	q.w.Header()["Cache-Control"] = hPublic
	return q.writeCertificate(s.ca.cert.Raw)
}

func (s *server) showCRL(q *request) error {
	if !s.issues() {
		return errPKIOff
	}
	since, tomorrow := q.start.Add(-crlLife).Unix(), q.start.Add(24*time.Hour).Unix()
	der, err := s.store.crl(q.now, since, tomorrow, func(last []byte, revoked []*certificate) ([]byte, error) {
		return s.ca.crl(last, revoked, q.start)
	})
	if err != nil {
		return err
	}
	q.w.Header()["Cache-Control"] = hPublic
	q.writeBytes(200, "application/pkix-crl", der)
	return nil
}

// crl signs the list of what is revoked (DER, RFC 5280 section 5). Its number is the time in milliseconds, or one more
// than the last list's, so that it never goes back (5.2.3).
func (ca *authority) crl(last []byte, revoked []*certificate, now time.Time) ([]byte, error) {
	list := &x509.RevocationList{Number: big.NewInt(now.UnixMilli()), ThisUpdate: now, NextUpdate: now.Add(crlLife)}
	if last != nil {
		before, err := x509.ParseRevocationList(last)
		if err != nil {
			return nil, fmt.Errorf("reading the last CRL: %w", err)
		}
		if next := new(big.Int).Add(before.Number, big.NewInt(1)); next.Cmp(list.Number) > 0 {
			list.Number = next
		}
	}
	for _, c := range revoked {
		serial, _ := new(big.Int).SetString(c.serial, 16) // nil: the signing says so
		code, _ := reasonCode(c.reason)
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: serial, RevocationTime: time.Unix(c.revoked, 0), ReasonCode: code})
	}
	return x509.CreateRevocationList(rand.Reader, list, ca.cert, ca.key)
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
	rows := make([]certAnswer, 0, len(list))
	for _, c := range list {
		rows = append(rows, certAnswer{c.serial, c.sha1, c.sha256, c.owner, c.name, c.issued, c.expires, c.revoked != 0,
			c.vouched, c.admin, c.revoked, c.reason})
	}
	return q.writeJSON(200, struct {
		Certificates []certAnswer `json:"certificates"`
		Count        int          `json:"count"`
	}{rows, len(rows)})
}

type certAnswer struct {
	Serial     string `json:"serial"`
	SHA1       string `json:"fingerprint_sha1"`
	SHA256     string `json:"fingerprint_sha256"`
	Owner      string `json:"owner"`
	CommonName string `json:"common_name"`
	IssuedAt   int64  `json:"issued_at"`
	ExpiresAt  int64  `json:"expires_at"`
	Revoked    bool   `json:"revoked"`
	Vouched    bool   `json:"vouched"`
	Admin      bool   `json:"admin"`
	RevokedAt  int64  `json:"revoked_at,omitempty"`
	Reason     string `json:"reason,omitempty"`
}

// revoke answers POST /pki/revoke/<serial>: the whole line falls, so that a thief's renewal falls with it.
func (s *server) revoke(q *request) error {
	if q.tier == anonymous {
		return errNoIdentity
	}
	reason, ok := q.onlyParameter("reason", "unspecified")
	if _, known := reasonCode(reason); !ok || !known {
		return badOption("the reason is none of those for a client certificate", revocationReasons)
	}
	serial := plainSerial(q.r.PathValue("serial"))
	if err := q.ask(rateMiss); err != nil {
		return err
	}
	c, err := s.store.certificate("serial", serial)
	if err != nil {
		return err
	}
	if q.tier != admin && (q.tier != trusted || c.owner != q.who.owner) {
		return refuse(403, "not_owner", "this certificate belongs to somebody else", "")
	}
	serials, err := s.store.revoke(serial, reason, q.now)
	if err != nil {
		return err
	}
	q.audit("revocation", "ok", serial)
	return q.writeJSON(200, struct {
		Serial  string    `json:"serial"`
		Owner   string    `json:"owner"`
		Revoked bool      `json:"revoked"`
		Serials []*string `json:"serials"`
	}{serial, c.owner, true, append([]*string{}, serials...)})
}

// plainSerial is a serial as serialHex writes it, from any usual spelling: capitals, colons, blanks, 0x, without
// leading zeros.
func plainSerial(v string) string {
	v = strings.NewReplacer(":", "", " ", "").Replace(strings.ToLower(strings.TrimSpace(v)))
	v = strings.TrimPrefix(v, "0x")
	return strings.Repeat("0", max(0, 32-len(v))) + v
}
