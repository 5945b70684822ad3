package main

// paste.go owns pastes on the wire (api.md sections 3, 4, 5 and 8): options, bodies, MIME types, creating, showing, reading,
// changing, deleting and listing.
//
// The order of checks is the contract's: nothing of a body is read before everything that can be said without it, and
// nothing is written before everything that can be said with it; one writer operation then does all or nothing.
// Content passes through in chunks; passwords, tokens and content never reach a log.

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"mime/multipart"
	"net/http"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	jsonMost        = 1 << 20  // bytes of a JSON body
	multipartMost   = 16       // parts
	optionMost      = 4 << 10  // bytes of a part that is an option
	partHeadMost    = 24 << 10 // bytes read for a part header: 16 KiB, and what the buffer of the parser draws in besides
	multipartExtra  = multipartMost*(optionMost+4<<10) + 64<<10
	passwordMost    = 1024   // bytes
	nameMost        = 128    // characters of a display name
	headSize        = 1024   // bytes that the magic numbers look at
	entropyFrom     = 256    // bytes below which no entropy is asked for
	kdfRounds       = 600000 // PBKDF2-HMAC-SHA256 (OWASP Password Storage, 2023)
	transferWait    = time.Second
	transferRetry   = 5 // seconds
	listMost        = 200
	listDefault     = 50
	searchTime      = 5 * time.Second // for a list
	tokenSize       = 32              // bytes of a delete token
	previewsRefused = "this paste burns after reading: previews and prefetches are refused"
)

func cores() int { return runtime.NumCPU() }

// ---- tiers ----

func (s *server) maxSize(t tier) int64 {
	if t == anonymous {
		return s.cfg.maxAnon
	}
	return s.cfg.maxAuth
}

// life is how long a paste lives without an asked-for expiry, from its last read.
func (s *server) life(t tier) time.Duration {
	d := s.cfg.expiryTrusted
	switch t {
	case anonymous:
		d = s.cfg.expiryAnon
	case untrusted:
		d = s.cfg.expiryUntrusted
	}
	return min(d, s.cfg.maxExpiry)
}

// longest is the longest life that may be asked for; an operator's longer default life raises it.
func (s *server) longest(t tier) time.Duration {
	const day = 24 * time.Hour
	d := 90 * day
	switch t {
	case anonymous:
		d = 7 * day
	case untrusted:
		d = 49 * day
	}
	return min(max(d, s.life(t)), s.cfg.maxExpiry)
}

// ---- options ----

// options are what a creation or a change asks for, from headers or the body. changing: an empty value removes.
type options struct {
	now       int64
	changing  bool
	certified bool

	expiry, burn, password, name, proof bool  // given
	deadline                            int64 // Unix seconds, 0: the tier's life
	burns                               bool
	pass, display                       string
	proofHash                           []byte
	declared                            string // media type of the content
}

func badOption(text string) error { return &apiError{status: 400, code: "bad_option", text: text} }

var errExpiry = &apiError{status: 400, code: "bad_expiry", text: "the expiry is not understood",
	hint: "use seconds (3600), 90s, 15m, 12h, 7d, 2w or a sum (1d12h), an RFC 3339 time in the future, or @<unix seconds>"}

// parseSpan reads whole seconds or a sum of numbers with units s, m, h, d, w. It returns seconds.
func parseSpan(v string) (int64, error) {
	var total, n int64
	digits := 0
	for i := range len(v) {
		c := v[i]
		if c >= '0' && c <= '9' {
			if n > (math.MaxInt64-9)/10 {
				return 0, errExpiry
			}
			n, digits = n*10+int64(c-'0'), digits+1
			continue
		}
		unit := map[byte]int64{'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 7 * 86400}[c]
		if unit == 0 || digits == 0 || n > (math.MaxInt64-total)/unit {
			return 0, errExpiry
		}
		total, n, digits = total+n*unit, 0, 0
	}
	if digits > 0 {
		if total > 0 || digits != len(v) { // 1d12: twelve of what?
			return 0, errExpiry
		}
		total = n
	}
	if v == "" {
		return 0, errExpiry
	}
	return total, nil
}

// parseExpiry returns the deadline in Unix seconds, after now.
func parseExpiry(v string, now int64) (int64, error) {
	deadline := int64(0)
	if at, ok := strings.CutPrefix(v, "@"); ok {
		n, err := strconv.ParseUint(at, 10, 63)
		if err != nil {
			return 0, errExpiry
		}
		deadline = int64(n)
	} else if strings.ContainsAny(v, "-:T") {
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return 0, errExpiry
		}
		deadline = t.Unix()
	} else {
		n, err := parseSpan(v)
		if err != nil {
			return 0, err
		}
		deadline = now + min(n, math.MaxInt64-now)
	}
	if deadline <= now {
		return 0, errExpiry
	}
	return deadline, nil
}

// set takes one option from header or body. Given twice, both must say the same.
func (o *options) set(name, v string) error {
	clash := badOption("the option " + name + " is given twice, with different values")
	switch name {
	case "expiry":
		var at int64
		if v != "" || !o.changing {
			var err error
			if at, err = parseExpiry(v, o.now); err != nil {
				return err
			}
		}
		if o.expiry && o.deadline != at {
			return clash
		}
		o.expiry, o.deadline = true, at
	case "burn_after_read":
		var burns bool
		switch v {
		case "true", "1":
			burns = true
		case "false", "0":
		default:
			return badOption("burn_after_read takes true, false, 1 or 0")
		}
		if o.burn && o.burns != burns {
			return clash
		}
		o.burn, o.burns = true, burns
	case "password":
		if v == "" && !o.changing || len(v) > passwordMost || strings.Trim(v, " \t") != v || strings.ContainsFunc(v, unicode.IsControl) {
			return &apiError{status: 400, code: "bad_password", text: "the password can't be used",
				hint: "1 to 1024 bytes, no control characters, no blank at either end"}
		}
		if o.password && subtle.ConstantTimeCompare([]byte(o.pass), []byte(v)) == 0 {
			return clash
		}
		o.password, o.pass = true, v
	case "display_name":
		n, removes := utf8.RuneCountInString(v), v == "" && o.changing
		if !removes && (!o.certified || !utf8.ValidString(v) || n == 0 || n > nameMost || strings.ContainsFunc(v, unicode.IsControl)) {
			return &apiError{status: 400, code: "bad_display_name", text: "the display name can't be used",
				hint: "for certificate holders: 1 to 128 characters, no control characters"}
		}
		if o.name && o.display != v {
			return clash
		}
		o.name, o.display = true, v
	case "read_proof":
		b, err := hex.DecodeString(v)
		if err != nil || len(b) != sha256.Size {
			return badOption("X-Read-Proof-SHA256 takes 64 hex digits")
		}
		o.proof, o.proofHash = true, b
	}
	return nil
}

