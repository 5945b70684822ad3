package main

// http.go owns the server: its parts, the route table, how a request gets to its handler and how an error becomes an answer.
//
// The table is the access policy: nothing is reachable that is not a line of it. Handlers return an error and write nothing
// after that; answerError is the one place that says no. A 404 is the same whatever the reason, and a 500 shows a fixed
// sentence while its cause goes to the log once. Limits are asked before anything that a stranger could learn from. (RFC 9110)

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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const version = "2.0.0"

type server struct {
	cfg           *config
	store         *store
	log           *slog.Logger
	now           func() time.Time
	mux           *http.ServeMux
	table         []route
	origin        *http.CrossOriginProtection
	limiter       *limiter
	uploads       *slots
	downloads     *slots
	lists         *slots
	kdf           *slots
	flood         *antiflood
	work          *challenges
	dedupKey      [32]byte // of this process: what is counted says nothing after it
	metrics       *metrics
	program       func() (*executable, error)
	ca            *authority // nil: none; without its key: PKI is off
	decoding      sync.Mutex // of large JSON bodies
	refusals      refusals
	proxyWarnings hourly
	stopping      atomic.Bool
}

// newServer refuses to work without its parts.
func newServer(cfg *config, st *store, log *slog.Logger, now func() time.Time) (*server, error) {
	if cfg == nil || st == nil || log == nil || now == nil {
		return nil, errors.New("newServer needs config, store, log and now")
	}
	s := &server{cfg: cfg, store: st, log: log, now: now, mux: http.NewServeMux(), origin: http.NewCrossOriginProtection(),
		metrics: newMetrics(now())}
	s.startWork()
	if err := s.startPKI(); err != nil {
		return nil, err
	}
	s.table = routes()
	exe, exeErr := openExecutable()
	s.program = sync.OnceValues(func() (*executable, error) { return describeExecutable(exe, exeErr) })
	for i := range s.table {
		rt := &s.table[i]
		rt.index = s.metrics.addRoute(rt.pattern)
		method, path, _ := strings.Cut(rt.pattern, " ")
		s.mux.HandleFunc(method+" "+cfg.prefix+path, func(w http.ResponseWriter, r *http.Request) {
			w.(*responseWriter).routing = false
			w.(*responseWriter).q.route = rt
		})
	}
	s.metrics.addRoute(noRoute.pattern)
	return s, nil
}

// rateClass says which of a client's limits a route counts against.
type rateClass uint8

const (
	classNone rateClass = iota
	classRead
	classCreate
)

// route is one line of what the server can do. who is for people: what a caller must have. query is whether it has parameters.
type route struct {
	pattern string
	class   rateClass
	query   bool
	who     string
	does    string
	handle  func(*server, *request) error
	index   int // of its metrics
}

