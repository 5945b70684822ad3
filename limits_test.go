package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var testStart = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func addrKey(s string) clientKey { return keyFor("", netip.MustParseAddr(s)) }

// nthKey returns the n-th of many IPv4 clients.
func nthKey(n int) clientKey {
	return keyFor("", netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}))
}

func testRates(class int, r rate) (all [rateClasses]rate) {
	all[class] = r
	return all
}

func TestClientKey(t *testing.T) {
	owner := strings.Repeat("ab", 32)
	same := []struct {
		name string
		a, b clientKey
		same bool
	}{
		{"IPv4-mapped is the IPv4 address", addrKey("::ffff:192.0.2.1"), addrKey("192.0.2.1"), true},
		{"neighbouring IPv4 differ", addrKey("192.0.2.1"), addrKey("192.0.2.2"), false},
		{"one /64", addrKey("2001:db8:1:2::1"), addrKey("2001:db8:1:2:ffff::9"), true},
		{"two /64", addrKey("2001:db8:1:2::1"), addrKey("2001:db8:1:3::1"), false},
		{"zone ignored", addrKey("fe80::1%eth0"), addrKey("fe80::2"), true},
		{"owner wins over address", keyFor(owner, netip.MustParseAddr("192.0.2.1")), keyFor(owner, netip.Addr{}), true},
		{"owners differ", keyFor(owner, netip.Addr{}), keyFor(owner[:40], netip.Addr{}), false},
		{"local is the zero key", keyFor("", netip.Addr{}), clientKey{}, true},
		{"local is not 0.0.0.0", keyFor("", netip.Addr{}), addrKey("0.0.0.0"), false},
		{"local is not ::", keyFor("", netip.Addr{}), addrKey("::"), false},
		{"a v4 address is not the v6 of the same bytes", addrKey("32.1.13.184"), addrKey("2001:db8::"), false},
	}
	for _, c := range same {
		if (c.a == c.b) != c.same {
			t.Errorf("%s: equal is %v", c.name, c.a == c.b)
		}
	}
	w1, ok1 := addrKey("2001:db8:1:2::1").wide()
	w2, ok2 := addrKey("2001:db8:1:ffff::1").wide()
	w3, _ := addrKey("2001:db8:2::1").wide()
	if !ok1 || !ok2 || w1 != w2 || w1 == w3 || w1 == addrKey("2001:db8:1::") {
		t.Error("wide is not the /48 alone")
	}
	for _, k := range []clientKey{{}, addrKey("192.0.2.1"), keyFor(owner, netip.Addr{}), w1} {
		if _, ok := k.wide(); ok {
			t.Errorf("kind %d has a /48", k.kind)
		}
	}
	addr, seen := netip.MustParseAddr("2001:db8::1"), map[clientKey]int{}
	seen[keyFor(owner, addr)]++
	seen[keyFor("", addr)]++
	n := 1.0
	for try := 0; n != 0 && try < 10; try++ { // what an earlier test left running is counted too
		n = testing.AllocsPerRun(100, func() {
			k := keyFor("", addr)
			w, _ := k.wide()
			seen[keyFor(owner, addr)] += seen[k] + seen[w]
		})
	}
	if n != 0 {
		t.Errorf("making and looking up keys allocates %v times", n)
	}
}

func TestSlotsOneClientHoldsAnEighth(t *testing.T) {
	s, ctx := newSlots(64), t.Context()
	one, other := nthKey(1), nthKey(2)
	for i := range 8 {
		if !s.acquire(ctx, one, 0) {
			t.Fatalf("slot %d of an eighth refused", i+1)
		}
	}
	if s.acquire(ctx, one, 0) {
		t.Fatal("a ninth slot of 64 for one client")
	}
	if !s.acquire(ctx, other, 0) {
		t.Fatal("another client does not get in")
	}
	if s.inUse() != 9 {
		t.Fatalf("inUse %d, want 9", s.inUse())
	}
	s.release(other)
	for range 8 {
		s.release(one)
	}
	if s.inUse() != 0 || len(s.clients) != 0 {
		t.Fatalf("left behind: %d slots, %d clients", s.inUse(), len(s.clients))
	}
	small := newSlots(4)
	if !small.acquire(ctx, one, 0) || small.acquire(ctx, one, 0) {
		t.Fatal("an eighth of 4 is not 1")
	}
	for i := range 3 {
		small.acquire(ctx, nthKey(10+i), 0)
	}
	if small.acquire(ctx, other, 0) {
		t.Fatal("a fifth slot of 4")
	}
}

func TestSlotsBurstOfOneClientQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, key := newSlots(64), nthKey(1)
		var got atomic.Int64
		for range 64 {
			go func() {
				if s.acquire(t.Context(), key, time.Second) {
					time.Sleep(time.Millisecond)
					got.Add(1)
					s.release(key)
				}
			}()
		}
		time.Sleep(8 * time.Millisecond) // 64 uploads of 1 ms, 8 at a time
		synctest.Wait()
		if got.Load() != 64 || s.inUse() != 0 || len(s.clients) != 0 || len(s.queue) != 0 {
			t.Fatalf("%d of 64 served, %d in use, %d clients, %d queued", got.Load(), s.inUse(), len(s.clients), len(s.queue))
		}
	})
}

func TestSlotsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, one := newSlots(2), nthKey(1) // one each, 2 waiting for one client, 8 in all
		s.acquire(t.Context(), one, 0)
		begin := time.Now()
		if s.acquire(t.Context(), one, 3*time.Second) || time.Since(begin) != 3*time.Second {
			t.Fatalf("gave up after %v, want false after 3s", time.Since(begin))
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { time.Sleep(time.Second); cancel() }()
		begin = time.Now()
		if s.acquire(ctx, one, time.Minute) || time.Since(begin) != time.Second {
			t.Fatalf("cancelled after %v, want false after 1s", time.Since(begin))
		}
		for range 2 {
			go s.acquire(t.Context(), one, time.Minute)
		}
		synctest.Wait()
		if begin = time.Now(); s.acquire(t.Context(), one, time.Minute) || time.Since(begin) != 0 {
			t.Fatal("a third waiter of one client was let in")
		}
		if !s.acquire(t.Context(), nthKey(2), 0) {
			t.Fatal("waiters of one client keep another out of a free slot")
		}
		for i := range 6 {
			go s.acquire(t.Context(), nthKey(10+i), time.Minute)
			synctest.Wait()
		}
		if begin = time.Now(); s.acquire(t.Context(), nthKey(3), time.Minute) || time.Since(begin) != 0 {
			t.Fatal("a ninth waiter was let in")
		}
		s.release(nthKey(2)) // the first two waiters are one's, which holds all it may: the third goes
		synctest.Wait()
		s.mu.Lock()
		next, first := s.clients[nthKey(10)], s.clients[one]
		s.mu.Unlock()
		if next != (slotUse{held: 1}) || first != (slotUse{held: 1, waiting: 2}) {
			t.Fatalf("handed to the wrong waiter: the next has %+v, the first %+v", next, first)
		}
		time.Sleep(2 * time.Minute) // the others leave
		synctest.Wait()
		s.release(nthKey(10))
		s.release(one)
		if s.inUse() != 0 || len(s.clients) != 0 || len(s.queue) != 0 {
			t.Fatalf("left behind: %d in use, %d clients, %d queued", s.inUse(), len(s.clients), len(s.queue))
		}
	})
}

