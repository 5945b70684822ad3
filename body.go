package main

// body.go is what comes in with a creation or a change: the options, the three forms of a body (raw, JSON, multipart), the intake
// that stores it in chunks, and what type its bytes are.
//
// Nothing of a body is read before everything that can be said without it. At most one chunk is in memory (a JSON body: all
// of its 1 MiB). Options that can't be understood are refused, never dropped: a password that was not set would be found out
// too late. (RFC 7578, RFC 8259; WHATWG MIME Sniffing by way of net/http)

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	jsonMost       = 1 << 20  // bytes of a JSON body
	multipartMost  = 16       // parts
	optionMost     = 4 << 10  // bytes of a part that is an option
	partHeadMost   = 24 << 10 // bytes read for a part's header: 16 KiB, and what the buffer of the parser draws in besides
	multipartExtra = multipartMost*(optionMost+4<<10) + 64<<10
	passwordMost   = 1024 // bytes
	nameMost       = 128  // characters of a display name
	headSize       = 1024 // bytes that a type is told by
	entropyFrom    = 256  // bytes below which no entropy is asked for
)

// ---- options ----

// options are what a creation or a change asks for, from headers or the body. changing: an empty value removes.
type options struct {
	now       int64
	changing  bool
	certified bool

	expiry, burn, password, name bool  // given
	deadline                     int64 // Unix seconds, 0: the tier's life
	burns                        bool
	pass, display                string
	proof                        []byte // SHA-256 of the read proof, nil: not given
	declared                     string // media type of the content
}

// optionHeaders are the options that a body may have too, by the names that they have there.
var optionHeaders = map[string]string{"expiry": "X-Expiry", "burn_after_read": "X-Burn-After-Read", "password": "X-Paste-Password",
	"display_name": "X-Display-Name"}

func badExpiry(text string) error {
	return refuse(400, "bad_expiry", text,
		"use seconds (3600), 90s, 15m, 12h, 7d, 2w or a sum (1d12h), an RFC 3339 time in the future, or @<unix seconds>")
}

// parseExpiry returns the deadline in Unix seconds, after now.
func parseExpiry(v string, now int64) (deadline int64, err error) {
	if at, ok := strings.CutPrefix(v, "@"); ok {
		var n uint64 // no sign
		n, err = strconv.ParseUint(at, 10, 63)
		deadline = int64(n)
	} else if strings.ContainsAny(v, "-:T") {
		var t time.Time
		t, err = time.Parse(time.RFC3339, v)
		deadline = t.Unix()
	} else {
		deadline, err = parseSpan(v)
		deadline = now + min(deadline, math.MaxInt64-now)
	}
	if err != nil {
		return 0, badExpiry(fmt.Sprintf("the expiry %.40q is not understood", v))
	}
	if deadline <= now {
		return 0, badExpiry("the expiry is not in the future")
	}
	return deadline, nil
}

// set takes one option from header or body. Given twice, both must say the same.
func (o *options) set(name, v string) error {
	clash := badOption("the option "+name+" is given twice, with different values", "send it once")
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
		burns := v == "true" || v == "1"
		if !burns && v != "false" && v != "0" {
			return badOption(fmt.Sprintf("burn_after_read can't be %.20q", v), "it takes true, false, 1 or 0")
		}
		if o.burn && o.burns != burns {
			return clash
		}
		o.burn, o.burns = true, burns
	case "password":
		if v == "" && !o.changing || len(v) > passwordMost || strings.TrimSpace(v) != v || !utf8.ValidString(v) ||
			strings.ContainsFunc(v, unicode.IsControl) {
			return refuse(400, "bad_password", "the password can't be used",
				"1 to 1024 bytes of UTF-8, no control characters, no blank at either end")
		}
		if o.password && subtle.ConstantTimeCompare([]byte(o.pass), []byte(v)) == 0 {
			return clash
		}
		o.password, o.pass = true, v
	case "display_name":
		n, removes := utf8.RuneCountInString(v), v == "" && o.changing
		if !removes && (!o.certified || !utf8.ValidString(v) || n == 0 || n > nameMost || strings.ContainsFunc(v, unicode.IsControl)) {
			e := refuse(400, "bad_display_name", "the display name can't be used",
				"1 to 128 characters of UTF-8, no control characters")
			if !o.certified {
				e.Text, e.Hint = "only who shows a client certificate may give a display name", "leave it out"
			}
			return e
		}
		if o.name && o.display != v {
			return clash
		}
		o.name, o.display = true, v
	case "read_proof":
		b, err := hex.DecodeString(v)
		if err != nil || len(b) != sha256.Size {
			return badOption("X-Read-Proof-SHA256 is not a SHA-256", "it takes 64 hex digits")
		}
		o.proof = b
	}
	return nil
}

