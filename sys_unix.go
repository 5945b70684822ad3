//go:build unix

package main

// What the operating system gives and the standard library has no portable name for: file locks and free space.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// lockFile takes an exclusive lock that ends with the process; errInUse when another one has it. No link is followed: root's
// commands may empty the file.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|noFollow, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making the database's lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s is locked", errInUse, path)
	}
	return f, nil
}

// freeSpace returns the bytes that an ordinary user may still write to the file system of path; 0 when it can't be told.
func freeSpace(path string) int64 {
	var st syscall.Statfs_t
	if syscall.Statfs(path, &st) != nil {
		return 0
	}
	return int64(st.Bavail) * int64(st.Bsize)
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

// noFollow makes an open fail on a symbolic link.
const noFollow = syscall.O_NOFOLLOW

// ownedAs gives f to the owner of the file model if the caller is root: root's commands must not lock the server, which runs
// as another user, out of its own files.
func ownedAs(f *os.File, model string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(model)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	return f.Chown(int(owner.Uid), int(owner.Gid))
}

// fileLimit is the number of descriptors that this process may have open.
func fileLimit() int {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
		return 1024
	}
	return int(min(uint64(l.Cur), 1<<20))
}

// monotonicMicros reads CLOCK_MONOTONIC, which the standard library keeps to itself; 0 where systemd does not run.
func monotonicMicros() int64 {
	var now syscall.Timespec
	if number := map[string]uintptr{"linux/amd64": 228, "linux/arm64": 113}[runtime.GOOS+"/"+runtime.GOARCH]; number != 0 {
		syscall.Syscall(number, 1, uintptr(unsafe.Pointer(&now)), 0)
	}
	return now.Nano() / 1000
}

// explainAccess adds to a refused access who must own what: most often a volume or a restored file is another user's.
func explainAccess(err error, database string) error {
	if code := sqliteCode(err); !errors.Is(err, os.ErrPermission) && code != 8 && code != 14 { // READONLY, CANTOPEN
		return err
	}
	for _, path := range []string{filepath.Dir(database), database, database + "-wal", database + "-shm", database + ".lock"} {
		var st syscall.Stat_t
		if me := os.Geteuid(); syscall.Stat(path, &st) == nil && int(st.Uid) != me {
			return fmt.Errorf("%w: %s belongs to user %d, and this is user %d: chown -R %d %s", err, path, st.Uid, me, me, filepath.Dir(database))
		}
	}
	return err
}
