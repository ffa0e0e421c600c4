package storetest

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

// lease returns a lease on the n-th subnet: 10.5.n.0/24, fd00:5:0:n::/64, or both. Different names make different
// values.
func lease(n int, name string, families ...subnet.Family) subnet.Lease {
	l := subnet.Lease{BackendType: "vxlan", InstanceID: name, NodeName: name}
	for _, f := range families {
		e := subnet.Endpoint{
			Subnet:   netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(5 + n/256), byte(n), 0}), 24),
			PublicIP: netip.MustParseAddr("192.0.2.1"),
			Data:     `{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`,
		}
		if f == subnet.IPv6 {
			e.Subnet = netip.MustParsePrefix(fmt.Sprintf("fd00:5:0:%x::/64", n))
			e.PublicIP = netip.MustParseAddr("2001:db8::1")
		}
		l.Endpoints[f] = e
	}
	return l
}

func single(n int, name string) subnet.Lease { return lease(n, name, subnet.IPv4) }
func dual(n int, name string) subnet.Lease   { return lease(n, name, subnet.IPv4, subnet.IPv6) }

// name is the name of the record that put makes.
func (c Cluster) name(n int) string {
	if c.Nodes != nil {
		return fmt.Sprintf("node-%04d", n)
	}
	return single(n, "").Key()
}

func (c Cluster) names(all ...int) (names []string) {
	for _, n := range all {
		names = append(names, c.name(n))
	}
	slices.Sort(names)
	return names
}

// put writes a record on the n-th subnet by hand, or changes it.
func (c Cluster) put(t *testing.T, n int, nodeName string) {
	t.Helper()
	l := single(n, "")
	l.NodeName = nodeName
	if c.Nodes != nil {
		c.Nodes.Add(t, c.name(n))
		c.Nodes.Allocate(t, c.name(n), l.Endpoints[subnet.IPv4].Subnet)
		c.Nodes.Publish(t, c.name(n), l)
		return
	}
	value, err := l.Value()
	if err != nil {
		t.Fatal(err)
	}
	c.Write(t, "subnets/"+l.Key(), string(value))
}

// drop deletes what put wrote.
func (c Cluster) drop(t *testing.T, n int) {
	t.Helper()
	if c.Nodes != nil {
		c.Nodes.Remove(t, c.name(n))
		return
	}
	c.Delete(t, "subnets/"+c.name(n))
}
