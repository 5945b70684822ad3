package main

// Sealing by itself (vectors, borders, every kind of tampering, fuzz, speed), and the client against servers that the real one
// can't be: hostile, half broken or gone.

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

func testKey(n byte) sealKey { return sealKey(sha256.Sum256([]byte{'k', n})) }

func mustSeal(t testing.TB, key sealKey, title sealTitle, plain []byte) []byte {
	t.Helper()
	s, err := sealWith(bytes.NewReader(plain), key, title, bytes.Repeat([]byte{7}, 16))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// open reads everything; what came before an error is returned too.
func open(sealed []byte, key sealKey) ([]byte, sealTitle, error) {
	s, title, err := openFrom(bytes.NewReader(sealed), key)
	if err != nil {
		return nil, title, err
	}
	out, err := io.ReadAll(s)
	return out, title, err
}

// The vectors were made by another implementation (Python, from the format's text alone).
func TestSealVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/seal.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []struct {
			Name, Key, Salt, Header, Plaintext, Ciphertext, Commitment string
			Read_proof, Read_proof_sha256                              string
			Plaintext_byte                                             string
			Plaintext_size, Ciphertext_size                            int
			Ciphertext_sha256, Ciphertext_first_52, Ciphertext_last_32 string
		}
	}
	if err := json.Unmarshal(text, &file); err != nil || len(file.Vectors) != 5 {
		t.Fatal(len(file.Vectors), err)
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, v := range file.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			key, err := parseSealKey(v.Key)
			if err != nil {
				t.Fatal(err)
			}
			var title sealTitle
			if err := json.Unmarshal([]byte(v.Header), &title); err != nil {
				t.Fatal(err)
			}
			plain := unhex(v.Plaintext)
			if v.Plaintext_size > 0 {
				plain = bytes.Repeat(unhex(v.Plaintext_byte), v.Plaintext_size)
			}
			s, err := sealWith(bytes.NewReader(plain), key, title, unhex(v.Salt))
			if err != nil {
				t.Fatal(err)
			}
			sealed, err := io.ReadAll(s)
			if err != nil {
				t.Fatal(err)
			}
			if want := unhex(v.Ciphertext); v.Plaintext_size == 0 && !bytes.Equal(sealed, want) {
				t.Errorf("ciphertext %x, want %x", sealed, want)
			}
			if sum := sha256.Sum256(sealed); v.Plaintext_size > 0 && (hex.EncodeToString(sum[:]) != v.Ciphertext_sha256 || len(sealed) != v.Ciphertext_size) {
				t.Errorf("ciphertext of %d bytes has hash %x", len(sealed), sum)
			}
			if got := hex.EncodeToString(sealed[20:52]); got != v.Commitment {
				t.Errorf("commitment %s", got)
			}
			if key.readProof() != v.Read_proof || key.proofHash() != v.Read_proof_sha256 {
				t.Errorf("read proof %s, hash %s", key.readProof(), key.proofHash())
			}
			got, gotTitle, err := open(sealed, key)
			if err != nil || !bytes.Equal(got, plain) || gotTitle != title {
				t.Errorf("opened %d bytes, %v, %v", len(got), gotTitle, err)
			}
			if n := sealedSize(int64(len(plain)), title); n != int64(len(sealed)) {
				t.Errorf("sealedSize says %d of %d", n, len(sealed))
			}
		})
	}
}

