package main

// paste.go owns pastes on the wire: creating, showing, reading, burning, changing, deleting and listing them.
//
// The order of checks is the contract's: nothing is written before everything that can be said without it, and one writer
// operation then does all or nothing. Nobody bypasses a read proof or a password: owner and admin see metadata, may change and
// delete. Content passes in chunks; passwords, tokens and content never reach a log. (RFC 9110 for conditions and ranges,
// RFC 8594 Sunset)

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

const (
	listMost    = 200
	listDefault = 50
	tokenSize   = 32 // bytes of a delete token
	idSize      = 8  // bytes of an id
	idTries     = 8  // ids drawn for one creation
)

// ---- creating ----

func (s *server) createPaste(q *request) error {
	if err := s.mayCreate(q); err != nil {
		return err
	}
	o, err := q.headerOptions(false)
	if err != nil {
		return err
	}
	in, err := s.receivePaste(q, o)
	if err != nil {
		return err
	}
	defer in.close()
	if err := cmp.Or(s.checkContent(in), in.permit.countDuplicate(in.sum[:], in.size)); err != nil {
		return err
	}
	key, err := s.optionKey(q, o)
	if err != nil {
		return err
	}
	p := &paste{created: q.now, owner: q.who.owner}
	in.describe(p, o)
	if err := s.apply(q, p, o, key, s.now().Unix()); err != nil {
		return err
	}
	token, err := s.storeNew(in, p, func() string {
		var b [idSize]byte
		rand.Read(b[:])
		return hex.EncodeToString(b[:])
	})
	if err != nil {
		return err
	}
	s.metrics.pastes.created.Add(1)
	return s.answerCreated(q, p, token)
}

// storeNew draws id and delete token and stores p with the content of in.
func (s *server) storeNew(in *intake, p *paste, draw func() string) (token string, err error) {
	var raw [tokenSize]byte
	rand.Read(raw[:])
	token = base64.RawURLEncoding.EncodeToString(raw[:])
	sum := sha256.Sum256([]byte(token))
	p.token = sum[:]
	for range idTries {
		p.id = draw()
		if err = s.store.create(p, in.up, in.buf); !errors.Is(err, errTaken) {
			break
		}
	}
	if err == nil {
		in.keep()
	}
	return token, err
}

// describe writes the content onto p.
func (in *intake) describe(p *paste, o *options) {
	p.size, p.sha256, p.mime, p.modified = in.size, in.sum[:], mimeOf(o.declared, in), in.q.now
}

// optionKey derives what is stored for the password that o asks for, nil without one.
func (s *server) optionKey(q *request, o *options) ([]byte, error) {
	if !o.password || o.pass == "" {
		return nil, nil
	}
	return s.passwordKey(q, o.pass)
}

// apply writes the options of a creation or change onto p, as it is at now, with the key of optionKey.
func (s *server) apply(q *request, p *paste, o *options, key []byte, now int64) error {
	most := p.created + int64(s.cfg.maxExpiry/time.Second)
	if o.expiry && o.deadline != 0 {
		p.expires, p.life = min(o.deadline, q.now+int64(s.longest(q.tier)/time.Second), most), 0
	} else if o.expiry || p.expires == 0 {
		p.life = int64(s.life(q.tier) / time.Second)
		p.expires = min(q.now+p.life, most)
	}
	if p.expires <= now {
		return badExpiry("it would have ended before it was stored: the content took longer to come, or the paste is too old")
	}
	if o.burn {
		p.burn = o.burns
	}
	if o.name {
		p.name = o.display
	}
	if o.proof != nil {
		p.proof = o.proof
	}
	if o.password {
		p.password = key
	}
	return nil
}

