package main

// The command line: commands, options, config file, history, and what a terminal is shown.
//
// Invariants: stdout is data, stderr is for people. Whatever can fail is settled before a paste that burns is asked
// for, and afterwards nothing is refused. The history forgets what a server said is gone, and nothing by a clock: it
// holds the only copy of keys and tokens. Files appear whole or not at all and replace nothing without -f. What
// others wrote (names, content, the server's sentences) reaches a terminal with its control characters made visible.
// Never: a key or password in an argument of ours, a child's environment or a sentence; a temporary plaintext file.
// XDG Base Directory (config, state), NO_COLOR (there are no colours at all).

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	progressFrom = 1 << 20                // bytes from which a transfer shows progress
	progressStep = 200 * time.Millisecond // between two lines of it
	certLife     = 10 * 365 * 24 * time.Hour
	renewFrom    = 14 * 24 * time.Hour                 // before the end of a certificate: it is mentioned
	blankish     = " \t\r\n<>\u00a0\u200b\u2060\ufeff" // what mail puts around links
	configured   = 1                                   // what a command needs: the config
	served       = 2                                   // and a server in it
	makeCert     = "fpaste register NAME gets one, fpaste cert NAME makes a self-signed one"
)

var (
	// Three files, which with the server may come from the environment too, and the others.
	configKeys = []string{"cert", "key", "cacert", "server", "expiry", "encrypt", "history"}
	optionForm = regexp.MustCompile(`(?:-(\w)[,/] ?)?--([a-z-]+)(?: ([A-Z]+))?`)
	keyShape   = `[^0-9A-Za-z_-]{0,8}[0-9A-Za-z_-]%s(?:[^0-9A-Za-z_-]|$)`
	// A link with its key: 43 characters behind # in whatever spelling, or, behind a paste's link, about as many.
	keyBehind = regexp.MustCompile(keyMark.String() + fmt.Sprintf(keyShape, "{43}") + `|(?i:/|%(?:25)*2f)` +
		`[0-9a-f]{8,64}(?:/raw(?:/[^/]*)?)?/?(?:\?.*)?` + keyMark.String() + fmt.Sprintf(keyShape, "{40,46}"))
	pastePath = regexp.MustCompile(`^(.*?)(/([0-9a-f]{8,64}))(?:/raw(?:/[^/]*)?)?$`)
	shortPath = regexp.MustCompile(`^(.*?)(/s/([0-9A-Za-z]{8}))(?:/info)?$`)
	mailedKey = regexp.MustCompile(`%23([0-9A-Za-z_-]{43})$`)
	certBlock = regexp.MustCompile(`(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----`)
	// What no sentence may hold: a URL's user part, whatever stands behind # to where the quotation ends, and whatever
	// could be a key. Our own sentences have a blank before the #.
	quoted      = regexp.MustCompile(`"(?:\\.|[^"\\])*"`)
	quotedParts = regexp.MustCompile(`^("(?:[a-z]+://)?)(?:[^/.~].*)?@|(://).*@|` + keyMark.String() + `.*("$)`)
	secretParts = regexp.MustCompile(`(://)(?:[^"<>:]|:\S)*:?@|[^\s"':/]+:[^\s"'/]*@|(\S)` + keyMark.String() +
		`(?:[^"<>:]|:\S)*|(^|[^0-9A-Za-z_/.-])[0-9A-Za-z_-]{43}($|[^0-9A-Za-z_/.-])`)
	errEnough = fail(1, "", "") // said by who reads what we print, as in "| head -1"
	errBinary = fail(1, "-o FILE or -O to keep it, -f to show it", "not showing binary content on a terminal")
)

// stdio is what a command may touch of its process; env is os.LookupEnv outside tests.
type stdio struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) (string, bool)
}

// cliCommand is one command: its words and how many, what it does, and its options as its help shows them: parsing and
// completion read the same text. A letter means one thing in all commands.
type cliCommand struct {
	name, args     string
	least, most    int
	needs          int // 0, configured or served
	run            func(*cli, context.Context, []string) error
	brief, options string
}

const everywhere = "everywhere: -s/--server URL, --cert FILE, --key FILE, --cacert FILE, -q/--quiet, -v/--verbose, " +
	"--insecure-http, -h/--help, -V/--version\n"

// clientCommands is the table of commands. The first one is meant when none is named.
func clientCommands() []cliCommand {
	const many = 1 << 30
	return []cliCommand{
		{"create", "[FILE...]", 0, many, served, (*cli).create, "encrypt and upload files or a pipe, print links", `
  -E, --no-encrypt     send it readable: the server and whoever has the link can read it
  -e, --encrypt        encrypt, even if the config says off
  -x, --expiry TIME    life: 90s, 15m, 12h, 7d, 2w, 1d12h, RFC 3339 or @unix
  -b, --burn           gone after the first read
  -p, --password       readers must know a password, asked for here (or FPASTE_PASSWORD)
  -n, --name TEXT      name for the reader; encrypted like the content
  -t, --type MIME      content type for the reader
  -r, --raw            print the raw URL (with -E)
  -j, --json           print JSON, with the delete token`},
		{"get", "LINK|ID", 1, 1, configured, (*cli).get, "fetch and decrypt", `
  -o, --output FILE    write to FILE (- is standard output, DIR/ keeps the sender's name)
  -O, --remote-name    write to a file of the sender's name
  -f, --force          overwrite the file; show binary on a terminal
  -p, --password       ask for the paste's password (or FPASTE_PASSWORD)`},
		{"meta", "LINK|ID", 1, 1, configured, (*cli).meta, "type, size and end, without reading it", `
  -j, --json           the server's JSON`},
		{"update", "LINK|ID [FILE|-]", 1, 2, configured, (*cli).update,
			"replace the content (the link stays good), or only the options named", `
  -E, --no-encrypt     send it readable, to a paste that is
  -x, --expiry TIME    new life, as for create; '' removes it
  -p, --password       new password; an empty FPASTE_PASSWORD removes it
  -n, --name TEXT      new name; that of an encrypted paste needs the content too
  -t, --type MIME      new type, likewise
      --token TOKEN    the delete token that -j printed, instead of the history's
  -j, --json           print JSON`},
		{"delete", "LINK|ID... | -", 1, many, configured, (*cli).remove, "delete; - reads links or ids from a pipe", `
      --token TOKEN    the delete token that -j printed, instead of the history's`},
		{"list", "", 0, 0, served, (*cli).list, "your pastes (needs a certificate)", `
      --owner ID       for admins: whose, an owner's id, anonymous or all
      --ids            one id a line
  -j, --json           print JSON`},
		{"search", "[TEXT]", 0, 1, served, (*cli).list, "your pastes by name, id, type and date", `
  -t, --type MIME      only of this type, such as text/plain or image/*
      --after TIME     made after this date, time (RFC 3339) or Unix time
      --before TIME    made before
      --owner ID       for admins: whose, an owner's id, anonymous or all
      --ids            one id a line
  -j, --json           print JSON`},
		{"history", "", 0, 0, configured, (*cli).history, "what this machine created: created, ends, name, link", `
      --clear          forget all: keys and tokens exist nowhere else
  -f, --force          clear without asking
  -j, --json           print JSON, with the delete tokens`},
		{"short", "URL | list | info ID... | delete ID...", 1, many, configured, (*cli).short, "short URLs", `
  -x, --expiry TIME    life, as for create
      --owner ID       with list, for admins: whose
      --ids            with list: one id a line
      --token TOKEN    with delete: the token that -j printed
  -j, --json           print JSON`},
		{"register", "NAME", 1, 1, served, (*cli).newIdentity, "make a key here and have it certified by the server", `
  -f, --force          replace the key and certificate that you have`},
		{"cert", "NAME", 1, 1, configured, (*cli).newIdentity, "make a self-signed certificate, offline: a pseudonym", `
  -f, --force          replace the key and certificate that you have`},
		{"renew", "", 0, 0, served, (*cli).renew, "have the certificate renewed, for the same key", ""},
		{"info", "", 0, 0, served, (*cli).info, "the server, who you are there, what you may send", `
  -j, --json           the server's JSON`},
		{"completion", "bash | zsh | fish", 1, 1, 0, (*cli).completion, "a completion script", ""},
		{"version", "", 0, 0, 0, (*cli).version, "version of this program", ""},
		{"help", "[COMMAND]", 0, 1, 0, (*cli).help, "this list, or one command", ""},
	}
}

