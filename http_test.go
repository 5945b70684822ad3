package main

// Routes, errors and transfers (http.go): the table, 404 and 405, GET /, /health, the URL prefix and public URL, slots, slow and
// leaving clients.

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Test404 wants one and the same answer, to the byte, for all that is not there.
func Test404(t *testing.T) {
	for _, env := range [][]string{nil, {"URL_PREFIX=/p"}, {"CACHE=0"}} {
		ts := start(t, env...)
		expired, burned, deleted := ts.create("x", "X-Expiry: 60"), ts.create("x", "X-Burn-After-Read: 1"), ts.create("x")
		swept := ts.create("x", "X-Expiry: 60")
		ts.get("/"+expired.ID+"/raw").want(200, "")
		ts.get("/"+deleted.ID+"/raw").want(200, "")
		ts.clock.advance(61 * time.Second)
		ts.get("/"+burned.ID+"/raw").want(200, "")
		ts.do("DELETE", "/"+deleted.ID, nil, "X-Delete-Token: "+deleted.DeleteToken).want(200, "")
		ts.store.do(0, func(w *writeTx) error { _, err := w.exec("DELETE FROM pastes WHERE id = ?", swept.ID); return err })
		for _, accept := range []string{"application/json", "text/plain"} {
			var first string
			var firstHeader http.Header
			for _, path := range []string{"/0123456789abcdef", "/" + expired.ID, "/" + burned.ID, "/" + deleted.ID, "/" + swept.ID, "/favicon.ico", "/robots.txt", "/0123456789ABCDEF", "/" + strings.Repeat("ab", 40), "/admin"} {
				for _, path := range []string{path, path + "/raw", path + "/x/y"} {
					a := ts.get(path, "Accept: "+accept, "X-Request-ID: same")
					a.Header.Del("Date")
					if first == "" {
						first, firstHeader = a.body, a.Header
					}
					if a.StatusCode != 404 || a.body != first || fmt.Sprint(a.Header) != fmt.Sprint(firstHeader) {
						t.Errorf("%s: %d %q %v, want %q %v", path, a.StatusCode, a.body, a.Header, first, firstHeader)
					}
					if h := ts.do("HEAD", path, nil, "Accept: "+accept, "X-Request-ID: same"); h.StatusCode != 404 || h.body != "" || h.Header.Get("Content-Length") != strconv.Itoa(len(first)) {
						t.Errorf("HEAD %s: %d %v", path, h.StatusCode, h.Header)
					}
				}
			}
			if accept == "application/json" && first != `{"error": "not found", "code": "not_found", "request_id": "same"}`+"\n" || accept == "text/plain" && first != "error: not found\n" {
				t.Errorf("404 is %q", first)
			}
			for _, path := range []string{"/0123456789abcdef", "/" + expired.ID, "/" + burned.ID, "/" + deleted.ID} {
				if a := ts.do("DELETE", path, nil, "Accept: "+accept, "X-Request-ID: same", "X-Delete-Token: "+deleted.DeleteToken); a.StatusCode != 404 || a.body != first {
					t.Errorf("DELETE %s: %d %q", path, a.StatusCode, a.body)
				}
			}
			// PUT's says more, but the same for all of them.
			hint := ""
			for _, path := range []string{"/0123456789abcdef", "/" + expired.ID, "/" + burned.ID, "/" + deleted.ID} {
				a := ts.do("PUT", path, strings.NewReader("y"), "Accept: "+accept, "X-Request-ID: same")
				if hint == "" {
					hint = a.body
				}
				if a.StatusCode != 404 || a.body != hint {
					t.Errorf("PUT %s: %d %q", path, a.StatusCode, a.body)
				}
			}
		}
	}
}

