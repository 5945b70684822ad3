package main

// The client of the wire: one server, its API as typed calls, work, retries, and what may go where.
//
// Invariants: a paste's key never enters a request; what leaves sealed is checked once more to be ciphertext under
// that key. Certificate, tokens and passwords go to the configured server alone: no redirect is followed, no proxy
// is shown the certificate, and neither a link nor a hostile answer can lead them elsewhere. Work, Retry-After,
// "busy" and a refused certificate are each answered once for a call, visibly. An answer is believed only in the
// shape that was asked for.
// Never: plaintext on a disk that the user did not name, an answer of unbounded size, a link made of what the server
// says.
// RFC 9110 (100-continue, Retry-After), RFC 8555's idea of a challenge that comes with the refusal.

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
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
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	workMost   = 32               // bits: anti-flood ends at 28; above this a server only burns our electricity
	dialMost   = 15 * time.Second // to connect, and again for TLS
	stallMost  = time.Minute      // in which at least a byte must move, either way
	waitMost   = 9                // seconds of Retry-After that are waited for
	answerMost = 4 << 20          // bytes of JSON; a page of 200 pastes has a tenth of a MiB
	holdMemory = 1 << 20          // bytes kept in memory before a file is used
	holdMost   = 64 << 20         // bytes kept in memory when there is no file: what servers take is 50 MiB
	expectFrom = sealSegment      // bytes of a body from which we ask before we send it (Expect: 100-continue)
	certBegin  = "-----BEGIN CERTIFICATE-----"
)

var (
	errNotSealed = errors.New("refusing to send what is not encrypted under the paste's own key")
	errElsewhere = errors.New("passwords and tokens go only to the configured server")
	errStalled   = errors.New("no byte moved for a minute")
	errStrange   = errors.New("the answer is not one that FlaskPaste gives")

	pasteIDShape  = regexp.MustCompile(`^[0-9a-f]{8,64}$`)
	shortIDForm   = regexp.MustCompile(`^[0-9A-Za-z]{8}$`)
	nonceForm     = regexp.MustCompile(`^[0-9a-f]{32}$`)
	jsonForm      = regexp.MustCompile(`(?i)application/json`)
	keyMark       = regexp.MustCompile(`(?:#|%(?:25)*23)`)
	certRefusedBy = regexp.MustCompile(`remote error: tls: \w+ certificate`) // a proxy's alert in the handshake
)

// apiItem is what the server says of a paste or a short URL, new or in a list, and what we know beside it. Unix
// seconds.
type apiItem struct {
	ID          string `json:"id,omitempty"`
	File        string `json:"file,omitempty"` // ours: which of several was sent
	Link        string `json:"link,omitempty"` // ours, never the server's: it has the key
	Known       string `json:"name,omitempty"` // ours: the name that the server must not know
	Target      string `json:"target_url,omitempty"`
	MIME        string `json:"mime_type,omitempty"`
	Size        int64  `json:"size,omitempty"`
	SHA256      string `json:"sha256,omitempty"`
	CreatedAt   int64  `json:"created_at,omitempty"`
	ExpiresAt   int64  `json:"expires_at"`
	Owner       string `json:"owner,omitempty"`
	Display     string `json:"display_name,omitempty"`
	Burn        bool   `json:"burn_after_read,omitempty"`
	Password    bool   `json:"password_protected,omitempty"`
	Proof       bool   `json:"read_proof,omitempty"`
	DeleteToken string `json:"delete_token,omitempty"`
}

// workOrder is a challenge as the server gives it; the signature inside token is the server's own matter.
type workOrder struct {
	Enabled    bool   `json:"enabled"`
	Nonce      string `json:"nonce"`
	Difficulty int    `json:"difficulty"`
	Token      string `json:"token"`
}

