package main

// What one client may take: requests and bytes an hour, transfer slots, password derivations, creations without work,
// wrong passwords for a paste, contents stored again; and Shannon entropy. (RFC 4291 for the shape of IPv6 addresses; GCRA as in ITU-T I.371.)
//
// Invariants: a client is a clientKey and nothing else, so a fresh self-signed certificate or a neighbouring address of one's
// own network buys nothing. Every map and queue here is bounded whatever strangers send, and forgets who owes nothing.
// No lock is held while anybody waits. Values in, values out: no request, answer, store or clock is known here. Times come in
// as `now`, a time.Time with its monotonic reading (time.Now as it is), so that a wall clock that is set moves no limit.

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash/maphash"
	"math"
	"math/bits"
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
)

// clientKey is who a limit counts. It is comparable, holds no pointer (the maps are skipped by the collector) and costs no
// allocation.
type clientKey struct {
	id   [16]byte // the masked address, zeros behind it, or half of the SHA-256 of an owner id (128 bits: none is met by chance)
	kind uint8
}

// keyFor returns the client behind a request: the owner id (64 or 40 hex) of a trusted certificate, else its address. Owner ids
// are hashed, so that no id can have a shape that fails. The zero address is the local Unix-socket peer.
func keyFor(owner string, addr netip.Addr) (k clientKey) {
	addr = addr.Unmap() // ::ffff:192.0.2.1 is 192.0.2.1: one allowance, not two
	switch {
	case owner != "":
		sum := sha256.Sum256(append(make([]byte, 0, 64), owner...)) // 64: on the stack
		copy(k.id[:], sum[:])
		k.kind = keyOwner
	case addr.Is4():
		a := addr.As4()
		copy(k.id[:], a[:])
		k.kind = keyIPv4
	case addr.Is6():
		a := addr.As16()
		copy(k.id[:8], a[:])
		k.kind = keyIPv6
	}
	return k
}

// wide returns the /48 around an IPv6 client, which is held to 8 times the client's limit; false for all others.
func (k clientKey) wide() (clientKey, bool) {
	if k.kind != keyIPv6 {
		return clientKey{}, false
	}
	clear(k.id[6:])
	k.kind = keyIPv6Wide
	return k, true
}

// slots is a counted resource shared out among clients: at most total in all, at most each for one client. A slot that comes
// free is handed to the first waiter who may have it; nobody else is woken. (A /48 at 8 times an eighth is everything: total
// bounds it already.)
type slots struct {
	total, each          int
	queueTotal, queueOne int // the most that wait: in all, for one client

	mu      sync.Mutex
	used    int
	clients map[clientKey]slotUse // only who holds or waits
	queue   []*slotWaiter         // oldest first; whenever mu is free, none of them could be served
}

type slotUse struct{ held, waiting int }

type slotWaiter struct {
	key   clientKey
	given chan struct{} // closed under mu when the slot is theirs
}

// newSlots returns total transfer slots (1 or more), an eighth of them for one client.
func newSlots(total int) *slots {
	return &slots{total: total, each: max(1, total/8), queueTotal: 4 * total, queueOne: total, clients: map[clientKey]slotUse{}}
}

// acquire takes a slot for a client, at once or within wait; a caller that gets true must release it. The wait is for bursts: 64
// tiny uploads at once from one client take their turns within milliseconds instead of failing. False: none in time, too many
// waiting already, or ctx done.
func (s *slots) acquire(ctx context.Context, key clientKey, wait time.Duration) bool {
	s.mu.Lock()
	use := s.clients[key]
	if s.used < s.total && use.held < s.each {
		s.take(key)
		s.mu.Unlock()
		return true
	}
	if wait <= 0 || len(s.queue) >= s.queueTotal || use.waiting >= s.queueOne {
		s.mu.Unlock()
		return false
	}
	w := &slotWaiter{key, make(chan struct{})}
	s.queue = append(s.queue, w)
	use.waiting++
	s.clients[key] = use
	s.mu.Unlock()

	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-w.given:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, w)
	if i < 0 {
		return true // handed over in the same moment: theirs, and theirs to release
	}
	s.leave(i)
	return false
}

