package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// batch collects requests that change the kernel and sends them in one message, which the kernel processes in order. It
// acknowledges the last one, and of the others those that failed. Between two batches the same socket serves dumps, see
// [batch.dump].
//
// It belongs to one goroutine, and can be reused after [batch.send].
type batch struct {
	fd       int
	seq      uint32 // of the last request sent
	buf      []byte // the requests, as the encoders append them
	requests []request
	answers  []byte
}

// request is one request of a batch.
type request struct {
	start  int         // offset in batch.buf
	failed func(error) // called if the kernel refuses it
}

// answerBuffer is the receive buffer for acknowledgements, in bytes.
const answerBuffer = 1 << 20

func openBatch() (*batch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	b := &batch{fd: fd, answers: make([]byte, receiveSize)}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		b.close()
		return nil, fmt.Errorf("bind a netlink socket: %w", err)
	}
	// An answer comes at once; the timeout only keeps a bug, ours or the kernel's, from blocking the daemon forever.
	// The other options shorten acknowledgements and add the kernel's error text (Linux 4.12).
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 60})
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	// With strict checking (Linux 4.20) the kernel dumps only what was requested, such as one table's routes. Without
	// it a dump has more, which is ignored.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	// The default buffer holds the answers to some 270 failed requests, and a batch can have 256.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, answerBuffer)
	return b, nil
}

func (b *batch) close() { unix.Close(b.fd) }

// add adds one request: buf is b.buf with the request appended.
func (b *batch) add(buf []byte, failed func(error)) {
	b.requests = append(b.requests, request{len(b.buf), failed})
	b.buf = buf
}

// send makes the kernel execute the requests, and calls failed of each one that it refused.
func (b *batch) send() {
	if len(b.requests) == 0 {
		return
	}
	first := b.seq + 1
	for _, r := range b.requests {
		b.seq++
		binary.NativeEndian.PutUint32(b.buf[r.start+8:], b.seq)
	}
	last := b.buf[b.requests[len(b.requests)-1].start:]
	binary.NativeEndian.PutUint16(last[6:], binary.NativeEndian.Uint16(last[6:])|unix.NLM_F_ACK)
	err := b.transmit(b.buf)
	for done := false; err == nil && !done; {
		done, err = b.answered(first)
	}
	if err != nil { // it is unknown which requests were executed
		b.drain()
		for _, r := range b.requests {
			r.failed(fmt.Errorf("exchange netlink messages: %w", err))
		}
	}
	clear(b.requests) // releases what the closures refer to
	b.buf, b.requests = b.buf[:0], b.requests[:0]
}

// transmit sends messages to the kernel.
func (b *batch) transmit(messages []byte) error {
	return retry(func() error { return unix.Sendto(b.fd, messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) })
}

// receive returns one datagram. It is valid until the next one.
func (b *batch) receive() ([]byte, error) {
	var n int
	err := retry(func() (err error) { n, err = unix.Read(b.fd, b.answers); return err })
	if err != nil {
		return nil, err
	}
	return b.answers[:n], nil
}

// drain discards the queued answers. The kernel queues nothing more on a socket that overran until all of its queue has
// been received (netlink_attachskb in net/netlink/af_netlink.c): the next batch would wait for its answer forever.
func (b *batch) drain() {
	for {
		_, _, err := unix.Recvfrom(b.fd, b.answers, unix.MSG_DONTWAIT)
		if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
			return
		}
	}
}

// answered receives answers to requests whose sequence numbers begin with first, and reports whether the last request's
// was among them.
func (b *batch) answered(first uint32) (done bool, err error) {
	answers, err := b.receive()
	if err != nil {
		return false, err
	}
	err = eachMessage(answers, func(h header, data []byte) {
		// An answer out of range belongs to an earlier request that was given up.
		i := h.seq - first
		if h.typ != unix.NLMSG_ERROR || i >= uint32(len(b.requests)) {
			return
		}
		if err := answer(h.flags, data); err != nil {
			b.requests[i].failed(err)
		}
		done = done || int(i) == len(b.requests)-1
	})
	return done, err
}

// answer decodes a struct nlmsgerr, with the flags of its header: nil for success.
func answer(flags uint16, b []byte) error {
	if len(b) < 4+unix.SizeofNlMsghdr {
		return errMalformed
	}
	errno := -int32(binary.NativeEndian.Uint32(b))
	if errno == 0 {
		return nil
	}
	echoed := unix.SizeofNlMsghdr
	if flags&unix.NLM_F_CAPPED == 0 { // the whole request follows
		echoed = int(binary.NativeEndian.Uint32(b[4:])+3) &^ 3
	}
	err := error(unix.Errno(errno))
	if flags&unix.NLM_F_ACK_TLVS != 0 && len(b) >= 4+echoed {
		for typ, data := range attributes(b[4+echoed:]) {
			if typ == unix.NLMSGERR_ATTR_MSG {
				err = fmt.Errorf("%w: %s", err, attrString(data))
			}
		}
	}
	return err
}

func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