// apiFailure is a refusal in the server's own words (hostile on a terminal), or with Status alone an answer that
// isn't ours.
type apiFailure struct {
	Status    int        `json:"-"`
	Message   string     `json:"error"`
	Code      string     `json:"code"`
	Hint      string     `json:"hint"`
	RequestID string     `json:"request_id"`
	Limit     int64      `json:"limit"` // bytes, of a 413
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

func networkError(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // without the URL: who prints this names the host
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errStalled
	} else if errors.Is(err, syscall.EPIPE) {
		err = errors.New(err.Error()) // the server's end, not the pipe behind our output that closes quietly
	}
	return netFailure{err}
}

// hide takes out of what a sentence quotes what nobody may read there: a link's key and a URL's user part.
func hide(s string) string {
	if at := keyMark.FindStringIndex(s); at != nil {
		s = s[:at[0]]
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if at := strings.LastIndexByte(s, '@'); !ok && at >= 0 && strings.Contains(s[:at], ":") {
		return s[at+1:]
	} else if ok {
		return scheme + "://" + rest[strings.LastIndexByte(rest, '@')+1:]
	}
	return s
}

// parseServer takes a server's URL apart: scheme, user, host and prefix, host in lower case, the scheme's own port
// left out.
func parseServer(s string, plain bool) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.RawQuery != "" || u.ForceQuery ||
		keyMark.MatchString(s) {
		return nil, fmt.Errorf("%q is not the URL of a server, such as https://paste.example.org", hide(s))
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	addr, err := netip.ParseAddr(host)
	if u.Scheme == "http" && !plain && host != "localhost" && (err != nil || !addr.IsLoopback()) {
		return nil, fmt.Errorf("%q would send everything in the clear: use https, or --insecure-http", hide(s))
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if u.Host = host; port != "" && port != map[string]string{"https": "443", "http": "80"}[u.Scheme] {
		u.Host += ":" + port
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
}

// apiClient speaks to one server. It is used by one goroutine at a time.
type apiClient struct {
	base    *url.URL // with the prefix, without a slash at the end or a user
	trusted bool     // base has the configured origin: certificate, tokens and passwords may go there
	login   *url.Userinfo
	pair    *tls.Certificate // nil once the server has refused it
	roots   *x509.CertPool   // nil for the system's
	http    *http.Client
	note    func(string)                                                            // tells the user what is waited for
	work    func(ctx context.Context, nonce string, difficulty int) (string, error) // solves a challenge
	trace   func(method, path, status, requestID string)                            // nil unless asked for
}

// newAPIClient makes a client for base; user part, pair and roots belong to a trusted one only.
func newAPIClient(base *url.URL, trusted bool, pair *tls.Certificate, roots *x509.CertPool) *apiClient {
	naked := *base
	naked.User = nil
	c := &apiClient{base: &naked, trusted: trusted, note: func(string) {}}
	if trusted {
		c.login, c.pair, c.roots = base.User, pair, roots
	}
	c.work = func(ctx context.Context, nonce string, difficulty int) (string, error) {
		return solve(ctx, nonce, difficulty, 1, nil)
	}
	c.http = &http.Client{Transport: c.transport(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c
}

// transport makes connections with what the client has now. HTTP/1.1 only: one request at a time has nothing to gain
// from streams. No compression: answers stay as they were hashed.
func (c *apiClient) transport() *http.Transport {
	conf := &tls.Config{RootCAs: c.roots, MinVersion: tls.VersionTLS12}
	if pair := c.pair; pair != nil {
		// Always this one: by default Go is silent when a proxy names CAs that a self-signed certificate is not of.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: conf, TLSHandshakeTimeout: dialMost,
		ExpectContinueTimeout: 3 * time.Second, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10}
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{Timeout: dialMost}).DialContext(ctx, network, addr)
		return patient{conn}, err
	}
	// The first TLS of a connection is the server's, or an https:// proxy's: that one gets neither certificate nor
	// roots.
	t.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := t.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		first := conf.Clone()
		if proxy, err := t.Proxy(&http.Request{URL: c.base}); proxy != nil || err != nil {
			first = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		first.ServerName, _, _ = net.SplitHostPort(addr)
		ctx, cancel := context.WithTimeout(ctx, dialMost)
		defer cancel()
		secure := tls.Client(conn, first)
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		return secure, nil
	}
	return t
}

// patient is a connection that ends when nothing moves: whatever is read or written puts that off for both
// directions, because an answer waits for the upload before it.
type patient struct{ net.Conn }

func (p patient) Read(b []byte) (int, error) { p.wait(); return p.Conn.Read(b) }

func (p patient) Write(b []byte) (int, error) { p.wait(); return p.Conn.Write(b) }

func (p patient) wait() {
	now := time.Now()
	p.SetWriteDeadline(now.Add(stallMost))
	p.SetReadDeadline(now.Add(stallMost + time.Second)) // behind it: a read that failed first would hide the reason
}

// bodySource gives the same body again for every try: a reader from the start and its length in bytes.
type bodySource func() (io.Reader, int64, error)

// apiCall is one request to be made, repeatable.
type apiCall struct {
	method, path string
	query        url.Values
	header       map[string]string // an empty value is sent too: for a password it means "remove"
	body         bodySource
	sealed       *sealKey // the body must be ciphertext under this key
	certified    bool     // makes no sense without the certificate
}

// do makes the call: 2xx, or an error. What can be mended (work, a short wait, a certificate that is refused though
// it is not needed) is mended once each. The caller closes the body.
func (c *apiClient) do(ctx context.Context, q apiCall) (*http.Response, error) {
	if q.header == nil {
		q.header = map[string]string{}
	}
	for name := range q.header {
		if !c.trusted && (name == "X-Paste-Password" || name == "X-Delete-Token") {
			return nil, errElsewhere
		}
	}
	for mended := map[string]bool{}; ; {
		resp, err := c.try(ctx, q)
		if err == nil {
			return resp, nil
		}
		f, _ := errors.AsType[*apiFailure](err)
		if f == nil {
			f = new(apiFailure)
		}
		var how string
		switch badCert := f.Code == "certificate_revoked" || f.Code == "certificate_expired"; {
		case f.Challenge != nil && f.Status == 400:
			how = "work"
		case f.After <= waitMost && (f.Status == 429 || f.Status == 503 && f.Code == "busy"):
			how = f.Code
		case c.pair != nil && !q.certified && (badCert || certRefusedBy.MatchString(err.Error())):
			how = "certificate"
		}
		if how == "" || mended[how] {
			return nil, err
		}
		switch mended[how] = true; how {
		case "work":
			if err := c.workOn(ctx, *f.Challenge, q.header); err != nil {
				return nil, err
			}
		case "certificate":
			c.note(fmt.Sprintf("going on without your certificate, the server refuses it: %v", err))
			c.pair = nil
			c.http.Transport = c.transport() // no connection that has shown it
		default:
			pause := time.Duration(max(f.After, 1)) * time.Second
			c.note(fmt.Sprintf("the server says %q: trying once more in %v", f.Message, pause))
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
}

// workOn solves a challenge into the headers of the next try.
func (c *apiClient) workOn(ctx context.Context, w workOrder, header map[string]string) error {
	if !nonceForm.MatchString(w.Nonce) || w.Difficulty < 0 || w.Difficulty > workMost || len(w.Token) > 1024 {
		return &apiFailure{Status: 429, Code: "pow_required",
			Message: fmt.Sprintf("the server asks for %d bits of work: this client does up to %d", w.Difficulty, workMost)}
	}
	solution, err := c.work(ctx, w.Nonce, w.Difficulty)
	header["X-PoW-Token"], header["X-PoW-Solution"] = w.Token, solution
	return err
}

// try makes the call once.
func (c *apiClient) try(ctx context.Context, q apiCall) (*http.Response, error) {
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
	if c.login != nil {
		password, _ := c.login.Password()
		req.SetBasicAuth(c.login.Username(), password)
	}
	if q.body != nil {
		var body io.Reader
		if body, req.ContentLength, err = q.body(); err == nil && q.sealed != nil {
			body, err = ownCiphertext(body, *q.sealed)
		}
		if err != nil {
			return nil, err
		}
		if req.Body = io.NopCloser(body); req.ContentLength == 0 {
			req.Body = http.NoBody
		} else if req.ContentLength >= expectFrom {
			req.Header.Set("Expect", "100-continue")
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, networkError(err)
	}
	if c.trace != nil {
		c.trace(q.method, req.URL.Path, resp.Status, resp.Header.Get("X-Request-ID"))
	}
	resp.Body = netBody{resp.Body}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	f := &apiFailure{Status: resp.StatusCode}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, sealSegment))
	if err != nil || json.Unmarshal(raw, f) != nil || f.Code == "" || f.Message == "" {
		*f = apiFailure{Status: resp.StatusCode} // whatever it was, nothing of it is believed
	}
	f.After = waitMost + 1 // absent or a date: not short
	if n, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31); err == nil {
		f.After = int(n)
	}
	return nil, f
}

// netBody is an answer's body: what goes wrong with it is the network's.
type netBody struct{ io.ReadCloser }

func (b netBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = networkError(err)
	}
	return n, err
}

// ownCiphertext refuses a body that does not begin with a head under key: the last gate before the wire.
func ownCiphertext(r io.Reader, key sealKey) (io.Reader, error) {
	head := make([]byte, sealHead)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:4]) != sealMagic || !key.commits(head) {
		return nil, errNotSealed
	}
	return io.MultiReader(bytes.NewReader(head), r), nil
}

