package main

// main.go is where a process begins and ends: which command, the listeners, what systemd is told, the sweep, the shutdown.
//
// Start: config, store, server, listeners, READY. End: health says no, the doors are closed, whoever came through is served (20 s), the
// writer's queue is written, exit 0. A second signal kills. Nothing waits for a peer on the accepting goroutine, and the stop
// waits for one step of the sweep at most. (sd_notify(3), sd_listen_fds(3), sd-daemon(3))

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

// run does one command and returns the exit code. Called fpaste, or with a command that is not the operator's, it is the client.
func run(args, environ []string, stdout, stderr io.Writer) int {
	name, command := filepath.Base(args[0]), "serve"
	args = args[1:]
	if name == "fpaste" || len(args) > 0 && isClientCommand(args) {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		context.AfterFunc(ctx, stop) // a second signal kills
		log.SetOutput(io.Discard)    // net/http's own remarks on what a server sends
		return runClient(ctx, args, stdio{os.Stdin, os.Stdout, os.Stderr, os.LookupEnv})
	}
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	fail := func(code int, err error) int {
		fmt.Fprintf(stderr, "flaskpaste: %v\n", err)
		return code
	}
	switch command {
	case "version", "--version":
		fmt.Fprintln(stdout, "flaskpaste "+version)
		return 0
	case "help", "--help", "-h":
		fmt.Fprint(stdout, mainHelp)
		for _, c := range clientCommands() {
			fmt.Fprintf(stdout, "  %-13s %s\n", c.name, c.brief)
		}
		return 0
	case "serve", "check", "backup", "healthcheck", "pki":
	default:
		return fail(exitUsage, fmt.Errorf("unknown command %q: see flaskpaste help", command))
	}
	if slices.Contains(args, "--help") || slices.Contains(args, "-h") {
		switch command {
		case "serve":
			fmt.Fprint(stdout, configHelp())
		case "pki":
			fmt.Fprint(stdout, pkiHelp(strings.Join(args[:min(1, len(args))], "")))
		default:
			fmt.Fprint(stdout, mainHelp)
		}
		return 0
	}
	if want := map[string]int{"backup": 1}[command]; (len(args) != want || want == 1 && args[0] == "") && command != "pki" {
		return fail(exitUsage, fmt.Errorf("%s takes %d arguments: see flaskpaste help", command, want))
	}
	cfg, err := loadConfig(environ)
	if err != nil {
		return fail(exitConfig, err)
	}
	switch command {
	case "pki":
		if err := pkiCommand(cfg, args, stdout, stderr); errors.Is(err, errPKIUsage) {
			return fail(exitUsage, err)
		} else if err != nil {
			return fail(exitFailed, err)
		}
		return 0
	case "backup":
		if err := backup(cfg, args[0], stdout); err != nil {
			return fail(exitFailed, err)
		}
		return 0
	case "check":
		return check(cfg, stdout)
	case "healthcheck":
		if err := healthcheck(cfg); err != nil {
			return fail(exitFailed, err)
		}
		return 0
	}
	return serve(cfg, stderr)
}

// isClientCommand tells the client's commands from the operator's.
func isClientCommand(args []string) bool {
	return args[0] != "help" && args[0] != "version" && args[0] != "pki" &&
		slices.ContainsFunc(clientCommands(), func(c cliCommand) bool { return c.name == args[0] })
}

const mainHelp = `usage: flaskpaste [command]

  serve         start the server (the default); serve --help lists its settings
  check         look for what is wrong: settings, database, permissions, space; exit 1 on findings
  backup FILE   copy the database while it is in use
  pki ...       client certificates: init, issue, list, revoke, admin; see pki --help
  healthcheck   exit 0 if the server of these settings is healthy
  version       print the version
  help          print this

examples: FLASKPASTE_LISTEN=127.0.0.1:8080 flaskpaste serve
          flaskpaste backup /var/backups/paste.db
          flaskpaste check; flaskpaste healthcheck && echo well

The same program is the client. As fpaste, or as flaskpaste with one of these commands; fpaste COMMAND --help tells more:

`

// ---- operator's commands ----

// openExisting opens the database of a server that may be running.
func openExisting(cfg *config, mode openMode) (*store, error) {
	st, err := openStore(storeOptions{path: cfg.database, mode: mode, full: cfg.sync == "full",
		log: slog.New(slog.DiscardHandler), fatal: func(error) {}})
	if errors.Is(err, errNoStore) {
		err = fmt.Errorf("no database at %s: set FLASKPASTE_DATABASE", cfg.database)
	}
	return st, err
}

