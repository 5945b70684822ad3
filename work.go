package main

// work.go is what a creation costs and passes: the permit (a free creation or a proof of work, the count of duplicates,
// bytes), the challenges, and the derivation of passwords.
//
// Everything is taken before the store is asked, in memory, and kept or given back in one place (permit.release), so
// that a creation that fails costs nothing, and two at once can't spend the same thing. Derivations take a slot: each
// is a tenth of a second of one core that strangers can ask for. (RFC 8018 PBKDF2, OWASP Password Storage)

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"
)

const (
	kdfRounds     = 600_000 // PBKDF2-HMAC-SHA256 (OWASP Password Storage, 2023)
	kdfWaiting    = 8
	transferWait  = time.Second // for a slot: bursts of one client take their turns
	transferRetry = 5           // seconds
	dedupFrom     = 64          // bytes below which nothing is a duplicate: everybody's first paste is "hello"
	limitsMost    = 100_000     // limits remembered: some 4 MiB
	trustedFactor = 5           // what a trusted client has of the rates of creations, reads and bytes
)

// startWork makes the parts that limit creations and transfers.
func (s *server) startWork() {
	cfg, now := s.cfg, s.now()
	s.limiter = newLimiter(cfg.rates, limitsMost, now)
	share := func(total int64) *slots {
		return newSlots(int(total), max(1, int(total)/8), max(1, int(total)/4), 4*int(total))
	}
	s.uploads, s.downloads = share(cfg.maxUploads), share(cfg.maxDownloads)
	s.kdf = newSlots(max(1, runtime.NumCPU()-1), 1, 1, kdfWaiting)
	s.lists = newSlots(16, 1, 4, 64)
	s.flood = newAntiflood(int(cfg.powDifficulty), int(cfg.floodMax), int(cfg.floodThreshold))
	s.work = newChallenges()
	s.dedupKey = [32]byte(random(32))
}

// random returns n bytes.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails: it ends the process instead
	return b
}

// ---- permits ----

// permit is what one creation has taken so far and gives back if it fails.
type permit struct {
	q      *request
	taken  []due    // of limits: a free creation first
	nonce  [16]byte // of the work
	worked bool     // nonce is spent
	bytes  int64    // charged and not stored yet
}

// mayCreate asks for the certificate that the operator demands.
func (s *server) mayCreate(q *request) error {
	if s.cfg.requireCert == "any" && q.tier == anonymous || s.cfg.requireCert == "trusted" && q.tier < trusted {
		way := "ask the operator for one"
		if s.cfg.pkiEnabled == "1" && s.cfg.registration == "open" {
			way = "fpaste register NAME gets one"
		} else if s.cfg.requireCert == "any" {
			way = "fpaste cert NAME makes one"
		}
		return refuse(401, "certificate_required", "creating needs a client certificate",
			way+"; with curl: --cert FILE")
	}
	return nil
}

// admit asks for the work of a creation, or takes one of the client's free ones.
func (s *server) admit(q *request) (*permit, error) {
	p := &permit{q: q}
	if s.cfg.powDifficulty == 0 || q.who.vouched {
		return p, nil
	}
	var err error
	p.nonce, err = s.spendWork(q, purposeCreate, s.flood.least(q.start))
	p.worked = err == nil
	free := s.limiter.free(q.key, s.flood.elevated(q.start))
	if errors.Is(err, errPowMissing) && s.limiter.take(free, q.start).allowed {
		p.taken, err = append(p.taken, free), nil
	}
	if err != nil {
		return nil, s.powRefused(q, purposeCreate, s.flood.difficulty(q.start), err)
	}
	return p, nil
}

// countDuplicate takes one of the times that a client may store the same content.
func (p *permit) countDuplicate(sum []byte, size int64) error {
	s := p.q.s
	if size < dedupFrom {
		return nil
	}
	mac := hmac.New(sha256.New, s.dedupKey[:])
	mac.Write(sum)
	x := due{rateDuplicate, p.q.key, 1, 1}
	x.key.content = [8]byte(mac.Sum(nil))
	d := s.limiter.take(x, s.now())
	if !d.allowed {
		wait := max(1, seconds(d.retryAfter))
		e := refuse(429, "duplicate_content", fmt.Sprintf("you have stored this content %d times", d.limit),
			"use the link that you have, or wait "+timeWords(wait)).after(int(wait))
		e.Count, e.Window = d.limit, int64(s.cfg.dedupWindow/time.Second)
		return e
	}
	p.taken = append(p.taken, x)
	return nil
}

// keep uses the permit up: the creation counts for the anti-flood, in the order in which they are made.
func (p *permit) keep() {
	s := p.q.s
	if p.worked {
		s.metrics.workSolved.Add(1)
	}
	if !p.q.who.vouched {
		s.flood.note(p.q.key, s.now())
	}
	*p = permit{q: p.q}
}

// release gives back what a failed creation took. Who made us store a chunk has had its price: work or the free
// creation stay taken.
func (p *permit) release(stored bool) {
	s, q := p.q.s, p.q
	for _, x := range p.taken {
		if x.class != rateFree || !stored {
			s.limiter.give(x, q.start)
		}
	}
	if p.worked && !stored {
		s.work.unspend(p.nonce)
	}
	s.limiter.give(due{rateBytes, q.key, p.bytes, q.factor}, q.start)
}

// ---- proof of work ----

