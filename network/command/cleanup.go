package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/filter"
	"github.com/selvage-net/selvage/network/kernel"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/vtepfilter"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// cleanup is what the command is told.
type cleanup struct {
	dryRun, rules                bool
	socket, subnetFile, stateDir string
}

// Cleanup takes all that is selvage's off a node.
func Cleanup(defaultSubnetFile, defaultStateDir string) *cobra.Command {
	var o cleanup
	c := &cobra.Command{
		Use:   "cleanup",
		Short: "Take all that is selvage's off this node",
		Long: `cleanup removes what selvaged leaves when it ends, so that pods go on talking: devices, routes, rules of the packet
filter, the subnet file, and the state directory with the node's identity. It is for a node that leaves the overlay. Pods lose
their connections, so move them first. Nothing that others made is touched: the pods' bridge stays, too.

Stop the daemon before, and give its lease back, for which its identity is needed:
systemctl disable --now selvaged; selvaged release; selvaged cleanup; selvaged install-cni --uninstall.`,
		Example: `  selvaged cleanup --dry-run
  selvaged cleanup --rules   # the packet filter only: for a node that goes back to flannel`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := FromEnvironment(cmd.Flags(), os.LookupEnv); err != nil {
				return err
			}
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f := c.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be removed, and remove nothing")
	f.BoolVar(&o.rules, "rules", false, "only the rules of the packet filter")
	f.StringVar(&o.socket, "socket", status.DefaultSocket, "the daemon's socket, to see that it does not run")
	f.StringVar(&o.subnetFile, "subnet-file", defaultSubnetFile, "the daemon's")
	f.StringVar(&o.stateDir, "state-dir", defaultStateDir, "the daemon's")
	return c
}

func (o cleanup) run(ctx context.Context, w io.Writer) error {
	asking, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if _, err := status.NewClient(o.socket).Status(asking); !errors.Is(err, status.ErrNotRunning) {
		return fmt.Errorf("selvaged runs here, and would put all of it back: stop it first (systemctl disable --now selvaged)")
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
		errs = append(errs, step(ctx, say)) // one that fails keeps no other from what it can do
	}
	return errors.Join(errs...)
}

// entries removes what is in the kernel's tables: it has nothing wanted, as the daemon has its leases wanted.
func (o cleanup) entries(_ context.Context, say func(string)) error {
	tables := network.NewTables()
	k, err := kernel.Open(tables)
	if err != nil {
		return err
	}
	defer k.Close()
	r := network.Reconciler{Tables: tables}
	for range 3 { // what goes with something else may show only then
		if err := k.Read(); err != nil {
			return err
		}
		names := tables.Unwanted()
		if len(names) == 0 {
			return nil
		}
		for _, name := range names {
			say(name)
		}
		if o.dryRun {
			return nil
		}
		var errs []error
		for _, f := range r.Pass(time.Now()).Failures {
			errs = append(errs, fmt.Errorf("%s %s: %w", f.Kind, f.Key, f.Err))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return errors.New("somebody keeps making devices or routes that are marked as selvage's: find who does it")
}

// filter removes the rules.
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

// vteps removes the table that lets in VXLAN packets from peers only.
func (o cleanup) vteps(_ context.Context, say func(string)) error {
	f, err := vtepfilter.Open()
	if errors.Is(err, vtepfilter.ErrUnsupported) {
		return nil // then there is none
	}
	if err != nil {
		return err
	}
	defer f.Close()
	there, err := f.Exists()
	if err != nil || !there {
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

// files removes the daemon's files, and the directories that are empty without them.
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
			_ = os.Remove(dir) // it stays if somebody else has something in it
		}
	}
	return errors.Join(errs...)
}

// known reports whether a file in the state directory is the daemon's: another directory may have been given by mistake.
func known(name string) bool {
	switch name {
	case "node.json", "leases", "leases.damaged":
		return true
	}
	return false
}
