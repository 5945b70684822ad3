package main

// Hostile clients: who moves nothing or little, holds connections, asks for what nobody waits for, or writes what two
// readers would read as two things. Time limits are tried in a bubble, where an hour takes no time; what memory and
// good clients make of an attack, against the real program, with -prove only: it takes minutes and wants the machine
// for itself.

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// ---- time limits ----

// pipe is a connection as a door makes it, and its other end. busy says whether more than half of the slots are taken.
func pipe(limit time.Duration, busy func() bool, closed func()) (*conn, net.Conn) {
	ours, theirs := net.Pipe()
	return &conn{Conn: ours, limit: limit, inBusy: busy, outBusy: busy, closed: closed}, theirs
}

// TestTimeLimits: a transfer in which no byte moves for 60 s is cut, while many slots are taken one in which 16 KiB
// don't move in 10 s, and any that takes longer than its limit. The same in both directions.
func TestTimeLimits(t *testing.T) {
	const now, never = 0, time.Hour
	for _, c := range []struct {
		name  string
		bytes int           // that the peer moves
		every time.Duration // so often
		busy  time.Duration // from then on
		limit time.Duration
		ends  time.Duration // within two seconds, the time between two looks
	}{
		{"nothing", 0, time.Second, never, 15 * time.Minute, 60 * time.Second},
		{"nothing, busy", 0, time.Second, now, 15 * time.Minute, 10 * time.Second},
		{"nothing, busy later", 0, time.Second, 30 * time.Second, 15 * time.Minute, 30 * time.Second},
		{"a byte a minute, almost", 1, 57 * time.Second, never, 15 * time.Minute, 15 * time.Minute},
		{"less than that", 1, 63 * time.Second, never, 15 * time.Minute, 60 * time.Second},
		{"a byte a second", 1, time.Second, never, 15 * time.Minute, 15 * time.Minute},
		{"a byte a second, busy", 1, time.Second, now, 15 * time.Minute, 10 * time.Second},
		{"just fast enough, busy", 16 << 10, 9 * time.Second, now, 15 * time.Minute, 15 * time.Minute},
		{"not fast enough, busy", 15 << 10, 9 * time.Second, now, 15 * time.Minute, 10 * time.Second},
		{"as fast as can be, for too long", 64 << 10, 100 * time.Millisecond, never, 5 * time.Second, 5 * time.Second},
		{"the same, busy", 64 << 10, 100 * time.Millisecond, now, 20 * time.Second, 20 * time.Second},
	} {
		for _, direction := range []string{"body", "answer"} {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				ours, theirs := pipe(c.limit, func() bool { return time.Since(began) >= c.busy }, func() {})
				defer theirs.Close()
				ours.expect(true, ours.limit)
				move, peerMoves := ours.Read, theirs.Write
				if direction == "answer" {
					ours.beginAnswer()
					move, peerMoves = ours.Write, func(b []byte) (int, error) { return io.ReadFull(theirs, b) }
				}
				var peer sync.WaitGroup
				var err, gone error
				peer.Go(func() {
					for b := make([]byte, c.bytes); c.bytes > 0 && gone == nil; _, gone = peerMoves(b) {
						time.Sleep(c.every)
					}
				})
				for b := make([]byte, 32<<10); err == nil; {
					_, err = move(b)
				}
				if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || took < c.ends ||
					took > c.ends+2*time.Second {
					t.Errorf("%s of %s: %v after %v, want %v", direction, c.name, err, took, c.ends)
				}
				ours.Close()
				peer.Wait()
			})
		}
	}
}

// pipes is a listener of such connections.
type pipes struct {
	c    chan net.Conn
	once sync.Once
}

