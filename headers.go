package main

// headers.go is what every request passes first: the log line, recovery from panics, security headers, request id, and the
// question who is asking (api.md sections 1 and 2): peer, trusted proxy, client address, scheme, certificate.
//
// Nothing that a client can write counts unless a trusted peer sent it: one address header, one certificate header, both
// named by the operator. A value that can't be understood is refused or ends the walk; it is never guessed at.
// (RFC 9110, RFC 9440 for certificates in headers, OWASP Secure Headers; ASVS 5.0 4.1.3 and 15.3.4.)

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"regexp"
	"runtime/debug"
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
	https   bool
	who     identity
	tier    tier
	key     clientKey
	factor  int64 // of a trusted client's limits

	paste string // the id asked for, for the log: its first 4 characters
	cause error  // of a 500
	body  bodyState

	permit permit // of a creation under way

	answer responseWriter // w
	idLine [1]string      // X-Request-Id
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
	vouched      bool   // the operator or an admin made the owner's first certificate: no work is asked for
}

// owners returns every id under which this identity may own something.
func (i identity) owners() (ids []string) {
	if i.owner != "" {
		ids = append(ids, i.owner)
		if i.owner == i.sha256 && i.sha1 != "" {
			ids = append(ids, i.sha1)
		}
	}
	return ids
}

// owns reports whether p belongs to this identity.
func (i identity) owns(p *paste) bool {
	for _, id := range i.owners() {
		if id == p.owner || id == p.ownerSHA1 {
			return true
		}
	}
	return false
}

var requestIDs = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func canonicalHeader(name string) string { return textproto.CanonicalMIMEHeaderKey(name) }

// Header values of every answer, made once: the header map only takes the slices.
var (
	hNosniff     = []string{"nosniff"}
	hDeny        = []string{"DENY"}
	hNoReferrer  = []string{"no-referrer"}
	hCSP         = []string{"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"}
	hPermissions = []string{"accelerometer=(), camera=(), clipboard-read=(), clipboard-write=(), display-capture=(), fullscreen=(), geolocation=(), gyroscope=(), microphone=(), midi=(), payment=(), publickey-credentials-get=(), usb=()"}
	hSameOrigin  = []string{"same-origin"}
	hNone        = []string{"none"}
	hNoStore     = []string{"no-store"}
	hRevalidate  = []string{"private, no-cache"}
	hPublic      = []string{"public, no-cache"}
	hBytes       = []string{"bytes"}
	hHSTS        = []string{"max-age=63072000"}
)

// ServeHTTP is the way of every request: record, headers, route, answer, log line.
func (s *server) ServeHTTP(hw http.ResponseWriter, r *http.Request) {
	start := s.now()
	q := &request{s: s, r: r, start: start, now: start.Unix()}
	q.answer = responseWriter{ResponseWriter: hw, q: q, routing: true}
	q.w = &q.answer
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
	h["Cache-Control"] = hNoStore
	q.guardBody()
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
			q.s.answerError(q, &apiError{status: 500, code: "internal", text: "internal error"})
		} else {
			v = http.ErrAbortHandler
		}
	}
	q.release()
	took := q.s.now().Sub(q.start)
	route := len(q.s.table)
	if q.route != nil && q.route != &notFoundRoute {
		route = q.route.index
	}
	q.s.metrics.request(route, q.r.Method, q.w.status, q.w.code, took, q.body.bytes, q.w.bytes)
	q.log(took, v == http.ErrAbortHandler)
	if v == http.ErrAbortHandler {
		panic(v)
	}
}

// log writes the request's one line. Never a full id, a query, a header's value or content.
func (q *request) log(took time.Duration, aborted bool) {
	level := slog.LevelInfo
	if q.w.status >= 500 && q.cause != nil {
		level = slog.LevelError
	}
	if !q.s.log.Enabled(q.r.Context(), level) {
		return
	}
	pattern := "none"
	if q.route != nil {
		pattern = q.route.pattern
	}
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs, slog.String("request_id", q.id), slog.String("method", logMethod(q.r.Method)), slog.String("route", pattern),
		slog.Int("status", q.w.status), slog.Int64("bytes", q.w.bytes), slog.Duration("duration", took), slog.String("tier", q.tier.String()))
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
	rec := slog.NewRecord(q.start.Add(took), level, "request", 0) // no source: the logger would walk the stack for it, on every request
	rec.AddAttrs(attrs...)
	q.s.log.Handler().Handle(q.r.Context(), rec)
}

