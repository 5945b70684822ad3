package main

// headers.go is what every request passes first: the log line, recovery from panics, security headers, request id, and
// the question who is asking: peer, trusted proxy, client address, scheme, certificate. It holds bodies and answers to
// their time.
//
// Nothing that a client can write counts unless a trusted peer sent it: one address header, one certificate header,
// both named by the operator. A value that can't be understood is refused or ends the walk; it is never guessed at.
// (RFC 9110, RFC 9440 for certificates in headers, OWASP Secure Headers; ASVS 5.0 4.1.3 and 15.3.4.)

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// request is the record of one request, made by ServeHTTP and passed down; everything below reads the time from it.
type request struct {
	s     *server
	w     responseWriter
	r     *http.Request
	id    string
	start time.Time // with its monotonic reading: limits and durations
	now   int64     // Unix seconds of the wall clock: expiry
	route *route

	peer    netip.Addr // zero: a Unix socket
	trusted bool       // the peer is a proxy whose headers count
	addr    netip.Addr // client address; zero: local
	named   bool       // the trusted peer named it
	https   bool
	who     identity
	tier    tier
	key     clientKey
	factor  int64 // of a trusted client's limits

	paste string // the id asked for, for the log: its first 4 characters
	cause error  // of a refusal, for the log

	conn     *conn
	bodyDone bool // the body was read to its end
	bodyRead int64
}

// tier decides sizes and lives.
type tier uint8

const (
	anonymous tier = iota
	untrusted
	trusted
	admin
)

func (t tier) String() string { return [...]string{"anonymous", "untrusted", "trusted", "admin"}[t] }

// identity is the certificate that was shown, if any: lower-case hex fingerprints of its DER. A proxy that passes a
// SHA-1 alone leaves sha256 empty. The zero value is nobody and equals no owner.
type identity struct {
	sha1, sha256 string
	owner        string // what pastes hang on (api.md section 2.5)
	name         string // of one of this server's certificates
	vouched      bool   // the operator or an admin made the owner's first certificate: no work is asked for
}

// owns reports whether p belongs to this identity.
func (i identity) owns(p *paste) bool { return i.owner != "" && i.owner == p.owner }

var requestIDs = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// always is in the header of every answer. Its lists and the others here are made once: the header only takes them.
var always = []struct {
	name  string
	value []string
}{
	{"X-Content-Type-Options", []string{"nosniff"}},
	{"X-Frame-Options", []string{"DENY"}},
	{"Referrer-Policy", []string{"no-referrer"}},
	{"Content-Security-Policy", []string{"default-src 'none'; base-uri 'none'; form-action 'none'; " +
		"frame-ancestors 'none'; sandbox"}},
	{"Permissions-Policy", []string{"accelerometer=(), camera=(), clipboard-read=(), clipboard-write=(), " +
		"display-capture=(), fullscreen=(), geolocation=(), gyroscope=(), microphone=(), midi=(), payment=(), " +
		"publickey-credentials-get=(), usb=()"}},
	{"Cross-Origin-Resource-Policy", []string{"same-origin"}},
	{"Cross-Origin-Opener-Policy", []string{"same-origin"}},
	{"X-Permitted-Cross-Domain-Policies", []string{"none"}},
	{"X-Robots-Tag", []string{"noindex, nofollow"}},
	{"Cache-Control", hNoStore},
}

var (
	hNoStore    = []string{"no-store"}
	hRevalidate = []string{"private, no-cache"}
	hPublic     = []string{"public, no-cache"}
	hBytes      = []string{"bytes"}
	hHSTS       = []string{"max-age=63072000"}
)

// ServeHTTP is the way of every request: record, headers, route, answer, log line.
func (s *server) ServeHTTP(hw http.ResponseWriter, r *http.Request) {
	start := s.now()
	q := &request{s: s, r: r, start: start, now: start.Unix(), route: &noRoute,
		conn: r.Context().Value(connKey{}).(*conn), bodyDone: r.ContentLength == 0}
	q.w = responseWriter{ResponseWriter: hw, q: q, routing: true}
	if ids := r.Header["X-Request-Id"]; len(ids) == 1 && requestIDs.MatchString(ids[0]) {
		q.id = ids[0]
	} else {
		var b [12]byte
		rand.Read(b[:])
		q.id = hex.EncodeToString(b[:])
	}
	h := hw.Header()
	for _, field := range always {
		h[field.name] = field.value
	}
	h["X-Request-Id"] = []string{q.id}
	q.conn.expect(!q.bodyDone, q.conn.limit)
	defer q.finish()
	s.locate(q)
	if q.https {
		h["Strict-Transport-Security"] = hHSTS
	}
	if err := s.dispatch(q); err != nil {
		s.answerError(q, err)
	}
}

