package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/filter"
	"github.com/selvage-net/selvage/subnet"
)

// TestFilterSwitched switches from iptables to nftables and back under a running overlay, in both variants of iptables: the
// rules change over, none stays behind, and no probe is lost. New connections are made all the while, since one that exists
// keeps the source address it began with, whatever becomes of the rules.
func TestFilterSwitched(t *testing.T) {
	for _, iptables := range []string{"nft", "legacy"} {
		t.Run(iptables, func(t *testing.T) {
			families := subnet.Families()
			config := func(say lab.NFTables) string { return lab.NetworkConfig(families[:], "", say) }
			l := start(t, lab.Options{Nodes: 2, Families: families[:], IPTables: iptables, Config: config(lab.NFTablesOff)})
			ctx := testctx.New(t)
			s := newScene(ctx, t, l)
			waitRules(ctx, t, l, false)
			pods := []*lab.Endpoint{s.pod, s.away}
			probeAll(ctx, t, l, pods)
			end := streamAll(ctx, t, l, pods)
			endNew := s.connectAnew(ctx, t)
			for _, step := range []struct {
				say      lab.NFTables
				nftables bool
			}{
				{lab.NFTablesOn, true}, {lab.NFTablesOff, false},
				{lab.NodesChoose, true}, // nothing but our own rules speaks for iptables
			} {
				if err := l.Etcd().PutConfig(ctx, config(step.say)); err != nil {
					t.Fatal(err)
				}
				waitRules(ctx, t, l, step.nftables)
				for _, f := range families {
					s.family = f
					s.exits[0] = tunnel(t, s.node, f)
					s.expectSources(ctx, t)
				}
			}
			endNew()
			end()
		})
	}
}

// connectAnew makes one connection after the other from a pod to the outside, and from the outside to a pod of the other
// node, until the function that it returns is called. Each is to be masqueraded.
func (s *scene) connectAnew(ctx context.Context, t *testing.T) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var made atomic.Int64
	done := make(chan struct{})
	outside, pod, away, node, other := s.lab.Outside(), s.pod, s.away, s.node, tunnel(t, s.node, subnet.IPv4)
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			out, err := pod.SourceSeen(context.WithoutCancel(ctx), lab.Sender{}, outside.Echo(subnet.IPv4))
			if err != nil || out != node.Addr(subnet.IPv4) {
				t.Errorf("to the outside: %s is seen, %v, want %s", out, err, node.Addr(subnet.IPv4))
			}
			in, err := outside.SourceSeen(context.WithoutCancel(ctx), lab.Sender{}, away.Echo(subnet.IPv4))
			if err != nil || in != other {
				t.Errorf("from the outside: %s is seen, %v, want %s", in, err, other)
			}
			made.Add(2)
		}
	}()
	return func() {
		cancel()
		<-done
		t.Logf("%d new connections", made.Load())
	}
}

// waitRules waits until all nodes keep their rules by nftables, or by iptables, and only there.
func waitRules(ctx context.Context, t *testing.T, l *lab.Lab, byNFTables bool) {
	t.Helper()
	for _, n := range l.Nodes() {
		waitFor(ctx, t, "the rules", func() error {
			err := hasTable(n, filter.Table, byNFTables)
			for _, program := range []string{"iptables-save", "ip6tables-save"} {
				rules, saveErr := n.Output(ctx, program)
				if has := strings.Contains(string(rules), "SELVAGE-"); saveErr == nil && has == byNFTables {
					saveErr = fmt.Errorf("%s: %s says:\n%s", n.Name(), program, rules)
				}
				err = errors.Join(err, saveErr)
			}
			return err
		})
	}
}
