package main

// paste.go owns pastes on the wire: creating, showing, reading, burning, changing, deleting and listing them.
//
// The order of checks is the contract's: nothing is written before everything that can be said without it, and one
// writer operation then does all or nothing. Nobody bypasses a read proof or a password: owner and admin see metadata,
// may change and delete. Content passes in chunks; passwords, tokens and content never reach a log. (RFC 9110 for
// conditions and ranges, RFC 8594 Sunset)

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
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
)

// ---- creating and changing ----

func (s *server) createPaste(q *request) error { return s.save(q, "") }

// putPaste changes the paste of an id, or creates one for a name that has not the shape of an id.
func (s *server) putPaste(q *request) error {
	id := q.r.PathValue("name")
	if !idShaped(id) {
		if e := q.reserved(id); e != nil {
			return e
		}
		return s.createPaste(q)
	}
	p, err := s.authorized(q, id)
	if errors.Is(err, errNotFound) {
		return refuse(404, apiNotFound.Code, apiNotFound.Text, "this name has the shape of an id: to upload a file of "+
			"this name, curl -T - "+q.baseURL()+"/ <FILE")
	}
	if err == nil && p.burn {
		err = errBurning
	}
	if err != nil {
		return err
	}
	return s.save(q, id)
}

// save creates a paste, or changes that of id: options, content, what the whole must pass, the password's key, and then
// one writer operation.
func (s *server) save(q *request, id string) error {
	content, in := id == "" || !q.bodyDone, new(intake) // nothing comes in with options alone
	if err := s.mayCreate(q); content && err != nil {
		return err
	}
	o, err := q.headerOptions(id != "")
	if err != nil {
		return err
	}
	if content {
		if in, err = s.receivePaste(q, o); err != nil {
			return err
		}
		defer in.close()
	}
	if id == "" || q.bodyRead > 0 {
		err = cmp.Or(s.checkContent(in), in.permit.countDuplicate(in.sum[:], in.size))
	} else if in = new(intake); !(o.expiry || o.burn || o.password || o.name || o.proof != nil) {
		err = badOption("neither a content nor an option to change", "curl -T FILE, or a header: -H 'X-Expiry: 7d'")
	}
	if err != nil {
		return err
	}
	key, err := s.passwordKey(q, o.pass)
	if err != nil {
		return err
	}
	if id == "" {
		p := &paste{created: q.now, owner: q.who.owner}
		if err := s.apply(q, p, o, in, key); err != nil {
			return err
		}
		token, err := s.storeNew(in, p, newPasteID)
		if err != nil {
			return err
		}
		s.metrics.pastes.created.Add(1)
		return q.answerCreated(p, token)
	}
	p, err := s.store.change(id, s.now().Unix(), in.up, in.buf, func(p *paste) error {
		if p.burn { // since it was asked, before the body came
			return errBurning
		}
		return cmp.Or(q.precondition(p), s.apply(q, p, o, in, key))
	})
	if err != nil {
		return err
	}
	if in.up != nil {
		in.keep()
	}
	q.sunset(p)
	return q.writeJSON(200, q.answer(p, q.mine(p)))
}

func newPasteID() string { return hex.EncodeToString(random(8)) }

// storeNew draws id and delete token, stores p with the content of in, and begins the header of the answer.
func (s *server) storeNew(in *intake, p *paste, draw func() string) (token string, err error) {
	token = base64.RawURLEncoding.EncodeToString(random(32))
	sum := sha256.Sum256([]byte(token))
	p.token = sum[:]
	for err = errTaken; errors.Is(err, errTaken); {
		p.id = draw()
		err = s.store.create(p, in.up, in.buf)
	}
	if err == nil {
		in.keep()
		h := in.q.w.Header()
		h["Location"], h["X-Delete-Token"] = []string{s.cfg.prefix + "/" + p.id}, []string{token}
		in.q.sunset(p)
	}
	return token, err
}