// Test405: a route that is there answers other methods with what it does take.
func Test405(t *testing.T) {
	ts := start(t)
	p := ts.create("x")
	for _, c := range []struct{ path, allow string }{
		{"/", "GET, HEAD, POST, PUT"}, {"/" + p.ID, "DELETE, GET, HEAD, PUT"}, {"/0123456789abcdef", "DELETE, GET, HEAD, PUT"}, {"/" + p.ID + "/raw", "GET, HEAD"}, {"/pastes", "DELETE, GET, HEAD, PUT"}, {"/health", "DELETE, GET, HEAD, PUT"},
	} {
		for _, method := range []string{"PATCH", "OPTIONS", "TRACE", "BREW", "PROPFIND", "post"} {
			a := ts.do(method, c.path, nil).want(405, "method_not_allowed")
			if a.Header.Get("Allow") != c.allow || !strings.Contains(a.field("hint"), c.allow) {
				t.Errorf("%s %s: Allow %q, want %q: %s", method, c.path, a.Header.Get("Allow"), c.allow, a.body)
			}
		}
	}
	ts.do("DELETE", "/", nil).want(405, "method_not_allowed")
	ts.post("x").want(201, "")
	ts.do("POST", "/"+p.ID, strings.NewReader("x")).want(405, "method_not_allowed")
	ts.do("DELETE", "/"+p.ID+"/raw", nil).want(405, "method_not_allowed")
	ts.do("PUT", "/"+p.ID+"/raw", strings.NewReader("x")).want(405, "method_not_allowed")
	ts.byHand("OPTIONS", "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").want(404, "not_found")
	ts.stored(2)
}

// TestHEAD: wherever GET goes, HEAD gives the same head and no body.
func TestHEAD(t *testing.T) {
	ts := start(t, proxied...)
	p := ts.create("content", withCert(certAlice)...)
	for _, path := range []string{"/", "/health", "/" + p.ID, "/" + p.ID + "/raw", "/pastes", "/nothing/here", "/challenge"} {
		for _, accept := range []string{"*/*", "text/plain"} {
			h := withCert(certAlice, "Accept: "+accept, "X-Request-ID: same")
			get, head := ts.get(path, h...), ts.do("HEAD", path, nil, h...)
			get.Header.Del("Date")
			head.Header.Del("Date")
			if get.StatusCode != head.StatusCode || head.body != "" || fmt.Sprint(get.Header) != fmt.Sprint(head.Header) {
				t.Errorf("%s: GET %d %v, HEAD %d %v", path, get.StatusCode, get.Header, head.StatusCode, head.Header)
			}
		}
	}
}

// TestDescription: GET / says what there is, with links that work, in both forms.
func TestDescription(t *testing.T) {
	for _, c := range []struct {
		name    string
		env     []string
		headers []string
		base    string
	}{
		{"plain", nil, []string{"Host: paste.example:81"}, "http://paste.example:81"},
		{"prefix", []string{"URL_PREFIX=/p/q/"}, []string{"Host: paste.example"}, "http://paste.example/p/q"},
		{"public URL", []string{"PUBLIC_URL=https://public.example/"}, []string{"Host: evil.example"}, "https://public.example"},
		{"public URL and prefix", []string{"PUBLIC_URL=https://public.example", "URL_PREFIX=/p"}, nil, "https://public.example/p"},
		{"https by the proxy", proxied, []string{"X-Proxy-Secret: " + proxySecret, "X-Forwarded-Proto: https", "Host: paste.example"}, "https://paste.example"},
		{"a host header of the proxy counts for nothing", proxied, []string{"X-Proxy-Secret: " + proxySecret, "X-Forwarded-Host: evil.example", "Host: paste.example"}, "http://paste.example"},
	} {
		ts := start(t, c.env...)
		a := ts.get("/", c.headers...).want(200, "")
		var m struct {
			Name, Version string
			Endpoints     map[string]string
			Usage         []string
			Limits        map[string]json.RawMessage
		}
		if err := json.Unmarshal([]byte(a.body), &m); err != nil || m.Name != "FlaskPaste" || m.Version != version || len(m.Usage) == 0 {
			t.Fatalf("%s: %v: %s", c.name, err, a.body)
		}
		text := ts.get("/", append(c.headers, "Accept: text/plain")...).want(200, "").body
		for _, u := range m.Usage {
			if !strings.Contains(u, c.base+"/") || !strings.Contains(text, u) || strings.Contains(u, "evil") {
				t.Errorf("%s: usage %q", c.name, u)
			}
		}
		for _, r := range ts.table {
			method, path, _ := strings.Cut(r.pattern, " ")
			if shown := method + " " + ts.cfg.prefix + strings.NewReplacer("{$}", "", "/{id}/{view}", map[bool]string{false: "/{id}/raw", true: "/{id}/info"}[strings.HasPrefix(path, "/s/")]).Replace(path); m.Endpoints[shown] != r.does || !strings.Contains(text, strings.TrimPrefix(shown, method)+" ") || !strings.Contains(text, r.does) {
				t.Errorf("%s: %s is not described: %v", c.name, shown, m.Endpoints)
			}
		}
		if len(m.Endpoints) != len(ts.table) {
			t.Errorf("%s: %d endpoints, %d routes", c.name, len(m.Endpoints), len(ts.table))
		}
		for tier, want := range map[string]string{"anonymous": `{"max_size": 3145728, "default_expiry": 86400, "max_expiry": 604800}`, "untrusted": `{"max_size": 52428800, "default_expiry": 604800, "max_expiry": 4233600}`,
			"trusted": `{"max_size": 52428800, "default_expiry": 2592000, "max_expiry": 7776000}`, "admin": `{"max_size": 52428800, "default_expiry": 2592000, "max_expiry": 7776000}`} {
			if string(m.Limits[tier]) != want {
				t.Errorf("%s: limits of %s: %s, want %s", c.name, tier, m.Limits[tier], want)
			}
		}
		// The links of answers have the same base, and Location is a path.
		b := ts.do("PUT", "/file", strings.NewReader("x"), c.headers...).want(201, "")
		id := b.Header.Get("Location")[len(ts.cfg.prefix)+1:]
		if b.body != c.base+"/"+id+"/raw\n" || b.Header.Get("Location") != ts.cfg.prefix+"/"+id {
			t.Errorf("%s: link %q, Location %q", c.name, b.body, b.Header.Get("Location"))
		}
		ts.get("/"+id+"/raw").want(200, "")
	}
}

