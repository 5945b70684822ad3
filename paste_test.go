package main

// Pastes on the wire (api.md sections 3, 4, 5 and 8), over a real listener and the real store: each form of a creation
// with its options and answers, each refusal, reading, burning, renewing, changing, deleting, listing; and what must
// not have happened. The clock is held wherever a time is compared.

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// part is one part of a multipart body, written as it is: a head of header lines, and content.
type part struct{ head, content string }

func field(name, value string) part {
	return part{`Content-Disposition: form-data; name="` + name + `"`, value}
}

func file(name, content string) part {
	return part{`Content-Disposition: form-data; name="file"; filename="` + name + `"` +
		"\r\nContent-Type: application/octet-stream", content}
}

const (
	isJSON = "Content-Type: application/json"
	isForm = "Content-Type: multipart/form-data; boundary=b0undary"
	isText = "text/plain; charset=utf-8"
)

func form(parts ...part) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("--b0undary\r\n" + p.head + "\r\n\r\n" + p.content + "\r\n")
	}
	return b.String() + "--b0undary--\r\n"
}

// A read proof, and what a creation is told of it.
var (
	readProof  = strings.Repeat("0a", 32)
	proofGiven = "X-Read-Proof-SHA256: " + sum256(strings.Repeat("\x0a", 32))
)

// send sends a request "METHOD /path".
func (ts *testServer) send(request string, body io.Reader, headers ...string) *answer {
	ts.t.Helper()
	method, path, _ := strings.Cut(request, " ")
	return ts.do(method, path, body, headers...)
}

// id is that of the paste which an answer names.
func (a *answer) id() string {
	return a.Header.Get("Location")[strings.LastIndex(a.Header.Get("Location"), "/")+1:]
}

// number is a member that must be a whole number.
func (a *answer) number(name string) int64 {
	a.t.Helper()
	n, err := strconv.ParseInt(a.field(name), 10, 64)
	if err != nil {
		a.t.Fatalf("%s of %s: %v", name, a.body, err)
	}
	return n
}

// members are the names of an answer's members, sorted.
func (a *answer) members() string {
	var m map[string]any
	json.Unmarshal([]byte(a.body), &m)
	return strings.Join(slices.Sorted(maps.Keys(m)), " ")
}

// words joins names of members as members does.
func words(names ...string) string {
	return strings.Join(slices.Sorted(slices.Values(strings.Fields(strings.Join(names, " ")))), " ")
}

// says wants words in an answer's sentence or hint.
func (a *answer) says(text string) {
	a.t.Helper()
	if said := a.field("error") + " / " + a.field("hint"); !strings.Contains(said, text) {
		a.t.Errorf("%q speaks of no %q", said, text)
	}
}

// write changes the database behind the server's back.
func (ts *testServer) write(query string, args ...any) {
	ts.t.Helper()
	if err := ts.store.do(0, statement(query, args...)); err != nil {
		ts.t.Fatalf("%s: %v", query, err)
	}
}

// listed puts a certificate with this SHA-1 into the table, and returns its owner.
func (ts *testServer) listed(sha1 string, admin bool) (owner string) {
	ts.t.Helper()
	owner = sum256(sha1)
	ts.write("INSERT INTO certs VALUES (?1, ?2, substr(?2, 1, 32), ?1, 'name', 1, 1 << 40, 0, '', 1, ?3)", owner, sha1,
		admin)
	return owner
}

// fast is a server behind the tests' proxy that does not wait for the disk: power cuts are crash_test.go's.
var fast = append([]string{"SYNC=normal"}, proxied...)

const (
	certTrusted = "7777777777777777777777777777777777777777"
	certAdmin   = "9999999999999999999999999999999999999999"
)

// head splits lines into headers. A first line of ALICE, MALLORY, TRUSTED or ADMIN is that certificate, shown by the
// proxy.
func head(lines string) []string {
	h := strings.Split(lines, "\n")
	cert := map[string]string{"ALICE": certAlice, "MALLORY": certMallory, "TRUSTED": certTrusted,
		"ADMIN": certAdmin}[h[0]]
	if cert != "" {
		return withCert(cert, h[1:]...)
	}
	return slices.DeleteFunc(h, func(line string) bool { return line == "" })
}

// both are a body of known length and one in chunks.
func both(body string) []io.Reader {
	return []io.Reader{strings.NewReader(body), chunked{strings.NewReader(body)}}
}

