package main

// http.go owns the server: its parts, the route table, how a request gets to its handler and how an error becomes an
// answer.
//
// The table is the access policy: nothing is reachable that is not a line of it. Handlers return an error and write
// nothing after that; answerError is the one place that says no. A 404 is the same whatever the reason, and a 500 shows
// a fixed sentence while its cause goes to the log once. Limits are asked before anything that a stranger could learn
// from. (RFC 9110)

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"regexp"
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
	limiter   *limiter
	uploads   *slots
	downloads *slots
	lists     *slots
	kdf       *slots
	flood     *antiflood
	work      *challenges
	dedupKey  [32]byte // of this process: what is counted says nothing after it
	metrics   *metrics
	client    func() (*executable, error)
	ca        *authority // nil: none; without its key: PKI is off
	decoding  sync.Mutex // of large JSON bodies
	refusals  seldom
	warnings  seldom
	stopping  atomic.Bool
}

// newServer refuses to work without its parts.
func newServer(cfg *config, st *store, log *slog.Logger, now func() time.Time) (*server, error) {
	if cfg == nil || st == nil || log == nil || now == nil {
		return nil, errors.New("newServer needs config, store, log and now")
	}
	s := &server{cfg: cfg, store: st, log: log, now: now, mux: http.NewServeMux(), table: routes(),
		origin: http.NewCrossOriginProtection(), metrics: newMetrics(now()), client: ownExecutable()}
	s.startWork()
	if err := s.startPKI(); err != nil {
		return nil, err
	}
	for i := range s.table {
		method, path, _ := strings.Cut(s.table[i].pattern, " ")
		s.mux.HandleFunc(method+" "+cfg.prefix+path, func(w http.ResponseWriter, r *http.Request) {
			w.(*responseWriter).q.route = &s.table[i]
		})
	}
	return s, nil
}

// route is one line of what the server can do. class is the limit that it counts against; query is whether it has
// parameters; who is for people: what a caller must have.
type route struct {
	pattern string
	class   int
	query   bool
	who     string
	does    string
	handle  func(*server, *request) error
}

const unlimited = -1 // a class

func routes() []route {
	const read, create, holder = rateRead, rateCreate, "owner, admin, token"
	return []route{
		{"GET /{$}", read, true, "all", "this description", (*server).describe},
		{"POST /{$}", create, false, "all", "create a paste", (*server).createPaste},
		{"PUT /{$}", create, false, "all", "create a paste (curl -T - URL)", (*server).createPaste},
		{"PUT /{name}", create, false, "all; to change: " + holder, "create a paste (curl -T file URL/), or change the paste of that id", (*server).putPaste},
		{"GET /{id}", read, true, "all", "metadata; never burns", (*server).showPaste},
		{"GET /{id}/{view}", read, true, "all, with password or proof where set", "the content, at /{id}/raw", (*server).rawPaste},
		{"GET /{id}/{view}/{name}", read, true, "all, as /{id}/raw", "the content, for programs that name the file by the URL", (*server).rawPaste},
		{"DELETE /{id}", create, false, holder, "delete a paste", (*server).deletePaste},
		{"GET /pastes", read, true, "certificate", "own pastes, latest content first", (*server).listPastes},
		{"POST /s", create, false, "all", "create a short URL", (*server).createShort},
		{"GET /s", read, true, "certificate", "own short URLs, latest first", (*server).listShorts},
		{"GET /s/{id}", read, true, "all", "redirect to the target", (*server).followShort},
		{"GET /s/{id}/{view}", read, true, "all", "where a short URL leads, at /s/{id}/info", (*server).showShort},
		{"DELETE /s/{id}", create, false, holder, "delete a short URL", (*server).deleteShort},
		{"GET /challenge", read, true, "all", "a proof of work to solve", (*server).showChallenge},
		{"GET /client", create, true, "all", "this program, which is also the client", (*server).sendClient},
		{"GET /metrics", read, true, "FLASKPASTE_METRICS_ALLOW", "metrics for Prometheus", (*server).showMetrics},
		{"GET /register/challenge", read, true, "all", "a challenge for the work that a certificate costs", (*server).showRegisterChallenge},
		{"POST /csr", create, false, "all, with work", "a certificate of a new owner for a PEM request", (*server).enrol},
		{"GET /pki", read, true, "all", "the CA", (*server).showPKI},
		{"GET /pki/ca.crt", read, true, "all", "its certificate", (*server).showCA},
		{"GET /pki/ca.crl", read, true, "all", "what is revoked", (*server).showCRL},
		{"GET /pki/certs", read, true, "certificate", "own certificates; an admin sees all", (*server).listCerts},
		{"POST /pki/issue", create, true, "admin", "a certificate of a new owner, vouched for", (*server).issue},
		{"POST /pki/renew", create, false, "trusted", "another certificate of the same owner", (*server).renew},
		{"POST /pki/revoke/{serial}", create, true, "admin, own certificates", "revoke a certificate and all its renewals", (*server).revoke},
		{"GET /health", unlimited, true, "all", "is the server well", (*server).showHealth},
	}
}

