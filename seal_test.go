package main

// Sealing by itself: vectors of another implementation, borders, every kind of tampering, hostile headers, fuzz, speed.

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

func testKey(n byte) sealKey { return sealKey(sha256.Sum256([]byte{'k', n})) }

func mustSeal(t testing.TB, key sealKey, title sealTitle, plain []byte) []byte {
	t.Helper()
	return must(io.ReadAll(must(sealWith(bytes.NewReader(plain), key, title, bytes.Repeat([]byte{7}, 16)))))
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
	var file struct {
		Vectors []struct {
			Name, Key, Salt, Header, Plaintext, Ciphertext, Commitment string
			Read_proof, Read_proof_sha256                              string
			Plaintext_byte                                             string
			Plaintext_size, Ciphertext_size                            int
			Ciphertext_sha256, Ciphertext_first_52, Ciphertext_last_32 string
		}
	}
	if err := json.Unmarshal(must(os.ReadFile("testdata/seal.json")), &file); err != nil || len(file.Vectors) != 5 {
		t.Fatal(len(file.Vectors), err)
	}
	unhex := func(s string) []byte { return must(hex.DecodeString(s)) }
	for _, v := range file.Vectors {
		key, title, plain := must(parseSealKey(v.Key)), sealTitle{}, unhex(v.Plaintext)
		must(0, json.Unmarshal([]byte(v.Header), &title))
		if v.Plaintext_size > 0 {
			plain = bytes.Repeat(unhex(v.Plaintext_byte), v.Plaintext_size)
		}
		sealed := must(io.ReadAll(must(sealWith(bytes.NewReader(plain), key, title, unhex(v.Salt)))))
		same := hex.EncodeToString(sealed) == v.Ciphertext
		if v.Plaintext_size > 0 {
			same = sum256(string(sealed)) == v.Ciphertext_sha256 && len(sealed) == v.Ciphertext_size
		}
		if !same || hex.EncodeToString(sealed[20:52]) != v.Commitment {
			t.Errorf("%s: sealed %d bytes, %.200x", v.Name, len(sealed), sealed)
		}
		if key.readProof() != v.Read_proof || key.proofHash() != v.Read_proof_sha256 {
			t.Errorf("%s: read proof %s, hash %s", v.Name, key.readProof(), key.proofHash())
		}
		got, gotTitle, err := open(sealed, key)
		if err != nil || !bytes.Equal(got, plain) || gotTitle != title {
			t.Errorf("%s: opened %d bytes, %v, %v", v.Name, len(got), gotTitle, err)
		}
	}
}

func TestSealBorders(t *testing.T) {
	const seg = sealSegment
	for _, size := range []int{0, 1, 16, seg - 4, seg - 3, seg - 2, seg, 2*seg - 4, 2*seg - 3, 2*seg - 2, 3*seg + 99} {
		plain := bytes.Repeat([]byte("0123456789abcde"), size/15+1)[:size]
		for name, slow := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r },
			"half": iotest.HalfReader, "data with EOF": iotest.DataErrReader} {
			s := must(sealFrom(slow(bytes.NewReader(plain)), testKey(1), sealTitle{}))
			var sealed bytes.Buffer
			segments := max(1, (size+3+seg-1)/seg) // 3 bytes of header
			if _, err := io.Copy(&sealed, s); err != nil || sealed.Len() != sealHead+3+size+segments*sealTag {
				t.Fatalf("%d %s: sealed %d bytes, %v", size, name, sealed.Len(), err)
			}
			o, _, err := openFrom(slow(&sealed), testKey(1))
			must(0, err)
			if got, err := io.ReadAll(iotest.OneByteReader(o)); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d %s: opened %d bytes, %v", size, name, len(got), err)
			}
		}
	}
}

// Every way to change the stored bytes is seen; what was handed out before is a true prefix.
func TestTampering(t *testing.T) {
	key, seg := testKey(1), sealSegment+sealTag
	plain := bytes.Repeat([]byte("all work and no play "), 3*sealSegment/21)
	good := mustSeal(t, key, sealTitle{Name: "x"}, plain)
	other := mustSeal(t, testKey(2), sealTitle{Name: "x"}, plain)
	again := must(io.ReadAll(must(sealFrom(bytes.NewReader(plain), key, sealTitle{Name: "x"}))))
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
		{"not sealed", []byte("hello, this was never encrypted, but is long enough to have a head"), errSealBroken},
		{"swapped", join(head, segment(good, 1), segment(good, 0), segment(good, 2)), errSealBroken},
		{"repeated", join(head, segment(good, 0), segment(good, 0), segment(good, 1), segment(good, 2)), errSealBroken},
		{"dropped middle", join(head, segment(good, 0), segment(good, 2)), errSealBroken},
		{"spliced with another of the same key",
			join(head, segment(good, 0), segment(again, 1), segment(good, 2)), errSealBroken},
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
		for _, by := range []int{-17, -16, -1, 0, 1, 15, 16, 17} {
			if n := border + by; n >= 0 && n < len(good) {
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
}

// rawSeal seals plaintext bytes as they are, header included, in segments of the given sizes.
func rawSeal(key sealKey, parts ...string) []byte {
	salt := make([]byte, 16)
	head := key.head(salt)
	out := bytes.Clone(head)
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
		{"1024 bytes", []string{`{"name":"` + strings.Repeat("n", 1013) + `"}` + "\n"},
			sealTitle{Name: strings.Repeat("n", 1013)}, false},
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
	long := strings.Repeat("x", 1020)
	for name, title := range map[string]sealTitle{"too long": {Name: long}, "not UTF-8": {Type: "\xff"}} {
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
	must(parseSealKey(zero))
	for _, bad := range []string{"", good[:42], good + "A", good + "=", zero[:42] + "B", good[:20] + "\n" + good[20:],
		good[:20] + "\n" + good[21:], "+" + good[1:], "/" + good[1:], " " + good[1:], good[:42] + "\n"} {
		if _, err := parseSealKey(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	key := testKey(3)
	for _, form := range []string{"%v", "%+v", "%x", "%s", "%q", "%d", "%#v"} {
		text := fmt.Sprintf(form, key) + fmt.Sprintf(form, struct{ K sealKey }{key})
		shown := strings.Contains(text, good) || strings.Contains(text, hex.EncodeToString(key[:4]))
		if shown || !strings.Contains(text, "redacted") {
			t.Errorf("a key prints with %s as %s", form, text)
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
		short := len(title.Name)+len(title.Type) < 900
		if _, _, err := open(mustSeal(t, key, title, plain), key); err != nil && !errors.Is(err, errTitle) && short {
			t.Fatal(err)
		}
		if !bytes.Equal(b[:4], []byte(sealMagic)) {
			t.Fatal("opened another version")
		}
	})
}
