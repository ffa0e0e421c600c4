package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Install puts on each node what an installation has besides the daemon: the CNI plugins and their configuration, where container
// runtimes look for them. The lab itself needs neither, but whoever looks around on a node does, as selvaged doctor. The machine's own
// /etc and /opt are seen through, and not written to.
func (l *Lab) Install() error {
	for _, n := range l.nodes {
		if err := n.do(func() error { return install(l.options.Bin, l.options.CNI) }); err != nil {
			return fmt.Errorf("%s: install the CNI plugins: %w", n.name, err)
		}
	}
	return nil
}

// install works where the calling thread is.
func install(bin, conflist string) error {
	const plugins, configurations = "/opt/cni/bin", "/etc/cni/net.d"
	for _, dir := range []string{"/etc", "/opt"} {
		if err := layOver(dir); err != nil {
			return err
		}
	}
	if err := errors.Join(os.RemoveAll("/etc/cni"), os.RemoveAll("/opt/cni"), os.MkdirAll(plugins, 0o755), os.MkdirAll(configurations, 0o755)); err != nil {
		return err
	}
	programs, err := filepath.Glob(filepath.Join(bin, "cni", "*"))
	if err != nil {
		return err
	}
	for _, program := range append(programs, filepath.Join(bin, "selvage")) {
		if err := os.Symlink(program, filepath.Join(plugins, filepath.Base(program))); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(configurations, "10-selvage.conflist"), []byte(conflist), 0o644)
}

// layOver has what is written to a directory from here on land on the host's own /run. An ordinary user may mount that in a namespace of
// his own since Linux 5.11.
func layOver(dir string) error {
	upper, work := filepath.Join("/run/over", dir), filepath.Join("/run/over/work", dir)
	if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
		return err
	}
	if err := unix.Mount("overlay", dir, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,userxattr", dir, upper, work)); err != nil {
		return fmt.Errorf("mount an overlay on %s: %w", dir, err)
	}
	return nil
}
