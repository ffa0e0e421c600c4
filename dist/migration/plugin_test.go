package migration

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// pluginNode is a host on which both CNI plugins attach pods, to the same network.
type pluginNode struct {
	*testing.T
	host *sandbox.Host
	bin  string
}

// pluginOf is where the CNI plugin of a product is.
var pluginOf = map[string]string{"selvage": "selvage", "flannel": "flannel/flannel"}

// TestPluginsDetachEachOthersPods: a node changes its CNI plugin while pods run, in either direction. The other plugin
// releases their addresses and leaves nothing behind.
func TestPluginsDetachEachOthersPods(t *testing.T) {
	dir, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	host, err := sandbox.NewHost("node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	n := &pluginNode{t, host, dir}
	file := subnetfile.File{MTU: 1450, IPMasq: true}
	for f, cidr := range map[subnet.Family]string{subnet.IPv4: "10.5.0.0/16", subnet.IPv6: "fd00:5::/56"} {
		file.Networks[f] = []netip.Prefix{netip.MustParsePrefix(cidr)}
	}
	file.Subnets[subnet.IPv4] = netip.MustParsePrefix("10.5.29.1/24")
	file.Subnets[subnet.IPv6] = netip.MustParsePrefix("fd00:5:0:1d::1/64")
	n.do(func() error { return subnetfile.Write("/run/flannel/subnet.env", file) })
	for adder, deleter := range map[string]string{"selvage": "flannel", "flannel": "selvage"} {
		pod, err := host.NewNet()
		if err != nil {
			t.Fatal(err)
		}
		n.run(adder, "ADD", adder+"s-pod", pod.Path())
		if got := n.left(); len(got) != 3 { // an address of each family, and what is stored for DEL
			t.Errorf("attached by %s, there is %q", adder, got)
		}
		for range 2 { // a runtime may repeat it
			n.run(deleter, "DEL", adder+"s-pod", pod.Path())
			if got := n.left(); len(got) > 0 {
				t.Errorf("attached by %s, detached by %s, and left is %q", adder, deleter, got)
			}
		}
		err = pod.Do(func() error {
			if _, err := net.InterfaceByName("eth0"); err == nil {
				return fmt.Errorf("attached by %s, detached by %s, and its interface is still there", adder, deleter)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if err := pod.Close(); err != nil {
			t.Error(err)
		}
	}
}

// do runs fn on the node; it must not fail.
func (n *pluginNode) do(fn func() error) {
	n.Helper()
	if err := n.host.Do(fn); err != nil {
		n.Fatal(err)
	}
}

// run has a product's plugin execute a verb.
func (n *pluginNode) run(product, verb, containerID, netns string) {
	n.Helper()
	n.do(func() error {
		cmd := exec.Command(filepath.Join(n.bin, pluginOf[product]))
		cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+containerID, "CNI_IFNAME=eth0",
			"CNI_NETNS="+netns, "CNI_PATH="+filepath.Join(n.bin, "cni"))
		cmd.Stdin = strings.NewReader(
			`{"cniVersion":"0.3.1","name":"cbr0","type":"` + product + `","delegate":{"isDefaultGateway":true}}`)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s's plugin: %s: %w: %s", product, verb, err, out)
		}
		return nil
	})
}

// left lists the addresses that are given away, and what is stored for DEL.
func (n *pluginNode) left() (left []string) {
	n.Helper()
	n.do(func() error {
		addrs, err := filepath.Glob("/var/lib/cni/networks/cbr0/*")
		if err != nil {
			return err
		}
		stored, err := filepath.Glob("/var/lib/cni/flannel/*")
		left = slices.DeleteFunc(append(addrs, stored...), func(path string) bool {
			_, err := netip.ParseAddr(filepath.Base(path)) // beside them are a lock and the last address given
			return err != nil && strings.HasPrefix(path, "/var/lib/cni/networks/")
		})
		return err
	})
	return left
}
