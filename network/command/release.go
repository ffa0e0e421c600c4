package command

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network/node"
	"github.com/selvage-net/selvage/subnet"
)

// Release releases a lease.
func Release(defaultStateDir string) *cobra.Command {
	var (
		o        StoreOptions
		stateDir string
		force    bool
	)
	c := &cobra.Command{
		Use:   "release [SUBNET]",
		Short: "Release the lease of this node, or of a subnet",
		Long: `release deletes a lease from etcd, so that its subnet is free at once and not when the lease expires.
It is for a node that is taken out of service. Stop its daemon first: a running daemon claims its subnet again.

Without SUBNET it releases this node's own lease, found by the instance id in the state directory.
A reservation (a key without an etcd lease) is kept, unless --force is given.

With --kube-subnet-mgr, it removes the annotations from the Node, so that other nodes remove it from the overlay. The
Node and its podCIDR stay.`,
		Example: `  systemctl stop selvaged && selvaged release --etcd-endpoints=http://10.0.0.1:2379
  selvaged release 10.5.29.0/24
  selvaged release --kube-subnet-mgr --kubeconfig-file=/etc/kubernetes/admin.conf 10.244.3.0/24`,
		Args: cobra.MaximumNArgs(1),

		ValidArgsFunction: completePeers(subnetsOf),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.fromEnvironment(cmd.Flags()); err != nil {
				return err
			}
			match, err := leaseOf(args, stateDir, o.Prefix())
			if err != nil {
				return err
			}
			r, err := o.release(cmd.Context(), match, force)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "released %s\n", r.Name)
			return err
		},
	}
	StoreFlags(c.Flags(), &o)
	c.Flags().StringVar(&stateDir, "state-dir", defaultStateDir, "directory with this node's identity")
	c.Flags().BoolVar(&force, "force", false, "also delete a reservation")
	return c
}

// release releases the lease that match picks, and returns its record.
func (o *StoreOptions) release(
	ctx context.Context, match func(subnet.Lease) bool, force bool,
) (r subnet.Record, err error) {
	if !o.Kubernetes {
		store, err := o.openEtcd(quiet())
		if err != nil {
			return r, err
		}
		defer store.Close()
		return store.ReleaseNode(ctx, match, force)
	}
	store, err := o.Open(quiet())
	if err != nil {
		return r, err
	}
	defer store.Close()
	all, malformed, err := snapshot(ctx, store)
	if err != nil {
		return r, fmt.Errorf("release a lease: %w", err)
	}
	all = slices.DeleteFunc(all, func(r subnet.Record) bool { return !match(r.Lease) })
	switch {
	case len(all) == 0 && len(malformed) > 0:
		return r, fmt.Errorf("release a lease: no Node has this lease; Nodes with malformed annotations: %s",
			strings.Join(malformed, ", "))
	case len(all) == 0:
		return r, fmt.Errorf("release a lease: no Node has this lease")
	case len(all) > 1:
		return r, fmt.Errorf("release a lease: %d Nodes match, such as %s and %s: "+
			"correct their annotations with kubectl", len(all), all[0].Name, all[1].Name)
	}
	return all[0], store.Release(ctx, all[0])
}

// leaseOf returns a function that matches the lease to release.
func leaseOf(args []string, stateDir, prefix string) (func(subnet.Lease) bool, error) {
	if len(args) == 0 {
		id, err := node.InstanceID(node.StateDir(stateDir, prefix))
		if err != nil {
			return nil, fmt.Errorf("%w; or name the subnet of the lease: selvaged release SUBNET", err)
		}
		return func(l subnet.Lease) bool { return l.InstanceID == id }, nil
	}
	p, err := netip.ParsePrefix(args[0])
	if err != nil || p != p.Masked() {
		return nil, fmt.Errorf("%q is not a subnet such as 10.5.29.0/24", args[0])
	}
	return func(l subnet.Lease) bool { return l.Endpoints[subnet.FamilyOf(p.Addr())].Subnet == p }, nil
}
