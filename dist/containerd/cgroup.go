package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupRoot is where the hierarchies are: of version 2 it is one, of version 1 it holds them.
const cgroupRoot = "/sys/fs/cgroup"

// cgroupPrefix begins the name of the cgroup that all containers of a lab are below; the pid of the process outside the
// sandbox ends it.
const cgroupPrefix = "selvage-lab-"

// cgroupVariable carries that name into the sandbox.
const cgroupVariable = "SELVAGE_LAB_CGROUP"

// Cgroups is for [sandbox.Options.Outside]. Cgroups are no namespace's: they stay when a sandbox ends, however it ends. So
// the process outside removes them, and what an earlier one left that was killed itself.
func Cgroups() ([]*os.File, func(), error) {
	if err := checkRoot(); err != nil {
		return nil, nil, err
	}
	if err := removeCgroups(func(pid int) bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) }); err != nil {
		return nil, nil, err
	}
	own := os.Getpid()
	os.Setenv(cgroupVariable, cgroupPrefix+strconv.Itoa(own))
	cleanup := func() {
		if err := removeCgroups(func(pid int) bool { return pid == own }); err != nil {
			fmt.Fprintf(os.Stderr, "%v\n", err)
		}
	}
	return nil, cleanup, nil
}

// checkRoot says what is missing to make containers.
func checkRoot() error {
	mapped, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return err
	}
	var caps [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return err
	}
	if caps[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0 && len(strings.Fields(string(mapped))) == 3 && strings.Fields(string(mapped))[2] == "4294967295" {
		return nil
	}
	return errors.New("containerd and runc need root of the machine itself, with CAP_SYS_ADMIN: a user namespace does not do, " +
		"nor does a container without --privileged")
}

// CgroupParent is the cgroup that containers go below, as a path in each hierarchy.
func CgroupParent() (string, error) {
	name := os.Getenv(cgroupVariable)
	if name == "" {
		return "", errors.New("no cgroup was prepared: the sandbox must be run with Outside set to containerd.Cgroups")
	}
	return "/" + name, nil
}

// removeCgroups removes the labs' cgroups in every hierarchy, of those processes for which match is true. The kernel lets go
// of a cgroup only when no process is left in it.
func removeCgroups(match func(pid int) bool) error {
	var found []string
	for _, pattern := range []string{"", "*"} {
		paths, err := filepath.Glob(filepath.Join(cgroupRoot, pattern, cgroupPrefix+"*"))
		if err != nil {
			return err
		}
		found = append(found, paths...)
	}
	var errs []error
	for _, path := range found {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(path), cgroupPrefix))
		if err == nil && match(pid) {
			errs = append(errs, removeTree(path))
		}
	}
	return errors.Join(errs...)
}

// removeTree removes a cgroup and those below it, the lowest first. Its files go with it.
func removeTree(path string) error {
	var dirs []string
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a link to a hierarchy that was walked already, as /sys/fs/cgroup/cpu is one to cpu,cpuacct
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return err
	})
	slices.Reverse(dirs)
	for _, dir := range dirs {
		if e := unix.Rmdir(dir); e != nil && !errors.Is(e, unix.ENOENT) {
			err = errors.Join(err, fmt.Errorf("remove the cgroup %s: %w", dir, e))
		}
	}
	return err
}
