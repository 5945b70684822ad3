//go:build unix

package main

// Root's commands on a database that another user's server has open.

import (
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// The server runs as another user; root's commands beside it must leave every file to that user, and hold at once.
func TestRootOnAnothersDatabase(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const uid = 65532
	dir := must(os.MkdirTemp("", "owned"))
	defer os.RemoveAll(dir)
	if err := errors.Join(os.Chmod(dir, 0o700), os.Chown(dir, uid, uid)); err != nil {
		t.Fatal(err)
	}
	owners := func(when string) {
		t.Helper()
		for _, e := range must(os.ReadDir(dir)) {
			if got := must(e.Info()).Sys().(*syscall.Stat_t).Uid; got != uid {
				t.Errorf("%s: %s belongs to %d", when, e.Name(), got)
			}
		}
	}
	database := filepath.Join(dir, "flaskpaste.db")
	must(operatorIn(database, "init")) // before the server's first start
	owners("after init")

	exe := filepath.Join(dir, "server") // the test binary lies where that user may not look
	if err := errors.Join(os.WriteFile(exe, must(os.ReadFile(must(os.Executable()))), 0o755), os.Chown(exe, uid, uid)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "serve")
	cmd.Dir = dir
	cmd.Env = []string{"RUN_AS_FLASKPASTE=1", "HOME=" + dir, "FLASKPASTE_LISTEN=unix:" + filepath.Join(dir, "s"), "FLASKPASTE_DATABASE=" + database, "FLASKPASTE_MIN_FREE=0",
		"FLASKPASTE_PKI_ENABLED=1", "FLASKPASTE_PKI_CA_PASSWORD=" + testCAPassword, "FLASKPASTE_RATE_AUTH=0"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	logs := new(lockedBuffer)
	cmd.Stderr = logs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	transport := &http.Transport{DialContext: unixDial(filepath.Join(dir, "s"))}
	defer transport.CloseIdleConnections()
	status := func(h *holder) int {
		t.Helper()
		for range 200 {
			req := must(http.NewRequest("GET", "http://localhost/pastes", nil))
			if h != nil {
				req.Header.Set("X-SSL-Client-SHA1", h.sha256())
			}
			if res, err := transport.RoundTrip(req); err == nil {
				res.Body.Close()
				return res.StatusCode
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Fatalf("the server does not answer: %s", logs)
		return 0
	}
	status(nil)
	bundle := filepath.Join(t.TempDir(), "a.pem")
	must(operatorIn(database, "issue", "alice", "-o", bundle))
	owners("after issue")
	alice := &holder{der: must(tls.LoadX509KeyPair(bundle, bundle)).Certificate[0]}
	if got := status(alice); got != 200 {
		t.Errorf("issued: status %d", got)
	}
	must(operatorIn(database, "revoke", alice.serial()))
	owners("after revoke")
	if got := status(alice); got != 403 {
		t.Errorf("revoked: status %d", got)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	owners("after the stop")
	must(operatorIn(database, "list")) // now nobody else has the database open
	bundle2 := filepath.Join(t.TempDir(), "b.pem")
	must(operatorIn(database, "issue", "bob", "-o", bundle2))
	owners("after a command without the server")
	if cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("exit code %d: %s", cmd.ProcessState.ExitCode(), logs)
	}
}
