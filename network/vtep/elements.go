package vtep

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// errInterrupted says that the ruleset changed while it was listed, so that the list may lack something.
var errInterrupted = errors.New("the packet filter changed while it was read")

// elements calls yield with the elements of a set: the key, and whether a range has ended there. It yields nothing if there
// is no such set. The key is valid during the call only.
//
// A transaction of anybody's, on whatever table, interrupts a list. Then it is begun anew, and what was yielded before is
// yielded again.
func (f *Filter) elements(set string, yield func(key []byte, end bool)) error {
	for n := 0; ; n++ {
		err := f.ask(func() error { return f.dump(set, yield) })
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err == nil || n == attempts || !errors.Is(err, errInterrupted):
			return explain(err)
		}
	}
}

func (f *Filter) dump(set string, yield func(key []byte, end bool)) error {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(Table + "\x00")},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(set + "\x00")},
	})
	if err != nil {
		return err
	}
	request := netlink.Message{
		Header: netlink.Header{Type: nftMessage(unix.NFT_MSG_GETSETELEM), Flags: netlink.Request | netlink.Dump},
		Data:   append(nfgenmsg(unix.NFPROTO_INET), attrs...),
	}
	if request, err = f.socket.Send(request); err != nil {
		return fmt.Errorf("list the set %s: %w", set, err)
	}
	interrupted := false
	for m, err := range f.socket.ReceiveIter() {
		switch {
		case err != nil:
			return fmt.Errorf("list the set %s: %w", set, err)
		case m.Header.Sequence != request.Header.Sequence || len(m.Data) < sizeofNfgenmsg:
			return fmt.Errorf("list the set %s: the kernel's answer is malformed", set)
		}
		interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
		decodeElements(m.Data[sizeofNfgenmsg:], yield)
	}
	if interrupted {
		return fmt.Errorf("list the set %s: %w", set, errInterrupted)
	}
	return nil
}

// decodeElements calls yield for each element in the attributes of a message (include/uapi/linux/netfilter/nf_tables.h).
func decodeElements(b []byte, yield func(key []byte, end bool)) {
	for typ, list := range attributes(b) {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for _, element := range attributes(list) {
			var key []byte
			end := false
			for typ, data := range attributes(element) {
				switch {
				case typ == unix.NFTA_SET_ELEM_KEY:
					for typ, value := range attributes(data) {
						if typ == unix.NFTA_DATA_VALUE {
							key = value
						}
					}
				case typ == unix.NFTA_SET_ELEM_FLAGS && len(data) == 4:
					end = binary.BigEndian.Uint32(data)&unix.NFT_SET_ELEM_INTERVAL_END != 0
				}
			}
			if key != nil {
				yield(key, end)
			}
		}
	}
}

// attributes yields the attributes in b: type, without flags, and payload.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			length := int(binary.NativeEndian.Uint16(b))
			if length < unix.SizeofNlAttr || length > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&unix.NLA_TYPE_MASK, b[unix.SizeofNlAttr:length]) {
				return
			}
			b = b[min(len(b), (length+3)&^3):]
		}
	}
}

// present returns the peers in the sets.
func (f *Filter) present() (peers []netip.Addr, err error) {
	for _, x := range families() {
		from := len(peers)
		again := func(key []byte, _ bool) {
			if a, ok := netip.AddrFromSlice(key); ok && uint32(len(key)) == x.key.Bytes {
				peers = append(peers, a)
			}
		}
		if err := f.elements(x.peers(), again); err != nil {
			return nil, err
		}
		_ = from
	}
	return peers, nil
}
