package main

// Proof of work: challenges and their verification, the anti-flood that raises their difficulty, and the solver (client side).
//
// A challenge is its own record: nonce, expiry and difficulty under an HMAC (RFC 2104, FIPS 180-4), so issuing one costs no
// memory and nobody can fill a table by asking. Invariants: every field is checked for its one spelling before anything is
// computed; a field that is missing is a failure; the signature covers the purpose and the length of each field, so no field of
// one token fits another; nothing here is accepted twice, because the caller spends the nonce that verify returns in the
// transaction that stores the paste. It must never know requests, the store or a clock: time comes in as `now`, read as
// wall time for expiries (they are on the wire) and as monotonic time for the anti-flood.

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"slices"
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
	purposePassword = "password" // a try at a paste whose password is being guessed
)

// Why a proof was not taken: public sentences. errPowMissing is answered as pow_required, all others as pow_failed.
var (
	errPowMissing   = errors.New("proof of work is required")
	errPowMalformed = errors.New("the proof of work is malformed")
	errPowSignature = errors.New("the challenge was not issued by this server for this purpose")
	errPowExpired   = errors.New("the challenge has expired")
	errPowEasy      = errors.New("the challenge is too easy by now")
	errPowWrong     = errors.New("the solution does not solve the challenge")
)

// challenge is what a client gets: token is nonce:expires:difficulty:signature, the others are its fields for reading.
type challenge struct {
	nonce      string // 32 lower-case hex
	difficulty int    // leading zero bits, 1 to 64
	expires    int64  // Unix seconds; at that second it is void
	token      string
}

// challenges issues and verifies under a key made at start: a restart voids every challenge, and the spent ones with them.
type challenges struct{ key [32]byte }

func newChallenges() *challenges {
	c := new(challenges)
	rand.Read(c.key[:]) // never fails: it ends the process instead
	return c
}

// issue makes a challenge of 1 to 64 bits that lives for ttl.
func (c *challenges) issue(purpose string, difficulty int, ttl time.Duration, now time.Time) challenge {
	var nonce [16]byte
	rand.Read(nonce[:])
	ch := challenge{nonce: hex.EncodeToString(nonce[:]), difficulty: difficulty, expires: now.Add(ttl).Unix()}
	expires, bits := strconv.FormatInt(ch.expires, 10), strconv.Itoa(difficulty)
	ch.token = strings.Join([]string{ch.nonce, expires, bits, string(c.sign(purpose, ch.nonce, expires, bits))}, ":")
	return ch
}

// sign returns the lower-case hex HMAC-SHA-256 over the fields, each behind its length (4 bytes, big endian).
func (c *challenges) sign(fields ...string) []byte {
	msg := make([]byte, 0, 128)
	for _, f := range fields {
		msg = append(binary.BigEndian.AppendUint32(msg, uint32(len(f))), f...)
	}
	mac := hmac.New(sha256.New, c.key[:])
	mac.Write(msg)
	return hex.AppendEncode(nil, mac.Sum(nil))
}

