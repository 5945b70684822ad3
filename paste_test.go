package main

// Pastes on the wire (api.md sections 3, 4, 5 and 8), over a real listener and the real store: each form of a creation, each
// option and bad value, MIME types, reading, burning, changing, deleting, listing; and what must not have happened.

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
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
	return part{`Content-Disposition: form-data; name="file"; filename="` + name + `"` + "\r\nContent-Type: application/octet-stream", content}
}

const formType = "Content-Type: multipart/form-data; boundary=b0undary"

func form(parts ...part) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("--b0undary\r\n" + p.head + "\r\n\r\n" + p.content + "\r\n")
	}
	return b.String() + "--b0undary--\r\n"
}

// content reads back what a creation's answer names, JSON or the one line.
func (a *answer) content(ts *testServer) string {
	ts.t.Helper()
	id := strings.TrimPrefix(a.Header.Get("Location"), ts.cfg.prefix+"/")
	return ts.get("/"+id+"/raw").want(200, "").body
}

// TestCreateForms posts the same content in every form and reads it back byte for byte.
func TestCreateForms(t *testing.T) {
	ts := start(t)
	const text = "line\r\nand\x00\xff bytes\n"
	quoted, _ := json.Marshal("line\r\nand \x00 + ü\n")
	for _, c := range []struct {
		name, method, path string
		body               string
		headers            []string
		content            string
		line               bool // answered by one line
	}{
		{"raw", "POST", "/", text, nil, text, false},
		{"raw with a type", "POST", "/", text, []string{"Content-Type: text/plain"}, text, false},
		{"curl --data-binary", "POST", "/", text, []string{"Content-Type: application/x-www-form-urlencoded"}, text, false},
		{"a form is no form", "POST", "/", "a=1&expiry=5", []string{"Content-Type: application/x-www-form-urlencoded"}, "a=1&expiry=5", false},
		{"a damaged type", "POST", "/", text, []string{"Content-Type: ///;;=\""}, text, false},
		{"raw, text wanted", "POST", "/", text, []string{"Accept: text/plain"}, text, true},
		{"PUT", "PUT", "/", text, nil, text, true},
		{"PUT, as curl accepts", "PUT", "/", text, []string{"Accept: */*"}, text, true},
		{"PUT, JSON wanted", "PUT", "/", text, []string{"Accept: application/json"}, text, false},
		{"PUT a name", "PUT", "/some%20name.txt", text, nil, text, true},
		{"PUT a name with a slash in it", "PUT", "/a%2fb", text, nil, text, true},
		{"PUT a short hex name", "PUT", "/abcdef0", text, nil, text, true},
		{"PUT an upper-case name", "PUT", "/ABCDEF0123456789", text, nil, text, true},
		{"PUT a route's name", "PUT", "/pastes", text, nil, text, true},
		{"JSON", "POST", "/", `{"content": ` + string(quoted) + `}`, []string{"Content-Type: application/json"}, "line\r\nand \x00 + ü\n", false},
		{"JSON with a charset", "POST", "/", ` {"content":"x"} `, []string{"Content-Type: Application/JSON; charset=utf-8"}, "x", false},
		{"JSON by PUT", "PUT", "/", `{"content":"x"}`, []string{"Content-Type: application/json"}, "x", true},
		{"JSON with pairs of surrogates", "POST", "/", `{"content":"\ud83d\ude00\\ud800 \u0041"}`, []string{"Content-Type: application/json"}, "😀\\ud800 A", false},
		{"multipart", "POST", "/", form(file("x.bin", text)), []string{formType}, text, true},
		{"multipart by PUT", "PUT", "/x", form(file("x.bin", text)), []string{formType}, text, true},
		{"multipart, JSON wanted", "POST", "/", form(file("x.bin", text)), []string{formType, "Accept: application/json"}, text, false},
		{"multipart, f:1=<-", "POST", "/", form(field("f:1", text)), []string{formType}, text, true},
		{"multipart without a name", "POST", "/", form(part{"X-Nothing: 1", text}), []string{formType}, text, true},
		{"multipart without part headers", "POST", "/", "--b0undary\r\n\r\n" + text + "\r\n--b0undary--\r\n", []string{formType}, text, true},
		{"multipart, quoted boundary", "POST", "/", form(file("x", text)), []string{`Content-Type: multipart/form-data; boundary="b0undary"`}, text, true},
		{"multipart, option before", "POST", "/", form(field("expiry", "60"), file("x", text)), []string{formType}, text, true},
		{"multipart, option after", "POST", "/", form(file("x", text), field("expiry", "60")), []string{formType}, text, true},
		{"multipart, 16 parts", "POST", "/", form(append(slices.Repeat([]part{field("expiry", "60")}, 15), file("x", text))...), []string{formType}, text, true},
		{"multipart, quoted-printable is content", "POST", "/", form(part{file("x", "").head + "\r\nContent-Transfer-Encoding: quoted-printable", "=41"}), []string{formType}, "=41", true},
		{"multipart, preamble and epilogue", "POST", "/", "preamble\r\n" + form(file("x", text)) + "epilogue", []string{formType}, text, true},
		{"multipart, hostile file name", "POST", "/", form(file(`../../etc/passwd\0`+"%0d%0aSet-Cookie: a=b", text)), []string{formType}, text, true},
		{"multipart, content holds half a boundary", "POST", "/", form(file("x", "a\r\n--b0undar\r\n--b0undar!y")), []string{formType}, "a\r\n--b0undar\r\n--b0undar!y", true},
	} {
		for _, known := range []bool{true, false} {
			t.Run(c.name+map[bool]string{true: ", length known", false: ", chunked"}[known], func(t *testing.T) {
				ts := ts.in(t)
				var body io.Reader = strings.NewReader(c.body)
				if !known {
					body = chunked{body}
				}
				a := ts.do(c.method, c.path, body, c.headers...).want(201, "")
				id, ok := strings.CutPrefix(a.Header.Get("Location"), "/")
				if !ok || len(id) != 16 || !idShaped(id) {
					t.Fatalf("Location %q", a.Header.Get("Location"))
				}
				if len(a.Header.Get("X-Delete-Token")) != 43 {
					t.Errorf("X-Delete-Token %q", a.Header.Get("X-Delete-Token"))
				}
				if a.Header.Get("Set-Cookie") != "" {
					t.Error("a file name became a header")
				}
				if line := ts.url + "/" + id + "/raw\n"; c.line && (a.body != line || a.Header.Get("Content-Type") != "text/plain; charset=utf-8") {
					t.Errorf("answer %q (%s), want %q", a.body, a.Header.Get("Content-Type"), line)
				}
				if !c.line && (a.field("id") != id || a.field("url") != "/"+id || a.field("raw") != "/"+id+"/raw" || a.field("sha256") != sum256(c.content) ||
					a.field("size") != strconv.Itoa(len(c.content)) || a.field("delete_token") != a.Header.Get("X-Delete-Token")) {
					t.Errorf("answer %s", a.body)
				}
				if got := a.content(ts); got != c.content {
					t.Errorf("content %q, want %q", got, c.content)
				}
			})
		}
	}
}

// TestCreateAnswer is the 201 to the letter: members, their order, and what is absent where it does not apply.
func TestCreateAnswer(t *testing.T) {
	ts := start(t, proxied...)
	proof := sha256.Sum256(bytes.Repeat([]byte{7}, 32))
	order := func(body string) string {
		var names []string
		dec := json.NewDecoder(strings.NewReader(body))
		dec.Token()
		for dec.More() {
			k, _ := dec.Token()
			dec.Token()
			names = append(names, fmt.Sprint(k))
		}
		return strings.Join(names, " ")
	}
	for _, c := range []struct {
		name    string
		headers []string
		want    string
	}{
		{"anonymous", nil, "id url raw mime_type size sha256 created_at expires_at delete_token"},
		{"owned", withCert(certAlice), "id url raw mime_type size sha256 created_at expires_at delete_token owner"},
		{"burning", []string{"X-Burn-After-Read: 1"}, "id url raw mime_type size sha256 created_at expires_at delete_token burn_after_read"},
		{"not burning", []string{"X-Burn-After-Read: false"}, "id url raw mime_type size sha256 created_at expires_at delete_token"},
		{"everything", withCert(certAlice, "X-Burn-After-Read: true", "X-Paste-Password: pw", "X-Display-Name: n", "X-Read-Proof-SHA256: "+hex.EncodeToString(proof[:])),
			"id url raw mime_type size sha256 created_at expires_at delete_token owner burn_after_read password_protected read_proof display_name"},
	} {
		a := ts.post("hello", c.headers...).want(201, "")
		if got := order(a.body); got != c.want {
			t.Errorf("%s: members %s, want %s", c.name, got, c.want)
		}
		if a.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: type %s", c.name, a.Header.Get("Content-Type"))
		}
	}
	// A paste that burns is shared by the link that previews can't trigger.
	a := ts.do("PUT", "/", strings.NewReader("x"), "X-Burn-After-Read: true").want(201, "")
	if id := strings.TrimPrefix(a.Header.Get("Location"), "/"); a.body != ts.url+"/"+id+"\n" {
		t.Errorf("link to a burning paste: %q", a.body)
	}
}

