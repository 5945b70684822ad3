package main

// config.go turns the environment into one validated struct; nothing else reads the environment of the server.
// Parsing is strict: an unknown FLASKPASTE_ name or a value that does not parse stops the start with one line that names
// it. Secrets may come from files and systemd credentials and never print (type secret).

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// secret prints as [redacted] wherever it is formatted or logged.
type secret string

func (secret) String() string               { return "[redacted]" }
func (secret) GoString() string             { return "[redacted]" }
func (secret) LogValue() slog.Value         { return slog.StringValue("[redacted]") }
func (secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// config is what the operator decided. Sizes are bytes.
type config struct {
	listen         []string // host:port or unix:/path
	database       string
	prefix         string // "" or "/path"
	publicURL      string // scheme://host[:port], or ""
	trustedProxies []netip.Prefix
	proxySecret    secret
	addressHeader  string // canonical
	certHeader     string // canonical
	requireCert    string // "0", "any", "trusted"

	maxAnon, maxAuth                           int64
	expiryAnon, expiryUntrusted, expiryTrusted time.Duration
	maxExpiry                                  time.Duration
	minSize                                    int64
	maxUploads, maxDownloads, maxConnections   int64
	transferTimeout                            time.Duration
	maxStorage, minFree                        int64

	pkiEnabled                          string // "0", "1"
	caPassword                          secret
	certDays                            int64
	registration                        string // "closed", "open"
	powDifficulty, powFree, registerPow int64
	powTTL                              time.Duration
	floodMax, floodThreshold            int64
	rates                               [rateClasses]rate
	dedupMax                            int64
	dedupWindow                         time.Duration
	minEntropy                          float64

	shortMax     int64
	shortHosts   []string // host names, *.name for those below it
	metricsAllow []netip.Prefix
	metricsAny   bool

	sync, checkpoint string
	cache            int64
	sweep            time.Duration
	log, logAddr     string
	logLevel         slog.Level

	warnings []string // for the log, once it stands
}

// variable is one FLASKPASTE_ name.
type variable struct {
	name, def, unit, help string
	set                   func(string) error
}

const envPrefix = "FLASKPASTE_"

// injected are names that orchestrators make of a service called flaskpaste.
var injected = regexp.MustCompile(`^FLASKPASTE_(PORT.*|(.*_)?SERVICE_(HOST|PORT)(_.*)?)$`)

// variables lists all of them, in the order of `serve --help` and README, bound to c.
func variables(c *config) []variable {
	return []variable{
		{"LISTEN", "127.0.0.1:5000", "host:port or unix:/path, comma-separated", "where to listen; ignored under socket activation", setListen(&c.listen)},
		{"DATABASE", "data/flaskpaste.db", "path", "the SQLite file ($STATE_DIRECTORY/flaskpaste.db under systemd)", setString(&c.database)},
		{"URL_PREFIX", "", "path", "serve below this path, as in /paste", setPrefix(&c.prefix)},
		{"PUBLIC_URL", "", "URL without path", "base of the links in answers; default: scheme and Host of the request", setPublicURL(&c.publicURL)},
		{"TRUSTED_PROXIES", "", "CIDRs, comma-separated", "peers whose address and scheme headers count; Unix sockets always do", setPrefixes(&c.trustedProxies)},
		{"PROXY_SECRET", "", "16 bytes or more", "trusted peers must send it as X-Proxy-Secret; required for certificates from a proxy over TCP", setSecret(&c.proxySecret)},
		{"ADDRESS_HEADER", "X-Forwarded-For", "header", "the one header that the proxy sets to the client's address", setHeader(&c.addressHeader)},
		{"CERT_HEADER", "X-SSL-Client-SHA1", "header", "the one header that the proxy sets to the client's certificate or fingerprint", setHeader(&c.certHeader)},
		{"REQUIRE_CERT", "0", "0, any, trusted", "who may create: everybody, certificate holders, holders of certificates of this server", setChoice(&c.requireCert, "0", "any", "trusted")},
		{"MAX_ANON", "3MiB", "size", "largest content without a certificate", setSize(&c.maxAnon, 1)},
		{"MAX_AUTH", "50MiB", "size", "largest content with a certificate", setSize(&c.maxAuth, 1)},
		{"EXPIRY_ANON", "1d", "time", "life of a paste without a certificate, renewed by reads", setSpan(&c.expiryAnon)},
		{"EXPIRY_UNTRUSTED", "7d", "time", "life with a certificate that this server did not issue", setSpan(&c.expiryUntrusted)},
		{"EXPIRY_TRUSTED", "30d", "time", "life with a certificate of this server", setSpan(&c.expiryTrusted)},
		{"MAX_EXPIRY", "90d", "time", "longest life of anything, renewals included", setSpan(&c.maxExpiry)},
		{"MIN_SIZE", "0", "size", "smallest content", setSize(&c.minSize, 0)},
		{"MAX_UPLOADS", "64", "count", "uploads at once; one client has at most an eighth", setNumber(&c.maxUploads, 10, 1, 1<<20)},
		{"MAX_DOWNLOADS", "256", "count", "downloads over 256 KiB at once; one client has at most an eighth", setNumber(&c.maxDownloads, 10, 1, 1<<20)},
		{"MAX_CONNECTIONS", "512", "count", "connections at once; one address has at most an eighth, but for proxies", setNumber(&c.maxConnections, 10, 16, 1<<20)},
		{"TRANSFER_TIMEOUT", "15m", "time", "longest upload or download", setSpan(&c.transferTimeout)},
		{"MAX_STORAGE", "10GiB", "size", "all stored content; clients without a certificate of this server may fill three quarters", setSize(&c.maxStorage, 1)},
		{"MIN_FREE", "256MiB", "size", "disk space that uploads leave free", setSize(&c.minFree, 0)},
		{"PKI_ENABLED", "0", "0, 1", "issue client certificates; makes the CA at the first start", setChoice(&c.pkiEnabled, "0", "1")},
		{"PKI_CA_PASSWORD", "", "text", "opens the CA's key", setPassword(&c.caPassword)},
		{"PKI_CERT_DAYS", "365", "days", "life of client certificates; never past the CA's", setNumber(&c.certDays, 10, 1, certDaysMax)},
		{"REGISTRATION", "closed", "closed, open", "open: whoever does the work gets a certificate of a new owner", setChoice(&c.registration, "closed", "open")},
		{"POW_DIFFICULTY", "20", "bits", "proof of work for a creation; 0: none, and no anti-flood", setNumber(&c.powDifficulty, 10, 0, 40)},
		{"POW_FREE", "20", "count an hour", "creations of a client that need no work; 0: always work", setNumber(&c.powFree, 10, 0, 1<<20)},
		{"POW_TTL", "300s", "time", "life of a challenge, four times that during a flood", setSpan(&c.powTTL)},
		{"REGISTER_POW", "24", "bits", "proof of work for a certificate; 0: none", setNumber(&c.registerPow, 10, 0, 40)},
		{"ANTIFLOOD_THRESHOLD", "30", "count", "so many of them raise the difficulty by a step; one client counts three at most", setNumber(&c.floodThreshold, 10, 1, 1<<20)},
		{"ANTIFLOOD_MAX", "28", "bits", "highest difficulty", setNumber(&c.floodMax, 10, 0, 40)},
		{"RATE_CREATE", "30/m", "N/s, /m, /h, /d or 0", "creations, changes and deletions of a client", setRate(&c.rates[rateCreate])},
		{"RATE_READ", "600/m", "N/s, /m, /h, /d or 0", "reads of a client", setRate(&c.rates[rateRead])},
		{"RATE_MISS", "60/m", "N/s, /m, /h, /d or 0", "404s of a client: ids can't be guessed", setRate(&c.rates[rateMiss])},
		{"RATE_AUTH", "20/m", "N/s, /m, /h, /d or 0", "password checks, wrong proofs and tokens, refused certificates of a client", setRate(&c.rates[rateAuth])},
		{"RATE_REGISTER", "10/h", "N/s, /m, /h, /d or 0", "certificate requests of a client", setRate(&c.rates[rateRegister])},
		{"RATE_BYTES", "200MiB/h", "size/s, /m, /h, /d or 0", "bytes stored by a client", setRate(&c.rates[rateBytes])},
		{"DEDUP_MAX", "3", "count", "times that a client may store the same content in DEDUP_WINDOW; 0: any", setNumber(&c.dedupMax, 10, 0, 1<<20)},
		{"DEDUP_WINDOW", "3600s", "time", "how long a content is remembered for that", setSpan(&c.dedupWindow)},
		{"MIN_ENTROPY", "0", "bits per byte, up to 8", "least Shannon entropy of contents of 256 bytes and more; 0: any", setEntropy(&c.minEntropy)},
		{"SHORT_URL_MAX", "2048", "bytes", "longest target of a short URL", setSize(&c.shortMax, 16)},
		{"SHORT_URL_HOSTS", "", "hosts, comma-separated", "when set, targets may be on these hosts only; *.example.net: any below it", setHosts(&c.shortHosts)},
		{"METRICS_ALLOW", "", "CIDRs, comma-separated, or any", "client addresses that may read /metrics", func(v string) error {
			if c.metricsAny = v == "any"; c.metricsAny {
				return nil
			}
			return setPrefixes(&c.metricsAllow)(v)
		}},
		{"SYNC", "full", "full, normal", "full: a 201 survives a power cut; normal: only a crash of the program", setChoice(&c.sync, "full", "normal")},
		{"CHECKPOINT", "on", "on, off", "off: a replicator (Litestream) truncates the write-ahead log", setChoice(&c.checkpoint, "on", "off")},
		{"CACHE", "32MiB", "size", "memory for often-read pastes; 0: none", setSize(&c.cache, 0)},
		{"SWEEP", "60s", "time", "how often expired pastes are removed from the disk", setSpan(&c.sweep)},
		{"LOG", "text", "text, json", "form of the log on stderr (json under systemd)", setChoice(&c.log, "text", "json")},
		{"LOG_LEVEL", "info", "debug, info, warn, error", "least level that is logged; requests are info", func(v string) error {
			if !slices.Contains([]string{"debug", "info", "warn", "error"}, v) {
				return fmt.Errorf("%q is none of debug, info, warn, error", v)
			}
			return c.logLevel.UnmarshalText([]byte(v))
		}},
		{"LOG_ADDR", "full", "full, prefix, none", "client addresses in the log: whole, /24 and /48, or none", setChoice(&c.logAddr, "full", "prefix", "none")},
	}
}

// loadConfig reads environ ("NAME=value" each, os.Environ). Its error is one line for the operator.
func loadConfig(environ []string) (*config, error) {
	c := new(config)
	vars := variables(c)
	env := map[string]string{}
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	isSecret := func(name string) bool { return name == "PROXY_SECRET" || name == "PKI_CA_PASSWORD" }
	for k := range env {
		name, ours := strings.CutPrefix(k, envPrefix)
		if !ours || k == envPrefix+"SERVER" {
			continue
		}
		known := slices.ContainsFunc(vars, func(v variable) bool { return name == v.name || isSecret(v.name) && name == v.name+"_FILE" })
		if injected.MatchString(k) && !known {
			c.warnings = append(c.warnings, k+" looks like an orchestrator's: ignored")
		} else if !known {
			return nil, fmt.Errorf("%s is not a setting: see flaskpaste serve --help", k)
		}
	}
	for _, v := range vars {
		value, given := env[envPrefix+v.name]
		var err error
		switch {
		case isSecret(v.name):
			value, given, err = c.readSecret(env, v.name)
		case given:
		case v.name == "DATABASE" && env["STATE_DIRECTORY"] != "":
			dir, _, _ := strings.Cut(env["STATE_DIRECTORY"], ":")
			value = filepath.Join(dir, "flaskpaste.db")
		case v.name == "LOG" && stderrIsJournal(env["JOURNAL_STREAM"]):
			value = "json"
		default:
			value = v.def
		}
		if err == nil && (given || value != "") {
			err = v.set(value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s%s: %w", envPrefix, v.name, err)
		}
	}
	if n := utf8.RuneCountInString(string(c.caPassword)); n > 0 && n < 12 {
		c.warnings = append(c.warnings, "FLASKPASTE_PKI_CA_PASSWORD is short: a stolen database could be opened by guessing; 12 characters or more are better")
	}
	c.rates[rateFree] = rate{c.powFree, time.Hour}
	c.rates[rateDuplicate] = rate{c.dedupMax, c.dedupWindow}
	if len(c.trustedProxies) == 0 && c.proxySecret != "" && !slices.ContainsFunc(c.listen, func(a string) bool { return strings.HasPrefix(a, "unix:") }) {
		c.warnings = append(c.warnings, "FLASKPASTE_PROXY_SECRET is set, FLASKPASTE_TRUSTED_PROXIES is empty: no TCP peer is a trusted proxy")
	}
	return c, nil
}

// readSecret takes a secret from the variable, the file that NAME_FILE names, or the systemd credential of the name.
func (c *config) readSecret(env map[string]string, name string) (value string, given bool, err error) {
	sources := 0
	value, given = env[envPrefix+name]
	if given {
		sources++
	}
	path := env[envPrefix+name+"_FILE"]
	if _, ok := env[envPrefix+name+"_FILE"]; ok {
		sources++
	}
	if dir := env["CREDENTIALS_DIRECTORY"]; dir != "" {
		if p := filepath.Join(dir, strings.ToLower(name)); exists(p) {
			sources++
			path = p
		}
	}
	if sources > 1 {
		return "", false, errors.New("set in two ways: keep one of variable, _FILE and credential")
	}
	if sources == 1 && !given {
		info, err := os.Stat(path)
		if err != nil {
			return "", false, err
		}
		if info.Mode().Perm()&0o007 != 0 {
			c.warnings = append(c.warnings, fmt.Sprintf("%s: others can read it: chmod 600", path))
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return "", false, err
		}
		value = strings.TrimSuffix(string(raw), "\n")
	}
	if sources == 1 && value == "" {
		return "", false, errors.New("is empty")
	}
	return value, sources == 1, nil
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func setString(p *string) func(string) error {
	return func(v string) error {
		if v == "" {
			return errors.New("is empty")
		}
		*p = v
		return nil
	}
}

func setChoice(p *string, choices ...string) func(string) error {
	return func(v string) error {
		if !slices.Contains(choices, v) {
			return fmt.Errorf("%q is none of %s", v, strings.Join(choices, ", "))
		}
		*p = v
		return nil
	}
}

func setNumber[T int64 | uint64](p *T, base int, low, high T) func(string) error {
	return func(v string) error {
		n, err := strconv.ParseUint(v, base, 63)
		if err != nil || T(n) < low || T(n) > high {
			return fmt.Errorf("%q is no number from %s to %s", v, strconv.FormatInt(int64(low), base), strconv.FormatInt(int64(high), base))
		}
		*p = T(n)
		return nil
	}
}

func setSize(p *int64, least int64) func(string) error {
	return func(v string) error {
		n, err := parseSize(v)
		if err == nil && n < least {
			err = fmt.Errorf("%q is too small", v)
		}
		*p = min(n, 1<<60) // no limit in earnest, and what is added to it still fits
		return err
	}
}

// setSpan takes a time: seconds, or sums like 1d12h; at least a second, at most seventy years: POW_TTL times four still fits.
func setSpan(p *time.Duration) func(string) error {
	return func(v string) error {
		n, err := parseSpan(v)
		if err != nil || n == 0 || n > 70*366*86400 {
			return fmt.Errorf("%q is no time like 90s, 15m, 12h or 7d", v)
		}
		*p = time.Duration(n) * time.Second
		return nil
	}
}

func setRate(p *rate) func(string) error {
	return func(v string) (err error) { *p, err = parseRate(v); return err }
}

func setEntropy(p *float64) func(string) error {
	re := regexp.MustCompile(`^([0-7](\.[0-9]{1,3})?|8(\.0{1,3})?)$`)
	return func(v string) (err error) {
		if !re.MatchString(v) {
			return fmt.Errorf("%q is no number from 0 to 8", v)
		}
		*p, err = strconv.ParseFloat(v, 64)
		return err
	}
}

func setListen(p *[]string) func(string) error {
	return func(v string) error {
		for a := range strings.SplitSeq(v, ",") {
			a = strings.TrimSpace(a)
			if path, ok := strings.CutPrefix(a, "unix:"); ok && path != "" {
				*p = append(*p, a)
				continue
			}
			_, port, err := net.SplitHostPort(a)
			if _, numErr := strconv.ParseUint(port, 10, 16); err != nil || numErr != nil {
				return fmt.Errorf("%q is neither host:port nor unix:/path", a)
			}
			*p = append(*p, a)
		}
		return nil
	}
}

func setPrefix(p *string) func(string) error {
	re := regexp.MustCompile(`^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?$`)
	return func(v string) error {
		if !re.MatchString(v) {
			return fmt.Errorf("%q is no path like /paste", v)
		}
		*p = strings.TrimSuffix(v, "/")
		return nil
	}
}

func setPublicURL(p *string) func(string) error {
	return func(v string) error {
		u, err := url.Parse(v)
		if v != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || strings.ContainsAny(v, "?#")) {
			return fmt.Errorf("%q is no URL like https://paste.example.org", v)
		}
		*p = strings.TrimRight(v, "/")
		return nil
	}
}

// setPrefixes takes CIDRs and single addresses. A bit set behind the mask is a mistake, not a rounding.
func setPrefixes(p *[]netip.Prefix) func(string) error {
	return func(v string) error {
		for a := range strings.SplitSeq(v, ",") {
			a = strings.TrimSpace(a)
			if v == "" {
				continue
			}
			n, err := netip.ParsePrefix(a)
			if addr, addrErr := netip.ParseAddr(a); addrErr == nil && addr.Zone() == "" {
				addr = addr.Unmap()
				n, err = netip.PrefixFrom(addr, addr.BitLen()), nil
			}
			if err != nil || n.Masked() != n || n.Addr().Is4In6() {
				return fmt.Errorf("%q is no address range like 10.0.0.0/8", a)
			}
			*p = append(*p, n)
		}
		return nil
	}
}

func setHosts(p *[]string) func(string) error {
	return func(v string) error {
		for h := range strings.SplitSeq(v, ",") {
			h = strings.ToLower(strings.TrimSpace(h))
			if v != "" && !hostShape.MatchString(strings.TrimPrefix(h, "*.")) || strings.HasSuffix(h, ".") {
				return fmt.Errorf("%q is no host name like example.org or *.example.net", h)
			}
			if h != "" {
				*p = append(*p, h)
			}
		}
		return nil
	}
}

func setSecret(p *secret) func(string) error {
	return func(v string) error {
		if len(v) < 16 || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return errors.New("needs 16 or more visible ASCII characters without blanks")
		}
		*p = secret(v)
		return nil
	}
}

// setPassword takes what a person or a generator makes; blanks inside are good.
func setPassword(p *secret) func(string) error {
	return func(v string) error {
		if !utf8.ValidString(v) || strings.ContainsFunc(v, unicode.IsControl) {
			return errors.New("must be UTF-8 without control characters")
		}
		*p = secret(v)
		return nil
	}
}

func setHeader(p *string) func(string) error {
	re := regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
	return func(v string) error {
		if !re.MatchString(v) {
			return fmt.Errorf("%q is no header name", v)
		}
		*p = canonicalHeader(v)
		return nil
	}
}

// configHelp is `flaskpaste serve --help`.
func configHelp() string {
	var b strings.Builder
	b.WriteString("usage: flaskpaste serve\n\nEverything is set by environment variables:\n\n")
	for _, v := range variables(new(config)) {
		def := v.def
		if def == "" {
			def = "empty"
		}
		fmt.Fprintf(&b, "  %s%s (%s)\n      %s; %s\n", envPrefix, v.name, def, v.help, v.unit)
	}
	b.WriteString("\nSecrets (PROXY_SECRET, PKI_CA_PASSWORD) may also come from the file that <name>_FILE names or from a systemd credential of the lower-case name.\nSizes: bytes or KiB, MiB, GiB. Times: seconds or 90s, 15m, 12h, 7d, 2w.\n\nexample: FLASKPASTE_LISTEN=127.0.0.1:8080 flaskpaste serve\n")
	return b.String()
}

// hostShape is a host name, lower-case, with or without a trailing dot.
var hostShape = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.?$`)

// parseSpan reads whole seconds or a sum of numbers with units s, m, h, d, w. It returns seconds.
func parseSpan(v string) (int64, error) {
	errSpan := errors.New("not a time")
	var total, n int64
	digits := 0
	for i := range len(v) {
		c := v[i]
		if c >= '0' && c <= '9' {
			if n > (math.MaxInt64-9)/10 {
				return 0, errSpan
			}
			n, digits = n*10+int64(c-'0'), digits+1
			continue
		}
		unit := map[byte]int64{'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 7 * 86400}[c]
		if unit == 0 || digits == 0 || n > (math.MaxInt64-total)/unit {
			return 0, errSpan
		}
		total, n, digits = total+n*unit, 0, 0
	}
	if digits > 0 {
		if total > 0 || digits != len(v) { // 1d12: twelve of what?
			return 0, errSpan
		}
		total = n
	}
	if v == "" {
		return 0, errSpan
	}
	return total, nil
}

// readEnvFile reads NAME=value lines as systemd's EnvironmentFile= does (systemd.exec(5)): # and ; begin comments, a value may be
// in quotes, a backslash takes the next character as it is and joins lines. A line that is none of these is an error that names it.
func readEnvFile(path string) (environ []string, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	text := strings.ReplaceAll(string(raw), "\r\n", "\n")
	for line := 1; text != ""; {
		rest := strings.TrimLeft(text, " \t")
		if rest == "" || rest[0] == '\n' || rest[0] == '#' || rest[0] == ';' {
			_, text, _ = strings.Cut(rest, "\n")
			line++
			continue
		}
		name, value, ok := strings.Cut(rest, "=")
		if name = strings.TrimRight(name, " \t"); !ok || !envName.MatchString(name) {
			return nil, fmt.Errorf("%s, line %d: not NAME=value", path, line)
		}
		value, text, ok = cutEnvValue(value)
		if !ok {
			return nil, fmt.Errorf("%s, line %d: a quote is not closed", path, line)
		}
		line += strings.Count(rest[:len(rest)-len(text)], "\n")
		environ = append(environ, name+"="+value)
	}
	return environ, nil
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// cutEnvValue takes the value that text begins with, up to the end of its line, and returns what follows. Not ok: a quote is open.
func cutEnvValue(text string) (value, rest string, ok bool) {
	var b strings.Builder
	quote, began, keep := byte(0), false, 0 // keep: so much stays, however it ends
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quote == 0 && c == '\n':
			return b.String()[:keep], text[i+1:], true
		case quote != 0 && c == quote:
			quote, began = 0, false // what follows it may be quoted again
			continue
		case quote == 0 && !began && (c == '\'' || c == '"'):
			quote = c
			continue
		case quote == 0 && !began && (c == ' ' || c == '\t'):
			continue
		case c == '\\' && quote != '\'' && i+1 < len(text):
			i++
			began = true
			if text[i] == '\n' {
				continue
			}
			if quote == '"' && !strings.ContainsRune("\"\\$`", rune(text[i])) {
				b.WriteByte('\\')
			}
			b.WriteByte(text[i])
			keep = b.Len()
			continue
		}
		began = true
		b.WriteByte(c)
		if quote != 0 || c != ' ' && c != '\t' {
			keep = b.Len()
		}
	}
	return b.String()[:keep], "", quote == 0
}