func (l *pipes) Accept() (net.Conn, error) {
	c, ok := <-l.c
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l *pipes) Close() error   { l.once.Do(func() { close(l.c) }); return nil }
func (l *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestPeerTakesNothing: whatever is written to it and whoever writes it, net/http too, the connection is gone in a
// minute, in ten seconds when many slots are taken. What moves is not cut.
func TestPeerTakesNothing(t *testing.T) {
	const get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, c := range []struct {
		name, send string
		read       int // bytes that the peer takes before it stops
	}{
		{"an answer", get, 0},
		{"an answer, after its beginning", get, 100_000},
		{"the second answer on a connection", get + get, 1<<20 + 1000},
		{"100 Continue", "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 0},
		{"net/http's own 400", "nonsense\r\n\r\n", 0},
		{"a header that is too large", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 30<<10), 0},
		{"too many header lines", "GET / HTTP/1.1\r\n" + strings.Repeat("a:\n", 2000), 0},
		{"an unknown expectation", "POST / HTTP/1.1\r\nHost: x\r\nExpect: x\r\n\r\n", 0},
	} {
		for _, busy := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				began, gone := time.Now(), time.Duration(0)
				ours, theirs := pipe(15*time.Minute, func() bool { return busy }, func() { gone = time.Since(began) })
				hs := &http.Server{MaxHeaderBytes: headerLimit, ReadHeaderTimeout: headerTime,
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						ours.expect(r.ContentLength != 0, ours.limit)
						io.Copy(io.Discard, r.Body)
						ours.beginAnswer()
						w.Write(make([]byte, 1<<20))
					})}
				l := &pipes{c: make(chan net.Conn, 1)}
				l.c <- ours
				go hs.Serve(l)
				go io.WriteString(theirs, c.send)
				io.CopyN(io.Discard, theirs, int64(c.read))
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				want := stillTime
				if busy {
					want = pieceTime
				}
				if gone < want || gone > want+5*time.Second {
					t.Errorf("%s, busy %v: gone after %v, want %v", c.name, busy, gone, want)
				}
				theirs.Close()
				hs.Close()
			})
		}
	}
}

// TestKeptConnection: on a connection that is older than a transfer may last, the next one has its whole time.
func TestKeptConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := pipe(20*time.Second, func() bool { return false }, func() {})
		defer theirs.Close()
		go io.Copy(io.Discard, theirs)
		for range 3 {
			ours.expect(true, ours.limit)
			if _, err := io.WriteString(ours, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			ours.expect(false, ours.limit)
			ours.beginAnswer()
			time.Sleep(30 * time.Second)
		}
	})
}

// TestHeaderLines: a thousand lines are a header, more are none; what is pipelined is counted for each request.
func TestHeaderLines(t *testing.T) {
	ts := start(t)
	lines := func(n int) string { return "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("a:\n", n) }
	if a := ts.byHand("GET", lines(900)+"\r\n"); a.StatusCode != 200 {
		t.Errorf("900 lines: %d", a.StatusCode)
	}
	c := ts.dial()
	io.WriteString(c, lines(3000))
	if b, _ := io.ReadAll(c); len(b) > 0 && !strings.HasPrefix(string(b), "HTTP/1.1 400 ") { // or reset
		t.Errorf("3,000 lines: %q", b)
	}
	c = ts.dial()
	go io.WriteString(c, strings.Repeat("HEAD /health HTTP/1.1\nHost:x\n\n", 3000))
	for r, n := bufio.NewReader(c), 0; n < 3000; n++ {
		res, err := http.ReadResponse(r, &http.Request{Method: "HEAD"})
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("pipelined request %d: %v, %v", n, res, err)
		}
	}
}

// ---- connections ----

// dialFrom connects from an address of this machine; served tells whether a request is answered, not closed at the
// door.
func (ts *testServer) dialFrom(network, ip, address string) (c net.Conn, served bool) {
	ts.t.Helper()
	var d net.Dialer
	if network == "tcp" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(ip)}
	}
	c = must(d.Dial(network, address))
	ts.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	io.WriteString(c, "HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n")
	_, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "HEAD"})
	return c, err == nil
}