// release gives a slot back.
func (s *slots) release(key clientKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used--
	use := s.clients[key]
	use.held--
	s.set(key, use)
	// One hand-over is enough: either everything was in use, or only waiters of this client could not be served.
	for i, w := range s.queue {
		if s.clients[w.key].held < s.each {
			s.leave(i)
			s.take(w.key)
			close(w.given)
			return
		}
	}
}

// inUse returns the number of slots taken.
func (s *slots) inUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

func (s *slots) take(key clientKey) {
	s.used++
	use := s.clients[key]
	use.held++
	s.clients[key] = use
}

func (s *slots) leave(i int) {
	key := s.queue[i].key
	s.queue = slices.Delete(s.queue, i, i+1)
	use := s.clients[key]
	use.waiting--
	s.set(key, use)
}

func (s *slots) set(key clientKey, use slotUse) {
	if s.clients[key] = use; use == (slotUse{}) {
		delete(s.clients, key)
	}
}

// kdfQueue keeps password derivations (0.1 s of a core each) from starving everything else: at most so many at once, one at a
// time for a client, 8 waiting, in order of arrival but for those whose client is being served already.
type kdfQueue struct{ slots }

// newKDFQueue returns a queue that runs at most running derivations at once (cores minus one, and at least one).
func newKDFQueue(running int) *kdfQueue {
	return &kdfQueue{slots{total: max(1, running), each: 1, queueTotal: 8, queueOne: 8, clients: map[clientKey]slotUse{}}}
}

// do runs f in its turn, in the caller's goroutine. It returns errBusy when 8 wait already and ctx.Err() when the caller gave up
// while waiting: f has not run then. A panic in f frees the slot on its way up.
func (q *kdfQueue) do(ctx context.Context, key clientKey, f func()) error {
	ok := q.acquire(ctx, key, time.Hour) // the caller's context ends sooner: nobody waits an hour
	if ok {
		defer q.release(key)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !ok {
		return errBusy
	}
	f()
	return nil
}

// The classes of limits; each client has a bucket of its own in every one.
const (
	rateCreate = iota
	rateRead
	rateMiss
	rateAuth
	rateRegister
	rateBytes
	rateFree // creations without proof of work
	rateClasses
)

// rateNames are the settings of the classes, for the log.
var rateNames = [rateClasses]string{"RATE_CREATE", "RATE_READ", "RATE_MISS", "RATE_AUTH", "RATE_REGISTER", "RATE_BYTES", "POW_FREE"}

// rate allows n units per span of time, all of them at once if none were used before; n = 0 is no limit.
type rate struct {
	n   int64
	per time.Duration
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

// parseSize reads bytes, plain or in KiB, MiB, GiB: canonical decimal digits with the unit right behind them, nothing else.
func parseSize(s string) (int64, error) {
	digits, shift := s, 0
	for i, unit := range []string{"KiB", "MiB", "GiB"} {
		if d, ok := strings.CutSuffix(s, unit); ok {
			digits, shift = d, 10*(i+1)
		}
	}
	n, ok := parseDecimal(digits)
	if !ok || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("bad size %q: want bytes, or a number with KiB, MiB or GiB", s)
	}
	return int64(n) << shift, nil
}

// parseDecimal reads a decimal number of at most 19 digits that has exactly one spelling: no sign, no blank, no leading zero.
func parseDecimal(s string) (uint64, bool) {
	if s == "" || len(s) > 19 || s[0] == '0' && s != "0" { // the length first: an error of ParseUint copies its input
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64) // 19 digits always fit; base 10 takes neither sign nor underscore
	return n, err == nil
}

// decision is a limiter's answer; all zero but allowed when the class has no limit.
type decision struct {
	allowed          bool
	limit, remaining int64         // units: the most at once, what is left now
	reset            time.Duration // until all is there again
	retryAfter       time.Duration // when refused: until the same request would be allowed
}

// limiter holds every bucket in one bounded table. A bucket is one number, the time when it will be full again ("theoretical
// arrival time" of GCRA), so that a full bucket and none at all are the same thing and dropping a full one loses nothing.
//
// The table is cut into shards with a lock each. An IPv6 client lives in the shard of its /48, so both buckets are judged and
// charged under one lock, and somebody who floods from one /48 presses on that shard alone.
type limiter struct {
	rates  [rateClasses]rate
	start  time.Time
	seed   maphash.Seed // random: nobody can aim at a shard
	shards []limitShard
	room   int // buckets in a shard
}

type limitShard struct {
	mu      sync.Mutex
	touches uint64 // counts accesses: the order of last use, exact even when clock readings are equal
	buckets map[limitKey]bucket
}

type limitKey struct {
	client clientKey
	class  uint8
}

type bucket struct {
	full int64  // ns since limiter.start
	seen uint64 // limitShard.touches at the last access
}

// newLimiter returns a limiter of at most most buckets (1 or more), whose clock begins at start.
func newLimiter(rates [rateClasses]rate, most int, start time.Time) *limiter {
	l := &limiter{rates: rates, start: start, seed: maphash.MakeSeed(), shards: make([]limitShard, 1)}
	for n := 2; n <= 64 && most/n >= 1024; n *= 2 {
		l.shards = make([]limitShard, n)
	}
	l.room = max(1, most/len(l.shards))
	for i := range l.shards {
		l.shards[i].buckets = map[limitKey]bucket{}
	}
	return l
}

// size returns how many buckets are remembered.
func (l *limiter) size() (n int) {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		n += len(s.buckets)
		s.mu.Unlock()
	}
	return n
}

