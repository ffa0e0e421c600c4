package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// TestConfigChanged changes the network config under running nodes: what can be followed is, what cannot is refused and
// said, and no probe between pods is lost in either case.
func TestConfigChanged(t *testing.T) {
	l := start(t, lab.Options{Nodes: 2})
	ctx := testctx.New(t)
	pods := podOnEach(ctx, t, l)
	endStream := stream(ctx, t, l, pods[0], pods[1])
	for _, step := range []struct {
		what, config  string
		mtu           int
		network, said string
	}{
		{"the MTU", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}`, 1350, "10.5.0.0/16", "applying it"},
		{"the VNI", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":7}}`, 1350, "10.5.0.0/16", "VNI 7"},
		{"a Network that is not ours", `{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}`, 1350, "10.5.0.0/16", "does not fit"},
		{"the backend", `{"Network":"10.5.0.0/16","Backend":{"Type":"udp"}}`, 1350, "10.5.0.0/16", `Backend.Type is \"udp\"`},
		{"no config but rubbish", `{"Network":`, 1350, "10.5.0.0/16", "the current one stays in force"},
		{"a wider Network, and the MTU back", `{"Network":"10.4.0.0/15","Backend":{"Type":"vxlan"}}`, 1450, "10.4.0.0/15", "10.4.0.0/15"},
	} {
		marks := make([]int, len(l.Nodes()))
		for i, n := range l.Nodes() {
			log, err := os.ReadFile(n.LogPath())
			if err != nil {
				t.Fatal(err)
			}
			marks[i] = len(log)
		}
		if err := l.Etcd().PutConfig(ctx, step.config); err != nil {
			t.Fatal(err)
		}
		for i, n := range l.Nodes() {
			waitFor(ctx, t, step.what, func() error {
				log, err := os.ReadFile(n.LogPath())
				if err != nil {
					return err
				}
				if !strings.Contains(string(log[marks[i]:]), step.said) {
					return fmt.Errorf("%s says %q, want something of %q", n.Name(), log[marks[i]:], step.said)
				}
				return errors.Join(hasMTU(n, step.mtu), fileSays(n, step.mtu, step.network))
			})
		}
	}
	endStream()
}

// hasMTU checks the overlay device's MTU.
func hasMTU(n *lab.Node, want int) error {
	return n.Do(func() error {
		link, err := netlink.LinkByName("flannel.1")
		if err == nil && link.Attrs().MTU != want {
			err = fmt.Errorf("%s: flannel.1 has the MTU %d, want %d", n.Name(), link.Attrs().MTU, want)
		}
		return err
	})
}

// fileSays checks MTU and network in the subnet file.
func fileSays(n *lab.Node, mtu int, network string) error {
	f, err := n.Subnet()
	if err == nil && (f.MTU != mtu || len(f.Networks[subnet.IPv4]) != 1 || f.Networks[subnet.IPv4][0].String() != network) {
		err = fmt.Errorf("%s: the subnet file says %+v, want the MTU %d and the network %s", n.Name(), f, mtu, network)
	}
	return err
}

// waitFor waits until check finds nothing wrong. The longer it waits the less often it looks, since what checks takes CPU time itself, from
// the daemons too.
func waitFor(ctx context.Context, t *testing.T, what string, check func() error) {
	t.Helper()
	const most = 100 * time.Millisecond
	var last error
	for pause := 5 * time.Millisecond; ; pause = min(pause*3/2, most) {
		err := check()
		if err == nil {
			return
		}
		if last == nil || ctx.Err() == nil { // what the end of ctx interrupts says no more than that
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, last)
		case <-time.After(pause):
		}
	}
}
