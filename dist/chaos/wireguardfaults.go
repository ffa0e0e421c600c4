package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/selvage-net/selvage/subnet"
)

// wireGuardFaults are what can happen to WireGuard devices and to what is on them.
func wireGuardFaults() []Fault {
	set := func(name string, config func(*target, subnet.Family) (wgtypes.Config, error)) Fault {
		inject := inEachFamily(func(t *target, f subnet.Family) error {
			c, err := config(t, f)
			if err != nil {
				return err
			}
			return t.setWireGuard(f, c)
		})
		return Fault{Name: name, Class: Peers, Families: both(), Inject: inject}
	}
	return []Fault{
		{Name: "WireGuard device deleted", Class: Peers, Families: both(), Inject: deleteWireGuards},
		{Name: "WireGuard device down", Class: Device, Families: both(),
			Inject: onDevice(func(t tables) error { return t.nl.LinkSetDown(t.link) })},
		set("WireGuard private key changed (wg set)", func(*target, subnet.Family) (c wgtypes.Config, err error) {
			key, err := wgtypes.GeneratePrivateKey()
			return wgtypes.Config{PrivateKey: &key}, err
		}),
		set("WireGuard peer removed", func(t *target, f subnet.Family) (c wgtypes.Config, err error) {
			p, err := wireGuardPeer(t.peer, f)
			p.Remove = true
			return wgtypes.Config{Peers: []wgtypes.PeerConfig{p}}, err
		}),
		set("WireGuard allowed IPs moved to another peer", func(t *target, f subnet.Family) (wgtypes.Config, error) {
			for _, other := range t.peers {
				if other.NodeName == t.peer.NodeName {
					continue
				}
				p, err := wireGuardPeer(other, f)
				p.AllowedIPs = []net.IPNet{*ipNet(t.peer.Endpoints[f].Subnet)}
				return wgtypes.Config{Peers: []wgtypes.PeerConfig{p}}, err
			}
			return wgtypes.Config{}, fmt.Errorf("%s has no other peer", t.Name())
		}),
		{Name: "WireGuard endpoint changed", Class: Peers, Families: both(), Inject: inEachFamily(changeEndpoint),
			Bound: wireGuardMoved},
		{Name: "WireGuard port taken by another process, later released", Class: Peers, Families: both(), Running: true,
			Inject: takePorts, Meanwhile: portReported, Undo: releasePorts, BoundAll: wireGuardReturned},
	}
}

// wireGuardPeer names the peer that a lease is of. It is not added if it is not there.
func wireGuardPeer(l subnet.Lease, f subnet.Family) (p wgtypes.PeerConfig, err error) {
	data, err := parseWireGuard(l.Endpoints[f])
	if err != nil {
		return p, err
	}
	key, err := wgtypes.ParseKey(data.PublicKey)
	return wgtypes.PeerConfig{PublicKey: key, UpdateOnly: true}, err
}

// changeEndpoint changes the endpoint of the peer to one without a node. A packet that the peer has sent before, and
// that arrives after the change, sets the right one again. So it is changed until nothing arrives for 10 ms.
func changeEndpoint(t *target, f subnet.Family) error {
	p, err := wireGuardPeer(t.peer, f)
	if err != nil {
		return err
	}
	const discard = 9 // RFC 863
	wrong := netip.AddrPortFrom(nowhere().Endpoints[f].PublicIP, discard)
	p.Endpoint = net.UDPAddrFromAddrPort(wrong)
	read := func() (received int64, at netip.AddrPort, err error) {
		d, err := t.wireGuardDevice(f)
		if err != nil {
			return 0, at, err
		}
		for _, have := range d.Peers {
			if have.PublicKey == p.PublicKey && have.Endpoint != nil {
				at = netip.AddrPortFrom(addrOf(have.Endpoint.IP), uint16(have.Endpoint.Port))
				return have.ReceiveBytes, at, nil
			}
		}
		return 0, at, fmt.Errorf("%s: %s has no peer %s with an endpoint", t.Name(), wireGuardOf(f), p.PublicKey)
	}
	for end := time.Now().Add(t.patience); time.Now().Before(end); {
		if err := t.setWireGuard(f, wgtypes.Config{Peers: []wgtypes.PeerConfig{p}}); err != nil {
			return err
		}
		t.since[f] = time.Now()
		before, _, err := read()
		if err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
		received, at, err := read()
		if err != nil || at == wrong && received == before {
			return err
		}
	}
	return fmt.Errorf("%s: the endpoint of peer %s does not stay changed", t.Name(), p.PublicKey)
}

