package main

// The client of the wire, shared by the command line and the integration tests, and the sealing of pastes (format FPE1).
//
// Invariants: a paste's key never enters a request, a log or an error; what leaves sealed is checked once more to be ciphertext
// under the paste's own key; memory is one segment whatever the size; nothing unverified is ever handed to a caller.
// Certificate, tokens and passwords go to the configured server alone and no redirect is followed, so that neither a link
// nor a hostile answer can lead them elsewhere. Work, Retry-After and "busy" are each honoured once for a call, visibly.
// Never: plaintext on a disk that the user did not name, an answer of unbounded size, a link made of what the server says.
// RFC 5869 (HKDF), NIST SP 800-38D (GCM), the STREAM construction (Hoang et al. 2015), RFC 9110 (100-continue, Retry-After).

import (
	"bytes"
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

const (
	sealMagic   = "FPE1"      // format and version in one: another last byte is another format
	sealHead    = 4 + 16 + 32 // magic, salt, commitment; the additional data of every segment
	sealSegment = 64 << 10    // plaintext bytes
	sealTag     = 16          // bytes
	sealMost    = 1 << 32     // segments under one key and salt, far below GCM's bounds
	titleMost   = 1024        // bytes of the header's JSON
	workMost    = 32          // bits: anti-flood ends at 28, above this a server only burns our electricity
	stallMost   = time.Minute // for an answer to begin, and between two parts of it or of what is sent
	waitMost    = 9           // seconds of Retry-After that are waited for, once
	answerMost  = 4 << 20     // bytes of JSON; a page of 200 pastes has a tenth of a MiB
	spoolMemory = 1 << 20     // bytes of a pipe kept in memory, more goes to a file
	certBegin   = "-----BEGIN CERTIFICATE-----"
	expectFrom  = sealSegment // bytes of a body from which we ask before we send it (Expect: 100-continue)
)

var (
	errWrongKey   = errors.New("wrong key")
	errSealBroken = errors.New("the content is damaged, cut short, or was never encrypted by fpaste")
	errSealKey    = errors.New("the part after # must be the key's 43 characters, exactly as the link had them")
	errTitle      = errors.New("name and type are too long, or not UTF-8")
	errNotSealed  = errors.New("refusing to send what is not encrypted under the paste's own key")
	errElsewhere  = errors.New("passwords and tokens go only to the configured server")
	errStalled    = errors.New("no byte moved for a minute")
	errStrange    = errors.New("the answer is not one that FlaskPaste gives")
)

// sealKey is a paste's secret: 32 random bytes, in the link's fragment as 43 characters of base64url, never sent.
type sealKey [32]byte

// Format prints nothing of the key, whatever the verb.
func (sealKey) Format(f fmt.State, _ rune) { io.WriteString(f, "[redacted]") }

func newSealKey() (k sealKey) {
	rand.Read(k[:]) // never fails: crypto/rand ends the program instead
	return k
}

// parseSealKey is strict: one spelling a key, so the last character's spare bits must be zero.
func parseSealKey(s string) (k sealKey, err error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(s) != 43 || len(raw) != 32 { // the decoder skips line ends: both lengths must fit
		return k, errSealKey
	}
	return sealKey(raw), nil
}

func (k sealKey) fragment() string { return base64.RawURLEncoding.EncodeToString(k[:]) }

// derive returns 32 bytes for one use of the key.
func (k sealKey) derive(salt []byte, use string) []byte {
	out, err := hkdf.Key(sha256.New, k[:], salt, "flaskpaste/1 "+use, 32)
	if err != nil {
		panic(err) // only for lengths above 8,160
	}
	return out
}

// readProof is what a reader shows (64 hex), proofHash what the server keeps of it. Both come from the key alone, so that the
// link goes on working after an update with its fresh salt.
func (k sealKey) readProof() string { return hex.EncodeToString(k.derive(nil, "read")) }

func (k sealKey) proofHash() string {
	sum := sha256.Sum256(k.derive(nil, "read"))
	return hex.EncodeToString(sum[:])
}

// sealTitle is the header at the start of the plaintext: what the sender says of the content, to be judged as hostile.
type sealTitle struct {
	Name string `json:"name,omitempty"`
	Type string `json:"type,omitempty"`
}

func (t sealTitle) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b) // ends the object with the newline that the format asks for
	enc.SetEscapeHTML(false)
	if err := enc.Encode(t); err != nil || b.Len() > titleMost+1 || !utf8.ValidString(t.Name+t.Type) {
		return nil, errTitle
	}
	return b.Bytes(), nil
}

