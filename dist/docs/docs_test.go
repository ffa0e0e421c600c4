package docs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network/node/status"
)

const root = "../.."

// pages returns the documentation's files by name, from the top of the repository.
func pages(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, "Documentation", "*.md"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no documentation: %v", err)
	}
	all := map[string]string{}
	atTop, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil || len(atTop) == 0 {
		t.Fatalf("no README: %v", err)
	}
	for _, name := range append(names, atTop...) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			t.Fatal(err)
		}
		all[rel] = string(text)
	}
	return all
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinks follows every link inside the repository, and those to a heading to the heading.
func TestLinks(t *testing.T) {
	all := pages(t)
	for name, text := range all {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target := m[1]
			if strings.Contains(target, "://") {
				continue
			}
			file, heading, _ := strings.Cut(target, "#")
			path := filepath.Join(filepath.Dir(name), file)
			if file == "" {
				path = name
			}
			if _, err := os.Stat(filepath.Join(root, path)); err != nil {
				t.Errorf("%s: link to %s: %v", name, target, err)
				continue
			}
			if heading != "" && !slices.Contains(headings(all[path]), heading) {
				t.Errorf("%s: link to %s: there is no such heading", name, target)
			}
		}
	}
}

// headings returns the anchors of a page's headings, as renderers of Markdown make them.
func headings(text string) (anchors []string) {
	for line := range strings.Lines(text) {
		title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		if !ok || !strings.HasPrefix(line, "#") {
			continue
		}
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9':
				return r
			default:
				return -1
			}
		}, strings.ToLower(strings.TrimSpace(title)))
		anchors = append(anchors, anchor)
	}
	return anchors
}

// help runs selvaged --help of a command.
func help(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(root, "bin", "selvaged"), append(args, "--help")...).Output()
	if err != nil {
		t.Fatalf("selvaged %v --help: %v", args, err)
	}
	return string(out)
}

var (
	flagLine    = regexp.MustCompile(`(?m)^\s+(?:-\w, )?--([a-z][a-z0-9-]*)`)
	commandLine = regexp.MustCompile(`(?m)^  ([a-z-]+)\s+\S`)
	mention     = regexp.MustCompile(`--[a-z][a-z0-9-]+`)
	fenced      = regexp.MustCompile("(?s)```[a-z]*\n(.*?)```")
	inline      = regexp.MustCompile("`([^`\n]+)`")
)

// daemon returns selvaged's flags, and those of each of its commands. A command with commands of its own has the flags
// of all of them.
func daemon(t *testing.T) (own []string, commands map[string][]string) {
	t.Helper()
	text := help(t)
	below := func(text string) (names []string) {
		_, text, _ = strings.Cut(text, "Available Commands:")
		text, _, _ = strings.Cut(text, "\nFlags:")
		for _, m := range commandLine.FindAllStringSubmatch(text, -1) {
			names = append(names, m[1])
		}
		return names
	}
	list := func(text string) (names []string) {
		_, text, _ = strings.Cut(text, "\nFlags:")
		for _, m := range flagLine.FindAllStringSubmatch(text, -1) {
			names = append(names, m[1])
		}
		return names
	}
	own, commands = list(text), map[string][]string{}
	for _, name := range below(text) {
		of := help(t, name)
		commands[name] = list(of)
		for _, sub := range below(of) {
			commands[name] = append(commands[name], list(help(t, name, sub))...)
		}
	}
	if len(own) == 0 || len(commands) == 0 {
		t.Fatalf("selvaged --help could not be read: %d flags, %d commands", len(own), len(commands))
	}
	return own, commands
}

// TestCommands looks that each call of selvaged in the documentation is one that it would take, as far as flags go.
func TestCommands(t *testing.T) {
	own, commands := daemon(t)
	for name, text := range pages(t) {
		var calls []string
		for _, m := range fenced.FindAllStringSubmatch(text, -1) {
			for line := range strings.Lines(strings.ReplaceAll(m[1], "\\\n", " ")) {
				calls = append(calls, line)
			}
		}
		for _, m := range inline.FindAllStringSubmatch(text, -1) {
			calls = append(calls, m[1])
		}
		for _, call := range calls {
			if _, inPod, ok := strings.Cut(call, " -- "); ok { // kubectl exec
				call = inPod
			}
			_, args, found := strings.Cut(" "+strings.TrimSpace(call), " selvaged ")
			if !found {
				continue
			}
			call, _, _ := strings.Cut(args, "|")
			call, _, _ = strings.Cut(call, " # ")
			command, _, _ := strings.Cut(strings.TrimSpace(call), " ")
			flags, ok := commands[command]
			if !ok {
				flags = own
				if !strings.HasPrefix(command, "-") {
					continue // a sentence
				}
			}
			for _, flag := range mention.FindAllString(call, -1) {
				if !slices.Contains(flags, flag[2:]) && flag != "--help" {
					t.Errorf("%s: %q: selvaged %s has no flag %s", name, call, command, flag)
				}
			}
		}
	}
}

// TestFlagsAreDocumented looks that each flag and command of selvaged's is spoken of somewhere.
func TestFlagsAreDocumented(t *testing.T) {
	own, commands := daemon(t)
	var all strings.Builder
	for _, text := range pages(t) {
		all.WriteString(text)
	}
	text := all.String()
	for _, flag := range own {
		if flag != "help" && !strings.Contains(text, "--"+flag) {
			t.Errorf("--%s is nowhere in the documentation", flag)
		}
	}
	for command := range commands {
		if command != "help" && command != "completion" && !regexp.MustCompile(`selvaged\s`+command).MatchString(text) {
			t.Errorf("selvaged %s is nowhere in the documentation", command)
		}
	}
}

// TestTargets looks that each make target that is named exists.
func TestTargets(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(root, "dist", "*.mk"))
	if err != nil {
		t.Fatal(err)
	}
	var makefile []byte
	for _, path := range append(paths, filepath.Join(root, "Makefile")) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		makefile = append(append(makefile, '\n'), text...)
	}
	for name, text := range pages(t) {
		for _, m := range regexp.MustCompile("(?m)(?:`|^)make ([a-z0-9-]+)").FindAllStringSubmatch(text, -1) {
			if !bytes.Contains(makefile, fmt.Appendf(nil, "\n%s:", m[1])) {
				t.Errorf("%s: there is no target %q", name, m[1])
			}
		}
	}
}

// TestFiles looks that each path into the repository that is named exists.
func TestFiles(t *testing.T) {
	for name, text := range pages(t) {
		for _, m := range inline.FindAllStringSubmatch(text, -1) {
			path := strings.TrimSuffix(m[1], "/")
			first, _, _ := strings.Cut(path, "/")
			if !slices.Contains([]string{"dist", "network", "subnet", "backend", "cniplugin", "Documentation"}, first) || strings.ContainsAny(path, " *<…") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, path)); err != nil {
				if _, err := os.Stat(filepath.Join(root, "dist", path)); err != nil && strings.Contains(path, "/") {
					t.Errorf("%s: %s is not there", name, m[1])
				}
			}
		}
	}
}

// TestSocketIsDocumented: running.md names what can be asked for on the daemon's socket.
func TestSocketIsDocumented(t *testing.T) {
	text := pages(t)["Documentation/running.md"]
	for _, path := range []string{status.DefaultSocket, status.PathStatus, status.PathPeers, status.PathExplain, status.PathEtcd, status.PathPolicies,
		status.PathPolicyVerdict, status.PathDrops} {
		if !strings.Contains(text, path) {
			t.Errorf("running.md says nothing of %s", path)
		}
	}
}
