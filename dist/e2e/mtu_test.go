package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// TestMixedMTU has uplinks whose MTU is larger than what the switch between them passes, as when jumbo frames were switched on
// for some hosts and not for the switch. Each node goes by its own uplink, since nothing tells it of the rest, so large packets
// between two such nodes are lost without a word. Backend.MTU, set to what the switch passes, is the cure; pods that are there
// already learn of it, and new ones have it.
func TestMixedMTU(t *testing.T) {
	families := subnet.Families()
	config := func(mtu int) string {
		return lab.NetworkConfig(families[:], fmt.Sprintf(`{"Type":"vxlan","MTU":%d}`, mtu), lab.NodesChoose)
	}
	const passes, jumbo, overhead = 1500, 9000, 70
	l := start(t, lab.Options{Nodes: 3, Families: families[:]})
	ctx := testctx.New(t)
	plain, large := l.Nodes()[0], l.Nodes()[1:]
	for _, r := range l.ProbeUnderlay(ctx) {
		if r.Err != nil || r.Size != passes {
			t.Errorf("the underlay: %s -> %s over %s: %d bytes, %v", r.From, r.To, r.Family, r.Size, r.Err)
		}
	}
	for _, n := range large {
		if err := onUplink(n, func(eth0 netlink.Link) error { return netlink.LinkSetMTU(eth0, jumbo) }); err != nil {
			t.Fatal(err)
		}
		waitFor(ctx, t, "the larger MTU", func() error {
			return errors.Join(fileSays(n, jumbo-overhead, "10.5.0.0/16"), says(n, "uplink changed; applying it"))
		})
	}
	old := podOnEach(ctx, t, l)
	expectStuck(ctx, t, l, large[0].Endpoint, large[1].Endpoint, jumbo)
	expectStuck(ctx, t, l, old[1], old[2], jumbo-overhead)
	expectFull(ctx, t, l, old[0], old[1], passes-overhead) // what the smaller one takes passes

	set := func(mtu int) {
		t.Helper()
		if err := l.Etcd().PutConfig(ctx, config(mtu)); err != nil {
			t.Fatal(err)
		}
		for _, n := range l.Nodes() {
			mtu := mtu
			if n == plain {
				mtu = passes // more than the uplink takes is not believed
			}
			waitFor(ctx, t, "Backend.MTU", func() error {
				return errors.Join(fileSays(n, mtu-overhead, "10.5.0.0/16"), hasMTU(n, mtu-50))
			})
		}
	}
	// One byte too much is too much.
	set(passes + 1)
	over := podOnEach(ctx, t, l)
	short, cancelShort := context.WithTimeout(ctx, longEnough(ctx, t, l, over[0], over[1]))
	defer cancelShort()
	if r := l.ProbeFull(short, subnet.IPv6, over[1], over[2]); r.Err == nil {
		t.Errorf("a packet of %d bytes in a tunnel passed a switch that passes %d", r.Size, passes)
	}

	set(passes)
	before, err := l.Fragments()
	if err != nil {
		t.Fatal(err)
	}
	young := podOnEach(ctx, t, l)
	for _, from := range young {
		for _, to := range young {
			if from != to {
				expectFull(ctx, t, l, from, to, passes-overhead)
			}
		}
	}
	// Those of before are told by their node, as by any router.
	probeAll(ctx, t, l, old)
	expectFull(ctx, t, l, young[1], old[2], passes-overhead)
	after, err := l.Fragments()
	if err != nil || after != before {
		t.Errorf("%d fragments, %v, want none", after-before, err)
	}
	if err := says(plain, "uplink changed"); err == nil {
		t.Errorf("%s followed a change that was not its own", plain.Name())
	}
}

// expectFull expects packets of a size, which is the largest that both ends take, to pass.
func expectFull(ctx context.Context, t *testing.T, l *lab.Lab, from, to *lab.Endpoint, size int) {
	t.Helper()
	for _, f := range l.Families() {
		if r := l.ProbeFull(ctx, f, from, to); r.Err != nil || r.Size != size {
			t.Errorf("%s -> %s over %s: %d bytes, %v, want %d to pass", r.From, r.To, f, r.Size, r.Err, size)
		}
	}
}

// expectStuck expects them not to.
func expectStuck(ctx context.Context, t *testing.T, l *lab.Lab, from, to *lab.Endpoint, size int) {
	t.Helper()
	wait := longEnough(ctx, t, l, from, from) // on the path itself TCP would send large packets
	for _, f := range l.Families() {
		short, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		if r := l.ProbeFull(short, f, from, to); r.Err == nil || r.Size != size {
			t.Errorf("%s -> %s over %s: %d bytes, %v, want %d and no answer", r.From, r.To, f, r.Size, r.Err, size)
		}
	}
}
