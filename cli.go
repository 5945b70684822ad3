package main

// The command line: commands, options, config file, history, and what a terminal is shown.
//
// Invariants: stdout is data, stderr is for people. Whatever can fail is settled before a paste that burns is asked for, and
// afterwards nothing is refused. Output files appear whole or not at all and replace nothing without -f. What others wrote
// (names, content, the server's sentences) reaches a terminal only with its control characters made visible.
// Credentials stay with the configured server: scheme, host and port. A link may lead elsewhere, but goes there naked.
// Never: a key or password in an argument, in a child's environment or on stderr; plaintext in a temporary file of ours.
// XDG Base Directory (config, state), NO_COLOR (there are no colours at all).

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
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
	progressStep = 200 * time.Millisecond // between two lines
	peekSize     = 4096                   // bytes judged to be text or not before a terminal gets them
	certLife     = 10 * 365 * 24 * time.Hour
)

var (
	configKeys  = regexp.MustCompile(`^(server|cert|key|cacert|expiry|encrypt|history)$`)
	serialShape = regexp.MustCompile(`^[0-9A-Fa-f]{1,40}$`)
)

// stdio is what a command may touch of its process; env is os.LookupEnv outside tests.
type stdio struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) (string, bool)
}

// cliError is a refusal of our own, with its exit code and a second line that says what to type.
type cliError struct {
	code       int
	what, hint string
}

func (e *cliError) Error() string { return e.what }

func usage(hint, format string, args ...any) error {
	return &cliError{2, fmt.Sprintf(format, args...), hint}
}

// errTold carries the exit code of failures that were printed as they came.
type errTold int

func (errTold) Error() string { return "some failed" }

// cliFlag is an option: long and short name, the name of its value ("" for a switch), a line of help.
type cliFlag struct{ long, short, value, help string }

func cliFlags() []cliFlag {
	return []cliFlag{
		{"query", "q", "TEXT", "part of the name or id"}, // before quiet: -q is the query where a command has one
		{"server", "s", "URL", "server to use"},
		{"cert", "", "FILE", "client certificate (PEM)"},
		{"key", "", "FILE", "its private key, if it is not in the same file"},
		{"cacert", "", "FILE", "trust only these CAs for the server"},
		{"quiet", "q", "", "no notes and no progress"},
		{"verbose", "v", "", "show each request"},
		{"insecure-http", "", "", "allow http to other machines"},
		{"help", "h", "", "this help"},
		{"no-encrypt", "E", "", "send readable: the server and whoever has the link can read it"},
		{"encrypt", "e", "", "encrypt, even if the config says off"},
		{"expiry", "x", "TIME", "90s, 15m, 12h, 7d, 2w, 1d12h, RFC 3339 or @unix"},
		{"burn", "b", "", "gone after the first read"},
		{"password", "p", "", "ask for a password (or FPASTE_PASSWORD)"},
		{"name", "n", "TEXT", "name for the reader, and for your own list with a certificate"},
		{"type", "t", "MIME", "content type"},
		{"raw", "r", "", "print the raw URL (with -E)"},
		{"json", "j", "", "print JSON"},
		{"output", "o", "FILE", "write to FILE"},
		{"remote-name", "O", "", "write to a file of the sender's name"},
		{"force", "f", "", "overwrite; binary to the terminal"},
		{"after", "", "TIME", "made after (Unix or RFC 3339)"},
		{"before", "", "TIME", "made before"},
		{"owner", "", "ID", "owner id, anonymous or all (admins)"},
		{"ids", "", "", "one id a line"},
		{"burning", "", "", "fetch burning pastes too, which burns them"},
		{"clear", "", "", "forget all"},
		{"days", "", "N", "life of the certificate"},
		{"reason", "", "NAME", "RFC 5280 reason"},
	}
}

const commonFlags = "server cert key cacert quiet verbose insecure-http help"

// cliCommand is one command: its arguments in words and how many, whether it speaks to the configured server, a line and an
// example for help, its options beside the common ones, and the fixed words its first argument may be.
type cliCommand struct {
	name, args     string
	least, most    int
	online         bool
	brief, example string
	flags, words   string
	run            func(*cli, context.Context, []string) error
}

// clientCommands is the table that dispatch, help and completion are made of. The first one is meant when none is named.
func clientCommands() []cliCommand {
	const many = 1 << 30
	return []cliCommand{
		{"create", "[FILE...]", 0, many, true, "encrypt and upload files or standard input, print the links", "dmesg | fpaste -x 7d --burn",
			"no-encrypt encrypt expiry burn password name type raw json", "", (*cli).create},
		{"get", "LINK|ID", 1, 1, false, "fetch and decrypt", "fpaste get 'https://paste.example.org/0123456789abcdef#KEY' -o notes.txt",
			"output remote-name force password", "", (*cli).get},
		{"meta", "LINK|ID", 1, 1, false, "type, size and dates, without reading it", "fpaste meta 0123456789abcdef", "json", "", (*cli).meta},
		{"update", "LINK|ID [FILE|-]", 1, 2, false, "replace the content (the link stays good), or only the options named", "fpaste update LINK notes.txt",
			"no-encrypt expiry password name type json", "", (*cli).update},
		{"delete", "LINK|ID... | -", 1, many, false, "delete; - reads links or ids from standard input", "fpaste list --ids | fpaste delete -", "", "", (*cli).remove},
		{"list", "", 0, 0, true, "your pastes (needs a certificate)", "fpaste list --ids", "ids json owner", "", (*cli).list},
		{"search", "", 0, 0, true, "your pastes by name, type and date", "fpaste search -q backup -t 'image/*' --after 2026-01-01T00:00:00Z",
			"query type after before owner ids json", "", (*cli).list},
		{"export", "DIR", 1, 1, true, "fetch all your pastes, decrypted where the history has the key", "fpaste export backup/", "burning force", "", (*cli).export},
		{"history", "", 0, 0, false, "what this machine created: link, delete token, expiry", "fpaste history", "clear json", "", (*cli).history},
		{"short", "URL | list | info ID | delete ID...", 1, many, true, "short URLs", "fpaste short https://example.org/a/long/path", "expiry json ids owner", "list info delete", (*cli).short},
		{"register", "NAME", 1, 1, true, "make a key and have it certified by the server", "fpaste register alice", "force", "", (*cli).register},
		{"cert", "NAME", 1, 1, false, "make a self-signed certificate, offline", "fpaste cert alice", "force", "", (*cli).cert},
		{"renew", "", 0, 0, true, "have the certificate renewed, for the same key", "fpaste renew", "", "", (*cli).renew},
		{"pki", "status | ca | list | issue CSR-FILE | revoke SERIAL", 1, 2, true, "the server's certificates", "fpaste pki issue alice.csr > alice.crt", "json days reason",
			"status ca list issue revoke", (*cli).pki},
		{"info", "", 0, 0, true, "what the server is and allows", "fpaste info", "json", "", (*cli).info},
		{"completion", "bash | zsh | fish", 1, 1, false, "a completion script", "source <(fpaste completion bash)", "", "bash zsh fish", (*cli).completion},
		{"version", "", 0, 0, false, "version of this program", "fpaste version", "", "", func(c *cli, _ context.Context, _ []string) error { return c.print("fpaste %s\n", version) }},
		{"help", "[COMMAND]", 0, 1, false, "this list, or one command", "fpaste help get", "", "", (*cli).help},
	}
}

func findCommand(name string) (cliCommand, bool) {
	table := clientCommands()
	i := slices.IndexFunc(table, func(k cliCommand) bool { return k.name == name })
	return table[max(i, 0)], i >= 0
}

