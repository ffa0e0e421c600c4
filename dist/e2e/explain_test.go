package e2e

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// TestExplain asks how a node is, and how it reaches an address of another node's: when all is well, and with a more specific
// route of somebody else's in the way.
func TestExplain(t *testing.T) {
	families := []subnet.Family{subnet.IPv4, subnet.IPv6}
	l := start(t, lab.Options{Nodes: 2, Families: families})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
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
	expect(0, []string{"node1: ready for", "1 programmed", "none were needed"}, "status")
	expect(0, []string{"node2", file.Subnets[0].Masked().String(), "flannel.1 flannel-v6.1", "programmed"}, "peers")
	for i, device := range []string{"flannel.1", "flannel-v6.1"} {
		expect(0, []string{"is of node2: by VXLAN, " + device, "bridge fdb replace"}, "explain", file.Subnets[i].Addr().String())
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
	expect(2, []string{"a route of somebody else's sends it out of eth0", "foreign"}, "explain", file.Subnets[0].Addr().String())
	if err := node.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	expect(4, []string{"selvaged does not run here"}, "status")
}