// finish runs after the handler, whatever happened: a panic becomes a 500, or an aborted connection once the answer
// began.
func (q *request) finish() {
	v := recover()
	if v != nil && v != http.ErrAbortHandler {
		q.s.log.Error("panic", "request_id", q.id, "panic", v, "stack", string(debug.Stack()))
		if !q.w.wrote {
			q.s.answerError(q, refuse(500, "internal", "internal error", ""))
		} else {
			v = http.ErrAbortHandler
		}
	}
	took := q.s.now().Sub(q.start)
	q.s.metrics.request(q.route.pattern, logMethod(q.r.Method), q.w.status, q.w.code, took, q.bodyRead, q.w.bytes)
	q.log(took, v == http.ErrAbortHandler)
	if v == http.ErrAbortHandler {
		panic(v)
	}
}

// log writes the request's one line, and for refusals one a second for each client: a flood of them must not fill the
// journal. Never a full id, a query, a header's value or content.
func (q *request) log(took time.Duration, aborted bool) {
	level, hidden, cause := slog.LevelInfo, 0, ""
	if q.cause != nil {
		cause = q.cause.Error()
	}
	if q.w.status >= 500 && cause != "" {
		level = slog.LevelError
	} else if q.w.code != "" {
		var show bool
		if hidden, show = q.s.refusals.say(q.key, q.start, time.Second); !show {
			return
		}
	}
	if !q.s.log.Enabled(q.r.Context(), level) {
		return
	}
	rec := slog.NewRecord(q.start.Add(took), level, "request", 0) // no source: the logger would walk the stack for it
	rec.AddAttrs(slog.String("request_id", q.id), slog.String("method", logMethod(q.r.Method)),
		slog.String("route", q.route.pattern), slog.Int("status", q.w.status), slog.Int64("bytes", q.w.bytes),
		slog.Duration("duration", took), slog.String("tier", q.tier.String()), logged("client", q.s.logAddr(q.addr)),
		logged("paste", q.paste[:min(4, len(q.paste))]), logged("code", q.w.code), logged("cause", cause))
	if aborted {
		rec.AddAttrs(slog.Bool("aborted", true))
	}
	if hidden > 0 {
		rec.AddAttrs(slog.Int("refused_without_line", hidden))
	}
	q.s.log.Handler().Handle(q.r.Context(), rec)
}

// logged is an attribute, without a value one that handlers leave out.
func logged(name, value string) slog.Attr {
	if value == "" {
		return slog.Attr{}
	}
	return slog.String(name, value)
}

// seldom remembers when a client last had a line in the log, and how often it had none since.
type seldom struct {
	mu      sync.Mutex
	clients map[clientKey]said
}

type said struct {
	at     time.Time
	hidden int
}

const seldomMost = 10_000 // clients; then all are forgotten, and each has a line more

// say tells whether there is to be a line again, one each span of time, and how many there were not.
func (l *seldom) say(key clientKey, now time.Time, span time.Duration) (hidden int, show bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok := l.clients[key]
	if ok && now.Sub(v.at) < span {
		l.clients[key] = said{v.at, v.hidden + 1}
		return 0, false
	}
	if len(l.clients) >= seldomMost || l.clients == nil {
		l.clients = map[clientKey]said{}
	}
	l.clients[key] = said{at: now}
	return v.hidden, true
}

// logMethod keeps what a stranger calls a method out of logs and labels.
func logMethod(m string) string {
	if slices.Contains(methods, m) {
		return m
	}
	return "other"
}

