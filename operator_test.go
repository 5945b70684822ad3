package main

// The operator's commands: what they take and print, their exit codes, the files that they make, and that they work
// beside a running server without spoiling anything of it.

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCommandLine: what each command line says, with which exit code; what is refused prints nothing to standard
// output, one line to standard error, and makes no file.
func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	const listen, pkiHelp = "FLASKPASTE_LISTEN=127.0.0.1:8080", "flaskpaste pki --help"
	const noDatabase = "set FLASKPASTE_DATABASE"
	for code, cases := range map[int][][2]string{ // a setting may stand before the command
		0: {
			{"version", "flaskpaste " + version + "\n"}, {"--version", "flaskpaste " + version + "\n"},
			{"help", "flaskpaste pki issue NAME"}, {"-h", "\n  create "}, {"help backup", "flaskpaste backup FILE|-"},
			{"serve --help", "FLASKPASTE_LISTEN (127.0.0.1:5000)"}, {"pki issue x --help", "--admin"},
		},
		exitUsage: {
			{"serv", `unknown command "serv"`}, {"pki", pkiHelp}, {"pki isue x", pkiHelp},
			{"serve --port 8080", listen}, {"--port=8080", listen}, {"serve x", listen},
			{"check --admin", "check does not take -admin"}, {"check -x", "flaskpaste check --help"},
			{"pki issue al -o", "-o"}, {"pki issue al --days x", "days"}, {"backup", "backup FILE|-"},
			{"backup a b", "backup FILE|-"}, {"pki issue", "NAME"}, {"pki admin 1", "on|off"},
		},
		exitConfig: {
			{"LISTEN=x serve", "FLASKPASTE_LISTEN"}, {"LISTENS=x check", "FLASKPASTE_LISTENS"},
			{"check --env none", "none: no such file"}, {"pki init", "FLASKPASTE_PKI_CA_PASSWORD"},
		},
		exitFailed: {
			{"backup b", noDatabase}, {"pki list", noDatabase}, {"pki issue x", noDatabase},
			{"LISTEN=127.0.0.1:1 healthcheck", "refused"},
		},
	} {
		for _, tc := range cases {
			env, args := []string{"MIN_FREE=0"}, strings.Fields(tc[0])
			if strings.HasPrefix(args[0], "LISTEN") {
				env, args = append(env, args[0]), args[1:]
			}
			got, out, errs := flaskpaste(env, args...)
			shown, silent := out, errs
			if code != 0 {
				shown, silent = errs, out
			}
			if got != code || !strings.Contains(shown, tc[1]) || silent != "" ||
				code != 0 && strings.Count(errs, "\n") != 1 {
				t.Errorf("%s: exit code %d, stdout %q, stderr %q; want %d with %q", tc[0], got, out, errs, code, tc[1])
			}
		}
	}
	if code, out, _ := flaskpaste(nil, ""); code != exitUsage || out != "" {
		t.Errorf("an empty command: exit code %d", code)
	}
	if code, out, _ := flaskpaste(nil, "backup", ""); code != exitUsage || out != "" {
		t.Errorf("backup to an empty name: exit code %d", code)
	}
	for _, c := range commands() { // each has a help of its own, and of nobody else
		out := must(flaskpaste3(nil, append(strings.Fields(c.name), "--help")...))
		if !strings.Contains(out, "flaskpaste "+c.name) || !strings.Contains(out, "--env FILE") {
			t.Errorf("%s --help: %s", c.name, out)
		}
		for _, other := range commands() {
			if other.name != c.name && strings.Contains(out, other.help) {
				t.Errorf("%s --help tells of %s", c.name, other.name)
			}
		}
	}
	if files := must(os.ReadDir(dir)); len(files) != 0 {
		t.Errorf("made %v", files)
	}
}

