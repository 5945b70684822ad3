package main

// The real proxies, started from the very files in deploy/ with ports and paths put in, driven by curl with
// certificates by openssl. Whatever a client sends along, the server must see what the handshake proved and nothing
// else. And the scripts of deploy/ that can be tried without a machine of their own.

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// front is a server behind a proxy, and the people who call it.
type front struct {
	t      *testing.T
	proxy  string
	dir    string
	port   string
	env    []string // of the operator's commands
	server *process
	people map[string]*holder // beside their files NAME.pem (certificate and key)
}

// proxies are what is in deploy/: the file, what is put in for what, and how it is run.
var proxies = map[string]struct {
	file    string
	put     map[string]string
	command func(dir, config string) []string
}{
	"nginx": {"nginx.conf", map[string]string{"listen 443 ssl": "listen 127.0.0.1:PORT ssl",
		"listen [::]:443 ssl": "listen [::1]:PORT ssl",
		"paste.example.org":   "localhost", "/etc/nginx/flaskpaste-secret.conf": "DIR/secret.conf"},
		func(dir, config string) []string {
			whole := "pid nginx.pid; error_log stderr warn; daemon off; master_process off;\nevents {}\nhttp {" +
				"client_body_temp_path t1; " +
				"proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\ninclude " + config + ";\n}\n"
			must(0, os.WriteFile(filepath.Join(dir, "whole.conf"), []byte(whole), 0o600))
			return []string{"-p", dir, "-c", filepath.Join(dir, "whole.conf"), "-e", "stderr"}
		}},
	"haproxy": {"haproxy.cfg", map[string]string{"bind :::443 v4v6": "bind 127.0.0.1:PORT,[::1]:PORT"},
		func(_, config string) []string { return []string{"-db", "-f", config} }},
	"caddy": {"Caddyfile", map[string]string{"https://paste.example.org:443": "https://localhost:PORT",
		"admin off": "admin off\n\tdefault_bind 127.0.0.1 ::1"},
		func(_, config string) []string { return []string{"run", "--adapter", "caddyfile", "--config", config} }},
	"apache2": {"apache.conf", map[string]string{"*:443": "127.0.0.1:PORT [::1]:PORT", "paste.example.org": "localhost",
		"${APACHE_LOG_DIR}/flaskpaste.log": "/dev/stderr", "/etc/apache2/flaskpaste-secret.conf": "DIR/apache-secret.conf"}, runApache},
}

// runApache gives apache.conf the modules that its own a2enmod line names and those that Debian loads anyway. One
// process: it has no children that would outlive the test.
func runApache(dir, config string) []string {
	whole := "ServerRoot " + dir + "\nPidFile " + dir + "/pid\nErrorLog /dev/stderr\nServerName localhost\n" +
		"Mutex pthread\nUser www-data\nGroup www-data\n"
	for m := range strings.FieldsSeq("mpm_event authz_core socache_shmcb ssl headers proxy proxy_http reqtimeout") {
		whole += "LoadModule " + m + "_module /usr/lib/apache2/modules/mod_" + m + ".so\n"
	}
	text := string(must(os.ReadFile(config)))
	_, here, _ := strings.Cut(text, "<VirtualHost ")
	here, _, _ = strings.Cut(here, ">")
	for address := range strings.FieldsSeq(here) {
		whole += "Listen " + address + "\n"
	}
	must(0, os.WriteFile(filepath.Join(dir, "whole.conf"), []byte(whole+text), 0o600))
	return []string{"-X", "-f", filepath.Join(dir, "whole.conf")}
}

// behind starts a server and the proxy before it.
func behind(t *testing.T, proxy string, env ...string) *front {
	program := need(t, proxy)
	need(t, "curl")
	p := &front{t: t, proxy: proxy, dir: t.TempDir(), people: map[string]*holder{}}
	mustOpenssl(t, p.dir, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
		"privkey.pem", "-out", "fullchain.pem",
		"-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1")
	writeFiles(t, p.dir, map[string][]byte{"haproxy.pem": slices.Concat(p.read("fullchain.pem"), p.read("privkey.pem")),
		"secret.conf":        fmt.Appendf(nil, "proxy_set_header X-Proxy-Secret %q;\n", proxySecret),
		"apache-secret.conf": []byte("Define FLASKPASTE_PROXY_SECRET " + proxySecret + "\n")})
	database := "DATABASE=" + filepath.Join(p.dir, "flaskpaste.db")
	p.env = []string{database, "PKI_CA_PASSWORD=" + caPassword}
	p.makePeople()
	p.server = launch(t, p.dir, append(append([]string{"TRUSTED_PROXIES=127.0.0.1"}, env...), append(issuing,
		database)...)...)
	p.start(program, proxy)
	return p
}