// TestAccept: who gets one line and who JSON.
func TestAccept(t *testing.T) {
	ts := start(t)
	for _, c := range []struct {
		accept                string
		post, put, badRequest bool // is it text
	}{
		{"", false, true, false},
		{"*/*", false, true, false},
		{"text/plain", true, true, true},
		{"TEXT/Plain", true, true, true},
		{"text/plain;q=0.5", true, true, true},
		{"text/plain;q=0", false, true, false},
		{"application/json", false, false, false},
		{"application/json;q=0", false, true, false},
		{"application/json;q=0.1, text/plain", true, true, true},
		{"text/plain;q=0.1, application/json", false, false, false},
		{"text/html,application/xhtml+xml,*/*;q=0.8", false, true, false},
	} {
		var h []string
		if c.accept != "" {
			h = []string{"Accept: " + c.accept}
		}
		isText := func(a *answer) bool { return strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") }
		if got := isText(ts.post("x", h...).want(201, "")); got != c.post {
			t.Errorf("Accept %q: POST as text %v", c.accept, got)
		}
		if got := isText(ts.do("PUT", "/", strings.NewReader("x"), h...).want(201, "")); got != c.put {
			t.Errorf("Accept %q: PUT as text %v", c.accept, got)
		}
		a := ts.post("x", append(h, "X-Expiry: never")...).want(400, "")
		if isText(a) != c.badRequest {
			t.Errorf("Accept %q: error as %s", c.accept, a.Header.Get("Content-Type"))
		}
		if c.badRequest && (!strings.HasPrefix(a.body, "error: the expiry") || strings.Count(a.body, "\n") != 2) {
			t.Errorf("Accept %q: error %q", c.accept, a.body)
		}
	}
}

// TestBadCreations: nothing of these is stored, not even for a moment afterwards.
func TestBadCreations(t *testing.T) {
	ts := start(t, append([]string{"MAX_ANON=600KiB", "MAX_AUTH=2MiB"}, proxied...)...)
	const isJSON = "Content-Type: application/json"
	big := strings.Repeat("0123456789abcdef", 40<<10) // 640 KiB
	for _, c := range []struct {
		name    string
		body    string
		headers []string
		status  int
		code    string
	}{
		{"empty", "", nil, 400, "empty_content"},
		{"empty JSON content", `{"content": ""}`, []string{isJSON}, 400, "empty_content"},
		{"JSON without content", `{}`, []string{isJSON}, 400, "empty_content"},
		{"multipart without content", form(field("expiry", "60")), []string{formType}, 400, "empty_content"},
		{"multipart with empty content", form(file("x", "")), []string{formType}, 400, "empty_content"},
		{"too large", big, nil, 413, "too_large"},
		{"too large in JSON", `{"content": "` + big + `"}`, []string{isJSON}, 413, "too_large"},
		{"too large in multipart", form(file("x", big)), []string{formType}, 413, "too_large"},
		{"JSON of 2 MiB", `{"content": "` + strings.Repeat("x", 2<<20) + `"}`, []string{isJSON}, 413, "too_large"},
		{"JSON of 2 MiB of blanks", strings.Repeat(" ", 2<<20) + `{"content":"x"}`, []string{isJSON}, 413, "too_large"},
		{"JSON, nothing", ``, []string{isJSON}, 400, "bad_json"},
		{"JSON, cut", `{"content": "x"`, []string{isJSON}, 400, "bad_json"},
		{"JSON, an array", `["x"]`, []string{isJSON}, 400, "bad_json"},
		{"JSON, a string", `"x"`, []string{isJSON}, 400, "bad_json"},
		{"JSON, null", `null`, []string{isJSON}, 400, "bad_json"},
		{"JSON, trailing data", `{"content":"x"} x`, []string{isJSON}, 400, "bad_json"},
		{"JSON, two objects", `{"content":"x"}{}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, byte order mark", "\ufeff" + `{"content":"x"}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, unknown member", `{"content":"x","title":"y"}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, unknown member with an object", `{"a":{"content":"x"}}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, member in another case", `{"Content":"x"}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, repeated member", `{"content":"x","content":"x"}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, repeated by an escape", `{"content":"x","\u0063ontent":"y"}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, content a number", `{"content":5}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, content null", `{"content":null}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, content an object", `{"content":{"content":"x"}}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, type a number", `{"content":"x","mime_type":1}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, burn a string", `{"content":"x","burn_after_read":"true"}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, burn null", `{"content":"x","burn_after_read":null}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, burn 1", `{"content":"x","burn_after_read":1}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, expiry true", `{"content":"x","expiry":true}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, expiry null", `{"content":"x","expiry":null}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, expiry 1e9", `{"content":"x","expiry":1e9}`, []string{isJSON}, 400, "bad_expiry"},
		{"JSON, expiry 1.5", `{"content":"x","expiry":1.5}`, []string{isJSON}, 400, "bad_expiry"},
		{"JSON, expiry -1", `{"content":"x","expiry":-1}`, []string{isJSON}, 400, "bad_expiry"},
		{"JSON, expiry 0", `{"content":"x","expiry":0}`, []string{isJSON}, 400, "bad_expiry"},
		{"JSON, expiry overflows", `{"content":"x","expiry":99999999999999999999}`, []string{isJSON}, 400, "bad_expiry"},
		{"JSON, expiry NaN", `{"content":"x","expiry":NaN}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, expiry empty", `{"content":"x","expiry":""}`, []string{isJSON}, 400, "bad_expiry"},
		{"JSON, password a number", `{"content":"x","password":5}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, password empty", `{"content":"x","password":""}`, []string{isJSON}, 400, "bad_password"},
		{"JSON, password with a NUL", `{"content":"x","password":"a\u0000b"}`, []string{isJSON}, 400, "bad_password"},
		{"JSON, name of anonymous", `{"content":"x","display_name":"n"}`, []string{isJSON}, 400, "bad_display_name"},
		{"JSON, name with a line", `{"content":"x","display_name":"a\r\nX-Evil: 1"}`, withCert(certAlice, isJSON), 400, "bad_display_name"},
		{"JSON, name with a C1 control", `{"content":"x","display_name":"a\u0085b"}`, withCert(certAlice, isJSON), 400, "bad_display_name"},
		{"JSON, lone high surrogate", `{"content":"\ud800"}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, lone low surrogate", `{"content":"\udc00x"}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, surrogates the wrong way round", `{"content":"\udc00\ud800"}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, high and high", `{"content":"\ud800\ud800"}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, high and letter", `{"content":"\ud83d\u0041"}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, lone surrogate in a name", `{"content":"x","\ud800":"y"}`, []string{isJSON}, 400, "bad_json"},
		{"JSON, invalid UTF-8", "{\"content\":\"\xff\"}", []string{isJSON}, 400, "bad_json"},
		{"JSON, surrogate in UTF-8", "{\"content\":\"\xed\xa0\x80\"}", []string{isJSON}, 400, "bad_json"},
		{"JSON, a control character", "{\"content\":\"a\nb\"}", []string{isJSON}, 400, "bad_json"},
		{"JSON, deep", `{"content":` + strings.Repeat("[", 100000) + strings.Repeat("]", 100000) + `}`, []string{isJSON}, 400, "bad_json"},
		{"multipart, no boundary", form(file("x", "y")), []string{"Content-Type: multipart/form-data"}, 400, "bad_option"},
		{"multipart, another boundary", form(file("x", "y")), []string{"Content-Type: multipart/form-data; boundary=other"}, 400, "bad_option"},
		{"multipart, two boundaries", form(file("x", "y"), field("password", "z")), []string{formType + "; boundary=other"}, 400, "bad_option"},
		{"multipart, empty body", "", []string{formType}, 400, ""},
		{"multipart, cut in the content", form(file("x", "hello"))[:120], []string{formType}, 400, "bad_option"},
		{"multipart, cut in a header", form(file("x", "hello"))[:40], []string{formType}, 400, "bad_option"},
		{"multipart, no end", strings.TrimSuffix(form(file("x", "hello")), "--b0undary--\r\n"), []string{formType}, 400, "bad_option"},
		{"multipart, content cut after 256 KiB", form(file("x", pattern(300<<10)))[:290<<10], []string{formType}, 400, "bad_option"},
		{"multipart, two contents", form(file("x", "a"), file("y", "b")), []string{formType}, 400, "bad_option"},
		{"multipart, two contents, one a field", form(field("content", "a"), file("y", "b")), []string{formType}, 400, "bad_option"},
		{"multipart, a second content after 256 KiB", form(file("x", pattern(300<<10)), file("y", "b")), []string{formType}, 400, "bad_option"},
		{"multipart, 17 parts", form(append(slices.Repeat([]part{field("expiry", "60")}, 16), file("x", "y"))...), []string{formType}, 400, "bad_option"},
		{"multipart, option over 4 KiB", form(file("x", "y"), field("password", strings.Repeat("p", 5<<10))), []string{formType}, 400, "bad_option"},
		{"multipart, password of 1025 bytes", form(file("x", "y"), field("password", strings.Repeat("p", 1025))), []string{formType}, 400, "bad_password"},
		{"multipart, bad expiry after the content", form(file("x", "y"), field("expiry", "soon")), []string{formType}, 400, "bad_expiry"},
		{"multipart, options that disagree", form(field("expiry", "60"), field("expiry", "61"), file("x", "y")), []string{formType}, 400, "bad_option"},
		{"multipart, a huge part header", form(part{"X-A: " + strings.Repeat("a", 500<<10), "y"}), []string{formType}, 400, "bad_option"},
		{"multipart, many part headers", form(part{strings.Repeat("X-A: a\r\n", 9000) + "X-B: b", "y"}), []string{formType}, 400, "bad_option"},
		{"multipart, cut in an option's header", form(file("x", "y"))[:len(form(file("x", "y")))-4] + "\r\nContent-Disposition: form-data; name=pass", []string{formType}, 400, "bad_option"},
		{"multipart, cut behind an option's header", form(file("x", "y"))[:len(form(file("x", "y")))-4] + "\r\nContent-Disposition: form-data; name=password\r\n", []string{formType}, 400, "bad_option"},
		{"multipart, a part header that is none", "--b0undary\r\nno header\r\n\r\nx\r\n--b0undary--\r\n", []string{formType}, 400, "bad_option"},
		{"header and JSON disagree: expiry", `{"content":"x","expiry":60}`, []string{isJSON, "X-Expiry: 61"}, 400, "bad_option"},
		{"header and JSON disagree: burn", `{"content":"x","burn_after_read":false}`, []string{isJSON, "X-Burn-After-Read: true"}, 400, "bad_option"},
		{"header and JSON disagree: password", `{"content":"x","password":"a"}`, []string{isJSON, "X-Paste-Password: b"}, 400, "bad_option"},
		{"header and JSON disagree: name", `{"content":"x","display_name":"a"}`, withCert(certAlice, isJSON, "X-Display-Name: b"), 400, "bad_option"},
		{"header and form disagree: expiry", form(file("x", "y"), field("expiry", "1m")), []string{formType, "X-Expiry: 61"}, 400, "bad_option"},
		{"header and form disagree: burn", form(file("x", "y"), field("burn_after_read", "0")), []string{formType, "X-Burn-After-Read: 1"}, 400, "bad_option"},
		{"header and form disagree: password", form(field("password", "a"), file("x", "y")), []string{formType, "X-Paste-Password: b"}, 400, "bad_option"},
		{"X-Expiry twice", "x", []string{"X-Expiry: 60", "X-Expiry: 60"}, 400, "bad_option"},
		{"X-Expiry empty", "x", []string{"X-Expiry: "}, 400, "bad_expiry"},
		{"X-Burn-After-Read empty", "x", []string{"X-Burn-After-Read: "}, 400, "bad_option"},
		{"X-Burn-After-Read yes", "x", []string{"X-Burn-After-Read: yes"}, 400, "bad_option"},
		{"X-Burn-After-Read TRUE", "x", []string{"X-Burn-After-Read: TRUE"}, 400, "bad_option"},
		{"X-Paste-Password empty", "x", []string{"X-Paste-Password: "}, 400, "bad_password"},
		{"X-Paste-Password of 1025 bytes", "x", []string{"X-Paste-Password: " + strings.Repeat("p", 1025)}, 400, "bad_password"},
		{"X-Paste-Password with a tab", "x", []string{"X-Paste-Password: a\tb"}, 400, "bad_password"},
		{"X-Display-Name of anonymous", "x", []string{"X-Display-Name: me"}, 400, "bad_display_name"},
		{"X-Display-Name of 129 characters", "x", withCert(certAlice, "X-Display-Name: "+strings.Repeat("ü", 129)), 400, "bad_display_name"},
		{"X-Display-Name in Latin-1", "x", withCert(certAlice, "X-Display-Name: \xfcber"), 400, "bad_display_name"},
		{"X-Display-Name empty", "x", withCert(certAlice, "X-Display-Name: "), 400, "bad_display_name"},
		{"X-Read-Proof-SHA256 short", "x", []string{"X-Read-Proof-SHA256: " + strings.Repeat("a", 63)}, 400, "bad_option"},
		{"X-Read-Proof-SHA256 no hex", "x", []string{"X-Read-Proof-SHA256: " + strings.Repeat("g", 64)}, 400, "bad_option"},
		{"X-Read-Proof-SHA256 empty", "x", []string{"X-Read-Proof-SHA256: "}, 400, "bad_option"},
		{"X-Read-Proof-SHA256 twice", "x", []string{"X-Read-Proof-SHA256: " + strings.Repeat("a", 64), "X-Read-Proof-SHA256: " + strings.Repeat("a", 64)}, 400, "bad_option"},
		{"gzip", "\x1f\x8b\x08", []string{"Content-Encoding: gzip"}, 415, "unsupported_encoding"},
		{"no encoding at all", "x", []string{"Content-Encoding: identity"}, 415, "unsupported_encoding"},
	} {
		for _, known := range []bool{true, false} {
			t.Run(c.name+map[bool]string{true: ", length known", false: ", chunked"}[known], func(t *testing.T) {
				ts := ts.in(t)
				var body io.Reader = strings.NewReader(c.body)
				if !known {
					body = chunked{body}
				}
				a, err := ts.try("POST", "/", body, c.headers...)
				if err != nil {
					t.Fatal(err)
				}
				a.want(c.status, c.code)
				for _, name := range []string{"Location", "X-Delete-Token"} {
					if a.Header.Get(name) != "" {
						t.Errorf("a refusal with %s", name)
					}
				}
				if a.field("error") == "" || a.field("request_id") != a.Header.Get("X-Request-Id") {
					t.Errorf("answer %s", a.body)
				}
			})
		}
	}
	ts.nothing()
	if n := ts.number("SELECT coalesce(max(n), 0) FROM pastes"); n != 0 {
		t.Errorf("paste number %d was made", n)
	}
}

// TestLimitsInAnswers: a 413 says which limit it was, a 400 of an expiry lists the forms.
func TestLimitsInAnswers(t *testing.T) {
	ts := start(t, append([]string{"MAX_ANON=1000", "MAX_AUTH=2000", "MIN_SIZE=5"}, proxied...)...)
	x := strings.Repeat("x", 2001)
	for _, c := range []struct {
		name, limit, body string
		headers           []string
	}{
		{"anonymous", "1000", x[:1001], nil},
		{"certificate", "2000", x, withCert(certAlice)},
		{"JSON within its own limit", "1000", `{"content":"` + x[:1001] + `"}`, []string{"Content-Type: application/json"}},
		{"JSON over its own limit", "1048576", `{"content":"` + strings.Repeat(x, 600) + `"}`, []string{"Content-Type: application/json"}},
		{"multipart", "1000", form(file("x", x[:1001])), []string{formType}},
		{"multipart, by its announced length", "1000", form(file("x", strings.Repeat(x, 200))), []string{formType}},
	} {
		if a := ts.post(c.body, c.headers...).want(413, "too_large"); a.field("limit") != c.limit {
			t.Errorf("%s: limit %s, want %s", c.name, a.field("limit"), c.limit)
		}
	}
	ts.post(x[:1000]).want(201, "")
	ts.post(`{"content":"`+x[:1000]+`"}`, "Content-Type: application/json").want(201, "")
	ts.post(form(file("x", x[:1000])), formType).want(201, "")
	ts.post(x[:2000], withCert(certAlice)...).want(201, "")
	ts.post("four").want(400, "too_small")
	ts.post("five!").want(201, "")
	if hint := ts.post("x", "X-Expiry: soon").want(400, "bad_expiry").field("hint"); !strings.Contains(hint, "1d12h") || !strings.Contains(hint, "RFC 3339") || !strings.Contains(hint, "@") {
		t.Errorf("hint %q", hint)
	}
	ts.stored(5)
	ts = start(t, "MAX_ANON=9223372036854775807", "SHORT_URL_MAX=9223372036854775807") // no limit, and no overflow
	ts.post(form(file("x", x)), formType).want(201, "")
	ts.do("POST", "/s", strings.NewReader("https://example.org/")).want(201, "")
}

// TestRefusedBeforeTheBody: what the head of a request settles is answered before a byte of the body is read, and no client
// that waits is told to go on.
func TestRefusedBeforeTheBody(t *testing.T) {
	ts := start(t, append([]string{"MAX_ANON=1MiB"}, proxied...)...)
	c := ts.create("mine")
	for _, r := range []struct {
		name, line, headers string
		status              int
		code                string
	}{
		{"raw too large", "POST / HTTP/1.1", "Content-Length: 1048577", 413, "too_large"},
		{"raw much too large", "POST / HTTP/1.1", "Content-Length: 9223372036854775807", 413, "too_large"},
		{"PUT too large", "PUT /name HTTP/1.1", "Content-Length: 1048577", 413, "too_large"},
		{"JSON too large", "POST / HTTP/1.1", "Content-Type: application/json\r\nContent-Length: 1048577", 413, "too_large"},
		{"multipart too large", "POST / HTTP/1.1", "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 2000000", 413, "too_large"},
		{"bad option", "POST / HTTP/1.1", "X-Expiry: 0\r\nContent-Length: 100", 400, "bad_expiry"},
		{"encoded", "POST / HTTP/1.1", "Content-Encoding: br\r\nContent-Length: 100", 415, "unsupported_encoding"},
		{"no such route", "POST /a/b/c HTTP/1.1", "Content-Length: 100", 404, "not_found"},
		{"no such method", "PATCH / HTTP/1.1", "Content-Length: 100", 405, "method_not_allowed"},
		{"update without a paste", "PUT /0123456789abcdef HTTP/1.1", "Content-Length: 100", 404, "not_found"},
		{"update without a credential", "PUT /" + c.ID + " HTTP/1.1", "Content-Length: 100", 401, "authentication_required"},
		{"update too large", "PUT /" + c.ID + " HTTP/1.1", "X-Delete-Token: " + c.DeleteToken + "\r\nContent-Length: 1048577", 413, "too_large"},
		{"another origin", "POST / HTTP/1.1", "Origin: https://evil.example\r\nContent-Length: 100", 403, "cross_origin"},
		{"a bad certificate", "POST / HTTP/1.1", "X-Proxy-Secret: " + proxySecret + "\r\nX-SSL-Client-SHA1: nonsense\r\nContent-Length: 100", 400, "bad_client_certificate"},
	} {
		t.Run(r.name, func(t *testing.T) {
			ts := ts.in(t)
			// byHand reads the first response whatever it is: an interim 100 would be it.
			a := ts.byHand("POST", r.line+"\r\nHost: x\r\nExpect: 100-continue\r\n"+r.headers+"\r\n\r\n").want(r.status, r.code)
			if a.Header.Get("Connection") != "close" && !a.Close {
				t.Error("the connection goes on in front of an unread body")
			}
		})
	}
	// And whoever may go on is told so.
	conn := ts.dial()
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n")
	head := make([]byte, 25)
	if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 100 Continue\r\n\r\n" {
		t.Fatalf("got %q, %v", head, err)
	}
	io.WriteString(conn, "hello")
	if b, _ := io.ReadAll(conn); !strings.HasPrefix(string(b), "HTTP/1.1 201 ") {
		t.Errorf("got %q", b)
	}
	ts.stored(2)
}

// TestExpiryForms: every form, every refusal, the clamps.
func TestExpiryForms(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Unix()
	for _, c := range []struct {
		v    string
		want int64 // seconds from now, 0: refused
	}{
		{"1", 1}, {"3600", 3600}, {"0060", 60}, {"90s", 90}, {"15m", 900}, {"12h", 43200}, {"7d", 7 * 86400}, {"2w", 14 * 86400},
		{"1d12h", 129600}, {"1w1d1h1m1s", 694861}, {"30m30m", 3600}, {"0d5s", 5},
		{"2026-03-01T12:00:01Z", 1}, {"2026-03-02T00:00:00+02:00", 36000}, {"2026-03-01T12:00:01.9Z", 1}, {"@1772366401", 1},
		{"@" + strconv.FormatInt(now+5, 10), 5}, {"100000000000000000", 1e17},
		{"", 0}, {"0", 0}, {"0s", 0}, {"0d0h", 0}, {"-1", 0}, {"-1h", 0}, {"+1", 0}, {"1e9", 0}, {"1.5h", 0}, {"NaN", 0}, {"Inf", 0}, {"0x10", 0}, {"1_000", 0},
		{"1d12", 0}, {"12d1", 0}, {"d", 0}, {"1dd", 0}, {"1 d", 0}, {" 1d", 0}, {"1d ", 0}, {"1D", 0}, {"1y", 0}, {"1ms", 0}, {"soon", 0}, {"٣٠s", 0}, {"３０s", 0},
		{"9223372036854775808", 0}, {"99999999999999999999", 0}, {"9223372036854775807w", 0}, {"15250284452471w15250284452471w", 0},
		{"2026-03-01T12:00:00Z", 0}, {"2026-03-01T11:59:59Z", 0}, {"1999-01-01T00:00:00Z", 0}, {"2026-03-02", 0}, {"2026-03-02 00:00:00Z", 0}, {"2026-02-30T00:00:00Z", 0},
		{"2026-03-02T00:00:00", 0}, {"12:30", 0}, {"T", 0}, {"@", 0}, {"@0", 0}, {"@1", 0}, {"@-1", 0}, {"@+1772366401", 0}, {"@1e10", 0}, {"@9223372036854775808", 0}, {"@ 1772366401", 0},
		{"1\x00", 0}, {strings.Repeat("9", 5000), 0}, {strings.Repeat("1s", 3), 3},
	} {
		got, err := parseExpiry(c.v, now)
		if (err == nil) != (c.want != 0) || err == nil && got != now+c.want {
			t.Errorf("%.40q: %d, %v; want %d", c.v, got-now, err, c.want)
		}
		if err != nil && err != errExpiry {
			t.Errorf("%.40q: error %v", c.v, err)
		}
	}
}

// TestLives: which tier gets which life and size, and how much may be asked for.
func TestLives(t *testing.T) {
	const day = 86400
	ts := start(t, proxied...)
	for _, c := range []struct {
		name    string
		headers []string
		life    int64
	}{
		{"anonymous", nil, day},
		{"anonymous asks", []string{"X-Expiry: 1h"}, 3600},
		{"anonymous asks for its longest", []string{"X-Expiry: 7d"}, 7 * day},
		{"anonymous asks for more", []string{"X-Expiry: 8d"}, 7 * day},
		{"anonymous asks for ever", []string{"X-Expiry: 1000000000000"}, 7 * day},
		{"anonymous asks for a far date", []string{"X-Expiry: 9999-12-31T23:59:59Z"}, 7 * day},
		{"certificate", withCert(certAlice), 7 * day},
		{"certificate asks for more", withCert(certAlice, "X-Expiry: 100d"), 49 * day},
		{"certificate of nothing", withCert(sha1OfNothing), day},
	} {
		before := time.Now().Unix()
		p := ts.create("x", c.headers...)
		if got := p.ExpiresAt - p.CreatedAt; got != c.life {
			t.Errorf("%s: lives %d, want %d", c.name, got, c.life)
		}
		if now := time.Now().Unix(); p.CreatedAt < before || p.CreatedAt > now {
			t.Errorf("%s: created at %d, asked for at %d, answered at %d", c.name, p.CreatedAt, before, now)
		}
	}
	ts = start(t, append([]string{"EXPIRY_ANON=10d", "EXPIRY_UNTRUSTED=60d", "MAX_EXPIRY=50d"}, proxied...)...)
	for _, c := range []struct {
		name    string
		headers []string
		life    int64
	}{
		{"a longer default raises what may be asked", []string{"X-Expiry: 9d"}, 9 * day},
		{"up to it", []string{"X-Expiry: 11d"}, 10 * day},
		{"the default of the tier is cut by MAX_EXPIRY", withCert(certAlice), 50 * day},
		{"and so is what is asked", withCert(certAlice, "X-Expiry: 51d"), 50 * day},
	} {
		if p := ts.create("x", c.headers...); p.ExpiresAt-p.CreatedAt != c.life {
			t.Errorf("%s: lives %d, want %d", c.name, p.ExpiresAt-p.CreatedAt, c.life)
		}
	}
	// A certificate from a trusted proxy gives the untrusted tier's size.
	ts = start(t, append([]string{"MAX_ANON=10", "MAX_AUTH=20"}, proxied...)...)
	ts.post(strings.Repeat("x", 15)).want(413, "too_large")
	ts.post(strings.Repeat("x", 15), withCert(certAlice)...).want(201, "")
	ts.post(strings.Repeat("x", 21), withCert(certAlice)...).want(413, "too_large")
}

// TestRenewal: each 200 or 206 to a GET of the content moves the deadline; nothing else does, and a fixed one stays.
func TestRenewal(t *testing.T) {
	const hour = int64(3600)
	ts := start(t, "EXPIRY_ANON=10h", "MAX_EXPIRY=30h", "CACHE=0")
	ts.clock.hold()
	expires := func(id string) int64 {
		t.Helper()
		n, _ := strconv.ParseInt(ts.get("/"+id).want(200, "").field("expires_at"), 10, 64)
		return n
	}
	floating, fixed := ts.create("floating"), ts.create("fixed", "X-Expiry: 10h")
	etag := `"` + floating.SHA256 + `"`
	ts.clock.advance(2 * time.Hour)
	for _, c := range []struct {
		name, method string
		status       int
		path         string
		headers      []string
	}{
		{"metadata", "GET", 200, "/" + floating.ID, nil},
		{"HEAD", "HEAD", 200, "/" + floating.ID + "/raw", nil},
		{"304", "GET", 304, "/" + floating.ID + "/raw", []string{"If-None-Match: " + etag}},
		{"416", "GET", 416, "/" + floating.ID + "/raw", []string{"Range: bytes=100-"}},
		{"412", "GET", 412, "/" + floating.ID + "/raw", []string{`If-Match: "other"`}},
	} {
		ts.do(c.method, c.path, nil, c.headers...).want(c.status, "")
		if got := expires(floating.ID); got != floating.ExpiresAt {
			t.Errorf("%s renewed the paste by %d s", c.name, got-floating.ExpiresAt)
		}
	}
	now := ts.clock.now().Unix()
	ts.get("/"+floating.ID+"/raw").want(200, "")
	ts.get("/"+fixed.ID+"/raw").want(200, "")
	if got := expires(floating.ID) - now - 10*hour; got != 0 {
		t.Errorf("a read renewed to %d s off ten hours", got)
	}
	if got := expires(fixed.ID); got != fixed.ExpiresAt {
		t.Errorf("a read moved a fixed deadline by %d s", got-fixed.ExpiresAt)
	}
	ts.clock.advance(9 * time.Hour) // past both first deadlines
	ts.get("/"+fixed.ID+"/raw").want(404, "not_found")
	ts.get("/"+floating.ID+"/raw", "Range: bytes=0-1").want(206, "")
	if got := expires(floating.ID) - ts.clock.now().Unix() - 10*hour; got != 0 {
		t.Errorf("a 206 renewed to %d s off ten hours", got)
	}
	// Never past created + MAX_EXPIRY, however often it is read.
	for range 3 {
		ts.clock.advance(8 * time.Hour)
		ts.get("/" + floating.ID + "/raw")
	}
	ts.clock.advance(-time.Duration(ts.clock.now().Unix()-floating.CreatedAt-29*hour) * time.Second)
	if got := expires(floating.ID); got != floating.CreatedAt+30*hour {
		t.Errorf("expires %d s after MAX_EXPIRY", got-floating.CreatedAt-30*hour)
	}
	ts.clock.advance(time.Hour + time.Second)
	ts.get("/"+floating.ID+"/raw").want(404, "not_found")
	ts.get("/"+floating.ID).want(404, "not_found")
}

// TestRenewalInTheDatabase: renewals reach the file within a second or so, whether the paste is cached or not, and a deadline
// that is set afterwards is not undone by a renewal that still waits.
func TestRenewalInTheDatabase(t *testing.T) {
	for _, cache := range []string{"CACHE=0", "CACHE=1MiB"} {
		t.Run(cache, func(t *testing.T) {
			ts := start(t, "EXPIRY_ANON=10h", cache)
			c := ts.create("x")
			ts.get("/"+c.ID+"/raw").want(200, "")
			ts.clock.advance(9 * time.Hour)
			ts.get("/"+c.ID+"/raw").want(200, "")
			ts.settled("hours in the file", 19, func() int64 { return (ts.number("SELECT expires_at FROM pastes") - c.CreatedAt) / 3600 })
			// The row's own deadline passes while a renewal waits for its flush.
			ts.clock.advance(9 * time.Hour)
			ts.get("/"+c.ID+"/raw").want(200, "")
			ts.clock.advance(2 * time.Hour)
			ts.get("/"+c.ID+"/raw").want(200, "")
			// A fixed deadline, set right behind a read and while another goes on.
			slow, _, err := ts.store.get(c.ID, ts.clock.now().Unix())
			if err != nil {
				t.Fatal(err)
			}
			a := ts.do("PUT", "/"+c.ID, nil, "X-Delete-Token: "+c.DeleteToken, "X-Expiry: 60").want(200, "")
			for _, path := range []string{"/" + c.ID, "/" + c.ID} {
				if got := ts.get(path).want(200, "").field("expires_at"); got != a.field("expires_at") {
					t.Errorf("metadata says %s, the change said %s", got, a.field("expires_at"))
				}
				ts.get("/"+c.ID+"/raw").want(200, "")
				ts.store.touch(slow, ts.clock.now().Unix()+5)
			}
			ts.clock.advance(61 * time.Second)
			ts.get("/"+c.ID+"/raw").want(404, "not_found")
			ts.get("/"+c.ID).want(404, "not_found")
			if err := ts.store.flushTouches(); err != nil {
				t.Fatal(err)
			}
			if got := strconv.FormatInt(ts.number("SELECT expires_at FROM pastes"), 10); got != a.field("expires_at") {
				t.Errorf("the file says %s, the change said %s", got, a.field("expires_at"))
			}
		})
	}
}

// TestMime: a declared type that says something stays; else the bytes decide.
func TestMime(t *testing.T) {
	pe := "MZ" + strings.Repeat("\x00", 58) + "\x80\x00\x00\x00" + strings.Repeat("\x00", 64) + "PE\x00\x00"
	tar := strings.Repeat("n", 100) + strings.Repeat("\x00", 157) + "ustar\x0000" + strings.Repeat("\x00", 200)
	const text, bytesType = "text/plain; charset=utf-8", "application/octet-stream"
	ts := start(t)
	for _, c := range []struct{ name, declared, content, want string }{
		{"text", "", "hello\n", text},
		{"UTF-8", "", "größe 😀\ufffd\n", text},
		{"text with NUL", "", "a\x00b", bytesType},
		{"Latin-1", "", "gr\xf6\xdfe", bytesType},
		{"UTF-8 cut", "", "a\xc3", bytesType},
		{"a surrogate", "", "\xed\xa0\x80", bytesType},
		{"text that starts with MZ", "", "MZ is the mark of Mark Zbikowski, and this goes on for more than sixty-four bytes.\n", text},
		{"MZ alone", "", "MZ", text},
		{"text that starts with BM", "", "BMW builds cars.\n" + strings.Repeat("x", 100), text},
		{"text that starts with BZh", "", "BZh9 is a mark, this is a text", text},
		{"text that starts with ID3", "", "ID3 tags are ugly, they say", text},
		{"text that starts with PK", "", "PKWARE made it", text},
		{"text that starts with GIF", "", "GIF8 is not enough", text},
		{"text with ftyp in it", "", "The ftyp box comes first.\n", text},
		{"PNG", "", "\x89PNG\r\n\x1a\n\x00\x00", "image/png"},
		{"JPEG", "", "\xff\xd8\xff\xe0\x00\x10JFIF", "image/jpeg"},
		{"three bytes of JPEG", "", "\xff\xd8\xff", bytesType},
		{"GIF", "", "GIF89a\x01\x00\x01\x00", "image/gif"},
		{"WebP", "", "RIFF\x10\x00\x00\x00WEBPVP8 ", "image/webp"},
		{"WAV", "", "RIFF\x10\x00\x00\x00WAVEfmt ", "audio/wav"},
		{"PDF", "", "%PDF-1.7\n", "application/pdf"},
		{"ZIP", "", "PK\x03\x04\x14\x00", "application/zip"},
		{"empty ZIP", "", "PK\x05\x06" + strings.Repeat("\x00", 18), "application/zip"},
		{"GZIP", "", "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", "application/gzip"},
		{"BZIP2", "", "BZh91AY&SY\x00", "application/x-bzip2"},
		{"XZ", "", "\xfd7zXZ\x00\x00\x04", "application/x-xz"},
		{"ZSTD", "", "\x28\xb5\x2f\xfd\x04\x00", "application/zstd"},
		{"7z", "", "7z\xbc\xaf\x27\x1c\x00\x04", "application/x-7z-compressed"},
		{"TAR", "", tar, "application/x-tar"},
		{"ELF", "", "\x7fELF\x02\x01\x01\x00", "application/x-elf"},
		{"PE", "", pe, "application/vnd.microsoft.portable-executable"},
		{"WASM", "", "\x00asm\x01\x00\x00\x00", "application/wasm"},
		{"SQLite", "", "SQLite format 3\x00\x10\x00", "application/vnd.sqlite3"},
		{"MP3 with a tag", "", "ID3\x04\x00\x00\x00\x00\x00\x23TSSE", "audio/mpeg"},
		{"MP3 frame", "", "\xff\xfb\x90\x64" + strings.Repeat("\x00", 413) + "\xff\xfb\x90\x64", "audio/mpeg"},
		{"no MP3: the second frame is missing", "", "\xff\xfb\x90\x64" + strings.Repeat("\x00", 600), bytesType},
		{"FLAC", "", "fLaC\x00\x00\x00\x22", "audio/flac"},
		{"OGG", "", "OggS\x00\x02\x00\x00", "audio/ogg"},
		{"MP4", "", "\x00\x00\x00\x18ftypisom\x00\x00\x02\x00", "video/mp4"},
		{"AVIF", "", "\x00\x00\x00\x1cftypavif\x00\x00\x00\x00", "image/avif"},
		{"WebM", "", "\x1a\x45\xdf\xa3\x9f\x42\x86\x81", "video/webm"},
		{"PEM", "", "-----BEGIN CERTIFICATE-----\nMIIB\n", "application/x-pem-file"},
		{"PEM with CRLF", "", "-----BEGIN RSA PRIVATE KEY-----\r\nMIIB\r\n", "application/x-pem-file"},
		{"age", "", "age-encryption.org/v1\n-> X25519", "application/x-age"},
		{"armoured age", "", "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n", "application/x-age"},
		{"declared", "application/yaml", "a: 1", "application/yaml"},
		{"declared in capitals", "Text/HTML", "<p>", "text/html"},
		{"declared with a charset", "text/html; charset=ISO-8859-1; x=y", "<p>", "text/html; charset=ISO-8859-1"},
		{"declared with a charset that isn't one", `text/html; charset="a b\"c"`, "<p>", "text/html"},
		{"declared with two charsets", "text/html; charset=a; charset=b", "<p>", "text/html"},
		{"declared against the bytes", "application/vnd.x+json", "\x89PNG\r\n\x1a\n", "application/vnd.x+json"},
		{"generic", "application/octet-stream", "text", text},
		{"generic, bytes known", "text/plain", "%PDF-1.4", "application/pdf"},
		{"text/plain in another charset", "text/plain; charset=latin1", "\xfc", bytesType},
		{"a form", "application/x-www-form-urlencoded", "a=b", text},
		{"multipart/mixed", "multipart/mixed; boundary=x", "--x", text},
		{"message/rfc822", "message/rfc822", "From: x", text},
		{"no type at all", "nonsense", "x", text},
		{"a star", "*/*", "x", text},
		{"too long", "text/" + strings.Repeat("x", 200), "x", text},
		{"not ASCII", "text/ü", "x", text},
	} {
		var h []string
		if c.declared != "" {
			h = []string{"Content-Type: " + c.declared}
		}
		p := ts.create(c.content, h...)
		if p.Mime != c.want {
			t.Errorf("%s: %q, want %q", c.name, p.Mime, c.want)
		}
		a := ts.get("/"+p.ID+"/raw").want(200, "")
		if a.Header.Get("Content-Type") != c.want || a.body != c.content {
			t.Errorf("%s: read back as %q", c.name, a.Header.Get("Content-Type"))
		}
		b, _, _ := mime.ParseMediaType(c.want)
		inline := slices.Contains([]string{"text/plain", "application/json", "image/png", "image/jpeg", "image/gif", "image/webp", "image/avif"}, b) || strings.HasPrefix(b, "audio/") || strings.HasPrefix(b, "video/")
		if got := a.Header.Get("Content-Disposition"); got != map[bool]string{true: "inline", false: "attachment"}[inline] {
			t.Errorf("%s: Content-Disposition %q", c.name, got)
		}
	}
	// By JSON, where a type could carry a line break, and by a part of a form.
	for _, c := range []struct{ name, body, kind, want string }{
		{"JSON", `{"content":"x","mime_type":"text/CSV"}`, "application/json", "text/csv"},
		{"JSON, none", `{"content":"x","mime_type":""}`, "application/json", text},
		{"JSON, two charsets", `{"content":"x","mime_type":"text/CSV"}`, "application/json; charset=utf-8; charset=UTF-8", "text/csv"},
		{"JSON, header injection", `{"content":"x","mime_type":"text/html\r\nX-Evil: 1"}`, "application/json", text},
		{"JSON, in the charset", `{"content":"x","mime_type":"text/html; charset=\"a\r\nX-Evil: 1\""}`, "application/json", "text/html"},
		{"part", form(part{"Content-Disposition: form-data; name=c\r\nContent-Type: image/svg+xml", "<svg>"}), formType[14:], "image/svg+xml"},
	} {
		p := ts.create(c.body, "Content-Type: "+c.kind, "Accept: application/json")
		a := ts.get("/"+p.ID+"/raw").want(200, "")
		if a.Header.Get("Content-Type") != c.want || a.Header.Get("X-Evil") != "" {
			t.Errorf("%s: %q, want %q", c.name, a.Header.Get("Content-Type"), c.want)
		}
	}
}

// TestTextAcrossPieces: whether a content is UTF-8 must not hang on where the network cuts it.
func TestTextAcrossPieces(t *testing.T) {
	for _, r := range []string{"ü", "€", "😀", "\ufffd", "\x00", "\xff", "\xc3\x28", "\xe2\x82", "\xf0\x9f\x98", "\xed\xa0\x80", "a"} {
		for before := chunkSize - 4; before <= chunkSize+1; before++ {
			content := strings.Repeat("x", before) + r + "y"
			in := &intake{limit: 1 << 20, hash: sha256.New(), text: true}
			for b := []byte(content); len(b) > 0; {
				n := min(len(b), chunkSize)
				in.look(b[:n])
				b = b[n:]
			}
			want := "text/plain; charset=utf-8"
			if strings.ContainsAny(r, "\x00") || !validUTF8(content) {
				want = "application/octet-stream"
			}
			if got := mimeOf("", in); got != want {
				t.Errorf("%q at %d: %s, want %s", r, before, got, want)
			}
		}
	}
}

func validUTF8(s string) bool { return strings.ToValidUTF8(s, "") == s }

// TestMetadata: what is shown, to whom, and what of it would help a guesser.
func TestMetadata(t *testing.T) {
	ts := start(t, proxied...)
	proof := sha256.Sum256(make([]byte, 32))
	for _, c := range []struct {
		name    string
		headers []string
		shows   string // beside what every paste shows
	}{
		{"open", withCert(certAlice, "X-Display-Name: Ünïcode 😀"), "sha256"},
		{"burning", withCert(certAlice, "X-Burn-After-Read: true"), "burn_after_read"},
		{"password", withCert(certAlice, "X-Paste-Password: pw"), "password_protected"},
		{"proof", withCert(certAlice, "X-Read-Proof-SHA256: "+hex.EncodeToString(proof[:])), "read_proof"},
	} {
		p := ts.create("content", c.headers...)
		for _, who := range []struct {
			name    string
			headers []string
			mine    bool
		}{
			{"anonymous", nil, false}, {"another", withCert(certMallory), false}, {"owner", withCert(certAlice), true},
			{"owner in capitals", withCert(strings.ToUpper(certAlice)), true}, {"holder of the token", []string{"X-Delete-Token: " + p.DeleteToken}, false},
			{"owner without the secret", []string{"X-SSL-Client-SHA1: " + certAlice}, false},
		} {
			a := ts.get("/"+p.ID, who.headers...).want(200, "")
			var m map[string]any
			json.Unmarshal([]byte(a.body), &m)
			for _, name := range []string{"sha256", "burn_after_read", "password_protected", "read_proof"} {
				if _, shown := m[name]; shown != (name == c.shows) {
					t.Errorf("%s to %s: %s shown: %v", c.name, who.name, name, shown)
				}
			}
			if (m["owner"] == certAlice) != who.mine || (m["display_name"] == "Ünïcode 😀") != (who.mine && c.name == "open") {
				t.Errorf("%s to %s: owner %v, name %v", c.name, who.name, m["owner"], m["display_name"])
			}
			if m["delete_token"] != nil || strings.Contains(a.body, p.DeleteToken) {
				t.Errorf("%s to %s: shows the token", c.name, who.name)
			}
			if a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Etag") != "" {
				t.Errorf("%s to %s: cacheable", c.name, who.name)
			}
		}
		if ts.number("SELECT count(*) FROM pastes WHERE id = ?", p.ID) != 1 {
			t.Errorf("%s: gone after its metadata were read", c.name)
		}
	}
}

