package k8slab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/selvage-net/selvage/dist/containerd"
)

const cgroupRoot = "/sys/fs/cgroup"

// makeCgroup makes a cgroup for a node's pods in every hierarchy, and returns its path in each: a kubelet makes those below
// it, and wants this one to be there.
func makeCgroup(node string) (string, error) {
	parent, err := containerd.CgroupParent()
	if err != nil {
		return "", err
	}
	path := filepath.Join(parent, node)
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return path, makeUnified(path)
	}
	hierarchies, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return "", fmt.Errorf("list the cgroup hierarchies: %w", err)
	}
	for _, h := range hierarchies {
		if err := errors.Join(makeIn(filepath.Join(cgroupRoot, h.Name()), parent), makeIn(filepath.Join(cgroupRoot, h.Name()), path)); err != nil {
			return "", err
		}
	}
	return path, nil
}

// makeIn makes a cgroup in a hierarchy of version 1. One for cpusets is without processors and memory at first, and then takes
// no process.
func makeIn(hierarchy, path string) error {
	dir := filepath.Join(hierarchy, path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make a cgroup: %w", err)
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), value, 0)
		}
		if err != nil {
			return fmt.Errorf("make a cgroup: %w", err)
		}
	}
	return nil
}

// makeUnified makes a cgroup in the one hierarchy of version 2, with all controllers passed on to it and below it.
func makeUnified(path string) error {
	dir := filepath.Join(cgroupRoot, path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make a cgroup: %w", err)
	}
	for at := cgroupRoot; ; {
		controllers, err := os.ReadFile(filepath.Join(at, "cgroup.controllers"))
		if err != nil {
			return fmt.Errorf("read the cgroup controllers: %w", err)
		}
		for _, c := range strings.Fields(string(controllers)) {
			if err := os.WriteFile(filepath.Join(at, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
				return fmt.Errorf("pass the cgroup controller %s on: %w", c, err)
			}
		}
		rest, err := filepath.Rel(at, dir)
		if err != nil || rest == "." {
			return err
		}
		next, _, _ := strings.Cut(rest, "/")
		at = filepath.Join(at, next)
	}
}