// TestPrefix: everything below it, nothing beside it.
func TestPrefix(t *testing.T) {
	ts := start(t, append([]string{"URL_PREFIX=/paste"}, proxied...)...)
	p := ts.create("x", withCert(certAlice)...)
	if p.URL != "/paste/"+p.ID || p.Raw != "/paste/"+p.ID+"/raw" {
		t.Errorf("%+v", p)
	}
	for path, status := range map[string]int{"": 200, "/": 200, "/health": 200, "/" + p.ID: 200, "/" + p.ID + "/raw": 200, "/pastes": 401, "/challenge": 200} {
		ts.get(path).want(status, "")
	}
	ts.do("POST", "", strings.NewReader("x")).want(201, "")
	ts.do("PUT", "", strings.NewReader("x")).want(201, "")
	outside := ts.in(t)
	outside.url = strings.TrimSuffix(ts.url, "/paste")
	for _, path := range []string{"/", "/health", "/" + p.ID, "/" + p.ID + "/raw", "/pastes", "/pasteX", "/paste" + p.ID, "/Paste/", "/p/../paste/health", "//paste/health"} {
		a := outside.get(path)
		if a.StatusCode != 404 || a.Header.Get("Location") != "" {
			t.Errorf("%s: %d %v", path, a.StatusCode, a.Header)
		}
	}
	outside.do("POST", "/", strings.NewReader("x")).want(404, "not_found")
	ts.stored(3)
}

