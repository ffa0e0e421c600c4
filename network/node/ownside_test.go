package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/cniplugin"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet/attachment"
	"github.com/selvage-net/selvage/subnet/storetest/memstore"
)

// podNode is a node with pods that the CNI plugin attaches by the reference plugins.
type podNode struct {
	*runningNode
	dir      string
	delegate string // of the network configuration, as JSON
}

// testPod is a namespace that the plugin attached.
type testPod struct {
	id   string
	ns   *sandbox.Net
	addr []netip.Addr
	port string // its end on the node
	mac  string // of its interface
	lis  []net.Listener
}

func startPodNode(t *testing.T, config, delegate string) *podNode {
	t.Helper()
	ownUplink(t)
	store := newMemStore()
	store.putConfig(config)
	dir := t.TempDir()
	cleanUpLinks(t, "cni0")
	n := &podNode{runningNode: startNode(t, store, dir), dir: dir, delegate: delegate}
	n.waitState(t, status.Ready)
	return n
}

// cleanUpLinks deletes devices once the node is stopped, which would make them again.
func cleanUpLinks(t *testing.T, names ...string) {
	t.Cleanup(func() {
		for _, name := range names {
			if l, err := netlink.LinkByName(name); err == nil {
				_ = netlink.LinkDel(l) // it ends with the sandbox anyway
			}
		}
	})
}

// plugin runs a verb of the CNI plugin.
func (n *podNode) plugin(verb, id, netns string) ([]byte, error) {
	reference, err := filepath.Abs("../../bin/cni")
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"cbr0","type":"selvage","subnetFile":%q,"dataDir":%q,`+
		`"ipam":{"dataDir":%q},"delegate":%s}`, n.SubnetFile, n.dir+"/data", n.dir+"/ipam", n.delegate)
	var out bytes.Buffer
	p := &cniplugin.Plugin{
		Environ: append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+id, "CNI_NETNS="+netns, "CNI_IFNAME=eth0",
			"CNI_PATH="+reference),
		Stdin: bytes.NewReader([]byte(config)), Stdout: &out, Stderr: os.Stderr,
	}
	if code := p.Main(context.Background(), func() string { return "" }); code != 0 {
		return nil, fmt.Errorf("%s %s: %s", verb, id, out.Bytes())
	}
	return out.Bytes(), nil
}

// add starts a pod that answers TCP on port 7777.
func (n *podNode) add(t *testing.T, id string) *testPod {
	t.Helper()
	ns, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	out, err := n.plugin("ADD", id, ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	result, err := types100.NewResult(out)
	if err != nil {
		t.Fatal(err)
	}
	made := result.(*types100.Result)
	p := &testPod{id: id, ns: ns}
	for _, i := range made.Interfaces {
		if i.Sandbox == "" && i.Name != "cni0" {
			p.port = i.Name
		}
		if i.Sandbox != "" {
			p.mac = i.Mac
		}
	}
	err = ns.Do(func() error {
		for _, ip := range made.IPs {
			a, _ := netip.AddrFromSlice(ip.Address.IP)
			p.addr = append(p.addr, a.Unmap())
			l, err := net.Listen("tcp", netip.AddrPortFrom(a.Unmap(), 7777).String())
			if err != nil {
				return err
			}
			p.lis = append(p.lis, l)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range p.lis {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		t.Cleanup(func() { l.Close() })
	}
	return p
}

// reach connects from the node to each address of a pod.
func (p *testPod) reach() error {
	for _, a := range p.addr {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(a, 7777).String(), time.Second)
		if err != nil {
			return err
		}
		c.Close()
	}
	return nil
}

func (n *podNode) now(t *testing.T) status.Status {
	t.Helper()
	s, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// whole waits until the daemon knows so many pods, and nothing is out of sync.
func (n *podNode) whole(t *testing.T, pods int) {
	t.Helper()
	eventually(t, "waiting for the own side", func() error {
		s := n.now(t)
		if s.Pods == nil && pods == 0 {
			return nil
		}
		// Faults in quick succession look like those of a process that keeps changing an entry, which is named for a while.
		other := slices.ContainsFunc(s.Problems, func(p status.Problem) bool { return p.Code != status.Conflict })
		if s.Pods == nil || s.Pods.Count != pods || s.Pending() > 0 || other {
			return fmt.Errorf("%+v, %+v, problems %+v\n%s", s.Pods, s.Entries, s.Problems, n.log.String())
		}
		for _, b := range s.Pods.Bridges {
			if !b.InSync {
				return fmt.Errorf("%+v", b)
			}
		}
		return nil
	})
}

func repairsOf(s status.Status, kind string) (count int) {
	for _, c := range s.Repairs.Counts {
		if c.Kind == kind {
			count += c.Count
		}
	}
	return count
}

// link is the device of a name; its absence is a fault of the test.
// attached checks that a port is attached to a bridge. A pod whose port has another name can be reached as well.
func attached(port, bridge string) error {
	p, err := netlink.LinkByName(port)
	if err != nil {
		return fmt.Errorf("%s: %w", port, err)
	}
	b, err := netlink.LinkByName(bridge)
	if err == nil && p.Attrs().MasterIndex != b.Attrs().Index {
		err = fmt.Errorf("%s is not attached to %s", port, bridge)
	}
	return err
}

func link(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return l
}

// setPort sets an attribute of a bridge's port, as bridge link set does.
func setPort(l netlink.Link, attribute int, value byte) error {
	request := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(l.Attrs().Index)
	request.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	info.AddRtAttr(attribute, []byte{value})
	request.AddData(info)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// setBridge sets a setting of a bridge, as ip link set type bridge does.
func setBridge(l netlink.Link, attribute int, value []byte) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(l.Attrs().Index)
	request.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(attribute, value)
	request.AddData(info)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func setting(path, value string) error { return os.WriteFile("/proc/sys/net/"+path, []byte(value), 0) }

// setGlobal sets what devices inherit that other tests make, and sets it back when the test ends.
func setGlobal(t *testing.T, path, value string) {
	t.Helper()
	before, err := os.ReadFile("/proc/sys/net/" + path)
	if err == nil {
		err = setting(path, value)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := setting(path, strings.TrimSpace(string(before))); err != nil {
			t.Error(err)
		}
	})
}

const dualStack = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56","Backend":{"Type":"vxlan"}}`

