package command

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/cniplugin/install"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// TestWatchInstallsAgain: what somebody removes is back without anyone's help. It is looked at once an hour here, so that
// nothing but the removal itself can have told.
func TestWatchInstallsAgain(t *testing.T) {
	dir := t.TempDir()
	bin, err := filepath.Abs("../../bin/selvage")
	if err != nil {
		t.Fatal(err)
	}
	o := install.Options{Program: bin, Names: []string{"selvage"}, BinDir: filepath.Join(dir, "bin"), ConfDir: filepath.Join(dir, "net.d"),
		Conflist: install.DefaultConflist, SubnetFile: filepath.Join(dir, "subnet.env")}
	if err := os.Mkdir(o.BinDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, plugin := range []string{"bridge", "host-local", "portmap"} {
		if err := os.WriteFile(filepath.Join(o.BinDir, plugin), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := subnetfile.Write(o.SubnetFile, subnetfile.File{
		Networks: [2][]netip.Prefix{{netip.MustParsePrefix("10.5.0.0/16")}}, Subnets: [2]netip.Prefix{netip.MustParsePrefix("10.5.29.1/24")},
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c := &cobra.Command{}
	c.SetContext(ctx)
	c.SetOut(io.Discard)
	ended := make(chan error)
	go func() { ended <- watchCNI(c, o, time.Hour) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	plugin, conflist := filepath.Join(o.BinDir, "selvage"), filepath.Join(o.ConfDir, o.Conflist)
	installed := func() error {
		_, err := os.Stat(plugin)
		_, confErr := os.Stat(conflist)
		return errors.Join(err, confErr)
	}
	for _, remove := range [][]string{nil, {conflist}, {plugin}, {plugin, conflist}, {o.ConfDir}} {
		for _, path := range remove {
			// A file can be back before its directory is removed.
			if err := os.RemoveAll(path); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
				t.Fatal(err)
			}
		}
		for deadline := time.After(2 * time.Minute); installed() != nil; {
			select {
			case <-deadline:
				t.Fatalf("%v removed, and not back: %v", remove, installed())
			case <-time.After(time.Millisecond):
			}
		}
	}
}
