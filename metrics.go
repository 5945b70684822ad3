package main

// metrics.go counts and shows what the operator watches: counter, gauge and histogram in Prometheus text format 0.0.4, by hand.
//
// Recording takes atomics: no lock and no allocation, but for the first time that a label is met. No stranger can choose a
// label: routes are patterns, methods and reasons are closed lists; what is on none of them counts as "other".

import (
	"bytes"
	"cmp"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Upper bounds in seconds, and in operations for the size of a commit's group.
var (
	durationBounds = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	groupBounds    = []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}
)

// methods are those that have a name in labels and log.
var methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "other"}

// requestLabels are a pattern of the route table, a method of the list above and a status of ours, in eight bytes: the key that a
// map finds fastest.
type requestLabels struct {
	route, method int16
	status        int32
}

// histogram counts observations (0 or more) by upper bound; sum is in billionths.
type histogram struct {
	bounds  []float64
	le      []string        // bounds as they are shown, +Inf last
	buckets []atomic.Uint64 // one more than bounds
	sum     atomic.Uint64
}

func newHistogram(bounds []float64) *histogram {
	h := &histogram{bounds: bounds, buckets: make([]atomic.Uint64, len(bounds)+1)}
	for _, b := range bounds {
		h.le = append(h.le, strconv.FormatFloat(b, 'g', -1, 64))
	}
	h.le = append(h.le, "+Inf")
	return h
}

func (h *histogram) observe(v float64) {
	i, _ := slices.BinarySearch(h.bounds, v)
	h.buckets[i].Add(1)
	h.sum.Add(uint64(v * 1e9))
}

// counters count by label. A new label is added to a copy of the map, so that nobody who counts waits for it.
type counters[L comparable] struct {
	now atomic.Pointer[map[L]*atomic.Uint64]
	mu  sync.Mutex // of who adds a label
}

func (c *counters[L]) counts() map[L]*atomic.Uint64 {
	if m := c.now.Load(); m != nil {
		return *m
	}
	return nil
}

func (c *counters[L]) add(label L) {
	n := c.counts()[label]
	if n == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if n = c.counts()[label]; n == nil {
			m := map[L]*atomic.Uint64{}
			maps.Copy(m, c.counts())
			n = new(atomic.Uint64)
			m[label] = n
			c.now.Store(&m)
		}
	}
	n.Add(1)
}

// events of a kind of object.
type events struct{ created, read, burned, expired, deleted atomic.Uint64 }

type metrics struct {
	start                              time.Time
	patterns                           []string // of the route table, "none" last
	durations                          []*histogram
	groups, commits                    *histogram // operations and seconds of each commit
	requestBytes, answerBytes          atomic.Uint64
	pastes, shorts                     events
	workIssued, workSolved, workFailed atomic.Uint64
	ignoredHeaders, refusedConnections atomic.Uint64
	requests                           counters[requestLabels]
	reasons                            counters[string]
}

func newMetrics(start time.Time) *metrics {
	return &metrics{start: start, groups: newHistogram(groupBounds), commits: newHistogram(durationBounds)}
}

// addRoute returns the number under which a route's requests are recorded.
func (m *metrics) addRoute(pattern string) int {
	m.patterns, m.durations = append(m.patterns, pattern), append(m.durations, newHistogram(durationBounds))
	return len(m.patterns) - 1
}

// request records one request; route is the number of its pattern.
func (m *metrics) request(route int, method string, status int, reason string, took time.Duration, in, out int64) {
	m.durations[route].observe(took.Seconds())
	m.requestBytes.Add(uint64(in))
	m.answerBytes.Add(uint64(out))
	m.requests.add(requestLabels{int16(route), int16(slices.Index(methods, method)), int32(status)})
	if reason != "" {
		m.reasons.add(reason)
	}
}

// commit records a commit of n operations.
func (m *metrics) commit(n int, took time.Duration) {
	m.groups.observe(float64(n))
	m.commits.observe(took.Seconds())
}

// exposition writes metrics in text format 0.0.4.
type exposition struct{ bytes.Buffer }

func (e *exposition) family(name, kind, help string) {
	e.WriteString("# HELP " + name + " " + help + "\n# TYPE " + name + " " + kind + "\n")
}

// sample writes a line; labels are pieces of what stands between the braces, their values from closed lists that need no
// escaping. Pieces, because putting them together first cost more than all the rest.
func (e *exposition) sample(name string, v float64, labels ...string) {
	e.WriteString(name)
	for i, piece := range labels {
		if i == 0 {
			e.WriteByte('{')
		}
		e.WriteString(piece)
	}
	if len(labels) > 0 {
		e.WriteByte('}')
	}
	e.WriteByte(' ')
	e.Write(strconv.AppendFloat(e.AvailableBuffer(), v, 'g', -1, 64))
	e.WriteByte('\n')
}

