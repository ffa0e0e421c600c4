package command

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/network/node/status"
)

var update = flag.Bool("update", false, "write testdata anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got (-update writes it):\n%s\nwant:\n%s", got, want)
	}
}

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ready() status.Status {
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.5"), netip.MustParseAddr("2001:db8::5")}
	return status.Status{
		Version: "v1.2.3", Kernel: "6.12.1", Node: "node1", State: status.Ready, Since: now.Add(-3*time.Hour - 12*time.Minute), Started: now.Add(-26 * time.Hour),
		Lease: &status.Lease{
			Key: "10.5.29.0-24&fd00:5:0:1d::-64", EtcdLease: 7587, Expires: now.Add(24*time.Hour - time.Minute),
			Subnets: []netip.Prefix{netip.MustParsePrefix("10.5.29.0/24"), netip.MustParsePrefix("fd00:5:0:1d::/64")},
		},
		Uplink: &status.Uplink{
			Name: "eth0", MTU: 1500, Local: addrs, PublicIP: []netip.Addr{netip.MustParseAddr("203.0.113.5"), addrs[1]}, Why: "it has the IPv4 default route",
			Not: []status.Text{"eth1 has lower precedence by the default route", "eth2 is down"},
		},
		Backend: &status.Backend{Type: "vxlan", PodMTU: 1430, Devices: []status.Device{
			{Name: "flannel.1", Settings: []status.Setting{{Name: "VNI", Value: "1"}}, Port: 8472, MTU: 1450, MAC: "72:30:36:d0:8b:68", Local: addrs[0], Present: true,
				Drops: &status.Drops{}},
			{Name: "flannel-v6.1", Settings: []status.Setting{{Name: "VNI", Value: "1"}}, Port: 8472, MTU: 1430, MAC: "72:30:36:d0:8b:69", Local: addrs[1], Present: true},
		}},
		Filter:  status.Filter{Mode: "nftables", Why: "supported, and nothing requires iptables", InForce: true, VTEPFilter: true},
		Peers:   status.PeerCounts{Programmed: 4999},
		Entries: map[string]status.Count{"fdb": {Wanted: 4999, Present: 4999}, "route": {Wanted: 4999, Present: 4999}, "link": {Wanted: 2, Present: 2}},
		Store: status.Store{Kind: status.KindEtcd, StoreConnection: status.StoreConnection{
			Endpoint: "192.0.2.9:2379", Revision: 81234, Latency: 1234 * time.Microsecond, LastContact: now.Add(-4 * time.Second),
		}},
	}
}

