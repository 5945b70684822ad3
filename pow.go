package main

// Proof of work: challenges and what was spent of them, the anti-flood that raises their difficulty, and the solver
// (client side).
//
// A challenge is its own record: nonce, expiry and difficulty under an HMAC (RFC 2104, FIPS 180-4), so issuing one
// costs no memory. Invariants: a missing field is a failure; the signature covers the purpose and the length of each
// field, so no field of one token fits another, and nothing is believed or computed before it was compared; a proof
// that was spent is remembered for as long as it could be used, or none is taken at all. It must never know requests,
// the store or a clock: `now` is wall time for expiries (they are on the wire), monotonic time for the anti-flood.

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What a challenge is good for.
const (
	purposeCreate   = "create" // a paste or a short URL
	purposeRegister = "register"
)

// Why a proof was not taken: public sentences, answered beside a fresh challenge. errPowMissing is pow_required,
// errPowFull (which has no challenge) busy, all others are pow_failed.
var (
	errPowMissing   = errors.New("proof of work is required, in X-PoW-Token and X-PoW-Solution")
	errPowMalformed = errors.New("the proof of work is malformed: X-PoW-Token is the challenge's token as it came, " +
		"X-PoW-Solution a decimal number, each sent once")
	errPowSignature = errors.New("the challenge was issued for something else or before a restart: solve the new one")
	errPowExpired   = errors.New("the challenge has expired: solve the new one")
	errPowEasy      = errors.New("the challenge is too easy by now: solve the new one")
	errPowWrong     = errors.New("X-PoW-Solution does not solve the challenge in X-PoW-Token")
	errPowSpent     = errors.New("this proof of work was used before, and works once: solve the new challenge")
	errPowFull      = errors.New("more proofs of work came in than the server can remember: try again in some minutes")
)

// challenge is what a client gets: token is nonce:expires:difficulty:signature, the others are its fields for reading.
type challenge struct {
	nonce      string // 32 lower-case hex
	difficulty int    // leading zero bits, 1 to 64
	expires    int64  // Unix seconds; at that second it is void
	token      string
}

// spentMost bounds the proofs that are remembered: 13 MiB when full. With the default times one is for 36 minutes at
// most, so it takes 120 a second without a pause to get there: 3,000 cores at the anti-flood's 28 bits.
const spentMost = 1 << 18

// challenges issues and verifies under a key made at start: a restart voids every challenge, and the spent ones with
// them.
type challenges struct {
	key [32]byte

	mu    sync.Mutex
	spent map[[16]byte]int64 // nonce -> the Unix second until which it must be remembered
	last  int64              // the second in which the old ones were last forgotten: a walk of some ms
}

func newChallenges() *challenges {
	c := &challenges{spent: map[[16]byte]int64{}}
	rand.Read(c.key[:]) // never fails: it ends the process instead
	return c
}

// issue makes a challenge of 1 to 64 bits that lives for ttl.
func (c *challenges) issue(purpose string, difficulty int, ttl time.Duration, now time.Time) challenge {
	var nonce [16]byte
	rand.Read(nonce[:])
	ch := challenge{nonce: hex.EncodeToString(nonce[:]), difficulty: difficulty, expires: now.Add(ttl).Unix()}
	expires, bits := strconv.FormatInt(ch.expires, 10), strconv.Itoa(difficulty)
	ch.token = strings.Join([]string{ch.nonce, expires, bits, c.sign(purpose, ch.nonce, expires, bits)}, ":")
	return ch
}

// sign returns the lower-case hex HMAC-SHA-256 over the fields, each behind its length (4 bytes, big endian).
func (c *challenges) sign(fields ...string) string {
	msg := make([]byte, 0, 128)
	for _, f := range fields {
		msg = append(binary.BigEndian.AppendUint32(msg, uint32(len(f))), f...)
	}
	mac := hmac.New(sha256.New, c.key[:])
	mac.Write(msg)
	return hex.EncodeToString(mac.Sum(nil))
}

// verify checks a proof as it was sent; least is the lowest difficulty that is taken now. It returns what to spend: the
// nonce, and the Unix second at which the challenge expires. The same proof passes again until its nonce is spent.
func (c *challenges) verify(purpose, token, solution string, least int, now time.Time) (
	nonce [16]byte, expires int64, err error) {
	if token == "" && solution == "" {
		return nonce, 0, errPowMissing
	}
	f := strings.SplitN(token, ":", 5)
	_, canonical := parseDecimal(solution) // ^(0|[1-9][0-9]{0,18})$; what is hashed is the text itself
	if len(f) != 4 || !canonical {
		return nonce, 0, errPowMalformed
	}
	if !hmac.Equal([]byte(f[3]), []byte(c.sign(purpose, f[0], f[1], f[2]))) {
		return nonce, 0, errPowSignature
	}
	expires, _ = strconv.ParseInt(f[1], 10, 64) // as issue wrote them: the signature says so
	bits, _ := strconv.Atoi(f[2])
	switch {
	case expires <= now.Unix():
		return nonce, 0, errPowExpired
	case bits < least:
		return nonce, 0, errPowEasy
	case !workDone(f[0], solution, bits):
		return nonce, 0, errPowWrong
	}
	hex.Decode(nonce[:], []byte(f[0]))
	return nonce, expires, nil
}

// spend marks a proof as used until no request that came with it can be running any more. An error: it was not marked.
// When the set is full it refuses and never evicts: else a flood of proofs would make old ones good again.
func (c *challenges) spend(nonce [16]byte, until, now int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spent) >= spentMost && now != c.last {
		maps.DeleteFunc(c.spent, func(_ [16]byte, until int64) bool { return until <= now })
		c.last = now
	}
	if _, ok := c.spent[nonce]; ok {
		return errPowSpent
	}
	if len(c.spent) >= spentMost {
		return errPowFull
	}
	c.spent[nonce] = until
	return nil
}

