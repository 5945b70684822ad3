package main

// What the operator watches: counters, gauges and histograms in the Prometheus text format 0.0.4, by hand.
//
// Recording takes one lock for the time of some additions, and allocates only where a label is met for the first time.
// No stranger can choose a label: routes are patterns, methods and reasons are closed lists; what is on none of them
// counts as "other". So no value needs escaping.

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Upper bounds in seconds, and in operations for the size of a commit's group.
var (
	durationBounds = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10,
		math.Inf(1)}
	groupBounds = []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, math.Inf(1)}
)

// methods are those that have a name in labels and log.
var methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "other"}

// requestLabels are a route's pattern, a method of the list above and a status of ours.
type requestLabels struct {
	route, method string
	status        int
}

// histogram counts observations (0 or more) by upper bound.
type histogram struct {
	bounds []float64
	counts []uint64
	sum    float64
}

func newHistogram(bounds []float64) *histogram {
	return &histogram{bounds: bounds, counts: make([]uint64, len(bounds))}
}

func (h *histogram) observe(v float64) {
	i, _ := slices.BinarySearch(h.bounds, v)
	h.counts[i]++
	h.sum += v
}

// events of a kind of object.
type events struct{ created, read, burned, expired, deleted atomic.Uint64 }

type metrics struct {
	start                              time.Time
	pastes, shorts                     events
	workIssued, workSolved, workFailed atomic.Uint64
	ignoredHeaders, refusedConnections atomic.Uint64

	mu                        sync.Mutex
	durations                 map[string]*histogram // by route
	groups, commits           *histogram            // operations and seconds of each commit
	requestBytes, answerBytes int64
	requests                  map[requestLabels]uint64
	reasons                   map[string]uint64
}

func newMetrics(start time.Time) *metrics {
	return &metrics{start: start, groups: newHistogram(groupBounds), commits: newHistogram(durationBounds),
		durations: map[string]*histogram{}, requests: map[requestLabels]uint64{}, reasons: map[string]uint64{}}
}

// request records one request; route is its pattern.
func (m *metrics) request(route, method string, status int, reason string, took time.Duration, in, out int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.durations[route]
	if h == nil {
		h = newHistogram(durationBounds)
		m.durations[route] = h
	}
	h.observe(took.Seconds())
	m.requestBytes += in
	m.answerBytes += out
	m.requests[requestLabels{route, method, status}]++
	if reason != "" {
		m.reasons[reason]++
	}
}

// commit records a commit of n operations.
func (m *metrics) commit(n int, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.groups.observe(float64(n))
	m.commits.observe(took.Seconds())
}

// exposition writes metrics in text format 0.0.4.
type exposition struct{ bytes.Buffer }

