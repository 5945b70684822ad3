package main

// What a client may take (api.md sections 3, 6 and 7), over the wire: rates, misses and credentials, bytes, proof of
// work, the
// anti-flood, duplicates, slots, derivations. A table's row says what was there, what is sent, and how it is
// answered;
// and nothing may come of what is refused: nothing stored, nothing spent, nobody else kept out.
//
// All clients are 127.0.0.1, a trusted proxy that names them. The clock stands, and moves by the test's hand.

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/netip"
	"regexp"

	"fmt"
	"io"
	"net"

	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// as returns the headers of client n, for n under 65,536.
func asVisitor(n int, more ...string) []string {
	return append(from(fmt.Sprintf("198.18.%d.%d", n>>8, n&255)), more...)
}

// fresh is a content of n bytes, 26 or more, that nobody else has stored.
func fresh(n int) string { return (rand.Text() + strings.Repeat("0123456789abcdef", n/16))[:n] }

// behindProxy starts a server whose clients are told apart, and stops its clock.
func behindProxy(t testing.TB, env ...string) *testServer {
	ts := start(t, append(slices.Clone(proxied), env...)...)
	ts.clock.hold()
	return ts
}

// The certificates of the tables below, by their SHA-1: two of one owner, one of an admin, one of an owner who
// enrolled, or is
// vouched for.
const (
	certFirst    = "1111111111111111111111111111111111111111"
	certSecond   = "2222222222222222222222222222222222222222"
	certOfAdmin  = "4444444444444444444444444444444444444444"
	certEnrolled = "5555555555555555555555555555555555555555"
	certVouched  = "6666666666666666666666666666666666666666"
)

// certified puts these certificates into the table.
func (ts *testServer) certified() *testServer {
	ts.t.Helper()
	for _, c := range [][2]string{{certFirst, "owner"}, {certSecond, "owner"}, {certOfAdmin, "admin"}, {certEnrolled,
		"enrolled"}, {certVouched, "vouched"}} {
		if err := ts.store.do(0, func(w *writeTx) error {
			w.exec("INSERT INTO certs VALUES (?1, ?2, substr(?1, 1, 32), ?3, 'name', 1, 1 << 40, 0, '', ?4, ?5)",
				sum256(c[0]), c[0], sum256(c[1]), c[1] == "vouched", c[1] == "admin")
			return nil
		}); err != nil {
			ts.t.Fatal(err)
		}
	}
	return ts
}

// pastes is how many there are.
func (ts *testServer) pastes() int64 { ts.t.Helper(); return ts.number("SELECT count(*) FROM pastes") }

// retryAfter is for how many seconds an answer asks to wait, 0: it does not.
func (a *answer) retryAfter() int {
	n, _ := strconv.Atoi(a.Header.Get("Retry-After"))
	return n
}

// together runs f n times at once and counts the answers by status.
func together(n int, f func(i int) *answer) map[int]int {
	statuses := map[int]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			a := f(i)
			mu.Lock()
			defer mu.Unlock()
			statuses[a.StatusCode]++
		})
	}
	wg.Wait()
	return statuses
}

// hold begins an upload, sends a byte of it and waits until the server has taken a slot for it.
func (ts *testServer) hold(headers ...string) net.Conn {
	ts.t.Helper()
	taken := int64(ts.uploads.inUse())
	c := ts.dial()
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n%s\r\n\r\nx", strings.Join(headers, "\r\n"))
	ts.settled("upload slots", taken+1, func() int64 { return int64(ts.uploads.inUse()) })
	return c
}

// ---- rates ----

// clients are the names in the tables.
var clients = map[string][]string{
	"a": from("192.0.2.1"), "a on a port": from("192.0.2.1:4711"), "a mapped": from("::ffff:192.0.2.1"),
	"b":   from("192.0.2.2"),
	"net": from("2001:db8:1:1::1"), "its neighbour": from("2001:db8:1:1:ffff::9"),
	"a pseudonym": withCert(certAlice, "X-Forwarded-For: 192.0.2.1"), "another": withCert(certMallory,
		"X-Forwarded-For: 192.0.2.1"),
	"owner": withCert(certFirst, "X-Forwarded-For: 192.0.2.1"), "owner elsewhere": withCert(certFirst,
		"X-Forwarded-For: 192.0.2.2"),
	"by the second": withCert(certSecond, "X-Forwarded-For: 2001:db8::1"), "admin": withCert(certOfAdmin,
		"X-Forwarded-For: 192.0.2.1"),
}

// step is requests that follow one another in a row of the table below.
type step struct {
	after     time.Duration // the clock moves before
	who       string        // of clients
	send      string        // NEW is the id of a fresh paste by somebody else
	header    string
	times     int // 0 is 1; the last answer is looked at, those before have its status
	status    int
	code      string
	remaining string // X-RateLimit-Remaining, "" where nothing is limited
	retry     int    // seconds
}

