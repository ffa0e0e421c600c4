package vtep

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// element is one element of a set, in a form that takes no memory of its own.
type element struct {
	key    [unix.IFNAMSIZ]byte // an address or a device's name
	length uint8
	end    bool // a range has ended there
}

func newElement(key []byte, end bool) element {
	e := element{length: uint8(len(key)), end: end}
	copy(e.key[:], key)
	return e
}

// equal reports whether a set holds just what it is to hold.
func equal(want []nftables.SetElement, have []element) bool {
	w := make([]element, len(want))
	for i, e := range want {
		w[i] = newElement(e.Key, e.IntervalEnd)
	}
	order := func(a, b element) int {
		return cmp.Or(bytes.Compare(a.key[:], b.key[:]), cmp.Compare(flag(a.end), flag(b.end)))
	}
	slices.SortFunc(w, order)
	h := slices.SortedFunc(slices.Values(have), order)
	return slices.Equal(w, h)
}

func flag(on bool) int {
	if on {
		return 1
	}
	return 0
}

// elements lists a set; one that is not there is empty.
func (f *Filter) elements(set string) (list []element, err error) {
	err = f.ask(func() (err error) { list, err = f.dump(set); return err })
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return list, explain(err)
}

func (f *Filter) dump(set string) (list []element, err error) {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(Table + "\x00")},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(set + "\x00")},
	})
	if err != nil {
		return nil, fmt.Errorf("list the set %s: %w", set, err)
	}
	request, err := f.socket.Send(netlink.Message{
		Header: netlink.Header{Type: nftMessage(unix.NFT_MSG_GETSETELEM), Flags: netlink.Request | netlink.Dump},
		Data:   append(nfgenmsg(unix.NFPROTO_INET), attrs...),
	})
	if err != nil {
		return nil, fmt.Errorf("list the set %s: %w", set, err)
	}
	for m, err := range f.socket.ReceiveIter() {
		switch {
		case err != nil:
			return nil, fmt.Errorf("list the set %s: %w", set, err)
		case m.Header.Sequence != request.Header.Sequence || len(m.Data) < sizeofNfgenmsg:
			return nil, fmt.Errorf("list the set %s: the kernel's answer is malformed", set)
		}
		list = decodeElements(list, m.Data[sizeofNfgenmsg:])
	}
	return list, nil
}

// decodeElements appends the elements in the attributes of a message (include/uapi/linux/netfilter/nf_tables.h).
func decodeElements(list []element, message []byte) []element {
	for a, rest := cut(message); a.ok; a, rest = cut(rest) {
		if a.typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for e, rest := cut(a.value); e.ok; e, rest = cut(rest) {
			if x := decodeElement(e.value); x.length > 0 {
				list = append(list, x)
			}
		}
	}
	return list
}

func decodeElement(b []byte) (e element) {
	end := false
	for a, rest := cut(b); a.ok; a, rest = cut(rest) {
		switch {
		case a.typ == unix.NFTA_SET_ELEM_KEY:
			if key, _ := cut(a.value); key.typ == unix.NFTA_DATA_VALUE && len(key.value) <= len(e.key) {
				e = newElement(key.value, false)
			}
		case a.typ == unix.NFTA_SET_ELEM_FLAGS && len(a.value) == 4:
			end = binary.BigEndian.Uint32(a.value)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		}
	}
	e.end = end
	return e
}

// attribute is a netlink attribute: its type, without flags, and payload.
type attribute struct {
	typ   uint16
	value []byte
	ok    bool // it is one
}

// cut takes the first attribute off b. (An iterator would allocate for each nest, nine times an element.)
func cut(b []byte) (a attribute, rest []byte) {
	const typeMask = 1<<14 - 1 // NLA_TYPE_MASK
	if len(b) < unix.SizeofNlAttr {
		return attribute{}, nil
	}
	length := int(binary.NativeEndian.Uint16(b))
	if length < unix.SizeofNlAttr || length > len(b) {
		return attribute{}, nil
	}
	a = attribute{binary.NativeEndian.Uint16(b[2:]) & typeMask, b[unix.SizeofNlAttr:length], true}
	return a, b[min(len(b), (length+3)&^3):]
}

// present returns the peers in the sets, in order.
func (f *Filter) present() (peers []netip.Addr, err error) {
	for _, x := range families() {
		list, err := f.elements(x.peers())
		if err != nil {
			return nil, err
		}
		// Somebody may have made a set of ranges, or of something else than addresses, by that name.
		if slices.ContainsFunc(list, func(e element) bool { return e.end }) {
			continue
		}
		peers = slices.Grow(peers, len(list))
		for _, e := range list {
			if a, ok := netip.AddrFromSlice(e.key[:e.length]); ok && familyOf(a) == x {
				peers = append(peers, a)
			}
		}
	}
	slices.SortFunc(peers, netip.Addr.Compare)
	return slices.Compact(peers), nil
}
