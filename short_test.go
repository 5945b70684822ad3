package main

// Short URLs through the front door (api.md section 9): what may be a target and what is sent for it, the service's own
// addresses in every disguise, the forms of a creation, redirects, what is shown, deletion and lists. What they share
// with pastes (work, duplicates, space, the sweep) is tested there.

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// shorten posts a body to /s.
func (ts *testServer) shorten(body string, headers ...string) *answer {
	ts.t.Helper()
	return ts.do("POST", "/s", strings.NewReader(body), headers...)
}

// short shortens a target and wants a 201.
func (ts *testServer) short(target string, headers ...string) (made shortAnswer) {
	ts.t.Helper()
	a := ts.shorten(target, headers...).want(201, "")
	if err := json.Unmarshal([]byte(a.body), &made); err != nil {
		ts.t.Fatalf("answer %q: %v", a.body, err)
	}
	return made
}

// leadsTo wants a redirect of the short URL to a target.
func (ts *testServer) leadsTo(id, target string) {
	ts.t.Helper()
	if a := ts.get("/s/"+id).want(302, ""); a.Header.Get("Location") != target ||
		a.Header.Get("Cache-Control") != "no-store" || a.body != "" {
		ts.t.Errorf("%v, want %q", a.Header, target)
	}
}

// TestShortTargets: what is taken is sent as its parse writes it; of what is refused the sentence or the hint says why.
func TestShortTargets(t *testing.T) {
	ts := start(t, fast...)
	label := strings.Repeat("a", 63)
	same := []string{
		"https://example.org", "http://example.org./x", "http://example.org:1/", "http://example.org:65535/",
		"http://192.0.2.1:8080/x", "http://[2001:db8::1]/x", "http://1.2.3.4.example.com/", "http://0x7f.example.com/",
		"http://localhost/", "http://" + label + ".org/", "https://example.org/a;b?c;d=e&f#g", "https://example.org/?",
		"https://example.org/s/AAAAAAAA", "https://example.org/?u=https://user@127.1/", "https://example.org/@user",
		"https://example.org//x//y/../z", "https://example.org/a%2Fb",
		"https://example.org/%0d%0aSet-Cookie:%20a=b?%0aX:%20y#%0D%0A",
		"https://example.org/" + strings.Repeat("a", 2028),
	}
	sent := map[string]string{
		"HTTPS://Example.ORG/A?b=C#D":          "https://example.org/A?b=C#D",
		"https://XN--bcher-kva.example/":       "https://xn--bcher-kva.example/",
		"http://[2001:DB8:0:0:0:0:0:1]:8443/x": "http://[2001:db8::1]:8443/x",
		"https://example.org/é?é#é":            "https://example.org/%C3%A9?%C3%A9#%C3%A9",
		"https://example.org/a%2Fé/{x}":        "https://example.org/a%2F%C3%A9/%7Bx%7D",
		"https://example.org/?\u202egpj.exe":   "https://example.org/?%E2%80%AEgpj.exe",
		`https://example.org/?"><script>`:      "https://example.org/?%22%3E%3Cscript%3E",
		"https://example.org/\r\n":             "https://example.org/", // what an editor adds is no part of it
	}
	for _, target := range same {
		sent[target] = target
	}
	for in, out := range sent {
		made := ts.short(in)
		if made.TargetURL != out {
			t.Errorf("target_url %q, want %q", made.TargetURL, out)
		}
		ts.leadsTo(made.ID, out)
	}
	rows := ts.number("SELECT count(*) FROM pastes")
	deep := "http://" + strings.Repeat(strings.Repeat("a", 62)+".", 4) + "aa/" // 254
	for why, targets := range map[string][]string{
		"begin with https://": {"javascript:alert(1)", "JavaScript://example.org/%0aalert(1)",
			"data:text/html,<script>", "file:///etc/passwd", "//example.org/x", "/s/AAAAAAAA", "example.org/x",
			"www.example.org", "example.org:80/x", "localhost:8080", "mailto:a@b", "http:example.org",
			"http:/example.org", "http://", "https:///x", "http://?x", "ftp://example.org/",
			"view-source:http://example.org/", " http://example.org/", "java\tscript:alert(1)", `http:\\example.org`,
			"http//example.org", "ht%74p://example.org/", "\"https://example.org/\"", "\ufeffhttp://e.org/"},
		"Content-Type: application/json": {`{"url": "https://example.org/"}`},
		"its host, its port or a percent sign": {"http://%65xample.org/", "http://example.org%00.example.net/",
			"http://exam<ple.org/", "http://example.org:+80/", "http://example.org:8O/", "http://[::1/", "http://::1/",
			"http://[::1]x/", "http://[::1].example.org/", "http://[v1.x]/", "http://[::1::]/",
			"http://[::ffff:192.0.2.01]/", "http://[192.0.2.1]/", "http://[]/", "http://example.org/%",
			"http://example.org/%g0"},
		"user name": {"http://user@example.org/", "http://user:pw@example.org/", "http://@example.org/",
			"https://example.org:443@192.0.2.1/"},
		"a backslash": {`http://example.org\@192.0.2.1/`, `http://example.org/\x`},
		"a blank": {"http://example.org/ ", "http://example.org/a b", "http://exam ple.org/", "http://example.org/\nx",
			"http://example.org/\r\nSet-Cookie: a=b", "http://example.org/\x00", "http://example.org/\x7f",
			"http://example.org/\u0085", "http://example.org/\u00a0", "http://example.org/\u3000",
			"http://example.org/\xff", "http://e.org/\n\n"},
		"port": {"http://example.org:/", "http://example.org:0/", "http://example.org:65536/",
			"http://example.org:99999999999999999999/"},
		"xn--": {"http://bücher.example/", "http://example。org/", "http://１２７.0.0.1/", "http://\u212aelvin.example/",
			"http://ex\u00adample.org/"},
		"no host name": {"http://:80/", "http://example..org/", "http://.example.org/", "http://-example.org/",
			"http://ex_ample.org/", "http://*.example.org/", "http://example.org../", deep,
			"http://a" + label + ".org/", "http://a,b.example/", "http://a'b.example/"},
		"no IPv6 address": {"http://[::1%25eth0]/"},
		"four decimal numbers": {"http://0177.0.0.1/", "http://127.0.0.01/", "http://0x7f000001/", "http://2130706433/",
			"http://127.1/", "http://127.0.0.1.1/", "http://256.0.0.1/", "http://0/", "http://0x/", "http://1.2.3.4./",
			"http://example.1/", "http://example.0x1f/"},
		"longer than 2048 bytes": {"https://example.org/" + strings.Repeat("a", 2029),
			"https://example.org/" + strings.Repeat("é", 1000)},
	} {
		for _, target := range targets {
			body, _ := json.Marshal(map[string]string{"url": target})
			answers := []*answer{ts.shorten(target + "\n")}
			if utf8.ValidString(target) { // else no JSON can say it
				answers = append(answers, ts.shorten(string(body), isJSON))
			}
			for _, a := range answers {
				if a.StatusCode != 400 || a.field("code") != "bad_url" ||
					!strings.Contains(a.field("error")+a.field("hint"), why) {
					t.Errorf("%.80q: %d %s, want %q", target, a.StatusCode, a.body, why)
				}
			}
		}
	}
	ts.stored(rows)
}

