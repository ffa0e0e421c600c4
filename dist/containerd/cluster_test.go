package containerd

import (
	"context"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/containerd/cri"
	"github.com/selvage-net/selvage/dist/containerd/cri/critest"
	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// cluster is two nodes with a containerd each. There is no network config in etcd at first, so there is no subnet either.
type cluster struct {
	*critest.Cluster
	at     []*Runtime
	asking bool // the runtime asks the plugins for their STATUS
}

func newCluster(t *testing.T) *cluster { return newClusterWith(t, Options{}) }

// newClusterWith makes a cluster, with options for where files are.
func newClusterWith(t *testing.T, o Options) *cluster {
	t.Helper()
	c := &cluster{}
	c.Cluster = critest.New(t, bin, []subnet.Family{subnet.IPv4},
		func(ctx context.Context, n *lab.Node, archive, tmp string) (*cri.Runtime, error) {
			o.Dir, o.Plugins, o.Image, o.Logs = *dir, bin, archive, tmp
			r, err := New(ctx, n, o)
			if err != nil {
				return nil, err
			}
			c.at = append(c.at, r)
			return r.Runtime, nil
		})
	version, err := c.At[0].Version(c.Ctx)
	if err != nil {
		t.Fatal(err)
	}
	c.asking = !strings.Contains(version, " 1.") && !strings.Contains(version, " v1.")
	t.Logf("%s, asks for STATUS: %t", version, c.asking)
	return c
}
