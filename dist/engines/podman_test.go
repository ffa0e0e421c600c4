package engines

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/containerd"
	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/subnet"
)

// podmanNetwork is the name of the network in the configuration that install-cni writes.
const podmanNetwork = "cbr0"

// labConfig is what /etc/containers/containers.conf has to say on a machine of the lab, beside what Documentation/podman.md has:
// no journal runs here, and no D-Bus.
const labConfig = `[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
`

// podmanConfig is containers.conf for a Podman with CNI.
func podmanConfig(t *testing.T) string { return block(t, "## With CNI", "toml") + labConfig }

// block is the first block of code in that language after a heading of Documentation/podman.md.
func block(t *testing.T, heading, language string) string {
	t.Helper()
	text, err := os.ReadFile("../../Documentation/podman.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n"+heading+"\n")
	_, code, opened := strings.Cut(section, "\n```"+language+"\n")
	code, _, closed := strings.Cut(code, "\n```\n")
	if !found || !opened || !closed {
		t.Fatalf("Documentation/podman.md has no block of %s after %q", language, heading)
	}
	return code + "\n"
}

// TestPodman goes through the life of a node with Podman, so its parts are in an order and share the cluster.
func TestPodman(t *testing.T) {
	c, archive := newCluster(t, lab.Options{Families: []subnet.Family{subnet.IPv4, subnet.IPv6}})
	for _, m := range c.at {
		c.installPodman(t, m, podmanConfig(t))
		c.run(t, m, "podman", "load", "--quiet", "--input", archive)
	}
	t.Log(c.run(t, c.at[0], "podman", "version", "--format", "podman {{.Client.Version}}"))
	for _, part := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"NoSubnet", testPodmanNoSubnet},
		{"Network", testPodmanNetwork},
		{"Reach", testPodmanReach},
		{"Address", testPodmanAddress},
		{"Ports", testPodmanPorts},
		{"Pod", testPodmanPod},
		{"Connect", testPodmanConnect},
		{"Killed", testPodmanKilled},
		{"SelvagedRestarts", testPodmanSelvagedRestarts},
		{"Reboot", testPodmanReboot},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(t, c) }) {
			t.FailNow() // what follows builds on it
		}
	}
}

// installPodman makes the machine one with Podman: its configuration, the reference plugins, and none of the networks that
// the distribution comes with.
func (c *cluster) installPodman(t *testing.T, m *Machine, config string) {
	t.Helper()
	const plugins = "/opt/cni/bin"
	err := m.Node.Do(func() error {
		files, err := filepath.Glob("/etc/cni/net.d/*")
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := os.Remove(f); err != nil {
				return err
			}
		}
		for _, name := range []string{"bridge", "host-local", "portmap"} {
			program, err := os.ReadFile(filepath.Join(bin, "cni", name))
			if err := errors.Join(err, os.MkdirAll(plugins, 0o755), os.WriteFile(filepath.Join(plugins, name), program, 0o755)); err != nil {
				return err
			}
		}
		return errors.Join(os.MkdirAll("/etc/containers", 0o755), os.WriteFile("/etc/containers/containers.conf", []byte(config), 0o644))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// podman runs a container that serves.
func (c *cluster) podman(t *testing.T, m *Machine, name string, options ...string) *container {
	t.Helper()
	argv := append([]string{"podman", "run", "--detach", "--name", name}, options...)
	c.run(t, m, append(argv, containerd.Reference, "serve", fmt.Sprintf(":%d", port))...)
	return c.inspectPodman(t, m, name, name)
}

// inspectPodman reads a container's addresses. Of one in a pod, the pod's first container has them.
func (c *cluster) inspectPodman(t *testing.T, m *Machine, name, holder string) *container {
	t.Helper()
	const format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}} {{end}}"
	found := &container{at: m, cli: "podman", name: name}
	for _, s := range strings.Fields(c.run(t, m, "podman", "inspect", "--format", format, holder)) {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			t.Fatal(err)
		}
		found.addrs[subnet.FamilyOf(addr)] = addr
	}
	for _, f := range c.families {
		if own := c.subnet(t, m).Subnets[f].Masked(); !own.Contains(found.addrs[f]) {
			t.Fatalf("%s: container %s has %s, want an address of %s", m.Node.Name(), name, found.addrs[f], own)
		}
	}
	return found
}

