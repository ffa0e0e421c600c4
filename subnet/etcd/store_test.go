package etcd

import (
	"os"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
	"github.com/selvage-net/selvage/subnet/storetest"
)

// kind is what storetest is to ask of this store.
var kind = storetest.Kind{Expires: true, Challenges: true}

func TestStore(t *testing.T) {
	storetest.Run(t, kind, func(t *testing.T) storetest.Cluster {
		c, _ := cluster(t, shared.server.Endpoint())
		return c
	})
}

func TestStoreThatIsHarmed(t *testing.T) {
	storetest.RunHarm(t, kind, func(t *testing.T) storetest.Cluster {
		etcd := server(t, etcdserver.Options{})
		c, _ := cluster(t, etcd.Endpoint())
		c.Harm = harm(etcd)
		return c
	})
}

// harm is what a test can do to an etcd of its own.
func harm(etcd *etcdserver.Server) *storetest.Harm {
	return &storetest.Harm{
		Restart: func(t *testing.T) { restart(t, etcd) },
		Wipe:    func(t *testing.T) { wipe(t, etcd, "") },
		Backup: func(t *testing.T) func(t *testing.T) {
			etcd.Kill()
			copied := t.TempDir()
			if err := os.CopyFS(copied, os.DirFS(etcd.DataDir())); err != nil {
				t.Fatal(err)
			}
			restart(t, etcd)
			return func(t *testing.T) { wipe(t, etcd, copied) }
		},
		Compact: func(t *testing.T) {
			a := admin(t, etcd.Endpoint())
			head := must[*clientv3.GetResponse](t)(a.Get(t.Context(), "x")).Header.Revision
			must[*clientv3.CompactResponse](t)(a.Compact(t.Context(), head))
		},
	}
}