func TestSealBorders(t *testing.T) {
	for _, size := range []int{0, 1, 15, 16, sealSegment - 4, sealSegment - 3, sealSegment - 2, sealSegment, 2*sealSegment - 4, 2*sealSegment - 3, 2*sealSegment - 2, 3*sealSegment + 99} {
		plain := bytes.Repeat([]byte("0123456789abcde"), size/15+1)[:size]
		for name, slow := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "half": iotest.HalfReader, "data with EOF": iotest.DataErrReader} {
			s, err := sealFrom(slow(bytes.NewReader(plain)), testKey(1), sealTitle{})
			if err != nil {
				t.Fatal(err)
			}
			var sealed bytes.Buffer
			if _, err := io.Copy(&sealed, s); err != nil || int64(sealed.Len()) != sealedSize(int64(size), sealTitle{}) {
				t.Fatalf("%d %s: sealed %d bytes, %v", size, name, sealed.Len(), err)
			}
			o, _, err := openFrom(slow(&sealed), testKey(1))
			if err != nil {
				t.Fatalf("%d %s: %v", size, name, err)
			}
			if got, err := io.ReadAll(iotest.OneByteReader(o)); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d %s: opened %d bytes, %v", size, name, len(got), err)
			}
		}
	}
	a, b := mustSeal(t, testKey(1), sealTitle{}, nil), new(bytes.Buffer)
	s, _ := sealFrom(bytes.NewReader(nil), testKey(1), sealTitle{})
	if io.Copy(b, s); bytes.Equal(a[4:20], b.Bytes()[4:20]) {
		t.Error("the salt is not fresh")
	}
}

// Every way to change the stored bytes is seen; what was handed out before is a true prefix.
func TestTampering(t *testing.T) {
	key, seg := testKey(1), sealSegment+sealTag
	plain := bytes.Repeat([]byte("all work and no play "), 3*sealSegment/21)
	good := mustSeal(t, key, sealTitle{Name: "x"}, plain)
	other := mustSeal(t, testKey(2), sealTitle{Name: "x"}, plain)
	segment := func(b []byte, i int) []byte { return b[sealHead+i*seg : min(sealHead+(i+1)*seg, len(b))] }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	head := good[:sealHead]
	type row struct {
		name   string
		sealed []byte
		want   error
	}
	rows := []row{
		{"foreign key", other, errWrongKey},
		{"another version", join([]byte("FPE2"), good[4:]), errSealBroken},
		{"not sealed", []byte("hello, this was never encrypted, but is long enough to have a head"), errSealBroken},
		{"nothing", nil, errSealBroken},
		{"no segment", head, errSealBroken},
		{"swapped", join(head, segment(good, 1), segment(good, 0), segment(good, 2)), errSealBroken},
		{"swapped later", join(head, segment(good, 0), segment(good, 2), segment(good, 1)), errSealBroken},
		{"repeated", join(head, segment(good, 0), segment(good, 0), segment(good, 1), segment(good, 2)), errSealBroken},
		{"dropped first", join(head, segment(good, 1), segment(good, 2)), errSealBroken},
		{"dropped middle", join(head, segment(good, 0), segment(good, 2)), errSealBroken},
		{"spliced with another of the same key", join(head, segment(good, 0), segment(sealedAgain(t, key, plain), 1), segment(good, 2)), errSealBroken},
		{"spliced with another key", join(head, segment(good, 0), segment(other, 1), segment(good, 2)), errSealBroken},
		{"appended", join(good, []byte{0}), errSealBroken},
		{"appended empty segment", join(good, make([]byte, sealTag)), errSealBroken},
		{"twice", join(good, good), errSealBroken},
	}
	for n := 0; n < len(good); n += 1 + n/64*31 { // every byte of the head and the beginning, then ever fewer
		for bit := range 8 {
			b := bytes.Clone(good)
			b[n] ^= 1 << bit
			want := errSealBroken
			if n >= 4 && n < sealHead {
				want = errWrongKey // salt and commitment belong together
			}
			rows = append(rows, row{fmt.Sprintf("bit %d of byte %d", bit, n), b, want})
		}
	}
	for _, border := range []int{0, 4, 20, sealHead, sealHead + seg, sealHead + 2*seg, len(good)} {
		for _, n := range []int{border - 17, border - 16, border - 1, border, border + 1, border + 15, border + 16, border + 17} {
			if n >= 0 && n < len(good) {
				rows = append(rows, row{fmt.Sprintf("cut to %d", n), good[:n], errSealBroken})
			}
		}
	}
	for _, r := range rows {
		got, _, err := open(r.sealed, key)
		if !errors.Is(err, r.want) {
			t.Errorf("%s: %v, want %v", r.name, err, r.want)
		}
		if !bytes.HasPrefix(plain, got) || len(got) == len(plain) {
			t.Errorf("%s: handed out %d bytes that are no true prefix", r.name, len(got))
		}
		if code, _, _ := explain(err); code != 7 {
			t.Errorf("%s: exit %d", r.name, code)
		}
	}
	if got, _, err := open(good, key); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("untouched: %d bytes, %v", len(got), err)
	}
}

