package main

// operator.go is the operator's command line on the server's machine: the table of commands, their settings, and what
// they do beside serving: check, backup, healthcheck, the CA, and who is trusted or an admin.
//
// They work beside a running server, through SQLite's own locking, on an existing database only (init alone makes
// one); the server looks certificates up on each request, so what is done here holds from the next one. Nothing of it
// can be reached over the network. check writes nothing. stdout is data, stderr is for people; a key goes to a new
// 0600 file, or to standard output where that is asked for.

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// command is one of the operator's: how many words it takes, how they are called and, as its usage names them, the
// options.
type command struct {
	name        string
	words       int
	usage, help string
	run         func(*operator, []string) error
}

func commands() []command {
	return []command{
		{"serve", 0, "", "start the server (the default)", (*operator).serve},
		{"check", 0, "", "look for what is wrong, and say what to do: settings, database, permissions, space,\n" +
			"certificates; exit 1 on findings; changes nothing", (*operator).check},
		{"backup", 1, "FILE|-", "copy the database while it is in use, to a new file or (-) to\n" +
			"standard output; without pastes that burn", (*operator).backup},
		{"healthcheck", 0, "", "exit 0 if the server of these settings is healthy", (*operator).healthcheck},
		{"pki init", 0, "", "make the CA, and the database if there is none; FLASKPASTE_PKI_CA_PASSWORD seals its key",
			(*operator).init},
		{"pki issue", 1, "NAME [--admin] [--days N] [-o FILE|-]",
			"make key and certificate, vouched for: one PEM file for curl --cert (NAME.pem)", (*operator).issue},
		{"pki list", 0, "", "all certificates, the newest first", (*operator).list},
		{"pki revoke", 1, "SERIAL [--reason NAME]",
			"revoke a certificate and all its renewals; reasons are RFC 5280's:\n" + revocationReasons,
			(*operator).revoke},
		{"pki admin", 2, "SERIAL on|off", "give or take an admin's rights, for all renewals too", (*operator).admin},
	}
}

const certDaysUnset = math.MinInt // no --days: the setting's

// operator is one run of a command.
type operator struct {
	environ     []string
	out, stderr io.Writer
	now         time.Time
	serving     bool

	cfg *config
	log *slog.Logger
	st  *store // of backup and the pki commands

	asAdmin      bool
	days         int
	reason, file string

	found int // by check
}

// operate does one command, serve if none is named.
func (o *operator) operate(args []string) error {
	options := flag.NewFlagSet("", flag.ContinueOnError)
	options.SetOutput(io.Discard)
	env, askVersion := options.String("env", "", ""), options.Bool("version", false, "")
	options.BoolVar(&o.asAdmin, "admin", false, "")
	options.IntVar(&o.days, "days", certDaysUnset, "")
	options.StringVar(&o.reason, "reason", "unspecified", "")
	options.StringVar(&o.file, "o", "", "")
	var words []string
	err := options.Parse(args)
	for err == nil && options.NArg() > 0 { // options stand before and behind the words
		words = append(words, options.Arg(0))
		err = options.Parse(options.Args()[1:])
	}
	if len(words) > 0 && words[0] == "help" {
		words, err = words[1:], flag.ErrHelp
	}
	n, group := min(1, len(words)), ""
	if n == 1 && words[0] == "pki" {
		n, group = min(2, len(words)), "pki "
	}
	name, words := strings.Join(words[:n], " "), words[n:]
	switch {
	case *askVersion || name == "version":
		fmt.Fprintln(o.out, "flaskpaste "+version)
		return nil
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(o.out, help(name))
		return nil
	}
	list := commands()
	i := slices.IndexFunc(list, func(c command) bool { return c.name == name || n == 0 && c.name == "serve" })
	if i < 0 {
		return exitError{fmt.Errorf("unknown command %q: see flaskpaste %s--help", name, group), exitUsage}
	}
	c := list[i]
	o.serving = c.name == "serve"
	options.Visit(func(f *flag.Flag) {
		if f.Name != "env" && !strings.Contains(c.usage, "-"+f.Name) {
			err = fmt.Errorf("%s does not take -%s", c.name, f.Name)
		}
	})
	switch {
	case o.serving && (err != nil || len(words) > 0):
		err = errors.New("settings come from the environment, as in FLASKPASTE_LISTEN=127.0.0.1:8080 flaskpaste serve")
	case err == nil && (len(words) != c.words || c.words > 0 && words[0] == ""):
		err = fmt.Errorf("usage: flaskpaste %s %s", c.name, c.usage)
	}
	if err != nil {
		return exitError{fmt.Errorf("%w: see flaskpaste %s --help", err, c.name), exitUsage}
	}
	var lines []string
	if *env != "" {
		lines, err = readEnvFile(*env)
	}
	if err == nil {
		o.environ = slices.Concat(o.environ, lines)
		o.cfg, err = loadConfig(o.environ)
	}
	if err != nil {
		return exitError{err, exitConfig}
	}
	level := o.cfg.logLevel
	if !o.serving {
		level = min(level, slog.LevelInfo) // what an operator does is always told
	}
	o.log = newLog(o.cfg.log == "json", level, o.stderr)
	if o.serving || group != "" {
		for _, w := range o.cfg.warnings {
			o.log.Warn(w)
		}
	}
	mode := openBeside
	switch c.name {
	case "serve", "check", "healthcheck":
		return c.run(o, words)
	case "backup":
		mode = openReading
	case "pki init":
		if o.cfg.caPassword == "" { // before a database is made
			return errNoPassword
		}
		if fileSize(o.cfg.database) == 0 {
			mode = openServing
		}
	}
	if o.st, err = o.open(mode); err != nil {
		return err
	}
	return errors.Join(c.run(o, words), o.st.close())
}