// take charges cost units if they are there and nothing otherwise; a cost above the whole limit is never there. factor (1 to
// 1000) multiplies the limit: for trusted owners in the classes that say so. For IPv6 the /48 must have them too, at 8 times.
func (l *limiter) take(class int, key clientKey, cost, factor int64, now time.Time) decision {
	return l.turn(class, key, cost, factor, now, limitTake)
}

// peek answers as take would and charges nothing: for what is asked before a lookup and charged, with charge, after it.
func (l *limiter) peek(class int, key clientKey, cost, factor int64, now time.Time) decision {
	return l.turn(class, key, cost, factor, now, limitPeek)
}

// charge takes what is not there too, as a debt to be waited off (16 times the limit at most). Without it a hundred connections
// that all peek at the last unit would share its price.
func (l *limiter) charge(class int, key clientKey, cost, factor int64, now time.Time) {
	l.turn(class, key, cost, factor, now, limitCharge)
}

// give takes back what take or charge charged.
func (l *limiter) give(class int, key clientKey, cost, factor int64, now time.Time) {
	l.turn(class, key, cost, factor, now, limitGive)
}

const (
	limitPeek = iota
	limitTake
	limitCharge
	limitGive
)

func (l *limiter) turn(class int, key clientKey, cost, factor int64, now time.Time, how int) (d decision) {
	r, t := l.rates[class], int64(now.Sub(l.start))
	if r.n == 0 {
		return decision{allowed: true}
	}
	home, keys, n := key, [2]limitKey{{key, uint8(class)}}, 1
	if wide, ok := key.wide(); ok {
		home, keys[1], n = wide, limitKey{wide, uint8(class)}, 2
	}
	s := &l.shards[maphash.Comparable(l.seed, home)&uint64(len(l.shards)-1)]
	s.mu.Lock()
	defer s.mu.Unlock()
	var was, full [2]int64
	for i := range n {
		var di decision
		di, was[i], full[i] = s.judge(keys[i], rate{r.n * max(1, factor) << (3 * i), r.per}, max(0, cost), t, how)
		// The tighter of the two speaks; only a refusal has retryAfter.
		if i == 0 || di.retryAfter > d.retryAfter || di.retryAfter == d.retryAfter && di.remaining < d.remaining {
			d = di
		}
	}
	if !d.allowed {
		full = was
	}
	for i := range n {
		s.put(keys[i], full[i], t, l.room)
	}
	return d
}