// logMethod keeps what a stranger calls a method out of logs and labels.
func logMethod(m string) string {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS":
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
	q.https = q.r.TLS != nil
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
	if lines := q.r.Header[s.cfg.addressHeader]; len(lines) > 0 {
		q.addr = forwardedAddr(strings.Join(lines, ","), q.peer, s.cfg.trustedProxies)
	}
	if proto := q.r.Header["X-Forwarded-Proto"]; len(proto) == 1 {
		switch proto[0] {
		case "https":
			q.https = true
		case "http":
			q.https = false
		}
	}
}

func containsAddr(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// forwardedAddr walks a list of addresses from the right (the proxy next to us) past trusted ones to the first other one.
// An element that does not parse ends the walk at the last good one: what stands left of it, anybody may have written.
func forwardedAddr(list string, peer netip.Addr, trusted []netip.Prefix) netip.Addr {
	good := peer
	for list != "" {
		i := strings.LastIndexByte(list, ',')
		element := strings.Trim(list[i+1:], " \t")
		list = list[:max(i, 0)]
		a, err := netip.ParseAddr(element)
		if err != nil {
			ap, err := netip.ParseAddrPort(element)
			if err != nil {
				return good
			}
			a = ap.Addr()
		}
		if a.Zone() != "" {
			return good
		}
		good = a.Unmap()
		if !containsAddr(trusted, good) {
			return good
		}
	}
	return good
}

// ignored remembers, for one line an hour, that somebody who is no trusted proxy sent a proxy's header: most often it is
// the operator's own proxy, not yet named.
type ignored struct {
	mu   sync.Mutex
	last time.Time
}

func (s *server) ignoredHeaders(q *request, name string) {
	s.metrics.ignoredHeaders.Add(1)
	s.ignored.mu.Lock()
	due := s.ignored.last.IsZero() || q.start.Sub(s.ignored.last) >= time.Hour
	if due {
		s.ignored.last = q.start
	}
	s.ignored.mu.Unlock()
	if due {
		text := name + " was sent by a peer that is no trusted proxy, and ignored: if it is your proxy, see FLASKPASTE_TRUSTED_PROXIES and FLASKPASTE_PROXY_SECRET"
		s.log.Warn(text, "peer", s.logAddr(q.peer), "request_id", q.id)
		go s.store.note("ignored_header", text) // a read must not wait for the writer
	}
}

// identify finds out whose certificate came along; an error is the answer.
func (s *server) identify(q *request) error {
	var shown identity
	lines := q.r.Header[s.cfg.certHeader]
	own := q.r.TLS != nil && len(q.r.TLS.PeerCertificates) > 0
	// A fingerprint is public: over TCP an address range alone may not vouch for it.
	believed := q.trusted && (!q.peer.IsValid() || s.cfg.proxySecret != "")
	if len(lines) > 0 && q.trusted && !believed {
		s.ignoredHeaders(q, s.cfg.certHeader)
	}
	if len(lines) > 0 && (own || believed) {
		if len(lines) > 1 {
			return badCertificate("the certificate header is repeated")
		}
		var err error
		if shown, err = parseCertHeader(lines[0]); err != nil {
			return err
		}
	}
	if own {
		if shown != (identity{}) {
			return badCertificate("a certificate in the header and another in the TLS handshake")
		}
		shown = identityOf(q.r.TLS.PeerCertificates[0].Raw)
	}
	if shown == (identity{}) {
		return nil
	}
	return s.judge(q, shown)
}

func badCertificate(why string) error {
	return &apiError{status: 400, code: "bad_client_certificate", text: "bad client certificate: " + why,
		hint: "the proxy must send one certificate, as in deploy/"}
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
	if v == "" || v[0] == '{' && v[len(v)-1] == '}' {
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
		if err != nil || block == nil || block.Type != "CERTIFICATE" || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 || !strings.HasPrefix(text, "-----BEGIN CERTIFICATE-----") {
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
	if _, err := x509.ParseCertificate(der); err != nil { // refuses trailing data too
		return identity{}, badCertificate("not a certificate")
	}
	return identityOf(der), nil
}

// ---- the answer ----

const (
	pieceSize   = 16 << 10         // bytes that a transfer must move
	pieceTime   = 10 * time.Second // in this time
	headerLimit = 16 << 10
)

// responseWriter counts, holds the time limits of an answer, and while the mux is looking for a route keeps the mux's own
// plain-text refusals from going out.
type responseWriter struct {
	http.ResponseWriter
	q       *request
	routing bool
	serving bool // within http.ServeContent, whose 412 has no body
	wrote   bool
	status  int
	bytes   int64
	code    string // of an error, for log and metrics
	started time.Time
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
	w.started = time.Now()
	w.extend(w.started)
	w.ResponseWriter.WriteHeader(status)
}

// extend gives the next piece its time, within the whole answer's.
func (w *responseWriter) extend(now time.Time) {
	d := now.Add(pieceTime)
	if last := w.started.Add(w.q.s.cfg.transferTimeout); last.Before(d) {
		d = last
	}
	http.NewResponseController(w.ResponseWriter).SetWriteDeadline(d)
}

func (w *responseWriter) Write(b []byte) (n int, err error) {
	if w.routing {
		return len(b), nil
	}
	if !w.wrote {
		w.WriteHeader(200)
	}
	for first := true; len(b) > 0 && err == nil; first = false {
		if !first || w.bytes > 0 {
			w.extend(time.Now())
		}
		var m int
		m, err = w.ResponseWriter.Write(b[:min(len(b), pieceSize)])
		b = b[m:]
		n += m
		w.bytes += int64(m)
	}
	return n, err
}

var piecePool = sync.Pool{New: func() any { b := make([]byte, pieceSize); return &b }}

// ReadFrom keeps io.Copy from making a buffer for each answer, and from handing the connection over without time limits.
func (w *responseWriter) ReadFrom(src io.Reader) (n int64, err error) {
	b := piecePool.Get().(*[]byte)
	defer piecePool.Put(b)
	for {
		m, readErr := src.Read(*b)
		if m > 0 {
			k, err := w.Write((*b)[:m])
			n += int64(k)
			if err != nil {
				return n, err
			}
		}
		if readErr != nil {
			if readErr == io.EOF {
				readErr = nil
			}
			return n, readErr
		}
	}
}

// ---- the body ----

// bodyState is the progress of a request's body: at least pieceSize in each pieceTime, all within the transfer time.
type bodyState struct {
	done  bool // read to its end
	bytes int64
	moved int
	last  time.Time
}

// guardBody puts a first deadline on a body, so that net/http's own draining of one that nobody wants can't hang.
func (q *request) guardBody() {
	if q.r.ContentLength == 0 {
		q.body.done = true
		return
	}
	q.body.last = time.Now().Add(q.s.cfg.transferTimeout)
	q.extendBody()
}

func (q *request) extendBody() {
	d := time.Now().Add(pieceTime)
	if q.body.last.Before(d) {
		d = q.body.last
	}
	q.body.moved = 0
	http.NewResponseController(q.w.ResponseWriter).SetReadDeadline(d)
}

// Read reads the body of the request: the only place that does.
func (q *request) Read(b []byte) (int, error) {
	if q.body.done {
		return 0, io.EOF
	}
	n, err := q.r.Body.Read(b)
	q.body.bytes += int64(n)
	if q.body.moved += n; q.body.moved >= pieceSize {
		q.extendBody()
	}
	if err == io.EOF {
		q.body.done = true
		http.NewResponseController(q.w.ResponseWriter).SetReadDeadline(time.Time{})
	}
	return n, err
}
