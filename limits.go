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
	"crypto/sha256"
	"fmt"
	"hash/maphash"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	keyLocal = iota // the peer of a Unix socket: the zero clientKey
	keyOwner
	keyIPv4
	keyIPv6     // a /64: the smallest network that a provider gives to one customer
	keyIPv6Wide // its /48: the largest that one customer commonly gets

	wideFactor = 8 // a /48 may take as much as so many of its clients
)

// clientKey is who a limit counts. It is comparable, holds no pointer and costs no allocation.
type clientKey struct {
	id      [16]byte // the masked address, or half of the SHA-256 of an owner id: 128 bits don't meet by chance
	content [8]byte  // see withContent
	kind    uint8
	class   uint8 // the limiter's: one bucket for each class
}

// keyFor returns the client behind a request: the owner id (64 or 40 hex) of a trusted certificate, else its address.
// Owner ids are hashed, so that no id can have a shape that fails. The zero address is the local peer of a Unix socket.
func keyFor(owner string, addr netip.Addr) clientKey {
	switch addr = addr.Unmap(); { // ::ffff:192.0.2.1 is 192.0.2.1: one allowance, not two
	case owner != "":
		sum := sha256.Sum256(append(make([]byte, 0, 64), owner...)) // 64: on the stack
		return clientKey{id: [16]byte(sum[:]), kind: keyOwner}
	case addr.Is4():
		return clientKey{id: addr.As16(), kind: keyIPv4}
	case addr.Is6():
		k := clientKey{id: addr.As16(), kind: keyIPv6}
		clear(k.id[8:])
		return k
	}
	return clientKey{}
}

// wide returns the /48 around an IPv6 client; all others are returned as they are, with false.
func (k clientKey) wide() (clientKey, bool) {
	is := k.kind == keyIPv6
	if is {
		clear(k.id[6:])
		k.kind = keyIPv6Wide
	}
	return k, is
}

// withContent returns the key of one content of this client: duplicates are a class of the limiter like any other. mac
// begins an HMAC of the content under the caller's secret: nobody can aim at 64 bits of it, among his own contents.
func (k clientKey) withContent(mac [8]byte) clientKey {
	k.content = mac
	return k
}

// slots is a counted resource that clients share. One client holds at most each of them, a /48 at most wideMost; either
// has at most a quarter of the places to wait, so that there are always some for others, and soon served.
type slots struct {
	total, each, wideMost, waiting int

	mu    sync.Mutex
	used  int
	uses  map[clientKey]slotUse // of clients and of the /48s around them: only who holds or waits
	queue []*slotWaiter         // oldest first; whenever mu is free, none of them could be served
}

type slotUse struct{ held, waiting int }

type slotWaiter struct {
	key   clientKey
	given chan struct{} // closed under mu when the slot is theirs
}

func newSlots(total, each, wideMost, waiting int) *slots {
	return &slots{total: total, each: each, wideMost: wideMost, waiting: waiting, uses: map[clientKey]slotUse{}}
}

// acquire takes a slot at once or within wait; who gets true must release it. Waiters are served in order of arrival,
// but for those whose client has all it may hold. False: none in time, too many wait already, or ctx is done.
func (s *slots) acquire(ctx context.Context, key clientKey, wait time.Duration) bool {
	s.mu.Lock()
	now := s.may(key)
	if now {
		s.add(key, 1, 0)
	}
	if now || wait <= 0 || !s.mayWait(key) {
		s.mu.Unlock()
		return now
	}
	w := &slotWaiter{key, make(chan struct{})}
	s.queue = append(s.queue, w)
	s.add(key, 0, 1)
	s.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	select {
	case <-w.given:
		return true
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, w)
	if i < 0 {
		return true // handed over in the same moment: theirs, and theirs to release
	}
	s.queue = slices.Delete(s.queue, i, i+1)
	s.add(key, 0, -1)
	return false
}

// release gives a slot back, to the first waiter who may have it.
func (s *slots) release(key clientKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(key, -1, 0)
	s.queue = slices.DeleteFunc(s.queue, func(w *slotWaiter) bool {
		may := s.may(w.key)
		if may {
			s.add(w.key, 1, -1)
			close(w.given)
		}
		return may
	})
}

// inUse returns the number of slots taken.
func (s *slots) inUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

// busy says whether more than half of the slots are taken.
func (s *slots) busy() bool { return 2*s.inUse() > s.total }

func (s *slots) may(key clientKey) bool {
	wide, _ := key.wide()
	return s.used < s.total && s.uses[key].held < s.each && s.uses[wide].held < s.wideMost
}

func (s *slots) mayWait(key clientKey) bool {
	wide, _ := key.wide()
	return len(s.queue) < s.waiting && max(s.uses[key].waiting, s.uses[wide].waiting) < max(1, s.waiting/4)
}

func (s *slots) add(key clientKey, held, waiting int) {
	s.used += held
	for k, ok := key, true; ok; k, ok = k.wide() {
		use := slotUse{s.uses[k].held + held, s.uses[k].waiting + waiting}
		if s.uses[k] = use; use == (slotUse{}) {
			delete(s.uses, k)
		}
	}
}

