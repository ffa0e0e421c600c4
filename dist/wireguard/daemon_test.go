package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

func newKey(t *testing.T) wgtypes.Key {
	t.Helper()
	k, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestKubernetes: with leases in the Kubernetes API, keys are in the Nodes' annotations.
func TestKubernetes(t *testing.T) {
	c := open(t, lab.Options{Families: families(subnet.IPv4, subnet.IPv6), Store: subnet.StoreKubernetes})
	c.begin(t, `{"Type":"wireguard","PSK":"`+psk+`"}`)
	c.probe(t)
	leases, err := c.Store().Leases(c.ctx)
	if err != nil || len(leases) != len(c.Nodes()) {
		t.Fatal(leases, err)
	}
	for i, n := range c.Nodes() {
		for f, name := range []string{subnet.IPv4: "flannel-wg", subnet.IPv6: "flannel-wg-v6"} {
			d, err := c.device(n, name)
			if err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf(`{"PublicKey":"%s","Port":%d}`, d.PublicKey, d.ListenPort)
			if got := leases[i].Endpoints[f].Data; got != want {
				t.Errorf("%s: lease with %s, want %s", n.Name(), got, want)
			}
		}
	}
}

// TestTakeover: what flannel leaves on a node is used: its key and its device. The key then is the node's own.
func TestTakeover(t *testing.T) {
	c := openForeign(t, lab.Options{}, "flannel-wg")
	n := c.Nodes()[0]
	key, gone, port := newKey(t), newKey(t).PublicKey(), 51820
	const keyFile = "/run/flannel/wgkey"
	var before int
	network, err := netlink.ParseIPNet("10.5.0.0/16")
	if err != nil {
		t.Fatal(err)
	}
	if usesKernel() {
		c.do(t, n, func() error {
			return netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: "flannel-wg"}})
		})
	}
	c.configure(t, n, "flannel-wg", wgtypes.Config{
		PrivateKey: &key, ListenPort: &port,
		Peers: []wgtypes.PeerConfig{{PublicKey: gone, AllowedIPs: []net.IPNet{*network}}},
	})
	c.do(t, n, func() error {
		link, err := netlink.LinkByName("flannel-wg")
		if err != nil {
			return err
		}
		before = link.Attrs().Index
		return errors.Join(
			os.MkdirAll("/run/flannel", 0o755), os.WriteFile(keyFile, []byte(key.String()), 0o400),
			netlink.LinkSetUp(link),
			netlink.RouteAdd(&netlink.Route{Dst: network, LinkIndex: before, Scope: netlink.SCOPE_LINK}),
		)
	})
	c.begin(t, `{"Type":"wireguard"}`)
	c.probe(t)
	check := func() {
		t.Helper()
		d, err := c.device(n, "flannel-wg")
		if err != nil || d.PrivateKey != key || len(d.Peers) != 1 || d.Peers[0].PublicKey == gone {
			t.Errorf("device with key %s and peers %v, %v, want key %s and the other node", d.PublicKey, d.Peers, err,
				key.PublicKey())
		}
		c.do(t, n, func() error {
			link, err := netlink.LinkByName("flannel-wg")
			if err != nil {
				return err
			}
			if i := link.Attrs().Index; i != before {
				t.Errorf("the device has index %d, want %d: the one that was there", i, before)
			}
			routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
			for _, r := range routes {
				if r.Dst.String() == network.String() {
					t.Errorf("flannel's route is left: %s", r)
				}
			}
			return err
		})
	}
	check()
	c.do(t, n, func() error { // the file is gone after a boot
		info, err := os.Stat("/var/lib/selvage/wireguard.secret")
		if err == nil && info.Mode() != 0o600 {
			t.Errorf("mode %s, want that the owner alone may read it", info.Mode())
		}
		return errors.Join(err, os.Remove(keyFile))
	})
	if err := errors.Join(n.Restart(c.ctx), n.WaitReady(c.ctx)); err != nil {
		t.Fatal(err)
	}
	check()
	c.probe(t)

	if err := n.Stop(c.ctx); err != nil {
		t.Fatal(err)
	}
	backstops := func() (count int) {
		c.do(t, n, func() error {
			routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Type: unix.RTN_BLACKHOLE},
				netlink.RT_FILTER_TYPE)
			count = len(routes)
			return err
		})
		return count
	}
	before = backstops()
	out, err := n.Output(c.ctx, "../../bin/selvaged", "cleanup", "--rules")
	if after := backstops(); err != nil || before == 0 || after != 0 || strings.Contains(string(out), "flannel-wg") {
		t.Errorf("%s, %v; %d blackhole routes before, %d after, which flannel's route would not take precedence over; want "+
			"that they alone are removed", out, err, before, after)
	}
	out, err = n.Output(c.ctx, "../../bin/selvaged", "cleanup")
	if err != nil || !strings.Contains(string(out), "flannel-wg") {
		t.Errorf("%s, %v, want that the device is removed", out, err)
	}
	c.do(t, n, func() error {
		if _, err := os.Lstat("/var/lib/selvage/wireguard.secret"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the key is left: %v", err)
		}
		return nil
	})
}

