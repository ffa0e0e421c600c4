package cniplugin

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
)

func TestInTheWay(t *testing.T) {
	both := testFile()
	both.Subnets[subnet.IPv6] = netip.MustParsePrefix("fd00:5:0:1d::1/64")
	for addrs, want := range map[string]string{
		"":                                          "",
		"10.5.29.1/24":                              "",
		"10.5.77.1/24":                              "10.5.77.1/24 10.5.29.1/24",
		"10.5.29.1/24 10.5.77.1/24":                 "",
		"10.5.77.1/24 10.5.29.1/24":                 "10.5.77.1/24 10.5.29.1/24",
		"10.5.29.1/16":                              "10.5.29.1/16 10.5.29.1/24",
		"10.5.29.1/24 fe80::1/64":                   "",
		"10.5.29.1/24 fd00:5:0:77::1/64":            "", // bridge takes a second IPv6 prefix
		"10.5.29.1/24 fd00:5:0:1d::2/64":            "fd00:5:0:1d::2/64 fd00:5:0:1d::1/64",
		"fd00:5::1/32 10.5.29.1/24 fe80::1/64":      "fd00:5::1/32 fd00:5:0:1d::1/64",
		"fd00:5:0:1d::1/64 fd00:5::1/32 fe80::1/64": "",
	} {
		var list []netip.Prefix
		for _, a := range strings.Fields(addrs) {
			list = append(list, netip.MustParsePrefix(a))
		}
		got := ""
		if holds, w, ok := inTheWay(both, list); ok {
			got = holds.String() + " " + w.String()
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", addrs, got, want)
		}
	}
}

// bridged is a node in a network namespace with a bridge of the old subnet, and a delegate that wants forceAddress.
type bridged struct {
	*node
	host *sandbox.Net
}

func newBridged(t *testing.T, addr string) bridged {
	t.Helper()
	host, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	b := bridged{newNode(t), host}
	// bridge's own way: the right address goes on the bridge, if another is not in the way or it is told not to mind.
	write(t, filepath.Join(b.dir, "bridge"), `#!/bin/sh
echo "$CNI_COMMAND" >>"$FAKE/verbs"
cat >"$FAKE/$CNI_COMMAND.json"
if [ "$CNI_COMMAND" != ADD ]; then exit; fi
if grep -q '"forceAddress":true' "$FAKE/ADD.json"; then cat "$FAKE/result"; exit; fi
echo '{"code":999,"msg":"\"cni0\" already has an IP address different from 10.5.29.1/24"}'; exit 1
`)
	b.do(func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(bridge, a)
	})
	return b
}

func (b bridged) do(fn func() error) {
	b.t.Helper()
	if err := b.host.Do(fn); err != nil {
		b.t.Fatal(err)
	}
}

// add is ADD in the node's namespace.
func (b bridged) add(a *args) error {
	return b.host.Do(func() error { return b.verbs.Add(a) })
}

// port attaches an interface to the bridge.
func (b bridged) port() {
	b.t.Helper()
	b.do(func() error {
		bridge, err := netlink.LinkByName("cni0")
		if err != nil {
			return err
		}
		port := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth1", MasterIndex: bridge.Attrs().Index}, PeerName: "veth2"}
		return netlink.LinkAdd(port)
	})
}

func TestBridgeOfAnotherSubnet(t *testing.T) {
	b := newBridged(t, "10.5.77.1/24")
	b.port()
	b.fails(b.add, codeBridge, "bridge cni0 holds 10.5.77.1/24, want 10.5.29.1/24", "interfaces attached to it: 1",
		`"ip link delete cni0"`, `"repairBridge": true`, "already has an IP address different")
	b.delegated("ADD", "DEL")
	wantFiles(t, b.state)

	// With containers on it, nobody takes their gateway away.
	b.conf["repairBridge"] = true
	b.fails(b.add, codeBridge, "repairBridge: not done: interfaces attached to cni0: 1")
	b.delegated("ADD", "DEL")
	b.do(func() error {
		link, err := netlink.LinkByName("veth1")
		if err == nil {
			err = netlink.LinkDel(link)
		}
		return err
	})
	b.ok(b.add)
	b.delegated("ADD", "DEL", "ADD")
	wantFiles(t, b.state, "c1")

	// A container that was added before is not undone, and nothing is repaired for it.
	b.fails(b.add, codeBridge, "interface eth0 was added before; DEL it first", "nothing is attached to it")
	b.delegated("ADD")
	wantFiles(t, b.state, "c1")
}

func TestBridgeOfSomebodyElse(t *testing.T) {
	b := newBridged(t, "192.0.2.1/24")
	b.conf["repairBridge"] = true
	b.fails(b.add, codeBridge, "bridge cni0 holds 192.0.2.1/24", "192.0.2.1/24 is not of the overlay's networks", `"ip address delete 192.0.2.1/24 dev cni0"`)
	b.delegated("ADD", "DEL")
}

// TestBridgeIsNotToBlame has the delegate fail for another reason.
func TestBridgeIsNotToBlame(t *testing.T) {
	for name, spoil := range map[string]func(bridged){
		"right address": func(b bridged) {
			write(t, filepath.Join(b.dir, "subnet.env"), strings.ReplaceAll(string(testFile().Marshal()), "29.1", "77.1"))
		},
		"another bridge":     func(b bridged) { b.conf["delegate"] = map[string]any{"bridge": "br7"} },
		"another IPAM":       func(b bridged) { b.conf["ipam"] = map[string]any{"type": "static"} },
		"no gateway":         func(b bridged) { b.conf["delegate"] = map[string]any{"isGateway": false} },
		"a VLAN's interface": func(b bridged) { b.conf["delegate"] = map[string]any{"vlan": 7} },
		"another delegate": func(b bridged) {
			b.conf["delegate"] = map[string]any{"type": "ptp"}
			if err := os.Rename(filepath.Join(b.dir, "bridge"), filepath.Join(b.dir, "ptp")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBridged(t, "10.5.77.1/24")
			b.conf["repairBridge"] = true
			spoil(b)
			b.fails(b.add, types.ErrInternal, "already has an IP address different")
			b.delegated("ADD", "DEL")
		})
	}
}