// help is that of the commands whose name begins with name; of all, the client's too, if there is none.
func help(name string) string {
	if name == "serve" {
		return configHelp()
	}
	list := slices.DeleteFunc(commands(), func(c command) bool { return !strings.HasPrefix(c.name+" ", name+" ") })
	text, client := "usage:\n", ""
	if len(list) == 0 {
		list = commands()
		client = "\nThe same program is the client, as fpaste, or as flaskpaste with one of these commands;\n" +
			"fpaste COMMAND --help tells more:\n\n"
		for _, c := range clientCommands() {
			client += fmt.Sprintf("  %-13s %s\n", c.name, c.brief)
		}
	}
	for _, c := range list {
		text += fmt.Sprintf("  %s\n      %s\n", strings.TrimSpace("flaskpaste "+c.name+" "+c.usage),
			strings.ReplaceAll(c.help, "\n", "\n      "))
	}
	return text + client + "\n--env FILE reads settings from a file of NAME=value lines, as systemd's " +
		"EnvironmentFile= does:\nflaskpaste --env /etc/flaskpaste/env " + list[0].name + "\n"
}

// open opens the database, whose server may be running.
func (o *operator) open(mode openMode) (*store, error) {
	st, err := openStore(storeOptions{path: o.cfg.database, mode: mode, full: o.cfg.sync == "full",
		log: slog.New(slog.DiscardHandler), fatal: func(error) {}})
	if errors.Is(err, errNoStore) {
		err = fmt.Errorf("no database at %s: set FLASKPASTE_DATABASE", o.cfg.database)
	}
	return st, err
}

// ---- check, backup, healthcheck ----

// finding prints what is wrong, in plain words.
func (o *operator) finding(format string, args ...any) {
	o.found++
	fmt.Fprintf(o.out, format+"\n", args...)
}

// check looks at everything and changes nothing.
func (o *operator) check([]string) error {
	cfg := o.cfg
	for _, w := range cfg.warnings {
		o.finding("%s", w)
	}
	for _, path := range []string{cfg.database, cfg.database + "-wal", cfg.database + "-shm"} {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
			o.finding("%s can be read by others (mode %04o): chmod 600", path, info.Mode().Perm())
		}
	}
	for _, path := range []string{cfg.database, filepath.Dir(cfg.database)} {
		if err := syscall.Access(path, 2); err != nil && !errors.Is(err, os.ErrNotExist) { // W_OK
			o.finding("%s can't be written to, so no server starts on it: %v", path, err)
		}
	}
	st, err := o.open(openReading)
	if err == nil {
		if free := freeSpace(cfg.database); free < cfg.minFree {
			o.finding("only %d MiB of disk are free, FLASKPASTE_MIN_FREE keeps %d MiB: no paste can be stored: "+
				"make room", free>>20, cfg.minFree>>20)
		}
		lines, damage := st.integrity()
		for _, line := range lines {
			if *line != "ok" {
				o.finding("the database is damaged, restore a backup: %s", *line)
			}
		}
		err = errors.Join(damage, o.checkCerts(st), st.close())
	}
	if err != nil {
		o.finding("%v", err)
	}
	if o.found > 0 {
		return fmt.Errorf("check found %d to mend", o.found)
	}
	fmt.Fprintln(o.out, "all is well")
	return nil
}