// The classes of limits.
const (
	rateCreate = iota
	rateRead
	rateMiss
	rateAuth
	rateRegister
	rateBytes
	rateFree      // creations without proof of work
	rateDuplicate // the same content again: keys from withContent
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

// limiter holds every bucket in one table. A bucket is one number, the time when it will be full again ("theoretical
// arrival time"), so that a full one and none at all are the same thing, and forgetting a full one loses nothing.
type limiter struct {
	rates [rateClasses]rate
	start time.Time
	seed  maphash.Seed // random: nobody can aim at another's bucket; of 100,000 keys no two meet in 64 bits by chance
	most  int          // buckets

	mu      sync.Mutex
	at      map[uint64]int32 // hash of a key -> index in buckets
	buckets []bucket         // a ring by last use, from and to number 0, which is no bucket
	hand    int              // the bucket that was looked at last whether it is full by now
}

type bucket struct {
	key          uint64
	full         int64 // ns since limiter.start
	older, newer int32 // seen just before it and just after it
}

func newLimiter(rates [rateClasses]rate, most int, start time.Time) *limiter {
	return &limiter{rates: rates, start: start, most: most, seed: maphash.MakeSeed(), at: map[uint64]int32{},
		buckets: make([]bucket, 1)}
}

// size returns how many buckets are remembered.
func (l *limiter) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.at)
}

const (
	limitTake   = iota // charge what is there, else nothing; more than the whole limit is never there
	limitAsk           // answer as take would: for what is asked before a lookup and charged after it
	limitCharge        // also what is not there, as a debt: else a hundred who ask for the last unit would share it
	limitGive          // give back what was charged
)

func (l *limiter) take(x due, now time.Time) decision { return l.turn(limitTake, x, now) }
func (l *limiter) ask(x due, now time.Time) decision  { return l.turn(limitAsk, x, now) }
func (l *limiter) charge(x due, now time.Time)        { l.turn(limitCharge, x, now) }
func (l *limiter) give(x due, now time.Time)          { l.turn(limitGive, x, now) }

// free returns the due of a creation without work (remaining divided by its cost is how many there are). While elevated
// the allowance is one an hour: it costs all that a client has, and needs it.
func (l *limiter) free(key clientKey, elevated bool) due {
	x := due{rateFree, key, 1, 1}
	if elevated {
		x.cost = max(1, l.rates[rateFree].n)
	}
	return x
}

// turn judges a client's bucket and that of the /48 around it, and charges both or neither.
func (l *limiter) turn(how int, x due, now time.Time) (d decision) {
	r, t := l.rates[x.class], int64(now.Sub(l.start))
	if r.n == 0 {
		return decision{allowed: x.class != rateFree} // no limit, but of free creations there are none
	}
	r.n *= max(1, x.factor)
	x.key.class = uint8(x.class)
	around, ok := x.key.wide()
	key, wide := maphash.Comparable(l.seed, x.key), maphash.Comparable(l.seed, around)
	l.mu.Lock()
	defer l.mu.Unlock()
	was := max(t, l.buckets[l.at[key]].full)
	d, full := r.judge(how, max(0, x.cost), was, t)
	if ok {
		r.n *= wideFactor
		wideWas := max(t, l.buckets[l.at[wide]].full)
		wd, wideFull := r.judge(how, max(0, x.cost), wideWas, t)
		if !d.allowed || !wd.allowed {
			full, wideFull = was, wideWas
		}
		if wd.retryAfter > d.retryAfter || wd.retryAfter == d.retryAfter && wd.remaining < d.remaining {
			d = wd // the tighter of the two speaks; only a refusal has retryAfter
		}
		l.put(wide, wideFull, t)
	}
	l.put(key, full, t)
	return d
}

// judge returns the decision on a bucket that is full again at was, and when it is if the decision is carried out.
func (r rate) judge(how int, cost, was, t int64) (d decision, full int64) {
	per := int64(r.per)
	price := max(min(cost, 1), mulDiv(min(cost, r.n), per, r.n)) // the time to get that much back; nothing is free
	d, full = decision{allowed: true, limit: r.n}, was
	switch {
	case how == limitGive:
		full = max(t, was-price)
	case how == limitCharge:
		full = max(was, min(was+price, t+16*per)) // a debt has an end
	case cost > r.n:
		d.allowed, d.retryAfter = false, r.per
	case was+price-t > per:
		d.allowed, d.retryAfter = false, time.Duration(was+price-t-per)
	case how == limitTake:
		full = was + price
	}
	d.remaining, d.reset = min(r.n, mulDiv(max(0, per-(full-t)), r.n, per)), time.Duration(full-t)
	return d, full
}

// mulDiv returns a*b/c by float64, raised by 2^-51 of itself: more than its roundings can take away. So what is whole
// stays whole, and with spans below 2^50 ns (13 days) all parts of a limit together never cost more than the limit.
func mulDiv(a, b, c int64) int64 {
	return int64(float64(a) * float64(b) / float64(c) * (1 + 0x1p-51))
}

// put stores a bucket as the last seen. A new one takes the place of one that is full by now, else one more, else that
// of the least recently seen. A look at the next 16 finds a full one if there are many: a flood of clients who owe
// nothing any more displaces nobody who does.
func (l *limiter) put(key uint64, full, t int64) {
	i, ok := l.at[key]
	if !ok && full <= t {
		return
	}
	for n := 0; i == 0 && n < min(16, len(l.buckets)-1); n++ {
		l.hand = l.hand%(len(l.buckets)-1) + 1
		if l.buckets[l.hand].full <= t {
			i = int32(l.hand)
		}
	}
	if i == 0 && len(l.buckets) > l.most {
		i = l.buckets[0].newer
	} else if i == 0 {
		i = int32(len(l.buckets))
		l.buckets = append(l.buckets, bucket{key: key, older: i, newer: i})
	}
	if b := &l.buckets[i]; !ok {
		delete(l.at, b.key)
		l.at[key], b.key = i, key
	}
	b, first := &l.buckets[i], &l.buckets[0]
	l.buckets[b.older].newer, l.buckets[b.newer].older = b.newer, b.older
	b.full, b.older, b.newer = full, first.older, 0
	l.buckets[b.older].newer, first.older = i, i
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
