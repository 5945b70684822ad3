package main

// http.go owns the server: its parts, the route table, how a request gets to its handler and how an error becomes an answer.
//
// The table is the access policy: nothing is reachable that is not a line of it. Handlers return an error and write nothing
// after that; answerError is the one place that says no. A 404 is the same whatever the reason, and a 500 shows a fixed
// sentence while its cause goes to the log once. (RFC 9110)

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const version = "2.0.0"

type server struct {
	cfg       *config
	store     *store
	log       *slog.Logger
	now       func() time.Time
	mux       *http.ServeMux
	table     []route
	origin    *http.CrossOriginProtection
	uploads   *slots
	downloads *slots
	kdf       *kdfQueue
	limiter   *limiter
	flood     *antiflood
	work      *challenges
	guesses   *guesses
	metrics   *metrics
	program   func() (*executable, error)
	dedupKey  [32]byte   // of this process: what is stored says nothing after it
	ca        *authority // nil: none; without its key: PKI is off
	revoked   crlCache
	ownTLS    *certFiles // nil: a proxy's TLS, or none
	ignored   ignored
	health    health
	open      connections
	stopping  atomic.Bool
}

// newServer refuses to work without its parts.
func newServer(cfg *config, st *store, log *slog.Logger, now func() time.Time) (*server, error) {
	if cfg == nil || st == nil || log == nil || now == nil {
		return nil, errors.New("newServer needs config, store, log and now")
	}
	s := &server{cfg: cfg, store: st, log: log, now: now, mux: http.NewServeMux(), origin: http.NewCrossOriginProtection(),
		uploads: newSlots(int(cfg.maxUploads)), downloads: newSlots(int(cfg.maxDownloads)), kdf: newKDFQueue(max(1, cores()-1))}
	s.limiter, s.guesses = newLimiter(cfg.rates, int(cfg.rateMaxClients), now()), newGuesses(now())
	s.flood = newAntiflood(int(cfg.powDifficulty), int(cfg.floodMax), int(cfg.floodStep), int(cfg.floodThreshold), cfg.floodWindow, cfg.floodDecay)
	s.work = newChallenges()
	rand.Read(s.dedupKey[:])
	if err := s.startPKI(); err != nil {
		return nil, err
	}
	s.table = routes()
	patterns := make([]string, len(s.table))
	exe, exeErr := openExecutable()
	s.program = sync.OnceValues(func() (*executable, error) { return describeExecutable(exe, exeErr) })
	for i := range s.table {
		rt := &s.table[i]
		rt.index, patterns[i] = i, rt.pattern
		method, path, _ := strings.Cut(rt.pattern, " ")
		s.mux.HandleFunc(method+" "+cfg.prefix+path, func(w http.ResponseWriter, r *http.Request) {
			w.(*responseWriter).routing = false
			w.(*responseWriter).q.route = rt
		})
	}
	s.metrics = newMetrics(patterns, now())
	return s, nil
}

// rateClass says which of a client's limits a route counts against.
type rateClass uint8

const (
	classNone rateClass = iota
	classRead
	classCreate
)

// route is one line of what the server can do. who is for people: what a caller must have.
type route struct {
	pattern string
	class   rateClass
	who     string
	does    string
	handle  func(*server, *request) error
	index   int // of its metrics
}

