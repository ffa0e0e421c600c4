package paths

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// judge asks the kernel about the paths of an order.
type judge struct {
	Order
	Kernel
	read func(path string) string // returns the value of a kernel setting
}

// suspect is a fault of one peer, or of one of this node's pods.
type suspect struct {
	code status.Reason
	what string // the fault: a format for the names of those affected
	sure bool
	main bool // see Fault.Main
}

// suspects are the faults of several peers or pods, each with the names of those affected.
type suspects struct {
	examined int
	order    []suspect
	affected map[suspect][]string
	blocked  map[string]struct{} // by name, those to which packets are lost for certain
}

func (s *suspects) add(x suspect, name string) {
	if s.affected == nil {
		s.affected, s.blocked = map[suspect][]string{}, map[string]struct{}{}
	}
	if s.affected[x] == nil {
		s.order = append(s.order, x)
	}
	s.affected[x] = append(s.affected[x], name)
	if x.sure {
		s.blocked[name] = struct{}{}
	}
}

func (s *suspects) faults(f subnet.Family, own bool) (all []Fault) {
	for _, x := range s.order {
		fault := Fault{Code: x.code, Family: f, Own: own, Sure: x.sure, Main: x.main,
			All: len(s.affected[x]) == s.examined || x.sure && len(s.blocked) == s.examined}
		if !x.main {
			fault.Text = fmt.Sprintf(x.what, abbreviate(s.affected[x]))
		}
		all = append(all, fault)
	}
	return all
}

func (j judge) faults() (all []Fault, blocked map[netip.Addr]struct{}) {
	for _, f := range subnet.Families() {
		all = append(all, forwardingOff(j.Order, f, j.read)...)
		own := j.pods(f)
		all = append(all, own.faults(f, true)...)
		for _, p := range j.Pods {
			if _, is := own.blocked[p.Name]; is {
				if blocked == nil {
					blocked = map[netip.Addr]struct{}{}
				}
				blocked[p.Addr] = struct{}{}
			}
		}
		var found suspects
		for _, p := range j.Peers {
			if !p.Paths[f].Subnet.IsValid() {
				continue
			}
			found.examined++
			for _, x := range j.examine(p.Paths[f], f, len(own.order) == 0) {
				found.add(x, fmt.Sprintf("%s (%s)", p.Name, p.Paths[f].PublicIP))
			}
		}
		all = append(all, found.faults(f, false)...)
	}
	return all, blocked
}

// forwardingOff looks for interfaces to pods on which the kernel forwards no packets that arrive. The daemon keeps that
// setting of the uplink and of its own devices itself.
func forwardingOff(o Order, f subnet.Family, read func(path string) string) []Fault {
	bridge := o.Bridges[f]
	path := [...]string{"net/ipv4/conf/", "net/ipv6/conf/"}[f] + bridge + "/forwarding"
	if bridge == "" || read(path) != "0" {
		return nil
	}
	return []Fault{{
		Code: status.ForwardingOff, Family: f, Own: true, All: true, Sure: true,
		Text: fmt.Sprintf("%s is 0: this node forwards no %s packets of its pods, which arrive on %s; set it to 1",
			path, f, bridge),
	}}
}

// examine asks the kernel about one path. in includes the packets from there, whose last step is that to this node's
// pods.
func (j judge) examine(p Path, f subnet.Family, in bool) (all []suspect) {
	underlay := network.Flow{To: p.PublicIP}
	if p.Tunnel {
		underlay.From, underlay.UDP = j.Local[subnet.FamilyOf(p.PublicIP)], j.Port
	}
	if x, bad := j.underlay(underlay, f); bad {
		return []suspect{x} // what depends on it needs no report
	}
	far := subnet.Gateway(p.Subnet).Addr().Next()
	out := network.Flow{To: far}
	if own := j.podsOf(f); len(own) > 0 {
		pod := own[0]
		out.From, out.In = pod.Addr, pod.Link
		if x, bad := j.policy(network.Flow{To: pod.Addr, From: far, In: p.Link}, pod.Link,
			"packets from %%s to this node's pods"); in && bad {
			all = append(all, x)
		}
	}
	if x, bad := j.policy(out, p.Link, "packets to the pods of %%s"); bad {
		all = append(all, x)
	}
	return all
}

