package main

// short.go owns short URLs (api.md section 9): what may be a target, creating, redirecting, showing, listing, deleting.
//
// A target is parsed once, checked, and sent as that parse writes it: check and Location can't disagree. Nothing is ever
// fetched. Refused is whatever browsers read otherwise than we do: userinfo, backslashes, blanks, hosts that are numbers in
// disguise. (RFC 3986; the WHATWG URL standard's host parser for what a browser would make of a number)

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	shortIDLength = 8
	base62        = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

var (
	shortIDShape = regexp.MustCompile(`^[0-9A-Za-z]{8}$`)
	hostShape    = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.?$`)
	numberShape  = regexp.MustCompile(`^([0-9]+|0x[0-9a-f]*)$`)
)

// newShortID draws without bias: bytes from 248 on, which 62 does not divide evenly, are drawn again.
func newShortID() string {
	id := make([]byte, 0, shortIDLength)
	for len(id) < shortIDLength {
		var b [1]byte
		if rand.Read(b[:]); b[0] < 248 {
			id = append(id, base62[b[0]%62])
		}
	}
	return string(id)
}

func badURL(why string) error {
	return &apiError{status: 400, code: "bad_url", text: "the URL can't be shortened: " + why}
}

func (s *server) longURL() error { return badURL(fmt.Sprintf("longer than %d bytes", s.cfg.shortMax)) }

// escapeTarget percent-encodes what stands in no URL (RFC 3986, 2). Left alone it would be sent as it is in a query, and
// in a path it would make url.URL write all of it anew, where %2F becomes a slash.
func escapeTarget(v string) string {
	var b strings.Builder
	for i := range len(v) {
		if c := v[i]; c > unicode.MaxASCII || strings.IndexByte("\"<>^`{|}", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// hostName is a host as hosts are compared: lower-case, without trailing dot, an address in its one spelling.
func hostName(host string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().String()
	}
	return host
}

// parseTarget returns the target as it will be sent. own are host names of this service.
func (s *server) parseTarget(v string, own []string) (string, error) {
	if len(v) > int(s.cfg.shortMax) {
		return "", s.longURL()
	}
	if !utf8.ValidString(v) || strings.ContainsFunc(v, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) || r == '\\' }) {
		return "", badURL("it has a blank, a control character, a backslash or is no UTF-8")
	}
	u, err := url.Parse(escapeTarget(v))
	if err != nil {
		return "", badURL("it is no absolute http or https URL")
	}
	if strings.ContainsFunc(u.Host, func(r rune) bool { return r > unicode.MaxASCII }) { // before ToLower: a Kelvin sign becomes a k
		return "", badURL("its host is not ASCII: write an international name in its xn-- form")
	}
	u.Host = strings.ToLower(u.Host)
	host, port := u.Hostname(), u.Port()
	switch {
	case u.Scheme != "http" && u.Scheme != "https" || u.Opaque != "" || host == "":
		return "", badURL("it is no absolute http or https URL")
	case u.User != nil || strings.Contains(u.Host, "@"):
		return "", badURL("it has a user name")
	case strings.HasSuffix(u.Host, ":"):
		return "", badURL("its port is empty")
	}
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
		return "", badURL("its port is not one of 1 to 65535")
	}
	name := hostName(host)
	if literal, ok := strings.CutPrefix(u.Host, "["); ok {
		a, err := netip.ParseAddr(host)
		if err != nil || !a.Is6() || a.Zone() != "" {
			return "", badURL("its host is no IPv6 address")
		}
		u.Host = "[" + a.String() + literal[strings.IndexByte(literal, ']'):]
	} else if !hostShape.MatchString(host) || len(host) > 253 {
		return "", badURL("its host is no host name")
	} else if numberShape.MatchString(name[strings.LastIndexByte(name, '.')+1:]) {
		if a, err := netip.ParseAddr(host); err != nil || !a.Is4() {
			return "", badURL("its host is a number, but no IPv4 address of four decimal numbers")
		}
	}
	if len(s.cfg.shortHosts) > 0 && !slices.ContainsFunc(s.cfg.shortHosts, func(h string) bool {
		suffix, wild := strings.CutPrefix(h, "*")
		return h == name || wild && strings.HasSuffix(name, suffix)
	}) {
		return "", badURL("its host is not among those that this server shortens")
	}
	if slices.Contains(own, name) && strings.HasPrefix(path.Clean("/"+u.Path), s.cfg.prefix+"/s/") {
		return "", badURL("it is a short URL already")
	}
	target := u.String()
	if len(target) > int(s.cfg.shortMax) { // percent-encoding made it longer
		return "", s.longURL()
	}
	return target, nil
}

// ownHosts are the names under which this service is known, as hostName writes them.
func (q *request) ownHosts() (hosts []string) {
	for _, base := range []string{q.s.cfg.publicURL, "http://" + q.r.Host} {
		if u, err := url.Parse(base); err == nil && u.Host != "" {
			hosts = append(hosts, hostName(u.Hostname()))
		}
	}
	return hosts
}