// setExpiry takes the expiry of a JSON body: whole seconds as a number, or any form as a string.
func (o *options) setExpiry(value any) error {
	switch v := value.(type) {
	case string:
		return o.set("expiry", v)
	case json.Number:
		if strings.Trim(v.String(), "0123456789") == "" {
			return o.set("expiry", v.String())
		}
		return errExpiry
	}
	return badJSON("the member expiry is of the wrong type")
}

// headerOptions reads the option headers; each at most once.
func (q *request) headerOptions(changing bool) (*options, error) {
	o := &options{now: q.now, changing: changing, certified: q.tier != anonymous}
	for _, h := range [...][2]string{{"X-Expiry", "expiry"}, {"X-Burn-After-Read", "burn_after_read"}, {"X-Paste-Password", "password"},
		{"X-Display-Name", "display_name"}, {"X-Read-Proof-Sha256", "read_proof"}} {
		values := q.r.Header[h[0]]
		if len(values) > 1 {
			return nil, badOption(h[0] + " is repeated")
		}
		if len(values) == 1 {
			if err := o.set(h[1], values[0]); err != nil {
				return nil, err
			}
		}
	}
	return o, nil
}

// ---- receiving content ----

// intake is a content on its way in: at most one chunk in memory, full ones already stored.
type intake struct {
	q      *request
	up     *upload
	limit  int64
	buf    []byte // pooled; what is not yet stored
	size   int64
	hash   hash.Hash
	head   []byte       // the first headSize bytes
	tail   []byte       // start of a UTF-8 sequence that the next bytes end
	text   bool         // so far UTF-8 without NUL
	sum    [32]byte     // SHA-256, once complete
	freq   *[256]uint64 // counts of byte values, where entropy is asked for
	unpaid int64        // bytes charged to the client and not stored yet
}

func tooLarge(limit int64, hint string) error {
	return &apiError{status: 413, code: "too_large", text: fmt.Sprintf("the content is larger than %d bytes", limit), hint: hint, extra: []member{{"limit", limit}}}
}

// receive checks the announced length, asks for the work, takes an upload slot and reads the body in any of its forms;
// options of the body go to o. The caller must close the intake.
func (s *server) receive(q *request, o *options) (in *intake, err error) {
	limit := s.maxSize(q.tier)
	declared := ""
	if v := q.r.Header["Content-Type"]; len(v) > 0 {
		declared = v[0]
	}
	form, params := mediaType(declared)
	most := limit
	switch form {
	case "application/json":
		if q.r.ContentLength > jsonMost {
			return nil, tooLarge(jsonMost, "send the content raw, options as headers")
		}
		most = math.MaxInt64
	case "multipart/form-data":
		most += multipartExtra
	}
	if q.r.ContentLength > most {
		return nil, tooLarge(limit, "")
	}
	if err := s.admit(q); err != nil {
		return nil, err
	}
	// Asked for the whole, less what the form adds, and charged as it comes: who is cut off in the middle pays for the first half at
	// each try, and Retry-After could only tell when the next piece would pass.
	if d := s.limiter.peek(rateBytes, q.key, q.r.ContentLength-(most-limit), q.factor, q.start); !d.allowed {
		return nil, q.rateLimited(rateBytes, d)
	}
	if !s.uploads.acquire(q.r.Context(), q.key, transferWait) {
		return nil, errTransfers
	}
	defer s.uploads.release(q.key)
	in = &intake{q: q, up: s.store.newUpload(q.quota()), limit: limit, buf: *chunkPool.Get().(*[]byte), hash: sha256.New(), text: true}
	if s.cfg.minEntropy > 0 {
		in.freq = new([256]uint64)
	}
	defer func() {
		if err != nil {
			in.close()
			in = nil
		}
	}()
	switch form {
	case "application/json":
		err = in.json(q, o)
	case "multipart/form-data":
		err = in.multipart(q, params["boundary"], o)
	default:
		o.declared = declared
		if err = in.read(q); err != nil && !isAPI(err) {
			err = bodyError(err)
		}
	}
	if err == nil {
		in.hash.Sum(in.sum[:0])
	}
	return in, err
}

var errTransfers = &apiError{status: 429, code: "too_many_transfers", text: "too many transfers at once", hint: "wait for one to end", retry: transferRetry}

func isAPI(err error) bool {
	var e *apiError
	return errors.As(err, &e) || errors.Is(err, errBusy) || errors.Is(err, errFull) || errors.Is(err, errClosed)
}

// close gives up what was not made a paste. It may be called after the paste was made.
func (in *intake) close() {
	if in.buf != nil {
		in.up.abort()
		in.q.s.limiter.give(rateBytes, in.q.key, in.unpaid, in.q.factor, in.q.start)
		b := in.buf[:0]
		chunkPool.Put(&b)
		in.buf = nil
	}
}

// kept tells that the content has its paste: close has nothing to give up any more.
func (in *intake) kept() { in.up.seq, in.unpaid = 0, 0 }

// read takes the content from r to its end. Errors of r come back as they are.
func (in *intake) read(r io.Reader) error {
	for {
		if len(in.buf) == cap(in.buf) {
			if err := in.up.add(in.buf); err != nil {
				return err
			}
			in.buf, in.unpaid = in.buf[:0], 0
		}
		n, err := r.Read(in.buf[len(in.buf):cap(in.buf)])
		if n > 0 {
			b := in.buf[len(in.buf) : len(in.buf)+n]
			in.buf = in.buf[:len(in.buf)+n]
			if in.size += int64(n); in.size > in.limit {
				return tooLarge(in.limit, "")
			}
			if d := in.q.s.limiter.take(rateBytes, in.q.key, int64(n), in.q.factor, in.q.s.now()); !d.allowed {
				return in.q.rateLimited(rateBytes, d)
			}
			in.unpaid += int64(n)
			in.look(b)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// look hashes b, keeps the first bytes for the magic numbers and goes on checking for UTF-8.
func (in *intake) look(b []byte) {
	in.hash.Write(b)
	if in.freq != nil {
		for _, c := range b {
			in.freq[c]++
		}
	}
	if len(in.head) < headSize {
		in.head = append(in.head, b[:min(len(b), headSize-len(in.head))]...)
	}
	if !in.text {
		return
	}
	if bytes.IndexByte(b, 0) >= 0 {
		in.text = false
		return
	}
	if len(in.tail) > 0 { // complete the sequence that the last piece left open
		for len(b) > 0 && !utf8.FullRune(in.tail) {
			in.tail, b = append(in.tail, b[0]), b[1:]
		}
		if !utf8.FullRune(in.tail) {
			return
		}
		if _, n := utf8.DecodeRune(in.tail); n != len(in.tail) { // an invalid sequence has length 1
			in.text = false
			return
		}
		in.tail = in.tail[:0]
	}
	end := len(b)
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				end = len(b) - i
			}
			break
		}
	}
	in.text = utf8.Valid(b[:end])
	in.tail = append(in.tail[:0], b[end:]...)
}

