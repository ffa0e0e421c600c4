package crio

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/dist/containerd"
	"github.com/selvage-net/selvage/dist/containerd/cri"
	"github.com/selvage-net/selvage/dist/containerd/cri/critest"
	"github.com/selvage-net/selvage/subnet"
)

// hairpin tells whether a pod reaches itself by a port of its host. CRI-O 1.34.0 writes the rule that is to masquerade such
// packets as "ct status & dnat|snat == dnat", of which nft makes a comparison that is never true: & binds before |.
const hairpin = false

// testPorts has ports of the host mapped, with and without portmap in the network configuration: CRI-O does it, and it alone.
func testPorts(t *testing.T, c *cluster) {
	for _, conflist := range []string{containerd.Conflist, WithoutPortmap} {
		c.configure(t, c.At[0], conflist)
		c.Ports(t, hairpin, c.mappedOnce)
	}
	c.configure(t, c.At[0], containerd.Conflist)
}

// configure writes another network configuration, and waits until pods are added with it.
func (c *cluster) configure(t *testing.T, r *cri.Runtime, conflist string) {
	t.Helper()
	if err := r.Configure(conflist); err != nil {
		t.Fatal(err)
	}
	want := strings.Contains(conflist, "portmap")
	c.Eventually(t, "the new network configuration", func() error {
		p, err := r.RunPod(c.Ctx, "probe")
		if err != nil {
			return err
		}
		defer c.Remove(t, p)
		return usesPortmap(r, p, want)
	})
}

// mappedOnce looks for the rules that map the ports of a pod.
func (c *cluster) mappedOnce(t *testing.T, p *cri.Pod) {
	t.Helper()
	rules, err := p.Runtime.Node.Output(c.Ctx, "sh", "-c", "nft list ruleset; iptables-legacy-save; ip6tables-legacy-save")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range c.Families {
		family := map[subnet.Family]string{subnet.IPv4: "ip", subnet.IPv6: "ip6"}[f]
		if !strings.Contains(string(rules), "table "+family+" crio-hostports") {
			t.Errorf("CRI-O has no table of the family %s:\n%s", family, rules)
		}
	}
	for _, name := range []string{"CNI-HOSTPORT", "CNI-DN-", "cni_hostport"} { // those of portmap's iptables and nftables
		if strings.Contains(string(rules), name) {
			t.Errorf("portmap has mapped as well, by %s:\n%s", name, rules)
		}
	}
}

// testSettings restarts CRI-O with settings that change what this suite relies on.
func testSettings(t *testing.T, c *cluster) {
	t.Run("Pause", func(t *testing.T) {
		if err := c.at[0].Node.Do(func() error { return os.WriteFile(wrapped, []byte(wrapper), 0o755) }); err != nil {
			t.Fatal(err)
		}
		c.restart(t, "[crio.runtime]\ndrop_infra_ctr = false\n[crio.runtime.runtimes.runc]\nruntime_path = \""+wrapped+
			"\"\nruntime_root = \"/run/runc\"\nmonitor_cgroup = \"pod\"\n")
		testPause(t, c)
	})
	// Nobody maps ports then, portmap in the network configuration or not: it is told of none.
	t.Run("NoPorts", func(t *testing.T) {
		c.restart(t, "[crio.runtime]\ndisable_hostport_mapping = true\n")
		c.configure(t, c.At[0], containerd.Conflist)
		p, _ := c.Serving(t, c.At[0], "unmapped", cri.Port{Host: 8070, Pod: 7070})
		far, asking := c.Serving(t, c.At[1], "far")
		c.AsksPod(t, asking, p)
		for _, f := range c.Families {
			target := netip.AddrPortFrom(c.At[0].Node.Addr(f), 8070)
			if _, err := critest.Ask(c.Lab.Outside().Do, "tcp", target); err == nil {
				t.Errorf("%s answers", target)
			}
		}
		c.Remove(t, p, far)
		c.configure(t, c.At[0], containerd.Conflist)
	})
	c.restart(t, "")
	c.NothingLeft(t)
}

// wrapped is where the node has wrapper: runc, but pause keeps the score that it has. CRI-O asks for one below that, which not
// every machine allows; there is no setting for it.
const (
	wrapped = "/etc/crio/runc"
	wrapper = `#!/bin/sh
for argument; do
	[ "$before" = --bundle ] && sed -i 's/"oomScoreAdj": *-[0-9]*/"oomScoreAdj":0/' "$argument/config.json"
	before=$argument
done
exec runc "$@"
`
)

// testPause: pause holds what the containers of a pod share, and when it is killed, the kubelet removes the sandbox.
func testPause(t *testing.T, c *cluster) {
	c.OneNetwork(t, func(p *cri.Pod) (string, error) {
		pid, err := p.PID(c.Ctx)
		if err != nil {
			return "", err
		}
		return cri.NetNS(pid)
	})
	p, _ := c.Serving(t, c.At[0], "paused")
	for _, pid := range c.PIDs(t, p) {
		if err := cri.KillProcess(pid); err != nil {
			t.Fatal(err)
		}
	}
	c.Eventually(t, "the end of pause", func() error {
		ready, err := p.Ready(c.Ctx)
		if err == nil && ready {
			err = errors.New("CRI-O takes the pod for ready")
		}
		return err
	})
	c.Remove(t, p)
	c.NothingLeft(t)
}

// restart ends the first node's CRI-O and starts it with other settings.
func (c *cluster) restart(t *testing.T, settings string) {
	t.Helper()
	r := c.at[0]
	for _, err := range []error{r.Stop(c.Ctx), r.Set(settings), r.Start(c.Ctx)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c.Ready(t, c.At[0], true)
}
