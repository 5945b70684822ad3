//go:build unix

package main

// The terminal on Unix, by ioctl(2) and termios(3). getTermios and setTermios are the kernel's numbers for it.

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"unsafe"
)

// control runs one ioctl on x if that is a file; Fd() would take it out of the poller.
func control(x any, call uintptr, arg unsafe.Pointer) bool {
	f, ok := x.(*os.File)
	if !ok {
		return false
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) { _, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, call, uintptr(arg)) })
	return err == nil && errno == 0
}

func isTerminal(x any) bool {
	var t syscall.Termios
	return control(x, getTermios, unsafe.Pointer(&t))
}

// terminalWidth returns the columns of a terminal, 80 if it does not tell.
func terminalWidth(x any) int {
	var size struct{ rows, columns, x, y uint16 }
	if !control(x, syscall.TIOCGWINSZ, unsafe.Pointer(&size)) || size.columns == 0 {
		return 80
	}
	return int(size.columns)
}

// readPassword asks on the controlling terminal (standard input may be the content) without echo, which is back on however it ends.
func readPassword(ctx context.Context, prompt string) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", errors.New("there is no terminal")
	}
	defer tty.Close()
	var before syscall.Termios
	if !control(tty, getTermios, unsafe.Pointer(&before)) {
		return "", errors.New("the terminal can't hide it")
	}
	silent := before
	silent.Lflag = silent.Lflag&^syscall.ECHO | syscall.ICANON | syscall.ISIG
	if !control(tty, setTermios, unsafe.Pointer(&silent)) {
		return "", errors.New("the terminal can't hide it")
	}
	defer tty.WriteString("\n")
	defer control(tty, setTermios, unsafe.Pointer(&before))
	tty.WriteString(prompt)
	line := make([]byte, 4096) // the kernel's longest line
	n, err := interruptible{ctx, tty}.Read(line)
	return strings.TrimRight(string(line[:n]), "\r\n"), err
}
