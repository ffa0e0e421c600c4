package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/command"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// TestStarting: a node that does not know the network yet says nothing of the other nodes' leases, however many there are, and of what an
// earlier daemon left in the kernel nothing is pending: it may well be wanted.
func TestStarting(t *testing.T) {
	l := start(t, lab.Options{Nodes: 2, DaemonArgs: []string{"--no-cached-start"}})
	ctx := testctx.New(t)
	node := l.Nodes()[0]
	ask := func() (s status.Status) {
		t.Helper()
		out, err := selvaged(ctx, t, node, "status", "-o", "json")
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != command.ExitStarting {
			t.Fatalf("%v, want exit code %d of\n%s", err, command.ExitStarting, out)
		}
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if err := node.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Etcd().Client().Delete(ctx, "/coreos.com/network/config"); err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "a daemon that waits", func() error {
		_, err := selvaged(ctx, t, node, "status")
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == command.ExitStarting {
			return nil
		}
		return fmt.Errorf("status: %v", err)
	})
	waitFor(ctx, t, "the config that is missing", func() error {
		if s := ask(); len(s.Problems) == 0 || s.Problems[0].Topic != "config" {
			return fmt.Errorf("%+v", s.Problems)
		}
		return nil
	})
	waitFor(ctx, t, "a look at what the earlier one left", func() error {
		s := ask()
		if s.State != status.Starting || s.Peers != (status.PeerCounts{}) || s.Pending() != 0 {
			t.Fatalf("%s, peers %+v, %d pending: %+v", s.State, s.Peers, s.Pending(), s.Entries)
		}
		if s.Entries["link"].Present != 1 { // routes and the like are looked at when it is known what is wanted
			return fmt.Errorf("%+v", s.Entries)
		}
		return nil
	})
	if out, err := selvaged(ctx, t, node, "peers"); err != nil || !strings.Contains(out, "none") {
		t.Errorf("peers: %v:\n%s", err, out)
	}
}

// TestExplain asks how a node is, and how it reaches an address of another node's: when all is well, and with a more specific
// route of somebody else's in the way.
func TestExplain(t *testing.T) {
	families := []subnet.Family{subnet.IPv4, subnet.IPv6}
	l := start(t, lab.Options{Nodes: 2, Families: families})
	ctx := testctx.New(t)
	node, peer := l.Nodes()[0], l.Nodes()[1]
	file, err := peer.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	expect := func(code int, parts []string, args ...string) {
		t.Helper()
		out, err := selvaged(ctx, t, node, args...)
		got := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			got = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if got != code {
			t.Errorf("%v: exit code %d, want %d:\n%s", args, got, code, out)
		}
		for _, part := range parts {
			if !strings.Contains(out, part) {
				t.Errorf("%v: no %q in\n%s", args, part, out)
			}
		}
	}
	expect(0, []string{"node1: ready for", "1 programmed", "repairs   none"}, "status")
	expect(0, []string{"node2", file.Subnets[0].Masked().String(), "flannel.1 flannel-v6.1", "programmed"}, "peers")
	for i, device := range []string{"flannel.1", "flannel-v6.1"} {
		expect(0, []string{"belongs to node2: the gateway of its pods, reached over VXLAN, " + device, "bridge fdb replace"}, "explain", file.Subnets[i].Addr().String())
	}
	expect(0, []string{"is outside the overlay", "masquerade"}, "explain", l.Outside().Addr(subnet.IPv4).String())
	err = node.Do(func() error {
		uplink, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		pod := file.Subnets[0].Addr().AsSlice()
		return netlink.RouteAdd(&netlink.Route{LinkIndex: uplink.Attrs().Index, Dst: &net.IPNet{IP: pod, Mask: net.CIDRMask(32, 32)}})
	})
	if err != nil {
		t.Fatal(err)
	}
	expect(2, []string{"a foreign route sends packets for it out of eth0", "foreign", "# because of route " + file.Subnets[0].Addr().String() + "/32 dev eth0"},
		"explain", file.Subnets[0].Addr().String())
	// The daemon says so by itself, of this one and of one to the same subnet with a better metric, and when they are gone.
	err = node.Do(func() error {
		uplink, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: uplink.Attrs().Index, Dst: ipNet(file.Subnets[1].Masked()), Priority: 100})
	})
	if err != nil {
		t.Fatal(err)
	}
	v6 := "route " + file.Subnets[1].Masked().String() + " metric 100 dev eth0 takes precedence over the overlay's route to node2"
	waitFor(ctx, t, "what is said of the routes", func() error {
		return errors.Join(says(node, v6), says(node, "route "+file.Subnets[0].Addr().String()+"/32 dev eth0 takes precedence"))
	})
	expect(2, []string{"node1: degraded", "foreign route: " + v6}, "status")
	err = node.Do(func() error {
		return errors.Join(netlink.RouteDel(&netlink.Route{Dst: ipNet(file.Subnets[1].Masked()), Priority: 100}),
			netlink.RouteDel(&netlink.Route{Dst: &net.IPNet{IP: file.Subnets[0].Addr().AsSlice(), Mask: net.CIDRMask(32, 32)}}))
	})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "their end", func() error {
		return says(node, "no foreign route takes precedence over the overlay's routes any more")
	})
	expect(0, []string{"node1: ready"}, "status")
	// What a shell is offered.
	expect(0, []string{"node2\tnode2 " + file.Subnets[0].Masked().String()}, "__complete", "doctor", "--peer", "")
	expect(0, []string{file.Subnets[1].Addr().String() + "\tnode2"}, "__complete", "explain", "fd")
	expect(0, []string{file.Subnets[0].Masked().String() + "\tnode2"}, "__complete", "release", "")
	if err := node.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	expect(4, []string{"selvaged does not run here"}, "status")
}

