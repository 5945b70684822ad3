package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const testBits = 12

// solved returns a fresh challenge of testBits and its solution.
func solved(t testing.TB, c *challenges, purpose string, difficulty int) (challenge, string) {
	t.Helper()
	ch := c.issue(purpose, difficulty, 5*time.Minute, testStart)
	s, err := solve(t.Context(), ch.nonce, difficulty, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return ch, s
}

func TestPowAccepted(t *testing.T) {
	c := newChallenges()
	for _, purpose := range []string{purposeCreate, purposeRegister, purposePassword} {
		ch, s := solved(t, c, purpose, testBits)
		nonce, expires, err := c.verify(purpose, ch.token, s, testBits, testStart)
		if err != nil || hex.EncodeToString(nonce[:]) != ch.nonce || expires != ch.expires || expires != testStart.Unix()+300 {
			t.Fatalf("%s: %x, %d, %v", purpose, nonce, expires, err)
		}
		if want := fmt.Sprintf("%s:%d:%d:", ch.nonce, ch.expires, testBits); !strings.HasPrefix(ch.token, want) || len(ch.token) != len(want)+64 {
			t.Fatalf("token %q does not have the shape nonce:expires:difficulty:signature", ch.token)
		}
	}
}

func TestPowRefused(t *testing.T) {
	c := newChallenges()
	// Of one challenge in 4,096 a fixed number or another's is the solution, and some nonces are digits only.
	const most = "9999999999999999999"
	ch, s := solved(t, c, purposeCreate, testBits)
	for workDone(ch.nonce, most, testBits) || strings.ToUpper(ch.nonce) == ch.nonce {
		ch, s = solved(t, c, purposeCreate, testBits)
	}
	ch2, s2 := solved(t, c, purposeCreate, testBits)
	for workDone(ch.nonce, s2, testBits) {
		ch2, s2 = solved(t, c, purposeCreate, testBits)
	}
	other, _ := solved(t, newChallenges(), purposeCreate, testBits)
	f, f2, fo := strings.Split(ch.token, ":"), strings.Split(ch2.token, ":"), strings.Split(other.token, ":")
	tok := func(parts ...string) string { return strings.Join(parts, ":") }
	later := strconv.FormatInt(ch.expires+1000, 10)
	wrong := "1"
	for n := 1; workDone(ch.nonce, wrong, testBits); n++ {
		wrong = strconv.Itoa(n)
	}
	cases := []struct {
		name, purpose, token, solution string
		least                          int
		at                             time.Duration
		want                           error
	}{
		{"nothing", purposeCreate, "", "", testBits, 0, errPowMissing},
		{"token alone", purposeCreate, ch.token, "", testBits, 0, errPowMalformed},
		{"solution alone", purposeCreate, "", s, testBits, 0, errPowMalformed},
		{"wrong purpose", purposeRegister, ch.token, s, testBits, 0, errPowSignature},
		{"purpose with a field's text moved over", purposeCreate + f[0][:1], tok(f[0][1:]+"0", f[1], f[2], f[3]), s, testBits, 0, errPowSignature},
		{"expires on the second", purposeCreate, ch.token, s, testBits, 300 * time.Second, errPowExpired},
		{"last second", purposeCreate, ch.token, s, testBits, 299 * time.Second, nil},
		{"expired long ago", purposeCreate, ch.token, s, testBits, 24 * time.Hour, errPowExpired},
		{"one step below", purposeCreate, ch.token, s, testBits, 0, nil},
		{"below what is taken", purposeCreate, ch.token, s, testBits + 1, 0, errPowEasy},
		{"wrong solution", purposeCreate, ch.token, wrong, testBits, 0, errPowWrong},
		{"another challenge's solution", purposeCreate, ch.token, s2, testBits, 0, errPowWrong},
		{"unsigned", purposeCreate, tok(f[:3]...), s, testBits, 0, errPowMalformed},
		{"empty signature", purposeCreate, tok(f[0], f[1], f[2], ""), s, testBits, 0, errPowMalformed},
		{"zero signature", purposeCreate, tok(f[0], f[1], f[2], strings.Repeat("0", 64)), s, testBits, 0, errPowSignature},
		{"short signature", purposeCreate, ch.token[:len(ch.token)-1], s, testBits, 0, errPowMalformed},
		{"long signature", purposeCreate, ch.token + "0", s, testBits, 0, errPowMalformed},
		{"upper-case signature", purposeCreate, tok(f[0], f[1], f[2], strings.ToUpper(f[3][:63])+"A"), s, testBits, 0, errPowMalformed},
		{"other key", purposeCreate, other.token, s, testBits, 0, errPowSignature},
		{"other key's signature", purposeCreate, tok(f[0], f[1], f[2], fo[3]), s, testBits, 0, errPowSignature},
		{"spliced nonce", purposeCreate, tok(f2[0], f[1], f[2], f[3]), s2, testBits, 0, errPowSignature},
		{"spliced signature", purposeCreate, tok(f[0], f[1], f[2], f2[3]), s, testBits, 0, errPowSignature},
		{"later expiry", purposeCreate, tok(f[0], later, f[2], f[3]), s, testBits, 0, errPowSignature},
		{"lowered difficulty", purposeCreate, tok(f[0], f[1], "1", f[3]), s, testBits, 0, errPowSignature},
		{"digit moved from difficulty to expiry", purposeCreate, tok(f[0], f[1]+f[2][:1], f[2][1:], f[3]), s, testBits, 0, errPowSignature},
		{"zero difficulty", purposeCreate, tok(f[0], f[1], "0", f[3]), s, 0, 0, errPowMalformed},
		{"65 bits", purposeCreate, tok(f[0], f[1], "65", f[3]), s, testBits, 0, errPowMalformed},
		{"negative difficulty", purposeCreate, tok(f[0], f[1], "-1", f[3]), s, testBits, 0, errPowMalformed},
		{"leading zero in difficulty", purposeCreate, tok(f[0], f[1], "0"+f[2], f[3]), s, testBits, 0, errPowMalformed},
		{"huge expiry", purposeCreate, tok(f[0], "9999999999999999999", f[2], f[3]), s, testBits, 0, errPowMalformed},
		{"upper-case nonce", purposeCreate, tok(strings.ToUpper(f[0]), f[1], f[2], f[3]), s, testBits, 0, errPowMalformed},
		{"no nonce", purposeCreate, tok("", f[1], f[2], f[3]), s, testBits, 0, errPowMalformed},
		{"no expiry", purposeCreate, tok(f[0], "", f[2], f[3]), s, testBits, 0, errPowMalformed},
		{"no difficulty", purposeCreate, tok(f[0], f[1], "", f[3]), s, testBits, 0, errPowMalformed},
		{"a fifth field", purposeCreate, ch.token + ":", s, testBits, 0, errPowMalformed},
		{"colons only", purposeCreate, ":::", s, testBits, 0, errPowMalformed},
		{"blank before", purposeCreate, " " + ch.token, s, testBits, 0, errPowMalformed},
		{"negative solution", purposeCreate, ch.token, "-" + s, testBits, 0, errPowMalformed},
		{"plus", purposeCreate, ch.token, "+" + s, testBits, 0, errPowMalformed},
		{"leading zero", purposeCreate, ch.token, "0" + s, testBits, 0, errPowMalformed},
		{"zeros", purposeCreate, ch.token, "00", testBits, 0, errPowMalformed},
		{"20 digits", purposeCreate, ch.token, "10000000000000000000", testBits, 0, errPowMalformed},
		{"huge solution", purposeCreate, ch.token, strings.Repeat("9", 1<<20), testBits, 0, errPowMalformed},
		{"19 digits", purposeCreate, ch.token, most, testBits, 0, errPowWrong},
		{"blank behind", purposeCreate, ch.token, s + " ", testBits, 0, errPowMalformed},
		{"hexadecimal", purposeCreate, ch.token, "0x10", testBits, 0, errPowMalformed},
		{"other digits", purposeCreate, ch.token, "١", testBits, 0, errPowMalformed},
	}
	for _, k := range cases {
		nonce, expires, err := c.verify(k.purpose, k.token, k.solution, k.least, testStart.Add(k.at))
		if !errors.Is(err, k.want) {
			t.Errorf("%s: %v, want %v", k.name, err, k.want)
		}
		if err != nil && (nonce != [16]byte{} || expires != 0) {
			t.Errorf("%s: a nonce beside the error", k.name)
		}
	}
}

func TestPowOneStepBelow(t *testing.T) {
	a, c := newAntiflood(8, 28, 2, 10, time.Minute, 30*time.Second), newChallenges()
	low, s := solved(t, c, purposeCreate, a.difficulty(testStart))
	use := func() error {
		_, _, err := c.verify(purposeCreate, low.token, s, a.least(testStart), testStart)
		return err
	}
	for i := range 10 {
		if a.note(nthKey(i), testStart); use() != nil {
			t.Fatal("refused one step below or at the present difficulty")
		}
	}
	for i := range 10 {
		a.note(nthKey(10+i), testStart)
	}
	if d := a.difficulty(testStart); d != 12 || use() != errPowEasy {
		t.Fatalf("at %d bits a proof of 8: %v", d, use())
	}
}

func FuzzPowToken(f *testing.F) {
	c := newChallenges()
	ch, s := solved(f, c, purposeCreate, testBits)
	f.Add(ch.token, s)
	f.Add(ch.token, "0"+s)
	f.Add(ch.token[1:], s)
	f.Add("", "")
	f.Add(":::", "-1")
	f.Fuzz(func(t *testing.T, token, solution string) {
		if _, _, err := c.verify(purposeCreate, token, solution, 1, testStart); (err == nil) != (token == ch.token && workDone(ch.nonce, solution, testBits) && canonical(solution)) {
			t.Fatalf("token %q with solution %q: %v", token, solution, err)
		}
	})
}

func canonical(s string) bool {
	n, err := strconv.ParseUint(s, 10, 64)
	return err == nil && strconv.FormatUint(n, 10) == s && n < 1e19
}

// flood notes n creations at a time, each by another client.
func flood(a *antiflood, from, n int, now time.Time) {
	for i := range n {
		a.note(nthKey(from+i), now)
	}
}

func TestAntifloodOneClientCannot(t *testing.T) {
	wide := 0
	for name, key := range map[string]func() clientKey{
		"one address":              func() clientKey { return nthKey(1) },
		"one /64":                  func() clientKey { wide++; return addrKey(fmt.Sprintf("2001:db8::%x", wide%60000)) },
		"one /48":                  func() clientKey { wide++; return addrKey(fmt.Sprintf("2001:db8:0:%x::1", wide%60000)) },
		"IPv4 and the mapped form": func() clientKey { wide++; return addrKey([]string{"192.0.2.1", "::ffff:192.0.2.1"}[wide%2]) },
	} {
		a := newAntiflood(20, 28, 2, 30, time.Minute, 30*time.Second)
		for i := range 10_000 {
			now := testStart.Add(time.Duration(i) * 10 * time.Millisecond)
			if a.note(key(), now); a.elevated(now) {
				t.Fatalf("%s drove the difficulty to %d with %d creations", name, a.difficulty(now), i+1)
			}
		}
		if len(a.recent) > 8*floodShare {
			t.Errorf("%s: %d creations kept", name, len(a.recent))
		}
	}
	// Ten clients count for 30, whatever they do; nine for 27.
	for clients, want := range map[int]int{9: 20, 10: 22, 19: 22, 20: 24} {
		a := newAntiflood(20, 28, 2, 30, time.Minute, 30*time.Second)
		for range 100 {
			flood(a, 0, clients, testStart)
		}
		if got := a.difficulty(testStart); got != want {
			t.Errorf("%d clients: %d bits, want %d", clients, got, want)
		}
	}
}

func TestAntifloodRisesAndFalls(t *testing.T) {
	// Asked every second or only at the end: the same.
	for _, every := range []time.Duration{time.Second, time.Hour} {
		a, now := newAntiflood(20, 28, 2, 30, time.Minute, 30*time.Second), testStart
		for n, want := range map[int]int{29: 20, 30: 22, 59: 22, 60: 24, 119: 26, 120: 28, 5000: 28} {
			b := newAntiflood(20, 28, 2, 30, time.Minute, 30*time.Second)
			if flood(b, 0, n, now); b.difficulty(now) != want || b.elevated(now) != (want > 20) {
				t.Errorf("%d creations: %d bits, want %d", n, b.difficulty(now), want)
			}
		}
		flood(a, 0, 5000, now)
		for s, want := range map[int]int{0: 28, 60: 28, 89: 28, 90: 26, 119: 26, 120: 24, 149: 24, 150: 22, 179: 22, 180: 20, 10_000: 20} {
			b := newAntiflood(20, 28, 2, 30, time.Minute, 30*time.Second)
			flood(b, 0, 5000, now)
			at := time.Duration(s) * time.Second
			for ask := time.Duration(0); ask < at; ask += every {
				b.difficulty(now.Add(ask))
			}
			if got := b.difficulty(now.Add(at)); got != want {
				t.Errorf("asked every %v, after %d s: %d bits, want %d", every, s, got, want)
			}
		}
		// While the formula still gives a level it does not fall, however long that lasts.
		for i := range 600 {
			at := now.Add(time.Duration(i) * time.Second)
			flood(a, 10_000+2*i, 2, at) // two a second: 120 within each minute
			if d := a.difficulty(at); d != 28 {
				t.Fatalf("after %d s of it: %d bits", i, d)
			}
		}
		// And it rises again in the middle of falling.
		at := now.Add(669 * time.Second)
		if d := a.difficulty(at); d != 24 {
			t.Fatalf("falling: %d bits, want 24", d)
		}
		if flood(a, 80_000, 1, at); a.difficulty(at) != 24 {
			t.Fatalf("one creation while falling: %d bits, want 24 still", a.difficulty(at))
		}
		if flood(a, 90_000, 90, at); a.difficulty(at) != 26 {
			t.Fatalf("rising again: %d bits, want 26", a.difficulty(at))
		}
		if len(a.recent) != 120 {
			t.Fatalf("%d creations kept, want 120", len(a.recent))
		}
	}
}

func TestAntifloodFormula(t *testing.T) {
	for _, c := range []struct{ base, most, n, want int }{
		{0, 28, 5000, 0}, {20, 27, 5000, 27}, {20, 27, 90, 26}, {24, 20, 5000, 24}, {28, 28, 5000, 28},
	} {
		a := newAntiflood(c.base, c.most, 2, 30, time.Minute, 30*time.Second)
		flood(a, 0, c.n, testStart)
		if got := a.difficulty(testStart); got != c.want || a.elevated(testStart) != (c.want > c.base) {
			t.Errorf("%+v: %d", c, got)
		}
		if got := a.difficulty(testStart.Add(time.Hour)); got != c.base {
			t.Errorf("%+v: %d after an hour", c, got)
		}
	}
}

// A plain reading of the formula against many random creations.
func TestAntifloodAgainstTheFormula(t *testing.T) {
	a, seen := newAntiflood(10, 20, 1, 7, time.Minute, 0), map[int][]time.Time{} // no decay: the formula alone
	for i := range 3000 {
		now := testStart.Add(time.Duration(i) * 700 * time.Millisecond)
		if i%400 < 250 {
			who := (i * i * 7) % 61
			a.note(nthKey(who), now)
			seen[who] = append(seen[who], now)
		}
		n := 0
		for _, times := range seen {
			mine := 0
			for _, at := range times {
				if now.Sub(at) < time.Minute {
					mine++
				}
			}
			n += min(3, mine)
		}
		if want := min(20, 10+n/7); a.difficulty(now) != want {
			t.Fatalf("at %d: %d bits, the formula gives %d (n = %d)", i, a.difficulty(now), want, n)
		}
	}
}

func TestAntifloodParallel(t *testing.T) {
	a := newAntiflood(20, 28, 2, 30, time.Minute, 30*time.Second)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				a.note(nthKey(g*100+i), testStart.Add(time.Duration(i)*time.Millisecond))
				a.difficulty(testStart)
			}
		})
	}
	wg.Wait()
	if d := a.difficulty(testStart); d != 28 {
		t.Fatalf("%d bits after 800 creations", d)
	}
}

