package main

// The proof against hostile clients: each attack runs against the real process while a good client is served, and ends with
// the process holding what it held before.

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const patience = 5 * time.Second // the longest that a good client waits for any answer, while others attack with the very cores that serve it

// stopwatch notes until ctx ends for how long this process was not run though a goroutine wanted to: what a client waits then is
// not the server's doing. over tells whether more than limit has passed since it was started, without that.
func stopwatch(ctx context.Context) (start func() (over func(limit time.Duration) bool)) {
	const nap = 10 * time.Millisecond
	var lost atomic.Int64
	go func() {
		for last := time.Now(); ctx.Err() == nil; {
			time.Sleep(nap)
			now := time.Now()
			if late := now.Sub(last) - nap; late > 10*nap {
				lost.Add(int64(late))
			}
			last = now
		}
	}()
	return func() func(time.Duration) bool {
		begun, before := time.Now(), lost.Load()
		return func(limit time.Duration) bool {
			took := time.Since(begun)
			if took > limit {
				time.Sleep(10 * nap) // who asks may have woken up first
			}
			return took > limit+time.Duration(lost.Load()-before)
		}
	}
}

// siege is an attack on a server, and what must hold meanwhile.
type siege struct {
	*process
	t      *testing.T
	grow   float64       // MiB by which the resident memory may rise at the peak
	open   int           // connections that the attack must have managed to hold open at once
	within time.Duration // in which the server gets rid of attackers who hold on to what they have; 0: not before they leave
}

// withstand runs attack, which returns once its connections are open or its flood is over; what it leaves behind ends with ctx.
// Beside it a good client reads a paste all the time and stores one twice a second, over standing and new connections.
func (s *siege) withstand(attack func(ctx context.Context)) string {
	t, pid, observer := s.t, s.cmd.Process.Pid, clientAt(0, 1)
	content := noise(1000)
	paste, err := s.post(observer, content)
	if err != nil {
		t.Fatal(err)
	}
	before := s.vitals(observer)
	before.files += 3 * (runtime.NumCPU() - 1) // the readers' connections to the database that are yet to be opened
	resident := residentMiB(t, pid, "VmRSS")
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil { // proc(5): the peak begins anew
		t.Fatal(err)
	}
	var asked []float64
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	watch := stopwatch(ctx)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		standing, fresh := clientAt(0, 2), clientAt(0, 2)
		fresh.Transport.(*http.Transport).DisableKeepAlives = true
		defer standing.CloseIdleConnections()
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			c, begun, over := standing, time.Now(), watch()
			if n%2 == 1 {
				c = fresh
			}
			var err error
			if n%25 == 24 {
				_, err = s.post(c, content)
			} else {
				var res *http.Response
				if res, err = c.Get(s.url + paste.Raw); err == nil {
					var text []byte
					if text, err = io.ReadAll(res.Body); err == nil && string(text) != content {
						err = fmt.Errorf("status %d, %.200q", res.StatusCode, text)
					}
					res.Body.Close()
				}
			}
			took := time.Since(begun)
			if asked = append(asked, float64(took)/1e6); err != nil || over(patience) {
				t.Errorf("a good client, after %v: %v", took, err)
			}
		}
	}()
	attack(ctx)
	begun, over := time.Now(), watch()
	for try := 0; s.open > 0; try++ { // they wait to be accepted
		v := s.vitals(observer)
		if v.files >= before.files+s.open*9/10 {
			break
		} else if try == 200 {
			t.Errorf("that is no attack: %d descriptors, %d before", v.files, before.files)
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	gone := ""
	if s.within > 0 {
		for s.vitals(observer).files > before.files+4 { // the good client's
			if over(s.within) {
				t.Errorf("after %v there are still %d descriptors, %d before", s.within, s.vitals(observer).files, before.files)
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		gone = fmt.Sprintf("rid of all after %.0f s; ", time.Since(begun).Seconds())
	}
	leave()
	close(stop)
	<-stopped
	s.released(observer, before, 5*time.Second)
	quiet := s.vitals(observer)
	time.Sleep(time.Second)
	if cpu := s.vitals(observer).cpu - quiet.cpu; cpu > 300*time.Millisecond {
		t.Errorf("a second after the attack the server still works: %v", cpu)
	}
	peak := residentMiB(t, pid, "VmHWM") - resident
	if peak > s.grow {
		t.Errorf("the resident memory rose by %.0f MiB, more than %.0f", peak, s.grow)
	}
	if len(asked) < 2 {
		t.Errorf("the good client asked %d times", len(asked))
	}
	slices.Sort(asked)
	return fmt.Sprintf("%sgood client served %d times, p99 %.0f ms, slowest %.0f ms; memory +%.0f MiB at the peak", gone, len(asked), quantile(asked, 0.99), asked[len(asked)-1], max(0, peak))
}

// post stores a content.
func (p *process) post(c *http.Client, content string) (made created, err error) {
	res, err := c.Post(p.url+"/", "text/plain", strings.NewReader(content))
	if err != nil {
		return made, err
	}
	defer res.Body.Close()
	if res.StatusCode != 201 {
		return made, fmt.Errorf("status %d", res.StatusCode)
	}
	return made, json.NewDecoder(res.Body).Decode(&made)
}

// address is host:port of the process.
func (p *process) address() string { _, a, _ := strings.Cut(p.url, "://"); return a }

// crowd opens n connections and writes on each what hello says. They come from seven addresses: one may have an eighth of the
// transfer slots. All are closed when ctx ends.
func crowd(ctx context.Context, t *testing.T, address string, n int, hello func(i int) string) (conns []net.Conn) {
	for i := range n {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(1+i%7))}}
		c, err := d.Dial("tcp", address)
		if err != nil {
			t.Errorf("connection %d: %v", i, err)
			break
		}
		c.(*net.TCPConn).SetReadBuffer(4096)
		context.AfterFunc(ctx, func() { c.Close() })
		io.WriteString(c, hello(i))
		conns = append(conns, c)
	}
	return conns
}

