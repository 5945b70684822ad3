package main

// Ours beside what others wrote, on one machine in one run: sh deploy/peers.sh builds them and prints the table. Each server is a
// process of its own with its log on the null device. They take turns in every round, so that what else the machine does falls
// on all of them; absolute rates say more about the machine than about a program.

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	peerRounds = 7
	peerRound  = 700 * time.Millisecond
	peerConns  = 16
	peerLarge  = 8 // uploads of 50 MiB at once
)

// peer is a server under comparison; HOST in its command stands for 127.0.0.1:port.
type peer struct {
	name, durable string
	command, env  []string
	head          string                                       // of the request that stores: method, path, headers
	encoded       bool                                         // the content goes as base64
	raw           func(res *http.Response, body string) string // the path of the content, from the answer to that

	addr      string
	cmd       *exec.Cmd
	conns     []*rawConn
	reads     [][]byte
	post, get []float64 // requests a second, by rounds
}

func peers(dir string) []*peer {
	self, _ := os.Executable()
	ours := func(name, durable, sync string) *peer {
		return &peer{name: name, durable: durable, command: []string{self, "serve"}, head: "POST / HTTP/1.1\r\nContent-Type: application/octet-stream",
			env: append(environment([]string{"LISTEN=HOST", "MAX_ANON=64MiB", "SYNC=" + sync}), "RUN_AS_FLASKPASTE=1"),
			raw: func(res *http.Response, _ string) string { return res.Header.Get("Location") + "/raw" }}
	}
	path := func(_ *http.Response, link string) string { return must(url.Parse(strings.TrimSpace(link))).Path }
	// 32 threads: an idle connection holds one, and all 16 may have fallen to one worker.
	gunicorn := func(dir, app string) []string {
		return []string{"gunicorn", "--bind", "HOST", "--workers", strconv.Itoa(cores()), "--worker-class", "gthread", "--threads", "32", "--keep-alive", "600", "--chdir", dir, app}
	}
	return []*peer{
		{name: "bare net/http handler", durable: "stores nothing", command: []string{filepath.Join(dir, "bare"), "HOST"}, head: "POST / HTTP/1.1", raw: path},
		ours("FlaskPaste", "yes", "full"),
		ours("FlaskPaste, `SYNC=normal`", "no", "normal"),
		{name: "linx-server (Go, files)", durable: "no", command: []string{filepath.Join(dir, "linx-server"), "-bind", "HOST", "-filespath", "files/", "-metapath", "meta/"},
			head: "PUT /upload/x.bin HTTP/1.1\r\nLinx-Randomize: yes", raw: func(_ *http.Response, link string) string { return "/selif" + path(nil, link) }},
		{name: "transfer.sh (Go, files)", durable: "no", command: []string{filepath.Join(dir, "transfer.sh"), "--provider", "local", "--listener", "HOST", "--temp-path", ".", "--basedir", "files/"},
			head: "PUT /x.bin HTTP/1.1", raw: path},
		{name: "bepasty (Flask, gunicorn, files)", durable: "no", command: gunicorn(dir, "bepasty.wsgi"), env: []string{"BEPASTY_CONFIG=" + filepath.Join(dir, "bepasty.conf")}, encoded: true,
			head: "POST /apis/rest/items HTTP/1.1\r\nContent-Type: application/octet-stream\r\nContent-Filename: x.bin\r\nContent-Range: bytes 0-LAST/SIZE",
			raw: func(res *http.Response, _ string) string {
				return "/" + filepath.Base(res.Header.Get("Content-Location")) + "/+download"
			}},
		{name: "a table in Flask, gunicorn, SQLite", durable: "yes", command: gunicorn(dir, "standin:app"), head: "POST / HTTP/1.1", raw: path},
	}
}

