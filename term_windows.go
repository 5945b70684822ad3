package main

// The terminal on Windows: enough to know one; typing can't be hidden with the standard library alone.

import (
	"context"
	"errors"
	"os"
	"syscall"
)

func isTerminal(x any) bool {
	f, ok := x.(*os.File)
	var mode uint32
	return ok && syscall.GetConsoleMode(syscall.Handle(f.Fd()), &mode) == nil
}

func terminalWidth(any) int { return 80 }

func readPassword(context.Context, string) (string, error) {
	return "", errors.New("on Windows this prompt can't hide what you type")
}