// drip writes a byte on each every second until ctx ends.
func drip(ctx context.Context, conns []net.Conn) {
	for tick := time.Tick(time.Second); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			for _, c := range conns {
				c.Write([]byte("a"))
			}
		}
	}
}

// TestProveHostileSlow: whoever holds connections without using them loses them, and nobody else notices.
func TestProveHostileSlow(t *testing.T) {
	long, n := proving(t), 500
	if long {
		n = 1000
	}
	mib := float64(n) * 48 / 1024 // 48 KiB for each connection; beside it 256 KiB for each of 56 upload slots, thrice that for each of 224 of downloads
	alike := func(text string) func(int) string { return func(int) string { return text } }
	env := []string{"METRICS_ALLOW=127.0.0.1"}
	var wg sync.WaitGroup
	defer wg.Wait()
	row := func(name, what string, n int, f func(t *testing.T) string) { // all at once, for they wait most of the time
		wg.Go(func() {
			t.Run(name, func(t *testing.T) {
				found := f(t)
				proved(t, "hostile", fmt.Sprintf(what, n), "%s", found)
			})
		})
	}
	row("headers", "%d connections that send a header byte a second", n, func(t *testing.T) string {
		s := &siege{launch(t, t.TempDir(), env...), t, mib, n, 13 * time.Second}
		return s.withstand(func(ctx context.Context) {
			go drip(ctx, crowd(ctx, t, s.address(), n, alike("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")))
		})
	})
	row("bodies", "%d uploads that send a byte a second, by length or in chunks", n, func(t *testing.T) string {
		s := &siege{launch(t, t.TempDir(), env...), t, mib + 16, n, 14 * time.Second}
		return s.withstand(func(ctx context.Context) {
			go drip(ctx, crowd(ctx, t, s.address(), n, func(i int) string {
				return "POST / HTTP/1.1\r\nHost: a\r\n" + [2]string{"Content-Length: 1000000\r\n\r\na", "Transfer-Encoding: chunked\r\n\r\nf4240\r\na"}[i%2]
			}))
		})
	})
	row("idle", "%d connections that say nothing, before and within the TLS handshake", n, func(t *testing.T) string {
		s := &siege{launchTLS(t, env...).process, t, mib, n, 13 * time.Second}
		return s.withstand(func(ctx context.Context) {
			crowd(ctx, t, s.address(), n, func(i int) string { return [2]string{"", "\x16\x03\x01\x02\x00\x01"}[i%2] })
		})
	})
	row("kept", "%d connections kept alive after a request", n, func(t *testing.T) string {
		s := &siege{launch(t, t.TempDir(), env...), t, mib, n, 0}
		if long {
			s.within = 125 * time.Second
		}
		return s.withstand(func(ctx context.Context) {
			for _, c := range crowd(ctx, t, s.address(), n, alike("GET /health HTTP/1.1\r\nHost: a\r\n\r\n")) {
				c.Read(make([]byte, 100))
			}
			time.Sleep(3 * time.Second)
		})
	})
	row("half-open", "%d half-open connections: downloads of 16 MiB that nobody reads, uploads cut short, a side shut or not", n, func(t *testing.T) string {
		s := &siege{launch(t, t.TempDir(), append(env, "MAX_ANON=16MiB")...), t, mib + 168, n / 3, 25 * time.Second}
		large := (&testServer{t: t, url: s.url}).create(pattern(16 << 20))
		return s.withstand(func(ctx context.Context) {
			for i, c := range crowd(ctx, t, s.address(), n, func(i int) string {
				return [2]string{"GET " + large.Raw + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("a", 10000)}[i%2]
			}) {
				if i%4 > 1 {
					c.(*net.TCPConn).CloseWrite()
				}
			}
		})
	})
	row("pipelining", "20,000 reads of 60 KB at once on one connection, on %d connections, and nobody takes an answer", n/10, func(t *testing.T) string {
		s := &siege{launch(t, t.TempDir(), env...), t, 32, n / 10, 25 * time.Second}
		large := (&testServer{t: t, url: s.url}).create(pattern(60_000))
		return s.withstand(func(ctx context.Context) {
			requests := strings.Repeat("GET "+large.Raw+" HTTP/1.1\r\nHost: a\r\n\r\n", 20_000)
			for _, c := range crowd(ctx, t, s.address(), n/10, alike("")) {
				go io.WriteString(c, requests)
			}
		})
	})
}