// judge returns the decision on one bucket, when that bucket is full again, and when it is if the decision is carried out.
func (s *limitShard) judge(k limitKey, r rate, cost, t int64, how int) (d decision, was, full int64) {
	per := int64(r.per)
	was = max(s.buckets[k].full, t)
	price := max(min(cost, 1), mulDiv(cost, per, r.n)) // the time in which that much comes back; nothing is free
	d, full = decision{allowed: true, limit: r.n}, was
	switch {
	case how == limitGive:
		full = max(t, was-price)
	case how == limitCharge:
		full = max(was, min(was+min(price, per), t+16*per))
	case cost > r.n:
		d.allowed, d.retryAfter = false, r.per
	case was+price-t > per:
		d.allowed, d.retryAfter = false, time.Duration(was+price-t-per)
	case how == limitTake:
		full = was + price
	}
	d.remaining, d.reset = mulDiv(max(0, per-(full-t)), r.n, per), time.Duration(full-t)
	return d, was, full
}

// put stores a bucket. A full one is dropped: it says no more than its absence.
func (s *limitShard) put(k limitKey, full, t int64, room int) {
	if full <= t {
		delete(s.buckets, k)
		return
	}
	if len(s.buckets) >= room {
		if _, ok := s.buckets[k]; !ok {
			s.makeRoom(t, room)
		}
	}
	s.touches++
	s.buckets[k] = bucket{full, s.touches}
}

// makeRoom drops the buckets that are full by now, then as many of the least recently seen as are needed to have a sixteenth of
// the room free, so that a flood pays for the walk (some 50 µs, one shard's lock) once in a hundred new clients.
func (s *limitShard) makeRoom(t int64, room int) {
	seen := make([]uint64, 0, room)
	for k, b := range s.buckets {
		if b.full <= t {
			delete(s.buckets, k)
		} else {
			seen = append(seen, b.seen)
		}
	}
	over := len(seen) - (room - max(1, room/16))
	if over <= 0 {
		return
	}
	slices.Sort(seen)
	for k, b := range s.buckets {
		if b.seen <= seen[over-1] {
			delete(s.buckets, k)
		}
	}
}

// mulDiv returns a*b/c, rounded down, by way of 128 bits; what does not fit becomes the largest int64. None is negative.
func mulDiv(a, b, c int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi >= uint64(c) {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, uint64(c))
	return int64(min(q, math.MaxInt64))
}

// freeTake reserves one creation without work and returns what to give back (with give, class rateFree, factor 1) if the
// creation fails. False: none is left. While elevated the allowance is one an hour: it costs all that a client has, and needs it.
func (l *limiter) freeTake(key clientKey, elevated bool, now time.Time) (cost int64, ok bool) {
	cost = l.freeCost(elevated)
	return cost, cost > 0 && l.take(rateFree, key, cost, 1, now).allowed
}

// freeLeft returns the creations left to a client without work.
func (l *limiter) freeLeft(key clientKey, elevated bool, now time.Time) int64 {
	cost := l.freeCost(elevated)
	if cost == 0 {
		return 0
	}
	return l.peek(rateFree, key, cost, 1, now).remaining / cost
}

func (l *limiter) freeCost(elevated bool) int64 {
	if n := l.rates[rateFree].n; elevated || n == 0 { // 0 is "always work" here, not "no limit"
		return n
	}
	return 1
}

const (
	guessMost   = 10 // wrong passwords for one paste before each further try needs work: a typing reader's patience
	guessWindow = 15 * time.Minute
	guessPastes = 10_000 // remembered; forgetting one early costs a guesser as many derivations, at 20 a minute a client
)

