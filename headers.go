package main

// headers.go is what every request passes first: the log line, recovery from panics, security headers, request id, and the
// question who is asking: peer, trusted proxy, client address, scheme, certificate. It holds bodies and answers to their time.
//
// Nothing that a client can write counts unless a trusted peer sent it: one address header, one certificate header, both
// named by the operator. A value that can't be understood is refused or ends the walk; it is never guessed at.
// (RFC 9110, RFC 9440 for certificates in headers, OWASP Secure Headers; ASVS 5.0 4.1.3 and 15.3.4.)

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
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
	w     *responseWriter
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
	cause error  // of a 500, for the log

	conn     *conn // nil: not one of ours
	bodyDone bool  // the body was read to its end
	bodyRead int64

	answered responseWriter // w
	idLine   [1]string      // X-Request-Id
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

// identity is the certificate that was shown, if any: lower-case hex fingerprints of its DER. A proxy that passes a SHA-1
// alone leaves sha256 empty. The zero value is nobody and equals no owner.
type identity struct {
	sha1, sha256 string
	owner        string // what pastes hang on (api.md section 2.5)
	name         string // of one of this server's certificates
	vouched      bool   // the operator or an admin made the owner's first certificate: no work is asked for
}

// owns reports whether p belongs to this identity.
func (i identity) owns(p *paste) bool { return i.owner != "" && i.owner == p.owner }

var requestIDs = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Header values of every answer, made once: the header map only takes the slices.
var (
	hNosniff     = []string{"nosniff"}
	hDeny        = []string{"DENY"}
	hNoReferrer  = []string{"no-referrer"}
	hCSP         = []string{"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"}
	hPermissions = []string{"accelerometer=(), camera=(), clipboard-read=(), clipboard-write=(), display-capture=(), " +
		"fullscreen=(), geolocation=(), gyroscope=(), microphone=(), midi=(), payment=(), publickey-credentials-get=(), usb=()"}
	hSameOrigin = []string{"same-origin"}
	hNone       = []string{"none"}
	hNoStore    = []string{"no-store"}
	hRevalidate = []string{"private, no-cache"}
	hPublic     = []string{"public, no-cache"}
	hBytes      = []string{"bytes"}
	hHSTS       = []string{"max-age=63072000"}
	hRobots     = []string{"noindex, nofollow"}
)

// ServeHTTP is the way of every request: record, headers, route, answer, log line.
func (s *server) ServeHTTP(hw http.ResponseWriter, r *http.Request) {
	start := s.now()
	q := &request{s: s, r: r, start: start, now: start.Unix()}
	q.answered = responseWriter{ResponseWriter: hw, q: q, routing: true}
	q.w = &q.answered
	q.conn, _ = r.Context().Value(connKey{}).(*conn)
	if ids := r.Header["X-Request-Id"]; len(ids) == 1 && requestIDs.MatchString(ids[0]) {
		q.id = ids[0]
	} else {
		var b [12]byte
		rand.Read(b[:])
		q.id = hex.EncodeToString(b[:])
	}
	h := hw.Header()
	q.idLine[0] = q.id
	h["X-Request-Id"] = q.idLine[:]
	h["X-Content-Type-Options"] = hNosniff
	h["X-Frame-Options"] = hDeny
	h["Referrer-Policy"] = hNoReferrer
	h["Content-Security-Policy"] = hCSP
	h["Permissions-Policy"] = hPermissions
	h["Cross-Origin-Resource-Policy"] = hSameOrigin
	h["Cross-Origin-Opener-Policy"] = hSameOrigin
	h["X-Permitted-Cross-Domain-Policies"] = hNone
	h["X-Robots-Tag"] = hRobots
	h["Cache-Control"] = hNoStore
	q.bodyDone = r.ContentLength == 0
	q.conn.begin(!q.bodyDone)
	defer q.finish()
	s.locate(q)
	if q.https {
		h["Strict-Transport-Security"] = hHSTS
	}
	if err := s.dispatch(q); err != nil {
		s.answerError(q, err)
	}
}

// finish runs after the handler, whatever happened: a panic becomes a 500, or an aborted connection once the answer began.
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
	route := len(q.s.table)
	if q.route != nil && q.route != &noRoute {
		route = q.route.index
	}
	q.s.metrics.request(route, logMethod(q.r.Method), q.w.status, q.w.code, took, q.bodyRead, q.w.bytes)
	q.log(took, v == http.ErrAbortHandler)
	if v == http.ErrAbortHandler {
		panic(v)
	}
}

