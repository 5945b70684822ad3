package main

// Metrics as a scraper sees them: the text format by a strict reader of its own, labels that no stranger can choose, who may
// read, counters that move with what happened and with nothing else; and that alerts, dashboard and README speak of
// metrics that exist.

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// ---- a strict reader of text format 0.0.4 ----

// promFamily is one metric with all its series, keyed by name and labels as written.
type promFamily struct {
	kind, help string
	samples    map[string]float64
	labels     []map[string]string // of each sample, in order
}

var promSample = regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_]*)(?:\{(.*)\})? (\S+)$`)

// readExposition takes what Prometheus would take and more: HELP and TYPE before each family, families in one piece, no series
// twice, no empty line, ASCII; counters end in _total, histograms are complete and cumulative.
func readExposition(text string) (map[string]*promFamily, error) {
	if !strings.HasSuffix(text, "\n") {
		return nil, fmt.Errorf("the last line has no end")
	}
	families := map[string]*promFamily{}
	var name string
	var f *promFamily
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) || line == "" || line != strings.TrimSpace(line) {
			return nil, fmt.Errorf("line %d: %q", i+1, line)
		}
		if help, ok := strings.CutPrefix(line, "# HELP "); ok {
			if i+1 == len(lines) {
				return nil, fmt.Errorf("HELP without TYPE: %q", line)
			}
			i++
			kind, ok := strings.CutPrefix(lines[i], "# TYPE ")
			name, help, _ = strings.Cut(help, " ")
			typed, kind, _ := strings.Cut(kind, " ")
			if !ok || typed != name || families[name] != nil || help == "" || strings.Contains(help, `\`) || !slices.Contains([]string{"counter", "gauge", "histogram"}, kind) {
				return nil, fmt.Errorf("bad or repeated family: %q, %q", line, lines[i])
			}
			f = &promFamily{kind: kind, help: help, samples: map[string]float64{}}
			families[name] = f
			continue
		}
		m := promSample.FindStringSubmatch(line)
		if m == nil || f == nil {
			return nil, fmt.Errorf("line %d is no sample: %q", i+1, line)
		}
		if base := strings.TrimPrefix(m[1], name); base != "" && !(f.kind == "histogram" && slices.Contains([]string{"_bucket", "_sum", "_count"}, base)) || f.kind == "histogram" && base == "" {
			return nil, fmt.Errorf("%q stands under %s %s", line, f.kind, name)
		}
		labels, err := readLabels(m[2])
		if err != nil || strings.HasPrefix(line, m[1]+"{}") {
			return nil, fmt.Errorf("labels of %q: %w", line, err)
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || f.kind != "gauge" && v < 0 {
			return nil, fmt.Errorf("value of %q", line)
		}
		key := strings.TrimSuffix(line, " "+m[3])
		if _, twice := f.samples[key]; twice {
			return nil, fmt.Errorf("%q comes twice", key)
		}
		labels["__name__"] = m[1]
		f.samples[key], f.labels = v, append(f.labels, labels)
	}
	for name, f := range families {
		if (f.kind == "counter") != strings.HasSuffix(name, "_total") {
			return nil, fmt.Errorf("%s is a %s", name, f.kind)
		}
		if f.kind == "histogram" {
			if err := checkHistogram(name, f); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return families, nil
}

// readLabels reads name="value" pairs with the three escapes of the format.
func readLabels(s string) (map[string]string, error) {
	labels := map[string]string{}
	for s != "" {
		name, rest, ok := strings.Cut(s, `="`)
		if !ok || !regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_]*$`).MatchString(name) {
			return nil, fmt.Errorf("no label at %q", s)
		}
		var v strings.Builder
		closed := false
		for i := 0; i < len(rest) && !closed; i++ {
			switch c := rest[i]; {
			case c == '"':
				rest, closed = rest[i+1:], true
			case c == '\\':
				if i++; i == len(rest) || !strings.ContainsRune(`\"n`, rune(rest[i])) {
					return nil, fmt.Errorf("bad escape in %q", s)
				}
				v.WriteByte(rest[i])
			default:
				v.WriteByte(c)
			}
		}
		if _, twice := labels[name]; twice || !closed {
			return nil, fmt.Errorf("label %s of %q", name, s)
		}
		labels[name] = v.String()
		if rest != "" {
			if s, ok = strings.CutPrefix(rest, ","); !ok || s == "" {
				return nil, fmt.Errorf("behind label %s: %q", name, rest)
			}
			continue
		}
		s = ""
	}
	return labels, nil
}

func checkHistogram(name string, f *promFamily) error {
	type state struct {
		bound, last float64
		count, sum  float64
		parts       int
	}
	states := map[string]*state{}
	for _, labels := range f.labels {
		key := seriesKey(labels)
		v := f.samples[key]
		kind, le := strings.TrimPrefix(labels["__name__"], name), labels["le"]
		rest := maps.Clone(labels)
		delete(rest, "le")
		delete(rest, "__name__")
		id := fmt.Sprint(rest)
		s := states[id]
		if s == nil {
			s = &state{bound: math.Inf(-1), count: -1, sum: -1}
			states[id] = s
		}
		switch kind {
		case "_bucket":
			bound, err := strconv.ParseFloat(le, 64)
			if err != nil || bound <= s.bound || v < s.last || s.count >= 0 {
				return fmt.Errorf("%s: bucket out of order", key)
			}
			s.bound, s.last = bound, v
			s.parts++
		case "_sum":
			s.sum = v
		case "_count":
			s.count = v
		}
		if kind != "_bucket" && le != "" {
			return fmt.Errorf("%s has a bound", key)
		}
	}
	for id, s := range states {
		if !math.IsInf(s.bound, 1) || s.count != s.last || s.sum < 0 || s.parts < 2 {
			return fmt.Errorf("%s is incomplete: %+v", id, s)
		}
	}
	return nil
}

// seriesKey is a series as our exposition writes it: labels in the order of metrics.go.
func seriesKey(labels map[string]string) string {
	var parts []string
	for _, name := range []string{"route", "method", "status", "reason", "event", "result", "version", "go", "le"} {
		if v, ok := labels[name]; ok {
			parts = append(parts, name+`="`+v+`"`)
		}
	}
	if len(parts) == 0 {
		return labels["__name__"]
	}
	return labels["__name__"] + "{" + strings.Join(parts, ",") + "}"
}