// parseTitle takes the header off a verified first segment.
func parseTitle(b []byte) (t sealTitle, rest []byte, err error) {
	line, rest, ok := bytes.Cut(b, []byte("\n"))
	var all map[string]json.RawMessage // by exact name: encoding/json would take "NAME" for "name" in a struct
	if !ok || len(line) > titleMost || !utf8.Valid(line) || !bytes.HasPrefix(line, []byte("{")) || json.Unmarshal(line, &all) != nil {
		return t, nil, errSealBroken
	}
	for name, into := range map[string]*string{"name": &t.Name, "type": &t.Type} {
		if raw, ok := all[name]; ok && (raw[0] != '"' || json.Unmarshal(raw, into) != nil) {
			return t, nil, errSealBroken
		}
	}
	return t, rest, nil
}

// sealStream seals or opens as it is read, one segment in memory. It owns its buffer; the source must return io.EOF only where
// the content truly ends (a cut connection is another error), because that is how the last segment is told from the others.
type sealStream struct {
	src     io.Reader
	aead    cipher.AEAD
	head    []byte
	opening bool
	nonce   [12]byte
	count   uint64
	buf     []byte // a segment being worked on in place, and one byte read ahead
	have    int    // bytes at the start of buf read so far
	ahead   byte
	out     []byte // ready for the reader
	last    bool
	err     error
}

func newSealStream(src io.Reader, key sealKey, head []byte, opening bool) *sealStream {
	block, err := aes.NewCipher(key.derive(head[4:20], "content"))
	if err != nil {
		panic(err) // only for wrong key sizes
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // only for other block sizes
	}
	return &sealStream{src: src, aead: aead, head: head, opening: opening, buf: make([]byte, sealSegment+sealTag+1)}
}

// sealFrom encrypts src under key with a fresh salt.
func sealFrom(src io.Reader, key sealKey, title sealTitle) (*sealStream, error) {
	salt := make([]byte, 16)
	rand.Read(salt)
	return sealWith(src, key, title, salt)
}

func sealWith(src io.Reader, key sealKey, title sealTitle, salt []byte) (*sealStream, error) {
	line, err := title.encode()
	if err != nil {
		return nil, err
	}
	head := append(append([]byte(sealMagic), salt...), key.derive(salt, "commit")...)
	s := newSealStream(src, key, head, false)
	s.have, s.out = copy(s.buf, line), head
	return s, nil
}

// openFrom reads head, first segment and title; content follows by reading the stream. errWrongKey, errSealBroken, or the source's error.
func openFrom(src io.Reader, key sealKey) (*sealStream, sealTitle, error) {
	head, title := make([]byte, sealHead), sealTitle{}
	if _, err := io.ReadFull(src, head); err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil, title, errSealBroken
	} else if err != nil {
		return nil, title, err
	}
	if string(head[:4]) != sealMagic {
		return nil, title, errSealBroken
	}
	if subtle.ConstantTimeCompare(head[20:], key.derive(head[4:20], "commit")) != 1 {
		return nil, title, errWrongKey
	}
	s := newSealStream(src, key, head, true)
	err := s.advance()
	if err == nil {
		title, s.out, err = parseTitle(s.out)
	}
	return s, title, err
}

