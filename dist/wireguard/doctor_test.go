package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
)

// finding is one of selvaged doctor -o json.
type finding struct{ Check, Level, Evidence, Advice string }

// findings are the failures and warnings of selvaged doctor on a node.
func (c *cluster) findings(n *lab.Node) (all []finding, err error) {
	out, err := n.Output(c.ctx, "../../bin/selvaged", "doctor", "-o", "json", "--cni-conf-dir=")
	var report struct{ Findings []finding }
	if bad := json.Unmarshal(out, &report); bad != nil || err != nil && !errors.As(err, new(*exec.ExitError)) {
		return nil, errors.Join(err, bad)
	}
	for _, f := range report.Findings {
		if f.Level != "pass" {
			all = append(all, f)
		}
	}
	return all, nil
}

// expected is a finding: its check, and parts of its texts.
type expected struct{ check, evidence, advice string }

// diagnosed waits until doctor finds on a node what is expected, and nothing else.
func (c *cluster) diagnosed(t *testing.T, n *lab.Node, want ...expected) {
	t.Helper()
	const pause = 500 * time.Millisecond // a run of doctor costs far more than a look at a condition
	last := ""
	testctx.Eventually(t, func() string {
		if last != "" {
			time.Sleep(pause)
		}
		all, err := c.findings(n)
		if err != nil {
			return fmt.Sprintf("%s: doctor: %v; before: %s", n.Name(), err, last)
		}
		last = compare(all, want)
		return last
	})
}

// compare describes how findings differ from those that are expected; empty: they do not.
func compare(all []finding, want []expected) string {
	var text strings.Builder
	found := make([]bool, len(want))
	for _, f := range all {
		known := false
		for i, w := range want {
			if f.Check == w.check && strings.Contains(f.Evidence, w.evidence) && strings.Contains(f.Advice, w.advice) {
				found[i], known = true, true
			}
		}
		if !known {
			fmt.Fprintf(&text, "\nunexpected: %s  %s: %s\n  -> %s", f.Level, f.Check, f.Evidence, f.Advice)
		}
	}
	for i, w := range want {
		if !found[i] {
			fmt.Fprintf(&text, "\nmissing: %s: %s -> %s", w.check, w.evidence, w.advice)
		}
	}
	return text.String()
}

// forget removes the peers of a node's device, and so their sessions, and waits until the daemon has set them again.
func (c *cluster) forget(t *testing.T, n *lab.Node) {
	t.Helper()
	c.configure(t, n, "flannel-wg", wgtypes.Config{ReplacePeers: true})
	testctx.Eventually(t, func() string {
		if d, err := c.device(n, "flannel-wg"); err != nil || len(d.Peers) != len(c.Nodes())-1 {
			return fmt.Sprintf("%+v, %v, want the other nodes", d, err)
		}
		return ""
	})
}

// expire ends the sessions of a node's device, as time does, while its daemon does not run.
func (c *cluster) expire(t *testing.T, n *lab.Node) {
	t.Helper()
	d, err := c.device(n, "flannel-wg")
	if err != nil || len(d.Peers) != 1 {
		t.Fatalf("%+v, %v, want one peer", d, err)
	}
	p := d.Peers[0]
	c.configure(t, n, "flannel-wg", wgtypes.Config{ReplacePeers: true, Peers: []wgtypes.PeerConfig{{
		PublicKey: p.PublicKey, PresharedKey: &p.PresharedKey, Endpoint: p.Endpoint, AllowedIPs: p.AllowedIPs,
	}}})
}

// healthy opens a cluster in which doctor finds nothing. args are the daemons'.
func healthy(t *testing.T, args ...string) *cluster {
	t.Helper()
	c := open(t, lab.Options{DaemonArgs: args})
	c.begin(t, wireguardBackend)
	c.probe(t)
	for _, n := range c.Nodes() {
		c.diagnosed(t, n)
	}
	return c
}

// TestDoctorPresharedKey: the other node has not applied a change of the preshared key.
func TestDoctorPresharedKey(t *testing.T) {
	c := healthy(t)
	n, other := c.Nodes()[0], c.Nodes()[1]
	other.Kill()
	second := newKey(t)
	c.configureNetwork(t, `{"Type":"wireguard","PSK":"`+second.String()+`"}`)
	testctx.Eventually(t, func() string {
		if d, err := c.device(n, "flannel-wg"); err != nil || len(d.Peers) != 1 || d.Peers[0].PresharedKey != second {
			return fmt.Sprintf("%v, want the new preshared key", err)
		}
		return ""
	})
	c.forget(t, n)
	c.diagnosed(t, n,
		expected{"wireguard", "handshakes to node2", "Backend.PSK"},
		expected{"peers", "node2", "check wireguard"})
	// Packets of pods have the other node begin handshakes as well, once its session has ended: it does not notice that
	// these packets are not answered, since it receives handshakes.
	c.expire(t, other)
	c.mark(t)
	c.diagnosed(t, n,
		expected{"wireguard", "no handshake is completed", "Backend.PSK"},
		expected{"peers", "node2", "check wireguard"})
	if err := errors.Join(other.Start(), other.WaitReady(c.ctx)); err != nil {
		t.Fatal(err)
	}
	c.recover(t)
	c.diagnosed(t, n)
}