// backup copies the database to path, or to w when path is "-".
func backup(cfg *config, path string, w io.Writer) error {
	st, err := openExisting(cfg, openReading)
	if err != nil {
		return err
	}
	if path != "-" {
		return errors.Join(st.backup(path), st.close())
	}
	copied := fmt.Sprintf("%s.copy-%d", st.path, os.Getpid())
	defer os.Remove(copied)
	if err := errors.Join(st.backup(copied), st.close()); err != nil {
		return err
	}
	f, err := os.Open(copied)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// check prints what it finds in plain words.
func check(cfg *config, stdout io.Writer) int {
	found := cfg.warnings
	if len(cfg.trustedProxies) > 0 && cfg.proxySecret == "" {
		found = append(found, "FLASKPASTE_PROXY_SECRET is not set: certificates from proxies over TCP are ignored")
	}
	for _, path := range []string{cfg.database, cfg.database + "-wal", cfg.database + "-shm"} {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
			found = append(found, fmt.Sprintf("%s can be read by others (mode %04o): chmod 600", path, info.Mode().Perm()))
		}
	}
	if free := freeSpace(filepath.Dir(cfg.database)); free > 0 && free < cfg.minFree {
		found = append(found, fmt.Sprintf("only %d MiB of disk are free, FLASKPASTE_MIN_FREE keeps %d MiB: no paste can be stored", free>>20, cfg.minFree>>20))
	}
	st, err := openExisting(cfg, openReading)
	if err == nil {
		lines, integrityErr := st.integrity()
		for _, line := range lines {
			if *line != "ok" {
				found = append(found, *line)
			}
		}
		found = append(found, checkCerts(cfg, st, time.Now())...)
		err = errors.Join(integrityErr, st.close())
	}
	if err != nil {
		found = append(found, err.Error())
	}
	for _, line := range found {
		fmt.Fprintln(stdout, line)
	}
	if len(found) > 0 {
		return exitFailed
	}
	fmt.Fprintln(stdout, "all is well")
	return 0
}

// healthcheck asks the server that listens as configured.
func healthcheck(cfg *config) error {
	address := cfg.listen[0]
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		network := "tcp"
		path, unix := strings.CutPrefix(address, "unix:")
		if unix {
			network, address = "unix", path
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	c := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DialContext: dial}}
	res, err := c.Get("http://localhost" + cfg.prefix + "/health")
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		return fmt.Errorf("the server is unhealthy: status %d", res.StatusCode)
	}
	return nil
}

// ---- serve ----

func newLog(cfg *config, w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: cfg.logLevel}
	if cfg.log == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

func serve(cfg *config, stderr io.Writer) int {
	privateUmask()
	log := newLog(cfg, stderr)
	fail := func(err error) int {
		fmt.Fprintf(stderr, "flaskpaste: %v\n", err)
		if errors.Is(err, errNoPassword) || errors.Is(err, errCAPassword) {
			return exitConfig
		}
		return exitFailed
	}
	notifySystemd("STATUS=opening the database")
	var srv *server
	st, err := openStore(storeOptions{path: cfg.database, full: cfg.sync == "full", checkpoint: cfg.checkpoint == "on",
		cacheSize: cfg.cache, quota: cfg.maxStorage, reserve: cfg.minFree, maxLife: int64(cfg.maxExpiry / time.Second),
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
		return fail(err)
	}
	if srv, err = newServer(cfg, st, log, time.Now); err != nil {
		return fail(errors.Join(err, st.close()))
	}
	for _, w := range cfg.warnings {
		log.Warn(w)
	}
	listeners, err := listen(cfg)
	if err != nil {
		return fail(errors.Join(err, st.close()))
	}
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, os.Interrupt)
	signal.Ignore(syscall.SIGHUP) // there is nothing to read again
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
	if cfg.log == "text" {
		fmt.Fprintf(stderr, "try: echo hello | curl -T - %s/\n", firstURL(cfg, listeners[0]))
	}
	notifySystemd("READY=1\nSTATUS=serving")
	code := 0
	select {
	case sig := <-ends:
		log.Info("stopping", "signal", sig.String())
	case err := <-failed:
		code = fail(err)
	}
	signal.Stop(ends) // a second one kills
	notifySystemd("STOPPING=1\nSTATUS=finishing requests")
	srv.stopping.Store(true)
	stop()
	patience, cancel := context.WithTimeout(context.Background(), shutdownFor)
	defer cancel()
	// Once Shutdown has begun, net/http drops what it reads from connections that it had accepted before. So the doors are closed
	// first, whoever came through has a moment to send, and only then it is called: a restart through systemd's socket loses nobody.
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
	if err := st.close(); err != nil {
		return fail(err)
	}
	return code
}