func TestSlotsParallel(t *testing.T) {
	s := newSlots(16)
	var held [5]atomic.Int64
	var all, served atomic.Int64
	var wg sync.WaitGroup
	for g := range 40 {
		wg.Go(func() {
			who, key := g%5, nthKey(g%5)
			for range 50 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(2000))*time.Microsecond)
				if s.acquire(ctx, key, time.Millisecond) {
					if held[who].Add(1) > 2 || all.Add(1) > 16 {
						t.Error("more slots than allowed")
					}
					runtime.Gosched()
					served.Add(1)
					all.Add(-1)
					held[who].Add(-1)
					s.release(key)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if s.inUse() != 0 || len(s.clients) != 0 || len(s.queue) != 0 || served.Load() < 100 {
		t.Fatalf("%d in use, %d clients, %d queued, %d served", s.inUse(), len(s.clients), len(s.queue), served.Load())
	}
}

func TestKDFQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, a, b, c := newKDFQueue(2), nthKey(1), nthKey(2), nthKey(3)
		var mu sync.Mutex
		var order []string
		job := func(name string, key clientKey) {
			go func() {
				if err := q.do(t.Context(), key, func() { time.Sleep(time.Second) }); err != nil {
					name += " " + err.Error()
				}
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
			}()
			synctest.Wait()
		}
		job("a1", a)
		job("a2", a) // waits: a is being served, though a worker is free
		job("b1", b) // does not wait behind a2
		job("c1", c) // waits for a worker
		job("b2", b)
		q.mu.Lock()
		running, waiting := q.used, len(q.queue)
		q.mu.Unlock()
		if running != 2 || waiting != 3 {
			t.Fatalf("%d running, %d waiting; want 2 and 3", running, waiting)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := fmt.Sprint(order[:2], order[2:4], order[4:]); got != "[a1 b1] [a2 c1] [b2]" && got != "[b1 a1] [a2 c1] [b2]" &&
			got != "[a1 b1] [c1 a2] [b2]" && got != "[b1 a1] [c1 a2] [b2]" {
			t.Fatalf("order %s", got)
		}

		for i := range 10 {
			job(fmt.Sprint(i), nthKey(100+i))
		}
		called := false
		if err := q.do(t.Context(), c, func() { called = true }); err != errBusy || called {
			t.Fatalf("with 8 waiting: %v, ran %v", err, called)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for i, name := range order[5:] { // two at a time, in order of arrival
			if name != fmt.Sprint(i) && name != fmt.Sprint(i^1) {
				t.Fatalf("served in the order %v", order[5:])
			}
		}
		if q.inUse() != 0 || len(q.clients) != 0 || len(order) != 15 {
			t.Fatalf("left behind: %d running, %d clients, %d of 15 served", q.inUse(), len(q.clients), len(order))
		}
	})
}

func TestKDFQueueGivenUpAndPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, key := newKDFQueue(0), nthKey(1) // one at least
		go q.do(t.Context(), key, func() { time.Sleep(time.Minute) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := q.do(ctx, nthKey(2), func() { t.Error("ran") }); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("given up while waiting: %v", err)
		}
		time.Sleep(time.Hour)
		if err := q.do(ctx, key, func() { t.Error("ran for a caller that was gone") }); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("given up before: %v", err)
		}
		func() {
			defer func() {
				if recover() != "boom" {
					t.Error("the panic did not reach the caller")
				}
			}()
			q.do(t.Context(), key, func() { panic("boom") })
		}()
		ran := false
		if err := q.do(t.Context(), key, func() { ran = true }); err != nil || !ran || q.inUse() != 0 || len(q.clients) != 0 {
			t.Fatalf("after a panic: %v, ran %v, %d running", err, ran, q.inUse())
		}
	})
}

func TestParseRateAndSize(t *testing.T) {
	for in, want := range map[string]rate{
		"0": {}, "30/m": {30, time.Minute}, "1/s": {1, time.Second}, "10/h": {10, time.Hour}, "7/d": {7, 24 * time.Hour},
		"200MiB/h": {200 << 20, time.Hour}, "1GiB/d": {1 << 30, 24 * time.Hour}, "5KiB/s": {5 << 10, time.Second},
		"1048576GiB/d": {1 << 50, 24 * time.Hour},
	} {
		if got, err := parseRate(in); err != nil || got != want {
			t.Errorf("parseRate(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "0/m", "30", "30/", "/m", "30/M", "30/min", "-1/m", "+1/m", " 1/m", "1/m ", "1 /m", "01/m", "1.5/m", "1e3/m",
		"1_0/m", "30/m/h", "1048577GiB/d", "9223372036854775807/s", "99999999999999999999/s", "200MB/h", "200mib/h", "MiB/h", "0x1/m", "٣/m"} {
		if got, err := parseRate(in); err == nil {
			t.Errorf("parseRate(%q) = %v", in, got)
		}
	}
	for in, want := range map[string]int64{"0": 0, "1": 1, "0KiB": 0, "3MiB": 3 << 20, "10GiB": 10 << 30, "9223372036854775807": math.MaxInt64, "8589934591GiB": 8589934591 << 30} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("parseSize(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "-1", "+1", "00", "01", "1 MiB", "1TiB", "1MB", "1KiBKiB", "KiB", "9223372036854775808", "8589934592GiB", "1.0MiB", "\n1"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("parseSize(%q) = %v", in, got)
		}
	}
}

func FuzzRate(f *testing.F) {
	for _, s := range []string{"0", "30/m", "200MiB/h", "1048576GiB/d", "01/m", "1/m/m", "9223372036854775807/s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRate(s)
		if err != nil {
			if r != (rate{}) {
				t.Fatalf("%q: %v beside an error", s, r)
			}
			return
		}
		if (r.n == 0) != (s == "0") || r.n < 0 || r.n > 1<<50 || (r.per <= 0) != (r.n == 0) {
			t.Fatalf("%q read as %v", s, r)
		}
		if r.n == 0 {
			return
		}
		l := newLimiter(testRates(rateRead, r), 10, testStart)
		key := addrKey("2001:db8::1")
		if d := l.take(rateRead, key, r.n, 1000, testStart); !d.allowed || d.limit != 1000*r.n {
			t.Fatalf("%q: first use refused: %+v", s, d)
		}
		l = newLimiter(testRates(rateRead, r), 10, testStart)
		if d := l.take(rateRead, key, r.n, 1, testStart); !d.allowed || d.remaining != 0 || d.reset != r.per {
			t.Fatalf("%q: all at once: %+v", s, d)
		}
		if d := l.take(rateRead, key, r.n, 1, testStart); d.allowed || d.retryAfter != r.per {
			t.Fatalf("%q: and again: %+v", s, d)
		}
		if d := l.take(rateRead, key, r.n, 1, testStart.Add(r.per)); !d.allowed {
			t.Fatalf("%q: refilled, refused: %+v", s, d)
		}
	})
}

