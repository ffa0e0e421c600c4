package fastpath

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// mappedBits are those of the prefix under which IPv6 has IPv4 addresses.
const mappedBits = 96

func subnetKey(p netip.Prefix) (key programsSubnet, err error) {
	if !p.IsValid() {
		return key, errors.New("the fast path has no peer for an invalid subnet")
	}
	key = programsSubnet{Bits: uint32(p.Bits()), Address: p.Masked().Addr().As16()}
	if p.Addr().Is4() {
		key.Bits += mappedBits
	}
	return key, nil
}

func (key programsSubnet) prefix() netip.Prefix {
	addr, bits := netip.AddrFrom16(key.Address), int(key.Bits)
	if addr.Is4In6() && bits >= mappedBits {
		addr, bits = addr.Unmap(), bits-mappedBits
	}
	return netip.PrefixFrom(addr, bits)
}

// SetPeer says which node has a subnet. Without it, no connection with the subnet becomes fast. What was learned
// before stays in force: [Path.Flush] after the last of several changes.
func (p *Path) SetPeer(subnet netip.Prefix, peer Peer) error {
	key, err := subnetKey(subnet)
	if err != nil {
		return err
	}
	if !peer.Address.IsValid() {
		return fmt.Errorf("the fast path needs an address on the underlay of the peer for %s", subnet)
	}
	value := programsPeer{Address: wire(peer.Address), Mac: peer.MAC, Direct: asByte(peer.Direct)}
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

// batch is the number of peers read by one system call.
const batch = 1024

// EachPeer calls a function with each peer, as read back from the kernel.
func (p *Path) EachPeer(do func(subnet netip.Prefix, peer Peer)) error {
	var cursor ebpf.MapBatchCursor
	keys, values := make([]programsSubnet, batch), make([]programsPeer, batch)
	for {
		n, err := p.objects.Peers.BatchLookup(&cursor, keys, values, nil)
		for i, key := range keys[:n] {
			v := &values[i]
			do(key.prefix(), Peer{Address: fromWire(v.Address), MAC: v.Mac, Direct: v.Direct != 0})
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) { // the end
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the fast path's peers: %w", err)
		}
	}
}
