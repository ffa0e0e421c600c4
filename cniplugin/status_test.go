package cniplugin

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

func TestStatus(t *testing.T) {
	n := newNode(t)
	n.conf["cniVersion"] = "1.1.0"
	n.args.ContainerID, n.args.IfName = "", ""
	n.ok(n.verbs.Status)
	n.delegated("STATUS")
	file := n.conf["subnetFile"].(string)

	for _, test := range []struct {
		status subnetfile.Status
		code   uint
		says   string
	}{
		{subnetfile.Status{Reason: "etcd was never reached"}, types.ErrPluginNotAvailable, "the overlay is not usable; etcd was never reached"},
		{subnetfile.Status{Limited: true, Reason: "no uplink"}, types.ErrLimitedConnectivity, "the overlay does not work; no uplink"},
		{subnetfile.Status{}, types.ErrPluginNotAvailable, "the daemon does not say why"},
	} {
		if err := subnetfile.WriteStatus(file, test.status); err != nil {
			t.Fatal(err)
		}
		n.fails(n.verbs.Status, test.code, test.says)
		n.args.ContainerID, n.args.IfName = "c1", "eth0"
		n.ok(n.verbs.Add) // STATUS is advice: what can be added is
		n.ok(n.verbs.Del)
	}
	n.delegated("ADD", "DEL", "ADD", "DEL", "ADD", "DEL")
	write(t, subnetfile.StatusPath(file), "x")
	n.fails(n.verbs.Status, types.ErrPluginNotAvailable, "not known whether the overlay is usable", "status file "+file)
	if err := subnetfile.WriteStatus(file, subnetfile.Status{Usable: true}); err != nil {
		t.Fatal(err)
	}
	n.ok(n.verbs.Status)
	n.delegated("STATUS")

	// A delegate's reason is ours, with one of the two codes that STATUS has.
	n.failDelegate("STATUS", `{"code":51,"msg":"bad weather"}`)
	n.fails(n.verbs.Status, types.ErrLimitedConnectivity, `delegate "bridge": STATUS: bad weather`)
	n.failDelegate("STATUS", `{"code":999,"msg":"failed to find plugin","details":"in path"}`)
	n.fails(n.verbs.Status, types.ErrPluginNotAvailable, "failed to find plugin; in path")
}

func TestStatusOfANodeThatIsNotReady(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*node)
		code  uint
		says  string
	}{
		"no subnet file":    {func(n *node) { n.conf["subnetFile"] = filepath.Join(n.dir, "none") }, types.ErrPluginNotAvailable, "selvaged writes it"},
		"damaged":           {func(n *node) { write(t, filepath.Join(n.dir, "subnet.env"), "x") }, types.ErrPluginNotAvailable, "line 1"},
		"unreadable":        {func(n *node) { n.conf["subnetFile"] = n.dir }, types.ErrPluginNotAvailable, "is a directory"},
		"no delegate":       {func(n *node) { n.conf["delegate"] = map[string]any{"type": "ptp"} }, types.ErrPluginNotAvailable, `find delegate "ptp"`},
		"bad delegate":      {func(n *node) { n.conf["delegate"] = map[string]any{"type": 7} }, types.ErrInvalidNetworkConfig, "type is 7"},
		"bad configuration": {func(n *node) { n.conf["delegate"] = 7 }, types.ErrDecodingFailure, "delegate is a JSON number"},
		"bad name":          {func(n *node) { n.conf["name"] = "a/b" }, types.ErrInvalidNetworkConfig, "is no network name"},
		"reservations": {func(n *node) {
			if err := os.MkdirAll(filepath.Join(n.dir, "networks"), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(n.dir, "networks", "cbr0"), "")
		}, types.ErrPluginNotAvailable, "read host-local's reservations"},
		"no address": {func(n *node) { n.reserveAll() }, types.ErrPluginNotAvailable, "no address left; all 253 of 10.5.29.0/24 are taken"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.conf["cniVersion"] = "1.1.0"
			test.spoil(n)
			n.fails(n.verbs.Status, test.code, test.says)
			n.delegated()
		})
	}
}

// reserve writes a reservation as host-local does.
func (n *node) reserve(addr, containerID, ifName string) {
	n.t.Helper()
	dir := filepath.Join(n.dir, "networks", n.conf["name"].(string))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		n.t.Fatal(err)
	}
	content := containerID
	if ifName != "" {
		content += "\r\n" + ifName
	}
	write(n.t, filepath.Join(dir, addr), content)
	write(n.t, filepath.Join(dir, "lock"), "")
	write(n.t, filepath.Join(dir, "last_reserved_ip.0"), addr)
}

func (n *node) reserveAll() {
	a := netip.MustParseAddr("10.5.29.2")
	for i := range 253 {
		n.reserve(a.String(), fmt.Sprintf("x%d", i), "eth0")
		a = a.Next()
	}
}

// TestAddSaysThatNoAddressIsLeft turns an error of the delegate's that means nothing to a runtime into "try again later".
func TestAddSaysThatNoAddressIsLeft(t *testing.T) {
	n := newNode(t)
	n.failDelegate("ADD", `{"code":999,"msg":"failed to allocate for range 0"}`)
	n.fails(n.verbs.Add, types.ErrInternal, "failed to allocate for range 0")
	n.reserveAll()
	n.fails(n.verbs.Add, types.ErrTryAgainLater, "no address left: all 253 of 10.5.29.0/24 are taken", "failed to allocate for range 0")
	n.reserve("10.5.29.3", "c9", "e\x00") // of a container that may be running
	if err := n.call(n.verbs.Add); err == nil || strings.Contains(err.Error(), "were freed") {
		t.Errorf("%v, want that no address is freed", err)
	}
	n.reserve("10.5.29.2", "", "")
	n.fails(n.verbs.Add, types.ErrTryAgainLater, "no address left", "damaged reservations were freed: 1")
	n.fails(n.verbs.Add, types.ErrInternal, "failed to allocate for range 0") // for another reason
	n.conf["ipam"] = map[string]any{"dataDir": 7}
	n.fails(n.verbs.Add, types.ErrInternal, "failed to allocate for range 0")
}

func TestExhausted(t *testing.T) {
	addr := netip.MustParseAddr
	for _, test := range []struct {
		subnet string
		taken  []netip.Addr
		want   bool
	}{
		{"10.5.29.1/30", nil, false},
		{"10.5.29.1/30", []netip.Addr{addr("10.5.77.2")}, false},
		{"10.5.29.1/30", []netip.Addr{addr("10.5.29.2")}, true},
		{"fd00::1/126", []netip.Addr{addr("fd00::2")}, false},
		{"fd00::1/126", []netip.Addr{addr("fd00::2"), addr("fd00::3")}, true},
		{"fd00::1/64", []netip.Addr{addr("fd00::2"), addr("fd00::3")}, false},
	} {
		s := netip.MustParsePrefix(test.subnet)
		var f subnetfile.File
		f.Subnets[subnet.FamilyOf(s.Addr())] = s
		var list []reservation
		for _, a := range test.taken {
			list = append(list, reservation{addr: a})
		}
		if full, _, got := exhausted(f, list); got != test.want || got && full != s.Masked() {
			t.Errorf("%s with %v: got %v, %v", s, test.taken, full, got)
		}
	}
}
