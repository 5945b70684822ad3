package main

// What one client may take: units of a class in a span of time (requests, bytes, creations without work, one content
// again), and slots of what is scarce. Also how rates and sizes are spelled, and entropy. (RFC 4291 for the shape of
// IPv6 addresses; GCRA as in ITU-T I.371.)
//
// Invariants: a client is a clientKey and nothing else, so a fresh self-signed certificate or a neighbouring address of
// one's own network buys nothing. All that strangers can make grow is bounded. No lock is held while anybody waits.
// It must never know a request, an answer, the store or a clock: `now` comes in with its monotonic reading, so that a
// wall clock that is set moves no limit.

import (
	"context"
	"fmt"
	"hash/maphash"
	"maps"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const wideFactor = 8 // a /48 may take as much as so many of its clients

// clientKey is who a limit counts: the owner id of a trusted certificate, else a network. The zero value is the local
// peer of a Unix socket.
type clientKey struct {
	owner   string
	network netip.Prefix // an IPv4 address; an IPv6 /64, the smallest that providers give a customer; or its /48
	class   int          // the limiter's: each class has buckets of its own
	content [8]byte      // of a duplicate: begins an HMAC under a secret, so nobody can aim at 64 bits of it
}

// keyFor returns the client behind a request.
func keyFor(owner string, addr netip.Addr) clientKey {
	if owner != "" {
		return clientKey{owner: owner}
	}
	addr = addr.Unmap() // ::ffff:192.0.2.1 is 192.0.2.1: one allowance, not two
	network, _ := addr.Prefix(min(64, addr.BitLen()))
	return clientKey{network: network}
}

// wide returns the /48 around an IPv6 client, the largest network that one customer commonly gets; all others are
// returned as they are, with false.
func (k clientKey) wide() (clientKey, bool) {
	if k.network.Bits() != 64 {
		return k, false
	}
	k.network, _ = k.network.Addr().Prefix(48)
	return k, true
}

// places is a number of places that clients share: of all total, one client has at most each, a /48 at most wideMost.
type places struct {
	total, each, wideMost, used int
	has                         map[clientKey]int // of clients and the /48s around them: only who has something
}

func (p *places) take(key clientKey) bool {
	wide, _ := key.wide()
	if p.used >= p.total || p.has[key] >= p.each || p.has[wide] >= p.wideMost {
		return false
	}
	p.add(key, 1)
	return true
}

func (p *places) add(key clientKey, n int) {
	p.used += n
	for k, ok := key, true; ok; k, ok = k.wide() {
		if p.has[k] += n; p.has[k] == 0 {
			delete(p.has, k)
		}
	}
}

// slots are places that can be waited for, in order of arrival but for those whose client has all it may hold. (Were it
// whoever wakes first, one network that never pauses could keep all others out.)
type slots struct {
	mu            sync.Mutex
	held, waiting places
	queue         []*slotWaiter // oldest first; whenever mu is free, none of them could be served
}

type slotWaiter struct {
	key   clientKey
	given chan struct{} // closed under mu when the slot is theirs
}

// newSlots gives a client, and a /48, at most a quarter of those who may wait: there are always some for others.
func newSlots(total, each, wideMost, toWait int) *slots {
	quarter := max(1, toWait/4)
	return &slots{held: places{total: total, each: each, wideMost: wideMost, has: map[clientKey]int{}},
		waiting: places{total: toWait, each: quarter, wideMost: quarter, has: map[clientKey]int{}}}
}

// acquire takes a slot at once or within wait; who gets true must release it. False: none in time, too many wait
// already, or ctx is done.
func (s *slots) acquire(ctx context.Context, key clientKey, wait time.Duration) bool {
	s.mu.Lock()
	got := s.held.take(key)
	if got || wait <= 0 || !s.waiting.take(key) {
		s.mu.Unlock()
		return got
	}
	w := &slotWaiter{key, make(chan struct{})}
	s.queue = append(s.queue, w)
	s.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	select {
	case <-w.given:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting.add(key, -1)
	i := slices.Index(s.queue, w)
	if i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
	}
	return i < 0 // also if it was given in the same moment: theirs to release
}

// release gives a slot back, to the first waiter who may have it.
func (s *slots) release(key clientKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held.add(key, -1)
	s.queue = slices.DeleteFunc(s.queue, func(w *slotWaiter) bool {
		taken := s.held.take(w.key)
		if taken {
			close(w.given)
		}
		return taken
	})
}

// inUse returns the number of slots taken.
func (s *slots) inUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held.used
}