// TestEnvFile: the file says what systemd would take from it, before and behind the command, and a typo in it is found.
func TestEnvFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "env")
	for text, want := range map[string][]string{ // nil: refused, by its line
		"": {}, "A=1\nB=2": {"A=1", "B=2"}, "# c\n; c\n\n \t\nA=1 # no comment\n": {"A=1 # no comment"},
		"  A = 1  \r\n": {"A=1"}, "A=\nB=": {"A=", "B="}, "A='a b'\n": {"A=a b"}, "A=it's\n": {"A=it's"},
		"A=\"a \\\"b\\\" \\n\"\n": {`A=a "b" \n`}, "A='a\\'b\n": {"A=a\\b"}, "A=a\\ b\\\\\n": {`A=a b\`},
		"A=a \\\n b\nC=1": {"A=a  b", "C=1"}, "A='1\n2'\nB=3": {"A=1\n2", "B=3"}, "A=x=y\n": {"A=x=y"},
		"A=\" x \"\n": {"A= x "}, "A=1\nFLASKPASTE\n": nil, "A=1\nexport B=2\n": nil, "A='1\n": nil, "=1\n": nil,
	} {
		writeFiles(t, dir, map[string][]byte{"env": []byte(text)})
		got, err := readEnvFile(path)
		if (err != nil) != (want == nil) || want != nil && !slices.Equal(got, want) ||
			err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
	database := filepath.Join(dir, "x.db")
	for _, args := range [][]string{{"--env", path, "check"}, {"check", "--env", path},
		{"--env=" + path, "pki", "list"}, {"pki", "--env", path, "list"}} {
		for text, says := range map[string]string{
			"FLASKPASTE_DATABASE='" + database + "'\nGOMEMLIMIT=200MiB\n": "no database at " + database,
			"FLASKPASTE_MAXANON=1\n": "FLASKPASTE_MAXANON",
		} {
			writeFiles(t, dir, map[string][]byte{"env": []byte(text)})
			code, out, errs := flaskpaste([]string{"DATABASE=other.db", "MIN_FREE=0"}, args...)
			if code == 0 || !strings.Contains(out+errs, says) {
				t.Errorf("%v: exit code %d, %s%s", args, code, out, errs)
			}
		}
	}
}

// TestOperatorsPKI: the CA, certificates as one PEM each, the list, and a line that is taken down, all on a new
// database.
func TestOperatorsPKI(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	env := []string{"DATABASE=" + filepath.Join(dir, "flaskpaste.db"), "PKI_CA_PASSWORD=" + caPassword,
		"LOG_LEVEL=error", "PUBLIC_URL=https://paste.example"}
	pki := func(code int, says string, args ...string) string {
		t.Helper()
		got, out, errs := flaskpaste(env, append([]string{"pki"}, args...)...)
		if got != code || !strings.Contains(out+errs, says) || code != 0 && out != "" {
			t.Fatalf("pki %q: exit code %d, stdout %q, stderr %q; want %d with %q", args, got, out, errs, code, says)
		}
		return out
	}
	pki(0, "pki issue NAME --admin", "init")
	pki(exitFailed, "has a CA already", "init")
	out := pki(0, "level=INFO msg=audit audit=true event=issue_admin", "issue", "alice b", "--admin") // at any level
	if !strings.Contains(out, "curl --cert alice_b.pem -T - https://paste.example/\n") ||
		strings.Contains(out, "PRIVATE") {
		t.Errorf("it prints %s", out)
	}
	pki(0, `curl --cert './it'\''s a\:b.pem' -T`, "issue", "al", "-o", "./it's a:b.pem")
	stdout := pki(0, "-----BEGIN PRIVATE KEY-----", "issue", "al", "-o", "-")
	for _, text := range [][]byte{must(os.ReadFile("alice_b.pem")), []byte(stdout)} {
		pair, err := tls.X509KeyPair(text, text)
		if err != nil || len(pair.Certificate) != 1 || strings.Count(string(text), "-----BEGIN") != 2 ||
			!strings.HasPrefix(string(text), "-----BEGIN") {
			t.Errorf("the bundle is not key and certificate alone: %v: %s", err, text)
		}
	}
	for _, name := range []string{"flaskpaste.db", "alice_b.pem"} {
		if info := must(os.Stat(name)); info.Mode().Perm() != 0o600 || exists("-") {
			t.Errorf("%s: mode %v, a file called -: %v", name, info.Mode(), exists("-"))
		}
	}
	before := snapshot(t, dir)
	pki(exitFailed, "-o FILE", "issue", "alice b")
	pki(exitFailed, "no such file", "issue", "x", "-o", "none/x.pem")
	for _, name := range []string{"../a", "a\n", strings.Repeat("n", 65)} {
		pki(exitFailed, "the common name", "issue", name)
	}
	pki(exitUsage, "NAME", "issue", "")
	pki(exitFailed, "1 to 3660", "issue", "x", "--days", "0")
	if after := snapshot(t, dir); after != before {
		t.Errorf("refused commands changed files\n%s\n%s", before, after)
	}
	lines := strings.Split(strings.TrimSpace(pki(0, "", "list")), "\n")
	if len(lines) != 4 || strings.Join(strings.Fields(lines[0]), " ") != "SERIAL STATE RIGHTS ENDS OWNER NAME" {
		t.Fatalf("list: %q", lines)
	}
	der, _ := pem.Decode([]byte(stdout[strings.Index(stdout, "-----BEGIN CERTIFICATE"):]))
	serial := serialHex(must(x509.ParseCertificate(der.Bytes)).SerialNumber)
	colons := strings.ToUpper(strings.Trim(regexp.MustCompile("..").ReplaceAllString(serial, "$0:"), ":"))
	pki(exitUsage, "on or off", "admin", serial, "yes")
	pki(0, "admin on", "admin", colons, "on")
	pki(exitUsage, "keyCompromise", "revoke", serial, "--reason", "removeFromCRL")
	pki(exitFailed, "pki list", "revoke", strings.Repeat("1", 32))
	pki(0, "revoked "+serial, "revoke", "0x"+serial, "--reason", "superseded")
	pki(0, "already", "revoke", colons)
	pki(exitFailed, "it has no rights", "admin", serial, "on")
	pki(0, serial+"  revoked:superseded admin", "list")
	env[1] = "PKI_CA_PASSWORD=" + caPassword + "x"
	pki(exitConfig, "FLASKPASTE_PKI_CA_PASSWORD is wrong", "issue", "x")
	if exists("x.pem") {
		t.Error("a bundle without a certificate stays")
	}
}

// snapshot is the content of all files of a folder but SQLite's shared memory, which every reader has.
func snapshot(t testing.TB, dir string) (all string) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasSuffix(path, "-shm") {
			all += fmt.Sprintf("%s %x\n", path, sha256.Sum256(must(os.ReadFile(path))))
		}
		return err
	})
	return all
}