// TestRaw: conditions and ranges of open content, over several chunks, cached and not.
func TestRaw(t *testing.T) {
	for _, size := range []int{1, 2000, hotSize, hotSize + 1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize, 3*chunkSize + 77777} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			ts := start(t)
			content := pattern(size)
			p := ts.create(content)
			etag, raw := `"`+sum256(content)+`"`, "/"+p.ID+"/raw"
			date := time.Unix(p.CreatedAt, 0).UTC().Format(http.TimeFormat)
			last := strconv.Itoa(size - 1)
			for round := range 2 { // the second may come from the cache
				for _, c := range []struct {
					name    string
					headers []string
					status  int
					body    string
				}{
					{"whole", nil, 200, content},
					{"If-None-Match same", []string{"If-None-Match: " + etag}, 304, ""},
					{"If-None-Match weak", []string{"If-None-Match: W/" + etag}, 304, ""},
					{"If-None-Match among others", []string{`If-None-Match: "a", ` + etag}, 304, ""},
					{"If-None-Match any", []string{"If-None-Match: *"}, 304, ""},
					{"If-None-Match other", []string{`If-None-Match: "a"`}, 200, content},
					{"If-Match same", []string{"If-Match: " + etag}, 200, content},
					{"If-Match weak", []string{"If-Match: W/" + etag}, 412, ""},
					{"If-Match other", []string{`If-Match: "a"`}, 412, ""},
					{"If-Modified-Since same", []string{"If-Modified-Since: " + date}, 304, ""},
					{"If-Modified-Since long ago", []string{"If-Modified-Since: Mon, 01 Jan 2001 00:00:00 GMT"}, 200, content},
					{"If-Modified-Since nonsense", []string{"If-Modified-Since: yesterday"}, 200, content},
					{"If-Unmodified-Since long ago", []string{"If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT"}, 412, ""},
					{"first byte", []string{"Range: bytes=0-0"}, 206, content[:1]},
					{"last byte", []string{"Range: bytes=-1"}, 206, content[size-1:]},
					{"from the last", []string{"Range: bytes=" + last + "-"}, 206, content[size-1:]},
					{"all as a range", []string{"Range: bytes=0-"}, 206, content},
					{"a longer suffix than there is", []string{"Range: bytes=-99999999"}, 206, content},
					{"a longer range than there is", []string{"Range: bytes=0-99999999"}, 206, content},
					{"past the end", []string{"Range: bytes=" + strconv.Itoa(size) + "-"}, 416, ""},
					{"backwards", []string{"Range: bytes=5-1"}, 416, ""},
					{"negative", []string{"Range: bytes=--1"}, 416, ""},
					{"another unit", []string{"Range: lines=0-1"}, 416, ""},
					{"overflowing", []string{"Range: bytes=0-99999999999999999999999"}, 416, ""},
					{"If-Range same", []string{"If-Range: " + etag, "Range: bytes=0-0"}, 206, content[:1]},
					{"If-Range other", []string{`If-Range: "a"`, "Range: bytes=0-0"}, 200, content},
					{"If-Range weak", []string{"If-Range: W/" + etag, "Range: bytes=0-0"}, 200, content},
					{"If-Range date", []string{"If-Range: " + date, "Range: bytes=0-0"}, 206, content[:1]},
				} {
					for _, method := range []string{"GET", "HEAD"} {
						a := ts.do(method, raw, nil, c.headers...)
						wantBody := c.body
						if method == "HEAD" {
							wantBody = ""
						}
						if a.StatusCode != c.status || c.status < 300 && a.body != wantBody {
							t.Fatalf("%s %s, round %d: %d, %d bytes; want %d, %d bytes", method, c.name, round, a.StatusCode, len(a.body), c.status, len(wantBody))
						}
						if c.status == 412 && method == "GET" {
							a.want(412, "precondition_failed")
						}
						h := a.Header
						if c.status < 412 && h.Get("Etag") != etag || c.status < 300 && (h.Get("Accept-Ranges") != "bytes" || h.Get("Last-Modified") != date || h.Get("Content-Length") != strconv.Itoa(len(c.body))) {
							t.Errorf("%s %s: headers %v", method, c.name, h)
						}
						if want := map[bool]string{true: "no-store", false: "private, no-cache"}[c.status >= 412]; h.Get("Cache-Control") != want {
							t.Errorf("%s %s: Cache-Control %q, want %q", method, c.name, h.Get("Cache-Control"), want)
						}
					}
				}
			}
			if size < 100 {
				return
			}
			// Several ranges in one answer, out of order and across chunks.
			ranges := [][2]int{{size - 10, size - 1}, {5, 20}, {size / 2, size/2 + 30}}
			a := ts.get(raw, fmt.Sprintf("Range: bytes=%d-%d,%d-%d,%d-%d", ranges[0][0], ranges[0][1], ranges[1][0], ranges[1][1], ranges[2][0], ranges[2][1])).want(206, "")
			kind, params, _ := mime.ParseMediaType(a.Header.Get("Content-Type"))
			mr := multipart.NewReader(strings.NewReader(a.body), params["boundary"])
			for i, r := range ranges {
				pt, err := mr.NextPart()
				if err != nil || kind != "multipart/byteranges" {
					t.Fatalf("part %d of %s: %v", i, kind, err)
				}
				if b, _ := io.ReadAll(pt); string(b) != content[r[0]:r[1]+1] || pt.Header.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/%d", r[0], r[1], size) {
					t.Errorf("part %d: %d bytes, %s", i, len(b), pt.Header.Get("Content-Range"))
				}
			}
			// Ranges that add up to more than everything are a way to make a server work: all of it, once.
			if a := ts.get(raw, "Range: bytes="+strings.TrimSuffix(strings.Repeat("0-,", 20), ",")); a.StatusCode != 200 || len(a.body) != size {
				t.Errorf("twenty times everything: %d, %d bytes", a.StatusCode, len(a.body))
			}
		})
	}
}