// TestHealth: cached for a second, asked once at a time, 503 when the database does not answer or the server is stopping.
func TestHealth(t *testing.T) {
	ts := start(t)
	if a := ts.get("/health").want(200, ""); a.body != `{"status": "healthy", "database": "ok"}`+"\n" {
		t.Errorf("answer %q", a.body)
	}
	time.Sleep(200 * time.Millisecond) // most often the sweep at start is over: one that must wait sleeps twice as long after
	// The writer hangs: an answer comes within 2 s all the same, and one question waits, not a hundred.
	release := ts.block()
	time.Sleep(1100 * time.Millisecond) // past the cached answer
	var best time.Duration
	for try := range 5 { // a machine that stalls is no fault of the answer's
		var wg sync.WaitGroup
		begun := time.Now()
		for range 20 {
			wg.Go(func() {
				if a := ts.get("/health").want(503, ""); a.body != `{"status": "unhealthy", "database": "error"}`+"\n" {
					t.Errorf("answer %q", a.body)
				}
			})
		}
		wg.Wait()
		if d := time.Since(begun); try == 0 || d < best {
			best = d
		}
		if best <= 2500*time.Millisecond {
			break
		}
	}
	if best > 2500*time.Millisecond {
		t.Errorf("an answer took %v", best)
	}
	if n := len(ts.store.ops); n < 1 || n > 2 { // one of ours, and perhaps a step of the sweep at start
		t.Errorf("%d questions wait for the writer", n)
	}
	release()
	ts.settled("health", 200, func() int64 { return int64(ts.get("/health").StatusCode) })
	ts.stopping.Store(true)
	ts.get("/health").want(503, "")
	ts.stopping.Store(false)
	ts.stop()
	if ts.store.ping() == nil {
		t.Error("a closed store is well")
	}
}

// TestCreatingWithoutCertificate: creating without one is 401, before a byte of the body; reading goes on.
func TestCreatingWithoutCertificate(t *testing.T) {
	for _, c := range []struct {
		setting              string
		anonymous, untrusted int
	}{{"0", 201, 201}, {"any", 401, 201}, {"trusted", 401, 401}} {
		ts := start(t, append([]string{"REQUIRE_CERT=" + c.setting}, proxied...)...)
		for _, r := range [][2]string{{"POST", "/"}, {"PUT", "/"}, {"PUT", "/name"}} {
			if a := ts.do(r[0], r[1], strings.NewReader("x")); a.StatusCode != c.anonymous || c.anonymous == 401 && a.field("code") != "certificate_required" {
				t.Errorf("%s: %s %s anonymous: %d %s", c.setting, r[0], r[1], a.StatusCode, a.body)
			}
			if a := ts.do(r[0], r[1], strings.NewReader("x"), withCert(certAlice)...); a.StatusCode != c.untrusted {
				t.Errorf("%s: %s %s with a certificate: %d %s", c.setting, r[0], r[1], a.StatusCode, a.body)
			}
		}
		ts.get("/").want(200, "")
		ts.get("/0123456789abcdef").want(404, "")
		if c.anonymous == 401 {
			ts.byHand("POST", "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n").want(401, "certificate_required")
		}
	}
}

// hold begins an upload of n bytes and sends none of them but the first; it waits until the server has taken a slot.
func (ts *testServer) hold(n int, headers ...string) net.Conn {
	ts.t.Helper()
	c := ts.dial()
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n", n, strings.Join(append(headers, ""), "\r\n"))
	io.WriteString(c, "x")
	return c
}

// answered reads the response on a connection.
func (ts *testServer) answered(c net.Conn) *answer {
	ts.t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		ts.t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	res.Request = &http.Request{Method: "POST"}
	return &answer{res, string(b), ts.t}
}

// TestHeldUploads: one address holds its eighth of the slots, another still gets in, and who waits too long is told to come back.
func TestHeldUploads(t *testing.T) {
	ts := start(t, proxied...)
	var conns []net.Conn
	for i := range 64 {
		conns = append(conns, ts.hold(1000, from("192.0.2.1")...))
		if i == 7 { // these have the slots, the others none
			ts.settled("slots", 8, func() int64 { return int64(ts.uploads.inUse()) })
		}
	}
	made, best := int64(0), time.Hour
	for try := 0; try < 5 && best > 900*time.Millisecond; try++ { // the machine may stall once
		begun := time.Now()
		ts.post("x", from("192.0.2.2")...).want(201, "")
		ts.do("PUT", "/", strings.NewReader(pattern(chunkSize*2)), from("2001:db8::1")...).want(201, "")
		best = min(best, time.Since(begun))
		made += 2
	}
	if best > 900*time.Millisecond {
		t.Errorf("another address waited %v", best)
	}
	a := ts.post("x", from("192.0.2.1")...).want(429, "too_many_transfers")
	if a.Header.Get("Retry-After") != "5" {
		t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
	}
	ts.get("/", from("192.0.2.1")...).want(200, "") // what needs no slot goes on
	refused := 0
	for _, c := range conns[8:] {
		if a := ts.answered(c); a.StatusCode == 429 && a.field("code") == "too_many_transfers" {
			refused++
		}
	}
	if refused != 56 {
		t.Errorf("%d of 56 were told to come back", refused)
	}
	for _, c := range conns {
		c.Close()
	}
	ts.stored(made)
	ts.post("x", from("192.0.2.1")...).want(201, "")
}

