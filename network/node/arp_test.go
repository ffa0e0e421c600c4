package node

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/network/node/status"
)

func TestSilentBridges(t *testing.T) {
	const all, own = "net/ipv4/conf/all/arp_ignore", "net/ipv4/conf/cni0/arp_ignore"
	for _, tt := range []struct{ all, own, want string }{
		{"0", "0", ""}, {"2", "1", ""}, {"0", "8", own}, {"8", "0", all}, {"", "", ""},
	} {
		settings := map[string]string{all: tt.all, own: tt.own}
		want := map[string]string{}
		if tt.want != "" {
			want["cni0"] = tt.want
		}
		got := silentBridges([]string{"cni0"}, func(path string) string { return settings[path] })
		if !maps.Equal(got, want) {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

// TestARPIgnored: a bridge that answers no ARP request cuts its pods off, and the node says so until it does again.
func TestARPIgnored(t *testing.T) {
	n := startPodNode(t, `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`, `{"isDefaultGateway":true}`)
	n.add(t, "a")
	n.whole(t, 1)
	bridge := link(t, "cni0")
	for _, silent := range []bool{true, false} {
		value := map[bool]string{true: "8", false: "1"}[silent]
		// The MTU is repaired, and has the loop look at once.
		err := errors.Join(setting("ipv4/conf/cni0/arp_ignore", value), netlink.LinkSetMTU(bridge, 1300))
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "arp_ignore "+value, func() error {
			s := n.now(t)
			i := slices.IndexFunc(s.Problems, func(p status.Problem) bool { return p.Code == status.ARPIgnored })
			if (i >= 0) != silent || silent && (s.State != status.Degraded || !slices.Contains(s.Problems[i].Cuts, "IPv4")) {
				return fmt.Errorf("%s, problems %+v", s.State, s.Problems)
			}
			return nil
		})
	}
}