// TestConnections: so many in all, an eighth from one address but a proxy's; a place is free when its connection ends.
func TestConnections(t *testing.T) {
	ts := start(t, "MAX_CONNECTIONS=32", "TRUSTED_PROXIES=127.0.0.9", "METRICS_ALLOW=any")
	l := must(net.Listen("unix", t.TempDir()+"/s"))
	d := newDoors(ts.server)
	tcp := must(net.Listen("tcp", "127.0.0.1:0"))
	for _, l := range []net.Listener{l, tcp} {
		go ts.http.Serve(d.at(l))
	}
	open, refused := map[string][]net.Conn{}, 0
	for _, c := range []struct {
		from           string
		served, closed int // of so many more connections; then so many of its are closed
		tried          int
	}{
		{"127.0.0.2", 4, 0, 6}, {"127.0.0.3", 4, 1, 5}, {"127.0.0.3", 1, 0, 2}, {"127.0.0.9", 10, 0, 10},
		{"unix", 10, 0, 10}, {"127.0.0.4", 4, 0, 5}, {"127.0.0.5", 0, 0, 2}, {"127.0.0.9", 0, 0, 1}, {"unix", 0, 10, 1},
		{"127.0.0.5", 4, 0, 5}, {"127.0.0.2", 0, 4, 1}, {"127.0.0.2", 4, 0, 6},
	} {
		network, address := "tcp", tcp.Addr().String()
		if c.from == "unix" {
			network, address = "unix", l.Addr().String()
		}
		served := 0
		for range c.tried {
			conn, ok := ts.dialFrom(network, c.from, address)
			if ok {
				served++
				open[c.from] = append(open[c.from], conn)
			}
		}
		if served != c.served {
			t.Fatalf("%s: %d of %d served, want %d", c.from, served, c.tried, c.served)
		}
		refused += c.tried - c.served
		before := d.places.inUse()
		for range c.closed {
			open[c.from][0].Close()
			open[c.from] = open[c.from][1:]
		}
		ts.settled("connections", int64(before-c.closed),
			func() int64 { return int64(d.places.inUse()) })
	}
	if text := ts.get("/metrics").want(200, "").body; !strings.Contains(text,
		fmt.Sprintf("\nflaskpaste_refused_connections_total %d\n", refused)) {
		t.Errorf("%s", regexp.MustCompile("flaskpaste_refused.*").FindAllString(text, -1))
	}
}

// ---- early refusals ----