// TestRawClosed: content that is not open has no validators and no ranges, and is never kept by anybody.
func TestRawClosed(t *testing.T) {
	ts := start(t)
	proof := strings.Repeat("0a", 32)
	raw, _ := hex.DecodeString(proof)
	for _, c := range []struct{ name, option, key string }{
		{"password", "X-Paste-Password: pw", "X-Paste-Password: pw"},
		{"proof", "X-Read-Proof-SHA256: " + sum256(string(raw)), "X-Read-Proof: " + proof},
		{"burning", "X-Burn-After-Read: true", "X-Nothing: 1"},
	} {
		content := pattern(chunkSize + 1000)
		p := ts.create(content, c.option)
		for _, method := range []string{"HEAD", "GET"} {
			a := ts.do(method, "/"+p.ID+"/raw", nil, c.key, "Range: bytes=0-0", "If-None-Match: *", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT").want(200, "")
			for _, name := range []string{"Etag", "Last-Modified", "Accept-Ranges", "Content-Range"} {
				if a.Header.Get(name) != "" {
					t.Errorf("%s %s: %s: %s", method, c.name, name, a.Header.Get(name))
				}
			}
			if a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Content-Length") != strconv.Itoa(len(content)) || method == "GET" && a.body != content {
				t.Errorf("%s %s: %d bytes, headers %v", method, c.name, len(a.body), a.Header)
			}
		}
	}
}