// noRoute is what no line of the table matches: the same 404, under the same limits.
var noRoute = route{pattern: "none", class: rateRead}

// dispatch finds the route, then asks in this order: identity, limits, route, cross-origin, what the headers say of the
// body; and calls the handler.
func (s *server) dispatch(q *request) error {
	if s.cfg.prefix != "" && q.r.URL.Path == s.cfg.prefix {
		q.r.URL.Path += "/"
	}
	s.mux.ServeHTTP(&q.w, q.r)
	q.w.routing = false
	var unrouted error
	if q.route == &noRoute { // what the mux would have said is on the header only
		h := q.w.Header()
		delete(h, "Location")
		if unrouted = errNotFound; q.w.status == http.StatusMethodNotAllowed {
			unrouted = notAllowed(q.r.Method, h.Get("Allow"))
			if e := q.reserved(strings.TrimPrefix(q.r.URL.Path, s.cfg.prefix+"/")); e != nil { // PUT is for other names
				unrouted = e
			}
		}
	}
	if q.route.class == unlimited { // health: answered whoever asks
		return q.route.handle(s, q)
	}
	q.key = keyFor("", q.addr)
	who, err := s.shown(q)
	if err == nil {
		err = s.judge(q, who)
	}
	if err != nil { // counted against the address, so that nobody fills the log with it
		if busy := q.ask(rateAuth); busy != nil {
			return busy
		}
		q.charge(rateAuth)
		return err
	}
	err = cmp.Or(s.limit(q), unrouted)
	if err == nil && s.origin.Check(q.r) != nil {
		err = refuse(403, "cross_origin", "a page of another site may not do this", "")
	}
	if err == nil {
		err = q.checkBody()
	}
	if err != nil {
		return err
	}
	return q.route.handle(s, q)
}

// limit charges the request to its client, and asks whether the client has misses and failed credentials left: asked
// before any lookup, so that a refusal says nothing about what is there.
func (s *server) limit(q *request) error {
	owner := ""
	if q.factor = 1; q.tier >= trusted {
		owner, q.factor = q.who.owner, trustedFactor
	}
	q.key = keyFor(owner, q.addr)
	if q.tier != admin || q.r.Method != "DELETE" { // a night of spam must be gone in a minute; each is an audit line
		d := s.limiter.take(due{q.route.class, q.key, 1, q.factor}, q.start)
		if d.limit > 0 {
			h := q.w.Header()
			h["X-Ratelimit-Limit"] = []string{strconv.FormatInt(d.limit, 10)}
			h["X-Ratelimit-Remaining"] = []string{strconv.FormatInt(d.remaining, 10)}
			h["X-Ratelimit-Reset"] = []string{strconv.FormatInt(q.now+seconds(d.reset), 10)}
		}
		if !d.allowed {
			return q.rateLimited(q.route.class, d)
		}
	}
	if q.route.class == rateRead {
		if err := q.ask(rateMiss); err != nil {
			return err
		}
	}
	for _, name := range [...]string{"X-Paste-Password", "Authorization", "X-Read-Proof", "X-Delete-Token"} {
		if q.r.Header[name] != nil {
			return q.ask(rateAuth)
		}
	}
	return nil
}

// ask refuses a client that has nothing left of a class that is charged afterwards.
func (q *request) ask(class int) error {
	if d := q.s.limiter.ask(due{class, q.key, 1, 1}, q.start); !d.allowed {
		return q.rateLimited(class, d)
	}
	return nil
}

// charge counts a miss or a failed credential.
func (q *request) charge(class int) { q.s.limiter.charge(due{class, q.key, 1, 1}, q.start) }