// removePodman removes containers, and looks whether nothing of any is left.
func (c *cluster) removePodman(t *testing.T, containers ...*container) {
	t.Helper()
	for _, one := range containers {
		c.run(t, one.at, "podman", "rm", "--force", "--time", "0", one.name)
	}
	c.nothingLeft(t)
}

// kept are the directories where something is kept of each container, below which nothing is when none is there.
var kept = []string{"/var/lib/cni", "/run/selvage/cni", "/run/netns"}

// nothingLeft fails the test unless every machine is as it was before its first container.
func (c *cluster) nothingLeft(t *testing.T) {
	t.Helper()
	for _, m := range c.at {
		found := strings.Fields(c.run(t, m, "sh", "-c", "find "+strings.Join(kept, " ")+" -type f 2>/dev/null; ls /sys/class/net/cni0/brif 2>/dev/null; true"))
		found = slices.DeleteFunc(found, func(path string) bool { // host-local's and the network's own
			name := filepath.Base(path)
			return name == "lock" || strings.HasPrefix(name, "last_reserved_ip.")
		})
		if len(found) > 0 {
			t.Errorf("%s: left over: %q", m.Node.Name(), found)
		}
	}
}

// testPodmanNoSubnet starts a container before there is a subnet, as when a machine boots.
func testPodmanNoSubnet(t *testing.T, c *cluster) {
	for _, m := range c.at {
		c.startPodman(t, m)
	}
	m := c.at[0]
	c.run(t, m, "systemctl", "stop", "selvaged.service")
	c.run(t, m, "rm", "/run/flannel/subnet.env")
	_, err := m.Inside(c.ctx, "podman", "run", "--name", "early", containerd.Reference, "netns")
	if err == nil || !strings.Contains(err.Error(), "/run/flannel/subnet.env") {
		t.Errorf("a container without a subnet: %v", err)
	}
	c.run(t, m, "podman", "rm", "early")
	c.nothingLeft(t)
	c.run(t, m, "systemctl", "start", "selvaged.service")
}

// startPodman starts selvaged and puts plugin and configuration in place.
func (c *cluster) startPodman(t *testing.T, m *Machine) {
	t.Helper()
	c.run(t, m, "systemctl", "start", "selvaged.service")
	c.run(t, m, "selvaged", "install-cni", "--wait=1m")
}

// testPodmanNetwork looks at what Podman makes of the configuration.
func testPodmanNetwork(t *testing.T, c *cluster) {
	var networks []struct{ Name, Driver string }
	if err := json.Unmarshal([]byte(c.run(t, c.at[0], "podman", "network", "inspect", podmanNetwork)), &networks); err != nil {
		t.Fatal(err)
	}
	if len(networks) != 1 || networks[0].Name != podmanNetwork || networks[0].Driver != "selvage" {
		t.Errorf("podman network inspect: %+v", networks)
	}
	if list := c.run(t, c.at[0], "podman", "network", "ls", "--format", "{{.Name}}"); list != podmanNetwork {
		t.Errorf("podman network ls: %q", list)
	}
}

// testPodmanReach has containers of both machines ask each other, and the outside.
func testPodmanReach(t *testing.T, c *cluster) {
	var all []*container
	for i := range 4 {
		all = append(all, c.podman(t, c.at[i%2], fmt.Sprintf("reach%d", i)))
	}
	c.reach(t, all...)
	c.outward(t, all[0])
	link := c.run(t, c.at[0], "ip", "link", "show", "dev", "cni0")
	if mtu := c.subnet(t, c.at[0]).MTU; !strings.Contains(link, fmt.Sprintf(" mtu %d ", mtu)) {
		t.Errorf("cni0 does not have the overlay's MTU, %d:\n%s", mtu, link)
	}
	c.removePodman(t, all...)
}

// testPodmanAddress asks for an address, and a MAC address.
func testPodmanAddress(t *testing.T, c *cluster) {
	const mac = "92:d0:c6:0a:29:33"
	gateway := c.subnet(t, c.at[0]).Subnets[subnet.IPv4].Addr().As4()
	want := netip.AddrFrom4([4]byte{gateway[0], gateway[1], gateway[2], 77})
	one := c.podman(t, c.at[0], "fixed", "--ip", want.String(), "--mac-address", mac)
	if one.addrs[subnet.IPv4] != want {
		t.Errorf("the container has %s, want %s", one.addrs[subnet.IPv4], want)
	}
	if got := c.run(t, one.at, "podman", "inspect", "--format", "{{.NetworkSettings.MacAddress}}", one.name); got != mac {
		t.Errorf("the container has %s, want %s", got, mac)
	}
	other := c.podman(t, c.at[1], "other")
	c.reach(t, one, other)
	c.removePodman(t, one, other)
}

