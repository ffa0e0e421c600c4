package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// serveVariable makes the test binary the program: the device that it is to serve.
const serveVariable = "SERVE_WIREGUARD"

func TestMain(m *testing.M) {
	if name := os.Getenv(serveVariable); name != "" {
		if err := serve(context.Background(), name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(sandbox.Run(m.Run))
}

const psk = "cGxlYXNlIGRvIG5vdCBwcmludCB0aGlzIGtleSBhdCA="

// cluster is two nodes with a pod on each, whose devices a user-space WireGuard serves.
type cluster struct {
	*lab.Lab
	ctx  context.Context
	dir  string
	pods []*lab.Pod
}

// newCluster starts the daemons first, which find that the kernel has no WireGuard, and then the programs.
func newCluster(t *testing.T, families []subnet.Family, backend string, devices ...string) *cluster {
	t.Helper()
	ctx := testctx.New(t)
	l, err := lab.New(ctx, lab.Options{
		Nodes: 2, Families: families, Config: "-", Bin: "../../bin", Patience: lab.TestPatience,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Lab: l, ctx: ctx, dir: t.TempDir()}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, n := range l.Nodes() {
		for _, d := range devices {
			c.serve(t, n, d)
		}
	}
	c.begin(t, families, backend)
	return c
}

// begin writes the network config, and adds the pods once the nodes are ready.
func (c *cluster) begin(t *testing.T, families []subnet.Family, backend string) {
	t.Helper()
	if err := c.Store().PutConfig(c.ctx, lab.NetworkConfig(families, backend, lab.NodesChoose)); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(c.ctx); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes() {
		p, err := c.AddPod(c.ctx, n, "")
		if err != nil {
			t.Fatal(err)
		}
		c.pods = append(c.pods, p)
	}
}

// serve starts the program for a device of a node, and waits until it is configurable.
func (c *cluster) serve(t *testing.T, n *lab.Node, device string) *lab.Program {
	t.Helper()
	log := filepath.Join(c.dir, n.Name()+"-"+device+".log")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := lab.StartProgram(n.Do, log, []string{exe}, serveVariable+"="+device)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	testctx.Eventually(t, func() string {
		if err := p.Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.device(n, device); err != nil {
			return err.Error()
		}
		return ""
	})
	return p
}

// device reads a device of a node.
func (c *cluster) device(n *lab.Node, name string) (d *wgtypes.Device, err error) {
	err = n.Do(func() error {
		client, err := wgctrl.New()
		if err != nil {
			return err
		}
		defer client.Close()
		d, err = client.Device(name)
		return err
	})
	return d, err
}

// configure changes a device of a node as another process would.
func (c *cluster) configure(t *testing.T, n *lab.Node, name string, config wgtypes.Config) {
	t.Helper()
	err := n.Do(func() error {
		client, err := wgctrl.New()
		if err != nil {
			return err
		}
		defer client.Close()
		return client.ConfigureDevice(name, config)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// probe fails the test unless all pods reach each other, and the other nodes, in all families.
func (c *cluster) probe(t *testing.T) {
	t.Helper()
	a, b := c.pods[0].Endpoint, c.pods[1].Endpoint
	for _, ends := range [][2]*lab.Endpoint{{a, b}, {b, a}, {c.Nodes()[0].Endpoint, b}} {
		for _, r := range c.ProbeShared(c.ctx, ends[0], ends[1]) {
			if r.Err != nil {
				t.Errorf("%s to %s, %s: %v", r.From, r.To, r.Family, r.Err)
			}
		}
	}
}

// underlay captures what is sent on the uplink of the first node, until stop.
func (c *cluster) underlay(t *testing.T) (stop func() (packets [][]byte)) {
	t.Helper()
	link, err := net.InterfaceByName(c.Nodes()[0].Name())
	if err != nil {
		t.Fatal(err)
	}
	const all = unix.ETH_P_ALL
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all<<8&0xff00|all>>8))
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8&0xff00 | all>>8, Ifindex: link.Index})
	}
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 10_000})
	}
	if err != nil {
		t.Fatal(err)
	}
	var ended atomic.Bool
	done := make(chan [][]byte)
	go func() {
		defer unix.Close(fd)
		var packets [][]byte
		buf := make([]byte, 64<<10)
		for {
			n, err := unix.Read(fd, buf)
			if err == nil {
				packets = append(packets, slices.Clone(buf[:n]))
			} else if ended.Load() {
				done <- packets
				return
			}
		}
	}()
	return func() [][]byte { ended.Store(true); return <-done }
}