// TestProveHostilePipelined: requests sent at once are answered one by one, in order, each once.
func TestProveHostilePipelined(t *testing.T) {
	proving(t)
	p := launch(t, t.TempDir(), "METRICS_ALLOW=127.0.0.1")
	ts := &testServer{t: t, url: p.url}
	const n = 2000
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "POST / HTTP/1.1\r\nHost: a\r\nX-Request-ID: n%d\r\n", i)
		body := fmt.Sprintf("content %d", i)
		fmt.Fprintf(&text, "Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	c, err := net.Dial("tcp", p.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Minute)) // each waits for the disk in its turn
	begun := time.Now()
	go io.WriteString(c, text.String())
	r := bufio.NewReader(c)
	for i := range n {
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != 201 || res.Header.Get("X-Request-Id") != "n"+strconv.Itoa(i) {
			t.Fatalf("answer %d: %v, %v", i, res, err)
		}
		io.Copy(io.Discard, res.Body)
	}
	took := time.Since(begun)
	if stored := ts.scrape()["flaskpaste_stored_pastes"]; stored != n {
		t.Errorf("%v pastes are stored", stored)
	}
	proved(t, "hostile", fmt.Sprintf("%d creations pipelined on one connection", n), "each answered in order, each stored once, in %.1f s", took.Seconds())
}

// TestProveHostileHeaders: headers beyond all measure are refused before they are kept.
func TestProveHostileHeaders(t *testing.T) {
	proving(t)
	s := &siege{launch(t, t.TempDir(), "METRICS_ALLOW=127.0.0.1"), t, 24, 0, 0}
	var mu sync.Mutex
	taken := 0
	shapes := map[string]func(i int) string{
		"a line without end": func(i int) string { return strings.Repeat("a", 1000) },
		"lines without end":  func(i int) string { return fmt.Sprintf("a\r\nX-%d: a", i) },
		"one name for ever":  func(i int) string { return "a\r\nX-A: a" },
		"empty lines' like":  func(i int) string { return "a\r\nA:" },
	}
	found := s.withstand(func(ctx context.Context) {
		var wg sync.WaitGroup
		for name, more := range shapes {
			for i := range 75 {
				wg.Go(func() {
					c := crowd(ctx, t, s.address(), 1, func(int) string { return [3]string{"GET / HTTP/1.1\r\nHost: a\r\nX: ", "GET /", "GET /?q="}[i%3] })[0]
					defer c.Close()
					c.(*net.TCPConn).SetWriteBuffer(16 << 10)
					answered := make(chan []byte, 1)
					go func() { b, _ := io.ReadAll(c); answered <- b }()
					w, n := bufio.NewWriterSize(c, 4096), 0
					var err error
					for i := 0; err == nil && n < 64<<20; i++ {
						var m int
						m, err = w.WriteString(more(i))
						n += m
					}
					if b := <-answered; err == nil || len(b) > 0 && !bytes.HasPrefix(b, []byte("HTTP/1.1 4")) {
						t.Errorf("%s: %d bytes were taken, answer %.60q", name, n, b)
					}
					mu.Lock()
					taken = max(taken, n)
					mu.Unlock()
				})
			}
		}
		wg.Wait()
	})
	if taken > 8<<20 { // what the kernel buffers before the reset comes back
		t.Errorf("%d bytes of a header were taken", taken)
	}
	proved(t, "hostile", "300 headers without end: one line, many lines, a path, a query", "refused with 4xx or a reset, after %d KiB on the wire at most; %s", taken>>10, found)
}

// ---- smuggling ----