func TestLimiterGCRA(t *testing.T) {
	// Rates that do and do not divide their span: burst n, then exactly one for each n-th of it.
	for _, r := range []rate{{30, time.Minute}, {7, time.Minute}, {1, time.Hour}, {600, time.Minute}, {13, time.Second}, {999_983, time.Hour}} {
		l, key, now := newLimiter(testRates(rateCreate, r), 100, testStart), nthKey(1), testStart.Add(time.Hour)
		burst := min(r.n, 1000)
		if d := l.take(rateCreate, key, r.n-burst, 1, now); !d.allowed {
			t.Fatalf("%v: %+v", r, d)
		}
		for i := range burst {
			if d := l.take(rateCreate, key, 1, 1, now); !d.allowed || d.limit != r.n || d.remaining != burst-i-1 || d.retryAfter != 0 {
				t.Fatalf("%v: %d of the burst: %+v", r, i+1, d)
			}
		}
		d := l.take(rateCreate, key, 1, 1, now)
		if step := r.per / time.Duration(r.n); d.allowed || d.remaining != 0 || d.retryAfter > step || d.retryAfter < step-1000 || d.reset > r.per || d.reset < r.per-time.Microsecond*1000 {
			t.Fatalf("%v: above the burst: %+v", r, d)
		}
		for range 20 {
			wait := l.peek(rateCreate, key, 1, 1, now).retryAfter
			if l.take(rateCreate, key, 1, 1, now.Add(wait-1)).allowed {
				t.Fatalf("%v: allowed 1 ns before retryAfter", r)
			}
			if now = now.Add(wait); !l.take(rateCreate, key, 1, 1, now).allowed {
				t.Fatalf("%v: refused at retryAfter", r)
			}
		}
		if d := l.peek(rateCreate, key, 1, 1, now.Add(r.per)); d.remaining != r.n || d.reset != 0 {
			t.Fatalf("%v: not full after %v: %+v", r, r.per, d)
		}
	}
}

func TestLimiterLongRun(t *testing.T) {
	// A client that asks all the time gets the burst and then the rate, to the unit.
	l, key := newLimiter(testRates(rateRead, rate{7, time.Second}), 100, testStart), nthKey(1)
	got := 0
	for ms := range 60_001 {
		if l.take(rateRead, key, 1, 1, testStart.Add(time.Duration(ms)*time.Millisecond)).allowed {
			got++
		}
	}
	if want := 7 + 60*7; got < want-1 || got > want {
		t.Fatalf("%d in a minute, want %d", got, want)
	}
}

func TestLimiterBytes(t *testing.T) {
	l, key, now := newLimiter(testRates(rateBytes, rate{1 << 20, time.Hour}), 100, testStart), nthKey(1), testStart
	for range 3 {
		l.take(rateBytes, key, 256<<10, 1, now)
	}
	l.take(rateBytes, key, 100<<10, 1, now)
	if d := l.take(rateBytes, key, 256<<10, 1, now); d.allowed || d.remaining != 156<<10 {
		t.Fatalf("a chunk larger than what is left: %+v", d)
	}
	if d := l.take(rateBytes, key, 156<<10, 1, now); !d.allowed || d.remaining != 0 {
		t.Fatalf("exactly what is left: %+v", d)
	}
	for _, cost := range []int64{1<<20 + 1, math.MaxInt64} {
		if d := l.take(rateBytes, nthKey(2), cost, 1, now); d.allowed || d.remaining != 1<<20 || d.retryAfter <= 0 {
			t.Fatalf("cost %d above the limit: %+v", cost, d)
		}
	}
	if d := l.take(rateBytes, nthKey(3), -5, 1, now); !d.allowed || l.peek(rateBytes, nthKey(3), 1, 1, now).remaining > 1<<20 {
		t.Fatalf("negative cost: %+v", d)
	}
	if d := l.take(rateBytes, nthKey(4), 5<<20, 5, now); !d.allowed || d.limit != 5<<20 {
		t.Fatalf("trusted factor: %+v", d)
	}
}

