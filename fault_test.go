//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"testing"
)

// smallDisk mounts a file system of that many MiB, where the test may.
func smallDisk(t testing.TB, size int) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm,mode=0700", size), "tmpfs", dir).CombinedOutput()
	if err != nil {
		unable(t, fmt.Sprintf("no small disk can be mounted: %v: %s", err, out))
	}
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
	return dir
}
