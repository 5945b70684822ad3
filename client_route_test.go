package main

// GET /client: the running program, whole and the same, whatever happens to its file on the disk meanwhile.

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// executableSum is the SHA-256 of a file, and its size.
func executableSum(t testing.TB, path string) (sum string, size int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil)), size
}

func TestClientRoute(t *testing.T) {
	ts := start(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sum, size := executableSum(t, exe)
	whole := ts.get("/client").want(200, "")
	if got := sha256.Sum256([]byte(whole.body)); hex.EncodeToString(got[:]) != sum || int64(len(whole.body)) != size {
		t.Fatalf("%d bytes of SHA-256 %x, the program has %d of %s", len(whole.body), got, size, sum)
	}
	headers := map[string]string{"X-Checksum-SHA256": sum, "ETag": `"` + sum + `"`, "Content-Disposition": `attachment; filename="fpaste"`, "Content-Type": "application/octet-stream", "Cache-Control": "public, no-cache",
		"Accept-Ranges": "bytes", "Content-Length": strconv.FormatInt(size, 10), "X-Content-Type-Options": "nosniff", "Content-Encoding": ""}
	for name, want := range headers {
		if got := whole.Header.Get(name); got != want {
			t.Errorf("GET: %s %q, want %q", name, got, want)
		}
	}
	modified, err := http.ParseTime(whole.Header.Get("Last-Modified"))
	if err != nil || time.Since(modified) < 0 {
		t.Errorf("Last-Modified %q, %v", whole.Header.Get("Last-Modified"), err)
	}
	head := ts.do("HEAD", "/client", nil).want(200, "")
	for name, want := range headers {
		if got := head.Header.Get(name); got != want || head.body != "" {
			t.Errorf("HEAD: %s %q, want %q", name, got, want)
		}
	}
	tag := `"` + sum + `"`
	for name, c := range map[string]struct {
		headers []string
		status  int
		from    int64
		to      int64 // exclusive
	}{
		"first bytes":                 {[]string{"Range: bytes=0-3"}, 206, 0, 4},
		"last bytes":                  {[]string{"Range: bytes=-100"}, 206, size - 100, size},
		"rest":                        {[]string{fmt.Sprintf("Range: bytes=%d-", size-10)}, 206, size - 10, size},
		"If-Range, the same":          {[]string{"Range: bytes=10-19", "If-Range: " + tag}, 206, 10, 20},
		"the same If-Match":           {[]string{"Range: bytes=10-19", "If-Match: " + tag}, 206, 10, 20},
		"not modified":                {[]string{"If-None-Match: " + tag}, 304, 0, 0},
		"not modified, one of many":   {[]string{`If-None-Match: "x", W/` + tag}, 304, 0, 0},
		"not modified since":          {[]string{"If-Modified-Since: " + whole.Header.Get("Last-Modified")}, 304, 0, 0},
		"another If-Match":            {[]string{`If-Match: "x"`}, 412, 0, 0},
		"beyond the end":              {[]string{fmt.Sprintf("Range: bytes=%d-", size)}, 416, 0, 0},
		"the same, with a range too":  {[]string{"If-None-Match: " + tag, "Range: bytes=0-3"}, 304, 0, 0},
		"a tag that another file had": {[]string{`If-None-Match: "x"`, "Range: bytes=0-3"}, 206, 0, 4},
	} {
		t.Run(name, func(t *testing.T) {
			a := ts.get("/client", c.headers...).want(c.status, "")
			if c.status == 206 && (a.body != whole.body[c.from:c.to] || a.Header.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/%d", c.from, c.to-1, size) || a.Header.Get("X-Checksum-SHA256") != sum) {
				t.Errorf("%d bytes, %v", len(a.body), a.Header)
			}
			if c.status == 304 && (a.body != "" || a.Header.Get("ETag") != tag) {
				t.Errorf("304: %v, body %.100q", a.Header, a.body)
			}
		})
	}
	// A range for another file: the whole of this one. Not read to its end: a client that leaves frees its slot.
	req, err := http.NewRequest("GET", ts.url+"/client", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Range", "bytes=10-19")
	req.Header.Set("If-Range", `"x"`)
	res, err := testClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 || res.ContentLength != size {
		t.Errorf("If-Range of another file: status %d, length %d", res.StatusCode, res.ContentLength)
	}
	for range 500 {
		if ts.downloads.inUse() == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := ts.downloads.inUse(); n != 0 {
		t.Errorf("%d slots are taken with nobody reading", n)
	}
	ts.do("POST", "/client", nil).want(405, "method_not_allowed")
	ts.get("/client/").want(404, "not_found")
}

// TestClientRouteLimits: it is a large answer, so it costs a creation and a slot.
func TestClientRouteLimits(t *testing.T) {
	ts := start(t, "RATE_CREATE=2/h")
	for range 2 {
		ts.do("HEAD", "/client", nil).want(200, "")
	}
	ts.do("HEAD", "/client", nil).want(429, "")
	ts.get("/health").want(200, "")
	busy := start(t, "MAX_DOWNLOADS=8") // one for each client
	res, err := http.Get(busy.url + "/client")
	if err != nil {
		t.Fatal(err)
	}
	if a := busy.get("/client").want(429, "too_many_transfers"); a.Header.Get("Retry-After") != "5" || a.Header.Get("ETag") != "" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers of the refusal: %v", a.Header)
	}
	res.Body.Close() // it leaves, unread
	for range 500 {
		if busy.downloads.inUse() == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	busy.do("HEAD", "/client", nil).want(200, "")
}

// launchCopy starts a copy of the program at path, as launch does.
func launchCopy(t testing.TB, dir, path string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o700); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: program(dir, environment([]string{"LISTEN=127.0.0.1:0"}), "serve"), logs: new(lockedBuffer), done: make(chan struct{})}
	p.cmd.Path, p.cmd.Args[0] = path, path
	p.cmd.Stderr = p.logs
	for try := 0; ; try++ {
		if err = p.cmd.Start(); err == nil {
			break
		}
		// Another test's fork may hold the copy open for writing for a moment (ETXTBSY).
		if try == 500 {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		cmd := exec.Command(path, p.cmd.Args[1:]...)
		cmd.Dir, cmd.Env, cmd.Stderr = p.cmd.Dir, p.cmd.Env, p.logs
		p.cmd = cmd
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(p.kill)
	for range 4 { // 20 s, as launch
		if strings.Contains(waitLog(p, "try: "), "try: ") {
			break
		}
	}
	_, addr, ok := strings.Cut(p.logs.String(), "msg=listening address=")
	if !ok {
		t.Fatalf("the server does not listen: %s", p.logs)
	}
	addr, _, _ = strings.Cut(addr, "\n")
	p.url = "http://" + addr
	return p
}

// TestClientRouteReplacedFile: the file is gone, or another one has its name, before anybody asked for the client. What is
// sent is the program that runs, under its own checksum, and it runs.
func TestClientRouteReplacedFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a running program can't be replaced there")
	}
	for name, change := range map[string]func(path string) error{
		"deleted": os.Remove,
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte("#!/bin/sh\nexit 1\n"), 0o700), os.Rename(path+".new", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "flaskpaste")
			p := launchCopy(t, dir, path)
			sum, size := executableSum(t, path)
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for range 2 { // the first ones all at once: it is hashed then
				wg.Go(func() {
					res, err := http.Get(p.url + "/client")
					if err != nil {
						t.Error(err)
						return
					}
					defer res.Body.Close()
					h := sha256.New()
					n, err := io.Copy(h, res.Body)
					if got := hex.EncodeToString(h.Sum(nil)); err != nil || res.StatusCode != 200 || n != size || got != sum || res.Header.Get("X-Checksum-SHA256") != sum || res.Header.Get("ETag") != `"`+sum+`"` {
						t.Errorf("status %d, %d bytes of %s, want %d of %s; headers %v, %v", res.StatusCode, n, got, size, sum, res.Header, err)
					}
				})
			}
			wg.Wait()
			if name != "deleted" {
				return
			}
			// What was downloaded is a program.
			res, err := http.Get(p.url + "/client")
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			raw, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			if runtime.GOOS == "linux" {
				if _, err := elf.NewFile(bytes.NewReader(raw)); err != nil {
					t.Errorf("no program: %v", err)
				}
			}
			client := filepath.Join(dir, "fpaste")
			if err := os.WriteFile(client, raw, 0o700); err != nil {
				t.Fatal(err)
			}
			var out []byte
			for range 500 { // ETXTBSY, as above
				cmd := program(dir, nil, "version")
				cmd.Path, cmd.Args[0] = client, client
				if out, err = cmd.Output(); err == nil {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			if err != nil || !strings.Contains(string(out), version) {
				t.Errorf("the downloaded program says %q, %v", out, err)
			}
		})
	}
}
