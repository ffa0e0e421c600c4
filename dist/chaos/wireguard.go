package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/subnet"
)

// With [WireGuard], a lease asks for these as well:
//
//   - kind "wireguard": what a device is configured with. Its private key has to be that of the lease's public key.
//   - kind "peer", with the endpoint, and kind "allowed IP": a prefix with the one peer that has it.
//   - kind "backstop": a blackhole route with the last metric. It ends the packets that no device takes.
//
// They are read with wgctrl, from the kernel or from the program that serves the device.

const (
	// wireGuardOverhead is by how much pods' MTU is below the uplink's: IPv6 40, UDP 8, WireGuard 32.
	wireGuardOverhead = 80
	// wireGuardInterval is how often a daemon compares what is on WireGuard devices with the leases: nothing reports a
	// change there. A program that has just started counts as well, since its device appears before its socket.
	wireGuardInterval = time.Second
	// wireGuardMoved is how long the repair of an endpoint may take: the bound of [Peers], and 1.5 s that a peer has to
	// answer, since it may have moved, until the next comparison.
	wireGuardMoved = 200*time.Millisecond + 3*wireGuardInterval
	// wireGuardReturned is how long it may take until a peer is found at its lease's endpoint again, to which it has
	// returned without sending anything. A daemon probes it every 10 s, asks it when it has not answered for 5 s, and
	// then has the endpoint repaired.
	wireGuardReturned = 15*time.Second + wireGuardMoved
	// wireGuardRetry is after how long a first message of a handshake is sent again: Rekey-Timeout (section 6.1 of
	// WireGuard's paper), and up to 333 ms of jitter, as section 6.4 has it.
	wireGuardRetry = 5*time.Second + 334*time.Millisecond
)

// wireGuardOf is the name of the WireGuard device that carries a family's overlay, in the mode separate.
func wireGuardOf(f subnet.Family) string { return [...]string{"flannel-wg", "flannel-wg-v6"}[f] }

// wireGuards are the devices of each node.
func (s *Suite) wireGuards() (devices []string) {
	if s.options.Backend == WireGuard {
		for _, f := range s.families {
			devices = append(devices, wireGuardOf(f))
		}
	}
	return devices
}

// typeOf is the type of a device. The device of a program is a tun device: that it is one for WireGuard shows when what
// is on it is read.
func typeOf(l netlink.Link) string {
	_, tun := l.(*netlink.Tuntap)
	for _, f := range subnet.Families() {
		if tun && l.Attrs().Name == wireGuardOf(f) {
			return "wireguard"
		}
	}
	return l.Type()
}

func (e entry) wireGuardText() string {
	switch e.kind {
	case "peer":
		return fmt.Sprintf("peer at %s dev %s, %s", e.ip, e.link, e.detail)
	case "backstop":
		return fmt.Sprintf("backstop %s", e.prefix)
	case "wireguard":
		return fmt.Sprintf("wireguard dev %s, %s", e.link, e.detail)
	default:
		return fmt.Sprintf("allowed IP %s dev %s, %s", e.prefix, e.link, e.detail)
	}
}

// wireGuardData is what a lease says of a family.
type wireGuardData struct {
	PublicKey string
	Port      int
}

func parseWireGuard(e subnet.Endpoint) (data wireGuardData, err error) {
	err = json.Unmarshal([]byte(e.Data), &data)
	return data, err
}

// wireGuardLease adds what one lease asks for in one family.
func (s entries) wireGuardLease(e subnet.Endpoint, f subnet.Family, own bool, u uplink) error {
	data, err := parseWireGuard(e)
	if err != nil {
		return fmt.Errorf("%s: %w", f, err)
	}
	device := wireGuardOf(f)
	if own {
		s.add(entry{family: f, kind: "device", link: device,
			detail: attributes("wireguard", 0, 0, u.mtu-wireGuardOverhead, network.Alias, true, false, 0)})
		address := e.Subnet.Addr()
		s.add(entry{family: f, kind: "address", link: device, prefix: netip.PrefixFrom(address, address.BitLen())})
		s.add(wireGuardEntry(f, data.PublicKey, data.Port, 0))
		return nil
	}
	s.add(peerEntry(f, data.PublicKey, netip.AddrPortFrom(e.PublicIP, uint16(data.Port)), false, 0))
	s.add(entry{family: f, kind: "allowed IP", link: device, prefix: e.Subnet, detail: "peer " + data.PublicKey})
	s.add(entry{family: f, kind: "route", link: device, prefix: e.Subnet})
	return nil
}

func wireGuardEntry(f subnet.Family, publicKey string, port, mark int) entry {
	return entry{family: f, kind: "wireguard", link: wireGuardOf(f),
		detail: fmt.Sprintf("public key %s port %d mark %d", publicKey, port, mark)}
}

func peerEntry(f subnet.Family, key string, endpoint netip.AddrPort, preshared bool, keepalive time.Duration) entry {
	return entry{family: f, kind: "peer", link: wireGuardOf(f), ip: endpoint.Addr(),
		detail: fmt.Sprintf("port %d key %s preshared key %t keepalive %s", endpoint.Port(), key, preshared, keepalive)}
}