// TestShortOwnAddress: no short URL may lead to another, whatever its address is dressed up as.
func TestShortOwnAddress(t *testing.T) {
	paths := []string{"/p/s/AAAAAAAA", "/p/s/AAAAAAAA/info", "/p/s/AAAAAAAA?x#x", "/p//s/AAAAAAAA", "//p/s/AAAAAAAA",
		"/p/./s/AAAAAAAA", "/p/x/../s/AAAAAAAA", "/../p/s/AAAAAAAA", "/%70/s/AAAAAAAA", "/p%2fs%2FAAAAAAAA",
		"/p/%2e/s/AAAAAAAA", "/p/x/%2E%2e/s/AAAAAAAA", "/p/s/%41AAAAAAA", "/p/s//AAAAAAAA", "/p/x%2f..%2fs/AAAAAAAA"}
	const known = "https://paste.example.org"
	for _, c := range []struct {
		public, host, own string // PUBLIC_URL, the request's Host, what is the service itself then
	}{
		{known, "a", known + " http://PASTE.Example.ORG https://paste.example.org.:8443"},
		{known, "b.example:5000", known + " http://b.example http://b.example:5000"},
		{"", "Paste.example.org.", "http://paste.example.org http://paste.example.org.:81"},
		{"", "192.0.2.1:5000", "http://192.0.2.1 http://[::ffff:192.0.2.1]:5000 http://[::ffff:c000:201]"},
		{"", "[2001:db8::1]:5000", "http://[2001:db8::1]:5000 http://[2001:DB8:0:0:0:0:0:1]"},
	} {
		ts := start(t, append([]string{"URL_PREFIX=/p", "PUBLIC_URL=" + c.public}, fast...)...)
		hosts := strings.Fields(c.own)
		for i, own := range hosts {
			for _, path := range paths[:len(paths)-i*10/len(hosts)] {
				ts.shorten(own+path, "Host: "+c.host).want(400, "bad_url").says("short URL already")
			}
		}
		ts.nothing()
		for _, target := range []string{"/p/0123456789abcdef/raw", "/p/s", "/s/AAAAAAAA", "/p/sx/AAAAAAAA",
			"/p/S/AAAAAAAA", "/p/x?y=/p/s/AAAAAAAA", "/p/%2573/AAAAAAAA"} {
			ts.short(hosts[0]+target, "Host: "+c.host)
		}
		ts.short("https://other.example/p/s/AAAAAAAA", "Host: "+c.host)
	}
	ts := start(t, append([]string{"SHORT_URL_HOSTS=Example.org, *.example.net"}, fast...)...)
	for _, target := range []string{"https://example.org/x", "http://EXAMPLE.org:8080/", "https://example.org./",
		"https://a.b.example.net./x"} {
		ts.short(target)
	}
	for _, target := range []string{"https://www.example.org/", "https://example.net/", "https://xexample.org/",
		"https://example.org.evil.example/", "https://aexample.net/", "https://evil.example/?example.org",
		"https://evil.example/#.example.net", "https://192.0.2.1/"} {
		ts.shorten(target).want(400, "bad_url").says("not among those")
	}
	ts.stored(4)
}

