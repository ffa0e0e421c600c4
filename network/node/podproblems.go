package node

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/pods"
	"github.com/selvage-net/selvage/subnet"
)

// What is wrong with pods and is not repaired, for the status and the log.

// podProblems finds what is wrong with pods and cannot be repaired. look says that pods without a link are to be looked
// at again.
func (n *node) podProblems(now time.Time, look bool) {
	o := &n.ownSide
	var all []status.Problem
	begun := map[string]time.Time{}
	var concerns [][2]bool // the families of each problem
	add := func(code status.Reason, key, id, format string, args ...any) {
		text := status.Text(fmt.Sprintf(format, args...))
		at, known := o.begun[string(code)+id]
		if !known {
			at = now
			n.logPodProblem(text, now)
		}
		begun[string(code)+id] = at
		all = append(all, status.Problem{Topic: topicPods, Code: code, Key: key, Text: text, Since: at})
		concerns = append(concerns, [2]bool{})
	}
	for _, err := range o.damaged {
		add(status.RecordDamaged, "", err.Error(), "%v; what this pod depends on is not repaired until it is "+
			"restarted", err)
	}
	if look {
		o.checkAt = time.Time{}
	}
	for _, p := range o.pods {
		if p.Managed && !o.node.Live(p) {
			id := p.Key.String()
			_, known := o.begun[string(status.PodDetached)+id]
			if look && isNamespace(p.NetNS) || !look && known {
				if look {
					o.checkAt = now.Add(endedCheck)
				}
				add(status.PodDetached, id, id, "interface %s of %s is gone, with its end in the pod: restart the pod",
					p.Port, podName(p))
				concerns[len(concerns)-1] = p.Families()
			}
			continue
		}
		for _, prefix := range p.Prefixes {
			key := neighbourKey(p, prefix.Addr())
			if c := n.tables.Neighbours.Get(key); c.Present && c.Have.Permanent && p.MAC.IsUnicast() &&
				c.Have.MAC != p.MAC {
				add(status.NeighbourShadowed, key.String(), key.String(),
					"a permanent neighbour entry of another program sends packets for %s, the address of %s, "+
						"to %s instead of %s: remove it with \"ip neighbour del %s\"",
					key.IP, podName(p), c.Have.MAC, p.MAC, key)
				concerns[len(concerns)-1] = only(subnet.FamilyOf(key.IP))
			}
		}
	}
	for key := range o.duplicates {
		if slices.ContainsFunc(o.state.Addresses, func(x network.Item[network.AddressKey, network.Address]) bool {
			return x.Key == key && !key.Prefix.Addr().IsLinkLocalUnicast()
		}) {
			add(status.GatewayDuplicate, key.String(), key.String(),
				"another host on %s had %s, the gateway of this node's pods, when the node added it, so that the "+
					"kernel did not use it (duplicate address detection). It was added again without the detection. "+
					"Packets may still go to the other host: selvaged doctor names a pod that has the address",
				key.Link, key.Prefix.Addr())
			all[len(all)-1].Warning = true
		}
	}
	o.arpProblems(func(code status.Reason, key, id, format string, args ...any) {
		add(code, key, id, format, args...)
		concerns[len(concerns)-1] = only(subnet.IPv4)
	})
	for _, x := range o.former() {
		text := "%d pods have addresses of %s, a subnet that this node had before: other nodes do not reach them. " +
			"Delete these pods"
		if x.bridge != "" {
			text += ", then their bridge, \"ip link delete " + x.bridge + "\": until then, no pod can be started on it"
		}
		add(status.SubnetChanged, x.subnet.String(), x.bridge+" "+x.subnet.String(), text, x.pods, x.subnet)
	}
	o.problems, o.begun = all, begun
	if len(all) == 0 {
		return
	}
	cuts := n.podCuts()
	for i, families := range concerns {
		for f, is := range families {
			families[f] = is && cuts.all[f]
		}
		all[i].Cuts = familyNames(families)
	}
}

// formerPods are running pods of one bridge, or of none, with addresses of a subnet that the node had before.
type formerPods struct {
	bridge string
	subnet netip.Prefix
	pods   int
}

// former returns these pods, of the oldest first.
func (o *ownSide) former() (all []formerPods) {
	for _, p := range o.pods {
		if !p.Managed || !o.node.Live(p) {
			continue
		}
		for _, x := range o.node.Former(p) {
			i := slices.IndexFunc(all, func(f formerPods) bool { return f.bridge == p.Bridge && f.subnet == x })
			if i < 0 {
				i = len(all)
				all = append(all, formerPods{bridge: p.Bridge, subnet: x})
			}
			all[i].pods++
		}
	}
	return all
}

// neighbourKey is that of the entry for a pod's address on the node.
func neighbourKey(p pods.Pod, a netip.Addr) network.NeighbourKey {
	return network.NeighbourKey{Link: p.Bridge, IP: a}
}

// logPodProblem logs a problem that has just begun, or, of many, that there are more.
func (n *node) logPodProblem(text status.Text, now time.Time) {
	switch n.ownSide.logged.Allow(manyPodProblems, podsLogged, now) {
	case backoff.Pass:
		n.Log.Warn(text)
	case backoff.Last:
		n.Log.Warn("more problems with pods on this node; not listed for now, see selvaged status")
	case backoff.Drop:
	}
}
