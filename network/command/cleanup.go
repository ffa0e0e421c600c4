package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/enforce"
	"github.com/selvage-net/selvage/network/filter"
	"github.com/selvage-net/selvage/network/kernel"
	"github.com/selvage-net/selvage/network/mesh/exchange"
	"github.com/selvage-net/selvage/network/node"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/userspace"
	"github.com/selvage-net/selvage/network/vtepfilter"
	"github.com/selvage-net/selvage/subnet/attachment"
	"github.com/selvage-net/selvage/subnet/kube"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// cleanup has the flags of the command.
type cleanup struct {
	dryRun, rules, all           bool
	prefix, annotations          string // of the network to remove
	socket, subnetFile, stateDir string
	bpffs                        string

	out     io.Writer
	network *found // to remove
	alone   bool   // no other network is on this node
}

// Cleanup removes everything that selvage created on a node.
func Cleanup(defaultSubnetFile, defaultStateDir string) *cobra.Command {
	var o cleanup
	c := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove everything that selvage created on this node",
		Long: `cleanup removes what selvaged leaves in place when it exits so that pods stay connected: devices, routes,
packet filter rules, the subnet file and the files beside it, and the state directory with the node's identity. Use it
on a node that leaves the overlay. Pods lose their connections, so drain the node first. A bridge with the gateway
address of the node's subnet is removed if it has no ports. Nothing else that another program created is removed; the
records of pods that still run stay, too.

If several daemons kept several networks on this node, name one by its --etcd-prefix, or --kube-annotation-prefix: what
belongs to the others stays. With one network on the node, no name is needed.

First stop the daemon and release its lease. The release needs the node's identity, so run it before cleanup:
systemctl disable --now selvaged; selvaged release; selvaged cleanup; selvaged install-cni --uninstall.`,
		Example: `  selvaged cleanup --dry-run
  selvaged cleanup --rules   # no devices, and no routes to peers: for a node that returns to flannel`,
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
	f.BoolVar(&o.rules, "rules", false,
		"remove only what drops or changes packets: packet filter rules, blackhole routes and the fast path")
	f.StringVar(&o.prefix, "etcd-prefix", "", "remove only the network with this prefix of its keys in etcd")
	f.StringVar(&o.annotations, "kube-annotation-prefix", "",
		"remove only the network with this prefix of its annotations in Kubernetes")
	f.BoolVar(&o.all, "all", false, "remove all networks")
	f.StringVar(&o.socket, "socket", status.DefaultSocket,
		"path of the daemon's socket, to check that the daemon is stopped")
	f.StringVar(&o.subnetFile, "subnet-file", defaultSubnetFile, "path of the daemon's subnet file")
	f.StringVar(&o.stateDir, "state-dir", defaultStateDir, "the daemon's state directory")
	f.StringVar(&o.bpffs, "bpffs", "/sys/fs/bpf", "BPF file system with what the daemon's fast path has pinned")
	return c
}

func (o cleanup) run(ctx context.Context, w io.Writer) error {
	if o.annotations != "" {
		prefix, err := kube.ParsePrefix(o.annotations)
		if err != nil {
			return fmt.Errorf("--kube-annotation-prefix: %w", err)
		}
		if o.prefix != "" {
			return errors.New("--kube-annotation-prefix and --etcd-prefix: want one of them")
		}
		o.prefix = network.KubernetesPrefix(prefix)
	}
	if o.all && o.prefix != "" {
		return errors.New("--all and --etcd-prefix: want one of them")
	}
	if !o.dryRun {
		if err := kernel.Permitted(); err != nil {
			return fmt.Errorf("nothing was removed: %w", err)
		}
	}
	all, err := o.networks()
	if err != nil {
		return err
	}
	chosen, others, err := o.choose(all)
	if err != nil {
		return err
	}
	if err := o.running(ctx, chosen); err != nil {
		return err
	}
	o.out, o.alone, o.network = w, len(others) == 0, chosen
	say := func(name string) {
		verb := "removed"
		if o.dryRun {
			verb = "would remove"
		}
		fmt.Fprintln(w, verb, name)
	}
	steps := []func(context.Context, func(string)) error{
		o.fastPath, o.entries, o.filter, o.vteps, o.policies, o.bridges, o.files,
	}
	if o.rules {
		steps = []func(context.Context, func(string)) error{o.fastPath, o.backstops, o.filter, o.vteps, o.policies}
	}
	var errs []error
	for _, step := range steps {
		errs = append(errs, step(ctx, say)) // a failed step does not stop the others
	}
	return errors.Join(errs...)
}

// fastPath detaches the programs of the fast path.
func (o cleanup) fastPath(_ context.Context, say func(string)) error {
	pins := node.FastPathPins(o.bpffs, o.network.prefix)
	found, err := node.RemoveFastPath(pins, o.dryRun)
	if err == nil && found {
		say("fast path pinned in " + pins)
	}
	return err
}

