package main

// The command line: commands, options, config file, history, and what a terminal is shown.
//
// Invariants: stdout is data, stderr is for people. Whatever can fail is settled before a paste that burns is asked
// for, and afterwards nothing is refused. The history forgets what a server said is gone, and nothing by a clock: it
// holds the only copy of keys and tokens. Files appear whole or not at all and replace nothing without -f. What
// others wrote (names, content, the server's sentences) reaches a terminal only with its control characters made
// visible.
// Never: a key or password in an argument of ours, a child's environment or a sentence; plaintext in a temporary
// file.
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
	progressStep = 200 * time.Millisecond // between two looks of it
	peekSize     = 4096                   // bytes judged to be text or not before a terminal gets them
	tableWidth   = 79                     // columns of a terminal's line
	certLife     = 10 * 365 * 24 * time.Hour
	renewFrom    = 14 * 24 * time.Hour // before the end of a certificate: it is mentioned
	blankish     = " \t\r\n<>"         // what mail puts around links
)

var (
	configKeys = regexp.MustCompile(`^(server|cert|key|cacert|expiry|encrypt|history)$`)
	spanForm   = regexp.MustCompile(`^([0-9]+[smhdw]?)+$`)
	spanPart   = regexp.MustCompile(`([0-9]+)([smhdw]?)`)
	// A link with its key: 43 characters behind # in whatever spelling, or anything there behind a paste's id.
	keyBehind = regexp.MustCompile(keyMark.String() + `[0-9A-Za-z_-]{43}(?:[^0-9A-Za-z_-]|$)|` +
		`/[0-9a-f]{8,64}(?:/raw)?(?:` + keyMark.String() + `).`)
	pastePath   = regexp.MustCompile(`^(.*?)/([0-9a-f]{8,64})(?:/raw(?:/[^/]*)?)?$`)
	shortPath   = regexp.MustCompile(`^(.*?)/s/([0-9A-Za-z]{8})(?:/info)?$`)
	mailedKey   = regexp.MustCompile(`^([^#]*)%23([0-9A-Za-z_-]{43})$`)
	secretParts = regexp.MustCompile(`(://)[^\s"'<>]*@|(?:#|%(?:25)*23)[0-9A-Za-z_%-][^\s"'<>]*`)
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

// cliOption is an option: names, and that of its value ("" for a switch). A letter means one thing in all commands.
type cliOption struct{ long, short, value string }

func cliOptions() []cliOption {
	return []cliOption{
		{"server", "s", "URL"}, {"cert", "", "FILE"}, {"key", "", "FILE"}, {"cacert", "", "FILE"}, {"quiet", "q", ""},
		{"verbose", "v", ""}, {"insecure-http", "", ""}, {"help", "h", ""}, {"version", "V", ""}, // these everywhere
		{"no-encrypt", "E", ""}, {"encrypt", "e", ""}, {"expiry", "x", "TIME"}, {"burn", "b", ""}, {"password", "p", ""},
		{"name", "n", "TEXT"}, {"type", "t", "MIME"}, {"raw", "r", ""}, {"json", "j", ""}, {"output", "o", "FILE"},
		{"remote-name", "O", ""}, {"force", "f", ""}, {"token", "", "TOKEN"}, {"after", "", "TIME"}, {"before", "", "TIME"},
		{"owner", "", "ID"}, {"ids", "", ""}, {"clear", "", ""},
	}
}

const commonOptions = 9 // of cliOptions

// cliCommand is one command: its words and how many, what it does, an example, its own options as lines of name and
// help, and the fixed words that its first may be. bare: it never presents a certificate.
type cliCommand struct {
	name, args     string
	least, most    int
	brief, example string
	options, words string
	bare           bool
	run            func(*cli, context.Context, []string) error
}

// clientCommands is the table that dispatch, help and completion are made of. The first one is meant when none is
// named.
func clientCommands() []cliCommand {
	const many = 1 << 30
	return []cliCommand{
		{name: "create", args: "[FILE...]", most: many, run: (*cli).create,
			brief: "encrypt and upload files or standard input, print links", example: "dmesg | fpaste -x 7d --burn", options: `
no-encrypt send it readable: the server and whoever has the link can read it
encrypt encrypt, even if the config says off
expiry life: 90s, 15m, 12h, 7d, 2w, 1d12h, RFC 3339 or @unix
burn gone after the first read
password readers must know a password, asked for here (or FPASTE_PASSWORD)
name name for the reader; encrypted like the content
type content type for the reader
raw print the raw URL (with -E)
json print JSON, with the delete token`},
		{name: "get", args: "LINK|ID", least: 1, most: 1, run: (*cli).get, brief: "fetch and decrypt",
			example: "fpaste get 'https://paste.example.org/0123456789abcdef#KEY' -o notes.txt", options: `
output write to FILE (- is standard output, DIR/ keeps the sender's name)
remote-name write to a file of the sender's name
force overwrite the file; show binary on a terminal
password ask for the paste's password (or FPASTE_PASSWORD)`},
		{name: "meta", args: "LINK|ID", least: 1, most: 1, run: (*cli).meta, brief: "type, size and end, without reading it",
			example: "fpaste meta 0123456789abcdef", options: `
json the server's JSON`},
		{name: "update", args: "LINK|ID [FILE|-]", least: 1, most: 2, run: (*cli).update,
			brief:   "replace the content (the link stays good), or only the options named",
			example: "fpaste update LINK notes.txt", options: `
no-encrypt send it readable, to a paste that is
expiry new life, as for create; '' removes it
password new password; an empty FPASTE_PASSWORD removes it
name new name; that of an encrypted paste needs the content too
type new type, likewise
token the delete token that -j printed, instead of the history's
json print JSON`},
		{name: "delete", args: "LINK|ID... | -", least: 1, most: many, run: (*cli).remove,
			brief: "delete; - reads links or ids from standard input", example: "fpaste list --ids | fpaste delete -", options: `
token the delete token that -j printed, instead of the history's`},
		{name: "list", run: (*cli).list, brief: "your pastes (needs a certificate)", example: "fpaste list --ids", options: `
owner for admins: whose, an owner's id, anonymous or all
ids one id a line
json print JSON`},
		{name: "search", args: "[TEXT]", most: 1, run: (*cli).list, brief: "your pastes by name, id, type and date",
			example: "fpaste search backup -t 'image/*' --after 2026-01-01", options: `
type only of this type, such as text/plain or image/*
after made after this date, time (RFC 3339) or Unix time
before made before
owner for admins: whose, an owner's id, anonymous or all
ids one id a line
json print JSON`},
		{name: "history", run: (*cli).history, brief: "what this machine created: created, ends, name, link",
			example: "fpaste history | grep notes", options: `
clear forget all: keys and tokens exist nowhere else
force with --clear: do not ask
json print JSON, with the delete tokens`},
		{name: "short", args: "URL | list | info ID... | delete ID...", least: 1, most: many, run: (*cli).short,
			brief: "short URLs", example: "fpaste short https://example.org/a/long/path", words: "list info delete", options: `
expiry life, as for create
owner with list, for admins: whose
ids with list: one id a line
token with delete: the token that -j printed
json print JSON`},
		{name: "register", args: "NAME", least: 1, most: 1, run: (*cli).register, bare: true,
			brief: "make a key here and have it certified by the server", example: "fpaste register alice", options: `
force replace the key and certificate that you have`},
		{name: "cert", args: "NAME", least: 1, most: 1, run: (*cli).cert, bare: true,
			brief: "make a self-signed certificate, offline: a pseudonym", example: "fpaste cert alice", options: `
force replace the key and certificate that you have`},
		{name: "renew", run: (*cli).renew, brief: "have the certificate renewed, for the same key", example: "fpaste renew"},
		{name: "info", run: (*cli).info, example: "fpaste info",
			brief: "the server, who you are there, what you may send", options: `
json the server's JSON`},
		{name: "completion", args: "bash | zsh | fish", least: 1, most: 1, run: (*cli).completion, words: "bash zsh fish",
			brief: "a completion script", example: "source <(fpaste completion bash)"},
		{name: "version", run: (*cli).version, brief: "version of this program", example: "fpaste version"},
		{name: "help", args: "[COMMAND]", most: 1, run: (*cli).help, brief: "this list, or one command",
			example: "fpaste help get"},
	}
}

func findCommand(name string) (cliCommand, bool) {
	table := clientCommands()
	i := slices.IndexFunc(table, func(k cliCommand) bool { return k.name == name })
	return table[max(i, 0)], i >= 0
}

// own returns the command's options in the order of its help, and their texts by long name.
func (k cliCommand) own() (list []cliOption, help map[string]string) {
	help = map[string]string{}
	for line := range strings.Lines(strings.TrimPrefix(k.options, "\n")) {
		long, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		list, help[long] = append(list, findOption(long, "")), text
	}
	return list, help
}

// findOption finds an option by one of its names; the zero value if there is none.
func findOption(long, short string) cliOption {
	for _, o := range cliOptions() {
		if o.long == long || short != "" && o.short == short {
			return o
		}
	}
	return cliOption{}
}

// cli is one run. It is used by one goroutine.
type cli struct {
	std            stdio
	out            io.Writer // std.out, with control characters made visible on a terminal
	outTTY, errTTY bool
	command        cliCommand
	opt            map[string]string // options given, by long name
	conf           map[string]string // the config file
	clock          func() time.Time
	server         *url.URL // configured; nil if it is not
	clients        map[string]*apiClient
	past           map[string]historyEntry // the history by link without key; nil before it was read
	order          []string                // of past
	shown          string                  // as status
	unsent         string                  // why the certificate was not sent, "" if it was or there is none
}

// runClient is the command line: args without the program's name. It returns the exit code. ctx ends with Ctrl-C.
func runClient(ctx context.Context, args []string, std stdio) int {
	c := &cli{std: std, out: std.out, outTTY: isTerminal(std.out), errTTY: isTerminal(std.err), opt: map[string]string{},
		clock: time.Now, clients: map[string]*apiClient{}}
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
	words, named, err := c.parse(args)
	k := c.command
	switch {
	case err != nil:
		return err
	case c.has("version"):
		return c.version(ctx, nil)
	case c.has("help") && !named:
		return c.help(ctx, nil)
	case c.has("help"):
		return c.help(ctx, []string{k.name})
	case len(words) < k.least || len(words) > k.most:
		return usage("fpaste help "+k.name, "wrong arguments: fpaste %s %s", k.name, k.args)
	case !named && len(words) > 0 && words[0] != "-":
		if _, err := os.Stat(words[0]); errors.Is(err, fs.ErrNotExist) && !linkish(words[0]) {
			return usage("", "no file and no command is called %s; fpaste help lists the commands", hide(words[0]))
		}
	}
	if k.name != "help" && k.name != "version" && k.name != "completion" { // these work whatever the config says
		if err := c.configure(); err != nil {
			return err
		}
	}
	return k.run(c, ctx, words)
}

// parse sorts options from words, in any order, up to "--". The command is the first word if the table has it.
func (c *cli) parse(args []string) (words []string, named bool, err error) {
	c.command = clientCommands()[0]
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		if a == "--" {
			words = append(words, args...)
			break
		}
		if a == "" || a == "-" || a[0] != '-' {
			if k, ok := findCommand(a); ok && !named && len(words) == 0 {
				c.command, named = k, true
			} else {
				words = append(words, a)
			}
			continue
		}
		name, value, joined := strings.Cut(a[1:], "=")
		o := findOption(strings.TrimPrefix(name, "-"), "")
		if a[1] != '-' { // letters, the last of which may have its value behind it: -bx7d
			o, value, a = findOption("", a[1:2]), a[2:], a[:2]
			if joined = value != ""; joined && o.value == "" {
				args, joined = append([]string{"-" + value}, args...), false
			}
		}
		switch {
		case o.long == "":
			return nil, false, c.unknown(hide(a))
		case o.value == "" && joined:
			return nil, false, usage("", "option --%s takes no value", o.long)
		case o.value != "" && !joined && len(args) == 0:
			return nil, false, usage("", "option --%s needs a value: %s", o.long, o.value)
		case o.value != "" && !joined:
			value, args = args[0], args[1:]
		}
		c.opt[o.long] = value
	}
	own, _ := c.command.own()
	for _, name := range slices.Sorted(maps.Keys(c.opt)) {
		if o := findOption(name, ""); !slices.Contains(append(own, cliOptions()[:commonOptions]...), o) {
			return nil, false, c.unknown("--" + name)
		}
	}
	return words, named, nil
}

