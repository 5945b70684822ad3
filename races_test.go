package main

// What changes while a request is under way: between its checks and its one write, or between its row and its content.

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// slowly sends the head of a request and returns once the server reads its body, all checks before it done; finish sends the
// body and returns the answer.
func (ts *testServer) slowly(method, path, content string, headers ...string) (finish func() *answer) {
	ts.t.Helper()
	c := ts.dial()
	var lines string
	for _, h := range headers {
		lines += h + "\r\n"
	}
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n%s\r\n", method, path, len(content), lines)
	in := bufio.NewReader(c)
	if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		ts.t.Fatalf("%s %s: %q, %v", method, path, line, err)
	}
	in.ReadString('\n')
	return func() *answer {
		ts.t.Helper()
		io.WriteString(c, content)
		req, _ := http.NewRequest(method, ts.url+path, nil)
		res, err := http.ReadResponse(in, req)
		if err != nil {
			ts.t.Fatalf("%s %s: %v", method, path, err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			ts.t.Fatalf("%s %s: %v", method, path, err)
		}
		return &answer{res, string(b), ts.t}
	}
}

// TestUploadOutlivesItself: a link that is dead already is no success.
func TestUploadOutlivesItself(t *testing.T) {
	ts := start(t, "POW_DIFFICULTY=4", "POW_FREE=1")
	for _, c := range []struct {
		after  time.Duration
		status int
	}{{60 * time.Second, 400}, {59 * time.Second, 201}} { // the refused one has given the allowance back
		ts.clock.hold()
		finish := ts.slowly("POST", "/", "slow", "X-Expiry: 60")
		ts.clock.advance(c.after)
		if a := finish(); a.StatusCode != c.status || c.status == 400 && a.field("code") != "bad_expiry" {
			t.Errorf("after %v: %d %s", c.after, a.StatusCode, a.body)
		}
	}
}

// TestDeadlineDuringUpload: a content that takes its time undoes no deadline that was set meanwhile, and no renewal.
func TestDeadlineDuringUpload(t *testing.T) {
	ts := start(t, "EXPIRY_ANON=10h")
	ts.clock.hold()
	expires := func(p created) int64 {
		t.Helper()
		ts.store.flushTouches()
		return ts.int(ts.get("/"+p.ID).want(200, ""), "expires_at") - p.CreatedAt
	}
	p := ts.create("x", "X-Expiry: 7d")
	token := "X-Delete-Token: " + p.DeleteToken
	finish := ts.slowly("PUT", "/"+p.ID, "new", token)
	ts.do("PUT", "/"+p.ID, nil, token, "X-Expiry: 1h").want(200, "")
	finish().want(200, "")
	if got := expires(p); got != 3600 {
		t.Errorf("a deadline of 3600 s became one of %d", got)
	}
	p = ts.create("x")
	token = "X-Delete-Token: " + p.DeleteToken
	for i := range int64(3) { // a renewal that is in the file, one that waits, and none
		finish = ts.slowly("PUT", "/"+p.ID, "new"+strconv.Itoa(int(i)), token)
		ts.clock.advance(time.Minute)
		if i < 2 {
			ts.get("/"+p.ID+"/raw").want(200, "")
		}
		if i == 0 {
			ts.store.flushTouches()
		}
		a := finish().want(200, "")
		want := int64(36000) + 60*min(i+1, 2)
		if got := expires(p); got != want {
			t.Errorf("case %d: expires after %d s, want %d; the answer said %s", i, got, want, a.field("expires_at"))
		}
	}
}

