package main

// Configuration (design.md section 4): strict parsing, unknown and injected names, secrets, and that what is written about it is
// true.

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestConfigDefaults: an empty environment is a configuration that works, and what it says is what design.md says.
func TestConfigDefaults(t *testing.T) {
	c, err := loadConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.listen, []string{"127.0.0.1:5000"}) || c.database != "data/flaskpaste.db" || c.maxAnon != 3<<20 || c.maxAuth != 50<<20 || c.expiryAnon != 24*time.Hour || c.expiryUntrusted != 7*24*time.Hour ||
		c.expiryTrusted != 30*24*time.Hour || c.maxExpiry != 90*24*time.Hour || c.idLength != 16 || c.maxUploads != 64 || c.maxDownloads != 256 || c.transferTimeout != 15*time.Minute || c.maxStorage != 10<<30 ||
		c.minFree != 256<<20 || c.cache != 32<<20 || c.sweep != time.Minute || c.sync != "full" || c.checkpoint != "on" || c.addressHeader != "X-Forwarded-For" || c.certHeader != "X-Ssl-Client-Sha1" ||
		len(c.trustedProxies) != 0 || c.proxySecret != "" || c.socketMode != 0o660 || c.requireCert != "0" || c.log != "text" || c.logAddr != "full" || len(c.warnings) != 0 {
		t.Errorf("defaults %+v", c)
	}
}