func TestRates(t *testing.T) {
	const limited = "rate_limited"
	for _, c := range []struct {
		name, env string
		steps     []step
	}{
		{"creations of every kind, and Retry-After is true", "RATE_CREATE=3/m", []step{
			{who: "a", send: "POST /", status: 201, remaining: "2"},
			{who: "a", send: "PUT /name.txt", status: 201, remaining: "1"},
			{who: "a", send: "POST /s", status: 201, remaining: "0"},
			{who: "a", send: "PUT /", status: 429, code: limited, remaining: "0", retry: 20},
			{who: "a", send: "GET /", status: 200},
			{who: "b", send: "POST /", status: 201, remaining: "2"},
			{who: "a", send: "POST /", after: 19 * time.Second, status: 429, code: limited, remaining: "0", retry: 1},
			{who: "a", send: "POST /", after: time.Second, status: 201, remaining: "0"},
			{who: "a", send: "POST /", status: 429, code: limited, remaining: "0", retry: 20},
		}},
		{"changes, deletions and the client are creations", "RATE_CREATE=3/m", []step{
			{who: "a", send: "PUT /NEW", status: 401, code: "authentication_required", remaining: "2"},
			{who: "a", send: "DELETE /NEW", status: 401, code: "authentication_required", remaining: "1"},
			{who: "a", send: "HEAD /client", status: 200, remaining: "0"},
			{who: "a", send: "HEAD /client", status: 429, remaining: "0", retry: 20},
			{who: "a", send: "DELETE /NEW", status: 429, code: limited, remaining: "0", retry: 20},
		}},
		{"reads, before 401 and 404; health never", "RATE_READ=3/m", []step{
			{who: "a", send: "GET /NEW", status: 200, remaining: "2"},
			{who: "a", send: "HEAD /NEW/raw", status: 200, remaining: "1"},
			{who: "a", send: "GET /pastes", status: 401, code: "authentication_required", remaining: "0"},
			{who: "a", send: "GET /pastes", status: 429, code: limited, remaining: "0", retry: 20},
			{who: "a", send: "GET /no/such/route/at/all", status: 429, code: limited, remaining: "0", retry: 20},
			{who: "a", send: "GET /health", times: 20, status: 200},
			{who: "a", send: "POST /", status: 201},
		}},
		{"before 405", "RATE_READ=2/m", []step{
			{who: "a", send: "BREW /", times: 2, status: 405, code: "method_not_allowed", remaining: "0"},
			{who: "a", send: "PATCH /NEW", status: 429, code: limited, remaining: "0", retry: 30},
		}},
		{"before 415 and options", "RATE_CREATE=2/m", []step{
			{who: "a", send: "POST /", header: "Content-Encoding: gzip", times: 2, status: 415, code: "unsupported_encoding", remaining: "0"},
			{who: "a", send: "POST /", header: "Content-Encoding: gzip", status: 429, code: limited, remaining: "0", retry: 30},
			{who: "a", send: "POST /?expiry=1h", status: 429, code: limited, remaining: "0", retry: 30},
			{who: "a", send: "POST /", header: "X-Expiry: never", status: 429, code: limited, remaining: "0", retry: 30},
		}},
		{"an address is one client, whatever its port, spelling or self-signed certificate", "RATE_CREATE=2/m", []step{
			{who: "a on a port", send: "POST /", status: 201, remaining: "1"},
			{who: "a mapped", send: "POST /", status: 201, remaining: "0"},
			{who: "a", send: "POST /", status: 429, code: limited, remaining: "0", retry: 30},
			{who: "a pseudonym", send: "POST /", status: 429, code: limited, remaining: "0", retry: 30},
			{who: "another", send: "POST /", status: 429, code: limited, remaining: "0", retry: 30},
			{who: "b", send: "POST /", status: 201, remaining: "1"},
		}},
		{"a /64 is one client", "RATE_CREATE=2/m", []step{
			{who: "net", send: "POST /", times: 2, status: 201, remaining: "0"},
			{who: "its neighbour", send: "POST /", status: 429, code: limited, remaining: "0", retry: 30},
		}},
		{"an owner has five times as much, wherever and with whichever certificate", "RATE_CREATE=2/m", []step{
			{who: "a", send: "POST /", times: 2, status: 201, remaining: "0"},
			{who: "owner", send: "POST /", status: 201, remaining: "9"},
			{who: "owner elsewhere", send: "POST /", times: 4, status: 201, remaining: "5"},
			{who: "by the second", send: "POST /", times: 5, status: 201, remaining: "0"},
			{who: "owner", send: "POST /", status: 429, code: limited, remaining: "0", retry: 6},
			{who: "b", send: "POST /", status: 201, remaining: "1"},
		}},
		{"and of reads", "RATE_READ=2/m", []step{
			{who: "owner", send: "GET /", times: 10, status: 200, remaining: "0"},
			{who: "owner", send: "GET /", status: 429, code: limited, remaining: "0", retry: 6},
		}},
		{"but not of misses", "RATE_MISS=2/m", []step{
			{who: "owner", send: "GET /0123456789abcdef", times: 2, status: 404, code: "not_found"},
			{who: "owner", send: "GET /NEW", status: 429, code: limited, retry: 30},
		}},
		{"an admin's deletions are not counted, all else is", "RATE_CREATE=1/m", []step{
			{who: "admin", send: "DELETE /NEW", times: 12, status: 200},
			{who: "admin", send: "POST /", times: 5, status: 201, remaining: "0"},
			{who: "admin", send: "POST /", status: 429, code: limited, remaining: "0", retry: 12},
			{who: "admin", send: "DELETE /NEW", status: 200},
		}},
		{"0 is no limit", "RATE_READ=0", []step{{who: "a", send: "GET /", times: 50, status: 200}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ts := behindProxy(t, c.env).certified()
			for i, s := range c.steps {
				ts.clock.advance(s.after)
				for n := range max(1, s.times) {
					ts.takes(fmt.Sprintf("step %d, time %d", i+1, n+1), s, n+1 >= s.times)
				}
			}
		})
	}
}

