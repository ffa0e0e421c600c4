package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/selvage-net/selvage/network/enforce"
	"github.com/selvage-net/selvage/network/filewatch"
	"github.com/selvage-net/selvage/network/kernel"
)

const (
	// bridgeCheck is how often the settings for bridged packets are read while a policy selects a pod of this node.
	// They are also read when they are written, but inotify(7) does not report all writes, see settingFiles, and denied
	// packets pass until a change is found. One look takes 20 µs.
	bridgeCheck = 100 * time.Millisecond
	// bridgeLoad is how often it is tried to load the module that has them.
	bridgeLoad = time.Minute
	// ipvsCheck is how often it is looked for services of IPVS then.
	ipvsCheck = 10 * time.Second
	// bridgeModule is the module, and bridgeSettings its directory below /proc/sys.
	bridgeModule   = "br_netfilter"
	bridgeSettings = "net/bridge"
)

// settingFiles are settings as files. A process in another pid namespace has another /proc, and inotify(7) reports what
// is written there only to who watches it there: a container has that of the host at another place, if at all.
func settingFiles(paths ...string) (files []string) {
	for _, root := range kernel.SysctlRoots() {
		if _, err := os.Stat(root); err != nil {
			continue
		}
		for _, path := range paths {
			files = append(files, filepath.Join(root, path))
		}
	}
	return files
}

// watchBypasses has the loop read the settings for bridged packets again once one of them is wrong, and looks for
// services of IPVS: what lets packets bypass the policies in force.
func (n *node) watchBypasses(ctx context.Context) {
	var mu sync.Mutex
	var loaded, looked time.Time
	bridged := enforce.BridgedPackets()
	filewatch.Keep(ctx, bridgeCheck, func() {
		mu.Lock()
		defer mu.Unlock()
		if !n.Policies.Engine.Enforcing() {
			return
		}
		now := time.Now()
		n.checkBridged(ctx, now, &loaded)
		if now.Sub(looked) > ipvsCheck {
			looked = now
			if ipvs := hasIPVS(ipvsFile); n.enforced.ipvs.Swap(ipvs) != ipvs {
				notify(n.kernelChanged) // for the state
			}
		}
	}, settingFiles(bridged[:]...)...)
}

// checkBridged reads the settings for bridged packets. It tries to load the module that has them, unless that was tried
// lately.
func (n *node) checkBridged(ctx context.Context, now time.Time, loaded *time.Time) {
	_, err := os.Stat(filepath.Join("/proc/sys", bridgeSettings))
	absent := errors.Is(err, fs.ErrNotExist)
	if absent && now.Sub(*loaded) > bridgeLoad {
		*loaded = now
		_ = exec.CommandContext(ctx, "modprobe", bridgeModule).Run() // a problem says that it is absent
	}
	wrong := n.enforced.absent.Swap(absent) != absent
	for _, path := range enforce.BridgedPackets() {
		wrong = wrong || !absent && readSysctl(path) != "1"
	}
	if wrong {
		n.Policies.Engine.Bypassed()
		n.enforced.stale.Store(true)
		notify(n.kernelChanged)
	}
}