func (c *cli) unknown(option string) error {
	return usage("fpaste help "+c.command.name, "unknown option %q for %s", option, c.command.name)
}

func (c *cli) has(option string) bool {
	_, given := c.opt[option]
	return given
}

// report says what went wrong and returns the exit code.
func (c *cli) report(err error) int {
	code, what, hint := explain(err)
	if f, ok := errors.AsType[*apiFailure](err); ok && c.unsent != "" && (f.Status == 401 || f.Status == 403) {
		hint = "your certificate was not sent: " + c.unsent
	}
	if what != "" {
		fmt.Fprintf(c.std.err, "fpaste: %s\n", sentence(what))
	}
	if hint != "" {
		fmt.Fprintf(c.std.err, "hint: %s\n", sentence(hint))
	}
	return code
}

// sentence makes text safe to show: one line, no key behind # or %23, no user part of a URL.
func sentence(s string) string { return oneLine(secretParts.ReplaceAllString(s, "$1")) }

// explain turns an error into exit code, sentence and hint; no sentence when there is nothing to say.
func explain(err error) (code int, what, hint string) {
	if err == nil || errors.Is(err, syscall.EPIPE) {
		return map[bool]int{false: 1}[err == nil], "", "" // the reader has had enough, as in "| head -1"
	} else if told, ok := errors.AsType[errTold](err); ok {
		return int(told), "", ""
	} else if own, ok := errors.AsType[*cliError](err); ok {
		return own.code, err.Error(), own.hint // with what was put before it
	} else if refused, ok := errors.AsType[*apiFailure](err); ok {
		return explainRefusal(err.Error(), refused)
	}
	_, stranger := errors.AsType[x509.UnknownAuthorityError](err)
	_, cut := errors.AsType[netFailure](err)
	switch {
	case stranger:
		return 6, err.Error(), "if the server has an authority of its own: --cacert FILE with its certificate"
	case cut && strings.Contains(err.Error(), "HTTP response to HTTPS"):
		return 6, err.Error(), "the server speaks http: -s http://..."
	case cut:
		return 6, err.Error(), "check the server's URL and the network; -v shows each request"
	case errors.Is(err, errWrongKey):
		return 7, err.Error(), "give the whole link, in quotes, as it was printed"
	case errors.Is(err, errSealBroken):
		return 7, err.Error(), "a paste that is not encrypted is fetched by its link without # and what follows"
	case errors.Is(err, errElsewhere):
		return 4, err.Error(), "name the link's server with --server if you trust it"
	case errors.Is(err, errTitle):
		return 2, err.Error(), "-n and -t take some 1,000 bytes together"
	}
	return 1, err.Error(), ""
}

// explainRefusal puts a server's refusal into fpaste's words.
func explainRefusal(what string, f *apiFailure) (code int, _, hint string) {
	if f.RequestID != "" {
		what += " (request " + f.RequestID + ")"
	}
	const makeCert = "fpaste register NAME gets one, fpaste cert NAME makes a self-signed one"
	hint, ours := map[string]string{
		"authentication_required": "with the certificate of its owner, or for update and delete --token; " + makeCert,
		"certificate_required":    makeCert,
		"certificate_revoked":     "fpaste register NAME -f gets a new one",
		"certificate_expired":     "fpaste renew, or fpaste register NAME -f for a new one",
		"registration_closed":     "ask the operator for a certificate; fpaste cert NAME makes a self-signed one",
		"pki_disabled":            "fpaste cert NAME makes a self-signed certificate",
		"not_owner":               "--token takes the token that create -j printed",
		"password_required":       "-p asks for it, or put it into FPASTE_PASSWORD",
		"password_wrong":          "try again with -p, or FPASTE_PASSWORD",
		"read_proof_required":     "give the whole link, in quotes: its key is the part after #",
		"bad_expiry":              "-x takes 90s, 15m, 12h, 7d, 2w, 1d12h, an RFC 3339 time or @unix, in the future",
		"bad_display_name":        "-n takes 1 to 128 characters, and with -E a certificate; " + makeCert,
		"bad_url":                 "fpaste short https://...",
		"pow_required":            "try again later, or with a certificate; " + makeCert,
		"rate_limited":            "try again in " + span(int64(f.After)),
		"too_many_transfers":      "try again in " + span(int64(f.After)),
		"busy":                    "try again in " + span(int64(f.After)),
		"duplicate_content":       "it is there already, see fpaste history; else try again in " + span(int64(f.After)),
		"storage_full":            "try again later, or another server: -s URL",
		"not_found":               "it never was, has expired, was burned or deleted",
	}[f.Code]
	if !ours && !strings.Contains(f.Hint, "curl") && !strings.Contains(f.Hint, "X-") { // curl's words are not ours
		hint = f.Hint
	}
	switch {
	case f.Status/100 == 3:
		return 1, what, "it redirects, which is never followed: set the server to its final URL"
	case f.Status == 413 && f.Limit > 0:
		return 1, fmt.Sprintf("%s: the server takes %s", what, size(f.Limit)), "a certificate raises it: " + makeCert
	case f.Status == 404:
		return 3, what, hint
	case f.Status == 429, f.Code == "pow_required", f.Code == "pow_failed":
		return 5, what, hint
	case f.Code == "registration_closed", f.Code == "preview_refused", f.Code == "cross_origin":
		return 1, what, hint
	case f.Status == 401, f.Status == 403:
		return 4, what, hint
	}
	return 1, what, hint
}

