package paths

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/reach"
	"github.com/selvage-net/selvage/subnet"
)

var addr, prefix = netip.MustParseAddr, netip.MustParsePrefix

// order has two peers, the second one on the same link without a tunnel.
func order() Order {
	return Order{
		Uplink: "eth0", Tunnels: true, Port: 8472, Local: [2]netip.Addr{addr("192.0.2.1")}, Own: [2]netip.Prefix{prefix("10.5.1.0/24")},
		Bridges: [2]string{"cni0"},
		Peers: []Peer{
			{Key: "10.5.2.0-24", Name: "node2", Paths: [2]Path{{Subnet: prefix("10.5.2.0/24"), PublicIP: addr("198.51.100.2"), Link: "flannel.1", Tunnel: true}}},
			{Key: "10.5.3.0-24", Name: "node3", Paths: [2]Path{{Subnet: prefix("10.5.3.0/24"), PublicIP: addr("192.0.2.3"), Link: "eth0"}}},
		},
	}
}

// fakeKernel answers by a function for some flows, and as desired for others.
type fakeKernel struct {
	t      *testing.T
	answer func(network.Flow) (hop network.Hop, rejection network.Rejection, err error, ok bool)
}

func (k fakeKernel) Flow(f network.Flow) (network.Hop, error) {
	if hop, _, err, ok := k.answer(f); ok {
		return hop, err
	}
	desired := map[network.Flow]string{
		{To: addr("198.51.100.2"), From: addr("192.0.2.1"), UDP: 8472}: "eth0",
		{To: addr("192.0.2.3")}: "eth0",
		{To: addr("10.5.2.2"), From: addr("10.5.1.2"), In: "cni0"}:      "flannel.1",
		{To: addr("10.5.3.2"), From: addr("10.5.1.2"), In: "cni0"}:      "eth0",
		{To: addr("10.5.1.2"), From: addr("10.5.2.2"), In: "flannel.1"}: "cni0",
		{To: addr("10.5.1.2"), From: addr("10.5.3.2"), In: "eth0"}:      "cni0",
		{To: addr("10.5.2.2")}: "flannel.1",
		{To: addr("10.5.3.2")}: "eth0",
		{To: addr("10.5.1.2")}: "cni0",
		{To: addr("10.5.1.7")}: "cni0",
		{To: addr("10.5.2.2"), From: addr("10.5.1.7"), In: "cni0"}:      "flannel.1",
		{To: addr("10.5.3.2"), From: addr("10.5.1.7"), In: "cni0"}:      "eth0",
		{To: addr("10.5.1.7"), From: addr("10.5.2.2"), In: "flannel.1"}: "cni0",
	}
	link, ok := desired[f]
	if !ok {
		k.t.Errorf("a question about %+v", f)
	}
	return network.Hop{Link: link, Table: network.MainTable}, nil
}

func (k fakeKernel) Rejecting(f network.Flow) (network.Rejection, error) {
	_, r, _, _ := k.answer(f)
	return r, nil
}

// FixedAt: of 0e:…:07 the test's order has the port, of 0e:…:08 another one has it.
func (k fakeKernel) FixedAt(bridge string, mac network.MAC) (string, error) {
	return map[network.MAC]string{{0x0e, 0, 0, 0, 0, 8}: "veth9", {0x0e, 0, 0, 0, 0, 7}: "veth7"}[mac], nil
}