// TestWritesFirst: who does not read before all is written (Python, wget) sees why it was refused. Who asks first is
// told at once.
func TestWritesFirst(t *testing.T) {
	ts := start(t, "MAX_ANON=1000", "RATE_CREATE=1000/h")
	body := strings.Repeat("x", 900<<10)
	for head, status := range map[string]int{"POST / HTTP/1.1\r\n": 413, "GET / HTTP/1.1\r\n": 200,
		"POST / HTTP/1.1\r\nX-Expiry: never\r\n": 400, "PUT /0123456789abcdef HTTP/1.1\r\n": 404,
		"PATCH / HTTP/1.1\r\n": 405, "POST / HTTP/1.1\r\nContent-Encoding: gzip\r\n": 415,
		"POST / HTTP/1.1\r\nOrigin: https://evil.example\r\n": 403,
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n":   413} {
		text := fmt.Sprintf("%sHost: x\r\nContent-Length: %d\r\n\r\n%s", head, len(body), body)
		if strings.Contains(head, "chunked") {
			text = fmt.Sprintf("%sHost: x\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head, len(body), body)
		}
		conn := ts.dial()
		if n, err := io.WriteString(conn, text); err != nil {
			t.Errorf("%s: reset after %d of %d bytes: %v", head, n, len(text), err)
			continue
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || res.StatusCode != status || !res.Close {
			t.Errorf("%s: %v, %v", head, res, err)
		}
	}
	ts.nothing()
}

// ---- one request or two ----

// shapes are texts that must be one request or none, whoever reads them: another one, @IN, stands where the text's body
// is, or behind what is no message at all. (RFC 9112, sections 2.2, 5.1, 5.2, 6.1, 6.3, 7.1 and 11.2)
func shapes() (list []string) {
	const head = "POST / HTTP/1.1\r\nHost: localhost\r\n@ID\r\n"
	const empty, whole = "0\r\n\r\n@IN", "@HEX\r\n@IN\r\n0\r\n\r\n" // in chunks: no body, and something behind; @IN
	each := func(values string, shapes ...string) {
		for v := range strings.SplitSeq(values, "|") {
			for _, s := range shapes {
				list = append(list, strings.ReplaceAll(s, "@V", v))
			}
		}
	}
	// A length beside chunks: the chunks count, and nothing on the connection counts after them.
	each("@TE: chunked|transfer-encoding:chunked|@TE: Chunked|@TE: \tchunked\t|@TE: xchunked|@TE: chunked, identity|"+
		"@TE: identity, chunked|@TE: gzip, chunked|@TE: chunked, chunked|@TE: chunked;a=b|@TE: \"chunked\"|"+
		"@TE: chunked,|@TE: ,chunked|@TE: identity|@TE:|@TE: \x0bchunked|@TE: chunked\x00|@TE: chun\x00ked|"+
		"@TE:\r\n chunked|@TE: chunked\r\n@TE: identity|@TE: chunked\r\n@TE: chunked",
		head+"@V\r\n@CL: @ALL\r\n\r\n"+empty, head+"Content-Length: @ALL\r\n@V\r\n\r\n"+empty,
		head+"Content-Length: 4\r\n@V\r\n\r\n"+whole)
	// What is no Transfer-Encoding: who does not take it for chunks has a good length.
	each("@TE : chunked|@TE\t: chunked| @TE: chunked|Transfer_Encoding: chunked|@TE\x00: chunked|@TE\xa0: chunked|"+
		"X: a\r\n\t@TE: chunked|X: a\n@TE: chunked|X: a\r@TE: chunked|TE: chunked|@TE chunked",
		head+"@V\r\n@CL: @ALL\r\n\r\n"+empty, head+"@CL: @ALL\r\n@V\r\n\r\n"+empty)
	// Lengths that differ, or are none.
	each("@CL: 0\r\n@CL: @LEN|@CL: @LEN\r\n@CL: 0|@CL: 0, @LEN|@CL: @LEN, @LEN|@CL: @LEN,|@CL: +@LEN|@CL: +0|"+
		"@CL: -0|@CL: -1|@CL: 0x0|@CL: 0_0|@CL: 0.0|@CL: 0 0|@CL: 0\x00|@CL: \x0b0|@CL: 18446744073709551616|@CL:|"+
		"@CL: a|@CL : 0|@CL\t: @LEN|@CL\x00: 0|Content_Length: 0\r\n@CL: @LEN|X: a\r@CL: 0\r\n@CL: @LEN|"+
		"X: a\r\n @CL: 0\r\n@CL: @LEN|@CL:\r\n @LEN|Connection: close, @CL\r\n@CL: @LEN|"+
		"Expect: 100-continue\r\n@CL: @LEN|Expect: x\r\n@CL: @LEN|X-Expiry: 0\r\n@CL: @LEN|"+
		"Content-Encoding: gzip\r\n@CL: @LEN|"+
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n@CL: @LEN|"+
		"Connection: Upgrade\r\nUpgrade: websocket\r\n@CL: @LEN", head+"@V\r\n\r\n@IN")
	// Chunks that are none: what stands behind them is nothing.
	each("0x0\r\n\r\n|+0\r\n\r\n|-0\r\n\r\n|\r\n|0 0\r\n\r\n| 0\r\n\r\n|g\r\n\r\n|10000000000000000\r\n\r\n|0\n\r\n|"+
		"0\n\n|0\r\r\n\r\n|0;a\n\r\n|0;\x00\n\r\n|0\r\n|1\r\nxx0\r\n\r\n|1\r\nx0\r\n\r\n|1\r\nx\n0\r\n\r\n|"+
		"1\r\nx\r0\r\n\r\n|1\r\n\r\n0\r\n\r\n|1;a\rx\r\n0\r\n\r\n|0\r\nX : a\r\n\r\n|0\r\nX\r\n\r\n|0\r\n a\r\n\r\n",
		head+"Transfer-Encoding: chunked\r\n\r\n@V@IN")
	each(";a=b|;a| ; a|;a=\"\r\n0\r\n\r\n\"", head+"Transfer-Encoding: chunked\r\n\r\n@HEX@V\r\n@IN\r\n0\r\n\r\n")
	// Lines that end otherwise, versions, two hosts.
	list = append(list, "POST / HTTP/1.1\nHost: localhost\n@ID\nContent-Length: @LEN\n\n@IN",
		"POST / HTTP/1.1\rHost: localhost\r@ID\rContent-Length: @LEN\r\r@IN",
		"POST /  HTTP/1.1\r\nHost: localhost\r\n@ID\r\nContent-Length: @LEN\r\n\r\n@IN",
		"POST / HTTP/1.1\r\nHost: localhost\r\nHost: other\r\n@ID\r\nContent-Length: @LEN\r\n\r\n@IN",
		"POST / HTTP/0.9\r\nHost: localhost\r\n@ID\r\nContent-Length: @LEN\r\n\r\n@IN",
		"POST / HTTP/1.2\r\nHost: localhost\r\n@ID\r\nContent-Length: @LEN\r\n\r\n@IN",
		"GET /%0d%0a%0d%0aPOST%20/%20HTTP/1.1%0d%0a%0d%0a HTTP/1.1\r\nHost: localhost\r\n@ID\r\n\r\n")
	// HTTP/1.0 knows no chunks: the framing is faulty. Nobody expects bodies of these methods.
	each("@CL: 5\r\n@TE: chunked|@TE: chunked\r\n@CL: 5|@TE: chunked\r\n@CL: @ALL",
		"POST / HTTP/1.0\r\nHost: localhost\r\n@ID\r\nConnection: keep-alive\r\n@V\r\n\r\n"+empty)
	each("GET|HEAD|DELETE|OPTIONS|TRACE|CONNECT",
		"@V /health HTTP/1.1\r\nHost: localhost\r\n@ID\r\n@CL: @LEN\r\n\r\n@IN",
		"@V /health HTTP/1.1\r\nHost: localhost\r\n@ID\r\n@TE: chunked\r\n\r\n"+whole,
		"@V /health HTTP/1.1\r\nHost: localhost\r\n@ID\r\n@TE: chunked\r\n@CL: @ALL\r\n\r\n"+empty)
	return list
}

// TestSmuggling: nobody makes two requests of one.
func TestSmuggling(t *testing.T) {
	ts := start(t, "LOG_LEVEL=error", "MAX_UPLOADS=1024")
	final := regexp.MustCompile(`HTTP/1\.[01] [2-5]\d\d `)
	// The first two are innocent: what two requests look like, one behind the other, and one.
	innocent := []string{"POST / HTTP/1.1\r\nHost: localhost\r\n@ID\r\nContent-Length: 1\r\n\r\nx@IN",
		"POST / HTTP/1.1\r\nHost: localhost\r\n@ID\r\nContent-Length: @LEN\r\n\r\n@IN"}
	var wg sync.WaitGroup
	turn := make(chan struct{}, 32)
	list := append(innocent, shapes()...)
	for i, shape := range list {
		wg.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			inner := fmt.Sprintf("POST / HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: inner\r\n"+
				"Content-Length: 13\r\n\r\nsmuggled-%04d", i)
			text := strings.NewReplacer("@ID", "X-Request-ID: outer", "@IN", inner, "@LEN", strconv.Itoa(len(inner)),
				"@HEX", fmt.Sprintf("%x", len(inner)), "@ALL", strconv.Itoa(len("0\r\n\r\n")+len(inner)),
				"@TE", "Transfer-Encoding", "@CL", "Content-Length").Replace(shape)
			c := must(net.Dial("tcp", ts.address()))
			defer c.Close()
			c.SetDeadline(time.Now().Add(30 * time.Second))
			io.WriteString(c, text)
			c.(*net.TCPConn).CloseWrite()
			b, _ := io.ReadAll(c)
			answers, inside := len(final.FindAll(b, -1)), strings.Count(string(b), "X-Request-Id: inner")
			wrong := answers > 1 || inside > 0
			if i < 2 {
				wrong = answers != 2-i || inside != 1-i
			}
			if wrong || strings.Contains(string(b), " 101 ") {
				t.Errorf("%.200q: %d answers, %d to the smuggled request: %.400q", text, answers, inside, b)
			}
		})
	}
	wg.Wait()
	if n := ts.number("SELECT count(*) FROM chunks WHERE substr(data, 1, 9) = CAST('smuggled-' AS BLOB)"); n != 1 {
		t.Errorf("%d contents came by smuggling, and one behind another request", n-1)
	}
	proved(t, "hostile", fmt.Sprintf("%d shapes that two readers may read as two requests", len(list)-2), "none was")
}

