package main

// metrics.go counts and shows what the operator watches: counter, gauge and histogram in Prometheus text format 0.0.4, by hand.
//
// Recording takes atomics on memory laid out at start: no lock, no allocation, no label that a stranger can choose. Routes
// are patterns, methods and reasons are closed lists; what is on none of them counts as "other".

import (
	"bytes"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Upper bounds in seconds, and in operations for the size of a commit's group.
var (
	durationBounds = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	groupBounds    = []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}
)

var (
	metricMethods  = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "other"}
	metricStatuses = []int{200, 201, 206, 302, 304, 400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 416, 429, 499, 500, 503, 0}
	metricReasons  = []string{"authentication_required", "bad_body", "bad_client_certificate", "bad_csr", "bad_display_name", "bad_expiry", "bad_json",
		"bad_option", "bad_password", "bad_url", "burning", "busy", "ca_not_valid", "certificate_expired", "certificate_not_yet_valid", "certificate_required", "certificate_revoked", "client_left",
		"cross_origin", "duplicate_content", "empty_content", "internal", "low_entropy", "method_not_allowed", "not_admin", "not_found", "not_owner", "not_trusted",
		"password_required", "password_wrong", "pki_disabled", "pow_failed", "pow_required", "precondition_failed", "preview_refused", "rate_limited", "read_proof_required",
		"registration_closed", "storage_full", "too_large", "too_many_certificates", "too_many_transfers", "too_slow", "too_small", "unsupported_encoding", "other"}
)

// histogram counts observations by upper bound; sum is a float64's bits.
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
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// events of a kind of object.
type events struct{ created, read, burned, expired, deleted atomic.Uint64 }

// routeMetrics are one route's requests by method and status, and their durations.
type routeMetrics struct {
	requests [][]atomic.Uint64 // by index in metricMethods, metricStatuses
	duration *histogram
}

type metrics struct {
	start                              time.Time
	patterns                           []string // of the route table, "none" last
	routes                             []routeMetrics
	reasons                            []atomic.Uint64
	requestBytes, answerBytes          atomic.Uint64
	pastes, shorts                     events
	workIssued, workSolved, workFailed atomic.Uint64
	ignoredHeaders                     atomic.Uint64
}

func newMetrics(patterns []string, start time.Time) *metrics {
	m := &metrics{start: start, patterns: append(patterns, "none"), reasons: make([]atomic.Uint64, len(metricReasons))}
	for range m.patterns {
		r := routeMetrics{duration: newHistogram(durationBounds)}
		for range metricMethods {
			r.requests = append(r.requests, make([]atomic.Uint64, len(metricStatuses)))
		}
		m.routes = append(m.routes, r)
	}
	return m
}

