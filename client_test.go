package main

// The client of the wire against servers and proxies that the real ones can't be: hostile, half broken or gone.

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const fakeCreated = `{"id":"0123456789abcdef","size":3,"delete_token":"tok","expires_at":9999999999}`

// fake serves h on loopback and returns a trusted client for it.
func fake(t *testing.T, h http.HandlerFunc) *apiClient {
	c := newAPIClient(must(parseServer(answering(t, h), false)), true, nil, nil)
	c.work = func(ctx context.Context, nonce string, difficulty int) (string, error) {
		return solve(ctx, nonce, difficulty, 1, nil)
	}
	return c
}

// piped returns a client whose connections serve has the other ends of: for bubbles of testing/synctest.
func piped(serve func(net.Conn)) *apiClient {
	c := newAPIClient(must(parseServer("http://127.0.0.1:1", false)), true, nil, nil)
	c.http.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go serve(far)
		return near, nil
	}
	return c
}

func refuseWith(w http.ResponseWriter, status int, code string, more map[string]any) {
	w.WriteHeader(status)
	body := map[string]any{"error": "no: " + code, "code": code, "request_id": "r-1"}
	for k, v := range more {
		body[k] = v
	}
	json.NewEncoder(w).Encode(body)
}

func workAsked(difficulty int, nonce string) map[string]any {
	return map[string]any{"challenge": map[string]any{"nonce": nonce, "difficulty": difficulty, "token": "the-token"}}
}

// Each remedy is tried once for a call, with the whole body again; the second refusal is final.
func TestRetries(t *testing.T) {
	nonce := strings.Repeat("ab", 16)
	type step struct {
		status int
		code   string
		after  string // Retry-After
		more   map[string]any
	}
	work := step{400, "pow_required", "", workAsked(8, nonce)}
	for _, row := range []struct {
		name  string
		steps []step
		calls int32
		code  int // exit code
		notes int32
	}{
		{"work", []step{work}, 2, 0, 0},
		{"work twice", []step{work, {400, "pow_failed", "", workAsked(8, nonce)}}, 2, 5, 0},
		{"429 soon", []step{{429, "rate_limited", "1", nil}}, 2, 0, 1},
		{"429 late", []step{{429, "rate_limited", "10", nil}}, 1, 5, 0},
		{"429 without a time", []step{{429, "rate_limited", "", nil}}, 1, 5, 0},
		{"429 twice", []step{{429, "rate_limited", "0", nil}, {429, "rate_limited", "0", nil}}, 2, 5, 1},
		{"busy", []step{{503, "busy", "1", nil}}, 2, 0, 1},
		{"busy, then work", []step{{503, "busy", "1", nil}, work}, 3, 0, 1},
		{"full", []step{{503, "storage_full", "1", nil}}, 1, 1, 0},
		{"too hard", []step{{400, "pow_required", "", workAsked(64, nonce)}}, 1, 5, 0},
		{"strange nonce", []step{{400, "pow_required", "", workAsked(1, "short")}}, 1, 5, 0},
		{"a certificate refused, but there is none", []step{{403, "certificate_revoked", "", nil}}, 1, 4, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var calls, notes atomic.Int32
			plain, key := bytes.Repeat([]byte("content "), 20_000), testKey(1)
			c := fake(t, func(w http.ResponseWriter, r *http.Request) {
				if n := int(calls.Add(1)); n <= len(row.steps) { // the body is not touched: it must not have been sent
					s := row.steps[n-1]
					if s.after != "" {
						w.Header().Set("Retry-After", s.after)
					}
					refuseWith(w, s.status, s.code, s.more)
					return
				}
				body, err := io.ReadAll(r.Body)
				if got, _, e := open(body, key); err != nil || e != nil || !bytes.Equal(got, plain) {
					t.Errorf("body of %d bytes: %v %v", len(body), err, e)
				}
				sum := sha256.Sum256([]byte(nonce + ":" + r.Header.Get("X-PoW-Solution")))
				if strings.Contains(row.name, "work") && (sum[0] != 0 || r.Header.Get("X-PoW-Token") != "the-token") {
					t.Errorf("solution %q, token %q", r.Header.Get("X-PoW-Solution"), r.Header.Get("X-PoW-Token"))
				}
				w.WriteHeader(201)
				io.WriteString(w, fakeCreated)
			})
			c.note = func(string, ...any) { notes.Add(1) }
			sealed := textBody(string(mustSeal(t, key, sealTitle{}, plain)))
			err := uploadWith(t, c, sealed, &key)
			code, what, _ := explain(err)
			if code != row.code || calls.Load() != row.calls || notes.Load() != row.notes {
				t.Errorf("exit %d after %d calls, %d notes: %s", code, calls.Load(), notes.Load(), what)
			}
		})
	}
}

