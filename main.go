package main

// main.go is where a process begins and ends: which command, the listeners, what systemd is told, the sweep, the shutdown.
//
// Start: config, store, server, listeners, READY. End: health says no, requests in flight finish (20 s), touches and the
// writer's queue are written, the write-ahead log is emptied, exit 0. A second signal kills. (sd_notify(3), sd_listen_fds(3))

import (
	"cmp"
	"context"
	"crypto/tls"
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
	acceptedFor = 5 * time.Second  // of that, what a connection may take to send its request
	clockPause  = 10 * time.Minute // how long the sweep waits when the clock looks wrong
)

func main() { os.Exit(run(os.Args, os.Environ(), os.Stdout, os.Stderr)) }

// run does one command and returns the exit code. Called fpaste, or with a command that is not the operator's, it is the client.
func run(args, environ []string, stdout, stderr io.Writer) int {
	name, command := strings.TrimSuffix(filepath.Base(args[0]), ".exe"), "serve"
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
			fmt.Fprint(stdout, pkiHelp)
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
		if err := backup(cfg, args[0]); err != nil {
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

// isClientCommand tells the client's commands from the operator's: pki is the operator's where it works on the database, and
// flaskpaste pki list means that of this machine.
func isClientCommand(args []string) bool {
	if args[0] == "pki" {
		return len(args) > 1 && (args[1] == "status" || args[1] == "ca")
	}
	return args[0] != "help" && args[0] != "version" && slices.ContainsFunc(clientCommands(), func(c cliCommand) bool { return c.name == args[0] })
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
func openExisting(cfg *config) (*store, error) {
	st, err := openStore(storeOptions{path: cfg.database, full: cfg.sync == "full", checkpoint: cfg.checkpoint == "on",
		log: slog.New(slog.DiscardHandler), fatal: func(error) {}, now: time.Now})
	if errors.Is(err, errNoStore) {
		err = fmt.Errorf("no database at %s: set FLASKPASTE_DATABASE", cfg.database)
	}
	return st, err
}

func backup(cfg *config, path string) error {
	st, err := openExisting(cfg)
	if err != nil {
		return err
	}
	return errors.Join(st.backup(path), st.close())
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
	if free := freeSpace(filepath.Dir(cfg.database)); exists(filepath.Dir(cfg.database)) && free < cfg.minFree {
		found = append(found, fmt.Sprintf("only %d MiB of disk are free, FLASKPASTE_MIN_FREE keeps %d MiB: no paste can be stored", free>>20, cfg.minFree>>20))
	}
	if cfg.tlsCert != "" {
		if pair, err := tls.LoadX509KeyPair(cfg.tlsCert, cfg.tlsKey); err != nil {
			found = append(found, "FLASKPASTE_TLS_CERT and FLASKPASTE_TLS_KEY: "+err.Error())
		} else if time.Until(pair.Leaf.NotAfter) < 14*24*time.Hour {
			found = append(found, "the certificate in "+cfg.tlsCert+" ends on "+pair.Leaf.NotAfter.Format(time.DateOnly))
		}
	}
	if _, err := readRevocations(cfg.database + ".revoked"); err != nil { // it would stop the next start
		found = append(found, err.Error())
	}
	st, err := openExisting(cfg)
	if err == nil {
		bad, integrityErr := st.integrity()
		notes, notesErr := st.notes()
		found = append(append(found, bad...), notes...)
		if text := checkCA(cfg, st, time.Now()); text != "" {
			found = append(found, text)
		}
		err = errors.Join(integrityErr, notesErr, st.close())
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
	c := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	scheme := "http://"
	if cfg.tlsCert != "" && !strings.HasPrefix(address, "unix:") {
		scheme = "https://" // the certificate is for the outside name, and nothing secret is asked
	}
	res, err := c.Get(scheme + "localhost" + cfg.prefix + "/health")
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
		return exitFailed
	}
	notifySystemd("STATUS=opening the database")
	var srv *server
	st, err := openStore(storeOptions{path: cfg.database, serving: true, full: cfg.sync == "full", checkpoint: cfg.checkpoint == "on",
		cacheSize: cfg.cache, quota: cfg.maxStorage, reserve: cfg.minFree, maxLife: int64(cfg.maxExpiry / time.Second), dedupWindow: int64(cfg.dedupWindow / time.Second), log: log, now: time.Now,
		fatal: func(err error) {
			log.Error("the disk failed: ending, so that the restart recovers what was acknowledged", "error", err)
			os.Exit(exitStorage)
		}})
	if err != nil {
		return fail(explainAccess(err, cfg.database))
	}
	if srv, err = newServer(cfg, st, log, time.Now); err != nil {
		return fail(errors.Join(err, st.close()))
	}
	var ours *certFiles
	if cfg.tlsCert != "" {
		ours = &certFiles{cert: cfg.tlsCert, key: cfg.tlsKey, log: log, now: time.Now}
		srv.ownTLS = ours
		if err := ours.load(); err != nil {
			return fail(errors.Join(err, st.close()))
		}
	}
	for _, w := range cfg.warnings {
		log.Warn(w)
	}
	listeners, err := listen(cfg)
	if err != nil {
		return fail(errors.Join(err, st.close()))
	}
	// A signal that finds its channel full is dropped: none that ends the server may wait behind a reload.
	ends, hangups := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, os.Interrupt)
	signal.Notify(hangups, syscall.SIGHUP)
	hs := newHTTPServer(srv)
	if ours != nil {
		hs.TLSConfig = ours.config()
	}
	failed := make(chan error, len(listeners))
	var doors sync.WaitGroup
	for _, l := range listeners {
		log.Info("listening", "address", l.Addr().String())
		doors.Go(func() {
			if ours != nil && l.Addr().Network() != "unix" { // hs.TLSConfig says nothing: net/http sets it
				failed <- hs.ServeTLS(l, "", "")
			} else {
				failed <- hs.Serve(l)
			}
		})
	}
	ctx, stop := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { srv.sweepLoop(ctx) })
	loops.Go(func() { srv.touchLoop(ctx) })
	loops.Go(func() { srv.watchdogLoop(ctx) })
	if cfg.log == "text" {
		fmt.Fprintf(stderr, "try: echo hello | curl -T - %s/\n", firstURL(cfg, listeners[0]))
	}
	notifySystemd("READY=1\nSTATUS=serving")
	code := 0
	for running := true; running; {
		select {
		case sig := <-ends:
			log.Info("stopping", "signal", sig.String())
			running = false
		case <-hangups:
			// The time is what systemd's Type=notify-reload (253 and newer) tells this reload from an earlier one by.
			notifySystemd(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d\nSTATUS=reading the TLS files", monotonicMicros()))
			if ours != nil {
				ours.reload()
			}
			notifySystemd("READY=1\nSTATUS=serving")
		case err := <-failed:
			code, running = fail(err), false
		}
	}
	signal.Stop(ends) // a second one kills
	notifySystemd("STOPPING=1\nSTATUS=finishing requests")
	srv.stopping.Store(true)
	patience, cancel := context.WithTimeout(context.Background(), shutdownFor)
	defer cancel()
	// Once Shutdown has begun, net/http drops what it reads from connections that it had accepted before. So the doors are closed
	// first, whoever came through is served, and only then it is called: a restart through systemd's socket loses nobody.
	for _, l := range listeners {
		l.Close()
	}
	doors.Wait()
	hs.SetKeepAlivesEnabled(false)
	for range int(acceptedFor / (5 * time.Millisecond)) {
		if srv.open.count() == 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := hs.Shutdown(patience); err != nil {
		log.Warn("requests were cut", "error", err)
		hs.Close()
	}
	stop()
	loops.Wait()
	if err := st.close(); err != nil {
		return fail(err)
	}
	return code
}

// newHTTPServer sets the limits of net/http itself; those of bodies and answers are in headers.go. Over HTTP/2 a connection costs
// as many handlers as it may have streams, whether or not they are reset at once, and a buffer of the largest frame: the defaults,
// 250 and 1 MiB, let 64 connections take 600 MiB.
func newHTTPServer(s *server) *http.Server {
	s.open.most = max(16, fileLimit()-64-4*cores()) // beside them: the database's connections, the log, this program
	return &http.Server{Handler: s, ReadHeaderTimeout: pieceTime, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: headerLimit, ConnState: s.open.changed,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 32, MaxReadFrameSize: 16 << 10}, DisableGeneralOptionsHandler: true,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
}

// connections keeps the number of open connections below the descriptor limit. Whoever opens as many as he can, with headers
// that never end or idle keep-alives, must not lock out the others and the health check: past most, the eighth that has waited
// longest without a request is closed. A request that is being served is left alone: bodies and answers have limits of their own.
type connections struct {
	most int
	turn atomic.Int64 // counts up: the order in which connections began to wait
	all  sync.Map     // net.Conn -> *atomic.Int64: the turn since which it waits, 0 while a request is served

	mu   sync.Mutex // guards open
	open int
}

func (cs *connections) count() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.open
}

// changed is http.Server.ConnState.
func (cs *connections) changed(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		since := new(atomic.Int64)
		since.Store(cs.turn.Add(1))
		cs.mu.Lock()
		defer cs.mu.Unlock()
		if cs.open >= cs.most {
			cs.thin()
		}
		if cs.open >= cs.most { // every one of them is served
			c.Close()
			return
		}
		cs.all.Store(c, since)
		cs.open++
	case http.StateActive, http.StateIdle:
		if since, ok := cs.all.Load(c); ok {
			var turn int64
			if state == http.StateIdle {
				turn = cs.turn.Add(1)
			}
			since.(*atomic.Int64).Store(turn)
		}
	default:
		if _, ok := cs.all.LoadAndDelete(c); ok {
			cs.mu.Lock()
			cs.open--
			cs.mu.Unlock()
		}
	}
}

// thin closes those that wait longest; mu is held.
func (cs *connections) thin() {
	type waiting struct {
		c     net.Conn
		since int64
	}
	var list []waiting
	cs.all.Range(func(c, since any) bool {
		if turn := since.(*atomic.Int64).Load(); turn != 0 {
			list = append(list, waiting{c.(net.Conn), turn})
		}
		return true
	})
	slices.SortFunc(list, func(a, b waiting) int { return cmp.Compare(a.since, b.since) })
	for _, w := range list[:min(len(list), max(1, cs.most/8))] {
		if _, ok := cs.all.LoadAndDelete(w.c); ok {
			cs.open--
			w.c.Close()
		}
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
	if cfg.tlsCert != "" {
		return "https://" + host + cfg.prefix
	}
	return "http://" + host + cfg.prefix
}

// certFiles is the certificate of our own TLS. It is read again when its files change and on SIGHUP; a pair that does not fit
// (one file is new, the other not yet) is not taken. Connections that stand keep theirs.
type certFiles struct {
	cert, key string
	log       *slog.Logger
	now       func() time.Time

	mu     sync.Mutex
	pair   *tls.Certificate
	looked time.Time // when the files were last looked at
	state  string    // what they looked like
	failed bool      // and could not be taken: ever again, for what changes last may be who may read them
}

// config asks every client for a certificate and takes none for an answer too. Nobody's chain is checked: the handshake proves
// that the client has the key, and the table says what the certificate is worth (judge). Versions and suites are Go's.
func (f *certFiles) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if now := f.now(); now.Sub(f.looked) >= time.Second {
				f.looked = now
				if f.failed || f.state != f.look() {
					f.reloadLocked()
				}
			}
			return f.pair, nil
		}}
}

