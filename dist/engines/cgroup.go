package engines

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/containerd"
)

// hierarchies is where the cgroup hierarchies of version 1 are mounted, in the sandbox.
const hierarchies = "/run/hierarchies"

// enterCgroup puts this process into a cgroup of the lab's in each hierarchy of version 1 that has controllers. What is
// started then takes that for the root of all once it is in a cgroup namespace, and makes its own below it, where they are
// removed when the lab ends. Of version 2, and of systemd's own hierarchy, [containerd.Boot] does the same by itself.
func enterCgroup(name string) error {
	parent, err := containerd.CgroupParent()
	if err != nil {
		return err
	}
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) { // number:controllers:path, see cgroups(7)
		fields := strings.SplitN(line, ":", 3)
		if len(fields) != 3 || fields[1] == "" || strings.HasPrefix(fields[1], "name=") {
			continue
		}
		if err := enter(fields[1], []string{strings.TrimPrefix(parent, "/"), name}); err != nil {
			return fmt.Errorf("enter a cgroup for %s: %w", fields[1], err)
		}
	}
	return nil
}

// enter puts this process into the cgroup with that path, and makes it if need be.
func enter(controllers string, path []string) error {
	dir := filepath.Join(hierarchies, controllers)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := errors.Join(os.MkdirAll(dir, 0o755), unix.Mount("cgroup", dir, "cgroup", 0, controllers)); err != nil {
			return err
		}
	}
	for _, name := range path {
		above := dir
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // empty in a new one, which takes no process then
			value, err := os.ReadFile(filepath.Join(above, file))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err := errors.Join(err, os.WriteFile(filepath.Join(dir, file), value, 0)); err != nil {
				return err
			}
		}
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
}

//go:embed hierarchies.sh
var hierarchiesScript string

// showHierarchies mounts those hierarchies of version 1 that systemd has left out, as it does with cpu and cpuacct where these
// are two. An engine takes what is mounted for what there is.
func (m *Machine) showHierarchies(ctx context.Context) error {
	_, err := m.Inside(ctx, "nsenter", "--target", "1", "--cgroup", "--", "sh", "-c", hierarchiesScript)
	return err
}
