package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/network/vtepfilter"
	"github.com/selvage-net/selvage/subnet"
)

// What a filter drops: what comes to its node, and what a pod of its node sends.
func strangers(d vtepfilter.Dropped) uint64 { return d.Strangers }
func pods(d vtepfilter.Dropped) uint64      { return d.Pods }

// dropsOne does something, waits until a filter has dropped one packet more, and returns how many it has dropped by then.
func dropsOne(ctx context.Context, t *testing.T, f *vtepfilter.Filter, of func(vtepfilter.Dropped) uint64, what string, do func()) uint64 {
	t.Helper()
	before, err := f.Dropped()
	if err != nil {
		t.Fatal(err)
	}
	do()
	waitFor(ctx, t, what, func() error {
		after, err := f.Dropped()
		if err == nil && of(after) != of(before)+1 {
			err = fmt.Errorf("dropped are %+v, before %+v, want one more", after, before)
		}
		return err
	})
	return of(before) + 1
}

// TestForgedVXLAN: what somebody who is no peer sends to the VXLAN port reaches no pod, and is counted. Without the filter
// it does, which shows that there is nothing else wrong with it.
func TestForgedVXLAN(t *testing.T) {
	const outside, router, otherPod, ownPod, peer = "a host of another network", "a host on the underlay", "a pod of another node",
		"a pod of the same node", "the other node"
	families := subnet.Families()
	l := start(t, lab.Options{Nodes: 2, Families: families[:]})
	ends := podOnEach(testctx.New(t), t, l)
	for _, tt := range []struct {
		name string
		args []string
		in   []string // who gets in
	}{
		{"filter", nil, []string{peer}},
		{"allowed", []string{"--vtep-allow=198.51.100.0/24,fd00:198::/64"}, []string{peer, outside}},
		{"no filter", []string{"--vtep-filter=false"}, []string{peer, outside, router, otherPod, ownPod}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := testctx.New(t)
			for _, n := range l.Nodes() {
				n.SetDaemonArgs(append([]string{"--iface=eth0"}, tt.args...)...)
				if err := errors.Join(n.Restart(ctx), n.WaitReady(ctx)); err != nil {
					t.Fatal(err)
				}
			}
			from, to := l.Nodes()[0], l.Nodes()[1]
			mine, theirs, got := filterOf(t, from), filterOf(t, to), listen(t, ends[1])
			var unwanted []string
			for _, s := range []struct {
				intruder
				filter *vtepfilter.Filter // that is to drop it
				drops  func(vtepfilter.Dropped) uint64
			}{
				{intruder{name: outside, do: l.Outside().Do}, theirs, strangers},
				{intruder{name: router, do: here}, theirs, strangers},
				{intruder{name: otherPod, do: ends[0].Do}, mine, pods},
				{intruder{name: ownPod, do: ends[1].Do}, theirs, strangers},
				{intruder{name: peer, do: from.Do}, nil, nil},
			} {
				for _, f := range families {
					payload := fmt.Sprintf("%s over %s", s.name, f)
					send := func() { s.send(t, to, ends[1], ends[0], f, payload) }
					if slices.Contains(tt.in, s.name) {
						send()
						got.await(ctx, t, payload)
					} else {
						dropsOne(ctx, t, s.filter, s.drops, payload, send)
						unwanted = append(unwanted, payload)
					}
				}
			}
			for _, payload := range unwanted { // the peer, who was last, has arrived
				if n := got.count(payload); n > 0 {
					t.Errorf("%s: %d arrived, want none", payload, n)
				}
			}
			probeAll(ctx, t, l, ends)
		})
	}
}

// TestVXLANPeersComeAndGo: who gets a lease is let in, and shut out when it is gone. How long that takes is printed.
func TestVXLANPeersComeAndGo(t *testing.T) {
	const config = `{"Network":"10.5.0.0/16","SubnetMin":"10.5.128.0","Backend":{"Type":"vxlan"}}` // what is below is ours to give
	l := start(t, lab.Options{Nodes: 2, Config: config, DaemonArgs: []string{"--peer-grace=0"}})
	ctx := testctx.New(t)
	ends := podOnEach(ctx, t, l)
	node, etcd := l.Nodes()[1], l.Etcd().Client()
	filter, got := filterOf(t, node), listen(t, ends[1])
	const rounds = 20
	var came, went []time.Duration
	for i := range rounds {
		payload := fmt.Sprintf("round %d", i)
		newcomer := intruder{name: payload, do: here, from: netip.AddrFrom4([4]byte{172, 31, 0, byte(200 + i)})}
		addAddress(t, "underlay0", newcomer.from)
		send := func() { newcomer.send(t, node, ends[1], ends[0], subnet.IPv4, payload) }
		key := fmt.Sprintf("%s10.5.%d.0-24", subnetsPrefix, i)
		value := fmt.Sprintf(`{"PublicIP":%q,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0e:05:00:00:00:%02x"}}`, newcomer.from, i)

		began := time.Now()
		if _, err := etcd.Put(ctx, key, value); err != nil {
			t.Fatal(err)
		}
		came = append(came, letIn(ctx, t, filter, newcomer.from, true).Sub(began))
		send()
		got.await(ctx, t, payload)

		began = time.Now()
		if _, err := etcd.Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
		went = append(went, letIn(ctx, t, filter, newcomer.from, false).Sub(began))
		dropsOne(ctx, t, filter, strangers, payload, send)
	}
	for i := range rounds {
		if payload := fmt.Sprintf("round %d", i); got.count(payload) != 1 {
			t.Errorf("%s: %d arrived, want the one of the peer", payload, got.count(payload))
		}
	}
	sayTimes(t, "let in, after the write to etcd was begun", came)
	sayTimes(t, "shut out", went)
}

