package main

// What is written is true, both ways: routes, settings, metrics, codes and operator's commands of README and docs,
// the files of deploy/ that name any of them, the tests that SECURITY.md names. And what design says of the rooms:
// who may call whom.

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pages is README and docs as one text.
func docPages(t testing.TB) string {
	t.Helper()
	var all strings.Builder
	for _, path := range append([]string{"README.md"}, must(filepath.Glob("docs/*.md"))...) {
		all.Write(must(os.ReadFile(path)))
	}
	return all.String()
}

// source is our code without its tests, by file.
func source(t testing.TB) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, path := range must(filepath.Glob("*.go")) {
		if !strings.HasSuffix(path, "_test.go") {
			files[path] = string(must(os.ReadFile(path)))
		}
	}
	return files
}

// matches are the distinct first groups of a pattern.
func matches(pattern, text string) (list []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// same wants two lists to hold the same.
func same(t *testing.T, what string, written, real []string) {
	t.Helper()
	for _, name := range real {
		if !slices.Contains(written, name) {
			t.Errorf("%s: %s is not in the pages", what, name)
		}
	}
	for _, name := range written {
		if !slices.Contains(real, name) {
			t.Errorf("%s: the pages have %s, which is not real", what, name)
		}
	}
}

func TestPagesAreTrue(t *testing.T) {
	text := docPages(t)
	var real []string
	for _, r := range routes() {
		real = append(real, strings.NewReplacer("{$}", "", "/s/{id}/{view}", "/s/{id}/info", "{view}",
			"raw").Replace(r.pattern))
	}
	same(t, "routes", matches("`((?:GET|POST|PUT|DELETE) /[^` ]*)`", strings.Join(matches("\n(\\| `[A-Z]+ /[^|]*)",
		text), "\n")), real)

	real = nil
	for _, v := range settings(new(config)) {
		if v.name == "" { // a heading
			continue
		}
		real = append(real, v.name)
		row := regexp.MustCompile("\n\\| `FLASKPASTE_" + v.name + "` \\|([^|]*)\\|").FindStringSubmatch(text)
		if row != nil && strings.Trim(row[1], " `") != v.def && (v.def != "" || strings.TrimSpace(row[1]) != "empty") {
			t.Errorf("settings: %s has the default %q, the pages say %q", v.name, v.def, row[1])
		}
	}
	same(t, "settings", matches("\n\\| `FLASKPASTE_([A-Z0-9_]+)` \\|", text), real)
	known := append(slices.Clone(real), "SERVER", "X", "NAME", "PROXY_SECRET_FILE", "PKI_CA_PASSWORD_FILE", "PORT", "TYPO",
		"TEST_FORENSICS", "METRIC_ALLOW") // the last is a typo that k8s-test.sh must find
	for _, path := range slices.Concat([]string{"README.md", "SECURITY.md", "flaskpaste.service", ".ci/run", ".ci/deploy"},
		must(filepath.Glob("deploy/*")), must(filepath.Glob("docs/*"))) {
		for _, name := range matches(`FLASKPASTE_([A-Z0-9_]*[A-Z0-9])`, string(must(os.ReadFile(path)))) {
			if !slices.Contains(known, name) {
				t.Errorf("%s names FLASKPASTE_%s, which is no setting", path, name)
			}
		}
	}

	ts := start(t, append([]string{"METRICS_ALLOW=any"}, issuing...)...)
	ts.get("/").want(200, "")
	real = matches(`(?m)^# TYPE (\S+)`, ts.get("/metrics", from("192.0.2.1")...).want(200, "").body)
	same(t, "metrics", matches("\n\\| `((?:flaskpaste|process|go)_[a-z_]+)` \\|", text), real)
	for _, path := range []string{"deploy/alerts.yml", "deploy/alerts_test.yml", "deploy/dashboard.json", "README.md"} {
		for _, name := range matches(`\b(flaskpaste_[a-z_]+)\b`, string(must(os.ReadFile(path)))) {
			base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
			if !slices.Contains(real, name) && !slices.Contains(real, base) {
				t.Errorf("%s names the metric %s", path, name)
			}
		}
	}

	// Codes: each that the source can answer is told, and each that the alerts wait for exists.
	real = nil
	for _, code := range source(t) {
		real = append(real, matches(`(?:Code: |code = |refuse\([45][0-9][0-9], )"([a-z_]+)"`, code)...)
	}
	real = slices.Compact(slices.Sorted(slices.Values(append(real, "bad_option", "client_left"))))
	for _, code := range real {
		if !strings.Contains(text, "`"+code+"`") {
			t.Errorf("codes: %s is not in the pages", code)
		}
	}
	for _, list := range matches(`reason=~?"([a-z_|]+)"`, string(must(os.ReadFile("deploy/alerts.yml")))) {
		for code := range strings.SplitSeq(list, "|") {
			if !slices.Contains(real, code) {
				t.Errorf("deploy/alerts.yml waits for %s", code)
			}
		}
	}

	// The operator's commands with their options, and no other.
	for _, c := range commands() {
		if usage := "flaskpaste " + c.name; !strings.Contains(text, usage) {
			t.Errorf("commands: %s is not in the pages", usage)
		}
		for _, option := range matches(`(--?[a-z]+)`, c.usage) {
			if !regexp.MustCompile(regexp.QuoteMeta(c.name) + `[^\n]*` + option + `\b`).MatchString(text) {
				t.Errorf("commands: the pages say nothing of %s %s", c.name, option)
			}
		}
	}
	for _, said := range matches("`flaskpaste ((?:pki )?[a-z]+)", text) {
		if !slices.ContainsFunc(commands(), func(c command) bool {
			return c.name == said || strings.HasPrefix(c.name,
				said+" ")
		}) &&
			said != "help" && said != "version" && !isClientCommand(said) {
			t.Errorf("commands: the pages have flaskpaste %s", said)
		}
	}
}

// TestSecurityTables: a row of SECURITY.md whose last column names no test, or one that is gone, proves nothing.
func TestSecurityTables(t *testing.T) {
	tests := ""
	for _, path := range must(filepath.Glob("*_test.go")) {
		tests += string(must(os.ReadFile(path)))
	}
	existing := matches(`(?m)^func ((?:Test|Fuzz)\w+)\(`, tests)
	text, rows := string(must(os.ReadFile("SECURITY.md")))+string(must(os.ReadFile("docs/threats.md"))), 0
	for _, name := range matches(`\b((?:Test|Fuzz)[A-Z0-9]\w*)`, text) {
		if !slices.Contains(existing, name) {
			t.Errorf("SECURITY.md or docs/threats.md names %s, which does not exist", name)
		}
	}
	for table := range strings.SplitSeq(text, "\n\n") {
		head, lines, _ := strings.Cut(table, "\n")
		if !strings.HasSuffix(head, "| test |") {
			continue
		}
		for line := range strings.Lines(lines) {
			columns := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
			if last := columns[len(columns)-1]; !strings.Contains(last, "Test") && !strings.Contains(last, "---") {
				t.Errorf("no test: %s", line)
			}
			rows++
		}
	}
	if rows < 40 {
		t.Errorf("%d rows: the tables were not found", rows)
	}
}

// rooms in their order: code calls what stands behind its own file.
var rooms = []string{"main", "operator", "cli", "client", "seal", "http", "short", "paste", "pki", "body", "work",
	"headers", "metrics", "store",
	"pow", "config", "limits", "sys_unix"}

// backward are the calls that go the other way, each with its reason. from "" is any handler.
var backward = []struct{ from, to, names, reason string }{
	{"", "http", "after ask badOption baseURL charge proxyHint rateLimited refuse seconds sizeWords timeWords wantsPage wantsText writeBytes writeJSON writeText",
		"how a handler asks limits and answers: methods of the request"},
	{"headers", "http", "answerError dispatch", "the outermost layer calls what it wraps"},
	{"headers", "pki", "fingerprints", "what a certificate is called"},
	{"operator", "main", "newLog serve", "serve is a line of the table of commands, and their audit lines have the log's form"},
}

// pure rooms take and return values: they can be read alone.
var pure = []string{"store", "limits", "pow", "metrics", "seal", "config"}

func TestRooms(t *testing.T) {
	exported := map[string]string{}
	for line := range strings.Lines(string(must(exec.Command("go", "list", "-export", "-deps", "-f",
		"{{.ImportPath}}={{.Export}}", ".").Output()))) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), "=")
		exported[path] = file
	}
	files := token.NewFileSet()
	var parsed []*ast.File
	for _, name := range strings.Fields(string(must(exec.Command("go", "list", "-f", `{{join .GoFiles " "}}`,
		".").Output()))) {
		parsed = append(parsed, must(parser.ParseFile(files, name, nil, 0)))
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	lookup := func(path string) (io.ReadCloser, error) { return os.Open(exported[path]) }
	ours := must((&types.Config{Importer: importer.ForCompiler(files, "gc", lookup)}).Check("main", files, parsed, info))
	room := func(at token.Pos) string {
		return strings.TrimSuffix(filepath.Base(files.Position(at).Filename), ".go")
	}
	used := map[string]bool{}
	for id, object := range info.Uses {
		from := room(id.Pos())
		if slices.Contains(pure, from) {
			foreign, isPackage := object.(*types.PkgName)
			if isPackage && foreign.Imported().Path() == "net/http" || object.Pkg() == ours && (object.Name() == "server" ||
				object.Name() == "request") && object.Parent() == ours.Scope() {
				t.Errorf("%s uses %s: its values must do without", files.Position(id.Pos()), object.Name())
			}
		}
		if _, call := object.(*types.Func); !call || object.Pkg() != ours {
			continue
		}
		to := room(object.Pos())
		a, b := slices.Index(rooms, from), slices.Index(rooms, to)
		switch {
		case strings.HasPrefix(from, "term_") || strings.HasPrefix(to, "term_"): // the terminal's are the client's own
		case a < 0:
			t.Errorf("%s.go has no place among the rooms", from)
		case a > b && from != to:
			ok := false
			for _, e := range backward {
				if (e.from == "" || e.from == from) && e.to == to && slices.Contains(strings.Fields(e.names), object.Name()) {
					ok, used[e.from+e.to] = true, true
				}
			}
			if !ok {
				t.Errorf("%s: %s.go calls back into %s.go: %s", files.Position(id.Pos()), from, to, object.Name())
			}
		}
	}
	for _, e := range backward {
		if !used[e.from+e.to] {
			t.Errorf("nobody needs the exception from %q to %s any more", e.from, e.to)
		}
	}
}