// TestReadExposition: the reader above refuses what it must.
func TestReadExposition(t *testing.T) {
	const head = "# HELP a_total Help.\n# TYPE a_total counter\n"
	const hist = "# HELP h Help.\n# TYPE h histogram\n"
	if _, err := readExposition(head + "a_total{route=\"a\\\"b\\\\c\\n\"} 1\n" + hist + "h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n"); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"no newline": head + "a_total 1", "empty line": head + "\na_total 1\n", "no family": "a 1\n", "no TYPE": "# HELP a_total Help.\na_total 1\n", "foreign sample": head + "b_total 1\n", "twice": head + "a_total 1\na_total 2\n",
		"family twice": head + "a_total 1\n" + head, "NaN": head + "a_total NaN\n", "negative": head + "a_total -1\n", "no value": head + "a_total\n", "empty braces": head + "a_total{} 1\n", "trailing comma": head + "a_total{x=\"y\",} 1\n",
		"open label": head + "a_total{x=\"y} 1\n", "escape": head + "a_total{x=\"\\t\"} 1\n", "label twice": head + "a_total{x=\"y\",x=\"z\"} 1\n", "carriage return": head + "a_total 1\r\n", "timestamp": head + "a_total 1 1\n",
		"counter's name": "# HELP a Help.\n# TYPE a counter\na 1\n", "no +Inf": hist + "h_bucket{le=\"1\"} 1\nh_sum 3\nh_count 1\n", "not cumulative": hist + "h_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_sum 3\nh_count 1\n",
		"bounds": hist + "h_bucket{le=\"2\"} 1\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 3\nh_count 1\n", "count": hist + "h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 3\nh_count 2\n", "no sum": hist + "h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_count 1\n",
	} {
		if _, err := readExposition(text); err == nil {
			t.Errorf("%s was taken: %q", name, text)
		}
	}
}

// scrape reads /metrics and flattens it to series.
func (ts *testServer) scrape(headers ...string) map[string]float64 {
	ts.t.Helper()
	families, err := readExposition(ts.get("/metrics", headers...).want(200, "").body)
	if err != nil {
		ts.t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		maps.Copy(all, f.samples)
	}
	return all
}

// ---- the text ----

// someTraffic makes a server answer a bit of everything.
func someTraffic(ts *testServer) {
	c := ts.create("hello", "X-Expiry: 1h")
	ts.get(c.Raw).want(200, "")
	ts.get(c.Raw, "Range: bytes=0-1").want(206, "")
	ts.do("HEAD", c.Raw, nil).want(200, "")
	ts.get("/nowhere").want(404, "")
	ts.do("PATCH", "/", nil).want(405, "")
	ts.short("https://example.org/")
	ts.get("/health").want(200, "")
	ts.get("/challenge").want(200, "")
	ts.get("/metrics").want(200, "")
}

func TestMetricsExposition(t *testing.T) {
	ts := start(t, "METRICS_ALLOW=127.0.0.1")
	if _, err := readExposition(ts.get("/metrics").want(200, "").body); err != nil {
		t.Errorf("at the start: %v", err)
	}
	someTraffic(ts)
	a := ts.get("/metrics").want(200, "")
	if a.Header.Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Content-Length") != strconv.Itoa(len(a.body)) {
		t.Errorf("headers %v", a.Header)
	}
	families, err := readExposition(a.body)
	if err != nil {
		t.Fatal(err)
	}
	// What the issue of this file asks for is there, and says something.
	for name, least := range map[string]float64{"flaskpaste_requests_total": 1, "flaskpaste_request_duration_seconds": 1, "flaskpaste_request_bytes_total": 5, "flaskpaste_response_bytes_total": 5, "flaskpaste_refusals_total": 1, "flaskpaste_pastes_total": 1,
		"flaskpaste_short_urls_total": 1, "flaskpaste_pow_total": 0, "flaskpaste_pow_difficulty": 0, "flaskpaste_limiter_entries": 0, "flaskpaste_writer_queue_length": 0, "flaskpaste_commit_operations": 1, "flaskpaste_commit_duration_seconds": 1,
		"flaskpaste_cache_requests_total": 1, "flaskpaste_cache_bytes": 1000, "flaskpaste_stored_pastes": 1, "flaskpaste_stored_bytes": 5, "flaskpaste_storage_limit_bytes": 1 << 30, "flaskpaste_disk_free_bytes": 1 << 20, "flaskpaste_oldest_expired_seconds": 0,
		"flaskpaste_build_info": 1, "flaskpaste_uploads": 0, "flaskpaste_downloads": 0, "flaskpaste_ignored_headers_total": 0, "process_start_time_seconds": 1.7e9, "process_resident_memory_bytes": 1 << 20, "process_cpu_seconds_total": 0.001, "process_open_fds": 4, "go_goroutines": 2} {
		f := families[name]
		if f == nil {
			t.Errorf("there is no %s", name)
			continue
		}
		most := -1.0
		for _, v := range f.samples {
			most = max(most, v)
		}
		if most < least {
			t.Errorf("%s is %g at most, want %g", name, most, least)
		}
	}
	if head := ts.do("HEAD", "/metrics", nil).want(200, ""); head.body != "" || head.Header.Get("Content-Type") != a.Header.Get("Content-Type") {
		t.Errorf("HEAD: %v", head.Header)
	}
}

