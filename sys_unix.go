//go:build unix

package main

// sys_unix.go is what the operating system gives and the standard library has no name for: file locks, free space,
// what the process uses, what ends it, whether stderr is the journal.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// lockFile takes an exclusive lock that ends with the process, unless another one has it. No link is followed.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making the database's lock: %w", err)
	}
	switch err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err {
	case nil:
		return f, nil
	case syscall.EWOULDBLOCK:
		err = errors.New("another server uses the database")
	default:
		err = fmt.Errorf("%w: does the file system have locks? A database needs them", err)
	}
	f.Close()
	return nil, fmt.Errorf("locking %s: %w", path, err)
}

// freeSpace returns the bytes that an ordinary user may still write to the file system of path; 0: nobody knows.
func freeSpace(path string) int64 {
	var st syscall.Statfs_t
	if syscall.Statfs(path, &st) != nil {
		return 0
	}
	return int64(st.Bavail) * int64(st.Bsize)
}

// fileSize is 0 for a file that is not there.
func fileSize(path string) int64 {
	if info, err := os.Stat(path); err == nil {
		return info.Size()
	}
	return 0
}

// syncDir makes what was made or renamed in a folder survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	return err
}

// untilEnded returns a context that ends when somebody wants the process to. What was ignored at the start stays
// ignored: nohup, and the background jobs of scripts.
func untilEnded() (context.Context, context.CancelFunc) {
	ends := []os.Signal{syscall.SIGTERM}
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			ends = append(ends, s)
		}
	}
	return signal.NotifyContext(context.Background(), ends...)
}

// stderrIsJournal compares $JOURNAL_STREAM ("device:inode", systemd.exec(5)) with stderr: a terminal that inherited the
// variable is no journal.
func stderrIsJournal(stream string) bool {
	var st syscall.Stat_t
	return stream != "" && syscall.Fstat(2, &st) == nil && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// processUsage returns resident bytes, CPU time and open descriptors of this process; zeros where there is no /proc.
func processUsage() (rss int64, cpu time.Duration, files int) {
	pages, _ := os.ReadFile("/proc/self/statm")
	fmt.Sscan(string(pages), new(int64), &rss) // size, resident
	list, _ := os.ReadDir("/proc/self/fd")
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u) // which can't fail
	return rss * int64(os.Getpagesize()), time.Duration(u.Utime.Nano() + u.Stime.Nano()), len(list)
}