func TestJudge(t *testing.T) {
	type answer = func(network.Flow) (network.Hop, network.Rejection, error, bool)
	none := func(network.Flow) (h network.Hop, r network.Rejection, err error, ok bool) { return }
	to := func(a string, h network.Hop, r network.Rejection, err error) answer {
		return func(f network.Flow) (network.Hop, network.Rejection, error, bool) { return h, r, err, f.To == addr(a) }
	}
	everywhere := func(p string, r network.Rejection, err error) answer {
		return func(f network.Flow) (network.Hop, network.Rejection, error, bool) {
			return network.Hop{}, r, err, prefix(p).Contains(f.To)
		}
	}
	twoPods := func(o *Order) {
		o.Pods = []Pod{{Name: "10.5.1.2", Addr: addr("10.5.1.2"), Link: "cni0"}, {Name: "10.5.1.7", Addr: addr("10.5.1.7"), Link: "cni0"}}
	}
	rejected := errors.New("invalid argument")
	rule := network.Rejection{Text: "ip rule 100: from all to 10.5.0.0/16 blackhole"}
	for _, x := range []struct {
		name   string
		change func(*Order)
		answer answer
		off    string // a setting that is 0
		want   []Fault
	}{
		{"all is well", nil, none, "", nil},
		{"pods", func(o *Order) {
			o.Pods = []Pod{{"10.5.1.2", addr("10.5.1.2"), "cni0", "cni0", "veth7", network.MAC{0x0e, 0, 0, 0, 0, 7}}}
		}, none, "", nil},
		{"an FDB entry", func(o *Order) {
			o.Pods = []Pod{{"10.5.1.2", addr("10.5.1.2"), "cni0", "cni0", "veth8", network.MAC{0x0e, 0, 0, 0, 0, 8}}}
		}, none, "", []Fault{{Code: status.FDBShadowed, Own: true, Sure: true, All: true,
			Text: "the bridge cni0 sends frames for this node's pod 10.5.1.2 to veth9 and not to veth8, because of an FDB entry of another " +
				"program: remove it with \"bridge fdb del 0e:00:00:00:00:08 dev veth9 master\""}}},
		{"a pod's address is local", func(o *Order) {
			o.Pods = []Pod{{Name: "10.5.1.7", Addr: addr("10.5.1.7"), Link: "cni0"}, {Name: "10.5.1.2", Addr: addr("10.5.1.2"), Link: "cni0"}}
		}, to("10.5.1.7", network.Hop{Link: "lo", Local: true, Table: 255}, network.Rejection{}, nil), "",
			[]Fault{{Code: status.PolicyRule, Own: true, Sure: true,
				Text: "packets to this node's pods (10.5.1.7) stay on this node, whose own addresses these are: " +
					"\"ip route show table local\" shows the routes; remove those"}}},
		{"own pods by another table", nil, to("10.5.1.2", network.Hop{Link: "eth1", Table: 100}, network.Rejection{}, nil), "",
			[]Fault{{Code: status.PolicyRule, Own: true, Sure: true, All: true,
				Text: "packets to this node's pods (10.5.1.0/24) leave by eth1, and not by cni0, because of routing table 100: ip rule shows what leads there"}}},
		{"a route in the main table to own pods", nil, to("10.5.1.2", network.Hop{Link: "eth1", Table: network.MainTable}, network.Rejection{}, nil), "",
			[]Fault{{Code: status.RouteShadowed, Own: true, Sure: true, All: true, Main: true}}},
		{"the reverse path filter", func(o *Order) { o.Peers = o.Peers[:1] }, func(f network.Flow) (h network.Hop, r network.Rejection, err error, ok bool) {
			if f == (network.Flow{To: addr("10.5.2.2")}) {
				return network.Hop{Link: "eth1", Table: 100}, r, nil, true
			}
			return h, r, rejected, f.In == "flannel.1"
		}, "", []Fault{{Code: status.ReversePath, Own: true, Sure: true, All: true,
			Text: "packets to this node's pods (10.5.1.0/24) are dropped: they arrive on flannel.1, whose rp_filter is 1, " +
				"and the kernel sends packets to their source by eth1; set net.ipv4.conf.flannel.1.rp_filter to 2"}}},
		{"no bridge", func(o *Order) { o.Bridges[0] = "" }, none, "net/ipv4/conf//forwarding", nil},
		{"the tunnel by another interface", nil, to("198.51.100.2", network.Hop{Link: "eth1", Gateway: addr("203.0.113.1")}, network.Rejection{}, nil), "",
			[]Fault{{Code: status.UnderlayRoute, Text: "packets to the public IP of node2 (198.51.100.2) leave by eth1 via 203.0.113.1, and not by the uplink eth0: " +
				"add a route by eth0, or choose eth1 with --iface; rp_filter of eth0 is 1, so the kernel drops packets from there that arrive on it"}}},
		{"the uplink is lo", func(o *Order) { o.Uplink = "lo" }, none, "", nil},
		{"no route", nil, to("198.51.100.2", network.Hop{}, network.Rejection{}, errors.New("network is unreachable")), "",
			[]Fault{{Code: status.UnderlayRoute, Sure: true, Text: "this node's kernel sends nothing to the public IP of node2 (198.51.100.2): network is unreachable"}}},
		{"a rule for all underlays", nil, func(f network.Flow) (network.Hop, network.Rejection, error, bool) {
			return network.Hop{}, network.Rejection{Text: "ip rule 9: from all 100% blackhole"}, rejected, f.To.Compare(addr("192.0.0.0")) > 0
		}, "", []Fault{{Code: status.UnderlayRoute, Sure: true, All: true,
			Text: "this node's kernel sends nothing to the public IP of node2 (198.51.100.2), node3 (192.0.2.3): ip rule 9: from all 100% blackhole"}}},
		{"this node's own address", nil, to("192.0.2.3", network.Hop{Link: "lo", Local: true}, network.Rejection{}, nil), "",
			[]Fault{{Code: status.UnderlayRoute, Sure: true, Text: "the public IP of node3 (192.0.2.3) is an address of this node itself: packets for it stay here"}}},
		{"a rule for the overlay", nil, everywhere("10.5.0.0/16", rule, rejected), "", []Fault{
			{Code: status.PolicyRule, Own: true, Sure: true, All: true,
				Text: "packets to this node's pods (10.5.1.0/24) are dropped: ip rule 100: from all to 10.5.0.0/16 blackhole"},
			{Code: status.PolicyRule, Sure: true, All: true,
				Text: "packets to the pods of node2 (198.51.100.2), node3 (192.0.2.3) are dropped: ip rule 100: from all to 10.5.0.0/16 blackhole"}}},
		{"a rule, and no pods", func(o *Order) { o.Bridges[0] = "" }, everywhere("10.5.2.0/24", rule, rejected), "", []Fault{
			{Code: status.PolicyRule, Sure: true, Text: "packets to the pods of node2 (198.51.100.2) are dropped: ip rule 100: from all to 10.5.0.0/16 blackhole"}}},
		{"a route in the main table", nil, everywhere("10.5.2.0/24", network.Rejection{Text: "x", Table: network.MainTable}, rejected), "",
			[]Fault{{Code: status.RouteShadowed, Sure: true, Main: true}}},
		{"different faults for each peer", nil, func(f network.Flow) (h network.Hop, r network.Rejection, err error, ok bool) {
			if f.To == addr("10.5.2.2") {
				return h, network.Rejection{Text: "x", Table: network.MainTable}, rejected, true
			}
			return h, rule, rejected, f.To == addr("10.5.3.2")
		}, "", []Fault{{Code: status.RouteShadowed, Sure: true, All: true, Main: true}, {Code: status.PolicyRule, Sure: true, All: true,
			Text: "packets to the pods of node3 (192.0.2.3) are dropped: ip rule 100: from all to 10.5.0.0/16 blackhole"}}},
		{"different faults for each pod", twoPods, func(f network.Flow) (h network.Hop, r network.Rejection, err error, ok bool) {
			if f.To == addr("10.5.1.2") {
				return network.Hop{Link: "eth1", Table: network.MainTable}, r, nil, true
			}
			return network.Hop{Local: true}, r, nil, f.To == addr("10.5.1.7")
		}, "", []Fault{{Code: status.RouteShadowed, Own: true, Sure: true, All: true, Main: true}, {Code: status.PolicyRule, Own: true, Sure: true,
			All: true, Text: "packets to this node's pods (10.5.1.7) stay on this node, whose own addresses these are: " +
				"\"ip route show table local\" shows the routes; remove those"}}},
		{"another table", nil, to("10.5.2.2", network.Hop{Link: "eth1", Table: 100}, network.Rejection{}, nil), "", []Fault{
			{Code: status.PolicyRule, Text: "packets to the pods of node2 (198.51.100.2) leave by eth1, and not by flannel.1, " +
				"because of routing table 100: ip rule shows what leads there"}}},
		{"a route that shadows", nil, to("10.5.2.2", network.Hop{Link: "eth1", Table: network.MainTable}, network.Rejection{}, nil), "", nil},
		{"a setting", nil, everywhere("10.5.0.0/16", network.Rejection{}, rejected), "net/ipv4/conf/cni0/forwarding", []Fault{
			{Code: status.ForwardingOff, Own: true, Sure: true, All: true,
				Text: "net/ipv4/conf/cni0/forwarding is 0: this node forwards no IPv4 packets of its pods, which arrive on cni0; set it to 1"}}},
	} {
		o := order()
		if x.change != nil {
			x.change(&o)
		}
		read := func(path string) string {
			if path == x.off {
				return "0"
			}
			return "1"
		}
		got, blocked := judge{o, fakeKernel{t, x.answer}, read}.faults()
		if !slices.Equal(got, x.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", x.name, got, x.want)
		}
		all := slices.ContainsFunc(got, func(f Fault) bool { return f.Own && f.All && f.Code != status.ForwardingOff })
		if all && len(o.Pods) > 0 && len(blocked) != len(o.Pods) {
			t.Errorf("%s: blocked %v, want all pods", x.name, blocked)
		}
	}
}

func TestTargets(t *testing.T) {
	o := order()
	if got := o.targets(o.Peers[0].Paths[0]); got != [2]reach.Target{{Addr: addr("10.5.2.0")}, {Addr: addr("10.5.2.254"), Hops: 1}} {
		t.Errorf("with tunnels: %v", got)
	}
	o.Tunnels = false
	if got := o.targets(o.Peers[0].Paths[0]); got != [2]reach.Target{{Addr: addr("10.5.2.1"), Hops: 1}, {Addr: addr("198.51.100.2")}} {
		t.Errorf("without: %v", got)
	}
	if got := o.probed(); len(got) != 2 || got[0].Paths[subnet.IPv6] != (reach.Path{}) {
		t.Errorf("%+v", got)
	}
}

func TestKeepTimes(t *testing.T) {
	at := time.Unix(1e9, 0)
	before := keepTimes(nil, []Fault{{Code: status.PolicyRule, Text: "a"}}, at)
	now := keepTimes(before, []Fault{{Code: status.PolicyRule, Text: "b"}, {Code: status.UnderlayRoute}}, at.Add(1))
	if !now[0].Since.Equal(at) || !now[1].Since.Equal(at.Add(1)) {
		t.Errorf("%v", now)
	}
}
