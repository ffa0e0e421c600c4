package subnet

import "context"

// NetworkAnnouncer is implemented by a store in which a node says that its network is up, so that pods are sent to it.
//
// Kubernetes: yes, by the condition NetworkUnavailable of the Node.
type NetworkAnnouncer interface {
	// AnnounceNetwork says that this node's network is up. It does nothing if the store says so already, or if its
	// options leave that out. The caller calls it once its network is up, after each lease that it has claimed, and
	// again with a backoff after an error.
	AnnounceNetwork(ctx context.Context) error
}