// The body waits for the server's word: a refusal by its headers costs nothing.
func TestExpectContinue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := make(chan string, 1)
		c := piped(func(far net.Conn) {
			far.SetReadDeadline(time.Now().Add(time.Second))
			head, _ := io.ReadAll(far)
			io.WriteString(far, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
			far.SetReadDeadline(time.Time{})
			sent <- string(append(head, must(io.ReadAll(far))...)) // all until the client has closed
		})
		code, what, _ := explain(uploadWith(t, c, textBody(strings.Repeat("content ", 100_000)), nil))
		if all := <-sent; code != 1 || strings.Index(all, "\r\n\r\n") != len(all)-4 {
			t.Errorf("exit %d: %s; %d bytes were sent", code, what, len(all))
		}
	})
}

// uploadWith creates a paste as the command line does.
func uploadWith(t testing.TB, c *apiClient, body bodySource, key *sealKey) error {
	q := apiCall{method: "POST", path: "/", header: map[string]string{}, body: body, sealed: key}
	_, err := c.item(t.Context(), q, "")
	return err
}

// Nothing strange is believed, followed or printed raw, nor makes the history forget a token.
func TestStrangeAnswers(t *testing.T) {
	elsewhere := answering(t, func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s was followed to another host with %v", r.URL, r.Header)
	})
	say := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status); io.WriteString(w, body) }
	}
	redirect := func(status int, to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, status) }
	}
	hangUp := func(before string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			io.WriteString(conn, before)
			conn.Close()
		}
	}
	for _, row := range []struct {
		name string
		h    http.HandlerFunc
		code int
	}{
		{"HTML 200", say(200, "<html>welcome</html>"), 1},
		{"HTML 502", say(502, "<html>bad gateway\x1b[2J</html>"), 1},
		{"HTML 404", say(404, "<html>not found</html>"), 3},
		{"odd 404", say(404, `{"error":"x","code":"odd"}`), 3},
		{"empty 200", say(200, ""), 1},
		{"204", say(204, ""), 1},
		{"206", say(206, `{"id":"`+someID+`"}`), 1},
		{"no id", say(201, "{}"), 1},
		{"500", func(w http.ResponseWriter, r *http.Request) { refuseWith(w, 500, "internal", nil) }, 1},
		{"null", say(200, "null"), 1},
		{"array", say(200, "[]"), 1},
		{"other id", say(200, `{"id":"../../etc/passwd"}`), 1},
		{"wrong types", say(200, `{"id":7}`), 1},
		{"endless JSON", say(200, `{"id":"`+strings.Repeat("a", 3*answerMost)), 1},
		{"redirect 302", redirect(302, elsewhere), 1},
		{"redirect 307", redirect(307, elsewhere), 1},
		{"redirect 308 to itself", redirect(308, "/"), 1},
		{"cut in the middle", hangUp("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"id\":\"0123"), 6},
		{"cut before", hangUp(""), 6},
		{"not HTTP", hangUp("SSH-2.0-OpenSSH_9.2\r\n"), 6},
	} {
		m := newMachine(t, answering(t, row.h))
		m.file(".local/state/fpaste/history", `{"link":"`+m.env["FPASTE_SERVER"]+"/"+someID+`","token":"kept"}`+"\n")
		for _, args := range [][]string{{"create"}, {"meta", someID}, {"info", "-j"}, {"delete", someID},
			{"short", "delete", "abcdefgh"}} {
			if args[0] == "info" && strings.Contains("other id, wrong types, no id", row.name) { // it names no paste
				continue
			}
			code, out, errs := m.try("abc", args...)
			if code != row.code || out != "" || errs == "" || strings.Contains(errs, "<html") {
				t.Errorf("%s, %q: exit %d, %q, %q", row.name, args, code, out, errs)
			}
		}
		m.shows("kept", "", "history", "-j")
	}
}