// verify checks a proof as it was sent (X-PoW-Token, X-PoW-Solution) for a purpose; least is the lowest difficulty taken now (see
// antiflood.least). It returns what to spend: the nonce, and the Unix second until which it must be remembered. It keeps
// no state: the same proof passes again until its nonce is spent.
func (c *challenges) verify(purpose, token, solution string, least int, now time.Time) (nonce [16]byte, expires int64, err error) {
	if token == "" && solution == "" {
		return nonce, 0, errPowMissing
	}
	n, rest, _ := strings.Cut(token, ":")
	e, rest, _ := strings.Cut(rest, ":")
	b, signature, _ := strings.Cut(rest, ":")
	until, okE := parseDecimal(e)
	bits, okB := parseDecimal(b)
	_, okN := parseDecimal(solution) // ^(0|[1-9][0-9]{0,18})$; what is hashed is the text itself
	if !isHex(n, 32) || !isHex(signature, 64) || !okE || until > math.MaxInt64 || !okB || bits < 1 || bits > 64 || !okN {
		return nonce, 0, errPowMalformed
	}
	switch {
	case subtle.ConstantTimeCompare([]byte(signature), c.sign(purpose, n, e, b)) != 1:
		return nonce, 0, errPowSignature
	case int64(until) <= now.Unix():
		return nonce, 0, errPowExpired
	case int(bits) < least:
		return nonce, 0, errPowEasy
	case !workDone(n, solution, int(bits)):
		return nonce, 0, errPowWrong
	}
	hex.Decode(nonce[:], []byte(n)) // checked above
	return nonce, int64(until), nil
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

// antiflood raises the difficulty while many clients create. With n the creations of the last window, each client counting three
// at most (a /48 eight times that), the formula gives min(max(base, most), base + step*floor(n/threshold)). The difficulty
// follows it up at once and down by one step for each decay during which it gave less.
//
// Only the newest creations that can matter are kept, as many as give the highest level, so memory does not grow with the
// flood. A client's fourth takes the place of its first: one client alone can hold three, and so never drives anything.
type antiflood struct {
	base, most, step, threshold int
	window, decay               time.Duration
	levels                      int // steps from base to most

	mu     sync.Mutex
	recent []creation // oldest first, at most levels*threshold; at least level*threshold
	level  int        // steps above base
	fell   time.Time  // when the level last fell
}

type creation struct {
	key clientKey
	at  time.Time
}

const floodShare = 3 // creations that count for one client

// newAntiflood takes bits for base (0: everything off), most and step, creations for threshold; step and threshold are 1 or more.
func newAntiflood(base, most, step, threshold int, window, decay time.Duration) *antiflood {
	a := &antiflood{base: base, most: max(base, most), step: step, threshold: threshold, window: window, decay: decay}
	if base > 0 {
		a.levels = (a.most - base + step - 1) / step
	}
	return a
}

// note counts a creation by a client that nobody vouched for.
func (a *antiflood) note(key clientKey, now time.Time) {
	if a.levels == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settle(now)
	own, near, out := 0, 0, -1
	wide, isIPv6 := key.wide()
	for i, c := range slices.Backward(a.recent) {
		if w, ok := c.key.wide(); ok && isIPv6 && w == wide {
			if near++; near == 8*floodShare && out < 0 {
				out = i
			}
		}
		if c.key == key {
			if own++; own == floodShare {
				out = i
			}
		}
	}
	if out < 0 && len(a.recent) == a.levels*a.threshold {
		out = 0
	}
	if out >= 0 {
		a.recent = slices.Delete(a.recent, out, out+1)
	}
	a.recent = append(a.recent, creation{key, now})
	n := 0
	for i := len(a.recent) - 1; i >= 0 && now.Sub(a.recent[i].at) < a.window; i-- {
		n++
	}
	a.level = max(a.level, n/a.threshold)
}

// difficulty returns what a new challenge asks for, in bits; 0 = no work.
func (a *antiflood) difficulty(now time.Time) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settle(now)
	return min(a.most, a.base+a.step*a.level)
}

// elevated says whether the difficulty is above its base.
func (a *antiflood) elevated(now time.Time) bool { return a.difficulty(now) > a.base }

// least returns the lowest difficulty that is still taken: one step below the present one, for who solved while it rose.
func (a *antiflood) least(now time.Time) int { return a.difficulty(now) - a.step }

// settle lets the level fall for the time that has gone by. The formula began to give less than a level when the oldest of the
// newest level*threshold creations left the window, so the outcome does not depend on how often anybody asks.
func (a *antiflood) settle(now time.Time) {
	for a.level > 0 {
		since := a.recent[len(a.recent)-a.level*a.threshold].at.Add(a.window)
		if a.fell.After(since) {
			since = a.fell
		}
		if now.Sub(since) < a.decay {
			return
		}
		a.level--
		a.fell = since.Add(a.decay)
	}
}

const solveRun = 100_000 // tries between two looks at the context: some 5 ms; a power of ten, so a run has one number of digits

// solve finds the solution of a challenge, on that many cores; progress (may be nil) is told every few milliseconds, from one
// goroutine, how many numbers were tried. It ends with ctx.Err() when the caller gives up.
func solve(ctx context.Context, nonce string, difficulty, workers int, progress func(tried uint64)) (string, error) {
	if !isHex(nonce, 32) || difficulty < 0 || difficulty > 64 {
		return "", errPowMalformed
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var run atomic.Uint64
	var wg sync.WaitGroup
	found := make(chan string, max(1, workers))
	for i := range max(1, workers) {
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

// solveFrom tries solveRun numbers from first, a multiple of it. The message fits one block of SHA-256, so the block is padded once
// and counted up in its decimal digits; it is whole when written, so the hash's saved state (4 bytes of magic, then the
// state, big endian) begins with the digest and the padding of Sum is never computed. Nothing is allocated for a try.
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
