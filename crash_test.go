package main

// Crashes: the real process is killed at random moments under mixed load, round after round on one database, and an
// oracle compares what clients were told with what is there afterwards. The faults (fault_test.go) ask the same oracle.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	mrand "math/rand/v2"
	"os"
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

// thing is what a client was told of: a paste, a short URL or a certificate.
type thing struct {
	key   string   // /<id>, /s/<id> or the certificate's serial
	kind  string   // paste, burn, short, cert
	token string   // delete token, of a certificate its SHA-1
	may   []string // what it may be now: one value, and what an operation without an answer would have made of it
}

// oracle knows what was acknowledged, and what was tried without an answer.
type oracle struct {
	env     []string // of the server
	dir     string
	request string // for a certificate
	tough   []int  // statuses that are answers too, under faults: any but 500 says that nothing was done

	mu     sync.Mutex
	n      int // contents made
	things map[string]*thing
	idle   []*thing // that exist and that no operation is at
	tried  tally    // values that may be there under a key that nobody was told
	told   tally    // acknowledged operations by kind
	no     tally    // refusals by code
	cut    int      // operations without an answer
}

func newOracle(t testing.TB, dir string, env ...string) *oracle {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	wanted := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}
	der := must(x509.CreateCertificateRequest(rand.Reader, wanted, key))
	return &oracle{dir: dir, things: map[string]*thing{}, tried: tally{valid: 1, revoked: 1}, told: tally{},
		no: tally{}, request: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})),
		env: slices.Concat(proxied, []string{"PKI_ENABLED=1", "PKI_CA_PASSWORD=a password of the CA",
			"REGISTRATION=open", "REGISTER_POW=0", "RATE_REGISTER=0", "DATABASE=" + database(dir), "MAX_UPLOADS=512",
			"SWEEP=1s"}, env)}
}

// launch starts the real server, and returns what requests are sent with.
func (o *oracle) launch(t testing.TB, env ...string) (*process, *testServer) {
	t.Helper()
	p := launch(t, o.dir, slices.Concat(o.env, env)...)
	return p, &testServer{t: t, url: p.url, dir: o.dir}
}

// ask sends a request that does something of a kind and would make x that value. known: it is certain whether it was
// done.
func (o *oracle) ask(ts *testServer, kind string, x *thing, to, method, path string, body io.Reader,
	headers ...string) (a *answer, known bool) {
	o.mu.Lock()
	o.tried[to]++
	o.mu.Unlock()
	a, _ = ts.try(method, path, body, headers...) // once the header is there, the rest may be cut off
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case a == nil:
		o.cut++
	case a.StatusCode < 400:
		o.told[kind]++
		x.may = []string{to}
		return a, true
	case slices.Contains(o.tough, a.StatusCode):
		o.no[a.field("code")]++
		if known = a.StatusCode != 500; known {
			o.tried[to]--
			return a, true
		}
	default:
		ts.t.Errorf("%s %s: %d %.200s", method, path, a.StatusCode, a.body)
	}
	x.may = append(x.may, to)
	return a, false
}

// make creates something that exists from then on, if it was acknowledged.
func (o *oracle) make(ts *testServer, kind string, size int) (known bool) {
	o.mu.Lock()
	o.n++
	n, unique := o.n, fmt.Sprintf("%08d;", o.n)
	o.mu.Unlock()
	content := strings.Repeat(unique, size/9+1)[:size]
	x, to, method, path, headers := &thing{kind: kind}, sum256(content), "POST", "/", []string(nil)
	body := io.Reader(strings.NewReader(content))
	switch {
	case kind == "burn":
		headers = []string{"X-Burn-After-Read: true"}
	case kind == "short":
		to = "https://example.org/" + unique
		path, body, headers = "/s", strings.NewReader(to), []string{"Accept: application/json"}
	case kind == "cert":
		to, path, body = valid, "/csr", strings.NewReader(o.request)
	case n%4 == 1:
		body = chunked{body}
	case n%4 == 2 && size < 900<<10:
		body, headers = strings.NewReader(`{"content": "`+content+`"}`), []string{"Content-Type: application/json"}
	case n%4 == 3:
		method, path = "PUT", "/name.txt"
	}
	a, known := o.ask(ts, "make "+kind, x, to, method, path, body, headers...)
	if a == nil || a.StatusCode >= 400 {
		return known
	}
	if x.key, x.token = a.Header.Get("Location"), a.Header.Get("X-Delete-Token"); kind == "cert" {
		x.key, x.token = a.Header.Get("X-Certificate-Serial"), a.Header.Get("X-Fingerprint-SHA1")
	}
	o.mu.Lock()
	o.things[x.key], o.idle = x, append(o.idle, x)
	o.mu.Unlock()
	return known
}