// TestLeavingAmidRanges: a client that leaves while several ranges are being sent must not leave behind a reader that goes on
// with a buffer that others are given meanwhile. (The race detector sees it, and the content that others get.)
func TestLeavingAmidRanges(t *testing.T) {
	ts := start(t, "MAX_DOWNLOADS=512")
	content, other := pattern(8*chunkSize), strings.Repeat("another content. ", 2*chunkSize/17)
	p, q := ts.create(content), ts.create(other)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 12 {
				c := ts.dial()
				fmt.Fprintf(c, "GET /%s/raw HTTP/1.1\r\nHost: x\r\nRange: bytes=1-900000,1000000-1900000\r\n\r\n", p.ID)
				io.CopyN(io.Discard, c, int64(1+i*40000+w*10000))
				c.Close()
			}
		})
	}
	wg.Go(func() {
		for range 25 {
			if a := ts.get("/" + q.ID + "/raw"); a.body != other {
				t.Errorf("another paste's content: status %d, %d bytes", a.StatusCode, len(a.body))
				return
			}
		}
	})
	wg.Wait()
	ts.stored(2)
}

// TestPassword: 401 without, 403 with a wrong one, 200 with the right one, by header and Basic; nothing burned meanwhile.
func TestPassword(t *testing.T) {
	ts := start(t, proxied...)
	const pass = "pässwörd with blanks:and colons"
	p := ts.create("secret content", withCert(certAlice, "X-Paste-Password: "+pass, "X-Burn-After-Read: true")...)
	raw := "/" + p.ID + "/raw"
	basic := func(user, pw string) string {
		r, _ := http.NewRequest("GET", "/", nil)
		r.SetBasicAuth(user, pw)
		return "Authorization: " + r.Header.Get("Authorization")
	}
	for _, c := range []struct {
		name    string
		headers []string
		status  int
		code    string
	}{
		{"none", nil, 401, "password_required"},
		{"empty", []string{"X-Paste-Password: "}, 401, "password_required"},
		{"Basic without a password", []string{basic("user", "")}, 401, "password_required"},
		{"Bearer", []string{"Authorization: Bearer " + pass}, 401, "password_required"},
		{"damaged Basic", []string{"Authorization: Basic !!!"}, 401, "password_required"},
		{"wrong", []string{"X-Paste-Password: " + pass + "x"}, 403, "password_wrong"},
		{"wrong by Basic", []string{basic("", "x")}, 403, "password_wrong"},
		{"1,025 bytes", []string{"X-Paste-Password: " + strings.Repeat("p", 1025)}, 403, "password_wrong"},
		{"the owner", withCert(certAlice), 401, "password_required"},
		{"the token", []string{"X-Delete-Token: " + p.DeleteToken}, 401, "password_required"},
	} {
		for _, method := range []string{"HEAD", "GET"} {
			if method == "HEAD" && c.code == "password_wrong" && c.name != "wrong" {
				continue // each costs a derivation
			}
			a := ts.do(method, raw, nil, c.headers...)
			if a.StatusCode != c.status || method == "GET" && a.field("code") != c.code {
				t.Errorf("%s %s: %d %s", method, c.name, a.StatusCode, a.body)
			}
			want := ""
			if c.status == 401 {
				want = `Basic realm="paste", charset="UTF-8"`
			}
			if got := a.Header.Get("WWW-Authenticate"); got != want {
				t.Errorf("%s %s: WWW-Authenticate %q", method, c.name, got)
			}
			if strings.Contains(a.body, "secret content") {
				t.Errorf("%s %s: shows the content", method, c.name)
			}
		}
	}
	ts.do("HEAD", raw, nil, "X-Paste-Password: "+pass).want(200, "")
	if a := ts.get(raw, basic("anybody", pass)).want(200, ""); a.body != "secret content" {
		t.Errorf("content %q", a.body)
	}
	ts.get(raw, basic("anybody", pass)).want(404, "not_found")
	if strings.Contains(ts.logs.String(), pass) || strings.Contains(ts.logs.String(), "secret content") {
		t.Error("password or content in the log")
	}
	// The longest that is taken.
	long := strings.Repeat("p", 1024)
	p = ts.create("x", "X-Paste-Password: "+long)
	ts.get("/"+p.ID+"/raw", "X-Paste-Password: "+long).want(200, "")
	if n := ts.number("SELECT length(password) FROM pastes"); n != 64 {
		t.Errorf("%d bytes are stored for a password", n)
	}
	ts.stored(1)
}

// TestDerivationSlots: one derivation runs for a client at a time, 8 wait, whoever comes then is told so at once; and reads
// without a password go on meanwhile.
func TestDerivationSlots(t *testing.T) {
	ts := start(t, proxied...)
	open := ts.create("open")
	var busy, stored, other atomic.Int64
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range 16 {
		wg.Go(func() {
			<-begin
			a, err := ts.try("POST", "/", strings.NewReader("x"), from(fmt.Sprintf("192.0.2.%d", i), "X-Paste-Password: pw")...)
			switch {
			case err != nil:
				other.Add(1)
			case a.StatusCode == 201:
				stored.Add(1)
			case a.StatusCode == 503 && a.field("code") == "busy" && a.Header.Get("Retry-After") != "":
				busy.Add(1)
			default:
				other.Add(1)
			}
		})
	}
	close(begin)
	best := time.Hour
	for range 5 {
		begun := time.Now()
		ts.get("/"+open.ID+"/raw").want(200, "")
		best = min(best, time.Since(begun))
	}
	if best > 2*time.Second {
		t.Errorf("an open paste took %v meanwhile", best)
	}
	wg.Wait()
	if running := int64(max(1, cores()-1)); other.Load() != 0 || busy.Load() == 0 || stored.Load() < 8+running {
		t.Errorf("%d stored, %d told to come back, %d otherwise", stored.Load(), busy.Load(), other.Load())
	}
	ts.stored(1 + stored.Load())
}