// testOverlay checks a mode: pods reach each other, and nothing of what they send can be read on the underlay.
func testOverlay(t *testing.T, families []subnet.Family, backend string, devices ...string) {
	t.Helper()
	c := newCluster(t, families, backend, devices...)
	stop := c.underlay(t)
	c.probe(t)
	packets := stop()
	tunnelled := 0
	for _, p := range packets {
		for _, pod := range c.pods {
			for _, f := range families {
				if strings.Contains(string(p), string(pod.Addr(f).AsSlice())) {
					t.Fatalf("a packet on the underlay has the address %s of a pod: % x", pod.Addr(f), p)
				}
			}
		}
		if len(p) > 200 {
			tunnelled++
		}
	}
	if tunnelled < 20 { // of the 64 KiB that each probe exchanges over TCP
		t.Errorf("%d large packets on the underlay, want those of the probes", tunnelled)
	}
	for _, n := range c.Nodes() {
		for _, name := range devices {
			d, err := c.device(n, name)
			if err != nil || len(d.Peers) != 1 {
				t.Fatalf("%s: %+v, %v, want one peer", n.Name(), d, err)
			}
		}
	}
}

func families(f ...subnet.Family) []subnet.Family { return f }

func TestIPv4(t *testing.T) {
	testOverlay(t, families(subnet.IPv4), `{"Type":"wireguard","PSK":"`+psk+`"}`, "flannel-wg")
}

func TestIPv6(t *testing.T) {
	testOverlay(t, families(subnet.IPv6), `{"Type":"wireguard"}`, "flannel-wg-v6")
}

func TestDualSeparate(t *testing.T) {
	testOverlay(t, families(subnet.IPv4, subnet.IPv6), `{"Type":"wireguard"}`, "flannel-wg", "flannel-wg-v6")
}

func TestDualOneDevice(t *testing.T) {
	for _, mode := range []string{"auto", "ipv4", "ipv6"} {
		t.Run(mode, func(t *testing.T) {
			testOverlay(t, families(subnet.IPv4, subnet.IPv6),
				`{"Type":"wireguard","Mode":"`+mode+`","PersistentKeepaliveInterval":25}`, "flannel-wg")
		})
	}
}

