package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network/node/status"
)

// manyLeases is how many leases that are not let in are named.
const manyLeases = 5

// checkLeases looks at leases of others that this node does not follow, and at what two of them share.
func checkLeases(f Facts) (all []Finding) {
	if f.Status == nil || f.Status.Lease == nil {
		return nil
	}
	named := 0
	for _, p := range f.Peers {
		if p.State != status.Quarantined {
			continue
		}
		if named++; named <= manyLeases {
			all = append(all, quarantined(p))
		}
	}
	if more := named - manyLeases; more > 0 {
		all = append(all, warning("selvaged peers --bad lists them", "%d more leases are not let in", more))
	}
	all = append(all, sharedPublicIPs(f.Peers)...)
	if len(all) == 0 {
		all = append(all, passed("all leases are let in, %d of others", len(f.Peers)))
	}
	return all
}

// quarantined says of a lease that is not let in what to do. One that may well be a node's is a failure: that is not reached.
func quarantined(p status.Peer) Finding {
	who := p.Key
	if p.Node != "" {
		who += " (" + p.Node + ")"
	}
	remove := "if no node has it, etcdctl del " + keyOf(p)
	at := "that node"
	if len(p.PublicIP) > 0 && p.PublicIP[0].IsValid() {
		at = p.PublicIP[0].String()
	}
	text := fmt.Sprintf("lease %s is not let in: %s", who, p.Why)
	switch {
	case strings.HasPrefix(p.Why, "MAC "):
		return failure(fmt.Sprintf("on %s, a clone it seems: stop the daemon, ip link delete its device, remove /var/lib/selvage, start it; %s", at, remove), "%s", text)
	case strings.Contains(p.Why, "is our own"):
		return failure("give that node an address of its own; if the lease is what this node left before it was set up anew, "+releaseOf(p), "%s", text)
	case strings.Contains(p.Why, "overlaps"):
		return failure(fmt.Sprintf("restart the daemon on %s, which takes another subnet; %s", at, remove), "%s", text)
	}
	return warning("etcdctl get "+keyOf(p)+" shows it; "+remove, "%s", text)
}

// keyOf is the key of a lease in etcd, as a word for a shell: of one that is not let in, it can be anything.
func keyOf(p status.Peer) string { return word(etcdPrefix + "/subnets/" + p.Key) }

// releaseOf is the command that gives a peer's lease back.
func releaseOf(p status.Peer) string {
	if len(p.Subnets) == 0 {
		return "etcdctl del " + keyOf(p)
	}
	return fmt.Sprintf("selvaged release %s", p.Subnets[0])
}

// sharedPublicIPs names peers with one public IP. Each can be right, behind one NAT; most often one is what a node left.
func sharedPublicIPs(peers []status.Peer) (all []Finding) {
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
			if x := releaseOf(p); !slices.Contains(release, x) {
				release = append(release, x)
			}
		}
		all = append(all, warning("find out which is in use, on that node by selvaged status, and give the other back: "+strings.Join(release, ", or "),
			"leases %s have one public IP, %s: a cloned machine, or what a node left that was set up anew", strings.Join(keys, " and "), a))
	}
	return all
}