// TestPipelining: requests sent at once are answered one by one, in order, each once.
func TestPipelining(t *testing.T) {
	ts := start(t)
	n := amount(200, 2000, 20_000)
	c := ts.dial()
	c.SetDeadline(time.Now().Add(5 * time.Minute))
	go func() {
		for i := range n {
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nX-Request-ID: n%d\r\nContent-Length: 10\r\n\r\n%010d", i, i)
		}
	}()
	for i, r := 0, bufio.NewReader(c); i < n; i++ {
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != 201 || res.Header.Get("X-Request-Id") != fmt.Sprint("n", i) {
			t.Fatalf("answer %d: %v, %v", i, res, err)
		}
		io.Copy(io.Discard, res.Body)
	}
	ts.stored(int64(n))
	proved(t, "hostile", fmt.Sprintf("%d creations pipelined on one connection", n),
		"each answered in order, each stored once")
}

// ---- sieges: with -prove ----

// siege is an attack on the real program within the memory that its unit gives it.
type siege struct {
	*process
	t    *testing.T
	dir  string
	conn []net.Conn
}

const memoryMost = 256 // MiB resident, at GOMEMLIMIT=200MiB

// lay starts the program; without -prove the test is skipped.
func lay(t *testing.T, env ...string) *siege {
	t.Helper()
	if *prove == "" {
		t.Skip("part of the proof: -prove short")
	}
	t.Setenv("GOMEMLIMIT", "200MiB")
	dir := t.TempDir()
	env = append(slices.Clone(env), "METRICS_ALLOW=127.0.0.0/8", "DATABASE="+dir+"/fp.db")
	s := &siege{process: launch(t, dir, env...), t: t, dir: dir}
	t.Cleanup(func() {
		for _, c := range s.conn {
			c.Close()
		}
	})
	return s
}