// letIn waits until a filter lets an address in, or does so no more, and returns when it was seen.
func letIn(ctx context.Context, t *testing.T, f *vtepfilter.Filter, address netip.Addr, want bool) time.Time {
	t.Helper()
	for {
		peers, _, err := f.Read()
		switch {
		case err != nil:
			t.Fatal(err)
		case slices.Contains(peers, address) == want:
			return time.Now()
		case ctx.Err() != nil:
			t.Fatalf("let in are %v; want %s among them: %t", peers, address, want)
		}
		time.Sleep(time.Millisecond)
	}
}

func sayTimes(t *testing.T, what string, times []time.Duration) {
	slices.Sort(times)
	t.Logf("%s: in %s, the median of %d, and %s at the most", what, times[len(times)/2], len(times), times[len(times)-1])
}

// addAddress adds an address to a device of the lab's router.
func addAddress(t *testing.T, device string, a netip.Addr) {
	t.Helper()
	link, err := netlink.LinkByName(device)
	if err == nil {
		err = netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}})
	}
	if err != nil {
		t.Fatalf("add %s to %s: %v", a, device, err)
	}
}

// TestVXLANFilterStays: the filter is back when somebody deletes it, stays over restarts of the daemon, and goes when it is
// not wanted any more; no probe between pods is lost with any of it.
func TestVXLANFilterStays(t *testing.T) {
	l := start(t, lab.Options{Nodes: 2})
	ctx := testctx.New(t)
	ends := podOnEach(ctx, t, l)
	node := l.Nodes()[1]
	filter, other, got := filterOf(t, node), filterOf(t, node), listen(t, ends[1])
	send := func(payload string) {
		intruder{name: "a host on the underlay", do: here}.send(t, node, ends[1], ends[0], subnet.IPv4, payload)
	}
	shut := func(when string) uint64 {
		t.Helper()
		return dropsOne(ctx, t, filter, strangers, when, func() { send(when) })
	}
	end := stream(ctx, t, l, ends[0], ends[1])

	var took []time.Duration
	for range 10 {
		began := time.Now()
		if err := other.Remove(); err != nil {
			t.Fatal(err)
		}
		waitFor(ctx, t, "the deleted table", func() error { return hasTable(node, vtepfilter.Table, true) })
		took = append(took, time.Since(began))
		shut("the table is back")
	}
	sayTimes(t, "the table is back after it was deleted", took)
	waitSays(ctx, t, node, "repaired external changes to the VTEP filter")

	for _, stop := range []func(context.Context) error{
		func(context.Context) error { node.Kill(); return nil },
		node.Stop,
	} {
		if err := stop(ctx); err != nil {
			t.Fatal(err)
		}
		before := shut("while the daemon is down")
		if err := errors.Join(node.Start(), node.WaitReady(ctx)); err != nil {
			t.Fatal(err)
		}
		if after := shut("after the daemon was down"); after != before+1 {
			t.Errorf("%d are dropped, %d before the start: the rules were set anew", after, before)
		}
	}

	// The environment is that of the next start.
	t.Setenv("SELVAGED_VTEP_FILTER", "false")
	if err := errors.Join(node.Restart(ctx), node.WaitReady(ctx), hasTable(node, vtepfilter.Table, false)); err != nil {
		t.Fatal(err)
	}
	const open = "the filter is not wanted"
	send(open)
	got.await(ctx, t, open)
	if err := errors.Join(os.Setenv("SELVAGED_VTEP_FILTER", "true"), node.Restart(ctx), node.WaitReady(ctx)); err != nil {
		t.Fatal(err)
	}
	shut("the filter is wanted again")
	end()
}

// hasTable checks that a table of nf_tables, for both families, is there, or is not.
func hasTable(n *lab.Node, name string, want bool) error {
	return n.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		_, err = conn.ListTableOfFamily(name, nftables.TableFamilyINet)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if has := err == nil; has != want {
			return fmt.Errorf("%s: the table %s is there: %t, want %t", n.Name(), name, has, want)
		}
		return nil
	})
}