// rateLimited refuses; the log's cause names the setting.
func (q *request) rateLimited(class int, d decision) error {
	wait := max(1, int(seconds(d.retryAfter)))
	e := refuse(429, "rate_limited", "too many "+rateWords[class][1],
		"wait "+timeWords(int64(wait))+", then try again"+q.proxyHint())
	e.cause = errors.New(envPrefix + rateWords[class][0])
	return e.after(wait)
}

// rateWords are the classes' settings, and what a client had too many of.
var rateWords = [...][2]string{
	{"RATE_CREATE", "creations and changes"},
	{"RATE_READ", "requests"},
	{"RATE_MISS", "requests for pastes that are not there"},
	{"RATE_AUTH", "passwords, proofs, tokens or certificates that were wrong"},
	{"RATE_REGISTER", "certificate requests"},
	{"RATE_BYTES", "bytes to store"},
}

// proxyHint tells an operator whose proxy is not trusted yet why all the world shares one allowance.
func (q *request) proxyHint() string {
	_, forwarded := q.r.Header[q.s.cfg.addressHeader]
	if forwarded && q.peer.IsLoopback() && len(q.s.cfg.trustedProxies) == 0 {
		return "; behind a proxy, set FLASKPASTE_TRUSTED_PROXIES so that clients are told apart"
	}
	return ""
}

// checkBody refuses a request whose body, or options, are not what they seem.
func (q *request) checkBody() error {
	h, n, query := q.r.Header, q.r.ContentLength, q.r.URL.RawQuery
	if v := h["Content-Encoding"]; len(v) > 1 || len(v) == 1 && !strings.EqualFold(v[0], "identity") {
		q.w.Header()["Accept-Encoding"] = []string{"identity"}
		return refuse(415, "unsupported_encoding", "Content-Encoding is not supported", "send the bytes as they are")
	}
	if q.r.Method == "GET" || q.r.Method == "HEAD" {
		return nil
	}
	if v := h["Content-Range"]; len(v) > 1 || len(v) == 1 && (n < 1 || v[0] != fmt.Sprintf("bytes 0-%d/%d", n-1, n)) {
		return refuse(400, "partial_content", "Content-Range says that this is a part, and only wholes are stored",
			"send all of it; with curl, without -C") // a tail must not be the whole (RFC 9110, 14.5)
	}
	if query == "" || q.route.query {
		return nil
	}
	name, _, _ := strings.Cut(query, "=")
	header := optionHeaders[name]
	if q.r.Method == "DELETE" || strings.HasSuffix(name, "token") {
		header = "X-Delete-Token"
	}
	hint := "options are headers: X-Expiry, X-Burn-After-Read, X-Paste-Password, X-Display-Name"
	if header != "" {
		hint = "send it as a header: curl -H '" + header + ": ...'"
	}
	return badOption("options in the address (behind the ?) are not taken here", hint)
}

// seconds rounds up, for Retry-After.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// ---- errors ----

// apiError is an answer: its JSON is for the client, cause for the log. Members without a value are left out.
type apiError struct {
	Text       string           `json:"error"`
	Code       string           `json:"code"`
	RequestID  string           `json:"request_id"`
	Hint       string           `json:"hint,omitempty"`
	Limit      int64            `json:"limit,omitempty"` // bytes
	Entropy    json.Number      `json:"entropy,omitempty"`
	MinEntropy json.Number      `json:"min_entropy,omitempty"`
	Count      int64            `json:"count,omitempty"`
	Window     int64            `json:"window_seconds,omitempty"`
	Challenge  *challengeAnswer `json:"challenge,omitempty"`

	status int
	retry  int // Retry-After in seconds, 0: none
	cause  error
}

func (e *apiError) Error() string { return e.Text }

// refuse makes an answer of the members that most have.
func refuse(status int, code, text, hint string) *apiError {
	return &apiError{status: status, Code: code, Text: text, Hint: hint}
}

// after is e with Retry-After.
func (e *apiError) after(seconds int) *apiError {
	e.retry = seconds
	return e
}

func badOption(text, hint string) error { return refuse(400, "bad_option", text, hint) }

var apiNotFound = refuse(404, "not_found", "not found", "")

// errLeft is a body that ended before its announced end: there is nobody to answer.
var errLeft = errors.New("the client left")

