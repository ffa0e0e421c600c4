package feed

import "github.com/selvage-net/selvage/network/policy"

// Sink takes what a feed has read. Its methods are safe for concurrent use, and do not call the feed.
type Sink interface {
	// Update calls f with what takes the objects. All changes of a call belong together.
	Update(f func(policy.Objects))
	// SetSynced says whether all objects are known that decide what is allowed. It is a level, false at first. While it
	// is false, an object that is missing may only be unknown: nothing may be removed for that, and no connection cut.
	SetSynced(synced bool)
	// NeedsPeers reports whether the pods of other nodes are needed. When it becomes true, the sink is not in sync
	// until SetSynced(true) is called again.
	NeedsPeers() bool
	// PeersChanged has a value after NeedsPeers has changed.
	PeersChanged() <-chan struct{}
}
