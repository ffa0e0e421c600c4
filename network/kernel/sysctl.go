package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/errno"
)

// sysctlRoot is the directory of all settings. Those below net/ belong to the network namespace of the reading thread.
const sysctlRoot = "/proc/sys"

// staleSettings are the settings to read again.
type staleSettings struct {
	all bool
	of  map[string]struct{} // of these devices
}

// readSysctls reads the desired settings, a handful. The kernel notifies of changes to forwarding (RTNLGRP_*_NETCONF),
// and not of others.
func (k *Kernel) readSysctls() { k.readSettings(func(string) bool { return true }) }

// readStaleSettings reads the settings that notifications were about.
func (k *Kernel) readStaleSettings() {
	s := &k.settings
	switch {
	case s.all:
		k.readSysctls()
	case len(s.of) > 0:
		k.readSettings(func(path string) bool { _, is := s.of[network.SettingDevice(path)]; return is })
	}
	s.all = false
	clear(s.of)
}

// readSettings reads the desired settings that which selects by their paths.
func (k *Kernel) readSettings(which func(path string) bool) {
	t := k.tables.Sysctls
	for path, c := range t.All {
		if !c.Wanted || !which(path) {
			continue
		}
		k.requests++
		data, err := os.ReadFile(filepath.Join(sysctlRoot, path))
		if err != nil {
			t.ObserveGone(path) // the attempt to set it will report the cause
			continue
		}
		t.Observe(path, network.Sysctl(strings.TrimSpace(string(data))))
	}
}

// Of struct netconfmsg and its attributes, see include/uapi/linux/netconf.h.
const (
	sizeofNetconfmsg = 4 // aligned
	netconfaIfindex  = 1
)

// netconf notes which settings were changed. Those of foreign devices, such as another network's veth pairs, are none
// of ours; each such device has two notifications when it is added.
func (k *Kernel) netconf(b []byte) {
	if len(b) < sizeofNetconfmsg {
		return
	}
	for typ, data := range attributes(b[sizeofNetconfmsg:]) {
		if typ != netconfaIfindex {
			continue
		}
		if index := int32(attrUint32(data)); index > 0 {
			k.settingsStale(k.links[index])
		} else { // NETCONFA_IFINDEX_ALL or NETCONFA_IFINDEX_DEFAULT
			k.settings.all, k.routingStale = true, true
		}
	}
}

// ReadSettings reads all desired settings: after others have become desired, and those of whose changes the kernel does
// not notify.
func (k *Kernel) ReadSettings() { k.readSysctls() }

// settingsStale notes that settings of a device may have changed.
func (k *Kernel) settingsStale(name string) {
	if name != "" && (name == k.uplink || k.tables.OwnsLink(name) || k.tables.Tends(name)) {
		k.settings.of[name], k.routingStale = struct{}{}, true
	}
}

// Sysctl sets a kernel setting. One that is not desired any more stays as it is.
func (k *Kernel) Sysctl(path string, c network.Change[network.Sysctl]) error {
	if !c.Wanted {
		return nil
	}
	if err := writeSysctl(path, string(c.Want)); err != nil {
		return errno.Explain(errno.Sysctl, fmt.Errorf("set %s to %s: %w", path, c.Want, err))
	}
	return nil
}

// hostSysctlRoot is sysctlRoot of the host, for a container: in Kubernetes an unprivileged container has a read-only
// /proc/sys, and runc refuses mounts over it. The DaemonSet mounts the host's directory here.
const hostSysctlRoot = "/host/proc/sys"

// SysctlRoots returns where the settings of the host may be, which are the same files twice if the second exists.
func SysctlRoots() []string { return []string{sysctlRoot, hostSysctlRoot} }

func writeSysctl(path, value string) error {
	err := os.WriteFile(filepath.Join(sysctlRoot, path), []byte(value), 0)
	if !errors.Is(err, unix.EROFS) {
		return err
	}
	if e := os.WriteFile(filepath.Join(hostSysctlRoot, path), []byte(value), 0); !errors.Is(e, fs.ErrNotExist) {
		return e
	}
	return err
}
