package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// TestPodIsAnnounced: a pod with the address of a pod that has just ended is reached at once by the node and by the
// pods that sent to the other one. They would take the other's MAC address for reachable, here for an hour.
func TestPodIsAnnounced(t *testing.T) {
	ctx := testctx.New(t)
	l := start(t, lab.Options{Nodes: 1, Families: []subnet.Family{subnet.IPv4, subnet.IPv6}})
	n := l.Nodes()[0]
	senders := map[string]*lab.Endpoint{"cni0": n.Endpoint, "eth0": podOnEach(ctx, t, l)[0]}
	for link, from := range senders {
		if err := from.Do(func() error { return reachableForAnHour(link) }); err != nil {
			t.Fatal(err)
		}
	}
	former := addPod(ctx, t, l)
	old := macOfEth0(t, former.Endpoint)
	for link, from := range senders {
		for _, f := range subnet.Families() {
			if r := l.ProbeFamily(ctx, f, from, former.Endpoint); r.Err != nil {
				t.Fatal(r.Err)
			}
			if err := from.Do(func() error { return sendsTo(link, former.Addr(f), old) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(l.DelPod(ctx, former), n.Do(nextIsLowest)); err != nil {
		t.Fatal(err)
	}
	pod := addPod(ctx, t, l)
	mac := macOfEth0(t, pod.Endpoint)
	if pod.Stderr != "" || mac.String() == old.String() {
		t.Fatalf("the new pod has the MAC address %s, the former one %s; the plugins say %q", mac, old, pod.Stderr)
	}
	for link, from := range senders {
		for _, f := range subnet.Families() {
			if got, want := pod.Addr(f), former.Addr(f); got != want {
				t.Fatalf("the new pod's address is %s, want %s again", got, want)
			}
			waitFor(ctx, t, from.Name()+" sends to the new pod", func() error {
				return from.Do(func() error { return sendsTo(link, pod.Addr(f), mac) })
			})
			if r := l.ProbeFamily(ctx, f, from, pod.Endpoint); r.Err != nil {
				t.Error(r.Err)
			}
		}
	}
}

func addPod(ctx context.Context, t *testing.T, l *lab.Lab) *lab.Pod {
	t.Helper()
	p, err := l.AddPod(ctx, l.Nodes()[0], "")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// reachableForAnHour has the kernel ask for a MAC address that it knows after an hour, instead of half a minute.
func reachableForAnHour(link string) (err error) {
	for _, family := range []string{"ipv4", "ipv6"} {
		path := fmt.Sprintf("/proc/sys/net/%s/neigh/%s/base_reachable_time_ms", family, link)
		err = errors.Join(err, os.WriteFile(path, []byte("3600000"), 0))
	}
	return err
}

// sendsTo says which MAC address the calling thread's namespace sends an address's packets to if it is not this one.
func sendsTo(link string, addr netip.Addr, mac net.HardwareAddr) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	entries, err := netlink.NeighList(l.Attrs().Index, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, x := range entries {
		if x.IP.Equal(addr.AsSlice()) {
			if x.HardwareAddr.String() == mac.String() {
				return nil
			}
			return fmt.Errorf("%s on %s has the MAC address %s, not %s", addr, link, x.HardwareAddr, mac)
		}
	}
	return fmt.Errorf("no entry for %s on %s", addr, link)
}