// slowly sends the head of a request and returns once the server reads its body, all checks before it done; finish
// sends the body and returns the answer.
func (ts *testServer) slowly(request, content string, headers ...string) (finish func() *answer) {
	ts.t.Helper()
	c := ts.dial()
	fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n%s\r\n\r\n", request,
		len(content),
		strings.Join(headers, "\r\n"))
	in := bufio.NewReader(c)
	if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		ts.t.Fatalf("%s: %q, %v", request, line, err)
	}
	in.ReadString('\n')
	return func() *answer {
		ts.t.Helper()
		io.WriteString(c, content)
		res, err := http.ReadResponse(in, &http.Request{Method: "PUT", URL: &url.URL{Path: request}})
		if err != nil {
			ts.t.Fatalf("%s: %v", request, err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return &answer{res, string(b), ts.t}
	}
}

// ---- creating ----

// TestCreate: every form with every option that it has, length known and not; what is answered, what is shown, what is
// read.
func TestCreate(t *testing.T) {
	const text, day, file1 = "line\r\nand\x00\xff bytes\n", 86400, "x.bin"
	asJSON, asForm := []string{isJSON}, []string{isForm}
	allOptions := []string{"X-Expiry: 1h", "X-Burn-After-Read: true", "X-Paste-Password: pw", "X-Display-Name: Ünï 😀",
		proofGiven}
	const all = "burn_after_read display_name owner password_protected read_proof"
	ts := start(t, fast...)
	ts.clock.hold()
	n := int64(0)
	for _, c := range []struct {
		name, request, body string
		headers             []string
		content             string // "": the body
		line                string // "": JSON. ID stands for the id
		life                int64
		shows               string // members beside those that all have
	}{
		{"raw", "POST /", text, nil, "", "", day, ""},
		{"curl -d", "POST /", "a=1&expiry=5", []string{"Content-Type: application/x-www-form-urlencoded"}, "", "", day, ""},
		{"a damaged type", "POST /", text, []string{"Content-Type: ///;;=\""}, "", "", day, ""},
		{"raw, text wanted", "POST /", text, []string{"Accept: text/plain"}, "", "/ID/raw", day, ""},
		{"encoding identity", "POST /", text, []string{"Content-Encoding: identity"}, "", "", day, ""},
		{"all options", "POST /", text, withCert(certAlice, allOptions...), "", "", 3600, all},
		{"burn as 1, PUT a name", "PUT /name", text, []string{"X-Burn-After-Read: 1"}, "", "/ID", day, "burn_after_read"},
		{"owned", "POST /", text, withCert(certAlice), "", "", 7 * day, "owner"},
		{"proof", "POST /", text, []string{strings.ToUpper(proofGiven)}, "", "", day, "read_proof"},
		{"PUT", "PUT /", text, nil, "", "/ID/raw", day, ""},
		{"PUT, JSON wanted", "PUT /", text, []string{"Accept: application/json"}, "", "", day, ""},
		{"PUT a name", "PUT /some%20name.txt", text, nil, "", "/ID/raw/some%20name.txt", day, ""},
		{"PUT a name with a slash", "PUT /a%2fb", text, nil, "", "/ID/raw/a%2Fb", day, ""},
		{"PUT a name with a line", "PUT /a%0d%0aX:%20y", text, nil, "", "/ID/raw/a%0D%0AX:%20y", day, ""},
		{"PUT a name of 255 bytes", "PUT /" + strings.Repeat("n", 255), text, nil, "", "/ID/raw/" + strings.Repeat("n", 255), day, ""},
		{"PUT a name of 256 bytes", "PUT /" + strings.Repeat("n", 256), text, nil, "", "/ID/raw", day, ""},
		{"PUT a short hex name", "PUT /abcdef0", text, nil, "", "/ID/raw/abcdef0", day, ""},
		{"PUT an upper-case name", "PUT /ABCDEF0123", text, nil, "", "/ID/raw/ABCDEF0123", day, ""},
		{"JSON", "POST /", `{"content":"a\r\n\u0000 + ü\n"}`, asJSON, "a\r\n\x00 + ü\n", "", day, ""},
		{"JSON among types", "POST /", `{"content":"x","password":"pw"}`, []string{"Content-Type: application/json, text/plain, */*"},
			"x", "", day, "password_protected"},
		{"JSON in a second line", "POST /", `{"content":"x"}`, []string{"Content-Type: text/plain", isJSON}, "x", "", day, ""},
		{"JSON by PUT", "PUT /", `{"content":"x"}`, asJSON, "x", "/ID/raw", day, ""},
		{"JSON, surrogates", "POST /", `{"content":"\ud83d\ude00\\ud800 \u0041"}`, asJSON, "😀\\ud800 A", "", day, ""},
		{"JSON, expiry a string", "POST /", `{"content":"x","expiry":"1d12h"}`, asJSON, "x", "", 129600, ""},
		{"JSON, null is nothing", "POST /", `{"content":"x","expiry":null,"password":null,"burn_after_read":null}`, asJSON,
			"x", "", day, ""},
		{"JSON, burning", "POST /", `{"content":"x","burn_after_read":true}`, asJSON, "x", "", day, "burn_after_read"},
		{"JSON and a header, the same", "POST /", `{"content":"x","expiry":"60s","burn_after_read":true}`,
			append(asJSON, "X-Expiry: 1m", "X-Burn-After-Read: 1"), "x", "", 60, "burn_after_read"},
		{"JSON, all options", "POST /", `{"content":"x","expiry":"1h","burn_after_read":true,"password":"pw","display_name":"Ünï 😀"}`,
			withCert(certAlice, isJSON, proofGiven), "x", "", 3600, all},
		{"form", "POST /", form(file(file1, text)), asForm, text, "/ID/raw", day, ""},
		{"form, JSON wanted", "POST /", form(file(file1, text)), append(asForm, "Accept: application/json"), text, "", day, ""},
		{"form, f:1=<-", "POST /", form(field("f:1", text)), asForm, text, "/ID/raw", day, ""},
		{"form without a name", "POST /", form(part{"X-Nothing: 1", text}), asForm, text, "/ID/raw", day, ""},
		{"form, option before", "POST /", form(field("expiry", "60"), file("x", text)), asForm, text, "/ID/raw", 60, ""},
		{"form, option after", "POST /", form(file("x", text), field("expiry", "60")), asForm, text, "/ID/raw", 60, ""},
		{"form, burning", "POST /", form(field("burn_after_read", "true"), file("x", text)), asForm, text, "/ID", day, "burn_after_read"},
		{"form, all options", "POST /", form(field("expiry", "1h"), file("x", text), field("burn_after_read", "1"),
			field("password", "pw"), field("display_name", "Ünï 😀")), withCert(certAlice, isForm, proofGiven), text,
			"/ID", 3600, all},
		{"form, 16 parts", "POST /", form(append(slices.Repeat([]part{field("expiry", "60")}, 15), file("x", text))...), asForm,
			text, "/ID/raw", 60, ""},
		{"form, hostile file name", "POST /", form(file("../../etc/passwd%0d%0aSet-Cookie: a=b", text)), asForm, text, "/ID/raw", day, ""},
		{"form, half a boundary", "POST /", form(file("x", "a\r\n--b0undar\r\n--b0undar!y")), asForm,
			"a\r\n--b0undar\r\n--b0undar!y", "/ID/raw", day, ""},
		{"form of three chunks", "POST /", form(file("x", pattern(3*chunkSize+1)), field("expiry", "60")), asForm,
			pattern(3*chunkSize + 1), "/ID/raw", 60, ""},
		{"raw of two chunks to the byte", "POST /", pattern(2 * chunkSize), nil, "", "", day, ""},
		{"a whole Content-Range", "POST /", "0123456789", []string{"Content-Range: bytes 0-9/10"}, "", "", day, ""},
	} {
		for _, known := range []bool{true, false} {
			if derives := strings.Contains(c.shows, "password"); !known && (derives || strings.Contains(c.name,
				"Content-Range")) {
				continue // a derivation is a tenth of a second; of chunks nobody can tell whether they are the whole
			}
			t.Run(c.name+map[bool]string{true: ", length known", false: ", chunked"}[known], func(t *testing.T) {
				ts := ts.in(t)
				var body io.Reader = strings.NewReader(c.body)
				if !known {
					body = chunked{body}
				}
				if c.content == "" {
					c.content = c.body
				}
				a := ts.send(c.request, body, c.headers...).want(201, "")
				n++
				id := a.id()
				if len(id) != 16 || !isHex(id, 16) || a.Header.Get("Location") != "/"+id {
					t.Fatalf("Location %q", a.Header.Get("Location"))
				}
				shown := "created_at expires_at id link mime_type raw size url"
				h := withCert(certAlice, "X-Paste-Password: pw", "X-Read-Proof: "+readProof)
				m := ts.get("/"+id, h...).want(200, "")
				if c.line != "" {
					if want := ts.url + strings.Replace(c.line, "ID", id, 1) + "\n"; a.body != want ||
						a.Header.Get("Content-Type") != isText {
						t.Errorf("answer %q (%s), want %q", a.body, a.Header.Get("Content-Type"), want)
					}
				} else if a.members() != words(shown, "sha256 delete_token", c.shows) ||
					a.field("sha256") != sum256(c.content) ||
					a.field("delete_token") != a.Header.Get("X-Delete-Token") || a.field("link") != m.field("link") ||
					a.Header.Get("Content-Type") != "application/json" {
					t.Errorf("answer %s", a.body)
				}
				if c.shows == "" || c.shows == "owner" {
					shown += " sha256"
				}
				if m.members() != words(shown, c.shows) || m.field("size") != strconv.Itoa(len(c.content)) ||
					strings.Contains(c.shows, "display_name") && m.field("display_name") != "Ünï 😀" {
					t.Errorf("shown as %s", m.body)
				}
				at := time.Unix(m.number("expires_at"), 0).UTC().Format(http.TimeFormat)
				if life := m.number("expires_at") - m.number("created_at"); life != c.life ||
					a.Header.Get("Sunset") != at ||
					m.Header.Get("Sunset") != at {
					t.Errorf("it lives %d s, Sunset %q", life, a.Header.Get("Sunset"))
				}
				if len(a.Header.Get("X-Delete-Token")) != 43 || a.Header.Get("Set-Cookie") != "" ||
					a.Header.Get("X") != "" {
					t.Errorf("header %v", a.Header)
				}
				if got := ts.get("/"+id+"/raw", h...).want(200, "").body; got != c.content {
					t.Errorf("content %.60q, want %.60q", got, c.content)
				}
				if strings.Contains(c.shows, "burn") {
					n--
				}
			})
		}
	}
	ts.stored(n)
	if strings.Contains(ts.logs.String(), "pw") || strings.Contains(ts.logs.String(), readProof) {
		t.Error("a password or proof is in the log")
	}
}

// TestLinks: what links begin with, and who gets one line instead of JSON.
func TestLinks(t *testing.T) {
	https := []string{"X-Proxy-Secret: " + proxySecret, "X-Forwarded-Proto: https", "Host: h:81"}
	for _, c := range []struct {
		env     string
		headers []string
		base    string
	}{
		{"URL_PREFIX=", []string{"Host: paste.example:8443"}, "http://paste.example:8443"},
		{"URL_PREFIX=/p", https, "https://h:81/p"},
		{"URL_PREFIX=/p", append(https, "X-Forwarded-Host: evil.example"), "https://h:81/p"},
		{"PUBLIC_URL=https://paste.example", https, "https://paste.example"},
	} {
		ts := start(t, append([]string{c.env}, fast...)...)
		prefix := strings.TrimPrefix(strings.TrimPrefix(c.env, "URL_PREFIX="), "PUBLIC_URL=https://paste.example")
		a := ts.do("PUT", "/name", strings.NewReader("x"), c.headers...).want(201, "")
		if a.body != c.base+"/"+a.id()+"/raw/name\n" || a.Header.Get("Location") != prefix+"/"+a.id() {
			t.Errorf("%s: %q, Location %q", c.env, a.body, a.Header.Get("Location"))
		}
		a = ts.get("/"+a.id(), c.headers...)
		id := a.field("id")
		if a.field("url") != prefix+"/"+id || a.field("raw") != prefix+"/"+id+"/raw" ||
			a.field("link") != c.base+"/"+id+"/raw" {
			t.Errorf("%s: %s", c.env, a.body)
		}
	}
	ts := start(t, fast...)
	for _, c := range []struct {
		accept                string
		post, put, badRequest bool // is it text
	}{
		{"", false, true, false}, {"*/*", false, true, false}, {"text/plain", true, true, true}, {"TEXT/Plain", true, true, true},
		{"text/plain;q=0.5", true, true, true}, {"text/plain;q=0", false, true, false}, {"application/json", false, false, false},
		{"application/json;q=0.1, text/plain", true, true, true}, {"text/plain;q=0.1, application/json", false, false, false},
		{"text/html,application/xhtml+xml,*/*;q=0.8", false, true, false},
	} {
		var h []string
		if c.accept != "" {
			h = []string{"Accept: " + c.accept}
		}
		asText := func(a *answer) bool { return a.Header.Get("Content-Type") == isText }
		post, put := ts.post("x", h...).want(201, ""), ts.do("PUT", "/", strings.NewReader("x"), h...).want(201, "")
		bad := ts.post("x", append(h, "X-Expiry: never")...).want(400, "")
		if asText(post) != c.post || asText(put) != c.put || asText(bad) != c.badRequest {
			t.Errorf("Accept %q: text is POST %v, PUT %v, error %v", c.accept, asText(post), asText(put), asText(bad))
		}
		if c.badRequest && (!strings.HasPrefix(bad.body, "error: the expiry") || strings.Count(bad.body, "\n") != 2) {
			t.Errorf("Accept %q: error %q", c.accept, bad.body)
		}
	}
}

// TestRefusedCreations: nothing of these is stored, and the sentence or hint says what was wrong or what to type.
func TestRefusedCreations(t *testing.T) {
	ts := start(t, append([]string{"MAX_ANON=600KiB", "MAX_AUTH=2MiB"}, fast...)...)
	big, whole := pattern(640<<10), form(file("x", "hello"))
	long := func(n int) string { return strings.Repeat("p", n) }
	opt := func(name, v string) string { return form(file("x", "y"), field(name, v)) }
	type refusal struct {
		headers    string // lines
		body       string
		code, says string
	}
	cases := []refusal{
		{"", "", "empty_content", "-T FILE"}, {"", big, "too_large", "600 KiB"},
		{"", big, "too_large", "with a client certificate it may be 2 MiB"},
		{isJSON, `{"content": "` + long(600<<10+1) + `"}`, "too_large", "600 KiB"},
		{isForm, form(file("x", big)), "too_large", "600 KiB"}, {isJSON, long(2 << 20), "too_large", "JSON: send a larger content raw"},
		{"Content-Type: text/plain,application/json", "hello", "bad_json", "byte 1"},
		{"Content-Type: multipart/form-data", whole, "bad_option", "boundary"},
		{"Content-Type: multipart/form-data; boundary=other", whole, "bad_option", "curl -F"},
		{"Content-Type: multipart/form-data; boundary=x\n" + isForm, whole, "bad_option", "form"},
		{isJSON + "\nX-Expiry: 61", `{"content":"x","expiry":60}`, "bad_option", "expiry"},
		{isJSON + "\nX-Paste-Password: b", `{"content":"x","password":"a"}`, "bad_option", "password"},
		{isForm + "\nX-Burn-After-Read: 1", opt("burn_after_read", "0"), "bad_option", "once"},
		{"X-Expiry: 60\nX-Expiry: 60", "x", "bad_option", "X-Expiry"}, {proofGiven + "\n" + proofGiven, "x", "bad_option", "once"},
		{"X-Burn-After-Read: yes", "x", "bad_option", `"yes"`}, {"X-Burn-After-Read: True", "x", "bad_option", "true, false, 1 or 0"},
		{"X-Paste-Password: ", "x", "bad_password", "1 to 1024"}, {"X-Paste-Password: " + long(1025), "x", "bad_password", "1024"},
		{"X-Paste-Password: a\tb", "x", "bad_password", "control"}, {"X-Paste-Password: caf\xe9", "x", "bad_password", "UTF-8"},
		{"X-Paste-Password: pw\u00a0", "x", "bad_password", "blank"}, {"X-Display-Name: me", "x", "bad_display_name", "certificate"},
		{"ALICE\nX-Display-Name: " + strings.Repeat("ü", 129), "x", "bad_display_name", "128"},
		{"ALICE\nX-Display-Name: \xfcber", "x", "bad_display_name", "UTF-8"},
		{"X-Read-Proof-SHA256: " + strings.Repeat("g", 64), "x", "bad_option", "64 hex"},
		{"Content-Encoding: gzip", "\x1f\x8b\x08", "unsupported_encoding", "as they are"},
		{"Content-Range: bytes 4-9/10", "456789", "partial_content", "without -C"},
		{"Content-Range: bytes 0-3/10", "0123", "partial_content", "Content-Range"},
		{"Content-Range: bytes 0-9/*", "0123456789", "partial_content", "whole"},
		{"Origin: https://evil.example", "x", "cross_origin", "another site"},
	}
	for _, c := range [][3]string{
		{`{"content":null}`, "empty_content", "empty"}, {`{}`, "empty_content", "empty"}, {``, "bad_json", "ends before"},
		{`{"content": "x"`, "bad_json", "ends before"}, {`["x"]`, "bad_json", "not an object"}, {`null`, "bad_json", "object"},
		{`{content: "x"}`, "bad_json", "at byte 2"}, {`hello`, "bad_json", `{"content": "..."`}, {"{\"content\":\"a\nb\"}", "bad_json", "byte 14"},
		{`{"content":"x"} {}`, "bad_json", "behind"}, {"\ufeff" + `{"content":"x"}`, "bad_json", "byte order mark"},
		{`{"contents":"x"}`, "bad_json", `"contents"`}, {`{"content":"x","title":"y"}`, "bad_json", `"title"`},
		{`{"content":5}`, "bad_json", "content must be a string"}, {`{"content":"x","password":5}`, "bad_json", "password must be a string"},
		{`{"content":"x","burn_after_read":"true"}`, "bad_json", "must be true or false, without"},
		{`{"content":"x","expiry":3600.0}`, "bad_expiry", "whole number"}, {`{"content":"x","expiry":true}`, "bad_expiry", "member expiry"},
		{`{"content":"x","expiry":0}`, "bad_expiry", "future"}, {`{"content":"x","expiry":""}`, "bad_expiry", "1d12h"},
		{`{"content":"x","password":""}`, "bad_password", "1 to 1024"}, {`{"content":"x","password":"a\u0000b"}`, "bad_password", "control"},
		{`{"content":"\ud800"}`, "bad_json", "surrogate"}, {`{"content":"\udc00\ud800"}`, "bad_json", "surrogate"},
		{"{\"content\":\"\xff\"}", "bad_json", "UTF-8"}, {`{"content":` + strings.Repeat("[", 100000), "bad_json", "bad JSON"},
		{`{"content":"x","display_name":"n"}`, "bad_display_name", "certificate"},
	} {
		cases = append(cases, refusal{isJSON, c[0], c[1], c[2]})
	}
	cases = append(cases, refusal{"ALICE\n" + isJSON, `{"content":"x","display_name":"a\r\nX: 1"}`, "bad_display_name",
		"control"})
	for _, c := range [][3]string{
		{form(field("expiry", "60")), "empty_content", "-F file=@FILE"}, {form(file("x", "")), "empty_content", "empty"},
		{"", "bad_option", "curl -F"}, {whole[:120], "bad_option", "cut short"}, {whole[:40], "bad_option", "cut short"},
		{form(file("x", pattern(300<<10)))[:290<<10], "bad_option", "cut short"},
		{whole[:len(whole)-4] + "\r\nContent-Disposition: form-data; name=password\r\n", "bad_option", "cut short"},
		{form(file("x", "a"), file("y", "b")), "bad_option", "expiry, burn_after_read, password and display_name"},
		{opt("expires", "24"), "bad_option", `"expires"`}, {form(file("x", pattern(300<<10)), field("title", "b")), "bad_option", `"title"`},
		{form(append(slices.Repeat([]part{field("expiry", "60")}, 16), file("x", "y"))...), "bad_option", "16"},
		{opt("password", long(5000)), "bad_option", "4 KiB"}, {opt("password", "caf\xe9"), "bad_password", "UTF-8"},
		{opt("expiry", "soon"), "bad_expiry", `"soon"`}, {opt("burn_after_read", "on"), "bad_option", "true, false, 1 or 0"},
		{form(field("expiry", "60"), field("expiry", "61"), file("x", "y")), "bad_option", "expiry"},
		{form(part{file("x", "").head + "\r\nContent-Transfer-Encoding: base64", "eA=="}), "bad_option", ";encoder="},
		{form(part{"Content-Disposition: form-data; name=f\r\nContent-Type: Multipart/Mixed; boundary=y", "--y--"}), "bad_option", "one file"},
		{form(part{"X-A: " + long(500<<10), "y"}), "bad_option", "16 KiB"},
	} {
		cases = append(cases, refusal{isForm, c[0], c[1], c[2]})
	}
	status := map[string]int{"too_large": 413, "unsupported_encoding": 415, "cross_origin": 403}
	for _, c := range cases {
		for _, body := range both(c.body) {
			t.Run(fmt.Sprintf("%.50q %.50q %T", c.headers, c.body, body), func(t *testing.T) {
				a := ts.in(t).do("POST", "/", body, head(c.headers)...).want(max(400, status[c.code]), c.code)
				a.says(c.says)
				if h := a.Header; h.Get("Location")+h.Get("X-Delete-Token")+h.Get("Sunset") != "" ||
					h.Get("Cache-Control") != "no-store" ||
					a.field("request_id") != h.Get("X-Request-Id") {
					t.Errorf("%s, %v", a.body, h)
				}
			})
		}
	}
	for _, c := range []struct{ request, code, says, allow string }{
		{"POST /?burn_after_read=true", "bad_option", "X-Burn-After-Read: ", ""}, {"POST /?password=x", "bad_option", "X-Paste-Password: ", ""},
		{"POST /?expiry=1h&password=x", "bad_option", "X-Expiry: ", ""}, {"PUT /name?display_name=x", "bad_option", "X-Display-Name: ", ""},
		{"PUT /?anything", "bad_option", "X-Expiry, X-Burn-After-Read", ""}, {"PUT /0123456789abcdef?expiry=1h", "bad_option", "X-Expiry: ", ""},
		{"PUT /0123456789abcdef?token=x", "bad_option", "X-Delete-Token: ", ""},
		{"DELETE /0123456789abcdef?t=x", "bad_option", "X-Delete-Token: ", ""},
		{"PUT /s", "method_not_allowed", "curl -d https://example.org/ " + ts.url + "/s", "GET, HEAD, POST"},
		{"PUT /pki", "method_not_allowed", "it takes GET, HEAD", "GET, HEAD"}, {"PUT /%70astes", "method_not_allowed", "PUT", "GET, HEAD"},
		{"PUT /register", "method_not_allowed", "PUT", "GET, HEAD"}, {"PUT /csr", "method_not_allowed", "POST", "GET, HEAD, POST"},
		{"POST /name", "method_not_allowed", "PUT", "DELETE, GET, HEAD, PUT"}, {"PATCH /", "method_not_allowed", "PATCH", "GET, HEAD, POST, PUT"},
		{"PUT /0123456789abcdef", "not_found", "curl -T - " + ts.url + "/", ""},
	} {
		a := ts.send(c.request, strings.NewReader("content"))
		a.want(map[string]int{"bad_option": 400, "method_not_allowed": 405, "not_found": 404}[c.code],
			c.code).says(c.says)
		if a.Header.Get("Allow") != c.allow {
			t.Errorf("%s: Allow %q", c.request, a.Header.Get("Allow"))
		}
	}
	ts.nothing()
}

// TestLimitsInAnswers: a 413 says which limit it was, too little and too dull what there must be.
func TestLimitsInAnswers(t *testing.T) {
	ts := start(t, append([]string{"MAX_ANON=1000", "MAX_AUTH=2000", "MIN_SIZE=5", "MIN_ENTROPY=2.5"}, fast...)...)
	x := strings.Repeat(pattern(90), 23)
	for _, c := range []struct {
		name, limit, body string
		headers           []string
	}{
		{"anonymous", "1000", x[:1001], nil},
		{"certificate", "2000", x[:2001], withCert(certAlice)},
		{"JSON within its own limit", "1000", `{"content":"` + strings.Repeat("ab", 501) + `"}`, []string{isJSON}},
		{"JSON over its own limit", "1048576", `{"content":"` + strings.Repeat("a", 1<<20) + `"}`, []string{isJSON}},
		{"form", "1000", form(file("x", x[:1001])), []string{isForm}},
		{"form, by its announced length", "1000", form(file("x", strings.Repeat(x, 200))), []string{isForm}},
	} {
		for _, body := range both(c.body) {
			if a := ts.do("POST", "/", body, c.headers...).want(413, "too_large"); a.field("limit") != c.limit {
				t.Errorf("%s: limit %s, want %s", c.name, a.field("limit"), c.limit)
			}
		}
	}
	ts.post("four").want(400, "too_small").says("5 bytes")
	a := ts.post(strings.Repeat("abcd", 64)).want(400, "low_entropy")
	if a.field("entropy") != "2.00" || a.field("min_entropy") != "2.50" {
		t.Errorf("entropy: %s", a.body)
	}
	ts.nothing()
	ts.post(strings.Repeat("abcd", 63)).want(201, "") // under 256 bytes nobody asks
	ts.post("five!").want(201, "")
	ts.post(x[:1000]).want(201, "")
	ts.post(form(file("x", x[:1000])), isForm).want(201, "")
	ts.post(x[:2000], withCert(certAlice)...).want(201, "")
	ts.stored(5)
	ts = start(t, "MAX_ANON=1073741824GiB", "SHORT_URL_MAX=1073741824GiB") // no limit, and no overflow
	ts.post(form(file("x", x)), isForm).want(201, "")
	ts.do("POST", "/s", strings.NewReader("https://example.org/")).want(201, "")
}

// TestBeforeTheBody: what the head of a request settles is answered before a byte of the body is read, and no client
// that waits is told to go on.
func TestBeforeTheBody(t *testing.T) {
	ts := start(t, append([]string{"MAX_ANON=1MiB"}, fast...)...)
	c := ts.create("mine")
	token := "X-Delete-Token: " + c.DeleteToken
	for _, r := range []struct {
		name, line, headers string
		status              int
		code                string
	}{
		{"raw", "POST /", "Content-Length: 1048577", 413, "too_large"},
		{"raw, much", "POST /", "Content-Length: 9223372036854775807", 413, "too_large"},
		{"PUT", "PUT /name", "Content-Length: 1048577", 413, "too_large"},
		{"JSON", "POST /", isJSON + "\r\nContent-Length: 1048577", 413, "too_large"},
		{"form", "POST /", isForm + "\r\nContent-Length: 2000000", 413, "too_large"},
		{"bad option before too large", "POST /", "X-Expiry: 0\r\nContent-Length: 1048577", 400, "bad_expiry"},
		{"query before bad option", "POST /?expiry=0", "X-Expiry: 0\r\nContent-Length: 100", 400, "bad_option"},
		{"encoding before query", "POST /?expiry=0", "Content-Encoding: br\r\nContent-Length: 100", 415, "unsupported_encoding"},
		{"part", "PUT /", "Content-Range: bytes 4-103/104\r\nContent-Length: 100", 400, "partial_content"},
		{"no such route", "POST /a/b/c/d", "Content-Length: 100", 404, "not_found"},
		{"no such method", "PATCH /", "Content-Length: 100", 405, "method_not_allowed"},
		{"a route's name", "PUT /s", "Content-Length: 100", 405, "method_not_allowed"},
		{"change without a paste", "PUT /0123456789abcdef", "Content-Length: 100", 404, "not_found"},
		{"change without a credential", "PUT /" + c.ID, "Content-Length: 100", 401, "authentication_required"},
		{"change, too large", "PUT /" + c.ID, token + "\r\nContent-Length: 1048577", 413, "too_large"},
		{"another origin", "POST /", "Origin: https://evil.example\r\nContent-Length: 100", 403, "cross_origin"},
		{"a bad certificate", "POST /", "X-Proxy-Secret: " + proxySecret + "\r\nX-SSL-Client-SHA1: nonsense\r\nContent-Length: 100",
			400, "bad_client_certificate"},
		{"short URL", "POST /s", "Content-Length: 1048577", 400, "bad_url"},
		{"short URL as JSON", "POST /s", isJSON + "\r\nContent-Length: 1048577", 413, "too_large"},
	} {
		t.Run(r.name, func(t *testing.T) { // byHand reads the first response whatever it is: an interim 100 would be it
			a := ts.in(t).byHand("POST", r.line+" HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"+r.headers+"\r\n\r\n")
			if a.want(r.status, r.code); !a.Close {
				t.Error("the connection goes on in front of an unread body")
			}
		})
	}
	if a := ts.slowly("POST /", "hello")(); a.StatusCode != 201 { // who may go on is told so
		t.Errorf("after 100 Continue: %d", a.StatusCode)
	}
	ts.stored(2)
	// Who sends without reading (Python's urllib) finds the answer all the same, unless this machine stood still for 5
	// s.
	for range 5 {
		if a, err := ts.try("POST", "/", strings.NewReader(pattern(16<<20))); err == nil && a.StatusCode == 413 {
			return
		}
	}
	t.Error("the 413 to 16 MiB was never seen")
}

// TestFreeCreations: nobody who types needs work, until a hint says what to do; a small content is no duplicate.
func TestFreeCreations(t *testing.T) {
	ts := start(t, "defaults", "PKI_ENABLED=1", "PKI_CA_PASSWORD=a long enough password")
	ts.clock.hold()
	for range 20 {
		ts.do("PUT", "/", strings.NewReader("hello\n")).want(201, "")
	}
	a := ts.post("hello\n").want(400, "pow_required")
	for _, way := range []string{"fpaste", "/client", "wait", "certificate"} {
		a.says(way)
	}
	if a.Header.Get("Retry-After") == "" || !strings.Contains(a.field("challenge"), "token") {
		t.Errorf("%v %s", a.Header, a.body)
	}
	ts.stored(20)
}

// TestExpiry: every form of an expiry, every refusal, and what each tier gets and may ask for.
func TestExpiry(t *testing.T) {
	const hour, day = 3600, 86400
	ts := start(t, fast...)
	ts.clock.hold()
	ts.listed(certTrusted, false)
	ts.listed(certAdmin, true)
	now := ts.clock.now()
	at := func(seconds int, zone int) string {
		return now.Add(time.Duration(seconds) * time.Second).In(time.FixedZone("", zone)).Format(time.RFC3339)
	}
	unix := func(n int64) string { return "@" + strconv.FormatInt(now.Unix()+n, 10) }
	n := int64(0)
	for v, life := range map[string]int64{ // 0: refused
		"1": 1, "3600": hour, "0060": 60, "90s": 90, "15m": 900, "12h": 12 * hour, "7d": 7 * day, "1d12h": 36 * hour, "30m30m": hour,
		"0d5s": 5, "1d1h1m1s": 90061, "2w": 7 * day, "1000d": 7 * day, "100000000000000000": 7 * day, "9999-12-31T23:59:59Z": 7 * day,
		at(1, 0): 1, at(36000, 7200): 36000, unix(1): 1, unix(100 * day): 7 * day,
		"0": 0, "0s": 0, "0d0h": 0, "-1": 0, "-1h": 0, "+1": 0, "1e9": 0, "1.5h": 0, "NaN": 0, "0x10": 0, "1_000": 0, "1d12": 0, "12d1": 0,
		"d": 0, "1dd": 0, "1 d": 0, "1 day": 0, "1D": 0, "1y": 0, "1ms": 0, "never": 0, "٣٠s": 0, "３０s": 0, "9223372036854775808": 0,
		"9223372036854775807w": 0, "15250284452471w15250284452471w": 0, at(0, 0): 0, at(-1, 3600): 0, "1999-01-01T00:00:00Z": 0,
		"2999-03-02": 0, "2999-03-02 00:00:00Z": 0, "2999-02-30T00:00:00Z": 0, "2999-03-02T00:00:00": 0, "12:30": 0, "T": 0, "@": 0,
		"@0": 0, unix(0): 0, "@-1": 0, "@+" + unix(5)[1:]: 0, "@1e10": 0, "@9223372036854775808": 0, strings.Repeat("9", 5000): 0,
	} {
		a := ts.post("x", "X-Expiry: "+v)
		if life > 0 {
			n++
			if a.want(201, ""); a.number("expires_at") != now.Unix()+life {
				t.Errorf("%.40q: %d s", v, a.number("expires_at")-now.Unix())
			}
			continue
		}
		a.want(400, "bad_expiry").says("seconds (3600), 90s, 15m, 12h, 7d, 2w or a sum (1d12h), an RFC 3339 time")
	}
	for cert, lives := range map[string][2]int64{sha1OfNothing: {1, 7}, certAlice: {7, 49}, certTrusted: {30, 90},
		certAdmin: {30, 90}} {
		p, longest := ts.create("x", withCert(cert)...), ts.create("x", withCert(cert, "X-Expiry: 1000d")...)
		if p.ExpiresAt-p.CreatedAt != lives[0]*day || longest.ExpiresAt-p.CreatedAt != lives[1]*day {
			t.Errorf("%.4s: lives %d s, at most %d", cert, p.ExpiresAt-p.CreatedAt, longest.ExpiresAt-p.CreatedAt)
		}
		n += 2
	}
	ts.stored(n)
	ts = start(t, append([]string{"EXPIRY_ANON=10d", "EXPIRY_UNTRUSTED=60d", "MAX_EXPIRY=50d"}, fast...)...)
	for life, h := range map[int64][]string{10: {"X-Expiry: 11d"}, 50: withCert(certAlice), 49: withCert(certAlice,
		"X-Expiry: 49d")} {
		if p := ts.create("x",
			h...); p.ExpiresAt-p.CreatedAt != life*day { // a longer default raises what may be asked; MAX_EXPIRY cuts
			t.Errorf("%v: lives %d s", h, p.ExpiresAt-p.CreatedAt)
		}
	}
}

// TestMIME: a declared type that says something stays; else the bytes decide, and what is text as a whole is text.
func TestMIME(t *testing.T) {
	const raw = "application/octet-stream"
	ftyp := func(brands string) string {
		return "\x00\x00\x00" + string(rune(8+len(brands))) + "ftyp" + brands + "\x00\xff"
	}
	ts := start(t, fast...)
	check := func(a *answer, content, want string) {
		t.Helper()
		r := ts.get("/"+a.want(201, "").id()+"/raw").want(200, "")
		if r.Header.Get("Content-Type") != want || r.Header.Get("X-Evil") != "" || content != "" && r.body != content {
			t.Errorf("%.40q is %q, want %q", r.body, r.Header.Get("Content-Type"), want)
		}
		kind, _, _ := strings.Cut(want, ";")
		media := !strings.HasSuffix(kind, "+xml") && strings.Contains("audio video", kind[:5])
		inline := media ||
			slices.Contains(strings.Fields("text/plain application/json image/png image/jpeg image/gif image/webp "+
				"image/avif"), kind)
		if got := r.Header.Get("Content-Disposition"); (got == "inline") != inline || !inline && got != "attachment" {
			t.Errorf("%s: Content-Disposition %q", want, got)
		}
	}
	for want, contents := range map[string][]string{ // by the bytes
		isText: {"hello\n", "größe 😀\ufffd\n", strings.Repeat("x", chunkSize-1) + "😀y", "MZ BM BZh9 ID3",
			"GIF89a is a format\n",
			"fLaC is a mark", "OggS is a mark", "<!DOCTYPE html><script>alert(1)</script>", "<?xml version=\"1.0\"?><svg/>",
			"-----BEGIN PGP MESSAGE-----\n\nhQEM\n"},
		raw: {"a\x00b", "gr\xf6\xdfe", "a\xc3", "\xed\xa0\x80", strings.Repeat("x", chunkSize-1) + "\xf0\x9f\x98y",
			strings.Repeat("x", chunkSize) + "\x00", ftyp("qt  \x00\x00\x02\x00qt  "), "\x01\x02\x03\xff"},
		"text/plain; charset=utf-16le": {"\xff\xfeh\x00i\x00"},
		"text/plain; charset=utf-16be": {"\xfe\xff\x00h\x00i"},
		"application/pdf":              {"%PDF-1.7\n"},
		"application/x-pem-file":       {"-----BEGIN CERTIFICATE-----\nMIIB\n", "-----BEGIN RSA PRIVATE KEY-----\r\nMIIB\r\n"},
		"application/x-age":            {"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n", "age-encryption.org/v1\n-> X25519\n\xff"},
		"image/png":                    {"\x89PNG\r\n\x1a\n\x00\x00"},
		"image/jpeg":                   {"\xff\xd8\xff\xe0\x00\x10JFIF"},
		"image/gif":                    {"GIF89a\x01\x00\x01\x00"},
		"image/webp":                   {"RIFF\x10\x00\x00\x00WEBPVP8 "},
		"image/avif":                   {ftyp("avif\x00\x00\x00\x00avifmif1"), ftyp("mif1\x00\x00\x00\x00mif1avifmiaf")},
		"image/heic":                   {ftyp("heic\x00\x00\x00\x00mif1heic"), ftyp("mif1\x00\x00\x00\x00mif1heic")},
		"audio/wave":                   {"RIFF\x10\x00\x00\x00WAVEfmt \x00"},
		"audio/flac":                   {"fLaC\x00\x00\x00\x22"},
		"audio/mpeg":                   {"ID3\x04\x00\x00\x00\x00\x00\x23TSSE"},
		"application/ogg":              {"OggS\x00\x02\x00\x00"},
		"video/mp4":                    {ftyp("isom\x00\x00\x02\x00isommp41")},
		"video/webm":                   {"\x1a\x45\xdf\xa3\x9f\x42\x86\x81"},
		"application/zip":              {"PK\x03\x04\x14\x00"},
		"application/x-gzip":           {"\x1f\x8b\x08\x00\x00"},
		"application/x-bzip2":          {"BZh91AY&SY\x00"},
		"application/x-xz":             {"\xfd7zXZ\x00\x00\x04"},
		"application/zstd":             {"\x28\xb5\x2f\xfd\x04\x00"},
		"application/x-7z-compressed":  {"7z\xbc\xaf\x27\x1c\x00\x04"},
		"application/x-tar":            {strings.Repeat("n", 100) + strings.Repeat("\x00", 157) + "ustar\x0000\x00"},
		"application/x-elf":            {"\x7fELF\x02\x01\x01\x00"},
		"application/wasm":             {"\x00asm\x01\x00\x00\x00"},
		"application/vnd.sqlite3":      {"SQLite format 3\x00\x10\x00"},
	} {
		for _, content := range contents {
			check(ts.post(content), content, want)
			check(ts.post(content, "Content-Type: "+raw), content, want)
		}
	}
	for _, c := range []struct{ declared, content, want string }{
		{"application/yaml", "a: 1", "application/yaml"}, {"Text/HTML", "<p>", "text/html"}, {"audio/x+xml", "<x/>", "audio/x+xml"},
		{"text/html; charset=ISO-8859-1; x=y", "<p>", "text/html; charset=ISO-8859-1"},
		{`text/html; charset="a b\"c"`, "<p>", "text/html"}, {"text/html; charset=a; charset=b", "<p>", "text/html"},
		{"application/vnd.x+json", "\x89PNG\r\n\x1a\n", "application/vnd.x+json"}, {"text/plain", "%PDF-1.4", "application/pdf"},
		{"text/plain", "\xff\xfeh\x00", "text/plain; charset=utf-16le"},
		{"text/plain; charset=ISO-8859-1", "gr\xfc\xdfe", "text/plain; charset=ISO-8859-1"},
		{"text/plain; charset=latin1", "plain", isText}, {"text/plain; charset=UTF-8", "gr\xfc\xdfe", raw},
		{"application/x-www-form-urlencoded", "a=b", isText}, {"multipart/mixed; boundary=x", "--x", isText},
		{"message/rfc822", "From: x", isText}, {"nonsense", "x", isText}, {"*/*", "x", isText}, {"text/html, text/plain", "x", isText},
		{"text/" + strings.Repeat("x", 200), "x", isText}, {"text/ü", "x", isText},
	} {
		check(ts.post(c.content, "Content-Type: "+c.declared), c.content, c.want)
	}
	for _, c := range []struct{ kind, body, want string }{
		{isJSON, `{"content":"x","mime_type":"text/CSV"}`, "text/csv"}, {isJSON, `{"content":"x","mime_type":""}`, isText},
		{isJSON, `{"content":"{}","mime_type":"application/json"}`, "application/json"},
		{isJSON, `{"content":"x","mime_type":"text/html\r\nX-Evil: 1"}`, isText},
		{isJSON, `{"content":"x","mime_type":"text/html; charset=\"a\r\nX-Evil: 1\""}`, "text/html"},
		{isForm, form(part{"Content-Disposition: form-data; name=c\r\nContent-Type: image/svg+xml", "<svg>"}), "image/svg+xml"},
		{isForm, form(field("c", "<svg>")), isText},
	} {
		check(ts.post(c.body, c.kind), "", c.want)
	}
}

// ---- reading ----

// TestMetadata: what is shown, to whom, as JSON and as lines for a person; what of it would help a guesser; nothing
// burns.
func TestMetadata(t *testing.T) {
	ts := start(t, fast...)
	ts.clock.hold()
	for _, c := range []struct{ headers, shows, lines string }{ // LINK stands for the link
		{"X-Expiry: 90", "sha256", isText + "|7 bytes|(90 seconds)|\ncurl LINK/raw\n"},
		{"X-Burn-After-Read: true", "burn_after_read", "once|(7 days)|\ncurl LINK/raw\n"},
		{"X-Paste-Password: pw", "password_protected", "password|\ncurl -u :PASSWORD LINK/raw\n"},
		{proofGiven, "read_proof", "encrypted|fpaste get 'LINK#...'|" + ts.url + "/client"},
	} {
		p := ts.create("content", withCert(certAlice, c.headers, "X-Display-Name: name")...)
		for _, who := range []struct {
			name    string
			headers []string
			mine    string
		}{
			{"anonymous", nil, ""}, {"another", withCert(certMallory), ""}, {"owner", withCert(certAlice), "owner display_name"},
			{"owner in capitals", withCert(strings.ToUpper(certAlice)), "owner display_name"},
			{"holder of the token", []string{"X-Delete-Token: " + p.DeleteToken}, ""},
			{"owner without the secret", []string{"X-SSL-Client-SHA1: " + certAlice}, ""},
		} {
			a := ts.get("/"+p.ID, who.headers...).want(200, "")
			if a.members() != words("created_at expires_at id link mime_type raw size url", c.shows, who.mine) ||
				a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Etag") != "" {
				t.Errorf("%s to %s: %s %v", c.shows, who.name, a.body, a.Header)
			}
		}
		for _, accept := range []string{"text/plain", "text/html,application/xhtml+xml,*/*;q=0.8"} {
			a := ts.get("/"+p.ID, "Accept: "+accept).want(200, "")
			for line := range strings.SplitSeq(strings.ReplaceAll(c.lines, "LINK", ts.url+"/"+p.ID), "|") {
				if !strings.Contains(a.body, line) || a.Header.Get("Content-Type") != isText ||
					a.Header.Get("Sunset") == "" {
					t.Errorf("%s: %q lacks %q", c.shows, a.body, line)
				}
			}
		}
		ts.get("/"+p.ID, "Accept: text/plain;q=0.1, application/json", "User-Agent: Slackbot").want(200,
			"").number("size")
	}
	ts.stored(4)
}

