package engines

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/containerd"
	"github.com/selvage-net/selvage/dist/lab"
)

// Machine is a node of the lab that systemd runs.
type Machine struct {
	*containerd.Systemd
	etcd     []string // endpoints
	units    map[string]string
	programs []string
	log      string   // file with what systemd prints
	logs     []string // of its units, on the node
}

// unitDir is where [containerd.Boot] has the units.
const unitDir = "/run/units"

// systemUnits is where the distribution has them.
const systemUnits = "/lib/systemd/system"

// Boot has systemd run a node. The units are: selvaged.service of dist/systemd, and those named, which the distribution
// has. None is started. The lab's own daemon on the node ends. bin is the directory of selvaged and selvage, log a file for
// what systemd prints.
func Boot(ctx context.Context, l *lab.Lab, node *lab.Node, bin, log string, names ...string) (*Machine, error) {
	if err := node.Stop(ctx); err != nil {
		return nil, err
	}
	m := &Machine{
		etcd: l.Etcd().Endpoints(), units: map[string]string{}, log: log,
		programs: []string{filepath.Join(bin, "selvaged"), filepath.Join(bin, "selvage")},
	}
	paths := []string{"../systemd/selvaged.service"}
	for _, name := range names {
		paths = append(paths, filepath.Join(systemUnits, name))
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		name := filepath.Base(path)
		m.units[name] = string(text)
		if service, is := strings.CutSuffix(name, ".service"); is {
			m.logs = append(m.logs, "/run/"+service+".log")
			m.units[name+".d/log.conf"] = "[Service]\nStandardOutput=append:/run/" + service + ".log\nStandardError=inherit\n"
		}
	}
	return m, m.boot(ctx, node)
}

func (m *Machine) boot(ctx context.Context, node *lab.Node) error {
	if err := enterCgroup(node.Name()); err != nil {
		return err
	}
	systemd, err := containerd.Boot(ctx, node, m.units, m.programs, m.log)
	if err != nil {
		return err
	}
	m.Systemd = systemd
	_, shared := m.Inside(ctx, "mount", "-t", "tmpfs", "tmpfs", "/dev/shm") // Podman keeps locks there
	if err := errors.Join(shared, m.showHierarchies(ctx), m.configure(ctx)); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", node.Name(), err), m.Close())
	}
	return nil
}

// Reboot ends every process at once and boots again. As on any machine, /var/lib and /etc stay, and of /run and of the links
// nothing that engines made.
func (m *Machine) Reboot(ctx context.Context) error {
	node := m.Node
	if err := m.Close(); err != nil {
		return err
	}
	err := node.Do(func() error {
		var errs []error
		for _, dir := range []string{"/sys", "/etc", "/opt", "/usr/local/bin"} { // containerd.Boot mounts them anew
			errs = append(errs, os.NewSyscallError("umount", unix.Unmount(dir, unix.MNT_DETACH)))
		}
		for _, dir := range []string{"/run/containers", "/run/libpod", "/run/crun", "/run/selvage", "/run/netns"} {
			errs = append(errs, os.RemoveAll(dir))
		}
		for _, name := range []string{"cni0", "docker0"} {
			link, err := netlink.LinkByName(name)
			if err == nil {
				errs = append(errs, netlink.LinkDel(link))
			}
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", node.Name(), err)
	}
	return m.boot(ctx, node)
}

// configure makes the node one that has just started: it forwards nothing and has no subnet. selvaged looks at the rules more
// often than by default, since of the legacy iptables the kernel tells nobody anything.
func (m *Machine) configure(ctx context.Context) error {
	tmpfiles, err := filepath.Abs("../systemd/selvage.tmpfiles")
	if err != nil {
		return err
	}
	err = m.Node.Do(func() error {
		env := "SELVAGED_ETCD_ENDPOINTS=" + strings.Join(m.etcd, ",") + "\nSELVAGED_NODE_NAME=" + m.Node.Name() +
			"\nSELVAGED_IP_MASQ=true\nSELVAGED_IPTABLES_RESYNC=1\n"
		return errors.Join(os.MkdirAll("/etc/selvage", 0o755), os.WriteFile("/etc/selvage/selvaged.env", []byte(env), 0o600),
			os.RemoveAll("/run/flannel"), os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0))
	})
	if err != nil {
		return err
	}
	_, err = m.Node.Output(ctx, "systemd-tmpfiles", "--create", tmpfiles)
	return err
}

// Install puts a file of dist/systemd where the units are, and has systemd read it.
func (m *Machine) Install(ctx context.Context, name string) error {
	text, err := os.ReadFile(filepath.Join("../systemd", name))
	if err != nil {
		return err
	}
	path := filepath.Join(unitDir, name)
	err = m.Node.Do(func() error {
		return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, text, 0o644))
	})
	if err == nil {
		_, err = m.Systemctl(ctx, "daemon-reload")
	}
	if err != nil {
		return fmt.Errorf("%s: install %s: %w", m.Node.Name(), name, err)
	}
	return nil
}

// Printed is the end of what systemd and its units have printed.
func (m *Machine) Printed() string {
	all := m.Log()
	for _, log := range m.logs {
		data, err := m.Node.ReadFile(log)
		if err != nil {
			continue // the unit did not start
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		all += "\n" + log + ":\n" + strings.Join(lines[max(0, len(lines)-20):], "\n")
	}
	return m.Node.Name() + ": " + all
}
