package main

// config_test.go: settings through loadConfig as main gives them, and env files; help, page and table say the same.

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var writeSettings = flag.Bool("write-settings", false, "write docs/settings.md anew")

// TestConfigDefaults: an empty environment is a whole configuration, without a warning.
func TestConfigDefaults(t *testing.T) {
	c, err := loadConfig([]string{"PATH=/bin", "flaskpaste_x=1", "OTHER_FLASKPASTE_X=1", "FLASKPASTE_SERVER=https://x"})
	if err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	want := &config{listen: []string{"127.0.0.1:5000"}, addressHeader: "X-Forwarded-For",
		certHeader: "X-Ssl-Client-Sha1", requireCert: "0", maxAnon: 3 << 20, maxAuth: 50 << 20,
		expiryAnon: day, expiryUntrusted: 7 * day,
		expiryTrusted: 30 * day, maxExpiry: 90 * day, shortMax: 2048, powDifficulty: 20, powFree: 20,
		powTTL: 5 * time.Minute, floodThreshold: 30, floodMax: 28, dedupMax: 3, dedupWindow: time.Hour, maxUploads: 64,
		maxDownloads: 256, maxConnections: 512, transferTimeout: 15 * time.Minute, pkiEnabled: "0", certDays: 365,
		registration: "closed", registerPow: 24, database: "data/flaskpaste.db", maxStorage: 10 << 30,
		minFree: 256 << 20, sync: "full", checkpoint: "on", cache: 32 << 20, sweep: time.Minute,
		log: "text", logAddr: "full",
		rates: [rateClasses]rate{rateCreate: {30, time.Minute}, rateRead: {600, time.Minute},
			rateMiss: {60, time.Minute}, rateAuth: {20, time.Minute}, rateRegister: {10, time.Hour},
			rateBytes: {200 << 20, time.Hour},
			rateFree:  {20, time.Hour}, rateDuplicate: {3, time.Hour}}}
	got, expected := reflect.ValueOf(*c), reflect.ValueOf(*want)
	for i := range got.NumField() {
		if a, b := fmt.Sprint(got.Field(i)), fmt.Sprint(expected.Field(i)); a != b {
			t.Errorf("%s is %s, want %s", got.Type().Field(i).Name, a, b)
		}
	}
}

