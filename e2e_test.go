package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// need returns the path of a program that a test drives: without it the test is skipped, in CI it fails.
func need(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed", name)
	} else if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

// TestFirstRun is README's first minute: the program as it comes, and plain curl.
func TestFirstRun(t *testing.T) {
	curl := need(t, "curl")
	dir := t.TempDir()
	p := launch(t, dir)
	if !strings.Contains(p.logs.String()+waitLog(p, "try: "), "curl -T - "+p.url+"/") {
		t.Errorf("the start does not print the first line to type: %s", p.logs)
	}
	cmd := exec.Command(curl, "-sS", "-T", "-", p.url+"/")
	cmd.Stdin = strings.NewReader("hello\n")
	link, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(curl, "-sS", strings.TrimSpace(string(link))).Output()
	if err != nil || string(out) != "hello\n" {
		t.Fatalf("read %q, %v", out, err)
	}
	if code := p.stop(); code != 0 {
		t.Errorf("exit code %d: %s", code, p.logs)
	}
	if !exists(filepath.Join(dir, "data", "flaskpaste.db")) {
		t.Error("the database is not in data/")
	}
	if exists(filepath.Join(dir, "data", "flaskpaste.db-wal")) {
		t.Error("the write-ahead log outlived a clean stop")
	}
}