func TestLimiterOffPeekGiveCharge(t *testing.T) {
	l, key, now := newLimiter(testRates(rateMiss, rate{3, time.Minute}), 100, testStart), nthKey(1), testStart
	for range 1000 {
		if d := l.take(rateRead, key, 1<<40, 1, now); d != (decision{allowed: true}) {
			t.Fatalf("no limit: %+v", d)
		}
	}
	for range 10 {
		if d := l.peek(rateMiss, key, 1, 1, now); !d.allowed || d.remaining != 3 {
			t.Fatalf("peek charges: %+v", d)
		}
	}
	if l.buckets() != 0 {
		t.Fatalf("%d buckets for questions only", l.buckets())
	}
	l.take(rateMiss, key, 2, 1, now)
	l.give(rateMiss, key, 1, 1, now)
	if d := l.peek(rateMiss, key, 1, 1, now); d.remaining != 2 {
		t.Fatalf("given back: %+v", d)
	}
	l.give(rateMiss, key, 100, 1, now)
	if d := l.peek(rateMiss, key, 1, 1, now); d.remaining != 3 || l.buckets() != 0 {
		t.Fatalf("giving back more than was taken: %+v, %d buckets", d, l.buckets())
	}
	for range 9 { // nine connections that had all peeked at 3 left
		l.charge(rateMiss, key, 1, 1, now)
	}
	if d := l.peek(rateMiss, key, 1, 1, now); d.allowed || d.retryAfter != 140*time.Second || d.remaining != 0 || d.reset != 3*time.Minute {
		t.Fatalf("a debt of 6 above the limit: %+v", d)
	}
	for range 1000 {
		l.charge(rateMiss, key, 3, 1, now)
	}
	if d := l.peek(rateMiss, key, 1, 1, now); d.reset != 16*time.Minute {
		t.Fatalf("debt is not bounded: %+v", d)
	}
	if d := l.take(rateMiss, nthKey(2), 1, 1, now); d.remaining != 2 {
		t.Fatalf("another client pays: %+v", d)
	}
}

func TestLimiterIPv6(t *testing.T) {
	l, now := newLimiter(testRates(rateCreate, rate{10, time.Minute}), 1000, testStart), testStart
	addr := func(i int) clientKey { return addrKey(fmt.Sprintf("2001:db8:1:%x::%x", i, rand.Uint32N(1<<16))) }
	for range 10 {
		if !l.take(rateCreate, addr(0), 1, 1, now).allowed {
			t.Fatal("refused within the limit of a /64")
		}
	}
	if d := l.take(rateCreate, addr(0), 1, 1, now); d.allowed || d.limit != 10 {
		t.Fatalf("a new address of the same /64: %+v", d)
	}
	got := 0
	for i := range 1000 {
		if l.take(rateCreate, addr(i+1), 1, 1, now).allowed {
			got++
		}
	}
	if got != 70 {
		t.Fatalf("a /48 got %d, want 80 with the 10 before", got+10)
	}
	if d := l.take(rateCreate, addr(5000), 1, 1, now); d.allowed || d.limit != 80 || d.retryAfter != 750*time.Millisecond {
		t.Fatalf("a new /64 of an empty /48: %+v", d)
	}
	if n := l.buckets(); n != 72 {
		t.Fatalf("%d buckets, want 71 /64 and one /48: refusals must store nothing", n)
	}
	if !l.take(rateCreate, addrKey("2001:db8:2::1"), 1, 1, now).allowed {
		t.Fatal("another /48 pays")
	}
	l.give(rateCreate, addr(1), 1, 1, now)
	if !l.take(rateCreate, addr(6000), 1, 1, now).allowed || l.take(rateCreate, addr(6001), 1, 1, now).allowed {
		t.Fatal("giving back is not given back to the /48")
	}
	for range 11 {
		l.take(rateCreate, addrKey("::ffff:192.0.2.9"), 1, 1, now)
	}
	if l.take(rateCreate, addrKey("192.0.2.9"), 1, 1, now).allowed {
		t.Fatal("an IPv4-mapped address has an allowance of its own")
	}
}

func (l *limiter) buckets() (n int) {
	for i := range l.shards {
		n += len(l.shards[i].buckets)
	}
	return n
}

