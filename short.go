package main

// short.go owns short URLs: what may be a target, creating, redirecting, showing, listing, deleting. A short URL is a
// paste whose id begins with s/ and whose content is the target.
//
// A target is parsed once, checked, and sent as that parse writes it: check and Location can't disagree. Nothing is
// ever fetched. Refused is whatever browsers read otherwise than we do: userinfo, backslashes, blanks, hosts that are
// numbers in disguise. (RFC 3986; the WHATWG URL standard's host parser for what a browser would make of a number)

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

const (
	shortPrefix   = "s/" // of the ids of short URLs in the store
	shortIDLength = 8
)

var (
	shortIDs      = new(big.Int).Exp(big.NewInt(62), big.NewInt(shortIDLength), nil)
	shortIDShape  = regexp.MustCompile(`^[0-9A-Za-z]{8}$`)
	targetBegin   = regexp.MustCompile(`^(?i:https?)://[^/?#]`)
	targetEscaped = regexp.MustCompile("[^\\x00-\\x7f]|[\"<>^`{|}]") // stands in no URL (RFC 3986, 2)
	numberShape   = regexp.MustCompile(`^([0-9]+|0x[0-9a-f]*)$`)
)

// newShortID draws one of all ids.
func newShortID() string {
	n, _ := rand.Int(rand.Reader, shortIDs) // which never fails
	digits := strings.Repeat("0", shortIDLength) + n.Text(62)
	return shortPrefix + digits[len(digits)-shortIDLength:]
}

func badURL(why string) *apiError {
	return refuse(400, "bad_url", "the URL can't be shortened: "+why, "")
}

func (s *server) longURL() error {
	return badURL(fmt.Sprintf("it is longer than %d bytes", s.cfg.shortMax))
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
	if !targetBegin.MatchString(v) {
		e := badURL("it is not http or https with a host")
		e.Hint = "begin with https://, as in https://example.org/"
		if strings.HasPrefix(v, "{") { // JSON most often lacks the header that says so
			e.Hint = "for JSON: curl -H 'Content-Type: application/json'"
		}
		return "", e
	}
	if !plain(v) || strings.ContainsFunc(v, unicode.IsSpace) || strings.Contains(v, `\`) {
		return "", badURL("it has a blank, a control character, a backslash or is no UTF-8")
	}
	// Left alone, what has to be escaped would make url.URL write all of a path anew, where %2F becomes a slash.
	u, err := url.Parse(targetEscaped.ReplaceAllStringFunc(v, url.PathEscape))
	if err != nil {
		return "", badURL("its host, its port or a percent sign is not as in https://example.org:8443/100%25")
	}
	if targetEscaped.MatchString(u.Host) { // before ToLower: a Kelvin sign becomes a k
		return "", badURL("its host is not ASCII: write an international name in its xn-- form")
	}
	u.Host = strings.ToLower(u.Host)
	host, name := u.Hostname(), hostName(u.Hostname())
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	addr, _ := netip.ParseAddr(host) // the zero Addr is none
	switch literal := strings.HasPrefix(u.Host, "["); {
	case u.User != nil:
		return "", badURL("it has a user name: leave out what stands before the @")
	case (err != nil || port == 0) && (u.Port() != "" || strings.HasSuffix(u.Host, ":")):
		return "", badURL("its port is not one of 1 to 65535")
	case literal && (!addr.Is6() || addr.Zone() != ""):
		return "", badURL("its host is no IPv6 address")
	case literal:
		u.Host = "[" + addr.String() + u.Host[strings.IndexByte(u.Host, ']'):]
	case !hostShape.MatchString(host) || len(host) > 253:
		return "", badURL("its host is no host name")
	case numberShape.MatchString(name[strings.LastIndexByte(name, '.')+1:]) && !addr.Is4():
		return "", badURL("its host is a number, but no IPv4 address of four decimal numbers")
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

// expiryOnly refuses the options that a short URL does not have.
func (o *options) expiryOnly() error {
	if o.burn || o.password || o.name || o.proof != nil {
		return badOption("a short URL has no option but expiry", "leave the others out")
	}
	return nil
}

// urlField takes url and expiry from a form's fields, escaped as curl --data-urlencode does.
func (o *options) urlField(form string) (string, error) {
	fields, err := url.ParseQuery(form)
	if at := fields["expiry"]; err == nil && len(at) == 1 {
		delete(fields, "expiry")
		if err := o.set("expiry", at[0]); err != nil {
			return "", err
		}
	}
	if err != nil || len(fields) != 1 || len(fields["url"]) != 1 {
		return "", badOption("the form has more than the fields url and expiry, or is not encoded as a form",
			"curl --data-urlencode url=https://...")
	}
	return fields["url"][0], nil
}

// receiveTarget receives a URL (raw, as JSON, or the field url of a form) and leaves its target as the content.
func (s *server) receiveTarget(q *request, o *options) (in *intake, target string, err error) {
	in = &intake{q: q, limit: 3 * s.cfg.shortMax, over: s.longURL()} // a form's escapes take three bytes each
	in.take = func(r io.Reader) error {
		raw, err := io.ReadAll(io.LimitReader(r, in.limit+1))
		if err != nil {
			return bodyError(err)
		}
		target = strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r") // what echo and editors add
		if strings.HasPrefix(target, "url=") {
			target, err = o.urlField(target)
		}
		if err == nil && target != "" {
			target, err = s.parseTarget(target, q.ownHosts())
		}
		if err != nil {
			return err
		}
		return in.read(strings.NewReader(target))
	}
	err = in.receive(o, `{"url": "https://...", "expiry": "7d"}, of which only url must be there`, "url", "expiry")
	return in, target, err
}

func (s *server) createShort(q *request) error {
	o, err := q.headerOptions(false)
	if err = cmp.Or(s.mayCreate(q), err); err == nil {
		err = o.expiryOnly()
	}
	if err != nil {
		return err
	}
	in, target, err := s.receiveTarget(q, o)
	if err != nil {
		return err
	}
	defer in.close()
	if target == "" {
		return refuse(400, "empty_content", "there is no URL in the body",
			"curl -d https://example.org/ "+q.baseURL()+"/s")
	}
	o.declared = "text/uri-list"
	p := &paste{created: q.now, owner: q.who.owner}
	sum := sha256.Sum256([]byte("short\x00" + target)) // never equal to a paste of the same text
	if err := cmp.Or(o.expiryOnly(), in.permit.countDuplicate(sum[:], in.size), s.apply(q, p, o, in, nil)); err != nil {
		return err
	}
	p.life = 0 // not renewed
	token, err := s.storeNew(in, p, newShortID)
	if err != nil {
		return err
	}
	s.metrics.shorts.created.Add(1)
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
	a := &shortAnswer{ID: strings.TrimPrefix(p.id, shortPrefix), URL: q.s.cfg.prefix + "/" + p.id,
		Link: q.baseURL() + "/" + p.id, TargetURL: target, CreatedAt: p.created, ExpiresAt: p.expires}
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
	return q.writeText(200, "A short URL, "+q.until(p)+". It leads to:\n"+target+"\n")
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