// flagsFor returns the options of a command, its own first: search's -q is its query, not --quiet.
func (k cliCommand) flagsFor() (own []cliFlag) {
	for _, set := range []string{k.flags, commonFlags} {
		for _, f := range cliFlags() {
			if slices.Contains(strings.Fields(set), f.long) {
				own = append(own, f)
			}
		}
	}
	return own
}

// cli is one run. It is used by one goroutine.
type cli struct {
	std            stdio
	out            io.Writer // std.out, with control characters made visible on a terminal
	outTTY, errTTY bool
	opt            map[string]string // options given, by long name
	conf           map[string]string // the config file
	clock          func() time.Time
	server         *url.URL       // configured; nil if it is not
	api            *apiClient     // of the server, for commands that need one
	past           []historyEntry // as read, nil before that
	clients        map[string]*apiClient
}

// runClient is the command line: args without the program's name. It returns the exit code. ctx ends with Ctrl-C.
func runClient(ctx context.Context, args []string, std stdio) int {
	c := &cli{std: std, out: std.out, outTTY: isTerminal(std.out), errTTY: isTerminal(std.err), opt: map[string]string{}, clock: time.Now, clients: map[string]*apiClient{}}
	if c.outTTY {
		c.out = &plainWriter{w: std.out}
	}
	err := c.dispatch(ctx, args)
	if ctx.Err() != nil && err != nil {
		err = errors.New("interrupted")
	}
	return c.report(err)
}

func (c *cli) dispatch(ctx context.Context, args []string) error {
	command, args, err := c.parse(args)
	if err == nil && c.has("help") {
		return c.help(ctx, []string{command.name})
	}
	if err == nil && (len(args) < command.least || len(args) > command.most) {
		err = usage("fpaste help "+command.name, "wrong arguments: fpaste %s %s", command.name, command.args)
	}
	if err == nil && command.name != "help" && command.name != "version" && command.name != "completion" { // these work whatever the config says
		err = c.configure()
	}
	if err == nil && command.online {
		c.api, err = c.own()
	}
	if err != nil {
		return err
	}
	return command.run(c, ctx, args)
}

// parse sorts options from arguments, in any order, up to "--". The command is the first argument if the table has it; until it
// is known create's options are read. Options that the command does not take are refused by name.
func (c *cli) parse(args []string) (command cliCommand, rest []string, err error) {
	command = clientCommands()[0]
	named := false
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		if a == "--" {
			rest = append(rest, args...)
			break
		}
		if a == "" || a == "-" || a[0] != '-' {
			if k, ok := findCommand(a); ok && !named && len(rest) == 0 {
				command, named = k, true
			} else {
				rest = append(rest, a)
			}
			continue
		}
		name, value, joined := strings.Cut(strings.TrimPrefix(a, "--"), "=")
		f := command.flag(name, "")
		if a[1] != '-' { // letters, the last of which may have its value behind it: -bx7d
			f, a, value, joined = command.flag("", a[1:2]), a[:2], a[2:], len(a) > 2
			if joined && f.value == "" {
				args, joined = append([]string{"-" + value}, args...), false
			}
		}
		switch {
		case f.long == "":
			return command, nil, usage("fpaste help "+command.name, "unknown option %q for %s", a, command.name)
		case f.value == "" && joined:
			return command, nil, usage("", "option %q takes no value", "--"+name)
		case f.value != "" && !joined && len(args) == 0:
			return command, nil, usage("", "option %q needs a value: %s", a, f.value)
		case f.value != "" && !joined:
			value, args = args[0], args[1:]
		}
		c.opt[f.long] = value
	}
	for _, name := range slices.Sorted(maps.Keys(c.opt)) {
		if command.flag(name, "").long == "" {
			return command, nil, usage("fpaste help "+command.name, "unknown option %q for %s", "--"+name, command.name)
		}
	}
	return command, rest, nil
}

// flag finds an option of the command by its long or its short name; the zero value if it takes none such.
func (k cliCommand) flag(long, short string) cliFlag {
	for _, f := range k.flagsFor() {
		if f.long == long || short != "" && f.short == short {
			return f
		}
	}
	return cliFlag{}
}

func (c *cli) has(option string) bool {
	_, given := c.opt[option]
	return given
}

// report says what went wrong and returns the exit code.
func (c *cli) report(err error) int {
	code, what, hint := explain(err)
	if what != "" {
		fmt.Fprintf(c.std.err, "fpaste: %s\n", oneLine(what))
	}
	if hint != "" {
		fmt.Fprintf(c.std.err, "hint: %s\n", oneLine(hint))
	}
	return code
}

// explain turns an error into exit code, sentence and hint; no sentence when there is nothing to say.
func explain(err error) (code int, what, hint string) {
	var own *cliError
	var told errTold
	var refused *apiFailure
	var cut netFailure
	switch {
	case err == nil:
		return 0, "", ""
	case errors.Is(err, syscall.EPIPE):
		return 1, "", "" // the reader has had enough, as in "| head -1"
	case errors.As(err, &told):
		return int(told), "", ""
	case errors.As(err, &own):
		return own.code, err.Error(), own.hint // with what was put before it
	case errors.As(err, &cut):
		return 6, err.Error(), "check the server's URL and the network; -v shows each request"
	case errors.Is(err, errWrongKey), errors.Is(err, errSealBroken):
		return 7, err.Error(), ""
	case errors.Is(err, errElsewhere):
		return 4, err.Error(), "name the link's server with --server if you trust it"
	case errors.Is(err, errTitle):
		return 2, err.Error(), ""
	case !errors.As(err, &refused):
		return 1, err.Error(), ""
	}
	what, hint, code = err.Error(), refused.Hint, 1
	if refused.RequestID != "" {
		what += " (request " + refused.RequestID + ")"
	}
	switch {
	case refused.Status/100 == 3:
		hint = "it redirects, which is never followed: set the server to its final URL"
	case refused.Status == 404:
		code = 3
	case refused.Status == 429, refused.Code == "pow_required", refused.Code == "pow_failed":
		code = 5
	case refused.Code == "registration_closed", refused.Code == "preview_refused", refused.Code == "cross_origin":
	case refused.Status == 401, refused.Status == 403:
		code = 4
	}
	return code, what, hint
}

// each runs one step for every argument, goes on after a failure and returns the first one's exit code.
func (c *cli) each(args []string, step func(string) error) error {
	first := errTold(0)
	for _, arg := range args {
		err := step(arg)
		if err == nil {
			continue
		}
		if len(args) == 1 || errors.Is(err, context.Canceled) || errors.Is(err, syscall.EPIPE) {
			return err
		}
		if code := c.report(fmt.Errorf("%s: %w", strings.SplitN(arg, "#", 2)[0], err)); first == 0 {
			first = errTold(code)
		}
	}
	if first != 0 {
		return first
	}
	return nil
}

func (c *cli) print(format string, args ...any) error {
	_, err := fmt.Fprintf(c.out, format, args...)
	return err
}

// note is for people: a line on stderr unless -q.
func (c *cli) note(format string, args ...any) {
	if !c.has("quiet") {
		fmt.Fprintf(c.std.err, "fpaste: %s\n", oneLine(fmt.Sprintf(format, args...)))
	}
}

func (c *cli) getenv(name string) string {
	v, _ := c.std.env(name)
	return v
}

// folder returns ours below an XDG variable, else below home, "" if there is none.
func (c *cli) folder(variable, below string) string {
	if base := c.getenv(variable); filepath.IsAbs(base) {
		return filepath.Join(base, "fpaste")
	}
	if home := c.getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, below, "fpaste")
	}
	if base := c.getenv("APPDATA"); filepath.IsAbs(base) {
		return filepath.Join(base, "fpaste")
	}
	return ""
}