// takes sends a step once and looks at the answer, at what remains only if it is the last time.
func (ts *testServer) takes(name string, s step, last bool) {
	ts.t.Helper()
	method, path, _ := strings.Cut(s.send, " ")
	if before, after, ok := strings.Cut(path, "NEW"); ok {
		path = before + ts.create(fresh(26), asVisitor(int(ts.store.content.Load()))...).ID + after
	}
	var body io.Reader
	if path == "/s" {
		body = strings.NewReader("https://example.org/")
	} else if method == "POST" || method == "PUT" {
		body = strings.NewReader(fresh(26))
	}
	headers := slices.Clone(clients[s.who])
	if s.header != "" {
		headers = append(headers, s.header)
	}
	before := ts.pastes()
	a := ts.do(method, path, body, headers...)
	if a.StatusCode != s.status || method != "HEAD" && a.field("code") != s.code || a.retryAfter() != s.retry {
		ts.t.Fatalf("%s, %s: %d, Retry-After %d, %s", name, s.send, a.StatusCode, a.retryAfter(), a.body)
	}
	if made := ts.pastes() - before; (a.StatusCode == 201) != (made == 1) || a.StatusCode >= 400 && made != 0 {
		ts.t.Errorf("%s, %s: %d, and %d pastes more", name, s.send, a.StatusCode, made)
	}
	h := a.Header
	if got := h.Get("X-RateLimit-Remaining"); last && got != s.remaining {
		ts.t.Errorf("%s, %s: %q remaining, want %q", name, s.send, got, s.remaining)
	}
	reset, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64)
	now, isLimited := ts.now().Unix(), s.remaining != ""
	if isLimited != (h.Get("X-RateLimit-Limit") != "") || isLimited != (err == nil) || isLimited && (reset < now ||
		reset > now+61) {
		ts.t.Errorf("%s, %s: %v", name, s.send, h)
	}
}

// ---- misses and credentials ----

// TestEmptyAllowanceIsNoOracle: misses and failed credentials are asked for before the lookup. Who has none left is
// answered the same
// whether the paste is there or not; what needs neither goes on, and nobody else is kept out.
func TestEmptyAllowanceIsNoOracle(t *testing.T) {
	ts := behindProxy(t, "RATE_MISS=2/m", "RATE_AUTH=1/m")
	const absent = "0123456789abcdef"
	open, burned := ts.create("open"), ts.create("burned", "X-Burn-After-Read: true")
	locked := ts.create("locked", "X-Paste-Password: pw")
	// SHA-256 of 32 bytes 0x11.
	sealed := ts.create("sealed", "X-Read-Proof-SHA256: 02d449a31fbb267c8f352e9968a79e3e5fc95c1bbeaa502fd6454ebde5a4bedc")
	expired := ts.create("expired", "X-Expiry: 1s")
	deleted := ts.create("deleted")
	ts.do("DELETE", "/"+deleted.ID, nil, asVisitor(99, "X-Delete-Token: "+deleted.DeleteToken)...).want(200, "")
	ts.get("/"+burned.ID+"/raw").want(200, "")
	short := ts.do("POST", "/s", strings.NewReader("https://example.org/")).want(201, "").field("id")
	ts.clock.advance(2 * time.Second)
	const pw, proof, tok = "X-Paste-Password: no",
		"X-Read-Proof: 2222222222222222222222222222222222222222222222222222222222222222", "X-Delete-Token: no"
	for i, c := range []struct {
		name, method, path, there, header string
		status                            int // of the last answer before the allowance is empty
		code                              string
	}{
		{"metadata", "GET", "/ID", open.ID, "", 404, "not_found"},
		{"content", "GET", "/ID/raw", open.ID, "", 404, "not_found"},
		{"HEAD", "HEAD", "/ID", open.ID, "", 404, ""},
		{"content by name", "GET", "/ID/raw/name", open.ID, "", 404, "not_found"},
		{"as text", "GET", "/ID", open.ID, "Accept: text/plain", 404, ""},
		{"deletion", "DELETE", "/ID", open.ID, "", 404, "not_found"},
		{"change", "PUT", "/ID", open.ID, "", 404, "not_found"},
		{"short URL", "GET", "/s/ID", short, "", 404, "not_found"},
		{"its target", "GET", "/s/ID/info", short, "", 404, "not_found"},
		{"its deletion", "DELETE", "/s/ID", short, "", 404, "not_found"},
		{"password", "GET", "/ID/raw", locked.ID, pw, 403, "password_wrong"},
		{"Basic", "GET", "/ID/raw", locked.ID, "Authorization: Basic Om5v", 403, "password_wrong"},
		{"HEAD with a password", "HEAD", "/ID/raw", locked.ID, pw, 403, ""},
		{"an endless password", "GET", "/ID/raw", locked.ID, "X-Paste-Password: " + strings.Repeat("x", 2000), 403, "password_wrong"},
		{"read proof", "GET", "/ID/raw", sealed.ID, proof, 403, "read_proof_required"},
		{"token", "DELETE", "/ID", open.ID, tok, 403, "not_owner"},
		{"token of a change", "PUT", "/ID", open.ID, tok, 403, "not_owner"},
		{"token of a short URL", "DELETE", "/s/ID", short, tok, 403, "not_owner"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ts, headers := ts.in(t), asVisitor(i, "X-Request-ID: same")
			if c.header != "" {
				headers = append(headers, c.header)
			}
			ask := func(id string) *answer {
				var body io.Reader
				if c.method == "PUT" {
					body = strings.NewReader("new")
				}
				return ts.do(c.method, strings.Replace(c.path, "ID", id, 1), body, headers...)
			}
			if c.status == 404 {
				first, others := ask(absent[:len(c.there)]), []string{deleted.ID, burned.ID, expired.ID}[i%3]
				if strings.HasPrefix(c.path, "/s/") {
					others = "00000000"
				}
				if next := ask(others).want(404, c.code); next.body != first.body || next.StatusCode != first.StatusCode {
					t.Errorf("404 of what never was: %s\nof what was: %s", first.body, next.body)
				}
			} else {
				ask(c.there).want(c.status, c.code)
			}
			missing, there := ask(absent[:len(c.there)]), ask(c.there)
			if missing.StatusCode != 429 || missing.body != there.body || there.retryAfter() != missing.retryAfter() ||
				there.retryAfter() == 0 {
				t.Errorf("an oracle: %d %s\n%d %s", missing.StatusCode, missing.body, there.StatusCode, there.body)
			}
			if c.status == 403 { // what needs no credential goes on
				ts.get("/"+open.ID+"/raw", asVisitor(i)...).want(200, "")
				ts.get("/"+locked.ID+"/raw", asVisitor(i)...).want(401, "password_required")
			}
		})
	}
	ts.get("/"+open.ID+"/raw", asVisitor(100)...).want(200, "")
	ts.get("/"+locked.ID+"/raw", asVisitor(100, "X-Paste-Password: pw")...).want(200, "")
	for range 3 { // a missing proof is no wrong one, and a right one costs nothing
		ts.get("/"+sealed.ID+"/raw", asVisitor(101)...).want(403, "read_proof_required")
		ts.get("/"+sealed.ID+"/raw", asVisitor(101, "X-Read-Proof: "+strings.Repeat("1", 64))...).want(200, "")
	}
	// A derivation is counted right or wrong, of a creation too.
	ts.post("x", asVisitor(102, "X-Paste-Password: pw")...).want(201, "")
	ts.get("/"+locked.ID+"/raw", asVisitor(102, "X-Paste-Password: pw")...).want(429, "rate_limited")
	ts.post(`{"content": "y", "password": "pw"}`, asVisitor(102, "Content-Type: application/json")...).want(429,
		"rate_limited")
	// So is a certificate that is refused, by its address.
	ts.get("/", asVisitor(103, "X-SSL-Client-SHA1: junk")...).want(400, "bad_client_certificate")
	ts.get("/", asVisitor(103, "X-SSL-Client-SHA1: junk")...).want(429, "rate_limited")
	ts.get("/", asVisitor(103)...).want(200, "")
	if got := ts.get("/"+open.ID+"/raw", asVisitor(100)...).body; got != "open" {
		t.Errorf("the content is %q", got)
	}
	ts.stored(5)
}

