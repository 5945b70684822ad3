package main

// The sealing of pastes, format FPE1: what leaves this machine encrypted, and the keys and proofs that are made for
// it.
//
// A paste's key is 32 random bytes in the link's fragment; it never enters a request, a log or a sentence. Content
// streams through one segment of memory whatever its size, and nothing unverified is ever handed to a caller:
// truncation, reordering, splicing and a second key for the same bytes are all seen. This file takes and returns
// values and readers only: it knows of no network, no file and no terminal.
// RFC 5869 (HKDF), NIST SP 800-38D (GCM), the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015), and
// key commitment because GCM alone lets one ciphertext open under two keys (Dodis et al. 2018).

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

const (
	sealMagic   = "FPE1"      // format and version in one: another last byte is another format
	sealHead    = 4 + 16 + 32 // magic, salt, commitment; the additional data of every segment
	sealSegment = 64 << 10    // plaintext bytes
	sealTag     = 16          // bytes
	sealMost    = 1 << 32     // segments under one key and salt, far below GCM's bounds
	titleMost   = 1024        // bytes of the header's JSON
)

var (
	errWrongKey   = errors.New("wrong key")
	errSealBroken = errors.New("the content is damaged, cut short, or was never encrypted by fpaste")
	errSealKey    = errors.New("the key behind the link's # must be its 43 characters, exactly as create printed them")
	errTitle      = errors.New("name and type together are too long, or not UTF-8")
)

// sealKey is a paste's secret, in the link as 43 characters of base64url.
type sealKey [32]byte

// Format prints nothing of the key, whatever the verb.
func (sealKey) Format(f fmt.State, _ rune) { io.WriteString(f, "[redacted]") }

func newSealKey() (k sealKey) {
	rand.Read(k[:]) // never fails: crypto/rand ends the program instead
	return k
}

// parseSealKey is strict: one spelling a key, so the last character's spare bits must be zero.
func parseSealKey(s string) (k sealKey, err error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(s) != 43 || len(raw) != 32 { // the decoder skips line ends: both lengths must fit
		return k, errSealKey
	}
	return sealKey(raw), nil
}

func (k sealKey) fragment() string { return base64.RawURLEncoding.EncodeToString(k[:]) }

// derive returns 32 bytes for one use of the key.
func (k sealKey) derive(salt []byte, use string) []byte {
	out, err := hkdf.Key(sha256.New, k[:], salt, "flaskpaste/1 "+use, 32)
	if err != nil {
		panic(err) // only for lengths above 8,160
	}
	return out
}

// readProof is what a reader shows (64 hex), proofHash what the server keeps of it. Both come from the key alone,
// without a salt, so that the link goes on working after an update with its fresh one.
func (k sealKey) readProof() string { return hex.EncodeToString(k.derive(nil, "read")) }

func (k sealKey) proofHash() string {
	sum := sha256.Sum256(k.derive(nil, "read"))
	return hex.EncodeToString(sum[:])
}

// commits tells whether head (52 bytes) was made under the key.
func (k sealKey) commits(head []byte) bool {
	return subtle.ConstantTimeCompare(head[20:], k.derive(head[4:20], "commit")) == 1
}

// sealTitle is the header at the start of the plaintext: what the sender says of the content, to be judged as
// hostile.
type sealTitle struct {
	Name string `json:"name,omitempty"`
	Type string `json:"type,omitempty"`
}

func (t sealTitle) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b) // ends the object with the newline that the format asks for
	enc.SetEscapeHTML(false)
	if err := enc.Encode(t); err != nil || b.Len() > titleMost+1 || !utf8.ValidString(t.Name+t.Type) {
		return nil, errTitle
	}
	return b.Bytes(), nil
}

// parseTitle takes the header off a verified first segment.
func parseTitle(b []byte) (t sealTitle, rest []byte, err error) {
	line, rest, ok := bytes.Cut(b, []byte("\n"))
	var members map[string]any // by exact name: into a struct, encoding/json would take "NAME" for "name"
	if !ok || len(line) > titleMost || !utf8.Valid(line) || json.Unmarshal(line, &members) != nil || members == nil {
		return t, nil, errSealBroken
	}
	for name, into := range map[string]*string{"name": &t.Name, "type": &t.Type} {
		if value, given := members[name]; given {
			if *into, ok = value.(string); !ok {
				return t, nil, errSealBroken
			}
		}
	}
	return t, rest, nil
}