func (c *cli) configFolder() string { return c.folder("XDG_CONFIG_HOME", ".config") }

// setting is the order of authority: option, environment, config file.
func (c *cli) setting(name, variable string) string {
	if v, ok := c.opt[name]; ok {
		return v
	}
	return cmp.Or(c.getenv(variable), c.conf[name])
}

// configure reads the config file and settles the server.
func (c *cli) configure() error {
	c.conf = map[string]string{}
	path := filepath.Join(c.configFolder(), "config")
	var text []byte
	var err error
	if c.configFolder() != "" {
		if text, err = os.ReadFile(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reading the config: %w", err)
		}
	}
	for n, line := range strings.Split(string(text), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case !ok || !configKeys.MatchString(key):
			return usage("known are server, cert, key, cacert, expiry, encrypt and history", "unknown key %q in line %d of %s", key, n+1, path)
		case (key == "encrypt" || key == "history") && value != "on" && value != "off":
			return usage("", "%s must be on or off in line %d of %s", key, n+1, path)
		case (key == "cert" || key == "key" || key == "cacert") && strings.HasPrefix(value, "~/"):
			value = filepath.Join(c.getenv("HOME"), value[2:])
		case (key == "cert" || key == "key" || key == "cacert") && value != "" && !filepath.IsAbs(value):
			value = filepath.Join(c.configFolder(), value)
		}
		c.conf[key] = value
	}
	if s := c.setting("server", "FLASKPASTE_SERVER"); s != "" {
		if c.server, err = parseServer(s, c.has("insecure-http")); err != nil {
			return usage("", "%v", err)
		}
	}
	return nil
}

func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

// client returns a client for base: with the certificate if base has the configured origin, else without anything of ours.
func (c *cli) client(base *url.URL) (*apiClient, error) {
	if api := c.clients[base.String()]; api != nil {
		return api, nil
	}
	trusted := c.server != nil && origin(base) == origin(c.server)
	var pair *tls.Certificate
	var roots *x509.CertPool
	if cert := c.setting("cert", "FPASTE_CERT"); trusted && cert != "" && base.Scheme == "https" {
		p, err := tls.LoadX509KeyPair(cert, cmp.Or(c.setting("key", "FPASTE_KEY"), cert))
		if err != nil {
			return nil, fmt.Errorf("loading the certificate: %w", err)
		}
		pair = &p
	}
	if ca := c.setting("cacert", "FPASTE_CACERT"); trusted && ca != "" {
		text, err := os.ReadFile(ca)
		if roots = x509.NewCertPool(); err != nil || !roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("loading the CA certificates: %w", cmp.Or(err, fmt.Errorf("no certificate in %q", ca)))
		}
	}
	api := newAPIClient(base, trusted, pair, roots)
	api.note = func(s string) { c.note("%s", s) }
	api.work = c.work
	if c.has("verbose") {
		api.trace = func(method, path, status, id string) {
			fmt.Fprintf(c.std.err, "fpaste: %s %s: %s (request %s)\n", method, oneLine(path), oneLine(status), oneLine(id))
		}
	}
	c.clients[base.String()] = api
	return api, nil
}

// own returns the client of the configured server.
func (c *cli) own() (*apiClient, error) {
	if c.server == nil {
		return nil, usage(`fpaste --server https://paste.example.org ..., FLASKPASTE_SERVER, or a line "server = https://..." in `+cmp.Or(filepath.Join(c.configFolder(), "config"), "the config"), "no server is configured")
	}
	return c.client(c.server)
}

// pasteRef is a link or an id taken apart; key and token may come from the history.
type pasteRef struct {
	api   *apiClient
	id    string
	key   *sealKey
	token string
	past  *historyEntry
}

func (r pasteRef) link() string {
	if r.key == nil {
		return r.api.base.String() + "/" + r.id
	}
	return r.api.base.String() + "/" + r.id + "#" + r.key.fragment()
}

// resolve settles a link or id, everything that can be wrong with it included, before any request.
func (c *cli) resolve(arg string, shaped func(string) bool, below string) (r pasteRef, err error) {
	place, fragment, keyed := strings.Cut(arg, "#")
	if keyed {
		key, err := parseSealKey(fragment)
		if err != nil {
			return r, usage("quote the link: the shell may have cut it", "%v", err)
		}
		r.key = &key
	}
	if r.id = place; strings.Contains(place, "://") {
		u, err := parseServer(place, c.has("insecure-http"))
		if err != nil {
			return r, usage("", "%v", err)
		}
		path := strings.TrimSuffix(u.Path, "/raw")
		cut := strings.LastIndexByte(path, '/')
		r.id = path[cut+1:]
		u.Path = strings.TrimSuffix(path[:max(cut, 0)], below)
		r.api, err = c.client(u)
		if err != nil {
			return r, err
		}
	} else if r.api, err = c.own(); err != nil {
		return r, err
	}
	if !shaped(r.id) {
		return r, usage("a link as create printed it, or the id alone", "%q is neither a link nor an id", place)
	}
	for _, e := range c.readHistory() {
		if link, fragment, _ := strings.Cut(e.Link, "#"); link == r.api.base.String()+below+"/"+r.id {
			r.past, r.token = &e, e.Token
			if key, err := parseSealKey(fragment); err == nil && r.key == nil {
				r.key = &key
			}
		}
	}
	return r, nil
}

func (c *cli) resolvePaste(arg string) (pasteRef, error) { return c.resolve(arg, idShaped, "") }

// sealing tells whether content is encrypted: option, then config, and on if nothing is said.
func (c *cli) sealing() bool {
	return !c.has("no-encrypt") && (c.has("encrypt") || c.conf["encrypt"] != "off")
}

// header collects the options that the server has to know. Changing a paste, an empty one removes what was set.
func (c *cli) header(ctx context.Context, sealed, changing bool) (map[string]string, error) {
	h := map[string]string{}
	if v := cmp.Or(c.opt["expiry"], c.conf["expiry"]); v != "" || changing && c.has("expiry") {
		h["X-Expiry"] = v
	}
	if c.has("burn") {
		h["X-Burn-After-Read"] = "true"
	}
	// The name always travels sealed; certificate holders have it in their own list too, where the server reads it.
	if c.has("name") && (!sealed || c.setting("cert", "FPASTE_CERT") != "") {
		h["X-Display-Name"] = c.opt["name"]
	}
	if !sealed && c.has("type") {
		h["Content-Type"] = c.opt["type"]
	}
	if c.has("password") {
		var err error
		if h["X-Paste-Password"], err = c.password(ctx, true, changing); err != nil {
			return nil, err
		}
	}
	for name, v := range h {
		if oneLine(v) != v {
			return nil, usage("", "%s must be one line of UTF-8 without control characters", strings.TrimPrefix(name, "X-"))
		}
	}
	return h, nil
}

// password comes from FPASTE_PASSWORD or the terminal, never from an argument, which every user of the machine could read.
func (c *cli) password(ctx context.Context, twice, removable bool) (string, error) {
	pw, ok := c.std.env("FPASTE_PASSWORD")
	var err error
	if !ok {
		if pw, err = readPassword(ctx, "Password: "); err == nil && twice {
			var again string
			if again, err = readPassword(ctx, "Once more: "); err == nil && again != pw {
				return "", &cliError{4, "the two passwords differ", ""}
			}
		}
	}
	if err != nil {
		return "", &cliError{4, "asking for the password: " + err.Error(), "put it into the environment variable FPASTE_PASSWORD"}
	}
	if pw == "" && !(ok && removable) || len(pw) > 1024 || strings.TrimSpace(pw) != pw || oneLine(pw) != pw {
		return "", usage("", "a password has 1 to 1024 bytes, no control characters and no blank at either end")
	}
	return pw, nil
}