// TestDoctorBlockedPort: a rule on the other node drops what arrives for WireGuard.
func TestDoctorBlockedPort(t *testing.T) {
	c := healthy(t)
	n, other := c.Nodes()[0], c.Nodes()[1]
	nft := func(command string) {
		t.Helper()
		if out, err := other.Output(c.ctx, "nft", command); err != nil {
			t.Fatalf("nft %s: %v\n%s", command, err, out)
		}
	}
	nft("table inet site { chain input { type filter hook input priority 0; udp dport 51820 drop; }; }")
	for _, x := range c.Nodes() {
		c.forget(t, x)
	}
	c.diagnosed(t, other,
		expected{"wireguard", "handshakes to node1", "allow UDP port 51820"},
		expected{"peers", "table inet site", ""})
	c.diagnosed(t, n,
		expected{"wireguard", "no handshake is completed", "UDP port 51820"},
		expected{"peers", "node2", "check wireguard"})
	nft("delete table inet site")
	c.recover(t)
	for _, n := range c.Nodes() {
		c.diagnosed(t, n)
	}
}

// TestDoctorMTU: the underlay carries less than the uplinks' MTU says; a device's own MTU is repaired.
func TestDoctorMTU(t *testing.T) {
	c := healthy(t)
	n, other := c.Nodes()[0], c.Nodes()[1]
	c.do(t, n, func() error {
		link, err := netlink.LinkByName("flannel-wg")
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(link, 9000)
	})
	c.diagnosed(t, n)
	setMTU := func(mtu int) {
		t.Helper()
		link, err := netlink.LinkByName(other.Name()) // the underlay's end of the node's uplink
		if err == nil {
			err = netlink.LinkSetMTU(link, mtu)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	setMTU(1400)
	c.diagnosed(t, n, expected{"peers", "large packets to node2 (172.31.0.12) are lost", `"MTU": 1388`})
	setMTU(1500)
	c.diagnosed(t, n)
}

// TestDoctorNoWireGuard: the kernel has no WireGuard, the daemon may not do without, and no program serves the device.
func TestDoctorNoWireGuard(t *testing.T) {
	c := openForeign(t, lab.Options{})
	n := c.Nodes()[0]
	if kernelHasWireGuard(t, n) {
		c.begin(t, wireguardBackend)
		c.diagnosed(t, n)
		return
	}
	c.configureNetwork(t, wireguardBackend)
	c.diagnosed(t, n,
		expected{"device", "device flannel-wg is missing", ""},
		expected{"entries", "this kernel has no WireGuard", "--wireguard-userspace"},
		expected{"peers", "kernel entries are missing for node2", "see entries"})
	for _, n := range c.Nodes() {
		c.serve(t, n, "flannel-wg")
	}
	c.begin(t, wireguardBackend)
	c.diagnosed(t, n)
}

// TestDoctorClock: a node was booted with a clock that is behind an earlier one. The other node refuses its handshakes as
// replays, and begins none itself as long as it has nothing to send.
func TestDoctorClock(t *testing.T) {
	c := healthy(t, "--peer-probe-interval=0") // each node probes the other, and begins handshakes for that
	n, other := c.Nodes()[0], c.Nodes()[1]
	own, err := c.device(n, "flannel-wg")
	if err != nil || len(own.Peers) != 1 {
		t.Fatalf("%+v, %v, want one peer", own, err)
	}
	other.Kill()
	c.expire(t, other) // so that it waits for no answer to what it has sent
	message, err := initiation(own.PrivateKey, own.Peers[0].PublicKey, time.Now().Add(time.Hour))
	if err == nil {
		err = sendFrom(n, uint16(own.ListenPort), own.Peers[0].Endpoint.AddrPort(), message)
	}
	if err != nil {
		t.Fatal(err)
	}
	testctx.Eventually(t, func() string {
		d, err := c.device(other, "flannel-wg")
		if err != nil || d.Peers[0].ReceiveBytes < int64(len(message)) {
			return fmt.Sprintf("%v, the handshake of the other clock is not accepted", err)
		}
		return ""
	})
	c.forget(t, n)
	c.diagnosed(t, n,
		expected{"wireguard", "handshakes to node2 (172.31.0.12:51820, flannel-wg) are not answered", "this node's clock"},
		expected{"peers", "node2", "check wireguard"})
	c.configure(t, other, "flannel-wg", wgtypes.Config{ // as doctor advises
		Peers: []wgtypes.PeerConfig{{PublicKey: own.PublicKey, Remove: true}}})
	if err := errors.Join(other.Start(), other.WaitReady(c.ctx)); err != nil {
		t.Fatal(err)
	}
	c.recover(t)
	c.diagnosed(t, n)
}
