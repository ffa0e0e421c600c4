package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet/etcd"
)

// config has the flags of the command.
type config struct {
	store  StoreOptions
	socket string
	force  bool
	out    io.Writer
	notes  io.Writer
}

// Config shows, checks and sets the network config of the cluster.
func Config() *cobra.Command {
	var o config
	c := &cobra.Command{
		Use:   "config show | check FILE | set FILE",
		Short: "Show, check or set the network config of the cluster",
		Long: `config show prints the network config in etcd; and on stderr, its key, and whether this node's daemon
uses it.

config check validates a config (FILE, or - for standard input) and compares it with the one in etcd: what would
change, whether running nodes would follow, and which nodes would refuse it. Without etcd it only validates. The exit
code is 1 if the config is invalid, and 2 if nodes would refuse it.

config set does the same and then writes the config, unless the one in etcd was changed meanwhile. If nodes would
refuse it, it is written with --force only.

With --kube-subnet-mgr, the network config is a file on each node, --net-config-path, from a ConfigMap as a rule: show
and check read that one, and set is not possible.`,
		Example: `  selvaged config show --etcd-endpoints=http://10.0.0.1:2379
  selvaged config check network.json
  selvaged config show | sed s/1450/1400/ | selvaged config set -`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 1 && args[0] == "show", len(args) == 2 && (args[0] == "check" || args[0] == "set"):
				return nil
			}
			return errors.New("want show, check FILE or set FILE; - is standard input")
		},
		ValidArgsFunction: completeConfig,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.store.fromEnvironment(cmd.Flags()); err != nil {
				return err
			}
			o.out, o.notes = cmd.OutOrStdout(), cmd.ErrOrStderr()
			if o.store.Kubernetes && args[0] == "set" {
				return fmt.Errorf("with --kube-subnet-mgr, the network config is the file %s: check the new one with "+
					"selvaged config check, and write it into the ConfigMap that the file is from (kubectl edit "+
					"configmap), or into the file on each node", o.store.Kube.NetConfPath)
			}
			store, err := o.open()
			if err != nil {
				return err
			}
			defer store.Close()
			if args[0] == "show" {
				return o.show(cmd.Context(), store)
			}
			data, err := read(args[1], cmd.InOrStdin())
			if err != nil {
				return err
			}
			return o.apply(cmd.Context(), store, data, args[0] == "set")
		},
	}
	StoreFlags(c.Flags(), &o.store)
	c.Flags().StringVar(&o.socket, "socket", status.DefaultSocket, "path of the daemon's socket")
	c.Flags().BoolVar(&o.force, "force", false, "set the config even if nodes would refuse it")
	return c
}

// completeConfig completes the arguments: a verb, then a file.
func completeConfig(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return []cobra.Completion{"show", "check", "set"}, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveDefault
}

// read reads a file; - is standard input.
func read(path string, stdin io.Reader) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(path)
}

// show prints the config, and on stderr where it comes from.
func (o *config) show(ctx context.Context, store configStore) error {
	stored, err := store.ReadConfig(ctx)
	if err != nil {
		return err
	}
	if stored.Data == nil {
		return fmt.Errorf("there is no network config at %s", stored.Key)
	}
	fmt.Fprintf(o.out, "%s\n", strings.TrimSpace(string(stored.Data)))
	fmt.Fprintf(o.notes, "source: %s\n", o.source(stored))
	o.noteDaemon(ctx, stored)
	return nil
}

// noteDaemon prints on stderr whether this node's daemon uses the config.
func (o *config) noteDaemon(ctx context.Context, stored etcd.StoredConfig) {
	note := func(format string, args ...any) { fmt.Fprintf(o.notes, "this node: "+format+"\n", args...) }
	s, err := o.daemon(ctx)
	switch {
	case errors.Is(err, status.ErrNotRunning):
		note("the daemon does not run")
		return
	case err != nil:
		note("%s", err)
		return
	case len(s.Config) == 0:
		note("the daemon uses no config yet")
		return
	}
	switch c, err := node.Compare(o.kind(), s.Config, stored.Data, nil); {
	case err != nil:
		note("the daemon uses another config: %s", err)
	case len(c.Changes) > 0:
		note("the daemon uses another config; from that one to this one:")
		indented(o.notes, c.Changes)
	default:
		note("the daemon uses it")
	}
}

