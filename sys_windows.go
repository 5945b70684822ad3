package main

// Windows has the client; the server runs there too, with an exclusive handle for a lock and no reserve of disk space.

import (
	"fmt"
	"math"
	"os"
	"syscall"
	"time"
)

// lockFile opens path without sharing, which Windows refuses to a second process.
func lockFile(path string) (*os.File, error) {
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errInUse, path, err)
	}
	return os.NewFile(uintptr(h), path), nil
}

func freeSpace(string) int64 { return math.MaxInt64 }

func stderrIsJournal(string) bool { return false }

func privateUmask() {}

func processUsage() (rss int64, cpu time.Duration, files int) { return 0, 0, 0 }

const noFollow = 0

func ownedAs(*os.File, string) error { return nil }

func fileLimit() int { return 16384 }

func monotonicMicros() int64 { return 0 }

func explainAccess(err error, _ string) error { return err }
