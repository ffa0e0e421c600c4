package cniplugin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	records "github.com/selvage-net/selvage/subnet/attachment"
	"github.com/selvage-net/selvage/subnet/subnetfile"
	"github.com/selvage-net/selvage/subnet/subnettest"
)

// light is a delegate that succeeds.
const light = `#!/bin/sh
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion":"1.1.0","ips":[{"address":"10.5.29.2/24"}]}'
`

// TestDamagedFiles: with the files damaged that the plugin reads about a container, that container can be deleted and
// collected, and one can be added. What only the daemon or a person can repair is named.
func TestDamagedFiles(t *testing.T) {
	n := newNode(t)
	subnetFile := filepath.Join(n.dir, "subnet.env")
	reserved := filepath.Join(n.dir, "networks", "cbr0")
	own := []string{ // which the plugin repairs
		filepath.Join(n.state, "cbr0:c1:eth0"), filepath.Join(n.state, "c1"),
		filepath.Join(reserved, "10.5.29.2"), filepath.Join(reserved, "10.5.29.9"),
		filepath.Join(records.Dir(subnetFile), "cbr0:c1:eth0"),
	}
	lock := filepath.Join(reserved, "lock")
	for _, plugin := range []string{"bridge", "host-local"} {
		write(t, filepath.Join(n.dir, plugin), light)
	}
	if err := os.MkdirAll(reserved, 0o700); err != nil {
		t.Fatal(err)
	}
	n.conf["cniVersion"] = "1.1.0"
	all := func(first string) (errs []string) {
		order := map[string][]string{"DEL": {"DEL", "ADD", "GC"}, "GC": {"GC", "ADD", "DEL"}, "ADD": {"ADD", "DEL", "GC"}}
		for _, verb := range append(order[first], "STATUS") {
			n.args.ContainerID, n.args.IfName = "c1", "eth0"
			delete(n.conf, "cni.dev/valid-attachments")
			if verb == "GC" {
				n.collect(attachments{})
			}
			do := map[string]func(*args) error{"ADD": n.verbs.Add, "DEL": n.verbs.Del, "GC": n.verbs.GC, "STATUS": n.verbs.Status}
			if err := n.call(do[verb]); err != nil {
				errs = append(errs, verb+": "+err.Error())
			}
		}
		return errs
	}
	for _, d := range subnettest.Damages() {
		for _, first := range []string{"DEL", "GC", "ADD"} {
			for _, path := range own {
				if err := d.Apply(path, []byte("c2\r\neth0")); err != nil {
					t.Fatal(err)
				}
			}
			for _, e := range all(first) {
				if !d.Holds || !strings.HasPrefix(e, "ADD: ") || !strings.Contains(e, own[0]+": is a directory") {
					t.Errorf("%s, first %s: %s", d.Name, first, e)
				}
			}
			for _, path := range own {
				_, err := os.Lstat(path)
				stays := d.Holds || d.Name == "directory" && path == own[1] || // which is not the plugin's
					d.Name == "cut" && strings.HasPrefix(path, reserved) // it names its container: host-local frees it
				if err == nil && !stays {
					t.Errorf("%s, first %s: %s is still there", d.Name, first, path)
				}
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
			}
			if errs := all(first); len(errs) > 0 {
				t.Errorf("after %s: %q", d.Name, errs)
			}
		}
		for _, path := range []string{subnetFile, subnetfile.StatusPath(subnetFile), lock} {
			if err := d.Apply(path, testFile().Marshal()); err != nil {
				t.Fatal(err)
			}
			write(t, own[2], "") // so that the lock is needed
			for _, e := range all("DEL") {
				byDaemon := path != lock && !strings.HasPrefix(e, "DEL") && !strings.HasPrefix(e, "GC")
				byHostLocal := path == lock && d.Holds && strings.HasPrefix(e, "GC: ")
				if !byDaemon && !byHostLocal || !strings.Contains(e, path) {
					t.Errorf("%s is %s: %s", path, d.Name, e)
				}
			}
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			write(t, subnetFile, string(testFile().Marshal()))
		}
	}
}

// TestDamagedSubnetFile: what is not a whole subnet file is an error that names the file and what to do.
func TestDamagedSubnetFile(t *testing.T) {
	for _, d := range subnettest.Damages() {
		n := newNode(t)
		path := filepath.Join(n.dir, "subnet.env")
		if err := d.Apply(path, nil); err != nil {
			t.Fatal(err)
		}
		code := types.ErrDecodingFailure
		switch d.Name {
		case "directory", "full directory":
			code = types.ErrIOFailure
		case "dangling link":
			code = types.ErrTryAgainLater
		}
		n.fails(n.verbs.Add, code, path)
	}
}