// TestShortCreate: every form with its option and answers.
func TestShortCreate(t *testing.T) {
	const target, day = "https://example.org/?a=b&c", 86400
	ts := start(t, append([]string{"URL_PREFIX=/p", "MAX_EXPIRY=80d"}, fast...)...).certified()
	ts.clock.hold()
	encoded := "Content-Type: application/x-www-form-urlencoded"
	cases := []struct {
		name, body string
		headers    []string
		life       int64
	}{
		{"raw", target + "\n", nil, day}, {"curl -d", target, []string{encoded}, day},
		{"asked for", target, []string{"X-Expiry: 1h"}, 3600}, {"clamped", target, []string{"X-Expiry: 8d"}, 7 * day},
		{"JSON", `{"url": "https:\/\/example.org\/?a=b&c"}`, []string{isJSON}, day},
		{"JSON, expiry", `{"expiry":90,"url":"` + target + `"}`, []string{"Content-Type: Application/JSON; x=y"}, 90},
		{"JSON and a header", `{"url":"` + target + `","expiry":"90s"}`, []string{isJSON, "X-Expiry: 90"}, 90},
		{"data-urlencode", "url=https%3A%2F%2Fexample.org%2F%3Fa%3Db%26c&expiry=1h", []string{encoded}, 3600},
		{"-F url=", form(field("url", target)), []string{isForm}, day},
		{"-F u=", form(field("expiry", "1h"), field("u", target+"\r\n")), []string{isForm}, 3600},
		{"certificate", target, withCert(certAlice), 7 * day},
		{"trusted asks", target, withCert(certFirst, "X-Expiry: 90d"), 80 * day},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ts := ts.in(t)
			a := ts.shorten(c.body, c.headers...).want(201, "")
			id, shows := a.field("id"), "created_at expires_at id link target_url url"
			if strings.Contains(strings.Join(c.headers, ""), "X-SSL") {
				shows += " owner"
			}
			if a.members() != words(shows, "delete_token") || !shortIDShape.MatchString(id) ||
				a.field("url") != "/p/s/"+id || a.field("link") != ts.url+"/s/"+id || a.field("target_url") != target ||
				len(a.field("delete_token")) != 43 || a.number("expires_at")-a.number("created_at") != c.life {
				t.Errorf("%s", a.body)
			}
			if h := a.Header; h.Get("Location") != "/p/s/"+id || h.Get("X-Delete-Token") != a.field("delete_token") ||
				h.Get("Sunset") == "" {
				t.Errorf("%v", h)
			}
			ts.leadsTo(id, target)
			info := ts.get("/s/"+id+"/info", c.headers...).want(200, "")
			if info.members() != words(shows) || info.field("target_url") != target {
				t.Errorf("info %s", info.body)
			}
			if stranger := ts.get("/s/" + id + "/info"); stranger.field("owner") != "" {
				t.Errorf("a stranger sees %s", stranger.body)
			}
		})
	}
	ts.stored(int64(len(cases)))
	a := ts.shorten(target, "Accept: text/plain").want(201, "")
	if a.body != ts.url+"/s/"+a.id()+"\n" || a.Header.Get("Content-Type") != isText {
		t.Errorf("as text: %q", a.body)
	}
	for _, accept := range []string{"text/plain", "text/html,*/*;q=0.8"} {
		page := ts.get("/s/"+a.id()+"/info", "Accept: "+accept).want(200, "").body
		if !strings.Contains(page, "(1 day). It leads to:\n"+target+"\n") {
			t.Errorf("for a person: %q", page)
		}
	}
	if strings.Contains(ts.logs.String(), "example.org") {
		t.Errorf("a target in the log: %s", ts.logs)
	}
}