// TestConfigStrict: each bad value stops the start with one line that names the variable.
func TestConfigStrict(t *testing.T) {
	bad := map[string][]string{
		"LISTEN":          {"", "5000", "localhost", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:http", "unix:", "a:1,,b:2", "[::1]", "::1:5000", "1.2.3.4:-1"},
		"SOCKET_MODE":     {"", "0888", "rw", "1777", "-1", "0o660"},
		"DATABASE":        {""},
		"URL_PREFIX":      {"paste", "//", "/a//b", "/a b", "/{id}", "/a?b", "/a#b", "/..", "/.", "/a/../b", "/%41", "/ü"},
		"PUBLIC_URL":      {"paste.example.org", "ftp://x", "https://", "https://x/path", "https://u:p@x", "https://x?a=b", "https://x#a", "https://x?", "https://x#", "://", "https:x", "https://a b"},
		"TRUSTED_PROXIES": {"localhost", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/8;1.2.3.4", "::ffff:10.0.0.0/104", "fe80::1%eth0", "10.0.0", "10.0.0.0/-1", "*", "10.0.0.0/8,x", ",", " ", "10.0.0.0/8,"},
		"PROXY_SECRET":    {"", "short", "fifteen-letters", "has a blank in it here", "has\ta\ttab\tin\tit\there", "größer als sechzehn Bytes", "nul\x00nul\x00nul\x00nul\x00nul"},
		"ADDRESS_HEADER":  {"", "X Forwarded", "X-Forwarded-For:", "X_Real_IP", "ü", strings.Repeat("a", 65), "X-A,X-B"},
		"CERT_HEADER":     {"", "a b"},
		"REQUIRE_CERT":    {"", "1", "yes", "Any"},
		"MAX_ANON":        {"", "0", "-1", "3MB", "3 MiB", "3mib", "1.5MiB", "0x10", "1e6", "99999999999999999999", "9999999999GiB", "+5", "05", "1_000", "٣"},
		"MAX_AUTH":        {"x"},
		"EXPIRY_ANON":     {"", "0", "0s", "-1", "1y", "1d12", "1.5h", "forever", "99999999999", "1e3", "1 d"},
		"MAX_EXPIRY":      {"0", "101y", "25621d"},
		"ID_LENGTH":       {"", "11", "65", "0", "-1", "16.0", "x", "+16", "1_6"},
		"MIN_SIZE":        {"-1", ""},
		"MAX_UPLOADS":     {"0", "-1", "1048577", "x"},
		"MAX_DOWNLOADS":   {"0", ""},
		"MAX_STORAGE":     {"0", ""},
		"SYNC":            {"", "off", "FULL", "extra"},
		"CHECKPOINT":      {"", "yes", "1"},
		"SWEEP":           {"0", ""},
		"LOG":             {"", "xml", "JSON"},
		"MIN_ENTROPY":     {"", "8.1", "8.001", "9", "-1", "1e0", "NaN", "3.1234", ".5"},
		"LOG_LEVEL":       {"", "trace", "7", "info+2", "warn-1"},
		"LOG_ADDR":        {"", "hash"},
	}
	for name, values := range bad {
		for _, v := range values {
			_, err := loadConfig([]string{"FLASKPASTE_" + name + "=" + v})
			if err == nil {
				t.Errorf("FLASKPASTE_%s=%q is taken", name, v)
			} else if s := err.Error(); !strings.Contains(s, "FLASKPASTE_"+name) || strings.Contains(s, "\n") || name == "PROXY_SECRET" && v != "" && strings.Contains(s, v) {
				t.Errorf("FLASKPASTE_%s=%q: %q", name, v, s)
			}
		}
	}
	for _, name := range []string{"FLASKPASTE_", "FLASKPASTE_X", "FLASKPASTE_MAXANON", "FLASKPASTE_MAX_ANON ", "FLASKPASTE_max_anon", "FLASKPASTE_LISTEN_FILE", "FLASKPASTE_MAX_ANON_FILE", "FLASKPASTE_TRUSTED_PROXY", "FLASKPASTE_SERVERS"} {
		if _, err := loadConfig([]string{name + "=1"}); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestConfigGood: values at the borders, and what they become.
func TestConfigGood(t *testing.T) {
	load := func(env ...string) *config {
		t.Helper()
		c, err := loadConfig(env)
		if err != nil {
			t.Fatalf("%v: %v", env, err)
		}
		return c
	}
	c := load("FLASKPASTE_LISTEN=0.0.0.0:80, [::1]:443,:8080,unix:/run/x.sock", "FLASKPASTE_MAX_ANON=1", "FLASKPASTE_MAX_AUTH=2GiB", "FLASKPASTE_EXPIRY_ANON=1d12h", "FLASKPASTE_EXPIRY_TRUSTED=1", "FLASKPASTE_MAX_EXPIRY=100w",
		"FLASKPASTE_TRUSTED_PROXIES=10.0.0.0/8, 192.0.2.1,2001:db8::/32, ::1,::ffff:192.0.2.2", "FLASKPASTE_URL_PREFIX=/a/b-c_d.e~f/", "FLASKPASTE_PUBLIC_URL=https://paste.example.org:8443/", "FLASKPASTE_SOCKET_MODE=600",
		"FLASKPASTE_ADDRESS_HEADER=x-real-ip", "FLASKPASTE_CERT_HEADER=client-cert", "FLASKPASTE_CACHE=0", "FLASKPASTE_MIN_FREE=0", "FLASKPASTE_LOG_LEVEL=debug", "FLASKPASTE_ID_LENGTH=64", "FLASKPASTE_PROXY_SECRET=sixteen-letters!",
		"FLASKPASTE_SERVER=https://a-client's.example", "PATH=/bin", "OTHER_FLASKPASTE_X=1", "flaskpaste_x=1")
	if !slices.Equal(c.listen, []string{"0.0.0.0:80", "[::1]:443", ":8080", "unix:/run/x.sock"}) || c.maxAnon != 1 || c.maxAuth != 2<<30 || c.expiryAnon != 36*time.Hour || c.expiryTrusted != time.Second || c.maxExpiry != 700*24*time.Hour ||
		len(c.trustedProxies) != 5 || c.trustedProxies[4].String() != "192.0.2.2/32" || c.prefix != "/a/b-c_d.e~f" || c.publicURL != "https://paste.example.org:8443" || c.socketMode != 0o600 ||
		c.addressHeader != "X-Real-Ip" || c.certHeader != "Client-Cert" || c.cache != 0 || c.minFree != 0 || c.idLength != 64 || c.proxySecret != "sixteen-letters!" || len(c.warnings) != 0 {
		t.Errorf("%+v", c)
	}
	if c := load("FLASKPASTE_URL_PREFIX=", "FLASKPASTE_PUBLIC_URL=", "FLASKPASTE_TRUSTED_PROXIES="); c.prefix != "" || c.publicURL != "" || len(c.trustedProxies) != 0 {
		t.Errorf("empty ones: %+v", c)
	}
	if c := load("FLASKPASTE_URL_PREFIX=/"); c.prefix != "" {
		t.Errorf("prefix %q", c.prefix)
	}
	if c := load("STATE_DIRECTORY=/var/lib/flaskpaste:/var/lib/other"); c.database != "/var/lib/flaskpaste/flaskpaste.db" {
		t.Errorf("database %q", c.database)
	}
	if c := load("STATE_DIRECTORY=/var/lib/flaskpaste", "FLASKPASTE_DATABASE=/x.db"); c.database != "/x.db" {
		t.Errorf("database %q", c.database)
	}
	if c := load("JOURNAL_STREAM=1:1"); c.log != "text" {
		t.Errorf("another's JOURNAL_STREAM: %q", c.log)
	}
	if c := load("FLASKPASTE_PROXY_SECRET=sixteen-letters!"); len(c.warnings) != 1 {
		t.Errorf("a secret for nobody: warnings %q", c.warnings)
	}
}

// TestConfigInjected: what orchestrators set for a service of that name is ignored, aloud; a typo is not taken for one.
func TestConfigInjected(t *testing.T) {
	names := []string{"FLASKPASTE_PORT", "FLASKPASTE_PORT_5000_TCP", "FLASKPASTE_PORT_5000_TCP_ADDR", "FLASKPASTE_SERVICE_HOST", "FLASKPASTE_SERVICE_PORT", "FLASKPASTE_SERVICE_PORT_HTTP", "FLASKPASTE_WEB_SERVICE_HOST"}
	for _, name := range names {
		c, err := loadConfig([]string{name + "=tcp://10.0.0.1:5000"})
		if err != nil || len(c.warnings) != 1 || !strings.Contains(c.warnings[0], name) {
			t.Errorf("%s: %v, %+v", name, err, c)
		}
	}
	for _, name := range []string{"FLASKPASTE_SERVICE", "FLASKPASTE_HOST", "FLASKPASTE_XPORT", "FLASKPASTE_SERVICE_HOSTS"} {
		if _, err := loadConfig([]string{name + "=1"}); err == nil {
			t.Errorf("%s is taken for an orchestrator's", name)
		}
	}
}

// TestSecretSources: variable, file, credential; one of them, whole, and not for everybody to read.
func TestSecretSources(t *testing.T) {
	dir := t.TempDir()
	save := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(path), 0o700)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const text = "a-secret-of-24-letters!!"
	good, crlf, two, empty := save("good", text+"\n", 0o600), save("crlf", text+"\r\n", 0o600), save("two", text+"\n\n", 0o600), save("empty", "\n", 0o600)
	bare, short, wide, group := save("bare", text, 0o400), save("short", "short\n", 0o600), save("wide", text, 0o644), save("group", text, 0o640)
	credential, none := filepath.Dir(save("cred/proxy_secret", text+"\n", 0o400)), filepath.Dir(save("cred2/other", text, 0o400))
	const v, f, d = "FLASKPASTE_PROXY_SECRET=", "FLASKPASTE_PROXY_SECRET_FILE=", "CREDENTIALS_DIRECTORY="
	for _, c := range []struct {
		name     string
		env      []string
		ok       bool
		warnings int // the first is that no proxy is trusted
	}{
		{"variable", []string{v + text}, true, 1}, {"file", []string{f + good}, true, 1}, {"file without a newline", []string{f + bare}, true, 1}, {"credential", []string{d + credential}, true, 1},
		{"credentials of others", []string{d + none}, true, 0}, {"variable, credentials of others", []string{d + none, v + text}, true, 1},
		{"file that others can read", []string{f + wide}, true, 2}, {"file that the group can read", []string{f + group}, true, 1},
		{"variable and file", []string{v + text, f + good}, false, 0}, {"variable and credential", []string{v + text, d + credential}, false, 0}, {"file and credential", []string{f + good, d + credential}, false, 0},
		{"all three", []string{v + text, f + good, d + credential}, false, 0},
		{"empty variable", []string{v}, false, 0}, {"empty variable and file", []string{v, f + good}, false, 0}, {"empty file", []string{f + empty}, false, 0}, {"empty name", []string{f}, false, 0}, {"no such file", []string{f + dir + "/none"}, false, 0},
		{"a folder", []string{f + dir}, false, 0}, {"short", []string{f + short}, false, 0}, {"carriage return", []string{f + crlf}, false, 0}, {"two newlines", []string{f + two}, false, 0},
	} {
		cfg, err := loadConfig(c.env)
		switch {
		case (err == nil) != c.ok:
			t.Errorf("%s: %v", c.name, err)
		case err != nil && (!strings.Contains(err.Error(), "FLASKPASTE_PROXY_SECRET") || strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n")):
			t.Errorf("%s: %q", c.name, err)
		case err == nil && c.warnings > 0 && cfg.proxySecret != text, err == nil && len(cfg.warnings) != c.warnings:
			t.Errorf("%s: secret of %d bytes, warnings %q", c.name, len(cfg.proxySecret), cfg.warnings)
		}
	}
}

// TestHelp: `serve --help` lists every variable, with default and unit, and each default is what the parser takes.
func TestHelp(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run([]string{"flaskpaste", "serve", "--help"}, nil, &out, &errs); code != 0 || errs.Len() != 0 {
		t.Errorf("exit code %d, stderr %q", code, errs.String())
	}
	names := map[string]bool{}
	for _, v := range variables(new(config)) {
		def := v.def
		if def == "" {
			def = "empty"
		} else if err := v.set(v.def); err != nil {
			t.Errorf("the default of %s: %v", v.name, err)
		}
		if !strings.Contains(out.String(), "FLASKPASTE_"+v.name+" ("+def+")") || !strings.Contains(out.String(), v.help+"; "+v.unit) {
			t.Errorf("help lacks FLASKPASTE_%s (%s)", v.name, def)
		}
		if v.help == "" || v.unit == "" || names[v.name] {
			t.Errorf("%s: without help or unit, or twice", v.name)
		}
		names[v.name] = true
	}
	for _, name := range regexp.MustCompile(`FLASKPASTE_[A-Z0-9_]+`).FindAllString(out.String(), -1) {
		if !names[strings.TrimPrefix(name, "FLASKPASTE_")] {
			t.Errorf("help names %s, which is no variable", name)
		}
	}
}

// TestReadmeVariables: README's table has the same names and defaults as the code.
func TestReadmeVariables(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `FLASKPASTE_([A-Z0-9_]+)` \\|([^|]*)\\|").FindAllStringSubmatch(string(readme), -1) {
		if _, twice := rows[m[1]]; twice {
			t.Errorf("README has %s twice", m[1])
		}
		rows[m[1]] = strings.Trim(m[2], " `")
	}
	for _, v := range variables(new(config)) {
		row, ok := rows[v.name]
		if !ok {
			t.Errorf("README lacks FLASKPASTE_%s", v.name)
		} else if v.def != row && !(v.def == "" && (row == "" || row == "empty")) {
			t.Errorf("README says %q for FLASKPASTE_%s, the code %q", row, v.name, v.def)
		}
		delete(rows, v.name)
	}
	for name := range rows {
		t.Errorf("README has FLASKPASTE_%s, the code does not", name)
	}
}

// TestCommandLine: what can't be understood is exit code 2 with a line on stderr, nothing on stdout, and no file is made.
func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, c := range []struct {
		name string
		args []string
		env  []string
		code int
	}{
		{"version", []string{"version"}, nil, 0}, {"--version", []string{"--version"}, nil, 0}, {"help", []string{"help"}, nil, 0}, {"-h", []string{"-h"}, nil, 0},
		{"check --help", []string{"check", "--help"}, nil, 0}, {"unknown", []string{"serv"}, nil, exitUsage}, {"serve with an argument", []string{"serve", "x"}, nil, exitUsage},
		{"backup without a file", []string{"backup"}, nil, exitUsage}, {"backup to an empty name", []string{"backup", ""}, nil, exitUsage}, {"backup with two", []string{"backup", "a", "b"}, nil, exitUsage}, {"bad setting", []string{"serve"}, []string{"FLASKPASTE_LISTEN=x"}, exitConfig},
		{"unknown setting", []string{"check"}, []string{"FLASKPASTE_LISTENS=x"}, exitConfig}, {"backup of nothing", []string{"backup", "b"}, nil, exitFailed}, {"check of nothing", []string{"check"}, nil, exitFailed},
		{"healthcheck of nobody", []string{"healthcheck"}, []string{"FLASKPASTE_LISTEN=127.0.0.1:1"}, exitFailed},
	} {
		var out, errs bytes.Buffer
		if code := run(append([]string{"flaskpaste"}, c.args...), c.env, &out, &errs); code != c.code {
			t.Errorf("%s: exit code %d, want %d (%s)", c.name, code, c.code, errs.String())
		}
		if c.name != "check of nothing" && (c.code == 0) != (errs.Len() == 0) || c.code != 0 && errs.Len() > 0 && (!strings.HasPrefix(errs.String(), "flaskpaste: ") || strings.Count(errs.String(), "\n") != 1) {
			t.Errorf("%s: stderr %q", c.name, errs.String())
		}
	}
	for _, command := range []string{"serve", "check", "backup", "healthcheck", "pki", "pki init", "pki issue", "pki list", "pki revoke", "pki admin"} {
		var out, errs bytes.Buffer
		if code := run(append(strings.Fields("flaskpaste "+command), "--help"), nil, &out, &errs); code != 0 || errs.Len() != 0 || !regexp.MustCompile(`(?m)^examples?: (.*\n)*.*flaskpaste `+strings.Fields(command)[0]).MatchString(out.String()) {
			t.Errorf("%s --help: exit code %d, no example: %s%s", command, code, out.String(), errs.String())
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("made %v", files)
	}
}
