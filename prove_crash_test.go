package main

// Crashes: the real process is killed at random moments under mixed load, round after round on one database, and an oracle
// compares what clients were told with what is there afterwards. The faults (prove_fault_test.go) ask the same oracle.

import (
	"bytes"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// What a thing can be beside a content's SHA-256 or a target.
const (
	gone    = "gone"
	valid   = "trusted"
	revoked = "certificate_revoked"
)

// thing is what a client was told of: a paste, a short URL, or a line of certificates.
type thing struct {
	key   string // /<id>, /s/<id>, or the serial of the line's first certificate
	token string
	burn  bool
	line  []*holder
	asked bool     // for a revocation that was refused: it may be in the file, and then holds from the next start on
	may   []string // what it may be now: one value, and what an operation without an answer would have made of it
}

// oracle knows what was acknowledged, and what was tried without an answer.
type oracle struct {
	env   []string // of the server
	dir   string
	tough []int // statuses that are answers too, under faults: after a 500 nobody knows, any other says that nothing was done

	mu     sync.Mutex
	n      int // contents made
	things map[string]*thing
	idle   []*thing        // that exist and that no operation is at
	tried  map[string]bool // values that may be there under a key that nobody was told
	told   tally           // acknowledged operations by kind
	cut    int             // operations without an answer
	no     tally           // refusals by code
}

func newOracle(dir string, env ...string) *oracle {
	return &oracle{dir: dir, things: map[string]*thing{}, tried: map[string]bool{valid: true, revoked: true}, told: tally{}, no: tally{},
		env: append(append(slices.Clone(pkiEnv), "DATABASE="+database(dir), "REGISTRATION=open", "REGISTER_POW=0", "MAX_UPLOADS=512", "SWEEP=1s"), env...)}
}

// launch starts the real server, and returns what requests are sent with.
func (o *oracle) launch(t testing.TB, env ...string) (*process, *testServer) {
	t.Helper()
	p := launch(t, o.dir, append(slices.Clone(o.env), env...)...)
	return p, &testServer{t: t, url: p.url, dir: o.dir}
}

// ask sends a request. done: it was acknowledged; known: it is certain whether it was done.
func (o *oracle) ask(ts *testServer, kind, method, path string, body io.Reader, headers ...string) (a *answer, done, known bool) {
	a, _ = ts.try(method, path, body, headers...) // once the header is there, the rest may be cut off
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case a == nil:
		o.cut++
		return nil, false, false
	case a.StatusCode < 400:
		o.told[kind]++
		return a, true, true
	case slices.Contains(o.tough, a.StatusCode):
		o.no[a.field("code")]++
		return a, false, a.StatusCode != 500
	}
	ts.t.Errorf("%s %s: %d %.200s", method, path, a.StatusCode, a.body)
	return a, false, true
}

func (o *oracle) add(x *thing) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.things[x.key] = x
	o.idle = append(o.idle, x)
}

// content makes size bytes (9 or more) that were never sent before.
func (o *oracle) content(size int) string {
	o.mu.Lock()
	o.n++
	s := fmt.Sprintf("%08d;", o.n)
	o.mu.Unlock()
	return strings.Repeat(s, size/len(s)+1)[:size]
}

// try notes that value may be there from now on; undo: that it can't.
func (o *oracle) try(value string) (undo func()) {
	set := func(on bool) { o.mu.Lock(); o.tried[value] = on; o.mu.Unlock() }
	set(true)
	return func() { set(false) }
}

// create stores a paste in one of the ways that there are.
func (o *oracle) create(ts *testServer, way, size int, headers ...string) bool {
	content := o.content(size)
	undo := o.try(sum256(content))
	method, path, body := "POST", "/", io.Reader(strings.NewReader(content))
	switch way % 5 {
	case 1:
		body = chunked{body}
	case 2:
		if size < 900<<10 {
			body, headers = strings.NewReader(`{"content": "`+content+`"}`), append(headers, "Content-Type: application/json")
		}
	case 3:
		body, headers = strings.NewReader(form(file("x", content))), append(headers, formType)
	case 4:
		method, path = "PUT", "/name.txt"
	}
	a, done, known := o.ask(ts, "creates", method, path, body, headers...)
	if done {
		o.add(&thing{key: a.Header.Get("Location"), token: a.Header.Get("X-Delete-Token"), burn: slices.Contains(headers, "X-Burn-After-Read: true"), may: []string{sum256(content)}})
	} else if known {
		undo()
	}
	return known
}

