package main

// Certificates through the real proxies, started from the very files in deploy/ with ports and paths put in, driven by curl with
// certificates by openssl. Whatever a client sends along, the server must see what the handshake proved and nothing else.

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
	"slices"
	"strings"
	"testing"
	"time"
)

// front is a server behind a proxy, or with TLS of its own, and the people who call it.
type front struct {
	t      *testing.T
	dir    string
	port   string
	curl   string
	server *process
	people map[string]*holder // beside their files NAME.pem (certificate and key)
	secret string
	direct bool // no proxy
}

// freePort asks the kernel. Somebody else may take it before the proxy does: who uses it tries again with another.
func freePort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// newFront makes the people and starts the server; env is the server's.
func newFront(t *testing.T, env ...string) *front {
	p := &front{t: t, dir: t.TempDir(), curl: need(t, "curl"), people: map[string]*holder{}, secret: testProxySecret}
	need(t, "openssl")
	database := filepath.Join(p.dir, "flaskpaste.db")
	serverCert(t, filepath.Join(p.dir, "fullchain.pem"), filepath.Join(p.dir, "privkey.pem"), 1)
	writeFile(t, filepath.Join(p.dir, "haproxy.pem"), slices.Concat(must(os.ReadFile(filepath.Join(p.dir, "fullchain.pem"))), must(os.ReadFile(filepath.Join(p.dir, "privkey.pem")))))

	// The CA is ten days old, so that a certificate of it can have expired.
	if err := createDatabase(database); err != nil {
		t.Fatal(err)
	}
	cfg := must(loadConfig([]string{"FLASKPASTE_DATABASE=" + database}))
	st := must(openExisting(cfg))
	ca := must(newCA("FlaskPaste CA", time.Now().AddDate(0, 0, -10)))
	if err := st.setAuthority(ca.cert.Raw, must(sealCAKey(ca.key, testCAPassword, ca.cert))); err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]time.Time{"issued": time.Now(), "revoked": time.Now(), "expired": time.Now().AddDate(0, 0, -5)} {
		p.byOpenssl(name, func(csr string) string {
			request, cn, err := parseCSR(must(os.ReadFile(csr)))
			if err != nil {
				t.Fatal(err)
			}
			der := must(issueLeaf(ca, request.PublicKey, cn, 2, at, ""))
			c := &certificate{vouched: true}
			if err := c.describe(der, at.Unix()); err != nil {
				t.Fatal(err)
			}
			if err := st.addCertificate(c, "", noWork); err != nil {
				t.Fatal(err)
			}
			return string(pemOf("CERTIFICATE", der))
		})
	}
	if err := st.close(); err != nil {
		t.Fatal(err)
	}
	must(operatorIn(database, "revoke", p.people["revoked"].serial()))
	p.byOpenssl("self-signed", func(csr string) string {
		return mustOpenssl(t, p.dir, "x509", "-req", "-in", csr, "-key", "self-signed.key", "-days", "2")
	})
	mustOpenssl(t, p.dir, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "evil.key", "-out", "evil.pem", "-days", "2", "-subj", "/CN=FlaskPaste CA")
	p.byOpenssl("wrong CA", func(csr string) string {
		return mustOpenssl(t, p.dir, "x509", "-req", "-in", csr, "-CA", "evil.pem", "-CAkey", "evil.key", "-CAcreateserial", "-days", "2")
	})
	// A server's certificate shown by a client: another purpose, expired, and still nobody's business but the server's.
	p.byOpenssl("old and odd", func(csr string) string {
		writeFile(t, filepath.Join(p.dir, "odd.ext"), []byte("extendedKeyUsage=serverAuth\nkeyUsage=keyEncipherment\n"))
		return mustOpenssl(t, p.dir, "x509", "-req", "-in", csr, "-CA", "evil.pem", "-CAkey", "evil.key", "-CAcreateserial", "-days", "-1", "-extfile", "odd.ext")
	})
	p.server = launch(t, p.dir, append([]string{"DATABASE=" + database, "PKI_ENABLED=1", "PKI_CA_PASSWORD=" + testCAPassword, "RATE_AUTH=0", "RATE_CREATE=0", "RATE_BYTES=0", "POW_DIFFICULTY=0", "DEDUP_MAX=0", "DEDUP_ALL=0"}, env...)...)
	return p
}

