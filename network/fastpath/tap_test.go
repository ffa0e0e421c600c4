package fastpath

import (
	"bytes"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// tap sends and receives whole frames at eth0 of a namespace. What it receives is what arrived, before any program.
type tap struct {
	l  *lab
	fd int
}

func (l *lab) newTap(ns *sandbox.Net) *tap {
	l.t.Helper()
	tap := &tap{l: l}
	l.do(ns, func() (err error) {
		const everything = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xffff
		if tap.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, everything); err != nil {
			return os.NewSyscallError("socket", err)
		}
		to := &unix.SockaddrLinklayer{Protocol: everything, Ifindex: l.link("eth0").Attrs().Index}
		wait := unix.NsecToTimeval(int64(10 * time.Millisecond))
		return errors.Join(unix.Bind(tap.fd, to),
			unix.SetsockoptInt(tap.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1), // no egress programs
			unix.SetsockoptTimeval(tap.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
	})
	l.t.Cleanup(func() { unix.Close(tap.fd) })
	return tap
}

func (t *tap) send(frame []byte) {
	t.l.t.Helper()
	if _, err := unix.Write(t.fd, frame); err != nil {
		t.l.t.Fatalf("send a frame: %v", err)
	}
}

// receive waits for a frame that arrived with a text in it.
func (t *tap) receive(text []byte) []byte {
	t.l.t.Helper()
	frame := make([]byte, 1<<16)
	for deadline := time.Now().Add(patient); time.Now().Before(deadline); {
		n, from, err := unix.Recvfrom(t.fd, frame, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.l.t.Fatalf("receive a frame: %v", err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if bytes.Contains(frame[:n], text) {
			return bytes.Clone(frame[:n])
		}
	}
	t.l.t.Fatalf("no frame arrives with %q", text)
	return nil
}

// drain forgets what has arrived.
func (t *tap) drain() {
	t.l.t.Helper()
	var frame [1]byte
	for {
		if _, _, err := unix.Recvfrom(t.fd, frame[:], unix.MSG_DONTWAIT); errors.Is(err, unix.EAGAIN) {
			return
		} else if err != nil && !errors.Is(err, unix.EINTR) {
			t.l.t.Fatalf("receive a frame: %v", err)
		}
	}
}