// TestConfigValues: what each sort of setting takes and what becomes of it, and what stops the start with one line that
// names the setting. Values are cut at the bar.
func TestConfigValues(t *testing.T) {
	type get func(*config) any
	for _, c := range []struct {
		name, good string
		value      get // of each good one, printed, cut at the bar
		want, bad  string
	}{
		{"LISTEN", "0.0.0.0:80, [::1]:443,:8080,unix:/run/x.sock|localhost:0", func(c *config) any { return c.listen },
			"[0.0.0.0:80 [::1]:443 :8080 unix:/run/x.sock]|[localhost:0]",
			"|5000|localhost|127.0.0.1:|127.0.0.1:65536|127.0.0.1:http|unix:|unix:@x|a:1,,b:2|[::1]|1.2.3.4:-1"},
		{"URL_PREFIX", "|/|/paste|/a/b-c_d.e~f/", func(c *config) any { return c.prefix }, "||/paste|/a/b-c_d.e~f",
			"paste|//|/a//b|/a b|/{id}|/a?b|/a#b|/..|/.|/a/../b|/%41|/ü"},
		{"PUBLIC_URL", "|https://paste.example.org:8443/|http://[::1]:80", func(c *config) any { return c.publicURL },
			"|https://paste.example.org:8443|http://[::1]:80", "paste.example.org|ftp://x|https://|https://x/path|" +
				"https://u:p@x|https://x?a=b|https://x#a|https://x?|://|https:x|https://a b|https://:80|https://x:y"},
		{"TRUSTED_PROXIES", "|10.0.0.0/8, 192.0.2.1,2001:db8::/32, ::1,::ffff:192.0.2.2",
			func(c *config) any { return c.trustedProxies },
			"[]|[10.0.0.0/8 192.0.2.1/32 2001:db8::/32 ::1/128 192.0.2.2/32]", "localhost|10.0.0.0/33|10.0.0.1/8|" +
				"10.0.0|10.0.0.0/8;1.2.3.4|::ffff:10.0.0.0/104|fe80::1%eth0|10.0.0.0/-1|*|,| |10.0.0.0/8,|any"},
		{"METRICS_ALLOW", "|127.0.0.1|any", func(c *config) any { return fmt.Sprint(c.metricsAllow, c.metricsAny) },
			"[] false|[127.0.0.1/32] false|[] true", "Any|any,127.0.0.1|all"},
		{"ADDRESS_HEADER", "x-real-ip", func(c *config) any { return c.addressHeader }, "X-Real-Ip",
			"|X Forwarded|X-Forwarded-For:|X_Real_IP|ü|X-A,X-B|" + strings.Repeat("a", 65) + "|Forwarded|forwarded"},
		{"CERT_HEADER", "client-cert", func(c *config) any { return c.certHeader }, "Client-Cert", "|a b"},
		{"REQUIRE_CERT", "0|any|trusted", func(c *config) any { return c.requireCert }, "0|any|trusted", "|1|Any"},
		{"MAX_ANON", "1|2KiB|1073741824GiB", func(c *config) any { return c.maxAnon }, "1|2048|1152921504606846976",
			"|0|-1|3MB|3 MiB|3mib|1.5MiB|0x10|1e6|99999999999999999999|9999999999GiB|2147483648GiB|+5|05|1_000|٣"},
		{"MIN_FREE", "0", func(c *config) any { return c.minFree }, "0", "|-1"},
		{"SHORT_URL_MAX", "16", func(c *config) any { return c.shortMax }, "16", "15|"},
		{"MIN_ENTROPY", "0|3.5|8", func(c *config) any { return c.minEntropy }, "0|3.5|8", "|8.001|9|-1|NaN|nan|Inf|x"},
		{"EXPIRY_ANON", "1|90s|1d12h|2w", func(c *config) any { return c.expiryAnon }, "1s|1m30s|36h0m0s|336h0m0s",
			"|0|0s|-1|1y|1d12|d|1.5h|forever|99999999999|99999999999999999999|1e3|1 d|25621d"},
		{"SHORT_URL_HOSTS", "|Example.org, *.example.net", func(c *config) any { return c.shortHosts },
			"[]|[example.org *.example.net]", "example.org.|*|a_b|-a|a..b|,|https://x|x:80"},
		{"POW_DIFFICULTY", "0|40", func(c *config) any { return c.powDifficulty }, "0|40", "|41|-1|+1|1.0|x"},
		{"MAX_CONNECTIONS", "1|1048576", func(c *config) any { return c.maxConnections }, "1|1048576", "|0|1048577"},
		{"PKI_CERT_DAYS", "1|3660", func(c *config) any { return c.certDays }, "1|3660", "|0|3661"},
		{"RATE_CREATE", "0|1/s|5/d", func(c *config) any { return c.rates[rateCreate] },
			"{0 0}|{1 1000000000}|{5 86400000000000}", "|30|30/|/m|30/y|-1/m|0/m"},
		{"RATE_BYTES", "1GiB/s", func(c *config) any { return c.rates[rateBytes] }, "{1073741824 1000000000}", "1GB/s"},
		{"POW_FREE", "7", func(c *config) any { return c.rates[rateFree] }, "{7 3600000000000}", "|x"},
		{"DEDUP_WINDOW", "60", func(c *config) any { return c.rates[rateDuplicate] }, "{3 60000000000}", "|0"},
		{"DATABASE", "/x y.db", func(c *config) any { return c.database }, "/x y.db", ""},
		{"SYNC", "normal", func(c *config) any { return c.sync }, "normal", "|off|FULL|full, normal"},
		{"CHECKPOINT", "off", func(c *config) any { return c.checkpoint }, "off", "|yes"},
		{"LOG", "json", func(c *config) any { return c.log }, "json", "|xml|JSON"},
		{"LOG_LEVEL", "debug|error", func(c *config) any { return c.logLevel }, "DEBUG|ERROR", "|trace|7"},
		{"LOG_ADDR", "none", func(c *config) any { return c.logAddr }, "none", "|hash"},
		{"REGISTRATION", "open", func(c *config) any { return c.registration }, "open", "|yes"},
		{"PKI_ENABLED", "1", func(c *config) any { return c.pkiEnabled }, "1", "|true"},
	} {
		wants := strings.Split(c.want, "|")
		for i, v := range strings.Split(c.good, "|") {
			if cfg, err := loadConfig([]string{"FLASKPASTE_" + c.name + "=" + v}); err != nil {
				t.Errorf("%s=%q: %v", c.name, v, err)
			} else if got := fmt.Sprint(c.value(cfg)); got != wants[i] || cfg.listenGiven != (c.name == "LISTEN") {
				t.Errorf("%s=%q is %s, want %s", c.name, v, got, wants[i])
			}
		}
		for _, v := range strings.Split(c.bad, "|") {
			_, err := loadConfig([]string{"FLASKPASTE_" + c.name + "=" + v})
			if s := fmt.Sprint(err); !strings.HasPrefix(s, "FLASKPASTE_"+c.name+": ") || strings.Contains(s, "\n") {
				t.Errorf("%s=%q: %s", c.name, v, s)
			}
		}
	}
}