func findCommand(name string) (cliCommand, bool) {
	table := clientCommands()
	i := slices.IndexFunc(table, func(k cliCommand) bool { return k.name == name })
	return table[max(i, 0)], i >= 0
}

// optionsIn reads the options of a help text: each whole, its letter or "", its name, what its value is called or "".
func optionsIn(text string) [][]string { return optionForm.FindAllStringSubmatch(text, -1) }

// cli is one run. It is used by one goroutine.
type cli struct {
	std            stdio
	outTTY, errTTY bool
	config, state  string // our folders, "" where there is no home
	command        cliCommand
	opt            map[string]string // options by long name: given, or settled by configure
	certDefault    bool              // the certificate is the config's
	server         *url.URL          // configured; nil if it is not
	clients        map[string]*apiClient
	home           *apiClient               // for server, where the command needs it
	past           []*historyEntry          // what the history has, in the order of creation
	pastAt         map[string]*historyEntry // past by link without key; nil before it was read
	unread         error                    // why it could not be read
	unsent         string                   // why the certificate was not sent, "" if it was or there is none
	shown          bool                     // a line of progress
	looked         time.Time                // when it was last renewed
}

// runClient is the command line: args without the program's name. It returns the exit code. ctx ends with Ctrl-C.
func runClient(ctx context.Context, args []string, std stdio) int {
	c := &cli{std: std, outTTY: isTerminal(std.out), errTTY: isTerminal(std.err), opt: map[string]string{},
		clients: map[string]*apiClient{}, looked: time.Now()}
	c.config, c.state = c.folder("XDG_CONFIG_HOME", ".config"), c.folder("XDG_STATE_HOME", ".local/state")
	err := c.dispatch(ctx, args)
	if ctx.Err() != nil && err != nil {
		err = errors.New("interrupted")
	}
	return c.report(err)
}

func (c *cli) dispatch(ctx context.Context, args []string) error {
	words, named, err := c.parse(args)
	k := c.command
	switch {
	case err != nil:
		return err
	case c.has("version"):
		return c.version(ctx, nil)
	case c.has("help"):
		return c.help(ctx, named)
	case len(words) < k.least || len(words) > k.most:
		return fail(2, "fpaste help "+k.name, "wrong arguments: fpaste %s %s", k.name, k.args)
	case named == nil && len(words) > 0 && words[0] != "-":
		if _, err := os.Stat(words[0]); errors.Is(err, fs.ErrNotExist) {
			return fail(2, "a link is read with fpaste get LINK",
				"no file and no command is called %s; fpaste help lists the commands", words[0])
		}
	}
	if k.needs >= configured {
		err = c.configure()
	}
	if k.needs >= served && err == nil {
		c.home, err = c.own()
	}
	if err != nil {
		return err
	}
	return k.run(c, ctx, words)
}

