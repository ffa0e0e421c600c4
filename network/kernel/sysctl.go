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

// readSysctls reads the desired settings, a handful. The kernel notifies of changes to forwarding (RTNLGRP_*_NETCONF),
// and not of others.
func (k *Kernel) readSysctls() {
	t := k.tables.Sysctls
	for path, c := range t.All {
		if !c.Wanted {
			continue
		}
		data, err := os.ReadFile(filepath.Join(sysctlRoot, path))
		if err != nil {
			t.ObserveGone(path) // the attempt to set it will report the cause
			continue
		}
		t.Observe(path, network.Sysctl(strings.TrimSpace(string(data))))
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
