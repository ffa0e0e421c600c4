package cniplugin

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
)

// newPod makes a namespace with an interface eth0 as a container of [testFile]'s subnet has it.
func newPod(t *testing.T, mtu int) *sandbox.Net {
	t.Helper()
	pod, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pod.Close() })
	err = pod.Do(func() error {
		eth0 := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", MTU: mtu}, PeerName: "veth1"}
		if err := netlink.LinkAdd(eth0); err != nil {
			return err
		}
		return addAddress(eth0, "10.5.29.2/24", "10.5.29.1")
	})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// addAddress brings a link up with an address and a default route.
func addAddress(link netlink.Link, address, gateway string) error {
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, a); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: netip.MustParseAddr(gateway).AsSlice()})
}

func TestReadsAnInterface(t *testing.T) {
	pod := newPod(t, 1300)
	var l link
	var table []route
	err := inNamespace(pod.Path(), func() (err error) {
		if l, err = findLink("eth0"); err == nil {
			table, err = routes()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if l.mtu != 1300 || !l.up || !slices.Contains(l.addrs, netip.MustParsePrefix("10.5.29.2/24")) {
		t.Errorf("got %+v", l)
	}
	for _, want := range []route{
		{dst: netip.MustParsePrefix("0.0.0.0/0"), via: netip.MustParseAddr("10.5.29.1"), link: l.index},
		{dst: netip.MustParsePrefix("10.5.29.0/24"), link: l.index},
	} {
		if !slices.Contains(table, want) {
			t.Errorf("got %v, want %v among them", table, want)
		}
	}
	if _, err := findLink("eth0"); err == nil {
		t.Error("the test's own thread is in the namespace")
	}
	if err := inNamespace("/proc/version", func() error { return nil }); err == nil {
		t.Error("entered a file that is no namespace")
	}
	if isNamespace("/nonexistent") || isNamespace("/proc/version") || !isNamespace(pod.Path()) || !isNamespace("/proc/self/ns/net") {
		t.Error("a namespace is taken for none, or the other way round")
	}
}

func TestParseAttributesTakesNoHarm(t *testing.T) {
	for _, b := range [][]byte{nil, {1}, {0, 0, 1, 0}, {3, 0, 1, 0}, {9, 0, 1, 0, 1, 2, 3, 4}, {5, 0, 1, 0, 7}} {
		got := parseAttributes(b)
		if want := len(b) == 5; (len(got) == 1) != want || got.uint32(1) != 0 {
			t.Errorf("% x: got %v", b, got)
		}
	}
}

func TestCompare(t *testing.T) {
	prefixes := func(list ...string) (out []netip.Prefix) {
		for _, p := range list {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	file := testFile()
	file.Networks[subnet.IPv6] = prefixes("fd00:5::/56")
	file.Subnets[subnet.IPv6] = netip.MustParsePrefix("fd00:5:0:1d::1/64")
	n, err := parseNetConf([]byte(`{"name":"cbr0"}`))
	if err != nil {
		t.Fatal(err)
	}
	d, err := render(n, file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := expect(n, d, file)
	if err != nil {
		t.Fatal(err)
	}
	gateways := [2]netip.Addr{netip.MustParseAddr("10.5.29.1"), netip.MustParseAddr("fd00:5:0:1d::1")}
	good := func() (link, []route) {
		return link{index: 2, mtu: 1450, up: true, addrs: prefixes("10.5.29.7/24", "fd00:5:0:1d::7/64", "fe80::1/64")}, []route{
			{prefixes("0.0.0.0/0")[0], gateways[0], 2}, {prefixes("10.5.0.0/16")[0], gateways[0], 2}, {prefixes("10.5.29.0/24")[0], netip.Addr{}, 2},
			{prefixes("fd00:5::/56")[0], gateways[1], 2},
		}
	}
	for name, test := range map[string]struct {
		spoil func(*link, *[]route)
		want  string
	}{
		"as added":                          {func(*link, *[]route) {}, ""},
		"smaller MTU":                       {func(l *link, _ *[]route) { l.mtu = 1280 }, ""},
		"one more address":                  {func(l *link, _ *[]route) { l.addrs = append(l.addrs, prefixes("192.0.2.7/24")...) }, ""},
		"default route only":                {func(_ *link, r *[]route) { *r = append((*r)[:1], route{prefixes("::/0")[0], gateways[1], 2}) }, ""},
		"network through another interface": {func(_ *link, r *[]route) { (*r)[1] = route{(*r)[1].dst, netip.MustParseAddr("10.9.0.1"), 3} }, ""},
		"down":                              {func(l *link, _ *[]route) { l.up = false }, "it is down"},
		"MTU":                               {func(l *link, _ *[]route) { l.mtu = 1500 }, "its MTU is 1500, and the overlay carries 1450"},
		"another node":                      {func(l *link, _ *[]route) { l.addrs[0] = prefixes("10.5.77.7/24")[0] }, "it has no address of 10.5.29.0/24 but [10.5.77.7/24 fd00:5:0:1d::7/64 fe80::1/64]"},
		"length":                            {func(l *link, _ *[]route) { l.addrs[0] = prefixes("10.5.29.7/16")[0] }, "it has no address of 10.5.29.0/24"},
		"IPv6 gone":                         {func(l *link, _ *[]route) { l.addrs = l.addrs[:1] }, "it has no address of fd00:5:0:1d::/64"},
		"no route":                          {func(_ *link, r *[]route) { *r = (*r)[:3] }, "there is no route to fd00:5::/56"},
		"gateway":                           {func(_ *link, r *[]route) { (*r)[1].via = netip.MustParseAddr("10.5.77.1") }, "the route to 10.5.0.0/16 leads to 10.5.77.1, want 10.5.29.1"},
	} {
		t.Run(name, func(t *testing.T) {
			l, table := good()
			test.spoil(&l, &table)
			got := strings.Join(want.compare(l, table), "; ")
			if test.want == "" && got != "" || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestExpect(t *testing.T) {
	for conf, want := range map[string]expectation{
		`{"name":"n"}`: {mtu: 1450, subnets: [2]netip.Prefix{netip.MustParsePrefix("10.5.29.0/24")},
			gateways: [2]netip.Addr{netip.MustParseAddr("10.5.29.1")}},
		`{"name":"n","ipam":{"type":"static"}}`:                         {mtu: 1450},
		`{"name":"n","ipam":{"type":"static"},"delegate":{"mtu":9000}}`: {mtu: 9000},
	} {
		n, err := parseNetConf([]byte(conf))
		if err != nil {
			t.Fatal(err)
		}
		d, err := render(n, testFile())
		if err != nil {
			t.Fatal(err)
		}
		got, err := expect(n, d, testFile())
		if err != nil || got.mtu != want.mtu || got.subnets != want.subnets || got.gateways != want.gateways {
			t.Errorf("%s: got %+v, %v, want %+v", conf, got, err, want)
		}
	}
	// A container from before the node had IPv6 is not asked for it.
	file := testFile()
	d, err := render(netConf{Name: "n"}, file)
	if err != nil {
		t.Fatal(err)
	}
	file.Subnets[subnet.IPv6] = netip.MustParsePrefix("fd00:5:0:1d::1/64")
	if got, err := expect(netConf{Name: "n"}, d, file); err != nil || got.subnets[subnet.IPv6].IsValid() {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := expect(netConf{Delegate: object{"mtu": []byte(`"x"`)}}, d, file); err == nil {
		t.Error("took an MTU that is no number")
	}
	if _, err := expect(netConf{}, delegation{config: []byte("{")}, file); err == nil {
		t.Error("took a broken configuration")
	}
}

func TestCheckErrors(t *testing.T) {
	n := newNode(t)
	n.ok(n.verbs.Add)
	n.args.Netns = newPod(t, 1450).Path()
	n.args.IfName = "net1"
	n.ok(n.verbs.Add)
	n.fails(n.verbs.Check, codeMismatch, "find interface net1")
	n.args.IfName = "eth0"
	n.ok(n.verbs.Check)
	n.conf["delegate"] = map[string]any{"mtu": "x"}
	n.fails(n.verbs.Check, types.ErrInternal, `mtu is "x", want a number`)
	n.args.Netns = "/nonexistent"
	delete(n.conf, "delegate")
	n.fails(n.verbs.Check, types.ErrInvalidNetNS, "/nonexistent: no such file")
	if err := os.Remove(filepath.Join(n.dir, "subnet.env")); err != nil {
		t.Fatal(err)
	}
	n.fails(n.verbs.Check, types.ErrTryAgainLater, "this node has no subnet yet")
}