// parse sorts options from words, in any order, up to "--". The command is the first word if the table has it: named.
func (c *cli) parse(args []string) (words, named []string, err error) {
	c.command = clientCommands()[0]
	set := flag.NewFlagSet("fpaste", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	text := everywhere
	for _, k := range clientCommands() {
		text += k.options
	}
	for _, o := range optionsIn(text) {
		given := func(v string) error { c.opt[o[2]] = v; return nil }
		for _, name := range o[1:3] {
			switch {
			case name == "" || set.Lookup(name) != nil:
			case o[3] == "":
				set.BoolFunc(name, "", given)
			default:
				set.Func(name, "", given)
			}
		}
	}
	for more := true; more; {
		if err := set.Parse(args); err != nil {
			what := err.Error()
			flag, unknown := strings.CutPrefix(what, "flag provided but not defined: ")
			typed := func(a string) bool { return strings.HasPrefix(a, flag) } // not with two -
			if unknown && slices.ContainsFunc(args, typed) {                   // what is behind -p may be a password
				what = "there is no option of more than one letter behind one -: " + flag[:2] + "..."
			}
			return nil, nil, fail(2, "fpaste help", "%s", what)
		}
		before, rest := args[:len(args)-set.NArg()], set.Args()
		if more = len(rest) > 0 && (len(before) == 0 || before[len(before)-1] != "--"); !more {
			words = append(words, rest...)
		} else if k, ok := findCommand(rest[0]); ok && named == nil && len(words) == 0 {
			c.command, named, args = k, rest[:1], rest[1:]
		} else {
			words, args = append(words, rest[0]), rest[1:]
		}
	}
	mine := optionsIn(c.command.options + everywhere)
	for name, value := range c.opt {
		takes := func(o []string) bool { return o[2] == name && (o[3] != "" || value == "true") }
		if k := c.command.name; !slices.ContainsFunc(mine, takes) {
			return nil, nil, fail(2, "fpaste help "+k, "%s takes no --%s like that", k, name)
		}
	}
	return words, named, nil
}

func (c *cli) has(option string) bool {
	_, given := c.opt[option]
	return given
}

// report says what went wrong and returns the exit code.
func (c *cli) report(err error) int {
	code, what, hint := explain(err)
	f, refused := errors.AsType[*apiError](err)
	switch {
	case refused && c.unsent != "" && (f.status == 401 || f.status == 403 || f.Code == "too_large" ||
		f.Code == "bad_display_name"):
		hint = "your certificate was not sent: " + c.unsent
	case refused && f.Code == "not_found" && c.command.needs == served:
		hint = "is the server's URL whole? It may end in a path: https://paste.example.org/PATH"
	case refused && hint == "" && f.Hint != "":
		hint = "fpaste help " + c.command.name
	}
	c.status("")
	if what != "" {
		fmt.Fprintf(c.std.err, "fpaste: %s\n", sentence(what))
	}
	if hint != "" {
		fmt.Fprintf(c.std.err, "hint: %s\n", sentence(hint))
	}
	return code
}

// sentence makes text safe to show: one line without secrets.
func sentence(s string) string {
	s = quoted.ReplaceAllStringFunc(s, func(q string) string { return quotedParts.ReplaceAllString(q, "$1$2$3") })
	for range 2 { // of two in a row the first takes what is between them
		s = secretParts.ReplaceAllString(s, "$1$2$3$4")
	}
	return oneLine(s)
}

// explain turns an error into exit code, sentence and hint; no sentence when there is nothing to say.
func explain(err error) (code int, what, hint string) {
	own, ours := errors.AsType[*cliError](err)
	refused, theirs := errors.AsType[*apiError](err)
	switch {
	case err == nil:
		return 0, "", ""
	case errors.Is(err, syscall.EPIPE):
		return explain(errEnough)
	case ours && own.what == "": // it was told as it came
		return own.code, "", ""
	case ours:
		return own.code, err.Error(), own.hint // with what was put before it
	case theirs && refused.Code == "read_proof_required", errors.Is(err, errWrongKey): // the proof is made of the key
		return 7, errWrongKey.Error(), "give the whole link, in quotes, as it was printed"
	case theirs:
		return explainRefusal(err.Error(), refused)
	case errors.Is(err, errSealBroken):
		return 7, err.Error(), "a paste that is not encrypted is fetched by its link without # and what follows"
	case errors.Is(err, errSealKey):
		return 2, err.Error(), "quote the link: the shell may have cut it"
	case errors.Is(err, errTitle):
		return 2, err.Error(), "-n and -t take some 1,000 bytes together"
	}
	return 1, err.Error(), ""
}

// explainRefusal puts a server's refusal into fpaste's words.
func explainRefusal(what string, f *apiError) (code int, _, hint string) {
	if f.RequestID != "" {
		what += " (request " + f.RequestID + ")"
	}
	ours := map[string]string{
		"authentication_required": "with the certificate of its owner, or for update and delete --token; " + makeCert,
		"certificate_required":    makeCert,
		"certificate_revoked":     "fpaste register NAME -f gets a new one",
		"certificate_expired":     "fpaste renew, or fpaste register NAME -f for a new one",
		"registration_closed":     "ask the operator for a certificate; fpaste cert NAME makes a self-signed one",
		"not_owner":               "--token takes the token that create -j printed",
		"not_admin":               "that takes an admin's certificate; leave --owner out",
		"not_trusted":             "fpaste register NAME gets a certificate of this server",
		"pki_disabled":            "fpaste cert NAME makes a self-signed certificate",
		"password_required":       "-p asks for it, or put it into FPASTE_PASSWORD",
		"password_wrong":          "try again with -p, or FPASTE_PASSWORD",
		"pow_required":            "try again later, or with a certificate; " + makeCert,
		"not_found":               "it never was, has expired, was burned or deleted",
	}[f.Code]
	switch {
	case ours != "":
		hint = ours
	case f.Code == "" && f.status >= 500:
		hint = "what answers is not FlaskPaste, which may be down: try again later"
	case f.Code == "": // none of ours
		hint = "check the server's URL: https or http, the port, the path"
	case f.retry > 0:
		hint = "try again in " + span(int64(f.retry))
	case !strings.Contains(f.Hint, "curl") && !strings.Contains(f.Hint, "X-") && !strings.Contains(f.Hint, "="):
		hint = f.Hint // else it is not in our words
	}
	switch {
	case f.status/100 == 3:
		return 1, what, "it redirects, which is never followed: set the server to its final URL"
	case f.status == 413 && f.Limit > 0:
		what += ": the server takes " + sizeWords(f.Limit)
		if hint != "" { // it is more for others
			hint = "a certificate raises it: " + makeCert
		}
		return 1, what, hint
	case f.status == 413:
		return 1, what, "it is larger than the proxy before the server lets through"
	case f.status == 404 && f.Code != "pki_disabled":
		return 3, what, hint
	case f.status == 429, f.Code == "pow_required", f.Code == "pow_failed":
		return 5, what, hint
	case f.Code != "registration_closed" && (f.status == 401 || f.status == 403):
		return 4, what, hint
	}
	return 1, what, hint
}

// each runs one step for every argument, goes on after a failure and returns the first one's exit code.
func (c *cli) each(ctx context.Context, args []string, step func(string) error) error {
	code := 0
	for _, arg := range args {
		err := step(arg)
		if err != nil && (len(args) == 1 || ctx.Err() != nil || errors.Is(err, syscall.EPIPE)) {
			return err
		} else if err != nil {
			code = cmp.Or(code, c.report(fmt.Errorf("%s: %w", arg, err)))
		}
	}
	if code != 0 {
		return fail(code, "", "")
	}
	return nil
}

// print writes to standard output; a terminal is shown what is in it without being commanded.
func (c *cli) print(format string, args ...any) error {
	c.status("")
	text := fmt.Sprintf(format, args...)
	if c.outTTY {
		return visible(c.std.out, strings.NewReader(text), true)
	}
	_, err := io.WriteString(c.std.out, text)
	return err
}

// answer prints what was asked for: v with -j, else rows.
func (c *cli) answer(v any, rows [][]string) error {
	if !c.has("json") {
		return c.table(rows)
	}
	text, err := json.Marshal(v)
	return cmp.Or(err, c.print("%s\n", text))
}

// table prints rows in columns. A terminal's are not pushed apart by a long name; the last one is never cut.
func (c *cli) table(rows [][]string) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, cells := range rows {
		for i, cell := range cells {
			if cell = oneLine(cell); c.outTTY && i < len(cells)-1 {
				cell = fmt.Sprintf("%.20s", cell)
			}
			cells[i] = cell
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	w.Flush()
	return c.print("%s", &b)
}

// note is for people: a line on stderr unless -q.
func (c *cli) note(format string, args ...any) {
	if c.status(""); !c.has("quiet") {
		fmt.Fprintf(c.std.err, "fpaste: %s\n", sentence(fmt.Sprintf(format, args...)))
	}
}

// ---- settings ----

func (c *cli) getenv(name string) string {
	value, _ := c.std.env(name)
	return value
}

// folder returns ours below an XDG variable, else below home, "" if there is none.
func (c *cli) folder(variable, below string) string {
	for _, base := range []string{c.getenv(variable), filepath.Join(c.getenv("HOME"), below)} {
		if filepath.IsAbs(base) {
			return filepath.Join(base, "fpaste")
		}
	}
	return ""
}

// readConfig reads the config file. A path in it may begin with ~/, and is relative to the config's folder.
func (c *cli) readConfig() (conf map[string]string, err error) {
	conf = map[string]string{}
	if c.config == "" {
		return conf, nil
	}
	path := filepath.Join(c.config, "config")
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the config: %w", err)
	}
	for n, line := range strings.Split(string(text), "\n") {
		key, value, ok := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch i := slices.Index(configKeys, key); {
		case key == "" && !ok || strings.HasPrefix(key, "#"):
			continue
		case !ok || i < 0:
			known := strings.Join(configKeys, ", ")
			return nil, fail(2, "known are "+known, "unknown key %q in line %d of %s", key, n+1, path)
		case (key == "encrypt" || key == "history") && value != "on" && value != "off":
			return nil, fail(2, "", "%s must be on or off in line %d of %s", key, n+1, path)
		case i < 3 && value != "" && !filepath.IsAbs(value):
			base := c.config
			if below, ok := strings.CutPrefix(value, "~/"); ok {
				base, value = c.getenv("HOME"), below
			}
			value = filepath.Join(base, value)
		}
		conf[key] = value
	}
	return conf, nil
}

// configure completes the options by the environment and then the config file, and settles server and certificate.
func (c *cli) configure() error {
	conf, err := c.readConfig()
	if err != nil {
		return err
	}
	rank := map[string]int{}
	for i, name := range configKeys {
		env := c.getenv("FPASTE_" + strings.ToUpper(name))
		if name == "server" {
			env = cmp.Or(env, c.getenv("FLASKPASTE_SERVER"))
		}
		switch {
		case c.has(name):
			rank[name] = 3
		case env != "" && i < 4:
			c.opt[name], rank[name] = env, 2
		case conf[name] != "" && (name != "expiry" || c.command.name != "update"): // a default for what is new
			c.opt[name], rank[name] = conf[name], 1
		}
	}
	// A key counts if its rank is not below the certificate's; else both are in one file: an option's certificate never
	// meets the config's key.
	if c.certDefault = rank["cert"] == 1; rank["key"] < rank["cert"] {
		c.opt["key"] = c.opt["cert"]
	}
	if s := c.opt["server"]; s != "" {
		c.server, err = parseServer(strings.Trim(s, blankish), c.has("insecure-http"))
	}
	return err
}

// pair loads the certificate for the configured server; who has it in another form is told how to make PEM of it. One
// that only the config names stops nothing when it can't be had, and register needs none.
func (c *cli) pair() (*tls.Certificate, error) {
	if c.opt["cert"] == "" || c.command.name == "register" {
		return nil, nil
	} else if c.server.Scheme == "http" {
		c.unsent = "the server's URL is http, use https"
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.opt["cert"], c.opt["key"])
	if err == nil {
		end, stamp := pair.Leaf.NotAfter, c.stateFile("reminded")
		info, err := os.Stat(stamp)
		if time.Until(end) < renewFrom && !c.has("quiet") &&
			(err != nil || time.Since(info.ModTime()).Abs() > 24*time.Hour) {
			way := "fpaste renew"
			if bytes.Equal(pair.Leaf.RawIssuer, pair.Leaf.RawSubject) {
				way = "fpaste cert NAME -f makes a new one, with a list of its own"
			}
			c.note("your certificate ends %s: %s", when(end.Unix()), way)
			os.MkdirAll(c.state, 0o700)
			os.WriteFile(stamp, nil, 0o600)
		}
		return &pair, nil
	}
	hint := ""
	for _, path := range []string{c.opt["cert"], c.opt["key"]} {
		text, _ := os.ReadFile(path)
		if bytes.Contains(text, []byte(certBegin)) && !bytes.Contains(text, []byte("PRIVATE KEY-----")) {
			hint = "--key FILE names its key"
		} else if bytes.Contains(text, []byte("ENCRYPTED")) {
			hint = "the key is encrypted: openssl pkey -in " + path + " -out plain.key makes a plain one for --key"
		} else if len(text) > 0 && !bytes.Contains(text, []byte("-----BEGIN ")) {
			hint = "it is not PEM; of a .p12: openssl pkcs12 -in " + path + " -nodes -out me.pem, then --cert me.pem"
		}
	}
	if !c.certDefault {
		return nil, fail(1, hint, "loading the certificate: %v", err)
	}
	c.unsent = err.Error() + "; " + makeCert
	c.note("going on without your certificate: %v; %s", err, hint)
	return nil, nil
}

// client returns a client for base, with the certificate if base has the configured origin, else without.
func (c *cli) client(base *url.URL) (*apiClient, error) {
	place := base.Scheme + "://" + base.Host + base.Path
	if api := c.clients[place]; api != nil {
		return api, nil
	}
	trusted := c.server != nil && base.Scheme == c.server.Scheme && base.Host == c.server.Host
	var pair *tls.Certificate
	var roots *x509.CertPool
	if ca := c.opt["cacert"]; ca != "" {
		if roots, _ = x509.SystemCertPool(); trusted || roots == nil { // our server's own counts alone for it
			roots = x509.NewCertPool()
		}
		text, _ := os.ReadFile(ca) // what can't be read has none
		if !roots.AppendCertsFromPEM(text) && trusted && base.Scheme == "https" {
			return nil, fail(1, "--cacert takes a PEM file", "no CA certificate can be read from %q", ca)
		}
	}
	if trusted {
		var err error
		if pair, err = c.pair(); err != nil {
			return nil, err
		}
		base.User = c.server.User
	}
	api := newAPIClient(base, trusted, pair, roots)
	api.note, api.work = c.note, c.work
	if c.has("verbose") {
		api.trace = c.note
	}
	c.clients[place] = api
	return api, nil
}

// own returns the client of the configured server.
func (c *cli) own() (*apiClient, error) {
	if c.server == nil {
		return nil, fail(2, "fpaste --server https://paste.example.org ..., the environment's FPASTE_SERVER, or a "+
			`line "server = https://..." in `+cmp.Or(c.config, "~/.config/fpaste")+"/config", "no server is configured")
	}
	return c.client(c.server)
}

// ---- links ----

// pasteRef is a link or an id taken apart; key and token may come from the history.
type pasteRef struct {
	api   *apiClient
	place string // the link without its key
	path  string // of the API: /id or /s/id
	id    string
	key   *sealKey
	token string
	past  historyEntry
}

func (r pasteRef) link() string {
	if r.key == nil {
		return r.place
	}
	return r.place + "#" + r.key.fragment()
}

// resolve settles a link or id, and what can be wrong with it, before any request. For short, its kind is meant.
func (c *cli) resolve(arg string) (r pasteRef, err error) {
	place, fragment, keyed := strings.Cut(mailedKey.ReplaceAllString(strings.Trim(arg, blankish), "#$1"), "#")
	form, path := pastePath, "/"+place
	if c.command.name == "short" {
		form, path = shortPath, "/s/"+place
	}
	var server *url.URL // a link's
	if strings.Contains(place, "://") {
		if server, err = parseServer(place, c.has("insecure-http")); err != nil {
			return r, err
		}
		path = server.Path
	}
	m := form.FindStringSubmatch(path)
	if m == nil || server == nil && m[1] != "" {
		return r, fail(2, "a link as it was printed, or the id alone", "%q is neither a link nor an id", place)
	}
	if server == nil {
		r.api, err = c.own()
	} else {
		server.Path = m[1]
		r.api, err = c.client(server)
	}
	if err != nil {
		return r, err
	}
	r.path, r.id = m[2], m[3]
	r.place = r.api.base.String() + r.path
	r.past = c.known(r.place)
	r.token = cmp.Or(c.opt["token"], r.past.Token)
	if !keyed {
		_, fragment, keyed = strings.Cut(r.past.Link, "#")
	}
	if keyed {
		r.key = new(sealKey)
		*r.key, err = parseSealKey(fragment)
	}
	return r, err
}

// gone passes an error on, and has the history forget what the paste's own server says is not there.
func (c *cli) gone(r pasteRef, err error) error {
	if f, ok := errors.AsType[*apiError](err); ok && f.Code == "not_found" && f.status == 404 {
		c.forget(r.place)
	}
	return err
}

// ---- create, update ----

// sealing tells whether content is encrypted: option, then config, and on if nothing is said.
func (c *cli) sealing() bool { return !c.has("no-encrypt") && c.opt["encrypt"] != "off" }

// header collects the options that the server has to know. Changing a paste, an empty one removes what was set.
func (c *cli) header(ctx context.Context, sealed, changing bool) (h map[string]string, err error) {
	h = map[string]string{}
	names := map[string]string{"X-Expiry": "expiry", "X-Display-Name": "name", "Content-Type": "type"}
	for name, option := range names {
		if c.has(option) && (!sealed || option == "expiry") { // else it travels sealed, and the history knows it
			h[name] = c.opt[option]
		}
		if oneLine(h[name]) != h[name] {
			return nil, fail(2, "", "%s can't be %q", option, h[name])
		}
	}
	if c.has("burn") {
		h["X-Burn-After-Read"] = "true"
	}
	if c.has("password") {
		h["X-Paste-Password"], err = c.password(ctx, true, changing)
	}
	return h, err
}

// password comes from FPASTE_PASSWORD or the terminal: an argument could be read by every user of the machine.
func (c *cli) password(ctx context.Context, twice, removable bool) (string, error) {
	pw, given := c.std.env("FPASTE_PASSWORD")
	if !given {
		var err, failed error
		again := ""
		if pw, err = askTerminal(ctx, "Password: ", true); err == nil && twice {
			again, failed = askTerminal(ctx, "Once more: ", true)
		}
		if err = cmp.Or(err, failed); err != nil {
			return "", fail(4, "put it into the environment's FPASTE_PASSWORD", "asking for the password: %v", err)
		} else if twice && again != pw {
			return "", fail(4, "", "the two passwords differ")
		}
	}
	if pw == "" && !(given && removable) || len(pw) > 1024 || strings.TrimSpace(pw) != pw || oneLine(pw) != pw {
		return "", fail(2, "", "a password has 1 to 1024 bytes, no control characters and no blank at either end")
	}
	return pw, nil
}

// source reads FILE or "-" for sending, as often as it takes, and names it.
func (c *cli) source(ctx context.Context, arg string, key *sealKey) (body bodySource, name string, err error) {
	in, title := c.std.in, sealTitle{Name: c.opt["name"], Type: c.opt["type"]}
	if arg != "-" {
		f, err := os.Open(arg)
		if err != nil {
			return nil, "", fail(2, "fpaste help lists the commands", "%v", err)
		}
		defer f.Close()
		in, title.Name = f, cmp.Or(title.Name, strings.ToValidUTF8(filepath.Base(arg), "_"))
	}
	if isTerminal(in) {
		c.note("reading from the terminal; Ctrl-D on an empty line ends it")
	}
	head := bufio.NewReader(interruptible(ctx, in))
	if _, err := head.Peek(1); err == io.EOF {
		return nil, "", errors.New("there is nothing to send: it is empty")
	} else if errors.Is(err, syscall.EISDIR) {
		return nil, "", fail(2, "tar c FOLDER | fpaste -n FOLDER.tar", "%s is a folder: fpaste takes files", arg)
	}
	var content io.Reader = head
	if key != nil {
		if content, err = sealFrom(head, *key, title); err != nil {
			return nil, "", err
		}
	}
	again, size, err := keep(content)
	return func() (io.Reader, int64) { return c.meter("uploading", again(), size), size }, title.Name, err
}

// send makes a call about r, with the content of arg unless that is "". name is what only we know.
func (c *cli) send(ctx context.Context, r pasteRef, q apiCall, arg string) (a item, name string, err error) {
	if q.sealed = r.key; arg != "" {
		if q.body, name, err = c.source(ctx, arg, r.key); err != nil {
			return a, "", err
		}
	}
	a, err = r.api.item(ctx, q, r.id)
	return a, name, c.gone(r, err)
}

func (c *cli) create(ctx context.Context, args []string) error {
	if c.has("raw") && c.sealing() {
		return fail(2, "fpaste -E -r FILE", "a raw URL of an encrypted paste shows nothing: -r goes with -E")
	}
	if c.has("encrypt") && c.has("no-encrypt") {
		return fail(2, "one of -e and -E", "to encrypt and not to encrypt is too much")
	}
	header, err := c.header(ctx, c.sealing(), false)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		args = []string{"-"}
	}
	return c.each(ctx, args, func(arg string) error {
		r := pasteRef{api: c.home}
		if c.sealing() {
			r.key = new(newSealKey())
		}
		a, name, err := c.send(ctx, r, apiCall{method: "POST", path: "/", header: maps.Clone(header)}, arg)
		if err != nil {
			return err
		}
		if len(args) > 1 {
			a.all["file"] = arg
		}
		r.place = c.home.base.String() + "/" + a.ID
		return c.made(r, name, a)
	})
}

