package uplink

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/kernel"
	"github.com/selvage-net/selvage/subnet"
)

// readAfter runs commands in a new network namespace and reads a snapshot of it.
func readAfter(t *testing.T, commands [][]string) Snapshot {
	t.Helper()
	n, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	var k *kernel.Kernel
	err = n.Do(func() (err error) {
		for _, command := range commands {
			if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%q: %w: %s", command, err, out)
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
	return s
}

// nexthopDefault has a default route of which the kernel lists only the id of its nexthop object.
var nexthopDefault = [][]string{
	{"ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far0"},
	{"ip", "link", "set", "far0", "up"},
	{"ip", "link", "set", "eth0", "up"},
	{"ip", "addr", "add", "172.31.0.1/24", "dev", "eth0"},
	{"ip", "nexthop", "add", "id", "7", "via", "172.31.0.254", "dev", "eth0"},
	{"ip", "route", "add", "default", "nhid", "7"},
	{"sysctl", "-qw", "net.ipv4.nexthop_compat_mode=0"},
}

// TestReadNexthopObject: a default route by a nexthop object leads out of its interface, also where the kernel lists only
// the object's id.
func TestReadNexthopObject(t *testing.T) {
	s := readAfter(t, nexthopDefault)
	c, err := Choose(Options{Families: []subnet.Family{subnet.IPv4}}, s)
	if err != nil || c.Name != "eth0" || c.Local[subnet.IPv4] != ip("172.31.0.1") ||
		len(c.Gateways) != 1 || c.Gateways[0] != netip.MustParseAddr("172.31.0.254") {
		t.Errorf("%+v, %v; default routes %+v", c, err, s.Defaults)
	}
}

// TestReadUnresolvedNexthopObject: a default route whose interface cannot be found out does not hide the other ones.
func TestReadUnresolvedNexthopObject(t *testing.T) {
	commands := append(slices.Clone(nexthopDefault), []string{"ip", "route", "add", "default", "via", "172.31.0.253", "metric", "100"})
	for _, dst := range []string{"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"} { // of which resolveDefault looks one up
		commands = append(commands, []string{"ip", "route", "add", dst, "dev", "eth0"})
	}
	s := readAfter(t, commands)
	if len(s.Defaults) != 1 || s.Defaults[0].Gateway != netip.MustParseAddr("172.31.0.253") {
		t.Errorf("default routes %+v, want the one via 172.31.0.253", s.Defaults)
	}
}
