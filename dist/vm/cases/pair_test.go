package cases

import (
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// streamEvery is the interval of a stream's datagrams, and outageEvery that of one which is expected to be interrupted for the
// 15 seconds after which WireGuard begins a new handshake: emulated, a datagram and its answer take milliseconds.
const streamEvery, outageEvery = 5 * time.Millisecond, 50 * time.Millisecond

// testPair runs two nodes, dual stack: pods reach each other, nothing is a problem, and a daemon's restart loses no packet.
func testPair(t *testing.T, backend string, devices map[string]string) {
	f := families(subnet.IPv4, subnet.IPv6)
	c := newCluster(t, lab.Options{Nodes: 2, Families: f})
	c.begin(f, backend)
	c.probe()
	for _, n := range c.Nodes() {
		for device, want := range devices {
			if got := c.kind(n, device); got != want {
				t.Errorf("%s: %s is of the kind %s, want %s", n.Name(), device, got, want)
			}
		}
	}
	stop := c.stream(c.pods[0], c.pods[1])
	n := c.Nodes()[0]
	c.must(n.Restart(c.ctx))
	c.must(n.WaitReady(c.ctx))
	c.healthy(1, c.Nodes()...)
	if r := stop(); r.Lost > 0 {
		t.Errorf("a restart of the daemon: %s, want none lost", r)
	}
}

func TestWireGuardPair(t *testing.T) {
	testPair(t, `{"Type":"wireguard"}`, map[string]string{"flannel-wg": "wireguard", "flannel-wg-v6": "wireguard"})
}

func TestVXLANPair(t *testing.T) {
	testPair(t, `{"Type":"vxlan"}`, map[string]string{"flannel.1": "vxlan", "flannel-v6.1": "vxlan"})
}
