package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/network/userspace"
)

// This file reads and changes what is on WireGuard devices: those of the kernel by generic netlink, those of a
// user-space WireGuard by its UNIX socket.

// wireGuards is what the kernel's part needs for WireGuard devices.
type wireGuards struct {
	client  *wgctrl.Client        // opened on first use
	running map[string]chan error // of calls that have not returned yet, by device
	stale   bool                  // a notification was about such a device
	roaming network.Roaming
	renewal renewal
	// processes serve devices in user space, if the kernel has no WireGuard; nil: the kernel's alone are used.
	processes *userspace.Keeper
}

// wireGuardTime is how long a device may take to answer. The kernel answers at once, but the loop must not wait for a
// user-space program that is stopped.
const wireGuardTime = 2 * time.Second

var errNoAnswer = errors.New("it does not answer; if a user-space WireGuard serves the device, is that stopped?")

// ServeWireGuard has devices that the kernel cannot make served in user space. It belongs before the first pass.
func (k *Kernel) ServeWireGuard(processes *userspace.Keeper) { k.wireGuards.processes = processes }

// call calls f with the client for a device, and waits for it for a limited time. f must not touch what is not its own.
func (w *wireGuards) call(device string, f func(*wgctrl.Client) error) error {
	if running := w.running[device]; running != nil {
		select {
		case <-running:
			delete(w.running, device)
		default:
			return errNoAnswer
		}
	}
	if w.client == nil {
		client, err := wgctrl.New()
		if err != nil {
			return fmt.Errorf("open a connection to WireGuard: %w", err)
		}
		w.client = client
	}
	done, client := make(chan error, 1), w.client
	go func() { done <- f(client) }()
	timer := time.NewTimer(wireGuardTime)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil { // the next call looks again whether this kernel has WireGuard by then
			w.close()
		}
		return err
	case <-timer.C:
		if w.running == nil {
			w.running = map[string]chan error{}
		}
		w.running[device] = done
		return errNoAnswer
	}
}

func (w *wireGuards) close() {
	if w.client != nil {
		_ = w.client.Close() // a socket
		w.client = nil
	}
}

func (w *wireGuards) read(name string) (*wgtypes.Device, error) {
	result := make(chan *wgtypes.Device, 1)
	err := w.call(name, func(c *wgctrl.Client) error {
		d, err := c.Device(name)
		result <- d
		return err
	})
	if err != nil {
		return nil, explainWireGuard(name, err)
	}
	return <-result, nil
}

func (w *wireGuards) configure(name string, c wgtypes.Config) error {
	return explainWireGuard(name, w.call(name, func(client *wgctrl.Client) error {
		return answered(client.ConfigureDevice(name, c))
	}))
}

// ReadWireGuard reads what is on the desired WireGuard devices into the tables. The kernel does not notify of changes
// there. It takes time in proportion to the number of peers.
func (k *Kernel) ReadWireGuard() error {
	t, w := k.tables, &k.wireGuards
	w.stale = false
	if t.WireGuards.Counts() == (network.Count{}) {
		return nil
	}
	k.renewTun()
	t.WireGuards.Mark()
	t.Peers.Mark()
	t.AllowedIPs.Mark()
	w.roaming.Mark()
	var failed error
	read := map[string]struct{}{}
	for name, c := range t.WireGuards.All {
		if !c.Wanted || !t.Links.Get(name).Present || !t.OwnsLink(name) {
			continue
		}
		d, err := w.read(name)
		w.processes.Read(name, replyOf(err), time.Now())
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("read the peers of device %s: %w", name, err))
			continue
		}
		read[name] = struct{}{}
		k.observeWireGuard(name, d, time.Now())
	}
	w.roaming.Sweep()
	of := func(link string) bool { _, is := read[link]; return is }
	t.WireGuards.Sweep(of)
	t.Peers.Sweep(func(key network.PeerKey) bool { return of(key.Link) })
	t.AllowedIPs.Sweep(func(key network.AllowedIPKey) bool { return of(key.Link) })
	return failed
}