// ---- bytes ----

func TestBytesPerHour(t *testing.T) {
	ts := behindProxy(t, "RATE_BYTES=1000KiB/h", "MAX_ANON=8MiB", "MIN_ENTROPY=1", "DEDUP_MAX=1").certified()
	const kib = 1 << 10
	n, stored := 0, int64(0)
	for _, c := range []struct {
		name    string
		given   int // KiB stored before
		after   time.Duration
		who     []string // nil: a new visitor
		size    int      // KiB
		chunked bool
		status  int
		retry   int
	}{
		{"all at once", 0, 0, nil, 1000, false, 201, 0},
		{"more than all, announced", 0, 0, nil, 1001, false, 429, 3600},
		{"more than all, in chunks", 0, 0, nil, 1300, true, 429, 1},
		{"more than is left", 600, 0, nil, 500, false, 429, 360},
		{"what is left", 600, 0, nil, 400, false, 201, 0},
		{"waiting as told", 600, 360 * time.Second, nil, 500, false, 201, 0},
		{"a second less", 600, 359 * time.Second, nil, 500, false, 429, 1},
		{"an owner has five times as much", 0, 0, withCert(certFirst), 4999, false, 201, 0},
		{"and no more", 0, 0, withCert(certSecond), 3, false, 429, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			ts, who := ts.in(t), c.who
			if n++; who == nil {
				who = asVisitor(n)
			}
			for left := c.given; left > 0; left -= 300 {
				ts.create(fresh(min(left, 300)*kib), who...)
				stored++
			}
			ts.clock.advance(c.after)
			var body io.Reader = strings.NewReader(fresh(c.size * kib))
			if c.chunked {
				body = chunked{body}
			}
			a := ts.do("POST", "/", body, who...).want(c.status, "")
			if c.status == 201 {
				stored++
			} else if a.field("code") != "rate_limited" || c.retry > 1 && a.retryAfter() != c.retry || a.retryAfter() == 0 {
				t.Errorf("%s, Retry-After %d", a.body, a.retryAfter())
			}
			ts.stored(stored)
		})
	}
	// What is refused, or cut before a chunk was stored, costs nothing.
	twice := fresh(200 * kib)
	ts.create(twice, asVisitor(100)...)
	for range 8 {
		ts.post(twice, asVisitor(100)...).want(429, "duplicate_content")
		ts.post(strings.Repeat("a", 200*kib), asVisitor(100)...).want(400, "low_entropy")
	}
	ts.hold(asVisitor(100)...).Close()
	ts.stored(stored + 1)
	ts.create(fresh(800*kib), asVisitor(100)...)
}

// ---- proof of work ----

// work is a challenge as a client sees it.
type work struct {
	Enabled, Elevated bool
	Nonce, Token      string
	Difficulty        int
	Base              int `json:"base_difficulty"`
	Expires, Free     int64
}

