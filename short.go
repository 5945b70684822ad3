package main

// short.go owns short URLs: what may be a target, creating, redirecting, showing, listing, deleting. A short URL is a paste whose id
// begins with s/ and whose content is the target.
//
// A target is parsed once, checked, and sent as that parse writes it: check and Location can't disagree. Nothing is ever
// fetched. Refused is whatever browsers read otherwise than we do: userinfo, backslashes, blanks, hosts that are numbers in
// disguise. (RFC 3986; the WHATWG URL standard's host parser for what a browser would make of a number)

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
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
	shortPrefix   = "s/" // of the ids of short URLs in the store
	shortIDLength = 8
	base62        = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	shortForm     = `{"url": "https://...", "expiry": "7d"}, of which only url must be there`
)

var (
	shortIDShape = regexp.MustCompile(`^[0-9A-Za-z]{8}$`)
	schemeShape  = regexp.MustCompile(`^(?i:https?)://`)
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
	return shortPrefix + string(id)
}

func badURL(why string) error {
	return refuse(400, "bad_url", "the URL can't be shortened: "+why, "")
}

// noScheme is for what does not begin as a URL does; JSON most often lacks the header that says so.
func noScheme(v string) error {
	e := refuse(400, "bad_url", "the URL can't be shortened: it is not http or https with a host",
		"begin with https://, as in https://example.org/")
	if strings.HasPrefix(v, "{") {
		e.Hint = "for JSON: curl -H 'Content-Type: application/json'"
	}
	return e
}