// TestShorterLife: a read that began while a paste had a longer life renews it no further than the present one allows.
func TestShorterLife(t *testing.T) {
	for _, cache := range []string{"CACHE=0", "CACHE=1MiB"} {
		t.Run(cache, func(t *testing.T) {
			ts := start(t, append([]string{"EXPIRY_ANON=1h", "EXPIRY_UNTRUSTED=100h", cache}, proxied...)...)
			ts.clock.hold()
			p := ts.create("x", withCert(certAlice)...)
			slow, _, err := ts.store.get(p.ID, p.CreatedAt)
			if err != nil {
				t.Fatal(err)
			}
			a := ts.do("PUT", "/"+p.ID, nil, "X-Delete-Token: "+p.DeleteToken, "X-Expiry: ").want(200, "")
			if got := ts.int(a, "expires_at") - p.CreatedAt; got != 3600 {
				t.Fatalf("lives %d s", got)
			}
			ts.get("/"+p.ID+"/raw").want(200, "") // cached
			ts.store.touch(slow, p.CreatedAt+10)
			for range 2 {
				if got := ts.int(ts.get("/"+p.ID).want(200, ""), "expires_at") - p.CreatedAt; got != 3600 {
					t.Errorf("a read of before gives it %d s", got)
				}
				ts.store.flushTouches()
			}
			if got := ts.number("SELECT expires_at FROM pastes") - p.CreatedAt; got != 3600 {
				t.Errorf("%d s in the file", got)
			}
		})
	}
}

// TestProofHeldOpen: one proof is one creation, however long its uploads take.
func TestProofHeldOpen(t *testing.T) {
	ts := start(t, "POW_DIFFICULTY=4", "POW_FREE=0", "POW_TTL=300s")
	proof := ts.post("x").want(400, "pow_required").puzzle().solve(t)
	first, second := ts.slowly("POST", "/", "one", proof...), ts.slowly("POST", "/", "two", proof...)
	ts.clock.advance(200 * time.Second)
	first().want(201, "")
	ts.clock.advance(101 * time.Second) // the challenge's end
	ts.sweep()
	second().want(400, "pow_failed")
	ts.stored(1)
	ts.clock.advance(time.Hour)
	ts.sweep()
	if n := ts.number("SELECT count(*) FROM spent"); n != 0 {
		t.Errorf("%d spent proofs are kept for ever", n)
	}
}

// TestFloodOfSlowUploads: a creation counts when it is made, not when it was begun; and it hides none of the others.
func TestFloodOfSlowUploads(t *testing.T) {
	ts := start(t, append([]string{"POW_DIFFICULTY=4", "POW_FREE=100", "ANTIFLOOD_THRESHOLD=6", "ANTIFLOOD_MAX=8"}, proxied...)...)
	finish := ts.slowly("POST", "/", "slow", from("192.0.2.1")...)
	ts.clock.advance(2 * time.Minute)
	for i := range 5 {
		ts.post("x", from("192.0.2.1"+strconv.Itoa(i))...).want(201, "")
		if i == 2 {
			finish().want(201, "")
		}
	}
	if got := ts.flood.difficulty(ts.clock.now()); got != 6 {
		t.Errorf("six creations in a moment, difficulty %d", got)
	}
}

// TestDuplicateOfSlowUpload: an upload that began before the window ends it for none of the others.
func TestDuplicateOfSlowUpload(t *testing.T) {
	ts := start(t, "DEDUP_MAX=3", "DEDUP_WINDOW=60s")
	finish := ts.slowly("POST", "/", "same")
	ts.clock.advance(2 * time.Minute)
	ts.post("same").want(201, "")
	ts.post("same").want(201, "")
	finish().want(201, "")
	ts.post("same").want(429, "duplicate_content")
	ts.stored(3)
	ts.clock.advance(61 * time.Second)
	ts.post("same").want(201, "")
}

// TestRevokedWhileIssuing: a certificate is not vouched for by somebody who is no admin any more when it is written.
func TestRevokedWhileIssuing(t *testing.T) {
	ts := startPKI(t)
	for name, fall := range map[string]func(h *holder) error{
		"revoked": func(h *holder) error {
			_, err := ts.store.revokeLine(h.serial(), "keyCompromise", ts.clock.now().Unix())
			return err
		},
		"no admin": func(h *holder) error { return ts.store.setAdmin(h.serial(), false) },
	} {
		root := ts.issued("root", "--admin")
		finish := ts.slowly("POST", "/pki/issue", string(csrPEM(t, "mallory", p256(t))), as(root)...)
		if err := fall(root); err != nil {
			t.Fatal(err)
		}
		if a := finish(); a.StatusCode != 403 {
			t.Errorf("%s: %d", name, a.StatusCode)
		}
	}
	if n := ts.number("SELECT count(*) FROM certs WHERE name = 'mallory'"); n != 0 {
		t.Errorf("%d certificates", n)
	}
}

