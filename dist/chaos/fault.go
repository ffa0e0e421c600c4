package chaos

import (
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
	Rules   Class = "rules" // the packet filter and the forwarding sysctl
	Daemon  Class = "daemon"
)

// Bound is how long the median and the slowest repair of a class may take; 0: as long as they like, short of failing.
func (c Class) Bound() (median, worst time.Duration) {
	switch c {
	case Entries, Device:
		return 50 * time.Millisecond, 200 * time.Millisecond
	case Rules:
		return 0, 2 * time.Second
	default:
		return 0, 0
	}
}

// Fault is something that can go wrong. What it takes to end it, if it does not end by itself, is part of it.
type Fault struct {
	Name  string
	Class Class
	// Before makes the node one on which it can be done; it is no part of the fault, and all is right after it.
	Before func(context.Context, *target) error
	// Inject does it to one node.
	Inject func(context.Context, *target) error
	// Undo ends what is not selvage's to end, such as an uplink that is down. nil: there is nothing of the kind. All is to be
	// right again some time after Undo, or after Inject if there is none.
	Undo func(context.Context, *target) error
	// Follow: all is to be right between Inject and Undo as well, in another way.
	Follow bool
	// Away is how long it is left alone between Inject and Undo.
	Away time.Duration
	// Meanwhile says what is wrong before Undo; it may wait for it to become right.
	Meanwhile func(context.Context, *target) error
	// After cleans up when all is right again, such as rules of others that the fault took away.
	After func(context.Context, *target) error
	// Unbroken: neither tables nor rules differ from what is wanted because of it alone.
	Unbroken bool
	// NoLoss: not one datagram between pods may be lost.
	NoLoss bool
	// Bound replaces the class's upper bound.
	Bound time.Duration
	// Running: it is about the running daemon, and makes no sense while there is none.
	Running bool
	// NFTables: it needs the iptables that is built on nf_tables.
	NFTables bool
	// Long: it takes so long that a random walk leaves it out.
	Long bool
}

// target is a node that a fault is done to, and a peer whose entries on it are broken.
type target struct {
	*host
	suite   *Suite
	peer    subnet.Lease
	peers   []subnet.Lease // all
	logged  int64          // size of the daemon's log before the fault
	saved   string         // what iptables-save printed before the fault, if it is one that flushes
	noted   any            // what a fault keeps from Inject to Meanwhile
	since   time.Time      // when the fault began, if that was not at once; see counts
	remarks []string       // what the fault found out beside the time
	late    []string       // bounds of its own that were exceeded
}

// counts is called by a fault that takes time itself, at the moment from which on the repair's time is to be counted.
func (t *target) counts() { t.since = time.Now() }

// Faults lists all faults.
func Faults() []Fault {
	return slices.Concat(entryFaults(), nexthopFaults(), deviceFaults(), uplinkFaults(), stackedFaults(), ruleFaults(),
		daemonFaults(), agentFaults())
}
