package main

// main.go is where a process begins and ends: client or operator, the server from start to stop, its listeners, what
// systemd is told and reads, the sweep's loop.
//
// Start: config, store, CA, server, listeners, READY. End: health says no, the doors are closed, whoever came through
// is served (20 s), the writer's queue is written, exit 0. A second signal kills. Nothing waits for a peer on the
// accepting goroutine, and the stop waits for one step of the sweep at most. What a restart can't cure is exit 78.
// (sd_notify(3), sd_listen_fds(3), sd-daemon(3), systemd.exec(5))

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	exitFailed  = 1
	exitUsage   = 2
	exitStorage = 74 // EX_IOERR: the disk failed; a restart recovers from the write-ahead log
	exitConfig  = 78 // EX_CONFIG: a restart would not help
	shutdownFor = 20 * time.Second
	acceptedFor = 300 * time.Millisecond // of that, for who came through the doors to send a request
	kickedAfter = time.Second            // garbage waits for more of it
	clockPause  = 10 * time.Minute       // how long the sweep waits when the clock looks wrong
)

func main() { os.Exit(run(os.Args, os.Environ(), os.Stdout, os.Stderr)) }

// run does one command and returns the exit code. Called fpaste, or with a command that is not the operator's, it is
// the client. stderr is for people, and the server's log.
func run(args, environ []string, stdout, stderr io.Writer) int {
	name, args := filepath.Base(args[0]), args[1:]
	if strings.HasPrefix(name, "fpaste") || len(args) > 0 && isClientCommand(args[0]) {
		ctx, stop := untilEnded()
		context.AfterFunc(ctx, stop)   // a second signal kills
		signal.Ignore(syscall.SIGPIPE) // a write to a pipe that nobody reads is an error like any other
		log.SetOutput(io.Discard)      // net/http's own remarks on what a server sends
		return runClient(ctx, args, stdio{os.Stdin, os.Stdout, os.Stderr, os.LookupEnv})
	}
	o := &operator{environ: environ, out: stdout, stderr: stderr, now: time.Now()}
	err := o.operate(args)
	if err == nil {
		return 0
	}
	o.report(err)
	var coded exitError
	switch {
	case errors.As(err, &coded):
		return coded.code
	case errors.Is(err, errNoPassword), errors.Is(err, errCAPassword):
		return exitConfig
	}
	return exitFailed
}

// isClientCommand tells the client's commands from the operator's; help and version are the operator's as flaskpaste's.
func isClientCommand(name string) bool {
	return name != "help" && name != "version" &&
		slices.ContainsFunc(clientCommands(), func(c cliCommand) bool { return c.name == name })
}

// exitError is an error with an exit code of its own.
type exitError struct {
	error
	code int
}

// report says why a command failed in one line for people, but for a start of the server in the form of its log, though
// nobody may have understood the settings.
func (o *operator) report(err error) {
	json, text := slices.Contains(o.environ, "FLASKPASTE_LOG=json"), slices.Contains(o.environ, "FLASKPASTE_LOG=text")
	switch journal := stderrIsJournal(os.Getenv("JOURNAL_STREAM")); {
	case o.serving && (json || journal && !text):
		newLog(true, slog.LevelError, o.stderr).Error("the server ends", "error", err.Error())
	case journal:
		fmt.Fprintf(o.stderr, "<3>flaskpaste: %v\n", err)
	default:
		fmt.Fprintf(o.stderr, "flaskpaste: %v\n", err)
	}
}