// TestConfigNames: what is no setting stops the start, with the way on; what Kubernetes sets does not, but is told.
func TestConfigNames(t *testing.T) {
	for _, c := range []struct{ env, says string }{
		{"FLASKPASTE_PORT=8080", "FLASKPASTE_LISTEN=127.0.0.1:8080"}, {"FLASKPASTE_PORT=", "FLASKPASTE_LISTEN"},
		{"FLASKPASTE_PUBLIC_URL=https://x/paste", "FLASKPASTE_URL_PREFIX"}, {"FLASKPASTE_WEB_PORT=8080", "WEB_PORT"},
		{"FLASKPASTE_=1", `"FLASKPASTE_"`}, {"FLASKPASTE_MAXANON=1", "MAXANON"},
		{"FLASKPASTE_MAX_ANON =1", `MAX_ANON "`}, {"FLASKPASTE_max_anon=1", "max_anon"}, {"FLASKPASTE_X\nY=1", `X\nY`},
		{"FLASKPASTE_MAX_ANON_FILE=x", "MAX_ANON_FILE"},
		{"FLASKPASTE__FILE=x", "_FILE"}, {"FLASKPASTE_SERVERS=x", "SERVERS"}, {"FLASKPASTE_ID_LENGTH=16", "no longer"},
		{"FLASKPASTE_TLS_CERT=x", "TLS_CERT"}, {"FLASKPASTE_SOCKET_MODE=0660", "SOCKET_MODE"},
		{"FLASKPASTE_SERVICE=1", "SERVICE"}, {"FLASKPASTE_HOST=1", "HOST"}, {"FLASKPASTE_XPORT=tcp://x", "XPORT"},
		{"FLASKPASTE_SERVICE_HOSTS=1", "HOSTS"}, {"FLASKPASTE_PORT_80_TCP=80", "PORT_80_TCP"},
		{"FLASKPASTE_PORT_80_ICMP=tcp://x", "ICMP"}, {"FLASKPASTE_web_PORT=tcp://x", "web"},
	} {
		_, err := loadConfig([]string{c.env})
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", c.env, err)
		}
	}
	for _, env := range []string{"PORT=tcp://10.0.0.1:80", "PORT_80_TCP=tcp://10.0.0.1:80", "PORT_80_TCP_PROTO=tcp",
		"PORT_80_TCP_PORT=80", "PORT_80_TCP_ADDR=10.0.0.1", "PORT_53_UDP_PORT=53", "PORT_9_SCTP_ADDR=::1",
		"SERVICE_HOST=10.0.0.1", "SERVICE_PORT=80", "SERVICE_PORT_HTTP_2=80", "WEB_PORT=tcp://10.0.0.1:80",
		"MY_WEB_2_PORT_80_TCP_PORT=80", "WEB_SERVICE_HOST=10.0.0.1", "PORT_PORT=tcp://10.0.0.1:80"} {
		c, err := loadConfig([]string{"FLASKPASTE_" + env})
		name, _, _ := strings.Cut(env, "=")
		if err != nil || len(c.warnings) != 1 || !strings.HasPrefix(c.warnings[0], "FLASKPASTE_"+name+" ") {
			t.Errorf("%s: %v, %+v", env, err, c)
		}
	}
	for _, s := range settings(new(config)) {
		if injected.MatchString(s.name) {
			t.Errorf("the setting %s has a name of Kubernetes'", s.name)
		}
	}
}