// testPodmanPorts reaches a container at its machine's address.
func testPodmanPorts(t *testing.T, c *cluster) {
	one := c.podman(t, c.at[0], "ports", "--publish", "8070:7070/tcp", "--publish", "8070:7070/udp")
	asking := c.podman(t, c.at[1], "asking")
	target := netip.AddrPortFrom(c.at[0].Node.Addr(subnet.IPv4), 8070)
	outside := c.lab.Outside()
	c.eventually(t, "the server's start", func() error {
		seen, err := c.askFrom(outside, target)
		if err == nil && seen != outside.Addr(subnet.IPv4) {
			t.Fatalf("the container saw %s, want %s", seen, outside.Addr(subnet.IPv4))
		}
		return err
	})
	c.asks(t, asking, target, c.at[1].Node.Addr(subnet.IPv4)) // a node is outside the overlay
	c.removePodman(t, one, asking)
	if seen, err := c.askFrom(outside, target); err == nil {
		t.Errorf("the port answers %s after the container is gone", seen)
	}
}

// testPodmanPod looks at what the containers of a pod share.
func testPodmanPod(t *testing.T, c *cluster) {
	m := c.at[0]
	c.run(t, m, "podman", "pod", "create", "--name", "group", "--infra-name", "holder",
		"--infra-image", containerd.Reference, "--infra-command", program+" pause")
	for name, args := range map[string][]string{"server": {"serve", fmt.Sprintf(":%d", port)}, "idle": {"pause"}} {
		c.run(t, m, append([]string{"podman", "run", "--detach", "--pod", "group", "--name", name, containerd.Reference}, args...)...)
	}
	server, idle := c.inspectPodman(t, m, "server", "holder"), c.inspectPodman(t, m, "idle", "holder")
	local := netip.MustParseAddr("127.0.0.1")
	c.asks(t, idle, netip.AddrPortFrom(local, port), local)
	if a, b := c.run(t, m, "podman", "exec", "server", program, "netns"), c.run(t, m, "podman", "exec", "idle", program, "netns"); a != b {
		t.Errorf("the containers are in %s and %s", a, b)
	}
	far := c.podman(t, c.at[1], "far")
	c.reach(t, server, far)
	c.reach(t, idle, far)
	c.run(t, m, "podman", "pod", "rm", "--force", "--time", "0", "group")
	c.removePodman(t, far)
}

// testPodmanConnect has a container leave the network and come back, and Podman set the network of all up again.
func testPodmanConnect(t *testing.T, c *cluster) {
	one, far := c.podman(t, c.at[0], "one"), c.podman(t, c.at[1], "far")
	c.run(t, one.at, "podman", "network", "reload", "--all")
	if again := c.inspectPodman(t, one.at, "one", "one"); again.addrs != one.addrs {
		t.Errorf("after the reload the container has %s, before it had %s", again.addrs, one.addrs)
	}
	c.reach(t, one, far)
	c.run(t, one.at, "podman", "network", "disconnect", podmanNetwork, one.name)
	c.run(t, one.at, "podman", "network", "connect", podmanNetwork, one.name)
	one = c.inspectPodman(t, one.at, "one", "one")
	c.reach(t, one, far)
	c.removePodman(t, one, far)
}

// kill kills conmon and what it looks after, as the kernel does when memory runs out.
func (c *cluster) kill(t *testing.T, victims ...*container) {
	t.Helper()
	for _, one := range victims {
		pids := c.run(t, one.at, "podman", "inspect", "--format", "{{.State.ConmonPid}} {{.State.Pid}}", one.name)
		c.run(t, one.at, "sh", "-c", "kill -KILL "+pids)
	}
}

// testPodmanKilled leaves nobody who would have called DEL.
func testPodmanKilled(t *testing.T, c *cluster) {
	dead, living, far := c.podman(t, c.at[0], "dead"), c.podman(t, c.at[0], "living"), c.podman(t, c.at[1], "far")
	c.kill(t, dead)
	c.reach(t, living, far)
	c.removePodman(t, dead, living, far)
}