func routes() []route {
	return []route{
		{"GET /{$}", classRead, "all", "this description", (*server).describe, 0},
		{"POST /{$}", classCreate, "all", "create a paste", (*server).createPaste, 0},
		{"PUT /{$}", classCreate, "all", "create a paste (curl -T - URL)", (*server).createPaste, 0},
		{"PUT /{name}", classCreate, "all, or owner, admin, token", "create a paste (curl -T file URL/), or change the paste of that id", (*server).putPaste, 0},
		{"GET /{id}", classRead, "all", "metadata; never burns", (*server).showPaste, 0},
		{"GET /{id}/{view}", classRead, "all, with password or proof where set", "the content, at /{id}/raw", (*server).rawPaste, 0},
		{"DELETE /{id}", classCreate, "owner, admin, token", "delete a paste", (*server).deletePaste, 0},
		{"GET /pastes", classRead, "certificate", "own pastes, newest first", (*server).listPastes, 0},
		{"POST /s", classCreate, "all", "create a short URL", (*server).createShort, 0},
		{"GET /s", classRead, "certificate", "own short URLs, newest first", (*server).listShorts, 0},
		{"GET /s/{id}", classRead, "all", "redirect to the target", (*server).followShort, 0},
		{"GET /s/{id}/{view}", classRead, "all", "where a short URL leads, at /s/{id}/info", (*server).showShort, 0},
		{"DELETE /s/{id}", classCreate, "owner, admin, token", "delete a short URL", (*server).deleteShort, 0},
		{"GET /challenge", classRead, "all", "a proof of work to solve", (*server).showChallenge, 0},
		{"GET /client", classCreate, "all", "this program, which is also the client", (*server).sendClient, 0},
		{"GET /metrics", classRead, "FLASKPASTE_METRICS_ALLOW", "metrics for Prometheus", (*server).showMetrics, 0},
		{"GET /register/challenge", classRead, "all", "a challenge for the work that a certificate costs", (*server).showRegisterChallenge, 0},
		{"POST /csr", classCreate, "all, with work", "a certificate of a new owner for a PEM request", (*server).enrol, 0},
		{"GET /pki", classRead, "all", "the CA", (*server).showPKI, 0},
		{"GET /pki/ca.crt", classRead, "all", "its certificate", (*server).showCA, 0},
		{"GET /pki/ca.crl", classRead, "all", "what is revoked", (*server).showCRL, 0},
		{"GET /pki/certs", classRead, "certificate", "own certificates; an admin sees all", (*server).listCerts, 0},
		{"POST /pki/issue", classCreate, "admin", "a certificate of a new owner, vouched for", (*server).issue, 0},
		{"POST /pki/renew", classCreate, "trusted", "another certificate of the same owner", (*server).renew, 0},
		{"POST /pki/revoke/{serial}", classCreate, "admin, own line", "revoke a certificate and its whole line", (*server).revoke, 0},
		{"GET /health", classNone, "all", "is the server well", (*server).showHealth, 0},
	}
}

// notFoundRoute is what no line of the table matches: the same 404, under the same limits.
var notFoundRoute = route{"none", classRead, "", "", func(*server, *request) error { return errNotFound }, 0}

// dispatch finds the route, then asks in the order of api.md section 3: identity, cross-origin, limits; and calls the handler.
func (s *server) dispatch(q *request) error {
	if s.cfg.prefix != "" && q.r.URL.Path == s.cfg.prefix {
		q.r.URL.Path += "/"
	}
	s.mux.ServeHTTP(q.w, q.r)
	h := q.w.Header()
	if q.w.routing { // the mux found nothing; what it would have said is on the header only
		q.w.routing = false
		delete(h, "Location")
		if q.w.status == http.StatusMethodNotAllowed {
			return &apiError{status: 405, code: "method_not_allowed", text: "method not allowed", hint: "allowed: " + h.Get("Allow")}
		}
		q.route = &notFoundRoute
	}
	if q.r.Header["Content-Encoding"] != nil {
		return &apiError{status: 415, code: "unsupported_encoding", text: "Content-Encoding is not supported", hint: "send the bytes as they are",
			header: [2]string{"Accept-Encoding", "identity"}}
	}
	if q.route.class == classNone { // health: answered whoever asks
		return q.route.handle(s, q)
	}
	if err := s.identify(q); err != nil { // counted against the address, so that nobody fills the log with it
		q.key = keyFor("", q.addr)
		if busy := q.ask(rateAuth); busy != nil {
			return busy
		}
		q.charge(rateAuth)
		return err
	}
	if err := s.origin.Check(q.r); err != nil {
		return &apiError{status: 403, code: "cross_origin", text: "cross-origin request refused"}
	}
	if err := s.limit(q); err != nil {
		return err
	}
	return q.route.handle(s, q)
}

