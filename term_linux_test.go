package main

// What only a terminal shows, on a pseudo-terminal of the kernel.

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// session is a command on a terminal of its own.
type session struct {
	t      testing.TB
	master *os.File
	slave  *os.File
	cmd    *exec.Cmd
	seen   *lockedBuffer
	done   chan error
}

// onTerminal starts a command whose terminal is new and 80 columns wide. Streams that cmd has set already stay as they are.
func onTerminal(t *testing.T, cmd *exec.Cmd) *session {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here: ", err)
	}
	var unlock, number int32
	if !control(master, syscall.TIOCSPTLCK, unsafe.Pointer(&unlock)) || !control(master, syscall.TIOCGPTN, unsafe.Pointer(&number)) {
		t.Fatal("the pseudo-terminal does not open")
	}
	size := [4]uint16{24, 80}
	control(master, syscall.TIOCSWINSZ, unsafe.Pointer(&size))
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, master: master, slave: slave, cmd: cmd, seen: new(lockedBuffer), done: make(chan error, 1)}
	t.Cleanup(func() { master.Close(); slave.Close() })
	if cmd.Stdin == nil {
		cmd.Stdin = slave
	}
	if cmd.Stdout == nil {
		cmd.Stdout = slave
	}
	if cmd.Stderr == nil {
		cmd.Stderr = slave
	}
	cmd.ExtraFiles = []*os.File{slave}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.seen.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	go func() { s.done <- cmd.Wait() }()
	return s
}

// expect waits until the terminal shows text.
func (s *session) expect(text string) {
	s.t.Helper()
	for range 2000 {
		if strings.Contains(s.seen.String(), text) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Fatalf("the terminal does not show %q:\n%s", text, s.seen)
}

func (s *session) echoes() bool {
	var mode syscall.Termios
	if !control(s.slave, getTermios, unsafe.Pointer(&mode)) {
		s.t.Fatal("no termios")
	}
	return mode.Lflag&syscall.ECHO != 0
}

// end waits for the command and returns all that was shown.
func (s *session) end(code int) string {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		s.cmd.Process.Kill()
		s.t.Fatalf("it does not end:\n%s", s.seen)
	}
	const mark = "<the end>" // what it wrote last has been read when this comes
	s.slave.WriteString(mark)
	s.expect(mark)
	if got := s.cmd.ProcessState.ExitCode(); got != code {
		s.t.Errorf("exit %d, want %d:\n%s", got, code, s.seen)
	}
	return strings.ReplaceAll(strings.TrimSuffix(s.seen.String(), mark), "\r\n", "\n")
}

func TestPasswordPrompt(t *testing.T) {
	ts := start(t)
	m := newMachine(t, ts.url)
	dir := t.TempDir()
	var out bytes.Buffer
	cmd := m.process(dir, "-p")
	cmd.Stdin, cmd.Stdout = strings.NewReader("the pipe is the content"), &out // so the prompt can't read it there
	s := onTerminal(t, cmd)
	s.expect("Password: ")
	if s.echoes() {
		t.Error("the terminal echoes while it asks")
	}
	s.master.WriteString("open sesame\n")
	s.expect("Once more: ")
	s.master.WriteString("open sesame\n")
	if shown := s.end(0); strings.Contains(shown, "sesame") || !s.echoes() {
		t.Errorf("the password is shown, or the echo is off for good: %q", shown)
	}
	link := strings.TrimSpace(out.String())
	s = onTerminal(t, m.process(dir, "get", link))
	s.expect("Password: ")
	s.master.WriteString("open sesame\n")
	if shown := s.end(0); !strings.Contains(shown, "the pipe is the content") {
		t.Errorf("shown: %q", shown)
	}
	s = onTerminal(t, m.process(dir, "get", link))
	s.expect("Password: ")
	s.master.WriteString("\x03") // Ctrl-C
	if s.end(1); !s.echoes() {
		t.Error("Ctrl-C leaves the terminal without echo")
	}
	cmd = m.process(dir, "-p")
	cmd.Stdin = strings.NewReader("x")
	s = onTerminal(t, cmd)
	s.expect("Password: ")
	s.master.WriteString("one\n")
	s.expect("Once more: ")
	s.master.WriteString("two\n")
	s.end(4)
	cmd = m.process(dir, "get", link) // no terminal at all
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if text, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 4 || !strings.Contains(string(text), "FPASTE_PASSWORD") {
		t.Errorf("exit %d: %s", cmd.ProcessState.ExitCode(), text)
	}
}

