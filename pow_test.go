package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"testing"
	"time"
)

const testBits = 12

// TestPowVector: a token and a solution that were computed elsewhere, from the words of the contract alone.
func TestPowVector(t *testing.T) {
	c := newChallenges()
	for i := range c.key {
		c.key[i] = byte(i)
	}
	const nonce = "00112233445566778899aabbccddeeff"
	token := nonce + ":1893456000:12:5f111e8f9bdde339866e080ec7c567be6f3a21922df6321068e04d0a1ab2e32a"
	n, expires, err := c.verify(purposeCreate, token, "2888", testBits, time.Unix(1893455999, 999))
	if fmt.Sprintf("%x", n) != nonce || expires != 1893456000 || err != nil {
		t.Errorf("%x, %d, %v", n, expires, err)
	}
}

// TestPowRefused: why; FuzzProof says that nothing else is taken.
func TestPowRefused(t *testing.T) {
	c := newChallenges()
	ch := c.issue(purposeCreate, testBits, 5*time.Minute, testStart)
	s := must(solve(t.Context(), ch.nonce, testBits, 1, nil))
	wrong := "1"
	for n := 1; workDone(ch.nonce, wrong, testBits); n++ {
		wrong = strconv.Itoa(n)
	}
	for _, k := range []struct {
		name, purpose, token, solution string
		least                          int
		at                             time.Duration
		want                           error
	}{
		{"as it came", purposeCreate, ch.token, s, testBits, 0, nil},
		{"nothing", purposeCreate, "", "", testBits, 0, errPowMissing},
		{"token alone", purposeCreate, ch.token, "", testBits, 0, errPowMalformed},
		{"solution alone", purposeCreate, "", s, testBits, 0, errPowMalformed},
		{"wrong solution", purposeCreate, ch.token, wrong, testBits, 0, errPowWrong},
		{"unsigned", purposeCreate, ch.token[:len(ch.token)-65], s, testBits, 0, errPowMalformed},
		{"signed by another", purposeCreate, newChallenges().issue(purposeCreate, 1, time.Hour, testStart).token, s,
			1, 0, errPowSignature},
		{"20 digits", purposeCreate, ch.token, "10000000000000000000", testBits, 0, errPowMalformed},
		{"huge solution", purposeCreate, ch.token, strings.Repeat("9", 1<<20), testBits, 0, errPowMalformed},
		{"wrong purpose", purposeRegister, ch.token, s, testBits, 0, errPowSignature},
		{"last second", purposeCreate, ch.token, s, testBits, 299 * time.Second, nil},
		{"expires on the second", purposeCreate, ch.token, s, testBits, 300 * time.Second, errPowExpired},
		{"below what is taken", purposeCreate, ch.token, s, testBits + 1, 0, errPowEasy},
		{"above what is taken", purposeCreate, ch.token, s, testBits - 1, 0, nil},
	} {
		nonce, expires, err := c.verify(k.purpose, k.token, k.solution, k.least, testStart.Add(k.at))
		if !errors.Is(err, k.want) || err != nil && (nonce != [16]byte{} || expires != 0) {
			t.Errorf("%s: %v, want %v; nonce %x", k.name, err, k.want, nonce)
		}
	}
}

func nthNonce(n int) (nonce [16]byte) {
	binary.BigEndian.PutUint64(nonce[8:], uint64(n))
	return nonce
}

func TestSpent(t *testing.T) {
	c, heap := newChallenges(), heapNow()
	for i, k := range []struct {
		nonce      int
		until, now int64
		back       bool
		want       error
	}{
		{1, 100, 0, false, nil}, {1, 100, 99, false, errPowSpent}, {2, 100, 50, true, nil}, {2, 100, 50, false, nil},
		{2, 100, 50, false, errPowSpent},
	} {
		if err := c.spend(nthNonce(k.nonce), k.until, k.now); !errors.Is(err, k.want) {
			t.Errorf("%d: %v, want %v", i, err, k.want)
		}
		if k.back {
			c.unspend(nthNonce(k.nonce))
		}
	}
	for n := 3; n <= spentMost; n++ { // half of them until second 200, half until 201
		if err := c.spend(nthNonce(n), int64(200+n%2), 50); err != nil {
			t.Fatal(n, err)
		}
	}
	t.Logf("%d proofs in %.1f MiB", len(c.spent), float64(heapNow()-heap)/(1<<20))
	if used := heapNow() - heap; used > 20<<20 {
		t.Errorf("%d bytes", used)
	}
	// Full: nothing is taken, nothing is forgotten before its time, and what has expired makes room.
	for i, k := range []struct {
		nonce int
		now   int64
		want  error
	}{
		{0, 50, errPowFull}, {1, 50, errPowSpent}, {spentMost, 99, errPowSpent}, {0, 99, errPowFull}, {0, 100, nil},
		{spentMost + 1, 101, nil}, {spentMost + 2, 101, errPowFull}, {spentMost, 199, errPowSpent},
		{spentMost + 2, 200, nil}, {spentMost - 1, 200, errPowSpent},
	} {
		if err := c.spend(nthNonce(k.nonce), 300, k.now); !errors.Is(err, k.want) {
			t.Errorf("full, %d: %v, want %v", i, err, k.want)
		}
	}
	if n := len(c.spent); n > spentMost/2+10 {
		t.Errorf("%d kept after half of them expired", n)
	}
}

// ---- anti-flood ----