func (p *front) read(name string) []byte { return must(os.ReadFile(filepath.Join(p.dir, name))) }

// makePeople gives each a certificate: of this server, good, revoked or ended, and of nobody that it knows.
func (p *front) makePeople() {
	t := p.t
	ts := startAt(t, p.dir, -10*24*time.Hour,
		issuing...) // the CA is ten days old, so that a certificate of it can have ended
	ca, store := ts.ca, ts.store
	by := func(from time.Time) func(csr string) string {
		return func(csr string) string {
			request := must(parseCSR(must(os.ReadFile(csr))))
			c := &certificate{name: request.Subject.CommonName, vouched: true}
			der := must(issueLeaf(ca, request.PublicKey, c, 2, from, ""))
			must(0, store.addCertificate(c, "", ""))
			return string(pemOf("CERTIFICATE", der))
		}
	}
	p.person("issued", "/CN=alice", by(time.Now()))
	p.person("revoked", "/CN=alice", by(time.Now()))
	p.person("ended", "/CN=alice", by(time.Now().AddDate(0, 0, -5)))
	ts.stop()
	must(flaskpaste3(p.env, "pki", "revoke", p.people["revoked"].serial()))
	p.person("self-signed", "/CN=alice", func(csr string) string {
		return mustOpenssl(t, p.dir, "x509", "-req", "-in", csr, "-key", "self-signed.key", "-days", "2")
	})
	mustOpenssl(t, p.dir, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
		"evil.key", "-out", "evil.pem", "-days", "2",
		"-subj", "/CN=FlaskPaste CA")
	// A server's certificate shown by a client: another CA of our CA's name, another purpose, ended, a negative
	// serial. Nobody's business but ours.
	writeFiles(t, p.dir, map[string][]byte{"odd.ext": []byte("extendedKeyUsage=serverAuth\nkeyUsage=keyEncipherment\n")})
	p.person("odd", "/CN=alice", func(csr string) string {
		return mustOpenssl(t, p.dir, "x509", "-req", "-in", csr, "-CA", "evil.pem", "-CAkey", "evil.key", "-set_serial",
			"-5", "-days", "-1", "-extfile", "odd.ext")
	})
	long := "/CN=alice" + strings.Repeat("/OU="+strings.Repeat("o", 60), 24)
	mustOpenssl(t, p.dir, "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "large.key", "-out", "large.csr",
		"-subj", long)
	p.person("large", "", func(csr string) string {
		return mustOpenssl(t, p.dir, "x509", "-req", "-in", csr, "-key", "large.key", "-days", "2")
	})
}

// person lets openssl make a key and a request (unless they are there), and sign turn it into a certificate.
func (p *front) person(name, subject string, sign func(csr string) string) {
	p.t.Helper()
	if subject != "" {
		mustOpenssl(p.t, p.dir, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
			name+".key", "-out", name+".csr", "-subj", subject)
	}
	text := sign(filepath.Join(p.dir, name+".csr"))
	text = text[strings.Index(text, "-----BEGIN"):]
	writeFiles(p.t, p.dir, map[string][]byte{name + ".pem": append([]byte(text), p.read(name+".key")...)})
	p.people[name] = &holder{der: derOf([]byte(text))}
}