// A list is walked to its end, empty pages too, and not in circles.
func TestPages(t *testing.T) {
	for cursors, code := range map[string]int{"abc": 0, "abab": 1} {
		asked := ""
		m := newMachine(t, answering(t, func(w http.ResponseWriter, r *http.Request) {
			asked += r.URL.Query().Get("cursor")
			next := (cursors + " ")[len(asked) : len(asked)+1]
			fmt.Fprintf(w, `{"pastes":[],"next_cursor":%q}`, strings.TrimSpace(next))
		}))
		if m.want(code, "", "list", "--ids"); code == 0 && asked != cursors {
			t.Errorf("asked for the pages %q of %q", asked, cursors)
		}
	}
}

// A server that never answers is left after a minute.
func TestStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		c := piped(func(far net.Conn) { io.Copy(io.Discard, far) })
		_, err := c.item(t.Context(), apiCall{method: "GET", path: "/" + someID}, someID)
		code, what, _ := explain(err)
		if took := time.Since(begin); code != 6 || took > 70*time.Second {
			t.Errorf("exit %d after %v: %s", code, took, what)
		}
	})
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
		if err := uploadWith(t, c, textBody(string(body)), &key); !errors.Is(err, errNotSealed) {
			t.Errorf("%s: %v", name, err)
		}
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
		"https://me:pw@x":                  "https://me:pw@x",
	} {
		if u, err := parseServer(in, false); err != nil || u.String() != want {
			t.Errorf("%q: %v, %v", in, u, err)
		}
	}
	for _, bad := range []string{"", "paste.example.org", "ftp://x", "http://example.org", "//x",
		"http://127.0.0.1.example.org", "http://10.0.0.1", "https://x?q", "https://x/?", "https://", "https://x#f",
		"https://x/%23f", "https://x y"} {
		if u, err := parseServer(bad, false); err == nil {
			t.Errorf("%q was taken as %v", bad, u)
		}
	}
	if _, err := parseServer("http://example.org", true); err != nil {
		t.Error(err)
	}
}

// Neither a key nor a URL's user part survives in a sentence, whatever shape it comes in.
func TestHide(t *testing.T) {
	for in, want := range map[string]string{
		"https://h/id#SECRET":                         "https://h/id",
		"https://h/id%23SECRET":                       "https://h/id",
		"https://h/id%2523SECRET":                     "https://h/id",
		"https://me:SECRET@h/id":                      "https://h/id",
		"https://me:SEC/RET@h/id":                     "https://h/id",
		"https://me:my SECRET@h/id#SEC RET":           "https://h/id",
		"me:SECRET@h":                                 "h",
		"notes.txt":                                   "notes.txt",
		"a@b.txt":                                     "a@b.txt",
		"http://SECRET:@h":                            "http://h",
		`at "https://me:SEC\"RET: X@h"`:               `at "https://h"`,
		`"SECRET@h" or "me:SEC/RET@h"`:                `"h" or "h"`,
		`"# SECRET" or "h/id%23 SECRET"`:              `"" or "h/id"`,
		"h/id＃SECRET, h/id#/SECRET":                   "h/id",
		strings.Repeat("SECRET-", 6) + "x, # and key": ", # and key",
		`in "/home/u@corp/x" or "~/a@b"`:              `in "/home/u@corp/x" or "~/a@b"`,
		`"server = https://h" in /home/u@corp`:        `"server = https://h" in /home/u@corp`,
		"https://me:SECRET@h/x%23y@z#SECRET ":         "https://z",
		`parse "https://me:SECRET@h": no`:             `parse "https://h": no`,
		`"https://h/id#SEC RET" is no link`:           `"https://h/id" is no link`,
		"open https://h/id#SEC RET: no such file":     "open https://h/id: no such file",
		"add # and the key":                           "add # and the key",
		"a\nb https://h/x%23SECRET/../SECRET: second": `a\nb https://h/x: second`,
	} {
		if got := sentence(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}