func TestSolve(t *testing.T) {
	for _, difficulty := range []int{0, 1, 8, 17} {
		for workers := range 3 {
			nonce := hex.EncodeToString(fmt.Appendf(nil, "nonce%11d", 1000*difficulty+workers))
			tried := uint64(0)
			s, err := solve(t.Context(), nonce, difficulty, workers, func(n uint64) { tried = n })
			if err != nil || !canonical(s) || tried == 0 && workers < 2 { // worker 1 may win before 0 began
				t.Fatalf("%d bits: %q, %v, %d tried", difficulty, s, err, tried)
			}
			sum := sha256.Sum256([]byte(nonce + ":" + s)) // spelled out, not by workDone
			bits := 0
			for bits < 256 && sum[bits/8]>>(7-bits%8)&1 == 0 {
				bits++
			}
			if bits < difficulty || !workDone(nonce, s, bits) || bits < 64 && workDone(nonce, s, bits+1) {
				t.Fatalf("%q has %d zero bits, want %d", s, bits, difficulty)
			}
		}
	}
	for _, nonce := range []string{"", strings.Repeat("a", 31), strings.Repeat("A", 32), strings.Repeat("a", 1000)} {
		if _, err := solve(t.Context(), nonce, 1, 1, nil); err != errPowMalformed {
			t.Errorf("nonce %q: %v", nonce, err)
		}
	}
	for _, difficulty := range []int{-1, 65, math.MaxInt} {
		if _, err := solve(t.Context(), strings.Repeat("a", 32), difficulty, 1, nil); err != errPowMalformed {
			t.Errorf("%d bits: %v", difficulty, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if s, err := solve(ctx, strings.Repeat("a", 32), 64, 2, nil); s != "" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("given up: %q, %v", s, err)
	}
}

// Every number of a run is tried once, in each length of number: the first that solves is the one that plain counting finds.
func TestSolveFromAgainstPlainCounting(t *testing.T) {
	nonce := strings.Repeat("0123456789abcdef", 2)
	for _, first := range []uint64{solveRun, 9 * solveRun, 10 * solveRun, 99 * solveRun, 123_456 * solveRun, 10_000_000_000_000 * solveRun} {
		want := ""
		for n := first; n < first+solveRun && want == ""; n++ {
			if s := strconv.FormatUint(n, 10); workDone(nonce, s, 14) {
				want = s
			}
		}
		if got := solveFrom(nonce, 14, first); got != want {
			t.Errorf("from %d: %q, plain counting finds %q", first, got, want)
		}
	}
	// The hash appends make([]byte, n), which costs nothing unless the build is instrumented by the race detector.
	buf, size := make([]byte, 0, 128), 3*len(nonce)
	instrumented := testing.AllocsPerRun(10, func() { buf = append(buf[:0], make([]byte, size)...) }) > 0
	n := 6.0
	for try := 0; n > 5 && try < 10; try++ { // what an earlier test left running is counted too
		n = testing.AllocsPerRun(3, func() { solveFrom(nonce, 64, solveRun) })
	}
	if n > 5 && !instrumented {
		t.Errorf("%v allocations in %d tries", n, solveRun)
	}
}

func BenchmarkVerify(b *testing.B) {
	c := newChallenges()
	ch, s := solved(b, c, purposeCreate, testBits)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := c.verify(purposeCreate, ch.token, s, testBits, testStart); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIssue(b *testing.B) {
	c := newChallenges()
	for b.Loop() {
		c.issue(purposeCreate, 20, time.Minute, testStart)
	}
}

func BenchmarkAntiflood(b *testing.B) {
	a := newAntiflood(20, 28, 2, 30, time.Minute, 30*time.Second)
	i := 0
	for b.Loop() {
		a.note(nthKey(i), testStart)
		a.difficulty(testStart)
		i++
	}
}

// One core, a difficulty that is never met; compare MH/s with BenchmarkBareSHA256 in the same run.
func BenchmarkSolve(b *testing.B) {
	nonce := strings.Repeat("0123456789abcdef", 2)
	n := uint64(0)
	for b.Loop() {
		n++
		if solveFrom(nonce, 64, n*solveRun) != "" {
			b.Fatal("64 zero bits")
		}
	}
	b.ReportMetric(float64(n*solveRun)/b.Elapsed().Seconds()/1e6, "MH/s")
}

// sha256.Sum256 over a constant message of one block, and over the block function alone (a whole block written, no sum).
func BenchmarkBareSHA256(b *testing.B) {
	b.Run("Sum256", func(b *testing.B) {
		msg, n := make([]byte, 52), 0
		for b.Loop() {
			for range solveRun {
				sum := sha256.Sum256(msg)
				msg[0] = sum[0]
			}
			n++
		}
		b.ReportMetric(float64(n*solveRun)/b.Elapsed().Seconds()/1e6, "MH/s")
	})
	b.Run("block", func(b *testing.B) {
		h, msg, n := sha256.New(), make([]byte, 64), 0
		for b.Loop() {
			for range solveRun {
				h.Reset()
				h.Write(msg)
			}
			n++
		}
		b.ReportMetric(float64(n*solveRun)/b.Elapsed().Seconds()/1e6, "MH/s")
	})
}