// toAPI maps what the store and the body can say; anything unknown is a 500 that shows nothing.
func toAPI(err error) *apiError {
	var e *apiError
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, errNotFound):
		return apiNotFound
	case errors.Is(err, errFull):
		e = refuse(503, "storage_full", "the storage is full", "nothing was stored: try again later")
		e.cause = err
		return e.after(60)
	case errors.Is(err, errBusy), errors.Is(err, errClosed), errors.Is(err, errCorrupt),
		errors.Is(err, context.Canceled):
		return refuse(503, "busy", "the server is busy", "nothing was stored: try again").after(2)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, errGone): // or the clock says so
		return refuse(408, "too_slow", "the upload took too long",
			"something must come every minute, and all of it in time; when many upload at once, 16 KiB in 10 seconds")
	}
	return &apiError{status: 500, Code: "internal", Text: "internal error", cause: err}
}

// answerError is the answer to an error, or ends the connection where none is possible.
func (s *server) answerError(q *request, err error) {
	if q.w.wrote { // what was sent must not look whole
		s.log.Error("answer cut", "request_id", q.id, "cause", err)
		panic(http.ErrAbortHandler)
	}
	if errors.Is(err, errLeft) || q.r.Context().Err() != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		q.w.status, q.w.code = 499, "client_left"
		panic(http.ErrAbortHandler)
	}
	e := *toAPI(err)
	if e.Code == apiNotFound.Code {
		q.charge(rateMiss)
	}
	q.w.code, q.cause, e.RequestID = e.Code, e.cause, q.id
	q.auditRefusal(e.Code)
	h := q.w.Header()
	for _, name := range [...]string{"Content-Disposition", "Etag", "Last-Modified", "Accept-Ranges", "Sunset"} {
		delete(h, name)
	}
	h["Cache-Control"] = hNoStore
	if e.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(e.retry))
	}
	if e.status == 401 && h["Www-Authenticate"] == nil { // RFC 9110, 15.5.2; no browser asks for a password at this
		h["Www-Authenticate"] = []string{"Certificate"}
	}
	if q.wantsText(false) {
		q.writeText(e.status, strings.TrimSpace("error: "+e.Text+"\n"+e.Hint)+"\n")
		return
	}
	q.writeJSON(e.status, e)
}

// ---- answers ----

// writeJSON encodes before it commits the status.
func (q *request) writeJSON(status int, v any) error { return q.writeIndented(status, v, "") }

func (q *request) writeIndented(status int, v any, indent string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return err
	}
	q.writeBytes(status, "application/json", b.Bytes())
	return nil
}

func (q *request) writeText(status int, text string) error {
	q.writeBytes(status, "text/plain; charset=utf-8", []byte(text))
	return nil
}

func (q *request) writeBytes(status int, contentType string, body []byte) {
	h := q.w.Header()
	h["Content-Type"] = []string{contentType}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	q.w.WriteHeader(status)
	if q.r.Method != "HEAD" {
		q.w.Write(body)
	}
	q.readOut()
}

const (
	readOutMost = 64 << 20 // bytes: more than one may upload by default
	readOutTime = 5*time.Second - stepTime
)

// readOut reads on behind an answer that came early, for a while: who does not read while they send (Python, wget)
// would see a reset instead of it.
func (q *request) readOut() {
	if q.bodyDone || q.r.Header["Expect"] != nil { // who asks first has not sent anything
		return
	}
	http.NewResponseController(q.w.ResponseWriter).Flush()
	q.conn.expect(true, readOutTime)
	io.CopyN(io.Discard, q, readOutMost)
}

// accepts returns the weight that Accept gives to a media type by its own name (RFC 9110, 12.5.1).
func (q *request) accepts(mediaType string) (weight float64) {
	for part := range strings.SplitSeq(strings.Join(q.r.Header["Accept"], ","), ",") {
		name, params, err := mime.ParseMediaType(part)
		w, bad := strconv.ParseFloat(cmp.Or(params["q"], "1"), 64)
		if name == mediaType && err == nil && bad == nil && w <= 1 {
			weight = max(weight, w)
		}
	}
	return weight
}

// wantsText tells whether the answer is text/plain; byDefault: JSON only if it is asked for by name.
func (q *request) wantsText(byDefault bool) bool {
	text, js := q.accepts("text/plain"), q.accepts("application/json")
	return text > 0 && text >= js || byDefault && js == 0
}

// wantsPage is wantsText for what people open in a browser.
func (q *request) wantsPage() bool { return q.wantsText(false) || q.accepts("text/html") > 0 }

