package uplink

import (
	"net/netip"
	"os/exec"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/kernel"
	"github.com/selvage-net/selvage/subnet"
)

// TestReadNexthopObject: a default route by a nexthop object leads out of its interface, also where the kernel lists only
// the object's id.
func TestReadNexthopObject(t *testing.T) {
	n, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	var k *kernel.Kernel
	err = n.Do(func() (err error) {
		for _, command := range [][]string{
			{"ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far0"},
			{"ip", "link", "set", "far0", "up"},
			{"ip", "link", "set", "eth0", "up"},
			{"ip", "addr", "add", "172.31.0.1/24", "dev", "eth0"},
			{"ip", "nexthop", "add", "id", "7", "via", "172.31.0.254", "dev", "eth0"},
			{"ip", "route", "add", "default", "nhid", "7"},
			{"sysctl", "-qw", "net.ipv4.nexthop_compat_mode=0"},
		} {
			if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%q: %v: %s", command, err, out)
			}
		}
		k, err = kernel.Open(network.NewTables())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	s, err := Read(k, Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := Choose(Options{Families: []subnet.Family{subnet.IPv4}}, s)
	if err != nil || c.Name != "eth0" || c.Local[subnet.IPv4] != ip("172.31.0.1") ||
		len(c.Gateways) != 1 || c.Gateways[0] != netip.MustParseAddr("172.31.0.254") {
		t.Errorf("%+v, %v; default routes %+v", c, err, s.Defaults)
	}
}