// newHTTPServer sets the limits of net/http itself; those of bodies and answers are in headers.go.
func newHTTPServer(s *server) *http.Server {
	return &http.Server{Handler: s, ReadHeaderTimeout: headerTime, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: headerLimit,
		DisableGeneralOptionsHandler: true, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }}
}

// doors count connections: so many in all, an eighth for one address that is no trusted peer. What is too many is closed at once.
type doors struct {
	s          *server
	most, each int

	accepted atomic.Int64

	mu   sync.Mutex
	open int
	from map[netip.Addr]int
}

func newDoors(s *server) *doors {
	most := int(s.cfg.maxConnections)
	return &doors{s: s, most: most, each: max(1, most/8), from: map[netip.Addr]int{}}
}

// enter returns what to call when the connection from addr (zero: a Unix socket) ends, or false.
func (d *doors) enter(addr netip.Addr) (leave func(), ok bool) {
	counted := addr.IsValid() && !containsAddr(d.s.cfg.trustedProxies, addr)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open >= d.most || counted && d.from[addr] >= d.each {
		return nil, false
	}
	d.open++
	if counted {
		d.from[addr]++
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.open--
		if d.from[addr]--; d.from[addr] <= 0 {
			delete(d.from, addr)
		}
	}, true
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
		if err != nil {
			return nil, err
		}
		d.accepted.Add(1)
		ap, _ := netip.ParseAddrPort(c.RemoteAddr().String())
		leave, ok := d.enter(ap.Addr().Unmap())
		if !ok {
			d.s.metrics.refusedConnections.Add(1)
			c.Close()
			continue
		}
		return &conn{Conn: c, limit: d.s.cfg.transferTimeout, inBusy: d.s.uploads.busy, outBusy: d.s.downloads.busy, closed: leave}, nil
	}
}

// firstURL is what a person on this machine may type.
func firstURL(cfg *config, l net.Listener) string {
	if cfg.publicURL != "" {
		return cfg.publicURL + cfg.prefix
	}
	if l.Addr().Network() == "unix" {
		return "--unix-socket " + l.Addr().String() + " http://localhost" + cfg.prefix
	}
	host := l.Addr().String()
	if ap, err := netip.ParseAddrPort(host); err == nil && ap.Addr().IsUnspecified() {
		host = net.JoinHostPort("localhost", strconv.Itoa(int(ap.Port())))
	}
	return "http://" + host + cfg.prefix
}

// listen returns the sockets that systemd passed on, or opens those of the configuration.
func listen(cfg *config) (list []net.Listener, err error) {
	if list, err = activated(); err != nil || len(list) > 0 {
		return list, err
	}
	for _, a := range cfg.listen {
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
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 1 {
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
			before := d.accepted.Load()
			if c, err := net.DialTimeout(l.Addr().Network(), l.Addr().String(), time.Second); err == nil {
				c.Close()
			}
			for range 100 { // a second: it is the kernel that took the connection, and we may not have yet
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
}

// sweepLoop removes what is due, each SWEEP and within a second when there is garbage, and waits twice as long as each step took, so
// that the writer belongs to others for two thirds of the time. A clock that jumps must not delete everything: when it is far
// from the latest content at the start, or moves by a day more or less than the time that passes, the sweep waits.
func (s *server) sweepLoop(ctx context.Context) {
	wall, began := s.now().Unix(), time.Now()
	st, err := s.store.stats()
	wrong := err == nil && st.lastChange != 0 &&
		(wall < st.lastChange-86400 || wall > st.lastChange+int64(s.cfg.maxExpiry/time.Second))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for more := false; ; {
		kick := s.store.kick
		if more || wrong {
			kick = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-kick:
			timer.Reset(min(kickedAfter, s.cfg.sweep))
			more = true // until then no other kick counts
			continue
		case <-timer.C:
		}
		now := s.now().Unix()
		jump := now - wall - int64(time.Since(began)/time.Second)
		wall, began = now, time.Now()
		if wrong || jump < -86400 || jump > 86400 {
			s.log.Warn("the clock looks wrong: nothing is removed for a while", "wait", clockPause, "now", time.Unix(now, 0).UTC())
			wrong = false
			timer.Reset(clockPause)
			continue
		}
		var pastes, shorts int
		if pastes, shorts, more, err = s.store.sweep(now); err != nil && ctx.Err() == nil {
			s.log.Warn("the sweep goes on later", "error", err)
		}
		s.metrics.pastes.expired.Add(uint64(pastes))
		s.metrics.shorts.expired.Add(uint64(shorts))
		if more {
			timer.Reset(max(5*time.Millisecond, 2*time.Since(began)))
		} else {
			timer.Reset(s.cfg.sweep)
		}
	}
}
