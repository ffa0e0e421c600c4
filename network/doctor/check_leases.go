package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/node/status"
)

// maxRejected is how many rejected leases are reported one by one.
const maxRejected = 5

// checkLeases looks for leases of other nodes that this node rejects, and for public IPs that several leases share.
func checkLeases(f Facts) (all []Finding) {
	if f.Status == nil || f.Status.Lease == nil {
		return nil
	}
	store, rejected := f.store(), 0
	for _, p := range f.Peers {
		if p.State != status.Quarantined {
			continue
		}
		if rejected++; rejected <= maxRejected {
			all = append(all, rejectedLease(store, p))
		}
	}
	if more := rejected - maxRejected; more > 0 {
		all = append(all, warning("selvaged peers --bad lists them", "%d more leases rejected", more))
	}
	all = append(all, sharedPublicIPs(store, f.Peers)...)
	if len(all) == 0 {
		all = append(all, passed("all leases accepted, %d of other nodes", len(f.Peers)))
	}
	return all
}

// rejectedLease reports a rejected lease and what to do. It is a failure if the lease probably belongs to a node,
// which is then unreachable.
func rejectedLease(store storeCommands, p status.Peer) Finding {
	name := p.Key
	if p.Node != "" && p.Node != p.Key {
		name += " (" + p.Node + ")"
	}
	remove := "if no node uses it, " + store.remove(p)
	at := "that node"
	if len(p.PublicIP) > 0 && p.PublicIP[0].IsValid() {
		at = p.PublicIP[0].String()
	}
	text := fmt.Sprintf("lease %s rejected: %s", name, p.Why)
	switch p.Code {
	case status.LeaseDuplicate:
		return failure(fmt.Sprintf("on %s, probably a cloned machine: stop the daemon, ip link delete its device, "+
			"remove /var/lib/selvage, start the daemon; %s", at, remove), "%s", text)
	case status.LeaseOwnIP:
		return failure("give that node an address of its own; "+
			"if this node left the lease behind when it was reinstalled, "+store.releaseLease(p), "%s", text)
	case status.LeaseOverlaps:
		return failure(fmt.Sprintf("%s; %s", store.moves(at), remove), "%s", text)
	}
	return warning(store.show(p)+" shows it; "+remove, "%s", text)
}

// sharedPublicIPs looks for peers that share a public IP. They may be behind one NAT; usually one of the leases is
// stale.
func sharedPublicIPs(store storeCommands, peers []status.Peer) (all []Finding) {
	by := map[netip.Addr][]status.Peer{}
	var order []netip.Addr
	for _, p := range peers {
		if p.State == status.Quarantined || p.State == status.Grace {
			continue
		}
		for _, a := range p.PublicIP {
			if len(by[a]) == 0 {
				order = append(order, a)
			}
			by[a] = append(by[a], p)
		}
	}
	for _, a := range order {
		if len(by[a]) < 2 {
			continue
		}
		var keys, release []string
		for _, p := range by[a] {
			keys = append(keys, p.Key)
			if x := store.releaseLease(p); !slices.Contains(release, x) {
				release = append(release, x)
			}
		}
		advice := `run "selvaged status" on that node to see which lease is in use, and release the other: ` +
			strings.Join(release, ", or ")
		all = append(all, warning(advice,
			"leases %s share the public IP %s: a cloned machine, or a stale lease of a reinstalled node",
			strings.Join(keys, " and "), a))
	}
	return all
}