// made remembers and prints what was created or changed, and says so when its life was shortened.
func (c *cli) made(r pasteRef, name string, a item) error {
	if token := cmp.Or(a.DeleteToken, r.token); a.DeleteToken != "" || r.past.Link != "" {
		c.remember(historyEntry{r.link(), name, token, a.CreatedAt, a.ExpiresAt})
	}
	asked, err := parseExpiry(c.opt["expiry"], a.CreatedAt) // by the server's clock
	if c.command.name == "update" && c.has("expiry") {
		c.note("it lives until %s", when(a.ExpiresAt))
	} else if err == nil && a.ExpiresAt < asked {
		c.note("it lives until %s, not %s: that is the longest life that the server gives you (fpaste info; "+
			"a certificate may raise it)", when(a.ExpiresAt), c.opt["expiry"])
	}
	link := r.link()
	if a.all["link"], a.all["name"] = link, name; c.has("raw") {
		link += "/raw"
	}
	return c.answer(a.all, [][]string{{link}})
}

func (c *cli) update(ctx context.Context, args []string) error {
	r, err := c.resolve(args[0])
	named := c.has("name") || c.has("type")
	content := append(args, "-")[1]
	if len(args) == 1 && (c.has("expiry") || c.has("password") || named) {
		content = "" // only the options
	}
	switch {
	case err != nil:
		return err
	case !r.api.trusted:
		return errElsewhere
	case r.key != nil && c.has("no-encrypt"):
		return fail(2, "fpaste -E makes a new, readable paste", "the link has a key: its content stays encrypted")
	case r.key == nil && c.sealing() && content != "":
		return fail(2, "give the whole link, or -E for a paste that is readable", "the link has no key to encrypt with")
	case (r.key != nil && named || c.has("type")) && content == "":
		return fail(2, "give the content too", "the type, and the name of an encrypted paste, are part of its content")
	case r.key != nil && content != "": // under another key the link would be worth nothing
		proof := map[string]string{"X-Read-Proof": r.key.readProof()}
		for _, method := range []string{"HEAD", "GET"} { // a refusal of the first does not say why
			resp, err := r.api.do(ctx, apiCall{method: method, path: r.path + "/raw", header: proof})
			if err == nil {
				resp.Body.Close()
				break
			} else if f, ok := errors.AsType[*apiError](err); ok && f.Code == "read_proof_required" {
				return err
			}
		}
	}
	header, err := c.header(ctx, r.key != nil, true)
	if err != nil {
		return err
	}
	a, name, err := c.send(ctx, r, apiCall{method: "PUT", path: r.path, header: header, token: r.token}, content)
	if err != nil {
		return err
	}
	return c.made(r, cmp.Or(name, r.past.Name), a)
}

