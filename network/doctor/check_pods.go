package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
)

// checkPods examines what this node's pods depend on, and their namespaces.
func checkPods(f Facts) (all []Finding) {
	if f.Status != nil && f.Status.Pods != nil {
		for _, b := range f.Status.Pods.Bridges {
			if !b.InSync {
				all = append(all, failure(log+" shows why", "what the pods on %s depend on is out of sync: %s",
					named(b.Name), abbreviate(textsOf(b.Differs))))
			}
		}
		for _, u := range f.Status.Pods.Unmanaged {
			all = append(all, passed("%d pods are not managed: %s", u.Count, u.Why))
		}
	}
	if f.Status != nil {
		for _, p := range f.Status.Problems {
			switch p.Code {
			case status.NeighbourShadowed:
				all = append(all, failure("ip neighbour del "+p.Key, "%s", p.Text))
			case status.GatewayDuplicate:
				all = append(all, warning("remove the address from the other host", "%s", p.Text))
			}
		}
	}
	const restart = "restart the pod"
	for _, err := range f.Damaged {
		all = append(all, warning(restart, "%v", err))
	}
	for _, p := range f.Pods {
		switch {
		case !p.Entered: // it ended, or its namespace cannot be seen from here
		case !p.Link:
			all = append(all, failure(restart, "pod %s has lost its interface", p.shortName()))
		case !p.Up:
			all = append(all, failure(restart, "the interface of pod %s is down", p.shortName()))
		case len(p.Taken) > 0:
			all = append(all, failure("remove the address there, or restart the pod",
				"pod %s has the address %s, which is its gateway's: packets of other pods to the gateway may go there",
				p.shortName(), p.Taken[0]))
		case len(p.Missing) > 0:
			all = append(all, failure(restart, "pod %s has lost its address %s", p.shortName(), join(p.Missing)))
		case len(p.NoRoute) > 0:
			all = append(all, failure(restart, "pod %s has lost its default route by %s", p.shortName(), p.NoRoute[0]))
		}
	}
	if len(all) == 0 && len(f.Pods) > 0 {
		all = append(all, passed("%d pods have their interfaces, addresses and routes", len(f.Pods)))
	}
	return all
}

func named(bridge string) string {
	if bridge == "" {
		return "no bridge"
	}
	return bridge
}

func textsOf(texts []status.Text) (all []string) {
	for _, t := range texts {
		all = append(all, fmt.Sprint(t))
	}
	return all
}

// ownShadowing finds foreign interfaces and routes that take packets for this node's own pods.
func (f Facts) ownShadowing(own netip.Prefix) (all []Finding) {
	uplink, _ := f.uplink()
	for _, l := range f.Links {
		if _, selvages := network.ParseAlias(l.Alias); selvages || l.Name == uplink.Name || f.ofPods(l) {
			continue
		}
		for _, a := range l.Addresses {
			if !a.Addr().IsLinkLocalUnicast() && a.Overlaps(own) {
				advice := fmt.Sprintf("give the network of %s another prefix, or the overlay another Network", l.Name)
				all = append(all, warning(advice,
					"device %s has %s, which overlaps this node's subnet %s: "+
						"its hosts and this node's pods do not reach each other", l.Name, a.Masked(), own))
			}
		}
	}
	for _, r := range f.Routes {
		part := r.Prefix.Bits() > own.Bits()
		if r.Kernel || !own.Contains(r.Prefix.Addr()) || r.Prefix.Bits() < own.Bits() || f.podRoute(r) ||
			!part && uint32(r.Metric) > network.ConnectedMetric(own) {
			continue
		}
		all = append(all, failure("ip route del "+r.Text,
			"route %s takes precedence over the route to this node's own pods, %s", r.Text, own))
	}
	return all
}

// ofPods reports whether an interface is one that this node's pods depend on.
func (f Facts) ofPods(l Link) bool {
	bridge, ok := f.bridge()
	if ok && l.Name == bridge.Name {
		return true
	}
	if f.Status != nil && f.Status.Pods != nil {
		for _, b := range f.Status.Pods.Bridges {
			if b.Name == l.Name {
				return true
			}
		}
	}
	uses := func(p Pod) bool { return l.Name == p.Port || l.Name == p.Bridge }
	return l.Kind == "veth" || slices.ContainsFunc(f.Pods, uses)
}

// podRoute reports whether a route leads to one pod by its own link, as the ptp plugin makes it.
func (f Facts) podRoute(r Route) bool {
	l, ok := f.link(r.Link)
	return ok && r.Prefix.IsSingleIP() && l.Kind == "veth"
}
