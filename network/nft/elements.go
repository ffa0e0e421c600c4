package nft

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"io/fs"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// maxKey is the longest key that an [Element] holds, in bytes: an IPv6 address or a device name.
const maxKey = 16

// Element is one element of a set, in a form that needs no allocation.
type Element struct {
	key    [maxKey]byte
	length uint8
	End    bool // the first key after a range
}

// Key returns an address, a device name, or whatever else the set holds. It is empty for a catch-all element and for a
// key longer than 16 bytes.
func (e *Element) Key() []byte { return e.key[:e.length] }

func newElement(key []byte, end bool) Element {
	e := Element{length: uint8(len(key)), End: end}
	copy(e.key[:], key)
	return e
}

// equal reports whether a set holds exactly the desired elements.
func equal(want []nftables.SetElement, have []Element) bool {
	w := make([]Element, len(want))
	for i, e := range want {
		w[i] = newElement(e.Key, e.IntervalEnd)
	}
	order := func(a, b Element) int {
		return cmp.Or(bytes.Compare(a.key[:], b.key[:]), cmp.Compare(flag(a.End), flag(b.End)))
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

// Elements lists the elements of a set, none if the set does not exist.
func (c *Conn) Elements(family nftables.TableFamily, table, set string) (list []Element, err error) {
	attrs := []netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(table + "\x00")},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(set + "\x00")},
	}
	err = c.dump("list the set "+set, unix.NFT_MSG_GETSETELEM, family, attrs, func(m []byte) {
		list = decodeElements(list, m)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return list, err
}

// decodeElements appends the elements in the attributes of a message (include/uapi/linux/netfilter/nf_tables.h).
func decodeElements(list []Element, message []byte) []Element {
	for a, rest := cut(message); a.ok; a, rest = cut(rest) {
		if a.typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for e, rest := cut(a.value); e.ok; e, rest = cut(rest) {
			list = append(list, decodeElement(e.value))
		}
	}
	return list
}

func decodeElement(b []byte) (e Element) {
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
	e.End = end
	return e
}

// attribute is a netlink attribute: its type, without flags, and payload.
type attribute struct {
	typ   uint16
	value []byte
	ok    bool // false at the end of the attributes
}

// cut splits the first attribute off b. (An iterator would allocate for each nest, nine times for each element.)
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