// pasteAnswer is a paste as it is shown. Members that do not apply are left out.
type pasteAnswer struct {
	ID          string `json:"id"`
	URL         string `json:"url"`
	Raw         string `json:"raw"`
	Link        string `json:"link"`
	MIMEType    string `json:"mime_type"`
	Size        int64  `json:"size"`
	SHA256      string `json:"sha256,omitempty"`
	CreatedAt   int64  `json:"created_at"`
	ExpiresAt   int64  `json:"expires_at"`
	Owner       string `json:"owner,omitempty"`
	Burn        bool   `json:"burn_after_read,omitempty"`
	Password    bool   `json:"password_protected,omitempty"`
	ReadProof   bool   `json:"read_proof,omitempty"`
	DisplayName string `json:"display_name,omitempty"`
	DeleteToken string `json:"delete_token,omitempty"`
}

// answer describes p; mine adds what only owner and admin see.
func (q *request) answer(p *paste, mine bool) *pasteAnswer {
	url := q.s.cfg.prefix + "/" + p.id
	a := &pasteAnswer{ID: p.id, URL: url, Raw: url + "/raw", Link: q.link(p), MIMEType: p.mime, Size: p.size, CreatedAt: p.created,
		ExpiresAt: p.expires, Burn: p.burn, Password: p.password != nil, ReadProof: p.proof != nil}
	if p.open() { // else it would let anyone try guesses off line
		a.SHA256 = hex.EncodeToString(p.sha256)
	}
	if mine {
		a.Owner, a.DisplayName = p.owner, p.name
	}
	return a
}

// link is what a reader opens: the content, but of a burning paste what previews can't trigger.
func (q *request) link(p *paste) string {
	if p.burn {
		return q.baseURL() + "/" + p.id
	}
	return q.baseURL() + "/" + p.id + "/raw"
}

func (q *request) sunset(p *paste) {
	q.w.Header()["Sunset"] = []string{time.Unix(p.expires, 0).UTC().Format(http.TimeFormat)}
}

func (s *server) answerCreated(q *request, p *paste, token string) error {
	h := q.w.Header()
	h["Location"] = []string{s.cfg.prefix + "/" + p.id}
	h["X-Delete-Token"] = []string{token}
	q.sunset(p)
	a := q.answer(p, true)
	a.DeleteToken, a.SHA256 = token, hex.EncodeToString(p.sha256) // the creator has just sent it
	if name := url.PathEscape(q.r.PathValue("name")); name != "" && len(name) <= 255 && !p.burn {
		a.Link += "/" + name
	}
	form, _ := mediaType(q.r.Header.Get("Content-Type"))
	if q.wantsText(q.r.Method == "PUT" || form == "multipart/form-data") {
		return q.writeText(201, a.Link+"\n")
	}
	return q.writeJSON(201, a)
}

// ---- reading ----

// idShaped reports whether v could be an id: 8 to 64 lower-case hex digits.
func idShaped(v string) bool { return len(v) >= 8 && len(v) <= 64 && isHex(v, len(v)) }

// find looks up a row for whoever asks about it or wants to change it.
func (s *server) find(q *request, id string) (*paste, error) {
	q.paste = strings.TrimPrefix(id, shortPrefix)
	if q.route.class == rateCreate { // reads were asked before
		if err := q.ask(rateMiss); err != nil {
			return nil, err
		}
	}
	return s.store.show(id, q.now)
}

// mine reports whether the caller is the owner or an admin.
func (q *request) mine(p *paste) bool { return q.tier == admin || q.who.owns(p) }

func (s *server) showPaste(q *request) error {
	id := q.r.PathValue("id")
	if !idShaped(id) {
		return errNotFound
	}
	p, err := s.find(q, id)
	if err != nil {
		return err
	}
	q.sunset(p)
	if !q.wantsPage() {
		return q.writeJSON(200, q.answer(p, q.mine(p)))
	}
	kind, read := p.mime, "curl "+q.link(p)
	if p.burn {
		read += "/raw"
	}
	var notes string
	if p.proof != nil {
		kind = "encrypted"
		read = "fpaste get '" + q.baseURL() + "/" + p.id + "#...'\nwith the whole link, the part behind # too. fpaste, the client: " +
			q.baseURL() + "/client"
	}
	if p.password != nil {
		notes += "It needs a password.\n"
		read = strings.Replace(read, "curl ", "curl -u :PASSWORD ", 1)
	}
	if p.burn {
		notes += "It can be read once; then it is gone.\n"
	}
	return q.writeText(200, fmt.Sprintf("A paste: %s, %s, until %s (%s).\n%s\nTo read it:\n%s\n", kind, sizeWords(p.size),
		time.Unix(p.expires, 0).UTC().Format("2006-01-02 15:04 UTC"), timeWords(p.expires-q.now), notes, read))
}