// TestBurn: of fifty readers at once exactly one sees the content, all others see what anybody sees who guesses an id.
func TestBurn(t *testing.T) {
	for _, size := range []int{100, 3*chunkSize + 5} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			ts := start(t, "MAX_DOWNLOADS=4096")
			content := pattern(size)
			p := ts.create(content, "X-Burn-After-Read: true")
			raw := "/" + p.ID + "/raw"
			for range 3 { // neither of these burns
				if a := ts.do("HEAD", raw, nil).want(200, ""); a.Header.Get("Content-Length") != strconv.Itoa(size) || a.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
					t.Errorf("HEAD: %v", a.Header)
				}
				ts.get("/"+p.ID).want(200, "")
			}
			missing := ts.get("/0123456789abcdef/raw", "X-Request-ID: r").want(404, "").body
			var whole, gone atomic.Int64
			var wg sync.WaitGroup
			begin := make(chan struct{})
			for range 50 {
				wg.Go(func() {
					<-begin
					a, err := ts.try("GET", raw, nil, "X-Request-ID: r")
					switch {
					case err == nil && a.StatusCode == 200 && a.body == content:
						whole.Add(1)
					case err == nil && a.StatusCode == 404 && a.body == missing:
						gone.Add(1)
					case err != nil:
						t.Error(err)
					default:
						t.Errorf("status %d, %d bytes", a.StatusCode, len(a.body))
					}
				})
			}
			close(begin)
			wg.Wait()
			if whole.Load() != 1 || gone.Load() != 49 {
				t.Errorf("%d saw it, %d did not", whole.Load(), gone.Load())
			}
			ts.get("/"+p.ID).want(404, "not_found")
			ts.do("HEAD", raw, nil).want(404, "")
			ts.do("DELETE", "/"+p.ID, nil, "X-Delete-Token: "+p.DeleteToken).want(404, "not_found")
			ts.do("PUT", "/"+p.ID, strings.NewReader("x"), "X-Delete-Token: "+p.DeleteToken).want(404, "not_found")
			ts.nothing()
		})
	}
}

// TestPreviews: each sign of a preview refuses a burning paste, burns nothing, and touches no other paste.
func TestPreviews(t *testing.T) {
	ts := start(t)
	burning, open := ts.create("burning", "X-Burn-After-Read: true"), ts.create("open")
	refused := [][]string{
		{"Sec-Purpose: prefetch"}, {"Sec-Purpose: prefetch;prerender"}, {"Sec-Purpose: PREFETCH"}, {"Purpose: prefetch"}, {"Purpose: preview"}, {"X-Purpose: preview"},
		{"X-Moz: prefetch"}, {"Purpose: other", "Purpose: prefetch"}, {"Sec-Purpose: prerender"},
		{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"}, {"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors"}, {"Sec-Fetch-Site: cross-site"},
	}
	for _, agent := range []string{"Googlebot/2.1", "Twitterbot/1.0", "SomeCrawler", "a spider", "Link Preview Service", "facebookexternalhit/1.1", "WhatsApp/2.23", "Slackbot-LinkExpanding 1.0",
		"Slack-ImgProxy", "Mozilla/5.0 (compatible; Discordbot/2.0)", "SkypeUriPreview", "Embedly/0.2", "urlscan.io"} {
		refused = append(refused, []string{"User-Agent: " + agent})
	}
	for _, h := range refused {
		for _, method := range []string{"HEAD", "GET"} {
			a := ts.do(method, "/"+burning.ID+"/raw", nil, h...)
			if a.StatusCode != 403 || method == "GET" && a.field("code") != "preview_refused" {
				t.Fatalf("%s %v: %d %s", method, h, a.StatusCode, a.body)
			}
			ts.do(method, "/"+open.ID+"/raw", nil, h...).want(200, "")
			ts.do(method, "/"+burning.ID, nil, h...).want(200, "")
		}
	}
	ts.stored(2)
	for _, h := range [][]string{
		{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "User-Agent: Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0"},
		{"Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"}, {"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"}, {"User-Agent: curl/8.5.0"}, {"Purpose: reading"},
	} {
		p := ts.create("burning", "X-Burn-After-Read: true")
		if a := ts.get("/"+p.ID+"/raw", h...); a.StatusCode != 200 {
			t.Errorf("%v: %d %s", h, a.StatusCode, a.body)
		}
	}
}

// TestReadProof: only the preimage opens, and it is asked for before the password and before anything burns.
func TestReadProof(t *testing.T) {
	ts := start(t, proxied...)
	key := bytes.Repeat([]byte{0x5a}, 32)
	sum := sha256.Sum256(key)
	proof := hex.EncodeToString(key)
	p := ts.create("sealed", withCert(certAlice, "X-Read-Proof-SHA256: "+strings.ToUpper(hex.EncodeToString(sum[:])), "X-Burn-After-Read: true", "X-Paste-Password: pw")...)
	raw := "/" + p.ID + "/raw"
	for _, h := range [][]string{
		nil, {"X-Read-Proof: "}, {"X-Read-Proof: " + hex.EncodeToString(sum[:])}, {"X-Read-Proof: " + proof[:62]}, {"X-Read-Proof: " + proof + "00"},
		{"X-Read-Proof: " + strings.Repeat("z", 64)}, {"X-Read-Proof: " + strings.Repeat("00", 32)}, {"X-Read-Proof: " + proof, "X-Read-Proof: " + proof},
		{"X-Paste-Password: pw"}, withCert(certAlice, "X-Paste-Password: pw"), {"X-Delete-Token: " + p.DeleteToken},
	} {
		for _, method := range []string{"HEAD", "GET"} {
			a := ts.do(method, raw, nil, h...)
			if a.StatusCode != 403 || method == "GET" && a.field("code") != "read_proof_required" {
				t.Errorf("%s %v: %d %s", method, h, a.StatusCode, a.body)
			}
		}
	}
	ts.get(raw, "X-Read-Proof: "+proof).want(401, "password_required")
	ts.do("HEAD", raw, nil, "X-Read-Proof: "+proof, "X-Paste-Password: pw").want(200, "")
	ts.get(raw, "X-Read-Proof: "+proof, "X-Paste-Password: pw", "User-Agent: Slackbot").want(403, "preview_refused")
	if a := ts.get(raw, "X-Read-Proof: "+strings.ToUpper(proof), "X-Paste-Password: pw").want(200, ""); a.body != "sealed" {
		t.Errorf("content %q", a.body)
	}
	ts.nothing()
	if strings.Contains(ts.logs.String(), proof) {
		t.Error("the proof is in the log")
	}
}

// TestUpdate: every status of PUT P/<id> in its order, and what a refusal leaves as it was.
func TestUpdate(t *testing.T) {
	ts := start(t, append([]string{"MAX_ANON=10KiB", "MIN_SIZE=2"}, proxied...)...)
	ts.clock.hold()
	burning := ts.create("burning", withCert(certAlice, "X-Burn-After-Read: true")...)
	p := ts.create("first content", withCert(certAlice, "X-Display-Name: name", "Content-Type: application/yaml")...)
	token, wrong := "X-Delete-Token: "+p.DeleteToken, "X-Delete-Token: "+strings.Repeat("A", 43)
	before := ts.get("/"+p.ID, withCert(certAlice)...).body
	for _, c := range []struct {
		name, id, body string
		headers        []string
		status         int
		code           string
	}{
		{"no such paste", "0123456789abcdef", "x", []string{token}, 404, "not_found"},
		{"no such paste, nothing else right", "0123456789abcdef", "", []string{"X-Expiry: nonsense"}, 404, "not_found"},
		{"no credential", p.ID, "new content", nil, 401, "authentication_required"},
		{"no credential, bad option", p.ID, "", []string{"X-Expiry: nonsense"}, 401, "authentication_required"},
		{"wrong token", p.ID, "new content", []string{wrong}, 403, "not_owner"},
		{"empty token", p.ID, "new content", []string{"X-Delete-Token: "}, 403, "not_owner"},
		{"token twice", p.ID, "new content", []string{token, token}, 403, "not_owner"},
		{"token in another case", p.ID, "new content", []string{"X-Delete-Token: " + flipCase(p.DeleteToken)}, 403, "not_owner"},
		{"another's certificate", p.ID, "new content", withCert(certMallory), 403, "not_owner"},
		{"another's certificate, wrong token", p.ID, "new content", withCert(certMallory, wrong), 403, "not_owner"},
		{"the owner without the proxy's secret", p.ID, "new content", []string{"X-SSL-Client-SHA1: " + certAlice}, 401, "authentication_required"},
		{"burning, no credential", burning.ID, "new content", nil, 401, "authentication_required"},
		{"burning", burning.ID, "new content", withCert(certAlice), 409, "burning"},
		{"burning, bad option", burning.ID, "", withCert(certAlice, "X-Expiry: nonsense"), 409, "burning"},
		{"nothing to do", p.ID, "", []string{token}, 400, "bad_option"},
		{"bad expiry", p.ID, "new content", []string{token, "X-Expiry: nonsense"}, 400, "bad_expiry"},
		{"bad password", p.ID, "", []string{token, "X-Paste-Password: a\tb"}, 400, "bad_password"},
		{"bad burn", p.ID, "", []string{token, "X-Burn-After-Read: "}, 400, "bad_option"},
		{"bad proof", p.ID, "", []string{token, "X-Read-Proof-SHA256: 12"}, 400, "bad_option"},
		{"name of anonymous", p.ID, "", []string{token, "X-Display-Name: n"}, 400, "bad_display_name"},
		{"too large", p.ID, pattern(10<<10 + 1), []string{token}, 413, "too_large"},
		{"too small", p.ID, "x", []string{token}, 400, "too_small"},
		{"bad JSON", p.ID, "{", []string{token, "Content-Type: application/json"}, 400, "bad_json"},
		{"encoded", p.ID, "x", []string{token, "Content-Encoding: gzip"}, 415, "unsupported_encoding"},
		{"another origin", p.ID, "x", []string{token, "Origin: https://evil.example"}, 403, "cross_origin"},
	} {
		for _, known := range []bool{true, false} {
			var body io.Reader = strings.NewReader(c.body)
			if !known {
				body = chunked{body}
			}
			a := ts.do("PUT", "/"+c.id, body, c.headers...)
			if a.StatusCode != c.status || a.field("code") != c.code {
				t.Errorf("%s: %d %s", c.name, a.StatusCode, a.body)
			}
		}
	}
	if after := ts.get("/"+p.ID, withCert(certAlice)...).body; after != before {
		t.Errorf("refusals changed %s to %s", before, after)
	}
	if got := ts.get("/" + p.ID + "/raw").body; got != "first content" {
		t.Errorf("refusals changed the content to %q", got)
	}
	ts.stored(2)

	// By token: the content, its type and its validators; the token and the owner survive.
	ts.clock.advance(time.Hour)
	for i, size := range []int{10, 9 << 10} {
		content := pattern(size)
		a := ts.do("PUT", "/"+p.ID, strings.NewReader(content), token).want(200, "")
		if a.field("sha256") != sum256(content) || a.field("size") != strconv.Itoa(size) || a.field("mime_type") != "text/plain; charset=utf-8" || a.field("id") != p.ID ||
			a.field("owner") != "" || a.field("display_name") != "" || a.field("delete_token") != "" || a.Header.Get("X-Delete-Token") != "" {
			t.Errorf("change %d: %s", i, a.body)
		}
		if a.field("created_at") != strconv.FormatInt(p.CreatedAt, 10) || i == 0 && a.field("expires_at") != strconv.FormatInt(p.ExpiresAt, 10) {
			t.Errorf("change %d moved a time: %s", i, a.body)
		}
		b := ts.get("/"+p.ID+"/raw").want(200, "")
		if modified, _ := http.ParseTime(b.Header.Get("Last-Modified")); b.body != content || b.Header.Get("Etag") != `"`+sum256(content)+`"` || modified.Unix() < p.CreatedAt+3600 {
			t.Errorf("change %d: read %d bytes, %v", i, len(b.body), b.Header)
		}
	}
	// By the owner: from one chunk to several and back.
	for _, size := range []int{3*chunkSize + 1, 5, chunkSize, 2 * chunkSize} {
		content := pattern(size)
		if a := ts.do("PUT", "/"+p.ID, chunked{strings.NewReader(content)}, withCert(certAlice)...).want(200, ""); a.field("owner") != certAlice || a.field("display_name") != "name" {
			t.Errorf("answer %s", a.body)
		}
		if got := ts.get("/" + p.ID + "/raw").body; got != content {
			t.Errorf("%d bytes read, %d written", len(got), size)
		}
		ts.stored(2)
	}
	// In the other forms.
	ts.do("PUT", "/"+p.ID, strings.NewReader(`{"content":"by JSON","expiry":"1h"}`), token, "Content-Type: application/json").want(200, "")
	ts.do("PUT", "/"+p.ID, strings.NewReader(form(field("expiry", "2h"), file("x", "by form"))), token, formType).want(200, "")
	if a := ts.get("/" + p.ID + "/raw"); a.body != "by form" {
		t.Errorf("content %q", a.body)
	}
}

func flipCase(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r ^ 0x20
		}
		return r
	}, s)
}

