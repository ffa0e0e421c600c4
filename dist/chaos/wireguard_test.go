package chaos

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// TestWireGuard does the faults of WireGuard devices. While no daemon runs, it does those of which each breaks another
// kind of object.
func TestWireGuard(t *testing.T) {
	runAll(t, newSuite(t, Options{Backend: WireGuard}),
		"WireGuard device deleted", "WireGuard private key changed (wg set)", "WireGuard peer removed",
		"WireGuard allowed IPs moved to another peer", "WireGuard endpoint changed")
}

// wireGuardLeases are of node1 and node2; node2 has the given key.
func wireGuardLeases(one, two wgtypes.Key) []subnet.Lease {
	all := leases()
	for i, key := range []wgtypes.Key{one, two} {
		all[i].BackendType = "wireguard"
		all[i].Endpoints[subnet.IPv4].Data = `{"PublicKey":"` + key.String() + `","Port":51820}`
		all[i].Endpoints[subnet.IPv6].Data = `{"PublicKey":"` + key.String() + `","Port":51821}`
	}
	return all
}

func TestExpectedWireGuard(t *testing.T) {
	private, two := wgtypes.Key{31: 64}, wgtypes.Key{1: 2}
	one := private.PublicKey()
	want, err := expected(wireGuardLeases(one, two), "node1", WireGuard, []subnet.Family{subnet.IPv4}, uplink{mtu: 1500})
	if err != nil {
		t.Fatal(err)
	}
	got := diff(entries{}, want, both()).all()
	for i := range got {
		got[i] = strings.TrimSpace(strings.TrimPrefix(got[i], "too much: "))
	}
	if wanted := []string{
		"address 10.5.1.0/32 dev flannel-wg",
		"allowed IP 10.5.2.0/24 dev flannel-wg, peer " + two.String(),
		`device flannel-wg local invalid IP mac 00:00:00:00:00:00 wireguard id 0 port 0 mtu 1420 alias "selvage" up true ` +
			"learning false lower 0",
		"peer at 172.31.0.12 dev flannel-wg, port 51820 key " + two.String() + " preshared key false keepalive 0s",
		"route 10.5.2.0/24 dev flannel-wg",
		"wireguard dev flannel-wg, public key " + one.String() + " port 51820 mark 0",
	}; !slices.Equal(got, wanted) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wanted, "\n"))
	}
	have := newEntries(1)
	have.addWireGuard(subnet.IPv4, &wgtypes.Device{PrivateKey: private, ListenPort: 51820})
	if _, is := want[subnet.IPv4][slices.Collect(keysOf(have))[0]]; !is {
		t.Errorf("a device with the key of the lease is not what is expected: %v", have)
	}
}

// keysOf yields the entries of both families.
func keysOf(s entries) func(yield func(entry) bool) {
	return func(yield func(entry) bool) {
		for _, of := range s {
			for e := range of {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// TestBackstops: the blackholes hold every subnet that a node may get, and no other address.
func TestBackstops(t *testing.T) {
	for _, f := range both() {
		s := newEntries(1)
		s.addBackstops([]subnet.Family{f}, subnet.StoreEtcd)
		holds := func(a string) bool {
			for e := range keysOf(s) {
				if e.prefix.Contains(netip.MustParseAddr(a)) {
					return true
				}
			}
			return false
		}
		for a, want := range map[string]bool{
			[...]string{"10.5.0.255", "fd00:5:0:0:ffff::"}[f]:    false,
			[...]string{"10.5.1.0", "fd00:5:0:1::"}[f]:           true,
			[...]string{"10.5.100.1", "fd00:5:0:64::"}[f]:        true,
			[...]string{"10.5.199.255", "fd00:5:0:c7:ffff::"}[f]: true,
			[...]string{"10.5.200.0", "fd00:5:0:c8::"}[f]:        false,
		} {
			if holds(a) != want {
				t.Errorf("%s is held: %t, want %t", a, !want, want)
			}
		}
	}
}

// TestJudgeWireGuard: packets may be lost for as long as the fault lasts, and for the bound of its class. If all nodes
// are broken, a handshake may begin once more. Only the families that are broken count.
func TestJudgeWireGuard(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		backend Backend
		class   Class
		all     time.Duration // Fault.BoundAll
		where   Where
		lasted  time.Duration
		gap     time.Duration
		late    bool
	}{
		{WireGuard, Peers, 0, OneNode, 0, 1200 * ms, false},
		{WireGuard, Peers, 0, OneNode, 0, 1201 * ms, true},
		{WireGuard, Peers, 0, OneNode, 2 * time.Second, 3200 * ms, false},
		{WireGuard, Peers, 0, OneNode, 2 * time.Second, 3201 * ms, true},
		{WireGuard, Device, 0, OneNode, 0, 200 * ms, false},
		{WireGuard, Device, 0, OneNode, 0, 201 * ms, true},
		{WireGuard, Peers, 0, AllNodes, 0, 6534 * ms, false},
		{WireGuard, Peers, 0, AllNodes, 0, 6535 * ms, true},
		{WireGuard, Peers, 9 * time.Second, OneNode, 0, 1201 * ms, true},
		{WireGuard, Peers, 9 * time.Second, AllNodes, time.Second, 10 * time.Second, false},
		{WireGuard, Peers, 9 * time.Second, AllNodes, time.Second, 10001 * ms, true},
		{WireGuard, Peers, 0, Stopped, 0, time.Minute, false},
		{VXLAN, Peers, 0, OneNode, 0, time.Minute, false},
	} {
		s := &Suite{options: Options{Backend: tt.backend}, families: both()}
		c := Case{Fault: Fault{Class: tt.class, BoundAll: tt.all}, Where: tt.where, Families: []subnet.Family{subnet.IPv4}}
		o := Outcome{Case: c, Lasted: tt.lasted,
			Traffic: []lab.StreamReport{{Family: subnet.IPv4, Gap: tt.gap}, {Family: subnet.IPv6, Gap: time.Hour}}}
		if s.judgeWireGuard(&o); (o.Late != nil) != tt.late {
			t.Errorf("%+v: %q", tt, o.Late)
		}
	}
}