func TestLimiterEvicts(t *testing.T) {
	rates := testRates(rateCreate, rate{10, time.Minute})
	rates[rateRegister] = rate{1, time.Hour}
	l, now := newLimiter(rates, 4, testStart), testStart
	l.take(rateRegister, nthKey(1), 1, 1, now) // the oldest, but it refills last
	for i := range 3 {
		l.take(rateCreate, nthKey(10+i), 1, 1, now)
	}
	l.take(rateCreate, nthKey(20), 1, 1, now.Add(6*time.Second)) // the three are full again: they go
	if l.buckets() != 2 || l.take(rateRegister, nthKey(1), 1, 1, now.Add(6*time.Second)).allowed {
		t.Fatalf("refilled buckets did not go first: %d left", l.buckets())
	}
	now = now.Add(time.Minute)
	l = newLimiter(rates, 4, testStart)
	for i := range 4 {
		l.take(rateRegister, nthKey(i), 1, 1, now)
	}
	l.take(rateRegister, nthKey(0), 1, 1, now) // refused, and seen by that
	l.take(rateRegister, nthKey(4), 1, 1, now)
	for i, want := range []bool{false, true, false, false, false} {
		if l.peek(rateRegister, nthKey(i), 1, 1, now).allowed != want {
			t.Errorf("client %d: forgotten is %v, want %v: the least recently seen goes", i, !want, want)
		}
	}
	if l.buckets() != 4 {
		t.Errorf("%d buckets, want 4", l.buckets())
	}
}

func heapNow() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestLimiterFlooded(t *testing.T) {
	rates := testRates(rateCreate, rate{30, time.Minute})
	rates[rateRegister] = rate{10, time.Hour}
	before := heapNow()
	l, now := newLimiter(rates, 100_000, testStart), testStart
	victim := addrKey("192.0.2.1")
	for range 10 {
		l.take(rateRegister, victim, 1, 1, now)
	}
	most := int64(0)
	for i := range 400_000 { // four times the room, alternately IPv4 and each time another IPv6 /48
		now = now.Add(100 * time.Microsecond)
		key := nthKey(i)
		if i%2 == 1 {
			key = keyFor("", netip.AddrFrom16([16]byte{0x20, 1, byte(i >> 16), byte(i >> 8), byte(i)}))
		}
		if !l.take(rateCreate, key, 1, 1, now).allowed {
			t.Fatal("a fresh client was refused")
		}
		if i%100_000 == 99_999 {
			most = max(most, heapNow()-before)
		}
		if n := 0; i%50_000 == 0 {
			if n = l.buckets(); n > 100_000 {
				t.Fatalf("%d buckets", n)
			}
		}
	}
	t.Logf("%d buckets, %.1f MiB", l.buckets(), float64(most)/(1<<20))
	if most > 16<<20 || l.buckets() < 10_000 {
		t.Fatalf("%d bytes for %d buckets, want under 16 MiB", most, l.buckets())
	}
	// The flood refilled within seconds and so went first: whoever used up a slow limit is still held to it.
	if l.take(rateRegister, victim, 1, 1, now).allowed {
		t.Fatal("a flood washed away a used-up limit")
	}
	runtime.KeepAlive(l)
}

func TestLimiterFloodedUnrefilled(t *testing.T) {
	before := heapNow()
	l := newLimiter(testRates(rateRegister, rate{10, time.Hour}), 100_000, testStart)
	for i := range 300_000 {
		l.take(rateRegister, nthKey(i), 10, 1, testStart)
	}
	used := heapNow() - before
	t.Logf("%d buckets, %.1f MiB", l.buckets(), float64(used)/(1<<20))
	if n := l.buckets(); n > 100_000 || n < 90_000 || used > 16<<20 {
		t.Fatalf("%d buckets in %d bytes", n, used)
	}
	if !l.peek(rateRegister, nthKey(0), 1, 1, testStart).allowed || l.peek(rateRegister, nthKey(299_999), 1, 1, testStart).allowed {
		t.Fatal("not the least recently seen went")
	}
	runtime.KeepAlive(l)
}