// TestConfigSystemd: what systemd says is the default; the operator's word counts more, and of two the last.
func TestConfigSystemd(t *testing.T) {
	env := []string{"STATE_DIRECTORY=/var/lib/flaskpaste:/x", "JOURNAL_STREAM=1:1"}
	if c, err := loadConfig(env); err != nil || c.database != "/var/lib/flaskpaste/flaskpaste.db" || c.log != "text" {
		t.Errorf("%v: %s, %s", err, c.database, c.log) // JOURNAL_STREAM is somebody else's stderr
	}
	env = append(env, "FLASKPASTE_DATABASE=/a.db", "FLASKPASTE_DATABASE=/b.db")
	if c, err := loadConfig(env); err != nil || c.database != "/b.db" {
		t.Errorf("%v: %s", err, c.database)
	}
}

// TestConfigWarnings: one for each thing that is hardly meant.
func TestConfigWarnings(t *testing.T) {
	const key, nets = "FLASKPASTE_PROXY_SECRET=sixteen-letters!", "FLASKPASTE_TRUSTED_PROXIES="
	for _, c := range []struct {
		warning string
		env     []string
	}{
		{"PKI_CA_PASSWORD is short", []string{"FLASKPASTE_PKI_CA_PASSWORD=elf Zeichen"}},
		{"", []string{"FLASKPASTE_PKI_CA_PASSWORD=zwölf Zeichen"}},
		{"a /0", []string{nets + "10.0.0.0/8,::/0"}}, {"a /0", []string{key, nets + "0.0.0.0/0"}},
		{"PROXY_SECRET is not", []string{nets + "10.0.0.1"}}, {"", []string{key, nets + "10.0.0.1"}},
		{"TRUSTED_PROXIES is not", []string{key}}, {"", []string{key, "FLASKPASTE_LISTEN=127.0.0.1:1,unix:/x"}},
		{"", []string{key, "LISTEN_FDS=1"}},
	} {
		cfg, err := loadConfig(c.env)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(cfg.warnings, "\n")
		if len(cfg.warnings) != min(len(c.warning), 1) || !strings.Contains(got, c.warning) {
			t.Errorf("%q: %q, want one warning with %q", c.env, got, c.warning)
		}
	}
}

