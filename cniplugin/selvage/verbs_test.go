package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// code returns an error's CNI code.
func code(err error) uint {
	e, ok := errors.AsType[*types.Error](err)
	if !ok {
		return 0
	}
	return e.Code
}

// wantError fails unless err has a code and says something.
func (n *node) wantError(err error, want uint, says ...string) {
	n.Helper()
	if code(err) != want {
		n.Errorf("got %v (code %d), want code %d", err, code(err), want)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			n.Errorf("got %q, want it to say %q", err, s)
		}
	}
}

// testCheck breaks a container that is attached in each way that CHECK is to find.
func testCheck(t *testing.T, bin string) {
	inPod := func(pod *sandbox.Net, do func(eth0 netlink.Link) error) func(*node) error {
		return func(*node) error {
			return pod.Do(func() error {
				link, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return do(link)
			})
		}
	}
	onNode := func(change func(*subnetfile.File)) func(*node) error {
		return func(n *node) error {
			f := ipv4File()
			change(&f)
			return n.host.Do(func() error { return subnetfile.Write(subnetFile, f) })
		}
	}
	const mismatch = 101
	for name, test := range map[string]struct {
		spoil func(pod *sandbox.Net) func(*node) error
		code  uint
		says  string
	}{
		"MTU in the container": {func(pod *sandbox.Net) func(*node) error {
			return inPod(pod, func(eth0 netlink.Link) error { return netlink.LinkSetMTU(eth0, 1500) })
		}, mismatch, "its MTU is 1500, and the overlay carries 1450"},
		"MTU of the overlay": {func(*sandbox.Net) func(*node) error {
			return onNode(func(f *subnetfile.File) { f.MTU = 1400 })
		}, mismatch, "its MTU is 1450, and the overlay carries 1400"},
		"another subnet": {func(*sandbox.Net) func(*node) error {
			return onNode(func(f *subnetfile.File) { f.Subnets[subnet.IPv4] = netip.MustParsePrefix("10.5.77.1/24") })
		}, mismatch, "it has no address of 10.5.77.0/24"},
		"another network": {func(*sandbox.Net) func(*node) error {
			return onNode(func(f *subnetfile.File) {
				f.Networks[subnet.IPv4] = append(f.Networks[subnet.IPv4], netip.MustParsePrefix("10.6.0.0/16"))
			})
		}, 0, ""}, // the default route leads there
		"subnet file": {func(*sandbox.Net) func(*node) error {
			return func(n *node) error { return n.host.Do(func() error { return os.Remove(subnetFile) }) }
		}, types.ErrTryAgainLater, "this node has no subnet yet"},
		"address": {func(pod *sandbox.Net) func(*node) error {
			return inPod(pod, func(eth0 netlink.Link) error {
				return netlink.AddrDel(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 5, 29, 2), Mask: net.CIDRMask(24, 32)}})
			})
		}, types.ErrInternal, `delegate "bridge": CHECK`},
		"down": {func(pod *sandbox.Net) func(*node) error { return inPod(pod, netlink.LinkSetDown) }, types.ErrInternal, `delegate "bridge": CHECK`},
		"reservation": {func(*sandbox.Net) func(*node) error {
			return func(n *node) error {
				return n.host.Do(func() error { return os.Remove(filepath.Join(addresses, "10.5.29.2")) })
			}
		}, types.ErrInternal, "Failed to find address added by container c1"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, bin, "1.1.0", "selvage", ipv4File())
			pod := n.pod()
			rt := attach(pod, "eth0")
			n.add(rt)
			if err := n.check(rt); err != nil {
				t.Fatal(err)
			}
			if err := test.spoil(pod)(n); err != nil {
				t.Fatal(err)
			}
			err := n.check(rt)
			if test.code == 0 && err != nil || code(err) != test.code {
				t.Errorf("got %v (code %d), want code %d", err, code(err), test.code)
			}
			if test.says != "" {
				n.wantError(err, test.code, test.says)
			}
		})
	}
}