// TestMetricsPromtool lets Prometheus's own linter read it.
func TestMetricsPromtool(t *testing.T) {
	promtool := need(t, "promtool")
	ts := start(t, "METRICS_ALLOW=127.0.0.1")
	someTraffic(ts)
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(ts.get("/metrics").want(200, "").body)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// ---- labels ----

// TestMetricsClosedLabels: whatever strangers send, the series are those of metrics.go.
func TestMetricsClosedLabels(t *testing.T) {
	ts := start(t, "METRICS_ALLOW=127.0.0.1")
	c := dialServer(t, ts)
	in := bufio.NewReader(c)
	methods := []string{"GET", "get", "EVIL", "PROPFIND", "M-SEARCH", "CONNECT", "TRACE", "OPTIONS", "other", "none", "!#$%&'*+-.^_`|~EVIL", strings.Repeat("EVIL", 1000)}
	paths := []string{`/evil"}%20999`, "/evil%0aflaskpaste_evil%201", "/evil%0d%0a", "/{id}", "/{$}", "/none", "/%00evil", "/evil/raw", "/s/evilevil", "/s/evilevil/info", "/" + strings.Repeat("evil", 1500), "/?evil=%22", "/pastes?evil", "/EVIL//evil/../..", "//evil",
		"/metrics/evil", "/evil;a=b", "/evil\u00e9"}
	n := 0
	for _, method := range methods {
		for _, path := range paths {
			fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: evil\r\nX-Request-ID: evil-%d\r\nUser-Agent: evil\"\r\n\r\n", method, path, n)
			res, err := http.ReadResponse(in, &http.Request{Method: method})
			if err != nil {
				t.Fatalf("%.40q %.40q: %v", method, path, err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if n++; res.Close {
				c = dialServer(t, ts)
				in = bufio.NewReader(c)
			}
		}
	}
	var text string
	for range 500 { // the last one is recorded after its answer
		text = ts.get("/metrics").want(200, "").body
		if requestsOf(t, text)-requestsTo(t, text, "GET /metrics") >= float64(n) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	families, err := readExposition(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := requestsOf(t, text) - requestsTo(t, text, "GET /metrics"); got != float64(n) {
		t.Errorf("%g requests were counted, %d sent", got, n)
	}
	if i := strings.Index(strings.ToLower(text), "evil"); i >= 0 {
		t.Errorf("a stranger wrote %q", text[max(0, i-100):min(len(text), i+100)])
	}
	closed := closedLabels(ts)
	series := 0
	for name, f := range families {
		for _, labels := range f.labels {
			series++
			for label, v := range labels {
				if label != "__name__" && !slices.Contains(closed[label], v) {
					t.Errorf("%s has the label %s=%q", name, label, v)
				}
			}
		}
	}
	if most := len(ts.table)*len(metricMethods)*3 + 2000; series > most {
		t.Errorf("%d series", series)
	}
	if v := families["flaskpaste_requests_total"].samples[`flaskpaste_requests_total{route="none",method="other",status="405"}`]; v == 0 {
		t.Error("methods of a stranger's own are not among the others")
	}
}

func requestsOf(t testing.TB, text string) float64 { return requestsTo(t, text, "") }

// requestsTo adds up flaskpaste_requests_total, of one route if it is given.
func requestsTo(t testing.TB, text, route string) (n float64) {
	t.Helper()
	families, err := readExposition(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, labels := range families["flaskpaste_requests_total"].labels {
		if route == "" || labels["route"] == route {
			n += families["flaskpaste_requests_total"].samples[seriesKey(labels)]
		}
	}
	return n
}

// closedLabels are all values that a label may have.
func closedLabels(ts *testServer) map[string][]string {
	closed := map[string][]string{"route": {"none"}, "method": metricMethods, "reason": metricReasons, "event": {"created", "read", "burned", "expired", "deleted", "issued", "solved", "failed"},
		"result": {"hit", "miss"}, "version": {version}, "go": {ts.goVersion()}, "status": {"other"}, "le": {"+Inf"}}
	for _, r := range ts.table {
		closed["route"] = append(closed["route"], r.pattern)
	}
	for _, s := range metricStatuses[:len(metricStatuses)-1] {
		closed["status"] = append(closed["status"], strconv.Itoa(s))
	}
	for _, b := range append(slices.Clone(durationBounds), groupBounds...) {
		closed["le"] = append(closed["le"], strconv.FormatFloat(b, 'g', -1, 64))
	}
	return closed
}

// goVersion is the label of build_info.
func (ts *testServer) goVersion() string {
	_, v, _ := strings.Cut(ts.get("/metrics").body, `,go="`)
	v, _, _ = strings.Cut(v, `"`)
	if !strings.HasPrefix(v, "go1.") && !strings.HasPrefix(v, "devel") {
		ts.t.Errorf("go version %q", v)
	}
	return v
}

// TestMetricsRecordAnything: what is on no list counts as other, and nothing panics.
func TestMetricsRecordAnything(t *testing.T) {
	m := newMetrics([]string{"GET /x"}, time.Now())
	for i, status := range []int{-1, 0, 99, 204, 418, 599, 1000, math.MaxInt} {
		m.request(i%2, "BREW\n\"", status, "evil\n\"", time.Duration(i)*time.Hour, 1, 2)
	}
	m.request(0, "GET", 404, "not_found", 0, 0, 0)
	e := new(exposition)
	m.write(e)
	families, err := readExposition(e.String())
	if err != nil {
		t.Fatal(err)
	}
	requests := families["flaskpaste_requests_total"].samples
	if len(requests) != 3 || requests[`flaskpaste_requests_total{route="none",method="other",status="other"}`] != 4 || requests[`flaskpaste_requests_total{route="GET /x",method="other",status="other"}`] != 4 ||
		requests[`flaskpaste_requests_total{route="GET /x",method="GET",status="404"}`] != 1 {
		t.Errorf("requests %v", requests)
	}
	if v := families["flaskpaste_refusals_total"].samples; v[`flaskpaste_refusals_total{reason="other"}`] != 8 || v[`flaskpaste_refusals_total{reason="not_found"}`] != 1 {
		t.Errorf("refusals %v", v)
	}
}

// TestMetricsKnowEveryCode reads the source: each code and status of an answer has its label, so none is lost in "other".
func TestMetricsKnowEveryCode(t *testing.T) {
	if last := len(metricReasons) - 1; !slices.IsSorted(metricReasons[:last]) || metricReasons[last] != "other" {
		t.Error("metricReasons is not in order: the search would miss some")
	}
	codes, statuses := map[string]string{}, map[int]string{200: "ServeContent", 206: "ServeContent", 304: "ServeContent", 416: "ServeContent"}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	named := func(e ast.Expr, name string) bool {
		switch e := e.(type) {
		case *ast.Ident:
			return e.Name == name
		case *ast.SelectorExpr:
			return e.Sel.Name == name
		}
		return false
	}
	for _, file := range files {
		// client.go and cli.go answer nobody; their codes are the exit's.
		if strings.HasSuffix(file, "_test.go") || file == "client.go" || file == "cli.go" {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		note := func(key, value ast.Expr) {
			lit, ok := value.(*ast.BasicLit)
			if ok && lit.Kind == token.STRING && named(key, "code") {
				if v, err := strconv.Unquote(lit.Value); err == nil && v != "" {
					codes[v] = file
				}
			}
			if ok && lit.Kind == token.INT && named(key, "status") {
				if n, err := strconv.Atoi(lit.Value); err == nil {
					statuses[n] = file
				}
			}
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				note(n.Key, n.Value)
			case *ast.AssignStmt:
				for i := range n.Lhs {
					if len(n.Rhs) == len(n.Lhs) {
						note(n.Lhs[i], n.Rhs[i])
					}
				}
			case *ast.CallExpr:
				if len(n.Args) > 0 && (named(n.Fun, "writeJSON") || named(n.Fun, "writeBytes") || named(n.Fun, "WriteHeader")) {
					note(ast.NewIdent("status"), n.Args[0])
				}
			}
			return true
		})
	}
	if len(codes) < 30 || len(statuses) < 15 {
		t.Fatalf("found only %v and %v", codes, statuses)
	}
	for code, file := range codes {
		if !slices.Contains(metricReasons, code) {
			t.Errorf("the code %s of %s is not in metricReasons", code, file)
		}
	}
	for status, file := range statuses {
		if status != 0 && !slices.Contains(metricStatuses, status) {
			t.Errorf("the status %d of %s is not in metricStatuses", status, file)
		}
	}
	for _, reason := range metricReasons[:len(metricReasons)-1] {
		if codes[reason] == "" {
			t.Errorf("no answer has the code %s", reason)
		}
	}
}

// ---- who may read ----

func TestMetricsAllow(t *testing.T) {
	proxy := func(headers ...string) []string {
		return append([]string{"X-Proxy-Secret: secret-of-the-short-tests"}, headers...)
	}
	for name, c := range map[string]struct {
		env     []string
		headers []string
		allowed bool
	}{
		"nobody by default":                  {nil, nil, false},
		"any":                                {[]string{"METRICS_ALLOW=any"}, nil, true},
		"its address":                        {[]string{"METRICS_ALLOW=127.0.0.1"}, nil, true},
		"its range among others":             {[]string{"METRICS_ALLOW=2001:db8::/32, 127.0.0.0/8"}, nil, true},
		"another range":                      {[]string{"METRICS_ALLOW=10.0.0.0/8,::1"}, nil, false},
		"mapped range":                       {[]string{"METRICS_ALLOW=127.0.0.1/32"}, nil, true},
		"a stranger's header":                {[]string{"METRICS_ALLOW=10.0.0.1"}, []string{"X-Forwarded-For: 10.0.0.1"}, false},
		"a stranger's other headers":         {[]string{"METRICS_ALLOW=10.0.0.1"}, []string{"X-Real-IP: 10.0.0.1", "Forwarded: for=10.0.0.1", "X-Client-IP: 10.0.0.1"}, false},
		"a stranger's harmless header":       {[]string{"METRICS_ALLOW=127.0.0.1"}, []string{"X-Forwarded-For: 10.0.0.1"}, true},
		"through the proxy":                  {append([]string{"METRICS_ALLOW=10.0.0.1"}, behindProxy...), proxy("X-Forwarded-For: 10.0.0.1"), true},
		"through the proxy, another":         {append([]string{"METRICS_ALLOW=10.0.0.1"}, behindProxy...), proxy("X-Forwarded-For: 10.0.0.2"), false},
		"through the proxy, lied":            {append([]string{"METRICS_ALLOW=10.0.0.1"}, behindProxy...), proxy("X-Forwarded-For: 10.0.0.1, 203.0.113.1"), false},
		"through the proxy, mapped":          {append([]string{"METRICS_ALLOW=10.0.0.1"}, behindProxy...), proxy("X-Forwarded-For: ::ffff:10.0.0.1"), true},
		"the proxy says nothing":             {append([]string{"METRICS_ALLOW=127.0.0.1"}, behindProxy...), proxy(), false},
		"the proxy says nothing, any":        {append([]string{"METRICS_ALLOW=any"}, behindProxy...), proxy(), false},
		"the proxy says an empty word":       {append([]string{"METRICS_ALLOW=127.0.0.1"}, behindProxy...), proxy("X-Forwarded-For: "), false},
		"the proxy says an empty word, any":  {append([]string{"METRICS_ALLOW=any"}, behindProxy...), proxy("X-Forwarded-For: "), false},
		"the proxy says nonsense":            {append([]string{"METRICS_ALLOW=127.0.0.1"}, behindProxy...), proxy("X-Forwarded-For: unix:"), false},
		"the proxy says nonsense at the end": {append([]string{"METRICS_ALLOW=127.0.0.1"}, behindProxy...), proxy("X-Forwarded-For: 127.0.0.1, unknown"), false},
		"the proxy says its own address":     {append([]string{"METRICS_ALLOW=127.0.0.1"}, behindProxy...), proxy("X-Forwarded-For: 127.0.0.1"), true},
		"the proxy without its secret":       {append([]string{"METRICS_ALLOW=10.0.0.1"}, behindProxy...), []string{"X-Forwarded-For: 10.0.0.1"}, false},
		"any, a client of the proxy":         {append([]string{"METRICS_ALLOW=any"}, behindProxy...), proxy("X-Forwarded-For: 203.0.113.1"), true},
	} {
		t.Run(name, func(t *testing.T) {
			ts := start(t, c.env...)
			a := ts.get("/metrics", append(c.headers, "X-Request-ID: same")...)
			if c.allowed {
				a.want(200, "")
				return
			}
			a.want(404, "not_found")
			common := ts.get("/nowhere", append(c.headers, "X-Request-ID: same")...)
			a.Header.Del("Date")
			common.Header.Del("Date")
			if a.body != common.body || !maps.EqualFunc(a.Header, common.Header, slices.Equal[[]string]) {
				t.Errorf("it is not the common 404: %v %s", a.Header, a.body)
			}
		})
	}
	for _, list := range []string{"all", "*", "Any", "any,127.0.0.1", "10.0.0.1/8", "::ffff:10.0.0.0/104", "localhost", "10.0.0", "fe80::1%eth0"} {
		if _, err := loadConfig([]string{"FLASKPASTE_METRICS_ALLOW=" + list}); err == nil {
			t.Errorf("the list %q was taken", list)
		}
	}
}

// TestMetricsUnixSocket: who comes through a socket of ours is a trusted peer, and says who asks or gets nothing.
func TestMetricsUnixSocket(t *testing.T) {
	ts := start(t, "METRICS_ALLOW=any")
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go ts.http.Serve(l)
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	defer c.CloseIdleConnections()
	for header, want := range map[string]int{"": 404, "203.0.113.1": 200, "garbage": 404} {
		req, err := http.NewRequest("GET", "http://x/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		if header != "" {
			req.Header.Set("X-Forwarded-For", header)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("X-Forwarded-For %q: status %d, want %d", header, res.StatusCode, want)
		}
	}
}

// ---- what moves ----

// moves runs f and wants exactly these series to have changed by these amounts; those of the scrape itself and of the process
// do not count.
func (ts *testServer) moves(what string, f func(), want map[string]float64) {
	ts.t.Helper()
	own := regexp.MustCompile(`GET /metrics|^process_|^go_|_bytes_total$|duration_seconds|^flaskpaste_(commit|writer|disk_free|cache|limiter|oldest|uploads|downloads)|reason="other"`)
	before := ts.scrape()
	f()
	var changed map[string]float64
	for range 1000 { // a request is recorded when its answer is out
		changed = map[string]float64{}
		for key, v := range ts.scrape() {
			if d := v - before[key]; d != 0 && (!own.MatchString(key) || want[key] != 0) {
				changed[key] = d
			}
		}
		if maps.Equal(changed, want) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	ts.t.Errorf("%s: changed %v, want %v", what, changed, want)
}

func requestSeries(route, method, status string) string {
	return `flaskpaste_requests_total{route="` + route + `",method="` + method + `",status="` + status + `"}`
}

func TestMetricsMove(t *testing.T) {
	ts := start(t, "METRICS_ALLOW=127.0.0.1", "SWEEP=1h", "DEDUP_MAX=2", "DEDUP_ALL=100")
	paste := func(event string) string { return `flaskpaste_pastes_total{event="` + event + `"}` }
	short := func(event string) string { return `flaskpaste_short_urls_total{event="` + event + `"}` }
	refused := func(reason string) string { return `flaskpaste_refusals_total{reason="` + reason + `"}` }
	const stored, bytes = "flaskpaste_stored_pastes", "flaskpaste_stored_bytes"
	var c, burning created
	var s shortened
	ts.moves("a paste", func() { c = ts.create("hello") }, map[string]float64{requestSeries("POST /{$}", "POST", "201"): 1, paste("created"): 1, stored: 1, bytes: 5})
	ts.moves("metadata", func() { ts.get(c.URL) }, map[string]float64{requestSeries("GET /{id}", "GET", "200"): 1})
	ts.moves("a read", func() { ts.get(c.Raw) }, map[string]float64{requestSeries("GET /{id}/{view}", "GET", "200"): 1, paste("read"): 1, `flaskpaste_cache_requests_total{result="hit"}`: 1})
	ts.moves("HEAD", func() { ts.do("HEAD", c.Raw, nil) }, map[string]float64{requestSeries("GET /{id}/{view}", "HEAD", "200"): 1})
	ts.moves("a range", func() { ts.get(c.Raw, "Range: bytes=1-2") }, map[string]float64{requestSeries("GET /{id}/{view}", "GET", "206"): 1, paste("read"): 1})
	ts.moves("not modified", func() { ts.get(c.Raw, `If-None-Match: "`+c.SHA256+`"`) }, map[string]float64{requestSeries("GET /{id}/{view}", "GET", "304"): 1})
	ts.moves("an unsatisfiable range", func() { ts.get(c.Raw, "Range: bytes=9-") }, map[string]float64{requestSeries("GET /{id}/{view}", "GET", "416"): 1})
	ts.moves("a change", func() {
		ts.do("PUT", c.URL, strings.NewReader("hello, world"), "X-Delete-Token: "+c.DeleteToken).want(200, "")
	},
		map[string]float64{requestSeries("PUT /{name}", "PUT", "200"): 1, bytes: 7})
	ts.moves("a deletion", func() { ts.do("DELETE", c.URL, nil, "X-Delete-Token: "+c.DeleteToken).want(200, "") },
		map[string]float64{requestSeries("DELETE /{id}", "DELETE", "200"): 1, paste("deleted"): 1, stored: -1, bytes: -12})
	ts.moves("a miss", func() { ts.get(c.Raw) }, map[string]float64{requestSeries("GET /{id}/{view}", "GET", "404"): 1, refused("not_found"): 1})
	ts.moves("no route", func() { ts.get("/a/b/c") }, map[string]float64{requestSeries("none", "GET", "404"): 1, refused("not_found"): 1})
	ts.moves("no method", func() { ts.do("BREW", "/", nil) }, map[string]float64{requestSeries("none", "other", "405"): 1, refused("method_not_allowed"): 1})
	ts.moves("an empty one", func() { ts.post("") }, map[string]float64{requestSeries("POST /{$}", "POST", "400"): 1, refused("empty_content"): 1})
	ts.moves("a burning one", func() { burning = ts.create("secret", "X-Burn-After-Read: true") }, map[string]float64{requestSeries("POST /{$}", "POST", "201"): 1, paste("created"): 1, stored: 1, bytes: 6})
	ts.moves("a preview", func() { ts.get(burning.Raw, "User-Agent: Slackbot") }, map[string]float64{requestSeries("GET /{id}/{view}", "GET", "403"): 1, refused("preview_refused"): 1})
	ts.moves("burned", func() { ts.get(burning.Raw).want(200, "") }, map[string]float64{requestSeries("GET /{id}/{view}", "GET", "200"): 1, paste("burned"): 1, paste("read"): 1, stored: -1, bytes: -6})
	ts.moves("a short URL", func() { s = ts.short("https://example.org/") }, map[string]float64{requestSeries("POST /s", "POST", "201"): 1, short("created"): 1, bytes: 20})
	ts.moves("followed", func() { ts.get("/s/" + s.ID) }, map[string]float64{requestSeries("GET /s/{id}", "GET", "302"): 1, short("read"): 1})
	ts.moves("shown", func() { ts.get("/s/" + s.ID + "/info") }, map[string]float64{requestSeries("GET /s/{id}/{view}", "GET", "200"): 1})
	ts.moves("a bad target", func() { ts.shorten("ftp://example.org/") }, map[string]float64{requestSeries("POST /s", "POST", "400"): 1, refused("bad_url"): 1})
	ts.moves("deleted", func() { ts.do("DELETE", "/s/"+s.ID, nil, "X-Delete-Token: "+s.DeleteToken).want(200, "") },
		map[string]float64{requestSeries("DELETE /s/{id}", "DELETE", "200"): 1, short("deleted"): 1, bytes: -20})
	ts.moves("a duplicate", func() { ts.create("same"); ts.create("same"); ts.post("same").want(429, "") },
		map[string]float64{requestSeries("POST /{$}", "POST", "201"): 2, requestSeries("POST /{$}", "POST", "429"): 1, refused("duplicate_content"): 1, paste("created"): 2, stored: 2, bytes: 8})
	ts.moves("a stranger's header", func() { ts.get("/health", "X-Forwarded-For: 10.0.0.1") }, map[string]float64{requestSeries("GET /health", "GET", "200"): 1, "flaskpaste_ignored_headers_total": 1})
	ts.moves("nothing", func() {}, map[string]float64{})
}

// TestMetricsBytes: bodies, and nothing but bodies.
func TestMetricsBytes(t *testing.T) {
	ts := start(t)
	in, out := ts.metrics.requestBytes.Load(), ts.metrics.answerBytes.Load()
	content := strings.Repeat("0123456789abcdef", 40_000) // more than one chunk
	c := ts.create(content)
	ts.get(c.Raw).want(200, "")
	made := ts.get(c.URL).want(200, "")
	ts.do("HEAD", c.Raw, nil).want(200, "")
	want := uint64(len(content)) + uint64(len(made.body))
	for range 500 {
		if ts.metrics.answerBytes.Load()-out >= want+200 { // the 201 too
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	got := ts.metrics.answerBytes.Load() - out
	if first := got - want; got < want || first < 200 || first > 1000 { // the 201's JSON
		t.Errorf("%d bytes were sent by count, want %d and the 201", got, want)
	}
	if got := ts.metrics.requestBytes.Load() - in; got != uint64(len(content)) {
		t.Errorf("%d bytes came in by count, %d by truth", got, len(content))
	}
}

func TestMetricsWork(t *testing.T) {
	ts := start(t, "METRICS_ALLOW=127.0.0.1", "POW_DIFFICULTY=4", "POW_FREE=0")
	event := func(name string) string { return `flaskpaste_pow_total{event="` + name + `"}` }
	refused := func(reason string) string { return `flaskpaste_refusals_total{reason="` + reason + `"}` }
	if v := ts.scrape()["flaskpaste_pow_difficulty"]; v != 4 {
		t.Errorf("difficulty %g", v)
	}
	var proof []string
	ts.moves("a challenge", func() {
		a := ts.get("/challenge").want(200, "")
		n, err := solve(context.Background(), a.field("nonce"), 4, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		proof = []string{"X-PoW-Token: " + a.field("token"), "X-PoW-Solution: " + n}
	}, map[string]float64{requestSeries("GET /challenge", "GET", "200"): 1, event("issued"): 1})
	ts.moves("no work", func() { ts.post("x").want(400, "pow_required") }, map[string]float64{requestSeries("POST /{$}", "POST", "400"): 1, refused("pow_required"): 1, event("issued"): 1})
	ts.moves("bad work", func() { ts.post("x", proof[0], "X-PoW-Solution: x").want(400, "pow_failed") },
		map[string]float64{requestSeries("POST /{$}", "POST", "400"): 1, refused("pow_failed"): 1, event("issued"): 1, event("failed"): 1})
	ts.moves("good work, nothing to store", func() { ts.post("", proof...).want(400, "empty_content") }, map[string]float64{requestSeries("POST /{$}", "POST", "400"): 1, refused("empty_content"): 1})
	ts.moves("good work", func() { ts.short("https://example.org/", proof...) },
		map[string]float64{requestSeries("POST /s", "POST", "201"): 1, event("solved"): 1, `flaskpaste_short_urls_total{event="created"}`: 1, "flaskpaste_stored_bytes": 20})
	ts.moves("used work", func() { ts.post("x", proof...).want(400, "pow_failed") },
		map[string]float64{requestSeries("POST /{$}", "POST", "400"): 1, refused("pow_failed"): 1, event("issued"): 1, event("failed"): 1})
}

// TestMetricsSweep: the oldest expired row ages until the sweep takes it, be it a paste or a short URL.
func TestMetricsSweep(t *testing.T) {
	ts := start(t, "METRICS_ALLOW=127.0.0.1", "SWEEP=1h")
	oldest := func(want float64) {
		t.Helper()
		if v := ts.scrape()["flaskpaste_oldest_expired_seconds"]; v < want || v > want+50 { // seconds that the test takes
			t.Errorf("the oldest expired row is %g s old, want %g", v, want)
		}
	}
	sweep := func() {
		t.Helper()
		if _, _, err := ts.store.sweep(ts.clock.now().Unix()); err != nil {
			t.Fatal(err)
		}
	}
	oldest(0)
	ts.create("x", "X-Expiry: 1h")
	ts.short("https://example.org/", "X-Expiry: 2h")
	oldest(0)
	ts.clock.advance(time.Hour + time.Minute)
	oldest(60)
	sweep()
	oldest(0)
	ts.clock.advance(time.Hour)
	oldest(60)
	sweep()
	oldest(0)
	if v := ts.scrape(); v["flaskpaste_stored_pastes"] != 0 || v["flaskpaste_stored_bytes"] != 0 {
		t.Errorf("after the sweep: %g pastes, %g bytes", v["flaskpaste_stored_pastes"], v["flaskpaste_stored_bytes"])
	}
}

// TestMetricsExpiry: when the certificates end, as they themselves say.
func TestMetricsExpiry(t *testing.T) {
	s := launchTLS(t, "METRICS_ALLOW=127.0.0.1", "PKI_ENABLED=0")
	res, text := s.call(s.client(nil), "GET", "/metrics", "")
	families, err := readExposition(text)
	if err != nil {
		t.Fatal(err)
	}
	const tlsExpiry, caExpiry = "flaskpaste_tls_expiry_seconds", "flaskpaste_ca_expiry_seconds"
	if f := families[tlsExpiry]; f == nil || f.samples[tlsExpiry] != float64(res.TLS.PeerCertificates[0].NotAfter.Unix()) || families[caExpiry] != nil {
		t.Errorf("with own TLS and no CA: %v, %v", families[tlsExpiry], families[caExpiry])
	}
	ts := start(t, "METRICS_ALLOW=127.0.0.1")
	ts.ca = testCA(t, time.Now())
	all := ts.scrape()
	if _, own := all[tlsExpiry]; own || all[caExpiry] != float64(ts.ca.cert.NotAfter.Unix()) {
		t.Errorf("with a CA and no TLS: %v, %v", all[tlsExpiry], all[caExpiry])
	}
}

// TestMetricsHistogram: where an observation falls, and that many at once are all there.
func TestMetricsHistogram(t *testing.T) {
	h := newHistogram([]float64{1, 2, 4})
	for _, v := range []float64{0, 1, 1.5, 2, 3, 4, 4.1, 1e9} {
		h.observe(v)
	}
	for i, want := range []uint64{2, 2, 2, 2} {
		if got := h.buckets[i].Load(); got != want {
			t.Errorf("bucket %d has %d, want %d", i, got, want)
		}
	}
	h = newHistogram(durationBounds)
	m := newMetrics([]string{"GET /x"}, time.Now())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				h.observe(0.5)
				m.request(0, "GET", 200, "", time.Millisecond, 3, 5)
			}
		})
	}
	wg.Wait()
	if sum := math.Float64frombits(h.sum.Load()); sum != 4000 || m.routes[0].requests[0][0].Load() != 8000 || m.requestBytes.Load() != 24000 || m.answerBytes.Load() != 40000 {
		t.Errorf("lost updates: sum %g, %d requests", sum, m.routes[0].requests[0][0].Load())
	}
	if durationBounds[0] > 0.0001 || durationBounds[len(durationBounds)-1] < 10 || !slices.IsSorted(durationBounds) || !slices.IsSorted(groupBounds) || int(groupBounds[len(groupBounds)-1]) < batchOps {
		t.Errorf("bounds %v, %v", durationBounds, groupBounds)
	}
}

// TestMetricsAllocation: recording a request allocates nothing.
func TestMetricsAllocation(t *testing.T) {
	m := newMetrics([]string{"GET /x", "GET /y"}, time.Now())
	for _, c := range []struct{ method, reason string }{{"GET", ""}, {"EVIL", "evil"}, {"PUT", "not_found"}} {
		if n := testing.AllocsPerRun(1000, func() { m.request(1, c.method, 404, c.reason, time.Millisecond, 10, 20) }); n != 0 {
			t.Errorf("%s %s: %g allocations", c.method, c.reason, n)
		}
	}
}

// TestMetricsWriter: groups and commits are observed, reads are not.
func TestMetricsWriter(t *testing.T) {
	ts := start(t, "METRICS_ALLOW=127.0.0.1", "SWEEP=1h")
	before := ts.scrape()
	for i := range 5 {
		ts.create("content " + strconv.Itoa(i))
	}
	counts := []string{"flaskpaste_commit_operations_count", "flaskpaste_commit_operations_sum", "flaskpaste_commit_duration_seconds_count"}
	after := ts.scrape()
	for range 500 { // a commit is observed behind its answers
		if !slices.ContainsFunc(counts, func(name string) bool { return after[name]-before[name] < 5 }) {
			break
		}
		time.Sleep(10 * time.Millisecond)
		after = ts.scrape()
	}
	for _, name := range counts {
		if d := after[name] - before[name]; d < 5 || d > 20 {
			t.Errorf("%s rose by %g with 5 pastes", name, d)
		}
	}
	if d := after["flaskpaste_commit_duration_seconds_sum"] - before["flaskpaste_commit_duration_seconds_sum"]; d <= 0 || d > 60 {
		t.Errorf("5 commits took %g s", d)
	}
}

// ---- what speaks of metrics ----

var metricName = regexp.MustCompile(`\b(flaskpaste|process|go)_[a-z_]+`)

// knownMetrics are the names of all families, those of a CA and of our own TLS among them.
func knownMetrics(t testing.TB) []string {
	t.Helper()
	ts := start(t, "METRICS_ALLOW=127.0.0.1")
	ts.ca = testCA(t, time.Now())
	ts.ownTLS = &certFiles{pair: &tls.Certificate{Leaf: ts.ca.cert}}
	families, err := readExposition(ts.get("/metrics").want(200, "").body)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(families))
}

// TestMetricsInDeploy: alerts and dashboard ask for metrics, reasons and routes that exist.
func TestMetricsInDeploy(t *testing.T) {
	known := knownMetrics(t)
	for _, file := range []string{"deploy/alerts.yml", "deploy/alerts_test.yml", "deploy/dashboard.json"} {
		t.Run(file, func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(string(raw), `\"`, `"`)
			found := 0
			for _, name := range metricName.FindAllString(text, -1) {
				base := name
				for _, suffix := range []string{"_bucket", "_sum", "_count"} {
					if cut, ok := strings.CutSuffix(name, suffix); ok && slices.Contains(known, cut) {
						base = cut
					}
				}
				if found++; !slices.Contains(known, base) {
					t.Errorf("there is no metric %s", name)
				}
			}
			if found < 10 {
				t.Errorf("only %d metrics are asked for", found)
			}
			closed := map[string][]string{"reason": metricReasons, "event": {"created", "read", "burned", "expired", "deleted", "issued", "solved", "failed"}, "method": metricMethods, "route": {"none"}}
			for _, r := range routes() {
				closed["route"] = append(closed["route"], r.pattern)
			}
			for _, m := range regexp.MustCompile(`(reason|event|method|route)(=~?|!=|!~)\s*["']([^"'$]+)["']`).FindAllStringSubmatch(text, -1) {
				values := []string{m[3]}
				if strings.HasSuffix(m[2], "~") {
					values = strings.Split(m[3], "|")
				}
				for _, v := range values {
					if !slices.Contains(closed[m[1]], v) {
						t.Errorf("no %s is %q: %s", m[1], v, m[0])
					}
				}
			}
		})
	}
}

// TestDashboard: it is JSON that Grafana takes: panels with numbers of their own, places that do not overlap, and queries
// whose data source can be chosen.
func TestDashboard(t *testing.T) {
	raw, err := os.ReadFile("deploy/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Title, UID    string
		SchemaVersion int
		Time          struct{ From, To string }
		Templating    struct{ List []struct{ Name, Type string } }
		Panels        []struct {
			ID                       int
			Type, Title, Description string
			GridPos                  struct{ X, Y, W, H int }
			Datasource               struct{ Type, UID string }
			Targets                  []struct{ Expr, RefID string }
		}
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&d); err != nil {
		t.Fatal(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		t.Error("something stands behind the object")
	}
	if d.Title == "" || d.UID == "" || d.SchemaVersion < 30 || d.Time.From == "" || len(d.Templating.List) == 0 || d.Templating.List[0].Type != "datasource" {
		t.Errorf("head: %+v", d)
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 || p.Title == "" {
			t.Errorf("panel %d %q: its number is taken or it has no title", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x > 23 {
					t.Fatalf("panel %q lies over %q or beyond the edge", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || len(p.Targets) == 0 || p.Datasource.Type != "prometheus" || p.Datasource.UID != "${datasource}" {
			t.Errorf("panel %q: no description, query or chosen data source", p.Title)
		}
		refs := map[string]bool{}
		for _, q := range p.Targets {
			if refs[q.RefID] || q.RefID == "" || !strings.Contains(q.Expr, `job=~"$job"`) {
				t.Errorf("panel %q: query %q of %q", p.Title, q.RefID, q.Expr)
			}
			refs[q.RefID] = true
		}
	}
	if len(d.Panels) < 10 {
		t.Errorf("%d panels", len(d.Panels))
	}
	// Each query is PromQL: promtool reads them as rules.
	promtool := need(t, "promtool")
	var rules strings.Builder
	rules.WriteString("groups: [{name: dashboard, rules: [\n")
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			fmt.Fprintf(&rules, "{record: panel_%d_%s, expr: %q},\n", p.ID, q.RefID, strings.ReplaceAll(q.Expr, "$__rate_interval", "5m"))
		}
	}
	rules.WriteString("]}]\n")
	path := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(path, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool, "check", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
}

// TestMetricsInREADME: the table there names each metric, and no other.
func TestMetricsInREADME(t *testing.T) {
	raw, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(raw), "\n## Metrics\n")
	section, _, _ = strings.Cut(section, "\n## ")
	if !ok {
		t.Fatal("README.md has no section Metrics")
	}
	var rows []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)").FindAllStringSubmatch(section, -1) {
		rows = append(rows, m[1])
	}
	known := knownMetrics(t)
	for _, name := range known {
		if !slices.Contains(rows, name) {
			t.Errorf("%s is not in README", name)
		}
	}
	for i, name := range rows {
		if !slices.Contains(known, name) || slices.Contains(rows[:i], name) {
			t.Errorf("README's %s does not exist, or comes twice", name)
		}
	}
}

// ---- Prometheus itself ----

// TestAlerts lets promtool check the rules and run their tests.
func TestAlerts(t *testing.T) {
	promtool := need(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "--lint-fatal", "deploy/alerts.yml"}, {"test", "rules", "deploy/alerts_test.yml"}} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	// Each alert has a test that sees it fire.
	rules, err := os.ReadFile("deploy/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("deploy/alerts_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`(?m)^\s+- alert: (\w+)$`).FindAllStringSubmatch(string(rules), -1)
	if len(names) < 8 {
		t.Errorf("only %d alerts", len(names))
	}
	for _, m := range names {
		fires := regexp.MustCompile(`alertname: ` + m[1] + `\n\s+exp_alerts:\n\s+- exp_labels:`)
		silent := regexp.MustCompile(`alertname: ` + m[1] + `\n\s+exp_alerts: \[\]`)
		if !fires.Match(tests) || !silent.Match(tests) {
			t.Errorf("%s is not seen both firing and silent by deploy/alerts_test.yml", m[1])
		}
	}
}

// TestPrometheusScrapes runs a real Prometheus on the real program for a few seconds: it is up, nothing of ours makes
// Prometheus complain, and the rules load and stay silent.
func TestPrometheusScrapes(t *testing.T) {
	t.Parallel()
	prometheus, promtool := need(t, "prometheus"), need(t, "promtool")
	p := launch(t, t.TempDir(), "METRICS_ALLOW=127.0.0.1")
	rules, err := filepath.Abs("deploy/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := fmt.Sprintf("global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\nrule_files: [%q]\nscrape_configs: [{job_name: flaskpaste, static_configs: [{targets: [%q]}]}]\n", rules, strings.TrimPrefix(p.url, "http://"))
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	cmd := exec.Command(prometheus, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0")
	cmd.Stderr, cmd.Stdout = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer cmd.Process.Kill()
	scraped, ours := 0.0, 0.0
	for deadline := time.Now().Add(30 * time.Second); scraped < 8 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		res, err := http.Get(p.url + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		scraped = requestsTo(t, string(text), "GET /metrics") - ours
		ours++
	}
	cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(60 * time.Second):
		t.Fatalf("prometheus does not end: %s", log.String())
	}
	for line := range strings.Lines(log.String()) {
		if (strings.Contains(line, "level=warn") || strings.Contains(line, "level=error")) && !strings.Contains(line, "Received SIGTERM") {
			t.Errorf("prometheus complains: %s", line)
		}
	}
	out, err := exec.Command(promtool, "tsdb", "dump", `--match={__name__=~"up|ALERTS|flaskpaste_.*"}`, filepath.Join(dir, "data")).Output()
	if err != nil {
		t.Fatalf("promtool tsdb dump: %v", err)
	}
	up, down, names := 0, "", map[string]bool{}
	for sample := range strings.Lines(string(out)) {
		_, name, _ := strings.Cut(sample, `__name__="`)
		name, _, _ = strings.Cut(name, `"`)
		names[name] = true
		f := strings.Fields(sample) // series, value, time
		if name == "up" && f[len(f)-2] != "1" {
			down += sample
		} else if name == "up" {
			up++
		}
		if name == "ALERTS" && strings.Contains(sample, `alertstate="firing"`) {
			t.Errorf("a fresh server sets off %s", sample)
		}
	}
	if up < 5 || strings.Count(down, "\n") > up/3 { // one that a stalling machine did not answer within half a second is no fault
		t.Errorf("%d samples of up are 1, and not:\n%s%s", up, down, log.String())
	}
	for _, name := range []string{"flaskpaste_build_info", "flaskpaste_requests_total", "flaskpaste_request_duration_seconds_bucket", "flaskpaste_refusals_total"} {
		if !names[name] {
			t.Errorf("prometheus has no %s", name)
		}
	}
}

// ---- what it costs ----

// BenchmarkMetricsRequest: one request's counters, from all cores at once.
func BenchmarkMetricsRequest(b *testing.B) {
	patterns := make([]string, 0, 32)
	for _, r := range routes() {
		patterns = append(patterns, r.pattern)
	}
	m := newMetrics(patterns, time.Now())
	b.Run("answer<200ns", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			m.request(5, "GET", 200, "", 350*time.Microsecond, 0, 4096)
		}
	})
	b.Run("refusal<200ns", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			m.request(len(patterns), "DELETE", 429, "rate_limited", 50*time.Microsecond, 0, 200)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				m.request(5, "GET", 200, "", 350*time.Microsecond, 0, 4096)
			}
		})
	})
}