// advance works one segment; it is the last if and only if the source ends after it.
func (s *sealStream) advance() error {
	if s.last {
		return io.EOF
	}
	size := sealSegment
	if s.opening {
		size += sealTag
	}
	if s.count > 0 {
		s.buf[0], s.have = s.ahead, 1
	}
	for s.have <= size && !s.last {
		n, err := s.src.Read(s.buf[s.have : size+1])
		if s.have += n; err != nil && err != io.EOF {
			return err
		}
		s.last = err == io.EOF
	}
	if s.have > size { // the read-ahead byte belongs to the next segment, even if it came together with EOF
		s.have, s.last, s.ahead = size, false, s.buf[size]
	}
	if s.count == sealMost || s.opening && s.have <= sealTag {
		return errSealBroken
	}
	binary.BigEndian.PutUint64(s.nonce[3:11], s.count)
	if s.last {
		s.nonce[11] = 1
	}
	s.count++
	if !s.opening {
		s.out = s.aead.Seal(s.buf[:0], s.nonce[:], s.buf[:s.have], s.head)
		return nil
	}
	var err error
	if s.out, err = s.aead.Open(s.buf[:0], s.nonce[:], s.buf[:s.have], s.head); err != nil {
		return errSealBroken
	}
	return nil
}

func (s *sealStream) Read(p []byte) (int, error) {
	for len(s.out) == 0 && s.err == nil {
		s.err = s.advance()
	}
	n := copy(p, s.out)
	if s.out = s.out[n:]; n == 0 && len(p) > 0 {
		return 0, s.err
	}
	return n, nil
}

// WriteTo spares io.Copy a second buffer.
func (s *sealStream) WriteTo(w io.Writer) (total int64, err error) {
	for s.err == nil || len(s.out) > 0 {
		n, err := w.Write(s.out)
		if total, s.out = total+int64(n), s.out[n:]; err != nil {
			return total, err
		}
		if s.err == nil {
			s.out = nil
			s.err = s.advance()
		}
	}
	if s.err == io.EOF {
		return total, nil
	}
	return total, s.err
}

// sealedSize returns the stored bytes for n bytes of content.
func sealedSize(n int64, title sealTitle) int64 {
	line, _ := title.encode()
	n += int64(len(line))
	return sealHead + n + (n+sealSegment-1)/sealSegment*sealTag
}

// bodySource gives the same body again for every try: a reader from the start and its length in bytes.
type bodySource func() (io.Reader, int64, error)

// spool keeps what comes through a pipe, so that it can be sent a second time: little in memory, more in an unlinked 0600 file
// (where the system can't unlink an open file, close removes it). It must be given ciphertext only.
func spool(r io.Reader) (body func() io.Reader, size int64, close func(), err error) {
	head, err := io.ReadAll(io.LimitReader(r, spoolMemory))
	if err != nil || len(head) < spoolMemory {
		return func() io.Reader { return bytes.NewReader(head) }, int64(len(head)), func() {}, err
	}
	f, err := os.CreateTemp("", ".fpaste-*")
	if err != nil {
		return nil, 0, func() {}, err
	}
	os.Remove(f.Name())
	size, err = io.Copy(f, io.MultiReader(bytes.NewReader(head), r))
	return func() io.Reader { return io.NewSectionReader(f, 0, size) }, size, func() { f.Close(); os.Remove(f.Name()) }, err
}