func testStatus(t *testing.T, bin string) {
	n := newNode(t, bin, "1.1.0", "selvage", ipv4File())
	status := func() error {
		return n.host.Do(func() error { return n.cni.GetStatusNetworkList(t.Context(), n.list) })
	}
	if err := status(); err != nil {
		t.Error(err)
	}
	n.do(func() error { return subnetfile.WriteStatus(subnetFile, subnetfile.Status{Reason: "no lease"}) })
	n.wantError(status(), types.ErrPluginNotAvailable, "the overlay is not usable", "no lease")
	n.do(func() error {
		return subnetfile.WriteStatus(subnetFile, subnetfile.Status{Limited: true, Reason: "no uplink"})
	})
	n.wantError(status(), types.ErrLimitedConnectivity, "the overlay does not work", "no uplink")
	n.do(func() error { return subnetfile.WriteStatus(subnetFile, subnetfile.Status{Usable: true}) })
	if err := status(); err != nil {
		t.Error(err)
	}
	n.cni.Path = n.cni.Path[:1]
	n.wantError(status(), types.ErrPluginNotAvailable, `find delegate "bridge"`)
	n.do(func() error { return os.Remove(subnetFile) })
	n.wantError(status(), types.ErrPluginNotAvailable, "this node has no usable subnet file", "is it running?")
	n.quiet()
}

// testGC leaves a container behind that nobody knows any more, in each way there is, beside one that is known.
func testGC(t *testing.T, bin string) {
	n := newNode(t, bin, "1.1.0", "selvage", ipv4File())
	pod := n.pod()
	known := attach(pod, "eth0")
	address := n.add(known)
	for i, lose := range []func(kept string) error{
		func(string) error { return nil },
		os.Remove,
		func(kept string) error { return moveStored(kept, kept) },
		func(kept string) error {
			return moveStored(kept, filepath.Join(dataDir, "cbr0:c-earlier-version:eth0"))
		},
	} {
		dead, err := n.host.NewNet()
		if err != nil {
			t.Fatal(err)
		}
		rt := &libcni.RuntimeConf{ContainerID: []string{"c-kept", "c-lost", "c-left-by-flannel", "c-earlier-version"}[i], NetNS: dead.Path(), IfName: "eth0"}
		n.add(rt)
		n.do(func() error { return lose(filepath.Join(dataDir, rt.ContainerID)) })
		if err := dead.Close(); err != nil {
			t.Fatal(err)
		}
	}
	n.do(func() error { return os.RemoveAll("/var/lib/cni/results") }) // libcni's own memory
	collect := func() {
		n.do(func() error {
			return n.cni.GCNetworkList(t.Context(), n.list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "c1", IfName: "eth0"}}})
		})
		n.wantAddresses(address)
		n.wantState("c1")
	}
	collect()
	n.do(func() error { return os.Remove(subnetFile) })
	collect() // nothing to do, and nothing to render either
	n.del(known)
	n.wantAddresses()
	n.quiet()
}