// busy says whether more than half of the slots are taken.
func (s *slots) busy() bool { return 2*s.inUse() > s.held.total }

// The classes of limits.
const (
	rateCreate = iota
	rateRead
	rateMiss
	rateAuth
	rateRegister
	rateBytes
	rateFree      // creations without proof of work
	rateDuplicate // the same content again by the same client
	rateClasses
)

// rate allows n units (at most 1<<50) in each span of per (at most a week), all at once if none were used before; n = 0
// is no limit.
type rate struct {
	n   int64
	per time.Duration
}

// due is what something costs a client: units of a class, whose limit is multiplied by factor (1 to 1000; for trusted
// owners). What was taken can be kept as such a value, and given back if the request fails.
type due struct {
	class        int
	key          clientKey
	cost, factor int64
}

// decision is a limiter's answer; all zero but allowed when the class has no limit.
type decision struct {
	allowed          bool
	limit, remaining int64         // units: the most at once, what is left now
	reset            time.Duration // until all is there again
	retryAfter       time.Duration // when refused: until the same request would be allowed
}

// limiter holds every bucket: one number, the time when it will be full again ("theoretical arrival time"), so that a
// full one and none at all are the same thing. When half of the table is used, those that are full by now go: a flood
// of clients who owe nothing any more displaces nobody who does. Were they few, the half that was seen before goes.
type limiter struct {
	rates [rateClasses]rate
	start time.Time
	seed  maphash.Seed // random: nobody can aim at another's bucket; of 100,000 keys no two meet in 64 bits by chance
	most  int          // buckets

	mu            sync.Mutex
	recent, older map[uint64]int64 // hash of a key -> ns since start; each in one of them
}

func newLimiter(rates [rateClasses]rate, most int, start time.Time) *limiter {
	return &limiter{rates: rates, start: start, seed: maphash.MakeSeed(), most: most,
		recent: map[uint64]int64{}, older: map[uint64]int64{}}
}

// size returns how many buckets are remembered.
func (l *limiter) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.recent) + len(l.older)
}

// take charges what is there, else nothing; more than the whole limit is never there.
func (l *limiter) take(x due, now time.Time) decision { return l.turn(x, now, true, 1) }

// ask answers as take would: for what is asked before a lookup and charged after it.
func (l *limiter) ask(x due, now time.Time) decision { return l.turn(x, now, true, 0) }

// charge takes also what is not there, as a debt: else a hundred who ask for the last unit would share it.
func (l *limiter) charge(x due, now time.Time) { l.turn(x, now, false, 1) }

// give returns what was charged.
func (l *limiter) give(x due, now time.Time) { l.turn(x, now, false, -1) }

// free returns the due of a creation without work (remaining divided by its cost is how many there are). While elevated
// the allowance is one an hour: it costs all that a client has, and needs it.
func (l *limiter) free(key clientKey, elevated bool) due {
	x := due{rateFree, key, 1, 1}
	if elevated {
		x.cost = max(1, l.rates[rateFree].n)
	}
	return x
}

// turn judges a client's bucket and that of the /48 around it, and charges both or neither: sign times the cost, which
// must be there or not.
func (l *limiter) turn(x due, now time.Time, must bool, sign int64) decision {
	r, t := l.rates[x.class], int64(now.Sub(l.start))
	if r.n == 0 {
		return decision{allowed: x.class != rateFree} // no limit, but of free creations there are none
	}
	r.n *= max(1, x.factor)
	x.key.class = x.class
	l.mu.Lock()
	defer l.mu.Unlock()
	d, buckets := decision{allowed: true, remaining: math.MaxInt64}, make([]bucket, 0, 2)
	for k, ok := x.key, true; ok; k, ok = k.wide() {
		b := bucket{id: maphash.Comparable(l.seed, k)}
		b.was = max(t, l.recent[b.id], l.older[b.id])
		judged := r.judge(&b, t, max(0, x.cost), must, sign)
		if judged.retryAfter > d.retryAfter || judged.retryAfter == d.retryAfter && judged.remaining < d.remaining {
			d = judged // the tighter of the two speaks; only a refusal has retryAfter
		}
		buckets = append(buckets, b)
		r.n *= wideFactor
	}
	for _, b := range buckets {
		if !d.allowed {
			b.full = b.was
		}
		l.put(b.id, b.full, t)
	}
	return d
}

