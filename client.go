package main

// The client of the wire: one server, its API as calls, work, retries, and what may go where.
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
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
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
	"time"
)

const (
	workMost   = 32               // bits: anti-flood ends at 28; above this a server only burns our electricity
	dialMost   = 15 * time.Second // to connect, and again for TLS
	answerWait = time.Minute      // from the end of a request; what stalls before or after, the server cuts
	waitMost   = 9                // seconds of Retry-After that are waited for
	answerMost = 4 << 20          // bytes of JSON; a page of 200 pastes has a tenth of a MiB
	holdMemory = 1 << 20          // bytes kept in memory before a file is used
	holdMost   = 64 << 20         // bytes kept in memory when there is no file: what servers take is 50 MiB
	expectFrom = 64 << 10         // bytes of a body from which we ask before we send it (Expect: 100-continue)
	certBegin  = "-----BEGIN CERTIFICATE-----"
)

var (
	errNotSealed = errors.New("refusing to send what is not encrypted under the paste's own key")
	errElsewhere = fail(4, "name the link's server with --server if you trust it",
		"passwords and tokens go only to the configured server")

	keyMark = regexp.MustCompile(`(?:#|%(?:25)*23|＃|(?i:%(?:25)*ef%(?:25)*bc%(?:25)*83))`)
	// A TLS alert or a code.
	certRefused = regexp.MustCompile(`remote error: tls: \w+ certificate|certificate_(revoked|expired)`)
)

// cliError is a refusal with its exit code, and a second line that says what to type.
type cliError struct {
	code       int
	what, hint string
}

func (e *cliError) Error() string { return e.what }

func fail(code int, hint, format string, args ...any) error {
	return &cliError{code, fmt.Sprintf(format, args...), hint}
}

// strange is an answer that isn't ours: nothing of it is believed.
func strange(status int) error {
	return refuse(status, "", fmt.Sprintf("the answer is not one that FlaskPaste gives (status %d)", status), "")
}

// networkError is what became of a connection: exit 6.
func networkError(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // without the URL: who prints this names the host
	}
	if wrapped, ok := errors.AsType[*net.OpError](err); ok {
		err = wrapped // without what net/http was doing
	}
	code, hint := 6, "check the server's URL and the network; -v shows each request"
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		hint = "if the server has an authority of its own: --cacert FILE with its certificate"
	} else if certRefused.MatchString(err.Error()) {
		code, hint = 4, "fpaste register NAME -f gets a new certificate"
	} else if strings.Contains(err.Error(), "HTTP response to HTTPS") {
		hint = "the server speaks http: -s http://..."
	}
	return fail(code, hint, "%v", err) // not %w: the server's EPIPE is not that of the pipe behind our output
}

// parseServer takes a server's URL apart: scheme, user, host and prefix, host in lower case, its own port left out.
func parseServer(s string, plain bool) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || strings.Contains(s, "?") ||
		keyMark.MatchString(s) {
		return nil, fail(2, "", "%q is not the URL of a server, such as https://paste.example.org", s)
	}
	u.Host = strings.ToLower(u.Host)
	addr, err := netip.ParseAddr(u.Hostname())
	if u.Scheme == "http" && !plain && u.Hostname() != "localhost" && (err != nil || !addr.IsLoopback()) {
		return nil, fail(2, "", "%q would send everything in the clear: use https, or --insecure-http", s)
	}
	own := map[string]string{"https": ":443", "http": ":80"}[u.Scheme]
	u.Host = strings.TrimSuffix(strings.TrimSuffix(u.Host, own), ":")
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
}

// apiClient speaks to one server. It is used by one goroutine at a time.
type apiClient struct {
	base    *url.URL // with the prefix, without a slash at the end or a user
	trusted bool     // base has the configured origin: certificate, tokens and passwords may go there
	login   *url.Userinfo
	pair    *tls.Certificate // nil once the server has refused it
	http    *http.Client
	note    func(format string, args ...any)                                        // tells the user what is done
	trace   func(format string, args ...any)                                        // tells of each request
	work    func(ctx context.Context, nonce string, difficulty int) (string, error) // solves a challenge
}