// TestOwnSideRepaired breaks what the pods of a bridge depend on, one thing after the other, and waits until each pod
// answers again, by the daemon's doing.
func TestOwnSideRepaired(t *testing.T) {
	n := startPodNode(t, `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`, `{"isDefaultGateway":true,"hairpinMode":true}`)
	setGlobal(t, "ipv4/conf/default/forwarding", "0") // as hardened hosts have it
	// Several ports: the repairs of one that is broken again and again are delayed, as in a conflict.
	a, b, c, d := n.add(t, "a"), n.add(t, "b"), n.add(t, "c"), n.add(t, "d")
	n.whole(t, 4)
	if got := n.now(t).Entries["port"]; got.Wanted != 4 || got.Present != 4 {
		t.Errorf("ports: %+v, want 4", got)
	}
	foreign := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br9", MTU: 1400}}
	if err := errors.Join(netlink.LinkAdd(foreign), netlink.LinkSetUp(foreign)); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = netlink.LinkDel(foreign) }()
	before := describeLink(t, "br9")
	mac := link(t, "cni0").Attrs().HardwareAddr.String()
	connected := func() *netlink.Route {
		sub := netip.PrefixFrom(a.addr[0], 24).Masked()
		return &netlink.Route{
			Dst:       &net.IPNet{IP: sub.Addr().AsSlice(), Mask: net.CIDRMask(24, 32)},
			LinkIndex: link(t, "cni0").Attrs().Index, Scope: unix.RT_SCOPE_LINK, Protocol: unix.RTPROT_KERNEL,
		}
	}
	for _, fault := range []struct {
		name, kind string
		cause      func() error
	}{
		{"bridge down", "bridge", func() error { return netlink.LinkSetDown(link(t, "cni0")) }},
		{"address flushed", "address", func() error {
			addrs, err := netlink.AddrList(link(t, "cni0"), unix.AF_INET)
			for _, x := range addrs {
				err = errors.Join(err, netlink.AddrDel(link(t, "cni0"), &x))
			}
			return err
		}},
		{"bridge deleted", "bridge", func() error { return netlink.LinkDel(link(t, "cni0")) }},
		{"bridge renamed", "bridge", func() error {
			l := link(t, "cni0")
			return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, "renamed"), netlink.LinkSetUp(l))
		}},
		{"bridge answers no ARP", "bridge", func() error { return netlink.LinkSetARPOff(link(t, "cni0")) }},
		{"bridge MTU", "bridge", func() error { return netlink.LinkSetMTU(link(t, "cni0"), 1280) }},
		{"bridge runs a spanning tree", "bridge", func() error {
			return setBridge(link(t, "cni0"), nl.IFLA_BR_STP_STATE, nl.Uint32Attr(1))
		}},
		{"port down", "port", func() error { return netlink.LinkSetDown(link(t, a.port)) }},
		{"port detached", "port", func() error { return netlink.LinkSetNoMaster(link(t, a.port)) }},
		{"port moved", "port", func() error { return netlink.LinkSetMaster(link(t, a.port), link(t, "br9")) }},
		{"port MTU", "port", func() error { return netlink.LinkSetMTU(link(t, a.port), 1280) }},
		{"port renamed", "port", func() error {
			l := link(t, a.port)
			return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, "renamed"), netlink.LinkSetUp(l))
		}},
		{"hairpin off", "port", func() error { return netlink.LinkSetHairpin(link(t, c.port), false) }},
		{"learning off", "port", func() error { return netlink.LinkSetLearning(link(t, c.port), false) }},
		{"port isolated", "port", func() error { return netlink.LinkSetIsolated(link(t, c.port), true) }},
		{"port locked", "port", func() error { return setPort(link(t, c.port), nl.IFLA_BRPORT_LOCKED, 1) }},
		{"broadcasts off", "port", func() error { return setPort(link(t, d.port), nl.IFLA_BRPORT_BCAST_FLOOD, 0) }},
		{"multicasts off", "port", func() error { return setPort(link(t, d.port), nl.IFLA_BRPORT_MCAST_FLOOD, 0) }},
		{"port disabled", "port", func() error { return setPort(link(t, d.port), nl.IFLA_BRPORT_STATE, 0) }},
		{"connected route deleted", "route", func() error { return netlink.RouteDel(connected()) }},
		{"connected route replaced", "route", func() error {
			r := connected()
			return netlink.RouteReplace(&netlink.Route{Dst: r.Dst, Type: unix.RTN_UNREACHABLE})
		}},
		{"forwarding off", "sysctl", func() error { return setting("ipv4/conf/cni0/forwarding", "0") }},
	} {
		was, began := repairsOf(n.now(t), fault.kind), time.Now()
		if err := fault.cause(); err != nil {
			t.Fatalf("%s: %v", fault.name, err)
		}
		eventually(t, fault.name, func() error {
			if s := n.now(t); repairsOf(s, fault.kind) == was {
				return fmt.Errorf("no repair of kind %s: %+v\n%+v", fault.kind, s.Repairs, s.Problems)
			}
			return errors.Join(a.reach(), b.reach(), c.reach(), d.reach(), attached(a.port, "cni0"))
		})
		t.Logf("%s: reachable again after %v", fault.name, time.Since(began).Round(time.Millisecond))
		n.whole(t, 4)
	}
	if got := link(t, "cni0").Attrs(); got.HardwareAddr.String() != mac || got.Alias != "" {
		t.Errorf("cni0 has MAC address %s and alias %q, want %s as pods know it, and none", got.HardwareAddr, got.Alias, mac)
	}
	if protinfo, err := netlink.LinkGetProtinfo(link(t, c.port)); err != nil || !protinfo.Hairpin {
		t.Errorf("port: %+v, %v, want hairpin mode", protinfo, err)
	}
	if after := describeLink(t, "br9"); after != before {
		t.Errorf("foreign bridge %s, was %s", after, before)
	}

	// What the plugin removes is not fought for.
	for _, id := range []string{"a", "b", "c", "d"} {
		if _, err := n.plugin("DEL", id, ""); err != nil {
			t.Error(err)
		}
	}
	n.whole(t, 0)
	if err := netlink.LinkDel(link(t, "cni0")); err != nil {
		t.Fatal(err)
	}
	n.whole(t, 0)
	if _, err := netlink.LinkByName("cni0"); err == nil {
		t.Error("cni0 was made again without a pod")
	}
}

