package main

// body.go is what comes in with a creation or a change: the options, the three forms of a body (raw, JSON, multipart),
// the intake that stores it in chunks, and what type its bytes are.
//
// Nothing of a body is read before everything that can be said without it. At most one chunk is in memory (a JSON
// body: all of its 1 MiB). Options that can't be understood are refused, never dropped: a password that was not set
// would be found out too late. (RFC 7578, RFC 8259; WHATWG MIME Sniffing by way of net/http)

import (
	"bytes"
	"cmp"
	"crypto/sha256"
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
	partHeadMost   = 24 << 10 // bytes read for a part's header: 16 KiB, and what the parser's buffer draws in besides
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
var optionHeaders = map[string]string{"expiry": "X-Expiry", "burn_after_read": "X-Burn-After-Read",
	"password": "X-Paste-Password", "display_name": "X-Display-Name"}

func badExpiry(text string) error {
	return refuse(400, "bad_expiry", text, "use seconds (3600), 90s, 15m, 12h, 7d, 2w or a sum (1d12h), "+
		"an RFC 3339 time in the future, or @<unix seconds>")
}

// parseExpiry returns the deadline in Unix seconds, after now.
func parseExpiry(v string, now int64) (deadline int64, err error) {
	var n uint64 // has no sign
	if at, ok := strings.CutPrefix(v, "@"); ok {
		n, err = strconv.ParseUint(at, 10, 63)
		deadline = int64(n)
	} else if date, dateErr := time.Parse(time.RFC3339, strings.ToUpper(v)); dateErr == nil {
		deadline = date.Unix()
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

// plain reports whether v is UTF-8 without control characters.
func plain(v string) bool { return utf8.ValidString(v) && !strings.ContainsFunc(v, unicode.IsControl) }

// set takes one option from header or body. Given twice, both must say the same.
func (o *options) set(name, v string) (err error) {
	clash, removes := false, v == "" && o.changing
	switch name {
	case "expiry":
		at := int64(0)
		if !removes {
			at, err = parseExpiry(v, o.now)
		}
		clash = o.expiry && o.deadline != at
		o.expiry, o.deadline = true, at
	case "burn_after_read":
		burns := v == "true" || v == "1"
		if !burns && v != "false" && v != "0" {
			err = badOption(fmt.Sprintf("burn_after_read can't be %.20q", v), "it takes true, false, 1 or 0")
		}
		clash = o.burn && o.burns != burns
		o.burn, o.burns = true, burns
	case "password":
		if v == "" && !removes || len(v) > passwordMost || strings.TrimSpace(v) != v || !plain(v) {
			err = refuse(400, "bad_password", "the password can't be used",
				"1 to 1024 bytes of UTF-8, no control characters, no blank at either end")
		}
		clash = o.password && o.pass != v
		o.password, o.pass = true, v
	case "display_name":
		if !removes && !o.certified {
			err = refuse(400, "bad_display_name", "only who shows a client certificate may give a display name",
				"leave it out")
		} else if !removes && (v == "" || utf8.RuneCountInString(v) > nameMost || !plain(v)) {
			err = refuse(400, "bad_display_name", "the display name can't be used",
				"1 to 128 characters of UTF-8, no control characters")
		}
		clash = o.name && o.display != v
		o.name, o.display = true, v
	case "read_proof":
		if o.proof, err = hex.DecodeString(v); err != nil || len(o.proof) != sha256.Size {
			err = badOption("X-Read-Proof-SHA256 is not a SHA-256", "it takes 64 hex digits")
		}
	}
	if err == nil && clash {
		err = badOption("the option "+name+" is given twice, with different values", "send it once")
	}
	return err
}

// headerOptions reads the option headers; each at most once.
func (q *request) headerOptions(changing bool) (*options, error) {
	o := &options{now: q.now, changing: changing, certified: q.tier != anonymous}
	for _, name := range [...]string{"expiry", "burn_after_read", "password", "display_name", "read_proof"} {
		header := cmp.Or(optionHeaders[name], "X-Read-Proof-Sha256")
		values := q.r.Header[header]
		if len(values) > 1 {
			return nil, badOption(header+" is repeated", "send it once")
		}
		if len(values) == 1 {
			if err := o.set(name, values[0]); err != nil {
				return nil, err
			}
		}
	}
	return o, nil
}

// ---- receiving content ----

// intake is a content on its way in: at most one chunk in memory, full ones already stored. It holds an upload slot and
// the permit of the creation until close.
type intake struct {
	q      *request
	limit  int64                 // bytes of the content
	over   error                 // what is said of more
	take   func(io.Reader) error // the content, whatever form it has
	permit *permit
	up     *upload
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

var errJSONSize = tooLarge(jsonMost,
	"that is for JSON: send a larger content raw, with options as headers: curl -H 'X-Expiry: 7d' -T FILE")

// receivePaste receives what is to be a paste, in any form; options of the body go to o. The caller must close the
// intake.
func (s *server) receivePaste(q *request, o *options) (*intake, error) {
	limit, hint := s.maxSize(q.tier), ""
	if q.tier == anonymous && s.cfg.maxAuth > limit {
		hint = "with a client certificate it may be " + sizeWords(s.cfg.maxAuth)
	}
	in := &intake{q: q, limit: limit, over: tooLarge(limit, hint)}
	in.take = in.read
	return in, in.receive(o, `{"content": "...", "expiry": "7d", "burn_after_read": true, "password": "...", `+
		`"mime_type": "text/plain", "display_name": "..."}, of which only content must be there`,
		"content", "expiry", "burn_after_read", "password", "mime_type", "display_name")
}

// receive asks for the permit of a creation and an upload slot, then reads the body in the form that it has; looks and
// members are of the JSON form. What it holds is given back when it fails.
func (in *intake) receive(o *options, looks string, members ...string) (err error) {
	q, s := in.q, in.q.s
	declared := strings.Join(q.r.Header["Content-Type"], ", ") // two lines of which one names JSON are JSON
	form, params := mediaType(declared)
	most, over, read := in.limit, in.over, func() error { return in.take(q) }
	switch form {
	case "application/json":
		most, over, read = jsonMost, errJSONSize, func() error {
			content, err := in.json(o, looks, members)
			if err != nil {
				return err
			}
			return in.take(strings.NewReader(content))
		}
	case "multipart/form-data":
		most, read = in.limit+multipartExtra, func() error { return in.multipart(params["boundary"], o) }
	default:
		o.declared = declared
	}
	if q.r.ContentLength > most {
		return over
	}
	if in.permit, err = s.admit(q); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			in.close()
		}
	}()
	// Asked for the whole and charged as it comes: who is cut off in the middle pays for the first half at each try.
	whole := due{rateBytes, q.key, min(q.r.ContentLength, in.limit), q.factor}
	if d := s.limiter.ask(whole, q.start); !d.allowed {
		return q.rateLimited(rateBytes, d)
	}
	if !s.uploads.acquire(q.r.Context(), q.key, transferWait) {
		return errTransfers
	}
	in.buf, in.up, in.hash, in.text = *chunkPool.Get().(*[]byte), s.store.newUpload(q.quota()), sha256.New(), true
	if s.cfg.minEntropy > 0 {
		in.freq = new([256]uint64)
	}
	if err = read(); err == nil {
		in.look(in.buf)
		in.hash.Sum(in.sum[:0])
	}
	return err
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
	s := in.q.s
	for {
		if len(in.buf) == cap(in.buf) {
			in.look(in.buf)
			if err := in.up.add(in.buf, s.now().Unix()); err != nil {
				return err
			}
			in.buf, in.permit.bytes = in.buf[:0], 0
		}
		n, err := r.Read(in.buf[len(in.buf):cap(in.buf)])
		in.buf = in.buf[:len(in.buf)+n]
		if in.size += int64(n); in.size > in.limit {
			return in.over
		}
		if d := s.limiter.take(due{rateBytes, in.q.key, int64(n), in.q.factor}, s.now()); n > 0 && !d.allowed {
			return in.q.rateLimited(rateBytes, d)
		}
		in.permit.bytes += int64(n)
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
	end := max(0, len(b)-utf8.UTFMax+1)
	for end < len(b) && (!utf8.RuneStart(b[end]) || utf8.FullRune(b[end:])) {
		end++
	}
	in.text = utf8.Valid(b[:end]) && bytes.IndexByte(b, 0) < 0
	in.tail = slices.Clone(b[end:])
}

// bodyError says what a failed read of the body means.
func bodyError(err error) error {
	var api *apiError
	var gone interface{ Timeout() bool } // a net.Error
	switch {
	case errors.As(err, &api), errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errLeft), errors.As(err, &gone):
		return errLeft
	}
	e := refuse(400, "bad_body", "the body can't be read: it is not what its header announced", "")
	e.cause = err
	return e
}

// mediaType returns the lower-case type of a Content-Type and its parameters, "" if it can't be understood. Whatever
// names JSON is JSON: taken for raw it would be stored with the password in it, open.
func mediaType(v string) (string, map[string]string) {
	t, params, _ := mime.ParseMediaType(v)
	if t == "" { // or its parameters can't be understood
		alone, _, _ := strings.Cut(v, ";")
		t, _, _ = mime.ParseMediaType(alone)
	}
	if t != "multipart/form-data" && namesJSON.MatchString(v) {
		t = "application/json"
	}
	return t, params
}

var namesJSON = regexp.MustCompile(`(?i)(^|[^a-z0-9!#$&^_.+/-])application/json($|[^a-z0-9!#$&^_.+-])`)

// ---- JSON ----

var (
	jsonPaired = regexp.MustCompile(`\\[^u]|(?i:\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})`)
	jsonHalf   = regexp.MustCompile(`(?i:\\ud[89a-f])`)
)

// json reads a body that is one JSON object of these members, the content first, in valid UTF-8 without lone
// surrogates: encoding/json would replace those (RFC 8259, 8.2). looks is an example.
func (in *intake) json(o *options, looks string, members []string) (content string, err error) {
	bad := func(why string, args ...any) (string, error) {
		return "", refuse(400, "bad_json", "bad JSON: "+fmt.Sprintf(why, args...), "it looks like "+looks)
	}
	room := min(uint64(in.q.r.ContentLength), jsonMost+1) // an unknown length, -1, as the longest
	b := bytes.NewBuffer(make([]byte, 0, room+bytes.MinRead))
	if _, err := b.ReadFrom(io.LimitReader(in.q, jsonMost+1)); err != nil {
		return "", bodyError(err)
	}
	raw := b.Bytes()
	if len(raw) > hotSize { // decoding takes five times its memory, and up to 0.1 s: one after the other
		in.q.s.decoding.Lock()
		defer in.q.s.decoding.Unlock()
	}
	switch {
	case len(raw) > jsonMost:
		return "", errJSONSize
	case bytes.HasPrefix(raw, []byte("\xef\xbb\xbf")):
		return bad("it begins with a byte order mark, which has no place in it")
	case !utf8.Valid(raw):
		return bad("it is not UTF-8")
	case jsonHalf.Match(raw) && jsonHalf.Match(jsonPaired.ReplaceAll(raw, nil)):
		return bad(`a \u escape is half of a surrogate pair`)
	}
	syntax := new(json.SyntaxError)
	switch err := json.Unmarshal(raw, new(struct{})); { // what stands there is not repeated: it may be the content
	case errors.As(err, &syntax) && strings.HasPrefix(err.Error(), "unexpected end"):
		return bad("it ends before the object does")
	case errors.As(err, &syntax) && strings.HasSuffix(err.Error(), "after top-level value"):
		return bad("something stands behind the object")
	case errors.As(err, &syntax):
		return bad("it is no JSON at byte %d", syntax.Offset)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if open, _ := dec.Token(); open != json.Delim('{') {
		return bad("it is not an object")
	}
	given := map[string]string{} // of a repeated member the last one counts
	for dec.More() {
		key, err := dec.Token()
		var v json.RawMessage
		if err = cmp.Or(err, dec.Decode(&v)); err != nil {
			return "", err
		}
		name, text, quoted := key.(string), "", v[0] == '"'
		if quoted {
			err = json.Unmarshal(v, &text)
		} else {
			text = string(v)
		}
		switch {
		case !slices.Contains(members, name):
			_, err = bad("there is no member %.40q", name)
		case text == "null" && !quoted:
			delete(given, name)
		case name == "expiry" && !quoted && strings.Trim(text, "0123456789") != "":
			err = badExpiry("the member expiry is neither a whole number of seconds nor a string")
		case name == "burn_after_read" && (quoted || text != "true" && text != "false"):
			_, err = bad("the member %s must be true or false, without quotes", name)
		case name != "expiry" && name != "burn_after_read" && !quoted:
			_, err = bad("the member %s must be a string", name)
		default:
			given[name] = text
		}
		if err != nil {
			return "", err
		}
	}
	o.declared = given["mime_type"]
	for _, name := range members {
		if v, ok := given[name]; ok && optionHeaders[name] != "" && err == nil {
			err = o.set(name, v)
		}
	}
	return given[members[0]], err
}

// ---- multipart ----

var errForm = badOption("the multipart body is damaged or cut short", "let curl -F make it")

// multipart reads RFC 7578 parts as they come: options by their names, and the one other part as the content.
func (in *intake) multipart(boundary string, o *options) error {
	if boundary == "" {
		return badOption("the Content-Type of the form has no boundary",
			"leave it to who makes the form: curl -F file=@FILE")
	}
	// The line end is for a last boundary without one, which RFC 2046 allows.
	body := &formBody{r: io.MultiReader(in.q, strings.NewReader("\r\n"))}
	parts, content := multipart.NewReader(body, boundary), ""
	for i := 0; ; i++ {
		body.head = partHeadMost
		part, err := parts.NextRawPart()
		body.head = math.MaxInt64 // who takes the part counts it
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return cmp.Or(body.err, errForm)
		}
		name, kind := part.FormName(), part.Header.Get("Content-Type")
		encoding := strings.ToLower(part.Header.Get("Content-Transfer-Encoding"))
		quoted := fmt.Sprintf("%.40q", name)
		switch {
		case i == multipartMost:
			return badOption("the form has more than 16 parts", "send the content and its options only")
		case !slices.Contains([]string{"", "7bit", "8bit", "binary"}, encoding):
			return badOption("the part "+quoted+" is encoded for mail", "send it without ;encoder=")
		case strings.HasPrefix(strings.ToLower(kind), "multipart/"):
			return badOption("the part "+quoted+" holds several files", "send one file")
		case optionHeaders[name] != "":
			v, readErr := io.ReadAll(io.LimitReader(part, optionMost+1))
			if len(v) > optionMost {
				return badOption("the option "+name+" is longer than 4 KiB", "is it the content? Name that part file")
			}
			if err = readErr; err == nil {
				err = o.set(name, string(v))
			}
		case content != "":
			return badOption("the form has two contents: "+content+" and "+quoted,
				"options are called expiry, burn_after_read, password and display_name")
		default:
			content, o.declared = quoted, kind
			err = in.take(part)
		}
		if err != nil {
			return err
		}
	}
}

// formBody is a form for the parser, which would keep 10 MiB of a part's header, and takes an end within one for the
// last boundary. Its errors are what is answered.
type formBody struct {
	r    io.Reader
	head int64 // bytes that may come with the header of a part
	err  error
}

func (f *formBody) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	f.head -= int64(n)
	switch {
	case f.head < 0:
		f.err = badOption("the header of a part is too long", "16 KiB at most")
	case err == io.EOF:
		f.err = errForm
	case err != nil:
		f.err = bodyError(err)
	}
	return n, f.err
}

// ---- MIME ----

var (
	mimeShape   = regexp.MustCompile(`^[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*$`)
	mimeIgnored = regexp.MustCompile(
		`^((multipart|message)/.*|text/plain|application/(octet-stream|x-www-form-urlencoded))$`)
	mimeInline   = regexp.MustCompile(`^(text/plain|application/json|image/(png|jpeg|gif|webp|avif)|(audio|video)/.*)$`)
	charsetShape = regexp.MustCompile(`^[A-Za-z0-9._-]{1,30}$`)
	pemShape     = regexp.MustCompile(`^-----BEGIN [A-Z0-9 ]{1,60}-----\r?\n`)
)

// mimeOf keeps a declared type that says something, else looks at the bytes: what is text as a whole is text, however
// it begins.
func mimeOf(declared string, in *intake) string {
	t, params := mediaType(declared)
	charset := ""
	if charsetShape.MatchString(params["charset"]) {
		charset = "; charset=" + params["charset"]
	}
	if len(t) <= 127 && mimeShape.MatchString(t) && !mimeIgnored.MatchString(t) {
		return t + charset
	}
	begins := func(magic string) bool { return bytes.HasPrefix(in.head, []byte(magic)) }
	sniffed := http.DetectContentType(in.head)
	switch text := in.text && len(in.tail) == 0; {
	case text && begins("%PDF-"):
		return "application/pdf"
	case text && begins("-----BEGIN AGE ENCRYPTED FILE-----"):
		return "application/x-age"
	case text && pemShape.Match(in.head) && !begins("-----BEGIN PGP "):
		return "application/x-pem-file"
	case text:
		return "text/plain; charset=utf-8"
	case strings.HasPrefix(sniffed, "text/plain; charset=utf-16"):
		return sniffed
	case t == "text/plain" && charset != "" && !strings.EqualFold(charset, "; charset=utf-8"):
		return t + charset
	}
	return binaryType(in.head, sniffed)
}

// binaryType names what net/http can't, else what net/http has sniffed, unless that is text: as a whole it is none.
func binaryType(b []byte, sniffed string) string {
	for _, m := range [...]struct {
		at          int
		magic, kind string
	}{
		{0, "BZh", "application/x-bzip2"}, {0, "\xfd7zXZ\x00", "application/x-xz"},
		{0, "\x28\xb5\x2f\xfd", "application/zstd"}, {0, "7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"},
		{257, "ustar", "application/x-tar"}, {0, "\x7fELF", "application/x-elf"},
		{0, "SQLite format 3\x00", "application/vnd.sqlite3"}, {0, "fLaC", "audio/flac"},
		{0, "age-encryption.org/v1\n", "application/x-age"}, {4, "ftypqt  ", "application/octet-stream"},
	} {
		if len(b) >= m.at && bytes.HasPrefix(b[m.at:], []byte(m.magic)) {
			return m.kind
		}
	}
	if len(b) >= 16 && string(b[4:8]) == "ftyp" { // ISO 14496-12: the brands, major and compatible, say what is inside
		brands := string(b[8:min(len(b), max(16, int(b[3])))])
		for _, m := range [...][2]string{{"avif", "avif"}, {"avis", "avif"}, {"heic", "heic"}, {"heix", "heic"},
			{"mif1", "heic"}} {
			if strings.Contains(brands, m[0]) {
				return "image/" + m[1]
			}
		}
	}
	if strings.HasPrefix(sniffed, "text/") || sniffed == "application/postscript" || sniffed == "application/wasm" {
		return "application/octet-stream"
	}
	return sniffed
}

// disposition lets a browser show only what can't act: all else is a download. Whatever ends in +xml is a document
// with scripts to it, audio/x+xml too (WHATWG MIME Sniffing, 4.6).
func disposition(mime string) string {
	t, _, _ := strings.Cut(mime, ";")
	if mimeInline.MatchString(t) && !strings.HasSuffix(t, "+xml") {
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
	if in.freq == nil || in.size < entropyFrom {
		return nil
	}
	has := entropy(in.freq, in.size)
	if has >= s.cfg.minEntropy {
		return nil
	}
	e := refuse(400, "low_entropy", "the content repeats itself too much",
		"compress it, or send something with more in it")
	e.Entropy = json.Number(strconv.FormatFloat(has, 'f', 2, 64))
	e.MinEntropy = json.Number(strconv.FormatFloat(s.cfg.minEntropy, 'f', 2, 64))
	return e
}