// byOpenssl lets openssl make a key and a request, and sign turn it into a certificate.
func (p *front) byOpenssl(name string, sign func(csr string) string) {
	p.t.Helper()
	mustOpenssl(p.t, p.dir, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name+".key", "-out", name+".csr", "-subj", "/CN=alice")
	text := sign(filepath.Join(p.dir, name+".csr"))
	text = text[strings.Index(text, "-----BEGIN"):]
	writeFile(p.t, filepath.Join(p.dir, name+".pem"), append([]byte(text), must(os.ReadFile(filepath.Join(p.dir, name+".key")))...))
	p.people[name] = &holder{der: derOf([]byte(text))}
}

// start runs the proxy from its file in deploy/ with what is put in, and waits until it passes requests on.
func (p *front) start(file string, put map[string]string, command func(config string) *exec.Cmd) {
	p.t.Helper()
	text := string(must(os.ReadFile(filepath.Join("deploy", file))))
	put["127.0.0.1:5000"] = strings.TrimPrefix(p.server.url, "http://")
	put["/etc/ssl/flaskpaste/"] = p.dir + "/"
	logs := new(lockedBuffer)
	for range 3 {
		p.port = freePort(p.t)
		var pairs []string
		for old, value := range put {
			if !strings.Contains(text, old) {
				p.t.Fatalf("%s has no %q", file, old)
			}
			pairs = append(pairs, old, strings.ReplaceAll(value, "PORT", p.port))
		}
		config := filepath.Join(p.dir, file)
		writeFile(p.t, config, []byte(strings.NewReplacer(pairs...).Replace(text))) // in one pass: a port may begin with 5000 too
		cmd := command(config)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "FLASKPASTE_PROXY_SECRET=" + p.secret}
		cmd.Stdout, cmd.Stderr, cmd.Dir = logs, logs, p.dir
		if err := cmd.Start(); err != nil {
			p.t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		p.t.Cleanup(func() {
			cmd.Process.Kill()
			<-ended
		})
		for begun, running := time.Now(), true; running && time.Since(begun) < 20*time.Second; {
			if out, _ := p.call("-s", "https://localhost:"+p.port+"/health"); strings.Contains(out, "healthy") {
				p.t.Cleanup(func() {
					if p.t.Failed() {
						p.t.Logf("%s: %s", file, logs)
					}
				})
				return
			}
			select {
			case <-ended:
				running = false
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	p.t.Fatalf("%s does not start: %s", file, logs)
}

// call runs curl from 127.0.0.2, so that the client's address is not the proxy's. The last line is the status.
func (p *front) call(args ...string) (string, error) {
	cmd := exec.Command(p.curl, append([]string{"-sS", "--max-time", "30", "--interface", "127.0.0.2", "--cacert", filepath.Join(p.dir, "fullchain.pem"), "-w", "\n%{http_code}"}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// as asks for path as somebody ("": nobody) and returns status and body.
func (p *front) as(who, path string, args ...string) (status, body string) {
	p.t.Helper()
	status, body, err := p.try(who, path, args...)
	if err != nil {
		p.t.Errorf("curl as %q %.100s: %v", who, args, err)
	}
	return status, body
}

func (p *front) try(who, path string, args ...string) (status, body string, err error) {
	if who != "" {
		args = append(args, "--cert", filepath.Join(p.dir, who+".pem"))
	}
	out, err := p.call(append(args, "https://localhost:"+p.port+path)...)
	i := strings.LastIndexByte(out, '\n')
	if err != nil && (i < 0 || out[i+1:] == "000") { // with a status, it is curl unhappy about an answer that came before the whole upload
		return "", "", fmt.Errorf("%w: %s", err, out)
	}
	return out[i+1:], out[:i], nil
}

// family is what a client may try to pass for a proxy's word, with HASH and CERT for somebody else's certificate.
func family(h *holder) (args []string) {
	for _, name := range []string{"X-SSL-Client-SHA1", "x-ssl-client-sha1", "X_SSL_Client_SHA1", "X-SSL_Client-SHA1", "X-SSL-Client-SHA256", "X-SSL-Client-Cert", "X-SSL-Client-Verify", "X-SSL-Client-S-DN", "X-Client-Cert", "Client-Cert", "SSL-Client-Cert"} {
		args = append(args, "-H", name+": "+h.sha1())
	}
	for _, name := range []string{"X-Forwarded-For", "X_Forwarded_For", "X-Real-IP", "Forwarded", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP"} {
		args = append(args, "-H", name+": 6.6.6.6")
	}
	return append(args, "-H", "X-Forwarded-For: 7.7.7.7", "-H", "X-Proxy-Secret: guess", "-H", "X_Proxy_Secret: "+testProxySecret, "-H", "X-Forwarded-Proto: gopher")
}

// attack is the whole of what must hold, whichever way leads to the server.
func (p *front) attack() {
	t := p.t
	for who, want := range map[string]string{"": "401", "issued": "200", "self-signed": "200", "wrong CA": "200", "old and odd": "200", "revoked": "403 certificate_revoked", "expired": "403 certificate_expired"} {
		for name, extra := range map[string][]string{
			"plain":            nil,
			"HTTP/1.1":         {"--http1.1"},
			"TLS 1.2":          {"--tls-max", "1.2"},
			"forged":           family(p.people["issued"]),
			"forged, HTTP/1.1": append(family(p.people["issued"]), "--http1.1"),
			"forged, repeated": append(slices.Concat(family(p.people["issued"]), family(p.people["issued"])), "--http1.1"),
			"the proxy's headers named in Connection": append(family(p.people["issued"]), "--http1.1", "-H", "Connection: close, X-SSL-Client-SHA1, X-Proxy-Secret, X-Forwarded-For, X-Forwarded-Proto"),
		} {
			status, body := p.as(who, "/pastes", extra...)
			want := want
			if p.direct && who != "" && len(extra) > 3 {
				want = "400 bad_client_certificate" // a header beside a certificate of our own handshake: nothing to choose from
			}
			if code, reason, _ := strings.Cut(want, " "); status != code || !strings.Contains(body, reason) {
				t.Errorf("%q, %s: status %s, %s; want %s", who, name, status, body, want)
			}
		}
	}
	// Who creates is the owner: the fingerprint of the certificate that was shown, and nobody else's.
	for _, who := range []string{"", "issued", "self-signed", "wrong CA"} {
		owner := ""
		if who != "" {
			owner = p.people[who].sha256()
		}
		for i, extra := range [][]string{nil, family(p.people["revoked"]), append(family(p.people["issued"]), "--http1.1")} {
			if p.direct && who != "" && i > 0 {
				continue
			}
			status, body := p.as(who, "/", append([]string{"-d", "hello " + who, "-D", filepath.Join(p.dir, "head")}, extra...)...)
			if status != "201" || owner != "" && !strings.Contains(body, `"owner": "`+owner+`"`) || owner == "" && strings.Contains(body, "owner") {
				t.Errorf("%q creates: status %s, %s; want the owner %q", who, status, body, owner)
			}
			if head := strings.ToLower(string(must(os.ReadFile(filepath.Join(p.dir, "head"))))); !strings.Contains(head, "strict-transport-security: max-age=63072000") || strings.Contains(head, testProxySecret) {
				t.Errorf("headers of the answer: %s", head)
			}
		}
	}
	// A certificate without its key proves nothing.
	writeFile(t, filepath.Join(p.dir, "stolen.pem"), append(pemOf("CERTIFICATE", p.people["issued"].der), must(os.ReadFile(filepath.Join(p.dir, "self-signed.key")))...))
	if out, err := p.call("--cert", filepath.Join(p.dir, "stolen.pem"), "https://localhost:"+p.port+"/pastes"); err == nil {
		t.Errorf("a certificate without its key: %s", out)
	}
	// Large bodies: what the server allows goes through, what it does not is its own 413.
	for name, tc := range map[string]struct {
		size   int
		who    string
		status string
	}{"50 MiB": {50 << 20, "issued", "201"}, "a byte over": {50<<20 + 1, "issued", "413"}, "over the proxy's limit": {60 << 20, "issued", "413"}, "an anonymous 4 MiB": {4 << 20, "", "413"}} {
		file := filepath.Join(p.dir, "body")
		writeFile(t, file, make([]byte, tc.size))
		for _, version := range []string{"--http1.1", "--http2"} {
			status, body, err := p.try(tc.who, "/", "-T", file, version)
			for try := 1; try < 3 && (err != nil || status == "502"); try++ { // the reset of who stops reading may overtake its answer
				status, body, err = p.try(tc.who, "/", "-T", file, version)
			}
			if status != tc.status {
				t.Errorf("%s, %s: status %s, %.300s, %v", name, version, status, body, err)
			}
		}
		os.Remove(file)
	}
	// The address is curl's, whatever it says.
	p.server.t = t
	logs := p.server.logs.String()
	if strings.Contains(logs, "6.6.6.6") || strings.Contains(logs, "7.7.7.7") || !strings.Contains(logs, "client=127.0.0.2") || strings.Contains(logs, testProxySecret) {
		t.Errorf("client addresses in the log: %.2000s", logs)
	}
	p.resumed()
}

// resumed: a TLS session that goes on without showing the certificate again keeps its identity, and is judged again.
func (p *front) resumed() {
	p.byOpenssl("late", func(csr string) string {
		path := filepath.Join(p.dir, "late bundle.pem")
		must(operatorIn(filepath.Join(p.dir, "flaskpaste.db"), "issue", "late", "-o", path))
		pair := must(tls.LoadX509KeyPair(path, path))
		writeFile(p.t, filepath.Join(p.dir, "late.key"), pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(pair.PrivateKey))))
		return string(pemOf("CERTIFICATE", pair.Certificate[0]))
	})
	pair := must(tls.LoadX509KeyPair(filepath.Join(p.dir, "late.pem"), filepath.Join(p.dir, "late.pem")))
	resumed := false
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(4),
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }}}
		get := func() (int, bool) {
			res, err := (&http.Client{Transport: transport}).Get("https://localhost:" + p.port + "/pastes")
			if err != nil {
				p.t.Fatal(err)
			}
			defer res.Body.Close()
			io.Copy(io.Discard, res.Body)
			return res.StatusCode, res.TLS.DidResume
		}
		for try := 0; ; try++ {
			status, did := get()
			if status != map[bool]int{true: 200, false: 403}[version == tls.VersionTLS12] {
				p.t.Errorf("%x, resumed %v: status %d", version, did, status)
			}
			if resumed = resumed || did; did || try == 5 { // not every proxy resumes in every version
				break
			}
		}
		if version == tls.VersionTLS12 { // the session is resumed, the certificate is revoked meanwhile; TLS 1.3 begins revoked
			must(operatorIn(filepath.Join(p.dir, "flaskpaste.db"), "revoke", p.people["late"].serial()))
			if status, did := get(); status != 403 {
				p.t.Errorf("%x: revoked, resumed %v: status %d", version, did, status)
			}
		}
	}
	if !resumed {
		p.t.Error("no session was ever resumed")
	}
}