// TestHeldDownloads: the same for what is read slowly.
func TestHeldDownloads(t *testing.T) {
	ts := start(t, append([]string{"MAX_DOWNLOADS=16", "MAX_ANON=16MiB"}, proxied...)...)
	big, small := ts.create(strings.Repeat("0123456789abcdef", 12<<16)), ts.create("small")
	ask := func(addr string) net.Conn {
		c := ts.dial()
		c.(*net.TCPConn).SetReadBuffer(32 << 10)
		fmt.Fprintf(c, "GET /%s/raw HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", big.ID, strings.Join(from(addr), "\r\n"))
		return c
	}
	held := []net.Conn{ask("192.0.2.1"), ask("192.0.2.1")}
	ts.settled("slots", 2, func() int64 { return int64(ts.downloads.inUse()) })
	a := ts.get("/"+big.ID+"/raw", from("192.0.2.1")...).want(429, "too_many_transfers")
	if a.Header.Get("Retry-After") != "5" || a.Header.Get("Etag") != "" || a.Header.Get("Content-Disposition") != "" {
		t.Errorf("headers %v", a.Header)
	}
	ts.get("/"+small.ID+"/raw", from("192.0.2.1")...).want(200, "")
	ts.do("HEAD", "/"+big.ID+"/raw", nil, from("192.0.2.1")...).want(200, "")
	ts.get("/"+big.ID+"/raw", from("192.0.2.2")...).want(200, "")
	for _, c := range held {
		c.Close()
	}
	ts.stored(2)
	ts.get("/"+big.ID+"/raw", from("192.0.2.1")...).want(200, "")
}

// TestClientLeaves: amid an upload, of each form, at each stage: chunks are removed, slots freed, nothing is stored, nothing answered.
func TestClientLeaves(t *testing.T) {
	ts := start(t)
	kept := ts.create("kept")
	for _, c := range []struct {
		name, head string
		body       string
	}{
		{"raw, at once", "Content-Length: 1000000", ""},
		{"raw, in the first chunk", "Content-Length: 1000000", pattern(1000)},
		{"raw, in a later chunk", "Content-Length: 1000000", pattern(3 * chunkSize)},
		{"chunked, in a later chunk", "Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n", 3*chunkSize, pattern(3*chunkSize))},
		{"chunked, amid a chunk's head", "Transfer-Encoding: chunked", "5\r\nhello\r\n1"},
		{"multipart", formType + "\r\nContent-Length: 1000000", form(file("x", pattern(2*chunkSize)))[:2*chunkSize]},
		{"multipart, chunked", formType + "\r\nTransfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n", 2*chunkSize, form(file("x", pattern(2*chunkSize)))[:2*chunkSize])},
		{"JSON", "Content-Type: application/json\r\nContent-Length: 1000000", `{"content": "x`},
		{"an update", "", ""},
	} {
		for _, how := range []string{"close", "half-close", "reset"} {
			conn := ts.dial()
			line := "POST /"
			if c.name == "an update" {
				line = "PUT /" + kept.ID
				c.head, c.body = "X-Delete-Token: "+kept.DeleteToken+"\r\nContent-Length: 1000000", pattern(2*chunkSize)
			}
			fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n%s", line, c.head, c.body)
			if len(c.body) > chunkSize {
				ts.settled(c.name+": chunks on the way", 1, func() int64 {
					return min(1, ts.number("SELECT count(*) FROM chunks WHERE key >> 20 NOT IN (SELECT content FROM pastes)"))
				})
			} else {
				ts.settled(c.name+": slots", 1, func() int64 { return int64(ts.uploads.inUse()) })
			}
			switch how {
			case "close":
				conn.Close()
			case "half-close":
				conn.(*net.TCPConn).CloseWrite()
				if b, _ := io.ReadAll(conn); strings.Contains(string(b), "201 Created") {
					t.Errorf("%s: answered %q", c.name, b)
				}
			case "reset":
				conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
			}
			ts.in(t).stored(1)
		}
	}
	if got := ts.get("/" + kept.ID + "/raw").body; got != "kept" {
		t.Errorf("content %q", got)
	}
}

