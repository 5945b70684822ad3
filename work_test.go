package main

// What a client may take (api.md sections 3, 6 and 7), over the wire: rates, misses and credentials, bytes, proof of
// work, the anti-flood, duplicates, slots, derivations. A table's row says what was there, what is sent, and how it is
// answered; and nothing may come of what is refused: nothing stored, nothing spent, nobody else kept out.
//
// All clients are 127.0.0.1, a trusted proxy that names them. The clock stands, and moves by the test's hand.

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// asVisitor returns the headers of client n, for n under 65,536.
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

// Certificates by their SHA-1: two of one owner, one of an admin, one of an owner who enrolled, or is vouched for.
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
	for cert, owner := range map[string]string{certFirst: "owner", certSecond: "owner", certOfAdmin: "admin",
		certEnrolled: "enrolled", certVouched: "vouched"} {
		ts.write("INSERT INTO certs VALUES (?1, ?2, substr(?1, 1, 32), ?3, 'name', 1, 1 << 40, 0, '', ?4, ?5)",
			sum256(cert), cert, sum256(owner), owner == "vouched", owner == "admin")
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

// uploading waits until so many upload slots are taken.
func (ts *testServer) uploading(n int) {
	ts.t.Helper()
	ts.settled("upload slots", int64(n), func() int64 { return int64(ts.uploads.inUse()) })
}

// hold begins an upload, sends a byte of it and waits until the server has taken a slot for it.
func (ts *testServer) hold(headers ...string) net.Conn {
	ts.t.Helper()
	taken := ts.uploads.inUse()
	c := ts.dial()
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n%s\r\n\r\nx", strings.Join(headers, "\r\n"))
	ts.uploading(taken + 1)
	return c
}

// ---- rates ----

// clients are the names in the table of rates.
var clients = map[string][]string{
	"a": from("192.0.2.1"), "a:4711": from("192.0.2.1:4711"), "a mapped": from("::ffff:192.0.2.1"),
	"b": from("192.0.2.2"), "a in gzip": from("192.0.2.1", "Content-Encoding: gzip"),
	"a for ever": from("192.0.2.1", "X-Expiry: never"),
	"net":        from("2001:db8:1:1::1"), "its neighbour": from("2001:db8:1:1:ffff::9"),
	"a pseudonym":     withCert(certAlice, "X-Forwarded-For: 192.0.2.1"),
	"another":         withCert(certMallory, "X-Forwarded-For: 192.0.2.1"),
	"owner":           withCert(certFirst, "X-Forwarded-For: 192.0.2.1"),
	"owner elsewhere": withCert(certFirst, "X-Forwarded-For: 192.0.2.2"),
	"by the second":   withCert(certSecond, "X-Forwarded-For: 2001:db8::1"),
	"admin":           withCert(certOfAdmin, "X-Forwarded-For: 192.0.2.1"),
}

// TestRates: a step is a time that passes, or who sends what: the status, X-RateLimit-Remaining where there is one, and
// Retry-After; then how many times, of which the last is looked at. NEW is the id of a fresh paste by somebody else.
func TestRates(t *testing.T) {
	for _, c := range []struct{ name, env, steps string }{
		{"creations of every kind, and Retry-After is true", "RATE_CREATE=3/m", `a, POST /, 201 2;
			a, PUT /name.txt, 201 1; a, POST /s, 201 0; a, PUT /, 429 0 20; a, GET /, 200; b, POST /, 201 2; 19s;
			a, POST /, 429 0 1; 1s; a, POST /, 201 0; a, POST /, 429 0 20`},
		{"changes, deletions and the client are creations", "RATE_CREATE=3/m", `a, PUT /NEW, 401 2;
			a, DELETE /NEW, 401 1; a, HEAD /client, 200 0; a, HEAD /client, 429 0 20; a, DELETE /NEW, 429 0 20`},
		{"reads, before 401, 404 and 405; health never", "RATE_READ=3/m", `a, GET /NEW, 200 2; a, HEAD /NEW/raw, 200 1;
			a, GET /pastes, 401 0; a, GET /pastes, 429 0 20; a, GET /no/such/route/at/all, 429 0 20;
			a, GET /health, 200, 20; a, POST /, 201; a, PATCH /NEW, 429 0 20`},
		{"before 415 and options", "RATE_CREATE=2/m", `a in gzip, POST /, 415 0, 2; a in gzip, POST /, 429 0 30;
			a, POST /?expiry=1h, 429 0 30; a for ever, POST /, 429 0 30`},
		{"an address is one client, whatever its port, spelling or self-signed certificate", "RATE_CREATE=2/m",
			`a:4711, POST /, 201 1; a mapped, POST /, 201 0; a, POST /, 429 0 30; a pseudonym, POST /, 429 0 30;
			another, POST /, 429 0 30; b, POST /, 201 1`},
		{"a /64 is one client", "RATE_CREATE=2/m", `net, POST /, 201 0, 2; its neighbour, POST /, 429 0 30`},
		{"an owner has five times as much, wherever and with whichever certificate", "RATE_CREATE=2/m",
			`a, POST /, 201 0, 2; owner, POST /, 201 9; owner elsewhere, POST /, 201 5, 4;
			by the second, POST /, 201 0, 5; owner, POST /, 429 0 6; b, POST /, 201 1`},
		{"and of reads", "RATE_READ=2/m", `owner, GET /, 200 0, 10; owner, GET /, 429 0 6`},
		{"but not of misses", "RATE_MISS=2/m", `owner, GET /0123456789abcdef, 404, 2; owner, GET /NEW, 429 - 30`},
		{"an admin's deletions are not counted, all else is", "RATE_CREATE=1/m", `admin, DELETE /NEW, 200, 12;
			admin, POST /, 201 0, 5; admin, POST /, 429 0 12; admin, DELETE /NEW, 200`},
	} {
		t.Run(c.name, func(t *testing.T) {
			ts := behindProxy(t, c.env).certified()
			for step := range strings.SplitSeq(c.steps, ";") {
				parts := strings.Split(strings.TrimSpace(step), ", ")
				if len(parts) == 1 {
					ts.clock.advance(must(time.ParseDuration(parts[0])))
					continue
				}
				want, times := strings.Fields(parts[2]), 1
				want = append(want, []string{"-", "0"}[len(want)-1:]...)
				if len(parts) == 4 {
					times = must(strconv.Atoi(parts[3]))
				}
				for n := range times {
					ts.takes(parts[0], parts[1], want, n+1 == times)
				}
			}
		})
	}
}

// takes sends a request once and looks at the answer, at what remains only if it is the last time.
func (ts *testServer) takes(who, send string, want []string, last bool) {
	ts.t.Helper()
	if before, after, ok := strings.Cut(send, "NEW"); ok {
		send = before + ts.create(fresh(26), asVisitor(int(ts.store.content.Load()))...).ID + after
	}
	var body io.Reader
	if strings.HasPrefix(send, "P") {
		body = strings.NewReader(fresh(26))
	}
	if send == "POST /s" {
		body = strings.NewReader("https://example.org/")
	}
	before := ts.pastes()
	a := ts.send(send, body, clients[who]...)
	h := a.Header
	remaining := cmp.Or(h.Get("X-RateLimit-Remaining"), "-")
	if fmt.Sprint(a.StatusCode) != want[0] || fmt.Sprint(a.retryAfter()) != want[2] || last && remaining != want[1] ||
		a.StatusCode == 429 && a.field("code") != "rate_limited" && !strings.HasPrefix(send, "HEAD") {
		ts.t.Fatalf("%s, %s: %d, %s remaining, Retry-After %d, %s; want %s", who, send, a.StatusCode, remaining,
			a.retryAfter(), a.body, want)
	}
	if made := ts.pastes() - before; (a.StatusCode == 201) != (made == 1) || a.StatusCode >= 400 && made != 0 {
		ts.t.Errorf("%s: %d, and %d pastes more", send, a.StatusCode, made)
	}
	reset, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64)
	now, limited := ts.now().Unix(), remaining != "-"
	if limited != (h.Get("X-RateLimit-Limit") != "") || limited != (err == nil) || limited &&
		(reset < now || reset > now+61) {
		ts.t.Errorf("%s: %v", send, h)
	}
}

