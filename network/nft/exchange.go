package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/errno"
)

// ErrUnsupported means that this kernel has no nf_tables, lacks a part of it, or denies access to it.
var ErrUnsupported = errors.New("nf_tables, or a part of it, is not available")

const (
	// sendBuffer bounds the size of a transaction, in bytes. The kernel grants root what it asks for, and others what
	// net.core.wmem_max allows: twice 208 KiB, enough for 26,000 IPv4 or 15,000 IPv6 addresses.
	sendBuffer = 8 << 20
	// receiveBuffer is the size of the buffer for one reply, in bytes. The kernel fills as much of a listing into one
	// reply as the largest buffer it was given so far holds, up to 32 KiB (netlink_recvmsg in af_netlink.c).
	receiveBuffer = 32 << 10
	// replyTimeout bounds the time of a request. The kernel queues its reply before the request returns, so this is
	// only reached by a reply that never comes, because it did not fit into the receive buffer.
	replyTimeout = 30 * time.Second
)

// Conn is a connection to nf_tables in one network namespace. Its methods are not safe for concurrent use.
type Conn struct {
	socket       *netlink.Conn
	replyTimeout time.Duration
}

// Dial connects to nf_tables in the network namespace of the calling thread, or returns [ErrUnsupported].
func Dial() (*Conn, error) {
	socket, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{MessageBufferSize: receiveBuffer})
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", explain(err))
	}
	c := &Conn{socket: socket, replyTimeout: replyTimeout}
	if err := socket.SetWriteBuffer(sendBuffer); err != nil {
		return nil, errors.Join(fmt.Errorf("set the buffer of a netlink socket: %w", err), c.Close())
	}
	// An error then holds the header of the rejected message only, and fits into the receive buffer. The kernel has
	// this since 4.3.
	_ = socket.SetOption(netlink.CapAcknowledge, true)
	if err := c.probe(); err != nil {
		return nil, errors.Join(fmt.Errorf("query nf_tables: %w", err), c.Close())
	}
	return c, nil
}

// Close closes the socket. The kernel keeps the tables.
func (c *Conn) Close() error { return c.socket.Close() }

// Port returns the netlink port of the connection, which identifies our own changes among the events of [Watch].
func (c *Conn) Port() uint32 { return c.socket.PID() }

// exchange runs one request and its replies under a deadline. All methods use it.
func (c *Conn) exchange(request func() error) error {
	if err := c.socket.SetDeadline(time.Now().Add(c.replyTimeout)); err != nil {
		return err
	}
	err := request()
	if err != nil {
		c.drain()
	}
	return err
}

// acknowledgement receives the kernel's reply to one message of a transaction: the sequence number of the message,
// and the error if the kernel rejected it. Without a sequence number, the error is that of receiving. (The library's
// Receive does not return the sequence number of an error.)
func (c *Conn) acknowledgement() (sequence uint32, err error) {
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return 0, err
	}
	var b [256]byte // of the rejected message only its header matters
	n, failure := 0, error(nil)
	err = raw.Read(func(fd uintptr) bool {
		n, _, failure = unix.Recvfrom(int(fd), b[:], unix.MSG_DONTWAIT)
		return failure != unix.EAGAIN && failure != unix.EINTR
	})
	const sizeofError = unix.NLMSG_HDRLEN + 4 // struct nlmsgerr begins with the error
	switch {
	case err != nil:
		return 0, err
	case failure != nil:
		return 0, os.NewSyscallError("recvfrom", failure)
	case n < sizeofError || binary.NativeEndian.Uint16(b[4:]) != unix.NLMSG_ERROR:
		return 0, errors.New("a reply to another request")
	}
	if code := int32(binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN:])); code != 0 {
		err = unix.Errno(-code)
	}
	return binary.NativeEndian.Uint32(b[8:]), err
}

// drain discards replies that were not read, so that the next exchange does not mistake them for its own.
func (c *Conn) drain() {
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		b := make([]byte, 64<<10) // a longer message is truncated, and discarded as well
		for {
			_, _, err := unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT)
			if err != nil && err != unix.EINTR && err != unix.ENOBUFS { // ENOBUFS reports a past overrun, once
				return
			}
		}
	})
}

// probe makes a request that needs only nf_tables and the permission to use it.
func (c *Conn) probe() error {
	_, err := c.Generation()
	return err
}

// Generation returns the generation number of the ruleset. It changes with every change to nf_tables.
func (c *Conn) Generation() (n uint32, err error) {
	const id = 1 // NFTA_GEN_ID
	return n, c.exchange(func() error {
		messages, err := c.socket.Execute(netlink.Message{
			Header: netlink.Header{Type: nftMessage(unix.NFT_MSG_GETGEN), Flags: netlink.Request},
			Data:   nfgenmsg(unix.NFPROTO_UNSPEC),
		})
		if errors.Is(err, unix.EINVAL) { // nfnetlink_rcv_msg, where no such subsystem is registered
			err = fmt.Errorf("%w: %w", ErrUnsupported,
				errno.With(err, "use a kernel with nf_tables (CONFIG_NF_TABLES), and load the module"))
		}
		for _, m := range messages {
			if len(m.Data) >= sizeofNfgenmsg {
				n = number(attr(m.Data[sizeofNfgenmsg:], id))
			}
		}
		return explain(err)
	})
}

// explain says what an error of the kernel means. Those that mean "not supported" are wrapped in [ErrUnsupported].
func explain(err error) error {
	err = errno.Explain(errno.NFTables, err)
	for _, e := range []error{unix.EPERM, unix.EACCES, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
	}
	return err
}

// explainCreate is explain for a transaction that creates the table first: "not found" then means a part of nf_tables.
func explainCreate(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrUnsupported, errno.Explain(errno.NFTables, err))
	}
	return explain(err)
}

func nftMessage(typ uint16) netlink.HeaderType {
	return netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | typ)
}

// nfgenmsg returns a struct nfgenmsg (include/uapi/linux/netfilter/nfnetlink.h), the header of every message: family,
// version 0, and a resource id that these messages do not use.
func nfgenmsg(family byte) []byte { return []byte{family, 0, 0, 0} }

const sizeofNfgenmsg = 4
