package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/filter"
	"github.com/selvage-net/selvage/network/kernel"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/vtepfilter"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// cleanup has the flags of the command.
type cleanup struct {
	dryRun, rules                bool
	socket, subnetFile, stateDir string
}

// Cleanup removes everything that selvage created on a node.
func Cleanup(defaultSubnetFile, defaultStateDir string) *cobra.Command {
	var o cleanup
	c := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove everything that selvage created on this node",
		Long: `cleanup removes what selvaged leaves in place when it exits so that pods stay connected: devices, routes,
packet filter rules, the subnet file, and the state directory with the node's identity. Use it on a node that leaves
the overlay. Pods lose their connections, so drain the node first. Nothing that another program created is removed;
the pods' bridge stays, too.

First stop the daemon and release its lease. The release needs the node's identity, so run it before cleanup:
systemctl disable --now selvaged; selvaged release; selvaged cleanup; selvaged install-cni --uninstall.`,
		Example: `  selvaged cleanup --dry-run
  selvaged cleanup --rules   # packet filter rules only: for a node that returns to flannel`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := FromEnvironment(cmd.Flags(), os.LookupEnv); err != nil {
				return err
			}
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f := c.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "print what would be removed, and remove nothing")
	f.BoolVar(&o.rules, "rules", false, "remove only the packet filter rules")
	f.StringVar(&o.socket, "socket", status.DefaultSocket,
		"path of the daemon's socket, to check that the daemon is stopped")
	f.StringVar(&o.subnetFile, "subnet-file", defaultSubnetFile, "path of the daemon's subnet file")
	f.StringVar(&o.stateDir, "state-dir", defaultStateDir, "the daemon's state directory")
	return c
}

func (o cleanup) run(ctx context.Context, w io.Writer) error {
	asking, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if _, err := status.NewClient(o.socket).Status(asking); !errors.Is(err, status.ErrNotRunning) {
		return errors.New("selvaged is running on this node and would create everything again; " +
			"stop it first: systemctl disable --now selvaged")
	}
	if !o.dryRun {
		if err := kernel.Permitted(); err != nil {
			return fmt.Errorf("nothing was removed: %w", err)
		}
	}
	say := func(name string) {
		verb := "removed"
		if o.dryRun {
			verb = "would remove"
		}
		fmt.Fprintln(w, verb, name)
	}
	steps := []func(context.Context, func(string)) error{o.entries, o.filter, o.vteps, o.files}
	if o.rules {
		steps = []func(context.Context, func(string)) error{o.filter, o.vteps}
	}
	var errs []error
	for _, step := range steps {
		errs = append(errs, step(ctx, say)) // a failed step does not stop the others
	}
	return errors.Join(errs...)
}

// entries removes the links, routes and other kernel entries that selvage owns: the desired state is empty.
func (o cleanup) entries(_ context.Context, say func(string)) error {
	tables := network.NewTables()
	k, err := kernel.Open(tables)
	if err != nil {
		return err
	}
	defer k.Close()
	r := network.Reconciler{Tables: tables}
	if err := k.Read(); err != nil {
		return err
	}
	for range 3 { // removing one entry may reveal another
		names := tables.Unwanted()
		if o.dryRun {
			for _, name := range names {
				say(name)
			}
			return nil
		}
		var errs []error
		for _, f := range r.Pass(time.Now()).Failures {
			errs = append(errs, fmt.Errorf("%s %s: %w", f.Kind, f.Key, f.Err))
		}
		if err := k.Read(); err != nil {
			return err
		}
		left := tables.Unwanted()
		for _, name := range names { // what is gone was removed
			if !slices.Contains(left, name) {
				say(name)
			}
		}
		if err := errors.Join(errs...); err != nil || len(left) == 0 {
			return err
		}
	}
	return errors.New("another process keeps creating devices or routes that carry selvage's mark; " +
		"find and stop it")
}

// filter removes the packet filter rules.
func (o cleanup) filter(ctx context.Context, say func(string)) error {
	k := filter.NewKeeper()
	defer k.Close()
	names, err := k.Ours()
	if err != nil || len(names) == 0 {
		return err
	}
	if !o.dryRun {
		if _, err := k.Remove(ctx); err != nil {
			return err
		}
	}
	for _, name := range names {
		say(name)
	}
	return nil
}

// vteps removes the table of the VTEP filter, which accepts VXLAN packets from peers only.
func (o cleanup) vteps(_ context.Context, say func(string)) error {
	f, err := vtepfilter.Open()
	if errors.Is(err, vtepfilter.ErrUnsupported) {
		return nil // without nf_tables there is no such table
	}
	if err != nil {
		return err
	}
	defer f.Close()
	exists, err := f.Exists()
	if err != nil || !exists {
		return err
	}
	if !o.dryRun {
		if err := f.Remove(); err != nil {
			return err
		}
	}
	say("table inet " + vtepfilter.Table)
	return nil
}

// files removes the daemon's files, and their directories if they are empty then.
func (o cleanup) files(_ context.Context, say func(string)) error {
	var errs []error
	remove := func(path string) {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return
		}
		if !o.dryRun {
			if err := os.Remove(path); err != nil {
				errs = append(errs, err)
				return
			}
		}
		say(path)
	}
	names, err := filepath.Glob(filepath.Join(o.stateDir, "*"))
	if err != nil {
		return err
	}
	for _, name := range append(names, o.subnetFile, subnetfile.StatusPath(o.subnetFile), o.socket) {
		if filepath.Dir(name) == filepath.Clean(o.stateDir) && !known(filepath.Base(name)) {
			continue
		}
		remove(name)
	}
	if !o.dryRun {
		for _, dir := range []string{o.stateDir, filepath.Dir(o.subnetFile), filepath.Dir(o.socket)} {
			_ = os.Remove(dir) // fails, and so keeps the directory, if other files are in it
		}
	}
	return errors.Join(errs...)
}

// known reports whether a file in the state directory belongs to the daemon. --state-dir may name another directory by
// mistake.
func known(name string) bool {
	switch name {
	case "node.json", "leases", "leases.damaged":
		return true
	}
	return false
}
