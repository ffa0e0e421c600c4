package debian

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/containerd"
	"github.com/selvage-net/selvage/dist/containerd/cri"
	"github.com/selvage-net/selvage/dist/lab"
)

//go:embed boot.sh
var boot string

// Machine is a node of the lab that is a Debian.
type Machine struct {
	Node    *lab.Node
	process *exec.Cmd
	ended   chan struct{}
	log     string // file with what systemd prints
}

// Boot starts the Debian whose files are below root on a node, and waits until it is up. The files stay as they are; it
// writes to dir.
func Boot(ctx context.Context, node *lab.Node, root, dir string) (*Machine, error) {
	parent, err := containerd.CgroupParent()
	if err != nil {
		return nil, err
	}
	m := &Machine{Node: node, ended: make(chan struct{}), log: filepath.Join(dir, "systemd.log")}
	files := filepath.Join(dir, "files")
	if err := os.Mkdir(files, 0o755); err != nil {
		return nil, err
	}
	out, err := os.Create(m.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	m.process = exec.Command("sh", "-c", boot, "boot.sh", root, files, parent+"/"+node.Name())
	m.process.Stdout, m.process.Stderr = out, out
	m.process.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
	}
	if err := node.Do(func() error { return errors.Join(cri.PrepareMounts(), m.process.Start()) }); err != nil {
		return nil, fmt.Errorf("%s: boot: %w", node.Name(), err)
	}
	go func() { _ = m.process.Wait(); close(m.ended) }() // how it ended is in its log
	for {
		// running, or degraded: a unit failed that cannot work without hardware.
		state, err := m.Run(ctx, "sh", "-c", "systemctl is-system-running || :")
		if err == nil && (state == "running" || state == "degraded") {
			return m, nil
		}
		select {
		case <-m.ended:
			return nil, fmt.Errorf("%s: systemd has ended: %s", node.Name(), m.Log())
		default:
		}
		if e := cri.Pause(ctx); e != nil {
			err = fmt.Errorf("%s: systemd is %q: %w: %s", node.Name(), state, errors.Join(e, err), m.Log())
			return nil, errors.Join(err, m.Close())
		}
	}
}

// Run runs a program on the machine and returns what it prints.
func (m *Machine) Run(ctx context.Context, argv ...string) (string, error) {
	enter := []string{
		"nsenter", "--target", fmt.Sprint(m.process.Process.Pid), "--mount", "--pid", "--ipc", "--uts", "--",
		"env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8",
	}
	out, err := m.Node.Output(ctx, append(enter, argv...)...)
	return strings.TrimSpace(string(out)), err
}

// Path returns the path of a file of the machine for this process.
func (m *Machine) Path(path string) string {
	return filepath.Join("/proc", fmt.Sprint(m.process.Process.Pid), "root", path)
}

// Log returns what systemd has printed.
func (m *Machine) Log() string {
	data, err := os.ReadFile(m.log)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// Close ends systemd, and with it all that it has started.
func (m *Machine) Close() error {
	err := m.process.Process.Kill()
	<-m.ended
	return err
}
