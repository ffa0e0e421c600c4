package debian

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/containerd"
	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/dist/release"
	"github.com/selvage-net/selvage/subnet"
)

// bin is where make build, make tools and make bin/debian-systemd.tar put what they make.
const bin = "../../bin"

func TestMain(m *testing.M) { os.Exit(sandbox.Options{Outside: containerd.Cgroups}.Run(m.Run)) }

// packages builds the package of the programs in bin in two versions, with different defaults in the configuration.
func packages(t *testing.T) (paths []string) {
	t.Helper()
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	generated, err := release.Generate(filepath.Join(bin, "selvaged"), "v1.0.0", created)
	if err != nil {
		t.Fatal(err)
	}
	in := release.Input{Repository: "../..", Binaries: bin, Generated: generated}
	content, err := release.Package(release.Deb, in)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, version := range []string{"1.0.0", "1.0.1"} {
		for i := range content {
			if content[i].Config {
				content[i].Data = append(content[i].Data, "# default "+version+"\n"...)
			}
		}
		name, data, err := release.Build(release.Spec{Format: release.Deb, Arch: "all", Version: version,
			Repository: "../..", Temporary: dir, Compression: "gzip:1", Created: created}, content)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, filepath.Join(dir, name))
		if err := os.WriteFile(paths[len(paths)-1], data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// system is the Debian on node1, and the pod on node2 that its pod talks to.
type system struct {
	*Machine
	ctx  context.Context
	etcd string
	peer string // address of the pod on node2
}

func newSystem(t *testing.T) *system {
	t.Helper()
	ctx := testctx.New(t)
	root := t.TempDir()
	if out, err := exec.Command("tar", "-C", root, "-xf", bin+"/debian-systemd.tar").CombinedOutput(); err != nil {
		t.Fatalf("unpack bin/debian-systemd.tar, which make e2e-debian makes: %v\n%s", err, out)
	}
	const config = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`
	l, err := lab.New(ctx, lab.Options{Nodes: 2, Bin: bin, Config: config})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	node := l.Nodes()[0]
	if err := node.Stop(ctx); err != nil { // what it has set up would hide what the package does not
		t.Fatal(err)
	}
	if _, err := node.Output(ctx, filepath.Join(bin, "selvaged"), "cleanup", "--all"); err != nil {
		t.Fatal(err)
	}
	pod, err := l.AddPod(ctx, l.Nodes()[1], "peer")
	if err != nil {
		t.Fatal(err)
	}
	m, err := Boot(ctx, node, root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &system{
		Machine: m, ctx: ctx, etcd: strings.Join(l.Etcd().Endpoints(), ","), peer: pod.Addr(subnet.IPv4).String(),
	}
	t.Cleanup(func() {
		if t.Failed() {
			journal, err := m.Run(testctx.New(t), "journalctl", "--no-pager", "--unit=selvaged.service")
			t.Logf("the journal: %v\n%s", err, journal)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// run runs a program on the machine, which must succeed.
func (s *system) run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := s.Run(s.ctx, argv...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// copyIn copies a file to /tmp.
func (s *system) copyIn(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	to := "/tmp/" + filepath.Base(path)
	if err := os.WriteFile(s.Path(to), data, 0o755); err != nil {
		t.Fatal(err)
	}
	return to
}

// apt runs apt-get, which asks nothing, and returns what it prints.
func (s *system) apt(t *testing.T, args ...string) string {
	t.Helper()
	return s.run(t, "sh", "-c", "apt-get --yes -o Dpkg::Options::=--force-confdef "+strings.Join(args, " ")+" 2>&1")
}

// state is what a purge must leave as it was: links, routes, rules, and every file, but for those that Debian itself
// writes, the lock of iptables, and what the reference plugins keep about pods that were not drained.
func (s *system) state(t *testing.T) []string {
	t.Helper()
	const files = `find / -xdev \( -path /var/log -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg ` +
		`-o -path /var/lib/systemd -o -path /tmp -o -path /var/tmp -o -path /var/lib/cni \) -prune -o -print; ` +
		`find /run -xdev \( -path /run/systemd -o -path /run/xtables.lock \) -prune -o -print`
	all := s.run(t, "sh", "-c", files)
	for _, argv := range [][]string{
		{"ip", "-o", "link", "show"}, {"ip", "route", "show", "table", "all"}, {"ip", "rule"},
		{"nft", "list", "ruleset"},
	} {
		out, err := s.Node.Output(s.ctx, argv...)
		if err != nil {
			t.Fatal(err)
		}
		all += "\n" + string(out)
	}
	return strings.Split(all, "\n")
}

// ping has the pod ping the one on node2 until stop is called, which returns how many packets were sent and answered.
func (s *system) ping(t *testing.T) (stop func() (sent, answered int)) {
	t.Helper()
	s.run(t, "ip", "netns", "exec", "pod", "ping", "-c", "1", s.peer)
	s.run(t, "systemd-run", "--unit=ping", "--property=StandardOutput=truncate:/tmp/ping",
		"ip", "netns", "exec", "pod", "ping", "-i", "0.01", s.peer)
	return func() (sent, answered int) {
		s.run(t, "systemctl", "kill", "--signal=INT", "ping.service")
		testctx.Eventually(t, func() string {
			out := s.run(t, "cat", "/tmp/ping")
			m := regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`).FindStringSubmatch(out)
			if m == nil {
				return "the count of ping"
			}
			fmt.Sscan(m[1], &sent)
			fmt.Sscan(m[2], &answered)
			return ""
		})
		return sent, answered
	}
}