// bucket is one while it is judged: when it is full again, without the turn and with it.
type bucket struct {
	id        uint64
	was, full int64
}

// put stores a bucket as the last seen. A full one is forgotten.
func (l *limiter) put(id uint64, full, t int64) {
	if len(l.recent) >= l.most/2 {
		maps.DeleteFunc(l.recent, func(_ uint64, full int64) bool { return full <= t })
		if len(l.recent) > l.most/4 {
			l.recent, l.older = l.older, l.recent
			clear(l.recent)
		}
	}
	delete(l.older, id)
	if full > t {
		l.recent[id] = full
	} else {
		delete(l.recent, id)
	}
}

// judge returns the decision on a bucket.
func (r rate) judge(b *bucket, t, cost int64, must bool, sign int64) decision {
	per := int64(r.per)
	price := max(min(cost, 1), mulDiv(min(cost, r.n), per, r.n)) // the time to get that much back; nothing is free
	d := decision{allowed: true, limit: r.n}
	b.full = b.was
	switch over := b.was + price - t - per; {
	case must && cost > r.n:
		d.allowed, d.retryAfter = false, r.per
	case must && over > 0:
		d.allowed, d.retryAfter = false, time.Duration(over)
	default:
		b.full = max(t, min(b.was+sign*price, t+16*per)) // a debt has an end
	}
	d.remaining, d.reset = mulDiv(max(0, per-(b.full-t)), r.n, per), time.Duration(b.full-t)
	return d
}

// mulDiv returns a*b/c, rounded down, for an a of at most c.
func mulDiv(a, b, c int64) int64 {
	high, low := bits.Mul64(uint64(a), uint64(b))
	q, _ := bits.Div64(high, low, uint64(c))
	return int64(q)
}

// parseRate reads N/s, N/m, N/h, N/d (N a size as parseSize reads it, 1 to 1 PiB) or 0 for no limit.
func parseRate(s string) (rate, error) {
	if s == "0" {
		return rate{}, nil
	}
	amount, unit, _ := strings.Cut(s, "/")
	per := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[unit]
	n, err := parseSize(amount)
	if err != nil || per == 0 || n < 1 || n > 1<<50 {
		return rate{}, fmt.Errorf("bad rate %q: want 30/m (s, m, h or d), 200MiB/h or 0", s)
	}
	return rate{n, per}, nil
}

// parseSize reads bytes, plain or in KiB, MiB, GiB: decimal digits with the unit right behind them, nothing else.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "KMGiB")
	shift, unit := map[string]int{"": 0, "KiB": 10, "MiB": 20, "GiB": 30}[s[len(digits):]]
	n, ok := parseDecimal(digits)
	if !ok || !unit || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("bad size %q: want bytes, or a number with KiB, MiB or GiB", s)
	}
	return int64(n) << shift, nil
}

// parseDecimal reads a decimal number of at most 19 digits that has only one spelling: no sign, blank or leading zero.
func parseDecimal(s string) (uint64, bool) {
	if s == "" || len(s) > 19 || s[0] == '0' && s != "0" { // the length first: an error of ParseUint copies its input
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64) // 19 digits always fit; base 10 takes neither sign nor underscore
	return n, err == nil
}

// entropy returns the Shannon entropy of n bytes by their counts, in bits per byte: 0 for one value only, 8 for all.
func entropy(counts *[256]uint64, n int64) float64 {
	sum := 0.0
	for _, c := range counts {
		if c > 0 {
			p := float64(c) / float64(n)
			sum -= p * math.Log2(p)
		}
	}
	return max(0, sum)
}