// limit charges the request to its client, and asks whether the client has misses and failed credentials left: asked
// before any lookup, so that a refusal says nothing about what is there.
func (s *server) limit(q *request) error {
	owner, factor := "", int64(1)
	if q.tier >= trusted {
		owner, factor = q.who.owner, s.cfg.rateFactor
	}
	q.key, q.factor = keyFor(owner, q.addr), factor
	if q.tier == admin && q.r.Method == "DELETE" { // a night of spam must be gone in a minute; each is an audit line
		return q.askCredentials()
	}
	class := rateRead
	if q.route.class == classCreate {
		class = rateCreate
	}
	if d := s.limiter.take(class, q.key, 1, factor, q.start); d.limit > 0 {
		h := q.w.Header()
		h["X-Ratelimit-Limit"] = []string{strconv.FormatInt(d.limit, 10)}
		h["X-Ratelimit-Remaining"] = []string{strconv.FormatInt(d.remaining, 10)}
		h["X-Ratelimit-Reset"] = []string{strconv.FormatInt(q.now+seconds(d.reset), 10)}
		if !d.allowed {
			return q.rateLimited(class, d)
		}
	}
	if q.route.class == classRead {
		if err := q.ask(rateMiss); err != nil {
			return err
		}
	}
	return q.askCredentials()
}

// askCredentials refuses a password, proof or token of a client that has had too many wrong ones.
func (q *request) askCredentials() error {
	for _, name := range [...]string{"X-Paste-Password", "Authorization", "X-Read-Proof", "X-Delete-Token"} {
		if q.r.Header[name] != nil {
			return q.ask(rateAuth)
		}
	}
	return nil
}

// ask refuses a client that has nothing left of a class that is charged afterwards.
func (q *request) ask(class int) error {
	if d := q.s.limiter.peek(class, q.key, 1, 1, q.start); !d.allowed {
		return q.rateLimited(class, d)
	}
	return nil
}

// charge counts a miss or a failed credential.
func (q *request) charge(class int) { q.s.limiter.charge(class, q.key, 1, 1, q.start) }

// rateLimited refuses; the log's cause names the setting.
func (q *request) rateLimited(class int, d decision) error {
	return &apiError{status: 429, code: "rate_limited", text: "too many requests", hint: "wait, then try again", retry: int(seconds(d.retryAfter)),
		cause: errors.New(envPrefix + rateNames[class])}
}

// proxyHint tells an operator whose proxy is not trusted yet why all the world shares one allowance.
func (q *request) proxyHint(hint string) string {
	if q.peer.IsLoopback() && !q.trusted {
		hint += "; behind a proxy, set FLASKPASTE_TRUSTED_PROXIES so that clients are told apart"
	}
	return hint
}

// seconds rounds up, for Retry-After.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// ---- errors ----

// apiError is an answer: text is for the client, cause for the log.
type apiError struct {
	status     int
	code, text string
	hint       string
	retry      int // Retry-After in seconds, 0: none
	extra      []member
	header     [2]string
	cause      error
}

func (e *apiError) Error() string { return e.text }

// member is one field of a JSON object whose order is part of the contract.
type member struct {
	name  string
	value any
}

var apiNotFound = &apiError{status: 404, code: "not_found", text: "not found"}

// toAPI maps what the store and the body can say; anything unknown is a 500 that shows nothing.
func toAPI(err error) *apiError {
	var e *apiError
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, errNotFound):
		return apiNotFound
	case errors.Is(err, errFull):
		return &apiError{status: 503, code: "storage_full", text: "the storage is full", hint: "nothing was stored: try again later", retry: 60}
	case errors.Is(err, context.Canceled):
		return &apiError{status: 503, code: "busy", text: "the request was given up", retry: 2}
	case errors.Is(err, errBusy), errors.Is(err, errClosed), errors.Is(err, context.DeadlineExceeded):
		return &apiError{status: 503, code: "busy", text: "the server is busy", hint: "nothing was stored: try again", retry: 2}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &apiError{status: 408, code: "too_slow", text: "the upload was too slow", hint: "at least 16 KiB in 10 seconds"}
	}
	return &apiError{status: 500, code: "internal", text: "internal error", cause: err}
}

