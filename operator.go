package main

// operator.go is `flaskpaste pki ...` and what `flaskpaste check` says of certificates: the CA, and who is trusted or an admin, in
// the hands of whoever may write the database.
//
// It works beside a running server, through SQLite's own locking; the server looks certificates up on each request, so what is
// done here holds from the next one. Nothing of it can be reached over the network. stdout is data, stderr is for people; a key
// goes to a new 0600 file, or to standard output where that is asked for.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

var errPKIUsage = errors.New("see flaskpaste pki --help")

// pkiVerb is a word behind pki: what it takes and what it is for.
type pkiVerb struct {
	name, usage, help string
	words             int
	options           []string
	run               func(*operator, []string) error
}

func pkiVerbs() []pkiVerb {
	return []pkiVerb{
		{"init", "", "make the CA, and the database if there is none; FLASKPASTE_PKI_CA_PASSWORD seals its key", 0, nil, (*operator).init},
		{"issue", "NAME [--admin] [--days N] [-o FILE|-]", "make key and certificate, vouched for: one PEM file for curl --cert (NAME.pem)",
			1, []string{"--admin", "--days", "-o"}, (*operator).issue},
		{"list", "", "all certificates, the newest first", 0, nil, (*operator).list},
		{"revoke", "SERIAL [--reason NAME]", "revoke a certificate and all its renewals; reasons are RFC 5280's: keyCompromise, superseded ...",
			1, []string{"--reason"}, (*operator).revoke},
		{"admin", "SERIAL on|off", "give or take the rights of an admin, for all renewals too", 2, nil, (*operator).admin},
	}
}

// pkiHelp is the help of one of them, or of all with "".
func pkiHelp(name string) string {
	var b strings.Builder
	for _, c := range pkiVerbs() {
		if name == "" || name == c.name {
			fmt.Fprintf(&b, "  flaskpaste pki %s\n      %s\n", strings.TrimSpace(c.name+" "+c.usage), c.help)
		}
	}
	return "usage:\n" + b.String() + "\n--env FILE reads the server's settings from a file of NAME=value lines.\n" +
		"example: flaskpaste --env /etc/flaskpaste/env pki issue alice --admin\n"
}

// pkiCommand runs one of them. errPKIUsage: the arguments are wrong.
func pkiCommand(cfg *config, args []string, stdout, stderr io.Writer) error {
	options, words := map[string]string{}, []string{}
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "--admin":
			options[a] = "on"
		case a == "--days" || a == "--reason" || a == "-o":
			if i++; i == len(args) {
				return fmt.Errorf("%s needs a value: %w", a, errPKIUsage)
			}
			options[a] = args[i]
		case strings.HasPrefix(a, "-"):
			return fmt.Errorf("unknown option %q: %w", a, errPKIUsage)
		default:
			words = append(words, a)
		}
	}
	if len(words) == 0 {
		return fmt.Errorf("pki what? %w", errPKIUsage)
	}
	verbs := pkiVerbs()
	n := slices.IndexFunc(verbs, func(v pkiVerb) bool { return v.name == words[0] })
	if n < 0 || len(words)-1 != verbs[n].words {
		return fmt.Errorf("pki %s: %w", strings.Join(words, " "), errPKIUsage)
	}
	command, mode := verbs[n], openBeside
	for name := range options {
		if !slices.Contains(command.options, name) {
			return fmt.Errorf("pki %s does not take %s: %w", words[0], name, errPKIUsage)
		}
	}
	if command.name == "init" {
		if cfg.caPassword == "" { // before a database is made
			return errNoPassword
		}
		if fileSize(cfg.database) == 0 {
			mode = openServing
		}
	}
	st, err := openExisting(cfg, mode)
	if err != nil {
		return err
	}
	o := &operator{cfg: cfg, st: st, options: options, out: stdout, log: slog.New(slog.NewTextHandler(stderr, nil)), now: time.Now()}
	return errors.Join(command.run(o, words[1:]), st.close())
}

// operator is one run of a command.
type operator struct {
	cfg     *config
	st      *store
	options map[string]string
	out     io.Writer
	log     *slog.Logger
	now     time.Time
}

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
		return errors.Join(err, errCAExists)
	}
	ca, err := openAuthority(o.st, o.cfg.caPassword, true, o.now)
	if err != nil {
		return err
	}
	_, sum := fingerprints(ca.cert.Raw)
	o.audit("ca", serialHex(ca.cert.SerialNumber))
	fmt.Fprintf(o.out, "CA %s, until %s\nnext: flaskpaste pki issue NAME --admin\n", sum, ca.cert.NotAfter.Format(time.DateOnly))
	return nil
}