func routes() []route {
	const holder = "owner, admin, token"
	return []route{
		{"GET /{$}", classRead, true, "all", "this description", (*server).describe, 0},
		{"POST /{$}", classCreate, false, "all", "create a paste", (*server).createPaste, 0},
		{"PUT /{$}", classCreate, false, "all", "create a paste (curl -T - URL)", (*server).createPaste, 0},
		{"PUT /{name}", classCreate, false, "all; to change: " + holder, "create a paste (curl -T file URL/), or change the paste of that id",
			(*server).putPaste, 0},
		{"GET /{id}", classRead, true, "all", "metadata; never burns", (*server).showPaste, 0},
		{"GET /{id}/{view}", classRead, true, "all, with password or proof where set", "the content, at /{id}/raw", (*server).rawPaste, 0},
		{"GET /{id}/{view}/{name}", classRead, true, "all, as /{id}/raw", "the content, for programs that name the file by the URL",
			(*server).rawPaste, 0},
		{"DELETE /{id}", classCreate, false, holder, "delete a paste", (*server).deletePaste, 0},
		{"GET /pastes", classRead, true, "certificate", "own pastes, latest content first", (*server).listPastes, 0},
		{"POST /s", classCreate, false, "all", "create a short URL", (*server).createShort, 0},
		{"GET /s", classRead, true, "certificate", "own short URLs, latest first", (*server).listShorts, 0},
		{"GET /s/{id}", classRead, true, "all", "redirect to the target", (*server).followShort, 0},
		{"GET /s/{id}/{view}", classRead, true, "all", "where a short URL leads, at /s/{id}/info", (*server).showShort, 0},
		{"DELETE /s/{id}", classCreate, false, holder, "delete a short URL", (*server).deleteShort, 0},
		{"GET /challenge", classRead, true, "all", "a proof of work to solve", (*server).showChallenge, 0},
		{"GET /client", classCreate, true, "all", "this program, which is also the client", (*server).sendClient, 0},
		{"GET /metrics", classRead, true, "FLASKPASTE_METRICS_ALLOW", "metrics for Prometheus", (*server).showMetrics, 0},
		{"GET /register/challenge", classRead, true, "all", "a challenge for the work that a certificate costs",
			(*server).showRegisterChallenge, 0},
		{"POST /csr", classCreate, false, "all, with work", "a certificate of a new owner for a PEM request", (*server).enrol, 0},
		{"GET /pki", classRead, true, "all", "the CA", (*server).showPKI, 0},
		{"GET /pki/ca.crt", classRead, true, "all", "its certificate", (*server).showCA, 0},
		{"GET /pki/ca.crl", classRead, true, "all", "what is revoked", (*server).showCRL, 0},
		{"GET /pki/certs", classRead, true, "certificate", "own certificates; an admin sees all", (*server).listCerts, 0},
		{"POST /pki/issue", classCreate, true, "admin", "a certificate of a new owner, vouched for", (*server).issue, 0},
		{"POST /pki/renew", classCreate, false, "trusted", "another certificate of the same owner", (*server).renew, 0},
		{"POST /pki/revoke/{serial}", classCreate, true, "admin, own certificates", "revoke a certificate and all its renewals",
			(*server).revoke, 0},
		{"GET /health", classNone, true, "all", "is the server well", (*server).showHealth, 0},
	}
}

// noRoute is what no line of the table matches: the same 404, under the same limits.
var noRoute = route{"none", classRead, true, "", "", func(*server, *request) error { return errNotFound }, 0}