// apply writes onto p, as it is now, the content of in if there is any, and the options; key is of their password.
func (s *server) apply(q *request, p *paste, o *options, in *intake, key []byte) error {
	if in.size > 0 {
		p.size, p.sha256, p.mime, p.modified = in.size, in.sum[:], mimeOf(o.declared, in), q.now
	}
	most := p.created + int64(s.cfg.maxExpiry/time.Second)
	if o.expiry && o.deadline != 0 {
		p.expires, p.life = min(o.deadline, q.now+int64(s.longest(q.tier)/time.Second), most), 0
	} else if o.expiry || p.expires == 0 {
		p.life = int64(s.life(q.tier) / time.Second)
		p.expires = min(q.now+p.life, most)
	}
	if p.expires <= s.now().Unix() {
		return badExpiry("it would have ended before it was stored: the content took longer to come, " +
			"or the paste is too old")
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

// authorized looks up the row of id for its owner, an admin or the holder of its delete token.
func (s *server) authorized(q *request, id string) (*paste, error) {
	q.paste = strings.TrimPrefix(id, shortPrefix)
	if err := q.ask(rateMiss); err != nil { // of reads it was asked before
		return nil, err
	}
	p, err := s.store.show(id, q.now)
	if err != nil || q.mine(p) {
		return p, err
	}
	tokens := q.r.Header["X-Delete-Token"]
	switch sum := sha256.Sum256([]byte(strings.Join(tokens, ","))); {
	case subtle.ConstantTimeCompare(sum[:], p.token) == 1:
		return p, nil
	case len(tokens) > 0:
		q.charge(rateAuth)
		return nil, refuse(403, "not_owner", "the delete token is wrong",
			"it came with the answer to the creation, as the header X-Delete-Token and the member delete_token")
	case q.tier == anonymous:
		return nil, refuse(401, "authentication_required", "this needs the delete token, or the owner's certificate",
			"curl -H 'X-Delete-Token: ...', with the token that came with the creation")
	}
	return nil, refuse(403, "not_owner", "your certificate is not the one of this paste's owner",
		"use that, or the delete token: curl -H 'X-Delete-Token: ...'")
}

var errBurning = refuse(409, "burning", "a paste that burns after reading can't be changed",
	"delete it and create another")

var errPrecondition = refuse(412, "precondition_failed", "the content is another by now",
	"curl -I shows the ETag that it has; what burns, or needs a password or a read proof, has none")

// precondition evaluates the conditions of a change against the content that is there (RFC 9110, 13.2.2).
func (q *request) precondition(p *paste) error {
	tag := "*"
	if p.open() {
		tag = p.etag()
	}
	has := func(name string, tags ...string) bool {
		list := strings.Split(strings.Join(q.r.Header[name], ","), ",")
		return slices.ContainsFunc(list, func(v string) bool { return slices.Contains(tags, strings.TrimSpace(v)) })
	}
	matched := has("If-Match", "*", tag)
	if q.r.Header["If-Match"] == nil { // only then the date counts
		since, err := http.ParseTime(q.r.Header.Get("If-Unmodified-Since"))
		matched = err != nil || p.modified <= since.Unix()
	}
	if !matched || has("If-None-Match", "*", tag, "W/"+tag) {
		return errPrecondition
	}
	return nil
}

func notAllowed(method, allow string) *apiError {
	return refuse(405, "method_not_allowed", fmt.Sprintf("this address does not take %.20s", method), "it takes "+allow)
}

// reserved refuses a name that begins another route: echo URL | curl -T - P/s is meant for that, and no file called s.
func (q *request) reserved(name string) *apiError {
	allow, found := "GET, HEAD", false
	for _, rt := range q.s.table {
		method, path, _ := strings.Cut(rt.pattern, " /")
		found = found || strings.HasPrefix(path+"/", name+"/") && name[0] != '{'
		if path == name && method == "POST" {
			allow += ", POST"
		}
	}
	if !found {
		return nil
	}
	e := notAllowed(q.r.Method, allow)
	if name == "s" && q.r.Method == "PUT" {
		e.Hint = "to shorten a URL: curl -d https://example.org/ " + q.baseURL() + "/s"
	}
	q.w.Header()["Allow"] = []string{allow}
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
	p, err := s.authorized(q, id)
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

// ---- showing ----

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

// answer describes p; mine adds what only owner and admin see. Link is what a reader opens: the content, but of a
// burning paste what previews can't trigger.
func (q *request) answer(p *paste, mine bool) *pasteAnswer {
	path := "/" + p.id
	a := &pasteAnswer{ID: p.id, URL: q.s.cfg.prefix + path, Raw: q.s.cfg.prefix + path + "/raw", MIMEType: p.mime,
		Link: q.baseURL() + path, Size: p.size, CreatedAt: p.created, ExpiresAt: p.expires,
		Burn: p.burn, Password: p.password != nil, ReadProof: p.proof != nil}
	if !p.burn {
		a.Link += "/raw"
	}
	if p.open() { // else it would let anyone try guesses off line
		a.SHA256 = hex.EncodeToString(p.sha256)
	}
	if mine {
		a.Owner, a.DisplayName = p.owner, p.name
	}
	return a
}

func (q *request) sunset(p *paste) { q.w.Header()["Sunset"] = []string{httpDate(p.expires)} }

func httpDate(unix int64) string { return time.Unix(unix, 0).UTC().Format(http.TimeFormat) }

func (q *request) answerCreated(p *paste, token string) error {
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

// idShaped reports whether v could be an id: 8 to 64 lower-case hex digits.
func idShaped(v string) bool { return len(v) >= 8 && len(v) <= 64 && isHex(v, len(v)) }

// mine reports whether the caller is the owner or an admin.
func (q *request) mine(p *paste) bool { return q.tier == admin || q.who.owns(p) }

// showPaste answers metadata: a few lines for a person, who is told what to type.
func (s *server) showPaste(q *request) error {
	id := q.r.PathValue("id")
	if !idShaped(id) {
		return errNotFound
	}
	q.paste = id
	p, err := s.store.show(id, q.now)
	if err != nil {
		return err
	}
	q.sunset(p)
	if !q.wantsPage() {
		return q.writeJSON(200, q.answer(p, q.mine(p)))
	}
	link := q.baseURL() + "/" + id
	kind, notes, read := p.mime, "", "curl "+link+"/raw"
	if p.password != nil {
		notes, read = "It needs a password.\n", "curl -u :PASSWORD "+link+"/raw"
	}
	if p.proof != nil {
		kind = "encrypted"
		read = "fpaste get '" + link + "#...'\nwith the whole link, the part behind # too. fpaste, the client: " +
			q.baseURL() + "/client"
	}
	if p.burn {
		notes += "It can be read once; then it is gone.\n"
	}
	return q.writeText(200, fmt.Sprintf("A paste: %s, %s, %s.\n%s\nTo read it:\n%s\n", kind, sizeWords(p.size),
		q.until(p), notes, read))
}

// until says when p ends, for people.
func (q *request) until(p *paste) string {
	return "until " + time.Unix(p.expires, 0).UTC().Format("2006-01-02 15:04 UTC") + " (" +
		timeWords(p.expires-q.now) + ")"
}

// ---- reading ----

var (
	prefetches    = regexp.MustCompile(`(?i)prefetch|prerender|preview`)
	previewAgents = regexp.MustCompile(`(?i)bot|crawler|spider|preview|facebookexternalhit|whatsapp|slack|discord|` +
		`skype|embedly|urlscan|mastodon|iframely|rocket\.chat|misskey|lemmy|viber|ms-office`)
)

// preview recognises requests that no person made: a link preview must not burn a paste.
func preview(h http.Header) bool {
	purposes := slices.Concat(h["Sec-Purpose"], h["Purpose"], h["X-Purpose"], h["X-Moz"])
	return slices.ContainsFunc(purposes, prefetches.MatchString) ||
		slices.ContainsFunc(h["User-Agent"], previewAgents.MatchString) ||
		h.Get("Sec-Fetch-Site") == "cross-site" && h.Get("Sec-Fetch-Mode") != "navigate"
}

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
	if err == nil && p.burn && preview(q.r.Header) {
		err = refuse(403, "preview_refused", "this paste burns after reading: previews and prefetches are refused", "")
	}
	if err == nil && p.proof != nil {
		err = q.checkProof(p)
	}
	if err == nil && p.password != nil {
		err = s.checkPassword(q, p)
	}
	if err == nil && p.burn && !head {
		err = s.store.claim(p, s.now().Unix())
	}
	if err != nil {
		return err
	}
	if p.burn && !head {
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

// checkProof wants the 32 bytes whose SHA-256 was given at creation.
func (q *request) checkProof(p *paste) error {
	got := q.r.Header["X-Read-Proof"]
	b, err := hex.DecodeString(strings.Join(got, ","))
	sum := sha256.Sum256(b)
	if err == nil && len(b) == sha256.Size && subtle.ConstantTimeCompare(sum[:], p.proof) == 1 {
		return nil
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
		e := refuse(401, "password_required", "this paste needs a password",
			"curl -u :PASSWORD "+q.baseURL()+"/"+p.id+"/raw, or fpaste get -p")
		q.w.Header()["Www-Authenticate"] = []string{`Basic realm="paste", charset="UTF-8"`}
		return e
	}
	key, err := s.derive(q, pass, p.password[:32])
	if err == nil && subtle.ConstantTimeCompare(key, p.password[32:]) != 1 {
		return refuse(403, "password_wrong", "the password is wrong", "")
	}
	return err
}

// etag is the strong one of an open content.
func (p *paste) etag() string { return `"` + hex.EncodeToString(p.sha256) + `"` }

// contentHeader is what every answer with a content has in its header, made once for what is in the cache.
type contentHeader struct{ kind, disposition, length, etag, modified []string }

func (p *paste) header() *contentHeader {
	if p.memo == nil {
		p.memo = new(memo)
	}
	p.memo.once.Do(func() {
		p.memo.v = &contentHeader{[]string{p.mime}, []string{disposition(p.mime)},
			[]string{strconv.FormatInt(p.size, 10)}, []string{p.etag()}, []string{httpDate(p.modified)}}
	})
	return p.memo.v.(*contentHeader)
}

// send answers the content of p, whose first chunk is first.
func (q *request) send(p *paste, first []byte) error {
	h, c := q.w.Header(), p.header()
	h["Content-Type"], h["Content-Disposition"] = c.kind, c.disposition
	if p.open() {
		h["Etag"], h["Cache-Control"] = c.etag, hRevalidate
		for name := range q.r.Header {
			if name == "Range" || strings.HasPrefix(name, "If-") {
				rd := q.s.store.reader(p, first)
				err := q.serveContent(time.Unix(p.modified, 0), io.NewSectionReader(rd, 0, p.size))
				return cmp.Or(err, rd.err)
			}
		}
		h["Last-Modified"], h["Accept-Ranges"] = c.modified, hBytes
	}
	h["Content-Length"] = c.length
	q.w.WriteHeader(200)
	if q.r.Method == "HEAD" {
		return nil
	}
	if int64(len(first)) == p.size { // most reads
		q.w.Write(first)
		return nil
	}
	rd := q.s.store.reader(p, first)
	io.Copy(&q.w, io.NewSectionReader(rd, 0, p.size))
	return rd.err
}

// rangeShape is the one form of Range that is honoured; every other is ignored, which RFC 9110 (14.2) allows.
var rangeShape = regexp.MustCompile(`^(?i:bytes)=([0-9]{1,18}-[0-9]{0,18}|-0{0,9}[1-9][0-9]{0,8})$`)

// serveContent answers conditions and ranges (RFC 9110, 13 and 14).
func (q *request) serveContent(modified time.Time, content io.ReadSeeker) error {
	v := q.r.Header["Range"]
	if q.r.Method == "GET" && len(v) == 1 && rangeShape.MatchString(v[0]) {
		v[0] = strings.ToLower(v[0])
	} else {
		delete(q.r.Header, "Range")
	}
	q.w.serving = true
	http.ServeContent(&q.w, q.r, "", modified, content)
	q.w.serving = false
	if q.w.status == http.StatusPreconditionFailed {
		return errPrecondition
	}
	return nil
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
	lq := listQuery{owner: q.who.owner, limit: listDefault, shorts: shorts, until: math.MaxInt64}
	values, err := url.ParseQuery(q.r.URL.RawQuery)
	if err != nil {
		return nil, nil, badOption("the parameters (behind the ?) are not understood", "?limit=50&q=text")
	}
	for name, v := range values {
		if name == "owner" && q.tier != admin {
			return nil, nil, refuse(403, "not_admin", "only an admin may list what others own", "leave owner= out")
		}
		if len(v) > 1 || !lq.parameter(name, v[0]) {
			return nil, nil, badOption(fmt.Sprintf("the parameter %.40q is not understood", name),
				"each once: limit=1..200, cursor, q, type=image/png or image/*, after and before (Unix seconds or "+
					"RFC 3339), owner (admin)")
		}
	}
	if !s.lists.acquire(q.r.Context(), q.key, transferWait) {
		return nil, nil, errTransfers
	}
	defer s.lists.release(q.key)
	list, cursor, err := s.store.list(lq, q.now)
	if cursor != 0 {
		text := strconv.FormatInt(cursor, 10)
		next = &text
	}
	return list, next, err
}

// parameter sets one parameter of a list, and reports whether it is one.
func (lq *listQuery) parameter(name, v string) (ok bool) {
	switch {
	case name == "limit":
		n, err := strconv.Atoi(v)
		ok, lq.limit = err == nil && n >= 1, min(n, listMost)
	case name == "cursor": // empty: the first page, in a loop that began without one
		n, err := strconv.ParseUint(cmp.Or(v, "0"), 10, 63)
		ok, lq.cursor = err == nil, int64(n)
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
	case name == "owner":
		lq.all, lq.owner = v == "all", v
		if v == "anonymous" {
			lq.owner = ""
		}
		ok = lq.all || v == "anonymous" || isHex(v, 40) || isHex(v, 64)
	}
	return ok
}

// parseMoment reads a time as Unix seconds or RFC 3339.
func parseMoment(v string) (int64, bool) {
	if n, err := strconv.ParseUint(v, 10, 63); err == nil {
		return int64(n), true
	}
	t, err := time.Parse(time.RFC3339, strings.ToUpper(v))
	return t.Unix(), err == nil
}