// at is a client of its own address.
func at(ip string) *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).DialContext}}
}

// call sends a request from ip and returns status and body.
func (s *siege) call(c *http.Client, method, path, body string, headers ...string) (int, string, error) {
	req := must(http.NewRequest(method, s.url+path, strings.NewReader(body)))
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Set(k, v)
	}
	res, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// paste stores n bytes and returns the path of the content.
func (s *siege) paste(n int) string {
	s.t.Helper()
	status, text, err := s.call(at("127.0.0.100"), "POST", "/", fresh(n))
	if err != nil || status != 201 {
		s.t.Fatal(status, text, err)
	}
	return "/" + regexp.MustCompile(`"id":"([0-9a-f]+)"`).FindStringSubmatch(text)[1] + "/raw"
}

// crowd opens n connections from so many addresses and writes what hello says, as far as it is taken.
func (s *siege) crowd(n, addresses int, hello func(i int) string) {
	host := strings.TrimPrefix(s.url, "http://")
	for i := range n {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+i%addresses))}}
		c, err := d.Dial("tcp", host)
		if err != nil {
			continue // the door is shut
		}
		c.(*net.TCPConn).SetReadBuffer(4096)
		s.conn = append(s.conn, c)
		go io.WriteString(c, hello(i))
	}
}

// gauge reads one figure of /metrics.
func (s *siege) gauge(name string) float64 {
	s.t.Helper()
	_, text, err := s.call(at("127.0.0.101"), "GET", "/metrics", "")
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(text)
	if err != nil || m == nil {
		s.t.Fatal(name, err)
	}
	return must(strconv.ParseFloat(m[1], 64))
}