func (o *oracle) shorten(ts *testServer) bool {
	target := "https://example.org/" + o.content(100)
	undo := o.try(target)
	a, done, known := o.ask(ts, "short URLs", "POST", "/s", strings.NewReader(target), "Accept: application/json")
	if done {
		o.add(&thing{key: a.Header.Get("Location"), token: a.Header.Get("X-Delete-Token"), may: []string{target}})
	} else if known {
		undo()
	}
	return known
}

// enrol gets a first certificate (x nil) or renews that of a line.
func (o *oracle) enrol(ts *testServer, x *thing) bool {
	path, h, who := "/csr", &holder{key: p256(ts.t)}, as(nil)
	if x != nil {
		path, who = "/pki/renew", as(x.line[0])
	}
	a, done, known := o.ask(ts, "certificates", "POST", path, bytes.NewReader(csrPEM(ts.t, "proof", h.key)), who...)
	if !done || !strings.HasSuffix(a.body, "-----END CERTIFICATE-----\n") { // cut off: nobody has its serial
		return known && !done
	}
	h.der = derOf([]byte(a.body))
	if x != nil {
		x.line = append(x.line, h)
	} else {
		o.add(&thing{key: h.serial(), line: []*holder{h}, may: []string{valid}})
	}
	return known
}

// change does what turns x into another value.
func (o *oracle) change(ts *testServer, kind string, x *thing, to, method, path string, body io.Reader, headers ...string) (*answer, bool) {
	a, done, known := o.ask(ts, kind, method, path, body, headers...)
	if done {
		x.may = []string{to}
	} else if !known {
		x.may = append(x.may, to)
	}
	return a, known
}

func (o *oracle) update(ts *testServer, x *thing, size int) bool {
	content := o.content(size)
	_, known := o.change(ts, "updates", x, sum256(content), "PUT", x.key, strings.NewReader(content), "X-Delete-Token: "+x.token)
	return known
}

func (o *oracle) remove(ts *testServer, x *thing) bool {
	_, known := o.change(ts, "deletes", x, gone, "DELETE", x.key, nil, "X-Delete-Token: "+x.token)
	return known
}

func (o *oracle) revoke(ts *testServer, x *thing) bool {
	_, known := o.change(ts, "revocations", x, revoked, "POST", "/pki/revoke/"+x.key+"?reason=superseded", nil, as(x.line[len(x.line)-1])...)
	x.asked = true
	return known
}

func (o *oracle) burn(ts *testServer, x *thing) bool {
	was := x.may[0]
	a, known := o.change(ts, "burns", x, gone, "GET", x.key+"/raw", nil)
	if a != nil && a.StatusCode == 200 && int64(len(a.body)) == a.ContentLength && sum256(a.body) != was {
		ts.t.Errorf("%s: burned with another content", x.key)
	}
	return known
}

// kind is what can be done with x.
func (x *thing) kind() string {
	switch {
	case x.line != nil:
		return "line"
	case x.burn:
		return "burn"
	case strings.HasPrefix(x.key, "/s/"):
		return "short"
	}
	return "paste"
}

// value asks the server what x is, as a client would; "" without an answer.
func (o *oracle) value(ts *testServer, x *thing) string {
	path, headers := x.key, []string(nil) // of a burning paste its metadata, which burns nothing
	switch x.kind() {
	case "line":
		path, headers = "/pki/certs", as(x.line[len(x.line)-1])
	case "paste":
		path += "/raw"
	}
	a, err := ts.try("GET", path, nil, headers...)
	switch {
	case err != nil:
		return ""
	case a.StatusCode == 404:
		return gone
	case a.StatusCode == 302:
		return a.Header.Get("Location")
	case a.StatusCode == 403:
		return a.field("code")
	case a.StatusCode != 200:
		return fmt.Sprintf("%d %s", a.StatusCode, a.field("code"))
	case x.line != nil && strings.Contains(a.body, x.key):
		return valid
	case x.line != nil:
		return "a pseudonym"
	case x.burn && x.may[0] != gone:
		return x.may[0]
	}
	return sum256(a.body)
}

func (o *oracle) read(ts *testServer, x *thing) bool {
	got := o.value(ts, x)
	if got != "" && got != x.may[0] && !(slices.Contains(o.tough, 500) && got[0] == '5') {
		ts.t.Errorf("%s is %s, not %s", x.key, got, x.may[0])
	}
	o.mu.Lock()
	o.told["reads"]++
	o.mu.Unlock()
	return got != ""
}