// dispatch finds the route, then asks in this order: identity, cross-origin, limits, route, what the headers say of the body; and
// calls the handler.
func (s *server) dispatch(q *request) error {
	if s.cfg.prefix != "" && q.r.URL.Path == s.cfg.prefix {
		q.r.URL.Path += "/"
	}
	s.mux.ServeHTTP(q.w, q.r)
	h, unrouted := q.w.Header(), error(nil)
	if q.w.routing { // the mux found nothing; what it would have said is on the header only
		q.w.routing = false
		delete(h, "Location")
		if q.route, unrouted = &noRoute, errNotFound; q.w.status == http.StatusMethodNotAllowed {
			unrouted = refuse(405, "method_not_allowed", fmt.Sprintf("this address does not take %.20s", q.r.Method),
				"it takes "+h.Get("Allow"))
		}
	}
	if q.route.class == classNone { // health: answered whoever asks
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
	if err := s.origin.Check(q.r); err != nil {
		return refuse(403, "cross_origin", "a page of another site may not do this", "")
	}
	if err := cmp.Or(s.limit(q), unrouted, q.checkBody()); err != nil {
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
	class := rateRead
	if q.route.class == classCreate {
		class = rateCreate
	}
	if q.tier == admin && q.r.Method == "DELETE" { // a night of spam must be gone in a minute; each is an audit line
		return q.askCredentials()
	}
	if d := s.limiter.take(due{class, q.key, 1, q.factor}, q.start); d.limit > 0 {
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
	e := refuse(429, "rate_limited", "too many "+rateWords[class],
		"wait "+timeWords(int64(wait))+", then try again"+q.proxyHint())
	e.cause = errors.New(envPrefix + rateNames[class])
	return e.after(wait)
}

// rateWords are what a client had too many of.
var rateWords = [...]string{"creations and changes", "requests", "requests for pastes that are not there",
	"passwords, proofs, tokens or certificates that were wrong", "certificate requests", "bytes to store"}

// rateNames are the settings of the classes, for the log.
var rateNames = [...]string{"RATE_CREATE", "RATE_READ", "RATE_MISS", "RATE_AUTH", "RATE_REGISTER", "RATE_BYTES"}

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
	h := q.r.Header
	if v := h["Content-Encoding"]; len(v) > 0 && (len(v) > 1 || !strings.EqualFold(v[0], "identity")) {
		return &apiError{status: 415, Code: "unsupported_encoding", Text: "Content-Encoding is not supported",
			Hint: "send the bytes as they are", header: [2]string{"Accept-Encoding", "identity"}}
	}
	if q.r.Method == "GET" || q.r.Method == "HEAD" {
		return nil
	}
	n := q.r.ContentLength
	whole := fmt.Sprintf("bytes 0-%d/%d", n-1, n)
	if v := h["Content-Range"]; len(v) > 0 && (len(v) > 1 || n < 1 || v[0] != whole) { // RFC 9110, 14.5: a tail must not be the whole
		return refuse(400, "partial_content", "Content-Range says that this is a part, and only wholes are stored",
			"send all of it; with curl, without -C")
	}
	if q.r.URL.RawQuery == "" || q.route.query {
		return nil
	}
	name, _, _ := strings.Cut(q.r.URL.RawQuery, "=")
	header, hint := optionHeaders[name], "options are headers: X-Expiry, X-Burn-After-Read, X-Paste-Password, X-Display-Name"
	if q.r.Method == "DELETE" || strings.HasSuffix(name, "token") {
		header = "X-Delete-Token"
	}
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
	header [2]string
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
		e = refuse(503, "storage_full", "the storage is full", "nothing was stored: try again later").after(60)
		e.cause = err
		return e
	case errors.Is(err, errBusy), errors.Is(err, errClosed), errors.Is(err, errCorrupt), errors.Is(err, context.Canceled):
		return refuse(503, "busy", "the server is busy", "nothing was stored: try again").after(2)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, errGone): // or the clock says so
		return refuse(408, "too_slow", "the upload took too long",
			"something must come every minute, and all of it in time; when many upload at once, 16 KiB in 10 seconds")
	}
	return &apiError{status: 500, Code: "internal", Text: "internal error", cause: err}
}

