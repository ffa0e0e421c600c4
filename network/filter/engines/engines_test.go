package engines

import (
	"os"
	"slices"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network/nft/nfttest"
)

func TestMain(m *testing.M) { os.Exit(sandbox.Run(m.Run)) }

// TestRead makes the tables and chains of each engine with the programs that the engines use, beside those of others, and
// removes them by the commands that are advised.
func TestRead(t *testing.T) {
	ipt := func(variant string, args ...string) []string {
		return append([]string{variant, "--wait"}, args...)
	}
	for _, tt := range []struct {
		name     string
		commands [][]string
		want     map[Name][]string
	}{
		{name: "nobody"},
		{"kube-proxy and Docker", [][]string{
			ipt("iptables-nft", "-N", "KUBE-FORWARD"), ipt("iptables-nft", "-N", "DOCKER-USER"), {"nft", "add", "table", "inet", "selvage"},
			ipt("iptables-legacy", "-N", "KUBE-FIREWALL"),
		}, nil},
		{"what k3s leaves", [][]string{
			ipt("iptables-nft", "-N", "KUBE-ROUTER-FORWARD"), ipt("iptables-nft", "-N", "KUBE-POD-FW-ABCDEF"),
			ipt("ip6tables-nft", "-N", "KUBE-NWPLCY-DEFAULT"), ipt("iptables-nft", "-A", "FORWARD", "-j", "KUBE-ROUTER-FORWARD"),
			ipt("iptables-nft", "-A", "KUBE-ROUTER-FORWARD", "-j", "KUBE-POD-FW-ABCDEF"), ipt("iptables-nft", "-N", "KUBE-SERVICES"),
		}, map[Name][]string{KubeRouter: {"2 chains in table ip filter", "1 chain in table ip6 filter"}}},
		{"Calico and another, legacy too", [][]string{
			ipt("iptables-legacy", "-N", "cali-FORWARD"), ipt("iptables-legacy", "-t", "nat", "-N", "cali-PREROUTING"),
			{"nft", "add", "table", "ip", "calico"}, {"nft", "add", "table", "inet", "kube-network-policies"},
			{"nft", "add", "chain", "ip", "calico", "cali-FORWARD"},
		}, map[Name][]string{
			Calico:              {"table ip calico", "1 chain in table ip filter (legacy iptables)", "1 chain in table ip nat (legacy iptables)"},
			KubeNetworkPolicies: {"table inet kube-network-policies"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns, err := sandbox.NewNet()
			if err != nil {
				t.Fatal(err)
			}
			defer ns.Close()
			x := nfttest.New(t, ns)
			for _, c := range tt.commands {
				x.Run(c...)
			}
			read := func() (found []Engine) {
				err := ns.Do(func() (err error) {
					found, err = Read()
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				return found
			}
			found := read()
			if len(found) != len(tt.want) {
				t.Errorf("found %v, want %v", found, tt.want)
			}
			for _, e := range found {
				var places []string
				for _, p := range e.Places {
					places = append(places, p.String())
				}
				if !slices.Equal(places, tt.want[e.Name]) {
					t.Errorf("%s: %q, want %q", e.Name, places, tt.want[e.Name])
				}
				for _, c := range e.Commands() {
					x.Run("sh", "-ec", c)
				}
			}
			if left := read(); len(left) > 0 {
				t.Errorf("after the commands that remove them, there are %v", left)
			}
		})
	}
}