func (e *exposition) one(name, kind, help string, v float64) {
	e.family(name, kind, help)
	e.sample(name, v)
}

// histogram writes a histogram's lines; label, if any, ends with a comma.
func (e *exposition) histogram(name, label string, h *histogram) {
	bucket, n := name+"_bucket", uint64(0)
	for i := range h.buckets {
		n += h.buckets[i].Load()
		e.sample(bucket, float64(n), label, `le="`, h.le[i], `"`)
	}
	var own []string
	if label != "" {
		own = []string{label[:len(label)-1]}
	}
	e.sample(name+"_sum", float64(h.sum.Load())/1e9, own...)
	e.sample(name+"_count", float64(n), own...)
}

func (e *exposition) events(name, help string, ev *events) {
	e.family(name, "counter", help)
	for _, c := range []struct {
		event string
		n     *atomic.Uint64
	}{{"created", &ev.created}, {"read", &ev.read}, {"burned", &ev.burned}, {"expired", &ev.expired}, {"deleted", &ev.deleted}} {
		e.sample(name, float64(c.n.Load()), `event="`, c.event, `"`)
	}
}

// write shows what the requests left behind.
func (m *metrics) write(e *exposition) {
	requests, reasons := m.requests.counts(), m.reasons.counts()
	e.family("flaskpaste_requests_total", "counter", "Requests by route, method and status.")
	used := map[int]bool{}
	for _, l := range slices.SortedFunc(maps.Keys(requests), func(a, b requestLabels) int {
		return cmp.Or(cmp.Compare(a.route, b.route), cmp.Compare(a.method, b.method), cmp.Compare(a.status, b.status))
	}) {
		used[int(l.route)] = true
		e.sample("flaskpaste_requests_total", float64(requests[l].Load()), `route="`, m.patterns[l.route], `",method="`,
			methods[l.method], `",status="`, strconv.Itoa(int(l.status)), `"`)
	}
	e.family("flaskpaste_request_duration_seconds", "histogram", "Time from the request's header to the end of the answer, by route.")
	for i, h := range m.durations {
		if used[i] {
			e.histogram("flaskpaste_request_duration_seconds", `route="`+m.patterns[i]+`",`, h)
		}
	}
	e.one("flaskpaste_request_bytes_total", "counter", "Bytes of request bodies read.", float64(m.requestBytes.Load()))
	e.one("flaskpaste_response_bytes_total", "counter", "Bytes of answer bodies sent.", float64(m.answerBytes.Load()))
	e.family("flaskpaste_refusals_total", "counter", "Answers that were errors, by their code.")
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		e.sample("flaskpaste_refusals_total", float64(reasons[reason].Load()), `reason="`, reason, `"`)
	}
	e.one("flaskpaste_refused_connections_total", "counter", "Connections closed at once: too many in all or from one address.",
		float64(m.refusedConnections.Load()))
	e.family("flaskpaste_commit_operations", "histogram", "Operations in one commit.")
	e.histogram("flaskpaste_commit_operations", "", m.groups)
	e.family("flaskpaste_commit_duration_seconds", "histogram", "Time of one commit, its operations included.")
	e.histogram("flaskpaste_commit_duration_seconds", "", m.commits)
	e.events("flaskpaste_pastes_total", "Pastes created, read, burned, expired and deleted.", &m.pastes)
	e.events("flaskpaste_short_urls_total", "Short URLs created, followed, expired and deleted.", &m.shorts)
	e.family("flaskpaste_pow_total", "counter", "Proofs of work: challenges issued, proofs taken, proofs refused.")
	e.sample("flaskpaste_pow_total", float64(m.workIssued.Load()), `event="issued"`)
	e.sample("flaskpaste_pow_total", float64(m.workSolved.Load()), `event="solved"`)
	e.sample("flaskpaste_pow_total", float64(m.workFailed.Load()), `event="failed"`)
	e.one("flaskpaste_ignored_headers_total", "counter", "Requests whose proxy headers were ignored: their peer is no trusted proxy.", float64(m.ignoredHeaders.Load()))
	e.family("flaskpaste_build_info", "gauge", "Always 1; the version is a label.")
	e.sample("flaskpaste_build_info", 1, `version="`, version, `",go="`, runtime.Version(), `"`)
	e.one("process_start_time_seconds", "gauge", "Unix time of the start.", float64(m.start.UnixMilli())/1000)
	e.one("go_goroutines", "gauge", "Goroutines.", float64(runtime.NumGoroutine()))
	rss, cpu, files := processUsage()
	e.one("process_resident_memory_bytes", "gauge", "Resident memory.", float64(rss))
	e.one("process_cpu_seconds_total", "counter", "User and system time.", cpu.Seconds())
	e.one("process_open_fds", "gauge", "Open file descriptors.", float64(files))
}