// ---- meta, get ----

// what says in words what an item is.
func what(a item) string {
	words := a.MIMEType + ", " + sizeWords(a.Size)
	if a.TargetURL != "" {
		words = "leads to " + a.TargetURL
	} else if a.ReadProof {
		words = "encrypted, " + sizeWords(a.Size)
	}
	if a.Burn {
		words += ", burns: the first read is the last"
	}
	if a.Password {
		words += ", needs a password"
	}
	return words
}

// look resolves a link and asks what may be said of it without following it, which never burns.
func (c *cli) look(ctx context.Context, arg string) (r pasteRef, a item, err error) {
	if r, err = c.resolve(arg); err == nil {
		call := apiCall{method: "GET", path: r.path}
		if c.command.name == "short" {
			call.path += "/info"
		}
		a, _, err = c.send(ctx, r, call, "")
	}
	return r, a, err
}

func (c *cli) meta(ctx context.Context, args []string) error {
	return c.each(ctx, args, func(arg string) error {
		r, a, err := c.look(ctx, arg)
		if err != nil {
			return err
		}
		name := cmp.Or(r.past.Name, a.DisplayName, r.place)
		return c.answer(a.all, [][]string{{name}, {what(a)}, {"ends " + when(a.ExpiresAt)}})
	})
}

func (c *cli) get(ctx context.Context, args []string) error {
	r, a, err := c.look(ctx, args[0])
	if err != nil {
		return err
	}
	output := c.opt["output"]
	toFile := c.has("remote-name") || c.has("output") && output != "-"
	textual := strings.HasPrefix(a.MIMEType, "text/") || strings.HasPrefix(a.MIMEType, "application/json")
	switch {
	case a.ReadProof && r.key == nil:
		return fail(4, "give the whole link, in quotes",
			"this paste is encrypted and its key, the link's part after #, is missing")
	case a.Burn && !a.ReadProof && r.key != nil:
		return fail(7, "fpaste get "+r.place,
			"the link has a key, but this paste is not encrypted; it was not read, and so not burned")
	case !toFile && c.outTTY && r.key == nil && !textual && !c.has("force"):
		return errBinary
	}
	header := map[string]string{"Accept": "*/*"}
	if r.key != nil {
		header["X-Read-Proof"] = r.key.readProof()
	}
	if a.Password || c.has("password") {
		if !r.api.trusted {
			return errElsewhere
		} else if header["X-Paste-Password"], err = c.password(ctx, false, false); err != nil {
			return err
		}
	}
	var file *newFile
	if toFile {
		if file, err = beginFile(output, c.has("force")); err != nil {
			return err
		}
		defer file.drop()
	}
	resp, err := r.api.do(ctx, apiCall{method: "GET", path: r.path + "/raw", header: header})
	if c.gone(r, err) != nil {
		return err
	}
	defer resp.Body.Close()
	stored := func() io.Reader { return c.meter("downloading", resp.Body, resp.ContentLength) }
	if a.Burn { // it is nowhere else any more: all of it is here before anything is done with it
		stored, _, _ = keep(stored())
	}
	open := func() (content io.Reader, sender string, err error) {
		if r.key == nil {
			return stored(), a.DisplayName, nil
		}
		content, title, err := openFrom(stored(), *r.key)
		return content, title.Name, err
	}
	save := func(file *newFile) error {
		content, sender, err := open()
		if err == nil {
			_, err = io.Copy(file, content)
		}
		if err == nil {
			err = file.commit(safeName(sender, r.id))
		}
		if c.status(""); err == nil && file.path != output {
			fmt.Fprintf(c.std.err, "fpaste: saved as %s\n", oneLine(file.path))
		}
		return err
	}
	if toFile {
		err = save(file)
	} else if content, _, failed := open(); failed != nil {
		err = failed
	} else {
		err = c.show(content)
	}
	if err == nil || !a.Burn || ctx.Err() != nil || err == errEnough {
		return err
	}
	fresh := r.id + "-" + rand.Text()[:8]
	for _, path := range []string{"", fresh, filepath.Join(os.TempDir(), fresh)} {
		file, failed := beginFile(path, false)
		if failed != nil {
			continue
		}
		defer file.drop()
		if failed = save(file); failed == nil && (toFile || err == errBinary) {
			return nil
		} else if failed == nil { // it is not where it was asked for
			break
		}
	}
	return err
}