// start runs the proxy from its file, and waits until it passes requests on.
func (p *front) start(program, proxy string) {
	p.t.Helper()
	tool := proxies[proxy]
	text := string(must(os.ReadFile(filepath.Join("deploy", tool.file))))
	logs := new(lockedBuffer)
	for range 3 { // the kernel's free port may be taken by somebody else before the proxy takes it
		l := must(net.Listen("tcp", "127.0.0.1:0"))
		_, p.port, _ = net.SplitHostPort(l.Addr().String())
		l.Close()
		pairs := []string{"127.0.0.1:5000", strings.TrimPrefix(p.server.url, "http://"), "/etc/ssl/flaskpaste/", p.dir + "/"}
		for old, value := range tool.put {
			if !strings.Contains(text, old) {
				p.t.Fatalf("%s has no %q", tool.file, old)
			}
			pairs = append(pairs, old, strings.NewReplacer("PORT", p.port, "DIR", p.dir).Replace(value))
		}
		config := filepath.Join(p.dir, tool.file)
		put := strings.NewReplacer(pairs...).Replace(text) // in one pass
		writeFiles(p.t, p.dir, map[string][]byte{tool.file: []byte(put)})
		cmd := exec.Command(program, tool.command(p.dir, config)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "FLASKPASTE_PROXY_SECRET=" + proxySecret}
		cmd.Stdout, cmd.Stderr, cmd.Dir = logs, logs, p.dir
		must(0, cmd.Start())
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		p.t.Cleanup(func() {
			cmd.Process.Kill()
			<-ended
			if p.t.Failed() {
				p.t.Logf("%s: %.3000s", proxy, logs)
			}
		})
		for begun, running := time.Now(), true; running && time.Since(begun) < 30*time.Second; {
			if status, _, _ := p.try("", "/health"); status == "200" {
				return
			}
			select {
			case <-ended:
				running = false
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	p.t.Fatalf("%s does not start: %s", proxy, logs)
}

// try runs curl, as somebody ("": nobody), from 127.0.0.2, so that the client's address is not the proxy's.
func (p *front) try(who, path string, args ...string) (status, body string, err error) {
	args = append([]string{"-sS", "--max-time", "60", "--cacert", filepath.Join(p.dir, "fullchain.pem"), "-w",
		"\n%{http_code}"}, args...)
	if who != "" {
		args = append(args, "--cert", filepath.Join(p.dir, who+".pem"))
	}
	url := "https://localhost:" + p.port + path
	if strings.HasPrefix(path, "https:") {
		url = path
	} else {
		args = append(args, "--interface", "127.0.0.2")
	}
	cmd := exec.Command("curl", append(args, url)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir}
	out, err := cmd.CombinedOutput()
	i := strings.LastIndexByte(string(out), '\n')
	if err != nil && (i < 0 || string(out[i+1:]) == "000") { // with a status, it is an answer that came early
		return "", "", fmt.Errorf("%w: %s", err, out)
	}
	return string(out[i+1:]), string(out[:i]), nil
}

func (p *front) as(who, path string, args ...string) (status, body string) {
	p.t.Helper()
	status, body, err := p.try(who, path, args...)
	if err != nil {
		p.t.Errorf("curl as %q %.100s: %v", who, args, err)
	}
	return status, body
}

// forged is what a client may try to pass for a proxy's word on somebody else's certificate and another address.
func forged(h *holder, more ...string) (args []string) {
	for _, name := range []string{"X-SSL-Client-SHA1", "x-ssl-client-sha1", "X_SSL_Client_SHA1", "X-SSL_Client-SHA1",
		"X-SSL-Client-SHA256", "X-SSL-Client-Cert",
		"X-SSL-Client-Verify", "X-SSL-Client-S-DN", "X-Client-Cert", "Client-Cert", "SSL-Client-Cert"} {
		args = append(args, "-H", name+": "+h.sha1())
	}
	for _, name := range []string{"X-Forwarded-For", "X_Forwarded_For", "X-Real-IP", "Forwarded", "True-Client-IP",
		"CF-Connecting-IP", "X-Client-IP"} {
		args = append(args, "-H", name+": 6.6.6.6")
	}
	return append(append(args, "-H", "X-Forwarded-For: 7.7.7.7", "-H", "X-Proxy-Secret: guess", "-H",
		"X_Proxy_Secret: "+proxySecret,
		"-H", "X-Forwarded-Proto: gopher"), more...)
}

func TestNginx(t *testing.T)   { through(t, "nginx") }
func TestHAProxy(t *testing.T) { through(t, "haproxy") }
func TestCaddy(t *testing.T)   { through(t, "caddy") }
func TestApache(t *testing.T)  { through(t, "apache2") }

func through(t *testing.T, proxy string) {
	t.Parallel() // each waits for its own proxy
	p := behind(t, proxy)
	p.attack()
	p.bodies()
}

// attack is the whole of what must hold, whichever proxy leads to the server.
func (p *front) attack() {
	t := p.t
	everybody := map[string]string{"": "401", "issued": "200", "self-signed": "200", "odd": "200", "large": "200",
		"revoked": "403 certificate_revoked",
		"ended":   "403 certificate_expired"}
	if p.proxy == "apache2" { // ends the handshake where a certificate has ended
		delete(everybody, "ended")
		delete(everybody, "odd")
	}
	for who, want := range everybody {
		for name, extra := range map[string][]string{
			"plain": nil, "HTTP/1.1, TLS 1.2": {"--http1.1", "--tls-max", "1.2"}, "forged": forged(p.people["issued"]),
			"forged, HTTP/1.1, repeated": forged(p.people["issued"], forged(p.people["issued"], "--http1.1")...),
			"the proxy's headers named in Connection": forged(p.people["issued"], "--http1.1", "-H",
				"Connection: close, X-SSL-Client-SHA1, X-Proxy-Secret, X-Forwarded-For, X-Forwarded-Proto"),
		} {
			status, body := p.as(who, "/pastes", extra...)
			if code, reason, _ := strings.Cut(want, " "); status != code || !strings.Contains(body, reason) {
				t.Errorf("%q, %s: status %s, %s; want %s", who, name, status, body, want)
			}
		}
	}
	// Who creates is the owner: the fingerprint of the certificate that was shown, and nobody else's. Links have
	// scheme, host and port.
	for _, who := range []string{"", "issued", "self-signed", "odd", "large"} {
		if _, ok := everybody[who]; !ok {
			continue
		}
		for _, extra := range [][]string{nil, forged(p.people["revoked"], "--http1.1")} {
			head := filepath.Join(p.dir, "head")
			status, body := p.as(who, "/", append([]string{"-d", "hello " + who + strings.Repeat(".", 15_000), "-D", head},
				extra...)...)
			got := (&answer{body: body}).field
			if owner := got("owner"); status != "201" || who == "" && owner != "" || who != "" &&
				owner != p.people[who].sha256() {
				t.Errorf("%q creates: status %s, %.300s", who, status, body)
			}
			if link := got("link"); link != "https://localhost:"+p.port+"/"+got("id")+"/raw" {
				t.Errorf("link %q", link)
			}
			answered := strings.ToLower(string(p.read("head")))
			if !strings.Contains(answered, "strict-transport-security: max-age=63072000") || strings.Contains(answered,
				proxySecret) {
				t.Errorf("headers of the answer: %s", answered)
			}
		}
	}
	url, resolve := "https://[::1]:"+p.port+"/pastes", "-6"
	if p.proxy == "caddy" { // wants the name that the handshake named, and no address can be one
		url, resolve = "https://localhost:"+p.port+"/pastes", "--resolve=localhost:"+p.port+":::1"
	}
	if status, body := p.as("issued", url, strings.Split(resolve, "=")...); status != "200" || !strings.Contains(body,
		`"count"`) {
		t.Errorf("by IPv6: status %s, %s", status, body)
	}
	// A certificate without its key proves nothing.
	writeFiles(t, p.dir, map[string][]byte{"stolen.pem": append(pemOf("CERTIFICATE", p.people["issued"].der),
		p.read("self-signed.key")...)})
	if status, body, err := p.try("stolen", "/pastes"); err == nil {
		t.Errorf("a certificate without its key: %s %s", status, body)
	}
	// Large bodies: what the server allows goes through, what it does not is its own 413.
	for _, tc := range []struct {
		name   string
		size   int
		who    string
		status string
	}{{"50 MiB", 50 << 20, "issued", "201"}, {"a byte over", 50<<20 + 1, "issued", "413"}, {"over the proxy's limit",
		60 << 20, "issued", "413"}, {"an anonymous 4 MiB", 4 << 20, "", "413"}} {
		if testing.Short() && tc.size > 5<<20 {
			continue
		}
		file := filepath.Join(p.dir, "body")
		writeFiles(t, p.dir, map[string][]byte{"body": nil})
		must(0, os.Truncate(file, int64(tc.size)))
		for _, version := range []string{"--http1.1", "--http2"} {
			status, body, err := p.try(tc.who, "/", "-T", file, version)
			for try := 1; try < 3 && (err != nil ||
				status == "502"); try++ { // the reset of who stops reading may overtake its answer
				status, body, err = p.try(tc.who, "/", "-T", file, version)
			}
			if status != tc.status {
				t.Errorf("%s, %s: status %s, %.300s, %v", tc.name, version, status, body, err)
			}
		}
	}
	// The address is curl's, whatever it says.
	logs := p.server.logs.String()
	if strings.Contains(logs, "6.6.6.6") || strings.Contains(logs, "7.7.7.7") || !strings.Contains(logs,
		"client=127.0.0.2") || strings.Contains(logs, proxySecret) {
		t.Errorf("client addresses in the log: %.2000s", logs)
	}
	p.resumed()
}

// resumed: a TLS session that goes on without showing the certificate again keeps its identity, and is judged again.
func (p *front) resumed() {
	path := filepath.Join(p.dir, "late.pem")
	must(flaskpaste3(p.env, "pki", "issue", "late", "-o", path))
	pair := must(tls.LoadX509KeyPair(path, path))
	resumed := false
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: x509.NewCertPool(),
			MaxVersion:           version,
			ClientSessionCache:   tls.NewLRUClientSessionCache(4),
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }}}
		transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(p.read("fullchain.pem"))
		get := func() (int, bool) {
			res := must((&http.Client{Transport: transport}).Get("https://localhost:" + p.port + "/pastes"))
			defer res.Body.Close()
			io.Copy(io.Discard, res.Body)
			return res.StatusCode, res.TLS.DidResume
		}
		want := map[uint16]int{tls.VersionTLS12: 200, tls.VersionTLS13: 403}[version]
		for try := 0; ; try++ {
			status, did := get()
			if status != want {
				p.t.Errorf("%x, resumed %v: status %d, want %d", version, did, status, want)
			}
			if resumed = resumed || did; did || try == 5 { // not every proxy resumes in every version
				break
			}
		}
		if version == tls.VersionTLS12 { // revoked while its session goes on; TLS 1.3 begins revoked
			must(flaskpaste3(p.env, "pki", "revoke", serialHex(pair.Leaf.SerialNumber)))
			if status, did := get(); status != 403 {
				p.t.Errorf("%x: revoked, resumed %v: status %d", version, did, status)
			}
		}
	}
	if !resumed {
		p.t.Error("no session was ever resumed")
	}
}

