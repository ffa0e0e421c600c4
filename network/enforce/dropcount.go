package enforce

import (
	"cmp"
	"slices"

	"github.com/selvage-net/selvage/network/enforce/ruleset"
	"github.com/selvage-net/selvage/network/policy"
)

// maxDropCounts is how many kinds of drops are counted apart. What comes after that is counted as one.
const maxDropCounts = 200

// DropKind is what drops are counted by.
type DropKind struct {
	Namespace string // of the pod whose policies denied the packet; empty: that is not known, or of too many kinds
	Direction policy.Direction
	Reason    ruleset.Reason // empty: of too many kinds
	// Policy denied it: the ClusterNetworkPolicy, or the first by name of the NetworkPolicies that isolate the pod.
	// Empty: none, as with a source that is not the pod's.
	Policy string
}

// DropCount is how many drops of a kind were reported since the engine was started. Rules bound how many a second are.
type DropCount struct {
	DropKind
	Count uint64
}

// kindOf returns what a drop is counted by.
func (d Drop) kindOf() DropKind {
	k := DropKind{Direction: d.Direction, Reason: d.Reason, Policy: d.Policy}
	end := d.Source
	if d.Direction == policy.Ingress {
		end = d.Destination
	}
	k.Namespace, _ = end.pod()
	if len(d.Isolated) > 0 {
		k.Policy = slices.Min(d.Isolated)
	}
	return k
}

// countDrop counts a drop. e.mu is locked.
func (e *Engine) countDrop(d Drop) {
	k := d.kindOf()
	if _, known := e.dropCounts[k]; !known && len(e.dropCounts) >= maxDropCounts {
		k = DropKind{Direction: d.Direction}
	}
	e.dropCounts[k]++
}

// DropCounts returns how many drops were reported, sorted by kind.
func (e *Engine) DropCounts() []DropCount {
	e.mu.Lock()
	list := make([]DropCount, 0, len(e.dropCounts))
	for k, n := range e.dropCounts {
		list = append(list, DropCount{k, n})
	}
	e.mu.Unlock()
	slices.SortFunc(list, func(a, b DropCount) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Direction, b.Direction),
			cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Policy, b.Policy))
	})
	return list
}