// TestExplainOthers asks for addresses that are of no other node's pods.
func TestExplainOthers(t *testing.T) {
	families := []subnet.Family{subnet.IPv4, subnet.IPv6}
	l := start(t, lab.Options{Nodes: 2, Families: families})
	node, peer := l.Nodes()[0], l.Nodes()[1]
	podOnEach(t.Context(), t, l)
	own, err := node.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := peer.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	pod := l.Pods()[0]
	if pod.Node != node {
		t.Fatal("the first pod is on another node")
	}
	for _, f := range families {
		device := [...]string{subnet.IPv4: "flannel.1", subnet.IPv6: "flannel-v6.1"}[f]
		group := [...]string{subnet.IPv4: "239.1.2.3", subnet.IPv6: "ff05::1"}[f]
		free := [...]string{subnet.IPv4: "10.5.0.9", subnet.IPv6: "fd00:5::9"}[f] // the first subnet is never leased
		for _, tt := range []struct {
			address string
			code    int
			says    []string
		}{
			{node.Addr(f).String(), 0, []string{"is this node's own, on eth0: pods on this node reach it with their own address", "public IP of this node"}},
			{peer.Addr(f).String(), 0, []string{"is outside the overlay: pods on this node reach it through eth0, with this node's address", "public IP of node2"}},
			{l.Outside().Addr(f).String(), 0, []string{"through eth0, with this node's address", "ok  masquerade what leaves the overlay"}},
			{[...]string{subnet.IPv4: "127.0.0.1", subnet.IPv6: "::1"}[f], 0, []string{"it is the pod itself"}},
			{group, 0, []string{"is a multicast group outside the overlay", "ok  multicast is not masqueraded"}},
			{[...]string{subnet.IPv4: "169.254.7.7", subnet.IPv6: "fe80::7"}[f], 0, []string{"and link-local"}},
			{own.Subnets[f].Addr().String(), 0, []string{"and is the node's own, on cni0"}},
			{own.Subnets[f].Masked().Addr().String(), 0, []string{"and is the node's own, on " + device}},
			{pod.Addr(f).String(), 0, []string{": a pod on cni0"}},
			{unusedIn(own.Subnets[f]), 2, []string{"no pod on cni0 answers for it", "missing  " + unusedIn(own.Subnets[f]) + " dev cni0"}},
			{theirs.Subnets[f].Addr().String(), 0, []string{"belongs to node2: the gateway of its pods"}},
			{theirs.Subnets[f].Masked().Addr().String(), 0, []string{"belongs to node2: the address of its overlay device"}},
			{free, 2, []string{"no node has a lease on " + free, "lease  missing  none", "the route that packets for it take"}},
			{broadcastOf(own.Subnets[f]), 2, []string{"is the broadcast address of this node's subnet"}},
			{broadcastOf(theirs.Subnets[f]), 2, []string{"is the broadcast address of node2's subnet"}},
			{broadcastOf(netip.PrefixFrom(node.Addr(f), 24)), 2, []string{"is a broadcast address of the link behind eth0"}},
			{"node2", 0, []string{theirs.Subnets[f].Addr().String() + ": the gateway of node2's pods"}},
			{"node1", 0, []string{own.Subnets[f].Addr().String() + ": the gateway of node1's pods"}},
			{pod.PodName(), 0, []string{pod.Addr(f).String() + ": pod " + pod.PodName(), ": a pod on cni0"}},
			{"nod3", 1, []string{"did you mean node"}},
		} {
			if tt.address == "" {
				continue // IPv6 has no broadcast
			}
			out, err := selvaged(t.Context(), t, node, "explain", tt.address)
			code := 0
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.says {
				if code != tt.code || !strings.Contains(out, want) {
					t.Errorf("%s: exit code %d, want %d, and %q in\n%s", tt.address, code, tt.code, want, out)
				}
			}
		}
	}
}

// unusedIn returns an address of a subnet that no pod has: they get the first ones.
func unusedIn(gateway netip.Prefix) string {
	a := gateway.Masked().Addr()
	for range 200 {
		a = a.Next()
	}
	return a.String()
}

// broadcastOf returns the last address of an IPv4 subnet of 24 bits; it is empty for IPv6.
func broadcastOf(p netip.Prefix) string {
	if !p.Addr().Is4() {
		return ""
	}
	a := p.Masked().Addr().As4()
	a[3] = 255
	return netip.AddrFrom4(a).String()
}