// ---- misses and credentials ----

// TestEmptyAllowanceIsNoOracle: misses and failed credentials are asked for before the lookup. Who has none left is
// answered the same whether the paste is there or not; what needs neither goes on, and nobody else is kept out.
func TestEmptyAllowanceIsNoOracle(t *testing.T) {
	ts := behindProxy(t, "RATE_MISS=2/m", "RATE_AUTH=1/m")
	const absent = "0123456789abcdef"
	open, burned := ts.create("open"), ts.create("burned", "X-Burn-After-Read: true")
	locked, sealed := ts.create("locked", "X-Paste-Password: pw"), ts.create("sealed", proofGiven)
	expired, deleted := ts.create("expired", "X-Expiry: 1s"), ts.create("deleted")
	ts.do("DELETE", "/"+deleted.ID, nil, asVisitor(99, "X-Delete-Token: "+deleted.DeleteToken)...).want(200, "")
	ts.get("/"+burned.ID+"/raw").want(200, "")
	short := ts.short("https://example.org/").ID
	ts.clock.advance(2 * time.Second)
	pw, proof, tok := "X-Paste-Password: no", "X-Read-Proof: "+strings.Repeat("2", 64), "X-Delete-Token: no"
	for i, c := range [][4]string{ // request, what is there, header, the code of the last answer before it is empty
		{"GET /ID", open.ID, "", "not_found"}, {"GET /ID/raw", open.ID, "", "not_found"},
		{"HEAD /ID", open.ID, "", "not_found"}, {"GET /ID/raw/name", open.ID, "", "not_found"},
		{"DELETE /ID", open.ID, "", "not_found"}, {"PUT /ID", open.ID, "", "not_found"},
		{"GET /ID", open.ID, "Accept: text/plain", "not_found"}, {"GET /s/ID", short, "", "not_found"},
		{"GET /s/ID/info", short, "", "not_found"}, {"DELETE /s/ID", short, "", "not_found"},
		{"GET /ID/raw", locked.ID, pw, "password_wrong"},
		{"GET /ID/raw", locked.ID, "Authorization: Basic Om5v", "password_wrong"},
		{"HEAD /ID/raw", locked.ID, pw, "password_wrong"},
		{"GET /ID/raw", sealed.ID, proof, "read_proof_required"}, {"DELETE /ID", open.ID, tok, "not_owner"},
		{"PUT /ID", open.ID, tok, "not_owner"}, {"DELETE /s/ID", short, tok, "not_owner"},
	} {
		t.Run(c[0]+" "+c[3], func(t *testing.T) {
			ts := ts.in(t)
			ask := func(id string) *answer {
				h := asVisitor(i, "X-Request-ID: same", cmp.Or(c[2], "Accept: */*"))
				return ts.send(strings.Replace(c[0], "ID", id, 1), strings.NewReader("new"), h...)
			}
			if c[3] == "not_found" {
				was := []string{deleted.ID, burned.ID, expired.ID}[i%3]
				if strings.Contains(c[0], "/s/") {
					was = "00000000"
				}
				never, gone := ask(absent[:len(c[1])]).want(404, ""), ask(was).want(404, "")
				if never.body != gone.body {
					t.Errorf("404 of what never was: %s\nof what was: %s", never.body, gone.body)
				}
			} else if a := ask(c[1]).want(403, ""); a.body != "" && a.field("code") != c[3] {
				t.Errorf("%s", a.body)
			}
			missing, there := ask(absent[:len(c[1])]).want(429, ""), ask(c[1]).want(429, "")
			if missing.body != there.body || there.retryAfter() != missing.retryAfter() || there.retryAfter() == 0 {
				t.Errorf("an oracle: %s\n%s", missing.body, there.body)
			}
			if c[3] != "not_found" { // what needs no credential goes on
				ts.get("/"+open.ID+"/raw", asVisitor(i)...).want(200, "")
				ts.get("/"+locked.ID+"/raw", asVisitor(i)...).want(401, "password_required")
			}
		})
	}
	ts.get("/"+locked.ID+"/raw", asVisitor(100, "X-Paste-Password: pw")...).want(200, "")
	for range 3 { // a missing proof is no wrong one, and a right one costs nothing
		ts.get("/"+sealed.ID+"/raw", asVisitor(101)...).want(403, "read_proof_required")
		ts.get("/"+sealed.ID+"/raw", asVisitor(101, "X-Read-Proof: "+readProof)...).want(200, "")
	}
	// A derivation is counted right or wrong, of a creation too.
	ts.post("x", asVisitor(102, "X-Paste-Password: pw")...).want(201, "")
	ts.get("/"+locked.ID+"/raw", asVisitor(102, "X-Paste-Password: pw")...).want(429, "rate_limited")
	ts.post(`{"content": "y", "password": "pw"}`, asVisitor(102, isJSON)...).want(429, "rate_limited")
	// So is a certificate that is refused, by its address.
	ts.get("/", asVisitor(103, "X-SSL-Client-SHA1: junk")...).want(400, "bad_client_certificate")
	ts.get("/", asVisitor(103, "X-SSL-Client-SHA1: junk")...).want(429, "rate_limited")
	ts.get("/", asVisitor(103)...).want(200, "")
	ts.stored(5)
}