// unspend gives a proof back to the client whose request failed after it was spent.
func (c *challenges) unspend(nonce [16]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.spent, nonce)
}

// workDone says whether SHA-256(nonce ":" solution) begins with difficulty (0 to 64) zero bits.
func workDone(nonce, solution string, difficulty int) bool {
	msg := append(append(append(make([]byte, 0, 64), nonce...), ':'), solution...)
	sum := sha256.Sum256(msg)
	return binary.BigEndian.Uint64(sum[:8])>>(64-difficulty) == 0
}

// isHex reports whether s is that many lower-case hex digits.
func isHex(s string, length int) bool {
	return len(s) == length && strings.Trim(s, "0123456789abcdef") == ""
}

const (
	floodWindow = time.Minute      // creations that are younger count
	floodShare  = 3                // that count of one client; wideFactor times that of one /48: it takes many to flood
	floodStep   = 2                // bits: four times the work
	floodDecay  = 30 * time.Second // for a step down: a flood in bursts pays for its pauses
)

// antiflood raises the difficulty while many clients create. With n the creations that count, the formula gives
// min(max(base, most), base + floodStep*floor(n/threshold)). The difficulty is the highest that it gave until now, less
// a step for each floodDecay since then.
type antiflood struct {
	base, most, threshold int // bits, bits, creations

	mu     sync.Mutex
	recent []creation  // the last that count, oldest first: as many as the highest level takes, for more change nothing
	until  []time.Time // [i]: when the formula last gave i+1 steps, or will
}

type creation struct {
	key clientKey
	at  time.Time
}

// newAntiflood takes bits for base (0 = off) and most, and creations (1 or more) for threshold.
func newAntiflood(base, most, threshold int) *antiflood {
	a := &antiflood{base: base, most: max(base, most), threshold: threshold}
	if base > 0 {
		a.until = make([]time.Time, (a.most-base+floodStep-1)/floodStep)
		a.recent = make([]creation, threshold*len(a.until)) // of the year 1: none of them counts
	}
	return a
}

// note counts a creation by a client that nobody vouched for, in place of the client's or the /48's own first if they
// have their share, else of the oldest.
func (a *antiflood) note(key clientKey, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.recent) == 0 {
		return
	}
	wide, _ := key.wide()
	i, own, near := len(a.recent)-1, 0, 0
	for ; i > 0; i-- {
		if a.recent[i].key == key {
			own++
		}
		if around, _ := a.recent[i].key.wide(); around == wide {
			near++
		}
		if own == floodShare || near == wideFactor*floodShare {
			break
		}
	}
	copy(a.recent[1:], a.recent[:i])
	a.recent = append(a.recent[1:], creation{key, now})
	for i := range a.until {
		first := a.recent[len(a.recent)-(i+1)*a.threshold].at
		if now.Sub(first) < floodWindow {
			a.until[i] = first.Add(floodWindow)
		}
	}
}

// difficulty returns what a new challenge asks for, in bits; 0 = no work.
func (a *antiflood) difficulty(now time.Time) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	level := 0
	for i, until := range a.until {
		level = max(level, i+1-int(max(0, now.Sub(until))/floodDecay))
	}
	return min(a.most, a.base+floodStep*level)
}

// elevated says whether the difficulty is above its base.
func (a *antiflood) elevated(now time.Time) bool { return a.difficulty(now) > a.base }

// least returns the lowest difficulty that is still taken: one step below the present one, for who solved while it
// rose.
func (a *antiflood) least(now time.Time) int { return a.difficulty(now) - floodStep }

const solveRun = 100_000 // tries between looks at the context: some 5 ms; a power of ten: one length of number a run

// solve finds the solution of a challenge (nonce: 32 hex digits, difficulty: 0 to 64), on that many cores; progress
// (may be nil) is told every few milliseconds, from one goroutine, how many numbers were tried. It ends with ctx.Err()
// when the caller gives up.
func solve(ctx context.Context, nonce string, difficulty, workers int, progress func(tried uint64)) (string, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var run atomic.Uint64
	var wg sync.WaitGroup
	found := make(chan string, workers)
	for i := range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				n := run.Add(1)
				if s := solveFrom(nonce, difficulty, n*solveRun); s != "" {
					found <- s
					stop()
				}
				if i == 0 && progress != nil {
					progress(n * solveRun)
				}
			}
		})
	}
	wg.Wait()
	select {
	case s := <-found:
		return s, nil
	default:
		return "", ctx.Err()
	}
}

// solveFrom tries solveRun numbers from first, a multiple of it. The message fits one block of SHA-256, so the block is
// padded once and counted up in its decimal digits; it is whole when written, so the hash's saved state (4 bytes of
// magic, then the state, big endian) begins with the digest. Nothing is allocated for a try.
func solveFrom(nonce string, difficulty int, first uint64) string {
	block := make([]byte, sha256.BlockSize)
	copy(block, nonce+":")
	end := 33 + copy(block[33:], strconv.FormatUint(first, 10))
	block[end] = 0x80
	binary.BigEndian.PutUint16(block[62:], uint16(8*end))
	h, state := sha256.New(), make([]byte, 0, 128)
	saver := h.(encoding.BinaryAppender)
	for range solveRun {
		h.Reset()
		h.Write(block)
		state, _ = saver.AppendBinary(state[:0]) // never fails
		if binary.BigEndian.Uint64(state[4:])>>(64-difficulty) == 0 {
			return string(block[33:end])
		}
		i := end - 1
		for block[i] == '9' {
			block[i] = '0'
			i--
		}
		block[i]++ // behind the last number of a run this may be any byte; nothing reads it
	}
	return ""
}