// do calls f on a node.
func (c *cluster) do(t *testing.T, n *lab.Node, f func() error) {
	t.Helper()
	if err := n.Do(f); err != nil {
		t.Fatal(err)
	}
}

// TestFollow: running nodes follow a change of the config, and no secret of either config is shown anywhere.
func TestFollow(t *testing.T) {
	c := newCluster(t, nil, `{"Type":"wireguard","PSK":"`+psk+`"}`)
	c.probe(t)
	second, port, keepalive := newKey(t), 4444, 7*time.Second
	c.configureNetwork(t, fmt.Sprintf(
		`{"Type":"wireguard","PSK":"%s","ListenPort":%d,"PersistentKeepaliveInterval":7}`, second, port))
	var keys []string
	for _, n := range c.Nodes() {
		testctx.Eventually(t, func() string {
			d, err := c.device(n, "flannel-wg")
			if err != nil {
				return err.Error()
			}
			p := d.Peers[0]
			if d.ListenPort != port || p.PresharedKey != second || p.PersistentKeepaliveInterval != keepalive ||
				p.Endpoint.Port != port {
				return fmt.Sprintf("%s: port %d, peer at %s, keepalive %s, the new preshared key: %t", n.Name(), d.ListenPort,
					p.Endpoint, p.PersistentKeepaliveInterval, p.PresharedKey == second)
			}
			keys = append(keys, d.PrivateKey.String())
			return ""
		})
	}
	c.recover(t) // a packet from an old port that came late has set an endpoint back, until one from the new port
	c.probe(t)
	const bad = "bm90IGEga2V5IGJ1dCBhIHNlY3JldA=="
	c.configureNetwork(t, `{"Type":"wireguard","PSK":"`+bad+`"}`)
	testctx.Eventually(t, func() string {
		s, err := c.Nodes()[0].Status(c.ctx)
		if text := fmt.Sprint(s.Problems); err != nil || !strings.Contains(text, "Backend.PSK has 22 bytes, want 32") {
			return fmt.Sprint(text, err)
		}
		return ""
	})
	c.secrets(t, append(keys, psk, second.String(), bad))
}

// secrets checks that secrets are shown nowhere: not in logs, in what commands print, and in lists of processes.
func (c *cluster) secrets(t *testing.T, secrets []string) {
	t.Helper()
	n := c.Nodes()[0]
	shown, err := os.ReadFile(n.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"status", "status -o json", "peers", "peers -o json", "doctor", "doctor -o json",
		"explain " + c.pods[1].Addr(subnet.IPv4).String(),
	} {
		out, err := n.Output(c.ctx, append([]string{"../../bin/selvaged"}, strings.Fields(args)...)...)
		if len(out) == 0 || err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Fatal(args, err)
		}
		shown = append(shown, out...)
	}
	files := []string{fmt.Sprintf("/proc/%d/cmdline", n.PID()), fmt.Sprintf("/proc/%d/environ", n.PID())}
	if !usesKernel() {
		pid := c.process(t, n, "flannel-wg")
		files = append(files, fmt.Sprintf("/proc/%d/cmdline", pid), fmt.Sprintf("/proc/%d/environ", pid),
			"/var/run/wireguard/flannel-wg.log")
	}
	c.do(t, n, func() error {
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			shown = append(shown, text...)
		}
		return nil
	})
	for _, secret := range secrets {
		raw, err := base64.StdEncoding.DecodeString(secret)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range []string{secret, string(raw), fmt.Sprintf("%x", raw), strings.Trim(fmt.Sprint(raw), "[]")} {
			if strings.Contains(string(shown), form) {
				t.Errorf("the secret %s is shown: %s", secret, shown)
			}
		}
	}
	d, err := c.device(n, "flannel-wg")
	if err != nil || !strings.Contains(string(shown), d.PublicKey.String()) {
		t.Errorf("%v; the public key is not shown: %s", err, shown)
	}
}