func TestLimiterParallel(t *testing.T) {
	l := newLimiter(testRates(rateRead, rate{100, time.Hour}), 10_000, testStart)
	var allowed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 2000 {
				if l.take(rateRead, addrKey(fmt.Sprintf("2001:db8:%x::1", i%10)), 1, 1, testStart).allowed {
					allowed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if allowed.Load() != 1000 {
		t.Fatalf("%d allowed, want 10 clients at 100", allowed.Load())
	}
}

func TestFreeAllowance(t *testing.T) {
	l, key, now := newLimiter(testRates(rateFree, rate{20, time.Hour}), 1000, testStart), nthKey(1), testStart
	for i := range 20 {
		if left := l.freeLeft(key, false, now); left != int64(20-i) {
			t.Fatalf("%d left, want %d", left, 20-i)
		}
		if cost, ok := l.freeTake(key, false, now); !ok || cost != 1 {
			t.Fatalf("%d of 20: %v", i+1, ok)
		}
	}
	if _, ok := l.freeTake(key, false, now); ok || l.freeLeft(key, false, now) != 0 {
		t.Fatal("a 21st without work")
	}
	l.give(rateFree, key, 1, 1, now)
	if _, ok := l.freeTake(key, false, now); !ok {
		t.Fatal("a failed creation used up the allowance")
	}
	if _, ok := l.freeTake(key, false, now.Add(3*time.Minute)); !ok {
		t.Fatal("none after a twentieth of an hour")
	}

	other := nthKey(2)
	if l.freeLeft(other, true, now) != 1 {
		t.Fatal("while elevated the allowance is not 1")
	}
	cost, ok := l.freeTake(other, true, now)
	if _, again := l.freeTake(other, true, now.Add(59*time.Minute)); !ok || again || l.freeLeft(other, true, now) != 0 {
		t.Fatal("while elevated: not exactly one an hour")
	}
	l.give(rateFree, other, cost, 1, now)
	if l.freeLeft(other, false, now) != 20 {
		t.Fatal("reserved while elevated, not given back whole")
	}
	if _, ok := l.freeTake(key, true, now); ok {
		t.Fatal("who used free creations before gets another while elevated")
	}

	off := newLimiter([rateClasses]rate{}, 10, testStart)
	if _, ok := off.freeTake(key, false, now); ok || off.freeLeft(key, true, now) != 0 {
		t.Fatal("FREE=0 must mean always work")
	}
}

func TestFreeAllowanceFarmed(t *testing.T) {
	for _, c := range []struct {
		name     string
		elevated bool
		per64    int
		per48    int
	}{{"normal", false, 20, 160}, {"elevated", true, 1, 8}} {
		l := newLimiter(testRates(rateFree, rate{20, time.Hour}), 10_000, testStart)
		one, all := 0, 0
		for i := range 500 {
			if _, ok := l.freeTake(addrKey(fmt.Sprintf("2001:db8:1:1::%x", i)), c.elevated, testStart); ok {
				one++
			}
		}
		for i := range 2000 {
			if _, ok := l.freeTake(addrKey(fmt.Sprintf("2001:db8:1:%x::1", 2+i)), c.elevated, testStart); ok {
				all++
			}
		}
		if one != c.per64 || one+all != c.per48 {
			t.Errorf("%s: a /64 got %d, its /48 %d; want %d and %d", c.name, one, one+all, c.per64, c.per48)
		}
	}
}

func TestGuesses(t *testing.T) {
	g, now := newGuesses(testStart), testStart.Add(time.Hour)
	for i := range 10 {
		if g.guessed("a", now) {
			t.Fatalf("after %d wrong ones", i)
		}
		now = now.Add(time.Minute)
		g.noteWrong("a", now)
	}
	if !g.guessed("a", now) || g.guessed("b", now) {
		t.Fatal("ten wrong ones in 15 minutes, or another paste's")
	}
	if first := testStart.Add(time.Hour + time.Minute); !g.guessed("a", first.Add(15*time.Minute-1)) || g.guessed("a", first.Add(15*time.Minute)) {
		t.Fatal("the window is not 15 minutes")
	}
	g.noteWrong("a", now.Add(15*time.Minute))
	if g.guessed("a", now.Add(15*time.Minute)) {
		t.Fatal("old ones count")
	}
	for range 10 {
		g.noteWrong("hot", now.Add(16*time.Minute))
	}
	for i := range guessPastes + 500 {
		if i == guessPastes-100 { // seen again before the table is full
			g.noteWrong("hot", now.Add(18*time.Minute))
		}
		g.noteWrong(fmt.Sprint("flood", i), now.Add(17*time.Minute+time.Duration(i)*time.Millisecond))
	}
	_, a := g.pastes["a"]
	_, first := g.pastes["flood0"]
	_, last := g.pastes[fmt.Sprint("flood", guessPastes+499)]
	if len(g.pastes) != guessPastes || !g.guessed("hot", now.Add(18*time.Minute)) || a || first || !last {
		t.Fatalf("%d pastes; kept: hot %v, a %v, first %v, last %v", len(g.pastes), g.guessed("hot", now.Add(18*time.Minute)), a, first, last)
	}
}

func TestEntropy(t *testing.T) {
	count := func(b []byte) float64 {
		var counts [256]uint64
		for _, c := range b {
			counts[c]++
		}
		return entropy(&counts, int64(len(b)))
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, c := range []struct {
		name string
		in   []byte
		want float64
	}{{"empty", nil, 0}, {"one value", []byte("aaaa"), 0}, {"two", []byte("abab"), 1}, {"four", []byte("abcd"), 2}, {"all", all, 8}, {"skewed", []byte("aaab"), 0.8112781}} {
		if got := count(c.in); math.Abs(got-c.want) > 1e-6 || math.Signbit(got) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func benchLimiter() (*limiter, []clientKey) {
	rates := testRates(rateRead, rate{600, time.Minute})
	keys := make([]clientKey, 1<<16)
	for i := range keys {
		if keys[i] = nthKey(i); i%2 == 1 {
			keys[i] = keyFor("", netip.AddrFrom16([16]byte{0x20, 1, byte(i >> 16), byte(i >> 8), byte(i), 0, 0, byte(i)}))
		}
	}
	return newLimiter(rates, 100_000, time.Now()), keys
}

// TestDuplicates compares with counting all that was ever stored, and stores more than is remembered.
func TestDuplicates(t *testing.T) {
	d := duplicates{window: 50, latest: map[int64]int{}}
	r := rand.New(rand.NewPCG(1, 2))
	var all, pending []sighting
	for at := int64(1000); len(all) < 5000; at += r.Int64N(3) {
		v := sighting{content: r.Int64N(12), client: clientKey{kind: uint8(r.IntN(3))}, at: at}
		var own, firstOwn, many, first int64
		for _, o := range slices.Backward(all) {
			if o.content != v.content || o.at <= at-50 {
				continue
			}
			many, first = many+1, o.at
			if o.client == v.client {
				own, firstOwn = own+1, o.at
			}
		}
		if a, b, c, e := d.count(v, pending); a != own || b != firstOwn || c != many || e != first {
			t.Fatalf("sighting %d: %d since %d, all %d since %d; want %d since %d, all %d since %d", len(all), a, b, c, e, own, firstOwn, many, first)
		}
		all, pending = append(all, v), append(pending, v)
		if r.IntN(4) == 0 { // a commit
			for _, v := range pending {
				d.add(v)
			}
			pending = nil
		}
	}
	if len(d.ring) > len(all) || d.next-d.first > 200 {
		t.Errorf("%d remembered", d.next-d.first)
	}
	for n := range int64(2*duplicatesMost + 7) {
		d.add(sighting{content: 100 + n, at: 1e6})
	}
	if len(d.ring) != duplicatesMost || len(d.latest) != duplicatesMost || d.next-d.first != duplicatesMost {
		t.Errorf("%d in the ring, %d contents, %d remembered", len(d.ring), len(d.latest), d.next-d.first)
	}
	for n, want := range map[int64]int64{2*duplicatesMost + 6: 1, duplicatesMost + 7: 1, duplicatesMost + 6: 0} {
		if own, _, _, _ := d.count(sighting{content: 100 + n, at: 1e6}, nil); own != want {
			t.Errorf("content %d is known %d times", n, own)
		}
	}
}

// 65,536 clients in turn, half of them IPv6 with two buckets: 98,304 for a table of 100,000. Times are made up, a microsecond apart.
func BenchmarkLimiter(b *testing.B) {
	l, keys := benchLimiter()
	b.ReportAllocs()
	now, i := time.Now(), 0
	for b.Loop() {
		now = now.Add(time.Microsecond)
		l.take(rateRead, keys[i*40503&0xffff], 1, 1, now)
		i++
	}
}

func BenchmarkLimiterParallel(b *testing.B) {
	l, keys := benchLimiter()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		now := time.Now()
		for i := rand.IntN(1 << 16); pb.Next(); i++ {
			now = now.Add(time.Microsecond)
			l.take(rateRead, keys[i*40503&0xffff], 1, 1, now)
		}
	})
}

// The worst for locks: everybody is one client.
func BenchmarkLimiterParallelOneClient(b *testing.B) {
	l, keys := benchLimiter()
	b.RunParallel(func(pb *testing.PB) {
		for now := time.Now(); pb.Next(); now = now.Add(time.Microsecond) {
			l.take(rateRead, keys[0], 1, 1, now)
		}
	})
}

// What a read asks for: its own class, then whether misses are left.
func BenchmarkLimiterRead(b *testing.B) {
	l, keys := benchLimiter()
	l.rates[rateMiss] = rate{60, time.Minute}
	now, i := time.Now(), 0
	for b.Loop() {
		now = now.Add(time.Microsecond)
		l.take(rateRead, keys[i&1023], 1, 1, now)
		l.peek(rateMiss, keys[i&1023], 1, 1, now)
		i++
	}
}

// One slot taken and given back, nobody waiting.
func BenchmarkSlots(b *testing.B) {
	s, key := newSlots(64), nthKey(1)
	b.ReportAllocs()
	for b.Loop() {
		if s.acquire(b.Context(), key, time.Second) {
			s.release(key)
		}
	}
}