func badJSON(why string) error {
	return &apiError{status: 400, code: "bad_json", text: "bad JSON: " + why,
		hint: `{"content": "...", "mime_type"?, "expiry"?, "burn_after_read"?, "password"?, "display_name"?}`}
}

// readJSON reads a whole JSON body: one object of known members, each at most once, in valid UTF-8 without lone surrogates,
// which encoding/json would replace (RFC 8259, 8.2). accept gets a string, a json.Number or a bool.
func (q *request) readJSON(accept func(name string, value any) error) error {
	raw, err := io.ReadAll(io.LimitReader(q, jsonMost+1))
	if err != nil {
		return bodyError(err)
	}
	if len(raw) > jsonMost {
		return tooLarge(jsonMost, "send the content raw, options as headers")
	}
	if !utf8.Valid(raw) {
		return badJSON("not UTF-8")
	}
	if !json.Valid(raw) || loneSurrogate(raw) {
		return badJSON("not an object in RFC 8259's grammar")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if t, _ := dec.Token(); t != json.Delim('{') {
		return badJSON("not an object")
	}
	seen := map[string]bool{}
	for dec.More() {
		key, err := dec.Token()
		name, _ := key.(string)
		if err != nil || seen[name] {
			return badJSON("a repeated member")
		}
		seen[name] = true
		value, err := dec.Token()
		if err != nil {
			return badJSON("not an object")
		}
		if err := accept(name, value); err != nil {
			return err
		}
	}
	return nil
}

// loneSurrogate looks for \uD800 to \uDFFF escapes without their pair in valid JSON.
func loneSurrogate(raw []byte) bool {
	unit := func(i int) uint64 {
		if i+6 > len(raw) || raw[i] != '\\' || raw[i+1] != 'u' {
			return 0
		}
		n, _ := strconv.ParseUint(string(raw[i+2:i+6]), 16, 16)
		return n
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		switch n := unit(i); {
		case n >= 0xdc00 && n <= 0xdfff:
			return true
		case n >= 0xd800 && n <= 0xdbff:
			if low := unit(i + 6); low < 0xdc00 || low > 0xdfff {
				return true
			}
			i += 11
		default:
			i++ // the escaped character
		}
	}
	return false
}

func (in *intake) json(q *request, o *options) error {
	var content string
	err := q.readJSON(func(name string, value any) error {
		text, isText := value.(string)
		switch name {
		case "content":
			content = text
		case "mime_type":
			o.declared = text
		case "expiry":
			return o.setExpiry(value)
		case "burn_after_read":
			if b, ok := value.(bool); ok {
				return o.set(name, strconv.FormatBool(b))
			}
			isText = false
		case "password", "display_name":
		default:
			return badJSON("an unknown member")
		}
		if !isText {
			return badJSON("the member " + name + " is of the wrong type")
		}
		if name == "content" || name == "mime_type" {
			return nil
		}
		return o.set(name, text)
	})
	if err != nil {
		return err
	}
	return in.read(strings.NewReader(content))
}

// multipart reads RFC 7578 parts as they come: options by their names, and the one other part as the content.
func (in *intake) multipart(q *request, boundary string, o *options) error {
	damaged := &apiError{status: 400, code: "bad_option", text: "the multipart body is damaged or cut short"}
	if boundary == "" {
		return damaged
	}
	body := &multipartBody{r: q, left: in.limit + multipartExtra}
	// The parser takes an end within a part's header for the last boundary; an end that is an error is none to it. The line
	// end is for a last boundary without one, which RFC 2046 allows.
	mr := multipart.NewReader(io.MultiReader(body, strings.NewReader("\r\n"), failingReader{io.ErrUnexpectedEOF}), boundary)
	failed := func(err error) error {
		switch {
		case isAPI(err):
			return err
		case body.left < 0:
			return tooLarge(in.limit, "")
		case body.head < 0:
			return badOption("the header of a part is too long")
		case body.err != nil:
			return bodyError(body.err)
		}
		return damaged
	}
	found := false
	for i := 0; ; i++ {
		body.head = partHeadMost
		part, err := mr.NextRawPart()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return failed(err)
		}
		if i == multipartMost {
			return badOption("more than 16 parts")
		}
		body.head = math.MaxInt64 // what follows is content
		switch name := part.FormName(); name {
		case "expiry", "burn_after_read", "password", "display_name":
			v, err := io.ReadAll(io.LimitReader(part, optionMost+1))
			if err != nil {
				return failed(err)
			}
			if len(v) > optionMost {
				return badOption("the option " + name + " is longer than 4 KiB")
			}
			if err := o.set(name, string(v)); err != nil {
				return err
			}
		default:
			if found {
				return badOption("more than one content")
			}
			found = true
			o.declared = part.Header.Get("Content-Type")
			if err := in.read(part); err != nil {
				return failed(err)
			}
		}
	}
}

// multipartBody ends a body that grows past what its parts may hold, or whose part headers do: the parser would keep 10 MiB
// of those. It remembers how the body itself failed.
type multipartBody struct {
	r          io.Reader
	left, head int64
	err        error // other than io.EOF
}

func (m *multipartBody) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	m.left -= int64(n)
	m.head -= int64(n)
	if err != nil && err != io.EOF {
		m.err = err
	}
	if m.left < 0 || m.head < 0 {
		return 0, errors.New("too long")
	}
	return n, err
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// ---- MIME ----

var (
	mimeShape    = regexp.MustCompile(`^[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*$`)
	charsetShape = regexp.MustCompile(`^[A-Za-z0-9._-]{1,30}$`)
	inlineTypes  = []string{"text/plain", "application/json", "image/png", "image/jpeg", "image/gif", "image/webp", "image/avif"}
)