// daemon returns the state of this node's daemon. It is an error if that daemon is of another network.
func (o *config) daemon(ctx context.Context) (status.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	s, err := status.NewClient(o.socket).Status(ctx)
	if err != nil {
		return s, err
	}
	if prefix := network.NewScope(o.store.Prefix(), 0).Prefix; s.Prefix != "" && s.Prefix != prefix {
		return s, fmt.Errorf("the daemon at %s is of another network, %s; set --socket", o.socket, s.Prefix)
	}
	return s, nil
}

// apply checks a config against the one in use, and writes it if set.
func (o *config) apply(ctx context.Context, store configStore, data []byte, set bool) error {
	for _, k := range node.UnknownKeys(data) {
		fmt.Fprintf(o.out, "key without effect: %s\n", k)
	}
	if _, err := node.ParseConfig(o.kind(), data); err != nil {
		return err
	}
	fmt.Fprintln(o.out, "valid")
	stored, err := store.ReadConfig(ctx)
	if err != nil && !set {
		fmt.Fprintf(o.notes, "not compared with the config in use: %s\n", err)
		return nil
	} else if err != nil {
		return err
	}
	refused, err := o.compare(ctx, store, stored, data)
	if err != nil {
		return err
	}
	switch {
	case refused && set && !o.force:
		return errors.New("not set: nodes would refuse it; use --force to set it anyway, and restart them")
	case set && string(stored.Data) == string(data):
		fmt.Fprintln(o.out, "it is set already")
		return nil
	case set:
		if err := store.WriteConfig(ctx, stored, data); err != nil {
			return err
		}
		fmt.Fprintf(o.out, "set %s\n", stored.Key)
		return nil
	case refused:
		return Exit{ExitDegraded}
	}
	return nil
}

// compare prints what would change, and reports whether nodes would refuse it.
func (o *config) compare(
	ctx context.Context, store configStore, stored etcd.StoredConfig, data []byte,
) (refused bool, err error) {
	if stored.Data == nil {
		fmt.Fprintf(o.out, "there is no config at %s yet\n", stored.Key)
		return false, nil
	}
	if _, err := node.ParseConfig(o.kind(), stored.Data); err != nil {
		fmt.Fprintf(o.out, "the config at %s is invalid, so nodes that start wait for another one: %s\n",
			stored.Key, err)
		return false, nil
	}
	leases, err := store.Records(ctx)
	if err != nil && o.store.Kubernetes {
		fmt.Fprintf(o.notes, "not compared with the leases of other nodes: %s\n", err)
	} else if err != nil {
		return false, err
	}
	c, err := node.Compare(o.kind(), stored.Data, data, leases)
	if err != nil {
		return false, err
	}
	if len(c.Changes) == 0 {
		fmt.Fprintln(o.out, "changes: none")
		return false, nil
	}
	fmt.Fprintln(o.out, "changes:")
	indented(o.out, c.Changes)
	if c.Restart != nil {
		fmt.Fprintf(o.out, "running nodes keep the config in use until they are restarted, "+
			"all at about the same time: %s\n", c.Restart)
	}
	for _, r := range c.Refusals {
		name := r.Lease
		if r.Node != "" {
			name = r.Node + " (" + r.Lease + ")"
		}
		fmt.Fprintf(o.out, "node %s refuses it: %s\n", name, r.Reason)
	}
	if refused = c.Restart != nil || len(c.Refusals) > 0; !refused {
		fmt.Fprintf(o.out, "running nodes follow it: %d\n", len(leases))
	}
	o.uplinkMTU(ctx, data)
	return refused, nil
}

// uplinkMTU says what this node's uplink makes of Backend.MTU, if the daemon runs.
func (o *config) uplinkMTU(ctx context.Context, data []byte) {
	s, err := o.daemon(ctx)
	if err != nil || s.Uplink == nil {
		return
	}
	if mtu := node.BackendMTU(data); mtu > s.Uplink.MTU {
		fmt.Fprintf(o.out, "Backend.MTU is %d, more than the MTU of this node's uplink %s, %d: "+
			"it would use the uplink's\n", mtu, s.Uplink.Name, s.Uplink.MTU)
	}
}

func indented(w io.Writer, all []string) {
	for _, line := range all {
		fmt.Fprintln(w, "  "+line)
	}
}