func (s *server) logAddr(a netip.Addr) string {
	switch {
	case s.cfg.logAddr == "none":
		return ""
	case !a.IsValid():
		return "local"
	case s.cfg.logAddr == "full":
		return a.String()
	case a.Is4():
		return netip.PrefixFrom(a, 24).Masked().String()
	}
	return netip.PrefixFrom(a, 48).Masked().String()
}

// locate fills in peer, trust, client address and scheme.
func (s *server) locate(q *request) {
	if ap, err := netip.ParseAddrPort(q.r.RemoteAddr); err == nil {
		q.peer = ap.Addr().Unmap().WithZone("")
	} else if a, _ := q.r.Context().Value(http.LocalAddrContextKey).(net.Addr); a == nil || a.Network() != "unix" {
		q.peer = netip.IPv4Unspecified() // no address that we know, and no Unix socket: nobody's
	}
	q.addr = q.peer
	q.trusted = !q.peer.IsValid() || containsAddr(s.cfg.trustedProxies, q.peer)
	if q.trusted && s.cfg.proxySecret != "" {
		got := q.r.Header["X-Proxy-Secret"]
		q.trusted = len(got) == 1 && subtle.ConstantTimeCompare([]byte(got[0]), []byte(s.cfg.proxySecret)) == 1
	}
	if !q.trusted {
		for _, name := range [...]string{s.cfg.addressHeader, s.cfg.certHeader, "X-Proxy-Secret", "X-Forwarded-Proto"} {
			if _, sent := q.r.Header[name]; sent {
				q.ignored(name)
				break
			}
		}
		return
	}
	q.addr = forwardedAddr(strings.Join(q.r.Header[s.cfg.addressHeader], ","), s.cfg.trustedProxies)
	if q.named = q.addr.IsValid(); !q.named {
		if q.addr = q.peer; q.peer.IsValid() {
			q.warn(s.cfg.addressHeader + " from a trusted proxy names no client: all its clients share one allowance")
		}
	}
	proto := q.r.Header["X-Forwarded-Proto"]
	q.https = len(proto) == 1 && proto[0] == "https"
}

func containsAddr(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// forwardedAddr walks a list of addresses from the right (the proxy next to us) past trusted ones to the first other
// one; all trusted: the leftmost. An element that does not parse ends the walk at the last good one: what stands left
// of it, anybody may have written. The zero address: there is none.
func forwardedAddr(list string, trusted []netip.Prefix) (good netip.Addr) {
	for _, element := range slices.Backward(strings.Split(list, ",")) {
		element = strings.Trim(element, " \t")
		ap, err := netip.ParseAddrPort(element)
		a := ap.Addr()
		if err != nil {
			a, err = netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(element, "["), "]"))
		}
		if err != nil {
			return good
		}
		if good = a.Unmap().WithZone(""); !containsAddr(trusted, good) {
			return good
		}
	}
	return good
}

// warn counts what a proxy said in vain, and tells of it once an hour: most often it is the operator's own, not yet
// named or not yet told what to send.
func (q *request) warn(text string) {
	q.s.metrics.ignoredHeaders.Add(1)
	if _, show := q.s.warnings.say(clientKey{}, q.start, time.Hour); show {
		q.s.log.Warn(text, "peer", q.s.logAddr(q.peer), "request_id", q.id)
	}
}

func (q *request) ignored(name string) {
	q.warn(name + " was sent by a peer that is no trusted proxy, and ignored: if it is your proxy, see " +
		"FLASKPASTE_TRUSTED_PROXIES and FLASKPASTE_PROXY_SECRET")
}

// shown returns the certificate that came along, the zero identity without one; an error is the answer.
func (s *server) shown(q *request) (identity, error) {
	lines := q.r.Header[s.cfg.certHeader]
	if len(lines) == 0 || !q.trusted {
		return identity{}, nil
	}
	if q.peer.IsValid() && s.cfg.proxySecret == "" { // a fingerprint is public: an address range may not vouch for it
		q.ignored(s.cfg.certHeader)
		return identity{}, nil
	}
	if len(lines) > 1 {
		return identity{}, badCertificate("the certificate header is repeated")
	}
	return parseCertHeader(lines[0])
}

func badCertificate(why string) error {
	return refuse(400, "bad_client_certificate", "bad client certificate: "+why,
		"the server's proxy must send one certificate: tell its operator")
}