// ---- bytes ----

func TestBytesPerHour(t *testing.T) {
	ts := behindProxy(t, "RATE_BYTES=1000KiB/h", "MAX_ANON=8MiB", "DEDUP_MAX=1").certified()
	const kib = 1 << 10
	stored := int64(0)
	for i, c := range []struct {
		given         int // KiB stored before
		after         time.Duration
		cert          string // "": a new visitor
		size          int    // KiB
		chunked       bool
		status, retry int
	}{
		{0, 0, "", 1000, false, 201, 0},                  // all at once
		{0, 0, "", 1001, false, 429, 3600},               // more than all, announced
		{0, 0, "", 1300, true, 429, 1},                   // or in chunks
		{600, 0, "", 500, false, 429, 360},               // more than is left
		{600, 0, "", 400, false, 201, 0},                 // what is left
		{600, 360 * time.Second, "", 500, false, 201, 0}, // waiting as told
		{600, 359 * time.Second, "", 500, false, 429, 1},
		{0, 0, certFirst, 4999, false, 201, 0}, // an owner has five times as much
		{0, 0, certSecond, 3, false, 429, 1},   // and no more
	} {
		who := asVisitor(i)
		if c.cert != "" {
			who = withCert(c.cert)
		}
		for left := c.given; left > 0; left -= 300 {
			ts.create(fresh(min(left, 300)*kib), who...)
			stored++
		}
		ts.clock.advance(c.after)
		body := both(fresh(c.size * kib))[map[bool]int{true: 1}[c.chunked]]
		a := ts.do("POST", "/", body, who...).want(c.status, "")
		if c.status == 201 {
			stored++
		} else if wait := a.retryAfter(); a.field("code") != "rate_limited" || wait < c.retry ||
			c.retry > 1 && wait > c.retry {
			t.Errorf("row %d: %s, Retry-After %d", i+1, a.body, a.retryAfter())
		}
		ts.stored(stored)
	}
	// What is refused, or cut before a chunk was stored, costs nothing.
	twice := fresh(200 * kib)
	ts.create(twice, asVisitor(100)...)
	for range 8 {
		ts.post(twice, asVisitor(100)...).want(429, "duplicate_content")
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
	if json.Unmarshal([]byte(a.body), &w) != nil || json.Unmarshal([]byte(a.body), &refusal) != nil {
		a.t.Fatal(a.body)
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
	n := must(solve(context.Background(), w.Nonce, w.Difficulty, 1, nil))
	return []string{"X-PoW-Token: " + w.Token, "X-PoW-Solution: " + n}
}

func TestChallenge(t *testing.T) {
	off := start(t, "POW_DIFFICULTY=0").get("/challenge").want(200, "")
	if off.body != `{"enabled":false,"difficulty":0}`+"\n" {
		t.Errorf("off: %s", off.body)
	}
	ts := start(t, "defaults")
	ts.clock.hold()
	a := ts.get("/challenge").want(200, "")
	ends, nonce := ts.now().Unix()+300, a.field("nonce")
	shape := fmt.Sprintf(`^\{"enabled":true,"nonce":"[0-9a-f]{32}","difficulty":20,"base_difficulty":20,`+
		`"elevated":false,"expires":%[1]d,"token":"%[2]s:%[1]d:20:[0-9a-f]{64}","free":20\}\n$`, ends, nonce)
	if !regexp.MustCompile(shape).MatchString(a.body) || a.Header.Get("Cache-Control") != "no-store" ||
		ts.work().Nonce == nonce {
		t.Errorf("on: %s, want %s", a.body, shape)
	}
}

// TestProofs: how a proof may come; wrong ones and the spellings of its fields are pow_test.go's.
func TestProofs(t *testing.T) {
	ts := start(t, "POW_DIFFICULTY=12", "POW_FREE=0", "ANTIFLOOD_MAX=12")
	ts.clock.hold()
	w, other, old := ts.work(), ts.work(), ts.work().solve(t)
	proof := w.solve(t)
	for _, headers := range [][]string{
		nil, {"X-PoW-Token: ", "X-PoW-Solution: "}, // no proof
		proof[:1], proof[1:], {proof[0], proof[0], proof[1]}, {proof[0], proof[1], proof[1]},
		{strings.Replace(proof[0], ":12:", ":2:", 1), proof[1]},
	} {
		a, code := ts.post("content", headers...), "pow_failed"
		if len(headers) == 0 || headers[0] == "X-PoW-Token: " {
			code = "pow_required"
		}
		if got := a.want(400, code).work(); !got.Enabled || got.Difficulty != 12 || got.Nonce == w.Nonce ||
			a.field("hint") == "" {
			t.Errorf("%s: %s", headers, a.body)
		}
	}
	ts.nothing()
	// Each proof is for one creation, of many at once too; a refusal's challenge is as good as any.
	got := together(16, func(i int) *answer { return ts.post(fmt.Sprint("content ", i), proof...) })
	if got[201] != 1 || got[400]+got[429] != 15 {
		t.Errorf("16 creations with one proof: %v", got)
	}
	ts.post("again", proof...).want(400, "pow_failed")
	const target = "https://example.org/"
	ts.shorten(target, proof...).want(400, "pow_failed")
	ts.short(target, ts.shorten(target).want(400, "pow_required").work().solve(t)...)
	// A challenge lives five minutes. A wall clock that goes back brings no spent proof back.
	ts.clock.advance(299 * time.Second)
	ts.post("in time", old...).want(201, "")
	ts.clock.advance(time.Second)
	ts.post("too late", other.solve(t)...).want(400, "pow_failed")
	ts.clock.advance(-290 * time.Second)
	ts.post("again", old...).want(400, "pow_failed")
	// Another process has another key.
	unused := ts.work().solve(t)
	ts.stop()
	ts = startIn(t, ts.dir, "POW_DIFFICULTY=12", "POW_FREE=0")
	ts.post("after a restart", unused...).want(400, "pow_failed")
	ts.stored(3)
}

// TestFailuresCostNothing: whatever refuses a creation, its work, or the free creation that it took, can be used again,
// and so can the content. Only who made the server store a chunk has had the price of it.
func TestFailuresCostNothing(t *testing.T) {
	large, twice := fresh(700<<10), fresh(64)
	for _, free := range []int64{0, 1} {
		ts := behindProxy(t, "POW_DIFFICULTY=8", "MAX_ANON=600KiB", "MIN_SIZE=4", "MIN_ENTROPY=1", "DEDUP_MAX=1",
			"MAX_STORAGE=16MiB", "RATE_BYTES=4MiB/h", fmt.Sprint("POW_FREE=", free))
		ts.create(twice, asVisitor(1, ts.work().solve(t)...)...)
		for _, c := range [][5]string{ // request, body, header, the code, creations that are left to visitor 1
			{"POST /", "", "", "empty_content", "1"}, {"POST /", "abc", "", "too_small", "1"},
			{"POST /", large, "", "too_large", "1"}, {"POST /", strings.Repeat("a", 300), "", "low_entropy", "1"},
			{"POST /", twice, "", "duplicate_content", "1"}, {"POST /", `{"content":`, isJSON, "bad_json", "1"},
			{"POST /", "fine", "X-Burn-After-Read: maybe", "bad_option", "1"},
			{"PUT /0123456789abcdef", "fine", "", "not_found", "1"},
			{"POST /s", "ftp://example.org/", "", "bad_url", "1"}, {"cut in the first chunk", "", "", "", "1"},
			{"chunked", large, "", "too_large", "0"},
		} {
			var proof []string
			if free == 0 {
				proof = ts.work().solve(t)
			}
			h := append(asVisitor(1, proof...), cmp.Or(c[2], "Accept: */*"))
			switch c[0] {
			case "cut in the first chunk":
				ts.hold(h...).Close()
				ts.uploading(0)
			case "chunked": // one of which was stored
				ts.do("POST", "/", chunked{strings.NewReader(c[1])}, h...).want(413, c[3])
			default:
				if a := ts.send(c[0], strings.NewReader(c[1]), h...); a.StatusCode < 400 || a.field("code") != c[3] {
					t.Errorf("%s: %d %s", c[3], a.StatusCode, a.body)
				}
			}
			// Given back behind the answer.
			ts.settled("left after "+c[0]+" "+c[3], int64(must(strconv.Atoi(c[4]))), func() int64 {
				if free == 1 {
					return ts.work(asVisitor(1)...).Free
				} else if ts.post("ok? "+fresh(30), asVisitor(1, proof...)...).StatusCode == 201 {
					return 1
				}
				return 0
			})
		}
	}
}

// TestTwentyFirst: twenty creations an hour are free, of many at once and of the same word too; the refusal of the next
// says what to do, and when the next will be, to the second.
func TestTwentyFirst(t *testing.T) {
	ts := start(t, "defaults", "RATE_CREATE=0", "MAX_UPLOADS=1024", "ANTIFLOOD_THRESHOLD=1000")
	ts.clock.hold()
	hello := func(int) *answer { return ts.do("PUT", "/", strings.NewReader("hello\n"), "Accept: application/json") }
	if got := together(40, hello); got[201] != 20 || got[400] != 20 {
		t.Errorf("40 at once, 20 of them free: %v", got)
	}
	a := hello(0).want(400, "pow_required")
	for _, way := range []string{"fpaste", "/client", "wait 3 minutes", "certificate"} {
		a.says(way)
	}
	if a.retryAfter() != 180 || a.work().Difficulty != 20 {
		t.Errorf("Retry-After %d: %s", a.retryAfter(), a.body)
	}
	ts.clock.advance(179 * time.Second)
	hello(0).want(400, "pow_required")
	ts.clock.advance(time.Second)
	hello(0).want(201, "")
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
	for _, c := range []struct {
		after time.Duration // seconds
		bits  int
		free  int64
	}{{89, 8, 1}, {1, 6, 1}, {29, 6, 1}, {1, 4, 20}} {
		ts.clock.advance(c.after * time.Second)
		is(c.bits, c.free)
	}
}

// ---- duplicates ----

func TestDuplicates(t *testing.T) {
	same, short := fresh(64), fresh(63)
	ts := behindProxy(t, "DEDUP_MAX=2", "DEDUP_WINDOW=3600s").certified()
	own := map[int]created{1: ts.create(fresh(64), asVisitor(1)...), 2: ts.create(fresh(64), asVisitor(2)...)}
	for i, c := range []struct {
		after         time.Duration // seconds
		who           int
		send          string // PUT changes the paste that this client made first
		content       string
		status, retry int
	}{
		{0, 1, "POST", same, 201, 0}, {600, 1, "POST", same, 201, 0}, {0, 1, "POST", same, 429, 1200},
		{0, 1, "PUT", same, 429, 1200}, {0, 1, "POST", short, 201, 0}, {0, 1, "POST", short, 201, 0},
		{0, 1, "POST", short, 201, 0},
		{0, 2, "POST", same, 201, 0}, // nobody else's count
		{0, 2, "PUT", same, 200, 0},  // a change counts like a creation
		{0, 2, "PUT", same, 429, 1800}, {1199, 1, "POST", same, 429, 1}, {1, 1, "POST", same, 201, 0},
	} {
		ts.clock.advance(c.after * time.Second)
		path, h := "/", asVisitor(c.who, "X-Delete-Token: "+own[c.who].DeleteToken)
		if c.send == "PUT" {
			path += own[c.who].ID
		}
		a := ts.do(c.send, path, strings.NewReader(c.content), h...)
		if a.StatusCode != c.status || a.retryAfter() != c.retry || c.status == 429 &&
			a.field("code")+a.field("count")+a.field("window_seconds") != "duplicate_content23600" {
			t.Fatalf("row %d: %d, Retry-After %d, %s", i+1, a.StatusCode, a.retryAfter(), a.body)
		}
	}
	// An owner is one client, from wherever. Many at once are counted one by one, whatever the form.
	other := fresh(64)
	ts.post(other, withCert(certFirst)...).want(201, "")
	if got := together(8, func(i int) *answer {
		if i%2 == 0 {
			return ts.post(`{"content": "`+other+`"}`, withCert(certSecond, isJSON)...)
		}
		return ts.post(other, withCert(certFirst)...)
	}); got[201] != 1 || got[429] != 7 {
		t.Errorf("eight at once with one left: %v", got)
	}
}

// ---- slots ----

// TestUploadSlots: a client has an eighth, a /48 a quarter, until the answer is known; a moment's wait for more, then
// 429.
func TestUploadSlots(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, other string
		held        int // by how many the share is used up
		address     func(i int) string
	}{
		{"a client", "192.0.2.2", 2, func(int) string { return "192.0.2.1" }},
		{"a /48", "2001:db8:2::1", 4, func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ts := behindProxy(t, "MAX_UPLOADS=16", "POW_DIFFICULTY=4", "POW_FREE=9")
			var conns []net.Conn
			for i := range c.held {
				conns = append(conns, ts.hold(from(c.address(i))...))
			}
			more, waits := from(c.address(c.held)), time.Now()
			free := ts.work(more...).Free
			a := ts.post("one more", more...).want(429, "too_many_transfers")
			if d := time.Since(waits); a.retryAfter() != 5 || d < time.Second {
				t.Errorf("told to wait %d s, after %v", a.retryAfter(), d)
			}
			if left := ts.work(more...).Free; left != free {
				t.Errorf("%d of %d free creations are left after a refusal", left, free)
			}
			ts.post("another's", from(c.other)...).want(201, "")
			ts.get("/", from(c.address(0))...).want(200, "")
			for _, conn := range conns {
				conn.Close()
			}
			ts.uploading(0)
		})
	}
}

