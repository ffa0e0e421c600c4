package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// TestSubnetGivenAway: a node whose subnet another has been given yields, takes another, writes that down, and says which of
// its pods stay behind.
func TestSubnetGivenAway(t *testing.T) {
	const config = `{"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0","Backend":{"Type":"vxlan"}}`
	l := start(t, lab.Options{Nodes: 2, Config: config})
	ctx := testctx.New(t)
	node, other := l.Nodes()[0], l.Nodes()[1]
	pod, err := l.AddPod(ctx, node, "")
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.AddPod(ctx, other, "")
	if err != nil {
		t.Fatal(err)
	}
	if r := l.Probe(ctx, pod.Endpoint, far.Endpoint); r.Err != nil { // so that the bridge knows the pod
		t.Fatal(r.Err)
	}
	f, err := node.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	before := f.Subnets[subnet.IPv4].Masked()
	key := "/coreos.com/network/subnets/" + strings.ReplaceAll(before.String(), "/", "-")
	const taker = `{"PublicIP":"172.31.0.250","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0e:05:00:00:00:fa"},` +
		`"InstanceID":"ffffffffffffffffffffffffffffffff","NodeName":"taker"}`
	if _, err := l.Etcd().Client().Put(ctx, key, taker); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "another subnet", func() error {
		f, err := node.Subnet()
		if err == nil && f.Subnets[subnet.IPv4].Masked() == before {
			err = fmt.Errorf("the subnet file still says %s", before)
		}
		return err
	})
	for _, text := range []string{"its key belongs to another node: taker", "this node lost its subnet " + before.String(), pod.Addr(subnet.IPv4).String()} {
		waitFor(ctx, t, "the log", func() error { return says(node, text) })
	}
	value, err := l.Etcd().Client().Get(ctx, key)
	if err != nil || len(value.Kvs) != 1 || string(value.Kvs[0].Value) != taker {
		t.Errorf("the other's lease was changed: %v, %v", value, err)
	}
	if !node.Running() {
		t.Error("the daemon has ended")
	}
}