// TestShortRefused: what is neither a target nor its one option, in the order of refusals; nothing is stored.
func TestShortRefused(t *testing.T) {
	const good = "https://example.org/"
	encoded := "Content-Type: application/x-www-form-urlencoded"
	ts := start(t, fast...)
	for _, c := range []struct{ headers, body, code, says string }{
		{"", "", "empty_content", "curl -d https://example.org/ " + ts.url + "/s"},
		{"", "\n", "empty_content", "no URL"}, {isJSON, `{}`, "empty_content", "no URL"},
		{isForm, form(field("expiry", "1h")), "empty_content", "no URL"},
		{isJSON, ``, "bad_json", `{"url": "https://..."`}, {isJSON, `{"url": 1}`, "bad_json", "url must be a string"},
		{isJSON, `{"url": "https://example.org/", "burn_after_read": true}`, "bad_json", "burn_after_read"},
		{isJSON, `{"url": "https://example.org/", "expiry": 1.5}`, "bad_expiry", "expiry"},
		{isJSON, `{"url": "` + strings.Repeat("a", 1<<20) + `"}`, "too_large", "1 MiB"},
		{isJSON + "\nX-Expiry: 90", `{"url": "https://example.org/", "expiry": 60}`, "bad_option", "expiry"},
		{"", good + strings.Repeat("a", 1<<20), "bad_url", "longer than 2048 bytes"},
		{encoded, "url=https://example.org/&title=x", "bad_option", "--data-urlencode"},
		{encoded, "url=https://example.org/%zz", "bad_option", "encoded"},
		{encoded, "url=https://e.org/&expiry=soon", "bad_expiry", "soon"},
		{encoded, "url=https://example.org/&url=https://example.net/", "bad_option", "form"},
		{isForm, form(field("url", good), field("url", good)), "bad_option", "two contents"},
		{isForm, form(field("url", good), field("password", "x")), "bad_option", "no option but expiry"},
		{"X-Expiry: 0", good, "bad_expiry", "future"}, {"X-Paste-Password: x", good, "bad_option", "no option"},
		{"X-Burn-After-Read: false", good, "bad_option", "no option"}, {proofGiven, good, "bad_option", "no option"},
		{"X-Display-Name: x", good, "bad_display_name", "certificate"},
		{"ALICE\nX-Display-Name: x", good, "bad_option", "no option"},
		{"Content-Encoding: gzip", good, "unsupported_encoding", "as they are"},
		{"Origin: https://evil.example", "nonsense", "cross_origin", "another site"},
	} {
		status := max(400, map[string]int{"too_large": 413, "unsupported_encoding": 415, "cross_origin": 403}[c.code])
		for _, body := range both(c.body) {
			ts.do("POST", "/s", body, head(c.headers)...).want(status, c.code).says(c.says)
		}
	}
	ts.send("POST /s?expiry=1h", strings.NewReader(good)).want(400, "bad_option").says("X-Expiry: ")
	ts.send("PATCH /s", nil).want(405, "method_not_allowed").says("GET, HEAD, POST")
	ts.nothing()
	for need, who := range map[string][]string{"any": nil, "trusted": withCert(certAlice)} { // they learn that first
		ts = start(t, append([]string{"REQUIRE_CERT=" + need}, fast...)...)
		ts.shorten("nonsense", append(who, "X-Expiry: nonsense")...).want(401, "certificate_required")
		ts.nothing()
	}
}