// TestStopped: a program of others that does not answer is named, and the daemon goes on with everything else. It does
// not touch the program, also if it may serve devices itself.
func TestStopped(t *testing.T) {
	c := openForeign(t, lab.Options{DaemonArgs: []string{"--wireguard-userspace"}}, "flannel-wg")
	c.begin(t, `{"Type":"wireguard"}`)
	n := c.Nodes()[0]
	signal := func(s unix.Signal) {
		t.Helper()
		if err := unix.Kill(c.programs[0].PID(), s); err != nil {
			t.Fatal(err)
		}
	}
	signal(unix.SIGSTOP)
	problem := func() string {
		s, err := n.Status(c.ctx)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(s.Problems)
	}
	testctx.Eventually(t, func() string {
		if p := problem(); !strings.Contains(p, "read the peers of device flannel-wg: it does not answer") {
			return p
		}
		return ""
	})
	c.do(t, n, func() error {
		link, err := netlink.LinkByName("flannel-wg")
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(link)
	})
	testctx.Eventually(t, func() (missing string) { // the device is up again, and has the route
		c.do(t, n, func() error {
			link, err := netlink.LinkByName("flannel-wg")
			if err != nil {
				return err
			}
			routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
			if len(routes) != 1 {
				missing = fmt.Sprintf("routes %v, want one", routes)
			}
			return err
		})
		return missing
	})
	signal(unix.SIGCONT)
	testctx.Eventually(t, func() string { return strings.Trim(problem(), "[]") })
	c.probe(t)
}

// TestMoved: a peer that sends from another port than its lease names, as one behind NAT, is reached there.
func TestMoved(t *testing.T) {
	c := newCluster(t, nil, `{"Type":"wireguard"}`)
	c.probe(t)
	n, moved := c.Nodes()[0], c.Nodes()[1]
	moved.Kill() // else it repairs its port
	port := 4444
	c.configure(t, moved, "flannel-wg", wgtypes.Config{ListenPort: &port})
	at := func(want int) {
		t.Helper()
		for _, r := range c.ProbeShared(c.ctx, c.pods[1].Endpoint, c.pods[0].Endpoint) { // its packets tell where it is
			if r.Err != nil {
				t.Fatalf("port %d: %v", want, r.Err)
			}
		}
		c.probe(t)
		testctx.Eventually(t, func() string {
			if d, err := c.device(n, "flannel-wg"); err != nil || len(d.Peers) != 1 || d.Peers[0].Endpoint.Port != want {
				return fmt.Sprintf("%+v, %v, want the peer at port %d", d, err, want)
			}
			return ""
		})
	}
	at(port)
	for range 3 { // the daemon reads the device each time
		c.configure(t, n, "flannel-wg", wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: newKey(t).PublicKey()}}})
		testctx.Eventually(t, func() string {
			d, err := c.device(n, "flannel-wg")
			if err != nil || len(d.Peers) != 1 {
				return fmt.Sprintf("%+v, %v, want one peer", d, err)
			}
			if p := d.Peers[0].Endpoint.Port; p != port {
				t.Fatalf("the daemon has set port %d, and the peer is at %d", p, port)
			}
			return ""
		})
	}
	c.probe(t)
	if err := errors.Join(moved.Start(), moved.WaitReady(c.ctx)); err != nil {
		t.Fatal(err)
	}
	at(51820)
}