// work reads the answer of GET /challenge, or the challenge of a refusal.
func (a *answer) work() (w work) {
	a.t.Helper()
	refusal := struct{ Challenge *work }{&w}
	if err := json.Unmarshal([]byte(a.body), &refusal); err != nil {
		a.t.Fatal(err)
	}
	if w.Nonce == "" {
		json.Unmarshal([]byte(a.body), &w)
	}
	return w
}

func (ts *testServer) work(headers ...string) work {
	ts.t.Helper()
	return ts.get("/challenge", headers...).want(200, "").work()
}

// solve does the work and returns the headers of the proof.
func (w work) solve(t testing.TB) []string {
	t.Helper()
	return []string{"X-PoW-Token: " + w.Token, "X-PoW-Solution: " + must(solve(context.Background(), w.Nonce,
		w.Difficulty, 1, nil))}
}

// unsolved is a number that does not solve it.
func (w work) unsolved() string {
	n := 1
	for workDone(w.Nonce, strconv.Itoa(n), w.Difficulty) {
		n++
	}
	return "X-PoW-Solution: " + strconv.Itoa(n)
}

func TestChallenge(t *testing.T) {
	off := start(t, "POW_DIFFICULTY=0").get("/challenge").want(200, "")
	if off.body != `{"enabled":false,"difficulty":0}`+"\n" {
		t.Errorf("off: %s", off.body)
	}
	ts := start(t, "defaults")
	ts.clock.hold()
	a := ts.get("/challenge").want(200, "")
	w, free := a.work(), int64(20)
	shape := fmt.Sprintf(`^\{"enabled":true,"nonce":"[0-9a-f]{32}","difficulty":20,"base_difficulty":20,"elevated":false,"expires":%[1]d,`+
		`"token":"%[2]s:%[1]d:20:[0-9a-f]{64}","free":%[3]d\}\n$`, ts.now().Unix()+300, w.Nonce, free)
	if !regexp.MustCompile(shape).MatchString(a.body) || a.Header.Get("Cache-Control") != "no-store" ||
		ts.work().Nonce == w.Nonce {
		t.Errorf("on: %s, want %s", a.body, shape)
	}
	ts.create("one")
	if got := ts.work().Free; got != 19 {
		t.Errorf("%d are free after one of 20", got)
	}
}

// TestProofs: how a proof may come; the spellings of its fields are pow_test.go's.
func TestProofs(t *testing.T) {
	ts := start(t, "POW_DIFFICULTY=12", "POW_FREE=0", "ANTIFLOOD_MAX=12")
	ts.clock.hold()
	w, other, old := ts.work(), ts.work(), ts.work().solve(t)
	proof := w.solve(t)
	easy := []string{strings.Replace(proof[0], ":12:", ":2:", 1), "X-PoW-Solution: " + must(solve(t.Context(), w.Nonce,
		2, 1, nil))}
	wrong := w.unsolved()
	enrolment := start(t, "PKI_ENABLED=1", "PKI_CA_PASSWORD=correct horse battery", "REGISTRATION=open",
		"REGISTER_POW=12", "POW_DIFFICULTY=12", "POW_FREE=0")
	purpose := enrolment.get("/register/challenge").want(200, "").work().solve(t)
	for _, c := range []struct {
		name, code string
		headers    []string
	}{
		{"no proof", "pow_required", nil},
		{"both empty", "pow_required", []string{"X-PoW-Token: ", "X-PoW-Solution: "}},
		{"no solution", "pow_failed", proof[:1]},
		{"no token", "pow_failed", proof[1:]},
		{"wrong solution", "pow_failed", []string{proof[0], wrong}},
		{"two solutions", "pow_failed", []string{proof[0], proof[1], wrong}},
		{"two tokens", "pow_failed", []string{proof[0], proof[0], proof[1]}},
		{"a second, empty solution", "pow_failed", []string{proof[0], proof[1], "X-PoW-Solution: "}},
		{"lowered difficulty", "pow_failed", easy},
		{"of another server", "pow_failed", enrolment.work().solve(t)},
	} {
		fresh := ts.post("content of "+c.name, c.headers...)
		if got := fresh.want(400, c.code).work(); !got.Enabled || got.Difficulty != 12 || got.Nonce == w.Nonce ||
			fresh.field("hint") == "" {
			t.Errorf("%s: %s", c.name, fresh.body)
		}
	}
	enrolment.post("for another purpose", purpose...).want(400, "pow_failed")
	enrolment.nothing()
	ts.nothing()
	// Each proof is for one creation, of many at once too; a refusal's challenge is as good as any.
	if got := together(16, func(i int) *answer { return ts.post(fmt.Sprint("content ", i), proof...) }); got[201] != 1 ||
		got[400]+got[429] != 15 {
		t.Errorf("16 creations with one proof: %v", got)
	}
	ts.post("again", proof...).want(400, "pow_failed")
	ts.do("POST", "/s", strings.NewReader("https://example.org/"), proof...).want(400, "pow_failed")
	ts.do("POST", "/s", strings.NewReader("https://example.org/"), ts.post("again").want(400,
		"pow_required").work().solve(t)...).want(201, "")
	// A challenge lives five minutes. A wall clock that goes back brings no spent proof back.
	ts.clock.advance(299 * time.Second)
	ts.post("in time", old...).want(201, "")
	ts.clock.advance(time.Second)
	ts.post("too late", other.solve(t)...).want(400, "pow_failed")
	ts.clock.advance(-290 * time.Second)
	ts.post("again", old...).want(400, "pow_failed")
	ts.stored(3)
	// Another process has another key.
	unused := ts.work().solve(t)
	ts.stop()
	ts = startIn(t, ts.dir, "POW_DIFFICULTY=12", "POW_FREE=0")
	for _, p := range [][]string{unused, proof} {
		ts.post("after a restart", p...).want(400, "pow_failed")
	}
	ts.stored(3)
}