// BenchmarkExposition: the whole text, every route having been asked with three methods and answered in four ways.
func BenchmarkExposition(b *testing.B) {
	ts := start(b, "METRICS_ALLOW=any", "LOG_LEVEL=error")
	for i := range ts.metrics.patterns {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			for _, status := range []int{200, 404, 429, 503} {
				ts.metrics.request(i, method, status, "", time.Millisecond, 1, 1)
			}
		}
	}
	req := httptest.NewRequest("GET", "/metrics", nil)
	b.Run("<1ms", func(b *testing.B) {
		b.ReportAllocs()
		w := &countingWriter{header: http.Header{}}
		for range b.N {
			w.status, w.bytes = 0, 0
			ts.ServeHTTP(w, req)
			if w.status != 200 || w.bytes < 50_000 {
				b.Fatalf("status %d, %d bytes", w.status, w.bytes)
			}
		}
		b.ReportMetric(float64(w.bytes), "bytes")
	})
}

// countingWriter is a client who only counts.
type countingWriter struct {
	header        http.Header
	status, bytes int
}

func (w *countingWriter) Header() http.Header         { return w.header }
func (w *countingWriter) WriteHeader(status int)      { w.status = status }
func (w *countingWriter) Write(b []byte) (int, error) { w.bytes += len(b); return len(b), nil }