// checkCerts says what is wrong with the CA, with the password that opens it, or will soon be with an admin's
// certificate.
func (o *operator) checkCerts(st *store) error {
	if o.cfg.pkiEnabled == "1" && o.cfg.caPassword == "" {
		o.finding("%v", errNoPassword)
	}
	der, sealed, err := st.authority()
	if err != nil || der == nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("the CA's certificate can't be read, restore a backup: %w", err)
	}
	if o.cfg.caPassword != "" {
		if _, err := openCAKey(sealed, string(o.cfg.caPassword), cert); err != nil {
			o.finding("%v", err)
		}
	}
	switch {
	case o.now.Before(cert.NotBefore):
		o.finding("the CA is not valid yet, only from %s: is the clock right?", day(cert.NotBefore.Unix()))
	case cert.NotAfter.Sub(o.now) < 90*24*time.Hour:
		o.finding("the CA ends on %s, and all its certificates with it: make a new one (see Rotate in the "+
			"documentation)", day(cert.NotAfter.Unix()))
	}
	list, err := st.certificates("", -1)
	seen := map[string]bool{} // owners: of each the newest certificate counts, which comes first
	for _, c := range list {
		if !c.admin || c.revoked != 0 || seen[c.owner] {
			continue
		}
		seen[c.owner] = true
		if left := c.expires - o.now.Unix(); left > 0 && left < 14*86400 {
			o.finding("the certificate of the admin %s ends on %s: fpaste renew, or flaskpaste pki issue", c.name,
				day(c.expires))
		}
	}
	return err
}

// day is how people read a time.
func day(unix int64) string { return time.Unix(unix, 0).UTC().Format(time.DateOnly) }

// backup copies the database to a file, or by way of one beside it to standard output.
func (o *operator) backup(words []string) error {
	path, piped := words[0], words[0] == "-"
	if piped {
		path = fmt.Sprintf("%s.copy-%d", o.st.path, os.Getpid())
		defer os.Remove(path)
	}
	ctx, stop := untilEnded()
	err := o.st.backup(ctx, path)
	if err != nil && ctx.Err() != nil {
		err = errors.New("interrupted: there is no copy")
	}
	if stop(); err != nil || !piped {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	os.Remove(path) // a reader that goes away ends the process
	_, err = io.Copy(o.out, f)
	return err
}

// healthcheck asks the server that listens as configured.
func (o *operator) healthcheck([]string) error {
	network, address := "tcp", o.cfg.listen[0]
	if path, unix := strings.CutPrefix(address, "unix:"); unix {
		network, address = "unix", path
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	c := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DialContext: dial}}
	res, err := c.Get("http://localhost" + o.cfg.prefix + "/health")
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		return fmt.Errorf("the server is unhealthy: status %d", res.StatusCode)
	}
	return nil
}

// ---- pki ----

func (o *operator) audit(event, object string) {
	o.log.Info("audit", "audit", true, "event", event, "outcome", "ok", "object", object, "request_id", "operator")
}

func (o *operator) init([]string) error {
	if cert, _, err := o.st.authority(); err != nil || cert != nil {
		return errors.Join(err, errors.New("the database has a CA already"))
	}
	ca, err := openAuthority(o.st, o.cfg.caPassword, true, o.now)
	if err != nil {
		return err
	}
	_, sum := fingerprints(ca.cert.Raw)
	o.audit("ca", serialHex(ca.cert.SerialNumber))
	fmt.Fprintf(o.out, "CA %s, until %s\nnext: flaskpaste pki issue NAME --admin\n", sum,
		ca.cert.NotAfter.Format(time.DateOnly))
	return nil
}