// use does what ends x, or gives a paste another content.
func (o *oracle) use(ts *testServer, x *thing, update bool, size int) (known bool) {
	switch {
	case x.kind == "cert":
		_, known = o.ask(ts, "revoke", x, revoked, "POST", "/pki/revoke/"+x.key, nil, withCert(x.token)...)
	case x.kind == "burn":
		was := x.may[0]
		a, sure := o.ask(ts, "burn", x, gone, "GET", x.key+"/raw", nil)
		whole := a != nil && a.StatusCode == 200 && int64(len(a.body)) == a.ContentLength
		if known = sure; whole && sum256(a.body) != was {
			ts.t.Errorf("%s: burned with another content", x.key)
		}
	case update && x.kind == "paste":
		o.mu.Lock()
		o.n++
		content := strings.Repeat(fmt.Sprintf("%08d;", o.n), size/9+1)[:size]
		o.mu.Unlock()
		body := strings.NewReader(content)
		_, known = o.ask(ts, "update", x, sum256(content), "PUT", x.key, body, "X-Delete-Token: "+x.token)
	default:
		_, known = o.ask(ts, "delete", x, gone, "DELETE", x.key, nil, "X-Delete-Token: "+x.token)
	}
	return known
}

// value asks the server what x is, as a client would; "" without an answer.
func (o *oracle) value(ts *testServer, x *thing) string {
	path, headers := x.key, []string(nil) // of a burning paste its metadata, which burns nothing
	switch x.kind {
	case "cert":
		path, headers = "/pki/certs", withCert(x.token)
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
	case x.kind == "cert" && strings.Contains(a.body, x.key):
		return valid
	case x.kind == "burn" && x.may[0] != gone:
		return x.may[0]
	}
	return sum256(a.body)
}

func (o *oracle) read(ts *testServer, x *thing) bool {
	got := o.value(ts, x)
	if got != "" && got != x.may[0] && !(slices.Contains(o.tough, 500) && got[0] == '5') {
		ts.t.Errorf("%s is %s, not %s", x.key, got, x.may[0])
	}
	return got != ""
}

// step does one operation at random; false: the server did not answer.
func (o *oracle) step(ts *testServer, r *mrand.Rand) bool {
	size := 9 + r.IntN(4000)
	switch n := r.IntN(20); {
	case n < 4:
		size = []int{9, hotSize, hotSize + 1, chunkSize - 1, chunkSize, chunkSize + 1, 2 * chunkSize}[r.IntN(7)]
	case n < 7:
		size = chunkSize/2 + r.IntN(5*chunkSize)
	}
	o.mu.Lock()
	many, x := len(o.idle) > 200, (*thing)(nil)
	if len(o.idle) > 0 { // nobody else is at it meanwhile: so its value is certain
		i := r.IntN(len(o.idle))
		x = o.idle[i]
		o.idle = slices.Delete(o.idle, i, i+1)
	}
	o.mu.Unlock()
	if x != nil {
		defer func() {
			if len(x.may) == 1 && x.may[0] != gone && x.may[0] != revoked {
				o.mu.Lock()
				o.idle = append(o.idle, x)
				o.mu.Unlock()
			}
		}()
	}
	switch n := r.IntN(100); {
	case x != nil && (many || n >= 80):
		return o.use(ts, x, n%2 == 0, size)
	case x != nil && n >= 60:
		return o.read(ts, x)
	case n < 3: // an upload that its client gives up
		given := iotest.ErrReader(errors.New("given up"))
		testClient.Post(ts.url+"/", "text/plain", io.MultiReader(strings.NewReader(pattern(size)), given))
		return true
	}
	return o.make(ts, []string{"paste", "paste", "paste", "paste", "burn", "short", "cert"}[r.IntN(7)], size)
}

// load runs operations on several connections until the server no longer answers; wait returns then.
func (o *oracle) load(ts *testServer) (wait func()) {
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for r := mrand.New(mrand.NewPCG(mrand.Uint64(), 0)); o.step(ts, r); {
			}
		})
	}
	return wg.Wait
}

