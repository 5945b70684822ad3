package main

// Pastes on the wire (api.md sections 3, 4, 5 and 8), over a real listener and the real store: each form of a creation
// with its options and answers, each refusal, reading, burning, renewing, changing, deleting, listing; and what must
// not have happened. The clock is held wherever a time is compared.

import (
	"bufio"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
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

// fast is a server behind the tests' proxy that does not wait for the disk: power cuts are crash_test.go's.
var fast = append([]string{"SYNC=normal"}, proxied...)

// head splits lines into headers. A first line of ALICE, MALLORY, TRUSTED or ADMIN is that certificate, shown by the
// proxy.
func head(lines string) []string {
	h := strings.Split(lines, "\n")
	certs := map[string]string{"ALICE": certAlice, "MALLORY": certMallory, "TRUSTED": certFirst, "ADMIN": certOfAdmin}
	if cert := certs[h[0]]; cert != "" {
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
		len(content), strings.Join(headers, "\r\n"))
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
	const all = "3600 burn_after_read display_name owner password_protected read_proof"
	const text = "line\r\nand\x00\xff bytes\n"
	options := "X-Expiry: 1h\nX-Burn-After-Read: true\nX-Paste-Password: pw\nX-Display-Name: Ü 😀\n" + proofGiven
	name, three := strings.Repeat("n", 255), pattern(3*chunkSize+1)
	// request; headers; body; content; the answer: JSON, or what the link ends in; its life unless a day, and the
	// members that not all have
	cases := [][6]string{
		{"PUT /name", "X-Burn-After-Read: 1", text, text, "", "burn_after_read"}, {"PUT /", "", text, text, "", ""},
		{"PUT /some%20name.txt", "", text, text, "/some%20name.txt", ""}, {"PUT /a%2fb", "", text, text, "/a%2Fb", ""},
		{"PUT /a%0d%0aX:%20y", "", text, text, "/a%0D%0AX:%20y", ""}, {"PUT /" + name, "", text, text, "/" + name, ""},
		{"PUT /n" + name, "", text, text, "", ""}, {"PUT /abcdef0", "", text, text, "/abcdef0", ""},
		{"PUT /ABCDEF0123", "", text, text, "/ABCDEF0123", ""}, {"PUT /", isJSON, `{"content":"x"}`, "x", "", ""},
	}
	for _, c := range [][2]string{
		{"", ""}, {"Content-Type: application/x-www-form-urlencoded", ""}, {"Content-Encoding: identity", ""},
		{"Content-Range: bytes 0-17/18", ""}, {"ALICE\n" + options, all}, {"ALICE", "604800 owner"},
		{strings.ToUpper(proofGiven), "read_proof"},
	} {
		cases = append(cases, [6]string{"POST /", c[0], text, text, "JSON", c[1]})
	}
	for _, content := range []string{pattern(2 * chunkSize), strings.Repeat("\n", 3000)} { // no header lines these
		cases = append(cases, [6]string{"POST /", "", content, content, "JSON", ""})
	}
	for _, c := range [][4]string{
		{"", `{"content":"a\r\n\u0000 + ü\n"}`, "a\r\n\x00 + ü\n", ""},
		{"Content-Type: application/json, text/plain, */*", `{"content":"x","password":"pw"}`, "x",
			"password_protected"},
		{"Content-Type: text/plain\n" + isJSON, `{"content":"x"}`, "x", ""},
		{"", `{"content":"\ud83d\ude00\\ud800 \u0041"}`, "😀\\ud800 A", ""},
		{"", `{"content":"x","expiry":null,"password":null,"burn_after_read":null}`, "x", ""},
		{isJSON + "\nX-Expiry: 1m", `{"content":"x","expiry":"60s"}`, "x", "60"},
		{"ALICE\n" + isJSON + "\n" + proofGiven,
			`{"content":"x","expiry":"1h","burn_after_read":true,"password":"pw","display_name":"Ü 😀"}`, "x", all},
	} {
		cases = append(cases, [6]string{"POST /", cmp.Or(c[0], isJSON), c[1], c[2], "JSON", c[3]})
	}
	for _, c := range [][4]string{
		{"", form(file("x.bin", text)), text, ""}, {"", form(field("f:1", text)), text, ""},
		{"", form(part{"X-Nothing: 1", text}), text, ""},
		{"", form(field("expiry", "60"), file("x", text)), text, "60"},
		{"ALICE\n" + isForm + "\n" + proofGiven, form(field("expiry", "1h"), file("x", text), field("burn_after_read",
			"1"), field("password", "pw"), field("display_name", "Ü 😀")), text, all},
		{"", form(append(slices.Repeat([]part{field("expiry", "60")}, 15), file("x", text))...), text, "60"},
		{"", form(file("../../etc/passwd%0d%0aSet-Cookie: a=b", text)), text, ""},
		{"", form(file("x", "\r\n--b0undar!y"+three), field("expiry", "60")), "\r\n--b0undar!y" + three, "60"},
	} {
		cases = append(cases, [6]string{"POST /", cmp.Or(c[0], isForm), c[1], c[2], "", c[3]})
	}
	ts := start(t, fast...)
	ts.clock.hold()
	n := int64(0)
	for _, c := range cases {
		request, headers, content, line, shows, life := c[0], c[1], c[3], c[4], c[5], "86400"
		if first, rest, _ := strings.Cut(shows, " "); strings.Trim(first, "0123456789") == "" && first != "" {
			life, shows = first, rest
		}
		burns := strings.Contains(shows, "burn")
		for i, body := range both(c[2]) {
			if i == 1 && (strings.Contains(shows, "password") || strings.Contains(headers, "Content-Range")) {
				continue // a derivation takes its time; of chunks nobody can tell whether they are the whole
			}
			t.Run(fmt.Sprintf("%.40s %.60q %.60q %T", request, headers, c[2], body), func(t *testing.T) {
				ts := ts.in(t)
				a := ts.send(request, body, head(headers)...).want(201, "")
				id := a.id()
				if len(id) != 16 || !isHex(id, 16) || a.Header.Get("Location") != "/"+id || a.Header.Get("X") != "" {
					t.Fatalf("%v", a.Header)
				}
				h := withCert(certAlice, "X-Paste-Password: pw", "X-Read-Proof: "+readProof)
				m, shown := ts.get("/"+id, h...).want(200, ""), "created_at expires_at id link mime_type raw size url"
				link := ts.url + "/" + id + map[bool]string{false: "/raw"}[burns]
				if line != "JSON" && a.body != link+line+"\n" || line == "JSON" &&
					(a.members() != words(shown, "sha256 delete_token", shows) || a.field("link") != link ||
						a.field("sha256") != sum256(content) ||
						a.field("delete_token") != a.Header.Get("X-Delete-Token")) {
					t.Errorf("answer %s", a.body)
				}
				if shows == "" || shows == "owner" {
					shown += " sha256"
				}
				if m.members() != words(shown, shows) || m.field("size") != strconv.Itoa(len(content)) ||
					m.field("link") != link || strings.Contains(shows, "display_name") &&
					m.field("display_name") != "Ü 😀" {
					t.Errorf("shown as %s", m.body)
				}
				at := httpDate(m.number("expires_at"))
				if fmt.Sprint(m.number("expires_at")-m.number("created_at")) != life || a.Header.Get("Sunset") != at ||
					m.Header.Get("Sunset") != at || len(a.Header.Get("X-Delete-Token")) != 43 {
					t.Errorf("%s, %v", m.body, a.Header)
				}
				if got := ts.get("/"+id+"/raw", h...).want(200, "").body; got != content {
					t.Errorf("content %.60q, want %.60q", got, content)
				}
				if !burns {
					n++
				}
			})
		}
	}
	ts.stored(n)
}

// TestRefusedCreations: nothing of these is stored, and the sentence or hint says what was wrong or what to type.
func TestRefusedCreations(t *testing.T) {
	ts := start(t, append([]string{"MAX_ANON=600KiB", "MAX_AUTH=2MiB", "MIN_SIZE=2", "MIN_ENTROPY=1.5"}, fast...)...)
	big, whole := pattern(640<<10), form(file("x", "hello"))
	long := func(n int) string { return strings.Repeat("pq", n/2) }
	opt := func(name, v string) string { return form(file("x", "yy"), field(name, v)) }
	cases := [][4]string{ // headers, body, code, words of its sentence or hint
		{"", "", "empty_content", "-T FILE"}, {"", "x", "too_small", "2 bytes"},
		{"", long(256), "low_entropy", "repeats"}, {"", big, "too_large", "with a client certificate it may be 2 MiB"},
		{"ALICE", big + big + big + big, "too_large", "2 MiB"},
		{isJSON, `{"content": "` + long(600<<10+2) + `"}`, "too_large", "600 KiB"},
		{isForm, form(file("x", pattern(900<<10))), "too_large", "600 KiB"},
		{isJSON, long(2 << 20), "too_large", "JSON: send a larger content raw"},
		{"Content-Type: text/plain,application/json", "hello", "bad_json", "byte 1"},
		{"Content-Type: multipart/form-data", whole, "bad_option", "boundary"},
		{"Content-Type: multipart/form-data; boundary=x\n" + isForm, whole, "bad_option", "form"},
		{isJSON + "\nX-Expiry: 61", `{"content":"xx","expiry":60}`, "bad_option", "expiry"},
		{isForm + "\nX-Burn-After-Read: 1", opt("burn_after_read", "0"), "bad_option", "once"},
		{"X-Expiry: 60\nX-Expiry: 60", "xx", "bad_option", "X-Expiry"},
		{"X-Burn-After-Read: True", "xx", "bad_option", "true, false, 1 or 0"},
		{"X-Paste-Password: ", "xx", "bad_password", "1 to 1024"},
		{"X-Paste-Password: " + long(1026), "xx", "bad_password", "1024"},
		{"X-Paste-Password: a\tb", "xx", "bad_password", "control"},
		{"X-Paste-Password: caf\xe9", "xx", "bad_password", "UTF-8"},
		{"X-Paste-Password: pw\u00a0", "xx", "bad_password", "blank"},
		{"ALICE\nX-Display-Name: " + strings.Repeat("ü", 129), "xx", "bad_display_name", "128"},
		{"ALICE\n" + isJSON, `{"content":"xx","display_name":"a\r\nX: 1"}`, "bad_display_name", "control"},
		{"X-Read-Proof-SHA256: " + strings.Repeat("g", 64), "xx", "bad_option", "64 hex"},
		{"Content-Encoding: gzip", "\x1f\x8b\x08", "unsupported_encoding", "as they are"},
		{"Content-Range: bytes 4-9/10", "456789", "partial_content", "without -C"},
		{"Content-Range: bytes 0-9/*", "0123456789", "partial_content", "whole"},
		{"Origin: https://evil.example", "xx", "cross_origin", "another site"},
	}
	for _, c := range [][3]string{
		{`{"content":null}`, "empty_content", "empty"}, {`{"content": "x"`, "bad_json", "ends before"},
		{`["x"]`, "bad_json", "not an object"}, {`{content: "x"}`, "bad_json", "at byte 2"},
		{`hello`, "bad_json", `{"content": "..."`}, {"{\"content\":\"a\nb\"}", "bad_json", "byte 14"},
		{`{"content":"x"} {}`, "bad_json", "behind"}, {`{"contents":"x"}`, "bad_json", `"contents"`},
		{"\ufeff" + `{"content":"x"}`, "bad_json", "byte order mark"},
		{`{"content":"x","password":5}`, "bad_json", "password must be a string"},
		{`{"content":"x","burn_after_read":"true"}`, "bad_json", "must be true or false, without"},
		{`{"content":"x","expiry":3600.0}`, "bad_expiry", "whole number"},
		{`{"content":"x","password":"a\u0000b"}`, "bad_password", "control"},
		{`{"content":"\udc00\ud800"}`, "bad_json", "surrogate"}, {"{\"content\":\"\xff\"}", "bad_json", "UTF-8"},
		{`{"content":` + strings.Repeat("[", 100000), "bad_json", "bad JSON"},
		{`{"content":"x","display_name":"n"}`, "bad_display_name", "certificate"},
	} {
		cases = append(cases, [4]string{isJSON, c[0], c[1], c[2]})
	}
	for _, c := range [][3]string{
		{form(field("expiry", "60")), "empty_content", "-F file=@FILE"}, {"", "bad_option", "curl -F"},
		{whole[:120], "bad_option", "cut short"}, {whole[:40], "bad_option", "cut short"},
		{whole[:len(whole)-4] + "\r\nContent-Disposition: form-data; name=password\r\n", "bad_option", "cut short"},
		{form(file("x", "a"), file("y", "b")), "bad_option", "expiry, burn_after_read, password and display_name"},
		{form(file("x", pattern(300<<10)), field("title", "b")), "bad_option", `"title"`},
		{form(append(slices.Repeat([]part{field("expiry", "60")}, 16), file("x", "y"))...), "bad_option", "16"},
		{opt("password", long(5000)), "bad_option", "4 KiB"}, {opt("expiry", "soon"), "bad_expiry", `"soon"`},
		{form(field("expiry", "60"), field("expiry", "61"), file("x", "y")), "bad_option", "expiry"},
		{form(part{file("x", "").head + "\r\nContent-Transfer-Encoding: base64", "eA=="}), "bad_option", ";encoder="},
		{form(part{"Content-Disposition: form-data; name=f\r\nContent-Type: Multipart/Mixed; boundary=y", "--y--"}),
			"bad_option", "one file"},
		{form(part{"X-A: " + long(500<<10), "y"}), "bad_option", "16 KiB"},
	} {
		cases = append(cases, [4]string{isForm, c[0], c[1], c[2]})
	}
	status := map[string]int{"too_large": 413, "unsupported_encoding": 415, "cross_origin": 403}
	for _, c := range cases {
		for _, body := range both(c[1]) {
			t.Run(fmt.Sprintf("%.50q %.50q %T", c[0], c[1], body), func(t *testing.T) {
				a := ts.in(t).do("POST", "/", body, head(c[0])...).want(max(400, status[c[2]]), c[2])
				a.says(c[3])
				if h := a.Header; h.Get("Location")+h.Get("X-Delete-Token")+h.Get("Sunset") != "" ||
					(c[2] == "too_large") != (a.field("limit") != "") || (c[2] == "low_entropy") !=
					(a.field("entropy")+" "+a.field("min_entropy") == "1.00 1.50") {
					t.Errorf("%s, %v", a.body, h)
				}
			})
		}
	}
	for _, c := range [][4]string{ // request, code, words, Allow
		{"POST /?burn_after_read=true", "bad_option", "X-Burn-After-Read: ", ""},
		{"POST /?expiry=1h&password=x", "bad_option", "X-Expiry: ", ""},
		{"PUT /?anything", "bad_option", "X-Expiry, X-Burn-After-Read", ""},
		{"PUT /0123456789abcdef?token=x", "bad_option", "X-Delete-Token: ", ""},
		{"DELETE /0123456789abcdef?t=x", "bad_option", "X-Delete-Token: ", ""},
		{"PUT /s", "method_not_allowed", "curl -d https://example.org/ " + ts.url + "/s", "GET, HEAD, POST"},
		{"PUT /%70astes", "method_not_allowed", "it takes GET, HEAD", "GET, HEAD"},
		{"POST /name", "method_not_allowed", "PUT", "DELETE, GET, HEAD, PUT"},
		{"PUT /0123456789abcdef", "not_found", "curl -T - " + ts.url + "/", ""},
	} {
		a := ts.send(c[0], strings.NewReader("content"))
		if a.says(c[2]); a.StatusCode < 400 || a.field("code") != c[1] || a.Header.Get("Allow") != c[3] {
			t.Errorf("%s: %s, Allow %q", c[0], a.body, a.Header.Get("Allow"))
		}
	}
	said := ts.post("xx", "X-Expiry: never", "Accept: TEXT/Plain").want(400, "").body
	if !strings.HasPrefix(said, "error: the expiry") || strings.Count(said, "\n") != 2 {
		t.Errorf("as text: %q", said)
	}
	ts.nothing()
	for _, content := range []string{long(254), "xx", pattern(600 << 10)} { // what is just enough, or not too much
		ts.post(content).want(201, "")
	}
	ts.post(form(file("x", pattern(600<<10))), isForm).want(201, "")
	ts.post(pattern(2<<20), withCert(certAlice)...).want(201, "")
	ts.stored(5)
	ts = start(t, "MAX_ANON=1073741824GiB", "SHORT_URL_MAX=1073741824GiB") // no limit, and no overflow
	ts.post(form(file("x", "y")), isForm).want(201, "")
	ts.short("https://example.org/")
}

// TestBeforeTheBody: what the head of a request settles is answered before a byte of the body is read, and no client
// that waits is told to go on.
func TestBeforeTheBody(t *testing.T) {
	ts := start(t, append([]string{"MAX_ANON=1MiB"}, fast...)...)
	c := ts.create("mine")
	token, short, long := "X-Delete-Token: "+c.DeleteToken, "Content-Length: 100", "Content-Length: 1048577"
	for _, r := range [][3]string{ // the request and its headers, the code
		{"POST /", long, "too_large"}, {"PUT /name", "Content-Length: 9223372036854775807", "too_large"},
		{"POST /", isForm + "\r\nContent-Length: 2000000", "too_large"},
		{"POST /", "X-Expiry: 0\r\n" + long, "bad_expiry"},
		{"POST /?expiry=0", "X-Expiry: 0\r\n" + short, "bad_option"},
		{"POST /?expiry=0", "Content-Encoding: br\r\n" + short, "unsupported_encoding"},
		{"PUT /", "Content-Range: bytes 4-103/104\r\n" + short, "partial_content"},
		{"PATCH /", short, "method_not_allowed"}, {"PUT /0123456789abcdef", short, "not_found"},
		{"PUT /" + c.ID, short, "authentication_required"}, {"PUT /" + c.ID, token + "\r\n" + long, "too_large"},
		{"POST /", "Origin: https://evil.example\r\n" + short, "cross_origin"},
		{"POST /", "X-Proxy-Secret: " + proxySecret + "\r\nX-SSL-Client-SHA1: nonsense\r\n" + short,
			"bad_client_certificate"},
		{"POST /s", long, "bad_url"}, {"POST /s", isJSON + "\r\n" + long, "too_large"},
	} {
		t.Run(r[0]+" "+r[1], func(t *testing.T) { // byHand reads the first response whatever it is: a 100 would be it
			a := ts.in(t).byHand("POST", r[0]+" HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"+r[1]+"\r\n\r\n")
			if a.StatusCode < 400 || a.field("code") != r[2] || !a.Close {
				t.Errorf("%d %s; the connection ends: %v", a.StatusCode, a.body, a.Close)
			}
		})
	}
	if a := ts.slowly("POST /", "hello")(); a.StatusCode != 201 { // who may go on is told so
		t.Errorf("after 100 Continue: %d", a.StatusCode)
	}
	ts.stored(2)
}

// TestExpiry: every form of an expiry, every refusal, and what each tier gets and may ask for.
func TestExpiry(t *testing.T) {
	const hour, day = 3600, 86400
	ts := start(t, fast...)
	ts.clock.hold()
	now := ts.clock.now()
	at := func(seconds int, zone int) string {
		return now.Add(time.Duration(seconds) * time.Second).In(time.FixedZone("", zone)).Format(time.RFC3339)
	}
	unix := func(n int64) string { return "@" + strconv.FormatInt(now.Unix()+n, 10) }
	for v, life := range map[string]int64{
		"1": 1, "3600": hour, "0060": 60, "90s": 90, "15m": 900, "12h": 12 * hour, "7d": 7 * day, "1d12h": 36 * hour,
		"30m30m": hour, "0d5s": 5, "1d1h1m1s": 90061, "2w": 7 * day, "1000d": 7 * day, "100000000000000000": 7 * day,
		"9999-12-31T23:59:59Z": 7 * day, at(1, 0): 1, at(36000, 7200): 36000, unix(1): 1, unix(100 * day): 7 * day,
	} {
		if a := ts.post("x", "X-Expiry: "+v).want(201, ""); a.number("expires_at") != now.Unix()+life {
			t.Errorf("%.40q: %d s", v, a.number("expires_at")-now.Unix())
		}
	}
	stored := ts.pastes()
	for _, v := range []string{
		"0", "0s", "0d0h", "-1", "-1h", "+1", "1e9", "1.5h", "NaN", "0x10", "1_000", "1d12", "12d1", "d", "1dd", "1 d",
		"1D", "1y", "never", "٣٠s", "３０s", "9223372036854775808", "9223372036854775807w",
		"15250284452471w15250284452471w", at(0, 0), at(-1, 3600), "1999-01-01T00:00:00Z", "2999-03-02",
		"2999-02-30T00:00:00Z", "2999-03-02T00:00:00", "@", unix(0), "@-1", "@+" + unix(5)[1:], "@1e10",
		"@9223372036854775808", strings.Repeat("9", 5000),
	} {
		a := ts.post("x", "X-Expiry: "+v).want(400, "bad_expiry")
		a.says("seconds (3600), 90s, 15m, 12h, 7d, 2w or a sum (1d12h), an RFC 3339 time")
	}
	ts.stored(stored)
	ts = start(t, append([]string{"EXPIRY_ANON=10d", "EXPIRY_UNTRUSTED=60d", "MAX_EXPIRY=50d"}, fast...)...)
	// A longer default raises what may be asked for; MAX_EXPIRY cuts it.
	for lines, life := range map[string]int64{"X-Expiry: 11d": 10, "ALICE": 50, "ALICE\nX-Expiry: 49d": 49} {
		if p := ts.create("x", head(lines)...); p.ExpiresAt-p.CreatedAt != life*day {
			t.Errorf("%s: lives %d s", lines, p.ExpiresAt-p.CreatedAt)
		}
	}
}

// TestMIME: a declared type that says something stays; else the bytes decide, and what is text as a whole is text.
func TestMIME(t *testing.T) {
	const raw = "application/octet-stream"
	ftyp := func(brands string) string {
		return "\x00\x00\x00" + string(rune(8+len(brands))) + "ftyp" + brands + "\x00\xff"
	}
	inline := regexp.MustCompile(`^(audio/|video/|(text/plain|application/json|image/(png|jpeg|gif|webp|avif))($|;))`)
	ts := start(t, fast...)
	check := func(a *answer, content, want string) {
		t.Helper()
		r := ts.get("/"+a.want(201, "").id()+"/raw").want(200, "")
		if r.Header.Get("Content-Type") != want || r.Header.Get("X-Evil") != "" || content != "" && r.body != content {
			t.Errorf("%.40q is %q, want %q", r.body, r.Header.Get("Content-Type"), want)
		}
		shown := "attachment"
		if inline.MatchString(want) && !strings.HasSuffix(want, "+xml") {
			shown = "inline"
		}
		if got := r.Header.Get("Content-Disposition"); got != shown {
			t.Errorf("%s: Content-Disposition %q", want, got)
		}
	}
	for _, c := range [][]string{ // the type, contents that have it
		{isText, "größe 😀\ufffd\n", strings.Repeat("x", chunkSize-1) + "😀y", "MZ BM BZh9 ID3", "OggS is a mark",
			"<!DOCTYPE html><script>alert(1)</script>", "<?xml version=\"1.0\"?><svg/>",
			"-----BEGIN PGP MESSAGE-----\n\nhQEM\n"},
		{raw, "a\x00b", "gr\xf6\xdfe", "a\xc3", "\xed\xa0\x80", strings.Repeat("x", chunkSize-1) + "\xf0\x9f\x98y",
			strings.Repeat("x", chunkSize) + "\x00", ftyp("qt  \x00\x00\x02\x00qt  "), "\x01\x02\x03\xff"},
		{"text/plain; charset=utf-16le", "\xff\xfeh\x00i\x00"}, {"text/plain; charset=utf-16be", "\xfe\xff\x00h\x00i"},
		{"application/pdf", "%PDF-1.7\n"},
		{"application/x-pem-file", "-----BEGIN CERTIFICATE-----\nMIIB\n",
			"-----BEGIN RSA PRIVATE KEY-----\r\nMIIB\r\n"},
		{"application/x-age", "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n", "age-encryption.org/v1\n-> X25519\n\xff"},
		{"image/png", "\x89PNG\r\n\x1a\n\x00\x00"}, {"image/webp", "RIFF\x10\x00\x00\x00WEBPVP8 "},
		{"image/avif", ftyp("mif1\x00\x00\x00\x00mif1avifmiaf")},
		{"image/heic", ftyp("heic\x00\x00\x00\x00mif1heic"), ftyp("mif1\x00\x00\x00\x00mif1heic")},
		{"audio/wave", "RIFF\x10\x00\x00\x00WAVEfmt \x00"}, {"audio/flac", "fLaC\x00\x00\x00\x22"},
		{"audio/mpeg", "ID3\x04\x00\x00\x00\x00\x00\x23TSSE"}, {"application/ogg", "OggS\x00\x02\x00\x00"},
		{"video/mp4", ftyp("isom\x00\x00\x02\x00isommp41")}, {"video/webm", "\x1a\x45\xdf\xa3\x9f\x42\x86\x81"},
		{"application/zip", "PK\x03\x04\x14\x00"}, {"application/x-gzip", "\x1f\x8b\x08\x00\x00"},
		{"application/x-bzip2", "BZh91AY&SY\x00"}, {"application/x-xz", "\xfd7zXZ\x00\x00\x04"},
		{"application/zstd", "\x28\xb5\x2f\xfd\x04\x00"}, {"application/x-7z-compressed", "7z\xbc\xaf\x27\x1c\x00\x04"},
		{"application/x-tar", strings.Repeat("n", 100) + strings.Repeat("\x00", 157) + "ustar\x0000\x00"},
		{"application/x-elf", "\x7fELF\x02\x01\x01\x00"}, {"application/octet-stream", "\x00asm\x01\x00\x00\x00"},
		{"application/vnd.sqlite3", "SQLite format 3\x00\x10\x00"},
	} {
		for _, content := range c[1:] {
			check(ts.post(content), content, c[0])
			check(ts.post(content, "Content-Type: "+raw), content, c[0])
		}
	}
	for _, c := range [][3]string{ // declared, content, type
		{"application/yaml", "a: 1", "application/yaml"}, {"Text/HTML", "<p>", "text/html"},
		{"audio/x+xml", "<x/>", "audio/x+xml"},
		{"text/html; charset=ISO-8859-1; x=y", "<p>", "text/html; charset=ISO-8859-1"},
		{`text/html; charset="a b\"c"`, "<p>", "text/html"}, {"text/html; charset=a; charset=b", "<p>", "text/html"},
		{"application/vnd.x+json", "\x89PNG\r\n\x1a\n", "application/vnd.x+json"},
		{"text/plain", "%PDF-1.4", "application/pdf"}, {"text/plain", "\xff\xfeh\x00", "text/plain; charset=utf-16le"},
		{"text/plain; charset=ISO-8859-1", "gr\xfc\xdfe", "text/plain; charset=ISO-8859-1"},
		{"text/plain; charset=latin1", "plain", isText}, {"text/plain; charset=UTF-8", "gr\xfc\xdfe", raw},
		{"application/x-www-form-urlencoded", "a=b", isText}, {"multipart/mixed; boundary=x", "--x", isText},
		{"message/rfc822", "From: x", isText}, {"*/*", "x", isText}, {"text/html, text/plain", "x", isText},
		{"text/" + strings.Repeat("x", 200), "x", isText}, {"text/ü", "x", isText},
	} {
		check(ts.post(c[1], "Content-Type: "+c[0]), c[1], c[2])
	}
	for _, c := range [][3]string{ // kind, body, type
		{isJSON, `{"content":"x","mime_type":"text/CSV"}`, "text/csv"},
		{isJSON, `{"content":"{}","mime_type":"application/json"}`, "application/json"},
		{isJSON, `{"content":"x","mime_type":"text/html\r\nX-Evil: 1"}`, isText},
		{isJSON, `{"content":"x","mime_type":"text/html; charset=\"a\r\nX-Evil: 1\""}`, "text/html"},
		{isForm, form(part{"Content-Disposition: form-data; name=c\r\nContent-Type: image/svg+xml", "<svg>"}),
			"image/svg+xml"},
		{isForm, form(field("c", "<svg>")), isText},
	} {
		check(ts.post(c[1], c[0]), "", c[2])
	}
}

// ---- reading ----

// TestMetadata: what is shown, to whom, as JSON and as lines for a person; what of it would help a guesser; nothing
// burns.
func TestMetadata(t *testing.T) {
	ts := start(t, fast...)
	ts.clock.hold()
	for _, c := range [][3]string{ // an option, the member that shows it, words of the lines; LINK stands for the link
		{"X-Expiry: 90", "sha256", isText + "|7 bytes|(90 seconds)|\ncurl LINK/raw\n"},
		{"X-Burn-After-Read: true", "burn_after_read", "once|(7 days)|\ncurl LINK/raw\n"},
		{"X-Paste-Password: pw", "password_protected", "password|\ncurl -u :PASSWORD LINK/raw\n"},
		{proofGiven, "read_proof", "encrypted|fpaste get 'LINK#...'|" + ts.url + "/client"},
	} {
		p := ts.create("content", withCert(certAlice, c[0], "X-Display-Name: name")...)
		for _, who := range [][2]string{{"", ""}, {"MALLORY", ""}, {"ALICE", "owner display_name"},
			{"X-Delete-Token: " + p.DeleteToken, ""}, {certLine, ""}} {
			a := ts.get("/"+p.ID, head(who[0])...).want(200, "")
			if a.members() != words("created_at expires_at id link mime_type raw size url", c[1], who[1]) ||
				a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Etag") != "" {
				t.Errorf("%s to %s: %s %v", c[1], who[0], a.body, a.Header)
			}
		}
		a := ts.get("/"+p.ID, "Accept: text/html,application/xhtml+xml,*/*;q=0.8", "User-Agent: Slackbot").want(200, "")
		for line := range strings.SplitSeq(strings.ReplaceAll(c[2], "LINK", ts.url+"/"+p.ID), "|") {
			if !strings.Contains(a.body, line) || a.Header.Get("Sunset") == "" {
				t.Errorf("%s: %q lacks %q", c[1], a.body, line)
			}
		}
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
		etag, date, n, raw := `"`+sum256(content)+`"`, httpDate(p.CreatedAt), strconv.Itoa(size), "/"+p.ID+"/raw"
		cases := map[string]string{ // Range, and a condition behind it: what of the content comes, else 200
			"bytes=0-0": content[:1], "Bytes=0-2": content[:3], "bytes=-1": content[size-1:],
			"bytes=" + strconv.Itoa(size-1) + "-": content[size-1:], "bytes=0-": content, "bytes=-99999999": content,
			"bytes=" + strconv.Itoa(size/2) + "-" + n: content[size/2:], "bytes=0-999999999999999999": content,
			"bytes=0-0\nIf-Range: " + etag: content[:1],
		}
		for _, ignored := range []string{"bytes=-0", "bytes=--1", "items=0-2", "", "bytes= 0-2",
			"bytes=0-9999999999999999999", "bytes=0-0,2-2", "bytes=" + strings.Repeat("0-,", 1000) + "0-",
			"bytes=0-0\nRange: bytes=1-1", "bytes=0-0\nIf-Range: W/" + etag} {
			cases[ignored] = ""
		}
		statuses := map[string]int{ // of other headers
			"Accept: */*": 200, "If-Match: *": 200, "If-Match: " + etag: 200, "If-Match: W/" + etag: 412,
			`If-Match: "0"`: 412, "If-None-Match: " + etag: 304, "If-None-Match: W/" + etag: 304,
			`If-None-Match: "a", ` + etag: 304, "If-None-Match: *": 304,
			"If-None-Match: \"a\"\nIf-Modified-Since: " + far: 200, "If-Modified-Since: " + date: 304,
			"If-Modified-Since: " + old: 200, "If-Modified-Since: yesterday": 200, "If-Unmodified-Since: " + old: 412,
			"If-Unmodified-Since: " + date: 200, "Range: bytes=" + n + "-": 416,
		}
		for v, part := range cases {
			if statuses["Range: "+v] = 206; part == "" {
				statuses["Range: "+v] = 200
			}
		}
		for headers, status := range statuses {
			for _, method := range []string{"GET", "GET", "HEAD"} { // the second may come from the cache
				status, body := status, ""
				if method == "HEAD" && (status == 206 || status == 416) {
					status = 200
				}
				if status < 300 {
					body = content
				}
				if status == 206 {
					body = cases[strings.TrimPrefix(headers, "Range: ")]
				}
				a := ts.do(method, raw, nil, strings.Split(headers, "\n")...)
				if a.StatusCode != status || method == "GET" && status < 300 && a.body != body || method == "HEAD" &&
					a.body != "" {
					t.Fatalf("%s %s, %d: %d, %d bytes", method, headers, size, a.StatusCode, len(a.body))
				}
				if h := a.Header; status < 412 && h.Get("Etag") != etag || status == 412 && h.Get("Etag") != "" ||
					status < 300 && (h.Get("Accept-Ranges") != "bytes" || h.Get("Last-Modified") != date ||
						h.Get("Content-Length") != strconv.Itoa(len(body))) {
					t.Errorf("%s %s: %v %.200s", method, headers, h, a.body)
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
	ts := start(t, fast...).certified()
	secret, pass := "secret content", "pässwörd with blanks:and colons"+strings.Repeat("p", 1024-33) // the longest
	basic := func(pw string) string {
		return "\nAuthorization: Basic " + base64.StdEncoding.EncodeToString([]byte("anybody:"+pw))
	}
	p := ts.create(secret, withCert(certAlice, "X-Paste-Password: "+pass, "X-Burn-After-Read: true", proofGiven)...)
	raw, proof, pw := "/"+p.ID+"/raw", "\nX-Read-Proof: "+readProof, "\nX-Paste-Password: "+pass
	for _, c := range [][2]string{
		{"", "read_proof_required"}, {pw, "read_proof_required"}, {"ALICE" + pw, "read_proof_required"},
		{"ADMIN" + pw, "read_proof_required"}, {"X-Delete-Token: " + p.DeleteToken + pw, "read_proof_required"},
		{"X-Read-Proof: " + proofGiven[len(proofGiven)-64:] + pw, "read_proof_required"},
		{proof + proof + pw, "read_proof_required"}, {proof, "password_required"},
		{proof + "\nAuthorization: Bearer " + pass, "password_required"}, {"ALICE" + proof, "password_required"},
		{"ADMIN" + proof, "password_required"}, {proof + pw + "x", "password_wrong"},
		{proof + basic("x"), "password_wrong"}, {proof + pw + "\nPurpose: prefetch", "preview_refused"},
	} {
		status, asks := 403, ""
		if c[1] == "password_required" {
			status, asks = 401, `Basic realm="paste", charset="UTF-8"`
		}
		for _, method := range []string{"GET", "HEAD"} {
			a := ts.do(method, raw, nil, head(c[0])...)
			if a.StatusCode != status || method == "GET" && a.field("code") != c[1] ||
				strings.Contains(a.body, secret) || a.Header.Get("WWW-Authenticate") != asks {
				t.Errorf("%s %.90q: %d %s %v", method, c[0], a.StatusCode, a.body, a.Header)
			}
		}
	}
	ts.get(raw, head(proof)...).says("curl -u :PASSWORD " + ts.url + raw)
	ts.get(raw).says("fpaste get 'LINK', with the part behind #")
	h := head("Range: bytes=0-0\nIf-None-Match: *\nIf-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\nX-Read-Proof: " +
		strings.ToUpper(readProof) + basic(pass))
	for _, method := range []string{"HEAD", "GET"} {
		a := ts.do(method, raw, nil, h...).want(200, "")
		if h := a.Header; method == "GET" && a.body != secret || h.Get("Content-Length") != strconv.Itoa(len(secret)) ||
			h.Get("Content-Type") != isText || h.Get("Cache-Control") != "no-store" ||
			h.Get("Etag")+h.Get("Last-Modified")+h.Get("Accept-Ranges")+h.Get("Content-Range") != "" {
			t.Errorf("%s: %q, %v", method, a.body, h)
		}
	}
	ts.get(raw, h...).want(404, "not_found")
	ts.nothing()
	for _, word := range []string{pass, readProof, secret, p.ID} {
		if strings.Contains(ts.logs.String(), word) {
			t.Errorf("%q is in the log", word)
		}
	}
}

// TestBurn: of many readers at once exactly one sees the content, all others see what anybody sees who guesses an id;
// and nothing of it is left.
func TestBurn(t *testing.T) {
	ts := start(t, append([]string{"MAX_DOWNLOADS=4096"}, fast...)...)
	for _, size := range []int{100, 3*chunkSize + 5} {
		content := pattern(size)
		p := ts.create(content, "X-Burn-After-Read: true")
		raw, token := "/"+p.ID+"/raw", "X-Delete-Token: "+p.DeleteToken
		a := ts.do("HEAD", raw, nil).want(200, "") // does not burn, nor does
		if a.Header.Get("Content-Length") != strconv.Itoa(size) || a.Header.Get("Content-Type") != isText {
			t.Errorf("HEAD: %v", a.Header)
		}
		ts.get(p.URL).want(200, "")
		missing := ts.get("/0123456789abcdef/raw", "X-Request-ID: r").want(404, "").body
		if got := together(20, func(int) *answer {
			a := ts.get(raw, "X-Request-ID: r")
			if a.StatusCode == 200 && a.body != content || a.StatusCode == 404 && a.body != missing {
				t.Errorf("%d %.200q", a.StatusCode, a.body)
			}
			return a
		}); got[200] != 1 || got[404] != 19 {
			t.Errorf("20 at once: %v", got)
		}
		for _, request := range []string{"GET /", "HEAD /", "DELETE /", "PUT /"} {
			ts.send(request+p.ID, strings.NewReader("x"), token).want(404, "")
		}
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
	refused := []string{
		"Sec-Purpose: PREFETCH", "Sec-Purpose: x;prerender", "Purpose: other\nPurpose: prefetch", "X-Purpose: preview",
		"X-Moz: prefetch", "Sec-Fetch-Site: cross-site\nSec-Fetch-Mode: no-cors", "Sec-Fetch-Site: cross-site",
	}
	for _, agent := range []string{
		"Googlebot/2.1", "SomeCrawler", "a spider", "Link Preview Service", "facebookexternalhit/1.1", "WhatsApp/2.23",
		"Slack-ImgProxy", "Mozilla/5.0 (compatible; Discordbot/2.0)", "SkypeUriPreview", "Embedly/0.2", "urlscan.io",
		"http.rb/5 (Mastodon/4)", "Iframely/1.3", "Rocket.Chat/6", "Misskey/13", "Lemmy/0.19", "Viber/2",
		"Microsoft ms-office; MSOffice 16",
	} {
		refused = append(refused, "User-Agent: "+agent)
	}
	for _, h := range refused {
		ts.do("HEAD", "/"+burning.ID+"/raw", nil, head(h)...).want(403, "")
		ts.get("/"+burning.ID+"/raw", head(h)...).want(403, "preview_refused")
		ts.get("/"+open.ID+"/raw", head(h)...).want(200, "")
	}
	ts.stored(2)
	for _, h := range []string{
		"Sec-Fetch-Site: cross-site\nSec-Fetch-Mode: navigate\nUser-Agent: Mozilla/5.0 (X11) Firefox/130.0",
		"Sec-Fetch-Site: none\nSec-Fetch-Mode: navigate", "Sec-Fetch-Site: same-origin\nSec-Fetch-Mode: cors",
		"User-Agent: curl/8.5.0", "Purpose: reading",
	} {
		ts.get("/"+ts.create("burning", "X-Burn-After-Read: true").ID+"/raw", head(h)...).want(200, "")
	}
}

// TestRenewal: each 200 or 206 to a GET of the content moves the deadline, by a hundredth of the life at least and
// never past MAX_EXPIRY; nothing else does, and a fixed one stays.
func TestRenewal(t *testing.T) {
	for _, cache := range []string{"CACHE=0", "CACHE=1MiB"} {
		t.Run(cache, func(t *testing.T) {
			ts := start(t, append([]string{"EXPIRY_ANON=10h", "MAX_EXPIRY=30h", cache}, fast...)...)
			ts.clock.hold()
			p, fixed, closed := ts.create("floating"), ts.create("fixed", "X-Expiry: 10h"),
				ts.create("closed", proofGiven)
			born := p.CreatedAt
			for _, c := range []struct {
				request, header string
				status          int
				after, want     int64 // seconds since the creation: of the request, of the deadline behind it
			}{
				{"GET /" + p.ID, "Accept: */*", 200, 7200, 36000},
				{"HEAD /" + p.ID + "/raw", "Accept: */*", 200, 7200, 36000},
				{"GET /" + p.ID + "/raw", "If-None-Match: *", 304, 7200, 36000},
				{"GET /" + p.ID + "/raw", "Range: bytes=100-", 416, 7200, 36000},
				{"GET /" + p.ID + "/raw", "Accept: */*", 200, 7200, 43200},
				{"GET /" + fixed.ID + "/raw", "Accept: */*", 200, 7200, 43200},
				{"GET /" + closed.ID + "/raw", "Accept: */*", 403, 7200, 43200},
				{"GET /" + p.ID + "/raw", "Accept: */*", 200, 7559, 43200}, // less than a hundredth of the life
				{"GET /" + p.ID + "/raw", "Accept: */*", 200, 7560, 43560},
				{"GET /" + p.ID + "/raw/name", "Accept: */*", 200, 8000, 44000},
				{"GET /" + p.ID + "/raw", "Range: bytes=0-1", 206, 43000, 79000},
				{"GET /" + fixed.ID + "/raw", "Accept: */*", 404, 43000, 79000},
				{"GET /" + closed.ID + "/raw", "X-Read-Proof: " + readProof, 404, 43000, 79000},
				{"GET /" + p.ID + "/raw", "Accept: */*", 200, 78999, 108000}, // MAX_EXPIRY
				{"GET /" + p.ID + "/raw", "Accept: */*", 200, 107999, 108000},
			} {
				ts.clock.advance(time.Duration(born+c.after-ts.clock.now().Unix()) * time.Second)
				ts.send(c.request, nil, c.header).want(c.status, "")
				ts.write("UPDATE garbage SET due = due") // behind the renewal
				shown := ts.get("/"+p.ID).want(200, "").number("expires_at") - born
				file := ts.number("SELECT expires_at FROM pastes WHERE id = ?", p.ID) - born
				if shown != c.want || file != shown {
					t.Errorf("%s after %d s: deadline %d, in the file %d", c.request, c.after, shown, file)
				}
			}
			ts.clock.advance(time.Second)
			ts.get("/"+p.ID+"/raw").want(404, "not_found")
		})
	}
	// A download that takes longer than the rest of the life: renewed when it was answered, so nobody sweeps it away.
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
func (ts *testServer) halfway(id string, headers ...string) (rest func() string) {
	ts.t.Helper()
	c := ts.dial()
	c.(*net.TCPConn).SetReadBuffer(64 << 10)
	h := strings.Join(append(headers, "Connection: close"), "\r\n")
	fmt.Fprintf(c, "GET /%s/raw HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", id, h)
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != 200 {
		ts.t.Fatalf("%v %v", res, err)
	}
	return func() string { b, _ := io.ReadAll(res.Body); return string(b) }
}

// ---- changing ----

// TestChangeRefused: every status of PUT P/<id> in its order, of DELETE too, and what a refusal leaves as it was.
func TestChangeRefused(t *testing.T) {
	ts := start(t, append([]string{"MAX_ANON=10KiB", "MIN_SIZE=2"}, fast...)...).certified()
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
		{p.ID, "new", "MALLORY\nX-Delete-Token: " + strings.Repeat("A", 43), 403, "not_owner",
			"delete token is wrong"},
		{p.ID, "new", token + "\n" + token, 403, "not_owner", "token"},
		{p.ID, "new", "MALLORY", 403, "not_owner", "your certificate"},
		{p.ID, "new", "TRUSTED\nX-Is-Admin: 1\nX-Tier: admin", 403, "not_owner", ""},
		{burning.ID, "new", "ALICE\nX-Expiry: nonsense", 409, "burning", "delete it"},
		{p.ID, "", token, 400, "bad_option", "X-Expiry: 7d"},
		{p.ID, "new", token + "\nX-Expiry: nonsense", 400, "bad_expiry", "nonsense"},
		{p.ID, "", token + "\nX-Display-Name: n", 400, "bad_display_name", ""},
		{p.ID, pattern(10<<10 + 1), token, 413, "too_large", ""}, {p.ID, "x", token, 400, "too_small", ""},
		{p.ID, "456", token + "\nContent-Range: bytes 4-6/7", 400, "partial_content", "-C"},
		{p.ID, "new", token + "\nIf-Match: \"0\"", 412, "precondition_failed", "ETag"},
		{p.ID, "new", token + "\nIf-Match: W/" + etag, 412, "precondition_failed", ""},
		{p.ID, "new", token + "\nIf-None-Match: \"0\", W/" + etag, 412, "precondition_failed", ""},
		{p.ID, "new", token + "\nIf-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT", 412, "precondition_failed", ""},
		{p.ID, "", token + "\nX-Expiry: 1h\nIf-Match: \"0\"", 412, "precondition_failed", ""},
		{closed.ID, "new", "ALICE\nIf-Match: \"" + sum256("closed") + `"`, 412, "precondition_failed", "none"},
	} {
		for _, body := range both(c.body) {
			ts.do("PUT", "/"+c.id, body, head(c.headers)...).want(c.status, c.code).says(c.says)
		}
		if slices.Contains([]int{401, 403, 404, 412}, c.status) {
			ts.do("DELETE", "/"+c.id, nil, head(c.headers)...).want(c.status, c.code)
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
	ts := start(t, fast...).certified()
	ts.clock.hold()
	p := ts.create("first", withCert(certAlice, "X-Display-Name: name", "Content-Type: application/yaml")...)
	token, born, tag := "X-Delete-Token: "+p.DeleteToken, p.CreatedAt, p.SHA256
	ts.clock.advance(time.Hour)
	for i, c := range [][3]string{ // content, headers (TAG is the present one), and the body if that is another
		{"second", token, ""}, {pattern(3*chunkSize + 1), "ALICE", ""}, {pattern(5), "ADMIN", ""},
		{pattern(2 * chunkSize), token + "\nIf-Match: \"0\", TAG", ""},
		{"by JSON", token + "\nIf-Match: *\n" + isJSON, `{"content":"by JSON"}`},
		{"by form", token + "\nIf-None-Match: \"0\"\n" + isForm, form(file("x", "by form"))},
		{"no date", token + "\nIf-Unmodified-Since: soon", ""},
		{"the date does not count", token + "\nIf-Match: TAG\nIf-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT", ""},
	} {
		h := head(strings.Replace(c[1], "TAG", `"`+tag+`"`, 1))
		a := ts.do("PUT", "/"+p.ID, both(cmp.Or(c[2], c[0]))[i%2], h...).want(200, "")
		tag = sum256(c[0])
		if a.field("sha256") != tag || a.number("size") != int64(len(c[0])) || a.field("mime_type") != isText ||
			a.field("id") != p.ID || a.number("created_at") != born || a.number("expires_at") != p.ExpiresAt ||
			a.field("delete_token") != "" || (a.field("display_name") == "name") != (i == 1 || i == 2) {
			t.Errorf("change %d: %s", i, a.body)
		}
		b := ts.get("/"+p.ID+"/raw").want(200, "")
		if b.body != c[0] || b.Header.Get("Etag") != `"`+tag+`"` ||
			b.Header.Get("Last-Modified") != httpDate(born+3600) {
			t.Errorf("change %d: read %d bytes, %v", i, len(b.body), b.Header)
		}
	}
	ts.stored(1)
	for _, c := range []struct {
		header, member, value string
		read                  int // status of /raw afterwards
	}{
		{"X-Display-Name: me", "display_name", "me", 200}, {"X-Display-Name: ", "display_name", "", 200},
		{"X-Expiry: 1h", "expires_at", strconv.FormatInt(born+7200, 10), 200},
		{"X-Expiry: ", "expires_at", strconv.FormatInt(born+3600+7*86400, 10), 200},
		{"X-Paste-Password: pw", "password_protected", "true", 401},
		{"X-Paste-Password: ", "password_protected", "", 200}, {"X-Paste-Password: ", "sha256", tag, 200},
		{proofGiven, "read_proof", "true", 403}, {"X-Expiry: 9d", "sha256", "", 403},
		{"X-Burn-After-Read: true", "burn_after_read", "true", 403},
	} {
		a := ts.do("PUT", "/"+p.ID, nil, withCert(certAlice, c.header)...).want(200, "")
		if a.field(c.member) != c.value {
			t.Errorf("%s: %s", c.header, a.body)
		}
		ts.get("/"+p.ID+"/raw").want(c.read, "") // what is in the cache too
	}
	// Whoever may change a paste may take a name off it; a body without a content is no change.
	p = ts.create("content", withCert(certAlice, "X-Display-Name: me")...)
	ts.do("PUT", "/"+p.ID, nil, "X-Delete-Token: "+p.DeleteToken, "X-Display-Name: ").want(200, "")
	alone := strings.NewReader(form(field("expiry", "2h")))
	ts.do("PUT", "/"+p.ID, alone, withCert(certAlice, isForm)...).want(400, "empty_content")
	if a := ts.get("/"+p.ID, withCert(certAlice)...); a.field("display_name") != "" || a.field("size") != "7" {
		t.Errorf("%s", a.body)
	}
}

// TestChangeInTime: what happens while a body comes: lives that end, others' changes, and the longest life of all.
func TestChangeInTime(t *testing.T) {
	dir := t.TempDir()
	ts := startIn(t, dir, "EXPIRY_ANON=10h", "MAX_EXPIRY=20h")
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
		{"PUT /ID", "X-Expiry: 2", "new", 2 * time.Second, 400, "bad_expiry"},
		{"PUT /ID", "X-Expiry: 2", "new", time.Second, 200, ""},
		{"PUT /ID", "X-Expiry: 10h", "new", 10 * time.Hour, 404, "not_found"}, // no change brings it back
		{"PUT /ID", "Accept: */*", "new", 10 * time.Hour, 404, "not_found"},
	} {
		p := ts.create("old")
		request := strings.Replace(c.request, "ID", p.ID, 1)
		finish := ts.slowly(request, c.content, c.options, "X-Delete-Token: "+p.DeleteToken)
		ts.clock.advance(c.after)
		finish().want(c.status, c.code)
		if c.code == "bad_expiry" && ts.get(p.Raw).body != "old" {
			t.Error("a refused change left something")
		}
	}
	p := ts.create("x", "X-Expiry: 7d") // a deadline that is set while a content comes is not undone by it
	token := "X-Delete-Token: " + p.DeleteToken
	lives := func(a *answer, seconds int64) {
		t.Helper()
		if a.want(200, ""); a.number("expires_at") != p.CreatedAt+seconds {
			t.Errorf("lives %d s, not %d", a.number("expires_at")-p.CreatedAt, seconds)
		}
	}
	finish := ts.slowly("PUT /"+p.ID, "new", token)
	ts.do("PUT", "/"+p.ID, nil, token, "X-Expiry: 1h").want(200, "")
	lives(finish(), 3600)
	ts.clock.advance(30 * time.Minute) // neither a change nor a removed expiry goes past MAX_EXPIRY
	lives(ts.do("PUT", "/"+p.ID, nil, token, "X-Expiry: 20h"), 20*3600)
	lives(ts.do("PUT", "/"+p.ID, nil, token, "X-Expiry: "), 10*3600+1800)
	// The operator lowers MAX_EXPIRY below the age of a paste: it stays as it is, for as long as it was promised.
	ts.stop()
	ts = startAt(t, dir, time.Until(ts.clock.now())+time.Hour, "EXPIRY_ANON=1h", "MAX_EXPIRY=1h")
	ts.do("PUT", "/"+p.ID, nil, token, "X-Expiry: 10m").want(400, "bad_expiry")
	lives(ts.do("PUT", "/"+p.ID, strings.NewReader("newer"), token), 10*3600+1800)
}

// TestParallelChanges: of twelve at once each is whole, none is refused, and who reads meanwhile never sees a mixture.
func TestParallelChanges(t *testing.T) {
	ts := start(t, append([]string{"MAX_UPLOADS=512", "MAX_DOWNLOADS=4096"}, fast...)...)
	content := func(i int) string {
		return strings.Repeat(string(rune('a'+i)), []int{500, chunkSize + 100, 2*chunkSize + 3}[i%3])
	}
	known := map[string]bool{}
	for i := range 12 {
		known[content(i)] = true
	}
	p := ts.create(content(0))
	together(12, func(i int) *answer {
		a := ts.do("PUT", "/"+p.ID, strings.NewReader(content(i)), "X-Delete-Token: "+p.DeleteToken)
		if a.StatusCode != 200 || a.field("sha256") != sum256(content(i)) {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
		for range 5 { // while others change it; who is interrupted sees an error
			b, err := ts.try("GET", "/"+p.ID+"/raw", nil)
			if err == nil && (b.StatusCode != 200 || !known[b.body] ||
				b.Header.Get("Etag") != `"`+sum256(b.body)+`"`) {
				t.Errorf("status %d, %d bytes that nobody wrote", b.StatusCode, len(b.body))
			}
		}
		return a
	})
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

// TestDelete: the three who may; it is gone at once from cache and disk; of many at once one does it.
func TestDelete(t *testing.T) {
	ts := start(t, fast...).certified()
	for _, who := range []string{"ALICE", "X-Delete-Token: TOKEN", "MALLORY\nX-Delete-Token: TOKEN", "ADMIN"} {
		p := ts.create(pattern(3*chunkSize), withCert(certAlice)...)
		ts.get(p.Raw).want(200, "") // now in the cache
		a := ts.do("DELETE", p.URL, nil, head(strings.Replace(who, "TOKEN", p.DeleteToken, 1))...).want(200, "")
		if a.body != `{"id":"`+p.ID+`","deleted":true}`+"\n" {
			t.Errorf("%s", a.body)
		}
		ts.get(p.Raw).want(404, "not_found")
	}
	// Deleting needs neither password nor proof, and what burns can be deleted unread.
	p := ts.create("x", "X-Burn-After-Read: true", proofGiven, "X-Paste-Password: pw")
	if got := together(20, func(int) *answer {
		return ts.do("DELETE", "/"+p.ID, nil, "X-Delete-Token: "+p.DeleteToken)
	}); got[200] != 1 || got[404] != 19 {
		t.Errorf("20 at once: %v", got)
	}
	ts.nothing()
}

// ---- lists ----

// page is an answer of GET /pastes or GET /s.
type page struct {
	Pastes []created     `json:"pastes"`
	URLs   []shortAnswer `json:"urls"`
	Count  int           `json:"count"`
	Next   *string       `json:"next_cursor"`
}

// page reads one, and returns the first words of its pastes' names, the paths of its targets.
func (ts *testServer) page(path string, headers ...string) (p page, names string) {
	ts.t.Helper()
	a := ts.get(path, headers...).want(200, "")
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || p.Count != len(p.Pastes)+len(p.URLs) ||
		p.Pastes == nil && p.URLs == nil || strings.Contains(a.body, "delete_token") {
		ts.t.Fatalf("list %s: %v: %s", path, err, a.body)
	}
	for _, e := range p.Pastes {
		first, _, _ := strings.Cut(e.DisplayName, " ")
		names += first
	}
	for _, u := range p.URLs {
		names += strings.TrimPrefix(u.TargetURL, "https://example.org/")
	}
	return p, names
}

// TestList: the caller's own, latest content first, page by page, with every filter; nobody else's, but for admins.
func TestList(t *testing.T) {
	ts := start(t, fast...).certified()
	ts.clock.hold()
	ts.get("/pastes").want(401, "authentication_required")
	ts.create("anonymous")
	ts.create("mallory's", withCert(certMallory, "X-Display-Name: M")...)
	ts.short("https://example.org/", withCert(certAlice)...)
	made := map[string]created{}
	more := map[string]string{"b": "Content-Type: image/gif", "c": "X-Burn-After-Read: true",
		"d": "Content-Type: image/png"}
	for i, name := range strings.Split("abcdefghij", "") { // a minute apart, but for some pairs
		h := withCert(certAlice, "X-Display-Name: "+name+` Größe 100%_\ "q"`, cmp.Or(more[name], "Accept: */*"))
		if made[name] = ts.create(name, h...); i%3 != 1 {
			ts.clock.advance(time.Minute)
		}
	}
	ts.create("expires", withCert(certAlice, "X-Expiry: 1")...)
	ts.clock.advance(2 * time.Second)
	ts.do("PUT", "/"+made["a"].ID, strings.NewReader("new"), withCert(certAlice)...).want(200, "") // the latest now
	ts.do("PUT", "/"+made["e"].ID, nil, withCert(certAlice, "X-Expiry: 1h")...).want(200, "")      // where it was
	const all = "ajihgfedcb"
	one, _ := ts.page("/pastes", withCert(certAlice)...)
	for _, e := range one.Pastes {
		if e.Owner != certAlice || (e.SHA256 == "") != e.Burn || e.CreatedAt != made[e.DisplayName[:1]].CreatedAt ||
			e.Link == "" {
			t.Errorf("entry %+v", e)
		}
	}
	for _, limit := range []int{1, 3, 9, 10, 100000} {
		got, next := "", new(string)
		for next != nil {
			p, names := ts.page(fmt.Sprint("/pastes?limit=", limit, "&cursor=", *next), withCert(certAlice)...)
			if got, next = got+names, p.Next; p.Count > limit || len(got) > len(all) {
				break
			}
		}
		if got != all {
			t.Errorf("limit %d: %s", limit, got)
		}
	}
	at, q := func(name string) string { return strconv.FormatInt(made[name].CreatedAt, 10) }, url.QueryEscape
	middle := time.Unix(made["e"].CreatedAt, 0)
	for query, want := range map[string]string{
		"": all, "?q=" + q("C gr"): "c", "?q=" + q(`100%_\ "q"`): all, "?q=" + q("e 1_"): "", "?q=": all,
		"?q=" + q("' OR 1=1 --"): "", "?q=" + made["h"].ID[2:12]: "h", "?q=" + strings.ToUpper(made["h"].ID): "h",
		"?type=IMAGE/PNG": "d", "?type=image/*": "db", "?type=text/plain": "ajihgfec", "?type=video/*": "",
		"?after=" + at("d") + "&before=" + at("g"): "fe", "?after=0": all, "?before=" + at("a"): "",
		"?after=" + q(middle.UTC().Format(time.RFC3339)): "jihg", "?q=b+&type=image/*": "b", "?cursor=": all,
		"?before=" + q(middle.In(time.FixedZone("x", 7200)).Format(time.RFC3339)): "adcb",
	} {
		if p, names := ts.page("/pastes"+query, withCert(certAlice)...); names != want || p.Next != nil {
			t.Errorf("%s: %s, want %s", query, names, want)
		}
	}
	bad := []string{
		"?limit=0", "?limit=x", "?limit=1&limit=2", "?limit=99999999999999999999", "?cursor=x", "?cursor=-1",
		"?type=image", "?type=*/*", "?type=image/*x", "?after=-1", "?before=2026-01-01", "?before=", "?q=%ff",
		"?q=" + strings.Repeat("x", 5000), "?other=1", "?Limit=1", "?%zz", "?a;b",
	}
	for _, query := range bad {
		ts.get("/pastes"+query, withCert(certAlice)...).want(400, "bad_option")
	}
	for _, owner := range []string{"all", "anonymous", certAlice, ""} {
		ts.get("/pastes?owner="+owner, withCert(certAlice)...).want(403, "not_admin").says("owner=")
	}
	next, _ := ts.page("/pastes?limit=5", withCert(certAlice)...) // a cursor is a place, no right
	for query, c := range map[string][2]string{
		"?cursor=" + *next.Next: {certMallory, "M"}, "?owner=all": {certOfAdmin, all + "M"}, "": {certOfAdmin, ""},
		"?owner=all&limit=3": {certOfAdmin, "aji"}, "?owner=anonymous": {certOfAdmin, ""},
		"?owner=" + certMallory: {certOfAdmin, "M"}, "?owner=" + sum256("nobody"): {certOfAdmin, ""},
	} {
		p, names := ts.page("/pastes"+query, withCert(c[0])...)
		if names != c[1] || query == "?owner=anonymous" && p.Count != 1 {
			t.Errorf("%s for %.4s: %q, %d", query, c[0], names, p.Count)
		}
	}
	for _, owner := range []string{"", "ALL", strings.ToUpper(certAlice), certAlice[1:]} {
		ts.get("/pastes?owner="+owner, withCert(certOfAdmin)...).want(400, "bad_option")
	}
}

// TestListBound: a request looks at 10,000 rows; a page may be short, or empty, and still have a cursor.
func TestListBound(t *testing.T) {
	ts := start(t, fast...)
	ts.create("x", withCert(certAlice, "X-Display-Name: wanted")...)
	ts.write(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20100) INSERT INTO pastes
		SELECT content + i, printf('%016x', i), size, mime, sha256, created_at, modified_at, expires_at, life, owner,
		burn, password, proof, token, iif(i = 5000, 'wanted', 'other') FROM pastes, n WHERE name = 'wanted'`)
	for query, found := range map[string][]int{"?q=wanted": {0, 1, 1}, "?type=image/*": {0, 0, 0}} { // on each page
		cursor := ""
		for i, want := range found {
			page, _ := ts.page("/pastes"+query+cursor, withCert(certAlice)...)
			if page.Count != want || (page.Next == nil) != (i == 2) {
				t.Fatalf("%s, page %d: %d found, next %v", query, i, page.Count, page.Next)
			}
			if page.Next != nil {
				cursor = "&cursor=" + *page.Next
			}
		}
	}
	if page, _ := ts.page("/pastes?limit=200", withCert(certAlice)...); page.Count != 200 || page.Next == nil {
		t.Errorf("%d without a filter", page.Count)
	}
}

// TestNotFound: whatever the reason, it is the same 404; an id is looked up as it is written, or not at all.
func TestNotFound(t *testing.T) {
	ts := start(t, fast...)
	ts.clock.hold()
	expired, burned, deleted := ts.create("x", "X-Expiry: 60"), ts.create("x", "X-Burn-After-Read: 1"), ts.create("x")
	ts.get("/"+expired.ID+"/raw").want(200, "") // now in the cache
	ts.get("/"+burned.ID+"/raw").want(200, "")
	ts.do("DELETE", "/"+deleted.ID, nil, "X-Delete-Token: "+deleted.DeleteToken).want(200, "")
	ended := ts.short("https://example.org/", "X-Expiry: 60")
	ts.leadsTo(ended.ID, ended.TargetURL)
	ts.clock.advance(time.Minute)
	id := "abcdef01" // 8 digits are enough for a lookup
	ts.write("UPDATE pastes SET id = ? WHERE id = ?", id, ts.create("x").ID)
	ts.get("/"+id+"/raw").want(200, "")
	short := ts.short("https://example.org/").ID
	dated := regexp.MustCompile("Date: [^\r]*\r\n")
	wire := func(path string) string {
		c := ts.dial()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nX-Request-ID: r\r\nConnection: close\r\n\r\n", path)
		b, _ := io.ReadAll(c)
		return dated.ReplaceAllString(string(b), "")
	}
	missing, said := wire("/0123456789abcdef"), `{"error":"not found","code":"not_found","request_id":"r"}`+"\n"
	if !strings.HasPrefix(missing, "HTTP/1.1 404 ") || !strings.HasSuffix(missing, said) {
		t.Errorf("%s", missing)
	}
	paths := []string{
		"/no/such/route/at/all", "/metrics", "/" + id + "/", "/" + id + "/RAW", "/" + id + "/info",
		"/" + id + "/raw/x/y", "//" + id, "/./" + id, "/x/../" + id, "/" + id + "//raw", "/*", "/s/", "/s/AAAAAAAA",
		"/s/" + id, "/s/" + ended.ID, "/s/" + ended.ID + "/info", "/s/" + short[:7], "/s/" + short + "/",
		"/s/" + short + "/raw", "/s/" + short + "/info/x", "/s/" + short + "%00", "/s/../s%2f" + short + "/raw",
	}
	for _, odd := range []string{
		strings.ToUpper(id), id[:7], id + "0", id + "%20", id + "%00", id[:4] + "%2f" + id[4:], "..%2f" + id,
		id + "%0d%0aX-Evil:%201", "%ef%bc%90" + id, strings.Repeat("a", 5000), "%25", "'%20OR%201=1--", id + ".txt",
		"%ff", "s%2f" + short, expired.ID, burned.ID, deleted.ID,
	} {
		paths = append(paths, "/"+odd, "/"+odd+"/raw", "/"+odd+"/raw/name")
	}
	for _, path := range paths {
		if got := wire(path); got != missing {
			t.Errorf("%.60q: %s", path, got)
		}
	}
	ts.do("PUT", "/"+deleted.ID, strings.NewReader("y")).want(404, "not_found").says("shape of an id")
}
