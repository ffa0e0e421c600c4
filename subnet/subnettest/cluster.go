package subnettest

import (
	"fmt"
	"net/netip"

	"github.com/selvage-net/selvage/backend"
	"github.com/selvage-net/selvage/backend/vxlan"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// Config is the network config of the cluster that the corpus is for.
const Config = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56","Backend":{"Type":"vxlan"}}`

// Peers are the records of the cluster's other nodes, which are all good.
func Peers() []subnet.Record {
	return []subnet.Record{
		peer("10.5.12.0-24&fd00:5:0:c::-64",
			`{"PublicIP":"172.31.0.12","PublicIPv6":"fd00:31::12","BackendType":"vxlan",`+
				`"BackendData":{"VNI":1,"VtepMAC":"0e:05:00:00:00:0c"},`+
				`"BackendV6Data":{"VNI":1,"VtepMAC":"0e:05:00:00:06:0c"},`+
				`"InstanceID":"0000000000000000000000000000000c","NodeName":"node-12"}`, 12),
		peer("10.5.13.0-24", `{"PublicIP":"172.31.0.13","PublicIPv6":null,"BackendType":"vxlan",`+ // flannel's
			`"BackendData":{"VNI":1,"VtepMAC":"0e:05:00:00:00:0d"}}`, 13),
		peer("fd00:5:0:e::-64", `{"PublicIP":"0.0.0.0","PublicIPv6":"fd00:31::14","BackendType":"vxlan",`+
			`"BackendV6Data":{"VNI":1,"VtepMAC":"0e:05:00:00:06:0e"},`+
			`"InstanceID":"0000000000000000000000000000000e","NodeName":"node-14"}`, 14),
	}
}

func peer(key, value string, revision int64) subnet.Record {
	r := subnet.DecodeRecord(key, []byte(value))
	r.Order, r.Version, r.LeaseID = revision, revision, 1
	return r
}

// Rules are those of a node in the cluster. Some of its underlay lies inside the overlay's network, as it does where
// Network was chosen without regard to the underlay.
func Rules() (subnet.Rules, error) {
	config, err := subnet.ParseConfig([]byte(Config))
	if err != nil {
		return subnet.Rules{}, err
	}
	local := [2]netip.Addr{netip.MustParseAddr("172.31.0.11"), netip.MustParseAddr("fd00:31::11")}
	b, err := vxlan.New(config, backend.Underlay{
		Link: "eth0", MTU: 1500, Local: local, PublicIP: local,
		Keep: keeper{},
	})
	if err != nil {
		return subnet.Rules{}, fmt.Errorf("backend: %w", err)
	}
	return subnet.Rules{
		Config:     config,
		InstanceID: "0000000000000000000000000000000b",
		PublicIPs:  local,
		Underlay:   underlay(),
		Check:      b.Check,
	}, nil
}

// keeper is the [backend.Keeper] of the node.
type keeper struct{}

func (keeper) MAC(string, network.MAC) network.MAC { return network.MAC{0x0e, 5, 0, 0, 0, 0x0b} }

func (keeper) Secret(_ string, _ int, generate func() ([]byte, error)) ([]byte, error) {
	return generate()
}

// underlay is what is on-link on the node, and single addresses.
func underlay() (list []netip.Prefix) {
	for _, text := range []string{
		"172.31.0.0/24", "fd00:31::/64",
		"10.0.0.0/9", // around the whole overlay
		"10.5.77.0/24", "10.5.79.0/24", "10.5.81.0/24", "fd00:5:0:4d::/64", "fd00:5:0:4f::/64", "fd00:5:0:51::/64",
		"172.31.0.1/32", "10.5.99.1/32", "10.5.101.1/32", "10.5.103.1/32", // gateways
		"10.5.111.9/32", "10.5.113.9/32", "10.5.115.9/32", "fd00:5:0:6f::9/128", "fd00:5:0:71::9/128", // etcd
	} {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}
