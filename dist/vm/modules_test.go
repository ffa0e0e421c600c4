package vm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLoadOrder(t *testing.T) {
	needs := map[string][]string{"vxlan": {"udp_tunnel", "ip6_udp_tunnel"}, "wireguard": {"udp_tunnel", "curve25519"}}
	order, err := loadOrder([]string{"vxlan", "wireguard", "udp_tunnel"}, func(name string) ([]string, error) {
		return needs[name], nil
	})
	want := []string{"udp_tunnel", "ip6_udp_tunnel", "vxlan", "curve25519", "wireguard"}
	if err != nil || !slices.Equal(order, want) {
		t.Errorf("got %q, %v, want %q", order, err, want)
	}
	missing := errors.New("missing")
	_, err = loadOrder([]string{"vxlan"}, func(name string) ([]string, error) {
		if name == "vxlan" {
			return needs[name], nil
		}
		return nil, missing
	})
	if !errors.Is(err, missing) || !strings.HasPrefix(err.Error(), "vxlan: ") {
		t.Errorf("a module that is not there: %v", err)
	}
}

func TestParseDepends(t *testing.T) {
	for info, want := range map[string]string{
		"license=GPL\x00depends=udp_tunnel,libcurve25519-generic\x00name=wireguard\x00": "[udp_tunnel libcurve25519_generic]",
		"depends=\x00name=udp_tunnel\x00":                                               "[]",
		"":                                                                              "[]",
	} {
		if got := fmt.Sprint(parseDepends(info)); got != want {
			t.Errorf("%q: got %s, want %s", info, got, want)
		}
	}
}

func TestModulesErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a-b.ko"), []byte("no module"), 0o644); err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]string{"c*": "no kernel module", "a_b": "read the kernel module", "[": "pattern"} {
		if _, err := Modules(dir, []string{pattern}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", pattern, err, want)
		}
	}
}

// TestProgram packs this machine's shell: what the archive has is enough to run it.
func TestProgram(t *testing.T) {
	var a Archive
	if err := a.Program("sh"); err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil || !a.Has(path) {
		t.Errorf("%s is not in the archive: %v", path, err)
	}
	if libc := slices.ContainsFunc(slices.Collect(a.names()), func(name string) bool {
		return strings.Contains(filepath.Base(name), "libc.")
	}); !libc {
		t.Errorf("no C library among %q", slices.Collect(a.names()))
	}
	if err := a.Program("no-such-program"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("a program that is not there: %v", err)
	}
}