// show writes content to standard output. A terminal gets no binary unless that is asked for: errBinary.
func (c *cli) show(content io.Reader) error {
	if c.status(""); !c.outTTY {
		n, err := io.Copy(c.std.out, content)
		if n > 0 && errors.Is(err, syscall.EPIPE) {
			return errEnough
		}
		return err
	}
	c.errTTY = false // what follows is the content's: a status line would overwrite its last line
	head := bufio.NewReader(content)
	seen, _ := head.Peek(4096)
	for n := 0; n < 3 && len(seen) > 3 && !utf8.Valid(seen); n++ { // its last character may be cut
		seen = seen[:len(seen)-1]
	}
	if !c.has("force") && (!utf8.Valid(seen) || bytes.IndexByte(seen, 0) >= 0) {
		return errBinary
	}
	return visible(c.std.out, head, true)
}

// ---- delete, list ----

func (c *cli) remove(ctx context.Context, args []string) error {
	if len(args) == 1 && args[0] == "-" {
		text, err := io.ReadAll(interruptible(ctx, c.std.in))
		if err != nil {
			return fmt.Errorf("reading what to delete: %w", err)
		}
		args = strings.Fields(string(text))
	}
	return c.each(ctx, args, func(arg string) error {
		r, err := c.resolve(arg)
		if err != nil {
			return err
		}
		_, _, err = c.send(ctx, r, apiCall{method: "DELETE", path: r.path, token: r.token}, "")
		if err == nil {
			c.note("deleted %s", r.id)
			c.forget(r.place)
		}
		return err
	})
}

// list is search without a text, and for short its list. The text is looked for here: names may be encrypted there.
func (c *cli) list(ctx context.Context, args []string) error {
	query, text := url.Values{}, strings.ToLower(strings.Join(args, ""))
	for _, name := range []string{"type", "after", "before", "owner"} {
		if value, given := c.opt[name]; given {
			day, err := time.ParseInLocation(time.DateOnly, value, time.Local)
			if _, ok := parseMoment(value); err == nil {
				value = strconv.FormatInt(day.Unix(), 10)
			} else if !ok && (name == "after" || name == "before") {
				return fail(2, "2026-11-28, 2026-11-28T12:00:00Z or Unix seconds", "--%s can't be %q", name, value)
			}
			query.Set(name, value)
		}
	}
	path, below := "/pastes", "/"
	if c.command.name == "short" {
		path, below = "/s", "/s/"
	}
	all, failed := c.home.pages(ctx, path, query)
	rows, found := [][]string{}, []any{}
	for _, a := range all {
		name := c.known(c.home.base.String() + below + a.ID).Name
		if !strings.Contains(strings.ToLower(a.ID+"\n"+a.DisplayName+"\n"+name), text) {
			continue
		}
		a.all["name"] = name
		found = append(found, a.all)
		row := []string{a.ID, date(a.CreatedAt)[:10], date(a.ExpiresAt), cmp.Or(name, a.DisplayName, "-"), what(a)}
		if c.has("ids") {
			row = row[:1]
		} else if len(rows) == 0 {
			rows = append(rows, []string{"ID", "CREATED", "ENDS", "NAME", "WHAT"})
		}
		rows = append(rows, row)
	}
	return cmp.Or(c.answer(found, rows), failed)
}

// ---- history ----

// historyEntry is a line of the history: JSON in a file of mode 0600 that is only appended to and, for what is gone,
// blanked in place, so that programs running side by side need no lock. The last line on a link counts.
type historyEntry struct {
	Link    string `json:"link"`
	Name    string `json:"name,omitempty"`
	Token   string `json:"token,omitempty"`
	Created int64  `json:"created,omitempty"`
	Expires int64  `json:"expires"`
}

func (e historyEntry) place() string {
	place, _, _ := strings.Cut(e.Link, "#")
	return place
}

// stateFile returns "" where there is no home: nothing can be read or written there.
func (c *cli) stateFile(name string) string {
	if c.state == "" {
		return ""
	}
	return filepath.Join(c.state, name)
}

