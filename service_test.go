package main

// What the service says of itself (api.md section 11): GET /, /health, /metrics, /client; and that its routes are its
// table.

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ---- GET / ----

// spelled is how a route's path is written for people.
var spelled = strings.NewReplacer("{$}", "", "/s/{id}/{view}", "/s/{id}/info", "{view}", "raw")

// TestDescription: what there is, in all forms, with links that work from where the request came; so are a paste's.
func TestDescription(t *testing.T) {
	for _, c := range [][3]string{ // settings, headers, what links begin with
		{"", "Host: paste.example:81", "http://paste.example:81"},
		{"URL_PREFIX=/p/q/", "Host: paste.example", "http://paste.example/p/q"},
		{"PUBLIC_URL=https://public.example/", "Host: evil.example", "https://public.example"},
		{"PUBLIC_URL=https://public.example URL_PREFIX=/p", "Host: evil.example", "https://public.example/p"},
		{"", secretLine + "\n" + httpsLine + "\nHost: paste.example:8443", "https://paste.example:8443"},
		{"", secretLine + "\nX-Forwarded-Host: evil.example\nHost: paste.example", "http://paste.example"},
	} {
		t.Run(c[2], func(t *testing.T) {
			ts, h := start(t, append(strings.Fields(c[0]), fast...)...), head(c[1])
			a := ts.get("/", h...).want(200, "")
			var m struct {
				Name, Version string
				Usage         []string
				Endpoints     map[string]string
				Limits        map[string]any
				You           map[string]string
			}
			if err := json.Unmarshal([]byte(a.body), &m); err != nil || m.Name != "FlaskPaste" ||
				m.Version != version || m.You["tier"] != "anonymous" || len(m.Usage) == 0 || m.Limits["work"] == nil ||
				m.Limits["min_entropy"] == nil || !strings.Contains(a.body, "\n  \"usage\": [\n") {
				t.Fatalf("%v: %s", err, a.body)
			}
			text := ts.get("/", append(h, "Accept: text/plain")...).want(200, "").body
			for _, u := range m.Usage {
				if !strings.Contains(u, c[2]+"/") || !strings.Contains(text, u) || strings.Contains(text, "evil") {
					t.Errorf("usage %q", u)
				}
			}
			for _, words := range []string{"3 MiB", "50 MiB", "1 day", "7 days", "90 days", "anonymous"} {
				if !strings.Contains(text, words) {
					t.Errorf("the manual does not speak of %q", words)
				}
			}
			for _, r := range routes() {
				method, path, _ := strings.Cut(r.pattern, " ")
				path = ts.cfg.prefix + spelled.Replace(path)
				off := regexp.MustCompile(`/(pki|csr|register|metrics)`).MatchString(path)
				if m.Endpoints[method+" "+path] != r.does || strings.Contains(text, " "+path+" ") == off {
					t.Errorf("%s %s: described as %q", method, path, m.Endpoints[method+" "+path])
				}
			}
			a = ts.do("PUT", "/name", strings.NewReader("x"), h...).want(201, "")
			path, link, shown := ts.cfg.prefix+"/"+a.id(), c[2]+"/"+a.id()+"/raw", ts.get("/"+a.id(), h...)
			if a.body != link+"/name\n" || a.Header.Get("Location") != path || shown.field("url") != path ||
				shown.field("raw") != path+"/raw" || shown.field("link") != link {
				t.Errorf("%q, %v, %s", a.body, a.Header, shown.body)
			}
		})
	}
	issues := start(t, "PKI_ENABLED=1", "PKI_CA_PASSWORD=correct horse battery", "POW_DIFFICULTY=20")
	if text := issues.get("/", "Accept: text/plain").body; !strings.Contains(text, " /pki/ca.crt ") ||
		!strings.Contains(text, "20 creations an hour") || strings.Contains(text, "/csr") {
		t.Errorf("with a CA and work: %s", text)
	}
}