// What some proxies send for a visitor without a certificate.
var sha1OfNothing, sha256OfNothing = fingerprints(nil)

// parseCertHeader understands a SHA-1 or SHA-256 in hex (case and colons free), a percent-encoded PEM certificate, and
// the base64 of its DER with or without RFC 9440's colons. The zero identity: no certificate.
func parseCertHeader(v string) (i identity, err error) {
	if v == "" || v == "(null)" || v[0] == '{' && v[len(v)-1] == '}' {
		return i, nil
	}
	switch plain := strings.ToLower(strings.ReplaceAll(v, ":", "")); {
	case plain == sha1OfNothing || plain == sha256OfNothing:
		return i, nil
	case isHex(plain, 40):
		return identity{sha1: plain}, nil
	case isHex(plain, 64):
		return identity{sha256: plain}, nil
	}
	text, err := url.PathUnescape(v) // nginx escapes PEM; a plus is a plus
	text = strings.TrimRight(text, "\r\n")
	for _, around := range [...][2]string{{":", ":"}, {"-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"}} {
		inner, begun := strings.CutPrefix(text, around[0])
		if inner, ended := strings.CutSuffix(inner, around[1]); begun && ended {
			text = inner
		}
	}
	der, notBase64 := base64.StdEncoding.Strict().DecodeString(text) // which passes over ends of lines
	if err != nil || notBase64 != nil {
		return i, badCertificate("neither a fingerprint nor a certificate")
	}
	// The handshake proved the key; crypto/x509 would refuse certificates that other programs make and use.
	var seq asn1.RawValue
	rest, err := asn1.Unmarshal(der, &seq)
	if err != nil || len(rest) > 0 || seq.Tag != asn1.TagSequence || !seq.IsCompound {
		return i, badCertificate("not a certificate")
	}
	i.sha1, i.sha256 = fingerprints(der)
	return i, nil
}

// ---- the answer ----

// responseWriter counts, and while the mux is looking for a route keeps the mux's own refusals from going out.
type responseWriter struct {
	http.ResponseWriter
	q       *request
	routing bool
	serving bool // within http.ServeContent, whose 412 has no body
	wrote   bool
	status  int
	bytes   int64
	code    string           // of an error, for log and metrics
	decided func(status int) // told of the status before it goes out, may be nil
}

func (w *responseWriter) WriteHeader(status int) {
	if w.wrote {
		return
	}
	w.status = status
	if w.routing || w.serving && status == http.StatusPreconditionFailed {
		return
	}
	w.wrote = true
	h := w.Header()
	if h["Cache-Control"] == nil { // ServeContent's 416 drops it
		h["Cache-Control"] = hNoStore
	}
	// An answer before the body was read ends the connection: the next request must not start within this one's bytes.
	// So does one to a body in chunks, beside which a length may have stood, and to HTTP/1.0, which knows no chunks:
	// net/http hides the header that would tell, and what follows must not count (RFC 9112, 6.1).
	if !w.q.bodyDone || w.q.r.ProtoMinor == 0 || w.q.r.TransferEncoding != nil {
		h["Connection"] = []string{"close"}
	}
	if w.decided != nil {
		w.decided(status)
	}
	w.q.conn.beginAnswer()
	w.ResponseWriter.WriteHeader(status)
}

