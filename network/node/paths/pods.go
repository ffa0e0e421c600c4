package paths

import (
	"net/netip"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// Pod is an address of one of this node's pods.
type Pod struct {
	Name   string // for people
	Addr   netip.Addr
	Link   string // the interface that leads to it
	Bridge string // empty: there is none
	Port   string // the port of the bridge
	MAC    network.MAC
}

// MaxPods is the number of pods of each family that are examined: a question to the kernel takes some 10 µs.
const MaxPods = 250

// podsOf returns the pods to examine: of those that are known, the first ones, and else any of the subnet.
func (o Order) podsOf(f subnet.Family) (all []Pod) {
	for _, p := range o.Pods {
		if len(all) < MaxPods && subnet.FamilyOf(p.Addr) == f {
			all = append(all, p)
		}
	}
	if len(all) == 0 && o.Bridges[f] != "" {
		a := subnet.Gateway(o.Own[f]).Addr().Next()
		all = append(all, Pod{Name: o.Own[f].String(), Addr: a, Link: o.Bridges[f]})
	}
	return all
}

// pods asks the kernel about the last step to each of this node's pods: of packets that this node sends, and of those
// that arrive from the first peer.
func (j judge) pods(f subnet.Family) (found suspects) {
	from, in := netip.Addr{}, ""
	for _, p := range j.Peers {
		if x := p.Paths[f]; x.Subnet.IsValid() {
			from, in = subnet.Gateway(x.Subnet).Addr().Next(), x.Link
			break
		}
	}
	for _, p := range j.podsOf(f) {
		found.examined++
		x, bad := j.lastStep(network.Flow{To: p.Addr}, p)
		if !bad && in != "" {
			x, bad = j.lastStep(network.Flow{To: p.Addr, From: from, In: in}, p)
		}
		if bad {
			found.add(x, p.Name)
		}
		if p.Bridge == "" || !p.MAC.IsUnicast() {
			continue
		}
		port, err := j.FixedAt(p.Bridge, p.MAC) // on an error nothing is known
		if err == nil && port != "" && port != p.Port {
			found.add(suspect{code: status.FDBShadowed, sure: true, what: escape(
				"the bridge %s sends frames for this node's pod %%s to %s and not to %s, because of an FDB entry of "+
					"another program: remove it with \"bridge fdb del %s dev %s master\"",
				p.Bridge, port, p.Port, p.MAC, port),
			}, p.Name)
		}
	}
	return found
}

// lastStep examines a flow to a pod of this node.
func (j judge) lastStep(flow network.Flow, p Pod) (x suspect, bad bool) {
	const what = "packets to this node's pods (%%s)"
	hop, err := j.Flow(flow)
	x.sure = true
	switch {
	case err != nil:
		return j.rejected(flow, what)
	case hop.Local:
		x.code = status.PolicyRule
		x.what = escape(what + " stay on this node, whose own addresses these are: \"ip route show table local\" " +
			"shows the routes; remove those")
	case hop.Link == "" || hop.Link == p.Link:
		return x, false
	case hop.Table == network.MainTable:
		x.code, x.main = status.RouteShadowed, true
	default:
		x.code = status.PolicyRule
		x.what = escape(what+" leave by %s, and not by %s, because of routing table %d: ip rule shows what leads there",
			hop.Link, p.Link, hop.Table)
	}
	return x, true
}
