package containerd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/selvage-net/selvage/dist/containerd/cri"
)

// testLost takes from containerd all that it knows, under pods of which one goes on: nobody is left who could call DEL for
// the other. The specification has GC for that: whoever knows which attachments are valid says so, and the rest is freed.
// containerd does not call it, in no version so far, so the test does.
func testLost(t *testing.T, c *cluster) {
	r := c.At[0]
	dead, server := c.Serving(t, r, "dead")
	living, _ := c.Serving(t, r, "living")
	far, asking := c.Serving(t, c.At[1], "far")
	killed := c.PIDs(t, dead, server)
	r.Kill()
	for _, pid := range killed {
		if err := cri.KillProcess(pid); err != nil {
			t.Fatal(err)
		}
	}
	if err := garbage(c, r, living); err != nil {
		t.Fatal(err)
	}
	left, err := r.Left()
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range left { // the interface goes with its namespace, of which nothing but containerd knows
		loopback := strings.Contains(what, "/cni-loopback-") // a network of containerd's own
		if !loopback && strings.Contains(what, dead.ID) || filepath.Base(what) == dead.Addr.String() {
			t.Errorf("GC left %s", what)
		}
	}
	c.Asks(t, asking, living.Addr, far.Addr)

	if err := r.Start(c.Ctx); err != nil {
		t.Fatal(err)
	}
	c.Remove(t, dead, living, far) // a DEL for what GC has freed is no error
	c.NothingLeft(t)
}

// garbage has libcni free every attachment on the node but those of the given pods.
func garbage(c *cluster, r *cri.Runtime, valid ...*cri.Pod) error {
	return r.Node.Do(func() error {
		data, err := os.ReadFile(cri.ConfFile)
		if err != nil {
			return err
		}
		list, err := libcni.NetworkConfFromBytes(data)
		if err != nil {
			return err
		}
		args := &libcni.GCArgs{}
		for _, p := range valid {
			args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: p.ID, IfName: "eth0"})
		}
		if err := libcni.NewCNIConfig([]string{cri.BinDir}, nil).GCNetworkList(c.Ctx, list, args); err != nil {
			return fmt.Errorf("GC: %w", err)
		}
		return nil
	})
}