// step does one operation at random; false: the server did not answer.
func (o *oracle) step(ts *testServer, r *rand.Rand) bool {
	size := 9 + r.IntN(4000)
	switch n := r.IntN(20); {
	case n < 4:
		size = []int{9, hotSize, hotSize + 1, chunkSize - 1, chunkSize, chunkSize + 1, 2 * chunkSize}[r.IntN(7)]
	case n < 7:
		size = r.IntN(chunkSize) + 9
	case n < 9:
		size = chunkSize + r.IntN(5*chunkSize)
	}
	o.mu.Lock()
	many, x := len(o.idle) > 200, (*thing)(nil)
	if len(o.idle) > 0 { // nobody else is at it meanwhile: so its value is certain
		i := r.IntN(len(o.idle))
		x = o.idle[i]
		o.idle[i] = o.idle[len(o.idle)-1]
		o.idle = o.idle[:len(o.idle)-1]
	}
	o.mu.Unlock()
	if x != nil {
		defer func() {
			if len(x.may) == 1 && x.may[0] != gone && x.may[0] != revoked {
				o.add(x)
			}
		}()
	}
	n, kind := r.IntN(100), ""
	if x != nil && (many || n >= 40) {
		kind = x.kind()
	}
	switch {
	case kind == "" && n < 4:
		return o.shorten(ts)
	case kind == "" && n < 6:
		return o.enrol(ts, nil)
	case kind == "" && n < 8: // an upload that its client gives up
		testClient.Post(ts.url+"/", "text/plain", io.MultiReader(strings.NewReader(pattern(size)), iotest.ErrReader(errors.New("given up"))))
		return true
	case kind == "" && n < 16:
		return o.create(ts, r.IntN(5), size, "X-Burn-After-Read: true")
	case kind == "":
		return o.create(ts, r.IntN(5), size)
	case n < 60:
		return o.read(ts, x)
	case kind == "burn":
		return o.burn(ts, x)
	case kind == "line" && n < 80 && len(x.line) < 8:
		return o.enrol(ts, x)
	case kind == "line":
		return o.revoke(ts, x)
	case kind == "paste" && n < 80:
		return o.update(ts, x, size)
	}
	return o.remove(ts, x)
}

// load runs operations on several connections until the server no longer answers; wait returns then.
func (o *oracle) load(ts *testServer) (wait func()) {
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for r := rand.New(rand.NewPCG(rand.Uint64(), 0)); o.step(ts, r); {
			}
		})
	}
	return wg.Wait
}

// onFile wants every acknowledged revocation in the revocation file: asked before the start, which writes what is missing.
func (o *oracle) onFile(t testing.TB) {
	t.Helper()
	filed := map[string]bool{}
	for _, r := range must(readRevocations(database(o.dir) + ".revoked")) {
		filed[r.serial] = true
	}
	for _, x := range o.things {
		for _, h := range x.line {
			if len(x.may) == 1 && x.may[0] == revoked && !filed[h.serial()] {
				t.Errorf("the revocation of %s is not on file", h.serial())
			}
		}
	}
}