// log writes the request's one line, and for refusals one a second for each client: a flood of them must not fill the journal.
// Never a full id, a query, a header's value or content.
func (q *request) log(took time.Duration, aborted bool) {
	level, hidden := slog.LevelInfo, 0
	if q.w.status >= 500 && q.cause != nil {
		level = slog.LevelError
	} else if q.w.code != "" {
		var show bool
		if hidden, show = q.s.refusals.note(q.key, q.now); !show {
			return
		}
	}
	if !q.s.log.Enabled(q.r.Context(), level) {
		return
	}
	pattern := "none"
	if q.route != nil {
		pattern = q.route.pattern
	}
	attrs := make([]slog.Attr, 0, 13)
	attrs = append(attrs, slog.String("request_id", q.id), slog.String("method", logMethod(q.r.Method)),
		slog.String("route", pattern), slog.Int("status", q.w.status), slog.Int64("bytes", q.w.bytes),
		slog.Duration("duration", took), slog.String("tier", q.tier.String()))
	if a := q.s.logAddr(q.addr); a != "" {
		attrs = append(attrs, slog.String("client", a))
	}
	if q.paste != "" {
		attrs = append(attrs, slog.String("paste", q.paste[:min(4, len(q.paste))]))
	}
	if q.w.code != "" {
		attrs = append(attrs, slog.String("code", q.w.code))
	}
	if q.cause != nil {
		attrs = append(attrs, slog.String("cause", q.cause.Error()))
	}
	if aborted {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	if hidden > 0 {
		attrs = append(attrs, slog.Int("refused_without_line", hidden))
	}
	rec := slog.NewRecord(q.start.Add(took), level, "request", 0) // no source: to find it, the logger would walk the stack
	rec.AddAttrs(attrs...)
	q.s.log.Handler().Handle(q.r.Context(), rec)
}

// refusals remembers in which second a client's last refusal was logged, and how many were not since.
type refusals struct {
	mu      sync.Mutex
	clients map[clientKey]refusal
}

type refusal struct {
	second int64
	hidden int
}

const refusalsMost = 10_000 // clients; then all are forgotten, and each has a line more

func (l *refusals) note(key clientKey, second int64) (hidden int, show bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok := l.clients[key]
	if ok && v.second == second {
		l.clients[key] = refusal{second, v.hidden + 1}
		return 0, false
	}
	if len(l.clients) >= refusalsMost || l.clients == nil {
		l.clients = map[clientKey]refusal{}
	}
	l.clients[key] = refusal{second, 0}
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
				s.ignoredHeaders(q, name)
				break
			}
		}
		return
	}
	q.addr = forwardedAddr(strings.Join(q.r.Header[s.cfg.addressHeader], ","), s.cfg.trustedProxies)
	if q.named = q.addr.IsValid(); !q.named {
		if q.addr = q.peer; q.peer.IsValid() {
			s.proxyWarnings.say(q, s.cfg.addressHeader+" from a trusted proxy names no client: all its clients share one allowance")
		}
	}
	proto := q.r.Header["X-Forwarded-Proto"]
	q.https = len(proto) == 1 && proto[0] == "https"
}

func containsAddr(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// forwardedAddr walks a list of addresses from the right (the proxy next to us) past trusted ones to the first other one; all
// trusted: the leftmost. An element that does not parse ends the walk at the last good one: what stands left of it, anybody may
// have written. The zero address: there is none.
func forwardedAddr(list string, trusted []netip.Prefix) (good netip.Addr) {
	for list != "" {
		i := strings.LastIndexByte(list, ',')
		element := strings.Trim(list[i+1:], " \t")
		list = list[:max(i, 0)]
		a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(element, "["), "]"))
		if err != nil {
			ap, err := netip.ParseAddrPort(element)
			if err != nil {
				return good
			}
			a = ap.Addr()
		}
		if good = a.Unmap().WithZone(""); !containsAddr(trusted, good) {
			return good
		}
	}
	return good
}

// hourly lets one warning an hour through: most often it is the operator's own proxy, not yet named or not yet told what to send.
type hourly struct {
	mu   sync.Mutex
	last time.Time
}

func (l *hourly) say(q *request, text string) {
	q.s.metrics.ignoredHeaders.Add(1)
	l.mu.Lock()
	due := l.last.IsZero() || q.start.Sub(l.last) >= time.Hour
	if due {
		l.last = q.start
	}
	l.mu.Unlock()
	if due {
		q.s.log.Warn(text, "peer", q.s.logAddr(q.peer), "request_id", q.id)
	}
}