func (k *Kernel) observeWireGuard(name string, d *wgtypes.Device, now time.Time) {
	t := k.tables
	t.WireGuards.Observe(name, network.WireGuard{
		PrivateKey: network.Secret(d.PrivateKey), Port: uint16(d.ListenPort), FirewallMark: uint32(d.FirewallMark),
	})
	for i := range d.Peers {
		p := &d.Peers[i]
		key := network.PeerKey{Link: name, PublicKey: network.PublicKey(p.PublicKey)}
		heard := network.Heard{
			Endpoint: endpointOf(p.Endpoint), Handshake: p.LastHandshakeTime,
			Received: uint64(p.ReceiveBytes), Sent: uint64(p.TransmitBytes),
		}
		t.Peers.Observe(key, network.Peer{
			Endpoint:     k.wireGuards.roaming.Endpoint(key, t.Peers.Get(key).Want.Endpoint, heard, now),
			PresharedKey: network.Secret(p.PresharedKey),
			Keepalive:    uint16(p.PersistentKeepaliveInterval / time.Second),
		})
		for _, n := range p.AllowedIPs {
			if prefix, ok := prefixOf(n); ok {
				t.AllowedIPs.Observe(network.AllowedIPKey{Link: name, Prefix: prefix}, key.PublicKey)
			}
		}
	}
}

// noteWireGuard notes a message about a device: what is on it may have changed as well.
func (k *Kernel) noteWireGuard(name string) {
	k.wireGuards.stale = k.wireGuards.stale || k.tables.WireGuards.Get(name).Wanted
}

// WireGuard configures a device. Only what differs is set.
func (k *Kernel) WireGuard(name string, c network.Change[network.WireGuard]) error {
	if !c.Wanted {
		return nil
	}
	var config wgtypes.Config
	key, port, mark := wgtypes.Key(c.Want.PrivateKey), int(c.Want.Port), int(c.Want.FirewallMark)
	if !c.Present || c.Have.PrivateKey != c.Want.PrivateKey {
		config.PrivateKey = &key
	}
	if !c.Present || c.Have.Port != c.Want.Port {
		config.ListenPort = &port
	}
	if !c.Present || c.Have.FirewallMark != c.Want.FirewallMark {
		config.FirewallMark = &mark
	}
	err := k.wireGuards.configure(name, config)
	if errors.Is(err, unix.EADDRINUSE) {
		err = errno.With(err, fmt.Sprintf("UDP port %d is in use: \"ss -lunp\" may show by which process, or set "+
			"another Backend.ListenPort or ListenPortV6 in the network config, for all nodes", c.Want.Port))
	}
	if err != nil {
		return fmt.Errorf("configure device %s (private key, port %d): %w", name, c.Want.Port, err)
	}
	k.wireGuards.renewal.device(k.tables, name, c, time.Now())
	return nil
}

// Peers sets or removes peers, without their prefixes. A peer that is removed loses these.
func (k *Kernel) Peers(batch []network.Update[network.PeerKey, network.Peer]) {
	k.configurePeers(len(batch), func(i int) (string, wgtypes.PeerConfig) {
		u := &batch[i]
		return u.Key.Link, peerConfig(u.Key, u.Change)
	}, func(i int, err error) {
		batch[i].Err = fmt.Errorf("set peer %s: %w", batch[i].Key, err)
	})
	for i := range batch {
		if u := &batch[i]; u.Err == nil && u.Change.Wanted && !u.Change.Present {
			k.wireGuards.renewal.peer(u.Key)
		}
	}
}

// peerConfig returns the change of a peer. The endpoint is set only if it differs: see [network.Roaming].
func peerConfig(key network.PeerKey, c network.Change[network.Peer]) wgtypes.PeerConfig {
	p := wgtypes.PeerConfig{PublicKey: wgtypes.Key(key.PublicKey)}
	if !c.Wanted {
		p.Remove, p.UpdateOnly = true, true
		return p
	}
	psk, keepalive := wgtypes.Key(c.Want.PresharedKey), time.Duration(c.Want.Keepalive)*time.Second
	p.PersistentKeepaliveInterval = &keepalive
	if !c.Present || c.Have.PresharedKey != c.Want.PresharedKey {
		p.PresharedKey = &psk
	}
	if !c.Present || c.Have.Endpoint != c.Want.Endpoint {
		p.Endpoint = net.UDPAddrFromAddrPort(c.Want.Endpoint)
	}
	return p
}

// AllowedIPs gives prefixes to peers, or takes them away. A prefix moves from one peer to another at once. To take one
// away from a peer that remains, all prefixes of that peer have to be set again, which loses packets to these for
// microseconds.
func (k *Kernel) AllowedIPs(batch []network.Update[network.AllowedIPKey, network.PublicKey]) {
	k.configurePeers(len(batch), func(i int) (string, wgtypes.PeerConfig) {
		u := &batch[i]
		if u.Change.Wanted {
			return u.Key.Link, wgtypes.PeerConfig{
				PublicKey: wgtypes.Key(u.Change.Want), UpdateOnly: true, AllowedIPs: []net.IPNet{*ipNet(u.Key.Prefix)},
			}
		}
		p := wgtypes.PeerConfig{PublicKey: wgtypes.Key(u.Change.Have), UpdateOnly: true}
		if k.tables.Peers.Get(network.PeerKey{Link: u.Key.Link, PublicKey: u.Change.Have}).Wanted {
			p.ReplaceAllowedIPs, p.AllowedIPs = true, k.prefixesOf(u.Key.Link, u.Change.Have)
		} // else the peer is removed, and its prefixes with it
		return u.Key.Link, p
	}, func(i int, err error) {
		batch[i].Err = fmt.Errorf("set allowed IP %s: %w", batch[i].Key, err)
	})
}