// TestFromNothingToCurl is the page on certificates: two commands, then the line that the second one prints, through
// a proxy.
func TestFromNothingToCurl(t *testing.T) {
	t.Parallel()
	p := behind(t, "nginx", "PUBLIC_URL=")
	cmd := program(p.dir, []string{"FLASKPASTE_" + p.env[0], "FLASKPASTE_" + p.env[1],
		"FLASKPASTE_PUBLIC_URL=https://localhost:" + p.port}, "pki", "issue", "alice b", "--admin")
	printed := strings.Split(strings.TrimSpace(string(must(cmd.Output()))), "\n")
	sh := exec.Command("sh", "-c", printed[len(printed)-1])
	sh.Dir = p.dir
	sh.Env = []string{"PATH=" + os.Getenv("PATH"), "CURL_CA_BUNDLE=fullchain.pem"}
	if link, err := sh.Output(); err != nil || !strings.HasPrefix(string(link), "https://localhost:"+p.port+"/") {
		t.Fatalf("%s: %v: %s", printed[len(printed)-1], err, link)
	}
	if status, body := p.as("alice_b", "/pastes?owner=all"); status != "200" ||
		(&answer{body: body}).field("count") != "1" {
		t.Errorf("the admin's list: %s %s", status, body)
	}
}