// text makes a call whose answer is bounded text that begins as it must, such as a certificate.
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

// ask makes a call whose answer is a JSON object of a known shape.
func ask[T any](ctx context.Context, c *apiClient, q apiCall) (answer T, err error) {
	text, err := c.text(ctx, q, "{")
	if err == nil && json.Unmarshal([]byte(text), &answer) != nil {
		err = &apiFailure{Status: 200}
	}
	return answer, err
}

// create stores body. With a key the body must be ciphertext under it; the server gets the hash of the read proof.
func (c *apiClient) create(ctx context.Context, body bodySource, key *sealKey,
	header map[string]string) (apiItem, error) {
	return c.store(ctx, apiCall{method: "POST", path: "/", header: header, body: body, sealed: key})
}

// replace changes what id names; a nil body changes only what the header says. Without a token the certificate must
// do.
func (c *apiClient) replace(ctx context.Context, id, token string, body bodySource, key *sealKey,
	header map[string]string) (apiItem, error) {
	if token != "" {
		header["X-Delete-Token"] = token
	}
	return c.store(ctx, apiCall{method: "PUT", path: "/" + id, header: header, body: body, sealed: key,
		certified: token == ""})
}

func (c *apiClient) store(ctx context.Context, q apiCall) (apiItem, error) {
	kind := q.header["Content-Type"]
	if q.body != nil && q.sealed != nil {
		q.header["X-Read-Proof-SHA256"], q.header["Content-Type"] = q.sealed.proofHash(), "application/octet-stream"
	} else if plain := q.body; plain != nil && jsonForm.MatchString(kind) { // else the server takes it for its own form
		boundary := rand.Text()
		head := "--" + boundary + "\r\nContent-Disposition: form-data; name=\"content\"\r\nContent-Type: " + kind + "\r\n\r\n"
		tail := "\r\n--" + boundary + "--\r\n"
		q.header["Content-Type"] = "multipart/form-data; boundary=" + boundary
		q.body = func() (io.Reader, int64, error) {
			r, size, err := plain()
			return io.MultiReader(strings.NewReader(head), r, strings.NewReader(tail)), int64(len(head)+len(tail)) + size, err
		}
	}
	info, err := ask[apiItem](ctx, c, q)
	if err == nil && (!pasteIDShape.MatchString(info.ID) || q.method == "PUT" && q.path != "/"+info.ID) {
		err = &apiFailure{Status: 200}
	}
	return info, err
}