// guesses counts wrong passwords for each paste, whoever sends them: a guesser with many addresses escapes every other limit.
type guesses struct {
	start  time.Time
	mu     sync.Mutex
	pastes map[string]guessLog
}

type guessLog struct {
	n  int              // wrong ones ever
	at [guessMost]int64 // when the last ten came: ns since guesses.start, the n-th at n modulo ten
}

func newGuesses(start time.Time) *guesses {
	return &guesses{start: start, pastes: map[string]guessLog{}}
}

// noteWrong records a wrong password for a paste that exists.
func (g *guesses) noteWrong(id string, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p, ok := g.pastes[id]
	if !ok && len(g.pastes) >= guessPastes { // a walk of 0.1 ms behind each derivation of 100 ms
		oldest, age := "", int64(math.MaxInt64)
		for id, p := range g.pastes {
			if last := p.at[(p.n-1)%guessMost]; last < age {
				oldest, age = id, last
			}
		}
		delete(g.pastes, oldest)
	}
	p.at[p.n%guessMost] = int64(now.Sub(g.start))
	p.n++
	g.pastes[strings.Clone(id)] = p // a copy: an id cut out of a request must not keep all of it
}

// guessed says whether the next try for a paste needs proof of work: its last ten wrong ones came within 15 minutes.
func (g *guesses) guessed(id string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.pastes[id]
	return p.n >= guessMost && int64(now.Sub(g.start))-p.at[p.n%guessMost] < int64(guessWindow)
}

const duplicatesMost = 1 << 17 // sightings remembered: 10 MiB at most

// duplicates remembers which contents were stored in the last window seconds, and by whom: the newest duplicatesMost of them.
// (Who wants older ones forgotten pays for each newer one with a creation.) It is one goroutine's, so it has no lock.
type duplicates struct {
	window      int64
	ring        []sighting    // number n is ring[n%duplicatesMost]
	first, next int           // numbers of the oldest that is remembered and of the one that comes
	latest      map[int64]int // content -> number of its last sighting
}

// sighting is a content stored once. content is 64 bits of an HMAC: two of a million contents meet once in 37 million times, and
// then count as one.
type sighting struct {
	content int64
	client  clientKey
	at      int64 // seconds since some start, monotonic: none is older than the one before
	before  int   // number of the content's sighting before, less than first if there is none
}

// count returns how many sightings there are of v's content by v's client and by all, and when the oldest of each was; pending
// are newer ones that were not added yet.
func (d *duplicates) count(v sighting, pending []sighting) (own, firstOwn, all, first int64) {
	see := func(o sighting) {
		all, first = all+1, o.at
		if o.client == v.client {
			own, firstOwn = own+1, o.at
		}
	}
	for _, o := range slices.Backward(pending) {
		if o.content == v.content {
			see(o)
		}
	}
	n, ok := d.latest[v.content]
	for ok && n >= d.first && d.ring[n%duplicatesMost].at > v.at-d.window {
		o := d.ring[n%duplicatesMost]
		see(o)
		n = o.before
	}
	return own, firstOwn, all, first
}

// add remembers a sighting and forgets those that are too old or too many.
func (d *duplicates) add(v sighting) {
	for ; d.first < d.next; d.first++ {
		old := d.ring[d.first%duplicatesMost]
		if old.at > v.at-d.window && d.next-d.first < duplicatesMost {
			break
		}
		if d.latest[old.content] == d.first {
			delete(d.latest, old.content)
		}
	}
	v.before = -1
	if n, ok := d.latest[v.content]; ok {
		v.before = n
	}
	d.latest[v.content] = d.next
	if i := d.next % duplicatesMost; i < len(d.ring) {
		d.ring[i] = v
	} else {
		d.ring = append(d.ring, v)
	}
	d.next++
}

// entropy returns the Shannon entropy of n bytes by their counts, in bits per byte: 0 for one value only, 8 for all alike.
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