// apiItem is what the server says of a paste, a short URL or a certificate, new or in a list. Times are Unix seconds.
type apiItem struct {
	ID          string `json:"id,omitempty"`
	Link        string `json:"link,omitempty"` // ours, never the server's: it has the key
	Target      string `json:"target_url,omitempty"`
	MIME        string `json:"mime_type,omitempty"`
	Size        int64  `json:"size,omitempty"`
	SHA256      string `json:"sha256,omitempty"`
	Serial      string `json:"serial,omitempty"`
	CommonName  string `json:"common_name,omitempty"`
	IssuedAt    int64  `json:"issued_at,omitempty"`
	CreatedAt   int64  `json:"created_at,omitempty"`
	ExpiresAt   int64  `json:"expires_at"`
	Owner       string `json:"owner,omitempty"`
	Name        string `json:"display_name,omitempty"`
	Burn        bool   `json:"burn_after_read,omitempty"`
	Password    bool   `json:"password_protected,omitempty"`
	Proof       bool   `json:"read_proof,omitempty"`
	Revoked     bool   `json:"revoked,omitempty"`
	Admin       bool   `json:"admin,omitempty"`
	DeleteToken string `json:"delete_token,omitempty"`
}

// listPage is one page of any list; only one of the three has entries.
type listPage struct {
	Pastes []apiItem `json:"pastes"`
	URLs   []apiItem `json:"urls"`
	Certs  []apiItem `json:"certificates"`
	Next   string    `json:"next_cursor"`
}

// workOrder is a challenge as the server gives it; the signature inside token is the server's own matter.
type workOrder struct {
	Enabled    bool   `json:"enabled"`
	Nonce      string `json:"nonce"`
	Difficulty int    `json:"difficulty"`
	Token      string `json:"token"`
}

// apiFailure is a refusal in the server's own words (hostile on a terminal), or with Status alone an answer that isn't FlaskPaste's.
type apiFailure struct {
	Status    int        `json:"-"`
	Message   string     `json:"error"`
	Code      string     `json:"code"`
	Hint      string     `json:"hint"`
	RequestID string     `json:"request_id"`
	Challenge *workOrder `json:"challenge"`
	After     int        `json:"-"` // Retry-After in seconds
}

func (f *apiFailure) Error() string {
	if f.Code == "" {
		return fmt.Sprintf("%v (status %d)", errStrange, f.Status)
	}
	return f.Message
}

// netFailure is a connection that could not be made, was cut or stalled.
type netFailure struct{ error }

func (n netFailure) Unwrap() error { return n.error }

// apiClient speaks to one server. It is used by one goroutine at a time.
type apiClient struct {
	base    *url.URL // with the prefix, without a slash at the end
	trusted bool     // base has the configured origin: certificate, tokens and passwords may go there
	http    *http.Client
	note    func(string)                                                            // tells the user what is waited for
	work    func(ctx context.Context, nonce string, difficulty int) (string, error) // solves a challenge
	trace   func(method, path, status, requestID string)                            // nil unless asked for
}

// parseServer takes a server's URL apart: scheme, host and prefix, host in lower case, the scheme's own port left out.
func parseServer(s string, plain bool) (*url.URL, error) {
	u, err := url.Parse(s)
	s, _, _ = strings.Cut(s, "#") // the key of a link stays out of sight
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return nil, fmt.Errorf("%q is not the URL of a server, such as https://paste.example.org", s)
	}
	host := strings.ToLower(u.Hostname())
	if addr, err := netip.ParseAddr(host); u.Scheme == "http" && !plain && host != "localhost" && (err != nil || !addr.IsLoopback()) {
		return nil, fmt.Errorf("%q would send everything in the clear: use https, or --insecure-http", s)
	}
	port := u.Port()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if u.Host = host; port != "" && port != map[string]string{"https": "443", "http": "80"}[u.Scheme] {
		u.Host += ":" + port
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
}

// newAPIClient makes a client for base; pair and roots (PEM, nil for the system's) belong to a trusted one only.
func newAPIClient(base *url.URL, trusted bool, pair *tls.Certificate, roots *x509.CertPool) *apiClient {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if trusted {
		conf.RootCAs = roots
	}
	if trusted && pair != nil {
		// Always this one: by default Go stays silent when a proxy names CAs that a self-signed certificate is not of.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	return &apiClient{base: base, trusted: trusted, note: func(string) {},
		http: &http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			// HTTP/1.1 only: one request at a time has nothing to gain from streams. No compression: answers stay as they were hashed.
			Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
				TLSClientConfig: conf, TLSHandshakeTimeout: 15 * time.Second, ExpectContinueTimeout: 3 * time.Second, ResponseHeaderTimeout: stallMost,
				DisableCompression: true, MaxResponseHeaderBytes: 64 << 10},
		},
		work: func(ctx context.Context, nonce string, difficulty int) (string, error) {
			return solve(ctx, nonce, difficulty, 1, func(uint64) {})
		},
	}
}