func (s *server) answerError(q *request, err error) {
	if q.w.wrote { // too late for an answer: what was sent must not look whole
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
	for _, name := range [...]string{"Content-Disposition", "Etag", "Last-Modified", "Accept-Ranges", "Content-Length", "Sunset"} {
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
	if !q.wantsText(false) {
		q.writeJSON(e.status, e)
		return
	}
	text := "error: " + e.Text + "\n"
	if e.Hint != "" {
		text += e.Hint + "\n"
	}
	q.writeText(e.status, text)
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
	q.closeUnread()
	q.w.WriteHeader(status)
	if q.r.Method != "HEAD" {
		q.w.Write(body)
	}
	q.readOut()
}

// closeUnread ends the connection after an answer that comes before the body was read: the next request must not start within this
// one's bytes. For the same reason it ends it after a body in chunks, beside which a length may have stood, and after HTTP/1.0,
// which knows no chunks: net/http hides the header that would tell, and what follows must not count (RFC 9112, 6.1).
func (q *request) closeUnread() {
	if !q.bodyDone || q.r.ProtoMinor == 0 || q.r.TransferEncoding != nil {
		q.w.Header()["Connection"] = []string{"close"}
	}
}

const (
	readOutMost = 64 << 20 // bytes: more than one may upload by default
	readOutTime = 5 * time.Second
)

// readOut reads on behind an answer that came early, for a while: who does not read while they send (Python, wget) would see a reset
// instead of it.
func (q *request) readOut() {
	if q.bodyDone || q.r.Header["Expect"] != nil { // who asks first has not sent anything
		return
	}
	http.NewResponseController(q.w.ResponseWriter).Flush()
	q.conn.endBody(readOutTime)
	io.CopyN(io.Discard, q, readOutMost)
}

// weight returns the weight that Accept gives to a media type by its own name, -1 if it does not name it (RFC 9110, 12.5.1).
func weight(r *http.Request, mediaType string) float64 {
	best := -1.0
	for part := range strings.SplitSeq(strings.Join(r.Header["Accept"], ","), ",") {
		name, params, err := mime.ParseMediaType(part)
		if err != nil || name != mediaType {
			continue
		}
		q, err := strconv.ParseFloat(cmp.Or(params["q"], "1"), 64)
		if err == nil && q >= 0 && q <= 1 {
			best = max(best, q)
		}
	}
	return best
}

// wantsText tells whether the answer is text/plain; byDefault: JSON only if it is asked for by name.
func (q *request) wantsText(byDefault bool) bool {
	if q.r.Header["Accept"] == nil {
		return byDefault
	}
	text, js := weight(q.r, "text/plain"), weight(q.r, "application/json")
	return text > 0 && text >= js || byDefault && js <= 0
}

// wantsPage is wantsText for what people open in a browser.
func (q *request) wantsPage() bool { return q.wantsText(false) || weight(q.r, "text/html") > 0 }

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
			return strings.TrimSuffix(strconv.FormatFloat(float64(n)/float64(size), 'f', 1, 64), ".0") + " " + unit
		}
	}
	return strconv.FormatInt(n, 10) + " bytes"
}

func timeWords(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"day", 86400}, {"hour", 3600}, {"minute", 60}, {"second", 1}} {
		if count := n / u.size; count >= 2 || count == 1 && (n%u.size == 0 || u.size == 1) {
			return strconv.FormatInt(count, 10) + " " + u.name + strings.Repeat("s", int(min(1, count-1)))
		}
	}
	return "0 seconds"
}

// ---- small routes ----

type tierLimits struct {
	MaxSize       int64 `json:"max_size"`
	DefaultExpiry int64 `json:"default_expiry"`
	MaxExpiry     int64 `json:"max_expiry"`
}

