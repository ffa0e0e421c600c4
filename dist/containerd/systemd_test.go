package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/containerd/cri/critest"
	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// machine is a node that a systemd runs, with the units of dist/systemd.
type machine struct {
	*Systemd
	ctx   context.Context
	store lab.Store
}

// dockerd stands for Docker: it writes down its arguments, says that it is ready, and waits.
const dockerd = "#!/bin/sh\necho \"$@\" >/run/dockerd.args\nsystemd-notify --ready\nexec sleep 1000000\n"

// newMachine boots a machine with the daemon's unit and some of its drop-ins. It starts no daemon.
func newMachine(t *testing.T, dropins ...string) *machine {
	t.Helper()
	ctx := testctx.New(t)
	// iptables needs more than nftables does: a program to run, a raw socket, a lock.
	const config = `{"Network":"10.5.0.0/16","EnableNFTables":false,"Backend":{"Type":"vxlan"}}`
	l, err := lab.New(ctx, lab.Options{Nodes: 1, Bin: bin, Config: config})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	node := l.Nodes()[0]
	if err := node.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	const docker = "[Service]\nType=notify\nNotifyAccess=all\nExecStart=/usr/bin/dockerd -H fd://\n"
	units := map[string]string{
		"docker.service":                    docker,
		"selvaged.service.d/log.conf":       "[Service]\nStandardOutput=append:/run/selvaged.log\nStandardError=inherit\n",
		"docker.service.d/selvage.conf":     read(t, "../systemd/docker.service.d/selvage.conf"),
		"selvaged.service":                  read(t, "../systemd/selvaged.service"),
		"containerd.service.d/selvage.conf": read(t, "../systemd/containerd.service.d/selvage.conf"),
	}
	for _, name := range dropins {
		units["selvaged.service.d/"+name] = read(t, "../systemd/selvaged.service.d/"+name)
	}
	tmp := t.TempDir()
	fake := filepath.Join(tmp, "dockerd")
	if err := os.WriteFile(fake, []byte(dockerd), 0o755); err != nil {
		t.Fatal(err)
	}
	tmpfiles, err := filepath.Abs("../systemd/selvage.tmpfiles")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Boot(ctx, node, units, []string{filepath.Join(bin, "selvaged"), fake}, filepath.Join(tmp, "systemd.log"))
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{Systemd: s, ctx: ctx, store: l.Store()}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("systemd printed:\n%s\nselvaged printed:\n%s", s.Log(), m.printed())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	err = node.Do(func() error { // a machine that has just started, and forwards nothing
		env := "SELVAGED_ETCD_ENDPOINTS=" + strings.Join(l.Etcd().Endpoints(), ",") + "\nFLANNELD_IP_MASQ=true\n"
		return errors.Join(os.MkdirAll("/etc/selvage", 0o755), os.WriteFile("/etc/selvage/selvaged.env", []byte(env), 0o600),
			os.RemoveAll("/run/flannel"), os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := node.Output(ctx, "systemd-tmpfiles", "--create", tmpfiles); err != nil {
		t.Fatal(err)
	}
	return m
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// printed is what the daemon has printed in all its runs.
func (m *machine) printed() string {
	data, err := m.Node.ReadFile("/run/selvaged.log")
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func (m *machine) systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := m.Systemctl(m.ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (m *machine) eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	critest.Eventually(m.ctx, t, what, check)
}

// forwards says whether the node forwards IPv4.
func (m *machine) forwards() error {
	value, err := m.Node.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err == nil && strings.TrimSpace(string(value)) != "1" {
		err = errors.New("the node does not forward")
	}
	return err
}

// TestSystemd runs the daemon under a real systemd, by the unit as it is, and looks whether it can do its work with what is
// left to it.
func TestSystemd(t *testing.T) {
	m := newMachine(t)
	m.systemctl(t, "start", "selvaged.service") // returns when the daemon has said READY=1
	file, err := m.Node.Subnet()
	if err != nil {
		t.Fatal(err)
	}
	if !file.IPMasq {
		t.Error("the flags of the environment file were not taken")
	}
	if err := m.forwards(); err != nil {
		t.Error(err)
	}
	rules, err := m.Node.Output(m.ctx, "iptables", "-t", "nat", "-S")
	if err != nil || !strings.Contains(string(rules), "MASQUERADE") {
		t.Errorf("the rules are not set: %v\n%s", err, rules)
	}
	if log := m.printed(); strings.Contains(log, "level=error") {
		t.Errorf("the daemon complains:\n%s", log)
	}
	pid := m.systemctl(t, "show", "--property=MainPID", "--value", "selvaged.service")
	status, err := m.Inside(m.ctx, "cat", "/proc/"+pid+"/status")
	if err != nil {
		t.Fatal(err)
	}
	const netAdminAndRaw = "0000000000003000"
	for name, want := range map[string]string{
		"CapBnd": netAdminAndRaw, "CapPrm": netAdminAndRaw, "CapEff": netAdminAndRaw, "CapAmb": "0000000000000000",
		"NoNewPrivs": "1", "Seccomp": "2",
	} {
		got := regexp.MustCompile(`(?m)^` + name + `:\s*(\S+)$`).FindStringSubmatch(status)
		if len(got) != 2 || got[1] != want {
			t.Errorf("%s of the daemon is %q, want %s", name, got, want)
		}
	}

	// The lock of iptables is the host's.
	own, err := m.Inside(m.ctx, "nsenter", "--target", pid, "--mount", "--", "sh", "-c",
		"test -w /run/xtables.lock && test -w /run/flannel && ! test -w /etc && stat -c %i /run/xtables.lock")
	if err != nil {
		t.Errorf("what the daemon may write is not as it should be: %v", err)
	}
	if host, err := m.Node.Output(m.ctx, "stat", "-c", "%i", "/run/xtables.lock"); err != nil || strings.TrimSpace(string(host)) != own {
		t.Errorf("the lock is inode %s for the daemon, and %s for the host, %v", own, host, err)
	}

	// What the unit takes away is not what repair needs.
	err = m.Node.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0) })
	if err != nil {
		t.Fatal(err)
	}
	m.eventually(t, "forwarding", m.forwards)

	// A stop leaves the subnet file, and a crash ends in a new start.
	m.systemctl(t, "stop", "selvaged.service")
	if after, err := m.Node.Subnet(); err != nil || fmt.Sprint(after) != fmt.Sprint(file) {
		t.Errorf("after a stop the subnet file is %v, %v, was %v", after, err, file)
	}
	m.systemctl(t, "start", "selvaged.service")
	m.systemctl(t, "kill", "--signal=KILL", "selvaged.service")
	m.eventually(t, "the new start", func() error {
		state := m.systemctl(t, "show", "--property=ActiveState,NRestarts", "--value", "selvaged.service")
		if state != "1\nactive" && state != "active\n1" {
			return fmt.Errorf("the unit is %q", state)
		}
		return nil
	})

	// Docker's drop-in starts the daemon and reads what it wrote.
	m.systemctl(t, "stop", "selvaged.service")
	m.systemctl(t, "start", "docker.service")
	args, err := m.Node.ReadFile("/run/dockerd.args")
	want := fmt.Sprintf("--bip=%s --mtu=%d --ip-masq=false", file.Subnets[subnet.IPv4], file.MTU)
	if err != nil || !strings.Contains(string(args), want) {
		t.Errorf("Docker was started with %q, %v, want %q", args, err, want)
	}
	if state := m.systemctl(t, "show", "--property=ActiveState", "--value", "selvaged.service"); state != "active" {
		t.Errorf("with Docker the daemon is %s", state)
	}
}
