package main

// main.go is where a process begins and ends: client or operator, the server from start to stop, its listeners, what
// systemd is told and reads, the sweep's loop.
//
// Start: config, store, CA, server, listeners, READY. End: health says no, the doors are closed, whoever came through
// is served (20 s), the writer's queue is written, exit 0. A second signal kills. Nothing waits for a peer on the
// accepting goroutine, and the stop waits for one step of the sweep at most. What a restart can't cure is exit 78.
// (sd_notify(3), sd_listen_fds(3), sd-daemon(3), systemd.exec(5))

import (
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
	"sync/atomic"
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
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		context.AfterFunc(ctx, stop) // a second signal kills
		log.SetOutput(io.Discard)    // net/http's own remarks on what a server sends
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

// report says why a command failed: a start of the server in the form of its log, everything else in one line for
// people.
func (o *operator) report(err error) {
	json, journal := logForm(o.environ)
	switch {
	case o.serving && json:
		newLog(o.environ, slog.LevelError, o.stderr).Error("the server ends", "error", err.Error())
	case o.serving && journal:
		fmt.Fprintf(o.stderr, "<3>flaskpaste: %v\n", err)
	default:
		fmt.Fprintf(o.stderr, "flaskpaste: %v\n", err)
	}
}

// ---- the log ----

// logForm says how the log is written, before anybody knows whether the settings are right, and whether the journal
// reads it.
func logForm(environ []string) (json, journal bool) {
	form := setting(environ, envPrefix+"LOG")
	journal = stderrIsJournal(setting(environ, "JOURNAL_STREAM"))
	return form == "json" || form == "" && journal, journal
}

// setting is the last value of a name, "" without any.
func setting(environ []string, name string) (value string) {
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}

func newLog(environ []string, level slog.Level, w io.Writer) *slog.Logger {
	json, journal := logForm(environ)
	handler := func(w io.Writer) slog.Handler {
		if json {
			return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})
		}
		return slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
	}
	if !journal {
		return slog.New(handler(w))
	}
	p := prioritized{Handler: handler(w)}
	for i, priority := range []string{"<7>", "<6>", "<4>", "<3>"} {
		p.levels[i] = handler(prefixed{priority, w})
	}
	return slog.New(p)
}

// prioritized puts sd-daemon's priority before each line, so that `journalctl -p warning` finds what matters, and a
// flood of request lines does not push it out.
type prioritized struct {
	slog.Handler
	levels [4]slog.Handler // debug, info, warn, error
}

func (p prioritized) Handle(ctx context.Context, r slog.Record) error {
	return p.levels[(r.Level-slog.LevelDebug)/(slog.LevelInfo-slog.LevelDebug)].Handle(ctx, r)
}

type prefixed struct {
	prefix string
	w      io.Writer
}

func (p prefixed) Write(line []byte) (int, error) {
	return p.w.Write(append([]byte(p.prefix), line...))
}

// ---- serve ----

// serve is the server's life. Its log is stderr.
func (o *operator) serve([]string) error {
	privateUmask()
	signal.Ignore(syscall.SIGHUP) // there is nothing to read again
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, os.Interrupt)
	cfg, log := o.cfg, o.log
	for _, w := range cfg.warnings {
		log.Warn(w)
	}
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
	listeners, err := activated()
	if len(listeners) > 0 && cfg.listenGiven {
		log.Warn("FLASKPASTE_LISTEN is ignored: the service manager handed over the sockets to listen on")
	} else if err == nil && len(listeners) == 0 {
		listeners, err = listen(cfg.listen)
	}
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
	loops.Go(func() { srv.watchdogLoop(ctx, doors, listeners[0]) })
	if _, journal := logForm(o.environ); cfg.log == "text" && !journal {
		fmt.Fprintf(o.stderr, "try: echo hello | curl -T - %s/\n", firstURL(cfg, listeners[0]))
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
	// Once Shutdown has begun, net/http drops what it reads from connections that it had accepted before. So the doors are
	// closed first, whoever came through has a moment to send, and only then it is called: a restart through systemd's
	// socket loses nobody.
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
		MaxHeaderBytes:               headerLimit,
		DisableGeneralOptionsHandler: true, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }}
}

// doors count connections: so many in all, an eighth for one address that is no trusted peer. What is too many is
// closed at once.
type doors struct {
	s        *server
	most     int
	accepted atomic.Int64

	mu   sync.Mutex
	open int
	from map[netip.Addr]int
}

func newDoors(s *server) *doors {
	return &doors{s: s, most: int(s.cfg.maxConnections), from: map[netip.Addr]int{}}
}

// enter takes a place for a connection from addr (zero: not counted by address), if there is one.
func (d *doors) enter(addr netip.Addr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open >= d.most || d.from[addr] >= max(1, d.most/8) {
		return false
	}
	d.open++
	if addr.IsValid() {
		d.from[addr]++
	}
	return true
}

func (d *doors) leave(addr netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
	if d.from[addr]--; d.from[addr] <= 0 {
		delete(d.from, addr)
	}
}

// at puts the doors before a listener.
func (d *doors) at(l net.Listener) net.Listener { return &door{l, d} }

type door struct {
	net.Listener
	*doors
}