// shapes are texts that must be one request or none, whoever reads them: a second one, @IN, stands where the text's body is, or
// behind what is no message at all. Of two parsers that differ about one of them, the first would pass on as one what the
// second takes for two. (RFC 9112, sections 2.2, 5.1, 5.2, 6.1, 6.3, 7.1 and 11.2)
func shapes() (list []string) {
	const head = "POST / HTTP/1.1\r\nHost: localhost\r\n@ID\r\n"
	const empty, whole = "0\r\n\r\n@IN", "@HEX\r\n@IN\r\n0\r\n\r\n" // chunked: an empty body and something behind it; @IN as the body
	// A length beside chunks: the chunks count, and nothing on the connection counts after them.
	for _, te := range []string{"Transfer-Encoding: chunked", "transfer-encoding:chunked", "Transfer-Encoding: Chunked", "Transfer-Encoding: \tchunked\t", "Transfer-Encoding: xchunked", "Transfer-Encoding: chunked, identity",
		"Transfer-Encoding: identity, chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: chunked;a=b", "Transfer-Encoding: \"chunked\"", "Transfer-Encoding: chunked,", "Transfer-Encoding: ,chunked",
		"Transfer-Encoding: identity", "Transfer-Encoding:", "Transfer-Encoding: \x0bchunked", "Transfer-Encoding: chunked\x00", "Transfer-Encoding: chun\x00ked", "Transfer-Encoding:\r\n chunked",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"} {
		list = append(list, head+te+"\r\nContent-Length: @ALL\r\n\r\n"+empty, head+"Content-Length: @ALL\r\n"+te+"\r\n\r\n"+empty, head+"Content-Length: 4\r\n"+te+"\r\n\r\n"+whole)
	}
	for _, te := range []string{"Transfer-Encoding : chunked", "Transfer-Encoding\t: chunked", " Transfer-Encoding: chunked", "Transfer_Encoding: chunked", "Transfer-Encoding\x00: chunked", "Transfer-Encoding\xa0: chunked", "X: a\r\n\tTransfer-Encoding: chunked", "X: a\nTransfer-Encoding: chunked",
		"X: a\rTransfer-Encoding: chunked", "X: a\r\rTransfer-Encoding: chunked", "TE: chunked", "Transfer-Encoding chunked"} { // who does not take them for chunks has a good length
		list = append(list, head+te+"\r\nContent-Length: @ALL\r\n\r\n"+empty, head+"Content-Length: @ALL\r\n"+te+"\r\n\r\n"+empty)
	}
	// Lengths that differ, or are none.
	for _, cl := range []string{"Content-Length: 0\r\nContent-Length: @LEN", "Content-Length: @LEN\r\nContent-Length: 0", "Content-Length: @LEN\r\ncontent-length: @LEN", "Content-Length: 0, @LEN", "Content-Length: @LEN, @LEN", "Content-Length: @LEN,", "Content-Length: +@LEN",
		"Content-Length: +0", "Content-Length: -0", "Content-Length: -1", "Content-Length: 0x0", "Content-Length: 0_0", "Content-Length: 0.0", "Content-Length: 0 0", "Content-Length: 0\x00", "Content-Length: \x0b0", "Content-Length: 18446744073709551616", "Content-Length: @LEN\r\n Content-Length: 0",
		"Content-Length:", "Content-Length: a", "Content-Length : 0", "Content-Length\t: @LEN", "Content-Length\x00: 0", "Content_Length: 0\r\nContent-Length: @LEN", "X: a\rContent-Length: 0\r\nContent-Length: @LEN", "X: a\r\n Content-Length: 0\r\nContent-Length: @LEN", "Content-Length:\r\n @LEN",
		"Connection: close, Content-Length\r\nContent-Length: @LEN", "Connection: Content-Length\r\nContent-Length: @LEN", "Expect: 100-continue\r\nContent-Length: @LEN", "Expect: 100-continue\r\nX-Expiry: 0\r\nContent-Length: @LEN", "Expect: x\r\nContent-Length: @LEN", "X-Expiry: 0\r\nContent-Length: @LEN",
		"Content-Encoding: gzip\r\nContent-Length: @LEN", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: @LEN", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nContent-Length: @LEN"} {
		list = append(list, head+cl+"\r\n\r\n@IN")
	}
	// Chunks that are none: what stands behind them is nothing.
	for _, body := range []string{"0x0\r\n\r\n@IN", "+0\r\n\r\n@IN", "-0\r\n\r\n@IN", "\r\n@IN", "0 0\r\n\r\n@IN", " 0\r\n\r\n@IN", "g\r\n\r\n@IN", "10000000000000000\r\n\r\n@IN", "0\n\r\n@IN", "0\n\n@IN", "0\r\r\n\r\n@IN", "0;a\n\r\n@IN", "0;a=\"\n\"\r\n\n@IN", "0;\x00\n\r\n@IN",
		"0\r\n@IN", "1\r\nxx0\r\n\r\n@IN", "1\r\nx0\r\n\r\n@IN", "1\r\nx\n0\r\n\r\n@IN", "1\r\nx\r0\r\n\r\n@IN", "1\r\n\r\n0\r\n\r\n@IN", "2;\nxx\r\n@HEX\r\n0\r\n\r\n@IN\r\n0\r\n\r\n", "1;a\rx\r\n0\r\n\r\n@IN", "0\r\nX : a\r\n\r\n@IN", "0\r\nX\r\n\r\n@IN", "0\r\n a\r\n\r\n@IN"} {
		list = append(list, head+"Transfer-Encoding: chunked\r\n\r\n"+body)
	}
	for _, extension := range []string{";a=b", ";a", " ; a", ";" + strings.Repeat("a", 5000), ";a=\"\r\n0\r\n\r\n\""} {
		list = append(list, head+"Transfer-Encoding: chunked\r\n\r\n@HEX"+extension+"\r\n@IN\r\n0\r\n\r\n")
	}
	list = append(list, head+"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nX-Expiry: 5\r\n\r\n",
		"POST / HTTP/1.1\nHost: localhost\n@ID\nContent-Length: @LEN\n\n@IN", "POST / HTTP/1.1\rHost: localhost\r@ID\rContent-Length: @LEN\r\r@IN", "POST / HTTP/1.1\r\n Content-Length: 0\r\nHost: localhost\r\n@ID\r\nContent-Length: @LEN\r\n\r\n@IN",
		"POST /  HTTP/1.1\r\nHost: localhost\r\n@ID\r\nContent-Length: @LEN\r\n\r\n@IN", "POST / HTTP/1.1\r\nHost: localhost\r\nHost: other\r\n@ID\r\nContent-Length: @LEN\r\n\r\n@IN", "POST / HTTP/0.9\r\nHost: localhost\r\n@ID\r\nContent-Length: @LEN\r\n\r\n@IN", "POST / HTTP/1.2\r\nHost: localhost\r\n@ID\r\nContent-Length: @LEN\r\n\r\n@IN",
		"GET /%0d%0a%0d%0aPOST%20/%20HTTP/1.1%0d%0aX-Request-ID:%20inner-@NR%0d%0aContent-Length:%200%0d%0a%0d%0a HTTP/1.1\r\nHost: localhost\r\n@ID\r\n\r\n", "GET /x HTTP/1.1\r\nX-Request-ID:inner-@NR\rHost: localhost\r\n@ID\r\n\r\n")
	// HTTP/1.0 knows no chunks: the framing is faulty.
	for _, line := range []string{"Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5", "Transfer-Encoding: chunked\r\nContent-Length: @ALL"} {
		list = append(list, "POST / HTTP/1.0\r\nHost: localhost\r\n@ID\r\nConnection: keep-alive\r\n"+line+"\r\n\r\n"+empty)
	}
	for _, method := range []string{"GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "CONNECT"} { // bodies that nobody expects
		for _, framed := range []string{"Content-Length: @LEN\r\n\r\n@IN", "Transfer-Encoding: chunked\r\n\r\n" + whole, "Transfer-Encoding: chunked\r\nContent-Length: @ALL\r\n\r\n" + empty} {
			list = append(list, method+" /health HTTP/1.1\r\nHost: localhost\r\n@ID\r\n"+framed)
		}
	}
	return list
}