// apiCall is one request to be made, repeatable.
type apiCall struct {
	method, path string
	query        url.Values
	header       map[string]string // an empty value is sent too: for a password it means "remove"
	body         bodySource
	sealed       *sealKey // the body must be ciphertext under this key
}

// do makes the call: 2xx, or an error. A challenge is solved, a short Retry-After and "busy" are waited for, each once.
// The caller closes the body.
func (c *apiClient) do(ctx context.Context, q apiCall) (*http.Response, error) {
	if q.header == nil {
		q.header = map[string]string{}
	}
	for name := range q.header {
		if !c.trusted && (name == "X-Paste-Password" || name == "X-Delete-Token") {
			return nil, errElsewhere
		}
	}
	var worked, waited, busied bool
	for {
		resp, err := c.try(ctx, q)
		var f *apiFailure
		if err == nil || !errors.As(err, &f) {
			return resp, err
		}
		switch {
		case f.Status == 400 && f.Challenge != nil && !worked:
			worked = true
			if err := c.workOn(ctx, *f.Challenge, q.header); err != nil {
				return nil, err
			}
		case f.Status == 429 && f.After <= waitMost && !waited, f.Status == 503 && f.Code == "busy" && f.After <= waitMost && !busied:
			waited, busied = waited || f.Status == 429, busied || f.Status == 503
			pause := time.Duration(max(f.After, 1)) * time.Second
			c.note(fmt.Sprintf("the server says %q: trying once more in %v", f.Message, pause))
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		default:
			return nil, err
		}
	}
}

// workOn solves a challenge into the headers of the next try.
func (c *apiClient) workOn(ctx context.Context, w workOrder, header map[string]string) error {
	if !isHex(w.Nonce, 32) || w.Difficulty < 0 || w.Difficulty > workMost || len(w.Token) > 1024 {
		return &apiFailure{Status: 429, Code: "pow_required", Message: fmt.Sprintf("the server asks for %d bits of work: this client does up to %d", w.Difficulty, workMost)}
	}
	solution, err := c.work(ctx, w.Nonce, w.Difficulty)
	header["X-PoW-Token"], header["X-PoW-Solution"] = w.Token, solution
	return err
}

// try makes the call once.
func (c *apiClient) try(ctx context.Context, q apiCall) (_ *http.Response, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	stall := time.AfterFunc(stallMost, func() { cancel(errStalled) })
	defer func() {
		if err != nil {
			stall.Stop()
			cancel(nil)
		}
	}()
	target := *c.base
	target.Path, target.RawQuery = c.base.Path+q.path, q.query.Encode()
	req, err := http.NewRequestWithContext(ctx, q.method, target.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "fpaste/"+version)
	req.Header.Set("Accept", "application/json")
	for name, value := range q.header {
		req.Header.Set(name, value)
	}
	if q.body != nil {
		var body io.Reader
		if body, req.ContentLength, err = q.body(); err == nil && q.sealed != nil {
			body, err = ownCiphertext(body, *q.sealed)
		}
		if err != nil {
			return nil, err
		}
		if req.Body = io.NopCloser(moving{body, stall}); req.ContentLength == 0 {
			req.Body = http.NoBody
		} else if req.ContentLength >= expectFrom {
			req.Header.Set("Expect", "100-continue")
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // without the URL: who prints this names the host
		}
		if errors.Is(err, syscall.EPIPE) {
			err = errors.New(err.Error()) // the server's end, not the pipe behind our output that closes quietly
		}
		return nil, netFailure{cmp.Or(context.Cause(ctx), err)}
	}
	if c.trace != nil {
		c.trace(q.method, req.URL.Path, resp.Status, resp.Header.Get("X-Request-ID"))
	}
	stall.Reset(stallMost)
	resp.Body = &receiving{moving{resp.Body, stall}, resp.Body, ctx, cancel}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	f := &apiFailure{Status: resp.StatusCode}
	if raw, err := io.ReadAll(io.LimitReader(resp.Body, sealSegment)); err != nil || json.Unmarshal(raw, f) != nil || f.Code == "" || f.Message == "" {
		*f = apiFailure{Status: resp.StatusCode} // whatever it was, nothing of it is believed
	}
	if n, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31); err == nil {
		f.After = int(n)
	} else {
		f.After = waitMost + 1 // absent or a date: not short
	}
	return nil, f
}

