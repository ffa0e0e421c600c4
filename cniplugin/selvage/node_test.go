package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// node is a host with a subnet file, and a container runtime on it.
type node struct {
	*testing.T
	host   *sandbox.Host
	cni    *libcni.CNIConfig
	list   *libcni.NetworkConfigList
	stderr bytes.Buffer // what the plugins printed there
}

func newNode(t *testing.T, bin, specVersion, plugin string, file subnetfile.File) *node {
	t.Helper()
	host, err := sandbox.NewHost("node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	plugins, err := filepath.Abs(reference)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{T: t, host: host}
	n.cni = libcni.NewCNIConfig([]string{bin, plugins}, &invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: &n.stderr}})
	n.list, err = libcni.NetworkConfFromBytes(fmt.Appendf(nil,
		`{"cniVersion":%q,"name":"cbr0","plugins":[{"type":%q,"delegate":{"isDefaultGateway":true}}]}`, specVersion, plugin))
	if err != nil {
		t.Fatal(err)
	}
	n.do(func() error { return subnetfile.Write(subnetFile, file) })
	return n
}

func ipv4File() subnetfile.File {
	return subnetfile.File{
		Networks: [2][]netip.Prefix{subnet.IPv4: {netip.MustParsePrefix("10.5.0.0/16")}},
		Subnets:  [2]netip.Prefix{subnet.IPv4: netip.MustParsePrefix("10.5.29.1/24")},
		MTU:      1450, IPMasq: true,
	}
}

// do runs fn on the node; it must not fail.
func (n *node) do(fn func() error) {
	n.Helper()
	if err := n.host.Do(fn); err != nil {
		n.Fatal(err)
	}
}

// pod makes a container's namespace.
func (n *node) pod() *sandbox.Net {
	n.Helper()
	pod, err := n.host.NewNet()
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() {
		if err := pod.Close(); err != nil {
			n.Error(err)
		}
	})
	return pod
}

func attach(pod *sandbox.Net, ifName string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: "c1", NetNS: pod.Path(), IfName: ifName}
}

// add returns the address that ADD gave.
func (n *node) add(rt *libcni.RuntimeConf) netip.Addr {
	n.Helper()
	var result *types100.Result
	n.do(func() error {
		r, err := n.cni.AddNetworkList(n.Context(), n.list, rt)
		if err != nil {
			return err
		}
		result, err = types100.GetResult(r)
		return err
	})
	if len(result.IPs) == 0 {
		n.Fatalf("ADD gave no address: %v", result)
	}
	a, _ := netip.AddrFromSlice(result.IPs[0].Address.IP)
	return a.Unmap()
}

func (n *node) del(rt *libcni.RuntimeConf) {
	n.Helper()
	n.do(func() error { return n.cni.DelNetworkList(n.Context(), n.list, rt) })
}

// check returns what CHECK says.
func (n *node) check(rt *libcni.RuntimeConf) error {
	return n.host.Do(func() error { return n.cni.CheckNetworkList(n.Context(), n.list, rt) })
}

// wantAddresses fails unless host-local has handed out just these.
func (n *node) wantAddresses(want ...netip.Addr) {
	n.Helper()
	var got []netip.Addr
	n.do(func() error {
		entries, err := os.ReadDir(addresses)
		for _, e := range entries {
			if a, err := netip.ParseAddr(e.Name()); err == nil { // the others are locks and notes
				got = append(got, a)
			}
		}
		return err
	})
	slices.SortFunc(want, netip.Addr.Compare)
	slices.SortFunc(got, netip.Addr.Compare)
	if !slices.Equal(got, want) {
		n.Errorf("handed out are %v, want %v", got, want)
	}
}

// wantState fails unless these files are kept for DEL.
func (n *node) wantState(want ...string) {
	n.Helper()
	var got []string
	n.do(func() error {
		entries, err := os.ReadDir(dataDir)
		for _, e := range entries {
			got = append(got, e.Name())
		}
		return err
	})
	if !slices.Equal(got, want) {
		n.Errorf("kept are %q, want %q", got, want)
	}
}

// wantVeths fails unless the node has so many veth interfaces, all on the bridge, with hairpin mode on.
func (n *node) wantVeths(want int) {
	n.Helper()
	got := 0
	n.do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		bridge, err := netlink.LinkByName("cni0")
		if err != nil {
			return err
		}
		for _, link := range links {
			if link.Type() != "veth" {
				continue
			}
			got++
			port, err := netlink.LinkGetProtinfo(link)
			if err != nil {
				return err
			}
			if link.Attrs().MasterIndex != bridge.Attrs().Index || !port.Hairpin {
				return fmt.Errorf("%s: master is %d, want %d; hairpin is %t", link.Attrs().Name, link.Attrs().MasterIndex,
					bridge.Attrs().Index, port.Hairpin)
			}
		}
		return nil
	})
	if got != want {
		n.Errorf("%d veth interfaces, want %d", got, want)
	}
}

// quiet fails if a plugin printed something where nothing was wrong.
func (n *node) quiet() {
	n.Helper()
	if n.stderr.Len() > 0 {
		n.Errorf("on stderr: %s", n.stderr.String())
	}
}

// inPod returns an interface's MTU, addresses and routes ("default via 10.5.29.1") in a pod.
func (n *node) inPod(pod *sandbox.Net, ifName string) (mtu int, addrs, routes []string) {
	n.Helper()
	err := pod.Do(func() error {
		link, err := netlink.LinkByName(ifName)
		if err != nil {
			return err
		}
		mtu = link.Attrs().MTU
		list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range list {
			addrs = append(addrs, a.IPNet.String())
		}
		table, err := netlink.RouteList(link, netlink.FAMILY_ALL)
		for _, r := range table {
			routes = append(routes, fmt.Sprintf("%v via %v", r.Dst, r.Gw))
		}
		return err
	})
	if err != nil {
		n.Fatal(err)
	}
	return mtu, addrs, routes
}

// wantGone fails if an interface exists in a pod.
func (n *node) wantGone(pod *sandbox.Net, ifName string) {
	n.Helper()
	err := pod.Do(func() error {
		_, err := netlink.LinkByName(ifName)
		return err
	})
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); !gone {
		n.Errorf("%s: %v, want it gone", ifName, err)
	}
}

func (n *node) wantAll(what string, got []string, want ...string) {
	n.Helper()
	for _, w := range want {
		if !slices.Contains(got, w) {
			n.Errorf("%s are %q, want %q among them", what, got, w)
		}
	}
}