// TestClientLeavesDownload: the slot comes back, a burned paste is gone, an open one is not.
func TestClientLeavesDownload(t *testing.T) {
	ts := start(t, "MAX_ANON=16MiB")
	content := strings.Repeat("0123456789abcdef", 12<<16)
	open, burning := ts.create(content), ts.create(content, "X-Burn-After-Read: true")
	for _, id := range []string{open.ID, open.ID, burning.ID} {
		c := ts.dial()
		c.(*net.TCPConn).SetReadBuffer(32 << 10)
		fmt.Fprintf(c, "GET /%s/raw HTTP/1.1\r\nHost: x\r\n\r\n", id)
		io.CopyN(io.Discard, c, 100<<10)
		ts.settled("slots", 1, func() int64 { return int64(ts.downloads.inUse()) })
		c.Close()
		ts.settled("slots", 0, func() int64 { return int64(ts.downloads.inUse()) })
	}
	ts.get("/"+burning.ID+"/raw").want(404, "not_found")
	ts.stored(1)
	if a := ts.get("/"+open.ID+"/raw").want(200, ""); a.body != content {
		t.Errorf("%d bytes", len(a.body))
	}
}

// TestSlow: bodies and readers slower than 16 KiB in 10 s are cut; steady ones that are just fast enough are not.
func TestSlow(t *testing.T) {
	if testing.Short() {
		t.Skip("takes the 10 s that a slow client has")
	}
	t.Parallel()
	ts := start(t, append([]string{"MAX_ANON=64MiB"}, proxied...)...)
	big := ts.create(strings.Repeat("0123456789abcdef", 24<<16))
	var wg sync.WaitGroup
	wg.Go(func() { // a body that says nothing more
		begun := time.Now()
		c := ts.hold(1000, from("192.0.2.1")...)
		a := ts.answered(c)
		if d := time.Since(begun); a.StatusCode != 408 || a.field("code") != "too_slow" || d < 9*time.Second || d > 20*time.Second {
			t.Errorf("a silent body: %d %s after %v", a.StatusCode, a.body, d)
		}
	})
	wg.Go(func() { // 1 KiB a second is too slow, and does not buy time by being alive
		begun := time.Now()
		c := ts.hold(1<<20, from("192.0.2.2")...)
		go func() {
			for range 25 {
				time.Sleep(time.Second)
				if _, err := io.WriteString(c, pattern(1<<10)); err != nil {
					return
				}
			}
		}()
		a := ts.answered(c)
		if d := time.Since(begun); a.StatusCode != 408 || d < 9*time.Second || d > 20*time.Second {
			t.Errorf("a dripping body: %d %s after %v", a.StatusCode, a.body, d)
		}
	})
	wg.Go(func() { // a multipart body is held to it too
		a := ts.answered(ts.hold(100000, from("192.0.2.3", formType)...))
		if a.StatusCode != 408 {
			t.Errorf("a silent multipart body: %d %s", a.StatusCode, a.body)
		}
	})
	wg.Go(func() { // 16 KiB in 5 s, and again until far more than 10 s are over, is enough, also where the machine stalls for seconds
		c := ts.hold(48<<10, from("192.0.2.4")...)
		for i := range 12 {
			time.Sleep(1250 * time.Millisecond)
			n := 4 << 10
			if i == 11 {
				n--
			}
			io.WriteString(c, pattern(n))
		}
		if a := ts.answered(c); a.StatusCode != 201 || a.field("size") != strconv.Itoa(48<<10) {
			t.Errorf("a body fast enough: %d %s", a.StatusCode, a.body)
		}
	})
	wg.Go(func() { // a body that nobody reads can't hold the connection either
		begun := time.Now()
		c := ts.dial()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nx")
		io.ReadAll(c)
		if d := time.Since(begun); d > 20*time.Second {
			t.Errorf("a GET with a silent body held its connection %v", d)
		}
	})
	wg.Go(func() { // a reader that stops
		begun := time.Now() // before the server's own count begins
		c := ts.dial()
		c.(*net.TCPConn).SetReadBuffer(16 << 10)
		fmt.Fprintf(c, "GET /%s/raw HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", big.ID, strings.Join(from("192.0.2.5"), "\r\n"))
		ts.settled("slots", 1, func() int64 { return int64(ts.downloads.inUse()) })
		for ts.downloads.inUse() > 0 && time.Since(begun) < 25*time.Second {
			time.Sleep(50 * time.Millisecond)
		}
		if d := time.Since(begun); d < 9*time.Second || d > 20*time.Second {
			t.Errorf("a reader that stopped held its slot %v", d)
		}
	})
	wg.Go(func() { // a head that never ends
		begun := time.Now()
		c := ts.dial()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n")
		io.ReadAll(c)
		if d := time.Since(begun); d < 8*time.Second || d > 20*time.Second {
			t.Errorf("a head without an end held its connection %v", d)
		}
	})
	for range 10 {
		time.Sleep(time.Second)
		ts.get("/", from("192.0.2.9")...).want(200, "")
	}
	wg.Wait()
	ts.stored(2)
}