// moving is a body, of a request or an answer: each part of it puts off the end of the call by stallMost.
type moving struct {
	io.Reader
	stall *time.Timer
}

func (m moving) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.stall.Reset(stallMost)
	return n, err
}

// receiving is an answer's body. Its errors are netFailures.
type receiving struct {
	moving
	io.Closer
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (r *receiving) Read(p []byte) (int, error) {
	n, err := r.moving.Read(p)
	if err != nil && err != io.EOF {
		err = netFailure{cmp.Or(context.Cause(r.ctx), err)}
	}
	return n, err
}

func (r *receiving) Close() error {
	r.stall.Stop()
	r.cancel(nil)
	return r.Closer.Close()
}

// ownCiphertext refuses a body that does not begin with a head under key: the last gate before the wire.
func ownCiphertext(r io.Reader, key sealKey) (io.Reader, error) {
	head := make([]byte, sealHead)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:4]) != sealMagic || subtle.ConstantTimeCompare(head[20:], key.derive(head[4:20], "commit")) != 1 {
		return nil, errNotSealed
	}
	return io.MultiReader(bytes.NewReader(head), r), nil
}

// ask makes a call whose answer is JSON of a known shape.
func ask[T any](ctx context.Context, c *apiClient, q apiCall) (answer T, err error) {
	resp, err := c.do(ctx, q)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, answerMost))
	if err == nil && json.Unmarshal(raw, &answer) != nil {
		err = &apiFailure{Status: resp.StatusCode}
	}
	return answer, err
}

// text makes a call whose answer is text that begins as it must, such as a certificate.
func (c *apiClient) text(ctx context.Context, q apiCall, begin string) (string, error) {
	resp, err := c.do(ctx, q)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, answerMost))
	if err == nil && !strings.HasPrefix(string(raw), begin) {
		err = &apiFailure{Status: resp.StatusCode}
	}
	return string(raw), err
}

// create stores body. With a key the body must be ciphertext under it; the server gets the hash of the read proof.
func (c *apiClient) create(ctx context.Context, body bodySource, key *sealKey, header map[string]string) (apiItem, error) {
	return c.store(ctx, "POST", "/", body, key, header)
}

// replace changes what id names; a nil body changes only what the header says. token may be empty: then the certificate must do.
func (c *apiClient) replace(ctx context.Context, id, token string, body bodySource, key *sealKey, header map[string]string) (apiItem, error) {
	if token != "" {
		header["X-Delete-Token"] = token
	}
	return c.store(ctx, "PUT", "/"+id, body, key, header)
}