// headerOptions reads the option headers; each at most once.
func (q *request) headerOptions(changing bool) (*options, error) {
	o := &options{now: q.now, changing: changing, certified: q.tier != anonymous}
	for _, h := range [...][2]string{{"X-Expiry", "expiry"}, {"X-Burn-After-Read", "burn_after_read"},
		{"X-Paste-Password", "password"}, {"X-Display-Name", "display_name"}, {"X-Read-Proof-Sha256", "read_proof"}} {
		values := q.r.Header[h[0]]
		if len(values) > 1 {
			return nil, badOption(h[0]+" is repeated", "send it once")
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

// intake is a content on its way in: at most one chunk in memory, full ones already stored. It holds an upload slot and the permit
// of the creation until close.
type intake struct {
	q      *request
	up     *upload
	permit *permit
	limit  int64
	buf    []byte // pooled; what is not yet stored
	size   int64
	hash   hash.Hash
	head   []byte       // the first headSize bytes
	tail   []byte       // start of a UTF-8 sequence that the next bytes end
	text   bool         // so far UTF-8 without NUL
	sum    [32]byte     // SHA-256, once complete
	freq   *[256]uint64 // counts of byte values, where entropy is asked for
}

var chunkPool = sync.Pool{New: func() any { b := make([]byte, 0, chunkSize); return &b }}

var errTransfers = refuse(429, "too_many_transfers", "too many transfers at once",
	"wait for one to end, then try again").after(transferRetry)

func tooLarge(limit int64, hint string) error {
	e := refuse(413, "too_large", "larger than "+sizeWords(limit)+", the most that is taken", hint)
	e.Limit = limit
	return e
}

// tooLarge says what to do about a content that is too large for its sender.
func (q *request) tooLarge() error {
	hint := ""
	if q.tier == anonymous && q.s.cfg.maxAuth > q.s.cfg.maxAnon {
		hint = "with a client certificate it may be " + sizeWords(q.s.cfg.maxAuth)
	}
	return tooLarge(q.s.maxSize(q.tier), hint)
}

const jsonHint = "that is for JSON: send a larger content raw, with options as headers: curl -H 'X-Expiry: 7d' -T FILE"

// receive asks for the permit of a creation and an upload slot, then lets read take the body. announced is its length, as far
// as it is content. The caller must close the intake.
func (s *server) receive(q *request, limit, announced int64, read func(*intake) error) (in *intake, err error) {
	permit, err := s.admit(q)
	if err != nil {
		return nil, err
	}
	in = &intake{q: q, permit: permit, limit: limit, text: true}
	defer func() {
		if err != nil {
			in.close()
			in = nil
		}
	}()
	// Asked for the whole and charged as it comes: who is cut off in the middle pays for the first half at each try.
	if d := s.limiter.ask(due{rateBytes, q.key, announced, q.factor}, q.start); !d.allowed {
		return in, q.rateLimited(rateBytes, d)
	}
	if !s.uploads.acquire(q.r.Context(), q.key, transferWait) {
		return in, errTransfers
	}
	in.buf, in.up, in.hash = *chunkPool.Get().(*[]byte), s.store.newUpload(q.quota()), sha256.New()
	if s.cfg.minEntropy > 0 {
		in.freq = new([256]uint64)
	}
	if err = read(in); err == nil {
		in.look(in.buf)
		in.hash.Sum(in.sum[:0])
	}
	return in, err
}

// receivePaste is receive for the forms that a paste may have; options of the body go to o.
func (s *server) receivePaste(q *request, o *options) (*intake, error) {
	limit, most := s.maxSize(q.tier), int64(0)
	declared := strings.Join(q.r.Header["Content-Type"], ", ") // two lines of which one names JSON are JSON
	form, params := mediaType(declared)
	read := func(in *intake) error { return in.read(q) }
	switch form {
	case "application/json":
		if most, read = jsonMost, func(in *intake) error { return in.json(o) }; q.r.ContentLength > jsonMost {
			return nil, tooLarge(jsonMost, jsonHint)
		}
	case "multipart/form-data":
		most, read = limit+multipartExtra, func(in *intake) error { return in.multipart(params["boundary"], o, in.read) }
	default:
		most, o.declared = limit, declared
	}
	if q.r.ContentLength > most {
		return nil, q.tooLarge()
	}
	return s.receive(q, limit, q.r.ContentLength-max(0, most-limit), read)
}

// close gives back what the creation holds, and what it took unless the content was kept.
func (in *intake) close() {
	if in.up != nil {
		in.up.abort()
		b := in.buf[:0]
		chunkPool.Put(&b)
		in.q.s.uploads.release(in.q.key)
	}
	in.permit.release(in.up != nil && in.up.seq > 0)
}

// keep tells that the content has its row: nothing is to be given back but the slot.
func (in *intake) keep() {
	in.up.seq = 0
	in.permit.keep()
}

// read takes the content from r to its end.
func (in *intake) read(r io.Reader) error {
	for {
		if len(in.buf) == cap(in.buf) {
			in.look(in.buf)
			if err := in.up.add(in.buf, in.q.s.now().Unix()); err != nil {
				return err
			}
			in.buf, in.permit.bytes = in.buf[:0], 0
		}
		n, err := r.Read(in.buf[len(in.buf):cap(in.buf)])
		in.buf = in.buf[:len(in.buf)+n]
		if in.size += int64(n); in.size > in.limit {
			return in.q.tooLarge()
		}
		if n > 0 {
			if d := in.q.s.limiter.take(due{rateBytes, in.q.key, int64(n), in.q.factor}, in.q.s.now()); !d.allowed {
				return in.q.rateLimited(rateBytes, d)
			}
			in.permit.bytes += int64(n)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return bodyError(err)
		}
	}
}

// look hashes b, keeps the first bytes for the type and goes on checking for UTF-8.
func (in *intake) look(b []byte) {
	in.hash.Write(b)
	if in.freq != nil {
		for _, c := range b {
			in.freq[c]++
		}
	}
	in.head = append(in.head, b[:min(len(b), headSize-len(in.head))]...)
	if !in.text {
		return
	}
	if len(in.tail) > 0 {
		b = append(in.tail, b...)
	}
	end := len(b)
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if rest := b[len(b)-i:]; utf8.RuneStart(rest[0]) {
			if !utf8.FullRune(rest) {
				end -= i
			}
			break
		}
	}
	in.text = utf8.Valid(b[:end]) && bytes.IndexByte(b, 0) < 0
	in.tail = slices.Clone(b[end:])
}

// apiOnly returns err if it is an answer, else nil.
func apiOnly(err error) error {
	if e := (*apiError)(nil); errors.As(err, &e) {
		return e
	}
	return nil
}

// bodyError says what a failed read of the body means.
func bodyError(err error) error {
	var api *apiError
	switch {
	case errors.As(err, &api), errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errLeft
	}
	var chunked interface{ Timeout() bool } // a net.Error: the connection is gone
	if errors.As(err, &chunked) {
		return errLeft
	}
	return &apiError{status: 400, Code: "bad_body", Text: "the body can't be read: it is not what its header announced", cause: err}
}

// mediaType returns the lower-case type of a Content-Type and its parameters, "" if it can't be understood. Whatever names JSON is
// JSON: taken for raw it would be stored with the password in it, open.
func mediaType(v string) (string, map[string]string) {
	t, params, err := mime.ParseMediaType(v)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		v, _, _ := strings.Cut(v, ";")
		t, params, _ = mime.ParseMediaType(v)
	}
	if t != "multipart/form-data" && namesJSON.MatchString(v) {
		t = "application/json"
	}
	return t, params
}

var namesJSON = regexp.MustCompile(`(?i)(^|[^a-z0-9!#$&^_.+/-])application/json($|[^a-z0-9!#$&^_.+-])`)

// ---- JSON ----

const pasteForm = `{"content": "...", "expiry": "7d", "burn_after_read": true, "password": "...", "mime_type": "text/plain", ` +
	`"display_name": "..."}, of which only content must be there`

func badJSON(why, form string) error {
	return refuse(400, "bad_json", "bad JSON: "+why, "it looks like "+form)
}

var (
	jsonPaired = regexp.MustCompile(`\\[^u]|(?i:\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})`)
	jsonHalf   = regexp.MustCompile(`(?i:\\ud[89a-f])`)
)

// readJSON reads a body that is one JSON object of the members of v, and nothing else, in valid UTF-8 without lone surrogates:
// encoding/json would replace those (RFC 8259, 8.2). form is what it should look like.
func (q *request) readJSON(v any, form string) error {
	size := q.r.ContentLength
	if size < 0 || size > jsonMost {
		size = jsonMost + 1
	}
	b := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	if _, err := b.ReadFrom(io.LimitReader(q, jsonMost+1)); err != nil {
		return bodyError(err)
	}
	raw := b.Bytes()
	if len(raw) > hotSize { // decoding takes five times its memory, and up to a tenth of a second: one after the other
		q.s.decoding.Lock()
		defer q.s.decoding.Unlock()
	}
	switch {
	case len(raw) > jsonMost:
		return tooLarge(jsonMost, jsonHint)
	case bytes.HasPrefix(raw, []byte("\xef\xbb\xbf")):
		return badJSON("it begins with a byte order mark, which has no place in it", form)
	case !utf8.Valid(raw):
		return badJSON("it is not UTF-8", form)
	case jsonHalf.Match(raw) && jsonHalf.Match(jsonPaired.ReplaceAll(raw, nil)):
		return badJSON(`a \u escape is half of a surrogate pair`, form)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	var api *apiError
	if errors.As(err, &api) {
		return err
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		if wrong.Field == "" {
			return badJSON("it is not an object", form)
		}
		must := "a string"
		if wrong.Type.Kind() == reflect.Bool {
			must = "true or false, without quotes"
		}
		return badJSON(fmt.Sprintf("the member %s must be %s, but it is of the type %s", wrong.Field, must, wrong.Value), form)
	}
	if bad := (*json.SyntaxError)(nil); errors.As(err, &bad) { // what stands there is not repeated: it may be the content
		return badJSON(fmt.Sprintf("it is no JSON at byte %d", bad.Offset), form)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return badJSON("it ends before the object does", form)
	}
	if unknown, ok := strings.CutPrefix(fmt.Sprint(err), "json: unknown field "); ok {
		return badJSON("there is no member "+fmt.Sprintf("%.40s", unknown), form)
	}
	if err != nil || bytes.HasPrefix(bytes.TrimSpace(raw), []byte("null")) {
		return badJSON("it is not one object", form)
	}
	if len(bytes.TrimRight(raw[dec.InputOffset():], " \t\r\n")) > 0 {
		return badJSON("something stands behind the object", form)
	}
	return nil
}

// jsonExpiry is whole seconds as a number, or any form as a string.
type jsonExpiry string

func (e *jsonExpiry) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		return json.Unmarshal(b, (*string)(e))
	}
	if *e = jsonExpiry(b); strings.Trim(string(b), "0123456789") != "" {
		return badExpiry("the member expiry is neither a whole number of seconds nor a string")
	}
	return nil
}