// newAPIClient makes a client for base that trusts roots (nil: the system's); user part and pair belong to a trusted
// one only.
// HTTP/1.1: one request at a time has nothing to gain from streams. No compression: answers stay as they were hashed.
func newAPIClient(base *url.URL, trusted bool, pair *tls.Certificate, roots *x509.CertPool) *apiClient {
	naked, silent := *base, func(string, ...any) {}
	naked.User = nil
	c := &apiClient{base: &naked, trusted: trusted, note: silent, trace: silent}
	conf, proxied := &tls.Config{MinVersion: tls.VersionTLS12}, &tls.Config{MinVersion: tls.VersionTLS12}
	if conf.RootCAs = roots; trusted {
		c.login, c.pair = base.User, pair
	}
	// Always this one: by default Go is silent when a proxy names CAs that a self-signed certificate is not of.
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return cmp.Or(c.pair, new(tls.Certificate)), nil
	}
	dialer := &net.Dialer{Timeout: dialMost}
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: conf, TLSHandshakeTimeout: dialMost,
		ExpectContinueTimeout: 3 * time.Second, ResponseHeaderTimeout: answerWait, DisableCompression: true,
		MaxResponseHeaderBytes: 64 << 10, DialContext: dialer.DialContext}
	if proxy, err := t.Proxy(&http.Request{URL: c.base}); err == nil && proxy != nil && proxy.Scheme == "https" {
		// The first TLS of a connection is the proxy's, which gets neither certificate nor roots.
		t.DialTLSContext = (&tls.Dialer{NetDialer: dialer, Config: proxied}).DialContext
	}
	unfollowed := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http = &http.Client{Transport: t, CheckRedirect: unfollowed}
	return c
}

// bodySource gives the same body again for every try: a reader from the start and its length in bytes.
type bodySource func() (io.Reader, int64)

func textBody(s string) bodySource {
	return func() (io.Reader, int64) { return strings.NewReader(s), int64(len(s)) }
}

// apiCall is one request to be made, repeatable.
type apiCall struct {
	method, path string
	query        url.Values
	header       map[string]string // an empty value is sent too: for a password it means "remove"
	token        string            // what a change or deletion is allowed by, else the certificate
	body         bodySource
	sealed       *sealKey // the body must be ciphertext under this key
	certified    bool     // makes no sense without the certificate
}

// do makes the call: 2xx, or an error. What can be mended (work, a short wait, a certificate that is refused though
// it is not needed) is mended once each. The caller closes the body.
func (c *apiClient) do(ctx context.Context, q apiCall) (*http.Response, error) {
	header := http.Header{"User-Agent": {"fpaste/" + version}, "Accept": {"application/json"}}
	for name, value := range q.header {
		header.Set(name, value)
	}
	if q.token != "" {
		header.Set("X-Delete-Token", q.token)
	}
	if !c.trusted && (q.certified || q.token != "" || header["X-Paste-Password"] != nil) {
		return nil, errElsewhere
	}
	for mended := map[string]bool{}; ; {
		resp, err := c.try(ctx, q, header)
		f, refused := errors.AsType[*apiError](err)
		if !refused {
			f = new(apiError)
		}
		how := ""
		switch {
		case err == nil:
		case f.status == 400 && f.Challenge != nil:
			how = "work"
		case (f.status == 429 || f.Code == "busy") && f.retry >= 0 && f.retry <= waitMost:
			how = "wait"
		case c.pair != nil && !q.certified && certRefused.MatchString(err.Error()+f.Code):
			how = "certificate"
		}
		if how == "" || mended[how] {
			return resp, err
		}
		switch mended[how] = true; how {
		case "work":
			w := f.Challenge
			if !isHex(w.Nonce, 32) || w.Difficulty < 0 || w.Difficulty > workMost || len(w.Token) > 1024 {
				return nil, fail(5, "", "the server asks for %d bits of work, more than %d", w.Difficulty, workMost)
			}
			solution, err := c.work(ctx, w.Nonce, w.Difficulty)
			if err != nil {
				return nil, err
			}
			header.Set("X-PoW-Token", w.Token)
			header.Set("X-PoW-Solution", solution)
		case "wait":
			pause := time.Duration(max(f.retry, 1)) * time.Second
			c.note("the server says %q: trying once more in %v", f.Text, pause)
			over, cancel := context.WithTimeout(ctx, pause) // when ctx ends, the next try says so
			<-over.Done()
			cancel()
		case "certificate":
			c.note("going on without your certificate, the server refuses it: %v", err)
			c.pair = nil
			c.http.CloseIdleConnections() // those that have shown it
		}
	}
}