func TestTerminalOutput(t *testing.T) {
	ts := start(t)
	m := newMachine(t, ts.url)
	dir := t.TempDir()
	show := func(code int, args ...string) string {
		t.Helper()
		return onTerminal(t, m.process(dir, args...)).end(code)
	}
	evil := "red \x1b[31m title \x1b]0;x\x07 \u202e\u009b2J tab\tline\r\ncr\rover \xff end"
	want := `red \x1b[31m title \x1b]0;x\a \u202e\u009b2J tab	line` + "\n" + `cr\rover \xff end`
	if got := show(0, "get", m.link(strings.ReplaceAll(evil, "\xff", "")), "-q"); !strings.Contains(strings.ReplaceAll(got, "        ", "\t"), strings.Split(want, "\n")[0][:20]) || strings.ContainsAny(got, "\x1b\x07\u202e\u009b") || !strings.Contains(got, `cr\rover`) {
		t.Errorf("shown: %q", got)
	}
	binary := "\x7fELF\x00\x01\x02"
	if got := show(1, "get", m.link(binary)); strings.Contains(got, "ELF") || !strings.Contains(got, "-o FILE") {
		t.Errorf("binary: %q", got)
	}
	if got := show(0, "get", "-f", m.link(binary)); !strings.Contains(got, `\x7fELF\x00`) {
		t.Errorf("binary with -f: %q", got)
	}
	readable := m.link("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "-E", "-b")
	id, _ := parts(t, readable)
	if show(1, "get", readable); ts.get("/"+id).StatusCode != 200 {
		t.Error("a burning image was burned by a terminal that can't show it")
	}
	if got := files(t, dir); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
	// Sealed and burning: what it is comes to light only when it is gone, so it is kept.
	secret := m.link(binary, "-b")
	got := show(0, "get", secret)
	id, _ = parts(t, secret)
	if kept, _ := os.ReadFile(filepath.Join(dir, id)); string(kept) != binary || !strings.Contains(got, id) {
		t.Errorf("kept %q, said %q", kept, got)
	}
	if fi, err := os.Stat(filepath.Join(dir, id)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi, err)
	}
	os.Remove(filepath.Join(dir, id))
	if got := show(0, "get", m.link("text", "-b")); !strings.HasSuffix(got, "text") || len(files(t, dir)) > 0 {
		t.Errorf("burning text: %q, %v", got, files(t, dir))
	}
	s := onTerminal(t, m.process(dir))
	s.expect("Ctrl-D")
	s.master.WriteString("typed\n\x04")
	if shown := s.end(0); !strings.Contains(shown, ts.url+"/") {
		t.Errorf("typed: %q", shown)
	}
}

// smallSockets keeps the kernel from taking megabytes that nobody reads: it lets a buffer grow to what the machine's settings say.
type smallSockets struct{ net.Listener }

func (l smallSockets) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		c.(*net.TCPConn).SetReadBuffer(256 << 10)
	}
	return c, err
}

// Progress and work are for people at a terminal: not in a pipe, not with -q, and never in colour.
func TestProgress(t *testing.T) {
	first := true // and that nonce takes two million tries
	slow := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if first {
			first = false
			refuse(w, 400, "pow_required", map[string]any{"challenge": map[string]any{"nonce": "5feceb66ffc86f38d952786c6d696c79", "difficulty": 20, "token": "x"}})
			return
		}
		buf := make([]byte, 256<<10)
		for n := 0; ; {
			k, err := r.Body.Read(buf)
			if n += k; err != nil {
				break
			}
			time.Sleep(8 * time.Millisecond)
		}
		w.WriteHeader(201)
		w.Write([]byte(fakeCreated))
	}))
	slow.Listener = smallSockets{slow.Listener}
	slow.Start()
	defer slow.Close()
	m := newMachine(t, slow.URL)
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "big"), make([]byte, 32<<20), 0o600) // several times what the two sockets hold unread
	shown := onTerminal(t, m.process(dir, "big")).end(0)
	if !strings.Contains(shown, "uploading") || !strings.Contains(shown, "of 32.0 MiB") || !strings.Contains(shown, "proof of work: 20 bits") || !strings.Contains(shown, "million tries/s, about") {
		t.Errorf("no progress: %q", shown)
	}
	if strings.Contains(shown, "\x1b") {
		t.Error("escape sequences")
	}
	for _, line := range strings.FieldsFunc(shown, func(r rune) bool { return r == '\r' || r == '\n' }) {
		if len(line) > 80 && !strings.HasPrefix(line, "http") {
			t.Errorf("wider than the terminal: %q", line)
		}
	}
	if shown := onTerminal(t, m.process(dir, "-q", "big")).end(0); strings.Contains(shown, "uploading") {
		t.Errorf("-q shows %q", shown)
	}
	var errs bytes.Buffer
	cmd := m.process(dir, "big")
	cmd.Stderr = &errs
	if shown := onTerminal(t, cmd).end(0); strings.Contains(shown+errs.String(), "uploading") {
		t.Errorf("in a pipe: %q", errs.String())
	}
}