// TestFailuresCostNothing: whatever refuses a creation, its work, or the free creation that it took, can be used
// again, and so can
// the content. Only who made the server store a chunk has had the price of it.
func TestFailuresCostNothing(t *testing.T) {
	refusing := []string{"POW_DIFFICULTY=8", "MAX_ANON=600KiB", "MIN_SIZE=4", "MIN_ENTROPY=1", "DEDUP_MAX=1",
		"MAX_STORAGE=16MiB", "RATE_BYTES=4MiB/h"}
	large, twice := fresh(700<<10), fresh(64)
	for _, way := range []struct {
		name, env string
		left      func(ts *testServer, proof []string) int64 // creations that are left to visitor 1
	}{
		{"work", "POW_FREE=0", func(ts *testServer, proof []string) int64 {
			if ts.post("ok? "+fresh(30), asVisitor(1, proof...)...).StatusCode == 201 {
				return 1
			}
			return 0
		}},
		{"a free creation", "POW_FREE=1", func(ts *testServer, _ []string) int64 { return ts.work(asVisitor(1)...).Free }},
	} {
		ts := behindProxy(t, append(refusing, way.env)...)
		ts.create(twice, asVisitor(1, ts.work().solve(t)...)...)
		for _, c := range []struct {
			name, send, body, header string
			status                   int
			code                     string
			left                     int64
		}{
			{"empty", "POST /", "", "", 400, "empty_content", 1},
			{"too small", "POST /", "abc", "", 400, "too_small", 1},
			{"too large, announced", "POST /", large, "", 413, "too_large", 1},
			{"low entropy", "POST /", strings.Repeat("a", 300), "", 400, "low_entropy", 1},
			{"a duplicate", "POST /", twice, "", 429, "duplicate_content", 1},
			{"bad option", "POST /", "fine", "X-Burn-After-Read: maybe", 400, "bad_option", 1},
			{"bad expiry in the body", "POST /", `{"content": "fine", "expiry": "never"}`, "Content-Type: application/json", 400, "bad_expiry", 1},
			{"bad JSON", "POST /", `{"content": "fine",`, "Content-Type: application/json", 400, "bad_json", 1},
			{"a change of nothing", "PUT /0123456789abcdef", "fine", "", 404, "not_found", 1},
			{"a bad target", "POST /s", "ftp://example.org/", "", 400, "bad_url", 1},
			{"cut in the first chunk", "", "", "", 0, "", 1},
			{"too large in chunks: one was stored", "POST chunked", large, "", 413, "too_large", 0},
		} {
			var proof []string
			if way.name == "work" {
				proof = ts.work().solve(t)
			}
			headers := asVisitor(1, proof...)
			if c.header != "" {
				headers = append(headers, c.header)
			}
			if c.send == "" {
				n := ts.uploads.inUse()
				ts.hold(headers...).Close()
				ts.settled("upload slots", int64(n), func() int64 { return int64(ts.uploads.inUse()) })
			} else {
				method, path, _ := strings.Cut(c.send, " ")
				var body io.Reader = strings.NewReader(c.body)
				if path == "chunked" {
					path, body = "/", chunked{body}
				}
				if a := ts.do(method, path, body, headers...); a.StatusCode != c.status || a.field("code") != c.code {
					t.Errorf("%s, %s: %d %s", way.name, c.name, a.StatusCode, a.body)
				}
			}
			// Given back behind the answer.
			ts.settled(way.name+" left after: "+c.name, c.left, func() int64 { return way.left(ts, proof) })
		}
		ts.settled("garbage", 0, func() int64 { ts.sweep(); return ts.number("SELECT count(*) FROM garbage") })
	}
}

// TestTwentyFirst: twenty creations an hour are free, of many at once too; the refusal of the next says when the next
// will be, to
// the second.
func TestTwentyFirst(t *testing.T) {
	ts := start(t, "defaults", "RATE_CREATE=0", "MAX_UPLOADS=1024", "ANTIFLOOD_THRESHOLD=1000")
	ts.clock.hold()
	if got := together(40, func(i int) *answer { return ts.post(fmt.Sprint("content ", i)) }); got[201] != 20 ||
		got[400] != 20 {
		t.Errorf("40 at once, 20 of them free: %v", got)
	}
	a := ts.post("one more").want(400, "pow_required")
	if a.retryAfter() != 180 || !strings.Contains(a.field("hint"), "wait 3 minutes") || a.work().Difficulty != 20 {
		t.Errorf("Retry-After %d: %s", a.retryAfter(), a.body)
	}
	ts.clock.advance(179 * time.Second)
	ts.post("a second early").want(400, "pow_required")
	ts.clock.advance(time.Second)
	ts.post("in time").want(201, "")
	ts.stored(21)
}