// underlay examines how packets are sent to a peer's public IP.
func (j judge) underlay(flow network.Flow, f subnet.Family) (x suspect, bad bool) {
	hop, err := j.Flow(flow)
	x.code = status.UnderlayRoute
	switch {
	case err != nil:
		x.sure = true
		rejection, _ := j.Rejecting(flow) // the reason is all that is missing then
		x.what = escape("this node's kernel sends nothing to the public IP of %%s: %s",
			cmp.Or(rejection.Text, err.Error()))
	case hop.Link == "" || hop.Link == j.Uplink || j.Uplink == "lo":
		return x, false
	case hop.Local:
		x.sure = true
		x.what = "the public IP of %s is an address of this node itself: packets for it stay here"
	default:
		x.what = escape("packets to the public IP of %%s leave by %s%s, and not by the uplink %s: "+
			"add a route by %s, or choose %s with --iface", hop.Link, via(hop), j.Uplink, j.Uplink, hop.Link)
		if f == subnet.IPv4 && j.strict(j.Uplink) {
			x.what += escape("; rp_filter of %s is 1, so the kernel drops packets from there that arrive on it",
				j.Uplink)
		}
	}
	return x, true
}

func via(h network.Hop) string {
	if !h.Gateway.IsValid() {
		return ""
	}
	return " via " + h.Gateway.String()
}

// policy examines a flow inside the overlay, which has to leave by a link. Routes in the main table are compared with
// the desired ones elsewhere, and count here only if they reject packets; this is about everything that takes
// precedence over that table. what is a format for the name of the peer.
func (j judge) policy(flow network.Flow, link, what string) (x suspect, bad bool) {
	hop, err := j.Flow(flow)
	if err != nil {
		return j.rejected(flow, what)
	}
	if hop.Link == "" || hop.Link == link || hop.Local || hop.Table == network.MainTable {
		return x, false
	}
	x.code = status.PolicyRule
	x.what = escape(what+" leave by %s, and not by %s, because of routing table %d: ip rule shows what leads there",
		hop.Link, link, hop.Table)
	return x, true
}

// rejected finds out why the kernel rejects a flow inside the overlay: a rule, a route, or the reverse path filter.
// Settings are reported elsewhere.
func (j judge) rejected(flow network.Flow, what string) (x suspect, bad bool) {
	x.sure = true
	rejection, err := j.Rejecting(flow)
	switch {
	case err != nil:
		return x, false
	case rejection.Text != "":
		x.code, x.main = status.PolicyRule, rejection.Table == network.MainTable
		if x.main {
			x.code = status.RouteShadowed
		}
		x.what = escape(what+" are dropped: %s", rejection.Text)
		return x, true
	case flow.In == "" || !flow.From.Is4() || !j.strict(flow.In):
		return x, false
	}
	back, err := j.Flow(network.Flow{To: flow.From})
	if err != nil || back.Link == "" || back.Link == flow.In {
		return x, false
	}
	x.code = status.ReversePath
	x.what = escape(what+" are dropped: they arrive on %s, whose rp_filter is 1, and the kernel sends packets to "+
		"their source by %s; set net.ipv4.conf.%s.rp_filter to 2", flow.In, back.Link, flow.In)
	return x, true
}

// strict reports whether the kernel drops IPv4 packets that arrive on an interface by which it would not send to their
// source: the larger value of the interface's setting and of that for all is 1 (ip-sysctl.rst).
func (j judge) strict(link string) bool {
	values := []string{j.read("net/ipv4/conf/all/rp_filter"), j.read("net/ipv4/conf/" + link + "/rp_filter")}
	return slices.Max(values) == "1"
}

// escape formats text that is a format for one more argument: "%%s" stands for it.
func escape(format string, args ...any) string {
	for i, a := range args {
		if s, ok := a.(string); ok {
			args[i] = strings.ReplaceAll(s, "%", "%%")
		}
	}
	return fmt.Sprintf(format, args...)
}

// abbreviate lists the first few names: "a, b, c and 4 more".
func abbreviate(all []string) string {
	const few = 3
	if len(all) <= few+1 {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:few], ", "), len(all)-few)
}