// try makes the call once.
func (c *apiClient) try(ctx context.Context, q apiCall, header http.Header) (*http.Response, error) {
	target := *c.base
	target.User, target.Path, target.RawQuery = c.login, c.base.Path+q.path, q.query.Encode()
	req, err := http.NewRequestWithContext(ctx, q.method, target.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = header.Clone()
	if q.body != nil {
		var body io.Reader
		body, req.ContentLength = q.body()
		if q.sealed != nil {
			if body, err = ownCiphertext(body, *q.sealed); err != nil {
				return nil, err
			}
		}
		// A certificate that is refused is told of behind the handshake: what is being written then hides it.
		if req.Body = io.NopCloser(body); req.ContentLength >= expectFrom || c.pair != nil {
			req.Header.Set("Expect", "100-continue")
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, networkError(err)
	}
	c.trace("%s %s: %s (request %s)", q.method, req.URL.Path, resp.Status, resp.Header.Get("X-Request-ID"))
	resp.Body = answerBody{resp.Body}
	if resp.StatusCode == 200 || resp.StatusCode == 201 { // no part is taken for the whole
		return resp, nil
	}
	defer resp.Body.Close()
	f := &apiError{}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, answerMost))
	if err != nil || json.Unmarshal(raw, f) != nil || f.Code == "" || f.Text == "" {
		return nil, strange(resp.StatusCode)
	}
	f.status, f.retry = resp.StatusCode, -1 // absent, or a date
	if n, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31); err == nil {
		f.retry = int(n)
	}
	return nil, f
}

// answerBody is a body whose cut is told from the end of a file of ours: exit 6.
type answerBody struct{ io.ReadCloser }

func (b answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = networkError(err)
	}
	return n, err
}

// readFunc is a reader made of a function.
type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// ownCiphertext refuses a body that does not begin with a head under key: the last gate before the wire.
func ownCiphertext(r io.Reader, key sealKey) (io.Reader, error) {
	head := make([]byte, sealHead)
	if _, err := io.ReadFull(r, head); err != nil || !key.commits(head) {
		return nil, errNotSealed
	}
	return io.MultiReader(bytes.NewReader(head), r), nil
}

// text makes a call whose answer is bounded text that begins as it must, such as a certificate.
func (c *apiClient) text(ctx context.Context, q apiCall, begin string) ([]byte, error) {
	resp, err := c.do(ctx, q)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, answerMost))
	if err == nil && !bytes.HasPrefix(raw, []byte(begin)) {
		err = strange(resp.StatusCode)
	}
	return raw, err
}

// ask makes a call whose answer is a JSON object.
func (c *apiClient) ask(ctx context.Context, q apiCall, answer any) error {
	raw, err := c.text(ctx, q, "{")
	if err == nil && json.Unmarshal(raw, answer) != nil {
		err = strange(200)
	}
	return err
}

// item is a paste or short URL as the server describes it.
type item struct {
	pasteAnswer
	TargetURL string         `json:"target_url"`
	all       map[string]any // every member, for those who want JSON
}

func (a *item) UnmarshalJSON(b []byte) error {
	type plain item
	return errors.Join(json.Unmarshal(b, (*plain)(a)), json.Unmarshal(b, &a.all))
}