// BenchmarkRedirect compares following a short URL with a bare net/http handler that sends the same header fields: 16
// connections each, in turns, the median of the rounds.
func BenchmarkRedirect(b *testing.B) {
	ts := start(b)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	ts.server.log = newLog(ts.cfg, null) // with the access log, like a server
	made := ts.short("https://example.org/where/it/leads?to=1")
	model := ts.get("/s/"+made.ID).want(302, "").Header
	model.Del("Date")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	bare := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		for k, v := range model {
			h[k] = v
		}
		w.WriteHeader(302)
	})}
	go bare.Serve(l)
	b.Cleanup(func() { bare.Close() })
	drive := func(addr string) (rate float64) {
		request := fmt.Appendf(nil, "GET /s/%s HTTP/1.1\r\nHost: x\r\n\r\n", made.ID)
		var answers atomic.Int64
		var wg sync.WaitGroup
		begin := time.Now()
		for range 16 {
			wg.Go(func() {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					b.Error(err)
					return
				}
				defer c.Close()
				buf := make([]byte, 4096)
				for time.Since(begin) < 100*time.Millisecond {
					if _, err := c.Write(request); err != nil {
						b.Error(err)
						return
					}
					n := 0
					for n < 4 || string(buf[n-4:n]) != "\r\n\r\n" { // no body
						m, err := c.Read(buf[n:])
						if n += m; err != nil {
							b.Error(err)
							return
						}
					}
					if string(buf[9:12]) != "302" {
						b.Errorf("answer %.200q", buf[:n])
						return
					}
					answers.Add(1)
				}
			})
		}
		wg.Wait()
		return float64(answers.Load()) / time.Since(begin).Seconds()
	}
	var ratios, rates []float64
	for range 41 {
		theirs := drive(l.Addr().String())
		ours := drive(strings.TrimPrefix(ts.url, "http://"))
		ratios, rates = append(ratios, ours/theirs), append(rates, ours)
	}
	slices.Sort(ratios)
	slices.Sort(rates)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ratios[len(ratios)/2], "of-bare>=0.70")
	b.ReportMetric(rates[len(rates)/2], "requests/s")
}
