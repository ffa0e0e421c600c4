package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Messages are received into one buffer and decoded in place: with thousands of leases, tens of thousands arrive at a
// time, and the library copies each twice.

// receiveSize is how many bytes are received at once. No rtnetlink datagram is larger: dumps have parts of at most 32
// KiB (netlink_recvmsg in net/netlink/af_netlink.c).
const receiveSize = 64 << 10

// header has the relevant fields of a struct nlmsghdr.
type header struct {
	typ, flags uint16
	seq, port  uint32
}

var errMalformed = errors.New("the kernel's answer is malformed")

// eachMessage calls f with each netlink message in b. data is its payload.
func eachMessage(b []byte, f func(h header, data []byte)) error {
	for len(b) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.SizeofNlMsghdr || length > len(b) {
			return errMalformed
		}
		f(header{
			typ: binary.NativeEndian.Uint16(b[4:]), flags: binary.NativeEndian.Uint16(b[6:]),
			seq: binary.NativeEndian.Uint32(b[8:]), port: binary.NativeEndian.Uint32(b[12:]),
		}, b[unix.SizeofNlMsghdr:length])
		b = b[min(len(b), (length+3)&^3):]
	}
	return nil
}

// dump requests all objects of a kind and calls f with each message. f must not use the same socket, and data is valid
// only during the call.
func (k *Kernel) dump(request, answer uint16, f func(typ uint16, data []byte), parts ...nl.NetlinkRequestData) error {
	k.requests++
	r := nl.NewNetlinkRequest(int(request), unix.NLM_F_DUMP)
	for _, p := range parts {
		r.AddData(p)
	}
	counted := func(typ uint16, data []byte) { k.answers++; f(typ, data) }
	if err := k.batch.dump(r.Serialize(), answer, counted); err != nil {
		return fmt.Errorf("read the kernel's tables (rtnetlink request %d): %w", request, err)
	}
	return nil
}

// dump sends a request, and calls f with each message of the answer that has the type typ.
func (b *batch) dump(request []byte, typ uint16, f func(typ uint16, data []byte)) error {
	b.seq++
	binary.NativeEndian.PutUint32(request[8:], b.seq)
	if err := b.transmit(request); err != nil {
		return err
	}
	var failed error
	interrupted := false
	for done := false; !done; {
		answers, err := b.receive()
		if err == nil {
			err = eachMessage(answers, func(h header, data []byte) {
				if h.seq != b.seq {
					return // an answer to a request that was given up
				}
				interrupted = interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
				switch h.typ {
				case unix.NLMSG_DONE, unix.NLMSG_ERROR: // either can carry a negative errno
					done = true
					if errno := -int32(attrUint32(data)); errno != 0 {
						failed = unix.Errno(errno)
					}
				case typ:
					f(h.typ, data)
				}
			})
		}
		if err != nil {
			b.drain()
			return err
		}
	}
	if failed == nil && interrupted {
		return nl.ErrDumpInterrupted
	}
	return failed
}
