package main

// config.go turns the environment into one validated struct, what the operator decided. It is the only reader of the
// server's environment and knows no request, server or store.
//
// Parsing is strict: an unknown FLASKPASTE_ name or a value that is not understood ends the start with one line that
// names it. What is understood but hardly meant is a warning. A secret comes from exactly one of variable, file and
// systemd credential and is never shown. Help and docs/settings.md are made of the parser's own table.
// (systemd.exec(5) for env files and credentials; Kubernetes' page on services for the names that it sets)

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/netip"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	envPrefix   = "FLASKPASTE_"
	certDaysMax = 10 * 366         // the CA's life: nothing outlives it, and sums of dates stay in range
	spanMost    = 70 * 366 * 86400 // seconds: four times that still fits, and so does any deadline that it makes
	sizeMost    = 1 << 60          // bytes: no limit in earnest, and what is added to it still fits
)

var (
	// hostShape is a host name in lower case (RFC 1123 2.1), or an IPv4 address.
	hostShape = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.?$`)

	// injected is what Kubernetes sets for services called flaskpaste or flaskpaste-x. The last alternative counts with
	// a URL as its value only: FLASKPASTE_PORT=8080 is a person's. (Lazy, as PORT_80_TCP_PORT must not be an X_PORT.)
	injected = regexp.MustCompile(`^([A-Z0-9_]+?_)??(SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?|` +
		`PORT_[0-9]+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)|(PORT(_[0-9]+_(TCP|UDP|SCTP))?))$`)

	// envBlank is what an env file has between assignments: blanks, and comments, which end with their line.
	envBlank = regexp.MustCompile(`^(?:[ \t\r\n]|[#;][^\r\n]*)*`)

	// envLine is an assignment in an env file: name, quoted pieces, the bare rest up to the blanks at its end.
	envLine = regexp.MustCompile(`(?s)^([A-Za-z_]\w*)[ \t]*=((?:[ \t]*(?:'[^']*'|"(?:[^"\\]|\\.)*"))*)` +
		`[ \t]*((?:(?:[^\\ \t\r\n'"]|\\.)(?:[^\\\r\n]|\\.)*?)?)[ \t]*(?:[\r\n]|$)`)
	envQuoted    = regexp.MustCompile(`(?s)'([^']*)'|"((?:[^"\\]|\\.)*)"`)
	bareEscape   = regexp.MustCompile(`(?s)\\(?:[\r\n]|(.))`) // a newline goes, anything else stays
	quotedEscape = regexp.MustCompile("\\\\(?:\n|([\"\\\\`$]))")

	errValue = errors.New("bad value") // whoever shows it says what is taken
)

// secret prints as [redacted] wherever it is formatted or logged.
type secret string

func (secret) Format(f fmt.State, _ rune)   { io.WriteString(f, "[redacted]") }
func (secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// config is what the operator decided. Words are those of the settings.
type config struct {
	listen                       []string // host:port or unix:/path
	listenGiven                  bool     // FLASKPASTE_LISTEN is set
	prefix                       string   // "" or "/path"
	publicURL                    string   // scheme://host[:port], or ""
	trustedProxies, metricsAllow []netip.Prefix
	metricsAny                   bool
	proxySecret, caPassword      secret
	addressHeader, certHeader    string   // canonical
	shortHosts                   []string // host names, *.name for those below it
	database                     string   // path
	minEntropy                   float64  // bits per byte
	rates                        [rateClasses]rate
	logLevel                     slog.Level

	maxAnon, maxAuth, minSize, shortMax, maxStorage, minFree, cache int64 // bytes
	powDifficulty, registerPow, floodMax                            int64 // bits
	powFree, floodThreshold, dedupMax, certDays                     int64
	maxUploads, maxDownloads, maxConnections                        int64
	expiryAnon, expiryUntrusted, expiryTrusted, maxExpiry           time.Duration
	powTTL, dedupWindow, transferTimeout, sweep                     time.Duration
	requireCert, pkiEnabled, registration                           string // words
	sync, checkpoint, log, logAddr                                  string // words

	warnings []string // a sentence each, for the log once it stands, and for `flaskpaste check`
}

// Format keeps the secrets in when all is printed at once: fmt can't call the methods of unexported fields.
func (config) Format(f fmt.State, _ rune) { fmt.Fprint(f, "[settings]") }

// variable is one FLASKPASTE_ name, or without a name the heading of those below. Without a default it may be empty.
type variable struct {
	name, def, takes string
	to               encoding.TextUnmarshaler // sets a field of config; it says only whether it could
	help             string
}

// isSecret tells what may come from elsewhere, too, and is never shown.
func (v variable) isSecret() bool {
	_, is := v.to.(bound[secret])
	return is
}

// settings lists all of them, bound to c.
func settings(c *config) []variable {
	const aSize, someSize, aTime = "a size like 3MiB", "a size like 3MiB, not 0", "a time like 90s or 7d, not 0"
	const aRate, cidrs, many = "a rate like 30/m, or 0", "CIDRs, comma-separated", 1 << 20
	const header = `[A-Za-z0-9-]{1,64}`
	return []variable{
		{help: "Where it listens"},
		{"LISTEN", "127.0.0.1:5000", "host:port or unix:/path, comma-separated", to(&c.listen, listOf(address)),
			"where to listen; ignored when systemd hands sockets over"},
		{"URL_PREFIX", "", "a path like /paste", shape(&c.prefix, `((?:/[\w~-][\w.~-]*)*)/?`), "serve below this path"},
		{"PUBLIC_URL", "", "http(s)://host[:port]; a path goes into FLASKPASTE_URL_PREFIX",
			shape(&c.publicURL, `(https?://(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)/*`),
			"base of the links in answers; default: scheme and Host of the request"},
		{help: "Who is believed"},
		{"TRUSTED_PROXIES", "", cidrs, to(&c.trustedProxies, listOf(network)),
			"peers whose address and scheme headers count; Unix sockets always do"},
		{"PROXY_SECRET", "", "16 visible ASCII characters or more", shape(&c.proxySecret, `[!-~]{16,}`),
			"what trusted peers must send as X-Proxy-Secret; without it no certificate over TCP"},
		{"ADDRESS_HEADER", "X-Forwarded-For", "a header", shape(&c.addressHeader, header),
			"the one that the proxy sets to the client's address; Forwarded is not read"},
		{"CERT_HEADER", "X-SSL-Client-SHA1", "a header", shape(&c.certHeader, header),
			"the one that the proxy sets to the client's certificate or fingerprint"},
		{"REQUIRE_CERT", "0", "0, any, trusted", shape(&c.requireCert, `0|any|trusted`),
			"who may create: everybody, who has a certificate, who has one of this server"},
		{help: "Sizes and lives"},
		{"MAX_ANON", "3MiB", someSize, within(&c.maxAnon, 1, sizeMost), "largest content without a certificate"},
		{"MAX_AUTH", "50MiB", someSize, within(&c.maxAuth, 1, sizeMost), "largest content with one"},
		{"MIN_SIZE", "0", aSize, within(&c.minSize, 0, sizeMost), "smallest content"},
		{"MIN_ENTROPY", "0", "0 to 8 bits per byte", to(&c.minEntropy, bitsPerByte),
			"least Shannon entropy of contents from 256 bytes on; 0: any"},
		{"EXPIRY_ANON", "1d", aTime, to(&c.expiryAnon, period),
			"life of a paste without a certificate, renewed by reads"},
		{"EXPIRY_UNTRUSTED", "7d", aTime, to(&c.expiryUntrusted, period), "life with a certificate of somebody else's"},
		{"EXPIRY_TRUSTED", "30d", aTime, to(&c.expiryTrusted, period), "life with a certificate of this server"},
		{"MAX_EXPIRY", "90d", aTime, to(&c.maxExpiry, period), "longest life of anything, renewals included"},
		{"SHORT_URL_MAX", "2048", "a size from 16 on", within(&c.shortMax, 16, sizeMost),
			"longest target of a short URL"},
		{"SHORT_URL_HOSTS", "", "hosts, or *.host for all below it, comma-separated", to(&c.shortHosts, listOf(host)),
			"when set, targets may be on these only"},
		{help: "Work and limits"},
		{"POW_DIFFICULTY", "20", "0 to 40 bits", within(&c.powDifficulty, 0, 40),
			"proof of work for a creation; 0: none, and no anti-flood"},
		{"POW_FREE", "20", "a count", within(&c.powFree, 0, many), "a client's creations an hour without work"},
		{"POW_TTL", "300s", aTime, to(&c.powTTL, period), "life of a challenge, four times that during a flood"},
		{"ANTIFLOOD_THRESHOLD", "30", "1 to 10000", within(&c.floodThreshold, 1, 10_000),
			"so many creations a minute raise the difficulty by 2 bits; 3 of a client count at most"},
		{"ANTIFLOOD_MAX", "28", "0 to 40 bits", within(&c.floodMax, 0, 40), "highest difficulty"},
		{"RATE_CREATE", "30/m", aRate, to(&c.rates[rateCreate], parseRate), "a client's creations, changes, deletions"},
		{"RATE_READ", "600/m", aRate, to(&c.rates[rateRead], parseRate), "a client's reads"},
		{"RATE_MISS", "60/m", aRate, to(&c.rates[rateMiss], parseRate), "a client's 404s: ids can't be guessed"},
		{"RATE_AUTH", "20/m", aRate, to(&c.rates[rateAuth], parseRate),
			"a client's password checks, wrong proofs and tokens, refused certificates"},
		{"RATE_REGISTER", "10/h", aRate, to(&c.rates[rateRegister], parseRate), "a client's certificate requests"},
		{"RATE_BYTES", "200MiB/h", aRate, to(&c.rates[rateBytes], parseRate), "bytes that a client stores"},
		{"DEDUP_MAX", "3", "a count", within(&c.dedupMax, 0, many), "times a client may store one content; 0: any"},
		{"DEDUP_WINDOW", "3600s", aTime, to(&c.dedupWindow, period), "the time in which these are counted"},
		{"MAX_UPLOADS", "64", "a count, not 0", within(&c.maxUploads, 1, many), "uploads at once; an eighth a client"},
		{"MAX_DOWNLOADS", "256", "a count, not 0", within(&c.maxDownloads, 1, many), "downloads at once; likewise"},
		{"MAX_CONNECTIONS", "512", "a count, not 0", within(&c.maxConnections, 1, many),
			"connections at once; a client's: an eighth, but a trusted proxy's or Unix socket's: all"},
		{"TRANSFER_TIMEOUT", "15m", aTime, to(&c.transferTimeout, period), "longest upload or download"},
		{help: "Certificates"},
		{"PKI_ENABLED", "0", "0, 1", shape(&c.pkiEnabled, `0|1`), "1: issue certificates; the first start makes a CA"},
		{"PKI_CA_PASSWORD", "", "UTF-8 without control characters", shape(&c.caPassword, `\P{Cc}+`),
			"opens the CA's key"},
		{"PKI_CERT_DAYS", "365", "1 to 3660 days", within(&c.certDays, 1, certDaysMax), "life of a certificate"},
		{"REGISTRATION", "closed", "closed, open", shape(&c.registration, `closed|open`),
			"open: whoever does the work gets a certificate of a new owner"},
		{"REGISTER_POW", "24", "0 to 40 bits", within(&c.registerPow, 0, 40), "the work for that; 0: none"},
		{help: "Storage"},
		{"DATABASE", "data/flaskpaste.db", "a path", shape(&c.database, `.+`),
			"the SQLite file; under systemd $STATE_DIRECTORY/flaskpaste.db"},
		{"MAX_STORAGE", "10GiB", someSize, within(&c.maxStorage, 1, sizeMost),
			"size of the database; its last quarter is kept for certificates of this server"},
		{"MIN_FREE", "256MiB", aSize, within(&c.minFree, 0, sizeMost),
			"disk space that uploads leave free; 5 MiB at least"},
		{"SYNC", "full", "full, normal", shape(&c.sync, `full|normal`), "full: a 201 survives a power cut, too"},
		{"CHECKPOINT", "on", "on, off", shape(&c.checkpoint, `on|off`),
			"off: Litestream truncates the write-ahead log"},
		{"CACHE", "32MiB", aSize, within(&c.cache, 0, sizeMost), "memory for pastes that are read often; 0: none"},
		{"SWEEP", "60s", aTime, to(&c.sweep, period), "how often what has expired is removed from the disk"},
		{help: "Logs and metrics"},
		{"LOG", "text", "text, json", shape(&c.log, `text|json`), "form of the log on stderr; under systemd json"},
		{"LOG_LEVEL", "info", "debug, info, warn, error", &c.logLevel, "least level that is logged; requests are info"},
		{"LOG_ADDR", "full", "full, prefix, none", shape(&c.logAddr, `full|prefix|none`),
			"client addresses in the log: whole, as /24 and /48, not at all"},
		{"METRICS_ALLOW", "", "any, or " + cidrs, to(&c.metricsAllow, listOf(network)),
			"addresses that may read /metrics"},
	}
}

// loadConfig reads environ: "NAME=value" each, as of os.Environ; of two the last one counts. Its error is one line.
func loadConfig(environ []string) (*config, error) {
	c, env := new(config), map[string]string{}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	if err := c.checkNames(env); err != nil {
		return nil, err
	}
	_, c.listenGiven = env["FLASKPASTE_LISTEN"]
	if c.metricsAny = env["FLASKPASTE_METRICS_ALLOW"] == "any"; c.metricsAny {
		delete(env, "FLASKPASTE_METRICS_ALLOW")
	}
	stateDir, _, _ := strings.Cut(env["STATE_DIRECTORY"], ":")
	for _, s := range settings(c) {
		if s.name == "" {
			continue
		}
		if s.isSecret() {
			if err := c.findSecret(s.name, env); err != nil {
				return nil, fmt.Errorf("%s%s: %w", envPrefix, s.name, err)
			}
		}
		value, given := env[envPrefix+s.name]
		switch {
		case given:
		case s.name == "DATABASE" && stateDir != "":
			value = filepath.Join(stateDir, "flaskpaste.db")
		case s.name == "LOG" && stderrIsJournal(env["JOURNAL_STREAM"]):
			value = "json"
		default:
			value = s.def
		}
		if value == "" && s.def == "" {
			continue
		}
		if s.to.UnmarshalText([]byte(value)) != nil {
			var shown any = value
			if s.isSecret() {
				shown = secret(value)
			}
			return nil, fmt.Errorf("%s%s: bad value %q: it takes %s", envPrefix, s.name, shown, s.takes)
		}
	}
	c.addressHeader = textproto.CanonicalMIMEHeaderKey(c.addressHeader)
	c.certHeader = textproto.CanonicalMIMEHeaderKey(c.certHeader)
	if c.addressHeader == "Forwarded" {
		return nil, errors.New("FLASKPASTE_ADDRESS_HEADER: Forwarded is not read: let the proxy set X-Forwarded-For")
	}
	c.rates[rateFree] = rate{c.powFree, time.Hour}
	c.rates[rateDuplicate] = rate{c.dedupMax, c.dedupWindow}

	if n := len(c.caPassword); n > 0 && n < 12 {
		c.warn("FLASKPASTE_PKI_CA_PASSWORD is short: who steals the database may guess it; take 12 characters or more")
	}
	if slices.ContainsFunc(c.trustedProxies, func(p netip.Prefix) bool { return p.Bits() == 0 }) {
		c.warn("FLASKPASTE_TRUSTED_PROXIES has a /0: everybody may claim any address; name the proxy's own")
	} else if len(c.trustedProxies) > 0 && c.proxySecret == "" {
		c.warn("FLASKPASTE_TRUSTED_PROXIES is set, FLASKPASTE_PROXY_SECRET is not: " +
			"certificates that proxies pass on over TCP are ignored")
	}
	unix := slices.ContainsFunc(c.listen, func(a string) bool { return strings.HasPrefix(a, "unix:") })
	if c.proxySecret != "" && len(c.trustedProxies) == 0 && !unix && env["LISTEN_FDS"] == "" {
		c.warn("FLASKPASTE_PROXY_SECRET is set, FLASKPASTE_TRUSTED_PROXIES is not: no peer over TCP is a trusted proxy")
	}
	return c, nil
}

func (c *config) warn(format string, args ...any) {
	c.warnings = append(c.warnings, fmt.Sprintf(format, args...))
}

// checkNames refuses FLASKPASTE_ names that are no settings, and passes over what Kubernetes sets.
func (c *config) checkNames(env map[string]string) error {
	known := map[string]bool{"SERVER": true} // the client's
	for _, s := range settings(c) {
		known[s.name], known[s.name+"_FILE"] = s.name != "", s.isSecret()
	}
	for _, full := range slices.Sorted(maps.Keys(env)) {
		name, ours := strings.CutPrefix(full, envPrefix)
		value, service := env[full], injected.FindStringSubmatch(name)
		switch {
		case !ours || known[name]:
		case service != nil && (service[7] == "" || strings.Contains(value, "://")):
			c.warn("%s is ignored: Kubernetes sets it for a service of that name", full)
		case name == "PORT":
			return fmt.Errorf("FLASKPASTE_PORT is not a setting: set %q", "FLASKPASTE_LISTEN=127.0.0.1:"+value)
		default:
			return fmt.Errorf("%q is not, or no longer, a setting: see flaskpaste serve --help", full)
		}
	}
	return nil
}

// findSecret puts a secret into env that the file named by NAME_FILE has, or the systemd credential of the name.
func (c *config) findSecret(name string, env map[string]string) error {
	value, given := env[envPrefix+name]
	path, filed := env[envPrefix+name+"_FILE"]
	credential := filepath.Join(env["CREDENTIALS_DIRECTORY"], strings.ToLower(name))
	_, err := os.Stat(credential)
	passed := env["CREDENTIALS_DIRECTORY"] != "" && !errors.Is(err, os.ErrNotExist) // another error: reading it says so
	if passed {
		path = credential
	}
	switch {
	case given && (filed || passed), filed && passed:
		return errors.New("is set in two ways: keep one of variable, _FILE and credential")
	case filed || passed:
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o007 != 0 {
			c.warn("%s can be read by others: chmod 600 %[1]s", path)
		}
		value, given = strings.TrimSuffix(string(raw), "\n"), true
		env[envPrefix+name] = value
	}
	if given && value == "" {
		return errors.New("is empty")
	}
	return nil
}

// bound sets what p points to; errValue, or any other error, when parse does not take the text.
type bound[T any] struct {
	p     *T
	parse func(string) (T, error)
}

func to[T any](p *T, parse func(string) (T, error)) bound[T] { return bound[T]{p, parse} }

func (f bound[T]) UnmarshalText(b []byte) (err error) {
	*f.p, err = f.parse(string(b))
	return err
}

// shape takes text that a pattern matches, and keeps all of it, or what the pattern's group matches.
func shape[T ~string](p *T, pattern string) bound[T] {
	return bound[T]{p, func(v string) (T, error) {
		m := regexp.MustCompile(`^(?:` + pattern + `)$`).FindStringSubmatch(v)
		if m == nil || !utf8.ValidString(v) {
			return "", errValue
		}
		return T(m[len(m)-1]), nil
	}}
}

// within takes a count or a size.
func within(p *int64, low, high int64) bound[int64] {
	return bound[int64]{p, func(v string) (int64, error) {
		n, err := parseSize(v)
		if n < low || n > high {
			return 0, errValue
		}
		return n, err
	}}
}

func bitsPerByte(v string) (float64, error) {
	n, err := strconv.ParseFloat(v, 64)
	if err == nil && n >= 0 && n <= 8 { // NaN is not
		return n, nil
	}
	return 0, errValue
}

func listOf[T any](parse func(string) (T, error)) func(string) ([]T, error) {
	return func(v string) (list []T, err error) {
		for part := range strings.SplitSeq(v, ",") {
			one, err := parse(strings.TrimSpace(part))
			if err != nil {
				return nil, err
			}
			list = append(list, one)
		}
		return list, nil
	}
}

// address takes where to listen. An abstract socket (@) has no mode, and whoever reaches a Unix socket is believed.
func address(v string) (string, error) {
	path, unix := strings.CutPrefix(v, "unix:")
	_, port, err := net.SplitHostPort(v)
	_, portErr := strconv.ParseUint(port, 10, 16)
	if unix && (path == "" || path[0] == '@') || !unix && (err != nil || portErr != nil) {
		return "", errValue
	}
	return v, nil
}

// network takes a CIDR or a single address. A bit behind the mask is a mistake, not a rounding.
func network(v string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(v); err == nil && a.Zone() == "" {
		return a.Unmap().Prefix(a.Unmap().BitLen())
	}
	n, err := netip.ParsePrefix(v)
	if err != nil || n.Masked() != n || n.Addr().Is4In6() {
		return n, errValue
	}
	return n, nil
}

// host takes a host name in lower case, or *.name for all below it.
func host(v string) (string, error) {
	v = strings.ToLower(v)
	if !hostShape.MatchString(strings.TrimPrefix(v, "*.")) || strings.HasSuffix(v, ".") {
		return "", errValue
	}
	return v, nil
}

func period(v string) (time.Duration, error) {
	n, err := parseSpan(v)
	if err != nil || n == 0 || n > spanMost {
		return 0, errValue
	}
	return time.Duration(n) * time.Second, nil
}

// parseSpan reads whole seconds, or a sum of numbers with the units s, m, h, d, w (1d12h). It returns seconds.
func parseSpan(v string) (total int64, err error) {
	if strings.Trim(v, "0123456789") == "" {
		v += "s"
	}
	for v != "" {
		i := max(0, strings.IndexAny(v, "smhdw"))
		n, err := strconv.ParseUint(v[:i], 10, 63)
		unit := map[byte]int64{'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 7 * 86400}[v[i]]
		if err != nil || int64(n) > (math.MaxInt64-total)/unit {
			return 0, errValue
		}
		total, v = total+int64(n)*unit, v[i+1:]
	}
	return total, nil
}

// readEnvFile returns what a file sets, "NAME=value" each, and reads it as systemd.exec(5) says under EnvironmentFile=.
// What systemd would pass over in silence, such as a line without "=", is an error.
func readEnvFile(path string) (env []string, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for rest := string(raw); ; {
		rest = rest[len(envBlank.FindString(rest)):]
		if rest == "" {
			return env, nil
		}
		m := envLine.FindStringSubmatch(rest)
		if m == nil || !utf8.ValidString(m[0]) || strings.Contains(m[0], "\x00") {
			line := 1 + strings.Count(string(raw[:len(raw)-len(rest)]), "\n")
			return nil, fmt.Errorf("%s, line %d: neither NAME=value, with its quotes closed, nor a comment", path, line)
		}
		value := ""
		for _, piece := range envQuoted.FindAllStringSubmatch(m[2], -1) {
			value += piece[1] + quotedEscape.ReplaceAllString(piece[2], "$1")
		}
		env = append(env, m[1]+"="+value+bareEscape.ReplaceAllString(m[3], "$1"))
		rest = rest[len(m[0]):]
	}
}

const settingsNote = `
A name that is no setting, or a value that is not understood, ends the start with one line that
names it. Sizes are bytes or end in KiB, MiB or GiB. Times are seconds or end in s, m, h, d or w,
and may be sums (1d12h). Rates are a count or a size per s, m, h or d (200MiB/h); 0 is no limit.

The secrets, PROXY_SECRET and PKI_CA_PASSWORD, may also come from a file that a variable with _FILE
behind the name names, or from a systemd credential (proxy_secret, pki_ca_password). One newline at
the end is cut off. A secret that is empty, or set in two ways, ends the start.

The operator's commands take --env FILE: NAME=value lines as in systemd's EnvironmentFile=.
`

// configHelp is `flaskpaste serve --help`.
func configHelp() string {
	var b strings.Builder
	b.WriteString("usage: flaskpaste serve\n\nEverything is set by environment variables.\n")
	for _, s := range settings(new(config)) {
		if s.name == "" {
			fmt.Fprintf(&b, "\n%s\n", s.help)
		} else {
			fmt.Fprintf(&b, "  %s%s (%s): %s\n      %s\n", envPrefix, s.name, cmp.Or(s.def, "empty"), s.takes, s.help)
		}
	}
	return b.String() + settingsNote + "\nexample: FLASKPASTE_LISTEN=127.0.0.1:8080 flaskpaste serve\n"
}