// remember appends to the history. Failing is no failure of the creation, which has happened.
func (c *cli) remember(e historyEntry) {
	if c.opt["history"] == "off" || c.state == "" {
		return
	}
	os.MkdirAll(c.state, 0o700)
	f, err := os.OpenFile(c.stateFile("history"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err == nil {
		line, _ := json.Marshal(e) // strings and numbers cannot fail
		// One write: lines of two programs don't mix, nor does it hang on one that a full disk has cut.
		_, err = fmt.Fprintf(f, "\n%s\n", line)
		err = errors.Join(err, f.Chmod(0o600), f.Close())
	}
	if err != nil {
		c.note("not in the history, so keep the link; deleting takes the certificate or the token of -j: %v", err)
	}
}

// known returns what the history has of a link without key.
func (c *cli) known(place string) historyEntry {
	if c.pastAt == nil {
		c.pastAt = map[string]*historyEntry{}
		text, err := os.ReadFile(c.stateFile("history"))
		if !errors.Is(err, fs.ErrNotExist) { // none yet, or none at all
			c.unread = err
		}
		for line := range bytes.Lines(text) {
			var e historyEntry
			if json.Unmarshal(line, &e) != nil {
				continue
			} else if old := c.pastAt[e.place()]; old != nil {
				*old = e
			} else {
				c.pastAt[e.place()] = &e
				c.past = append(c.past, &e)
			}
		}
	}
	return *cmp.Or(c.pastAt[place], &historyEntry{})
}

// forget overwrites what the history has of a link with blanks: key and token are gone, no other line moves.
func (c *cli) forget(place string) {
	f, err := os.OpenFile(c.stateFile("history"), os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	text, _ := io.ReadAll(f)
	at := int64(0)
	for line := range bytes.Lines(text) {
		var e historyEntry
		if json.Unmarshal(line, &e) == nil && e.place() == place {
			f.WriteAt(bytes.Repeat([]byte(" "), len(bytes.TrimRight(line, "\n"))), at)
		}
		at += int64(len(line))
	}
}

func (c *cli) history(ctx context.Context, _ []string) error {
	if c.has("clear") {
		if isTerminal(c.std.in) && !c.has("force") {
			answer, err := askTerminal(ctx, "Forget all keys and delete tokens? They exist nowhere else. [y/N] ", false)
			if err != nil || !strings.HasPrefix(strings.ToLower(answer), "y") {
				return cmp.Or(err, fail(1, "", "nothing was forgotten"))
			}
		}
		os.Truncate(c.stateFile("history"), 0) // whatever it is a link to
		if err := os.Remove(c.stateFile("history")); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	c.known("") // reads it
	var rows [][]string
	for _, e := range c.past {
		ends := date(e.Expires)
		if e.Expires < time.Now().Unix() {
			ends = "ended?" // reads may have renewed it: only the server knows
		}
		rows = append(rows, []string{date(e.Created), ends, cmp.Or(e.Name, "-"), e.Link})
		if c.has("json") {
			text, _ := json.Marshal(e) // strings and numbers cannot fail
			rows[len(rows)-1] = []string{string(text)}
		}
	}
	return cmp.Or(c.unread, c.table(rows))
}

// ---- short URLs ----

func (c *cli) short(ctx context.Context, args []string) (err error) {
	verb, rest := args[0], args[1:]
	target := strings.Trim(verb, blankish)
	switch {
	case (verb == "info" || verb == "delete") != (len(rest) > 0):
		return fail(2, "fpaste help short", "short takes a URL, list, info ID... or delete ID...")
	case verb == "info":
		return c.meta(ctx, rest)
	case verb == "delete":
		return c.remove(ctx, rest)
	case keyBehind.MatchString(target):
		return fail(2, "shorten the part before #, then add # and the key to the short link yourself",
			"the link has a key, which the server must not see: %q was not sent", target)
	}
	if c.home, err = c.own(); err != nil {
		return err
	} else if verb == "list" {
		return c.list(ctx, nil)
	}
	header, err := c.header(ctx, false, false)
	if err != nil {
		return err
	}
	a, err := c.home.item(ctx, apiCall{method: "POST", path: "/s", header: header, body: textBody(target)}, "")
	if err != nil {
		return err
	}
	r := pasteRef{place: c.home.base.String() + "/s/" + a.ID}
	return c.made(r, target, a)
}

// ---- certificates ----

// newIdentity makes a key, has it certified by the server or by itself, and puts both files in place: nothing is
// touched before the certificate is there and known to be for this key, and the config names them at last.
func (c *cli) newIdentity(ctx context.Context, args []string) error {
	name := args[0]
	if c.config == "" {
		return fail(1, "set XDG_CONFIG_HOME or HOME", "there is no folder for the key")
	} else if oneLine(name) != name || name == "" || len(name) > 64 {
		return fail(2, "fpaste help "+c.command.name, "a name has 1 to 64 letters, digits, blanks and . _ - @")
	} else if err := os.MkdirAll(c.config, 0o700); err != nil {
		return err
	}
	keyFile, err := beginFile(filepath.Join(c.config, "client.key"), c.has("force"))
	if err != nil {
		return err
	}
	defer keyFile.drop()
	certFile, err := beginFile(filepath.Join(c.config, "client.crt"), c.has("force"))
	if err != nil {
		return err
	}
	defer certFile.drop()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // crypto/rand ends the program instead
	der, _ := x509.MarshalPKCS8PrivateKey(key)                // no other curve, no error
	keyText := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	var text []byte
	if c.command.name == "register" {
		text, err = c.signed(ctx, "/csr", name, key)
	} else {
		text, err = pseudonym(name, key)
	}
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(text, keyText)
	if err != nil {
		return fmt.Errorf("checking the new certificate: %w", err)
	}
	_, err = keyFile.Write(keyText)
	_, errCert := certFile.Write(text)
	had, none := os.ReadFile(keyFile.path)
	if err = cmp.Or(err, errCert, certFile.Sync()); err == nil {
		err = keyFile.commit("")
	}
	if err != nil {
		return err
	} else if err = certFile.commit(""); err != nil { // the old key is the old certificate's: they stay a pair
		if os.Remove(keyFile.path); none == nil {
			replaceFile(keyFile.path, had)
		}
		return err
	}
	c.note("wrote %s and %s: good until %s", keyFile.path, certFile.path, date(pair.Leaf.NotAfter.Unix()))
	if err := c.settle(map[string]string{"cert": certFile.path, "key": keyFile.path}); err != nil {
		return fail(1, "use --cert "+certFile.path+" --key "+keyFile.path, "the config was not changed: %v", err)
	}
	return nil
}

// settle has the config name these, and server and authority if they are given.
func (c *cli) settle(wanted map[string]string) error {
	if c.server != nil {
		wanted["server"] = c.server.String()
	}
	if ca := c.opt["cacert"]; ca != "" {
		wanted["cacert"], _ = filepath.Abs(ca)
	}
	path := filepath.Join(c.config, "config")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	names := slices.Sorted(maps.Keys(wanted))
	line := regexp.MustCompile(`(?m)^[ \t]*(` + strings.Join(names, "|") + `)[ \t]*=.*\n?`)
	text := append(bytes.TrimRight(line.ReplaceAll(old, nil), "\n"), '\n')
	for _, name := range names {
		text = fmt.Appendf(text, "%s = %s\n", name, wanted[name])
	}
	return replaceFile(path, text)
}

// signed has the server answer a request for a certificate of name and key.
func (c *cli) signed(ctx context.Context, path, name string, key crypto.PrivateKey) ([]byte, error) {
	wish := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}
	der, err := x509.CreateCertificateRequest(rand.Reader, wish, key)
	if err != nil {
		return nil, err
	}
	csr := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	return c.home.text(ctx, apiCall{method: "POST", path: path, body: textBody(csr), certified: true}, certBegin)
}

func pseudonym(name string, key *ecdsa.PrivateKey) ([]byte, error) {
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, // the serial is drawn
		NotBefore: time.Now().Add(-5 * time.Minute), NotAfter: time.Now().Add(certLife), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

// renew keeps the key, so that one rename changes everything: a new key would need two, and between them nothing
// would fit. Of the file only its first certificate is replaced, in that one's line ends.
func (c *cli) renew(ctx context.Context, _ []string) error {
	path, keyPath, pair := c.opt["cert"], c.opt["key"], c.home.pair
	if pair == nil {
		return fail(2, "--cert FILE, or the config, names the one to renew", "there is no certificate to renew: %s",
			cmp.Or(c.unsent, "none is configured; fpaste register NAME gets one"))
	}
	answer, err := c.signed(ctx, "/pki/renew", pair.Leaf.Subject.CommonName, pair.PrivateKey)
	if err != nil {
		return err
	}
	old, _ := os.ReadFile(path) // which could be read just now, as its key could
	key, _ := os.ReadFile(keyPath)
	at, fresh := certBlock.FindIndex(old), certBlock.Find(answer)
	if at == nil || fresh == nil {
		return strange(200)
	}
	if bytes.Contains(old[at[0]:at[1]], []byte("\r\n")) {
		fresh = bytes.ReplaceAll(fresh, []byte("\n"), []byte("\r\n"))
	}
	text := slices.Concat(old[:at[0]], fresh, old[at[1]:])
	if keyPath == path {
		key = text
	}
	renewed, err := tls.X509KeyPair(text, key)
	if err != nil {
		return fmt.Errorf("checking the new certificate, %s is as it was: %w", path, err)
	}
	if err := replaceFile(path, text); err != nil {
		return err
	}
	c.note("%s is good until %s", path, date(renewed.Leaf.NotAfter.Unix()))
	return nil
}

// ---- info, help ----

func (c *cli) info(ctx context.Context, _ []string) error {
	var about struct {
		Name, Version string
		Limits        map[string]json.RawMessage
		You           struct{ Tier, Owner string }
	}
	var may tierLimits
	var raw json.RawMessage
	err := c.home.ask(ctx, apiCall{method: "GET", path: "/"}, &raw)
	if err == nil && json.Unmarshal(raw, &about) != nil {
		err = strange(200)
	}
	if err != nil {
		return err
	}
	json.Unmarshal(about.Limits[about.You.Tier], &may)
	certificate := "none: " + makeCert
	if c.home.pair != nil {
		certificate = c.home.pair.Leaf.Subject.CommonName + ", good until " + when(c.home.pair.Leaf.NotAfter.Unix())
	} else if c.opt["cert"] != "" {
		certificate = "not used: " + cmp.Or(c.unsent, "the server refuses it")
	}
	return c.answer(raw, [][]string{{"server", c.home.base.String() + ", " + about.Name + " " + about.Version},
		{"you are", about.You.Tier}, {"owner", cmp.Or(about.You.Owner, "-")}, {"certificate", certificate},
		{"may send", fmt.Sprintf("up to %s; it lives %s, with -x up to %s", sizeWords(may.MaxSize),
			span(may.DefaultExpiry), span(may.MaxExpiry))}})
}

func (c *cli) version(context.Context, []string) error { return c.print("fpaste %s\n", version) }

func (c *cli) help(_ context.Context, args []string) error {
	if len(args) > 0 {
		k, ok := findCommand(args[0])
		if !ok {
			return fail(2, "fpaste help lists the commands", "unknown command %q", args[0])
		}
		return c.print("usage: fpaste %s %s\n%s\n%s\n%s", k.name, k.args, k.brief, k.options, everywhere)
	}
	list := ""
	for _, k := range clientCommands() {
		list += fmt.Sprintf("  %-11s %s\n", k.name, k.brief)
	}
	return c.print("fpaste shares files and text through a FlaskPaste server, encrypted end to end.\n\n%s\n"+
		"fpaste help COMMAND shows its options. Without a command: create.\n%s\n%s"+
		"exit: 0 done, 1 failed, 2 usage, 3 not found, 4 authentication, 5 limit, 6 network, 7 decryption\n",
		list, clientCommands()[0].options, everywhere)
}

// completion completes commands, options and files: one list of words for all of them.
func (c *cli) completion(_ context.Context, args []string) error {
	script, ok := map[string]string{
		"bash": "complete -o filenames -f -W '%s' fpaste\n",
		"zsh": "#compdef fpaste\n_fpaste() { compadd -- %s; _files }\n" + // sourced, or a file of $fpath
			`if [ "$funcstack[1]" = _fpaste ]; then _fpaste; else compdef _fpaste fpaste; fi` + "\n",
		"fish": "complete -c fpaste -a '%s'\n",
	}[args[0]]
	if !ok {
		return fail(2, "bash, zsh or fish", "unknown shell %q", args[0])
	}
	var words []string
	for _, k := range append(clientCommands(), cliCommand{options: everywhere}) {
		words = append(words, k.name)
		for _, o := range optionsIn(k.options) {
			words = append(words, "--"+o[2])
		}
	}
	slices.Sort(words)
	return c.print(script, strings.TrimSpace(strings.Join(slices.Compact(words), " ")))
}

// ---- terminal ----

// isTerminal knows a terminal by its kind: a character device that is not /dev/null.
func isTerminal(x any) bool {
	f, _ := x.(*os.File)
	info, err := f.Stat() // which fails for no file too
	null, _ := os.Stat(os.DevNull)
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && !os.SameFile(info, null)
}

// askTerminal asks on the controlling terminal, as standard input may be the content. What is typed to a silent
// question is not shown; the echo is back however it ends.
func askTerminal(ctx context.Context, question string, silent bool) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", errors.New("there is no terminal")
	}
	defer tty.Close()
	stty := func(arg string) error {
		cmd := exec.Command("stty", arg)
		cmd.Stdin, cmd.Env = tty, []string{"PATH=" + os.Getenv("PATH")} // nothing of the environment's secrets
		return cmd.Run()
	}
	if silent {
		defer stty("echo")
		if stty("-echo") != nil {
			return "", errors.New("the terminal can't hide it")
		}
		defer tty.WriteString("\n")
	}
	tty.WriteString(question)
	line, err := bufio.NewReader(interruptible(ctx, tty)).ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// interruptible is r, ending when ctx does, although nobody writes to the pipe or types on the terminal.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		var n int
		var err error
		mine, done := make([]byte, len(p)), make(chan struct{}) // p is the caller's again when this was given up
		go func() {
			n, err = r.Read(mine)
			close(done)
		}()
		select {
		case <-done:
			return copy(p, mine[:n]), err
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	})
}

// work solves a challenge on all cores; a terminal sees bits, rate and the time to expect.
func (c *cli) work(ctx context.Context, nonce string, difficulty int) (string, error) {
	start := time.Now()
	c.looked = time.Time{} // what is shown is no more the case
	return solve(ctx, nonce, difficulty, runtime.NumCPU(), func(tried uint64) {
		rate := float64(tried) / time.Since(start).Seconds()
		c.status(fmt.Sprintf("proof of work: %d bits, %.1f million tries/s, about %.1f s", difficulty, rate/1e6,
			float64(uint64(1)<<difficulty)/rate))
	})
}

// meter shows on a terminal how much of r has passed, if it is large.
func (c *cli) meter(what string, r io.Reader, total int64) io.Reader {
	start, done := time.Now(), int64(0)
	return readFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		if done += int64(n); total >= progressFrom {
			c.status(fmt.Sprintf("%s %d%% of %s, %s/s", what, 100*done/total, sizeWords(total),
				sizeWords(int64(float64(done)/time.Since(start).Seconds()))))
		}
		return n, err
	})
}