// content prepares FILE or "-" for sending, as often as it takes. A file is read (and sealed) anew for each try; a pipe is kept as
// ciphertext: its own, or if it is to be sent readable under a key that nobody else has.
func (c *cli) content(ctx context.Context, arg string, key *sealKey, title sealTitle) (_ bodySource, release func(), err error) {
	in, release := c.std.in, func() {}
	if arg != "-" {
		f, err := os.Open(arg)
		if err != nil {
			link, fragment, _ := strings.Cut(arg, "#")
			if _, keyless := parseSealKey(fragment); strings.Contains(link, "://") || idShaped(link) || keyless == nil { // the key of a link stays out of sight
				return nil, release, usage("fpaste get LINK fetches it", "%s is a link, not a file", link)
			}
			return nil, release, &cliError{2, err.Error(), "fpaste help lists the commands"}
		}
		in, release = f, func() { f.Close() }
	}
	seal := func(r io.Reader) (io.Reader, error) { return r, nil }
	if key != nil {
		seal = func(r io.Reader) (io.Reader, error) { return sealFrom(r, *key, title) }
	}
	if f, ok := in.(*os.File); ok {
		info, err := f.Stat()
		if err == nil && info.IsDir() {
			err = fmt.Errorf("%s is a folder: fpaste takes files, such as tar's", arg)
		}
		if err != nil {
			return nil, release, err
		}
		at, err := f.Seek(0, io.SeekCurrent)
		if size := info.Size() - at; err == nil && info.Mode().IsRegular() && size > sealSegment { // the size of a small one says nothing in /proc and /sys
			return func() (io.Reader, int64, error) {
				r, err := seal(io.NewSectionReader(f, at, size))
				if key != nil {
					return r, sealedSize(size, title), err
				}
				return r, size, err
			}, release, nil
		}
		if isTerminal(f) {
			c.note("reading from the terminal; Ctrl-D on an empty line ends it")
		}
	}
	counted := &countReader{Reader: interruptible{ctx, in}}
	plain := newSealKey()
	stream, err := sealFrom(counted, *cmp.Or(key, &plain), title)
	if err != nil {
		return nil, release, err
	}
	kept, size, forget, err := spool(stream)
	if err == nil && counted.n == 0 {
		err = errors.New("there is nothing to send: it is empty")
	}
	closeFile := release
	return func() (io.Reader, int64, error) {
		if key != nil {
			return kept(), size, nil
		}
		r, _, err := openFrom(kept(), plain)
		return r, counted.n, err
	}, func() { forget(); closeFile() }, err
}

func (c *cli) create(ctx context.Context, args []string) error {
	switch {
	case c.has("raw") && c.sealing():
		return usage("fpaste -E -r FILE", "a raw URL of an encrypted paste shows nothing: -r goes with -E")
	case len(args) == 0:
		args = []string{"-"}
	}
	header, err := c.header(ctx, c.sealing(), false)
	if err != nil {
		return err
	}
	return c.each(args, func(arg string) error {
		r := pasteRef{api: c.api}
		if c.sealing() {
			key := newSealKey()
			r.key = &key
		}
		info, err := c.send(ctx, arg, r.key, func(body bodySource) (apiItem, error) {
			return c.api.create(ctx, body, r.key, maps.Clone(header))
		})
		if err != nil {
			return err
		}
		r.id = info.ID
		c.remember(historyEntry{Link: r.link(), Token: info.DeleteToken, Expires: info.ExpiresAt}, nil)
		return c.link(r, info)
	})
}

// send prepares the content of arg and has it sent.
func (c *cli) send(ctx context.Context, arg string, key *sealKey, call func(bodySource) (apiItem, error)) (apiItem, error) {
	var title sealTitle
	if key != nil {
		if title = (sealTitle{Name: c.opt["name"], Type: c.opt["type"]}); arg != "-" && title.Name == "" {
			title.Name = strings.ToValidUTF8(filepath.Base(arg), "_")
		}
		if _, err := title.encode(); err != nil {
			return apiItem{}, err
		}
	}
	body, release, err := c.content(ctx, arg, key, title)
	defer release()
	if err != nil {
		return apiItem{}, err
	}
	defer c.status("")
	return call(func() (io.Reader, int64, error) {
		r, size, err := body()
		return &countReader{Reader: r, see: c.meter("uploading", size)}, size, err
	})
}

// link prints what a creation or an update is for: the link.
func (c *cli) link(r pasteRef, info apiItem) error {
	info.Link = r.link()
	if c.has("raw") {
		info.Link += "/raw"
	}
	if c.has("json") {
		return c.show(info)
	}
	return c.print("%s\n", info.Link)
}

func (c *cli) update(ctx context.Context, args []string) error {
	r, err := c.resolvePaste(args[0])
	optionsOnly := len(args) == 1 && (c.has("expiry") || c.has("password") || c.has("name") || c.has("type"))
	switch {
	case err != nil:
		return err
	case !r.api.trusted:
		return errElsewhere
	case r.key != nil && c.has("no-encrypt"):
		return usage("fpaste -E makes a new, readable paste", "the link has a key: its content stays encrypted")
	case r.key == nil && c.sealing() && !optionsOnly:
		return usage("give the whole link, or -E for a paste that is readable", "the link has no key to encrypt with")
	case optionsOnly && r.key != nil && (c.has("name") || c.has("type")):
		return usage("give the content too", "name and type of an encrypted paste are part of its content")
	}
	delete(c.conf, "expiry") // a default for new pastes, not a change of this one
	header, err := c.header(ctx, r.key != nil, true)
	if err != nil {
		return err
	}
	var info apiItem
	if optionsOnly {
		info, err = r.api.replace(ctx, r.id, r.token, nil, r.key, header)
	} else {
		info, err = c.send(ctx, append(args, "-")[1], r.key, func(body bodySource) (apiItem, error) {
			return r.api.replace(ctx, r.id, r.token, body, r.key, header)
		})
	}
	if err != nil {
		return err
	}
	if r.past != nil && r.past.Expires != info.ExpiresAt {
		c.remember(historyEntry{Link: r.past.Link, Token: r.token, Expires: info.ExpiresAt}, r.past)
	}
	return c.link(r, info)
}

func (c *cli) meta(ctx context.Context, args []string) error {
	r, err := c.resolvePaste(args[0])
	if err != nil {
		return err
	}
	info, err := r.api.meta(ctx, r.id)
	if err != nil {
		return err
	}
	return c.show(info)
}

// fetch asks for the content, which burns a burning paste: call it when nothing else can go wrong. Sealed content comes opened,
// its first segment verified, with the sender's name for it.
func (c *cli) fetch(ctx context.Context, r pasteRef, password, name string) (content io.Reader, _ string, release func(), err error) {
	resp, err := r.api.raw(ctx, r.id, r.key, password)
	if err != nil {
		return nil, "", func() {}, err
	}
	show := c.meter("downloading", resp.ContentLength)
	release = func() { resp.Body.Close(); c.status("") }
	content = &countReader{Reader: resp.Body, see: show}
	if r.key != nil {
		stream, title, err := openFrom(content, *r.key)
		return stream, title.Name, release, err
	}
	return content, name, release, nil
}