// each runs one step for every argument, goes on after a failure and returns the first one's exit code.
func (c *cli) each(args []string, step func(string) error) error {
	first := errTold(0)
	for _, arg := range args {
		err := step(arg)
		if err != nil && (len(args) == 1 || errors.Is(err, context.Canceled) || errors.Is(err, syscall.EPIPE)) {
			return err
		}
		if err != nil {
			first = cmp.Or(first, errTold(c.report(fmt.Errorf("%s: %w", hide(arg), err))))
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

func (c *cli) printJSON(v any) error {
	enc := json.NewEncoder(c.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// note is for people: a line on stderr unless -q.
func (c *cli) note(format string, args ...any) {
	if !c.has("quiet") {
		fmt.Fprintf(c.std.err, "fpaste: %s\n", sentence(fmt.Sprintf(format, args...)))
	}
}

// ---- settings ----

// folder returns ours below an XDG variable, else below home, "" if there is none.
func (c *cli) folder(variable, below string) string {
	if base, _ := c.std.env(variable); filepath.IsAbs(base) {
		return filepath.Join(base, "fpaste")
	}
	if home, _ := c.std.env("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, below, "fpaste")
	}
	return ""
}

func (c *cli) configFolder() string { return c.folder("XDG_CONFIG_HOME", ".config") }

// setting is the order of authority: option (rank 3), environment (2), config file (1); 0 if nothing is said.
func (c *cli) setting(name string) (value string, rank int) {
	if v, ok := c.opt[name]; ok {
		return v, 3
	}
	for _, prefix := range []string{"FPASTE_", "FLASKPASTE_"} {
		if v, _ := c.std.env(prefix + strings.ToUpper(name)); v != "" && (prefix == "FPASTE_" || name == "server") {
			return v, 2
		}
	}
	return c.conf[name], min(len(c.conf[name]), 1)
}

// configure reads the config file and settles the server.
func (c *cli) configure() error {
	c.conf = map[string]string{}
	path, home := filepath.Join(c.configFolder(), "config"), filepath.Dir(c.folder("", ""))
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && c.configFolder() != "" {
		return fmt.Errorf("reading the config: %w", err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case !ok || !configKeys.MatchString(key):
			return usage("known are server, cert, key, cacert, expiry, encrypt and history", "unknown key %q in line %d of %s",
				hide(key), n, path)
		case (key == "encrypt" || key == "history") && value != "on" && value != "off":
			return usage("", "%s must be on or off in line %d of %s", key, n, path)
		case !slices.Contains([]string{"cert", "key", "cacert"}, key) || value == "" || filepath.IsAbs(value):
		case strings.HasPrefix(value, "~/"):
			value = filepath.Join(home, value[2:])
		default:
			value = filepath.Join(c.configFolder(), value)
		}
		c.conf[key] = value
	}
	if s, _ := c.setting("server"); s != "" {
		if c.server, err = parseServer(strings.Trim(s, blankish), c.has("insecure-http")); err != nil {
			return usage("", "%v", err)
		}
	}
	return nil
}

// identity names the files of the certificate in force. A key counts if its rank is not below the certificate's; else
// both are in one file: an option's certificate never meets the config's key.
func (c *cli) identity() (cert, key string, rank int) {
	cert, rank = c.setting("cert")
	key, keyRank := c.setting("key")
	if keyRank < rank || key == "" {
		key = cert
	}
	return cert, key, rank
}

// loadPair loads a certificate and its key; who has them in another form is told how to make PEM of it.
func loadPair(cert, key string) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err == nil {
		return &pair, nil
	}
	hint := ""
	for _, path := range []string{cert, key} {
		text, _ := os.ReadFile(path)
		block, _ := pem.Decode(text)
		_, notDER := x509.ParseCertificate(text)
		switch {
		case bytes.Contains(text, []byte("ENCRYPTED")):
			hint = fmt.Sprintf("the key is encrypted: openssl pkey -in %s -out plain.key makes a plain one for --key", path)
		case block == nil && notDER == nil:
			hint = fmt.Sprintf("it is not PEM: openssl x509 -inform der -in %s -out client.crt", path)
		case block == nil && len(text) > 0 && text[0] == 0x30: // a DER sequence
			hint = fmt.Sprintf("it is not PEM: openssl pkcs12 -in %s -nodes -out client.pem, then --cert client.pem", path)
		}
	}
	return nil, &cliError{1, fmt.Sprintf("loading the certificate: %v", err), hint}
}

// pair loads the certificate for the configured server. One that only the config names stops nothing when it can't
// be had.
func (c *cli) pair() (*tls.Certificate, error) {
	cert, key, rank := c.identity()
	if cert == "" || c.command.bare {
		return nil, nil
	} else if c.server.Scheme == "http" {
		c.unsent = "the server's URL is http, use https"
		return nil, nil
	}
	pair, err := loadPair(cert, key)
	if err != nil && rank == 1 {
		_, what, hint := explain(err)
		c.unsent = what
		c.note("going on without your certificate: %s %s", what, hint)
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	c.remind(pair)
	return pair, nil
}

// remind says once a day that the certificate ends soon.
func (c *cli) remind(pair *tls.Certificate) {
	now, end, dir := c.clock(), pair.Leaf.NotAfter, c.folder("XDG_STATE_HOME", ".local/state")
	stamp := filepath.Join(dir, "reminded")
	if end.Sub(now) > renewFrom || c.has("quiet") || c.command.name == "renew" {
		return
	}
	if info, err := os.Stat(stamp); err == nil && now.Sub(info.ModTime()).Abs() < 24*time.Hour {
		return
	}
	if os.MkdirAll(dir, 0o700) == nil && os.WriteFile(stamp, nil, 0o600) == nil {
		os.Chtimes(stamp, now, now)
	}
	c.note("your certificate ends %s: %s", c.when(end.Unix()), renewal(pair))
}

// renewal is what to type for a certificate that ends.
func renewal(pair *tls.Certificate) string {
	if bytes.Equal(pair.Leaf.RawIssuer, pair.Leaf.RawSubject) {
		return "it is self-signed, fpaste cert NAME -f makes another (and another pseudonym)"
	}
	return "fpaste renew"
}

// client returns a client for base: with the certificate if base has the configured origin, else without anything of
// ours.
func (c *cli) client(base *url.URL) (*apiClient, error) {
	if api := c.clients[base.String()]; api != nil {
		return api, nil
	}
	trusted := c.server != nil && base.Scheme == c.server.Scheme && base.Host == c.server.Host
	var pair *tls.Certificate
	var roots *x509.CertPool
	var err error
	if trusted {
		if pair, err = c.pair(); err != nil {
			return nil, err
		}
		if ca, _ := c.setting("cacert"); ca != "" {
			text, err := os.ReadFile(ca)
			if roots = x509.NewCertPool(); err != nil || !roots.AppendCertsFromPEM(text) {
				return nil, fmt.Errorf("loading the CA certificates: %w", cmp.Or(err, fmt.Errorf("no PEM certificate in %q", ca)))
			}
		}
		base.User = c.server.User
	}
	api := newAPIClient(base, trusted, pair, roots)
	api.note = func(s string) { c.note("%s", s) }
	api.work = c.work
	if c.has("verbose") {
		api.trace = func(method, path, status, id string) {
			fmt.Fprintf(c.std.err, "fpaste: %s\n", sentence(fmt.Sprintf("%s %s: %s (request %s)", method, path, status, id)))
		}
	}
	c.clients[api.base.String()] = api
	return api, nil
}

// own returns the client of the configured server.
func (c *cli) own() (*apiClient, error) {
	if c.server == nil {
		return nil, usage("fpaste --server https://paste.example.org ..., the environment's FPASTE_SERVER (or "+
			"FLASKPASTE_SERVER), or a line \"server = https://...\" in "+cmp.Or(c.configFolder(), "~/.config/fpaste")+"/config",
			"no server is configured")
	}
	base := *c.server
	return c.client(&base)
}

// ---- links ----

// pasteRef is a link or an id taken apart; key and token may come from the history.
type pasteRef struct {
	api   *apiClient
	place string // the link without its key
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

// linkish tells what is meant as a link from what is meant as a file.
func linkish(s string) bool {
	s = strings.Trim(s, blankish)
	return strings.Contains(s, "://") || pastePath.MatchString("/"+keyMark.Split(s, 2)[0]) || mailedKey.MatchString(s) ||
		keyBehind.MatchString(s)
}

// resolve settles a link or id, everything that can be wrong with it included, before any request. form is pastePath
// or shortPath.
func (c *cli) resolve(arg string, form *regexp.Regexp) (r pasteRef, err error) {
	arg = strings.Trim(arg, blankish)
	if m := mailedKey.FindStringSubmatch(arg); m != nil { // mailers write # so
		arg = m[1] + "#" + m[2]
	}
	place, fragment, keyed := strings.Cut(arg, "#")
	if keyed {
		key, err := parseSealKey(fragment)
		if err != nil {
			return r, usage("quote the link: the shell may have cut it", "%v", err)
		}
		r.key = &key
	}
	below := map[*regexp.Regexp]string{shortPath: "/s"}[form]
	path, server := below+"/"+place, c.server
	if strings.Contains(place, "://") {
		if server, err = parseServer(place, c.has("insecure-http")); err != nil {
			return r, usage("", "%v", err)
		}
		path = server.Path
	}
	m := form.FindStringSubmatch(path)
	if m == nil || server == c.server && m[1] != "" {
		return r, usage("a link as it was printed, or the id alone", "%q is neither a link nor an id", hide(place))
	}
	if server == c.server {
		r.api, err = c.own()
	} else {
		server.Path = m[1]
		r.api, err = c.client(server)
	}
	if err != nil {
		return r, err
	}
	r.id = m[2]
	r.place = r.api.base.String() + below + "/" + r.id
	r.past = c.known()[r.place]
	r.token = cmp.Or(c.opt["token"], r.past.Token)
	if _, fragment, _ := strings.Cut(r.past.Link, "#"); r.key == nil {
		if key, err := parseSealKey(fragment); err == nil {
			r.key = &key
		}
	}
	return r, nil
}

// gone passes an error on, and has the history forget what the paste's own server says is not there.
func (c *cli) gone(r pasteRef, err error) error {
	if f, ok := errors.AsType[*apiFailure](err); ok && f.Status == 404 && f.Code == "not_found" {
		c.forget(r.place)
	}
	return err
}

// ---- create, update ----

// sealing tells whether content is encrypted: option, then config, and on if nothing is said.
func (c *cli) sealing() bool {
	return !c.has("no-encrypt") && (c.has("encrypt") || c.conf["encrypt"] != "off")
}

// header collects the options that the server has to know. Changing a paste, an empty one removes what was set.
func (c *cli) header(ctx context.Context, sealed, changing bool) (map[string]string, error) {
	h := map[string]string{}
	if v := c.expiry(); v != "" && !changing || c.has("expiry") {
		h["X-Expiry"] = v
	}
	if c.has("burn") {
		h["X-Burn-After-Read"] = "true"
	}
	if !sealed && c.has("name") { // else it travels sealed, and the history knows it
		h["X-Display-Name"] = c.opt["name"]
	}
	if !sealed && c.has("type") {
		h["Content-Type"] = c.opt["type"]
	}
	for name, v := range h {
		if oneLine(v) != v || strings.HasPrefix(strings.ToLower(v), "multipart/") {
			return nil, usage("", "%s can't be %q", strings.TrimPrefix(name, "X-"), v)
		}
	}
	if c.has("password") {
		var err error
		if h["X-Paste-Password"], err = c.password(ctx, true, changing); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (c *cli) expiry() string {
	if v, given := c.opt["expiry"]; given {
		return v
	}
	return c.conf["expiry"]
}

// clamped says so when the server gives less life than was asked for: a time, or a span from since on.
func (c *cli) clamped(since, ends int64) {
	asked := c.expiry()
	end, _ := strconv.ParseInt(strings.TrimPrefix(asked, "@"), 10, 64)
	if t, err := time.Parse(time.RFC3339, asked); err == nil {
		end = t.Unix()
	} else if spanForm.MatchString(asked) {
		end = since
		for _, m := range spanPart.FindAllStringSubmatch(asked, -1) {
			n, _ := strconv.ParseInt(m[1], 10, 64)
			end += n * map[string]int64{"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[m[2]]
		}
	}
	if ends < end-60 { // our clock is not the server's
		c.note("it lives until %s, not %s: that is the longest life that the server gives you (fpaste info; a certificate "+
			"may raise it)", c.when(ends), asked)
	}
}

// password comes from FPASTE_PASSWORD or the terminal, never from an argument, which every user of the machine could
// read.
func (c *cli) password(ctx context.Context, twice, removable bool) (string, error) {
	pw, given := c.std.env("FPASTE_PASSWORD")
	if !given {
		var err error
		if pw, err = askTerminal(ctx, "Password: ", true); err == nil && twice {
			var again string
			if again, err = askTerminal(ctx, "Once more: ", true); err == nil && again != pw {
				return "", &cliError{4, "the two passwords differ", ""}
			}
		}
		if err != nil {
			return "", &cliError{4, "asking for the password: " + err.Error(), "put it into the environment's FPASTE_PASSWORD"}
		}
	}
	if pw == "" && !(given && removable) || len(pw) > 1024 || strings.TrimSpace(pw) != pw || oneLine(pw) != pw {
		return "", usage("", "a password has 1 to 1024 bytes, no control characters and no blank at either end")
	}
	return pw, nil
}

// source prepares FILE or "-" for sending, as often as it takes. A file is read (and sealed) anew for each try, a
// pipe is kept as ciphertext.
func (c *cli) source(ctx context.Context, arg string, key *sealKey, title sealTitle) (_ bodySource, release func(),
	err error) {
	in, release := c.std.in, func() {}
	if arg != "-" {
		f, err := os.Open(arg)
		switch {
		case err != nil && linkish(arg):
			link := hide(strings.Trim(arg, blankish))
			return nil, release, usage("fpaste get LINK fetches it", "%s is a link, not a file", link)
		case err != nil:
			return nil, release, &cliError{2, hide(err.Error()), "fpaste help lists the commands"}
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
			err = usage("tar c FOLDER | fpaste -n FOLDER.tar", "%s is a folder: fpaste takes files, such as tar's", arg)
		}
		if err != nil {
			return nil, release, err
		}
		at, err := f.Seek(0, io.SeekCurrent)
		// The size of a small one says nothing in /proc and /sys.
		if n := info.Size() - at; err == nil && info.Mode().IsRegular() && n > sealSegment {
			return func() (io.Reader, int64, error) {
				r, err := seal(io.NewSectionReader(f, at, n))
				if key != nil {
					return r, sealedSize(n, title), err
				}
				return r, n, err
			}, release, nil
		}
		if isTerminal(f) {
			c.note("reading from the terminal; Ctrl-D on an empty line ends it")
		}
	}
	counted := &countReader{Reader: interruptible(ctx, in)}
	stream, err := seal(counted)
	if err != nil {
		return nil, release, err
	}
	kept, again, err := keep(stream, key != nil)
	if err == nil && counted.n == 0 {
		err = errors.New("there is nothing to send: it is empty")
	}
	return func() (io.Reader, int64, error) {
		if key != nil {
			return again(), kept.size(), nil
		}
		return again(), counted.n, nil
	}, release, err
}

// keep holds what r gives, as ciphertext: r's own, or made under a key that nobody else has. again reads it from the
// start as it came, and ends with the error that ended r.
func keep(r io.Reader, sealed bool) (kept *held, again func() io.Reader, err error) {
	key := newSealKey()
	if !sealed {
		if r, err = sealFrom(r, key, sealTitle{}); err != nil {
			return nil, nil, err
		}
	}
	kept = new(held)
	_, err = io.Copy(kept, r)
	return kept, func() io.Reader {
		again := io.MultiReader(kept.reader(), failing{cmp.Or(err, io.EOF)})
		if sealed {
			return again
		}
		plain, _, err := openFrom(again, key)
		if err != nil {
			return failing{err}
		}
		return plain
	}, err
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

// send prepares the content of arg and has it sent.
func (c *cli) send(ctx context.Context, arg string, key *sealKey,
	call func(bodySource) (apiItem, error)) (apiItem, error) {
	title := sealTitle{Name: c.opt["name"], Type: c.opt["type"]}
	if title.Name == "" && arg != "-" {
		title.Name = strings.ToValidUTF8(filepath.Base(arg), "_")
	}
	body, release, err := c.source(ctx, arg, key, title)
	defer release()
	if err != nil {
		return apiItem{}, err
	}
	defer c.status("")
	info, err := call(func() (io.Reader, int64, error) {
		r, n, err := body()
		return &countReader{Reader: r, see: c.meter("uploading", n)}, n, err
	})
	info.Known = title.Name
	return info, err
}

func (c *cli) create(ctx context.Context, args []string) error {
	if c.has("raw") && c.sealing() {
		return usage("fpaste -E -r FILE", "a raw URL of an encrypted paste shows nothing: -r goes with -E")
	}
	api, err := c.own()
	if err != nil {
		return err
	}
	header, err := c.header(ctx, c.sealing(), false)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		args = []string{"-"}
	}
	return c.each(args, func(arg string) error {
		r := pasteRef{api: api}
		if c.sealing() {
			key := newSealKey()
			r.key = &key
		}
		info, err := c.send(ctx, arg, r.key, func(body bodySource) (apiItem, error) {
			return api.create(ctx, body, r.key, maps.Clone(header))
		})
		if err != nil {
			return err
		}
		if len(args) > 1 {
			info.File = arg
		}
		r.place = api.base.String() + "/" + info.ID
		return c.made(r, info, info.CreatedAt, true)
	})
}

// made is the end of a creation or a change: into the history, then the link that it is for. An asked-for life
// counts from since.
func (c *cli) made(r pasteRef, info apiItem, since int64, ours bool) error {
	c.clamped(since, info.ExpiresAt)
	if ours {
		c.remember(historyEntry{r.link(), info.Known, info.DeleteToken, info.CreatedAt, info.ExpiresAt})
	}
	info.Link = r.link()
	if c.has("raw") {
		info.Link += "/raw"
	}
	if c.has("json") {
		return c.printJSON(info)
	}
	return c.print("%s\n", info.Link)
}

func (c *cli) update(ctx context.Context, args []string) error {
	r, err := c.resolve(args[0], pastePath)
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
			return r.api.replace(ctx, r.id, r.token, body, r.key, maps.Clone(header))
		})
	}
	if c.gone(r, err) != nil {
		return err
	}
	info.Known = cmp.Or(info.Known, r.past.Name)
	return c.made(r, info, c.clock().Unix(), r.past.Link != "")
}

// ---- meta, get ----

func (c *cli) meta(ctx context.Context, args []string) error {
	r, err := c.resolve(args[0], pastePath)
	if err != nil {
		return err
	}
	info, text, err := r.api.meta(ctx, r.id)
	if c.gone(r, err) != nil {
		return err
	}
	if c.has("json") {
		return c.print("%s\n", strings.TrimSpace(text))
	}
	lines := []string{what(info) + ", " + size(info.Size), "ends " + c.when(info.ExpiresAt)}
	if name := cmp.Or(r.past.Name, info.Display); name != "" {
		lines = append([]string{name}, lines...)
	}
	if info.Password {
		lines = append(lines, "needs a password")
	}
	if info.Burn {
		lines = append(lines, "burns: the first read is the last")
	}
	for _, line := range lines {
		if err := c.print("%s\n", oneLine(line)); err != nil {
			return err
		}
	}
	return nil
}

func what(info apiItem) string {
	if info.Proof {
		return "encrypted"
	}
	return info.MIME
}

func (c *cli) get(ctx context.Context, args []string) error {
	r, err := c.resolve(args[0], pastePath)
	if err != nil {
		return err
	}
	info, _, err := r.api.meta(ctx, r.id)
	if c.gone(r, err) != nil {
		return err
	}
	dir, name := filepath.Split(c.opt["output"])
	toFile := c.has("remote-name") || c.has("output") && c.opt["output"] != "-"
	terminal := !toFile && c.outTTY
	textual := strings.HasPrefix(info.MIME, "text/") || strings.HasPrefix(info.MIME, "application/json")
	switch {
	case info.Proof && r.key == nil:
		return &cliError{4, "this paste is encrypted and its key, the link's part after #, is missing",
			"give the whole link, in quotes"}
	case info.Burn && !info.Proof && r.key != nil:
		return &cliError{7, "the link has a key, but this paste is not encrypted; it was not read, and so not burned",
			"fpaste get " + r.place}
	case terminal && r.key == nil && !textual && !c.has("force"):
		return &cliError{1, "not showing " + info.MIME + " on a terminal", "-o FILE or -O to keep it, -f to show it"}
	}
	var file *outFile
	if toFile {
		if file, err = stage(dir, c.has("force")); err != nil {
			return err
		}
		defer file.abort()
		if err := file.free(name); err != nil {
			return err
		}
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
	resp, err := r.api.raw(ctx, r.id, r.key, password)
	if c.gone(r, err) != nil {
		return err
	}
	defer resp.Body.Close()
	defer c.status("")
	stored := func() io.Reader {
		return &countReader{Reader: resp.Body, see: c.meter("downloading", resp.ContentLength)}
	}
	if info.Burn { // it is nowhere else any more: all of it is here before anything is done with it
		_, stored, _ = keep(stored(), r.key != nil)
	}
	content, sender, err := opened(stored(), r.key, info.Display)
	if err != nil {
		return err
	}
	name = cmp.Or(name, safeName(sender, r.id))
	switch {
	case toFile:
		err = file.fill(content, name)
	default:
		err = c.show(content, terminal)
	}
	binary, damaged := errors.Is(err, errBinary), errors.Is(err, errSealBroken)
	if err != nil && info.Burn && ctx.Err() == nil && (binary || toFile && !damaged) {
		if content, _, err = opened(stored(), r.key, ""); err == nil {
			file, err = rescue(content, safeName(sender, r.id), r.id)
		}
	} else if binary {
		return &cliError{1, "not showing binary content on a terminal", "-o FILE or -O to keep it, -f to show it"}
	}
	if err == nil && file != nil && c.opt["output"] != file.final {
		fmt.Fprintf(c.std.err, "fpaste: saved as %s\n", oneLine(file.final))
	}
	return err
}

// opened decrypts what is stored if there is a key, and returns the sender's name for it: other if there is none.
func opened(stored io.Reader, key *sealKey, other string) (io.Reader, string, error) {
	if key == nil {
		return stored, other, nil
	}
	content, title, err := openFrom(stored, *key)
	return content, title.Name, err
}

var errBinary = errors.New("binary content")

// show writes content to standard output. A terminal gets no binary unless that is asked for: errBinary.
func (c *cli) show(content io.Reader, terminal bool) error {
	if c.status(""); !terminal {
		_, err := io.Copy(c.std.out, content)
		return err
	}
	c.errTTY = false // what follows is the content's: a status line would overwrite its last line
	head := bufio.NewReaderSize(content, peekSize)
	if seen, _ := head.Peek(peekSize); isBinary(seen) && !c.has("force") { // its error comes again with the copy
		return errBinary
	}
	_, err := io.Copy(c.out, head)
	if plain, ok := c.out.(*plainWriter); ok && err == nil {
		err = plain.flush()
	}
	return err
}

// rescue keeps the only copy of a burned paste where it can, here or with the temporary files, under the first free
// name.
func rescue(content io.Reader, name, id string) (file *outFile, err error) {
	for _, dir := range []string{"", os.TempDir()} {
		if file, err = stage(dir, false); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	defer file.abort()
	if _, err = io.Copy(file.File, content); err != nil {
		return nil, err
	}
	for n := 1; n < 1000; n++ {
		if err = file.commit(name); !errors.Is(err, fs.ErrExist) {
			break
		}
		name = id + "-" + strconv.Itoa(n)
	}
	return file, err
}

// ---- delete, list ----

func (c *cli) remove(ctx context.Context, args []string) error {
	return c.removeAll(ctx, args, pastePath, "/")
}

func (c *cli) removeAll(ctx context.Context, args []string, form *regexp.Regexp, below string) error {
	if len(args) == 1 && args[0] == "-" {
		text, err := io.ReadAll(interruptible(ctx, c.std.in))
		if err != nil {
			return fmt.Errorf("reading what to delete: %w", err)
		}
		args = strings.Fields(string(text))
	}
	return c.each(args, func(arg string) error {
		r, err := c.resolve(arg, form)
		if err != nil {
			return err
		} else if !r.api.trusted {
			return errElsewhere
		}
		if err := c.gone(r, r.api.remove(ctx, below+r.id, r.token)); err != nil {
			return err
		}
		c.note("deleted %s", r.id)
		c.forget(r.place)
		return nil
	})
}

func (c *cli) list(ctx context.Context, args []string) error {
	query, text := url.Values{"limit": {"200"}}, strings.ToLower(strings.Join(args, " "))
	for _, name := range []string{"type", "after", "before", "owner"} {
		if c.has(name) {
			value := c.opt[name]
			if day, err := time.ParseInLocation(time.DateOnly, value, time.Local); err == nil {
				value = strconv.FormatInt(day.Unix(), 10)
			}
			query.Set(name, value)
		}
	}
	// The server does not know the names of encrypted pastes: where the history has one that fits, all are looked at
	// here.
	known, here := c.known(), false
	for _, e := range known {
		here = here || text != "" && strings.Contains(strings.ToLower(e.Name), text)
	}
	if text != "" && !here {
		query.Set("q", args[0])
	}
	head := []string{"ID", "SIZE", "CREATED", "ENDS", "NAME", "TYPE"}
	return c.listed(ctx, "/pastes", query, head, func(base string, p *apiItem) []string {
		p.Known = known[base+"/"+p.ID].Name
		if here && !strings.Contains(strings.ToLower(p.ID+"\n"+p.Display+"\n"+p.Known), text) {
			return nil
		}
		marks := what(*p)
		if p.Burn {
			marks += " burns"
		}
		if p.Password {
			marks += " password"
		}
		name := c.fit(cmp.Or(p.Known, p.Display, "-"), 16)
		return []string{p.ID, size(p.Size), date(p.CreatedAt)[:10], date(p.ExpiresAt), name, marks}
	})
}

// listed prints a list page by page: ids, JSON, or a table of the rows that are not nil.
func (c *cli) listed(ctx context.Context, path string, query url.Values, head []string,
	row func(base string, item *apiItem) []string) error {
	api, err := c.own()
	if err != nil {
		return err
	}
	comma := "["
	err = api.pages(ctx, path, query, func(items []apiItem) error {
		var rows [][]string
		for _, item := range items {
			cells := row(api.base.String(), &item)
			switch {
			case cells == nil:
			case c.has("ids"):
				err = c.print("%s\n", oneLine(item.ID))
			case c.has("json"):
				text, _ := json.Marshal(item) // strings, numbers and booleans cannot fail
				err = c.print("%s%s", comma, text)
				comma = ",\n"
			case head != nil:
				rows, head = append(rows, head), nil
				fallthrough
			default:
				rows = append(rows, cells)
			}
			if err != nil {
				return err
			}
		}
		return c.table(rows)
	})
	if err == nil && c.has("json") {
		err = c.print("%s]\n", strings.TrimPrefix(comma, ",\n"))
	}
	return err
}

// table prints rows in columns; on a terminal no line is wider than it.
func (c *cli) table(rows [][]string) error {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, cells := range rows {
		for i, cell := range cells {
			cells[i] = oneLine(cell)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	w.Flush()
	for line := range strings.Lines(b.String()) {
		if err := c.print("%s\n", c.fit(strings.TrimRight(line, "\n"), tableWidth)); err != nil {
			return err
		}
	}
	return nil
}

// fit cuts what is too wide for a terminal.
func (c *cli) fit(s string, width int) string {
	if r := []rune(s); c.outTTY && len(r) > width {
		return string(r[:width-2]) + ".."
	}
	return s
}

// ---- history ----

// historyEntry is a line of the history: JSON in a file of mode 0600 that is only appended to and, for what is gone,
// blanked in place, so that programs running side by side need no lock. A later line on the same link adds to an
// earlier one.
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

// historyPath returns "" where there is no home.
func (c *cli) historyPath() string {
	if folder := c.folder("XDG_STATE_HOME", ".local/state"); folder != "" {
		return filepath.Join(folder, "history")
	}
	return ""
}

// remember appends to the history. Failing is no failure of the creation, which has happened.
func (c *cli) remember(e historyEntry) {
	path := c.historyPath()
	if c.conf["history"] == "off" || path == "" {
		return
	}
	line, _ := json.Marshal(e) // strings and numbers cannot fail
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = appendLine(path, line)
	}
	if err != nil {
		c.note("not in the history, so keep the link; deleting takes the certificate or the token that -j prints: %v", err)
	}
}

func appendLine(path string, line []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	end := []byte("\n")
	length, _ := f.Seek(0, io.SeekEnd)
	if f.ReadAt(end, length-1); end[0] != '\n' { // a full disk once cut the last line: this one must not hang on it
		line = append([]byte("\n"), line...)
	}
	_, err = f.Write(append(line, '\n')) // one write: lines of two programs don't mix
	return errors.Join(err, f.Chmod(0o600), f.Close())
}

// known is the history by link without key, each link's lines as one; order is that of creation.
func (c *cli) known() map[string]historyEntry {
	if c.past != nil {
		return c.past
	}
	c.past = map[string]historyEntry{}
	text, _ := os.ReadFile(c.historyPath()) // none yet, or none at all
	for line := range bytes.Lines(text) {
		var e historyEntry
		if json.Unmarshal(line, &e) != nil {
			continue
		}
		before, again := c.past[e.place()]
		if e.Name, e.Token = cmp.Or(e.Name, before.Name), cmp.Or(e.Token, before.Token); !again {
			c.order = append(c.order, e.place())
		} else if e.Created = before.Created; !strings.Contains(e.Link, "#") {
			e.Link = before.Link
		}
		c.past[e.place()] = e
	}
	return c.past
}

// forget overwrites what the history has of a link with blanks: key and token are gone from the file, no other line
// moves. Where it can't be written nothing is lost: what it names is gone all the same.
func (c *cli) forget(place string) {
	text, _ := os.ReadFile(c.historyPath())
	f, err := os.OpenFile(c.historyPath(), os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	at := int64(0)
	for line := range bytes.Lines(text) {
		var e historyEntry
		still := make([]byte, len(line)) // --clear may have been faster
		f.ReadAt(still, at)
		if json.Unmarshal(line, &e) == nil && e.place() == place && bytes.Equal(still, line) {
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
				return cmp.Or(err, error(&cliError{1, "nothing was forgotten", ""}))
			}
		}
		if err := os.Remove(c.historyPath()); err != nil && !errors.Is(err, fs.ErrNotExist) && c.historyPath() != "" {
			return err
		}
		return nil
	}
	all := c.known()
	for _, place := range c.order {
		e, err := all[place], error(nil)
		if ends := date(e.Expires); c.has("json") {
			err = c.printJSON(e)
		} else {
			if e.Expires < c.clock().Unix() {
				ends = "ended?" // reads may have renewed it: only the server knows
			}
			name := c.fit(oneLine(cmp.Or(e.Name, "-")), 16)
			err = c.print("%s  %-16s  %-16s  %s\n", date(e.Created), ends, name, oneLine(e.Link)) // links are never cut
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ---- short URLs ----

func (c *cli) short(ctx context.Context, args []string) error {
	verb, rest := args[0], args[1:]
	if (verb == "info" || verb == "delete") != (len(rest) > 0) {
		return usage("fpaste help short", "short takes a URL, list, info ID... or delete ID...")
	}
	switch verb {
	case "list":
		query := url.Values{"limit": {"200"}}
		if c.has("owner") {
			query.Set("owner", c.opt["owner"])
		}
		return c.listed(ctx, "/s", query, []string{"ID", "CREATED", "ENDS", "URL"}, func(_ string, u *apiItem) []string {
			return []string{u.ID, date(u.CreatedAt)[:10], date(u.ExpiresAt), u.Target}
		})
	case "delete":
		return c.removeAll(ctx, rest, shortPath, "/s/")
	case "info":
		return c.each(rest, func(arg string) error {
			r, err := c.resolve(arg, shortPath)
			if err != nil {
				return err
			}
			info, err := ask[apiItem](ctx, r.api, apiCall{method: "GET", path: "/s/" + r.id + "/info"})
			if c.gone(r, err) != nil {
				return err
			} else if c.has("json") {
				return c.printJSON(info)
			}
			return c.print("%s\nleads to %s\nends %s\n", r.place, oneLine(info.Target), c.when(info.ExpiresAt))
		})
	}
	target := strings.Trim(verb, blankish)
	if keyBehind.MatchString(target) {
		return usage("shorten the part before #, then add # and the key to the short link yourself",
			"the link has a key, which the server must not see: %s was not sent", hide(target))
	}
	api, err := c.own()
	if err != nil {
		return err
	}
	wish := map[string]string{"url": target}
	if v := c.expiry(); v != "" {
		wish["expiry"] = v
	}
	text, _ := json.Marshal(wish) // strings cannot fail
	info, err := ask[apiItem](ctx, api, apiCall{method: "POST", path: "/s", body: textBody(string(text)),
		header: map[string]string{"Content-Type": "application/json"}})
	if err == nil && !shortIDForm.MatchString(info.ID) {
		err = &apiFailure{Status: 200}
	}
	if err != nil {
		return err
	}
	info.Known = hide(target)
	return c.made(pasteRef{api: api, place: api.base.String() + "/s/" + info.ID}, info, info.CreatedAt, true)
}

// ---- certificates ----

// newIdentity makes a key, has it certified, and puts both files in place: together or not at all, whatever fails
// between.
func (c *cli) newIdentity(name string, certify func(*ecdsa.PrivateKey) (string, error)) error {
	dir := c.configFolder()
	if dir == "" {
		return &cliError{1, "there is no folder for the key", "set XDG_CONFIG_HOME or HOME"}
	} else if oneLine(name) != name || name == "" || len(name) > 64 {
		return usage("fpaste help "+c.command.name, "a name has 1 to 64 letters, digits, blanks and . _ - @")
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var files [2]*outFile
	var err error
	paths := [2]string{filepath.Join(dir, "client.key"), filepath.Join(dir, "client.crt")}
	for i, path := range paths {
		if files[i], err = stage(dir, c.has("force")); err != nil {
			return err
		}
		defer files[i].abort()
		if err := files[i].free(filepath.Base(path)); err != nil {
			return err
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	keyText := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	text, err := certify(key)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair([]byte(text), keyText) // the certificate is for this key
	if err != nil {
		return fmt.Errorf("checking the new certificate: %w", err)
	}
	_, err = files[0].Write(keyText)
	_, errCert := files[1].WriteString(text)
	old, errOld := os.ReadFile(paths[0])
	if err = errors.Join(err, errCert, files[1].Sync()); err != nil {
		return err
	}
	if err = files[0].commit("client.key"); err == nil {
		if err = files[1].commit("client.crt"); err != nil && errOld == nil { // the new key is nothing without it
			err = errors.Join(err, replaceFile(paths[0], old))
		} else if err != nil {
			os.Remove(paths[0])
		}
	}
	if err != nil {
		return err
	}
	c.note("wrote %s and %s: good until %s", paths[0], paths[1], date(pair.Leaf.NotAfter.Unix()))
	wanted := map[string]string{"cert": paths[1], "key": paths[0]}
	if c.server != nil && (c.command.name == "register" || c.conf["server"] == "") {
		wanted["server"] = c.server.String()
	}
	if ca, _ := c.setting("cacert"); ca != "" {
		wanted["cacert"], _ = filepath.Abs(ca)
	}
	if err := c.writeConfig(wanted); err != nil {
		return &cliError{1, "the config was not changed: " + err.Error(), "use --cert " + paths[1] + " --key " + paths[0]}
	}
	return nil
}

// writeConfig sets keys and leaves every other line as it is.
func (c *cli) writeConfig(wanted map[string]string) error {
	path := filepath.Join(c.configFolder(), "config")
	text, err := os.ReadFile(path)
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
	return replaceFile(path, []byte(b.String()))
}

func certRequest(name string, key crypto.PrivateKey) (string, error) {
	wish := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}
	der, err := x509.CreateCertificateRequest(rand.Reader, wish, key)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), err
}

func (c *cli) register(ctx context.Context, args []string) error {
	api, err := c.own()
	if err != nil {
		return err
	}
	return c.newIdentity(args[0], func(key *ecdsa.PrivateKey) (string, error) {
		csr, err := certRequest(args[0], key)
		if err != nil {
			return "", err
		}
		return api.enrol(ctx, csr)
	})
}

func (c *cli) cert(_ context.Context, args []string) error {
	return c.newIdentity(args[0], func(key *ecdsa.PrivateKey) (string, error) {
		now := c.clock()
		template := &x509.Certificate{Subject: pkix.Name{CommonName: args[0]}, // the serial is drawn
			NotBefore: now.Add(-5 * time.Minute), NotAfter: now.Add(certLife), BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), err
	})
}

// renew keeps the key, so that one rename changes everything: a new key would need two, and between them nothing
// would fit.
func (c *cli) renew(ctx context.Context, _ []string) error {
	path, keyPath, _ := c.identity()
	if path == "" {
		return usage("fpaste register NAME makes one", "no certificate is configured")
	}
	pair, err := loadPair(path, keyPath)
	if err != nil {
		return err
	}
	api, err := c.own()
	if err != nil {
		return err
	}
	csr, err := certRequest(pair.Leaf.Subject.CommonName, pair.PrivateKey)
	if err != nil {
		return err
	}
	call := apiCall{method: "POST", path: "/pki/renew", body: textBody(csr), certified: true}
	fresh, err := api.text(ctx, call, certBegin)
	if err != nil {
		return err
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := replaceCertificate(old, []byte(fresh))
	if err != nil {
		return err
	}
	key := text // in the same file
	if keyPath != path {
		if key, err = os.ReadFile(keyPath); err != nil {
			return err
		}
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

// replaceCertificate puts the first certificate of fresh in the place of the first that old has; all else stays as
// it is.
func replaceCertificate(old, fresh []byte) ([]byte, error) {
	block, _ := pem.Decode(fresh)
	for rest := old; block != nil; {
		found, after := pem.Decode(rest)
		if found == nil {
			break
		}
		rest = after
		if found.Type != "CERTIFICATE" {
			continue
		}
		const end = "-----END CERTIFICATE-----"
		begin := bytes.LastIndex(old[:len(old)-len(after)], []byte(certBegin))
		text := bytes.TrimRight(pem.EncodeToMemory(block), "\n")
		behind := old[begin+bytes.Index(old[begin:], []byte(end))+len(end):]
		if bytes.Contains(old[begin:len(old)-len(behind)], []byte("\r\n")) {
			text = bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
		}
		return slices.Concat(old[:begin], text, behind), nil
	}
	return nil, errStrange
}

// ---- info, help ----

func (c *cli) info(ctx context.Context, _ []string) error {
	api, err := c.own()
	if err != nil {
		return err
	}
	mine := api.pair // it may be refused now
	text, err := api.text(ctx, apiCall{method: "GET", path: "/"}, "{")
	var about struct {
		Name, Version string
		Limits        map[string]json.RawMessage
		You           *struct{ Tier, Owner string }
	}
	if err == nil && json.Unmarshal([]byte(text), &about) != nil {
		err = &apiFailure{Status: 200}
	}
	if err != nil {
		return err
	} else if c.has("json") {
		return c.print("%s\n", strings.TrimSpace(text))
	}
	tier, owner, certificate := "anonymous", "", "none: fpaste register NAME, or fpaste cert NAME"
	if about.You != nil {
		tier, owner = about.You.Tier, about.You.Owner
	} else if api.pair != nil {
		tier = "the server does not say"
	}
	if api.pair != nil {
		certificate = api.pair.Leaf.Subject.CommonName + ", good until " + c.when(api.pair.Leaf.NotAfter.Unix())
	} else if mine != nil {
		certificate = "refused: fpaste renew, or fpaste register NAME -f"
	} else if c.unsent != "" {
		certificate = "not sent: " + c.unsent
	}
	var may struct {
		Size    int64 `json:"max_size"`
		Life    int64 `json:"default_expiry"`
		Longest int64 `json:"max_expiry"`
	}
	var work struct {
		Difficulty int
		Free       int `json:"free_per_hour"`
	}
	json.Unmarshal(about.Limits[tier], &may)
	json.Unmarshal(about.Limits["work"], &work)
	rows := [][2]string{{"server", api.base.String() + ", " + about.Name + " " + about.Version}, {"you are", tier},
		{"owner", owner}, {"certificate", certificate}}
	if may.Size > 0 {
		rows = append(rows, [2]string{"may send", fmt.Sprintf("up to %s; it lives %s, with -x up to %s",
			size(may.Size), span(may.Life), span(may.Longest))})
	}
	if work.Difficulty > 0 {
		rows = append(rows, [2]string{"work", fmt.Sprintf("%d bits for each paste after %d in an hour; fpaste does it",
			work.Difficulty, work.Free)})
	}
	for _, row := range rows {
		if row[1] != "" {
			if err := c.print("%-12s %s\n", row[0], oneLine(row[1])); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *cli) version(context.Context, []string) error { return c.print("fpaste %s\n", version) }

func (c *cli) help(_ context.Context, args []string) error {
	k := clientCommands()[0]
	var b strings.Builder
	if len(args) == 0 {
		b.WriteString("fpaste shares files and text through a FlaskPaste server, encrypted end to end.\n\n")
		for _, k := range clientCommands() {
			fmt.Fprintf(&b, "  %-11s %s\n", k.name, k.brief)
		}
		b.WriteString("\nfpaste help COMMAND shows its options and an example. Without a command: create.\n\n")
	} else if found, ok := findCommand(args[0]); !ok {
		return usage("fpaste help lists the commands", "unknown command %q", hide(args[0]))
	} else {
		k = found
		fmt.Fprintf(&b, "usage: fpaste %s\n%s\n\n", strings.TrimSpace(k.name+" [OPTION...] "+k.args), k.brief)
	}
	own, text := k.own()
	for _, o := range own {
		letter := "    "
		if o.short != "" {
			letter = "-" + o.short + ", "
		}
		fmt.Fprintf(&b, "  %s%-17s %s\n", letter, strings.TrimSpace("--"+o.long+" "+o.value), text[o.long])
	}
	fmt.Fprintf(&b, "everywhere: -s/--server URL, --cert FILE, --key FILE, --cacert FILE, -q/--quiet,\n"+
		"  -v/--verbose (each request), --insecure-http, -h/--help, -V/--version\n\nexample: %s\n", k.example)
	if len(args) == 0 {
		b.WriteString("exit: 0 done, 1 failed, 2 usage, 3 not found, 4 authentication, 5 limit, 6 network, 7 decryption\n")
	}
	return c.print("%s", b.String())
}

// completion writes a script for a shell from the same table that dispatches.
func (c *cli) completion(_ context.Context, args []string) error {
	var cases, fish strings.Builder
	var names []string
	for _, k := range clientCommands() {
		names = append(names, k.name)
	}
	for _, k := range append(clientCommands(), cliCommand{name: "*", options: clientCommands()[0].options}) {
		own, text := k.own()
		if k.name == "help" {
			k.words = strings.Join(names, " ")
		}
		condition := "'__fish_seen_subcommand_from " + k.name + "'"
		if k.name == "*" {
			condition = "__fish_use_subcommand"
		} else {
			fmt.Fprintf(&fish, "complete -c fpaste -n __fish_use_subcommand -a %s -d \"%s\"\n", k.name, k.brief)
		}
		if k.words != "" {
			fmt.Fprintf(&fish, "complete -c fpaste -n %s -f -a '%s'\n", condition, k.words)
		}
		var flags []string
		for _, o := range append(own, cliOptions()[:commonOptions]...) {
			flags = append(flags, "--"+o.long)
			fmt.Fprintf(&fish, "complete -c fpaste -n %s -l %s -d \"%s\"", condition, o.long, text[o.long])
			if o.short != "" {
				fish.WriteString(" -s " + o.short)
			}
			if o.value != "" {
				fish.WriteString(" -r")
			}
			fish.WriteByte('\n')
		}
		fmt.Fprintf(&cases, "    %s) fixed='%s' flags='%s' ;;\n", k.name, k.words, strings.Join(flags, " "))
	}
	script := map[string]string{"bash": bashCompletion, "zsh": zshCompletion}[args[0]]
	switch args[0] {
	case "bash", "zsh":
		fill := strings.NewReplacer("COMMANDS", strings.Join(names, " "), "CASES", cases.String())
		return c.print("%s", fill.Replace(script))
	case "fish":
		return c.print("%s", fish.String())
	}
	return usage("bash, zsh or fish", "unknown shell %q", args[0])
}

const bashCompletion = `_fpaste() {
  local fixed flags cur=${COMP_WORDS[COMP_CWORD]}
  case ${COMP_WORDS[1]} in
CASES  esac
  ((COMP_CWORD == 1)) && fixed='COMMANDS'
  [[ $cur == -* ]] && fixed=$flags
  COMPREPLY=($(compgen -W "$fixed" -- "$cur"))
}
complete -o default -F _fpaste fpaste
`

const zshCompletion = `#compdef fpaste
_fpaste() {
  local fixed flags
  case ${words[2]} in
CASES  esac
  (( CURRENT == 2 )) && fixed='COMMANDS'
  [[ $PREFIX == -* ]] && fixed=$flags
  [[ -n $fixed ]] && compadd -- ${=fixed}
  [[ $PREFIX == -* ]] || _files
}
if [[ $funcstack[1] == _fpaste ]]; then
  _fpaste "$@"
else
  (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
  compdef _fpaste fpaste
fi
`

// ---- terminal ----

// isTerminal knows a terminal by its kind: a character device that is none of those which are no terminal.
func isTerminal(x any) bool {
	f, ok := x.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	device := func(i os.FileInfo) uint64 { return uint64(i.Sys().(*syscall.Stat_t).Rdev) }
	for _, path := range []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"} {
		if other, err := os.Stat(path); err == nil && device(info) == device(other) {
			return false
		}
	}
	return true
}

// askTerminal asks on the controlling terminal, as standard input may be the content. What is typed to a silent
// question is not shown; the echo is back however it ends.
func askTerminal(ctx context.Context, question string, silent bool) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", errors.New("there is no terminal")
	}
	defer tty.Close()
	stty := func(arg string) ([]byte, error) {
		cmd := exec.Command("stty", arg)
		cmd.Stdin, cmd.Env = tty, []string{"PATH=" + os.Getenv("PATH")} // nothing of the environment's secrets
		return cmd.Output()
	}
	if silent {
		before, err := stty("-g")
		if err == nil {
			defer stty(strings.TrimSpace(string(before)))
			_, err = stty("-echo")
		}
		if err != nil {
			return "", errors.New("the terminal can't hide it")
		}
		defer tty.WriteString("\n")
	}
	tty.WriteString(question)
	typed := make(chan string, 1)
	go func() {
		line := make([]byte, 4096) // the kernel's longest line
		n, _ := tty.Read(line)
		typed <- strings.TrimRight(string(line[:n]), "\r\n")
	}()
	select {
	case s := <-typed:
		return s, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// work solves a challenge on all cores; a terminal sees bits, rate and the time to expect.
func (c *cli) work(ctx context.Context, nonce string, difficulty int) (string, error) {
	start, last := c.clock(), time.Time{}
	defer c.status("")
	return solve(ctx, nonce, difficulty, runtime.NumCPU(), func(tried uint64) {
		if now := c.clock(); tried > 0 && now.Sub(last) >= progressStep {
			last = now
			rate := float64(tried) / max(now.Sub(start).Seconds(), 1e-3)
			c.status(fmt.Sprintf("proof of work: %d bits, %.1f million tries/s, about %.1f s", difficulty, rate/1e6,
				float64(uint64(1)<<difficulty)/rate))
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
			c.status(fmt.Sprintf("%s %d%% of %s, %s/s", what, 100*done/total, size(total),
				size(int64(float64(done)/now.Sub(start).Seconds()))))
		}
	}
}

// status shows one line that the next one overwrites, on a terminal only; "" takes it away.
func (c *cli) status(line string) {
	if c.errTTY && !c.has("quiet") && line+c.shown != "" {
		fmt.Fprintf(c.std.err, "\r%-*.*s\r", tableWidth, tableWidth, line)
		c.shown = line
	}
}

// outFile is a file that appears whole under its name or not at all: temporary beside it until commit.
type outFile struct {
	*os.File
	dir, final string
	force      bool // it may take a regular file's place
}

// stage makes the temporary file, mode 0600, in dir ("" for here).
func stage(dir string, force bool) (*outFile, error) {
	f, err := os.CreateTemp(cmp.Or(dir, "."), ".fpaste-*")
	return &outFile{File: f, dir: dir, force: force}, err
}

// free tells whether commit could have the name; "" is not known yet.
func (o *outFile) free(name string) error {
	path := filepath.Join(o.dir, name)
	info, err := os.Lstat(path)
	switch {
	case name == "" || errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && !o.force:
		return &cliError{1, path + " exists", "-f overwrites it"}
	case err == nil && !info.Mode().IsRegular():
		return &cliError{1, path + " is not a file that can be replaced", ""}
	}
	return err
}

// fill writes content and commits.
func (o *outFile) fill(content io.Reader, name string) error {
	if err := o.free(name); err != nil {
		return err
	}
	if _, err := io.Copy(o.File, content); err != nil {
		return err
	}
	return o.commit(name)
}

// commit makes the file durable under its name. Without force the name must be new: fs.ErrExist.
func (o *outFile) commit(name string) error {
	if err := o.Sync(); err != nil {
		return err
	}
	path := filepath.Join(o.dir, name)
	if !o.force {
		holder, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o600) // whoever comes now finds the name taken
		if err != nil {
			return err
		}
		holder.Close()
	}
	if err := os.Rename(o.Name(), path); err != nil {
		if !o.force {
			os.Remove(path)
		}
		return err
	}
	o.final = path
	o.Close()
	if folder, err := os.Open(cmp.Or(o.dir, ".")); err == nil { // the content is safe; not every system can sync a folder
		folder.Sync()
		folder.Close()
	}
	return nil
}

// abort removes what commit has not made final.
func (o *outFile) abort() {
	if o.final == "" {
		o.Close()
		os.Remove(o.Name())
	}
}

// replaceFile rewrites a file in one step, its mode kept; a link is followed, so that it stays one.
func replaceFile(path string, text []byte) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	o, err := stage(filepath.Dir(path), true)
	if err != nil {
		return err
	}
	defer o.abort()
	if info, err := os.Stat(path); err == nil {
		if err := o.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
	}
	return o.fill(bytes.NewReader(text), filepath.Base(path))
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

// appendClean appends b with control characters, bidirectional marks and bytes that are no UTF-8 in visible form, and
// returns what was cut in the middle: a character, or a CR that may belong to a line end.
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

// interruptible is r, ending when ctx does, although nobody writes to the pipe or types on the terminal.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	in, out := io.Pipe()
	go func() {
		_, err := io.Copy(out, r)
		out.CloseWithError(err) // nil is io.EOF
	}()
	context.AfterFunc(ctx, func() { in.CloseWithError(ctx.Err()) })
	return in
}

func date(unix int64) string { return time.Unix(unix, 0).Format("2006-01-02 15:04") }

// when is a date and how far it is: "2026-11-28 22:57 (in 23 h)".
func (c *cli) when(unix int64) string {
	left := unix - c.clock().Unix()
	if left < 0 {
		return date(unix) + " (" + span(-left) + " ago)"
	}
	return date(unix) + " (in " + span(left) + ")"
}

// span is a number of seconds in words.
func span(seconds int64) string {
	switch {
	case seconds < 120:
		return fmt.Sprintf("%d s", seconds)
	case seconds < 120*60:
		return fmt.Sprintf("%d min", seconds/60)
	case seconds < 48*3600:
		return fmt.Sprintf("%d h", seconds/3600)
	}
	return fmt.Sprintf("%d d", seconds/86400)
}

func size(n int64) string {
	value, unit := float64(n), 0
	for ; value >= 1000 && unit < 4; unit++ {
		value /= 1024
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return strings.Replace(fmt.Sprintf("%.1f %ciB", value, "KMGT"[unit-1]), ".0 ", " ", 1)
}