// baseURL is what links in answers begin with, the prefix included.
func (q *request) baseURL() string {
	if q.s.cfg.publicURL != "" {
		return q.s.cfg.publicURL + q.s.cfg.prefix
	}
	scheme := "http://"
	if q.https {
		scheme = "https://"
	}
	return scheme + cmp.Or(q.r.Host, "localhost") + q.s.cfg.prefix // HTTP/1.0 may have no Host
}

// sizeWords and timeWords write bytes and seconds as people do.
func sizeWords(n int64) string {
	for i, unit := range []string{"GiB", "MiB", "KiB"} {
		if size := int64(1) << (30 - 10*i); n >= size {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/float64(size)), ".0") + " " + unit
		}
	}
	if n == 1 {
		return "1 byte"
	}
	return fmt.Sprint(n, " bytes")
}

func timeWords(n int64) string {
	for i, size := range []int64{86400, 3600, 60, 1} {
		unit := [...]string{"day", "hour", "minute", "second"}[i]
		if n == size {
			return "1 " + unit
		} else if n >= 2*size || size == 1 {
			return fmt.Sprint(n/size, " ", unit, "s")
		}
	}
	return ""
}

// ---- small routes ----

type tierLimits struct {
	MaxSize       int64 `json:"max_size"`
	DefaultExpiry int64 `json:"default_expiry"`
	MaxExpiry     int64 `json:"max_expiry"`
}

// ofPKI are the routes that do nothing without a CA, ofEnrolment those that strangers may be kept from.
var (
	ofPKI       = regexp.MustCompile(` /pki`)
	ofEnrolment = regexp.MustCompile(` /(csr|register)`)
)

// describe answers GET /: the service's own manual.
func (s *server) describe(q *request) error {
	base, bits := q.baseURL(), s.flood.difficulty(q.start)
	var m struct {
		Name    string         `json:"name"`
		Version string         `json:"version"`
		Usage   []string       `json:"usage"`
		Limits  map[string]any `json:"limits"`
		You     struct {
			Tier  string `json:"tier"`
			Owner string `json:"owner,omitempty"`
		} `json:"you"`
		Endpoints map[string]string `json:"endpoints"`
	}
	m.Name, m.Version, m.Endpoints = "FlaskPaste", version, map[string]string{}
	m.You.Tier, m.You.Owner = q.tier.String(), q.who.owner
	m.Usage = []string{
		"echo hello | curl -T - " + base + "/",
		"curl -T file.txt " + base + "/",
		"curl -F file=@image.png -F expiry=12h " + base + "/",
		"curl -H 'X-Burn-After-Read: true' -T secret.txt " + base + "/",
		"curl -H 'X-Paste-Password: word' -T secret.txt " + base + "/",
		"curl -u :word " + base + "/<id>/raw",
		"curl -X DELETE -H 'X-Delete-Token: <token>' " + base + "/<id>",
	}
	m.Limits = map[string]any{"min_entropy": s.cfg.minEntropy,
		"work": map[string]int64{"difficulty": int64(bits), "free_per_hour": s.cfg.powFree}}
	text := fmt.Sprintf("FlaskPaste %s: pastes and short URLs that end by themselves\n\nTry:\n  %s\n\n"+
		"How much, how long (you are %s):\n", version, strings.Join(m.Usage, "\n  "), q.tier)
	for t := anonymous; t <= admin; t++ {
		l := tierLimits{s.maxSize(t), int64(s.life(t) / time.Second), int64(s.longest(t) / time.Second)}
		m.Limits[t.String()] = l
		text += fmt.Sprintf("  %-10s %s, kept %s from the last read; %s if you ask (X-Expiry)\n", t,
			sizeWords(l.MaxSize), timeWords(l.DefaultExpiry), timeWords(l.MaxExpiry))
	}
	if bits > 0 {
		text += fmt.Sprintf("\n%d creations an hour need no proof of work; then fpaste, the client at %s/client, does "+
			"it by itself.\n", s.cfg.powFree, base)
	}
	text += "\nAddresses:\n"
	known := strings.NewReplacer("{$}", "", "/s/{id}/{view}", "/s/{id}/info", "{view}", "raw")
	for _, r := range s.table {
		method, path, _ := strings.Cut(r.pattern, " ")
		path = s.cfg.prefix + known.Replace(path)
		m.Endpoints[method+" "+path] = r.does
		on := s.issues() || !ofPKI.MatchString(r.pattern)
		if ofEnrolment.MatchString(r.pattern) {
			on = s.mayEnrol() == nil
		} else if strings.HasSuffix(r.pattern, "/metrics") {
			on = s.cfg.metricsAny || len(s.cfg.metricsAllow) > 0
		}
		if on {
			text += fmt.Sprintf("  %-6s %-24s %s\n", method, path, r.does)
		}
	}
	if q.wantsPage() {
		return q.writeText(200, text)
	}
	return q.writeIndented(200, m, "  ")
}

