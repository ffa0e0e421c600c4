package engines

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/containerd"
	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

var engine = flag.String("docker", "", "directory of a dockerd, its docker-proxy and a runc; default: found by PATH")

// dropIn is what an administrator installs, and dockerUnits what the distribution has.
const dropIn = "docker.service.d/selvage.conf"

func dockerUnits() []string { return []string{"docker.service", "docker.socket", "containerd.service"} }

// TestDocker goes through the life of a node with Docker, so its parts are in an order and share the cluster.
func TestDocker(t *testing.T) {
	c, archive := newCluster(t, lab.Options{Families: []subnet.Family{subnet.IPv4, subnet.IPv6}}, dockerUnits()...)
	for _, m := range c.at {
		c.startDocker(t, m, archive)
	}
	t.Log(c.run(t, c.at[0], "docker", "version", "--format", "client {{.Client.Version}}, server {{.Server.Version}}"))
	for _, part := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"Bridge", testDockerBridge},
		{"Reach", testDockerReach},
		{"Outward", testDockerOutward},
		{"Ports", testDockerPorts},
		{"SelvagedRestarts", testDockerSelvagedRestarts},
		{"DockerRestarts", testDockerRestarts},
		{"ByHand", testDockerByHand},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(t, c) }) {
			t.FailNow() // what follows builds on it
		}
	}
}

// startDocker installs the drop-in and starts Docker, and what the drop-in asks for with it.
func (c *cluster) startDocker(t *testing.T, m *Machine, archive string) {
	t.Helper()
	c.installDocker(t, m)
	if err := m.Install(c.ctx, dropIn); err != nil {
		t.Fatal(err)
	}
	c.run(t, m, "systemctl", "restart", "docker.service")
	c.run(t, m, "docker", "load", "--quiet", "--input", archive)
}

// installDocker puts another Docker than the machine's in its place. Its runc may come without seccomp, which needs a library,
// and it is to take the machine's docker, which may be an older one.
func (c *cluster) installDocker(t *testing.T, m *Machine) {
	t.Helper()
	if *engine == "" {
		return
	}
	const path = "/usr/local/bin/"
	err := m.Node.Do(func() error {
		return errors.Join(os.MkdirAll("/etc/docker", 0o755), os.WriteFile("/etc/docker/daemon.json", []byte(`{"seccomp-profile":"unconfined","min-api-version":"1.24"}`), 0o644))
	})
	if err != nil {
		t.Fatal(err)
	}
	c.run(t, m, "sh", "-c", "cp "+*engine+"/* "+path)
}

// docker runs a container that serves, unless it is told to do something else.
func (c *cluster) docker(t *testing.T, m *Machine, name string, options ...string) *container {
	t.Helper()
	argv := append([]string{"docker", "run", "--detach", "--name", name}, options...)
	c.run(t, m, append(argv, containerd.Reference, "serve", fmt.Sprintf(":%d", port))...)
	return c.inspectDocker(t, m, name)
}