// TestRaw: conditions and the one form of a range on open content, over several chunks, cached and not.
func TestRaw(t *testing.T) {
	ts := start(t, fast...)
	old, far := "Mon, 01 Jan 2001 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
	for _, size := range []int{11, hotSize, hotSize + 1, chunkSize, 3*chunkSize + 77777} {
		content := pattern(size)
		p := ts.create(content)
		etag, raw := `"`+sum256(content)+`"`, "/"+p.ID+"/raw"
		date := time.Unix(p.CreatedAt, 0).UTC().Format(http.TimeFormat)
		end := strconv.Itoa(size - 1)
		for round := range 2 { // the second may come from the cache
			type row struct {
				headers string // lines
				status  int
				body    string
			}
			cases := []row{
				{"Accept: */*", 200, content}, {"If-Match: *", 200, content}, {"If-Match: " + etag, 200, content},
				{"If-Match: W/" + etag, 412, ""}, {`If-Match: "0"`, 412, ""},
				{"If-None-Match: " + etag, 304, ""}, {"If-None-Match: W/" + etag, 304, ""}, {`If-None-Match: "a", ` + etag, 304, ""},
				{"If-None-Match: *", 304, ""}, {"If-None-Match: \"a\"\nIf-Modified-Since: " + far, 200, content},
				{"If-Modified-Since: " + date, 304, ""}, {"If-Modified-Since: " + old, 200, content},
				{"If-Modified-Since: yesterday", 200, content},
				{"If-Unmodified-Since: " + old, 412, ""}, {"If-Unmodified-Since: " + date, 200, content},
				{"Range: bytes=0-0", 206, content[:1]}, {"Range: Bytes=0-2", 206, content[:3]}, {"Range: bytes=-1", 206, content[size-1:]},
				{"Range: bytes=" + end + "-", 206, content[size-1:]}, {"Range: bytes=0-", 206, content},
				{"Range: bytes=" + strconv.Itoa(size/2) + "-" + end, 206, content[size/2:]}, {"Range: bytes=-99999999", 206, content},
				{"Range: bytes=0-999999999999999999", 206, content}, {"Range: bytes=" + strconv.Itoa(size) + "-", 416, ""},
				{"Range: bytes=0-0\nIf-Range: " + etag, 206, content[:1]}, {"Range: bytes=0-0\nIf-Range: W/" + etag, 200, content},
			}
			for _, v := range []string{"bytes=-0", "bytes=--1", "items=0-2", "", "0-2", "bytes= 0-2",
				"bytes=0-9999999999999999999",
				"bytes=0-0,2-2", "bytes=" + strings.TrimSuffix(strings.Repeat("0-,", 1000), ","), "bytes=0-0\nRange: bytes=1-1"} {
				cases = append(cases, row{"Range: " + v, 200, content})
			}
			for _, c := range cases {
				for _, method := range []string{"GET", "HEAD"} {
					status, length := c.status, len(c.body)
					if method == "HEAD" && (status == 206 || status == 416) {
						status, length = 200, size
					}
					a := ts.do(method, raw, nil, strings.Split(c.headers, "\n")...)
					if a.StatusCode != status || status < 300 && method == "GET" && a.body != c.body ||
						method == "HEAD" && a.body != "" {
						t.Fatalf("%s %s, %d, round %d: %d, %d bytes", method, c.headers, size, round, a.StatusCode,
							len(a.body))
					}
					h := a.Header
					if status < 412 && h.Get("Etag") != etag || status < 300 && (h.Get("Accept-Ranges") != "bytes" ||
						h.Get("Last-Modified") != date || h.Get("Content-Length") != strconv.Itoa(length)) {
						t.Errorf("%s %s: headers %v", method, c.headers, h)
					}
					if status == 412 && (h.Get("Etag") != "" || method == "GET" &&
						a.field("code") != "precondition_failed") {
						t.Errorf("%s %s: %s", method, c.headers, a.body)
					}
					if want := map[bool]string{true: "no-store",
						false: "private, no-cache"}[status >= 412]; h.Get("Cache-Control") != want {
						t.Errorf("%s %s: Cache-Control %q, want %q", method, c.headers, h.Get("Cache-Control"), want)
					}
				}
			}
		}
		if a := ts.get(raw+"/notes.txt").want(200, ""); a.body != content { // curl -O names the file by it
			t.Errorf("%d bytes by a name", len(a.body))
		}
	}
}

