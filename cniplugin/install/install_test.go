package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// node is a machine's directories.
type node struct {
	*testing.T
	Options
	dir string
}

// newNode has all that a network configuration needs but the plugin itself.
func newNode(t *testing.T) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{T: t, dir: dir, Options: Options{
		Program: filepath.Join(dir, "offered"), BinDir: filepath.Join(dir, "opt", "bin"), ConfDir: filepath.Join(dir, "etc", "net.d"),
		SubnetFile: filepath.Join(dir, "run", "subnet.env"),
	}}
	n.offer("(devel)")
	for _, plugin := range []string{"bridge", "host-local", "portmap"} {
		n.write(filepath.Join(n.BinDir, plugin), "#!/bin/sh\n")
	}
	n.ready()
	return n
}

func (n *node) write(path, content string) {
	n.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		n.Fatal(err)
	}
}

func (n *node) ready() {
	n.Helper()
	err := subnetfile.Write(n.SubnetFile, subnetfile.File{
		Networks: [2][]netip.Prefix{{netip.MustParsePrefix("10.5.0.0/16")}}, Subnets: [2]netip.Prefix{netip.MustParsePrefix("10.5.29.1/24")},
	})
	if err != nil {
		n.Fatal(err)
	}
}

// offer puts the plugin with a version of seven characters where it is to be installed from.
func (n *node) offer(version string) {
	n.Helper()
	n.write(n.Program, string(plugin(n.T, version)))
}

// built builds the real program once for all tests.
var built = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "install-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "selvage")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", path, "../selvage")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return os.ReadFile(path)
})

// plugin returns the real program, with another version written into it: Go takes that from the version control system.
func plugin(t *testing.T, version string) []byte {
	t.Helper()
	content, err := built()
	if err != nil {
		t.Fatal(err)
	}
	const module, unknown = "mod\tgithub.com/selvage-net/selvage\t", "(devel)"
	if len(version) != len(unknown) {
		t.Fatalf("version %q is not as long as %q", version, unknown)
	}
	if !bytes.Contains(content, []byte(module+unknown)) {
		t.Fatal("the program does not say its version")
	}
	return bytes.ReplaceAll(content, []byte(module+unknown), []byte(module+version))
}

func (n *node) install() Report {
	n.Helper()
	r, err := Install(n.Context(), n.Options)
	if err != nil {
		n.Fatal(err)
	}
	return r
}

// says fails unless lines hold these words, a line each.
func (n *node) says(lines []string, want ...string) {
	n.Helper()
	if len(lines) != len(want) {
		n.Errorf("got %q, want %d lines", lines, len(want))
		return
	}
	for i, w := range want {
		if !strings.Contains(lines[i], w) {
			n.Errorf("got %q, want %q in it", lines[i], w)
		}
	}
}

