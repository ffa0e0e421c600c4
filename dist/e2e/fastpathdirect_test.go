package e2e

import (
	"fmt"
	"testing"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// TestFastPathHostGateway: without a tunnel, packets are fast in both families, and none is lost.
func TestFastPathHostGateway(t *testing.T) {
	ctx := testctx.New(t)
	families := subnet.Families()
	l, ends, ok := fastLabOf(ctx, t, lab.Options{Nodes: 2, Families: families[:], Config: hostGateway()})
	a, b := l.Nodes()[0], l.Nodes()[1]
	if !ok {
		isSlow(ctx, t, a, status.NotPermitted)
		return
	}
	end := stream(ctx, t, l, ends[0], ends[1])
	goesFast(ctx, t, "at first", a, b)
	repaired(ctx, t, a, "program", "a program is detached", func() error { return detach("from_wire", "eth0") })
	goesFast(ctx, t, "a program is detached", a, b)
	repaired(ctx, t, a, "fast-peer", "the peers are removed", forgetPeers)
	goesFast(ctx, t, "the peers are removed", a, b)
	end()
}

// TestFastPathDirectRouting: of two peers, one is reached directly and one by the tunnel; packets to both are fast, and
// stay so when DirectRouting is switched off and on. None is lost meanwhile.
func TestFastPathDirectRouting(t *testing.T) {
	ctx := testctx.New(t)
	families := subnet.Families()
	config := func(direct bool) string {
		backend := fmt.Sprintf(`{"Type":"vxlan","DirectRouting":%t}`, direct)
		return lab.NetworkConfig(families[:], backend, lab.NodesChoose)
	}
	l, ends, ok := fastLabOf(ctx, t, lab.Options{Nodes: 3, Segments: 2, Families: families[:], Config: config(true)})
	if !ok {
		isSlow(ctx, t, l.Nodes()[0], status.NotPermitted)
		return
	}
	near, far := ends[2], ends[1]
	streams := []func(){stream(ctx, t, l, ends[0], near), stream(ctx, t, l, ends[0], far)}
	for _, direct := range []bool{true, false, true} {
		if err := l.Etcd().PutConfig(ctx, config(direct)); err != nil {
			t.Fatal(err)
		}
		waitPaths(ctx, t, l, func(from, to *lab.Node) bool { return direct && l.OneSegment(from, to) })
		goesFast(ctx, t, fmt.Sprintf("DirectRouting: %t", direct), l.Nodes()...)
	}
	for _, end := range streams {
		end()
	}
}