// TestClosed: content that is not open has neither validators nor ranges. It takes proof, then password, and nobody
// bypasses either: a refusal burns nothing and shows nothing.
func TestClosed(t *testing.T) {
	ts := start(t, fast...)
	ts.listed(certAdmin, true)
	const secret, pass = "secret content", "pässwörd with blanks:and colons"
	basic := func(pw string) string {
		r, _ := http.NewRequest("GET", "/", nil)
		r.SetBasicAuth("anybody", pw)
		return "\nAuthorization: " + r.Header.Get("Authorization")
	}
	p := ts.create(secret, withCert(certAlice, "X-Paste-Password: "+pass, "X-Burn-After-Read: true", proofGiven)...)
	raw, proof, pw := "/"+p.ID+"/raw", "\nX-Read-Proof: "+readProof, "\nX-Paste-Password: "+pass
	for _, c := range []struct {
		headers string
		status  int
		code    string
	}{
		{"", 403, "read_proof_required"}, {pw, 403, "read_proof_required"}, {"ALICE" + pw, 403, "read_proof_required"},
		{"ADMIN" + pw, 403, "read_proof_required"}, {"X-Delete-Token: " + p.DeleteToken + pw, 403, "read_proof_required"},
		{"X-Read-Proof: " + proofGiven[len(proofGiven)-64:] + pw, 403, "read_proof_required"}, {proof + proof + pw, 403, "read_proof_required"},
		{proof, 401, "password_required"}, {proof + "\nAuthorization: Bearer " + pass, 401, "password_required"},
		{"ALICE" + proof, 401, "password_required"}, {"ADMIN" + proof, 401, "password_required"}, {proof + pw + "x", 403, "password_wrong"},
		{proof + basic("x"), 403, "password_wrong"}, {proof + "\nX-Paste-Password: " + strings.Repeat("p", 1025), 403, "password_wrong"},
		{proof + pw + "\nPurpose: prefetch", 403, "preview_refused"},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			if method == "HEAD" && c.code == "password_wrong" && !strings.HasSuffix(c.headers, pw+"x") {
				continue // each is a derivation
			}
			a := ts.do(method, raw, nil, head(c.headers)...)
			want := map[int]string{401: `Basic realm="paste", charset="UTF-8"`}[c.status]
			if a.StatusCode != c.status || method == "GET" && a.field("code") != c.code || strings.Contains(a.body,
				secret) ||
				a.Header.Get("WWW-Authenticate") != want {
				t.Errorf("%s %.90q: %d %s %v", method, c.headers, a.StatusCode, a.body, a.Header)
			}
		}
	}
	ts.get(raw, head(proof)...).says("curl -u :PASSWORD " + ts.url + raw)
	ts.get(raw).says("fpaste get 'LINK', with the part behind #")
	h := head("Range: bytes=0-0\nIf-None-Match: *\nIf-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\nX-Read-Proof: " +
		strings.ToUpper(readProof) + basic(pass))
	for _, method := range []string{"HEAD", "GET"} {
		a := ts.do(method, raw, nil, h...).want(200, "")
		if method == "GET" && a.body != secret || a.Header.Get("Content-Length") != strconv.Itoa(len(secret)) ||
			a.Header.Get("Content-Type") != isText || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %q, %v", method, a.body, a.Header)
		}
		for _, name := range []string{"Etag", "Last-Modified", "Accept-Ranges", "Content-Range"} {
			if a.Header.Get(name) != "" {
				t.Errorf("%s: %s: %s", method, name, a.Header.Get(name))
			}
		}
	}
	ts.get(raw, h...).want(404, "not_found")
	ts.nothing()
	for _, word := range []string{pass, readProof, secret, p.ID} {
		if strings.Contains(ts.logs.String(), word) {
			t.Errorf("%q is in the log", word)
		}
	}
	long := "X-Paste-Password: " + strings.Repeat("p", 1024) // the longest that is taken
	ts.get("/"+ts.create(pattern(chunkSize+9), long).ID+"/raw", long, "Range: bytes=0-0").want(200, "")
}