var previewAgents = []string{"bot", "crawler", "spider", "preview", "facebookexternalhit", "whatsapp", "slack", "discord", "skype",
	"embedly", "urlscan", "mastodon", "iframely", "rocket.chat", "misskey", "lemmy", "viber", "ms-office"}

// preview recognises requests that no person made: a link preview must not burn a paste.
func preview(r *http.Request) bool {
	said := func(name string, words ...string) bool {
		v := strings.ToLower(strings.Join(r.Header[name], " "))
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(v, w) })
	}
	for _, name := range [...]string{"Sec-Purpose", "Purpose", "X-Purpose", "X-Moz"} {
		if said(name, "prefetch", "prerender", "preview") {
			return true
		}
	}
	return r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.Header.Get("Sec-Fetch-Mode") != "navigate" ||
		said("User-Agent", previewAgents...)
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
	return refuse(403, "read_proof_required", "this paste is encrypted, and only who has the whole link may read it",
		"fpaste get 'LINK', with the part behind # ("+q.baseURL()+"/client is fpaste)")
}

// checkPassword derives and compares; nothing is burned by a wrong one.
func (s *server) checkPassword(q *request, p *paste) error {
	pass := q.r.Header.Get("X-Paste-Password")
	if pass == "" {
		_, pass, _ = q.r.BasicAuth()
	}
	if pass == "" {
		q.w.Header()["Www-Authenticate"] = []string{`Basic realm="paste", charset="UTF-8"`}
		return refuse(401, "password_required", "this paste needs a password",
			"curl -u :PASSWORD "+q.baseURL()+"/"+p.id+"/raw, or fpaste get -p")
	}
	wrong := refuse(403, "password_wrong", "the password is wrong", "")
	if len(pass) > passwordMost {
		q.charge(rateAuth)
		return wrong
	}
	key, err := s.derive(q, pass, p.password[:32])
	if err == nil && subtle.ConstantTimeCompare(key, p.password[32:]) != 1 {
		return wrong
	}
	return err
}

// rangeShape is the one form of Range that is honoured; every other is ignored, which RFC 9110 (14.2) allows.
var rangeShape = regexp.MustCompile(`^(?i:bytes)=([0-9]{1,18}-[0-9]{0,18}|-[1-9][0-9]{0,17})$`)