// item makes a call whose answer is about the paste or short URL id, or with "" a new one. Content goes sealed under
// q.sealed with the hash of the read proof; readable, as a form if it has a type, as that may be the API's own.
func (c *apiClient) item(ctx context.Context, q apiCall, id string) (a item, err error) {
	q.certified = q.method != "GET" && id != "" && q.token == ""
	if kind := q.header["Content-Type"]; q.body != nil && q.sealed != nil {
		q.header["X-Read-Proof-SHA256"], q.header["Content-Type"] = q.sealed.proofHash(), "application/octet-stream"
	} else if q.body != nil && kind != "" {
		boundary := rand.Text()
		q.header["Content-Type"] = "multipart/form-data; boundary=" + boundary
		head := "--" + boundary + "\r\nContent-Disposition: form-data; name=\"content\"\r\n" +
			"Content-Type: " + kind + "\r\n\r\n"
		tail, plain := "\r\n--"+boundary+"--\r\n", q.body
		q.body = func() (io.Reader, int64) {
			r, size := plain()
			r = io.MultiReader(strings.NewReader(head), r, strings.NewReader(tail))
			return r, int64(len(head)+len(tail)) + size
		}
	}
	err = c.ask(ctx, q, &a)
	fresh := id == "" && (idShaped(a.ID) || q.path == "/s" && shortIDShape.MatchString(a.ID))
	if err == nil && !fresh && (id == "" || a.ID != id) {
		err = strange(200)
	}
	return a, err
}

// pages walks a list (a page may be empty and have a next); a server that turns in circles is stopped. What came
// before an error is returned too.
func (c *apiClient) pages(ctx context.Context, path string, query url.Values) (all []item, err error) {
	query.Set("limit", "200")
	for seen := map[string]bool{}; ; {
		var page struct {
			Pastes, URLs []item
			Next         string `json:"next_cursor"`
		}
		err := c.ask(ctx, apiCall{method: "GET", path: path, query: query, certified: true}, &page)
		all = append(append(all, page.Pastes...), page.URLs...)
		if err != nil || page.Next == "" {
			return all, err
		}
		if seen[page.Next] {
			return all, strange(200)
		}
		seen[page.Next] = true
		query.Set("cursor", page.Next)
	}
}

// keep reads r to its end and returns what gives that again, as often as it takes, ended by the error that ended r.
// What is kept is in memory, and from a MiB on in a file without a name: encrypted, with a key that nobody else has.
func keep(r io.Reader) (again func() io.Reader, size int64, err error) {
	secret, kept := newSealKey(), new(held)
	block, _ := aes.NewCipher(secret[:16]) // of this size it never fails
	stream := func() cipher.Stream { return cipher.NewCTR(block, secret[16:]) }
	size, err = io.Copy(cipher.StreamWriter{S: stream(), W: kept}, r)
	end := readFunc(func([]byte) (int, error) { return 0, cmp.Or(err, io.EOF) })
	return func() io.Reader {
		return io.MultiReader(cipher.StreamReader{S: stream(), R: kept.reader()}, end)
	}, size, err
}

// held keeps bytes: what memory had is in the file before it, unless there is no folder or no room for one.
type held struct {
	memory bytes.Buffer
	file   *os.File // has no name
	filed  int64    // bytes in file
}

func (h *held) Write(b []byte) (int, error) {
	h.memory.Write(b)
	if h.memory.Len() <= holdMemory {
		return len(b), nil
	}
	if h.file == nil {
		if f, err := os.CreateTemp("", ".fpaste-*"); err == nil {
			h.file = f
			os.Remove(f.Name())
		}
	}
	n, _ := h.file.WriteAt(h.memory.Bytes(), h.filed) // none without a file
	h.filed += int64(n)
	h.memory.Next(n)
	if h.memory.Len() > holdMost {
		return 0, errors.New("there is no room for it in the folder for temporary files (TMPDIR)")
	}
	return len(b), nil
}

func (h *held) reader() io.Reader {
	return io.MultiReader(io.NewSectionReader(h.file, 0, h.filed), bytes.NewReader(h.memory.Bytes()))
}