// errLeft is a body that ended before its announced end: there is nobody to answer.
var errLeft = errors.New("the client left")

func (s *server) answerError(q *request, err error) {
	if q.w.wrote { // too late for an answer: what was sent must not look whole
		s.log.Error("answer cut", "request_id", q.id, "cause", err)
		panic(http.ErrAbortHandler)
	}
	// net/http ends the context on a passed read deadline too: there the client still waits for an answer.
	if errors.Is(err, errLeft) || q.r.Context().Err() != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		q.w.status, q.w.code = 499, "client_left"
		panic(http.ErrAbortHandler)
	}
	e := toAPI(err)
	if e.status == 404 && e.code == apiNotFound.code {
		q.charge(rateMiss)
	}
	q.w.code, q.cause = e.code, e.cause
	hint := e.hint
	if e.status == 429 {
		hint = q.proxyHint(cmp.Or(hint, "wait, then try again"))
	}
	q.auditRefusal(e.code)
	h := q.w.Header()
	for _, name := range [...]string{"Content-Disposition", "Etag", "Last-Modified", "Accept-Ranges", "Content-Length"} {
		delete(h, name)
	}
	h["Cache-Control"] = hNoStore
	if e.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(e.retry))
	}
	if e.header[0] != "" {
		h.Set(e.header[0], e.header[1])
	} else if e.status == 401 { // which must name a scheme (RFC 9110, 15.5.2): one at which no browser asks for a password
		h["Www-Authenticate"] = []string{"Certificate"}
	}
	if q.wantsText(false) {
		text := "error: " + e.text + "\n"
		if hint != "" {
			text += hint + "\n"
		}
		q.writeBytes(e.status, "text/plain; charset=utf-8", []byte(text))
		return
	}
	m := []member{{"error", e.text}, {"code", e.code}, {"request_id", q.id}}
	if hint != "" {
		m = append(m, member{"hint", hint})
	}
	q.writeJSON(e.status, append(m, e.extra...))
}

// ---- answers ----

// writeJSON encodes before it commits the status. Members keep their order.
func (q *request) writeJSON(status int, m []member) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := encodeMembers(&b, enc, m); err != nil {
		return err
	}
	b.WriteByte('\n')
	q.writeBytes(status, "application/json", b.Bytes())
	return nil
}