// prefixesOf returns the desired prefixes of a peer.
func (k *Kernel) prefixesOf(link string, peer network.PublicKey) (all []net.IPNet) {
	for key, c := range k.tables.AllowedIPs.All {
		if c.Wanted && key.Link == link && c.Want == peer {
			all = append(all, *ipNet(key.Prefix))
		}
	}
	return all
}

// configurePeers makes n changes of peers, those of a device together. If these fail, each is tried alone, to find out
// which one the kernel refuses.
func (k *Kernel) configurePeers(n int, change func(int) (string, wgtypes.PeerConfig), failed func(int, error)) {
	peers, of := make([]wgtypes.PeerConfig, n), map[string][]int{}
	for i := range n {
		var link string
		link, peers[i] = change(i)
		of[link] = append(of[link], i)
	}
	for link, changes := range of {
		if !k.tables.Links.Get(link).Present {
			continue // its peers are gone, and none is set on a device that is not ready
		}
		together := make([]wgtypes.PeerConfig, 0, len(changes))
		for _, i := range changes {
			together = append(together, peers[i])
		}
		err := k.wireGuards.configure(link, wgtypes.Config{Peers: together})
		if err == nil {
			continue
		}
		for _, i := range changes {
			if !errors.Is(err, errNoAnswer) && len(changes) > 1 {
				err = k.wireGuards.configure(link, wgtypes.Config{Peers: peers[i : i+1]})
			}
			if err != nil {
				failed(i, err)
			}
		}
	}
}

func endpointOf(a *net.UDPAddr) netip.AddrPort {
	if a == nil {
		return netip.AddrPort{}
	}
	p := a.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

func prefixOf(n net.IPNet) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if bits == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, ones), ok && bits == a.BitLen()
}

// wireGuardDevice is the [deviceKind] of WireGuard devices. They are made without any attributes of their own.
type wireGuardDevice struct{}

// create implements [deviceKind].
func (wireGuardDevice) create(k *Kernel, name string, want network.Link) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, want.MTU
	err := k.handle.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs})
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	if processes := k.wireGuards.processes; processes != nil {
		switch failed := processes.Start(name, time.Now()); {
		case failed == nil || errors.Is(failed, userspace.ErrStarting):
			return failed
		default:
			return errno.With(err,
				fmt.Sprintf("this kernel has no WireGuard, and --wireguard-userspace fails: %v", failed))
		}
	}
	return errno.With(err, fmt.Sprintf("this kernel has no WireGuard (CONFIG_WIREGUARD, module wireguard; Linux "+
		"5.6) and no user-space WireGuard serves the device at %s: load the module with \"modprobe wireguard\", "+
		"start selvaged with --wireguard-userspace, which is slower, or set another Backend.Type in the network "+
		"config, for all nodes", userspace.Socket(name)))
}

// change implements [deviceKind].
func (wireGuardDevice) change(*Kernel, string, int, network.LinkSettings, network.LinkSettings) (bool, error) {
	return false, nil
}

// decode implements [deviceKind].
func (wireGuardDevice) decode([]byte) network.LinkSettings { return nil }

// excludes implements [deviceKind].
func (wireGuardDevice) excludes([]byte, network.LinkSettings) bool { return false }

// WireGuardInterval is how often WireGuard devices are to be read: a thousandth of the time at most is spent on it.
func (k *Kernel) WireGuardInterval() time.Duration {
	const least, each = time.Second, 2 * time.Millisecond
	return max(least, time.Duration(k.tables.Peers.Counts().Wanted)*each)
}

// WireGuardTraffic returns what a WireGuard device has exchanged with its peers since it was first read.
func (k *Kernel) WireGuardTraffic(device string) network.Traffic {
	return k.wireGuards.roaming.Total(device)
}

// Session returns what the last read says of a peer; ok is false if it did not find the peer.
func (k *Kernel) Session(p network.PeerKey) (s network.Session, ok bool) {
	return k.wireGuards.roaming.Session(p)
}
