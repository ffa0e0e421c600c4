package containerd

import (
	"errors"
	"testing"

	"github.com/selvage-net/selvage/dist/containerd/cri"
	"github.com/selvage-net/selvage/dist/containerd/cri/critest"
)

// TestDaemonSet runs the daemon of one node from the image. Each kind of archive that make image writes is taken.
func TestDaemonSet(t *testing.T) {
	c := newCluster(t)
	c.DaemonSet(t, bin, Conflist, func(_ *cri.Runtime, a critest.Archives) error {
		return errors.Join(c.at[1].Import(c.Ctx, a.Docker), c.at[1].Import(c.Ctx, a.OCI))
	})
}
