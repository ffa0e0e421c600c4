package crio

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"github.com/selvage-net/selvage/dist/containerd/cri"
	"github.com/selvage-net/selvage/dist/lab"
)

// other is a network that CRI-O has no pods in, as podman has one in the same directory.
const other = `{"cniVersion":"0.4.0","name":"other","disableGC":false,"plugins":[{"type":"bridge","bridge":"other0",` +
	`"ipam":{"type":"host-local","ranges":[[{"subnet":"10.77.0.0/24"}]]}}]}`

// testOthers has somebody else attach a container to a network of CRI-O's directory. CRI-O's next start ends that, unless the
// network says disableGC.
func testOthers(t *testing.T, c *cluster) {
	node := c.At[0].Node
	if out, err := node.Output(c.Ctx, "ip", "netns", "add", "other"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, conflist := range []string{other, strings.Replace(other, "false", "true", 1)} {
		plugins := libcni.NewCNIConfig([]string{cri.BinDir}, nil)
		attachment := &libcni.RuntimeConf{ContainerID: "other", NetNS: "/run/netns/other", IfName: "eth0"}
		list, err := libcni.NetworkConfFromBytes([]byte(conflist))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(cri.ConfDir, "20-other.conflist")
		err = node.Do(func() error {
			_, err := plugins.AddNetworkList(c.Ctx, list, attachment)
			return errors.Join(err, os.WriteFile(file, []byte(conflist), 0o644))
		})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := addresses(node); n != 1 || err != nil {
			t.Fatalf("%d addresses are given, %v, want 1", n, err)
		}
		c.restart(t, "")
		want := 0
		if list.DisableGC {
			want = 1
		}
		if n, err := addresses(node); n != want || err != nil {
			t.Errorf("disableGC is %t: after CRI-O's start %d addresses are given, %v, want %d", list.DisableGC, n, err, want)
		}
		err = node.Do(func() error {
			return errors.Join(plugins.DelNetworkList(c.Ctx, list, attachment), os.Remove(file))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if out, err := node.Output(c.Ctx, "ip", "netns", "delete", "other"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.NothingLeft(t)
}

// addresses counts those that host-local has given away in the other network.
func addresses(node *lab.Node) (n int, err error) {
	err = node.Do(func() error {
		files, err := filepath.Glob("/var/lib/cni/networks/other/10.77.*")
		n = len(files)
		return err
	})
	return n, err
}