// stored reads the whole database beside the running server: its value by key. What contradicts itself is an error of the test.
func (o *oracle) stored(t testing.TB) map[string]string {
	t.Helper()
	db := must(sql.Open("sqlite", dsn(database(o.dir), "ro")))
	defer db.Close()
	number := func(query string) (n int64) {
		if err := db.QueryRow(query).Scan(&n); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		return n
	}
	for range 1000 { // the start's cleaning takes a moment
		if number("SELECT count(*) FROM garbage") == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for what, query := range map[string]string{
		"garbage":                        "SELECT count(*) FROM garbage",
		"chunks without a paste":         "SELECT count(*) FROM chunks WHERE key >> 20 NOT IN (SELECT content FROM pastes)",
		"contents with two pastes":       "SELECT count(*) - count(DISTINCT content) FROM pastes",
		"pastes too many in the totals":  "SELECT pastes - (SELECT count(*) FROM pastes) FROM totals",
		"bytes too many in the totals":   "SELECT bytes - (SELECT coalesce(sum(length(data)), 0) FROM chunks) - (SELECT coalesce(sum(length(target)), 0) FROM shorts) FROM totals",
		"certificates that outlive line": "SELECT count(*) FROM certs WHERE revoked_at = 0 AND owner IN (SELECT owner FROM certs WHERE revoked_at <> 0)",
	} {
		if n := number(query); n != 0 {
			t.Errorf("%d %s", n, what)
		}
	}
	found := map[string]string{}
	each := func(query string, row func(key string, value []byte)) {
		rows := must(db.Query(query))
		defer rows.Close()
		for rows.Next() {
			var key string
			var value []byte
			if err := rows.Scan(&key, &value); err != nil {
				t.Fatal(err)
			}
			row(key, value)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	sums, hash := map[string]string{}, sha256.New()
	each("SELECT '/' || id, sha256 FROM pastes", func(key string, sum []byte) { sums[key] = hex.EncodeToString(sum) })
	last := ""
	each("SELECT '/' || p.id, c.data FROM pastes p JOIN chunks c ON c.key BETWEEN p.content << 20 AND ((p.content + 1) << 20) - 1 ORDER BY p.n, c.key", func(key string, data []byte) {
		if key != last {
			hash.Reset()
		}
		hash.Write(data)
		last, found[key] = key, hex.EncodeToString(hash.Sum(nil))
	})
	if !maps.Equal(sums, found) {
		t.Errorf("half pastes: %d rows, %d contents, not the same", len(sums), len(found))
	}
	each("SELECT '/s/' || id, target FROM shorts", func(key string, target []byte) { found[key] = string(target) })
	each("SELECT serial, CASE revoked_at WHEN 0 THEN '"+valid+"' ELSE '"+revoked+"' END FROM certs", func(key string, state []byte) { found[key] = string(state) })
	each("SELECT 'x', integrity_check FROM pragma_integrity_check", func(_ string, line []byte) {
		if string(line) != "ok" {
			t.Errorf("integrity_check: %s", line)
		}
	})
	return found
}

// check compares everything that is known with the database and with what the server says. Afterwards all is certain.
func (o *oracle) check(ts *testServer) {
	ts.t.Helper()
	found := o.stored(ts.t)
	o.idle = nil
	var dead []*thing
	for _, x := range o.things {
		got, ok := found[x.key]
		if !ok {
			got = gone
		}
		if !slices.Contains(x.may, got) && !(x.asked && got == revoked) {
			ts.t.Errorf("%s is %s, not %q", x.key, got, x.may)
		}
		for _, h := range x.line[min(1, len(x.line)):] {
			if found[h.serial()] != got {
				ts.t.Errorf("a renewal of %s is %q, not %s", x.key, found[h.serial()], got)
			}
			delete(found, h.serial())
		}
		delete(found, x.key)
		if x.may = []string{got}; got == gone || got == revoked {
			dead = append(dead, x)
		} else if !x.asked {
			o.idle = append(o.idle, x)
		}
	}
	for key, value := range found {
		if !o.tried[value] {
			ts.t.Errorf("%s is %s, which nobody sent", key, value)
		}
	}
	rand.Shuffle(len(dead), func(i, j int) { dead[i], dead[j] = dead[j], dead[i] })
	for _, x := range append(dead[:min(50, len(dead))], o.idle...) {
		if got := o.value(ts, x); got != x.may[0] {
			ts.t.Errorf("%s is %s, the server says %s", x.key, x.may[0], got)
		}
	}
}

// acknowledged are the operations that were, by kind.
func (o *oracle) acknowledged() string {
	total := 0
	for _, n := range o.told {
		total += n
	}
	return fmt.Sprintf("%d acknowledged (%v), %d cut off", total, o.told, o.cut)
}

// TestProveCrash: kill -9 at random moments, the start among them, durable commits and SYNC=normal in turn.
func TestProveCrash(t *testing.T) {
	rounds := 20
	if proving(t) {
		rounds = 200
	}
	o := newOracle(t.TempDir())
	defer func() {
		proved(t, "crash", fmt.Sprintf("%d times kill -9 under mixed load, and %d amid a start, on one database", rounds, rounds/3),
			"%s: none lost, none undone, no half paste, no orphan, integrity_check ok", o.acknowledged())
	}()
	for round := range rounds {
		sync := []string{"SYNC=full", "SYNC=normal"}[round%2]
		if round%3 == 2 { // amid its start
			cmd := program(o.dir, environment(append([]string{"LISTEN=127.0.0.1:0", sync}, o.env...)), "serve")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(rand.N(200 * time.Millisecond))
			cmd.Process.Kill()
			cmd.Wait()
		}
		o.onFile(t)
		p, ts := o.launch(t, sync)
		o.check(ts)
		wait := o.load(ts)
		time.Sleep(rand.N(800 * time.Millisecond))
		select {
		case <-p.done:
			t.Errorf("the server ended by itself: %s", p.logs)
		default:
		}
		p.kill()
		wait()
		testClient.CloseIdleConnections()
		if t.Failed() {
			t.Fatalf("in round %d; its log ends with %.3000s", round+1, p.logs.String()[max(0, len(p.logs.String())-3000):])
		}
	}
	o.onFile(t)
	_, ts := o.launch(t)
	o.check(ts)
}
