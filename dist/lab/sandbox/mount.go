package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mountPrivate cuts the mount namespace of the calling thread off from the one it was copied from.
func mountPrivate() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// cover mounts an empty tmpfs on dir. What the program needs in order to work at all stays: a checkout in /tmp/src, or the
// home of a CI user in /var/lib/jenkins, is bound back to where it was.
func cover(dir, options string) error {
	old, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	defer unix.Close(old)
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	for _, name := range keep(dir, needed()) {
		if err := bindBack(old, dir, name); err != nil {
			return fmt.Errorf("keep %s: %w", filepath.Join(dir, name), err)
		}
	}
	return nil
}

// bindBack binds the entry name of the directory that old refers to on dir/name.
func bindBack(old int, dir, name string) error {
	from, to := fmt.Sprintf("/proc/self/fd/%d/%s", old, name), filepath.Join(dir, name)
	info, err := os.Stat(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.Mkdir(to, 0o755)
	} else {
		err = os.WriteFile(to, nil, 0o644)
	}
	if err != nil {
		return err
	}
	return unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
}

// needed lists the paths without which the program, or the Go toolchain run by it, would not find itself.
func needed() []string {
	paths := []string{os.Getenv("HOME"), os.Getenv("GOPATH"), os.Getenv("GOCACHE"), os.Getenv("GOMODCACHE"), os.Getenv("GOROOT")}
	if wd, err := os.Getwd(); err == nil {
		paths = append(paths, wd)
	}
	if exe, err := os.Executable(); err == nil {
		paths = append(paths, exe)
	}
	return paths
}

// keep returns the entries of dir that the given paths pass through.
func keep(dir string, paths []string) []string {
	var names []string
	for _, path := range paths {
		below, ok := strings.CutPrefix(filepath.Clean(path), dir+"/")
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(below, "/")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// mountSys mounts a sysfs that shows the network namespace of the calling thread. The kernel refuses it to an ordinary user
// in some containers; then /sys/class/net stays the outside's, and nothing of ours reads that.
func mountSys() {
	unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	// For pins of BPF programs. Only who may load programs has a use for it.
	unix.Mount("bpf", "/sys/fs/bpf", "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700")
}

// linkUp sets an interface of the calling thread's network namespace up.
func linkUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}
