package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// MaxLeases is how many leases of nodes that do not exist there can be.
const MaxLeases = 1 << 15

// opsPerTransaction is what the benchmark's etcd takes in one transaction; 128 is etcd's own limit.
const opsPerTransaction = 2000

// config is the network config for families.
func config(families []subnet.Family) string {
	return configWith(families, `"Backend":{"Type":"vxlan"}`)
}

// configWith is one with whatever fields besides the networks. The real nodes' subnets are from the lower part of the
// network, those of the nodes that do not exist from the upper half.
func configWith(families []subnet.Family, fields string) string {
	c := `{"Network":"10.0.0.0/8","SubnetMin":"10.6.0.0","SubnetMax":"10.99.0.0"`
	if slices.Contains(families, subnet.IPv6) {
		c += `,"EnableIPv6":true,"IPv6Network":"fd00:5::/32","IPv6SubnetMin":"fd00:5:0:1::","IPv6SubnetMax":"fd00:5:0:c7::"`
	}
	return c + "," + fields + "}"
}

// absent is the lease of a node that does not exist. version makes another MAC address.
func absent(i int, families []subnet.Family, version byte) subnet.Lease {
	mac := network.MAC{0x0e, 0xab, version, byte(i >> 16), byte(i >> 8), byte(i)}
	l := subnet.Lease{BackendType: "vxlan", NodeName: fmt.Sprintf("absent%d", i), InstanceID: fmt.Sprintf("4be4e2b8-3e0c-4a8f-a9d5-%012d", i)}
	for _, f := range families {
		e := subnet.Endpoint{
			Subnet:   netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(128 + i>>8), byte(i), 0}), 24),
			PublicIP: netip.AddrFrom4([4]byte{100, byte(64 + i>>16), byte(i >> 8), byte(i)}), // RFC 6598
			Data:     fmt.Sprintf(`{"VNI":1,"VtepMAC":"%s"}`, mac),
		}
		if f == subnet.IPv6 {
			e.Subnet = netip.MustParsePrefix(fmt.Sprintf("fd00:5:1:%x::/64", i))
			e.PublicIP = netip.MustParseAddr(fmt.Sprintf("fd00:64::%x", i+1))
		}
		l.Endpoints[f] = e
	}
	return l
}

// mac is the MAC address that absent gave a lease.
func mac(i int, version byte) network.MAC {
	return network.MAC{0x0e, 0xab, version, byte(i >> 16), byte(i >> 8), byte(i)}
}

// cluster is a network config and leases, under a prefix of their own in etcd.
type cluster struct {
	server   *etcdserver.Server
	client   *clientv3.Client
	prefix   string
	families []subnet.Family
	leases   int
}

// cluster returns one with so many leases, and makes it at the first call.
func (b *bench) cluster(ctx context.Context, leases int, families []subnet.Family) (*cluster, error) {
	name := fmt.Sprintf("/bench/%d-%d", leases, len(families))
	if c := b.clusters[name]; c != nil {
		return c, nil
	}
	c := &cluster{server: b.etcd, client: b.client, prefix: name, families: families, leases: leases}
	if _, err := b.client.Put(ctx, c.prefix+"/config", config(families)); err != nil {
		return nil, fmt.Errorf("write the network config: %w", err)
	}
	for from := 0; from < leases; from += opsPerTransaction {
		if err := c.put(ctx, from, min(leases, from+opsPerTransaction), 0); err != nil {
			return nil, err
		}
	}
	b.clusters[name] = c
	return c, nil
}

// put writes the leases from one number up to another, in one transaction.
func (c *cluster) put(ctx context.Context, from, to int, version byte) error {
	var ops []clientv3.Op
	for i := from; i < to; i++ {
		l := absent(i, c.families, version)
		value, err := l.Value()
		if err != nil {
			return err
		}
		ops = append(ops, clientv3.OpPut(c.prefix+"/subnets/"+l.Key(), string(value)))
	}
	if _, err := c.client.Txn(ctx).Then(ops...).Commit(); err != nil {
		return fmt.Errorf("write leases: %w", err)
	}
	return nil
}

// remove is put's inverse.
func (c *cluster) remove(ctx context.Context, from, to int) error {
	var ops []clientv3.Op
	for i := from; i < to; i++ {
		ops = append(ops, clientv3.OpDelete(c.prefix+"/subnets/"+absent(i, c.families, 0).Key()))
	}
	if _, err := c.client.Txn(ctx).Then(ops...).Commit(); err != nil {
		return fmt.Errorf("delete leases: %w", err)
	}
	return nil
}

// arguments are those with which a daemon uses the cluster.
func (c *cluster) arguments() []string {
	return []string{"--etcd-endpoints=" + c.server.Endpoint(), "--etcd-prefix=" + c.prefix}
}

// join implements [store].
func (c *cluster) join(context.Context, *node) (args, environment []string, err error) {
	return c.arguments(), nil, nil
}

// requests implements [store].
func (c *cluster) requests(ctx context.Context) (map[string]float64, error) {
	return requests(ctx, c.server)
}

// entries implements [store].
func (c *cluster) entries() map[entry]network.MAC { return entries(0, c.leases, c.families, 0) }

// leave implements [store]: it deletes the leases of nodes that do exist.
func (c *cluster) leave(ctx context.Context) error {
	resp, err := c.client.Get(ctx, c.prefix+"/subnets/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	absents := map[string]bool{}
	for i := range c.leases {
		absents[c.prefix+"/subnets/"+absent(i, c.families, 0).Key()] = true
	}
	for _, kv := range resp.Kvs {
		if absents[string(kv.Key)] {
			continue
		}
		if _, err := c.client.Delete(ctx, string(kv.Key)); err != nil {
			return fmt.Errorf("delete a lease: %w", err)
		}
	}
	return nil
}

// entries are what the kernel has to hold for the leases from one number up to another, by whichever daemon.
func entries(from, to int, families []subnet.Family, version byte) map[entry]network.MAC {
	all := make(map[entry]network.MAC, 3*(to-from)*len(families))
	for i := from; i < to; i++ {
		l := absent(i, families, version)
		for _, f := range families {
			addEndpoint(all, l.Endpoints[f], mac(i, version))
		}
	}
	return all
}

// addEntries adds those for any lease over VXLAN.
func addEntries(all map[entry]network.MAC, l subnet.Lease) error {
	for _, e := range l.Endpoints {
		if !e.Subnet.IsValid() {
			continue
		}
		var data struct{ VtepMAC string }
		if err := json.Unmarshal([]byte(e.Data), &data); err != nil {
			return fmt.Errorf("lease %s: %w", l.Key(), err)
		}
		m, err := network.ParseMAC(data.VtepMAC)
		if err != nil {
			return fmt.Errorf("lease %s: %w", l.Key(), err)
		}
		addEndpoint(all, e, m)
	}
	return nil
}

func addEndpoint(all map[entry]network.MAC, e subnet.Endpoint, m network.MAC) {
	all[entry{route, e.Subnet.Addr()}] = network.MAC{}
	all[entry{neighbour, e.Subnet.Addr()}] = m
	all[entry{fdb, e.PublicIP}] = m
}