func (e *exposition) family(name, kind, help string) {
	fmt.Fprintf(e, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample writes a line; labels are what stands between its braces, if any.
func (e *exposition) sample(name string, v float64, labels string) {
	if labels != "" {
		name += "{" + labels + "}"
	}
	fmt.Fprintln(e, name, v)
}

func (e *exposition) one(name, kind, help string, v float64) {
	e.family(name, kind, help)
	e.sample(name, v, "")
}

// histogram writes a histogram's lines; label, if any, ends with a comma.
func (e *exposition) histogram(name, label string, h *histogram) {
	n := uint64(0)
	for i, bound := range h.bounds {
		n += h.counts[i]
		e.sample(name+"_bucket", float64(n), fmt.Sprintf(`%sle="%v"`, label, bound))
	}
	label = strings.TrimSuffix(label, ",")
	e.sample(name+"_sum", h.sum, label)
	e.sample(name+"_count", float64(n), label)
}

func (e *exposition) events(name, help string, ev *events) {
	e.family(name, "counter", help)
	e.sample(name, float64(ev.created.Load()), `event="created"`)
	e.sample(name, float64(ev.read.Load()), `event="read"`)
	e.sample(name, float64(ev.burned.Load()), `event="burned"`)
	e.sample(name, float64(ev.expired.Load()), `event="expired"`)
	e.sample(name, float64(ev.deleted.Load()), `event="deleted"`)
}

// write shows what the requests left behind.
func (m *metrics) write(e *exposition) {
	m.writeRequests(e)
	e.one("flaskpaste_refused_connections_total", "counter",
		"Connections closed at once: too many in all or from one address.", float64(m.refusedConnections.Load()))
	e.events("flaskpaste_pastes_total", "Pastes created, read, burned, expired and deleted.", &m.pastes)
	e.events("flaskpaste_short_urls_total", "Short URLs created, followed, expired and deleted.", &m.shorts)
	e.family("flaskpaste_pow_total", "counter", "Proofs of work: challenges issued, proofs taken, proofs refused.")
	e.sample("flaskpaste_pow_total", float64(m.workIssued.Load()), `event="issued"`)
	e.sample("flaskpaste_pow_total", float64(m.workSolved.Load()), `event="solved"`)
	e.sample("flaskpaste_pow_total", float64(m.workFailed.Load()), `event="failed"`)
	e.one("flaskpaste_ignored_headers_total", "counter",
		"Requests whose proxy headers were ignored: their peer is no trusted proxy.", float64(m.ignoredHeaders.Load()))
	e.family("flaskpaste_build_info", "gauge", "Always 1; the version is a label.")
	e.sample("flaskpaste_build_info", 1, `version="`+version+`",go="`+runtime.Version()+`"`)
	e.one("process_start_time_seconds", "gauge", "Unix time of the start.", float64(m.start.UnixMilli())/1000)
	e.one("go_goroutines", "gauge", "Goroutines.", float64(runtime.NumGoroutine()))
	rss, cpu, files := processUsage()
	e.one("process_resident_memory_bytes", "gauge", "Resident memory.", float64(rss))
	e.one("process_cpu_seconds_total", "counter", "User and system time.", cpu.Seconds())
	e.one("process_open_fds", "gauge", "Open file descriptors.", float64(files))
}

// writeRequests shows what the lock guards.
func (m *metrics) writeRequests(e *exposition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	const requests, durations = "flaskpaste_requests_total", "flaskpaste_request_duration_seconds"
	e.family(requests, "counter", "Requests by route, method and status.")
	for _, l := range slices.SortedFunc(maps.Keys(m.requests), func(a, b requestLabels) int {
		return cmp.Or(strings.Compare(a.route, b.route), strings.Compare(a.method, b.method), a.status-b.status)
	}) {
		e.sample(requests, float64(m.requests[l]),
			fmt.Sprintf(`route="%s",method="%s",status="%d"`, l.route, l.method, l.status))
	}
	e.family(durations, "histogram", "Time from the request's header to the end of the answer, by route.")
	for _, route := range slices.Sorted(maps.Keys(m.durations)) {
		e.histogram(durations, `route="`+route+`",`, m.durations[route])
	}
	e.one("flaskpaste_request_bytes_total", "counter", "Bytes of request bodies read.", float64(m.requestBytes))
	e.one("flaskpaste_response_bytes_total", "counter", "Bytes of answer bodies sent.", float64(m.answerBytes))
	e.family("flaskpaste_refusals_total", "counter", "Answers that were errors, by their code.")
	for _, reason := range slices.Sorted(maps.Keys(m.reasons)) {
		e.sample("flaskpaste_refusals_total", float64(m.reasons[reason]), `reason="`+reason+`"`)
	}
	e.family("flaskpaste_commit_operations", "histogram", "Operations in one commit.")
	e.histogram("flaskpaste_commit_operations", "", m.groups)
	e.family("flaskpaste_commit_duration_seconds", "histogram", "Time of one commit, its operations included.")
	e.histogram("flaskpaste_commit_duration_seconds", "", m.commits)
}