func TestAntiflood(t *testing.T) {
	ts := behindProxy(t, "POW_DIFFICULTY=4", "POW_FREE=20", "ANTIFLOOD_MAX=8", "ANTIFLOOD_THRESHOLD=6",
		"POW_TTL=300s").certified()
	next := 1000
	create := func(n int) { // by clients of their own, with work
		for range n {
			next++
			ts.post(fresh(30), asVisitor(next, ts.work().solve(t)...)...).want(201, "")
		}
	}
	is := func(bits int, free int64) work {
		t.Helper()
		w := ts.work(asVisitor(1)...)
		if w.Difficulty != bits || w.Elevated != (bits > 4) || w.Base != 4 || w.Free != free {
			t.Fatalf("%+v, want %d bits, %d free", w, bits, free)
		}
		return w
	}
	early, earlyToo := is(4, 20).solve(t), is(4, 20).solve(t)
	for range 20 { // one client counts three times, who is vouched for never
		ts.post(fresh(30), asVisitor(2)...)
		ts.post(fresh(30), withCert(certVouched)...).want(201, "")
	}
	create(2)
	is(4, 20)
	ts.post(fresh(30), withCert(certEnrolled)...).want(201, "") // who enrolled does
	if w := is(6, 1); w.Expires != ts.now().Unix()+1200 {
		t.Errorf("a challenge of a flood lives %d s", w.Expires-ts.now().Unix())
	}
	ts.post("solved while it rose", asVisitor(3, early...)...).want(201, "")
	ts.post("the one that is free", asVisitor(4)...).want(201, "")
	ts.post("not the second", asVisitor(4)...).want(400, "pow_required")
	ts.post("nor of who had some", asVisitor(2)...).want(400, "pow_required")
	create(4)
	is(8, 1)
	ts.post("solved two steps ago", asVisitor(5, earlyToo...)...).want(400, "pow_failed")
	create(18)
	is(8, 1) // ANTIFLOOD_MAX
	ts.post(fresh(30), withCert(certVouched)...).want(201, "")
	for _, c := range []struct {
		after time.Duration
		bits  int
		free  int64
	}{{60 * time.Second, 8, 1}, {29 * time.Second, 8, 1}, {time.Second, 6, 1}, {29 * time.Second, 6, 1}, {time.Second, 4,
		20}} {
		ts.clock.advance(c.after)
		is(c.bits, c.free)
	}
}

// ---- duplicates ----

func TestDuplicates(t *testing.T) {
	type sent struct {
		who     int
		send    string // PUT changes the paste that this client made first
		content string
		after   time.Duration
		status  int
		retry   int
	}
	same, short := fresh(64), fresh(63)
	ts := behindProxy(t, "DEDUP_MAX=2", "DEDUP_WINDOW=3600s").certified()
	own := map[int]created{}
	for who := range 4 {
		own[who] = ts.create(fresh(64), asVisitor(who)...)
	}
	for i, c := range []sent{
		{who: 1, send: "POST", content: same, status: 201},
		{who: 1, send: "POST", content: same, after: 600 * time.Second, status: 201},
		{who: 1, send: "POST", content: same, status: 429, retry: 1200},
		{who: 1, send: "PUT", content: same, status: 429, retry: 1200},
		{who: 1, send: "POST", content: same + ".", status: 201},
		{who: 1, send: "POST", content: short, status: 201},
		{who: 1, send: "POST", content: short, status: 201},
		{who: 1, send: "POST", content: short, status: 201},
		{who: 2, send: "POST", content: same, status: 201}, // nobody else's count
		{who: 2, send: "PUT", content: same, status: 200},  // a change counts like a creation
		{who: 2, send: "PUT", content: same, status: 429, retry: 1800},
		{who: 1, send: "POST", content: same, after: 1199 * time.Second, status: 429, retry: 1},
		{who: 1, send: "POST", content: same, after: time.Second, status: 201},
		{who: 1, send: "POST", content: same, status: 429, retry: 1800},
	} {
		ts.clock.advance(c.after)
		path, h := "/", asVisitor(c.who)
		if c.send == "PUT" {
			path, h = "/"+own[c.who].ID, append(h, "X-Delete-Token: "+own[c.who].DeleteToken)
		}
		a := ts.do(c.send, path, strings.NewReader(c.content), h...)
		if a.StatusCode != c.status || a.retryAfter() != c.retry {
			t.Fatalf("row %d: %d, Retry-After %d, %s", i+1, a.StatusCode, a.retryAfter(), a.body)
		}
		if c.status == 429 && (a.field("code") != "duplicate_content" || a.field("count") != "2" ||
			a.field("window_seconds") != "3600") {
			t.Errorf("row %d: %s", i+1, a.body)
		}
	}
	if got := ts.get("/" + own[1].ID + "/raw").body; got == same {
		t.Error("a refused change was made")
	}
	// An owner is one client, from wherever. Many at once are counted one by one, whatever the form.
	other := fresh(64)
	ts.post(other, withCert(certFirst)...).want(201, "")
	inJSON := `{"content": "` + other + `"}`
	got := together(8, func(i int) *answer {
		if i%2 == 0 {
			return ts.post(inJSON, withCert(certSecond, "Content-Type: application/json")...)
		}
		return ts.post(other, withCert(certFirst)...)
	})
	if got[201] != 1 || got[429] != 7 {
		t.Errorf("eight at once with one left: %v", got)
	}
}

// ---- slots ----

