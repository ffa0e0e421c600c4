package containerd

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

	"github.com/selvage-net/selvage/dist/containerd/cri"
	"github.com/selvage-net/selvage/dist/lab"
)

//go:embed boot.sh
var boot string

// Systemd is a systemd that runs as pid 1 of a node.
type Systemd struct {
	Node    *lab.Node
	process *exec.Cmd
	ended   chan struct{}
	log     string
}

// unitDir is where the units are, on the node.
const unitDir = "/run/units"

// Boot starts systemd on a node. units are files below unitDir by name; beside them there are the targets that every unit
// wants. programs are copied to /usr/local/bin. log is a file for what it prints.
func Boot(ctx context.Context, node *lab.Node, units map[string]string, programs []string, log string) (*Systemd, error) {
	parent, err := CgroupParent()
	if err != nil {
		return nil, err
	}
	s := &Systemd{Node: node, ended: make(chan struct{}), log: log}
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	s.process = exec.Command("sh", "-c", boot, "boot.sh", parent+"/"+node.Name())
	s.process.Stdout, s.process.Stderr = out, out
	s.process.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC,
	}
	err = node.Do(func() error {
		return errors.Join(cri.PrepareMounts(), writeUnits(units), installPrograms(programs), s.process.Start())
	})
	if err != nil {
		return nil, fmt.Errorf("%s: boot: %w", node.Name(), err)
	}
	go func() { _ = s.process.Wait(); close(s.ended) }() // how it ended is in its log
	for {
		state, err := s.Systemctl(ctx, "show", "--property=ActiveState", "--value", "basic.target")
		if err == nil && state == "active" {
			return s, nil
		}
		select {
		case <-s.ended:
			return nil, fmt.Errorf("%s: systemd has ended: %s", node.Name(), s.Log())
		default:
		}
		if e := cri.Pause(ctx); e != nil {
			return nil, errors.Join(fmt.Errorf("%s: systemd: %w: %s %w: %s", node.Name(), e, state, err, s.Log()), s.Close())
		}
	}
}

// Log is what systemd has printed.
func (s *Systemd) Log() string {
	data, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// Systemctl runs systemctl. It has to have a pid that systemd can see, or it gets no answer.
func (s *Systemd) Systemctl(ctx context.Context, args ...string) (string, error) {
	return s.Inside(ctx, append([]string{"systemctl"}, args...)...)
}

// Inside runs a program in systemd's own namespaces, where a unit's pid is what systemctl says it is.
func (s *Systemd) Inside(ctx context.Context, argv ...string) (string, error) {
	enter := []string{"nsenter", "--target", fmt.Sprint(s.process.Process.Pid), "--mount", "--pid", "--"}
	out, err := s.Node.Output(ctx, append(enter, argv...)...)
	return strings.TrimSpace(string(out)), err
}

// Close ends systemd, and with it all that it has started.
func (s *Systemd) Close() error {
	err := s.process.Process.Kill()
	<-s.ended
	return err
}

func writeUnits(units map[string]string) error {
	all := map[string]string{}
	for _, target := range []string{"sysinit", "basic", "shutdown", "network-online", "multi-user"} {
		all[target+".target"] = "[Unit]\nDescription=" + target + "\nDefaultDependencies=no\n"
	}
	for name, text := range units {
		all[name] = text
	}
	for name, text := range all {
		path := filepath.Join(unitDir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// installPrograms covers /usr/local/bin, so that the machine's own stays as it is.
func installPrograms(programs []string) error {
	const dir = "/usr/local/bin"
	var contents []*os.File // read before they are covered
	for _, p := range programs {
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		contents = append(contents, f)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount a %s of the node's own: %w", dir, err)
	}
	for _, f := range contents {
		out, err := os.OpenFile(filepath.Join(dir, filepath.Base(f.Name())), os.O_CREATE|os.O_WRONLY, 0o755)
		if err != nil {
			return err
		}
		_, err = f.WriteTo(out)
		if err := errors.Join(err, out.Close()); err != nil {
			return err
		}
	}
	return nil
}