// addBackstops adds the blackhole routes. Together they hold every subnet that a node may get by [Options.config], in
// as few prefixes as possible. If the store gives the nodes their subnets, that is Network.
func (s entries) addBackstops(families []subnet.Family, store subnet.StoreKind) {
	all := [...][]string{
		subnet.IPv4: {"10.5.1.0/24", "10.5.2.0/23", "10.5.4.0/22", "10.5.8.0/21", "10.5.16.0/20", "10.5.32.0/19",
			"10.5.64.0/18", "10.5.128.0/18", "10.5.192.0/21"},
		subnet.IPv6: {"fd00:5:0:1::/64", "fd00:5:0:2::/63", "fd00:5:0:4::/62", "fd00:5:0:8::/61", "fd00:5:0:10::/60",
			"fd00:5:0:20::/59", "fd00:5:0:40::/58", "fd00:5:0:80::/58", "fd00:5:0:c0::/61"},
	}
	if store == subnet.StoreKubernetes {
		all = [...][]string{subnet.IPv4: {"10.5.0.0/16"}, subnet.IPv6: {"fd00:5::/32"}}
	}
	for _, f := range families {
		for _, prefix := range all[f] {
			s.add(entry{family: f, kind: "backstop", prefix: netip.MustParsePrefix(prefix)})
		}
	}
}

// isBackstop reports whether a route is one of selvage's blackholes.
func isBackstop(typ, protocol byte, metric uint32) bool {
	return typ == unix.RTN_BLACKHOLE && protocol == routeProtocol && metric == math.MaxUint32
}

// wireGuardDevice reads a WireGuard device of the node.
func (h *host) wireGuardDevice(f subnet.Family) (d *wgtypes.Device, err error) {
	err = h.Do(func() (err error) {
		d, err = h.wireGuard.Device(wireGuardOf(f))
		return err
	})
	return d, err
}

// readWireGuards adds what is on the WireGuard devices. A device that cannot be read, because its program has just
// ended for instance, has nothing on it but the reason.
func (h *host) readWireGuards(families []subnet.Family, have entries) {
	for _, f := range families {
		d, err := h.wireGuardDevice(f)
		if err != nil {
			have.add(entry{
				family: f, kind: "wireguard", link: wireGuardOf(f), detail: "cannot be read: " + err.Error(),
			})
			continue
		}
		have.addWireGuard(f, d)
	}
}

// addWireGuard adds what is on a device.
func (s entries) addWireGuard(f subnet.Family, d *wgtypes.Device) {
	s.add(wireGuardEntry(f, d.PrivateKey.PublicKey().String(), d.ListenPort, d.FirewallMark))
	for _, p := range d.Peers {
		endpoint := netip.AddrPort{}
		if p.Endpoint != nil {
			endpoint = netip.AddrPortFrom(addrOf(p.Endpoint.IP), uint16(p.Endpoint.Port))
		}
		key := p.PublicKey.String()
		s.add(peerEntry(f, key, endpoint, p.PresharedKey != wgtypes.Key{}, p.PersistentKeepaliveInterval))
		for _, n := range p.AllowedIPs {
			s.add(entry{
				family: f, kind: "allowed IP", link: wireGuardOf(f), prefix: prefixOf(&n), detail: "peer " + key,
			})
		}
	}
}

// awaitPath waits until the pods that a stream goes between reach each other. The tables are right before a handshake
// is: so the stream goes on until then.
func (s *Suite) awaitPath(ctx context.Context, o *Outcome, from *host) {
	for _, f := range s.families {
		r := s.lab.ProbeFamily(ctx, f, from.pods[0].Endpoint, s.next(from).pods[0].Endpoint)
		for end := time.Now().Add(s.options.Patience); r.Err != nil && time.Now().Before(end) && ctx.Err() == nil; {
			r = s.lab.ProbeFamily(ctx, f, from.pods[0].Endpoint, s.next(from).pods[0].Endpoint)
		}
		if r.Err != nil {
			o.Wrong = append(o.Wrong, fmt.Sprintf("%s does not reach %s over %s: %v", r.From, r.To, f, r.Err))
		}
	}
}

// lasted is how long the fault itself has lasted, until selvage could repair it.
func (t *target) lasted() time.Duration {
	end := t.start
	for _, at := range t.since {
		if at.After(end) {
			end = at
		}
	}
	return end.Sub(t.fault)
}

// judgeWireGuard judges for how long packets were lost: until the device is repaired, and no longer. What is sent from
// then on begins a handshake, and waits for it in the device's queue. But if all nodes are broken, one that is repaired
// before its peer sends a first message that the peer cannot read yet. Nothing makes it send another before
// [wireGuardRetry] is over.
func (s *Suite) judgeWireGuard(o *Outcome) {
	if s.options.Backend != WireGuard || o.Where == Stopped {
		return
	}
	bound := o.Fault.worst(o.Where) + o.Lasted
	if o.Where == AllNodes && o.Fault.BoundAll == 0 {
		bound += wireGuardRetry
	}
	for _, r := range o.Traffic {
		if slices.Contains(o.Families, r.Family) && r.Gap > bound {
			o.Late = append(o.Late, fmt.Sprintf("packets of %s were lost for longer than %s", r.Family, short(bound)))
		}
	}
}