// newLog writes to w, which is stderr.
func newLog(json bool, level slog.Level, w io.Writer) *slog.Logger {
	if stderrIsJournal(os.Getenv("JOURNAL_STREAM")) {
		w = prioritized{w}
	}
	options := &slog.HandlerOptions{Level: level}
	if json {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// prioritized puts sd-daemon's priority before each line, so that `journalctl -p warning` finds what matters, and a
// flood of request lines does not push it out.
type prioritized struct{ io.Writer }

func (p prioritized) Write(line []byte) (int, error) {
	_, level, _ := bytes.Cut(line, []byte("level")) // slog's own: it stands before all that a stranger wrote
	priority := map[byte]string{'D': "<7>", 'I': "<6>", 'W': "<4>", 'E': "<3>"}[bytes.TrimLeft(level, `":=`)[0]]
	return p.Writer.Write(append([]byte(priority), line...))
}

// ---- serve ----

// serve is the server's life. Its log is stderr.
func (o *operator) serve([]string) error {
	syscall.Umask(0o077)          // what is made here is this user's alone; a socket's wider mode is set afterwards
	signal.Ignore(syscall.SIGHUP) // there is nothing to read again
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, os.Interrupt)
	cfg, log := o.cfg, o.log
	notifySystemd("STATUS=opening the database")
	var srv *server
	st, err := openStore(storeOptions{path: cfg.database, full: cfg.sync == "full", checkpoint: cfg.checkpoint == "on",
		cacheSize: cfg.cache, reserve: cfg.minFree, maxLife: int64(cfg.maxExpiry / time.Second),
		linger: int64((cfg.transferTimeout + time.Minute) / time.Second), log: log,
		committed: func(n int, took time.Duration) {
			if srv != nil {
				srv.metrics.commit(n, took)
			}
		},
		fatal: func(err error) {
			log.Error("the disk failed: ending, so that the restart recovers what was acknowledged", "error", err)
			os.Exit(exitStorage)
		}})
	if err != nil {
		return err
	}
	if srv, err = newServer(cfg, st, log, time.Now); err != nil {
		return errors.Join(err, st.close())
	}
	listeners, err := listen(cfg, log)
	if err != nil {
		return errors.Join(err, st.close())
	}
	hs := newHTTPServer(srv)
	doors := newDoors(srv)
	failed := make(chan error, len(listeners))
	var open sync.WaitGroup
	for _, l := range listeners {
		log.Info("listening", "address", l.Addr().String())
		open.Go(func() { failed <- hs.Serve(doors.at(l)) })
	}
	ctx, stop := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { srv.sweepLoop(ctx) })
	loops.Go(func() { doors.watchdogLoop(ctx, listeners[0]) })
	if cfg.log == "text" && listeners[0].Addr().Network() == "tcp" {
		base := cmp.Or(cfg.publicURL, "http://"+listeners[0].Addr().String()) + cfg.prefix
		fmt.Fprintf(o.stderr, "try: echo hello | curl -T - %s/\n", base)
	}
	notifySystemd("READY=1\nSTATUS=serving")
	select {
	case sig := <-ends:
		log.Info("stopping", "signal", sig.String())
	case err = <-failed:
	}
	signal.Stop(ends) // a second one kills
	notifySystemd("STOPPING=1\nSTATUS=finishing requests")
	srv.stopping.Store(true)
	stop()
	patience, cancel := context.WithTimeout(context.Background(), shutdownFor)
	defer cancel()
	// Once Shutdown has begun, net/http drops what it reads from connections that it had accepted before. So the doors
	// are closed first, whoever came through has a moment to send, and only then it is called: a restart through
	// systemd's socket loses nobody.
	for _, l := range listeners {
		l.Close()
	}
	open.Wait()
	hs.SetKeepAlivesEnabled(false)
	time.Sleep(acceptedFor)
	if err := hs.Shutdown(patience); err != nil {
		log.Warn("requests were cut", "error", err)
		hs.Close()
	}
	loops.Wait()
	return errors.Join(err, st.close())
}

// newHTTPServer sets the limits of net/http itself; those of bodies and answers are in headers.go.
func newHTTPServer(s *server) *http.Server {
	return &http.Server{Handler: s, ReadHeaderTimeout: headerTime, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: headerLimit, DisableGeneralOptionsHandler: true,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		}}
}

// doors let connections in: so many in all, an eighth for one address, a quarter for one /48. A trusted peer counts in
// all only. What is too many is closed at once.
type doors struct {
	*server
	places *slots
	awake  chan struct{} // who accepts has moved since the watchdog asked
}

func newDoors(s *server) *doors {
	most := int(s.cfg.maxConnections)
	return &doors{s, newSlots(most, max(1, most/8), max(1, most/4), 0), make(chan struct{}, 1)}
}

// at puts the doors before a listener.
func (d *doors) at(l net.Listener) net.Listener { return &door{l, d} }

type door struct {
	net.Listener
	*doors
}

// What TCP and Unix sockets have beside the common: listeners, and connections.
type (
	wakeable interface{ SetDeadline(time.Time) error }
	buffered interface{ SetWriteBuffer(int) error }
)

