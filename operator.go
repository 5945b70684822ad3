package main

// operator.go is `flaskpaste pki ...`: the CA, and who is trusted or an admin, in the hands of whoever may write the database.
//
// It works beside a running server, through SQLite's own locking; the server looks certificates up on each request, so what is
// done here holds from the next one. Nothing of it can be reached over the network. Run by root, it leaves every file to the
// database's owner. stdout is data, stderr is for people; keys go to a new 0600 file only, never to a terminal.

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const pkiHelp = `usage: flaskpaste pki init
       flaskpaste pki issue NAME [--admin] [--days N] [-o FILE]
       flaskpaste pki list
       flaskpaste pki revoke SERIAL [--reason NAME]
       flaskpaste pki admin SERIAL on|off

  init     make the CA, and the database if there is none; FLASKPASTE_PKI_CA_PASSWORD seals its key
  issue    make a key and a certificate that is vouched for: one PEM file for curl --cert (NAME.pem)
  list     all certificates: serial, state, rights, end, owner, name
  revoke   revoke the certificate and its whole line, renewals included
  admin    give or take the rights of an admin, for the whole line

example: flaskpaste pki issue alice --admin
`

var errPKIUsage = errors.New("see flaskpaste pki --help")

// pkiCommand runs one of them. errPKIUsage: the arguments are wrong.
func pkiCommand(cfg *config, args []string, stdout, stderr io.Writer) error {
	options, words := map[string]string{}, []string{}
	for i := 0; i < len(args); i++ {
		switch a := args[i]; a {
		case "--admin":
			options[a] = "on"
		case "--days", "--reason", "-o":
			if i++; i == len(args) {
				return fmt.Errorf("%s needs a value: %w", a, errPKIUsage)
			}
			options[a] = args[i]
		default:
			if strings.HasPrefix(a, "-") {
				return fmt.Errorf("unknown option %q: %w", a, errPKIUsage)
			}
			words = append(words, a)
		}
	}
	commands := map[string]struct {
		words   int
		options []string
		run     func(*operator, []string) error
	}{
		"init":   {1, nil, (*operator).init},
		"issue":  {2, []string{"--admin", "--days", "-o"}, (*operator).issue},
		"list":   {1, nil, (*operator).list},
		"revoke": {2, []string{"--reason"}, (*operator).revoke},
		"admin":  {3, nil, (*operator).admin},
	}
	if len(words) == 0 {
		return fmt.Errorf("pki what? %w", errPKIUsage)
	}
	command, ok := commands[words[0]]
	if !ok || len(words) != command.words {
		return fmt.Errorf("pki %s: %w", strings.Join(words, " "), errPKIUsage)
	}
	for name := range options {
		if !slices.Contains(command.options, name) {
			return fmt.Errorf("pki %s does not take %s: %w", words[0], name, errPKIUsage)
		}
	}
	if words[0] == "init" && cfg.caPassword == "" { // before a database is made
		return errNoPassword
	}
	if _, err := os.Lstat(cfg.database); words[0] == "init" && errors.Is(err, os.ErrNotExist) { // through a link, root makes nothing
		if err := createDatabase(cfg.database); err != nil {
			return err
		}
	}
	st, err := openExisting(cfg)
	if err != nil {
		return err
	}
	o := &operator{cfg: cfg, st: st, options: options, out: stdout, log: slog.New(slog.NewTextHandler(stderr, nil)), now: time.Now()}
	return errors.Join(command.run(o, words[1:]), st.close())
}

