package main

// The proxies' files in deploy/, each under its own program with nothing put in but ports and paths: certificates as
// large as real ones are, bodies of every size around the proxies' buffers, bodies that pause, and what a client may
// try to pass for a proxy's word.

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// gates are the proxies. put is what is replaced in the file ("DIR", "PORT": this test's); around makes the program's
// own configuration of it, and args starts it in the foreground.
var gates = map[string]struct {
	file, program, secret string
	put                   []string
	around                string
	args                  []string
}{
	"nginx": {"nginx.conf", "nginx", "proxy_set_header X-Proxy-Secret \"%s\";\n",
		[]string{"listen 443", "listen 127.0.0.1:PORT", "listen [::]:443", "listen [::1]:PORT",
			"/etc/nginx/flaskpaste-secret.conf", "DIR/secret"},
		"pid nginx.pid; error_log stderr warn; daemon off; master_process off;\nevents {}\n" +
			"http { client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4;\n" +
			"scgi_temp_path t5;\n%s}\n",
		[]string{"-p", "DIR", "-c", "DIR/config", "-e", "stderr"}},
	"haproxy": {"haproxy.cfg", "haproxy", "", []string{"bind :::443 v4v6", "bind 127.0.0.1:PORT,[::1]:PORT"}, "%s",
		[]string{"-db", "-f", "DIR/config"}},
	"caddy": {"Caddyfile", "caddy", "",
		[]string{"https://paste.example.org:443 {", "https://localhost:PORT {\n\tbind 127.0.0.1"}, "%s",
		[]string{"run", "--adapter", "caddyfile", "--config", "DIR/config"}},
	"apache": {"apache.conf", "apache2", "Define FLASKPASTE_PROXY_SECRET %s\n",
		[]string{"*:443", "127.0.0.1:PORT [::1]:PORT", "/etc/apache2/flaskpaste-secret.conf", "DIR/secret"},
		apacheModules() + "ServerRoot DIR\nPidFile DIR/pid\nServerName localhost\nErrorLog /dev/stderr\n" +
			"User www-data\nGroup www-data\nListen 127.0.0.1:PORT\nListen [::1]:PORT\nMutex pthread\n%s",
		[]string{"-DFOREGROUND", "-f", "DIR/config"}},
}

// apacheModules are those that apache.conf's own a2enmod line names, and what Debian loads anyway.
func apacheModules() (lines string) {
	for _, m := range strings.Fields("mpm_event authz_core socache_shmcb ssl http2 headers proxy proxy_http reqtimeout") {
		lines += "LoadModule " + m + "_module /usr/lib/apache2/modules/mod_" + m + ".so\n"
	}
	return lines
}

// gate is a server behind a proxy.
type gate struct {
	port   string
	server *process
}