// onlyRange removes a Range that is not honoured, and its condition with it.
func (q *request) onlyRange() {
	v := q.r.Header["Range"]
	if q.r.Method != "GET" || len(v) != 1 || !rangeShape.MatchString(v[0]) {
		delete(q.r.Header, "Range")
	} else {
		q.r.Header["Range"] = []string{strings.ToLower(v[0])}
	}
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
type openAnswer struct{ kind, disposition, etag, modified, length []string }

func (p *paste) openAnswer() *openAnswer {
	p.memo.once.Do(func() {
		p.memo.v = &openAnswer{[]string{p.mime}, []string{disposition(p.mime)}, []string{`"` + hex.EncodeToString(p.sha256) + `"`},
			[]string{time.Unix(p.modified, 0).UTC().Format(http.TimeFormat)}, []string{strconv.FormatInt(p.size, 10)}}
	})
	return p.memo.v.(*openAnswer)
}

// serveContent answers conditions and ranges (RFC 9110, 13 and 14).
func (q *request) serveContent(modified time.Time, content io.ReadSeeker) error {
	q.onlyRange()
	q.w.serving = true
	http.ServeContent(q.w, q.r, "", modified, content)
	q.w.serving = false
	if q.w.status == http.StatusPreconditionFailed {
		return errPrecondition
	}
	return nil
}

var errPrecondition = refuse(412, "precondition_failed", "the content is another by now",
	"curl -I shows the ETag that it has; what burns, or needs a password or a read proof, has none")

// rawPaste answers 404, preview, read proof, password, burn, in this order, for GET and HEAD alike.
func (s *server) rawPaste(q *request) error {
	id, head := q.r.PathValue("id"), q.r.Method == "HEAD"
	if !idShaped(id) || q.r.PathValue("view") != "raw" {
		return errNotFound
	}
	q.paste = id
	p, first := s.store.cached(id, q.now)
	var err error
	if p == nil && head {
		p, err = s.store.show(id, q.now)
	} else if p == nil {
		if !s.downloads.acquire(q.r.Context(), q.key, transferWait) {
			return errTransfers
		}
		defer s.downloads.release(q.key)
		p, first, err = s.store.get(id, q.now)
	}
	if err != nil {
		return err
	}
	if p.burn && preview(q.r) {
		return refuse(403, "preview_refused", "this paste burns after reading: previews and prefetches are refused", "")
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
	if p.burn && !head {
		if err := s.store.claim(p, s.now().Unix()); err != nil {
			return err
		}
		s.metrics.pastes.burned.Add(1)
		if p.size > chunkSize {
			defer s.store.discard(p.content)
		}
	}
	q.w.decided = func(status int) {
		if !head && (status == 200 || status == 206) {
			s.metrics.pastes.read.Add(1)
			s.store.renew(p, q.now)
		}
	}
	return q.send(p, first)
}

// send answers the content of p, whose first chunk is first.
func (q *request) send(p *paste, first []byte) error {
	h, head := q.w.Header(), q.r.Method == "HEAD"
	if !p.open() {
		h["Content-Type"], h["Content-Disposition"] = []string{p.mime}, []string{disposition(p.mime)}
		h["Content-Length"] = []string{strconv.FormatInt(p.size, 10)}
		q.w.WriteHeader(200)
		if head {
			return nil
		}
		rd := q.s.store.reader(p, first)
		io.Copy(q.w, io.NewSectionReader(rd, 0, p.size))
		return rd.err
	}
	if p.memo == nil {
		p.memo = new(memo)
	}
	a := p.openAnswer()
	h["Content-Type"], h["Content-Disposition"], h["Etag"], h["Cache-Control"] = a.kind, a.disposition, a.etag, hRevalidate
	if int64(len(first)) == p.size && !head && !conditional(q.r) { // most reads: what ServeContent would send, without its copies
		h["Last-Modified"], h["Accept-Ranges"], h["Content-Length"] = a.modified, hBytes, a.length
		q.w.WriteHeader(200)
		q.w.Write(first)
		return nil
	}
	rd := q.s.store.reader(p, first)
	return cmp.Or(q.serveContent(time.Unix(p.modified, 0), io.NewSectionReader(rd, 0, p.size)), rd.err)
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
		return refuse(403, "not_owner", "the X-Delete-Token is wrong",
			"it came with the answer to the creation, as the header X-Delete-Token and the member delete_token")
	}
	if q.tier == anonymous {
		return refuse(401, "authentication_required", "this needs the delete token, or the owner's certificate",
			"curl -H 'X-Delete-Token: ...', with the token that came with the creation")
	}
	return refuse(403, "not_owner", "your certificate is not the one of this paste's owner",
		"use that, or the delete token: curl -H 'X-Delete-Token: ...'")
}

var errBurning = refuse(409, "burning", "a paste that burns after reading can't be changed",
	"delete it and create another")

// precondition evaluates the conditions of a change against the content that is there (RFC 9110, 13.2.2).
func (q *request) precondition(p *paste) error {
	tag := ""
	if p.open() {
		tag = `"` + hex.EncodeToString(p.sha256) + `"`
	}
	has := func(name string, weak bool) (given, match bool) {
		for _, line := range q.r.Header[name] {
			for v := range strings.SplitSeq(line, ",") {
				if v = strings.TrimSpace(v); weak {
					v = strings.TrimPrefix(v, "W/")
				}
				match = match || v == "*" || v == tag && tag != ""
			}
		}
		return len(q.r.Header[name]) > 0, match
	}
	given, match := has("If-Match", false)
	if _, other := has("If-None-Match", true); given && !match || other {
		return errPrecondition
	}
	since, err := http.ParseTime(q.r.Header.Get("If-Unmodified-Since"))
	if !given && err == nil && p.modified > since.Unix() {
		return errPrecondition
	}
	return nil
}

func (s *server) putPaste(q *request) error {
	id := q.r.PathValue("name")
	if !idShaped(id) {
		if err := s.reserved(q, id); err != nil {
			return err
		}
		return s.createPaste(q)
	}
	p, err := s.find(q, id)
	if errors.Is(err, errNotFound) {
		e := *apiNotFound
		e.Hint = "this name has the shape of an id: to upload a file of this name, curl -T - " + q.baseURL() + "/ <FILE"
		return &e
	}
	if err == nil {
		err = s.authorize(q, p)
	}
	if err == nil && p.burn {
		err = errBurning
	}
	if err != nil {
		return err
	}
	o, err := q.headerOptions(true)
	if err != nil {
		return err
	}
	in, up, last := (*intake)(nil), (*upload)(nil), []byte(nil)
	if !q.bodyDone {
		if err := s.mayCreate(q); err != nil {
			return err
		}
		if in, err = s.receivePaste(q, o); err != nil {
			return err
		}
		defer in.close()
		if in.size > 0 {
			up, last = in.up, in.buf
			if err := cmp.Or(s.checkContent(in), in.permit.countDuplicate(in.sum[:], in.size)); err != nil {
				return err
			}
		}
	}
	if up == nil && !(o.expiry || o.burn || o.password || o.name || o.proof != nil) {
		return badOption("neither a content nor an option to change", "curl -T FILE, or a header: -H 'X-Expiry: 7d'")
	}
	key, err := s.optionKey(q, o)
	if err != nil {
		return err
	}
	now := s.now().Unix()
	p, err = s.store.change(id, now, up, last, func(p *paste) error {
		if p.burn {
			return errBurning
		}
		if err := q.precondition(p); err != nil {
			return err
		}
		if up != nil {
			in.describe(p, o)
		}
		return s.apply(q, p, o, key, now)
	})
	if err != nil {
		return err
	}
	if up != nil {
		in.keep()
	}
	q.sunset(p)
	return q.writeJSON(200, q.answer(p, q.mine(p)))
}

// reserved refuses a name that begins another route: echo URL | curl -T - P/s is meant for that, and no file called s.
func (s *server) reserved(q *request, name string) error {
	allow, found := "GET, HEAD", false
	for _, rt := range s.table {
		method, path, _ := strings.Cut(rt.pattern, " /")
		if path == name && method == "POST" {
			allow += ", POST"
		}
		first, _, _ := strings.Cut(path, "/")
		found = found || first == name && first[0] != '{'
	}
	if !found {
		return nil
	}
	q.w.Header()["Allow"] = []string{allow}
	e := refuse(405, "method_not_allowed", "this address does not take PUT", "it takes "+allow)
	if name == "s" {
		e.Hint = "to shorten a URL: curl -d https://example.org/ " + q.baseURL() + "/s"
	}
	return e
}

func (s *server) deletePaste(q *request) error {
	id := q.r.PathValue("id")
	if !idShaped(id) {
		return errNotFound
	}
	return s.delete(q, id, &s.metrics.pastes.deleted)
}

// delete removes the row of id, if the caller may.
func (s *server) delete(q *request, id string, deleted *atomic.Uint64) error {
	p, err := s.find(q, id)
	if err == nil {
		err = s.authorize(q, p)
	}
	if err == nil {
		err = s.store.remove(id, s.now().Unix(), q.precondition)
	}
	if err != nil {
		return err
	}
	deleted.Add(1)
	q.auditDeletion(p)
	return q.writeJSON(200, struct {
		ID      string `json:"id"`
		Deleted bool   `json:"deleted"`
	}{q.paste, true})
}

// ---- listing ----

func (s *server) listPastes(q *request) error {
	list, next, err := s.listed(q, false)
	if err != nil {
		return err
	}
	pastes := make([]*pasteAnswer, 0, len(list))
	for _, p := range list {
		pastes = append(pastes, q.answer(p, true))
	}
	return q.writeJSON(200, struct {
		Pastes []*pasteAnswer `json:"pastes"`
		Count  int            `json:"count"`
		Next   *string        `json:"next_cursor"`
	}{pastes, len(pastes), next})
}

// listed reads the parameters of a list and a page of it; next is nil at the end.
func (s *server) listed(q *request, shorts bool) (list []*paste, next *string, err error) {
	if q.tier == anonymous {
		return nil, nil, refuse(401, "authentication_required", "a list needs a client certificate",
			"curl --cert FILE; what was created without one is in no list")
	}
	lq := listQuery{owner: q.who.owner, limit: listDefault, shorts: shorts}
	values, err := url.ParseQuery(q.r.URL.RawQuery)
	if err != nil {
		return nil, nil, badOption("the parameters (behind the ?) are not understood", "?limit=50&q=text")
	}
	for name, v := range values {
		if len(v) > 1 {
			return nil, nil, badOption(fmt.Sprintf("the parameter %.40q is repeated", name), "send it once")
		}
		if err := q.listParameter(&lq, name, v[0]); err != nil {
			return nil, nil, err
		}
	}
	if !s.lists.acquire(q.r.Context(), q.key, transferWait) {
		return nil, nil, errTransfers
	}
	defer s.lists.release(q.key)
	list, cursor, err := s.store.list(lq, q.now)
	if cursor != 0 {
		text := base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, uint64(cursor)))
		next = &text
	}
	return list, next, err
}

