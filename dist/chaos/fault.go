package chaos

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// Class is a group of faults with bounds of its own.
type Class string

// The classes of faults, and how long it may take until all is right again: see [Class.Bound].
const (
	Entries Class = "entries" // routes, ARP and FDB entries
	Device  Class = "device"  // the VXLAN device with all that hangs on it
	Uplink  Class = "uplink"
	Rules   Class = "rules"    // the packet filter and the forwarding sysctl
	OwnSide Class = "own side" // what a node's own pods depend on
	Daemon  Class = "daemon"
	// Policies are what enforces network policies.
	Policies Class = "policies"
	FastPath Class = "fast path"
	// Peers are what is on WireGuard devices, and such devices themselves.
	Peers Class = "wireguard"
)

// classes are all of them, in the order in which they are summed up.
func classes() []Class {
	return []Class{Entries, Device, Peers, OwnSide, Uplink, Rules, Policies, FastPath, Daemon}
}

// Bound is how long the median and the slowest repair of a class may take; 0: as long as they like, short of failing.
func (c Class) Bound() (median, worst time.Duration) {
	switch c {
	case Entries, Device, OwnSide, Policies:
		return 50 * time.Millisecond, 200 * time.Millisecond
	case Peers: // the kernel reports no change of these: the daemon compares every second
		return 50*time.Millisecond + wireGuardInterval, 200*time.Millisecond + wireGuardInterval
	case Rules:
		return 0, 2 * time.Second
	case FastPath: // the kernel does not report most of it: the daemon looks every 5 s, and packets are slow until then
		return 5 * time.Second, 6 * time.Second
	default:
		return 0, 0
	}
}

// step is a part of a fault.
type step = func(context.Context, *target) error

// Fault is something that can go wrong. What it takes to end it, if it does not end by itself, is part of it.
type Fault struct {
	Name  string
	Class Class
	// Families are those that it can be done in: in one alone, or in all at once. nil: it is of none.
	Families []subnet.Family
	// Shared: it is of something that all its families have in common, and so is done in all of them at once.
	Shared bool
	// Before makes the node one on which it can be done; it is no part of the fault, and all is right after it.
	Before step
	// Inject does it to one node.
	Inject step
	// Undo ends what is not selvage's to end, such as an uplink that is down. nil: there is nothing of the kind. All is to be
	// right again some time after Undo, or after Inject if there is none.
	Undo step
	// Follow: all is to be right between Inject and Undo as well, in another way.
	Follow bool
	// Away is how long it is left alone between Inject and Undo.
	Away time.Duration
	// Meanwhile says what is wrong before Undo; it may wait for it to become right.
	Meanwhile step
	// After cleans up when all is right again, such as rules of others that the fault took away.
	After step
	// Unbroken: neither tables nor rules differ from what is wanted because of it alone.
	Unbroken bool
	// NoLoss: not one datagram between pods may be lost.
	NoLoss bool
	// Opens, Loses: packets that policies deny may pass, those that they allow may be lost, until it is repaired.
	// Otherwise none may, in the class [Policies].
	Opens, Loses bool
	// Bound replaces the class's upper bound; BoundAll does so if all nodes have the fault at once.
	Bound, BoundAll time.Duration
	// PerFamily: it is for each family of the overlay. With two there are twice as many entries, and after some faults the daemon
	// reads all there are.
	PerFamily bool
	// Running: it is about the running daemon, and makes no sense while there is none.
	Running bool
	// NFTables: it is about nf_tables, and has nothing to do with the legacy iptables.
	NFTables bool
	// Long: it takes so long that a random walk leaves it out.
	Long bool
}

// own is the upper bound that the fault has in the place of its class's; 0: it has none.
func (f Fault) own(w Where) time.Duration {
	if w == AllNodes && f.BoundAll > 0 {
		return f.BoundAll
	}
	return f.Bound
}

// worst is how long the slowest repair of the fault may take, see [Class.Bound].
func (f Fault) worst(w Where) time.Duration {
	_, worst := f.Class.Bound()
	return cmp.Or(f.own(w), worst)
}

// target is a node that a fault is done to, and a peer whose entries on it are broken.
type target struct {
	*host
	suite    *Suite
	families []subnet.Family // that it is done in
	peer     subnet.Lease
	peers    []subnet.Lease // all
	logged   int64          // size of the daemon's log before the fault
	saved    [2]string      // what iptables-save printed before the fault, if it is one that flushes; by family
	noted    any            // what a fault keeps from Inject to Meanwhile
	fault    time.Time      // when it was begun
	start    time.Time      // of the fault, or of its end
	since    [2]time.Time   // when that came to a family, if later: see eachFamily and counts
	remarks  []string       // what the fault found out beside the time
	late     []string       // bounds of its own that were exceeded
}

// counts is called by a fault that takes time itself, at the moment from which on the repair's time is to be counted.
func (t *target) counts() {
	for _, f := range t.families {
		t.since[f] = time.Now()
	}
}

// from is when the fault was done, in the first of its families.
func (t *target) from(families []subnet.Family) time.Time {
	from := time.Time{}
	for _, f := range families {
		if at := t.since[f]; from.IsZero() || at.Before(from) {
			from = at
		}
	}
	if from.Before(t.start) {
		return t.start
	}
	return from
}

// Faults lists the faults for a suite with these options.
func (o Options) Faults() []Fault {
	var more []Fault
	if o.Policies {
		more = policyFaults()
	}
	if o.FastPath {
		more = append(more, fastFaults(o.Backend)...)
	}
	switch {
	case o.Legacy:
		return legacyFaults()
	case o.NFTables:
		return append(nftablesFaults(), more...)
	case o.Backend == WireGuard:
		return wireGuardFaults()
	case o.Backend == Direct || o.Backend == HostGW:
		return append(directFaults(o.Backend), more...)
	case o.Leases > 0:
		return manyLeasesFaults()
	default:
		return append(allFaults(), more...)
	}
}

// allFaults are those of an overlay by VXLAN.
func allFaults() []Fault {
	return slices.Concat(entryFaults(), nexthopFaults(), deviceFaults(), ownSideFaults(), namedFaults(), uplinkFaults(),
		stackedFaults(), ruleFaults(), daemonFaults(), agentFaults(), tableFaults(vtepTable))
}
