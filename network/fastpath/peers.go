package fastpath

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

func subnetKey(p netip.Prefix) (programsSubnet, error) {
	if !p.Addr().Is4() {
		return programsSubnet{}, fmt.Errorf("the fast path has no peers of IPv6 subnets such as %s", p)
	}
	return programsSubnet{Bits: uint32(p.Bits()), Address: wire32(p.Masked().Addr())}, nil
}

// SetPeer says which node has a subnet. Without it, no connection with the subnet becomes fast. What was learned
// before stays in force: [Path.Flush] after the last of several changes.
func (p *Path) SetPeer(subnet netip.Prefix, peer Peer) error {
	key, err := subnetKey(subnet)
	if err != nil {
		return err
	}
	if !peer.Address.Is4() {
		return fmt.Errorf("the fast path has no peer %q: it needs an IPv4 address on the underlay", peer.Address)
	}
	value := programsPeer{Address: wire32(peer.Address), Mac: peer.MAC}
	if err := p.objects.Peers.Put(key, value); err != nil {
		return fmt.Errorf("set the fast path's peer for %s: %w", subnet, err)
	}
	return nil
}

// DeletePeer removes what [Path.SetPeer] set. A subnet without a peer is no error.
func (p *Path) DeletePeer(subnet netip.Prefix) error {
	key, err := subnetKey(subnet)
	if err != nil {
		return err
	}
	if err := p.objects.Peers.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete the fast path's peer for %s: %w", subnet, err)
	}
	return nil
}

// Peers reads the peers back from the kernel.
func (p *Path) Peers() (map[netip.Prefix]Peer, error) {
	peers := map[netip.Prefix]Peer{}
	var key programsSubnet
	var value programsPeer
	all := p.objects.Peers.Iterate()
	for all.Next(&key, &value) {
		peers[netip.PrefixFrom(fromWire32(key.Address), int(key.Bits))] =
			Peer{Address: fromWire32(value.Address), MAC: value.Mac}
	}
	if err := all.Err(); err != nil {
		return nil, fmt.Errorf("read the fast path's peers: %w", err)
	}
	return peers, nil
}