func (c *apiClient) store(ctx context.Context, method, path string, body bodySource, key *sealKey, header map[string]string) (apiItem, error) {
	if key != nil && body != nil {
		header["X-Read-Proof-SHA256"], header["Content-Type"] = key.proofHash(), "application/octet-stream"
	}
	// What the server would take for a form of its own goes as a part of one.
	if kind := header["Content-Type"]; key == nil && body != nil && formLike.MatchString(kind) {
		boundary, plain := rand.Text(), body
		head, tail := "--"+boundary+"\r\nContent-Disposition: form-data; name=\"content\"\r\nContent-Type: "+kind+"\r\n\r\n", "\r\n--"+boundary+"--\r\n"
		header["Content-Type"] = "multipart/form-data; boundary=" + boundary
		body = func() (io.Reader, int64, error) {
			r, size, err := plain()
			return io.MultiReader(strings.NewReader(head), r, strings.NewReader(tail)), int64(len(head)+len(tail)) + size, err
		}
	}
	info, err := ask[apiItem](ctx, c, apiCall{method: method, path: path, header: header, body: body, sealed: key})
	if err == nil && (!idShaped(info.ID) || method == "PUT" && path != "/"+info.ID) {
		err = &apiFailure{Status: 200}
	}
	return info, err
}

// meta asks for what may be said of a paste without reading it; it never burns.
func (c *apiClient) meta(ctx context.Context, id string) (apiItem, error) {
	info, err := ask[apiItem](ctx, c, apiCall{method: "GET", path: "/" + id})
	if err == nil && info.ID != id {
		err = &apiFailure{Status: 200}
	}
	return info, err
}

// raw opens a paste's stored bytes, which burns a burning one. The caller closes the body; ContentLength is -1 if unknown.
// errWrongKey: the server knows another read proof.
func (c *apiClient) raw(ctx context.Context, id string, key *sealKey, password string) (*http.Response, error) {
	header := map[string]string{"Accept": "*/*"}
	if key != nil {
		header["X-Read-Proof"] = key.readProof()
	}
	if password != "" {
		header["X-Paste-Password"] = password
	}
	resp, err := c.do(ctx, apiCall{method: "GET", path: "/" + id + "/raw", header: header})
	var f *apiFailure
	if key != nil && errors.As(err, &f) && f.Code == "read_proof_required" { // the proof is made of the key
		err = errWrongKey
	}
	return resp, err
}

// remove deletes a paste, or with "/s/<id>" a short URL.
func (c *apiClient) remove(ctx context.Context, path, token string) error {
	header := map[string]string{}
	if token != "" {
		header["X-Delete-Token"] = token
	}
	info, err := ask[apiItem](ctx, c, apiCall{method: "DELETE", path: path, header: header})
	if err == nil && (info.ID == "" || !strings.HasSuffix(path, "/"+info.ID)) {
		err = &apiFailure{Status: 200}
	}
	return err
}

// pages walks a list, each page once; a server that turns in circles is stopped.
func (c *apiClient) pages(ctx context.Context, path string, query url.Values, each func([]apiItem) error) error {
	for last := ""; ; {
		page, err := ask[listPage](ctx, c, apiCall{method: "GET", path: path, query: query})
		items := slices.Concat(page.Pastes, page.URLs, page.Certs)
		if err == nil {
			err = each(items)
		}
		if err != nil || page.Next == "" {
			return err
		}
		if page.Next == last || len(items) == 0 {
			return &apiFailure{Status: 200}
		}
		last = page.Next
		query.Set("cursor", page.Next)
	}
}

// enrol fetches a certificate for a request in PEM: register's challenge is solved first, as it always needs work.
func (c *apiClient) enrol(ctx context.Context, csr string) (string, error) {
	header := map[string]string{}
	w, err := ask[workOrder](ctx, c, apiCall{method: "GET", path: "/register/challenge"})
	if err == nil && w.Enabled {
		err = c.workOn(ctx, w, header)
	}
	if err != nil {
		return "", err
	}
	return c.text(ctx, apiCall{method: "POST", path: "/csr", header: header, body: textBody(csr)}, certBegin)
}

var formLike = regexp.MustCompile(`(?i)^\s*(application/json|multipart/)`)

func textBody(s string) bodySource {
	return func() (io.Reader, int64, error) { return strings.NewReader(s), int64(len(s)), nil }
}