// TestShortLife: redirects, lives that no read renews, and deletion.
func TestShortLife(t *testing.T) {
	ts := start(t, fast...).certified()
	ts.clock.hold()
	alive, asked := ts.short("https://e.org/1", withCert(certAlice)...), ts.short("https://e.org/2", "X-Expiry: 2h")
	deleted, paste := ts.short("https://e.org/3"), ts.create("x")
	ts.get("/s/"+alive.ID, "Range: bytes=0-1", "If-None-Match: *").want(302, "")
	if a := ts.do("HEAD", "/s/"+alive.ID, nil).want(302, ""); a.Header.Get("Location") != alive.TargetURL {
		t.Errorf("HEAD: %v", a.Header)
	}
	for _, c := range []struct {
		id, headers string
		status      int
		code        string
	}{
		{deleted.ID, "", 401, "authentication_required"}, {deleted.ID, "X-Delete-Token: x", 403, "not_owner"},
		{deleted.ID, "ALICE", 403, "not_owner"}, {alive.ID, "MALLORY", 403, "not_owner"},
		{deleted.ID, "X-Delete-Token: " + asked.DeleteToken, 403, "not_owner"},
		{deleted.ID, "X-Delete-Token: " + paste.DeleteToken, 403, "not_owner"},
		{deleted.ID, "X-Delete-Token: " + deleted.DeleteToken, 200, ""}, {deleted.ID, "ADMIN", 404, "not_found"},
	} {
		a := ts.do("DELETE", "/s/"+c.id, nil, head(c.headers)...).want(c.status, c.code)
		if c.status == 200 && a.body != `{"id":"`+c.id+`","deleted":true}`+"\n" {
			t.Errorf("%s", a.body)
		}
	}
	ts.clock.advance(2*time.Hour - time.Second)
	ts.leadsTo(asked.ID, asked.TargetURL) // now in the cache
	ts.clock.advance(time.Second)
	ts.get("/s/"+asked.ID).want(404, "not_found")
	ts.get("/s/"+deleted.ID).want(404, "not_found")
	ts.do("DELETE", "/s/"+asked.ID, nil, "X-Delete-Token: "+asked.DeleteToken).want(404, "not_found")
	ts.clock.advance(7*24*time.Hour - 2*time.Hour - time.Second)
	ts.leadsTo(alive.ID, alive.TargetURL)
	if a := ts.get("/s/" + alive.ID + "/info"); a.number("expires_at") != alive.ExpiresAt {
		t.Errorf("a redirect renewed it: %s", a.body)
	}
	ts.clock.advance(time.Second)
	ts.get("/s/"+alive.ID).want(404, "not_found")
	ts.sweep()
	ts.nothing()
}

// TestShortList: the caller's own alone, the latest first, page by page; an admin sees and deletes everybody's.
func TestShortList(t *testing.T) {
	ts := start(t, fast...).certified()
	ts.clock.hold()
	ts.get("/s").want(401, "authentication_required")
	for i := range 4 {
		ts.short(fmt.Sprint("https://example.org/", i), withCert(certAlice)...)
	}
	mallorys := ts.short("https://example.org/m", withCert(certMallory)...)
	ts.short("https://example.org/n")
	ts.create("a paste is on the other list", withCert(certAlice)...)
	for _, c := range [][3]string{{"ALICE", "", "3210"}, {"ALICE", "?after=1", "3210"}, {"ALICE", "?before=1", ""},
		{"ADMIN", "", ""}, {"ADMIN", "?owner=all", "nm3210"}, {"ADMIN", "?owner=anonymous", "n"},
		{"ADMIN", "?owner=" + certMallory, "m"}, {"ADMIN", "?owner=all&limit=9", "nm3210"}} {
		if p, targets := ts.page("/s"+c[1], head(c[0])...); targets != c[2] || p.Next != nil {
			t.Errorf("%s, %s: %s, %+v", c[0], c[1], targets, p)
		}
	}
	p, first := ts.page("/s?limit=3", withCert(certAlice)...)
	if end, rest := ts.page("/s?limit=3&cursor="+*p.Next, withCert(certAlice)...); first+rest != "3210" ||
		end.Next != nil {
		t.Errorf("page by page: %s %s", first, rest)
	}
	for _, query := range []string{"?limit=0", "?q=x", "?type=text/plain", "?unknown=1"} { // the rest is as with pastes
		ts.get("/s"+query, withCert(certAlice)...).want(400, "bad_option")
	}
	ts.get("/s?owner=all", withCert(certAlice)...).want(403, "not_admin")
	if a := ts.get("/s/"+mallorys.ID+"/info", withCert(certOfAdmin)...); a.field("owner") != certMallory {
		t.Errorf("an admin sees %s", a.body)
	}
	ts.do("DELETE", "/s/"+mallorys.ID, nil, withCert(certOfAdmin)...).want(200, "")
	ts.get("/s/"+mallorys.ID).want(404, "not_found")
}