// hold runs while a good client at another address asks for health and a paste; then nothing of the attack may be left
// but what waits in the kernel. healthy: health must say so.
func (s *siege) holds(what string, healthy bool, attack func()) {
	s.t.Helper()
	path, began := s.paste(1000), s.gauge("go_goroutines")
	ctx, stop := context.WithCancel(s.t.Context())
	var good sync.WaitGroup
	var asked int
	var slowest time.Duration
	good.Go(func() {
		for c := at("127.0.0.102"); ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
			begin := time.Now()
			if status, _, err := s.call(c, "GET", "/health", ""); err != nil || healthy && status != 200 {
				s.t.Errorf("health: %d, %v", status, err)
			}
			slowest = max(slowest, time.Since(begin))
			if status, b, err := s.call(c, "GET", path, ""); err != nil || status != 200 || len(b) != 1000 {
				s.t.Errorf("a read: %d, %v", status, err)
			}
			asked++
		}
	})
	attack()
	stop()
	good.Wait()
	for _, c := range s.conn {
		c.Close()
	}
	for try := 0; s.gauge("flaskpaste_uploads")+s.gauge("flaskpaste_downloads") > 0 ||
		s.gauge("go_goroutines") > began+4; try++ {
		if time.Sleep(50 * time.Millisecond); try == 600 {
			s.t.Error("something of the attack is left")
			break
		}
	}
	status := string(must(os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))))
	peak := must(strconv.Atoi(regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindStringSubmatch(status)[1])) >> 10
	if peak > memoryMost || asked < 10 {
		s.t.Errorf("%d MiB at the peak; the good client was served %d times", peak, asked)
	}
	proved(s.t, "hostile", what, "good client served %d times, health in %d ms at most; %d MiB resident at the peak",
		asked, slowest.Milliseconds(), peak)
}

// free are limits out of the way, so that slots and connections alone hold the attack.
var free = []string{"RATE_READ=0", "RATE_CREATE=0", "RATE_BYTES=0", "POW_DIFFICULTY=0", "DEDUP_MAX=0"}

// TestSiegeOfSilence: nobody takes an answer, or ends a header.
func TestSiegeOfSilence(t *testing.T) {
	var header strings.Builder
	for i := 0; header.Len() < 16<<10; i++ {
		fmt.Fprintf(&header, "%c%c%c:\n", 'A'+i%26, 'a'+i/26%26, 'a'+i/676%26)
	}
	const read = "GET PASTE HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, c := range []struct {
		what         string
		n, addresses int
		hello        string
	}{
		{"600 reads of 256 KiB from one address, and nobody takes an answer", 600, 1, read},
		{"600 reads of 256 KiB from 4 addresses, and nobody takes an answer", 600, 4, read},
		{"1,000 unfinished headers of 16 KiB", 1000, 7, "GET / HTTP/1.1\r\nHost: a\r\n" + header.String()},
		{"1,000 unfinished headers of 900 lines", 1000, 7, "GET / HTTP/1.1\r\nHost: a\r\n" + header.String()[:5*900]},
	} {
		s := lay(t, free...)
		hello := strings.Replace(c.hello, "PASTE", s.paste(256<<10), 1)
		s.holds(c.what, true, func() {
			s.crowd(c.n, c.addresses, func(int) string { return hello })
			time.Sleep(time.Duration(amount(0, 4, 80)) * time.Second)
		})
		s.kill()
	}
}

func TestSiegeOfUploads(t *testing.T) {
	s := lay(t, free...)
	s.holds("1,000 uploads of 256 KiB while somebody holds the database's lock", false, func() {
		db := must(sql.Open("sqlite", dsn(s.dir+"/fp.db", "rw")))
		defer db.Close()
		lock := must(db.Conn(t.Context()))
		defer lock.Close()
		if _, err := lock.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
			t.Fatal(err)
		}
		body := fresh(256 << 10)
		s.crowd(1000, 7, func(int) string {
			return fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		})
		time.Sleep(time.Duration(amount(0, 6, 30)) * time.Second)
		lock.ExecContext(t.Context(), "ROLLBACK")
	})
}

