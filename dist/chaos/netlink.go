package chaos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// message is the payload of an rtnetlink message: a header that depends on the kind, then attributes.
type message []byte

// Len and Serialize make a message a part of a request.
func (m message) Len() int          { return len(m) }
func (m message) Serialize() []byte { return m }

// attributes calls f with each attribute behind a header of the given length: rtnetlink(7).
func (m message) attributes(header int, f func(typ uint16, value []byte)) {
	for b := m[header:]; len(b) >= unix.SizeofRtAttr; {
		length, typ := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if length < unix.SizeofRtAttr || length > len(b) {
			return
		}
		f(typ&nl.NLA_TYPE_MASK, b[unix.SizeofRtAttr:length])
		b = b[min(len(b), (length+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
	}
}

// change asks the kernel to change something.
func (r *reader) change(request, flags int, parts ...nl.NetlinkRequestData) error {
	q := nl.NewNetlinkRequest(request, flags|unix.NLM_F_ACK)
	q.Sockets = r.sockets
	for _, p := range parts {
		q.AddData(p)
	}
	_, err := q.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// dump asks for all objects of a kind.
func (r *reader) dump(request, answer int, header message, parts []nl.NetlinkRequestData, f func(message)) error {
	q := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
	q.Sockets = r.sockets
	q.AddData(header)
	for _, p := range parts {
		q.AddData(p)
	}
	err := q.ExecuteIter(unix.NETLINK_ROUTE, uint16(answer), func(data []byte) bool {
		f(data)
		return true
	})
	switch {
	case errors.Is(err, nl.ErrDumpInterrupted), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT):
		return nil // something comes or goes right now: it is read again
	case err != nil:
		return fmt.Errorf("dump (rtnetlink request %d): %w", request, err)
	}
	return nil
}

// readAttempts bounds how often a dump is repeated that a change interrupted.
const readAttempts = 20

// again calls list until no change interrupts it. What is read while others write may still be of no single moment.
func again[T any](list func() ([]T, error)) (all []T, err error) {
	for range readAttempts {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return all, nil
}

// gone takes an error that says a device has vanished since it was listed for what it is.
func gone(err error) error {
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// addrOf is an address from netlink; IPv4 never comes mapped into IPv6.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// prefixOf is a prefix from netlink. A default route comes as nil, or with length 0.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), bits)
}

// ipNet is the inverse of prefixOf.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