// TestSlotUntilTheAnswer: an upload whose bytes have all come holds its slot while the writer is busy.
func TestSlotUntilTheAnswer(t *testing.T) {
	t.Parallel()
	ts := behindProxy(t, "MAX_UPLOADS=16")
	release := ts.block()
	go func() {
		defer release()
		ts.uploading(2)
		ts.post("a third", asVisitor(1)...).want(429, "too_many_transfers")
	}()
	together(2, func(i int) *answer { return ts.post(fmt.Sprint("content ", i), asVisitor(1)...) })
	ts.stored(2)
}

// TestDownloadSlots: the same for what is read, but of what comes from the cache, of HEAD and of what is no content.
func TestDownloadSlots(t *testing.T) {
	t.Parallel()
	ts := behindProxy(t, "MAX_DOWNLOADS=16", "MAX_ANON=16MiB")
	large, small := ts.create(fresh(3<<20)), ts.create("small")
	ts.get(small.Raw).want(200, "")
	for range 2 {
		ts.halfway(large.ID, asVisitor(1)...)
	}
	for _, path := range []string{large.Raw, "/client"} {
		a := ts.get(path, asVisitor(1)...).want(429, "too_many_transfers")
		if a.retryAfter() != 5 || a.Header.Get("Etag") != "" {
			t.Errorf("%s: %v", path, a.Header)
		}
	}
	for _, request := range []string{"HEAD " + large.Raw, "GET " + small.Raw, "GET " + large.URL} {
		ts.send(request, nil, asVisitor(1)...).want(200, "")
	}
	ts.get(large.Raw, asVisitor(2)...).want(200, "")
	ts.do("HEAD", "/client", nil, asVisitor(2)...).want(200, "")
}

// TestDerivations: cores minus one at once, eight wait, and more are told to come back; one at a time for a client, and
// two places to wait for it and for a /48.
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
			h := strings.Join(from(c.who(i), "X-Paste-Password: pw"), "\r\n")
			fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", locked.Raw, h)
			waiting = append(waiting, conn)
		}
		ts.settled(c.name+": derivations that wait", int64(c.wait), waits)
		ts.clock.advance(time.Hour)
		for range 4 { // the next one is told at once, and charged nothing
			h := from(c.who(9), "X-Paste-Password: pw")
			if a := ts.get(locked.Raw, h...).want(503, "busy"); a.retryAfter() == 0 {
				t.Error("no Retry-After")
			}
			ts.post("x", h...).want(503, "busy")
			ts.get(open.Raw, from(c.who(9))...).want(200, "")
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
