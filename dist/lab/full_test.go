package lab

import (
	"context"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/subnet"
)

// tooLarge leaves no room for the tunnel's headers: the uplinks take less than they did when the pods were given their MTU,
// and no daemon is there to follow.
func tooLarge(t *testing.T, l *Lab) {
	t.Helper()
	for _, n := range l.nodes {
		n.Kill()
		err := n.do(func() error {
			link, err := netlink.LinkByName(uplink)
			if err != nil {
				return err
			}
			return netlink.LinkSetMTU(link, defaultMTU)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestTooLarge: the kernel fragments what carries packets that are too large over IPv4, so that only the count shows it; over
// IPv6 it drops them.
func TestTooLarge(t *testing.T) {
	families := []subnet.Family{subnet.IPv4, subnet.IPv6}
	ctx, l := newLab(t, Options{Nodes: 2, Families: families, MTU: 1560})
	pods := podOnEach(ctx, t, l)
	tooLarge(t, l)
	a, b := pods[0].Endpoint, pods[1].Endpoint
	count := func() uint64 {
		t.Helper()
		n, err := l.Fragments()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	r := l.ProbeFull(ctx, subnet.IPv4, a, b)
	expectOK(t, r)
	if r.Size != 1490 {
		t.Errorf("a packet of %d bytes, want 1490", r.Size)
	}
	if n := count() - before; n == 0 {
		t.Error("no fragment was counted over IPv4")
	}
	short, cancel := context.WithTimeout(ctx, longEnough(ctx, t, l, a, b))
	defer cancel()
	if r := l.ProbeFull(short, subnet.IPv6, a, b); r.Err == nil {
		t.Error("a packet that is too large arrived over IPv6")
	}
	before = count()
	expectOK(t, l.ProbeFamily(ctx, subnet.IPv6, a, b)) // TCP has learnt the path's MTU
	if n := count() - before; n != 0 {
		t.Errorf("%d fragments of small packets", n)
	}
}

func TestParseCounters(t *testing.T) {
	got := map[string]int64{}
	for _, text := range []string{
		"Ip: Forwarding FragCreates\nIp: 1 7\nTcp: MaxConn\nTcp: -1\n", "Ip6FragCreates                  \t9\nIp6ReasmReqds 0\n",
	} {
		if err := parseCounters(got, text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	if len(got) != 5 || got["IpFragCreates"] != 7 || got["TcpMaxConn"] != -1 || got["Ip6FragCreates"] != 9 {
		t.Errorf("got %v", got)
	}
	for _, text := range []string{"Ip: A B\nIp: 1\n", "Ip6A x\n", "Ip6A 1 2\n", "Ip: A\nIp: x\n"} {
		if err := parseCounters(got, text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}