func (c *cli) get(ctx context.Context, args []string) error {
	r, err := c.resolvePaste(args[0])
	if err != nil {
		return err
	}
	toFile := c.has("remote-name") || c.has("output") && c.opt["output"] != "-"
	terminal := !toFile && c.outTTY
	info, err := r.api.meta(ctx, r.id)
	textual := strings.HasPrefix(info.MIME, "text/") || strings.HasPrefix(info.MIME, "application/json")
	switch {
	case err != nil:
		return err
	case info.Proof && r.key == nil:
		return &cliError{4, "this paste is encrypted and its key, the link's part after #, is missing", "give the whole link, in quotes"}
	case terminal && r.key == nil && !textual && !c.has("force"):
		return &cliError{1, "not showing " + info.MIME + " on a terminal", "-o FILE or -O to keep it, -f to show it"}
	}
	password := ""
	if info.Password || c.has("password") {
		if !r.api.trusted {
			return errElsewhere
		}
		if password, err = c.password(ctx, false, false); err != nil {
			return err
		}
	}
	// The place for the output stands before the request; for a burning paste also the one where it goes if it can't be shown.
	var file *outFile
	if toFile || terminal && info.Burn {
		dir, name := filepath.Split(c.opt["output"])
		if file, err = stage(dir); err != nil && !toFile {
			file, err = stage(os.TempDir())
		}
		if err != nil {
			return err
		}
		defer file.abort()
		if name != "" {
			if err := file.claim(name, c.has("force")); err != nil {
				return err
			}
		}
	}
	content, name, release, err := c.fetch(ctx, r, password, info.Name)
	defer release()
	if err != nil {
		return err
	}
	if !toFile {
		if c.status(""); terminal { // what follows is the content's: a status line, even taking it away, would overwrite its last line
			c.errTTY = false
		}
		head := bufio.NewReaderSize(content, peekSize)
		seen, _ := head.Peek(peekSize) // its error comes again with the copy
		content = head
		switch {
		case !terminal || c.has("force") || !isBinary(seen):
			_, err := io.Copy(c.out, content)
			if plain, ok := c.out.(*plainWriter); ok && err == nil {
				err = plain.flush()
			}
			return err
		case file == nil:
			return &cliError{1, "not showing binary content on a terminal", "-o FILE or -O to keep it, -f to show it"}
		}
	}
	if err := file.keep(content, name, r.id, c.has("force"), info.Burn); err != nil {
		return err
	}
	if filepath.Base(c.opt["output"]) != filepath.Base(file.final) {
		fmt.Fprintf(c.std.err, "fpaste: saved as %s\n", oneLine(file.final))
	}
	return nil
}

func (c *cli) remove(ctx context.Context, args []string) error {
	if len(args) == 1 && args[0] == "-" {
		args = nil
		lines := bufio.NewScanner(interruptible{ctx, c.std.in})
		for lines.Scan() {
			if s := strings.TrimSpace(lines.Text()); s != "" {
				args = append(args, s)
			}
		}
		if err := lines.Err(); err != nil {
			return fmt.Errorf("reading what to delete: %w", err)
		}
	}
	return c.each(args, func(arg string) error {
		r, err := c.resolvePaste(arg)
		if err == nil {
			err = c.removeRef(ctx, r, "")
		}
		return err
	})
}

func (c *cli) removeRef(ctx context.Context, r pasteRef, below string) error {
	if !r.api.trusted {
		return errElsewhere
	}
	if err := r.api.remove(ctx, below+"/"+r.id, r.token); err != nil {
		return err
	}
	c.note("deleted %s", r.id)
	return c.forget(r.past)
}

func (c *cli) list(ctx context.Context, _ []string) error {
	query := url.Values{"limit": {"200"}}
	for option, name := range map[string]string{"query": "q", "type": "type", "after": "after", "before": "before", "owner": "owner"} {
		if c.has(option) {
			query.Set(name, c.opt[option])
		}
	}
	return c.listed(ctx, "/pastes", query, "ID\tSIZE\tTYPE\tCREATED\tEXPIRES\t\tNAME\n", func(p apiItem) string {
		marks := []string{}
		for i, on := range []bool{p.Burn, p.Password, p.Proof} {
			if on {
				marks = append(marks, []string{"burns", "password", "encrypted"}[i])
			}
		}
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s", oneLine(p.ID), humanSize(p.Size), oneLine(p.MIME), date(p.CreatedAt), date(p.ExpiresAt), strings.Join(marks, " "), oneLine(p.Name))
	})
}

// listed prints a list page by page: ids, JSON, or a table.
func (c *cli) listed(ctx context.Context, path string, query url.Values, head string, row func(apiItem) string) error {
	comma := "["
	err := c.api.pages(ctx, path, query, func(items []apiItem) error {
		table := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
		for _, item := range items {
			switch {
			case c.has("ids"):
				fmt.Fprintln(table, oneLine(item.ID))
			case c.has("json"):
				text, _ := json.Marshal(item) // strings, numbers and booleans cannot fail
				if err := c.print("%s%s", comma, text); err != nil {
					return err
				}
				comma = ",\n"
			default:
				fmt.Fprintf(table, "%s%s\n", head, row(item))
				head = ""
			}
		}
		return table.Flush()
	})
	if err == nil && c.has("json") {
		err = c.print("%s]\n", strings.TrimPrefix(comma, ",\n"))
	}
	return err
}

func (c *cli) export(ctx context.Context, args []string) error {
	if err := os.MkdirAll(args[0], 0o700); err != nil {
		return err
	}
	failed, spared := errTold(0), 0
	err := c.api.pages(ctx, "/pastes", url.Values{"limit": {"200"}}, func(items []apiItem) error {
		for _, p := range items {
			if p.Burn && !c.has("burning") {
				spared++
				continue
			}
			if err := c.exportOne(ctx, p, args[0]); ctx.Err() != nil {
				return ctx.Err()
			} else if err != nil {
				if code := c.report(fmt.Errorf("could not open %s: %w", p.ID, err)); failed == 0 {
					failed = errTold(code)
				}
			}
		}
		return nil
	})
	if spared > 0 {
		c.note("left %d burning pastes alone (--burning fetches them too)", spared)
	}
	if err == nil && failed != 0 {
		return failed
	}
	return err
}

func (c *cli) exportOne(ctx context.Context, p apiItem, dir string) error {
	if !idShaped(p.ID) { // a link would be followed to its server, and burned there with the key that the history has for it
		return &apiFailure{Status: 200}
	}
	r, err := c.resolvePaste(p.ID)
	if err != nil {
		return err
	}
	password := ""
	if p.Proof && r.key == nil {
		return &cliError{4, "it is encrypted and the history has no key for it", ""}
	}
	if p.Password {
		if password = c.getenv("FPASTE_PASSWORD"); password == "" {
			return &cliError{4, "it has a password: put it into FPASTE_PASSWORD", ""}
		}
	}
	file, err := stage(dir)
	if err != nil {
		return err
	}
	defer file.abort()
	content, name, release, err := c.fetch(ctx, r, password, p.Name)
	defer release()
	if err != nil {
		return err
	}
	if name = safeName(name, ""); name == "" || len(name)+len(r.id) > 254 {
		name = r.id
	} else {
		name = r.id + "-" + name
	}
	return file.keep(content, name, r.id, c.has("force"), p.Burn)
}

// historyEntry is a line of the history: JSON in a file of mode 0600 that is only appended to and blanked in place, so that
// programs running side by side need no lock. at and size are where it lies.
type historyEntry struct {
	Link    string `json:"link"`
	Token   string `json:"token,omitempty"`
	Expires int64  `json:"expires"`
	at      int64
	size    int
}