// meta asks for what may be said of a paste without reading it; it never burns. The text is the server's own JSON.
func (c *apiClient) meta(ctx context.Context, id string) (info apiItem, text string, err error) {
	text, err = c.text(ctx, apiCall{method: "GET", path: "/" + id}, "{")
	if err == nil && (json.Unmarshal([]byte(text), &info) != nil || info.ID != id) {
		err = &apiFailure{Status: 200}
	}
	return info, text, err
}

// raw opens a paste's stored bytes, which burns a burning one. The caller closes the body; ContentLength is -1 if
// unknown.
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
	if f, ok := errors.AsType[*apiFailure](err); ok && key != nil && f.Code == "read_proof_required" {
		err = errWrongKey // the proof is made of the key
	}
	return resp, err
}

// remove deletes a paste, or with "/s/<id>" a short URL.
func (c *apiClient) remove(ctx context.Context, path, token string) error {
	header := map[string]string{}
	if token != "" {
		header["X-Delete-Token"] = token
	}
	info, err := ask[apiItem](ctx, c, apiCall{method: "DELETE", path: path, header: header, certified: token == ""})
	if err == nil && (info.ID == "" || !strings.HasSuffix(path, "/"+info.ID)) {
		err = &apiFailure{Status: 200}
	}
	return err
}