func (c *cluster) inspectDocker(t *testing.T, m *Machine, name string) *container {
	t.Helper()
	const format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}"
	found := &container{at: m, cli: "docker", name: name}
	for _, s := range strings.Fields(c.run(t, m, "docker", "inspect", "--format", format, name)) {
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

func (c *cluster) removeDocker(t *testing.T, containers ...*container) {
	t.Helper()
	for _, one := range containers {
		c.run(t, one.at, "docker", "rm", "--force", one.name)
	}
}

// testDockerBridge looks at what the drop-in's flags have made.
func testDockerBridge(t *testing.T, c *cluster) {
	m := c.at[0]
	one := c.docker(t, m, "bridge")
	file := c.subnet(t, m)
	bridge := c.run(t, m, "ip", "addr", "show", "dev", "docker0")
	for _, f := range c.families {
		if !strings.Contains(bridge, " "+file.Subnets[f].String()+" ") {
			t.Errorf("docker0 does not have %s:\n%s", file.Subnets[f], bridge)
		}
	}
	mtu := fmt.Sprintf(" mtu %d ", file.MTU)
	if !strings.Contains(bridge, mtu) {
		t.Errorf("docker0 does not have the overlay's MTU, %d:\n%s", file.MTU, bridge)
	}
	pid := c.run(t, m, "docker", "inspect", "--format", "{{.State.Pid}}", one.name)
	if link := c.run(t, m, "nsenter", "--target", pid, "--net", "ip", "link", "show", "dev", "eth0"); !strings.Contains(link, mtu) {
		t.Errorf("the container does not have the overlay's MTU, %d:\n%s", file.MTU, link)
	}
	c.removeDocker(t, one)
}

// testDockerReach has containers of both machines ask each other.
func testDockerReach(t *testing.T, c *cluster) {
	var all []*container
	for i := range 4 {
		all = append(all, c.docker(t, c.at[i%2], fmt.Sprintf("reach%d", i)))
	}
	c.reach(t, all...)
	c.removeDocker(t, all...)
}

// testDockerOutward looks at who masquerades, which is to be one of the two.
func testDockerOutward(t *testing.T, c *cluster) {
	one := c.docker(t, c.at[0], "outward")
	c.outward(t, one)
	rules := c.run(t, c.at[0], "iptables", "--table", "nat", "--list-rules")
	if !strings.Contains(rules, "-N DOCKER") || strings.Contains(rules, "MASQUERADE") {
		t.Errorf("want Docker's rules without MASQUERADE, which is selvaged's to do:\n%s", rules)
	}
	c.removeDocker(t, one)
}

// testDockerPorts reaches a container at its machine's address.
func testDockerPorts(t *testing.T, c *cluster) {
	one := c.docker(t, c.at[0], "ports", "--publish", "8070:7070/tcp", "--publish", "8070:7070/udp")
	asking := c.docker(t, c.at[1], "asking")
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
	c.removeDocker(t, one, asking)
	if seen, err := c.askFrom(outside, target); err == nil {
		t.Errorf("the port answers %s after the container is gone", seen)
	}
}

// state says which run of the container and of Docker it is.
func (c *cluster) dockerState(t *testing.T, of *container) string {
	t.Helper()
	return c.run(t, of.at, "docker", "inspect", "--format", "{{.State.Status}} {{.State.Pid}} {{.State.StartedAt}}", of.name) + " " +
		c.run(t, of.at, "systemctl", "show", "--property=MainPID", "--value", "docker.service")
}

// testDockerSelvagedRestarts wants containers to go on, and Docker, whatever happens to selvaged.
func testDockerSelvagedRestarts(t *testing.T, c *cluster) {
	here, there := c.docker(t, c.at[0], "here"), c.docker(t, c.at[1], "there")
	c.reach(t, here, there)
	before := c.dockerState(t, here)
	for _, argv := range [][]string{
		{"systemctl", "restart", "selvaged.service"},
		{"systemctl", "kill", "--signal=KILL", "selvaged.service"},
		{"systemctl", "stop", "selvaged.service"},
	} {
		const property = "--property=MainPID"
		pid := c.run(t, here.at, "systemctl", "show", property, "selvaged.service")
		c.run(t, here.at, argv...)
		if argv[1] != "stop" {
			c.eventually(t, "the new start", func() error {
				if now := c.run(t, here.at, "systemctl", "show", property, "selvaged.service"); now == pid {
					return fmt.Errorf("%s has not ended", pid)
				}
				_, err := here.at.Inside(c.ctx, "systemctl", "is-active", "--quiet", "selvaged.service")
				return err
			})
		}
		c.reach(t, here, there)
		if after := c.dockerState(t, here); after != before {
			t.Errorf("%s: the container and Docker are %s, before they were %s", strings.Join(argv, " "), after, before)
		}
	}
	c.run(t, here.at, "systemctl", "start", "selvaged.service")
	c.reach(t, here, there)
	c.outward(t, here)
	c.removeDocker(t, here, there)
}

// testDockerRestarts restarts Docker, which ends containers and starts those anew that are to be.
func testDockerRestarts(t *testing.T, c *cluster) {
	here := c.docker(t, c.at[0], "here", "--restart", "always", "--publish", "8070:7070/tcp", "--publish", "8070:7070/udp")
	there := c.docker(t, c.at[1], "there")
	before := c.dockerState(t, here)
	c.run(t, here.at, "systemctl", "restart", "docker.service")
	if after := c.dockerState(t, here); after == before {
		t.Fatalf("nothing was restarted: %s", after)
	}
	again := c.inspectDocker(t, here.at, here.name)
	c.reach(t, again, there)
	c.outward(t, again)
	if _, err := c.askFrom(c.lab.Outside(), netip.AddrPortFrom(here.at.Node.Addr(subnet.IPv4), 8070)); err != nil {
		t.Error(err)
	}
	c.removeDocker(t, again, there)
}

// TestDockerDrops has Docker run before selvage comes to the machine. As it then switches forwarding on itself, it also
// drops all that it does not know in FORWARD, and leaves it so when it is restarted.
func TestDockerDrops(t *testing.T) {
	for _, variant := range []string{"nft", "legacy"} {
		for _, nftables := range []lab.NFTables{lab.NodesChoose, lab.NFTablesOn, lab.NFTablesOff} {
			t.Run(fmt.Sprintf("%s/EnableNFTables=%s", variant, nftables), func(t *testing.T) { testDrops(t, variant, nftables) })
		}
	}
}

func testDrops(t *testing.T, variant string, nftables lab.NFTables) {
	families := []subnet.Family{subnet.IPv4}
	c, archive := newCluster(t, lab.Options{IPTables: variant, Config: lab.NetworkConfig(families, "", nftables), Families: families}, dockerUnits()...)
	for _, m := range c.at {
		c.run(t, m, "systemctl", "start", "docker.service")
		c.drops(t, m)
		c.startDocker(t, m, archive)
		c.drops(t, m)
	}
	here, there := c.docker(t, c.at[0], "here", "--restart", "always"), c.docker(t, c.at[1], "there", "--restart", "always")
	c.reach(t, here, there)
	c.outward(t, here)

	// Without what the drop-in does about it, it is as Documentation/packet-filter.md says.
	for _, m := range c.at {
		c.run(t, m, "iptables", "--delete", "DOCKER-USER", "--source", "10.5.0.0/16", "--destination", "10.5.0.0/16", "--jump", "ACCEPT")
	}
	if nftables == lab.NFTablesOn {
		c.obey(t, here, there)
	}
	c.reach(t, here, there)
	c.outward(t, here)

	for range 2 {
		for _, m := range c.at {
			c.run(t, m, "systemctl", "restart", "docker.service")
		}
	}
	rules := c.run(t, here.at, "iptables", "--list-rules", "DOCKER-USER")
	if n := strings.Count(rules, "-s 10.5.0.0/16 -d 10.5.0.0/16 -j ACCEPT"); n != 1 {
		t.Errorf("the drop-in's rule is there %d times:\n%s", n, rules)
	}
	here, there = c.inspectDocker(t, here.at, here.name), c.inspectDocker(t, there.at, there.name)
	c.reach(t, here, there)
	c.outward(t, here)
}

// drops makes sure that Docker has set the policy.
func (c *cluster) drops(t *testing.T, m *Machine) {
	t.Helper()
	if rules := c.run(t, m, "iptables", "--list-rules", "FORWARD"); !strings.Contains(rules, "-P FORWARD DROP") {
		t.Fatalf("Docker does not drop:\n%s", rules)
	}
}

// obey makes sure that selvaged sees what it cannot undo, and does on each machine what it says.
func (c *cluster) obey(t *testing.T, here, there *container) {
	t.Helper()
	if seen, err := c.ask(here, netip.AddrPortFrom(there.addrs[subnet.IPv4], port)); err == nil {
		t.Fatalf("with nftables nothing undoes Docker's policy, and yet %s saw %s", there.name, seen)
	}
	for _, m := range c.at {
		var advice []string
		c.eventually(t, "selvaged's complaint", func() error {
			out, err := m.Inside(c.ctx, "selvaged", "status", "-o", "json")
			if err == nil {
				return fmt.Errorf("selvaged reports no problem:\n%s", out)
			}
			var now status.Status
			if err := json.Unmarshal([]byte(out), &now); err != nil {
				return fmt.Errorf("selvaged status -o json: %w:\n%s", err, out)
			}
			advice = nil
			for _, drop := range now.Filter.Drops {
				advice = append(advice, drop.Commands...)
			}
			slices.Sort(advice)
			if advice = slices.Compact(advice); now.State != status.Degraded || len(advice) != 2 {
				return fmt.Errorf("the node is %s and is advised %q, want degraded and two commands:\n%s", now.State, advice, out)
			}
			return nil
		})
		for _, command := range advice {
			c.run(t, m, "sh", "-c", command)
		}
		c.eventually(t, "its end", func() error { _, err := m.Inside(c.ctx, "selvaged", "status"); return err })
	}
}

// TestDockerWaits has Docker start while selvaged cannot. It is to wait for the subnet file, and neither to choose a subnet of
// its own nor to give up.
func TestDockerWaits(t *testing.T) {
	c, _ := newCluster(t, lab.Options{}, dockerUnits()...)
	m := c.at[0]
	const file = "/etc/selvage/selvaged.env"
	right, err := m.Node.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	set := func(env []byte) {
		if err := m.Node.Do(func() error { return os.WriteFile(file, env, 0o600) }); err != nil {
			t.Fatal(err)
		}
	}
	set(append(right, "SELVAGED_ETCD_KEYFILE=/nowhere\n"...))
	if err := m.Install(c.ctx, dropIn); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Inside(c.ctx, "systemctl", "start", "docker.service"); err == nil {
		t.Error("Docker was started without a subnet")
	}
	c.eventually(t, "more starts than systemd allows in a minute by default", func() error {
		starts := c.run(t, m, "systemctl", "show", "--property=NRestarts", "--value", "docker.service")
		if n, err := strconv.Atoi(starts); err != nil || n < 6 {
			return fmt.Errorf("there were %q, %v", starts, err)
		}
		return nil
	})
	if _, err := m.Inside(c.ctx, "ip", "link", "show", "dev", "docker0"); err == nil {
		t.Error("there is a bridge before there is a subnet")
	}
	set(right)
	c.eventually(t, "Docker's start", func() error {
		_, err := m.Inside(c.ctx, "systemctl", "is-active", "--quiet", "docker.service")
		return err
	})
	if got, want := c.run(t, m, "ip", "addr", "show", "dev", "docker0"), c.subnet(t, m).Subnets[subnet.IPv4].String(); !strings.Contains(got, " "+want+" ") {
		t.Errorf("docker0 does not have %s:\n%s", want, got)
	}
}