// noLoss stops a ping. One packet may be under way.
func noLoss(t *testing.T, what string, stop func() (sent, answered int)) {
	t.Helper()
	sent, answered := stop()
	if sent-answered > 1 || answered < 10 {
		t.Errorf("%s: of %d packets %d were answered", what, sent, answered)
	}
	t.Logf("%s: of %d packets %d were answered", what, sent, answered)
}

// active waits until the daemon is active with another pid than before, and returns its pid.
func (s *system) active(t *testing.T, before string) (pid string) {
	t.Helper()
	testctx.Eventually(t, func() string {
		out := s.run(t, "systemctl", "show", "--property=ActiveState,MainPID", "selvaged.service")
		m := regexp.MustCompile(`(?s)^MainPID=([1-9]\d*)\nActiveState=active$`).FindStringSubmatch(out)
		if m == nil || m[1] == before {
			return "an active daemon: " + out
		}
		pid = m[1]
		return ""
	})
	return pid
}

func (s *system) exists(path string) bool {
	_, err := os.Lstat(s.Path(path))
	return !errors.Is(err, os.ErrNotExist)
}

// TestDebian goes through the life of a package on a machine.
func TestDebian(t *testing.T) {
	debs := packages(t)
	s := newSystem(t)
	// What other software on such a machine makes.
	s.run(t, "mkdir", "-p", "/etc/cni/net.d")
	s.run(t, "ip", "netns", "add", "other")
	before := s.state(t)

	// An installation does not start the daemon: it does not know the lease store.
	installed := s.apt(t, "install", s.copyIn(t, debs[0]))
	if !strings.Contains(installed, "selvaged setup") {
		t.Errorf("the installation does not say what to do next:\n%s", installed)
	}
	state := s.run(t, "sh", "-c", "systemctl is-active selvaged; systemctl is-enabled selvaged; :")
	if state != "inactive\ndisabled" {
		t.Fatalf("after the installation the unit is %q", state)
	}
	if !s.exists("/run/xtables.lock") {
		t.Error("the lock of iptables was not created")
	}

	// Documentation/packages.md.
	setup := []string{"selvaged", "setup", "--etcd-endpoints=" + s.etcd, "--network=10.5.0.0/16"}
	t.Log(s.run(t, setup...))
	s.run(t, "selvaged", "status")
	pid := s.active(t, "")
	if out := s.run(t, setup...); !strings.Contains(out, "daemon: ran already") || s.active(t, "") != pid {
		t.Errorf("set up again, the daemon was restarted:\n%s", out)
	}

	// A pod, by the plugins and the network configuration that are installed now.
	cnitool := s.copyIn(t, bin+"/cnitool")
	cni := []string{"env", "CNI_PATH=/opt/cni/bin", "NETCONFPATH=/etc/cni/net.d", cnitool}
	s.run(t, "ip", "netns", "add", "pod")
	s.run(t, append(slices.Clone(cni), "add", "cbr0", "/run/netns/pod")...)

	// An upgrade keeps the data path and a configuration that was edited.
	stop := s.ping(t)
	s.apt(t, "install", s.copyIn(t, debs[1]))
	pid = s.active(t, pid)
	noLoss(t, "upgrade", stop)
	if out := s.run(t, "dpkg-query", "--show", "--showformat=${Version}", "selvage"); out != "1.0.1-1" {
		t.Errorf("the version is %q after the upgrade", out)
	}
	if env := s.run(t, "cat", "/etc/selvage/selvaged.env"); !strings.Contains(env, s.etcd) {
		t.Errorf("the upgrade replaced the configuration:\n%s", env)
	}

	// A removal keeps the data path of pods that run.
	stop = s.ping(t)
	s.apt(t, "remove", "selvage")
	noLoss(t, "removal", stop)
	for _, path := range []string{"/etc/cni/net.d/10-selvage.conflist", "/opt/cni/bin/selvage", "/usr/bin/selvaged",
		"/opt/cni/bin/bridge", "/etc/systemd/system/multi-user.target.wants/selvaged.service", "/proc/" + pid} {
		if s.exists(path) {
			t.Errorf("after the removal, %s is there", path)
		}
	}

	// A purge leaves nothing.
	s.run(t, "ip", "netns", "delete", "pod")
	testctx.Eventually(t, func() string { // the kernel removes what was in the namespace later
		if ports, err := os.ReadDir(s.Path("/sys/class/net/cni0/brif")); err != nil || len(ports) > 0 {
			return fmt.Sprintf("a bridge without ports: %v, %v", ports, err)
		}
		return ""
	})
	purged := s.apt(t, "purge", "selvage")
	after := s.state(t)
	for _, line := range after {
		if !slices.Contains(before, line) {
			t.Errorf("the purge left %q", line)
		}
	}
	for _, line := range before {
		if !slices.Contains(after, line) {
			t.Errorf("%q is gone or has changed", line)
		}
	}
	if t.Failed() {
		t.Logf("dpkg printed:\n%s", purged)
	}
}
