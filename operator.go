package main

// operator.go is the operator's command line on the server's machine: the table of commands, their settings, and what
// they do beside serving: check, backup, healthcheck, the CA, and who is trusted or an admin.
//
// They work beside a running server, through SQLite's own locking, on an existing database only (init alone makes
// one); the server looks certificates up on each request, so what is done here holds from the next one. Nothing of it
// can be reached over the network. check writes nothing. stdout is data, stderr is for people; a key goes to a new
// 0600 file, or to standard output where that is asked for.

import (
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
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// command is one of the operator's: how many words it takes, how they are called and, as its usage names them, the
// options.
type command struct {
	name                string
	words               int
	usage, sample, help string
	run                 func(*operator, []string) error
}

func commands() []command {
	return []command{
		{"serve", 0, "", "", "start the server (the default)", (*operator).serve},
		{"check", 0, "", "", "look for what is wrong, and say what to do: settings, database, permissions, space,\n" +
			"certificates; exit 1 on findings; changes nothing", (*operator).check},
		{"backup", 1, "FILE|-", "/var/backups/paste.db", "copy the database while it is in use, to a new file or (-) to\n" +
			"standard output; without pastes that burn", (*operator).backup},
		{"healthcheck", 0, "", "", "exit 0 if the server of these settings is healthy", (*operator).healthcheck},
		{"pki init", 0, "", "", "make the CA, and the database if there is none; FLASKPASTE_PKI_CA_PASSWORD seals its key",
			(*operator).init},
		{"pki issue", 1, "NAME [--admin] [--days N] [-o FILE|-]", "alice --admin",
			"make key and certificate, vouched for: one PEM file for curl --cert (NAME.pem)", (*operator).issue},
		{"pki list", 0, "", "", "all certificates, the newest first", (*operator).list},
		{"pki revoke", 1, "SERIAL [--reason NAME]", "58:4e:0a... --reason keyCompromise",
			"revoke a certificate and all its renewals; reasons are RFC 5280's:\n" + revocationReasons, (*operator).revoke},
		{"pki admin", 2, "SERIAL on|off", "58:4e:0a... on", "give or take the rights of an admin, for all renewals too",
			(*operator).admin},
	}
}

// operator is one run of a command.
type operator struct {
	environ     []string
	out, stderr io.Writer
	now         time.Time
	serving     bool

	cfg *config
	log *slog.Logger
	st  *store // of the pki commands

	asAdmin      bool
	days         int
	reason, file string
}

// operate does one command, serve if none is named.
func (o *operator) operate(args []string) (err error) {
	var words []string
	var env string
	var askVersion bool
	options := flag.NewFlagSet("flaskpaste", flag.ContinueOnError)
	options.SetOutput(io.Discard)
	options.StringVar(&env, "env", "", "")
	options.BoolVar(&askVersion, "version", false, "")
	options.BoolVar(&o.asAdmin, "admin", false, "")
	options.IntVar(&o.days, "days", 0, "")
	options.StringVar(&o.reason, "reason", "unspecified", "")
	options.StringVar(&o.file, "o", "", "")
	for rest := args; ; rest = options.Args()[1:] { // before and behind the words
		if err = options.Parse(rest); err != nil || options.NArg() == 0 {
			break
		}
		words = append(words, options.Arg(0))
	}
	if len(words) > 0 && words[0] == "help" {
		words, err = words[1:], flag.ErrHelp
	}
	if askVersion || len(words) == 1 && words[0] == "version" {
		fmt.Fprintln(o.out, "flaskpaste "+version)
		return nil
	}
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(o.out, help(strings.Join(words, " ")))
		return nil
	}
	if len(words) == 0 {
		words = []string{"serve"}
	}
	c, group := command{}, words[0]
	for _, c = range commands() {
		n := strings.Count(c.name, " ") + 1
		if len(words) >= n && strings.Join(words[:n], " ") == c.name {
			words = words[n:]
			break
		}
		c = command{}
	}
	usage := func(format string, args ...any) error {
		see := "flaskpaste " + c.name
		if c.name == "" && group == "pki" {
			see = "flaskpaste pki"
		}
		return exitError{fmt.Errorf(format+": see %s --help", append(args, strings.TrimSpace(see))...), exitUsage}
	}
	o.serving = c.name == "serve"
	switch {
	case c.name == "":
		return usage("unknown command %q", strings.Join(words, " "))
	case o.serving && (err != nil || len(words) > 0):
		return usage("settings come from the environment, as in FLASKPASTE_LISTEN=127.0.0.1:8080 flaskpaste serve")
	case err != nil:
		return usage("%w", err)
	case len(words) != c.words || c.words > 0 && words[0] == "":
		return usage("usage: flaskpaste %s %s", c.name, c.usage)
	}
	daysGiven := false
	options.Visit(func(f *flag.Flag) {
		daysGiven = daysGiven || f.Name == "days"
		if f.Name != "env" && !strings.Contains(c.usage, "-"+f.Name) {
			err = usage("%s does not take -%s", c.name, f.Name)
		}
	})
	if err == nil && env != "" {
		var lines []string
		if lines, err = readEnvFile(env); err != nil {
			err = exitError{err, exitConfig}
		}
		o.environ = append(o.environ[:len(o.environ):len(o.environ)], lines...)
	}
	if err != nil {
		return err
	}
	if o.cfg, err = loadConfig(o.environ); err != nil {
		return exitError{err, exitConfig}
	}
	level := min(o.cfg.logLevel, slog.LevelInfo) // what an operator does is always told
	if o.serving {
		level = o.cfg.logLevel
	}
	o.log = newLog(o.environ, level, o.stderr)
	if !daysGiven {
		o.days = int(o.cfg.certDays)
	}
	if !strings.HasPrefix(c.name, "pki ") {
		return c.run(o, words)
	}
	mode := openBeside
	if c.name == "pki init" {
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

// help is that of the commands whose name begins with name, of all if there is none.
func help(name string) string {
	matches := func(c command) bool { return c.name == name || strings.HasPrefix(c.name, name+" ") }
	text, sample, all := "usage:\n", "pki issue alice --admin", true
	for _, c := range commands() {
		all = all && !matches(c)
	}
	for _, c := range commands() {
		if all || matches(c) {
			text += "  " + strings.TrimSpace("flaskpaste "+c.name+" "+c.usage) + "\n      " +
				strings.ReplaceAll(c.help, "\n", "\n      ") + "\n"
		}
		if matches(c) {
			sample = strings.TrimSpace(c.name + " " + c.sample)
		}
	}
	if name == "serve" {
		text = configHelp()
	}
	if all {
		text += "\nThe same program is the client, as fpaste, or as flaskpaste with one of these commands;\n" +
			"fpaste COMMAND --help tells more:\n\n"
		for _, c := range clientCommands() {
			text += fmt.Sprintf("  %-13s %s\n", c.name, c.brief)
		}
	}
	return text + "\n--env FILE reads settings from a file of NAME=value lines, as systemd's EnvironmentFile= does.\n" +
		"example: flaskpaste --env /etc/flaskpaste/env " + sample + "\n"
}

// open opens the database of a server that may be running.
func (o *operator) open(mode openMode) (*store, error) {
	st, err := openStore(storeOptions{path: o.cfg.database, mode: mode, full: o.cfg.sync == "full",
		log: slog.New(slog.DiscardHandler), fatal: func(error) {}})
	if errors.Is(err, errNoStore) {
		err = fmt.Errorf("no database at %s: set FLASKPASTE_DATABASE", o.cfg.database)
	}
	return st, err
}

// ---- check, backup, healthcheck ----

// check prints what it finds in plain words.
func (o *operator) check([]string) error {
	cfg, found := o.cfg, o.cfg.warnings
	found = append(found, cfg.findings()...)
	for _, path := range []string{cfg.database, cfg.database + "-wal", cfg.database + "-shm"} {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
			found = append(found, fmt.Sprintf("%s can be read by others (mode %04o): chmod 600", path, info.Mode().Perm()))
		}
	}
	if free := freeSpace(filepath.Dir(cfg.database)); free > 0 && free < cfg.minFree {
		found = append(found, fmt.Sprintf("only %d MiB of disk are free, FLASKPASTE_MIN_FREE keeps %d MiB: no paste can be "+
			"stored: make room", free>>20, cfg.minFree>>20))
	}
	st, err := o.open(openReading)
	if err == nil {
		lines, integrityErr := st.integrity()
		for _, line := range lines {
			if *line != "ok" {
				found = append(found, "the database is damaged, restore a backup: "+*line)
			}
		}
		found = append(found, checkCerts(cfg, st, o.now)...)
		err = errors.Join(integrityErr, st.close())
	}
	if err != nil {
		found = append(found, err.Error())
	}
	for _, line := range found {
		fmt.Fprintln(o.out, line)
	}
	if len(found) > 0 {
		return exitError{fmt.Errorf("check found %d to mend", len(found)), exitFailed}
	}
	fmt.Fprintln(o.out, "all is well")
	return nil
}

// checkCerts says what is wrong with the CA of a database, with the password that opens it, or will soon be with an
// admin's certificate.
func checkCerts(cfg *config, st *store, now time.Time) (found []string) {
	der, sealed, err := st.authority()
	if err != nil {
		return []string{err.Error()}
	}
	if cfg.pkiEnabled == "1" && cfg.caPassword == "" {
		found = append(found, errNoPassword.Error())
	}
	if der == nil {
		return found
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return append(found, "the CA's certificate can't be read, restore a backup: "+err.Error())
	}
	if cfg.caPassword != "" {
		if _, err := openCAKey(sealed, string(cfg.caPassword), cert); err != nil {
			found = append(found, err.Error())
		}
	}
	if now.Before(cert.NotBefore) {
		found = append(found, "the CA is not valid yet, only from "+day(cert.NotBefore.Unix())+": is the clock right?")
	} else if cert.NotAfter.Sub(now) < 90*24*time.Hour {
		found = append(found, "the CA ends on "+day(cert.NotAfter.Unix())+", and all its certificates with it: "+
			"make a new one (see Rotate in the documentation)")
	}
	list, err := st.certificates("", -1)
	if err != nil {
		return append(found, err.Error())
	}
	last := map[string]*certificate{} // of each admin, the one that ends last
	for _, c := range list {
		if c.admin && c.revoked == 0 && (last[c.owner] == nil || last[c.owner].expires < c.expires) {
			last[c.owner] = c
		}
	}
	for _, c := range list {
		if left := c.expires - now.Unix(); last[c.owner] == c && left > 0 && left < 14*86400 {
			found = append(found, "the certificate of the admin "+c.name+" ends on "+day(c.expires)+
				": fpaste renew, or flaskpaste pki issue")
		}
	}
	return found
}

// day is how people read a time.
func day(unix int64) string { return time.Unix(unix, 0).UTC().Format(time.DateOnly) }

// backup copies the database to a file, or to standard output.
func (o *operator) backup(words []string) error {
	path := words[0]
	st, err := o.open(openReading)
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

// warnings says what is weak in the settings, to who works with the CA's password.
func (o *operator) warnings() {
	for _, w := range o.cfg.warnings {
		o.log.Warn(w)
	}
}

func (o *operator) init([]string) error {
	o.warnings()
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
	o.warnings()
	name := words[0]
	if !certName.MatchString(name) {
		return errCSRName
	}
	ca, err := openAuthority(o.st, o.cfg.caPassword, false, o.now)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := issueLeaf(ca, key.Public(), name, o.days, o.now, o.cfg.crlURL())
	if err != nil {
		return err
	}
	c := &certificate{vouched: true, admin: o.asAdmin}
	if err := c.describe(der, o.now.Unix()); err != nil {
		return err
	}
	path := o.file
	if path == "" {
		path = strings.ReplaceAll(name, " ", "_") + ".pem"
	}
	told := o.out
	if path == "-" {
		told = io.Discard
		if err = o.st.addCertificate(c, "", ""); err == nil {
			err = writeBundle(o.out, key, der)
		}
	} else if err = o.keep(path, key, der); err == nil {
		if err = o.st.addCertificate(c, "", ""); err != nil {
			os.Remove(path) // never trusted
		}
	}
	if err != nil {
		return fmt.Errorf("issuing a certificate: %w", err)
	}
	o.audit(map[bool]string{false: "issue", true: "issue_admin"}[c.admin], c.serial)
	base := "https://YOUR-SERVER"
	if o.cfg.publicURL != "" {
		base = o.cfg.publicURL
	}
	fmt.Fprintf(told, "%s: key and certificate of %s, serial %s, until %s\necho hello | curl --cert %s -T - %s/\n",
		path, name, c.serial, day(c.expires), shellWord(path), base+o.cfg.prefix)
	return nil
}

// keep writes key and certificate to a new file, which others can't read.
func (o *operator) keep(path string, key *ecdsa.PrivateKey, der []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s exists: choose another file with -o FILE", path)
	}
	if err != nil {
		return err
	}
	if err = errors.Join(writeBundle(f, key, der), f.Sync(), f.Close()); err != nil {
		os.Remove(path)
	}
	return err
}

// shellWord quotes a file name for a POSIX shell, and keeps curl from reading a colon in it as the start of a password.
func shellWord(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/@") == "" && path[0] != '-' {
		return path
	}
	if path[0] == '-' {
		path = "./" + path
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
	for i := 0; i < len(list) && err == nil; i++ {
		c, state, right := list[i], "valid", "enrolled"
		switch {
		case c.revoked != 0:
			state = "revoked:" + c.reason
		case c.expires <= o.now.Unix():
			state = "expired"
		}
		if c.vouched {
			right = "vouched"
		}
		if c.admin {
			right = "admin"
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