// TestPrefix: everything below it, nothing beside it.
func TestPrefix(t *testing.T) {
	ts := start(t, "URL_PREFIX=/paste")
	p := ts.create("x")
	for _, path := range []string{"", "/", "/health", p.URL[len("/paste"):]} {
		ts.get(path).want(200, "")
	}
	ts.do("PUT", "", strings.NewReader("x")).want(201, "")
	outside := ts.in(t)
	outside.url = strings.TrimSuffix(ts.url, "/paste")
	for _, path := range []string{"/", "/health", "/" + p.ID, "/pasteX", "/paste" + p.ID, "/Paste/",
		"/p/../paste/health", "//paste/health"} {
		if a := outside.get(path); a.StatusCode != 404 || a.Header.Get("Location") != "" {
			t.Errorf("%s: %d %v", path, a.StatusCode, a.Header)
		}
	}
	outside.do("POST", "/", strings.NewReader("x")).want(404, "not_found")
	ts.stored(2)
}

// ---- health ----

func TestHealth(t *testing.T) {
	t.Parallel()
	ts := start(t, "RATE_READ=1/d")
	const well, ill = `{"status":"healthy","database":"ok"}` + "\n", `{"status":"unhealthy","database":"error"}` + "\n"
	for range 20 {
		if a := ts.get("/health").want(200, ""); a.body != well {
			t.Errorf("%q", a.body)
		}
	}
	release := ts.block() // the writer stands still: said after 2 s, at once
	ts.settled("health", 503, func() int64 { return int64(ts.get("/health").StatusCode) })
	if a := ts.get("/health", "X-SSL-Client-SHA1: junk"); a.body != ill {
		t.Errorf("%q", a.body)
	}
	release()
	ts.settled("health", 200, func() int64 { return int64(ts.get("/health").StatusCode) })
}

// ---- metrics ----

var sampleShape = regexp.MustCompile(`^([a-z_]+(\{[a-z]+="[^"\\]*"(,[a-z]+="[^"\\]*")*\})?) ([0-9.e+-]+)$`)

// scrape reads /metrics: HELP and TYPE before each family, then samples, none twice.
func (ts *testServer) scrape() map[string]float64 {
	ts.t.Helper()
	a := ts.get("/metrics").want(200, "")
	if got := a.Header.Get("Content-Type"); got != "text/plain; version=0.0.4; charset=utf-8" {
		ts.t.Errorf("Content-Type %q", got)
	}
	all, family := map[string]float64{}, ""
	lines := bufio.NewScanner(strings.NewReader(a.body))
	for lines.Scan() {
		line := lines.Text()
		if help, ok := strings.CutPrefix(line, "# HELP "); ok {
			family, _, _ = strings.Cut(help, " ")
			lines.Scan()
			kind, ok := strings.CutPrefix(lines.Text(), "# TYPE "+family+" ")
			if !ok || !slices.Contains([]string{"counter", "gauge", "histogram"}, kind) {
				ts.t.Fatalf("%q, then %q", line, lines.Text())
			}
			continue
		}
		m := sampleShape.FindStringSubmatch(line)
		if m == nil || !strings.HasPrefix(line, family) {
			ts.t.Fatalf("%q below %s", line, family)
		}
		if _, twice := all[m[1]]; twice {
			ts.t.Fatalf("%q comes twice", line)
		}
		all[m[1]] = must(strconv.ParseFloat(m[4], 64))
	}
	return all
}

// counted are the lines that requests move, and no clock.
var counted = regexp.MustCompile(`^flaskpaste_((requests|refusals|pastes|short_urls|pow|ignored_headers|` +
	`cache_requests)_total|stored_pastes)`)

// kinds of lines by a short name, as in "refused x".
var kinds = map[string]string{"refused": `refusals_total{reason="`, "pow": `pow_total{event="`,
	"short": `short_urls_total{event="`, "cache": `cache_requests_total{result="`, "paste": `pastes_total{event="`}

// series is a line of the metrics by a short name: one of those, "GET /s 200" a request's (HEAD: the GET route's), or
// the name itself.
func series(short string) string {
	f := strings.Fields(short)
	switch len(f) {
	case 1:
		return "flaskpaste_" + short
	case 2:
		return "flaskpaste_" + kinds[f[0]] + f[1] + `"}`
	}
	route := strings.Replace(f[0], "HEAD", "GET", 1) + " " + f[1]
	if f[1] == "none" {
		route = "none"
	}
	return fmt.Sprintf(`flaskpaste_requests_total{route="%s",method="%s",status="%s"}`, route, f[0], f[2])
}