// launch starts the peer in a new folder and waits until it listens.
func (p *peer) launch(b *testing.B) error {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	p.addr = l.Addr().String()
	l.Close()
	fill := func(list []string) (filled []string) {
		for _, s := range list {
			filled = append(filled, strings.ReplaceAll(s, "HOST", p.addr))
		}
		return filled
	}
	args := fill(p.command)
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Dir = b.TempDir()
	for _, dir := range []string{"files", "meta"} {
		os.Mkdir(filepath.Join(p.cmd.Dir, dir), 0o700)
	}
	p.cmd.Env = append(append(os.Environ(), "HOME="+p.cmd.Dir, "DATABASE="+filepath.Join(p.cmd.Dir, "db")), fill(p.env)...)
	if err := p.cmd.Start(); err != nil {
		return err
	}
	b.Cleanup(p.stop)
	for range 200 {
		if c, err := net.Dial("tcp", p.addr); err == nil {
			return c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("it does not listen")
}

func (p *peer) stop() {
	if p.cmd.ProcessState == nil {
		p.cmd.Process.Signal(syscall.SIGTERM)
		end := time.AfterFunc(10*time.Second, func() { p.cmd.Process.Kill() })
		p.cmd.Wait()
		end.Stop()
	}
}

func (p *peer) store(content []byte) []byte {
	head := strings.NewReplacer("LAST", strconv.Itoa(len(content)-1), "SIZE", strconv.Itoa(len(content))).Replace(p.head)
	if p.encoded {
		content = base64.StdEncoding.AppendEncode(nil, content)
	}
	return append(fmt.Appendf(nil, "%s\r\nHost: %s\r\nUser-Agent: curl/8\r\nContent-Length: %d\r\n\r\n", head, p.addr, len(content)), content...)
}

// stored stores content and returns the request that reads it, tried once.
func (p *peer) stored(content []byte) (read []byte, err error) {
	p.conns[0].SetDeadline(time.Now().Add(20 * time.Second))
	defer p.conns[0].SetDeadline(time.Time{})
	p.conns[0].Write(p.store(content))
	res, err := http.ReadResponse(bufio.NewReader(p.conns[0]), nil)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode/100 != 2 {
		return nil, fmt.Errorf("status %d, %.200q, %w", res.StatusCode, body, err)
	}
	read = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: curl/8\r\n\r\n", p.raw(res, string(body)), p.addr)
	_, err = p.conns[0].exchange(read)
	return read, err
}

// peak uploads 50 MiB eight times at once and returns the sum of the peaks of the server's processes, in MiB.
func (p *peer) peak(b *testing.B) string {
	var wg sync.WaitGroup
	var failed atomic.Int64
	for n := range peerLarge {
		wg.Go(func() {
			c := dialRaw(b, p.addr)
			c.SetDeadline(time.Now().Add(2 * time.Minute))
			c.Write(p.store(benchContent(uint64(n), largeSize)))
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || res.StatusCode/100 != 2 {
				failed.Add(1)
				return
			}
			io.Copy(io.Discard, res.Body)
		})
	}
	wg.Wait()
	if failed.Load() > 0 {
		return "refused"
	}
	sum := residentMiB(b, p.cmd.Process.Pid, "VmHWM")
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", p.cmd.Process.Pid))
	for _, pid := range strings.Fields(string(children)) {
		sum += residentMiB(b, must(strconv.Atoi(pid)), "VmHWM")
	}
	return fmt.Sprintf("%.0f", sum)
}

func BenchmarkPeers(b *testing.B) {
	dir := os.Getenv("PEERS")
	if dir == "" {
		b.Skip("sh deploy/peers.sh builds the others")
	}
	var all []*peer
	content := benchContent(0, benchSize)
	right := func(body []byte) bool { return len(body) == benchSize && bytes.Equal(body[16:], content[16:]) }
	var count atomic.Uint64
	for _, p := range peers(dir) {
		err := p.launch(b)
		for i := 0; i < 64 && err == nil; i++ {
			if i < peerConns {
				p.conns = append(p.conns, dialRaw(b, p.addr))
			}
			var read []byte
			if read, err = p.stored(benchContent(count.Add(1), benchSize)); err == nil {
				p.reads = append(p.reads, read)
			}
		}
		switch {
		case err == nil:
			all = append(all, p)
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, exec.ErrNotFound): // of those peers.sh has told
			fmt.Printf("\nleft out: %s: %v\n", p.name, err)
		}
	}
	for range peerRounds {
		for _, p := range all {
			p.post = append(p.post, hammer(b, p.conns, peerRound, func(int, int) []byte { return p.store(benchContent(count.Add(1), benchSize)) }, func(body []byte) bool { return len(body) > 0 }))
		}
		for _, p := range all {
			p.get = append(p.get, hammer(b, p.conns, peerRound, func(i, n int) []byte { return p.reads[(7*i+n)%64] }, right))
		}
	}
	fmt.Printf("\n| server | durable | POST/s | GET/s | GET, of bare | peak at %d x 50 MiB, MiB |\n|---|---|---|---|---|---|\n", peerLarge)
	for _, p := range all {
		p.stop()
	}
	for _, p := range all {
		ratios := []float64{}
		for i, v := range p.get {
			ratios = append(ratios, v/all[0].get[i])
		}
		post, get, peak := median(p.post), median(p.get), "-"
		if p.launch(b) == nil { // anew: what came before has left no peak
			peak = p.peak(b)
			p.stop()
		}
		fmt.Printf("| %s | %s | %.0f | %.0f | %.2f | %s |\n", p.name, p.durable, post, get, median(ratios), peak)
	}
}