// TestCheck: what is wrong is said with what to do, and nothing is changed by looking.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	database := filepath.Join(dir, "flaskpaste.db")
	env := []string{"DATABASE=" + database, "MIN_FREE=0"}
	check := func(name string, want string, more ...string) {
		t.Helper()
		before := snapshot(t, dir)
		code, out, errs := flaskpaste(append(slices.Clone(env), more...), "check")
		if well := want == "all is well\n"; (code == 0) != well || well && out != want || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d, %q, %q; want %q", name, code, out, errs, want)
		}
		if after := snapshot(t, dir); after != before {
			t.Errorf("%s: check changed files\n%s\n%s", name, before, after)
		}
	}
	check("no database", "set FLASKPASTE_DATABASE")
	// A server that changes no file by itself.
	ts := startIn(t, dir, append([]string{"CHECKPOINT=off", "SWEEP=1h"}, issuing...)...)
	ts.create("x")
	check("beside a server", "all is well\n")
	ts.issued("root", 13, true)
	check("an admin's certificate ends", "the certificate of the admin root ends on ")
	must(flaskpaste3(env, "backup", filepath.Join(dir, "saved")))
	root := ts.issued("root", 15, true)
	ts.pki("revoke", root.serial())
	ts.stop()
	write := func(query string) {
		db := must(sql.Open("sqlite", dsn(database, "rw")))
		defer db.Close()
		must(db.Exec(query))
	}
	write("DELETE FROM certs")
	for want, setting := range map[string]string{
		"FLASKPASTE_PKI_CA_PASSWORD is wrong": "PKI_CA_PASSWORD=" + caPassword + "x", "short": "PKI_CA_PASSWORD=short",
		"FLASKPASTE_PKI_CA_PASSWORD is not set": "PKI_ENABLED=1", "make room": "MIN_FREE=900000GiB",
		"FLASKPASTE_PROXY_SECRET is not": "TRUSTED_PROXIES=10.0.0.0/8",
	} {
		check(setting, want, setting)
	}
	os.Chmod(database, 0o640)
	check("readable by others", "chmod 600")
	os.Chmod(database, 0o600)
	ca := must(newCA(time.Now().AddDate(1, 0, 0)))
	sealed := must(sealCAKey(ca.key, caPassword, ca.cert))
	write(fmt.Sprintf("UPDATE authority SET certificate = x'%x', key = x'%x'", ca.cert.Raw, sealed))
	check("a CA of next year", "not valid yet")
	write("DELETE FROM authority")
	check("mended", "all is well\n")
	// After a kill -9 the log holds what was acknowledged; a backup put in its place must not get it.
	p := launch(t, dir, append(env, "CHECKPOINT=off")...) // or the first sweep may empty it
	here := &testServer{t: t, url: p.url}
	here.create("acknowledged")
	p.kill()
	check("after a kill -9", "all is well\n")
	must(0, os.Rename(filepath.Join(dir, "saved"), database))
	check("a backup beside an old log", "remove "+database+"-wal and "+database+"-shm")
	os.Remove(database + "-wal")
	os.Remove(database + "-shm")
	check("as it says", "the certificate of the admin root ends")
	f := must(os.OpenFile(database, os.O_RDWR, 0))
	must(f.WriteAt(make([]byte, 3*pageSize), 2*pageSize))
	f.Close()
	check("damaged", "damaged")
}

