package node

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

var update = flag.Bool("update", false, "write testdata/desired.txt anew")

// TestDesired compares, for each combination of families and backend, what a node wants in the kernel for itself, for a
// peer on its own link and for one behind a router, with the commands in testdata/desired.txt.
func TestDesired(t *testing.T) {
	const path = "testdata/desired.txt"
	golden, err := os.ReadFile(path)
	if err != nil && !*update {
		t.Fatal(err)
	}
	families := []struct{ name, config string }{
		{"IPv4", `"Network":"10.5.0.0/16"`},
		{"IPv6", `"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/56"`},
		{"dual", `"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56"`},
	}
	backends := []struct{ name, config string }{
		{"vxlan", `{"Type":"vxlan"}`},
		{"vxlan direct", `{"Type":"vxlan","DirectRouting":true}`},
		{"host-gw", `{"Type":"host-gw"}`},
	}
	peers := []struct{ name, key, address4, address6 string }{
		{"on the same link", "10.5.29.0-24&fd00:5:0:1d::-64", "192.0.2.7", "2001:db8::7"},
		{"behind a router", "10.5.30.0-24&fd00:5:0:1e::-64", "198.51.100.7", "2001:db8:0:1::7"},
	}
	var got strings.Builder
	say := func(s network.State) {
		for _, line := range s.Commands() {
			got.WriteString(line + "\n")
		}
	}
	for _, f := range families {
		for _, b := range backends {
			c, err := subnet.ParseConfig([]byte("{" + f.config + `,"Backend":` + b.config + "}"))
			if err != nil {
				t.Fatal(err)
			}
			made, err := newBackend(c, desiredUnderlay(c))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&got, "# %s, %s, MTU of pods %d: the node itself\n", f.name, b.name, made.Describe().MTU)
			say(ownState(made, c, network.Scope{}, "eth0", ownSubnets(c), true, func(path string) string {
				return map[string]string{"net/ipv6/conf/eth0/accept_ra": "1"}[path]
			}))
			for _, p := range peers {
				fmt.Fprintf(&got, "# %s, %s: a peer %s\n", f.name, b.name, p.name)
				l, err := subnet.ParseLease(p.key, fmt.Appendf(nil, `{"PublicIP":%q,"PublicIPv6":%q,"BackendType":%q,`+
					`"BackendData":{"VNI":1,"VtepMAC":"72:30:36:d0:8b:68"},"BackendV6Data":{"VNI":1,"VtepMAC":"72:30:36:d0:8b:69"}}`,
					p.address4, p.address6, c.Backend.Type))
				if err != nil {
					t.Fatal(err)
				}
				s, err := made.Peer(l)
				if err != nil {
					fmt.Fprintf(&got, "skipped: %s\n", err)
				}
				say(s)
			}
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got.String() != string(golden) {
		t.Errorf("got (-update writes it):\n%s\nwant:\n%s", &got, golden)
	}
}

func desiredUnderlay(c subnet.Config) backend.Underlay {
	local := [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	u := backend.Underlay{
		Link: "eth0", MTU: 1500, Nexthops: true, ReversePath: true,
		OnLink: [2][]netip.Prefix{{netip.MustParsePrefix("192.0.2.0/24")}, {netip.MustParsePrefix("2001:db8::/64")}},
		Keep:   fixedMAC{},
	}
	for _, f := range subnet.Families() {
		if c.Ranges[f].Enabled() {
			u.Local[f], u.PublicIP[f] = local[f], local[f]
		}
	}
	return u
}

func ownSubnets(c subnet.Config) (own [2]netip.Prefix) {
	for f, p := range []string{"10.5.1.0/24", "fd00:5:0:1::/64"} {
		if c.Ranges[f].Enabled() {
			own[f] = netip.MustParsePrefix(p)
		}
	}
	return own
}

// fixedMAC is a [backend.Keeper] for tests.
type fixedMAC struct{}

func (fixedMAC) MAC(string, network.MAC) network.MAC { return network.MAC{0x0e, 0, 0, 0, 0, 1} }

func (fixedMAC) Secret(_ string, _ int, generate func() ([]byte, error)) ([]byte, error) {
	return generate()
}