func sealedAgain(t *testing.T, key sealKey, plain []byte) []byte {
	s, err := sealFrom(bytes.NewReader(plain), key, sealTitle{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// rawSeal seals plaintext bytes as they are, header included, in segments of the given sizes.
func rawSeal(key sealKey, parts ...string) []byte {
	salt := make([]byte, 16)
	out := append(append([]byte(sealMagic), salt...), key.derive(salt, "commit")...)
	head := bytes.Clone(out)
	for i, p := range parts {
		nonce := make([]byte, 12)
		if nonce[10] = byte(i); i == len(parts)-1 {
			nonce[11] = 1
		}
		out = newSealStream(nil, key, head, false).aead.Seal(out, nonce, []byte(p), head)
	}
	return out
}

func TestSealTitles(t *testing.T) {
	full := strings.Repeat("x", sealSegment-3)
	for _, row := range []struct {
		name  string
		parts []string
		title sealTitle
		bad   bool
	}{
		{"empty", []string{"{}\n"}, sealTitle{}, false},
		{"unknown members", []string{`{"v":[1,{}],"name":"a"}` + "\n"}, sealTitle{Name: "a"}, false},
		{"other case is unknown", []string{`{"NAME":"a"}` + "\n"}, sealTitle{}, false},
		{"1024 bytes", []string{`{"name":"` + strings.Repeat("n", 1013) + `"}` + "\n"}, sealTitle{Name: strings.Repeat("n", 1013)}, false},
		{"1025 bytes", []string{`{"name":"` + strings.Repeat("n", 1014) + `"}` + "\n"}, sealTitle{}, true},
		{"no newline", []string{"{}"}, sealTitle{}, true},
		{"no object", []string{"null\n"}, sealTitle{}, true},
		{"array", []string{"[]\n"}, sealTitle{}, true},
		{"name is a number", []string{`{"name":1}` + "\n"}, sealTitle{}, true},
		{"name is null", []string{`{"name":null}` + "\n"}, sealTitle{}, true},
		{"two values", []string{"{}{}\n"}, sealTitle{}, true},
		{"broken UTF-8", []string{"{\"name\":\"\xff\"}\n"}, sealTitle{}, true},
		{"empty line", []string{"\n"}, sealTitle{}, true},
		{"short first segment", []string{"{}\n", "abc"}, sealTitle{}, true},
		{"empty last segment", []string{"{}\n" + full, ""}, sealTitle{}, true},
		{"full last segment", []string{"{}\n" + full, full + "abc"}, sealTitle{}, false},
		{"overlong segment", []string{"{}\n" + full + "y"}, sealTitle{}, true},
	} {
		_, title, err := open(rawSeal(testKey(1), row.parts...), testKey(1))
		if row.bad != (err != nil) || row.bad && !errors.Is(err, errSealBroken) || !row.bad && title != row.title {
			t.Errorf("%s: %v, %v", row.name, title, err)
		}
	}
	for name, title := range map[string]sealTitle{"too long": {Name: strings.Repeat("x", 1020)}, "not UTF-8": {Type: "\xff"}} {
		if _, err := sealFrom(strings.NewReader("x"), testKey(1), title); !errors.Is(err, errTitle) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSealKeyShape(t *testing.T) {
	good := testKey(3).fragment()
	if k, err := parseSealKey(good); err != nil || k != testKey(3) || len(good) != 43 {
		t.Fatal(good, err)
	}
	zero := strings.Repeat("A", 43)
	if _, err := parseSealKey(zero); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", good[:42], good + "A", good + "=", zero[:42] + "B", good[:20] + "\n" + good[20:], good[:20] + "\n" + good[21:], "+" + good[1:], "/" + good[1:], " " + good[1:], good[:42] + "\n", "ä" + good[2:]} {
		if _, err := parseSealKey(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	for _, text := range []string{fmt.Sprintf("%v %+v %x %s %q %d", testKey(3), testKey(3), testKey(3), testKey(3), testKey(3), testKey(3)), fmt.Sprintf("%v", struct{ K sealKey }{testKey(3)})} {
		if key := testKey(3); strings.Contains(text, good) || strings.Contains(text, hex.EncodeToString(key[:4])) || !strings.Contains(text, "redacted") {
			t.Errorf("a key prints as %s", text)
		}
	}
}

// A source that fails is not taken for one that ends.
func TestSealSourceFails(t *testing.T) {
	sealed := mustSeal(t, testKey(1), sealTitle{}, make([]byte, 3*sealSegment))
	cut := errors.New("cut")
	for _, n := range []int{0, 10, sealHead, sealHead + 100, sealHead + sealSegment + sealTag, 2 * sealSegment} {
		s, _, err := openFrom(io.MultiReader(bytes.NewReader(sealed[:n]), iotest.ErrReader(cut)), testKey(1))
		if err == nil {
			_, err = io.ReadAll(s)
		}
		if err != cut {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
	s, _ := sealFrom(io.MultiReader(strings.NewReader("x"), iotest.ErrReader(cut)), testKey(1), sealTitle{})
	if _, err := io.ReadAll(s); err != cut {
		t.Errorf("sealing: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	key := testKey(1)
	good := mustSeal(f, key, sealTitle{Name: "n"}, []byte("content"))
	f.Add(good, false)
	f.Add(rawSeal(key, "{}\n"+strings.Repeat("x", sealSegment-3), "more"), false)
	f.Add([]byte(`{"name":"a","type":"b"}`+"\ncontent"), true)
	f.Add([]byte("{}\n"), true)
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		if sealed { // the fuzzer writes the plaintext: the header's parser is reached
			b = rawSeal(key, string(b[:min(len(b), sealSegment)]))
		}
		plain, title, err := open(b, key)
		if err != nil {
			if code, _, _ := explain(err); code != 7 {
				t.Fatalf("exit %d: %v", code, err)
			}
			return
		}
		// What opens was sealed by a holder of the key, and is the one spelling of it.
		if _, _, err := open(mustSeal(t, key, title, plain), key); err != nil && !errors.Is(err, errTitle) && len(title.Name)+len(title.Type) < 900 {
			t.Fatal(err)
		}
		if !bytes.Equal(b[:4], []byte(sealMagic)) {
			t.Fatal("opened another version")
		}
	})
}

func BenchmarkSeal(b *testing.B) { benchmarkSealing(b, false) }
func BenchmarkOpen(b *testing.B) { benchmarkSealing(b, true) }

// Sealing or opening of 8 MiB against bare AES-256-GCM over the same bytes, alternating. of-bare compares the fastest iteration of
// each, which a busy machine disturbs least; of-bare-sum compares all the time spent and swings with whatever else is running.
func benchmarkSealing(b *testing.B, opening bool) {
	const size = 8 << 20
	plain := make([]byte, size)
	key := testKey(1)
	sealed := mustSeal(b, key, sealTitle{}, plain)
	block, _ := aes.NewCipher(make([]byte, 32))
	bare, _ := cipher.NewGCM(block)
	buf, nonce := make([]byte, sealSegment, sealSegment+sealTag), make([]byte, 12)
	var boxed []byte // bare segments one after the other
	for i := range size / sealSegment {
		boxed = bare.Seal(boxed, nonce, plain[i*sealSegment:][:sealSegment], nil)
	}
	var ours, theirs time.Duration
	best, bestBare := time.Hour, time.Hour
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		t0 := time.Now()
		var err error
		if opening {
			var s *sealStream
			if s, _, err = openFrom(bytes.NewReader(sealed), key); err == nil {
				_, err = io.Copy(io.Discard, s)
			}
		} else {
			var s *sealStream
			if s, err = sealFrom(bytes.NewReader(plain), key, sealTitle{}); err == nil {
				_, err = io.Copy(io.Discard, s)
			}
		}
		if err != nil {
			b.Fatal(err)
		}
		t1 := time.Now()
		for i := range size / sealSegment {
			if opening {
				if _, err := bare.Open(buf[:0], nonce, boxed[i*(sealSegment+sealTag):][:sealSegment+sealTag], nil); err != nil {
					b.Fatal(err)
				}
			} else {
				bare.Seal(buf[:0], nonce, plain[i*sealSegment:][:sealSegment], nil)
			}
		}
		mine, other := t1.Sub(t0), time.Since(t1)
		ours, theirs = ours+mine, theirs+other
		best, bestBare = min(best, mine), min(bestBare, other)
	}
	b.ReportMetric(bestBare.Seconds()/best.Seconds(), "of-bare")
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "of-bare-sum")
}

// ---- the client against what the real server never is ----

// fake serves h on loopback and returns a trusted client for it.
func fake(t *testing.T, h http.HandlerFunc) *apiClient {
	t.Helper()
	ts := httptest.NewServer(h)
	t.Cleanup(ts.Close)
	u, err := parseServer(ts.URL, false)
	if err != nil {
		t.Fatal(err)
	}
	return newAPIClient(u, true, nil, nil)
}

func refuse(w http.ResponseWriter, status int, code string, more map[string]any) {
	w.WriteHeader(status)
	body := map[string]any{"error": "no: " + code, "code": code, "request_id": "r-1"}
	for k, v := range more {
		body[k] = v
	}
	json.NewEncoder(w).Encode(body)
}

const fakeCreated = `{"id":"0123456789abcdef","size":3,"delete_token":"tok","expires_at":9999999999}`

// Each remedy is tried once for a call, with the whole body again; the second refusal is final.
func TestRetries(t *testing.T) {
	work := map[string]any{"challenge": map[string]any{"enabled": true, "nonce": strings.Repeat("ab", 16), "difficulty": 8, "token": "the-token"}}
	for _, row := range []struct {
		name  string
		steps []func(w http.ResponseWriter)
		calls int32
		code  int // exit code
	}{
		{"work", []func(http.ResponseWriter){func(w http.ResponseWriter) { refuse(w, 400, "pow_required", work) }}, 2, 0},
		{"work twice", []func(http.ResponseWriter){func(w http.ResponseWriter) { refuse(w, 400, "pow_required", work) }, func(w http.ResponseWriter) { refuse(w, 400, "pow_failed", work) }}, 2, 5},
		{"429 soon", []func(http.ResponseWriter){func(w http.ResponseWriter) { w.Header().Set("Retry-After", "1"); refuse(w, 429, "rate_limited", nil) }}, 2, 0},
		{"429 late", []func(http.ResponseWriter){func(w http.ResponseWriter) { w.Header().Set("Retry-After", "10"); refuse(w, 429, "rate_limited", nil) }}, 1, 5},
		{"429 without a time", []func(http.ResponseWriter){func(w http.ResponseWriter) { refuse(w, 429, "rate_limited", nil) }}, 1, 5},
		{"429 twice", []func(http.ResponseWriter){func(w http.ResponseWriter) { w.Header().Set("Retry-After", "0"); refuse(w, 429, "rate_limited", nil) }, func(w http.ResponseWriter) { w.Header().Set("Retry-After", "0"); refuse(w, 429, "rate_limited", nil) }}, 2, 5},
		{"busy", []func(http.ResponseWriter){func(w http.ResponseWriter) { w.Header().Set("Retry-After", "1"); refuse(w, 503, "busy", nil) }}, 2, 0},
		{"busy, then work", []func(http.ResponseWriter){func(w http.ResponseWriter) { w.Header().Set("Retry-After", "1"); refuse(w, 503, "busy", nil) }, func(w http.ResponseWriter) { refuse(w, 400, "pow_required", work) }}, 3, 0},
		{"full", []func(http.ResponseWriter){func(w http.ResponseWriter) { w.Header().Set("Retry-After", "1"); refuse(w, 503, "storage_full", nil) }}, 1, 1},
		{"too hard", []func(http.ResponseWriter){func(w http.ResponseWriter) {
			refuse(w, 400, "pow_required", map[string]any{"challenge": map[string]any{"nonce": strings.Repeat("ab", 16), "difficulty": 64, "token": "x"}})
		}}, 1, 5},
		{"strange nonce", []func(http.ResponseWriter){func(w http.ResponseWriter) {
			refuse(w, 400, "pow_required", map[string]any{"challenge": map[string]any{"nonce": "short", "difficulty": 1, "token": "x"}})
		}}, 1, 5},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			var noted atomic.Int32
			plain := bytes.Repeat([]byte("content "), 20_000)
			key := testKey(1)
			c := fake(t, func(w http.ResponseWriter, r *http.Request) {
				n := int(calls.Add(1))
				if n <= len(row.steps) {
					row.steps[n-1](w) // without touching the body: the client must not have sent it
					return
				}
				body, err := io.ReadAll(r.Body)
				if got, _, e := open(body, key); err != nil || e != nil || !bytes.Equal(got, plain) {
					t.Errorf("body of %d bytes: %v %v", len(body), err, e)
				}
				if strings.Contains(row.name, "work") {
					sum := sha256.Sum256([]byte(strings.Repeat("ab", 16) + ":" + r.Header.Get("X-PoW-Solution")))
					if sum[0] != 0 || r.Header.Get("X-PoW-Token") != "the-token" {
						t.Errorf("solution %q, token %q", r.Header.Get("X-PoW-Solution"), r.Header.Get("X-PoW-Token"))
					}
				}
				w.WriteHeader(201)
				io.WriteString(w, fakeCreated)
			})
			c.note = func(string) { noted.Add(1) }
			_, err := c.create(t.Context(), func() (io.Reader, int64, error) {
				s, err := sealFrom(bytes.NewReader(plain), key, sealTitle{})
				return s, sealedSize(int64(len(plain)), sealTitle{}), err
			}, &key, map[string]string{})
			if code, what, _ := explain(err); code != row.code || calls.Load() != row.calls {
				t.Errorf("exit %d after %d calls: %s", code, calls.Load(), what)
			}
			if waits := row.calls > 1 && !strings.HasPrefix(row.name, "work"); waits != (noted.Load() > 0) {
				t.Errorf("%d notes", noted.Load())
			}
		})
	}
}

// The body waits for the server's word: a refusal by its headers costs nothing.
func TestExpectContinue(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, _ := parseServer("http://"+l.Addr().String(), false)
	for try := 1; ; try++ { // the client waits for 3 s: a machine that stalls longer is no fault of its
		sent := make(chan int, 1)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			buf := make([]byte, 1<<20)
			n, _ := conn.Read(buf)
			body := `{"error":"too large","code":"too_large"}`
			fmt.Fprintf(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
			conn.(*net.TCPConn).CloseWrite()
			rest, _ := io.Copy(io.Discard, conn)
			sent <- n + int(rest)
		}()
		_, err = newAPIClient(u, true, nil, nil).create(t.Context(), func() (io.Reader, int64, error) { return zeros{}, 1 << 30, nil }, nil, map[string]string{})
		code, what, _ := explain(err)
		n := <-sent
		if code == 1 && strings.Contains(what, "too large") && n <= 4096 {
			return
		}
		if try == 3 {
			t.Fatalf("exit %d: %s; %d bytes were sent in vain", code, what, n)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Nothing strange is believed, followed or printed raw.
func TestStrangeAnswers(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s was followed to another host with %v", r.URL, r.Header)
	}))
	defer elsewhere.Close()
	for _, row := range []struct {
		name string
		h    http.HandlerFunc
		code int
	}{
		{"HTML 200", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>welcome</html>") }, 1},
		{"HTML 502", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(502)
			io.WriteString(w, "<html>bad gateway\x1b[2J</html>")
		}, 1},
		{"empty 200", func(w http.ResponseWriter, r *http.Request) {}, 1},
		{"204", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }, 1},
		{"500", func(w http.ResponseWriter, r *http.Request) { refuse(w, 500, "internal", nil) }, 1},
		{"array", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "[]") }, 1},
		{"other id", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"id":"../../etc/passwd"}`) }, 1},
		{"wrong types", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"id":7}`) }, 1},
		{"endless JSON", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"id":"`)
			for range 3 * answerMost / 1000 {
				if _, err := io.WriteString(w, strings.Repeat("a", 1000)); err != nil {
					return
				}
			}
		}, 1},
		{"redirect 302", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, 1},
		{"redirect 307", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, 1},
		{"redirect 308 to itself", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusPermanentRedirect) }, 1},
		{"404 without our code", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, 3},
		{"cut in the middle", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, `{"id":"0123`)
			w.(http.Flusher).Flush()
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.Close()
		}, 6},
		{"cut before", func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.Close()
		}, 6},
		{"not HTTP", func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			io.WriteString(conn, "SSH-2.0-OpenSSH_9.2\r\n")
			conn.Close()
		}, 6},
	} {
		c := fake(t, row.h)
		_, errCreate := c.create(t.Context(), textBody("abc"), nil, map[string]string{"X-Paste-Password": "pw"})
		_, errMeta := c.meta(t.Context(), "0123456789abcdef")
		for _, err := range []error{errCreate, errMeta} {
			if code, what, _ := explain(err); code != row.code || strings.Contains(what, "<html") {
				t.Errorf("%s: exit %d, %q", row.name, code, what)
			}
		}
	}
	var calls int
	c := fake(t, func(w http.ResponseWriter, r *http.Request) {
		calls++
		io.WriteString(w, `{"pastes":[{"id":"0123456789abcdef"}],"next_cursor":"again"}`)
	})
	if err := c.pages(t.Context(), "/pastes", map[string][]string{}, func([]apiItem) error { return nil }); err == nil || calls > 3 {
		t.Errorf("a list in circles: %d calls, %v", calls, err)
	}
}