// mimeOf keeps a declared type that says something, else looks at the bytes.
func mimeOf(declared string, in *intake) string {
	t, params := mediaType(declared)
	switch {
	case len(t) > 127 || !mimeShape.MatchString(t), strings.HasPrefix(t, "multipart/"), strings.HasPrefix(t, "message/"):
	case t == "application/octet-stream", t == "application/x-www-form-urlencoded", t == "text/plain":
	default:
		if c := params["charset"]; charsetShape.MatchString(c) {
			t += "; charset=" + c
		}
		return t
	}
	if t := magic(in.head); t != "" {
		return t
	}
	if in.text && len(in.tail) == 0 {
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// magic recognises a type by the first bytes. Short marks need a sane header behind them: text that starts with MZ is text.
func magic(b []byte) string {
	at := func(i int, s string) bool { return len(b) >= i+len(s) && string(b[i:i+len(s)]) == s }
	byteAt := func(i int) byte {
		if i < len(b) {
			return b[i]
		}
		return 0
	}
	switch {
	case at(0, "\x89PNG\r\n\x1a\n"):
		return "image/png"
	case at(0, "\xff\xd8\xff") && byteAt(3) >= 0xc0:
		return "image/jpeg"
	case at(0, "GIF87a"), at(0, "GIF89a"):
		return "image/gif"
	case at(0, "RIFF") && at(8, "WEBP"):
		return "image/webp"
	case at(0, "RIFF") && at(8, "WAVE"):
		return "audio/wav"
	case at(0, "%PDF-"):
		return "application/pdf"
	case at(0, "PK\x03\x04"), at(0, "PK\x05\x06"):
		return "application/zip"
	case at(0, "\x1f\x8b\x08") && byteAt(3)&0xe0 == 0:
		return "application/gzip"
	case at(0, "BZh") && byteAt(3) >= '1' && byteAt(3) <= '9' && (at(4, "1AY&SY") || at(4, "\x17\x72\x45\x38\x50\x90")):
		return "application/x-bzip2"
	case at(0, "\xfd7zXZ\x00"):
		return "application/x-xz"
	case at(0, "\x28\xb5\x2f\xfd"):
		return "application/zstd"
	case at(0, "7z\xbc\xaf\x27\x1c"):
		return "application/x-7z-compressed"
	case at(257, "ustar"):
		return "application/x-tar"
	case at(0, "\x7fELF"):
		return "application/x-elf"
	case at(0, "MZ") && len(b) >= 64 && peHeader(b):
		return "application/vnd.microsoft.portable-executable"
	case at(0, "\x00asm"):
		return "application/wasm"
	case at(0, "SQLite format 3\x00"):
		return "application/vnd.sqlite3"
	case at(0, "ID3") && byteAt(3) < 0x10 && byteAt(4) < 0x10 && len(b) >= 10 && (b[6]|b[7]|b[8]|b[9])&0x80 == 0 && byteAt(5)&0x0f == 0,
		mp3Frame(b):
		return "audio/mpeg"
	case at(0, "fLaC"):
		return "audio/flac"
	case at(0, "OggS"):
		return "audio/ogg"
	case at(0, "\x00\x00") && at(4, "ftypavif"): // the box's size goes before: a text has none
		return "image/avif"
	case at(0, "\x00\x00") && at(4, "ftyp"):
		return "video/mp4"
	case at(0, "\x1a\x45\xdf\xa3"):
		return "video/webm"
	case at(0, "-----BEGIN ") && bytes.Contains(b[:min(len(b), 100)], []byte("-----\n")), at(0, "-----BEGIN ") && bytes.Contains(b[:min(len(b), 100)], []byte("-----\r\n")):
		if at(0, "-----BEGIN AGE ENCRYPTED FILE-----") {
			return "application/x-age"
		}
		return "application/x-pem-file"
	case at(0, "age-encryption.org/v1\n"):
		return "application/x-age"
	}
	return ""
}

// peHeader follows e_lfanew to the PE signature, or where that lies beyond what we see, wants it plausible.
func peHeader(b []byte) bool {
	off := int(binary.LittleEndian.Uint32(b[60:]))
	if off+4 <= len(b) {
		return off >= 4 && string(b[off:off+4]) == "PE\x00\x00"
	}
	return off > 0 && off < 1<<20 && bytes.IndexByte(b[:64], 0) >= 0
}

// mp3Frame wants two MPEG audio layer III frames, one behind the other where we see that far (ISO 11172-3, 2.4.1.3).
func mp3Frame(b []byte) bool {
	size := func(b []byte) int {
		if len(b) < 4 || b[0] != 0xff || b[1]&0xe6 != 0xe2 || b[1]&0x18 == 0x08 { // sync, layer III, no reserved version
			return 0
		}
		v1 := b[1]&0x18 == 0x18
		rates := [...]int{0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0}
		samples, hz := 72, [...]int{22050, 24000, 16000, 0}
		if v1 {
			rates = [...]int{0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0}
			samples, hz = 144, [...]int{44100, 48000, 32000, 0}
		}
		kbps, f := rates[b[2]>>4], hz[b[2]>>2&3]
		if kbps == 0 || f == 0 {
			return 0
		}
		if b[1]&0x18 == 0 { // MPEG 2.5
			f /= 2
		}
		return samples*kbps*1000/f + int(b[2]>>1&1)
	}
	n := size(b)
	if n == 0 {
		return false
	}
	return n >= len(b) || size(b[n:]) > 0 || len(b)-n < 4
}

// disposition lets a browser show only what can't act: all else is a download. Whatever ends in +xml is a document with scripts
// to it, audio/x+xml too (WHATWG MIME Sniffing, 4.6).
func disposition(mime string) string {
	t, _, _ := strings.Cut(mime, ";")
	if slices.Contains(inlineTypes, t) || (strings.HasPrefix(t, "audio/") || strings.HasPrefix(t, "video/")) && !strings.HasSuffix(t, "+xml") {
		return "inline"
	}
	return "attachment"
}

// ---- creating ----

// checkContent is what can be said of a whole content before anything is written.
func (s *server) checkContent(in *intake) error {
	if in.size == 0 {
		return &apiError{status: 400, code: "empty_content", text: "the content is empty"}
	}
	if in.size < s.cfg.minSize {
		return &apiError{status: 400, code: "too_small", text: fmt.Sprintf("the content is smaller than %d bytes", s.cfg.minSize)}
	}
	if in.freq != nil && in.size >= entropyFrom {
		if e := entropy(in.freq, in.size); e < s.cfg.minEntropy {
			decimals := func(f float64) json.Number { return json.Number(strconv.FormatFloat(f, 'f', 2, 64)) }
			return &apiError{status: 400, code: "low_entropy", text: "the content repeats itself too much",
				extra: []member{{"entropy", decimals(e)}, {"min_entropy", decimals(s.cfg.minEntropy)}}}
		}
	}
	return nil
}

// permit is the right to one creation: work that was done, or one of the client's free ones. It costs nothing unless the
// creation succeeds.
type permit struct {
	free    int64  // units of the allowance, given back on failure
	nonce   []byte // of the work, spent with the creation
	expires int64
}

// admit asks for the work of a creation (api.md section 6) and notes the permit on the request.
func (s *server) admit(q *request) error {
	if s.cfg.powDifficulty == 0 || q.who.vouched {
		return nil
	}
	nonce, expires, err := s.checkWork(q, purposeCreate, s.flood.least(q.start))
	if err == nil {
		q.permit.nonce, q.permit.expires = nonce[:], expires
		return nil
	}
	if errors.Is(err, errPowMissing) {
		if cost, ok := s.limiter.freeTake(q.key, s.flood.elevated(q.start), q.start); ok {
			q.permit.free = cost
			return nil
		}
	}
	return s.powRefused(q, purposeCreate, s.flood.difficulty(q.start), err)
}

// created uses the permit up: the creation counts for the anti-flood.
func (q *request) created() {
	if q.permit.nonce != nil {
		q.s.metrics.workSolved.Add(1)
	}
	if !q.who.vouched {
		q.s.flood.note(q.key, q.s.now()) // in the order in which they are made: how long a body took is no matter
	}
	q.permit = permit{}
}

// release gives back what a failed creation reserved.
func (q *request) release() {
	if q.permit.free > 0 {
		q.s.limiter.give(rateFree, q.key, q.permit.free, 1, q.start)
	}
}

// checkWork verifies the proof in the request's headers; each may stand there once. expires is until when its nonce must be known as
// spent: one that is taken in time is spent behind its body, and another request may have come with it.
func (s *server) checkWork(q *request, purpose string, least int) (nonce [16]byte, expires int64, err error) {
	token, solution := q.r.Header["X-Pow-Token"], q.r.Header["X-Pow-Solution"]
	if len(token) > 1 || len(solution) > 1 {
		return nonce, 0, errPowMalformed
	}
	nonce, expires, err = s.work.verify(purpose, strings.Join(token, ""), strings.Join(solution, ""), least, time.Unix(q.now, 0))
	return nonce, expires + seconds(s.cfg.transferTimeout+time.Minute), err
}

// powRefused answers a missing or bad proof with a fresh challenge.
func (s *server) powRefused(q *request, purpose string, difficulty int, why error) error {
	code := "pow_failed"
	if errors.Is(why, errPowMissing) {
		code = "pow_required"
	} else {
		s.metrics.workFailed.Add(1)
	}
	return &apiError{status: 400, code: code, text: why.Error(), extra: []member{{"challenge", s.challengeMembers(q, purpose, difficulty)}},
		hint: q.proxyHint("find N with SHA-256(nonce:N) beginning with difficulty zero bits, send X-PoW-Token: token and X-PoW-Solution: N")}
}

// challengeMembers issues a challenge.
func (s *server) challengeMembers(q *request, purpose string, difficulty int) []member {
	elevated, base, ttl := s.flood.elevated(q.start), s.cfg.powDifficulty, s.cfg.powTTL
	if purpose == purposeRegister {
		elevated, base = false, s.cfg.registerPow
	}
	if elevated {
		ttl *= 4
	}
	s.metrics.workIssued.Add(1)
	c := s.work.issue(purpose, difficulty, ttl, time.Unix(q.now, 0))
	return []member{{"enabled", true}, {"nonce", c.nonce}, {"difficulty", c.difficulty}, {"base_difficulty", base}, {"elevated", elevated},
		{"expires", c.expires}, {"token", c.token}, {"free", s.limiter.freeLeft(q.key, elevated, q.start)}}
}

func (s *server) showChallenge(q *request) error {
	if s.cfg.powDifficulty == 0 {
		return q.writeJSON(200, []member{{"enabled", false}, {"difficulty", 0}})
	}
	return q.writeJSON(200, s.challengeMembers(q, purposeCreate, s.flood.difficulty(q.start)))
}

// countCreation is the first half of every creation's writer operation: the duplicate, then the work.
func (s *server) countCreation(t *writeTx, q *request, sum []byte) error {
	if s.cfg.dedupMax > 0 || s.cfg.dedupAll > 0 {
		h := hmac.New(sha256.New, s.dedupKey[:])
		h.Write(sum)
		if s.cfg.dedupAll == 0 { // then each client has contents of his own, and no list grows beyond DEDUP_MAX
			h.Write(append(q.key.id[:], q.key.kind))
		}
		window := int64(s.cfg.dedupWindow / time.Second)
		v := sighting{content: int64(binary.BigEndian.Uint64(h.Sum(nil))), client: q.key, at: int64(s.now().Sub(s.limiter.start) / time.Second)}
		own, first, err := t.countDuplicate(v, s.cfg.dedupMax, s.cfg.dedupAll)
		if errors.Is(err, errDuplicate) {
			return &apiError{status: 429, code: "duplicate_content", text: "this content was stored too often", retry: int(max(1, first+window-v.at)),
				extra: []member{{"count", own}, {"window_seconds", window}}}
		}
		if err != nil {
			return err
		}
	}
	if q.permit.nonce == nil {
		return nil
	}
	err := t.spend(q.permit.nonce, q.permit.expires)
	if errors.Is(err, errSpent) {
		return s.powRefused(q, purposeCreate, s.flood.difficulty(q.start), err)
	}
	return err
}

// passwordKey derives what is stored for a password: salt | key.
func (s *server) passwordKey(q *request, pass string) ([]byte, error) {
	salt := make([]byte, 32)
	rand.Read(salt)
	key, err := s.derive(q, pass, salt, func() error { return nil })
	return append(salt, key...), err
}

// derive runs PBKDF2 in a slot: a tenth of a second of one core that strangers can ask for. before runs in the slot too.
func (s *server) derive(q *request, pass string, salt []byte, before func() error) (key []byte, err error) {
	if d := s.limiter.take(rateAuth, q.key, 1, 1, q.start); !d.allowed {
		return nil, q.rateLimited(rateAuth, d)
	}
	queue := s.kdf.do(q.r.Context(), q.key, func() {
		if err = before(); err == nil {
			key, err = pbkdf2.Key(sha256.New, pass, salt, kdfRounds, 32)
		}
	})
	if errors.Is(queue, errBusy) { // nothing was derived. Who leaves the queue pays, or one client could hold it for nothing
		s.limiter.give(rateAuth, q.key, 1, 1, q.start)
	}
	return key, cmp.Or(queue, err)
}

// mayCreate asks for the certificate that the operator demands.
func (s *server) mayCreate(q *request) error {
	if s.cfg.requireCert == "any" && q.tier == anonymous || s.cfg.requireCert == "trusted" && q.tier < trusted {
		return &apiError{status: 401, code: "certificate_required", text: "creating needs a client certificate"}
	}
	return nil
}

func (s *server) createPaste(q *request) error {
	if err := s.mayCreate(q); err != nil {
		return err
	}
	o, err := q.headerOptions(false)
	if err != nil {
		return err
	}
	in, err := s.receive(q, o)
	if err != nil {
		return err
	}
	defer in.close()
	if err := s.checkContent(in); err != nil {
		return err
	}
	p := &paste{created: q.now}
	q.own(p)
	if err := s.apply(q, p, o, in); err != nil {
		return err
	}
	if p.expires <= s.now().Unix() {
		return &apiError{status: 400, code: "bad_expiry", text: "the content took longer to come than it was to be kept"}
	}
	token := p.newToken()
	for try := 0; ; try++ {
		p.id = newID(int(s.cfg.idLength))
		err = s.store.create(p, in.up, in.buf, func(t *writeTx) error { return s.countCreation(t, q, in.sum[:]) })
		if !errors.Is(err, errTaken) || try == 8 {
			break
		}
	}
	if err != nil {
		return err
	}
	in.kept()
	q.created()
	s.metrics.pastes.created.Add(1)
	return s.answerCreated(q, p, token)
}

// apply writes the options and the content of a creation or change onto p.
func (s *server) apply(q *request, p *paste, o *options, in *intake) error {
	if in != nil {
		p.size, p.sha256, p.mime, p.modified = in.size, in.sum[:], mimeOf(o.declared, in), q.now
	}
	if o.expiry && o.deadline != 0 {
		p.expires, p.life = min(o.deadline, q.now+int64(s.longest(q.tier)/time.Second), p.created+int64(s.cfg.maxExpiry/time.Second)), 0
	} else if o.expiry || p.expires == 0 {
		p.life = int64(s.life(q.tier) / time.Second)
		p.expires = min(q.now+p.life, p.created+int64(s.cfg.maxExpiry/time.Second))
	}
	if o.burn {
		p.burn = o.burns
	}
	if o.name {
		p.name = o.display
	}
	if o.proof {
		p.proof = o.proofHash
	}
	if o.password {
		p.password = nil
		if o.pass != "" {
			var err error
			if p.password, err = s.passwordKey(q, o.pass); err != nil {
				return err
			}
		}
	}
	return nil
}

func newID(length int) string {
	b := make([]byte, (length+1)/2)
	rand.Read(b)
	return hex.EncodeToString(b)[:length]
}

// members are the fields of a paste's metadata; mine adds what only owner and admin see.
func (s *server) members(p *paste, mine bool) []member {
	m := []member{{"id", p.id}, {"url", s.cfg.prefix + "/" + p.id}, {"raw", s.cfg.prefix + "/" + p.id + "/raw"}, {"mime_type", p.mime}, {"size", p.size}}
	if p.open() { // else it would let anyone try guesses off line
		m = append(m, member{"sha256", hex.EncodeToString(p.sha256)})
	}
	m = append(m, member{"created_at", p.created}, member{"expires_at", p.expires})
	if mine && p.owner != "" {
		m = append(m, member{"owner", p.owner})
	}
	if p.burn {
		m = append(m, member{"burn_after_read", true})
	}
	if p.password != nil {
		m = append(m, member{"password_protected", true})
	}
	if p.proof != nil {
		m = append(m, member{"read_proof", true})
	}
	if mine && p.name != "" {
		m = append(m, member{"display_name", p.name})
	}
	return m
}

func (s *server) answerCreated(q *request, p *paste, token string) error {
	h := q.w.Header()
	h["Location"] = []string{s.cfg.prefix + "/" + p.id}
	h["X-Delete-Token"] = []string{token}
	form, _ := mediaType(q.r.Header.Get("Content-Type"))
	if q.wantsText(q.r.Method == "PUT" || form == "multipart/form-data") {
		link := q.baseURL() + "/" + p.id
		if !p.burn {
			link += "/raw"
		}
		q.writeBytes(201, "text/plain; charset=utf-8", []byte(link+"\n"))
		return nil
	}
	m := s.members(p, true)
	i := slices.IndexFunc(m, func(f member) bool { return f.name == "expires_at" })
	if !p.open() { // the creator has just sent it: 201 shows the hash of what was stored
		m = slices.Insert(m, i-1, member{"sha256", hex.EncodeToString(p.sha256)})
		i++
	}
	return q.writeJSON(201, slices.Insert(m, i+1, member{"delete_token", token}))
}

// ---- reading ----

// idShaped reports whether v could be an id: 8 to 64 lower-case hex digits.
func idShaped(v string) bool { return len(v) >= 8 && len(v) <= 64 && isHex(v, len(v)) }

// find looks up the paste of the path.
func (s *server) find(q *request, id string) (*paste, []byte, error) {
	if !idShaped(id) {
		return nil, nil, errNotFound
	}
	q.paste = id
	if q.route.class == classCreate { // reads were asked before
		if err := q.ask(rateMiss); err != nil {
			return nil, nil, err
		}
	}
	return s.store.get(id, q.now)
}

// mine reports whether the caller is the owner or an admin.
func (q *request) mine(p *paste) bool { return q.tier == admin || q.who.owns(p) }

func (s *server) showPaste(q *request) error {
	p, _, err := s.find(q, q.r.PathValue("id"))
	if err != nil {
		return err
	}
	return q.writeJSON(200, s.members(p, q.mine(p)))
}

var previewAgents = []string{"bot", "crawler", "spider", "preview", "facebookexternalhit", "whatsapp", "slack", "discord", "skype", "embedly", "urlscan"}

// preview recognises requests that no person made: a link preview must not burn a paste.
func preview(r *http.Request) bool {
	for _, name := range [...]string{"Sec-Purpose", "Purpose", "X-Purpose", "X-Moz"} {
		for _, v := range r.Header[name] {
			v = strings.ToLower(v)
			if strings.Contains(v, "prefetch") || strings.Contains(v, "prerender") || strings.Contains(v, "preview") {
				return true
			}
		}
	}
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.Header.Get("Sec-Fetch-Mode") != "navigate" {
		return true
	}
	for _, agent := range r.Header["User-Agent"] {
		agent = strings.ToLower(agent)
		if slices.ContainsFunc(previewAgents, func(a string) bool { return strings.Contains(agent, a) }) {
			return true
		}
	}
	return false
}

// checkProof wants the 32 bytes whose SHA-256 was given at creation.
func (q *request) checkProof(p *paste) error {
	got := q.r.Header["X-Read-Proof"]
	if len(got) == 1 && len(got[0]) == 64 {
		if b, err := hex.DecodeString(got[0]); err == nil {
			if sum := sha256.Sum256(b); subtle.ConstantTimeCompare(sum[:], p.proof) == 1 {
				return nil
			}
		}
	}
	if len(got) > 0 { // a browser or a preview that has the link alone guesses nothing
		q.charge(rateAuth)
	}
	return &apiError{status: 403, code: "read_proof_required", text: "reading this paste needs its read proof", hint: "open the whole link with fpaste get"}
}

// checkPassword derives and compares; nothing is burned by a wrong one.
func (s *server) checkPassword(q *request, p *paste) error {
	pass := q.r.Header.Get("X-Paste-Password")
	if pass == "" {
		_, pass, _ = q.r.BasicAuth()
	}
	if pass == "" {
		return &apiError{status: 401, code: "password_required", text: "this paste needs a password", hint: "curl -u :password URL",
			header: [2]string{"Www-Authenticate", `Basic realm="paste", charset="UTF-8"`}}
	}
	wrong := &apiError{status: 403, code: "password_wrong", text: "wrong password"}
	if len(pass) > passwordMost {
		q.charge(rateAuth)
		return wrong
	}
	refused := func(err error) error { return s.powRefused(q, purposePassword, int(s.cfg.powDifficulty), err) }
	spend := func() error { return nil }
	if s.cfg.powDifficulty > 0 && q.permit.nonce == nil && s.guesses.guessed(p.id, q.start) {
		nonce, expires, err := s.checkWork(q, purposePassword, int(s.cfg.powDifficulty))
		if err != nil {
			return refused(err)
		}
		spend = func() error {
			err := s.store.do(0, func(t *writeTx) error { return t.spend(nonce[:], expires) })
			if err == nil {
				q.permit.nonce = nonce[:] // a content that is replaced meanwhile is not another try
			}
			return err
		}
	}
	key, err := s.derive(q, pass, p.password[:32], spend)
	if errors.Is(err, errSpent) {
		return refused(err)
	}
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(key, p.password[32:]) != 1 {
		s.guesses.noteWrong(p.id, q.start)
		return wrong
	}
	return nil
}

// conditional reports whether a request has one of the headers that RFC 9110 gives a say in what of a content is sent.
func conditional(r *http.Request) bool {
	for _, name := range [...]string{"Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"} {
		if r.Header[name] != nil {
			return true
		}
	}
	return false
}

// openAnswer is what every answer with a paste's open content has in its header, made once for those in the cache.
type openAnswer struct {
	once                                      sync.Once
	kind, disposition, etag, modified, length []string
}

// header sets what http.ServeContent does not set by itself, and returns the rest for who answers without it.
func (p *paste) header(h http.Header) *openAnswer {
	a := p.answer
	a.once.Do(func() {
		a.kind, a.disposition, a.etag = []string{p.mime}, []string{disposition(p.mime)}, []string{`"` + hex.EncodeToString(p.sha256) + `"`}
		a.modified, a.length = []string{time.Unix(p.modified, 0).UTC().Format(http.TimeFormat)}, []string{strconv.FormatInt(p.size, 10)}
	})
	h["Content-Type"], h["Content-Disposition"], h["Cache-Control"], h["Etag"] = a.kind, a.disposition, hRevalidate, a.etag
	return a
}

// serveContent answers conditions and ranges (RFC 9110, 13 and 14).
func (q *request) serveContent(modified time.Time, content io.ReadSeeker) error {
	q.w.serving = true
	http.ServeContent(q.w, q.r, "", modified, content)
	q.w.serving = false
	if q.w.status == http.StatusPreconditionFailed {
		return &apiError{status: 412, code: "precondition_failed", text: "the content is another by now"}
	}
	return nil
}

// rawPaste serves the content. One that was replaced after its row was read is looked up again, with all checks.
func (s *server) rawPaste(q *request) error {
	if q.r.PathValue("view") != "raw" {
		return errNotFound
	}
	for range 4 {
		if err := s.sendContent(q); !errors.Is(err, errGone) || q.w.status != 0 {
			return err
		}
	}
	return errBusy
}

// sendContent answers 404, preview, read proof, password, burn, in this order, for GET and HEAD alike.
func (s *server) sendContent(q *request) error {
	p, body, err := s.find(q, q.r.PathValue("id"))
	if err != nil {
		return err
	}
	if p.burn && preview(q.r) {
		return &apiError{status: 403, code: "preview_refused", text: previewsRefused}
	}
	if p.proof != nil {
		if err := q.checkProof(p); err != nil {
			return err
		}
	}
	if p.password != nil {
		if err := s.checkPassword(q, p); err != nil {
			return err
		}
	}
	head := q.r.Method == "HEAD"
	if body != nil && !head && !conditional(q.r) { // most reads: what ServeContent would send, without its seeks and copies
		h := q.w.Header()
		a := p.header(h)
		h["Last-Modified"], h["Accept-Ranges"], h["Content-Length"] = a.modified, hBytes, a.length
		q.closeUnread()
		q.w.WriteHeader(200)
		q.w.Write(body)
		s.metrics.pastes.read.Add(1)
		s.store.touch(p, q.now)
		return nil
	}
	if p.size > chunkSize && !head {
		if !s.downloads.acquire(q.r.Context(), q.key, transferWait) {
			return errTransfers
		}
		defer s.downloads.release(q.key)
	}
	rd := s.store.reader(p, body)
	defer rd.close()
	if !head {
		if err := rd.first(); err != nil { // before the headers, and before it burns
			if errors.Is(err, errGone) {
				if now, _, again := s.store.get(p.id, q.now); again == nil && now.content == p.content {
					return errDamaged
				}
			}
			return err
		}
	}
	if p.burn && !head {
		if err := s.store.claim(p, q.now); err != nil {
			return err
		}
		s.metrics.pastes.burned.Add(1)
		defer s.store.finish(p.content)
	}
	h := q.w.Header()
	q.closeUnread()
	if p.open() {
		p.header(h)
		if err := q.serveContent(time.Unix(p.modified, 0), rd); err != nil {
			return err
		}
	} else {
		h["Content-Type"], h["Content-Disposition"] = []string{p.mime}, []string{disposition(p.mime)}
		h["Content-Length"] = []string{strconv.FormatInt(p.size, 10)}
		q.w.WriteHeader(200)
		if !head {
			io.Copy(q.w, rd)
		}
	}
	if err := rd.failed(); err != nil { // the content ended early: so must the connection
		return err
	}
	if !head && (q.w.status == 200 || q.w.status == 206) {
		s.metrics.pastes.read.Add(1)
		s.store.touch(p, q.now)
	}
	return nil
}

// ---- changing ----

// authorize lets owner, admin and the holder of the delete token pass.
func (s *server) authorize(q *request, p *paste) error {
	if q.mine(p) {
		return nil
	}
	tokens := q.r.Header["X-Delete-Token"]
	if len(tokens) == 1 {
		if sum := sha256.Sum256([]byte(tokens[0])); subtle.ConstantTimeCompare(sum[:], p.token) == 1 {
			return nil
		}
	}
	if len(tokens) > 0 {
		q.charge(rateAuth)
	}
	if len(tokens) == 0 && q.tier == anonymous {
		return &apiError{status: 401, code: "authentication_required", text: "this needs the owner's certificate or the delete token",
			hint: "send the token of the creation as X-Delete-Token"}
	}
	return &apiError{status: 403, code: "not_owner", text: "this paste belongs to somebody else"}
}

func (s *server) putPaste(q *request) error {
	id := q.r.PathValue("name")
	if !idShaped(id) {
		return s.createPaste(q)
	}
	old, err := s.changeable(q, id)
	if errors.Is(err, errNotFound) {
		e := *apiNotFound
		e.hint = "this name has the shape of an id: to upload a file of this name, PUT it to " + s.cfg.prefix + "/"
		return &e
	}
	if err != nil {
		return err
	}
	o, err := q.headerOptions(true)
	if err != nil {
		return err
	}
	var in *intake
	if !q.body.done {
		if err := s.mayCreate(q); err != nil {
			return err
		}
		if in, err = s.receive(q, o); err != nil {
			return err
		}
		defer in.close()
		if in.size > 0 {
			if err := s.checkContent(in); err != nil {
				return err
			}
		}
	}
	empty := in == nil || in.size == 0
	if empty && !(o.expiry || o.burn || o.password || o.name || o.proof) {
		return badOption("neither a content nor an option to change")
	}
	var p *paste
	for try := range 4 {
		if try > 0 {
			if old, err = s.changeable(q, id); err != nil {
				return err
			}
		}
		c := *old
		p = &c
		if empty {
			if err = s.apply(q, p, o, nil); err == nil {
				err = s.store.update(old, p, nil, nil, func(*writeTx) error { return nil })
			}
		} else if err = s.apply(q, p, o, in); err == nil {
			err = s.store.update(old, p, in.up, in.buf, func(t *writeTx) error { return s.countCreation(t, q, in.sum[:]) })
		}
		if !errors.Is(err, errChanged) {
			break
		}
	}
	if errors.Is(err, errChanged) {
		return errBusy
	}
	if err != nil {
		return err
	}
	if !empty {
		in.kept()
		q.created()
	}
	return q.writeJSON(200, s.members(p, q.mine(p)))
}

// changeable looks a paste up for a change: 404, credential, 409.
func (s *server) changeable(q *request, id string) (*paste, error) {
	p, _, err := s.find(q, id)
	if err != nil {
		return nil, err
	}
	if err := s.authorize(q, p); err != nil {
		return nil, err
	}
	if p.burn {
		return nil, &apiError{status: 409, code: "burning", text: "a paste that burns after reading can't be changed"}
	}
	return p, nil
}

func (s *server) deletePaste(q *request) error {
	p, _, err := s.find(q, q.r.PathValue("id"))
	if err != nil {
		return err
	}
	return s.deleteFound(q, p, s.store.remove, &s.metrics.pastes.deleted)
}

// deleteFound lets remove delete a paste or a short URL, if the caller may.
func (s *server) deleteFound(q *request, p *paste, remove func(id string) error, deleted *atomic.Uint64) error {
	if err := s.authorize(q, p); err != nil {
		return err
	}
	if err := remove(p.id); err != nil {
		return err
	}
	deleted.Add(1)
	q.auditDeletion(p)
	return q.writeJSON(200, []member{{"id", p.id}, {"deleted", true}})
}

// ---- listing ----

func (s *server) listPastes(q *request) error {
	list, next, err := s.listed(q, false)
	if err != nil {
		return err
	}
	pastes := make([][]member, 0, len(list))
	for _, p := range list {
		pastes = append(pastes, s.members(p, true))
	}
	return q.writeJSON(200, []member{{"pastes", pastes}, {"count", len(pastes)}, {"next_cursor", next}})
}

// listed reads the parameters of a list and a page of it; next is a string, or nil at the end.
func (s *server) listed(q *request, shorts bool) (list []*paste, next any, err error) {
	if q.tier == anonymous {
		return nil, nil, &apiError{status: 401, code: "authentication_required", text: "a list needs a client certificate"}
	}
	lq := listQuery{owners: q.who.owners(), limit: listDefault, shorts: shorts}
	values, err := url.ParseQuery(q.r.URL.RawQuery)
	if err != nil {
		return nil, nil, badOption("the query is not understood")
	}
	for name, v := range values {
		if len(v) > 1 {
			return nil, nil, badOption("the parameter " + strconv.Quote(name) + " is repeated")
		}
		if err := q.listParameter(&lq, name, v[0]); isAPI(err) {
			return nil, nil, err
		} else if err != nil {
			return nil, nil, &apiError{status: 400, code: "bad_option", text: "the parameter " + strconv.Quote(name) + " is not understood",
				hint: "limit=1..200, cursor, q, type=image/png or image/*, after and before (Unix seconds or RFC 3339), owner (admin)"}
		}
	}
	ctx, cancel := context.WithTimeout(q.r.Context(), searchTime)
	defer cancel()
	limit := lq.limit
	lq.limit++ // one more tells whether there is a next page
	if list, err = s.store.list(ctx, lq, q.now); err != nil {
		return nil, nil, err
	}
	if len(list) > limit {
		list = list[:limit]
		next = formatCursor(list[limit-1].created, list[limit-1].n)
	}
	return list, next, nil
}

var errParameter = errors.New("not understood")

// listParameter sets one parameter of a list.
func (q *request) listParameter(lq *listQuery, name, v string) (err error) {
	switch {
	case name == "limit":
		if lq.limit, err = strconv.Atoi(v); err == nil && lq.limit < 1 {
			err = errParameter
		}
		lq.limit = min(lq.limit, listMost)
	case name == "cursor" && v == "": // the first page, in a loop that began without one
	case name == "cursor":
		lq.cursor, err = parseCursor(v)
	case name == "q" && !lq.shorts:
		if lq.text = v; len(v) > 4*nameMost || !utf8.ValidString(v) {
			err = errParameter
		}
	case name == "type" && !lq.shorts:
		lq.mime = strings.ToLower(v)
		if kind, all := strings.CutSuffix(lq.mime, "/*"); all && !mimeShape.MatchString(kind+"/x") || !all && !mimeShape.MatchString(lq.mime) {
			err = errParameter
		}
	case name == "after":
		lq.after, err = parseMoment(v)
	case name == "before":
		lq.until, err = parseMoment(v)
	case name == "owner" && q.tier != admin:
		err = &apiError{status: 403, code: "not_admin", text: "only an admin may list what others own"}
	case name == "owner" && v == "all":
		lq.owners = nil
	case name == "owner" && v == "anonymous":
		lq.owners = []string{""}
	case name == "owner" && (isHex(v, 40) || isHex(v, 64)):
		lq.owners = []string{v}
	default:
		err = errParameter
	}
	return err
}

// parseMoment reads a time as Unix seconds or RFC 3339.
func parseMoment(v string) (int64, error) {
	if n, err := strconv.ParseUint(v, 10, 63); err == nil {
		return int64(n), nil
	}
	t, err := time.Parse(time.RFC3339, v)
	return t.Unix(), err
}

func formatCursor(created, n int64) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(created))
	binary.BigEndian.PutUint64(b[8:], uint64(n))
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func parseCursor(v string) (c [2]int64, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(v)
	if err != nil || len(b) != 16 {
		return c, strconv.ErrSyntax
	}
	return [2]int64{int64(binary.BigEndian.Uint64(b[:8])), int64(binary.BigEndian.Uint64(b[8:]))}, nil
}
