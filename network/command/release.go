package command

import (
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/grpclog"

	"github.com/selvage-net/selvage/network/node"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/etcd"
)

// Release releases a lease.
func Release(defaultStateDir string) *cobra.Command {
	var (
		o        etcd.Options
		stateDir string
		force    bool
	)
	c := &cobra.Command{
		Use:   "release [SUBNET]",
		Short: "Release the lease of this node, or of a subnet",
		Long: `release deletes a lease from etcd, so that its subnet is free at once and not when the lease expires.
It is for a node that is taken out of service. Stop its daemon first: a running daemon claims its subnet again.

Without SUBNET it releases this node's own lease, found by the instance id in the state directory.
A reservation (a key without an etcd lease) is kept, unless --force is given.`,
		Example: `  systemctl stop selvaged && selvaged release --etcd-endpoints=http://10.0.0.1:2379
  selvaged release 10.5.29.0/24`,
		Args: cobra.MaximumNArgs(1),

		ValidArgsFunction: completePeers(subnetsOf),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := FromEnvironment(cmd.Flags(), os.LookupEnv); err != nil {
				return err
			}
			match, err := leaseOf(args, stateDir, o.Prefix)
			if err != nil {
				return err
			}
			log := logrus.New()
			log.SetLevel(logrus.ErrorLevel)
			o.Log = log
			grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
			store, err := etcd.New(o)
			if err != nil {
				return err
			}
			defer store.Close()
			r, err := store.ReleaseNode(cmd.Context(), match, force)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "released %s\n", r.Name)
			return err
		},
	}
	EtcdFlags(c.Flags(), &o)
	c.Flags().StringVar(&stateDir, "state-dir", defaultStateDir, "directory with this node's identity")
	c.Flags().BoolVar(&force, "force", false, "also delete a reservation")
	return c
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