func (o *operator) issue(words []string) error {
	o.warnings()
	name, days := words[0], int(o.cfg.certDays)
	if v, given := o.options["--days"]; given {
		n, err := strconv.Atoi(v)
		if err != nil {
			return errDays
		}
		days = n
	}
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
	der, err := issueLeaf(ca, key.Public(), name, days, o.now, o.cfg.crlURL())
	if err != nil {
		return err
	}
	c := &certificate{vouched: true, admin: o.options["--admin"] != ""}
	if err := c.describe(der, o.now.Unix()); err != nil {
		return err
	}
	path := o.options["-o"]
	if path == "" {
		path = strings.ReplaceAll(name, " ", "_") + ".pem"
	}
	if path == "-" {
		if err := o.st.addCertificate(c, "", ""); err != nil {
			return err
		}
		o.audit("issue", c.serial)
		return writeBundle(o.out, key, der)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s exists: choose another file with -o FILE", path)
	}
	if err == nil {
		err = errors.Join(writeBundle(f, key, der), f.Sync(), f.Close())
	}
	if err == nil {
		err = o.st.addCertificate(c, "", "")
	}
	if err != nil {
		os.Remove(path) // never trusted
		return fmt.Errorf("issuing a certificate: %w", err)
	}
	o.audit(map[bool]string{false: "issue", true: "issue_admin"}[c.admin], c.serial)
	fmt.Fprintf(o.out, "%s: key and certificate of %s, serial %s, until %s\necho hello | curl --cert %s -T - %s/\n",
		path, name, c.serial, time.Unix(c.expires, 0).UTC().Format(time.DateOnly), shellWord(path), o.cfg.tlsURL())
	return nil
}

// shellWord quotes a file name for a POSIX shell, and keeps curl from reading a colon in it as the start of a password.
func shellWord(path string) string {
	path = strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(path)
	if strings.HasPrefix(path, "-") {
		path = "./" + path
	}
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/@") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

func (o *operator) list([]string) error {
	list, err := o.st.certificates("", -1)
	if err != nil {
		return err
	}
	fmt.Fprintf(o.out, "%-32s  %-8s %-8s %-10s  %-16s  %s\n", "SERIAL", "STATE", "RIGHTS", "ENDS", "OWNER", "NAME")
	for _, c := range list {
		state, right := "valid", "enrolled"
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
		if _, err := fmt.Fprintf(o.out, "%s  %-8s %-8s %s  %s  %s\n", c.serial, state, right,
			time.Unix(c.expires, 0).UTC().Format(time.DateOnly), c.owner[:16], c.name); err != nil {
			return err
		}
	}
	return nil
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
	reason, given := o.options["--reason"]
	if !given {
		reason = "unspecified"
	}
	if _, err := reasonCode(reason); err != nil {
		return err
	}
	c, err := o.find(words[0])
	if err != nil {
		return err
	}
	serials, err := o.st.revoke(c.serial, reason, o.now.Unix())
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
	if words[1] != "on" && words[1] != "off" {
		return fmt.Errorf("pki admin %q: on or off? %w", words[1], errPKIUsage)
	}
	c, err := o.find(words[0])
	if err != nil {
		return err
	}
	serials, err := o.st.setAdmin(c.serial, words[1] == "on")
	if err == nil && len(serials) == 0 {
		return fmt.Errorf("%s is revoked: it has no rights", c.name)
	} else if err != nil {
		return err
	}
	o.audit("admin_"+words[1], c.serial)
	fmt.Fprintf(o.out, "%s of %s: admin %s\n", c.owner, c.name, words[1])
	return nil
}

// tlsURL is where a certificate can be used, as far as the settings say.
func (c *config) tlsURL() string {
	if c.publicURL != "" {
		return c.publicURL + c.prefix
	}
	return "https://YOUR-SERVER" + c.prefix
}

// checkCerts says what is wrong with the CA of a database, with the password that opens it, or will soon be with an admin's
// certificate, for `flaskpaste check`.
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
		return append(found, "the CA's certificate can't be read: "+err.Error())
	}
	if cfg.caPassword != "" {
		if _, err := openCAKey(sealed, string(cfg.caPassword), cert); err != nil {
			found = append(found, err.Error())
		}
	}
	if now.Before(cert.NotBefore) {
		found = append(found, "the CA is not valid before "+cert.NotBefore.Format(time.DateOnly)+": is the clock right?")
	} else if cert.NotAfter.Sub(now) < 90*24*time.Hour {
		found = append(found, "the CA ends on "+cert.NotAfter.Format(time.DateOnly)+", and all its certificates with it")
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
	for _, c := range last {
		if left := c.expires - now.Unix(); left > 0 && left < 14*86400 {
			found = append(found, fmt.Sprintf("the certificate of the admin %s ends on %s: fpaste renew, or flaskpaste pki issue", c.name,
				time.Unix(c.expires, 0).UTC().Format(time.DateOnly)))
		}
	}
	return found
}