// TestSecrets: variable, file or credential; one of them, whole, and not for everybody to read; never shown.
func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	save := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		must(0, errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)))
		must(0, os.Chmod(path, mode))
		return path
	}
	const text = "a-secret-of-24-letters!!"
	const v, f, d = "FLASKPASTE_PROXY_SECRET=", "FLASKPASTE_PROXY_SECRET_FILE=", "CREDENTIALS_DIRECTORY="
	good, wide := save("good", text+"\n", 0o600), save("wide", text, 0o604)
	mine, others := filepath.Dir(save("a/proxy_secret", text+"\n", 0o400)), filepath.Dir(save("b/other", text, 0o400))
	const trusted = "FLASKPASTE_TRUSTED_PROXIES=10.0.0.1"
	for _, env := range [][]string{{v + text}, {f + good}, {f + save("bare", text, 0o640)}, {d + mine},
		{d + others, v + text}, {f + wide}} {
		cfg, err := loadConfig(append(env, trusted))
		if err != nil || cfg.proxySecret != text || len(cfg.warnings) != strings.Count(env[0], wide) {
			t.Errorf("%q: %v", env, err)
		}
	}
	for _, env := range [][]string{{v + text, f + good}, {v + text, d + mine}, {f + good, d + mine}, {v, f + good},
		{v}, {f + save("empty", "\n", 0o600)}, {d + filepath.Dir(save("c/proxy_secret", "", 0o400))}, // empty
		{f}, {f + dir + "/none"}, {f + dir}, // no file
		{v + text[:15]}, {v + text + " x"}, {v + text + "ü"}, {f + save("crlf", text+"\r\n", 0o600)},
		{f + save("two", text+"\n\n", 0o600)}} {
		_, err := loadConfig(append(env, trusted))
		if s := fmt.Sprint(err); !strings.HasPrefix(s, v[:len(v)-1]+": ") || strings.Contains(s, text[:15]) {
			t.Errorf("%q: %v", env, err)
		}
	}
	for _, bad := range []string{"tab\tinside", "\xff inside"} {
		_, err := loadConfig([]string{"FLASKPASTE_PKI_CA_PASSWORD=" + bad})
		if err == nil || strings.Contains(err.Error(), "inside") {
			t.Errorf("CA password %q: %v", bad, err)
		}
	}
	cfg, _ := loadConfig([]string{v + text})
	key := cfg.proxySecret
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", key, "all", cfg)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", key, "all", cfg)
	shown := fmt.Sprintf("%v %+v %#v %s %q %v %+v %#v %v", key, key, key, key, key, cfg, cfg, cfg, *cfg) + log.String()
	if strings.Contains(shown, text) || strings.Count(shown, "[redacted]") != 7 {
		t.Error(shown)
	}
}

// TestEnvFile: NAME=value lines as systemd.exec(5) has them; a line that is none is an error with its number.
func TestEnvFileLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "env")
	for _, c := range []struct {
		name, text string
		want       []string // or
		line       int      // of the error
	}{
		{"nothing", "", nil, 0}, {"comments", "# A=1\n ; B=2\n\n\t\n#", nil, 0},
		{"a comment ends with its line", "# x \\\nA=1", []string{"A=1"}, 0},
		{"plain", "A=1\nB_2=\n_c= x \t\nD = y\n", []string{"A=1", "B_2=", "_c=x", "D=y"}, 0},
		{"CRLF", "A=1\r\nB=\"2\"\r\n", []string{"A=1", "B=2"}, 0},
		{"blanks and quotes inside", `A=a b  c "d" 'e' #f;=`, []string{`A=a b  c "d" 'e' #f;=`}, 0},
		{"single quotes", "A='a\\ \"b\n# c' \nB=2", []string{"A=a\\ \"b\n# c", "B=2"}, 0},
		{"double quotes", `A=" a\"b\\c\$d` + "\\`" + `e\nf'g "`, []string{`A= a"b\c$d` + "`" + `e\nf'g `}, 0},
		{"double quotes over lines", "A=\"a\\\nb\nc\"", []string{"A=ab\nc"}, 0},
		{"pieces", `A='a' "b"c d "e"`, []string{`A=abc d "e"`}, 0},
		{"empty quotes", `A=""`, []string{"A="}, 0},
		{"escapes", `A=\a\\b\"c\ d\ `, []string{`A=a\b"c d `}, 0},
		{"escaped quote first", `A=\"a"`, []string{`A="a"`}, 0},
		{"continued", "A=a \\\n  b\\\n\nB=2", []string{"A=a   b", "B=2"}, 0},
		{"twice", "A=1\nA=2", []string{"A=1", "A=2"}, 0}, {"UTF-8", "A=ü", []string{"A=ü"}, 0},
		{"no value", "A=1\n\nB\nC=3", nil, 3}, {"export", "export A=1", nil, 1}, {"a digit first", "\n2A=1", nil, 2},
		{"no name", "=1", nil, 1}, {"hyphen", "A-B=1", nil, 1}, {"byte order mark", "\ufeffA=1", nil, 1},
		{"quote without an end", "A=1\nB='x\nC=3\n", nil, 2}, {"double quote without an end", `A="x\"`, nil, 1},
		{"backslash at the end", "A=1\nB=x\\", nil, 2},
		{"NUL", "A=a\x00b", nil, 1}, {"not UTF-8", "B=1\nA=\xff", nil, 2},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		env, err := readEnvFile(path)
		if !slices.Equal(env, c.want) || (err != nil) != (c.line > 0) ||
			err != nil && !strings.HasPrefix(err.Error(), fmt.Sprintf("%s, line %d: ", path, c.line)) {
			t.Errorf("%s: %q, %v", c.name, env, err)
		}
	}
	if env, err := readEnvFile(path + ".none"); err == nil || env != nil {
		t.Errorf("no file: %q", env)
	}
}