// signed makes a certificate over key; nil signs itself.
func signed(t testing.TB, key crypto.Signer, subject pkix.Name, by *tls.Certificate) *tls.Certificate {
	t.Helper()
	now := time.Now()
	tpl := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: subject, DNSNames: []string{"localhost"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: by == nil, BasicConstraintsValid: true}
	parent, signer := tpl, key
	if by != nil {
		parent, signer = by.Leaf, by.PrivateKey.(crypto.Signer)
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// visitors are who comes: nobody, a foreign certificate (RSA 2048, a subject as large organisations have them, with its
// chain), and one as an authority of ours signs it (RSA 4096).
var visitors = sync.OnceValue(func() map[string]*tls.Certificate {
	t := new(testing.T)
	small, _ := rsa.GenerateKey(rand.Reader, 2048)
	large, _ := rsa.GenerateKey(rand.Reader, 4096)
	authority, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	root := signed(t, small, pkix.Name{CommonName: "root"}, nil)
	ca := signed(t, authority, pkix.Name{CommonName: "CA"}, nil)
	foreign := signed(t, small, pkix.Name{CommonName: "alice",
		OrganizationalUnit: []string{strings.Repeat("department ", 100), strings.Repeat("laboratory ", 50)}}, root)
	foreign.Certificate = append(foreign.Certificate, root.Certificate...)
	ours := signed(t, large, pkix.Name{CommonName: "alice"}, ca)
	return map[string]*tls.Certificate{"nobody": nil, "foreign": foreign, "ours": ours}
})

// openGate starts a server and the proxy before it.
func openGate(t *testing.T, name string) *gate {
	t.Helper()
	spec := gates[name]
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("deploy", spec.file))
	if err != nil {
		t.Fatal(err)
	}
	own := signed(t, key, pkix.Name{CommonName: "localhost"}, nil)
	der, _ := x509.MarshalPKCS8PrivateKey(key)
	chain := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]}))
	private := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	files := map[string]string{"fullchain.pem": chain, "privkey.pem": private, "haproxy.pem": chain + private}
	if spec.secret != "" {
		files["secret"] = fmt.Sprintf(spec.secret, proxySecret)
	}
	g := &gate{server: launch(t, t.TempDir(), proxied...)}
	logs := new(lockedBuffer)
	for range 3 { // somebody else may take the port before the proxy does
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, g.port, _ = net.SplitHostPort(l.Addr().String())
		l.Close()
		here := strings.NewReplacer("DIR", dir, "PORT", g.port)
		put := []string{"127.0.0.1:5000", strings.TrimPrefix(g.server.url, "http://"), "/etc/ssl/flaskpaste", dir}
		for _, p := range spec.put {
			put = append(put, here.Replace(p))
		}
		for i := 0; i < len(put); i += 2 {
			if !strings.Contains(string(text), put[i]) {
				t.Fatalf("%s has no %q", spec.file, put[i])
			}
		}
		files["config"] = fmt.Sprintf(here.Replace(spec.around), strings.NewReplacer(put...).Replace(string(text)))
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(spec.program, strings.Fields(here.Replace(strings.Join(spec.args, " ")))...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "APACHE_LOG_DIR=" + dir,
			"FLASKPASTE_PROXY_SECRET=" + proxySecret}
		cmd.Stdout, cmd.Stderr, cmd.Dir = logs, logs, dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Apache has children
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		t.Cleanup(func() {
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
			if t.Failed() {
				t.Logf("%s: %.4000s", spec.file, logs)
			}
		})
		for begun, running := time.Now(), true; running && time.Since(begun) < 20*time.Second; {
			if status, _, err := g.try("localhost", nil, 1, "GET", "/health", nil); err == nil && status == 200 {
				return g
			}
			select {
			case <-ended:
				running = false
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	t.Fatalf("%s does not start", spec.file)
	return nil
}

// try sends a request of the visitor on a connection of its own, in HTTP of that version.
func (g *gate) try(host string, who *tls.Certificate, version int, method, path string, body io.Reader,
	headers ...string) (int, string, error) {
	tr := &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: version == 2,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer tr.CloseIdleConnections()
	if who != nil {
		tr.TLSClientConfig.Certificates = []tls.Certificate{*who}
	}
	req, err := http.NewRequest(method, "https://"+net.JoinHostPort(host, g.port)+path, body)
	if err != nil {
		return 0, "", err
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		req.Header[k] = append(req.Header[k], v) // as written
	}
	res, err := (&http.Client{Transport: tr, Timeout: 2 * time.Minute}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if res.ProtoMajor != version {
		err = fmt.Errorf("it spoke %s", res.Proto)
	}
	return res.StatusCode, string(b), err
}

// creates wants a 201 whose link has the port and whose owner is who showed the certificate.
func (g *gate) creates(t *testing.T, host string, who *tls.Certificate, version int, body io.Reader, more ...string) {
	t.Helper()
	status, got, err := g.try(host, who, version, "POST", "/", body, more...)
	owner := ""
	if who != nil {
		sum := sha256.Sum256(who.Certificate[0])
		owner = hex.EncodeToString(sum[:])
	}
	a, base := &answer{body: got, t: t}, "https://"+net.JoinHostPort(host, g.port)+"/"
	if err != nil || status != 201 || a.field("owner") != owner || !strings.HasPrefix(a.field("link"), base) {
		t.Errorf("status %d, %.300s, %v; want 201, owner %q", status, got, err, owner)
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

func TestProxies(t *testing.T) {
	victim := visitors()["ours"]
	sum := sha256.Sum256(victim.Certificate[0])
	// The first is not for HTTP/2, which has no Connection.
	forged := []string{"Connection: close, X-SSL-Client-SHA1, X-Proxy-Secret, X-Forwarded-For, X-Forwarded-Proto",
		"X-Forwarded-Proto: gopher", "X-Forwarded-For: 6.6.6.6", "X_Forwarded_For: 6.6.6.6", "Forwarded: for=6.6.6.6",
		"X-Real-Ip: 6.6.6.6", "X_Proxy_Secret: " + proxySecret}
	for _, name := range []string{"X-SSL-Client-SHA1", "X_SSL_Client_SHA1", "X-SSL_Client-SHA1", "Client-Cert"} {
		forged = append(forged, name+": "+hex.EncodeToString(sum[:]), name+": "+hex.EncodeToString(sum[:]))
	}
	builds := map[int]time.Duration{2: time.Second} // lines, and the time between two
	if os.Getenv("CI") != "" {
		builds = map[int]time.Duration{14: time.Second, 2: 40 * time.Second}
	}
	var building sync.WaitGroup // all at once: they wait, and little else
	defer building.Wait()
	for name, spec := range gates {
		if _, err := exec.LookPath(spec.program); err != nil {
			t.Run(name, func(t *testing.T) {
				if os.Getenv("CI") != "" {
					t.Fatal(err)
				}
				t.Skip(err)
			})
			continue
		}
		g := openGate(t, name)
		for version := 1; version <= 2; version++ {
			for lines, pause := range builds {
				building.Go(func() { g.creates(t, "localhost", nil, version, pausing(lines, pause)) })
			}
			for who, certificate := range visitors() {
				for _, size := range []int{1, 8, 13, 14, 15, 16, 17, 24, 31, 32, 33, 64, 200} {
					t.Run(fmt.Sprintf("%s, HTTP/%d, %s, %d kB", name, version, who, size), func(t *testing.T) {
						g.creates(t, "localhost", certificate, version, strings.NewReader(pattern(size*1000)), forged[version-1:]...)
					})
				}
			}
		}
		if name != "caddy" { // which answers for the names of its file alone
			g.creates(t, "::1", nil, 2, strings.NewReader("hello"))
		}
		if logs := g.server.logs.String(); strings.Contains(logs, "6.6.6.6") || strings.Contains(logs, proxySecret) {
			t.Errorf("the log: %.2000s", logs)
		}
	}
}