// A server that hangs up during an upload is a failure of the network, told with a sentence: EPIPE here is not a closed "| head -1".
func TestUploadCut(t *testing.T) {
	c := fake(t, func(w http.ResponseWriter, r *http.Request) { t.Error("the request arrived") })
	c.http.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go io.Copy(io.Discard, far)
		return &brokenPipe{Conn: near}, nil
	}
	_, err := c.create(t.Context(), func() (io.Reader, int64, error) { return zeros{}, 1 << 30, nil }, nil, map[string]string{})
	if code, what, _ := explain(err); code != 6 || !strings.Contains(what, "broken pipe") {
		t.Errorf("exit %d, %q", code, what)
	}
}

// TestUploadStalls: a server that takes no more is left after a minute; one that takes a little every 50 s is not.
func TestUploadStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		c := newAPIClient(must(parseServer("http://127.0.0.1:1", false)), true, nil, nil)
		c.http.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			go func() {
				for part := make([]byte, 64<<10); time.Since(begin) < 290*time.Second; time.Sleep(50 * time.Second) {
					io.ReadFull(far, part)
				}
			}()
			return near, nil
		}
		_, err := c.create(t.Context(), func() (io.Reader, int64, error) { return zeros{}, 1 << 30, nil }, nil, map[string]string{})
		if took := time.Since(begin); !errors.Is(err, errStalled) || took < 300*time.Second || took > 320*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// brokenPipe is a connection whose other end is gone when the first byte is written.
