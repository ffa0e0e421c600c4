package install

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// reference are the real reference plugins that make tools builds.
const reference = "../../bin/cni"

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// withReference is a node that has none of the reference plugins, and those to be installed.
func withReference(t *testing.T) *node {
	t.Helper()
	n := newNode(t)
	for _, plugin := range []string{"bridge", "host-local", "portmap"} {
		n.remove(plugin)
	}
	n.Reference = filepath.Join(n.dir, "offered-cni")
	for _, name := range referencePlugins() {
		n.write(filepath.Join(n.Reference, name), string(readFile(t, filepath.Join(reference, name))))
	}
	return n
}

// withVersion is a reference plugin that says another major version, of one digit.
func withVersion(t *testing.T, content []byte, major string) []byte {
	t.Helper()
	said := []byte("\tgithub.com/containernetworking/plugins\tv")
	parts := bytes.Split(content, said)
	if len(parts) == 1 {
		t.Fatal("the reference plugin does not say its version")
	}
	for i, part := range parts[1:] {
		if bytes.IndexByte(part, '.') != len(major) {
			t.Fatalf("the reference plugin says version %.20q", part)
		}
		parts[i+1] = append([]byte(major), part[len(major):]...)
	}
	return bytes.Join(parts, said)
}

func TestReferencePlugins(t *testing.T) {
	n := withReference(t)
	r := n.install()
	n.says(r.Done, "bridge is now v1.", "host-local is now v1.", "loopback is now v1.", "portmap is now v1.", "selvage is now", "conflist is written")
	n.wantFiles(n.BinDir, sumsFile, "bridge", "host-local", "loopback", "portmap", "selvage")
	check := exec.Command("sha256sum", "--check", "--strict", sumsFile)
	check.Dir = n.BinDir
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	bridge := filepath.Join(n.BinDir, "bridge")
	if info, err := os.Stat(bridge); err != nil || info.Mode() != 0o755 {
		t.Errorf("%v, %v, want mode 0755", info.Mode(), err)
	}
	before := readFile(t, bridge)

	n.says(n.install().Done, "selvage is up to date", "conflist is up to date")

	// What this package installed is upgraded, and a newer one is kept.
	offered := filepath.Join(n.Reference, "bridge")
	n.write(offered, string(withVersion(t, before, "2")))
	n.says(n.install().Done, "bridge is now v2.", "selvage is up to date", "conflist is up to date")
	n.write(offered, string(before))
	r = n.install()
	n.says(r.Warnings, "newer than v1.")
	if !bytes.Equal(readFile(t, bridge), withVersion(t, before, "2")) {
		t.Error("the newer plugin was replaced")
	}

	// One that was removed or that a power cut left empty is installed again.
	n.remove("loopback")
	n.write(filepath.Join(n.BinDir, "portmap"), "")
	n.says(n.install().Done, "loopback is now", "portmap is now", "selvage is up to date", "conflist is up to date")

	// One that another program installed in the place of ours is that program's.
	n.write(filepath.Join(n.BinDir, "host-local"), "another program's")
	n.install()
	if got := readFile(t, filepath.Join(n.BinDir, "host-local")); string(got) != "another program's" {
		t.Error("another program's plugin was replaced")
	}

	// While another network configuration may use them, they stay.
	other := filepath.Join(n.ConfDir, "20-other.conflist")
	n.write(other, `{"name":"other","plugins":[{"type":"bridge"}]}`)
	r, err := Uninstall(n.Options)
	if err != nil {
		t.Fatal(err)
	}
	n.says(r.Warnings, "are kept, since "+other+" may use them")
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	if r, err = Uninstall(n.Options); err != nil {
		t.Fatal(err)
	}
	n.says(r.Done, "bridge is removed", "loopback is removed", "portmap is removed")
	n.says(r.Warnings, "host-local was replaced by another program: kept")
	n.wantFiles(n.BinDir, "host-local")
}

// TestReferencePluginsOfAnother keeps what is there, at any version, and claims none of it for the end.
func TestReferencePluginsOfAnother(t *testing.T) {
	n := withReference(t)
	for _, name := range referencePlugins() {
		content := withVersion(t, readFile(t, filepath.Join(reference, name)), "0")
		if name == "portmap" { // the same as ours, and yet not ours
			content = readFile(t, filepath.Join(reference, name))
		}
		n.write(filepath.Join(n.BinDir, name), string(content))
	}
	n.says(n.install().Done, "selvage is now", "conflist is written")
	if _, err := Uninstall(n.Options); err != nil {
		t.Fatal(err)
	}
	n.wantFiles(n.BinDir, "bridge", "host-local", "loopback", "portmap")
}

// TestReferencePluginsByLink has one program under several names, as k3s has them: the links and the program stay.
func TestReferencePluginsByLink(t *testing.T) {
	n := withReference(t)
	program := filepath.Join(n.dir, "data", "cni")
	n.write(program, "one for all")
	for _, name := range []string{"bridge", "host-local", "flannel"} {
		if err := os.Symlink(program, filepath.Join(n.BinDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	n.Names = []string{"selvage", "flannel"}
	n.says(n.install().Done, "loopback is now", "portmap is now", "selvage is now", "flannel is now", "conflist is written")
	if got := readFile(t, program); string(got) != "one for all" {
		t.Error("the program that the links lead to was changed")
	}
}

func TestReferencePluginErrors(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*node)
		want  string
	}{
		"missing": {func(n *node) { n.Reference = filepath.Join(n.dir, "nothing") }, "install the reference plugins: open"},
		"script":  {func(n *node) { n.write(filepath.Join(n.Reference, "bridge"), "#!/bin/sh\n") }, "want the reference plugin bridge"},
		"another": {func(n *node) {
			n.write(filepath.Join(n.Reference, "bridge"), string(readFile(n.T, filepath.Join(n.Reference, "portmap"))))
		}, "plugins/meta/portmap, want the reference plugin bridge"},
		"a directory": {func(n *node) { n.write(filepath.Join(n.BinDir, "bridge", "x"), "") }, "is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			n := withReference(t)
			test.spoil(n)
			if _, err := Install(t.Context(), n.Options); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