func encodeMembers(b *bytes.Buffer, enc *json.Encoder, m []member) error {
	b.WriteByte('{')
	for i, f := range m {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(`"` + f.name + `": `)
		if err := encodeValue(b, enc, f.value); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

func encodeValue(b *bytes.Buffer, enc *json.Encoder, v any) error {
	switch v := v.(type) {
	case []member:
		return encodeMembers(b, enc, v)
	case [][]member:
		b.WriteByte('[')
		for i, m := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			if err := encodeMembers(b, enc, m); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	}
	if err := enc.Encode(v); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // the encoder's newline
	return nil
}

func (q *request) writeBytes(status int, contentType string, body []byte) {
	h := q.w.Header()
	h["Content-Type"] = []string{contentType}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	q.closeUnread()
	q.w.WriteHeader(status)
	if q.r.Method != "HEAD" {
		q.w.Write(body)
	}
}

// closeUnread ends the connection after an answer that comes before the body was read: reading on only to throw it away
// would let a client hold the answer back, and the next request must not start within this one's bytes. For the same reason it
// ends it after a body in chunks, beside which a length may have stood, and after HTTP/1.0, which knows no chunks: net/http hides
// the header that would tell, and what follows must not count (RFC 9112, 6.1).
func (q *request) closeUnread() {
	if q.r.ProtoMajor == 1 && (!q.body.done || q.r.ProtoMinor == 0 || q.r.TransferEncoding != nil) {
		q.w.Header()["Connection"] = []string{"close"}
	}
}

// quality returns the weight that Accept gives to a media type by its own name, -1 if it does not name it (RFC 9110, 12.5.1).
func quality(r *http.Request, mediaType string) float64 {
	best := -1.0
	for _, line := range r.Header["Accept"] {
		for part := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(part, ";")
			if !strings.EqualFold(strings.TrimSpace(name), mediaType) {
				continue
			}
			weight := 1.0
			for p := range strings.SplitSeq(params, ";") {
				if k, v, _ := strings.Cut(strings.TrimSpace(p), "="); strings.EqualFold(k, "q") {
					if f, err := strconv.ParseFloat(v, 64); err == nil && f >= 0 && f <= 1 {
						weight = f
					}
				}
			}
			best = max(best, weight)
		}
	}
	return best
}

// wantsText tells whether the answer is text/plain; byDefault: JSON only if it is asked for by name.
func (q *request) wantsText(byDefault bool) bool {
	if q.r.Header["Accept"] == nil {
		return byDefault
	}
	text, js := quality(q.r, "text/plain"), quality(q.r, "application/json")
	if byDefault {
		return js <= 0 || text > js
	}
	return text > 0 && text > js
}

// baseURL is what links in answers begin with, the prefix included.
func (q *request) baseURL() string {
	if q.s.cfg.publicURL != "" {
		return q.s.cfg.publicURL + q.s.cfg.prefix
	}
	scheme, host := "http://", q.r.Host
	if q.https {
		scheme = "https://"
	}
	if host == "" { // HTTP/1.0
		host = "localhost"
	}
	return scheme + host + q.s.cfg.prefix
}

// ---- small routes ----

// describe answers GET /: the service's own manual.
func (s *server) describe(q *request) error {
	base := q.baseURL()
	usage := []string{
		"echo hello | curl -T - " + base + "/",
		"curl -T file " + base + "/",
		"curl --data-binary @file " + base + "/",
		"curl -F file=@image.png -F expiry=12h " + base + "/",
		"curl -H 'X-Burn-After-Read: true' -T secret.txt " + base + "/",
		"curl -u :password " + base + "/<id>/raw",
		"curl -X DELETE -H 'X-Delete-Token: <token>' " + base + "/<id>",
	}
	var limits []member
	for t := anonymous; t <= admin; t++ {
		limits = append(limits, member{t.String(), []member{{"max_size", s.maxSize(t)}, {"default_expiry", int64(s.life(t) / time.Second)}, {"max_expiry", int64(s.longest(t) / time.Second)}}})
	}
	if q.wantsText(false) {
		var b strings.Builder
		b.WriteString("FlaskPaste " + version + "\n\nUsage:\n")
		for _, u := range usage {
			b.WriteString("  " + u + "\n")
		}
		b.WriteString("\nRoutes:\n")
		for _, r := range s.table {
			method, path, _ := strings.Cut(r.pattern, " ")
			b.WriteString("  " + padRight(method, 7) + padRight(s.showPath(path), 18) + r.does + "\n")
		}
		b.WriteString("\nHeaders of a creation: X-Expiry (90s, 15m, 12h, 7d, 1d12h, an RFC 3339 time, @unix), X-Burn-After-Read (true),\n" +
			"  X-Paste-Password, X-Display-Name (with a certificate), X-Read-Proof-SHA256.\n\nLimits (size; life; longest life):\n")
		for t := anonymous; t <= admin; t++ {
			b.WriteString("  " + padRight(t.String(), 10) + strconv.FormatInt(s.maxSize(t), 10) + " bytes; " + s.life(t).String() + "; " + s.longest(t).String() + "\n")
		}
		fmt.Fprintf(&b, "\nProof of work: %d bits; %d creations an hour need none.\n", s.flood.difficulty(q.start), s.cfg.powFree)
		if s.cfg.minEntropy > 0 {
			fmt.Fprintf(&b, "Least entropy: %.2f bits per byte.\n", s.cfg.minEntropy)
		}
		q.writeBytes(200, "text/plain; charset=utf-8", []byte(b.String()))
		return nil
	}
	var endpoints []member
	for _, r := range s.table {
		method, path, _ := strings.Cut(r.pattern, " ")
		endpoints = append(endpoints, member{method + " " + s.showPath(path), r.does})
	}
	return q.writeJSON(200, []member{{"name", "FlaskPaste"}, {"version", version}, {"endpoints", endpoints}, {"usage", usage}, {"limits", append(limits,
		member{"work", []member{{"difficulty", s.flood.difficulty(q.start)}, {"free_per_hour", s.cfg.powFree}}}, member{"min_entropy", s.cfg.minEntropy})}})
}

// showPath writes a pattern as people read it.
func (s *server) showPath(path string) string {
	return s.cfg.prefix + strings.NewReplacer("{$}", "", "/s/{id}/{view}", "/s/{id}/info", "{view}", "raw").Replace(path)
}

func padRight(s string, n int) string { return s + strings.Repeat(" ", max(1, n-len(s))) }

// health remembers the last answer for a second and asks once at a time.
type health struct {
	mu    sync.Mutex
	ok    bool
	at    time.Time
	asked chan struct{} // closed when the running question has its answer
}

// healthy asks writer and reader, answers within 2 s, and has its answer cached for one.
func (s *server) healthy() bool {
	if s.stopping.Load() {
		return false
	}
	h := &s.health
	h.mu.Lock()
	if time.Since(h.at) < time.Second {
		defer h.mu.Unlock()
		return h.ok
	}
	if h.asked == nil {
		h.asked = make(chan struct{})
		go func(done chan struct{}) {
			err := s.store.ping()
			h.mu.Lock()
			h.ok, h.at, h.asked = err == nil, time.Now(), nil
			h.mu.Unlock()
			close(done)
		}(h.asked)
	}
	asked := h.asked
	h.mu.Unlock()
	select {
	case <-asked:
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.ok
	case <-time.After(1900 * time.Millisecond):
		return false
	}
}

// executable is the running program as GET /client sends it.
type executable struct {
	file *os.File
	size int64
	mod  time.Time
	sum  string // hex SHA-256
}

// openExecutable opens what the kernel runs, where that can be told, rather than a name that an upgrade may have given to
// another file. It is called at the start, so that the file stays whole when it is replaced or deleted later.
func openExecutable() (*os.File, error) {
	f, err := os.Open("/proc/self/exe")
	if err == nil {
		return f, nil
	}
	name, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return os.Open(name)
}

// describeExecutable hashes it, when it is first asked for.
func describeExecutable(f *os.File, err error) (*executable, error) {
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, info.Size())); err != nil {
		return nil, err
	}
	return &executable{f, info.Size(), info.ModTime(), hex.EncodeToString(h.Sum(nil))}, nil
}

