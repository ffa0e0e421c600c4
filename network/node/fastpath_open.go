package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/fastpath"
	"github.com/selvage-net/selvage/network/node/status"
)

// FastPathPins returns the directory of the fast path's pins in a BPF file system, for the daemon of a network in this
// network namespace: several namespaces can share the file system.
func FastPathPins(bpffs, storePrefix string) string {
	namespace := "net"
	if info, err := os.Stat("/proc/thread-self/ns/net"); err == nil {
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			namespace += "-" + strconv.FormatUint(s.Ino, 10)
		}
	}
	return filepath.Join(bpffs, PolicyScope(storePrefix).Name("selvage"), namespace)
}

// fastOpened is the outcome of an attempt to load the programs.
type fastOpened struct {
	path   *fastpath.Path // nil: why says why
	pinned bool
	why    fastReason
}

// openFastPath loads the programs, in the background. It says why they are not loaded.
func (n *node) openFastPath(wake *alarm) fastReason {
	f := &n.fast
	select {
	case r := <-f.results:
		f.opening = false
		if r.path == nil {
			f.openAt = wake.now.Add(fastRetry)
			wake.set(f.openAt)
			return r.why
		}
		f.path.Store(r.path)
		f.pinned, f.checkAt, f.configs = r.pinned, time.Time{}, nil
		f.beatAt, f.peersAt, f.inherited = time.Time{}, time.Time{}, r.pinned
		n.kernel.FastPath(r.path)
	default:
	}
	switch {
	case f.path.Load() != nil:
		return fastReason{}
	case !f.opening && !wake.now.Before(f.openAt):
		f.opening = true
		n.background.Go(func() {
			f.results <- openFastPath(f.pins)
			notify(n.kernelChanged)
		})
	}
	wake.set(f.openAt)
	if f.why.code == "" {
		return fastReason{status.FastPathStarting, "its programs are being loaded"}
	}
	return f.why // until it is known better
}

// openFastPath loads the programs, with pins if there is a BPF file system for them.
func openFastPath(pins string) fastOpened {
	pinned := fastpath.IsBPFFS(pins)
	if !pinned {
		pins = ""
	}
	if missing := fastpath.Missing(pins); len(missing) > 0 {
		code := status.Unsupported
		if !fastpath.Permitted() {
			code = status.NotPermitted
		}
		return fastOpened{why: fastReason{code, "missing: " + strings.Join(missing, "; ")}}
	}
	p, err := fastpath.Open(fastpath.Options{Pins: pins})
	if err != nil {
		code := status.FastPathFailed
		if errors.Is(err, unix.EPERM) {
			code = status.NotPermitted
		}
		return fastOpened{why: fastReason{code, err.Error()}}
	}
	return fastOpened{path: p, pinned: pinned}
}

// closeFastPath lets go of the programs.
func (n *node) closeFastPath() {
	if p := n.fast.path.Swap(nil); p != nil {
		n.kernel.FastPath(nil)
		_ = p.Close() // descriptors
	}
	select {
	case r := <-n.fast.results: // of an attempt that ended after the loop
		if r.path != nil {
			_ = r.path.Close()
		}
	default:
	}
}

// removeFastPath removes what an earlier run has left. It ends when there is nothing.
func (n *node) removeFastPath(ctx context.Context) {
	for began := time.Now(); ctx.Err() == nil; sleep(ctx, waitAfterFailure) {
		found, err := RemoveFastPath(n.fast.pins, false)
		if err == nil {
			if found {
				n.Log.WithField("pins", n.fast.pins).Info("removed the fast path of an earlier run")
			}
			n.fast.left.Store(nil)
			notify(n.kernelChanged) // for the state
			return
		}
		if n.fast.left.Swap(&problem{err: err, since: began}) == nil {
			n.Log.WithError(err).Error("cannot remove the fast path of an earlier run; it ends by itself; retrying")
			notify(n.kernelChanged)
		}
	}
}

// RemoveFastPath removes what a daemon has pinned in a directory, see [FastPathPins], and detaches the programs. It
// reports whether there is anything; with dry, it removes nothing.
func RemoveFastPath(pins string, dry bool) (found bool, err error) {
	found, err = fastpath.RemovePins(pins, dry)
	if found && err == nil && !dry {
		_ = os.Remove(filepath.Dir(pins)) // unless it has those of another network namespace
	}
	return found, err
}