// TestBurn: of many readers at once exactly one sees the content, all others see what anybody sees who guesses an id;
// and nothing of it is left.
func TestBurn(t *testing.T) {
	ts := start(t, append([]string{"MAX_DOWNLOADS=4096"}, fast...)...)
	for _, size := range []int{100, 3*chunkSize + 5} {
		content := pattern(size)
		p := ts.create(content, "X-Burn-After-Read: true")
		raw := "/" + p.ID + "/raw"
		for range 3 { // neither of these burns
			a := ts.do("HEAD", raw, nil).want(200, "")
			if a.Header.Get("Content-Length") != strconv.Itoa(size) || a.Header.Get("Content-Type") != isText {
				t.Errorf("HEAD: %v", a.Header)
			}
			ts.get("/"+p.ID).want(200, "")
		}
		missing := ts.get("/0123456789abcdef/raw", "X-Request-ID: r").want(404, "").body
		var whole, gone atomic.Int64
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for range 20 {
			wg.Go(func() {
				<-begin
				a, err := ts.try("GET", raw, nil, "X-Request-ID: r")
				if err != nil {
					t.Error(err)
				} else if a.StatusCode == 200 && a.body == content {
					whole.Add(1)
				} else if a.StatusCode == 404 && a.body == missing {
					gone.Add(1)
				}
			})
		}
		close(begin)
		wg.Wait()
		if whole.Load() != 1 || gone.Load() != 19 {
			t.Errorf("%d saw it, %d found nothing", whole.Load(), gone.Load())
		}
		ts.get("/"+p.ID).want(404, "not_found")
		ts.do("HEAD", raw, nil).want(404, "")
		ts.do("DELETE", "/"+p.ID, nil, "X-Delete-Token: "+p.DeleteToken).want(404, "not_found")
		ts.do("PUT", "/"+p.ID, strings.NewReader("x"), "X-Delete-Token: "+p.DeleteToken).want(404, "not_found")
		ts.nothing()
	}
	p := ts.create(pattern(3<<20), "X-Burn-After-Read: true") // a reader who leaves has had it
	c := ts.dial()
	fmt.Fprintf(c, "GET /%s/raw HTTP/1.1\r\nHost: x\r\n\r\n", p.ID)
	io.ReadFull(c, make([]byte, 1000))
	c.Close()
	ts.get("/"+p.ID+"/raw").want(404, "not_found")
	ts.nothing()
}

