package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/testctx"
	"github.com/selvage-net/selvage/subnet"
)

// wrongEndpoint is where no node is.
var wrongEndpoint = net.UDPAddrFromAddrPort(netip.MustParseAddrPort("172.31.0.99:9"))

// TestRepair changes what is on a device as another process would: all of it is repaired.
func TestRepair(t *testing.T) {
	c := newCluster(t, families(subnet.IPv4), `{"Type":"wireguard","PSK":"`+psk+`"}`)
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

// TestEndpointSet: an endpoint that another process sets while packets flow is not taken for a peer that has moved. The daemon
// repairs it, before the peer's next packet does: without others to send, that comes after 10 s (Keepalive-Timeout).
func TestEndpointSet(t *testing.T) {
	c := newCluster(t, families(subnet.IPv4), `{"Type":"wireguard"}`)
	c.probe(t)
	n := c.Nodes()[0]
	d, err := c.device(n, "flannel-wg")
	if err != nil {
		t.Fatal(err)
	}
	peer, received := d.Peers[0], int64(0)
	ctx, cancel := context.WithCancel(c.ctx)
	done := make(chan error, 1)
	go func() {
		_, err := c.Stream(ctx, c.pods[0].Endpoint, c.pods[1].Endpoint, streamEvery) // each datagram is answered
		done <- err
	}()
	testctx.Eventually(t, func() string { // packets flow
		now, err := c.device(n, "flannel-wg")
		if err != nil {
			return err.Error()
		}
		was := received
		received = now.Peers[0].ReceiveBytes
		if was == 0 || received == was {
			return "no packets are received"
		}
		return ""
	})
	testctx.Eventually(t, func() string {
		now, err := c.device(n, "flannel-wg")
		if err != nil {
			return err.Error()
		}
		s, err := n.Status(c.ctx)
		if err != nil {
			return err.Error()
		}
		if s.Repairs.Total > 0 {
			return ""
		}
		if now.Peers[0].Endpoint.String() == peer.Endpoint.String() { // an answer that was on its way has set it back
			c.configure(t, n, "flannel-wg", wgtypes.Config{
				Peers: []wgtypes.PeerConfig{{PublicKey: peer.PublicKey, Endpoint: wrongEndpoint}},
			})
		}
		return fmt.Sprintf("the peer is at %s, and nothing is repaired", now.Peers[0].Endpoint)
	})
	if now, err := c.device(n, "flannel-wg"); err != nil || now.Peers[0].Endpoint.String() != peer.Endpoint.String() {
		t.Errorf("the peer is at %v, %v, want %s", now, err, peer.Endpoint)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	c.probe(t)
}

// TestRestart: a daemon's end and start lose no packet, change nothing on the device, and keep the process that serves it.
func TestRestart(t *testing.T) {
	c := newCluster(t, families(subnet.IPv4), `{"Type":"wireguard"}`)
	c.probe(t)
	n := c.Nodes()[0]
	before, err := c.device(n, "flannel-wg")
	if err != nil {
		t.Fatal(err)
	}
	pid := 0
	if !usesKernel() {
		pid = c.process(t, n, "flannel-wg")
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
	if usesKernel() {
		return
	}
	if now := c.process(t, n, "flannel-wg"); now != pid {
		t.Errorf("the device is served by process %d, want %d: the one from before", now, pid)
	}
}