type brokenPipe struct{ net.Conn }

func (*brokenPipe) Write([]byte) (int, error) {
	return 0, &net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", syscall.EPIPE)}
}

// What is not ciphertext under the paste's own key never becomes a request.
func TestOnlyOwnCiphertext(t *testing.T) {
	c := fake(t, func(w http.ResponseWriter, r *http.Request) { t.Errorf("a request was made") })
	key := testKey(1)
	for name, body := range map[string][]byte{
		"plaintext":   []byte(strings.Repeat("secret plans ", 100)),
		"short":       []byte("FPE1"),
		"other key":   mustSeal(t, testKey(2), sealTitle{}, []byte("x")),
		"other magic": append([]byte("FPE2"), mustSeal(t, key, sealTitle{}, []byte("x"))[4:]...),
	} {
		for _, call := range []func() error{
			func() error {
				_, err := c.create(t.Context(), textBody(string(body)), &key, map[string]string{})
				return err
			},
			func() error {
				_, err := c.replace(t.Context(), "0123456789abcdef", "", textBody(string(body)), &key, map[string]string{})
				return err
			},
		} {
			if err := call(); !errors.Is(err, errNotSealed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// A client that is not of the configured origin has no credentials and refuses to send any.
func TestUntrustedClient(t *testing.T) {
	c := fake(t, func(w http.ResponseWriter, r *http.Request) { t.Errorf("a request was made: %v", r.Header) })
	c.trusted = false
	if _, err := c.raw(t.Context(), "0123456789abcdef", nil, "pw"); !errors.Is(err, errElsewhere) {
		t.Errorf("password: %v", err)
	}
	if err := c.remove(t.Context(), "/0123456789abcdef", "token"); !errors.Is(err, errElsewhere) {
		t.Errorf("token: %v", err)
	}
}

func TestParseServer(t *testing.T) {
	for in, want := range map[string]string{
		"https://Paste.Example.org":        "https://paste.example.org",
		"https://paste.example.org:443/":   "https://paste.example.org",
		"https://paste.example.org:8443/p": "https://paste.example.org:8443/p",
		"http://127.0.0.1:5000":            "http://127.0.0.1:5000",
		"http://[::1]:80/x/":               "http://[::1]/x",
		"http://localhost":                 "http://localhost",
	} {
		if u, err := parseServer(in, false); err != nil || u.String() != want {
			t.Errorf("%q: %v, %v", in, u, err)
		}
	}
	for _, bad := range []string{"", "paste.example.org", "ftp://x", "http://example.org", "http://127.0.0.1.example.org", "http://10.0.0.1", "https://u:p@x", "https://x?q", "https://x/?", "https://", "https://x#f", "https://x y", "//x", "http://localhost.example.org"} {
		if u, err := parseServer(bad, false); err == nil {
			t.Errorf("%q was taken as %v", bad, u)
		}
	}
	if _, err := parseServer("http://example.org", true); err != nil {
		t.Error(err)
	}
}

// A server that stops talking ends the call, and Ctrl-C does so at once.
func TestInterruptedCall(t *testing.T) {
	stop := make(chan struct{})
	c := fake(t, func(w http.ResponseWriter, r *http.Request) { <-stop })
	defer close(stop)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := c.meta(ctx, "0123456789abcdef"); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 15*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
}
