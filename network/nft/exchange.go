package nft

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/google/nftables"
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
	// replyTimeout bounds the wait for a reply. The kernel queues its reply before the request returns, so this is only
	// reached by a reply that never comes: the library waits for one reply to each message of a transaction, and there
	// is only one if the kernel rejects the whole transaction.
	replyTimeout = 5 * time.Second
)

// Conn is a connection to nf_tables in one network namespace. Its methods are not safe for concurrent use.
type Conn struct {
	conn         *nftables.Conn
	socket       *netlink.Conn // of conn
	replyTimeout time.Duration
}

// Dial connects to nf_tables in the network namespace of the calling thread, or returns [ErrUnsupported].
func Dial() (*Conn, error) {
	c := &Conn{replyTimeout: replyTimeout}
	var err error
	// The library does not export its socket, but hands it to this option.
	c.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(s *netlink.Conn) error {
		c.socket = s
		return s.SetWriteBuffer(sendBuffer)
	}))
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", explain(err))
	}
	if err := c.probe(); err != nil {
		return nil, errors.Join(fmt.Errorf("query nf_tables: %w", err), c.Close())
	}
	return c, nil
}

// Close closes the socket. The kernel keeps the tables.
func (c *Conn) Close() error { return c.conn.CloseLasting() }

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