func (s *server) longURL() error {
	return badURL(fmt.Sprintf("it is longer than %d bytes", s.cfg.shortMax))
}

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
	if !schemeShape.MatchString(v) {
		return "", noScheme(v)
	}
	odd := func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) || r == '\\' }
	if !utf8.ValidString(v) || strings.ContainsFunc(v, odd) {
		return "", badURL("it has a blank, a control character, a backslash or is no UTF-8")
	}
	u, err := url.Parse(escapeTarget(v))
	if err != nil {
		return "", badURL("its host, its port or a percent sign is not as in https://example.org:8443/100%25")
	}
	if strings.ContainsFunc(u.Host, func(r rune) bool { return r > unicode.MaxASCII }) { // before ToLower: a Kelvin sign becomes a k
		return "", badURL("its host is not ASCII: write an international name in its xn-- form")
	}
	u.Host = strings.ToLower(u.Host)
	host, port := u.Hostname(), u.Port()
	switch {
	case host == "":
		return "", noScheme(v)
	case u.User != nil || strings.Contains(u.Host, "@"):
		return "", badURL("it has a user name: leave out what stands before the @")
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

// receiveTarget is receive for a URL: raw, as JSON, or the field url of a form.
func (s *server) receiveTarget(q *request, o *options) (*intake, string, error) {
	form, params := mediaType(q.r.Header.Get("Content-Type"))
	target, most := "", 3*s.cfg.shortMax+multipartExtra // a form's escapes take three bytes each
	take := func(r io.Reader) error {
		raw, err := io.ReadAll(io.LimitReader(r, most+1))
		if err != nil {
			return bodyError(err)
		}
		target = strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r") // what echo and editors add
		return nil
	}
	read := func(in *intake) error { return take(q) }
	switch form {
	case "application/json":
		most, read = jsonMost, func(*intake) error {
			var m struct {
				URL    string      `json:"url"`
				Expiry *jsonExpiry `json:"expiry"`
			}
			err := q.readJSON(&m, shortForm)
			if err == nil && m.Expiry != nil {
				err = o.set("expiry", string(*m.Expiry))
			}
			target = m.URL
			return err
		}
	case "multipart/form-data":
		read = func(in *intake) error { return in.multipart(params["boundary"], o, take) }
	case "application/x-www-form-urlencoded":
		read = func(*intake) error {
			if err := take(q); err != nil || !strings.HasPrefix(target, "url=") { // curl -d https://... says that it is a form
				return err
			}
			fields, err := url.ParseQuery(target)
			if v := fields["expiry"]; err == nil && len(v) == 1 {
				err = o.set("expiry", v[0])
				delete(fields, "expiry")
			}
			if err != nil || len(fields) != 1 || len(fields["url"]) != 1 {
				return cmp.Or(apiOnly(err), badOption("the form has more than the fields url and expiry, or is not encoded as a form",
					"curl --data-urlencode url=https://..."))
			}
			target = fields["url"][0]
			return nil
		}
	}
	if q.r.ContentLength > most {
		if form == "application/json" {
			return nil, "", tooLarge(jsonMost, "it looks like "+shortForm)
		}
		return nil, "", s.longURL()
	}
	in, err := s.receive(q, s.cfg.shortMax, min(q.r.ContentLength, s.cfg.shortMax), func(in *intake) (err error) {
		if err = read(in); err != nil {
			return err
		}
		if target == "" {
			return refuse(400, "empty_content", "there is no URL in the body",
				"curl -d https://example.org/ "+q.baseURL()+"/s")
		}
		if target, err = s.parseTarget(target, q.ownHosts()); err != nil {
			return err
		}
		return in.read(strings.NewReader(target))
	})
	return in, target, err
}

// shortOptions refuses what a short URL does not have.
func (o *options) shortOptions() error {
	if o.burn || o.password || o.name || o.proof != nil {
		return badOption("a short URL has no option but expiry", "leave the others out")
	}
	return nil
}

func (s *server) createShort(q *request) error {
	if err := s.mayCreate(q); err != nil {
		return err
	}
	o, err := q.headerOptions(false)
	if err != nil {
		return err
	}
	if err := o.shortOptions(); err != nil {
		return err
	}
	in, target, err := s.receiveTarget(q, o)
	if err != nil {
		return err
	}
	defer in.close()
	if err := o.shortOptions(); err != nil { // those of the body
		return err
	}
	sum := sha256.Sum256([]byte("short\x00" + target)) // never equal to a paste of the same text
	p := &paste{created: q.now, modified: q.now, owner: q.who.owner, size: in.size, sha256: in.sum[:], mime: "text/uri-list"}
	if err := cmp.Or(in.permit.countDuplicate(sum[:], in.size), s.apply(q, p, o, nil, s.now().Unix())); err != nil {
		return err
	}
	p.life = 0 // not renewed
	token, err := s.storeNew(in, p, newShortID)
	if err != nil {
		return err
	}
	s.metrics.shorts.created.Add(1)
	h := q.w.Header()
	h["Location"] = []string{s.cfg.prefix + "/" + p.id}
	h["X-Delete-Token"] = []string{token}
	q.sunset(p)
	a := q.shortAnswer(p, target, true)
	if q.wantsText(false) {
		return q.writeText(201, a.Link+"\n")
	}
	a.DeleteToken = token
	return q.writeJSON(201, a)
}

// shortAnswer is a short URL as it is shown. Members that do not apply are left out.
type shortAnswer struct {
	ID          string `json:"id"`
	URL         string `json:"url"`
	Link        string `json:"link"`
	TargetURL   string `json:"target_url"`
	CreatedAt   int64  `json:"created_at"`
	ExpiresAt   int64  `json:"expires_at"`
	Owner       string `json:"owner,omitempty"`
	DeleteToken string `json:"delete_token,omitempty"`
}

func (q *request) shortAnswer(p *paste, target string, mine bool) *shortAnswer {
	a := &shortAnswer{ID: strings.TrimPrefix(p.id, shortPrefix), URL: q.s.cfg.prefix + "/" + p.id, Link: q.baseURL() + "/" + p.id,
		TargetURL: target, CreatedAt: p.created, ExpiresAt: p.expires}
	if mine {
		a.Owner = p.owner
	}
	return a
}

// findShort looks up the short URL of the path with its target.
func (s *server) findShort(q *request) (*paste, string, error) {
	id := q.r.PathValue("id")
	if !shortIDShape.MatchString(id) {
		return nil, "", errNotFound
	}
	q.paste = id
	p, target, err := s.store.get(shortPrefix+id, q.now)
	return p, string(target), err
}

func (s *server) followShort(q *request) error {
	_, target, err := s.findShort(q)
	if err != nil {
		return err
	}
	s.metrics.shorts.read.Add(1)
	h := q.w.Header()
	h["Location"] = []string{target}
	h["Content-Length"] = []string{"0"}
	q.w.WriteHeader(302)
	return nil
}

func (s *server) showShort(q *request) error {
	if q.r.PathValue("view") != "info" {
		return errNotFound
	}
	p, target, err := s.findShort(q)
	if err != nil {
		return err
	}
	q.sunset(p)
	if !q.wantsPage() {
		return q.writeJSON(200, q.shortAnswer(p, target, q.mine(p)))
	}
	return q.writeText(200, fmt.Sprintf("A short URL, until %s (%s). It leads to:\n%s\n",
		time.Unix(p.expires, 0).UTC().Format("2006-01-02 15:04 UTC"), timeWords(p.expires-q.now), target))
}

func (s *server) deleteShort(q *request) error {
	id := q.r.PathValue("id")
	if !shortIDShape.MatchString(id) {
		return errNotFound
	}
	return s.delete(q, shortPrefix+id, &s.metrics.shorts.deleted)
}

func (s *server) listShorts(q *request) error {
	list, next, err := s.listed(q, true)
	urls := make([]*shortAnswer, 0, len(list))
	for _, p := range list {
		_, target, getErr := s.store.get(p.id, q.now)
		if errors.Is(getErr, errNotFound) { // deleted in this moment
			continue
		}
		err = cmp.Or(err, getErr)
		urls = append(urls, q.shortAnswer(p, string(target), true))
	}
	if err != nil {
		return err
	}
	return q.writeJSON(200, struct {
		URLs  []*shortAnswer `json:"urls"`
		Count int            `json:"count"`
		Next  *string        `json:"next_cursor"`
	}{urls, len(urls), next})
}
