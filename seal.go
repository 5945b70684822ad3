package main

// The sealing of pastes, format FPE1: what leaves this machine encrypted, its keys and the proofs made of them.
//
// A paste's key is 32 random bytes in the link's fragment; it never enters a request, a log or a sentence. Content
// streams through one segment of memory whatever its size, and nothing unverified is ever handed to a caller:
// truncation, reordering, splicing and a second key for the same bytes are all seen. This file takes and returns
// values and readers only: it knows of no network, no file and no terminal.
// RFC 5869 (HKDF), NIST SP 800-38D (GCM), the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015), and
// key commitment because GCM alone lets one ciphertext open under two keys (Dodis et al. 2018).

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
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
	out, _ := hkdf.Key(sha256.New, k[:], salt, "flaskpaste/1 "+use, 32) // fails above 8,160 bytes only
	return out
}

// readProof is what a reader shows (64 hex), proofHash what the server keeps of it. Both come from the key alone,
// without a salt, so that the link goes on working after an update with its fresh one.
func (k sealKey) readProof() string { return fmt.Sprintf("%x", k.derive(nil, "read")) }

func (k sealKey) proofHash() string { return fmt.Sprintf("%x", sha256.Sum256(k.derive(nil, "read"))) }

// head is what stored bytes begin with: magic, salt (16 bytes), commitment to the key.
func (k sealKey) head(salt []byte) []byte {
	return slices.Concat([]byte(sealMagic), salt, k.derive(salt, "commit"))
}

// commits tells whether head was made under the key.
func (k sealKey) commits(head []byte) bool {
	return subtle.ConstantTimeCompare(head, k.head(head[4:20])) == 1
}

// sealTitle is the header at the start of the plaintext: what the sender says of the content, so it may be hostile.
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
// content truly ends (a cut connection is another error): that is how the last segment is told from the others.
type sealStream struct {
	src     *bufio.Reader // holds a segment, and one byte to see whether another one follows
	aead    cipher.AEAD
	head    []byte
	opening bool
	nonce   [12]byte // counter (11 bytes), 1 on the last segment
	buf     []byte
	out     []byte // ready for the reader
	count   uint64
	err     error // the first one stays; it follows what is in out
}

func newSealStream(src io.Reader, key sealKey, head []byte, opening bool) *sealStream {
	block, _ := aes.NewCipher(key.derive(head[4:20], "content")) // neither fails with a key of 32 bytes
	aead, _ := cipher.NewGCM(block)
	return &sealStream{src: bufio.NewReaderSize(src, sealSegment+sealTag+1), aead: aead, head: head, opening: opening,
		buf: make([]byte, 0, sealSegment+sealTag)}
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
	s := newSealStream(io.MultiReader(bytes.NewReader(line), src), key, key.head(salt), false)
	s.out = s.head
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
	if s.segment(); s.err != nil && s.err != io.EOF {
		return nil, title, s.err
	}
	title, s.out, err = parseTitle(s.out)
	return s, title, err
}

// segment works one segment into out; it is the last if and only if the source ends after it.
func (s *sealStream) segment() {
	size := sealSegment
	if s.opening {
		size += sealTag
	}
	in, err := s.src.Peek(size + 1)
	if s.err = err; err == io.EOF {
		s.nonce[11] = 1
	} else if err != nil {
		return
	}
	in = in[:min(len(in), size)]
	if s.count == sealMost || s.opening && len(in) <= sealTag {
		s.err = errSealBroken
		return
	}
	binary.BigEndian.PutUint64(s.nonce[3:11], s.count)
	s.count++
	if !s.opening {
		s.out = s.aead.Seal(s.buf, s.nonce[:], in, s.head)
	} else if s.out, err = s.aead.Open(s.buf, s.nonce[:], in, s.head); err != nil {
		s.err = errSealBroken
	}
	s.src.Discard(len(in)) // which Peek has shown
}

func (s *sealStream) Read(p []byte) (int, error) {
	for len(s.out) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		s.segment()
	}
	n := copy(p, s.out)
	s.out = s.out[n:]
	return n, nil
}

// WriteTo spares io.Copy a copy.
func (s *sealStream) WriteTo(w io.Writer) (n int64, err error) {
	for {
		m, err := w.Write(s.out)
		if n += int64(m); err != nil {
			return n, err
		}
		if s.out = nil; s.err == io.EOF {
			return n, nil
		} else if s.err != nil {
			return n, s.err
		}
		s.segment()
	}
}
