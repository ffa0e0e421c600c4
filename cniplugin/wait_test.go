package cniplugin

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// TestAddWaitsForTheSubnetFile has the delegate's absence of a subnet file end while ADD waits.
func TestAddWaitsForTheSubnetFile(t *testing.T) {
	n := newNode(t)
	file := filepath.Join(n.dir, "later", "subnet.env")
	n.conf["subnetFile"] = file
	n.fails(n.verbs.Add, types.ErrTryAgainLater, "this node has no subnet yet; read subnet file")

	n.conf["subnetFileWait"] = 0.05
	n.fails(n.verbs.Add, types.ErrTryAgainLater, "this node has no subnet yet, after waiting 50ms")

	n.conf["subnetFileWait"] = 60
	written := make(chan error, 1)
	go func() {
		if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
			written <- err
			return
		}
		written <- os.Rename(filepath.Join(n.dir, "subnet.env"), file)
	}()
	n.ok(n.verbs.Add)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	n.delegated("ADD")

	// One that is there and wrong gets no better by waiting.
	write(t, file, "FLANNEL_MTU=x")
	n.args.IfName = "net1"
	n.fails(n.verbs.Add, types.ErrDecodingFailure, "decode subnet file")
}

func TestWaitEndsWithTheContext(t *testing.T) {
	n := newNode(t)
	n.conf["subnetFile"] = filepath.Join(n.dir, "none.env")
	n.conf["subnetFileWait"] = 60
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n.fails(funcsOf(ctx, n.plugin).Add, types.ErrTryAgainLater, "this node has no subnet yet")
}

func TestWaitIsBounded(t *testing.T) {
	n := newNode(t)
	for _, wait := range []any{-1, 61, "10s", true} {
		n.conf["subnetFileWait"] = wait
		n.fails(n.verbs.Add, types.ErrDecodingFailure, "subnetFileWait is", "want a number of seconds")
	}
}