// behindNginx and behindHAProxy start a server and the proxy before it.
func behindNginx(t *testing.T) *front {
	nginx := need(t, "nginx")
	p := newFront(t, "TRUSTED_PROXIES=127.0.0.1", "PROXY_SECRET="+testProxySecret)
	writeFile(t, filepath.Join(p.dir, "secret.conf"), []byte(fmt.Sprintf("proxy_set_header X-Proxy-Secret %q;\n", p.secret)))
	p.start("nginx.conf", map[string]string{"listen 443 ssl": "listen 127.0.0.1:PORT ssl", "paste.example.org": "localhost", "/etc/nginx/flaskpaste-secret.conf": p.dir + "/secret.conf"}, func(config string) *exec.Cmd {
		whole := filepath.Join(p.dir, "whole.conf")
		writeFile(t, whole, []byte("pid nginx.pid; error_log stderr warn; daemon off; master_process off;\nevents {}\nhttp { client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n"+
			"include "+config+";\n}\n"))
		return exec.Command(nginx, "-p", p.dir, "-c", whole, "-e", "stderr")
	})
	return p
}

func behindHAProxy(t *testing.T) *front {
	haproxy := need(t, "haproxy")
	p := newFront(t, "TRUSTED_PROXIES=127.0.0.1", "PROXY_SECRET="+testProxySecret)
	p.start("haproxy.cfg", map[string]string{"bind :443": "bind 127.0.0.1:PORT"}, func(config string) *exec.Cmd { return exec.Command(haproxy, "-db", "-f", config) })
	return p
}

