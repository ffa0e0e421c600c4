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
)

// sysctlRoot holds the settings. What is below net/ is that of the network namespace of the thread that reads it.
const sysctlRoot = "/proc/sys"

// readSysctls reads the settings that are wanted; there are a handful. The kernel tells that one changed (RTNLGRP_*_NETCONF)
// for forwarding, and for others not at all.
func (k *Kernel) readSysctls() {
	t := k.tables.Sysctls
	for path, c := range t.All {
		if !c.Wanted {
			continue
		}
		data, err := os.ReadFile(filepath.Join(sysctlRoot, path))
		if err != nil {
			t.ObserveGone(path) // the attempt to set it will say what is wrong
			continue
		}
		t.Observe(path, network.Sysctl(strings.TrimSpace(string(data))))
	}
}

// Sysctl sets a kernel setting. One of a device that is gone is nobody's.
func (k *Kernel) Sysctl(path string, c network.Change[network.Sysctl]) error {
	if !c.Wanted {
		return nil
	}
	err := writeSysctl(path, string(c.Want))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("set %s to %s: %w; let the daemon write %s, or set it before it starts", path, c.Want, err, sysctlRoot)
	default:
		return fmt.Errorf("set %s to %s: %w", path, c.Want, err)
	}
}

// hostSysctlRoot is the same once more for a container: Kubernetes gives what is not privileged a read-only /proc/sys, and runc
// lets nobody mount anything over it. The DaemonSet mounts the node's settings here.
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
