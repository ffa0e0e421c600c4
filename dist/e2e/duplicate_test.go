package e2e

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// TestDuplicateMAC: a node whose device has the MAC address that an older lease of another node names takes another, and
// all reach it. Nobody else is disturbed.
func TestDuplicateMAC(t *testing.T) {
	const config = `{"Network":"10.5.0.0/16","SubnetMax":"10.5.199.0","Backend":{"Type":"vxlan"}}`
	l := start(t, lab.Options{Nodes: 2, Config: config})
	ctx := testctx.New(t)
	node := l.Nodes()[0]
	mac, err := macOf(node)
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	// The node's own lease gives way to one of a node that does not exist, with the same MAC address and elsewhere.
	client, prefix := l.Etcd().Client(), "/coreos.com/network/subnets/"
	f, err := node.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	own := f.Subnets[subnet.IPv4].Masked()
	other := fmt.Sprintf(`{"PublicIP":"172.31.0.250","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":%q}}`, mac)
	if _, err := client.Put(ctx, prefix+"10.5.250.0-24", other); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Delete(ctx, prefix+fmt.Sprintf("%s-%d", own.Addr(), own.Bits())); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(node.Start(), node.WaitReady(ctx)); err != nil {
		t.Fatal(err)
	}
	if now, err := macOf(node); err != nil || now == mac {
		t.Errorf("the device has %s, %v, and had it before", now, err)
	}
	waitSays(ctx, t, node, "choosing a new one")
	var pods []*lab.Endpoint
	for _, n := range l.Nodes() {
		p, err := l.AddPod(ctx, n, "")
		if err != nil {
			t.Fatal(err)
		}
		pods = append(pods, p.Endpoint)
	}
	waitFor(ctx, t, "probes", func() (err error) {
		for _, row := range l.Matrix(ctx, pods) {
			for _, r := range row {
				err = errors.Join(err, r.Err)
			}
		}
		return err
	})
}

func macOf(n *lab.Node) (mac string, err error) {
	err = n.Do(func() error {
		link, err := netlink.LinkByName("flannel.1")
		if err == nil {
			mac = link.Attrs().HardwareAddr.String()
		}
		return err
	})
	return mac, err
}