// TestAntifloodCounts: what so many creations within a minute come to, the first of the server's life among them.
func TestAntifloodCounts(t *testing.T) {
	mixed := func(i int) clientKey { return []clientKey{nthKey(1), netKey(i)}[i%2] }
	for _, c := range []struct {
		name                     string
		base, most, threshold, n int
		key                      func(i int) clientKey
		want                     int
	}{
		{"29 clients", 20, 28, 30, 29, nthKey, 20}, {"30 clients", 20, 28, 30, 30, nthKey, 22},
		{"59 clients", 20, 28, 30, 59, nthKey, 22}, {"60 clients", 20, 28, 30, 60, nthKey, 24},
		{"119 clients", 20, 28, 30, 119, nthKey, 26}, {"a flood", 20, 28, 30, 5000, nthKey, 28},
		{"odd most", 20, 27, 30, 5000, nthKey, 27}, {"odd most, below", 20, 27, 30, 90, nthKey, 26},
		{"most below base", 24, 20, 30, 5000, nthKey, 24}, {"most is base", 28, 28, 30, 5000, nthKey, 28},
		{"off", 0, 28, 30, 5000, nthKey, 0}, {"threshold 1", 20, 28, 1, 1, nthKey, 22},
		{"one client", 20, 28, 4, 10_000, oneKey, 20},
		{"the local client", 20, 28, 4, 1000, func(int) clientKey { return clientKey{} }, 20},
		{"nine clients", 20, 28, 30, 1000, func(i int) clientKey { return nthKey(i % 9) }, 20},
		{"ten clients", 20, 28, 30, 1000, func(i int) clientKey { return nthKey(i % 10) }, 22},
		{"one /48", 20, 28, 25, 10_000, netKey, 20},
		{"one /48 and a client", 20, 28, 25, 1000, mixed, 22},
	} {
		a := newAntiflood(c.base, c.most, c.threshold)
		for i := range c.n {
			a.note(c.key(i%60_000), testStart.Add(time.Duration(i)*time.Microsecond))
		}
		now := testStart.Add(time.Second)
		if d := a.difficulty(now); d != c.want || a.elevated(now) != (d > c.base) || a.least(now) != d-2 {
			t.Errorf("%s: %d bits, want %d", c.name, d, c.want)
		}
		if d := a.difficulty(now.Add(time.Hour)); d != c.base || len(a.recent) > 4*c.threshold {
			t.Errorf("%s: %d bits after an hour, %d creations kept", c.name, d, len(a.recent))
		}
	}
}

// TestAntifloodFormula compares with a plain reading of the rules, second by second, over floods and pauses.
func TestAntifloodFormula(t *testing.T) {
	a, seen := newAntiflood(10, 20, 7), map[clientKey][]time.Time{}
	level, less := 0, 0 // less: seconds since the formula gives less than level, or since the last fall
	for s := range 4000 {
		now := testStart.Add(time.Duration(s) * time.Second)
		for i := range s * s % 5 {
			if key := nthKey(s * (i + 3) * 7 % 61); s%700 < 400 {
				seen[key] = append(seen[key], now)
				a.note(key, now)
			}
		}
		n := 0
		for _, times := range seen {
			mine := 0
			for _, at := range times {
				if now.Sub(at) < floodWindow {
					mine++
				}
			}
			n += min(floodShare, mine)
		}
		formula := min(5, n/7)
		if less++; formula >= level {
			level, less = formula, 0
		} else if less > 30 {
			level, less = level-1, min(1, level-1-formula)
		}
		if d := a.difficulty(now); d != 10+2*level {
			t.Fatalf("at %d s: %d bits, want %d (n = %d)", s, d, 10+2*level, n)
		}
	}
}

// ---- solver ----

func TestSolve(t *testing.T) {
	nonce := strings.Repeat("0123456789abcdef", 2)
	for _, c := range []struct{ difficulty, workers int }{{0, 1}, {1, 1}, {8, 2}, {17, 1}, {17, 3}} {
		tried := uint64(0)
		s, err := solve(t.Context(), nonce, c.difficulty, c.workers, func(n uint64) { tried = n })
		sum := sha256.Sum256([]byte(nonce + ":" + s))
		zeros := bits.LeadingZeros64(binary.BigEndian.Uint64(sum[:]))
		_, canonical := parseDecimal(s)
		if err != nil || zeros < c.difficulty || !canonical || tried == 0 && c.workers < 2 {
			t.Errorf("%d bits: %q with %d zero bits, %v, %d tried", c.difficulty, s, zeros, err, tried)
		}
		if !workDone(nonce, s, zeros) || workDone(nonce, s, zeros+1) {
			t.Errorf("%q has %d zero bits, workDone says otherwise", s, zeros)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if s, err := solve(ctx, nonce, 64, 2, nil); s != "" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("given up: %q, %v", s, err)
	}
}

// TestSolveFrom: the first that solves is the one that plain counting finds, in each length of number; a try allocates
// nothing.
func TestSolveFrom(t *testing.T) {
	nonce := strings.Repeat("0123456789abcdef", 2)
	for _, run := range []uint64{1, 9, 10, 99, 123_456, 10_000_000_000_000} {
		want := ""
		for n := run * solveRun; n < (run+1)*solveRun && want == ""; n++ {
			if s := strconv.FormatUint(n, 10); workDone(nonce, s, 14) {
				want = s
			}
		}
		if got := solveFrom(nonce, 14, run*solveRun); got != want {
			t.Errorf("from %d: %q, plain counting finds %q", run*solveRun, got, want)
		}
	}
}

// BenchmarkSolve: one core, a difficulty that is never met.
func BenchmarkSolve(b *testing.B) {
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		n++
		solveFrom(strings.Repeat("0123456789abcdef", 2), 64, n*solveRun)
	}
	b.ReportMetric(float64(n*solveRun)/b.Elapsed().Seconds()/1e6, "MH/s")
}