func TestNginx(t *testing.T)   { behindNginx(t).attack() }
func TestHAProxy(t *testing.T) { behindHAProxy(t).attack() }

func TestCaddy(t *testing.T) {
	caddy := need(t, "caddy")
	p := newFront(t, "TRUSTED_PROXIES=127.0.0.1", "PROXY_SECRET="+testProxySecret)
	p.start("Caddyfile", map[string]string{"https://paste.example.org:443": "https://localhost:PORT"}, func(config string) *exec.Cmd {
		return exec.Command(caddy, "run", "--adapter", "caddyfile", "--config", config)
	})
	p.attack()
}

func TestDirect(t *testing.T) {
	dir := t.TempDir()
	serverCert(t, filepath.Join(dir, "c"), filepath.Join(dir, "k"), 1)
	p := newFront(t, "TLS_CERT="+filepath.Join(dir, "c"), "TLS_KEY="+filepath.Join(dir, "k"))
	writeFile(t, filepath.Join(p.dir, "fullchain.pem"), must(os.ReadFile(filepath.Join(dir, "c"))))
	p.direct = true
	_, p.port, _ = strings.Cut(strings.TrimPrefix(p.server.url, "http://"), ":")
	p.attack()
}

// TestFromNothingToCurl is README's page on certificates: two commands, then the line that the second one prints.
func TestFromNothingToCurl(t *testing.T) {
	need(t, "curl")
	for try := 1; !fromNothingToCurl(t); try++ {
		if try == 3 {
			t.Fatal("no port stays free")
		}
	}
}

