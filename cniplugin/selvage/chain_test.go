package main

import (
	"encoding/json"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/subnet"
)

// testChain runs selvage, portmap and bandwidth, the real ones, with what the runtime adds for each.
func testChain(t *testing.T, bin string) {
	n := newNode(t, bin, "1.0.0", "selvage", ipv4File())
	n.list = n.network(`{"cniVersion":"1.0.0","name":"cbr0","plugins":[
		{"type":"selvage","delegate":{"isDefaultGateway":true},"capabilities":{"mac":true,"portMappings":true,"bandwidth":true}},
		{"type":"portmap","capabilities":{"portMappings":true}},
		{"type":"bandwidth","capabilities":{"bandwidth":true}}]}`)
	pod := n.pod()
	rt := attach(pod, "eth0")
	const mac, bits = "02:11:22:33:44:55", 8_000_000
	rt.CapabilityArgs = map[string]any{
		"mac":          mac,
		"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}},
		"bandwidth":    map[string]any{"ingressRate": bits, "ingressBurst": bits, "egressRate": 2 * bits, "egressBurst": bits},
	}
	n.add(rt)
	n.do(func() error {
		kept, err := os.ReadFile(filepath.Join(dataDir, "c1"))
		if err != nil {
			return err
		}
		var config struct{ RuntimeConfig map[string]any }
		if err := json.Unmarshal(kept, &config); err != nil {
			return err
		}
		for _, key := range []string{"mac", "portMappings", "bandwidth"} {
			if config.RuntimeConfig[key] == nil {
				t.Errorf("the delegate was not told %s: %s", key, kept)
			}
		}
		return nil
	})
	err := pod.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil && link.Attrs().HardwareAddr.String() != mac {
			t.Errorf("its MAC address is %s, want %s", link.Attrs().HardwareAddr, mac)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if rules := n.natRules(); !strings.Contains(rules, "8080") || !strings.Contains(rules, "10.5.29.2:80") {
		t.Errorf("no port is mapped:\n%s", rules)
	}
	// To the container at its own interface on the node, from it at one that its packets are led to.
	if rates := n.rates(); !maps.Equal(rates, map[string]uint64{"veth": bits / 8, "ifb": 2 * bits / 8}) {
		t.Errorf("bytes a second are %v", rates)
	}
	if err := n.check(rt); err != nil {
		t.Error(err)
	}
	n.del(rt)
	if rules := n.natRules(); strings.Contains(rules, "8080") {
		t.Errorf("the port is still mapped:\n%s", rules)
	}
	if rates := n.rates(); len(rates) > 0 {
		t.Errorf("still limited: %v", rates)
	}
	n.wantAddresses()
	n.wantState()
	n.wantVeths(0)
}

// testK3s runs the configuration that k3s writes, with the plugin under flannel's name, in k3s' networks. forceAddress has
// bridge replace the address of a bridge that is from another subnet.
func testK3s(t *testing.T, bin string) {
	file := ipv4File()
	file.Networks[subnet.IPv4] = []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}
	file.Subnets[subnet.IPv4] = netip.MustParsePrefix("10.42.3.1/24")
	n := newNode(t, bin, "1.0.0", "flannel", file)
	n.list = n.network(`{"name":"cbr0","cniVersion":"1.0.0","plugins":[
		{"type":"flannel","delegate":{"hairpinMode":true,"forceAddress":true,"isDefaultGateway":true}},
		{"type":"portmap","capabilities":{"portMappings":true}},
		{"type":"bandwidth","capabilities":{"bandwidth":true}}]}`)
	n.do(func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		old, err := netlink.ParseAddr("10.42.9.1/24")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(bridge, old)
	})
	rt := attach(n.pod(), "eth0")
	rt.CapabilityArgs = map[string]any{
		"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}},
		"bandwidth":    map[string]any{"ingressRate": 8_000_000, "ingressBurst": 8_000_000},
	}
	n.add(rt)
	n.do(func() error {
		bridge, err := netlink.LinkByName("cni0")
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(bridge, netlink.FAMILY_V4)
		if err == nil && (len(addrs) != 1 || addrs[0].IPNet.String() != "10.42.3.1/24") {
			t.Errorf("the bridge has %v, want 10.42.3.1/24", addrs)
		}
		return err
	})
	if rules := n.natRules(); !strings.Contains(rules, "10.42.3.2:80") {
		t.Errorf("no port is mapped:\n%s", rules)
	}
	if err := n.check(rt); err != nil {
		t.Error(err)
	}
	n.del(rt)
	n.wantAddresses()
	n.wantState()
	n.wantVeths(0)
}

// rates is what bandwidth has left in the kernel: bytes a second by the type of interface.
func (n *node) rates() map[string]uint64 {
	n.Helper()
	rates := map[string]uint64{}
	n.do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, link := range links {
			qdiscs, err := netlink.QdiscList(link)
			if err != nil {
				return err
			}
			for _, q := range qdiscs {
				if tbf, ok := q.(*netlink.Tbf); ok {
					rates[link.Type()] = tbf.Rate
				}
			}
		}
		return nil
	})
	return rates
}

// natRules is what portmap has left in the kernel.
func (n *node) natRules() string {
	n.Helper()
	var rules []byte
	n.do(func() (err error) {
		rules, err = exec.Command("iptables-save", "-t", "nat").CombinedOutput()
		return err
	})
	return string(rules)
}
