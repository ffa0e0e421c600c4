package paths

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// suspect is a fault of one peer.
type suspect struct {
	code status.Reason
	what string // the fault, without the peer
	sure bool
}

// judge asks the kernel about the paths of an order. read returns the value of a kernel setting.
func judge(o Order, k Kernel, read func(path string) string) (faults []Fault) {
	for _, f := range subnet.Families() {
		faults = append(faults, forwardingOff(o, f, read)...)
		affected, order, examined := map[suspect][]string{}, []suspect{}, 0
		for _, p := range o.Peers {
			if !p.Paths[f].Subnet.IsValid() {
				continue
			}
			examined++
			for _, x := range o.examine(p.Paths[f], f, k) {
				if affected[x] == nil {
					order = append(order, x)
				}
				affected[x] = append(affected[x], fmt.Sprintf("%s (%s)", p.Name, p.Paths[f].PublicIP))
			}
		}
		for _, x := range order {
			faults = append(faults, Fault{
				Code: x.code, Family: f, All: len(affected[x]) == examined, Sure: x.sure,
				Text: fmt.Sprintf(x.what, abbreviate(affected[x])),
			})
		}
	}
	return faults
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
		Code: status.ForwardingOff, Family: f, All: true, Sure: true,
		Text: fmt.Sprintf("%s is 0: this node forwards no %s packets of its pods, which arrive on %s; set it to 1",
			path, f, bridge),
	}}
}

// examine asks the kernel about one path.
func (o Order) examine(p Path, f subnet.Family, k Kernel) (all []suspect) {
	underlay := network.Flow{To: p.PublicIP}
	if p.Tunnel {
		underlay.From, underlay.UDP = o.Local[f], o.Port
	}
	if x, bad := o.underlay(underlay, k); bad {
		return []suspect{x} // what depends on it needs no report
	}
	pod := subnet.Gateway(o.Own[f]).Addr().Next()
	far := subnet.Gateway(p.Subnet).Addr().Next()
	out := network.Flow{To: far}
	if o.Bridges[f] != "" {
		out.From, out.In = pod, o.Bridges[f]
		in := network.Flow{To: pod, From: far, In: p.Link}
		if x, bad := policy(in, o.Bridges[f], "packets from %%s to this node's pods", k); bad {
			all = append(all, x)
		}
	}
	if x, bad := policy(out, p.Link, "packets to the pods of %%s", k); bad {
		all = append(all, x)
	}
	return all
}

// underlay examines how packets are sent to a peer's public IP.
func (o Order) underlay(flow network.Flow, k Kernel) (x suspect, bad bool) {
	hop, err := k.Flow(flow)
	x.code = status.UnderlayRoute
	switch {
	case err != nil:
		x.sure = true
		rejection, _ := k.Rejecting(flow) // the reason is all that is missing then
		x.what = escape("this node's kernel sends nothing to the public IP of %%s: %s", cmp.Or(rejection.Text, err.Error()))
	case hop.Link == "" || hop.Link == o.Uplink || o.Uplink == "lo":
		return x, false
	case hop.Local:
		x.sure = true
		x.what = "the public IP of %s is an address of this node itself: packets for it stay here"
	default:
		x.what = escape("packets to the public IP of %%s leave by %s%s, and not by the uplink %s: "+
			"add a route by %s, or choose %s with --iface", hop.Link, via(hop), o.Uplink, o.Uplink, hop.Link)
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
// the desired ones elsewhere; this is about everything that takes precedence over that table. what is a format for the
// name of the peer.
func policy(flow network.Flow, link, what string, k Kernel) (x suspect, bad bool) {
	x.code = status.PolicyRule
	hop, err := k.Flow(flow)
	if err == nil {
		if hop.Link == "" || hop.Link == link || hop.Local || hop.Table == network.MainTable {
			return x, false
		}
		x.what = escape(what+" leave by %s, and not by %s, because of routing table %d: ip rule shows what leads there",
			hop.Link, link, hop.Table)
		return x, true
	}
	rejection, lookupErr := k.Rejecting(flow)
	if lookupErr != nil || rejection.Text == "" || rejection.Table == network.MainTable {
		return x, false // a missing or a foreign route, or a setting: others report these
	}
	x.sure = true
	x.what = escape(what+" are dropped: %s", rejection.Text)
	return x, true
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