// fromNothingToCurl tells whether the port was still free when the server began to listen.
func fromNothingToCurl(t *testing.T) bool {
	dir := t.TempDir()
	serverCert(t, filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem"), 1)
	port := freePort(t)
	env := []string{"PKI_CA_PASSWORD=" + testCAPassword, "LISTEN=127.0.0.1:" + port, "TLS_CERT=c.pem", "TLS_KEY=k.pem", "PKI_ENABLED=1", "PUBLIC_URL=https://localhost:" + port}
	command := func(args ...string) string {
		t.Helper()
		var full []string
		for _, e := range env {
			full = append(full, "FLASKPASTE_"+e)
		}
		out, err := program(dir, full, append([]string{"pki"}, args...)...).Output()
		if err != nil {
			t.Fatalf("pki %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	command("init")
	printed := strings.Split(strings.TrimSpace(command("issue", "alice b", "--admin")), "\n")
	if p := tryLaunch(t, dir, env...); strings.Contains(p.logs.String(), "address already in use") {
		return false
	} else if p.url == "" {
		t.Fatalf("the server does not listen: %s", p.logs)
	}
	sh := exec.Command("sh", "-c", printed[len(printed)-1])
	sh.Dir = dir
	sh.Env = []string{"PATH=" + os.Getenv("PATH"), "CURL_CA_BUNDLE=c.pem"}
	link, err := sh.Output()
	if err != nil || !strings.HasPrefix(string(link), "https://localhost:"+port+"/") {
		t.Fatalf("%s: %v: %s", printed[len(printed)-1], err, link)
	}
	list := exec.Command("curl", "-sS", "--cacert", "c.pem", "--cert", "alice_b.pem", "https://localhost:"+port+"/pastes?owner=all")
	list.Dir = dir
	if out, err := list.CombinedOutput(); err != nil || !strings.Contains(string(out), `"count": 1`) {
		t.Errorf("the admin's list: %v: %s", err, out)
	}
	return true
}