func (w *responseWriter) Write(b []byte) (n int, err error) {
	if w.routing {
		return len(b), nil
	}
	w.WriteHeader(200)
	n, err = w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Read reads the body of the request: the only place that does.
func (q *request) Read(b []byte) (int, error) {
	if q.bodyDone {
		return 0, io.EOF
	}
	n, err := q.r.Body.Read(b)
	q.bodyRead += int64(n)
	if err == io.EOF {
		q.bodyDone = true
		q.conn.expect(false, q.conn.limit)
	}
	return n, err
}

// ---- time limits ----

const (
	headerLimit = 16 << 10         // bytes
	headerLines = 1000             // 16 KiB of short names would take half a megabyte of maps
	headerTime  = 10 * time.Second // for a header to come
	stillTime   = 60 * time.Second // in which a body or an answer must move at all
	pieceSize   = 16 << 10         // bytes that one must move
	pieceTime   = 10 * time.Second // in this time, while more than half of the slots of its kind are taken
	stepTime    = 2 * time.Second  // after which a wait looks at the rules again
	writeBuffer = 128 << 10        // bytes of the kernel's: it lets us go on only when a half is free, soon enough
)

// connKey is under which a request's context has its *conn.
type connKey struct{}

// conn holds whatever is read as a body or written, by whomever, to the time limits above. net/http writes from several
// places (100 Continue, its own refusals), and a peer that takes nothing must not hold any of them.
type conn struct {
	net.Conn
	limit           time.Duration // of a whole body, of a whole answer
	inBusy, outBusy func() bool   // more than half of the slots are taken
	closed          func()        // tells the counter; once
	once            sync.Once

	out     transfer // belongs to who writes, one after the other: the handler, net/http before and after it
	writeBy time.Time

	mu    sync.Mutex // net/http reads on, for what follows, while the handler runs
	in    transfer
	body  bool // what is read is a body
	lines int  // read of headers since the last one was whole
}

// transfer is how a body or an answer moves.
type transfer struct {
	end           time.Time     // when all must have come; zero: it is a refusal by net/http itself
	moved         int           // bytes since the last whole piece
	waited, still time.Duration // for that piece; since the last byte
}

// slow notes a wait in which n bytes moved, and reports whether that is too slow. (Only waits count: a client is not to
// blame for the time in which we don't read.)
func (t *transfer) slow(n int, began time.Time, busy func() bool) bool {
	now := time.Now()
	t.moved, t.waited, t.still = t.moved+n, t.waited+now.Sub(began), t.still+now.Sub(began)
	if n > 0 {
		t.still = 0
	}
	if t.moved >= pieceSize {
		t.moved, t.waited = 0, 0
	}
	return t.still >= stillTime || t.waited >= pieceTime && busy() || !t.end.IsZero() && now.After(t.end)
}

// expect is called when a request's header has come, when its body has, and when it has only so long for what is left.
func (c *conn) expect(body bool, within time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.body && !body {
		c.Conn.SetReadDeadline(time.Time{}) // net/http sets its own for the next header
	}
	c.in, c.body, c.lines = transfer{end: time.Now().Add(within)}, body, 0
	c.out = c.in // 100 Continue
}

// beginAnswer begins the time of an answer.
func (c *conn) beginAnswer() { c.out = transfer{end: time.Now().Add(c.limit)} }

// errLines is answered 400 by net/http.
var errLines = errors.New("more header lines than any client sends")

func (c *conn) Read(b []byte) (int, error) {
	for {
		began := time.Now()
		c.mu.Lock()
		lines := c.lines // a header's that was not whole: what came along behind one is forgotten when it begins
		if c.body {
			c.Conn.SetReadDeadline(began.Add(stepTime))
		}
		c.mu.Unlock()
		if lines > headerLines {
			return 0, errLines
		}
		n, err := c.Conn.Read(b)
		c.mu.Lock()
		body := c.body // now: a read for what follows begins before the body's end is noted
		slow := body && c.in.slow(n, began, c.inBusy)
		if !body {
			c.lines += bytes.Count(b[:n], []byte("\n"))
		}
		c.mu.Unlock()
		if slow { // a trickle, too
			return n, cmp.Or(err, os.ErrDeadlineExceeded)
		}
		if n > 0 || !body || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

func (c *conn) Write(b []byte) (n int, err error) {
	for {
		began := time.Now()
		if c.writeBy.Sub(began) < stepTime/2 { // setting it costs as much as all the rest here
			c.writeBy = began.Add(stepTime)
			c.Conn.SetWriteDeadline(c.writeBy)
		}
		m, err := c.Conn.Write(b[n:])
		n += m
		if c.out.slow(m, began, c.outBusy) {
			if t, ok := c.Conn.(*net.TCPConn); ok {
				t.SetLinger(0) // nor shall the kernel keep for minutes what nobody takes
			}
			c.Close() // net/http may not look at this error, and read on
			return n, os.ErrDeadlineExceeded
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// SetWriteDeadline does nothing: the deadline is Write's own, and net/http would take it away behind each answer.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

func (c *conn) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}