// listParameter sets one parameter of a list.
func (q *request) listParameter(lq *listQuery, name, v string) error {
	ok := false
	switch {
	case name == "limit":
		n, err := strconv.Atoi(v)
		ok, lq.limit = err == nil && n >= 1, min(n, listMost)
	case name == "cursor" && v == "": // the first page, in a loop that began without one
		ok = true
	case name == "cursor":
		b, err := base64.RawURLEncoding.Strict().DecodeString(v)
		if ok = err == nil && len(b) == 8; ok {
			lq.cursor = max(1, int64(binary.BigEndian.Uint64(b)))
		}
	case name == "q" && !lq.shorts:
		lq.text, ok = v, len(v) <= 4*nameMost && utf8.ValidString(v)
	case name == "type" && !lq.shorts:
		lq.mime = strings.ToLower(v)
		kind, all := strings.CutSuffix(lq.mime, "/*")
		ok = all && mimeShape.MatchString(kind+"/x") || !all && mimeShape.MatchString(lq.mime)
	case name == "after":
		lq.after, ok = parseMoment(v)
	case name == "before":
		lq.until, ok = parseMoment(v)
	case name == "owner" && q.tier != admin:
		return refuse(403, "not_admin", "only an admin may list what others own", "leave owner= out")
	case name == "owner":
		lq.all, lq.owner = v == "all", v
		if v == "anonymous" {
			lq.owner = ""
		}
		ok = lq.all || lq.owner == "" && v != "" || isHex(v, 40) || isHex(v, 64)
	}
	if !ok {
		return badOption(fmt.Sprintf("the parameter %.40q is not understood", name),
			"limit=1..200, cursor, q, type=image/png or image/*, after and before (Unix seconds or RFC 3339), owner (admin)")
	}
	return nil
}

// parseMoment reads a time as Unix seconds or RFC 3339.
func parseMoment(v string) (int64, bool) {
	if n, err := strconv.ParseUint(v, 10, 63); err == nil {
		return int64(n), true
	}
	t, err := time.Parse(time.RFC3339, v)
	return t.Unix(), err == nil
}