func describeLink(t *testing.T, name string) string {
	t.Helper()
	a := link(t, name).Attrs()
	// A bridge takes MTU and MAC address from its ports, so these change when a port comes and leaves.
	return fmt.Sprintf("%s %d %d %q", a.Name, a.MasterIndex, a.RawFlags&(unix.IFF_UP|unix.IFF_PROMISC), a.Alias)
}

// TestOwnSideDualStack: IPv6 that is disabled, before the bridge is made and later.
func TestOwnSideDualStack(t *testing.T) {
	setGlobal(t, "ipv6/conf/default/disable_ipv6", "1")
	n := startPodNode6(t)
	a := n.add(t, "a")
	n.whole(t, 1)
	for range 2 {
		if err := setting("ipv6/conf/cni0/disable_ipv6", "1"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "IPv6 of the bridge disabled", func() error {
			value, err := os.ReadFile("/proc/sys/net/ipv6/conf/cni0/disable_ipv6")
			if err == nil && string(value) != "0\n" {
				err = errors.New("disabled")
			}
			return errors.Join(err, a.reach())
		})
		n.whole(t, 1)
		if err := netlink.LinkDel(link(t, "cni0")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "bridge deleted", a.reach)
		n.whole(t, 1)
	}
}

// TestOwnSideLinkLocal: a bridge gets the link-local address without which the kernel asks for no pod's MAC address, where
// the host's default is to make none, and after all addresses were flushed. Another one is as good.
func TestOwnSideLinkLocal(t *testing.T) {
	setGlobal(t, "ipv6/conf/default/addr_gen_mode", "1")
	n := startPodNode6(t)
	a := n.add(t, "a")
	addresses := func() (all []string) {
		list, err := netlink.AddrList(link(t, "cni0"), netlink.FAMILY_V6)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range list {
			if x.IP.IsLinkLocalUnicast() && x.Flags&unix.IFA_F_TENTATIVE == 0 {
				all = append(all, x.IP.String())
			}
		}
		return all
	}
	has := func(want ...string) func() error {
		return func() error {
			if got := addresses(); !slices.Equal(got, want) {
				return fmt.Errorf("link-local addresses %q, want %q", got, want)
			}
			return a.reach()
		}
	}
	var mac network.MAC
	copy(mac[:], link(t, "cni0").Attrs().HardwareAddr)
	own := mac.LinkLocal().String()
	eventually(t, "a link-local address", has(own))
	n.whole(t, 1)
	flush := func(then ...*netlink.Addr) {
		t.Helper()
		list, err := netlink.AddrList(link(t, "cni0"), netlink.FAMILY_V6)
		for _, x := range list {
			err = errors.Join(err, netlink.AddrDel(link(t, "cni0"), &x))
		}
		for _, x := range then {
			err = errors.Join(err, netlink.AddrAdd(link(t, "cni0"), x))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	flush()
	eventually(t, "addresses flushed", has(own))
	n.whole(t, 1)
	n.stop()
	flush(&netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("fe80::7"), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD})
	store := newMemStore()
	store.putConfig(dualStack)
	n.runningNode = startNode(t, store, n.dir)
	n.whole(t, 1)
	eventually(t, "a link-local address of its own", has("fe80::7"))
}

func startPodNode6(t *testing.T) *podNode {
	t.Helper()
	// The daemon turns it on and, like all settings of the node, leaves it so when it ends.
	setGlobal(t, "ipv6/conf/all/forwarding", "0")
	ownUplink(t)
	up := link(t, "uplink1")
	err := errors.Join(setting("ipv6/conf/uplink1/disable_ipv6", "0"), netlink.AddrAdd(up, &netlink.Addr{
		IPNet: &net.IPNet{IP: net.ParseIP("fd31::11"), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}))
	if err != nil {
		t.Fatal(err)
	}
	store := newMemStore()
	store.putConfig(dualStack)
	dir := t.TempDir()
	cleanUpLinks(t, "cni0", "flannel-v6.1")
	n := &podNode{runningNode: startNode(t, store, dir), dir: dir, delegate: `{"isDefaultGateway":true}`}
	n.waitState(t, status.Ready)
	return n
}

// TestGatewayDuplicate: a pod had the address of the bridge when that was added, so that the kernel does not use it. It
// is added again without duplicate address detection, and the status names it for a while.
func TestGatewayDuplicate(t *testing.T) {
	n := startPodNode6(t)
	a, b := n.add(t, "a"), n.add(t, "b")
	n.whole(t, 2)
	n.stop()
	bridge := link(t, "cni0")
	gateway := func(flags int) *netlink.Addr {
		own := a.addr[slices.IndexFunc(a.addr, netip.Addr.Is6)]
		first := netip.PrefixFrom(own, 64).Masked().Addr().Next()
		return &netlink.Addr{IPNet: &net.IPNet{IP: first.AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: flags}
	}
	inPod := func(change func(netlink.Link, *netlink.Addr) error) {
		t.Helper()
		err := b.ns.Do(func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return change(l, gateway(unix.IFA_F_NODAD))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	flags := func() (all int) {
		list, err := netlink.AddrList(bridge, netlink.FAMILY_V6)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range list {
			if x.IPNet.String() == gateway(0).IPNet.String() {
				all = x.Flags
			}
		}
		return all
	}
	inPod(netlink.AddrAdd)
	err := errors.Join(setting("ipv6/conf/cni0/accept_dad", "1"), netlink.AddrDel(bridge, gateway(0)), netlink.AddrAdd(bridge, gateway(0)))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "detection", func() error {
		if f := flags(); f&unix.IFA_F_DADFAILED == 0 {
			return fmt.Errorf("flags %#x, want a duplicate", f)
		}
		return nil
	})
	inPod(netlink.AddrDel)
	store := newMemStore()
	store.putConfig(dualStack)
	n.runningNode = startNode(t, store, n.dir)
	eventually(t, "the repair", func() error {
		s := n.now(t)
		i := slices.IndexFunc(s.Problems, func(p status.Problem) bool { return p.Code == status.GatewayDuplicate })
		if f := flags(); f&(unix.IFA_F_DADFAILED|unix.IFA_F_TENTATIVE) != 0 || f&unix.IFA_F_NODAD == 0 || i < 0 || s.State != status.Ready {
			return fmt.Errorf("flags %#x, %s, problems %+v", f, s.State, s.Problems)
		}
		if p := s.Problems[i]; !p.Warning || p.Key != gateway(0).IPNet.String()+" dev cni0" || p.Cuts != nil {
			t.Errorf("%+v, want a warning about %s", p, gateway(0).IPNet)
		}
		return a.reach()
	})
	if got := repairsOf(n.now(t), "address"); got != 0 {
		t.Errorf("%d addresses repaired, and no other process changed one while the daemon ran", got)
	}
}

// TestOwnSideRestart: a daemon that starts finds its pods' bridge as the last one left it, and claims no change of it.
func TestOwnSideRestart(t *testing.T) {
	n := startPodNode6(t)
	n.add(t, "a")
	n.whole(t, 1)
	n.stop()
	store := newMemStore()
	store.putConfig(dualStack)
	n.runningNode = startNode(t, store, n.dir)
	n.whole(t, 1)
	if text := n.log.String(); strings.Contains(text, "changed kernel settings") {
		t.Error(text)
	}
}

// TestOwnSideRenamedWhileStopped: what was renamed while no daemon ran gets its name back, and no second bridge is made.
func TestOwnSideRenamedWhileStopped(t *testing.T) {
	const config = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`
	n := startPodNode(t, config, `{"isDefaultGateway":true}`)
	a, b := n.add(t, "a"), n.add(t, "b")
	n.whole(t, 2)
	restart := func(meanwhile func() error) {
		t.Helper()
		n.stop()
		if err := meanwhile(); err != nil {
			t.Fatal(err)
		}
		store := newMemStore()
		store.putConfig(config)
		n.runningNode = startNode(t, store, n.dir)
	}
	rename := func(from, to string) error {
		l := link(t, from)
		return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, to), netlink.LinkSetUp(l))
	}
	cni0, port := link(t, "cni0").Attrs().Index, link(t, a.port).Attrs().Index
	for _, x := range []struct {
		name      string
		meanwhile func() error
	}{
		{"bridge", func() error { return rename("cni0", "lost0") }},
		{"bridge without its address", func() error {
			addr := &netlink.Addr{IPNet: ipNetOf("10.5.1.1/24")}
			for _, x := range must(netlink.AddrList(link(t, "cni0"), unix.AF_INET)) {
				addr.IPNet = x.IPNet
			}
			return errors.Join(netlink.AddrDel(link(t, "cni0"), addr), rename("cni0", "lost0"))
		}},
		{"port", func() error { return rename(a.port, "lost1") }},
		{"port with another MAC address", func() error {
			return errors.Join(netlink.LinkSetHardwareAddr(link(t, a.port), net.HardwareAddr{0x0e, 1, 2, 3, 4, 5}), rename(a.port, "lost1"))
		}},
		{"both", func() error { return errors.Join(rename(b.port, "lost1"), rename("cni0", "lost0")) }},
	} {
		restart(x.meanwhile)
		n.whole(t, 2)
		eventually(t, x.name, func() error { return errors.Join(a.reach(), b.reach()) })
		if link(t, "cni0").Attrs().Index != cni0 || link(t, a.port).Attrs().Index != port {
			t.Errorf("%s: not the devices that were renamed", x.name)
		}
		for _, name := range []string{"lost0", "lost1"} {
			if _, err := netlink.LinkByName(name); err == nil {
				t.Errorf("%s: %s is still there", x.name, name)
			}
		}
	}

	// Another program's bridge with the gateway's address is left alone, and named.
	other := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br9"}}
	gateway := must(netlink.AddrList(link(t, "cni0"), unix.AF_INET))[0].IPNet
	restart(func() error {
		return errors.Join(netlink.LinkDel(link(t, "cni0")), netlink.LinkAdd(other), netlink.AddrAdd(other, &netlink.Addr{IPNet: gateway}),
			netlink.LinkSetUp(other))
	})
	defer func() { _ = netlink.LinkDel(other) }()
	n.waitLog(t, "bridge br9 has "+gateway.String()+", the address of the missing bridge cni0, and none of its pods is attached to it")
	if _, err := netlink.LinkByName("cni0"); err == nil {
		t.Error("a second bridge was made")
	}
	if err := netlink.AddrDel(other, &netlink.Addr{IPNet: gateway}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the address is free", func() error { return errors.Join(a.reach(), b.reach()) })
	n.whole(t, 2)
}

// must returns what a call returned that does not fail in a test.
func must[T any](x T, err error) T {
	if err != nil {
		panic(err)
	}
	return x
}

// TestOwnSideUnrecorded: pods without a record, as of flannel's plugin, are counted, and are no problem.
func TestOwnSideUnrecorded(t *testing.T) {
	for _, delegate := range []string{`{"isDefaultGateway":true}`, `{"type":"ptp"}`} {
		t.Run(delegate, func(t *testing.T) {
			n := startPodNode(t, `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`, delegate)
			n.add(t, "a")
			n.add(t, "b")
			n.whole(t, 2)
			unmanaged := func(records, want int) {
				t.Helper()
				eventually(t, "pods without a record", func() error {
					s, count := n.now(t), 0
					if s.Pods == nil || s.Pods.Count != records || s.State != status.Ready || len(s.Problems) > 0 {
						return fmt.Errorf("%+v, state %s, problems %+v", s.Pods, s.State, s.Problems)
					}
					for _, u := range s.Pods.Unmanaged {
						count += u.Count
					}
					if count != want {
						return fmt.Errorf("%+v, want %d without a record", s.Pods, want)
					}
					return nil
				})
			}
			unmanaged(2, 0)
			for i, id := range []string{"a", "b"} {
				if err := os.Remove(filepath.Join(attachment.Dir(n.SubnetFile), "cbr0:"+id+":eth0")); err != nil {
					t.Fatal(err)
				}
				unmanaged(1-i, 1+i)
			}
		})
	}
}

// TestOwnSidePointToPoint: pods of the ptp plugin have an address and a route each on the node, and no bridge.
func TestOwnSidePointToPoint(t *testing.T) {
	n := startPodNode(t, `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`, `{"type":"ptp"}`)
	a, b := n.add(t, "a"), n.add(t, "b")
	n.whole(t, 2)
	for name, cause := range map[string]func() error{
		"down": func() error { return netlink.LinkSetDown(link(t, a.port)) },
		"flush": func() error {
			addrs, err := netlink.AddrList(link(t, a.port), unix.AF_INET)
			return errors.Join(err, netlink.AddrDel(link(t, a.port), &addrs[0]))
		},
		"route": func() error {
			host := &net.IPNet{IP: a.addr[0].AsSlice(), Mask: net.CIDRMask(32, 32)}
			return netlink.RouteDel(&netlink.Route{Dst: host, Scope: unix.RT_SCOPE_NOWHERE}) // of any scope
		},
	} {
		was := n.now(t).Repairs.Total
		if err := cause(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		eventually(t, name, func() error {
			if n.now(t).Repairs.Total == was {
				return errors.New("no repair")
			}
			return errors.Join(a.reach(), b.reach())
		})
		n.whole(t, 2)
	}
}

// TestOwnSideSubnetChanged: pods with addresses of the subnet that the node had before are named until they are deleted.
func TestOwnSideSubnetChanged(t *testing.T) {
	ownUplink(t)
	server, dir := memstore.NewAllocating(), t.TempDir()
	defer server.Close()
	cleanUpLinks(t, "cni0")
	server.Write("config", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`)
	first, second := netip.MustParsePrefix("10.5.3.0/24"), netip.MustParsePrefix("10.5.9.0/24")
	server.AddNode("this")
	server.Allocate("this", first)
	n := &podNode{
		runningNode: startNode(t, newNodesStore(server, "this"), dir), dir: dir, delegate: `{"isDefaultGateway":true}`,
	}
	n.waitSubnet(t, first)
	n.add(t, "a")
	n.add(t, "b")
	n.whole(t, 2)
	server.RemoveNode("this")
	server.AddNode("this")
	server.Allocate("this", second)
	for _, id := range []string{"a", "b"} {
		p := n.waitReason(t, status.SubnetChanged)
		if p.Key != first.String() || p.Warning {
			t.Errorf("the problem is %+v", p)
		}
		n.waitState(t, status.Degraded)
		if _, err := n.plugin("DEL", id, ""); err != nil {
			t.Fatal(err)
		}
	}
	n.whole(t, 0)
	n.waitSubnet(t, second)
}

// TestOwnSideNamed: what cannot be repaired is named, and no longer when it is over.
func TestOwnSideNamed(t *testing.T) {
	n := startPodNode(t, `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`, `{"isDefaultGateway":true}`)
	a := n.add(t, "a")
	n.whole(t, 1)
	named := func(code status.Reason) func() error {
		return func() error {
			s := n.now(t)
			if s.State != status.Degraded || !slices.ContainsFunc(s.Problems, func(p status.Problem) bool { return p.Code == code }) {
				return fmt.Errorf("state %s, problems %+v, want %s", s.State, s.Problems, code)
			}
			return nil
		}
	}
	host := &net.IPNet{IP: a.addr[0].AsSlice(), Mask: net.CIDRMask(32, 32)}
	for _, typ := range []int{unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_THROW} {
		r := &netlink.Route{Dst: host, Type: typ, Priority: 77}
		if err := netlink.RouteAdd(r); err != nil {
			t.Fatal(err)
		}
		eventually(t, "foreign route", named(status.RouteShadowed))
		if typ == unix.RTN_BLACKHOLE {
			eventually(t, "a foreign route to all pods", func() error {
				if s := n.now(t); len(s.Cut) == 0 {
					return fmt.Errorf("nothing is cut: %+v", s.Problems)
				}
				return nil
			})
		}
		if err := netlink.RouteDel(r); err != nil {
			t.Fatal(err)
		}
		n.whole(t, 1)
	}

	neighbour := &netlink.Neigh{LinkIndex: link(t, "cni0").Attrs().Index, IP: a.addr[0].AsSlice(), State: unix.NUD_PERMANENT,
		HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}}
	if err := netlink.NeighSet(neighbour); err != nil {
		t.Fatal(err)
	}
	eventually(t, "foreign neighbour", named(status.NeighbourShadowed))
	if err := netlink.NeighDel(neighbour); err != nil {
		t.Fatal(err)
	}
	n.whole(t, 1)

	// What takes precedence over the main table, and a static FDB entry.
	b := n.add(t, "b")
	n.whole(t, 2)
	addRule := func(change func(*netlink.Rule)) func() error {
		return func() error {
			r := netlink.NewRule()
			r.Priority, r.Family, r.Table, r.Dst = 77, unix.AF_INET, 100, ipNetOf("10.5.0.0/16")
			change(r)
			return netlink.RuleAdd(r)
		}
	}
	delRule := func() error {
		return netlink.RuleDel(&netlink.Rule{Priority: 77, Family: unix.AF_INET, Goto: -1, Flow: -1})
	}
	dummy := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br9"}}
	wide := func() error {
		return errors.Join(netlink.LinkAdd(dummy), netlink.LinkSetUp(dummy), netlink.AddrAdd(dummy, &netlink.Addr{IPNet: ipNetOf("10.5.255.1/16")}))
	}
	fdb := func() *netlink.Neigh {
		mac, err := net.ParseMAC(a.mac)
		if err != nil {
			t.Fatal(err)
		}
		return &netlink.Neigh{LinkIndex: link(t, b.port).Attrs().Index, Family: unix.AF_BRIDGE, State: unix.NUD_NOARP,
			Flags: netlink.NTF_MASTER, HardwareAddr: mac}
	}
	type fault struct {
		name        string
		code        status.Reason
		cause, undo func() error
		cuts        bool
		warning     bool
	}
	for _, round := range [][]fault{{
		{"blackhole rule", status.PolicyRule, addRule(func(r *netlink.Rule) { r.Type = nl.FR_ACT_BLACKHOLE }), delRule, true, false},
	}, {
		{"another table", status.PolicyRule, func() error {
			return errors.Join(addRule(func(*netlink.Rule) {})(), netlink.RouteAdd(&netlink.Route{Table: 100,
				Dst: ipNetOf("10.5.0.0/16"), LinkIndex: link(t, "uplink1").Attrs().Index, Scope: unix.RT_SCOPE_LINK}))
		}, func() error {
			return errors.Join(delRule(), netlink.RouteDel(&netlink.Route{Table: 100, Dst: ipNetOf("10.5.0.0/16"), Scope: unix.RT_SCOPE_NOWHERE}))
		}, true, false},
	}, {
		{"local route", status.PolicyRule, func() error {
			return netlink.RouteAdd(&netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Dst: host,
				LinkIndex: link(t, "lo").Attrs().Index, Scope: unix.RT_SCOPE_HOST})
		}, func() error {
			return netlink.RouteDel(&netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Dst: host, Scope: unix.RT_SCOPE_HOST})
		}, false, false},
		{"FDB entry", status.FDBShadowed, func() error { return netlink.NeighSet(fdb()) }, func() error { return netlink.NeighDel(fdb()) }, false, false},
		{"wide subnet", status.SubnetOverlaps, wide, func() error { return netlink.LinkDel(dummy) }, false, true},
	}} {
		for _, x := range round {
			if err := x.cause(); err != nil {
				t.Fatalf("%s: %v", x.name, err)
			}
		}
		began := time.Now()
		for _, x := range round {
			eventually(t, x.name, func() error {
				s := n.now(t)
				i := slices.IndexFunc(s.Problems, func(p status.Problem) bool { return p.Code == x.code })
				if i < 0 || len(s.Problems[i].Cuts) > 0 != x.cuts || s.Problems[i].Warning != x.warning || s.State != status.Degraded {
					return fmt.Errorf("state %s, problems %+v, want %s", s.State, s.Problems, x.code)
				}
				return nil
			})
			t.Logf("%s: named after %v", x.name, time.Since(began).Round(time.Millisecond))
		}
		for _, x := range round {
			if err := x.undo(); err != nil {
				t.Fatalf("%s: %v", x.name, err)
			}
		}
		n.whole(t, 2)
	}
	if _, err := n.plugin("DEL", "b", b.ns.Path()); err != nil {
		t.Fatal(err)
	}
	n.whole(t, 1)

	// An empty record, as after a power cut, and one cut short.
	dir := attachment.Dir(n.SubnetFile)
	for name, content := range map[string]string{"cbr0:x:eth0": "", "cbr0:y:eth0": `{"version":1,"netwo`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "damaged records", func() error {
		if got := n.now(t).Pods; got.Damaged != 2 || got.Count != 3 {
			return fmt.Errorf("%+v, want 3 attachments, 2 of them damaged", got)
		}
		return named(status.RecordDamaged)()
	})
	for _, id := range []string{"x", "y"} {
		if _, err := n.plugin("DEL", id, ""); err != nil {
			t.Error(err)
		}
	}
	n.whole(t, 1)

	// The link of a pod that runs, and then the pod.
	if err := netlink.LinkDel(link(t, a.port)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "link deleted", named(status.PodDetached))
	if err := a.ns.Close(); err != nil {
		t.Fatal(err)
	}
	n.whole(t, 1) // its record stays until DEL
	if _, err := n.plugin("DEL", "a", ""); err != nil {
		t.Error(err)
	}
	n.whole(t, 0)
}