// TestBackupScript: what it makes is checked and kept whatever the clock says, the newest stay, and trouble is exit 1
// with a line.
func TestBackupScript(t *testing.T) {
	t.Parallel()
	dir, out := t.TempDir(), t.TempDir()
	ts := startIn(t, dir)
	ts.create("kept")
	bin := t.TempDir()
	exe := must(os.Executable())
	script := fmt.Sprintf("#!/bin/sh\nRUN_AS_FLASKPASTE=1 exec %s \"$@\"\n", exe)
	must(0, os.WriteFile(filepath.Join(bin, "flaskpaste"), []byte(script), 0o700))
	run := func() (string, int) {
		cmd := exec.Command("/bin/sh", must(filepath.Abs("deploy/backup.sh")), out, "2")
		cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin", "FLASKPASTE_DATABASE=" + ts.cfg.database,
			"FLASKPASTE_MIN_FREE=0"}
		text, _ := cmd.CombinedOutput()
		return string(text), cmd.ProcessState.ExitCode()
	}
	kept := func() []string { return must(filepath.Glob(filepath.Join(out, "*.db"))) }
	for _, future := range []string{"flaskpaste-20380101T000000Z.db", "flaskpaste-20380102T000000Z.db"} {
		writeFiles(t, out, map[string][]byte{future: []byte("of a clock that was wrong")})
	}
	text, code := run()
	if code == 0 || !strings.Contains(text, "2038") || len(kept()) != 3 { // the one just made must not be what goes
		t.Errorf("older backups of the future: exit code %d, %s, kept %v", code, text, kept())
	}
	for _, path := range kept() {
		os.Remove(path)
	}
	if text, code := run(); code != 0 {
		t.Errorf("exit code %d: %s", code, text)
	}
	if text, code := func() (string, int) { ts.stop(); os.Remove(ts.cfg.database); return run() }(); code == 0 ||
		!regexp.MustCompile(`no database`).MatchString(text) {
		t.Errorf("no database: exit code %d, %s", code, text)
	}
}

