package etcd

import (
	"testing"

	"github.com/selvage-net/selvage/subnet/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Cluster {
		c, _ := cluster(t, shared.server.Endpoint())
		return c
	})
}
