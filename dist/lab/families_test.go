package lab

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/selvage-net/selvage/subnet"
)

func TestNetworkConfig(t *testing.T) {
	if got := NetworkConfig(nil, "", NodesChoose); got != DefaultConfig {
		t.Errorf("got %s, want %s", got, DefaultConfig)
	}
	for _, name := range []string{"ipv4", "ipv6", "dual"} {
		families, err := ParseFamilies(name)
		if err != nil || FamiliesName(families) != name {
			t.Fatalf("%s: got %v, %v", name, families, err)
		}
		for _, nftables := range []NFTables{NodesChoose, NFTablesOn, NFTablesOff} {
			text := NetworkConfig(families, `{"Type":"host-gw"}`, nftables)
			c, err := subnet.ParseConfig([]byte(text))
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			for _, f := range subnet.Families() {
				if c.Ranges[f].Enabled() != slices.Contains(families, f) {
					t.Errorf("%s: %s is on: %t", text, f, c.Ranges[f].Enabled())
				}
			}
			said := NodesChoose
			if c.NFTables != nil {
				said = NFTables(strconv.FormatBool(*c.NFTables))
			}
			if c.Backend.Type != "host-gw" || said != nftables {
				t.Errorf("%s: got %+v", text, c)
			}
		}
	}
	if f, err := ParseFamilies("ipv5"); err == nil {
		t.Errorf("ipv5 is %v", f)
	}
}

// podOnEach adds a pod to each node.
func podOnEach(ctx context.Context, t *testing.T, l *Lab) (pods []*Pod) {
	t.Helper()
	for _, n := range l.Nodes() {
		pods = append(pods, addPod(ctx, t, l, n))
	}
	return pods
}

func TestDual(t *testing.T) {
	both := []subnet.Family{subnet.IPv4, subnet.IPv6}
	ctx, l := newLab(t, Options{Nodes: 2, Families: both})
	pods := podOnEach(ctx, t, l)
	a, b := pods[0].Endpoint, pods[1].Endpoint
	leases, err := l.Etcd().Leases(ctx)
	if err != nil || len(leases) != 2 {
		t.Fatalf("leases %v, %v, want two", leases, err)
	}
	for i, n := range l.Nodes() {
		for _, f := range both {
			own := leases[i].Endpoints[f]
			if own.PublicIP != n.Addr(f) || !own.Subnet.IsValid() || !own.Subnet.Contains(pods[i].Addr(f)) {
				t.Errorf("%s, %s: lease %+v, node %s, pod %s", n.Name(), f, own, n.Addr(f), pods[i].Addr(f))
			}
		}
	}
	for _, ends := range [][2]*Endpoint{{a, b}, {b, a}, {l.Nodes()[0].Endpoint, b}, {a, l.Nodes()[1].Endpoint}, {a, l.Outside()}} {
		results := l.ProbeShared(ctx, ends[0], ends[1])
		if len(results) != 2 || results[0].Family != subnet.IPv4 || results[1].Family != subnet.IPv6 {
			t.Errorf("results %v, want one a family", results)
		}
		expectOK(t, results...)
		expectOK(t, l.ProbeFullShared(ctx, ends[0], ends[1])...)
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	streams, err := l.StreamShared(short, a, b, time.Millisecond)
	if err != nil || len(streams) != 2 || streams[1].Family != subnet.IPv6 || streams[0].Sent == 0 || streams[1].Sent == 0 ||
		streams[0].Lost+streams[1].Lost > 0 {
		t.Errorf("streams %v, %v, want two without loss", streams, err)
	}

	entries, err := l.Explain(ctx, l.Nodes()[0])
	count := map[string]int{}
	for _, e := range entries {
		count[e.Kind]++
	}
	if err != nil || count["device"] != 2 || count["address"] != 2 || count["route"] != 4 || count["neigh"] != 2 || count["fdb"] != 2 || count["rules"] != 2 {
		t.Errorf("entries %+v, %v", entries, err)
	}
	for _, p := range pods {
		if err := l.CheckPod(ctx, p); err != nil {
			t.Error(err)
		}
	}
	t.Run("route-del", func(t *testing.T) {
		wait := longEnough(ctx, t, l, a, b)
		l.Nodes()[0].Kill()
		if err := l.Nodes()[0].DeleteRoutes(l.Nodes()[1]); err != nil {
			t.Fatal(err)
		}
		for _, f := range both {
			short, cancel := context.WithTimeout(ctx, wait)
			defer cancel()
			if r := l.ProbeFamily(short, f, a, b); r.Err == nil {
				t.Errorf("%s: the pod is still reached", f)
			}
		}
		if err := l.Nodes()[0].Start(); err != nil {
			t.Fatal(err)
		}
		if err := l.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		expectOK(t, l.ProbeShared(ctx, a, b)...)
	})
	if err := l.DelPod(ctx, pods[0]); err != nil {
		t.Error(err)
	}
}

// TestIPv6Only has nothing of IPv4 anywhere, so that whatever needs it does not work.
func TestIPv6Only(t *testing.T) {
	ctx, l := newLab(t, Options{Nodes: 2, Segments: 2, Families: []subnet.Family{subnet.IPv6}})
	pods := podOnEach(ctx, t, l)
	if got := l.Etcd().Endpoints(); !slices.Equal(got, []string{"http://[fd00:31::1]:2379"}) {
		t.Errorf("etcd is at %q", got)
	}
	for _, e := range []*Endpoint{l.Nodes()[0].Endpoint, l.Nodes()[1].Endpoint, pods[0].Endpoint, pods[1].Endpoint, l.Outside()} {
		addrs, err := in(e.do, func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) })
		addrs = slices.DeleteFunc(addrs, func(a netlink.Addr) bool { return a.IP.IsLoopback() })
		if err != nil || len(addrs) > 0 || e.Addr(subnet.IPv4).IsValid() {
			t.Errorf("%s has %v, %v", e.Name(), addrs, err)
		}
	}
	a, b := pods[0].Endpoint, pods[1].Endpoint
	expectOK(t, l.Probe(ctx, a, b), l.Probe(ctx, b, a), l.Probe(ctx, l.Nodes()[0].Endpoint, b), l.Probe(ctx, a, l.Outside()))
	expectOK(t, slices.Concat(l.MatrixFull(ctx, subnet.IPv6, []*Endpoint{a, b})...)...)
	if r := l.ProbeFamily(ctx, subnet.IPv4, a, b); r.Err == nil || !strings.Contains(r.Err.Error(), "no IPv4 addresses") {
		t.Errorf("over IPv4: %v", r.Err)
	}
	if r := l.ProbeShared(ctx, a, b); len(r) != 1 || r[0].Family != subnet.IPv6 {
		t.Errorf("results %v, want one", r)
	}
	l.Etcd().Kill()
	if err := l.Etcd().Start(ctx); err != nil {
		t.Fatal(err)
	}
	if leases, err := l.Etcd().Leases(ctx); err != nil || len(leases) != 2 || leases[0].Has(subnet.IPv4) {
		t.Errorf("leases %v, %v, want two of IPv6", leases, err)
	}
}