// TestFailedBurn: a content that can't be read is not burned: its one reader has seen nothing.
func TestFailedBurn(t *testing.T) {
	ts := start(t)
	for _, size := range []int{10, 2*chunkSize + 1} {
		p := ts.create(pattern(size), "X-Burn-After-Read: true")
		turn := func() {
			if err := ts.store.do(0, func(w *writeTx) error { _, err := w.exec("UPDATE chunks SET key = -key"); return err }); err != nil {
				t.Fatal(err)
			}
		}
		turn()
		ts.get("/"+p.ID+"/raw").want(500, "internal")
		turn()
		if a := ts.get("/"+p.ID+"/raw").want(200, ""); a.body != pattern(size) {
			t.Errorf("%d bytes", len(a.body))
		}
		ts.get("/"+p.ID+"/raw").want(404, "")
	}
	ts.nothing()
}

// TestBurnAfterFullDisk: what a start on a full disk could not mark is not confused with what this run's readers burn.
func TestBurnAfterFullDisk(t *testing.T) {
	ts := start(t)
	content := pattern(3 * chunkSize)
	p := ts.create(content, "X-Burn-After-Read: true")
	ts.store.left.Store(ts.store.content.Load()) // as load leaves it
	row, _, err := ts.store.get(p.ID, p.CreatedAt)
	if err != nil {
		t.Fatal(err)
	}
	r := ts.store.reader(row, nil)
	defer r.close()
	claimed := ts.store.claim(row, p.CreatedAt)
	if err := ts.store.collect(func() {}); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); string(b) != content {
		t.Errorf("claim: %v; %d of %d bytes can be read: %v", claimed, len(b), len(content), err)
	}
	if claimed != nil { // as on a disk that is still full
		if a := ts.get("/"+p.ID+"/raw").want(200, ""); a.body != content {
			t.Errorf("%d bytes", len(a.body))
		}
	}
}

// TestRevokedInARepeatedGroup: a line each in the revocation file, though the operation ran twice.
func TestRevokedInARepeatedGroup(t *testing.T) {
	ts := startPKI(t)
	h := ts.issued("alice")
	ran := 0
	err := ts.store.do(0, func(w *writeTx) error { // in one operation what another one's failure does in a group
		ran++
		list, err := w.revoked("UPDATE certs SET revoked_at = 1, reason = 'superseded' WHERE serial = ? RETURNING serial, owner, revoked_at, reason, expires_at", h.serial())
		if err == nil {
			err = appendRevocations(ts.store.path+".revoked", ts.store.path, list)
		}
		if err == nil && ran == 1 {
			err = errTaken
		}
		return err
	})
	if list, read := readRevocations(ts.store.path + ".revoked"); err != nil || read != nil || ran != 2 || len(list) != 1 {
		t.Errorf("ran %d times, %d lines for one certificate, %v, %v", ran, len(list), err, read)
	}
}

// TestSweepOfAFailedGroup: what is still there did not expire.
func TestSweepOfAFailedGroup(t *testing.T) {
	ts := start(t)
	ts.create("x", "X-Expiry: 60")
	ts.clock.advance(time.Hour)
	release := ts.block()
	var n int
	done := make(chan bool)
	go func() { n, _, _ = ts.store.sweep(ts.clock.now().Unix()); close(done) }()
	ts.settled("an operation waits", 1, func() int64 { return min(1, int64(len(ts.store.ops))) })
	go ts.store.do(0, func(w *writeTx) error { _, err := w.exec("no SQL"); return err })
	ts.settled("two wait", 2, func() int64 { return min(2, int64(len(ts.store.ops))) })
	release()
	<-done
	if left := ts.number("SELECT count(*) FROM pastes"); int64(n)+left != 1 {
		t.Errorf("%d are said to be removed, %d are left", n, left)
	}
}