// entries removes the links, routes and other kernel entries that selvage owns: the desired state is empty.
func (o cleanup) entries(_ context.Context, say func(string)) error {
	tables, k, err := o.tables()
	if err != nil {
		return err
	}
	defer k.Close()
	r := network.Reconciler{Tables: tables}
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

// bridges removes the pods' bridge, which the bridge plugin created, if it has no ports: by the gateway addresses in
// the subnet file.
func (o cleanup) bridges(_ context.Context, say func(string)) error {
	file, err := subnetfile.Read(o.subnetFile)
	if errors.Is(err, fs.ErrNotExist) || !o.ownsFile() {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the pods' bridge stays: %w", err)
	}
	var gateways []netip.Prefix
	for _, s := range file.Subnets {
		if s.IsValid() {
			gateways = append(gateways, s)
		}
	}
	names, err := kernel.RemoveIdleBridges(gateways, o.dryRun)
	for _, name := range names {
		say("bridge " + name)
	}
	return err
}

// filter removes the packet filter rules.
func (o cleanup) filter(ctx context.Context, say func(string)) error {
	var errs []error
	for _, tag := range o.network.tags {
		errs = append(errs, o.filterOf(ctx, tag, say))
	}
	return errors.Join(errs...)
}

func (o cleanup) filterOf(ctx context.Context, tag string, say func(string)) error {
	k := filter.NewKeeper()
	defer k.Close()
	names, err := k.Ours(tag)
	if err != nil || len(names) == 0 {
		return err
	}
	if !o.dryRun {
		if _, err := k.Remove(ctx, tag); err != nil {
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
	var errs []error
	for _, tag := range o.network.tags {
		errs = append(errs, o.vtepsOf(network.Tagged(vtepfilter.Table, tag), say))
	}
	return errors.Join(errs...)
}

func (o cleanup) vtepsOf(table string, say func(string)) error {
	f, err := vtepfilter.Open(table)
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
	say("table inet " + table)
	return nil
}

// policies removes the tables of network policies. The CNI plugin does not wait for the rules of a pod any more.
func (o cleanup) policies(_ context.Context, say func(string)) error {
	tags := slices.Clone(o.network.tags)
	if tag := node.PolicyScope(o.network.prefix).Tag(); o.network.prefix != "" && !slices.Contains(tags, tag) {
		tags = append(tags, tag)
	}
	var errs []error
	for _, tag := range tags {
		names, err := enforce.Remove(tag, o.dryRun)
		for _, name := range names {
			say(name)
		}
		errs = append(errs, err)
	}
	if s, err := subnetfile.ReadStatus(o.subnetFile); err == nil && s.PolicySocket != "" && o.ownsFile() && !o.dryRun {
		s.PolicySocket = ""
		errs = append(errs, subnetfile.WriteStatus(o.subnetFile, s))
	}
	return errors.Join(errs...)
}

// ownsFile reports whether the subnet file is that of the network to remove, as far as is known.
func (o cleanup) ownsFile() bool {
	owner := node.SubnetFileOwner(o.subnetFile)
	return o.alone || owner == "" || owner == o.network.prefix
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
	for _, dir := range o.network.stateDirs {
		for _, name := range stateFiles() {
			remove(filepath.Join(dir, name))
		}
	}
	if o.ownsFile() {
		remove(o.subnetFile)
		remove(subnetfile.StatusPath(o.subnetFile))
		remove(node.LockPath(o.subnetFile))
		errs = append(errs, o.records(say))
	}
	if o.alone {
		for _, path := range userspace.Stale() {
			remove(path)
		}
	}
	if conn, err := net.Dial("unix", o.socket); err == nil {
		conn.Close() // another network's daemon listens there
	} else {
		remove(o.socket)
	}
	if !o.dryRun {
		others := []string{o.stateDir, filepath.Dir(o.subnetFile), filepath.Dir(o.socket)}
		for _, dir := range slices.Concat(o.network.stateDirs, others) {
			_ = os.Remove(dir) // fails, and so keeps the directory, if other files are in it
		}
	}
	return errors.Join(errs...)
}

// records removes the CNI plugin's records of attachments. Those of pods that run stay: a daemon that is started again
// repairs what these pods depend on.
func (o cleanup) records(say func(string)) error {
	dir := attachment.Dir(o.subnetFile)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	used, err := attachment.InUse(dir)
	if err == nil && !o.dryRun {
		err = attachment.Clear(dir)
	}
	switch {
	case err != nil:
		return err
	case used > 0:
		fmt.Fprintf(o.out, "kept %s: %d interfaces of pods that run are recorded there\n", dir, used)
	default:
		say(dir)
	}
	return nil
}

// stateFiles are the daemon's files in a state directory. --state-dir may name another directory by mistake.
func stateFiles() []string {
	names := []string{"node.json", "leases", "leases.damaged", "network.json", "lock", "backend.json"}
	return append(append(names, exchange.KeyFile), node.SecretFiles()...)
}