// TestPreviews: each sign of a preview refuses a burning paste, burns nothing, and touches no other paste.
func TestPreviews(t *testing.T) {
	ts := start(t, fast...)
	burning, open := ts.create("burning", "X-Burn-After-Read: true"), ts.create("open")
	refused := [][]string{
		{"Sec-Purpose: prefetch"}, {"Sec-Purpose: prefetch;prerender"}, {"Sec-Purpose: PREFETCH"}, {"Sec-Purpose: prerender"},
		{"Purpose: prefetch"}, {"Purpose: preview"}, {"Purpose: other", "Purpose: prefetch"}, {"X-Purpose: preview"}, {"X-Moz: prefetch"},
		{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"}, {"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors"},
		{"Sec-Fetch-Site: cross-site"},
	}
	for _, agent := range []string{"Googlebot/2.1", "SomeCrawler", "a spider", "Link Preview Service",
		"facebookexternalhit/1.1",
		"WhatsApp/2.23", "Slack-ImgProxy", "Mozilla/5.0 (compatible; Discordbot/2.0)", "SkypeUriPreview", "Embedly/0.2", "urlscan.io",
		"http.rb/5 (Mastodon/4)", "Iframely/1.3", "Rocket.Chat/6", "Misskey/13", "Lemmy/0.19", "Viber/2", "Microsoft ms-office; MSOffice 16"} {
		refused = append(refused, []string{"User-Agent: " + agent})
	}
	for _, h := range refused {
		for _, method := range []string{"HEAD", "GET"} {
			a := ts.do(method, "/"+burning.ID+"/raw", nil, h...)
			if a.StatusCode != 403 || method == "GET" && a.field("code") != "preview_refused" {
				t.Fatalf("%s %v: %d %s", method, h, a.StatusCode, a.body)
			}
			ts.do(method, "/"+open.ID+"/raw", nil, h...).want(200, "")
		}
	}
	ts.stored(2)
	for _, h := range [][]string{
		{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "User-Agent: Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0"},
		{"Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"}, {"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"},
		{"User-Agent: curl/8.5.0"}, {"Purpose: reading"},
	} {
		ts.get("/"+ts.create("burning", "X-Burn-After-Read: true").ID+"/raw", h...).want(200, "")
	}
}

// TestRenewal: each 200 or 206 to a GET of the content moves the deadline, by a hundredth of the life at least and
// never past MAX_EXPIRY; nothing else does, and a fixed one stays.
func TestRenewal(t *testing.T) {
	for _, cache := range []string{"CACHE=0", "CACHE=1MiB"} {
		t.Run(cache, func(t *testing.T) {
			ts := start(t, append([]string{"EXPIRY_ANON=10h", "MAX_EXPIRY=30h", cache}, fast...)...)
			ts.clock.hold()
			p, fixed := ts.create("floating"), ts.create("fixed", "X-Expiry: 10h")
			closed := ts.create("closed", proofGiven)
			raw, etag, born := "/"+p.ID+"/raw", `"`+p.SHA256+`"`, p.CreatedAt
			for _, c := range []struct {
				name, request string
				after         int64 // seconds since it was created
				header        string
				status        int
				want          int64 // its deadline, seconds since it was created
			}{
				{"metadata", "GET /" + p.ID, 7200, "Accept: */*", 200, 36000},
				{"HEAD", "HEAD " + raw, 7200, "Accept: */*", 200, 36000},
				{"304", "GET " + raw, 7200, "If-None-Match: " + etag, 304, 36000},
				{"412", "GET " + raw, 7200, "If-Match: \"0\"", 412, 36000},
				{"416", "GET " + raw, 7200, "Range: bytes=100-", 416, 36000},
				{"200", "GET " + raw, 7200, "Accept: */*", 200, 43200},
				{"a hundredth less a second", "GET " + raw, 7559, "Accept: */*", 200, 43200},
				{"a hundredth", "GET " + raw, 7560, "Accept: */*", 200, 43560},
				{"by its name", "GET " + raw + "/name", 8000, "Accept: */*", 200, 44000},
				{"206", "GET " + raw, 43000, "Range: bytes=0-1", 206, 79000},
				{"a second before the end", "GET " + raw, 78999, "Accept: */*", 200, 108000},
				{"at most MAX_EXPIRY", "GET " + raw, 107999, "Accept: */*", 200, 108000},
				{"then it is gone", "GET " + raw, 108000, "Accept: */*", 404, 0},
			} {
				ts.clock.advance(time.Duration(born+c.after-ts.clock.now().Unix()) * time.Second)
				ts.send(c.request, nil, c.header).want(c.status, "")
				if c.want == 0 {
					break
				}
				ts.write("UPDATE garbage SET due = due") // behind the renewal
				shown := ts.get("/"+p.ID).want(200, "").number("expires_at")
				if file := ts.number("SELECT expires_at FROM pastes WHERE id = ?", p.ID); shown != born+c.want ||
					file != shown {
					t.Errorf("%s: deadline %d, in the file %d, want %d", c.name, shown-born, file-born, c.want)
				}
				if c.name == "200" { // and what else was read then
					ts.get("/"+fixed.ID+"/raw").want(200, "")
					ts.get("/"+closed.ID+"/raw").want(403, "")
				}
				if c.after == 43000 {
					ts.get("/"+fixed.ID+"/raw").want(404, "not_found")
					ts.get("/"+closed.ID+"/raw", "X-Read-Proof: "+readProof).want(404, "not_found")
				}
			}
		})
	}
	// A download that takes longer than the rest of the life: renewed when it was answered, so that nobody sweeps it
	// away.
	ts := start(t, append([]string{"EXPIRY_ANON=10h", "MAX_ANON=16MiB"}, fast...)...)
	ts.clock.hold()
	content := pattern(12 << 20) // more than the kernel's buffers on the way hold
	p := ts.create(content)
	ts.clock.advance(9 * time.Hour)
	rest := ts.halfway(p.ID)
	ts.clock.advance(2 * time.Hour)
	ts.sweep()
	if got := rest(); got != content {
		t.Errorf("%d of %d bytes came", len(got), len(content))
	}
}

// halfway begins a download and returns when its header is there; rest reads the body to its end.
func (ts *testServer) halfway(id string) (rest func() string) {
	ts.t.Helper()
	c := ts.dial()
	c.(*net.TCPConn).SetReadBuffer(64 << 10)
	fmt.Fprintf(c, "GET /%s/raw HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", id)
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != 200 {
		ts.t.Fatalf("%v %v", res, err)
	}
	return func() string { b, _ := io.ReadAll(res.Body); return string(b) }
}

// ---- changing ----

// TestChangeRefused: every status of PUT P/<id> in its order, and what a refusal leaves as it was.
func TestChangeRefused(t *testing.T) {
	ts := start(t, append([]string{"MAX_ANON=10KiB", "MIN_SIZE=2"}, fast...)...)
	ts.clock.hold()
	burning := ts.create("burning", withCert(certAlice, "X-Burn-After-Read: true")...)
	closed := ts.create("closed", withCert(certAlice, proofGiven)...)
	p := ts.create("first content", withCert(certAlice, "X-Display-Name: name", "Content-Type: application/yaml")...)
	token, etag := "X-Delete-Token: "+p.DeleteToken, `"`+p.SHA256+`"`
	before := ts.get("/"+p.ID, withCert(certAlice)...).body
	for _, c := range []struct {
		id, body, headers string
		status            int
		code, says        string
	}{
		{"0123456789abcdef", "x", token + "\nX-Expiry: nonsense", 404, "not_found", ""},
		{p.ID, "new", "X-Expiry: nonsense", 401, "authentication_required", "X-Delete-Token"},
		{p.ID, "new", "X-SSL-Client-SHA1: " + certAlice, 401, "authentication_required", ""},
		{p.ID, "new", "X-Delete-Token: " + strings.Repeat("A", 43), 403, "not_owner", "X-Delete-Token is wrong"},
		{p.ID, "new", "MALLORY\nX-Delete-Token: x", 403, "not_owner", "X-Delete-Token is wrong"},
		{p.ID, "new", token + "\n" + token, 403, "not_owner", "token"}, {p.ID, "new", "MALLORY", 403, "not_owner", "your certificate"},
		{burning.ID, "new", "", 401, "authentication_required", ""}, {burning.ID, "new", "ALICE\nX-Expiry: nonsense", 409, "burning", "delete it"},
		{p.ID, "", token, 400, "bad_option", "X-Expiry: 7d"}, {p.ID, "new", token + "\nX-Expiry: nonsense", 400, "bad_expiry", "nonsense"},
		{p.ID, "", token + "\nX-Burn-After-Read: ", 400, "bad_option", ""}, {p.ID, "", token + "\nX-Display-Name: n", 400, "bad_display_name", ""},
		{p.ID, pattern(10<<10 + 1), token, 413, "too_large", "10 KiB"}, {p.ID, "x", token, 400, "too_small", ""},
		{p.ID, "{", token + "\n" + isJSON, 400, "bad_json", ""}, {p.ID, "456", token + "\nContent-Range: bytes 4-6/7", 400, "partial_content", "-C"},
		{p.ID, "new", token + "\nOrigin: https://evil.example", 403, "cross_origin", ""},
		{p.ID, "new", token + "\nIf-Match: \"0\"", 412, "precondition_failed", "ETag"},
		{p.ID, "new", token + "\nIf-Match: W/" + etag, 412, "precondition_failed", ""},
		{p.ID, "new", token + "\nIf-None-Match: \"0\", W/" + etag, 412, "precondition_failed", ""},
		{p.ID, "new", token + "\nIf-None-Match: *", 412, "precondition_failed", ""},
		{p.ID, "new", token + "\nIf-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT", 412, "precondition_failed", ""},
		{p.ID, "", token + "\nX-Expiry: 1h\nIf-Match: \"0\"", 412, "precondition_failed", ""},
		{closed.ID, "new", "ALICE\nIf-Match: \"" + sum256("closed") + `"`, 412, "precondition_failed", "none"},
	} {
		for _, body := range both(c.body) {
			a := ts.do("PUT", "/"+c.id, body, head(c.headers)...)
			if a.StatusCode != c.status || a.field("code") != c.code {
				t.Errorf("%q: %d %s", c.headers, a.StatusCode, a.body)
			}
			a.says(c.says)
		}
		if c.status == 412 {
			ts.do("DELETE", "/"+c.id, nil, head(c.headers)...).want(412, "precondition_failed")
		}
	}
	after, content := ts.get("/"+p.ID, withCert(certAlice)...).body, ts.get("/"+p.ID+"/raw").body
	if after != before || content != "first content" {
		t.Errorf("refusals changed %s to %s, the content to %q", before, after, content)
	}
	ts.stored(3)
}

// TestChange: contents of all sizes in all forms by all three who may; options set and removed; conditions that hold.
func TestChange(t *testing.T) {
	ts := start(t, fast...)
	ts.clock.hold()
	ts.listed(certAdmin, true)
	p := ts.create("first", withCert(certAlice, "X-Display-Name: name", "Content-Type: application/yaml")...)
	token, born, tag := "X-Delete-Token: "+p.DeleteToken, p.CreatedAt, p.SHA256
	ts.clock.advance(time.Hour)
	for i, c := range [][3]string{ // content, headers (TAG is the present one), and the body if that is another
		{"second", token, ""}, {pattern(3*chunkSize + 1), "ALICE", ""}, {pattern(5), "ADMIN", ""},
		{pattern(2 * chunkSize), token + "\nIf-Match: \"0\", TAG", ""}, {"by JSON", token + "\nIf-Match: *\n" + isJSON, `{"content":"by JSON"}`},
		{"by form", token + "\nIf-None-Match: \"0\"\n" + isForm, form(file("x", "by form"))},
		{"dated", token + "\nIf-Unmodified-Since: Fri, 01 Jan 2100 00:00:00 GMT", ""}, {"no date", token + "\nIf-Unmodified-Since: soon", ""},
		{"the date does not count", token + "\nIf-Match: TAG\nIf-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT", ""},
	} {
		sent := c[2]
		if sent == "" {
			sent = c[0]
		}
		a := ts.do("PUT", "/"+p.ID, both(sent)[i%2], head(strings.Replace(c[1], "TAG", `"`+tag+`"`, 1))...).want(200,
			"")
		tag = sum256(c[0])
		if a.field("sha256") != tag || a.number("size") != int64(len(c[0])) || a.field("mime_type") != isText ||
			a.field("id") != p.ID ||
			a.number("created_at") != born || a.number("expires_at") != p.ExpiresAt ||
			a.Header.Get("X-Delete-Token") != "" ||
			a.field("delete_token") != "" || (a.field("display_name") == "name") != (i == 1 || i == 2) ||
			a.Header.Get("Sunset") == "" {
			t.Errorf("change %d: %s", i, a.body)
		}
		b := ts.get("/"+p.ID+"/raw").want(200, "")
		if modified, _ := http.ParseTime(b.Header.Get("Last-Modified")); b.body != c[0] ||
			b.Header.Get("Etag") != `"`+tag+`"` ||
			modified.Unix() != born+3600 {
			t.Errorf("change %d: read %d bytes, %v", i, len(b.body), b.Header)
		}
		ts.stored(1)
	}
	for _, c := range []struct {
		header, member, value string
		read                  int // status of /raw afterwards
	}{
		{"X-Display-Name: me", "display_name", "me", 200}, {"X-Display-Name: ", "display_name", "", 200},
		{"X-Expiry: 1h", "expires_at", strconv.FormatInt(born+7200, 10), 200},
		{"X-Expiry: ", "expires_at", strconv.FormatInt(born+3600+7*86400, 10), 200},
		{"X-Paste-Password: pw", "password_protected", "true", 401}, {"X-Paste-Password: ", "password_protected", "", 200},
		{"X-Paste-Password: ", "sha256", tag, 200}, {proofGiven, "read_proof", "true", 403}, {"X-Expiry: 9d", "sha256", "", 403},
		{"X-Burn-After-Read: true", "burn_after_read", "true", 403},
	} {
		a := ts.do("PUT", "/"+p.ID, nil, withCert(certAlice, c.header)...).want(200, "")
		if a.field(c.member) != c.value {
			t.Errorf("%s: %s", c.header, a.body)
		}
		ts.get("/"+p.ID+"/raw").want(c.read, "") // what is in the cache too
	}
	ts.do("PUT", "/"+p.ID, nil, withCert(certAlice, "X-Burn-After-Read: false")...).want(409, "burning")
	// Whoever may change a paste may take a name off it; a body may be options alone.
	p = ts.create("content", withCert(certAlice, "X-Display-Name: me")...)
	ts.do("PUT", "/"+p.ID, nil, "X-Delete-Token: "+p.DeleteToken, "X-Display-Name: ").want(200, "")
	a := ts.do("PUT", "/"+p.ID, strings.NewReader(form(field("expiry", "2h"))), withCert(certAlice,
		isForm)...).want(200, "")
	if a.field("display_name") != "" || a.number("expires_at") != ts.clock.now().Unix()+7200 {
		t.Errorf("%s", a.body)
	}
}

// TestChangeInTime: what happens while a body comes: lives that end, others' changes, and the longest life of all.
func TestChangeInTime(t *testing.T) {
	dir := t.TempDir()
	ts := startIn(t, dir, "EXPIRY_ANON=10h", "MAX_EXPIRY=20h", "POW_DIFFICULTY=4", "POW_FREE=100")
	ts.clock.hold()
	for _, c := range []struct {
		request, options, content string
		after                     time.Duration
		status                    int
		code                      string
	}{
		{"POST /", "X-Expiry: 60", "slow", time.Minute, 400, "bad_expiry"},
		{"POST /", "X-Expiry: 60", pattern(chunkSize - 1), 59 * time.Second, 201, ""},
		{"POST /s", "X-Expiry: 2", "https://example.org/", 2 * time.Second, 400, "bad_expiry"},
		{"POST /s", "X-Expiry: 2", "https://example.org/", time.Second, 201, ""},
		{"PUT /ID", "X-Expiry: 2", "new", 2 * time.Second, 400, "bad_expiry"},
		{"PUT /ID", "X-Expiry: 2", "new", time.Second, 200, ""},
		{"PUT /ID", "X-Expiry: 10h", "new", 10 * time.Hour, 404, "not_found"}, // no change brings it back
		{"PUT /ID", "Accept: */*", "new", 10 * time.Hour, 404, "not_found"},
	} {
		p := ts.create("old")
		finish := ts.slowly(strings.Replace(c.request, "ID", p.ID, 1), c.content, c.options,
			"X-Delete-Token: "+p.DeleteToken)
		ts.clock.advance(c.after)
		if a := finish(); a.StatusCode != c.status || a.field("code") != c.code {
			t.Errorf("%s %s after %v: %d %s", c.request, c.options, c.after, a.StatusCode, a.body)
		}
		if c.code == "bad_expiry" && c.request == "PUT /ID" {
			if got := ts.get("/" + p.ID + "/raw").body; got != "old" {
				t.Errorf("a refused change left %q", got)
			}
		}
	}
	ts.clock.advance(48 * time.Hour)
	ts.sweep()
	ts.nothing()
	p := ts.create("x", "X-Expiry: 7d") // a deadline that is set while a content comes is not undone by it
	token := "X-Delete-Token: " + p.DeleteToken
	finish := ts.slowly("PUT /"+p.ID, "new", token)
	ts.do("PUT", "/"+p.ID, nil, token, "X-Expiry: 1h").want(200, "")
	if a := finish(); a.StatusCode != 200 || a.number("expires_at") != p.CreatedAt+3600 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	ts.clock.advance(30 * time.Minute) // neither a change nor a removed expiry goes past MAX_EXPIRY
	for _, c := range [][2]int64{{20 * 3600, 20 * 3600}, {0, 10*3600 + 1800}} {
		v := ""
		if c[0] > 0 {
			v = strconv.FormatInt(c[0], 10)
		}
		if a := ts.do("PUT", "/"+p.ID, nil, token, "X-Expiry: "+v).want(200,
			""); a.number("expires_at") != p.CreatedAt+c[1] {
			t.Errorf("X-Expiry %q: %d s", v, a.number("expires_at")-p.CreatedAt)
		}
	}
	// The operator lowers MAX_EXPIRY below the age of a paste: it stays as it is, for as long as it was promised.
	ts.stop()
	ts = startAt(t, dir, time.Until(ts.clock.now())+time.Hour, "EXPIRY_ANON=1h", "MAX_EXPIRY=1h")
	for _, c := range []string{"X-Expiry: 10m", "X-Expiry: "} {
		ts.do("PUT", "/"+p.ID, nil, token, c).want(400, "bad_expiry")
	}
	if a := ts.do("PUT", "/"+p.ID, strings.NewReader("newer"), token).want(200,
		""); a.number("expires_at") != p.CreatedAt+10*3600+1800 {
		t.Errorf("%s", a.body)
	}
	ts.get("/"+p.ID+"/raw").want(200, "")
}

// TestParallelChanges: of twelve at once each is whole, none is refused, and who reads meanwhile never sees a mixture.
func TestParallelChanges(t *testing.T) {
	ts := start(t, append([]string{"MAX_UPLOADS=512", "MAX_DOWNLOADS=4096"}, fast...)...)
	content := func(i int) string {
		return strings.Repeat(string(rune('a'+i)), []int{500, chunkSize + 100, 2*chunkSize + 3}[i%3])
	}
	contents := map[string]bool{}
	p := ts.create(content(0))
	var writers, readers sync.WaitGroup
	var stop atomic.Bool
	for i := range 12 {
		contents[content(i)] = true
		writers.Go(func() {
			a := ts.do("PUT", "/"+p.ID, strings.NewReader(content(i)), "X-Delete-Token: "+p.DeleteToken)
			if a.StatusCode != 200 || a.field("sha256") != sum256(content(i)) {
				t.Errorf("%d %s", a.StatusCode, a.body)
			}
		})
	}
	known := maps.Clone(contents)
	for range 2 {
		readers.Go(func() {
			for !stop.Load() {
				a, err := ts.try("GET", "/"+p.ID+"/raw", nil)
				if err == nil && (a.StatusCode != 200 || !known[a.body] ||
					a.Header.Get("Etag") != `"`+sum256(a.body)+`"`) {
					t.Errorf("status %d, %d bytes that nobody wrote", a.StatusCode, len(a.body))
					return
				}
			}
		})
	}
	writers.Wait()
	stop.Store(true)
	readers.Wait()
	ts.stored(1)
	if got := ts.get("/"+p.ID+"/raw").want(200, "").body; !known[got] {
		t.Errorf("%d bytes that nobody wrote", len(got))
	}
}

// TestChangedDuringRead: a reader whose content is replaced or deleted sees the connection end, never a mixture or a
// whole.
func TestChangedDuringRead(t *testing.T) {
	ts := start(t, append([]string{"MAX_ANON=16MiB"}, fast...)...)
	content := strings.Repeat("old content ", 1<<20)
	for _, method := range []string{"PUT", "DELETE"} {
		p := ts.create(content)
		rest := ts.halfway(p.ID)
		ts.do(method, "/"+p.ID, strings.NewReader("NEW CONTENT"), "X-Delete-Token: "+p.DeleteToken).want(200, "")
		ts.settled("garbage", 0, func() int64 { ts.sweep(); return ts.number("SELECT count(*) FROM garbage") })
		if got := rest(); len(got) >= len(content) || !strings.HasPrefix(content, got) {
			t.Errorf("%s: the reader got %d bytes, whole or mixed", method, len(got))
		}
	}
}

// TestDelete: the three who may and who not; it is gone at once from cache and disk; of many at once one does it.
func TestDelete(t *testing.T) {
	ts := start(t, fast...)
	ts.listed(certAdmin, true)
	ts.listed(certTrusted, false)
	p := ts.create(pattern(3*chunkSize), withCert(certAlice)...)
	for _, c := range []struct {
		headers string // TOKEN stands for the token
		status  int
		code    string
	}{
		{"", 401, "authentication_required"}, {"X-Delete-Token: x", 403, "not_owner"}, {"MALLORY", 403, "not_owner"}, {"TRUSTED", 403, "not_owner"},
		{"MALLORY\nX-Is-Admin: 1\nX-Admin: true\nX-Tier: admin", 403, "not_owner"}, {"ALICE\nSec-Fetch-Site: cross-site", 403, "cross_origin"},
		{"ALICE", 200, ""}, {"X-Delete-Token: TOKEN", 200, ""}, {"MALLORY\nX-Delete-Token: TOKEN", 200, ""}, {"ADMIN", 200, ""},
	} {
		ts.get("/"+p.ID+"/raw").want(200, "")
		h := head(strings.Replace(c.headers, "TOKEN", p.DeleteToken, 1))
		a := ts.do("DELETE", "/"+p.ID, nil, h...).want(c.status, c.code)
		if c.status == 200 {
			if a.body != `{"id":"`+p.ID+`","deleted":true}`+"\n" {
				t.Errorf("%s", a.body)
			}
			ts.get("/"+p.ID+"/raw").want(404, "not_found") // from the cache too
			ts.do("DELETE", "/"+p.ID, nil, h...).want(404, "not_found")
			p = ts.create("small", withCert(certAlice)...)
		}
	}
	ts.do("DELETE", "/"+p.ID, nil, withCert(certAlice)...).want(200, "")
	// Deleting needs neither password nor proof, and what burns can be deleted unread; of many who do it one has done
	// it.
	p = ts.create("x", "X-Burn-After-Read: true", proofGiven, "X-Paste-Password: pw")
	var deleted atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if a := ts.do("DELETE", "/"+p.ID, nil, "X-Delete-Token: "+p.DeleteToken); a.StatusCode == 200 {
				deleted.Add(1)
			} else if a.StatusCode != 404 {
				t.Errorf("%d %s", a.StatusCode, a.body)
			}
		})
	}
	if wg.Wait(); deleted.Load() != 1 {
		t.Errorf("deleted %d times", deleted.Load())
	}
	ts.nothing()
}

