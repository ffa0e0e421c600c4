package cri

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// cgroupRoot is where the hierarchies are.
const cgroupRoot = "/sys/fs/cgroup"

// PrepareMounts gives the node that the calling thread is in what a runtime expects of a host: the cgroup hierarchies, which
// the lab's own sysfs hides, and an /etc and an /opt of its own, so that /etc/cni/net.d and /opt/cni/bin are nobody else's.
func PrepareMounts() error {
	if err := showCgroups(); err != nil {
		return err
	}
	upper, work := "/run/etc/upper", "/run/etc/work"
	for _, dir := range []string{upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("etc", "/etc", "overlay", 0, "lowerdir=/etc,upperdir="+upper+",workdir="+work); err != nil {
		return fmt.Errorf("mount an /etc of the node's own: %w", err)
	}
	if err := unix.Mount("tmpfs", "/opt", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount an /opt of the node's own: %w", err)
	}
	for _, dir := range []string{ConfDir, BinDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// The machine may have network configurations, as who installs podman gets one, which are not the node's.
	if err := unix.Mount("tmpfs", ConfDir, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount a %s of the node's own: %w", ConfDir, err)
	}
	return nil
}

// showCgroups mounts the machine's cgroup hierarchies below the node's own sysfs.
func showCgroups() error {
	// Each sandbox and host has mounted a sysfs over the one before; the first has the hierarchies in it.
	for !hasCgroups() {
		if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("find the cgroup hierarchies below /sys: %w", err)
		}
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, cgroupRoot, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("take %s along: %w", cgroupRoot, err)
	}
	defer unix.Close(tree)
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, cgroupRoot, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("put %s back: %w", cgroupRoot, err)
	}
	return nil
}

func hasCgroups() bool {
	entries, err := os.ReadDir(cgroupRoot)
	return err == nil && len(entries) > 0
}

// InstallPlugins copies the plugins from dir to where the node that the calling thread is in has them.
func InstallPlugins(dir string) error {
	for _, name := range Plugins() {
		if err := install(filepath.Join(dir, name), BinDir); err != nil {
			return err
		}
	}
	return nil
}

// install copies a program, so that it is the node's own.
func install(from, dir string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	to := filepath.Join(dir, filepath.Base(from))
	return errors.Join(os.RemoveAll(to), os.WriteFile(to, data, 0o755))
}