// describe answers GET /: the service's own manual.
func (s *server) describe(q *request) error {
	base, bits := q.baseURL(), s.flood.difficulty(q.start)
	usage := []string{
		"echo hello | curl -T - " + base + "/",
		"curl -T file.txt " + base + "/",
		"curl -F file=@image.png -F expiry=12h " + base + "/",
		"curl -H 'X-Burn-After-Read: true' -T secret.txt " + base + "/",
		"curl -H 'X-Paste-Password: word' -T secret.txt " + base + "/",
		"curl -u :word " + base + "/<id>/raw",
		"curl -X DELETE -H 'X-Delete-Token: <token>' " + base + "/<id>",
	}
	limits, lines := map[string]any{"min_entropy": s.cfg.minEntropy, "work": map[string]int64{
		"difficulty": int64(bits), "free_per_hour": s.cfg.powFree}}, ""
	for t := anonymous; t <= admin; t++ {
		size, life, longest := s.maxSize(t), int64(s.life(t)/time.Second), int64(s.longest(t)/time.Second)
		limits[t.String()] = tierLimits{size, life, longest}
		lines += fmt.Sprintf("  %-10s %s, kept %s from the last read; %s if you ask (X-Expiry)\n", t, sizeWords(size), timeWords(life),
			timeWords(longest))
	}
	endpoints, table := map[string]string{}, ""
	for _, r := range s.table {
		method, path, _ := strings.Cut(r.pattern, " ")
		path = s.cfg.prefix + strings.NewReplacer("{$}", "", "/s/{id}/{view}", "/s/{id}/info", "{view}", "raw").Replace(path)
		endpoints[method+" "+path] = r.does
		if !strings.Contains(path, "/pki") && !strings.Contains(path, "/csr") && !strings.Contains(path, "/register") || s.issues() {
			table += fmt.Sprintf("  %-6s %-24s %s\n", method, path, r.does)
		}
	}
	if !q.wantsPage() {
		you := map[string]string{"tier": q.tier.String()}
		if q.who.owner != "" {
			you["owner"] = q.who.owner
		}
		return q.writeIndented(200, struct {
			Name      string            `json:"name"`
			Version   string            `json:"version"`
			Usage     []string          `json:"usage"`
			Limits    map[string]any    `json:"limits"`
			You       map[string]string `json:"you"`
			Endpoints map[string]string `json:"endpoints"`
		}{"FlaskPaste", version, usage, limits, you, endpoints}, "  ")
	}
	text := "FlaskPaste " + version + ": pastes and short URLs that end by themselves\n\nTry:\n  " + strings.Join(usage, "\n  ") +
		"\n\nHow much, how long (you are " + q.tier.String() + "):\n" + lines
	if bits > 0 {
		text += fmt.Sprintf("\n%d creations an hour need no proof of work; then fpaste, the client at %s/client, does it by itself.\n",
			s.cfg.powFree, base)
	}
	return q.writeText(200, text+"\nAddresses:\n"+table)
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
	if f, err := os.Open("/proc/self/exe"); err == nil {
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
	return q.serveContent(p.mod, io.NewSectionReader(p.file, 0, p.size))
}

func (s *server) showHealth(q *request) error {
	type answer struct {
		Status   string `json:"status"`
		Database string `json:"database"`
	}
	if s.store.healthy() && !s.stopping.Load() {
		return q.writeJSON(200, answer{"healthy", "ok"})
	}
	return q.writeJSON(503, answer{"unhealthy", "error"})
}

// showMetrics lets the addresses of FLASKPASTE_METRICS_ALLOW pass. A proxy that says nothing of its client never does: its own
// address must not stand in for a stranger's.
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
	for _, g := range []struct {
		name, help string
		v          float64
	}{
		{"flaskpaste_writer_queue_length", "Operations waiting for the writer.", float64(st.queue)},
		{"flaskpaste_cache_bytes", "Memory of the cache.", float64(st.cacheBytes)},
		{"flaskpaste_stored_pastes", "Pastes and short URLs in the database.", float64(st.pastes)},
		{"flaskpaste_stored_bytes", "Bytes of used pages in the database: what FLASKPASTE_MAX_STORAGE limits.", float64(st.used)},
		{"flaskpaste_storage_limit_bytes", "FLASKPASTE_MAX_STORAGE.", float64(s.cfg.maxStorage)},
		{"flaskpaste_disk_free_bytes", "Free bytes of the database's file system.", float64(st.free)},
		{"flaskpaste_oldest_expired_seconds", "How long ago the oldest paste or short URL that is still on disk expired; 0: none has.",
			float64(max(0, q.now-st.firstEnd))},
		{"flaskpaste_pow_difficulty", "Bits that a creation needs now; 0: none.", float64(s.flood.difficulty(q.start))},
		{"flaskpaste_limiter_entries", "Limits remembered.", float64(s.limiter.size())},
		{"flaskpaste_uploads", "Uploads under way.", float64(s.uploads.inUse())},
		{"flaskpaste_downloads", "Downloads under way.", float64(s.downloads.inUse())},
	} {
		e.one(g.name, "gauge", g.help, g.v)
	}
	e.family("flaskpaste_cache_requests_total", "counter", "Lookups in the cache of often-read pastes.")
	e.sample("flaskpaste_cache_requests_total", float64(st.hits), `result="hit"`)
	e.sample("flaskpaste_cache_requests_total", float64(st.misses), `result="miss"`)
	if s.ca != nil {
		e.one("flaskpaste_ca_expiry_timestamp_seconds", "gauge", "Unix time at which the CA of client certificates ends.",
			float64(s.ca.cert.NotAfter.Unix()))
	}
	q.writeBytes(200, "text/plain; version=0.0.4; charset=utf-8", e.Bytes())
	return nil
}