// ---- lists ----

// page is an answer of GET /pastes.
type page struct {
	Pastes []created `json:"pastes"`
	Count  int       `json:"count"`
	Next   *string   `json:"next_cursor"`
}

// page reads one, and returns the first words of its pastes' names.
func (ts *testServer) page(query string, headers ...string) (p page, names string) {
	ts.t.Helper()
	a := ts.get("/pastes"+query, headers...).want(200, "")
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || p.Count != len(p.Pastes) || p.Pastes == nil {
		ts.t.Fatalf("list %s: %v: %s", query, err, a.body)
	}
	for _, e := range p.Pastes {
		if e.DeleteToken != "" {
			ts.t.Errorf("a list shows a token")
		}
		first, _, _ := strings.Cut(e.DisplayName, " ")
		names += first
	}
	return p, names
}

// TestList: the caller's own, latest content first, page by page, with every filter; nobody else's, but for admins.
func TestList(t *testing.T) {
	ts := start(t, fast...)
	ts.clock.hold()
	ts.listed(certAdmin, true)
	ts.get("/pastes").want(401, "authentication_required")
	ts.get("/pastes", "X-SSL-Client-SHA1: "+certAlice).want(401, "authentication_required")
	if p, _ := ts.page("", withCert(certAlice)...); p.Count != 0 || p.Next != nil {
		t.Errorf("an empty list: %+v", p)
	}
	ts.create("anonymous")
	ts.create("mallory's", withCert(certMallory, "X-Display-Name: M")...)
	ts.do("POST", "/s", strings.NewReader("https://example.org/"), withCert(certAlice)...).want(201, "")
	first := ts.clock.now()
	made := map[string]created{}
	for i, name := range strings.Split("abcdefghij", "") { // a minute apart, but for some pairs
		h := []string{"X-Display-Name: " + name + ` Größe 100%_\ "q"`}
		switch name {
		case "b":
			h = append(h, "Content-Type: image/gif")
		case "c":
			h = append(h, "X-Burn-After-Read: true")
		case "d":
			h = append(h, "Content-Type: image/png")
		}
		made[name] = ts.create(name, withCert(certAlice, h...)...)
		if i%3 != 1 {
			ts.clock.advance(time.Minute)
		}
	}
	ts.create("expires", withCert(certAlice, "X-Expiry: 1")...)
	ts.clock.advance(2 * time.Second)
	ts.do("PUT", "/"+made["a"].ID, strings.NewReader("new"), withCert(certAlice)...).want(200, "") // the latest now
	ts.do("PUT", "/"+made["e"].ID, nil, withCert(certAlice, "X-Expiry: 1h")...).want(200, "")      // where it was
	const all = "ajihgfedcb"
	one, names := ts.page("", withCert(certAlice)...)
	if names != all || one.Next != nil {
		t.Errorf("all: %s, next %v", names, one.Next)
	}
	for _, e := range one.Pastes {
		if e.Owner != certAlice || (e.SHA256 == "") != e.Burn || e.CreatedAt != made[e.DisplayName[:1]].CreatedAt ||
			e.Link == "" {
			t.Errorf("entry %+v", e)
		}
	}
	for _, limit := range []int{1, 3, 9, 10, 11, 200, 100000} {
		got, cursor := "", ""
		for range 11 {
			p, names := ts.page("?limit="+strconv.Itoa(limit)+"&cursor="+cursor, withCert(certAlice)...)
			if got += names; len(p.Pastes) > limit || p.Next == nil {
				break
			}
			cursor = *p.Next
		}
		if got != all {
			t.Errorf("limit %d: %s", limit, got)
		}
	}
	at := func(name string) string { return strconv.FormatInt(made[name].CreatedAt, 10) }
	q := url.QueryEscape
	middle := time.Unix(made["e"].CreatedAt, 0)
	for query, want := range map[string]string{
		"?q=" + q("C gr"): "c", "?q=" + q(`100%_\ "q"`): all, "?q=" + q("%"): all, "?q=" + q("e 1_"): "", "?q=" + q("' OR 1=1 --"): "",
		"?q=" + made["h"].ID[2:12]: "h", "?q=" + strings.ToUpper(made["h"].ID): "h", "?q=": all,
		"?type=image/png": "d", "?type=IMAGE/PNG": "d", "?type=image/*": "db", "?type=text/plain": "ajihgfec", "?type=video/*": "",
		"?after=" + at("e"): "jihg", "?before=" + at("e"): "adcb", "?after=" + at("d") + "&before=" + at("g"): "fe",
		"?after=0": all, "?before=" + strconv.FormatInt(first.Unix(), 10): "",
		"?after=" + q(middle.UTC().Format(time.RFC3339)):                          "jihg",
		"?before=" + q(middle.In(time.FixedZone("x", 7200)).Format(time.RFC3339)): "adcb",
		"?q=b&type=image/*": "b", "?limit=2&type=image/*": "db", "?cursor=": all,
	} {
		p, names := ts.page(query, withCert(certAlice)...)
		if strings.HasPrefix(query, "?q=b&") {
			names = strings.TrimPrefix(names, "d") // whose id may have a b in it
		}
		if names != want || p.Next != nil {
			t.Errorf("%s: %s, want %s", query, names, want)
		}
	}
	for _, query := range []string{"?limit=0", "?limit=-1", "?limit=x", "?limit=", "?limit=1&limit=2",
		"?limit=99999999999999999999",
		"?cursor=x", "?cursor=AAAA", "?cursor=" + strings.Repeat("A", 10) + "B", "?cursor=" + strings.Repeat("A", 12), "?type=image", "?type=*/*",
		"?type=image/*x", "?type=", "?after=x", "?after=-1", "?before=2026-01-01", "?before=", "?q=%ff", "?q=" + strings.Repeat("x", 5000),
		"?other=1", "?Limit=1", "?%zz", "?a;b"} {
		ts.get("/pastes"+query, withCert(certAlice)...).want(400, "bad_option")
	}
	for _, owner := range []string{"all", "anonymous", certAlice, certMallory, "", "x"} {
		ts.get("/pastes?owner="+owner, withCert(certAlice)...).want(403, "not_admin").says("owner=")
	}
	next, _ := ts.page("?limit=5", withCert(certAlice)...) // a cursor is a place, no right
	for query, c := range map[string][2]string{
		"?cursor=" + *next.Next: {certMallory, "M"}, "?owner=all": {certAdmin, all + "M"}, "?owner=all&limit=3": {certAdmin, "aji"},
		"?owner=anonymous": {certAdmin, ""}, "?owner=" + certMallory: {certAdmin, "M"}, "": {certAdmin, ""},
		"?owner=" + sum256("nobody"): {certAdmin, ""}, "?owner=all&q=M": {certAdmin, "M"},
	} {
		p, names := ts.page(query, withCert(c[0])...)
		if names != c[1] || query == "?owner=anonymous" && p.Count != 1 {
			t.Errorf("%s for %.4s: %q, %d", query, c[0], names, p.Count)
		}
	}
	for _, owner := range []string{"", "ALL", "alice", strings.ToUpper(certAlice), certAlice[1:]} {
		ts.get("/pastes?owner="+owner, withCert(certAdmin)...).want(400, "bad_option")
	}
	ts.do("HEAD", "/pastes", nil, withCert(certAlice)...).want(200, "")
}

