package main

// The limiter against a model of exact fractions, slots in bubbles of held time, and what both must bound.

import (
	"context"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var testStart = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func addrKey(s string) clientKey { return keyFor("", netip.MustParseAddr(s)) }

// nthKey returns the n-th of many IPv4 clients, netKey the n-th /64 of one /48, farKey an IPv6 client of the n-th /48.
func nthKey(n int) clientKey {
	return keyFor("", netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}))
}

func netKey(n int) clientKey { return addrKey(fmt.Sprintf("2001:db8:1:%x::1", n)) }

func farKey(n int) clientKey {
	return keyFor("", netip.AddrFrom16([16]byte{0x20, 1, byte(n >> 16), byte(n >> 8), byte(n)}))
}

func oneKey(int) clientKey { return nthKey(1) }

func testLimiter(class int, r rate) *limiter {
	var all [rateClasses]rate
	all[class] = r
	return newLimiter(all, 100_000, testStart)
}

func TestClientKey(t *testing.T) {
	owner, local := keyFor(strings.Repeat("ab", 32), netip.MustParseAddr("192.0.2.1")), keyFor("", netip.Addr{})
	wide := func(s string) clientKey { w, _ := addrKey(s).wide(); return w }
	ofContent := func(key clientKey, n byte) clientKey { key.content[0] = n; return key }
	for name, same := range map[string][2]clientKey{
		"IPv4-mapped is the IPv4 address": {addrKey("::ffff:192.0.2.1"), addrKey("192.0.2.1")},
		"one /64":                         {addrKey("2001:db8:1:2::1"), addrKey("2001:db8:1:2:ffff::9")},
		"zone ignored":                    {addrKey("fe80::1%eth0"), addrKey("fe80::2")},
		"owner wins over address":         {owner, keyFor(strings.Repeat("ab", 32), netip.Addr{})},
		"local is the zero key":           {local, clientKey{}},
		"one /48":                         {wide("2001:db8:1:2::1"), wide("2001:db8:1:ffff::1")},
	} {
		if same[0] != same[1] {
			t.Errorf("%s: %v, %v", name, same[0], same[1])
		}
	}
	seen := map[clientKey]bool{}
	for i, k := range []clientKey{local, owner, keyFor(strings.Repeat("ab", 20), netip.Addr{}), addrKey("192.0.2.1"),
		addrKey("192.0.2.2"), addrKey("0.0.0.0"), addrKey("::"), wide("2001:db8::1"), wide("2001:db8:2::1"),
		addrKey("2001:db8::1"), addrKey("2001:db8:1:3::1"), ofContent(nthKey(1), 1), ofContent(nthKey(1), 2),
		ofContent(nthKey(2), 1), ofContent(addrKey("2001:db8::1"), 1)} {
		w, ok := k.wide()
		if ok != (k.network.Bits() == 64) || (w == k) == ok || w.content != k.content || seen[k] {
			t.Errorf("%d: %v, a /48 %v: %v", i, k, ok, w)
		}
		seen[k] = true
	}
}

// ---- slots ----

// queued starts an acquire in the bubble and waits until it is served or waits; who is served does then.
func queued(t *testing.T, s *slots, key clientKey, then func()) {
	go func() {
		if s.acquire(t.Context(), key, time.Minute) {
			then()
		}
	}()
	synctest.Wait()
}

// waiters returns how many wait.
func (s *slots) waiters() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}

func (s *slots) leftBehind(t *testing.T) {
	t.Helper()
	if s.held.used+s.waiting.used+len(s.held.has)+len(s.waiting.has)+len(s.queue) != 0 {
		t.Errorf("left behind: %+v, %+v, %d waiting", s.held, s.waiting, len(s.queue))
	}
}

func TestSlotsBounds(t *testing.T) {
	for _, c := range []struct {
		name                           string
		total, each, wideMost, waiting int
		key                            func(i int) clientKey
		held, waits                    int
		othersGet, othersWait, busy    bool
	}{
		{"one client", 64, 8, 16, 256, oneKey, 8, 64, true, false, false},
		{"one /48", 64, 8, 16, 256, netKey, 16, 64, true, false, false},
		{"everybody", 64, 8, 16, 256, nthKey, 64, 256, false, false, true},
		{"one client, derivations", 1, 1, 1, 8, oneKey, 1, 2, false, true, true},
		{"one /48, derivations", 1, 1, 1, 8, netKey, 1, 2, false, true, true},
		{"one /48, derivations on nine cores", 8, 1, 2, 8, netKey, 2, 2, true, false, false},
		{"everybody, derivations", 1, 1, 1, 8, nthKey, 1, 8, false, false, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, other := newSlots(c.total, c.each, c.wideMost, c.waiting), addrKey("2001:db8:2::1")
			for i := range 2 * (c.total + c.waiting) {
				queued(t, s, c.key(i), func() {})
			}
			if s.inUse() != c.held || len(s.queue) != c.waits || s.busy() != c.busy {
				t.Errorf("%s: %d held, %d waiting, busy %v", c.name, s.inUse(), len(s.queue), s.busy())
			}
			if s.acquire(t.Context(), other, 0) != c.othersGet {
				t.Errorf("%s: another client gets one: %v", c.name, !c.othersGet)
			}
			waiting := len(s.queue)
			queued(t, s, other, func() {})
			if (len(s.queue) > waiting) != c.othersWait && !c.othersGet {
				t.Errorf("%s: another client may wait: %v", c.name, !c.othersWait)
			}
		})
	}
}

