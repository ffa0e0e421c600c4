package lab

import (
	"context"
	"fmt"
	"slices"
)

// Fault is something that can go wrong on a node. To add one, add a line to [Faults].
type Fault struct {
	Name string // as the command takes it
	Does string // for people, what it does
	// Inject does it. peers are the nodes that it is about; those that concern the node alone take no notice of them.
	Inject func(ctx context.Context, l *Lab, node *Node, peers []*Node) error
}

// Faults lists what can be injected by name. Tests may as well call the methods of [Node] and [Store] themselves.
func Faults() []Fault {
	return []Fault{
		{"route-del", "delete the routes to peers", onPeers((*Node).DeleteRoutes)},
		{"neigh-del", "delete the ARP and ND entries of peers", onPeers((*Node).DeleteNeighbours)},
		{"fdb-del", "delete the FDB entries of peers", onPeers((*Node).DeleteFDB)},
		{"addr-flush", "delete the overlay device's addresses", onNode((*Node).FlushAddresses)},
		{"device-flap", "set the overlay device down and up", onNode(func(n *Node) error { return n.DeviceDown(true) })},
		{"device-down", "set the overlay device down", onNode(func(n *Node) error { return n.DeviceDown(false) })},
		{"device-del", "delete the overlay device", onNode((*Node).DeviceDelete)},
		{"bridge-down", "set the bridge of the node's pods down",
			onNode(func(n *Node) error { return n.SetBridge(false) })},
		{"rules-flush", "flush all of nf_tables, and iptables' filter and nat tables of each family", flushRules},
		{"daemon-kill", "kill the daemon", onNode(func(n *Node) error { n.Kill(); return nil })},
		{"daemon-stop", "stop the daemon", func(ctx context.Context, _ *Lab, n *Node, _ []*Node) error { return n.Stop(ctx) }},
		{"daemon-start", "start the daemon", onNode((*Node).Start)},
		{"etcd-kill", "kill every etcd member, or the API server", onStore(func(_ context.Context, s Store) error { s.Kill(); return nil })},
		{"etcd-start", "start them again", onStore(func(ctx context.Context, s Store) error { return s.Start(ctx) })},
	}
}

// FindFault returns the fault of that name. The error lists the names.
func FindFault(name string) (Fault, error) {
	faults := Faults()
	i := slices.IndexFunc(faults, func(f Fault) bool { return f.Name == name })
	if i >= 0 {
		return faults[i], nil
	}
	var names []string
	for _, f := range faults {
		names = append(names, f.Name)
	}
	return Fault{}, fmt.Errorf("there is no fault %q, want one of %q", name, names)
}

func onNode(fn func(*Node) error) func(context.Context, *Lab, *Node, []*Node) error {
	return func(_ context.Context, _ *Lab, node *Node, _ []*Node) error { return fn(node) }
}

func onPeers(fn func(*Node, ...*Node) error) func(context.Context, *Lab, *Node, []*Node) error {
	return func(_ context.Context, _ *Lab, node *Node, peers []*Node) error { return fn(node, peers...) }
}

func onStore(fn func(context.Context, Store) error) func(context.Context, *Lab, *Node, []*Node) error {
	return func(ctx context.Context, l *Lab, _ *Node, _ []*Node) error { return fn(ctx, l.store) }
}

// PeersOf returns the nodes but the given one.
func (l *Lab) PeersOf(node *Node) []*Node {
	return slices.DeleteFunc(l.Nodes(), func(n *Node) bool { return n == node })
}