// pausing is a body of some lines with a pause between two of them: make | curl -T -
func pausing(lines int, pause time.Duration) io.Reader {
	r, w := io.Pipe()
	go func() {
		for i := range lines {
			if i > 0 {
				time.Sleep(pause)
			}
			io.WriteString(w, "cc -c x.c\n")
		}
		w.Close()
	}()
	return r
}

// largeKey takes a second or more to find.
var largeKey = sync.OnceValue(func() []byte { return must(exec.Command("openssl", "genrsa", "4096").Output()) })

// bodies sends what people send: bodies of every size around the proxies' buffers beside certificates as large as real
// ones are, and bodies that pause as a build does: for 40 s with -prove.
func (p *front) bodies() {
	t, base := p.t, "https://localhost:"+p.port+"/"
	writeFiles(t, p.dir, map[string][]byte{"rsa4096.key": largeKey()})
	mustOpenssl(t, p.dir, "req", "-new", "-key", "rsa4096.key", "-out", "rsa4096.csr", "-subj", "/CN=alice")
	p.person("rsa4096", "", func(csr string) string {
		_, certificate := p.as("", "/csr", "--data-binary", "@"+csr)
		return certificate
	})
	builds := map[int]time.Duration{2: time.Second} // lines, and the time between two
	if *prove != "" {
		builds = map[int]time.Duration{14: time.Second, 2: 40 * time.Second}
	}
	var building sync.WaitGroup // they wait, and little else
	defer building.Wait()
	for _, version := range []string{"--http1.1", "--http2"} {
		for lines, pause := range builds {
			building.Go(func() {
				cmd := exec.Command("curl", "-sS", "--max-time", "90", "-k", version, "-T", "-", base)
				cmd.Stdin = pausing(lines, pause)
				if link, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(link), base) {
					t.Errorf("%s, %d lines, a pause of %s: %s, %v", version, lines, pause, link, err)
				}
			})
		}
		for _, who := range []string{"", "rsa4096", "large"} {
			for _, size := range []int{1, 15, 16, 17, 32, 200} {
				writeFiles(t, p.dir, map[string][]byte{"body": []byte(pattern(size * 1000))})
				status, body := p.as(who, "/", version, "-H", "Expect:", "--data-binary", "@"+filepath.Join(p.dir, "body"))
				owner := ""
				if who != "" {
					owner = p.people[who].sha256()
				}
				if status != "201" || (&answer{body: body}).field("owner") != owner {
					t.Errorf("%s, %q, %d kB: status %s, %.300s", version, who, size, status, body)
				}
			}
		}
	}
}