func (o *operator) issue(words []string) error {
	name := words[0]
	if !certName.MatchString(name) {
		return errCSRName
	}
	if o.days == certDaysUnset {
		o.days = int(o.cfg.certDays)
	}
	ca, err := openAuthority(o.st, o.cfg.caPassword, false, o.now)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	c := &certificate{name: name, vouched: true, admin: o.asAdmin}
	der, err := issueLeaf(ca, key.Public(), c, o.days, o.now, o.cfg.crlURL())
	if err != nil {
		return err
	}
	path := cmp.Or(o.file, strings.ReplaceAll(name, " ", "_")+".pem")
	bundle, told := o.out, io.Discard
	if path != "-" {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_SYNC, 0o600)
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("%s exists: choose another file with -o FILE", path)
		}
		if err != nil {
			return err
		}
		defer f.Close()
		bundle, told = f, o.out
	}
	if err = o.st.addCertificate(c, "", ""); err == nil {
		err = writeBundle(bundle, key, der)
	}
	if err != nil {
		if path != "-" {
			os.Remove(path) // never trusted, or not whole
		}
		return fmt.Errorf("issuing a certificate: %w", err)
	}
	o.audit(map[bool]string{false: "issue", true: "issue_admin"}[c.admin], c.serial)
	base := cmp.Or(o.cfg.publicURL, "https://YOUR-SERVER") + o.cfg.prefix
	fmt.Fprintf(told, "%s: key and certificate of %s, serial %s, until %s\necho hello | curl --cert %s -T - %s/\n",
		path, name, c.serial, day(c.expires), shellWord(path), base)
	return nil
}

// shellWord quotes a file name for a POSIX shell, and keeps curl from reading a colon in it as the start of a password.
func shellWord(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/@") == "" {
		return path
	}
	return "'" + strings.NewReplacer(`\`, `\\`, ":", `\:`, "'", `'\''`).Replace(path) + "'"
}

func (o *operator) list([]string) error {
	list, err := o.st.certificates("", -1)
	if err != nil {
		return err
	}
	const form = "%-32s  %-8s %-8s %-10s  %-16s  %s\n"
	_, err = fmt.Fprintf(o.out, form, "SERIAL", "STATE", "RIGHTS", "ENDS", "OWNER", "NAME")
	for _, c := range list {
		state, right := "valid", "enrolled"
		switch {
		case c.revoked != 0:
			state = "revoked:" + c.reason
		case c.expires <= o.now.Unix():
			state = "expired"
		}
		switch {
		case c.admin:
			right = "admin"
		case c.vouched:
			right = "vouched"
		}
		_, err = fmt.Fprintf(o.out, form, c.serial, state, right, day(c.expires), c.owner[:16], c.name)
	}
	return err
}

// find returns the certificate of a serial as people copy it.
func (o *operator) find(serial string) (*certificate, error) {
	c, err := o.st.certificate("serial", plainSerial(serial))
	if errors.Is(err, errNotFound) {
		err = fmt.Errorf("no certificate has the serial %q: see flaskpaste pki list", serial)
	}
	return c, err
}

func (o *operator) revoke(words []string) error {
	if _, known := reasonCode(o.reason); !known {
		return exitError{fmt.Errorf("--reason %q is none of %s", o.reason, revocationReasons), exitUsage}
	}
	c, err := o.find(words[0])
	if err != nil {
		return err
	}
	serials, err := o.st.revoke(c.serial, o.reason, o.now.Unix())
	if err == nil && len(serials) == 0 {
		fmt.Fprintf(o.out, "%s of %s was revoked already\n", c.serial, c.name)
	}
	for _, serial := range serials {
		o.audit("revocation", *serial)
		fmt.Fprintf(o.out, "revoked %s\n", *serial)
	}
	return err
}

func (o *operator) admin(words []string) error {
	on := words[1] == "on"
	if !on && words[1] != "off" {
		return exitError{fmt.Errorf("pki admin %q: on or off?", words[1]), exitUsage}
	}
	c, err := o.find(words[0])
	if err != nil {
		return err
	}
	serials, err := o.st.setAdmin(c.serial, on)
	if err == nil && len(serials) == 0 {
		err = fmt.Errorf("%s is revoked: it has no rights", c.name)
	}
	if err != nil {
		return err
	}
	o.audit("admin_"+words[1], c.serial)
	fmt.Fprintf(o.out, "%s of %s: admin %s\n", c.owner, c.name, words[1])
	return nil
}