// FuzzEnvFile: what a file sets can be written so that it reads the same.
func FuzzEnvFile(f *testing.F) {
	f.Add("A=1\n#\nB='x'\\\n\"y\\\"\"\nC= \\\r\n;")
	path, quote := filepath.Join(f.TempDir(), "env"), strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`)
	read := func(text string) ([]string, error) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, err
		}
		return readEnvFile(path)
	}
	f.Fuzz(func(t *testing.T, text string) {
		env, err := read(text)
		again := ""
		for _, kv := range env {
			name, value, _ := strings.Cut(kv, "=")
			again += name + `="` + quote.Replace(value) + "\"\n"
		}
		if same, err2 := read(again); err == nil && (err2 != nil || !slices.Equal(same, env)) {
			t.Errorf("%q from %q became %q: %v", env, text, same, err2)
		}
	})
}

// settingsPage is docs/settings.md, made of the parser's own table.
func settingsPage() string {
	page := "# Settings\n\nEverything is set by environment variables. `flaskpaste serve --help` lists them, too.\n"
	for _, s := range settings(new(config)) {
		if s.name == "" {
			page += "\n## " + s.help + "\n\n| setting | default | takes | for |\n|---|---|---|---|\n"
		} else {
			def := cmp.Or(s.def, "empty")
			page += fmt.Sprintf("| `FLASKPASTE_%s` | %s | %s | %s |\n", s.name, def, s.takes, s.help)
		}
	}
	return page + settingsNote
}

// TestConfigHelp: help and page show every setting as the table has it, and no other; each takes its default.
func TestConfigHelp(t *testing.T) {
	help, page, names := configHelp(), settingsPage(), map[string]bool{}
	for _, s := range settings(new(config)) {
		if s.name == "" {
			continue
		}
		if names[s.name] || s.takes == "" || s.help == "" || s.def != "" && s.to.UnmarshalText([]byte(s.def)) != nil {
			t.Errorf("%s: twice, without words, or its default %q is not taken", s.name, s.def)
		}
		names[s.name] = true
		if !strings.Contains(help, "  FLASKPASTE_"+s.name+" (") {
			t.Errorf("help lacks %s", s.name)
		}
		words := strings.Split(s.takes, ", ")
		for _, w := range words { // a choice takes each of its words
			if slices.Contains(words, s.def) && s.to.UnmarshalText([]byte(w)) != nil {
				t.Errorf("%s does not take %s", s.name, w)
			}
		}
	}
	for _, name := range regexp.MustCompile(`FLASKPASTE_[A-Z0-9_]+`).FindAllString(help+page, -1) {
		if !names[strings.TrimPrefix(name, "FLASKPASTE_")] {
			t.Errorf("%s is shown, but is no setting", name)
		}
	}
	for line := range strings.Lines(help) {
		if len(line) > 101 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
	if *writeSettings {
		if err := os.WriteFile("docs/settings.md", []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if doc, err := os.ReadFile("docs/settings.md"); err != nil || string(doc) != page {
		t.Errorf("docs/settings.md is not what the program says (%v): go test -run TestConfigHelp -write-settings", err)
	}
}