// TestReplacedMeanwhileWithWork: the proof of a try that is made again with the next content is not asked for twice.
func TestReplacedMeanwhileWithWork(t *testing.T) {
	ts := start(t, "POW_DIFFICULTY=4")
	p := ts.create("old", "X-Paste-Password: pw")
	for range guessMost {
		ts.guesses.noteWrong(p.ID, ts.clock.now())
	}
	proof := ts.get("/"+p.ID+"/raw", "X-Paste-Password: pw").want(400, "pow_required").puzzle().solve(t)
	release := make(chan struct{})
	var others sync.WaitGroup
	for i := range ts.kdf.total {
		others.Go(func() { ts.kdf.do(t.Context(), nthKey(i), func() { <-release }) })
	}
	ts.settled("derivations", int64(ts.kdf.total), func() int64 { return int64(ts.kdf.inUse()) })
	others.Go(func() {
		if a := ts.get("/"+p.ID+"/raw", append(proof, "X-Paste-Password: pw")...); a.StatusCode != 200 || a.body != "new" {
			t.Errorf("%d %q", a.StatusCode, a.body)
		}
	})
	ts.settled("readers that wait", 1, func() int64 {
		ts.kdf.mu.Lock()
		defer ts.kdf.mu.Unlock()
		return int64(len(ts.kdf.queue))
	})
	ts.do("PUT", "/"+p.ID, strings.NewReader("new"), "X-Delete-Token: "+p.DeleteToken).want(200, "")
	close(release)
	others.Wait()
	ts.get("/"+p.ID+"/raw", append(proof, "X-Paste-Password: pw")...).want(400, "pow_failed") // by the next request it is
}

// TestRenewalsBehindFullQueue: renewals that the writer has no room for are written by the next flush.
func TestRenewalsBehindFullQueue(t *testing.T) {
	ts := start(t, "EXPIRY_ANON=10h")
	p := ts.create("x")
	ts.clock.advance(time.Hour)
	release := ts.block()
	for room := true; room; {
		select {
		case ts.store.ops <- &operation{run: func(*writeTx) error { return nil }, err: make(chan error, 1)}:
		default:
			room = false
		}
	}
	ts.get("/"+p.ID+"/raw").want(200, "")
	if err := ts.store.flushTouches(); err != nil && !errors.Is(err, errBusy) {
		t.Fatal(err)
	}
	release()
	ts.settled("hours in the file", 11, func() int64 { return (ts.number("SELECT expires_at FROM pastes") - p.CreatedAt) / 3600 })
}

// TestTLSFilesReadLater: a pair that could not be read is tried again, though neither size nor time of its files changes: the
// right to read them may come last.
func TestTLSFilesReadLater(t *testing.T) {
	dir, at, now := t.TempDir(), time.Now(), time.Now()
	f := &certFiles{cert: filepath.Join(dir, "cert"), key: filepath.Join(dir, "key"), log: slog.New(slog.DiscardHandler), now: func() time.Time { now = now.Add(time.Minute); return now }}
	write := func(h *holder, readable bool) {
		key := pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(h.key)))
		if !readable {
			key = bytes.Repeat([]byte("x"), len(key))
		}
		for path, text := range map[string][]byte{f.cert: pemOf("CERTIFICATE", h.der), f.key: key} {
			os.Remove(path)
			writeFile(t, path, text)
			os.Chtimes(path, at, at)
		}
	}
	first, next := selfSigned(t, "first"), selfSigned(t, "the next")
	write(first, true)
	if err := f.load(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		readable bool
		want     *holder
	}{{false, first}, {true, next}} {
		write(next, c.readable)
		if pair := must(f.config().GetCertificate(nil)); !bytes.Equal(pair.Certificate[0], c.want.der) {
			t.Errorf("readable %v: the other certificate", c.readable)
		}
	}
}