// executable is the running program as GET /client sends it.
type executable struct {
	io.ReaderAt
	size int64
	sum  string // hex SHA-256
}

// ownExecutable opens what the kernel runs, where that can be told, rather than a name that an upgrade may have given
// to another file; at the start, so that it stays whole when it is replaced or deleted later. It is hashed when it is
// first asked for.
func ownExecutable() func() (*executable, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		name, _ := os.Executable()
		f, err = os.Open(name)
	}
	return sync.OnceValues(func() (*executable, error) {
		if err != nil {
			return nil, err
		}
		h := sha256.New()
		size, err := io.Copy(h, f)
		return &executable{f, size, hex.EncodeToString(h.Sum(nil))}, err
	})
}

// sendClient hands out the client.
func (s *server) sendClient(q *request) error {
	p, err := s.client()
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
	return q.serveContent(time.Time{}, io.NewSectionReader(p, 0, p.size))
}

func (s *server) showHealth(q *request) error {
	if s.store.healthy() && !s.stopping.Load() {
		return q.writeJSON(200, json.RawMessage(`{"status":"healthy","database":"ok"}`))
	}
	return q.writeJSON(503, json.RawMessage(`{"status":"unhealthy","database":"error"}`))
}

// showMetrics lets the addresses of FLASKPASTE_METRICS_ALLOW pass. A proxy that says nothing of its client never does:
// its own address must not stand in for a stranger's.
func (s *server) showMetrics(q *request) error {
	named := q.named || !q.trusted || !q.peer.IsValid()
	if !named || !s.cfg.metricsAny && !containsAddr(s.cfg.metricsAllow, q.addr) {
		return errNotFound
	}
	st, err := s.store.stats()
	if err != nil {
		return err
	}
	e := new(exposition)
	e.Grow(128 << 10) // what a busy server's text comes to
	s.metrics.write(e)
	gauge := func(name string, v int64, help string) { e.one("flaskpaste_"+name, "gauge", help, float64(v)) }
	gauge("writer_queue_length", int64(st.queue), "Operations waiting for the writer.")
	gauge("cache_bytes", st.cacheBytes, "Memory of the cache.")
	gauge("stored_pastes", st.pastes, "Pastes and short URLs in the database.")
	gauge("stored_bytes", st.used, "Bytes of used pages in the database: what FLASKPASTE_MAX_STORAGE limits.")
	gauge("storage_limit_bytes", s.cfg.maxStorage, "FLASKPASTE_MAX_STORAGE.")
	gauge("disk_free_bytes", st.free, "Free bytes of the database's file system.")
	gauge("oldest_expired_seconds", max(0, q.now-st.firstEnd),
		"How long ago the oldest paste or short URL that is still on disk expired; 0: none has.")
	gauge("pow_difficulty", int64(s.flood.difficulty(q.start)), "Bits that a creation needs now; 0: none.")
	gauge("limiter_entries", int64(s.limiter.size()), "Limits remembered.")
	gauge("uploads", int64(s.uploads.inUse()), "Uploads under way.")
	gauge("downloads", int64(s.downloads.inUse()), "Downloads under way.")
	e.family("flaskpaste_cache_requests_total", "counter", "Lookups in the cache of often-read pastes.")
	e.sample("flaskpaste_cache_requests_total", float64(st.hits), `result="hit"`)
	e.sample("flaskpaste_cache_requests_total", float64(st.misses), `result="miss"`)
	if s.ca != nil {
		gauge("ca_expiry_timestamp_seconds", s.ca.cert.NotAfter.Unix(),
			"Unix time at which the CA of client certificates ends.")
	}
	q.writeBytes(200, "text/plain; version=0.0.4; charset=utf-8", e.Bytes())
	return nil
}