// TestUpdateOptions: options alone, set and removed, leave the content as it is.
func TestUpdateOptions(t *testing.T) {
	ts := start(t, proxied...)
	ts.clock.hold()
	p := ts.create("content", withCert(certAlice)...)
	raw := "/" + p.ID + "/raw"
	change := func(headers ...string) *answer {
		t.Helper()
		return ts.do("PUT", "/"+p.ID, nil, withCert(certAlice, headers...)...).want(200, "")
	}
	if a := change("X-Display-Name: me", "X-Expiry: 1h"); a.field("display_name") != "me" || a.field("expires_at") != strconv.FormatInt(ts.clock.now().Unix()+3600, 10) {
		t.Errorf("set: %s", a.body)
	}
	ts.get(raw).want(200, "") // a fixed deadline now: not renewed
	if a := ts.get("/" + p.ID); ts.number("SELECT life FROM pastes") != 0 || a.field("expires_at") > strconv.FormatInt(ts.clock.now().Unix()+3600, 10) {
		t.Errorf("a fixed deadline was renewed: %s", a.body)
	}
	change("X-Paste-Password: pw")
	ts.get(raw).want(401, "password_required")
	if a := change("X-Paste-Password: "); a.field("password_protected") != "" || a.field("sha256") != p.SHA256 {
		t.Errorf("password removed: %s", a.body)
	}
	if a := ts.get(raw).want(200, ""); a.body != "content" {
		t.Errorf("content %q", a.body)
	}
	if a := change("X-Display-Name: "); a.field("display_name") != "" {
		t.Errorf("name removed: %s", a.body)
	}
	if a := change("X-Expiry: "); ts.number("SELECT life FROM pastes") != 7*86400 || a.field("expires_at") < strconv.FormatInt(p.ExpiresAt, 10) {
		t.Errorf("expiry removed: %s", a.body)
	}
	if a := change("X-Read-Proof-SHA256: " + strings.Repeat("ab", 32)); a.field("read_proof") != "true" || a.field("sha256") != "" {
		t.Errorf("proof set: %s", a.body)
	}
	ts.get(raw).want(403, "read_proof_required")
	if a := change("X-Burn-After-Read: true"); a.field("burn_after_read") != "true" {
		t.Errorf("burn set: %s", a.body)
	}
	ts.do("PUT", "/"+p.ID, nil, withCert(certAlice, "X-Burn-After-Read: false")...).want(409, "burning")

	// Whoever may change a paste may take a name off it, with or without a certificate.
	p = ts.create("content", withCert(certAlice, "X-Display-Name: me")...)
	ts.do("PUT", "/"+p.ID, nil, "X-Delete-Token: "+p.DeleteToken, "X-Display-Name: ").want(200, "")
	if a := ts.get("/"+p.ID, withCert(certAlice)...); a.field("display_name") != "" {
		t.Errorf("the name is still there: %s", a.body)
	}
	// The changed options hold for a cached paste at once.
	p = ts.create("content")
	for range 3 {
		ts.get("/"+p.ID+"/raw").want(200, "")
	}
	ts.do("PUT", "/"+p.ID, nil, "X-Delete-Token: "+p.DeleteToken, "X-Paste-Password: pw").want(200, "")
	ts.get("/"+p.ID+"/raw").want(401, "password_required")
}

// TestUpdateDeadline: MAX_EXPIRY is the longest life of anything, changes included, and no change makes a paste that is dead.
func TestUpdateDeadline(t *testing.T) {
	ts := start(t, "EXPIRY_ANON=10h", "MAX_EXPIRY=20h")
	p := ts.create("x")
	token := "X-Delete-Token: " + p.DeleteToken
	most := strconv.FormatInt(p.CreatedAt+20*3600, 10)
	ts.clock.advance(9 * time.Hour)
	if a := ts.do("PUT", "/"+p.ID, nil, token, "X-Expiry: 20h").want(200, ""); a.field("expires_at") > most {
		t.Errorf("a fixed deadline of %s, the longest life ends at %s", a.field("expires_at"), most)
	}
	ts.clock.advance(10 * time.Hour)
	if a := ts.do("PUT", "/"+p.ID, nil, token, "X-Expiry: ").want(200, ""); a.field("expires_at") != most {
		t.Errorf("without an expiry %s, the longest life ends at %s", a.field("expires_at"), most)
	}
	ts.get("/"+p.ID).want(200, "")
}

// TestReplacedMeanwhile: a content that goes between the reading of its row and its own is the next one's, with its checks.
func TestReplacedMeanwhile(t *testing.T) {
	ts := start(t)
	write := func(query string, args ...any) {
		if err := ts.store.do(0, func(w *writeTx) error { _, err := w.exec(query, args...); return err }); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []struct {
		name   string
		change func(p created, token string)
		status int
		want   string
	}{
		{"replaced", func(p created, token string) { ts.do("PUT", "/"+p.ID, strings.NewReader("new"), token).want(200, "") }, 200, "new"},
		{"with another password", func(p created, token string) {
			ts.do("PUT", "/"+p.ID, strings.NewReader("new"), token).want(200, "")
			write("UPDATE pastes SET password = randomblob(64) WHERE id = ?", p.ID)
		}, 403, "password_wrong"},
		{"deleted", func(p created, token string) { ts.do("DELETE", "/"+p.ID, nil, token).want(200, "") }, 404, "not_found"},
		{"lost", func(created, string) { write("DELETE FROM chunks") }, 500, "internal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := ts.create("old", "X-Paste-Password: pw")
			release := make(chan struct{})
			var others sync.WaitGroup
			for i := range ts.kdf.total { // the password of who was there before is still being derived
				others.Go(func() { ts.kdf.do(t.Context(), nthKey(i), func() { <-release }) })
			}
			ts.settled("derivations", int64(ts.kdf.total), func() int64 { return int64(ts.kdf.inUse()) })
			others.Go(func() {
				if a := ts.get("/"+p.ID+"/raw", "X-Paste-Password: pw"); a.StatusCode != c.status || !strings.Contains(a.body, c.want) {
					t.Errorf("%d %q", a.StatusCode, a.body)
				}
			})
			ts.settled("readers that wait", 1, func() int64 {
				ts.kdf.mu.Lock()
				defer ts.kdf.mu.Unlock()
				return int64(len(ts.kdf.queue))
			})
			c.change(p, "X-Delete-Token: "+p.DeleteToken)
			close(release)
			others.Wait()
		})
	}
}

func TestParallelUpdates(t *testing.T) {
	ts := start(t, "MAX_UPLOADS=512", "MAX_DOWNLOADS=4096")
	size := func(i int) int { return []int{500, chunkSize + 100, 2*chunkSize + 300}[i%3] }
	contents := map[string]bool{}
	for i := range 6 {
		contents[strings.Repeat(string(rune('a'+i)), size(i))] = true
	}
	p := ts.create(strings.Repeat("a", size(0)))
	var writers, readers sync.WaitGroup
	var stop atomic.Bool
	var done, busy atomic.Int64
	for i := range 6 {
		writers.Go(func() {
			for range 4 {
				a := ts.do("PUT", "/"+p.ID, strings.NewReader(strings.Repeat(string(rune('a'+i)), size(i))), "X-Delete-Token: "+p.DeleteToken)
				switch {
				case a.StatusCode == 200:
					done.Add(1)
				case a.StatusCode == 503 && a.field("code") == "busy":
					busy.Add(1)
				default:
					t.Errorf("status %d: %s", a.StatusCode, a.body)
				}
			}
		})
	}
	for range 2 {
		readers.Go(func() {
			for !stop.Load() {
				a, err := ts.try("GET", "/"+p.ID+"/raw", nil)
				if err != nil {
					continue // cut: the content was replaced meanwhile
				}
				if a.StatusCode != 200 || !contents[a.body] {
					t.Errorf("status %d, %d bytes that nobody wrote", a.StatusCode, len(a.body))
					return
				}
				if a.Header.Get("Etag") != `"`+sum256(a.body)+`"` {
					t.Error("ETag of another content")
				}
			}
		})
	}
	writers.Wait()
	stop.Store(true)
	readers.Wait()
	if done.Load() == 0 {
		t.Error("no change was made")
	}
	ts.stored(1)
	if got := ts.get("/"+p.ID+"/raw").want(200, "").body; !contents[got] {
		t.Errorf("%d bytes that nobody wrote", len(got))
	}
	t.Logf("%d changes, %d busy", done.Load(), busy.Load())
}

// TestReplacedDuringRead: a reader whose content is replaced sees its connection end, never a mixture and never a whole answer.
func TestReplacedDuringRead(t *testing.T) {
	ts := start(t, "MAX_ANON=16MiB")
	content := strings.Repeat("old content ", 1<<20) // more than the kernel's buffers on the way hold
	for _, how := range []string{"replaced", "deleted"} {
		p := ts.create(content)
		c := ts.dial()
		c.(*net.TCPConn).SetReadBuffer(64 << 10)
		fmt.Fprintf(c, "GET /%s/raw HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", p.ID)
		head := make([]byte, 4096)
		if _, err := io.ReadFull(c, head); err != nil {
			t.Fatal(err)
		}
		if how == "replaced" {
			ts.do("PUT", "/"+p.ID, strings.NewReader(strings.Repeat("NEW CONTENT ", 1<<20/12)), "X-Delete-Token: "+p.DeleteToken).want(200, "")
		} else {
			ts.do("DELETE", "/"+p.ID, nil, "X-Delete-Token: "+p.DeleteToken).want(200, "")
		}
		ts.settled("garbage", 0, func() int64 { return ts.number("SELECT count(*) FROM garbage") })
		rest, _ := io.ReadAll(c)
		all := string(head) + string(rest)
		_, body, _ := strings.Cut(all, "\r\n\r\n")
		if strings.Contains(all, "NEW CONTENT") || len(body) >= len(content) || !strings.HasPrefix(content, body) {
			t.Errorf("%s: the reader got %d bytes, whole or mixed", how, len(body))
		}
	}
}

// TestDelete: the three who may, the order of refusals, and that it is gone at once from cache and disk.
func TestDelete(t *testing.T) {
	ts := start(t, proxied...)
	for _, size := range []int{10, 3 * chunkSize} {
		for _, c := range []struct {
			name    string
			headers func(p created) []string
			status  int
			code    string
		}{
			{"nobody", func(created) []string { return nil }, 401, "authentication_required"},
			{"another", func(created) []string { return withCert(certMallory) }, 403, "not_owner"},
			{"wrong token", func(created) []string { return []string{"X-Delete-Token: x"} }, 403, "not_owner"},
			{"another with a wrong token", func(created) []string { return withCert(certMallory, "X-Delete-Token: x") }, 403, "not_owner"},
			{"another origin", func(p created) []string { return withCert(certAlice, "Sec-Fetch-Site: cross-site") }, 403, "cross_origin"},
			{"owner", func(created) []string { return withCert(certAlice) }, 200, ""},
			{"token", func(p created) []string { return []string{"X-Delete-Token: " + p.DeleteToken} }, 200, ""},
			{"another with the token", func(p created) []string { return withCert(certMallory, "X-Delete-Token: "+p.DeleteToken) }, 200, ""},
		} {
			p := ts.create(pattern(size), withCert(certAlice)...)
			ts.get("/"+p.ID+"/raw").want(200, "") // into the cache
			a := ts.do("DELETE", "/"+p.ID, nil, c.headers(p)...).want(c.status, c.code)
			if c.status != 200 {
				ts.get("/"+p.ID+"/raw").want(200, "")
				ts.do("DELETE", "/"+p.ID, nil, withCert(certAlice)...).want(200, "")
				continue
			}
			if want := `{"id": "` + p.ID + `", "deleted": true}` + "\n"; a.body != want {
				t.Errorf("%s: %q", c.name, a.body)
			}
			ts.get("/"+p.ID+"/raw").want(404, "not_found")
			ts.get("/"+p.ID).want(404, "not_found")
			ts.do("DELETE", "/"+p.ID, nil, c.headers(p)...).want(404, "not_found")
		}
	}
	// Deleting needs neither password nor proof, and burning pastes can be deleted unread.
	p := ts.create("x", "X-Burn-After-Read: true", "X-Read-Proof-SHA256: "+strings.Repeat("ab", 32))
	ts.do("DELETE", "/"+p.ID, nil, "X-Delete-Token: "+p.DeleteToken).want(200, "")
	ts.nothing()
	// Of many who delete at once one does.
	p = ts.create("x")
	var deleted atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if a := ts.do("DELETE", "/"+p.ID, nil, "X-Delete-Token: "+p.DeleteToken); a.StatusCode == 200 {
				deleted.Add(1)
			} else {
				a.want(404, "not_found")
			}
		})
	}
	wg.Wait()
	if deleted.Load() != 1 {
		t.Errorf("deleted %d times", deleted.Load())
	}
	ts.nothing()
}

// page is an answer of GET /pastes.
type page struct {
	Pastes []created `json:"pastes"`
	Count  int       `json:"count"`
	Next   *string   `json:"next_cursor"`
}