// testPodmanSelvagedRestarts wants containers to go on.
func testPodmanSelvagedRestarts(t *testing.T, c *cluster) {
	here, there := c.podman(t, c.at[0], "here"), c.podman(t, c.at[1], "there")
	c.reach(t, here, there)
	c.run(t, here.at, "systemctl", "restart", "selvaged.service")
	c.reach(t, here, there)
	c.run(t, here.at, "systemctl", "stop", "selvaged.service")
	c.reach(t, here, there)
	c.run(t, here.at, "systemctl", "start", "selvaged.service")
	c.removePodman(t, here, there)
}

// testPodmanReboot has a machine lose power under containers: Podman forgets which network they had, and calls no DEL.
func testPodmanReboot(t *testing.T, c *cluster) {
	back, gone, far := c.podman(t, c.at[0], "back", "--restart", "always"), c.podman(t, c.at[0], "gone"), c.podman(t, c.at[1], "far")
	c.reach(t, back, gone, far)
	m := c.at[0]
	tmpfiles, err := filepath.Abs("../systemd/selvage-podman.tmpfiles")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Reboot(c.ctx); err != nil {
		t.Fatal(err)
	}
	c.installPodman(t, m, podmanConfig(t))
	c.run(t, m, "systemd-tmpfiles", "--boot", "--remove", "--create", tmpfiles)
	c.startPodman(t, m)
	c.run(t, m, "podman", "start", "--all", "--filter", "restart-policy=always") // as podman-restart.service does
	back = c.inspectPodman(t, m, back.name, back.name)
	c.reach(t, back, far)
	c.removePodman(t, back, gone, far)
}

// TestNetavark does what Documentation/podman.md says for a Podman without CNI.
func TestNetavark(t *testing.T) {
	c, archive := newCluster(t, lab.Options{})
	commands := block(t, "## With Netavark", "sh")
	network, rule, found := strings.Cut(commands, "\niptables ")
	if !found {
		t.Fatal("the commands have no rule as the last of them")
	}
	var all []*container
	for i, m := range c.at {
		c.installPodman(t, m, "[network]\nnetwork_backend = \"netavark\"\n"+labConfig)
		c.run(t, m, "podman", "load", "--quiet", "--input", archive)
		c.run(t, m, "systemctl", "start", "selvaged.service")
		c.run(t, m, "sh", "-ec", network)
		all = append(all, c.podman(t, m, fmt.Sprintf("netavark%d", i), "--network", "selvage", "--publish", "8070:7070/tcp", "--publish", "8070:7070/udp"))
	}
	// The rule is needed.
	target := netip.AddrPortFrom(all[1].addrs[subnet.IPv4], port)
	c.eventually(t, "an answer", func() error {
		seen, err := c.ask(all[0], target)
		if err == nil && seen == all[0].addrs[subnet.IPv4] {
			t.Errorf("%s saw the container's address, so Netavark did not masquerade", target)
		}
		return err
	})
	for _, m := range c.at {
		c.run(t, m, "sh", "-ec", ". /run/flannel/subnet.env; iptables "+rule)
	}
	c.reach(t, all...)
	c.outward(t, all[0])
	link := c.run(t, c.at[0], "ip", "link", "show", "dev", "selvage0")
	if mtu := c.subnet(t, c.at[0]).MTU; !strings.Contains(link, fmt.Sprintf(" mtu %d ", mtu)) {
		t.Errorf("selvage0 does not have the overlay's MTU, %d:\n%s", mtu, link)
	}
	outside := c.lab.Outside()
	published := netip.AddrPortFrom(c.at[0].Node.Addr(subnet.IPv4), 8070)
	if seen, err := c.askFrom(outside, published); err != nil || seen != outside.Addr(subnet.IPv4) {
		t.Errorf("%s saw %s, %v, want %s", published, seen, err, outside.Addr(subnet.IPv4))
	}
	if _, err := c.at[0].Inside(c.ctx, "sh", "-c", `. /run/flannel/subnet.env; podman network create --subnet "$FLANNEL_SUBNET" other`); err == nil {
		t.Error("podman network create takes the subnet, so there is no need for a file")
	}
}