// readTarget takes the URL and its options from a JSON or raw body, once its announced length and the work let it.
func (s *server) readTarget(q *request, o *options) (target string, err error) {
	form, _ := mediaType(q.r.Header.Get("Content-Type"))
	most := s.cfg.shortMax + int64(len("\r\n"))
	if form == "application/json" && q.r.ContentLength > jsonMost {
		return "", tooLarge(jsonMost, "")
	} else if form != "application/json" && q.r.ContentLength > most {
		return "", s.longURL()
	}
	if err := s.admit(q); err != nil {
		return "", err
	}
	if !s.uploads.acquire(q.r.Context(), q.key, transferWait) {
		return "", errTransfers
	}
	defer s.uploads.release(q.key)
	if form == "application/json" {
		err = q.readJSON(func(name string, value any) error {
			text, isText := value.(string)
			switch {
			case name == "url" && isText:
				target = text
				return nil
			case name == "expiry":
				return o.setExpiry(value)
			}
			return badJSON("an unknown member or a wrong type")
		})
		if e := (*apiError)(nil); errors.As(err, &e) && e.code == "bad_json" {
			e.hint = `{"url": "https://...", "expiry"?}` // not a paste's
		}
	} else {
		var raw []byte
		if raw, err = io.ReadAll(io.LimitReader(q, most+1)); err != nil {
			return "", bodyError(err)
		}
		target = strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r") // what echo and editors add
	}
	if err == nil && target == "" {
		err = &apiError{status: 400, code: "empty_content", text: "there is no URL in the body"}
	}
	if err == nil {
		target, err = s.parseTarget(target, q.ownHosts())
	}
	return target, err
}

func (s *server) createShort(q *request) error {
	if err := s.mayCreate(q); err != nil {
		return err
	}
	o, err := q.headerOptions(false)
	if err != nil {
		return err
	}
	if o.burn || o.password || o.name || o.proof {
		return badOption("a short URL has no option but expiry")
	}
	target, err := s.readTarget(q, o)
	if err != nil {
		return err
	}
	size := int64(len(target))
	if d := s.limiter.take(rateBytes, q.key, size, q.factor, q.start); !d.allowed {
		return q.rateLimited(rateBytes, d)
	}
	p := &paste{created: q.now, target: target, size: size}
	q.own(p)
	if o.deadline == 0 {
		o.deadline = q.now + int64(s.life(q.tier)/time.Second)
	}
	p.expires = min(o.deadline, q.now+int64(s.longest(q.tier)/time.Second))
	token := p.newToken()
	sum := sha256.Sum256([]byte("short\x00" + target)) // never equal to a paste of the same text
	for try := 0; ; try++ {
		p.id = newShortID()
		err = s.store.createShort(p, q.quota(), func(t *writeTx) error { return s.countCreation(t, q, sum[:]) })
		if !errors.Is(err, errTaken) || try == 8 {
			break
		}
	}
	if err != nil {
		s.limiter.give(rateBytes, q.key, size, q.factor, q.start)
		return err
	}
	q.created()
	s.metrics.shorts.created.Add(1)
	h := q.w.Header()
	h["Location"] = []string{s.cfg.prefix + "/s/" + p.id}
	h["X-Delete-Token"] = []string{token}
	if q.wantsText(false) {
		q.writeBytes(201, "text/plain; charset=utf-8", []byte(q.baseURL()+"/s/"+p.id+"\n"))
		return nil
	}
	return q.writeJSON(201, append(s.shortMembers(p, true), member{"delete_token", token}))
}

// own notes the caller as the owner.
func (q *request) own(p *paste) {
	p.owner = q.who.owner
	if q.who.owner == q.who.sha256 {
		p.ownerSHA1 = q.who.sha1
	}
}

// quota is what all stored bytes may come to while this caller adds to them.
func (q *request) quota() int64 {
	if q.tier >= trusted {
		return q.s.cfg.maxStorage
	}
	return q.s.cfg.maxStorage / 4 * 3
}

// newToken draws a delete token; its hash stays with the paste.
func (p *paste) newToken() string {
	var raw [tokenSize]byte
	rand.Read(raw[:])
	token := base64.RawURLEncoding.EncodeToString(raw[:])
	sum := sha256.Sum256([]byte(token))
	p.token = sum[:]
	return token
}

func (s *server) shortMembers(p *paste, mine bool) []member {
	m := []member{{"id", p.id}, {"url", s.cfg.prefix + "/s/" + p.id}, {"target_url", p.target}, {"created_at", p.created}, {"expires_at", p.expires}}
	if mine && p.owner != "" {
		m = append(m, member{"owner", p.owner})
	}
	return m
}

// findShort looks up the short URL of the path.
func (s *server) findShort(q *request) (*paste, error) {
	id := q.r.PathValue("id")
	if !shortIDShape.MatchString(id) {
		return nil, errNotFound
	}
	q.paste = id
	if q.route.class == classCreate {
		if err := q.ask(rateMiss); err != nil {
			return nil, err
		}
	}
	return s.store.getShort(id, q.now)
}

func (s *server) followShort(q *request) error {
	p, err := s.findShort(q)
	if err != nil {
		return err
	}
	s.metrics.shorts.read.Add(1)
	h := q.w.Header()
	h["Location"] = []string{p.target}
	h["Content-Length"] = []string{"0"}
	q.closeUnread()
	q.w.WriteHeader(302)
	return nil
}

func (s *server) showShort(q *request) error {
	if q.r.PathValue("view") != "info" {
		return errNotFound
	}
	p, err := s.findShort(q)
	if err != nil {
		return err
	}
	return q.writeJSON(200, s.shortMembers(p, q.mine(p)))
}

func (s *server) deleteShort(q *request) error {
	p, err := s.findShort(q)
	if err != nil {
		return err
	}
	return s.deleteFound(q, p, s.store.removeShort, &s.metrics.shorts.deleted)
}

func (s *server) listShorts(q *request) error {
	list, next, err := s.listed(q, true)
	if err != nil {
		return err
	}
	urls := make([][]member, 0, len(list))
	for _, p := range list {
		urls = append(urls, s.shortMembers(p, true))
	}
	return q.writeJSON(200, []member{{"urls", urls}, {"count", len(urls)}, {"next_cursor", next}})
}