// ends returns until when the certificate in use is valid.
func (f *certFiles) ends() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pair.Leaf.NotAfter
}

func (f *certFiles) look() (state string) {
	for _, path := range []string{f.cert, f.key} {
		if info, err := os.Stat(path); err == nil {
			state += fmt.Sprint(info.Size(), info.ModTime().UnixNano(), " ")
		}
	}
	return state
}

// load reads the files for the first time.
func (f *certFiles) load() error {
	f.state = f.look()
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return fmt.Errorf("FLASKPASTE_TLS_CERT and FLASKPASTE_TLS_KEY: %w", err)
	}
	f.pair = &pair
	return nil
}

func (f *certFiles) reload() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = false // and say so again
	f.reloadLocked()
}

func (f *certFiles) reloadLocked() {
	failed, state := f.failed, f.state
	err := f.load()
	if f.failed = err != nil; failed && f.failed && f.state == state { // was said
		return
	}
	if err != nil {
		f.log.Warn("the TLS certificate stays as it was", "error", err)
		return
	}
	f.log.Info("the TLS certificate was read again", "ends", f.pair.Leaf.NotAfter)
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
				err = os.Chmod(path, os.FileMode(cfg.socketMode))
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

// watchdogLoop pings systemd at half its patience, as long as the writer answers.
func (s *server) watchdogLoop(ctx context.Context) {
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
			if s.healthy() {
				notifySystemd("WATCHDOG=1")
			}
		}
	}
}