// TestTransferTimeout: all of a transfer has its limit, whatever its pace.
func TestTransferTimeout(t *testing.T) {
	ts := start(t, "TRANSFER_TIMEOUT=2s", "MAX_ANON=64MiB")
	begun := time.Now() // before the server's own count begins
	c := ts.hold(64 << 20)
	go func() {
		for {
			if _, err := c.Write([]byte(pattern(pieceSize))); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	a := ts.answered(c)
	if d := time.Since(begun); a.StatusCode != 408 || d < 1500*time.Millisecond || d > 15*time.Second { // without the limit it takes 80 s
		t.Errorf("an upload of %v: %d %s", d, a.StatusCode, a.body)
	}
	ts.nothing()
}

// TestBodyNotRead: what stands behind a refused body is not taken for a request.
func TestBodyNotRead(t *testing.T) {
	ts := start(t)
	inner := "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nsmuggled"
	c := ts.dial()
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nX-Expiry: 0\r\nContent-Length: %d\r\n\r\n%s", len(inner), inner)
	b, _ := io.ReadAll(c)
	if n := strings.Count(string(b), "HTTP/1.1 "); n != 1 || !strings.Contains(string(b), "Connection: close") {
		t.Errorf("%d answers: %q", n, b)
	}
	ts.nothing()
}

// TestKeptConnections: a body of a known length that was read to its end leaves the connection usable, whatever its form. After
// one in chunks nothing counts, because a length may have stood beside them, nor after HTTP/1.0, which knows no chunks.
func TestKeptConnections(t *testing.T) {
	ts := start(t)
	for _, c := range []struct{ name, body, kind string }{
		{"raw", "hello", "text/plain"}, {"JSON", `{"content":"x"}`, "application/json"}, {"multipart", form(file("x", "y")), formType[14:]},
	} {
		length, chunks := fmt.Sprintf("Content-Length: %d\r\n", len(c.body)), "Transfer-Encoding: chunked\r\n"
		body := map[bool]string{false: "\r\n" + c.body, true: fmt.Sprintf("\r\n%x\r\n%s\r\n0\r\n\r\n", len(c.body), c.body)}
		for head, want := range map[string]int{"1.1\r\n" + length + body[false]: 3, "1.1\r\n" + chunks + body[true]: 1, "1.1\r\n" + chunks + length + body[true]: 1, "1.0\r\nConnection: keep-alive\r\n" + length + body[false]: 1} {
			conn := ts.dial()
			io.WriteString(conn, strings.Repeat("POST / HTTP/"+strings.Replace(head, "\r\n", "\r\nHost: x\r\nContent-Type: "+c.kind+"\r\n", 1), 3))
			conn.(*net.TCPConn).CloseWrite()
			b, _ := io.ReadAll(conn)
			if n := strings.Count(string(b), " 201 Created"); n != want || strings.Count(string(b), "HTTP/1.") != want {
				t.Errorf("%s, %.60q: %d answers, want %d: %q", c.name, head, n, want, b)
			}
		}
	}
}

// TestMalformed: what is no HTTP, or no sane HTTP, is answered by a 4xx or a closed connection, and stores nothing.
func TestMalformed(t *testing.T) {
	ts := start(t)
	for _, text := range []string{
		"nonsense\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
		"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nA\x00b: c\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nX-A: b\x00c\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nX-Expiry : 5\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nx", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\nExpect: nonsense\r\nContent-Length: 1\r\n\r\nx",
		"GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 40) + "\r\n", "GET /" + strings.Repeat("a", 40<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		c := ts.dial()
		io.WriteString(c, text)
		c.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(c)
		status, _, _ := strings.Cut(string(b), "\r\n")
		if len(b) > 0 && !strings.HasPrefix(status, "HTTP/1.1 4") && !strings.HasPrefix(status, "HTTP/1.1 501") && !strings.HasPrefix(status, "HTTP/1.1 505") {
			t.Errorf("%.80q: %s", text, status)
		}
	}
	ts.nothing()
	ts.get("/health").want(200, "")
}

// TestUnknownError: what no handler foresaw is a 500 that shows nothing; its cause is in the log once.
func TestUnknownError(t *testing.T) {
	ts := start(t)
	ts.line("GET /pastes").handle = func(*server, *request) error { return fmt.Errorf("secret cause %d", 42) }
	a := ts.get("/pastes", "X-Request-ID: r").want(500, "internal")
	if strings.Contains(a.body, "cause") || ts.logged("r", "status") != "500" || strings.Count(ts.logs.String(), "secret cause 42") != 1 {
		t.Errorf("answer %s, log %s", a.body, ts.logs)
	}
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{errNotFound, 404, "not_found"}, {fmt.Errorf("x: %w", errFull), 503, "storage_full"}, {errBusy, 503, "busy"}, {errClosed, 503, "busy"}, {context.DeadlineExceeded, 503, "busy"},
		{errDamaged, 500, "internal"}, {errCorrupt, 500, "internal"}, {errGone, 500, "internal"},
	} {
		ts.line("GET /pastes").handle = func(*server, *request) error { return c.err }
		a := ts.get("/pastes").want(c.status, c.code)
		if (c.status == 503) != (a.Header.Get("Retry-After") != "") {
			t.Errorf("%v: Retry-After %q", c.err, a.Header.Get("Retry-After"))
		}
	}
}

// TestRoutesAreTheTable: nothing answers that is not a line of it, and each line has all that the lists are made of.
func TestRoutesAreTheTable(t *testing.T) {
	ts := start(t)
	var patterns []string
	for _, r := range ts.table {
		if r.pattern == "" || r.who == "" || r.does == "" || r.handle == nil {
			t.Errorf("line %+v", r)
		}
		if strings.HasPrefix(r.pattern, "HEAD ") {
			t.Errorf("%s: GET serves HEAD", r.pattern)
		}
		patterns = append(patterns, r.pattern)
	}
	slices.Sort(patterns)
	if len(slices.Compact(patterns)) != len(ts.table) {
		t.Error("a line twice")
	}
	if _, err := newServer(nil, nil, nil, nil); err == nil {
		t.Error("a server without its parts")
	}
}

// TestBusyWriter: a full queue is 503 at once; what was accepted is answered with what became of it.
func TestBusyWriter(t *testing.T) {
	ts := start(t, "MAX_UPLOADS=4096")
	release := ts.block()
	var filling sync.WaitGroup
	for range queueOps {
		filling.Go(func() { ts.store.do(0, func(*writeTx) error { return nil }) })
	}
	ts.settled("operations that wait", queueOps, func() int64 { return int64(len(ts.store.ops)) })
	var busy atomic.Int64
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if a := ts.post("x").want(503, "busy"); a.Header.Get("Retry-After") != "" {
				busy.Add(1)
			}
		})
	}
	wg.Wait()
	if busy.Load() != 5 {
		t.Errorf("%d of 5 were told when to come back", busy.Load())
	}
	release()
	filling.Wait()
	ts.nothing()
	ts.post("x").want(201, "")
}