// testOtherSubnet gives the node another subnet, with a container still on the bridge and without.
func testOtherSubnet(t *testing.T, bin string) {
	n := newNode(t, bin, "1.0.0", "selvage", ipv4File())
	pod, next := n.pod(), n.pod()
	old := attach(pod, "eth0")
	n.add(old)
	file := ipv4File()
	file.Subnets[subnet.IPv4] = netip.MustParsePrefix("10.5.77.1/24")
	n.do(func() error { return subnetfile.Write(subnetFile, file) })

	rt := attach(next, "eth0")
	rt.ContainerID = "c2"
	add := func() error {
		return n.host.Do(func() error { _, err := n.cni.AddNetworkList(t.Context(), n.list, rt); return err })
	}
	const wrongBridge = 100
	n.wantError(add(), wrongBridge, "bridge cni0 holds 10.5.29.1/24, want 10.5.77.1/24", "interfaces attached to it: 1", `"ip link delete cni0"`)
	n.list = n.network(`{"cniVersion":"1.0.0","name":"cbr0","plugins":[{"type":"selvage","repairBridge":true,"delegate":{"isDefaultGateway":true}}]}`)
	n.wantError(add(), wrongBridge, "repairBridge: not done: interfaces attached to cni0: 1")
	n.wantAddresses(netip.MustParseAddr("10.5.29.2"))
	n.wantVeths(1)
	_, _, routes := n.inPod(pod, "eth0")
	n.wantAll("routes of the old container", routes, "0.0.0.0/0 via 10.5.29.1")

	n.del(old)
	if got := n.add(rt); !netip.MustParsePrefix("10.5.77.0/24").Contains(got) {
		t.Errorf("the address is %s", got)
	}
	n.do(func() error {
		bridge, err := netlink.LinkByName("cni0")
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(bridge, netlink.FAMILY_V4)
		if len(addrs) != 1 || addrs[0].IPNet.String() != "10.5.77.1/24" {
			return fmt.Errorf("the bridge holds %v, %v", addrs, err)
		}
		return err
	})
	n.wantVeths(1)
	n.del(rt)
	n.wantAddresses()
	n.wantVeths(0)
	n.quiet()
}

// network decodes another network configuration.
func (n *node) network(conf string) *libcni.NetworkConfigList {
	n.Helper()
	list, err := libcni.NetworkConfFromBytes([]byte(conf))
	if err != nil {
		n.Fatal(err)
	}
	return list
}

// testSeveralNetworks attaches a container to two networks of a node, each with a subnet and a bridge of its own.
func testSeveralNetworks(t *testing.T, bin string) {
	n := newNode(t, bin, "1.1.0", "selvage", ipv4File())
	first := n.list
	second := n.network(`{"cniVersion":"1.1.0","name":"blue","plugins":[{"type":"selvage","subnetFile":"/run/blue/subnet.env","delegate":{"bridge":"cni-blue"}}]}`)
	blue := subnetfile.File{Networks: [2][]netip.Prefix{{netip.MustParsePrefix("10.6.0.0/16")}}, Subnets: [2]netip.Prefix{netip.MustParsePrefix("10.6.4.1/24")}, MTU: 1400}
	n.do(func() error { return subnetfile.Write("/run/blue/subnet.env", blue) })
	pod := n.pod()
	eth0, net1 := attach(pod, "eth0"), attach(pod, "net1")
	n.add(eth0)
	n.list = second
	n.add(net1)
	n.wantState("blue:c1:net1", "c1")
	mtu, addrs, routes := n.inPod(pod, "net1")
	if mtu != 1400 {
		t.Errorf("MTU is %d, want 1400", mtu)
	}
	n.wantAll("addresses", addrs, "10.6.4.2/24")
	n.wantAll("routes", routes, "10.6.0.0/16 via 10.6.4.1")
	if err := n.check(net1); err != nil {
		t.Error(err)
	}
	n.list = first
	if err := n.check(eth0); err != nil {
		t.Error(err)
	}
	n.del(eth0)
	n.list = second
	if err := n.check(net1); err != nil {
		t.Error(err)
	}
	n.del(net1)
	n.wantState()
}

// testAllLost deletes a container of which nothing is kept, on a node without a subnet file, whose namespace has left a
// mere file behind.
func testAllLost(t *testing.T, bin string) {
	n := newNode(t, bin, "1.0.0", "selvage", ipv4File())
	pod, err := n.host.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	rt := attach(pod, "eth0")
	n.add(rt)
	if err := pod.Close(); err != nil {
		t.Fatal(err)
	}
	n.do(func() error {
		return errors.Join(os.Remove(filepath.Join(dataDir, "c1")), os.Remove(subnetFile), os.WriteFile(pod.Path(), nil, 0o600))
	})
	n.del(rt)
	n.wantAddresses()
	n.wantState()
}