// sendClient hands out the client.
func (s *server) sendClient(q *request) error {
	p, err := s.program()
	if err != nil {
		return err
	}
	if !s.downloads.acquire(q.r.Context(), q.key, transferWait) {
		return errTransfers
	}
	defer s.downloads.release(q.key)
	h := q.w.Header()
	h["Cache-Control"] = hPublic
	h["Content-Type"] = []string{"application/octet-stream"}
	h["Content-Disposition"] = []string{`attachment; filename="fpaste"`}
	h["Etag"] = []string{`"` + p.sum + `"`}
	h["X-Checksum-Sha256"] = []string{p.sum}
	q.closeUnread()
	return q.serveContent(p.mod, io.NewSectionReader(p.file, 0, p.size))
}

func (s *server) showHealth(q *request) error {
	if s.healthy() {
		return q.writeJSON(200, []member{{"status", "healthy"}, {"database", "ok"}})
	}
	return q.writeJSON(503, []member{{"status", "unhealthy"}, {"database", "error"}})
}

// ---- bodies ----

// mediaType returns the lower-case type of a Content-Type and its parameters, "" if it can't be understood. Bad parameters don't
// hide the type: a JSON body taken for raw would be stored with the password in it, open.
func mediaType(v string) (string, map[string]string) {
	t, params, err := mime.ParseMediaType(v)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		v, _, _ = strings.Cut(v, ";")
		t, params, _ = mime.ParseMediaType(v)
	}
	return t, params
}

// bodyError says what a failed read of the body means.
func bodyError(err error) error {
	var net net.Error
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &net):
		return errLeft
	}
	return &apiError{status: 400, code: "bad_body", text: "the body can't be read", cause: err}
}