func (s *server) ignoredHeaders(q *request, name string) {
	s.proxyWarnings.say(q, name+" was sent by a peer that is no trusted proxy, and ignored: if it is your proxy, see "+
		"FLASKPASTE_TRUSTED_PROXIES and FLASKPASTE_PROXY_SECRET")
}

// shown returns the certificate that came along, the zero identity without one; an error is the answer.
func (s *server) shown(q *request) (identity, error) {
	lines := q.r.Header[s.cfg.certHeader]
	if len(lines) == 0 || !q.trusted {
		return identity{}, nil
	}
	if q.peer.IsValid() && s.cfg.proxySecret == "" { // a fingerprint is public: over TCP an address range alone may not vouch for it
		s.ignoredHeaders(q, s.cfg.certHeader)
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

func identityOf(der []byte) (i identity) {
	i.sha1, i.sha256 = fingerprints(der)
	return i
}

// Fingerprints of nothing: what some proxies send for a visitor without a certificate.
const (
	sha1OfNothing   = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
	sha256OfNothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// parseCertHeader understands a SHA-1 or SHA-256 in hex (case and colons free), a percent-encoded PEM certificate, and the
// base64 of its DER with or without RFC 9440's colons. The zero identity: no certificate.
func parseCertHeader(v string) (identity, error) {
	if v == "" || v == "(null)" || v[0] == '{' && v[len(v)-1] == '}' {
		return identity{}, nil
	}
	switch plain := strings.ToLower(strings.ReplaceAll(v, ":", "")); {
	case plain == sha1OfNothing || plain == sha256OfNothing:
		return identity{}, nil
	case isHex(plain, 40):
		return identity{sha1: plain}, nil
	case isHex(plain, 64):
		return identity{sha256: plain}, nil
	}
	var der []byte
	if strings.HasPrefix(v, "-----BEGIN") {
		text, err := url.PathUnescape(v) // nginx escapes a blank as %20; a plus is a plus
		block, rest := pem.Decode([]byte(text))
		if err != nil || block == nil || block.Type != "CERTIFICATE" || len(block.Headers) > 0 ||
			len(bytes.TrimSpace(rest)) > 0 || !strings.HasPrefix(text, "-----BEGIN CERTIFICATE-----") {
			return identity{}, badCertificate("not one PEM certificate")
		}
		der = block.Bytes
	} else {
		b64 := v
		if len(v) > 2 && v[0] == ':' && v[len(v)-1] == ':' {
			b64 = v[1 : len(v)-1]
		}
		var err error
		if der, err = base64.StdEncoding.Strict().DecodeString(b64); err != nil {
			return identity{}, badCertificate("neither a fingerprint nor a certificate")
		}
	}
	// The handshake proved the key; crypto/x509 would refuse certificates that other programs make and use.
	var seq asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &seq); err != nil || len(rest) > 0 || seq.Tag != asn1.TagSequence || !seq.IsCompound {
		return identity{}, badCertificate("not a certificate")
	}
	return identityOf(der), nil
}

// ---- the answer ----

// responseWriter counts, and while the mux is looking for a route keeps the mux's own plain-text refusals from going out.
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

func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *responseWriter) WriteHeader(status int) {
	if w.routing || w.wrote || w.serving && status == http.StatusPreconditionFailed {
		if !w.wrote {
			w.status = status
		}
		return
	}
	w.wrote, w.status = true, status
	if h := w.Header(); h["Cache-Control"] == nil { // ServeContent's 416 drops it
		h["Cache-Control"] = hNoStore
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
	if !w.wrote {
		w.WriteHeader(200)
	}
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
		q.conn.expectBody(false)
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
	stepTime    = 2 * time.Second  // after which a wait looks at the rule again
	writeBuffer = 128 << 10        // bytes of the kernel's: it lets us go on only when a half is free, and that must be soon
)

// connKey is under which a request's context has its *conn.
type connKey struct{}

// conn holds whatever is read as a body or written, by whomever, to the time limits above. net/http writes from several places (100
// Continue, its own refusals), and a peer that takes nothing must not hold any of them.
type conn struct {
	net.Conn
	limit            time.Duration // of a whole body, of a whole answer
	inBusy, outBusy  func() bool   // more than half of the slots are taken
	closed           func()        // tells the counter; once
	once             sync.Once
	mu               sync.Mutex // guards what follows: a body may be read while its refusal is written
	body, armed      bool       // reads are of a body; with a deadline of ours
	lines            int        // read of headers since the last request came
	last             [2]byte    // of those
	bodyEnd, lastEnd time.Time  // of the body, of the answer; zero: none yet
	writeBy          time.Time  // the deadline of writes that is set
	in, out          pace
}

// pace is how a transfer moves.
type pace struct {
	moved         int           // bytes since the last whole piece
	waited, still time.Duration // for that piece; since the last byte
}

// slow notes a wait of d in which n bytes moved, and reports whether that is too slow.
func (p *pace) slow(n int, d time.Duration, busy func() bool) bool {
	p.moved, p.waited, p.still = p.moved+n, p.waited+d, p.still+d
	if n > 0 {
		p.still = 0
	}
	if p.moved >= pieceSize {
		p.moved, p.waited = 0, 0
	}
	return p.still >= stillTime || p.waited >= pieceTime && busy()
}

// begin is called when a request's header has come, and says whether a body follows.
func (c *conn) begin(body bool) {
	if c != nil {
		c.mu.Lock()
		c.lines, c.lastEnd, c.out = 0, time.Time{}, pace{}
		c.mu.Unlock()
		c.expectBody(body)
	}
}

// expectBody begins or ends the time of a request's body.
func (c *conn) expectBody(yes bool) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.armed && !yes {
		c.Conn.SetReadDeadline(time.Time{}) // net/http sets its own for the next header
		c.armed = false
	}
	if c.body = yes; yes {
		c.bodyEnd, c.in = time.Now().Add(c.limit), pace{}
	}
}

// endBody lets what is left of a body come for d longer.
func (c *conn) endBody(d time.Duration) {
	if c != nil {
		c.mu.Lock()
		c.bodyEnd = earlier(c.bodyEnd, time.Now().Add(d))
		c.mu.Unlock()
	}
}

// beginAnswer begins the time of an answer.
func (c *conn) beginAnswer() {
	if c != nil {
		c.mu.Lock()
		c.lastEnd, c.out = time.Now().Add(c.limit), pace{}
		c.mu.Unlock()
	}
}

// tooManyLines counts the lines of a header, of which part has come, and not those of a body that came along.
func (c *conn) tooManyLines(part []byte) bool {
	if c.lines > 0 { // the end may be cut in two
		part = append(c.last[:], part...)
	}
	for _, end := range [...]string{"\n\r\n", "\n\n"} {
		if i := bytes.Index(part, []byte(end)); i >= 0 {
			part = part[:i+1]
		}
	}
	c.lines += bytes.Count(part, []byte("\n"))
	copy(c.last[:], part[max(0, len(part)-len(c.last)):])
	return c.lines > headerLines
}

// errLines is answered 400 by net/http.
var errLines = errors.New("more header lines than any client sends")

func (c *conn) Read(b []byte) (n int, err error) {
	for {
		c.mu.Lock()
		end := c.bodyEnd
		if c.body {
			c.armed = true
			c.Conn.SetReadDeadline(earlier(time.Now().Add(stepTime), end))
		}
		c.mu.Unlock()
		began := time.Now()
		n, err = c.Conn.Read(b)
		c.mu.Lock()
		if !c.body { // now: net/http reads on, for what follows, before the body's end is noted
			if c.tooManyLines(b[:n]) {
				n, err = 0, errLines
			}
			c.mu.Unlock()
			return n, err
		}
		slow := c.in.slow(n, time.Since(began), c.inBusy) || !time.Now().Before(end)
		c.mu.Unlock()
		if slow && err == nil { // a trickle
			err = os.ErrDeadlineExceeded
		}
		if n > 0 || slow || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

func (c *conn) Write(b []byte) (n int, err error) {
	for {
		began := time.Now()
		c.mu.Lock()
		if c.lastEnd.IsZero() {
			c.lastEnd = began.Add(c.limit)
		}
		end := c.lastEnd
		// Setting it costs as much as all the rest here; a second more or less does not matter.
		by := earlier(began.Add(stepTime), end)
		if by.Before(c.writeBy) || by.Sub(c.writeBy) > time.Second || !began.Before(c.writeBy) {
			c.writeBy = by
			c.Conn.SetWriteDeadline(by)
		}
		c.mu.Unlock()
		m, err := c.Conn.Write(b[n:])
		n += m
		now := time.Now()
		c.mu.Lock()
		slow := c.out.slow(m, now.Sub(began), c.outBusy) || !now.Before(end)
		c.mu.Unlock()
		if slow {
			if t, ok := c.Conn.(*net.TCPConn); ok {
				t.SetLinger(0) // nor shall the kernel keep for minutes what nobody takes
			}
			c.Close() // net/http may not look at this error, and read on
			return n, os.ErrDeadlineExceeded
		}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
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

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