// spendWork verifies the proof in the request's headers, each of which may stand there once, and spends it, for as long
// as an upload that came with it may last.
func (s *server) spendWork(q *request, purpose string, least int) (nonce [16]byte, err error) {
	token, solution := q.r.Header["X-Pow-Token"], q.r.Header["X-Pow-Solution"]
	if len(token) > 1 || len(solution) > 1 {
		return nonce, errPowMalformed
	}
	nonce, expires, err := s.work.verify(purpose, strings.Join(token, ""), strings.Join(solution, ""), least,
		time.Unix(q.now, 0))
	if err == nil {
		err = s.work.spend(nonce, expires+seconds(s.cfg.transferTimeout+time.Minute), q.now)
	}
	return nonce, err
}

// powRefused answers a missing or bad proof with a fresh challenge and the ways on.
func (s *server) powRefused(q *request, purpose string, difficulty int, why error) error {
	if errors.Is(why, errPowFull) {
		return refuse(503, "busy", why.Error(), "").after(60)
	}
	e := refuse(400, "pow_required", why.Error(), "")
	e.Challenge = s.challenge(q, purpose, difficulty)
	ways := "use fpaste, which does it by itself (" + q.baseURL() + "/client)"
	if !errors.Is(why, errPowMissing) {
		e.Code = "pow_failed"
		s.metrics.workFailed.Add(1)
	}
	if purpose == purposeCreate {
		d := s.limiter.ask(s.limiter.free(q.key, s.flood.elevated(q.start)), q.start)
		if s.cfg.powFree > 0 && !d.allowed {
			e.retry = int(max(1, seconds(d.retryAfter)))
			ways += ", wait " + timeWords(int64(e.retry)) + " for a free creation"
		}
		ways += ", or use a certificate that the operator issued" // who is vouched for never needs work
	}
	e.Hint = ways + "; by hand: X-PoW-Token: the token, X-PoW-Solution: an N for which SHA-256 of nonce:N begins " +
		"with difficulty zero bits" + q.proxyHint()
	return e
}

// challengeAnswer is a challenge as it is sent.
type challengeAnswer struct {
	Enabled        bool   `json:"enabled"`
	Nonce          string `json:"nonce,omitempty"`
	Difficulty     int    `json:"difficulty"`
	BaseDifficulty int64  `json:"base_difficulty,omitempty"`
	Elevated       *bool  `json:"elevated,omitempty"`
	Expires        int64  `json:"expires,omitempty"`
	Token          string `json:"token,omitempty"`
	Free           *int64 `json:"free,omitempty"`
}

func (s *server) challenge(q *request, purpose string, difficulty int) *challengeAnswer {
	elevated, base, ttl := s.flood.elevated(q.start), s.cfg.powDifficulty, s.cfg.powTTL
	if purpose == purposeRegister {
		elevated, base = false, s.cfg.registerPow
	}
	if elevated {
		ttl *= 4
	}
	s.metrics.workIssued.Add(1)
	c := s.work.issue(purpose, difficulty, ttl, time.Unix(q.now, 0))
	x := s.limiter.free(q.key, elevated)
	free := s.limiter.ask(x, q.start).remaining / x.cost
	return &challengeAnswer{true, c.nonce, c.difficulty, base, &elevated, c.expires, c.token, &free}
}

func (s *server) showChallenge(q *request) error {
	if s.cfg.powDifficulty == 0 {
		return q.writeJSON(200, &challengeAnswer{})
	}
	return q.writeJSON(200, s.challenge(q, purposeCreate, s.flood.difficulty(q.start)))
}

// ---- passwords ----

// passwordKey derives what is stored for a password: salt | key; nil for none.
func (s *server) passwordKey(q *request, pass string) ([]byte, error) {
	if pass == "" {
		return nil, nil
	}
	salt := random(32)
	key, err := s.derive(q, pass, salt)
	return append(salt, key...), err
}

// derive runs PBKDF2 in a slot. Who leaves while waiting pays, or one client could hold the queue for nothing.
func (s *server) derive(q *request, pass string, salt []byte) ([]byte, error) {
	x := due{rateAuth, q.key, 1, 1}
	if d := s.limiter.take(x, q.start); !d.allowed {
		return nil, q.rateLimited(rateAuth, d)
	}
	if !s.kdf.acquire(q.r.Context(), q.key, time.Minute) {
		if q.r.Context().Err() == nil {
			s.limiter.give(x, q.start)
		}
		return nil, errBusy
	}
	defer s.kdf.release(q.key)
	return pbkdf2.Key(sha256.New, pass, salt, kdfRounds, 32)
}

// ---- tiers ----

func (s *server) maxSize(t tier) int64 {
	return [...]int64{s.cfg.maxAnon, s.cfg.maxAuth, s.cfg.maxAuth, s.cfg.maxAuth}[t]
}

// life is how long a paste lives without an asked-for expiry, from its last read.
func (s *server) life(t tier) time.Duration {
	c := s.cfg
	return min([...]time.Duration{c.expiryAnon, c.expiryUntrusted, c.expiryTrusted, c.expiryTrusted}[t], c.maxExpiry)
}

// longest is the longest life that may be asked for; an operator's longer default life raises it.
func (s *server) longest(t tier) time.Duration {
	days := [...]time.Duration{anonymous: 7, untrusted: 49, trusted: 90, admin: 90}[t]
	return min(max(days*24*time.Hour, s.life(t)), s.cfg.maxExpiry)
}

// quota is what the database may hold while this caller adds to it.
func (q *request) quota() int64 {
	if q.tier >= trusted {
		return q.s.cfg.maxStorage
	}
	return q.s.cfg.maxStorage / 4 * 3
}