// streams are the same for who takes HTTP/2 and passes on HTTP/1.1: header fields, and a body. (RFC 9113, 8.2.1 and 8.2.2)
func streams() (list [][]string) {
	for _, f := range []string{"content-length|0", "content-length|5", "content-length|0|content-length|@LEN", "content-length|@LEN|content-length|0", "content-length|+@LEN", "transfer-encoding|chunked", "transfer-encoding|chunked|content-length|@ALL", "transfer-encoding|identity", "connection|content-length",
		"connection|keep-alive", "upgrade|h2c", "te|chunked", "x|a\r\ntransfer-encoding: chunked", "x|a\ntransfer-encoding: chunked", "x|a\rtransfer-encoding: chunked", "x|a\r\n\r\n@IN", "x|a\x00", "x\r\ntransfer-encoding|chunked", "x: a\r\ntransfer-encoding|chunked", "transfer-encoding: chunked\r\nx|a",
		"transfer-encoding |chunked", " transfer-encoding|chunked", "Transfer-Encoding|chunked", "Content-Length|0", "|a", ":x|a", ":path|/x", "content-length|", "host|other"} {
		list = append(list, strings.Split(f, "|"))
	}
	for _, pseudo := range []string{":path|/ HTTP/1.1\r\nHost: localhost\r\n\r\n@IN", ":path|/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: ", ":path|/x y", ":path|x", ":path|", ":path|*", ":method|POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: a\r\n\r\n", ":method|PO ST", ":method|", ":scheme|http://localhost/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: a",
		":authority|localhost\r\nTransfer-Encoding: chunked", ":authority|localhost/x", ":authority|"} {
		list = append(list, strings.Split(pseudo, "|"))
	}
	return list
}

// frame is one of RFC 9113, section 4.1.
func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	return append(binary.BigEndian.AppendUint32([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}, stream), payload...)
}

const (
	frameData, frameHeaders, frameReset, frameSettings, framePing, frameContinuation = 0, 1, 3, 4, 6, 9
	endStream, endHeaders                                                            = 1, 4
)

// fieldBlock is a header block of literals, neither indexed nor Huffman-coded (RFC 7541, 5.1 and 6.2.2).
func fieldBlock(pairs ...string) (b []byte) {
	for i, s := range pairs {
		if i%2 == 0 {
			b = append(b, 0)
		}
		n := len(s)
		if n >= 127 {
			b, n = append(b, 127), n-127
			for ; n >= 128; n >>= 7 {
				b = append(b, byte(n)|128)
			}
		}
		b = append(append(b, byte(n)), s...)
	}
	return b
}

// dialTLS connects from 127.0.2.1, for HTTP/2 with its preface.
func dialTLS(address, protocol string) (net.Conn, error) {
	c, err := tls.DialWithDialer(&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, 1)}}, "tcp", address, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{protocol}})
	if err == nil && c.ConnectionState().NegotiatedProtocol != protocol {
		err = errors.New(protocol + " is not spoken")
	}
	if err == nil && protocol == "h2" {
		_, err = c.Write(append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(frameSettings, 0, 0, nil)...))
	}
	return c, err
}