// flaskpaste3 is flaskpaste for must.
func flaskpaste3(env []string, args ...string) (string, error) {
	code, out, errs := flaskpaste(env, args...)
	if code != 0 {
		return out, fmt.Errorf("%v: exit code %d, %s", args, code, errs)
	}
	return out, nil
}

// TestBackupAndHealth: beside a running server, on a TCP and a Unix socket.
func TestBackupAndHealth(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	p := launch(t, dir, "DATABASE="+filepath.Join(dir, "flaskpaste.db"), "LISTEN=127.0.0.1:0,unix:"+socket,
		"URL_PREFIX=/p")
	here := &testServer{t: t, url: p.url + "/p"}
	kept, burning := here.create(pattern(3*chunkSize)), here.create("gone after one read", "X-Burn-After-Read: 1")
	env := []string{"DATABASE=" + filepath.Join(dir, "flaskpaste.db"), "URL_PREFIX=/p"}
	for _, listen := range []string{strings.TrimPrefix(p.url, "http://"), "unix:" + socket} {
		must(flaskpaste3(append(env, "LISTEN="+listen), "healthcheck"))
	}
	if info := must(os.Stat(socket)); info.Mode().Perm() != 0o660 {
		t.Errorf("the socket has mode %v", info.Mode())
	}
	if _, err := flaskpaste3([]string{"LISTEN=unix:" + socket}, "healthcheck"); err == nil ||
		!strings.Contains(err.Error(), "404") {
		t.Errorf("without the prefix: %v", err)
	}
	for _, to := range []string{filepath.Join(t.TempDir(), "flaskpaste.db"), "-"} {
		copied := must(flaskpaste3(env, "backup", to))
		if to == "-" {
			to = filepath.Join(t.TempDir(), "flaskpaste.db")
			must(0, os.WriteFile(to, []byte(copied), 0o600))
		}
		if _, err := flaskpaste3(env, "backup", to); err == nil || !strings.Contains(err.Error(), "exists") {
			t.Errorf("over a file: %v", err)
		}
		if info := must(os.Stat(to)); info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v", info.Mode())
		}
		restored := startIn(t, filepath.Dir(to))
		if a := restored.get("/"+kept.ID+"/raw").want(200, ""); sum256(a.body) != kept.SHA256 {
			t.Error("the content is another")
		}
		restored.get("/"+burning.ID).want(404, "")
		restored.stored(1)
	}
	if left := must(filepath.Glob(filepath.Join(dir, "*.copy-*"))); len(left) != 0 || exists("-") {
		t.Errorf("left: %v", left)
	}
}

// TestRootOnAnothersDatabase: root's commands on the database of another user's server leave every file to that user.
func TestRootOnAnothersDatabase(t *testing.T) {
	if os.Geteuid() != 0 {
		unable(t, "needs root, to become another user")
	}
	const user = 65532
	dir := must(os.MkdirTemp("/var/tmp", "flaskpaste-owner")) // the parents of t.TempDir are root's alone
	t.Cleanup(func() { os.RemoveAll(dir) })
	exe, database := filepath.Join(dir, "flaskpaste"), filepath.Join(dir, "flaskpaste.db")
	must(0, os.WriteFile(exe, must(os.ReadFile(must(os.Executable()))), 0o755))
	must(0, os.Chmod(exe, 0o755)) // another test may have run a server in this process, with its umask
	must(0, os.Chown(dir, user, user))
	env := []string{"DATABASE=" + database, "PKI_CA_PASSWORD=" + caPassword}
	for _, running := range []bool{false, true} {
		cmd := exec.Command(exe, "serve")
		cmd.Env = append(environment([]string{"LISTEN=127.0.0.1:0", env[0]}), "RUN_AS_FLASKPASTE=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		logs := new(lockedBuffer)
		cmd.Stderr = logs
		must(0, cmd.Start())
		end := func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() }
		t.Cleanup(func() { cmd.Process.Kill() })
		waitLog(&process{logs: logs}, "msg=listening")
		if !running { // the first time root finds it closed, the second time open
			end()
			must(flaskpaste3(env, "pki", "init"))
			continue
		}
		must(flaskpaste3(env, "pki", "issue", "x", "-o", filepath.Join(t.TempDir(), "x")))
		for _, path := range must(filepath.Glob(database + "*")) {
			if owner := must(os.Stat(path)).Sys().(*syscall.Stat_t).Uid; owner != user {
				t.Errorf("%s belongs to %d", path, owner)
			}
		}
		end()
		if code := cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("exit code %d: %s", code, logs)
		}
	}
}