func TestSiegeOfJSON(t *testing.T) {
	for _, env := range [][]string{nil,
		{"TRUSTED_PROXIES=127.0.0.1,127.0.0.2,127.0.0.3,127.0.0.4,127.0.0.5,127.0.0.6,127.0.0.7"}} {
		s := lay(t, append(slices.Clone(free), env...)...)
		path := s.paste(3 << 20)
		client := func(i int) string { return fmt.Sprintf("X-Forwarded-For: 198.18.%d.%d", i>>8, i&255) }
		s.holds(fmt.Sprintf("63 JSON bodies of 1 MiB beside 250 slow downloads of 3 MiB, %d proxies", 7*len(env)), true,
			func() {
				s.crowd(250, 7, func(i int) string {
					return "GET " + path + " HTTP/1.1\r\nHost: a\r\n" + client(i) + "\r\n\r\n"
				})
				for _, fill := range []string{"a", `\u00e9`, `\ud83d\ude00`, `\n`} {
					text := `{"content": "` + strings.Repeat(fill, (1<<20-40)/len(fill)) + `"}`
					got := together(63, func(i int) *answer {
						status, body, err := s.call(at(fmt.Sprintf("127.0.0.%d", 1+i%8)), "POST", "/", text,
							"Content-Type: application/json", client(1000+i))
						if err != nil {
							t.Errorf("%.10q: %v", fill, err)
						}
						return &answer{Response: &http.Response{StatusCode: status}, body: body, t: t}
					})
					if got[201] < 50 {
						t.Errorf("%.10q: %v", fill, got)
					}
				}
			})
	}
}

// TestSiegeOfOneNetwork: eight /64s of one /48 that drip on all uploads they get keep nobody out, nor does one that
// reads its own locked paste as fast as it can.
func TestSiegeOfOneNetwork(t *testing.T) {
	s := lay(t, "defaults", "TRUSTED_PROXIES=127.0.0.1,127.0.0.2", "POW_FREE=1000", "RATE_CREATE=0",
		"ANTIFLOOD_THRESHOLD=1000")
	c := at("127.0.0.1")
	s.crowd(96, 2, func(i int) string {
		return fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 2001:db8:1:%d::1\r\n"+
			"Content-Length: 3000000\r\n\r\n", i%8)
	})
	stop := make(chan struct{})
	var attack sync.WaitGroup
	attack.Go(func() {
		for tick := time.Tick(8 * time.Second); ; {
			for _, c := range s.conn {
				c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
				io.WriteString(c, fresh(17_000))
			}
			select {
			case <-stop:
				return
			case <-tick:
			}
		}
	})
	var slowest time.Duration
	const good = "X-Forwarded-For: 203.0.113.1"
	for range amount(0, 50, 300) {
		time.Sleep(200 * time.Millisecond)
		begin := time.Now()
		if status, text, err := s.call(c, "POST", "/", fresh(40), good); err != nil || status != 201 {
			t.Errorf("a good client's creation: %d %s, %v", status, text, err)
		}
		slowest = max(slowest, time.Since(begin))
	}
	locked := func(headers ...string) string {
		_, text, _ := s.call(c, "POST", "/", fresh(40), append(headers, "X-Paste-Password: pw")...)
		return "/" + regexp.MustCompile(`"id":"([0-9a-f]+)"`).FindStringSubmatch(text)[1] + "/raw"
	}
	ours, theirs := locked(good), locked("X-Forwarded-For: 2001:db8:9::1")
	for i := range 16 {
		attack.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				s.call(c, "GET", theirs, "", "X-Paste-Password: pw", fmt.Sprintf("X-Forwarded-For: 2001:db8:9:%x::1",
					(i*997+n)&0xffff))
			}
		})
	}
	var tries []int64
	for range 10 {
		begin := time.Now()
		if status, text, err := s.call(c, "GET", ours, "", "X-Paste-Password: pw",
			"X-Forwarded-For: 203.0.113.2"); err != nil || status != 200 {
			t.Errorf("another's password: %d %s, %v", status, text, err)
		}
		tries = append(tries, time.Since(begin).Milliseconds())
	}
	close(stop)
	attack.Wait()
	proved(t, "hostile", "one /48 drips on all uploads it gets, then derives as fast as it can",
		"creations in %d ms at most, passwords in %d ms", slowest.Milliseconds(), tries)
}