func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			d.Listener.(wakeable).SetDeadline(time.Time{})
			select {
			case d.awake <- struct{}{}:
			default:
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		ap, _ := netip.ParseAddrPort(c.RemoteAddr().String())
		addr := ap.Addr().Unmap()
		key := keyFor("", addr)
		if !addr.IsValid() || containsAddr(d.cfg.trustedProxies, addr) {
			key = keyFor(fmt.Sprintf("%p", c), addr) // nobody else's
		}
		if !d.places.acquire(context.Background(), key, 0) {
			d.metrics.refusedConnections.Add(1)
			c.Close()
			continue
		}
		c.(buffered).SetWriteBuffer(writeBuffer)
		return &conn{Conn: c, limit: d.cfg.transferTimeout, inBusy: d.uploads.busy, outBusy: d.downloads.busy,
			closed: func() { d.places.release(key) }}, nil
	}
}

// listen takes over the sockets from descriptor 3 on that are meant for this process; without any it opens those of the
// settings.
func listen(cfg *config, log *slog.Logger) (list []net.Listener, err error) {
	handed := 0
	if os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		handed, _ = strconv.Atoi(os.Getenv("LISTEN_FDS"))
	}
	for fd := 3; fd < 3+handed; fd++ {
		f := os.NewFile(uintptr(fd), "LISTEN_FD_"+strconv.Itoa(fd))
		l, err := net.FileListener(f) // a duplicate, closed on exec
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("taking over socket %d: %w", fd, err)
		}
		list = append(list, l)
	}
	if handed > 0 {
		if cfg.listenGiven {
			log.Warn("FLASKPASTE_LISTEN is ignored: the service manager handed over the sockets to listen on")
		}
		return list, nil
	}
	for _, a := range cfg.listen {
		var l net.Listener
		if path, unix := strings.CutPrefix(a, "unix:"); unix {
			l, err = listenUnix(path)
		} else {
			l, err = net.Listen("tcp", a)
		}
		if err != nil {
			return nil, fmt.Errorf("listening: %w", err)
		}
		list = append(list, l)
	}
	return list, nil
}

// listenUnix replaces a socket file that nobody answers on: it is left over from a crash.
func listenUnix(path string) (net.Listener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("another program answers on %s", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		os.Remove(path)
	}
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o660) // for the proxy's group
	}
	return l, err
}

// notifySystemd sends a state to the service manager, where there is one.
func notifySystemd(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if c, err := net.Dial("unixgram", path); err == nil {
		io.WriteString(c, state)
		c.Close()
	}
}

// watchdogLoop pings systemd at half its patience, as long as the writer moves and the doors accept. Our unit has no
// network in which to dial ourselves: a deadline wakes who accepts.
func (d *doors) watchdogLoop(ctx context.Context, l net.Listener) {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if pid := os.Getenv("WATCHDOG_PID"); err != nil || usec <= 0 || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return
	}
	tick := time.NewTicker(time.Duration(usec) * time.Microsecond / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.(wakeable).SetDeadline(time.Now())
		case <-d.awake:
			if d.store.healthy() {
				notifySystemd("WATCHDOG=1")
			}
		}
	}
}

// sweepLoop removes what is due, each SWEEP and a second after there is garbage, and waits twice as long as each step
// took, so that the writer belongs to others for two thirds of the time. A clock that jumps must not delete everything:
// when it is far from the latest content at the start, or moves by a day more or less than the time that passes, the
// sweep waits.
func (s *server) sweepLoop(ctx context.Context) {
	wall, began := s.now().Unix(), time.Now()
	st, err := s.store.stats()
	wrong := err == nil && st.lastChange != 0 &&
		(wall < st.lastChange-86400 || wall > st.lastChange+int64(s.cfg.maxExpiry/time.Second))
	for wait, idle := time.Duration(0), false; ; {
		kick := s.store.kick
		if !idle { // nothing shortens a pause, and more garbage does not prolong the wait for it
			kick = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-kick:
			wait, idle = min(kickedAfter, s.cfg.sweep), false
			continue
		case <-time.After(wait):
		}
		now := s.now().Unix()
		jump := now - wall - int64(time.Since(began)/time.Second)
		wall, began = now, time.Now()
		if wrong || jump < -86400 || jump > 86400 {
			s.log.Warn("the clock looks wrong: nothing is removed for a while", "wait", clockPause,
				"now", time.Unix(now, 0).UTC())
			wrong, wait, idle = false, clockPause, false
			continue
		}
		pastes, shorts, more, err := s.store.sweep(now)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("the sweep goes on later", "error", err)
		}
		s.metrics.pastes.expired.Add(uint64(pastes))
		s.metrics.shorts.expired.Add(uint64(shorts))
		if wait, idle = s.cfg.sweep, !more; more {
			wait = max(5*time.Millisecond, 2*time.Since(began))
		}
	}
}
