package network

import (
	"fmt"
	"net/netip"
	"time"
)

// This file has the objects of the fast path, see package network/fastpath: what its programs know of other nodes, and
// where they are attached. Where there is no fast path, changes of both have no effect.

// FastPeer is the node that has a subnet, as the programs know it; its key is the subnet.
type FastPeer struct {
	Address netip.Addr // on the underlay
	MAC     MAC        // of its VXLAN device; zero if Direct
	Direct  bool       // packets to it go without a tunnel
}

// ProgramKey names a program of the fast path on a device.
type ProgramKey struct {
	Link    string
	Program string // its name in the kernel, such as "from_pod"
}

// Program is the state of a program on a device. All of it is desired.
type Program struct {
	Current bool // it is the one that this process has loaded, not one of an earlier run
	Pinned  bool // it outlives the process, if there is a file system for that
	Last    bool // no program of another process comes after it, which would not see fast packets
}

// InForce is the desired state of every program.
func InForce() Program { return Program{Current: true, Pinned: true, Last: true} }

// programsLate is how long programs wait for what traffic depends on. A change at a tcx hook takes some 15 ms, and the
// kernel's lock of all routing and devices with it (RTNL), so those of a few ports would double the time in which a
// bridge or a VXLAN device that was deleted is back. Without programs packets are slow, and that is all.
const programsLate = 250 * time.Millisecond

// busyGap is how long nothing changes between two such times, see [busy].
const busyGap = programsLate

// addFastPath adds the kinds of the fast path. They are set after all that decides about packets, and removed before.
func (t *Tables) addFastPath() {
	t.FastPeers = add(t, kind[netip.Prefix, FastPeer]{
		name:    "fast-peer",
		items:   func(s *State) []Item[netip.Prefix, FastPeer] { return s.FastPeers },
		command: fastPeerCommand, optional: true,
		ours: func(netip.Prefix, FastPeer) bool { return true },
	})
	t.Programs = add(t, kind[ProgramKey, Program]{
		name:    "program",
		items:   func(s *State) []Item[ProgramKey, Program] { return s.Programs },
		command: programCommand, optional: true, late: programsLate,
		ours: func(ProgramKey, Program) bool { return true },
		link: func(k ProgramKey, _ Program) string { return k.Link },
	})
}

// FastPathGone records that another fast path has taken the place of the last one, or that there is none now. What has
// to be set again is no repair.
func (t *Tables) FastPathGone() {
	t.FastPeers.cascadeGone(func(netip.Prefix, FastPeer) bool { return true })
	t.Programs.cascadeGone(func(ProgramKey, Program) bool { return true })
}

// No tool of the kernel's sets these: a line says what is there.
func fastPeerCommand(p netip.Prefix, v FastPeer) string {
	if v.Direct {
		return fmt.Sprintf("# fast path: subnet %s dst %s direct", p, v.Address)
	}
	return fmt.Sprintf("# fast path: subnet %s dst %s lladdr %s", p, v.Address, v.MAC)
}

func programCommand(k ProgramKey, v Program) string {
	return fmt.Sprintf("# fast path: program %s%s%s%s", k, unless(v.Current, " of an earlier run"),
		unless(v.Pinned, " not pinned"), unless(v.Last, " not last"))
}

// String returns the form "from_pod dev veth0".
func (k ProgramKey) String() string { return fmt.Sprintf("%s dev %s", k.Program, k.Link) }
