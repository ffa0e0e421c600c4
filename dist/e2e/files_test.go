package e2e

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// TestFilesAreKept: what a daemon writes for others comes back by itself, whatever somebody does to it. The daemon looks at
// it every hour here, so that nothing but the change itself can have told it.
func TestFilesAreKept(t *testing.T) {
	l := start(t, lab.Options{Nodes: 1, DaemonArgs: []string{"--resync=1h"}})
	ctx := testctx.New(t)
	node := l.Nodes()[0]
	waitForReady(ctx, t, node)
	var before []byte
	if err := node.Do(func() (err error) { before, err = os.ReadFile(subnetFile); return err }); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "leases kept", func() error { return node.Do(func() error { _, err := os.Stat(leasesFile); return err }) })
	status := subnetfile.StatusPath(subnetFile)
	for _, tt := range []struct {
		what string
		do   func() error
	}{
		{"the subnet file is removed", func() error { return os.Remove(subnetFile) }},
		{"the subnet file is emptied", func() error { return os.Truncate(subnetFile, 0) }},
		{"another daemon writes its own", func() error { return os.WriteFile(subnetFile, []byte("FLANNEL_SUBNET=10.9.9.1/24\n"), 0o644) }},
		{"its directory is removed", func() error { return os.RemoveAll(filepath.Dir(subnetFile)) }},
		{"it is removed once more", func() error { return os.Remove(subnetFile) }},
		{"a status file says not usable", func() error { return subnetfile.WriteStatus(subnetFile, subnetfile.Status{Reason: "not ours"}) }},
		{"a status file cannot be read", func() error { return os.WriteFile(status, []byte("{"), 0o644) }},
		{"the kept leases are removed", func() error { return os.RemoveAll(leasesFile) }},
	} {
		if err := node.Do(tt.do); err != nil {
			t.Fatalf("%s: %v", tt.what, err)
		}
		waitFor(ctx, t, tt.what, func() error {
			return node.Do(func() error {
				now, err := os.ReadFile(subnetFile)
				if err == nil && string(now) != string(before) {
					err = errors.New("the subnet file holds " + string(now))
				}
				if _, statErr := os.Stat(status); !errors.Is(statErr, fs.ErrNotExist) {
					err = errors.Join(err, errors.New("there is still a status file"), statErr)
				}
				_, keptErr := os.Stat(leasesFile)
				return errors.Join(err, keptErr)
			})
		})
	}
}