// setWireGuard configures a device of the node as wg set does.
func (h *host) setWireGuard(f subnet.Family, c wgtypes.Config) error {
	err := h.Do(func() error { return h.wireGuard.ConfigureDevice(wireGuardOf(f), c) })
	if err != nil {
		return fmt.Errorf("%s: configure %s: %w", h.Name(), wireGuardOf(f), err)
	}
	return nil
}

// deleteWireGuards deletes the devices. If a program serves one, the program ends with it, and the lab starts it again
// after 100 ms, as an init system does. Selvage cannot repair anything before: so its time is counted from when the
// program serves again.
func deleteWireGuards(ctx context.Context, t *target) error {
	runs := [2]int{}
	for _, f := range t.families {
		if w := t.WireGuardProgram(wireGuardOf(f)); w != nil {
			runs[f] = w.Runs()
		}
	}
	if err := onDevice(func(d tables) error { return d.nl.LinkDel(d.link) })(ctx, t); err != nil {
		return err
	}
	for _, f := range t.families {
		w := t.WireGuardProgram(wireGuardOf(f))
		if w == nil {
			continue
		}
		if err := w.WaitRun(ctx, runs[f]+1); err != nil {
			return err
		}
		t.since[f] = time.Now()
		t.remarks = append(t.remarks, fmt.Sprintf("%s: the program serves %s again %s after the device was deleted; "+
			"the time is counted from then", t.Name(), wireGuardOf(f), short(t.since[f].Sub(t.fault))))
	}
	return nil
}

// takePorts has devices use another UDP port, and takes theirs, while the daemon does not look. Peers that hear the
// node meanwhile find it at the other port, and must not be cut off from there. When it returns to its own, they follow as
// soon as they hear it. If all nodes do so at once, some hear nothing.
func takePorts(_ context.Context, t *target) error {
	var taken []net.PacketConn
	err := t.eachFamily(func(f subnet.Family) error {
		d, err := t.wireGuardDevice(f)
		if err != nil {
			return err
		}
		other := d.ListenPort + 1000
		return t.paused(func() error {
			if err := t.setWireGuard(f, wgtypes.Config{ListenPort: &other}); err != nil {
				return err
			}
			return t.Do(func() error {
				c, err := net.ListenUDP("udp", &net.UDPAddr{Port: d.ListenPort})
				if err == nil {
					taken = append(taken, c)
				}
				return err
			})
		})
	})
	t.noted = taken
	return err
}

// portReported waits until the daemon has logged that a device's port is in use. Of two devices it names one, and
// counts the other.
func portReported(ctx context.Context, t *target) error {
	ctx, cancel := context.WithTimeout(ctx, t.patience)
	defer cancel()
	said := func(line string) bool {
		return strings.Contains(line, "configure device flannel-wg") && strings.Contains(line, "is in use")
	}
	for !slices.ContainsFunc(t.logSince(t.logged), said) {
		if !pause(ctx, 5*time.Millisecond) {
			return fmt.Errorf("%s: the daemon did not say that a port is in use: %q", t.Name(), t.logSince(t.logged))
		}
	}
	return nil
}

func releasePorts(_ context.Context, t *target) (err error) {
	for _, c := range t.noted.([]net.PacketConn) {
		err = errors.Join(err, c.Close())
	}
	return err
}
