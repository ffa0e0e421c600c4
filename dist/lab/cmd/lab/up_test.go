package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSplitLine(t *testing.T) {
	for line, want := range map[string][]string{
		"":                              nil,
		"  probe\tpod1   pod2 ":         {"probe", "pod1", "pod2"},
		`exec node1 sh -c 'echo "a b"'`: {"exec", "node1", "sh", "-c", `echo "a b"`},
		`a"b c"d ""`:                    {"ab cd", ""},
	} {
		if got, err := splitLine(line); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v, want %q", line, got, err, want)
		}
	}
	if got, err := splitLine("it's"); err == nil {
		t.Errorf("a quote that is not closed: got %q", got)
	}
}

func TestRunDir(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	first, err := claimRunDir("a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claimRunDir("a"); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("a second lab of the name: %v", err)
	}
	second, err := claimRunDir("b")
	if err != nil {
		t.Fatal(err)
	}
	first.remove()
	if _, err := os.Stat(runDirs()); err != nil {
		t.Errorf("the other lab's directory: %v", err)
	}
	second.remove()
	if _, err := os.Stat(runDirs()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the parent after both have gone: %v", err)
	}
	for _, name := range []string{"", "..", "A", "a/b", strings.Repeat("a", 33)} {
		if d, err := claimRunDir(name); err == nil {
			d.remove()
			t.Errorf("name %q was taken", name)
		}
	}
	if err := os.Mkdir(runDirs(), 0o755); err != nil { // as somebody else could have, in /tmp
		t.Fatal(err)
	}
	if d, err := claimRunDir("a"); err == nil {
		d.remove()
		t.Error("a directory that others can read was taken")
	}
	if err := os.Remove(runDirs()); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), filepath.Clean(runDirs())); err != nil {
		t.Fatal(err)
	}
	if d, err := claimRunDir("a"); err == nil {
		d.remove()
		t.Error("a symbolic link was taken")
	}
}