// TestListBound: a request looks at 10,000 rows; a page may be short, or empty, and still have a cursor.
func TestListBound(t *testing.T) {
	ts := start(t, fast...)
	p := ts.create("x", withCert(certAlice, "X-Display-Name: wanted")...)
	ts.write(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20100) INSERT INTO pastes
		SELECT content + i, printf('%016x', i), size, mime, sha256, created_at, modified_at, expires_at, life, owner,
			burn, password,
		proof, token, iif(i = 5000, 'wanted', 'other') FROM pastes, n WHERE name = 'wanted'`)
	for _, c := range []struct {
		query string
		found []int // on each page
	}{{"?q=wanted", []int{0, 1, 1}}, {"?type=image/*", []int{0, 0, 0}}} {
		cursor := ""
		for i, want := range c.found {
			page, _ := ts.page(c.query+cursor, withCert(certAlice)...)
			if page.Count != want || (page.Next == nil) != (i == 2) {
				t.Fatalf("%s, page %d: %d found, next %v", c.query, i, page.Count, page.Next)
			}
			if page.Next != nil {
				cursor = "&cursor=" + *page.Next
			} else if want == 1 && page.Pastes[0].ID != p.ID {
				t.Errorf("%s: found %s", c.query, page.Pastes[0].ID)
			}
		}
	}
	if page, _ := ts.page("?limit=200", withCert(certAlice)...); page.Count != 200 || page.Next == nil {
		t.Errorf("%d without a filter", page.Count)
	}
}

// TestNotFound: whatever the reason, it is the same 404; an id is looked up as it is written, or not at all.
func TestNotFound(t *testing.T) {
	ts := start(t, fast...)
	ts.clock.hold()
	gone := map[string]created{"expired": ts.create("x", "X-Expiry: 60"), "burned": ts.create("x",
		"X-Burn-After-Read: 1"), "deleted": ts.create("x")}
	ts.get("/"+gone["expired"].ID+"/raw").want(200, "") // now in the cache
	ts.get("/"+gone["burned"].ID+"/raw").want(200, "")
	ts.do("DELETE", "/"+gone["deleted"].ID, nil, "X-Delete-Token: "+gone["deleted"].DeleteToken).want(200, "")
	ts.clock.advance(time.Minute)
	p := ts.create("x")
	id := "abcdef01" // 8 digits are enough for a lookup
	ts.write("UPDATE pastes SET id = ? WHERE id = ?", id, p.ID)
	ts.get("/"+id+"/raw").want(200, "")
	wire := func(path string) string {
		c := ts.dial()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nX-Request-ID: r\r\nConnection: close\r\n\r\n", path)
		b, _ := io.ReadAll(c)
		lines := slices.DeleteFunc(strings.Split(string(b), "\r\n"), func(l string) bool {
			return strings.HasPrefix(l,
				"Date: ")
		})
		return strings.Join(lines, "\n")
	}
	missing := wire("/0123456789abcdef")
	if !strings.HasPrefix(missing, "HTTP/1.1 404 ") || !strings.HasSuffix(missing,
		`{"error":"not found","code":"not_found","request_id":"r"}`+"\n") {
		t.Errorf("%s", missing)
	}
	paths := []string{"/no/such/route/at/all", "/metrics", "/" + id + "/", "/" + id + "/raw/", "/" + id + "/RAW",
		"/" + id + "/raw%2f", "/" + id + "/info",
		"/" + id + "/raw/x/y", "/" + id + "/info/x", "//" + id, "/./" + id, "/x/../" + id, "/" + id + "//raw", "/s/AAAAAAAA", "/s/" + id, "/*"}
	for _, odd := range []string{strings.ToUpper(id), id[:7], id + "0", id + "%20", "%20" + id, id + "%00",
		id[:4] + "%2f" + id[4:], "..%2f" + id,
		id + "%0d%0aX-Evil:%201", "%ef%bc%90" + id, strings.Repeat("a", 65), strings.Repeat("a", 5000), "%25",
		"'%20OR%201=1--", id + ".txt", "%ff",
		gone["expired"].ID, gone["burned"].ID, gone["deleted"].ID} {
		paths = append(paths, "/"+odd, "/"+odd+"/raw", "/"+odd+"/raw/name")
	}
	for _, path := range paths {
		if got := wire(path); got != missing {
			t.Errorf("%.60q: %s", path, got)
		}
	}
	ts.do("PUT", "/"+gone["deleted"].ID, strings.NewReader("y")).want(404, "not_found").says("shape of an id")
}

// TestLinesOfABody: the limit of header lines does not count what comes along with the header.
func TestLinesOfABody(t *testing.T) {
	ts := start(t)
	ts.create(strings.Repeat("\n", 3000))
	ts.stored(1)
}