// TestMetrics: each kind of request moves its lines by one, and no other.
func TestMetrics(t *testing.T) {
	ts := start(t, "METRICS_ALLOW=127.0.0.1", "DEDUP_MAX=1", "POW_DIFFICULTY=4", "POW_FREE=1000",
		"ANTIFLOOD_THRESHOLD=1000", "SWEEP=1h")
	ts.clock.hold()
	large := fresh(70_000) // too large for the cache
	const raw, token = "GET /{id}/{view} ", "X-Delete-Token: TOKEN"
	path, secret, proof := "", "", []string(nil) // of what was made last
	for _, c := range [][4]string{               // request, header, body, what it moves
		{"POST /", "", "hello", "POST /{$} 201, paste created, stored_pastes"},
		{"GET PATH/raw", "", "", raw + "200, paste read"},
		{"GET PATH/raw", "", "", raw + "200, paste read, cache hit"},
		{"GET PATH", "", "", "GET /{id} 200, cache hit"},
		{"GET PATH/raw/x", "", "", "GET /{id}/{view}/{name} 200, paste read, cache hit"},
		{"HEAD PATH/raw", "", "", "HEAD /{id}/{view} 200, cache hit"},
		{"GET PATH/raw", "Range: bytes=1-2", "", raw + "206, paste read, cache hit"},
		{"GET PATH/raw", "If-None-Match: *", "", raw + "304, cache hit"},
		{"GET PATH/raw", "Range: bytes=9-", "", raw + "416, cache hit"},
		{"PUT PATH", token, large, "PUT /{name} 200, cache hit"},
		{"POST /", "", large, "POST /{$} 429, refused duplicate_content"},
		{"DELETE PATH", token + "x", "", "DELETE /{id} 403, refused not_owner"},
		{"DELETE PATH", token, "", "DELETE /{id} 200, paste deleted, -stored_pastes"},
		{"GET PATH", "", "", "GET /{id} 404, refused not_found"},
		{"GET /a/b/c/d", "", "", "GET none 404, refused not_found"},
		{"BREW /", "", "", "other none 405, refused method_not_allowed"},
		{"POST /", "", "", "POST /{$} 400, refused empty_content"},
		{"POST /", "X-Burn-After-Read: true", "secret", "POST /{$} 201, paste created, stored_pastes"},
		{"GET PATH/raw", "User-Agent: Slackbot", "", raw + "403, refused preview_refused"},
		{"GET PATH/raw", "", "", raw + "200, paste burned, paste read, -stored_pastes"},
		{"POST /s", "", "https://example.org/", "POST /s 201, short created, stored_pastes"},
		{"GET PATH/info", "", "", "GET /s/{id}/{view} 200"},
		{"GET PATH", "", "", "GET /s/{id} 302, short read, cache hit"},
		{"DELETE PATH", token, "", "DELETE /s/{id} 200, short deleted, -stored_pastes, cache hit"},
		{"POST /s", "", "ftp://example.org/", "POST /s 400, refused bad_url"},
		{"GET /challenge", "", "", "GET /challenge 200, pow issued"},
		{"POST /", "PROOF", "worked", "POST /{$} 201, pow solved, paste created, stored_pastes"},
		{"POST /", "X-PoW-Token: x", "x", "POST /{$} 400, refused pow_failed, pow failed, pow issued"},
		{"POST /", "X-Expiry: 60s", "ending", "POST /{$} 201, paste created, stored_pastes"},
		{"GET /health", addrLine, "", "GET /health 200, ignored_headers_total"},
	} {
		before, want := ts.scrape(), map[string]float64{}
		h := head(strings.Replace(c[1], "TOKEN", secret, 1))
		if c[1] == "PROOF" {
			h = proof
		}
		a := ts.send(strings.Replace(c[0], "PATH", path, 1), strings.NewReader(c[2]), h...)
		if a.StatusCode == 201 {
			path, secret = a.Header.Get("Location"), a.Header.Get("X-Delete-Token")
		}
		if c[0] == "GET /challenge" {
			proof = a.work().solve(t)
		}
		for m := range strings.SplitSeq(c[3], ", ") {
			name, less := strings.CutPrefix(m, "-")
			want[series(name)] = map[bool]float64{false: 1, true: -1}[less]
		}
		changed := map[string]float64{}
		for range 3000 { // a request is counted behind its answer
			changed = map[string]float64{}
			for k, v := range ts.scrape() {
				ours := counted.MatchString(k) && !strings.Contains(k, "/metrics") && !strings.Contains(k, `"miss"`)
				if ours && v != before[k] {
					changed[k] = v - before[k]
				}
			}
			if maps.Equal(changed, want) {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if !maps.Equal(changed, want) {
			t.Errorf("%s: moved %v, want %v", c[:3], changed, want)
		}
	}
	// What grows old, and who is turned away at the door.
	ts.clock.advance(2 * time.Minute)
	m := ts.scrape()
	if m["flaskpaste_oldest_expired_seconds"] != 60 {
		t.Errorf("the oldest is %v s old", m["flaskpaste_oldest_expired_seconds"])
	}
	for name, least := range map[string]float64{"flaskpaste_commit_operations_count": 0,
		"flaskpaste_commit_duration_seconds_count": 0, "flaskpaste_request_bytes_total": 70_000,
		"flaskpaste_response_bytes_total": 1000, "flaskpaste_stored_bytes": 8192,
		"flaskpaste_storage_limit_bytes": 10 << 30, "flaskpaste_disk_free_bytes": 1, "flaskpaste_pow_difficulty": 4,
		"flaskpaste_limiter_entries": 1, "flaskpaste_writer_queue_length": 0, "flaskpaste_uploads": 0,
		"flaskpaste_downloads": 0, "flaskpaste_refused_connections_total": 0, "process_open_fds": 4,
		"flaskpaste_cache_bytes": 0, "process_resident_memory_bytes": 1 << 20, "process_cpu_seconds_total": 0,
		"process_start_time_seconds": 1.7e9, "go_goroutines": 2} {
		if v, ok := m[name]; !ok || v < least {
			t.Errorf("%s is %v, want %v", name, v, least)
		}
	}
}

// TestPromtool lets Prometheus's own linter read what a server of every feature shows.
func TestPromtool(t *testing.T) {
	promtool := need(t, "promtool")
	ts := start(t, "METRICS_ALLOW=127.0.0.1", "PKI_ENABLED=1", "PKI_CA_PASSWORD=correct horse battery")
	ts.get(ts.create("x").Raw)
	ts.get("/nothing")
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(ts.get("/metrics").want(200, "").body)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestMetricsAllow: to all others the route is not there.
func TestMetricsAllow(t *testing.T) {
	for _, c := range []struct {
		allow   string
		env     []string
		headers []string
		status  int
	}{
		{"", nil, nil, 404}, {"127.0.0.0/8", nil, nil, 200}, {"10.0.0.0/8", nil, nil, 404},
		{"192.0.2.0/24", nil, []string{addrLine}, 404}, // a stranger's header
		{"192.0.2.0/24", proxied, from("192.0.2.1"), 200}, {"192.0.2.0/24", proxied, from("198.51.100.1"), 404},
		{"127.0.0.1", proxied, []string{secretLine}, 404}, // a proxy that names nobody is no client
		{"any", proxied, []string{secretLine, "X-Forwarded-For: junk"}, 404},
		{"127.0.0.1", proxied, nil, 200}, // but without its secret it is a peer
		{"any", proxied, from("198.51.100.1"), 200},
	} {
		ts := start(t, append(slices.Clone(c.env), "METRICS_ALLOW="+c.allow)...)
		a := ts.get("/metrics", append(c.headers, "X-Request-ID: same")...).want(c.status, "")
		other := ts.get("/nothing", append(c.headers, "X-Request-ID: same")...)
		if c.status == 404 && a.body != other.body {
			t.Errorf("%q, %s: %s, another 404: %s", c.allow, c.headers, a.body, other.body)
		}
	}
}

// ---- the client ----

// TestClientRoute: the program that runs, though its file has another content by now.
func TestClientRoute(t *testing.T) {
	exe, dir := must(os.ReadFile(must(os.Executable()))), t.TempDir()
	path, socket := filepath.Join(dir, "copy"), filepath.Join(dir, "s")
	if err := os.WriteFile(path, exe, 0o700); err != nil {
		t.Fatal(err)
	}
	var cmd *exec.Cmd
	for err := error(syscall.ETXTBSY); errors.Is(err, syscall.ETXTBSY); { // another test's fork may hold the copy
		cmd = program(dir, environment([]string{"LISTEN=unix:" + socket}), "serve")
		cmd.Path = path
		if err = cmd.Start(); err != nil && !errors.Is(err, syscall.ETXTBSY) {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if err := os.Rename(path, path+".old"); err != nil || os.WriteFile(path, []byte("another"), 0o700) != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }}}
	ask := func(method, header string) (*http.Response, string) {
		req := must(http.NewRequest(method, "http://localhost/client", nil))
		name, v, _ := strings.Cut(header, ": ")
		req.Header.Set(name, v)
		res, err := client.Do(req)
		for try := 0; err != nil && try < 1000; try++ { // until it listens
			time.Sleep(10 * time.Millisecond)
			res, err = client.Do(req)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res, string(must(io.ReadAll(res.Body)))
	}
	sum, size := sum256(string(exe)), len(exe)
	tag := `"` + sum + `"`
	for _, c := range []struct {
		method, header string
		status         int
		body           string
	}{
		{"GET", "X-Y: z", 200, string(exe)}, {"HEAD", "X-Y: z", 200, ""}, {"GET", "Range: bytes=0-3", 206, "\x7fELF"},
		{"GET", fmt.Sprintf("Range: bytes=%d-", size-10), 206, string(exe[size-10:])},
		{"GET", "If-None-Match: " + tag, 304, ""}, {"GET", "If-Match: " + tag, 200, string(exe)},
		{"GET", `If-Match: "x"`, 412, ""},
	} {
		res, body := ask(c.method, c.header)
		if res.StatusCode != c.status || c.status < 400 && (body != c.body || res.Header.Get("ETag") != tag) {
			t.Errorf("%s, %s: %d, %d bytes, %v", c.method, c.header, res.StatusCode, len(body), res.Header)
		}
		if h := res.Header; c.status == 200 && (h.Get("X-Checksum-SHA256") != sum ||
			h.Get("Content-Disposition") != `attachment; filename="fpaste"` ||
			h.Get("Content-Type") != "application/octet-stream" || h.Get("Cache-Control") != "public, no-cache" ||
			res.ContentLength != int64(size)) {
			t.Errorf("%s: %v", c.method, h)
		}
	}
}

// TestRoutes: each line of the table is reached, and nothing else is.
func TestRoutes(t *testing.T) {
	ts := behindProxy(t, "METRICS_ALLOW=any", "PKI_ENABLED=1", "PKI_CA_PASSWORD=correct horse battery",
		"REGISTRATION=open").certified()
	seen := map[string]bool{}
	for i, r := range routes() {
		method, path, _ := strings.Cut(r.pattern, " ")
		path = strings.NewReplacer("/s/{id}", "/s/00000000", "{id}", "0123456789abcdef", "{name}", "x.txt", "{serial}",
			"00").Replace(spelled.Replace(path))
		body := map[bool]io.Reader{true: strings.NewReader("x")}[method == "POST" || method == "PUT"]
		ts.clock.advance(time.Second) // a refusal with a line of its own
		id := fmt.Sprint("route-", i)
		a := ts.do(method, path, body, withCert(certOfAdmin, "X-Forwarded-For: 192.0.2.1", "X-Request-ID: "+id)...)
		got := strings.Trim(ts.logged(id, "route"), `"`)
		if a.StatusCode == 405 || a.StatusCode >= 500 || got != method ||
			!strings.Contains(ts.logs.String(), `route="`+r.pattern+`"`) {
			t.Errorf("%s: %d, %s", r.pattern, a.StatusCode, a.body)
		}
		if r.who == "" || r.does == "" || seen[r.pattern] || strings.HasPrefix(r.pattern, "HEAD") {
			t.Errorf("the line %+v", r)
		}
		seen[r.pattern] = true
		a = ts.do("PATCH", path, nil, from("192.0.2.1")...).want(405, "method_not_allowed")
		if !strings.Contains(a.Header.Get("Allow"), method) {
			t.Errorf("%s: Allow %q", path, a.Header.Get("Allow"))
		}
	}
	if _, err := newServer(nil, nil, nil, nil); err == nil {
		t.Error("a server without its parts")
	}
}