// createDatabase makes an empty database. Root gives it to the owner of its folder: the server that will use it.
func createDatabase(path string) error {
	st, err := openStore(storeOptions{path: path, serving: true, full: true, checkpoint: true, log: slog.New(slog.DiscardHandler), fatal: func(error) {}, now: time.Now})
	if err == nil {
		err = st.close()
	}
	for _, name := range []string{path, path + ".lock"} {
		if err != nil {
			return err
		}
		var f *os.File
		if f, err = os.OpenFile(name, os.O_RDONLY|noFollow, 0); err == nil {
			err = errors.Join(ownedAs(f, filepath.Dir(path)), f.Close())
		}
	}
	return err
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

func (o *operator) audit(event, owner, serial string) {
	o.log.Warn("audit", "audit", true, "event", event, "outcome", "ok", "owner", owner, "object", serial, "request_id", "operator")
}

func (o *operator) init([]string) error {
	if cert, key, err := o.st.authority(); err != nil || cert != nil && key != nil {
		return cmp.Or(err, errCAExists)
	}
	ca, err := openAuthority(o.st, o.cfg.caPassword, true, o.now)
	if err != nil {
		return err
	}
	_, sum := fingerprints(ca.cert.Raw)
	o.audit("ca", sum, serialHex(ca.cert.SerialNumber))
	fmt.Fprintf(o.out, "CA %s, until %s\nnext: flaskpaste pki issue NAME --admin\n", sum, ca.cert.NotAfter.Format(time.DateOnly))
	return nil
}

func (o *operator) issue(words []string) error {
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
	path := o.options["-o"]
	if path == "" {
		path = strings.ReplaceAll(name, " ", "_") + ".pem"
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
	if err := writeBundle(path, key, der, ca.cert.Raw); err != nil {
		return err
	}
	if err := o.st.addCertificate(c, "", noWork); err != nil {
		os.Remove(path) // never trusted
		return err
	}
	o.audit(map[bool]string{false: "issue", true: "issue_admin"}[c.admin], c.owner, c.serial)
	fmt.Fprintf(o.out, "%s: key, certificate and CA of %s, serial %s, until %s\necho hello | curl --cert %s -T - %s/\n",
		path, name, c.serial, time.Unix(c.expires, 0).UTC().Format(time.DateOnly), shellWord(path), o.cfg.tlsURL())
	return nil
}

// shellWord quotes a file name for a POSIX shell, and keeps curl from reading a colon in it as the start of a password.
func shellWord(path string) string {
	path = strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(filepath.ToSlash(path))
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
		if _, err := fmt.Fprintf(o.out, "%s  %-8s %-8s %s  %s  %s\n", c.serial, state, right, time.Unix(c.expires, 0).UTC().Format(time.DateOnly), c.owner[:16], c.name); err != nil {
			return err
		}
	}
	return nil
}

// find returns the certificate of a serial as people copy it: openssl writes it in capitals.
func (o *operator) find(serial string) (*certificate, error) {
	c, err := o.st.certificate("serial", strings.ToLower(serial))
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
	list, err := o.st.revokeLine(c.serial, reason, o.now.Unix())
	if err != nil {
		return err
	}
	if len(list) == 0 {
		fmt.Fprintf(o.out, "%s of %s was revoked already\n", c.serial, c.name)
		return nil
	}
	for _, r := range list {
		o.audit("revocation", r.owner, r.serial)
		fmt.Fprintf(o.out, "revoked %s\n", r.serial)
	}
	return nil
}

func (o *operator) admin(words []string) error {
	if words[1] != "on" && words[1] != "off" {
		return fmt.Errorf("pki admin %q: on or off? %w", words[1], errPKIUsage)
	}
	c, err := o.find(words[0])
	if err != nil {
		return err
	}
	if err := o.st.setAdmin(c.serial, words[1] == "on"); errors.Is(err, errNotFound) {
		return fmt.Errorf("the line of %s is revoked: it has no rights", c.serial)
	} else if err != nil {
		return err
	}
	o.audit("admin_"+words[1], c.owner, c.serial)
	fmt.Fprintf(o.out, "%s of %s: admin %s\n", c.owner, c.name, words[1])
	return nil
}

// tlsURL is where a certificate can be used, as far as the settings say.
func (c *config) tlsURL() string {
	switch {
	case c.publicURL != "":
		return c.publicURL + c.prefix
	case c.tlsCert != "":
		return "https://" + c.listen[0] + c.prefix
	}
	return "https://YOUR-SERVER" + c.prefix
}

// checkCA says what is wrong with the CA of a database, or with the password that opens it, for `flaskpaste check`.
func checkCA(cfg *config, st *store, now time.Time) string {
	der, sealed, err := st.authority()
	switch {
	case err != nil:
		return err.Error()
	case (der == nil) != (sealed == nil):
		return errCAHalf.Error()
	case cfg.pkiEnabled == "1" && cfg.caPassword == "":
		return errNoPassword.Error()
	case der == nil:
		return ""
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return "the CA's certificate can't be read: " + err.Error()
	}
	if cfg.caPassword != "" {
		if _, err := openCAKey(sealed, string(cfg.caPassword), cert); err != nil {
			return err.Error()
		}
	}
	if left := cert.NotAfter.Sub(now); left < 90*24*time.Hour {
		return fmt.Sprintf("the CA ends on %s, and all its certificates with it", cert.NotAfter.Format(time.DateOnly))
	}
	return ""
}