// smuggle sends all shapes and streams to address, each on a connection of its own and all at once, while a good client asks by
// the same way. How many requests each was, the access log of the server behind says, and what they stored its database. A proxy
// may itself take a shape for two requests and answer both (both forgive bare line feeds); what must not be is a request at the
// server that the proxy did not know of, one for which its client has no answer.
func smuggle(t *testing.T, server *process, file, address string, proxy bool) string {
	var wg sync.WaitGroup
	var answers sync.Map // number of a shape -> *bytes.Buffer
	numbered := func(i int, text string) string {
		number := fmt.Sprintf("%04d", i)
		inner := "POST / HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: inner-" + number + "\r\nContent-Length: 13\r\n\r\nsmuggled-" + number
		return strings.NewReplacer("@ID", "X-Request-ID: outer-"+number, "@NR", number, "@IN", inner, "@LEN", strconv.Itoa(len(inner)), "@HEX", fmt.Sprintf("%x", len(inner)), "@ALL", strconv.Itoa(len("0\r\n\r\n")+len(inner))).Replace(text)
	}
	send := func(i int, protocol string, text []byte) {
		wg.Go(func() {
			c, err := dialTLS(address, protocol)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.Write(text)
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			b, _ := io.ReadAll(c)
			answers.Store(i, string(b))
		})
	}
	client, stop, asked, watch := clientAt(0, 2), make(chan struct{}), 0, stopwatch(t.Context())
	good, err := server.post(client, "good")
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		for ; ; asked++ {
			select {
			case <-stop:
				return
			default:
			}
			begun, over := time.Now(), watch()
			res, err := client.Get("https://" + address + good.Raw)
			if err != nil {
				t.Errorf("a good client: %v", err)
				return
			}
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			if took := time.Since(begun); err != nil || string(b) != "good" || over(patience) {
				t.Errorf("a good client got %d %.200q, %v, after %v", res.StatusCode, b, err, took)
				return
			}
		}
	})
	// The first is innocent, two requests one after the other: this is how it looks if there are two.
	texts := append([]string{"POST / HTTP/1.1\r\nHost: localhost\r\n@ID\r\nContent-Length: 0\r\n\r\n@IN"}, shapes()...)
	for i, text := range texts {
		send(i, "http/1.1", []byte(numbered(i, text)))
		if i%32 == 31 {
			time.Sleep(50 * time.Millisecond)
		}
	}
	names := slices.Clone(texts)
	for _, fields := range streams() {
		i := len(names)
		all := []string{":method", "POST", ":scheme", "https", ":authority", "localhost", ":path", "/"}
		for j, f := range fields {
			fields[j] = numbered(i, f)
		}
		if k := slices.Index(all, fields[0]); k >= 0 && len(fields) == 2 && fields[1] != "/x" {
			all[k+1] = fields[1]
		} else {
			all = append(all, fields...)
		}
		all = append(all, "x-request-id", fmt.Sprintf("outer-%04d", i))
		names = append(names, strings.Join(fields, "|"))
		send(i, "h2", append(frame(frameHeaders, endHeaders, 1, fieldBlock(all...)), frame(frameData, endStream, 1, []byte(numbered(i, "0\r\n\r\n@IN")))...))
	}
	time.Sleep(5500 * time.Millisecond)
	close(stop)
	wg.Wait()
	// Whatever a proxy kept back comes before this.
	for _, target := range []string{server.url, "https://" + address} {
		for range 40 {
			if res, err := client.Get(target + "/health"); err == nil {
				res.Body.Close()
			}
		}
	}
	for before, try := "", 0; try < 60; try++ { // a line comes after the answer: until no more do
		time.Sleep(500 * time.Millisecond)
		if now := server.logs.String(); now == before {
			break
		} else {
			before = now
		}
	}
	seen := map[string]int{}
	for _, m := range regexp.MustCompile(`msg=request request_id=((?:inner|outer)-\d{4})`).FindAllStringSubmatch(server.logs.String(), -1) {
		seen[m[1]]++
	}
	if seen["outer-0000"] != 1 || seen["inner-0000"] != 1 {
		t.Errorf("two plain requests were seen as %d and %d", seen["outer-0000"], seen["inner-0000"])
	}
	final := regexp.MustCompile(`HTTP/1\.[01] [2-5]\d\d `)
	passed, known := 0, 0
	for i, name := range names[1:] {
		i++
		text, _ := answers.Load(i)
		outer, inner, answered := seen[fmt.Sprintf("outer-%04d", i)], seen[fmt.Sprintf("inner-%04d", i)], len(final.FindAllString(fmt.Sprint(text), -1))
		if passed += outer; proxy && outer == 1 && inner == 1 && answered == 2 {
			known++
		} else if outer > 1 || inner > 0 || !proxy && answered > 1 || strings.Contains(fmt.Sprint(text), " 101 ") {
			t.Errorf("%.300q: seen %d times, the smuggled one %d times; answers %.600q", name, outer, inner, text)
		}
	}
	db, err := sql.Open("sqlite", dsn(file, "ro"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var stored int
	if err := db.QueryRow("SELECT count(*) FROM chunks WHERE substr(data, 1, 9) = CAST('smuggled-' AS BLOB)").Scan(&stored); err != nil || stored != 1+known {
		t.Errorf("%d contents came by smuggling, %v; %d by two requests", stored, err, 1+known)
	}
	if asked < 20 {
		t.Errorf("the good client asked %d times", asked)
	}
	two := ""
	if proxy {
		two = fmt.Sprintf(" behind the proxy's back (%d were two to the proxy, which answered both)", known)
	}
	return fmt.Sprintf("%d reached the server as one request, %d were refused, none became two%s; good client served %d times", passed-known, len(names)-1-passed, two, asked)
}

// TestProveHostileSmuggling: nobody makes two requests of one, at the server itself or through the proxies of deploy/.
func TestProveHostileSmuggling(t *testing.T) {
	proving(t)
	what := fmt.Sprintf("%d smuggling shapes in HTTP/1.1, %d in HTTP/2, ", len(shapes()), len(streams()))
	var wg sync.WaitGroup
	defer wg.Wait()
	for way, arrive := range map[string]func(*testing.T) (server *process, file, address string){
		"directly": func(t *testing.T) (*process, string, string) {
			s := launchTLS(t)
			return s.process, s.database, s.address()
		},
		"through nginx": func(t *testing.T) (*process, string, string) {
			p := behindNginx(t)
			return p.server, filepath.Join(p.dir, "flaskpaste.db"), "127.0.0.1:" + p.port
		},
		"through HAProxy": func(t *testing.T) (*process, string, string) {
			p := behindHAProxy(t)
			return p.server, filepath.Join(p.dir, "flaskpaste.db"), "127.0.0.1:" + p.port
		},
	} {
		wg.Go(func() {
			t.Run(way, func(t *testing.T) {
				server, file, address := arrive(t)
				found := smuggle(t, server, file, address, way != "directly")
				proved(t, "hostile", what+way, "%s", found)
			})
		})
	}
}

// ---- HTTP/2 ----

const flooders = 16 // connections

// floodTLS lets connections of TLS and HTTP/2 write what batch makes, as fast as it is taken, for d; batch gets the number of
// the batch on its connection, and one that the server ends is followed by the next. It returns how many batches were taken, by
// how many connections, and the most of one.
func floodTLS(t *testing.T, address string, d time.Duration, batch func(n int) []byte) (batches, conns, most int64) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	end := time.Now().Add(d)
	for range flooders {
		wg.Go(func() {
			for time.Now().Before(end) {
				c, err := dialTLS(address, "h2")
				if err != nil {
					t.Error(err)
					return
				}
				c.SetDeadline(end)
				go io.Copy(io.Discard, c)
				n := 0
				for ; err == nil; n++ {
					_, err = c.Write(batch(n))
				}
				c.Close()
				mu.Lock()
				batches, conns, most = batches+int64(n), conns+1, max(most, int64(n))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return batches, conns, most
}

// TestProveHostileHTTP2: streams that are reset at once, header blocks without end, and frames that say nothing cost the server
// no more than what is asked for in earnest.
func TestProveHostileHTTP2(t *testing.T) {
	d := 2 * time.Second
	if proving(t) {
		d = 30 * time.Second
	}
	s := &siege{launchTLS(t, "METRICS_ALLOW=127.0.0.1").process, t, flooders * 3, 0, 0}
	observer := clientAt(0, 1)
	paste, err := s.post(observer, noise(1000))
	if err != nil {
		t.Fatal(err)
	}
	begun, n := s.vitals(observer).cpu, 1000
	for range n {
		res, err := observer.Get(s.url + paste.Raw)
		if err != nil || res.ProtoMajor != 2 {
			t.Fatal(res, err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	earnest := (s.vitals(observer).cpu - begun) / time.Duration(n)
	get := fieldBlock(":method", "GET", ":scheme", "https", ":authority", "a", ":path", paste.Raw)
	long := frame(frameContinuation, 0, 1, bytes.Repeat(fieldBlock("x-a", strings.Repeat("a", 100)), 140))
	open := frame(frameHeaders, endStream, 1, get)
	for _, c := range []struct {
		name  string
		each  int // streams or frames of a batch
		batch func(n int) []byte
		most  int64 // batches on a connection; 0: any
	}{
		{"rapid reset: streams opened and reset", 50, func(n int) (b []byte) {
			for i := range uint32(50) {
				stream := uint32(n)*100 + 2*i + 1
				b = append(append(b, frame(frameHeaders, endStream|endHeaders, stream, get)...), frame(frameReset, 0, stream, []byte{0, 0, 0, 8})...)
			}
			return b
		}, 0},
		{"CONTINUATION frames of 15 KiB without end", 1, func(n int) []byte {
			if n == 0 {
				return open
			}
			return long
		}, 600}, // 9 MiB, most of it in the kernel's buffers
		{"frames of 1 MiB", 1, func(int) []byte { return frame(0x42, 0, 0, make([]byte, 1<<20)) }, 8},
		{"empty CONTINUATION frames without end", 100, func(n int) []byte {
			if n == 0 {
				return open
			}
			return bytes.Repeat(frame(frameContinuation, 0, 1, nil), 100)
		}, 0},
		{"PING and SETTINGS frames", 100, func(int) []byte {
			return bytes.Repeat(append(frame(framePing, 0, 0, make([]byte, 8)), frame(frameSettings, 0, 0, nil)...), 50)
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.t, s.process.t = t, t
			var batches, conns, most int64
			begun := s.vitals(observer).cpu
			found := s.withstand(func(context.Context) { batches, conns, most = floodTLS(t, s.address(), d, c.batch) })
			each := (s.vitals(observer).cpu - begun) / time.Duration(max(1, batches*int64(c.each)))
			if c.most == 0 && each > 3*earnest || c.most > 0 && most > c.most || batches < 8 {
				t.Errorf("%v CPU each (a GET: %v), %d on %d connections, %d writes on one", each, earnest, batches*int64(c.each), conns, most)
			}
			proved(t, "hostile", fmt.Sprintf("HTTP/2 %s, on %d connections for %v", c.name, flooders, d), "%d on %d connections; %v CPU each, %v an honest GET; %s", batches*int64(c.each), conns, each.Round(100*time.Nanosecond), earnest.Round(time.Microsecond), found)
		})
	}
}

// ---- contents ----

// TestProveHostileEncoding: nothing is decompressed anywhere, so no bomb has a fuse.
func TestProveHostileEncoding(t *testing.T) {
	proving(t)
	s := &siege{launch(t, t.TempDir(), "METRICS_ALLOW=127.0.0.1"), t, 24, 0, 0}
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	w.Write(make([]byte, 64<<20))
	w.Close()
	client, n := clientAt(0, 3), 0
	encodings := []string{"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "identity", "gzip, gzip", "aes128gcm", "GZIP", ""}
	found := s.withstand(func(context.Context) {
		defer client.CloseIdleConnections()
		for _, r := range routes() {
			method, path, _ := strings.Cut(r.pattern, " ")
			path = strings.NewReplacer("{$}", "", "{id}", "0123456789abcdef", "{name}", "name", "{view}", "raw", "{serial}", "00").Replace(path)
			for _, encoding := range encodings {
				for _, kind := range []string{"text/plain", "application/json", "multipart/form-data; boundary=x"} {
					req := must(http.NewRequest(method, s.url+path, bytes.NewReader(bomb.Bytes())))
					req.Header["Content-Encoding"], req.Header["Content-Type"] = []string{encoding}, []string{kind}
					res, err := client.Do(req)
					if err != nil { // the answer came and the connection was closed while the body was still being sent
						continue
					}
					text, _ := io.ReadAll(res.Body)
					res.Body.Close()
					if n++; res.StatusCode != 415 || !bytes.Contains(text, []byte("unsupported_encoding")) {
						t.Errorf("%s %s, %q: %d %s", method, path, encoding, res.StatusCode, text)
					}
				}
			}
		}
	})
	if all := len(routes()) * len(encodings) * 3; n < all*9/10 {
		t.Errorf("%d of %d were answered", n, all)
	}
	proved(t, "hostile", fmt.Sprintf("a gzip bomb (%d KiB for 64 MiB) in %d encodings to every route", bomb.Len()>>10, len(encodings)), "415 %d times; %s", n, found)
}

// TestProveHostileNames: members, parts, parameters and headers by the thousand take time in proportion to their bytes. (Go's
// maps are seeded: nobody can choose names that meet.)
func TestProveHostileNames(t *testing.T) {
	proving(t)
	s := &siege{launch(t, t.TempDir(), append(slices.Clone(proxied), "METRICS_ALLOW=127.0.0.1")...), t, 48, 0, 0}
	const json, multi = "application/json", "multipart/form-data; boundary=x"
	list := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, rand.Uint32(), i)
		}
		return b.String()
	}
	shapes := []struct {
		name  string
		most  int // of them that fit
		shape func(n int) (kind, path, body string, headers int)
	}{
		{"JSON members", 36_000, func(n int) (string, string, string, int) {
			return json, "/", `{` + list(n, `"%08x%08x": "x", `) + `"content": "x"}`, 0
		}},
		{"JSON members of one name", 80_000, func(n int) (string, string, string, int) {
			return json, "/", `{` + strings.Repeat(`"content":"",`, n) + `"a": 1}`, 0
		}},
		{"JSON arrays in arrays", 500_000, func(n int) (string, string, string, int) {
			return json, "/", `{"content": ` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`, 0
		}},
		{"digits of a JSON number", 1_000_000, func(n int) (string, string, string, int) {
			return json, "/", `{"content": "x", "expiry": ` + strings.Repeat("9", n) + `}`, 0
		}},
		{"JSON escapes", 160_000, func(n int) (string, string, string, int) {
			return json, "/", `{"content": "` + strings.Repeat(`\u00e9`, n) + `"}`, 0
		}},
		{"form parts", 30_000, func(n int) (string, string, string, int) {
			return multi, "/", list(n, "--x\r\nContent-Disposition: form-data; name=\"%08x%08x\"\r\n\r\n\r\n") + "--x--\r\n", 0
		}},
		{"parameters of a part", 50_000, func(n int) (string, string, string, int) {
			return multi, "/", "--x\r\nContent-Disposition: form-data; name=content" + list(n, "; a%08x%08x=b") + "\r\n\r\nx\r\n--x--\r\n", 0
		}},
		{"headers of a part", 50_000, func(n int) (string, string, string, int) {
			return multi, "/", "--x\r\n" + list(n, "A%08x%08x: b\r\n") + "\r\nx\r\n--x--\r\n", 0
		}},
		{"continued parameters of a type", 700, func(n int) (string, string, string, int) {
			var b strings.Builder
			for i := range n {
				fmt.Fprintf(&b, "; a*%d=b", i)
			}
			return "text/plain" + b.String(), "/", "x", 0
		}},
		{"query keys", 700, func(n int) (string, string, string, int) {
			return "text/plain", "/pastes?" + list(n, "%08x%08x=&"), "", 0
		}},
		{"headers", 550, func(n int) (string, string, string, int) { return "text/plain", "/", "x", n }},
	}
	client := clientAt(0, 3)
	worst := ""
	var slowest time.Duration
	found := s.withstand(func(context.Context) {
		defer client.CloseIdleConnections()
		for _, c := range shapes {
			var took [2][]float64 // by half as many, by all
			slow := func() bool { half, whole := median(took[0]), median(took[1]); return whole > 3*half+10 || whole > 1000 }
			for i := 0; i < 10 || i < 30 && slow(); i++ { // what is slow in itself stays so
				n := c.most / 2 << (i % 2)
				kind, path, body, headers := c.shape(n)
				req := must(http.NewRequest("POST", s.url+path, strings.NewReader(body)))
				if strings.HasPrefix(path, "/pastes") {
					req.Method = "GET"
				}
				req.Header.Set("Content-Type", kind)
				for _, h := range withCert(certAlice) {
					k, v, _ := strings.Cut(h, ": ")
					req.Header.Set(k, v)
				}
				for i := range headers {
					req.Header.Set(fmt.Sprintf("X%08x%08x", rand.Uint32(), i), "")
				}
				begun := time.Now()
				res, err := client.Do(req)
				if err != nil {
					t.Errorf("%d %s: %v", n, c.name, err)
					continue
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				d := time.Since(begun)
				if took[i%2] = append(took[i%2], float64(d)/1e6); d > slowest {
					slowest, worst = d, fmt.Sprintf("%d %s", n, c.name)
				}
				if res.StatusCode >= 500 {
					t.Errorf("%d %s: status %d after %v", n, c.name, res.StatusCode, d)
				}
			}
			if slow() {
				t.Errorf("%d %s take %.0f ms, half as many %.0f", c.most, c.name, took[1], took[0])
			}
		}
	})
	proved(t, "hostile", fmt.Sprintf("names by the thousand in JSON, forms, parts, types, queries, headers: %d shapes to the limit of their size", len(shapes)), "twice as many take at most 3 times as long (within 10 ms); the longest, %s, %.0f ms; %s", worst, float64(slowest)/1e6, found)
}