// pages walks a list, each page once (one may be empty and have a next); a server that turns in circles is stopped.
func (c *apiClient) pages(ctx context.Context, path string, query url.Values, each func([]apiItem) error) error {
	for seen := map[string]bool{}; ; {
		page, err := ask[struct {
			Pastes []apiItem `json:"pastes"`
			URLs   []apiItem `json:"urls"`
			Next   string    `json:"next_cursor"`
		}](ctx, c, apiCall{method: "GET", path: path, query: query, certified: true})
		if err == nil {
			err = each(append(page.Pastes, page.URLs...))
		}
		if err != nil || page.Next == "" {
			return err
		}
		if seen[page.Next] {
			return &apiFailure{Status: 200}
		}
		seen[page.Next] = true
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

func textBody(s string) bodySource {
	return func() (io.Reader, int64, error) { return strings.NewReader(s), int64(len(s)), nil }
}

// held keeps bytes that can't be had again, a pipe's or a burned paste's, so that they can be read more than once:
// the first in memory, more in an unlinked 0600 file, and where that fails in memory again. It must be given
// ciphertext only.
type held struct {
	head, tail bytes.Buffer
	file       *os.File // between the two
	filed      int64    // bytes in file
}

func (h *held) Write(b []byte) (int, error) {
	n := len(b)
	if h.filed == 0 && h.tail.Len() == 0 && h.head.Len()+n <= holdMemory {
		return h.head.Write(b)
	}
	if h.file == nil && h.tail.Len() == 0 {
		if f, err := os.CreateTemp("", ".fpaste-*"); err == nil {
			h.file = f
			os.Remove(f.Name())
		}
	}
	if h.file != nil && h.tail.Len() == 0 {
		done, _ := h.file.WriteAt(b, h.filed)
		h.filed, b = h.filed+int64(done), b[done:]
	}
	if h.tail.Len()+len(b) > holdMost {
		return n - len(b), errors.New("there is no room for it in the folder for temporary files (TMPDIR)")
	}
	h.tail.Write(b)
	return n, nil
}

func (h *held) size() int64 { return int64(h.head.Len()) + h.filed + int64(h.tail.Len()) }

func (h *held) reader() io.Reader {
	return io.MultiReader(bytes.NewReader(h.head.Bytes()), io.NewSectionReader(h.file, 0, h.filed),
		bytes.NewReader(h.tail.Bytes()))
}