// TestSlotsOrder: each waits for a slot and for its own client, and for nobody else's.
func TestSlotsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, begin, served := newSlots(2, 1, 1, 100), time.Now(), atomic.Int64{}
		for i, c := range []struct {
			what   string
			key    clientKey
			served int // the second, of two at a time
		}{
			{"a", nthKey(1), 0}, {"waits for a though a slot is free", nthKey(1), 1},
			{"does not wait behind it", netKey(1), 0}, {"waits for its /48", netKey(2), 1},
			{"b waits for a slot", nthKey(2), 2}, {"a again", nthKey(1), 2}, {"c", nthKey(3), 3},
		} {
			queued(t, s, c.key, func() {
				if got := int(time.Since(begin).Seconds()); got != c.served {
					t.Errorf("%d, %s: served in second %d", i, c.what, got)
				}
				served.Add(1)
				time.Sleep(time.Second)
				s.release(c.key)
			})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s.leftBehind(t); served.Load() != 7 {
			t.Errorf("%d were served", served.Load())
		}
	})
}

// TestSlotsOneNetwork: callers of one /48 try without a pause; a reader from elsewhere is soon served, always.
func TestSlotsOneNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, over := newSlots(1, 1, 1, 8), atomic.Bool{}
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				for !over.Load() {
					if s.acquire(t.Context(), netKey(i), 5*time.Second) {
						time.Sleep(100 * time.Millisecond) // a derivation
						s.release(netKey(i))
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
		}
		for range 20 {
			time.Sleep(77 * time.Millisecond)
			begin := time.Now()
			if !s.acquire(t.Context(), nthKey(1), 5*time.Second) || time.Since(begin) > 500*time.Millisecond {
				t.Errorf("after %v the reader had no turn, or waited for more than five others", time.Since(begin))
				break
			}
			s.release(nthKey(1))
		}
		over.Store(true)
		wg.Wait()
	})
}

