package lab

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/selvage-net/selvage/subnet"
)

// Store is the lab's lease store: [Etcd] or [Kube].
type Store interface {
	Records
	// PutConfig writes the network configuration.
	PutConfig(ctx context.Context, config string) error
	// Kill ends the store at once, as a power cut would. Its data stays.
	Kill()
	// Start starts it again, and waits until it serves.
	Start(ctx context.Context) error
	close() error
}

// Records are the leases in a store, of the lab's nodes and of others that do not exist.
type Records interface {
	// Leases reads every lease, ordered by node name. A record that holds none is an error.
	Leases(ctx context.Context) ([]subnet.Lease, error)
	// PutLeases writes leases of nodes that do not exist, or writes them again. They do not expire.
	PutLeases(ctx context.Context, leases []subnet.Lease) error
	// DeleteLeases deletes leases that PutLeases has written.
	DeleteLeases(ctx context.Context, leases []subnet.Lease) error
	// Version is that of a lease's record, which has another one after each write.
	Version(ctx context.Context, l subnet.Lease) (int64, error)
}

// ParseStore reads the name of a kind of store; an empty one is etcd.
func ParseStore(name string) (subnet.StoreKind, error) {
	switch kind := subnet.StoreKind(cmp.Or(name, string(subnet.StoreEtcd))); kind {
	case subnet.StoreEtcd, subnet.StoreKubernetes:
		return kind, nil
	}
	return "", fmt.Errorf("store %q: want %s or %s", name, subnet.StoreEtcd, subnet.StoreKubernetes)
}

// byNodeName orders leases: node2 comes before node10.
func byNodeName(a, b subnet.Lease) int {
	return cmp.Or(len(a.NodeName)-len(b.NodeName), strings.Compare(a.NodeName, b.NodeName))
}
