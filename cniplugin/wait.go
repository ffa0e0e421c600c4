package cniplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/selvage-net/selvage/subnet/subnetfile"
)

const (
	maxWait   = time.Minute // runtimes kill a plugin after about two minutes
	lookEvery = 20 * time.Millisecond
)

// readFile reads the subnet file. While there is none, it looks again for as long as the network configuration says: a
// node that boots starts containers and the daemon at the same time.
func readFile(ctx context.Context, n netConf) (subnetfile.File, error) {
	until := time.Now().Add(n.wait)
	for {
		f, err := subnetfile.Read(n.SubnetFile)
		if err == nil {
			return f, nil
		}
		if left := time.Until(until); !errors.Is(err, fs.ErrNotExist) || left <= 0 || ctx.Err() != nil {
			return f, fileError(err, n.wait)
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookEvery):
		}
	}
}

// fileError is the error for a runtime when there is no subnet file after waiting for it.
func fileError(err error, waited time.Duration) error {
	_, isPath := errors.AsType[*fs.PathError](err)
	switch {
	case errors.Is(err, fs.ErrNotExist) && waited > 0:
		return fail(types.ErrTryAgainLater, fmt.Sprintf("this node has no subnet yet, after waiting %v", waited), err)
	case errors.Is(err, fs.ErrNotExist):
		return fail(types.ErrTryAgainLater, "this node has no subnet yet", err)
	case isPath:
		return fail(types.ErrIOFailure, "read subnet file", err)
	default:
		return fail(types.ErrDecodingFailure, "decode subnet file", err)
	}
}