func (c *cli) historyPath() string {
	if folder := c.folder("XDG_STATE_HOME", ".local/state"); folder != "" {
		return filepath.Join(folder, "history")
	}
	return ""
}

// remember appends to the history, in place of old if there is one. Failing is no failure of the creation, which has happened.
func (c *cli) remember(e historyEntry, old *historyEntry) {
	if c.conf["history"] == "off" || c.historyPath() == "" {
		return
	}
	line, _ := json.Marshal(e) // strings and a number cannot fail
	err := os.MkdirAll(filepath.Dir(c.historyPath()), 0o700)
	var f *os.File
	if err == nil {
		f, err = os.OpenFile(c.historyPath(), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	}
	if err == nil {
		end := []byte("\n")
		size, _ := f.Seek(0, io.SeekEnd)
		if f.ReadAt(end, size-1); end[0] != '\n' { // a full disk once cut the last line: this one must not hang on it
			line = append([]byte("\n"), line...)
		}
		_, err = f.Write(append(line, '\n')) // one write: lines of two programs don't mix
		err = cmp.Or(f.Chmod(0o600), err, f.Close())
	}
	if err == nil {
		err = c.forget(old)
	}
	if err != nil {
		c.note("not in the history, so deleting takes the certificate or the token that -j prints: %v", err)
	}
}

func (c *cli) readHistory() []historyEntry {
	if c.past != nil {
		return c.past
	}
	c.past = []historyEntry{}
	text, err := os.ReadFile(c.historyPath())
	if err != nil {
		return nil // none yet, or none at all
	}
	at := int64(0)
	for line := range bytes.Lines(text) {
		e := historyEntry{at: at, size: len(bytes.TrimRight(line, "\n"))}
		if at += int64(len(line)); json.Unmarshal(line, &e) == nil {
			c.past = append(c.past, e)
		}
	}
	return c.past
}

// forget overwrites an entry with blanks: key and token are gone from the file, and no other line moves.
func (c *cli) forget(e *historyEntry) error {
	if e == nil {
		return nil
	}
	f, err := os.OpenFile(c.historyPath(), os.O_RDWR, 0)
	if err != nil {
		return nil // cleared meanwhile, or read-only: what it names is gone all the same
	}
	defer f.Close()
	line, still := make([]byte, e.size), historyEntry{}
	if _, err := f.ReadAt(line, e.at); err != nil || json.Unmarshal(line, &still) != nil || still.Link != e.Link {
		return nil // another program was faster
	}
	_, err = f.WriteAt(bytes.Repeat([]byte(" "), e.size), e.at)
	return err
}

func (c *cli) history(context.Context, []string) error {
	if c.has("clear") {
		if err := os.Remove(c.historyPath()); err != nil && !errors.Is(err, fs.ErrNotExist) && c.historyPath() != "" {
			return err
		}
		return nil
	}
	for _, e := range c.readHistory() {
		if e.Expires < c.clock().Unix() {
			if err := c.forget(&e); err != nil {
				return err
			}
			continue
		}
		var err error
		if c.has("json") {
			err = c.show(e)
		} else {
			err = c.print("%s  %s  %s\n", oneLine(e.Link), cmp.Or(oneLine(e.Token), "-"), date(e.Expires))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) short(ctx context.Context, args []string) error {
	rest := args[1:]
	if (args[0] == "info" || args[0] == "delete") != (len(rest) > 0) {
		return usage("fpaste help short", "short takes a URL, list, info ID or delete ID...: an argument is missing or unexpected")
	}
	switch args[0] {
	case "list":
		query := url.Values{"limit": {"200"}}
		if c.has("owner") {
			query.Set("owner", c.opt["owner"])
		}
		return c.listed(ctx, "/s", query, "ID\tCREATED\tEXPIRES\tURL\n", func(u apiItem) string {
			return oneLine(u.ID) + "\t" + date(u.CreatedAt) + "\t" + date(u.ExpiresAt) + "\t" + oneLine(u.Target)
		})
	case "info", "delete":
		return c.each(rest, func(arg string) error {
			r, err := c.resolve(arg, shortIDShape.MatchString, "/s")
			if err == nil && args[0] == "delete" {
				return c.removeRef(ctx, r, "/s")
			}
			if err != nil {
				return err
			}
			info, err := ask[apiItem](ctx, r.api, apiCall{method: "GET", path: "/s/" + r.id + "/info"})
			if err != nil {
				return err
			}
			return c.show(info)
		})
	}
	wish := map[string]string{"url": args[0]}
	if v := cmp.Or(c.opt["expiry"], c.conf["expiry"]); v != "" {
		wish["expiry"] = v
	}
	text, _ := json.Marshal(wish) // strings cannot fail
	info, err := ask[apiItem](ctx, c.api, apiCall{method: "POST", path: "/s", header: map[string]string{"Content-Type": "application/json"}, body: textBody(string(text))})
	if err == nil && !shortIDShape.MatchString(info.ID) {
		err = &apiFailure{Status: 200}
	}
	if err != nil {
		return err
	}
	info.Link = c.api.base.String() + "/s/" + info.ID
	c.remember(historyEntry{Link: info.Link, Token: info.DeleteToken, Expires: info.ExpiresAt}, nil)
	if c.has("json") {
		return c.show(info)
	}
	return c.print("%s\n", info.Link)
}

// newIdentity makes a key and a place for its certificate, which certify fetches or makes. Both files appear together or not at all.
func (c *cli) newIdentity(certify func(key *ecdsa.PrivateKey) (string, error)) error {
	dir := c.configFolder()
	if dir == "" {
		return &cliError{1, "there is no folder for the key", "set XDG_CONFIG_HOME or HOME"}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err = cmp.Or(err, os.MkdirAll(dir, 0o700)); err != nil {
		return err
	}
	keyText := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	files := [2]*outFile{}
	for i, file := range []string{"client.key", "client.crt"} {
		if files[i], err = stage(dir); err != nil {
			return err
		}
		defer files[i].abort()
		if err := files[i].claim(file, c.has("force")); err != nil {
			return err
		}
	}
	_, err = files[0].Write(keyText)
	text := ""
	if err == nil {
		text, err = certify(key)
	}
	if err == nil {
		_, err = tls.X509KeyPair([]byte(text), keyText) // the certificate is for this key
	}
	if err == nil {
		_, err = files[1].WriteString(text)
	}
	for _, f := range files {
		if err == nil {
			err = f.commit()
		}
	}
	if err != nil {
		return err
	}
	c.note("wrote %s and %s", files[0].final, files[1].final)
	wanted := map[string]string{"cert": files[1].final, "key": files[0].final}
	if c.server != nil && c.conf["server"] == "" {
		wanted["server"] = c.server.String()
	}
	if err := c.writeConfig(wanted); err != nil {
		return &cliError{1, "the config was not changed: " + err.Error(), "use --cert " + files[1].final + " --key " + files[0].final}
	}
	return nil
}

// writeConfig sets keys and leaves every other line as it is.
func (c *cli) writeConfig(wanted map[string]string) error {
	dir := c.configFolder()
	text, err := os.ReadFile(filepath.Join(dir, "config"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		key, _, _ := strings.Cut(line, "=")
		if _, replaced := wanted[strings.TrimSpace(key)]; !replaced {
			b.WriteString(strings.TrimRight(line, "\n") + "\n")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		fmt.Fprintf(&b, "%s = %s\n", key, wanted[key])
	}
	return replaceFile(filepath.Join(dir, "config"), b.String())
}

func certRequest(name string, key any) (string, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), err
}

func (c *cli) register(ctx context.Context, args []string) error {
	return c.newIdentity(func(key *ecdsa.PrivateKey) (string, error) {
		csr, err := certRequest(args[0], key)
		if err != nil {
			return "", err
		}
		return c.api.enrol(ctx, csr)
	})
}

func (c *cli) cert(_ context.Context, args []string) error {
	return c.newIdentity(func(key *ecdsa.PrivateKey) (string, error) {
		now := c.clock()
		template := &x509.Certificate{Subject: pkix.Name{CommonName: args[0]}, NotBefore: now.Add(-5 * time.Minute), NotAfter: now.Add(certLife), // the serial is drawn
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), err
	})
}

// renew keeps the key, so that one rename changes everything: a new key would need two, and between them nothing would fit.
func (c *cli) renew(ctx context.Context, _ []string) error {
	path := c.setting("cert", "FPASTE_CERT")
	if path == "" {
		return usage("fpaste register NAME makes one", "no certificate is configured")
	}
	keyPath := cmp.Or(c.setting("key", "FPASTE_KEY"), path)
	pair, err := tls.LoadX509KeyPair(path, keyPath)
	if err != nil {
		return fmt.Errorf("loading the certificate: %w", err)
	}
	csr, err := certRequest(pair.Leaf.Subject.CommonName, pair.PrivateKey)
	if err != nil {
		return err
	}
	text, err := c.api.text(ctx, apiCall{method: "POST", path: "/pki/renew", body: textBody(csr)}, certBegin)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(keyPath)
	if err == nil {
		pair, err = tls.X509KeyPair([]byte(text), key)
	}
	old, oldErr := os.ReadFile(path)
	if err = cmp.Or(err, oldErr); err != nil {
		return fmt.Errorf("checking the new certificate: %w", err)
	}
	const end = "-----END CERTIFICATE-----"
	before, rest, _ := strings.Cut(string(old), certBegin) // it loaded: there is one
	_, after, _ := strings.Cut(rest, end+"\n")
	if err := replaceFile(path, before+strings.TrimRight(text, "\n")+"\n"+after); err != nil { // a bundle keeps its other blocks: key and CA
		return err
	}
	c.note("%s is good until %s", path, date(pair.Leaf.NotAfter.Unix()))
	return nil
}

func (c *cli) pki(ctx context.Context, args []string) error {
	query := url.Values{}
	for _, option := range []string{"days", "reason"} {
		if c.has(option) {
			query.Set(option, c.opt[option])
		}
	}
	verb, arg := args[0], strings.Join(args[1:], "")
	call := apiCall{method: "GET", path: map[string]string{"status": "/pki", "list": "/pki/certs", "ca": "/pki/ca.crt"}[verb]}
	if (call.path == "") != (len(args) == 2) {
		return usage("fpaste help pki", "pki takes status, ca, list, issue CSR-FILE or revoke SERIAL")
	}
	switch verb {
	case "issue":
		csr, err := os.ReadFile(arg)
		if err != nil {
			return err
		}
		call = apiCall{method: "POST", path: "/pki/issue", query: query, body: textBody(string(csr))}
	case "revoke":
		if !serialShape.MatchString(arg) {
			return usage("fpaste pki list shows them", "%q is not a serial", arg)
		}
		call = apiCall{method: "POST", path: "/pki/revoke/" + strings.ToLower(arg), query: query}
	case "status", "ca", "list":
	default:
		return usage("fpaste help pki", "unknown argument %q for pki", verb)
	}
	if verb == "issue" || verb == "ca" {
		text, err := c.api.text(ctx, call, certBegin)
		if err != nil {
			return err
		}
		return c.print("%s", text)
	}
	if verb == "list" {
		return c.listed(ctx, call.path, url.Values{}, "SERIAL\tNAME\tISSUED\tEXPIRES\t\n", func(k apiItem) string {
			marks := map[bool]string{true: "admin "}[k.Admin] + map[bool]string{true: "revoked"}[k.Revoked]
			return fmt.Sprintf("%s\t%s\t%s\t%s\t%s", oneLine(k.Serial), oneLine(k.CommonName), date(k.IssuedAt), date(k.ExpiresAt), marks)
		})
	}
	answer, err := ask[map[string]any](ctx, c.api, call)
	if err != nil {
		return err
	}
	return c.show(answer)
}

func (c *cli) info(ctx context.Context, _ []string) error {
	header, begin := map[string]string{"Accept": "text/plain"}, "FlaskPaste"
	if c.has("json") {
		header, begin = nil, "{"
	}
	text, err := c.api.text(ctx, apiCall{method: "GET", path: "/", header: header}, begin)
	if err != nil {
		return err
	}
	return c.print("%s\n", strings.TrimRight(text, "\n"))
}

// show prints a value as JSON (-j), else a line for each member, dates readable.
func (c *cli) show(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil || c.has("json") {
		return cmp.Or(err, c.print("%s", b.Bytes()))
	}
	var members map[string]any
	dec := json.NewDecoder(&b)
	dec.UseNumber()
	if err := dec.Decode(&members); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		text := fmt.Sprint(members[name])
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && strings.HasSuffix(name, "_at") {
			text = date(n)
		}
		if err := c.print("%-20s %s\n", oneLine(name), oneLine(text)); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) help(_ context.Context, args []string) error {
	if len(args) == 0 {
		c.print("fpaste shares files and text through a FlaskPaste server, encrypted end to end.\n\n")
		for _, k := range clientCommands() {
			c.print("  %-11s %s\n", k.name, k.brief)
		}
		return c.print("\nfpaste help COMMAND shows options and an example. Exit: 0 done, 1 failed, 2 usage, 3 not found, 4 authentication, 5 limit, 6 network, 7 decryption.\n")
	}
	k, ok := findCommand(args[0])
	if !ok {
		return usage("fpaste help", "unknown command %q", args[0])
	}
	c.print("usage: fpaste %s\n%s\n\n", strings.TrimSpace(k.name+" [OPTION...] "+k.args), k.brief)
	for _, f := range k.flagsFor() {
		short := "    "
		if f.short != "" {
			short = "-" + f.short + ", "
		}
		c.print("  %s%-22s %s\n", short, strings.TrimSpace("--"+f.long+" "+f.value), f.help)
	}
	return c.print("\nexample: %s\n", k.example)
}

// completion writes a script for a shell from the same table that dispatches. zsh runs bash's.
func (c *cli) completion(_ context.Context, args []string) error {
	var b strings.Builder
	all := clientCommands()
	switch args[0] {
	case "bash", "zsh":
		if args[0] == "zsh" {
			b.WriteString("autoload -Uz bashcompinit && bashcompinit\n")
		}
		b.WriteString("_fpaste() {\n  local cur=${COMP_WORDS[COMP_CWORD]} options words\n  case ${COMP_WORDS[1]} in\n")
		names := ""
		for _, k := range append(all, cliCommand{name: "*", flags: all[0].flags}) {
			fmt.Fprintf(&b, "    %s) words='%s' options='", k.name, k.words)
			for _, f := range k.flagsFor() {
				b.WriteString("--" + f.long + " ")
			}
			b.WriteString("' ;;\n")
			names += strings.Trim(k.name, "*") + " "
		}
		fmt.Fprintf(&b, "  esac\n  ((COMP_CWORD == 1)) && words='%s'\n  [[ $cur == -* ]] && words=$options\n", strings.TrimSpace(names))
		b.WriteString("  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\ncomplete -o default -F _fpaste fpaste\n")
	case "fish":
		for _, k := range all {
			fmt.Fprintf(&b, "complete -c fpaste -n __fish_use_subcommand -a %s -d \"%s\"\n", k.name, k.brief)
			seen := "complete -c fpaste -n '__fish_seen_subcommand_from " + k.name + "'"
			if k.words != "" {
				fmt.Fprintf(&b, "%s -a '%s'\n", seen, k.words)
			}
			for _, f := range k.flagsFor() {
				fmt.Fprintf(&b, "%s -l %s -d \"%s\"", seen, f.long, f.help)
				if f.short != "" {
					b.WriteString(" -s " + f.short)
				}
				if f.value != "" {
					b.WriteString(" -r")
				}
				b.WriteByte('\n')
			}
		}
	default:
		return usage("bash, zsh or fish", "unknown shell %q", args[0])
	}
	return c.print("%s", b.String())
}

// work solves a challenge on all cores; a terminal sees bits, rate and the time to expect.
func (c *cli) work(ctx context.Context, nonce string, difficulty int) (string, error) {
	start, last := c.clock(), time.Time{}
	defer c.status("")
	return solve(ctx, nonce, difficulty, runtime.NumCPU(), func(tried uint64) {
		if now := c.clock(); tried > 0 && now.Sub(last) >= progressStep {
			last = now
			rate := float64(tried) / max(now.Sub(start).Seconds(), 1e-3)
			c.status(fmt.Sprintf("proof of work: %d bits, %.1f million tries/s, about %.1f s", difficulty, rate/1e6, float64(uint64(1)<<difficulty)/rate))
		}
	})
}

// meter returns a function that is told the bytes moved so far and shows them on a terminal if there are many.
func (c *cli) meter(what string, total int64) func(int64) {
	start := c.clock()
	last := start
	return func(done int64) {
		if now := c.clock(); total >= progressFrom && now.Sub(last) >= progressStep {
			last = now
			c.status(fmt.Sprintf("%s %d%% of %s, %s/s", what, 100*done/total, humanSize(total), humanSize(int64(float64(done)/now.Sub(start).Seconds()))))
		}
	}
}

// status shows one line that the next one overwrites, on a terminal only.
func (c *cli) status(line string) {
	if !c.errTTY || c.has("quiet") {
		return
	}
	width := max(terminalWidth(c.std.err)-1, 20)
	fmt.Fprintf(c.std.err, "\r%-*.*s\r", width, width, line)
}

// outFile is a file that appears whole under its name or not at all: temporary beside it until commit.
type outFile struct {
	*os.File
	dir, final string
	held       bool // final is empty and ours: it holds the name
}

// stage makes the temporary file, mode 0600, in dir ("" for here).
func stage(dir string) (*outFile, error) {
	dir = cmp.Or(dir, ".")
	f, err := os.CreateTemp(dir, ".fpaste-*")
	return &outFile{File: f, dir: dir}, err
}

// claim takes the name: a new one, or with force that of a regular file.
func (o *outFile) claim(name string, force bool) error {
	path := filepath.Join(o.dir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		o.final, o.held = path, true
		return f.Close()
	}
	if errors.Is(err, fs.ErrExist) && !force {
		return &cliError{1, path + " exists", "-f overwrites it"}
	}
	if info, e := os.Stat(path); e != nil || !info.Mode().IsRegular() {
		return &cliError{1, path + " is not a file that can be replaced", ""}
	}
	o.final = path
	return nil
}

// keep names, fills and commits the file. With must, a name that can't be had gives way to a new one made of the id.
func (o *outFile) keep(content io.Reader, name, id string, force, must bool) error {
	for n := 0; o.final == ""; n++ {
		err := o.claim(safeName(name, id), force)
		if name = id + "-" + strconv.Itoa(n+1); err != nil && (!must || n > 1000) {
			return err
		}
		force = false
	}
	if _, err := io.Copy(o.File, content); err != nil {
		return err
	}
	return o.commit()
}

// commit makes the file durable under its name.
func (o *outFile) commit() error {
	err := o.Sync()
	if err = cmp.Or(err, o.Close()); err == nil {
		err = os.Rename(o.Name(), o.final)
	}
	if err == nil {
		o.File = nil
		_ = syncDir(o.dir) // the content is safe already; not every system can sync a folder
	}
	return err
}

// abort removes what commit has not made final.
func (o *outFile) abort() {
	if o.File == nil {
		return
	}
	o.Close()
	os.Remove(o.Name())
	if o.held {
		os.Remove(o.final)
	}
}

// replaceFile rewrites a file in one step; a link is followed, so that it stays one.
func replaceFile(path, text string) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	o, err := stage(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer o.abort()
	if err := o.claim(filepath.Base(path), true); err != nil {
		return err
	}
	if _, err := o.WriteString(text); err != nil {
		return err
	}
	return o.commit()
}

// safeName makes a file name of what the sender chose: the last path element, or other if that could leave the folder, hide,
// pass for an option or disturb a terminal.
func safeName(name, other string) string {
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	if name == "" || len(name) > 255 || strings.ContainsAny(name[:1], ".-") || strings.Contains(name, ":") || oneLine(name) != name {
		return other
	}
	return name
}

// isBinary judges the first bytes of a content: text is UTF-8 without NUL, its last character perhaps cut.
func isBinary(b []byte) bool {
	for len(b) > 0 && utf8.FullRune(b) {
		r, n := utf8.DecodeRune(b)
		if r == 0 || r == utf8.RuneError && n == 1 {
			return true
		}
		b = b[n:]
	}
	return false
}

// appendClean appends b with control characters, bidirectional marks and bytes that are no UTF-8 in visible form, and returns
// what was cut in the middle: a character, or a CR that may belong to a line end.
func appendClean(out, b []byte, lines bool) (_, rest []byte) {
	for len(b) > 0 && utf8.FullRune(b) {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			out = fmt.Appendf(out, `\x%02x`, b[0])
		case lines && r == '\r' && len(b) == 1:
			return out, b
		case lines && (r == '\n' || r == '\t' || r == '\r' && b[1] == '\n'):
			out = append(out, byte(r))
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029':
			out = append(out, strings.Trim(strconv.QuoteRuneToASCII(r), "'")...)
		default:
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return out, b
}

// oneLine is appendClean for what must stay in its line: names, the server's sentences.
func oneLine(s string) string {
	out, rest := appendClean(nil, []byte(s), false)
	for _, b := range rest {
		out = fmt.Appendf(out, `\x%02x`, b)
	}
	return string(out)
}

// plainWriter shows a terminal what strangers wrote without letting them command it.
type plainWriter struct {
	w    io.Writer
	tail []byte
}

func (p *plainWriter) Write(b []byte) (int, error) {
	out, rest := appendClean(nil, append(p.tail, b...), true)
	p.tail = bytes.Clone(rest)
	_, err := p.w.Write(out)
	return len(b), err
}

// flush shows what was held back at the end: half a character, or a last CR.
func (p *plainWriter) flush() error {
	_, err := io.WriteString(p.w, oneLine(string(p.tail)))
	return err
}

// countReader counts what passes and tells see, if there is one.
type countReader struct {
	io.Reader
	n   int64
	see func(int64)
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if c.n += int64(n); c.see != nil {
		c.see(c.n)
	}
	return n, err
}

// interruptible ends a read when ctx does, although nobody writes to the pipe or types on the terminal. The read goes on in its
// goroutine until the program ends.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i interruptible) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := i.r.Read(p)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return r.n, r.err
	case <-i.ctx.Done():
		return 0, i.ctx.Err()
	}
}

func date(unix int64) string { return time.Unix(unix, 0).Format("2006-01-02 15:04") }

func humanSize(n int64) string {
	size, unit := float64(n), 0
	for ; size >= 1000 && unit < 4; unit++ {
		size /= 1024
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %ciB", size, "KMGT"[unit-1])
}
