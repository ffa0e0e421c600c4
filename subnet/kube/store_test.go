package kube

import (
	"testing"

	"github.com/selvage-net/selvage/subnet/storetest"
)

// kind is what storetest is to ask of this store.
var kind = storetest.Kind{Allocates: true}

func TestStore(t *testing.T) {
	for _, streaming := range []bool{true, false} {
		t.Run(map[bool]string{true: "streaming", false: "paged"}[streaming], func(t *testing.T) {
			storetest.Run(t, kind, func(t *testing.T) storetest.Cluster { return standIn(t, streaming).cluster() })
		})
	}
}

func TestStoreThatIsHarmed(t *testing.T) {
	for _, streaming := range []bool{true, false} {
		t.Run(map[bool]string{true: "streaming", false: "paged"}[streaming], func(t *testing.T) {
			storetest.RunHarm(t, kind, func(t *testing.T) storetest.Cluster { return standIn(t, streaming).cluster() })
		})
	}
}
