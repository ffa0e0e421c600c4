package k8slab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// prepareMounts gives the node that the calling thread is in what a kubelet takes for its own, beyond what a runtime does.
func prepareMounts() error {
	// Else kubelets would take each other's logs for those of pods that are gone.
	if err := unix.Mount("tmpfs", "/var/log", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount a /var/log of the node's own: %w", err)
	}
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, ""); err != nil {
		return fmt.Errorf("mount a BPF file system: %w", err)
	}
	return coverSettings()
}

// settings are the whole machine's, and a kubelet sets them at its start.
func settings() []string {
	return []string{
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
	}
}

// coverSettings puts files over the machine's settings, so that a kubelet changes nothing but these.
func coverSettings() error {
	for _, name := range settings() {
		over, file := filepath.Join("/proc/sys", name), filepath.Join("/run/settings", name)
		value, err := os.ReadFile(over)
		if errors.Is(err, os.ErrNotExist) {
			continue // the kernel has no keys
		}
		if err == nil {
			err = errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, value, 0o644))
		}
		if err == nil {
			err = unix.Mount(file, over, "", unix.MS_BIND, "")
		}
		if err != nil {
			return fmt.Errorf("cover the setting %s: %w", name, err)
		}
	}
	return nil
}