// TestSlotsParallel: nobody ever holds more than allowed, and who is told true in the moment in which the wait ends, by
// time or by leaving, has a slot.
func TestSlotsParallel(t *testing.T) {
	s := newSlots(8, 2, 3, 16)
	var held [7]atomic.Int64 // of six clients, and of the /48 of the first three
	var all, served atomic.Int64
	var wg sync.WaitGroup
	for g := range 48 {
		wg.Go(func() {
			who, near, key := g%6, 6, netKey(g%6)
			if who >= 3 {
				near, key = who, nthKey(who)
			}
			moment := func() time.Duration { return time.Duration(rand.IntN(500)) * time.Microsecond }
			for range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), moment())
				if s.acquire(ctx, key, moment()) {
					if all.Add(1) > 8 || held[who].Add(1) > 2 || near == 6 && held[near].Add(1) > 3 {
						t.Error("more slots than allowed")
					}
					runtime.Gosched()
					if served.Add(1); near == 6 {
						held[near].Add(-1)
					}
					held[who].Add(-1)
					all.Add(-1)
					s.release(key)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	s.leftBehind(t)
	if served.Load() == 0 {
		t.Error("nobody was served")
	}
}

// ---- rates ----

// TestParseRate: what a rate may be, beside the spellings of config_test.go.
func TestParseRate(t *testing.T) {
	for in, want := range map[string]rate{"7/d": {7, 24 * time.Hour}, "1048576GiB/d": {1 << 50, 24 * time.Hour},
		"": {}, "1048577GiB/d": {}, "99999999999999999999/s": {}, "30/min": {}, "1/m ": {}, "01/m": {}, "1.5/m": {},
		"1e3/m": {}, "1_0/m": {}, "30/m/h": {}, "0x1/m": {}, "٣/m": {}} {
		if got, err := parseRate(in); got != want || (err == nil) != (want.n > 0) {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
}

// TestLimiterModel compares random turns with a bucket of exact fractions that is filled drop by drop.
func TestLimiterModel(t *testing.T) {
	for _, c := range []struct {
		r      rate
		factor int64
	}{{rate{30, time.Minute}, 1}, {rate{7, time.Minute}, 5}, {rate{1, time.Hour}, 1}, {rate{13, time.Second}, 1},
		{rate{999_983, time.Hour}, 1}, {rate{200 << 20, time.Hour}, 5}, {rate{1 << 50, time.Second}, 1000},
		{rate{1 << 50, 24 * time.Hour}, 1}, {rate{3, 7 * 24 * time.Hour}, 1}} {
		random := rand.New(rand.NewPCG(3, uint64(c.r.n)))
		l, now, n := testLimiter(rateBytes, c.r), testStart, c.r.n*c.factor
		speed, most := big.NewRat(n, int64(c.r.per)), big.NewRat(n, 1) // units a nanosecond, units
		left, debt := big.NewRat(n, 1), big.NewRat(-15, 1)
		debt.Mul(debt, most)
		pass := func(ns int64) {
			now = now.Add(time.Duration(ns))
			if left.Add(left, new(big.Rat).Mul(speed, big.NewRat(ns, 1))).Cmp(most) > 0 {
				left.Set(most)
			}
		}
		for i := range 3000 {
			pass(random.Int64N(int64(c.r.per)>>random.IntN(20) + 1))
			x := due{rateBytes, nthKey(1), 1 + random.Int64N(n>>random.IntN(40)+1), c.factor}
			cost := big.NewRat(min(x.cost, n), 1)
			slack := new(big.Rat).Mul(speed, big.NewRat(int64(i+2), 1)) // each turn may round by a nanosecond
			switch random.IntN(8) {
			case 0:
				l.give(x, now)
				left.Add(left, cost)
				pass(0)
			case 1:
				l.charge(x, now)
				if left.Sub(left, cost).Cmp(debt) < 0 {
					left.Set(debt)
				}
			default:
				asked := l.ask(x, now)
				d := l.take(x, now)
				spare := new(big.Rat).Sub(left, big.NewRat(x.cost, 1))
				if asked.allowed != d.allowed || asked.retryAfter != d.retryAfter || d.limit != n {
					t.Fatalf("%v turn %d: asked %+v, took %+v", c.r, i, asked, d)
				}
				if d.allowed && spare.Cmp(new(big.Rat).Neg(slack)) < 0 || !d.allowed && spare.Cmp(slack) > 0 {
					t.Fatalf("%v turn %d: %+v with %v to spare", c.r, i, d, spare.FloatString(3))
				}
				if d.allowed {
					left.Sub(left, cost)
				}
				off := new(big.Rat).Sub(left, big.NewRat(d.remaining, 1))
				if left.Sign() > 0 && off.Abs(off).Cmp(slack.Add(slack, big.NewRat(1, 1))) > 0 {
					t.Fatalf("%v turn %d: %d remain, want %v", c.r, i, d.remaining, left.FloatString(3))
				}
				if !d.allowed && x.cost <= n {
					early := l.ask(x, now.Add(d.retryAfter-1)).allowed
					if pass(int64(d.retryAfter)); early || !l.ask(x, now).allowed {
						t.Fatalf("%v turn %d: retryAfter %v is not the moment", c.r, i, d.retryAfter)
					}
				}
			}
		}
	}
}

// TestLimiterTurns: what the model does not show: when all is back, ends and nonsense, with 3 units a minute.
func TestLimiterTurns(t *testing.T) {
	const class, s = rateMiss, time.Second
	for _, c := range []struct {
		name, turns  string // a verb's letter and a cost each
		remaining    int64
		reset, retry time.Duration
		then         time.Duration
	}{
		{"asked, and refused", "a3 t4", 3, 0, 0, 0},
		{"taken, 20 s later", "t3", 1, 40 * s, 0, 20 * s},
		{"given back without having taken", "g3", 3, 0, 0, 0},
		{"nine who asked for one", strings.Repeat("c1 ", 9), 0, 180 * s, 140 * s, 0},
		{"a debt has an end", strings.Repeat("c9223372036854775807 ", 100), 0, 960 * s, 920 * s, 0},
		{"negative is none", "t-5 g-5", 3, 0, 0, 0},
		{"more than can be", "t9223372036854775807", 3, 0, 0, 0},
	} {
		l := testLimiter(class, rate{3, time.Minute})
		for _, turn := range strings.Fields(c.turns) {
			x := due{class, nthKey(1), 0, 1}
			fmt.Sscan(turn[1:], &x.cost)
			map[byte]func(){'a': func() { l.ask(x, testStart) }, 't': func() { l.take(x, testStart) },
				'c': func() { l.charge(x, testStart) }, 'g': func() { l.give(x, testStart) }}[turn[0]]()
		}
		d := l.ask(due{class, nthKey(1), 1, 1}, testStart.Add(c.then))
		if d != (decision{c.retry == 0, 3, c.remaining, c.reset, c.retry}) || (l.size() > 0) != (c.reset > 0) {
			t.Errorf("%s: %+v, %d buckets", c.name, d, l.size())
		}
	}
	l := testLimiter(class, rate{3, time.Minute})
	l.rates[rateAuth], l.rates[rateBytes] = rate{1, time.Minute}, rate{1 << 50, time.Second}
	l.take(due{class, nthKey(1), 3, 1}, testStart)
	if d := l.take(due{rateAuth, nthKey(1), 1, 1}, testStart); !d.allowed {
		t.Errorf("one class pays for another: %+v", d)
	}
	if d := l.take(due{rateBytes, nthKey(1), 1, 1}, testStart); d.remaining == 1<<50 || d.reset == 0 {
		t.Errorf("a unit that comes back in less than a nanosecond was free: %+v", d)
	}
	if d := l.take(due{class, nthKey(2), 15, 5}, testStart); d != (decision{true, 15, 0, time.Minute, 0}) {
		t.Errorf("trusted, all at once: %+v", d)
	}
	if d := l.take(due{rateRead, nthKey(1), 1 << 60, 1}, testStart); d != (decision{allowed: true}) {
		t.Errorf("a class without a limit: %+v", d)
	}
}

func TestLimiterIPv6(t *testing.T) {
	l, got := testLimiter(rateCreate, rate{10, time.Minute}), 0
	take := func(key clientKey) decision {
		d := l.take(due{rateCreate, key, 1, 1}, testStart)
		if d.allowed {
			got++
		}
		return d
	}
	for range 20 {
		take(netKey(0))
	}
	if d := take(netKey(0)); got != 10 || d.limit != 10 {
		t.Fatalf("a /64 got %d: %+v", got, d)
	}
	for i := range 1000 {
		take(netKey(i + 1))
	}
	if d := take(netKey(5000)); got != 80 || d.allowed || d.limit != 80 || d.retryAfter != 750*time.Millisecond {
		t.Fatalf("a /48 got %d: %+v", got, d)
	}
	if l.size() != 72 {
		t.Fatalf("%d buckets, want 71 /64 and one /48: refusals must store nothing", l.size())
	}
	if !take(addrKey("2001:db8:2::1")).allowed || !take(addrKey("192.0.2.1")).allowed {
		t.Fatal("others pay")
	}
	l.give(due{rateCreate, netKey(1), 1, 1}, testStart)
	if !take(netKey(6000)).allowed || take(netKey(6001)).allowed {
		t.Fatal("giving back is not giving back to the /48")
	}
}

// TestLimiterForgets: of those who owe something the half that was seen last stays, the refused among them.
func TestLimiterForgets(t *testing.T) {
	l := testLimiter(rateRegister, rate{1, time.Hour})
	l.most = 100
	take := func(i int) bool { return l.take(due{rateRegister, nthKey(i), 1, 1}, testStart).allowed }
	for i := range 500 {
		if !take(i) || take(0) || l.size() > 100 {
			t.Fatalf("client %d: %d buckets, or a refused one was forgotten", i, l.size())
		}
	}
	for _, i := range []int{499, 451, 399, 1} {
		if forgotten := take(i); forgotten != (i < 400) {
			t.Errorf("client %d: forgotten is %v", i, forgotten)
		}
	}
}

func heapNow() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestLimiterFlooded: whatever the flood, memory is bounded; what the flood's clients owe no more displaces nobody.
func TestLimiterFlooded(t *testing.T) {
	before, now := heapNow(), testStart
	l := testLimiter(rateCreate, rate{30, time.Minute})
	l.rates[rateRegister] = rate{10, time.Hour}
	for i := range 1000 {
		l.take(due{rateRegister, nthKey(1<<20 + i), 10, 1}, now)
	}
	for i := range 400_000 { // four times the room
		now = now.Add(100 * time.Microsecond)
		key := []clientKey{nthKey(i), farKey(i)}[i%2]
		if !l.take(due{rateCreate, key, 1, 1}, now).allowed || l.size() > 100_000 {
			t.Fatalf("a fresh client was refused, or %d buckets are too many", l.size())
		}
	}
	for i := range 1000 {
		if l.ask(due{rateRegister, nthKey(1<<20 + i), 1, 1}, now).allowed {
			t.Fatal("a flood washed away a used-up limit")
		}
	}
	for i := range 300_000 {
		l.take(due{rateRegister, nthKey(i), 10, 1}, now)
	}
	used := heapNow() - before
	if l.size() < 50_000 || l.size() > 100_000 || used > 12<<20 {
		t.Errorf("%d buckets in %d bytes", l.size(), used)
	}
}