// status shows one line that the next one overwrites, now and then and on a terminal only; "" takes it away.
func (c *cli) status(line string) {
	if c.errTTY && !c.has("quiet") && (line == "" && c.shown || line != "" && time.Since(c.looked) >= progressStep) {
		fmt.Fprintf(c.std.err, "\r%-79.79s\r", line)
		c.looked, c.shown = time.Now(), line != ""
	}
}

// visible copies r to w with control characters, bidirectional marks and bytes that are no UTF-8 in visible form. Tabs
// and line ends stay where lines are expected.
func visible(w io.Writer, r io.Reader, lines bool) error {
	in, out := bufio.NewReader(r), bufio.NewWriter(w)
	defer out.Flush()
	for {
		ch, n, err := in.ReadRune()
		crlf := false
		if ch == '\r' && err == nil {
			next, _ := in.Peek(1)
			crlf = string(next) == "\n"
		}
		switch {
		case err == io.EOF:
			return out.Flush()
		case err != nil:
			return err
		case ch == utf8.RuneError && n == 1:
			in.UnreadRune()
			b, _ := in.ReadByte()
			fmt.Fprintf(out, `\x%02x`, b)
		case lines && (ch == '\n' || ch == '\t' || crlf):
			out.WriteRune(ch)
		case unicode.In(ch, unicode.Cc, unicode.Bidi_Control, unicode.Zl, unicode.Zp):
			out.WriteString(strings.Trim(strconv.QuoteRuneToASCII(ch), "'"))
		default:
			out.WriteRune(ch)
		}
	}
}

// oneLine is visible for what must stay in its line: names, the server's sentences.
func oneLine(s string) string {
	var b strings.Builder
	visible(&b, strings.NewReader(s), false) // memory does not fail
	return b.String()
}

// ---- files ----

// newFile has mode 0600 and appears whole under its name or not at all: temporary beside it, synced, renamed.
type newFile struct {
	*os.File
	path  string // a folder with its slash, or "", until commit names the file
	force bool   // over a file that is there
}

func beginFile(path string, force bool) (f *newFile, err error) {
	f = &newFile{path: path, force: force}
	if err = f.free(); err == nil {
		f.File, err = os.CreateTemp(filepath.Dir(path), ".fpaste-*")
	}
	return f, err
}

// free tells whether the file could take its place.
func (f *newFile) free() error {
	info, err := os.Lstat(f.path)
	switch {
	case f.path == "", strings.HasSuffix(f.path, "/"), errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && info.IsDir():
		return fail(1, "get -o FOLDER/ keeps the sender's name", "%s is a folder", f.path)
	case err == nil && !info.Mode().IsRegular():
		return fail(1, "", "%s is not a file that can be replaced", f.path)
	case err == nil && !f.force:
		return fail(1, "-f overwrites it", "%s exists", f.path)
	}
	return err
}

// commit puts the file in its place, under name if it has none yet.
func (f *newFile) commit(name string) error {
	if dir, own := filepath.Split(f.path); own == "" {
		f.path = dir + name
	}
	if err := cmp.Or(f.free(), f.Sync()); err != nil {
		return err
	}
	if !f.force {
		holder, err := os.OpenFile(f.path, os.O_CREATE|os.O_EXCL, 0o600) // whoever comes now finds the name taken
		if err != nil {
			return err
		}
		holder.Close()
	}
	err := os.Rename(f.Name(), f.path)
	syncDir(filepath.Dir(f.path)) // the content is safe; not every system can sync a folder
	return err
}

// drop ends it; the temporary name is gone already if it was committed.
func (f *newFile) drop() {
	f.Close()
	os.Remove(f.Name())
}

// replaceFile gives a file, which may not be there yet, new content in one step. Its mode stays, and a link stays one.
func replaceFile(path string, text []byte) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	f, err := beginFile(path, true)
	if err != nil {
		return err
	}
	defer f.drop()
	if info, err := os.Stat(path); err == nil {
		f.Chmod(info.Mode().Perm())
	}
	if _, err := f.Write(text); err != nil {
		return err
	}
	return f.commit("")
}

// safeName makes a file name of what the sender chose: the last path element, or other if that could leave the
// folder, hide, pass for an option or disturb a terminal.
func safeName(name, other string) string {
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	if name == "" || len(name) > 255 || strings.ContainsAny(name[:1], ".-") || strings.Contains(name, ":") ||
		oneLine(name) != name {
		return other
	}
	return name
}

// ---- words ----

func date(unix int64) string { return time.Unix(unix, 0).Format("2006-01-02 15:04") }

// when is a date and how far it is: "2026-11-28 22:57 (in 23 h)".
func when(unix int64) string {
	left := unix - time.Now().Unix()
	if left < 0 {
		return date(unix) + " (" + span(-left) + " ago)"
	}
	return date(unix) + " (in " + span(left) + ")"
}

// span is a number of seconds in words.
func span(seconds int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"d", 86400}, {"h", 3600}, {"min", 60}} {
		if seconds >= 2*u.size {
			return fmt.Sprintf("%d %s", seconds/u.size, u.name)
		}
	}
	return fmt.Sprintf("%d s", seconds)
}