// TestUploadSlots: a client has an eighth, a /48 a quarter, until the answer is known; a moment's wait for more, then
// 429.
func TestUploadSlots(t *testing.T) {
	for _, c := range []struct {
		name, other string
		held        int // by how many the share is used up
		address     func(i int) string
	}{
		{"a client", "192.0.2.2", 2, func(int) string { return "192.0.2.1" }},
		{"a /64", "2001:db8:1:2::1", 2, func(i int) string { return fmt.Sprintf("2001:db8:1:1:%x::1", i) }},
		{"a /48", "2001:db8:2::1", 4, func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ts := behindProxy(t, "MAX_UPLOADS=16", "POW_DIFFICULTY=4", "POW_FREE=9")
			var conns []net.Conn
			for i := range c.held {
				conns = append(conns, ts.hold(from(c.address(i))...))
			}
			free := ts.work(from(c.address(c.held))...).Free
			waits := time.Now()
			a := ts.post("one more", from(c.address(c.held))...).want(429, "too_many_transfers")
			if d := time.Since(waits); a.retryAfter() != 5 || d < time.Second {
				t.Errorf("told to wait %d s, after %v", a.retryAfter(), d)
			}
			if left := ts.work(from(c.address(c.held))...).Free; left != free {
				t.Errorf("%d of %d free creations are left after a refusal", left, free)
			}
			ts.post("another's", from(c.other)...).want(201, "")
			ts.get("/", from(c.address(0))...).want(200, "")
			for _, conn := range conns {
				conn.Close()
			}
			ts.settled("upload slots", 0, func() int64 { return int64(ts.uploads.inUse()) })
			ts.post("again", from(c.address(0))...).want(201, "")
		})
	}
}

// TestSlotUntilTheAnswer: an upload whose bytes have all come holds its slot while the writer is busy.
func TestSlotUntilTheAnswer(t *testing.T) {
	ts := behindProxy(t, "MAX_UPLOADS=16")
	release := ts.block()
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() { ts.post(fmt.Sprint("content ", i), asVisitor(1)...).want(201, "") })
	}
	ts.settled("upload slots", 2, func() int64 { return int64(ts.uploads.inUse()) })
	ts.post("a third", asVisitor(1)...).want(429, "too_many_transfers")
	release()
	wg.Wait()
	ts.stored(2)
}

// TestDownloadSlots: the same for what is read, but of what comes from the cache, of HEAD and of what is no content.
func TestDownloadSlots(t *testing.T) {
	ts := behindProxy(t, "MAX_DOWNLOADS=16", "MAX_ANON=16MiB")
	large, small := ts.create(fresh(3<<20)), ts.create("small")
	ts.get(small.Raw).want(200, "")
	for range 2 {
		c := ts.dial()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", large.Raw, strings.Join(asVisitor(1), "\r\n"))
	}
	ts.settled("download slots", 2, func() int64 { return int64(ts.downloads.inUse()) })
	for _, c := range []struct {
		method, path string
		who, status  int
	}{
		{"GET", large.Raw, 1, 429}, {"GET", "/client", 1, 429}, {"HEAD", large.Raw, 1, 200}, {"GET", small.Raw, 1, 200}, {"GET", large.URL, 1, 200},
		{"GET", large.Raw, 2, 200}, {"HEAD", "/client", 2, 200},
	} {
		a := ts.do(c.method, c.path, nil, asVisitor(c.who)...)
		if a.StatusCode != c.status || c.status == 429 && (a.retryAfter() != 5 || a.field("code") != "too_many_transfers" ||
			a.Header.Get("Etag") != "") {
			t.Errorf("%s %s by %d: %d %v %.200s", c.method, c.path, c.who, a.StatusCode, a.Header, a.body)
		}
	}
}

// TestDerivations: cores minus one at once, eight wait, and more are told to come back; one at a time for a client,
// and two places
// to wait for it and for a /48.
func TestDerivations(t *testing.T) {
	ts := behindProxy(t, "RATE_AUTH=2/m")
	locked, open := ts.create("locked", asVisitor(900, "X-Paste-Password: pw")...), ts.create("open")
	waits := func() int64 { return int64(ts.kdf.waiters()) }
	for _, c := range []struct {
		name    string
		running int // derivations
		wait    int
		who     func(i int) string
	}{
		{"everybody", ts.kdf.held.total, 8, func(i int) string { return fmt.Sprintf("192.0.2.%d", i) }},
		{"one client", 1, 2, func(int) string { return "203.0.113.1" }},
		{"one /48", 1, 2, func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i) }},
	} {
		var held []clientKey
		for i := range c.running {
			held = append(held, keyFor("", must(netip.ParseAddr(c.who(200+i)))))
			if !ts.kdf.acquire(t.Context(), held[i], 0) {
				t.Fatal(c.name, ": no slot")
			}
		}
		var waiting []net.Conn
		for i := range c.wait {
			conn := ts.dial()
			fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", locked.Raw, strings.Join(from(c.who(i),
				"X-Paste-Password: pw"), "\r\n"))
			waiting = append(waiting, conn)
		}
		ts.settled(c.name+": derivations that wait", int64(c.wait), waits)
		ts.clock.advance(time.Hour)
		for range 4 { // the next one is told at once, and charged nothing
			if a := ts.get(locked.Raw, from(c.who(9), "X-Paste-Password: pw")...).want(503, "busy"); a.retryAfter() == 0 {
				t.Error("no Retry-After")
			}
			ts.post("x", from(c.who(9), "X-Paste-Password: pw")...).want(503, "busy")
			ts.get(locked.Raw, from(c.who(9))...).want(401, "password_required")
			ts.get(open.Raw, from(c.who(9))...).want(200, "")
			ts.get("/health").want(200, "")
		}
		for _, conn := range waiting {
			conn.Close()
		}
		ts.settled(c.name+": derivations that wait", 0, waits)
		for _, key := range held {
			ts.kdf.release(key)
		}
	}
	ts.get(locked.Raw, asVisitor(1, "X-Paste-Password: pw")...).want(200, "")
	ts.create("x", asVisitor(1, "X-Paste-Password: pw")...)
	ts.get(locked.Raw, asVisitor(1, "X-Paste-Password: pw")...).want(429, "rate_limited")
	ts.stored(3)
}