func (ts *testServer) list(query string, headers ...string) (p page) {
	ts.t.Helper()
	a := ts.get("/pastes"+query, headers...).want(200, "")
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || p.Count != len(p.Pastes) || p.Pastes == nil {
		ts.t.Fatalf("list %s: %v: %s", query, err, a.body)
	}
	return p
}

// TestList: the caller's own, newest first, page by page, with every filter; nobody else's.
func TestList(t *testing.T) {
	ts := start(t, proxied...)
	ts.get("/pastes").want(401, "authentication_required")
	ts.get("/pastes", "X-SSL-Client-SHA1: "+certAlice).want(401, "authentication_required")
	if p := ts.list("", withCert(certAlice)...); p.Count != 0 || p.Next != nil {
		t.Errorf("an empty list: %+v", p)
	}
	ts.create("anonymous")
	ts.create("mallory's", withCert(certMallory)...)
	var all []created // newest first
	first := ts.clock.now().Unix()
	for i := range 25 {
		headers := []string{"X-Display-Name: Größe " + strconv.Itoa(i) + ` 100%_\ "q"`}
		content := "text " + strconv.Itoa(i)
		if i%5 == 0 {
			content = "\x89PNG\r\n\x1a\n" + content
		}
		if i%5 == 1 {
			headers = append(headers, "Content-Type: image/gif")
		}
		if i == 7 {
			headers = append(headers, "X-Burn-After-Read: true")
		}
		all = slices.Insert(all, 0, ts.create(content, withCert(certAlice, headers...)...))
		if i%3 == 2 {
			ts.clock.advance(time.Minute)
		}
	}
	dead := ts.create("expires", withCert(certAlice, "X-Expiry: 1")...)
	ts.clock.advance(2 * time.Second)
	ids := func(list []created) (s []string) {
		for _, p := range list {
			s = append(s, p.ID)
		}
		return s
	}
	same := func(name string, got, want []created) {
		t.Helper()
		if !slices.Equal(ids(got), ids(want)) {
			t.Errorf("%s: %v, want %v", name, ids(got), ids(want))
		}
	}
	filter := func(keep func(p created) bool) (list []created) {
		for _, p := range all {
			if keep(p) {
				list = append(list, p)
			}
		}
		return list
	}
	one := ts.list("", withCert(certAlice)...)
	same("all", one.Pastes, all)
	if one.Next != nil || slices.Contains(ids(one.Pastes), dead.ID) {
		t.Errorf("next %v, or an expired one in the list", one.Next)
	}
	for i, p := range one.Pastes {
		if p.Owner != certAlice || p.DisplayName != all[i].DisplayName || p.DeleteToken != "" || p.Size != all[i].Size || (p.SHA256 == "") != p.Burn {
			t.Fatalf("entry %+v", p)
		}
	}
	for _, limit := range []int{1, 3, 7, 25, 26, 200, 100000} {
		var got []created
		cursor := ""
		for pages := 0; ; pages++ {
			p := ts.list("?limit="+strconv.Itoa(limit)+cursor, withCert(certAlice)...)
			got = append(got, p.Pastes...)
			if len(p.Pastes) > limit || pages > 30 {
				t.Fatalf("limit %d: %d entries", limit, len(p.Pastes))
			}
			if p.Next == nil {
				break
			}
			cursor = "&cursor=" + url.QueryEscape(*p.Next)
		}
		same("limit "+strconv.Itoa(limit), got, all)
	}
	middle := all[12].CreatedAt
	q := func(v string) string { return url.QueryEscape(v) }
	for _, c := range []struct {
		query string
		keep  func(p created) bool
	}{
		{"?q=" + q("Größe 1"), func(p created) bool { return strings.Contains(p.DisplayName, "Größe 1") }},
		{"?q=" + q("größe 1"), func(p created) bool { return strings.Contains(p.DisplayName, "Größe 1") }},
		{"?q=" + q("100%_\\ \"q\""), func(p created) bool { return true }},
		{"?q=" + q("%"), func(p created) bool { return true }},
		{"?q=" + q("e 1_"), func(p created) bool { return false }},
		{"?q=" + q("GR"), func(p created) bool { return true }},
		{"?q=" + all[3].ID[2:12], func(p created) bool { return p.ID == all[3].ID }},
		{"?q=" + strings.ToUpper(all[3].ID), func(p created) bool { return p.ID == all[3].ID }},
		{"?q=" + q("' OR 1=1 --"), func(p created) bool { return false }},
		{"?type=image/png", func(p created) bool { return p.Mime == "image/png" }},
		{"?type=IMAGE/PNG", func(p created) bool { return p.Mime == "image/png" }},
		{"?type=image/*", func(p created) bool { return strings.HasPrefix(p.Mime, "image/") }},
		{"?type=text/plain", func(p created) bool { return strings.HasPrefix(p.Mime, "text/plain") }},
		{"?type=video/*", func(p created) bool { return false }},
		{fmt.Sprintf("?after=%d", middle), func(p created) bool { return p.CreatedAt > middle }},
		{fmt.Sprintf("?before=%d", middle), func(p created) bool { return p.CreatedAt < middle }},
		{fmt.Sprintf("?after=%d&before=%d", first, middle), func(p created) bool { return p.CreatedAt > first && p.CreatedAt < middle }},
		{"?after=" + q(time.Unix(middle, 0).UTC().Format(time.RFC3339)), func(p created) bool { return p.CreatedAt > middle }},
		{"?before=" + q(time.Unix(middle, 0).In(time.FixedZone("x", 7200)).Format(time.RFC3339)), func(p created) bool { return p.CreatedAt < middle }},
		{"?q=1&type=image/*", func(p created) bool {
			return strings.HasPrefix(p.Mime, "image/") && (strings.Contains(p.DisplayName, "1") || strings.Contains(p.ID, "1"))
		}},
	} {
		same(c.query, ts.list(c.query, withCert(certAlice)...).Pastes, filter(c.keep))
	}
	for _, query := range []string{"?limit=0", "?limit=-1", "?limit=x", "?limit=", "?limit=1&limit=2", "?limit=99999999999999999999", "?cursor=x", "?cursor=AAAA", "?cursor=" + strings.Repeat("A", 23),
		"?type=image", "?type=*/*", "?type=image/*x", "?type=", "?after=x", "?after=-1", "?before=2026-01-01", "?before=", "?q=%ff", "?q=" + strings.Repeat("x", 5000), "?other=1", "?Limit=1"} {
		ts.get("/pastes"+query, withCert(certAlice)...).want(400, "bad_option")
	}
	for _, query := range []string{"?owner=all", "?owner=anonymous", "?owner=" + certAlice, "?owner=" + certMallory, "?owner=", "?owner=x"} {
		ts.get("/pastes"+query, withCert(certAlice)...).want(403, "")
	}
	if got := ts.list("", withCert(certMallory)...); got.Count != 1 || got.Pastes[0].Owner != certMallory {
		t.Errorf("mallory's list: %+v", got)
	}
	// A cursor of one owner shows another nothing that is not theirs.
	next := ts.list("?limit=5", withCert(certAlice)...).Next
	for _, p := range ts.list("?cursor="+*next, withCert(certMallory)...).Pastes {
		if p.Owner != certMallory {
			t.Errorf("mallory sees %+v", p)
		}
	}
	ts.do("HEAD", "/pastes", nil, withCert(certAlice)...).want(200, "")
}

// TestNobodyIsAdmin: without a table of certificates no header makes anybody more than untrusted.
func TestNobodyIsAdmin(t *testing.T) {
	ts := start(t, proxied...)
	p := ts.create("x", withCert(certAlice)...)
	for _, h := range [][]string{withCert("admin"), withCert(certMallory, "X-Is-Admin: 1"), withCert(certMallory, "X-Admin: true", "X-Tier: admin"), withCert(certMallory + "," + certAlice)} {
		a := ts.do("DELETE", "/"+p.ID, nil, h...)
		if a.StatusCode == 200 {
			t.Fatalf("%v deleted it", h)
		}
		if a := ts.get("/pastes?owner=all", h...); a.StatusCode == 200 {
			t.Errorf("%v lists everybody's", h)
		}
	}
	ts.stored(1)
}

// TestIDs: drawn long enough and at random, looked up strictly.
func TestIDs(t *testing.T) {
	for _, n := range []int{12, 13, 64} {
		ts := start(t, "ID_LENGTH="+strconv.Itoa(n))
		seen := map[string]bool{}
		for range 20 {
			p := ts.create("x")
			if len(p.ID) != n || !idShaped(p.ID) || seen[p.ID] {
				t.Errorf("id %q", p.ID)
			}
			seen[p.ID] = true
			ts.get("/"+p.ID+"/raw").want(200, "")
		}
	}
	ts := start(t)
	p := ts.create("x")
	for strings.ToUpper(p.ID) == p.ID { // digits only, one in 1,800
		p = ts.create("x")
	}
	missing := ts.get("/0123456789abcdef", "X-Request-ID: r").want(404, "not_found").body
	for _, id := range []string{strings.ToUpper(p.ID), p.ID[:15], p.ID + "0", p.ID + "%20", "%20" + p.ID, p.ID + "%00", p.ID[:8] + "%2f" + p.ID[8:], "..%2f" + p.ID, "%2e%2e%2f" + p.ID, p.ID + "%0d%0aX-Evil:%201",
		"%ef%bc%90" + p.ID, strings.Repeat("a", 65), strings.Repeat("a", 10<<10), "%25", "*", "'%20OR%201=1--", p.ID + ".txt", p.ID + "%3f", "\xff\xfe"} {
		id = strings.NewReplacer("\xff", "%ff", "\xfe", "%fe").Replace(id)
		for _, path := range []string{"/" + id, "/" + id + "/raw"} {
			a := ts.get(path, "X-Request-ID: r")
			if a.StatusCode != 404 || a.body != missing || a.Header.Get("X-Evil") != "" || a.Header.Get("Location") != "" {
				t.Errorf("%.60q: %d %s %v", path, a.StatusCode, a.body, a.Header)
			}
		}
	}
	for _, path := range []string{"/" + p.ID + "/", "/" + p.ID + "/raw/", "/" + p.ID + "/RAW", "/" + p.ID + "/raw%2f", "/" + p.ID + "/info", "/" + p.ID + "/raw/x", "//" + p.ID, "/./" + p.ID, "/x/../" + p.ID, "/" + p.ID + "//raw"} {
		a := ts.byHand("GET", "GET "+path+" HTTP/1.1\r\nHost: x\r\nX-Request-ID: r\r\nConnection: close\r\n\r\n")
		if a.StatusCode != 404 || a.body != missing || a.Header.Get("Location") != "" {
			t.Errorf("%s: %d %s %v", path, a.StatusCode, a.body, a.Header)
		}
	}
	// 8 digits are enough for a lookup: rows of an older length stay readable.
	ts.store.do(0, func(w *writeTx) error {
		_, err := w.exec("UPDATE pastes SET id = 'abcdef01' WHERE id = ?", p.ID)
		return err
	})
	ts.get("/abcdef01").want(200, "")
	ts.get("/abcdef0").want(404, "")
	for name, path := range map[string]string{"7 digits": "/abcdef0", "no hex": "/abcdefgh", "8 in capitals": "/ABCDEF01"} {
		if a := ts.do("PUT", path, strings.NewReader("y")); a.StatusCode != 201 {
			t.Errorf("PUT %s: %d", name, a.StatusCode)
		}
	}
	if a := ts.do("PUT", "/0123456789abcdef", strings.NewReader("y"), "X-Request-ID: r").want(404, "not_found"); a.field("hint") == "" || a.field("error") != "not found" {
		t.Errorf("PUT of an id that is not there: %s", a.body)
	}
}

// TestTakenID: an id that is taken is drawn again; the first paste stays.
func TestTakenID(t *testing.T) {
	ts := start(t)
	p := ts.create("first")
	row, _, err := ts.store.get(p.ID, ts.clock.now().Unix())
	if err != nil {
		t.Fatal(err)
	}
	again := *row
	u := ts.store.newUpload(1 << 40)
	if err := ts.store.create(&again, u, []byte("second"), func(*writeTx) error { return nil }); !errors.Is(err, errTaken) {
		t.Errorf("a second row of the id: %v", err)
	}
	if got := ts.get("/" + p.ID + "/raw").body; got != "first" {
		t.Errorf("content %q", got)
	}
	ts.stored(1)
}

// TestManyCreations: parallel creates of all sizes come back as they went in.
func TestManyCreations(t *testing.T) {
	ts := start(t, "MAX_UPLOADS=512", "MAX_DOWNLOADS=4096")
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			for i := range 15 {
				size := 1 + rnd.IntN(2000)
				if i == 7 {
					size = chunkSize + rnd.IntN(chunkSize)
				}
				content := strings.Repeat(fmt.Sprintf("%d.%d;", w, i), size/3+1)[:size]
				p := ts.create(content)
				if got := ts.get("/" + p.ID + "/raw").body; got != content {
					t.Errorf("%d bytes went in, %d came out", len(content), len(got))
				}
			}
		})
	}
	wg.Wait()
	ts.stored(8 * 15)
}