func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if waking, ok := d.Listener.(wakeable); ok && errors.Is(err, os.ErrDeadlineExceeded) {
			waking.SetDeadline(time.Time{}) // the watchdog asked whether anybody is at the door
			d.accepted.Add(1)
			continue
		}
		if err != nil {
			return nil, err
		}
		d.accepted.Add(1)
		ap, _ := netip.ParseAddrPort(c.RemoteAddr().String())
		addr := ap.Addr().Unmap()
		if containsAddr(d.s.cfg.trustedProxies, addr) {
			addr = netip.Addr{}
		}
		if !d.enter(addr) {
			d.s.metrics.refusedConnections.Add(1)
			c.Close()
			continue
		}
		if b, ok := c.(interface{ SetWriteBuffer(int) error }); ok {
			b.SetWriteBuffer(writeBuffer)
		}
		return &conn{Conn: c, limit: d.s.cfg.transferTimeout, inBusy: d.s.uploads.busy, outBusy: d.s.downloads.busy,
			closed: func() { d.leave(addr) }}, nil
	}
}

// firstURL is what a person on this machine may type.
func firstURL(cfg *config, l net.Listener) string {
	base := "http://" + l.Addr().String()
	if l.Addr().Network() == "unix" {
		base = "--unix-socket " + l.Addr().String() + " http://localhost"
	}
	if cfg.publicURL != "" {
		base = cfg.publicURL
	}
	return base + cfg.prefix
}

// listen opens the sockets of the configuration.
func listen(addresses []string) (list []net.Listener, err error) {
	for _, a := range addresses {
		path, unix := strings.CutPrefix(a, "unix:")
		var l net.Listener
		if unix {
			// A socket file that nobody answers on is left over from a crash.
			if c, err := net.Dial("unix", path); err == nil {
				c.Close()
				return nil, fmt.Errorf("listening: another program answers on %s", path)
			} else if info, statErr := os.Lstat(path); statErr == nil && info.Mode()&os.ModeSocket != 0 {
				os.Remove(path)
			}
			if l, err = net.Listen("unix", path); err == nil {
				err = os.Chmod(path, 0o660) // for the proxy's group
			}
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

// activated takes over LISTEN_FDS sockets from descriptor 3 on, if they are meant for this process.
func activated() (list []net.Listener, err error) {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	for fd := 3; fd < 3+n; fd++ {
		f := os.NewFile(uintptr(fd), "LISTEN_FD_"+strconv.Itoa(fd))
		l, err := net.FileListener(f) // a duplicate, closed on exec
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("taking over socket %d: %w", fd, err)
		}
		list = append(list, l)
	}
	return list, nil
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

// wakeable are the listeners of TCP and Unix sockets.
type wakeable interface{ SetDeadline(time.Time) error }

// watchdogLoop pings systemd at half its patience, as long as the writer moves and the doors accept.
func (s *server) watchdogLoop(ctx context.Context, d *doors, l net.Listener) {
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
		}
		before := d.accepted.Load()
		// Our unit has no network in which to dial ourselves: a deadline wakes who accepts, and that counts as somebody.
		if waking, ok := l.(wakeable); ok {
			waking.SetDeadline(time.Now())
		}
		for range 100 { // a second for that
			if d.accepted.Load() != before {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if s.store.healthy() && d.accepted.Load() != before {
			notifySystemd("WATCHDOG=1")
		}
	}
}

// sweepLoop removes what is due, each SWEEP and within a second when there is garbage, and waits twice as long as
// each step took, so that the writer belongs to others for two thirds of the time. A clock that jumps must not delete
// everything: when it is far from the latest content at the start, or moves by a day more or less than the time that
// passes, the sweep waits.
func (s *server) sweepLoop(ctx context.Context) {
	wall, began := s.now().Unix(), time.Now()
	st, err := s.store.stats()
	wrong := err == nil && st.lastChange != 0 &&
		(wall < st.lastChange-86400 || wall > st.lastChange+int64(s.cfg.maxExpiry/time.Second))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for soon, more := true, false; ; {
		kick := s.store.kick
		if soon {
			kick = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-kick:
			timer.Reset(min(kickedAfter, s.cfg.sweep))
			soon = true
			continue
		case <-timer.C:
		}
		now := s.now().Unix()
		jump := now - wall - int64(time.Since(began)/time.Second)
		wall, began = now, time.Now()
		if wrong || jump < -86400 || jump > 86400 {
			s.log.Warn("the clock looks wrong: nothing is removed for a while", "wait", clockPause,
				"now", time.Unix(now, 0).UTC())
			wrong, soon = false, true
			timer.Reset(clockPause)
			continue
		}
		var pastes, shorts int
		if pastes, shorts, more, err = s.store.sweep(now); err != nil && ctx.Err() == nil {
			s.log.Warn("the sweep goes on later", "error", err)
		}
		s.metrics.pastes.expired.Add(uint64(pastes))
		s.metrics.shorts.expired.Add(uint64(shorts))
		if soon = more; more {
			timer.Reset(max(5*time.Millisecond, 2*time.Since(began)))
		} else {
			timer.Reset(s.cfg.sweep)
		}
	}
}