// TestNoWireGuard: on a kernel without WireGuard, and without a program, one error says what is wrong and what to do; a
// program that is started later is used. A kernel with WireGuard needs no program.
func TestNoWireGuard(t *testing.T) {
	ctx := testctx.New(t)
	l, err := lab.New(ctx, lab.Options{Nodes: 2, Config: "-", Bin: "../../bin", Patience: lab.TestPatience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{Lab: l, ctx: ctx, dir: t.TempDir()}
	const backend = `{"Type":"wireguard"}`
	if err := l.Store().PutConfig(ctx, lab.NetworkConfig(nil, backend, lab.NodesChoose)); err != nil {
		t.Fatal(err)
	}
	if !kernelHasWireGuard(t, l.Nodes()[0]) {
		n := l.Nodes()[0]
		const text = "this kernel has no WireGuard"
		testctx.Eventually(t, func() string {
			s, err := n.Status(ctx)
			if err != nil {
				return err.Error()
			}
			if p := fmt.Sprint(s.Problems); !strings.Contains(p, text) || !strings.Contains(p, "modprobe wireguard") {
				return fmt.Sprintf("%q is not among the problems: %s", text, p)
			}
			return ""
		})
		log, err := os.ReadFile(n.LogPath())
		if lines := strings.Count(string(log), text); err != nil || lines != 1 {
			t.Errorf("%d lines say that, %v, want one:\n%s", lines, err, log)
		}
		for _, n := range l.Nodes() {
			c.serve(t, n, "flannel-wg")
		}
	}
	c.begin(t, nil, backend)
	c.probe(t)
}

// kernelHasWireGuard tries to make a device on a node.
func kernelHasWireGuard(t *testing.T, n *lab.Node) (has bool) {
	t.Helper()
	err := n.Do(func() error {
		link := &netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: "try"}}
		err := netlink.LinkAdd(link)
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		if err == nil {
			has, err = true, netlink.LinkDel(link)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return has
}

// wrongEndpoint is where no node is.
var wrongEndpoint = net.UDPAddrFromAddrPort(netip.MustParseAddrPort("172.31.0.99:9"))

// TestRepair changes what is on a device as another process would: all of it is repaired.
func TestRepair(t *testing.T) {
	c := newCluster(t, families(subnet.IPv4), `{"Type":"wireguard","PSK":"`+psk+`"}`, "flannel-wg")
	c.probe(t)
	n := c.Nodes()[0]
	before, err := c.device(n, "flannel-wg")
	if err != nil {
		t.Fatal(err)
	}
	peer := before.Peers[0]
	stranger, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	port, mark, keepalive := 4444, 7, 9*time.Second
	one := func(p wgtypes.PeerConfig) wgtypes.Config { return wgtypes.Config{Peers: []wgtypes.PeerConfig{p}} }
	_, other, _ := net.ParseCIDR("192.0.2.0/24")
	for _, fault := range []struct {
		name   string
		config wgtypes.Config
	}{
		{"peer removed", one(wgtypes.PeerConfig{PublicKey: peer.PublicKey, Remove: true})},
		{"all peers removed", wgtypes.Config{ReplacePeers: true}},
		{"preshared key", one(wgtypes.PeerConfig{PublicKey: peer.PublicKey, PresharedKey: &wgtypes.Key{}})},
		{"keepalive", one(wgtypes.PeerConfig{PublicKey: peer.PublicKey, PersistentKeepaliveInterval: &keepalive})},
		{"endpoint", one(wgtypes.PeerConfig{PublicKey: peer.PublicKey, Endpoint: wrongEndpoint})},
		{"no allowed IPs", one(wgtypes.PeerConfig{PublicKey: peer.PublicKey, ReplaceAllowedIPs: true})},
		{"another allowed IP", one(wgtypes.PeerConfig{PublicKey: peer.PublicKey, AllowedIPs: []net.IPNet{*other}})},
		{"allowed IPs taken by another peer", one(wgtypes.PeerConfig{
			PublicKey: stranger.PublicKey(), AllowedIPs: peer.AllowedIPs,
		})},
		{"stale peer", one(wgtypes.PeerConfig{PublicKey: stranger.PublicKey()})},
		{"private key", wgtypes.Config{PrivateKey: &stranger}},
		{"port", wgtypes.Config{ListenPort: &port}},
		{"firewall mark", wgtypes.Config{FirewallMark: &mark}},
	} {
		t.Run(fault.name, func(t *testing.T) {
			c.configure(t, n, "flannel-wg", fault.config)
			testctx.Eventually(t, func() string {
				now, err := c.device(n, "flannel-wg")
				if err != nil {
					return err.Error()
				}
				return difference(before, now)
			})
			c.probe(t)
		})
	}
}

// difference says in what a device differs from before; empty: in nothing.
func difference(before, now *wgtypes.Device) string {
	text := func(d *wgtypes.Device) string {
		b := fmt.Sprint(d.PrivateKey.PublicKey(), d.ListenPort, d.FirewallMark)
		for _, p := range d.Peers {
			b += fmt.Sprint("\n", p.PublicKey, p.PresharedKey == wgtypes.Key{}, p.Endpoint, p.PersistentKeepaliveInterval, p.AllowedIPs)
		}
		return b
	}
	if text(before) != text(now) {
		return "want " + text(before) + "\ngot " + text(now)
	}
	return ""
}

// TestRestart: a daemon's end and start lose no packet, and change nothing on the device.
func TestRestart(t *testing.T) {
	c := newCluster(t, families(subnet.IPv4), `{"Type":"wireguard"}`, "flannel-wg")
	c.probe(t)
	n := c.Nodes()[0]
	before, err := c.device(n, "flannel-wg")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(c.ctx)
	type result struct {
		report lab.StreamReport
		err    error
	}
	done := make(chan result, 1)
	go func() {
		r, err := c.Stream(ctx, c.pods[0].Endpoint, c.pods[1].Endpoint, 5*time.Millisecond)
		done <- result{r, err}
	}()
	for _, restart := range []func() error{
		func() error { return n.Restart(c.ctx) },
		func() error { n.Kill(); return n.Start() },
	} {
		if err := errors.Join(restart(), n.WaitReady(c.ctx)); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if r := <-done; r.err != nil || r.report.Lost != 0 {
		t.Errorf("%s, %v, want none lost", r.report, r.err)
	}
	now, err := c.device(n, "flannel-wg")
	if err != nil {
		t.Fatal(err)
	}
	if text := difference(before, now); text != "" {
		t.Error(text)
	}
	c.secrets(t, before.PrivateKey)
}

// secrets checks that neither keys nor the preshared key are shown anywhere.
func (c *cluster) secrets(t *testing.T, private wgtypes.Key) {
	t.Helper()
	n := c.Nodes()[0]
	shown, err := os.ReadFile(n.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"status", "--json"}, {"status"}, {"peers"}, {"explain", c.pods[1].Addr(subnet.IPv4).String()}} {
		out, err := n.Output(c.ctx, append([]string{"../../bin/selvaged"}, args...)...)
		if err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Fatal(err)
		}
		shown = append(shown, out...)
	}
	for _, secret := range []string{private.String(), psk} {
		if strings.Contains(string(shown), secret) {
			t.Errorf("a secret is shown: %s", shown)
		}
	}
	if !strings.Contains(string(shown), private.PublicKey().String()) {
		t.Errorf("the public key is not shown: %s", shown)
	}
}