// touchLoop writes the renewals of the last second.
func (s *server) touchLoop(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.store.flushTouches(); err != nil {
				s.log.Warn("renewals not written", "error", err)
			}
		}
	}
}

// sweepLoop removes what has expired, and garbage as soon as there is some. A clock that jumps must not delete everything: when
// it is far from the newest paste at the start, or moves by a day more or less than the time that passes, the sweep waits.
func (s *server) sweepLoop(ctx context.Context) {
	wall, began := s.now().Unix(), time.Now()
	newest, err := s.store.newest()
	wrong := err == nil && newest != 0 && (wall < newest-86400 || wall > newest+int64(s.cfg.maxExpiry/time.Second))
	sweep := time.NewTimer(0)
	defer sweep.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-s.store.kick:
			err = s.store.collect(thirds())
		case <-sweep.C:
			now := s.now().Unix()
			jump := now - wall - int64(time.Since(began)/time.Second)
			wall, began = now, time.Now()
			if wrong || jump < -86400 || jump > 86400 {
				s.log.Warn("the clock looks wrong: nothing is removed for a while", "wait", clockPause, "now", time.Unix(now, 0).UTC())
				wrong = false
				sweep.Reset(clockPause)
				continue
			}
			var pastes, shorts int
			if pastes, shorts, err = s.store.sweep(now); pastes+shorts > 0 {
				s.log.Info("swept", "pastes", pastes, "short_urls", shorts)
			}
			s.metrics.pastes.expired.Add(uint64(pastes))
			s.metrics.shorts.expired.Add(uint64(shorts))
			sweep.Reset(s.cfg.sweep)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("the sweep goes on later", "error", err)
		}
	}
}