// wantFiles fails unless dir holds just these.
func (n *node) wantFiles(dir string, want ...string) {
	n.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		n.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

func TestInstall(t *testing.T) {
	n := newNode(t)
	n.offer("v1.10.0")
	r := n.install()
	n.says(r.Done, "opt/bin/selvage is now v1.10.0", "10-selvage.conflist is written")
	n.says(r.Warnings)
	n.wantFiles(n.BinDir, "bridge", "host-local", "portmap", "selvage")
	n.wantFiles(n.ConfDir, "10-selvage.conflist")
	if info, err := os.Stat(filepath.Join(n.BinDir, "selvage")); err != nil || info.Mode() != 0o755 {
		t.Errorf("%v, %v, want mode 0755", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Join(n.ConfDir, "10-selvage.conflist")); err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v, want mode 0644", info.Mode(), err)
	}
	got := map[string]any{}
	data, err := os.ReadFile(filepath.Join(n.ConfDir, "10-selvage.conflist"))
	if err == nil {
		err = json.Unmarshal(data, &got)
	}
	if err != nil {
		t.Fatal(err)
	}
	delete(got, marker)
	plain, err := json.Marshal(got)
	want := `{"cniVersion":"1.0.0","cniVersions":["1.0.0","1.1.0"],"name":"cbr0","plugins":[{"delegate":{"hairpinMode":true,"isDefaultGateway":true},"subnetFile":"` +
		n.SubnetFile + `","type":"selvage"},{"capabilities":{"portMappings":true},"type":"portmap"}]}`
	if err != nil || string(plain) != want {
		t.Errorf("got %s\nwant %s", plain, want)
	}

	// The same again changes nothing, not even the files' times.
	before := n.times()
	r = n.install()
	n.says(r.Done, "selvage is up to date (v1.10.0)", "10-selvage.conflist is up to date")
	if after := n.times(); after != before {
		t.Errorf("changed at %v, before at %v", after, before)
	}

	// A plugin that came since is used.
	n.write(filepath.Join(n.BinDir, "bandwidth"), "#!/bin/sh\n")
	n.says(n.install().Done, "up to date", "10-selvage.conflist is written")
	if data, err := os.ReadFile(filepath.Join(n.ConfDir, "10-selvage.conflist")); err != nil || !strings.Contains(string(data), "bandwidth") {
		t.Errorf("got %s, %v", data, err)
	}

	r, err = Uninstall(n.Options)
	if err != nil {
		t.Fatal(err)
	}
	n.says(r.Done, "10-selvage.conflist is removed", "selvage is removed")
	n.wantFiles(n.BinDir, "bandwidth", "bridge", "host-local", "portmap")
	n.wantFiles(n.ConfDir)
	r, err = Uninstall(n.Options)
	if err != nil || len(r.Done)+len(r.Warnings) > 0 {
		t.Errorf("a second time: %v, %v", r, err)
	}
}

func (n *node) times() (times [2]time.Time) {
	n.Helper()
	for i, path := range []string{filepath.Join(n.BinDir, "selvage"), filepath.Join(n.ConfDir, "10-selvage.conflist")} {
		info, err := os.Stat(path)
		if err != nil {
			n.Fatal(err)
		}
		times[i] = info.ModTime()
	}
	return times
}

func TestProgramVersions(t *testing.T) {
	n := newNode(t)
	installed := func(content string) {
		t.Helper()
		n.write(filepath.Join(n.BinDir, "selvage"), content)
	}
	for _, test := range []struct {
		name, installed, offered, done, warning string
	}{
		{"newer", string(plugin(t, "v1.9.10")), "v1.10.0", "is now v1.10.0", ""},
		{"older", string(plugin(t, "v1.10.0")), "v1.9.10", "", "is v1.10.0, newer than v1.9.10: kept"},
		{"unknown", string(plugin(t, "v1.10.0")), "(devel)", "is now (devel)", ""},
		{"same version, another build", string(plugin(t, "v1.10.0")) + "x", "v1.10.0", "is now v1.10.0", ""},
		{"half written", string(plugin(t, "v1.10.0")[:100000]), "v1.9.10", "is now v1.9.10", ""},
		{"no program", "", "v1.9.10", "is now v1.9.10", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			installed(test.installed)
			n.offer(test.offered)
			r := n.install()
			if test.done != "" && !strings.Contains(r.Done[0], test.done) {
				t.Errorf("done %q, want %q", r.Done, test.done)
			}
			if w := strings.Join(r.Warnings, " "); (test.warning == "") != (w == "") || !strings.Contains(w, test.warning) {
				t.Errorf("warnings %q, want %q", w, test.warning)
			}
			got, err := os.ReadFile(filepath.Join(n.BinDir, "selvage"))
			kept := bytes.Equal(got, []byte(test.installed))
			if err != nil || kept != (test.warning != "") {
				t.Errorf("kept: %t, %v", kept, err)
			}
		})
	}
	installed(string(plugin(t, "v1.10.0")))
	n.offer("v1.9.10")
	n.Force = true
	n.says(n.install().Done, "is now v1.9.10", "10-selvage.conflist")

	// The mode is put right too.
	if err := os.Chmod(filepath.Join(n.BinDir, "selvage"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.install()
	if info, err := os.Stat(filepath.Join(n.BinDir, "selvage")); err != nil || info.Mode() != 0o755 {
		t.Errorf("%v, %v, want mode 0755", info.Mode(), err)
	}
}

// TestInPlaceOfFlannel installs the program under flannel's name too, and takes it away only where it is ours.
func TestInPlaceOfFlannel(t *testing.T) {
	n := newNode(t)
	flannel := filepath.Join(n.BinDir, "flannel")
	n.write(flannel, "flannel's own")
	n.Names = []string{"selvage", "flannel"}
	n.says(n.install().Done, "bin/selvage is now", "bin/flannel is now", "conflist is written")
	n.write(flannel, "flannel's own again")
	r, err := Uninstall(n.Options)
	if err != nil {
		t.Fatal(err)
	}
	n.says(r.Warnings, "flannel is not selvage: kept")
	n.wantFiles(n.BinDir, "bridge", "flannel", "host-local", "portmap")
	n.Force = true
	if r, err = Uninstall(n.Options); err != nil {
		t.Fatal(err)
	}
	n.says(r.Done, "bin/flannel is removed")
}

func TestNotReady(t *testing.T) {
	n := newNode(t)
	if err := os.Remove(n.SubnetFile); err != nil {
		t.Fatal(err)
	}
	r, err := Install(t.Context(), n.Options)
	if !errors.Is(err, ErrNotReady) || !strings.Contains(err.Error(), "is it running?") {
		t.Errorf("got %v", err)
	}
	n.says(r.Done, "selvage is now") // the program does no harm
	n.wantFiles(n.ConfDir)

	n.Wait = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Install(ctx, n.Options); !errors.Is(err, ErrNotReady) {
		t.Errorf("got %v", err)
	}
	written := make(chan struct{})
	go func() { defer close(written); n.ready() }()
	n.says(n.install().Done, "up to date", "conflist is written")
	<-written

	n.write(n.SubnetFile, "FLANNEL_MTU=x")
	if _, err := Install(t.Context(), n.Options); err == nil || errors.Is(err, ErrNotReady) {
		t.Errorf("a damaged subnet file: %v", err)
	}
}

func TestInstallErrors(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*node)
		want  string
	}{
		"no program":       {func(n *node) { n.Program = "/nonexistent" }, "/nonexistent: no such file"},
		"another program":  {func(n *node) { n.Program = "/bin/sh" }, "/bin/sh is not the plugin"},
		"name with a path": {func(n *node) { n.Names = []string{"../selvage"} }, `"../selvage" is no name for a plugin`},
		"no name":          {func(n *node) { n.Names = []string{""} }, `"" is no name for a plugin`},
		"no bridge":        {func(n *node) { n.remove("bridge") }, "has no plugin bridge: install the reference plugins"},
		"no host-local":    {func(n *node) { n.remove("host-local") }, "has no plugin host-local"},
		"file name":        {func(n *node) { n.Conflist = "10-selvage.conf" }, `"10-selvage.conf" is not the name of a list that runtimes read`},
		"file path":        {func(n *node) { n.Conflist = "../x.conflist" }, `"../x.conflist" is not the name`},
		"no template":      {func(n *node) { n.Template = "/nonexistent" }, "/nonexistent: no such file"},
		"bin is a file":    {func(n *node) { n.BinDir = n.SubnetFile }, "not a directory"},
		"conf is a file":   {func(n *node) { n.ConfDir = n.SubnetFile }, "not a directory"},
		"in the way":       {func(n *node) { n.write(filepath.Join(n.BinDir, "selvage", "x"), "") }, "is a directory"},
		"in the way too":   {func(n *node) { n.write(filepath.Join(n.ConfDir, "10-selvage.conflist", "x"), "") }, "is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			test.spoil(n)
			if _, err := Install(t.Context(), n.Options); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func (n *node) remove(plugin string) {
	n.Helper()
	if err := os.Remove(filepath.Join(n.BinDir, plugin)); err != nil {
		n.Fatal(err)
	}
}

func TestUninstallErrors(t *testing.T) {
	n := newNode(t)
	n.Conflist = "../x.conflist"
	if _, err := Uninstall(n.Options); err == nil {
		t.Error("took a path for a file name")
	}
	n.Conflist = ""
	n.write(filepath.Join(n.BinDir, "selvage", "x"), "")
	if _, err := Uninstall(n.Options); err == nil || !strings.Contains(err.Error(), "remove the plugin") {
		t.Errorf("got %v", err)
	}
	n.write(filepath.Join(n.ConfDir, "10-selvage.conflist", "x"), "")
	if _, err := Uninstall(n.Options); err == nil || !strings.Contains(err.Error(), "remove the network configuration") {
		t.Errorf("got %v", err)
	}
}