// sealStream seals or opens as it is read, one segment in memory. Its source must return io.EOF only where the
// content truly ends (a cut connection is another error), because that is how the last segment is told from the
// others.
type sealStream struct {
	src     io.Reader
	aead    cipher.AEAD
	head    []byte
	opening bool
	nonce   [12]byte
	count   uint64
	buf     []byte // a segment being worked on in place, and one byte read ahead
	have    int    // bytes at the start of buf read so far
	ahead   byte
	out     []byte // ready for the reader
	last    bool
	err     error // the first one stays
}

func newSealStream(src io.Reader, key sealKey, head []byte, opening bool) *sealStream {
	s := &sealStream{src: src, head: head, opening: opening, buf: make([]byte, sealSegment+sealTag+1)}
	block, err := aes.NewCipher(key.derive(head[4:20], "content"))
	if err == nil {
		s.aead, err = cipher.NewGCM(block)
	}
	if err != nil {
		panic(err) // only for other sizes of key and block
	}
	return s
}

// sealFrom encrypts src under key with a fresh salt. errTitle.
func sealFrom(src io.Reader, key sealKey, title sealTitle) (*sealStream, error) {
	salt := make([]byte, 16)
	rand.Read(salt)
	return sealWith(src, key, title, salt)
}

func sealWith(src io.Reader, key sealKey, title sealTitle, salt []byte) (*sealStream, error) {
	line, err := title.encode()
	if err != nil {
		return nil, err
	}
	head := append(append([]byte(sealMagic), salt...), key.derive(salt, "commit")...)
	s := newSealStream(src, key, head, false)
	s.have, s.out = copy(s.buf, line), head
	return s, nil
}

// openFrom reads head, first segment and title; the content follows by reading the stream.
// errWrongKey, errSealBroken, or the source's error.
func openFrom(src io.Reader, key sealKey) (s *sealStream, title sealTitle, err error) {
	head := make([]byte, sealHead)
	switch _, err := io.ReadFull(src, head); {
	case err == io.EOF, err == io.ErrUnexpectedEOF, err == nil && string(head[:4]) != sealMagic:
		return nil, title, errSealBroken
	case err != nil:
		return nil, title, err
	case !key.commits(head):
		return nil, title, errWrongKey
	}
	s = newSealStream(src, key, head, true)
	if err = s.segment(); err == nil {
		title, s.out, err = parseTitle(s.out)
	}
	return s, title, err
}

// segment works one segment; it is the last if and only if the source ends after it.
func (s *sealStream) segment() (err error) {
	if s.last {
		return io.EOF
	}
	size := sealSegment
	if s.opening {
		size += sealTag
	}
	if s.count > 0 {
		s.buf[0], s.have = s.ahead, 1
	}
	for s.have <= size && !s.last {
		n, err := s.src.Read(s.buf[s.have : size+1])
		if s.have += n; err != nil && err != io.EOF {
			return err
		}
		s.last = err == io.EOF
	}
	if s.have > size { // the byte read ahead is the next segment's, even if it came together with EOF
		s.have, s.last, s.ahead = size, false, s.buf[size]
	}
	if s.count == sealMost || s.opening && s.have <= sealTag {
		return errSealBroken
	}
	binary.BigEndian.PutUint64(s.nonce[3:11], s.count)
	if s.last {
		s.nonce[11] = 1
	}
	s.count++
	if !s.opening {
		s.out = s.aead.Seal(s.buf[:0], s.nonce[:], s.buf[:s.have], s.head)
	} else if s.out, err = s.aead.Open(s.buf[:0], s.nonce[:], s.buf[:s.have], s.head); err != nil {
		return errSealBroken
	}
	return nil
}

func (s *sealStream) Read(p []byte) (int, error) {
	for len(s.out) == 0 {
		if s.err == nil {
			s.err = s.segment()
		}
		if s.err != nil {
			return 0, s.err
		}
	}
	n := copy(p, s.out)
	s.out = s.out[n:]
	return n, nil
}