// request records one request; route is the index of its pattern, len(table) for none.
func (m *metrics) request(route int, method string, status int, reason string, took time.Duration, in, out int64) {
	i := slices.Index(metricMethods, method)
	if i < 0 {
		i = len(metricMethods) - 1
	}
	j := slices.Index(metricStatuses, status)
	if j < 0 {
		j = len(metricStatuses) - 1
	}
	r := &m.routes[route]
	r.requests[i][j].Add(1)
	r.duration.observe(took.Seconds())
	m.requestBytes.Add(uint64(in))
	m.answerBytes.Add(uint64(out))
	if reason != "" {
		k, found := slices.BinarySearch(metricReasons[:len(metricReasons)-1], reason)
		if !found {
			k = len(metricReasons) - 1
		}
		m.reasons[k].Add(1)
	}
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
	e.sample(name+"_sum", math.Float64frombits(h.sum.Load()), own...)
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
	e.family("flaskpaste_requests_total", "counter", "Requests by route, method and status.")
	for i, pattern := range m.patterns {
		for j, method := range metricMethods {
			for k, status := range metricStatuses {
				if n := m.routes[i].requests[j][k].Load(); n > 0 {
					code := strconv.Itoa(status)
					if status == 0 {
						code = "other"
					}
					e.sample("flaskpaste_requests_total", float64(n), `route="`, pattern, `",method="`, method, `",status="`, code, `"`)
				}
			}
		}
	}
	e.family("flaskpaste_request_duration_seconds", "histogram", "Time from the request's header to the end of the answer, by route.")
	for i, pattern := range m.patterns {
		if h := m.routes[i].duration; slices.ContainsFunc(m.routes[i].requests, func(r []atomic.Uint64) bool {
			for i := range r {
				if r[i].Load() > 0 {
					return true
				}
			}
			return false
		}) {
			e.histogram("flaskpaste_request_duration_seconds", `route="`+pattern+`",`, h)
		}
	}
	e.one("flaskpaste_request_bytes_total", "counter", "Bytes of request bodies read.", float64(m.requestBytes.Load()))
	e.one("flaskpaste_response_bytes_total", "counter", "Bytes of answer bodies sent.", float64(m.answerBytes.Load()))
	e.family("flaskpaste_refusals_total", "counter", "Answers that were errors, by their code.")
	for i, reason := range metricReasons {
		e.sample("flaskpaste_refusals_total", float64(m.reasons[i].Load()), `reason="`, reason, `"`)
	}
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

// metrics shows the state of the store at now (Unix seconds).
func (st *store) metrics(e *exposition, now int64) {
	e.one("flaskpaste_writer_queue_length", "gauge", "Operations waiting for the writer.", float64(len(st.ops)))
	e.family("flaskpaste_commit_operations", "histogram", "Operations in one commit.")
	e.histogram("flaskpaste_commit_operations", "", st.groups)
	e.family("flaskpaste_commit_duration_seconds", "histogram", "Time of one commit, its operations included.")
	e.histogram("flaskpaste_commit_duration_seconds", "", st.commits)
	hits, misses, size := st.cache.stats()
	e.family("flaskpaste_cache_requests_total", "counter", "Lookups in the cache of often-read pastes.")
	e.sample("flaskpaste_cache_requests_total", float64(hits), `result="hit"`)
	e.sample("flaskpaste_cache_requests_total", float64(misses), `result="miss"`)
	e.one("flaskpaste_cache_bytes", "gauge", "Memory of the cache.", float64(size))
	e.one("flaskpaste_stored_pastes", "gauge", "Pastes in the database.", float64(st.pastes.Load()))
	e.one("flaskpaste_stored_bytes", "gauge", "Bytes of content in the database.", float64(st.used.Load()))
	e.one("flaskpaste_storage_limit_bytes", "gauge", "FLASKPASTE_MAX_STORAGE.", float64(st.quota))
	e.one("flaskpaste_disk_free_bytes", "gauge", "Free bytes of the database's file system.", float64(freeSpace(st.path)))
	if oldest, err := st.oldest(); err == nil {
		e.one("flaskpaste_oldest_expired_seconds", "gauge", "How long ago the oldest paste or short URL that is still on disk expired; 0: none has.", float64(max(0, now-oldest)))
	}
}

// mayScrape lets the addresses of FLASKPASTE_METRICS_ALLOW pass. A proxy that says nothing of its client, or nothing that can
// be understood, never does: its own address must not stand in for a stranger's.
func (q *request) mayScrape() bool {
	addr := q.addr
	if q.trusted {
		addr = forwardedAddr(strings.Join(q.r.Header[q.s.cfg.addressHeader], ","), netip.Addr{}, q.s.cfg.trustedProxies)
	}
	return addr.IsValid() && (q.s.cfg.metricsAny || containsAddr(q.s.cfg.metricsAllow, addr))
}

func (s *server) showMetrics(q *request) error {
	if !q.mayScrape() {
		return errNotFound
	}
	e := new(exposition)
	e.Grow(128 << 10) // what a busy server's text comes to
	s.metrics.write(e)
	s.store.metrics(e, q.now)
	e.one("flaskpaste_pow_difficulty", "gauge", "Bits that a creation needs now; 0: none.", float64(s.flood.difficulty(q.start)))
	e.one("flaskpaste_limiter_entries", "gauge", "Limits remembered.", float64(s.limiter.size()))
	e.one("flaskpaste_uploads", "gauge", "Uploads under way.", float64(s.uploads.inUse()))
	e.one("flaskpaste_downloads", "gauge", "Downloads under way.", float64(s.downloads.inUse()))
	if s.ca != nil {
		e.one("flaskpaste_ca_expiry_seconds", "gauge", "Unix time at which the CA of client certificates ends.", float64(s.ca.cert.NotAfter.Unix()))
	}
	if s.ownTLS != nil {
		e.one("flaskpaste_tls_expiry_seconds", "gauge", "Unix time at which the server's own TLS certificate ends.", float64(s.ownTLS.ends().Unix()))
	}
	q.writeBytes(200, "text/plain; version=0.0.4; charset=utf-8", e.Bytes())
	return nil
}
