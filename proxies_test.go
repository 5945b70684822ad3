package main

// What people send through the proxies of deploy_test.go: bodies of every size around the proxies' buffers beside
// certificates as large as real ones are, and bodies that pause as a build does.

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

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

func TestProxiesPassBodies(t *testing.T) {
	builds := map[int]time.Duration{2: time.Second} // lines, and the time between two
	if os.Getenv("CI") != "" && !testing.Short() {
		builds = map[int]time.Duration{14: time.Second, 2: 40 * time.Second}
	}
	keys := t.TempDir()
	mustOpenssl(t, keys, "genrsa", "-out", "key", "4096")
	var building sync.WaitGroup // through all proxies at once: they wait, and little else
	defer building.Wait()
	for name := range proxies {
		if _, err := exec.LookPath(name); err != nil {
			t.Run(name, func(t *testing.T) { need(t, name) })
			continue
		}
		p := behind(t, name)
		base := "https://localhost:" + p.port + "/"
		writeFiles(t, p.dir, map[string][]byte{"rsa4096.key": must(os.ReadFile(filepath.Join(keys, "key")))})
		mustOpenssl(t, p.dir, "req", "-new", "-key", "rsa4096.key", "-out", "rsa4096.csr", "-subj", "/CN=alice")
		p.person("rsa4096", "", func(csr string) string {
			_, certificate := p.as("", "/csr", "--data-binary", "@"+csr)
			return certificate
		})
		for _, version := range []string{"--http1.1", "--http2"} {
			for lines, pause := range builds {
				building.Go(func() {
					cmd := exec.Command("curl", "-sS", "--max-time", "90", "-k", version, "-T", "-", base)
					cmd.Stdin = pausing(lines, pause)
					if link, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(link), base) {
						t.Errorf("%s, %s, %d lines, a pause of %s: %s, %v", name, version, lines, pause, link, err)
					}
				})
			}
			for _, who := range []string{"", "rsa4096", "large"} {
				for _, size := range []int{1, 13, 14, 15, 16, 17, 31, 32, 200} {
					writeFiles(t, p.dir, map[string][]byte{"body": []byte(pattern(size * 1000))})
					status, body := p.as(who, "/", version, "-H", "Expect:", "--data-binary", "@"+filepath.Join(p.dir, "body"))
					owner := ""
					if who != "" {
						owner = p.people[who].sha256()
					}
					if status != "201" || (&answer{body: body}).field("owner") != owner {
						t.Errorf("%s, %s, %q, %d kB: status %s, %.300s", name, version, who, size, status, body)
					}
				}
			}
		}
	}
}
