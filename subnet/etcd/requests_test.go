package etcd

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/storetest"
)

const (
	txn       = pb.KV_Txn_FullMethodName
	get       = pb.KV_Range_FullMethodName
	watch     = pb.Watch_Watch_FullMethodName
	leaseGet  = pb.Lease_LeaseGrant_FullMethodName
	leaseKeep = pb.Lease_LeaseKeepAlive_FullMethodName
	leaseEnd  = pb.Lease_LeaseRevoke_FullMethodName
)

// lease returns a lease on 10.5.n.0/24.
func lease(n int, name string) subnet.Lease {
	l := subnet.Lease{BackendType: "vxlan", InstanceID: name}
	l.Endpoints[subnet.IPv4] = subnet.Endpoint{
		Subnet:   netip.MustParsePrefix(fmt.Sprintf("10.5.%d.0/24", n)),
		PublicIP: netip.MustParseAddr("192.0.2.1"),
	}
	return l
}

func TestRequestsAreFew(t *testing.T) {
	c, o := cluster(t, shared.server.Endpoint())
	const n = 2500
	etcd := admin(t, o.Endpoints[0])
	for i := 0; i < n; i += 100 {
		var ops []clientv3.Op
		for j := range 100 {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s/subnets/10.%d.%d.0-24", o.Prefix, 100+(i+j)/256, (i+j)%256), "value"))
		}
		if _, err := etcd.Txn(t.Context()).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	var asked requests
	o.dial = asked.options()
	o.LeaseTTL = DefaultLeaseTTL
	s := open(t, o)
	expect := func(what string, want map[string]int) {
		t.Helper()
		if got := asked.take(); !maps.Equal(got, want) {
			t.Errorf("%s takes %v, want %v", what, got, want)
		}
	}
	w := storetest.Watch(t, s, nil)
	if got := len(w.Synced(1).Leases); got != n {
		t.Fatalf("%d leases", got)
	}
	c.Write(t, "subnets/10.5.1.0-24", "x")
	w.There("10.5.1.0-24") // so both the list and the watch are there
	expect(fmt.Sprintf("a start with %d leases", n), map[string]int{txn: 3, watch: 1})

	for i := range 100 {
		c.Write(t, fmt.Sprintf("subnets/10.5.%d.0-24", 100+i), "x")
	}
	w.There("10.5.199.0-24")
	expect("100 leases more", nil)

	if _, err := s.Claim(t.Context(), nil, lease(1, "a")); err == nil {
		t.Error("a reserved subnet was claimed")
	}
	expect("the first try at a claim", map[string]int{leaseGet: 1, txn: 1})
	r, err := s.Claim(t.Context(), nil, lease(2, "a"))
	if err != nil {
		t.Fatal(err)
	}
	expect("the second", map[string]int{txn: 1})
	if r, err = s.Claim(t.Context(), &r, lease(2, "a")); err != nil {
		t.Fatal(err)
	}
	expect("a claim of what we have", map[string]int{txn: 1, leaseKeep: 1})
	if err := s.Release(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	expect("a release", map[string]int{txn: 1, leaseEnd: 1})
}

func TestHoldAsksOnlyWhatItMust(t *testing.T) {
	_, o := cluster(t, shared.server.Endpoint())
	var asked requests
	o.dial = asked.options()
	o.LeaseTTL = DefaultLeaseTTL
	s := open(t, o)
	r, err := s.Claim(t.Context(), nil, lease(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	asked.take()
	h := startHold(t, s, r)
	h.change(lease(1, "b"))
	h.change(lease(1, "c")) // is taken when the other is written
	if got := asked.take(); got[leaseKeep] != 1 || got[get] != 1 || got[txn] < 1 || got[txn] > 2 || len(got) != 3 {
		t.Errorf("a start and a change take %v", got)
	}
}