// stored reads the whole database beside the running server: its value by key. What contradicts itself is an error of
// the test.
func (o *oracle) stored(t testing.TB) map[string]string {
	t.Helper()
	db := must(sql.Open("sqlite", dsn(database(o.dir), "ro")))
	defer db.Close()
	db.SetMaxOpenConns(1)
	must(db.Exec("BEGIN")) // of one moment
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
	for what, query := range map[string]string{
		"chunks that nobody knows": `SELECT key, '' FROM chunks WHERE key >> 20 NOT IN
			(SELECT content FROM pastes UNION SELECT content FROM garbage)`,
		"garbage that is a paste": "SELECT content, '' FROM garbage WHERE content IN (SELECT content FROM pastes)",
		"no integrity": `SELECT integrity_check, '' FROM pragma_integrity_check
			WHERE integrity_check <> 'ok'`,
	} {
		each(query, func(key string, _ []byte) { t.Errorf("%s: %s", what, key) })
	}
	sums, found, last, hash := map[string]string{}, map[string]string{}, "", sha256.New()
	each("SELECT '/' || id, sha256 FROM pastes", func(key string, sum []byte) { sums[key] = hex.EncodeToString(sum) })
	each(`SELECT '/' || p.id, c.data FROM pastes p
		JOIN chunks c ON c.key >= p.content << 20 AND c.key < (p.content + 1) << 20
		ORDER BY c.key`, func(key string, data []byte) {
		if key != last {
			hash.Reset()
		}
		hash.Write(data)
		last, found[key] = key, hex.EncodeToString(hash.Sum(nil))
		if sums[key] == found[key] && strings.HasPrefix(key, "/s/") {
			sums[key], found[key] = string(data), string(data) // its value is the target
		}
	})
	if !maps.Equal(sums, found) {
		t.Errorf("half pastes: %d rows, %d contents, not the same", len(sums), len(found))
	}
	each("SELECT serial, CASE revoked_at WHEN 0 THEN '"+valid+"' ELSE '"+revoked+"' END FROM certs",
		func(key string, state []byte) { found[key] = string(state) })
	return found
}

// check compares everything that is known with the database and with what the server says. Afterwards all is certain.
func (o *oracle) check(ts *testServer) {
	ts.t.Helper()
	found := o.stored(ts.t)
	o.idle = nil
	var dead []*thing
	for key, x := range o.things {
		got, ok := found[key]
		if !ok {
			got = gone
		}
		if !slices.Contains(x.may, got) {
			ts.t.Errorf("%s is %s, not %q", key, got, x.may)
		}
		delete(found, key)
		if x.may = []string{got}; got == gone || got == revoked {
			dead = append(dead, x)
		} else {
			o.idle = append(o.idle, x)
		}
	}
	for key, value := range found {
		if o.tried[value] == 0 {
			ts.t.Errorf("%s is %s, which nobody sent", key, value)
		}
	}
	mrand.Shuffle(len(dead), func(i, j int) { dead[i], dead[j] = dead[j], dead[i] })
	for _, x := range append(dead[:min(50, len(dead))], o.idle...) {
		if got := o.value(ts, x); got != x.may[0] {
			ts.t.Errorf("%s is %s, the server says %s", x.key, x.may[0], got)
		}
	}
}

// acknowledged are the operations that were, by kind.
func (o *oracle) acknowledged() string {
	return fmt.Sprintf("acknowledged %v; %d cut off", o.told, o.cut)
}

// TestCrash: kill -9 at random moments, the start among them, durable commits and SYNC=normal in turn; in the end, when
// what was half done has fallen due, nothing is left of it.
func TestCrash(t *testing.T) {
	t.Parallel()
	rounds := amount(2, 20, 200)
	o := newOracle(t, t.TempDir())
	for round := range rounds {
		p, ts := o.launch(t, "SYNC="+[]string{"full", "normal"}[round%2])
		o.check(ts)
		wait, made := o.load(ts), 0
		for moment := 10 + mrand.IntN(200); made < moment; time.Sleep(time.Millisecond) {
			o.mu.Lock()
			made++
			if len(o.told) < 3 {
				moment++
			}
			o.mu.Unlock()
		}
		p.kill()
		wait()
		testClient.CloseIdleConnections()
		// And killed while it starts.
		early := program(o.dir, environment(append(slices.Clone(o.env), "LISTEN=127.0.0.1:0")), "serve")
		early.Start()
		time.Sleep(mrand.N(30 * time.Millisecond))
		early.Process.Kill()
		early.Wait()
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	p, ts := o.launch(t)
	o.check(ts)
	p.stop()
	late := startAt(t, o.dir, 17*time.Minute)
	late.stored(late.number("SELECT count(*) FROM pastes"))
	if _, err := os.Stat(database(o.dir)); err != nil || o.told["make paste"] == 0 {
		t.Errorf("that was no load: %v", o.told)
	}
	proved(t, "crash", fmt.Sprintf("%d times kill -9 under load and during a start", rounds),
		"%s; none lost, none undone", o.acknowledged())
}