func TestShowStatus(t *testing.T) {
	degraded := ready()
	degraded.State, degraded.Since = status.Degraded, now.Add(-95*time.Second)
	degraded.Problems = []status.Problem{
		{Topic: "etcd", Text: "nothing listens at http://192.0.2.9:2379: check the endpoints, and that etcd runs", Since: now.Add(-95 * time.Second)},
		{Topic: "route", Text: "route 10.5.3.0/24: an address of device cni9 holds this subnet", Since: now.Add(-2 * time.Second)},
	}
	degraded.Peers = status.PeerCounts{Programmed: 4990, Pending: 1, Grace: 3, Quarantined: 5}
	degraded.Quarantined = []status.Refusal{{Key: "10.5.250.0-24", Why: "overlaps the older lease 10.5.250.0-25"}, {Key: "nonsense", Why: "it is no subnet"}}
	degraded.Entries["route"] = status.Count{Wanted: 4999, Present: 4998, Pending: 1}
	degraded.Backend.Devices[1].Present = false
	degraded.Backend.Devices[0].Drops = &status.Drops{Received: 1, Sent: 2, ReceiveErrors: 3, SendErrors: 4}
	degraded.Filter.Foreign = []status.Text{"table ip filter, chain FORWARD: policy drop"}
	degraded.Repairs.Add("route", "missing", 3)
	degraded.Repairs.Add("fdb", "changed", 1)
	degraded.Repairs.Add("route", "missing", 1)
	degraded.Repairs.Last = []status.Repair{{At: now.Add(-12 * time.Second), Kind: "route", Key: "10.5.3.0/24", What: "missing", By: "pid 4711 (ip)"}}
	degraded.Probes = []status.Probes{
		{Family: "IPv4", Reachable: 3, Unreachable: 1, MaxRTT: 310 * time.Microsecond}, {Family: "IPv6", Unreachable: 4},
	}
	reservation := ready()
	reservation.Probes = []status.Probes{{Family: "IPv4", Off: status.ProbesOff}}
	reservation.Lease.Reservation, reservation.Lease.EtcdLease = true, 0
	kubernetes := ready()
	kubernetes.Lease = &status.Lease{Key: "node1", Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.3.0/24")}, Reservation: true}
	kubernetes.Store.Kind, kubernetes.Store.Endpoint = status.KindKubernetes, "10.96.0.1:443"
	kubernetes.Enforcement = &status.Enforcement{Synced: true, Enforcing: true, NeedsPeers: true, Pods: 12, Sets: 3, Elements: 40, Chains: 5}
	reservation.PoliciesOff = status.PolicyOtherEngine
	kubernetes.FastPath = &status.FastPath{InUse: true, Pinned: true, Ports: 3, Peers: 4, Packets: map[string]uint64{"sent": 5, "received": 6},
		Slow: []status.SlowPort{{Port: "veth4711", Why: "fast packets would pass by a queueing discipline or filter of tc"}}}
	degraded.FastPath = &status.FastPath{Why: "missing: capability CAP_PERFMON"}
	degraded.Enforcement = &status.Enforcement{Pods: 12, Waiting: 1, Closed: []netip.Addr{netip.MustParseAddr("10.5.29.7")}, Repairs: 2,
		Sources: []status.PolicySource{{Name: "namespaces", Complete: true}, {Name: "pods", Since: now.Add(-time.Minute)}}}
	var out strings.Builder
	for _, s := range []status.Status{
		ready(), degraded, reservation, kubernetes,
		{Store: status.Store{Kind: status.KindEtcd}, Version: "v1.2.3", Node: "node1", State: status.Starting, Since: now.Add(-5 * 24 * time.Hour), Problems: []status.Problem{
			{Topic: "config", Text: "there is no network config in the store yet", Since: now.Add(-5 * 24 * time.Hour)},
		}},
	} {
		showStatus(&out, style{}, s, "v1.2.3", now)
		out.WriteString("\n")
	}
	showStatus(&out, style{colour: true, width: 80}, degraded, "v1.2.4", now)
	golden(t, "status.txt", out.String())
	for state, want := range map[status.State]error{status.Ready: nil, status.Degraded: Exit{2}, status.Starting: Exit{3}} {
		if got := exitOf(state); !errors.Is(got, want) {
			t.Errorf("%s: %v, want %v", state, got, want)
		}
	}
}

func TestShowPeers(t *testing.T) {
	p := netip.MustParsePrefix
	var out strings.Builder
	peers := []status.Peer{
		{Key: "10.5.3.0-24", Node: "node3", Subnets: []netip.Prefix{p("10.5.3.0/24"), p("fd00:5:0:3::/64")}, State: status.Programmed,
			PublicIP: []netip.Addr{netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("2001:db8::3")}, Paths: []status.PeerPath{{Device: "flannel.1"}, {Device: "flannel-v6.1"}},
			Reach: []status.Reach{{State: status.Reachable, RTT: 310 * time.Microsecond}, {State: status.Unreachable, Since: now.Add(-12 * time.Second)}}},
		{Key: "10.5.6.0-24", Node: "node6", Subnets: []netip.Prefix{p("10.5.6.0/24"), p("fd00:5:0:6::/64")}, State: status.Programmed,
			PublicIP: []netip.Addr{netip.MustParseAddr("192.0.2.6"), netip.MustParseAddr("2001:db8::6")}, Paths: []status.PeerPath{{Device: "flannel.1"}, {Device: "flannel-v6.1"}},
			Reach: []status.Reach{{State: status.Reachable, RTT: 310 * time.Microsecond}, {State: status.Reachable, RTT: 12345 * time.Microsecond}}},
		{Key: "10.5.7.0-24", Node: "node7", Subnets: []netip.Prefix{p("10.5.7.0/24"), p("fd00:5:0:7::/64")}, State: status.Programmed,
			PublicIP: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")}, Paths: []status.PeerPath{{Device: "flannel.1"}, {Device: "flannel-v6.1"}},
			Reach: []status.Reach{{State: status.NotProbed, Code: status.NotPermitted}, {State: status.NotProbed, Code: status.NotPermitted}}},
		{Key: "10.5.4.0-24", Subnets: []netip.Prefix{p("10.5.4.0/24")}, State: status.Pending, Why: "not all of its entries are in place yet",
			PublicIP: []netip.Addr{netip.MustParseAddr("192.0.2.4")}, Paths: []status.PeerPath{{Device: "eth0", Direct: true}}},
		{Key: "10.5.5.0-24", Node: "node5", Subnets: []netip.Prefix{p("10.5.5.0/24")}, State: status.Grace, Why: "its lease is gone", Until: now.Add(29 * time.Second),
			PublicIP: []netip.Addr{netip.MustParseAddr("192.0.2.5")}, Paths: []status.PeerPath{{Device: "flannel.1"}}},
		{Key: "nonsense", Subnets: []netip.Prefix{}, PublicIP: []netip.Addr{{}}, State: status.Quarantined, Why: `"nonsense" is not a subnet`},
	}
	showPeers(&out, style{}, peers, now)
	showPeers(&out, style{}, nil, now)
	showPeers(&out, style{colour: true, width: 80}, peers, now)
	golden(t, "peers.txt", out.String())
}

func TestShowExplanation(t *testing.T) {
	var out strings.Builder
	e := status.Explanation{Verdict: "10.5.3.7 belongs to node3, reached over VXLAN, flannel.1", OK: true, Steps: []status.Step{
		{Kind: "lease", Text: "10.5.3.0-24", Mark: status.Right, Note: "node3"},
		{Kind: "route", Text: "ip route replace 10.5.3.0/24 via 10.5.3.0 dev flannel.1 onlink proto 83", Mark: status.Right},
		{Kind: "mtu", Text: "1450", Mark: status.Note, Note: "of flannel.1"},
	}}
	showExplanation(&out, style{}, e)
	e.OK, e.Verdict = false, "10.5.3.7 belongs to node3, but a foreign route sends packets for it out of eth1"
	e.Steps[1].Mark = status.Foreign
	showExplanation(&out, style{colour: true}, e)
	golden(t, "explain.txt", out.String())
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 999 * time.Millisecond: "0 s", 61 * time.Second: "1 min 1 s", 25 * time.Hour: "1 d 1 h", time.Hour: "1 h 0 min",
	} {
		if got := span(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}

func TestFold(t *testing.T) {
	for _, tt := range []struct {
		width, indent int
		line, want    string
	}{
		{0, 4, "as wide as it comes", "as wide as it comes"},
		{30, 4, "it fits", "it fits"},
		{24, 4, "abc one two three four five six", "abc one two three four\n    five six"},
		{24, 4, "abc a/word/that/is/too/long/anyway five", "abc a/word/that/is/too/long/anyway\n    five"},
		{24, 4, "nothing/at/which/it/could/be/broken", "nothing/at/which/it/could/be/broken"},
		{24, 10, "narrower than it makes sense to break lines", "narrower than it makes sense to break lines"},
		{24, 4, "abc \x1b[31mred\x1b[0m takes no room that is its own", "abc \x1b[31mred\x1b[0m takes no room\n    that is its own"},
	} {
		if got := (style{width: tt.width}).fold(tt.line, tt.indent); got != tt.want {
			t.Errorf("%q in %d columns: %q, want %q", tt.line, tt.width, got, tt.want)
		}
	}
}