func (in *intake) json(o *options) error {
	var m struct {
		Content     string      `json:"content"`
		MIMEType    string      `json:"mime_type"`
		Expiry      *jsonExpiry `json:"expiry"`
		Burn        *bool       `json:"burn_after_read"`
		Password    *string     `json:"password"`
		DisplayName *string     `json:"display_name"`
	}
	if err := in.q.readJSON(&m, pasteForm); err != nil {
		return err
	}
	o.declared = m.MIMEType
	var errs [4]error
	if m.Expiry != nil {
		errs[0] = o.set("expiry", string(*m.Expiry))
	}
	if m.Burn != nil {
		errs[1] = o.set("burn_after_read", strconv.FormatBool(*m.Burn))
	}
	if m.Password != nil {
		errs[2] = o.set("password", *m.Password)
	}
	if m.DisplayName != nil {
		errs[3] = o.set("display_name", *m.DisplayName)
	}
	if err := cmp.Or(errs[:]...); err != nil {
		return err
	}
	return in.read(strings.NewReader(m.Content))
}

// ---- multipart ----

// multipart reads RFC 7578 parts as they come: options by their names, and the one other part as the content, which take takes.
func (in *intake) multipart(boundary string, o *options, take func(io.Reader) error) error {
	damaged := badOption("the multipart body is damaged or cut short", "let curl -F make it")
	if boundary == "" {
		return badOption("the Content-Type of the form has no boundary", "leave it to who makes the form: curl -F file=@FILE")
	}
	body := &multipartBody{r: in.q, left: in.limit + multipartExtra}
	// The parser takes an end within a part's header for the last boundary; an end that is an error is none to it. The line
	// end is for a last boundary without one, which RFC 2046 allows.
	mr := multipart.NewReader(io.MultiReader(body, strings.NewReader("\r\n"), cutShort{}), boundary)
	failed := func(err error) error {
		var api *apiError
		switch {
		case errors.As(err, &api), errors.Is(err, errBusy), errors.Is(err, errFull), errors.Is(err, errClosed),
			errors.Is(err, errCorrupt), errors.Is(err, errGone):
			return err
		case body.left < 0:
			return in.q.tooLarge()
		case body.head < 0:
			return badOption("the header of a part is too long", "16 KiB at most")
		case body.err != nil:
			return bodyError(body.err)
		}
		return damaged
	}
	found := ""
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
			return badOption("the form has more than 16 parts", "send the content and its options only")
		}
		body.head = math.MaxInt64 // what follows is content
		name, kind := part.FormName(), part.Header.Get("Content-Type")
		switch strings.ToLower(part.Header.Get("Content-Transfer-Encoding")) {
		case "", "7bit", "8bit", "binary":
		default:
			return badOption(fmt.Sprintf("the part %.40q is encoded for mail", name), "send it without ;encoder=")
		}
		if strings.HasPrefix(strings.ToLower(kind), "multipart/") {
			return badOption(fmt.Sprintf("the part %.40q holds several files", name), "send one file")
		}
		if optionHeaders[name] != "" {
			v, err := io.ReadAll(io.LimitReader(part, optionMost+1))
			if err != nil {
				return failed(err)
			}
			if len(v) > optionMost {
				return badOption("the option "+name+" is longer than 4 KiB", "is it the content? Name that part file")
			}
			if err := o.set(name, string(v)); err != nil {
				return err
			}
			continue
		}
		if found != "" {
			return badOption(fmt.Sprintf("the form has two contents: %s and %.40q", found, name),
				"options are called expiry, burn_after_read, password and display_name")
		}
		found, o.declared = fmt.Sprintf("%.40q", name), kind
		if err := take(part); err != nil {
			return failed(err)
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

// cutShort is an end that is an error.
type cutShort struct{}

func (cutShort) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// ---- MIME ----

var (
	mimeShape    = regexp.MustCompile(`^[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*$`)
	charsetShape = regexp.MustCompile(`^[A-Za-z0-9._-]{1,30}$`)
	pemShape     = regexp.MustCompile(`^-----BEGIN [A-Z0-9 ]{1,60}-----\r?\n`)
	inlineTypes  = []string{"text/plain", "application/json", "image/png", "image/jpeg", "image/gif", "image/webp", "image/avif"}
)

// mimeOf keeps a declared type that says something, else looks at the bytes: what is text as a whole is text, however it begins.
func mimeOf(declared string, in *intake) string {
	t, params := mediaType(declared)
	charset := params["charset"]
	if !charsetShape.MatchString(charset) {
		charset = ""
	}
	generic := t == "application/octet-stream" || t == "application/x-www-form-urlencoded" || t == "text/plain"
	if !generic && len(t) <= 127 && mimeShape.MatchString(t) && !strings.HasPrefix(t, "multipart/") && !strings.HasPrefix(t, "message/") {
		if charset != "" {
			t += "; charset=" + charset
		}
		return t
	}
	b := in.head
	switch at := func(s string) bool { return bytes.HasPrefix(b, []byte(s)) }; {
	case !in.text || len(in.tail) > 0:
	case at("%PDF-"):
		return "application/pdf"
	case at("-----BEGIN AGE ENCRYPTED FILE-----"):
		return "application/x-age"
	case pemShape.Match(b) && !at("-----BEGIN PGP "):
		return "application/x-pem-file"
	default:
		return "text/plain; charset=utf-8"
	}
	switch {
	case bytes.HasPrefix(b, []byte("\xff\xfe")):
		return "text/plain; charset=utf-16le"
	case bytes.HasPrefix(b, []byte("\xfe\xff")):
		return "text/plain; charset=utf-16be"
	case t == "text/plain" && charset != "" && !strings.EqualFold(charset, "utf-8"):
		return "text/plain; charset=" + charset
	}
	return binaryType(b)
}

// binaryType names what net/http can't, else what net/http names as something that has a reader, else nothing.
func binaryType(b []byte) string {
	for _, m := range [...]struct {
		at          int
		magic, kind string
	}{
		{0, "BZh", "application/x-bzip2"}, {0, "\xfd7zXZ\x00", "application/x-xz"}, {0, "\x28\xb5\x2f\xfd", "application/zstd"},
		{0, "7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"}, {257, "ustar", "application/x-tar"}, {0, "\x7fELF", "application/x-elf"},
		{0, "SQLite format 3\x00", "application/vnd.sqlite3"}, {0, "fLaC", "audio/flac"}, {0, "age-encryption.org/v1\n", "application/x-age"},
		{4, "ftypqt  ", "application/octet-stream"},
	} {
		if len(b) >= m.at && bytes.HasPrefix(b[m.at:], []byte(m.magic)) {
			return m.kind
		}
	}
	if len(b) >= 16 && string(b[4:8]) == "ftyp" { // ISO 14496-12: the brands, major and compatible, say what is in the box
		brands := string(b[8:min(len(b), max(16, int(b[3])))])
		if strings.Contains(brands, "avif") || strings.Contains(brands, "avis") {
			return "image/avif"
		}
		if strings.Contains(brands, "heic") || strings.Contains(brands, "heix") || strings.Contains(brands, "mif1") {
			return "image/heic"
		}
	}
	t := http.DetectContentType(b)
	kind, _, _ := strings.Cut(t, "/")
	if slices.Contains([]string{"image", "audio", "video", "font"}, kind) || slices.Contains([]string{"application/ogg", "application/zip",
		"application/x-gzip", "application/x-rar-compressed", "application/wasm", "application/pdf", "application/vnd.ms-fontobject"}, t) {
		return t
	}
	return "application/octet-stream"
}

// disposition lets a browser show only what can't act: all else is a download. Whatever ends in +xml is a document with scripts
// to it, audio/x+xml too (WHATWG MIME Sniffing, 4.6).
func disposition(mime string) string {
	t, _, _ := strings.Cut(mime, ";")
	media := strings.HasPrefix(t, "audio/") || strings.HasPrefix(t, "video/")
	if slices.Contains(inlineTypes, t) || media && !strings.HasSuffix(t, "+xml") {
		return "inline"
	}
	return "attachment"
}

// ---- checks of the whole ----

// checkContent is what can be said of a whole content before anything is written.
func (s *server) checkContent(in *intake) error {
	if in.size == 0 {
		return refuse(400, "empty_content", "the content is empty",
			"curl -T FILE, --data-binary @FILE or -F file=@FILE; -d @FILE of an empty or missing file sends nothing")
	}
	if in.size < s.cfg.minSize {
		return refuse(400, "too_small", "the content has less than "+sizeWords(s.cfg.minSize), "")
	}
	if in.freq != nil && in.size >= entropyFrom {
		if e := entropy(in.freq, in.size); e < s.cfg.minEntropy {
			decimals := func(f float64) json.Number { return json.Number(strconv.FormatFloat(f, 'f', 2, 64)) }
			refusal := refuse(400, "low_entropy", "the content repeats itself too much",
				"compress it, or send something with more in it")
			refusal.Entropy, refusal.MinEntropy = decimals(e), decimals(s.cfg.minEntropy)
			return refusal
		}
	}
	return nil
}
