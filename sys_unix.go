//go:build unix

package main

// sys_unix.go is what the operating system gives and the standard library has no name for: file locks, free space, what the
// process uses, whether stderr is the journal.

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// lockFile takes an exclusive lock that ends with the process, unless another one has it. No link is followed.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making the database's lock: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("another server uses the database: %s is locked", path)
	}
	return nil, fmt.Errorf("locking %s: %w: does the file system have locks? A database needs them", path, err)
}

// freeSpace returns the bytes that an ordinary user may still write to the file system of path; 0 when it can't be told.
func freeSpace(path string) int64 {
	var st syscall.Statfs_t
	if syscall.Statfs(path, &st) != nil {
		return 0
	}
	return int64(st.Bavail) * int64(st.Bsize)
}

// fileSize is 0 for a file that is not there.
func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// syncDir makes what was made or renamed in a folder survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// stderrIsJournal compares $JOURNAL_STREAM ("device:inode", systemd.exec(5)) with stderr: a terminal that inherited the
// variable is no journal.
func stderrIsJournal(stream string) bool {
	var st syscall.Stat_t
	return stream != "" && syscall.Fstat(2, &st) == nil && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// privateUmask makes whatever this process creates its own user's alone; a socket's wider mode is set afterwards.
func privateUmask() { syscall.Umask(0o077) }

// processUsage returns resident bytes, CPU time and open descriptors of this process; zeros where there is no /proc.
func processUsage() (rss int64, cpu time.Duration, files int) {
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		var size int64
		fmt.Fscan(strings.NewReader(string(b)), &size, &rss)
		rss *= int64(os.Getpagesize())
	}
	if list, err := os.ReadDir("/proc/self/fd"); err == nil {
		files = len(list)
	}
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) == nil {
		cpu = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return rss, cpu, files
}
